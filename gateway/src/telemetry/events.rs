//! Events: what happens to the gateway itself, in the log. Servers that go down, components that fail,
//! configurations that are taken or refused.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use super::clock::Dates;
use super::escape;
use super::log::{Lines, LogSink, Queue, Severity};
use crate::config::{Log, LogFormat, LogTarget};

/// Starts writing events to the log, filtered by `GATEWAY_LOG` (as `debug` or `gateway::policy=trace`); `info` unless it says
/// otherwise. Where a subscriber is installed already, as in tests, it stays.
///
/// Events go through a queue and a thread as access lines do: a terminal that was stopped does not stop a worker.
pub fn start(log: &Log, sink: &LogSink) {
    let is_terminal = match log.target {
        LogTarget::Stdout => io::stdout().is_terminal(),
        LogTarget::Stderr => io::stderr().is_terminal(),
        LogTarget::File(_) | LogTarget::Syslog { .. } => false,
    };
    let said = std::env::var_os(FILTER).filter(|said| !said.is_empty());
    let filter = said.and_then(|said| {
        let said = said.to_string_lossy();
        EnvFilter::try_new(&said)
            // What it was meant to show would be missed and not found.
            .inspect_err(|error| {
                eprintln!("gateway: {FILTER}={said:?} is left aside, as it is no filter of events: {error}")
            })
            .ok()
    });
    let filter = filter.unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(EventWriter(sink.queue()));
    let is_syslog = matches!(log.target, LogTarget::Syslog { .. });
    let _ = match sink.format() {
        // The message's header has the time and the severity.
        LogFormat::Text if is_syslog => {
            let builder = builder.with_target(false).with_ansi(false);
            builder.with_level(false).without_time().try_init()
        }
        LogFormat::Text => builder.with_target(false).with_ansi(is_terminal).try_init(),
        LogFormat::Json => builder.event_format(Json).try_init(),
    };
}

/// Makes a buffer an event.
#[derive(Debug)]
struct EventWriter(Queue);

/// One event; handed over when it is dropped.
#[derive(Debug)]
struct EventLine {
    queue: Queue,
    bytes: Vec<u8>,
    severity: Severity,
}

impl MakeWriter<'_> for EventWriter {
    type Writer = EventLine;

    fn make_writer(&self) -> EventLine {
        EventLine {
            queue: self.0.clone(),
            bytes: Vec::new(),
            severity: Severity::Info,
        }
    }

    fn make_writer_for(&self, event: &Metadata<'_>) -> EventLine {
        let severity = match *event.level() {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warning,
            Level::INFO => Severity::Info,
            Level::DEBUG | Level::TRACE => Severity::Debug,
        };
        let mut line = self.make_writer();
        line.severity = severity;
        line
    }
}

impl Write for EventLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for EventLine {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.queue.send(Lines {
                bytes: std::mem::take(&mut self.bytes),
                count: 1,
                severity: self.severity,
            });
        }
    }
}

/// One JSON object a line: `time`, `level`, `message`, then the event's fields.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = b"{\"time\":\"".to_vec();
        Dates::default().push_iso(&mut line, SystemTime::now());
        line.extend_from_slice(b"\",\"level\":\"");
        line.extend_from_slice(match *event.metadata().level() {
            Level::ERROR => b"error",
            Level::WARN => b"warn",
            Level::INFO => b"info",
            Level::DEBUG => b"debug",
            Level::TRACE => b"trace",
        });
        line.push(b'"');
        event.record(&mut JsonFields(&mut line));
        line.push(b'}');
        // Made of ASCII and of what `escape::json` lets through, which is UTF-8.
        writer.write_str(&String::from_utf8_lossy(&line))?;
        writeln!(writer)
    }
}

struct JsonFields<'a>(&'a mut Vec<u8>);

impl JsonFields<'_> {
    fn key(&mut self, field: &Field) {
        self.0.push(b',');
        escape::json(self.0, field.name().as_bytes());
        self.0.push(b':');
    }
}

impl Visit for JsonFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.key(field);
        escape::json(self.0, value.as_bytes());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.key(field);
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.key(field);
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.key(field);
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.key(field);
        escape::json(self.0, format!("{value:?}").as_bytes());
    }
}

/// The environment variable that says which events are written.
const FILTER: &str = "GATEWAY_LOG";

/// The resolver's own lines come once a packet and name neither server nor backend: what matters of them is said where a name
/// is followed. Those of the library for HTTP/2 come once a frame, as often as a client likes, and do not name it: what matters of them
/// is in an access line.
const DEFAULT_FILTER: &str = "info,h2=error,hickory_net=error,hickory_proto=error,hickory_resolver=error";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    #[test]
    fn a_json_event_is_one_valid_line_whatever_stands_in_it() {
        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let shared = Shared::default();
        let target = shared.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || target.clone())
            .event_format(Json)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(server = "a\"\n", reason = %io::Error::other("x\u{1}"), count = 3, up = true, "it \"broke\"");
        });
        let line = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "warn");
        assert_eq!(value["message"], "it \"broke\"");
        assert_eq!(value["server"], "a\"\n");
        assert_eq!(value["reason"], "x\u{1}");
        assert_eq!(value["count"], 3);
        assert_eq!(value["up"], true);
    }
}

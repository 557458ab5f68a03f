//! Where log lines go: each worker formats into a buffer of its own and hands it over when it is full or old; one
//! thread writes. A worker never waits for a disk or a pipe: when the thread cannot keep up, lines are dropped and
//! counted.

mod several;
mod stream;
mod syslog;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::access::{HttpRecord, TcpRecord};
use super::clock::Dates;
use super::line::Values;
use super::metrics::LogCounts;
use crate::config::{Log, LogFormat, LogTarget};
pub use several::{LineWriters, LogSinks};
use stream::Stream;
pub use syslog::Severity;
use syslog::Syslog;

/// A log target with the thread that writes to it. Dropping it writes what was handed over before, within
/// `CLOSE_TIMEOUT`, and ends the thread.
#[derive(Debug)]
pub struct LogSink {
    queue: Queue,
    format: LogFormat,
    closing: Closing,
    ended: Receiver<()>,
}

/// One worker's way to the log. Lines wait in it until there are enough of them or [`LineWriter::flush`] is called,
/// which a worker does every 100 ms; dropping it flushes too.
#[derive(Debug)]
pub struct LineWriter {
    queue: Queue,
    format: LogFormat,
    dates: Dates,
    lines: Lines,
}

/// The way to the writing thread.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
    metrics: Arc<LogCounts>,
}

/// Whole lines, each with its end.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u64,
    pub(super) severity: Severity,
}

/// What lines are written to, in the log's thread, which may wait.
trait Target: Send {
    /// Writes lines, each whole, or says what was lost.
    fn write(&mut self, lines: &Lines) -> Result<(), Lost>;

    /// What it is called where its failures are told; none when they cannot be, or when it tells them itself.
    fn name(&self) -> Option<String>;
}

/// Lines that could not be written.
#[derive(Debug)]
struct Lost {
    lines: u64,
    error: io::Error,
}

/// Whether the log is being closed: then nothing is waited for any more.
#[derive(Debug, Clone, Default)]
struct Closing(Arc<AtomicBool>);

impl Closing {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
enum Message {
    Lines(Lines),
    Close,
}

impl LogSink {
    /// Opens the target and starts the thread. Files are appended to, and made when they are not there; a syslog server may
    /// be there later.
    pub fn start(log: &Log, metrics: &Arc<LogCounts>) -> io::Result<Self> {
        let closing = Closing::default();
        let stream = |file: OwnedFd, name: Option<&str>| -> Box<dyn Target> {
            Box::new(Stream::new(File::from(file), name.map(str::to_owned)))
        };
        let target = match &log.target {
            LogTarget::Stdout => stream(io::stdout().as_fd().try_clone_to_owned()?, Some("stdout")),
            // Where it cannot be written, it cannot be said either.
            LogTarget::Stderr => stream(io::stderr().as_fd().try_clone_to_owned()?, None),
            LogTarget::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                stream(file.into(), path.to_str())
            }
            LogTarget::Syslog {
                server,
                facility,
                header,
            } => Box::new(Syslog::new(server, *facility, *header, closing.clone())),
        };
        Self::start_on(target, closing, log.format, metrics)
    }

    fn start_on(
        target: Box<dyn Target>,
        closing: Closing,
        format: LogFormat,
        metrics: &Arc<LogCounts>,
    ) -> io::Result<Self> {
        let (sender, messages) = sync_channel(QUEUE_LENGTH);
        let (ending, ended) = sync_channel(1);
        let writer = Writer {
            target,
            is_failing: false,
            told: 0,
            told_at: None,
            metrics: Arc::clone(metrics),
        };
        thread::Builder::new().name("log".into()).spawn(move || {
            writer.run(&messages);
            // Nobody may be waiting any more.
            let _ = ending.try_send(());
        })?;
        let queue = Queue {
            sender,
            metrics: Arc::clone(metrics),
        };
        Ok(Self {
            queue,
            format,
            closing,
            ended,
        })
    }

    /// A worker's way to this log.
    pub fn writer(&self) -> LineWriter {
        LineWriter {
            queue: self.queue.clone(),
            format: self.format,
            dates: Dates::default(),
            lines: Lines::default(),
        }
    }

    /// How its lines look.
    pub(super) fn format(&self) -> LogFormat {
        self.format
    }

    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }
}

impl Drop for LogSink {
    fn drop(&mut self) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        self.closing.set();
        // The queue may be full, and the thread may be stuck in a pipe that nobody reads.
        let mut message = Message::Close;
        while let Err(TrySendError::Full(back)) = self.queue.sender.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = back;
            wait();
        }
        match self
            .ended
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(()) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
        }
    }
}

impl LineWriter {
    /// Writes the line of an HTTP exchange.
    pub fn http(&mut self, record: &HttpRecord<'_>) {
        self.begin_line(record.severity);
        let (out, dates) = (&mut self.lines.bytes, &mut self.dates);
        match (record.format, self.format) {
            (Some(format), _) => Values::from(record).write(format, out, dates),
            (None, LogFormat::Text) => record.write_text(out, dates),
            (None, LogFormat::Json) => record.write_json(out, dates),
        }
        self.end_line();
    }

    /// Writes the line of a TCP connection.
    pub fn tcp(&mut self, record: &TcpRecord<'_>) {
        self.begin_line(record.severity);
        let (out, dates) = (&mut self.lines.bytes, &mut self.dates);
        match (record.format, self.format) {
            (Some(format), _) => Values::from(record).write(format, out, dates),
            (None, LogFormat::Text) => record.write_text(out, dates),
            (None, LogFormat::Json) => record.write_json(out, dates),
        }
        self.end_line();
    }

    /// Hands over what there is.
    pub fn flush(&mut self) {
        if !self.lines.bytes.is_empty() {
            self.queue.send(std::mem::take(&mut self.lines));
        }
    }

    /// Lines that are handed over together are equally grave.
    fn begin_line(&mut self, severity: Severity) {
        if self.lines.severity != severity {
            self.flush();
            self.lines.severity = severity;
        }
        if self.lines.bytes.capacity() == 0 {
            self.lines.bytes.reserve(HAND_OVER + ROOM_FOR_LAST);
        }
    }

    fn end_line(&mut self) {
        self.lines.bytes.push(b'\n');
        self.lines.count += 1;
        if self.lines.bytes.len() >= HAND_OVER {
            self.flush();
        }
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Queue {
    /// Never waits.
    pub(super) fn send(&self, lines: Lines) {
        let count = lines.count;
        if self.sender.try_send(Message::Lines(lines)).is_err() {
            self.metrics.dropped(count);
        }
    }
}

/// The thread's side.
struct Writer {
    target: Box<dyn Target>,
    is_failing: bool,
    /// Lines that were missing when that was told last, and when.
    told: u64,
    told_at: Option<Instant>,
    metrics: Arc<LogCounts>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(Message::Lines(lines)) = messages.recv() {
            match self.target.write(&lines) {
                Ok(()) => {
                    self.is_failing = false;
                    self.tell();
                }
                Err(lost) => {
                    self.metrics.lost(lost.lines);
                    self.complain(&lost.error);
                }
            }
        }
    }

    /// Not into the log: nobody would read it there.
    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_failing, true)
            && let Some(name) = self.target.name()
        {
            let text = format!("gateway: log {name}: {error}; lines are lost until it can be written again\n");
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }

    /// Says in the log that lines are missing, now that it can be written.
    fn tell(&mut self) {
        let missing = self.metrics.missing();
        if missing > self.told && self.told_at.is_none_or(|at| at.elapsed() > BETWEEN_TELLING) {
            tracing::warn!(
                "{} log lines are missing here: they could not be written in time",
                missing - self.told
            );
            self.told = missing;
            self.told_at = Some(Instant::now());
        }
    }
}

/// Waits in the log's thread, but not when the log is being closed.
fn pause_unless(closing: &Closing, pause: Duration) {
    let end = Instant::now() + pause;
    while !closing.is_set() && Instant::now() < end {
        wait();
    }
}

/// Waits a moment; in the log's own thread, or at the end.
#[allow(clippy::disallowed_methods, reason = "no worker waits here")]
fn wait() {
    thread::sleep(RETRY);
}

/// Bytes at which a worker hands its lines over: some hundred lines a system call. Waking the thread that writes them costs both
/// more than the call where they share a CPU; still more would fall out of the caches before it is written.
const HAND_OVER: usize = 32 * 1024;

/// Room for the line that crosses [`HAND_OVER`]; a longer one makes the buffer grow.
const ROOM_FOR_LAST: usize = 2 * 1024;

/// Buffers that wait for the thread at most: some 4 MiB of lines, a good second at full load.
const QUEUE_LENGTH: usize = 128;

/// How long closing waits for the thread to write what it has.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two lines that say how many are missing.
const BETWEEN_TELLING: Duration = Duration::from_secs(10);

/// Between two attempts of something that is not possible right now.
const RETRY: Duration = Duration::from_millis(1);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::sync::Mutex;
    use std::time::SystemTime;

    use super::super::access::{Counts, TcpTimers, Termination};
    use super::*;

    fn record(frontend: &str) -> TcpRecord<'_> {
        TcpRecord {
            client: Some(([127, 0, 0, 1], 5).into()),
            destination: Some(([127, 0, 0, 1], 6).into()),
            started: SystemTime::UNIX_EPOCH,
            frontend,
            tls: false,
            connection: &(),
            backend: None,
            server: None,
            timers: TcpTimers::default(),
            bytes_sent: 0,
            bytes_received: 0,
            termination: Termination::default(),
            counts: Counts::default(),
            tenant: None,
            reason: None,
            rule: None,
            rule_file: None,
            format: None,
            to: None,
            severity: Severity::default(),
        }
    }

    /// What was written, for all to see.
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

    fn start(to: impl Write + Send + 'static, metrics: &Arc<LogCounts>) -> LogSink {
        let target = Box::new(Stream::of(to, usize::MAX));
        LogSink::start_on(target, Closing::default(), LogFormat::Text, metrics).unwrap()
    }

    #[test]
    fn lines_of_several_workers_reach_the_file_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        std::fs::write(&path, "before\n").unwrap();
        let metrics = Arc::default();
        let log = Log {
            target: LogTarget::File(path.clone()),
            format: LogFormat::Json,
            origin: None,
        };
        let sink = LogSink::start(&log, &metrics).unwrap();
        thread::scope(|scope| {
            for name in ["one", "two", "three"] {
                let mut writer = sink.writer();
                scope.spawn(move || {
                    for _ in 0..1000 {
                        writer.tcp(&record(name));
                    }
                });
            }
        });
        drop(sink);
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("before"));
        assert!(
            lines
                .clone()
                .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
        );
        assert_eq!(lines.count(), 3000);
        assert_eq!(metrics.missing(), 0);
    }

    #[test]
    fn a_line_waits_until_it_is_flushed() {
        let target = Shared::default();
        let sink = start(target.clone(), &Arc::default());
        let mut writer = sink.writer();
        writer.tcp(&record("web"));
        assert!(target.0.lock().unwrap().is_empty());
        writer.flush();
        drop(sink);
        let written = target.0.lock().unwrap();
        assert_eq!(written.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert!(String::from_utf8_lossy(&written).contains(" web web/<NOSRV> "));
    }

    #[test]
    fn a_target_that_is_stuck_costs_lines_and_stops_nobody() {
        let (reader, stuck) = io::pipe().unwrap();
        let metrics: Arc<LogCounts> = Arc::default();
        let sink = start(stuck, &metrics);
        let mut writer = sink.writer();
        let mut lines = 0;
        while metrics.missing() == 0 {
            writer.tcp(&record("web"));
            lines += 1;
            assert!(lines < 1_000_000, "nothing was dropped");
        }
        let kept = lines - metrics.missing();
        // As soon as somebody reads, what was kept arrives.
        let reading = thread::spawn(move || io::read_to_string(reader).unwrap().lines().count() as u64);
        drop(writer);
        drop(sink);
        assert_eq!(reading.join().unwrap(), kept);
    }

    #[test]
    fn closing_a_stuck_log_does_not_take_for_ever() {
        let (_reader, stuck) = io::pipe().unwrap();
        let sink = start(stuck, &Arc::default());
        let mut writer = sink.writer();
        for _ in 0..2000 {
            writer.tcp(&record("web"));
        }
        let before = Instant::now();
        drop(sink);
        assert!(before.elapsed() < CLOSE_TIMEOUT * 2);
    }

    #[test]
    fn a_reader_that_went_away_costs_lines_only() {
        let (reader, broken) = io::pipe().unwrap();
        drop(reader);
        let metrics: Arc<LogCounts> = Arc::default();
        let sink = start(broken, &metrics);
        let mut writer = sink.writer();
        for _ in 0..10 {
            writer.tcp(&record("web"));
            writer.flush();
        }
        drop(sink);
        assert_eq!(metrics.missing(), 10);
    }
}

//! `log "/dev/log" facility="local0"` of the process: where lines go, and how they are written.

use std::net::SocketAddr;

use miette::SourceSpan;

use super::set;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::lower::logs;
use crate::config::lower::names::declared_twice;
use crate::config::model::{Facility, Log, LogFormat, LogTarget, NamedLog, Process, SyslogHeader, SyslogServer};
use crate::config::reader::{At, Node, Value, said_twice};
use crate::config::suggest;

/// The log of the process itself, and those that frontends name.
pub(super) fn read_logs(process: &mut Process, nodes: Vec<Node<'_>>) {
    let mut own: Option<SourceSpan> = None;
    let mut names: Vec<At<&str>> = Vec::new();
    for mut node in nodes {
        let (ctx, span) = (node.ctx, node.span());
        let Some(name) = node.property("name") else {
            match own {
                Some(first) => ctx.report(said_twice("`log` without a name", first, span)),
                None => own = Some(span),
            }
            log(&mut process.log, node);
            continue;
        };
        let name = name.name().map(|text| name.at(text));
        let mut named = Process::default().log;
        log(&mut named, node);
        let Some(name) = name else { continue };
        if name.value == logs::PROCESS {
            let error = ConfigError::new(Code::Value, "the log without a name is called \"process\"");
            ctx.report(error.label(name.span, "another one").help("choose another name"));
        } else if let Some(first) = names.iter().find(|known| known.value == name.value) {
            ctx.report(declared_twice("this log", first.span, name.span));
        } else if names.len() == MAX_LOGS {
            let error = ConfigError::new(Code::Value, format!("there are at most {MAX_LOGS} logs with names"));
            ctx.report(
                error
                    .label(span, "one too many")
                    .help("each has a thread of its own: let frontends share them"),
            );
        }
        names.push(name);
        process.named_logs.push(NamedLog {
            name: name.value.into(),
            log: named,
        });
    }
}

/// `log "/dev/log" facility="local0" syslog="rfc3164" format="json"`.
fn log(log: &mut Log, mut node: Node<'_>) {
    log.origin = Some(node.origin());
    let target = node.argument("where log lines go").and_then(|value| log_target(&value));
    let is_known = target.is_some();
    set(&mut log.target, target);
    let format = node.property("format").and_then(|value| value.choice(LOG_FORMATS));
    set(&mut log.format, format);
    let chosen_facility = node.property("facility");
    let chosen_header = node.property("syslog");
    let said = [
        ("facility", chosen_facility.as_ref()),
        ("syslog", chosen_header.as_ref()),
    ];
    let said = said.map(|(name, value)| (name, value.map(Value::span)));
    let chosen_facility = chosen_facility.and_then(|value| value.choice(FACILITIES));
    let chosen_header = chosen_header.and_then(|value| value.choice(SYSLOG_HEADERS));
    match &mut log.target {
        LogTarget::Syslog { facility, header, .. } => {
            set(facility, chosen_facility);
            set(header, chosen_header);
        }
        // What a wrong target was to be is not known.
        _ if !is_known => {}
        _ => {
            for (name, span) in said {
                let Some(span) = span else { continue };
                let error = ConfigError::new(Code::Inert, format!("`{name}` does nothing here"));
                let error = error.label(span, "lines go to no syslog server");
                node.fail(error.help("leave it out, or log to \"/dev/log\", \"udp://…\" or \"tcp://…\""));
            }
        }
    }
    node.finish();
}

/// A file's path has to have a slash in it, so that a slip of `stdout` does not become a file.
fn log_target(value: &Value<'_>) -> Option<LogTarget> {
    let text = value.text()?;
    match text {
        "stdout" => Some(LogTarget::Stdout),
        "stderr" => Some(LogTarget::Stderr),
        "/dev/log" => Some(syslog(SyslogServer::Unix("/dev/log".into()))),
        text if text.contains("://") => syslog_server(value, text).map(syslog),
        path if path.ends_with('/') => value.fail("the log's path is a folder", "ends with a slash", "name a file"),
        path if path.contains('/') => Some(LogTarget::File(value.context().path(path))),
        word => {
            let help = suggest::did_you_mean(word, &["stdout", "stderr"], || {
                Some(format!(
                    "write \"stdout\", \"stderr\", \"/dev/log\", or a path with a slash in it, as \"./{}\"",
                    word.escape_debug()
                ))
            });
            value.fail(
                "log lines cannot go there",
                "neither a stream nor a path",
                help.unwrap_or_default(),
            )
        }
    }
}

fn syslog(server: SyslogServer) -> LogTarget {
    LogTarget::Syslog {
        header: default_header(&server),
        server,
        facility: DEFAULT_FACILITY,
    }
}

/// What is understood there without settings of its own. On a local socket journald and rsyslog expect what syslog(3) writes, and take
/// a header of RFC 5424 for a part of the line; over the network both tell the two apart, and RFC 5424 has milliseconds, a time zone and
/// a host name always.
fn default_header(server: &SyslogServer) -> SyslogHeader {
    match server {
        SyslogServer::Unix(_) => SyslogHeader::Rfc3164,
        SyslogServer::Udp(_) | SyslogServer::Tcp(_) => SyslogHeader::Rfc5424,
    }
}

/// `unix:///run/syslog`, `udp://127.0.0.1:514` or `tcp://127.0.0.1:514`.
fn syslog_server(value: &Value<'_>, text: &str) -> Option<SyslogServer> {
    let (scheme, rest) = text.split_once("://")?;
    match scheme {
        "unix" if !rest.starts_with('/') || rest.ends_with('/') => value.fail(
            "this is no path of a socket",
            "has to begin with a slash and name a file",
            "write it as \"unix:///run/syslog.sock\"",
        ),
        "unix" => Some(SyslogServer::Unix(rest.into())),
        "udp" | "tcp" => match rest.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 && scheme == "udp" => Some(SyslogServer::Udp(address)),
            Ok(address) if address.port() != 0 => Some(SyslogServer::Tcp(address)),
            _ => value.fail(
                "a syslog server is named by an IP address and a port",
                "not an IP address and a port",
                format!("write it as \"{scheme}://127.0.0.1:514\" or \"{scheme}://[::1]:514\""),
            ),
        },
        _ => value.fail(
            "log lines cannot go there",
            "an unknown way",
            "write \"unix:///PATH\", \"udp://IP:PORT\" or \"tcp://IP:PORT\"",
        ),
    }
}

const FACILITIES: &[(&str, Facility)] = &[
    ("kern", Facility::Kern),
    ("user", Facility::User),
    ("mail", Facility::Mail),
    ("daemon", Facility::Daemon),
    ("auth", Facility::Auth),
    ("syslog", Facility::Syslog),
    ("lpr", Facility::Lpr),
    ("news", Facility::News),
    ("uucp", Facility::Uucp),
    ("cron", Facility::Cron),
    ("auth2", Facility::Auth2),
    ("ftp", Facility::Ftp),
    ("ntp", Facility::Ntp),
    ("audit", Facility::Audit),
    ("alert", Facility::Alert),
    ("cron2", Facility::Cron2),
    ("local0", Facility::Local0),
    ("local1", Facility::Local1),
    ("local2", Facility::Local2),
    ("local3", Facility::Local3),
    ("local4", Facility::Local4),
    ("local5", Facility::Local5),
    ("local6", Facility::Local6),
    ("local7", Facility::Local7),
];

/// What HAProxy's documentation and its packages use.
const DEFAULT_FACILITY: Facility = Facility::Local0;

const SYSLOG_HEADERS: &[(&str, SyslogHeader)] =
    &[("rfc5424", SyslogHeader::Rfc5424), ("rfc3164", SyslogHeader::Rfc3164)];

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Each has a thread and a queue of 4 MiB.
const MAX_LOGS: usize = 16;

//! Connections that ended before their protocol began: logged and counted, since they never reach what else does so.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::local::Local;
use crate::config::Mode;
use crate::listener::{Fault, Unintroduced};
use crate::snapshot::Frontend;
use crate::telemetry::access::{Cause, Counts, HttpRecord, HttpTimers, Phase, TcpRecord, TcpTimers, Termination};
use crate::telemetry::choice;

/// A connection that ended before its protocol began.
pub struct Unserved {
    /// Who it was; none of a UNIX socket.
    pub client: Option<SocketAddr>,
    /// Where it connected to, likewise.
    pub local: Option<SocketAddr>,
    /// When.
    pub since: Instant,
    /// Who ended it.
    pub cause: Cause,
    /// Why, as a label.
    pub reason: &'static str,
    /// The line of the configuration that ended it.
    pub rule: Option<usize>,
    /// Whether the configuration wants a line of it.
    pub is_logged: bool,
}

/// Logs and counts a connection that ended for want of a PROXY header.
pub fn unintroduced(local: &Rc<Local>, frontend: &Frontend, ended: &Unintroduced) {
    let (cause, reason) = match ended.fault {
        Fault::Malformed(_) => (Cause::Proxy, "bad-proxy-header"),
        Fault::Late => (Cause::ClientTimeout, "proxy-header-timeout"),
        Fault::Cut => (Cause::ClientAborted, "bad-proxy-header"),
        Fault::Silent => (Cause::ClientAborted, "no-proxy-header"),
    };
    tracing::debug!(peer = ?ended.peer, frontend = &**frontend.name(), error = %ended.fault, "no PROXY header");
    let is_null = matches!(ended.fault, Fault::Silent);
    let ended = Unserved {
        client: ended.peer,
        local: ended.local,
        since: ended.since,
        cause,
        reason,
        rule: None,
        is_logged: true,
    };
    if is_null {
        // Somebody looks whether the port is open.
        if !frontend.config.access_log.skip_null {
            log(local, frontend, &ended, ended.since.elapsed());
        }
        return;
    }
    frontend.metrics.error(reason);
    unserved(local, frontend, &ended);
}

/// Logs a connection that ended before its protocol began, and counts how long it took.
pub fn unserved(local: &Rc<Local>, frontend: &Frontend, ended: &Unserved) {
    let total = ended.since.elapsed();
    frontend.metrics.response(None, total);
    log(local, frontend, ended, total);
}

fn log(local: &Rc<Local>, frontend: &Frontend, ended: &Unserved, total: Duration) {
    if !frontend.config.access_log.enabled || !ended.is_logged {
        return;
    }
    let metrics = &frontend.metrics;
    let started = SystemTime::now() - total;
    let termination = Termination {
        cause: ended.cause,
        phase: Phase::Request,
    };
    let choice = frontend.config.log_choice.as_deref();
    let Some(severity) = choice::severity(choice, termination, None, None, 0) else {
        return;
    };
    let format = frontend.config.line_format();
    let counts = Counts {
        process: local.registry().process().connections(),
        frontend: metrics.connections(),
        ..Counts::default()
    };
    match frontend.config.mode {
        Mode::Tcp => local.log().tcp(&TcpRecord {
            client: ended.client,
            destination: ended.local,
            started,
            frontend: frontend.name(),
            tls: false,
            connection: &(),
            backend: None,
            server: None,
            timers: TcpTimers {
                total,
                ..TcpTimers::default()
            },
            bytes_sent: 0,
            bytes_received: 0,
            termination,
            counts,
            tenant: None,
            reason: Some(ended.reason),
            rule: ended.rule,
            rule_file: None,
            format,
            to: frontend.config.log_targets(),
            severity,
        }),
        Mode::Http => local.log().http(&HttpRecord {
            client: ended.client,
            destination: ended.local,
            started,
            frontend: frontend.name(),
            tls: false,
            connection: &(),
            backend: None,
            server: None,
            timers: HttpTimers {
                total,
                ..HttpTimers::default()
            },
            status: None,
            grpc: None,
            bytes_sent: 0,
            bytes_received: 0,
            termination,
            cookies: None,
            counts,
            request: None,
            tenant: None,
            reason: Some(ended.reason),
            rule: ended.rule,
            rule_file: None,
            request_id: None,
            tags: &[],
            captures: None,
            format,
            to: frontend.config.log_targets(),
            severity,
            trace: None,
        }),
    }
}

//! Connections that ended because no PROXY header came: logged and counted, since they never reach what else does so.

use std::rc::Rc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::local::Local;
use crate::config::Mode;
use crate::listener::{Fault, Unintroduced};
use crate::snapshot::Frontend;
use crate::telemetry::access::{Cause, Counts, HttpRecord, HttpTimers, Phase, TcpRecord, TcpTimers, Termination};
use crate::telemetry::choice;

/// Logs and counts a connection that ended for want of a PROXY header.
pub fn unintroduced(local: &Rc<Local>, frontend: &Frontend, ended: &Unintroduced) {
    let (cause, reason) = match ended.fault {
        Fault::Malformed(_) => (Cause::Proxy, "bad-proxy-header"),
        Fault::Late => (Cause::ClientTimeout, "proxy-header-timeout"),
        Fault::Cut => (Cause::ClientAborted, "bad-proxy-header"),
        Fault::Silent => (Cause::ClientAborted, "no-proxy-header"),
    };
    tracing::debug!(peer = %ended.peer, frontend = &**frontend.name(), error = %ended.fault, "no PROXY header");
    let is_null = matches!(ended.fault, Fault::Silent);
    let total = Instant::now().saturating_duration_since(ended.since);
    let metrics = &frontend.metrics;
    if !is_null {
        metrics.response(None, total);
        metrics.error(reason);
    }
    let log = frontend.config.access_log;
    if !log.enabled || (log.skip_null && is_null) {
        return;
    }
    let started = SystemTime::now() - total;
    let termination = Termination {
        cause,
        phase: Phase::Request,
    };
    let choice = frontend.config.log_choice.as_deref();
    let Some(severity) = choice::severity(choice, termination, None, 0) else {
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
            client: ended.peer,
            destination: ended.local,
            started,
            frontend: frontend.name(),
            tls: false,
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
            reason: Some(reason),
            rule: None,
            format,
            severity,
        }),
        Mode::Http => local.log().http(&HttpRecord {
            client: ended.peer,
            destination: ended.local,
            started,
            frontend: frontend.name(),
            tls: false,
            backend: None,
            server: None,
            timers: HttpTimers {
                total,
                ..HttpTimers::default()
            },
            status: None,
            bytes_sent: 0,
            bytes_received: 0,
            termination,
            cookies: None,
            counts,
            request: None,
            reason: Some(reason),
            rule: None,
            request_id: None,
            captures: None,
            format,
            severity,
            trace: None,
        }),
    }
}

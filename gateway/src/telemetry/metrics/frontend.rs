//! Metrics of a frontend.

mod figures;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::exporter::Exporter;
use super::histogram::{self, Histogram};
use super::rates::{Peak, Rate};
use super::shard::{Count, Sharded};
use super::{ProcessMetrics, lock};
use crate::telemetry::pace::Pace;

/// Counts of a frontend.
#[derive(Debug)]
pub struct FrontendMetrics {
    pub(super) name: Arc<str>,
    process: Arc<ProcessMetrics>,
    /// Shared and not split by thread: it changes once a connection and is read once a request, for its log line.
    connections: AtomicUsize,
    /// 0 for no bound of its own.
    max_connections: AtomicUsize,
    /// Of lines about connections that have to wait.
    full: Pace,
    most_connections: Peak,
    connection_rate: Rate,
    request_rate: Rate,
    shards: Sharded<Shard>,
    errors: Mutex<Vec<(&'static str, u64)>>,
}

/// A client connection, counted as open until this is dropped.
#[derive(Debug)]
pub struct Connection {
    frontend: Arc<FrontendMetrics>,
}

#[derive(Debug, Default)]
struct Shard {
    connections: Count,
    delayed: Count,
    /// Of TLS: those from the beginning, and those that went on with a session from before.
    handshakes: [Count; HANDSHAKES.len()],
    responses: [Count; CLASSES.len()],
    received: Count,
    sent: Count,
    denied: Count,
    limited: Count,
    duration: Histogram,
}

impl FrontendMetrics {
    pub(super) fn new(name: &str, process: &Arc<ProcessMetrics>) -> Self {
        Self {
            name: name.into(),
            process: Arc::clone(process),
            connections: AtomicUsize::new(0),
            max_connections: AtomicUsize::new(0),
            full: Pace::default(),
            most_connections: Peak::default(),
            connection_rate: Rate::default(),
            request_rate: Rate::default(),
            shards: Sharded::default(),
            errors: Mutex::default(),
        }
    }

    /// A client connection was accepted; it counts as open until the guard is dropped.
    pub fn connection(self: &Arc<Self>) -> Connection {
        self.shards.here().connections.add(1);
        self.most_connections
            .note(self.connections.fetch_add(1, Ordering::Relaxed) + 1);
        self.process.opened();
        Connection {
            frontend: Arc::clone(self),
        }
    }

    /// From now on it may have so many connections; none for no bound of its own.
    pub fn may_have(&self, connections: Option<usize>) {
        self.max_connections.store(connections.unwrap_or(0), Ordering::Relaxed);
    }

    /// A connection has to wait, as there are as many as may be: of `whose`, the `frontend` or the `process`. Said now and then, as
    /// anybody can make connections.
    pub fn delays_a_connection(&self, whose: &'static str) {
        self.shards.here().delayed.add(1);
        if let Some(left_out) = self.full.take() {
            tracing::warn!(
                frontend = &*self.name,
                of = whose,
                left_out,
                "there are as many connections as `max-connections` allows: further clients wait"
            );
        }
    }

    /// A handshake of TLS with a client came to its end, from the beginning or by a session from before.
    pub fn handshake(&self, is_resumed: bool) {
        self.shards.here().handshakes[usize::from(is_resumed)].add(1);
    }

    /// Looks at how much has come in the last second.
    pub(super) fn sample(&self) {
        self.connection_rate
            .sample(self.shards.sum(|shard| shard.connections.get()));
        let ended = |shard: &Shard| shard.responses.iter().map(Count::get).sum();
        self.request_rate.sample(self.shards.sum(ended));
    }

    /// Whose they are.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Client connections open now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// An exchange ended: the status that the client got, none if it got none, and how long it took from the first
    /// byte of the request to the last of the response. In TCP mode: none and the connection's duration.
    pub fn response(&self, status: Option<u16>, duration: Duration) {
        let shard = self.shards.here();
        shard.responses[class(status)].add(1);
        shard.duration.record(duration);
    }

    /// Bytes came from clients and went to them.
    pub fn bytes(&self, received: u64, sent: u64) {
        let shard = self.shards.here();
        shard.received.add(received);
        shard.sent.add(sent);
    }

    /// A request or connection was denied by policy.
    pub fn denied(&self) {
        self.shards.here().denied.add(1);
    }

    /// A request or connection was refused by a rate limit.
    pub fn rate_limited(&self) {
        self.shards.here().limited.add(1);
    }

    /// An exchange went wrong. Takes a lock: errors are few, and one that clients can provoke at will costs them a
    /// connection.
    pub fn error(&self, reason: &'static str) {
        let mut errors = lock(&self.errors);
        match errors.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => errors.push((reason, 1)),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.frontend.connections.fetch_sub(1, Ordering::Relaxed);
        self.frontend.process.closed();
    }
}

/// Kinds of handshakes of TLS.
const HANDSHAKES: [&str; 2] = ["full", "resumed"];

/// Labels of [`class`].
pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// A status's position in [`CLASSES`].
pub(super) fn class(status: Option<u16>) -> usize {
    match status {
        Some(status @ 100..=599) => usize::from(status / 100),
        _ => 0,
    }
}

pub(super) fn register(exporter: &mut Exporter, frontend: &Arc<FrontendMetrics>) {
    let mut of = exporter.of(frontend, &[("frontend", &frontend.name)]);
    let help = "Client connections accepted.";
    of.counter("gateway_frontend_connections_total", help, None, |frontend| {
        frontend.shards.sum(|shard| shard.connections.get())
    });
    let help = "Client connections open now.";
    of.gauge("gateway_frontend_current_connections", help, |frontend| {
        frontend.connections() as f64
    });
    let help = "Client connections that the frontend may have open at once; 0 for no limit of its own.";
    of.gauge("gateway_frontend_max_connections", help, |frontend| {
        frontend.max_connections.load(Ordering::Relaxed) as f64
    });
    let help = "Client connections that had to wait, as there were as many as `max-connections` allows.";
    of.counter("gateway_frontend_delayed_connections_total", help, None, |frontend| {
        frontend.shards.sum(|shard| shard.delayed.get())
    });
    let help = "TLS handshakes with clients that came to their end: full ones, and those that resumed a session.";
    for (i, kind) in HANDSHAKES.into_iter().enumerate() {
        of.counter(
            "gateway_frontend_tls_handshakes_total",
            help,
            Some(("kind", kind)),
            move |frontend| frontend.shards.sum(|shard| shard.handshakes[i].get()),
        );
    }
    let help = "Bytes received from clients.";
    of.counter("gateway_frontend_received_bytes_total", help, None, |frontend| {
        frontend.shards.sum(|shard| shard.received.get())
    });
    let help = "Bytes sent to clients.";
    of.counter("gateway_frontend_sent_bytes_total", help, None, |frontend| {
        frontend.shards.sum(|shard| shard.sent.get())
    });
    let help = "Requests, or connections in TCP mode, that policy denied.";
    of.counter("gateway_frontend_denied_requests_total", help, None, |frontend| {
        frontend.shards.sum(|shard| shard.denied.get())
    });
    let help = "Requests, or connections in TCP mode, that a rate limit refused.";
    of.counter("gateway_frontend_rate_limited_requests_total", help, None, |frontend| {
        frontend.shards.sum(|shard| shard.limited.get())
    });
    let help = "Exchanges ended, by the class of the status that the client got; none when it got none.";
    for (i, class) in CLASSES.into_iter().enumerate() {
        of.counter(
            "gateway_frontend_responses_total",
            help,
            Some(("code", class)),
            move |frontend| frontend.shards.sum(|shard| shard.responses[i].get()),
        );
    }
    let help = "Exchanges that went wrong, by reason; the log lines have the same words.";
    of.reasons("gateway_frontend_errors_total", help, "reason", |frontend| {
        lock(&frontend.errors).clone()
    });
    let help = "From the first byte of a request to the last of its response; in TCP mode, of a connection.";
    of.histogram(DURATION, help, |frontend| {
        histogram::totals(&frontend.shards, |shard| &shard.duration)
    });
}

/// The histogram of a frontend.
pub(super) const DURATION: &str = "gateway_frontend_request_duration_seconds";

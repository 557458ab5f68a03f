//! Metrics of backends and their servers, with the two states that all workers share: whether a server is up, and how
//! much it has under way.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::frontend::{CLASSES, class};
use super::histogram::{self, Histogram};
use super::shard::{Count, Sharded};
use super::text::{Kind, Text};

/// Counts of a backend.
#[derive(Debug)]
pub struct BackendMetrics {
    pub(super) name: Arc<str>,
    in_flight: AtomicUsize,
    shards: Sharded<BackendShard>,
}

/// Counts of a server. The fields stand in this order so that what every request of every worker writes (the
/// reference count and `in_flight`) is on another cache line than what they only read.
#[derive(Debug)]
#[repr(C)]
pub struct ServerMetrics {
    in_flight: AtomicUsize,
    state: State,
    pub(super) backend: Arc<BackendMetrics>,
    pub(super) name: Arc<str>,
    shards: Sharded<ServerShard>,
    went_up: Count,
    went_down: Count,
    checks_passed: Count,
    checks_failed: Count,
}

/// A request or connection that a server has under way, until this is dropped.
#[derive(Debug)]
pub struct InFlight {
    server: Arc<ServerMetrics>,
}

#[derive(Debug)]
#[repr(align(128))]
struct State {
    up: AtomicBool,
}

#[derive(Debug, Default)]
struct BackendShard {
    retries: Count,
    no_server: Count,
    received: Count,
    sent: Count,
}

#[derive(Debug, Default)]
struct ServerShard {
    sessions: Count,
    connections: Count,
    connect_errors: Count,
    response_errors: Count,
    responses: [Count; CLASSES.len()],
    response_time: Histogram,
}

impl BackendMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            in_flight: AtomicUsize::new(0),
            shards: Sharded::default(),
        }
    }

    /// Requests or connections that its servers have under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A request was tried again, on the same or another server.
    pub fn retried(&self) {
        self.shards.here().retries.add(1);
    }

    /// There was no server to take a request.
    pub fn no_server(&self) {
        self.shards.here().no_server.add(1);
    }

    /// Bytes came from servers and went to them.
    pub fn bytes(&self, received: u64, sent: u64) {
        let shard = self.shards.here();
        shard.received.add(received);
        shard.sent.add(sent);
    }
}

impl ServerMetrics {
    pub(super) fn new(backend: &Arc<BackendMetrics>, name: &str) -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            state: State {
                up: AtomicBool::new(true),
            },
            backend: Arc::clone(backend),
            name: name.into(),
            shards: Sharded::default(),
            went_up: Count::default(),
            went_down: Count::default(),
            checks_passed: Count::default(),
            checks_failed: Count::default(),
        }
    }

    /// Requests or connections under way, over all workers.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it is up, as far as is known.
    pub fn is_up(&self) -> bool {
        self.state.up.load(Ordering::Relaxed)
    }

    /// Its health changed.
    pub fn went(&self, up: bool) {
        self.state.up.store(up, Ordering::Relaxed);
        if up { &self.went_up } else { &self.went_down }.add(1);
    }

    /// A check ended.
    pub fn checked(&self, passed: bool) {
        if passed {
            &self.checks_passed
        } else {
            &self.checks_failed
        }
        .add(1);
    }

    /// A connection to it was opened.
    pub fn connected(&self) {
        self.shards.here().connections.add(1);
    }

    /// A connection to it could not be opened.
    pub fn connect_failed(&self) {
        self.shards.here().connect_errors.add(1);
    }

    /// It answered with this status, none if what it sent was no answer, this long after it had the request.
    pub fn response(&self, status: Option<u16>, after: Duration) {
        let shard = self.shards.here();
        shard.responses[class(status)].add(1);
        if status.is_some() {
            shard.response_time.record(after);
        } else {
            shard.response_errors.add(1);
        }
    }
}

impl InFlight {
    /// A server takes a request or connection.
    pub fn begin(server: &Arc<ServerMetrics>) -> Self {
        let server = Arc::clone(server);
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        server.backend.in_flight.fetch_add(1, Ordering::Relaxed);
        server.shards.here().sessions.add(1);
        Self { server }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.server.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.server.backend.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn render(text: &mut Text, backends: &[Arc<BackendMetrics>], servers: &[Arc<ServerMetrics>]) {
    render_backends(text, backends, servers);
    render_servers(text, servers);
}

fn render_backends(text: &mut Text, backends: &[Arc<BackendMetrics>], servers: &[Arc<ServerMetrics>]) {
    let mut family = |name: &str, kind: Kind, help: &str, of: &dyn Fn(&BackendMetrics) -> u64| {
        text.family(name, kind, help);
        for backend in backends {
            text.sample(name, &[("backend", &backend.name)], of(backend));
        }
    };
    let help = "Requests, or connections in TCP mode, that its servers have under way.";
    family("gateway_backend_in_flight", Kind::Gauge, help, &|backend| {
        backend.in_flight() as u64
    });
    let help = "Servers that are up, backup servers included.";
    family("gateway_backend_servers_up", Kind::Gauge, help, &|backend| {
        let up = servers
            .iter()
            .filter(|server| server.backend.name == backend.name && server.is_up());
        up.count() as u64
    });
    let help = "Attempts beyond the first, on the same or another server.";
    family("gateway_backend_retries_total", Kind::Counter, help, &|backend| {
        backend.shards.sum(|shard| shard.retries.get())
    });
    let help = "Requests or connections for which no server was up.";
    family("gateway_backend_no_server_total", Kind::Counter, help, &|backend| {
        backend.shards.sum(|shard| shard.no_server.get())
    });
    let help = "Bytes received from servers.";
    family(
        "gateway_backend_received_bytes_total",
        Kind::Counter,
        help,
        &|backend| backend.shards.sum(|shard| shard.received.get()),
    );
    let help = "Bytes sent to servers.";
    family("gateway_backend_sent_bytes_total", Kind::Counter, help, &|backend| {
        backend.shards.sum(|shard| shard.sent.get())
    });
}

fn render_servers(text: &mut Text, servers: &[Arc<ServerMetrics>]) {
    let mut family = |name: &str, kind: Kind, help: &str, of: &dyn Fn(&ServerMetrics) -> u64| {
        text.family(name, kind, help);
        for server in servers {
            text.sample(name, &server.labels(), of(server));
        }
    };
    let help = "1 when the server is up, 0 when it is down.";
    family("gateway_server_up", Kind::Gauge, help, &|server| {
        u64::from(server.is_up())
    });
    let help = "Requests, or connections in TCP mode, that the server has under way.";
    family("gateway_server_in_flight", Kind::Gauge, help, &|server| {
        server.in_flight() as u64
    });
    let help = "Requests, or connections in TCP mode, that the server was given.";
    family("gateway_server_sessions_total", Kind::Counter, help, &|server| {
        server.shards.sum(|shard| shard.sessions.get())
    });
    let help = "Connections opened to the server.";
    family("gateway_server_connections_total", Kind::Counter, help, &|server| {
        server.shards.sum(|shard| shard.connections.get())
    });
    let help = "Connections to the server that could not be opened.";
    family("gateway_server_connect_errors_total", Kind::Counter, help, &|server| {
        server.shards.sum(|shard| shard.connect_errors.get())
    });
    let help = "Requests to which the server gave no answer, or what was none.";
    family("gateway_server_response_errors_total", Kind::Counter, help, &|server| {
        server.shards.sum(|shard| shard.response_errors.get())
    });

    let mut pair = |name: &str, help: &str, label: &str, of: &dyn Fn(&ServerMetrics) -> [(&'static str, u64); 2]| {
        text.family(name, Kind::Counter, help);
        for server in servers {
            for (value, count) in of(server) {
                text.sample_with(name, "", &server.labels(), Some((label, value)), count);
            }
        }
    };
    let help = "Health checks ended, by result.";
    pair("gateway_server_checks_total", help, "result", &|server| {
        [
            ("passed", server.checks_passed.get()),
            ("failed", server.checks_failed.get()),
        ]
    });
    let help = "Changes of the server's health, by what it became.";
    pair("gateway_server_transitions_total", help, "to", &|server| {
        [("up", server.went_up.get()), ("down", server.went_down.get())]
    });

    let name = "gateway_server_responses_total";
    text.family(
        name,
        Kind::Counter,
        "The server's answers, by the class of their status; none for what was none.",
    );
    for server in servers {
        let counts: [u64; CLASSES.len()] = array::from_fn(|i| server.shards.sum(|shard| shard.responses[i].get()));
        for (class, count) in CLASSES.iter().zip(counts) {
            text.sample_with(name, "", &server.labels(), Some(("code", class)), count);
        }
    }

    let name = "gateway_server_response_time_seconds";
    text.family(
        name,
        Kind::Histogram,
        "From the end of the request's head to the answer's.",
    );
    for server in servers {
        histogram::render(text, name, &server.labels(), &server.shards, |shard| {
            &shard.response_time
        });
    }
}

impl ServerMetrics {
    fn labels(&self) -> [(&str, &str); 2] {
        [("backend", &self.backend.name), ("server", &self.name)]
    }
}

//! The figures of all frontends, backends and servers at one time, for who reads them whole and not as Prometheus does.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::{ProcessMetrics, Registry, lock};

/// What the stats page shows. In the order in which things were registered: that of the configuration.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stats {
    /// The gateway's version, unless it is to be hidden.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'static str>,
    /// The process's number.
    pub pid: u32,
    /// When it started, in seconds of Unix time.
    pub started: u64,
    /// Since then, in seconds.
    pub uptime: u64,
    /// Client connections open now, over all frontends.
    pub connections: usize,
    /// Reloads that were done.
    pub reloads_done: u64,
    /// Reloads that were refused.
    pub reloads_refused: u64,
    /// Frontends.
    pub frontends: Vec<FrontendStats>,
    /// Backends with their servers.
    pub backends: Vec<BackendStats>,
}

/// A frontend's.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FrontendStats {
    /// Its name.
    pub name: Arc<str>,
    /// Client connections open now.
    pub connections: usize,
    /// The most that were open at once.
    pub most_connections: usize,
    /// Client connections accepted.
    pub connections_total: u64,
    /// Client connections accepted in the last second.
    pub connection_rate: u64,
    /// The most in any second.
    pub most_connection_rate: u64,
    /// Exchanges ended in the last second; in TCP mode, connections.
    pub request_rate: u64,
    /// The most in any second.
    pub most_request_rate: u64,
    /// Bytes from clients.
    pub received_bytes: u64,
    /// Bytes to clients.
    pub sent_bytes: u64,
    /// Denied by policy.
    pub denied: u64,
    /// Refused by a rate limit.
    pub rate_limited: u64,
    /// Exchanges by the class of their status: none, 1xx to 5xx.
    pub responses: [u64; 6],
    /// What went wrong, by reason.
    pub errors: Vec<(&'static str, u64)>,
}

/// A backend's.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BackendStats {
    /// Its name.
    pub name: Arc<str>,
    /// Under way at its servers.
    pub in_flight: usize,
    /// The most that were under way at once.
    pub most_in_flight: usize,
    /// Waiting for a server to have room.
    pub queue: usize,
    /// The most that waited at once.
    pub most_queue: usize,
    /// Connections that were led to it, and requests that were and have ended.
    pub sessions_total: u64,
    /// Attempts at its servers.
    pub attempts_total: u64,
    /// Those requests by the class of the status that the client got: none, 1xx to 5xx.
    pub responses: [u64; 6],
    /// How long it has been since the last of them was given to one, in seconds; none before the first.
    pub idle_seconds: Option<u64>,
    /// In the last second.
    pub rate: u64,
    /// The most in any second.
    pub most_rate: u64,
    /// Servers that are up.
    pub servers_up: usize,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Of those, at another server.
    pub redispatches: u64,
    /// Requests for which there was no server.
    pub no_server: u64,
    /// Those that waited too long for one to have room.
    pub queue_timeouts: u64,
    /// Those that could not even wait.
    pub queue_full: u64,
    /// Those whose clients left before a server was chosen.
    pub client_aborts: u64,
    /// Bytes from servers.
    pub received_bytes: u64,
    /// Bytes to servers.
    pub sent_bytes: u64,
    /// How long the last 1024 of them waited for a server to have room, on average, in seconds.
    pub average_queue_seconds: f64,
    /// How long connecting took them.
    pub average_connect_seconds: f64,
    /// How long it took until their responses began, in HTTP mode.
    pub average_response_seconds: f64,
    /// How long they took in all.
    pub average_total_seconds: f64,
    /// How often it has lost its last server that might have new work.
    pub went_down: u64,
    /// For how long it has had such a server, or none.
    pub health_seconds: u64,
    /// For how long it has had none in all.
    pub down_seconds: u64,
    /// Its servers.
    pub servers: Vec<ServerStats>,
}

/// A server's.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServerStats {
    /// Its name.
    pub name: Arc<str>,
    /// `up`, `down`, `ejected` because of its answers, or `unresolved`: it is not known where it is.
    pub health: &'static str,
    /// What an operator made of it: `ready`, `drain` or `maint`.
    pub state: &'static str,
    /// What its agent made of it.
    pub agent: &'static str,
    /// The weight that it has now.
    pub weight: u16,
    /// The weight that counts; 0 when it gets nothing new.
    pub effective_weight: f64,
    /// How much of its weight that is, while it starts slowly.
    pub slow_start_percent: Option<u8>,
    /// Under way.
    pub in_flight: usize,
    /// The most that it had under way at once.
    pub most_in_flight: usize,
    /// What it may have under way at once, as its agent says or else its configuration; none is no limit.
    pub max_connections: Option<NonZeroUsize>,
    /// Waiting for it alone.
    pub queue: usize,
    /// The most that waited for it alone at once.
    pub most_queue: usize,
    /// Requests or connections that it took.
    pub sessions_total: u64,
    /// How long it has been since the last of them was given to it, in seconds; none before the first.
    pub idle_seconds: Option<u64>,
    /// In the last second.
    pub rate: u64,
    /// The most in any second.
    pub most_rate: u64,
    /// Bytes from it.
    pub received_bytes: u64,
    /// Bytes to it.
    pub sent_bytes: u64,
    /// Attempts beyond the first for what it had been given.
    pub retries: u64,
    /// Of those, at another server.
    pub redispatches: u64,
    /// Requests to which it gave no answer, or what was none.
    pub response_errors: u64,
    /// Answers by the class of their status: none, 1xx to 5xx.
    pub responses: [u64; 6],
    /// Connections to it that could not be opened.
    pub connect_errors: u64,
    /// Requests or connections that were given up because of that.
    pub unreached: u64,
    /// Whether its last check passed; none before the first.
    pub check_passed: Option<bool>,
    /// What that found, in HAProxy's words, as `L4OK` or `L7STS`.
    pub check_result: Option<&'static str>,
    /// The status that the server answered it with, where it is about that.
    pub check_status: Option<u16>,
    /// Why it failed.
    pub check_reason: Option<String>,
    /// How long that took, in seconds.
    pub check_seconds: Option<f64>,
    /// How its agent was asked last, in the same words.
    pub agent_result: Option<&'static str>,
    /// What that said, or why it did not.
    pub agent_reason: Option<String>,
    /// How long that took, in seconds.
    pub agent_seconds: Option<f64>,
    /// Exchanges with it that clients broke off.
    pub client_aborts: u64,
    /// Exchanges that it broke off in the middle.
    pub server_aborts: u64,
    /// Exchanges in the middle of which it was silent for too long.
    pub server_timeouts: u64,
    /// How long the last 1024 of them waited for a server to have room, on average, in seconds.
    pub average_queue_seconds: f64,
    /// How long connecting took them.
    pub average_connect_seconds: f64,
    /// How long it took until their responses began, in HTTP mode.
    pub average_response_seconds: f64,
    /// How long they took in all.
    pub average_total_seconds: f64,
    /// Checks that failed.
    pub checks_failed: u64,
    /// How often it went down.
    pub went_down: u64,
    /// For how long it has been up or down.
    pub health_seconds: u64,
    /// For how long it has been down in all.
    pub down_seconds: u64,
}

impl Registry {
    /// The figures of now. Each is exact; two of them may be of a moment apart.
    pub fn stats(&self) -> Stats {
        lock(&self.servers).iter().for_each(|server| server.catch_up());
        let frontends = lock(&self.frontends)
            .iter()
            .map(|frontend| frontend.figures())
            .collect();
        let mut backends: Vec<_> = lock(&self.backends).iter().map(|backend| backend.figures()).collect();
        for server in lock(&self.servers).iter() {
            let own = |backend: &&mut BackendStats| *backend.name == *server.backend_name();
            if let Some(backend) = backends.iter_mut().find(own) {
                backend.servers.push(server.figures());
            }
        }
        let process: &ProcessMetrics = &self.process;
        let (reloads_done, reloads_refused) = process.reloads();
        Stats {
            version: Some(env!("CARGO_PKG_VERSION")),
            pid: std::process::id(),
            started: process
                .started()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
            uptime: process.started().elapsed().unwrap_or_default().as_secs(),
            connections: process.connections(),
            reloads_done,
            reloads_refused,
            frontends,
            backends,
        }
    }
}

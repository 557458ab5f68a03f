//! A server as all workers see it.

use std::net::SocketAddr;
use std::sync::Arc;

use twox_hash::XxHash3_64;

use super::tls::Connector;
use crate::config;
use crate::telemetry::metrics::{InFlight, ServerMetrics};

/// A server of a backend, shared by all workers. Its state and what it has under way live in its metrics, so that a
/// reload that keeps the server keeps them.
#[derive(Debug)]
pub struct Server {
    /// Its name, unique in the backend.
    pub name: Arc<str>,
    /// Used only when no other server is up.
    pub backup: bool,
    /// Its counts and state.
    pub metrics: Arc<ServerMetrics>,
    /// Of its name: what tells it apart in a consistent hash.
    pub(super) hash: u64,
    place: Place,
    /// How it is spoken to in TLS; none means plainly.
    pub(super) tls: Option<Connector>,
}

/// How it is known where a server is.
#[derive(Debug)]
enum Place {
    /// It never moves.
    Fixed(SocketAddr),
}

impl Server {
    /// A server from its configuration.
    pub(super) fn new(
        server: &config::Server,
        address: SocketAddr,
        tls: Option<Connector>,
        metrics: Arc<ServerMetrics>,
    ) -> Self {
        metrics.configure(server.weight, server.slow_start);
        Self {
            name: Arc::clone(&server.name),
            backup: server.backup,
            metrics,
            hash: XxHash3_64::oneshot(server.name.as_bytes()),
            place: Place::Fixed(address),
            tls,
        }
    }

    /// Where it is now; none while that is not known.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.place {
            Place::Fixed(address) => Some(*address),
        }
    }

    /// Whether it is up, as far as its checks know. Up from the start, and always without checks.
    pub fn is_up(&self) -> bool {
        self.metrics.is_up()
    }

    /// Its part of new work, beside the other servers' shares; 0 when it may get none: it is down, drained, in maintenance,
    /// or has no weight.
    pub(super) fn share(&self) -> u32 {
        self.metrics.share()
    }

    /// Whether it may get new work.
    pub(super) fn is_usable(&self) -> bool {
        self.share() > 0
    }

    /// Requests or connections under way, over all workers.
    pub fn in_flight(&self) -> usize {
        self.metrics.in_flight()
    }

    /// It takes a request or connection, which is under way until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        InFlight::begin(&self.metrics)
    }
}

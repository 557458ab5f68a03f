//! A server as all workers see it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config;
use crate::telemetry::metrics::{InFlight, ServerMetrics};

/// A server of a backend, shared by all workers. Its health and what it has under way live in its metrics, so that a
/// reload that keeps the server keeps them.
#[derive(Debug)]
pub struct Server {
    /// Its name, unique in the backend.
    pub name: Arc<str>,
    /// 0 to 256; 0 gets no new work.
    pub weight: u16,
    /// Used only when no other server is up.
    pub backup: bool,
    /// Its counts and state.
    pub metrics: Arc<ServerMetrics>,
    place: Place,
}

/// How it is known where a server is.
#[derive(Debug)]
enum Place {
    /// It never moves.
    Fixed(SocketAddr),
}

impl Server {
    /// A server from its configuration.
    pub(super) fn new(server: &config::Server, address: SocketAddr, metrics: Arc<ServerMetrics>) -> Self {
        Self {
            name: Arc::clone(&server.name),
            weight: server.weight,
            backup: server.backup,
            metrics,
            place: Place::Fixed(address),
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

    /// Whether it may get new work.
    pub(super) fn is_usable(&self) -> bool {
        self.weight > 0 && self.is_up()
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

//! A server as all workers see it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::telemetry::metrics::{InFlight, ServerMetrics};

/// A server of a backend, shared by all workers. Its health and what it has under way live in its metrics, so that a
/// reload that keeps the server keeps them.
#[derive(Debug)]
pub struct Server {
    /// Its name, unique in the backend.
    pub name: Arc<str>,
    /// Where it is.
    pub address: SocketAddr,
    /// 0 to 256; 0 gets no new work.
    pub weight: u16,
    /// Used only when no other server is up.
    pub backup: bool,
    /// Its counts and state.
    pub metrics: Arc<ServerMetrics>,
}

impl Server {
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

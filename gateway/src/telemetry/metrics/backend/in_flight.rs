//! What a server has under way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ServerMetrics;

/// A request or connection that a server has under way, until this is dropped.
#[derive(Debug)]
pub struct InFlight {
    server: Arc<ServerMetrics>,
}

impl InFlight {
    /// A server takes a request or connection.
    pub fn begin(server: &Arc<ServerMetrics>) -> Self {
        let before = server.in_flight.fetch_add(1, Ordering::Relaxed);
        Self::counted(server, before)
    }

    /// A server takes a request or connection if it has fewer than `max` under way: one atomic step, so that it never has
    /// more, whoever asks at the same time.
    pub fn begin_below(server: &Arc<ServerMetrics>, max: usize) -> Option<Self> {
        let add = |now| (now < max).then_some(now + 1);
        let added = server.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        Some(Self::counted(server, added.ok()?))
    }

    /// The rest of beginning, after the server's own count.
    fn counted(server: &Arc<ServerMetrics>, before: usize) -> Self {
        let server = Arc::clone(server);
        server.most_in_flight.note(before + 1);
        let backend = &server.backend;
        backend
            .most_in_flight
            .note(backend.in_flight.fetch_add(1, Ordering::Relaxed) + 1);
        backend.shards.here().sessions.add(1);
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

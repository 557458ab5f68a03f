//! The server's side of an exchange.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::telemetry::access::Termination;
use crate::telemetry::metrics::{Side, Took};

/// What is remembered of the server's side.
pub(super) struct Upstream {
    pub(super) backend: Arc<Backend>,
    pub(super) server: Option<usize>,
    pub(super) queue: Duration,
    pub(super) queue_since: Option<Instant>,
    /// How many waited before it.
    pub(super) ahead: usize,
    pub(super) connect: Option<Duration>,
    pub(super) sent_at: Option<Instant>,
    pub(super) response: Option<Duration>,
    /// What the server has answered, whatever became of that on its way to the client.
    pub(super) said: Option<StatusCode>,
    pub(super) retries: u32,
    /// One of those attempts was made at another server.
    pub(super) redispatched: bool,
}

impl Upstream {
    /// Bytes came from there and went there.
    pub(super) fn bytes(&self, received: u64, sent: u64) {
        match self.server {
            Some(server) => self.backend.servers[server].metrics.bytes(received, sent),
            None => self.backend.metrics.bytes(received, sent),
        }
    }

    /// How long it waited for a server, where it came to having one or to waiting.
    pub(super) fn queue(&self) -> Option<Duration> {
        (self.server.is_some() || !self.queue.is_zero()).then_some(self.queue)
    }

    /// The exchange is over.
    pub(super) fn ended(&self, total: Duration, termination: Termination) {
        let Some(server) = self.server else {
            if termination.broken_off_by() == Some(Side::Client) {
                self.backend.metrics.client_left();
            }
            return;
        };
        let took = self.connect.map(|connect| Took {
            queue: self.queue,
            connect,
            total,
        });
        let metrics = &self.backend.servers[server].metrics;
        metrics.ended(took, termination);
    }
}

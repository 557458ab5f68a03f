//! A frontend's figures at one time.

use super::FrontendMetrics;
use crate::telemetry::metrics::lock;
use crate::telemetry::metrics::stats::FrontendStats;

impl FrontendMetrics {
    pub(in crate::telemetry::metrics) fn figures(&self) -> FrontendStats {
        let shards = &self.shards;
        let (connection_rate, most_connection_rate) = self.connection_rate.get();
        let (request_rate, most_request_rate) = self.request_rate.get();
        FrontendStats {
            name: self.name.clone(),
            connections: self.connections(),
            most_connections: self.most_connections.get(),
            connection_rate,
            most_connection_rate,
            request_rate,
            most_request_rate,
            connections_total: shards.sum(|shard| shard.connections.get()),
            received_bytes: shards.sum(|shard| shard.received.get()),
            sent_bytes: shards.sum(|shard| shard.sent.get()),
            denied: shards.sum(|shard| shard.denied.get()),
            rate_limited: shards.sum(|shard| shard.limited.get()),
            responses: std::array::from_fn(|class| shards.sum(|shard| shard.responses[class].get())),
            errors: lock(&self.errors).clone(),
        }
    }
}

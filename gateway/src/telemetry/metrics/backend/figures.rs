//! A backend's and a server's figures at one time.

use std::sync::atomic::Ordering;

use super::{BackendMetrics, ServerMetrics};
use crate::telemetry::metrics::stats::{BackendStats, ServerStats};

impl BackendMetrics {
    /// Without its servers.
    pub(in crate::telemetry::metrics) fn figures(&self) -> BackendStats {
        let shards = &self.shards;
        let (rate, most_rate) = self.rate.get();
        let sessions = self.sessions();
        let (since, down) = self.changes.get();
        let [queue, connect, response, total] = self.averages.get();
        BackendStats {
            name: self.name.clone(),
            in_flight: self.in_flight(),
            most_in_flight: self.most_in_flight.get(),
            queue: self.queued(),
            most_queue: self.most_queued.get(),
            sessions_total: sessions,
            attempts_total: shards.sum(|shard| shard.sessions.get()),
            responses: std::array::from_fn(|class| shards.sum(|shard| shard.responses[class].get())),
            idle_seconds: self.rate.idle(sessions).map(|idle| idle.as_secs()),
            rate,
            most_rate,
            servers_up: self.servers_up.load(Ordering::Relaxed),
            retries: shards.sum(|shard| shard.retries.get()),
            redispatches: shards.sum(|shard| shard.redispatches.get()),
            no_server: shards.sum(|shard| shard.no_server.get()),
            queue_timeouts: self.queue_timeouts.get(),
            queue_full: self.queue_full.get(),
            client_aborts: shards.sum(|shard| shard.client_aborts.get()),
            received_bytes: shards.sum(|shard| shard.received.get()),
            sent_bytes: shards.sum(|shard| shard.sent.get()),
            average_queue_seconds: queue,
            average_connect_seconds: connect,
            average_response_seconds: response,
            average_total_seconds: total,
            went_down: self.went_down.get(),
            health_seconds: since.as_secs(),
            down_seconds: down.as_secs(),
            servers: Vec::new(),
        }
    }
}

impl ServerMetrics {
    pub(in crate::telemetry::metrics) fn figures(&self) -> ServerStats {
        let shards = &self.shards;
        let last_check = self.last_check.load();
        let last_question = self.last_question.load();
        let sessions = shards.sum(|shard| shard.sessions.get());
        let [queue, connect, response, total] = self.averages.get();
        let (rate, most_rate) = self.rate.get();
        let (since, down) = self.changes.get();
        ServerStats {
            name: self.name.clone(),
            health: match self.is_up() {
                true if self.drains() => "drained",
                true => "up",
                false if self.state.is_ejected() => "ejected",
                false if !self.state.placed() => "unresolved",
                false => "down",
            },
            state: self.admin().word(),
            agent: match self.agent() {
                agent if !agent.up => "down",
                agent => agent.admin.word(),
            },
            weight: self.weight(),
            effective_weight: self.effective_weight(),
            slow_start_percent: self.state.warmed(),
            in_flight: self.in_flight(),
            most_in_flight: self.most_in_flight.get(),
            max_connections: self.max_connections(),
            queue: self.queued(),
            most_queue: self.most_queued.get(),
            sessions_total: sessions,
            idle_seconds: self.rate.idle(sessions).map(|idle| idle.as_secs()),
            responses: std::array::from_fn(|class| shards.sum(|shard| shard.responses[class].get())),
            rate,
            most_rate,
            received_bytes: shards.sum(|shard| shard.received.get()),
            sent_bytes: shards.sum(|shard| shard.sent.get()),
            retries: shards.sum(|shard| shard.retries.get()),
            response_errors: shards.sum(|shard| shard.response_errors.get()),
            connect_errors: shards.sum(|shard| shard.connect_errors.get()),
            unreached: shards.sum(|shard| shard.unreached.get()),
            check_passed: last_check.as_ref().map(|check| check.passed),
            check_result: last_check.as_ref().map(|check| check.word),
            check_status: last_check.as_ref().and_then(|check| check.status),
            check_reason: last_check.as_ref().and_then(|check| check.reason.clone()),
            check_seconds: last_check.as_ref().map(|check| check.took.as_secs_f64()),
            agent_result: last_question.as_ref().map(|question| question.word),
            agent_reason: last_question.as_ref().and_then(|question| question.reason.clone()),
            agent_seconds: last_question.as_ref().map(|question| question.took.as_secs_f64()),
            redispatches: shards.sum(|shard| shard.redispatches.get()),
            client_aborts: shards.sum(|shard| shard.client_aborts.get()),
            server_aborts: shards.sum(|shard| shard.server_aborts.get()),
            server_timeouts: shards.sum(|shard| shard.server_timeouts.get()),
            average_queue_seconds: queue,
            average_connect_seconds: connect,
            average_response_seconds: response,
            average_total_seconds: total,
            checks_failed: self.checks_failed.get(),
            went_down: self.went_down.get(),
            health_seconds: since.as_secs(),
            down_seconds: down.as_secs(),
        }
    }
}

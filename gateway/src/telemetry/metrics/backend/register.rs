//! How the figures of backends and their servers are exported: names, help, and where each is read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::server::GRPC_RESULTS;
use super::{BackendMetrics, ServerMetrics};
use crate::telemetry::metrics::ejections::EjectedFor;
use crate::telemetry::metrics::exporter::Exporter;
use crate::telemetry::metrics::frontend::CLASSES;
use crate::telemetry::metrics::histogram;
use crate::telemetry::metrics::state::{Admin, Agent};

pub(in crate::telemetry::metrics) fn register_backend(exporter: &mut Exporter, backend: &Arc<BackendMetrics>) {
    let mut of = exporter.of(backend, &[("backend", &backend.name)]);
    let help = "Requests, or connections in TCP mode, that its servers have under way.";
    of.gauge("gateway_backend_in_flight", help, |backend| backend.in_flight() as f64);
    let help = "Servers that are up, backup servers included.";
    of.gauge("gateway_backend_servers_up", help, |backend| {
        backend.servers_up.load(Ordering::Relaxed) as f64
    });
    let help = "Connections that were led to the backend, and requests that were and have ended.";
    of.counter("gateway_backend_sessions_total", help, None, BackendMetrics::sessions);
    let help = "Exchanges that were led to the backend and have ended, by the class of the status that the client got; none when it got none.";
    for (i, class) in CLASSES.into_iter().enumerate() {
        of.counter(
            "gateway_backend_responses_total",
            help,
            Some(("code", class)),
            move |backend| backend.shards.sum(|shard| shard.responses[i].get()),
        );
    }
    let help = "Attempts beyond the first, on the same or another server.";
    of.counter("gateway_backend_retries_total", help, None, |backend| {
        backend.shards.sum(|shard| shard.retries.get())
    });
    let help = "Attempts beyond the first that were made at another server.";
    of.counter("gateway_backend_redispatches_total", help, None, |backend| {
        backend.shards.sum(|shard| shard.redispatches.get())
    });
    let help = "Requests that are being sent again.";
    of.gauge("gateway_backend_resending", help, |backend| {
        backend.resending.load(Ordering::Relaxed) as f64
    });
    let help = "Requests that were not sent again because the budget was spent.";
    of.counter("gateway_backend_retry_budget_spent_total", help, None, |backend| {
        backend.shards.sum(|shard| shard.budget_spent.get())
    });
    let help = "Requests refused because the backend had as many as it takes on.";
    of.counter("gateway_backend_max_requests_refused_total", help, None, |backend| {
        backend.shards.sum(|shard| shard.overflows.get())
    });
    let help = "Requests or connections for which no server was up.";
    of.counter("gateway_backend_no_server_total", help, None, |backend| {
        backend.shards.sum(|shard| shard.no_server.get())
    });
    let help = "Requests or connections that wait for a server to have room.";
    of.gauge("gateway_backend_queue", help, |backend| backend.queued() as f64);
    let help = "Requests or connections that waited for a server for too long.";
    of.counter("gateway_backend_queue_timeouts_total", help, None, |backend| {
        backend.queue_timeouts.get()
    });
    let help = "Requests or connections refused because as many were waiting as may.";
    of.counter("gateway_backend_queue_full_total", help, None, |backend| {
        backend.queue_full.get()
    });
    let help = "Bytes received from servers.";
    of.counter("gateway_backend_received_bytes_total", help, None, |backend| {
        backend.shards.sum(|shard| shard.received.get())
    });
    let help = "Bytes sent to servers.";
    of.counter("gateway_backend_sent_bytes_total", help, None, |backend| {
        backend.shards.sum(|shard| shard.sent.get())
    });
}

pub(in crate::telemetry::metrics) fn register_server(exporter: &mut Exporter, server: &Arc<ServerMetrics>) {
    let mut of = exporter.of(server, &[("backend", &server.backend.name), ("server", &server.name)]);
    let help = "1 when the server is up, 0 when it is down.";
    of.gauge("gateway_server_up", help, |server| f64::from(u8::from(server.is_up())));
    let help = "The server's weight, which an operator may have set.";
    of.gauge("gateway_server_weight", help, |server| f64::from(server.weight()));
    let help = "What an operator made of the server: 0 ready, 1 drain, 2 maintenance.";
    of.gauge("gateway_server_admin_state", help, |server| admin_value(server.admin()));
    let help = "Requests, or connections in TCP mode, that the server has under way.";
    of.gauge("gateway_server_in_flight", help, |server| server.in_flight() as f64);
    let help =
        "What the server may have under way at once, as its agent says or else its configuration; 0 for no limit.";
    of.gauge("gateway_server_max_connections", help, |server| {
        server.max_connections().map_or(0.0, |max| max.get() as f64)
    });
    let help = "Requests that wait for this server alone, because they belong to it.";
    of.gauge("gateway_server_queue", help, |server| server.queued() as f64);
    let help = "Requests, or connections in TCP mode, that the server was given.";
    of.counter("gateway_server_sessions_total", help, None, |server| {
        server.shards.sum(|shard| shard.sessions.get())
    });
    let help = "Attempts beyond the first, there or elsewhere, for what the server had been given.";
    of.counter("gateway_server_retries_total", help, None, |server| {
        server.shards.sum(|shard| shard.retries.get())
    });
    let help = "Bytes received from the server.";
    of.counter("gateway_server_received_bytes_total", help, None, |server| {
        server.shards.sum(|shard| shard.received.get())
    });
    let help = "Bytes sent to the server.";
    of.counter("gateway_server_sent_bytes_total", help, None, |server| {
        server.shards.sum(|shard| shard.sent.get())
    });
    let help = "How long the server has been down, in whole seconds.";
    of.counter("gateway_server_downtime_seconds_total", help, None, |server| {
        server.changes.get().1.as_secs()
    });
    let help = "Connections opened to the server.";
    of.counter("gateway_server_connections_total", help, None, |server| {
        server.shards.sum(|shard| shard.connections.get())
    });
    let help = "Connections to the server that could not be opened.";
    of.counter("gateway_server_connect_errors_total", help, None, |server| {
        server.shards.sum(|shard| shard.connect_errors.get())
    });
    let help = "TLS handshakes with the server that failed, those of checks included.";
    of.counter("gateway_server_tls_errors_total", help, None, |server| {
        server.shards.sum(|shard| shard.tls_errors.get())
    });
    let help = "Requests to which the server gave no answer, or what was none.";
    of.counter("gateway_server_response_errors_total", help, None, |server| {
        server.shards.sum(|shard| shard.response_errors.get())
    });
    let (name, help) = ("gateway_server_checks_total", "Health checks ended, by result.");
    of.counter(name, help, Some(("result", "passed")), |server| {
        server.checks_passed.get()
    });
    of.counter(name, help, Some(("result", "failed")), |server| {
        server.checks_failed.get()
    });
    let help = "Whether it is known where the server is: 0 while its name leads nowhere.";
    of.gauge("gateway_server_resolved", help, |server| {
        f64::from(u8::from(server.state.placed()))
    });
    let help = "Changes of the address that the server's name leads to.";
    of.counter("gateway_server_address_changes_total", help, None, |server| {
        server.moves.get()
    });
    let (name, help) = (
        "gateway_server_agent_checks_total",
        "Questions to the server's agent, by what came of them.",
    );
    of.counter(name, help, Some(("result", "answered")), |server| {
        server.agent_answered.get()
    });
    of.counter(name, help, Some(("result", "failed")), |server| {
        server.agent_failed.get()
    });
    let help = "What the server's agent makes of it: 0 ready, 1 drain, 2 maintenance, 3 down.";
    of.gauge("gateway_server_agent_state", help, |server| match server.agent() {
        Agent { up: false, .. } => 3.0,
        agent => admin_value(agent.admin),
    });
    let help = "Of the server's weight, what its agent says that it can bear, in percent.";
    of.gauge("gateway_server_agent_weight_percent", help, |server| {
        f64::from(server.agent().percent)
    });
    let help = "Whether the last check passed: 1 or 0; NaN before the first.";
    of.gauge("gateway_server_last_check_passed", help, |server| {
        let last = server.last_check.load();
        last.as_ref().map_or(f64::NAN, |last| f64::from(u8::from(last.passed)))
    });
    let help = "How long the last check took; NaN before the first.";
    of.gauge("gateway_server_last_check_duration_seconds", help, |server| {
        let last = server.last_check.load();
        last.as_ref().map_or(f64::NAN, |last| last.took.as_secs_f64())
    });
    let help = "Times that failing connections or answers of traffic took the server down (`observe`).";
    of.counter("gateway_server_ejections_total", help, None, |server| {
        server.ejections.get()
    });
    let help = "1 while the server gets nothing because of its answers (`outlier-ejection`).";
    of.gauge("gateway_server_ejected", help, |server| {
        f64::from(u8::from(server.state.is_ejected()))
    });
    let name = "gateway_server_outlier_ejections_total";
    let help = "Times that the server was ejected for its answers, by what they were.";
    for (i, reason) in EjectedFor::ALL.into_iter().enumerate() {
        of.counter(name, help, Some(("reason", reason.word())), move |server| {
            server.outlier_ejections[i].get()
        });
    }
    let name = "gateway_server_transitions_total";
    let help = "Changes of the server's health, by what it became.";
    of.counter(name, help, Some(("to", "up")), |server| server.went_up.get());
    of.counter(name, help, Some(("to", "down")), |server| server.went_down.get());
    let help = "The server's answers, by the class of their status; none for what was none.";
    for (i, class) in CLASSES.into_iter().enumerate() {
        of.counter(
            "gateway_server_responses_total",
            help,
            Some(("code", class)),
            move |server| server.shards.sum(|shard| shard.responses[i].get()),
        );
    }
    let help = "The server's answers to calls of gRPC, by what the calls came to.";
    for (i, result) in GRPC_RESULTS.into_iter().enumerate() {
        of.counter(
            "gateway_server_grpc_responses_total",
            help,
            Some(("result", result)),
            move |server| server.shards.sum(|shard| shard.grpc[i].get()),
        );
    }
    let help = "From the end of the request's head to the answer's.";
    of.histogram(RESPONSE_TIME, help, |server| {
        histogram::totals(&server.shards, |shard| &shard.response_time)
    });
}

fn admin_value(admin: Admin) -> f64 {
    match admin {
        Admin::Ready => 0.0,
        Admin::Drain => 1.0,
        Admin::Maintenance => 2.0,
    }
}

/// The histogram of a server.
pub(in crate::telemetry::metrics) const RESPONSE_TIME: &str = "gateway_server_response_time_seconds";

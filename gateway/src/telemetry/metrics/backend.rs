//! Metrics of backends and their servers, with the two states that all workers share: what is known and ordered of a server
//! (`ServerState`), and how much it has under way.

mod figures;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::ejections::{EjectedFor, Ejection};
use super::exporter::Exporter;
use super::frontend::{CLASSES, class};
use super::histogram::{self, Histogram};
use super::rounds::Rounds;
use super::shard::{Count, Sharded};
use super::state::{Admin, Agent, SHARE_OF_ONE, ServerState};

/// Counts of a backend.
#[derive(Debug)]
pub struct BackendMetrics {
    pub(super) name: Arc<str>,
    in_flight: AtomicUsize,
    servers_up: AtomicUsize,
    queued: AtomicUsize,
    /// Requests that are being sent again.
    resending: AtomicUsize,
    /// Requests taken on, where that has a bound.
    admitted: AtomicUsize,
    /// Servers that are ejected.
    pub(super) ejected: Mutex<usize>,
    queue_timeouts: Count,
    queue_full: Count,
    changed: watch::Sender<()>,
    shards: Sharded<BackendShard>,
}

/// Counts of a server. The fields stand in this order so that what every request of every worker writes (the
/// reference count and `in_flight`) is on another cache line than what they only read.
#[derive(Debug)]
#[repr(C)]
pub struct ServerMetrics {
    in_flight: AtomicUsize,
    /// Beside what is read: it is written only when somebody waits.
    queued: AtomicUsize,
    pub(super) state: ServerState,
    pub(super) backend: Arc<BackendMetrics>,
    pub(super) name: Arc<str>,
    shards: Sharded<ServerShard>,
    went_up: Count,
    went_down: Count,
    checks_passed: Count,
    checks_failed: Count,
    ejections: Count,
    /// For its answers, by why.
    pub(super) outlier_ejections: [Count; EjectedFor::ALL.len()],
    pub(super) ejection: Mutex<Ejection>,
    agent_answered: Count,
    agent_failed: Count,
    moves: Count,
    /// When it is checked next, and how far that has counted.
    pub checks: Rounds,
    /// When its agent is asked next.
    pub questions: Rounds,
    /// Whether the last check passed, and how long it took; none before the first.
    last_check: ArcSwapOption<LastCheck>,
}

#[derive(Debug)]
struct LastCheck {
    passed: bool,
    took: Duration,
}

/// A request or connection that a server has under way, until this is dropped.
#[derive(Debug)]
pub struct InFlight {
    server: Arc<ServerMetrics>,
}

#[derive(Debug, Default)]
struct BackendShard {
    retries: Count,
    budget_spent: Count,
    overflows: Count,
    no_server: Count,
    received: Count,
    sent: Count,
}

#[derive(Debug, Default)]
struct ServerShard {
    sessions: Count,
    connections: Count,
    connect_errors: Count,
    tls_errors: Count,
    response_errors: Count,
    responses: [Count; CLASSES.len()],
    response_time: Histogram,
}

impl BackendMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            in_flight: AtomicUsize::new(0),
            servers_up: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            resending: AtomicUsize::new(0),
            admitted: AtomicUsize::new(0),
            ejected: Mutex::default(),
            queue_timeouts: Count::default(),
            queue_full: Count::default(),
            changed: watch::Sender::new(()),
            shards: Sharded::default(),
        }
    }

    /// Requests or connections that its servers have under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Tells when one of its servers has changed: its health, weight or administrative state.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A request was tried again, on the same or another server.
    pub fn retried(&self) {
        self.shards.here().retries.add(1);
    }

    /// One more request is sent again, if there are fewer than this.
    pub fn begin_resending(&self, most: usize) -> bool {
        let add = |now| (now < most).then_some(now + 1);
        let begun = self.resending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        if begun.is_err() {
            self.shards.here().budget_spent.add(1);
        }
        begun.is_ok()
    }

    /// One less is.
    pub fn end_resending(&self) {
        self.resending.fetch_sub(1, Ordering::Relaxed);
    }

    /// One more request is taken on, if there are fewer than this.
    pub fn admit(&self, most: usize) -> bool {
        let add = |now| (now < most).then_some(now + 1);
        let admitted = self.admitted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        if admitted.is_err() {
            self.shards.here().overflows.add(1);
        }
        admitted.is_ok()
    }

    /// One less is.
    pub fn discharge(&self) {
        self.admitted.fetch_sub(1, Ordering::Relaxed);
    }

    /// There was no server to take a request.
    pub fn no_server(&self) {
        self.shards.here().no_server.add(1);
    }

    /// Requests or connections that wait for a server to have room.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// The queue was so long and is so long now.
    pub fn queue_changed(&self, before: usize, after: usize) {
        if after >= before {
            self.queued.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.queued.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Somebody waited for too long.
    pub fn queue_timed_out(&self) {
        self.queue_timeouts.add(1);
    }

    /// Somebody could not even wait.
    pub fn queue_was_full(&self) {
        self.queue_full.add(1);
    }

    /// Bytes came from servers and went to them.
    pub fn bytes(&self, received: u64, sent: u64) {
        let shard = self.shards.here();
        shard.received.add(received);
        shard.sent.add(sent);
    }
}

impl ServerMetrics {
    /// A server that is up until it is known not to be.
    pub(super) fn new(backend: &Arc<BackendMetrics>, name: &str) -> Self {
        backend.servers_up.fetch_add(1, Ordering::Relaxed);
        Self {
            in_flight: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            state: ServerState::new(),
            backend: Arc::clone(backend),
            name: name.into(),
            shards: Sharded::default(),
            went_up: Count::default(),
            went_down: Count::default(),
            checks_passed: Count::default(),
            checks_failed: Count::default(),
            ejections: Count::default(),
            outlier_ejections: Default::default(),
            ejection: Mutex::default(),
            agent_answered: Count::default(),
            agent_failed: Count::default(),
            moves: Count::default(),
            checks: Rounds::default(),
            questions: Rounds::default(),
            last_check: ArcSwapOption::empty(),
        }
    }

    /// Requests or connections under way, over all workers.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests that wait for this server alone, because they belong to it.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// One more waits for this server alone.
    pub fn queue_joined(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// One less does.
    pub fn queue_left(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it is up, as far as is known.
    pub fn is_up(&self) -> bool {
        self.state.is_up()
    }

    /// Its part of new work, beside the other servers' shares; 0 when it may get none.
    pub fn share(&self) -> u32 {
        self.state.share()
    }

    /// The weight that counts when new work is shared out: with what its agent says and a slow start taken into account, and 0
    /// when it may get none.
    pub fn effective_weight(&self) -> f64 {
        f64::from(self.share()) / f64::from(SHARE_OF_ONE)
    }

    /// The weight that it has now, which an operator may have set.
    pub fn weight(&self) -> u16 {
        self.state.weights().0
    }

    /// The weight that the configuration gives it.
    pub fn configured_weight(&self) -> u16 {
        self.state.weights().1
    }

    /// What an operator made of it.
    pub fn admin(&self) -> Admin {
        self.state.admin()
    }

    /// Takes what a configuration says of it.
    pub fn configure(&self, weight: u16, slow_start: Option<Duration>) {
        self.state.configure(weight, slow_start);
    }

    /// An operator gives it a weight.
    pub fn set_weight(&self, weight: u16) {
        self.state.set_weight(weight);
        self.backend.changed.send_replace(());
    }

    /// An operator takes it out of service or back.
    pub fn set_admin(&self, admin: Admin) {
        self.state.set_admin(admin);
        self.backend.changed.send_replace(());
    }

    /// Lets a server that warms up have what is its due by now. False when there is nothing to wait for.
    pub fn warm(&self) -> bool {
        self.state.warm()
    }

    /// Its checks, or failing traffic, changed what is believed of it.
    pub fn went(&self, up: bool) {
        self.turned(self.state.set_up(up));
        if up { &self.went_up } else { &self.went_down }.add(1);
    }

    /// Its agent says this now.
    pub fn set_agent(&self, agent: Agent) {
        let turned = self.state.set_agent(agent);
        self.turned(turned);
        if turned {
            if self.is_up() { &self.went_up } else { &self.went_down }.add(1);
        }
    }

    /// Whether it is known where it is. A server that is nowhere is not up.
    pub fn set_placed(&self, placed: bool) {
        self.turned(self.state.set_placed(placed));
    }

    /// Its name led to another address, or to none.
    pub fn moved(&self) {
        self.moves.add(1);
    }

    /// What its agent says, or said last.
    pub fn agent(&self) -> Agent {
        self.state.agent()
    }

    /// Whether an operator or its agent has taken it out of service.
    pub fn is_in_maintenance(&self) -> bool {
        self.state.is_in_maintenance()
    }

    /// What its checks find, whatever its agent says.
    pub fn passes(&self) -> bool {
        self.state.passes()
    }

    /// Its agent was asked, and answered or did not.
    pub fn agent_asked(&self, answered: bool) {
        if answered {
            &self.agent_answered
        } else {
            &self.agent_failed
        }
        .add(1);
    }

    /// Counts a server that is up or down now and was not before, and tells of the change.
    pub(super) fn turned(&self, turned: bool) {
        if turned && self.is_up() {
            self.backend.servers_up.fetch_add(1, Ordering::Relaxed);
        } else if turned {
            self.backend.servers_up.fetch_sub(1, Ordering::Relaxed);
        }
        self.backend.changed.send_replace(());
    }

    /// Whether a check has said anything about it.
    pub fn is_checked(&self) -> bool {
        self.last_check.load().is_some()
    }

    /// Servers of its backend that are up.
    pub fn backend_servers_up(&self) -> usize {
        self.backend.servers_up.load(Ordering::Relaxed)
    }

    /// Failing connections of traffic took it down.
    pub fn ejected(&self) {
        self.ejections.add(1);
    }

    /// A check ended.
    pub fn checked(&self, passed: bool, took: Duration) {
        self.last_check.store(Some(Arc::new(LastCheck { passed, took })));
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

    /// TLS with it, for traffic or a check, came to nothing.
    pub fn tls_failed(&self) {
        self.shards.here().tls_errors.add(1);
    }

    /// Whose server it is.
    pub fn backend_name(&self) -> &str {
        &self.backend.name
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

impl Drop for ServerMetrics {
    fn drop(&mut self) {
        if self.is_up() {
            self.backend.servers_up.fetch_sub(1, Ordering::Relaxed);
        }
        if self.state.is_ejected() {
            self.backend.ejected_less();
        }
    }
}

impl InFlight {
    /// A server takes a request or connection.
    pub fn begin(server: &Arc<ServerMetrics>) -> Self {
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        Self::counted(server)
    }

    /// A server takes a request or connection if it has fewer than `max` under way: one atomic step, so that it never has
    /// more, whoever asks at the same time.
    pub fn begin_below(server: &Arc<ServerMetrics>, max: usize) -> Option<Self> {
        let add = |now| (now < max).then_some(now + 1);
        let added = server.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        added.is_ok().then(|| Self::counted(server))
    }

    /// The rest of beginning, after the server's own count.
    fn counted(server: &Arc<ServerMetrics>) -> Self {
        let server = Arc::clone(server);
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

pub(super) fn register_backend(exporter: &mut Exporter, backend: &Arc<BackendMetrics>) {
    let mut of = exporter.of(backend, &[("backend", &backend.name)]);
    let help = "Requests, or connections in TCP mode, that its servers have under way.";
    of.gauge("gateway_backend_in_flight", help, |backend| backend.in_flight() as f64);
    let help = "Servers that are up, backup servers included.";
    of.gauge("gateway_backend_servers_up", help, |backend| {
        backend.servers_up.load(Ordering::Relaxed) as f64
    });
    let help = "Attempts beyond the first, on the same or another server.";
    of.counter("gateway_backend_retries_total", help, None, |backend| {
        backend.shards.sum(|shard| shard.retries.get())
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

pub(super) fn register_server(exporter: &mut Exporter, server: &Arc<ServerMetrics>) {
    let mut of = exporter.of(server, &[("backend", &server.backend.name), ("server", &server.name)]);
    let help = "1 when the server is up, 0 when it is down.";
    of.gauge("gateway_server_up", help, |server| f64::from(u8::from(server.is_up())));
    let help = "The server's weight, which an operator may have set.";
    of.gauge("gateway_server_weight", help, |server| f64::from(server.weight()));
    let help = "What an operator made of the server: 0 ready, 1 drain, 2 maintenance.";
    of.gauge("gateway_server_admin_state", help, |server| admin_value(server.admin()));
    let help = "Requests, or connections in TCP mode, that the server has under way.";
    of.gauge("gateway_server_in_flight", help, |server| server.in_flight() as f64);
    let help = "Requests that wait for this server alone, because they belong to it.";
    of.gauge("gateway_server_queue", help, |server| server.queued() as f64);
    let help = "Requests, or connections in TCP mode, that the server was given.";
    of.counter("gateway_server_sessions_total", help, None, |server| {
        server.shards.sum(|shard| shard.sessions.get())
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
pub(super) const RESPONSE_TIME: &str = "gateway_server_response_time_seconds";

//! Metrics of one server, with its state, which all workers share.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::BackendMetrics;
use crate::telemetry::access::Termination;
use crate::telemetry::grpc::GrpcStatus;
use crate::telemetry::metrics::averages::{Averages, Times, Took};
use crate::telemetry::metrics::changes::Changes;
use crate::telemetry::metrics::ejections::{EjectedFor, Ejection};
use crate::telemetry::metrics::frontend::{CLASSES, class};
use crate::telemetry::metrics::histogram::{self, Histogram};
use crate::telemetry::metrics::rates::{Peak, Rate};
use crate::telemetry::metrics::rounds::Rounds;
use crate::telemetry::metrics::shard::{Count, Sharded};
use crate::telemetry::metrics::state::{Admin, Agent, SHARE_OF_ONE, ServerState};

/// Counts of a server. The fields stand in this order so that what every request of every worker writes (the
/// reference count and `in_flight`) is on another cache line than what they only read.
#[derive(Debug)]
#[repr(C)]
pub struct ServerMetrics {
    pub(super) in_flight: AtomicUsize,
    pub(super) most_in_flight: Peak,
    /// Beside what is read: it is written only when somebody waits.
    queued: AtomicUsize,
    pub(super) most_queued: Peak,
    /// Whether it may have new work, as it was when that changed last.
    takes_work: AtomicBool,
    pub(in crate::telemetry::metrics) state: ServerState,
    pub(in crate::telemetry::metrics) backend: Arc<BackendMetrics>,
    pub(in crate::telemetry::metrics) name: Arc<str>,
    pub(super) shards: Sharded<ServerShard>,
    pub(super) went_up: Count,
    pub(super) went_down: Count,
    pub(super) checks_passed: Count,
    pub(super) checks_failed: Count,
    pub(super) ejections: Count,
    /// For its answers, by why.
    pub(in crate::telemetry::metrics) outlier_ejections: [Count; EjectedFor::ALL.len()],
    pub(in crate::telemetry::metrics) ejection: Mutex<Ejection>,
    pub(super) agent_answered: Count,
    pub(super) agent_failed: Count,
    pub(super) moves: Count,
    pub(super) changes: Changes,
    pub(super) rate: Rate,
    pub(super) averages: Averages,
    /// When it is checked next, and how far that has counted.
    pub checks: Rounds,
    /// When its agent is asked next.
    pub questions: Rounds,
    /// How the last check ended; none before the first.
    pub(super) last_check: ArcSwapOption<CheckEnd>,
    /// How its agent was asked last.
    pub(super) last_question: ArcSwapOption<CheckEnd>,
}

/// Who broke off an exchange that was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// How a check ended, or a question to an agent.
#[derive(Debug)]
pub struct CheckEnd {
    /// Whether it passed.
    pub passed: bool,
    /// How long it took.
    pub took: Duration,
    /// What it found, in HAProxy's words, as `L4OK` or `L7STS`.
    pub word: &'static str,
    /// The status that the server answered with, where it is about that.
    pub status: Option<u16>,
    /// Why it failed; of an agent, what it says.
    pub reason: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct ServerShard {
    pub(super) sessions: Count,
    pub(super) connections: Count,
    pub(super) retries: Count,
    pub(super) received: Count,
    pub(super) sent: Count,
    pub(super) connect_errors: Count,
    pub(super) unreached: Count,
    pub(super) tls_errors: Count,
    pub(super) response_errors: Count,
    pub(super) responses: [Count; CLASSES.len()],
    pub(super) response_time: Histogram,
    pub(super) redispatches: Count,
    pub(super) times: Times,
    pub(super) client_aborts: Count,
    pub(super) server_aborts: Count,
    pub(super) server_timeouts: Count,
    /// Answers to calls of gRPC, by what they came to.
    pub(super) grpc: [Count; GRPC_RESULTS.len()],
}

/// What a call of gRPC came to: OK, another status, one that is the server's fault, or none.
pub(super) const GRPC_RESULTS: [&str; 4] = ["ok", "client-error", "server-error", "none"];

impl ServerMetrics {
    /// A server that is up until it is known not to be.
    pub(in crate::telemetry::metrics) fn new(backend: &Arc<BackendMetrics>, name: &str) -> Self {
        backend.servers_up.fetch_add(1, Ordering::Relaxed);
        Self {
            in_flight: AtomicUsize::new(0),
            most_in_flight: Peak::default(),
            queued: AtomicUsize::new(0),
            most_queued: Peak::default(),
            takes_work: AtomicBool::new(false),
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
            changes: Changes::new(),
            rate: Rate::default(),
            averages: Averages::default(),
            checks: Rounds::default(),
            questions: Rounds::default(),
            last_check: ArcSwapOption::empty(),
            last_question: ArcSwapOption::empty(),
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
        self.most_queued.note(self.queued.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// One less does.
    pub fn queue_left(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it is up, as far as is known.
    pub fn is_up(&self) -> bool {
        self.state.is_up()
    }

    /// Whether it may have new work.
    pub fn takes_work(&self) -> bool {
        self.takes_work.load(Ordering::Relaxed)
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

    /// Requests or connections that it may have under way at once, as its agent says or else its configuration; none is no
    /// limit.
    pub fn max_connections(&self) -> Option<NonZeroUsize> {
        self.state.max_connections()
    }

    /// The same for now: less while it starts slowly.
    pub fn max_connections_now(&self) -> Option<NonZeroUsize> {
        self.state.max_connections_now()
    }

    /// A configuration lets it have so much under way.
    pub fn configure_max(&self, max: Option<NonZeroUsize>) {
        self.state.configure_max(max);
    }

    /// Takes what a configuration says of it.
    pub fn configure(&self, weight: u16, slow_start: Option<Duration>) {
        self.state.configure(weight, slow_start);
        self.changed();
    }

    /// A configuration takes it out of service, or no longer. What an operator has ordered stays while configurations say
    /// the same. Told of with the rest of what the configuration says.
    pub fn configure_disabled(&self, disabled: bool) {
        self.state.configure_disabled(disabled);
    }

    /// An operator gives it a weight.
    pub fn set_weight(&self, weight: u16) {
        self.state.set_weight(weight);
        self.changed();
    }

    /// An operator takes it out of service or back.
    pub fn set_admin(&self, admin: Admin) {
        self.state.set_admin(admin);
        self.changed();
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

    /// Before its first check it is taken for down: nothing has changed about it.
    pub fn begins_down(&self) {
        self.note_turned(self.state.set_up(false));
        self.tell(true);
    }

    /// Its agent says this now.
    pub fn set_agent(&self, agent: Agent) {
        let turned = self.state.set_agent(agent);
        self.turned(turned);
        if turned {
            if self.is_up() { &self.went_up } else { &self.went_down }.add(1);
        }
    }

    /// Whether its check asks for no new work now. Answers whether that is new.
    pub fn set_drains(&self, drains: bool) -> bool {
        let is_new = self.state.set_drains(drains);
        if is_new {
            self.changed();
        }
        is_new
    }

    /// Whether its check asks for no new work.
    pub fn drains(&self) -> bool {
        self.state.drains()
    }

    /// Whether it is known where it is. A server that is nowhere is not up.
    pub fn set_placed(&self, placed: bool) {
        self.turned(self.state.set_placed(placed));
    }

    /// Its priority in DNS changed: those who wait may have it now.
    pub fn moved_in_rank(&self) {
        self.backend.changed.send_replace(());
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

    /// Its agent was asked; the end has passed when it answered.
    pub fn agent_asked(&self, end: CheckEnd) {
        let answered = end.passed;
        self.last_question.store(Some(Arc::new(end)));
        if answered {
            &self.agent_answered
        } else {
            &self.agent_failed
        }
        .add(1);
    }

    /// Counts a server that is up or down now and was not before, and tells of the change.
    pub(in crate::telemetry::metrics) fn turned(&self, turned: bool) {
        self.note_turned(turned);
        self.changed();
    }

    fn note_turned(&self, turned: bool) {
        if turned {
            self.changes.turned(self.is_up());
        }
        if turned && self.is_up() {
            self.backend.servers_up.fetch_add(1, Ordering::Relaxed);
        } else if turned {
            self.backend.servers_up.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Something has changed about it: tells who waits for that, and of a backend that gains its first server or loses its last.
    fn changed(&self) {
        self.tell(false);
    }

    fn tell(&self, begins: bool) {
        let mut taking_work = self.backend.taking_work();
        let takes_work = self.share() > 0;
        if self.takes_work.swap(takes_work, Ordering::Relaxed) != takes_work {
            self.backend.turns.fetch_add(1, Ordering::Release);
            self.backend.server_turned(&mut taking_work, takes_work, begins);
        }
        drop(taking_work);
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
    pub fn checked(&self, end: CheckEnd) {
        let passed = end.passed;
        self.last_check.store(Some(Arc::new(end)));
        if passed {
            &self.checks_passed
        } else {
            &self.checks_failed
        }
        .add(1);
    }

    /// What it had been given was tried again at another server.
    pub fn redispatched(&self) {
        self.shards.here().redispatches.add(1);
        self.backend.shards.here().redispatches.add(1);
    }

    /// What it had been given was tried again, there or elsewhere.
    pub fn retried(&self) {
        self.shards.here().retries.add(1);
    }

    /// Bytes came from it and went to it; they are its backend's as well.
    pub fn bytes(&self, received: u64, sent: u64) {
        let shard = self.shards.here();
        shard.received.add(received);
        shard.sent.add(sent);
        self.backend.bytes(received, sent);
    }

    /// Looks at how much has come in the last second.
    pub(in crate::telemetry::metrics) fn sample(&self) {
        self.rate.sample(self.shards.sum(|shard| shard.sessions.get()));
        self.catch_up();
    }

    /// Brings the averages up to date, the backend's with them.
    pub(in crate::telemetry::metrics) fn catch_up(&self) {
        let shards = &self.shards;
        let more = self.averages.catch_up(|| {
            let ended = shards.sum(|shard| shard.times.exchanges());
            [
                (ended, shards.sum(|shard| shard.times.queue())),
                (ended, shards.sum(|shard| shard.times.connect())),
                histogram::sum(&histogram::totals(shards, |shard| &shard.response_time)),
                (ended, shards.sum(|shard| shard.times.total())),
            ]
        });
        self.backend.averages.add(&more);
    }

    /// An exchange or session that had come to it is over. How long it took is told of one that had a connection to it.
    pub fn ended(&self, took: Option<Took>, how: Termination) {
        let shard = self.shards.here();
        if let Some(took) = took {
            shard.times.add(took);
        }
        match how.broken_off_by() {
            Some(Side::Client) => shard.client_aborts.add(1),
            Some(Side::Server) => shard.server_aborts.add(1),
            None if how.is_servers_silence() => shard.server_timeouts.add(1),
            None => {}
        }
    }

    /// It answered a call of gRPC, which ended so.
    pub fn grpc_answered(&self, status: GrpcStatus) {
        let result = match status {
            GrpcStatus::Said(0) => 0,
            GrpcStatus::Said(_) if !status.is_servers_fault() => 1,
            GrpcStatus::Said(_) => 2,
            GrpcStatus::Unsaid => 3,
        };
        self.shards.here().grpc[result].add(1);
    }

    /// A connection to it was opened.
    pub fn connected(&self) {
        self.shards.here().connections.add(1);
    }

    /// A connection to it could not be opened.
    pub fn connect_failed(&self) {
        self.shards.here().connect_errors.add(1);
    }

    /// A request or connection was given up, because it could not be reached.
    pub fn not_reached(&self) {
        self.shards.here().unreached.add(1);
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
        if *self.takes_work.get_mut() {
            // With its backend, or with a reload that leaves it out.
            let mut taking_work = self.backend.taking_work();
            *taking_work = taking_work.saturating_sub(1);
        }
    }
}

//! Metrics of backends and their servers, with the two states that all workers share: what is known and ordered of a server
//! (`ServerState`), and how much it has under way.

mod figures;
mod in_flight;
mod register;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::averages::{Averages, Times, Took};
use super::changes::Changes;
use super::ejections::{EjectedFor, Ejection};
use super::frontend::{CLASSES, class};
use super::histogram::{self, Histogram};
use super::rates::{Peak, Rate};
use super::rounds::Rounds;
use super::shard::{Count, Sharded};
use super::state::{Admin, Agent, SHARE_OF_ONE, ServerState};
use crate::telemetry::grpc::GrpcStatus;
pub use in_flight::InFlight;
pub(super) use register::{RESPONSE_TIME, register_backend, register_server};

/// Counts of a backend.
#[derive(Debug)]
pub struct BackendMetrics {
    pub(super) name: Arc<str>,
    in_flight: AtomicUsize,
    most_in_flight: Peak,
    servers_up: AtomicUsize,
    /// Servers that may have new work. Locked from looking at a server until what it comes to is told, so that two changes at
    /// once are told in the order in which they were.
    taking_work: Mutex<usize>,
    queued: AtomicUsize,
    most_queued: Peak,
    rate: Rate,
    averages: Averages,
    /// Of whether any server may have new work.
    changes: Changes,
    went_down: Count,
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
    most_in_flight: Peak,
    /// Beside what is read: it is written only when somebody waits.
    queued: AtomicUsize,
    most_queued: Peak,
    /// Whether it may have new work, as it was when that changed last.
    takes_work: AtomicBool,
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
    changes: Changes,
    rate: Rate,
    averages: Averages,
    /// When it is checked next, and how far that has counted.
    pub checks: Rounds,
    /// When its agent is asked next.
    pub questions: Rounds,
    /// How the last check ended; none before the first.
    last_check: ArcSwapOption<CheckEnd>,
    /// How its agent was asked last.
    last_question: ArcSwapOption<CheckEnd>,
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
struct BackendShard {
    retries: Count,
    redispatches: Count,
    sessions: Count,
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
    retries: Count,
    received: Count,
    sent: Count,
    connect_errors: Count,
    tls_errors: Count,
    response_errors: Count,
    responses: [Count; CLASSES.len()],
    response_time: Histogram,
    redispatches: Count,
    times: Times,
    client_aborts: Count,
    server_aborts: Count,
    /// Answers to calls of gRPC, by what they came to.
    grpc: [Count; GRPC_RESULTS.len()],
}

/// What a call of gRPC came to: OK, another status, one that is the server's fault, or none.
const GRPC_RESULTS: [&str; 4] = ["ok", "client-error", "server-error", "none"];

impl BackendMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            in_flight: AtomicUsize::new(0),
            most_in_flight: Peak::default(),
            servers_up: AtomicUsize::new(0),
            taking_work: Mutex::new(0),
            queued: AtomicUsize::new(0),
            most_queued: Peak::default(),
            rate: Rate::default(),
            averages: Averages::default(),
            changes: Changes::new(),
            went_down: Count::default(),
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

    /// How many of its servers may have new work; whoever changes that has it locked until the change is told.
    fn taking_work(&self) -> MutexGuard<'_, usize> {
        self.taking_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of its servers may have new work from now on, or may not. One that `begins` so has not been lost.
    fn server_turned(&self, taking_work: &mut usize, takes_work: bool, begins: bool) {
        let backend = &*self.name;
        if takes_work {
            *taking_work += 1;
            if *taking_work == 1 && !self.changes.turned(true) {
                match self.went_down.get() {
                    0 => tracing::info!(backend, "backend has its first server"),
                    _ => tracing::info!(backend, "backend has a server again"),
                }
            }
        } else {
            *taking_work = taking_work.saturating_sub(1);
            if *taking_work > 0 {
                return;
            }
            self.changes.turned(false);
            if begins {
                tracing::info!(
                    backend,
                    "backend begins without a server: its checks have not passed yet"
                );
            } else {
                self.went_down.add(1);
                tracing::error!(backend, "backend has no server left");
            }
        }
    }

    /// Tells when one of its servers has changed: its health, weight or administrative state.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A request was tried again, on the same or another server.
    pub fn retried(&self) {
        self.shards.here().retries.add(1);
    }

    /// Looks at how much has come in the last second.
    pub(super) fn sample(&self) {
        self.rate.sample(self.shards.sum(|shard| shard.sessions.get()));
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
            let more = after - before;
            self.most_queued
                .note(self.queued.fetch_add(more, Ordering::Relaxed) + more);
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

    /// A configuration lets it have so much under way.
    pub fn configure_max(&self, max: Option<NonZeroUsize>) {
        self.state.configure_max(max);
    }

    /// Takes what a configuration says of it.
    pub fn configure(&self, weight: u16, slow_start: Option<Duration>) {
        self.state.configure(weight, slow_start);
        self.changed();
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
    pub(super) fn turned(&self, turned: bool) {
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
    pub(super) fn sample(&self) {
        self.rate.sample(self.shards.sum(|shard| shard.sessions.get()));
        self.catch_up();
    }

    /// Brings the averages up to date, the backend's with them.
    pub(super) fn catch_up(&self) {
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
    pub fn ended(&self, took: Option<Took>, broken_off_by: Option<Side>) {
        let shard = self.shards.here();
        if let Some(took) = took {
            shard.times.add(took);
        }
        match broken_off_by {
            Some(Side::Client) => shard.client_aborts.add(1),
            Some(Side::Server) => shard.server_aborts.add(1),
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

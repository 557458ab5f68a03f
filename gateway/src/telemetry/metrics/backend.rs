//! Metrics of backends and their servers, with the two states that all workers share: what is known and ordered of a server
//! (`ServerState`), and how much it has under way.

mod figures;
mod in_flight;
mod register;
mod server;

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::averages::Averages;
use super::changes::Changes;
use super::frontend::{CLASSES, class};
use super::rates::{Peak, Rate};
use super::shard::{Count, Sharded};
pub use in_flight::InFlight;
pub(super) use register::{RESPONSE_TIME, register_backend, register_server};
pub use server::{CheckEnd, ServerMetrics, Side};

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
    /// How often one of its servers has come to have new work, or has ceased to.
    turns: AtomicU32,
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

#[derive(Debug, Default)]
struct BackendShard {
    retries: Count,
    redispatches: Count,
    /// Attempts at its servers.
    sessions: Count,
    /// Connections that were led to it, in TCP mode.
    led: Count,
    /// Exchanges that were led to it and have ended, in HTTP mode.
    responses: [Count; CLASSES.len()],
    budget_spent: Count,
    overflows: Count,
    no_server: Count,
    client_aborts: Count,
    received: Count,
    sent: Count,
}

impl BackendMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            in_flight: AtomicUsize::new(0),
            most_in_flight: Peak::default(),
            servers_up: AtomicUsize::new(0),
            taking_work: Mutex::new(0),
            turns: AtomicU32::new(0),
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

    /// Changes whenever one of its servers [takes work](ServerMetrics::takes_work) from now on, or does not. Who reads this first sees
    /// at least that of them.
    pub fn turns(&self) -> u32 {
        self.turns.load(Ordering::Acquire)
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
        self.rate.sample(self.sessions());
    }

    /// A connection was led here, in TCP mode.
    pub fn led(&self) {
        self.shards.here().led.add(1);
    }

    /// An exchange that was led here has ended: the status that the client got, none if it got none.
    pub fn response(&self, status: Option<u16>) {
        self.shards.here().responses[class(status)].add(1);
    }

    /// What was led here: connections, and exchanges that have ended. Those of which a plugin thought better have not been here.
    fn sessions(&self) -> u64 {
        let of = |shard: &BackendShard| shard.led.get() + shard.responses.iter().map(Count::get).sum::<u64>();
        self.shards.sum(of)
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

    /// A client left before a server was chosen for what it wanted.
    pub fn client_left(&self) {
        self.shards.here().client_aborts.add(1);
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

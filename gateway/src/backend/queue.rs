//! Places at servers with `max-connections`, and the line of those who wait for one.
//!
//! A place is taken by one atomic step on the server's count and so never exceeds the limit, whichever workers ask. While
//! there are places the queue is not touched. When there is none, who asks waits in a line that all workers share, first
//! come, first served: a place that becomes free is handed to the first in line, and nobody overtakes a line that stands.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::balance::Load;
use super::ends::{Ended, Listener};
use super::server::{BACKUPS, tier_in_use};
use super::{Server, Tried};
use crate::config::{Backups, QueueLimits};
use crate::telemetry::metrics::{BackendMetrics, InFlight};

/// A request or connection at a server: counts there, and holds its place, until it is dropped.
#[derive(Debug)]
pub struct Session {
    // In this order: the place is free before somebody is looked for who takes it.
    _in_flight: InFlight,
    freed: Freed,
    ends: Listener,
}

/// The line of a backend some of whose servers have a limit.
#[derive(Debug)]
pub(super) struct Queue {
    servers: Vec<Arc<Server>>,
    backups: Backups,
    limits: QueueLimits,
    metrics: Arc<BackendMetrics>,
    /// The same for all configurations of the backend: a reload breaks no line up.
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    length: AtomicUsize,
    /// Those of them who would have any server.
    unbound: AtomicUsize,
    line: Mutex<Line>,
}

/// Why no server was had by waiting for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueError {
    /// `max-queue` wait already.
    Full,
    /// No server had room within `timeout queue=`.
    Timeout,
}

/// Looks after the line when a place has become free.
#[derive(Debug)]
struct Freed(Option<Arc<Queue>>);

#[derive(Debug, Default)]
struct Line {
    /// By ticket, which is by age.
    waiters: VecDeque<Waiter>,
    /// How many of them would have any server.
    unbound: usize,
    next_ticket: u64,
}

impl Line {
    fn remove(&mut self, at: usize) -> Option<Waiter> {
        let waiter = self.waiters.remove(at)?;
        self.unbound -= usize::from(waiter.bound.is_none());
        Some(waiter)
    }
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    /// The queue of its configuration: which servers it may have.
    queue: Arc<Queue>,
    /// Servers that it has tried.
    tried: Tried,
    /// The one server that it waits for; counted there.
    bound: Option<Bound>,
    place: oneshot::Sender<(usize, Session)>,
}

/// Belongs to one server, and counts there as waiting.
#[derive(Debug)]
struct Bound {
    at: usize,
    server: Arc<Server>,
}

impl Bound {
    fn new(at: usize, server: &Arc<Server>) -> Self {
        server.metrics.queue_joined();
        Self {
            at,
            server: Arc::clone(server),
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.server.metrics.queue_left();
    }
}

/// A place in the line, given up when this is dropped.
struct Ticket {
    queue: Arc<Queue>,
    number: u64,
}

impl Queue {
    pub(super) fn new(
        servers: Vec<Arc<Server>>,
        backups: Backups,
        limits: QueueLimits,
        metrics: Arc<BackendMetrics>,
        before: Option<&Self>,
    ) -> Self {
        Self {
            servers,
            backups,
            limits,
            metrics,
            shared: before.map_or_else(Arc::default, |before| Arc::clone(&before.shared)),
        }
    }

    /// Whether anybody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.shared.length.load(Ordering::Relaxed) == 0
    }

    /// Whether nobody waits who would have any server.
    pub(super) fn has_no_line(&self) -> bool {
        self.shared.unbound.load(Ordering::Relaxed) == 0
    }

    /// Waits for a place at a server that is not among `tried`, or at the one that is `wanted`.
    pub(super) async fn wait(
        self: &Arc<Self>,
        tried: Tried,
        wanted: Option<usize>,
    ) -> Result<(usize, Session), QueueError> {
        let (place, mut handed) = oneshot::channel();
        let ticket = self.join(tried, wanted, place).ok_or(QueueError::Full)?;
        // A place may have become free before the line was joined.
        self.dispatch();
        match timeout(self.limits.timeout, &mut handed).await {
            // The sender goes only with its ticket, which is here.
            Ok(got) => got.map_err(|_| QueueError::Timeout),
            Err(_) => {
                drop(ticket);
                // It may have been handed over at the last moment.
                handed.try_recv().map_err(|_| {
                    self.metrics.queue_timed_out();
                    QueueError::Timeout
                })
            }
        }
    }

    fn join(
        self: &Arc<Self>,
        tried: Tried,
        wanted: Option<usize>,
        place: oneshot::Sender<(usize, Session)>,
    ) -> Option<Ticket> {
        let mut line = self.line();
        let wanted = wanted.and_then(|at| Some((at, self.servers.get(at)?)));
        // Each server's own line is as long as the common one at most, so that neither keeps anybody out of the other.
        let before = match wanted {
            Some((_, server)) => server.metrics.queued(),
            None => line.unbound,
        };
        if before >= self.limits.most {
            self.metrics.queue_was_full();
            return None;
        }
        let number = line.next_ticket;
        line.next_ticket += 1;
        line.waiters.push_back(Waiter {
            ticket: number,
            queue: Arc::clone(self),
            tried,
            bound: wanted.map(|(at, server)| Bound::new(at, server)),
            place,
        });
        line.unbound += usize::from(wanted.is_none());
        self.note_length(&line);
        Some(Ticket {
            queue: Arc::clone(self),
            number,
        })
    }

    /// Hands out the places that are free. To be called whenever there may be one: a session has ended, a server has come
    /// up, somebody has joined.
    pub(super) fn dispatch(self: &Arc<Self>) {
        // Pairs with the one in `note_length`: either this sees who has joined since the place became free, or who has
        // joined sees the free place.
        fence(Ordering::SeqCst);
        while !self.is_empty() {
            let Some(refused) = self.hand_out() else { return };
            // Not under the lock, and without looking after the line again: the loop does.
            refused.give_up();
        }
    }

    /// Hands out places until there are no more, or nobody waits for them; or until one was left over because the waiter
    /// had gone at that moment.
    fn hand_out(self: &Arc<Self>) -> Option<Session> {
        let mut line = self.line();
        let mut at = 0;
        // Who would have any server has met none that has room, and so nobody behind them will.
        let mut is_over = false;
        while let Some(waiter) = line.waiters.get_mut(at) {
            if waiter.bound.as_ref().is_some_and(|bound| !bound.server.is_in_service()) {
                // What it belongs to is gone: it goes where there is room, from its place in the line.
                waiter.bound = None;
                line.unbound += 1;
                self.note_length(&line);
                continue;
            }
            if is_over && waiter.bound.is_none() {
                at += 1;
                continue;
            }
            let taken = match &waiter.bound {
                Some(bound) => bound.server.begin(Some(self)).map(|session| (bound.at, session)),
                None => waiter.queue.take(&waiter.tried),
            };
            let Some((server, session)) = taken else {
                if waiter.bound.is_none() && waiter.tried.is_empty() && Arc::ptr_eq(&waiter.queue, self) {
                    if line.unbound == line.waiters.len() {
                        break;
                    }
                    is_over = true;
                }
                // What it does not want, or has no part in, another may have.
                at += 1;
                continue;
            };
            let Some(waiter) = line.remove(at) else { break };
            self.note_length(&line);
            if let Err((_, session)) = waiter.place.send((server, session)) {
                return Some(session);
            }
        }
        None
    }

    /// Takes a place at the server that has least to do for its weight.
    fn take(self: &Arc<Self>, tried: &Tried) -> Option<(usize, Session)> {
        let tier = tier_in_use(&self.servers)?;
        let may = |i: &usize| {
            let server = &self.servers[*i];
            server.tier() == tier && server.is_usable() && !tried.contains(*i)
        };
        // Of backups the first takes everything, unless all step in.
        let most = if tier >= BACKUPS && self.backups == Backups::First {
            1
        } else {
            usize::MAX
        };
        let mut best: Option<(usize, Load)> = None;
        for i in (0..self.servers.len()).filter(may).take(most) {
            let server = &self.servers[i];
            let load = Load::of(server, server.share());
            if !server.is_full() && best.is_none_or(|(_, least)| load.cmp(least).is_lt()) {
                best = Some((i, load));
            }
        }
        let (server, _) = best?;
        Some((server, self.servers[server].begin(Some(self))?))
    }

    fn leave(&self, ticket: u64) {
        let mut line = self.line();
        if let Ok(at) = line.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            line.remove(at);
            self.note_length(&line);
        }
    }

    fn note_length(&self, line: &Line) {
        let length = line.waiters.len();
        let before = self.shared.length.swap(length, Ordering::Relaxed);
        self.shared.unbound.store(line.unbound, Ordering::Relaxed);
        self.metrics.queue_changed(before, length);
        fence(Ordering::SeqCst);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Nothing panics between two changes.
        self.shared.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    pub(super) fn new(in_flight: InFlight, queue: Option<&Arc<Queue>>, ends: Listener) -> Self {
        Self {
            _in_flight: in_flight,
            freed: Freed(queue.cloned()),
            ends,
        }
    }

    /// Ready when the session has to end, because its server went down, or is a backup that is relieved, or an operator said so.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.ends.poll(cx)
    }

    /// Ends it without looking after the line.
    fn give_up(mut self) {
        self.freed.0 = None;
    }
}

impl Drop for Freed {
    fn drop(&mut self) {
        if let Some(queue) = &self.0 {
            queue.dispatch();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.queue.leave(self.number);
    }
}

#[cfg(test)]
mod tests;

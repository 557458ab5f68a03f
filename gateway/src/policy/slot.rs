//! What a worker has of one attachment: instances that wait for calls, and how many are worth having ahead of need.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::attachment::Attachment;
use super::instance::Instance;
use super::memo::Memo;
use super::stats::WorkerStats;
use crate::config::Isolation;

/// A worker's instances of one attachment that are in no call and kept for nobody.
#[allow(clippy::vec_box, reason = "instances move from hand to hand: as pointers")]
pub(super) struct Slot {
    pub(super) serial: u64,
    pub(super) attachment: Weak<Attachment>,
    pub(super) stats: Arc<WorkerStats>,
    /// When the time that failed set-ups took will have been paid back.
    pub(super) paid_back: Option<Instant>,
    pub(super) memo: Memo,
    /// Whether it stands in the list of those that are to be filled up.
    pub(super) is_listed: bool,
    /// The last is used first. With reuse that is the one in use; any before it has never been called.
    ready: Vec<Box<Instance>>,
    /// Those that are being made elsewhere.
    pub(super) coming: usize,
    target: usize,
    most: usize,
    max_age: Option<Duration>,
    /// The fewest that waited since the last upkeep, and for how many of those there was always one too many.
    fewest: usize,
    calm: u32,
}

impl Slot {
    pub(super) fn new(attachment: &Arc<Attachment>) -> Self {
        let (target, most, max_age) = match attachment.isolation {
            Isolation::PerRequest { ready } | Isolation::PerConnection { ready } => (1.min(ready), ready, None),
            Isolation::Reuse {
                max_requests: None,
                max_age: None,
            } => (1, 1, None),
            // The one in use, and its successor.
            Isolation::Reuse { max_age, .. } => (2, 2, max_age),
        };
        Self {
            serial: attachment.slot.serial,
            attachment: Arc::downgrade(attachment),
            stats: attachment.stats().worker(),
            paid_back: None,
            memo: Memo::default(),
            is_listed: false,
            ready: Vec::new(),
            coming: 0,
            target,
            most,
            max_age,
            fewest: 0,
            calm: 0,
        }
    }

    /// One that waits.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Box<Instance>> {
        let taken = self.ready.pop();
        if taken.is_none() {
            self.grow();
        }
        self.fewest = self.fewest.min(self.ready.len());
        taken
    }

    /// Somebody has to wait for an instance: have more of them next time.
    pub(super) fn grow(&mut self) {
        self.target = (self.target * 2).clamp(self.target, self.most);
    }

    /// One is there for the next call.
    #[inline]
    pub(super) fn put(&mut self, instance: Box<Instance>) {
        self.ready.push(instance);
    }

    /// One more has been made, to be used when those before it are gone.
    pub(super) fn add(&mut self, instance: Box<Instance>) {
        self.ready.insert(0, instance);
    }

    /// Whether there are fewer than are worth having.
    #[inline]
    pub(super) fn is_short(&self) -> bool {
        self.ready.len() + self.coming < self.target
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// All instances go to `spent`; more are made for the next call.
    #[allow(clippy::vec_box, reason = "instances move from hand to hand: as pointers")]
    pub(super) fn put_aside(&mut self, spent: &mut Vec<Box<Instance>>) {
        spent.append(&mut self.ready);
        self.calm = 0;
        self.fewest = 0;
    }

    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.paid_back = None;
    }

    /// Regular upkeep: what is too old or too much goes to `spent`.
    #[allow(clippy::vec_box, reason = "instances move from hand to hand: as pointers")]
    pub(super) fn upkeep(&mut self, now: Instant, spent: &mut Vec<Box<Instance>>) {
        if self.max_age.is_some() {
            self.put_old_aside(now, spent);
            return;
        }
        self.calm = match self.fewest {
            0 => 0,
            _ => self.calm + 1,
        };
        if self.calm >= CALM && self.target > 1 {
            self.calm = 0;
            self.target -= 1;
            if self.ready.len() > self.target {
                spent.extend(self.ready.pop());
            }
        }
        self.fewest = self.ready.len();
    }

    /// Upkeep of what is used again and again, once another configuration serves: what is too old goes to `spent`, and all of it when
    /// nobody has needed any for a while. A connection of TCP mode that it is to be told of may keep the attachment for days.
    #[allow(clippy::vec_box, reason = "instances move from hand to hand: as pointers")]
    pub(super) fn wind_down(&mut self, now: Instant, spent: &mut Vec<Box<Instance>>) {
        self.put_old_aside(now, spent);
        let is_unused = self.fewest > 0 && self.fewest == self.ready.len();
        self.calm = if is_unused { self.calm + 1 } else { 0 };
        self.fewest = self.ready.len();
        if self.calm >= CALM {
            self.put_aside(spent);
        }
    }

    #[allow(clippy::vec_box, reason = "instances move from hand to hand: as pointers")]
    fn put_old_aside(&mut self, now: Instant, spent: &mut Vec<Box<Instance>>) {
        let Some(max_age) = self.max_age else { return };
        let is_old = |first: Instant| now.saturating_duration_since(first) >= max_age;
        let old = self
            .ready
            .extract_if(.., |instance| instance.first_used.is_some_and(is_old));
        spent.extend(old);
    }
}

/// Upkeeps in a row during which one instance was never needed before there is one fewer: with ten upkeeps a second, ten
/// seconds.
const CALM: u32 = 100;

//! Instances that rest with connections whose clients ask for nothing: who needs a place that there is not gets the one of the
//! connection that has been quiet for longest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::instance::Instance;
use super::kept::{Kept, KeptByConnection, with_connection};

/// The instances under one budget that are kept for connections, about in the order in which they were last used: where one stands
/// in there is looked at again only when it comes to the front.
#[derive(Debug)]
pub(super) struct Resting {
    start: Instant,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    entries: VecDeque<Entry>,
    /// When there are so many, those that are gone make room.
    sweep_at: usize,
}

#[derive(Debug)]
struct Entry {
    place: Weak<Place>,
    /// When the instance had last been used when this was written, in nanoseconds from the start.
    used: u64,
}

/// Where an instance rests. The instance holds it, so that it is gone with it.
#[derive(Debug)]
pub(super) struct Place {
    connection: Weak<Mutex<Kept>>,
    used: AtomicU64,
}

impl Resting {
    /// An instance has been used for a connection, which is about to keep it.
    pub(super) fn note(&self, instance: &mut Instance, connection: &KeptByConnection) {
        let now = self.now();
        if let Some(place) = &instance.place {
            place.used.store(now, Ordering::Relaxed);
            return;
        }
        let place = instance.place.insert(Arc::new(Place {
            connection: Arc::downgrade(connection),
            used: AtomicU64::new(now),
        }));
        let mut list = self.list();
        if list.entries.len() >= list.sweep_at {
            list.entries.retain(|entry| entry.place.strong_count() > 0);
            list.sweep_at = (list.entries.len() * 2).max(FEW);
        }
        list.entries.push_back(Entry {
            place: Arc::downgrade(place),
            used: now,
        });
    }

    /// The instance that has been unused for longest of those whose connections are idle. Its connection forgets what it knew.
    pub(super) fn take_oldest(&self) -> Option<Box<Instance>> {
        let mut list = self.list();
        // Who was used since he was written down is met a second time.
        for _ in 0..list.entries.len() * 2 {
            let entry = list.entries.pop_front()?;
            let Some(place) = entry.place.upgrade() else { continue };
            let used = place.used.load(Ordering::Relaxed);
            if used == entry.used
                && let Some(connection) = place.connection.upgrade()
                && is_idle(&connection)
                && let Some(instance) = with_connection(&connection, |kept| kept.take_from(&place))
            {
                return Some(instance);
            }
            list.entries.push_back(Entry { used, ..entry });
        }
        None
    }

    /// Those whose connections are idle, until there are so many.
    #[allow(clippy::vec_box, reason = "instances move from hand to hand: as pointers")]
    pub(super) fn take_all(&self, most: usize, into: &mut Vec<Box<Instance>>) {
        while into.len() < most
            && let Some(instance) = self.take_oldest()
        {
            into.push(instance);
        }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Default for Resting {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            list: Mutex::default(),
        }
    }
}

/// Whether nobody but the connection, and who asks, has a hand on what it keeps: an exchange under way has.
fn is_idle(connection: &KeptByConnection) -> bool {
    Arc::strong_count(connection) <= 2
}

/// Entries that are not worth looking through for those that are gone.
const FEW: usize = 64;

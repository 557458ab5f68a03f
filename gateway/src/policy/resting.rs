//! Instances that rest with connections whose clients ask for nothing: who needs a place that there is not, or memory, gets that of
//! the connection that has been quiet for longest.
//!
//! Of which connections depends on what is used up. Where that is a plugin's or a tenant's, it is those of all its uses or plugins. Where
//! it is what all share, each owner (a tenant, or a plugin of the operator's) has a share that nobody takes from it: as much as all
//! the others. Who has more than that, and more than who asks, gives up first where it has the most.

use std::collections::VecDeque;
use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::budget::{Budget, Lack};
use super::host::Host;
use super::instance::Instance;
use super::kept::{Kept, KeptByConnection, with_connection};

/// The instances under one budget that are kept for connections, about in the order in which they were last used: where one stands
/// in there is looked at again only when it comes to the front.
#[derive(Debug, Default)]
pub(super) struct Resting {
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
    /// When the instance had last been used when this was written.
    used: u64,
}

/// Where an instance rests. The instance holds it, so that it is gone with it.
#[derive(Debug)]
pub(super) struct Place {
    connection: Weak<Mutex<Kept>>,
    /// In nanoseconds from the first time that any was.
    used: AtomicU64,
    /// Bytes that it had then.
    memory: AtomicU64,
}

/// The one of a list that has been unused for longest.
#[derive(Debug, Clone, Copy)]
struct Oldest {
    used: u64,
    memory: u64,
}

/// Those who share what all have: one owner's budgets, of this configuration and of those before, and what it has.
struct Owner {
    name: Box<str>,
    budgets: Vec<Arc<Budget>>,
    has: u64,
    is_asking: bool,
}

impl Resting {
    /// An instance has been used for a connection, which is about to keep it.
    pub(super) fn note(&self, instance: &mut Instance, connection: &KeptByConnection) {
        let (now, memory) = (now(), instance.memory());
        if let Some(place) = &instance.place {
            place.used.store(now, Ordering::Relaxed);
            place.memory.store(memory, Ordering::Relaxed);
            return;
        }
        let place = instance.place.insert(Arc::new(Place {
            connection: Arc::downgrade(connection),
            used: AtomicU64::new(now),
            memory: AtomicU64::new(memory),
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
        // Somebody may begin to use it meanwhile, and another one the next.
        for _ in 0..TRIES {
            let (place, connection) = list.settle()?;
            let entry = list.entries.pop_front()?;
            let taken = with_connection(&connection, |kept| kept.take_from(&place));
            if taken.is_some() {
                return taken;
            }
            list.entries.push_back(entry);
        }
        None
    }

    fn oldest(&self) -> Option<Oldest> {
        let (place, _) = self.list().settle()?;
        Some(Oldest {
            used: place.used.load(Ordering::Relaxed),
            memory: place.memory.load(Ordering::Relaxed),
        })
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
}

impl List {
    /// Has the one come to the front that has been unused for longest of those whose connections are idle.
    fn settle(&mut self) -> Option<(Arc<Place>, KeptByConnection)> {
        // Who was used since he was written down is met a second time.
        for _ in 0..(self.entries.len() * 2).min(LOOKED_AT) {
            let entry = self.entries.pop_front()?;
            let Some(place) = entry.place.upgrade() else { continue };
            let used = place.used.load(Ordering::Relaxed);
            if used == entry.used
                && let Some(connection) = place.connection.upgrade()
                && is_idle(&connection)
            {
                self.entries.push_front(entry);
                return Some((place, connection));
            }
            self.entries.push_back(Entry { used, ..entry });
        }
        None
    }
}

impl Budget {
    /// Takes instances that rest until there is as much as was lacking, for somebody whose budget this is. Answers whether there was
    /// one to take.
    pub(super) fn make_room(&self, lack: Lack, host: &Host) -> bool {
        let mut missing = match lack {
            Lack::Memory(_, bytes) => bytes,
            Lack::Pool | Lack::Instances(_) => 1,
        };
        let mut has_taken = false;
        for _ in 0..MOST_TAKEN {
            let Some(instance) = self.take_resting(lack, host) else {
                break;
            };
            has_taken = true;
            missing = missing.saturating_sub(lack.of(instance.memory()));
            if missing == 0 {
                break;
            }
        }
        has_taken
    }

    /// An instance that rests, for want of this.
    fn take_resting(&self, lack: Lack, host: &Host) -> Option<Box<Instance>> {
        match lack {
            Lack::Instances(level) => self.row().nth(level)?.take_oldest(),
            Lack::Memory(level, missing) => {
                let used_up = self.row().nth(level)?;
                match used_up.memory_limit().filter(|_| used_up.is_of_process()) {
                    Some(all) => self.take_of_owners(used_up, lack, missing, all),
                    None => used_up.take_oldest(),
                }
            }
            Lack::Pool => {
                let taken = self.take_of_owners(host.budget(), lack, 1, host.settings().instances.into());
                // What is under no budget of the process's is the gateway's own.
                taken.or_else(|| {
                    self.row()
                        .last()
                        .filter(|budget| !budget.is_of_process())?
                        .take_oldest()
                })
            }
        }
    }

    /// The one that has been unused for longest of all that are under this budget.
    fn take_oldest(&self) -> Option<Box<Instance>> {
        let inner = self.all_inner();
        take_oldest(iter::once(&self.resting).chain(inner.iter().map(|budget| &budget.resting)))
    }

    /// Those under this budget, however far in.
    fn all_inner(&self) -> Vec<Arc<Self>> {
        let mut all = self.inner();
        let mut next = 0;
        while let Some(budget) = all.get(next).cloned() {
            all.extend(budget.inner());
            next += 1;
        }
        all
    }

    /// One of the owner who has the most of what all share, and more than may be: than its share of all, and than who asks would
    /// have. Who asks gives up of its own where nobody has more.
    fn take_of_owners(&self, shared: &Self, lack: Lack, missing: u64, all: u64) -> Option<Box<Instance>> {
        let own = self.row().take_while(|budget| !budget.is_of_process()).last();
        let mut owners = shared.owners(lack, own.unwrap_or(self).whose());
        let share = all / (owners.len() as u64).max(1);
        let asking = owners.iter().find(|owner| owner.is_asking);
        let least = share.max(asking.map_or(0, |owner| owner.has).saturating_add(missing));
        owners.sort_by_key(|owner| std::cmp::Reverse(owner.has));
        owners.iter().find_map(|owner| {
            let oldest = owner.oldest()?;
            let leaves = owner.has.saturating_sub(lack.of(oldest.memory));
            (owner.is_asking || leaves >= least)
                .then(|| owner.take_oldest())
                .flatten()
        })
    }

    /// Who is under this budget, and what they have of what is lacking. Those of all configurations that are not gone are one owner.
    fn owners(&self, lack: Lack, asking: &str) -> Vec<Owner> {
        let mut owners: Vec<Owner> = Vec::new();
        for budget in self.inner() {
            let has = match lack {
                Lack::Memory(..) => budget.memory(),
                Lack::Pool | Lack::Instances(_) => budget.instances().into(),
            };
            let all = iter::once(Arc::clone(&budget)).chain(budget.all_inner());
            match owners.iter_mut().find(|owner| *owner.name == *budget.whose()) {
                Some(owner) => {
                    owner.has += has;
                    owner.budgets.extend(all);
                }
                None => owners.push(Owner {
                    name: budget.whose().into(),
                    is_asking: budget.whose() == asking,
                    budgets: all.collect(),
                    has,
                }),
            }
        }
        owners
    }
}

impl Owner {
    fn oldest(&self) -> Option<Oldest> {
        let lists = self.budgets.iter().filter_map(|budget| budget.resting.oldest());
        lists.min_by_key(|oldest| oldest.used)
    }

    fn take_oldest(&self) -> Option<Box<Instance>> {
        take_oldest(self.budgets.iter().map(|budget| &budget.resting))
    }
}

/// The one that has been unused for longest of all in these.
fn take_oldest<'a>(lists: impl Iterator<Item = &'a Resting>) -> Option<Box<Instance>> {
    let mut lists: Vec<_> = lists.filter_map(|list| Some((list.oldest()?.used, list))).collect();
    lists.sort_by_key(|(used, _)| *used);
    lists.into_iter().find_map(|(_, list)| list.take_oldest())
}

impl Lack {
    /// How much of it comes back with an instance that has so much memory.
    fn of(self, memory: u64) -> u64 {
        match self {
            Self::Memory(..) => memory,
            Self::Pool | Self::Instances(_) => 1,
        }
    }
}

/// Nanoseconds since this was first asked.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Whether nobody but the connection, and who asks, has a hand on what it keeps: an exchange under way has.
fn is_idle(connection: &KeptByConnection) -> bool {
    Arc::strong_count(connection) <= 2
}

/// Entries that are not worth looking through for those that are gone.
const FEW: usize = 64;

/// Entries that are looked at for one that can be taken: those of connections that are busy come to the end, so that the next who
/// looks meets others.
const LOOKED_AT: usize = 256;

/// How often one is taken that somebody begins to use.
const TRIES: usize = 4;

/// Instances that are taken for one.
const MOST_TAKEN: usize = 64;

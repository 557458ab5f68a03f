//! Instances that rest with connections whose clients ask for nothing: who needs a place that there is not, or memory, gets that of
//! the connection that has been quiet for longest.
//!
//! Of which connections depends on what is used up. Where that is a plugin's or a tenant's, it is those of all its uses or plugins. Where
//! it is what all share, each owner (a tenant, or a plugin of the operator's) has a share that nobody takes from it: as much as all
//! the others. Who has more than that, and more than who asks, gives up first where it has the most.
//!
//! What would not be enough is not taken: who gives up what is found out first, and it is given up where that makes the room. Looking
//! costs a read where nothing rests, and otherwise one for each owner or plugin under the budget that is used up, and at most
//! `LOOKED_AT` entries of each list in which something does, each under that list's lock alone. It counts as a part of the set-up
//! that it is for, and set-ups that fail are held to a tenth of a worker's time.

use std::collections::{BTreeMap, VecDeque};
use std::iter;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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
    /// How many there are in this list and in those of the budgets within.
    below: Count,
}

/// A number that many threads count up and down.
#[derive(Debug, Default)]
struct Count(AtomicUsize);

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
    /// Whose it is; each budget of the row counts it.
    budget: Arc<Budget>,
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

/// Those who give up together: one owner's budgets, of this configuration and of those before, or all under the one that is used up.
struct Giver {
    budgets: Vec<Arc<Budget>>,
    /// What it has of what is lacking.
    has: u64,
    /// Whether it is who asks.
    is_asking: bool,
    /// What rests with it and may be taken, the longest unused first.
    rests: VecDeque<Oldest>,
    /// How many it is to give up.
    gives: usize,
}

impl Resting {
    /// An instance of this budget's, whose list this is, has been used for a connection, which is about to keep it.
    pub(super) fn note(&self, budget: &Arc<Budget>, instance: &mut Instance, connection: &KeptByConnection) {
        let (now, memory) = (now(), instance.memory());
        if let Some(place) = &instance.place {
            place.used.store(now, Ordering::Relaxed);
            place.memory.store(memory, Ordering::Relaxed);
            return;
        }
        budget.row().for_each(|budget| budget.resting.below.add(1));
        let place = instance.place.insert(Arc::new(Place {
            budget: Arc::clone(budget),
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
        Some(place.now())
    }

    /// So many of those whose connections are idle, the longest unused first, as far as they are met at once.
    fn first(&self, most: usize) -> Vec<Oldest> {
        let mut list = self.list();
        if list.settle().is_none() {
            return Vec::new();
        }
        let idle = list.entries.iter().take(LOOKED_AT).filter_map(|entry| {
            let place = entry.place.upgrade()?;
            let connection = place.connection.upgrade()?;
            is_idle(&connection).then(|| place.now())
        });
        idle.take(most).collect()
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
    /// Takes instances that rest until there is as much as was lacking, for somebody whose budget this is; none where all that could be
    /// taken would not be enough. Answers whether there was one to take.
    pub(super) fn make_room(self: &Arc<Self>, lack: Lack, host: &Host) -> bool {
        let (givers, least) = self.givers(lack, host);
        let planned = plan(givers, lack, least).or_else(|| {
            // What is under no budget of the process's is the gateway's own.
            let is_own = |last: &&Arc<Self>| lack == Lack::Pool && !last.is_of_process();
            plan(self.outwards().last().filter(is_own)?.all_within(lack), lack, 0)
        });
        let mut has_taken = false;
        for giver in planned.into_iter().flatten() {
            for _ in 0..giver.gives {
                has_taken |= giver.take_oldest().is_some();
            }
        }
        has_taken
    }

    /// This one and those around it.
    fn outwards(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        iter::successors(Some(self), |budget| budget.outer())
    }

    /// Who may give up something for want of this, and what each has to have left at least, but for who asks.
    fn givers(self: &Arc<Self>, lack: Lack, host: &Host) -> (Vec<Giver>, u64) {
        let (Lack::Instances(level) | Lack::Memory(level, _)) = lack else {
            return self.givers_of_all(host.budget(), lack, host.settings().instances.into());
        };
        let Some(used_up) = self.outwards().nth(level) else {
            return (Vec::new(), 0);
        };
        match used_up.memory_limit().filter(|_| used_up.is_of_process()) {
            Some(all) => self.givers_of_all(used_up, lack, all),
            None => (used_up.all_within(lack), 0),
        }
    }

    /// All under this budget, as one.
    fn all_within(self: &Arc<Self>, lack: Lack) -> Vec<Giver> {
        match self.resting.below.is_none() {
            true => Vec::new(),
            false => {
                let mut budgets = self.inner_with_some();
                budgets.push(Arc::clone(self));
                vec![Giver::new(budgets, 0, true, lack)]
            }
        }
    }

    /// The owners of what all share. One gives up of it where that leaves it its share of all, and what who asks would have then. Who
    /// asks gives up of its own where nobody has more.
    fn givers_of_all(&self, shared: &Self, lack: Lack, all: u64) -> (Vec<Giver>, u64) {
        if shared.resting.below.is_none() {
            return (Vec::new(), 0);
        }
        let own = self.row().take_while(|budget| !budget.is_of_process()).last();
        let asking = own.unwrap_or(self).whose();
        // Those of all configurations that are not gone are one owner.
        let mut owners: BTreeMap<String, (u64, Vec<Arc<Self>>)> = BTreeMap::new();
        for budget in shared.inner() {
            let has = match lack {
                Lack::Memory(..) => budget.memory(),
                Lack::Pool | Lack::Instances(_) => budget.instances().into(),
            };
            let (sum, budgets) = owners.entry(budget.whose().to_owned()).or_default();
            *sum += has;
            budgets.extend(budget.inner_with_some());
            if !budget.resting.below.is_none() {
                budgets.push(budget);
            }
        }
        let share = all / (owners.len() as u64).max(1);
        let asks_for = owners
            .get(asking)
            .map_or(0, |(has, _)| has.saturating_add(lack.missing()));
        let with_some = owners.into_iter().filter(|(_, (_, budgets))| !budgets.is_empty());
        let givers = with_some.map(|(name, (has, budgets))| Giver::new(budgets, has, name == asking, lack));
        (givers.collect(), share.max(asks_for))
    }

    /// Those under this budget, however far in, in which something rests.
    fn inner_with_some(&self) -> Vec<Arc<Self>> {
        let mut all = Vec::new();
        if !self.resting.below.is_none() {
            all.extend(self.inner());
        }
        let mut next = 0;
        while let Some(budget) = all.get(next).cloned() {
            if !budget.resting.below.is_none() {
                all.extend(budget.inner());
            }
            next += 1;
        }
        all.retain(|budget| !budget.resting.below.is_none());
        all
    }
}

/// Who gives up how many, one after the other, for as much as is lacking: each time who has the most of it. None where that cannot be
/// had, or only from more than are taken for one.
fn plan(mut givers: Vec<Giver>, lack: Lack, least: u64) -> Option<Vec<Giver>> {
    let mut missing = lack.missing();
    for _ in 0..MOST_TAKEN {
        if missing == 0 {
            break;
        }
        let may = |giver: &Giver| {
            let memory = giver.rests.front()?.memory;
            let leaves = giver.has.saturating_sub(lack.of(memory));
            (giver.is_asking || leaves >= least).then_some(giver.has)
        };
        let most = givers.iter_mut().filter_map(|giver| Some((may(giver)?, giver)));
        let (_, giver) = most.max_by_key(|(has, _)| *has)?;
        let taken = lack.of(giver.rests.pop_front()?.memory);
        giver.has = giver.has.saturating_sub(taken);
        giver.gives += 1;
        missing = missing.saturating_sub(taken);
    }
    givers.retain(|giver| giver.gives > 0);
    (missing == 0).then_some(givers)
}

impl Giver {
    fn new(budgets: Vec<Arc<Budget>>, has: u64, is_asking: bool, lack: Lack) -> Self {
        let most = match lack {
            Lack::Memory(..) => MOST_TAKEN,
            Lack::Pool | Lack::Instances(_) => 1,
        };
        let mut rests: Vec<_> = budgets.iter().flat_map(|budget| budget.resting.first(most)).collect();
        rests.sort_by_key(|oldest| oldest.used);
        rests.truncate(most);
        Self {
            budgets,
            has,
            is_asking,
            rests: rests.into(),
            gives: 0,
        }
    }

    /// The one that has been unused for longest of all that it has.
    fn take_oldest(&self) -> Option<Box<Instance>> {
        let lists = self.budgets.iter().map(|budget| &budget.resting);
        let mut lists: Vec<_> = lists.filter_map(|list| Some((list.oldest()?.used, list))).collect();
        lists.sort_by_key(|(used, _)| *used);
        lists.into_iter().find_map(|(_, list)| list.take_oldest())
    }
}

impl Lack {
    /// How much of it is lacking.
    fn missing(self) -> u64 {
        match self {
            Self::Memory(_, bytes) => bytes,
            Self::Pool | Self::Instances(_) => 1,
        }
    }

    /// How much of it comes back with an instance that has so much memory.
    fn of(self, memory: u64) -> u64 {
        match self {
            Self::Memory(..) => memory,
            Self::Pool | Self::Instances(_) => 1,
        }
    }
}

impl Place {
    fn now(&self) -> Oldest {
        Oldest {
            used: self.used.load(Ordering::Relaxed),
            memory: self.memory.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.budget.row().for_each(|budget| budget.resting.below.take(1));
    }
}

impl Count {
    fn add(&self, more: usize) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn take(&self, less: usize) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
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

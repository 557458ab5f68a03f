//! What the instances of a plugin, and of all plugins of a tenant, may use together on all workers: how many there are, how
//! much memory they have, how much the gateway holds for them, how much CPU time they take.
//!
//! Budgets stand in a row, from the plugin's own to its tenant's: what one of them refuses is refused, so that the smallest
//! decides. What has no limit is not counted.

mod cpu_time;
mod held;
mod lease;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::resting::Resting;
use crate::config::BudgetLimits;
use cpu_time::CpuTime;
use held::Holder;
pub(super) use lease::{Lack, Lease};

/// What some instances share.
#[derive(Debug)]
pub struct Budget {
    whose: Arc<str>,
    limits: BudgetLimits,
    instances: AtomicU32,
    /// Bytes of linear memory.
    memory: AtomicU64,
    /// Bytes of the gateway's own that are held for its guests. Goes on over a reload, as do the clients that do not take them.
    host_memory: Arc<AtomicU64>,
    /// Of what all share: the bytes that each of its owners can have whatever the others hold, an equal part of half of it.
    part: AtomicU64,
    /// Who these are.
    owners: Mutex<Vec<Holder>>,
    /// Goes on when a reload brings another budget for the same plugin or tenant. Instances do not: those of the old
    /// configuration live until its last exchange has ended, and those of the new one have to be made before.
    cpu: Arc<CpuTime>,
    /// Instances that connections keep.
    pub(super) resting: Resting,
    /// What all plugins share: whoever finds it used up is not to blame.
    is_of_process: bool,
    /// The next one that has a say.
    outer: Option<Arc<Self>>,
    /// Those that this one is the next of.
    inner: Mutex<Vec<Weak<Self>>>,
}

impl Budget {
    /// A budget within another one.
    #[must_use]
    pub fn new(whose: &str, limits: BudgetLimits, outer: Option<Arc<Self>>) -> Arc<Self> {
        Self::after(None, whose, limits, outer)
    }

    /// As [`new`](Self::new), in the place of another one: CPU time that has been used of that one has been used of this one,
    /// too, and what is held for that one is held for this one.
    #[must_use]
    pub fn after(before: Option<&Self>, whose: &str, limits: BudgetLimits, outer: Option<Arc<Self>>) -> Arc<Self> {
        let budget = Arc::new(Self::made(before, whose, limits, outer));
        if let Some(outer) = &budget.outer {
            let mut inner = outer.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.retain(|budget| budget.strong_count() > 0);
            inner.push(Arc::downgrade(&budget));
            drop(inner);
            outer.shares_with(&budget);
        }
        budget
    }

    /// What all plugins share. It outlives configurations.
    pub(super) fn of_process(limits: BudgetLimits) -> Arc<Self> {
        Arc::new(Self {
            is_of_process: true,
            ..Self::made(None, "the process", limits, None)
        })
    }

    fn made(before: Option<&Self>, whose: &str, limits: BudgetLimits, outer: Option<Arc<Self>>) -> Self {
        Self {
            whose: whose.into(),
            limits,
            instances: AtomicU32::new(0),
            memory: AtomicU64::new(0),
            host_memory: before.map_or_else(Arc::default, |before| Arc::clone(&before.host_memory)),
            part: AtomicU64::new(u64::MAX),
            owners: Mutex::default(),
            resting: Resting::default(),
            cpu: before.map_or_else(|| Arc::new(CpuTime::new()), |before| Arc::clone(&before.cpu)),
            is_of_process: false,
            outer,
            inner: Mutex::default(),
        }
    }

    /// Whose it is: `plugin "geo"` or `tenant "acme"`.
    #[must_use]
    pub fn whose(&self) -> &str {
        &self.whose
    }

    /// The one around it, if there is one: its tenant's.
    #[must_use]
    pub fn outer(&self) -> Option<&Arc<Self>> {
        self.outer.as_ref()
    }

    /// One without bounds, for what the gateway itself brings.
    #[must_use]
    pub fn unlimited() -> Arc<Self> {
        Self::new("", BudgetLimits::default(), None)
    }

    /// Those that this one is around of, the next ones alone.
    pub(super) fn inner(&self) -> Vec<Arc<Self>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether it is what all plugins share.
    pub(super) fn is_of_process(&self) -> bool {
        self.is_of_process
    }

    /// Bytes of linear memory that its instances have now; 0 where they have no bound and are not counted.
    pub(super) fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Bytes of linear memory that its instances may have.
    pub(super) fn memory_limit(&self) -> Option<u64> {
        self.limits.memory_in_all
    }

    /// Instances alive now; 0 where they have no bound and are not counted.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.instances.load(Ordering::Relaxed)
    }

    /// Whether anybody wants to know how long calls take.
    pub(super) fn measures_cpu(&self) -> bool {
        self.row().any(|budget| budget.limits.cpu.is_some())
    }

    /// Whether there is CPU time left for a call; if not, whose is used up.
    pub(super) fn admit(&self, now: Instant) -> Result<(), String> {
        for budget in self.row() {
            if let Some(cores) = budget.limits.cpu
                && !budget.cpu.has_some(now)
            {
                return Err(format!("{} has used up its CPU time ({cores} cores)", budget.whose));
            }
        }
        Ok(())
    }

    /// A call took this much CPU time.
    pub(super) fn charge(&self, now: Instant, used: Duration) {
        for budget in self.row() {
            if let Some(cores) = budget.limits.cpu {
                budget.cpu.charge(now, used, cores);
            }
        }
    }

    /// Whether so many instances live that none may be made ahead of need: whoever needs one now goes first.
    pub(super) fn is_tight(&self) -> bool {
        self.row().any(|budget| {
            let few = |limit| budget.instances() >= limit / 2;
            budget.limits.instances.is_some_and(few)
        })
    }

    /// Room for one more instance; if there is none, whose is taken.
    pub(super) fn lease(self: &Arc<Self>) -> Result<Lease, (String, Lack)> {
        for (taken, budget) in self.row().enumerate() {
            if let Some(limit) = budget.limits.instances
                && !take(&budget.instances, limit)
            {
                self.row().take(taken).for_each(Self::give_back_instance);
                let message = format!("{} has its {limit} instances already", budget.whose);
                return Err((message, Lack::Instances(taken)));
            }
        }
        Ok(Lease::new(Arc::clone(self)))
    }

    /// Room for this much more memory; if there is none, of whose there is how much too little, and nothing is taken.
    fn take_memory(&self, more: u64) -> Result<(), (&Self, Lack)> {
        for (taken, budget) in self.row().enumerate() {
            if let Some(limit) = budget.limits.memory_in_all
                && !take_bytes(&budget.memory, more, limit)
            {
                self.row().take(taken).for_each(|budget| budget.give_back_memory(more));
                let missing = budget.memory().saturating_add(more).saturating_sub(limit);
                return Err((budget, Lack::Memory(taken, missing.max(1))));
            }
        }
        Ok(())
    }

    fn give_back_instance(&self) {
        if self.limits.instances.is_some() {
            self.instances.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn give_back_memory(&self, bytes: u64) {
        if self.limits.memory_in_all.is_some() {
            self.memory.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// This one and those around it.
    pub fn row(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |budget| budget.outer.as_deref())
    }
}

/// One more, if that is not more than `limit`.
fn take(counter: &AtomicU32, limit: u32) -> bool {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < limit).then_some(count + 1)
        })
        .is_ok()
}

fn take_bytes(counter: &AtomicU64, more: u64, limit: u64) -> bool {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            count.checked_add(more).filter(|sum| *sum <= limit)
        })
        .is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Millicores;

    fn limits(instances: u32, memory: u64) -> BudgetLimits {
        BudgetLimits {
            instances: Some(instances),
            memory_in_all: Some(memory),
            host_memory: Some(memory),
            cpu: None,
        }
    }

    #[test]
    fn the_smallest_of_a_row_decides_and_a_refusal_takes_nothing() {
        let tenant = Budget::new("tenant \"acme\"", limits(2, 100), None);
        let one = Budget::new("plugin \"one\"", limits(5, 80), Some(tenant.clone()));
        let two = Budget::new("plugin \"two\"", limits(1, 80), Some(tenant.clone()));
        let mut first = one.lease().unwrap();
        assert!(first.grow(80));
        assert!(!first.grow(1));
        let mut second = two.lease().unwrap();
        assert!(!second.grow(21));
        assert!(second.grow(20));
        assert!(
            two.lease()
                .unwrap_err()
                .0
                .contains("plugin \"two\" has its 1 instances")
        );
        assert!(
            one.lease()
                .unwrap_err()
                .0
                .contains("tenant \"acme\" has its 2 instances")
        );
        drop((first, second));
        assert_eq!(tenant.instances(), 0);
        assert_eq!(tenant.memory.load(Ordering::Relaxed), 0);
        assert_eq!(one.instances(), 0);
    }

    #[test]
    fn two_owners_leave_the_third_its_part_of_what_the_gateway_holds() {
        let process = Budget::of_process(limits(100, 1200));
        let owner =
            |name: &str, before: Option<&Budget>| Budget::after(before, name, limits(100, 600), Some(process.clone()));
        let [a, b, c] = ["tenant \"a\"", "tenant \"b\"", "tenant \"c\""].map(|name| owner(name, None));
        // One of another configuration is the same owner.
        let again = owner("tenant \"a\"", Some(&*a));
        a.take_host_memory(300).unwrap();
        again.take_host_memory(300).unwrap();
        b.take_host_memory(400).unwrap();
        let full = b.take_host_memory(1).unwrap_err().to_string();
        assert!(
            full.starts_with("the process has") && full.ends_with("kept for others"),
            "{full}"
        );
        assert_eq!(b.host_memory.load(Ordering::Relaxed), 400, "a refusal takes nothing");
        c.take_host_memory(150).unwrap();
        c.take_host_memory(50).unwrap();
        c.take_host_memory(1).unwrap_err();
        // What nobody needs is for whoever asks first.
        again.let_host_memory_go(600);
        c.take_host_memory(400).unwrap();
        c.take_host_memory(1).unwrap_err();
        a.take_host_memory(200).unwrap();
        assert_eq!(process.host_memory.load(Ordering::Relaxed), 1200);
    }

    #[test]
    fn what_the_gateway_holds_is_bounded_by_the_smallest_of_a_row_over_a_reload() {
        let tenant = Budget::new("tenant \"acme\"", limits(2, 100), None);
        let one = Budget::new("plugin \"one\"", limits(2, 80), Some(tenant.clone()));
        let two = Budget::new("plugin \"two\"", limits(2, 80), Some(tenant.clone()));
        one.take_host_memory(80).unwrap();
        let full = one.take_host_memory(1).unwrap_err().to_string();
        assert!(full.starts_with("plugin \"one\" has"), "{full}");
        let full = two.take_host_memory(21).unwrap_err().to_string();
        assert!(full.starts_with("tenant \"acme\" has"), "{full}");
        two.take_host_memory(20).unwrap();
        // Who holds it is not gone with the configuration.
        let after = Budget::after(Some(&tenant), "tenant \"acme\"", limits(2, 100), None);
        after.take_host_memory(1).unwrap_err();
        one.let_host_memory_go(80);
        after.take_host_memory(80).unwrap();
        two.take_host_memory(1).unwrap_err();
        after.let_host_memory_go(80);
        two.let_host_memory_go(20);
        assert_eq!(tenant.host_memory.load(Ordering::Relaxed), 0);
        assert_eq!(one.host_memory.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn half_of_the_instances_may_lie_ready() {
        let budget = Budget::new("plugin \"one\"", limits(4, 100), None);
        let _one = budget.lease().unwrap();
        assert!(!budget.is_tight());
        let _two = budget.lease().unwrap();
        assert!(budget.is_tight());
        assert!(!Budget::unlimited().is_tight());
    }

    #[test]
    fn cpu_time_that_was_used_before_a_reload_is_used_after_it() {
        let before = Budget::new(
            "tenant \"acme\"",
            BudgetLimits {
                cpu: Some(Millicores(1000)),
                ..limits(1, 100)
            },
            None,
        );
        let now = Instant::now();
        let mut lease = before.lease().unwrap();
        assert!(lease.grow(60));
        before.charge(now, Duration::from_secs(10));
        let after = Budget::after(Some(&before), "tenant \"acme\"", before.limits, None);
        assert!(after.admit(now).is_err());
        // Instances of the new configuration can be made beside those of the old one.
        let mut lease = after.lease().unwrap();
        assert!(lease.grow(100));
        assert!(after.lease().is_err());
        assert!(Budget::new("", before.limits, None).admit(now).is_ok());
    }
}

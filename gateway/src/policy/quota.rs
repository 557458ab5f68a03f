//! What all plugins of a tenant may keep in the host and write into the log together, on top of what each of them may; and how much for
//! its hosts is under way.
//!
//! A tenant's quota outlives reloads, as what its plugins keep does. Tenants share none of it: what fills one's moves nothing
//! of another's.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use super::granted::InFlight;
use super::log_budget::LogBudget;
use super::quarantine::Quarantine;
use super::shared::Shared;
use crate::config::{KeptQuota, LogRate};

/// One tenant's.
pub struct Quota {
    pub(super) kv_bytes: Pool,
    pub(super) kv_entries: Pool,
    pub(super) counters: Pool,
    /// Requests for its hosts, and connections of TCP mode, that are under way: counted whether or not there is a bound, so that one that
    /// a reload brings knows of all of them.
    requests: InFlight,
    connections: InFlight,
    log: RwLock<Option<Lines>>,
    /// Its plugins' stores, which may hold pairs whose time has come.
    members: Mutex<Vec<Weak<Shared>>>,
    /// How it went last with uses of its plugins, each by a digest of what it is; the one that has begun to serve last behind.
    uses: Mutex<VecDeque<([u8; 32], Arc<Quarantine>)>>,
    start: Instant,
    /// When the members were last looked through, in milliseconds from `start`.
    swept_at: AtomicU64,
}

/// Something that is counted, up to a bound.
pub(super) struct Pool {
    used: AtomicU64,
    max: AtomicU64,
}

struct Lines {
    rate: LogRate,
    budget: LogBudget,
}

impl Quota {
    pub(super) fn new(limits: KeptQuota) -> Self {
        let quota = Self {
            kv_bytes: Pool::default(),
            kv_entries: Pool::default(),
            counters: Pool::default(),
            requests: InFlight::new(u32::MAX),
            connections: InFlight::new(u32::MAX),
            log: RwLock::default(),
            members: Mutex::default(),
            uses: Mutex::default(),
            start: Instant::now(),
            swept_at: AtomicU64::new(0),
        };
        quota.bound(limits);
        quota
    }

    /// From now on these bounds hold. What is there beyond them stays until it goes.
    pub(super) fn bound(&self, limits: KeptQuota) {
        self.kv_bytes.bound(limits.kv);
        self.kv_entries.bound(limits.kv_entries);
        self.counters.bound(limits.counters);
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        if log.as_ref().map(|lines| lines.rate) != limits.log {
            *log = limits.log.map(|rate| Lines {
                rate,
                budget: LogBudget::new(rate),
            });
        }
    }

    /// Requests for its hosts, of which so many may be under way.
    #[must_use]
    pub fn requests(&self, most: Option<u32>) -> InFlight {
        InFlight::after(&self.requests, most.unwrap_or(u32::MAX))
    }

    /// The same of connections in TCP mode.
    #[must_use]
    pub fn connections(&self, most: Option<u32>) -> InFlight {
        InFlight::after(&self.connections, most.unwrap_or(u32::MAX))
    }

    pub(super) fn add(&self, member: &Arc<Shared>) {
        let mut members = lock(&self.members);
        members.retain(|known| known.strong_count() > 0);
        members.push(Arc::downgrade(member));
    }

    /// This use of one of its plugins serves from now on. Answers how it went with the same one before, unless too many others have
    /// served since.
    pub(super) fn serves(&self, what: [u8; 32], now: &Arc<Quarantine>) -> Option<Arc<Quarantine>> {
        let mut uses = lock(&self.uses);
        let known = uses.iter().position(|(known, _)| *known == what);
        let before = known.and_then(|position| uses.remove(position));
        uses.push_back((what, Arc::clone(now)));
        if uses.len() > MOST_USES {
            uses.pop_front();
        }
        before.map(|(_, quarantine)| quarantine)
    }

    /// Whether one of its plugins may write a line now.
    pub(super) fn takes_line(&self) -> bool {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        log.as_ref().is_none_or(|lines| lines.budget.take().is_some())
    }

    /// Has the stores of its plugins forget pairs whose time has come. Who writes to a full store again and again does not make
    /// others' locks busy with that.
    pub(super) fn sweep(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let every = u64::try_from(SWEEP.as_millis()).unwrap_or(u64::MAX);
        let due = |before: u64| (before == 0 || now.saturating_sub(before) >= every).then_some(now.max(1));
        let is_due = self.swept_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due);
        if is_due.is_ok() {
            let members: Vec<_> = lock(&self.members).iter().filter_map(Weak::upgrade).collect();
            members.iter().for_each(|member| member.kv.expire_all());
        }
    }
}

impl Pool {
    fn bound(&self, max: Option<u64>) {
        self.max.store(max.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Room for so much more; if there is none, nothing is taken.
    pub(super) fn take(&self, more: u64) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let fits = |used: u64| used.checked_add(more).filter(|sum| *sum <= max);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.is_ok()
    }

    pub(super) fn give_back(&self, less: u64) {
        self.used.fetch_sub(less, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            used: AtomicU64::new(0),
            max: AtomicU64::new(u64::MAX),
        }
    }
}

impl std::fmt::Debug for Quota {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quota").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often the stores of a tenant that has no room left are looked through for pairs whose time has come: a pair is refused
/// for a tenth of a second too long at most, and a hundred stores are a millisecond's work.
const SWEEP: Duration = Duration::from_millis(100);

/// Uses that are remembered when they have gone: 64 plugins in several frontends.
const MOST_USES: usize = 512;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::StateLimits;
    use crate::policy::clock::Clock;
    use crate::policy::counters::CounterError;
    use crate::policy::kv::KvError;
    use crate::policy::shared::Namespaces;
    use crate::telemetry::metrics::PluginSeries as _;

    const FEW: KeptQuota = KeptQuota {
        kv: Some(1000),
        kv_entries: Some(3),
        counters: Some(2),
        log: Some(LogRate {
            lines: 1,
            per: Duration::from_secs(3600),
            burst: 2,
        }),
        metric_series: None,
    };

    fn of(namespaces: &Namespaces, name: &str, quota: &Arc<Quota>) -> Arc<Shared> {
        namespaces.shared(name, StateLimits::DEFAULT, Some(quota))
    }

    #[test]
    fn what_the_plugins_of_a_tenant_keep_is_counted_together_and_nobody_elses() {
        let namespaces = Namespaces::new(Clock::machine());
        let (acme, rival) = (Arc::new(Quota::new(FEW)), Arc::new(Quota::new(FEW)));
        let (one, two) = (of(&namespaces, "acme/1", &acme), of(&namespaces, "acme/2", &acme));
        let other = of(&namespaces, "rival/1", &rival);
        assert_eq!(one.kv.set(b"a", b"1", 0), Ok(()));
        assert_eq!(one.kv.set(b"b", b"1", 0), Ok(()));
        assert_eq!(two.kv.set(b"a", b"1", 0), Ok(()));
        assert_eq!(two.kv.set(b"b", b"1", 0), Err(KvError::FullOfTenant));
        assert_eq!(two.kv.set(b"a", &[0; 900], 0), Err(KvError::FullOfTenant));
        assert_eq!(&*two.kv.get(b"a").unwrap(), b"1", "a refusal changes nothing");
        assert_eq!(other.kv.set(b"a", b"1", 0), Ok(()));
        assert!(one.kv.remove(b"b"));
        assert_eq!(two.kv.set(b"b", b"1", 0), Ok(()));

        one.counters.add(b"a", 1).unwrap();
        two.counters.add(b"a", 1).unwrap();
        assert_eq!(two.counters.add(b"b", 1), Err(CounterError::FullOfTenant));
        assert_eq!(other.counters.add(b"a", 1), Ok(1));
        assert_eq!(one.counters.add(b"a", -1), Ok(0));
        assert_eq!(two.counters.add(b"b", 1), Ok(1));

        assert_eq!(two.refused(), [("kv", "tenant", 2), ("counters", "tenant", 1)]);
        assert_eq!((one.refused(), other.refused()), (vec![], vec![]));
        drop((one, two));
        let used = [&acme.kv_bytes, &acme.kv_entries, &acme.counters].map(Pool::used);
        assert_eq!(used, [0; 3], "what goes with its plugin makes room");
    }

    #[test]
    fn what_is_under_way_is_known_to_a_bound_that_comes_later() {
        let quota = Quota::new(KeptQuota::default());
        let places = [(); 3].map(|()| quota.requests(None).enter());
        assert!(places.iter().all(Option::is_some));
        assert!(quota.requests(Some(3)).enter().is_none());
        assert!(quota.connections(Some(1)).enter().is_some(), "these are others");
        drop(places);
        assert!(quota.requests(Some(1)).enter().is_some());
    }

    #[test]
    fn pairs_of_a_quiet_plugin_whose_time_has_come_make_room_for_another() {
        let namespaces = Namespaces::new(Clock::machine());
        let acme = Arc::new(Quota::new(FEW));
        let (quiet, busy) = (of(&namespaces, "acme/1", &acme), of(&namespaces, "acme/2", &acme));
        for key in [b"a", b"b", b"c"] {
            quiet.kv.set(key, b"1", 1).unwrap();
        }
        let begun = Instant::now();
        while busy.kv.set(b"a", b"1", 0).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "they never go");
            std::thread::yield_now();
        }
        assert_eq!(acme.kv_entries.used(), 1);
    }

    #[test]
    fn lines_beyond_a_tenants_rate_are_refused_until_a_reload_gives_more() {
        let quota = Quota::new(FEW);
        assert_eq!([(); 4].map(|()| quota.takes_line()), [true, true, false, false]);
        quota.bound(FEW);
        assert!(!quota.takes_line(), "a reload that changes nothing gives nothing");
        quota.bound(KeptQuota::default());
        assert!(quota.takes_line());
    }
}

//! What a plugin has of the host that outlives its instances and a reload: key-value pairs, counters and metrics, all of one
//! tenant's plugin and of nobody else's.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::clock::Clock;
use super::counters::Counters;
use super::kv::{Kv, KvBounds, Refused};
use super::metrics::PluginMetrics;
use super::quota::Quota;
use crate::config::{KeptQuota, StateLimits};
use crate::telemetry::metrics::{PluginSeries, Series};

/// What all uses of one plugin share.
pub(crate) struct Shared {
    pub(crate) kv: Kv,
    pub(crate) counters: Counters,
    metrics: Mutex<Metrics>,
    /// Of its tenant, where it has one.
    pub(super) quota: Option<Arc<Quota>>,
    /// Log lines that were left out.
    pub(super) lines_refused: Refused,
    /// Tags that were left out.
    pub(super) tags_refused: Refused,
}

#[derive(Default)]
struct Metrics {
    /// What is shown.
    shown: Option<Arc<PluginMetrics>>,
    /// Declarations that some use has, adopted or not.
    known: Vec<Weak<PluginMetrics>>,
}

/// What every plugin shares, by namespace.
pub(super) struct Namespaces {
    shared: Mutex<HashMap<String, Weak<Shared>>>,
    /// By tenant.
    quotas: Mutex<HashMap<Arc<str>, Weak<Quota>>>,
    /// What pairs with a time to live go by.
    clock: Clock,
}

impl Namespaces {
    /// None yet.
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            shared: Mutex::default(),
            quotas: Mutex::default(),
            clock,
        }
    }

    /// What is kept under a name. The same name is the same place, for as long as somebody holds it.
    pub(super) fn shared(&self, name: &str, limits: StateLimits, quota: Option<&Arc<Quota>>) -> Arc<Shared> {
        let mut known = lock(&self.shared);
        if let Some(shared) = known.get(name).and_then(Weak::upgrade) {
            return shared;
        }
        known.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(Shared {
            kv: Kv::new(limits.kv(), self.clock.clone(), quota.cloned()),
            counters: Counters::new(limits.counters, quota.cloned()),
            metrics: Mutex::default(),
            quota: quota.cloned(),
            lines_refused: Refused::default(),
            tags_refused: Refused::default(),
        });
        if let Some(quota) = quota {
            quota.add(&shared);
        }
        known.insert(name.to_owned(), Arc::downgrade(&shared));
        shared
    }

    /// What the plugins of a tenant may keep together. The same name is the same quota, for as long as somebody holds it.
    pub(super) fn quota(&self, tenant: &Arc<str>, limits: KeptQuota) -> Arc<Quota> {
        let mut known = lock(&self.quotas);
        if let Some(quota) = known.get(tenant).and_then(Weak::upgrade) {
            return quota;
        }
        known.retain(|_, quota| quota.strong_count() > 0);
        let quota = Arc::new(Quota::new(limits));
        known.insert(Arc::clone(tenant), Arc::downgrade(&quota));
        quota
    }
}

impl Shared {
    /// The metrics of this declaration: the same for all uses that declare the same.
    pub(super) fn metrics(&self, declared: PluginMetrics) -> Arc<PluginMetrics> {
        let mut metrics = lock(&self.metrics);
        let mut known = metrics.known.iter().filter_map(Weak::upgrade);
        if let Some(same) = known.find(|known| known.is_like(&declared)) {
            return same;
        }
        drop(known);
        let new = Arc::new(declared);
        metrics.known.retain(|known| known.strong_count() > 0);
        metrics.known.push(Arc::downgrade(&new));
        new
    }

    /// Whether its tenant may write a line now, if it has one. What may not be written is counted.
    pub(super) fn takes_line_of_tenant(&self) -> bool {
        let takes = self.quota.as_ref().is_none_or(|quota| quota.takes_line());
        if !takes {
            self.lines_refused.by_tenant.fetch_add(1, Ordering::Relaxed);
        }
        takes
    }

    /// From now on these bounds hold and these metrics are shown.
    pub(super) fn adopt(&self, limits: StateLimits, metrics: &Arc<PluginMetrics>) {
        self.kv.bound(limits.kv());
        self.counters.bound(limits.counters);
        lock(&self.metrics).shown = Some(Arc::clone(metrics));
    }
}

impl PluginSeries for Shared {
    fn each(&self, show: &mut dyn FnMut(Series<'_>)) {
        // Not shown with the lock held: nobody has to wait for whoever reads.
        let shown = lock(&self.metrics).shown.clone();
        for family in shown.iter().flat_map(|metrics| metrics.families()) {
            family.show(show);
        }
    }

    fn kept(&self) -> [u64; 3] {
        [self.kv.entries(), self.kv.bytes(), self.counters.count()]
    }

    fn refused(&self) -> Vec<(&'static str, &'static str, u64)> {
        let all = [
            ("kv", self.kv.refused()),
            ("counters", self.counters.refused()),
            ("log", &self.lines_refused),
            ("tags", &self.tags_refused),
        ];
        let each = all.into_iter().flat_map(|(what, refused)| {
            let by = [("plugin", &refused.by_plugin), ("tenant", &refused.by_tenant)];
            by.map(|(by, count)| (what, by, count.load(Ordering::Relaxed)))
        });
        each.filter(|(.., count)| *count > 0).collect()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("kept", &self.kept())
            .finish_non_exhaustive()
    }
}

impl StateLimits {
    const fn kv(self) -> KvBounds {
        KvBounds {
            entries: self.kv_entries,
            bytes: self.kv,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: StateLimits = StateLimits {
        kv: 10_000,
        kv_entries: 10,
        counters: 10,
        ..StateLimits::DEFAULT
    };

    #[test]
    fn a_namespace_is_one_place_for_as_long_as_somebody_holds_it() {
        let namespaces = Namespaces::new(Clock::machine());
        let one = namespaces.shared("plugin/a", LIMITS, None);
        assert_eq!(one.kv.set(b"k", b"v", 0), Ok(()));
        let again = namespaces.shared("plugin/a", LIMITS, None);
        assert!(again.kv.get(b"k").is_some());
        assert!(namespaces.shared("plugin/b", LIMITS, None).kv.get(b"k").is_none());
        drop((one, again));
        assert!(namespaces.shared("plugin/a", LIMITS, None).kv.get(b"k").is_none());
    }
}

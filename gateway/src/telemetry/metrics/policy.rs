//! Metrics of policy: what each component was called and how it failed, per place. Policy counts for itself, a worker
//! at a time; this reads it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use super::exporter::Exporter;
use super::lock;

/// The counts of a component at one place.
pub trait PolicyCounts: Debug + Send + Sync {
    /// Calls, failed ones included.
    fn calls(&self) -> u64;

    /// Instances made.
    fn instantiations(&self) -> u64;

    /// Calls that failed, by kind.
    fn failures(&self) -> Vec<(&'static str, u64)>;
}

/// The counts under a label, which may be several: of a plugin that several frontends use, or that was there before a
/// reload.
#[derive(Debug)]
pub(super) struct PolicyMetrics {
    pub(super) label: Arc<str>,
    counts: Mutex<Vec<Arc<dyn PolicyCounts>>>,
}

impl PolicyMetrics {
    pub(super) fn new(label: &str) -> Self {
        Self {
            label: label.into(),
            counts: Mutex::default(),
        }
    }

    pub(super) fn add(&self, counts: Arc<dyn PolicyCounts>) {
        lock(&self.counts).push(counts);
    }

    fn sum(&self, of: impl Fn(&dyn PolicyCounts) -> u64) -> u64 {
        lock(&self.counts).iter().map(|counts| of(&**counts)).sum()
    }

    fn failures(&self) -> Vec<(&'static str, u64)> {
        let mut sums = BTreeMap::new();
        for (kind, count) in lock(&self.counts).iter().flat_map(|counts| counts.failures()) {
            *sums.entry(kind).or_default() += count;
        }
        sums.into_iter().collect()
    }
}

pub(super) fn register(exporter: &mut Exporter, policy: &Arc<PolicyMetrics>) {
    let mut of = exporter.of(policy, &[("policy", &policy.label)]);
    let help = "Calls of the component at this place, failed ones included.";
    of.counter("gateway_policy_calls_total", help, None, |policy| {
        policy.sum(|counts| counts.calls())
    });
    let help = "Instances made of the component at this place.";
    of.counter("gateway_policy_instances_total", help, None, |policy| {
        policy.sum(|counts| counts.instantiations())
    });
    let help = "Calls that failed, by kind; the log lines have the same words.";
    of.reasons("gateway_policy_failures_total", help, "kind", PolicyMetrics::failures);
}

//! Metrics of policy: what each component was called and how it failed, per place. Policy counts for itself, a worker
//! at a time; this reads it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use super::text::{Kind, Text};

/// The counts of a component at one place.
pub trait PolicyCounts: Debug + Send + Sync {
    /// Calls, failed ones included.
    fn calls(&self) -> u64;

    /// Instances made.
    fn instantiations(&self) -> u64;

    /// Calls that failed, by kind.
    fn failures(&self) -> Vec<(&'static str, u64)>;
}

/// Counts under their label.
#[derive(Debug, Clone)]
pub(super) struct Labelled {
    pub(super) label: Arc<str>,
    pub(super) counts: Arc<dyn PolicyCounts>,
}

#[derive(Default)]
struct Sum {
    calls: u64,
    instantiations: u64,
    failures: BTreeMap<&'static str, u64>,
}

pub(super) fn render(text: &mut Text, policies: &[Labelled]) {
    // A label may come more than once: a plugin that several frontends use, or one that was there before a reload.
    let mut sums = BTreeMap::<&str, Sum>::new();
    for policy in policies {
        let sum = sums.entry(&policy.label).or_default();
        sum.calls += policy.counts.calls();
        sum.instantiations += policy.counts.instantiations();
        for (kind, count) in policy.counts.failures() {
            *sum.failures.entry(kind).or_default() += count;
        }
    }

    let name = "gateway_policy_calls_total";
    text.family(
        name,
        Kind::Counter,
        "Calls of the component at this place, failed ones included.",
    );
    for (label, sum) in &sums {
        text.sample(name, &[("policy", label)], sum.calls);
    }
    let name = "gateway_policy_instances_total";
    text.family(name, Kind::Counter, "Instances made of the component at this place.");
    for (label, sum) in &sums {
        text.sample(name, &[("policy", label)], sum.instantiations);
    }
    let name = "gateway_policy_failures_total";
    text.family(
        name,
        Kind::Counter,
        "Calls that failed, by kind; the log lines have the same words.",
    );
    for (label, sum) in &sums {
        for (kind, count) in &sum.failures {
            text.sample(name, &[("policy", label), ("kind", kind)], count);
        }
    }
}

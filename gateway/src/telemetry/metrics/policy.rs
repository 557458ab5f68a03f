//! Metrics of a policy attachment: a component at its place in a frontend or backend.

use std::sync::{Arc, Mutex};

use super::lock;
use super::shard::{Count, Sharded};
use super::text::{Kind, Text};

/// Counts of a policy attachment.
#[derive(Debug)]
pub struct PolicyMetrics {
    pub(super) label: Arc<str>,
    shards: Sharded<Shard>,
    failures: Mutex<Vec<(&'static str, u64)>>,
}

#[derive(Debug, Default)]
struct Shard {
    calls: Count,
    instantiations: Count,
}

impl PolicyMetrics {
    pub(super) fn new(label: &str) -> Self {
        Self {
            label: label.into(),
            shards: Sharded::default(),
            failures: Mutex::default(),
        }
    }

    /// The component was called.
    pub fn called(&self) {
        self.shards.here().calls.add(1);
    }

    /// An instance of it was made.
    pub fn instantiated(&self) {
        self.shards.here().instantiations.add(1);
    }

    /// A call failed, in this way. Takes a lock: a failure costs an instance anyway.
    pub fn failed(&self, kind: &'static str) {
        let mut failures = lock(&self.failures);
        match failures.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => failures.push((kind, 1)),
        }
    }
}

pub(super) fn render(text: &mut Text, policies: &[Arc<PolicyMetrics>]) {
    let mut count = |name: &str, help: &str, of: &dyn Fn(&Shard) -> u64| {
        text.family(name, Kind::Counter, help);
        for policy in policies {
            text.sample(name, &[("policy", &policy.label)], policy.shards.sum(of));
        }
    };
    let help = "Calls of the component at this place.";
    count("gateway_policy_calls_total", help, &|shard| shard.calls.get());
    let help = "Instances made of the component at this place.";
    count("gateway_policy_instances_total", help, &|shard| shard.instantiations.get());

    let name = "gateway_policy_failures_total";
    text.family(name, Kind::Counter, "Calls that failed, by kind; the log lines have the same words.");
    for policy in policies {
        for (kind, count) in lock(&policy.failures).iter() {
            text.sample(name, &[("policy", &policy.label), ("kind", kind)], count);
        }
    }
}

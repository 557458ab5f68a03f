//! Metrics of policy: what each component was called and how it failed, per place. Policy counts for itself, a worker
//! at a time; this reads it.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::exporter::Exporter;
use super::{lock, plugin};

/// The counts of a component at one place.
pub trait PolicyCounts: Debug + Send + Sync {
    /// Calls, failed ones included.
    fn calls(&self) -> u64;

    /// Of the calls, those whose answer was known.
    fn repeats(&self) -> u64;

    /// Instances made.
    fn instantiations(&self) -> u64;

    /// Calls that failed, by kind.
    fn failures(&self) -> Vec<(&'static str, u64)>;

    /// CPU time of calls and of making instances, where it is measured.
    fn cpu(&self) -> Duration;

    /// Calls of a shadow that would have changed something.
    fn shadow_differences(&self) -> u64;

    /// Exchanges, and connections in TCP mode, that it was not told of when they were over.
    fn untold(&self) -> u64;

    /// Bytes of the gateway's own memory that are held for it.
    fn host_memory(&self) -> u64;

    /// How often it was put in quarantine.
    fn quarantines(&self) -> u64;

    /// Whether it is now.
    fn is_quarantined(&self) -> bool;

    /// Whether it is called beside the workers, as its calls have been slow.
    fn is_slow(&self) -> bool;

    /// Calls that wait for a thread beside the workers.
    fn waiting(&self) -> Option<usize>;
}

/// The counts under a label, which may be several: of a plugin that several frontends use, or that was there before a
/// reload.
#[derive(Debug)]
pub(super) struct PolicyMetrics {
    pub(super) label: Arc<str>,
    pub(super) tenant: Option<Arc<str>>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    live: Vec<Arc<dyn PolicyCounts>>,
    /// The sums of those that are gone.
    gone: Gone,
}

#[derive(Debug, Default)]
struct Gone {
    calls: u64,
    repeats: u64,
    instantiations: u64,
    cpu: Duration,
    quarantines: u64,
    shadow_differences: u64,
    untold: u64,
    failures: BTreeMap<&'static str, u64>,
}

impl PolicyMetrics {
    pub(super) fn new(label: &str, tenant: Option<&str>) -> Self {
        Self {
            tenant: tenant.map(Arc::from),
            label: label.into(),
            counts: Mutex::default(),
        }
    }

    pub(super) fn add(&self, counts: Arc<dyn PolicyCounts>) {
        lock(&self.counts).live.push(counts);
    }

    /// Keeps of counts that nobody adds to any more only their sums.
    pub(super) fn prune(&self) {
        let Counts { live, gone } = &mut *lock(&self.counts);
        live.retain(|counts| {
            let is_live = Arc::strong_count(counts) > 1;
            if !is_live {
                gone.calls += counts.calls();
                gone.repeats += counts.repeats();
                gone.instantiations += counts.instantiations();
                gone.cpu += counts.cpu();
                gone.quarantines += counts.quarantines();
                gone.shadow_differences += counts.shadow_differences();
                gone.untold += counts.untold();
                for (kind, count) in counts.failures() {
                    *gone.failures.entry(kind).or_default() += count;
                }
            }
            is_live
        });
    }

    pub(super) fn is_live(&self) -> bool {
        !lock(&self.counts).live.is_empty()
    }

    fn calls(&self) -> u64 {
        let counts = lock(&self.counts);
        counts.gone.calls + counts.live.iter().map(|counts| counts.calls()).sum::<u64>()
    }

    fn repeats(&self) -> u64 {
        let counts = lock(&self.counts);
        counts.gone.repeats + counts.live.iter().map(|counts| counts.repeats()).sum::<u64>()
    }

    fn instantiations(&self) -> u64 {
        let counts = lock(&self.counts);
        counts.gone.instantiations + counts.live.iter().map(|counts| counts.instantiations()).sum::<u64>()
    }

    fn cpu(&self) -> Duration {
        let counts = lock(&self.counts);
        counts.gone.cpu + counts.live.iter().map(|counts| counts.cpu()).sum::<Duration>()
    }

    fn quarantines(&self) -> u64 {
        let counts = lock(&self.counts);
        counts.gone.quarantines + counts.live.iter().map(|counts| counts.quarantines()).sum::<u64>()
    }

    fn shadow_differences(&self) -> u64 {
        let counts = lock(&self.counts);
        let live: u64 = counts.live.iter().map(|counts| counts.shadow_differences()).sum();
        counts.gone.shadow_differences + live
    }

    fn untold(&self) -> u64 {
        let counts = lock(&self.counts);
        counts.gone.untold + counts.live.iter().map(|counts| counts.untold()).sum::<u64>()
    }

    fn host_memory(&self) -> u64 {
        lock(&self.counts).live.iter().map(|counts| counts.host_memory()).sum()
    }

    fn quarantined(&self) -> f64 {
        let is_one = lock(&self.counts).live.iter().any(|counts| counts.is_quarantined());
        f64::from(u8::from(is_one))
    }

    fn slow(&self) -> f64 {
        let is_one = lock(&self.counts).live.iter().any(|counts| counts.is_slow());
        f64::from(u8::from(is_one))
    }

    fn waiting(&self) -> f64 {
        let counts = lock(&self.counts);
        let waiting: usize = counts.live.iter().filter_map(|counts| counts.waiting()).sum();
        u32::try_from(waiting).map_or(f64::INFINITY, f64::from)
    }

    fn failures(&self) -> Vec<(&'static str, u64)> {
        let counts = lock(&self.counts);
        let mut sums = counts.gone.failures.clone();
        for (kind, count) in counts.live.iter().flat_map(|counts| counts.failures()) {
            *sums.entry(kind).or_default() += count;
        }
        sums.into_iter().collect()
    }
}

pub(super) fn register(exporter: &mut Exporter, policy: &Arc<PolicyMetrics>) {
    let label = ("policy", &*policy.label);
    let mut of = match policy.tenant.as_deref() {
        Some(tenant) => exporter.of(policy, &[label, ("tenant", tenant)]),
        None => exporter.of(policy, &[label]),
    };
    let help = "Calls of the component at this place, failed ones included.";
    of.counter("gateway_policy_calls_total", help, None, PolicyMetrics::calls);
    let help = "Calls that were not made, as the component had said before what it says to these facts; counted as calls, too.";
    of.counter("gateway_policy_repeats_total", help, None, PolicyMetrics::repeats);
    let help = "Instances made of the component at this place.";
    of.counter(
        "gateway_policy_instances_total",
        help,
        None,
        PolicyMetrics::instantiations,
    );
    let help = "Times that the component was put in quarantine, as it did nothing but fail.";
    of.counter(
        "gateway_policy_quarantines_total",
        help,
        None,
        PolicyMetrics::quarantines,
    );
    let help = "Calls of a shadow that would have changed something, or said something else of an acl.";
    of.counter(
        "gateway_policy_shadow_differences_total",
        help,
        None,
        PolicyMetrics::shadow_differences,
    );
    let help = "Exchanges, and connections in TCP mode, that the component was not told of when they were over, because too many waited.";
    of.counter("gateway_policy_untold_total", help, None, PolicyMetrics::untold);
    let help = "1 while the component is in quarantine.";
    of.gauge("gateway_policy_quarantined", help, PolicyMetrics::quarantined);
    let help = "1 while the component is called beside the workers, as its calls have been slow.";
    of.gauge("gateway_policy_slow", help, PolicyMetrics::slow);
    let help = "Calls of a heavy or slow plugin that wait for a thread.";
    of.gauge("gateway_policy_waiting", help, PolicyMetrics::waiting);
    let help = "Bytes of the gateway's own memory that are held for the component: what it answered with and nobody has taken yet, and bodies that it is to see whole.";
    of.gauge("gateway_policy_host_memory_bytes", help, |policy| {
        policy.host_memory() as f64
    });
    let help = "Calls that failed, by kind; the log lines have the same words.";
    of.reasons("gateway_policy_failures_total", help, "kind", PolicyMetrics::failures);
}

/// Writes the CPU time of all of them in the text format: seconds have parts, and the recorder's counters have none.
pub(super) fn render_cpu(policies: &[Arc<PolicyMetrics>], text: &mut String) {
    if policies.is_empty() {
        return;
    }
    // Writing into memory does not fail.
    let _ = write!(text, "# HELP {CPU} {CPU_HELP}\n# TYPE {CPU} counter\n");
    for policy in policies {
        let mut labels = vec![("policy", &*policy.label)];
        labels.extend(policy.tenant.as_deref().map(|tenant| ("tenant", tenant)));
        let value = policy.cpu().as_secs_f64().to_string();
        plugin::line(text, (CPU, ""), &labels, &[], None, &value);
    }
    text.push('\n');
}

const CPU: &str = "gateway_policy_cpu_seconds_total";
const CPU_HELP: &str =
    "CPU time of the component's calls and instances, where it is measured: of a tenant's, and with a `cpu-share`.";

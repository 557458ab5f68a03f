//! A component with a configuration: what a frontend refers to, and what its calls are counted under.

mod described;
mod lines;
mod paces;
mod spec;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};

use super::attribute::Attribute;
use super::bindings::exports::gateway::policy::lifecycle;
use super::budget::Budget;
use super::component::Component;
use super::crew::Waiting;
use super::exchange::LimitPolicy;
use super::failure::{Failure, PolicyError, one_line};
use super::granted::Granted;
use super::hook::{HookPlace, hook_bits};
use super::hooks::Hooks;
use super::host::Host;
use super::instance::{Instance, SetUpError};
use super::log_budget::LogBudget;
use super::metrics::PluginMetrics;
use super::needs::Needs;
use super::pace::Pace;
use super::quarantine::Quarantine;
use super::quota::Quota;
use super::scope::Scope;
use super::slot_number::SlotNumber;
use super::state::Identity;
use super::stats::AttachmentStats;
use crate::config::{Isolation, LogRate, OnFailure, Origin, PluginLimits, StateLimits};
use crate::telemetry::metrics::PluginSeries;
use crate::twins::reads_as;
use described::{check_policies, check_predicates};
pub use spec::{AttachedAs, AttachmentSpec, Callers};

/// A use of a component: with one configuration, one bucket namespace and one verdict on failure.
pub struct Attachment {
    pub(super) component: Arc<Component>,
    pub(super) identity: Arc<Identity>,
    pub(super) config: String,
    pub(super) limits: PluginLimits,
    pub(super) needs: Needs,
    /// What `configure` answered; every instance has to answer it again.
    pub(super) configured: lifecycle::Needs,
    pub(super) slot: SlotNumber,
    pub(super) isolation: Isolation,
    pub(super) budget: Arc<Budget>,
    /// Whether the CPU time of calls is measured.
    pub(super) measures_cpu: bool,
    pub(super) scope: Scope,
    /// Whether it can only say again what it said to the same facts, or what comes of the tokens that it took.
    pub(super) is_repeatable: bool,
    /// Who makes its calls.
    pub(super) pace: Arc<Pace>,
    /// The same of setting its instances up.
    pub(super) set_up_pace: Arc<Pace>,
    /// Whether a worker makes the call that no thread of the crew has time for, instead of refusing it.
    pub(super) is_never_refused: bool,
    /// Another configuration serves what comes.
    is_retired: AtomicBool,
    /// A bit for each hook that is called here, in the order of an exchange's phases.
    called: u8,
    predicates: Vec<String>,
    policies: Vec<LimitPolicy>,
    metrics: Arc<PluginMetrics>,
    state: StateLimits,
    granted: Arc<Granted>,
    on_failure: OnFailure,
    vouched: Arc<[HeaderName]>,
    origin: Option<Origin>,
    stats: Arc<AttachmentStats>,
}

impl Attachment {
    pub(super) fn new(host: &Host, component: &Arc<Component>, spec: AttachmentSpec) -> Result<Self, PolicyError> {
        let label = spec.label.to_string();
        let failed = |failure: Failure| PolicyError::Failed {
            label: label.clone(),
            failure: failure.in_one_line(),
        };
        let limits = PluginLimits {
            memory: spec.limits.memory.min(host.settings().memory),
            ..spec.limits
        };
        let quota = spec.scope.tenant.as_ref().map(|tenant| &tenant.quota);
        let tenant = spec.scope.tenant.as_ref().map(|tenant| &*tenant.name);
        let identity = Arc::new(Identity {
            label: spec.label,
            namespace: host.namespace(&spec.namespace, tenant),
            counted: spec.counted,
            shared: host.shared(&spec.namespace, spec.state, quota),
            tenant: spec.scope.tenant.as_ref().map(|tenant| Arc::clone(&tenant.name)),
            metrics: OnceLock::new(),
            lines: LogBudget::new(spec.state.log),
            failures: LogBudget::new(LogRate::DEFAULT),
            changes: LogBudget::new(LogRate::OF_CHANGES),
        });
        let mut activity = host.activity()?;
        let not_set_up = |error: SetUpError| error.of(&label);
        let mut instance =
            Instance::new(host, component, &identity, limits, &spec.budget, &mut activity).map_err(not_set_up)?;
        let description = instance.describe(limits, &mut activity).map_err(failed)?;
        let metrics = PluginMetrics::new(&description.metrics).map_err(|message| PolicyError::Metrics {
            label: label.clone(),
            message,
        })?;
        let metrics = identity.shared.metrics(metrics);
        // Nobody else has set it: the identity is new.
        let _ = identity.metrics.set(Arc::clone(&metrics));
        let configured = instance
            .configure(&spec.config, limits, &mut activity)
            .map_err(not_set_up)?;
        let predicates = instance.names(limits, &mut activity).map_err(failed)?;
        check_predicates(component.hooks().predicates, &predicates).map_err(|message| PolicyError::Predicates {
            label: label.clone(),
            message,
        })?;
        let policies = instance.policies(limits, &mut activity).map_err(failed)?;
        let policies = check_policies(policies).map_err(|message| PolicyError::LimitPolicies {
            label: label.clone(),
            message,
        })?;
        let tenant = identity.tenant.as_ref();
        let maps = spec.maps.as_deref();
        let needs = Needs::parse(&description.needs, &configured, maps, tenant).map_err(|(need, why)| {
            PolicyError::UnknownNeed {
                label: label.clone(),
                need: one_line(&need),
                why,
            }
        })?;
        if let Some(need) = needs.time()
            && !component.may_tell_time
        {
            return Err(PolicyError::NeedNotGranted {
                label,
                need,
                line: r#"grant "clock""#,
            });
        }
        // What a shadow would have done is told each time.
        let is_repeatable = spec.is_forgetful && !component.asks_beside_buckets && !spec.scope.is_shadow;
        let (pace, set_up_pace, waiting) = match spec.callers {
            Callers::Workers => (Pace::of_workers(), Pace::of_workers(), None),
            Callers::Crew(heavy) => (Pace::of_crew(), Pace::of_workers(), Some(heavy)),
            Callers::Either { slow, heavy } => {
                let slow_to_set_up = slow.saturating_mul(SET_UP_IN_CALLS);
                (Pace::by_calls(slow), Pace::by_calls(slow_to_set_up), Some(heavy))
            }
        };
        let (pace, set_up_pace) = (Arc::new(pace), Arc::new(set_up_pace));
        let is_strangers = spec.scope.tenant.is_some();
        let may_be_either = matches!(spec.callers, Callers::Either { .. });
        Ok(Self {
            component: Arc::clone(component),
            identity,
            config: spec.config,
            limits,
            needs,
            configured,
            slot: host.slot(),
            scope: spec.scope,
            isolation: spec.isolation,
            // Ticks tell of most slow calls; a stranger may know how to keep from being seen by them.
            measures_cpu: spec.budget.measures_cpu() || is_strangers,
            budget: spec.budget,
            is_repeatable,
            pace: Arc::clone(&pace),
            is_retired: AtomicBool::new(false),
            set_up_pace: Arc::clone(&set_up_pace),
            // Who is slow is not told beforehand: the operator's own requests are slow then, as they would be without a crew. A
            // stranger's would take the workers from everybody.
            is_never_refused: may_be_either && !is_strangers,
            called: component.hooks().called(spec.place),
            predicates,
            policies,
            metrics,
            state: spec.state,
            granted: spec.granted,
            on_failure: spec.on_failure,
            vouched: spec.vouched,
            origin: spec.origin,
            stats: Arc::new(AttachmentStats::new(
                spec.quarantine.map(Quarantine::new),
                waiting.map(Waiting::new),
                [pace, set_up_pace],
            )),
        })
    }

    /// Whether no other hook of it is called in an exchange before this one, or it is a connection that this one is about.
    pub(super) fn begins_with(&self, hook: u8) -> bool {
        hook == hook_bits::CONNECTION_FILTER || self.called & (hook - 1) == 0
    }

    /// Whether no other hook of it is called in an exchange after this one. The access log does not count: no instance waits
    /// for the end of an exchange only to be told of it. Nor does the hook for connections, which are no exchanges.
    pub(super) fn ends_with(&self, hook: u8) -> bool {
        let none = hook_bits::ACCESS_LOG | hook_bits::CONNECTION_FILTER;
        self.called & !none & !(hook | (hook - 1)) == 0
    }

    /// What is counted of it, for what outlives it.
    pub(super) fn shared_stats(&self) -> Arc<AttachmentStats> {
        Arc::clone(&self.stats)
    }

    /// Whether it fails so much that it is left alone; none when it never is.
    pub(super) fn quarantine(&self) -> Option<&Quarantine> {
        self.stats.quarantine().map(|quarantine| &**quarantine)
    }

    /// Whether a call of this hook would be refused now, as it is left alone.
    pub fn would_refuse(&self, hook: HookPlace) -> bool {
        self.quarantine()
            .is_some_and(|quarantine| quarantine.would_refuse(hook))
    }

    /// Whether it is worth waiting for a thread that calls this hook.
    pub fn is_worth_waiting_for(&self, hook: HookPlace) -> bool {
        !self.would_refuse(hook) && (!self.measures_cpu || self.budget.admit(Instant::now()).is_ok())
    }

    /// Whether a crew may have to call it.
    #[must_use]
    pub fn may_be_heavy(&self) -> bool {
        self.waiting().is_some()
    }

    /// What waits for the crew.
    pub(super) fn waiting(&self) -> Option<&Waiting> {
        self.stats.waiting()
    }

    /// Whether it is left alone for now, since it has done nothing but fail.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.quarantine().is_some_and(Quarantine::is_on)
    }

    /// Whether its instances are kept for connections.
    #[must_use]
    pub const fn is_kept_by_connection(&self) -> bool {
        matches!(self.isolation, Isolation::PerConnection { .. })
    }

    /// Whether what it is asked about a response or its content may look at the request's header fields: if not, they need not be kept for it.
    #[must_use]
    pub fn response_filter_reads_request(&self) -> bool {
        self.component.imports_request || self.needs.response.iter().any(Attribute::is_of_request)
    }

    /// Whether it may tag exchanges.
    #[must_use]
    pub fn sets_tags(&self) -> bool {
        self.component.imports_tags
    }

    /// Whether its access log is told anything of the request's head: if not, it need not be kept for it.
    #[must_use]
    pub fn access_log_reads_request(&self) -> bool {
        self.needs.log.iter().any(Attribute::is_of_request)
    }

    /// Whether some call of it is handed what a ClientHello says.
    #[must_use]
    pub fn reads_client_hello(&self) -> bool {
        let mut needs = self.needs.request.iter().chain(&self.needs.connection);
        needs.any(Attribute::is_of_hello)
    }

    /// Its name in logs and metrics.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.identity.label
    }

    /// The hooks its component exports.
    #[must_use]
    pub fn hooks(&self) -> Hooks {
        self.component.hooks()
    }

    /// The names of its predicates: bit `i` of an evaluation answers the `i`-th. Empty without that hook.
    #[must_use]
    pub fn predicates(&self) -> &[String] {
        &self.predicates
    }

    /// The limits that it sets: a verdict refers to one by its position. Empty without that hook.
    #[must_use]
    pub fn policies(&self) -> &[LimitPolicy] {
        &self.policies
    }

    /// The backends that it may use, and how much of a body it may see at once.
    #[must_use]
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// What all instances of its plugin may use together.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What it keeps beyond its instances and tells the operator.
    #[must_use]
    pub fn series(&self) -> Arc<dyn PluginSeries> {
        Arc::clone(&self.identity.shared) as Arc<dyn PluginSeries>
    }

    /// From now on what it keeps in the host is bounded as its configuration says, and its metrics are shown. To be called when
    /// nothing can keep that configuration from serving.
    pub fn adopt(&self) {
        self.identity.shared.adopt(self.state, &self.metrics);
        if let Some(tenant) = &self.scope.tenant {
            tenant.quota.bound(tenant.kept);
            self.resume(&tenant.quota);
        }
    }

    /// A tenant's goes on being left alone where the same use of the same component with the same configuration was, however many
    /// configurations without it there have been in between.
    fn resume(&self, quota: &Quota) {
        let Some(quarantine) = self.stats.quarantine() else {
            return;
        };
        let mut what = Sha256::new();
        for part in [&*self.scope.place, &*self.identity.label, &*self.config] {
            what.update(part.len().to_le_bytes());
            what.update(part);
        }
        what.update([self.called, u8::from(self.scope.is_shadow)]);
        what.update(self.component.sha256);
        if let Some(before) = quota.serves(what.finalize().into(), quarantine)
            && !Arc::ptr_eq(&before, quarantine)
        {
            quarantine.resume(&before);
        }
    }

    /// Another configuration serves what comes from now on: what lies ready here, or rests with connections on which nothing comes,
    /// is let go of.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    /// What an exchange gets when a call fails.
    #[must_use]
    pub const fn on_failure(&self) -> OnFailure {
        match self.scope.is_shadow {
            true => OnFailure::Skip,
            false => self.on_failure,
        }
    }

    /// The fields by which it tells servers who somebody is, as far as that is known. A shadow's word is nobody's.
    #[must_use]
    pub fn vouched(&self) -> &[HeaderName] {
        match self.is_shadow() {
            true => &[],
            false => &self.vouched,
        }
    }

    /// A request goes on without it, as it has failed: what its client has sent in fields that servers take for this component's word,
    /// or may read as such, is removed.
    pub fn vouches_for_nobody(&self, headers: &mut HeaderMap) {
        let vouched = self.vouched();
        if vouched.is_empty() {
            return;
        }
        let forged = |name: &&HeaderName| vouched.iter().any(|vouched| reads_as(name, vouched));
        // Collected first: the names borrow from the map that they are removed from.
        let forged: Vec<HeaderName> = headers.keys().filter(forged).cloned().collect();
        for name in forged {
            headers.remove(name);
        }
    }

    /// Where it stands in the configuration.
    #[must_use]
    pub const fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Numbers that are kept of the metrics it has declared: one for a counter or a gauge, several for a histogram.
    #[must_use]
    pub fn metric_series(&self) -> u64 {
        self.metrics.cells()
    }

    /// Its counters.
    #[must_use]
    pub const fn stats(&self) -> &Arc<AttachmentStats> {
        &self.stats
    }
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment")
            .field("label", &self.identity.label)
            .field("component", &self.component)
            .finish_non_exhaustive()
    }
}

/// A set-up may take as long as so many calls before it is slow: it touches memory for the first time, and there are fewer of them.
const SET_UP_IN_CALLS: u32 = 4;

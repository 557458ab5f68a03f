//! A component with a configuration: what a frontend refers to, and what its calls are counted under.

mod described;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::attribute::Attribute;
use super::bindings::exports::gateway::policy::lifecycle;
use super::budget::Budget;
use super::component::Component;
use super::counted::CountedLimit;
use super::crew::Waiting;
use super::exchange::LimitPolicy;
use super::failure::{Failure, PolicyError, one_line, short_name};
use super::granted::Granted;
use super::hook::{Hook, HookPlace, INSTANTIATE, ON_LOG, hook_bits};
use super::hooks::Hooks;
use super::host::{Host, Slot};
use super::instance::{Instance, SetUpError};
use super::maps::Maps;
use super::metrics::PluginMetrics;
use super::needs::Needs;
use super::pace::{Move, Pace, Took};
use super::quarantine::Quarantine;
use super::quota::Quota;
use super::scope::Scope;
use super::state::{Identity, LogBudget};
use super::stats::AttachmentStats;
use crate::config::{Heavy, Isolation, LogRate, OnFailure, Origin, PluginLimits, QuarantineSettings, StateLimits};
use crate::telemetry::metrics::PluginSeries;
use described::{check_policies, check_predicates};

/// A use of a component: with one configuration, one bucket namespace and one verdict on failure.
pub struct Attachment {
    pub(super) component: Arc<Component>,
    pub(super) identity: Arc<Identity>,
    pub(super) config: String,
    pub(super) limits: PluginLimits,
    pub(super) needs: Needs,
    /// What `configure` answered; every instance has to answer it again.
    pub(super) configured: lifecycle::Needs,
    pub(super) slot: Slot,
    pub(super) isolation: Isolation,
    pub(super) budget: Arc<Budget>,
    /// Whether the CPU time of calls is measured.
    pub(super) measures_cpu: bool,
    pub(super) scope: Scope,
    /// Whether it can only say again what it said to the same facts.
    pub(super) is_repeatable: bool,
    pub(super) pace: Arc<Pace>,
    /// Another configuration serves what comes.
    is_retired: AtomicBool,
    /// The same of setting its instances up.
    pub(super) set_up_pace: Arc<Pace>,
    /// Whether a worker makes the call that no thread of the crew has time for, instead of refusing it.
    pub(super) is_never_refused: bool,
    /// A bit for each hook that is called here, in the order of an exchange's phases.
    called: u8,
    predicates: Vec<String>,
    policies: Vec<LimitPolicy>,
    metrics: Arc<PluginMetrics>,
    state: StateLimits,
    granted: Arc<Granted>,
    on_failure: OnFailure,
    origin: Option<Origin>,
    stats: Arc<AttachmentStats>,
}

/// What [`Host::attach`] is told.
#[derive(Debug, Clone)]
pub struct AttachmentSpec {
    /// Its name in logs and metrics, as `acl web` or `geo`.
    pub label: Arc<str>,
    /// What its token buckets are kept under: the same for all attachments that are to count together (and over
    /// reloads), different for any two that are not.
    pub namespace: String,
    /// Those of its limits that responses take from.
    pub counted: Arc<[CountedLimit]>,
    /// The configuration, a JSON text.
    pub config: String,
    /// The maps that its needs may name: none but for the gateway's own components.
    pub maps: Arc<Maps>,
    /// What a call may use.
    pub limits: PluginLimits,
    /// The backends that it may use, and how much of a body it may see at once.
    pub granted: Arc<Granted>,
    /// What it may keep in the host, and write into the log.
    pub state: StateLimits,
    /// What an exchange gets when a call fails.
    pub on_failure: OnFailure,
    /// Who sees what an instance remembers.
    pub isolation: Isolation,
    /// Whether it is known to remember nothing, however long its instances live: the gateway's own components do not.
    pub is_forgetful: bool,
    /// What its instances may use together.
    pub budget: Arc<Budget>,
    /// When it is left alone; none for never.
    pub quarantine: Option<QuarantineSettings>,
    /// Who makes its calls.
    pub callers: Callers,
    /// What it is attached as.
    pub place: AttachedAs,
    /// Where and how it takes part.
    pub scope: Scope,
    /// Where it stands in the configuration.
    pub origin: Option<Origin>,
}

/// Who makes the calls of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// The workers, however long calls take: those of the gateway's own components, whose cost is known.
    Workers,
    /// The [crew](super::Crew): it is heavy by nature.
    Crew(Heavy),
    /// The workers, as long as calls take no more CPU time than `slow`; the crew once they do. So with setting instances up.
    Either {
        /// CPU time of a call that is still quick.
        slow: Duration,
        /// How many calls may wait for the crew.
        heavy: Heavy,
    },
}

/// What a component is attached as: which of its hooks are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachedAs {
    /// What answers acls: `predicates`.
    Predicates,
    /// What sees requests and responses, or connections: all other hooks.
    Filter,
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
        let needs = Needs::parse(&description.needs, &configured, &spec.maps, tenant).map_err(|(need, why)| {
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
        let is_repeatable = spec.is_forgetful && !component.asks_the_host && !spec.scope.is_shadow;
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

    /// Whether it is called by a [crew](super::Crew) and by no worker. Of one that either may call this changes at any time:
    /// who asks goes by the answer for the whole of a call.
    #[must_use]
    #[inline]
    pub fn is_heavy(&self) -> bool {
        self.pace.is_beside()
    }

    /// Whether setting its instances up has been slow, so that the crew makes them for the workers.
    #[must_use]
    #[inline]
    pub fn is_set_up_beside(&self) -> bool {
        self.set_up_pace.is_beside()
    }

    /// Setting an instance up took so long. Says so when that changes who sets up the next.
    pub(super) fn keep_set_up_pace(&self, took: Duration) {
        match self.set_up_pace.called(Took::exactly(took)) {
            Move::Stays => {}
            Move::Beside => self.tell_slow(
                INSTANTIATE,
                took,
                "setting an instance up",
                "that is done beside the workers now",
            ),
            Move::Back => self.tell_quick(INSTANTIATE, "the workers set its instances up"),
        }
    }

    /// Nobody knows how long setting its instances up takes: the crew is to find out.
    pub(super) fn have_set_up_beside(&self) {
        self.set_up_pace.called(Took::exactly(Duration::MAX));
    }

    /// A call took so long. Says so when that changes who makes the next.
    #[inline]
    pub(super) fn keep_pace(&self, hook: Hook, took: Took) {
        match self.pace.called(took) {
            Move::Stays => {}
            Move::Beside => self.tell_slow(hook, took.at_least, "a call", "it is called beside the workers now"),
            Move::Back => self.tell_quick(hook, "the workers call it"),
        }
    }

    #[cold]
    fn tell_slow(&self, hook: Hook, took: Duration, what: &str, so: &str) {
        let Some(dropped) = self.takes_line_of_change() else {
            return;
        };
        let (plugin, tenant, hook) = (self.label(), self.tenant(), hook.name);
        let at = self.at();
        tracing::warn!(
            plugin,
            tenant,
            hook,
            at,
            dropped,
            "slow: {what} took {took:?} of CPU time; {so}"
        );
    }

    #[cold]
    fn tell_quick(&self, hook: Hook, so: &str) {
        let Some(dropped) = self.takes_line_of_change() else {
            return;
        };
        let (plugin, tenant, hook) = (self.label(), self.tenant(), hook.name);
        let at = self.at();
        tracing::info!(plugin, tenant, hook, at, dropped, "quick again: {so}");
    }

    /// Where it stands, for a line of the log.
    fn at(&self) -> Option<tracing::field::DisplayValue<String>> {
        let at = |origin: &Origin| format!("{}:{}", origin.file, origin.line);
        self.origin.as_ref().map(at).map(tracing::field::display)
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

    /// Whether its response filter may look at the request's header fields: if not, they need not be kept for it.
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

    /// Where it stands in the configuration.
    #[must_use]
    pub const fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Whether a line about it may be written now, and how many were left out before. It is one of its tenant's lines, too: who
    /// fails all the time writes no more than who talks all the time.
    pub(super) fn takes_failure_line(&self) -> Option<u64> {
        let Identity { failures, shared, .. } = &*self.identity;
        let dropped = failures.take()?;
        if shared.takes_line_of_tenant() {
            return Some(dropped);
        }
        failures.leave_out(dropped);
        None
    }

    /// Whether a line may be written now that tells of a change in who calls it, or whether anybody does, and how many were left out
    /// before. Lines about failures take none of these: such a line is what an operator looks for behind them.
    pub(super) fn takes_line_of_change(&self) -> Option<u64> {
        self.identity.changes.take()
    }

    /// Logs and counts what a shadow would have done otherwise.
    #[cold]
    pub(super) fn differs(&self, hook: &'static str, text: &str) {
        self.stats.count_difference();
        if let Some(dropped) = self.takes_failure_line() {
            tracing::info!(
                plugin = self.label(),
                tenant = self.tenant(),
                hook,
                dropped,
                "shadow: {}",
                one_line(text)
            );
        }
    }

    /// Counts and logs that it is not told of something that is over.
    #[cold]
    pub(super) fn is_not_told(&self) {
        self.stats.count_untold();
        if let Some(dropped) = self.takes_failure_line() {
            let (plugin, tenant, hook) = (self.label(), self.tenant(), ON_LOG.name);
            tracing::warn!(
                plugin,
                tenant,
                hook,
                dropped,
                "is not told of an exchange: as many wait on this worker as may"
            );
        }
    }

    /// Counts and logs that tags of it found no room beside those of others.
    pub(super) fn leaves_out_tags(&self, count: u64, first: &str) {
        let refused = &self.identity.shared.tags_refused;
        let by = match self.tenant() {
            Some(_) => &refused.by_tenant,
            None => &refused.by_plugin,
        };
        by.fetch_add(count, Ordering::Relaxed);
        self.warn_of(
            first,
            "sets a tag that is left out: an exchange has as many as it may have",
        );
    }

    /// Logs that the component named something that is not there, as often as its failures are logged.
    pub fn warn_of(&self, named: &str, problem: &'static str) {
        if let Some(dropped) = self.takes_failure_line() {
            let named = short_name(named);
            tracing::warn!(plugin = self.label(), tenant = self.tenant(), %named, dropped, "{problem}");
        }
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

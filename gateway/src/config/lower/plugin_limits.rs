//! What plugins may use: `limit` of a plugin, of one use of it, and for all plugins of a tenant. The smallest decides; what
//! another one has bounded tighter already is an error.

use std::ops::RangeInclusive;
use std::time::Duration;

use miette::SourceSpan;

use super::Scope;
use super::plugin::Owner;
use super::used_plugins::Place;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    BudgetLimits, BuiltIn, DEFAULT_MAX_BODY, Grant, LogRate, Millicores, Plugin, PluginLimits, SaidLimits, StateLimits,
};
use crate::config::reader::{At, Node, Value};
use crate::config::units;

/// What bounds all uses of a plugin: what is said of one has to be less.
pub(super) struct Limited {
    limits: PluginLimits,
    body: u64,
    /// Where that is said.
    body_at: Option<SourceSpan>,
    /// None for what was not granted it.
    log: Option<LogRate>,
    budget: BudgetLimits,
}

impl Limited {
    pub(super) fn of(plugin: &Plugin) -> Self {
        Self {
            limits: plugin.limits,
            body: plugin.max_body.map_or(DEFAULT_MAX_BODY, |body| body.value),
            body_at: plugin.max_body.map(|body| body.span),
            log: plugin.grants.contains(&Grant::Log).then_some(plugin.state.log),
            budget: plugin.budget,
        }
    }
}

/// `limit cpu="10ms" memory="16MiB" instances=64 kv="4MiB"` of a plugin.
pub(super) fn of_plugin(scope: &Scope<'_>, mut node: Node<'_>, owner: Option<&Owner<'_>>, plugin: &mut Plugin) {
    node.require_entries();
    plugin.budget = budget(scope, &mut node);
    state_limits(&mut node, &plugin.grants, &mut plugin.state);
    if let Some(owner) = owner.filter(|_| plugin.folder.is_some()) {
        state_within_quota(&mut node, owner, plugin.state);
    }
    let ceiling = owner.map(|owner| (owner.name, ceiling(owner, plugin)));
    let said = per_call(scope, &mut node, ceiling);
    plugin.said = SaidLimits {
        log: node.hidden_property("log").map(|_| plugin.state.log),
        ..said
    };
    plugin.max_body = node
        .hidden_property("body")
        .and_then(|value| said.body.map(|body| value.at(body)));
    if let Some(body) = plugin.max_body {
        let own = said_host_memory(&mut node, plugin.budget.host_memory);
        let of_tenant = owner.and_then(|owner| owner.host_memory);
        // A tenant's files show nothing of what the operator has written.
        let of_tenant = of_tenant.map(|most| (most, plugin.folder.is_none()));
        let bounds = own.map(|most| (most, true)).into_iter().chain(of_tenant);
        if let Some((most, is_shown)) = bounds.min_by_key(|(most, _)| most.value) {
            report_never_held(&node, body, most, is_shown);
        }
    }
    plugin.limits = PluginLimits {
        cpu: said.cpu.unwrap_or(plugin.limits.cpu),
        memory: said.memory.unwrap_or(plugin.limits.memory),
    };
    node.finish();
}

/// `limit cpu="5ms" memory="8MiB" body="32KiB"` of a tenant: what each of its plugins may have at most.
pub(super) fn of_tenant(scope: &Scope<'_>, mut node: Node<'_>) -> SaidLimits {
    node.require_entries();
    let said = per_call(scope, &mut node, None);
    node.finish();
    said
}

/// `limit cpu="5ms" instances=4` of one use of a plugin: less than the plugin may have in all.
pub(super) fn of_use(
    scope: &Scope<'_>,
    mut node: Node<'_>,
    plugin: Option<&Limited>,
    place: Place,
) -> (SaidLimits, BudgetLimits) {
    node.require_entries();
    if let (Place::Acl, Some(value)) = (place, node.hidden_property("body")) {
        let error = ConfigError::new(Code::Inert, "an acl is asked before anything of a body is read");
        let error = error.label(value.span(), "bounds nothing");
        node.fail(error.help("leave it out"));
    }
    let log = node.property("log");
    let said = SaidLimits {
        log: log.as_ref().and_then(log_rate),
        ..per_call(scope, &mut node, None)
    };
    let budget = budget(scope, &mut node);
    if let Some(plugin) = plugin {
        if let Some(value) = log.filter(|_| plugin.log.is_none()) {
            let error = ConfigError::new(Code::Inert, "`log` bounds what the plugin was not granted");
            let error = error.label(value.span(), "bounds nothing");
            node.fail(error.help("leave it out, or write grant \"log\" in the plugin's block"));
        }
        report_wider(&mut node, plugin, said, budget);
        let host_memory = said_host_memory(&mut node, budget.host_memory);
        let body = match (node.hidden_property("body"), said.body) {
            (Some(value), body) => body.map(|body| value.at(body)),
            (None, _) => plugin.body_at.map(|span| At {
                value: plugin.body,
                span,
            }),
        };
        if let (Place::Frontend, Some(body), Some(most)) = (place, body, host_memory) {
            report_never_held(&node, body, most, true);
        }
    }
    node.finish();
    (said, budget)
}

/// How much the gateway holds, where that is said here.
fn said_host_memory(node: &mut Node<'_>, said: Option<u64>) -> Option<At<u64>> {
    let value = node.hidden_property("host-memory")?;
    said.map(|said| value.at(said))
}

/// Reports bodies that are larger than all that may be held: each of them would be refused, however little else is held.
fn report_never_held(node: &Node<'_>, body: At<u64>, most: At<u64>, is_shown: bool) {
    if body.value <= most.value {
        return;
    }
    let size = units::show_size(most.value);
    let message = format!("a body of {} is never held", units::show_size(body.value));
    let mut error = ConfigError::new(Code::Conflict, message).label(body.span, format!("more than {size}"));
    if is_shown {
        error = error.label(most.span, "all that the gateway holds together");
    }
    node.fail(error.help(format!(
        "write body=\"{size}\" or less, or allow as much with `host-memory=`"
    )));
}

/// Reports what bounds nothing, as the plugin itself has no more.
fn report_wider(node: &mut Node<'_>, plugin: &Limited, said: SaidLimits, budget: BudgetLimits) {
    fn wider<T: PartialOrd>(said: Option<T>, most: Option<T>, show: impl Fn(&T) -> String) -> Option<String> {
        let (said, most) = (said?, most?);
        (said >= most).then(|| show(&most))
    }
    let log = plugin
        .log
        .filter(|most| said.log.is_some_and(|said| !said.is_less_than(most)));
    let time = |time: &Duration| units::show_duration(*time);
    let size = |bytes: &u64| units::show_size(*bytes);
    for (key, most) in [
        ("cpu", wider(said.cpu, Some(plugin.limits.cpu), time)),
        ("memory", wider(said.memory, Some(plugin.limits.memory), size)),
        ("body", wider(said.body, Some(plugin.body), size)),
        ("log", log.map(|log| log.to_string())),
        (
            "instances",
            wider(budget.instances, plugin.budget.instances, u32::to_string),
        ),
        (
            "total-memory",
            wider(budget.memory_in_all, plugin.budget.memory_in_all, size),
        ),
        (
            "host-memory",
            wider(budget.host_memory, plugin.budget.host_memory, size),
        ),
        (
            "cpu-share",
            wider(budget.cpu, plugin.budget.cpu, |cores| format!("{cores} cores")),
        ),
    ] {
        if let (Some(most), Some(value)) = (most, node.hidden_property(key)) {
            let error = ConfigError::new(
                Code::Inert,
                format!("this plugin has at most {most} wherever it is used"),
            );
            let error = error.label(value.span(), "bounds nothing");
            node.fail(error.help("write less than that, or leave it out"));
        }
    }
}

/// CPU time of a call where a plugin says nothing of it.
pub(super) fn default_cpu(scope: &Scope<'_>, owner: Option<&Owner<'_>>, built_in: Option<BuiltIn>) -> Duration {
    let cpu = built_in.and_then(BuiltIn::cpu).unwrap_or(DEFAULT_PLUGIN_CPU);
    let of_tenant = owner.and_then(|owner| owner.limits.cpu);
    cpu.min(scope.process.policy.cpu).min(of_tenant.unwrap_or(cpu))
}

/// Linear memory of an instance, likewise.
pub(super) fn default_memory(scope: &Scope<'_>, owner: Option<&Owner<'_>>) -> u64 {
    let of_tenant = owner.and_then(|owner| owner.limits.memory);
    DEFAULT_PLUGIN_MEMORY
        .min(scope.process.policy.memory)
        .min(of_tenant.unwrap_or(DEFAULT_PLUGIN_MEMORY))
}

/// What one call and one instance may use: no more than the process gives, and the tenant whose plugin it is.
fn per_call(scope: &Scope<'_>, node: &mut Node<'_>, ceiling: Ceiling<'_>) -> SaidLimits {
    let pool = scope.process.policy;
    let cpu = node.property("cpu").and_then(|value| {
        let cpu = value.duration(CPU)?;
        if cpu > pool.cpu {
            let most = units::show_duration(pool.cpu);
            let message = format!("a call has at most {most} of CPU time in this process");
            let help = "ask for less here, or for more with `policy cpu=` in `process`";
            value.fail::<()>(message, "more than that", help);
        }
        within_tenant(&value, cpu, ceiling, |limits| limits.cpu, units::show_duration);
        Some(cpu)
    });
    let memory = node.property("memory").and_then(|value| {
        let memory = value.size(MEMORY)?;
        if memory > pool.memory {
            let most = units::show_size(pool.memory);
            let message = format!("an instance has at most {most} of memory in this process");
            let help = format!(
                "ask for less here, or for more with `policy memory=` in `process`: {}",
                units::show_size(memory)
            );
            value.fail::<()>(message, "more than that", help);
        }
        within_tenant(&value, memory, ceiling, |limits| limits.memory, units::show_size);
        Some(memory)
    });
    let body = node.property("body").and_then(|value| {
        let body = value.size(BODY)?;
        within_tenant(&value, body, ceiling, |limits| limits.body, units::show_size);
        Some(body)
    });
    SaidLimits {
        cpu,
        memory,
        body,
        log: None,
    }
}

/// Reports what a tenant does not give its plugins.
fn within_tenant<T: PartialOrd + Copy>(
    value: &Value<'_>,
    said: T,
    ceiling: Ceiling<'_>,
    limit: impl Fn(SaidLimits) -> Option<T>,
    show: impl Fn(T) -> String,
) {
    if let Some((tenant, limits)) = ceiling
        && let Some(most) = limit(limits).filter(|most| said > *most)
    {
        beyond(value, tenant, &show(most), "limit");
    }
}

fn beyond(value: &Value<'_>, tenant: &str, most: &str, node: &str) {
    let message = format!("a plugin of tenant {tenant:?} has at most {most}");
    let help = format!("ask for less here, or for more with `{node}` in the `tenant` block");
    value.fail::<()>(message, "more than that", help);
}

/// Whose plugin it is, and what it may have at most.
type Ceiling<'a> = Option<(&'a str, SaidLimits)>;

/// What a plugin of a tenant's may have: what the tenant gives. What a tenant's own file says of it goes no further than what holds
/// where nothing is said, unless the operator gives more.
fn ceiling(owner: &Owner<'_>, plugin: &Plugin) -> SaidLimits {
    let given = owner.limits;
    if plugin.folder.is_none() {
        return given;
    }
    SaidLimits {
        cpu: given.cpu.or(Some(plugin.limits.cpu)),
        memory: given.memory.or(Some(plugin.limits.memory)),
        body: given.body.or(Some(DEFAULT_MAX_BODY)),
        log: None,
    }
}

/// Reports what a tenant's own file wants to keep or write beyond the tenant's quota, or beyond what holds where neither says
/// anything.
fn state_within_quota(node: &mut Node<'_>, owner: &Owner<'_>, said: StateLimits) {
    let (quota, default) = (owner.kept, StateLimits::DEFAULT);
    let kv = quota.kv.unwrap_or(default.kv);
    let entries = quota.kv_entries.unwrap_or(default.kv_entries);
    let counters = quota.counters.unwrap_or(default.counters);
    let log = quota.log.unwrap_or(default.log);
    for (key, is_beyond, most) in [
        ("kv", said.kv > kv, units::show_size(kv)),
        ("kv-entries", said.kv_entries > entries, entries.to_string()),
        ("counters", said.counters > counters, counters.to_string()),
        (
            "log",
            log.is_less_than(&said.log) || said.log.burst > log.burst,
            log.to_string(),
        ),
    ] {
        if let Some(value) = node.hidden_property(key).filter(|_| is_beyond) {
            beyond(&value, owner.name, &most, "quota");
        }
    }
}

/// What all instances may use together.
fn budget(scope: &Scope<'_>, node: &mut Node<'_>) -> BudgetLimits {
    BudgetLimits {
        instances: node.property("instances").and_then(|value| instances(scope, &value)),
        memory_in_all: node.property("total-memory").and_then(|value| value.size(TOTAL_MEMORY)),
        host_memory: node.property("host-memory").and_then(|value| value.size(HOST_MEMORY)),
        cpu: node
            .property("cpu-share")
            .and_then(|value| value.cores())
            .map(Millicores),
    }
}

/// A number of instances, no more than the process has.
pub(super) fn instances(scope: &Scope<'_>, value: &Value<'_>) -> Option<u32> {
    let instances = u32::try_from(value.integer(INSTANCES)?).ok()?;
    let pool = scope.process.policy.instances;
    if instances > pool {
        return value.fail(
            format!("there are at most {pool} instances in this process"),
            "more than that",
            "ask for less here, or for more with `policy instances=` in `process`",
        );
    }
    Some(instances)
}

/// What it may keep in the host; of what it was not granted nothing is kept.
fn state_limits(node: &mut Node<'_>, grants: &[Grant], limits: &mut StateLimits) {
    let mut said = |name: &'static str, grant: (Grant, &str)| {
        let value = node.property(name)?;
        if !grants.contains(&grant.0) {
            let message = format!("`{name}` bounds what the plugin was not granted");
            let error = ConfigError::new(Code::Inert, message).label(value.span(), "bounds nothing");
            node.fail(error.help(format!("leave it out, or write grant \"{}\"", grant.1)));
        }
        Some(value)
    };
    if let Some(kv) = said("kv", (Grant::Kv, "kv")).and_then(|value| value.size(KV_BYTES)) {
        limits.kv = kv;
    }
    if let Some(entries) = said("kv-entries", (Grant::Kv, "kv")).and_then(|value| value.integer(ENTRIES)) {
        limits.kv_entries = entries;
    }
    if let Some(counters) = said("counters", (Grant::Counters, "counters")).and_then(|value| value.integer(ENTRIES)) {
        limits.counters = counters;
    }
    if let Some(rate) = said("log", (Grant::Log, "log")).and_then(|value| log_rate(&value)) {
        limits.log = rate;
    }
}

/// As `10/s`; ten times as many at once.
pub(super) fn log_rate(value: &Value<'_>) -> Option<LogRate> {
    let (lines, per) = match units::rate(value.text()?) {
        Ok(rate) => rate,
        Err(error) => return value.fail("the rate cannot be read", error.message, error.help),
    };
    if !LOG_LINES.contains(&lines) {
        let message = format!("a rate of lines is from {} to {}", LOG_LINES.start(), LOG_LINES.end());
        return value.fail(message, "out of range", units::RATE_HELP);
    }
    Some(LogRate {
        lines,
        per,
        burst: lines.saturating_mul(LOG_BURST),
    })
}

/// From one pair to what is a database's business.
pub(super) const KV_BYTES: RangeInclusive<u64> = 1 << 10..=4 << 30;
/// Pairs or counters, likewise.
pub(super) const ENTRIES: RangeInclusive<u64> = 1..=100_000_000;
/// Lines of a log in the time that is said.
const LOG_LINES: RangeInclusive<u64> = 1..=1_000_000;
/// Seconds' worth of lines that may come at once.
const LOG_BURST: u64 = 10;
/// Bytes that are copied into an instance at once: what comes back out of it is bounded at two MiB.
pub(super) const BODY: RangeInclusive<u64> = 1 << 10..=1 << 20;

/// A call takes microseconds; this is for the one that meets a page fault or a busy machine.
pub const DEFAULT_PLUGIN_CPU: Duration = Duration::from_millis(10);
/// What a plugin that parses and matches needs many times over; less when the process's pool has less.
pub const DEFAULT_PLUGIN_MEMORY: u64 = 16 << 20;

const INSTANCES: RangeInclusive<u64> = 1..=100_000;
pub(super) const TOTAL_MEMORY: RangeInclusive<u64> = 64 << 10..=1 << 40;
/// From one piece of a body that is streamed, likewise.
pub(super) const HOST_MEMORY: RangeInclusive<u64> = 64 << 10..=1 << 40;
/// The deadline is checked every millisecond; a worker that waits longer than ten seconds serves nobody.
pub(super) const CPU: RangeInclusive<Duration> = Duration::from_millis(1)..=MAX_CPU;
/// The most that a call of any plugin may take, where `policy cpu=` says no less.
pub(super) const MAX_CPU: Duration = Duration::from_secs(10);
const MEMORY: RangeInclusive<u64> = 64 << 10..=4 << 30;

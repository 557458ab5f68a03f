//! What a use of a plugin may use in the end: of what the plugin, the use, its tenant and the process say, the smallest. The
//! same is enforced and shown.

use std::time::Duration;

use super::lower::{DEFAULT_PLUGIN_CPU, DEFAULT_PLUGIN_MEMORY};
use super::model::{
    ComponentSource, Config, DEFAULT_MAX_BODY, Grant, KeptQuota, LogRate, Millicores, Plugin, PluginId, RuleQuota,
    StateLimits, Tenant, UsedPlugin,
};
use super::units;

/// A limit, and who set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit<T> {
    /// What holds.
    pub value: T,
    /// Whose word it is.
    pub by: Level,
}

/// Who sets a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nobody has said anything.
    Default,
    /// The plugin's block.
    Plugin,
    /// The `use-plugin`.
    Use,
    /// The plugin's tenant.
    Tenant,
    /// `process`.
    Process,
}

/// All limits of one use of a plugin. What is none has no bound of its own.
#[derive(Debug, Clone, Copy)]
pub struct EffectiveLimits {
    /// CPU time of a call.
    pub cpu: Limit<Duration>,
    /// CPU time in the long run.
    pub cpu_share: Option<Limit<Millicores>>,
    /// Linear memory of an instance, in bytes.
    pub memory: Limit<u64>,
    /// Linear memory of all instances.
    pub total_memory: Option<Limit<u64>>,
    /// Bytes of the gateway's own memory that are held for them.
    pub host_memory: Option<Limit<u64>>,
    /// Instances alive at once.
    pub instances: Limit<u32>,
    /// Bytes of a body that are held.
    pub body: Limit<u64>,
    /// Log lines; none where that was not granted.
    pub log: Option<Limit<LogRate>>,
    /// Bytes of key-value pairs, likewise.
    pub kv: Option<Limit<u64>>,
    /// Key-value pairs, likewise.
    pub kv_entries: Option<Limit<u64>>,
    /// Counters, likewise.
    pub counters: Option<Limit<u64>>,
}

impl EffectiveLimits {
    /// Those of a use of a plugin; of an acl's where there is no `use-plugin`.
    pub fn of(config: &Config, plugin: PluginId, used: Option<&UsedPlugin>) -> Self {
        let plugin = &config.plugins[plugin.0];
        let tenant = plugin.tenant.map(|id| &config.tenants[id.0]);
        let pool = config.process.policy;
        let (said, used, limits) = (plugin.said, used.copied(), tenant.map(|tenant| tenant.limits));
        let quota = tenant.map(|tenant| tenant.quota);
        let of_use = used.map(|used| used.limits);
        let budget = used.map(|used| used.budget);
        let kept = tenant.map(|tenant| tenant.kept).unwrap_or_default();
        let within = |grant, value, default, of_tenant| {
            let own = self::kept(plugin, grant, value, default);
            own.map(|limit| limit.or_less(of_tenant, Level::Tenant))
        };
        let share = pool_share(pool.instances);
        let memory = [
            (plugin.budget.memory_in_all, Level::Plugin),
            (budget.and_then(|budget| budget.memory_in_all), Level::Use),
            (quota.and_then(|quota| quota.memory_in_all), Level::Tenant),
            // Likewise, and nobody has more than there is.
            (
                Some(
                    match plugin.budget.memory_in_all.is_none()
                        || tenant.is_some_and(|tenant| tenant.quota.memory_in_all.is_none())
                    {
                        true => memory_share(pool.total_memory),
                        false => pool.total_memory,
                    },
                ),
                Level::Process,
            ),
        ];
        let host_memory = [
            (plugin.budget.host_memory, Level::Plugin),
            (budget.and_then(|budget| budget.host_memory), Level::Use),
            (quota.and_then(|quota| quota.host_memory), Level::Tenant),
            (
                Some(
                    match plugin.budget.host_memory.is_none()
                        || tenant.is_some_and(|tenant| tenant.quota.host_memory.is_none())
                    {
                        true => memory_share(pool.host_memory),
                        false => pool.host_memory,
                    },
                ),
                Level::Process,
            ),
        ];
        let instances = [
            (plugin.budget.instances, Level::Plugin),
            (budget.and_then(|budget| budget.instances), Level::Use),
            (quota.and_then(|quota| quota.instances), Level::Tenant),
            // Who has not said how many may have a part of what there is.
            (
                (plugin.budget.instances.is_none() || tenant.is_some_and(|tenant| tenant.quota.instances.is_none()))
                    .then_some(share),
                Level::Process,
            ),
        ];
        Self {
            cpu: Limit::own(said.cpu, default_cpu(plugin))
                .or_less(of_use.and_then(|limits| limits.cpu), Level::Use)
                .or_less(limits.and_then(|limits| limits.cpu), Level::Tenant)
                .or_less(Some(pool.cpu), Level::Process),
            cpu_share: smallest([
                (plugin.budget.cpu, Level::Plugin),
                (budget.and_then(|budget| budget.cpu), Level::Use),
                (quota.and_then(|quota| quota.cpu), Level::Tenant),
            ]),
            memory: Limit::own(said.memory, DEFAULT_PLUGIN_MEMORY)
                .or_less(of_use.and_then(|limits| limits.memory), Level::Use)
                .or_less(limits.and_then(|limits| limits.memory), Level::Tenant)
                .or_less(Some(pool.memory), Level::Process),
            total_memory: smallest(memory),
            host_memory: smallest(host_memory),
            instances: smallest(instances).unwrap_or(Limit {
                value: pool.instances,
                by: Level::Process,
            }),
            body: Limit::own(said.body, DEFAULT_MAX_BODY)
                .or_less(of_use.and_then(|limits| limits.body), Level::Use)
                .or_less(limits.and_then(|limits| limits.body), Level::Tenant),
            log: plugin
                .grants
                .contains(&Grant::Log)
                .then(|| log(plugin, used.as_ref(), kept)),
            kv: within(Grant::Kv, plugin.state.kv, StateLimits::DEFAULT.kv, kept.kv),
            kv_entries: within(
                Grant::Kv,
                plugin.state.kv_entries,
                StateLimits::DEFAULT.kv_entries,
                kept.kv_entries,
            ),
            counters: within(
                Grant::Counters,
                plugin.state.counters,
                StateLimits::DEFAULT.counters,
                kept.counters,
            ),
        }
    }

    /// Each by its word, with what it is and who set it, for people.
    pub fn rows(&self) -> Vec<(&'static str, String, Level)> {
        let mut rows = vec![("cpu", units::show_duration(self.cpu.value), self.cpu.by)];
        let mut add = |name, row: Option<(String, Level)>| rows.extend(row.map(|(value, by)| (name, value, by)));
        let size = |limit: Limit<u64>| (units::show_size(limit.value), limit.by);
        let count = |limit: Limit<u64>| (limit.value.to_string(), limit.by);
        let cores = |limit: Limit<Millicores>| (format!("{} cores", limit.value), limit.by);
        add("cpu-share", self.cpu_share.map(cores));
        add("memory", Some(size(self.memory)));
        add("total-memory", self.total_memory.map(size));
        add("host-memory", self.host_memory.map(size));
        let instances = (self.instances.value.to_string(), self.instances.by);
        add("instances", Some(instances));
        add("body", Some(size(self.body)));
        add("log", self.log.map(|limit| (limit.value.to_string(), limit.by)));
        add("kv", self.kv.map(size));
        add("kv-entries", self.kv_entries.map(count));
        add("counters", self.counters.map(count));
        rows
    }
}

/// All that a tenant is given, by its word in the tenant's block, with what it is and who set it, for people. What is not there has no bound.
pub fn quotas(config: &Config, tenant: &Tenant) -> Vec<(&'static str, String, Level)> {
    let pool = config.process.policy;
    let (limits, quota, kept, rules) = (tenant.limits, tenant.quota, tenant.kept, tenant.rule_quota);
    let given = |value: String| (value, Level::Tenant);
    let or_share = |said: Option<String>, share: String| said.map_or((share, Level::Process), given);
    let size = units::show_size;
    let number = |said: usize, default: usize| {
        let by = if said == default { Level::Default } else { Level::Tenant };
        Some((said.to_string(), by))
    };
    let compile = tenant.compile.map(|most| given(units::show_duration(most)));
    let of_files = || (units::show_duration(compile_share(pool.compile.cpu)), Level::Process);
    let machine_code = tenant.machine_code.map(size).map(given);
    let code_of_files = || (size(DEFAULT_MACHINE_CODE), Level::Default);
    let rows = [
        ("limit cpu", limits.cpu.map(units::show_duration).map(given)),
        ("limit memory", limits.memory.map(size).map(given)),
        ("limit body", limits.body.map(size).map(given)),
        ("plugin-cpu", quota.cpu.map(|cores| given(format!("{cores} cores")))),
        (
            "plugin-memory",
            Some(or_share(
                quota.memory_in_all.map(size),
                size(memory_share(pool.total_memory)),
            )),
        ),
        (
            "host-memory",
            Some(or_share(
                quota.host_memory.map(size),
                size(memory_share(pool.host_memory)),
            )),
        ),
        (
            "plugin-instances",
            Some(or_share(
                quota.instances.map(|instances| instances.to_string()),
                pool_share(pool.instances).to_string(),
            )),
        ),
        ("kv", kept.kv.map(size).map(given)),
        ("kv-entries", kept.kv_entries.map(|entries| given(entries.to_string()))),
        ("counters", kept.counters.map(|counters| given(counters.to_string()))),
        ("log", kept.log.map(|rate| given(rate.to_string()))),
        (
            "metric-series",
            kept.metric_series.map(|series| given(series.to_string())),
        ),
        (
            "requests",
            tenant.under_way.requests.map(|most| given(most.to_string())),
        ),
        (
            "connections",
            tenant.under_way.connections.map(|most| given(most.to_string())),
        ),
        // It bounds what the tenant's files name.
        ("compile-cpu", compile.or_else(|| tenant.has_files.then(of_files))),
        (
            "machine-code",
            machine_code.or_else(|| tenant.has_files.then(code_of_files)),
        ),
        ("acls", number(rules.acls, RuleQuota::DEFAULT.acls)),
        ("rules", number(rules.rules, RuleQuota::DEFAULT.rules)),
        ("patterns", number(rules.patterns, RuleQuota::DEFAULT.patterns)),
    ];
    let rows = rows.into_iter();
    rows.filter_map(|(name, row)| row.map(|(value, by)| (name, value, by)))
        .collect()
}

/// The limits of what the gateway itself brings for a tenant: what answers its acls, and makes its edits. As
/// [`EffectiveLimits::rows`].
pub fn of_own_components(config: &Config, tenant: &Tenant) -> Vec<(&'static str, String, Level)> {
    let memory = units::show_size(config.process.policy.memory);
    let mut rows = vec![
        ("cpu", units::show_duration(DEFAULT_PLUGIN_CPU), Level::Default),
        ("memory", memory, Level::Process),
    ];
    let of_all = [
        ("plugin-cpu", "cpu-share"),
        ("plugin-memory", "total-memory"),
        ("host-memory", "host-memory"),
        ("plugin-instances", "instances"),
    ];
    for (quota, value, by) in quotas(config, tenant) {
        rows.extend(
            of_all
                .iter()
                .find(|(name, _)| *name == quota)
                .map(|(_, name)| (*name, value, by)),
        );
    }
    rows
}

impl<T: PartialOrd> Limit<T> {
    /// What the plugin says, or else what holds where it says nothing.
    fn own(said: Option<T>, default: T) -> Self {
        match said {
            Some(value) => Self {
                value,
                by: Level::Plugin,
            },
            None => Self {
                value: default,
                by: Level::Default,
            },
        }
    }

    /// What somebody else says, where that is less.
    fn or_less(self, other: Option<T>, by: Level) -> Self {
        match other {
            Some(value) if value < self.value => Self { value, by },
            _ => self,
        }
    }
}

impl Level {
    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Plugin => "plugin",
            Self::Use => "use-plugin",
            Self::Tenant => "tenant",
            Self::Process => "process",
        }
    }
}

/// Instances that one plugin or one tenant may have of a pool of so many: a half. Less would refuse what a gateway with a
/// single plugin could serve; where several are to be kept apart in the same trouble, quotas say how.
pub const fn pool_share(instances: u32) -> u32 {
    match instances / 2 {
        0 => 1,
        half => half,
    }
}

/// Memory that one plugin or one tenant may have of so much, its instances' or the gateway's own: likewise.
pub const fn memory_share(total: u64) -> u64 {
    total / 2
}

/// CPU time that all components which a tenant's files name may take to compile and to be set up, where one may take so much: as many
/// components that take all that one may. One with an interpreter in it takes a quarter of that.
pub const fn compile_share(one: Duration) -> Duration {
    one.saturating_mul(5)
}

/// Bytes of machine code that all components which a tenant's files name may come to: as much as one may, or as ten that have an interpreter
/// in them. It stays in memory for as long as they are used.
pub const DEFAULT_MACHINE_CODE: u64 = 256 << 20;

fn smallest<T: PartialOrd, const N: usize>(limits: [(Option<T>, Level); N]) -> Option<Limit<T>> {
    limits
        .into_iter()
        .fold(None, |least: Option<Limit<T>>, (value, by)| match least {
            Some(least) => Some(least.or_less(value, by)),
            None => value.map(|value| Limit { value, by }),
        })
}

/// What holds where a plugin says nothing of it, whatever its tenant and the process say.
fn default_cpu(plugin: &Plugin) -> Duration {
    match plugin.component.value {
        ComponentSource::BuiltIn(built_in) => built_in.cpu().unwrap_or(DEFAULT_PLUGIN_CPU),
        ComponentSource::File(_) => DEFAULT_PLUGIN_CPU,
    }
}

fn log(plugin: &Plugin, used: Option<&UsedPlugin>, tenant: KeptQuota) -> Limit<LogRate> {
    let mut limit = match plugin.said.log {
        Some(value) => Limit {
            value,
            by: Level::Plugin,
        },
        None => Limit {
            value: LogRate::DEFAULT,
            by: Level::Default,
        },
    };
    let of_use = used.and_then(|used| used.limits.log);
    for (said, by) in [(of_use, Level::Use), (tenant.log, Level::Tenant)] {
        if let Some(value) = said.filter(|said| said.is_less_than(&limit.value)) {
            limit = Limit { value, by };
        }
    }
    limit
}

/// What the plugin may keep; nothing where it was not granted to.
fn kept(plugin: &Plugin, grant: Grant, value: u64, default: u64) -> Option<Limit<u64>> {
    let said = (value != default).then_some(value);
    plugin.grants.contains(&grant).then(|| Limit::own(said, default))
}

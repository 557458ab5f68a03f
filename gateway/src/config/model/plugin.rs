//! Third-party components.

use std::fmt;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use miette::SourceSpan;

use crate::config::diagnostics::Position;
use crate::config::units;

use super::{At, BackendId, ComponentSource, Mode, Origin, Places, PluginId, RuleQuota, TenantId, TenantRules};

/// `plugin "geo" "geo.wasm" { … }`, `plugin "browsers" builtin="cors" { … }`: a component that is attached by its name.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// Its name, unique among plugins.
    pub name: Arc<str>,
    /// Whose it is; none for the operator's own.
    pub tenant: Option<TenantId>,
    /// Where a tenant's file says it: what it names stays in this folder.
    pub folder: Option<Arc<Path>>,
    /// The backends that it may be led to and call at most; none for no such bound.
    pub backends: Option<Vec<BackendId>>,
    /// Its component, and where that is said.
    pub component: At<ComponentSource>,
    /// `sha256 "…"`: refused when the file has another digest.
    pub sha256: Option<At<[u8; 32]>>,
    /// `grant "log" "buckets"`: imports it may use beside the ones every plugin may.
    pub grants: Vec<Grant>,
    /// `limit cpu="10ms" memory="16MiB"`: what one call and one instance may use.
    pub limits: PluginLimits,
    /// `limit instances=64 total-memory="64MiB" host-memory="16MiB" cpu-share="0.5 cores"`: what all its instances may use together.
    pub budget: BudgetLimits,
    /// `isolation "per-request"`.
    pub isolation: Isolation,
    /// `quarantine failures=20 from="1s" to="1m"`.
    pub quarantine: QuarantineSettings,
    /// `heavy queue=64 wait="1s"`: it runs beside the workers.
    pub heavy: Option<Heavy>,
    /// `limit body="64KiB"`: bytes of a body that are held for it.
    pub max_body: Option<At<u64>>,
    /// What of these its block says itself.
    pub said: SaidLimits,
    /// `route-to "api"`: backends that it may route to beside those that its frontend uses, and where that is said; none where nothing is.
    pub route_to: At<Vec<BackendId>>,
    /// `call "auth" timeout="1s"`: backends that it may call.
    pub calls: Vec<PluginCall>,
    /// `limit kv="1MiB" kv-entries=10000 counters=10000 log="10/s"`.
    pub state: StateLimits,
    /// `on-failure "deny" status=503`, or `"skip"`. None only when it is attached nowhere that decides access.
    pub on_failure: Option<OnFailure>,
    /// `identity-header "x-user"`: fields by which it tells servers who somebody is, which clients do not write; likewise.
    pub identity_headers: At<Vec<http::HeaderName>>,
    /// The `config { … }` block as JSON; `{}` when there is none.
    pub config: String,
    /// `config-file "network" "blocked.txt"`: files whose text goes into it.
    pub config_files: Vec<ConfigFile>,
    /// Where what `config` says was written.
    pub config_places: Places,
    /// Where it stands.
    pub origin: Origin,
}

impl Plugin {
    /// Whether the workers call it however long that takes, as it is a component of the gateway's own and known how long that is. Of
    /// what a tenant's file makes of one, nobody knows.
    #[must_use]
    pub const fn stays_with_workers(&self) -> bool {
        let is_built_in = matches!(self.component.value, ComponentSource::BuiltIn(_));
        is_built_in && self.heavy.is_none() && self.folder.is_none()
    }
}

/// `config-file "network" "blocked.txt"`: what is too long for `config`, or is written by somebody else.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    /// What it is called in the configuration that the component gets.
    pub key: At<String>,
    /// The file.
    pub path: At<PathBuf>,
}

/// `call "auth" timeout="1s" in-flight=64 max-body="64KiB"`: a backend that a plugin may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginCall {
    /// The backend.
    pub backend: BackendId,
    /// How long a whole answer may take.
    pub timeout: Duration,
    /// Calls under way at once.
    pub in_flight: u32,
    /// Bytes of an answer's body.
    pub max_body: u64,
}

/// Bytes of a body that are held for a plugin which wants to see it whole, unless said otherwise: most forms and API calls.
pub const DEFAULT_MAX_BODY: u64 = 64 << 10;

/// `use-plugin "jwt-auth"`: a plugin that sees what passes through a frontend.
#[derive(Debug, Clone, Copy)]
pub struct UsedPlugin {
    /// Which, and where that is said.
    pub plugin: At<PluginId>,
    /// `canary="5%"`, or what a canary leaves: which part of the exchanges it sees.
    pub share: Share,
    /// `shadow`: it is asked and not obeyed.
    pub is_shadow: bool,
    /// `always`: its response filter is asked about what the gateway and other plugins answer, too, and where that is said.
    pub always: Option<SourceSpan>,
    /// `limit cpu="5ms"`: less than the plugin has in all.
    pub limits: SaidLimits,
    /// `limit instances=4`: what the instances of this use may use together.
    pub budget: BudgetLimits,
    /// `if="admin"`: the condition at this position of its tenant's [`TenantRules::uses`](super::TenantRules::uses).
    pub when: Option<u8>,
}

impl UsedPlugin {
    /// Whether it is the same plugin, used in the same way: one call does for both.
    pub fn is_as(&self, other: &Self) -> bool {
        let Self {
            plugin,
            share,
            is_shadow,
            always,
            limits,
            budget,
            when,
        } = self;
        plugin.value == other.plugin.value
            && (share, is_shadow, when) == (&other.share, &other.is_shadow, &other.when)
            && always.is_some() == other.always.is_some()
            && (limits, budget) == (&other.limits, &other.budget)
    }
}

/// A part of all exchanges: those whose lot falls into a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The first lot.
    pub from: u16,
    /// The first that is not in it any more.
    pub to: u16,
}

impl Share {
    /// How many lots there are: a share is said in hundredths of a percent.
    pub const WHOLE: u16 = 10_000;

    /// Whether it is all.
    pub const fn is_whole(self) -> bool {
        self.from == 0 && self.to == Self::WHOLE
    }

    /// Whether a lot falls into it.
    pub const fn has(self, lot: u16) -> bool {
        self.from <= lot && lot < self.to
    }
}

impl fmt::Display for Share {
    /// As `5%` or `0.05%`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lots = self.to.saturating_sub(self.from);
        let (whole, hundredths) = (lots / 100, lots % 100);
        let fraction = format!(".{hundredths:02}");
        write!(f, "{whole}{}%", fraction.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Default for Share {
    fn default() -> Self {
        let (from, to) = (0, Self::WHOLE);
        Self { from, to }
    }
}

/// `tenant "acme" { hosts "*.acme.example" … }`: whoever owns hosts, and has plugins that see what goes there.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// The name.
    pub name: Arc<str>,
    /// Host names and patterns, lower-case, that no other tenant has.
    pub hosts: Vec<String>,
    /// `trust` in its block: who has to have signed the components of its plugins, in place of those at the top of the file.
    pub trust: Vec<super::TrustedKey>,
    /// `quota plugin-cpu="1.5 cores" …`: what all its plugins may use together.
    pub quota: BudgetLimits,
    /// `quota kv="16MiB" …`: what all its plugins may keep and write together.
    pub kept: KeptQuota,
    /// `quota requests=1000 connections=500`: how much of it may be under way.
    pub under_way: UnderWayQuota,
    /// `quota compile-cpu="5m"`: CPU time that compiling what its files name may take in one load.
    pub compile: Option<Duration>,
    /// `quota machine-code="256MiB"`: bytes that it may come to.
    pub machine_code: Option<u64>,
    /// `quota acls=64 …`: how much of this there may be,
    pub rule_quota: RuleQuota,
    /// which is what it decides of requests for its hosts,
    pub rules: TenantRules,
    /// `connection { … }`: and of connections for them, in frontends of TCP mode.
    pub connections: TenantRules,
    /// `limit cpu="5ms"`: what each of its plugins may have at most.
    pub limits: SaidLimits,
    /// Whether it includes files.
    pub has_files: bool,
    /// Which of these hold.
    pub in_force: InForce,
    /// Why not those that lie there.
    pub faults: Vec<TenantFault>,
}

impl Tenant {
    /// What it decides in frontends of this mode.
    pub const fn decides(&self, mode: Mode) -> &TenantRules {
        match mode {
            Mode::Http => &self.rules,
            Mode::Tcp => &self.connections,
        }
    }

    /// What it decides, wherever.
    pub fn all_rules(&self) -> impl Iterator<Item = &TenantRules> {
        [&self.rules, &self.connections].into_iter()
    }
}

/// Which files of a tenant hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InForce {
    /// Those that lie there.
    #[default]
    Current,
    /// Those of the configuration before: with these there is something wrong.
    Before,
    /// None: there were none before, or the operator does not allow them any more. The tenant's hosts are not served.
    Nothing,
}

/// What is wrong with a tenant's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantFault {
    /// The file.
    pub file: Arc<str>,
    /// Where in it; nowhere when it cannot be read.
    pub position: Option<Position>,
    /// What.
    pub message: String,
}

impl TenantFault {
    /// `auth.kdl:3:1`, as far as it is known.
    pub fn place(&self) -> String {
        match self.position {
            Some(Position { line, column }) => format!("{}:{line}:{column}", self.file),
            None => self.file.to_string(),
        }
    }
}

impl InForce {
    /// One word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Before => "before",
            Self::Nothing => "closed",
        }
    }
}

/// What all plugins of a tenant may keep in the host and write together; what is none has no bound of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptQuota {
    /// Bytes of key-value pairs.
    pub kv: Option<u64>,
    /// Key-value pairs.
    pub kv_entries: Option<u64>,
    /// Counters that are not 0.
    pub counters: Option<u64>,
    /// Log lines.
    pub log: Option<LogRate>,
    /// Numbers that are kept of the metrics which they declare.
    pub metric_series: Option<u64>,
}

/// How much of a tenant's may be under way at once, over all frontends and workers; what is none has no bound of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnderWayQuota {
    /// Requests for its hosts, in HTTP mode.
    pub requests: Option<u32>,
    /// Connections for its hosts, in TCP mode.
    pub connections: Option<u32>,
}

/// An import that has to be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grant {
    /// `gateway:policy/buckets`.
    Buckets,
    /// `gateway:policy/log`.
    Log,
    /// `gateway:policy/clock`.
    Clock,
    /// `gateway:policy/counters`.
    Counters,
    /// `gateway:policy/kv`.
    Kv,
    /// `gateway:policy/metrics`.
    Metrics,
    /// `gateway:policy/random`.
    Random,
}

/// What a plugin may keep in the host and write into the log, all its uses together but for the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateLimits {
    /// Bytes of key-value pairs: keys, values and what each pair takes up beside them.
    pub kv: u64,
    /// Key-value pairs.
    pub kv_entries: u64,
    /// Counters that are not 0.
    pub counters: u64,
    /// Log lines of one use of the plugin.
    pub log: LogRate,
}

impl StateLimits {
    /// What is there unless said otherwise: a table of sessions or of clients that fits a small machine a hundred times over.
    pub const DEFAULT: Self = Self {
        kv: 4 << 20,
        kv_entries: 10_000,
        counters: 10_000,
        log: LogRate::DEFAULT,
    };
}

/// Log lines in a time; those beyond are counted and left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRate {
    /// So many, at least 1,
    pub lines: u64,
    /// in so long,
    pub per: Duration,
    /// and so many at once from rest.
    pub burst: u64,
}

impl LogRate {
    /// Enough to understand a failure, too few to fill a disk.
    pub const DEFAULT: Self = Self {
        lines: 10,
        per: Duration::from_secs(1),
        burst: 100,
    };

    /// Of what changes about a plugin: seldom, but for one that makes it change.
    pub const OF_CHANGES: Self = Self {
        lines: 1,
        per: Duration::from_secs(10),
        burst: 10,
    };
}

/// What one call of a plugin may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginLimits {
    /// CPU time of a call, enforced to the millisecond.
    pub cpu: Duration,
    /// Linear memory of an instance, in bytes.
    pub memory: u64,
}

/// Limits as one place says them: a plugin, a use of one, or a tenant for all of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SaidLimits {
    /// CPU time of a call.
    pub cpu: Option<Duration>,
    /// Linear memory of an instance, in bytes.
    pub memory: Option<u64>,
    /// Bytes of a body that are held.
    pub body: Option<u64>,
    /// Log lines of one use.
    pub log: Option<LogRate>,
}

/// What some instances may use together; what is none has no bound of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Instances alive at once, over all workers.
    pub instances: Option<u32>,
    /// Linear memory of all of them, in bytes.
    pub memory_in_all: Option<u64>,
    /// Bytes of the gateway's own memory that are held for them.
    pub host_memory: Option<u64>,
    /// CPU time of their calls.
    pub cpu: Option<Millicores>,
}

/// Thousandths of a CPU's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millicores(pub u32);

/// Who sees what an instance remembers of earlier calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// The phases of one exchange, and nothing else.
    PerRequest {
        /// Instances that a worker has ready ahead of need at most.
        ready: usize,
    },
    /// The requests of one client connection.
    PerConnection {
        /// Likewise.
        ready: usize,
    },
    /// All requests that this use of the plugin sees on one worker.
    Reuse {
        /// After so many requests another instance takes over.
        max_requests: Option<NonZeroU64>,
        /// And after so long, counted from its first request.
        max_age: Option<Duration>,
    },
}

impl Isolation {
    /// One instance for as long as it works: for the gateway's own components.
    pub const FOREVER: Self = Self::Reuse {
        max_requests: None,
        max_age: None,
    };
}

/// How many calls of a plugin may wait for being made beside the workers, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heavy {
    /// Calls that wait at once, of each use of the plugin.
    pub queue: usize,
    /// How long each may wait before it begins.
    pub wait: Duration,
}

impl Heavy {
    /// At ten milliseconds a call, one thread makes more calls in that time than wait here: who waits behind more would wait
    /// for nothing. A client waits meanwhile.
    pub const DEFAULT: Self = Self {
        queue: 64,
        wait: Duration::from_secs(1),
    };
}

/// When a plugin is left alone that does nothing but fail, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineSettings {
    /// After so many failures in a row.
    pub failures: u32,
    /// For this long at first.
    pub from: Duration,
    /// And twice as long after each probe that fails, up to this.
    pub to: Duration,
}

impl QuarantineSettings {
    /// Twenty failures with no success among them are no accident, and were bearable. From a second, for the plugin whose trouble
    /// is short; to a minute, for whoever has mended his does not want to wait.
    pub const DEFAULT: Self = Self {
        failures: 20,
        from: Duration::from_secs(1),
        to: Duration::from_secs(60),
    };
}

impl LogRate {
    /// Whether it lets fewer lines through in the long run.
    pub const fn is_less_than(&self, other: &Self) -> bool {
        (self.lines as u128) * other.per.as_nanos() < (other.lines as u128) * self.per.as_nanos()
    }
}

impl fmt::Display for LogRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = units::show_duration(self.per);
        write!(
            f,
            "{}/{}",
            self.lines,
            per.strip_prefix('1')
                .filter(|unit| !unit.starts_with(|c: char| c.is_ascii_digit()))
                .unwrap_or(&per)
        )
    }
}

impl fmt::Display for Millicores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, thousandths) = (self.0 / 1000, self.0 % 1000);
        if thousandths == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{thousandths:03}");
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

/// What an exchange gets when a plugin fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// This status, 400 to 599; in TCP mode the connection is closed.
    Deny(u16),
    /// It goes on as if the plugin were not there; a predicate reads false.
    Skip,
}

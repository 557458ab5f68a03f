//! `tenant "acme" { hosts "*.acme.example"; … }`: whoever owns hosts, and what their plugins may use. What it decides is read by
//! `tenant_rules`.

use std::ops::RangeInclusive;
use std::time::Duration;

use miette::SourceSpan;

use super::plugin::{self, Owner};
use super::plugin_limits::{self, ENTRIES, HOST_MEMORY, KV_BYTES, TOTAL_MEMORY};
use super::tenant_rules::{self, Read, ReadRules, Said};
use super::used_plugins::MAX_PLUGINS;
use super::{Scope, acl, elsewhere, plain_name};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    BackendId, BudgetLimits, Frontend, InForce, KeptQuota, Millicores, Mode, Plugin, RuleQuota, Tenant, TenantId,
    TenantRules, UnderWayQuota, UsedPlugin,
};
use crate::config::reader::{At, Block, Node, said_twice};

/// What frontends have to know of a tenant.
pub(super) struct Known {
    uses: Vec<Option<UsedPlugin>>,
    /// Those in `connection { … }`.
    uses_of_connections: Vec<Option<UsedPlugin>>,
    /// Where its block, not its files, says what is for HTTP mode alone, and for TCP mode alone; and the word.
    only_in: [Option<(String, SourceSpan)>; 2],
    /// Whether it includes files: what has a use only by these has one, whatever stands in them now.
    pub(super) has_files: bool,
    /// The backends that its rules lead to, and that its files may lead to at most.
    pub(super) reached: Vec<BackendId>,
    /// Where its block asks for the number of a request.
    pub(super) request_id: Option<SourceSpan>,
}

/// `quota …`
struct Quota {
    budget: BudgetLimits,
    /// Where that has what the gateway holds.
    host_memory: Option<At<u64>>,
    kept: KeptQuota,
    under_way: UnderWayQuota,
    /// Where it has something that is for HTTP mode alone, and for TCP mode alone; and the word.
    only_in: [Option<(String, SourceSpan)>; 2],
    compile: Option<Duration>,
    machine_code: Option<u64>,
    rules: RuleQuota,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            budget: BudgetLimits::default(),
            host_memory: None,
            kept: KeptQuota::default(),
            under_way: UnderWayQuota::default(),
            only_in: [None, None],
            compile: None,
            machine_code: None,
            rules: RuleQuota::DEFAULT,
        }
    }
}

/// Hosts that have an owner.
#[derive(Default)]
pub(super) struct Owned(Vec<(At<String>, TenantId)>);

/// Reads a tenant and makes it known; its plugins come behind those that were read before.
pub(super) fn tenant(
    scope: &mut Scope<'_>,
    mut node: Node<'_>,
    id: TenantId,
    plugins: &mut Vec<Option<Plugin>>,
) -> Option<Tenant> {
    let span = node.span();
    let name = plain_name(&mut node, "the tenant's name");
    let block = node.required_block();
    node.finish();
    let (name, mut block) = match (name, block) {
        (Some(name), Some(block)) => (name, block),
        (name, _) => {
            let known = Known {
                uses: Vec::new(),
                uses_of_connections: Vec::new(),
                only_in: [None, None],
                has_files: true,
                reached: Vec::new(),
                request_id: None,
            };
            match name {
                Some(name) => scope.tenants.add(scope.ctx, name, known),
                None => scope.tenants.skip(span, known),
            }
            return None;
        }
    };
    let limits = block.one("limit").map(|node| plugin_limits::of_tenant(scope, node));
    let hosts = block.one("hosts");
    if hosts.is_none() {
        let error = ConfigError::new(Code::Missing, "this tenant owns no host");
        let error = error.label(span, "its plugins would see nothing");
        scope
            .ctx
            .report(error.help("write hosts \"www.acme.example\" \"*.acme.example\""));
    }
    // Of the block alone: who writes files for it does not say whom to trust.
    let trust = super::trust::trust(block.many("trust"));
    let hosts = hosts.map(|node| hosts_of(scope, node, id));
    let quota = block.one("quota").map(|node| quota(scope, node)).unwrap_or_default();
    let owner = Owner {
        name: name.value,
        id,
        limits: limits.unwrap_or_default(),
        kept: quota.kept,
        host_memory: quota.host_memory,
        grants: block.one("grant").map(|node| plugin::grants(node, None)),
        backends: block.one("backends").map(|node| plugin::backends(scope, node, None)),
    };
    let mut own = Said::of(&mut block);
    let mut only_in = MODES.map(|mode| own.only_in(mode).map(|(name, span)| (name.to_owned(), span)));
    for (said, of_quota) in only_in.iter_mut().zip(quota.only_in) {
        *said = said.take().or(of_quota);
    }
    let includes = block.many("include");
    let has_files = !includes.is_empty();
    let mut on_error = None;
    let mut is_whole = true;
    let mut of_files = Said::default();
    for node in includes {
        let (said, all) = included(scope, node, &mut on_error);
        of_files.add(said);
        is_whole &= all;
    }
    block.finish(elsewhere);
    let mut declared = std::mem::take(&mut own.plugins);
    let own_names: Vec<String> = match has_files {
        true => declared
            .iter()
            .filter_map(|node| Some(owner.full(node.first_text()?)))
            .collect(),
        false => Vec::new(),
    };
    declared.append(&mut of_files.plugins);
    if let Some(node) = declared.get(MAX_PLUGINS) {
        let error = ConfigError::new(Code::Value, format!("a tenant has at most {MAX_PLUGINS} plugins"));
        let error = error.label(node.span(), "one too many");
        scope
            .ctx
            .report(error.help("have fewer: every request for the tenant's hosts meets them all"));
    }
    for node in declared.into_iter().take(MAX_PLUGINS) {
        plugins.push(plugin::plugin(scope, node, Some(&owner)));
    }
    // Files may use what stands in the block, today or tomorrow.
    own_names.iter().for_each(|name| scope.plugins.use_it(name));
    let Read {
        of_requests: ReadRules { uses, rules },
        of_connections: ReadRules {
            uses: uses_of_connections,
            rules: connections,
        },
        request_id,
    } = if is_whole {
        tenant_rules::read(scope, &owner, (own, of_files), has_files, quota.rules)
    } else {
        // What is missing may stand in a file that could not be read, which has been reported.
        scope.plugins.miss();
        Read::nothing()
    };
    let well = uses.iter().chain(&uses_of_connections).all(Option::is_some);
    let mut reached = owner.backends.clone().filter(|_| has_files).unwrap_or_default();
    let decided = rules.iter().chain(&connections);
    reached.extend(decided.flat_map(TenantRules::backends).map(|(id, _)| id));
    let known = Known {
        uses,
        uses_of_connections,
        only_in,
        has_files,
        reached,
        request_id,
    };
    scope.tenants.add(scope.ctx, name, known);
    let (trust, rules, connections) = (trust?, rules?, connections?);
    (hosts.is_some() && well).then(|| Tenant {
        name: name.value.into(),
        trust,
        hosts: hosts.unwrap_or_default(),
        quota: quota.budget,
        kept: quota.kept,
        under_way: quota.under_way,
        compile: quota.compile,
        machine_code: quota.machine_code,
        rule_quota: quota.rules,
        rules,
        connections,
        limits: owner.limits,
        has_files,
        in_force: InForce::default(),
        faults: Vec::new(),
    })
}

/// `include "tenants/acme/*.kdl" on-error="keep"`: what its files say, in their order, and whether all of them could be read. What
/// becomes of faults in them has been seen to by whoever has read them.
fn included<'a>(scope: &Scope<'a>, mut node: Node<'a>, on_error: &mut Option<At<&'static str>>) -> (Said<'a>, bool) {
    let at = node.span();
    if let Some(value) = node.property("on-error")
        && let Some(word) = value.choice(ON_ERROR)
    {
        match on_error {
            Some(first) if first.value != word => {
                let error = ConfigError::new(Code::Conflict, "the files of a tenant are taken together");
                let error = error
                    .label(value.span(), "not as it is said before")
                    .label(first.span, "said here");
                node.fail(error.help("say the same at each `include` of a tenant, or say it once"));
            }
            _ => *on_error = Some(value.at(word)),
        }
    }
    for value in node.some_arguments("a file, or files by a pattern") {
        // The texts have been looked at when the files were read.
        let _ = value.text();
    }
    node.finish();
    let mut said = Said::default();
    let mut is_whole = true;
    for inclusion in scope.ctx.included(at) {
        is_whole &= inclusion.is_whole;
        for document in &inclusion.documents {
            let mut block = Block::new(scope.ctx, "a tenant's file".to_owned(), document);
            said.add(Said::of(&mut block));
            block.finish(|name| Some(not_in_files(name)));
        }
    }
    (said, is_whole)
}

/// Why a tenant's file does not say this.
fn not_in_files(name: &str) -> &'static str {
    match name {
        "include" => "a tenant's file includes nothing: let the operator include the other one, too",
        _ => {
            "a tenant's file says `plugin`, `use-plugin`, `acl`, `deny`, `redirect`, `return`, `use-backend`, `request`, `response` and `connection`; the rest is the operator's"
        }
    }
}

/// `tenants "acme" "rival"` in a frontend of this mode: who they are, and the uses of their plugins.
pub(super) fn named(scope: &Scope<'_>, mode: Mode, mut node: Node<'_>) -> (Vec<TenantId>, Vec<Option<UsedPlugin>>) {
    let mut named: Vec<At<usize>> = Vec::new();
    let mut plugins = Vec::new();
    for value in node.some_arguments("a tenant's name") {
        let Some(position) = scope.tenants.refer(&value) else {
            plugins.push(None);
            continue;
        };
        if let Some(first) = named.iter().find(|first| first.value == position) {
            node.fail(said_twice("this tenant", first.span, value.span()));
            continue;
        }
        named.push(value.at(position));
        let Some((known, _)) = scope.tenants.get(position) else {
            continue;
        };
        plugins.extend(match mode {
            Mode::Http => known.uses.iter().copied(),
            Mode::Tcp => known.uses_of_connections.iter().copied(),
        });
    }
    node.finish();
    let tenants = named.into_iter().map(|tenant| TenantId(tenant.value));
    (tenants.collect(), plugins)
}

/// Reports what a tenant's block says for frontends of a mode that none has which names it. What its files say may be for tomorrow.
pub(super) fn report_inert(scope: &Scope<'_>, frontends: &[Frontend]) {
    let count = scope.tenants.len();
    for (position, (known, _)) in (0..count).filter_map(|position| Some((position, scope.tenants.get(position)?))) {
        let naming = || {
            frontends
                .iter()
                .filter(|frontend| frontend.tenants.contains(&TenantId(position)))
        };
        // One that nobody names has been reported.
        if naming().next().is_none() {
            continue;
        }
        for (mode, said) in MODES.into_iter().zip(&known.only_in) {
            let Some((name, span)) = said else { continue };
            if naming().any(|frontend| frontend.mode == mode) {
                continue;
            }
            let (word, help) = match mode {
                Mode::Http if name.starts_with("quota") => (
                    "HTTP",
                    "name the tenant in a frontend in HTTP mode, write `connections=` for those in TCP mode, or leave it out",
                ),
                Mode::Http => (
                    "HTTP",
                    "name the tenant in a frontend in HTTP mode, write it in `connection { … }` for those in TCP mode, or leave it out",
                ),
                Mode::Tcp => (
                    "TCP",
                    "name the tenant in a frontend with mode \"tcp\", or leave it out",
                ),
            };
            let message = format!("`{name}` does nothing: no frontend in {word} mode names this tenant");
            let error = ConfigError::new(Code::Inert, message).label(*span, "is asked nowhere");
            scope.ctx.report(error.help(help));
        }
    }
}

fn hosts_of(scope: &mut Scope<'_>, mut node: Node<'_>, id: TenantId) -> Vec<String> {
    let mut hosts = Vec::new();
    for value in node.some_arguments("a host") {
        let Some(host) = acl::host(&value) else { continue };
        scope.owned.take(scope.ctx, value.at(host.clone()), id);
        hosts.push(host);
    }
    node.finish();
    hosts
}

impl Owned {
    /// Makes a tenant the owner of a host; one that another tenant owns, wholly or in part, is reported.
    fn take(&mut self, ctx: &crate::config::reader::Context<'_>, host: At<String>, id: TenantId) {
        let other = self.0.iter().find(|(owned, owner)| match *owner == id {
            true => owned.value == host.value,
            false => overlap(&owned.value, &host.value),
        });
        if let Some((owned, owner)) = other {
            ctx.report(match *owner == id {
                true => said_twice("this host", owned.span, host.span),
                false => two_owners(owned.span, host.span),
            });
        }
        self.0.push((host, id));
    }
}

fn two_owners(first: SourceSpan, again: SourceSpan) -> ConfigError {
    ConfigError::new(Code::Conflict, "two tenants own the same host")
        .label(again, "owned by another tenant")
        .label(first, "which says so here")
        .help("give each host to one of them")
}

/// Whether there is a host that both patterns mean.
fn overlap(one: &str, other: &str) -> bool {
    let means = |pattern: &str, host: &str| match pattern.strip_prefix('*') {
        // Of two patterns, the longer one means fewer.
        Some(end) => host.strip_prefix('*').unwrap_or(host).ends_with(end) && host != &end[1..],
        None => pattern == host,
    };
    means(one, other) || means(other, one)
}

/// `quota plugin-cpu="1.5 cores" plugin-memory="256MiB" plugin-instances=200 host-memory="64MiB" kv="16MiB" log="100/s" compile-cpu="5m" acls=64`.
fn quota(scope: &Scope<'_>, mut node: Node<'_>) -> Quota {
    node.require_entries();
    let cpu = node.property("plugin-cpu").and_then(|value| value.cores());
    let memory = node
        .property("plugin-memory")
        .and_then(|value| value.size(TOTAL_MEMORY));
    let instances = node
        .property("plugin-instances")
        .and_then(|value| plugin_limits::instances(scope, &value));
    let host_memory = node
        .property("host-memory")
        .and_then(|value| Some(value.at(value.size(HOST_MEMORY)?)));
    let budget = BudgetLimits {
        instances,
        memory_in_all: memory,
        host_memory: host_memory.map(|most| most.value),
        cpu: cpu.map(Millicores),
    };
    let kept = KeptQuota {
        kv: node.property("kv").and_then(|value| value.size(KV_BYTES)),
        kv_entries: node.property("kv-entries").and_then(|value| value.integer(ENTRIES)),
        counters: node.property("counters").and_then(|value| value.integer(ENTRIES)),
        log: node.property("log").and_then(|value| plugin_limits::log_rate(&value)),
        metric_series: node
            .property("metric-series")
            .and_then(|value| value.integer(METRIC_SERIES)),
    };
    let mut only_in = [None, None];
    let mut under_way = |property: &'static str, said: &mut Option<(String, SourceSpan)>| {
        let value = node.property(property)?;
        *said = Some((format!("quota {property}="), value.span()));
        u32::try_from(value.integer(UNDER_WAY)?).ok()
    };
    let [in_http, in_tcp] = &mut only_in;
    let under_way = UnderWayQuota {
        requests: under_way("requests", in_http),
        connections: under_way("connections", in_tcp),
    };
    let compile = node
        .property("compile-cpu")
        .and_then(|value| value.duration(COMPILE_CPU));
    let machine_code = node.property("machine-code").and_then(|value| value.size(MACHINE_CODE));
    let rules = tenant_rules::quota(&mut node);
    node.finish();
    Quota {
        budget,
        host_memory,
        kept,
        under_way,
        only_in,
        compile,
        machine_code,
        rules,
    }
}

/// In this order things are kept by mode.
const MODES: [Mode; 2] = [Mode::Http, Mode::Tcp];

/// What becomes of the rest when files of a tenant are at fault. Whoever includes files lets somebody else write them: unless he says
/// otherwise, nobody but that tenant feels what is wrong with them.
const ON_ERROR: &[(&str, &str)] = &[("keep", "keep"), ("refuse", "refuse")];

/// From what the smallest component takes to more than anybody waits for.
const COMPILE_CPU: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// From what the smallest component comes to to more than a machine has.
const MACHINE_CODE: RangeInclusive<u64> = 64 << 10..=1 << 40;
/// From one to more than a process can have.
const UNDER_WAY: RangeInclusive<u64> = 1..=1_000_000;
/// From one counter to what a scrape can still carry of one tenant.
const METRIC_SERIES: RangeInclusive<u64> = 1..=1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_overlap_where_one_host_is_both() {
        for (one, other) in [
            ("a.example", "a.example"),
            ("*.a.example", "b.a.example"),
            ("*.a.example", "*.a.example"),
            ("*.a.example", "*.b.a.example"),
            ("*.a.example", "x.y.a.example"),
        ] {
            assert!(overlap(one, other) && overlap(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("a.example", "b.example"),
            ("*.a.example", "a.example"),
            ("*.a.example", "*.b.example"),
            ("*.a.example", "ba.example"),
        ] {
            assert!(!overlap(one, other) && !overlap(other, one), "{one} {other}");
        }
    }
}

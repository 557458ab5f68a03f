//! `tenant "acme" { hosts "*.acme.example"; … }`: whoever owns hosts, and what their plugins may use.

use std::ops::RangeInclusive;

use miette::SourceSpan;

use super::plugin::{self, Owner};
use super::plugin_limits::{self, ENTRIES, KV_BYTES, TOTAL_MEMORY};
use super::used_plugins::used_plugins;
use super::{Scope, acl, elsewhere, section_name};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{BudgetLimits, KeptQuota, Millicores, Plugin, Tenant, TenantId, UsedPlugin};
use crate::config::reader::{At, Node, said_twice};

/// What frontends have to know of a tenant.
pub(super) struct Known {
    uses: Vec<Option<UsedPlugin>>,
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
    let name = section_name(&mut node, "the tenant's name");
    let block = node.required_block();
    node.finish();
    let (name, mut block) = match (name, block) {
        (Some(name), Some(block)) => (name, block),
        (name, _) => {
            let known = Known { uses: Vec::new() };
            match name {
                Some(name) => scope.tenants.add(scope.ctx, name, known),
                None => scope.tenants.skip(span, known),
            }
            return None;
        }
    };
    let limits = block.one("limit").map(|node| plugin_limits::of_tenant(scope, node));
    let owner = Owner {
        name: name.value,
        id,
        limits: limits.unwrap_or_default(),
    };
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
    let (quota, kept) = block.one("quota").map(|node| quota(scope, node)).unwrap_or_default();
    for node in block.many("plugin") {
        plugins.push(plugin::plugin(scope, node, Some(&owner)));
    }
    let uses = used_plugins(scope, block.many("use-plugin"), Some(&owner));
    block.finish(elsewhere);
    let well = uses.iter().all(Option::is_some);
    scope.tenants.add(scope.ctx, name, Known { uses });
    let trust = trust?;
    (hosts.is_some() && well).then(|| Tenant {
        name: name.value.into(),
        trust,
        hosts: hosts.unwrap_or_default(),
        quota,
        kept,
        limits: owner.limits,
    })
}

/// `tenants "acme" "rival"` in a frontend: who they are, and the uses of their plugins.
pub(super) fn named(scope: &Scope<'_>, mut node: Node<'_>) -> (Vec<TenantId>, Vec<Option<UsedPlugin>>) {
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
        plugins.extend(known.uses.iter().copied());
    }
    node.finish();
    let tenants = named.into_iter().map(|tenant| TenantId(tenant.value));
    (tenants.collect(), plugins)
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

/// `quota plugin-cpu="1.5 cores" plugin-memory="256MiB" plugin-instances=200 kv="16MiB" log="100/s"`.
fn quota(scope: &Scope<'_>, mut node: Node<'_>) -> (BudgetLimits, KeptQuota) {
    node.require_entries();
    let cpu = node.property("plugin-cpu").and_then(|value| value.cores());
    let memory = node
        .property("plugin-memory")
        .and_then(|value| value.size(TOTAL_MEMORY));
    let instances = node
        .property("plugin-instances")
        .and_then(|value| plugin_limits::instances(scope, &value));
    let budget = BudgetLimits {
        instances,
        memory_in_all: memory,
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
    node.finish();
    (budget, kept)
}

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

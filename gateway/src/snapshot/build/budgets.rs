//! What the plugins of a configuration, and those of its tenants, may use together.

use std::sync::Arc;

use crate::config::{self, BudgetLimits};
use crate::policy::{Budget, Host, Tenant};
use crate::snapshot::{Snapshot, UnderWay};

/// What the instances of a plugin may use together. The CPU time that those of its name have used before a reload counts.
pub(super) fn plugin(
    plugin: &config::Plugin,
    tenants: &[(Arc<Tenant>, Arc<Budget>)],
    host: &Host,
    previous: Option<&Snapshot>,
) -> Arc<Budget> {
    let whose = format!("plugin {:?}", plugin.name);
    let before = before(previous, &whose);
    let outer = plugin.tenant.map_or_else(|| host.budget(), |id| &tenants[id.0].1);
    Budget::after(before, &whose, bounded(plugin.budget, host), Some(Arc::clone(outer)))
}

/// A tenant, and what its plugins may use together. Likewise.
pub(super) fn tenant(tenant: &config::Tenant, host: &Host, previous: Option<&Snapshot>) -> (Arc<Tenant>, Arc<Budget>) {
    let whose = format!("tenant {:?}", tenant.name);
    let process = Some(Arc::clone(host.budget()));
    let budget = Budget::after(before(previous, &whose), &whose, bounded(tenant.quota, host), process);
    let tenant = Tenant {
        name: tenant.name.clone(),
        hosts: tenant.hosts.clone(),
        kept: tenant.kept,
        quota: host.quota(&tenant.name, tenant.kept),
    };
    (Arc::new(tenant), budget)
}

/// How much of a tenant's may be under way. What is under way since before a reload counts.
pub(super) fn under_way(tenant: &config::Tenant, known: &Tenant) -> UnderWay {
    UnderWay {
        requests: known.quota.requests(tenant.under_way.requests),
        connections: known.quota.connections(tenant.under_way.connections),
    }
}

/// What the instances of one use of a plugin may use together, within what the plugin's may. Likewise.
pub(super) fn of_use(
    used: &config::UsedPlugin,
    (plugin, budget): (&str, &Arc<Budget>),
    place: &str,
    previous: Option<&Snapshot>,
) -> Arc<Budget> {
    if used.budget == BudgetLimits::default() {
        return Arc::clone(budget);
    }
    let whose = whose(used, plugin, place);
    Budget::after(before(previous, &whose), &whose, used.budget, Some(Arc::clone(budget)))
}

/// What a use is called. One acl may ask the same plugin in earnest and on trial.
pub(super) fn whose(used: &config::UsedPlugin, plugin: &str, place: &str) -> String {
    let what = match (used.is_shadow, used.share.is_whole() || used.share.from > 0) {
        (true, _) => "the shadow",
        (false, true) => "the use",
        (false, false) => "the canary",
    };
    format!("{what} of plugin {plugin:?} in {place}")
}

/// What somebody's instances might use together before.
fn before<'a>(previous: Option<&'a Snapshot>, whose: &str) -> Option<&'a Budget> {
    let attached = previous.into_iter().flat_map(|previous| &previous.attachments);
    let of_uses = attached.flat_map(|attached| attached.budget().row());
    let declared = previous.into_iter().flat_map(|previous| &previous.budgets);
    let mut budgets = of_uses.chain(declared.map(|budget| &**budget));
    budgets.find(|budget| budget.whose() == whose)
}

/// Limits with what holds where nothing is said: nobody alone fills the pool that all instances come from, or has all memory that
/// there is for them and for what they answer with, though its requests wait ever so long for a server or its clients take nothing.
pub(super) fn bounded(limits: BudgetLimits, host: &Host) -> BudgetLimits {
    let share = config::pool_share(host.settings().instances);
    BudgetLimits {
        instances: limits.instances.or(Some(share)),
        memory_in_all: limits
            .memory_in_all
            .or(Some(config::memory_share(host.settings().total_memory))),
        host_memory: limits
            .host_memory
            .or(Some(config::memory_share(host.settings().host_memory))),
        ..limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{At, PluginId, SaidLimits, Share, UsedPlugin};

    #[test]
    fn a_plugin_that_one_acl_asks_in_earnest_and_on_trial_has_a_budget_for_each() {
        let plugin = Budget::unlimited();
        let whose = |share: (u16, u16), is_shadow| {
            let used = UsedPlugin {
                plugin: At {
                    value: PluginId(0),
                    span: (0, 0).into(),
                },
                share: Share {
                    from: share.0,
                    to: share.1,
                },
                is_shadow,
                always: None,
                limits: SaidLimits::default(),
                budget: BudgetLimits {
                    instances: Some(1),
                    ..BudgetLimits::default()
                },
                when: None,
            };
            let budget = of_use(&used, ("geo", &plugin), "acl \"bad\" of frontend \"web\"", None);
            budget.whose().to_owned()
        };
        let (part, whole) = (500, Share::WHOLE);
        let in_earnest = whose((0, whole), false);
        assert_eq!(
            in_earnest,
            "the use of plugin \"geo\" in acl \"bad\" of frontend \"web\""
        );
        assert_eq!(whose((part, whole), false), in_earnest, "beside a canary");
        let (canary, shadow) = (whose((0, part), false), whose((0, whole), true));
        assert!(canary.starts_with("the canary of plugin"), "{canary}");
        assert!(shadow.starts_with("the shadow of plugin"), "{shadow}");
    }
}

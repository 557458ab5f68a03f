//! What the plugins of a configuration, and those of its tenants, may use together.

use std::sync::Arc;

use crate::config::{self, BudgetLimits};
use crate::policy::{Budget, Host, Tenant};
use crate::snapshot::Snapshot;

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
    let whose = format!("the use of plugin {plugin:?} in {place}");
    Budget::after(before(previous, &whose), &whose, used.budget, Some(Arc::clone(budget)))
}

/// What somebody's instances might use together before.
fn before<'a>(previous: Option<&'a Snapshot>, whose: &str) -> Option<&'a Budget> {
    let attached = previous.into_iter().flat_map(|previous| &previous.attachments);
    let mut budgets = attached.flat_map(|attached| attached.budget().row());
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

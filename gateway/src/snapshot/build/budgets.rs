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
    let mut budgets = budgets(previous);
    let before = budgets.find(|budget| budget.whose() == whose);
    let outer = plugin.tenant.map(|id| tenants[id.0].1.clone());
    Budget::after(before, &whose, bounded(plugin.budget, host), outer)
}

/// A tenant, and what its plugins may use together. Likewise.
pub(super) fn tenant(tenant: &config::Tenant, host: &Host, previous: Option<&Snapshot>) -> (Arc<Tenant>, Arc<Budget>) {
    let whose = format!("tenant {:?}", tenant.name);
    let mut budgets = budgets(previous).filter_map(Budget::outer);
    let before = budgets.find(|budget| budget.whose() == whose).map(|budget| &**budget);
    let budget = Budget::after(before, &whose, bounded(tenant.quota, host), None);
    let tenant = Tenant {
        name: tenant.name.clone(),
        hosts: tenant.hosts.clone(),
    };
    (Arc::new(tenant), budget)
}

/// Those of plugins, as they were.
fn budgets(previous: Option<&Snapshot>) -> impl Iterator<Item = &Budget> {
    let attached = previous.into_iter().flat_map(|previous| &previous.attachments);
    attached.map(|attached| attached.budget())
}

/// Limits with what holds where nothing is said: nobody alone fills the pool that all instances come from, though its requests
/// wait ever so long for a server.
pub(super) fn bounded(limits: BudgetLimits, host: &Host) -> BudgetLimits {
    let share = (host.settings().instances / POOL_SHARE).max(1);
    BudgetLimits {
        instances: limits.instances.or(Some(share)),
        ..limits
    }
}

/// The part of the pool that one plugin or one tenant may have: a half. Less would refuse what a gateway with a single plugin
/// could serve; where several are to be kept apart in the same trouble, quotas say how.
const POOL_SHARE: u32 = 2;

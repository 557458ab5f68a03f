//! What the plugins of a configuration, and those of its tenants, may use together.

use std::sync::Arc;

use crate::config::{self, BudgetLimits};
use crate::policy::{Budget, Host, Tenant};
use crate::snapshot::Snapshot;

/// What the instances of a plugin may use together. What those of its name have used before a reload counts.
pub(super) fn plugin(
    plugin: &config::Plugin,
    tenants: &[(Arc<Tenant>, Arc<Budget>)],
    host: &Host,
    previous: Option<&Snapshot>,
) -> Arc<Budget> {
    let mut attached = previous.iter().flat_map(|previous| &previous.attachments);
    let before = attached.find(|attached| attached.label() == &*plugin.name);
    let before = before.map(|attached| attached.budget());
    let outer = plugin.tenant.map(|id| tenants[id.0].1.clone());
    let whose = format!("plugin {:?}", plugin.name);
    Budget::after(before, &whose, bounded(plugin.budget, host), outer)
}

/// A tenant, and what its plugins may use together. Likewise.
pub(super) fn tenant(tenant: &config::Tenant, host: &Host, previous: Option<&Snapshot>) -> (Arc<Tenant>, Arc<Budget>) {
    let mut attached = previous.iter().flat_map(|previous| &previous.attachments);
    let before = attached.find(|attached| attached.tenant() == Some(&*tenant.name));
    let before = before.and_then(|attached| attached.tenant_budget());
    let whose = format!("tenant {:?}", tenant.name);
    let budget = Budget::after(before, &whose, bounded(tenant.quota, host), None);
    let tenant = Tenant {
        name: tenant.name.clone(),
        hosts: tenant.hosts.clone(),
    };
    (Arc::new(tenant), budget)
}

/// Limits with what holds where nothing is said: nobody alone fills the pool that all instances come from, though its requests
/// wait ever so long for a server.
fn bounded(limits: BudgetLimits, host: &Host) -> BudgetLimits {
    let share = (host.settings().instances / POOL_SHARE).max(1);
    BudgetLimits {
        instances: limits.instances.or(Some(share)),
        ..limits
    }
}

/// The part of the pool that one plugin or one tenant may have: a half. Less would refuse what a gateway with a single plugin
/// could serve; where several are to be kept apart in the same trouble, quotas say how.
const POOL_SHARE: u32 = 2;

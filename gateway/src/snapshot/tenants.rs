//! Tenants in a frontend that serves their hosts, and what they decide there.

use std::sync::Arc;

use super::routes::Route;
use super::rules::Rule;
use super::{AclCalls, Rewrites};
use crate::config::Condition;
use crate::policy::Tenant;
use crate::telemetry::metrics::TenantMetrics;

/// A tenant whose hosts a frontend serves.
pub struct OfTenant {
    /// Who it is.
    pub tenant: Arc<Tenant>,
    /// What comes for it here.
    pub metrics: Arc<TenantMetrics>,
    /// Whether its hosts are not served: nobody knows what its plugins would have said.
    pub is_closed: bool,
    /// What it decides of requests for them, or of connections; none where that is nothing.
    pub rules: Option<TenantRules>,
}

/// What a tenant decides, behind the operator.
pub struct TenantRules {
    /// Calls that answer its acls.
    pub acls: AclCalls,
    /// `deny`, `redirect` and `return`, in order; of connections, `deny`.
    pub rules: Vec<Rule>,
    /// `use-backend`, in order.
    pub routes: Vec<Route>,
    /// Under which conditions its plugins take part.
    pub uses: Vec<Condition>,
    /// Its edits, in one; none where there are none.
    pub rewrites: Option<Rewrites>,
    /// Those of its edits that are made of what the gateway answers by itself, too; none where there are none.
    pub own_answers: Option<Arc<Rewrites>>,
}

impl OfTenant {
    /// The same without components.
    pub(super) fn without_rules(&self) -> Self {
        Self {
            tenant: self.tenant.clone(),
            metrics: self.metrics.clone(),
            is_closed: self.is_closed,
            rules: None,
        }
    }
}

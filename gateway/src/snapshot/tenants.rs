//! Tenants in a frontend that serves their hosts, and what they decide there.

use std::sync::Arc;

use super::routes::Route;
use super::rules::Rule;
use super::{AclCalls, Rewrites};
use crate::config::Condition;
use crate::policy::{InFlight, Place, Tenant};
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
    /// How much for them may be under way.
    pub under_way: UnderWay,
}

/// How much for a tenant's hosts may be under way at once, over all frontends and workers.
#[derive(Debug, Clone)]
pub struct UnderWay {
    /// Requests, in HTTP mode.
    pub requests: InFlight,
    /// Connections, in TCP mode.
    pub connections: InFlight,
}

/// As much as may be is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantFull;

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
            under_way: self.under_way.clone(),
        }
    }
}

impl UnderWay {
    /// A place for a request.
    pub fn request(&self) -> Result<Place, TenantFull> {
        self.requests.enter().ok_or(TenantFull)
    }

    /// The same for a connection in TCP mode.
    pub fn connection(&self) -> Result<Place, TenantFull> {
        self.connections.enter().ok_or(TenantFull)
    }
}

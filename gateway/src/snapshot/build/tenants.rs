//! What tenants decide in the frontends that serve their hosts.

use std::sync::Arc;

use super::{Builder, Section};
use crate::config::{self, Heavy, InForce, OnFailure, QuarantineSettings, TenantId};
use crate::policy::{self, AttachmentSpec, Callers, first_party};
use crate::snapshot::rewrites::RewriteConfig;
use crate::snapshot::{OfTenant, Rewrites, TenantRules};

impl Builder<'_> {
    /// A tenant in a frontend that serves its hosts.
    pub(super) fn of_tenant(&mut self, id: TenantId, frontend: &config::Frontend) -> Option<OfTenant> {
        let of = &self.config.tenants[id.0];
        let decided = of.decides(frontend.mode);
        let rules = match decided.is_any() {
            true => Some(self.rules_of_tenant(id, decided, frontend)?),
            false => None,
        };
        let tenant = self.tenants[id.0].0.clone();
        Some(OfTenant {
            metrics: self.registry.tenant(&tenant.name, &frontend.name),
            tenant,
            is_closed: of.in_force == InForce::Nothing,
            rules,
            under_way: self.under_way[id.0].clone(),
        })
    }

    fn rules_of_tenant(
        &mut self,
        id: TenantId,
        of: &config::TenantRules,
        frontend: &config::Frontend,
    ) -> Option<TenantRules> {
        let section = Section::of_tenant(id, of, frontend);
        let acls = self.acls(section, |acl| of.asks(acl));
        let rules = self.rules(section, &of.rules);
        let routes = self.routes(frontend, &of.routes);
        let rewrites = match of.edits_any() {
            true => self
                .rewrites_of_tenant(section, of, RewriteConfig::of_tenant(of, frontend))
                .map(Some),
            false => Some(None),
        };
        let own_answers = match of.response_edits.iter().any(|edit| edit.is_always) {
            true => self
                .rewrites_of_tenant(section, of, RewriteConfig::of_own_answers_of_tenant(of, frontend))
                .map(|rewrites| Some(Arc::new(rewrites))),
            false => Some(None),
        };
        Some(TenantRules {
            acls: acls?,
            rules: rules?,
            routes: routes?,
            uses: of.uses.clone(),
            rewrites: rewrites?,
            own_answers: own_answers?,
        })
    }

    fn rewrites_of_tenant(
        &mut self,
        section: Section<'_>,
        of: &config::TenantRules,
        edits: RewriteConfig,
    ) -> Option<Rewrites> {
        if self.maps.len() < self.config.maps.len() {
            // What it may ask for is not there, which has been reported.
            return None;
        }
        let component = first_party::header_rewrite_of([(&*of.request_edits, &*of.response_edits)].into_iter());
        let attachment = self.attach_own(component, &section.frontend.name, &edits, section)?;
        Some(Rewrites::new(attachment, edits))
    }

    /// Makes a use of the gateway's own component a tenant's: what it takes counts as what its plugins take, a failure is
    /// its own, and it holds up no worker more often than a plugin would.
    pub(super) fn give_to(&mut self, id: TenantId, spec: &mut AttachmentSpec) {
        let (tenant, budget) = &self.tenants[id.0];
        spec.label = format!("{} of {}", spec.label, tenant.name).into();
        spec.namespace = format!("tenant/{}/{}", tenant.name, spec.namespace);
        spec.on_failure = ON_FAILURE;
        spec.budget = Arc::clone(budget);
        spec.quarantine = Some(QuarantineSettings::DEFAULT);
        spec.callers = Callers::Either {
            slow: self.config.process.policy.slow_call,
            heavy: Heavy::DEFAULT,
        };
        let what = format!("{} {}", spec.label, spec.config);
        spec.scope = policy::Scope {
            tenant: Some(Arc::clone(tenant)),
            place: self.places.next(what, &spec.label).into(),
            ..policy::Scope::default()
        };
    }
}

/// What could not be asked must not read as if it had agreed; and what a tenant has used up is no defect of the gateway's.
const ON_FAILURE: OnFailure = OnFailure::Deny(503);

//! The operator's edits of a frontend and its backends: of what passes, and of what is answered here.

use super::{Builder, Section};
use crate::config::{self, BackendId, Config, Mode, TenantId, UsedPlugin};
use crate::policy::first_party;
use crate::snapshot::rewrites::RewriteConfig;
use crate::snapshot::{OwnAnswers, Rewrites};

impl Builder<'_> {
    pub(super) fn rewrites(&mut self, frontend: &config::Frontend) -> Option<Vec<Option<Rewrites>>> {
        let config = self.config;
        let mut rewrites = Vec::with_capacity(config.backends.len());
        for (i, backend) in config.backends.iter().enumerate() {
            let edits = RewriteConfig::new(frontend, backend, BackendId(i));
            let (request, response) = (!edits.request.is_empty(), !edits.response.is_empty());
            if frontend.mode == Mode::Tcp || !leads_to(config, frontend, BackendId(i)) || !(request || response) {
                rewrites.push(None);
                continue;
            }
            if self.maps.len() < config.maps.len() {
                // What it may ask for is not there, which has been reported.
                return None;
            }
            let component = first_party::header_rewrite(config);
            let attachment = self.attach_own(component, &frontend.name, &edits, Section::of(frontend))?;
            rewrites.push(Some(Rewrites::new(attachment, edits)));
        }
        Some(rewrites)
    }

    /// The edits of what is answered here: none inside where there are none.
    #[allow(clippy::option_option, reason = "the outer one is an error that has been reported")]
    pub(super) fn own_answers(&mut self, frontend: &config::Frontend) -> Option<Option<Box<OwnAnswers>>> {
        let config = self.config;
        let always = || frontend.response_edits.iter().filter(|edit| edit.is_always);
        let names_backend = always().any(|edit| edit.edit.named("", "a") != edit.edit.named("", "b"));
        let has_own = |backend: &config::Backend| backend.response_edits.iter().any(|edit| edit.is_always);
        let mut wanted = Vec::new();
        for (i, backend) in config.backends.iter().enumerate() {
            if (names_backend || has_own(backend)) && leads_to(config, frontend, BackendId(i)) {
                wanted.push(Some((backend, BackendId(i))));
            }
        }
        wanted.extend(always().next().is_some().then_some(None));
        if frontend.mode == Mode::Tcp || wanted.is_empty() {
            return Some(None);
        }
        if self.maps.len() < config.maps.len() {
            // What it may ask for is not there, which has been reported.
            return None;
        }
        let (mut of_frontend, mut of_backends) = (None, Vec::new());
        for backend in wanted {
            let edits = RewriteConfig::of_own_answers(frontend, backend);
            let component = first_party::header_rewrite(config);
            let attachment = self.attach_own(component, &frontend.name, &edits, Section::of(frontend))?;
            let rewrites = Rewrites::new(attachment, edits);
            match backend {
                Some((_, id)) => of_backends.push((id, rewrites)),
                None => of_frontend = Some(rewrites),
            }
        }
        Some(OwnAnswers::new(of_frontend, of_backends).map(Box::new))
    }
}

/// Whether requests may go there from this frontend.
fn leads_to(config: &Config, frontend: &config::Frontend, id: BackendId) -> bool {
    let by_tenant = |of: &TenantId| config.tenants[of.0].rules.backends().any(|(to, _)| to == id);
    let by_plugin = |used: &UsedPlugin| config.plugins[used.plugin.value.0].route_to.value.contains(&id);
    frontend.default_backend == Some(id)
        || frontend.routes.iter().any(|route| route.to.backends().contains(&id))
        || frontend.plugins.iter().any(by_plugin)
        || frontend.tenants.iter().any(by_tenant)
}

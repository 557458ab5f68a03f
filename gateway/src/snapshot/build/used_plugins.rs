//! Plugins where they are used: what each use may have, whether it has a say there, and whether it comes up.

use std::sync::Arc;

use super::own::OWN_ON_FAILURE;
use super::{Builder, budgets, granted, identity};
use crate::config::{self, BuiltIn, ComponentSource, EffectiveLimits, Mode, PluginId, PluginLimits, Share, UsedPlugin};
use crate::policy::{self, AttachedAs, Attachment, AttachmentSpec, Budget, Callers, Granted, PolicyError};
use crate::snapshot::{BuildError, PluginAt};

impl Builder<'_> {
    /// `use-plugin`: a component that has a say in what the frontend speaks.
    pub(super) fn filter(&mut self, used: UsedPlugin, frontend: &config::Frontend) -> Option<Arc<Attachment>> {
        let id = used.plugin;
        let granted = {
            let plugin = &self.config.plugins[id.value.0];
            granted::with_routes(&self.granted[id.value.0], plugin, frontend, self.config)
        };
        if let Some(name) = routes_nowhere(&self.config.plugins[id.value.0], &self.configs[id.value.0], &granted) {
            let plugin = &self.config.plugins[id.value.0];
            let source = PolicyError::Config {
                label: plugin.name.to_string(),
                message: format!(
                    "may not send requests of frontend {:?} to {name:?}: add `route-to {name:?}` to the plugin's block",
                    frontend.name
                ),
                at: Some("/backend".to_owned()),
            };
            let plugin = PluginAt::of(plugin);
            self.errors.push(BuildError::Plugin { plugin, source });
        }
        let place = format!("frontend {:?}", frontend.name);
        let attachment = self.attach_plugin(id.value, (AttachedAs::Filter, &place), Some(&used), granted.into())?;
        let hooks = attachment.hooks();
        let has_a_say = match frontend.mode {
            Mode::Http => {
                hooks.limiter
                    || hooks.request_filter
                    || hooks.request_body_filter
                    || hooks.response_filter
                    || hooks.response_body_filter
                    || hooks.access_log
            }
            Mode::Tcp => hooks.connection_filter || hooks.access_log,
        };
        if !has_a_say {
            self.errors.push(BuildError::NoHook {
                frontend: frontend.origin.clone(),
                at: id.span,
                plugin: self.config.plugins[id.value.0].name.clone(),
                mode: frontend.mode,
                hooks,
            });
        } else if used.is_shadow
            && !(hooks.limiter || hooks.request_filter || hooks.response_filter || hooks.connection_filter)
        {
            self.errors.push(BuildError::Incomparable {
                frontend: frontend.origin.clone(),
                at: id.span,
                plugin: self.config.plugins[id.value.0].name.clone(),
                hooks,
            });
        }
        if let Some(at) = used.always
            && !(frontend.mode == Mode::Http && hooks.response_filter)
        {
            self.errors.push(BuildError::NeverAlways {
                frontend: frontend.origin.clone(),
                at,
                plugin: self.config.plugins[id.value.0].name.clone(),
                mode: frontend.mode,
            });
        }
        let plugin = &self.config.plugins[id.value.0];
        for backend in &plugin.route_to.value {
            let backend = &self.config.backends[backend.0];
            if backend.mode != frontend.mode {
                let plugin = PluginAt::of(plugin);
                let source = PolicyError::OtherMode {
                    label: attachment.label().to_owned(),
                    backend: backend.name.to_string(),
                    frontend: frontend.name.to_string(),
                };
                self.errors.push(BuildError::Plugin { plugin, source });
            }
        }
        has_a_say.then_some(attachment)
    }

    pub(super) fn attach_plugin(
        &mut self,
        id: PluginId,
        (attached_as, place): (AttachedAs, &str),
        used: Option<&UsedPlugin>,
        granted: Arc<Granted>,
    ) -> Option<Arc<Attachment>> {
        let component = self.plugins[id.0].clone()?;
        let plugin = &self.config.plugins[id.0];
        let limits = EffectiveLimits::of(self.config, id, used);
        let budget = &self.budgets[id.0];
        let what = used.map_or_else(
            || format!("{:?} in {place}", plugin.name),
            |used| budgets::whose(used, &plugin.name, place),
        );
        let place = self.places.next(what, place);
        let (share, is_shadow) = used.map_or((Share::default(), false), |used| (used.share, used.is_shadow));
        let use_of_it = UseOfPlugin {
            config: self.configs[id.0].clone(),
            granted: granted.holding(limits.body.value),
            budget: match used {
                Some(used) => budgets::of_use(used, (&plugin.name, budget), &place, self.previous),
                None => budget.clone(),
            },
            limits: PluginLimits {
                cpu: limits.cpu.value,
                memory: limits.memory.value,
            },
            // Without its tenant's, which all plugins of the tenant share.
            log: used.and_then(|used| used.limits.log).unwrap_or(plugin.state.log),
            callers: match plugin.heavy {
                Some(heavy) => Callers::Crew(heavy),
                None if plugin.stays_with_workers() => Callers::Workers,
                None => Callers::Either {
                    slow: self.config.process.policy.slow_call,
                    heavy: config::Heavy::DEFAULT,
                },
            },
            place: attached_as,
            scope: policy::Scope {
                tenant: plugin.tenant.map(|id| self.tenants[id.0].0.clone()),
                share,
                is_shadow,
                place: place.into(),
                when: used.and_then(|used| used.when),
            },
        };
        let spec = use_of_it.of(plugin);
        match self.set_up(plugin, &component, spec) {
            Ok(attachment) => {
                if let Err(source) = granted::check(self.config, plugin, attachment.hooks()) {
                    let plugin = PluginAt::of(plugin);
                    return self.fail(BuildError::Plugin { plugin, source });
                }
                let tenant = plugin.tenant.map(|id| &self.tenants[id.0].0.name);
                self.registry.plugin(&plugin.name, tenant, &attachment.series());
                if let Err((id, source)) = self.metric_series(id, attachment.metric_series()) {
                    let plugin = PluginAt::of(&self.config.plugins[id.0]);
                    return self.fail(BuildError::Plugin { plugin, source });
                }
                Some(self.keep(attachment))
            }
            Err(source) => {
                let is_used_up = matches!(source, PolicyError::SetUpQuota { .. });
                let has_limits = |used: &&UsedPlugin| (used.limits, used.budget) != Default::default();
                let used = used.filter(has_limits);
                let plugin = PluginAt::used(plugin, used);
                self.errors.push(BuildError::Plugin { plugin, source });
                if used.is_none() || is_used_up {
                    // Its other uses would fail in the same way: once is enough.
                    self.plugins[id.0] = None;
                }
                None
            }
        }
    }

    /// Whether what a plugin declares fits into what its tenant's plugins may have together. All its uses share the same.
    /// Answers whose are too many, otherwise: where files of the tenant's have some, those.
    fn metric_series(&mut self, id: PluginId, series: u64) -> Result<(), (PluginId, PolicyError)> {
        let plugin = &self.config.plugins[id.0];
        let Some(tenant) = plugin.tenant else { return Ok(()) };
        if self.series.insert(id, series).is_some() {
            return Ok(());
        }
        let tenant_of = |id: &PluginId| self.config.plugins[id.0].tenant;
        let of_tenant = || self.series.iter().filter(|(id, _)| tenant_of(id) == Some(tenant));
        let all: u64 = of_tenant().map(|(_, series)| series).sum();
        let tenant = &self.config.tenants[tenant.0];
        match tenant.kept.metric_series {
            Some(most) if all > most => {
                let is_strangers = |id: &PluginId| self.config.plugins[id.0].folder.is_some();
                let strangers = of_tenant().rfind(|(id, _)| is_strangers(id));
                let (id, series) = strangers.map_or((id, series), |(id, series)| (*id, *series));
                let error = PolicyError::Metrics {
                    label: self.config.plugins[id.0].name.to_string(),
                    message: format!(
                        "declares {series} series, and so there are {all} of tenant {:?}, whose quota is `metric-series={most}`",
                        tenant.name
                    ),
                };
                Err((id, error))
            }
            _ => Ok(()),
        }
    }
}

/// The backend that `canary-route` is to send requests to, where it may not: it would fail for its share of the clients, and for a small one
/// that is seen late. What other plugins route to is not known before they do.
fn routes_nowhere(plugin: &config::Plugin, config: &str, granted: &Granted) -> Option<String> {
    let ComponentSource::BuiltIn(BuiltIn::CanaryRoute) = plugin.component.value else {
        return None;
    };
    let config: serde_json::Value = serde_json::from_str(config).ok()?;
    let name = config.get("backend")?.as_str()?;
    granted.route(name).is_none().then(|| name.to_owned())
}

/// What a plugin's attachment has beside what its block says.
pub(super) struct UseOfPlugin {
    pub(super) config: String,
    pub(super) granted: Arc<Granted>,
    pub(super) budget: Arc<Budget>,
    pub(super) limits: PluginLimits,
    pub(super) log: config::LogRate,
    pub(super) callers: Callers,
    pub(super) place: AttachedAs,
    pub(super) scope: policy::Scope,
}

impl UseOfPlugin {
    pub(super) fn of(self, plugin: &config::Plugin) -> AttachmentSpec {
        AttachmentSpec {
            maps: None,
            label: plugin.name.clone(),
            namespace: format!("plugin/{}", plugin.name),
            counted: Arc::default(),
            limits: self.limits,
            state: config::StateLimits {
                log: self.log,
                ..plugin.state
            },
            granted: self.granted,
            on_failure: plugin.on_failure.unwrap_or(OWN_ON_FAILURE),
            vouched: identity::headers(plugin, &self.config),
            isolation: plugin.isolation,
            is_forgetful: false,
            budget: self.budget,
            quarantine: Some(plugin.quarantine),
            callers: self.callers,
            place: self.place,
            scope: self.scope,
            origin: Some(plugin.origin.clone()),
            config: self.config,
        }
    }
}

//! A plugin without a frontend around it, for the tools: compiled, checked and attached as one that serves.

use std::sync::Arc;

use super::components::{check_digest, config_of, sha256};
use super::used_plugins::UseOfPlugin;
use super::{budgets, granted, schemas};
use crate::config::{self, BackendId};
use crate::policy::{self, AttachedAs, Attachment, Budget, Callers, Clock, Component, Host, InFlight, PolicyError};
use crate::snapshot::{BuildError, BuildErrors, PluginAt};

/// The uses of a plugin, as an acl and `use-plugin` would have them.
#[derive(Debug)]
pub struct Alone {
    /// What acls ask; none when it has no predicates.
    pub predicates: Option<Arc<Attachment>>,
    /// What sees requests, responses or connections; none when it has predicates alone.
    pub filter: Option<Arc<Attachment>>,
}

impl Alone {
    /// Compiles a plugin's component, of which these are the bytes.
    ///
    /// # Errors
    /// As a configuration with this plugin would not be taken.
    pub fn compile(host: &Arc<Host>, plugin: &config::Plugin, wasm: &[u8]) -> Result<Arc<Component>, BuildErrors> {
        check_digest(plugin, sha256(wasm)).map_err(|error| BuildErrors::new(*error))?;
        host.compile_strangers(&plugin.name, wasm, &plugin.grants)
            .map_err(|source| of_plugin(plugin, source))
    }

    /// Holds a plugin's configuration against the schema of its component, of which these are the bytes.
    ///
    /// # Errors
    /// Likewise.
    pub fn check(plugin: &config::Plugin, wasm: &[u8]) -> Result<(), BuildErrors> {
        let config = config_of(plugin).map_err(|error| BuildErrors::new(*error))?;
        BuildErrors::or(Some(()), schemas::misfits(plugin, wasm, &config))
    }

    /// A host beside another one that keeps nothing of it, with a clock of its own.
    ///
    /// # Errors
    /// When the engine cannot be built.
    pub fn beside(host: &Host, clock: Clock) -> Result<Arc<Host>, BuildErrors> {
        host.beside(clock)
            .map_err(|source| BuildErrors::new(BuildError::Host(source)))
    }

    /// Attaches it. `backends` are the names of those that it may refer to, by position.
    ///
    /// # Errors
    /// Likewise.
    pub fn attach(
        host: &Arc<Host>,
        component: &Arc<Component>,
        plugin: &config::Plugin,
        backends: &[Arc<str>],
    ) -> Result<Self, BuildErrors> {
        let config = config_of(plugin).map_err(|error| BuildErrors::new(*error))?;
        let named = |id: BackendId| backends.get(id.0).cloned().unwrap_or_default();
        let granted = Arc::new(granted::to(plugin, named, |call| InFlight::new(call.in_flight)));
        let whose = format!("plugin {:?}", plugin.name);
        let budget = Budget::new(&whose, budgets::bounded(plugin.budget, host), None);
        let attach = |place| {
            let use_of_it = UseOfPlugin {
                config: config.clone(),
                granted: Arc::clone(&granted),
                budget: Arc::clone(&budget),
                limits: plugin.limits,
                log: plugin.state.log,
                callers: match plugin.heavy {
                    Some(heavy) => Callers::Crew(heavy),
                    // There are no others who would wait for it.
                    None => Callers::Workers,
                },
                place,
                scope: policy::Scope::default(),
            };
            let attached = host.attach(component, use_of_it.of(plugin));
            let attachment = attached.map_err(|source| of_plugin(plugin, source))?;
            granted::check_use(plugin, attachment.hooks()).map_err(|source| of_plugin(plugin, source))?;
            attachment.adopt();
            Ok(attachment)
        };
        let hooks = component.hooks();
        let asks = hooks.predicates.then(|| attach(AttachedAs::Predicates)).transpose()?;
        let filters = hooks.any_filter().then(|| attach(AttachedAs::Filter)).transpose()?;
        Ok(Self {
            predicates: asks,
            filter: filters,
        })
    }
}

fn of_plugin(plugin: &config::Plugin, source: PolicyError) -> BuildErrors {
    BuildErrors::new(match source {
        // Without an engine no component is to be had: that is nobody's fault here.
        engine @ (PolicyError::Engine(_) | PolicyError::NotExecutable(_)) => BuildError::Host(engine),
        source => BuildError::Plugin {
            plugin: PluginAt::of(plugin),
            source,
        },
    })
}

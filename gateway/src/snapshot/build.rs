//! Building a snapshot. Goes on after an error, so that all of them are found.

mod acls;
mod admission;
mod alone;
mod budgets;
mod components;
mod endings;
mod granted;
mod identity;
mod made;
mod maps;
mod own;
mod places;
mod rewrites;
mod rules;
mod schemas;
mod tenants;
mod tls;
mod trust;
mod used_plugins;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::pages::ErrorPages;
use super::routes::Route;
use super::{BuildError, BuildErrors, FiltersBodies, Frontend, Hsts, Snapshot, UnderWay};
use crate::backend::{Backend, Connectors, Place};
use crate::certificates::SystemRoots;
use crate::config::{self, Acl, BackendId, Config, Mode, Origin, PluginId, TenantId};
use crate::policy::maps::Maps;
use crate::policy::{Attachment, Budget, Component, Crew, Granted, Host, HostSettings, Tenant};
use crate::telemetry::metrics::Registry;
pub use alone::Alone;
pub use components::Compiled;
use endings::Endings;
pub(super) use made::MadeOfFiles;
use places::Places;
use trust::Trust;

/// What [`Snapshot::build`] does.
pub(super) fn snapshot(
    config: &Config,
    places: Vec<Vec<Place>>,
    registry: &Arc<Registry>,
    previous: Option<&Snapshot>,
    spare: &mut Compiled,
) -> Result<Snapshot, BuildErrors> {
    let policy = match previous {
        Some(previous) => previous.policy.clone(),
        None => {
            let settings = HostSettings::new(config.process.policy, config.process.max_buckets);
            Host::with_cache(
                settings,
                config.process.compile_cache.as_ref(),
                config.process.policy.compile,
            )
            .map_err(|source| BuildErrors::new(BuildError::Host(source)))?
        }
    };
    let crew = previous.map_or_else(|| Crew::new(&policy), |previous| previous.crew.clone());
    let mut errors = Vec::new();
    let maps = Arc::new(Builder::read_maps(&config.maps, &mut errors));
    let tenants: Vec<_> = config
        .tenants
        .iter()
        .map(|of| budgets::tenant(of, &policy, previous))
        .collect();
    let under_way = config.tenants.iter().zip(&tenants);
    let under_way = under_way
        .map(|(of, (known, _))| budgets::under_way(of, known))
        .collect();
    let budgets: Vec<_> = config
        .plugins
        .iter()
        .map(|plugin| budgets::plugin(plugin, &tenants, &policy, previous))
        .collect();
    let trust = Trust::read(config, &mut errors);
    let mut builder = Builder {
        config,
        trust,
        maps,
        policy: &policy,
        registry,
        previous,
        known: previous
            .map(|previous| &previous.compiled)
            .into_iter()
            .chain([&*spare])
            .collect(),
        before: previous.map_or(&[], |previous| &previous.frontends),
        compiled: Compiled::default(),
        made: MadeOfFiles::default(),
        plugins: Vec::new(),
        configs: Vec::new(),
        config_left: BTreeMap::new(),
        compile_left: BTreeMap::new(),
        machine_code: BTreeMap::new(),
        budgets,
        tenants,
        under_way,
        granted: granted::of(config, previous),
        attachments: Vec::new(),
        series: BTreeMap::new(),
        places: Places::default(),
        errors,
    };
    for plugin in &config.plugins {
        let (component, config) = builder.plugin(plugin);
        builder.plugins.push(component);
        builder.configs.push(config.unwrap_or_default());
    }
    let frontends: Vec<_> = config
        .frontends
        .iter()
        .map(|frontend| builder.frontend(frontend))
        .collect();
    let system = SystemRoots::default();
    let connectors: Vec<Connectors> = config
        .backends
        .iter()
        .map(|backend| builder.connectors(backend, &system))
        .collect();
    let collector = builder.collector(&system);
    let pages = config
        .backends
        .iter()
        .map(|backend| builder.pages(&backend.error_pages))
        .collect();
    let Builder {
        attachments,
        tenants,
        budgets,
        compiled,
        made,
        compile_left,
        errors,
        ..
    } = builder;
    // A part that is missing has left an error.
    let frontends = BuildErrors::or(frontends.into_iter().map(|part| part.map(Arc::new)).collect(), errors);
    let frontends = match frontends {
        Ok(frontends) => frontends,
        Err(errors) => {
            spare.add(compiled);
            return Err(errors);
        }
    };
    let backends = config
        .backends
        .iter()
        .zip(places)
        .zip(connectors)
        .enumerate()
        .map(|(id, ((backend, places), tls))| {
            let known = |known: &&Arc<Backend>| known.name == backend.name;
            let before = previous.and_then(|previous| previous.backends.iter().find(known));
            let before = before.map(|before| &**before);
            Backend::new(backend, BackendId(id), places, tls, registry, before)
        })
        .collect();
    let heavy_threads = match attachments.iter().any(|attachment| attachment.may_be_heavy()) {
        true => config.process.heavy_threads(),
        false => 0,
    };
    let with_files = config.tenants.iter().filter(|tenant| tenant.has_files);
    let tenant_files = with_files.map(|of| (registry.tenant_files(&of.name), of.in_force, of.faults.clone()));
    Ok(Snapshot {
        tenant_files: tenant_files.collect(),
        collector: collector.map(Arc::new),
        made,
        frontends,
        backends,
        pages,
        registry: registry.clone(),
        policy,
        crew,
        heavy_threads,
        attachments,
        budgets: tenants.into_iter().map(|(_, budget)| budget).chain(budgets).collect(),
        set_up_left: compile_left
            .into_iter()
            .map(|(tenant, left)| (config.tenants[tenant].name.clone(), left))
            .collect(),
        compiled,
    })
}

struct Builder<'a> {
    config: &'a Config,
    /// Who has to have signed components.
    trust: Trust,
    /// Those that could be read.
    maps: Arc<Maps>,
    policy: &'a Arc<Host>,
    registry: &'a Arc<Registry>,
    /// What ran before.
    previous: Option<&'a Snapshot>,
    /// What the configuration before had compiled, and an earlier attempt at this one.
    known: Vec<&'a Compiled>,
    /// The frontends before.
    before: &'a [Arc<Frontend>],
    /// What this one uses.
    compiled: Compiled,
    /// What was made of the files of tenants' own plugins.
    made: MadeOfFiles,
    /// By position in the configuration; none where it cannot be used, of which an error has been reported.
    plugins: Vec<Option<Arc<Component>>>,
    /// By position: the configurations that plugins get.
    configs: Vec<String>,
    /// Bytes that the configurations of a tenant's own plugins may have yet, by tenant.
    config_left: BTreeMap<usize, usize>,
    /// CPU time that compiling and setting up what a tenant's files name may take yet, by tenant.
    compile_left: BTreeMap<usize, Duration>,
    /// Bytes of machine code that what a tenant's files name comes to, by tenant and by what it is made of.
    machine_code: BTreeMap<usize, BTreeMap<[u8; 32], u64>>,
    /// By position: tenants, and what their plugins may use together.
    tenants: Vec<(Arc<Tenant>, Arc<Budget>)>,
    /// By position: how much of a tenant's may be under way.
    under_way: Vec<UnderWay>,
    /// By position: what the instances of a plugin may use together.
    budgets: Vec<Arc<Budget>>,
    attachments: Vec<Arc<Attachment>>,
    errors: Vec<BuildError>,
    /// By plugin: the backends that it may use.
    granted: Vec<Arc<Granted>>,
    /// What plugins of tenants have declared to measure.
    series: BTreeMap<PluginId, u64>,
    /// Where uses of plugins stand.
    places: Places,
}

impl Builder<'_> {
    /// Notes an error.
    fn fail<T>(&mut self, error: BuildError) -> Option<T> {
        self.errors.push(error);
        None
    }

    fn frontend(&mut self, frontend: &config::Frontend) -> Option<Frontend> {
        // Each part is tried, whatever became of the others: an error in one hides none in another.
        let tls = frontend
            .binds
            .iter()
            .enumerate()
            .map(|(position, bind)| self.tls(frontend, position, bind))
            .collect::<Vec<_>>();
        let endings = Endings::of(frontend);
        let acls = self.acls(Section::of(frontend), |acl| endings.asks_late(frontend, acl));
        let limiters = self.limiters(frontend, &frontend.limits);
        let admission = self.admission(frontend, &endings.early);
        let plugins = frontend
            .plugins
            .iter()
            .map(|used| self.filter(*used, frontend))
            .collect::<Vec<_>>();
        let rewrites = self.rewrites(frontend);
        let own_answers = self.own_answers(frontend);
        let hosts = self.hosts(frontend);
        let pages = self.pages(&frontend.error_pages);
        let rules = self.rules(Section::of(frontend), &frontend.rules);
        let deciding = frontend.of_backends.iter().filter(|of| !of.rules.is_empty());
        let of_backends: Vec<_> = deciding
            .map(|of| Some((of.backend, self.rules(Section::of(frontend), &of.rules)?)))
            .collect();
        let routes = self.routes(frontend, &frontend.routes);
        let tenants: Vec<_> = frontend
            .tenants
            .iter()
            .map(|id| self.of_tenant(*id, frontend))
            .collect();
        let (acls, limiters, admission) = (acls?, limiters?, admission?);
        let plugins = plugins.into_iter().collect::<Option<Vec<_>>>()?;
        let tenants = tenants.into_iter().collect::<Option<Arc<[_]>>>()?;
        let of_tenants = tenants.iter().filter_map(|of| of.rules.as_ref());
        let calls = || {
            acls.calls
                .iter()
                .chain(of_tenants.clone().flat_map(|rules| &rules.acls.calls))
        };
        let attached = || calls().map(|call| &call.attachment).chain(&plugins);
        let told = plugins.iter().filter(|plugin| plugin.hooks().access_log);
        let told: Arc<[_]> = told.cloned().collect();
        let used = plugins.iter().zip(&frontend.plugins).rev();
        let always: Vec<_> = used
            .filter(|(_, used)| used.always.is_some())
            .map(|(plugin, _)| plugin.clone())
            .collect();
        let tells_of_requests = plugins.iter().any(|plugin| plugin.access_log_reads_request());
        let filters_bodies = FiltersBodies {
            request: plugins.iter().any(|plugin| plugin.hooks().request_body_filter),
            response: plugins.iter().any(|plugin| plugin.hooks().response_body_filter),
        };
        let routes = routes?;
        let reads_client_hello = frontend.mode == Mode::Tcp
            && (!tenants.is_empty()
                || attached().any(|attachment| attachment.reads_client_hello())
                || routes.iter().any(Route::reads_client_hello));
        let keeps_instances = attached().any(|attachment| attachment.is_kept_by_connection());
        // What is under way is counted of all of them.
        let asks_tenants = !tenants.is_empty() || plugins.iter().any(|plugin| plugin.tenant().is_some());
        Some(Frontend {
            tls: tls.into_iter().collect::<Option<_>>()?,
            reads_client_hello,
            keeps_instances,
            keeps_exchanges: !told.is_empty()
                || !always.is_empty()
                || own_answers.as_ref().is_none_or(Option::is_some)
                || of_tenants.clone().any(|rules| rules.own_answers.is_some())
                || attached().any(|attachment| attachment.sets_tags()),
            told,
            tells_of_requests,
            filters_bodies,
            pages,
            admission,
            acls,
            rules: rules?,
            rules_of_backends: of_backends.into_iter().collect::<Option<_>>()?,
            routes,
            late_denies: endings.late,
            limiters,
            plugins,
            always,
            rewrites: rewrites?,
            own_answers: own_answers?,
            hosts: hosts?,
            hsts: frontend.hsts.map(Hsts::new),
            own_fields: frontend.own_fields(),
            metrics: self.registry.frontend(&frontend.name),
            asks_tenants,
            tenants,
            config: Arc::new(frontend.clone()),
        })
    }

    /// The error pages of a section. Those that cannot be used are reported, once for all sections that take them.
    fn pages(&mut self, pages: &[config::ErrorPage]) -> Option<ErrorPages> {
        let errors = &mut self.errors;
        ErrorPages::read(pages, |page, source| {
            let is_same = |known: &BuildError| matches!(known, BuildError::File { path, .. } if path.span == page.path.span && path.value == page.path.value);
            if !errors.iter().any(is_same) {
                errors.push(BuildError::File {
                    origin: page.origin.clone(),
                    path: page.path.clone(),
                    source,
                });
            }
        })
    }

    fn keep(&mut self, attachment: Arc<Attachment>) -> Arc<Attachment> {
        self.registry
            .policy(attachment.label(), attachment.tenant(), attachment.stats().clone());
        self.attachments.push(attachment.clone());
        attachment
    }
}

/// What acls and edits are made ready for: a frontend, or what a tenant decides in it.
#[derive(Clone, Copy)]
struct Section<'a> {
    frontend: &'a config::Frontend,
    tenant: Option<(TenantId, &'a config::TenantRules)>,
    acls: &'a [Acl],
}

impl<'a> Section<'a> {
    fn of(frontend: &'a config::Frontend) -> Self {
        Self {
            frontend,
            tenant: None,
            acls: &frontend.acls,
        }
    }

    fn of_tenant(id: TenantId, rules: &'a config::TenantRules, frontend: &'a config::Frontend) -> Self {
        Self {
            frontend,
            tenant: Some((id, rules)),
            acls: &rules.acls,
        }
    }

    /// Whose fault it is that something of it does not come up.
    fn origin(&self) -> &'a Origin {
        let last = self.tenant.and_then(|(_, rules)| rules.last.as_ref());
        last.unwrap_or(&self.frontend.origin)
    }
}

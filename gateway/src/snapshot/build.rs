//! Building a snapshot. Goes on after an error, so that all of them are found.

mod admission;
mod alone;
mod budgets;
mod components;
mod endings;
mod granted;
mod made;
mod maps;
mod schemas;
mod tenants;
mod tls;
mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::pages::ErrorPages;
use super::rewrites::RewriteConfig;
use super::routes::Route;
use super::rules::{self, Rule, RuleError};
use super::{
    AclCall, AclCalls, BuildError, BuildErrors, FiltersBodies, Frontend, Hsts, OwnAnswers, PluginAt, Rewrites, Snapshot,
};
use crate::backend::{Backend, Connectors, Place};
use crate::certificates::SystemRoots;
use crate::config::{
    self, Acl, AclId, AclTest, At, BackendId, Config, EffectiveLimits, Isolation, Mode, OnFailure, Origin, PluginId,
    PluginLimits, Share, TenantId, UsedPlugin,
};
use crate::policy::maps::Maps;
use crate::policy::path_captures::PathCaptures;
use crate::policy::{
    self, AttachedAs, Attachment, AttachmentSpec, Budget, Callers, Component, Crew, Granted, Host, HostSettings,
    PolicyError, Tenant, first_party,
};
use crate::telemetry::metrics::Registry;
pub use alone::Alone;
pub use components::Compiled;
use components::{Made, sha256};
use endings::Endings;
pub(super) use made::MadeOfFiles;
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
    let budgets = config
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
        budgets,
        tenants,
        granted: granted::of(config, previous),
        attachments: Vec::new(),
        series: BTreeMap::new(),
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
    /// By position: tenants, and what their plugins may use together.
    tenants: Vec<(Arc<Tenant>, Arc<Budget>)>,
    /// By position: what the instances of a plugin may use together.
    budgets: Vec<Arc<Budget>>,
    attachments: Vec<Arc<Attachment>>,
    errors: Vec<BuildError>,
    /// By plugin: the backends that it may use.
    granted: Vec<Arc<Granted>>,
    /// What plugins of tenants have declared to measure.
    series: BTreeMap<PluginId, u64>,
}

#[derive(Serialize)]
struct AclConfig<'a> {
    predicates: Vec<NamedMatch<'a>>,
}

#[derive(Serialize)]
struct NamedMatch<'a> {
    name: &'a str,
    when: &'a config::Match,
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
        let limiter = self.limiter(frontend, &frontend.limits);
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
        let (acls, limiter, admission) = (acls?, limiter?, admission?);
        let plugins = plugins.into_iter().collect::<Option<Vec<_>>>()?;
        let tenants = tenants.into_iter().collect::<Option<Arc<[_]>>>()?;
        let of_tenants = tenants.iter().filter_map(|of| of.rules.as_ref());
        let calls = || {
            acls.calls
                .iter()
                .chain(of_tenants.clone().flat_map(|rules| &rules.acls.calls))
        };
        let attached = || calls().map(|call| &call.attachment).chain(&plugins);
        let tells_plugins = plugins.iter().any(|plugin| plugin.hooks().access_log);
        let tells_of_requests = plugins.iter().any(|plugin| plugin.access_log_reads_request());
        let filters_bodies = FiltersBodies {
            request: plugins.iter().any(|plugin| plugin.hooks().request_body_filter),
            response: plugins.iter().any(|plugin| plugin.hooks().response_body_filter),
        };
        let routes = routes?;
        let reads_client_hello = frontend.mode == Mode::Tcp
            && (attached().any(|attachment| attachment.reads_client_hello())
                || routes.iter().any(Route::reads_client_hello));
        let keeps_instances = attached().any(|attachment| attachment.is_kept_by_connection());
        let asks_tenants = tenants.iter().any(|of| of.is_closed || of.rules.is_some())
            || plugins.iter().any(|plugin| plugin.tenant().is_some());
        Some(Frontend {
            tls: tls.into_iter().collect::<Option<_>>()?,
            reads_client_hello,
            keeps_instances,
            keeps_exchanges: tells_plugins
                || own_answers.as_ref().is_none_or(Option::is_some)
                || attached().any(|attachment| attachment.sets_tags()),
            tells_plugins,
            tells_of_requests,
            filters_bodies,
            pages,
            admission,
            acls,
            rules: rules?,
            rules_of_backends: of_backends.into_iter().collect::<Option<_>>()?,
            routes,
            late_denies: endings.late,
            limiter,
            plugins,
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

    fn rules(&mut self, section: Section<'_>, rules: &[config::Rule]) -> Option<Vec<Rule>> {
        let mut captures = self.captures(section, rules)?.into_iter();
        let rules: Vec<_> = rules
            .iter()
            .map(|rule| (rule, captured(rule).and_then(|_| captures.next())))
            .map(
                |(rule, captures)| match rules::rule(rule, section.frontend, &self.maps, captures) {
                    Ok(rule) => Some(rule),
                    Err(RuleError::File(path, source)) => self.fail(BuildError::File {
                        origin: rule.origin.clone(),
                        path,
                        source,
                    }),
                    // A map that could not be read has been reported.
                    Err(RuleError::Defect(_)) if self.maps.len() < self.config.maps.len() => None,
                    Err(RuleError::Defect(message)) => self.fail(BuildError::Rule {
                        origin: rule.origin.clone(),
                        message,
                    }),
                },
            )
            .collect();
        rules.into_iter().collect()
    }

    /// By rule that has captures: how they come by. A component has as many of them as there are bits of conditions.
    fn captures(&mut self, section: Section<'_>, rules: &[config::Rule]) -> Option<Vec<PathCaptures>> {
        let of: Vec<_> = rules.iter().filter_map(captured).collect();
        let mut captures = Vec::with_capacity(of.len());
        for chunk in of.chunks(PathCaptures::PER_COMPONENT) {
            let config = RewriteConfig::of_captures(chunk);
            let component = &first_party::HEADER_REWRITE_REGEX;
            let attachment = self.attach_own(component, &section.frontend.name, &config, section)?;
            let each = (0u32..).zip(chunk);
            captures
                .extend(each.map(|(number, of)| PathCaptures::new(attachment.clone(), number, of.captures().len())));
        }
        Some(captures)
    }

    /// One call for all of the gateway's own predicates (or several, where there are more than one call can answer), and
    /// one for each third-party plugin.
    fn acls(&mut self, section: Section<'_>, is_asked: impl Fn(usize) -> bool) -> Option<AclCalls> {
        let mut calls = Vec::new();
        let mut servers = Vec::new();
        let component = match section.tenant {
            None => first_party::acl(self.config),
            Some(_) => first_party::acl_of(section.acls.iter()),
        };
        let own: Vec<_> = section
            .acls
            .iter()
            .enumerate()
            .filter(|(i, _)| is_asked(*i))
            .filter_map(|(i, acl)| match &acl.test {
                AclTest::Match(when) => Some((AclId(i), &*acl.name, when)),
                AclTest::Servers(up) => {
                    servers.push((AclId(i), *up));
                    None
                }
                AclTest::Plugin { .. } => None,
            })
            .collect();
        for chunk in own.chunks(PREDICATES_PER_CALL) {
            let config = AclConfig {
                predicates: chunk.iter().map(|(_, name, when)| NamedMatch { name, when }).collect(),
            };
            let attachment = self.attach_own(component, &section.frontend.name, &config, section);
            let answers = (0u32..).zip(chunk).map(|(bit, (id, ..))| (bit, *id)).collect();
            let compared = Vec::new();
            calls.push(attachment.map(|attachment| AclCall {
                attachment,
                answers,
                compared,
            }));
        }
        calls.extend(self.predicates(section, is_asked));
        let calls = calls.into_iter().collect::<Option<_>>()?;
        Some(AclCalls { calls, servers })
    }

    /// One call for each plugin that acls ask in the same way, however many of its predicates they ask for. Shadows come behind
    /// those whose answers theirs are compared with.
    fn predicates(&mut self, section: Section<'_>, is_asked: impl Fn(usize) -> bool) -> Vec<Option<AclCall>> {
        let mut calls: Vec<(UsedPlugin, Option<AclCall>)> = Vec::new();
        let acls = section.acls.iter().enumerate().filter(|(i, _)| is_asked(*i));
        for (i, acl, asked) in acls.flat_map(|(i, acl)| acl.test.plugins().map(move |asked| (i, acl, asked))) {
            let used = asked.used;
            let id = used.plugin.value;
            let position = calls
                .iter()
                .position(|(known, _)| known.is_as(&used))
                .unwrap_or_else(|| {
                    let granted = self.granted[id.0].clone();
                    let place = format!("acl {:?} of frontend {:?}", acl.name, section.frontend.name);
                    let attached = self.attach_plugin(id, (AttachedAs::Predicates, &place), Some(&used), granted);
                    let call = attached.map(|attachment| AclCall {
                        attachment,
                        answers: Vec::new(),
                        compared: Vec::new(),
                    });
                    calls.push((used, call));
                    calls.len() - 1
                });
            let Some(call) = &mut calls[position].1 else { continue };
            match self.predicate(&call.attachment, acl, id, asked.predicate.as_ref()) {
                Some(bit) if used.is_shadow => call.compared.push((bit, AclId(i), acl.name.clone())),
                Some(bit) => call.answers.push((bit, AclId(i))),
                None => calls.push((used, None)),
            }
        }
        calls.sort_by_key(|(used, _)| used.is_shadow);
        calls.into_iter().map(|(_, call)| call).collect()
    }

    /// The bit of a plugin's answer that an acl asks for.
    fn predicate(
        &mut self,
        attachment: &Attachment,
        acl: &Acl,
        plugin: PluginId,
        name: Option<&At<String>>,
    ) -> Option<u32> {
        let names = attachment.predicates();
        let bit = match name {
            None => (!names.is_empty()).then_some(0),
            Some(name) => names.iter().position(|known| *known == name.value),
        };
        let bit = bit.and_then(|bit| u32::try_from(bit).ok());
        // Of an acl at the top of the file, every frontend that asks it finds the same.
        let is_told = |error: &BuildError| matches!(error, BuildError::Predicate { acl: told, .. } if told.span == acl.origin.span);
        if bit.is_none() && !self.errors.iter().any(is_told) {
            self.errors.push(BuildError::Predicate {
                acl: acl.origin.clone(),
                plugin: self.config.plugins[plugin.0].name.clone(),
                name: name.cloned(),
                known: names.to_vec(),
            });
        }
        bit
    }

    /// `use-plugin`: a component that has a say in what the frontend speaks.
    fn filter(&mut self, used: UsedPlugin, frontend: &config::Frontend) -> Option<Arc<Attachment>> {
        let id = used.plugin;
        let granted = {
            let plugin = &self.config.plugins[id.value.0];
            granted::with_routes(&self.granted[id.value.0], plugin, frontend, self.config)
        };
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
            Mode::Tcp => hooks.connection_filter,
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
        let plugin = &self.config.plugins[id.value.0];
        for backend in &plugin.route_to {
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

    fn rewrites(&mut self, frontend: &config::Frontend) -> Option<Vec<Option<Rewrites>>> {
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
    fn own_answers(&mut self, frontend: &config::Frontend) -> Option<Option<Box<OwnAnswers>>> {
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

    /// Attaches a component of the gateway's own.
    fn attach_own(
        &mut self,
        own: &'static first_party::FirstParty,
        namespace: &str,
        config: &impl Serialize,
        section: Section<'_>,
    ) -> Option<Arc<Attachment>> {
        let frontend = section.frontend;
        let compiled = self.compile(Made::Ours, own.name, sha256(own.wasm), own.wasm, own.grants);
        let attached = compiled.and_then(|component| {
            // The model's types are texts, numbers, lists and enums: nothing of that can fail to be written.
            let config = serde_json::to_string(config).unwrap_or_default();
            let mut spec = AttachmentSpec {
                maps: Arc::clone(&self.maps),
                label: format!("{} {}", own.name, frontend.name).into(),
                namespace: format!("{}/{namespace}", own.name),
                config,
                limits: PluginLimits {
                    cpu: config::DEFAULT_PLUGIN_CPU,
                    memory: self.config.process.policy.memory,
                },
                state: config::StateLimits::DEFAULT,
                granted: Arc::default(),
                on_failure: OWN_ON_FAILURE,
                isolation: Isolation::FOREVER,
                is_forgetful: true,
                budget: Budget::unlimited(),
                quarantine: None,
                callers: Callers::Workers,
                place: AttachedAs::Filter,
                scope: policy::Scope::default(),
                origin: None,
            };
            if let Some((id, of)) = section.tenant {
                self.give_to(id, &mut spec);
                spec.origin = of.last.clone();
            }
            self.policy.attach(&component, spec)
        });
        match attached {
            Ok(attachment) => Some(self.keep(attachment)),
            Err(source) => {
                let origin = section.origin().clone();
                self.errors.push(BuildError::Own { origin, source });
                None
            }
        }
    }

    fn attach_plugin(
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
        let (share, is_shadow) = used.map_or((Share::default(), false), |used| (used.share, used.is_shadow));
        let use_of_it = UseOfPlugin {
            config: self.configs[id.0].clone(),
            granted: granted.holding(limits.body.value),
            budget: match used {
                Some(used) => budgets::of_use(used, (&plugin.name, budget), place, self.previous),
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

    fn keep(&mut self, attachment: Arc<Attachment>) -> Arc<Attachment> {
        self.registry
            .policy(attachment.label(), attachment.tenant(), attachment.stats().clone());
        self.attachments.push(attachment.clone());
        attachment
    }
}

/// Whether requests may go there from this frontend.
fn leads_to(config: &Config, frontend: &config::Frontend, id: BackendId) -> bool {
    let by_tenant = |of: &TenantId| config.tenants[of.0].rules.backends().any(|(to, _)| to == id);
    let by_plugin = |used: &UsedPlugin| config.plugins[used.plugin.value.0].route_to.contains(&id);
    frontend.default_backend == Some(id)
        || frontend.routes.iter().any(|route| route.to.backends().contains(&id))
        || frontend.plugins.iter().any(by_plugin)
        || frontend.tenants.iter().any(by_tenant)
}

/// Where a redirect leads that has captures.
fn captured(rule: &config::Rule) -> Option<&config::Matched> {
    match &rule.action {
        config::Action::Redirect(redirect) => match &redirect.to {
            config::RedirectTo::Matched(captured) => Some(captured),
            _ => None,
        },
        _ => None,
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

/// What a plugin's attachment has beside what its block says.
struct UseOfPlugin {
    config: String,
    granted: Arc<Granted>,
    budget: Arc<Budget>,
    limits: PluginLimits,
    log: config::LogRate,
    callers: Callers,
    place: AttachedAs,
    scope: policy::Scope,
}

impl UseOfPlugin {
    fn of(self, plugin: &config::Plugin) -> AttachmentSpec {
        AttachmentSpec {
            maps: Arc::default(),
            label: plugin.name.clone(),
            namespace: format!("plugin/{}", plugin.name),
            config: self.config,
            limits: self.limits,
            state: config::StateLimits {
                log: self.log,
                ..plugin.state
            },
            granted: self.granted,
            on_failure: plugin.on_failure.unwrap_or(OWN_ON_FAILURE),
            isolation: plugin.isolation,
            is_forgetful: false,
            budget: self.budget,
            quarantine: Some(plugin.quarantine),
            callers: self.callers,
            place: self.place,
            scope: self.scope,
            origin: Some(plugin.origin.clone()),
        }
    }
}

/// The WIT's limit: the answers of one call are the bits of one integer.
const PREDICATES_PER_CALL: usize = 64;

/// A failing component of the gateway's own is an internal error. It denies: an access rule that could not be asked must not
/// read as if it had agreed.
const OWN_ON_FAILURE: OnFailure = OnFailure::Deny(500);

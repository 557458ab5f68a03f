//! Building a snapshot. Goes on after an error, so that all of them are found.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::pages::ErrorPages;
use super::rewrites::RewriteConfig;
use super::rules::{self, Rule, RuleError};
use super::{AclCall, Admission, BuildError, BuildErrors, Ending, Frontend, Hsts, PluginAt, Rewrites, Snapshot};
use crate::backend::{Backend, Connector, Connectors, Place, SystemRoots};
use crate::config::{
    self, Acl, AclId, AclTest, At, BackendId, CheckKind, CheckVersion, Config, Mode, OnFailure, PluginId, PluginLimits,
    ServerTls,
};
use crate::listener::{Sources, Termination};
use crate::policy::{Attachment, AttachmentSpec, Component, Host, HostSettings, PolicyError, first_party};
use crate::telemetry::metrics::Registry;

/// What [`Snapshot::build`] does.
pub(super) fn snapshot(
    config: &Config,
    places: Vec<Vec<Place>>,
    registry: &Arc<Registry>,
    previous: Option<&Snapshot>,
) -> Result<Snapshot, BuildErrors> {
    let policy = match previous {
        Some(previous) => previous.policy.clone(),
        None => {
            let settings = HostSettings::new(config.process.policy, config.process.max_buckets);
            Host::new(settings)
        }
    };
    let mut builder = Builder {
        config,
        policy: &policy,
        registry,
        previous,
        known: previous.map(|previous| &previous.compiled),
        before: previous.map_or(&[], |previous| &previous.frontends),
        compiled: Compiled::default(),
        plugins: Vec::new(),
        attachments: Vec::new(),
        errors: Vec::new(),
    };
    for plugin in &config.plugins {
        let component = builder.load(plugin);
        builder.plugins.push(component);
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
    let pages = config
        .backends
        .iter()
        .map(|backend| builder.pages(&backend.error_pages))
        .collect();
    let Builder {
        attachments,
        compiled,
        errors,
        ..
    } = builder;
    // A part that is missing has left an error.
    let frontends = BuildErrors::or(frontends.into_iter().map(|part| part.map(Arc::new)).collect(), errors)?;
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
    Ok(Snapshot {
        frontends,
        backends,
        pages,
        registry: registry.clone(),
        policy,
        attachments,
        compiled,
    })
}

struct Builder<'a> {
    config: &'a Config,
    policy: &'a Arc<Host>,
    registry: &'a Arc<Registry>,
    /// What ran before.
    previous: Option<&'a Snapshot>,
    /// What the configuration before had compiled.
    known: Option<&'a Compiled>,
    /// The frontends before.
    before: &'a [Arc<Frontend>],
    /// What this one uses.
    compiled: Compiled,
    /// By position in the configuration; none where it cannot be used, of which an error has been reported.
    plugins: Vec<Option<Arc<Component>>>,
    attachments: Vec<Arc<Attachment>>,
    errors: Vec<BuildError>,
}

/// Components by what was compiled.
#[derive(Default)]
pub(super) struct Compiled(HashMap<Source, Arc<Component>>);

/// What makes two compiled components the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Source {
    label: Arc<str>,
    sha256: [u8; 32],
    grants: Vec<config::Grant>,
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

#[derive(Serialize)]
struct LimitConfig<'a> {
    limits: Vec<&'a config::RateLimit>,
}

impl Builder<'_> {
    /// Reads and compiles a plugin's component.
    fn load(&mut self, plugin: &config::Plugin) -> Option<Arc<Component>> {
        let at = PluginAt::of(plugin);
        let wasm = match std::fs::read(&plugin.path.value) {
            Ok(wasm) => wasm,
            Err(source) => return self.fail(BuildError::PluginFile { plugin: at, source }),
        };
        let found = sha256(&wasm);
        if let Some(expected) = plugin.sha256
            && found != expected.value
        {
            return self.fail(BuildError::Digest {
                plugin: at,
                at: expected.span,
                found,
            });
        }
        match self.compile(&plugin.name, found, &wasm, &plugin.grants) {
            Ok(component) => Some(component),
            Err(source) => self.fail(BuildError::Plugin { plugin: at, source }),
        }
    }

    /// A component, compiled at most once, and not at all when the configuration before had it.
    fn compile(
        &mut self,
        label: &str,
        sha256: [u8; 32],
        wasm: &[u8],
        grants: &[config::Grant],
    ) -> Result<Arc<Component>, PolicyError> {
        let source = Source {
            label: label.into(),
            sha256,
            grants: grants.to_vec(),
        };
        let known = [Some(&self.compiled), self.known].into_iter().flatten();
        let component = match known.filter_map(|known| known.0.get(&source)).next() {
            Some(component) => component.clone(),
            None => self.policy.compile(label, wasm, grants)?,
        };
        self.compiled.0.insert(source, component.clone());
        Ok(component)
    }

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
        let acls = self.acls(frontend, |acl| endings.asks_late(frontend, acl));
        let limiter = self.limiter(frontend, &frontend.limits);
        let admission = self.admission(frontend, &endings.early);
        let plugins = frontend
            .plugins
            .iter()
            .map(|id| self.filter(*id, frontend))
            .collect::<Vec<_>>();
        let rewrites = self.rewrites(frontend);
        let pages = self.pages(&frontend.error_pages);
        let rules = self.rules(frontend);
        let (acls, limiter, admission) = (acls?, limiter?, admission?);
        let plugins = plugins.into_iter().collect::<Option<Vec<_>>>()?;
        let mut attached = acls.iter().map(|call| &call.attachment).chain(&plugins);
        let reads_client_hello =
            frontend.mode == Mode::Tcp && attached.any(|attachment| attachment.reads_client_hello());
        Some(Frontend {
            tls: tls.into_iter().collect::<Option<_>>()?,
            reads_client_hello,
            pages,
            admission,
            acls,
            rules: rules?,
            late_denies: endings.late,
            limiter,
            plugins,
            rewrites: rewrites?,
            hsts: frontend.hsts.map(Hsts::new),
            metrics: self.registry.frontend(&frontend.name),
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

    fn rules(&mut self, frontend: &config::Frontend) -> Option<Vec<Rule>> {
        let rules: Vec<_> = frontend
            .rules
            .iter()
            .map(|rule| match rules::rule(rule, &frontend.name) {
                Ok(rule) => Some(rule),
                Err(RuleError::File(path, source)) => self.fail(BuildError::File {
                    origin: rule.origin.clone(),
                    path,
                    source,
                }),
                Err(RuleError::Defect(message)) => self.fail(BuildError::Rule {
                    origin: rule.origin.clone(),
                    message,
                }),
            })
            .collect();
        rules.into_iter().collect()
    }

    fn tls(
        &mut self,
        frontend: &config::Frontend,
        position: usize,
        bind: &config::Bind,
    ) -> Option<Option<Arc<Termination>>> {
        let Some(tls) = &bind.tls else { return Some(None) };
        // The same bind of the configuration before, for clients that come back.
        let before = self.previous.and_then(|previous| {
            let before = previous.frontend(&frontend.name, frontend.mode)?;
            let same = before.config.binds.get(position)?.address == bind.address;
            before.tls.get(position)?.as_deref().filter(|_| same)
        });
        match Termination::new(tls, bind.alpn.clone(), (&frontend.name, bind), self.registry, before) {
            Ok(termination) => Some(Some(termination)),
            Err(errors) => {
                self.errors.extend(errors.into_iter().map(|source| BuildError::Tls {
                    bind: bind.origin.clone(),
                    tls: Box::new(tls.clone()),
                    source,
                }));
                None
            }
        }
    }

    /// How TLS is spoken with a backend's servers. An error leaves none, and is reported.
    fn connectors(&mut self, backend: &config::Backend, system: &SystemRoots) -> Connectors {
        let of_server = |server: &config::Server| (server.tls.clone(), backend.mode, server.http2, server.name.clone());
        let servers: Vec<_> = backend.servers.iter().map(of_server).collect();
        let mut connector = |(tls, mode, http2, name): (Option<ServerTls>, Mode, bool, Arc<str>)| {
            let tls = tls?;
            let whose = (&backend.name, &name);
            match Connector::new(&tls, (mode, http2), system, whose, self.registry.process()) {
                Ok(connector) => Some(Arc::new(connector)),
                Err(errors) => {
                    let tls = Box::new(tls);
                    let error = |source| BuildError::ServerTls {
                        tls: tls.clone(),
                        source,
                    };
                    self.errors.extend(errors.into_iter().map(error));
                    None
                }
            }
        };
        let servers = servers.into_iter().map(&mut connector).collect();
        let check = backend.check.as_ref().and_then(|check| {
            let (mode, http2) = match &check.kind {
                CheckKind::Tcp(_) => (Mode::Tcp, false),
                CheckKind::Http(http) => (Mode::Http, http.version == Some(CheckVersion::Http2)),
                CheckKind::Grpc(_) => (Mode::Http, true),
            };
            connector((check.tls.clone(), mode, http2, Arc::from("check")))
        });
        Connectors { servers, check }
    }

    /// One call for all of the gateway's own predicates (or several, where there are more than one call can answer), and
    /// one for each third-party plugin.
    fn acls(&mut self, frontend: &config::Frontend, is_asked: impl Fn(usize) -> bool) -> Option<Vec<AclCall>> {
        let mut calls = Vec::new();
        let own: Vec<_> = frontend
            .acls
            .iter()
            .enumerate()
            .filter(|(i, _)| is_asked(*i))
            .filter_map(|(i, acl)| match &acl.test {
                AclTest::Match(when) => Some((AclId(i), &*acl.name, when)),
                AclTest::Plugin { .. } => None,
            })
            .collect();
        for chunk in own.chunks(PREDICATES_PER_CALL) {
            let config = AclConfig {
                predicates: chunk.iter().map(|(_, name, when)| NamedMatch { name, when }).collect(),
            };
            let attachment = self.attach_own(first_party::acl(self.config), &frontend.name, &config, frontend);
            let answers = (0u32..).zip(chunk).map(|(bit, (id, ..))| (bit, *id)).collect();
            calls.push(attachment.map(|attachment| AclCall { attachment, answers }));
        }
        calls.extend(self.predicates(frontend, is_asked));
        calls.into_iter().collect()
    }

    /// One call for each plugin that acls ask, however many of its predicates they ask for.
    fn predicates(&mut self, frontend: &config::Frontend, is_asked: impl Fn(usize) -> bool) -> Vec<Option<AclCall>> {
        let mut calls: Vec<(PluginId, Option<AclCall>)> = Vec::new();
        for (i, acl) in frontend.acls.iter().enumerate().filter(|(i, _)| is_asked(*i)) {
            let AclTest::Plugin { plugin, predicate } = &acl.test else {
                continue;
            };
            let position = calls.iter().position(|(known, _)| known == plugin).unwrap_or_else(|| {
                let call = self.attach_plugin(*plugin).map(|attachment| AclCall {
                    attachment,
                    answers: Vec::new(),
                });
                calls.push((*plugin, call));
                calls.len() - 1
            });
            let Some(call) = &mut calls[position].1 else { continue };
            match self.predicate(&call.attachment, acl, *plugin, predicate.as_ref()) {
                Some(bit) => call.answers.push((bit, AclId(i))),
                None => calls.push((*plugin, None)),
            }
        }
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
        if bit.is_none() {
            self.errors.push(BuildError::Predicate {
                acl: acl.origin.clone(),
                plugin: self.config.plugins[plugin.0].name.clone(),
                name: name.cloned(),
                known: names.to_vec(),
            });
        }
        bit
    }

    /// What is decided when a connection has just come.
    fn admission(&mut self, frontend: &config::Frontend, rejects: &[Ending]) -> Option<Option<Admission>> {
        // Of what the line of one that is turned away depends on, if that is known by then.
        let log_when = frontend
            .log_choice
            .as_ref()
            .and_then(|choice| choice.when.as_ref())
            .filter(|when| !needs_more(frontend, when))
            .cloned();
        let asks = |acl: usize| {
            let logs = log_when.as_ref().is_some_and(|when| when.names(acl));
            logs || rejects.iter().any(|rule| rule.names(acl))
        };
        let acls = self.acls(frontend, asks);
        let limiter = self.limiter(frontend, &frontend.connection_limits);
        let sources = frontend.per_source.map(|limit| {
            let before = self.before.iter().find(|before| *before.name() == frontend.name);
            let before = before.and_then(|before| before.admission.as_ref()?.sources.as_ref());
            Sources::new(limit, before)
        });
        let (acls, limiter) = (acls?, limiter?);
        let decides = !rejects.is_empty() || limiter.is_some() || sources.is_some();
        Some(decides.then(|| Admission {
            acls,
            rejects: rejects.to_vec(),
            limiter,
            sources,
            log_when,
        }))
    }

    fn limiter(
        &mut self,
        frontend: &config::Frontend,
        limits: &[config::RateLimitId],
    ) -> Option<Option<Arc<Attachment>>> {
        if limits.is_empty() {
            return Some(None);
        }
        let config = LimitConfig {
            limits: limits.iter().map(|id| &self.config.rate_limits[id.0]).collect(),
        };
        // Limits are counted by their name, wherever they are used: `limit "per-ip"` in two frontends is one limit.
        self.attach_own(&first_party::RATE_LIMIT, "", &config, frontend)
            .map(Some)
    }

    /// `use-plugin`: a component that has a say in what the frontend speaks.
    fn filter(&mut self, id: At<PluginId>, frontend: &config::Frontend) -> Option<Arc<Attachment>> {
        let attachment = self.attach_plugin(id.value)?;
        let hooks = attachment.hooks();
        let has_a_say = match frontend.mode {
            Mode::Http => hooks.limiter || hooks.request_filter || hooks.response_filter,
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
        }
        has_a_say.then_some(attachment)
    }

    fn rewrites(&mut self, frontend: &config::Frontend) -> Option<Vec<Option<Rewrites>>> {
        let config = self.config;
        let reachable = |id: BackendId| {
            frontend.default_backend == Some(id) || frontend.routes.iter().any(|route| route.backend == id)
        };
        let mut rewrites = Vec::with_capacity(config.backends.len());
        for (i, backend) in config.backends.iter().enumerate() {
            let edits = RewriteConfig::new(frontend, backend);
            let (request, response) = (!edits.request.is_empty(), !edits.response.is_empty());
            if frontend.mode == Mode::Tcp || !reachable(BackendId(i)) || !(request || response) {
                rewrites.push(None);
                continue;
            }
            let component = first_party::header_rewrite(config);
            let attachment = self.attach_own(component, &frontend.name, &edits, frontend)?;
            rewrites.push(Some(Rewrites {
                attachment,
                request,
                response,
                conditions: edits.conditions,
            }));
        }
        Some(rewrites)
    }

    /// Attaches a component of the gateway's own.
    fn attach_own(
        &mut self,
        own: &'static first_party::FirstParty,
        namespace: &str,
        config: &impl Serialize,
        frontend: &config::Frontend,
    ) -> Option<Arc<Attachment>> {
        let compiled = self.compile(own.name, sha256(own.wasm), own.wasm, own.grants);
        let attached = compiled.and_then(|component| {
            // The model's types are texts, numbers, lists and enums: nothing of that can fail to be written.
            let config = serde_json::to_string(config).unwrap_or_default();
            let spec = AttachmentSpec {
                label: format!("{} {}", own.name, frontend.name).into(),
                namespace: format!("{}/{namespace}", own.name),
                config,
                limits: PluginLimits {
                    cpu: config::DEFAULT_PLUGIN_CPU,
                    memory: self.config.process.policy.memory,
                },
                on_failure: OWN_ON_FAILURE,
                origin: None,
            };
            self.policy.attach(&component, spec)
        });
        match attached {
            Ok(attachment) => Some(self.keep(attachment)),
            Err(source) => {
                let frontend = frontend.origin.clone();
                self.errors.push(BuildError::Own { frontend, source });
                None
            }
        }
    }

    fn attach_plugin(&mut self, id: PluginId) -> Option<Arc<Attachment>> {
        let component = self.plugins[id.0].clone()?;
        let plugin = &self.config.plugins[id.0];
        let spec = AttachmentSpec {
            label: plugin.name.clone(),
            namespace: format!("plugin/{}", plugin.name),
            config: plugin.config.clone(),
            limits: plugin.limits,
            on_failure: plugin.on_failure.unwrap_or(OWN_ON_FAILURE),
            origin: Some(plugin.origin.clone()),
        };
        match self.policy.attach(&component, spec) {
            Ok(attachment) => Some(self.keep(attachment)),
            Err(source) => {
                let plugin = PluginAt::of(plugin);
                self.errors.push(BuildError::Plugin { plugin, source });
                // Its other uses would fail in the same way: once is enough.
                self.plugins[id.0] = None;
                None
            }
        }
    }

    fn keep(&mut self, attachment: Arc<Attachment>) -> Arc<Attachment> {
        self.registry.policy(attachment.label(), attachment.stats().clone());
        self.attachments.push(attachment.clone());
        attachment
    }
}

/// Whether a condition asks for more than addresses and the time.
fn needs_more(frontend: &config::Frontend, when: &config::Condition) -> bool {
    let late = |(i, acl): (usize, &Acl)| match &acl.test {
        AclTest::Match(test) => when.names(i) && !test.needs_only_addresses(),
        AclTest::Plugin { .. } => when.names(i),
    };
    frontend.acls.iter().enumerate().any(late)
}

/// The rules of a frontend that end connections, by when they are decided.
struct Endings {
    /// By the addresses alone.
    early: Vec<Ending>,
    /// In TCP mode: when the connection's protocol begins.
    late: Vec<Ending>,
}

impl Endings {
    fn of(frontend: &config::Frontend) -> Self {
        let rejects = frontend.rejects.iter().map(|reject| Ending {
            when: Some(reject.when.clone()),
            line: reject.origin.line,
        });
        let mut rules = Self {
            early: rejects.collect(),
            late: Vec::new(),
        };
        // In HTTP mode rules answer requests; in TCP mode all of them are a `deny`.
        let denies = frontend.rules.iter().filter(|_| frontend.mode == Mode::Tcp);
        for deny in denies {
            let rule = Ending {
                when: deny.when.clone(),
                line: deny.origin.line,
            };
            match rule.when.as_ref().is_some_and(|when| needs_more(frontend, when)) {
                true => rules.late.push(rule),
                false => rules.early.push(rule),
            }
        }
        rules
    }

    /// Whether an acl is asked about when the protocol begins, or later.
    fn asks_late(&self, frontend: &config::Frontend, acl: usize) -> bool {
        match frontend.mode {
            Mode::Http => true,
            Mode::Tcp => {
                let routes = frontend.routes.iter().any(|route| route.when.names(acl));
                let logs = frontend.log_choice.as_ref().and_then(|choice| choice.when.as_ref());
                let logs = logs.is_some_and(|when| when.names(acl));
                routes || logs || self.late.iter().any(|rule| rule.names(acl))
            }
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

/// The WIT's limit: the answers of one call are the bits of one integer.
const PREDICATES_PER_CALL: usize = 64;

/// A failing component of the gateway's own is an internal error. It denies: an access rule that could not be asked must not
/// read as if it had agreed.
const OWN_ON_FAILURE: OnFailure = OnFailure::Deny(500);

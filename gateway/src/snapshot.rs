//! From a [`Config`] to what runs: certificates opened, components compiled and attached, backends made. Immutable once
//! built, shared by all workers; all or nothing.
//!
//! The one place where frontends, backends and components meet.

mod build;
mod error;
mod hosts;
mod hsts;
mod own_answers;
pub mod pages;
mod rewrites;
mod routes;
pub mod rules;
mod tenants;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::backend::resolve::Whereabouts;
use crate::backend::{Backend, Place};
use crate::certificates::Watched;
use crate::config::{self, AclId, BackendId, Config, EditCondition, InForce, ServersUp};
use crate::listener::{Sources, Termination};
use crate::policy::{self, Attachment, Budget, Crew, Exchange, Failure, Host, Warm};
use crate::telemetry::metrics::{FrontendMetrics, Registry, TenantFilesMetrics};
use crate::telemetry::trace::Collector;
pub use build::{Alone, Compiled};
pub use error::{BuildError, BuildErrors, PluginAt};
pub use hosts::HostRewrite;
pub use hsts::Hsts;
pub use own_answers::OwnAnswers;
use pages::{ErrorPages, Page};
use rewrites::RewriteConfig;
use routes::Route;
use rules::Rule;
pub use tenants::{OfTenant, TenantFull, TenantRules, UnderWay};

/// Everything that the workers need, as one value.
pub struct Snapshot {
    /// By position in the configuration.
    pub frontends: Vec<Arc<Frontend>>,
    /// By position in the configuration.
    pub backends: Vec<Arc<Backend>>,
    /// By backend: its error pages.
    pub pages: Vec<Option<ErrorPages>>,
    /// The component host.
    pub policy: Arc<Host>,
    /// The threads that call heavy and slow plugins.
    pub crew: Arc<Crew>,
    /// How many of them it needs.
    pub heavy_threads: usize,
    /// Every attachment there is, for warming.
    pub attachments: Vec<Arc<Attachment>>,
    /// By tenant that has files: CPU time that setting up its plugins may take yet, for warming.
    set_up_left: BTreeMap<Arc<str>, Duration>,
    /// What its tenants and plugins may use together, in use or not: what they have used up is not forgotten while nothing of theirs is
    /// used.
    budgets: Vec<Arc<Budget>>,
    /// The process's metrics.
    pub registry: Arc<Registry>,
    /// What was compiled for it, so that a successor need not compile it again.
    compiled: Compiled,
    /// What was made of the files of tenants' own plugins, for a successor that has to go on with it.
    made: build::MadeOfFiles,
    /// Of the tenants that include files: which of these hold.
    tenant_files: Vec<(Arc<TenantFilesMetrics>, InForce, Vec<config::TenantFault>)>,
    /// Where spans go, if anywhere.
    pub collector: Option<Arc<Collector>>,
}

/// A frontend, ready to serve.
pub struct Frontend {
    /// What was configured.
    pub config: Arc<config::Frontend>,
    /// By bind: how TLS is terminated there.
    pub tls: Vec<Option<Arc<Termination>>>,
    /// Whether a ClientHello that passes through is looked at: something of this TCP frontend asks for what it says.
    pub reads_client_hello: bool,
    /// Whether connections keep instances of plugins.
    pub keeps_instances: bool,
    /// Whether exchanges are kept to their end: components are told of them or may have tagged them, or what is answered here is edited.
    pub keeps_exchanges: bool,
    /// The components that are told of exchanges that are over, or of connections in TCP mode; in order.
    pub told: Arc<[Arc<Attachment>]>,
    /// Whether what they are told is of the request's head, too.
    pub tells_of_requests: bool,
    /// Whose bodies components may filter.
    pub filters_bodies: FiltersBodies,
    /// Its error pages.
    pub pages: Option<ErrorPages>,
    /// What is decided of a connection by its addresses alone; none where nothing is.
    pub admission: Option<Admission>,
    /// What answers the frontend's acls: in TCP mode, those that something asks for which is decided later.
    pub acls: AclCalls,
    /// `deny`, `redirect` and `return`, in order. HTTP mode.
    pub rules: Vec<Rule>,
    /// The same of the backends that it leads to, where they have any.
    pub rules_of_backends: Vec<(BackendId, Vec<Rule>)>,
    /// `use-backend`, in order.
    pub routes: Vec<Route>,
    /// In TCP mode, the denials that ask for more than addresses.
    pub late_denies: Vec<Ending>,
    /// The first-party limits of requests, in order.
    pub limiters: Vec<Limiter>,
    /// `use-plugin`, in order.
    pub plugins: Vec<Arc<Attachment>>,
    /// Those with `always`: the plugins that are asked about what is answered here, too, in the order in which they are.
    pub always: Vec<Arc<Attachment>>,
    /// By backend: the first-party rewrites of frontend and backend, in one.
    pub rewrites: Vec<Option<Rewrites>>,
    /// What is edited of responses that it makes by itself; none where that is nothing.
    pub own_answers: Option<Box<OwnAnswers>>,
    /// By backend: the hosts that its servers are asked for in place of the client's. Empty where there are none at all.
    pub hosts: Vec<Option<Box<[HostRewrite]>>>,
    /// What browsers are told of TLS; none when nothing is.
    pub hsts: Option<Hsts>,
    /// The fields of requests that only it and trusted proxies write, by names of its own; none where it has none.
    pub own_fields: Option<Arc<[HeaderName]>>,
    /// Its counters.
    pub metrics: Arc<FrontendMetrics>,
    /// Whose hosts it serves.
    pub tenants: Arc<[OfTenant]>,
    /// Whether it matters to requests whose host they ask for: there are tenants, or plugins of theirs.
    pub asks_tenants: bool,
}

/// Whose bodies components may filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FiltersBodies {
    /// Requests'.
    pub request: bool,
    /// Responses'.
    pub response: bool,
}

/// What is decided of a connection right after it was accepted.
pub struct Admission {
    /// What answers the acls that it asks for.
    pub acls: AclCalls,
    /// Who is turned away, in order.
    pub rejects: Vec<Ending>,
    /// The first-party limits of connections, in order.
    pub limiters: Vec<Limiter>,
    /// `max-connections-per-source`.
    pub sources: Option<Sources>,
    /// Of which connections that holds; none means of all.
    pub sources_when: Option<config::Condition>,
    /// Whether a line is written of who is turned away, as far as addresses say.
    pub log_when: Option<config::Condition>,
}

/// First-party limits that are asked in one call.
pub struct Limiter {
    /// What they are asked about; none means everything.
    pub when: Option<config::Condition>,
    /// What answers.
    pub attachment: Arc<Attachment>,
}

/// A rule that ends a connection.
#[derive(Debug, Clone)]
pub struct Ending {
    /// When; none means always.
    pub when: Option<config::Condition>,
    /// Its line in the configuration, for the log.
    pub line: usize,
}

/// What answers acls.
#[derive(Default)]
pub struct AclCalls {
    /// Calls of components.
    pub calls: Vec<AclCall>,
    /// What is counted here.
    pub servers: Vec<(AclId, ServersUp)>,
}

impl AclCalls {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.servers.is_empty()
    }
}

/// One call that answers several acls.
pub struct AclCall {
    /// The component.
    pub attachment: Arc<Attachment>,
    /// Which bit of the answer is which acl.
    pub answers: Vec<(u32, AclId)>,
    /// Of a shadow, which is not obeyed, in the place of these: which bit is compared with which acl, of which name.
    pub compared: Vec<(u32, AclId, Arc<str>)>,
}

/// The first-party rewrites on the way to one backend.
pub struct Rewrites {
    /// The component.
    pub attachment: Arc<Attachment>,
    /// Whether it edits requests.
    pub request: bool,
    /// Whether it edits responses.
    pub response: bool,
    /// What its edits depend on: a bit of the exchange's `conditions` each.
    pub conditions: Vec<EditCondition>,
    /// Whether some of that is the response's status.
    pub asks_status: bool,
}

impl Rewrites {
    /// What `edits` come to, which the component makes.
    fn new(attachment: Arc<Attachment>, edits: RewriteConfig) -> Self {
        Self {
            attachment,
            request: !edits.request.is_empty(),
            response: !edits.response.is_empty(),
            asks_status: edits.conditions.iter().any(|condition| condition.statuses.is_some()),
            conditions: edits.conditions,
        }
    }

    /// Which of its conditions hold, a bit each, as far as the request decides that.
    pub fn conditions(&self, answers: &AclAnswers) -> u64 {
        self.bits(|condition| condition.when.as_ref().is_none_or(|when| answers.hold(when)))
    }

    /// The same where nothing has been asked of a request: what depends on it does not hold, whichever way it is asked.
    pub fn conditions_unasked(&self) -> u64 {
        self.bits(|condition| condition.when.is_none())
    }

    /// Which of these that hold for the request do for a response with this status, too.
    pub fn conditions_of_response(&self, of_request: u64, status: StatusCode) -> u64 {
        if !self.asks_status {
            return of_request;
        }
        let has_status = |statuses: &config::StatusSet| statuses.contains(status.as_u16());
        of_request & self.bits(|condition| condition.statuses.as_ref().is_none_or(has_status))
    }

    fn bits(&self, holds: impl Fn(&EditCondition) -> bool) -> u64 {
        let numbered = self.conditions.iter().enumerate();
        numbered.fold(0, |bits, (number, condition)| {
            bits | u64::from(holds(condition)) << number
        })
    }
}

/// Answers to a frontend's acls.
#[derive(Debug, Clone, Copy, Default)]
pub struct AclAnswers([u64; config::MAX_ACLS / 64]);

impl Snapshot {
    /// Builds what `config` says. `places` has, by backend and server, where each server is. `previous` is what
    /// ran before: its component host with the token buckets goes on, and the components that are the same are not compiled
    /// again; nor are those of `spare`, which gets what was compiled in vain. Fails with everything that is in the way.
    pub fn build(
        config: &Config,
        places: Vec<Vec<Place>>,
        registry: &Arc<Registry>,
        previous: Option<&Self>,
        spare: &mut Compiled,
    ) -> Result<Self, BuildErrors> {
        build::snapshot(config, places, registry, previous, spare)
    }

    /// Makes instances for so many workers to begin with. Runs guest code: not for a worker thread.
    ///
    /// # Errors
    /// When one of the operator's cannot be made: what came up once may find no room a second time.
    pub fn warm(&self, workers: usize) -> Result<Vec<Warm>, Failure> {
        Warm::for_workers(workers, &self.policy, &self.attachments, self.set_up_left.clone())
    }

    /// From now on what configurations share is as this one says. To be called once, when nothing can keep it from serving.
    pub fn adopt(&self) {
        self.backends.iter().for_each(|backend| backend.adopt());
        self.attachments.iter().for_each(|attachment| attachment.adopt());
        self.crew.serve(&self.attachments);
        for (metrics, in_force, faults) in &self.tenant_files {
            metrics.set(*in_force, faults);
        }
    }

    /// All that is made of files which may change while it serves.
    pub fn watched(&self) -> Vec<Arc<dyn Watched>> {
        let ends = self.frontends.iter().flat_map(|frontend| frontend.tls.iter().flatten());
        let ends = ends.map(|end| Arc::clone(end) as Arc<dyn Watched>);
        let servers = self.backends.iter().flat_map(|backend| &backend.servers);
        let checks = self.backends.iter().filter_map(|backend| backend.check_tls.clone());
        let connectors = servers.filter_map(|server| server.connector()).chain(checks);
        ends.chain(connectors.map(|connector| connector as Arc<dyn Watched>))
            .collect()
    }

    /// The frontend of that name, if it speaks that.
    pub fn frontend(&self, name: &str, mode: config::Mode) -> Option<&Arc<Frontend>> {
        self.frontends
            .iter()
            .find(|frontend| **frontend.name() == *name && frontend.config.mode == mode)
    }

    /// Where the named server of a backend is, if it has a name.
    pub fn whereabouts(&self, backend: &str, server: &str) -> Option<&Arc<Whereabouts>> {
        let backend = self.backends.iter().find(|known| *known.name == *backend)?;
        let server = backend.servers.iter().find(|known| *known.name == *server)?;
        match server.place() {
            Place::Named(whereabouts) => Some(whereabouts),
            Place::Fixed(_) => None,
        }
    }

    /// The page that says this status in place of the gateway's own words: the backend's, if it came to one, before the
    /// frontend's.
    pub fn page<'a>(
        &'a self,
        frontend: &'a Frontend,
        backend: Option<BackendId>,
        status: StatusCode,
    ) -> Option<&'a Page> {
        let of_backend = backend.and_then(|id| self.pages.get(id.0)?.as_ref()?.get(status));
        of_backend.or_else(|| frontend.pages.as_ref()?.get(status))
    }

    /// The page that takes the place of a server's answer with this status: the backend's, if that is one, before the frontend's.
    pub fn intercepting<'a>(
        &'a self,
        frontend: &'a Frontend,
        backend: BackendId,
        status: StatusCode,
    ) -> Option<&'a Page> {
        let of_backend = self.pages.get(backend.0).and_then(Option::as_ref);
        let sections = [of_backend, frontend.pages.as_ref()];
        sections
            .into_iter()
            .flatten()
            .find_map(|pages| pages.intercepting(status))
    }

    /// Whether a configuration can run here: opens its certificates, compiles and attaches its components, as
    /// [`build`](Self::build) does, and lets go of them. Root may ask on behalf of the user that the gateway runs as: then it
    /// compiles anew, and leaves the folder alone that compiled components are kept in.
    pub fn check(config: &Config) -> Result<(), BuildErrors> {
        let mut config = config.clone();
        config
            .process
            .compile_cache
            .take_if(|cache| policy::cache_is_of_another(cache));
        let nowhere = Place::Fixed(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into());
        let places: Vec<_> = config
            .backends
            .iter()
            .map(|backend| vec![nowhere.clone(); backend.servers.len()])
            .collect();
        Self::build(&config, places, &Registry::new(), None, &mut Compiled::default()).map(drop)
    }
}

impl Frontend {
    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// The same without components and certificates: for what may outlive its configuration by hours.
    pub fn without_policy(&self) -> Arc<Self> {
        Arc::new(Self {
            config: self.config.clone(),
            tls: Vec::new(),
            reads_client_hello: false,
            keeps_instances: false,
            keeps_exchanges: self.keeps_exchanges,
            told: Arc::default(),
            tells_of_requests: false,
            filters_bodies: FiltersBodies::default(),
            pages: None,
            admission: None,
            acls: AclCalls::default(),
            rules: Vec::new(),
            rules_of_backends: Vec::new(),
            routes: Vec::new(),
            late_denies: Vec::new(),
            limiters: Vec::new(),
            plugins: Vec::new(),
            always: Vec::new(),
            rewrites: Vec::new(),
            own_answers: None,
            hosts: Vec::new(),
            hsts: None,
            own_fields: None,
            metrics: self.metrics.clone(),
            tenants: match self.asks_tenants {
                true => self.tenants.iter().map(OfTenant::without_rules).collect(),
                false => self.tenants.clone(),
            },
            asks_tenants: false,
        })
    }

    /// Whose host a request asks for, as it stands there.
    pub fn tenant(&self, host: Option<&[u8]>) -> Option<&OfTenant> {
        if self.tenants.is_empty() {
            return None;
        }
        self.tenant_of(&policy::asked_host(host?)?)
    }

    /// Whose host it is, as [`policy::asked_host`] has it.
    pub fn tenant_of(&self, host: &str) -> Option<&OfTenant> {
        self.tenants.iter().find(|of| of.tenant.owns(host))
    }

    /// The rules of a backend that a request has come to.
    pub fn rules_of(&self, backend: BackendId) -> &[Rule] {
        let of = self.rules_of_backends.iter().find(|(of, _)| *of == backend);
        of.map_or(&[], |(_, rules)| rules)
    }

    /// Where a request or connection goes: the first rule that holds and leads somewhere, the frontend's before those of the tenant
    /// whose host was asked for; else the default.
    pub fn route(
        &self,
        answers: &AclAnswers,
        exchange: &Exchange,
        tenant: Option<&(&TenantRules, AclAnswers)>,
    ) -> Option<BackendId> {
        let first = |routes: &[Route], answers| routes.iter().find_map(|route| route.leads(answers, exchange));
        let tenants = || tenant.and_then(|(rules, answers)| first(&rules.routes, answers));
        let routed = first(&self.routes, answers).or_else(tenants);
        routed.or(self.config.default_backend)
    }

    /// The host that a backend's servers are asked for in place of the client's, if they are for another.
    pub fn host_for(&self, backend: BackendId, answers: &AclAnswers) -> Option<&HostRewrite> {
        let rewrites = self.hosts.get(backend.0)?.as_ref()?;
        rewrites.iter().rev().find(|rewrite| rewrite.holds(answers))
    }

    /// The rewrites on the way to a backend, where there are any.
    pub fn rewrites(&self, backend: BackendId) -> Option<&Rewrites> {
        self.rewrites.get(backend.0)?.as_ref()
    }
}

impl Limiter {
    /// Whether it is asked about what the acls say this of.
    pub fn applies(&self, answers: &AclAnswers) -> bool {
        self.when.as_ref().is_none_or(|when| answers.hold(when))
    }
}

impl Ending {
    /// Whether it asks for the acl at this position.
    pub fn names(&self, acl: usize) -> bool {
        self.when.as_ref().is_some_and(|when| when.names(acl))
    }

    /// Its line, when it applies.
    pub fn stops(&self, answers: &AclAnswers) -> Option<usize> {
        let applies = self.when.as_ref().is_none_or(|when| answers.hold(when));
        applies.then_some(self.line)
    }
}

impl AclAnswers {
    /// Notes that an acl holds.
    pub fn set(&mut self, acl: AclId) {
        if let Some(word) = self.0.get_mut(acl.0 / 64) {
            *word |= 1 << (acl.0 % 64);
        }
    }

    /// Whether an acl holds.
    pub fn get(&self, acl: AclId) -> bool {
        self.0.get(acl.0 / 64).is_some_and(|word| word >> (acl.0 % 64) & 1 == 1)
    }

    /// Which of so many conditions hold, a bit each: of 64 at most.
    pub fn holding(&self, conditions: &[config::Condition]) -> u64 {
        let numbered = conditions.iter().enumerate();
        numbered.fold(0, |bits, (number, condition)| {
            bits | u64::from(self.hold(condition)) << number
        })
    }

    /// Whether a condition holds.
    pub fn hold(&self, condition: &config::Condition) -> bool {
        match condition {
            config::Condition::Acl(acl) => self.get(*acl),
            config::Condition::Not(inner) => !self.hold(inner),
            config::Condition::And(all) => all.iter().all(|inner| self.hold(inner)),
            config::Condition::Or(any) => any.iter().any(|inner| self.hold(inner)),
        }
    }
}

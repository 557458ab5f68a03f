//! From a [`Config`] to what runs: certificates opened, components compiled and attached, backends made. Immutable once
//! built, shared by all workers; all or nothing.
//!
//! The one place where frontends, backends and components meet.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use serde::Serialize;

use crate::backend::Backend;
use crate::config::{self, AclId, AclTest, BackendId, Config, Mode, OnFailure, PluginId, PluginLimits};
use crate::listener::{TlsError, server_config};
use crate::policy::{Attachment, AttachmentSpec, Component, Host, HostSettings, PolicyError, first_party};
use crate::telemetry::metrics::{FrontendMetrics, Registry};

/// Everything that the workers need, as one value.
pub struct Snapshot {
    /// By position in the configuration.
    pub frontends: Vec<Arc<Frontend>>,
    /// By position in the configuration.
    pub backends: Vec<Arc<Backend>>,
    /// The component host.
    pub policy: Arc<Host>,
    /// Every attachment there is, for warming.
    pub attachments: Vec<Arc<Attachment>>,
    /// The process's metrics.
    pub registry: Arc<Registry>,
}

/// A frontend, ready to serve.
pub struct Frontend {
    /// What was configured.
    pub config: config::Frontend,
    /// By bind: how TLS is terminated there.
    pub tls: Vec<Option<Arc<ServerConfig>>>,
    /// Calls that answer the frontend's acls.
    pub acls: Vec<AclCall>,
    /// The first-party rate limits, all in one.
    pub limiter: Option<Arc<Attachment>>,
    /// `use-plugin`, in order.
    pub plugins: Vec<Arc<Attachment>>,
    /// By backend: the first-party rewrites of frontend and backend, in one.
    pub rewrites: Vec<Option<Rewrites>>,
    /// Its counters.
    pub metrics: Arc<FrontendMetrics>,
}

/// One call that answers several acls.
pub struct AclCall {
    /// The component.
    pub attachment: Arc<Attachment>,
    /// Which bit of the answer is which acl.
    pub answers: Vec<(u32, AclId)>,
}

/// The first-party rewrites on the way to one backend.
pub struct Rewrites {
    /// The component.
    pub attachment: Arc<Attachment>,
    /// Whether it edits requests.
    pub request: bool,
    /// Whether it edits responses.
    pub response: bool,
}

/// Answers to a frontend's acls.
#[derive(Debug, Clone, Copy, Default)]
pub struct AclAnswers([u64; config::MAX_ACLS / 64]);

/// Why a valid configuration cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A certificate cannot be used.
    #[error("frontend {frontend:?}: {source}")]
    Tls {
        /// The frontend.
        frontend: Arc<str>,
        /// Why.
        source: TlsError,
    },
    /// A component cannot be used.
    #[error("{}:{}: plugin {name:?}: {source}", origin.file, origin.line)]
    Plugin {
        /// The plugin.
        name: Arc<str>,
        /// Where it is configured.
        origin: config::Origin,
        /// Why.
        source: PolicyError,
    },
    /// A component's file cannot be read, or is not the one that was meant.
    #[error("{}:{}: plugin {name:?}: {reason}", origin.file, origin.line)]
    PluginFile {
        /// The plugin.
        name: Arc<str>,
        /// Where it is configured.
        origin: config::Origin,
        /// Why.
        reason: String,
    },
    /// The component host, or a component of the gateway's own, does not start.
    #[error("policy: {0}")]
    Policy(#[from] PolicyError),
    /// A component's configuration could not be written as JSON.
    #[error("policy configuration: {0}")]
    Json(#[from] serde_json::Error),
}

impl Snapshot {
    /// Builds what `config` says. `addresses` has, by backend and server, where each server is.
    pub fn build(config: &Config, addresses: &[Vec<SocketAddr>], registry: &Arc<Registry>) -> Result<Self, BuildError> {
        let policy = Host::new(HostSettings {
            instances: config.process.policy.instances,
            memory: config.process.policy.memory,
            max_buckets: config.process.max_buckets,
        })?;
        let backends = config
            .backends
            .iter()
            .enumerate()
            .map(|(id, backend)| Backend::new(backend, BackendId(id), &addresses[id], registry))
            .collect();
        let mut builder = Builder {
            config,
            policy: &policy,
            registry,
            first_party: FirstParty::default(),
            plugins: Vec::new(),
            attachments: Vec::new(),
        };
        for id in 0..config.plugins.len() {
            let component = builder.load(PluginId(id))?;
            builder.plugins.push(component);
        }
        let frontends = config
            .frontends
            .iter()
            .map(|frontend| builder.frontend(frontend).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let attachments = builder.attachments;
        Ok(Self {
            frontends,
            backends,
            registry: registry.clone(),
            policy,
            attachments,
        })
    }
}

impl Frontend {
    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// Where a request or connection goes: the first rule that holds, else the default.
    pub fn route(&self, answers: &AclAnswers) -> Option<BackendId> {
        let routes = &self.config.routes;
        let routed = routes
            .iter()
            .find(|route| answers.hold(&route.when))
            .map(|route| route.backend);
        routed.or(self.config.default_backend)
    }

    /// The backend of that name, if the frontend's own rules could choose it.
    pub fn reachable(&self, name: &str, snapshot: &Snapshot) -> Option<BackendId> {
        let routes = self.config.routes.iter().map(|route| route.backend);
        routes
            .chain(self.config.default_backend)
            .find(|id| &*snapshot.backends[id.0].name == name)
    }

    /// The rewrites on the way to a backend, where there are any.
    pub fn rewrites(&self, backend: BackendId) -> Option<&Rewrites> {
        self.rewrites.get(backend.0)?.as_ref()
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

struct Builder<'a> {
    config: &'a Config,
    policy: &'a Arc<Host>,
    registry: &'a Arc<Registry>,
    first_party: FirstParty,
    /// By position in the configuration.
    plugins: Vec<Arc<Component>>,
    attachments: Vec<Arc<Attachment>>,
}

/// The gateway's own components, compiled when first needed.
#[derive(Default)]
struct FirstParty {
    acl: Option<Arc<Component>>,
    header_rewrite: Option<Arc<Component>>,
    rate_limit: Option<Arc<Component>>,
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

#[derive(Serialize)]
struct RewriteConfig<'a> {
    request: Vec<&'a config::RequestEdit>,
    response: Vec<&'a config::ResponseEdit>,
}

impl Builder<'_> {
    fn load(&self, id: PluginId) -> Result<Arc<Component>, BuildError> {
        let plugin = &self.config.plugins[id.0];
        let file_error = |reason: String| BuildError::PluginFile {
            name: plugin.name.clone(),
            origin: plugin.origin.clone(),
            reason,
        };
        let wasm =
            std::fs::read(&plugin.path).map_err(|error| file_error(format!("{}: {error}", plugin.path.display())))?;
        if let Some(expected) = plugin.sha256 {
            let found = sha256(&wasm);
            if found != expected {
                return Err(file_error(format!(
                    "{} has the SHA-256 {}, not the configured {}: it is another file than the one that was meant",
                    plugin.path.display(),
                    hex(&found),
                    hex(&expected),
                )));
            }
        }
        self.policy
            .compile(&plugin.name, &wasm, &plugin.grants)
            .map_err(|source| BuildError::Plugin {
                name: plugin.name.clone(),
                origin: plugin.origin.clone(),
                source,
            })
    }

    fn frontend(&mut self, frontend: &config::Frontend) -> Result<Frontend, BuildError> {
        let tls = frontend
            .binds
            .iter()
            .map(|bind| match &bind.tls {
                None => Ok(None),
                Some(tls) => server_config(tls, frontend.mode)
                    .map(Some)
                    .map_err(|source| BuildError::Tls {
                        frontend: frontend.name.clone(),
                        source,
                    }),
            })
            .collect::<Result<_, _>>()?;
        let plugins = frontend
            .plugins
            .iter()
            .map(|id| self.attach_plugin(*id))
            .collect::<Result<_, _>>()?;
        Ok(Frontend {
            tls,
            acls: self.acls(frontend)?,
            limiter: self.limiter(frontend)?,
            plugins,
            rewrites: self.rewrites(frontend)?,
            metrics: self.registry.frontend(&frontend.name),
            config: frontend.clone(),
        })
    }

    /// One call for all of the gateway's own predicates (or several, where there are more than one call can answer), and
    /// one for each third-party plugin.
    fn acls(&mut self, frontend: &config::Frontend) -> Result<Vec<AclCall>, BuildError> {
        let mut calls = Vec::new();
        let own: Vec<_> = frontend
            .acls
            .iter()
            .enumerate()
            .filter_map(|(i, acl)| match &acl.test {
                AclTest::Match(when) => Some((AclId(i), &*acl.name, when)),
                AclTest::Plugin { .. } => None,
            })
            .collect();
        for chunk in own.chunks(PREDICATES_PER_CALL) {
            let config = AclConfig {
                predicates: chunk.iter().map(|(_, name, when)| NamedMatch { name, when }).collect(),
            };
            let component = compile_once(&mut self.first_party.acl, self.policy, first_party::acl(self.config))?;
            let attachment = self.attach_own(&component, "acl", &frontend.name, serde_json::to_string(&config)?)?;
            let answers = (0u32..).zip(chunk).map(|(bit, (id, ..))| (bit, *id)).collect();
            calls.push(AclCall { attachment, answers });
        }
        for (i, acl) in frontend.acls.iter().enumerate() {
            let AclTest::Plugin { plugin, predicate } = &acl.test else {
                continue;
            };
            let attachment = self.attach_plugin(*plugin)?;
            let names = attachment.predicates();
            let bit = match predicate {
                None if !names.is_empty() => Some(0),
                None => None,
                Some(name) => names.iter().position(|known| known == name),
            };
            let Some(bit) = bit else {
                return Err(BuildError::PluginFile {
                    name: self.config.plugins[plugin.0].name.clone(),
                    origin: acl.origin.clone(),
                    reason: match predicate {
                        Some(name) => format!("has no predicate {name:?}; it has: {}", names.join(", ")),
                        None => "has no predicates, so that an acl cannot ask it".to_owned(),
                    },
                });
            };
            let answers = vec![(u32::try_from(bit).unwrap_or(u32::MAX), AclId(i))];
            calls.push(AclCall { attachment, answers });
        }
        Ok(calls)
    }

    fn limiter(&mut self, frontend: &config::Frontend) -> Result<Option<Arc<Attachment>>, BuildError> {
        if frontend.limits.is_empty() {
            return Ok(None);
        }
        let config = LimitConfig {
            limits: frontend
                .limits
                .iter()
                .map(|id| &self.config.rate_limits[id.0])
                .collect(),
        };
        let component = compile_once(&mut self.first_party.rate_limit, self.policy, &first_party::RATE_LIMIT)?;
        // Limits are counted by their name, wherever they are used: `limit "per-ip"` in two frontends is one limit.
        self.attach_own(&component, "rate-limit", "", serde_json::to_string(&config)?)
            .map(Some)
    }

    fn rewrites(&mut self, frontend: &config::Frontend) -> Result<Vec<Option<Rewrites>>, BuildError> {
        let reachable = |id: BackendId| {
            frontend.default_backend == Some(id) || frontend.routes.iter().any(|route| route.backend == id)
        };
        let mut rewrites = Vec::with_capacity(self.config.backends.len());
        for (i, backend) in self.config.backends.iter().enumerate() {
            let config = RewriteConfig {
                request: frontend.request_edits.iter().chain(&backend.request_edits).collect(),
                response: backend.response_edits.iter().chain(&frontend.response_edits).collect(),
            };
            let (request, response) = (!config.request.is_empty(), !config.response.is_empty());
            if frontend.mode == Mode::Tcp || !reachable(BackendId(i)) || !(request || response) {
                rewrites.push(None);
                continue;
            }
            let component = compile_once(
                &mut self.first_party.header_rewrite,
                self.policy,
                first_party::header_rewrite(self.config),
            )?;
            let attachment = self.attach_own(
                &component,
                "header-rewrite",
                &frontend.name,
                serde_json::to_string(&config)?,
            )?;
            rewrites.push(Some(Rewrites {
                attachment,
                request,
                response,
            }));
        }
        Ok(rewrites)
    }

    fn attach_own(
        &mut self,
        component: &Arc<Component>,
        label: &str,
        namespace: &str,
        config: String,
    ) -> Result<Arc<Attachment>, BuildError> {
        let attachment = self.policy.attach(
            component,
            AttachmentSpec {
                label: Arc::from(label),
                namespace: format!("{label}/{namespace}"),
                config,
                limits: PluginLimits {
                    cpu: config::DEFAULT_PLUGIN_CPU,
                    memory: self.config.process.policy.memory,
                },
                on_failure: OWN_ON_FAILURE,
                origin: None,
            },
        )?;
        self.registry.policy(attachment.label(), attachment.stats().clone());
        self.attachments.push(attachment.clone());
        Ok(attachment)
    }

    fn attach_plugin(&mut self, id: PluginId) -> Result<Arc<Attachment>, BuildError> {
        let plugin = &self.config.plugins[id.0];
        let attachment = self
            .policy
            .attach(
                &self.plugins[id.0],
                AttachmentSpec {
                    label: plugin.name.clone(),
                    namespace: format!("plugin/{}", plugin.name),
                    config: plugin.config.clone(),
                    limits: plugin.limits,
                    on_failure: plugin.on_failure.unwrap_or(OWN_ON_FAILURE),
                    origin: Some(plugin.origin.clone()),
                },
            )
            .map_err(|source| BuildError::Plugin {
                name: plugin.name.clone(),
                origin: plugin.origin.clone(),
                source,
            })?;
        self.registry.policy(attachment.label(), attachment.stats().clone());
        self.attachments.push(attachment.clone());
        Ok(attachment)
    }
}

fn compile_once(
    slot: &mut Option<Arc<Component>>,
    policy: &Arc<Host>,
    own: &first_party::FirstParty,
) -> Result<Arc<Component>, PolicyError> {
    if let Some(component) = slot {
        return Ok(component.clone());
    }
    let component = policy.compile(own.name, own.wasm, own.grants)?;
    Ok(slot.insert(component).clone())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The WIT's limit: the answers of one call are the bits of one integer.
const PREDICATES_PER_CALL: usize = 64;

/// A failing component of the gateway's own is an internal error. It denies: an access rule that could not be asked must not
/// read as if it had agreed.
const OWN_ON_FAILURE: OnFailure = OnFailure::Deny(500);

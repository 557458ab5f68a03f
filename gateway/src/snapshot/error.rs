//! Why a configuration that is valid in itself cannot run here, and where in it.

mod fault;
mod tls_fault;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use miette::SourceSpan;

use super::pages::PageError;
use crate::certificates::TlsError;
use crate::config::{
    self, At, BindTls, ComponentSource, ConfigError, ConfigErrors, Grant, Mode, Origin, Places, ServerTls, Source,
};
use crate::policy::maps::MapError;
use crate::policy::{FailureKind, Hooks, PolicyError};
use crate::signatures::{KeyError, Unsigned};

/// Everything that is in the way. Never empty.
pub struct BuildErrors(Vec<BuildError>);

/// One thing that is in the way.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The component host does not start.
    #[error("{0}")]
    Host(PolicyError),
    /// A bind's certificate or key cannot be used.
    #[error("{source}")]
    Tls {
        /// The bind.
        bind: Origin,
        /// What it says.
        tls: Box<BindTls>,
        /// Why.
        source: TlsError,
    },
    /// TLS to a server cannot be made ready.
    #[error("{source}")]
    ServerTls {
        /// What is said of the server.
        tls: Box<ServerTls>,
        /// Why.
        source: TlsError,
    },
    /// A file with what a collector is sent in a header cannot be used.
    #[error("{}: {why}", path.value.display())]
    CollectorHeader {
        /// The `tracing` that names it.
        origin: Origin,
        /// The file.
        path: At<PathBuf>,
        /// Why.
        why: String,
    },
    /// A component's file cannot be read.
    #[error("plugin {:?}: {}: {source}", plugin.name, plugin.component.value)]
    PluginFile {
        /// The plugin.
        plugin: PluginAt,
        /// Why.
        source: io::Error,
    },
    /// A component's file is not the one that was meant.
    #[error("plugin {:?}: {} has another SHA-256 digest than the configured one", plugin.name, plugin.component.value)]
    Digest {
        /// The plugin.
        plugin: PluginAt,
        /// Where the digest was written.
        at: SourceSpan,
        /// The digest it has.
        found: [u8; 32],
    },
    /// A component is signed by nobody who is trusted.
    #[error("plugin {:?}: {} is not signed by a trusted key: {source}", plugin.name, plugin.component.value)]
    Unsigned {
        /// The plugin.
        plugin: PluginAt,
        /// The keys that are trusted.
        tried: String,
        /// Why.
        source: Unsigned,
    },
    /// A key that is trusted cannot be used.
    #[error("{source}")]
    TrustedKey {
        /// The node that names it.
        origin: Origin,
        /// Its file.
        path: At<PathBuf>,
        /// Why.
        source: KeyError,
    },
    /// A file whose text goes into a component's configuration cannot be read, or has no text.
    #[error("plugin {:?}: {}: {message}", plugin.name, path.value.display())]
    ConfigFile {
        /// The plugin.
        plugin: PluginAt,
        /// The file.
        path: At<PathBuf>,
        /// Why.
        message: String,
    },
    /// What a component says of its configuration cannot be used.
    #[error("plugin {:?}: the schema of its configuration cannot be used: {message}", plugin.name)]
    Schema {
        /// The plugin.
        plugin: PluginAt,
        /// Why.
        message: String,
    },
    /// A plugin's configuration is not as its component's schema has it.
    #[error("plugin {plugin:?}: {}", fault.message())]
    Setting {
        /// The plugin.
        plugin: Arc<str>,
        /// Where it stands.
        origin: Origin,
        /// What is wrong, and where.
        fault: ConfigError,
    },
    /// A component cannot be used, or not like this.
    #[error("plugin {:?}: {}", plugin.name, without_label(source, &plugin.name))]
    Plugin {
        /// The plugin.
        plugin: PluginAt,
        /// Why.
        source: PolicyError,
    },
    /// An acl asks for a predicate that its plugin does not have.
    #[error("{}", no_predicate(plugin, name.as_ref()))]
    Predicate {
        /// The acl.
        acl: Origin,
        /// The plugin.
        plugin: Arc<str>,
        /// The predicate; none when the acl leaves the choice to the plugin.
        name: Option<At<String>>,
        /// Those that it has.
        known: Vec<String>,
    },
    /// `use-plugin` of a component that would never be called there.
    #[error("plugin {plugin:?} does nothing in this frontend: it has no hook for {}", subject(*mode))]
    NoHook {
        /// The frontend.
        frontend: Origin,
        /// Where it uses the plugin.
        at: SourceSpan,
        /// The plugin.
        plugin: Arc<str>,
        /// What the frontend speaks.
        mode: Mode,
        /// The hooks that it has.
        hooks: Hooks,
    },
    /// A plugin is used as a shadow of which nothing would be compared.
    #[error("plugin {plugin:?} has no hook that a shadow is asked by")]
    Incomparable {
        /// The frontend.
        frontend: Origin,
        /// Where it uses the plugin.
        at: SourceSpan,
        /// The plugin.
        plugin: Arc<str>,
        /// The hooks that it has.
        hooks: Hooks,
    },
    /// `always` at a plugin that no response is filtered by.
    #[error("`always` does nothing for plugin {plugin:?}")]
    NeverAlways {
        /// The frontend.
        frontend: Origin,
        /// Where it says so.
        at: SourceSpan,
        /// The plugin.
        plugin: Arc<str>,
        /// What the frontend speaks.
        mode: Mode,
    },
    /// A file that responses are made of cannot be used.
    #[error("{}: {source}", path.value.display())]
    File {
        /// The node that names it.
        origin: Origin,
        /// The file.
        path: At<PathBuf>,
        /// Why.
        source: PageError,
    },
    /// A map's file cannot be used.
    #[error("{}{}: {}", map.path.value.display(), at_line(error.line), error.message)]
    Map {
        /// The map.
        map: config::MapFile,
        /// Why.
        error: MapError,
    },
    /// A map has a value that should name a backend and names none.
    #[error("{}{}: there is no backend {name:?}", map.path.value.display(), at_line(*line))]
    MappedBackend {
        /// The map.
        map: config::MapFile,
        /// The line of its file; 0 for its default.
        line: usize,
        /// The name.
        name: String,
        /// The route that would lead there.
        route: Origin,
    },
    /// A rule cannot be made ready.
    #[error("this rule cannot be made ready: {message}")]
    Rule {
        /// The rule.
        origin: Origin,
        /// Why.
        message: String,
    },
    /// A component of the gateway's own does not start.
    #[error("the gateway's own component {source}")]
    Own {
        /// The frontend that needs it, or what a tenant says.
        origin: Origin,
        /// Why.
        source: PolicyError,
    },
}

/// What is said of a plugin whose component cannot be used.
#[derive(Debug, Clone)]
pub struct PluginAt {
    name: Arc<str>,
    origin: Origin,
    component: At<ComponentSource>,
    grants: Vec<Grant>,
    config: Places,
    /// Where the use is said that it fails in; none where it would fail in every one.
    used: Option<SourceSpan>,
}

impl BuildErrors {
    /// One error alone.
    pub(super) fn new(error: BuildError) -> Self {
        Self(vec![error])
    }

    /// Whether this is for want of what all share, so that no part of the configuration is to blame: the same one may be taken
    /// a moment later.
    pub fn is_want(&self) -> bool {
        let is_want = |error: &BuildError| match error {
            BuildError::Host(_) => true,
            BuildError::Plugin { source, .. } | BuildError::Own { source, .. } => match source {
                PolicyError::Failed { failure, .. } => failure.kind == FailureKind::StoreFull,
                PolicyError::Engine(_) | PolicyError::Compiler { .. } => true,
                _ => false,
            },
            _ => false,
        };
        self.0.iter().any(is_want)
    }

    /// What was built, unless there are errors.
    pub(super) fn or<T>(built: Option<T>, mut errors: Vec<BuildError>) -> Result<T, Self> {
        let engine = |error: &mut BuildError| match error {
            BuildError::Plugin { source, .. } | BuildError::Own { source, .. } => {
                matches!(source, PolicyError::Engine(_) | PolicyError::NotExecutable(_))
            }
            _ => false,
        };
        // Without an engine no component is to be had: that is one error, and no component's.
        if let Some(BuildError::Plugin { source, .. } | BuildError::Own { source, .. }) =
            errors.extract_if(.., engine).next()
        {
            return Err(Self::new(BuildError::Host(source)));
        }
        match built {
            Some(built) if errors.is_empty() => Ok(built),
            _ => Err(Self(errors)),
        }
    }

    /// The errors, in the order in which they were found.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &BuildError> {
        self.0.iter()
    }

    /// The same as faults of the text that the configuration was read from.
    pub fn locate(&self, source: &Source) -> ConfigErrors {
        source.errors(self.faults())
    }

    /// The same, each by itself.
    pub fn faults(&self) -> Vec<ConfigError> {
        self.0.iter().map(BuildError::fault).collect()
    }
}

/// One line an error, with the place where there is one: for logs.
impl fmt::Display for BuildErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            if let Some(origin) = error.origin() {
                write!(f, "{}:{}: ", origin.file, origin.line)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for BuildErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

impl std::error::Error for BuildErrors {}

impl BuildError {
    /// Where in the configuration what it is about stands; nowhere for the process as a whole.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Host(_) => None,
            Self::ServerTls { tls, .. } => Some(&tls.origin),
            Self::File { origin, .. }
            | Self::Rule { origin, .. }
            | Self::TrustedKey { origin, .. }
            | Self::CollectorHeader { origin, .. } => Some(origin),
            Self::Map { map, .. } | Self::MappedBackend { map, .. } => Some(&map.origin),
            Self::Tls { bind: origin, .. }
            | Self::Predicate { acl: origin, .. }
            | Self::NoHook { frontend: origin, .. }
            | Self::Incomparable { frontend: origin, .. }
            | Self::NeverAlways { frontend: origin, .. }
            | Self::Setting { origin, .. }
            | Self::Own { origin, .. } => Some(origin),
            Self::PluginFile { plugin, .. }
            | Self::Unsigned { plugin, .. }
            | Self::ConfigFile { plugin, .. }
            | Self::Digest { plugin, .. }
            | Self::Schema { plugin, .. }
            | Self::Plugin { plugin, .. } => Some(&plugin.origin),
        }
    }
}

impl PluginAt {
    /// Of this plugin.
    pub(super) fn of(plugin: &config::Plugin) -> Self {
        Self {
            name: plugin.name.clone(),
            origin: plugin.origin.clone(),
            component: plugin.component.clone(),
            grants: plugin.grants.clone(),
            config: plugin.config_places.clone(),
            used: None,
        }
    }

    /// Of this plugin, in one use of it: a tenant's file may use an operator's plugin, and be what is at fault.
    pub(super) fn used(plugin: &config::Plugin, used: Option<&config::UsedPlugin>) -> Self {
        Self {
            used: used.map(|used| used.plugin.span),
            ..Self::of(plugin)
        }
    }
}

/// Where in a file.
fn at_line(line: usize) -> String {
    match line {
        0 => String::new(),
        line => format!(":{line}"),
    }
}

/// What a component's error says beside its name, which stands in front of it.
fn without_label(error: &PolicyError, label: &str) -> String {
    let text = error.to_string();
    let rest = text.strip_prefix(label).and_then(|rest| rest.strip_prefix(": "));
    rest.map(str::to_owned).unwrap_or(text)
}

fn no_predicate(plugin: &str, name: Option<&At<String>>) -> String {
    match name {
        Some(name) => format!("plugin {plugin:?} has no predicate {:?}", name.value),
        None => format!("plugin {plugin:?} has no predicates"),
    }
}

fn subject(mode: Mode) -> &'static str {
    match mode {
        Mode::Http => "requests or responses",
        Mode::Tcp => "connections",
    }
}

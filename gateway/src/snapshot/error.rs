//! Why a configuration that is valid in itself cannot run here, and how that is said as faults of its text.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::SourceSpan;
use rustls_pki_types::pem;

use super::pages::PageError;
use crate::admin::AdminSocketError;
use crate::certificates::TlsError;
use crate::config::{
    self, At, Authorities, BindTls, CertificateSource, Code, ComponentSource, ConfigError, ConfigErrors, Grant, Mode,
    Origin, Places, ServerTls, Source, Verify,
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
    /// The admin socket cannot be opened.
    #[error("admin socket {}: {source}", path.display())]
    Admin {
        /// The socket.
        path: PathBuf,
        /// Where it is configured.
        origin: Option<Origin>,
        /// Why.
        source: AdminSocketError,
    },
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

    /// What is wrong with the admin socket.
    pub fn of_admin_socket(socket: &config::AdminSocket, source: AdminSocketError) -> Self {
        Self::new(BuildError::Admin {
            path: socket.path.clone(),
            origin: socket.origin.clone(),
            source,
        })
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
            Self::Admin { origin, .. } => origin.as_ref(),
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

    /// The error as a fault of the configuration's text.
    fn fault(&self) -> ConfigError {
        let code = match self {
            Self::Tls { .. } | Self::ServerTls { .. } => Code::Tls,
            Self::Admin { .. }
            | Self::CollectorHeader { .. }
            | Self::File {
                source: PageError::File(_),
                ..
            } => Code::Io,
            Self::File { .. } | Self::Rule { .. } | Self::Map { .. } => Code::Value,
            Self::TrustedKey { source, .. } => match source {
                KeyError::Io { .. } => Code::Io,
                KeyError::Unusable { .. } => Code::Value,
            },
            Self::MappedBackend { .. } => Code::Reference,
            _ => Code::Policy,
        };
        let fault = ConfigError::new(code, self.to_string());
        match self {
            Self::Host(PolicyError::Cache(_)) => {
                fault.help("give it a folder of its own, which belongs to whom the gateway runs as, with mode 700")
            }
            Self::Host(PolicyError::NotExecutable(_)) => fault.help(HELP_WITH_EXECUTABLE),
            Self::Host(_) => fault.help("ask for less with `policy instances=… memory=…` in `process`"),
            Self::Admin { origin, source, .. } => match origin {
                Some(origin) => fault.label(origin.span, source.label()).help(source.help()),
                None => fault.help(source.help()),
            },
            Self::Tls { bind, tls, source } => tls_fault(fault, &TlsFiles::of_bind(tls, bind.span), source),
            Self::ServerTls { tls, source } => tls_fault(fault, &TlsFiles::of_server(tls), source),
            Self::PluginFile { plugin, source } => {
                let label = match source.kind() {
                    io::ErrorKind::NotFound => "there is no such file",
                    io::ErrorKind::FileTooLarge => "too large for a component",
                    _ => "this file cannot be read",
                };
                let help = match source.kind() {
                    io::ErrorKind::FileTooLarge => HELP_WITH_SIZE,
                    _ => HELP_WITH_FILES,
                };
                fault.label(plugin.component.span, label).help(help)
            }
            Self::Unsigned { plugin, tried, .. } => fault
                .label(plugin.component.span, "not signed by a trusted key")
                .label(plugin.origin.span, "of this plugin")
                .help(format!(
                    "trusted here: {tried}. Whoever has one of these keys signs it: gateway plugin sign --key KEY {}",
                    plugin.component.value
                )),
            Self::TrustedKey { path, .. } => fault
                .label(path.span, "this key")
                .help("the file has to be there and hold what `openssl pkey -in KEY -pubout` writes"),
            Self::CollectorHeader { path, .. } => fault
                .label(path.span, "this file")
                .help("let it hold the value alone, as `Bearer …`, and let the gateway read it"),
            Self::ConfigFile { path, .. } => fault.label(path.span, "this file").help(HELP_WITH_FILES),
            Self::Digest { plugin, at, found } => fault
                .label(*at, "not the digest of this file")
                .label(plugin.component.span, "the file")
                .help(format!("if the file is the right one, write sha256 \"{}\"", hex(found))),
            Self::Schema { plugin, .. } => fault.label(plugin.component.span, "this component").help(HELP_WITH_OWN),
            Self::Setting { fault: setting, .. } => setting.clone().in_words(self.to_string()),
            Self::Plugin { plugin, source } => plugin_fault(fault, plugin, source),
            Self::Predicate { acl, name, known, .. } => {
                let fault = match name {
                    Some(name) => fault.label(name.span, "unknown predicate"),
                    None => fault.label(acl.span, "there is nothing to ask it"),
                };
                fault.help(match known.is_empty() {
                    true => "an acl asks predicates; a filter is attached with `use-plugin`".to_owned(),
                    false => config::one_of_names(name.as_ref().map_or("", |name| &name.value), known),
                })
            }
            Self::NoHook { at, hooks, .. } => fault.label(*at, "would never be called here").help(match hooks {
                Hooks { predicates: true, .. } => {
                    "ask it in an acl: acl \"name\" { plugin \"its name\" predicate=\"…\" }"
                }
                Hooks {
                    connection_filter: true,
                    ..
                } => "use it in a frontend with mode \"tcp\"",
                _ => "use it in a frontend with mode \"http\"",
            }),
            Self::Incomparable { at, hooks, .. } => {
                let (label, help) = match hooks.request_body_filter || hooks.response_body_filter {
                    true => (
                        "sees bodies, which have gone by when they are known to be other than they should be",
                        "try it on a part of the requests, where it is obeyed: canary=\"5%\"",
                    ),
                    false => (
                        "is told of exchanges that are over, and changes nothing",
                        "leave `shadow` out; canary=\"5%\" has it told of a part of them",
                    ),
                };
                fault.label(*at, label).help(help)
            }
            Self::Map { map, error } => fault
                .label(map.path.span, format!("the map {:?}{}", map.name, at_line(error.line)))
                .help("a line is a key, a space and its value; lines that begin with `#` are passed over"),
            Self::MappedBackend { map, line, route, .. } => {
                let place = match line {
                    0 => "its `default=`".to_owned(),
                    line => format!("its line {line}"),
                };
                fault
                    .label(map.path.span, place)
                    .label(route.span, "leads to the backends that it names")
                    .help("declare the backend, in the frontend's mode, or mend the map")
            }
            Self::File { path, source, .. } => page_fault(fault, path.span, source),
            Self::Rule { origin, .. } => fault
                .label(origin.span, "this rule")
                .help("this is a defect of the gateway: please report it"),
            Self::Own { origin, source } => {
                let help = own_limits_help(source).unwrap_or("this is a defect of the gateway: please report it");
                fault.label(origin.span, "needed here").help(help)
            }
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

/// The files that a `tls` node names.
struct TlsFiles<'a> {
    node: SourceSpan,
    files: Vec<&'a At<PathBuf>>,
    folders: Vec<&'a At<PathBuf>>,
    /// By certificate, its key where that has a file of its own.
    keys: Vec<(&'a At<PathBuf>, Option<&'a At<PathBuf>>)>,
    is_server: bool,
}

impl<'a> TlsFiles<'a> {
    fn of_bind(tls: &'a BindTls, node: SourceSpan) -> Self {
        let mut named = Self {
            node,
            files: Vec::new(),
            folders: Vec::new(),
            keys: Vec::new(),
            is_server: false,
        };
        for source in &tls.certificates {
            match source {
                CertificateSource::Files(files) => {
                    named.files.push(&files.cert);
                    named.files.extend(files.key.iter().chain(&files.ocsp));
                    named.keys.push((&files.cert, files.key.as_ref()));
                }
                CertificateSource::Folder(folder) => named.folders.push(folder),
            }
        }
        if let Some(clients) = &tls.clients {
            named.files.extend(clients.files.iter().chain(&clients.crls));
        }
        named.files.extend(tls.ticket_keys.iter().map(|keys| &keys.file));
        named
    }

    fn of_server(tls: &'a ServerTls) -> Self {
        let mut files: Vec<_> = tls.crls.iter().collect();
        if let Verify::Required(Authorities::File(file)) = &tls.verify {
            files.push(file);
        }
        let mut keys = Vec::new();
        if let Some(identity) = &tls.identity {
            files.push(&identity.cert);
            files.extend(&identity.key);
            keys.push((&identity.cert, identity.key.as_ref()));
        }
        Self {
            node: tls.origin.span,
            files,
            folders: Vec::new(),
            keys,
            is_server: true,
        }
    }

    /// Where the file is named, or the folder that it is in.
    fn place(&self, path: &Path) -> SourceSpan {
        let file = self.files.iter().find(|file| file.value == path);
        let inside = |folder: &&&At<PathBuf>| path == folder.value || path.parent() == Some(folder.value.as_path());
        let named = file.or_else(|| self.folders.iter().find(inside));
        named.map_or(self.node, |file| file.span)
    }

    /// The key's file of a certificate, where it has one of its own.
    fn key(&self, cert: &Path) -> Option<&At<PathBuf>> {
        self.keys.iter().find(|(known, _)| known.value == cert)?.1
    }

    /// Whether a certificate is said to have its key in its own file.
    fn has_its_key(&self, path: &Path) -> bool {
        let named = self.keys.iter().any(|(cert, key)| cert.value == path && key.is_none());
        named
            || self
                .folders
                .iter()
                .any(|folder| path.parent() == Some(folder.value.as_path()))
    }
}

fn tls_fault(fault: ConfigError, files: &TlsFiles<'_>, error: &TlsError) -> ConfigError {
    match error {
        TlsError::Pem { path, what, source } => {
            let (label, help) = match source {
                pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                    ("there is no such file".to_owned(), HELP_WITH_FILES)
                }
                pem::Error::Io(_) => ("this file cannot be read".to_owned(), HELP_WITH_FILES),
                pem::Error::NoItemsFound if files.has_its_key(path) => (
                    format!("holds no {what}"),
                    "write key=\"FILE\" when the key is in a file of its own",
                ),
                _ => (format!("holds no usable {what}"), HELP_WITH_PEM),
            };
            fault.label(files.place(path), label).help(help)
        }
        TlsError::NoCertificate(path) => fault
            .label(files.place(path), "holds no certificate")
            .help(HELP_WITH_PEM),
        TlsError::Unusable { path, .. } => {
            let fault = fault.label(files.place(path), "this certificate");
            let fault = match files.key(path) {
                Some(key) => fault.label(key.span, "and this key"),
                None => fault,
            };
            fault.help("the first certificate in the file has to be the one that was issued for the key")
        }
        TlsError::Authority { path, .. } => fault
            .label(files.place(path), "not the certificate of an authority")
            .help(match files.is_server {
                true => "`ca=` names a file with the certificates of those who issue the server's",
                false => "`client-ca` names files with the certificates of those who issue the clients'",
            }),
        TlsError::Revocation { path, .. } => fault.label(files.place(path), "not a revocation list").help(
            "the file has to be PEM (-----BEGIN X509 CRL-----) or DER, from an authority that is named beside it",
        ),
        TlsError::Ocsp { path, .. } => fault.label(files.place(path), "not for this certificate").help(
            "ask the authority again: openssl ocsp -issuer … -cert … -url … -respout FILE; or take the file away",
        ),
        TlsError::TicketKeys { path, .. } => fault.label(files.place(path), "holds no usable keys").help(
            "one key a line, which only its owner and group may read: openssl rand -base64 48 >> FILE; chmod 600 FILE",
        ),
        TlsError::Folder { path, .. } => fault.label(files.place(path), "this folder").help(HELP_WITH_FILES),
        TlsError::EmptyFolder(path) => fault.label(files.place(path), "holds no certificate").help(
            "put PEM files there, each with a chain and its key; hidden files, and keys beside them, are passed over",
        ),
        TlsError::TooMany(path) => fault
            .label(files.place(path), "too many to look at")
            .help("split the folder, and write `cert-dir` for each part"),
        TlsError::NoSystemRoots(_) => fault
            .label(files.node, "would believe no certificate")
            .help("install the system's certificates (ca-certificates), or write ca=\"FILE\""),
        TlsError::Library(_) => fault
            .label(files.node, "needed here")
            .help("this is a defect of the gateway: please report it"),
    }
}

fn page_fault(fault: ConfigError, place: SourceSpan, error: &PageError) -> ConfigError {
    match error {
        PageError::File(error) => {
            let label = match error.kind() {
                io::ErrorKind::NotFound => "there is no such file",
                _ => "this file cannot be read",
            };
            fault.label(place, label).help(HELP_WITH_FILES)
        }
        PageError::TooLong(_) => fault
            .label(place, "too long")
            .help("it is kept in memory: make it shorter"),
        PageError::Malformed(_) => fault.label(place, "not a response").help(
            "the file has to hold a whole response, as HAProxy's error files: a status line, fields, an empty line and \
             the content; or give its name the extension of what it holds, as .html",
        ),
        PageError::Status { found } => fault.label(place, "says another status").help(format!(
            "let its first line say the status it is for, or write: error-page {found} …"
        )),
        PageError::Field(_) => fault
            .label(place, "has a field that it may not have")
            .help("leave the field out: the gateway writes it as each connection needs it"),
        PageError::Length { .. } => fault
            .label(place, "says a length that it has not")
            .help("leave Content-Length out: the gateway writes it"),
    }
}

fn plugin_fault(fault: ConfigError, plugin: &PluginAt, error: &PolicyError) -> ConfigError {
    let help = error.help();
    let (label, help) = match error {
        PolicyError::NotGranted { line, .. } | PolicyError::NeedNotGranted { line, .. } => {
            let help = match line.strip_prefix("grant ") {
                // A second `grant` would be said twice.
                Some(word) if !plugin.grants.is_empty() => format!("add `{word}` to its `grant`"),
                _ => help.unwrap_or_default(),
            };
            return fault.label(plugin.origin.span, "this is not granted here").help(help);
        }
        PolicyError::Config { at, .. } => {
            let (span, label) = match at.as_deref().map(|at| (at, plugin.config.find(at))) {
                Some((_, (span, true))) => (span, "refused".to_owned()),
                Some((at, (span, false))) => (span, format!("refused in here, at `{at}`")),
                None => (plugin.config.span(), "refused".to_owned()),
            };
            let help = "the plugin's documentation says what it takes; it gets this block as JSON";
            return fault.label(span, label).help(help);
        }
        PolicyError::Engine(_) | PolicyError::Cache(_) => (
            "needed here",
            "ask for less with `policy instances=… memory=…` in `process`",
        ),
        PolicyError::NotExecutable(_) => ("needed here", HELP_WITH_EXECUTABLE),
        PolicyError::TooLarge { .. } => ("this component", HELP_WITH_SIZE),
        PolicyError::CompileLimit { .. } => (
            "this component",
            "if you trust it, allow more with `policy compile-cpu=… compile-memory=…` in `process`",
        ),
        PolicyError::CodeLimit { .. } => (
            "this component",
            "no component is as large by nature: build it with optimisation, and leave out what it does not use",
        ),
        PolicyError::CompileQuota { .. } => (
            "this component",
            "have fewer or smaller components, mend the one that took too much, or let the operator allow more with `quota compile-cpu=`",
        ),
        PolicyError::SetUpQuota { .. } => (
            "this component",
            "have fewer plugins or uses of them, have them do less in `configure`, or let the operator allow more with `quota compile-cpu=`",
        ),
        PolicyError::Compiler { .. } => (
            "this component",
            "it is compiled by a process of its own: look at the limits on processes and memory that the gateway runs under",
        ),
        PolicyError::Invalid { .. } => (
            "not a usable component",
            "make a component of a core module with `gateway plugin build MODULE.wasm`",
        ),
        PolicyError::UnknownImport { .. } => (
            "this component",
            "build it for wasm32-unknown-unknown, with the interfaces of wit/policy.wit alone: there is no WASI",
        ),
        PolicyError::Mistyped { .. } | PolicyError::MissingExport { .. } => (
            "this component",
            "build it with the wit/policy.wit of this version of the gateway",
        ),
        PolicyError::UnknownNeed { .. }
        | PolicyError::Predicates { .. }
        | PolicyError::Metrics { .. }
        | PolicyError::LimitPolicies { .. } => ("this component", HELP_WITH_OWN),
        // What the operator grants, and what the component has a use for, do not go together.
        PolicyError::OtherMode { .. }
        | PolicyError::CallOverHttp2 { .. }
        | PolicyError::NoCallGranted { .. }
        | PolicyError::Inert { .. } => {
            return fault
                .label(plugin.origin.span, "in this plugin's block")
                .help(help.unwrap_or_default());
        }
        PolicyError::Failed { .. } => (
            "fails when it is made ready",
            limits_help(error).unwrap_or(HELP_WITH_OWN),
        ),
    };
    // Before the plugin: a fault is where its first label is.
    let fault = match plugin.used {
        Some(used) => fault.label(used, "as it is limited here"),
        None => fault,
    };
    let fault = fault.label(plugin.component.span, label);
    fault.help(help)
}

/// What to do about a component that fails by a limit.
fn limits_help(error: &PolicyError) -> Option<&'static str> {
    let PolicyError::Failed { failure, .. } = error else {
        return None;
    };
    match failure.kind {
        FailureKind::Deadline => Some("give it more time with `limit cpu=`"),
        FailureKind::Memory => Some("give it more memory with `limit memory=`"),
        FailureKind::StoreFull if failure.lacks_shared_memory() => Some(
            "allow more memory with `policy total-memory=` in `process`, or others less with `total-memory=` and `plugin-memory=`",
        ),
        FailureKind::StoreFull => Some(
            "allow more instances: `limit instances=` of the plugin, `plugin-instances=` of its tenant, or `policy instances=` in `process`",
        ),
        _ => None,
    }
}

/// The same of one of the gateway's own, which takes as much as it is told to compare with.
fn own_limits_help(error: &PolicyError) -> Option<&'static str> {
    match error {
        PolicyError::Failed { failure, .. } if failure.kind == FailureKind::Memory => Some(
            "have fewer or smaller regular expressions, or give components more memory with `policy memory=` in `process`",
        ),
        PolicyError::Failed { failure, .. } if failure.kind == FailureKind::Deadline => {
            Some("have fewer or smaller regular expressions")
        }
        error => limits_help(error),
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const HELP_WITH_OWN: &str = "this is the component's own fault: ask those who made it, or take another version";
const HELP_WITH_SIZE: &str = "build it with optimisations and without debug information";
const HELP_WITH_EXECUTABLE: &str = "components are compiled to machine code: let the gateway make memory executable, which \
     `MemoryDenyWriteExecute=yes` in a systemd unit forbids";
const HELP_WITH_FILES: &str =
    "check that the file is there and may be read; relative paths start at the folder of the configuration file";
const HELP_WITH_PEM: &str = "the file has to be PEM: text between -----BEGIN … ----- and -----END … -----";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Failure;

    #[test]
    fn who_has_no_room_is_told_of_what_is_lacking() {
        let help = |message: &str| {
            let failure = Failure {
                kind: FailureKind::StoreFull,
                hook: "instantiate",
                message: message.to_owned(),
            };
            let label = "geo".to_owned();
            limits_help(&PolicyError::Failed { label, failure }).unwrap_or_default()
        };
        let memory = help("all instances of plugins together have the memory that they may have: wasm trap");
        assert!(
            memory.contains("`policy total-memory=`") && !memory.contains("instances="),
            "{memory}"
        );
        let instances = help("plugin \"geo\" has its 4 instances already");
        assert!(
            instances.contains("`limit instances=`") && !instances.contains("memory"),
            "{instances}"
        );
    }
}

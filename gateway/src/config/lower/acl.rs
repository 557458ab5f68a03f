//! `acl "is-api" { path-prefix "/api/"; not { method "GET" } }`: named questions about a request.
//!
//! The nodes of a block have all to hold; of several values of one node, one has to.

mod values;

use miette::SourceSpan;

use super::plugin::Owner;
use super::{Scope, asked_plugin, condition, elsewhere, header, measure, section_name, time, tls_facts};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Acl, AclTest, Match, Mode, Text};
use crate::config::reader::{At, Block, Context, Node, clip};
use values::{any_name, method, named, path, path_end, pattern, texts};
pub(super) use values::{distinct, host, network, text_test, values};

/// What an acl's predicates need to make sense.
#[derive(Clone, Copy)]
pub(super) struct Setting {
    /// `frontend`, `backend` or `tenant`.
    pub(super) section: &'static str,
    /// The frontend's mode, and where it is said.
    pub(super) mode: Mode,
    pub(super) mode_span: Option<SourceSpan>,
    /// Whether one of the frontend's binds speaks TLS.
    pub(super) tls: bool,
    /// Whether one of them asks clients for certificates.
    pub(super) client_ca: bool,
}

/// An acl that has been read.
pub(super) struct ReadAcl<'a> {
    pub(super) span: SourceSpan,
    pub(super) name: Option<At<&'a str>>,
    pub(super) acl: Option<Acl>,
}

/// Reads an acl of a section, or of this tenant's.
pub(super) fn acl<'a>(
    scope: &Scope<'_>,
    setting: Setting,
    mut node: Node<'a>,
    owner: Option<&Owner<'_>>,
) -> ReadAcl<'a> {
    let origin = node.origin();
    let span = node.span();
    node.hints(|_| Some("what it asks stands in its block: acl \"is-api\" { path-prefix \"/api/\" }"));
    let name = section_name(&mut node, "the acl's name").filter(|name| check_name(&node, name));
    let block = node.required_block();
    node.finish();
    let test = block.and_then(|block| test(scope, setting, block, owner));
    let acl = || {
        Some(Acl {
            name: name?.value.into(),
            test: test?,
            origin,
        })
    };
    ReadAcl { span, name, acl: acl() }
}

fn check_name(node: &Node<'_>, name: &At<&str>) -> bool {
    let well = condition::is_word(name.value);
    if !well {
        let error = ConfigError::new(Code::Value, format!("an acl cannot be called {:?}", clip(name.value)));
        let error = error.label(name.span, "could not stand in a condition");
        node.fail(error.help("use letters, digits, `-`, `_`, `.` and `:`, and not `and`, `or` or `not`"));
    }
    well
}

fn test(scope: &Scope<'_>, setting: Setting, mut block: Block<'_>, owner: Option<&Owner<'_>>) -> Option<AclTest> {
    let plugins = block.many("plugin");
    let mut counts = block.many("servers-up").into_iter();
    // The component that answers the others answers neither of these.
    let (test, message, label) = match (plugins.is_empty(), counts.len()) {
        (true, 0) => return matches(setting, block, MAX_DEPTH).map(|all| AclTest::Match(one_or_all(all))),
        (true, _) => {
            let test = counts.next().and_then(|node| servers_up(scope, node, owner));
            (test, "`servers-up` stands alone in its acl", "not beside it")
        }
        (false, _) => {
            let test = asked_plugin::test(scope, setting, plugins, owner);
            (
                test,
                "`plugin` stands alone in its acl",
                "not beside a plugin's predicate",
            )
        }
    };
    let mut alone = true;
    for other in block.any(PREDICATES).into_iter().chain(counts) {
        let error = ConfigError::new(Code::Conflict, message).label(other.span(), label);
        other.fail(error.help("make it an acl of its own, and join the two in the condition: if=\"a and b\""));
        alone = false;
    }
    block.finish(elsewhere);
    test.filter(|_| alone)
}

/// `servers-up "app" max=0`. Other tenants' backends are nobody's business: a tenant asks for its own alone.
fn servers_up(scope: &Scope<'_>, mut node: Node<'_>, owner: Option<&Owner<'_>>) -> Option<AclTest> {
    let is_included = scope.ctx.folder(node.span()).is_some();
    let up = measure::of_backend(scope, &mut node, owner.and_then(|owner| owner.backends(is_included)));
    node.finish();
    up.map(AclTest::Servers)
}

/// The nodes of a block, all of which have to hold. `depth` is how many blocks may still follow.
pub(super) fn matches(setting: Setting, mut block: Block<'_>, depth: usize) -> Option<Vec<Match>> {
    let mut all = Vec::new();
    let mut well = true;
    for node in block.any(PREDICATES) {
        match predicate(setting, node, depth) {
            Some(one) => all.push(one),
            None => well = false,
        }
    }
    block.finish(|name| match name {
        "path-beg" => Some("write `path-prefix`"),
        "path-end" => Some("write `path-suffix`"),
        "path-reg" => Some("write `path-regex`"),
        "path-sub" => Some("write `path-contains`"),
        "src" => Some("write `source`"),
        "src-port" => Some("write `source-port`"),
        "dst" => Some("write `destination`"),
        "dst-port" => Some("write `port`"),
        "and" => Some("the nodes of a block have all to hold already; `all { … }` groups them"),
        "or" => Some("write `any { … }`"),
        "plugin" => Some("`plugin` stands alone in its acl, and not in `not`, `any` or `all`"),
        "servers-up" => {
            Some("`servers-up` stands alone in an acl with a name: acl \"down\" { servers-up \"app\" max=0 }")
        }
        name => elsewhere(name),
    });
    well.then_some(all)
}

fn predicate(setting: Setting, mut node: Node<'_>, depth: usize) -> Option<Match> {
    let name = node.name();
    if !CONNECTION_PREDICATES.contains(&name) && !matches!(name, "not" | "any" | "all") {
        http_only(&node, setting);
    }
    let result = match name {
        "not" | "any" | "all" => nested(setting, &mut node, depth),
        "path" => texts(&mut node, "a path", path).map(|list| Match::Path(Text::Exact(list))),
        "path-prefix" => texts(&mut node, "a path's beginning", path).map(|list| Match::Path(Text::Prefix(list))),
        "path-suffix" => texts(&mut node, "a path's end", path_end).map(|list| Match::Path(Text::Suffix(list))),
        "path-contains" => texts(&mut node, "a part of a path", path_end).map(|list| Match::Path(Text::Contains(list))),
        "path-regex" => texts(&mut node, "a regular expression", pattern).map(|list| Match::Path(Text::Regex(list))),
        "host-regex" => texts(&mut node, "a regular expression", pattern).map(Match::HostRegex),
        "http-version" => values(&mut node, "a version", measure::http_version).map(Match::HttpVersion),
        "uri-length" => measure::length(&mut node).map(Match::UriLength),
        "header-count" => measure::of_header(&mut node, measure::COUNT).map(Match::HeaderCount),
        "header-length" => measure::of_header(&mut node, measure::BYTES).map(Match::HeaderLength),
        "upgrade" => texts(&mut node, "a protocol", |value| {
            header::token(value).map(|name| name.to_ascii_lowercase())
        })
        .map(Match::Upgrade),
        "source-port" => values(&mut node, "a port", time::ports).map(Match::SourcePort),
        "host" => texts(&mut node, "a host", host).map(Match::Host),
        "method" => texts(&mut node, "a method", method).map(Match::Method),
        "header" => named(&mut node, "the header's name", header::header_name).map(Match::Header),
        "cookie" => named(&mut node, "the cookie's name", header::token).map(Match::Cookie),
        "query" => named(&mut node, "the parameter's name", any_name).map(Match::Query),
        "source" => {
            let networks = values(&mut node, "a network", network);
            networks.map(Match::Source)
        }
        "tls" => {
            check_setting(node.ctx, name, node.span(), setting);
            Some(Match::Tls)
        }
        "tls-version" => {
            needs_tls(node.ctx, name, node.span(), setting);
            tls_facts::version(&mut node)
        }
        name if tls_facts::of_client(name).is_some() => {
            needs_client_ca(&node, setting);
            tls_facts::client(&mut node)
        }
        "destination" => values(&mut node, "a network", network).map(Match::Destination),
        "port" => values(&mut node, "a port", time::ports).map(Match::Port),
        "time" => time::time(&mut node).map(Match::Time),
        "alpn" => {
            if setting.mode == Mode::Http {
                needs_tls(node.ctx, name, node.span(), setting);
            }
            texts(&mut node, "a protocol", any_name).map(Match::Alpn)
        }
        _ => {
            // In TCP mode it is read from TLS that passes through, too.
            if setting.mode == Mode::Http {
                needs_tls(node.ctx, name, node.span(), setting);
            }
            texts(&mut node, "a server name", host).map(Match::Sni)
        }
    };
    node.finish();
    result
}

fn nested(setting: Setting, node: &mut Node<'_>, depth: usize) -> Option<Match> {
    let kind = node.name();
    if depth == 0 {
        let error = ConfigError::new(
            Code::Value,
            format!("blocks of an acl are nested more than {MAX_DEPTH} deep"),
        );
        node.fail(
            error
                .label(node.span(), "one too many")
                .help("name a part of it with an acl of its own"),
        );
        node.raw();
        return None;
    }
    let block = node.required_block()?;
    let inner = matches(setting, block, depth - 1)?;
    if kind != "not" && inner.len() == 1 {
        let error = ConfigError::new(Code::Inert, format!("`{kind}` does nothing around one node"));
        node.fail(
            error
                .label(node.span(), "has one node in it")
                .help("write that node without it"),
        );
    }
    Some(match kind {
        "not" => Match::Not(Box::new(one_or_all(inner))),
        "any" => Match::Any(inner),
        _ => Match::All(inner),
    })
}

pub(super) fn one_or_all(mut all: Vec<Match>) -> Match {
    match (all.len(), all.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            all.extend(last);
            Match::All(all)
        }
    }
}

/// Reports a predicate that is a word of its own where it never holds or cannot be asked.
pub(super) fn check_setting(ctx: &Context<'_>, name: &str, span: SourceSpan, setting: Setting) -> Option<()> {
    match CONNECTION_PREDICATES.contains(&name) {
        true => needs_tls(ctx, name, span, setting),
        false => needs_http(ctx, name, span, setting),
    }
}

fn needs_client_ca(node: &Node<'_>, setting: Setting) {
    if !setting.client_ca {
        let error = ConfigError::new(Code::Inert, format!("`{}` never holds here", node.name()));
        let error = error.label(node.span(), "no `bind` of this frontend asks clients for certificates");
        node.fail(error.help("say whose are believed: tls cert=\"bundle.pem\" { client-ca \"ca.pem\" }"));
    }
}

fn needs_tls(ctx: &Context<'_>, name: &str, span: SourceSpan, setting: Setting) -> Option<()> {
    if setting.tls {
        return Some(());
    }
    let error = ConfigError::new(Code::Inert, format!("`{name}` never holds here"));
    let error = error.label(span, "no `bind` of this frontend speaks TLS");
    ctx.report(
        error.help("leave it out, or give a bind a certificate: bind \"0.0.0.0:443\" { tls cert=\"bundle.pem\" }"),
    );
    None
}

pub(super) fn http_only(node: &Node<'_>, setting: Setting) {
    needs_http(node.ctx, node.name(), node.span(), setting);
}

fn needs_http(ctx: &Context<'_>, name: &str, span: SourceSpan, setting: Setting) -> Option<()> {
    if setting.mode != Mode::Tcp {
        return Some(());
    }
    let error = ConfigError::new(Code::Mode, format!("`{name}` needs HTTP mode"));
    let mut error = error.label(span, "asks about a request");
    if let Some(mode) = setting.mode_span {
        error = error.label(mode, "the mode is TCP because of this");
    }
    ctx.report(error.help(
        "in TCP mode an acl can ask about `source`, `source-port`, `destination`, `port`, `tls`, `tls-version`, `sni`, \
         `alpn`, `client-cert` and `time`",
    ));
    None
}

/// What a connection can be asked about, before and without a request.
const CONNECTION_PREDICATES: &[&str] = &[
    "source",
    "source-port",
    "destination",
    "port",
    "tls",
    "tls-version",
    "sni",
    "alpn",
    "client-cert",
    "client-cert-subject",
    "client-cert-cn",
    "client-cert-issuer",
    "client-cert-serial",
    "client-cert-san",
    "client-cert-fingerprint",
    "time",
];

pub(super) const PREDICATES: &[&str] = &[
    "path",
    "path-prefix",
    "path-suffix",
    "path-contains",
    "path-regex",
    "host",
    "host-regex",
    "method",
    "header",
    "header-count",
    "header-length",
    "cookie",
    "query",
    "uri-length",
    "http-version",
    "upgrade",
    "source",
    "source-port",
    "destination",
    "port",
    "tls",
    "tls-version",
    "sni",
    "alpn",
    "client-cert",
    "client-cert-subject",
    "client-cert-cn",
    "client-cert-issuer",
    "client-cert-serial",
    "client-cert-san",
    "client-cert-fingerprint",
    "time",
    "not",
    "any",
    "all",
];

/// Each level is a frame of the component's stack, which is small.
pub(super) const MAX_DEPTH: usize = 16;

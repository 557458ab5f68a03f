//! `acl "is-api" { path-prefix "/api/"; not { method "GET" } }`: named questions about a request.
//!
//! The nodes of a block have all to hold; of several values of one node, one has to.

use ipnet::IpNet;
use miette::SourceSpan;

use super::plugin::Owner;
use super::{
    Scope, asked_plugin, condition, elsewhere, header, measure, or_none, regexes, section_name, time, tls_facts,
};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Acl, AclTest, Match, Mode, Named, Text};
use crate::config::reader::{At, Block, Context, Node, Value, clip, said_twice};
use crate::config::suggest;

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

/// `header "x-client" "a" "b"`, or one of `prefix=`, `suffix=`, `contains=`, `regex=`, or none.
fn named(node: &mut Node<'_>, what: &'static str, name: impl Fn(&Value<'_>) -> Option<String>) -> Option<Named> {
    let value = node.argument(what);
    let name = value.and_then(|value| name(&value));
    let value = text_test(node)?;
    Some(Named { name: name?, value })
}

/// A test of a value: those that are listed, or one of `prefix=`, `suffix=`, `regex=`; none where nothing is said of it.
#[allow(clippy::option_option)]
pub(super) fn text_test(node: &mut Node<'_>) -> Option<Option<Text>> {
    let exact: Vec<Value<'_>> = node.arguments("a value");
    let matching = node.property("match");
    let mut tests = Vec::new();
    for key in ["prefix", "suffix", "contains", "regex", "file"] {
        if let Some(value) = node.property(key) {
            tests.push((key, value));
        }
    }
    let places: Vec<SourceSpan> = exact
        .first()
        .map(Value::span)
        .into_iter()
        .chain(tests.iter().map(|(_, value)| value.span()))
        .collect();
    if let [first, second, ..] = places[..] {
        let error = ConfigError::new(Code::Conflict, format!("`{}` tests its value in two ways", node.name()));
        let error = error.label(second, "this").label(first, "and this");
        node.fail(error.help("write a node for each: all nodes of a block have to hold, and `any { … }` asks for one"));
        return None;
    }
    let test = tests.pop();
    if let (Some(matching), false) = (matching, matches!(test, Some(("file", _)))) {
        let error = ConfigError::new(Code::Inert, "`match=` does nothing here");
        let error = error.label(
            matching.span(),
            "says how values of a file are compared, and there is none",
        );
        node.fail(error.help("write `file=` with it, or one of `prefix=`, `suffix=`, `contains=` and `regex=`"));
    }
    Some(match test {
        None if exact.is_empty() => None,
        None => Some(Text::Exact(distinct(exact, |value| {
            value.any_text().map(str::to_owned)
        })?)),
        Some(("file", value)) => Some(listed(&value, matching)?),
        Some(("regex", value)) => Some(Text::Regex(vec![pattern(&value)?])),
        Some(("prefix", value)) => Some(Text::Prefix(vec![value.text()?.to_owned()])),
        Some(("contains", value)) => Some(Text::Contains(vec![value.text()?.to_owned()])),
        Some((_, value)) => Some(Text::Suffix(vec![value.text()?.to_owned()])),
    })
}

/// What is made of the values of a list, as `match=` says.
type Comparison = fn(Vec<String>) -> Text;

/// `file="names.txt" match="prefix"`: how the values of a file are compared, and they.
fn listed(file: &Value<'_>, matching: Option<Value<'_>>) -> Option<Text> {
    let kinds: [(&'static str, Comparison); 5] = [
        ("exact", Text::Exact),
        ("prefix", Text::Prefix),
        ("suffix", Text::Suffix),
        ("contains", Text::Contains),
        ("regex", Text::Regex),
    ];
    let kind = or_none(matching.map(|value| value.choice(&kinds)));
    let is_regex = matching.is_some_and(|value| value.raw().as_string() == Some("regex"));
    let values = file.listed("a value", if is_regex { pattern } else { any_name });
    Some(kind?.unwrap_or(Text::Exact)(values?))
}

fn texts(node: &mut Node<'_>, what: &'static str, read: impl Fn(&Value<'_>) -> Option<String>) -> Option<Vec<String>> {
    values(node, what, read)
}

/// At least one value, each read and none of them twice, and behind them those of `file=`, of which there may be none.
pub(super) fn values<T: Ord>(
    node: &mut Node<'_>,
    what: &'static str,
    read: impl Fn(&Value<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let file = node.property("file");
    let said = match file {
        Some(_) => node.arguments(what),
        None => node.some_arguments(what),
    };
    if said.is_empty() && file.is_none() {
        return None;
    }
    let said = distinct(said, &read);
    let listed = or_none(file.map(|file| file.listed(what, &read)));
    let (mut values, listed) = (said?, listed?);
    values.extend(listed.into_iter().flatten());
    Some(values)
}

pub(super) fn distinct<T: PartialEq>(values: Vec<Value<'_>>, read: impl Fn(&Value<'_>) -> Option<T>) -> Option<Vec<T>> {
    let mut list: Vec<At<T>> = Vec::with_capacity(values.len());
    let mut well = true;
    for value in values {
        let Some(read) = read(&value) else {
            well = false;
            continue;
        };
        // Quadratic, so only where that is nothing: longer lists come from machines.
        let again = if list.len() < MAX_COMPARED {
            list.iter().find(|first| first.value == read)
        } else {
            None
        };
        if let Some(first) = again {
            value
                .context()
                .report(said_twice("this value", first.span, value.span()));
        }
        list.push(value.at(read));
    }
    well.then(|| list.into_iter().map(|at| at.value).collect())
}

fn path(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if !text.starts_with('/') {
        return value.fail(
            "a path begins with `/`",
            "this does not",
            format!("write \"/{}\"", clip(text)),
        );
    }
    path_end(value)
}

fn path_end(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.contains('?') {
        return value.fail(
            "the path ends before the `?`",
            "never part of a path",
            "write the query with `query`",
        );
    }
    if text.chars().any(|c| c == '#' || c.is_whitespace() || c.is_control()) {
        let help = "paths are compared as they are sent, so write it percent-encoded, as %20";
        return value.fail("no path has this in it", "a character that cannot be there", help);
    }
    Some(text.to_owned())
}

fn pattern(value: &Value<'_>) -> Option<String> {
    regexes::regex(value)?;
    value.text().map(str::to_owned)
}

fn any_name(value: &Value<'_>) -> Option<String> {
    value.text().map(str::to_owned)
}

/// A host name or a pattern `*.example.net`, lower-case.
pub(super) fn host(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let (star, name) = match text.strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", text),
    };
    let help = "write a name as \"www.example.net\", or a pattern as \"*.example.net\"";
    if name.contains('*') {
        return value.fail("a pattern's star stands for its first labels", "not here", help);
    }
    let is_v6 = name.starts_with('[') && name.ends_with(']');
    if !is_v6 && let Some((_, port)) = name.split_once(':') {
        let label = format!("the port {:?} is not part of it", clip(port));
        return value.fail("a host is compared without its port", label, help);
    }
    if !name.is_ascii() {
        return value.fail(
            "a host name is ASCII",
            "is not",
            "write it in punycode, as \"xn--bcher-kva.example\"",
        );
    }
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || (is_v6 && b"[]:".contains(&byte));
    if name.is_empty() || name.starts_with('.') || name.ends_with('.') || !name.bytes().all(valid) {
        return value.fail("this is not a host name", "cannot be one", help);
    }
    Some(format!("{star}{}", name.to_ascii_lowercase()))
}

fn method(value: &Value<'_>) -> Option<String> {
    let method = header::token(value)?;
    let upper = method.to_ascii_uppercase();
    if upper != method && METHODS.contains(&upper.as_str()) {
        let help = format!("write {upper:?}");
        return value.fail(
            "methods are compared with their case",
            format!("nobody sends {method:?}"),
            help,
        );
    }
    if upper == method && !METHODS.contains(&method.as_str()) {
        // Unknown methods are fine unless they look like a slip.
        if let Some(near) = suggest::nearest(&method, METHODS.iter().copied()) {
            return value.fail(
                format!("{method:?} is not a common method"),
                "a slip?",
                format!("did you mean `{near}`?"),
            );
        }
    }
    Some(method)
}

/// `10.0.0.0/8`, or an address alone.
pub(super) fn network(value: &Value<'_>) -> Option<IpNet> {
    let text = value.text()?;
    let help = "write a network as \"10.0.0.0/8\" or \"fd00::/8\", or an address alone";
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => match text.parse::<std::net::IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => return value.fail("this is not a network", "neither an address nor a network", help),
        },
    };
    if network.trunc() != network {
        let message = format!(
            "{} has bits set behind its first {}",
            network.addr(),
            network.prefix_len()
        );
        return value.fail(
            message,
            "outside the network's prefix",
            format!("write \"{}\"", network.trunc()),
        );
    }
    if let Some(plain) = mapped(network) {
        return value.fail(
            "clients with IPv4 addresses are never seen with mapped ones",
            "would never match",
            format!("write \"{plain}\""),
        );
    }
    Some(network)
}

/// The IPv4 network that `::ffff:10.0.0.0/104` means (RFC 4291, section 2.5.5.2).
fn mapped(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(network) = network else { return None };
    let length = network.prefix_len().checked_sub(96)?;
    let address = network.addr().to_ipv4_mapped()?;
    IpNet::new(address.into(), length).ok()
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

const PREDICATES: &[&str] = &[
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

/// Methods that are registered and used; others may be written too.
const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];
/// Each level is a frame of the component's stack, which is small.
pub(super) const MAX_DEPTH: usize = 16;
/// Values of one node that are compared with each other.
const MAX_COMPARED: usize = 200;

//! `trusted-proxies`, `forwarded-for`, `forwarded`, `forwarded-headers` and `request-id`.

use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;

use super::acl::{distinct, network};
use super::header;
use super::or_none;
use super::settings::http_only;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    ClientIpFrom, Forwarded, ForwardedBy, ForwardedFor, ForwardedHeaders, Forwarding, IncomingId, Mode, RequestId,
    TrustedProxies, UuidVersion,
};
use crate::config::reader::{At, Block, Context, Node, Value, clip};

/// What a section says itself of all that. An inner none is `"off"`.
#[derive(Default, Clone)]
pub(super) struct ForwardingSettings {
    trusted: Option<At<Option<TrustedProxies>>>,
    forwarded_for: Option<At<Option<ForwardedFor>>>,
    forwarded: Option<At<Option<Forwarded>>>,
    headers: Option<At<Option<ForwardedHeaders>>>,
    request_id: Option<At<Option<ReadRequestId>>>,
}

/// `request-id`, before it is known whether there are trusted proxies.
#[derive(Clone)]
struct ReadRequestId {
    header: HeaderName,
    version: UuidVersion,
    incoming: Option<At<IncomingId>>,
    response: bool,
}

impl ForwardingSettings {
    /// Reads those that are there.
    pub(super) fn read(block: &mut Block<'_>, mode: Option<At<Mode>>) -> Self {
        let mut one = |name| block.one(name).inspect(|node| http_only(node, mode));
        Self {
            trusted: one("trusted-proxies").and_then(|node| or_off(node, trusted)),
            forwarded_for: one("forwarded-for").and_then(|node| or_off(node, forwarded_for)),
            forwarded: one("forwarded").and_then(|node| or_off(node, forwarded)),
            headers: one("forwarded-headers").and_then(|node| or_off(node, headers)),
            request_id: one("request-id").and_then(|node| or_off(node, request_id)),
        }
    }

    /// What holds in a section that says this and inherits that; none when nothing is to be done.
    pub(super) fn forwarding(&self, inherited: &Self) -> Option<Box<Forwarding>> {
        let forwarding = Forwarding {
            trusted: chosen(&self.trusted, &inherited.trusted).cloned(),
            forwarded_for: chosen(&self.forwarded_for, &inherited.forwarded_for).cloned(),
            forwarded: chosen(&self.forwarded, &inherited.forwarded).cloned(),
            headers: chosen(&self.headers, &inherited.headers).copied().unwrap_or_default(),
        };
        (forwarding != Forwarding::default()).then(|| Box::new(forwarding))
    }

    /// Likewise for the number that a request gets.
    pub(super) fn request_id(&self, inherited: &Self, ctx: &Context<'_>) -> Option<Box<RequestId>> {
        let read = chosen(&self.request_id, &inherited.request_id)?;
        let has_proxies = chosen(&self.trusted, &inherited.trusted).is_some();
        if let Some(incoming) = read.incoming.filter(|at| at.value == IncomingId::Trusted)
            && !has_proxies
        {
            let error = ConfigError::new(Code::Inert, "`incoming=\"trusted\"` keeps nothing: nobody is trusted");
            let error = error.label(incoming.span, "no proxy is trusted here");
            ctx.report(error.help("say who is: trusted-proxies \"10.0.0.0/8\", or leave it out"));
        }
        let incoming = match (read.incoming, has_proxies) {
            (Some(incoming), _) => incoming.value,
            (None, true) => IncomingId::Trusted,
            (None, false) => IncomingId::Never,
        };
        Some(Box::new(RequestId {
            header: read.header.clone(),
            version: read.version,
            incoming,
            response: read.response,
        }))
    }
}

fn chosen<'a, T>(own: &'a Option<At<Option<T>>>, inherited: &'a Option<At<Option<T>>>) -> Option<&'a T> {
    own.as_ref().or(inherited.as_ref())?.value.as_ref()
}

/// `NODE "off"`, or what `read` makes of it. Answers nothing when a fault has been reported.
pub(super) fn or_off<T>(mut node: Node<'_>, read: impl FnOnce(&mut Node<'_>) -> Option<T>) -> Option<At<Option<T>>> {
    let span = node.span();
    let value = match node.flag("off") {
        Some(_) => Some(None),
        None => read(&mut node).map(Some),
    };
    node.finish();
    value.map(|value| At { value, span })
}

fn trusted(node: &mut Node<'_>) -> Option<TrustedProxies> {
    // All is read before any fault ends it: what has not been read would be reported as unknown.
    let client_ip = node.property("client-ip").map(|value| client_ip(&value));
    let proxies = distinct(node.some_arguments("a network of proxies"), proxies);
    let (proxies, client_ip) = (proxies?, or_none(client_ip)?);
    let unix = proxies.contains(&None);
    let networks: Vec<_> = proxies.into_iter().flatten().collect();
    (unix || !networks.is_empty()).then_some(TrustedProxies {
        networks,
        unix,
        client_ip,
    })
}

/// A network of them; none inside stands for those that connect to a UNIX socket.
#[allow(clippy::option_option)]
fn proxies(value: &Value<'_>) -> Option<Option<IpNet>> {
    match value.text()? {
        "unix" => Some(None),
        _ => network(value).map(Some),
    }
}

fn client_ip(value: &Value<'_>) -> Option<ClientIpFrom> {
    let name = header::header_name(value)?;
    match name.as_str() {
        "forwarded" => Some(ClientIpFrom::Forwarded),
        name => Some(ClientIpFrom::Header(parsed(name)?)),
    }
}

fn forwarded_for(node: &mut Node<'_>) -> Option<ForwardedFor> {
    let header = node.property("header").map(|value| own_header(&value));
    let if_none = node.flag("if-none").is_some();
    let except = node.property("except").map(|value| networks(&value));
    Some(ForwardedFor {
        header: or_none(header)?.unwrap_or(HeaderName::from_static("x-forwarded-for")),
        if_none,
        except: or_none(except)?.unwrap_or_default(),
    })
}

/// Networks with commas between them.
fn networks(value: &Value<'_>) -> Option<Vec<IpNet>> {
    let mut networks = Vec::new();
    for text in value.text()?.split(',') {
        let network = text.trim().parse::<IpNet>().ok();
        let network = network.or_else(|| text.trim().parse::<IpAddr>().ok().map(IpNet::from));
        let Some(network) = network.filter(|network| network.trunc() == *network) else {
            return value.fail(
                format!("{:?} is not a network", clip(text)),
                "neither an address nor a network without bits behind its prefix",
                "write networks with commas between them, as \"10.0.0.0/8,fd00::/8\"",
            );
        };
        networks.push(network);
    }
    Some(networks)
}

fn forwarded(node: &mut Node<'_>) -> Option<Forwarded> {
    let client = node.flag("for").is_some();
    let host = node.flag("host").is_some();
    let proto = node.flag("proto").is_some();
    let by = or_none(node.property("by").map(|value| forwarded_by(&value)))?;
    if !client && !host && !proto && by.is_none() {
        // As HAProxy.
        return Some(Forwarded {
            client: true,
            by: None,
            host: false,
            proto: true,
        });
    }
    Some(Forwarded {
        client,
        by,
        host,
        proto,
    })
}

/// `by="address"`, or an identifier that begins with `_`.
fn forwarded_by(value: &Value<'_>) -> Option<ForwardedBy> {
    let text = value.text()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match text.strip_prefix('_') {
        Some(rest) if !rest.is_empty() && text.len() <= MAX_OBFUSCATED && rest.bytes().all(is_plain) => {
            Some(ForwardedBy::Obfuscated(text.to_owned()))
        }
        None if text == "address" => Some(ForwardedBy::Address),
        _ => value.fail(
            "`by` has to be an identifier or `address`",
            "neither",
            "write by=\"address\", or an identifier as by=\"_edge-1\": letters, digits and . _ - behind a `_` (RFC 7239, section 6.3)",
        ),
    }
}

fn headers(node: &mut Node<'_>) -> Option<ForwardedHeaders> {
    let headers = ForwardedHeaders {
        proto: node.flag("x-forwarded-proto").is_some(),
        host: node.flag("x-forwarded-host").is_some(),
        port: node.flag("x-forwarded-port").is_some(),
        real_ip: node.flag("x-real-ip").is_some(),
    };
    if headers == ForwardedHeaders::default() && !node.has_entries() {
        let error = ConfigError::new(Code::Missing, "`forwarded-headers` names no header");
        node.fail(error.label(node.span(), "nothing follows").maybe_help(node.example()));
        return None;
    }
    Some(headers)
}

fn request_id(node: &mut Node<'_>) -> Option<ReadRequestId> {
    let header = node.property("header").map(|value| own_header(&value));
    let version = node.property("version").map(|value| value.choice(VERSIONS));
    let incoming = node
        .property("incoming")
        .map(|value| Some(value.at(value.choice(INCOMING)?)));
    let response = node.flag("response").is_some();
    Some(ReadRequestId {
        header: or_none(header)?.unwrap_or(HeaderName::from_static("x-request-id")),
        version: or_none(version)?.unwrap_or(DEFAULT_VERSION),
        incoming: or_none(incoming)?,
        response,
    })
}

/// The name of a header that the gateway writes: not one that belongs to the connection or the framing.
fn own_header(value: &Value<'_>) -> Option<HeaderName> {
    parsed(&header::editable_header(value)?)
}

fn parsed(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok()
}

const VERSIONS: &[(&str, UuidVersion)] = &[("v4", UuidVersion::V4), ("v7", UuidVersion::V7)];
const INCOMING: &[(&str, IncomingId)] = &[
    ("never", IncomingId::Never),
    ("trusted", IncomingId::Trusted),
    ("any", IncomingId::Any),
];

/// Whoever keeps requests in a table looks them up by this: those of one time lie together.
const DEFAULT_VERSION: UuidVersion = UuidVersion::V7;
/// It goes with every request.
const MAX_OBFUSCATED: usize = 64;

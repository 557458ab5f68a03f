//! Attributes: what a component may ask to be handed with each call, parsed once into typed getters, and how these find it in
//! an exchange.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};
use jiff::tz::TimeZone;

use super::bindings::exports::gateway::policy::lifecycle;
use super::exchange::{ConnectionFacts, Exchange, Over};
use super::facts::Facts;
use super::maps::{Map, Maps};
use super::tags;
use crate::authority::host;

/// The attributes that a component is handed, by phase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// For predicates, limiters and request filters.
    pub(crate) request: Vec<Attribute>,
    /// For response filters.
    pub(crate) response: Vec<Attribute>,
    /// For access logs.
    pub(crate) log: Vec<Attribute>,
    /// For connection filters.
    pub(crate) connection: Vec<Attribute>,
}

impl Needs {
    /// Parses the needs of `describe` and `configure`, in that order. An error is a need and what is wrong with it.
    pub(super) fn parse(
        described: &lifecycle::Needs,
        configured: &lifecycle::Needs,
        maps: &Maps,
        tenant: Option<&Arc<str>>,
    ) -> Result<Self, (String, &'static str)> {
        let parse = |phase, first: &[String], second: &[String]| {
            if first.len() + second.len() > MAX_NEEDS {
                return Err((
                    format!("{} attributes", first.len() + second.len()),
                    "is more than a phase may have",
                ));
            }
            let names = first.iter().chain(second);
            names
                .map(|name| {
                    let attribute = Attribute::parse_with(name, phase, maps);
                    let attribute = attribute.and_then(|attribute| attribute.asked_by(tenant));
                    attribute.map_err(|why| (name.clone(), why))
                })
                .collect()
        };
        Ok(Self {
            request: parse(NeedPhase::Request, &described.request, &configured.request)?,
            response: parse(NeedPhase::Response, &described.response, &configured.response)?,
            log: parse(NeedPhase::Log, &described.log, &configured.log)?,
            connection: parse(NeedPhase::Connection, &described.connection, &configured.connection)?,
        })
    }

    /// The first that tells the time, which has to be granted wherever it is asked for.
    pub(super) fn time(&self) -> Option<String> {
        let phases = [&self.request, &self.response, &self.log, &self.connection];
        phases.into_iter().flatten().find_map(Attribute::time)
    }
}

/// When an attribute is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NeedPhase {
    Request,
    Response,
    Log,
    Connection,
}

/// One attribute; the names are those of `types.needs` in the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attribute {
    Method,
    Scheme,
    Authority,
    Host,
    Path,
    Query,
    Uri,
    HttpVersion,
    Upgrade,
    Header(HeaderName),
    Cookie(Box<[u8]>),
    QueryParam(Box<[u8]>),
    ClientIp,
    ClientPort,
    LocalIp,
    LocalPort,
    TlsVersion,
    TlsCipher,
    Sni,
    Alpn,
    ClientCert(Part),
    LocalTime(TimeZone),
    Condition(u32),
    /// What a map has for it.
    Mapped(Arc<Map>, Box<Self>),
    RequestId,
    TraceId,
    SpanId,
    Server,
    Status,
    ResponseHeader(HeaderName),
    /// A tag, as the plugins of this tenant see it.
    Tag(Box<str>, Option<Arc<str>>),
    Backend,
    Duration,
    BytesSent,
    Reason,
}

/// A part of the client's own certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Subject,
    CommonName,
    Issuer,
    Serial,
    AlternativeName,
    Fingerprint,
    NotBefore,
    NotAfter,
    /// All of it.
    Der,
    /// Whether there is one: what is said of every connection with TLS.
    Verify,
}

impl Attribute {
    /// As [`parse`](Self::parse), where `map:NAME:` before an attribute asks for what a map has for it: for the gateway's own
    /// texts and components.
    pub(crate) fn parse_with(name: &str, phase: NeedPhase, maps: &Maps) -> Result<Self, &'static str> {
        let Some((map, of)) = name.strip_prefix("map:").and_then(|rest| rest.split_once(':')) else {
            return Self::parse(name, phase);
        };
        let map = maps.get(map).ok_or(UNKNOWN)?;
        Ok(Self::Mapped(Arc::clone(map), Box::new(Self::parse(of, phase)?)))
    }

    /// Parses an attribute's name, as one that is wanted in a phase. The error says what is wrong with it.
    pub(crate) fn parse(name: &str, phase: NeedPhase) -> Result<Self, &'static str> {
        let attribute = match name.split_once(':') {
            None => Self::plain(name).ok_or(UNKNOWN)?,
            Some((_, "")) => return Err("lacks the name after the colon"),
            Some(("header", name)) => Self::Header(field_name(name)?),
            Some(("response-header", name)) => Self::ResponseHeader(field_name(name)?),
            Some(("cookie", name)) => Self::Cookie(name.as_bytes().into()),
            Some(("local-time", zone)) => Self::LocalTime(TimeZone::get(zone).map_err(|_| NO_ZONE)?),
            Some(("tag", name)) if tags::may_be_asked(name) => Self::Tag(name.into(), None),
            Some(("tag", _)) => return Err(NO_TAG),
            Some(("query-param", name)) => Self::QueryParam(name.as_bytes().into()),
            Some(("condition", number)) => {
                let number = number.parse().ok().filter(|number| *number < u64::BITS);
                Self::Condition(number.ok_or("has no such number: there are 64")?)
            }
            Some(_) => return Err(UNKNOWN),
        };
        match (&attribute, phase) {
            (_, NeedPhase::Log) => Ok(attribute),
            (Self::Backend | Self::Duration | Self::BytesSent | Self::Reason, _) => {
                Err("is known in the log phase only")
            }
            (Self::Status | Self::Server | Self::ResponseHeader(_), NeedPhase::Response) => Ok(attribute),
            (Self::Status | Self::Server | Self::ResponseHeader(_), _) => Err("is there in the response phase only"),
            (_, NeedPhase::Request | NeedPhase::Response) => Ok(attribute),
            (_, NeedPhase::Connection) if attribute.is_of_connection() => Ok(attribute),
            (_, NeedPhase::Connection) => Err("is not known of a connection"),
        }
    }

    fn plain(name: &str) -> Option<Self> {
        Some(match name {
            "method" => Self::Method,
            "scheme" => Self::Scheme,
            "authority" => Self::Authority,
            "host" => Self::Host,
            "path" => Self::Path,
            "query" => Self::Query,
            "uri" => Self::Uri,
            "http-version" => Self::HttpVersion,
            "upgrade" => Self::Upgrade,
            "server" => Self::Server,
            "client-ip" => Self::ClientIp,
            "client-port" => Self::ClientPort,
            "local-ip" => Self::LocalIp,
            "local-port" => Self::LocalPort,
            "tls-version" => Self::TlsVersion,
            "tls-cipher" => Self::TlsCipher,
            "request-id" => Self::RequestId,
            "trace-id" => Self::TraceId,
            "span-id" => Self::SpanId,
            "sni" => Self::Sni,
            "alpn" => Self::Alpn,
            "client-cert-subject" => Self::ClientCert(Part::Subject),
            "client-cert-cn" => Self::ClientCert(Part::CommonName),
            "client-cert-issuer" => Self::ClientCert(Part::Issuer),
            "client-cert-serial" => Self::ClientCert(Part::Serial),
            "client-cert-san" => Self::ClientCert(Part::AlternativeName),
            "client-cert-fingerprint" => Self::ClientCert(Part::Fingerprint),
            "client-cert-not-before" => Self::ClientCert(Part::NotBefore),
            "client-cert-not-after" => Self::ClientCert(Part::NotAfter),
            "client-cert-der" => Self::ClientCert(Part::Der),
            "client-cert-verify" => Self::ClientCert(Part::Verify),
            "status" => Self::Status,
            "backend" => Self::Backend,
            "duration-us" => Self::Duration,
            "bytes-sent" => Self::BytesSent,
            "reason" => Self::Reason,
            _ => return None,
        })
    }

    /// As it is asked for by a plugin of this tenant's, or of nobody's. The error says what is wrong with it.
    pub(crate) fn asked_by(self, tenant: Option<&Arc<str>>) -> Result<Self, &'static str> {
        match (self, tenant) {
            // Another tenant's, or its own by a name that only others need.
            (Self::Tag(name, _), Some(_)) if !tags::is_name(&name) => Err(NO_TAG),
            (Self::Tag(name, _), tenant) => Ok(Self::Tag(name, tenant.cloned())),
            (other, _) => Ok(other),
        }
    }

    /// Its name, if it tells the time.
    pub(crate) fn time(&self) -> Option<String> {
        match self {
            Self::Mapped(_, of) => of.time(),
            Self::LocalTime(zone) => Some(format!("local-time:{}", zone.iana_name().unwrap_or_default())),
            _ => None,
        }
    }

    /// Whether it is read from a ClientHello where TLS passes through.
    pub(crate) fn is_of_hello(&self) -> bool {
        match self {
            Self::Mapped(_, of) => of.is_of_hello(),
            other => matches!(other, Self::Sni | Self::Alpn),
        }
    }

    /// Whether it is read from the request's head.
    pub(crate) fn is_of_request(&self) -> bool {
        if let Self::Mapped(_, of) = self {
            return of.is_of_request();
        }
        !self.is_of_connection()
            && !matches!(
                self,
                Self::Status
                    | Self::ResponseHeader(_)
                    | Self::Server
                    | Self::Condition(_)
                    | Self::Tag(..)
                    | Self::Backend
                    | Self::Duration
                    | Self::BytesSent
                    | Self::Reason
                    | Self::RequestId
                    | Self::TraceId
                    | Self::SpanId
            )
    }

    fn is_of_connection(&self) -> bool {
        if let Self::Mapped(_, of) = self {
            return of.is_of_connection();
        }
        matches!(
            self,
            Self::ClientIp
                | Self::ClientPort
                | Self::LocalIp
                | Self::LocalPort
                | Self::TlsVersion
                | Self::TlsCipher
                | Self::Sni
                | Self::Alpn
                | Self::ClientCert(_)
                | Self::LocalTime(_)
        )
    }

    /// Notes what the attribute is in this exchange.
    pub(super) fn find(&self, need: u32, exchange: &Exchange, facts: &mut Facts) {
        if exchange.has_no_request() && self.is_of_request() {
            return;
        }
        let request = &exchange.request;
        match self {
            Self::Method => facts.push(need, request.method.as_str().as_bytes()),
            Self::Scheme => facts.push(need, scheme(exchange).as_bytes()),
            Self::Authority => facts.push(need, authority(exchange)),
            Self::Host => facts.push_lower(need, host(authority(exchange))),
            Self::Path => facts.push(need, request.uri.path().as_bytes()),
            Self::Query => {
                if let Some(query) = request.uri.query() {
                    facts.push(need, query.as_bytes());
                }
            }
            Self::Uri => {
                let target = request.uri.path_and_query();
                facts.push(need, target.map_or("/", |target| target.as_str()).as_bytes());
            }
            Self::HttpVersion => facts.push(need, http_version(request.version).as_bytes()),
            Self::Upgrade => upgrades(&request.headers, |protocol| facts.push_lower(need, protocol)),
            Self::Condition(number) => {
                if exchange.conditions >> number & 1 == 1 {
                    facts.push(need, b"1");
                }
            }
            Self::Mapped(map, of) => {
                let before = facts.end();
                of.find(need, exchange, facts);
                facts.look_up(need, before, map, matches!(**of, Self::ClientIp | Self::LocalIp));
            }
            Self::RequestId => {
                if let Some(id) = &exchange.request_id {
                    facts.push(need, id.as_bytes());
                }
            }
            Self::TraceId => {
                if let Some((trace, _)) = &exchange.trace {
                    facts.push_hex(need, trace);
                }
            }
            Self::SpanId => {
                if let Some((_, span)) = &exchange.trace {
                    facts.push_hex(need, span);
                }
            }
            Self::Server => {
                if let Some(server) = &exchange.server {
                    facts.push(need, server.as_bytes());
                }
            }
            Self::Header(name) => facts.push_all(need, &request.headers, name),
            Self::Cookie(name) => cookies(&request.headers, name, |value| facts.push(need, value)),
            Self::QueryParam(name) => facts.push_query_param(need, request.uri.query().unwrap_or_default(), name),
            Self::Status => match (&exchange.over, &exchange.response) {
                (Some(over), _) => facts.push_number(need, over.status.map(u64::from)),
                (None, Some(response)) => facts.push(need, response.status.as_str().as_bytes()),
                (None, None) => {}
            },
            Self::Tag(name, tenant) => {
                let tags = exchange.tags.as_ref();
                if let Some(value) = tags.and_then(|tags| tags.seen_by(tenant.as_deref(), name)) {
                    facts.push(need, value);
                }
            }
            Self::Backend | Self::Duration | Self::BytesSent | Self::Reason => {
                if let Some(over) = &exchange.over {
                    self.find_in_end(need, over, facts);
                }
            }
            Self::ResponseHeader(name) => {
                if let Some(response) = &exchange.response {
                    facts.push_all(need, &response.headers, name);
                }
            }
            _ => self.find_in_connection(need, &exchange.connection, facts),
        }
    }

    /// Notes what is known only when an exchange is over.
    fn find_in_end(&self, need: u32, over: &Over, facts: &mut Facts) {
        match self {
            Self::Backend => {
                if let Some(backend) = &over.backend {
                    facts.push(need, backend.as_bytes());
                }
            }
            Self::Duration => {
                let duration = u64::try_from(over.duration.as_micros()).unwrap_or(u64::MAX);
                facts.push_number(need, Some(duration));
            }
            Self::BytesSent => facts.push_number(need, Some(over.bytes_sent)),
            Self::Reason => {
                if let Some(reason) = over.reason {
                    facts.push(need, reason.as_bytes());
                }
            }
            // `find` hands no other one on.
            _ => {}
        }
    }

    pub(super) fn find_in_connection(&self, need: u32, connection: &ConnectionFacts, facts: &mut Facts) {
        let tls = connection.tls.as_ref();
        match self {
            Self::ClientIp => facts.push_ip(need, connection.client()),
            Self::ClientPort => facts.push_port(need, connection.client()),
            Self::LocalIp => facts.push_ip(need, connection.local()),
            Self::LocalPort => facts.push_port(need, connection.local()),
            Self::TlsVersion => {
                if let Some(tls) = tls {
                    facts.push(need, tls.version.as_bytes());
                }
            }
            Self::TlsCipher => {
                if let Some(tls) = tls {
                    facts.push(need, tls.cipher.as_bytes());
                }
            }
            Self::Sni => {
                let passing = connection.hello().and_then(|hello| hello.sni.as_ref());
                if let Some(sni) = tls.and_then(|tls| tls.sni.as_ref()).or(passing) {
                    facts.push(need, sni.as_bytes());
                }
            }
            Self::Alpn => {
                let passing = connection.hello().into_iter().flat_map(|hello| &hello.alpn);
                let agreed = tls.and_then(|tls| tls.alpn.as_ref());
                for protocol in agreed.into_iter().chain(passing) {
                    facts.push(need, protocol);
                }
            }
            Self::ClientCert(Part::Verify) => {
                if let Some(tls) = tls {
                    facts.push(need, tls.verified().as_bytes());
                }
            }
            Self::ClientCert(part) => {
                let Some(shown) = tls.and_then(|tls| tls.client_certificate.as_ref()) else {
                    return;
                };
                let read = shown.read();
                let one = match part {
                    Part::Subject => &read.subject,
                    Part::Issuer => &read.issuer,
                    Part::Serial => &read.serial,
                    Part::Fingerprint => &read.fingerprint,
                    Part::NotBefore => &read.not_before,
                    Part::NotAfter => &read.not_after,
                    Part::Der => return facts.push(need, shown.base64().as_bytes()),
                    // Said above, of those who have shown none as well.
                    Part::Verify => return,
                    Part::CommonName | Part::AlternativeName => {
                        let several = match part {
                            Part::CommonName => read.common_name.as_slice(),
                            _ => &read.alternative,
                        };
                        several.iter().for_each(|value| facts.push(need, value.as_bytes()));
                        return;
                    }
                };
                facts.push(need, one.as_bytes());
            }
            Self::LocalTime(zone) => facts.push_now(need, zone),
            // `parse` lets no other one into the connection phase.
            _ => {}
        }
    }
}

/// The version as it is spoken of.
fn http_version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "0.9",
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// Each protocol that a request asks to change to (RFC 9110, section 7.8).
fn upgrades(headers: &HeaderMap, mut protocol: impl FnMut(&[u8])) {
    for value in headers.get_all(header::UPGRADE) {
        let names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.filter(|name| !name.is_empty()).for_each(&mut protocol);
    }
}

/// How the client reached the gateway.
pub(crate) fn scheme(exchange: &Exchange) -> &'static str {
    if exchange.connection.tls.is_some() {
        "https"
    } else {
        "http"
    }
}

/// The Host header or, without one, the authority of the request target; empty without either.
pub(crate) fn authority(exchange: &Exchange) -> &[u8] {
    let request = &exchange.request;
    match request.headers.get(header::HOST) {
        Some(host) => host.as_bytes(),
        None => request
            .uri
            .authority()
            .map_or(&[], |authority| authority.as_str().as_bytes()),
    }
}

/// The values of a cookie (RFC 6265, section 4.2.1). White space around name and value is none of theirs, as servers read it: a
/// cookie that is seen by one reader only would be a way around the other.
fn cookies(headers: &HeaderMap, name: &[u8], mut found: impl FnMut(&[u8])) {
    for field in headers.get_all(header::COOKIE) {
        for pair in field.as_bytes().split(|&b| b == b';') {
            let Some(equals) = pair.iter().position(|&b| b == b'=') else {
                continue;
            };
            let (said, value) = pair.split_at(equals);
            if said.trim_ascii() == name {
                found(value[1..].trim_ascii());
            }
        }
    }
}

/// Each value of a parameter, as it was sent; the name is given decoded.
pub(crate) fn query_params<'a>(query: &'a str, name: &'a [u8]) -> impl Iterator<Item = &'a str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let is_it = move |key: &str| percent_decode(key.as_bytes()).eq(name.iter().copied());
    pairs.filter(move |(key, _)| is_it(key)).map(|(_, value)| value)
}

/// Decodes `%XX`; what is no such triplet stays as it is.
pub(crate) fn percent_decode(text: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut rest = text;
    std::iter::from_fn(move || {
        let (&first, tail) = rest.split_first()?;
        if let ([high, low, after @ ..], b'%') = (tail, first)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            rest = after;
            return Some(high << 4 | low);
        }
        rest = tail;
        Some(first)
    })
}

fn field_name(name: &str) -> Result<HeaderName, &'static str> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| "does not name a header field")
}

const UNKNOWN: &str = "the gateway does not know";
const NO_TAG: &str = "is not named as a tag may be";
const NO_ZONE: &str = "names no time zone of the IANA's database";

/// Attributes that a component may ask for in one phase. Each is looked for in every exchange.
const MAX_NEEDS: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{ClientHello, Ends, Preamble, TlsFacts};

    fn exchange(request: http::request::Builder, response: Option<http::response::Builder>) -> Exchange {
        Exchange {
            conditions: 0b10,
            uses: 0,
            request_id: Some(http::HeaderValue::from_static("0193a1b2")),
            trace: Some(([0xab; 16], [0x0c; 8])),
            server: Some("app-1".into()),
            kept: Default::default(),
            held: Vec::new(),
            lot: Default::default(),
            kept_by_connection: None,
            counted: Default::default(),
            tags: None,
            over: None,
            #[cfg(debug_assertions)]
            phase: crate::policy::AskingPhase::Acl,
            request: request.body(()).unwrap().into_parts().0,
            response: response.map(|r| r.body(()).unwrap().into_parts().0),
            connection: Arc::new(ConnectionFacts {
                accepted: tokio::time::Instant::now(),
                ends: Ends::new(
                    "[::ffff:192.0.2.7]:4711".parse().unwrap(),
                    "[2001:db8::1]:443".parse().unwrap(),
                ),
                tls: Some(Box::new(TlsFacts {
                    version: "TLSv1.3",
                    cipher: "TLS_AES_256_GCM_SHA384",
                    sni: Some("www.example.net".to_owned()),
                    alpn: Some(b"h2".to_vec()),
                    client_certificate: None,
                })),
                preamble: None,
            }),
        }
    }

    fn facts(needs: &[&str], phase: NeedPhase, exchange: &Exchange) -> Vec<(u32, Vec<u8>)> {
        let needs: Vec<_> = needs.iter().map(|n| Attribute::parse(n, phase).unwrap()).collect();
        let mut facts = Facts::default();
        // Twice, as the buffer is used again.
        facts.of_exchange(&needs, exchange);
        facts.of_exchange(&needs, exchange);
        facts.iter().map(|(need, value)| (need, value.to_vec())).collect()
    }

    #[test]
    fn every_attribute_of_the_contract_is_found() {
        let request = http::Request::builder()
            .method("PATCH")
            .uri("/a%20b?x=1&y=%41+b&x=2&z")
            .header("host", "WWW.Example.NET.:8443")
            .header("cookie", "a=1; beta=yes; ab=3")
            .header("cookie", "beta=no=1")
            .header("x-id", &b"\xff\xfe"[..])
            .header("X-Id", "second");
        let response = http::Response::builder().status(404).header("server", "nginx");
        let exchange = exchange(request, Some(response));
        let needs = [
            "method",
            "scheme",
            "authority",
            "host",
            "path",
            "query",
            "header:X-Id",
            "cookie:beta",
            "query-param:x",
            "query-param:y",
            "query-param:z",
            "query-param:none",
            "client-ip",
            "client-port",
            "local-ip",
            "local-port",
            "tls-version",
            "sni",
            "alpn",
            "status",
            "response-header:Server",
            "header:absent",
            "tls-cipher",
            "request-id",
        ];
        let local: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let expected: Vec<(u32, &[u8])> = vec![
            (0, b"PATCH"),
            (1, b"https"),
            (2, b"WWW.Example.NET.:8443"),
            (3, b"www.example.net"),
            (4, b"/a%20b"),
            (5, b"x=1&y=%41+b&x=2&z"),
            (6, b"\xff\xfe"),
            (6, b"second"),
            (7, b"yes"),
            (7, b"no=1"),
            (8, b"1"),
            (8, b"2"),
            (9, b"A+b"),
            (10, b""),
            (12, &[192, 0, 2, 7]),
            (13, b"4711"),
            (14, &local),
            (15, b"443"),
            (16, b"TLSv1.3"),
            (17, b"www.example.net"),
            (18, b"h2"),
            (19, b"404"),
            (20, b"nginx"),
            (22, b"TLS_AES_256_GCM_SHA384"),
            (23, b"0193a1b2"),
        ];
        let found = facts(&needs, NeedPhase::Response, &exchange);
        let found: Vec<_> = found.iter().map(|(need, value)| (*need, value.as_slice())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_the_clients_certificate_says_is_found() {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let named = |names: &[&str], parts: &[(rcgen::DnType, &str)]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = rcgen::CertificateParams::new(names).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            for (kind, value) in parts {
                params.distinguished_name.push(kind.clone(), *value);
            }
            params
        };
        use rcgen::DnType::{CommonName, CountryName, OrganizationName};
        let issuer = rcgen::Issuer::new(named(&[], &[(CommonName, "An Authority")]), ca_key);
        let subject = [
            (CountryName, "DE"),
            (OrganizationName, "A, B"),
            (CommonName, "client.example"),
        ];
        let mut params = named(&["Client.example", "192.0.2.7"], &subject);
        let at = |seconds| ::time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        params.not_before = at(1_767_323_045);
        params.not_after = at(2_524_607_999);
        params.serial_number = Some(vec![0xfe, 1].into());
        let uri = "spiffe://example/a".to_owned().try_into().unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(uri));
        let certificate = params.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap();
        let der = certificate.der().to_vec();

        let mut exchange = exchange(http::Request::builder().uri("/"), None);
        let connection = Arc::get_mut(&mut exchange.connection).unwrap();
        let tls = connection.tls.as_mut().unwrap();
        tls.client_certificate = Some(crate::policy::ClientCertificate::new(der.clone()));
        let needs = [
            "client-cert-subject",
            "client-cert-cn",
            "client-cert-issuer",
            "client-cert-serial",
            "client-cert-san",
            "client-cert-not-before",
            "client-cert-not-after",
            "client-cert-verify",
        ];
        let expected: Vec<(u32, &[u8])> = vec![
            (0, b"CN=client.example,O=A\\, B,C=DE"),
            (1, b"client.example"),
            (2, b"CN=An Authority"),
            (3, b"fe01"),
            (4, b"DNS:client.example"),
            (4, b"IP:192.0.2.7"),
            (4, b"URI:spiffe://example/a"),
            (5, b"2026-01-02T03:04:05Z"),
            (6, b"2049-12-31T23:59:59Z"),
            (7, b"SUCCESS"),
        ];
        let found = facts(&needs, NeedPhase::Connection, &exchange);
        let found: Vec<_> = found.iter().map(|(need, value)| (*need, value.as_slice())).collect();
        assert_eq!(found, expected);
        let encoded = facts(&["client-cert-der"], NeedPhase::Request, &exchange).remove(0).1;
        assert_eq!(
            base64::Engine::decode(&base64::prelude::BASE64_STANDARD, encoded).unwrap(),
            der
        );
        let fingerprint = facts(&["client-cert-fingerprint"], NeedPhase::Request, &exchange)
            .remove(0)
            .1;
        let digest: String = <sha2::Sha256 as sha2::Digest>::digest(&der)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(String::from_utf8(fingerprint).unwrap(), digest);
    }

    #[test]
    fn what_a_hello_that_passes_through_says_is_found() {
        let mut exchange = exchange(http::Request::builder().uri("/"), None);
        let connection = Arc::get_mut(&mut exchange.connection).unwrap();
        connection.tls = None;
        connection.preamble = Some(Box::new(Preamble {
            hello: Some(ClientHello {
                sni: Some("a.example".to_owned()),
                alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            }),
            proxy: None,
        }));
        let expected = [
            (0, b"a.example".to_vec()),
            (1, b"h2".to_vec()),
            (1, b"http/1.1".to_vec()),
        ];
        let needs = ["sni", "alpn", "tls-version", "scheme"];
        assert_eq!(facts(&needs[..3], NeedPhase::Request, &exchange), expected);
        assert_eq!(facts(&needs, NeedPhase::Request, &exchange)[3].1, b"http");
    }

    #[test]
    fn the_time_is_that_of_its_zone() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let mut found = Facts::default();
        for (utc, local) in [
            ("2026-01-01T00:00:00Z", "4 2026-01-01T01:00:00+01:00"),
            ("2026-07-05T22:30:00Z", "1 2026-07-06T00:30:00+02:00"),
            // The hour that comes twice.
            ("2026-10-25T00:30:00Z", "7 2026-10-25T02:30:00+02:00"),
            ("2026-10-25T01:30:00Z", "7 2026-10-25T02:30:00+01:00"),
        ] {
            found.clear();
            found.push_time(7, &utc.parse::<Timestamp>().unwrap().to_zoned(zone.clone()));
            assert_eq!(found.iter().collect::<Vec<_>>(), [(7, local.as_bytes())]);
        }
        let exchange = exchange(http::Request::builder().uri("/"), None);
        let now = facts(&["local-time:UTC"], NeedPhase::Connection, &exchange).remove(0).1;
        let now: Timestamp = std::str::from_utf8(&now[2..]).unwrap().parse().unwrap();
        assert!(Timestamp::now().duration_since(now).as_secs() < 5);
        for name in ["local-time:Europe/Atlantis", "local-time:", "local-time"] {
            assert!(Attribute::parse(name, NeedPhase::Request).is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_absent_is_no_fact() {
        let mut exchange = exchange(http::Request::builder().uri("/"), None);
        Arc::get_mut(&mut exchange.connection).unwrap().tls = None;
        let needs = [
            "query",
            "cookie:a",
            "query-param:a",
            "sni",
            "alpn",
            "tls-version",
            "status",
            "header:x",
        ];
        assert_eq!(facts(&needs, NeedPhase::Response, &exchange), []);
    }

    #[test]
    fn a_need_of_the_wrong_phase_or_no_phase_is_refused() {
        for (name, phase) in [
            ("status", NeedPhase::Request),
            ("response-header:a", NeedPhase::Request),
            ("path", NeedPhase::Connection),
            ("header:a", NeedPhase::Connection),
            ("status", NeedPhase::Connection),
            ("header:", NeedPhase::Request),
            ("header:a b", NeedPhase::Request),
            ("header:\u{e4}", NeedPhase::Request),
            ("Method", NeedPhase::Request),
            ("method:GET", NeedPhase::Request),
            ("", NeedPhase::Request),
        ] {
            assert!(Attribute::parse(name, phase).is_err(), "{name} {phase:?}");
        }
    }

    #[test]
    fn the_host_of_an_authority() {
        for (authority, expected) in [
            ("example.net", "example.net"),
            ("example.net:80", "example.net"),
            ("example.net.", "example.net"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("user@example.net:1", "example.net"),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(host(authority.as_bytes()), expected.as_bytes(), "{authority}");
        }
    }

    proptest! {
        #[test]
        fn percent_decoding_undoes_encoding(text: Vec<u8>) {
            let encoded: Vec<u8> = text.iter().flat_map(|b| format!("%{b:02x}").into_bytes()).collect();
            prop_assert!(percent_decode(&encoded).eq(text.iter().copied()));
        }

        #[test]
        fn percent_decoding_takes_anything(text: Vec<u8>) {
            prop_assert!(percent_decode(&text).count() <= text.len());
        }

        #[test]
        fn any_authority_has_a_host(text: Vec<u8>) {
            prop_assert!(host(&text).len() <= text.len());
        }
    }
}

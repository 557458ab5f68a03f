//! How attributes are found in an exchange or a connection.

use http::{HeaderMap, header};

use super::attribute::{Attribute, Part};
use super::exchange::{ConnectionFacts, Exchange, Over};
use super::facts::Facts;
use crate::authority::host;

impl Attribute {
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
            Self::UrlEncoded(kind, of) => {
                let before = facts.end();
                of.find(need, exchange, facts);
                facts.url_encode(need, before, *kind);
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
    // No cookie has such a name, and where it is looked for below, one with another name could be taken for it.
    if name.contains(&b'=') || name.trim_ascii().len() < name.len() {
        return;
    }
    for field in headers.get_all(header::COOKIE) {
        for pair in field.as_bytes().split(|&b| b == b';') {
            // The name first: most are others, whose values need not be gone through.
            let behind = pair.trim_ascii_start().strip_prefix(name);
            if let Some(value) = behind.and_then(|behind| behind.trim_ascii_start().strip_prefix(b"=")) {
                found(value.trim_ascii());
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

//! Attributes: what a component may ask to be told of an exchange or a connection, parsed once into typed getters. How they are
//! found there is in `find.rs`.

use std::sync::Arc;

use gateway_plugin_template::Kind;
use http::HeaderName;
use jiff::tz::TimeZone;

use super::maps::{Map, Maps};
use super::needs::NeedPhase;
use super::tags;

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
    /// What a text of this kind would have of it, percent-encoded as the value of a query's parameter.
    UrlEncoded(Kind, Box<Self>),
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
    /// As [`parse`](Self::parse), where `map:NAME:` before an attribute asks for what a map has for it, and `url-encode:` before
    /// that for it percent-encoded: for the gateway's own texts and components.
    pub(crate) fn parse_with(name: &str, phase: NeedPhase, maps: &Maps) -> Result<Self, &'static str> {
        if let Some(of) = name.strip_prefix(URL_ENCODE) {
            let inner = Self::parse_mapped(of, phase, maps)?;
            if phase == NeedPhase::Connection {
                return Err(NOT_OF_CONNECTION);
            }
            return Ok(Self::UrlEncoded(Kind::of(of), Box::new(inner)));
        }
        Self::parse_mapped(name, phase, maps)
    }

    fn parse_mapped(name: &str, phase: NeedPhase, maps: &Maps) -> Result<Self, &'static str> {
        let Some((map, of)) = name.strip_prefix("map:").and_then(|rest| rest.split_once(':')) else {
            return Self::parse(name, phase);
        };
        let map = maps.get(map).ok_or(UNKNOWN)?;
        // Nothing is made of what is known of connections.
        if phase == NeedPhase::Connection {
            return Err(NOT_OF_CONNECTION);
        }
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
            (_, NeedPhase::Connection) => Err(NOT_OF_CONNECTION),
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
            (Self::Mapped(map, of), tenant) => Ok(Self::Mapped(map, Box::new(of.asked_by(tenant)?))),
            (Self::UrlEncoded(kind, of), tenant) => Ok(Self::UrlEncoded(kind, Box::new(of.asked_by(tenant)?))),
            (other, _) => Ok(other),
        }
    }

    /// Its name, if it tells the time.
    pub(crate) fn time(&self) -> Option<String> {
        match self {
            Self::Mapped(_, of) | Self::UrlEncoded(_, of) => of.time(),
            Self::LocalTime(zone) => Some(format!("local-time:{}", zone.iana_name().unwrap_or_default())),
            _ => None,
        }
    }

    /// Whether it is read from a ClientHello where TLS passes through.
    pub(crate) fn is_of_hello(&self) -> bool {
        match self {
            Self::Mapped(_, of) | Self::UrlEncoded(_, of) => of.is_of_hello(),
            other => matches!(other, Self::Sni | Self::Alpn),
        }
    }

    /// Whether it is read from the request's head.
    pub(crate) fn is_of_request(&self) -> bool {
        if let Self::Mapped(_, of) | Self::UrlEncoded(_, of) = self {
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
        if let Self::Mapped(_, of) | Self::UrlEncoded(_, of) = self {
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
}

fn field_name(name: &str) -> Result<HeaderName, &'static str> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| "does not name a header field")
}

/// What stands before an attribute that is wanted percent-encoded.
pub(super) const URL_ENCODE: &str = "url-encode:";

const NOT_OF_CONNECTION: &str = "is not known of a connection";
const UNKNOWN: &str = "the gateway does not know";
const NO_TAG: &str = "is not named as a tag may be";
const NO_ZONE: &str = "names no time zone of the IANA's database";

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_is_percent_encoded_is_of_the_gateways_own_and_of_requests() {
        let (name, maps) = ("url-encode:client-ip", Maps::default());
        assert!(Attribute::parse_with(name, NeedPhase::Request, &maps).is_ok());
        assert!(Attribute::parse_with(name, NeedPhase::Connection, &maps).is_err());
        assert!(Attribute::parse(name, NeedPhase::Request).is_err());
    }
}

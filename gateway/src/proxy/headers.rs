//! What belongs to one connection and is not forwarded (RFC 9110, section 7.6.1), and what is added on the way.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::error::ProxyError;
use super::forwarding::is_of_proxies;
use crate::authority::is_authority;
use crate::twins::reads_as;

/// Which of the fields that frame a message, or belong to one connection, a head has. Found in one look at its names: most heads
/// have one or none of them, and searching for each costs more than everything else that is done about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present(u16);

impl Present {
    pub const CONNECTION: Self = Self(1);
    pub const CONTENT_LENGTH: Self = Self(1 << 1);
    pub const EXPECT: Self = Self(1 << 2);
    pub const TE: Self = Self(1 << 3);
    pub const TRANSFER_ENCODING: Self = Self(1 << 4);
    pub const UPGRADE: Self = Self(1 << 5);
    const KEEP_ALIVE: Self = Self(1 << 6);
    const PROXY_CONNECTION: Self = Self(1 << 7);
    const PROXY_AUTHENTICATE: Self = Self(1 << 8);

    /// Of a head with these fields.
    pub fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |present, name| present | Self::bit(name).0))
    }

    fn bit(name: &HeaderName) -> Self {
        match *name {
            header::CONNECTION => Self::CONNECTION,
            header::CONTENT_LENGTH => Self::CONTENT_LENGTH,
            header::EXPECT => Self::EXPECT,
            header::TE => Self::TE,
            header::TRANSFER_ENCODING => Self::TRANSFER_ENCODING,
            header::UPGRADE => Self::UPGRADE,
            header::PROXY_AUTHENTICATE => Self::PROXY_AUTHENTICATE,
            _ => match name.as_str() {
                "keep-alive" => Self::KEEP_ALIVE,
                "proxy-connection" => Self::PROXY_CONNECTION,
                _ => Self(0),
            },
        }
    }

    /// Whether this field, or one of these, is there.
    pub const fn has(self, field: Self) -> bool {
        self.0 & field.0 != 0
    }
}

/// Removes the fields that end at the gateway: those that `Connection` names and those that always do. Transfer-Encoding
/// goes too, and a Content-Length that it overrides (RFC 9112, section 6.3); the message is framed anew.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip_hop_by_hop_but(headers, None);
}

/// The same of a request, of which `Connection` may not name the frontend's own fields either: those that say who its client is
/// or what its number is would be missing where they are looked for.
pub fn strip_hop_by_hop_but(headers: &mut HeaderMap, own: Option<&[HeaderName]>) {
    let present = Present::of(headers);
    if present.has(Present::CONNECTION) {
        // Collected first: the names borrow from the map that they are removed from. Almost always one or none.
        let nominated: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|name| !is_known_option(name))
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .filter(|name| !END_TO_END.contains(name) && !name.as_str().starts_with("x-forwarded-"))
            .filter(|name| own.is_none_or(|own| !own.contains(name)))
            .collect();
        for name in nominated {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    if present.has(Present::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    for (field, name) in &HOP_BY_HOP {
        if present.has(*field) {
            headers.remove(name);
        }
    }
}

/// What `Connection` commonly says: no field, or one that goes anyway.
fn is_known_option(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"close")
        || HOP_BY_HOP
            .iter()
            .any(|(_, name)| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

/// Removes what may not stand behind the content, where nobody looks for it (RFC 9110, section 6.5.1): fields that frame,
/// route, authenticate or modify the message, say how its content is to be read or who the client is, or belong to one
/// connection.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip(trailers, |name| NO_TRAILERS.contains(name) || is_of_proxies(name));
}

/// Removes from behind a request's content what the frontend's own fields could be taken for, where trailers and header fields
/// are one to a server.
pub fn strip_own(trailers: &mut HeaderMap, own: &[HeaderName]) {
    strip(trailers, |name| own.iter().any(|own| reads_as(name, own)));
}

fn strip(fields: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    // Collected first: the names borrow from the map that they are removed from.
    let unwanted: Vec<HeaderName> = fields.keys().filter(|name| is_unwanted(name)).cloned().collect();
    for name in unwanted {
        fields.remove(name);
    }
}

/// Whether the sender takes trailers (RFC 9110, section 10.1.4). It is asked before [`strip_hop_by_hop`].
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::TE).iter();
    values.any(|value| {
        let mut codings = value.as_bytes().split(|byte| *byte == b',');
        codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// Whether the client wants the connection to end after this request (RFC 9112, section 9.3).
pub fn is_last(request: &http::request::Parts, present: Present) -> bool {
    let says = |word: &str| {
        let values = request.headers.get_all(header::CONNECTION).iter();
        let mut words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        words.any(|said| said.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    };
    match request.version {
        http::Version::HTTP_11 => present.has(Present::CONNECTION) && says("close"),
        http::Version::HTTP_10 => !says("keep-alive"),
        _ => false,
    }
}

/// Refuses a request that two readers could understand differently, or that a forward proxy but not a gateway serves.
pub fn check_request(request: &http::request::Parts) -> Result<(), ProxyError> {
    if request.method == http::Method::CONNECT {
        return Err(ProxyError::BadRequest("connect-method"));
    }
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(ProxyError::BadRequest("several-hosts"));
    }
    match host {
        // RFC 9112, section 3.2: an HTTP/1.1 request without one is answered with 400.
        None if request.version >= http::Version::HTTP_11 && request.uri.authority().is_none() => {
            Err(ProxyError::BadRequest("no-host"))
        }
        Some(host) if !is_authority(host.as_bytes()) => Err(ProxyError::BadRequest("bad-host")),
        _ => Ok(()),
    }
}

/// Brings the target of a request into origin form (RFC 9112, section 3.2.1). An absolute form's authority becomes the
/// Host, whatever Host said (section 3.2.2).
pub fn to_origin_form(request: &mut http::request::Parts) -> Result<(), ProxyError> {
    let Some(authority) = request.uri.authority() else {
        return Ok(());
    };
    if request.uri.scheme().is_none() {
        // The authority form is for CONNECT.
        return Err(ProxyError::BadRequest("bad-target"));
    }
    if !is_authority(authority.as_str().as_bytes()) {
        return Err(ProxyError::BadRequest("bad-target"));
    }
    let host = HeaderValue::try_from(authority.as_str()).map_err(|_| ProxyError::BadRequest("bad-authority"))?;
    request.headers.insert(header::HOST, host);
    let path = match request.uri.path_and_query() {
        None => http::uri::PathAndQuery::from_static("/"),
        // `http://host?query`: the path is empty, and a slash on the wire (RFC 9112, section 3.2.1).
        Some(path) if path.as_str().starts_with('?') => {
            let path = format!("/{}", path.as_str());
            http::uri::PathAndQuery::try_from(path).map_err(|_| ProxyError::BadRequest("bad-target"))?
        }
        Some(path) => path.clone(),
    };
    request.uri = http::Uri::from(path);
    Ok(())
}

/// Names what this hop is called in `via`-like fields.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

const HOP_BY_HOP: [(Present, HeaderName); 6] = [
    (Present::KEEP_ALIVE, HeaderName::from_static("keep-alive")),
    (Present::PROXY_CONNECTION, HeaderName::from_static("proxy-connection")),
    (Present::TE, header::TE),
    (Present::TRANSFER_ENCODING, header::TRANSFER_ENCODING),
    (Present::UPGRADE, header::UPGRADE),
    (Present::PROXY_AUTHENTICATE, header::PROXY_AUTHENTICATE),
];

const NO_TRAILERS: [HeaderName; 39] = [
    // Framing and routing.
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::HOST,
    // Of one connection.
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    // Who one is.
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    header::WWW_AUTHENTICATE,
    header::COOKIE,
    header::SET_COOKIE,
    // What is asked for.
    header::CACHE_CONTROL,
    header::EXPECT,
    header::MAX_FORWARDS,
    header::PRAGMA,
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::ORIGIN,
    // What is answered.
    header::AGE,
    header::DATE,
    header::EXPIRES,
    header::LOCATION,
    header::RETRY_AFTER,
    header::VARY,
    header::WARNING,
    // How the content is read.
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
    header::CONTENT_LOCATION,
    header::ACCEPT_ENCODING,
    header::CONTENT_DISPOSITION,
];

/// `Connection` may not name these: removing them would change what the message says, and a client could use that to hide
/// its address or its credentials' absence from the server.
const END_TO_END: [HeaderName; 8] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::COOKIE,
    X_FORWARDED_FOR,
    header::FORWARDED,
    HeaderName::from_static("x-real-ip"),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn parts(build: http::request::Builder) -> http::request::Parts {
        build.body(()).unwrap().into_parts().0
    }

    #[test]
    fn present_are_the_fields_that_are_there() {
        let fields = HOP_BY_HOP.into_iter().chain([
            (Present::CONNECTION, header::CONNECTION),
            (Present::CONTENT_LENGTH, header::CONTENT_LENGTH),
            (Present::EXPECT, header::EXPECT),
        ]);
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert("x-te", HeaderValue::from_static("1"));
        assert_eq!(Present::of(&headers), Present(0));
        for (n, (field, name)) in fields.enumerate() {
            assert!(!Present::of(&headers).has(field), "{name}");
            headers.insert(name, HeaderValue::from_static("1"));
            let present = Present::of(&headers);
            assert!(present.has(field));
            assert_eq!(present.0.count_ones() as usize, n + 1);
        }
    }

    #[test]
    fn nominated_fields_go_and_end_to_end_ones_stay() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("close, X-Secret ,authorization"));
        headers.insert("x-secret", HeaderValue::from_static("1"));
        headers.insert("authorization", HeaderValue::from_static("Basic x"));
        headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
        headers.insert("te", HeaderValue::from_static("gzip"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "authorization"]);
    }

    #[test]
    fn the_frontends_own_fields_are_no_hops() {
        let own = [
            HeaderName::from_static("x-client"),
            HeaderName::from_static("x-request-id"),
        ];
        let mut headers = HeaderMap::new();
        headers.insert(
            "connection",
            HeaderValue::from_static("x-client, X-Request-Id, x-forwarded-proto, x-other"),
        );
        for name in ["x-client", "x-request-id", "x-forwarded-proto", "x-other"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        strip_hop_by_hop_but(&mut headers, Some(&own));
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-client", "x-forwarded-proto", "x-request-id"]);
    }

    #[test]
    fn trailers_say_nothing_of_the_client() {
        let mut trailers = HeaderMap::new();
        for name in [
            "x-forwarded-for",
            "x-forwarded-proto",
            "x_forwarded_host",
            "x-forwarded-client-cert",
            "x-real-ip",
            "x_real-ip",
            "forwarded",
            "content-length",
            "host",
            "x-checksum",
            "grpc-status",
        ] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        trailers.append("forwarded", HeaderValue::from_static("2"));
        strip_trailers(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "x-checksum"]);

        let own = [HeaderName::from_static("x-client-ip")];
        trailers.insert("x-client-ip", HeaderValue::from_static("1"));
        trailers.insert("x_client_ip", HeaderValue::from_static("1"));
        strip_own(&mut trailers, &own);
        assert_eq!(trailers.len(), 2, "{trailers:?}");
    }

    #[test]
    fn a_length_that_chunks_override_goes_too() {
        let mut headers = HeaderMap::new();
        headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
        headers.insert("content-length", HeaderValue::from_static("5"));
        strip_hop_by_hop(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        let none = parts(http::Request::get("/"));
        assert!(matches!(check_request(&none), Err(ProxyError::BadRequest("no-host"))));
        let two = parts(http::Request::get("/").header("host", "a").header("host", "b"));
        assert!(matches!(
            check_request(&two),
            Err(ProxyError::BadRequest("several-hosts"))
        ));
        let bad = parts(http::Request::get("/").header("host", "a/b"));
        assert!(matches!(check_request(&bad), Err(ProxyError::BadRequest("bad-host"))));
        let good = parts(http::Request::get("/").header("host", "[::1]:80"));
        assert!(check_request(&good).is_ok());
        let old = parts(http::Request::get("/").version(http::Version::HTTP_10));
        assert!(check_request(&old).is_ok());
    }

    #[test]
    fn absolute_form_decides_the_host() {
        let mut request = parts(http::Request::get("http://a.example/x?y").header("host", "b.example"));
        to_origin_form(&mut request).unwrap();
        assert_eq!(request.uri, "/x?y");
        assert_eq!(request.headers["host"], "a.example");
        let mut hidden = parts(http::Request::get("http://user@a.example/").header("host", "b.example"));
        assert!(to_origin_form(&mut hidden).is_err());
    }
}

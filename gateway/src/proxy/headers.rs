//! What belongs to one connection and is not forwarded (RFC 9110, section 7.6.1), and what is added on the way.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::error::ProxyError;
use super::strict::is_authority;

/// Removes the fields that end at the gateway: those that `Connection` names and those that always do. Transfer-Encoding
/// goes too, and a Content-Length that it overrides (RFC 9112, section 6.3); hyper frames the message anew.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        // Collected first: the names borrow from the map that they are removed from. Almost always one or none.
        let nominated: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| !END_TO_END.contains(name) && !name.as_str().starts_with("x-forwarded-"))
            .collect();
        for name in nominated {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in &HOP_BY_HOP {
        if headers.contains_key(name) {
            headers.remove(name);
        }
    }
}

/// Removes what may not stand behind the content, where nobody looks for it (RFC 9110, section 6.5.1): fields that frame,
/// route, authenticate or modify the message, say how its content is to be read, or belong to one connection.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    for name in &NO_TRAILERS {
        if trailers.contains_key(name) {
            trailers.remove(name);
        }
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
pub fn is_last<B>(request: &http::Request<B>) -> bool {
    let says = |word: &str| {
        let values = request.headers().get_all(header::CONNECTION).iter();
        let mut words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        words.any(|said| said.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    };
    match request.version() {
        http::Version::HTTP_11 => request.headers().contains_key(header::CONNECTION) && says("close"),
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
    let path = request
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    request.uri = http::Uri::from(path);
    Ok(())
}

/// Names what this hop is called in `via`-like fields.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

const HOP_BY_HOP: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
];

const NO_TRAILERS: [HeaderName; 41] = [
    // Framing and routing.
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::HOST,
    header::FORWARDED,
    X_FORWARDED_FOR,
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

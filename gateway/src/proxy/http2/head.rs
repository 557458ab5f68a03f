//! The head of a request as HTTP/2 brings it, and what becomes of it: the form in which policies and servers see every request.
//!
//! The library refuses what cannot be a field (control characters, capital letters), fields that belong to a connection, and
//! pseudo-header fields that are missing, unknown, twice there or late (RFC 9113, sections 8.2 and 8.3), by resetting the stream.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Uri, Version};

use super::tunnel;
use crate::config::RequestLimits;
use crate::proxy::content::{Content, Http2Content};
use crate::proxy::error::ProxyError;

/// Takes a request over: `:authority` becomes Host, as it is with HTTP/1.1. One that a Host beside it contradicts is left where
/// it is, for [`check`] to refuse.
pub fn receive(mut request: Request<h2::RecvStream>) -> Request<Content> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    if let Some(authority) = request.uri().authority()
        && matches!(request.uri().scheme_str(), Some("http" | "https"))
    {
        let host = request.headers().get(header::HOST);
        let agree = host.is_none_or(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()));
        if agree && let Ok(host) = HeaderValue::try_from(authority.as_str()) {
            let path = request.uri().path_and_query().cloned();
            request.headers_mut().insert(header::HOST, host);
            *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        }
    }
    request.map(|stream| Content::Http2(Http2Content::new(stream, length)))
}

/// Refuses a request that is not to be passed on, and joins the pieces of its cookies. Whether the stream is to become a tunnel:
/// the head is that of an upgrade then.
pub fn check(head: &mut http::request::Parts, limits: &RequestLimits) -> Result<bool, ProxyError> {
    if head.version != Version::HTTP_2 {
        return Ok(false);
    }
    let wants_tunnel = tunnel::translate(head)?;
    if head.method == Method::CONNECT {
        // Before its target, which is as it has to be, and is none of a gateway's.
        return Err(ProxyError::BadRequest("connect-method"));
    }
    if head.uri.authority().is_some() {
        // RFC 9113, section 8.3.1: a Host that differs is a fault, and so is a scheme that is not this server's.
        return Err(ProxyError::BadRequest("host-mismatch"));
    }
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let is_target = path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS);
    if !is_target {
        return Err(ProxyError::BadRequest("bad-target"));
    }
    // As HTTP/1.1 would have it: ": " and the end of the line.
    let size = |(name, value): (&header::HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let line = head.method.as_str().len() + path.len() + " HTTP/1.1\r\n ".len();
    if head.headers.len() > limits.headers || line + head.headers.iter().map(size).sum::<usize>() > limits.head {
        return Err(ProxyError::HeadTooLarge);
    }
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next()
        && (lengths.next().is_some() || !length.as_bytes().iter().all(u8::is_ascii_digit) || length.is_empty())
    {
        return Err(ProxyError::BadRequest("bad-length"));
    }
    trim_values(&mut head.headers);
    join_cookies(&mut head.headers)?;
    Ok(wants_tunnel)
}

/// Takes white space off the ends of values, where it may not be (RFC 9113, section 8.2.1) and the library lets it be. A server of
/// HTTP/1.1 takes it off, and rules have to be asked about what servers will see.
fn trim_values(headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        let trimmed = value.as_bytes().trim_ascii();
        if trimmed.len() != value.len()
            && let Ok(mut trimmed) = HeaderValue::from_bytes(trimmed)
        {
            trimmed.set_sensitive(value.is_sensitive());
            *value = trimmed;
        }
    }
}

/// A client may send a cookie in pieces, one field each; beyond HTTP/2 they are one (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Result<(), ProxyError> {
    let mut pieces = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (pieces.next(), pieces.next()) else {
        return Ok(());
    };
    let mut joined = first.as_bytes().to_vec();
    for piece in [second].into_iter().chain(pieces) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(piece.as_bytes());
    }
    let joined = HeaderValue::try_from(joined).map_err(|_| ProxyError::BadRequest("bad-cookie"))?;
    headers.insert(header::COOKIE, joined);
    Ok(())
}

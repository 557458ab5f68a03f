//! Extended CONNECT to a server (RFC 8441): an upgrade that a client has asked for, on a stream of HTTP/2. Above this it is one of
//! HTTP/1.1, with its 101; here it becomes a CONNECT with a `:protocol`, and its 2xx becomes that 101.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, request};

use super::client::Client;
use super::error::ProxyError;
use super::turns::Late;
use super::upgrade;
use super::upstream::Sent;
use crate::backend::{Session, StreamPlace};

/// The protocol that a request asks to go on in. Of several the first: a stream has one, and the client takes any.
pub fn asked(head: &request::Parts) -> Option<Protocol> {
    let asked = head.headers.get(header::UPGRADE)?.to_str().ok()?;
    let first = asked.split(',').next()?.trim();
    (!first.is_empty()).then(|| Protocol::from(first.to_ascii_lowercase().as_str()))
}

/// Waits until the server has said whether it takes such requests: before its SETTINGS none may be sent to it.
pub async fn wait_for_leave(place: &StreamPlace, client: &Client, session: &mut Session) -> Result<(), Sent> {
    let connection = place.connection();
    let mut settled = pin!(connection.settled());
    poll_fn(|cx| {
        if let Poll::Ready(why) = session.poll_ended(cx) {
            return Poll::Ready(Err(Sent::Failed(why.into())));
        }
        if settled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        match client.turns.late() {
            Some(Late::Server) => Poll::Ready(Err(Sent::Failed(ProxyError::ServerTimeout))),
            Some(Late::Client) => Poll::Ready(Err(Sent::Failed(ProxyError::ClientTimeout))),
            _ => Poll::Pending,
        }
    })
    .await?;
    match connection.takes_tunnels() {
        Some(true) => Ok(()),
        Some(false) => Err(Sent::Failed(ProxyError::NoExtendedConnect)),
        // It ended before it said anything.
        None => Err(Sent::Nothing(Bytes::new())),
    }
}

/// Makes the head of a request as HTTP/2 has it that of a tunnel.
pub fn tunnel(head: &mut Request<()>, protocol: Protocol) {
    *head.method_mut() = Method::CONNECT;
    head.extensions_mut().insert(protocol);
    let headers = head.headers_mut();
    // The key is HTTP/1.1's proof that a server has understood (RFC 8441, section 5).
    headers.remove(header::SEC_WEBSOCKET_KEY);
    headers.remove(header::CONTENT_LENGTH);
}

/// Makes the answer to such a request the one that an upgrade gets: `asked` is the head of that. Whether the tunnel stands.
pub fn switch<B>(response: &mut Response<B>, asked: &request::Parts, protocol: &Protocol) -> bool {
    if !response.status().is_success() {
        return false;
    }
    let Ok(name) = HeaderValue::try_from(protocol.as_str()) else {
        return false;
    };
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    // It says nothing here (RFC 9110, section 9.3.6).
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::SEC_WEBSOCKET_ACCEPT);
    upgrade::put(headers, name);
    if let Some(accept) = accept(&asked.headers) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    true
}

/// What a server of HTTP/1.1 answers to the client's key (RFC 6455, section 4.2.2).
fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let proof = [key.as_bytes(), WEBSOCKET_ID.as_bytes()].concat();
    let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, &proof);
    HeaderValue::try_from(BASE64_STANDARD.encode(proof)).ok()
}

/// RFC 6455, section 1.3.
const WEBSOCKET_ID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_the_standard() {
        // RFC 6455, section 1.3.
        let mut headers = HeaderMap::new();
        assert_eq!(accept(&headers), None);
        headers.insert(
            header::SEC_WEBSOCKET_KEY,
            HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="),
        );
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_asked_for_is_one_protocol() {
        let of = |value: &str| {
            let head = Request::get("/")
                .header("upgrade", value)
                .body(())
                .unwrap()
                .into_parts()
                .0;
            asked(&head).map(|protocol| protocol.as_str().to_owned())
        };
        assert_eq!(of("WebSocket").as_deref(), Some("websocket"));
        assert_eq!(of("websocket, irc").as_deref(), Some("websocket"));
        assert_eq!(of(" , "), None);
    }
}

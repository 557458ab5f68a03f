//! A stream that becomes a tunnel: extended CONNECT (RFC 8441), by which a WebSocket has a stream to itself. To the server it
//! is an upgrade of HTTP/1.1, which has rules, record and relay of its own.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, request};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::backend::{Blocked, Multiplexed};
use crate::proxy::client::Client;
use crate::proxy::content::{Content, Http2Content};
use crate::proxy::error::ProxyError;
use crate::proxy::relay::Relayed;
use crate::proxy::upgrade::{self, Tunnel};

/// Whether a request asks for a tunnel, in some protocol.
pub fn is_asked(request: &http::Request<Content>) -> bool {
    request.method() == Method::CONNECT && request.extensions().get::<h2::ext::Protocol>().is_some()
}

/// Takes what will come through the tunnel from the request, which has no content of its own.
pub fn take_content(request: &mut http::Request<Content>) -> Option<Http2Content> {
    match std::mem::replace(request.body_mut(), Content::None) {
        Content::Http2(content) => Some(content),
        _ => None,
    }
}

/// Makes the head of an extended CONNECT that of an upgrade (RFC 8441, section 5), as rules and servers know it; only its version
/// stays what it was. Whether it was one.
pub fn translate(head: &mut request::Parts) -> Result<bool, ProxyError> {
    let Some(protocol) = head.extensions.remove::<h2::ext::Protocol>() else {
        return Ok(false);
    };
    let name = HeaderValue::try_from(protocol.as_str()).map_err(|_| ProxyError::BadRequest("connect-method"))?;
    let is_websocket = protocol.as_str().eq_ignore_ascii_case("websocket");
    head.method = Method::GET;
    upgrade::put(&mut head.headers, name);
    if is_websocket {
        // The client has sent none, and does not see what is made of it: a key only has to be another each time.
        let key = base64(uuid::Uuid::new_v4().as_bytes());
        if let Ok(key) = HeaderValue::try_from(key) {
            head.headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
    }
    Ok(true)
}

/// Answers an extended CONNECT whose server has gone over, and joins both until the end.
pub async fn join(
    client: &Rc<Client>,
    response: Response<()>,
    tunnel: Tunnel,
    content: Http2Content,
    respond: &mut SendResponse<Bytes>,
) {
    let (mut head, ()) = response.into_parts();
    head.status = StatusCode::OK;
    for name in &OF_HTTP_1 {
        head.headers.remove(name);
    }
    let Ok(send) = respond.send_response(Response::from_parts(head, ()), false) else {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return;
    };
    let mut io = StreamIo::new(content, send);
    tunnel.run(&mut io, Bytes::new()).await;
    client.turns.server_moved();
}

/// A stream as bytes both ways.
pub struct StreamIo {
    receive: RecvStream,
    send: SendStream<Bytes>,
    /// What has come and has not been read.
    read: Bytes,
    /// The connection to a server that the stream is on, with others.
    shared: Option<Rc<Multiplexed>>,
    /// What is written waits there for the server to open its windows.
    blocked: Option<Blocked>,
}

impl StreamIo {
    /// Of what comes on a stream, and what goes.
    pub fn new(content: Http2Content, send: SendStream<Bytes>) -> Self {
        Self {
            receive: content.into_stream(),
            send,
            read: Bytes::new(),
            shared: None,
            blocked: None,
        }
    }

    /// The same on a connection to a server.
    #[must_use]
    pub fn on(self, connection: &Rc<Multiplexed>) -> Self {
        Self {
            shared: Some(connection.clone()),
            ..self
        }
    }
}

impl Relayed for StreamIo {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }

    fn bare(&self) -> Option<&TcpStream> {
        None
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(bytes)) => self.read = bytes,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..n]);
        self.read.advance(n);
        let _ = self.receive.flow_control().release_capacity(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let this = self.get_mut();
        this.send.reserve_capacity(buf.len());
        let room = loop {
            match this.send.capacity() {
                0 => match this.send.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error)));
                    }
                    Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                    Poll::Pending => {
                        if this.blocked.is_none() {
                            this.blocked = this.shared.as_ref().map(|connection| connection.block());
                        }
                        return Poll::Pending;
                    }
                },
                room => break room.min(buf.len()),
            }
        };
        this.blocked = None;
        let piece = Bytes::copy_from_slice(&buf[..room]);
        let sent = this.send.send_data(piece, false);
        Poll::Ready(sent.map(|()| room).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection does, as soon as this task is done.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let padded = [
            group[0],
            group.get(1).copied().unwrap_or(0),
            group.get(2).copied().unwrap_or(0),
        ];
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for place in 0..4 {
            let digit = bits >> (18 - 6 * place) & 63;
            text.push(if place <= group.len() {
                char::from(ALPHABET[digit as usize])
            } else {
                '='
            });
        }
    }
    text
}

/// Fields of a 101 that say nothing of a stream.
const OF_HTTP_1: [HeaderName; 5] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_ACCEPT,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_base64() {
        // RFC 4648, section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff; 16]).len(), 24);
    }
}

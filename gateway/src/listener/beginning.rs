//! A connection whose ClientHello is awaited. It keeps what came first: whether that is HTTP, whose client reads no alert of TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::socket::Socket;

/// A connection of which nothing has been read yet.
#[derive(Debug)]
pub struct Beginning {
    socket: Socket,
    /// The first bytes that came, as far as they have.
    first: [u8; KEPT],
    length: usize,
    /// Nothing is written to a client that speaks HTTP: it is answered in its own way.
    is_answered_in_http: bool,
}

impl Beginning {
    /// `is_answered_in_http` says whether the alert is kept from who speaks HTTP.
    pub const fn new(socket: Socket, is_answered_in_http: bool) -> Self {
        Self {
            socket,
            first: [0; KEPT],
            length: 0,
            is_answered_in_http,
        }
    }

    /// Whether nothing was written because what came is HTTP.
    pub fn is_http(&self) -> bool {
        self.is_answered_in_http && is_http(&self.first[..self.length])
    }

    /// The connection, of which perhaps some has been read.
    pub fn into_socket(self) -> Socket {
        self.socket
    }
}

/// Whether these bytes are the beginning of a request: a method and the space behind it, as far as there are so many. TLS begins
/// with 22, and so is none of them at its first byte.
fn is_http(first: &[u8]) -> bool {
    let begins = |method: &&[u8]| {
        let compared = method.len().min(first.len());
        method[..compared] == first[..compared]
    };
    !first.is_empty() && METHODS.iter().any(begins)
}

impl AsyncRead for Beginning {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        let came = &buf.filled()[before..];
        let room = &mut this.first[this.length..];
        let kept = came.len().min(room.len());
        room[..kept].copy_from_slice(&came[..kept]);
        this.length += kept;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Beginning {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_http() {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut this.socket).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

/// Of RFC 9110, section 9.3, with PATCH (RFC 5789); at last the preface of HTTP/2 (RFC 9113, section 3.4). Others are no reason to answer
/// in HTTP: who knows what speaks.
const METHODS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"PATCH ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    b"PRI ",
];

/// The longest of them.
const KEPT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_by_its_method() {
        for first in [&b"GET / HT"[..], b"OPTIO", b"OPTIONS ", b"PRI * HT", b"G", b"PATCH /a"] {
            assert!(is_http(first), "{first:?}");
        }
        for first in [
            &b""[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
            b"get / HT",
            b"GET/ HTT",
            b"SSH-2.0-",
            b"PROXY TC",
            b"\x80\x2e\x01",
        ] {
            assert!(!is_http(first), "{first:?}");
        }
        assert_eq!(METHODS.iter().map(|method| method.len()).max(), Some(KEPT));
    }
}

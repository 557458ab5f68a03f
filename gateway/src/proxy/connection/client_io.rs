//! A client's connection as the library of HTTP/1.1 reads and writes it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Opening, Speech};
use crate::proxy::client::Client;
use crate::proxy::spelling::Spelling;
use crate::proxy::turns::Phase;

/// The stream of an HTTP/1.1 client as hyper reads and writes it. Counts bytes and notes waits.
#[derive(Debug)]
pub struct ClientIo(pub Rc<Client>);

impl ClientIo {
    /// Whether all that is to be written yet has been handed over, and the connection ends behind it.
    fn ends(&self) -> bool {
        self.0.connection.last.get() && matches!(self.0.turns.phase(), Phase::Idle(_))
    }

    /// Encodes what the library would refuse in a target, where the first line of a head has come, or a part of it.
    fn spell_out(&self, buf: &mut ReadBuf<'_>, before: usize) {
        let spelling = &self.0.connection.spelling;
        let from = match spelling.get() {
            Spelling::Behind if !self.0.turns.awaits_head() => return,
            Spelling::Behind if Spelling::is_plain(&buf.filled()[before..]) => return,
            Spelling::Behind => Spelling::Start,
            within => within,
        };
        let (next, odd) = from.follow(&buf.filled()[before..]);
        spelling.set(next);
        // hyper leaves room for some kilobytes. Beyond that it refuses them.
        if odd > 0 && buf.remaining() >= 2 * odd {
            let encoded = from.encode(&buf.filled()[before..]);
            buf.set_filled(before);
            buf.put_slice(&encoded);
        }
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(_)) => self.0.turns.client_moved(),
            Poll::Pending => self.0.turns.await_client(),
            Poll::Ready(Err(_)) => {}
        }
        result
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let connection = &self.0.connection;
        let before = buf.filled().len();
        let result = match connection.opening.get() {
            Opening::Known => connection.poll_read(cx, buf),
            _ => connection.poll_first(cx, buf),
        };
        if buf.filled().len() > before {
            self.spell_out(buf, before);
            self.0.turns.bytes_arrived(&buf.filled()[before..]);
        }
        connection.is_heard.set(result.is_pending());
        result
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let connection = &self.0.connection;
        if connection.is_silent() {
            return Poll::Ready(Ok(connection.swallow(bufs)));
        }
        let result = match connection.poll_early_begun(cx) {
            Poll::Ready(Ok(())) if connection.moving.is_active() => connection.poll_write_moving(cx, bufs, self.ends()),
            Poll::Ready(Ok(())) => connection.poll_write(cx, bufs, self.ends()),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = &self.0.connection;
        // hyper asks for this when all that it has was written: what goes before the response goes now.
        if connection.has_early.get() {
            match connection.poll_early(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    connection.flushing.set(true);
                    self.0.turns.await_client();
                    return Poll::Pending;
                }
            }
        }
        let result = connection.poll_flush(cx);
        if result.is_ready() && connection.speech.get() == Speech::Answered {
            connection.speech.set(Speech::Silent);
        }
        // TLS takes more than the socket does; only the flush tells that the client has not taken it.
        match &result {
            Poll::Pending => {
                connection.flushing.set(true);
                self.0.turns.await_client();
            }
            Poll::Ready(_) if connection.is_owing.replace(false) => {
                connection.flushing.set(false);
                self.0.turns.client_moved();
                // Whoever has to tell hyper that it breaks off has waited for that.
                cx.waker().wake_by_ref();
            }
            // A flush of nothing says nothing about a client whose body is awaited.
            Poll::Ready(_) if connection.flushing.replace(false) => self.0.turns.client_moved(),
            Poll::Ready(_) => {}
        }
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.connection.is_held_open.get() {
            return Poll::Ready(Ok(()));
        }
        self.0.connection.poll_shutdown(cx)
    }
}

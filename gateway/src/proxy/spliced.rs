//! Long bodies of responses, moved by the kernel from the server's socket to the client's (`splice(2)`), between two
//! connections of hyper that have to agree to it.
//!
//! **The server's side.** Once hyper has read the head, and all that it has read of the body has been handed on, the
//! connection is taken from it; what follows of the body is read here, exactly as much as Content-Length says. Afterwards a
//! fresh connection of hyper begins on the same socket.
//!
//! **The client's side.** hyper believes that it writes the body: it is given a piece of a *placeholder* for exactly the bytes
//! that are in the pipe. A piece is a reference, which hyper does not look at; where it comes to be written, the pipe is
//! drained to the socket instead ([`Moving`]). Of the placeholder itself no byte is ever read.
//!
//! docs/decisions/0003-relay.md has the reasons and the measurements.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Response, Version, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::body::RequestBody;
use super::client::{Client, Connection};
use super::relay::{MOST_HELD, Pipe};
use crate::backend::Upstream;
use crate::stream::Stream;

/// That a response's body can be moved by the kernel, and is worth it.
pub(super) struct Bulk {
    client: Rc<Connection>,
    /// The server keeps the connection afterwards.
    persists: bool,
}

impl Bulk {
    /// Of the response to a request without a body, as the server has sent it: hop-by-hop fields are in it yet.
    ///
    /// Only of success: a server that grants a request has read all of it. So nothing of the request is lost when the
    /// connection is taken from hyper, even if the socket was slow to take it.
    pub(super) fn of(
        response: &Response<Incoming>,
        upstream: &Upstream<RequestBody>,
        client: &Rc<Client>,
    ) -> Option<Self> {
        let length = response.body().size_hint().exact()?;
        let is_possible = length >= LEAST
            && !client.is_stream()
            && response.status().is_success()
            && upstream.is_plain
            && client.connection.is_plain();
        is_possible.then(|| Self {
            client: client.connection.clone(),
            persists: response.version() == Version::HTTP_11 && !says_close(response.headers()),
        })
    }
}

/// Whether the server ends the connection (RFC 9112, section 9.6). A field that cannot be read is taken to say so.
fn says_close(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        value.to_str().map_or(true, |list| {
            list.split(',').any(|token| token.trim().eq_ignore_ascii_case("close"))
        })
    })
}

/// A connection to a server whose response's body the kernel moves.
pub(super) struct Spliced {
    stream: Stream,
    /// What was read together with the head.
    early: Bytes,
    bulk: Bulk,
    /// Bytes since others of the worker could run.
    moved: usize,
    /// Bytes that went into pipes, and were not counted.
    spliced: u64,
    served: u64,
    leads_to: Option<std::net::SocketAddr>,
    name: Option<rustls_pki_types::ServerName<'static>>,
}

impl Spliced {
    /// Takes the connection from hyper. Of the body nothing may be on its way in hyper any more.
    pub(super) fn new(upstream: Upstream<RequestBody>, bulk: Bulk) -> Self {
        let parts = upstream.connection.into_parts();
        Self {
            stream: parts.io.into_inner(),
            early: parts.read_buf,
            bulk,
            moved: 0,
            spliced: 0,
            served: upstream.served,
            leads_to: upstream.leads_to,
            name: upstream.name,
        }
    }

    /// The next piece of the body, of which so much is left.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, left: &mut u64) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if *left == 0 {
            return Poll::Ready(None);
        }
        let most = usize::try_from(*left).unwrap_or(usize::MAX);
        let piece = if self.early.is_empty() {
            // A pipe has one filling at a time, and hyper has one placeholder.
            ready!(self.bulk.client.poll_moved(cx));
            if self.moved >= BUDGET {
                self.moved = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let piece = self.poll_piece(cx, most);
            if piece.is_pending() {
                self.moved = 0;
            }
            ready!(piece)
        } else {
            Ok(self.early.split_to(self.early.len().min(most)))
        };
        Poll::Ready(Some(piece.map(|piece| {
            self.moved += piece.len();
            *left -= piece.len() as u64;
            Frame::data(piece)
        })))
    }

    /// Bytes that the kernel moved since this was last asked.
    pub(super) fn take_spliced(&mut self) -> u64 {
        std::mem::take(&mut self.spliced)
    }

    /// What the socket has, in a pipe; or copied, if no pipe is to be had.
    fn poll_piece(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Bytes>> {
        let Stream::Plain(from) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        loop {
            ready!(from.poll_read_ready(cx))?;
            let Some(mut pipe) = Pipe::take() else {
                return poll_copy(cx, from, most);
            };
            match from.try_io(Interest::READABLE, || pipe.fill(from, most.min(PLACEHOLDER.len()))) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(filled) => {
                    self.spliced += filled as u64;
                    self.bulk.client.begin_moving(pipe);
                    return Poll::Ready(Ok(Bytes::from_static(&PLACEHOLDER[..filled])));
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The connection as hyper has it, for the next request; none if there is to be none.
    pub(super) fn into_upstream(self, builder: &http1::Builder) -> Option<Box<Upstream<RequestBody>>> {
        // Bytes behind the body are nothing that was asked for.
        if !self.bulk.persists || self.early.has_remaining() {
            return None;
        }
        let is_plain = !self.stream.is_tls();
        let begun = pin!(builder.handshake(TokioIo::new(self.stream)));
        // HTTP/1.1 has no handshake: nothing is waited for.
        let Poll::Ready(Ok((sender, connection))) = begun.poll(&mut Context::from_waker(Waker::noop())) else {
            return None;
        };
        Some(Box::new(Upstream {
            sender,
            connection,
            is_plain,
            served: self.served,
            leads_to: self.leads_to,
            name: self.name,
        }))
    }
}

fn poll_copy(cx: &mut Context<'_>, from: &mut TcpStream, most: usize) -> Poll<io::Result<Bytes>> {
    let mut copied = vec![0; most.min(COPIED)];
    let mut buf = ReadBuf::new(&mut copied);
    ready!(Pin::new(from).poll_read(cx, &mut buf))?;
    let read = buf.filled().len();
    if read == 0 {
        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
    }
    copied.truncate(read);
    Poll::Ready(Ok(copied.into()))
}

/// What is on its way to a client in a pipe. It stays until the client has taken it, which is often after the exchange that
/// it belongs to has ended: as long as hyper has its placeholder.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// Has bytes, if it is there.
    pipe: RefCell<Option<Pipe>>,
    is_active: Cell<bool>,
    /// Who waits for the pipe to be empty.
    waiter: RefCell<Option<Waker>>,
}

impl Moving {
    /// Whether bytes are in a pipe. What everything that is written to a client asks.
    pub(super) fn is_active(&self) -> bool {
        self.is_active.get()
    }

    pub(super) fn poll_empty(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_active() {
            *self.waiter.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    pub(super) fn begin(&self, pipe: Pipe) {
        *self.pipe.borrow_mut() = Some(pipe);
        self.is_active.set(true);
    }

    /// What is to be written as it is, before the first placeholder; and the placeholder's length, if nothing is before it.
    pub(super) fn split<'a, 'b>(bufs: &'a [io::IoSlice<'b>]) -> (&'a [io::IoSlice<'b>], usize) {
        let first = bufs.iter().position(|buf| !buf.is_empty()).unwrap_or(bufs.len());
        let bufs = &bufs[first..];
        let made = bufs.iter().position(|buf| is_placeholder(buf)).unwrap_or(bufs.len());
        (&bufs[..made], bufs.first().map_or(0, |buf| buf.len()))
    }

    /// Moves to the client what stands behind a placeholder of this length.
    pub(super) fn poll_drain(&self, cx: &mut Context<'_>, to: &Stream, length: usize) -> Poll<io::Result<usize>> {
        let mut moving = self.pipe.borrow_mut();
        let (Some(pipe), Stream::Plain(to)) = (&mut *moving, to) else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        // Both are the same, or hyper was told another length than it wrote.
        if pipe.held() != length {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        loop {
            ready!(to.poll_write_ready(cx))?;
            let mut moved = 0;
            let drained = to.try_io(Interest::WRITABLE, || {
                moved = pipe.drain(to)?;
                // What is left found no room. Saying so here saves asking once more.
                if pipe.is_empty() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            });
            match drained {
                Err(error) if !is_transient(&error) => return Poll::Ready(Err(error)),
                _ if moved == 0 => continue,
                _ => {}
            }
            if pipe.is_empty() {
                *moving = None;
                self.is_active.set(false);
                let waiter = self.waiter.borrow_mut().take();
                if let Some(waiter) = waiter {
                    waiter.wake();
                }
            }
            return Poll::Ready(Ok(moved));
        }
    }
}

fn is_placeholder(buf: &[u8]) -> bool {
    PLACEHOLDER.as_ptr_range().contains(&buf.as_ptr())
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Stands in hyper for what is in a pipe. Nobody reads it, so no memory is behind it.
static PLACEHOLDER: [u8; MOST_HELD] = [0; MOST_HELD];

/// Bytes of a body from which on the kernel moves it. Taking the connection from hyper and giving it back costs a few
/// allocations and system calls, as much as copying some ten KiB; and a shorter body has come for the most part with its head.
const LEAST: u64 = 256 * 1024;

/// Bytes moved before others of the worker run.
const BUDGET: usize = 1024 * 1024;

/// Bytes copied in one read, when no pipe is to be had.
const COPIED: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::{Moving, PLACEHOLDER};

    #[test]
    fn what_is_made_here_is_told_from_what_stands_for_a_pipe() {
        let (head, part) = (IoSlice::new(b"head"), IoSlice::new(&PLACEHOLDER[..7]));
        let (rest, nothing) = (IoSlice::new(&PLACEHOLDER[5..7]), IoSlice::new(b""));
        let zeros = [0; 7];
        let zeros = IoSlice::new(&zeros);
        for (bufs, made, length) in [
            (&[head, part, zeros][..], 1, 4),
            (&[part, head], 0, 7),
            (&[nothing, rest, head], 0, 2),
            (&[zeros, head, zeros, part], 3, 7),
            (&[nothing], 0, 0),
            (&[], 0, 0),
        ] {
            let (before, first) = Moving::split(bufs);
            assert_eq!((before.len(), first), (made, length), "{bufs:?}");
        }
    }
}

//! Long bodies of responses, moved by the kernel from the server's socket to the client's (`splice(2)`), by a
//! connection of hyper that has to agree to it.
//!
//! **The server's side.** Once all that was read together with the head has been handed on, what follows of the body is read
//! from the socket itself, exactly as much as Content-Length says.
//!
//! **The client's side.** hyper believes that it writes the body: it is given a piece of a *placeholder* for exactly the bytes
//! that are in the pipe. A piece is a reference, which hyper does not look at; where it comes to be written, the pipe is
//! drained to the socket instead ([`Moving`]). Of the placeholder itself no byte is ever read.
//!
//! docs/decisions/0003-relay.md has the reasons and the measurements.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::client::Client;
use super::connection::Connection;
use super::relay::{MOST_HELD, Pipe};
use crate::backend::http1;
use crate::stream::Stream;

/// A response's body that the kernel moves.
pub(super) struct Spliced {
    client: Rc<Connection>,
    /// Bytes since others of the worker could run.
    moved: usize,
    /// Bytes that went into pipes, and were not counted.
    spliced: u64,
    /// How often in a row little came.
    littles: u8,
}

impl Spliced {
    /// Of a response of which this connection has the body, where the kernel can move it and it is long enough to be worth it.
    pub(super) fn of(upstream: &http1::Connection, client: &Rc<Client>) -> Option<Self> {
        let is_long = upstream.left().is_some_and(|length| length >= LEAST);
        let is_possible = is_long && !client.is_stream() && upstream.is_plain() && client.connection.is_plain();
        is_possible.then(|| Self {
            client: client.connection.clone(),
            moved: 0,
            spliced: 0,
            littles: 0,
        })
    }

    /// Bytes that the kernel moved since this was last asked.
    pub(super) fn take_spliced(&mut self) -> u64 {
        std::mem::take(&mut self.spliced)
    }

    /// The next piece of the body; what has been read of it already comes as it is.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut http1::Connection,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some((from, left)) = upstream.socket() else {
            return upstream.poll_content(cx);
        };
        // A pipe has one filling at a time, and hyper has one placeholder.
        ready!(self.client.poll_moved(cx));
        if self.moved >= BUDGET {
            self.moved = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = self.poll_piece(cx, from, usize::try_from(left).unwrap_or(usize::MAX));
        if piece.is_pending() {
            self.moved = 0;
        }
        let piece = ready!(piece);
        if let Ok(piece) = &piece {
            self.moved += piece.len();
            upstream.moved(piece.len() as u64);
        }
        Poll::Ready(Some(piece.map(Frame::data)))
    }

    /// What the socket has, in a pipe; or copied, if no pipe is to be had, or if little comes at a time: what a copy costs
    /// grows with what is copied, and a pipe costs the same each time.
    fn poll_piece(&mut self, cx: &mut Context<'_>, from: &mut TcpStream, most: usize) -> Poll<io::Result<Bytes>> {
        loop {
            ready!(from.poll_read_ready(cx))?;
            if self.littles >= MOST_LITTLES {
                let piece = ready!(poll_copy(cx, from, most.min(LITTLE)))?;
                if piece.len() == LITTLE {
                    self.littles = 0;
                }
                return Poll::Ready(Ok(piece));
            }
            let Some(mut pipe) = Pipe::take() else {
                return poll_copy(cx, from, most);
            };
            match from.try_io(Interest::READABLE, || pipe.fill(from, most.min(PLACEHOLDER.len()))) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(filled) => {
                    self.spliced += filled as u64;
                    self.littles = if filled < LITTLE {
                        self.littles.saturating_add(1)
                    } else {
                        0
                    };
                    self.client.begin_moving(pipe);
                    return Poll::Ready(Ok(Bytes::from_static(&PLACEHOLDER[..filled])));
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
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

/// Bytes of a body from which on the kernel moves it. A pipe costs a few system calls, as much as copying some ten KiB; and a
/// shorter body has come for the most part with its head.
const LEAST: u64 = 256 * 1024;

/// Bytes moved before others of the worker run.
const BUDGET: usize = 1024 * 1024;

/// Bytes that are copied sooner than they are moved.
const LITTLE: usize = 8 * 1024;

/// How often in a row little may come in a pipe. Once is nothing: the sender may have been waiting for its window.
const MOST_LITTLES: u8 = 8;

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

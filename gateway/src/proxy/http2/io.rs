//! The stream of an HTTP/2 client as the library reads and writes it. Counts bytes and frames, and notes waits.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::{Flood, FrameLimits, Frames};
use crate::proxy::client::{Connection, PREFACE};

/// What is seen of a connection below its streams.
#[derive(Debug)]
pub struct Watch {
    frames: RefCell<Frames>,
    flood: Cell<Option<Flood>>,
    /// Since when the client has not taken what was written.
    stalled: Cell<Option<Instant>>,
    /// Bytes of the connection preface that have not come.
    preface: Cell<usize>,
}

impl Watch {
    /// Nothing has been seen yet.
    pub fn new(limits: FrameLimits, now: Instant) -> Rc<Self> {
        Rc::new(Self {
            frames: RefCell::new(Frames::new(limits, now)),
            flood: Cell::new(None),
            stalled: Cell::new(None),
            preface: Cell::new(PREFACE.len()),
        })
    }

    /// What the client has too many of, the first time that this is asked.
    pub fn take_flood(&self) -> Option<Flood> {
        self.flood.take()
    }

    /// Since when the client has not taken what was written.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.stalled.get()
    }

    /// Since when a head has been coming that has not come whole.
    pub fn head_since(&self) -> Option<Instant> {
        self.frames.borrow().head_since()
    }

    /// How many streams the client has opened, if all of them have been looked at: the library reads on until it is held up,
    /// and what holds it up is a client that takes nothing, or a head that has not come whole.
    pub fn opened(&self) -> Option<u64> {
        let frames = self.frames.borrow();
        (self.stalled.get().is_none() && frames.is_between_heads()).then(|| frames.opened())
    }

    /// Counts what has come; whether it may be looked at.
    fn read(&self, bytes: &[u8], now: Instant) -> bool {
        let preface = self.preface.get().min(bytes.len());
        self.preface.set(self.preface.get() - preface);
        match self.frames.borrow_mut().read(&bytes[preface..], now) {
            Ok(()) => true,
            Err(flood) => {
                self.flood.set(Some(flood));
                false
            }
        }
    }
}

/// The client's stream.
#[derive(Debug)]
pub struct ClientIo {
    connection: Rc<Connection>,
    watch: Rc<Watch>,
    /// What has been read already.
    said: Bytes,
    /// Nothing more is read of a client that has sent too much.
    is_deaf: bool,
}

impl ClientIo {
    /// The stream of a connection of which `said` has been read.
    pub fn new(connection: &Rc<Connection>, watch: &Rc<Watch>, said: Bytes) -> Self {
        Self {
            connection: connection.clone(),
            watch: watch.clone(),
            said,
            is_deaf: false,
        }
    }

    fn sent(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = result {
            self.watch.frames.borrow_mut().wrote(n);
        }
        self.wrote(result)
    }

    fn wrote<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let stalled = &self.watch.stalled;
        if result.is_ready() {
            stalled.set(None);
        } else if stalled.get().is_none() {
            stalled.set(Some(self.connection.clock.now()));
        }
        result
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_deaf {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let result = if self.said.is_empty() {
            self.connection.poll_read(cx, buf)
        } else {
            let n = self.said.len().min(buf.remaining());
            buf.put_slice(&self.said[..n]);
            self.said.advance(n);
            Poll::Ready(Ok(()))
        };
        let now = self.connection.clock.now();
        if !self.watch.read(&buf.filled()[before..], now) {
            buf.set_filled(before);
            self.is_deaf = true;
            return Poll::Pending;
        }
        result
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = self.connection.poll_write(cx, &[io::IoSlice::new(buf)], false);
        self.sent(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = self.connection.poll_write(cx, bufs, false);
        self.sent(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS takes more than the socket does; only the flush tells that the client has not taken it.
        let result = self.connection.poll_flush(cx);
        if result.is_pending() || self.watch.stalled.get().is_some() {
            return self.wrote(result);
        }
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_shutdown(cx)
    }
}

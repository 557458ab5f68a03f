//! The stream of an HTTP/2 client as the library reads and writes it. Counts bytes and frames, and notes waits.
//!
//! The library flushes after each DATA frame of a kilobyte and more, which would make a write, and with TLS a record, of each
//! response. Frames are held here instead until all that the connection's task has to say is said, or a record is full.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::faults::Faults;
use super::frames::{Flood, FrameLimits, Frames};
use crate::empty_frames::EmptyFrames;
use crate::proxy::connection::{Connection, PREFACE};

/// What is seen of a connection below its streams.
#[derive(Debug)]
pub struct Watch {
    frames: RefCell<Frames>,
    faults: RefCell<Faults>,
    flood: Cell<Option<Flood>>,
    /// Since when the client has not taken what was written.
    stalled: Cell<Option<Instant>>,
    /// What was last written found no room, and is written again when there is some.
    is_full: Cell<bool>,
    /// Bytes of the connection preface that have not come.
    preface: Cell<usize>,
    /// Frames that the library has written and the client has not been sent.
    held: RefCell<Vec<u8>>,
}

impl Watch {
    /// Nothing has been seen yet.
    pub fn new(limits: FrameLimits, now: Instant) -> Rc<Self> {
        Rc::new(Self {
            frames: RefCell::new(Frames::new(limits, now)),
            faults: RefCell::default(),
            flood: Cell::new(None),
            stalled: Cell::new(None),
            is_full: Cell::new(false),
            preface: Cell::new(PREFACE.len()),
            held: RefCell::default(),
        })
    }

    /// What the client has too many of, the first time that this is asked.
    pub fn take_flood(&self) -> Option<Flood> {
        self.flood.take()
    }

    /// Whether the client is to come anew: it has been at fault too often for one connection, and never too often at once.
    pub fn is_worn_out(&self) -> bool {
        self.frames.borrow().is_worn_out()
    }

    /// The client is told to go elsewhere.
    pub fn told_to_go(&self) {
        self.frames.borrow_mut().told_to_go();
    }

    /// A stream is about to be refused, because its client should have gone elsewhere.
    pub fn refuses_late(&self) {
        self.frames.borrow_mut().refuses_late();
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

    /// Sends what is held. Whoever polls the library does this before he waits.
    pub fn poll_send(&self, connection: &Connection, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.held.borrow_mut();
        while !held.is_empty() {
            let n = ready!(self.poll_write(connection, cx, &[io::IoSlice::new(&held)]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            held.drain(..n);
        }
        // TLS takes more than the socket does; only the flush tells that the client has not taken it.
        let result = connection.poll_flush(cx);
        // A socket alone has nothing to flush, which says nothing of what the library could not write.
        let is_taken = self.stalled.get().is_some() && !self.is_full.get();
        if result.is_pending() || is_taken {
            return self.wrote(connection, result);
        }
        result
    }

    /// Lets go of the room for what is held: nothing is under way.
    pub fn rest(&self) {
        let mut held = self.held.borrow_mut();
        if held.is_empty() {
            *held = Vec::new();
        }
    }

    fn poll_write(
        &self,
        connection: &Connection,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = connection.poll_write(cx, bufs, false);
        if let Poll::Ready(Ok(n)) = result {
            self.frames.borrow_mut().wrote(n);
        }
        self.is_full.set(result.is_pending());
        self.wrote(connection, result)
    }

    fn wrote<T>(&self, connection: &Connection, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled.set(None);
        } else if self.stalled.get().is_none() {
            self.stalled.set(Some(connection.clock.now()));
        }
        result
    }

    /// Looks at what the library has written, so many bytes of it.
    fn look_at(&self, bufs: &[io::IoSlice<'_>], mut bytes: usize, now: Instant) {
        let mut faults = self.faults.borrow_mut();
        let mut count = 0;
        for buf in bufs {
            let part = bytes.min(buf.len());
            count += faults.in_frames(&buf[..part]);
            bytes -= part;
        }
        if count > 0
            && let Err(flood) = self.frames.borrow_mut().at_fault(count, now)
        {
            self.flood.set(Some(flood));
        }
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
    /// What the library is not to see.
    empty: EmptyFrames,
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
            empty: EmptyFrames::behind(PREFACE.len()),
            is_deaf: false,
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.is_deaf |= self.watch.flood.get().is_some();
        if self.is_deaf {
            return Poll::Pending;
        }
        let Self {
            connection,
            watch,
            said,
            empty,
            is_deaf,
        } = &mut *self;
        empty.poll_read(buf, |buf| {
            let before = buf.filled().len();
            let result = if said.is_empty() {
                connection.poll_read(cx, buf)
            } else {
                let n = said.len().min(buf.remaining());
                buf.put_slice(&said.split_to(n));
                Poll::Ready(Ok(()))
            };
            if !watch.read(&buf.filled()[before..], connection.clock.now()) {
                buf.set_filled(before);
                *is_deaf = true;
                return Poll::Pending;
            }
            result
        })
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
        let Self { connection, watch, .. } = &*self;
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if watch.held.borrow().len() + total > MOST_HELD {
            ready!(watch.poll_send(connection, cx))?;
        }
        let now = connection.clock.now();
        if total > MOST_HELD {
            let n = ready!(watch.poll_write(connection, cx, bufs))?;
            watch.look_at(bufs, n, now);
            return Poll::Ready(Ok(n));
        }
        watch.look_at(bufs, total, now);
        let mut held = watch.held.borrow_mut();
        bufs.iter().for_each(|buf| held.extend_from_slice(buf));
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    /// Nothing: see [`Watch::poll_send`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.watch.poll_send(&self.connection, cx))?;
        self.connection.poll_shutdown(cx)
    }
}

/// A TLS record (RFC 8446, section 5.1): more at once would be no fewer of them. Longer frames are not held.
const MOST_HELD: usize = 16 * 1024;

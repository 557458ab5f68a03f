//! The client's side of an HTTP connection: its stream, whose turn it is, and how long that may take.
//!
//! One connection has one timer, armed lazily: every wait notes when it began, the timer is re-armed only when it fires or
//! when a nearer deadline appears. A keep-alive connection that serves thousands of requests touches the timer wheel a few
//! times a minute.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::private::Private;
use crate::config::ClientTimeouts;
use crate::policy::ConnectionFacts;
use crate::stream::Stream;

/// One client connection.
#[derive(Debug)]
pub struct Client {
    stream: RefCell<Stream>,
    /// What policy may know about the connection.
    pub facts: Arc<ConnectionFacts>,
    /// The client's address as X-Forwarded-For has it; made once per connection.
    pub forwarded_for: HeaderValue,
    /// Whose turn it is.
    pub turns: Turns,
    /// Connections to servers that were told of this client.
    pub private: Private,
    read: Cell<u64>,
    written: Cell<u64>,
    /// A flush waits for the client to take what was written.
    flushing: Cell<bool>,
    /// Bytes of request bodies that went on to a server and are not counted yet.
    forwarded: Cell<u64>,
    /// What [`Client::take_traffic`] has answered so far.
    counted: Cell<(u64, u64)>,
}

impl Client {
    /// Takes over a connection whose first request is awaited from now on.
    pub fn new(stream: Stream, facts: Arc<ConnectionFacts>, timeouts: ClientTimeouts) -> Rc<Self> {
        let forwarded_for =
            HeaderValue::try_from(facts.client.ip().to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        Rc::new(Self {
            stream: RefCell::new(stream),
            facts,
            forwarded_for,
            turns: Turns::new(timeouts),
            private: Private::default(),
            read: Cell::new(0),
            written: Cell::new(0),
            flushing: Cell::new(false),
            forwarded: Cell::new(0),
            counted: Cell::new((0, 0)),
        })
    }

    /// Whether the client has sent anything at all.
    pub fn has_spoken(&self) -> bool {
        self.read.get() > 0
    }

    /// Bytes read from and written to the client since this was last asked: what is to be counted now. The last bytes of a
    /// response are often written after its exchange has ended, and are counted with the next one, or at the end.
    pub fn take_traffic(&self) -> (u64, u64) {
        let (read, written) = (self.read.get(), self.written.get());
        let (counted_read, counted_written) = self.counted.replace((read, written));
        (read - counted_read, written - counted_written)
    }

    /// Bytes of a request's body go on to a server.
    pub fn add_forwarded(&self, bytes: u64) {
        self.forwarded.set(self.forwarded.get() + bytes);
    }

    /// Bytes of request bodies that went on since this was last asked.
    pub fn take_forwarded(&self) -> u64 {
        self.forwarded.take()
    }

    /// Writes what the socket takes at once, for a last word to a client whose connection ends. Best effort: never waits.
    pub fn last_word(&self, bytes: &[u8]) {
        let mut stream = self.stream.borrow_mut();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(Ok(n)) = Pin::new(&mut *stream).poll_write(&mut cx, bytes) {
            self.written.set(self.written.get() + n as u64);
        }
        let _ = Pin::new(&mut *stream).poll_flush(&mut cx);
        let _ = Pin::new(&mut *stream).poll_shutdown(&mut cx);
    }
}

/// The client's stream as hyper reads and writes it. Counts bytes and notes waits.
#[derive(Debug)]
pub struct ClientIo(pub Rc<Client>);

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(cx, buf);
        let n = buf.filled().len() - before;
        if n > 0 {
            self.0.read.set(self.0.read.get() + n as u64);
            self.0.turns.bytes_arrived();
        }
        result
    }
}

impl ClientIo {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(n)) => {
                self.0.written.set(self.0.written.get() + *n as u64);
                self.0.turns.client_moved();
            }
            Poll::Pending => self.0.turns.await_client(),
            Poll::Ready(Err(_)) => {}
        }
        result
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.stream.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut *self.0.stream.borrow_mut()).poll_flush(cx);
        // TLS takes more than the socket does; only the flush tells that the client has not taken it.
        match &result {
            Poll::Pending => {
                self.0.flushing.set(true);
                self.0.turns.await_client();
            }
            // A flush of nothing says nothing about a client whose body is awaited.
            Poll::Ready(_) if self.0.flushing.replace(false) => self.0.turns.client_moved(),
            Poll::Ready(_) => {}
        }
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}

/// Whose turn it is on a connection, and since when.
#[derive(Debug)]
pub struct Turns {
    timeouts: ClientTimeouts,
    /// The time, read once per poll of the connection: waits need milliseconds, not one clock call each.
    now: Cell<Instant>,
    phase: Cell<Phase>,
    /// When the first byte of the head that is coming came.
    first_byte: Cell<Option<Instant>>,
    /// Since when the client has to send a piece of its body or take a piece of its response.
    client: Cell<Option<Instant>>,
    /// Since when the server has to answer, or to send or take a piece; and how long it may.
    server: Cell<Option<Instant>>,
    server_timeout: Cell<Duration>,
    late: Cell<Option<Late>>,
}

/// Where a connection is in its cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No byte of the next request has come.
    Idle(Instant),
    /// The first request is awaited, or a head has begun to come, since then.
    Head(Instant),
    /// A request is being served, and no response has begun.
    Exchange,
    /// A response is on its way to the client.
    Response,
}

/// Who was late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// No next request came.
    KeepAlive,
    /// The head did not come whole.
    Head,
    /// The client did not send its body, or did not take its response.
    Client,
    /// The server did not answer, or stalled.
    Server,
}

impl Turns {
    fn new(timeouts: ClientTimeouts) -> Self {
        let now = Instant::now();
        Self {
            timeouts,
            now: Cell::new(now),
            phase: Cell::new(Phase::Head(now)),
            first_byte: Cell::new(None),
            client: Cell::new(None),
            server: Cell::new(None),
            server_timeout: Cell::new(timeouts.client),
            late: Cell::new(None),
        }
    }

    /// Reads the clock; called at the start of each poll of the connection.
    pub fn tick(&self) -> Instant {
        let now = Instant::now();
        self.now.set(now);
        now
    }

    /// The time of the last tick.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// Since when a head has been awaited or coming, if one is.
    pub fn head_since(&self) -> Option<Instant> {
        match self.phase.get() {
            Phase::Head(since) => Some(since),
            _ => None,
        }
    }

    /// Where the connection is in its cycle.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Bytes came from the client.
    fn bytes_arrived(&self) {
        match self.phase.get() {
            Phase::Idle(_) => {
                self.phase.set(Phase::Head(self.now.get()));
                self.first_byte.set(Some(self.now.get()));
            }
            Phase::Head(_) if self.first_byte.get().is_none() => self.first_byte.set(Some(self.now.get())),
            _ => {}
        }
    }

    /// A whole head has come: a request is served from now on. Answers when its first byte came.
    pub fn begin_exchange(&self) -> Instant {
        self.phase.set(Phase::Exchange);
        self.client.set(None);
        self.server.set(None);
        self.late.set(None);
        // None when it was read together with the request before it.
        self.first_byte.take().unwrap_or(self.now.get())
    }

    /// The response's head is known: from now on a client that is late can only be cut off.
    pub fn begin_response(&self) {
        // A response that ended with its head has ended its exchange already.
        if self.phase.get() == Phase::Exchange {
            self.phase.set(Phase::Response);
        }
    }

    /// The response has been produced whole: the next request may come.
    pub fn end_exchange(&self) {
        self.phase.set(Phase::Idle(self.now.get()));
        self.server.set(None);
    }

    /// It is the client's turn, if it was not already.
    pub fn await_client(&self) {
        if self.client.get().is_none() {
            self.client.set(Some(self.now.get()));
        }
    }

    /// The client has moved. What the server has to do it has to do from now on.
    pub fn client_moved(&self) {
        if self.client.take().is_none() {
            return;
        }
        if self.server.get().is_some() {
            self.server.set(Some(self.now.get()));
        }
        if let Phase::Idle(_) = self.phase.get() {
            self.phase.set(Phase::Idle(self.now.get()));
        }
    }

    /// It is the server's turn, for so long at most.
    pub fn await_server_for(&self, timeout: Duration) {
        self.server_timeout.set(timeout);
        self.server.set(Some(self.now.get()));
        self.late.set(None);
    }

    /// It is the server's turn, if it was not already.
    pub fn await_server(&self) {
        if self.server.get().is_none() {
            self.server.set(Some(self.now.get()));
        }
    }

    /// The server has taken a piece of the request's body: it has its whole time again for the next.
    pub fn server_progressed(&self) {
        if self.server.get().is_some() {
            self.server.set(Some(self.now.get()));
        }
    }

    /// The server has moved.
    pub fn server_moved(&self) {
        self.server.set(None);
    }

    /// Who was late in this exchange, if anybody.
    pub fn late(&self) -> Option<Late> {
        self.late.get()
    }

    /// When the nearest wait runs out.
    pub fn deadline(&self) -> Option<Instant> {
        // While the client has to move, the server cannot be late, and a connection that still has response bytes to
        // take is not idle.
        match (self.phase.get(), self.client.get(), self.server.get()) {
            (Phase::Head(since), ..) => Some(since + self.timeouts.http_request),
            (_, Some(since), _) => Some(since + self.timeouts.client),
            (Phase::Idle(since), ..) => Some(since + self.timeouts.http_keep_alive),
            (Phase::Exchange | Phase::Response, None, Some(since)) => Some(since + self.server_timeout.get()),
            (Phase::Exchange | Phase::Response, None, None) => None,
        }
    }

    /// Notes who is late by now, if anybody.
    pub fn expire(&self, now: Instant) -> Option<Late> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let late = match (self.phase.get(), self.client.get()) {
            (Phase::Head(_), _) => Late::Head,
            (_, Some(_)) => Late::Client,
            (Phase::Idle(_), None) => Late::KeepAlive,
            (Phase::Exchange | Phase::Response, None) => Late::Server,
        };
        self.late.set(Some(late));
        self.client.set(None);
        self.server.set(None);
        Some(late)
    }
}

//! The client's side: its connection, and on it the exchanges. An HTTP/1.1 connection carries one exchange at a time and has
//! one [`Client`] for all of them; an HTTP/2 connection carries many at once and has one for each stream.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::forwarding::Told;
use super::private::Private;
use super::turns::{Clock, Turns};
use crate::config::ClientTimeouts;
use crate::policy::ConnectionFacts;
use crate::stream::Stream;

/// A client in the exchanges that come one after another: all of an HTTP/1.1 connection, or the one of a stream.
#[derive(Debug)]
pub struct Client {
    /// What carries them.
    pub connection: Rc<Connection>,
    /// What policy may know about the connection.
    pub facts: Arc<ConnectionFacts>,
    /// Whose turn it is.
    pub turns: Turns,
    /// Bytes of request bodies that went on to a server and are not counted yet.
    forwarded: Cell<u64>,
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    stream: RefCell<Stream>,
    /// What policy may know about it.
    pub facts: Arc<ConnectionFacts>,
    /// What servers are told of it.
    pub told: Told,
    /// Connections to servers that were told of this client.
    pub private: Private,
    /// The time.
    pub clock: Rc<Clock>,
    read: Cell<u64>,
    written: Cell<u64>,
    /// A flush waits for the client to take what was written.
    flushing: Cell<bool>,
    /// What [`Connection::take_traffic`] has answered so far.
    counted: Cell<(u64, u64)>,
}

impl Client {
    /// A client whose first request is awaited from now on.
    pub fn new(connection: &Rc<Connection>, timeouts: ClientTimeouts) -> Rc<Self> {
        Rc::new(Self {
            connection: connection.clone(),
            facts: connection.facts.clone(),
            turns: Turns::new(timeouts, &connection.clock),
            forwarded: Cell::new(0),
        })
    }

    /// Bytes of a request's body go on to a server.
    pub fn add_forwarded(&self, bytes: u64) {
        self.forwarded.set(self.forwarded.get() + bytes);
    }

    /// Bytes of request bodies that went on since this was last asked.
    pub fn take_forwarded(&self) -> u64 {
        self.forwarded.take()
    }
}

impl Connection {
    /// Takes over a connection.
    pub fn new(stream: Stream, facts: Arc<ConnectionFacts>, timeouts: ClientTimeouts) -> Rc<Self> {
        Rc::new(Self {
            stream: RefCell::new(stream),
            facts,
            told: Told::default(),
            private: Private::default(),
            clock: Clock::new(timeouts.client),
            read: Cell::new(0),
            written: Cell::new(0),
            flushing: Cell::new(false),
            counted: Cell::new((0, 0)),
        })
    }

    /// Whether the client has sent anything at all.
    pub fn has_spoken(&self) -> bool {
        self.read.get() > 0
    }

    /// The connection itself, for whoever has it after HTTP. Until then hyper reads and writes it, through [`ClientIo`].
    pub fn stream(&self) -> RefMut<'_, Stream> {
        self.stream.borrow_mut()
    }

    /// Bytes read from and written to the client since this was last asked: what is to be counted now. The last bytes of a
    /// response are often written after its exchange has ended, and are counted with the next one, or at the end.
    pub fn take_traffic(&self) -> (u64, u64) {
        let (read, written) = (self.read.get(), self.written.get());
        let (counted_read, counted_written) = self.counted.replace((read, written));
        (read - counted_read, written - counted_written)
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

/// The stream of an HTTP/1.1 client as hyper reads and writes it. Counts bytes and notes waits.
#[derive(Debug)]
pub struct ClientIo(pub Rc<Client>);

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut *self.0.connection.stream.borrow_mut()).poll_read(cx, buf);
        let n = buf.filled().len() - before;
        if n > 0 {
            self.0.connection.read.set(self.0.connection.read.get() + n as u64);
            self.0.turns.bytes_arrived();
        }
        result
    }
}

impl ClientIo {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(n)) => {
                self.0
                    .connection
                    .written
                    .set(self.0.connection.written.get() + *n as u64);
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
        let result = Pin::new(&mut *self.0.connection.stream.borrow_mut()).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut *self.0.connection.stream.borrow_mut()).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.connection.stream.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut *self.0.connection.stream.borrow_mut()).poll_flush(cx);
        // TLS takes more than the socket does; only the flush tells that the client has not taken it.
        match &result {
            Poll::Pending => {
                self.0.connection.flushing.set(true);
                self.0.turns.await_client();
            }
            // A flush of nothing says nothing about a client whose body is awaited.
            Poll::Ready(_) if self.0.connection.flushing.replace(false) => self.0.turns.client_moved(),
            Poll::Ready(_) => {}
        }
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.connection.stream.borrow_mut()).poll_shutdown(cx)
    }
}

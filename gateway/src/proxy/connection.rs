//! A client's connection: its bytes, what is known of it, and how it ends.

mod client_io;

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};

use super::forwarding::Told;
use super::private::Private;
use super::relay::Pipe;
use super::spelling::Spelling;
use super::spliced::Moving;
use super::turns::Clock;
use crate::accepted::{Accepted, Next};
use crate::config::{ClientTimeouts, HttpKeepAlive};
use crate::policy::{ConnectionFacts, KeptByConnection};
use crate::stream::Stream;
use crate::telemetry::choice;
pub use client_io::ClientIo;

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    stream: RefCell<Accepted>,
    /// Whoever reads sees to it that he comes back when there was nothing.
    looks: Cell<bool>,
    /// The last request has content.
    has_content: Cell<bool>,
    /// What policy may know about it.
    pub facts: Arc<ConnectionFacts>,
    /// What servers are told of it.
    pub told: Told,
    /// Connections to servers that were told of this client.
    pub private: Private,
    /// Instances of plugins that see all its requests, and no others.
    kept: OnceCell<KeptByConnection>,
    /// The time.
    pub clock: Rc<Clock>,
    read: Cell<u64>,
    written: Cell<u64>,
    /// A flush waits for the client to take what was written.
    flushing: Cell<bool>,
    /// The answer has broken off, and what there is of it has not all been written.
    is_owing: Cell<bool>,
    /// How far the first line of a request has come.
    spelling: Cell<Spelling>,
    /// What the first bytes have said so far.
    opening: Cell<Opening>,
    /// What has come of a connection preface, and behind it.
    said: RefCell<Vec<u8>>,
    /// It has to end after what is under way.
    closes: Cell<bool>,
    /// Requests that it may bring yet.
    requests_left: Cell<u32>,
    /// When it is too old to bring more.
    retires: Cell<Option<Instant>>,
    /// The response under way is the last, and nothing but it is awaited.
    last: Cell<bool>,
    /// The response under way is the last, and the rest of its request will not be read.
    lingers: Cell<bool>,
    /// Informational responses of HTTP/1.1 that wait to be written, and how much of them has been.
    early: RefCell<Vec<u8>>,
    early_written: Cell<usize>,
    has_early: Cell<bool>,
    /// Somebody waits for what the client sends, and would be told of its end.
    is_heard: Cell<bool>,
    /// What of a response's body the kernel is moving.
    moving: Moving,
    /// What [`Connection::take_traffic`] has answered so far.
    counted: Cell<(u64, u64)>,
    /// Whether what hyper writes is an answer to a request.
    speech: Cell<Speech>,
    /// hyper has ended the connection by itself, and the client has not been told.
    is_held_open: Cell<bool>,
    /// A request has come that is not served: it ends when what came before it has been answered.
    is_cut: Cell<bool>,
}

impl Connection {
    /// Takes over a connection.
    pub fn new(accepted: Accepted, facts: Arc<ConnectionFacts>, timeouts: &ClientTimeouts) -> Rc<Self> {
        Rc::new(Self {
            stream: RefCell::new(accepted),
            looks: Cell::new(false),
            has_content: Cell::new(false),
            facts,
            told: Told::default(),
            private: Private::default(),
            kept: OnceCell::new(),
            clock: Clock::new(timeouts.client),
            read: Cell::new(0),
            written: Cell::new(0),
            flushing: Cell::new(false),
            is_owing: Cell::new(false),
            spelling: Cell::default(),
            opening: Cell::new(Opening::Known),
            said: RefCell::default(),
            closes: Cell::new(false),
            // One that gets there has brought enough.
            requests_left: Cell::new(u32::MAX),
            retires: Cell::new(None),
            last: Cell::new(false),
            lingers: Cell::new(false),
            early: RefCell::default(),
            early_written: Cell::new(0),
            has_early: Cell::new(false),
            is_heard: Cell::new(false),
            moving: Moving::default(),
            counted: Cell::new((0, 0)),
            speech: Cell::new(Speech::Silent),
            is_held_open: Cell::new(false),
            is_cut: Cell::new(false),
        })
    }

    /// The instances of plugins that see all its requests.
    pub fn kept(&self) -> KeptByConnection {
        self.kept.get_or_init(KeptByConnection::default).clone()
    }

    /// A request of HTTP/1.1 has come. What hyper writes from now on answers it, until all of that has been written. What it
    /// writes at any other time it writes of its own accord: that it cannot read a head. That is not passed on, and neither
    /// is its ending the connection; whoever serves it has better words.
    pub fn answer_begins(&self) {
        self.speech.set(Speech::Answering);
    }

    /// hyper has all of the answer.
    pub fn answer_is_made(&self) {
        self.speech.set(Speech::Answered);
    }

    /// Whether nothing is on its way to the client.
    pub fn is_silent(&self) -> bool {
        self.speech.get() == Speech::Silent
    }

    /// Takes hyper's own words, and says that they were written.
    #[cold]
    fn swallow(&self, bufs: &[io::IoSlice<'_>]) -> usize {
        self.is_held_open.set(true);
        bufs.iter().map(|buf| buf.len()).sum()
    }

    /// The response that is about to begin is the last on this connection, and the request has come whole.
    pub fn last_response(&self) {
        self.last.set(true);
    }

    /// The response that is about to begin is the last on this connection, and the rest of its request is not wanted.
    /// What of it comes yet is thrown away for a while: closing at once would have the system answer it with a reset,
    /// which may reach the client before it has read the response (RFC 9112, section 9.6).
    pub fn linger(&self) {
        self.lingers.set(true);
    }

    /// The answer breaks off. hyper, once it hears of that, lets go of what it has not written yet.
    pub(super) fn breaks_off(&self) {
        self.is_owing.set(true);
    }

    /// Whether hyper has yet to write what there is of an answer that breaks off.
    pub(super) fn is_owing(&self) -> bool {
        self.is_owing.get()
    }

    /// Whether the client is lingered for.
    pub fn lingers(&self) -> bool {
        self.lingers.get()
    }

    /// Throws away what the client still sends, until it ends.
    fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut thrown = [MaybeUninit::uninit(); DISCARD];
        let mut stream = self.stream.borrow_mut();
        // Not for ever in one turn: others want theirs.
        for _ in 0..DISCARD_READS {
            let mut buf = ReadBuf::uninit(&mut thrown);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the client has sent anything at all.
    pub fn has_spoken(&self) -> bool {
        self.read.get() > 0
    }

    /// The connection itself, for whoever has it after HTTP. Until then hyper reads and writes it, through [`ClientIo`].
    pub fn stream(&self) -> io::Result<RefMut<'_, Stream>> {
        let mut stream = self.stream.borrow_mut();
        stream.stream()?;
        RefMut::filter_map(stream, |stream| stream.stream().ok()).map_err(|_| io::ErrorKind::NotConnected.into())
    }

    /// Whether the runtime does not watch it.
    pub fn is_fresh(&self) -> bool {
        self.stream.borrow().is_fresh()
    }

    /// A turn of its task begins.
    pub fn turn(&self) {
        self.stream.borrow_mut().turn();
    }

    /// Whoever reads from now on [looks](Accepted::poll_look), or does not.
    pub fn look(&self, looks: bool) {
        self.looks.set(looks);
    }

    /// Has it watched, for whoever has looked.
    pub fn watch(&self, cx: &mut Context<'_>) -> io::Result<()> {
        self.stream.borrow_mut().watch(cx)
    }

    /// A request has come, with content or without.
    pub fn request_comes(&self, has_content: bool) {
        self.has_content.set(has_content);
    }

    /// Whether the last request has content.
    pub fn has_content(&self) -> bool {
        self.has_content.get()
    }

    /// Bytes read from and written to the client since this was last asked: what is to be counted now. The last bytes of a
    /// response are often written after its exchange has ended, and are counted with the next one, or at the end.
    pub fn take_traffic(&self) -> (u64, u64) {
        let (read, written) = (self.read.get(), self.written.get());
        let (counted_read, counted_written) = self.counted.replace((read, written));
        (read - counted_read, written - counted_written)
    }

    /// Lets the first bytes decide between HTTP/1 and HTTP/2 by prior knowledge (RFC 9113, section 3.3).
    pub fn listen_for_preface(&self) {
        self.opening.set(Opening::Listening);
    }

    /// Whether the client has begun with the connection preface of HTTP/2.
    pub fn has_preface(&self) -> bool {
        self.opening.get() == Opening::Preface
    }

    /// What has been read of HTTP/2: the connection preface, and what came with it.
    pub fn take_said(&self) -> Bytes {
        self.said.take().into()
    }

    /// What it may bring from now on. Each connection's own age is less than the one that is said, by up to a tenth: those that
    /// were made together, as after a restart, do not all come back together.
    pub fn limit(&self, limits: HttpKeepAlive) {
        if let Some(requests) = limits.max_requests {
            self.requests_left.set(requests.get());
        }
        let part = || 1.0 - f64::from(choice::draw()) / f64::from(u32::MAX) / 10.0;
        self.retires
            .set(limits.max_age.map(|age| self.clock.now() + age.mul_f64(part())));
    }

    /// A request has come. Whether it is the last that it may bring.
    pub fn is_last_request(&self) -> bool {
        let left = self.requests_left.get().saturating_sub(1);
        self.requests_left.set(left);
        left == 0 || self.retires.get().is_some_and(|retires| self.clock.now() >= retires)
    }

    /// When it is too old to bring more, if ever.
    pub fn retires(&self) -> Option<Instant> {
        self.retires.get()
    }

    /// It ends after what is under way on it.
    pub fn close_soon(&self) {
        self.closes.set(true);
    }

    /// Whether it has to end after what is under way on it.
    pub fn has_to_close(&self) -> bool {
        self.closes.get()
    }

    /// What has come now is not served.
    pub fn cut(&self) {
        self.is_cut.set(true);
    }

    /// Whether it ends now: what has come is not served, and what came before it has its answer.
    pub fn is_cut(&self) -> bool {
        self.is_cut.get() && self.is_silent()
    }

    /// Whether anybody has waited, since this was last asked, for what the client sends.
    pub fn was_heard(&self) -> bool {
        self.is_heard.replace(false)
    }

    /// What the client has sent [that nobody reads](Accepted::poll_next).
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Next> {
        self.stream.borrow_mut().poll_next(cx)
    }

    /// Writes this before the response of the exchange under way, as soon as everything before it has been written.
    pub(super) fn say_early(&self, bytes: &[u8]) {
        let mut early = self.early.borrow_mut();
        if early.len() + bytes.len() <= MOST_EARLY {
            early.extend_from_slice(bytes);
            self.has_early.set(true);
        }
    }

    /// Whether something is to be written before the response of which nothing has been.
    pub fn owes_early(&self) -> bool {
        self.has_early.get() && self.early_written.get() == 0
    }

    /// The response begins: what should have come before it, and of which nothing has been written, is late.
    pub fn response_begins(&self) {
        if self.owes_early() {
            self.early.borrow_mut().clear();
            self.has_early.set(false);
        }
    }

    /// Writes what comes before the response.
    #[cold]
    fn poll_early(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut early = self.early.borrow_mut();
        while self.early_written.get() < early.len() {
            let rest = io::IoSlice::new(&early[self.early_written.get()..]);
            let n = ready!(self.poll_write(cx, &[rest], false))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.early_written.set(self.early_written.get() + n);
        }
        early.clear();
        self.early_written.set(0);
        self.has_early.set(false);
        Poll::Ready(Ok(()))
    }

    /// Finishes an informational response that has begun to be written: nothing may come in between.
    fn poll_early_begun(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_early.get() && self.early_written.get() > 0 {
            return self.poll_early(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads, and counts what came.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let mut stream = self.stream.borrow_mut();
        let result = match self.looks.get() {
            true => stream.poll_look(cx, buf),
            false => Pin::new(&mut *stream).poll_read(cx, buf),
        };
        let n = buf.filled().len() - before;
        self.read.set(self.read.get() + n as u64);
        result
    }

    /// Writes, and counts what went. Behind the last nothing comes but the end.
    pub fn poll_write(&self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>], last: bool) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        let result = match bufs {
            all if last => stream.poll_write_last(cx, all),
            [one] => Pin::new(&mut *stream).poll_write(cx, one),
            few if few.iter().map(|buf| buf.len()).sum::<usize>() <= FLAT => {
                let mut room = [MaybeUninit::uninit(); FLAT];
                let mut flat = ReadBuf::uninit(&mut room);
                few.iter().for_each(|buf| flat.put_slice(buf));
                Pin::new(&mut *stream).poll_write(cx, flat.filled())
            }
            many => Pin::new(&mut *stream).poll_write_vectored(cx, many),
        };
        if let Poll::Ready(Ok(n)) = &result {
            self.written.set(self.written.get() + *n as u64);
        }
        result
    }

    /// Whether the kernel can move bytes to the client: nothing is between them and the socket.
    pub fn is_plain(&self) -> bool {
        self.stream.borrow().is_plain()
    }

    /// Ready when nothing is in a pipe to the client.
    pub(super) fn poll_moved(&self, cx: &Context<'_>) -> Poll<()> {
        self.moving.poll_empty(cx)
    }

    /// What is in the pipe goes to the client where its placeholder is written.
    pub(super) fn begin_moving(&self, pipe: Pipe) {
        self.moving.begin(pipe);
    }

    /// Writes while a pipe has bytes for the client: where their placeholder is, they go.
    fn poll_write_moving(&self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>], last: bool) -> Poll<io::Result<usize>> {
        let (made, placeholder) = Moving::split(bufs);
        if !made.is_empty() {
            return self.poll_write(cx, made, last);
        }
        let mut stream = self.stream.borrow_mut();
        stream.watch(cx)?;
        let result = self.moving.poll_drain(cx, stream.stream()?, placeholder);
        if let Poll::Ready(Ok(n)) = &result {
            self.written.set(self.written.get() + *n as u64);
        }
        result
    }

    /// Whether several pieces are written in one call.
    pub fn is_write_vectored(&self) -> bool {
        self.stream.borrow().is_write_vectored()
    }

    /// Sends on what was written, where something is in between.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_flush(cx)
    }

    /// Ends what is written. Where the client is lingered for, ready once it has ended, too: it counts as idle meanwhile, and
    /// has no longer than an idle connection. It is where something has come behind its last request, which nobody has read.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.lingers.get() {
            let mut stream = self.stream.borrow_mut();
            ready!(match self.has_content.get() {
                // Some clients have a line end follow content: it may come at any moment, and to close over it is to reset.
                true => stream.poll_end(cx),
                false => Pin::new(&mut *stream).poll_shutdown(cx),
            })?;
            let may_have_more = self.last.get() || self.has_content.get();
            if !may_have_more || !stream.has_unread(cx) {
                return Poll::Ready(Ok(()));
            }
            self.linger();
        }
        ready!(self.stream.borrow_mut().poll_end(cx))?;
        self.poll_discard(cx)
    }

    /// Reads while it is not known yet what the client speaks. What may be the connection preface is kept back; once it has
    /// come whole, nothing more is read here.
    #[cold]
    fn poll_first(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.has_preface() {
            return Poll::Pending;
        }
        let mut said = self.said.borrow_mut();
        let before = buf.filled().len();
        loop {
            // Room is left to give back what was kept.
            let result = match buf.remaining().checked_sub(said.len()) {
                Some(room) if room > 0 => {
                    let mut part = buf.take(room);
                    let result = self.poll_read(cx, &mut part);
                    let n = part.filled().len();
                    // Initialised by the read just now.
                    said.extend_from_slice(part.filled());
                    ready!(result)?;
                    n
                }
                _ => 0,
            };
            let start = said.len().min(PREFACE.len());
            if result > 0 && said[..start] == PREFACE[..start] {
                if start == PREFACE.len() {
                    self.opening.set(Opening::Preface);
                    return Poll::Pending;
                }
                continue;
            }
            self.opening.set(Opening::Known);
            let said = std::mem::take(&mut *said);
            buf.set_filled(before);
            buf.put_slice(&said);
            return Poll::Ready(Ok(()));
        }
    }

    /// Writes this and ends the connection, throwing away what the client still sends until it ends, too: closing at once might
    /// take what was written from it. All that for so long at most.
    pub async fn last_word(&self, bytes: &[u8], within: Duration) {
        // However it ends, the connection does.
        let _ = timeout(within, self.say_and_end(bytes)).await;
    }

    async fn say_and_end(&self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match poll_fn(|cx| self.poll_write(cx, &[io::IoSlice::new(rest)], false)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => rest = &rest[n..],
            }
        }
        poll_fn(|cx| self.poll_flush(cx)).await?;
        self.linger();
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    /// Ends what is written, as far as that is possible at once.
    pub fn end(&self) {
        let mut stream = self.stream.borrow_mut();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = Pin::new(&mut *stream).poll_flush(&mut cx);
        let _ = Pin::new(&mut *stream).poll_shutdown(&mut cx);
    }
}

/// What hyper writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    /// Nothing: all answers have been written, and no request is being served.
    Silent,
    /// An answer that is being made.
    Answering,
    /// What is left of an answer that has been made.
    Answered,
}

/// What is known of the version that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// All that one has to know.
    Known,
    /// Nothing; the first bytes will tell.
    Listening,
    /// HTTP/2: its connection preface has come.
    Preface,
}

/// What a connection of HTTP/2 begins with (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of informational responses that wait for a client to take them.
const MOST_EARLY: usize = 16 * 1024;

/// Bytes that are joined on the stack to be written: copying so few costs less than the kernel's reading of a list of pieces.
const FLAT: usize = 2 * 1024;

/// Bytes thrown away in one read, on the stack.
const DISCARD: usize = 8 * 1024;

/// Reads in one turn.
const DISCARD_READS: usize = 32;

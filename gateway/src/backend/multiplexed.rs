//! HTTP/2 connections to servers: each carries many requests of its worker at once, and is moved by a task of its own.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::config;
use crate::empty_frames::EmptyFrames;
use crate::stream::Stream;

/// An HTTP/2 connection to a server.
///
/// It ends when the server says so (GOAWAY), when it breaks, or when it has been [retired](Self::retire) and its last request
/// is over. The worker's pool holds it, and so does each request on it.
pub struct Multiplexed {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    most: usize,
    begun: Instant,
    /// Where it leads, of a server that may move.
    pub leads_to: Option<SocketAddr>,
}

/// What the connection, its task and its stream share.
#[derive(Debug)]
struct State {
    /// It takes no more requests.
    closing: Cell<bool>,
    active: Cell<usize>,
    served: Cell<u64>,
    /// Streams that have been opened.
    opened: Cell<u64>,
    idle_since: Cell<Instant>,
    /// How often something has come from the server.
    reads: Cell<u64>,
    /// Requests whose content, and tunnels something of which, waits for the server to open its windows: their numbers, and since
    /// when. The longest first.
    blocked: RefCell<Vec<(u64, Instant)>>,
    /// The next one's number.
    next_blocked: Cell<u64>,
    /// Tells that something of it has moved, or waits no more.
    moved: Rc<Notify>,
    /// Whether the server's SETTINGS have come.
    is_settled: Cell<bool>,
    /// Tells that they have come, or that they are not worth waiting for any more.
    settled: Rc<Notify>,
    /// The connection's task.
    task: RefCell<Option<Waker>>,
    /// Streams of exchanges that are over, whose end the server has not sent yet, and since when they wait for it: the longest first.
    /// Until then they count for the server as any other.
    ending: RefCell<Vec<(RecvStream, Instant)>>,
}

impl Multiplexed {
    /// Begins HTTP/2 on a connection that stands, and lets a task of this thread move it. What the server has to say about it
    /// is not waited for.
    pub async fn start(
        stream: Stream,
        settings: &config::Http2,
        most_head: usize,
        leads_to: Option<SocketAddr>,
    ) -> Result<Rc<Self>, h2::Error> {
        let begun = Instant::now();
        let state = Rc::new(State {
            closing: Cell::new(false),
            active: Cell::new(0),
            served: Cell::new(0),
            opened: Cell::new(0),
            idle_since: Cell::new(begun),
            reads: Cell::new(0),
            blocked: RefCell::default(),
            next_blocked: Cell::new(0),
            moved: Rc::default(),
            is_settled: Cell::new(false),
            settled: Rc::default(),
            task: RefCell::default(),
            ending: RefCell::default(),
        });
        let io = Watched {
            stream,
            state: state.clone(),
            empty: EmptyFrames::behind(0),
        };
        let (sender, connection) = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(BEFORE_SETTINGS)
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .max_frame_size(settings.max_frame_size)
            .header_table_size(settings.header_table)
            .max_header_list_size(u32::try_from(most_head).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER)
            // The connection is everybody's: what the library counts over its whole life, and ends it for, one client could
            // bring about who cancels downloads. What comes on a stream that it has forgotten counts as an error of the server's,
            // and what it ignores on one that it knows counts as content that nobody has taken. No server gains by either: a
            // frame that is too late costs it as much as us, and what it may have us hold, the windows say.
            .max_local_error_reset_streams(None)
            .data_frame_budget(usize::MAX)
            .max_concurrent_reset_streams(REMEMBERED)
            .reset_stream_duration(MEMORY)
            .handshake::<_, Bytes>(io)
            .await?;
        let driver = Driver {
            connection: Some(connection),
            state: state.clone(),
            late: None,
        };
        tokio::task::spawn_local(driver);
        Ok(Rc::new(Self {
            sender,
            state,
            // More could fill the window with what is not read, and hold up all others.
            most: settings.roomy_streams() as usize,
            begun,
            leads_to,
        }))
    }

    /// Whether it could take another request now: one, until the server has said how many it takes.
    pub fn has_room(&self) -> bool {
        let active = self.state.active.get();
        match self.state.is_settled.get() {
            _ if self.state.closing.get() => false,
            false => active == 0,
            true => active < self.most.min(self.sender.current_max_send_streams()),
        }
    }

    /// What tells when the server has said how many requests it takes, or will not; none when it is known, or when the
    /// connection takes no more of them whatever the server says.
    pub fn settling(&self) -> Option<Rc<Notify>> {
        let state = &self.state;
        let is_settling = !state.is_settled.get() && !state.closing.get() && state.active.get() < self.most;
        is_settling.then(|| state.settled.clone())
    }

    /// Waits until the server's SETTINGS have come, or will not come any more.
    pub async fn settled(&self) {
        while !self.state.is_settled.get() && !self.state.closing.get() {
            self.state.settled.notified().await;
        }
    }

    /// Whether the server takes extended CONNECT (RFC 8441, section 3); none as long as it has not said.
    pub fn takes_tunnels(&self) -> Option<bool> {
        let is_settled = self.state.is_settled.get();
        is_settled.then(|| self.sender.is_extended_connect_protocol_enabled())
    }

    /// Whether content waits for the server to open its windows. It may be that of the connection that is used up, by a stream that the
    /// server does not read; further content would wait behind it.
    pub fn is_blocked(&self) -> bool {
        !self.state.blocked.borrow().is_empty()
    }

    /// Whether content has waited for longer than a server takes that reads it.
    pub fn is_stuck(&self) -> bool {
        let blocked = self.state.blocked.borrow();
        blocked.first().is_some_and(|(_, since)| since.elapsed() >= STUCK)
    }

    /// What tells whether content that waits moves on in time; none where none waits, and where it is too late for that.
    pub fn moving(&self) -> Option<Moving> {
        let blocked = self.state.blocked.borrow();
        let (_, since) = blocked.first()?;
        let until = *since + STUCK;
        (Instant::now() < until).then(|| Moving {
            moved: self.state.moved.clone(),
            until,
        })
    }

    /// A request's content waits for that, until what is answered is dropped: it has moved, or is given up.
    pub fn block(&self) -> Blocked {
        let number = self.state.next_blocked.get();
        self.state.next_blocked.set(number.wrapping_add(1));
        self.state.blocked.borrow_mut().push((number, Instant::now()));
        Blocked {
            state: self.state.clone(),
            number,
        }
    }

    /// How long the connection has stood.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Whether it takes no more requests, or soon will not.
    pub fn is_closing(&self) -> bool {
        self.state.closing.get()
    }

    /// Requests under way.
    pub fn active(&self) -> usize {
        self.state.active.get()
    }

    /// Since when no request has been under way; none while one is.
    pub fn idle_since(&self) -> Option<Instant> {
        (self.active() == 0).then(|| self.state.idle_since.get())
    }

    /// Takes no more requests, and ends after those under way.
    pub fn retire(&self) {
        self.state.close();
        self.state.wake();
    }

    /// Waits for the end of a stream all of whose content has come by its length: servers often send it by itself. To let go of the
    /// stream before would reset it, and servers count resets.
    pub fn await_end(&self, stream: RecvStream) {
        let mut ending = self.state.ending.borrow_mut();
        if ending.len() < MOST_ENDING {
            ending.push((stream, Instant::now()));
            drop(ending);
            self.state.wake();
        }
    }

    /// Takes a place on the connection, for as long as what is answered is held.
    pub fn enter(self: &Rc<Self>) -> Place {
        self.state.active.set(self.state.active.get() + 1);
        self.make_room();
        Place {
            reads: self.state.reads.get(),
            connection: self.clone(),
        }
    }

    /// Streams that wait for nothing but their end give way to those that are wanted: behind as many as the server takes, these would
    /// wait for ends that may never come.
    fn make_room(&self) {
        let mut ending = self.state.ending.borrow_mut();
        if ending.is_empty() {
            return;
        }
        let most = self.most.min(self.sender.current_max_send_streams());
        let room = most.saturating_sub(self.state.active.get());
        let too_many = ending.len().saturating_sub(room);
        ending.drain(..too_many);
    }
}

impl Drop for Multiplexed {
    fn drop(&mut self) {
        self.retire();
    }
}

/// A request's content that waits for its server.
#[derive(Debug)]
pub struct Blocked {
    state: Rc<State>,
    number: u64,
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.state
            .blocked
            .borrow_mut()
            .retain(|(number, _)| *number != self.number);
        self.state.moved.notify_waiters();
    }
}

/// A connection on which content waits that may yet move.
#[derive(Debug)]
pub struct Moving {
    moved: Rc<Notify>,
    until: Instant,
}

impl Moving {
    /// Waits until something of it has moved. Whether it has before it was too late: the windows of the connection are not used up for
    /// good then.
    pub async fn has_moved(self) -> bool {
        timeout_at(self.until, self.moved.notified()).await.is_ok()
    }
}

/// A request's place on a connection.
pub struct Place {
    connection: Rc<Multiplexed>,
    /// How often something had come from the server before.
    reads: u64,
}

impl Place {
    /// Sends a request's head. Its content goes into the stream that is answered.
    pub fn send(&self, head: Request<()>, ends: bool) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let opened = &self.connection.state.opened;
        opened.set(opened.get() + 1);
        if opened.get() >= MOST_STREAMS {
            // Streams beyond the last number there is would fail, each of them.
            self.connection.retire();
        }
        // A clone, because a handle whose last request waits for the server's leave takes no other.
        self.connection.sender.clone().send_request(head, ends)
    }

    /// The connection.
    pub fn connection(&self) -> &Rc<Multiplexed> {
        &self.connection
    }

    /// Whether nothing at all has come from the server since this place was taken.
    pub fn has_heard_nothing(&self) -> bool {
        self.connection.state.reads.get() == self.reads
    }

    /// Whether the connection had served a request before.
    pub fn is_reused(&self) -> bool {
        self.connection.state.served.get() > 0
    }

    /// A response has come: the connection is one that works.
    pub fn answered(&self) {
        let served = &self.connection.state.served;
        served.set(served.get() + 1);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let state = &self.connection.state;
        state.active.set(state.active.get() - 1);
        if state.active.get() == 0 {
            state.idle_since.set(Instant::now());
            if state.closing.get() {
                state.wake();
            }
        }
    }
}

impl State {
    /// Lets go of streams that have ended, or should have. Answers when the next should have.
    fn let_ended_go(&self, cx: &mut Context<'_>) -> Option<Instant> {
        let mut ending = self.ending.borrow_mut();
        ending.retain_mut(|(stream, since)| {
            // Empty frames may come before the end; anything else would be too much.
            while let Poll::Ready(came) = stream.poll_data(cx) {
                if !came.is_some_and(|came| came.is_ok_and(|bytes| bytes.is_empty())) {
                    return false;
                }
            }
            since.elapsed() < MOST_WAIT
        });
        ending.first().map(|(_, since)| *since + MOST_WAIT)
    }

    fn close(&self) {
        self.closing.set(true);
        self.settled.notify_waiters();
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }
}

/// Moves a connection's bytes until it ends.
struct Driver {
    connection: Option<h2::client::Connection<Watched, Bytes>>,
    state: Rc<State>,
    /// When a stream is let go whose end has not come, if nothing else moves the connection until then. It goes on when the end has come,
    /// for the next.
    late: Option<Pin<Box<Sleep>>>,
}

impl Driver {
    fn let_ended_go(&mut self, cx: &mut Context<'_>) {
        while let Some(next) = self.state.let_ended_go(cx) {
            let late = self.late.get_or_insert_with(|| Box::pin(sleep_until(next)));
            if late.as_mut().poll(cx).is_pending() {
                return;
            }
            late.as_mut().reset(next);
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let known = matches!(&*self.state.task.borrow(), Some(task) if task.will_wake(cx.waker()));
        if !known {
            *self.state.task.borrow_mut() = Some(cx.waker().clone());
        }
        let this = &mut *self;
        this.let_ended_go(cx);
        let Some(connection) = &mut this.connection else {
            return Poll::Ready(());
        };
        let is_over = this.state.closing.get() && this.state.active.get() == 0;
        // The library says goodbye when it is polled after the last handle is gone; a server that takes nothing any more is
        // not waited for.
        if pin!(&mut *connection).poll(cx).is_pending() && !is_over {
            if !this.state.is_settled.get() && connection.max_concurrent_send_streams() != BEFORE_SETTINGS {
                this.state.is_settled.set(true);
                this.state.settled.notify_waiters();
            }
            return Poll::Pending;
        }
        this.state.close();
        this.state.ending.take();
        this.connection = None;
        Poll::Ready(())
    }
}

/// The stream to the server. Notes that something comes.
struct Watched {
    stream: Stream,
    state: Rc<State>,
    /// What the library is not to see.
    empty: EmptyFrames,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, empty, .. } = &mut *self;
        let result = empty.poll_read(buf, |buf| Pin::new(&mut *stream).poll_read(cx, buf));
        if result.is_ready() {
            self.state.reads.set(self.state.reads.get() + 1);
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What the library holds for the server's limit until its SETTINGS come. No server can say this (the parameter has 32 bits,
/// and without it the library has the largest number), so another one means that they have come (RFC 9113, section 6.5.2).
const BEFORE_SETTINGS: usize = usize::MAX - 1;

/// Streams that are opened on one connection. Their numbers are odd and have 31 bits (RFC 9113, section 5.1.1), which is a little more.
const MOST_STREAMS: u64 = 1_000_000_000;

/// Bytes of one request's body that wait for the socket, at most.
const SEND_BUFFER: usize = 64 * 1024;

/// How long content waits before a server that may not read it at all. Less than a client notices, who waits as long for who stands before it at
/// worst; and more than a round trip to most servers, within which one that reads opens its windows.
const STUCK: Duration = Duration::from_millis(200);

/// Streams that were reset and are remembered, each with half a kilobyte: what is still on its way on them is stepped over. To a stream
/// that is forgotten each late frame is answered with another reset, and servers count resets.
const REMEMBERED: usize = 1000;

/// How long they are: as long as a slow network needs for what was on its way, and not so long that more of them than are remembered
/// come together, with less than two hundred a second.
const MEMORY: Duration = Duration::from_secs(5);

/// Streams of a connection that wait for nothing but their end; more are reset.
const MOST_ENDING: usize = 100;

/// How long one may.
const MOST_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backend::pool::{Beside, Pool};
    use std::future::poll_fn;

    use h2::Reason;
    use http::Response;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::advance;

    /// A server that takes so many streams at once, and answers without ever ending one; and what its streams end with.
    async fn endless(streams: u32) -> (TcpStream, mpsc::UnboundedReceiver<Reason>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (ended, ends) = mpsc::unbounded_channel();
        spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(streams);
            let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let ended = ended.clone();
                spawn_local(async move {
                    let mut stream = respond.send_response(Response::new(()), false).unwrap();
                    stream.send_data(Bytes::from_static(b"all"), false).unwrap();
                    let reason = poll_fn(|cx| stream.poll_reset(cx)).await;
                    let _ = ended.send(reason.unwrap());
                });
            }
        });
        (stream, ends)
    }

    async fn connected(stream: TcpStream) -> Rc<Multiplexed> {
        let settings = config::Http2::SERVERS;
        let connection = Multiplexed::start(Stream::Plain(stream), &settings, 1 << 14, None).await;
        let connection = connection.unwrap();
        connection.settled().await;
        connection
    }

    /// Asks for something and has all of it by its length.
    async fn ask(connection: &Rc<Multiplexed>) {
        let place = connection.enter();
        let head = Request::get("http://app/").body(()).unwrap();
        let (response, _) = place.send(head, true).unwrap();
        let mut content = response.await.unwrap().into_body();
        assert_eq!(content.data().await.unwrap().unwrap(), "all");
        connection.await_end(content);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_never_comes_is_not_waited_for_though_nothing_else_happens() {
        let test = async {
            let (stream, mut ends) = endless(10).await;
            let connection = connected(stream).await;
            ask(&connection).await;
            let begun = Instant::now();
            assert_eq!(ends.recv().await, Some(Reason::CANCEL));
            assert_eq!(begun.elapsed().as_secs(), MOST_WAIT.as_secs());
            // The timer goes on for the next.
            ask(&connection).await;
            assert_eq!(ends.recv().await, Some(Reason::CANCEL));
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn content_is_stuck_when_it_has_waited_for_long_and_nothing_of_it_has_moved() {
        let test = async {
            let (stream, _ends) = endless(10).await;
            let connection = connected(stream).await;
            assert!(!connection.is_stuck() && connection.moving().is_none());
            let first = connection.block();
            advance(STUCK / 2).await;
            let second = connection.block();
            advance(STUCK / 4).await;
            assert!(connection.is_blocked() && !connection.is_stuck());
            // It has moved, and waits again.
            drop(first);
            let first = connection.block();
            advance(STUCK / 2).await;
            assert!(!connection.is_stuck());
            advance(STUCK / 4).await;
            assert!(connection.is_stuck() && connection.moving().is_none(), "the second");
            drop(second);
            assert!(connection.is_blocked() && !connection.is_stuck());
            drop(first);
            assert!(!connection.is_blocked());
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_content_shares_a_connection_on_which_others_content_moves() {
        let test = async {
            let (stream, _ends) = endless(10).await;
            let connection = connected(stream).await;
            let settings = config::Pool {
                max_idle: 1,
                idle_timeout: Duration::from_secs(60),
                reuse: config::Reuse::Always,
            };
            let mut pool = Pool::new(1, settings);
            pool.add(0, &connection);
            let mut shares = |beside| (pool.share(0, None, beside).is_some(), pool.moving(0));
            assert!(shares(Beside::Nothing).0);
            let waits = connection.block();
            let (taken, moving) = shares(Beside::Nothing);
            assert!(!taken && shares(Beside::Anything).0);
            let (has_moved, ()) = tokio::join!(moving.unwrap().has_moved(), async { drop(waits) });
            assert!(has_moved);
            // It waits again for what comes next, as one that sends a lot mostly does.
            let _waits = connection.block();
            let (taken, moving) = shares(Beside::Moving);
            assert!(taken);
            assert!(!moving.unwrap().has_moved().await);
            let (taken, moving) = shares(Beside::Moving);
            assert!(!taken && moving.is_none(), "nothing moved in time");
            assert!(shares(Beside::Anything).0);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_connection_whose_streams_are_used_up_takes_no_more() {
        let test = async {
            let (stream, _ends) = endless(10).await;
            let connection = connected(stream).await;
            connection.state.opened.set(MOST_STREAMS - 2);
            ask(&connection).await;
            assert!(connection.has_room());
            // The last goes on all the same.
            ask(&connection).await;
            assert!(connection.is_closing() && !connection.has_room());
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn who_waits_for_an_end_takes_no_place_from_who_asks() {
        let test = async {
            let (stream, mut ends) = endless(2).await;
            let connection = connected(stream).await;
            for _ in 0..6 {
                assert!(connection.has_room());
                ask(&connection).await;
            }
            // Those before the last two.
            for _ in 0..4 {
                assert_eq!(ends.recv().await, Some(Reason::CANCEL));
            }
            assert_eq!(connection.state.ending.borrow().len(), 2);
        };
        LocalSet::new().run_until(test).await;
    }
}

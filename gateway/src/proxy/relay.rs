//! Bytes between a client and a server, both ways, until both have ended or one has been silent for too long.
//!
//! A connection that has nothing to say holds no buffer: a read borrows one from the worker's store for the length of a
//! poll, and keeps it only while the other side does not take what was read. In the common case a message costs one
//! receive and one send: tokio knows from a short read that the socket is empty and does not ask again, and the send
//! goes out without waiting for readiness.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long each side may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelaySettings {
    /// How long nothing may come from the client nor be taken by it, while something may come or waits to be taken.
    pub client_timeout: Duration,
    /// The same of the server.
    pub server_timeout: Duration,
}

/// What passed, and how it ended.
#[derive(Debug)]
pub struct RelayOutcome {
    /// Bytes that came from the client.
    pub bytes_from_client: u64,
    /// Bytes that came from the server.
    pub bytes_from_server: u64,
    /// How it ended.
    pub ended: Ended,
}

/// How a relay ended.
#[derive(Debug)]
pub enum Ended {
    /// Both sides ended what they had to say, and everything was delivered.
    Finished {
        /// Who ended first.
        first: Side,
    },
    /// A side was silent for too long.
    TimedOut(Side),
    /// A side broke it off, or could not be written to.
    Failed(Side, io::Error),
}

/// A side of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// Relays until the end. The end of what one side says is passed on to the other, which may go on by itself. The
/// streams are left open when it ends otherwise than [`Ended::Finished`]; dropping them closes them.
///
/// Timeouts are as HAProxy's: what is read from a side or written to it shows that the side is there.
pub async fn relay<C, S>(client: &mut C, server: &mut S, settings: RelaySettings) -> RelayOutcome
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    let mut relay = Relay {
        up: Pipe::new(),
        down: Pipe::new(),
        first: None,
        client: Silence {
            since: now,
            timeout: settings.client_timeout,
        },
        server: Silence {
            since: now,
            timeout: settings.server_timeout,
        },
    };
    let mut timer = pin!(sleep_until(relay.client.deadline().min(relay.server.deadline())));
    let ended = poll_fn(|cx| relay.poll(cx, client, server, timer.as_mut())).await;
    RelayOutcome {
        bytes_from_client: relay.up.bytes,
        bytes_from_server: relay.down.bytes,
        ended,
    }
}

struct Relay {
    /// From the client to the server.
    up: Pipe,
    /// From the server to the client.
    down: Pipe,
    /// Who ended first.
    first: Option<Side>,
    client: Silence,
    server: Silence,
}

impl Relay {
    fn poll<C, S>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        server: &mut S,
        timer: Pin<&mut Sleep>,
    ) -> Poll<Ended>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut buffer = None;
        let up = self.up.poll(cx, client, server, &mut buffer);
        let down = self.down.poll(cx, server, client, &mut buffer);
        drop(buffer);

        if up.saw_end {
            self.first.get_or_insert(Side::Client);
        }
        if down.saw_end {
            self.first.get_or_insert(Side::Server);
        }
        if !up.is_busy
            && !down.is_busy
            && let Poll::Ready(ended) = self.poll_end()
        {
            return Poll::Ready(ended);
        }
        let (client_stirred, server_stirred) = (up.from_stirred || down.to_stirred, down.from_stirred || up.to_stirred);
        if client_stirred || server_stirred {
            let now = Instant::now();
            if client_stirred {
                self.client.since = now;
            }
            if server_stirred {
                self.server.since = now;
            }
        }
        self.poll_timer(cx, timer)
    }

    fn poll_end(&mut self) -> Poll<Ended> {
        let (up, down) = (&mut self.up.state, &mut self.down.state);
        let (from_up, from_down) = match (&*up, &*down) {
            (State::Done, State::Done) => {
                let first = self.first.unwrap_or(Side::Client);
                return Poll::Ready(Ended::Finished { first });
            }
            (State::Failed(..), other) => (true, !other.holds_bytes()),
            (other, State::Failed(..)) => (false, !other.holds_bytes()),
            _ => return Poll::Pending,
        };
        // A side that cannot be written to may have said something before: what was read of it is delivered first.
        if !from_down {
            return Poll::Pending;
        }
        let (failed, from, to) = if from_up {
            (up, Side::Client, Side::Server)
        } else {
            (down, Side::Server, Side::Client)
        };
        match std::mem::replace(failed, State::Done) {
            State::Failed(Fault::Read, error) => Poll::Ready(Ended::Failed(from, error)),
            State::Failed(Fault::Write, error) => Poll::Ready(Ended::Failed(to, error)),
            _ => Poll::Pending,
        }
    }

    /// The timer is not moved at every message, only when it fires: then it is seen whether a side has been silent or
    /// the timer is merely old.
    fn poll_timer(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<Ended> {
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let (client, server) = (self.client_deadline(), self.server_deadline());
            if client.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(Ended::TimedOut(Side::Client));
            }
            if server.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(Ended::TimedOut(Side::Server));
            }
            let shorter = self.client.timeout.min(self.server.timeout);
            let next = [client, server].into_iter().flatten().min();
            // A side that nothing is awaited of now may be awaited later: it is looked at again.
            timer
                .as_mut()
                .reset(next.unwrap_or_else(|| after(now, shorter)).min(after(now, shorter)));
        }
        Poll::Pending
    }

    fn client_deadline(&self) -> Option<Instant> {
        (self.up.state.awaits_bytes() || self.down.state.awaits_room()).then(|| self.client.deadline())
    }

    fn server_deadline(&self) -> Option<Instant> {
        (self.down.state.awaits_bytes() || self.up.state.awaits_room()).then(|| self.server.deadline())
    }
}

/// How long a side has been silent.
struct Silence {
    since: Instant,
    timeout: Duration,
}

impl Silence {
    fn deadline(&self) -> Instant {
        after(self.since, self.timeout)
    }
}

/// One direction.
struct Pipe {
    state: State,
    /// Bytes read.
    bytes: u64,
    /// The writer may hold back what it was given: TLS does, a socket does not.
    unflushed: bool,
}

enum State {
    /// Nothing is in hand.
    Reading,
    /// Bytes were read that have not been written.
    Holding {
        buffer: Buffer,
        written: usize,
        read: usize,
    },
    /// The reader ended; the writer is being told.
    Closing,
    /// The writer was told.
    Done,
    /// It broke.
    Failed(Fault, io::Error),
}

enum Fault {
    Read,
    Write,
}

/// What a poll of a pipe saw.
#[derive(Default)]
struct Seen {
    /// The reader's side gave bytes or ended, or it is its turn again.
    from_stirred: bool,
    /// The writer's side took bytes, or it is its turn.
    to_stirred: bool,
    saw_end: bool,
    /// There may be more to move.
    is_busy: bool,
}

impl Pipe {
    fn new() -> Self {
        Self {
            state: State::Reading,
            bytes: 0,
            unflushed: false,
        }
    }

    /// Moves what can be moved now. `spare` is a buffer that both directions of a poll use in turn.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W, spare: &mut Option<Buffer>) -> Seen
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut seen = Seen::default();
        for _ in 0..MOST_ROUNDS {
            let step = match &mut self.state {
                State::Reading => self.poll_read(cx, from, to, spare, &mut seen),
                State::Holding { .. } => self.poll_write(cx, to, spare, &mut seen),
                State::Closing => match Pin::new(&mut *to).poll_shutdown(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Err(error)) if is_gone(&error) => Poll::Ready(State::Done),
                    Poll::Ready(Err(error)) => Poll::Ready(State::Failed(Fault::Write, error)),
                    Poll::Ready(Ok(())) => Poll::Ready(State::Done),
                },
                State::Done | State::Failed(..) => return seen,
            };
            match step {
                Poll::Ready(state) => self.state = state,
                Poll::Pending => return seen,
            }
        }
        // Others of this worker want to run too.
        cx.waker().wake_by_ref();
        seen.is_busy = true;
        seen
    }

    fn poll_read<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        spare: &mut Option<Buffer>,
        seen: &mut Seen,
    ) -> Poll<State>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = spare.take().unwrap_or_else(Buffer::take);
        let mut read = ReadBuf::new(&mut buffer.0);
        match Pin::new(from).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) => {
                seen.from_stirred = true;
                let read = read.filled().len();
                if read == 0 {
                    *spare = Some(buffer);
                    seen.saw_end = true;
                    return Poll::Ready(State::Closing);
                }
                self.bytes += read as u64;
                let written = 0;
                Poll::Ready(State::Holding { buffer, written, read })
            }
            // TLS that ends without a goodbye, as many clients end it. The other side sees an end, as it would without TLS.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                seen.saw_end = true;
                Poll::Ready(State::Closing)
            }
            Poll::Ready(Err(error)) => Poll::Ready(State::Failed(Fault::Read, error)),
            Poll::Pending => {
                *spare = Some(buffer);
                if self.unflushed {
                    match Pin::new(to).poll_flush(cx) {
                        Poll::Ready(Ok(())) => self.unflushed = false,
                        Poll::Ready(Err(error)) => return Poll::Ready(State::Failed(Fault::Write, error)),
                        Poll::Pending => {}
                    }
                }
                Poll::Pending
            }
        }
    }

    fn poll_write<W>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        spare: &mut Option<Buffer>,
        seen: &mut Seen,
    ) -> Poll<State>
    where
        W: AsyncWrite + Unpin,
    {
        let State::Holding { buffer, written, read } = &mut self.state else {
            return Poll::Pending;
        };
        while written < read {
            match Pin::new(&mut *to).poll_write(cx, &buffer.0[*written..*read]) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(State::Failed(Fault::Write, io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(more)) => {
                    seen.to_stirred = true;
                    self.unflushed = true;
                    *written += more;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(State::Failed(Fault::Write, error)),
                Poll::Pending => {
                    // Its turn begins now, if it was not its turn before.
                    seen.to_stirred |= seen.from_stirred;
                    return Poll::Pending;
                }
            }
        }
        // The reader's turn begins again: it was not asked for anything while the bytes were held.
        seen.from_stirred = true;
        if let State::Holding { buffer, .. } = std::mem::replace(&mut self.state, State::Reading) {
            *spare = Some(buffer);
        }
        Poll::Ready(State::Reading)
    }
}

impl State {
    fn holds_bytes(&self) -> bool {
        matches!(self, Self::Holding { .. })
    }

    fn awaits_bytes(&self) -> bool {
        matches!(self, Self::Reading)
    }

    fn awaits_room(&self) -> bool {
        matches!(self, Self::Holding { .. } | Self::Closing)
    }
}

/// A buffer of the worker's store; back there when dropped.
struct Buffer(Box<[u8]>);

thread_local! {
    static STORE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

impl Buffer {
    fn take() -> Self {
        let stored = STORE.with_borrow_mut(Vec::pop);
        Self(stored.unwrap_or_else(|| vec![0; BUFFER_SIZE].into_boxed_slice()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // At the thread's end there may be no store any more.
        let _ = STORE.try_with(|store| {
            let mut store = store.borrow_mut();
            if store.len() < MOST_STORED {
                store.push(buffer);
            }
        });
    }
}

/// Whoever cannot be told of an end because it has gone needs not be told. If it went too early, reading from it says so.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), NotConnected | BrokenPipe | ConnectionReset)
}

/// As far in the future as a timeout says, or as can be said.
fn after(now: Instant, timeout: Duration) -> Instant {
    now.checked_add(timeout).unwrap_or_else(|| now + FAR)
}

/// Twice HAProxy's: half the system calls of a large transfer, and still within a second-level cache. It bounds what a
/// connection holds to two of these.
const BUFFER_SIZE: usize = 32 * 1024;

/// Buffers a worker keeps for the next read: 2 MiB. Beyond it they go back to the allocator.
const MOST_STORED: usize = 64;

/// Steps (reads and writes) in a direction before others of the worker run: half a megabyte.
const MOST_ROUNDS: usize = 32;

/// A time that no connection sees.
const FAR: Duration = Duration::from_secs(30 * 365 * 86400);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;
    use tokio::time::{advance, sleep};

    use super::*;

    const SETTINGS: RelaySettings = RelaySettings {
        client_timeout: Duration::from_secs(30),
        server_timeout: Duration::from_secs(60),
    };

    /// A relay between two streams of so many bytes: the client's far end, the server's far end, the relay.
    fn relayed(room: usize) -> (DuplexStream, DuplexStream, JoinHandle<RelayOutcome>) {
        let (client, mut near_client) = duplex(room);
        let (server, mut near_server) = duplex(room);
        let task = tokio::spawn(async move { relay(&mut near_client, &mut near_server, SETTINGS).await });
        (client, server, task)
    }

    /// Two ends of a connection.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    async fn relayed_tcp(settings: RelaySettings) -> (TcpStream, TcpStream, JoinHandle<RelayOutcome>) {
        let ((client, mut near_client), (server, mut near_server)) = (connection().await, connection().await);
        let task = tokio::spawn(async move { relay(&mut near_client, &mut near_server, settings).await });
        (client, server, task)
    }

    fn data(length: usize, seed: u8) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8 ^ seed).collect()
    }

    #[tokio::test]
    async fn the_client_may_end_and_still_get_the_answer() {
        let (mut client, mut server, task) = relayed_tcp(SETTINGS).await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "question");
        server.write_all(b"a long answer").await.unwrap();
        drop(server);
        let mut answered = String::new();
        client.read_to_string(&mut answered).await.unwrap();
        assert_eq!(answered, "a long answer");
        let outcome = task.await.unwrap();
        assert!(
            matches!(outcome.ended, Ended::Finished { first: Side::Client }),
            "{outcome:?}"
        );
        assert_eq!((outcome.bytes_from_client, outcome.bytes_from_server), (8, 13));
    }

    #[tokio::test]
    async fn the_server_may_end_first_too() {
        let (mut client, mut server, task) = relayed_tcp(SETTINGS).await;
        server.write_all(b"hello").await.unwrap();
        server.shutdown().await.unwrap();
        let mut got = String::new();
        client.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "hello");
        client.write_all(b"bye").await.unwrap();
        client.shutdown().await.unwrap();
        got.clear();
        server.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "bye");
        assert!(matches!(
            task.await.unwrap().ended,
            Ended::Finished { first: Side::Server }
        ));
    }

    #[tokio::test]
    async fn much_both_ways_at_once_arrives_as_it_was() {
        for room in [1, 1000, 100_000] {
            let length = 100 * room.max(3000);
            let (client, server, task) = relayed(room);
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (split(client), split(server));
            let (up, down) = (data(length, 7), data(length + 1, 99));
            let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
            let (a, b, c, d) = tokio::join!(
                async { to_client.write_all(&up).await.and(to_client.shutdown().await) },
                async { to_server.write_all(&down).await.and(to_server.shutdown().await) },
                from_client.read_to_end(&mut got_down),
                from_server.read_to_end(&mut got_up),
            );
            a.and(b).unwrap();
            c.and(d).unwrap();
            assert!(got_up == up && got_down == down);
            let outcome = task.await.unwrap();
            assert_eq!(outcome.bytes_from_client, length as u64);
            assert_eq!(outcome.bytes_from_server, length as u64 + 1);
        }
    }

    #[tokio::test]
    async fn much_over_sockets_arrives_as_it_was() {
        let (mut client, mut server, task) = relayed_tcp(SETTINGS).await;
        let up = data(20_000_000, 3);
        let mut got = Vec::new();
        let (sent, received) = tokio::join!(
            async { client.write_all(&up).await.and(client.shutdown().await) },
            server.read_to_end(&mut got),
        );
        sent.and(received).unwrap();
        assert!(got == up);
        drop((client, server));
        assert_eq!(task.await.unwrap().bytes_from_client, 20_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_times_out_first_when_its_timeout_is_shorter() {
        let (_client, _server, task) = relayed(10);
        let before = Instant::now();
        assert!(matches!(task.await.unwrap().ended, Ended::TimedOut(Side::Client)));
        assert_eq!(before.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_side_takes_or_gives_shows_that_it_is_there() {
        let (mut client, mut server, task) = relayed(10);
        let before = Instant::now();
        let mut got = [0; 4];
        for _ in 0..5 {
            sleep(Duration::from_secs(25)).await;
            // The server talks; the client only listens.
            server.write_all(b"tick").await.unwrap();
            client.read_exact(&mut got).await.unwrap();
        }
        assert!(!task.is_finished());
        assert!(matches!(task.await.unwrap().ended, Ended::TimedOut(Side::Client)));
        assert_eq!(before.elapsed().as_secs(), 5 * 25 + 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_ended_is_not_waited_for_but_the_server_is() {
        let (mut client, _server, task) = relayed(10);
        let before = Instant::now();
        sleep(Duration::from_secs(10)).await;
        client.shutdown().await.unwrap();
        assert!(matches!(task.await.unwrap().ended, Ended::TimedOut(Side::Server)));
        assert_eq!(before.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_not_blamed_for_a_server_that_takes_nothing() {
        let (mut client, mut server, task) = relayed(10);
        // Fills the server's stream and the relay's hands; 10 more bytes wait in the client's.
        client.write_all(&[1; 20]).await.unwrap();
        sleep(Duration::from_secs(50)).await;
        assert!(!task.is_finished());
        // The server takes them; only now it is the client's turn again.
        server.read_exact(&mut [0; 20]).await.unwrap();
        let before = Instant::now();
        assert!(matches!(task.await.unwrap().ended, Ended::TimedOut(Side::Client)));
        assert_eq!(before.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_nothing_times_out() {
        let (mut client, _server, task) = relayed(10);
        client.write_all(&[1; 20]).await.unwrap();
        let before = Instant::now();
        assert!(matches!(task.await.unwrap().ended, Ended::TimedOut(Side::Server)));
        assert_eq!(before.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn timeouts_longer_than_the_clock_are_no_timeouts() {
        let settings = RelaySettings {
            client_timeout: Duration::MAX,
            server_timeout: Duration::MAX,
        };
        let ((mut client, mut near_client), (_server, mut near_server)) = (duplex(10), duplex(10));
        let task = tokio::spawn(async move { relay(&mut near_client, &mut near_server, settings).await });
        advance(Duration::from_secs(86400)).await;
        client.write_all(b"x").await.unwrap();
        assert!(!task.is_finished());
    }

    #[tokio::test]
    async fn a_reset_is_told_by_side() {
        for side in [Side::Client, Side::Server] {
            let (client, server, task) = relayed_tcp(SETTINGS).await;
            let (breaking, other) = match side {
                Side::Client => (client, server),
                Side::Server => (server, client),
            };
            #[allow(deprecated)]
            breaking.set_linger(Some(Duration::ZERO)).unwrap();
            drop(breaking);
            let outcome = task.await.unwrap();
            assert!(
                matches!(&outcome.ended, Ended::Failed(who, _) if *who == side),
                "{side:?} {outcome:?}"
            );
            drop(other);
        }
    }

    #[tokio::test]
    async fn an_answer_that_came_before_the_server_broke_off_is_delivered() {
        let (mut client, mut server, task) = relayed_tcp(SETTINGS).await;
        server.write_all(b"too large").await.unwrap();
        // The client has sent what the server never reads, so that its close is a reset.
        client.write_all(&[0; 1000]).await.unwrap();
        server.readable().await.unwrap();
        drop(server);
        let mut got = Vec::new();
        let mut byte = [0; 16];
        while let Ok(read @ 1..) = client.read(&mut byte).await {
            got.extend_from_slice(&byte[..read]);
        }
        assert_eq!(got, b"too large");
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_holds_the_writer_back() {
        let (_client, mut server, _task) = relayed(1000);
        let mut sent = 0;
        while let Ok(more) = tokio::time::timeout(Duration::from_millis(50), server.write(&[0; 500])).await {
            sent += more.unwrap();
            assert!(sent <= 2000 + BUFFER_SIZE, "{sent}");
        }
        assert!(sent >= 2000);
    }

    #[tokio::test]
    async fn a_silent_connection_holds_no_buffer() {
        let (mut client, mut server, task) = relayed(100);
        for _ in 0..3 {
            client.write_all(b"x").await.unwrap();
            server.read_exact(&mut [0]).await.unwrap();
        }
        // The runtime has one thread: the relay's store is this thread's.
        assert_eq!(STORE.with_borrow(Vec::len), 1);
        assert!(!task.is_finished());
    }
}

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
            timer.as_mut().reset(next.unwrap_or_else(|| after(now, shorter)).min(after(now, shorter)));
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
    Holding { buffer: Buffer, written: usize, read: usize },
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
                    // It has gone by itself.
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(State::Done),
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

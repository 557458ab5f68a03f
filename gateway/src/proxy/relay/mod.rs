//! Bytes between a client and a server, both ways, until both have ended or one has been silent for too long.
//!
//! A connection that has nothing to say holds neither buffer nor pipe: a read borrows one from the worker's store for the
//! length of a poll, and keeps it only while the other side does not take what was read. In the common case a message
//! costs one receive and one send: tokio knows from a short read that the socket is empty and does not ask again, and the
//! send goes out without waiting for readiness. Streams that are bulk are not copied at all, see `direction`.

mod buffer;
mod direction;
mod pipe;
mod stream;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::backend;
use crate::config::{ClientTimeouts, ServerTimeouts};
use crate::telemetry::access::{Cause, Phase, Termination};
use direction::{Direction, Fault, State};
pub(crate) use pipe::MOST_PIPES;
pub(super) use pipe::{MOST_HELD, Pipe};
pub use stream::Relayed;

/// How long each side may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelaySettings {
    /// How long nothing may come from the client nor be taken by it, while something may come or waits to be taken.
    pub client_timeout: Duration,
    /// The same of the server.
    pub server_timeout: Duration,
}

impl RelaySettings {
    /// As a frontend and a backend say: `timeout tunnel=` for both sides, the backend's before the frontend's, or else
    /// `client=` and `server=`.
    pub fn of(client: &ClientTimeouts, server: &ServerTimeouts) -> Self {
        let tunnel = server.tunnel.or(client.tunnel);
        Self {
            client_timeout: tunnel.unwrap_or(client.client),
            server_timeout: tunnel.unwrap_or(server.server),
        }
    }
}

/// What was read of each side before its relay began, together with what came before. It goes first.
#[derive(Debug, Clone, Default)]
pub struct Early {
    /// From the client.
    pub from_client: Bytes,
    /// From the server.
    pub from_server: Bytes,
}

/// What has moved since this was last told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes that came from the client.
    pub from_client: u64,
    /// Bytes that came from the server.
    pub from_server: u64,
    /// Bytes of either that were spliced.
    pub spliced: u64,
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

impl Ended {
    /// How the log has it.
    pub fn termination(&self) -> Termination {
        let cause = match self {
            Self::Finished { .. } => return Termination::default(),
            Self::TimedOut(Side::Client) => Cause::ClientTimeout,
            Self::TimedOut(Side::Server) => Cause::ServerTimeout,
            Self::Failed(Side::Client, _) => Cause::ClientAborted,
            Self::Failed(Side::Server, _) => Cause::ServerAborted,
        };
        Termination {
            cause,
            phase: Phase::Data,
        }
    }
}

/// How the log has a relay that was ended from outside, and the reason for it.
pub fn cut_off(why: backend::Ended) -> (Termination, &'static str) {
    let (cause, reason) = match why {
        backend::Ended::Down => (Cause::ServerDown, "server-down"),
        backend::Ended::Ordered => (Cause::Killed, "shut-down"),
    };
    let phase = Phase::Data;
    (Termination { cause, phase }, reason)
}

/// A side of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// A relay under way: what there is of it beside the two streams, which whoever polls it lends. It is small, because there
/// is one for each connection, and most of them have nothing to say most of the time.
///
/// The end of what one side says is passed on to the other, which may go on by itself. When it ends otherwise than
/// [`Ended::Finished`], the streams are left open; dropping them closes them, with a reset to the side that is left when the
/// other broke it off: what was cut short must not look whole.
///
/// Timeouts are as HAProxy's: what is read from a side or written to it shows that the side is there.
pub struct Relay {
    /// From the client to the server.
    up: Direction,
    /// From the server to the client.
    down: Direction,
    /// Bytes of either that were spliced since it was last told.
    spliced: u64,
    /// What the times here are counted from.
    start: Instant,
    client: Silence,
    server: Silence,
    /// When it was last told what has moved.
    counted: Nanoseconds,
    /// Boxed: the timer's own room is more than all else here.
    timer: Pin<Box<Sleep>>,
}

/// After the relay's start; for half a thousand years.
type Nanoseconds = u64;

impl Relay {
    /// A relay that begins now, with what has come already.
    pub fn new(settings: RelaySettings, early: Early) -> Self {
        let start = Instant::now();
        let (client, server) = (
            Silence::new(settings.client_timeout),
            Silence::new(settings.server_timeout),
        );
        let first = client.deadline().min(server.deadline());
        Self {
            up: Direction::new(early.from_client),
            down: Direction::new(early.from_server),
            spliced: 0,
            start,
            client,
            server,
            counted: 0,
            timer: Box::pin(sleep_until(after(start, first))),
        }
    }

    /// Moves what can be moved, until the end.
    ///
    /// `count` is told of what has moved every `COUNT_INTERVAL` while bytes move. What has moved since then is left for
    /// [`rest`](Self::rest).
    pub fn poll<C, S>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        server: &mut S,
        count: impl FnMut(Moved),
    ) -> Poll<Ended>
    where
        C: Relayed,
        S: Relayed,
    {
        let ended = ready!(self.poll_sides(cx, client, server, count));
        match ended {
            Ended::Failed(Side::Client, _) => reset(server),
            Ended::Failed(Side::Server, _) => reset(client),
            Ended::Finished { .. } | Ended::TimedOut(_) => {}
        }
        Poll::Ready(ended)
    }

    /// What has moved since it was last told; none when nothing has.
    pub fn rest(&mut self) -> Option<Moved> {
        let (from_client, from_server) = (self.up.take_moved(), self.down.take_moved());
        (from_client + from_server > 0).then_some(Moved {
            from_client,
            from_server,
            spliced: std::mem::take(&mut self.spliced),
        })
    }

    fn poll_sides<C, S>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        server: &mut S,
        mut count: impl FnMut(Moved),
    ) -> Poll<Ended>
    where
        C: Relayed,
        S: Relayed,
    {
        let mut buffer = None;
        let is_last = matches!(self.down.state(), State::Done);
        let up = self.up.poll(cx, client, server, &mut buffer, is_last);
        let is_last = matches!(self.up.state(), State::Done);
        let down = self.down.poll(cx, server, client, &mut buffer, is_last);
        drop(buffer);

        if up.end && !self.down.is_first {
            self.up.is_first = true;
        }
        if down.end && !self.up.is_first {
            self.down.is_first = true;
        }
        if up.end || down.end {
            // From now on nobody reads there, and nobody is told of a reset.
            let look = after(self.start, self.now() + nanoseconds(LOOK_INTERVAL));
            self.timer.as_mut().reset(look);
        }
        self.spliced += up.spliced + down.spliced;
        if up.is_busy || down.is_busy {
            // Others of this worker want to run too, and the sockets of all to be looked at.
            let _ = pin!(yield_now()).poll(cx);
        } else if let Poll::Ready(ended) = self.poll_end() {
            return Poll::Ready(ended);
        }
        let (client_stirred, server_stirred) = (up.from_stirred || down.to_stirred, down.from_stirred || up.to_stirred);
        if client_stirred || server_stirred {
            let now = self.now();
            if client_stirred {
                self.client.since = now;
            }
            if server_stirred {
                self.server.since = now;
            }
            if now - self.counted >= nanoseconds(COUNT_INTERVAL) {
                self.count(now, &mut count);
            }
        }
        self.poll_timer(cx, &*client, &*server, &mut count)
    }

    fn now(&self) -> Nanoseconds {
        nanoseconds(self.start.elapsed())
    }

    fn count(&mut self, now: Nanoseconds, count: &mut impl FnMut(Moved)) {
        self.counted = now;
        if let Some(moved) = self.rest() {
            count(moved);
        }
    }

    fn poll_end(&mut self) -> Poll<Ended> {
        let first = if self.down.is_first { Side::Server } else { Side::Client };
        let (up, down) = (self.up.state(), self.down.state());
        let (from_up, from_down) = match (&*up, &*down) {
            (State::Done, State::Done) => {
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
    fn poll_timer(
        &mut self,
        cx: &mut Context<'_>,
        client: &impl Relayed,
        server: &impl Relayed,
        count: &mut impl FnMut(Moved),
    ) -> Poll<Ended> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = self.now();
            self.count(now, count);
            if let Some(ended) = self.broken(client, server) {
                return Poll::Ready(ended);
            }
            let (client, server) = (self.client_deadline(), self.server_deadline());
            if client.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(Ended::TimedOut(Side::Client));
            }
            if server.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(Ended::TimedOut(Side::Server));
            }
            // A side that nothing is awaited of now may be awaited later: it is looked at again.
            let mut again = now.saturating_add(self.client.timeout.min(self.server.timeout));
            if self.is_half_closed() {
                again = again.min(now.saturating_add(nanoseconds(LOOK_INTERVAL)));
            }
            let next = [client, server].into_iter().flatten().fold(again, Nanoseconds::min);
            self.timer.as_mut().reset(after(self.start, next));
        }
        Poll::Pending
    }

    /// Whether one side has ended and the other has not.
    fn is_half_closed(&mut self) -> bool {
        let is_done = |state: &State| matches!(state, State::Done);
        is_done(self.up.state()) != is_done(self.down.state())
    }

    /// The reset of a side that had ended before, as its socket remembers it.
    fn broken(&mut self, client: &impl Relayed, server: &impl Relayed) -> Option<Ended> {
        if !self.is_half_closed() {
            return None;
        }
        let (side, tcp) = match self.up.state() {
            State::Done => (Side::Client, client.tcp()),
            _ => (Side::Server, server.tcp()),
        };
        let error = SockRef::from(tcp?).take_error().ok().flatten()?;
        Some(Ended::Failed(side, error))
    }

    fn client_deadline(&mut self) -> Option<Nanoseconds> {
        (self.up.state().awaits_bytes() || self.down.state().awaits_room()).then(|| self.client.deadline())
    }

    fn server_deadline(&mut self) -> Option<Nanoseconds> {
        (self.down.state().awaits_bytes() || self.up.state().awaits_room()).then(|| self.server.deadline())
    }
}

/// Relays until the end, as [`Relay`] does. `count` is told of the rest at the end, even when this is dropped before it.
pub async fn relay<C, S, F>(client: &mut C, server: &mut S, settings: RelaySettings, early: Early, count: F) -> Ended
where
    C: Relayed,
    S: Relayed,
    F: FnMut(Moved),
{
    let mut counted = Counted {
        relay: Relay::new(settings, early),
        count,
    };
    poll_fn(|cx| {
        let Counted { relay, count } = &mut counted;
        relay.poll(cx, client, server, count)
    })
    .await
}

/// A relay whose last bytes are told of.
struct Counted<F: FnMut(Moved)> {
    relay: Relay,
    count: F,
}

impl<F: FnMut(Moved)> Drop for Counted<F> {
    fn drop(&mut self) {
        if let Some(moved) = self.relay.rest() {
            (self.count)(moved);
        }
    }
}

/// How long a side has been silent.
struct Silence {
    since: Nanoseconds,
    timeout: Nanoseconds,
}

impl Silence {
    fn new(timeout: Duration) -> Self {
        Self {
            since: 0,
            timeout: nanoseconds(timeout),
        }
    }

    fn deadline(&self) -> Nanoseconds {
        self.since.saturating_add(self.timeout)
    }
}

/// Lets the stream's end be a reset. What it has not taken by then is lost, as it is when a reset comes without a gateway
/// between.
fn reset(stream: &impl Relayed) {
    if let Some(tcp) = stream.tcp() {
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}

/// As many as there are, or can be said.
fn nanoseconds(time: Duration) -> Nanoseconds {
    Nanoseconds::try_from(time.as_nanos()).unwrap_or(Nanoseconds::MAX)
}

/// So long after the start, or as far in the future as can be said.
fn after(start: Instant, time: Nanoseconds) -> Instant {
    start
        .checked_add(Duration::from_nanos(time))
        .unwrap_or_else(|| start + FAR)
}

/// How often what has moved is counted while it moves: often enough for whoever watches, seldom enough to cost nothing.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// How often the socket of a side that has ended is asked for an error while the other side goes on: the system's events tell only
/// of what is waited for. One system call, of half-closed connections alone.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// A time that no connection sees.
const FAR: Duration = Duration::from_secs(30 * 365 * 86400);

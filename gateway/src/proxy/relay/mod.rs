//! Bytes between a client and a server, both ways, until both have ended or one has been silent for too long.
//!
//! A connection that has nothing to say holds neither buffer nor pipe: a read borrows one from the worker's store for the
//! length of a poll, and keeps it only while the other side does not take what was read. In the common case a message
//! costs one receive and one send: tokio knows from a short read that the socket is empty and does not ask again, and the
//! send goes out without waiting for readiness. Streams that are bulk are not copied at all, see [`direction`].

mod buffer;
mod direction;
mod pipe;
mod stream;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
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

/// Relays until the end. The end of what one side says is passed on to the other, which may go on by itself. When it ends
/// otherwise than [`Ended::Finished`], the streams are left open; dropping them closes them, with a reset to the side that
/// is left when the other broke it off: what was cut short must not look whole.
///
/// `count` is told of what has moved every [`COUNT_INTERVAL`] while bytes move, and of the rest at the end, even when the
/// relay is dropped before it.
///
/// Timeouts are as HAProxy's: what is read from a side or written to it shows that the side is there.
pub async fn relay<C, S>(
    client: &mut C,
    server: &mut S,
    settings: RelaySettings,
    early: Early,
    count: impl FnMut(Moved) + Unpin,
) -> Ended
where
    C: Relayed,
    S: Relayed,
{
    let now = Instant::now();
    let mut relay = Relay {
        up: Direction::new(early.from_client),
        down: Direction::new(early.from_server),
        first: None,
        client: Silence {
            since: now,
            timeout: settings.client_timeout,
        },
        server: Silence {
            since: now,
            timeout: settings.server_timeout,
        },
        counted: now,
        count,
    };
    let mut timer = pin!(sleep_until(relay.client.deadline().min(relay.server.deadline())));
    let ended = poll_fn(|cx| relay.poll(cx, client, server, timer.as_mut())).await;
    match ended {
        Ended::Failed(Side::Client, _) => reset(server),
        Ended::Failed(Side::Server, _) => reset(client),
        Ended::Finished { .. } | Ended::TimedOut(_) => {}
    }
    ended
}

struct Relay<F: FnMut(Moved)> {
    /// From the client to the server.
    up: Direction,
    /// From the server to the client.
    down: Direction,
    /// Who ended first.
    first: Option<Side>,
    client: Silence,
    server: Silence,
    /// When it was last told what has moved.
    counted: Instant,
    count: F,
}

impl<F: FnMut(Moved)> Relay<F> {
    fn poll<C, S>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        server: &mut S,
        timer: Pin<&mut Sleep>,
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

        if up.end {
            self.first.get_or_insert(Side::Client);
        }
        if down.end {
            self.first.get_or_insert(Side::Server);
        }
        if up.is_busy || down.is_busy {
            // Others of this worker want to run too, and the sockets of all to be looked at.
            let _ = pin!(yield_now()).poll(cx);
        } else if let Poll::Ready(ended) = self.poll_end() {
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
            if now - self.counted >= COUNT_INTERVAL {
                self.count(now);
            }
        }
        self.poll_timer(cx, timer)
    }

    fn count(&mut self, now: Instant) {
        self.counted = now;
        let ((from_client, spliced_up), (from_server, spliced_down)) = (self.up.take_moved(), self.down.take_moved());
        if from_client + from_server > 0 {
            (self.count)(Moved {
                from_client,
                from_server,
                spliced: spliced_up + spliced_down,
            });
        }
    }

    fn poll_end(&mut self) -> Poll<Ended> {
        let (up, down) = (self.up.state(), self.down.state());
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
            self.count(now);
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

    fn client_deadline(&mut self) -> Option<Instant> {
        (self.up.state().awaits_bytes() || self.down.state().awaits_room()).then(|| self.client.deadline())
    }

    fn server_deadline(&mut self) -> Option<Instant> {
        (self.down.state().awaits_bytes() || self.up.state().awaits_room()).then(|| self.server.deadline())
    }
}

impl<F: FnMut(Moved)> Drop for Relay<F> {
    fn drop(&mut self) {
        self.count(self.counted);
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

/// Lets the stream's end be a reset. What it has not taken by then is lost, as it is when a reset comes without a gateway
/// between.
fn reset(stream: &impl Relayed) {
    if let Some(tcp) = stream.tcp() {
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}

/// As far in the future as a timeout says, or as can be said.
fn after(now: Instant, timeout: Duration) -> Instant {
    now.checked_add(timeout).unwrap_or_else(|| now + FAR)
}

/// How often what has moved is counted while it moves: often enough for whoever watches, seldom enough to cost nothing.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// A time that no connection sees.
const FAR: Duration = Duration::from_secs(30 * 365 * 86400);

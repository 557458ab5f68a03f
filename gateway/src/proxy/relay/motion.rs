//! What is under way in a relay: its two directions, and how long each side has been silent.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep};

use super::clock::{self, Milliseconds, Tick, milliseconds};
use super::direction::{Direction, Fault, State};
use super::{Early, Ended, Moved, RelaySettings, Relayed, Side};

/// A relay without its timer.
pub(super) struct Motion {
    /// From the client to the server.
    up: Direction,
    /// From the server to the client.
    down: Direction,
    /// Bytes of either that were spliced since it was last told.
    spliced: u32,
    client: Silence,
    server: Silence,
    /// When it was last told what has moved.
    counted: Tick,
    age: Age,
    haste: Haste,
}

/// How long a relay has lived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    /// Less than [`YOUTH`].
    Young,
    /// More, and nobody was told.
    Grown,
    /// More.
    Settled,
}

/// Whether small pieces go to the server at once, whatever else is on its way there (`TCP_NODELAY`). The first does in any case; most
/// connections of those who make one for each request have no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    /// They do, or somebody else sees to it.
    Given,
    /// Nothing has been written.
    BeforeFirst,
    /// One piece has been written.
    BeforeNext,
}

impl Haste {
    fn of(early: &Early) -> Self {
        match (early.is_unhurried, early.told, early.from_client.is_empty()) {
            (false, ..) => Self::Given,
            (true, 0, true) => Self::BeforeFirst,
            (true, ..) => Self::BeforeNext,
        }
    }

    /// So many bytes have been written since it was last asked. What was held back of them leaves now.
    fn written<S: Relayed>(&mut self, bytes: u32, server: &S) {
        match self {
            Self::Given => {}
            Self::BeforeFirst if bytes < ONE_PIECE => *self = Self::BeforeNext,
            Self::BeforeFirst | Self::BeforeNext => {
                *self = Self::Given;
                if let Some(tcp) = server.tcp() {
                    // Those of other kinds have nothing of it.
                    let _ = tcp.set_nodelay(true);
                }
            }
        }
    }
}

impl Motion {
    pub(super) fn new(settings: RelaySettings, early: Early) -> Self {
        let now = Tick::now();
        Self {
            haste: Haste::of(&early),
            up: Direction::new(early.from_client, early.told),
            down: Direction::new(early.from_server, 0),
            spliced: 0,
            client: Silence::new(settings.client_timeout, now),
            server: Silence::new(settings.server_timeout, now),
            counted: now,
            age: Age::Young,
        }
    }

    /// When it is to be looked at first, though nothing moves.
    pub(super) fn first_look(&self) -> Duration {
        clock::duration(self.client.timeout.min(self.server.timeout).min(YOUTH))
    }

    /// Whether it has just proved to be one that lasts: true once.
    pub(super) fn take_grown(&mut self) -> bool {
        let grown = self.age == Age::Grown;
        if grown {
            self.age = Age::Settled;
        }
        grown
    }

    /// What has moved since it was last told; none when nothing has.
    pub(super) fn rest(&mut self) -> Option<Moved> {
        let (from_client, from_server) = (self.up.take_moved(), self.down.take_moved());
        (from_client + from_server > 0).then_some(Moved {
            from_client,
            from_server,
            spliced: u64::from(std::mem::take(&mut self.spliced)),
        })
    }

    /// Moves what can be moved, until the end.
    pub(super) fn poll<C, S>(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        client: &mut C,
        server: &mut S,
        mut count: impl FnMut(Moved),
    ) -> Poll<Ended>
    where
        C: Relayed,
        S: Relayed,
    {
        let mut buffer = None;
        let before = self.up.moved();
        let up = self.up.poll(cx, client, server, &mut buffer);
        if up.to_stirred {
            self.haste.written(self.up.moved() - before, server);
        }
        let down = self.down.poll(cx, server, client, &mut buffer);
        drop(buffer);
        self.pass_ends(cx, client, server);

        if up.end && !self.down.is_first {
            self.up.is_first = true;
        }
        if down.end && !self.up.is_first {
            self.down.is_first = true;
        }
        if up.end || down.end {
            // From now on nobody reads there, and nobody is told of a reset.
            let patience = clock::duration(self.client.timeout.min(self.server.timeout));
            timer.as_mut().reset(Instant::now() + patience.min(LOOK_INTERVAL));
        }
        self.spliced = self.spliced.saturating_add(up.spliced + down.spliced);
        if up.is_busy || down.is_busy {
            // Others of this worker want to run too, and the sockets of all to be looked at.
            let _ = pin!(yield_now()).poll(cx);
        } else if let Poll::Ready(ended) = self.poll_end() {
            return Poll::Ready(ended);
        }
        let (client_stirred, server_stirred) = (up.from_stirred || down.to_stirred, down.from_stirred || up.to_stirred);
        if client_stirred || server_stirred {
            let now = Tick::now();
            if client_stirred {
                self.client.since = now;
            }
            if server_stirred {
                self.server.since = now;
            }
            if now.since(self.counted) >= COUNT_INTERVAL || self.has_moved_much() {
                self.count(now, &mut count);
            }
        }
        self.poll_timer(cx, timer, &*client, &*server, &mut count)
    }

    /// Passes on the ends that have been read. It is done when both directions have been looked at: where both have ended,
    /// closing the streams says it, in one system call instead of two.
    fn pass_ends<C, S>(&mut self, cx: &mut Context<'_>, client: &mut C, server: &mut S)
    where
        C: Relayed,
        S: Relayed,
    {
        if self.up.has_ended() && self.down.has_ended() && client.bare().is_some() && server.bare().is_some() {
            self.up.close();
            self.down.close();
            return;
        }
        let is_last = matches!(self.down.state(), State::Done);
        self.up.pass_end(cx, server, is_last);
        let is_last = matches!(self.up.state(), State::Done);
        self.down.pass_end(cx, client, is_last);
    }

    /// Whether more has moved than is left uncounted, however short the time was.
    fn has_moved_much(&self) -> bool {
        self.up.moved().max(self.down.moved()) >= MOST_UNCOUNTED
    }

    fn count(&mut self, now: Tick, count: &mut impl FnMut(Moved)) {
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
        mut timer: Pin<&mut Sleep>,
        client: &impl Relayed,
        server: &impl Relayed,
        count: &mut impl FnMut(Moved),
    ) -> Poll<Ended> {
        while timer.as_mut().poll(cx).is_ready() {
            let now = Tick::now();
            if self.age == Age::Young {
                self.age = Age::Grown;
            } else {
                self.count(now, count);
            }
            if let Some(ended) = self.broken(client, server) {
                return Poll::Ready(ended);
            }
            let (client, server) = (self.client_left(now), self.server_left(now));
            if client == Some(0) {
                return Poll::Ready(Ended::TimedOut(Side::Client));
            }
            if server == Some(0) {
                return Poll::Ready(Ended::TimedOut(Side::Server));
            }
            // A side that nothing is awaited of now may be awaited later: it is looked at again.
            let mut again = self.client.timeout.min(self.server.timeout);
            if self.is_half_closed() {
                again = again.min(milliseconds(LOOK_INTERVAL));
            }
            let next = [client, server].into_iter().flatten().fold(again, Milliseconds::min);
            timer.as_mut().reset(Instant::now() + clock::duration(next));
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

    /// The time that the client has left; none while nothing is awaited of it.
    fn client_left(&mut self, now: Tick) -> Option<Milliseconds> {
        (self.up.state().awaits_bytes() || self.down.state().awaits_room()).then(|| self.client.left(now))
    }

    /// The time that the server has left; none while nothing is awaited of it.
    fn server_left(&mut self, now: Tick) -> Option<Milliseconds> {
        (self.down.state().awaits_bytes() || self.up.state().awaits_room()).then(|| self.server.left(now))
    }
}

/// How long a side has been silent.
struct Silence {
    since: Tick,
    timeout: Milliseconds,
}

impl Silence {
    fn new(timeout: Duration, now: Tick) -> Self {
        Self {
            since: now,
            timeout: milliseconds(timeout),
        }
    }

    /// The time that is left before it has been silent for too long.
    fn left(&self, now: Tick) -> Milliseconds {
        self.timeout.saturating_sub(now.since(self.since))
    }
}

/// How often what has moved is counted while it moves: often enough for whoever watches, seldom enough to cost nothing.
pub(super) const COUNT_INTERVAL: Milliseconds = 1000;

/// From when on a connection is one that lasts. The shortest keep-alive begins after as long, and most connections of those who
/// make one for each request are over by then.
const YOUTH: Milliseconds = 1000;

/// How often the socket of a side that has ended is asked for an error while the other side goes on: the system's events tell only
/// of what is waited for. One system call, of half-closed connections alone.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// A poll that has moved fewer bytes than this has written one piece: what filled a read would have been more.
const ONE_PIECE: u32 = 16 * 1024;

/// Bytes of a direction that are left uncounted at most: no second of any network has as many, and they are counted in four
/// bytes.
const MOST_UNCOUNTED: u32 = 1 << 30;

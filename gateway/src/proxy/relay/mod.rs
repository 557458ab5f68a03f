//! Bytes between a client and a server, both ways, until both have ended or one has been silent for too long.
//!
//! A connection that has nothing to say holds neither buffer nor pipe: a read borrows one from the worker's store for the
//! length of a poll, and keeps it only while the other side does not take what was read. In the common case a message
//! costs one receive and one send: tokio knows from a short read that the socket is empty and does not ask again, and the
//! send goes out without waiting for readiness. Streams that are bulk are not copied at all, see `direction`.

mod buffer;
mod clock;
mod direction;
mod motion;
mod pipe;
mod stream;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use pin_project_lite::pin_project;
use socket2::SockRef;
use tokio::time::{Sleep, sleep};

use crate::backend;
use crate::config::{ClientTimeouts, ServerTimeouts};
use crate::telemetry::access::{Cause, Phase, Termination};
use motion::Motion;
pub(super) use pipe::{MOST_HELD, Pipe};
pub(crate) use pipe::{MOST_PIPES, allow_pipes};
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
    /// Bytes of the client's before these, which the server has been told.
    pub told: usize,
    /// Nobody has seen to it yet that small pieces go to the server at once.
    pub is_unhurried: bool,
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
        backend::Ended::Relieved => (Cause::BackupRelieved, "backup-relieved"),
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

pin_project! {
    /// A relay under way: what there is of it beside the two streams, which whoever polls it lends. It is small, because there
    /// is one for each connection, and most of them have nothing to say most of the time.
    ///
    /// The end of what one side says is passed on to the other, which may go on by itself. When it ends otherwise than
    /// [`Ended::Finished`], the streams are left open; dropping them closes them, with a reset to the side that is left when the
    /// other broke it off: what was cut short must not look whole.
    ///
    /// Timeouts are as HAProxy's: what is read from a side or written to it shows that the side is there.
    pub struct Relay {
        motion: Motion,
        // In here and not boxed: the connection's task has room for it.
        #[pin]
        timer: Sleep,
    }
}

impl Relay {
    /// A relay that begins now, with what has come already.
    pub fn new(settings: RelaySettings, early: Early) -> Self {
        let motion = Motion::new(settings, early);
        Self {
            timer: sleep(motion.first_look()),
            motion,
        }
    }

    /// Moves what can be moved, until the end.
    ///
    /// `count` is told of what has moved every `COUNT_INTERVAL` while bytes move. What has moved since then is left for
    /// [`rest`](Self::rest).
    pub fn poll<C, S>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        client: &mut C,
        server: &mut S,
        count: impl FnMut(Moved),
    ) -> Poll<Ended>
    where
        C: Relayed,
        S: Relayed,
    {
        let this = self.project();
        let ended = ready!(this.motion.poll(cx, this.timer, client, server, count));
        match ended {
            Ended::Failed(Side::Client, _) => reset(server),
            Ended::Failed(Side::Server, _) => reset(client),
            Ended::Finished { .. } | Ended::TimedOut(_) => {}
        }
        Poll::Ready(ended)
    }

    /// Whether it has just proved to be one that lasts, rather than a connection for a single request: true once, after a
    /// second.
    pub fn take_grown(self: Pin<&mut Self>) -> bool {
        self.project().motion.take_grown()
    }

    /// What has moved since it was last told; none when nothing has.
    pub fn rest(self: Pin<&mut Self>) -> Option<Moved> {
        self.project().motion.rest()
    }
}

/// Relays until the end, as [`Relay`] does. `count` is told of the rest at the end, even when this is dropped before it.
pub async fn relay<C, S, F>(client: &mut C, server: &mut S, settings: RelaySettings, early: Early, count: F) -> Ended
where
    C: Relayed,
    S: Relayed,
    F: FnMut(Moved),
{
    let mut counted = pin!(Counted {
        relay: Relay::new(settings, early),
        count,
    });
    poll_fn(|cx| {
        let counted = counted.as_mut().project();
        counted.relay.poll(cx, client, server, counted.count)
    })
    .await
}

pin_project! {
    /// A relay whose last bytes are told of.
    struct Counted<F: FnMut(Moved)> {
        #[pin]
        relay: Relay,
        count: F,
    }

    impl<F: FnMut(Moved)> PinnedDrop for Counted<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(moved) = this.relay.rest() {
                (this.count)(moved);
            }
        }
    }
}

/// Lets the stream's end be a reset. What it has not taken by then is lost, as it is when a reset comes without a gateway
/// between.
fn reset(stream: &impl Relayed) {
    if let Some(tcp) = stream.tcp() {
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}

//! The attempts of one request or connection to reach a server: whether there is another, where it goes, and how long it
//! waits.

use std::sync::Arc;
use std::time::Duration;

use super::local::Local;
use crate::backend::{Backend, ConnectError, PickKey, QueueError, Resending, Session, Take, Tried};
use crate::config::Redispatch;

/// What has been tried so far.
pub struct Attempts {
    backend: Arc<Backend>,
    key: PickKey,
    tried: Tried,
    failures: usize,
    /// The server that has no room, and is waited for.
    full: Option<usize>,
    /// The one that was tried last.
    last: Option<usize>,
    /// It is the first request of a client's connection, where that matters.
    pub is_first_request: bool,
    /// How often it was sent again because a server of HTTP/2 had not looked at it, in all attempts.
    replays: usize,
    /// That it counts as one that is sent again, until it is over.
    resending: Option<Resending>,
    /// A server that is tried again, with the place that it was tried with. Boxed: few are.
    again: Option<Box<(usize, Session)>>,
}

impl Attempts {
    /// Nothing has been tried.
    pub fn new(backend: &Arc<Backend>, key: PickKey) -> Self {
        Self {
            backend: Arc::clone(backend),
            key,
            tried: Tried::default(),
            failures: 0,
            full: None,
            last: None,
            is_first_request: false,
            replays: 0,
            resending: None,
            again: None,
        }
    }

    /// The server of the next attempt.
    pub fn take(&mut self, local: &Local) -> Take {
        let taken = match self.again.take() {
            Some(again) => Take::Server(again.0, again.1),
            None => self.take_any(local),
        };
        if let Take::Server(server, _) = &taken {
            self.last = Some(*server);
        }
        taken
    }

    /// The server that the request belongs to, the first time; then the one whose turn it is.
    fn take_any(&mut self, local: &Local) -> Take {
        if let Some(wanted) = self.key.wanted.take() {
            match self.backend.take_wanted(wanted) {
                Take::Nothing => {}
                Take::Full => {
                    self.full = Some(wanted);
                    return Take::Full;
                }
                taken @ Take::Server(..) => return taken,
            }
        }
        local
            .balancer(&self.backend)
            .take(&self.backend, &self.key, &self.tried)
    }

    /// The next attempt is made at the same server, at the place that is held there.
    pub fn stay(&mut self, server: usize, session: Session) {
        self.again = Some(Box::new((server, session)));
    }

    /// Waits for a server to have room, after [`Take::Full`]. Who belongs to one waits for that; when the wait was in vain, and
    /// retries may go elsewhere, another will do.
    pub async fn wait(&mut self, local: &Local) -> Result<(usize, Session), QueueError> {
        let (server, session) = self.wait_for_any(local).await?;
        self.last = Some(server);
        Ok((server, session))
    }

    async fn wait_for_any(&mut self, local: &Local) -> Result<(usize, Session), QueueError> {
        let Some(wanted) = self.full.take() else {
            return self.backend.wait(self.tried, None).await;
        };
        let error = match self.backend.wait(self.tried, Some(wanted)).await {
            Ok(place) => return Ok(place),
            Err(error) => error,
        };
        if self.backend.retries.redispatch == Redispatch::Never {
            return Err(error);
        }
        self.tried.add(wanted);
        match (self.take_any(local), error) {
            (Take::Server(server, session), _) => Ok((server, session)),
            // It has not waited yet.
            (Take::Full, QueueError::Full) => self.backend.wait(self.tried, None).await,
            (Take::Full | Take::Nothing, error) => Err(error),
        }
    }

    /// The server could not be connected to. Answers how long to wait before the next attempt; none when there is none.
    pub fn failed(&mut self, server: usize, session: Session, error: &ConnectError) -> Option<Duration> {
        let policy = &self.backend.retries;
        self.failures += 1;
        if self.failures > policy.count || !policy.on.conn_failure {
            return None;
        }
        let pause = match error {
            // It has been waited for.
            ConnectError::Timeout(_) | ConnectError::TlsTimeout(_) => Duration::ZERO,
            _ => PAUSE.min(self.backend.timeouts.connect),
        };
        if !self.goes_elsewhere() {
            self.stay(server, session);
            return Some(pause);
        }
        self.tried.add(server);
        if self.backend.has_usable(&self.tried) {
            return Some(Duration::ZERO);
        }
        // There is no other: those that were tried may have come to themselves after a while.
        self.tried.clear();
        Some(pause)
    }

    /// A server of HTTP/2 has not looked at the request: it has refused it, or its connection ends. Answers how long to wait before it is sent
    /// again; none when it is not.
    ///
    /// The first time it may always be: a connection that ends is no sign of trouble. Who refuses is given a moment even then. After that
    /// it is as with bad answers.
    pub fn unseen(&mut self, is_refused: bool) -> Option<Duration> {
        if self.replays >= self.backend.retries.count.max(1) {
            return None;
        }
        if self.replays > 0 && !self.may_resend() {
            return None;
        }
        let is_free = self.replays == 0 && !is_refused;
        self.replays += 1;
        Some(match is_free {
            true => Duration::ZERO,
            false => backoff(self.replays),
        })
    }

    /// Where the attempt is made behind one that a server of HTTP/2 has not looked at, [after this pause](Self::unseen). The first time
    /// at the same server, as it may have been nothing but its connection that ended; then where `redispatch` says, and at another at
    /// once. Answers how long to wait.
    pub fn replay(&mut self, server: usize, session: Session, pause: Duration) -> Duration {
        let policy = &self.backend.retries;
        let goes_elsewhere = match policy.redispatch {
            Redispatch::Each => self.replays > 1,
            Redispatch::Last => self.replays > 1 && self.replays == policy.count,
            Redispatch::Never => false,
        };
        if goes_elsewhere {
            self.tried.add(server);
            if self.backend.has_usable(&self.tried) {
                return Duration::ZERO;
            }
            self.tried.clear();
        }
        self.stay(server, session);
        pause
    }

    /// Whether it was sent again because a server of HTTP/2 had not looked at it, or its connection broke.
    pub fn is_replay(&self) -> bool {
        self.replays > 0
    }

    /// Whether the backend's budget has room for it among those that are sent again. It is one of them from then on, however often it is
    /// sent.
    pub fn may_resend(&mut self) -> bool {
        if self.resending.is_none() {
            self.resending = Resending::begin(&self.backend.retries.budget, &self.backend.metrics);
        }
        self.resending.is_some()
    }

    /// Whether there may be another attempt.
    pub fn has_more(&self) -> bool {
        self.failures < self.backend.retries.count
    }

    /// The server was reached, and its answer will not do. Answers how long to wait before the next attempt.
    pub fn answered_badly(&mut self) -> Duration {
        self.failures += 1;
        let elsewhere = self.goes_elsewhere();
        if let Some(last) = self.last.take() {
            if elsewhere {
                self.tried.add(last);
                if self.backend.has_usable(&self.tried) {
                    return Duration::ZERO;
                }
                self.tried.clear();
            } else {
                self.key.wanted = Some(last);
            }
        }
        backoff(self.failures)
    }

    /// Whether the attempt after so many failures is made at another server.
    fn goes_elsewhere(&self) -> bool {
        match self.backend.retries.redispatch {
            Redispatch::Each => true,
            Redispatch::Last => self.failures == self.backend.retries.count,
            Redispatch::Never => false,
        }
    }
}

/// How long to wait before the same server is asked again, so many times after its first answer.
fn backoff(times: usize) -> Duration {
    let doubled = u32::try_from(times.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_BACKOFF * 2_u32.pow(doubled.min(MOST_DOUBLINGS))
}

/// Before the same server is asked again that has just answered badly: it is there, and may come to itself soon. Twice as long
/// each time: Envoy's first interval.
const FIRST_BACKOFF: Duration = Duration::from_millis(25);

/// Up to 200 ms.
const MOST_DOUBLINGS: u32 = 3;

/// Before the same server is tried again, unless `timeout connect=` is shorter: HAProxy's turn-around. A server that restarts
/// is there again after about as long.
const PAUSE: Duration = Duration::from_secs(1);

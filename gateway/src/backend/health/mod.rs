//! Health checks: each server is asked at its interval, and goes down or up after so many answers in a row.

mod http;
mod state;
mod tcp;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Backend, Server};
use crate::config::{Check, CheckKind};

use state::{Health, Transition};

/// The checks of a set of backends, running until this is dropped.
#[derive(Debug)]
#[must_use = "the checks stop when this is dropped"]
pub struct Checks {
    /// Dropping it ends the tasks.
    _tasks: JoinSet<()>,
}

impl Checks {
    /// Starts the checks of those backends that have one. Has to be called inside the control runtime.
    ///
    /// Servers are up, or as a previous configuration's checks left them, until their checks say otherwise. First
    /// checks are spread over the interval, and every interval varies a little, so that checks never come in bursts.
    pub fn start(backends: &[Arc<Backend>]) -> Self {
        let mut tasks = JoinSet::new();
        let checked: Vec<_> = backends
            .iter()
            .filter_map(|backend| Some((backend, backend.check.as_ref()?)))
            .flat_map(|(backend, check)| backend.servers.iter().map(move |server| (backend, server, check)))
            .collect();
        let total = checked.len();
        for (position, (backend, server, check)) in checked.into_iter().enumerate() {
            let checker = Checker {
                backend: Arc::clone(&backend.name),
                server: Arc::clone(server),
                check: check.clone(),
                health: Health::new(server.is_up(), check.rise, check.fall),
            };
            tasks.spawn(checker.run(first_delay(check.interval, position, total), position as u64));
        }
        Self { _tasks: tasks }
    }
}

/// The checks of one server.
struct Checker {
    backend: Arc<str>,
    server: Arc<Server>,
    check: Check,
    health: Health,
}

impl Checker {
    async fn run(mut self, delay: Duration, seed: u64) {
        let mut random = Random::new(seed);
        let mut next = Instant::now() + delay;
        loop {
            sleep_until(next).await;
            let started = Instant::now();
            let result = self.once(started).await;
            self.observe(result);
            // From the start of this check, not from when it was due: after a pause of the machine, checks that were
            // missed are not made up for.
            next = started + jittered(self.check.interval, random.next());
        }
    }

    async fn once(&self, started: Instant) -> Result<(), CheckError> {
        let address = self.server.address;
        let attempt = async {
            match &self.check.kind {
                CheckKind::Tcp => tcp::check(address).await,
                CheckKind::Http(check) => http::check(address, check).await,
            }
        };
        match timeout_at(started + self.check.timeout, attempt).await {
            Ok(result) => result,
            Err(_) => Err(CheckError::Timeout(self.check.timeout)),
        }
    }

    fn observe(&mut self, result: Result<(), CheckError>) {
        self.server.metrics.checked(result.is_ok());
        let Some(transition) = self.health.observe(result.is_ok()) else {
            return;
        };
        let (backend, server) = (&*self.backend, &*self.server.name);
        match (transition, result) {
            (Transition::Down, Err(reason)) => {
                self.server.metrics.went(false);
                tracing::warn!(backend, server, %reason, checks = self.check.fall, "server is down");
            }
            (Transition::Down, Ok(())) => self.server.metrics.went(false),
            (Transition::Up, _) => {
                self.server.metrics.went(true);
                tracing::info!(backend, server, checks = self.check.rise, "server is up");
            }
        }
    }
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("no HTTP answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the check's request cannot be made: {0}")]
    Request(#[from] ::http::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("the body does not contain {0:?}")]
    Body(String),
}

/// Spreads the first checks of all servers evenly over the interval.
fn first_delay(interval: Duration, position: usize, total: usize) -> Duration {
    let total = u32::try_from(total.max(1)).unwrap_or(u32::MAX);
    let position = u32::try_from(position).unwrap_or(u32::MAX).min(total);
    // Divides first: an interval may be as long as a duration can be.
    interval / total * position
}

/// The interval, more or less a twentieth.
fn jittered(interval: Duration, random: u64) -> Duration {
    let span = interval / JITTER_PART * 2;
    let thousandths = u32::try_from(random % 1001).unwrap_or(0);
    interval - interval / JITTER_PART + span / 1000 * thousandths
}

/// Numbers for jitter (SplitMix64): no secrets hang on them.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Enough to drift apart what happens to coincide, too little to notice.
const JITTER_PART: u32 = 20;

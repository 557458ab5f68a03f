//! What is known and ordered of a server: whether it is up, what an operator made of it, its weight, and how far it has
//! warmed up. It is kept with the server's counts, so that a reload that keeps the server keeps it.
//!
//! Changes are rare and take a lock. What every pick reads is the one number that comes of them: the server's share.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What an operator made of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin {
    /// It is used as its health allows.
    Ready,
    /// It keeps what it has under way and gets no new work.
    Drain,
    /// It is out of service: no new work, and no checks.
    Maintenance,
}

/// A server's state. On a cache line of its own: every pick of every worker reads it.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct ServerState {
    share: AtomicU32,
    up: AtomicBool,
    inputs: Mutex<Inputs>,
}

/// What the share is made of.
#[derive(Debug)]
struct Inputs {
    admin: Admin,
    configured: u16,
    weight: u16,
    slow_start: Option<Duration>,
    warming: Option<Warming>,
}

/// A server that came back a while ago.
#[derive(Debug, Clone, Copy)]
struct Warming {
    since: Instant,
    over: Duration,
}

impl ServerState {
    /// Up and ready, with no weight yet.
    pub(super) fn new() -> Self {
        Self {
            share: AtomicU32::new(0),
            up: AtomicBool::new(true),
            inputs: Mutex::new(Inputs {
                admin: Admin::Ready,
                configured: 0,
                weight: 0,
                slow_start: None,
                warming: None,
            }),
        }
    }

    /// Its part of new work, beside the other servers' shares: [`SHARE_OF_ONE`] for each unit of its weight, less while it
    /// warms up, and 0 when it may get none.
    pub(super) fn share(&self) -> u32 {
        self.share.load(Ordering::Relaxed)
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub(super) fn admin(&self) -> Admin {
        self.inputs().admin
    }

    /// The weight that it has now, and the one that the configuration gives it.
    pub(super) fn weights(&self) -> (u16, u16) {
        let inputs = self.inputs();
        (inputs.weight, inputs.configured)
    }

    /// Takes what a configuration says. A weight that an operator has set stays when the configuration's is as it was.
    pub(super) fn configure(&self, weight: u16, slow_start: Option<Duration>) {
        self.change(|inputs, _| {
            if inputs.configured != weight {
                inputs.configured = weight;
                inputs.weight = weight;
            }
            inputs.slow_start = slow_start;
        });
    }

    /// Its health is now this. Answers whether it was another.
    pub(super) fn set_up(&self, up: bool) -> bool {
        let mut changed = false;
        self.change(|_, is_up| {
            changed = *is_up != up;
            *is_up = up;
        });
        changed
    }

    pub(super) fn set_weight(&self, weight: u16) {
        self.change(|inputs, _| inputs.weight = weight);
    }

    pub(super) fn set_admin(&self, admin: Admin) {
        self.change(|inputs, _| inputs.admin = admin);
    }

    /// Lets a server that warms up have what is its due by now. False when there is nothing to wait for.
    pub(super) fn warm(&self) -> bool {
        if self.inputs().warming.is_none() {
            return false;
        }
        self.change(|inputs, _| {
            if inputs
                .warming
                .is_some_and(|warming| warming.since.elapsed() >= warming.over)
            {
                inputs.warming = None;
            }
        });
        self.inputs().warming.is_some()
    }

    fn change(&self, change: impl FnOnce(&mut Inputs, &mut bool)) {
        let mut inputs = self.inputs();
        let was_up = self.is_up();
        let was_in_service = was_up && inputs.admin != Admin::Maintenance;
        let mut up = was_up;
        change(&mut inputs, &mut up);
        let in_service = up && inputs.admin != Admin::Maintenance;
        match (was_in_service, in_service) {
            (false, true) => {
                inputs.warming = inputs.slow_start.map(|over| Warming {
                    since: Instant::now(),
                    over,
                });
            }
            (_, false) => inputs.warming = None,
            (true, true) => {}
        }
        self.up.store(up, Ordering::Relaxed);
        let share = if up { inputs.share() } else { 0 };
        self.share.store(share, Ordering::Relaxed);
    }

    fn inputs(&self) -> MutexGuard<'_, Inputs> {
        // Nothing panics between two changes.
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inputs {
    /// The share of a server that is up.
    fn share(&self) -> u32 {
        if self.admin != Admin::Ready || self.weight == 0 {
            return 0;
        }
        let full = u32::from(self.weight) * SHARE_OF_ONE;
        let Some(warming) = self.warming else { return full };
        let part = warming.since.elapsed().as_secs_f64() / warming.over.as_secs_f64().max(f64::MIN_POSITIVE);
        // Never nothing: a server that is up has to get its first request to be found well.
        ((f64::from(full) * part.clamp(FIRST_PART, 1.0)) as u32).clamp(1, full)
    }
}

impl Admin {
    /// Its word, as it is written and shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maint",
        }
    }
}

/// The share of a server of weight 1: a slow start has as many steps.
pub(super) const SHARE_OF_ONE: u32 = 256;

/// What a server gets at once when it comes back, with a slow start: HAProxy's first step, a twentieth.
const FIRST_PART: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_back_warms_up() {
        let state = ServerState::new();
        state.configure(2, Some(Duration::from_secs(10)));
        assert_eq!(state.share(), 512, "there from the start, it is warm");
        assert!(!state.warm());
        state.set_up(false);
        assert_eq!(state.share(), 0);
        state.set_up(true);
        assert_eq!(state.share(), 25);
        assert!(state.warm());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(state.warm());
        assert_eq!(state.share(), 256);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(!state.warm());
        assert_eq!(state.share(), 512);
    }

    #[test]
    fn an_operators_weight_outlives_a_reload_that_keeps_the_configured_one() {
        let state = ServerState::new();
        state.configure(2, None);
        state.set_weight(7);
        state.configure(2, None);
        assert_eq!(state.weights(), (7, 2));
        state.configure(3, None);
        assert_eq!(state.weights(), (3, 3));
    }

    #[test]
    fn what_is_drained_or_in_maintenance_gets_nothing_new() {
        let state = ServerState::new();
        state.configure(1, None);
        for admin in [Admin::Drain, Admin::Maintenance] {
            state.set_admin(admin);
            assert_eq!(state.share(), 0);
            state.set_up(false);
            state.set_up(true);
            assert_eq!(state.share(), 0);
        }
        state.set_admin(Admin::Ready);
        assert_eq!(state.share(), SHARE_OF_ONE);
    }
}

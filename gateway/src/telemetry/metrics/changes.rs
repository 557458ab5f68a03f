//! When a server, or a backend with its last one, went up or down, and for how long it has been down.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::lock;

/// Changes of a server's health. They are rare and take a lock.
#[derive(Debug)]
pub(super) struct Changes(Mutex<Changed>);

#[derive(Debug, Clone, Copy)]
struct Changed {
    since: Instant,
    is_up: bool,
    /// Before that.
    down: Duration,
}

impl Changes {
    /// Up from now on.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Changed {
            since: Instant::now(),
            is_up: true,
            down: Duration::ZERO,
        }))
    }

    /// It is up or down now. Answers whether it was up before.
    pub(super) fn turned(&self, is_up: bool) -> bool {
        let mut changed = lock(&self.0);
        if !changed.is_up {
            let down = changed.since.elapsed();
            changed.down += down;
        }
        changed.since = Instant::now();
        std::mem::replace(&mut changed.is_up, is_up)
    }

    /// Since when it is as it is, and how long it has been down in all.
    pub(super) fn get(&self) -> (Duration, Duration) {
        let changed = *lock(&self.0);
        let since = changed.since.elapsed();
        (since, changed.down + if changed.is_up { Duration::ZERO } else { since })
    }
}

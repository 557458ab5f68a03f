//! What a server's checks, or the questions to its agent, hand on to those of the next configuration: when the next is due,
//! and how far they have counted.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// One kind of rounds that are made to a server. Written once a round: a lock is cheap enough.
#[derive(Debug, Default)]
pub struct Rounds(Mutex<Round>);

/// How far they have got.
#[derive(Debug, Clone, Copy, Default)]
pub struct Round {
    /// When the next begins; in the past while it is under way. None before anything was planned.
    pub due: Option<Instant>,
    /// Results in a row that speak against what is believed of the server.
    pub against: u32,
}

impl Rounds {
    /// How far they have got.
    pub fn get(&self) -> Round {
        *self.lock()
    }

    /// Plans the next.
    pub fn plan(&self, due: Instant, against: u32) {
        *self.lock() = Round {
            due: Some(due),
            against,
        };
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        // Nothing panics between two writes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

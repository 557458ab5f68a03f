//! The time as components are told it: the machine's own; or, in a test of a plugin, one that is moved on by hand.
//!
//! What is kept for components goes by it: token buckets and pairs with a time to live. What the host needs to keep order does
//! not: deadlines of calls, budgets of CPU time and of log lines, quarantine, and the age of instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock. Copies of one tell the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    /// The machine's, and when it was first asked.
    Machine(Instant),
    Hand(Arc<Hand>),
}

/// A clock that stands still until it is moved on.
#[derive(Debug)]
struct Hand {
    /// Since 1970, when it began.
    began: Duration,
    /// Nanoseconds since then.
    gone: AtomicU64,
}

impl Clock {
    /// The machine's.
    #[must_use]
    pub fn machine() -> Self {
        Self(Source::Machine(Instant::now()))
    }

    /// One that stands still, so long after the beginning of 1970.
    #[must_use]
    pub fn standing_at(began: Duration) -> Self {
        let gone = AtomicU64::new(0);
        Self(Source::Hand(Arc::new(Hand { began, gone })))
    }

    /// Moves one on that stands still. The machine's own goes by itself.
    pub fn forward(&self, by: Duration) {
        if let Source::Hand(hand) = &self.0 {
            let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            let sum = |gone: u64| Some(gone.saturating_add(by));
            // The closure always has a sum.
            let _ = hand.gone.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
        }
    }

    /// How long it has gone. Never goes back.
    #[inline]
    pub(super) fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::Machine(start) => start.elapsed(),
            Source::Hand(hand) => Duration::from_nanos(hand.gone.load(Ordering::Relaxed)),
        }
    }

    /// The time of day, since the beginning of 1970.
    pub(super) fn since_1970(&self) -> Duration {
        match &self.0 {
            Source::Machine(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Source::Hand(hand) => hand.began.saturating_add(self.elapsed()),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::machine()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stands_still_goes_by_hand_alone() {
        let clock = Clock::standing_at(Duration::from_secs(1_000));
        let copy = clock.clone();
        assert_eq!(
            (clock.elapsed(), clock.since_1970()),
            (Duration::ZERO, Duration::from_secs(1_000))
        );
        clock.forward(Duration::from_millis(1_500));
        assert_eq!(copy.elapsed(), Duration::from_millis(1_500));
        assert_eq!(copy.since_1970(), Duration::from_millis(1_001_500));
        clock.forward(Duration::MAX);
        clock.forward(Duration::MAX);
        assert_eq!(copy.elapsed(), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn the_machines_clock_is_not_moved_by_hand() {
        let clock = Clock::machine();
        clock.forward(Duration::from_secs(86_400));
        assert!(clock.elapsed() < Duration::from_secs(3_600));
    }
}

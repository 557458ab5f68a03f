//! Lines about what may happen at every connection: one in a while, with the number of those that were left out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When a line of one kind may be written next.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    /// Milliseconds from the start to the next line; 0 at first.
    next: AtomicU64,
    left_out: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            next: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }
}

impl Pace {
    /// Whether a line may be written now; if so, how many were not since the last.
    pub fn take(&self) -> Option<u64> {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Option<u64> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = millis(now.saturating_duration_since(self.start));
        let next = self.next.load(Ordering::Relaxed);
        let later = now.saturating_add(millis(PAUSE));
        let taken = now >= next
            && self
                .next
                .compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if taken {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// Between two lines of one kind: seldom enough that a log is not full of them, and soon enough to be seen when it matters.
const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_written_in_ten_seconds() {
        let pace = Pace::default();
        let start = pace.start;
        let at = |seconds| pace.take_at(start + Duration::from_secs(seconds));
        let taken = [at(0), at(0), at(9), at(10), at(11), at(25)];
        assert_eq!(taken, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}

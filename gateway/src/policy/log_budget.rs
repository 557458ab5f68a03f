//! How many lines of one kind are written into the log about one attachment, over all workers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::config::LogRate;

/// Bounds one kind of log lines of one attachment, over all workers.
pub(crate) struct LogBudget {
    start: Instant,
    /// Nanoseconds to a line in the long run.
    interval: u64,
    /// Lines at once.
    burst: u64,
    /// The time in nanoseconds from `start` at which the whole burst is there again.
    full_at: AtomicU64,
    dropped: AtomicU64,
}

impl LogBudget {
    pub(crate) fn new(rate: LogRate) -> Self {
        Self {
            start: Instant::now(),
            interval: (u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX) / rate.lines.max(1)).max(1),
            burst: rate.burst,
            full_at: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written; if so, how many were dropped since the last one.
    pub(crate) fn take(&self) -> Option<u64> {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let taken = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let next = full_at.max(now).saturating_add(self.interval);
                (next - now <= self.burst.saturating_mul(self.interval)).then_some(next)
            });
        if taken.is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.dropped.swap(0, Ordering::Relaxed))
    }

    /// The line that was taken is not written after all, and so many before it have not been told of.
    pub(crate) fn leave_out(&self, dropped: u64) {
        self.dropped.fetch_add(dropped.saturating_add(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_beyond_the_burst_are_counted_not_written() {
        let budget = LogBudget::new(LogRate::DEFAULT);
        let written = (0..1000).filter(|_| budget.take().is_some()).count() as u64;
        assert!((100..200).contains(&written), "{written}");
        assert_eq!(budget.dropped.load(Ordering::Relaxed), 1000 - written);
    }
}

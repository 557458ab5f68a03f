//! CPU time that is used and comes back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::Millicores;

/// CPU time as it comes back: a token bucket whose tokens are nanoseconds.
#[derive(Debug)]
pub(super) struct CpuTime {
    start: Instant,
    /// When, in nanoseconds from `start`, all that was used will have come back.
    full_at: AtomicU64,
}

impl CpuTime {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            full_at: AtomicU64::new(0),
        }
    }

    /// Whether there is some for a call that begins now.
    pub(super) fn has_some(&self, now: Instant) -> bool {
        self.full_at.load(Ordering::Relaxed) <= self.at(now) + nanos(CPU_AHEAD)
    }

    /// So much was used of what comes back at so many thousandths of a core.
    pub(super) fn charge(&self, now: Instant, used: Duration, cores: Millicores) {
        let now = self.at(now);
        let comes_back_in = nanos(used).saturating_mul(1000) / u64::from(cores.0.max(1));
        // Always some: the closure answers `Some`.
        let _ = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                Some(full_at.max(now).saturating_add(comes_back_in))
            });
    }

    fn at(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.start))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How much of what comes back may be used ahead: a burst of requests after a pause meets no refusal, and whoever uses more
/// than his share for half a second does.
const CPU_AHEAD: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn in_the_long_run_no_more_is_used_than_comes_back(
            cores in 1_u32..4000,
            calls in proptest::collection::vec((0_u64..2_000_000, 0_u64..50_000_000), 1..200),
        ) {
            let rate = CpuTime::new();
            let (mut now, mut used, mut last) = (rate.start, 0, 0);
            for (pause, call) in calls {
                now += Duration::from_nanos(pause);
                if rate.has_some(now) {
                    rate.charge(now, Duration::from_nanos(call), Millicores(cores));
                    used += call;
                    last = call;
                }
            }
            // What came back, what may be used ahead, and the last call, whose length nobody knew.
            let time = nanos(now - rate.start) + nanos(CPU_AHEAD);
            let most = u128::from(time) * u128::from(cores) / 1000 + u128::from(last.max(50_000_000));
            prop_assert!(u128::from(used) <= most, "{} of {}", used, most);
        }
    }
}

//! When checks are made: spread over their interval at the start, and never quite at the same distance after.

use std::time::Duration;

/// Spreads the first checks of all servers evenly over the interval.
pub(super) fn first_delay(interval: Duration, position: usize, total: usize) -> Duration {
    let total = u32::try_from(total.max(1)).unwrap_or(u32::MAX);
    let position = u32::try_from(position).unwrap_or(u32::MAX).min(total);
    // Divides first: an interval may be as long as a duration can be.
    interval / total * position
}

/// The interval, more or less a twentieth.
pub(super) fn jittered(interval: Duration, random: u64) -> Duration {
    let span = interval / JITTER_PART * 2;
    let thousandths = u32::try_from(random % 1001).unwrap_or(0);
    (interval - interval / JITTER_PART).saturating_add(span / 1000 * thousandths)
}

/// Enough to drift apart what happens to coincide, too little to notice.
const JITTER_PART: u32 = 20;

/// A time that no check waits for, and that can be added to the clock.
pub(super) const FAR: Duration = Duration::from_secs(365 * 86400);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn first_checks_are_spread_over_the_interval(millis in 1_u64..1_000_000, total in 1_usize..500) {
            let interval = Duration::from_millis(millis);
            let delays: Vec<_> = (0..total).map(|position| first_delay(interval, position, total)).collect();
            prop_assert!(delays.iter().all(|delay| *delay < interval));
            prop_assert!(delays.is_sorted());
            let gap = interval / u32::try_from(total).unwrap();
            prop_assert!(delays.windows(2).all(|pair| pair[1] - pair[0] == gap));
        }

        #[test]
        fn an_interval_varies_by_a_twentieth(millis in 1_u64..10_000_000, random in any::<u64>()) {
            let interval = Duration::from_millis(millis);
            let varied = jittered(interval, random);
            prop_assert!(varied >= interval - interval / 20 && varied <= interval + interval / 20);
        }
    }

    #[test]
    fn no_interval_is_too_long() {
        jittered(Duration::MAX, u64::MAX);
        first_delay(Duration::MAX, usize::MAX, usize::MAX);
    }
}

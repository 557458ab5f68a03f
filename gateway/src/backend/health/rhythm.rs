//! When checks are made: spread over their interval at the start, and never quite at the same distance after.

use std::time::Duration;

use tokio::time::Instant;

/// Spreads the first checks of all servers evenly over the interval.
pub(super) fn first_delay(interval: Duration, position: usize, total: usize) -> Duration {
    let total = u32::try_from(total.max(1)).unwrap_or(u32::MAX);
    let position = u32::try_from(position).unwrap_or(u32::MAX).min(total);
    // Divides first: an interval may be as long as a duration can be.
    interval / total * position
}

/// When the first round of a configuration is made: when an earlier configuration's would have been, and else after
/// `spread`.
///
/// An earlier plan holds while it fits the interval. One that is late by more than that has been out of use, and one that is
/// farther off was made for a longer interval.
pub(super) fn first_due(planned: Option<Instant>, now: Instant, interval: Duration, spread: Duration) -> Instant {
    let fits = |due: &Instant| {
        let off = due.saturating_duration_since(now);
        let late = now.saturating_duration_since(*due);
        late <= interval && off <= interval.saturating_add(interval / JITTER_PART)
    };
    planned.filter(fits).unwrap_or(now + spread)
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

    #[test]
    fn an_earlier_plan_holds_while_it_fits() {
        let seconds = Duration::from_secs;
        let now = Instant::now() + seconds(100);
        let due = |planned| first_due(Some(planned), now, seconds(10), seconds(7));
        for held in [now, now + seconds(10), now - seconds(10)] {
            assert_eq!(due(held), held);
        }
        for made_anew in [now + seconds(11), now - seconds(11)] {
            assert_eq!(due(made_anew), now + seconds(7));
        }
        assert_eq!(first_due(None, now, seconds(10), seconds(7)), now + seconds(7));
    }

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

//! Times of a relay in four bytes: there are ten thousand relays, and each has several.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

/// A length of time.
pub(super) type Milliseconds = u32;

/// A moment, to the millisecond. It comes again after 49 days: a side that nothing was awaited of for so long has its time
/// from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tick(Milliseconds);

impl Tick {
    /// The present.
    pub(super) fn now() -> Self {
        static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
        let first = *FIRST;
        // The remainder is meant.
        Self(first.elapsed().as_millis() as Milliseconds)
    }

    /// The time from an earlier moment to this one.
    pub(super) fn since(self, earlier: Self) -> Milliseconds {
        self.0.wrapping_sub(earlier.0)
    }
}

/// No less than is said, up to [`LONGEST`].
pub(super) fn milliseconds(time: Duration) -> Milliseconds {
    let whole = time.as_nanos().div_ceil(1_000_000);
    Milliseconds::try_from(whole).map_or(LONGEST, |whole| whole.min(LONGEST))
}

pub(super) fn duration(time: Milliseconds) -> Duration {
    Duration::from_millis(time.into())
}

/// Half of what can be said, 24 days and 20 hours: more than any timeout, and a moment that is so long gone is still told from
/// one to come.
const LONGEST: Milliseconds = Milliseconds::MAX / 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_pass_over_the_end_of_what_can_be_said() {
        let (before, after) = (Tick(Milliseconds::MAX - 4), Tick(5));
        assert_eq!(after.since(before), 10);
    }

    #[test]
    fn no_time_is_cut_short() {
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(milliseconds(Duration::from_millis(7)), 7);
        assert_eq!(milliseconds(Duration::from_micros(7001)), 8);
        assert_eq!(milliseconds(Duration::MAX), LONGEST);
    }
}

//! A histogram of durations with fixed buckets.

use std::array;
use std::time::Duration;

use super::shard::{Count, Sharded};

/// A thread's part of a histogram: one bucket a bound and one beyond the last; not cumulative.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [Bucket; BUCKETS],
}

#[derive(Debug, Default)]
struct Bucket {
    count: Count,
    /// In nanoseconds: overflows after 584 years of waiting.
    nanos: Count,
}

/// What all threads recorded, by bucket.
pub(super) type Totals = [Total; BUCKETS];

/// How many durations fell into a bucket, and their sum in nanoseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Total {
    count: u64,
    nanos: u64,
}

/// How much of a histogram has been published.
#[derive(Debug, Default)]
pub(super) struct Published {
    totals: Totals,
}

impl Histogram {
    pub(super) fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = &self.buckets[BOUNDS.partition_point(|&bound| bound < nanos)];
        bucket.count.add(1);
        bucket.nanos.add(nanos);
    }
}

/// Adds the threads' parts up.
pub(super) fn totals<T>(shards: &Sharded<T>, of: impl Fn(&T) -> &Histogram) -> Totals {
    array::from_fn(|i| Total {
        count: shards.sum(|shard| of(shard).buckets[i].count.get()),
        nanos: shards.sum(|shard| of(shard).buckets[i].nanos.get()),
    })
}

/// How many durations there are in all, and their sum in nanoseconds.
pub(super) fn sum(totals: &Totals) -> (u64, u64) {
    let add = |sum: (u64, u64), total: &Total| (sum.0.wrapping_add(total.count), sum.1.wrapping_add(total.nanos));
    totals.iter().fold((0, 0), add)
}

impl Published {
    /// Takes these for recorded.
    pub(super) fn skip(&mut self, totals: Totals) {
        self.totals = totals;
    }

    /// Calls `record` with durations in nanoseconds, and how often each is to be recorded, so that what was recorded
    /// altogether has the counts and the sum of `totals`. Every duration lies in the bucket that it stands for.
    pub(super) fn publish(&mut self, totals: &Totals, mut record: impl FnMut(u64, u64)) {
        for (bucket, (total, published)) in totals.iter().zip(&mut self.totals).enumerate() {
            let count = total.count.wrapping_sub(published.count);
            if count == 0 {
                continue;
            }
            // A worker adds to the count and then to the sum. Where this was read in between, the mean may lie outside
            // the bucket; it is moved inside, and what that takes or adds is made up for the next time.
            let owed = total
                .nanos
                .wrapping_sub(published.nanos)
                .cast_signed()
                .max(0)
                .cast_unsigned();
            let least = bucket.checked_sub(1).map_or(0, |below| BOUNDS[below] + 1);
            let most = BOUNDS.get(bucket).copied().unwrap_or(u64::MAX);
            let mean = (owed / count).clamp(least, most);
            // Durations are whole nanoseconds: some get one more, so that the sum is what it should be.
            let longer = if mean < most {
                owed.saturating_sub(mean.saturating_mul(count)).min(count)
            } else {
                0
            };
            for (nanos, times) in [(mean, count - longer), (mean.saturating_add(1), longer)] {
                if times > 0 {
                    record(nanos, times);
                }
            }
            published.count = total.count;
            published.nanos = published
                .nanos
                .wrapping_add(mean.wrapping_mul(count))
                .wrapping_add(longer);
        }
    }
}

/// Upper bounds in seconds, as the exporter compares and writes them.
pub(super) fn bounds() -> [f64; BOUNDS.len()] {
    BOUNDS.map(seconds)
}

/// Both numbers are exact in an `f64`, so that a bound comes out as the number nearest to it, the one that `0.0005` is.
pub(super) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

const BUCKETS: usize = BOUNDS.len() + 1;

/// Upper bounds in nanoseconds, inclusive. From half a millisecond, where a loopback answer lies, to a minute, where
/// timeouts do.
const BOUNDS: [u64; 16] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What was published, put into buckets again as the exporter does it.
    #[derive(Default)]
    struct Exported {
        totals: Totals,
    }

    impl Exported {
        fn record(&mut self, nanos: u64, count: u64) {
            let bucket = bounds().partition_point(|&bound| bound < seconds(nanos));
            self.totals[bucket].count += count;
            self.totals[bucket].nanos += nanos * count;
        }
    }

    fn read(histogram: &Histogram) -> Totals {
        array::from_fn(|i| Total {
            count: histogram.buckets[i].count.get(),
            nanos: histogram.buckets[i].nanos.get(),
        })
    }

    #[test]
    fn bounds_grow_and_are_written_short() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
        let written = bounds().map(|bound| bound.to_string());
        assert_eq!(
            written.join(" "),
            "0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 30 60"
        );
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::from_micros(500));
        histogram.record(Duration::from_nanos(500_001));
        histogram.record(Duration::from_secs(61));
        histogram.record(Duration::MAX);
        assert_eq!(histogram.buckets[0].count.get(), 2);
        assert_eq!(histogram.buckets[1].count.get(), 1);
        assert_eq!(histogram.buckets[BOUNDS.len()].count.get(), 2);
    }

    #[test]
    fn a_sum_that_lags_behind_its_count_is_made_up_for() {
        let (mut published, mut exported) = (Published::default(), Exported::default());
        let mut totals = Totals::default();
        // Two of 700 microseconds, of which none, one and then both are in the sum.
        totals[1] = Total { count: 1, nanos: 0 };
        published.publish(&totals, |nanos, count| exported.record(nanos, count));
        assert_eq!(
            exported.totals[1],
            Total {
                count: 1,
                nanos: 500_001
            }
        );
        totals[1] = Total {
            count: 2,
            nanos: 1_400_000,
        };
        published.publish(&totals, |nanos, count| exported.record(nanos, count));
        assert_eq!(exported.totals, totals);
    }

    #[test]
    fn nothing_breaks_at_the_limits() {
        let limits = [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX];
        for (count, nanos) in limits.into_iter().flat_map(|count| limits.map(|nanos| (count, nanos))) {
            let mut published = Published::default();
            for total in [Total { count, nanos }, Total { count: 1, nanos: 1 }] {
                let mut recorded = [0_u64; BUCKETS];
                let before = published.totals[0].count;
                published.publish(&[total; BUCKETS], |nanos, times| {
                    let bucket = BOUNDS.partition_point(|&bound| bound < nanos);
                    recorded[bucket] = recorded[bucket].wrapping_add(times);
                });
                assert_eq!(recorded, [total.count.wrapping_sub(before); BUCKETS]);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_published_in_parts_is_what_was_recorded(
            parts in prop::collection::vec(prop::collection::vec(0_u64..100_000_000_000, 0..20), 1..10),
            near_bounds in prop::collection::vec((0..BOUNDS.len(), 0_u64..3), 0..20),
        ) {
            let histogram = Histogram::default();
            let (mut published, mut exported) = (Published::default(), Exported::default());
            let near_bounds = near_bounds.into_iter().map(|(bound, beside)| BOUNDS[bound] + beside - 1).collect();
            for part in parts.into_iter().chain([near_bounds]) {
                part.into_iter().for_each(|nanos| histogram.record(Duration::from_nanos(nanos)));
                published.publish(&read(&histogram), |nanos, count| exported.record(nanos, count));
                prop_assert_eq!(exported.totals, read(&histogram));
            }
        }
    }
}

//! A histogram of durations with fixed buckets.

use std::array;
use std::time::Duration;

use super::shard::{Count, Sharded};
use super::text::Text;

/// A thread's part of a histogram.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// One a bound and one beyond the last; not cumulative.
    buckets: [Count; BOUNDS.len() + 1],
    /// In nanoseconds: overflows after 584 years of waiting.
    sum: Count,
}

impl Histogram {
    pub(super) fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|&(bound, _)| bound < nanos);
        self.buckets[bucket].add(1);
        self.sum.add(nanos);
    }
}

/// Writes the samples of one histogram; its family has been announced.
pub(super) fn render<T>(
    text: &mut Text,
    name: &str,
    labels: &[(&str, &str)],
    shards: &Sharded<T>,
    of: impl Fn(&T) -> &Histogram,
) {
    let counts: [u64; BOUNDS.len() + 1] = array::from_fn(|i| shards.sum(|shard| of(shard).buckets[i].get()));
    let mut below = 0;
    for (count, le) in counts.iter().zip(BOUNDS.iter().map(|&(_, le)| le).chain(["+Inf"])) {
        below += count;
        text.sample_with(name, "_bucket", labels, Some(("le", le)), below);
    }
    let nanos = shards.sum(|shard| of(shard).sum.get());
    text.sample_with(name, "_sum", labels, None, Duration::from_nanos(nanos).as_secs_f64());
    text.sample_with(name, "_count", labels, None, below);
}

/// Upper bounds in nanoseconds, inclusive, and as they are written, in seconds. From half a millisecond, where a
/// loopback answer lies, to a minute, where timeouts do.
const BOUNDS: [(u64, &str); 16] = [
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
    (30_000_000_000, "30"),
    (60_000_000_000, "60"),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn bounds_grow_and_say_what_they_are() {
        assert!(BOUNDS.is_sorted_by(|a, b| a.0 < b.0));
        for (nanos, written) in BOUNDS {
            let seconds: f64 = written.parse().unwrap();
            assert_eq!(Duration::from_secs_f64(seconds), Duration::from_nanos(nanos));
        }
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::from_micros(500));
        histogram.record(Duration::from_nanos(500_001));
        histogram.record(Duration::from_secs(61));
        histogram.record(Duration::MAX);
        assert_eq!(histogram.buckets[0].get(), 2);
        assert_eq!(histogram.buckets[1].get(), 1);
        assert_eq!(histogram.buckets[BOUNDS.len()].get(), 2);
    }
}

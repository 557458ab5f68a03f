//! Token buckets that all workers share.
//!
//! A bucket is one number: the time at which it will be full again (the generic cell rate algorithm's "theoretical
//! arrival time"). Taking tokens moves that time on; there is nothing to refill and nothing to run in the background.
//! Times are kept in 2⁻²⁴ nanoseconds, so that the time one token takes is exact enough for any rate.
//!
//! Buckets are found by a keyed 128-bit hash of namespace, bucket and key, so that nobody can aim at another's bucket.
//! The table is split into shards, each behind a lock that is held for some tens of nanoseconds, never over a call. A
//! shard that is full gives the place of the fullest of a handful of its buckets to a new one: a bucket that limits
//! somebody goes last.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How a bucket fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Tokens that arrive per period; not 0.
    pub(crate) tokens: u64,
    /// The period; not 0.
    pub(crate) period_ms: u64,
    /// The bucket's size; not 0.
    pub(crate) burst: u64,
}

/// What came of taking tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) allowed: bool,
    pub(crate) remaining: u64,
    pub(crate) retry_after_ms: u64,
}

/// All buckets of the process.
pub(crate) struct Buckets {
    shards: Box<[Mutex<Shard>]>,
    capacity: usize,
    hashers: [RandomState; 2],
    start: Instant,
}

/// The start of a bucket's key: hashers that have seen the namespace.
#[derive(Clone)]
pub(crate) struct Namespace([DefaultHasher; 2]);

impl Buckets {
    /// A table for at least `max` buckets; memory is taken as they come.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            capacity: max.div_ceil(SHARDS).max(1),
            hashers: [RandomState::new(), RandomState::new()],
            start: Instant::now(),
        }
    }

    /// The moment that times are counted from.
    pub(crate) const fn start(&self) -> Instant {
        self.start
    }

    /// The place of somebody's buckets. The same name is the same place.
    pub(crate) fn namespace(&self, name: &str) -> Namespace {
        Namespace(self.hashers.each_ref().map(|state| {
            let mut hasher = state.build_hasher();
            hasher.write_usize(name.len());
            hasher.write(name.as_bytes());
            hasher
        }))
    }

    /// Takes tokens from a bucket; one not seen before is full.
    pub(crate) fn take(&self, namespace: &Namespace, bucket: &str, key: &[u8], rate: Rate, tokens: u32) -> Taken {
        let now = u128::from(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)) << FRACTION;
        self.take_at(now, namespace.key(bucket, key), rate, tokens)
    }

    fn take_at(&self, now: u128, key: u128, rate: Rate, tokens: u32) -> Taken {
        let shard = usize::try_from(key >> 64 & (SHARDS as u128 - 1)).unwrap_or(0);
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let place = shard.find(key);
        let full_at = place.map_or(0, |place| shard.buckets[place].full_at);
        let (taken, next) = rate.take(now, full_at, tokens);
        match place {
            Some(place) => shard.buckets[place].full_at = next,
            // Nothing was taken: it is as full as one that is not there.
            None if next <= now => {}
            None => shard.insert(Bucket { key, full_at: next }, self.capacity),
        }
        taken
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|s| s.lock().map_or(0, |s| s.buckets.len()))
            .sum()
    }
}

impl Namespace {
    fn key(&self, bucket: &str, key: &[u8]) -> u128 {
        let [high, low] = self.0.each_ref().map(|hasher| {
            let mut hasher = hasher.clone();
            hasher.write_usize(bucket.len());
            hasher.write(bucket.as_bytes());
            hasher.write(key);
            hasher.finish()
        });
        u128::from(high) << 64 | u128::from(low)
    }
}

impl Rate {
    /// What taking tokens at `now` from a bucket that will be full at `full_at` gives, and when it will be full then.
    fn take(self, now: u128, full_at: u128, tokens: u32) -> (Taken, u128) {
        let period = (u128::from(self.period_ms) * 1_000_000) << FRACTION;
        let per_token = (period / u128::from(self.tokens.max(1))).max(1);
        let size = per_token.saturating_mul(u128::from(self.burst));
        let full_at = full_at.max(now);
        let next = full_at.saturating_add(per_token.saturating_mul(u128::from(tokens)));
        let allowed = next - now <= size;
        let full_at = if allowed { next } else { full_at };
        let remaining = size.saturating_sub(full_at - now) / per_token;
        let retry_after_ms = match allowed {
            true => 0,
            // More than fits into it: never.
            false if u64::from(tokens) > self.burst => u64::MAX,
            false => u64::try_from((next - now - size).div_ceil(1_000_000 << FRACTION)).unwrap_or(u64::MAX),
        };
        let taken = Taken {
            allowed,
            remaining: u64::try_from(remaining).unwrap_or(u64::MAX),
            retry_after_ms,
        };
        (taken, full_at)
    }
}

#[derive(Default)]
struct Shard {
    places: HashMap<u128, u32, BuildHasherDefault<Prehashed>>,
    buckets: Vec<Bucket>,
    random: u64,
}

#[derive(Clone, Copy)]
struct Bucket {
    key: u128,
    full_at: u128,
}

impl Shard {
    fn find(&self, key: u128) -> Option<usize> {
        self.places.get(&key).map(|&place| place as usize)
    }

    fn insert(&mut self, bucket: Bucket, capacity: usize) {
        let place = if self.buckets.len() < capacity {
            self.buckets.push(bucket);
            self.buckets.len() - 1
        } else {
            let place = self.fullest_of_a_handful();
            let old = std::mem::replace(&mut self.buckets[place], bucket);
            self.places.remove(&old.key);
            place
        };
        self.places.insert(bucket.key, u32::try_from(place).unwrap_or(u32::MAX));
    }

    fn fullest_of_a_handful(&mut self) -> usize {
        let mut best = 0;
        for i in 0..HANDFUL {
            // SplitMix64: good enough to pick with, and nobody gains by guessing it.
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.random;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            let place = usize::try_from(z % self.buckets.len() as u64).unwrap_or(0);
            if i == 0 || self.buckets[place].full_at < self.buckets[best].full_at {
                best = place;
            }
        }
        best
    }
}

/// The keys are hashes already.
#[derive(Default)]
struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = self.0.rotate_left(32) ^ u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, key: u128) {
        // The high half chose the shard.
        self.0 = u64::try_from(key & u128::from(u64::MAX)).unwrap_or(0);
    }
}

/// Enough that two workers seldom meet at one lock.
const SHARDS: usize = 64;

/// Buckets looked at when one has to go: with half of them full, one that is not full goes once in 65,536.
const HANDFUL: usize = 16;

/// Bits of a time after the nanosecond's point.
const FRACTION: u32 = 24;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    const MS: u128 = 1_000_000 << FRACTION;

    fn rate(tokens: u64, period_ms: u64, burst: u64) -> Rate {
        Rate {
            tokens,
            period_ms,
            burst,
        }
    }

    #[test]
    fn a_new_bucket_gives_its_burst_then_one_per_interval() {
        let table = Buckets::new(100);
        let rate = rate(10, 1000, 3);
        for left in [2, 1, 0] {
            let taken = table.take_at(0, 7, rate, 1);
            assert_eq!((taken.allowed, taken.remaining, taken.retry_after_ms), (true, left, 0));
        }
        let refused = table.take_at(0, 7, rate, 1);
        assert_eq!(
            (refused.allowed, refused.remaining, refused.retry_after_ms),
            (false, 0, 100)
        );
        assert!(!table.take_at(99 * MS, 7, rate, 1).allowed);
        assert!(table.take_at(100 * MS, 7, rate, 1).allowed);
        assert!(!table.take_at(100 * MS, 7, rate, 1).allowed);
    }

    #[test]
    fn more_than_fits_is_never_allowed_and_takes_nothing() {
        let table = Buckets::new(100);
        let taken = table.take_at(0, 7, rate(1, 1, 5), 6);
        assert_eq!(
            (taken.allowed, taken.remaining, taken.retry_after_ms),
            (false, 5, u64::MAX)
        );
        assert!(table.take_at(0, 7, rate(1, 1, 5), 5).allowed);
    }

    #[test]
    fn asking_for_nothing_tells_what_is_left_and_remembers_nothing() {
        let table = Buckets::new(100);
        assert_eq!(table.take_at(0, 7, rate(1, 1, 5), 0).remaining, 5);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn names_do_not_run_into_each_other() {
        let table = Buckets::new(100);
        let a = table.namespace("a");
        assert_ne!(a.key("b", b"c"), a.key("bc", b""));
        assert_ne!(a.key("b", b"c"), table.namespace("ab").key("", b"c"));
        assert_eq!(a.key("b", b"c"), table.namespace("a").key("b", b"c"));
    }

    #[test]
    fn the_table_keeps_its_bound_and_what_limits_somebody() {
        let table = Buckets::new(SHARDS * 64);
        let strict = rate(1, 3_600_000, 1);
        // The limited client, in the shard that the flood goes to.
        assert!(table.take_at(MS, 1, strict, 1).allowed);
        for i in 2..20_000_u128 {
            table.take_at(MS + i * MS, i, rate(1000, 1, 1000), 1);
        }
        assert!(table.len() <= SHARDS * 64);
        assert!(!table.take_at(20_002 * MS, 1, strict, 1).allowed);
    }

    #[test]
    fn workers_count_together() {
        let table = Buckets::new(100);
        let allowed = AtomicU64::new(0);
        let namespace = table.namespace("n");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let taken = table.take(&namespace, "b", b"k", rate(1, 3_600_000, 1500), 1);
                        allowed.fetch_add(u64::from(taken.allowed), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(allowed.into_inner(), 1500);
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_arrived(
            tokens in 1_u64..5000, period_ms in 1_u64..100_000, burst in 1_u64..5000,
            steps in proptest::collection::vec((0_u64..10_000, 1_u32..20), 1..200),
        ) {
            let table = Buckets::new(100);
            let rate = rate(tokens, period_ms, burst);
            let (mut now, mut taken) = (0_u128, 0_u128);
            for (wait_us, n) in steps {
                now += (u128::from(wait_us) * 1000) << FRACTION;
                if table.take_at(now, 1, rate, n).allowed {
                    taken += u128::from(n);
                }
                let arrived = (now >> FRACTION) * u128::from(tokens) / (u128::from(period_ms) * 1_000_000);
                prop_assert!(taken <= u128::from(burst) + arrived + 1);
            }
        }

        #[test]
        fn waiting_as_long_as_told_is_enough(
            tokens in 1_u64..5000, period_ms in 1_u64..100_000, burst in 1_u64..50, n in 1_u32..20,
        ) {
            let rate = rate(tokens, period_ms, burst);
            let mut full_at = 0;
            for _ in 0..100 {
                let (taken, next) = rate.take(0, full_at, n);
                full_at = next;
                if !taken.allowed && taken.retry_after_ms != u64::MAX {
                    let then = u128::from(taken.retry_after_ms) * MS;
                    prop_assert!(rate.take(then, full_at, n).0.allowed);
                    prop_assert!(!rate.take(then.saturating_sub(MS), full_at, n).0.allowed);
                    return Ok(());
                }
            }
        }

        #[test]
        fn no_numbers_overflow(
            tokens in 1_u64.., period_ms in 1_u64.., burst in 1_u64.., n: u32, now: u64, full_at: u128,
        ) {
            let rate = Rate { tokens, period_ms, burst };
            let now = u128::from(now) << FRACTION;
            let (_, next) = rate.take(now, full_at, n);
            prop_assert!(next >= now);
        }
    }
}

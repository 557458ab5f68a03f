//! Token buckets that all workers share.
//!
//! A bucket is one number: the time at which it will be full again (the generic cell rate algorithm's "theoretical
//! arrival time"). Taking tokens moves that time on; there is nothing to refill and nothing to run in the background.
//! Times are kept in 2⁻²⁴ nanoseconds, so that the time one token takes is exact enough for any rate.
//!
//! Buckets are found by a keyed 128-bit hash of namespace, bucket and key, so that nobody can aim at another's bucket.
//! The table is split into shards, each behind a lock that is held for some tens of nanoseconds, never over a call. A
//! shard that is full gives the place of one of a random handful of its buckets to a new one. First goes one that is full
//! again, for it says nothing that a new one would not; then one of an owner (a tenant, or a limiter of the operator's) who has more
//! than his share of the shard; then one that has a token left; and last the one that would refuse for the shortest time.
//!
//! What that does not give: a bucket that still has a token may be forgotten under a flood, so a client that can bring in
//! new keys at will may get more than its burst. Nor, when as many buckets of one owner refuse as the table holds, is
//! there a good one to forget. And with very many owners a handful may miss those that have too much. The remedy is a
//! bigger table.

mod rate;
mod shard;

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::clock::Clock;
pub(crate) use rate::{Rate, Taken};
use shard::{Bucket, Shard};

/// All buckets of the process.
pub(crate) struct Buckets {
    shards: Box<[Mutex<Shard>]>,
    capacity: usize,
    hashers: [RandomState; 2],
    clock: Clock,
}

/// The start of a bucket's key, and whose bucket it is.
#[derive(Clone)]
pub(crate) struct Namespace {
    /// They have seen its name.
    hashers: [DefaultHasher; 2],
    /// Tells owners apart when places are shared out. Two with the same share one share.
    owner: u32,
}

/// Where a bucket is, for who comes back to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    owner: u32,
    key: u128,
}

impl Buckets {
    /// A table for at least `max` buckets, which fill by a clock; memory is taken as they come.
    pub(crate) fn new(max: usize, clock: Clock) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            capacity: max.div_ceil(SHARDS).max(1),
            hashers: [RandomState::new(), RandomState::new()],
            clock,
        }
    }

    /// The clock that they fill by, which is the one that components are told the time by.
    pub(crate) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The place of somebody's buckets. The same name is the same place. All places of a tenant have one share of the table together: who
    /// could have another with each of his plugins would have most of it.
    pub(crate) fn namespace(&self, name: &str, tenant: Option<&str>) -> Namespace {
        let hashers = self.hashers_of(name.len(), name);
        let owner = match tenant {
            // No name is so long.
            Some(tenant) => self.hashers_of(usize::MAX, tenant)[0].finish(),
            None => hashers[0].finish(),
        };
        Namespace {
            hashers,
            owner: u32::try_from(owner & u64::from(u32::MAX)).unwrap_or(0),
        }
    }

    fn hashers_of(&self, number: usize, name: &str) -> [DefaultHasher; 2] {
        self.hashers.each_ref().map(|state| {
            let mut hasher = state.build_hasher();
            hasher.write_usize(number);
            hasher.write(name.as_bytes());
            hasher
        })
    }

    /// Takes tokens from a bucket; one not seen before is full.
    pub(crate) fn take(&self, place: Place, rate: Rate, tokens: u32) -> Taken {
        self.take_in(self.now(), place.owner, place.key, rate, tokens)
    }

    /// What taking tokens would come to, with those that are there before. None is taken.
    pub(crate) fn look(&self, place: Place, rate: Rate, tokens: u32) -> Taken {
        let now = self.now();
        let full_at = {
            let shard = self.shard(place.key);
            shard.find(place.key).map_or(0, |at| shard.buckets[at].full_at)
        };
        let (taken, ..) = rate.take(now, full_at, tokens);
        let (left, ..) = rate.take(now, full_at, 0);
        let remaining = left.remaining;
        Taken { remaining, ..taken }
    }

    fn now(&self) -> u128 {
        u128::from(u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX)) << FRACTION
    }

    fn shard(&self, key: u128) -> MutexGuard<'_, Shard> {
        let shard = usize::try_from(key >> 64 & (SHARDS as u128 - 1)).unwrap_or(0);
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, now: u128, owner: u32, key: u128, rate: Rate, tokens: u32) -> Taken {
        let mut shard = self.shard(key);
        let place = shard.find(key);
        let full_at = place.map_or(0, |place| shard.buckets[place].full_at);
        let (taken, full_at, limits_until) = rate.take(now, full_at, tokens);
        let bucket = Bucket {
            key,
            full_at,
            limits_until: nanoseconds(limits_until),
            owner,
        };
        match place {
            Some(place) => shard.buckets[place] = bucket,
            // Nothing was taken: it is as full as one that is not there.
            None if full_at <= now => {}
            None => shard.insert(bucket, now, self.capacity),
        }
        taken
    }

    #[cfg(test)]
    fn take_at(&self, now: u128, key: u128, rate: Rate, tokens: u32) -> Taken {
        self.take_in(now, 0, key, rate, tokens)
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
    /// Where the bucket of this name and key is.
    pub(crate) fn place(&self, bucket: &str, key: &[u8]) -> Place {
        Place {
            owner: self.owner,
            key: self.key(bucket, key),
        }
    }

    fn key(&self, bucket: &str, key: &[u8]) -> u128 {
        let [high, low] = self.hashers.each_ref().map(|hasher| {
            let mut hasher = hasher.clone();
            hasher.write_usize(bucket.len());
            hasher.write(bucket.as_bytes());
            hasher.write(key);
            hasher.finish()
        });
        u128::from(high) << 64 | u128::from(low)
    }
}

fn nanoseconds(time: u128) -> u64 {
    u64::try_from(time >> FRACTION).unwrap_or(u64::MAX)
}

/// Enough that two workers seldom meet at one lock.
const SHARDS: usize = 64;

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
        let table = Buckets::new(100, Clock::machine());
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
    fn a_look_takes_nothing() {
        let table = Buckets::new(100, Clock::machine());
        let (rate, place) = (rate(1, 86_400_000, 2), table.namespace("a", None).place("b", b"c"));
        for (left, allowed) in [(2, true), (1, true), (0, false)] {
            for _ in 0..3 {
                let taken = table.look(place, rate, 1);
                assert_eq!((taken.remaining, taken.allowed), (left, allowed));
                assert_eq!(taken.retry_after_ms == 0, allowed);
            }
            table.take(place, rate, 1);
        }
    }

    #[test]
    fn more_than_fits_is_never_allowed_and_takes_nothing() {
        let table = Buckets::new(100, Clock::machine());
        let taken = table.take_at(0, 7, rate(1, 1, 5), 6);
        assert_eq!(
            (taken.allowed, taken.remaining, taken.retry_after_ms),
            (false, 5, u64::MAX)
        );
        assert!(table.take_at(0, 7, rate(1, 1, 5), 5).allowed);
    }

    #[test]
    fn asking_for_nothing_tells_what_is_left_and_remembers_nothing() {
        let table = Buckets::new(100, Clock::machine());
        assert_eq!(table.take_at(0, 7, rate(1, 1, 5), 0).remaining, 5);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn names_do_not_run_into_each_other() {
        let table = Buckets::new(100, Clock::machine());
        let a = table.namespace("a", None);
        assert_ne!(a.key("b", b"c"), a.key("bc", b""));
        assert_ne!(a.key("b", b"c"), table.namespace("ab", None).key("", b"c"));
        assert_eq!(a.key("b", b"c"), table.namespace("a", None).key("b", b"c"));
    }

    #[test]
    fn the_table_keeps_its_bound_and_what_limits_somebody() {
        let table = Buckets::new(SHARDS * 64, Clock::machine());
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
    fn a_strict_fast_limit_outlives_a_flood_of_slow_ones() {
        let table = Buckets::new(SHARDS * 64, Clock::machine());
        // Exhausted, and full again long before any bucket of the flood.
        let strict = rate(1, 60_000, 1);
        assert!(table.take_at(0, 1, strict, 1).allowed);
        for i in 2..20_000_u128 {
            table.take_at(i, i, rate(1, 3_600_000, 5), 1);
        }
        assert!(table.len() <= SHARDS * 64);
        assert!(!table.take_at(59_999 * MS, 1, strict, 1).allowed);
        assert!(table.take_at(60_000 * MS, 1, strict, 1).allowed);
    }

    #[test]
    fn what_is_full_again_goes_before_what_is_not() {
        let table = Buckets::new(SHARDS * 64, Clock::machine());
        let slow = rate(1, 3_600_000, 5);
        assert!(table.take_at(0, 1, slow, 4).allowed);
        for i in 2..20_000_u128 {
            table.take_at(i * MS, i, rate(1000, 1, 1), 1);
        }
        assert_eq!(table.take_at(20_000 * MS, 1, slow, 0).remaining, 1);
    }

    #[test]
    fn a_namespace_that_floods_the_table_pays_for_it_itself() {
        let table = Buckets::new(SHARDS * 64, Clock::machine());
        let (quiet, flood) = (1, 2);
        // A token left, so nothing but the share protects it; those of the flood all refuse.
        let mild = rate(1, 60_000, 2);
        assert!(table.take_in(0, quiet, 1, mild, 1).allowed);
        for i in 2..5_000_u128 {
            assert!(table.take_in(i, flood, i, rate(1, 3_600_000, 1), 1).allowed);
        }
        assert_eq!(table.take_in(5_000, quiet, 1, mild, 0).remaining, 1);
        // And there is room for more of the quiet one's, up to its share.
        for i in 10_000..10_020_u128 {
            assert!(table.take_in(i, quiet, i, mild, 1).allowed);
        }
        for i in 20_000..25_000_u128 {
            table.take_in(i, flood, i, rate(1, 3_600_000, 1), 1);
        }
        let kept = (10_000..10_020_u128)
            .filter(|i| table.take_in(30_000, quiet, *i, mild, 0).remaining == 1)
            .count();
        assert!(kept >= 18, "{kept}");
        let shard = table.shards[0].lock().unwrap();
        assert_eq!(shard.counted(), 64);
    }

    #[test]
    fn a_tenant_has_one_share_however_many_plugins_it_has() {
        let table = Buckets::new(SHARDS * 64, Clock::machine());
        let of = |name: &str, tenant| table.namespace(name, tenant);
        assert_eq!(of("acme/a", Some("acme")).owner, of("acme/b", Some("acme")).owner);
        assert_ne!(of("acme/a", Some("acme")).owner, of("rival/a", Some("rival")).owner);
        // The operator may call a plugin as a tenant is called.
        assert_ne!(of("acme", None).owner, of("acme/a", Some("acme")).owner);
        assert_ne!(of("a", None).owner, of("b", None).owner);
        // And what each keeps is its own.
        let [a, b] = ["acme/a", "acme/b"].map(|name| of(name, Some("acme")).key("x", b""));
        assert_ne!(a, b);
    }

    #[test]
    fn workers_count_together() {
        let table = Buckets::new(100, Clock::machine());
        let allowed = AtomicU64::new(0);
        let place = table.namespace("n", None).place("b", b"k");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let taken = table.take(place, rate(1, 3_600_000, 1500), 1);
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
            let table = Buckets::new(100, Clock::machine());
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
    }
}

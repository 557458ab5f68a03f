//! Counters that all workers share: one table for each plugin of each tenant.
//!
//! What is 0 is not kept: a counter of what is under way goes when nothing is. A table that is full refuses new counters;
//! those that are there go on.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::kv::{MAX_KEY, Refused};
use super::quota::Quota;

/// Why a counter was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CounterError {
    Full,
    /// The plugin had room; what its tenant may count in all is used up.
    FullOfTenant,
    KeyTooLong,
}

/// One plugin's counters.
pub(crate) struct Counters {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// Of all shards together.
    count: AtomicU64,
    max: AtomicU64,
    /// What its tenant may count, with all its plugins.
    quota: Option<Arc<Quota>>,
    refused: Refused,
}

type Shard = HashMap<Box<[u8]>, i64>;

impl Counters {
    pub(crate) fn new(max: u64, quota: Option<Arc<Quota>>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            count: AtomicU64::new(0),
            max: AtomicU64::new(max),
            quota,
            refused: Refused::default(),
        }
    }

    /// From now on there may be so many. Those that are there beyond that stay until they are 0.
    pub(crate) fn bound(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// What a counter is.
    pub(crate) fn get(&self, key: &[u8]) -> i64 {
        self.shard(key).get(key).copied().unwrap_or(0)
    }

    /// Adds to a counter. Answers what it is then.
    pub(crate) fn add(&self, key: &[u8], amount: i64) -> Result<i64, CounterError> {
        if key.len() > MAX_KEY {
            return Err(CounterError::KeyTooLong);
        }
        let mut shard = self.shard(key);
        if let Some(counter) = shard.get_mut(key) {
            *counter = counter.saturating_add(amount);
            let sum = *counter;
            if sum == 0 {
                shard.remove(key);
                self.count.fetch_sub(1, Ordering::Relaxed);
                if let Some(quota) = &self.quota {
                    quota.counters.give_back(1);
                }
            }
            return Ok(sum);
        }
        if amount != 0 {
            let max = self.max.load(Ordering::Relaxed);
            let fits = |count: u64| (count < max).then_some(count + 1);
            let taken = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
            if taken.is_err() {
                self.refused.by_plugin.fetch_add(1, Ordering::Relaxed);
                return Err(CounterError::Full);
            }
            if self.quota.as_ref().is_some_and(|quota| !quota.counters.take(1)) {
                self.count.fetch_sub(1, Ordering::Relaxed);
                self.refused.by_tenant.fetch_add(1, Ordering::Relaxed);
                return Err(CounterError::FullOfTenant);
            }
            shard.insert(key.into(), amount);
        }
        Ok(amount)
    }

    /// New ones that found no room.
    pub(crate) const fn refused(&self) -> &Refused {
        &self.refused
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        let position = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        self.shards[position].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        if let Some(quota) = &self.quota {
            quota.counters.give_back(self.count());
        }
    }
}

/// Enough that two workers seldom meet at one lock.
const SHARDS: usize = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_and_stop_at_the_ends_of_their_type() {
        let counters = Counters::new(10, None);
        assert_eq!(counters.add(b"a", 2), Ok(2));
        assert_eq!(counters.add(b"a", -5), Ok(-3));
        assert_eq!(counters.get(b"a"), -3);
        assert_eq!(counters.get(b"b"), 0);
        assert_eq!(counters.add(b"m", i64::MAX), Ok(i64::MAX));
        assert_eq!(counters.add(b"m", 1), Ok(i64::MAX));
        assert_eq!(counters.add(&[0; 257], 1), Err(CounterError::KeyTooLong));
    }

    #[test]
    fn what_is_nothing_again_makes_room() {
        let counters = Counters::new(2, None);
        counters.add(b"a", 1).unwrap();
        counters.add(b"b", 1).unwrap();
        assert_eq!(counters.add(b"c", 1), Err(CounterError::Full));
        assert_eq!(counters.add(b"c", 0), Ok(0));
        assert_eq!(counters.add(b"a", -1), Ok(0));
        assert_eq!(counters.add(b"c", 1), Ok(1));
        assert_eq!(counters.count(), 2);
    }

    #[test]
    fn workers_that_add_at_once_lose_nothing() {
        let counters = Counters::new(10, None);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        counters.add(b"n", 1).unwrap();
                    }
                });
            }
        });
        assert_eq!(counters.get(b"n"), 40_000);
    }
}

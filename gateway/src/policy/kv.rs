//! Key-value pairs that all workers share: one store for each plugin of each tenant.
//!
//! A store is split into shards, each behind a lock that is held while a map is looked into and a value's handle is copied,
//! never over a call or while something is copied into a guest. Pairs and bytes are bounded over all shards together. What is
//! full is full: nothing is forgotten before its time, since a plugin that was told that a pair is kept (a session that was
//! revoked, a number that was used) has to be able to rely on it. Pairs whose time has come go when they are met, when their
//! shard is written to, and, when there is no room, in all shards.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clock::Clock;
use super::quota::Quota;

/// What a plugin may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvBounds {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// Why a pair was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KvError {
    Full,
    /// The plugin had room; what its tenant may keep in all is used up.
    FullOfTenant,
    KeyTooLong,
    ValueTooLong,
    NotANumber,
}

/// One plugin's pairs.
pub(crate) struct Kv {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    clock: Clock,
    entries: AtomicU64,
    bytes: AtomicU64,
    max_entries: AtomicU64,
    max_bytes: AtomicU64,
    /// What its tenant may keep, with all its plugins.
    quota: Option<Arc<Quota>>,
    refused: Refused,
}

/// Writes that found no room.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    pub(crate) by_plugin: AtomicU64,
    pub(crate) by_tenant: AtomicU64,
}

#[derive(Default)]
struct Shard {
    pairs: HashMap<Arc<[u8]>, Pair>,
    /// The keys of the pairs that have a time to live, by when they go. A number keeps those of one moment apart.
    deadlines: BTreeMap<(u64, u64), Arc<[u8]>>,
    serial: u64,
}

struct Pair {
    value: Arc<[u8]>,
    /// None when it stays.
    deadline: Option<(u64, u64)>,
}

/// How long a written pair is there, in milliseconds; 0 is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ttl {
    /// From now on.
    FromNow(u64),
    /// From the first time on: what is there keeps its own.
    FromFirst(u64),
}

impl Kv {
    pub(crate) fn new(bounds: KvBounds, clock: Clock, quota: Option<Arc<Quota>>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            clock,
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            max_entries: AtomicU64::new(bounds.entries),
            max_bytes: AtomicU64::new(bounds.bytes),
            quota,
            refused: Refused::default(),
        }
    }

    /// From now on these bounds hold. What is there beyond them stays until it goes.
    pub(crate) fn bound(&self, bounds: KvBounds) {
        self.max_entries.store(bounds.entries, Ordering::Relaxed);
        self.max_bytes.store(bounds.bytes, Ordering::Relaxed);
    }

    /// Pairs that there are, those included whose time has come unnoticed.
    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// What they take up, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Arc<[u8]>> {
        self.get_at(self.now(), key)
    }

    fn get_at(&self, now: u64, key: &[u8]) -> Option<Arc<[u8]>> {
        let shard = self.shard(key);
        let pair = shard.pairs.get(key)?;
        pair.is_there(now).then(|| Arc::clone(&pair.value))
    }

    /// Writes a pair; for ever when `ttl_ms` is 0.
    pub(crate) fn set(&self, key: &[u8], value: &[u8], ttl_ms: u64) -> Result<(), KvError> {
        self.set_at(self.now(), key, value, ttl_ms)
    }

    fn set_at(&self, now: u64, key: &[u8], value: &[u8], ttl_ms: u64) -> Result<(), KvError> {
        check(key, value)?;
        let new: Arc<[u8]> = value.into();
        self.write(now, key, Ttl::FromNow(ttl_ms), |_| Some(Ok(new.clone())))
            .map(drop)
    }

    /// Removes a pair. Whether there was one.
    pub(crate) fn remove(&self, key: &[u8]) -> bool {
        let now = self.now();
        let mut shard = self.shard(key);
        let was_there = shard.pairs.get(key).is_some_and(|pair| pair.is_there(now));
        self.drop_pair(&mut shard, key);
        was_there
    }

    /// Writes a pair if the key's value is what is expected. Whether it was.
    pub(crate) fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: u64,
    ) -> Result<bool, KvError> {
        check(key, value)?;
        let new: Arc<[u8]> = value.into();
        let written = self.write(self.now(), key, Ttl::FromNow(ttl_ms), |old| {
            (old == expected).then(|| Ok(new.clone()))
        })?;
        Ok(written.is_some())
    }

    /// Adds to a value that is a decimal number. Answers what it is then.
    pub(crate) fn increment(&self, key: &[u8], amount: i64, ttl_ms: u64) -> Result<i64, KvError> {
        self.increment_at(self.now(), key, amount, ttl_ms)
    }

    fn increment_at(&self, now: u64, key: &[u8], amount: i64, ttl_ms: u64) -> Result<i64, KvError> {
        check(key, &[])?;
        let mut number = 0;
        self.write(now, key, Ttl::FromFirst(ttl_ms), |old| {
            let old = match old {
                None => 0,
                Some(text) => match std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok()) {
                    Some(number) => number,
                    None => return Some(Err(KvError::NotANumber)),
                },
            };
            number = old.saturating_add(amount);
            Some(Ok(itoa::Buffer::new().format(number).as_bytes().into()))
        })?;
        Ok(number)
    }

    /// Writes what `change` makes of the value that is there, unless it makes nothing of it. May call it twice.
    fn write(
        &self,
        now: u64,
        key: &[u8],
        ttl: Ttl,
        mut change: impl FnMut(Option<&[u8]>) -> Option<Result<Arc<[u8]>, KvError>>,
    ) -> Result<Option<()>, KvError> {
        let result = match self.try_write(now, key, ttl, &mut change) {
            Err(KvError::Full) => {
                self.expire_all_at(now);
                self.try_write(now, key, ttl, &mut change)
            }
            Err(KvError::FullOfTenant) => {
                self.expire_all_at(now);
                if let Some(quota) = &self.quota {
                    quota.sweep();
                }
                self.try_write(now, key, ttl, &mut change)
            }
            result => result,
        };
        match result {
            Err(KvError::Full) => self.refused.by_plugin.fetch_add(1, Ordering::Relaxed),
            Err(KvError::FullOfTenant) => self.refused.by_tenant.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        result
    }

    /// Forgets pairs whose time has come: of each shard, some.
    pub(crate) fn expire_all(&self) {
        self.expire_all_at(self.now());
    }

    fn expire_all_at(&self, now: u64) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            self.expire(&mut shard, now, MOST_EXPIRED);
        }
    }

    /// Writes that found no room.
    pub(crate) const fn refused(&self) -> &Refused {
        &self.refused
    }

    fn try_write(
        &self,
        now: u64,
        key: &[u8],
        ttl: Ttl,
        change: &mut impl FnMut(Option<&[u8]>) -> Option<Result<Arc<[u8]>, KvError>>,
    ) -> Result<Option<()>, KvError> {
        let mut shard = self.shard(key);
        self.expire(&mut shard, now, FEW_EXPIRED);
        if shard.pairs.get(key).is_some_and(|pair| !pair.is_there(now)) {
            self.drop_pair(&mut shard, key);
        }
        let old = shard.pairs.get(key);
        let Some(new) = change(old.map(|pair| &*pair.value)) else {
            return Ok(None);
        };
        let new = new?;
        let (before, was) = match old {
            Some(pair) => (cost(key, &pair.value), Some(pair.deadline)),
            None => (0, None),
        };
        self.take_room(was.is_none(), before, cost(key, &new))?;
        let deadline = match (ttl, was) {
            (Ttl::FromFirst(_), Some(deadline)) => deadline,
            (Ttl::FromFirst(0) | Ttl::FromNow(0), _) => None,
            (Ttl::FromFirst(ttl) | Ttl::FromNow(ttl), _) => {
                shard.serial += 1;
                Some((now.saturating_add(ttl), shard.serial))
            }
        };
        let pair = Pair { value: new, deadline };
        let key = match shard.pairs.remove_entry(key) {
            Some((key, before)) => {
                if let Some(before) = before.deadline {
                    shard.deadlines.remove(&before);
                }
                key
            }
            None => key.into(),
        };
        if let Some(deadline) = deadline {
            shard.deadlines.insert(deadline, Arc::clone(&key));
        }
        shard.pairs.insert(key, pair);
        Ok(Some(()))
    }

    /// Makes room for a pair of so many bytes in place of so many.
    fn take_room(&self, is_new: bool, before: u64, after: u64) -> Result<(), KvError> {
        if after > before {
            let (more, max) = (after - before, self.max_bytes.load(Ordering::Relaxed));
            let fits = |bytes: u64| bytes.checked_add(more).filter(|bytes| *bytes <= max);
            let taken = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
            taken.map_err(|_| KvError::Full)?;
        }
        if is_new {
            let max = self.max_entries.load(Ordering::Relaxed);
            let fits = |entries: u64| (entries < max).then_some(entries + 1);
            let taken = self.entries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
            if taken.is_err() {
                self.bytes.fetch_sub(after, Ordering::Relaxed);
                return Err(KvError::Full);
            }
        }
        if let Some(quota) = &self.quota
            && !take_of(quota, is_new, after.saturating_sub(before))
        {
            self.bytes.fetch_sub(after.saturating_sub(before), Ordering::Relaxed);
            self.entries.fetch_sub(u64::from(is_new), Ordering::Relaxed);
            return Err(KvError::FullOfTenant);
        }
        if after < before {
            self.give_back(0, before - after);
        }
        Ok(())
    }

    fn give_back(&self, entries: u64, bytes: u64) {
        self.entries.fetch_sub(entries, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(quota) = &self.quota {
            quota.kv_entries.give_back(entries);
            quota.kv_bytes.give_back(bytes);
        }
    }

    fn drop_pair(&self, shard: &mut Shard, key: &[u8]) {
        if let Some(pair) = shard.pairs.remove(key) {
            if let Some(deadline) = pair.deadline {
                shard.deadlines.remove(&deadline);
            }
            self.give_back(1, cost(key, &pair.value));
        }
    }

    /// Forgets pairs whose time has come: some of them, since somebody waits.
    fn expire(&self, shard: &mut Shard, now: u64, most: usize) {
        for _ in 0..most {
            let Some((deadline, key)) = shard.deadlines.first_key_value() else {
                return;
            };
            if deadline.0 > now {
                return;
            }
            let key = Arc::clone(key);
            self.drop_pair(shard, &key);
        }
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key);
        let position = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        lock(&self.shards[position])
    }

    /// Milliseconds by the clock.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Kv {
    fn drop(&mut self) {
        self.give_back(self.entries(), self.bytes());
    }
}

/// Room in a tenant's quota; if there is none, nothing is taken.
fn take_of(quota: &Quota, is_new: bool, bytes: u64) -> bool {
    if !quota.kv_entries.take(u64::from(is_new)) {
        return false;
    }
    let has_room = bytes == 0 || quota.kv_bytes.take(bytes);
    if !has_room {
        quota.kv_entries.give_back(u64::from(is_new));
    }
    has_room
}

impl Pair {
    fn is_there(&self, now: u64) -> bool {
        self.deadline.is_none_or(|(deadline, _)| now < deadline)
    }
}

fn check(key: &[u8], value: &[u8]) -> Result<(), KvError> {
    if key.len() > MAX_KEY {
        return Err(KvError::KeyTooLong);
    }
    if value.len() > MAX_VALUE {
        return Err(KvError::ValueTooLong);
    }
    Ok(())
}

/// What a pair takes up.
fn cost(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len() + OVERHEAD) as u64
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of a key; the contract says so. As long as a token's digest, an address and a path's beginning together.
pub(crate) const MAX_KEY: usize = 256;

/// Bytes of a value; the contract says so. What is longer is a file, and every worker would copy it for each request.
const MAX_VALUE: usize = 64 * 1024;

/// Bytes that a pair takes up beside its key and value, where it takes most: 130 of a table that has just grown, 64 of two
/// allocations with their counts of references, and 61 among those that have a time to live, in nodes that are half empty. By the
/// allocator's own account it is 190 to 260.
const OVERHEAD: usize = 256;

/// Enough that two workers seldom meet at one lock.
const SHARDS: usize = 16;

/// Pairs that a write looks at, for those whose time has come: more than it adds, so that they do not pile up.
const FEW_EXPIRED: usize = 2;

/// Pairs of one shard that are forgotten at once when there is no room: some tens of microseconds' worth.
const MOST_EXPIRED: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kv(entries: u64, bytes: u64) -> Kv {
        Kv::new(KvBounds { entries, bytes }, Clock::machine(), None)
    }

    fn get(kv: &Kv, now: u64, key: &str) -> Option<Vec<u8>> {
        kv.get_at(now, key.as_bytes()).map(|value| value.to_vec())
    }

    #[test]
    fn a_pair_is_charged_what_it_takes_up_where_it_takes_most() {
        let place = size_of::<(Arc<[u8]>, Pair)>() + 1;
        // A table grows when it is seven eighths full, to twice the size.
        let table = place * 16 / 7;
        // Two counts, and what the allocator has of its own and rounds up by.
        let allocations = 2 * (16 + 16);
        let node = 11 * size_of::<((u64, u64), Arc<[u8]>)>() + 16;
        assert!(OVERHEAD >= table + allocations + node / 6);
    }

    #[test]
    fn a_pair_is_there_until_its_time_has_come() {
        let kv = kv(10, 10_000);
        kv.set_at(0, b"a", b"1", 100).unwrap();
        kv.set_at(0, b"b", b"2", 0).unwrap();
        assert_eq!(get(&kv, 99, "a").unwrap(), b"1");
        assert_eq!(get(&kv, 100, "a"), None);
        assert_eq!(get(&kv, u64::MAX, "b").unwrap(), b"2");
        // Written anew, it lives anew.
        kv.set_at(50, b"a", b"3", 100).unwrap();
        assert_eq!(get(&kv, 149, "a").unwrap(), b"3");
        assert!(kv.remove(b"b"));
        assert!(!kv.remove(b"b"));
    }

    #[test]
    fn what_is_full_is_full_until_somebodys_time_has_come() {
        let kv = kv(3, 1_000_000);
        for key in ["a", "b", "c"] {
            kv.set_at(0, key.as_bytes(), b"x", 100).unwrap();
        }
        assert_eq!(kv.set_at(99, b"d", b"x", 0), Err(KvError::Full));
        // What is there can be changed, and nothing was forgotten.
        kv.set_at(99, b"a", b"y", 1000).unwrap();
        for key in ["a", "b", "c"] {
            assert!(get(&kv, 99, key).is_some(), "{key}");
        }
        kv.set_at(100, b"d", b"x", 0).unwrap();
        assert_eq!(get(&kv, 100, "a").unwrap(), b"y");
        assert!(kv.entries() <= 3);
    }

    #[test]
    fn bytes_are_bounded_with_what_a_pair_takes_up_beside_them() {
        let kv = kv(1000, 1000);
        kv.set_at(0, b"a", &[0; 500], 0).unwrap();
        assert_eq!(kv.bytes(), 757);
        assert_eq!(kv.set_at(0, b"a", &[0; 1000], 0), Err(KvError::Full));
        assert_eq!(kv.set_at(0, b"b", &[0; 500], 0), Err(KvError::Full));
        assert_eq!(kv.bytes(), 757);
        kv.set_at(0, b"a", &[], 0).unwrap();
        assert_eq!(kv.bytes(), 257);
        assert_eq!(kv.set_at(0, &[0; 257], b"", 0), Err(KvError::KeyTooLong));
        assert_eq!(kv.set_at(0, b"c", &vec![0; 65_537], 0), Err(KvError::ValueTooLong));
        assert!(kv.remove(b"a"));
        assert_eq!((kv.bytes(), kv.entries()), (0, 0));
    }

    #[test]
    fn smaller_bounds_keep_what_is_there() {
        let kv = kv(10, 10_000);
        kv.set_at(0, b"a", b"1", 0).unwrap();
        kv.set_at(0, b"b", b"1", 0).unwrap();
        kv.bound(KvBounds { entries: 1, bytes: 1 });
        assert_eq!(kv.set_at(0, b"c", b"1", 0), Err(KvError::Full));
        assert!(get(&kv, 0, "a").is_some() && get(&kv, 0, "b").is_some());
    }

    #[test]
    fn numbers_are_added_to_within_their_type_and_keep_their_time() {
        let kv = kv(10, 10_000);
        assert_eq!(kv.increment_at(0, b"n", 5, 100), Ok(5));
        assert_eq!(kv.increment_at(99, b"n", -7, 100), Ok(-2));
        assert_eq!(get(&kv, 99, "n").unwrap(), b"-2");
        assert_eq!(kv.increment_at(100, b"n", 1, 100), Ok(1));
        assert_eq!(kv.increment_at(0, b"m", i64::MAX, 0), Ok(i64::MAX));
        assert_eq!(kv.increment_at(0, b"m", 1, 0), Ok(i64::MAX));
        kv.set_at(0, b"t", b"text", 0).unwrap();
        assert_eq!(kv.increment_at(0, b"t", 1, 0), Err(KvError::NotANumber));
        assert_eq!(get(&kv, 0, "t").unwrap(), b"text");
    }

    #[test]
    fn a_pair_is_compared_and_written_at_once() {
        let kv = kv(10, 10_000);
        assert_eq!(kv.compare_and_set(b"a", None, b"1", 0), Ok(true));
        assert_eq!(kv.compare_and_set(b"a", None, b"2", 0), Ok(false));
        assert_eq!(kv.compare_and_set(b"a", Some(b"2"), b"3", 0), Ok(false));
        assert_eq!(kv.compare_and_set(b"a", Some(b"1"), b"3", 0), Ok(true));
        assert_eq!(&*kv.get(b"a").unwrap(), b"3");
    }

    #[test]
    fn workers_that_add_at_once_lose_nothing() {
        let kv = kv(10, 10_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        kv.increment(b"n", 1, 0).unwrap();
                    }
                });
            }
        });
        assert_eq!(&*kv.get(b"n").unwrap(), b"40000");
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_is_there(
            steps in proptest::collection::vec((0_u8..6, 0_usize..300, 0_u64..50, 0_u8..3), 0..200),
        ) {
            let kv = kv(4, 2000);
            let mut now = 0;
            for (key, length, ttl, step) in steps {
                now += 5;
                let key = [key];
                match step {
                    0 => drop(kv.remove(&key)),
                    1 => drop(kv.increment_at(now, &key, 1, ttl)),
                    _ => drop(kv.set_at(now, &key, &vec![0; length], ttl)),
                }
                let shards = kv.shards.iter().map(|shard| shard.lock().unwrap());
                let (mut entries, mut bytes) = (0, 0);
                for shard in shards {
                    for (key, pair) in &shard.pairs {
                        entries += 1;
                        bytes += cost(key, &pair.value);
                        if let Some(deadline) = pair.deadline {
                            prop_assert_eq!(shard.deadlines.get(&deadline), Some(key));
                        }
                    }
                    let with_deadline = shard.pairs.values().filter(|pair| pair.deadline.is_some());
                    prop_assert_eq!(shard.deadlines.len(), with_deadline.count());
                }
                prop_assert_eq!((entries, bytes), (kv.entries(), kv.bytes()));
                prop_assert!(entries <= 4 && bytes <= 2000);
            }
        }
    }
}

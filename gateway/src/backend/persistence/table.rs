//! The stick table: which server somebody was at, learned and kept for a while. Shared by all workers, bounded, and carried over
//! reloads that leave its settings as they are.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::config;

/// A backend's `stick`.
#[derive(Debug)]
pub struct StickTable {
    config: config::Stick,
    /// Keyed by chance, so that nobody can make two clients one, or all of them fall into one shard.
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    /// Entries of one generation of a shard.
    most: usize,
}

/// Two generations: what is asked for moves into the young one; when that is full, it becomes the old one, and what nobody has
/// asked for meanwhile goes. Bounded without a list of who was used when.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<u64, Entry, Prehashed>,
    old: HashMap<u64, Entry, Prehashed>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The hash of the server's name: positions change with configurations.
    server: u64,
    until: Instant,
}

impl StickTable {
    /// An empty table.
    pub fn new(config: &config::Stick) -> Self {
        Self {
            config: config.clone(),
            hasher: RandomState::new(),
            shards: Default::default(),
            most: (config.size / SHARDS / 2).max(1),
        }
    }

    /// What it was made of.
    pub fn config(&self) -> &config::Stick {
        &self.config
    }

    /// Whose entry it is, by an address.
    pub fn key_of_client(&self, client: IpAddr) -> u64 {
        self.hasher.hash_one(client.to_canonical())
    }

    /// Whose entry it is, by a part of a request.
    pub fn key_of(&self, part: &[u8]) -> u64 {
        self.hasher.hash_one(part)
    }

    /// The server that is remembered, by its name's hash.
    pub(in crate::backend) fn get(&self, key: u64) -> Option<u64> {
        self.get_at(key, Instant::now())
    }

    fn get_at(&self, key: u64, now: Instant) -> Option<u64> {
        let shard = self.shard(key);
        let entry = shard.young.get(&key).or_else(|| shard.old.get(&key))?;
        (now < entry.until).then_some(entry.server)
    }

    /// Remembers the server for as long as the table says, from now.
    pub(in crate::backend) fn put(&self, key: u64, server: u64) {
        self.put_at(key, server, Instant::now());
    }

    fn put_at(&self, key: u64, server: u64, now: Instant) {
        let until = now + self.config.expire;
        let mut shard = self.shard(key);
        shard.young.insert(key, Entry { server, until });
        if shard.young.len() >= self.most {
            shard.old = std::mem::take(&mut shard.young);
        }
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[(key >> 32) as usize % SHARDS];
        // Nothing panics between two changes.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keys are hashes already.
#[derive(Debug, Clone, Copy, Default)]
struct Prehashed;

impl BuildHasher for Prehashed {
    type Hasher = AsItIs;

    fn build_hasher(&self) -> AsItIs {
        AsItIs(0)
    }
}

#[derive(Debug)]
struct AsItIs(u64);

impl std::hash::Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Far more than workers that ask at the same moment.
const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn table(size: usize) -> StickTable {
        StickTable::new(&config::Stick {
            key: config::StickKey::ClientIp,
            expire: Duration::from_secs(10),
            size,
        })
    }

    #[test]
    fn an_entry_lasts_as_long_as_it_is_used() {
        let table = table(1000);
        let start = Instant::now();
        let key = table.key_of_client(std::net::Ipv4Addr::LOCALHOST.into());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(table.get_at(key, start), None);
        table.put_at(key, 7, start);
        assert_eq!(table.get_at(key, after(9)), Some(7));
        table.put_at(key, 7, after(9));
        assert_eq!(table.get_at(key, after(18)), Some(7));
        assert_eq!(table.get_at(key, after(19)), None);
        assert_eq!(table.key_of(b"a"), table.key_of(b"a"));
        assert_ne!(table.key_of(b"a"), table.key_of(b"b"));
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_its_size(size in 32_usize..500, keys in proptest::collection::vec(any::<u64>(), 0..2_000)) {
            let table = table(size);
            let now = Instant::now();
            for key in keys {
                table.put_at(key, 1, now);
                prop_assert_eq!(table.get_at(key, now), Some(1), "the latest is there");
            }
            let entries: usize = table.shards.iter().map(|shard| {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.young.len() + shard.old.len()
            }).sum();
            prop_assert!(entries <= size, "{} of {}", entries, size);
        }
    }
}

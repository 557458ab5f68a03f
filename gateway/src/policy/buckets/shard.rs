//! A part of the table of buckets, and which of its buckets goes when it is full.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::nanoseconds;

#[derive(Default)]
pub(super) struct Shard {
    places: HashMap<u128, u32, BuildHasherDefault<Prehashed>>,
    pub(super) buckets: Vec<Bucket>,
    /// How many each owner has here; none that has none. As many entries as there are tenants, and limiters of the operator's.
    owners: Vec<(u32, usize)>,
    random: u64,
}

#[derive(Clone, Copy)]
pub(super) struct Bucket {
    pub(super) key: u128,
    pub(super) full_at: u128,
    /// In nanoseconds: only good to choose by.
    pub(super) limits_until: u64,
    pub(super) owner: u32,
}

impl Shard {
    pub(super) fn find(&self, key: u128) -> Option<usize> {
        self.places.get(&key).map(|&place| place as usize)
    }

    pub(super) fn insert(&mut self, bucket: Bucket, now: u128, capacity: usize) {
        self.count_one_more(bucket.owner);
        let place = if self.buckets.len() < capacity {
            self.buckets.push(bucket);
            self.buckets.len() - 1
        } else {
            let place = self.least_of_a_handful(now, capacity);
            let old = std::mem::replace(&mut self.buckets[place], bucket);
            self.places.remove(&old.key);
            self.count_one_less(old.owner);
            place
        };
        self.places.insert(bucket.key, u32::try_from(place).unwrap_or(u32::MAX));
    }

    fn count_one_more(&mut self, owner: u32) {
        match self.owners.iter_mut().find(|(known, _)| *known == owner) {
            Some((_, count)) => *count += 1,
            None => self.owners.push((owner, 1)),
        }
    }

    fn count_one_less(&mut self, owner: u32) {
        if let Some(at) = self.owners.iter().position(|(known, _)| *known == owner) {
            self.owners[at].1 -= 1;
            if self.owners[at].1 == 0 {
                self.owners.swap_remove(at);
            }
        }
    }

    /// Buckets that are counted as somebody's.
    #[cfg(test)]
    pub(super) fn counted(&self) -> usize {
        self.owners.iter().map(|(_, count)| count).sum()
    }

    /// How much would be lost with a bucket; the least goes first.
    fn worth(&self, bucket: &Bucket, now: u128, share: usize) -> (bool, bool, bool, u128) {
        let full = bucket.full_at <= now;
        let count = self.owners.iter().find(|(owner, _)| *owner == bucket.owner);
        let within_share = count.is_none_or(|(_, count)| *count <= share);
        let limits = bucket.limits_until > nanoseconds(now);
        let until = if limits {
            u128::from(bucket.limits_until)
        } else {
            bucket.full_at
        };
        (!full, within_share, limits, until)
    }

    fn least_of_a_handful(&mut self, now: u128, capacity: usize) -> usize {
        // The new one is counted already, so somebody has more than this.
        let share = capacity / self.owners.len().max(1);
        let (mut best, mut least) = (0, None);
        for _ in 0..HANDFUL {
            // SplitMix64: good enough to pick with, and nobody gains by guessing it.
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.random;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            let place = usize::try_from(z % self.buckets.len() as u64).unwrap_or(0);
            let worth = self.worth(&self.buckets[place], now, share);
            if least.is_none_or(|least| worth < least) {
                (best, least) = (place, Some(worth));
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

/// Buckets looked at when one has to go: with half of them full, one that is not full goes once in 65,536.
const HANDFUL: usize = 16;

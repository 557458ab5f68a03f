//! Connections by where they come from: how many each source has at once, over all workers of a frontend.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::PerSource;

/// `max-connections-per-source`, as all workers share it. What is remembered is what is connected: a source without a
/// connection has no entry, so the table is never longer than there are connections.
#[derive(Debug)]
pub struct Sources {
    limit: PerSource,
    counts: Arc<Counts>,
}

/// A connection of a source; gives its place back when dropped.
#[derive(Debug)]
pub struct SourceSeat {
    counts: Arc<Counts>,
    source: IpAddr,
}

#[derive(Debug, Default)]
struct Counts {
    /// Keyed: nobody can choose addresses that collide.
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, u32, RandomState>>; SHARDS],
}

impl Sources {
    /// Counts on where `before` has got to, unless addresses are taken together otherwise now.
    pub fn new(limit: PerSource, before: Option<&Self>) -> Self {
        let together = |limit: &PerSource| (limit.ipv4_prefix, limit.ipv6_prefix);
        let known = before.filter(|before| together(&before.limit) == together(&limit));
        Self {
            limit,
            counts: known.map_or_else(Arc::default, |before| before.counts.clone()),
        }
    }

    /// A place for one more connection from this address. None when its source has as many as it may.
    pub fn take(&self, client: IpAddr) -> Option<SourceSeat> {
        let source = self.source(client);
        let mut shard = self.counts.shard(&source);
        let count = shard.entry(source).or_default();
        // One that has none has a limit of one at least: no entry stays that says nothing.
        if *count >= self.limit.most {
            return None;
        }
        *count += 1;
        drop(shard);
        Some(SourceSeat {
            counts: self.counts.clone(),
            source,
        })
    }

    /// The network that an address is counted with, as its first address.
    fn source(&self, client: IpAddr) -> IpAddr {
        match client.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.limit.ipv4_prefix))
                    .unwrap_or(0);
                IpAddr::V4((ip.to_bits() & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.limit.ipv6_prefix))
                    .unwrap_or(0);
                IpAddr::V6((ip.to_bits() & mask).into())
            }
        }
    }
}

impl Counts {
    fn shard(&self, source: &IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32, RandomState>> {
        let shard = usize::try_from(self.hasher.hash_one(source) % SHARDS as u64).unwrap_or(0);
        // Nothing panics between two changes.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SourceSeat {
    fn drop(&mut self) {
        let mut shard = self.counts.shard(&self.source);
        if let Entry::Occupied(mut entry) = shard.entry(self.source) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        // After a flood the room goes back.
        if shard.is_empty() && shard.capacity() > KEPT {
            shard.shrink_to_fit();
        }
    }
}

/// Workers seldom meet at the same lock, which is held for some tens of nanoseconds.
const SHARDS: usize = 16;

/// Entries that a shard without any keeps room for.
const KEPT: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(most: u32) -> PerSource {
        PerSource {
            most,
            ipv4_prefix: 24,
            ipv6_prefix: 64,
        }
    }

    fn entries(sources: &Sources) -> usize {
        let lengths = sources.counts.shards.iter().map(|shard| shard.lock().unwrap().len());
        lengths.sum()
    }

    #[test]
    fn addresses_are_counted_by_their_network() {
        let sources = Sources::new(limit(1), None);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let _held = sources.take(ip("192.0.2.1")).unwrap();
        assert!(sources.take(ip("192.0.2.255")).is_none());
        assert!(sources.take(ip("::ffff:192.0.2.9")).is_none());
        let _other = sources.take(ip("192.0.3.1")).unwrap();
        let _six = sources.take(ip("2001:db8::1")).unwrap();
        assert!(sources.take(ip("2001:db8::ffff:1")).is_none());
        assert!(sources.take(ip("2001:db8:0:1::1")).is_some());
        for (ipv4_prefix, ipv6_prefix, together) in [(0, 0, true), (32, 128, false)] {
            let limit = PerSource {
                most: 1,
                ipv4_prefix,
                ipv6_prefix,
            };
            let sources = Sources::new(limit, None);
            let _held = (
                sources.take(ip("10.0.0.1")).unwrap(),
                sources.take(ip("2001::1")).unwrap(),
            );
            assert_eq!(sources.take(ip("192.0.2.1")).is_none(), together);
            assert_eq!(sources.take(ip("fe80::1")).is_none(), together);
        }
    }

    #[test]
    fn a_reload_goes_on_counting_unless_networks_are_others() {
        let before = Sources::new(limit(1), None);
        let client = "192.0.2.1".parse().unwrap();
        let held = before.take(client).unwrap();
        let after = Sources::new(limit(2), Some(&before));
        let second = after.take(client).unwrap();
        assert!(after.take(client).is_none());
        drop(held);
        assert!(after.take(client).is_some());
        let whole = PerSource {
            ipv4_prefix: 32,
            ..limit(1)
        };
        assert!(Sources::new(whole, Some(&after)).take(client).is_some());
        drop(second);
        assert_eq!(entries(&after), 0);
    }

    proptest! {
        /// However they come and go: never more than the limit, and nothing is left when all have gone.
        #[test]
        fn counts_are_exact(steps in proptest::collection::vec((0_u8..6, any::<bool>()), 0..200), most in 1_u32..4) {
            let sources = Sources::new(limit(most), None);
            let mut held: Vec<Vec<SourceSeat>> = (0..6).map(|_| Vec::new()).collect();
            for (network, comes) in steps {
                let seats = &mut held[usize::from(network)];
                if comes {
                    let seat = sources.take(IpAddr::from([10, 0, network, 7]));
                    prop_assert_eq!(seat.is_some(), seats.len() < most as usize);
                    seats.extend(seat);
                } else {
                    seats.pop();
                }
                let expected = held.iter().filter(|seats| !seats.is_empty()).count();
                prop_assert_eq!(entries(&sources), expected);
            }
            drop(held);
            prop_assert_eq!(entries(&sources), 0);
        }
    }
}

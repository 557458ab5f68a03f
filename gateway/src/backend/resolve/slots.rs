//! Which of a name's addresses each server has: a server keeps its address for as long as the name has it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Resolver;

/// An address that a name has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub address: SocketAddr,
    /// The weight that its SRV record says; none for plain names.
    pub weight: Option<u16>,
    /// How far its SRV record's priority is behind the lowest: 0 for those that are used first, and for plain names.
    pub rank: u16,
}

/// What came of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The name has these addresses, for so long; at least one.
    Found(Vec<Found>, Duration),
    /// The name has these addresses among others, which nobody knows, for this reason; at least one.
    Partly(Vec<Found>, String),
    /// There is nothing of that name.
    Nothing,
    /// Nobody knows.
    Failed(String),
}

/// The servers of one name, and what they have.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Option<Found>>,
    /// Since when there has been no address in any answer.
    without: Option<Instant>,
    /// Since when no answer with addresses has been whole.
    partly: Option<Instant>,
    hold: Option<Duration>,
    hold_nx: Duration,
    min_ttl: Duration,
    max_ttl: Duration,
    retry: Duration,
}

impl Slots {
    /// Servers that have these addresses so far.
    pub(super) fn new(slots: Vec<Option<Found>>, resolver: &Resolver) -> Self {
        Self {
            slots,
            without: None,
            partly: None,
            hold: resolver.hold,
            hold_nx: resolver.hold_nx,
            min_ttl: resolver.min_ttl,
            max_ttl: resolver.max_ttl,
            retry: resolver.timeout.clamp(resolver.min_ttl, resolver.max_ttl),
        }
    }

    /// What the servers have, in their order.
    pub(super) fn found(&self) -> &[Option<Found>] {
        &self.slots
    }

    /// Takes an answer. Says when to ask again.
    pub(super) fn take(&mut self, answer: &Answer, now: Instant) -> Duration {
        let hold = match answer {
            Answer::Found(found, ttl) => {
                (self.without, self.partly) = (None, None);
                self.assign(found, false);
                return (*ttl).clamp(self.min_ttl, self.max_ttl);
            }
            Answer::Partly(found, _) => {
                self.without = None;
                let since = *self.partly.get_or_insert(now);
                // What is not in it may be what nobody knows now.
                let keeps = self.hold.is_none_or(|hold| now.duration_since(since) < hold);
                self.assign(found, keeps);
                return self.retry;
            }
            Answer::Nothing => Some(self.hold_nx),
            Answer::Failed(_) => self.hold,
        };
        let since = *self.without.get_or_insert(now);
        let held = now.duration_since(since);
        match hold {
            Some(hold) if held >= hold => {
                self.slots.fill(None);
                self.retry
            }
            Some(hold) => self.retry.min(hold - held),
            None => self.retry,
        }
    }

    /// Gives these addresses to servers. One whose address is not among them `keeps` it, or has none any more.
    fn assign(&mut self, found: &[Found], keeps: bool) {
        let mut left = Vec::with_capacity(found.len().min(MOST_ADDRESSES));
        for found in found.iter().filter(|found| is_usable(found.address.ip())) {
            if left.len() < MOST_ADDRESSES && !left.iter().any(|known: &Found| known.address == found.address) {
                left.push(*found);
            }
        }
        // When there are more than servers, those of the lowest priorities have them; of the same, those that are there.
        let had = |found: &Found| self.slots.iter().flatten().any(|had| had.address == found.address);
        left.sort_by_key(|found| (found.rank, !had(found)));
        left.truncate(self.slots.len());
        for slot in &mut self.slots {
            let kept = slot.and_then(|had| left.iter().position(|found| found.address == had.address));
            // What the record says of it may have changed.
            match kept {
                None if keeps => {}
                kept => *slot = kept.map(|at| left.remove(at)),
            }
        }
        let mut left = left.into_iter();
        for slot in self.slots.iter_mut().filter(|slot| slot.is_none()) {
            *slot = left.next();
        }
    }
}

/// Whether a server can be there. Zones that are told to block a name say 0.0.0.0.
pub(super) fn is_usable(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::from([255, 255, 255, 255])
}

/// Addresses of one name that are looked at. A name with more is no set of servers.
pub(super) const MOST_ADDRESSES: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    fn found(last: u8) -> Found {
        Found {
            address: SocketAddr::from(([10, 0, 0, last], 80)),
            weight: None,
            rank: 0,
        }
    }

    /// Addresses by their last byte, with how far their priorities are behind the lowest.
    fn ranked(all: &[(u8, u16)]) -> Answer {
        let found = all.iter().map(|&(last, rank)| Found { rank, ..found(last) });
        Answer::Found(found.collect(), Duration::from_secs(10))
    }

    fn all(last: &[u8]) -> Answer {
        Answer::Found(last.iter().copied().map(found).collect(), Duration::from_secs(10))
    }

    fn slots(count: usize) -> Slots {
        let resolver = Resolver {
            hold: Some(Duration::from_secs(60)),
            ..Resolver::default()
        };
        Slots::new(vec![None; count], &resolver)
    }

    fn has(slots: &Slots) -> Vec<Option<u8>> {
        let last = |found: Found| match found.address.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => 0,
        };
        slots.found().iter().map(|slot| slot.map(last)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_keeps_its_address_while_the_name_has_it() {
        let mut slots = slots(3);
        let now = Instant::now();
        slots.take(&all(&[1, 2]), now);
        assert_eq!(has(&slots), [Some(1), Some(2), None]);
        slots.take(&all(&[4, 3, 2]), now);
        assert_eq!(has(&slots), [Some(4), Some(2), Some(3)]);
        slots.take(&all(&[3]), now);
        assert_eq!(has(&slots), [None, None, Some(3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_lowest_priorities_have_the_servers_when_these_are_few() {
        let mut slots = slots(2);
        let now = Instant::now();
        slots.take(&ranked(&[(1, 10), (2, 0), (3, 10)]), now);
        assert_eq!(has(&slots), [Some(2), Some(1)]);
        // Of one priority those stay that are there.
        slots.take(&ranked(&[(3, 10), (1, 10), (2, 0)]), now);
        assert_eq!(has(&slots), [Some(2), Some(1)]);
        // One of a lower priority comes in the place of the last.
        slots.take(&ranked(&[(1, 10), (2, 0), (4, 5)]), now);
        assert_eq!(has(&slots), [Some(2), Some(4)]);
        // What a record says of it changes, and it stays where it is.
        slots.take(&ranked(&[(2, 7), (4, 0)]), now);
        assert_eq!(has(&slots), [Some(2), Some(4)]);
        let ranks = slots.found().iter().map(|slot| slot.map(|found| found.rank));
        assert_eq!(ranks.collect::<Vec<_>>(), [Some(7), Some(0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_is_held_for_as_long_as_may_be() {
        let mut slots = slots(1);
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        slots.take(&all(&[1]), start);
        let failed = Answer::Failed("dead".into());
        assert_eq!(slots.take(&failed, later(10)), Duration::from_secs(1));
        slots.take(&failed, later(69));
        assert_eq!(has(&slots), [Some(1)]);
        slots.take(&failed, later(70));
        assert_eq!(has(&slots), [None]);
        slots.take(&all(&[1]), later(71));
        slots.take(&Answer::Nothing, later(80));
        slots.take(&Answer::Nothing, later(109));
        assert_eq!(has(&slots), [Some(1)]);
        // An answer in between begins the time anew.
        slots.take(&all(&[1]), later(109));
        slots.take(&Answer::Nothing, later(110));
        assert_eq!(has(&slots), [Some(1)]);
        slots.take(&Answer::Nothing, later(140));
        assert_eq!(has(&slots), [None]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_of_a_name_is_taken_and_the_rest_held() {
        let mut slots = slots(3);
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let partly = |last: &[u8]| Answer::Partly(last.iter().copied().map(found).collect(), "dead".into());
        // At first, too: those that are known serve.
        assert_eq!(slots.take(&partly(&[1]), start), Duration::from_secs(1));
        assert_eq!(has(&slots), [Some(1), None, None]);
        slots.take(&all(&[1, 2]), later(10));
        slots.take(&partly(&[3]), later(20));
        assert_eq!(has(&slots), [Some(1), Some(2), Some(3)]);
        // There is no more room than servers, whoever comes.
        slots.take(&partly(&[4]), later(79));
        assert_eq!(has(&slots), [Some(1), Some(2), Some(3)]);
        // As long as the last whole answer is held.
        slots.take(&partly(&[4, 2]), later(80));
        assert_eq!(has(&slots), [Some(4), Some(2), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_the_last_answer_outlives_the_name_servers() {
        let mut slots = Slots::new(vec![None], &Resolver::default());
        let start = Instant::now();
        slots.take(&all(&[1]), start);
        let failed = Answer::Failed("dead".into());
        for day in 1..100 {
            slots.take(&failed, start + Duration::from_secs(day * 86400));
            assert_eq!(has(&slots), [Some(1)]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ttl_is_taken_within_bounds_and_lies_are_not_taken() {
        let mut slots = slots(2);
        let now = Instant::now();
        let answer = |ttl| Answer::Found(vec![found(1)], Duration::from_secs(ttl));
        assert_eq!(slots.take(&answer(0), now), Duration::from_secs(1));
        assert_eq!(slots.take(&answer(7), now), Duration::from_secs(7));
        assert_eq!(slots.take(&answer(u64::from(u32::MAX)), now), Duration::from_secs(60));
        let at = |ip: &str| Found {
            address: SocketAddr::new(ip.parse().unwrap(), 80),
            weight: None,
            rank: 0,
        };
        let lies = ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"]
            .map(at)
            .to_vec();
        slots.take(&Answer::Found(lies, Duration::ZERO), now);
        assert_eq!(slots.found(), [None, None]);
    }

    proptest! {
        #[test]
        fn servers_have_different_addresses_and_as_many_as_there_are(
            count in 1_usize..8,
            answers in proptest::collection::vec(proptest::collection::vec((1_u8..12, 0_u16..3), 1..20), 1..10),
        ) {
            let mut slots = slots(count);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let now = runtime.block_on(async { Instant::now() });
            for answer in answers {
                let before = has(&slots);
                slots.take(&ranked(&answer), now);
                let after = has(&slots);
                // The first record of an address is the one that counts.
                let there: HashMap<u8, u16> = answer.into_iter().rev().collect();
                let taken: Vec<u8> = after.iter().flatten().copied().collect();
                let distinct: HashSet<u8> = taken.iter().copied().collect();
                prop_assert_eq!(distinct.len(), taken.len());
                prop_assert_eq!(taken.len(), count.min(there.len()));
                prop_assert!(distinct.iter().all(|last| there.contains_key(last)));
                let highest = distinct.iter().map(|last| there[last]).max();
                for (last, rank) in &there {
                    prop_assert!(distinct.contains(last) || Some(*rank) >= highest, "{last} of {rank} is left out");
                }
                for (before, after) in before.iter().zip(&after) {
                    if before.is_some_and(|before| distinct.contains(&before)) {
                        prop_assert_eq!(before, after);
                    }
                }
            }
        }
    }
}

//! Answers that are known before the call.
//!
//! A component that asks the host for nothing, and remembers nothing, can only say again what it said to the same facts:
//! so it is not asked. Of strangers' components that is not known; of the gateway's own, `acl` and `header-rewrite` are such.
//! One that takes tokens and asks for nothing else, as `rate-limit`, takes them from the same bucket again: where all that it said
//! was what came of that, they are taken for it, and what comes of it is said.
//!
//! A worker keeps answers per attachment, each in the seat that its facts' hash leads to; where the last one was that was known is
//! looked at first. Facts are found again byte by byte, never by their hash alone: clients choose them. What was seen once only takes
//! the hash's place; an answer is kept from the second time on, so that facts which never come again (a path of its own for each
//! request) cost little.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use twox_hash::XxHash3_64;

use super::bindings::exports::gateway::policy::limiter::Verdict;
use super::bindings::gateway::policy::types;
use super::buckets::Buckets;
use super::edits::{Edits, Made};
use super::facts::Facts;
use super::takings::{Taking, Takings};

/// A worker's known answers of one attachment.
#[derive(Debug, Default)]
pub(super) struct Memo {
    /// As many as there may be, from the first call on.
    seats: Box<[Seat]>,
    /// Where the last answer that was known is, of each hook.
    last: [usize; u8::BITS as usize],
}

#[derive(Debug, Clone, Default)]
struct Seat {
    hash: u64,
    known: Option<Box<Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    hook: u8,
    index: Box<[u32]>,
    bytes: Box<[u8]>,
    said: Said,
}

/// What a component said.
#[derive(Debug, Clone)]
pub(super) enum Said {
    /// Which predicates hold.
    Bits(u64),
    /// That the message goes on with these edits.
    Edits(Edits),
    /// What comes of taking this, by a limiter's policy of this number.
    Taking(Taking, u32),
}

/// What there is of an answer.
pub(super) enum Recalled<'a> {
    /// It is known.
    Known(&'a Said),
    /// It is worth being kept, in this seat.
    Asked(Place),
    /// It is not, or not yet.
    Unknown,
}

/// Where an answer is to be kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize);

/// An answer that may be kept.
pub(super) trait Repeatable: Sized {
    /// What is to be kept of it, of the edits that came with it and of what the call has taken.
    fn said(&self, edits: &Edits, takings: &Takings) -> Option<Said>;

    /// The same again. What it takes is taken.
    fn again<'a>(said: &'a Said, buckets: &Buckets) -> Option<(Self, Made<'a>)>;
}

impl Memo {
    /// What is known of these facts, as a hook of this bit is asked; of `most` answers in all.
    pub(super) fn recall(&mut self, hook: u8, facts: &Facts, most: usize) -> Recalled<'_> {
        let facts = facts.lowered();
        if most == 0 || facts.bytes.len() > MOST_FACTS || facts.index.len() > 3 * MOST_VALUES {
            return Recalled::Unknown;
        }
        if self.seats.is_empty() {
            self.seats = vec![Seat::default(); most].into_boxed_slice();
        }
        // Those of one client, and all that are empty, are the same again and again.
        let last = hook.trailing_zeros() as usize % self.last.len();
        let mut place = self.last[last];
        if !self.is_known(place, hook, &facts) {
            // Where a value ends is no part of the hash: facts that differ in that alone take each other's seat.
            let hash = XxHash3_64::oneshot_with_seed(*SEED ^ u64::from(hook), facts.bytes);
            place = usize::try_from(hash % self.seats.len() as u64).unwrap_or(0);
            let seat = &mut self.seats[place];
            if seat.hash != hash {
                *seat = Seat { hash, known: None };
                return Recalled::Unknown;
            }
            if !self.is_known(place, hook, &facts) {
                return Recalled::Asked(Place(place));
            }
            self.last[last] = place;
        }
        match self.seats.get(place).and_then(|seat| seat.known.as_ref()) {
            Some(known) => Recalled::Known(&known.said),
            None => Recalled::Unknown,
        }
    }

    /// Whether what lies there was said by this hook to these facts.
    #[inline]
    fn is_known(&self, place: usize, hook: u8, facts: &types::Facts<'_>) -> bool {
        let known = self.seats.get(place).and_then(|seat| seat.known.as_ref());
        known.is_some_and(|known| known.hook == hook && *known.index == *facts.index && *known.bytes == *facts.bytes)
    }

    /// Keeps an answer of a hook of this bit to the facts that were just asked about.
    pub(super) fn keep(&mut self, place: Place, hook: u8, facts: &Facts, said: Said) {
        let facts = facts.lowered();
        if let Some(seat) = self.seats.get_mut(place.0) {
            seat.known = Some(Box::new(Known {
                hook,
                index: facts.index.into(),
                bytes: facts.bytes.into(),
                said,
            }));
        }
    }
}

impl Repeatable for u64 {
    fn said(&self, _: &Edits, takings: &Takings) -> Option<Said> {
        (*takings == Takings::Nothing).then_some(Said::Bits(*self))
    }

    fn again<'a>(said: &'a Said, _: &Buckets) -> Option<(Self, Made<'a>)> {
        match said {
            Said::Bits(bits) => Some((*bits, Made::Nothing)),
            Said::Edits(_) | Said::Taking(..) => None,
        }
    }
}

impl Repeatable for Option<Verdict> {
    fn said(&self, _: &Edits, takings: &Takings) -> Option<Said> {
        match (self, takings) {
            (Some(verdict), Takings::Once(taking, taken)) if *verdict == taking.verdict(*taken, verdict.policy) => {
                Some(Said::Taking(*taking, verdict.policy))
            }
            _ => None,
        }
    }

    fn again<'a>(said: &'a Said, buckets: &Buckets) -> Option<(Self, Made<'a>)> {
        match said {
            Said::Taking(taking, policy) => {
                let verdict = taking.verdict(taking.make(buckets), *policy);
                Some((Some(verdict), Made::Nothing))
            }
            Said::Bits(_) | Said::Edits(_) => None,
        }
    }
}

impl Repeatable for types::Outcome {
    fn said(&self, edits: &Edits, takings: &Takings) -> Option<Said> {
        match self {
            Self::Proceed => edits.kept(takings),
            // Seldom, and not small.
            Self::Route(_) | Self::Reply(_) | Self::Call(_) => None,
        }
    }

    fn again<'a>(said: &'a Said, _: &Buckets) -> Option<(Self, Made<'a>)> {
        match said {
            Said::Edits(edits) => Some((Self::Proceed, Made::Again(edits))),
            Said::Bits(_) | Said::Taking(..) => None,
        }
    }
}

impl Repeatable for Option<types::Reply> {
    fn said(&self, edits: &Edits, takings: &Takings) -> Option<Said> {
        match self {
            None => edits.kept(takings),
            Some(_) => None,
        }
    }

    fn again<'a>(said: &'a Said, _: &Buckets) -> Option<(Self, Made<'a>)> {
        match said {
            Said::Edits(edits) => Some((None, Made::Again(edits))),
            Said::Bits(_) | Said::Taking(..) => None,
        }
    }
}

impl Edits {
    fn kept(&self, takings: &Takings) -> Option<Said> {
        let is_small = self.bytes() <= MOST_EDIT_BYTES && self.len() <= MOST_EDITS;
        (is_small && *takings == Takings::Nothing).then(|| Said::Edits(self.clone()))
    }
}

/// Nobody can choose facts that share a seat.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(()));

/// Bytes of facts beyond which no answer is kept: more than a path, a host, a cookie and some fields have.
const MOST_FACTS: usize = 1024;

/// Values among them, each of which has three numbers in the index, however short it is: a client can send many empty ones.
const MOST_VALUES: usize = 64;

/// Edits beyond which no answer is kept, and their bytes.
const MOST_EDITS: usize = 16;
const MOST_EDIT_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::buckets::Rate;
    use super::super::clock::Clock;
    use super::*;

    fn buckets() -> Buckets {
        Buckets::new(10, Clock::machine())
    }

    fn facts(values: &[(u32, &str)]) -> Facts {
        let mut facts = Facts::default();
        for (need, value) in values {
            facts.push(*need, value.as_bytes());
        }
        facts
    }

    /// What a component that says `bits` is found to have said, if it need not be asked.
    fn ask(memo: &mut Memo, hook: u8, facts: &Facts, bits: u64) -> Option<u64> {
        let place = match memo.recall(hook, facts, 8) {
            Recalled::Known(said) => return u64::again(said, &buckets()).map(|(bits, _)| bits),
            Recalled::Asked(place) => place,
            Recalled::Unknown => return None,
        };
        memo.keep(place, hook, facts, Said::Bits(bits));
        None
    }

    #[test]
    fn from_the_third_time_on_the_answer_is_known() {
        let (mut memo, facts) = (Memo::default(), facts(&[(0, "/a"), (1, "host")]));
        assert_eq!(ask(&mut memo, 1, &facts, 5), None);
        assert_eq!(ask(&mut memo, 1, &facts, 5), None);
        assert_eq!(ask(&mut memo, 1, &facts, 7), Some(5));
    }

    #[test]
    fn facts_are_the_same_when_every_value_of_every_need_is() {
        let of = facts(&[(0, "ab"), (1, "c")]);
        for other in [
            facts(&[(0, "a"), (1, "bc")]),
            facts(&[(0, "ab"), (2, "c")]),
            facts(&[(0, "abc")]),
            facts(&[(0, "ab"), (1, "c"), (2, "")]),
            facts(&[(0, "ab"), (1, "d")]),
        ] {
            let mut memo = Memo::default();
            for _ in 0..3 {
                ask(&mut memo, 1, &of, 5);
            }
            assert_eq!(ask(&mut memo, 1, &of, 7), Some(5));
            assert_eq!(ask(&mut memo, 1, &other, 7), None, "{other:?}");
        }
    }

    #[test]
    fn hooks_do_not_know_each_others_answers() {
        let (mut memo, facts) = (Memo::default(), facts(&[(0, "/a")]));
        for _ in 0..3 {
            ask(&mut memo, 1, &facts, 5);
        }
        assert_eq!(ask(&mut memo, 4, &facts, 7), None);
    }

    #[test]
    fn what_comes_in_turn_is_known_though_it_was_not_the_last() {
        let in_turn = |other: u64| {
            let mut memo = Memo::default();
            let mut both = || [1, other].map(|path| ask(&mut memo, 1, &facts(&[(0, &format!("/{path}"))]), path));
            (0..2).for_each(|_| assert_eq!(both(), [None, None]));
            (0..2).map(|_| both()).all(|known| known == [Some(1), Some(other)])
        };
        // Unless they have one seat between them.
        assert!((2..64).any(in_turn));
    }

    #[test]
    fn there_are_no_more_than_may_be_and_none_of_what_is_large() {
        let mut memo = Memo::default();
        for _ in 0..3 {
            for path in 0..1000 {
                ask(&mut memo, 1, &facts(&[(0, &format!("/{path}"))]), path);
            }
        }
        assert_eq!(memo.seats.len(), 8);
        let large = facts(&[(0, &"x".repeat(MOST_FACTS + 1))]);
        let many = facts(&[(0, ""); MOST_VALUES + 1]);
        let none = facts(&[(0, "x")]);
        for _ in 0..3 {
            assert!(matches!(memo.recall(1, &large, 8), Recalled::Unknown));
            assert!(matches!(memo.recall(1, &many, 8), Recalled::Unknown));
            assert!(matches!(Memo::default().recall(1, &none, 0), Recalled::Unknown));
        }
    }

    #[test]
    fn only_edits_of_messages_that_go_on_are_kept() {
        let mut edits = Edits::default();
        edits.set_header("x-edge", b"one").unwrap();
        let (nothing, proceeds) = (Takings::Nothing, types::Outcome::Proceed);
        let said = proceeds.said(&edits, &nothing).unwrap();
        let (outcome, _) = types::Outcome::again(&said, &buckets()).unwrap();
        assert!(matches!(outcome, types::Outcome::Proceed));
        assert!(types::Outcome::Route("b".to_owned()).said(&edits, &nothing).is_none());
        edits.set_header("x-large", &[b'x'; MOST_EDIT_BYTES]).unwrap();
        assert!(proceeds.said(&edits, &nothing).is_none());
    }

    #[test]
    fn of_what_takes_tokens_only_that_is_kept_which_says_what_came_of_it() {
        let (buckets, edits) = (buckets(), Edits::default());
        let taking = Taking {
            place: buckets.namespace("n", None).place("b", b"k"),
            rate: Rate {
                tokens: 1,
                period_ms: 3_600_000,
                burst: 4,
            },
            tokens: 1,
        };
        let taken = taking.make(&buckets);
        let (once, verdict) = (Takings::Once(taking, taken), taking.verdict(taken, 2));
        let said = Some(verdict).said(&edits, &once).unwrap();
        for (allowed, remaining) in [(true, 2), (true, 1), (true, 0), (false, 0), (false, 0)] {
            let (again, _) = <Option<Verdict>>::again(&said, &buckets).unwrap();
            let again = again.unwrap();
            assert_eq!((again.policy, again.allowed, again.remaining), (2, allowed, remaining));
            assert_eq!(again.retry_after_ms == 0, allowed);
        }
        // It has added something of its own, or taken more or nothing.
        let other = Verdict {
            remaining: verdict.remaining + 1,
            ..verdict
        };
        assert!(Some(other).said(&edits, &once).is_none());
        assert!(None::<Verdict>.said(&edits, &once).is_none());
        for takings in [Takings::Nothing, Takings::More] {
            assert!(Some(verdict).said(&edits, &takings).is_none());
        }
        // What else depends on what is there.
        assert!(5_u64.said(&edits, &once).is_none());
        assert!(types::Outcome::Proceed.said(&edits, &once).is_none());
        assert!(None::<types::Reply>.said(&edits, &once).is_none());
    }
}

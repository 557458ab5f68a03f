//! What a component takes from token buckets in one call: looked at where its answer may be known before the next one.

use super::bindings::exports::gateway::policy::limiter::Verdict;
use super::buckets::{Buckets, Place, Rate, Taken};

/// So many tokens of one bucket, which fills like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taking {
    pub(crate) place: Place,
    pub(crate) rate: Rate,
    pub(crate) tokens: u32,
}

/// What one call has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Takings {
    /// Nothing.
    #[default]
    Nothing,
    /// This, and what came of it.
    Once(Taking, Taken),
    /// More than that, or of a limit that responses take from.
    More,
}

impl Taking {
    /// Takes them, if they are there.
    pub(crate) fn make(&self, buckets: &Buckets) -> Taken {
        buckets.take(self.place, self.rate, self.tokens)
    }

    /// What a limiter says, by this one of its policies, who says what came of this and nothing else.
    pub(super) fn verdict(&self, taken: Taken, policy: u32) -> Verdict {
        Verdict {
            allowed: taken.allowed,
            policy,
            remaining: taken.remaining,
            reset_ms: self.rate.full_in_ms(taken.remaining),
            retry_after_ms: taken.retry_after_ms,
        }
    }
}

impl Takings {
    /// The call takes this, too.
    pub(crate) fn add(&mut self, taking: Taking, taken: Taken) {
        *self = match self {
            Self::Nothing => Self::Once(taking, taken),
            Self::Once(..) | Self::More => Self::More,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Clock;
    use super::*;

    #[test]
    fn what_is_taken_twice_is_no_taking_of_once() {
        let buckets = Buckets::new(10, Clock::machine());
        let taking = Taking {
            place: buckets.namespace("n", None).place("b", b"k"),
            rate: Rate {
                tokens: 2,
                period_ms: 3_600_000,
                burst: 3,
            },
            tokens: 1,
        };
        let mut takings = Takings::default();
        let taken = taking.make(&buckets);
        takings.add(taking, taken);
        assert_eq!(takings, Takings::Once(taking, taken));
        // Two tokens arrive in an hour.
        let verdict = taking.verdict(taken, 4);
        assert_eq!((verdict.allowed, verdict.policy, verdict.remaining), (true, 4, 2));
        assert_eq!((verdict.reset_ms, verdict.retry_after_ms), (1_800_000, 0));
        takings.add(taking, taken);
        assert_eq!(takings, Takings::More);
    }
}

//! The state of a server's health: results in, transitions out.

/// What is believed of a server, and how many results in a row speak against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    is_up: bool,
    against: u32,
    rise: u32,
    fall: u32,
}

/// A change of what is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    /// `rise` checks in a row passed.
    Up,
    /// `fall` checks in a row failed.
    Down,
}

impl Health {
    /// A server that is up or down so far.
    pub(super) fn new(is_up: bool, rise: u32, fall: u32) -> Self {
        Self {
            is_up,
            against: 0,
            rise: rise.max(1),
            fall: fall.max(1),
        }
    }

    /// Takes a check's result.
    pub(super) fn observe(&mut self, passed: bool) -> Option<Transition> {
        if passed == self.is_up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if self.is_up { self.fall } else { self.rise };
        if self.against < needed {
            return None;
        }
        self.is_up = passed;
        self.against = 0;
        Some(if passed { Transition::Up } else { Transition::Down })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn goes_down_after_fall_failures_in_a_row_and_up_after_rise_passes() {
        let mut health = Health::new(true, 2, 3);
        let mut seen = Vec::new();
        for passed in [
            false, false, true, false, false, false, false, true, false, true, true, true,
        ] {
            seen.push(health.observe(passed));
        }
        let (up, down) = (Some(Transition::Up), Some(Transition::Down));
        assert_eq!(
            seen,
            [None, None, None, None, None, down, None, None, None, None, up, None]
        );
    }

    #[test]
    fn one_result_is_enough_where_zero_or_one_was_asked_for() {
        let mut health = Health::new(true, 0, 1);
        assert_eq!(health.observe(false), Some(Transition::Down));
        assert_eq!(health.observe(true), Some(Transition::Up));
    }

    proptest! {
        #[test]
        fn a_transition_comes_exactly_when_that_many_in_a_row_contradict(
            results in proptest::collection::vec(any::<bool>(), 0..200),
            rise in 1_u32..5,
            fall in 1_u32..5,
        ) {
            let mut health = Health::new(true, rise, fall);
            let mut is_up = true;
            let mut since = 0;
            for (at, &passed) in results.iter().enumerate() {
                let needed = if is_up { fall } else { rise } as usize;
                let run = results[since..=at].iter().rev().take_while(|&&result| result != is_up).count();
                let expected = (run == needed).then_some(if is_up { Transition::Down } else { Transition::Up });
                prop_assert_eq!(health.observe(passed), expected);
                if expected.is_some() {
                    is_up = !is_up;
                    since = at + 1;
                }
            }
        }
    }
}

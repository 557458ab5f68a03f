//! The state of a server's health: results in, transitions out.

use crate::config::{InitialState, Schedule};

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

/// How soon to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// It is up, and nothing speaks against that.
    Steady,
    /// The last results speak against what is believed.
    Changing,
    /// It is down, and nothing speaks against that.
    Down,
}

impl Health {
    /// What is believed before the first result.
    pub(super) fn new(schedule: &Schedule) -> Self {
        let (rise, fall) = (schedule.rise.max(1), schedule.fall.max(1));
        let (is_up, against) = match schedule.initial {
            InitialState::FullyUp => (true, 0),
            InitialState::Up => (true, fall - 1),
            InitialState::FullyDown => (false, 0),
            InitialState::Down => (false, rise - 1),
        };
        Self {
            is_up,
            against,
            rise,
            fall,
        }
    }

    /// What earlier checks found out, before this configuration was: how many in a row speak `against` what they believed.
    /// It takes one more at least.
    pub(super) fn known(schedule: &Schedule, is_up: bool, against: u32) -> Self {
        let new = Self::new(schedule);
        let needed = if is_up { new.fall } else { new.rise };
        Self {
            is_up,
            against: against.min(needed - 1),
            ..new
        }
    }

    /// How many results in a row speak against what is believed.
    pub(super) fn against(&self) -> u32 {
        self.against
    }

    /// Whether it is believed to be up.
    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// How soon to look again.
    pub(super) fn pace(&self) -> Pace {
        match (self.against, self.is_up) {
            (0, true) => Pace::Steady,
            (0, false) => Pace::Down,
            _ => Pace::Changing,
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

    /// Something else than a check shows that a server which was up is not.
    pub(super) fn fail(&mut self) -> Option<Transition> {
        let was_up = std::mem::replace(&mut self.is_up, false);
        self.against = 0;
        was_up.then_some(Transition::Down)
    }

    /// From here one more failed check takes a server down that is up.
    pub(super) fn doubt(&mut self) {
        if self.is_up {
            self.against = self.fall - 1;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::health::test_schedule;

    #[test]
    fn goes_down_after_fall_failures_in_a_row_and_up_after_rise_passes() {
        let mut health = Health::known(&test_schedule(2, 3), true, 0);
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
        let mut health = Health::known(&test_schedule(0, 1), true, 0);
        assert_eq!(health.observe(false), Some(Transition::Down));
        assert_eq!(health.observe(true), Some(Transition::Up));
    }

    #[test]
    fn the_initial_state_says_how_many_results_change_it() {
        let needed = |initial, passed| {
            let schedule = Schedule {
                initial,
                ..test_schedule(2, 3)
            };
            let mut health = Health::new(&schedule);
            (1..).find(|_| health.observe(passed).is_some()).unwrap()
        };
        assert_eq!(needed(InitialState::Up, false), 1);
        assert_eq!(needed(InitialState::FullyUp, false), 3);
        assert_eq!(needed(InitialState::Down, true), 1);
        assert_eq!(needed(InitialState::FullyDown, true), 2);
        // What agrees with it settles it.
        let mut health = Health::new(&test_schedule(2, 3));
        assert_eq!(health.pace(), Pace::Changing);
        assert_eq!(health.observe(true), None);
        assert_eq!((health.pace(), health.observe(false)), (Pace::Steady, None));
    }

    #[test]
    fn doubt_leaves_one_check_and_failing_leaves_none() {
        let mut health = Health::known(&test_schedule(2, 3), true, 0);
        health.doubt();
        assert_eq!(health.pace(), Pace::Changing);
        assert_eq!(health.observe(false), Some(Transition::Down));
        health.doubt();
        assert_eq!((health.pace(), health.fail()), (Pace::Down, None));
        assert_eq!(health.observe(true), None);
        assert_eq!(health.observe(true), Some(Transition::Up));
        assert_eq!(health.fail(), Some(Transition::Down));
    }

    proptest! {
        #[test]
        fn a_transition_comes_exactly_when_that_many_in_a_row_contradict(
            results in proptest::collection::vec(any::<bool>(), 0..200),
            rise in 1_u32..5,
            fall in 1_u32..5,
        ) {
            let mut health = Health::known(&test_schedule(rise, fall), true, 0);
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

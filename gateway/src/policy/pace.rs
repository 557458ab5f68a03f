//! Whether a plugin's calls are quick enough for the workers, where everybody's requests wait behind them, or are made beside
//! them, by the [crew](super::Crew). Setting instances up has a pace of its own: one that is slow with it and quick otherwise is
//! called by the workers, with instances that the crew has made.
//!
//! Workers call every plugin at first. A call that is found to take more CPU time than a quick one may (`policy slow-call=`)
//! has all later calls of that use made by the crew, until they have been quick for a while. Finding it out costs quick
//! calls nothing: the epoch's tick, which looks in on whoever runs, tells for sure of most slow calls. Of one that sees no tick,
//! as it spends its time in the host's functions or in one long instruction, the clock on the wall tells that it may have been
//! slow; the next ones are measured by the thread's own clock then, since being set aside by the system is nobody's fault.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where the calls of one use of a plugin are made, or its instances, and why.
#[derive(Debug)]
pub(super) struct Pace {
    /// CPU time of a call that is still quick; none where the calls' place is settled.
    slow: Option<Duration>,
    state: AtomicU8,
    history: Mutex<History>,
}

/// CPU time that a call took, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Took {
    pub(super) at_least: Duration,
    pub(super) at_most: Duration,
}

/// What becomes of later calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// They are made where this one was.
    Stays,
    /// The crew makes them.
    Beside,
    /// The workers make them again.
    Back,
}

#[derive(Debug)]
struct History {
    /// Calls that are measured yet while [`WATCHED`].
    watched: u32,
    /// How many were to be when it last came to that, and when.
    suspected: (u32, Option<Instant>),
    /// When a call was last slow.
    slow_at: Option<Instant>,
    /// How long calls have to be quick before the workers make them again.
    stay: Duration,
    /// When they last went back.
    back_at: Option<Instant>,
}

impl Pace {
    /// The workers make all calls, however long they take: those of the gateway's own components.
    pub(super) fn of_workers() -> Self {
        Self::new(None, ON_WORKERS)
    }

    /// The crew makes all calls.
    pub(super) fn of_crew() -> Self {
        Self::new(None, BESIDE)
    }

    /// The workers make calls as long as they take no more CPU time than this.
    pub(super) fn by_calls(slow: Duration) -> Self {
        Self::new(Some(slow), ON_WORKERS)
    }

    fn new(slow: Option<Duration>, state: u8) -> Self {
        let history = History {
            watched: 0,
            suspected: (0, None),
            slow_at: None,
            stay: FIRST_STAY,
            back_at: None,
        };
        Self {
            slow,
            state: AtomicU8::new(state),
            history: Mutex::new(history),
        }
    }

    /// Whether the crew makes the calls.
    #[inline]
    pub(super) fn is_beside(&self) -> bool {
        self.state.load(Ordering::Relaxed) == BESIDE
    }

    /// Whether it does as calls have been slow, and not since it was said so.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.is_some() && self.is_beside()
    }

    /// Whether a call is to be measured by its thread's own clock, which takes two calls of the system.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.state.load(Ordering::Relaxed) != ON_WORKERS && self.slow.is_some()
    }

    /// A call is over.
    #[inline]
    pub(super) fn called(&self, took: Took) -> Move {
        let Some(slow) = self.slow else { return Move::Stays };
        if self.state.load(Ordering::Relaxed) == ON_WORKERS && took.at_most <= slow {
            return Move::Stays;
        }
        self.weigh(slow, took, Instant::now())
    }

    /// What a call says that may have been slow, or that was measured.
    #[cold]
    fn weigh(&self, slow: Duration, took: Took, now: Instant) -> Move {
        let mut history = self.history();
        let state = self.state.load(Ordering::Relaxed);
        if took.at_least > slow {
            if state == BESIDE {
                history.slow_at = Some(now);
                return Move::Stays;
            }
            history.leave(now);
            self.set(BESIDE);
            return Move::Beside;
        }
        let was_quick = took.at_most <= slow;
        match state {
            ON_WORKERS if !was_quick => {
                history.suspect(now);
                self.set(WATCHED);
            }
            WATCHED if was_quick => {
                history.watched = history.watched.saturating_sub(1);
                if history.watched == 0 {
                    self.set(ON_WORKERS);
                }
            }
            BESIDE if was_quick && history.has_been_quick(now) => {
                history.back_at = Some(now);
                self.set(ON_WORKERS);
                return Move::Back;
            }
            _ => {}
        }
        Move::Stays
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Took {
    pub(super) const fn exactly(time: Duration) -> Self {
        Self {
            at_least: time,
            at_most: time,
        }
    }
}

impl History {
    /// A call was slow: from now on they are made beside the workers, the longer the sooner it comes to that again.
    fn leave(&mut self, now: Instant) {
        let was_back = self.back_at.map(|back| now.saturating_duration_since(back));
        self.stay = match was_back {
            Some(time) if time < 2 * self.stay => (2 * self.stay).min(LONGEST_STAY),
            _ => FIRST_STAY,
        };
        self.slow_at = Some(now);
    }

    /// A call may have been slow: the next are measured, the more the sooner it comes to that again. Who is slow once in so many
    /// calls, and knows how many are measured, does not get away with it for long.
    fn suspect(&mut self, now: Instant) {
        let (calls, when) = self.suspected;
        let is_soon = when.is_some_and(|when| now.saturating_duration_since(when) < LONGEST_STAY);
        self.watched = match is_soon {
            true => (2 * calls).min(MOST_MEASURED),
            false => MEASURED,
        };
        self.suspected = (self.watched, Some(now));
    }

    fn has_been_quick(&self, now: Instant) -> bool {
        self.slow_at
            .is_none_or(|slow_at| now.saturating_duration_since(slow_at) >= self.stay)
    }
}

/// Workers make the calls.
const ON_WORKERS: u8 = 0;
/// And measure them, as one may have been slow.
const WATCHED: u8 = 1;
/// The crew makes them.
const BESIDE: u8 = 2;

/// Enough to find out who spends his time where no tick sees him, and soon over for who was only set aside.
const MEASURED: u32 = 16;
/// Measuring each call of a worker that has nothing else to do costs it some thousandths.
const MOST_MEASURED: u32 = 1 << 20;

/// A plugin that is slow once in a while makes others wait once in a while: with calls of ten milliseconds a thousandth of
/// the time at first, and a sixty-thousandth once it has come to that again and again.
const FIRST_STAY: Duration = Duration::from_secs(10);
const LONGEST_STAY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_micros(250);
    const LONG: Duration = Duration::from_millis(5);
    const SHORT: Duration = Duration::from_micros(3);
    const PERHAPS: Took = Took {
        at_least: Duration::ZERO,
        at_most: LONG,
    };

    #[test]
    fn a_call_that_was_surely_slow_has_the_next_made_beside_the_workers() {
        let pace = Pace::by_calls(SLOW);
        assert_eq!(pace.called(Took::exactly(SLOW)), Move::Stays);
        assert!(!pace.is_beside());
        assert_eq!(pace.called(Took::exactly(LONG)), Move::Beside);
        assert!(pace.is_beside() && pace.is_slow());
        // Who was on a worker meanwhile is not told again.
        assert_eq!(pace.called(Took::exactly(LONG)), Move::Stays);
    }

    #[test]
    fn a_call_that_may_have_waited_only_has_the_next_measured() {
        let pace = Pace::by_calls(SLOW);
        assert!(!pace.is_watched());
        assert_eq!(pace.called(PERHAPS), Move::Stays);
        assert!(pace.is_watched() && !pace.is_beside());
        for _ in 0..MEASURED {
            pace.called(Took::exactly(SHORT));
        }
        // The next time that comes to that soon, twice as many are measured.
        for measured in [2 * MEASURED, 4 * MEASURED] {
            pace.called(PERHAPS);
            for _ in 0..measured {
                assert!(pace.is_watched());
                assert_eq!(pace.called(Took::exactly(SHORT)), Move::Stays);
            }
            assert!(!pace.is_watched() && !pace.is_beside());
        }
        pace.called(PERHAPS);
        assert_eq!(pace.called(Took::exactly(LONG)), Move::Beside);
    }

    #[test]
    fn what_has_been_quick_for_long_enough_goes_back_and_for_longer_each_time() {
        let pace = Pace::by_calls(SLOW);
        let mut now = Instant::now();
        let mut stay = FIRST_STAY;
        for _ in 0..10 {
            assert_eq!(pace.weigh(SLOW, Took::exactly(LONG), now), Move::Beside);
            now += stay - Duration::from_millis(1);
            assert_eq!(pace.weigh(SLOW, Took::exactly(SHORT), now), Move::Stays);
            assert!(pace.is_slow());
            // One more that is slow begins it anew.
            assert_eq!(pace.weigh(SLOW, Took::exactly(LONG), now), Move::Stays);
            now += Duration::from_millis(1);
            assert_eq!(pace.weigh(SLOW, Took::exactly(SHORT), now), Move::Stays);
            now += stay;
            assert_eq!(pace.weigh(SLOW, Took::exactly(SHORT), now), Move::Back);
            assert!(!pace.is_slow());
            stay = (2 * stay).min(LONGEST_STAY);
        }
        assert_eq!(stay, LONGEST_STAY);
        // Much later it begins from the start.
        now += 2 * LONGEST_STAY;
        assert_eq!(pace.weigh(SLOW, Took::exactly(LONG), now), Move::Beside);
        now += FIRST_STAY;
        assert_eq!(pace.weigh(SLOW, Took::exactly(SHORT), now), Move::Back);
    }

    #[test]
    fn a_place_that_is_settled_stays() {
        let (own, heavy) = (Pace::of_workers(), Pace::of_crew());
        for took in [Took::exactly(LONG), PERHAPS, Took::exactly(SHORT)] {
            assert_eq!((own.called(took), heavy.called(took)), (Move::Stays, Move::Stays));
        }
        assert!(!own.is_beside() && heavy.is_beside());
        assert!(!own.is_watched() && !heavy.is_watched() && !heavy.is_slow());
    }
}

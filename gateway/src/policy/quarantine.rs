//! Leaves a plugin alone that does nothing but fail, and tries it again now and then.
//!
//! After so many failures in a row no call is made for a while; then one call goes through to see (the half-open state of a
//! circuit breaker). When that fails, too, the next while is twice as long, up to a bound. The first success ends it.
//!
//! Per use of a plugin, over all workers: nobody else's plugin is touched. While nothing fails it costs one read of a word
//! that nobody writes.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::QuarantineSettings;

/// The state of one use of a plugin.
#[derive(Debug)]
pub(super) struct Quarantine {
    settings: QuarantineSettings,
    start: Instant,
    /// What happens to it, one thing after the other. Calls that go well do not look here.
    course: Mutex<Course>,
    /// Copies of what stands in there, written with it locked, for those who only want to know whether there is anything.
    failures: AtomicU32,
    until: AtomicU64,
    is_on: AtomicBool,
    begun: AtomicU64,
}

/// How it is going.
#[derive(Debug, Default)]
struct Course {
    /// Failures since the last success.
    failures: u32,
    /// The hooks that have failed since then, a bit each: the success of another one says nothing of them.
    failed: u16,
    /// How often the while has been doubled.
    doublings: u32,
    /// The end of the while, in nanoseconds from the start; 0 when there is none.
    until: u64,
    /// A probe is under way.
    probing: bool,
}

/// What a failure or a success changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// From now on calls are refused, for this long.
    Begins(Duration),
    /// It works again.
    Ends,
}

impl Quarantine {
    pub(super) fn new(settings: QuarantineSettings) -> Self {
        Self {
            settings,
            start: Instant::now(),
            course: Mutex::default(),
            failures: AtomicU32::new(0),
            until: AtomicU64::new(0),
            is_on: AtomicBool::new(false),
            begun: AtomicU64::new(0),
        }
    }

    /// Whether a call may be made. After a while one caller is let through, as a probe; the others wait for what becomes of it.
    #[inline]
    pub(super) fn admits(&self) -> bool {
        self.until.load(Ordering::Relaxed) == 0 || self.probes(Instant::now())
    }

    #[cold]
    fn probes(&self, now: Instant) -> bool {
        let now = self.at(now);
        // Most of those that are refused wait for nobody.
        if now < self.until.load(Ordering::Relaxed) {
            return false;
        }
        let mut course = self.course();
        if course.until == 0 {
            return true;
        }
        if now < course.until {
            return false;
        }
        // A probe that never comes back (its exchange was abandoned) must not be the last one.
        course.until = now.saturating_add(nanos(self.wait(&course)));
        course.probing = true;
        self.show(&course);
        true
    }

    /// A call of this hook succeeded.
    #[inline]
    pub(super) fn succeeded(&self, hook: u16) -> Change {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return Change::None;
        }
        self.recover(hook)
    }

    #[cold]
    fn recover(&self, hook: u16) -> Change {
        let mut course = self.course();
        if course.failed != 0 && course.failed & hook == 0 {
            // It says nothing of what failed. The one call that was let through was of another hook: the next is a probe, too, so
            // that the exchange comes to the hook that failed.
            if course.until != 0 && course.probing {
                course.until = self.at(Instant::now()).max(1);
                self.show(&course);
            }
            return Change::None;
        }
        let was_on = course.until != 0;
        *course = Course::default();
        self.show(&course);
        match was_on {
            true => Change::Ends,
            false => Change::None,
        }
    }

    /// A call of this hook failed; or, with no bit, a set-up.
    #[cold]
    pub(super) fn failed(&self, hook: u16) -> Change {
        self.failed_at(hook, Instant::now())
    }

    fn failed_at(&self, hook: u16, now: Instant) -> Change {
        let mut course = self.course();
        course.failed |= hook;
        course.failures = course.failures.saturating_add(1);
        let was_on = course.until != 0;
        // A call that began before the while did says nothing new.
        let begins = course.failures >= self.settings.failures && (!was_on || std::mem::take(&mut course.probing));
        if !begins {
            self.show(&course);
            return Change::None;
        }
        let wait = self.wait(&course);
        course.doublings = course.doublings.saturating_add(1);
        course.until = self.at(now).saturating_add(nanos(wait)).max(1);
        self.show(&course);
        if !was_on {
            self.begun.fetch_add(1, Ordering::Relaxed);
        }
        Change::Begins(wait)
    }

    /// The while that begins next.
    fn wait(&self, course: &Course) -> Duration {
        let wait = self
            .settings
            .from
            .saturating_mul(1 << course.doublings.min(MOST_DOUBLINGS));
        wait.min(self.settings.to)
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies what others look at, while it is locked.
    fn show(&self, course: &Course) {
        self.failures.store(course.failures, Ordering::Relaxed);
        self.until.store(course.until, Ordering::Relaxed);
        self.is_on.store(course.until != 0, Ordering::Relaxed);
    }

    /// Whether calls are refused now, but for probes.
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// How often it began.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn at(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.start))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// More would be longer than any bound that can be set.
const MOST_DOUBLINGS: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: QuarantineSettings = QuarantineSettings {
        failures: 3,
        from: Duration::from_secs(1),
        to: Duration::from_secs(5),
    };

    /// Seconds after the start.
    fn at(quarantine: &Quarantine, seconds: u64) -> Instant {
        quarantine.start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_success_in_between_keeps_it_away() {
        let quarantine = Quarantine::new(SETTINGS);
        for _ in 0..10 {
            assert_eq!(quarantine.failed(1), Change::None);
            assert_eq!(quarantine.failed(1), Change::None);
            assert_eq!(quarantine.succeeded(1), Change::None);
        }
        assert!(quarantine.admits() && !quarantine.is_on());
    }

    #[test]
    fn it_lets_one_probe_through_after_ever_longer_whiles_and_ends_with_the_first_success() {
        let quarantine = Quarantine::new(SETTINGS);
        let begins = |seconds| Change::Begins(Duration::from_secs(seconds));
        for _ in 0..2 {
            assert_eq!(quarantine.failed_at(1, at(&quarantine, 10)), Change::None);
        }
        assert_eq!(quarantine.failed_at(1, at(&quarantine, 10)), begins(1));
        assert!(quarantine.is_on());
        // By the while that follows: 2 seconds, 4, and no more than 5.
        let mut now = 10;
        let mut wait = 1;
        for next in [2, 4, 5, 5] {
            assert!(!quarantine.probes(at(&quarantine, now)));
            now += wait;
            assert!(quarantine.probes(at(&quarantine, now)));
            assert!(!quarantine.probes(at(&quarantine, now)), "a second probe");
            assert_eq!(quarantine.failed_at(1, at(&quarantine, now)), begins(next));
            wait = next;
        }
        assert!(quarantine.probes(at(&quarantine, now + 5)));
        assert_eq!(quarantine.succeeded(1), Change::Ends);
        assert!(quarantine.admits() && !quarantine.is_on());
        assert_eq!(quarantine.begun(), 1);
        // And begins with the shortest while again.
        for _ in 0..2 {
            assert_eq!(quarantine.failed_at(1, at(&quarantine, 100)), Change::None);
        }
        assert_eq!(quarantine.failed_at(1, at(&quarantine, 100)), begins(1));
    }

    #[test]
    fn a_probe_of_another_hook_lets_the_next_call_probe() {
        let quarantine = Quarantine::new(QuarantineSettings {
            from: Duration::ZERO,
            ..SETTINGS
        });
        let (request, response) = (1, 2);
        for _ in 0..3 {
            quarantine.failed(response);
        }
        assert!(quarantine.is_on());
        // The exchange begins with the hook that never failed, and comes to the other.
        assert!(quarantine.admits());
        assert_eq!(quarantine.succeeded(request), Change::None);
        assert!(quarantine.is_on() && quarantine.admits());
        assert_eq!(quarantine.succeeded(response), Change::Ends);
        assert!(!quarantine.is_on() && quarantine.admits());
    }

    #[test]
    fn the_success_of_one_hook_says_nothing_of_another() {
        let quarantine = Quarantine::new(SETTINGS);
        for _ in 0..2 {
            assert_eq!(quarantine.failed(1), Change::None);
            assert_eq!(quarantine.succeeded(2), Change::None);
        }
        assert_eq!(quarantine.failed(1), Change::Begins(SETTINGS.from));
    }

    #[test]
    fn a_probe_that_never_comes_back_is_followed_by_another() {
        let quarantine = Quarantine::new(SETTINGS);
        for _ in 0..3 {
            quarantine.failed_at(1, at(&quarantine, 0));
        }
        assert!(quarantine.probes(at(&quarantine, 1)));
        assert!(!quarantine.probes(at(&quarantine, 2)));
        assert!(quarantine.probes(at(&quarantine, 60)));
    }

    #[test]
    fn a_race_of_failures_and_successes_never_leaves_it_half_on() {
        let quarantine = Quarantine::new(QuarantineSettings {
            failures: 1,
            from: Duration::from_secs(3600),
            to: Duration::from_secs(3600),
        });
        for _ in 0..2_000 {
            std::thread::scope(|scope| {
                scope.spawn(|| quarantine.failed(1));
                scope.spawn(|| quarantine.succeeded(1));
                quarantine.failed(1);
            });
            // Refused with nothing to end it, or on and not refused: either would be for ever.
            assert_eq!(quarantine.is_on(), !quarantine.admits());
            assert_eq!(quarantine.is_on(), quarantine.failures.load(Ordering::Relaxed) > 0);
            quarantine.succeeded(1);
            assert!(quarantine.admits() && !quarantine.is_on());
        }
    }
}

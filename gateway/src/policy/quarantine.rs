//! Leaves a hook of a plugin alone that does nothing but fail, and tries it again now and then.
//!
//! After so many failures of a hook in a row it is not called for a while; then one call goes through to see (the half-open
//! state of a circuit breaker). When that fails, too, the next while is twice as long, up to a bound. Its first success ends it.
//! Other hooks of the same plugin go on: they say nothing of it, nor it of them. Setting instances up has a while of its own.
//!
//! Per use of a plugin, over all workers: nobody else's plugin is touched. While nothing fails it costs two reads of words
//! that nobody writes. A reload begins anew: it is how a plugin is mended. A tenant's, whose files may bring about as many reloads as
//! one likes, begins anew only with another component or configuration (`quota.rs`).

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::hook::HookPlace;
use crate::config::QuarantineSettings;

/// The state of one use of a plugin.
#[derive(Debug)]
pub(super) struct Quarantine {
    settings: QuarantineSettings,
    start: Instant,
    /// What happens to each hook, one thing after the other. Calls that go well do not look here.
    courses: Mutex<[Course; HookPlace::COUNT]>,
    /// The hooks that have failed since their last success, and those that are left alone: a bit each, written with the courses
    /// locked, for those who only want to know whether there is anything.
    failing: AtomicU16,
    left_alone: AtomicU16,
    begun: AtomicU64,
}

/// How it is going with one hook.
#[derive(Debug, Default, Clone, Copy)]
struct Course {
    /// Failures since the last success.
    failures: u32,
    /// How often the while has been doubled.
    doublings: u32,
    /// The end of the while, in nanoseconds from the start; none when it is called.
    until: Option<u64>,
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
            courses: Mutex::default(),
            failing: AtomicU16::new(0),
            left_alone: AtomicU16::new(0),
            begun: AtomicU64::new(0),
        }
    }

    /// Goes on where another one is now, of the same use in a configuration before. What is under way there is no probe here.
    pub(super) fn resume(&self, before: &Self) {
        let passed = nanos(self.start.saturating_duration_since(before.start));
        let mut courses = *before.courses();
        for course in &mut courses {
            course.until = course.until.map(|until| until.saturating_sub(passed));
            course.probing = false;
        }
        let mut own = self.courses();
        *own = courses;
        self.show(&own);
    }

    /// Whether a hook may be called. After a while one caller is let through, as a probe; the others wait for what becomes of it.
    #[inline]
    pub(super) fn admits(&self, hook: HookPlace) -> bool {
        self.left_alone.load(Ordering::Relaxed) & bit(hook) == 0 || self.probes(hook, Instant::now())
    }

    #[cold]
    fn probes(&self, hook: HookPlace, now: Instant) -> bool {
        let now = self.at(now);
        let mut courses = self.courses();
        let course = &mut courses[hook as usize];
        let Some(until) = course.until else {
            return true;
        };
        if now < until {
            return false;
        }
        // A probe that never comes back (its exchange was abandoned) must not be the last one.
        course.until = Some(now.saturating_add(nanos(self.wait(course))));
        course.probing = true;
        true
    }

    /// Whether a call of this hook would be refused now: for who wants to know before it is due, and is no probe.
    pub(super) fn would_refuse(&self, hook: HookPlace) -> bool {
        self.left_alone.load(Ordering::Relaxed) & bit(hook) != 0 && {
            let now = self.at(Instant::now());
            self.courses()[hook as usize].until.is_some_and(|until| now < until)
        }
    }

    /// A call of this hook succeeded.
    #[inline]
    pub(super) fn succeeded(&self, hook: HookPlace) -> Change {
        if self.failing.load(Ordering::Relaxed) & bit(hook) == 0 {
            return Change::None;
        }
        self.recover(hook)
    }

    #[cold]
    fn recover(&self, hook: HookPlace) -> Change {
        let mut courses = self.courses();
        let course = std::mem::take(&mut courses[hook as usize]);
        self.show(&courses);
        match course.until {
            Some(_) => Change::Ends,
            None => Change::None,
        }
    }

    /// A call of this hook failed.
    #[cold]
    pub(super) fn failed(&self, hook: HookPlace) -> Change {
        self.failed_at(hook, Instant::now())
    }

    fn failed_at(&self, hook: HookPlace, now: Instant) -> Change {
        let mut courses = self.courses();
        let course = &mut courses[hook as usize];
        course.failures = course.failures.saturating_add(1);
        let was_on = course.until.is_some();
        // A call that began before the while did says nothing new.
        let begins = course.failures >= self.settings.failures && (!was_on || std::mem::take(&mut course.probing));
        let wait = self.wait(course);
        if begins {
            course.doublings = course.doublings.saturating_add(1);
            course.until = Some(self.at(now).saturating_add(nanos(wait)));
        }
        self.show(&courses);
        if begins && !was_on {
            self.begun.fetch_add(1, Ordering::Relaxed);
        }
        match begins {
            true => Change::Begins(wait),
            false => Change::None,
        }
    }

    /// The while that begins next.
    fn wait(&self, course: &Course) -> Duration {
        let wait = self
            .settings
            .from
            .saturating_mul(1 << course.doublings.min(MOST_DOUBLINGS));
        wait.min(self.settings.to)
    }

    fn courses(&self) -> MutexGuard<'_, [Course; HookPlace::COUNT]> {
        self.courses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what others look at, while it is locked.
    fn show(&self, courses: &[Course; HookPlace::COUNT]) {
        let bits = |is: fn(&Course) -> bool| {
            let hooks = courses.iter().enumerate().filter(|(_, course)| is(course));
            hooks.fold(0, |bits, (place, _)| bits | (1 << place))
        };
        self.failing
            .store(bits(|course| course.failures > 0), Ordering::Relaxed);
        self.left_alone
            .store(bits(|course| course.until.is_some()), Ordering::Relaxed);
    }

    /// Whether calls of any hook are refused now, but for probes.
    pub(super) fn is_on(&self) -> bool {
        self.left_alone.load(Ordering::Relaxed) != 0
    }

    /// How often it began for a hook.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn at(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.start))
    }
}

fn bit(hook: HookPlace) -> u16 {
    const { assert!(HookPlace::COUNT <= u16::BITS as usize) };
    1 << hook as u16
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// More would be longer than any bound that can be set.
const MOST_DOUBLINGS: u32 = 30;

#[cfg(test)]
mod tests {
    use super::HookPlace::{Instantiate, OnRequest, OnResponse};
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
            assert_eq!(quarantine.failed(OnRequest), Change::None);
            assert_eq!(quarantine.failed(OnRequest), Change::None);
            assert_eq!(quarantine.succeeded(OnRequest), Change::None);
        }
        assert!(quarantine.admits(OnRequest) && !quarantine.is_on());
    }

    #[test]
    fn it_lets_one_probe_through_after_ever_longer_whiles_and_ends_with_the_first_success() {
        let quarantine = Quarantine::new(SETTINGS);
        let begins = |seconds| Change::Begins(Duration::from_secs(seconds));
        let failed = |seconds| quarantine.failed_at(OnRequest, at(&quarantine, seconds));
        let probes = |seconds| quarantine.probes(OnRequest, at(&quarantine, seconds));
        assert_eq!(
            (failed(10), failed(10), failed(10)),
            (Change::None, Change::None, begins(1))
        );
        assert!(quarantine.is_on());
        // By the while that follows: 2 seconds, 4, and no more than 5.
        let mut now = 10;
        let mut wait = 1;
        for next in [2, 4, 5, 5] {
            assert!(!probes(now));
            now += wait;
            assert!(probes(now));
            assert!(!probes(now), "a second probe");
            assert_eq!(failed(now), begins(next));
            wait = next;
        }
        assert!(probes(now + 5));
        assert_eq!(quarantine.succeeded(OnRequest), Change::Ends);
        assert!(quarantine.admits(OnRequest) && !quarantine.is_on());
        assert_eq!(quarantine.begun(), 1);
        // And begins with the shortest while again.
        assert_eq!(
            (failed(100), failed(100), failed(100)),
            (Change::None, Change::None, begins(1))
        );
    }

    #[test]
    fn each_hook_and_the_set_up_have_a_course_of_their_own() {
        let quarantine = Quarantine::new(SETTINGS);
        let failed = |hook| quarantine.failed_at(hook, at(&quarantine, 0));
        // Successes and failures of others in between change nothing for it, nor does it for them.
        for _ in 0..2 {
            assert_eq!(failed(OnResponse), Change::None);
            assert_eq!(quarantine.succeeded(OnRequest), Change::None);
            assert_eq!(failed(Instantiate), Change::None);
        }
        assert_eq!(quarantine.succeeded(Instantiate), Change::None);
        assert_eq!(failed(OnResponse), Change::Begins(SETTINGS.from));
        assert_eq!(failed(Instantiate), Change::None);
        let probes = |hook, seconds| quarantine.probes(hook, at(&quarantine, seconds));
        assert!(!probes(OnResponse, 0) && probes(OnRequest, 0) && probes(Instantiate, 0));
        // What works is called as often as one likes beside the one probe of what does not.
        assert!(probes(OnRequest, 2) && probes(OnResponse, 2));
        assert_eq!(quarantine.succeeded(OnRequest), Change::None);
        assert!(probes(OnRequest, 2) && !probes(OnResponse, 2) && quarantine.is_on());
        assert_eq!(quarantine.succeeded(OnResponse), Change::Ends);
        assert!(!quarantine.is_on() && quarantine.admits(OnResponse));
    }

    #[test]
    fn a_probe_that_never_comes_back_is_followed_by_another() {
        let quarantine = Quarantine::new(SETTINGS);
        for _ in 0..3 {
            quarantine.failed_at(OnRequest, at(&quarantine, 0));
        }
        let probes = |seconds| quarantine.probes(OnRequest, at(&quarantine, seconds));
        assert!(quarantine.would_refuse(OnRequest) && !quarantine.would_refuse(OnResponse));
        assert!(probes(1));
        assert!(!probes(2));
        assert!(probes(60));
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
                scope.spawn(|| quarantine.failed(OnRequest));
                scope.spawn(|| quarantine.succeeded(OnRequest));
                quarantine.failed(OnRequest);
            });
            // Refused with nothing to end it, or on and not refused: either would be for ever.
            assert_eq!(quarantine.is_on(), !quarantine.admits(OnRequest));
            assert_eq!(quarantine.is_on(), quarantine.failing.load(Ordering::Relaxed) != 0);
            quarantine.succeeded(OnRequest);
            assert!(quarantine.admits(OnRequest) && !quarantine.is_on());
        }
    }
}

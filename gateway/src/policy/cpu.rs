//! CPU time of calls, by the clock of the thread that makes them: what a thread had to wait for is nobody's to pay.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

use super::ticker::TICK;

/// The CPU time of one call, measured on the thread's own clock: a worker that the scheduler set aside loses nothing.
#[derive(Debug)]
pub(crate) struct CpuLimit {
    limit: Duration,
    /// The thread's CPU time when the first tick of the call went by.
    since: Option<Duration>,
}

impl CpuLimit {
    /// Of no call yet.
    pub(super) const fn new() -> Self {
        Self {
            limit: Duration::ZERO,
            since: None,
        }
    }

    /// A call begins.
    pub(super) fn start(&mut self, limit: Duration) {
        self.limit = limit;
        self.since = None;
    }

    /// The CPU time of a call that took this long by the clock on the wall.
    pub(crate) fn used(&self, by_the_wall: Duration) -> Duration {
        match self.since {
            // The guest has seen no tick go by. If one did, the thread was set aside, or the gateway worked for the guest: a
            // guest that works looks up all the time.
            None => by_the_wall.min(TICK),
            Some(since) => (thread_cpu_time().saturating_sub(since) + TICK).min(by_the_wall),
        }
    }

    /// CPU time that a call has surely taken: what came after the first tick that it saw.
    pub(crate) fn at_least(&self) -> Duration {
        self.since
            .map_or(Duration::ZERO, |since| thread_cpu_time().saturating_sub(since))
    }

    /// A tick went by while the guest ran: may it go on, and until which tick?
    pub(crate) fn at_deadline(&mut self) -> UpdateDeadline {
        let now = thread_cpu_time();
        let used = match self.since {
            // Between nothing and one tick is gone; the guest gets that for free.
            None => {
                self.since = Some(now);
                Duration::ZERO
            }
            Some(since) => now.saturating_sub(since),
        };
        match self.limit.checked_sub(used) {
            Some(left) if !left.is_zero() => UpdateDeadline::Continue(ticks(left)),
            _ => UpdateDeadline::Interrupt,
        }
    }
}

/// Work of this thread since some moment, by its own clock: what it had to wait for is nobody's to pay.
pub(crate) struct Work {
    begun: Instant,
    cpu: Option<Duration>,
}

impl Work {
    /// It begins. Asking the thread's clock takes two calls of the system, so `is_exact` says whether that is worth it.
    pub(crate) fn begin(is_exact: bool) -> Self {
        Self {
            begun: Instant::now(),
            cpu: is_exact.then(thread_cpu_time),
        }
    }

    /// When it began.
    pub(crate) const fn begun(&self) -> Instant {
        self.begun
    }

    /// What it has come to by now; where the thread's clock was not asked, by the clock on the wall.
    pub(crate) fn done(&self, now: Instant) -> Duration {
        let by_the_wall = now.saturating_duration_since(self.begun);
        match self.cpu {
            Some(cpu) => thread_cpu_time().saturating_sub(cpu).min(by_the_wall),
            None => by_the_wall,
        }
    }
}

/// Ticks that cover a time, at least one.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(TICK.as_nanos()))
        .unwrap_or(u64::MAX)
        .max(1)
}

/// CPU time that this thread has used.
pub(super) fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn time_rounds_up_to_ticks() {
        assert_eq!(ticks(Duration::from_nanos(1)), 1);
        assert_eq!(ticks(TICK), 1);
        assert_eq!(ticks(TICK + Duration::from_nanos(1)), 2);
        assert_eq!(ticks(TICK * 10), 10);
    }

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "time that passes without being used is the point"
    )]
    fn a_call_runs_out_of_cpu_time_not_of_wall_time() {
        let mut cpu = CpuLimit::new();
        cpu.start(Duration::from_millis(50));
        assert!(matches!(cpu.at_deadline(), UpdateDeadline::Continue(50)));
        #[allow(clippy::disallowed_methods, reason = "time has to pass without being used")]
        std::thread::sleep(Duration::from_millis(60));
        assert!(matches!(cpu.at_deadline(), UpdateDeadline::Continue(_)));
        let start = thread_cpu_time();
        while thread_cpu_time() - start < Duration::from_millis(50) {}
        assert!(matches!(cpu.at_deadline(), UpdateDeadline::Interrupt));
    }

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "time that passes without being used is the point"
    )]
    fn who_was_set_aside_is_not_charged_for_it() {
        let mut cpu = CpuLimit::new();
        // In a call that saw no tick, in one that did, and while an instance was set up.
        cpu.start(Duration::from_millis(50));
        assert_eq!(cpu.used(Duration::from_micros(7)), Duration::from_micros(7));
        assert_eq!(cpu.used(Duration::from_secs(1)), TICK);
        cpu.at_deadline();
        let work = Work::begin(true);
        std::thread::sleep(Duration::from_millis(100));
        assert!(cpu.used(Duration::from_millis(100)) < Duration::from_millis(50));
        let now = Instant::now();
        assert!(now - work.begun() >= Duration::from_millis(100));
        assert!(work.done(now) < Duration::from_millis(50));
        assert!(cpu.at_least() < Duration::from_millis(50));
        // What it has worked it pays.
        while thread_cpu_time() - work.cpu.unwrap() < Duration::from_millis(60) {}
        assert!(work.done(Instant::now()) >= Duration::from_millis(60));
        assert!(cpu.used(Duration::from_secs(1)) >= Duration::from_millis(60));
        assert!(cpu.at_least() >= Duration::from_millis(60));
    }
}

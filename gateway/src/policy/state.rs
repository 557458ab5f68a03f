//! What a store carries: the exchange of the running call, its edits, and the bounds that the guest runs into.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{ResourceLimiter, UpdateDeadline};

use super::buckets::{Buckets, Namespace};
use super::budget::{Lack, Lease};
use super::counted::CountedLimit;
use super::edits::Edits;
use super::exchange::{ConnectionFacts, Exchange};
use super::meter::{HostCalls, Interface};
use super::metrics::PluginMetrics;
use super::shared::Shared;
use super::tags::Tags;
use super::ticker::TICK;
use crate::config::LogRate;

/// The data of a store.
pub(crate) struct State {
    /// The exchange of the running call; an empty one between calls.
    pub(crate) exchange: Box<Exchange>,
    /// What runs.
    pub(crate) phase: Phase,
    /// The running call's edits.
    pub(crate) edits: Edits,
    /// The tags that it sets.
    pub(crate) tags: Tags,
    /// Memory and table bounds.
    pub(crate) bounds: Bounds,
    /// The running call's CPU time.
    pub(crate) cpu: CpuLimit,
    /// A host function ended the call: the guest misused it, or wanted too much of it.
    pub(crate) misuse: bool,
    /// What the running call was told last that it may not do.
    pub(crate) refused: Option<Refused>,
    /// Whose instance this is.
    pub(crate) identity: Arc<Identity>,
    /// The process's token buckets.
    pub(crate) buckets: Arc<Buckets>,
    /// Calls of the host's functions so far.
    pub(crate) host_calls: HostCalls,
    /// Lines that the running call has written into the log, where somebody wants to know.
    pub(crate) written: Option<Vec<String>>,
}

/// An edit or a tag that was refused: a guest that gives up then mostly says no more than that.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The host's function.
    pub(crate) function: &'static str,
    pub(crate) why: String,
}

/// What runs in a store; decides what the imports may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The start function, `describe`, `configure` or `names`.
    Setup,
    /// `predicates`, `limiter` or how a request's body is to be filtered: the request can be read.
    Request,
    /// `request-filter` or `call-answered`: the request can be read and edited.
    RequestFilter,
    /// `response-filter`: both heads can be read, the response edited.
    ResponseFilter,
    /// How a response's body is to be filtered: both heads can be read.
    Response,
    /// A piece of a body: there are its bytes and nothing else.
    Piece,
    /// `access-log`: there are facts and nothing else.
    Log,
    /// `connection-filter`: there is a connection and nothing else.
    Connection,
}

/// Whose an instance is: what its log lines and buckets are kept under.
pub(crate) struct Identity {
    pub(crate) label: Arc<str>,
    /// Whose plugin it is, if somebody's.
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) namespace: Namespace,
    /// Those of its limits that responses take from.
    pub(crate) counted: Arc<[CountedLimit]>,
    /// What it keeps beyond its instances.
    pub(crate) shared: Arc<Shared>,
    /// There once it has said what it measures.
    pub(crate) metrics: OnceLock<Arc<PluginMetrics>>,
    /// Bounds the lines that it writes itself.
    pub(crate) lines: LogBudget,
    /// Bounds the lines about its failures.
    pub(crate) failures: LogBudget,
    /// Bounds those that tell of its quarantine, and of who calls it: whoever fails and works in turn has much of that.
    pub(crate) changes: LogBudget,
}

/// Bounds one kind of log lines of one attachment, over all workers.
pub(crate) struct LogBudget {
    start: Instant,
    /// Nanoseconds to a line in the long run.
    interval: u64,
    /// Lines at once.
    burst: u64,
    /// The time in nanoseconds from `start` at which the whole burst is there again.
    full_at: AtomicU64,
    dropped: AtomicU64,
}

/// The limits of one instance.
#[derive(Debug)]
pub(crate) struct Bounds {
    memory: usize,
    /// Bytes of linear memory that it has.
    has: usize,
    /// Its part of what its plugin and its tenant may use.
    lease: Lease,
    /// The guest wanted more memory than it may have, in the running call.
    pub(crate) refused: bool,
    /// And would have got it if others had left enough of what all share.
    pub(crate) lacks_shared: bool,
    /// Of what its budgets had too little for memory that was refused in this call.
    pub(super) lacks: Option<Lack>,
}

/// The CPU time of one call, measured on the thread's own clock: a worker that the scheduler set aside loses nothing.
#[derive(Debug)]
pub(crate) struct CpuLimit {
    limit: Duration,
    /// The thread's CPU time when the first tick of the call went by.
    since: Option<Duration>,
}

impl State {
    pub(crate) fn new(
        identity: Arc<Identity>,
        buckets: Arc<Buckets>,
        connection: Arc<ConnectionFacts>,
        bounds: Bounds,
    ) -> Self {
        Self {
            exchange: Exchange::new(http::Request::new(()).into_parts().0, connection),
            phase: Phase::Setup,
            edits: Edits::default(),
            bounds,
            tags: Tags::default(),
            cpu: CpuLimit {
                limit: Duration::ZERO,
                since: None,
            },
            misuse: false,
            refused: None,
            identity,
            buckets,
            host_calls: HostCalls::default(),
            written: None,
        }
    }
}

impl State {
    /// A function of this interface of the host is being called.
    #[inline]
    pub(crate) fn called(&mut self, interface: Interface) -> &mut Self {
        self.host_calls.count(interface);
        self
    }

    /// A call begins: what an earlier one wanted and coped without says nothing about this one.
    pub(crate) fn begin(&mut self, phase: Phase, cpu: Duration) {
        self.phase = phase;
        self.refused = None;
        self.bounds.refused = false;
        self.bounds.lacks_shared = false;
        self.bounds.lacks = None;
        self.cpu.start(cpu);
    }
}

impl State {
    /// The answer of this function of the host, kept where it is a refusal.
    pub(crate) fn told(&mut self, function: &'static str, answer: Result<(), String>) -> Result<(), String> {
        if let Err(why) = &answer {
            self.refused = Some(Refused {
                function,
                why: why.clone(),
            });
        }
        answer
    }
}

impl CpuLimit {
    /// A call begins.
    fn start(&mut self, limit: Duration) {
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

impl Bounds {
    /// At most this many bytes of linear memory, and no more than the lease gives.
    pub(crate) fn new(memory: u64, lease: Lease) -> Self {
        Self {
            memory: usize::try_from(memory).unwrap_or(usize::MAX),
            has: 0,
            lease,
            refused: false,
            lacks_shared: false,
            lacks: None,
        }
    }

    /// Bytes of linear memory that the instance has.
    pub(crate) fn memory(&self) -> u64 {
        u64::try_from(self.has).unwrap_or(u64::MAX)
    }
}

impl ResourceLimiter for Bounds {
    fn memory_growing(&mut self, now: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.memory && maximum.is_none_or(|maximum| desired <= maximum);
        let allowed = fits && self.lease.grow(desired.saturating_sub(now));
        if allowed {
            self.has = self.has.saturating_add(desired.saturating_sub(now));
        }
        self.refused |= !allowed;
        self.lacks_shared = fits && !allowed && self.lease.lacks_shared();
        if fits && !allowed {
            self.lacks = self.lease.lacks();
        }
        Ok(allowed)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired <= MAX_TABLE_ELEMENTS && maximum.is_none_or(|maximum| desired <= maximum);
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        MAX_CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

impl LogBudget {
    pub(crate) fn new(rate: LogRate) -> Self {
        Self {
            start: Instant::now(),
            interval: (u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX) / rate.lines.max(1)).max(1),
            burst: rate.burst,
            full_at: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written; if so, how many were dropped since the last one.
    pub(crate) fn take(&self) -> Option<u64> {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let taken = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let next = full_at.max(now).saturating_add(self.interval);
                (next - now <= self.burst.saturating_mul(self.interval)).then_some(next)
            });
        if taken.is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.dropped.swap(0, Ordering::Relaxed))
    }

    /// The line that was taken is not written after all, and so many before it have not been told of.
    pub(crate) fn leave_out(&self, dropped: u64) {
        self.dropped.fetch_add(dropped.saturating_add(1), Ordering::Relaxed);
    }
}

/// Ticks that cover a time, at least one.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(TICK.as_nanos()))
        .unwrap_or(u64::MAX)
        .max(1)
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

/// CPU time that this thread has used.
pub(super) fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Core instances of one component instance: wit-component makes three of one module. A Python component, whose interpreter
/// and libraries are a module each, has some forty.
pub(crate) const MAX_CORE_INSTANCES: usize = 64;

/// Linear memories of one instance. A composed component has one per part, each within the memory limit on its own;
/// so one, until somebody composes.
pub(crate) const MAX_MEMORIES: usize = 1;

/// Tables of one instance: the module's own, wit-component's shim's, and room for a composed one.
pub(crate) const MAX_TABLES: usize = 4;

/// Elements of a table: function pointers of a big program.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 20_000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_beyond_the_burst_are_counted_not_written() {
        let budget = LogBudget::new(LogRate::DEFAULT);
        let written = (0..1000).filter(|_| budget.take().is_some()).count() as u64;
        assert!((100..200).contains(&written), "{written}");
        assert_eq!(budget.dropped.load(Ordering::Relaxed), 1000 - written);
    }

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
        let mut cpu = CpuLimit {
            limit: Duration::ZERO,
            since: None,
        };
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
        let mut cpu = CpuLimit {
            limit: Duration::ZERO,
            since: None,
        };
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

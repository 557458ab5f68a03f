//! What is counted of an attachment, over all workers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::crew::Waiting;
use super::failure::FailureKind;
use super::pace::Pace;
use super::quarantine::Quarantine;
use crate::telemetry::metrics::PolicyCounts;

/// Counters of an attachment, over all workers. Each worker counts on a line of its own; reading adds them up.
pub struct AttachmentStats {
    /// Calls of a shadow that would have changed something.
    differences: AtomicU64,
    /// What it was not told of that is over.
    untold: AtomicU64,
    /// Bytes of the gateway's own memory that are held for it now.
    host_memory: AtomicU64,
    /// None for what is never left alone: the gateway's own.
    quarantine: Option<Arc<Quarantine>>,
    /// What waits for the crew, of one whose calls it makes or may make.
    waiting: Option<Waiting>,
    /// Of its calls, and of setting its instances up.
    paces: [Arc<Pace>; 2],
    workers: Mutex<Vec<Arc<WorkerStats>>>,
}

/// One worker's counters of an attachment.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct WorkerStats {
    calls: AtomicU64,
    repeats: AtomicU64,
    instantiations: AtomicU64,
    failures: [AtomicU64; FailureKind::ALL.len()],
    /// Nanoseconds of CPU time, where they are measured.
    cpu: AtomicU64,
}

impl AttachmentStats {
    /// Nothing has been counted.
    pub(super) fn new(quarantine: Option<Quarantine>, waiting: Option<Waiting>, paces: [Arc<Pace>; 2]) -> Self {
        Self {
            differences: AtomicU64::new(0),
            untold: AtomicU64::new(0),
            host_memory: AtomicU64::new(0),
            quarantine: quarantine.map(Arc::new),
            waiting,
            paces,
            workers: Mutex::default(),
        }
    }

    pub(super) fn quarantine(&self) -> Option<&Arc<Quarantine>> {
        self.quarantine.as_ref()
    }

    pub(super) fn waiting(&self) -> Option<&Waiting> {
        self.waiting.as_ref()
    }

    pub(super) fn count_difference(&self) {
        self.differences.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_untold(&self) {
        self.untold.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes more are held for it.
    pub(super) fn holds(&self, more: u64) {
        self.host_memory.fetch_add(more, Ordering::Relaxed);
    }

    /// So many are held no more.
    pub(super) fn lets_go(&self, less: u64) {
        self.host_memory.fetch_sub(less, Ordering::Relaxed);
    }

    /// Bytes of the gateway's own memory that are held for it.
    #[must_use]
    pub fn host_memory(&self) -> u64 {
        self.host_memory.load(Ordering::Relaxed)
    }

    /// Hook calls, failed ones included.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.sum(|worker| &worker.calls)
    }

    /// Of the calls, those whose answer was known.
    #[must_use]
    pub fn repeats(&self) -> u64 {
        self.sum(|worker| &worker.repeats)
    }

    /// Instances made.
    #[must_use]
    pub fn instantiations(&self) -> u64 {
        self.sum(|worker| &worker.instantiations)
    }

    /// Calls that failed in this way.
    #[must_use]
    pub fn failures(&self, kind: FailureKind) -> u64 {
        self.sum(|worker| &worker.failures[kind.index()])
    }

    /// CPU time of calls and of setting instances up; nothing where it is not measured.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.sum(|worker| &worker.cpu))
    }

    /// One more worker counts.
    pub(super) fn worker(&self) -> Arc<WorkerStats> {
        let worker = Arc::<WorkerStats>::default();
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&worker));
        worker
    }

    fn sum(&self, counter: impl Fn(&WorkerStats) -> &AtomicU64) -> u64 {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers
            .iter()
            .map(|worker| counter(worker).load(Ordering::Relaxed))
            .sum()
    }
}

impl PolicyCounts for AttachmentStats {
    fn calls(&self) -> u64 {
        self.calls()
    }

    fn repeats(&self) -> u64 {
        self.repeats()
    }

    fn instantiations(&self) -> u64 {
        self.instantiations()
    }

    fn failures(&self) -> Vec<(&'static str, u64)> {
        FailureKind::ALL
            .iter()
            .map(|&kind| (kind.label(), self.failures(kind)))
            .collect()
    }

    fn cpu(&self) -> Duration {
        self.cpu()
    }

    fn shadow_differences(&self) -> u64 {
        self.differences.load(Ordering::Relaxed)
    }

    fn untold(&self) -> u64 {
        self.untold.load(Ordering::Relaxed)
    }

    fn quarantines(&self) -> u64 {
        self.quarantine.as_deref().map_or(0, Quarantine::begun)
    }

    fn host_memory(&self) -> u64 {
        self.host_memory()
    }

    fn is_quarantined(&self) -> bool {
        self.quarantine.as_deref().is_some_and(Quarantine::is_on)
    }

    fn is_slow(&self) -> bool {
        self.paces.iter().any(|pace| pace.is_slow())
    }

    fn waiting(&self) -> Option<usize> {
        self.waiting.as_ref().map(Waiting::calls)
    }
}

impl std::fmt::Debug for AttachmentStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttachmentStats")
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}

impl WorkerStats {
    /// The one writer adds with a load and a store: no locked instruction.
    pub(super) fn count_call(&self) {
        add(&self.calls);
    }

    pub(super) fn count_repeat(&self) {
        add(&self.repeats);
    }

    pub(super) fn count_instantiation(&self) {
        add(&self.instantiations);
    }

    pub(super) fn count_cpu(&self, used: Duration) {
        let used = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        self.cpu
            .store(self.cpu.load(Ordering::Relaxed).wrapping_add(used), Ordering::Relaxed);
    }

    pub(super) fn count_failure(&self, kind: FailureKind) {
        add(&self.failures[kind.index()]);
    }
}

fn add(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

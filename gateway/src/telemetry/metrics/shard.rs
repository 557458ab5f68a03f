//! Counters split by thread. See the module's head for why.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A value per thread; threads beyond [`shard_count`] share, which costs time but never a count.
#[derive(Debug)]
pub(super) struct Sharded<T> {
    shards: Box<[Line<T>]>,
}

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Self {
            shards: (0..shard_count()).map(|_| Line::default()).collect(),
        }
    }
}

impl<T> Sharded<T> {
    /// This thread's.
    pub(super) fn here(&self) -> &T {
        &self.shards[shard()].0
    }

    /// The sum of what `of` reads of each.
    pub(super) fn sum(&self, of: impl Fn(&T) -> u64) -> u64 {
        self.shards.iter().fold(0, |sum, line| sum.wrapping_add(of(&line.0)))
    }
}

/// A count of something that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps two threads' shards off one cache line; 128 because CPUs fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line<T>(T);

/// A shard a worker and one for the control thread, on a machine where workers are one a CPU.
fn shard_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| 1 + std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MOST_SHARDS)))
}

fn shard() -> usize {
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % shard_count());
        }
        shard.get()
    })
}

/// Bounds what a metric takes on very large machines: a server's shard is half a kilobyte.
const MOST_SHARDS: usize = 128;

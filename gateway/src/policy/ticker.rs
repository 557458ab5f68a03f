//! Moves the engine's epoch on while components run.
//!
//! Compiled components look at the epoch at every loop and function entry; a store says at which epoch it wants to be
//! asked whether to go on. One thread moves the epoch each [`TICK`], and sleeps while no worker has called a component
//! for [`LINGER_TICKS`]. A call costs its worker two stores to a word of its own and one load of a shared word that
//! changes with each tick; the first of a tick makes sure that it is seen, and only the first after a lull pays for a wake-up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// The ticking thread. Ends when dropped.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

/// A caller's own word, by which the ticker sees that it calls.
pub(crate) struct Activity {
    /// Odd while a call is under way; moves on with every call.
    word: Arc<AtomicU64>,
    shared: Arc<Shared>,
    thread: Thread,
    count: u64,
    /// The last tick in which it was made sure that the ticker sees a call.
    seen_in: u64,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let engine = engine.weak();
        let seen = Arc::clone(&shared);
        let handle = thread::Builder::new().name("policy-ticker".to_owned()).spawn(move || {
            run(&seen, || match engine.upgrade() {
                Some(engine) => {
                    engine.increment_epoch();
                    true
                }
                None => false,
            });
        })?;
        Ok(Self {
            shared,
            thread: handle.thread().clone(),
        })
    }

    /// A word for one caller (a worker, or one attachment being made).
    pub(crate) fn activity(&self) -> Activity {
        let word = Arc::new(AtomicU64::new(0));
        lock(&self.shared.callers).push(Arc::downgrade(&word));
        Activity {
            word,
            shared: Arc::clone(&self.shared),
            thread: self.thread.clone(),
            count: 0,
            seen_in: NO_TICK,
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Activity {
    /// A call begins: from here on the epoch moves.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.count += 1;
        let tick = self.shared.ticks.load(Ordering::Relaxed);
        if tick == self.seen_in {
            // It does not fall asleep in this tick, as it has seen an earlier call of it, nor for a long while after.
            self.word.store(self.count, Ordering::Relaxed);
            return;
        }
        self.seen_in = tick;
        // SeqCst here and in `run`: either the ticker sees this call before it sleeps, or this call sees it asleep.
        self.word.swap(self.count, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    /// The call is over.
    #[inline]
    pub(crate) fn end(&mut self) {
        self.count += 1;
        self.word.store(self.count, Ordering::Release);
    }
}

#[derive(Default)]
struct Shared {
    /// How often the epoch has been moved.
    ticks: AtomicU64,
    asleep: AtomicBool,
    ended: AtomicBool,
    callers: Mutex<Vec<Weak<AtomicU64>>>,
}

/// Ticks until told to end or `tick` answers false.
#[allow(clippy::disallowed_methods, reason = "it sleeps on a thread of its own")]
fn run(shared: &Shared, mut tick: impl FnMut() -> bool) {
    let mut last = 0;
    let mut idle = 0;
    while !shared.ended.load(Ordering::SeqCst) {
        thread::sleep(TICK);
        if !tick() {
            return;
        }
        // Before it looks: a call that is made sure to be seen in this tick is seen below, or sees it asleep.
        shared.ticks.fetch_add(1, Ordering::SeqCst);
        let (sum, busy) = look(shared);
        if busy || sum != last {
            last = sum;
            idle = 0;
            continue;
        }
        idle += 1;
        if idle < LINGER_TICKS {
            continue;
        }
        shared.asleep.store(true, Ordering::SeqCst);
        let (sum, busy) = look(shared);
        if !busy && sum == last && !shared.ended.load(Ordering::SeqCst) {
            thread::park();
        }
        shared.asleep.store(false, Ordering::SeqCst);
        idle = 0;
    }
}

/// The sum of the callers' words, and whether one of them is in a call.
fn look(shared: &Shared) -> (u64, bool) {
    let mut sum = 0_u64;
    let mut busy = false;
    lock(&shared.callers).retain(|caller| {
        let Some(word) = caller.upgrade() else { return false };
        let count = word.load(Ordering::SeqCst);
        sum = sum.wrapping_add(count);
        busy |= count % 2 == 1;
        true
    });
    (sum, busy)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often the epoch moves: the grain of CPU deadlines.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Before the first.
const NO_TICK: u64 = u64::MAX;

/// How many ticks without a call before the ticker sleeps: long enough that steady traffic, however thin, wakes nobody.
const LINGER_TICKS: u32 = 200;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn until(what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(20), "it never came");
            thread::yield_now();
        }
    }

    #[test]
    fn the_ticker_sleeps_after_a_lull_and_a_call_wakes_it() {
        let engine = Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        let mut activity = ticker.activity();
        until(|| ticker.shared.asleep.load(Ordering::SeqCst));
        activity.begin();
        until(|| !ticker.shared.asleep.load(Ordering::SeqCst));
        activity.end();
        until(|| ticker.shared.asleep.load(Ordering::SeqCst));
    }

    #[test]
    fn the_ticker_does_not_sleep_through_a_long_call() {
        let shared = Shared::default();
        let word = Arc::new(AtomicU64::new(1));
        lock(&shared.callers).push(Arc::downgrade(&word));
        let mut ticks = 0;
        run(&shared, || {
            assert!(!shared.asleep.load(Ordering::SeqCst));
            ticks += 1;
            ticks <= 2 * LINGER_TICKS
        });
        assert!(ticks > LINGER_TICKS);
    }

    #[test]
    fn the_ticker_does_not_sleep_while_calls_come_of_which_it_is_told_once_a_tick() {
        let shared = Arc::new(Shared::default());
        let mut activity = Activity {
            word: Arc::default(),
            shared: Arc::clone(&shared),
            thread: thread::current(),
            count: 0,
            seen_in: NO_TICK,
        };
        lock(&shared.callers).push(Arc::downgrade(&activity.word));
        let mut ticks = 0;
        run(&shared, || {
            assert!(!shared.asleep.load(Ordering::SeqCst));
            ticks += 1;
            // Less often than it would fall asleep by.
            let calls = if ticks % (LINGER_TICKS / 2) == 0 { 3 } else { 0 };
            for _ in 0..calls {
                activity.begin();
                assert_eq!(activity.seen_in, u64::from(ticks) - 1);
                activity.end();
            }
            ticks <= 3 * LINGER_TICKS
        });
        assert_eq!(activity.count, 2 * 3 * 6);
    }

    #[test]
    fn callers_that_are_gone_are_forgotten() {
        let engine = Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        drop(ticker.activity());
        until(|| lock(&ticker.shared.callers).is_empty());
    }
}

//! Moves the engine's epoch on while components run.
//!
//! Compiled components look at the epoch at every loop and function entry; a store says at which epoch it wants to be
//! asked whether to go on. One thread moves the epoch each [`TICK`], and sleeps while no worker has called a component
//! for [`LINGER_TICKS`]. A call costs its worker one exchange on a word of its own and one load of a shared word that
//! hardly ever changes; only the first call after a lull pays for a wake-up.

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
    fn callers_that_are_gone_are_forgotten() {
        let engine = Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        drop(ticker.activity());
        until(|| lock(&ticker.shared.callers).is_empty());
    }
}

//! The most there was of something, and how much of it comes a second.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::lock;

/// The most that there was at once. Written only when there is more than ever: mostly it is read.
#[derive(Debug, Default)]
pub(super) struct Peak(AtomicUsize);

impl Peak {
    /// There is so much now.
    pub(super) fn note(&self, now: usize) {
        if now > self.get() {
            self.0.fetch_max(now, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// How fast a count grows. It is looked at once a second by whoever keeps the figures, and costs those who count nothing.
#[derive(Debug, Default)]
pub(super) struct Rate(Mutex<Sampled>);

#[derive(Debug, Default)]
struct Sampled {
    /// When it was looked at last, and what it was then.
    last: Option<(Instant, u64)>,
    rate: u64,
    most: u64,
    /// When it was seen to have grown last.
    grew: Option<Instant>,
}

impl Rate {
    /// The count is this much now. Looks that come too soon after another are passed over.
    pub(super) fn sample(&self, total: u64) {
        let mut sampled = lock(&self.0);
        let now = Instant::now();
        if let Some((at, before)) = sampled.last {
            let passed = now.saturating_duration_since(at);
            if passed < SAMPLE {
                return;
            }
            let grown = total.saturating_sub(before) as f64;
            sampled.rate = (grown / passed.as_secs_f64()).round() as u64;
            sampled.most = sampled.most.max(sampled.rate);
        }
        if total > sampled.last.map_or(0, |(_, before)| before) {
            sampled.grew = Some(now);
        }
        sampled.last = Some((now, total));
    }

    /// How long it has been, to a second, since the count, which is this much now, has grown; none while there was nothing.
    pub(super) fn idle(&self, total: u64) -> Option<Duration> {
        let sampled = lock(&self.0);
        if total > sampled.last.map_or(0, |(_, before)| before) {
            return Some(Duration::ZERO);
        }
        sampled.grew.map(|grew| grew.elapsed())
    }

    /// In the last second, and the most in any.
    pub(super) fn get(&self) -> (u64, u64) {
        let sampled = lock(&self.0);
        (sampled.rate, sampled.most)
    }
}

/// Below it, what a second comes to would be guessed from too little.
const SAMPLE: Duration = Duration::from_millis(900);

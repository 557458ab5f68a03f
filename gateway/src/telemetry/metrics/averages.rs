//! How long the last exchanges with a server took on average: HAProxy's `qtime`, `ctime`, `rtime` and `ttime`. Threads add up;
//! whoever keeps the figures takes over what has come, once a second and when somebody looks, so that those who count pay for
//! an addition or two.

use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use super::shard::Count;

/// How long an exchange with a server, or a session in TCP mode, took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// Waiting for the server to have room.
    pub queue: Duration,
    /// Connecting to it; nothing where a connection was there.
    pub connect: Duration,
    /// From the beginning to the end.
    pub total: Duration,
}

/// A thread's sums.
#[derive(Debug, Default)]
pub(super) struct Times {
    exchanges: Count,
    queue: Count,
    connect: Count,
    total: Count,
}

/// How many there have been, and their times' sum in nanoseconds.
pub(super) type Sum = (u64, u64);

impl Times {
    pub(super) fn add(&self, took: Took) {
        self.exchanges.add(1);
        let sums = [
            (&self.queue, took.queue),
            (&self.connect, took.connect),
            (&self.total, took.total),
        ];
        // Most wait for nothing, and find a connection.
        for (sum, time) in sums.into_iter().filter(|(_, time)| !time.is_zero()) {
            sum.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Exchanges that are counted.
    pub(super) fn exchanges(&self) -> u64 {
        self.exchanges.get()
    }

    /// Nanoseconds that they waited for a server, all together.
    pub(super) fn queue(&self) -> u64 {
        self.queue.get()
    }

    /// Nanoseconds that connecting for them took.
    pub(super) fn connect(&self) -> u64 {
        self.connect.get()
    }

    /// Nanoseconds that they took as a whole.
    pub(super) fn total(&self) -> u64 {
        self.total.get()
    }
}

/// The averages of the last [`WINDOW`]: in the queue, connecting, until the response began, and of all of it.
#[derive(Debug, Default)]
pub(super) struct Averages(Mutex<[Average; 4]>);

#[derive(Debug, Default, Clone, Copy)]
struct Average {
    /// As it was when it was looked at last.
    seen: Sum,
    nanos: f64,
}

impl Averages {
    /// The sums are these by now. Answers what has come since they were looked at last.
    pub(super) fn catch_up(&self, sums: impl FnOnce() -> [Sum; 4]) -> [Sum; 4] {
        let mut averages = lock(&self.0);
        // Read inside the lock: whoever comes second sees no less.
        let mut more = sums();
        for (average, more) in averages.iter_mut().zip(&mut more) {
            more.0 = more.0.saturating_sub(average.seen.0);
            more.1 = more.1.saturating_sub(average.seen.1);
            average.add(*more);
        }
        more
    }

    /// So much has come.
    pub(super) fn add(&self, more: &[Sum; 4]) {
        let mut averages = lock(&self.0);
        averages
            .iter_mut()
            .zip(more)
            .for_each(|(average, more)| average.add(*more));
    }

    /// In seconds.
    pub(super) fn get(&self) -> [f64; 4] {
        lock(&self.0).map(|average| average.nanos / 1e9)
    }
}

impl Average {
    /// As if each of them had taken its place among the last ones, one after the other.
    fn add(&mut self, (count, nanos): Sum) {
        // A thread counts and then adds: what is here without its count waits for it.
        if count == 0 {
            return;
        }
        self.seen.0 += count;
        self.seen.1 += nanos;
        let among_all = count as f64 / self.seen.0 as f64;
        let among_last = 1.0 - (1.0 - 1.0 / WINDOW).powf(count as f64);
        let mean = nanos as f64 / count as f64;
        self.nanos += (mean - self.nanos) * among_all.max(among_last);
    }
}

/// As HAProxy.
const WINDOW: f64 = 1024.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(average: &Average) -> f64 {
        average.nanos
    }

    #[test]
    fn the_first_ones_count_alike_and_the_last_ones_push_the_others_out() {
        let mut average = Average::default();
        average.add((1, 100));
        assert!((of(&average) - 100.0).abs() < 1e-9);
        average.add((3, 900));
        assert!((of(&average) - 250.0).abs() < 1e-9);
        average.add((100_000, 100_000 * 7));
        assert!((of(&average) - 7.0).abs() < 1e-9);
        average.add((0, 0));
        assert!((of(&average) - 7.0).abs() < 1e-9);
        // Of 1024 further ones, as many of the earlier ones have left as a sliding window lets go.
        average.add((1024, 1024 * 107));
        assert!((of(&average) - 70.2).abs() < 0.5, "{average:?}");
    }

    #[test]
    fn what_came_is_taken_over_once() {
        let (server, backend) = (Averages::default(), Averages::default());
        let sums = [(2, 2_000_000_000), (2, 0), (1, 500_000_000), (2, 4_000_000_000)];
        let more = server.catch_up(|| sums);
        backend.add(&more);
        assert_eq!(server.catch_up(|| sums), [(0, 0); 4]);
        for averages in [server, backend] {
            assert_eq!(averages.get(), [1.0, 0.0, 0.5, 2.0]);
        }
    }

    proptest! {
        #[test]
        fn an_average_lies_between_what_came(times in proptest::collection::vec((1_u64..5_000, 0_u64..1_000_000), 1..50)) {
            let mut average = Average::default();
            for (count, time) in &times {
                average.add((*count, count * time));
            }
            let least = times.iter().map(|(_, time)| *time).min().unwrap_or(0) as f64;
            let most = times.iter().map(|(_, time)| *time).max().unwrap_or(0) as f64;
            prop_assert!(of(&average) >= least - 1e-3 && of(&average) <= most + 1e-3);
        }
    }
}

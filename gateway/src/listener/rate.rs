//! `max-connection-rate`: how fast a frontend takes connections, over all workers. What is beyond it waits in the kernel's queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::ConnectionRate;

/// The rate of a frontend. As many connections as one period has may come at once from rest; after that each has a time at which it is
/// let in (a generic cell rate algorithm, which needs one number).
#[derive(Debug)]
pub struct Rate {
    config: ConnectionRate,
    /// What times are counted from.
    start: Instant,
    /// Nanoseconds after `start`: when the next connection is let in if none comes at once.
    next: AtomicU64,
    /// What came in its place, when something has.
    after: watch::Sender<Option<After>>,
}

/// What a later configuration has in a rate's place.
#[derive(Debug, Clone)]
enum After {
    /// None: connections come as fast as they come.
    Nothing,
    /// Another one.
    Another(Arc<Rate>),
}

impl Rate {
    /// Of a frontend at rest.
    pub fn new(config: ConnectionRate) -> Self {
        Self {
            config,
            start: Instant::now(),
            next: AtomicU64::new(0),
            after: watch::Sender::new(None),
        }
    }

    /// What it was made of.
    pub const fn config(&self) -> ConnectionRate {
        self.config
    }

    /// Lets one connection in when it is its time. Whoever asks has a place in the row from then on: each worker asks for one
    /// connection of a bind at a time, so that there are no more of them than sockets. When a later configuration has another rate, or
    /// none, who waits goes by that.
    pub async fn wait(&self) {
        let mut later: Option<Arc<Self>> = None;
        loop {
            let rate = later.as_deref().unwrap_or(self);
            let wait = rate.take(rate.start.elapsed());
            if wait.is_zero() {
                return;
            }
            let mut after = rate.after.subscribe();
            let next = tokio::select! {
                () = tokio::time::sleep(wait) => return,
                // Also what came before this was asked. The sender lives as long as the rate.
                next = after.wait_for(Option::is_some) => next.ok().and_then(|next| next.clone()),
            };
            match next {
                Some(After::Another(another)) => later = Some(another),
                Some(After::Nothing) | None => return,
            }
        }
    }

    /// A later configuration has this in its place: who waits goes by it.
    pub fn give_way(&self, to: Option<&Arc<Self>>) {
        let after = to.map_or(After::Nothing, |rate| After::Another(Arc::clone(rate)));
        self.after.send_replace(Some(after));
    }

    /// How long one has to wait that comes at this time after the start.
    fn take(&self, now: Duration) -> Duration {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now = nanos(now);
        let period = nanos(self.config.period);
        let each = (period / u64::from(self.config.connections)).max(1);
        // From rest, the last of a whole period's comes without waiting.
        let ahead = period.saturating_sub(each);
        let mut turn = 0;
        let taken = |next: u64| {
            turn = next.max(now);
            Some(turn.saturating_add(each))
        };
        // It always gives a value, and so always succeeds.
        let _ = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
        Duration::from_nanos(turn.saturating_sub(now).saturating_sub(ahead))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(connections: u32, period: u64) -> Rate {
        Rate::new(ConnectionRate {
            connections,
            period: Duration::from_millis(period),
        })
    }

    #[test]
    fn a_periods_worth_comes_at_once_and_each_further_one_in_its_time() {
        let rate = rate(10, 1000);
        let waits: Vec<u128> = (0..13).map(|_| rate.take(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200, 300]);
        // Those had their places until 1.3 s.
        assert_eq!(rate.take(Duration::from_millis(1300)).as_millis(), 0);
        let waits: Vec<u128> = (0..10)
            .map(|_| rate.take(Duration::from_secs(60)).as_millis())
            .collect();
        assert_eq!(waits, [0; 10]);
        assert_eq!(rate.take(Duration::from_secs(60)).as_millis(), 100);
    }

    /// Whoever comes behind a whole minute's worth waits for a minute, or for a configuration that says otherwise.
    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_by_what_a_later_configuration_says() {
        let slow = Arc::new(rate(1, 60_000));
        let waits = |rate: &Arc<Rate>| {
            let rate = Arc::clone(rate);
            tokio::spawn(async move {
                let before = Instant::now();
                rate.wait().await;
                before.elapsed()
            })
        };
        slow.wait().await;
        let (first, second) = (waits(&slow), waits(&slow));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let quicker = Arc::new(rate(1, 2_000));
        slow.give_way(Some(&quicker));
        let mut waited = [first.await.unwrap(), second.await.unwrap()];
        waited.sort();
        // One comes at once, and one behind it in the new time.
        assert_eq!(waited, [Duration::from_secs(1), Duration::from_secs(3)]);

        let third = waits(&quicker);
        tokio::task::yield_now().await;
        quicker.give_way(None);
        assert_eq!(third.await.unwrap(), Duration::ZERO);
        // Who comes to one that is gone does not wait for it, either.
        assert_eq!(waits(&slow).await.unwrap(), Duration::ZERO);
    }

    proptest! {
        /// In any stretch of time no more come in than its periods have, and one period's more.
        #[test]
        fn no_more_come_than_were_said(
            connections in 1u32..50,
            period in 1u64..5_000,
            pauses in prop::collection::vec(0u64..2_000, 1..200),
        ) {
            let rate = rate(connections, period);
            let mut now = Duration::ZERO;
            let mut let_in = Vec::new();
            for pause in pauses {
                now += Duration::from_millis(pause);
                now += rate.take(now);
                let_in.push(now);
            }
            for (from, begin) in let_in.iter().enumerate() {
                for (to, end) in let_in.iter().enumerate().skip(from) {
                    let period = u128::from(period) * 1_000_000;
                    let count = u128::try_from(to - from + 1).unwrap();
                    let most = (*end - *begin).as_nanos() + period;
                    prop_assert!(count * (period / u128::from(connections)) <= most, "{from}..{to}");
                }
            }
        }
    }
}

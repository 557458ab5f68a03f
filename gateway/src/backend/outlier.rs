//! Outlier ejection: a server whose answers are bad several times in a row gets nothing for a while, longer each time, whatever
//! its checks find; then it comes back as one that was down does, slowly where `slow-start` says so. Only real traffic decides,
//! over all workers. Envoy's outlier detection, of which this is the part that needs no statistics.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::config::OutlierEjection;
use crate::telemetry::metrics::EjectedFor;

/// Counts a server's bad answers.
#[derive(Debug)]
pub(super) struct Outlier {
    config: OutlierEjection,
    /// How many of the backend's servers may be ejected at once.
    pub(super) most: usize,
    errors: AtomicU32,
    gateway_errors: AtomicU32,
    slow: AtomicU32,
}

impl Outlier {
    /// For a backend of so many servers.
    pub(super) fn new(config: OutlierEjection, servers: usize) -> Self {
        Self {
            config,
            // One at least, or a backend of few servers would have none.
            most: (servers * config.max_ejected / 100).max(1),
            errors: AtomicU32::new(0),
            gateway_errors: AtomicU32::new(0),
            slow: AtomicU32::new(0),
        }
    }

    /// How long a server is ejected the first time, and how long at most.
    pub(super) fn times(&self) -> (Duration, Duration) {
        (self.config.base_time, self.config.max_time)
    }

    /// The server answered with this status after so long; none when there was no answer, or none that is one. Answers
    /// whether that was one too many.
    pub(super) fn answered(&self, status: Option<u16>, after: Duration) -> Option<EjectedFor> {
        let is_error = status.is_none_or(|status| status >= 500);
        let is_gateway_error = status.is_none_or(|status| matches!(status, 502..=504));
        let mut ejected = count(&self.errors, is_error, self.config.consecutive_errors).then_some(EjectedFor::Errors);
        if count(
            &self.gateway_errors,
            is_gateway_error,
            self.config.consecutive_gateway_errors,
        ) {
            ejected = Some(EjectedFor::GatewayErrors);
        }
        if let Some(slow) = self.config.slow
            && count(&self.slow, after > slow.above, Some(slow.consecutive))
        {
            ejected = ejected.or(Some(EjectedFor::Slow));
        }
        ejected
    }
}

/// Counts what comes in a row. True, and from the beginning again, when it has come as often as is borne. Good answers only
/// read, unless a bad one came before; workers that meet may miscount by what overlaps.
fn count(counter: &AtomicU32, is_bad: bool, limit: Option<u32>) -> bool {
    let Some(limit) = limit else { return false };
    if !is_bad {
        if counter.load(Ordering::Relaxed) != 0 {
            counter.store(0, Ordering::Relaxed);
        }
        return false;
    }
    let is_reached = counter.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= limit;
    if is_reached {
        counter.store(0, Ordering::Relaxed);
    }
    is_reached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Slow;

    fn outlier(errors: Option<u32>, gateway_errors: Option<u32>, slow: Option<u32>) -> Outlier {
        let config = OutlierEjection {
            consecutive_errors: errors,
            consecutive_gateway_errors: gateway_errors,
            slow: slow.map(|consecutive| Slow {
                above: Duration::from_millis(100),
                consecutive,
            }),
            base_time: Duration::from_secs(1),
            max_time: Duration::from_secs(10),
            max_ejected: 50,
        };
        Outlier::new(config, 4)
    }

    #[test]
    fn only_bad_answers_in_a_row_count_and_each_kind_for_itself() {
        let fast = Duration::ZERO;
        let both = outlier(Some(3), Some(2), None);
        for _ in 0..5 {
            assert_eq!(both.answered(Some(500), fast), None);
            assert_eq!(both.answered(Some(503), fast), None);
            assert_eq!(both.answered(Some(404), fast), None, "the server is well");
        }
        assert_eq!(both.answered(Some(500), fast), None);
        assert_eq!(both.answered(Some(501), fast), None);
        assert_eq!(both.answered(Some(500), fast), Some(EjectedFor::Errors));
        assert_eq!(both.answered(None, fast), None, "counting begins anew");
        assert_eq!(both.answered(Some(502), fast), Some(EjectedFor::GatewayErrors));
    }

    #[test]
    fn slow_answers_count_whatever_they_say() {
        let slow = outlier(None, None, Some(2));
        let late = Duration::from_millis(101);
        assert_eq!(slow.answered(Some(500), Duration::from_millis(100)), None);
        assert_eq!(slow.answered(Some(200), late), None);
        assert_eq!(slow.answered(Some(200), Duration::ZERO), None);
        assert_eq!(slow.answered(Some(200), late), None);
        assert_eq!(slow.answered(Some(200), late), Some(EjectedFor::Slow));
    }

    #[test]
    fn a_part_of_the_servers_may_be_ejected_and_one_at_least() {
        let most = |servers| outlier_of(servers).most;
        assert_eq!((most(2), most(3), most(4), most(7)), (1, 1, 2, 3));
        assert_eq!(most(1), 1);
    }

    fn outlier_of(servers: usize) -> Outlier {
        Outlier::new(outlier(Some(1), None, None).config, servers)
    }
}

//! What bounds a backend's work: how many requests it has at all, and how many of them are sent again. Counted over all
//! workers and across reloads, in the backend's metrics.

use std::sync::Arc;

use crate::config::RetryBudget;
use crate::telemetry::metrics::BackendMetrics;

/// A request that is being sent again, until this is dropped.
#[derive(Debug)]
pub struct Resending(Arc<BackendMetrics>);

impl Resending {
    /// One more, if the budget has room.
    pub fn begin(budget: &RetryBudget, metrics: &Arc<BackendMetrics>) -> Option<Self> {
        let most = allowance(budget, metrics.in_flight());
        metrics.begin_resending(most).then(|| Self(Arc::clone(metrics)))
    }
}

impl Drop for Resending {
    fn drop(&mut self) {
        self.0.end_resending();
    }
}

/// A request that a backend with `max-requests` has taken on, until this is dropped.
#[derive(Debug)]
pub struct Admitted(Arc<BackendMetrics>);

impl Admitted {
    /// One more, if there are fewer than `max`.
    pub fn begin(max: usize, metrics: &Arc<BackendMetrics>) -> Option<Self> {
        metrics.admit(max).then(|| Self(Arc::clone(metrics)))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.discharge();
    }
}

/// How many may be sent again at once while so many are under way.
fn allowance(budget: &RetryBudget, in_flight: usize) -> usize {
    let part = in_flight.saturating_mul(budget.percent) / 100;
    part.max(budget.min).min(budget.max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::metrics::Registry;

    proptest! {
        #[test]
        fn the_allowance_is_a_part_of_what_is_under_way_within_its_bounds(
            percent in 0_usize..=100,
            min in 0_usize..50,
            more in 0_usize..1_000,
            in_flight in 0_usize..100_000,
        ) {
            let budget = RetryBudget { percent, min, max: min + more };
            let allowed = allowance(&budget, in_flight);
            prop_assert!((min..=min + more).contains(&allowed));
            prop_assert!(allowed == min || allowed * 100 <= in_flight * percent);
            prop_assert!(allowance(&budget, in_flight + 1) >= allowed);
            if allowed < min + more && allowed > min {
                prop_assert!((allowed + 1) * 100 > in_flight * percent);
            }
        }

        #[test]
        fn never_more_are_sent_again_than_allowed(steps in proptest::collection::vec(any::<bool>(), 0..200)) {
            let metrics = Registry::new().backend("app");
            let budget = RetryBudget { percent: 20, min: 3, max: 10 };
            let mut held = Vec::new();
            for more in steps {
                if more {
                    let begun = Resending::begin(&budget, &metrics);
                    prop_assert_eq!(begun.is_some(), held.len() < 3);
                    held.extend(begun);
                } else {
                    held.pop();
                }
            }
        }
    }
}

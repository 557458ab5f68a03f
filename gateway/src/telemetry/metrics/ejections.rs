//! Ejected servers: for how long, how often, and how many of a backend at once. Kept with a server's counts, so that a reload
//! takes nobody back early.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::backend::{BackendMetrics, ServerMetrics};

/// Why a server was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EjectedFor {
    /// `consecutive-errors=`.
    Errors,
    /// `consecutive-gateway-errors=`.
    GatewayErrors,
    /// `slow=`.
    Slow,
}

/// When a server was ejected last.
#[derive(Debug, Default)]
pub(super) struct Ejection {
    /// When its time is, or was, over.
    until: Option<Instant>,
    /// How often it was, less one for each base time that it has been well since.
    times: u32,
}

impl EjectedFor {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Errors, Self::GatewayErrors, Self::Slow];

    /// Its word in logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::GatewayErrors => "gateway-errors",
            Self::Slow => "slow",
        }
    }
}

impl Ejection {
    /// Ejects from now on. Answers for how long: the base time for each time that is not forgotten, `longest` at most.
    fn begin(&mut self, now: Instant, base: Duration, longest: Duration) -> Duration {
        let well_for = self
            .until
            .map_or(Duration::ZERO, |until| now.saturating_duration_since(until));
        let forgotten = well_for.as_nanos() / base.as_nanos().max(1);
        self.times = self.times.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
        self.times = self.times.saturating_add(1);
        let time = base.saturating_mul(self.times).min(longest);
        self.until = Some(now + time);
        time
    }
}

impl ServerMetrics {
    /// Ejects the server, unless it is ejected, or as many of its backend are as may be, or it is the last that is up. Answers
    /// for how long.
    pub fn eject(&self, why: EjectedFor, base: Duration, longest: Duration, most: usize) -> Option<Duration> {
        // Held until it is settled, so that two that go at once do not both find that there is another.
        let mut ejected = self.backend.ejected();
        if self.state.is_ejected() || !self.is_up() || *ejected >= most || self.backend_servers_up() < 2 {
            return None;
        }
        let time = locked(&self.ejection).begin(Instant::now(), base, longest);
        *ejected += 1;
        self.outlier_ejections[why as usize].add(1);
        self.turned(self.state.set_ejected(true));
        Some(time)
    }

    /// When its ejection is over; none when it is not ejected.
    pub fn ejected_until(&self) -> Option<Instant> {
        if self.state.is_ejected() {
            locked(&self.ejection).until
        } else {
            None
        }
    }

    /// Whether it gets nothing for a while because of its answers.
    pub fn is_ejected(&self) -> bool {
        self.state.is_ejected()
    }

    /// Ends its ejection, if there is one.
    pub fn take_back(&self) {
        let mut ejected = self.backend.ejected();
        if self.state.is_ejected() {
            *ejected = ejected.saturating_sub(1);
            self.turned(self.state.set_ejected(false));
        }
    }
}

impl BackendMetrics {
    fn ejected(&self) -> MutexGuard<'_, usize> {
        locked(&self.ejected)
    }

    /// An ejected server is no more.
    pub(super) fn ejected_less(&self) {
        let mut ejected = self.ejected();
        *ejected = ejected.saturating_sub(1);
    }
}

/// Nothing panics between two changes.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::metrics::Registry;

    const BASE: Duration = Duration::from_secs(10);
    const LONGEST: Duration = Duration::from_secs(35);

    #[test]
    fn each_time_is_longer_and_being_well_makes_it_shorter() {
        let mut ejection = Ejection::default();
        let mut now = Instant::now();
        let mut again = |after: Duration| {
            now += after;
            let time = ejection.begin(now, BASE, LONGEST);
            now += time;
            time.as_secs()
        };
        let at_once = Duration::ZERO;
        assert_eq!(
            [again(at_once), again(at_once), again(at_once), again(at_once)],
            [10, 20, 30, 35]
        );
        // Of four times, two are forgotten after two base times, and this one comes to them.
        assert_eq!(again(BASE * 2), 30);
        assert_eq!(again(BASE * 1000), 10);
    }

    #[test]
    fn the_last_server_that_is_up_is_never_ejected() {
        let registry = Registry::new();
        let backend = registry.backend("app");
        let servers: Vec<_> = ["a", "b", "c"]
            .iter()
            .map(|name| registry.server(&backend, name))
            .collect();
        let eject = |server: usize, most| {
            let time = servers[server].eject(EjectedFor::Errors, BASE, LONGEST, most);
            time.is_some()
        };
        assert!(eject(0, 3) && !servers[0].is_up());
        assert!(!eject(0, 3), "already");
        assert!(!eject(1, 1), "as many as may be");
        assert!(eject(1, 3));
        assert!(!eject(2, 3), "the last");
        servers[0].take_back();
        servers[0].take_back();
        assert!(servers[0].is_up() && eject(2, 2));
    }

    proptest! {
        #[test]
        fn a_time_is_whole_base_times_up_to_the_longest(waits in proptest::collection::vec(0_u64..100, 1..50)) {
            let mut ejection = Ejection::default();
            let mut now = Instant::now();
            let mut before = 0;
            for wait in waits {
                now += Duration::from_secs(wait);
                let time = ejection.begin(now, BASE, LONGEST);
                prop_assert!(time <= LONGEST && time >= BASE);
                prop_assert!(time == LONGEST || time.as_secs() % BASE.as_secs() == 0);
                prop_assert!(ejection.times <= before + 1);
                before = ejection.times;
                now += time;
            }
        }
    }
}

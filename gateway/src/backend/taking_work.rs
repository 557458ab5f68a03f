//! How many servers of a backend may have new work: what `servers-up` asks.
//!
//! Acls ask it of each request, a tenant's among them, and nobody charges them for looking through servers. So what was counted is
//! remembered until one of the servers turns: asking costs two reads then, however many servers there are. The count is this
//! configuration's: servers that it does not have may live on with connections of the one before, under the same metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Backend;

/// What was counted last: when, in turns of the backend's servers, in the upper half, and how many.
#[derive(Debug)]
pub(super) struct Counted(AtomicU64);

impl Backend {
    /// Servers that may have new work now, backups among them.
    pub fn taking_work(&self) -> u64 {
        let turns = self.metrics.turns();
        if let Some(count) = self.counted.at(turns) {
            return count;
        }
        let taking = self.servers.iter().filter(|server| server.metrics.takes_work());
        let count = taking.count() as u64;
        self.counted.keep(turns, count);
        count
    }
}

impl Counted {
    /// What was counted after so many turns, if that was the last.
    fn at(&self, turns: u32) -> Option<u64> {
        let counted = self.0.load(Ordering::Relaxed);
        (counted != NOTHING && counted >> 32 == u64::from(turns)).then_some(counted & COUNT)
    }

    fn keep(&self, turns: u32, count: u64) {
        self.0
            .store(u64::from(turns) << 32 | count.min(COUNT - 1), Ordering::Relaxed);
    }
}

impl Default for Counted {
    fn default() -> Self {
        Self(AtomicU64::new(NOTHING))
    }
}

/// The lower half.
const COUNT: u64 = u32::MAX as u64;

/// Nothing has been counted: no backend has so many servers.
const NOTHING: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use crate::backend::{test_backend, test_backend_of, test_config};
    use crate::config::Balance;
    use crate::telemetry::metrics::{Admin, Registry};

    #[test]
    fn the_count_follows_what_becomes_of_servers_and_is_not_made_again_until_one_turns() {
        let backend = test_backend(Balance::RoundRobin, &[(1, false), (1, false), (0, false), (1, true)]);
        let is_known = || backend.counted.at(backend.metrics.turns()).is_some();
        assert!(!is_known());
        assert_eq!(backend.taking_work(), 3);
        assert!(is_known());
        let [first, second, weightless, _] = &*backend.servers else {
            unreachable!("four servers")
        };
        first.metrics.set_admin(Admin::Drain);
        assert!(!is_known());
        assert_eq!(backend.taking_work(), 2);
        second.metrics.went(false);
        assert_eq!(backend.taking_work(), 1);
        // It has no work anyway.
        weightless.metrics.went(false);
        assert!(is_known());
        first.metrics.set_admin(Admin::Ready);
        second.metrics.went(true);
        weightless.metrics.went(true);
        weightless.metrics.set_weight(1);
        assert_eq!(backend.taking_work(), 4);
    }

    #[test]
    fn servers_that_only_the_configuration_before_has_are_not_counted() {
        let registry = Registry::new();
        let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 1)); 3];
        let servers = [(1, false), (1, false), (1, false)];
        let before = test_backend_of(&test_config(Balance::RoundRobin, &servers), &addresses, &registry);
        assert_eq!(before.taking_work(), 3);
        let after = test_backend_of(
            &test_config(Balance::RoundRobin, &servers[..2]),
            &addresses[..2],
            &registry,
        );
        assert_eq!((before.taking_work(), after.taking_work()), (3, 2));
        after.servers[0].metrics.set_admin(Admin::Maintenance);
        assert_eq!((before.taking_work(), after.taking_work()), (2, 1));
    }
}

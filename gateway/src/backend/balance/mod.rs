//! Which server takes the next request. A balancer belongs to one worker; the algorithms keep their cursors in it and
//! share nothing but the servers' health and in-flight counts.

mod least_conn;
mod round_robin;

use super::{Backend, Server};
use crate::config::Balance;

use least_conn::LeastConn;
use round_robin::RoundRobin;

/// One worker's balancer of one backend.
#[derive(Debug)]
pub struct Balancer {
    algorithm: Algorithm,
}

#[derive(Debug)]
enum Algorithm {
    RoundRobin(RoundRobin),
    LeastConn(LeastConn),
}

impl Balancer {
    /// A worker's balancer. Each worker begins with another server, so that workers do not all send their first
    /// requests to the same one.
    pub fn new(backend: &Backend, worker: usize) -> Self {
        let servers = backend.servers.len();
        let algorithm = match backend.balance {
            Balance::RoundRobin => Algorithm::RoundRobin(RoundRobin::new(servers)),
            Balance::LeastConn => Algorithm::LeastConn(LeastConn::default()),
        };
        let mut balancer = Self { algorithm };
        for _ in 0..worker.checked_rem(servers).unwrap_or(0) {
            balancer.pick(backend, &[]);
        }
        balancer
    }

    /// The position in [`Backend::servers`] of the server that takes the next request; none when there is none to take
    /// it. `exclude` are servers that this request has tried already.
    ///
    /// Only servers that are up and have a weight take requests; of those, the ones that are not backups. When there
    /// are none of these, the first backup server that is up takes everything, as with HAProxy. Allocates nothing.
    pub fn pick(&mut self, backend: &Backend, exclude: &[usize]) -> Option<usize> {
        let servers = &backend.servers;
        let mut is_active = false;
        let mut candidates = 0;
        for (i, server) in servers.iter().enumerate() {
            if !server.backup && server.is_usable() {
                is_active = true;
                candidates += usize::from(!exclude.contains(&i));
            }
        }
        if !is_active {
            let is_candidate = |i: &usize| {
                let server: &Server = &servers[*i];
                server.backup && server.is_usable() && !exclude.contains(i)
            };
            return (0..servers.len()).find(is_candidate);
        }
        if candidates == 0 {
            return None;
        }
        // A server may go down between the look above and the one in the algorithm; then the algorithm finds fewer.
        let is_candidate = |i: usize| !servers[i].backup && servers[i].is_usable() && !exclude.contains(&i);
        match &mut self.algorithm {
            Algorithm::RoundRobin(algorithm) => algorithm.pick(servers, is_candidate),
            Algorithm::LeastConn(algorithm) => algorithm.pick(servers, is_candidate),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::backend::test_backend;
    use crate::telemetry::metrics::InFlight;

    fn picks(balancer: &mut Balancer, backend: &Backend, count: usize) -> Vec<Option<usize>> {
        (0..count).map(|_| balancer.pick(backend, &[])).collect()
    }

    #[test]
    fn round_robin_spreads_a_heavy_servers_turns_out() {
        let backend = test_backend(Balance::RoundRobin, &[(3, false), (1, false), (1, false)]);
        let mut balancer = Balancer::new(&backend, 0);
        let turns: Vec<_> = picks(&mut balancer, &backend, 5).into_iter().flatten().collect();
        assert_eq!(turns, [0, 1, 0, 2, 0]);
    }

    #[test]
    fn workers_begin_with_different_servers() {
        for balance in [Balance::RoundRobin, Balance::LeastConn] {
            let backend = test_backend(balance, &[(1, false), (1, false), (1, false)]);
            let first: Vec<_> = (0..4)
                .map(|worker| Balancer::new(&backend, worker).pick(&backend, &[]))
                .collect();
            assert_eq!(first, [Some(0), Some(1), Some(2), Some(0)]);
        }
    }

    #[test]
    fn the_first_backup_that_is_up_takes_over_and_gives_back() {
        for balance in [Balance::RoundRobin, Balance::LeastConn] {
            let backend = test_backend(balance, &[(1, false), (1, true), (1, true), (0, false)]);
            let mut balancer = Balancer::new(&backend, 0);
            assert_eq!(picks(&mut balancer, &backend, 2), [Some(0), Some(0)]);
            backend.servers[0].metrics.went(false);
            assert_eq!(picks(&mut balancer, &backend, 2), [Some(1), Some(1)]);
            backend.servers[1].metrics.went(false);
            assert_eq!(picks(&mut balancer, &backend, 2), [Some(2), Some(2)]);
            backend.servers[2].metrics.went(false);
            assert_eq!(picks(&mut balancer, &backend, 1), [None]);
            backend.servers[0].metrics.went(true);
            assert_eq!(picks(&mut balancer, &backend, 2), [Some(0), Some(0)]);
        }
    }

    #[test]
    fn a_server_that_was_tried_is_not_tried_again_and_backups_do_not_step_in_for_it() {
        for balance in [Balance::RoundRobin, Balance::LeastConn] {
            let backend = test_backend(balance, &[(1, false), (1, false), (1, true)]);
            let mut balancer = Balancer::new(&backend, 0);
            assert_eq!(balancer.pick(&backend, &[0]), Some(1));
            assert_eq!(balancer.pick(&backend, &[1]), Some(0));
            assert_eq!(balancer.pick(&backend, &[0, 1]), None);
        }
    }

    #[test]
    fn least_conn_takes_the_idle_server() {
        let backend = test_backend(Balance::LeastConn, &[(1, false), (1, false), (1, false)]);
        let mut balancer = Balancer::new(&backend, 0);
        let _first = backend.servers[0].begin();
        let third = backend.servers[2].begin();
        assert_eq!(picks(&mut balancer, &backend, 2), [Some(1), Some(1)]);
        drop(third);
        assert_eq!(picks(&mut balancer, &backend, 2), [Some(2), Some(1)]);
    }

    /// Weights and which servers are up, some of them at least.
    fn servers() -> impl Strategy<Value = Vec<(u16, bool)>> {
        proptest::collection::vec((0_u16..=256, any::<bool>()), 1..12)
    }

    fn backend_of(balance: Balance, servers: &[(u16, bool)]) -> Arc<Backend> {
        let weights: Vec<_> = servers.iter().map(|&(weight, _)| (weight, false)).collect();
        let backend = test_backend(balance, &weights);
        for (server, &(_, up)) in backend.servers.iter().zip(servers) {
            if !up {
                server.metrics.went(false);
            }
        }
        backend
    }

    proptest! {
        #[test]
        fn round_robin_gives_each_server_exactly_its_weight(servers in servers()) {
            let backend = backend_of(Balance::RoundRobin, &servers);
            let mut balancer = Balancer::new(&backend, 0);
            let total: usize = servers.iter().filter(|server| server.1).map(|server| usize::from(server.0)).sum();
            let mut counts = vec![0; servers.len()];
            for turn in 0..total {
                let picked = balancer.pick(&backend, &[]).unwrap();
                counts[picked] += 1;
                // Smooth: at no time is a server two turns ahead of its share.
                let share = (turn + 1) as f64 * f64::from(servers[picked].0) / total as f64;
                prop_assert!(f64::from(counts[picked]) < share + 2.0, "{counts:?} after {turn}");
            }
            for (&(weight, up), count) in servers.iter().zip(counts) {
                prop_assert_eq!(count, if up { i32::from(weight) } else { 0 });
            }
        }

        #[test]
        fn a_server_is_picked_only_if_it_is_up_has_weight_and_is_not_excluded(
            servers in servers(),
            excluded in proptest::collection::vec(0_usize..12, 0..4),
            is_least_conn in any::<bool>(),
            changes in proptest::collection::vec((0_usize..12, any::<bool>()), 0..30),
        ) {
            let balance = if is_least_conn { Balance::LeastConn } else { Balance::RoundRobin };
            let backend = backend_of(balance, &servers);
            let mut balancer = Balancer::new(&backend, 3);
            let mut under_way = Vec::new();
            for (server, up) in changes {
                if let Some(server) = backend.servers.get(server) {
                    server.metrics.went(up);
                }
                let may = |i: usize| backend.servers[i].is_usable() && !excluded.contains(&i);
                match balancer.pick(&backend, &excluded) {
                    Some(picked) => {
                        prop_assert!(may(picked));
                        under_way.push(backend.servers[picked].begin());
                    }
                    None => prop_assert!(!(0..servers.len()).any(may)),
                }
            }
        }

        #[test]
        fn least_conn_holds_servers_at_their_weights_under_load(
            weights in proptest::collection::vec(1_u16..=20, 1..6),
            rounds in 1_usize..10,
        ) {
            let all: Vec<_> = weights.iter().map(|&weight| (weight, false)).collect();
            let backend = test_backend(Balance::LeastConn, &all);
            let mut balancer = Balancer::new(&backend, 0);
            let total: usize = weights.iter().map(|&weight| usize::from(weight)).sum();
            let under_way: Vec<InFlight> = (0..total * rounds)
                .map(|_| backend.servers[balancer.pick(&backend, &[]).unwrap()].begin())
                .collect();
            for (server, &weight) in backend.servers.iter().zip(&weights) {
                let share = usize::from(weight) * rounds;
                prop_assert!(server.in_flight().abs_diff(share) <= weights.len() + 1, "{} of {share}", server.in_flight());
            }
            drop(under_way);
            prop_assert_eq!(backend.in_flight(), 0);
        }
    }
}

//! What every algorithm keeps to, and what each promises.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::backend::{test_backend, test_backend_of_ranks};

const ALL: [Balance; 7] = [
    Balance::RoundRobin,
    Balance::LeastConn,
    Balance::Random,
    Balance::Source(Spread::Modulo),
    Balance::Source(Spread::Consistent),
    Balance::Hash(Spread::Modulo),
    Balance::Hash(Spread::Consistent),
];

fn client(number: u32) -> PickKey {
    PickKey {
        hash: Some(PickKey::hash_of(&number.to_be_bytes())),
        ..PickKey::of(IpAddr::from(number.to_be_bytes()))
    }
}

fn tried(servers: &[usize]) -> Tried {
    let mut tried = Tried::default();
    servers.iter().for_each(|&server| tried.add(server));
    tried
}

fn picks(balancer: &mut Balancer, backend: &Backend, count: usize) -> Vec<Option<usize>> {
    (0..count)
        .map(|_| balancer.pick(backend, &client(0), &tried(&[])))
        .collect()
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
            .map(|worker| Balancer::new(&backend, worker).pick(&backend, &client(0), &tried(&[])))
            .collect();
        assert_eq!(first, [Some(0), Some(1), Some(2), Some(0)]);
    }
}

#[test]
fn the_first_backup_that_is_up_takes_over_and_gives_back() {
    for balance in ALL {
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
fn each_priority_steps_in_as_a_whole_when_the_one_before_is_gone_and_backups_last() {
    // Two of the lowest priority, two of the next, one behind them, and two backups of different priorities.
    let ranks = [
        (0, false),
        (10, false),
        (0, false),
        (10, false),
        (11, false),
        (3, true),
        (0, true),
    ];
    let backend = test_backend_of_ranks(&ranks, None);
    let mut balancer = Balancer::new(&backend, 0);
    let mut in_use = || {
        let mut seen = picks(&mut balancer, &backend, 20)
            .into_iter()
            .flatten()
            .collect::<Vec<_>>();
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    let went = |server: usize, up| backend.servers[server].metrics.went(up);
    assert_eq!(in_use(), [0, 2]);
    went(0, false);
    assert_eq!(in_use(), [2], "nobody steps in while one is left");
    went(2, false);
    assert_eq!(in_use(), [1, 3], "those of the next share the work");
    went(1, false);
    went(3, false);
    assert_eq!(in_use(), [4]);
    went(4, false);
    assert_eq!(in_use(), [6], "backups have priorities, too");
    went(6, false);
    assert_eq!(in_use(), [5]);
    went(5, false);
    assert_eq!(in_use(), [0; 0]);
    went(3, true);
    assert_eq!(in_use(), [3]);
    went(0, true);
    assert_eq!(in_use(), [0]);
}

#[test]
fn nobody_steps_in_for_a_priority_that_is_full_or_was_tried() {
    let backend = test_backend_of_ranks(&[(0, false), (10, false)], Some(1));
    let mut balancer = Balancer::new(&backend, 0);
    assert_eq!(balancer.pick(&backend, &client(0), &tried(&[0])), None);
    assert!(!backend.has_usable(&tried(&[0])));
    let held = backend.servers[0].begin(None).unwrap();
    assert_eq!(balancer.pick(&backend, &client(0), &tried(&[])), None);
    assert!(backend.has_usable(&tried(&[])), "one waits for it");
    drop(held);
    assert_eq!(balancer.pick(&backend, &client(0), &tried(&[])), Some(0));
}

#[test]
fn a_server_that_was_tried_is_not_tried_again_and_backups_do_not_step_in_for_it() {
    for balance in ALL {
        let backend = test_backend(balance, &[(1, false), (1, false), (1, true)]);
        let mut balancer = Balancer::new(&backend, 0);
        assert_eq!(balancer.pick(&backend, &client(0), &tried(&[0])), Some(1));
        assert_eq!(balancer.pick(&backend, &client(0), &tried(&[1])), Some(0));
        assert_eq!(balancer.pick(&backend, &client(0), &tried(&[0, 1])), None);
    }
}

#[test]
fn least_conn_takes_the_idle_server() {
    let backend = test_backend(Balance::LeastConn, &[(1, false), (1, false), (1, false)]);
    let mut balancer = Balancer::new(&backend, 0);
    let _first = backend.servers[0].begin(None).unwrap();
    let third = backend.servers[2].begin(None).unwrap();
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
            let picked = balancer.pick(&backend, &client(0), &tried(&[])).unwrap();
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
        balance in proptest::sample::select(&ALL[..]),
        key in any::<u32>(),
        changes in proptest::collection::vec((0_usize..12, any::<bool>()), 0..30),
    ) {
        let backend = backend_of(balance, &servers);
        let mut balancer = Balancer::new(&backend, 3);
        let mut under_way = Vec::new();
        for (server, up) in changes {
            if let Some(server) = backend.servers.get(server) {
                server.metrics.went(up);
            }
            let may = |i: usize| backend.servers[i].is_usable() && !excluded.contains(&i);
            match balancer.pick(&backend, &client(key), &tried(&excluded)) {
                Some(picked) => {
                    prop_assert!(may(picked));
                    under_way.push(backend.servers[picked].begin(None).unwrap());
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
        let under_way: Vec<Session> = (0..total * rounds)
            .map(|_| backend.servers[balancer.pick(&backend, &client(0), &tried(&[])).unwrap()].begin(None).unwrap())
            .collect();
        for (server, &weight) in backend.servers.iter().zip(&weights) {
            let share = usize::from(weight) * rounds;
            prop_assert!(server.in_flight().abs_diff(share) <= weights.len() + 1, "{} of {share}", server.in_flight());
        }
        drop(under_way);
        prop_assert_eq!(backend.in_flight(), 0);
    }

    #[test]
    fn source_sends_a_client_to_the_same_server_on_every_worker(
        servers in servers(),
        key in any::<u32>(),
        consistent in any::<bool>(),
    ) {
        let spread = if consistent { Spread::Consistent } else { Spread::Modulo };
        let backend = backend_of(Balance::Source(spread), &servers);
        let first = Balancer::new(&backend, 0).pick(&backend, &client(key), &tried(&[]));
        for worker in 1..3 {
            let mut balancer = Balancer::new(&backend, worker);
            prop_assert_eq!(balancer.pick(&backend, &client(key), &tried(&[])), first);
            prop_assert_eq!(balancer.pick(&backend, &client(key), &tried(&[])), first);
        }
    }

    #[test]
    fn a_server_that_leaves_a_consistent_hash_moves_its_own_clients_only(
        weights in proptest::collection::vec(1_u16..=256, 2..10),
        leaving in any::<proptest::sample::Index>(),
    ) {
        let all: Vec<_> = weights.iter().map(|&weight| (weight, false)).collect();
        let backend = test_backend(Balance::Source(Spread::Consistent), &all);
        let mut balancer = Balancer::new(&backend, 0);
        let mut homes = || (0..500).map(|n| balancer.pick(&backend, &client(n), &tried(&[])).unwrap()).collect::<Vec<_>>();
        let before = homes();
        let leaving = leaving.index(weights.len());
        backend.servers[leaving].metrics.went(false);
        for (before, after) in before.iter().zip(homes()) {
            prop_assert!(after != leaving && (*before == after || *before == leaving));
        }
        backend.servers[leaving].metrics.went(true);
        prop_assert_eq!(homes(), before);
    }

    #[test]
    fn a_weight_that_changes_moves_clients_to_or_from_that_server_only(
        weights in proptest::collection::vec(1_u16..=256, 2..10),
        changed in any::<proptest::sample::Index>(),
        to in 0_u16..=256,
    ) {
        let all: Vec<_> = weights.iter().map(|&weight| (weight, false)).collect();
        let backend = test_backend(Balance::Source(Spread::Consistent), &all);
        let mut balancer = Balancer::new(&backend, 0);
        let mut homes = || (0..500).map(|n| balancer.pick(&backend, &client(n), &tried(&[])).unwrap()).collect::<Vec<_>>();
        let before = homes();
        let changed = changed.index(weights.len());
        backend.servers[changed].metrics.set_weight(to);
        for (&before, after) in before.iter().zip(homes()) {
            if before != after {
                let gains = to > weights[changed];
                prop_assert_eq!(if gains { after } else { before }, changed);
            }
        }
    }

    #[test]
    fn round_robin_goes_on_exactly_after_a_weight_has_changed(
        before in proptest::collection::vec(1_u16..=20, 2..6),
        after in proptest::collection::vec(1_u16..=20, 6..7),
    ) {
        let all: Vec<_> = before.iter().map(|&weight| (weight, false)).collect();
        let backend = test_backend(Balance::RoundRobin, &all);
        let mut balancer = Balancer::new(&backend, 0);
        let sum = |weights: &[u16]| weights.iter().map(|&weight| usize::from(weight)).sum();
        // After a whole round nobody is owed anything, and the next one goes by the new weights.
        picks(&mut balancer, &backend, sum(&before));
        let after = &after[..before.len()];
        for (server, &weight) in backend.servers.iter().zip(after) {
            server.metrics.set_weight(weight);
        }
        let mut counts = vec![0; after.len()];
        for picked in picks(&mut balancer, &backend, sum(after)) {
            counts[picked.unwrap()] += 1;
        }
        prop_assert_eq!(counts, after.iter().map(|&weight| i32::from(weight)).collect::<Vec<_>>());
    }
}

/// How far from its share a server may be, of so many picks: five standard deviations.
fn is_near(count: usize, part: f64, picks: usize) -> bool {
    let deviation = (part * (1.0 - part) * picks as f64).sqrt();
    (count as f64 - part * picks as f64).abs() <= 5.0 * deviation
}

#[test]
fn hashes_and_draws_follow_the_weights() {
    const PICKS: u32 = 40_000;
    let weights = [1_u16, 2, 5, 8];
    for balance in [Balance::Source(Spread::Modulo), Balance::Source(Spread::Consistent)] {
        let backend = test_backend(balance, &weights.map(|weight| (weight, false)));
        let mut balancer = Balancer::new(&backend, 0);
        let mut counts = [0; 4];
        for n in 0..PICKS {
            counts[balancer.pick(&backend, &client(n), &tried(&[])).unwrap()] += 1;
        }
        for (count, weight) in counts.into_iter().zip(weights) {
            let part = f64::from(weight) / 16.0;
            assert!(is_near(count, part, PICKS as usize), "{balance:?}: {counts:?}");
        }
    }
}

#[test]
fn two_choices_hold_servers_at_their_weights_under_load() {
    let weights = [1_u16, 2, 5];
    let backend = test_backend(Balance::Random, &weights.map(|weight| (weight, false)));
    let mut balancer = Balancer::new(&backend, 0);
    let under_way: Vec<Session> = (0..800)
        .map(|_| {
            backend.servers[balancer.pick(&backend, &client(0), &tried(&[])).unwrap()]
                .begin(None)
                .unwrap()
        })
        .collect();
    for (server, weight) in backend.servers.iter().zip(weights) {
        let share = usize::from(weight) * 100;
        assert!(
            server.in_flight().abs_diff(share) <= 20,
            "{} of {share}",
            server.in_flight()
        );
    }
    drop(under_way);
}

#[test]
fn all_backups_step_in_together_when_told_so() {
    for balance in ALL {
        let mut backend = test_backend(balance, &[(1, false), (1, true), (1, true), (1, true)]);
        Arc::get_mut(&mut backend).unwrap().backups = Backups::All;
        let mut balancer = Balancer::new(&backend, 0);
        backend.servers[0].metrics.went(false);
        backend.servers[2].metrics.went(false);
        let mut seen: Vec<_> = (0..100)
            .map(|n| balancer.pick(&backend, &client(n), &tried(&[])))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [Some(1), Some(3)], "{balance:?}");
        backend.servers[0].metrics.went(true);
        assert_eq!(balancer.pick(&backend, &client(0), &tried(&[])), Some(0));
    }
}

#[test]
fn a_consistent_hash_does_not_depend_on_the_order_of_servers() {
    let (few, many) = ([(1, false); 3], [(1, false); 4]);
    let home = |servers: &[(u16, bool)], n| {
        let backend = test_backend(Balance::Source(Spread::Consistent), servers);
        Balancer::new(&backend, 0)
            .pick(&backend, &client(n), &tried(&[]))
            .unwrap()
    };
    // Servers are told apart by name: those that stay keep who does not go to the new one.
    for n in 0..200 {
        let after = home(&many, n);
        assert!(after == 3 || after == home(&few, n));
    }
}

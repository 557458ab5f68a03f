//! Places never exceed the limit, and the line is first come, first served.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::backend::{Backend, Balancer, PickKey, Take, test_backend_of, test_backend_of_ranks, test_config};
use crate::config::{AgentCheck, Balance};
use crate::telemetry::metrics::{Agent, Registry};

/// A backend of servers with these limits, backups as flagged.
fn limited(servers: &[(usize, bool)], most: usize) -> Arc<Backend> {
    let plain: Vec<_> = servers.iter().map(|&(_, backup)| (1, backup)).collect();
    let mut configured = test_config(Balance::RoundRobin, &plain);
    for (server, &(max, _)) in configured.servers.iter_mut().zip(servers) {
        server.max_connections = std::num::NonZeroUsize::new(max);
    }
    configured.queue.most = most;
    let addresses = vec![([127, 0, 0, 1], 1).into(); servers.len()];
    test_backend_of(&configured, &addresses, &Registry::new())
}

fn take(balancer: &mut Balancer, backend: &Backend) -> Take {
    let anyone = PickKey::of(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    balancer.take(backend, &anyone, &Tried::default())
}

fn place(balancer: &mut Balancer, backend: &Backend) -> (usize, Session) {
    match take(balancer, backend) {
        Take::Server(server, session) => (server, session),
        other => panic!("{other:?}"),
    }
}

/// Waits in a task of its own; there when this returns.
async fn waiting(backend: &Arc<Backend>) -> tokio::task::JoinHandle<Result<(usize, Session), QueueError>> {
    let before = backend.metrics.queued();
    let backend = Arc::clone(backend);
    let queued = Arc::clone(&backend.metrics);
    let task = tokio::spawn(async move { backend.wait(Tried::default(), None).await });
    while queued.queued() == before && !task.is_finished() {
        tokio::task::yield_now().await;
    }
    task
}

#[tokio::test(start_paused = true)]
async fn places_go_to_those_who_wait_in_their_order() {
    let backend = limited(&[(2, false), (1, false)], 10);
    let mut balancer = Balancer::new(&backend, 0);
    let mut held: Vec<_> = (0..3).map(|_| place(&mut balancer, &backend)).collect();
    assert!(matches!(take(&mut balancer, &backend), Take::Full));
    let mut line = Vec::new();
    for _ in 0..6 {
        line.push(waiting(&backend).await);
    }
    assert_eq!(backend.metrics.queued(), 6);
    // One after the other, each at the server whose place became free.
    for task in line {
        let (server, session) = held.remove(0);
        drop(session);
        assert!(matches!(take(&mut balancer, &backend), Take::Full), "nobody overtakes");
        let (handed, session) = task.await.unwrap().unwrap();
        assert_eq!(handed, server);
        held.push((handed, session));
    }
    assert_eq!(backend.metrics.queued(), 0);
    assert_eq!(backend.in_flight(), 3);
    drop(held);
    assert_eq!(backend.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_too_long_or_leaves_gives_up_the_place() {
    let backend = limited(&[(1, false)], 10);
    let mut balancer = Balancer::new(&backend, 0);
    let (_, session) = place(&mut balancer, &backend);
    let late = waiting(&backend).await;
    assert_eq!(late.await.unwrap().unwrap_err(), QueueError::Timeout);
    assert_eq!(backend.metrics.queued(), 0);
    let leaves = waiting(&backend).await;
    let stays = waiting(&backend).await;
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    assert_eq!(backend.metrics.queued(), 1);
    drop(session);
    assert_eq!(stays.await.unwrap().unwrap().0, 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_than_may() {
    let backend = limited(&[(1, false)], 2);
    let mut balancer = Balancer::new(&backend, 0);
    let (_, session) = place(&mut balancer, &backend);
    let first = waiting(&backend).await;
    let second = waiting(&backend).await;
    assert_eq!(
        backend.wait(Tried::default(), None).await.unwrap_err(),
        QueueError::Full
    );
    drop(session);
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_up_takes_who_waits() {
    let backend = limited(&[(1, false), (2, false)], 10);
    let mut balancer = Balancer::new(&backend, 0);
    backend.servers[1].metrics.went(false);
    let _held = place(&mut balancer, &backend);
    let mut line = Vec::new();
    for _ in 0..3 {
        line.push(waiting(&backend).await);
    }
    backend.servers[1].metrics.went(true);
    backend.dispatch();
    assert_eq!(backend.metrics.queued(), 1);
    let mut handed = Vec::new();
    for task in line.drain(..2) {
        handed.push(task.await.unwrap().unwrap());
    }
    assert!(handed.iter().all(|(server, _)| *server == 1));
}

#[tokio::test(start_paused = true)]
async fn backups_do_not_step_in_for_servers_that_are_full() {
    let backend = limited(&[(1, false), (1, true), (1, true)], 10);
    let mut balancer = Balancer::new(&backend, 0);
    let main = place(&mut balancer, &backend);
    assert!(matches!(take(&mut balancer, &backend), Take::Full));
    let waits = waiting(&backend).await;
    assert_eq!(backend.metrics.queued(), 1);
    // But for one that is down they do, with the one who waits first.
    backend.servers[0].metrics.went(false);
    backend.dispatch();
    let first = waits.await.unwrap().unwrap();
    assert_eq!(first.0, 1);
    assert!(
        matches!(take(&mut balancer, &backend), Take::Full),
        "the first takes everything"
    );
    drop(first);
    assert_eq!(place(&mut balancer, &backend).0, 1);
    drop(main);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_one_priority_has_the_next_when_that_is_gone() {
    let backend = test_backend_of_ranks(&[(0, false), (5, false), (5, false)], Some(1));
    let mut balancer = Balancer::new(&backend, 0);
    let held = place(&mut balancer, &backend);
    assert_eq!(held.0, 0);
    let mut line = Vec::new();
    for _ in 0..3 {
        line.push(waiting(&backend).await);
    }
    assert_eq!(
        backend.metrics.queued(),
        3,
        "the next priority does not step in for one that is full"
    );
    backend.servers[0].metrics.went(false);
    backend.dispatch();
    assert_eq!(backend.metrics.queued(), 1, "all of it does for one that is down");
    let mut handed = Vec::new();
    for task in line.drain(..2) {
        handed.push(task.await.unwrap().unwrap());
    }
    handed.sort_by_key(|(server, _)| *server);
    assert_eq!(handed.iter().map(|(server, _)| *server).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_an_agent_changes_holds_at_once_for_those_who_wait_and_those_who_come() {
    let mut configured = test_config(Balance::RoundRobin, &[(1, false)]);
    configured.agent = Some(AgentCheck {
        port: 1,
        address: None,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        send: Vec::new(),
    });
    let backend = test_backend_of(&configured, &[([127, 0, 0, 1], 1).into()], &Registry::new());
    let mut balancer = Balancer::new(&backend, 0);
    let says = |max| {
        backend.servers[0].metrics.set_agent(Agent {
            max_connections: max,
            ..Agent::default()
        });
        backend.dispatch();
    };
    // Without a word of the agent's there is no limit; what is under way then goes on when there is one.
    let mut held: Vec<_> = (0..5).map(|_| place(&mut balancer, &backend)).collect();
    says(Some(3));
    let first = waiting(&backend).await;
    held.truncate(3);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!first.is_finished(), "it has as much as it may");
    held.truncate(2);
    held.push(first.await.unwrap().unwrap());
    let second = waiting(&backend).await;
    says(Some(4));
    held.push(second.await.unwrap().unwrap());
    assert!(matches!(take(&mut balancer, &backend), Take::Full));
    let third = waiting(&backend).await;
    says(Some(0));
    held.push(third.await.unwrap().unwrap());
    held.push(place(&mut balancer, &backend));
    assert_eq!((backend.in_flight(), backend.metrics.queued()), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn who_has_tried_a_server_lets_others_have_its_place() {
    let backend = limited(&[(1, false), (1, false)], 10);
    let mut balancer = Balancer::new(&backend, 0);
    let (one, session) = place(&mut balancer, &backend);
    let _other = place(&mut balancer, &backend);
    let mut tried = Tried::default();
    tried.add(one);
    let picky = {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move { backend.wait(tried, None).await })
    };
    while backend.metrics.queued() == 0 {
        tokio::task::yield_now().await;
    }
    let open = waiting(&backend).await;
    drop(session);
    assert_eq!(open.await.unwrap().unwrap().0, one);
    assert!(!picky.is_finished());
    picky.abort();
}

/// A backend of one server, as a reload takes it up in the place of the one before.
fn taken_up(configured: &crate::config::Backend, registry: &Registry, before: Option<&Backend>) -> Arc<Backend> {
    let id = crate::config::BackendId(0);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let tls = crate::backend::Connectors {
        servers: vec![None],
        check: None,
    };
    let places = vec![crate::backend::Place::Fixed(address.into())];
    let backend = Backend::new(configured, id, places, tls, registry, before);
    backend.adopt();
    backend
}

#[tokio::test(start_paused = true)]
async fn a_reload_breaks_no_line_up() {
    let mut configured = test_config(Balance::RoundRobin, &[(1, false)]);
    configured.servers[0].max_connections = std::num::NonZeroUsize::new(1);
    let registry = Registry::new();
    let take_up = |before: Option<&Backend>| taken_up(&configured, &registry, before);
    let old = take_up(None);
    let (_, session) = place(&mut Balancer::new(&old, 0), &old);
    let first = waiting(&old).await;
    let new = take_up(Some(&old));
    assert!(matches!(take(&mut Balancer::new(&new, 0), &new), Take::Full));
    let second = waiting(&new).await;
    assert_eq!(new.metrics.queued(), 2);
    drop(session);
    let session = first.await.unwrap().unwrap();
    assert!(!second.is_finished());
    drop(session);
    second.await.unwrap().unwrap();
    assert_eq!(new.metrics.queued(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_over_a_reload_goes_by_the_limit_that_it_brings() {
    let registry = Registry::new();
    let take_up = |max: usize, before: Option<&Backend>| {
        let mut configured = test_config(Balance::RoundRobin, &[(1, false)]);
        configured.servers[0].max_connections = std::num::NonZeroUsize::new(max);
        let backend = taken_up(&configured, &registry, before);
        // As its keeper begins.
        backend.dispatch();
        backend
    };
    let old = take_up(1, None);
    let mut held = vec![place(&mut Balancer::new(&old, 0), &old)];
    let first = waiting(&old).await;
    let second = waiting(&old).await;
    let third = waiting(&old).await;
    let more = take_up(2, Some(&old));
    held.push(first.await.unwrap().unwrap());
    tokio::task::yield_now().await;
    assert!(!second.is_finished(), "two is as much as it may have now");
    // Less again: places that become free are one too many.
    let less = take_up(1, Some(&more));
    drop(held.pop());
    tokio::task::yield_now().await;
    assert!(!second.is_finished(), "one is as much as it may have now");
    let without = take_up(0, Some(&less));
    held.push(second.await.unwrap().unwrap());
    held.push(third.await.unwrap().unwrap());
    assert_eq!((without.in_flight(), without.metrics.queued()), (3, 0));
}

/// Many threads take and wait and leave; an observer counts.
#[test]
fn a_limit_is_never_exceeded_and_no_place_is_lost() {
    const LIMIT: usize = 3;
    let backend = limited(&[(LIMIT, false), (LIMIT, false)], 10_000);
    let inside: Vec<_> = (0..2).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let threads: Vec<_> = (0..4_u64)
        .map(|seed| {
            let (backend, inside) = (Arc::clone(&backend), inside.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let tasks = tokio::task::LocalSet::new();
                tasks.block_on(&runtime, async {
                    let balancer = std::rc::Rc::new(std::cell::RefCell::new(Balancer::new(&backend, 0)));
                    let mut running = Vec::new();
                    for n in 0..500_u64 {
                        let (backend, inside, balancer) = (Arc::clone(&backend), inside.clone(), balancer.clone());
                        running.push(tokio::task::spawn_local(async move {
                            let taken = take(&mut balancer.borrow_mut(), &backend);
                            let (server, session) = match taken {
                                Take::Server(server, session) => (server, session),
                                Take::Full if (n + seed).is_multiple_of(7) => {
                                    // Leaves after a moment, whatever comes.
                                    let wait = backend.wait(Tried::default(), None);
                                    match timeout(Duration::from_micros(n % 50), wait).await {
                                        Ok(got) => got.unwrap(),
                                        Err(_) => return,
                                    }
                                }
                                Take::Full => loop {
                                    // The limit of a second may pass on a busy machine.
                                    match backend.wait(Tried::default(), None).await {
                                        Ok(got) => break got,
                                        Err(error) => assert_eq!(error, QueueError::Timeout),
                                    }
                                },
                                Take::Nothing => panic!("there are servers"),
                            };
                            let now = inside[server].fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(now <= LIMIT, "{now} at a server");
                            tokio::task::yield_now().await;
                            inside[server].fetch_sub(1, Ordering::SeqCst);
                            drop(session);
                        }));
                    }
                    for task in running {
                        task.await.unwrap();
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!((backend.in_flight(), backend.metrics.queued()), (0, 0));
}

proptest! {
    /// A model: any order of taking, waiting, leaving and ending, on one thread.
    #[test]
    fn somebody_waits_only_while_every_server_is_full(
        limits in proptest::collection::vec(1_usize..4, 1..4),
        steps in proptest::collection::vec((0_u8..3, any::<proptest::sample::Index>()), 1..80),
    ) {
        let servers: Vec<_> = limits.iter().map(|&max| (max, false)).collect();
        let backend = limited(&servers, 100);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut balancer = Balancer::new(&backend, 0);
            let mut held: Vec<(usize, Session)> = Vec::new();
            let mut line = VecDeque::new();
            for (step, index) in steps {
                match step {
                    0 => match take(&mut balancer, &backend) {
                        Take::Server(server, session) => held.push((server, session)),
                        Take::Full => line.push_back(waiting(&backend).await),
                        Take::Nothing => prop_assert!(false, "there are servers"),
                    },
                    1 if !held.is_empty() => drop(held.remove(index.index(held.len()))),
                    2 if !line.is_empty() => {
                        let leaves = line.remove(index.index(line.len())).unwrap();
                        leaves.abort();
                        drop(leaves.await);
                    }
                    _ => {}
                }
                // Those who were handed a place come out in their order.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                while line.front().is_some_and(|task| task.is_finished()) {
                    if let Ok(place) = line.pop_front().unwrap().await.unwrap() {
                        held.push(place);
                    }
                }
                prop_assert!(line.iter().all(|task| !task.is_finished()), "nobody overtakes");
                prop_assert_eq!(backend.metrics.queued(), line.len());
                for (server, max) in backend.servers.iter().zip(&limits) {
                    prop_assert!(server.in_flight() <= *max);
                    prop_assert!(line.is_empty() || server.is_full(), "a place is free and somebody waits");
                }
            }
            Ok(())
        })?;
    }
}

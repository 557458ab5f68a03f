//! Calls of heavy plugins: who has the threads when, and what is never lost.

use std::sync::mpsc;

use super::*;
use crate::config::{Heavy, KeptQuota};
use crate::policy::cpu::thread_cpu_time;

/// Lets every request go on.
pub(super) const GUEST_OF_REQUESTS: Guest<'_> = Guest {
    on_request: Some(ZEROES),
    ..GUEST
};

fn heavy(host: &Arc<Host>, queue: usize, wait: Duration) -> Arc<Attachment> {
    attach_with(host, &GUEST_OF_REQUESTS, |spec| {
        spec.callers = Callers::Crew(Heavy { queue, wait })
    })
}

/// Longer than any test waits.
pub(super) const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_call_is_made_by_a_thread_of_the_crew_and_by_no_worker() {
    let host = host_of(4);
    let attachment = heavy(&host, 1, LONG);
    let crew = Crew::new(&host);
    crew.ensure(1).unwrap();
    let asked = Arc::clone(&attachment);
    let call = move |instances: Option<&mut Instances>| {
        let name = std::thread::current().name().map(str::to_owned);
        (name, instances.unwrap().on_request(&asked, &mut exchange("/")).is_ok())
    };
    let made = crew.call(&attachment, call).await;
    assert_eq!(made, Some((Some("policy".to_owned()), true)));
    let refused = Instances::new(&host)
        .instead_of_crew(|instances| instances.on_request(&attachment, &mut exchange("/")))
        .unwrap_err();
    assert_eq!(refused.kind, FailureKind::Quota);
    assert_eq!(attachment.stats().calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_too_long_comes_back_as_it_went() {
    let host = host_of(4);
    // No thread will ever come.
    let (crew, attachment) = (Crew::new(&host), heavy(&host, 2, Duration::from_secs(1)));
    let what = "what it is about".to_owned();
    let began = tokio::time::Instant::now();
    let back = crew
        .call(&attachment, move |instances| (instances.is_none(), what))
        .await;
    assert_eq!(back, Some((true, "what it is about".to_owned())));
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert_eq!(attachment.waiting().unwrap().calls(), 0);
}

#[tokio::test]
async fn no_more_wait_than_may_and_who_goes_makes_room() {
    let host = host_of(4);
    let (crew, attachment) = (Crew::new(&host), heavy(&host, 2, LONG));
    let wait = || Box::pin(crew.call(&attachment, |instances| instances.is_some()));
    let mut waiting = [wait(), wait()];
    for call in &mut waiting {
        assert!(futures_util::poll!(call).is_pending());
    }
    assert_eq!(attachment.waiting().unwrap().calls(), 2);
    assert_eq!(wait().await, Some(false), "a third");
    let [first, second] = waiting;
    drop(first);
    assert_eq!(attachment.waiting().unwrap().calls(), 1);
    let mut third = wait();
    assert!(futures_util::poll!(&mut third).is_pending());
    crew.ensure(1).unwrap();
    assert_eq!((second.await, third.await), (Some(true), Some(true)));
    assert_eq!(attachment.waiting().unwrap().calls(), 0);
}

#[tokio::test]
async fn what_is_given_up_makes_room_in_the_lane_as_well() {
    let host = host_of(4);
    let (crew, attachment) = (Crew::new(&host), heavy(&host, 1, LONG));
    for _ in 0..10_000 {
        let mut call = Box::pin(crew.call(&attachment, |_| ()));
        assert!(futures_util::poll!(&mut call).is_pending());
    }
    assert!(crew.longest_lane() <= 256, "{}", crew.longest_lane());
}

/// In which order the calls of two owners are made that wait when the thread comes: those of `loud` were there first. Each
/// takes so much CPU time.
async fn order_of(loud: (usize, Duration), quiet: (usize, Duration)) -> Vec<&'static str> {
    let host = host_of(4);
    let crew = Crew::new(&host);
    let (send, order) = mpsc::channel();
    let mut calls = Vec::new();
    for (label, (count, takes)) in [("loud", loud), ("quiet", quiet)] {
        let attachment = attach_with(&host, &GUEST_OF_REQUESTS, |spec| {
            spec.label = label.into();
            spec.callers = Callers::Crew(Heavy { queue: 100, wait: LONG });
        });
        for _ in 0..count {
            let (send, crew, attachment) = (send.clone(), Arc::clone(&crew), Arc::clone(&attachment));
            let mut call = Box::pin(async move {
                let call = move |_: Option<&mut Instances>| {
                    send.send(label).unwrap();
                    let since = thread_cpu_time();
                    while thread_cpu_time() - since < takes {}
                };
                crew.call(&attachment, call).await
            });
            assert!(futures_util::poll!(&mut call).is_pending());
            calls.push(call);
        }
    }
    crew.ensure(1).unwrap();
    for call in calls {
        call.await.unwrap();
    }
    order.try_iter().collect()
}

#[tokio::test]
async fn owners_have_the_threads_in_turn() {
    let takes = Duration::from_millis(5);
    let order = order_of((6, takes), (2, takes)).await;
    assert_eq!(order[..2], ["loud", "quiet"], "{order:?}");
    // Which of two is next that have had as good as the same is open.
    assert_eq!(order[4..], ["loud"; 4], "{order:?}");
}

#[tokio::test]
async fn who_has_calls_made_that_take_long_has_no_more_time_than_who_has_short_ones() {
    let order = order_of((3, Duration::from_millis(50)), (20, Duration::ZERO)).await;
    assert_eq!(order[0], "loud", "{order:?}");
    assert_eq!(order[1..21], ["quiet"; 20], "{order:?}");
}

#[tokio::test]
async fn a_plugin_of_the_operators_and_a_tenant_of_its_name_have_a_lane_each() {
    let host = host_of(4);
    let crew = Crew::new(&host);
    let of = |tenant: Option<&str>| {
        attach_with(&host, &GUEST_OF_REQUESTS, |spec| {
            spec.label = tenant.map_or("acme", |_| "acme/guard").into();
            spec.scope.tenant = tenant.map(|name| {
                let (name, kept) = (name.into(), KeptQuota::default());
                let (hosts, quota) = (Vec::new(), host.quota(&name, kept));
                Arc::new(Tenant {
                    name,
                    hosts,
                    kept,
                    quota,
                })
            });
            spec.callers = Callers::Crew(Heavy { queue: 10, wait: LONG });
        })
    };
    let (plugin, tenants) = (of(None), of(Some("acme")));
    let (send, order) = mpsc::channel();
    let call = |attachment, name: &'static str| {
        let send = send.clone();
        Box::pin(crew.call(attachment, move |_| send.send(name).unwrap()))
    };
    let mut calls: Vec<_> = (0..4).map(|_| call(&plugin, "plugin")).collect();
    calls.push(call(&tenants, "tenant"));
    for call in &mut calls {
        assert!(futures_util::poll!(call).is_pending());
    }
    crew.ensure(1).unwrap();
    for call in calls {
        call.await.unwrap();
    }
    let order: Vec<_> = order.try_iter().collect();
    assert_eq!(order[..2], ["plugin", "tenant"], "{order:?}");
}

/// Two calls of one owner's and one of another's, on two threads. The first two last until the third has been made; answers how many
/// of them begin before.
async fn begun_before_anothers(crew: Arc<Crew>, one: &Arc<Attachment>, other: &Arc<Attachment>) -> usize {
    let (began, has_begun) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let mut calls = Vec::new();
    for _ in 0..2 {
        let (began, held) = (began.clone(), Arc::clone(&held));
        let mut call = Box::pin(crew.call(one, move |_| {
            began.send(()).unwrap();
            // Until nobody has the other end any more.
            let _ = held.lock().unwrap().recv();
        }));
        assert!(futures_util::poll!(&mut call).is_pending());
        calls.push(call);
    }
    crew.ensure(2).unwrap();
    has_begun.recv().unwrap();
    let made = crew.call(other, |instances| instances.is_some());
    let made = tokio::time::timeout(LONG, made).await;
    assert_eq!(made, Ok(Some(true)), "it finds no thread");
    let begun = 1 + has_begun.try_iter().count();
    drop(release);
    for call in calls {
        assert_eq!(call.await, Some(()));
    }
    begun
}

#[tokio::test]
async fn who_comes_does_not_have_the_last_thread_while_he_has_another() {
    let host = host_of(4);
    let of = |label: &'static str| {
        attach_with(&host, &GUEST_OF_REQUESTS, |spec| {
            spec.label = label.into();
            spec.callers = Callers::Crew(Heavy { queue: 10, wait: LONG });
        })
    };
    let (newcomer, other) = (of("newcomer"), of("other"));
    let crew = Crew::new(&host);
    crew.serve(&[Arc::clone(&newcomer), Arc::clone(&other)]);
    assert_eq!(begun_before_anothers(crew, &newcomer, &other).await, 1);
}

#[tokio::test]
async fn an_owner_that_is_alone_has_all_threads() {
    let host = host_of(4);
    let attachment = heavy(&host, 10, LONG);
    let crew = Crew::new(&host);
    crew.serve(&[Arc::clone(&attachment)]);
    let (began, has_begun) = mpsc::channel();
    let both = Arc::new(std::sync::Barrier::new(2));
    let call = || {
        let (began, both) = (began.clone(), Arc::clone(&both));
        Box::pin(crew.call(&attachment, move |_| {
            began.send(()).unwrap();
            both.wait();
        }))
    };
    let mut calls = [call(), call()];
    for call in &mut calls {
        assert!(futures_util::poll!(call).is_pending());
    }
    crew.ensure(2).unwrap();
    for call in calls {
        assert_eq!(tokio::time::timeout(LONG, call).await, Ok(Some(())));
    }
    assert_eq!(has_begun.try_iter().count(), 2);
}

#[tokio::test]
async fn a_defect_costs_its_own_call() {
    let host = host_of(4);
    let (crew, attachment) = (Crew::new(&host), heavy(&host, 4, LONG));
    crew.ensure(1).unwrap();
    let lost: Option<()> = crew.call(&attachment, |_| panic!("a defect")).await;
    assert_eq!(lost, None);
    assert_eq!(
        crew.call(&attachment, |instances| instances.is_some()).await,
        Some(true)
    );
}

#[test]
fn a_defect_in_what_a_worker_does_in_the_crews_place_leaves_it_as_it_was() {
    let host = host_of(4);
    let attachment = heavy(&host, 4, LONG);
    let mut instances = Instances::new(&host);
    let defect = || instances.instead_of_crew(|_| panic!("a defect"));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(defect)).unwrap_err();
    assert!(instances.on_request(&attachment, &mut exchange("/")).is_ok());
}

#[tokio::test]
async fn what_was_given_up_takes_no_turn_from_its_owner() {
    let host = host_of(4);
    let crew = Crew::new(&host);
    let of = |label: &'static str| {
        attach_with(&host, &GUEST_OF_REQUESTS, |spec| {
            spec.label = label.into();
            spec.callers = Callers::Crew(Heavy { queue: 100, wait: LONG });
        })
    };
    let (leaving, busy) = (of("leaving"), of("busy"));
    let (send, order) = mpsc::channel();
    let call = |attachment, name: &'static str| {
        let send = send.clone();
        Box::pin(crew.call(attachment, move |_| send.send(name).unwrap()))
    };
    let mut given_up: Vec<_> = (0..10).map(|_| call(&leaving, "given up")).collect();
    for call in &mut given_up {
        assert!(futures_util::poll!(call).is_pending());
    }
    drop(given_up);
    let mut calls: Vec<_> = (0..5).map(|_| call(&busy, "busy")).collect();
    calls.push(call(&leaving, "stayed"));
    for call in &mut calls {
        assert!(futures_util::poll!(call).is_pending());
    }
    crew.ensure(1).unwrap();
    for call in calls {
        call.await.unwrap();
    }
    let order: Vec<_> = order.try_iter().collect();
    assert_eq!(order[0], "stayed", "{order:?}");
}

#[tokio::test]
async fn a_crew_that_goes_finishes_what_is_under_way() {
    let host = host_of(4);
    let (crew, attachment) = (Crew::new(&host), heavy(&host, 4, LONG));
    crew.ensure(1).unwrap();
    let (release, held) = mpsc::channel::<()>();
    let (began, has_begun) = mpsc::channel();
    let mut under_way = Box::pin(crew.call(&attachment, move |_| {
        began.send(()).unwrap();
        held.recv().unwrap_err();
        "done"
    }));
    assert!(futures_util::poll!(&mut under_way).is_pending());
    has_begun.recv().unwrap();
    crew.end();
    drop(release);
    assert_eq!(under_way.await, Some("done"));
    // Nobody comes for the next.
    let mut next = Box::pin(crew.call(&attachment, |instances| instances.is_some()));
    assert!(futures_util::poll!(&mut next).is_pending());
}

//! Calls of heavy and slow plugins: who has the threads when, and what is never lost.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::mpsc;

use super::*;
use crate::config::{BudgetLimits, Heavy, KeptQuota, Millicores};
use crate::policy::state::thread_cpu_time;

/// Lets every request go on.
const GUEST_OF_REQUESTS: Guest<'_> = Guest {
    on_request: Some(ZEROES),
    ..GUEST
};

fn heavy(host: &Arc<Host>, queue: usize, wait: Duration) -> Arc<Attachment> {
    attach_with(host, &GUEST_OF_REQUESTS, |spec| {
        spec.callers = Callers::Crew(Heavy { queue, wait })
    })
}

const LONG: Duration = Duration::from_secs(60);

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

/// Called by the workers as long as calls take less than a millisecond.
fn either(host: &Arc<Host>, on_request: &str, budget: BudgetLimits) -> Arc<Attachment> {
    let guest = Guest {
        on_request: Some(on_request),
        ..GUEST
    };
    attach_with(host, &guest, |spec| {
        let heavy = Heavy { queue: 4, wait: LONG };
        spec.callers = Callers::Either {
            slow: Duration::from_millis(1),
            heavy,
        };
        spec.limits.cpu = Duration::from_secs(10);
        spec.budget = Budget::new("guest", budget, None);
    })
}

/// Some ten milliseconds of looping.
const SOME_TIME: &str = "(local $i i32) (local.set $i (i32.const 30000000))
    (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1))))) (i32.const 0)";

#[tokio::test]
async fn who_was_slow_once_is_called_beside_the_workers() {
    let host = host_of(4);
    let attachment = either(&host, SOME_TIME, BudgetLimits::default());
    let mut of_worker = Instances::new(&host);
    assert!(!attachment.is_heavy() && attachment.may_be_heavy());
    assert!(of_worker.on_request(&attachment, &mut exchange("/")).is_ok());
    assert!(attachment.is_heavy());
    // It is as one that is heavy by nature from now on.
    let crew = Crew::new(&host);
    crew.ensure(1).unwrap();
    let asked = Arc::clone(&attachment);
    let call =
        move |instances: Option<&mut Instances>| instances.unwrap().on_request(&asked, &mut exchange("/")).is_ok();
    assert_eq!(crew.call(&attachment, call).await, Some(true));
    // A call that was under way on a worker meanwhile is not lost.
    assert!(of_worker.on_request(&attachment, &mut exchange("/")).is_ok());
}

/// Of a tenant that owns the host that exchanges of these tests are for.
fn of_a_tenant(host: &Host) -> Scope {
    let name: Arc<str> = "acme".into();
    let tenant = Tenant {
        hosts: vec!["example.net".to_owned()],
        kept: KeptQuota::default(),
        quota: host.quota(&name, KeptQuota::default()),
        name,
    };
    Scope {
        tenant: Some(Arc::new(tenant)),
        ..Scope::default()
    }
}

/// Nobody knows beforehand that a plugin will be slow, nor that more of its calls come than the crew has time for.
#[test]
fn what_no_thread_has_time_for_the_worker_calls_where_it_is_the_operators_and_slow() {
    let host = host_of(8);
    let guest = Guest {
        on_request: Some(SOME_TIME),
        ..GUEST
    };
    let (slow, wait) = (Duration::from_millis(1), LONG);
    let settings = Heavy { queue: 4, wait };
    let either = Callers::Either { slow, heavy: settings };
    let attach = |callers, scope| {
        attach_with(&host, &guest, |spec| {
            spec.callers = callers;
            spec.scope = scope;
            spec.limits.cpu = Duration::from_secs(10);
        })
    };
    let mut of_worker = Instances::new(&host);
    let mut ask = |attachment: &Arc<Attachment>| {
        let call = |instances: &mut Instances| instances.on_request(attachment, &mut exchange("/"));
        of_worker.instead_of_crew(call).err().map(|failure| failure.kind)
    };
    for (attachment, failure) in [
        (attach(either, Scope::default()), None),
        (attach(either, of_a_tenant(&host)), Some(FailureKind::Quota)),
        (
            attach(Callers::Crew(settings), Scope::default()),
            Some(FailureKind::Quota),
        ),
    ] {
        assert!(
            Instances::new(&host)
                .on_request(&attachment, &mut exchange("/"))
                .is_ok()
        );
        assert!(attachment.is_heavy());
        assert_eq!(ask(&attachment), failure);
    }
}

/// Takes some ten milliseconds to set up, and none for a call.
const SLOW_TO_SET_UP: Guest<'_> = Guest {
    configure: "(local $i i32) (local.set $i (i32.const 30000000))
        (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1))))) (i32.const 512)",
    on_request: Some(ZEROES),
    ..GUEST
};

fn slow_to_set_up(host: &Arc<Host>, scope: Scope) -> Arc<Attachment> {
    attach_with(host, &SLOW_TO_SET_UP, |spec| {
        let heavy = Heavy { queue: 4, wait: LONG };
        let slow = Duration::from_millis(1);
        spec.callers = Callers::Either { slow, heavy };
        spec.scope = scope;
        // For one request each.
        spec.isolation = Isolation::Reuse {
            max_requests: NonZeroU64::new(1),
            max_age: None,
        };
    })
}

#[tokio::test]
async fn who_is_slow_to_set_up_is_set_up_beside_the_workers_and_called_by_them() {
    let host = host_of(8);
    let attachment = slow_to_set_up(&host, of_a_tenant(&host));
    let made = || attachment.stats().instantiations();
    let crew = Crew::new(&host);
    let mut worker = Instances::of_worker(&host, &crew);
    let mut warm = Warm::for_workers(1, &host, &[Arc::clone(&attachment)], BTreeMap::new()).unwrap();
    worker.take_in(warm.pop().unwrap());
    assert!(attachment.is_set_up_beside());
    // The one that was made ahead. There is no thread yet that could make another, and the worker makes none.
    assert!(worker.on_request(&attachment, &mut exchange("/")).is_ok());
    while worker.tend() {}
    assert!(!worker.has_ready(&attachment));
    assert_eq!(made(), 1);
    crew.ensure(1).unwrap();
    // One for the next call, and its successor.
    let work = worker.work();
    while made() < 3 || !worker.has_ready(&attachment) {
        work.notified().await;
        while worker.tend() {}
    }
    assert!(worker.on_request(&attachment, &mut exchange("/")).is_ok());
    assert_eq!(made(), 3);
    assert!(!attachment.is_heavy());
}

#[test]
fn setting_up_on_demand_is_found_to_be_slow_whatever_the_isolation() {
    let host = host_of(8);
    let attachment = slow_to_set_up(&host, of_a_tenant(&host));
    assert!(!attachment.is_set_up_beside());
    let mut of_worker = Instances::new(&host);
    assert!(of_worker.on_request(&attachment, &mut exchange("/")).is_ok());
    assert!(attachment.is_set_up_beside());
}

#[test]
fn what_a_tenant_has_no_time_left_for_is_not_made_ahead_and_not_by_a_worker() {
    let host = host_of(8);
    let (strangers, own) = (
        slow_to_set_up(&host, of_a_tenant(&host)),
        slow_to_set_up(&host, Scope::default()),
    );
    let attachments = [Arc::clone(&strangers), Arc::clone(&own)];
    let warm = |left| Warm::for_workers(2, &host, &attachments, BTreeMap::from([("acme".into(), left)]));
    // It is used up by the first.
    drop(warm(Duration::from_nanos(1)).unwrap());
    assert_eq!(
        (strangers.stats().instantiations(), own.stats().instantiations()),
        (1, 2)
    );
    assert!(strangers.is_set_up_beside());
}

#[test]
fn work_that_no_tick_sees_is_found_out_too() {
    let host = host_of(4);
    // No loop and no function of its own, in which it would look up.
    let fill = "(memory.fill (i32.const 8192) (i32.const 0) (i32.const 900000))".repeat(200);
    let fill = format!("(drop (memory.grow (i32.const 15))) {fill} (i32.const 0)");
    let measured = BudgetLimits {
        cpu: Some(Millicores(1_000_000)),
        ..BudgetLimits::default()
    };
    let attachment = either(&host, &fill, measured);
    let mut of_worker = Instances::new(&host);
    for _ in 0..3 {
        assert!(of_worker.on_request(&attachment, &mut exchange("/")).is_ok());
    }
    assert!(attachment.is_heavy());
}

#[test]
fn who_is_quick_stays_with_the_workers() {
    let host = host_of(4);
    let attachment = either(&host, ZEROES, BudgetLimits::default());
    let mut of_worker = Instances::new(&host);
    for _ in 0..10_000 {
        assert!(of_worker.on_request(&attachment, &mut exchange("/")).is_ok());
    }
    assert!(!attachment.is_heavy());
}

/// Asks for much that is not there, and is slow when it takes more CPU time than looking for one of these does.
fn asking_for_much(host: &Arc<Host>, is_forgetful: bool) -> Arc<Attachment> {
    let needs: Vec<String> = (0..64).map(|number| format!("query-param:{number}")).collect();
    let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
    let guest = Guest {
        request_needs: &needs,
        ..GUEST_OF_REQUESTS
    };
    attach_with(host, &guest, |spec| {
        spec.is_forgetful = is_forgetful;
        spec.callers = Callers::Either {
            slow: Duration::from_micros(200),
            heavy: Heavy::DEFAULT,
        };
        let limits = BudgetLimits {
            cpu: Some(Millicores(1_000_000)),
            ..BudgetLimits::default()
        };
        spec.budget = Budget::new("guest", limits, None);
    })
}

fn is_asked_ten_times(instances: &mut Instances, attachment: &Arc<Attachment>, uri: &str) {
    for _ in 0..10 {
        let asked = instances.on_request(attachment, &mut exchange(uri));
        assert!(matches!(asked, Ok(Outcome::Proceed)), "{asked:?}");
    }
}

/// No deadline bounds that, and a component that asks for much which is not there is called with nothing to do.
#[test]
fn looking_for_what_a_call_is_handed_is_a_part_of_it() {
    let host = host_of(2);
    let attachment = asking_for_much(&host, false);
    // Found to be perhaps slow by the clock on the wall, and measured by the thread's own from then on.
    is_asked_ten_times(
        &mut Instances::new(&host),
        &attachment,
        &format!("/?{}", "&".repeat(8000)),
    );
    assert!(attachment.is_heavy());
}

/// Nor is that spared where the answer is known: what is looked for says so.
#[test]
fn looking_for_what_an_answer_is_known_by_is_a_part_of_it() {
    let host = Host::new(HostSettings {
        instances: 2,
        memory: 16 << 20,
        total_memory: u64::MAX,
        host_memory: u64::MAX,
        max_buckets: 1000,
        answers: 8,
    });
    let attachment = asking_for_much(&host, true);
    let mut instances = Instances::new(&host);
    is_asked_ten_times(&mut instances, &attachment, "/");
    let before = (attachment.stats().repeats(), attachment.stats().cpu());
    is_asked_ten_times(&mut instances, &attachment, &format!("/?{}", "&".repeat(8000)));
    assert_eq!(attachment.stats().repeats(), before.0 + 10);
    assert!(attachment.stats().cpu() > before.1);
    assert!(attachment.is_heavy());
}

//! Plugins that turn out to be slow, in their calls or when they are set up: who is found to be so, and who makes their calls then.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use super::heavy::{GUEST_OF_REQUESTS, LONG};
use super::*;
use crate::config::{BudgetLimits, Heavy, KeptQuota, Millicores};

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

#[test]
fn what_the_gateway_makes_of_an_answer_is_a_part_of_the_call() {
    use crate::policy::cpu::thread_cpu_time;
    use crate::policy::hook::EVALUATE;
    use crate::policy::subject::Subject;

    let host = host_of(2);
    let guest = Guest {
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let attachment = attach_with(&host, &guest, |spec| {
        spec.callers = Callers::Either {
            slow: Duration::from_secs(10),
            heavy: Heavy::DEFAULT,
        };
        let limits = BudgetLimits {
            cpu: Some(Millicores(1000)),
            ..Default::default()
        };
        spec.budget = Budget::new("plugin \"one\"", limits, None);
        spec.place = AttachedAs::Predicates;
    });
    let long = Duration::from_millis(30);
    let answer = Instances::new(&host).call(
        &attachment,
        Subject::Exchange(&mut exchange("/")),
        EVALUATE,
        |guests, store, facts| {
            let guest = guests.predicates.as_ref();
            guest.map(|guest| guest.call_evaluate(store, facts))
        },
        |answer, _, _| {
            let begun = thread_cpu_time();
            while thread_cpu_time().saturating_sub(begun) < long {}
            Ok(answer)
        },
    );
    assert_eq!(answer, Ok(0));
    assert!(attachment.stats().cpu() >= long, "{:?}", attachment.stats().cpu());
}

//! How long an instance lives: for an exchange, or for so many requests and so long, with the next one made ahead.

use super::*;

#[test]
fn the_phases_of_one_exchange_share_an_instance_and_nobody_else_does() {
    let host = host_of(8);
    let attachment = attach_with(&host, &PHASES, |spec| {
        spec.isolation = Isolation::PerRequest { ready: 2 };
    });
    let mut instances = Instances::new(&host);
    let mut one = answered("/1");
    let mut two = answered("/2");
    for exchange in [&mut one, &mut two] {
        let outcome = instances.on_request(&attachment, exchange);
        assert!(matches!(outcome, Ok(Outcome::Proceed)), "{outcome:?}");
    }
    while instances.tend() {}
    for exchange in [&mut one, &mut two] {
        instances.on_response(&attachment, exchange).unwrap();
        assert_eq!(exchange.response.as_ref().unwrap().status, 301);
    }
}

#[test]
fn instances_are_made_ahead_of_need_as_many_as_are_asked_for_at_once() {
    let host = host_of(32);
    let budget = Budget::new("plugin \"one\"", limits_of(32), None);
    let attachment = attach_with(&host, &COUNTING, |spec| {
        spec.isolation = Isolation::PerRequest { ready: 4 };
        spec.place = AttachedAs::Predicates;
        spec.budget = budget.clone();
    });
    let mut instances = Instances::new(&host);
    instances.warm(&attachment).unwrap();
    let made = |attachment: &Attachment| attachment.stats().instantiations();
    assert_eq!(made(&attachment), 1);
    for _ in 0..10 {
        assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
    }
    while instances.tend() {}
    // Ten in use once, and four that wait for the next rush.
    assert_eq!(made(&attachment), 14);
    for _ in 0..4 {
        assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
    }
    assert_eq!(made(&attachment), 14, "no call waited for one");
    // The rush is over: after a while there is one again.
    for _ in 0..1000 {
        instances.upkeep();
        while instances.tend() {}
    }
    assert_eq!(budget.instances(), 1);
    drop(instances);
    assert_eq!(budget.instances(), 0);
}

#[test]
fn reuse_ends_after_so_many_requests_and_the_next_one_waits_for_no_instance() {
    let host = host_of(4);
    let attachment = attach_with(&host, &COUNTING, |spec| {
        spec.isolation = Isolation::Reuse {
            max_requests: std::num::NonZeroU64::new(3),
            max_age: None,
        };
        spec.place = AttachedAs::Predicates;
    });
    let mut instances = Instances::new(&host);
    instances.warm(&attachment).unwrap();
    while instances.tend() {}
    for round in 0..5 {
        for count in 1..=3 {
            assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(count));
        }
        let before = attachment.stats().instantiations();
        while instances.tend() {}
        assert_eq!(attachment.stats().instantiations(), before + 1, "round {round}");
    }
}

#[test]
fn reuse_ends_after_so_long() {
    let host = host_of(4);
    let attachment = attach_with(&host, &COUNTING, |spec| {
        spec.isolation = Isolation::Reuse {
            max_requests: None,
            max_age: Some(Duration::from_millis(1)),
        };
        spec.place = AttachedAs::Predicates;
    });
    let mut instances = Instances::new(&host);
    assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
    assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(2));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2) {}
    instances.upkeep();
    assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
}

#[test]
fn what_is_used_again_is_given_back_some_time_after_another_configuration_serves() {
    for max_age in [None, Some(Duration::from_secs(3600))] {
        let host = host_of(4);
        let budget = Budget::new("plugin \"one\"", limits_of(4), None);
        let attachment = attach_with(&host, &COUNTING, |spec| {
            spec.isolation = Isolation::Reuse {
                max_requests: None,
                max_age,
            };
            spec.place = AttachedAs::Predicates;
            spec.budget = Arc::clone(&budget);
        });
        let mut instances = Instances::new(&host);
        assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
        attachment.retire();
        instances.upkeep();
        while instances.tend() {}
        assert_eq!(
            instances.evaluate(&attachment, &mut exchange("/a")),
            Ok(2),
            "what is under way has it"
        );
        // A connection that lasts has the attachment still.
        for _ in 0..1000 {
            instances.upkeep();
            while instances.tend() {}
        }
        assert_eq!(budget.instances(), 0, "{max_age:?}");
        assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
    }
}

//! Time and space: what a guest wants too much of.

use super::*;

#[test]
fn an_endless_loop_ends_wherever_it_is() {
    let predicates = Guest {
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    for guest in [
        Guest {
            items: &format!("(func $start {LOOP}) (start $start)"),
            ..predicates
        },
        Guest {
            describe: LOOP,
            ..predicates
        },
        Guest {
            configure: LOOP,
            ..predicates
        },
        Guest {
            names: LOOP,
            ..predicates
        },
        Guest {
            // For the configuration's text.
            realloc: LOOP,
            ..predicates
        },
    ] {
        assert_eq!(load_failure(&guest).kind, FailureKind::Deadline);
    }
    assert_eq!(evaluate_failure("", LOOP).kind, FailureKind::Deadline);
}

#[test]
fn an_endless_loop_in_realloc_ends_during_a_call() {
    let host = host_of(2);
    let attachment = attach(
        &host,
        &Guest {
            request_needs: &["path"],
            items: "(global $armed (mut i32) (i32.const 0))",
            realloc: "(if (global.get $armed) (then (loop (br 0)))) (call $bump (local.get 2) (local.get 3))",
            configure: "(global.set $armed (i32.const 1)) (i32.const 512)",
            evaluate: Some("(i64.const 0)"),
            ..GUEST
        },
    );
    let mut instances = Instances::new(&host);
    let start = Instant::now();
    let failure = instances.evaluate(&attachment, &mut exchange("/")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Deadline);
    assert!(start.elapsed() >= Duration::from_millis(20));
}

#[test]
fn growth_beyond_the_limit_is_refused_and_a_guest_that_cannot_cope_fails_for_memory() {
    let grow = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))";
    assert_eq!(
        evaluate_failure("", &format!("{grow} (unreachable)")).kind,
        FailureKind::Memory
    );

    // One that copes goes on, with as much as it may have: 1 MiB.
    let host = host_of(2);
    let sixteen = format!("{grow} (i64.extend_i32_u (i32.eq (memory.size) (i32.const 16)))");
    let guest = Guest {
        predicates: &["sixteen"],
        evaluate: Some(&sixteen),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    assert_eq!(Instances::new(&host).evaluate(&attachment, &mut exchange("/")), Ok(1));
}

#[test]
fn a_refusal_that_a_guest_coped_with_is_not_blamed_for_a_later_trap() {
    let host = host_of(2);
    let guest = Guest {
        items: "(global $asked (mut i32) (i32.const 0))",
        evaluate: Some(
            "(if (global.get $asked) (then (unreachable)))
             (global.set $asked (i32.const 1))
             (i64.extend_i32_u (i32.ne (memory.grow (i32.const 1000)) (i32.const -1)))",
        ),
        predicates: &["grown"],
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let mut instances = Instances::new(&host);
    assert_eq!(instances.evaluate(&attachment, &mut exchange("/")), Ok(0));
    let failure = instances.evaluate(&attachment, &mut exchange("/")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Trap);
}

#[test]
fn a_component_whose_memory_is_too_big_from_the_start_is_refused() {
    let guest = Guest {
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let host = host_of(1);
    let component = host.compile("guest", &guest.component(), &[]).unwrap();
    let mut spec = spec("guest");
    spec.limits.memory = 1000;
    match host.attach(&component, spec) {
        Err(PolicyError::Failed { failure, .. }) => assert_eq!(failure.kind, FailureKind::Memory),
        other => panic!("{other:?}"),
    }
}

#[test]
fn deep_recursion_is_a_trap() {
    let items = "(func $deep (param i32) (result i32)
        (i32.add (i32.const 1) (call $deep (i32.add (local.get 0) (i32.const 1)))))";
    let failure = evaluate_failure(items, "(i64.extend_i32_u (call $deep (i32.const 0)))");
    assert_eq!(failure.kind, FailureKind::Trap);
}

#[test]
fn a_full_pool_is_its_own_failure_and_sweeping_makes_room() {
    let host = host_of(2);
    let guest = Guest {
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let mut instances = Instances::new(&host);
    let mut others = Instances::new(&host);
    let first = attach(&host, &guest);
    let second = attach(&host, &guest);
    instances.warm(&first).unwrap();
    instances.warm(&second).unwrap();
    assert_eq!(others.warm(&first).unwrap_err().kind, FailureKind::StoreFull);
    drop(second);
    // The worker that holds it has not noticed yet; once it has, there is room.
    assert_eq!(others.warm(&first).unwrap_err().kind, FailureKind::StoreFull);
    instances.sweep();
    others.warm(&first).unwrap();
    // A worker that needs the room itself sweeps by itself.
    drop(others);
    let third = attach(&host, &guest);
    let fourth = attach(&host, &guest);
    instances.warm(&third).unwrap();
    drop(third);
    instances.warm(&fourth).unwrap();
}

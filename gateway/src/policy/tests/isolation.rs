//! One guest's failure is nobody else's.

use super::*;

#[test]
fn after_a_failure_the_next_call_works_and_others_notice_nothing() {
    let host = host_of(4);
    let mut instances = Instances::new(&host);
    let failing = attach_as(&host, "failing", &COUNTING).unwrap();
    let other = attach_as(&host, "other", &COUNTING).unwrap();
    let mut ask = |attachment, uri| instances.evaluate(attachment, &mut exchange(uri)).map_err(|f| f.kind);
    assert_eq!(ask(&failing, "/a"), Ok(1));
    assert_eq!(ask(&failing, "/a"), Ok(2));
    assert_eq!(ask(&other, "/a"), Ok(1));
    assert_eq!(ask(&failing, "/b"), Err(FailureKind::Trap));
    assert_eq!(ask(&other, "/a"), Ok(2));
    // Another instance: it counts from the start.
    assert_eq!(ask(&failing, "/a"), Ok(1));
    assert_eq!(failing.stats().failures(FailureKind::Trap), 1);
    assert_eq!((failing.stats().instantiations(), failing.stats().calls()), (2, 4));
    assert_eq!(other.stats().failures(FailureKind::Trap), 0);
}

#[test]
fn a_slot_that_changes_hands_does_not_mix_up_instances() {
    let host = host_of(4);
    let mut instances = Instances::new(&host);
    let old = attach(&host, &COUNTING);
    assert_eq!(instances.evaluate(&old, &mut exchange("/a")), Ok(1));
    let index = old.slot.index;
    drop(old);
    let new = attach(&host, &COUNTING);
    assert_eq!(new.slot.index, index);
    assert_eq!(instances.evaluate(&new, &mut exchange("/a")), Ok(1));
}

#[test]
fn an_instance_never_sees_what_another_left_behind() {
    let host = host_of(1);
    // Both have 8 pages. One writes over all of them and its globals and traps; the other answers whether it sees any of that.
    let leaves = Guest {
        items: "(global $mark (mut i64) (i64.const 0))",
        evaluate: Some(
            "(drop (memory.grow (i32.const 7)))
             (memory.fill (i32.const 4096) (i32.const 0xa5) (i32.const 520192))
             (global.set $mark (i64.const 0xa5))
             (unreachable)",
        ),
        ..GUEST
    };
    let looks = Guest {
        predicates: &["seen"],
        items: "(global $mark (mut i64) (i64.const 0))",
        evaluate: Some(
            "(local $at i32) (local $seen i64)
             (drop (memory.grow (i32.const 7)))
             (local.set $seen (global.get $mark))
             (local.set $at (i32.const 32768))
             (loop
               (local.set $seen (i64.or (local.get $seen) (i64.load (local.get $at))))
               (local.set $at (i32.add (local.get $at) (i32.const 8)))
               (br_if 0 (i32.lt_u (local.get $at) (i32.const 524288))))
             (i64.extend_i32_u (i64.ne (local.get $seen) (i64.const 0)))",
        ),
        ..GUEST
    };
    let leaves = attach_as(&host, "leaves", &leaves).unwrap();
    let looks = attach_as(&host, "looks", &looks).unwrap();
    for _ in 0..5 {
        let mut instances = Instances::new(&host);
        let failure = instances.evaluate(&leaves, &mut exchange("/")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Trap);
        assert_eq!(instances.evaluate(&looks, &mut exchange("/")), Ok(0));
    }
}

#[test]
fn whose_instances_have_many_tables_takes_no_places_of_others() {
    let host = host_of(4);
    let guest = Guest {
        items: "(table 16 funcref) (table 16 funcref) (table 16 funcref) (table 16 funcref)",
        on_request: Some(ZEROES),
        on_response: Some(ZEROES),
        ..GUEST
    };
    let attach = || {
        attach_with(&host, &guest, |spec| {
            spec.isolation = Isolation::PerRequest { ready: 0 };
        })
    };
    let (greedy, other) = (attach(), attach());
    let mut instances = Instances::new(&host);
    // Half of the places each, as the process gives them; held until the response.
    let mut held: Vec<_> = (0..4).map(|_| exchange("/")).collect();
    for (number, exchange) in held.iter_mut().enumerate() {
        let attachment = if number < 2 { &greedy } else { &other };
        let outcome = instances.on_request(attachment, exchange);
        assert!(matches!(outcome, Ok(Outcome::Proceed)), "{number}: {outcome:?}");
    }
}

#[test]
fn setting_up_again_and_again_does_not_take_a_workers_time() {
    // The first instance, at load, gets the only token; later ones are refused their configuration.
    let host = host_of(4);
    let guest = Guest {
        imports: r#"(import "gateway:policy/buckets@0.1.0" "take"
            (func $take (param i32 i32 i32 i32 i64 i64 i64 i32 i32)))"#,
        configure: "
            (call $take (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
              (i64.const 1) (i64.const 3600000) (i64.const 1) (i32.const 1) (i32.const 4096))
            (if (i32.eqz (i32.load8_u (i32.const 4096))) (then (unreachable)))
            (i32.const 512)",
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let mut instances = Instances::new(&host);
    let start = Instant::now();
    let mut tried = 0;
    loop {
        let failure = instances.evaluate(&attachment, &mut exchange("/")).unwrap_err();
        match failure.kind {
            FailureKind::Configure => tried += 1,
            FailureKind::Instantiate => break,
            _ => panic!("{failure}"),
        }
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert!(tried >= 1);
    assert_eq!(attachment.stats().failures(FailureKind::Configure), tried);
}

#[test]
fn one_clients_traps_deny_nobody_else_however_long_setting_up_takes() {
    let host = host_of(4);
    // Setting up takes some milliseconds.
    let guest = Guest {
        configure: "(local $i i32) (local.set $i (i32.const 30000000))
            (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
            (i32.const 512)",
        ..COUNTING
    };
    let attachment = attach(&host, &guest);
    let mut instances = Instances::new(&host);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        let trap = instances.evaluate(&attachment, &mut exchange("/b")).unwrap_err();
        assert_eq!(trap.kind, FailureKind::Trap, "{trap}");
        assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
    }
}

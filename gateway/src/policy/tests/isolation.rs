//! One guest's failure is nobody else's.

use super::*;

/// Answers how often this instance was asked; traps when the path begins with `/b`.
const COUNTING: Guest<'_> = Guest {
    request_needs: &["path"],
    items: "(global $count (mut i64) (i64.const 0))",
    evaluate: Some(
        "(if (i32.eq (i32.load8_u (i32.add (i32.load offset=4 (local.get 0)) (i32.const 1))) (i32.const 98))
           (then (unreachable)))
         (global.set $count (i64.add (global.get $count) (i64.const 1)))
         (global.get $count)",
    ),
    predicates: &["a", "b", "c", "d"],
    ..GUEST
};

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

#[test]
fn a_guests_message_is_one_short_line() {
    // As above, but later instances refuse with a message: a forged line, and all that follows it in memory.
    let host = host_of(4);
    let guest = Guest {
        imports: r#"(import "gateway:policy/buckets@0.1.0" "take"
            (func $take (param i32 i32 i32 i32 i64 i64 i64 i32 i32)))"#,
        // An error, whose message begins at 4,300 and has 32,768 bytes, and no place.
        items: r#"(data (i32.const 4200) "\01\00\00\00\cc\10\00\00\00\80\00\00\00")
            (data (i32.const 4300) "no\0aWARN forged\1b[2J")"#,
        configure: "
            (call $take (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
              (i64.const 1) (i64.const 3600000) (i64.const 1) (i32.const 1) (i32.const 4096))
            (select (i32.const 512) (i32.const 4200) (i32.load8_u (i32.const 4096)))",
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let failure = Instances::new(&host)
        .evaluate(&attachment, &mut exchange("/"))
        .unwrap_err();
    let message = failure.message;
    assert_eq!(failure.kind, FailureKind::Configure, "{message}");
    assert!(message.contains(r"no\nWARN forged\u{1b}[2J"), "{message}");
    assert!(!message.contains(char::is_control) && message.len() < 1100, "{message}");
}

#[test]
fn what_a_guest_names_is_logged_short_and_not_too_often() {
    #[derive(Clone, Default)]
    struct Log(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let host = host_of(2);
    let attachment = attach(&host, &COUNTING);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.finish(), || {
        for _ in 0..1000 {
            attachment.warn_of(&format!("x\nWARN {}", "y".repeat(5000)), "is not there");
        }
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!((100..300).contains(&text.lines().count()), "{}", text.lines().count());
    assert!(
        text.lines()
            .all(|line| line.contains(r"named=x\nWARN yyy") && line.len() < 300),
        "{text}"
    );
}

#[test]
fn a_guest_may_log_and_ask_the_time() {
    let host = host_of(2);
    let guest = Guest {
        imports: r#"(import "gateway:policy/log@0.1.0" "write" (func $write (param i32 i32 i32)))
            (import "gateway:policy/clock@0.1.0" "now-ms" (func $now (result i64)))
            (import "gateway:policy/clock@0.1.0" "monotonic-ns" (func $mono (result i64)))"#,
        items: r#"(data (i32.const 4096) "hello\0a")"#,
        predicates: &["time"],
        evaluate: Some(
            "(call $write (i32.const 2) (i32.const 4096) (i32.const 6))
             (i64.extend_i32_u (i32.and
               (i64.gt_u (call $now) (i64.const 1600000000000))
               (i64.le_u (call $mono) (call $mono))))",
        ),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let mut instances = Instances::new(&host);
    for _ in 0..500 {
        assert_eq!(instances.evaluate(&attachment, &mut exchange("/")), Ok(1));
    }
}

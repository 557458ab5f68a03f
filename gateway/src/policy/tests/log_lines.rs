//! What guests write into the log, and what is written there about them.

use super::*;

#[test]
fn a_guests_message_is_one_short_line() {
    // The first instance takes its configuration, and later ones refuse it with a message: a forged line, and all that follows it in
    // memory.
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

/// What is written into the log meanwhile.
fn logged(step: impl FnOnce()) -> String {
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
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.finish(), step);
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn who_fails_and_works_in_turn_writes_few_lines_about_its_quarantine() {
    let host = host_of(2);
    let attachment = attach_with(&host, &COUNTING, |spec| {
        spec.place = AttachedAs::Predicates;
        spec.quarantine = Some(crate::config::QuarantineSettings {
            failures: 1,
            from: Duration::from_nanos(1),
            to: Duration::from_nanos(1),
        });
    });
    let mut instances = Instances::new(&host);
    let text = logged(|| {
        for _ in 0..50 {
            instances.evaluate(&attachment, &mut exchange("/b")).unwrap_err();
            instances.evaluate(&attachment, &mut exchange("/a")).unwrap();
        }
    });
    let lines = text
        .lines()
        .filter(|line| line.contains("in quarantine for") || line.contains("works again"));
    assert!((10..=12).contains(&lines.count()), "{text}");
}

#[test]
fn what_a_guest_names_is_logged_short_and_not_too_often() {
    let host = host_of(2);
    let attachment = attach(&host, &COUNTING);
    let text = logged(|| {
        for _ in 0..1000 {
            attachment.warn_of(&format!("x\nWARN {}", "y".repeat(5000)), "is not there");
        }
    });
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

//! What guests answer.

use super::*;
use crate::config::BackendId;

#[test]
fn answers_outside_of_memory_or_beyond_bounds_fail_the_call() {
    // Names: as many as there can be, and one that is not UTF-8.
    for data in [r"\00\04\00\00\ff\ff\ff\ff", r"\00\00\00\80\01\00\00\00"] {
        let guest = Guest {
            items: &format!(r#"(data (i32.const 4096) "{data}")"#),
            names: "(i32.const 4096)",
            evaluate: Some("(i64.const 0)"),
            ..GUEST
        };
        assert!(matches!(
            load_failure(&guest).kind,
            FailureKind::Trap | FailureKind::HostCall
        ));
    }
    let guest = Guest {
        items: r#"(data (i32.const 4096) "\08\10\00\00\01\00\00\00\10\10\00\00\02\00\00\00\ff\fe")"#,
        names: "(i32.const 4096)",
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let failure = load_failure(&guest);
    assert_eq!((failure.kind, failure.hook), (FailureKind::Trap, "names"));
}

fn reply_failure(memory: u32, reply: &str) -> Failure {
    let host = host_of(1);
    let guest = Guest {
        items: &format!(r#"(data (i32.const 4096) "{reply}")"#),
        on_request: Some(&format!("(drop (memory.grow (i32.const {memory}))) (i32.const 4096)")),
        ..GUEST
    };
    let component = host.compile("guest", &guest.component(), &[]).unwrap();
    let mut spec = spec("guest");
    spec.limits.memory = 16 << 20;
    let attachment = host.attach(&component, spec).unwrap();
    let mut instances = Instances::new(&host);
    let failure = instances.on_request(&attachment, &mut exchange("/")).unwrap_err();
    assert_eq!(attachment.stats().failures(failure.kind), 1);
    failure
}

#[test]
fn a_reply_that_may_not_be_sent_fails_the_call() {
    // some; status; headers at 0, none; body at 0, this long.
    let body = |len: u32| {
        let len: String = len.to_le_bytes().iter().map(|b| format!("\\{b:02x}")).collect();
        format!(r"\01\00\00\00\c8\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00{len}")
    };
    assert_eq!(reply_failure(0, &body(u32::MAX)).kind, FailureKind::Trap);
    assert_eq!(reply_failure(100, &body(6 << 20)).kind, FailureKind::HostCall);
    let failure = reply_failure(100, &body((1 << 20) + 1));
    assert!(failure.message.contains("body"), "{failure}");
    // Status 100; status 600; a framing field.
    for reply in [
        r"\01\00\00\00\64\00",
        r"\01\00\00\00\58\02",
        r"\01\00\00\00\c8\00\00\00\18\10\00\00\01\00\00\00\00\00\00\00\00\00\00\00\28\10\00\00\0e\00\00\00\00\00\00\00\00\00\00\00content-length",
        r"\01\00\00\00\c8\00\00\00\18\10\00\00\01\00\00\00\00\00\00\00\00\00\00\00\28\10\00\00\01\00\00\00\29\10\00\00\03\00\00\00xa\0d\0a",
    ] {
        let failure = reply_failure(0, reply);
        assert_eq!(
            (failure.kind, failure.hook),
            (FailureKind::Trap, "on-request"),
            "{failure}"
        );
    }
}

#[test]
fn bits_beyond_the_named_predicates_are_ignored() {
    let host = host_of(2);
    let guest = Guest {
        predicates: &["a", "b"],
        evaluate: Some("(i64.const -2)"),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    assert_eq!(attachment.predicates(), ["a", "b"]);
    assert_eq!(Instances::new(&host).evaluate(&attachment, &mut exchange("/")), Ok(2));
}

#[test]
fn every_hook_answers() {
    let host = host_of(8);
    let mut instances = Instances::new(&host);
    let guest = Guest {
        request_needs: &["path"],
        items: r#"(data (i32.const 5000) "\01\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00\03\00\00\00\00\00\00\00\04\00\00\00\00\00\00\00\05\00\00\00\00\00\00\00")
            (data (i32.const 5100) "\02\00\00\00\f8\13\00\00\04\00\00\00other")"#,
        evaluate: Some("(i64.const 0)"),
        check: Some("(i32.const 5000)"),
        on_request: Some(ECHO_FIRST_FACT),
        on_response: Some(ZEROES),
        on_connect: Some("(i32.const 5100)"),
        ..GUEST
    };
    let attachment = attach_with(&host, &guest, |spec| {
        spec.granted = Arc::new(Granted {
            routes: vec![("othe".into(), BackendId(7))],
            ..Granted::default()
        });
    });
    let all = attachment.hooks();
    assert!(all.predicates && all.limiter && all.request_filter && all.response_filter && all.connection_filter);
    let verdict = LimitVerdict {
        allowed: true,
        policy: 0,
        remaining: 3,
        reset_ms: 4,
        retry_after_ms: 5,
    };
    assert_eq!(instances.check(&attachment, &mut exchange("/")), Ok(Some(verdict)));
    let reply = replied(instances.on_request(&attachment, &mut exchange("/path")));
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"/path"[..]));
    instances.on_response(&attachment, &mut answered("/")).unwrap();
    let verdict = instances.on_connect(&attachment, &connection());
    assert_eq!(verdict, Ok(ConnectionVerdict::Route(BackendId(7))));
    assert_eq!(
        (attachment.stats().calls(), attachment.stats().instantiations()),
        (4, 1)
    );
    // Where it was not granted the backend, that is a failure.
    let failure = instances.on_connect(&attach(&host, &guest), &connection()).unwrap_err();
    assert_eq!((failure.kind, failure.hook), (FailureKind::Trap, "on-connect"));
    assert!(failure.message.contains("route-to"), "{failure}");
}

#[test]
fn a_hook_that_is_not_there_fails_without_a_panic() {
    let host = host_of(2);
    let guest = Guest {
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let mut instances = Instances::new(&host);
    assert!(instances.check(&attachment, &mut exchange("/")).is_err());
    assert!(instances.on_connect(&attachment, &connection()).is_err());
    assert_eq!(instances.evaluate(&attachment, &mut exchange("/")), Ok(0));
}

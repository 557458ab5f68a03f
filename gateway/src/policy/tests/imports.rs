//! What guests ask of the host, and change.

use super::*;

const SET_HEADER: &str = r#"(import "gateway:policy/request-edits@0.1.0" "set-header"
    (func $set_header (param i32 i32 i32 i32 i32)))"#;

/// `set-header` with the name and value at 4,200 and 4,264; the result at 4,300.
fn set_header(name: &str, value: &str) -> (String, String) {
    let items = format!(r#"(data (i32.const 4200) "{name}") (data (i32.const 4264) "{value}")"#);
    let count = |text: &str| text.len() - text.matches('\\').count() * 2;
    let (name, value) = (count(name), count(value));
    let call = format!(
        "(call $set_header (i32.const 4200) (i32.const {name}) (i32.const 4264) (i32.const {value}) (i32.const 4300))"
    );
    (items, call)
}

/// Does this with a request, with these items at hand.
fn setting_header<'a>(items: &'a str, on_request: &'a str) -> Guest<'a> {
    Guest {
        imports: SET_HEADER,
        items,
        on_request: Some(on_request),
        ..GUEST
    }
}

#[test]
fn edits_are_applied_when_the_call_succeeds() {
    let host = host_of(2);
    let (items, call) = set_header("A", "new");
    let body = format!("{call} {ZEROES}");
    let attachment = attach(&host, &setting_header(&items, &body));
    let mut exchange = exchange("/");
    let mut instances = Instances::new(&host);
    assert!(
        instances
            .on_request(&attachment, &mut exchange)
            .is_ok_and(|outcome| matches!(outcome, Outcome::Proceed))
    );
    let values: Vec<_> = exchange.request.headers.get_all("a").iter().collect();
    assert_eq!(values, ["new"]);
}

#[test]
fn edits_are_discarded_when_the_call_fails_later() {
    let host = host_of(2);
    let (items, call) = set_header("a", "new");
    // Fails the first time, and each instance the second time.
    let body = format!(
        r"{call}
        (if (i32.eq (i32.load8_u (i32.add (local.get 2) (i32.const 1))) (i32.const 98))
          (then (unreachable)))
        {ZEROES}"
    );
    let guest = Guest {
        request_needs: &["path"],
        ..setting_header(&items, &body)
    };
    let attachment = attach(&host, &guest);
    let mut instances = Instances::new(&host);
    let mut exchange = exchange("/bad");
    assert_eq!(
        instances.on_request(&attachment, &mut exchange).unwrap_err().kind,
        FailureKind::Trap
    );
    let values: Vec<_> = exchange.request.headers.get_all("a").iter().collect();
    assert_eq!(values, ["1", "2"]);
    exchange.request.uri = "/good".parse().unwrap();
    assert!(
        instances
            .on_request(&attachment, &mut exchange)
            .is_ok_and(|outcome| matches!(outcome, Outcome::Proceed))
    );
    assert_eq!(exchange.request.headers["a"], "new");
}

#[test]
fn edits_that_are_not_allowed_are_errors_to_the_guest() {
    for (name, value) in [
        ("connection", "close"),
        ("Transfer-Encoding", "chunked"),
        ("content-length", "0"),
        (":path", "/"),
        ("a", "b\\0d\\0ac: d"),
        ("a", "b\\00"),
        ("a b", "c"),
    ] {
        let host = host_of(2);
        let (items, call) = set_header(name, value);
        // Traps unless the result is an error.
        let body = format!("{call} (if (i32.eqz (i32.load8_u (i32.const 4300))) (then (unreachable))) {ZEROES}");
        let attachment = attach(&host, &setting_header(&items, &body));
        let mut exchange_ = exchange("/");
        Instances::new(&host).on_request(&attachment, &mut exchange_).unwrap();
        assert_eq!(exchange_.request.headers, exchange("/").request.headers);
    }
}

#[test]
fn a_trap_after_an_edit_that_is_not_allowed_says_why_it_was_not() {
    let host = host_of(2);
    let (items, call) = set_header("te", "new");
    let body = format!("{call} (unreachable)");
    let attachment = attach(&host, &setting_header(&items, &body));
    let failure = Instances::new(&host)
        .on_request(&attachment, &mut exchange("/"))
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::Trap);
    let why = "after `set-header` was refused: `te` belongs to the connection or the framing";
    assert!(failure.message.contains(why), "{failure}");
}

#[test]
fn edits_in_another_phase_are_errors_to_the_guest() {
    let host = host_of(2);
    let (items, call) = set_header("a", "new");
    let refused = format!("{call} (i64.load8_u (i32.const 4300))");
    let guest = Guest {
        imports: SET_HEADER,
        items: &items,
        predicates: &["refused"],
        evaluate: Some(&refused),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let mut exchange = exchange("/");
    assert_eq!(Instances::new(&host).evaluate(&attachment, &mut exchange), Ok(1));
    assert_eq!(exchange.request.headers["a"], "1");
}

#[test]
fn reading_what_is_not_there_ends_the_call() {
    let path = r#"(import "gateway:policy/request@0.1.0" "path" (func $path (param i32)))"#;
    let guest = Guest {
        imports: path,
        configure: "(call $path (i32.const 4096)) (i32.const 512)",
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    assert_eq!(load_failure(&guest).kind, FailureKind::HostCall);

    let host = host_of(2);
    let mut instances = Instances::new(&host);
    let guest = Guest {
        imports: path,
        on_connect: Some("(call $path (i32.const 4096)) (i32.const 512)"),
        ..GUEST
    };
    let failure = instances.on_connect(&attach(&host, &guest), &connection()).unwrap_err();
    assert_eq!((failure.kind, failure.hook), (FailureKind::HostCall, "on-connect"));

    let status = r#"(import "gateway:policy/response@0.1.0" "status" (func $status (result i32)))"#;
    let guest = Guest {
        imports: status,
        on_request: Some("(drop (call $status)) (i32.const 512)"),
        on_response: Some("(drop (call $status)) (i32.const 512)"),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    // Even when there is a response: this is not its phase.
    let failure = instances.on_request(&attachment, &mut answered("/")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::HostCall);
    instances.on_response(&attachment, &mut answered("/")).unwrap();
    assert_eq!(
        instances.on_response(&attachment, &mut exchange("/")).unwrap_err().kind,
        FailureKind::HostCall
    );
}

#[test]
fn a_bucket_rate_of_nothing_ends_the_call() {
    let take = r#"(import "gateway:policy/buckets@0.1.0" "take"
        (func $take (param i32 i32 i32 i32 i64 i64 i64 i32 i32)))"#;
    let host = host_of(2);
    let guest = Guest {
        imports: take,
        evaluate: Some(
            "(call $take (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
               (i64.const 0) (i64.const 1) (i64.const 1) (i32.const 1) (i32.const 4096)) (i64.const 0)",
        ),
        ..GUEST
    };
    let failure = Instances::new(&host)
        .evaluate(&attach(&host, &guest), &mut exchange("/"))
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::HostCall);
}

#[test]
fn asking_the_host_for_too_much_ends_the_call() {
    // A list of 4,096 names, at 0.
    let guest = Guest {
        imports: r#"(import "gateway:policy/request@0.1.0" "get-many" (func $get_many (param i32 i32 i32)))"#,
        evaluate: Some("(call $get_many (i32.const 8192) (i32.const 512) (i32.const 4096)) (i64.const 0)"),
        ..GUEST
    };
    let host = host_of(2);
    let failure = Instances::new(&host)
        .evaluate(&attach(&host, &guest), &mut exchange("/"))
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::HostCall);
}

#[test]
fn an_attribute_as_big_as_a_head_may_be_is_handed_over_and_a_bigger_one_is_not() {
    let host = host_of(2);
    let guest = Guest {
        request_needs: &["header:big"],
        realloc: "(if (i32.gt_u (local.get 3) (i32.const 40000)) (then
            (if (i32.lt_u (memory.size) (i32.const 8)) (then (drop (memory.grow (i32.const 8)))))
            (return (i32.const 65536)))) (call $bump (local.get 2) (local.get 3))",
        on_request: Some(ECHO_FIRST_FACT),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let mut instances = Instances::new(&host);
    let mut exchange = exchange("/");
    let big = http::HeaderValue::from_bytes(&vec![b'x'; 300_000]).unwrap();
    exchange.request.headers.append("big", big.clone());
    let reply = replied(instances.on_request(&attachment, &mut exchange));
    assert_eq!(reply.body.len(), 300_000);
    for _ in 0..3 {
        exchange.request.headers.append("big", big.clone());
    }
    let failure = instances.on_request(&attachment, &mut exchange).unwrap_err();
    assert_eq!(failure.kind, FailureKind::HostCall);
}

/// However often a name stands in one call, what the gateway copies for it is bounded: nothing interrupts that.
#[test]
fn one_name_asked_for_again_and_again_is_not_copied_without_end() {
    let host = host_of(2);
    for (interface, names, copied) in [
        ("request", 100, true),
        ("request", 256, false),
        ("response", 256, false),
    ] {
        let imports =
            format!(r#"(import "gateway:policy/{interface}@0.1.0" "get-many" (func $many (param i32 i32 i32)))"#);
        // The same eight bytes again and again: where the name is, and how long.
        let body = format!(
            "(local $i i32)
             (loop
               (i64.store (i32.add (i32.const 4096) (i32.shl (local.get $i) (i32.const 3))) (i64.const 0x500002000))
               (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {names}))))
             (call $many (i32.const 4096) (i32.const {names}) (i32.const 8448))
             {ZEROES}"
        );
        let guest = Guest {
            imports: &imports,
            items: r#"(data (i32.const 8192) "x-big")"#,
            on_response: Some(&body),
            ..GUEST
        };
        // Copying takes a debug build longer than calls may by default.
        let attachment = attach_with(&host, &guest, |spec| spec.limits.cpu = Duration::from_secs(10));
        let mut exchange = answered("/");
        let big = http::HeaderValue::from_str(&"x".repeat(16_000)).unwrap();
        exchange.request.headers.insert("x-big", big.clone());
        exchange.response.as_mut().unwrap().headers.insert("x-big", big);
        let result = Instances::new(&host).on_response(&attachment, &mut exchange);
        let kind = result.map(drop).map_err(|failure| failure.kind);
        let expected = if copied { Ok(()) } else { Err(FailureKind::HostCall) };
        assert_eq!(kind, expected, "{interface} {names}");
    }
}

//! What guests may do to the host: hostile ones, broken ones and ordinary ones, as core WebAssembly text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::guests::{CONTRACT, GUEST, Guest, ZEROES};
use super::*;
use crate::config::{Grant, OnFailure, PluginLimits};

const LOOP: &str = "(loop (br 0)) (unreachable)";

/// Reads the first fact's value as the answer's body: a reply at 4,096 with status 200.
const ECHO_FIRST_FACT: &str = "
    (i32.store8 (i32.const 4096) (i32.const 1))
    (i32.store16 (i32.const 4100) (i32.const 200))
    (i32.store (i32.const 4112) (i32.load offset=4 (local.get 0)))
    (i32.store (i32.const 4116) (i32.load offset=8 (local.get 0)))
    (i32.const 4096)";

fn host_of(instances: u32) -> Arc<Host> {
    Host::new(HostSettings {
        instances,
        memory: 16 << 20,
        max_buckets: 1000,
    })
    .unwrap()
}

fn spec(label: &str) -> AttachmentSpec {
    AttachmentSpec {
        label: label.into(),
        namespace: label.to_owned(),
        config: "{}".to_owned(),
        limits: PluginLimits {
            cpu: Duration::from_millis(20),
            memory: 1 << 20,
        },
        on_failure: OnFailure::Skip,
        origin: None,
    }
}

fn attach_as(host: &Arc<Host>, label: &str, guest: &Guest<'_>) -> Result<Arc<Attachment>, PolicyError> {
    let component = host.compile(label, &guest.component(), &[Grant::Buckets, Grant::Log, Grant::Clock])?;
    host.attach(&component, spec(label))
}

fn attach(host: &Arc<Host>, guest: &Guest<'_>) -> Arc<Attachment> {
    attach_as(host, "guest", guest).unwrap()
}

fn load_failure(guest: &Guest<'_>) -> Failure {
    match attach_as(&host_of(2), "guest", guest) {
        Err(PolicyError::Failed { failure, .. }) => failure,
        other => panic!("{other:?}"),
    }
}

fn load_error(guest: &Guest<'_>) -> String {
    attach_as(&host_of(2), "guest", guest).unwrap_err().to_string()
}

fn compile_error(guest: &Guest<'_>, contract: &str, grants: &[Grant]) -> PolicyError {
    host_of(1)
        .compile("guest", &guest.component_of(contract), grants)
        .unwrap_err()
}

fn exchange(uri: &str) -> Box<Exchange> {
    let request = http::Request::builder()
        .uri(uri)
        .header("host", "example.net")
        .header("a", "1")
        .header("a", "2");
    Box::new(Exchange {
        request: request.body(()).unwrap().into_parts().0,
        response: None,
        connection: connection(),
    })
}

fn answered(uri: &str) -> Box<Exchange> {
    let mut exchange = exchange(uri);
    let response = http::Response::builder().status(404).header("server", "nginx");
    exchange.response = Some(response.body(()).unwrap().into_parts().0);
    exchange
}

fn connection() -> Arc<ConnectionFacts> {
    Arc::new(ConnectionFacts {
        client: "192.0.2.7:4711".parse().unwrap(),
        local: "192.0.2.1:80".parse().unwrap(),
        peer: "192.0.2.7:4711".parse().unwrap(),
        tls: None,
    })
}

/// The failure of one evaluation by a guest with these items and this body.
fn evaluate_failure(items: &str, body: &str) -> Failure {
    let host = host_of(2);
    let guest = Guest {
        items,
        evaluate: Some(body),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let mut exchange = exchange("/kept");
    let failure = Instances::new(&host).evaluate(&attachment, &mut exchange).unwrap_err();
    assert_eq!(exchange.request.uri, "/kept");
    assert_eq!(attachment.stats().failures(failure.kind), 1);
    failure
}

// ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

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

// ── space ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

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

// ── what a guest answers ──────────────────────────────────────────────────────────────────────────────────────────────────

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
        items: r#"(data (i32.const 5000) "\01\00\00\00\00\00\00\00\01\00\00\00\02\00\00\00\03\00\00\00\00\00\00\00\04\00\00\00\00\00\00\00\05\00\00\00\00\00\00\00")
            (data (i32.const 5100) "\02\00\00\00\f8\13\00\00\04\00\00\00other")"#,
        evaluate: Some("(i64.const 0)"),
        check: Some("(i32.const 5000)"),
        on_request: Some(ECHO_FIRST_FACT),
        on_response: Some(""),
        on_connect: Some("(i32.const 5100)"),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let all = attachment.hooks();
    assert!(all.predicates && all.limiter && all.request_filter && all.response_filter && all.connection_filter);
    let verdict = LimitVerdict {
        allowed: true,
        rule: 2,
        limit: 3,
        remaining: 4,
        retry_after_ms: 5,
    };
    assert_eq!(instances.check(&attachment, &mut exchange("/")), Ok(Some(verdict)));
    let reply = instances
        .on_request(&attachment, &mut exchange("/path"))
        .unwrap()
        .unwrap();
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"/path"[..]));
    instances.on_response(&attachment, &mut answered("/")).unwrap();
    let verdict = instances.on_connect(&attachment, &connection());
    assert_eq!(verdict, Ok(ConnectionVerdict::Route("othe".to_owned())));
    assert_eq!(
        (attachment.stats().calls(), attachment.stats().instantiations()),
        (4, 1)
    );
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

// ── host interfaces ───────────────────────────────────────────────────────────────────────────────────────────────────────

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

#[test]
fn edits_are_applied_when_the_call_succeeds() {
    let host = host_of(2);
    let (items, call) = set_header("A", "new");
    let guest = Guest {
        imports: SET_HEADER,
        items: &items,
        on_request: Some(&format!("{call} {ZEROES}")),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let mut exchange = exchange("/");
    let mut instances = Instances::new(&host);
    assert!(instances.on_request(&attachment, &mut exchange).unwrap().is_none());
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
        (if (i32.eq (i32.load8_u (i32.add (i32.load offset=4 (local.get 0)) (i32.const 1))) (i32.const 98))
          (then (unreachable)))
        {ZEROES}"
    );
    let guest = Guest {
        request_needs: &["path"],
        imports: SET_HEADER,
        items: &items,
        on_request: Some(&body),
        ..GUEST
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
    assert!(instances.on_request(&attachment, &mut exchange).unwrap().is_none());
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
        let guest = Guest {
            imports: SET_HEADER,
            items: &items,
            on_request: Some(&body),
            ..GUEST
        };
        let attachment = attach(&host, &guest);
        let mut exchange_ = exchange("/");
        Instances::new(&host).on_request(&attachment, &mut exchange_).unwrap();
        assert_eq!(exchange_.request.headers, exchange("/").request.headers);
    }
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
        on_response: Some("(drop (call $status))"),
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
    let reply = instances.on_request(&attachment, &mut exchange).unwrap().unwrap();
    assert_eq!(reply.body.len(), 300_000);
    for _ in 0..3 {
        exchange.request.headers.append("big", big.clone());
    }
    let failure = instances.on_request(&attachment, &mut exchange).unwrap_err();
    assert_eq!(failure.kind, FailureKind::HostCall);
}

// ── load ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_import_that_was_not_granted_is_named_with_the_line_that_grants_it() {
    let guest = Guest {
        imports: r#"(import "gateway:policy/clock@0.1.0" "now-ms" (func $now (result i64)))"#,
        evaluate: Some("(call $now)"),
        ..GUEST
    };
    let error = compile_error(&guest, CONTRACT, &[Grant::Log, Grant::Buckets]);
    assert!(error.to_string().contains("`gateway:policy/clock@0.1.0`"), "{error}");
    assert_eq!(error.help().unwrap(), r#"add `grant "clock"` to the plugin's block"#);
    host_of(1)
        .compile("guest", &guest.component(), &[Grant::Clock])
        .unwrap();
}

#[test]
fn an_import_that_the_gateway_does_not_have_is_named() {
    let contract = format!("{CONTRACT} interface unheard-of {{ f: func(); }}");
    let guest = Guest {
        imports: r#"(import "gateway:policy/unheard-of@0.1.0" "f" (func $f))"#,
        evaluate: Some("(call $f) (i64.const 0)"),
        ..GUEST
    };
    let error = compile_error(&guest, &contract, &[]);
    assert!(
        matches!(&error, PolicyError::UnknownImport { import, .. } if import.contains("unheard-of")),
        "{error}"
    );
}

#[test]
fn an_import_of_another_type_is_named() {
    let contract = CONTRACT.replace("now-ms: func() -> u64;", "now-ms: func() -> u32;");
    let guest = Guest {
        imports: r#"(import "gateway:policy/clock@0.1.0" "now-ms" (func $now (result i32)))"#,
        evaluate: Some("(i64.extend_i32_u (call $now))"),
        ..GUEST
    };
    let error = compile_error(&guest, &contract, &[Grant::Clock]);
    assert!(matches!(error, PolicyError::Mistyped { .. }), "{error}");
    assert!(
        error.to_string().contains("clock") && error.to_string().contains("now-ms"),
        "{error}"
    );

    let contract = CONTRACT.replace("now-ms: func() -> u64;", "later: func() -> u64;");
    let guest = Guest {
        imports: r#"(import "gateway:policy/clock@0.1.0" "later" (func $now (result i64)))"#,
        evaluate: Some("(call $now)"),
        ..GUEST
    };
    let error = compile_error(&guest, &contract, &[Grant::Clock]);
    assert!(error.to_string().contains("later"), "{error}");
}

#[test]
fn an_export_of_another_type_is_named() {
    let contract = CONTRACT.replace(
        "evaluate: func(facts: list<fact>) -> u64;",
        "evaluate: func(facts: list<u8>) -> u64;",
    );
    let guest = Guest {
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let host = host_of(1);
    let error = host
        .compile("guest", &guest.component_of(&contract), &[])
        .and_then(|component| host.attach(&component, spec("guest")))
        .unwrap_err();
    assert!(matches!(error, PolicyError::Mistyped { .. }), "{error}");
    assert!(error.to_string().contains("`predicates`"), "{error}");
}

#[test]
fn what_is_no_policy_component_is_refused() {
    let host = host_of(1);
    let component = Guest {
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    }
    .component();
    for wasm in [&component[..component.len() / 2], b"", b"#!/bin/sh", b"\0asm\x01\0\0\0"] {
        let error = host.compile("guest", wasm, &[]).unwrap_err();
        assert!(matches!(error, PolicyError::Invalid { .. }), "{error}");
    }
    let empty = wat::parse_str("(component)").unwrap();
    let error = host.compile("guest", &empty, &[]).unwrap_err();
    assert!(
        matches!(
            error,
            PolicyError::MissingExport {
                missing: "lifecycle",
                ..
            }
        ),
        "{error}"
    );
    let error = host.compile("guest", &GUEST.component(), &[]).unwrap_err();
    assert!(
        matches!(error, PolicyError::MissingExport { missing: "hook", .. }),
        "{error}"
    );
}

#[test]
fn no_cut_or_flipped_component_does_harm() {
    let host = host_of(2);
    let component = Guest {
        predicates: &["a"],
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    }
    .component();
    for i in (0..component.len()).step_by(component.len() / 150) {
        let mut flipped = component.clone();
        flipped[i] ^= 0x15;
        for wasm in [&component[..i], &flipped] {
            let component = host.compile("guest", wasm, &[]);
            let _ = component.and_then(|component| host.attach(&component, spec("guest")));
        }
    }
}

#[test]
fn predicates_have_unique_names_and_are_at_most_64() {
    let names: Vec<String> = (0..65).map(|i| format!("p{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (predicates, words) in [
        (&names[..], "64"),
        (&["a", "b", "a"][..], "`a`"),
        (&["a", ""][..], "without a name"),
    ] {
        let guest = Guest {
            predicates,
            evaluate: Some("(i64.const 0)"),
            ..GUEST
        };
        let error = load_error(&guest);
        assert!(error.contains(words), "{error}");
    }
    let guest = Guest {
        predicates: &names[..64],
        evaluate: Some("(i64.const -1)"),
        ..GUEST
    };
    let host = host_of(2);
    assert_eq!(
        Instances::new(&host).evaluate(&attach(&host, &guest), &mut exchange("/")),
        Ok(u64::MAX)
    );
}

#[test]
fn a_need_that_cannot_be_met_is_named() {
    for (request_needs, response_needs, connection_needs, need) in [
        (&["path", "colour"][..], &[][..], &[][..], "`colour`"),
        (&["status"], &[], &[], "`status`"),
        (&["response-header:server"], &[], &[], "`response-header:server`"),
        (&[], &["header:"], &[], "`header:`"),
        (&[], &[], &["path"], "`path`"),
    ] {
        let guest = Guest {
            request_needs,
            response_needs,
            connection_needs,
            evaluate: Some("(i64.const 0)"),
            ..GUEST
        };
        let error = load_error(&guest);
        assert!(error.contains(need), "{error}");
    }
}

#[test]
fn a_refused_configuration_is_told_with_its_place() {
    let guest = Guest {
        // err; message; some; at.
        items: r#"(data (i32.const 4096) "\01\00\00\00\18\10\00\00\0b\00\00\00\01\00\00\00\23\10\00\00\08\00\00\00no\0asuch key/limits/0")"#,
        configure: "(i32.const 4096)",
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    match attach_as(&host_of(1), "guest", &guest) {
        Err(PolicyError::Config { message, at, .. }) => {
            assert_eq!((message.as_str(), at.as_deref()), ("no\\nsuch key", Some("/limits/")));
        }
        other => panic!("{other:?}"),
    }
}

// ── one guest's failure is nobody else's ──────────────────────────────────────────────────────────────────────────────────

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

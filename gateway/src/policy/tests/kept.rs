//! What guests keep in the host, count and tag, and what they want too much of there.

use super::*;
use crate::config::BackendId;

const KV_SET: &str = r#"(import "gateway:policy/kv@0.1.0" "set" (func $set (param i32 i32 i32 i32 i64 i32)))"#;
const KV_GET: &str = r#"(import "gateway:policy/kv@0.1.0" "get" (func $get (param i32 i32 i32)))"#;
const COUNT: &str = r#"(import "gateway:policy/counters@0.1.0" "add" (func $add (param i32 i32 i64 i32)))"#;
const MEASURE: &str = r#"(import "gateway:policy/metrics@0.1.0" "add" (func $measure (param i32 i32 i64)))"#;
const RANDOM: &str = r#"(import "gateway:policy/random@0.1.0" "get-bytes" (func $random (param i32 i32)))"#;
const TAG: &str = r#"(import "gateway:policy/tags@0.1.0" "set" (func $tag (param i32 i32 i32 i32 i32)))"#;

/// What one evaluation answers.
fn evaluate(host: &Arc<Host>, guest: &Guest<'_>) -> Result<u64, Failure> {
    let attachment = attach(host, guest);
    Instances::new(host).evaluate(&attachment, &mut exchange("/"))
}

#[test]
fn what_one_instance_keeps_another_of_the_plugin_finds_and_no_other_plugin() {
    let host = host_of(4);
    let predicates: &[&str] = &["a"];
    let write = Guest {
        imports: KV_SET,
        items: r#"(data (i32.const 4096) "keyvalue")"#,
        predicates,
        // The tag of the result: 0 when it was written.
        evaluate: Some(
            "(call $set (i32.const 4096) (i32.const 3) (i32.const 4099) (i32.const 5) (i64.const 0) (i32.const 4200))
             (i64.load8_u (i32.const 4200))",
        ),
        ..GUEST
    };
    let read = Guest {
        imports: KV_GET,
        items: r#"(data (i32.const 4096) "key")"#,
        predicates,
        evaluate: Some("(call $get (i32.const 4096) (i32.const 3) (i32.const 4200)) (i64.load8_u (i32.const 4200))"),
        ..GUEST
    };
    let writer = attach_as(&host, "one", &write).unwrap();
    assert_eq!(Instances::new(&host).evaluate(&writer, &mut exchange("/")), Ok(0));
    let reader = attach_as(&host, "one", &read).unwrap();
    assert_eq!(Instances::new(&host).evaluate(&reader, &mut exchange("/")), Ok(1));
    let stranger = attach_as(&host, "other", &read).unwrap();
    assert_eq!(Instances::new(&host).evaluate(&stranger, &mut exchange("/")), Ok(0));
}

#[test]
fn keys_and_values_that_are_too_long_are_errors_to_the_guest() {
    let predicates: &[&str] = &["a", "b", "c", "d", "e", "f", "g", "h"];
    for (key, value, error) in [(257, 1, 1), (1, 65_537, 2), (256, 61_000, 0)] {
        // The kind of the error at 4,204, behind the tag of the result.
        let body = format!(
            "(call $set (i32.const 0) (i32.const {key}) (i32.const 0) (i32.const {value}) (i64.const 1) (i32.const 4200))
             (if (result i64) (i32.load8_u (i32.const 4200))
               (then (i64.load8_u (i32.const 4204))) (else (i64.const 0)))"
        );
        let guest = Guest {
            imports: KV_SET,
            items: "(func $start (drop (memory.grow (i32.const 1)))) (start $start)",
            predicates,
            evaluate: Some(&body),
            ..GUEST
        };
        assert_eq!(evaluate(&host_of(2), &guest), Ok(error), "{key} {value}");
    }
}

#[test]
fn a_flood_of_pairs_or_counters_is_refused_where_its_bounds_are() {
    let predicates: Vec<String> = (0..32).map(|i| i.to_string()).collect();
    let predicates: Vec<&str> = predicates.iter().map(String::as_str).collect();
    // Counts how many of 1,000 different keys were taken.
    let flood = |call: &str| {
        format!(
            "(local $i i32) (local $taken i64)
             (loop $next
               (i32.store (i32.const 4096) (local.get $i))
               {call}
               (if (i32.eqz (i32.load8_u (i32.const 4200)))
                 (then (local.set $taken (i64.add (local.get $taken) (i64.const 1)))))
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $next (i32.lt_u (local.get $i) (i32.const 1000))))
             (local.get $taken)"
        )
    };
    let set = "(call $set (i32.const 4096) (i32.const 4) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 4200))";
    let add = "(call $add (i32.const 4096) (i32.const 4) (i64.const 1) (i32.const 4200))";
    for (imports, call) in [(KV_SET, set), (COUNT, add)] {
        let host = host_of(2);
        let body = flood(call);
        let guest = Guest {
            imports,
            predicates: &predicates,
            evaluate: Some(&body),
            ..GUEST
        };
        let component = host.compile("guest", &guest.component(), &ALL_GRANTS).unwrap();
        let mut spec = spec("guest");
        spec.limits.cpu = Duration::from_millis(500);
        spec.state.kv_entries = 30;
        spec.state.counters = 30;
        let attachment = host.attach(&component, spec).unwrap();
        let mut instances = Instances::new(&host);
        assert_eq!(instances.evaluate(&attachment, &mut exchange("/")), Ok(30));
    }
}

#[test]
fn what_was_not_declared_or_is_too_much_ends_the_call() {
    for (imports, call) in [
        (MEASURE, "(call $measure (i32.const 0) (i32.const 0) (i64.const 1))"),
        (RANDOM, "(call $random (i32.const 1025) (i32.const 4200))"),
        (RANDOM, "(call $random (i32.const -1) (i32.const 4200))"),
    ] {
        let body = format!("{call} (i64.const 0)");
        let guest = Guest {
            imports,
            evaluate: Some(&body),
            ..GUEST
        };
        let failure = evaluate(&host_of(2), &guest).unwrap_err();
        assert_eq!(failure.kind, FailureKind::HostCall, "{call}");
    }
}

#[test]
fn tags_go_with_the_exchange_when_the_call_succeeds() {
    let host = host_of(4);
    let tag = "(call $tag (i32.const 4096) (i32.const 4) (i32.const 4100) (i32.const 2) (i32.const 4200))";
    let data = r#"(data (i32.const 4096) "seen\ff!")"#;
    let fails = format!("{tag} (unreachable)");
    let succeeds = format!("{tag} {ZEROES}");
    let mut exchange = exchange("/");
    let mut instances = Instances::new(&host);
    for (body, expected) in [(&fails, None), (&succeeds, Some(&b"\xff!"[..]))] {
        let guest = Guest {
            imports: TAG,
            items: data,
            on_request: Some(body),
            ..GUEST
        };
        let _ = instances.on_request(&attach(&host, &guest), &mut exchange);
        assert_eq!(exchange.tags.as_ref().and_then(|tags| tags.get("seen")), expected);
    }
    // Whoever runs later is handed it as a fact.
    let reads = Guest {
        request_needs: &["tag:seen"],
        on_request: Some(ECHO_FIRST_FACT),
        ..GUEST
    };
    let reply = replied(instances.on_request(&attach(&host, &reads), &mut exchange));
    assert_eq!(&reply.body[..], b"\xff!");
}

#[test]
fn what_does_what_it_was_not_granted_fails_with_its_tags_and_is_put_in_quarantine() {
    let host = host_of(2);
    // Tags, and routes to "seen", or answers nothing.
    let tag = "(call $tag (i32.const 4096) (i32.const 4) (i32.const 4100) (i32.const 2) (i32.const 4200))";
    let guest = Guest {
        imports: TAG,
        items: r#"(data (i32.const 4096) "seenxx") (data (i32.const 4300) "\02\00\00\00\00\10\00\00\04\00\00\00")"#,
        on_request: Some(&format!("{tag} (i32.const 4300)")),
        ..GUEST
    };
    let quarantine = crate::config::QuarantineSettings {
        failures: 3,
        from: Duration::from_secs(3600),
        to: Duration::from_secs(3600),
    };
    let component = host.compile("guest", &guest.component(), &ALL_GRANTS).unwrap();
    let attach = |routes: Vec<_>| {
        let mut spec = spec("guest");
        spec.quarantine = Some(quarantine);
        spec.granted = Arc::new(Granted {
            routes,
            ..Granted::default()
        });
        host.attach(&component, spec).unwrap()
    };
    let mut instances = Instances::new(&host);
    let (may, may_not) = (attach(vec![("seen".into(), BackendId(0))]), attach(Vec::new()));
    let mut tagged = exchange("/");
    assert!(matches!(instances.on_request(&may, &mut tagged), Ok(Outcome::Route(_))));
    assert!(tagged.tags.is_some());
    for kind in [
        FailureKind::Trap,
        FailureKind::Trap,
        FailureKind::Trap,
        FailureKind::Quarantined,
    ] {
        let mut exchange = exchange("/");
        let failure = instances.on_request(&may_not, &mut exchange).unwrap_err();
        assert_eq!(failure.kind, kind, "{failure}");
        assert_eq!(exchange.tags, None);
    }
    assert!(may_not.is_quarantined() && !may.is_quarantined());
}

#[test]
fn hooks_that_go_on_with_what_another_has_begun_are_put_in_quarantine_for_their_own_failures() {
    let host = host_of(4);
    // Calls "G", and is glad to look at bodies; traps in what follows.
    let guest = Guest {
        items: r#"(data (i32.const 4096) "\03\00\00\00\68\10\00\00\01\00\00\00\68\10\00\00\03\00\00\00\78\10\00\00\01\00\00\00")
            (data (i32.const 4200) "GET") (data (i32.const 4216) "/")"#,
        on_request: Some("(i32.const 4096)"),
        on_answer: Some("(unreachable)"),
        request_body: Some((ZEROES, "(unreachable)")),
        response_body: Some((ZEROES, "(unreachable)")),
        ..GUEST
    };
    for hook in ["on-answer", "on-request-piece", "on-response-piece"] {
        let attachment = attach_with(&host, &guest, |spec| {
            spec.quarantine = Some(crate::config::QuarantineSettings {
                failures: 3,
                from: Duration::from_secs(3600),
                to: Duration::from_secs(3600),
            });
            spec.granted = Arc::new(Granted {
                calls: [call_grant("G")].into(),
                ..Granted::default()
            });
        });
        let mut instances = Instances::new(&host);
        for failures in 1..=3 {
            assert!(!attachment.is_quarantined(), "{hook} after {failures}");
            // What it begins with succeeds each time, and says nothing of what fails after it.
            let mut exchange = answered("/");
            let failure = match hook {
                "on-answer" => {
                    let begun = instances.on_request(&attachment, &mut exchange);
                    assert!(matches!(begun, Ok(Outcome::Call(_))), "{begun:?}");
                    let busy = Err(CallError::Busy);
                    instances
                        .on_answer(&attachment, &mut exchange, &busy, b"", 1)
                        .unwrap_err()
                }
                _ => {
                    let of = if hook == "on-request-piece" {
                        BodyOf::Request
                    } else {
                        BodyOf::Response
                    };
                    assert_eq!(instances.on_body(&attachment, of, &mut exchange), Ok(BodyMode::Skip));
                    let mut body = KeptByBody::default();
                    instances.on_piece(&attachment, of, &mut body, LAST).unwrap_err()
                }
            };
            assert_eq!((failure.kind, failure.hook), (FailureKind::Trap, hook));
        }
        assert!(attachment.is_quarantined(), "{hook}");
    }
}

#[test]
fn one_instance_sees_all_pieces_of_a_body_and_no_other_body() {
    let host = host_of(4);
    // Replaces each piece by how many it has seen.
    let piece = "(global.set $seen (i32.add (global.get $seen) (i32.const 1)))
        (i32.store8 (i32.const 4200) (global.get $seen))
        (i32.const 4096)";
    let guest = Guest {
        items: r#"(global $seen (mut i32) (i32.const 48))
            (data (i32.const 4096) "\00\00\00\00\00\00\00\00\01\00\00\00\68\10\00\00\01\00\00\00")"#,
        request_body: Some((ZEROES, piece)),
        ..GUEST
    };
    for isolation in [
        Isolation::PerRequest { ready: 2 },
        Isolation::PerConnection { ready: 2 },
    ] {
        let attachment = attach_with(&host, &guest, |spec| spec.isolation = isolation);
        let mut instances = Instances::new(&host);
        let (mut one, mut two) = (KeptByBody::default(), KeptByBody::default());
        let mut seen = |body: &mut KeptByBody, last| {
            let piece = Piece { last, ..LAST };
            match instances.on_piece(&attachment, BodyOf::Request, body, piece).unwrap() {
                (_, PieceVerdict::Replace(bytes)) => String::from_utf8(bytes.into()).unwrap(),
                (_, other) => panic!("{other:?}"),
            }
        };
        for (first, expected) in [(true, "1"), (false, "1"), (true, "2"), (false, "2"), (true, "3")] {
            let body = if first { &mut one } else { &mut two };
            assert_eq!(seen(body, expected == "3"), expected);
        }
        drop(two);
        // The body has ended: nothing is kept of it.
        assert_eq!(seen(&mut one, true), "1");
        assert_eq!(attachment.stats().instantiations(), 3);
    }
}

#[test]
fn nothing_of_an_exchange_can_be_read_where_only_a_piece_is() {
    let path = r#"(import "gateway:policy/request@0.1.0" "path" (func $path (param i32)))"#;
    let host = host_of(4);
    let guest = Guest {
        imports: path,
        request_body: Some((
            "(call $path (i32.const 4096)) (i32.const 512)",
            "(call $path (i32.const 4096)) (i32.const 512)",
        )),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let mut instances = Instances::new(&host);
    assert_eq!(
        instances.on_body(&attachment, BodyOf::Request, &mut exchange("/")),
        Ok(BodyMode::Skip)
    );
    let failure = instances
        .on_piece(&attachment, BodyOf::Request, &mut KeptByBody::default(), LAST)
        .unwrap_err();
    assert_eq!(
        (failure.kind, failure.hook),
        (FailureKind::HostCall, "on-request-piece")
    );
}

const LAST: Piece<'_> = Piece {
    state: b"",
    bytes: b"x",
    last: true,
    may_reply: true,
};

#[test]
fn answers_to_pieces_are_bounded_and_checked() {
    // State of 16,385 bytes; a list beyond memory; a verdict that there is not; a reply with a framing field's status.
    for outcome in [
        r"\00\00\00\00\01\40\00\00\00\00\00\00",
        r"\00\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00\ff\ff\ff\ff",
        r"\00\00\00\00\00\00\00\00\09\00\00\00",
        r"\00\00\00\00\00\00\00\00\03\00\00\00\63\00",
    ] {
        let host = host_of(2);
        let guest = Guest {
            items: &format!(r#"(data (i32.const 4096) "{outcome}")"#),
            response_body: Some((ZEROES, "(i32.const 4096)")),
            ..GUEST
        };
        let attachment = attach(&host, &guest);
        let failure = Instances::new(&host).on_piece(&attachment, BodyOf::Response, &mut KeptByBody::default(), LAST);
        let failure = failure.unwrap_err();
        assert_eq!(
            (failure.kind, failure.hook),
            (FailureKind::Trap, "on-response-piece"),
            "{failure}"
        );
        assert_eq!(attachment.stats().failures(failure.kind), 1);
    }
}

/// Leave to call a backend by this name.
fn call_grant(name: &str) -> CallGrant {
    CallGrant {
        name: name.into(),
        backend: BackendId(0),
        timeout: Duration::from_secs(1),
        in_flight: InFlight::new(1),
        max_body: 0,
    }
}

#[test]
fn calls_that_may_not_be_made_fail() {
    // call; a backend named as the method begins; method at 4,200; target at 4,216; no headers, body, timeout, state.
    let call = |method: &str, target: &str, headers: &str| {
        format!(
            r#"(data (i32.const 4096) "\03\00\00\00\68\10\00\00\01\00\00\00\68\10\00\00\{:02x}\00\00\00\78\10\00\00\{:02x}\00\00\00{headers}")
               (data (i32.const 4200) "{method}") (data (i32.const 4216) "{target}")"#,
            method.len(),
            target.len(),
        )
    };
    // One field, "te: x", at 4,300.
    let hop_by_hop = r"\cc\10\00\00\01\00\00\00";
    let field =
        r#"(data (i32.const 4300) "\ec\10\00\00\02\00\00\00\ec\10\00\00\01\00\00\00") (data (i32.const 4332) "te")"#;
    for (items, fails) in [
        (call("GET", "/a?b", ""), false),
        (call("CONNECT", "/", ""), true),
        (call("G T", "/", ""), true),
        (call("GET", "http:", ""), true),
        (call("GET", "/ a", ""), true),
        (call("GET", "/", hop_by_hop) + field, true),
        // "P" was not granted.
        (call("PUT", "/", ""), true),
    ] {
        let host = host_of(2);
        let guest = Guest {
            items: &items,
            on_request: Some("(i32.const 4096)"),
            on_answer: Some(ZEROES),
            ..GUEST
        };
        let attachment = attach_with(&host, &guest, |spec| {
            spec.granted = Arc::new(Granted {
                calls: ["G", "C"].map(call_grant).into(),
                ..Granted::default()
            });
        });
        let outcome = Instances::new(&host).on_request(&attachment, &mut exchange("/"));
        match outcome {
            Ok(Outcome::Call(call)) => assert!(!fails, "{call:?}"),
            Ok(other) => panic!("{other:?}"),
            Err(failure) => assert!(fails && failure.kind == FailureKind::Trap, "{failure}"),
        }
    }
}

#[test]
fn metrics_that_are_not_as_they_have_to_be_stop_the_load() {
    let guest = Guest {
        // One metric without a name, at 4,096: name, help, counter, no labels.
        items: r#"(data (i32.const 312) "\00\10\00\00\01\00\00\00")"#,
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let error = load_error(&guest);
    assert!(error.contains("metric") && error.contains("lower-case"), "{error}");
}

#[test]
fn limits_that_are_not_as_they_have_to_be_stop_the_load_and_a_verdict_names_one_of_them() {
    // A limit with a line break in its name, and 65 of them.
    for (count, name, words) in [(1, r"a\0a", "printable"), (65, "a", "64")] {
        let items = format!(
            r#"(data (i32.const 4096) "\00\20\00\00\{count:02x}\00\00\00") (data (i32.const 8192) "\00\1c\00\00\02") (data (i32.const 7168) "{name}")"#
        );
        let guest = Guest {
            items: &items,
            policies: "(i32.const 4096)",
            check: Some(ZEROES),
            ..GUEST
        };
        let error = load_error(&guest);
        assert!(error.contains(words), "{error}");
    }
    let guest = Guest {
        // some; allowed; the second policy, which there is not.
        items: r#"(data (i32.const 5000) "\01\00\00\00\00\00\00\00\01\00\00\00\01\00\00\00")"#,
        check: Some("(i32.const 5000)"),
        ..GUEST
    };
    let host = host_of(2);
    let failure = Instances::new(&host)
        .check(&attach(&host, &guest), &mut exchange("/"))
        .unwrap_err();
    assert_eq!((failure.kind, failure.hook), (FailureKind::Trap, "check"));
}

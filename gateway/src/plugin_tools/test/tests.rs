//! Fixtures of guests that do what a test needs.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::policy::FailureKind;
use crate::policy::guests::{GUEST, Guest, ZEROES};

#[test]
fn kinds_of_failures_are_those_that_there_are() {
    assert_eq!(fixture::FAILURE_KINDS, FailureKind::ALL.map(FailureKind::label));
}

/// Runs fixtures of a shipped component. Answers whether all passed, and what is said.
fn tried(component: &str, fixtures: &str) -> (bool, String) {
    let component = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/dist/{component}.wasm"));
    tried_of(component, fixtures)
}

fn tried_of(component: PathBuf, fixtures: &str) -> (bool, String) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("f.kdl");
    fs::write(&file, fixtures).unwrap();
    let wanted = Test {
        component,
        fixtures: vec![file],
        format: Format::Text,
    };
    match test(&wanted) {
        Ok(report) => (report.failed == 0, report.text()),
        Err(TestError::Other(error)) => panic!("{error:#}"),
        Err(TestError::Fixtures(errors)) => panic!("{errors:?}"),
    }
}

const LISTED: &str = r#"plugin { limit cpu="1s"; config { network "203.0.113.0/24" } }
    case "listed" { connection client="203.0.113.9:1"; request "GET" "/"; expect { reply 403; holds "listed" } }
    case "not listed" { request "GET" "/"; expect { continue; holds-not "listed" } }
    case "a connection" { connection client="203.0.113.9:1"; expect { refuse } }"#;

#[test]
fn what_is_expected_passes_and_what_is_not_is_said() {
    let (passed, text) = tried("ip-list", LISTED);
    assert!(passed, "{text}");
    let other = LISTED
        .replace("reply 403; holds ", "continue; holds-not ")
        .replace("expect { refuse }", "expect { continue; holds \"lsited\" }");
    let (passed, text) = tried("ip-list", &other);
    assert!(!passed);
    for part in [
        "FAILED listed",
        "expected continue, and it came to reply 403",
        "the predicate \"listed\" holds",
        "ok     not listed",
        "expected continue, and it came to refuse",
        "no predicate \"lsited\"; it has listed",
        "2 of 3 cases failed",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_limit_fills_up_by_the_clock_of_the_file_and_every_file_begins_empty() {
    let fixtures = r#"
        plugin {
            grant "buckets"
            config { limits { - { name "all"; key { - { client-ip ipv4-prefix=32 ipv6-prefix=64 } }; tokens 2; period-ms 1000; burst 2 } } }
        }
        case "two pass" times=2 { request "GET" "/"; expect { rate-limit "allow" } }
        case "the third does not" { request "GET" "/"; expect { rate-limit "refuse" remaining=0 retry-after-ms=500 } }
        clock forward="500ms"
        case "one more passes" { request "GET" "/"; expect { rate-limit "allow" remaining=0 } }
    "#;
    for _ in 0..2 {
        let (passed, text) = tried("rate-limit", fixtures);
        assert!(passed, "{text}");
        assert!(text.contains("host calls: buckets 2"), "{text}");
    }
}

/// Runs fixtures of a guest.
fn tried_guest(guest: Guest<'_>, fixtures: &str) -> (bool, String) {
    let folder = TempDir::new().unwrap();
    let component = folder.path().join("guest.wasm");
    fs::write(&component, guest.component()).unwrap();
    tried_of(component, fixtures)
}

#[test]
fn who_is_told_of_an_exchange_learns_why_it_ended_as_the_data_plane_says_it() {
    let tells = Guest {
        imports: r#"(import "gateway:policy/log@0.1.0" "write" (func $write (param i32 i32 i32)))"#,
        // A body that streams.
        items: r#"(data (i32.const 128) "\01")"#,
        log_needs: &["reason", "status"],
        on_log: Some("(call $write (i32.const 1) (local.get 2) (local.get 3))"),
        ..GUEST
    };
    let case = |expect: &str| {
        format!(
            "plugin {{ grant \"log\" }}\ncase \"x\" {{ request \"GET\" \"/\"; response 201 {{ body \"a\" }}; expect {{ {expect} }} }}"
        )
    };
    let fails = Guest {
        on_request: Some("(unreachable)"),
        ..tells
    };
    let (passed, text) = tried_guest(fails, &case("reply 503; failure \"trap\"; logs \"policy-failure503\""));
    assert!(passed, "{text}");
    let stops = Guest {
        response_body: Some(("(i32.const 128)", "(unreachable)")),
        ..tells
    };
    let (passed, text) = tried_guest(stops, &case("abort; failure \"trap\"; logs \"plugin-stopped201\""));
    assert!(passed, "{text}");
    let (passed, text) = tried_guest(tells, &case("continue; logs \"201\"; logs-not \"plugin\""));
    assert!(passed, "{text}");
}

#[test]
fn what_is_expected_where_the_plugin_has_no_say_cannot_fail_and_is_said() {
    let case = "case \"x\" { request \"GET\" \"/\"; response 200; expect { holds \"a\"; request { no-header \"x\" }; response status=200 } }";
    let asked = Guest {
        predicates: &["a"],
        evaluate: Some("(i64.const 1)"),
        ..GUEST
    };
    let (passed, text) = tried_guest(asked, case);
    assert!(!passed);
    for part in [
        "the request cannot fail",
        "neither `response-filter` nor `response-body-filter`",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let filters = Guest {
        on_request: Some(ZEROES),
        on_response: Some(ZEROES),
        ..asked
    };
    let (passed, text) = tried_guest(filters, case);
    assert!(passed, "{text}");
}

#[test]
fn a_tag_that_nobody_could_have_set_is_said() {
    let asked = Guest {
        predicates: &["a"],
        evaluate: Some("(i64.const 1)"),
        ..GUEST
    };
    let case = "case \"x\" { request \"GET\" \"/\" { tag \"a b\" \"c\" }; expect { holds \"a\" } }";
    let (passed, text) = tried_guest(asked, case);
    assert!(!passed && text.contains("`a b` is not a tag's name"), "{text}");
}

#[test]
fn metrics_are_what_a_plugin_has_made_of_them_by_then() {
    let folder = TempDir::new().unwrap();
    let component = folder.path().join("guest.wasm");
    let guest = Guest {
        imports: r#"(import "gateway:policy/metrics@0.1.0" "add" (func $add (param i32 i32 i64)))"#,
        // One metric: a name of four letters, a help of one, a counter, no labels.
        items: r#"(data (i32.const 312) "\00\10\00\00\01\00\00\00")
            (data (i32.const 4096) "\68\10\00\00\04\00\00\00\6c\10\00\00\01\00\00\00") (data (i32.const 4200) "hits?")"#,
        predicates: &["a"],
        evaluate: Some("(call $add (i32.const 0) (i32.const 0) (i64.const 2)) (i64.const 1)"),
        ..GUEST
    };
    fs::write(&component, guest.component()).unwrap();
    let fixtures = r#"plugin { grant "metrics" }
        case "two at a time" { request "GET" "/"; expect { holds "a"; metric "hits" 2 } }
        case "and two more" { request "GET" "/"; expect { holds "a"; metric "hits" 4 } }"#;
    let (passed, text) = tried_of(component.clone(), fixtures);
    assert!(passed, "{text}");
    let others = fixtures
        .replace("\"hits\" 2", "\"hit\" 2")
        .replace("\"hits\" 4", "\"hits\" 4 kind=\"x\"");
    let (_, text) = tried_of(component.clone(), &others);
    assert!(
        text.contains("the plugin has no metric \"hit\"") && text.contains("has other labels"),
        "{text}"
    );
    let (_, text) = tried_of(component, &fixtures.replace("\"hits\" 2", "\"hits\" 3"));
    assert!(text.contains("the metric \"hits\" is 2, and not 3"), "{text}");
}

#[test]
fn bodies_that_are_no_text_are_told_apart_where_they_differ() {
    use super::compare::unlike;
    assert_eq!(unlike(b"one", b"two"), r#"the body "one", and not "two""#);
    let (long, mut other) = (vec![b'x'; 1 << 20], vec![b'x'; 1 << 20]);
    other[1 << 19] = 0xff;
    other.truncate((1 << 19) + 1);
    assert_eq!(
        unlike(&long, &other),
        "a body of 1048576 bytes, and not the one of 524289: behind 524288 bytes comes 78787878787878787878787878787878, and not ff"
    );
    assert_eq!(
        unlike(b"\xff", b""),
        "a body of 1 bytes, and not the one of 0: behind 0 bytes comes ff, and not nothing"
    );
}

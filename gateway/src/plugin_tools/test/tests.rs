//! Fixtures of guests that do what a test needs.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::policy::FailureKind;

#[test]
fn kinds_of_failures_are_those_that_there_are() {
    assert_eq!(fixture::FAILURE_KINDS, FailureKind::ALL.map(FailureKind::label));
}

/// Runs fixtures of a shipped component. Answers whether all passed, and what is said.
fn tried(component: &str, fixtures: &str) -> (bool, String) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("f.kdl");
    fs::write(&file, fixtures).unwrap();
    let component = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/dist/{component}.wasm"));
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

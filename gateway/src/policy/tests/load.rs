//! What is said of components that cannot be loaded.

use super::*;

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
fn the_time_has_to_be_granted_whichever_way_it_is_asked_for() {
    let needs: &[&str] = &["local-time:Europe/Berlin"];
    let request = Guest {
        request_needs: needs,
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let connection = Guest {
        connection_needs: needs,
        on_connect: Some(ZEROES),
        ..GUEST
    };
    for guest in [request, connection] {
        let host = host_of(1);
        let attach = |grants: &[Grant]| {
            let component = host.compile("guest", &guest.component(), grants)?;
            host.attach(&component, spec("guest")).map(drop)
        };
        let error = attach(&[Grant::Log]).unwrap_err();
        assert!(error.to_string().contains("`local-time:Europe/Berlin`"), "{error}");
        assert_eq!(error.help().unwrap(), r#"add `grant "clock"` to the plugin's block"#);
        attach(&[Grant::Clock]).unwrap();
    }
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
        "evaluate: func(facts: facts) -> u64;",
        "evaluate: func(facts: facts) -> s64;",
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
    for (wasm, says) in [
        (&component[..component.len() / 2], "not a usable WebAssembly component"),
        (&b""[..], "the file is empty"),
        (&b"#!/bin/sh"[..], "it is not WebAssembly"),
        (&b"\0asm\x01\0\0\0"[..], "it is a module, not a component"),
    ] {
        let error = host.compile("guest", wasm, &[]).unwrap_err();
        assert!(matches!(error, PolicyError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
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

/// A component calls what it imports, needs and answers as it likes.
#[test]
fn names_steer_no_terminal_and_are_not_kept_at_any_length() {
    // In a URL anything may stand.
    let text = r#"(component (import "url=<http://a/\0aforged \1b[2J>" (func)))"#;
    let error = host_of(1).compile("guest", &wat::parse_str(text).unwrap(), &[]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains(r"http://a/\nforged \u{1b}[2J"), "{error}");
    assert!(!error.contains(['\n', '\u{1b}']), "{error}");
    let long = "x".repeat(600);
    let need = format!("header:{long}");
    let of_needs = Guest {
        request_needs: &[&need],
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let of_predicates = Guest {
        predicates: &[&long],
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    for (guest, why) in [
        (of_needs, "is longer than an attribute's name may be"),
        (of_predicates, "whose name has more than 512 bytes"),
    ] {
        let error = load_error(&guest);
        assert!(error.contains(why) && error.len() < 400, "{error}");
    }
}

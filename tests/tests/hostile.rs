//! Hostile guests, written by hand as WAT, in the path of real requests: each costs its own request the verdict that its
//! operator declared, and its neighbours nothing.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::{Answer, Client, Gateway, HttpServer, Server, get, guest};

/// A guest as a predicate of one frontend, and a neighbour on another frontend of the same workers.
const PREDICATE: &str = r#"
    plugin "guest" "guest.wasm" { limit cpu="20ms" memory="1MiB"; on-failure @verdict }
    frontend "guest" {
        bind "127.0.0.1:0"
        acl "holds" { plugin "guest" }
        deny status=418 if="holds"
        default-backend "app"
    }
    frontend "neighbour" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { server "s" "@app" }
"#;

/// The same as a request filter.
const FILTER: &str = r#"
    plugin "guest" "guest.wasm" { limit cpu="20ms" memory="1MiB"; on-failure @verdict }
    frontend "guest" { bind "127.0.0.1:0"; use-plugin "guest"; default-backend "app" }
    frontend "neighbour" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { server "s" "@app" }
"#;

async fn run(kdl: &str, verdict: &str, guest: &[u8]) -> (HttpServer, Gateway) {
    let app = HttpServer::answering("app").await;
    let gateway = Gateway::kdl(kdl)
        .with("@verdict", verdict)
        .with("@app", app.address())
        .file("guest.wasm", guest)
        .start()
        .await;
    (app, gateway)
}

/// Ways for a function to go wrong, as statements that leave the stack as it is.
const CRIMES: [(&str, &str); 6] = [
    ("loops", "(call $loop)"),
    ("traps", "(unreachable)"),
    ("divides by zero", "(drop (i32.div_u (i32.const 1) (i32.const 0)))"),
    ("reads beyond its memory", "(drop (i32.load (i32.const -4)))"),
    ("overflows its stack", "(call $deep)"),
    (
        "grows beyond its limit",
        // Says no to nothing: traps when the host does not give it the pages.
        "(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable))",
    ),
];

#[tokio::test]
async fn well_behaved_guests_decide() {
    let (_app, gateway) = run(PREDICATE, r#""deny" status=503"#, &guest::predicates("(i64.const 1)")).await;
    assert_eq!(gateway.ask("guest", get("/")).await.status, 418);

    let (_app, gateway) = run(PREDICATE, r#""deny" status=503"#, &guest::predicates("(i64.const 0)")).await;
    assert_eq!(gateway.ask("guest", get("/")).await.status, 200);

    let reply = guest::filter("(call $reply (i32.const 451) (i32.const 10))", "");
    let (app, gateway) = run(FILTER, r#""deny" status=503"#, &reply).await;
    let answer = gateway.ask("guest", get("/")).await;
    assert_eq!((answer.status, answer.body.len()), (451, 10));
    assert_eq!(app.requests().len(), 0);

    // A status that has no content leaves out what there is.
    for status in [204, 205, 304] {
        let reply = guest::filter(&format!("(call $reply (i32.const {status}) (i32.const 10))"), "");
        let (_app, gateway) = run(FILTER, r#""deny" status=503"#, &reply).await;
        let answer = gateway.ask("guest", get("/")).await;
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }

    let (_app, gateway) = run(FILTER, r#""deny" status=503"#, &guest::filter("(call $none)", "")).await;
    assert_eq!(gateway.ask("guest", get("/")).await.text(), "app");
}

#[tokio::test]
async fn a_predicate_that_fails_denies_or_is_skipped() {
    for (what, crime) in CRIMES {
        let guest = guest::predicates(&format!("{crime} (i64.const 1)"));
        let (app, gateway) = run(PREDICATE, r#""deny" status=507"#, &guest).await;
        for _ in 0..3 {
            assert_eq!(gateway.ask("guest", get("/")).await.status, 507, "one that {what}");
        }
        assert_eq!(app.requests().len(), 0, "one that {what}");
        assert_eq!(gateway.ask("neighbour", get("/")).await.status, 200);

        let (_app, gateway) = run(PREDICATE, r#""skip""#, &guest).await;
        assert_eq!(
            gateway.ask("guest", get("/")).await.status,
            200,
            "one that {what}, skipped"
        );
    }
}

#[tokio::test]
async fn a_filter_that_fails_denies_or_is_skipped() {
    for (what, crime) in CRIMES {
        let guest = guest::filter(&format!("{crime} (call $none)"), "");
        let (app, gateway) = run(FILTER, r#""deny" status=507"#, &guest).await;
        assert_eq!(gateway.ask("guest", get("/")).await.status, 507, "one that {what}");
        assert_eq!(app.requests().len(), 0, "one that {what}");

        let (_app, gateway) = run(FILTER, r#""skip""#, &guest).await;
        assert_eq!(
            gateway.ask("guest", get("/")).await.text(),
            "app",
            "one that {what}, skipped"
        );
    }
}

#[tokio::test]
async fn a_response_filter_that_fails_gives_its_verdict_and_not_the_answer() {
    for (what, crime) in CRIMES {
        let guest = guest::filter("(call $none)", crime);
        let (_app, gateway) = run(FILTER, r#""deny" status=507"#, &guest).await;
        let mut client = gateway.connect("guest").await;
        for _ in 0..2 {
            let answer = client.ask(get("/")).await;
            assert_eq!(
                (answer.status, answer.text().contains("app")),
                (507, false),
                "one that {what}"
            );
        }

        let (_app, gateway) = run(FILTER, r#""skip""#, &guest).await;
        assert_eq!(
            gateway.ask("guest", get("/")).await.text(),
            "app",
            "one that {what}, skipped"
        );
    }
}

#[tokio::test]
async fn a_reply_without_bounds_is_a_failure() {
    // As much as its memory holds is no failure.
    let large = "(call $reply (i32.const 200) (i32.const 900000))";
    let (_app, gateway) = run(FILTER, r#""deny" status=507"#, &guest::filter(large, "")).await;
    let answer = gateway.ask("guest", get("/")).await;
    assert_eq!((answer.status, answer.body.len()), (200, 900_000));

    for body in [
        // More than its memory may be.
        "(call $reply (i32.const 200) (i32.const 2000000))",
        // No status.
        "(call $reply (i32.const 99) (i32.const 1))",
        // A length that is not there at all.
        "(drop (call $reply (i32.const 200) (i32.const 1))) (i32.store (i32.const 532) (i32.const -1)) (i32.const 512)",
    ] {
        let (app, gateway) = run(FILTER, r#""deny" status=507"#, &guest::filter(body, "")).await;
        assert_eq!(gateway.ask("guest", get("/")).await.status, 507, "{body}");
        assert_eq!(app.requests().len(), 0, "{body}");
        assert_eq!(gateway.ask("neighbour", get("/")).await.status, 200);
    }
}

#[tokio::test]
async fn an_edit_that_smuggles_is_refused() {
    // Sets a header whose value ends the head and begins another request.
    let imports = r#"(import "gateway:policy/request-edits@0.1.0" "set-header"
            (func $set (param i32 i32 i32 i32 i32)))
        ;; end of imports"#;
    let exports = r#"
        (data (i32.const 2048) "x-a")
        (data (i32.const 2056) "1\0d\0aHost: evil\0d\0a\0d\0aGET /smuggled HTTP/1.1")
        (data (i32.const 2112) "content-length")
        (data (i32.const 2128) "7")
        (func (export "gateway:policy/request-filter@0.1.0#on-request") (param i32 i32 i32 i32) (result i32)
            (call $set (i32.const 2048) (i32.const 3) (i32.const 2056) (i32.const 39) (i32.const 2200))
            (call $set (i32.const 2112) (i32.const 14) (i32.const 2128) (i32.const 1) (i32.const 2200))
            (call $none))
        (func (export "gateway:policy/response-filter@0.1.0#on-response") (param i32 i32 i32 i32) (result i32) (call $none))"#;
    let guest = guest::component("header-rewrite", &format!("{imports}{exports}"));
    let (app, gateway) = run(FILTER, r#""deny" status=507"#, &guest).await;

    let answer = gateway.ask("guest", get("/")).await;

    // The host answers an error to the guest, which ignores it: neither edit is made.
    assert_eq!((answer.status, app.requests().len()), (200, 1));
    let seen = app.last();
    for name in ["x-a", "content-length"] {
        assert_eq!(seen.headers.get(name), None, "{name}");
    }
}

#[tokio::test]
async fn neighbours_of_a_looping_guest_are_served() {
    let app = HttpServer::start(|_| Answer::ok("app")).await;
    let gateway = Gateway::kdl(&format!(
        "process {{ workers 1; log \"stdout\" format=\"json\" }}\n{PREDICATE}"
    ))
    .with("@verdict", r#""deny" status=507"#)
    .with("@app", app.address())
    .file("guest.wasm", guest::predicates("(call $loop) (i64.const 0)"))
    .start()
    .await;
    let (guest, neighbour) = (gateway.address("guest"), gateway.address("neighbour"));

    let looping: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::connect(guest).await;
                for _ in 0..10 {
                    assert_eq!(client.ask(get("/")).await.status, 507);
                }
            })
        })
        .collect();
    let mut client = Client::connect(neighbour).await;
    let mut served = 0;
    for _ in 0..40 {
        served += usize::from(client.ask(get("/")).await.status == 200);
    }
    for task in looping {
        task.await.unwrap();
    }

    assert_eq!(served, 40);
    let failures = gateway.metrics().await.get("gateway_policy_failures_total", &[]);
    assert_eq!(failures, Some(40.0));
}

#[tokio::test]
async fn guests_that_fail_leak_no_memory() {
    let guest = guest::predicates("(drop (memory.grow (i32.const 10))) (unreachable)");
    let (_app, gateway) = run(PREDICATE, r#""deny" status=507"#, &guest).await;
    let mut client = gateway.connect("guest").await;
    let mut ask = async |n: usize| {
        for _ in 0..n {
            assert_eq!(client.ask(get("/")).await.status, 507);
        }
    };

    ask(500).await;
    let before = gateway.resident();
    ask(1500).await;

    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more after 1500 failures");
}

#[tokio::test]
async fn a_connection_filter_refuses_and_fails() {
    // 0 is accept, 1 refuse.
    let refuse = "(i32.store8 (i32.const 768) (i32.const 1)) (i32.const 768)";
    let cases = [
        ("accepts", "(call $none)", r#""deny""#, true),
        ("refuses", refuse, r#""skip""#, false),
        ("traps", "(unreachable)", r#""deny""#, false),
        ("traps", "(unreachable)", r#""skip""#, true),
        ("loops", "(call $loop) (call $none)", r#""deny""#, false),
    ];
    for (what, body, verdict, served) in cases {
        let app = Server::greeting("hi").await;
        let gateway = Gateway::kdl(
            r#"
            plugin "guest" "guest.wasm" { limit cpu="20ms"; on-failure @verdict }
            frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; use-plugin "guest"; default-backend "app" }
            backend "app" { mode "tcp"; server "s" "@app" }
        "#,
        )
        .with(
            "@verdict",
            if verdict == r#""deny""# {
                r#""deny" status=503"#
            } else {
                verdict
            },
        )
        .with("@app", app.address())
        .file("guest.wasm", guest::connection(body))
        .start()
        .await;
        let mut client = gateway.connect("raw").await;
        if served {
            assert_eq!(client.exactly(2).await, b"hi", "one that {what}, {verdict}");
        } else {
            client.closed().await;
            assert_eq!(app.connections(), 0, "one that {what}, {verdict}");
        }
    }
}

// ── what stops the start ──────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn what_is_no_policy_component_stops_the_start() {
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("text", b"hello".to_vec(), "guest"),
        ("an empty file", Vec::new(), "guest"),
        ("a core module", wat_module(), "guest"),
        (
            "one whose configure traps",
            guest::component_with_configure(
                "access-control",
                "(unreachable)",
                r#"(func (export "gateway:policy/predicates@0.1.0#names") (result i32) (i32.const 256))
                   (func (export "gateway:policy/predicates@0.1.0#evaluate") (param i32 i32 i32 i32) (result i64) (i64.const 0))"#,
            ),
            "guest",
        ),
    ];
    for (what, bytes, says) in cases {
        let stopped = Gateway::kdl(PREDICATE)
            .with("@verdict", r#""deny" status=503"#)
            .with("@app", "127.0.0.1:1")
            .file("guest.wasm", bytes)
            .refused()
            .await;
        assert_eq!(stopped.code, Some(1), "{what}: {}", stopped.output);
        assert!(stopped.output.contains(says), "{what}: {}", stopped.output);
    }
}

#[tokio::test]
async fn an_import_that_was_not_granted_stops_the_start_by_name() {
    let imports = r#"(import "gateway:policy/clock@0.1.0" "now-ms" (func $now (result i64)))
        ;; end of imports"#;
    let exports = r#"(func (export "gateway:policy/predicates@0.1.0#names") (result i32) (i32.const 256))
        (func (export "gateway:policy/predicates@0.1.0#evaluate") (param i32 i32 i32 i32) (result i64) (call $now))"#;
    let guest = guest::component("access-control", &format!("{imports}{exports}"));
    let stopped = Gateway::kdl(PREDICATE)
        .with("@verdict", r#""deny" status=503"#)
        .with("@app", "127.0.0.1:1")
        .file("guest.wasm", guest)
        .refused()
        .await;
    assert_eq!(stopped.code, Some(1));
    assert!(stopped.output.contains("clock"), "{}", stopped.output);
}

#[tokio::test]
async fn a_file_with_another_digest_stops_the_start() {
    let stopped = Gateway::kdl(&PREDICATE.replace("on-failure", &format!("sha256 \"{}\"; on-failure", "0".repeat(64))))
        .with("@verdict", r#""deny" status=503"#)
        .with("@app", "127.0.0.1:1")
        .file("guest.wasm", guest::predicates("(i64.const 0)"))
        .refused()
        .await;
    assert_eq!(stopped.code, Some(1));
    assert!(stopped.output.contains("SHA-256"), "{}", stopped.output);
}

fn wat_module() -> Vec<u8> {
    // The smallest module there is.
    b"\0asm\x01\0\0\0".to_vec()
}

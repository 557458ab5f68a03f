//! The program as its user meets it: checking, starting, refusing, draining.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::path::Path;
use std::time::Duration;

use gateway_tests::{Answer, Gateway, HttpServer, Server, get};
use serde_json::Value;

/// The configuration that a fresh clone runs.
fn shipped() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../config.kdl")).unwrap()
}

#[test]
fn a_configuration_is_named_with_a_flag_or_without() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.kdl");
    std::fs::write(&file, "frontend\n").unwrap();
    let check = |words: &[&str]| {
        let output = gateway_tests::command().arg("check").args(words).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let path = file.to_str().unwrap();
    let (code, said) = check(&[path]);
    assert!(code == Some(1) && said.contains("wrong.kdl"), "{code:?} {said}");
    assert_eq!(check(&["-c", path]), (code, said));
    assert_eq!(check(&[path, "-c", path]).0, Some(2), "twice is once too often");
}

// ── the shipped configuration ─────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn the_shipped_configuration_is_valid() {
    let checked = Gateway::verbatim(&shipped()).check(&[]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    let checked = Gateway::verbatim(&shipped()).check(&["--format", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&checked.stdout).unwrap()["ok"], true);
}

#[tokio::test]
async fn the_shipped_configuration_does_what_it_says() {
    // On free ports, so that it runs beside anything.
    let text = [":8080", ":8081", ":8404"]
        .iter()
        .fold(shipped(), |text, port| text.replace(&format!("{port}\""), ":0\""));
    let gateway = Gateway::verbatim(&text).start().await;

    let answer = gateway.ask("web", get("/old/page?x=1").header("X-Debug", "1")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-served-by"), Some("gateway"));
    assert!(answer.text().contains("/new/page?x=1"), "{}", answer.text());
    assert!(!answer.text().to_lowercase().contains("x-debug"), "{}", answer.text());
    let answer = gateway.ask("web", get("/api/x")).await;
    assert!(
        answer.text().to_lowercase().contains("x-backend-pool"),
        "{}",
        answer.text()
    );
    assert_eq!(gateway.ask("web", get("/internal/x")).await.status, 403);

    let mut client = gateway.connect("raw").await;
    client.send("through tcp").await;
    assert_eq!(client.exactly(11).await, b"through tcp");

    let mut limited = 0;
    let mut client = gateway.connect("web").await;
    for _ in 0..400 {
        limited += usize::from(client.ask(get("/")).await.status == 429);
    }
    assert!(limited > 0, "400 requests at once are beyond the burst of 100");
    assert!(
        gateway.output().contains("curl "),
        "what to try is said:\n{}",
        gateway.output()
    );
}

/// Five slips that people make. Each is reported with its line, what is wrong, and a way out.
#[tokio::test]
async fn five_slips_in_the_shipped_configuration() {
    let slips = [
        ("default-backend \"app\"", "default-backend \"ap\"", ["ap", "app"]),
        (
            "balance \"roundrobin\"",
            "balance \"round-robin\"",
            ["round-robin", "roundrobin"],
        ),
        ("client=\"30s\"", "client=30", ["30", "\"30s\""]),
        ("forwarded-for", "forward-for", ["forward-for", "forwarded-for"]),
        ("if=\"is-api\"", "if=\"is-ap\"", ["is-ap", "is-api"]),
    ];
    for (right, wrong, says) in slips {
        let text = shipped();
        let at = text.find(right).unwrap();
        let line = text[..at].matches('\n').count() + 1;
        let broken = Gateway::verbatim(&text.replacen(right, wrong, 1));

        let checked = broken.check(&[]);
        assert_eq!(checked.code, Some(1), "{wrong}");
        for word in says {
            assert!(
                checked.stdout.contains(word),
                "{wrong}: no {word:?} in\n{}",
                checked.stdout
            );
        }
        assert!(
            checked.stdout.contains(&format!("config.kdl:{line}:")),
            "{wrong}: line {line} in\n{}",
            checked.stdout
        );

        let json: Value = serde_json::from_str(&broken.check(&["--format", "json"]).stdout).unwrap();
        assert_eq!(json["ok"], false);
        let errors = json["errors"].as_array().unwrap();
        assert!(!errors.is_empty(), "{wrong}: {json}");
        assert!(
            errors
                .iter()
                .any(|error| error.to_string().contains(&format!("\"line\":{line}"))),
            "{wrong}: {json}"
        );
    }
}

#[tokio::test]
async fn all_slips_are_reported_at_once() {
    let text = shipped()
        .replace("balance \"leastconn\"", "balance \"leastcon\"")
        .replace("mode \"tcp\"", "mode \"udp\"");
    let json: Value = serde_json::from_str(&Gateway::verbatim(&text).check(&["--format", "json"]).stdout).unwrap();
    assert!(json["errors"].as_array().unwrap().len() >= 4, "{json}");
}

// ── starting and refusing to ──────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_wrong_configuration_stops_the_start() {
    let stopped = Gateway::kdl(r#"frontend "web" { bind "127.0.0.1:0"; default-backend "nowhere" }"#)
        .refused()
        .await;
    assert_eq!(stopped.code, Some(1));
    assert!(stopped.output.contains("nowhere"), "{}", stopped.output);
    assert!(!stopped.output.contains("listening"), "{}", stopped.output);
}

#[tokio::test]
async fn a_mode_mismatch_stops_the_start_and_shows_both_places() {
    let stopped = Gateway::kdl(
        r#"
        frontend "web" { mode "http"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; server "s" "127.0.0.1:1" }
    "#,
    )
    .refused()
    .await;
    assert_eq!(stopped.code, Some(1));
    for said in ["used here", "in TCP mode", "give both the same `mode`"] {
        assert!(stopped.output.contains(said), "{said}: {}", stopped.output);
    }
    for place in ["default-backend \"app\"", "backend \"app\" { mode \"tcp\""] {
        assert!(stopped.output.contains(place), "{place}: {}", stopped.output);
    }
}

#[tokio::test]
async fn a_port_that_is_taken_stops_the_start() {
    let taken = Server::echo().await;
    let stopped = Gateway::kdl(
        r#"
        frontend "web" { bind "@taken"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .with("@taken", taken.address())
    .refused()
    .await;
    assert_eq!(stopped.code, Some(1));
    assert!(
        stopped.output.contains(&taken.address().to_string()),
        "{}",
        stopped.output
    );
}

#[tokio::test]
async fn two_gateways_do_not_share_a_port() {
    let kdl = r#"
        frontend "web" { bind "@address"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#;
    let first = Gateway::kdl(kdl).with("@address", "127.0.0.1:0").start().await;
    let stopped = Gateway::kdl(kdl).with("@address", first.address("web")).refused().await;
    assert_eq!(stopped.code, Some(1), "{}", stopped.output);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let stopped = Gateway::kdl(
        r#"
        plugin "guest" "missing.wasm" { on-failure "deny" status=503 }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "guest"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .refused()
    .await;
    assert_eq!(stopped.code, Some(1));
    assert!(stopped.output.contains("missing.wasm"), "{}", stopped.output);
}

// ── draining ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const PLAIN: &str = r#"
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "raw" }
    backend "app" { server "s" "@app" }
    backend "raw" { mode "tcp"; server "s" "@raw" }
"#;

#[tokio::test]
async fn what_is_under_way_is_finished_before_the_end() {
    let app = HttpServer::start(|_| {
        Answer::nothing()
            .then_pause(Duration::from_secs(1))
            .then_send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
    })
    .await;
    let raw = Server::start(|mut wire, _| async move {
        wire.exactly(2).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        wire.send("done").await
    })
    .await;
    let gateway = Gateway::kdl(PLAIN)
        .with("@app", app.address())
        .with("@raw", raw.address())
        .start()
        .await;
    let address = gateway.address("web");

    let mut idle = gateway.connect("web").await;
    let mut client = gateway.connect("web").await;
    client.send(get("/").bytes()).await;
    app.has_seen(1).await;
    let mut relayed = gateway.connect("raw").await;
    relayed.send("go").await;
    gateway_tests::eventually("the connection reaches the server", async || raw.connections() == 1).await;
    gateway.terminate();

    // Nobody new is let in.
    gateway_tests::eventually("the port is closed", async || {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.text()), (200, "done"));
    assert_eq!(
        answer.header("connection"),
        Some("close"),
        "the client is told not to come back on this one"
    );
    client.closed().await;
    assert_eq!(relayed.exactly(4).await, b"done");
    idle.closed().await;
    drop(relayed);
    let stopped = gateway.stopped().await;
    assert_eq!(stopped.code, Some(0), "{}", stopped.output);
    // The last line of the log is not lost.
    assert!(stopped.output.contains("\"status\":200"), "{}", stopped.output);
}

#[tokio::test]
async fn an_idle_gateway_ends_at_once() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(PLAIN)
        .with("@app", app.address())
        .with("@raw", app.address())
        .start()
        .await;
    let mut client = gateway.connect("web").await;
    client.ask(get("/")).await;

    gateway.terminate();

    client.closed().await;
    assert_eq!(gateway.stopped().await.code, Some(0));
}

#[tokio::test]
async fn an_haproxy_configuration_is_converted() {
    let directory = tempfile::tempdir().unwrap();
    let (source, result) = (
        directory.path().join("haproxy.cfg"),
        directory.path().join("config.kdl"),
    );
    let app = Server::greeting("hello").await;
    let text = format!(
        "global\n  tune.ssl.default-dh-param 2048\nlisten raw\n  mode tcp\n  bind 127.0.0.1:0\n  server a {}\n",
        app.address()
    );
    std::fs::write(&source, text).unwrap();
    let output = gateway_tests::command()
        .arg("convert")
        .arg(&source)
        .arg("-o")
        .arg(&result)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("haproxy.cfg:2: ") && said.contains("Diffie-Hellman"),
        "{said}"
    );

    // What comes out runs.
    let converted = std::fs::read_to_string(&result).unwrap();
    let gateway = Gateway::kdl(&converted).start().await;
    assert_eq!(gateway.connect("raw").await.exactly(5).await, b"hello");
}

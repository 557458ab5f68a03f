//! Heads that are refused before there is a request: what the client is told, with whose words, and that it is logged and
//! counted.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::http2::{Http2Frames, block, frame};
use gateway_tests::tls::Authority;
use gateway_tests::{Answer, Client, Gateway, HttpServer, get};

const PAGES: &str = r#"
    process { workers 1; log "stdout" format="json" }
    frontend "web" {
        bind "127.0.0.1:0"
        timeout http-request="300ms"
        request-limits head="8KiB" headers=20 uri="1KiB"
        http2 "off"
        error-page 400 408 414 431 505 "sorry.html"
        default-backend "app"
    }
    frontend "plain" {
        bind "127.0.0.1:0"
        timeout http-request="300ms"
        request-limits head="8KiB" headers=20 uri="1KiB"
        http2 "off"
        default-backend "app"
    }
    backend "app" { server "app-1" "@app" }
"#;

/// Heads that cannot be read: the status and the reason, and the phrase that goes with the status.
fn heads() -> Vec<(String, u16, &'static str, &'static str)> {
    let long = |n: usize| "x".repeat(n);
    let fields: String = (0..30).map(|n| format!("X-{n}: 1\r\n")).collect();
    let bad = "Bad Request";
    let large = "Request Header Fields Too Large";
    let version = "HTTP Version Not Supported";
    vec![
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400, "bad-request", bad),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".into(), 400, "bad-header", bad),
        ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400, "bad-target", bad),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n".into(),
            400,
            "bad-length",
            bad,
        ),
        (
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            400,
            "bad-transfer-encoding",
            bad,
        ),
        ("GET / http/1.1\r\nHost: a\r\n\r\n".into(), 400, "bad-request", bad),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), 505, "bad-version", version),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505, "bad-version", version),
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(9_000)),
            414,
            "uri-too-long",
            "URI Too Long",
        ),
        (format!("GET /{}", long(70_000)), 414, "uri-too-long", "URI Too Long"),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long(9_000)),
            431,
            "head-too-large",
            large,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"),
            431,
            "head-too-large",
            large,
        ),
        (
            "GET / HTTP/1.1\r\nHos".into(),
            408,
            "request-timeout",
            "Request Timeout",
        ),
    ]
}

async fn gateway(app: &HttpServer) -> Gateway {
    Gateway::kdl(PAGES)
        .with("@app", app.address())
        .file("sorry.html", "<p>sorry")
        .start()
        .await
}

#[tokio::test]
async fn heads_that_cannot_be_read_get_the_page_for_their_status_and_a_line() {
    let app = HttpServer::answering("x").await;
    // A page of each status, as it is one file for all otherwise.
    let page = |status: u16| {
        format!("HTTP/1.1 {status} Sorry\r\nContent-Type: text/html\r\nX-Page: {status}\r\n\r\n<p>{status}")
    };
    let statuses = [400, 408, 414, 431, 505];
    let pages: String = statuses
        .iter()
        .map(|status| format!("error-page {status} \"{status}.http\"\n"))
        .collect();
    let mut text = Gateway::kdl(&PAGES.replace("error-page 400 408 414 431 505 \"sorry.html\"", &pages))
        .with("@app", app.address());
    for status in statuses {
        text = text.file(&format!("{status}.http"), page(status));
    }
    let gateway = text.start().await;

    let mut lines = 0;
    for (head, status, reason, _) in heads() {
        let what = &head[..head.len().min(60)];
        for before in ["", "GET /first HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let labels = [("frontend", "web"), ("reason", reason)];
            let counted = gateway
                .metrics()
                .await
                .get("gateway_frontend_errors_total", &labels)
                .unwrap_or(0.0);
            let asked = app.requests().len();
            let mut client = gateway.connect("web").await;
            let _ = client.try_send(format!("{before}{head}")).await;
            if !before.is_empty() {
                assert_eq!(client.response().await.text(), "x", "{what}");
                lines += 1;
            }
            let answer = client.response().await;
            assert_eq!(
                (answer.status, answer.text()),
                (status, &*format!("<p>{status}")),
                "{what}"
            );
            assert_eq!(answer.header("x-page"), Some(&*status.to_string()), "{what}");
            assert_eq!(answer.header("content-type"), Some("text/html"), "{what}");
            assert_eq!(answer.header("connection"), Some("close"), "{what}");
            assert!(answer.header("date").is_some(), "{what}");
            client.closed().await;

            lines += 1;
            let line = gateway.access_log(lines).await.remove(lines - 1);
            let said = (
                &line["status"],
                &line["reason"],
                &line["termination"],
                &line["bytes_sent"],
            );
            let termination = if status == 408 { "cR" } else { "PR" };
            let expected = (&status.into(), &reason.into(), &termination.into(), &(3 + 3).into());
            assert_eq!(said, expected, "{what}: {line}");
            gateway
                .metric_is("gateway_frontend_errors_total", &labels, counted + 1.0)
                .await;
            let seen: Vec<_> = app
                .requests()
                .split_off(asked)
                .into_iter()
                .map(|request| request.target)
                .collect();
            let expected = if before.is_empty() { vec![] } else { vec!["/first"] };
            assert_eq!(seen, expected, "{what}: what the server saw");
        }
    }
}

#[tokio::test]
async fn without_a_page_the_gateway_says_it_in_its_own_words() {
    let app = HttpServer::answering("x").await;
    let gateway = gateway(&app).await;
    for (head, status, _, phrase) in heads() {
        let mut client = gateway.connect("plain").await;
        let _ = client.try_send(&head).await;
        let answer = client.response().await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.text(), format!("{status} {phrase}\n"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        client.closed().await;
    }
}

#[tokio::test]
async fn a_client_that_goes_on_sending_reads_why_it_was_refused() {
    let app = HttpServer::answering("x").await;
    let gateway = gateway(&app).await;
    let rest = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        let mut client = gateway.connect("web").await;
        client.send("GET / HTTP/1.1\r\nHost : a\r\n\r\n").await;
        // What was answered before all of this had been sent is not lost to a reset.
        client.send(&rest).await;
        assert_eq!(client.response().await.text(), "<p>sorry");
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_head_has_a_line() {
    let app = HttpServer::answering("x").await;
    let gateway = gateway(&app).await;
    let mut client = gateway.connect("web").await;
    client.ask(get("/")).await;
    client.send("GET / HTTP/1.1\r\nHo").await;
    client.half_close().await;
    client.closed().await;
    let line = gateway.access_log(2).await.remove(1);
    let said = (&line["status"], &line["reason"], &line["termination"]);
    assert_eq!(
        said,
        (&serde_json::Value::Null, &"request-aborted".into(), &"CR".into()),
        "{line}"
    );
}

#[tokio::test]
async fn a_client_that_resets_in_the_middle_of_a_head_has_a_line() {
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; return { body "x" } }
    "#,
    )
    .start()
    .await;
    // What has not been read when the reset comes is lost.
    let shortly = std::time::Duration::from_millis(500);
    let mut lines = 0;
    let left = async |lines: usize| {
        let line = gateway.access_log(lines).await.remove(lines - 1);
        let said = (&line["reason"], &line["termination"]);
        assert_eq!(said, (&"request-aborted".into(), &"CR".into()), "{line}");
    };
    // At its first request, and behind another.
    for asks_before in [false, true] {
        let mut client = gateway.connect("web").await;
        if asks_before {
            client.ask(get("/")).await;
            lines += 1;
        }
        client.send("GET / HTTP/1.1\r\nHo").await;
        tokio::time::sleep(shortly).await;
        client.reset();
        lines += 1;
        left(lines).await;
    }
    // Over HTTP/2, whose heads may come in several frames, in whatever way.
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    client.send(frame(1, 0, 1, &block(&[(":method", "GET")]))).await;
    tokio::time::sleep(shortly).await;
    drop(client);
    left(lines + 1).await;
}

#[tokio::test]
async fn what_a_server_says_is_never_taken_for_the_gateways_own_words() {
    // What the parser would say by itself, from a server and in a server's content.
    let own = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let app = HttpServer::start(move |request| match &*request.target {
        "/raw" => Answer::raw(own).then_close(),
        "/pieces" => Answer::head_only(2 * own.len() as u64)
            .then_send(own)
            .then_pause(std::time::Duration::from_millis(50))
            .then_send(own),
        _ => Answer::ok(own),
    })
    .await;
    let gateway = gateway(&app).await;
    let mut client = gateway.connect("web").await;
    for _ in 0..3 {
        let answer = client.ask(get("/raw")).await;
        assert_eq!((answer.status, answer.text()), (400, ""));
        assert_eq!(client.ask(get("/")).await.text(), own);
        assert_eq!(client.ask(get("/pieces")).await.text(), own.repeat(2));
    }
    client.send(get("/last").header("Connection", "close").bytes()).await;
    assert_eq!(client.response().await.text(), own);
    client.closed().await;
}

#[tokio::test]
async fn refusals_are_said_in_tls_too() {
    let authority = Authority::new();
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0" { tls cert="app.pem"; alpn "http/1.1" }
            error-page 400 "400.html"
            hsts max-age="60s"
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("app.pem", authority.issue(&["app.example"]).bundle())
    .file("400.html", "<p>sorry")
    .start()
    .await;
    let mut client = Client::connect_tls(gateway.address("web"), "app.example", authority.certificate()).await;
    client.ask(get("/")).await;
    client.send("GET / HTTP/1.1\r\nHost : a\r\n\r\n").await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.text()), (400, "<p>sorry"));
    assert!(answer.header("strict-transport-security").is_some());
    client.closed().await;
}

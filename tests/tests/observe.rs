//! What an operator sees: one access line a request or connection, and metrics that count exactly.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::{Duration, Instant};

use gateway_tests::{Answer, Gateway, HttpServer, Server, get, post, refusing};

const PLAIN: &str = r#"
    frontend "web" {
        bind "127.0.0.1:0"
        acl "secret" { path-prefix "/secret" }
        deny status=403 if="secret"
        default-backend "app"
    }
    backend "app" { server "app-1" "@app" }
"#;

#[tokio::test]
async fn a_request_is_one_line_with_its_fields() {
    let app = HttpServer::answering("hello").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    client.ask(post("/a?b=c", "content").host("shop.example")).await;
    let lines = gateway.access_log(1).await;

    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert_eq!(line["client"], client.address().to_string());
    assert_eq!(line["frontend"], "web");
    assert_eq!((&line["backend"], &line["server"]), (&"app".into(), &"app-1".into()));
    assert_eq!((&line["method"], &line["target"]), (&"POST".into(), &"/a?b=c".into()));
    assert_eq!(
        (&line["host"], &line["version"]),
        (&"shop.example".into(), &"HTTP/1.1".into())
    );
    assert_eq!((&line["status"], &line["termination"]), (&200.into(), &"--".into()));
    assert_eq!(
        (&line["reason"], &line["retries"]),
        (&serde_json::Value::Null, &0.into())
    );
    assert!(line["bytes_sent"].as_u64().unwrap() >= 5, "{line}");
    assert!(line["bytes_received"].as_u64().unwrap() >= 7, "{line}");
    for timer in ["request_ms", "connect_ms", "response_ms", "total_ms"] {
        assert!(line[timer].as_f64().unwrap() >= 0.0, "{timer}: {line}");
    }
}

#[tokio::test]
async fn requests_that_the_gateway_answers_are_logged_with_the_reason() {
    let (dead, _guard) = refusing();
    let gateway = Gateway::kdl(PLAIN).with("@app", dead).start().await;

    gateway.ask("web", get("/secret")).await;
    gateway.ask("web", get("/")).await;
    gateway.raw("web", "nonsense\r\n\r\n").await;
    let lines = gateway.access_log(3).await;

    // Workers write on their own: lines are in the order of each worker.
    for (status, termination, reason) in [
        (403, "PR", "denied"),
        (503, "SC", "connect"),
        (400, "PR", "bad-request"),
    ] {
        let line = lines.iter().find(|line| line["status"] == status).unwrap();
        assert_eq!(line["termination"], termination, "{line}");
        assert!(line["reason"].as_str().unwrap().starts_with(reason), "{line}");
        assert_eq!(line["server"].is_null(), status != 503, "{line}");
    }
}

#[tokio::test]
async fn a_text_line_has_haproxys_fields() {
    let app = HttpServer::answering("hello").await;
    let gateway = Gateway::kdl(&format!("process {{ workers 2; log \"stdout\" }}\n{PLAIN}"))
        .with("@app", app.address())
        .start()
        .await;

    let mut client = gateway.connect("web").await;
    client.ask(get("/a?b")).await;
    gateway.says("GET /a?b HTTP/1.1").await;

    // 127.0.0.1:5 [22/Nov/2026:12:00:00.000] web app/app-1 0/0/0/0/0 200 99 - - ---- 1/1/0/0/0 0/0 "GET /a?b HTTP/1.1"
    let output = gateway.output();
    let line = output.lines().find(|line| line.contains("GET /a?b")).unwrap();
    let fields: Vec<&str> = line.split(' ').collect();
    assert_eq!(fields[0], client.address().to_string(), "{line}");
    assert_eq!(fields[2..4], ["web", "app/app-1"], "{line}");
    assert_eq!(fields[4].split('/').count(), 5, "{line}");
    assert_eq!(fields[5], "200", "{line}");
    assert_eq!(fields[7..10], ["-", "-", "----"], "{line}");
    assert!(line.ends_with("\"GET /a?b HTTP/1.1\""), "{line}");
}

#[tokio::test]
async fn a_client_cannot_forge_a_line() {
    let app = HttpServer::answering("x").await;
    for format in ["text", "json"] {
        let gateway = Gateway::kdl(&format!(
            "process {{ workers 1; log \"stdout\" format=\"{format}\" }}\n{PLAIN}"
        ))
        .with("@app", app.address())
        .start()
        .await;
        let before = gateway.output().lines().count();

        let mut client = gateway.connect("web").await;
        client
            .send(b"GET /\"x\x7f\xff\x1b[31m HTTP/1.1\r\nHost: a\"\\u0000b\r\n\r\n")
            .await;
        client.ends().await;
        gateway.ask("web", get("/%0d%0a\"forged\"")).await;
        gateway.says("forged").await;

        let output = gateway.output();
        let lines: Vec<&str> = output.lines().skip(before).collect();
        assert_eq!(lines.len(), 2, "{format}: {lines:?}");
        for line in lines {
            assert!(
                !line.bytes().any(|byte| byte < 0x20 || byte == 0x7f),
                "{format}: {line:?}"
            );
            assert_eq!(
                format == "json",
                serde_json::from_str::<serde_json::Value>(line).is_ok(),
                "{line}"
            );
        }
    }
}

#[tokio::test]
async fn null_connections_are_skipped_when_told_so() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "quiet" { bind "127.0.0.1:0"; access-log skip-null; default-backend "app" }
        frontend "off"   { bind "127.0.0.1:0"; access-log "off"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    for _ in 0..3 {
        gateway.connect("quiet").await.half_close().await;
    }
    gateway.ask("off", get("/")).await;
    gateway.ask("quiet", get("/last")).await;
    let lines = gateway.access_log(1).await;

    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["target"], "/last");
}

#[tokio::test]
async fn a_tcp_connection_is_one_line() {
    let app = Server::greeting("hello").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; access-log skip-null; default-backend "app" }
        backend "app" { mode "tcp"; server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    let mut client = gateway.connect("raw").await;
    let began = Instant::now();
    client.exactly(5).await;
    client.send("abc").await;
    tokio::time::sleep(Duration::from_millis(120)).await;
    client.half_close().await;
    client.rest().await;
    let lines = gateway.access_log(1).await;
    let lasted = began.elapsed().as_secs_f64() * 1e3;

    let line = &lines[0];
    let [queue, connect, total] = ["queue_ms", "connect_ms", "total_ms"].map(|timer| line[timer].as_f64().unwrap());
    assert!((120.0..=lasted).contains(&total), "{line}, {lasted} ms in all");
    assert!(queue == 0.0 && connect <= total - 120.0, "{line}");
    assert_eq!(line["client"], client.address().to_string());
    assert_eq!((&line["frontend"], &line["backend"]), (&"raw".into(), &"app".into()));
    assert_eq!(line["server"], "app-1");
    assert_eq!(line["destination"], gateway.address("raw").to_string());
    assert_eq!((&line["bytes_sent"], &line["bytes_received"]), (&5.into(), &3.into()));
    assert_eq!(line["termination"], "--");
}

#[tokio::test]
async fn metrics_count_exactly() {
    let app = HttpServer::start(|request| match request.target.as_str() {
        "/500" => Answer::status(500),
        _ => Answer::ok("hello"),
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 4; log "stdout" format="json" }
        rate-limit "r" { key "header" "x-limited"; allow "1/d" burst=2 }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "secret" { path-prefix "/secret" }
            deny status=403 if="secret"
            default-backend "app"
        }
        frontend "limited" { bind "127.0.0.1:0"; limit "r"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    for _ in 0..30 {
        assert_eq!(gateway.ask("web", get("/")).await.status, 200);
    }
    for _ in 0..7 {
        assert_eq!(gateway.ask("web", get("/500")).await.status, 500);
    }
    for _ in 0..5 {
        assert_eq!(gateway.ask("web", get("/secret")).await.status, 403);
    }
    for _ in 0..6 {
        gateway.ask("limited", get("/")).await;
    }

    let web = ("frontend", "web");
    gateway
        .metric_is("gateway_frontend_connections_total", &[web], 42.0)
        .await;
    gateway
        .metric_is("gateway_frontend_responses_total", &[web], 42.0)
        .await;
    gateway
        .metric_is("gateway_frontend_denied_requests_total", &[web], 5.0)
        .await;
    gateway
        .metric_is(
            "gateway_frontend_rate_limited_requests_total",
            &[("frontend", "limited")],
            4.0,
        )
        .await;
    gateway
        .metric_is("gateway_server_sessions_total", &[("server", "app-1")], 39.0)
        .await;
    gateway
        .metric_is("gateway_server_responses_total", &[("server", "app-1")], 39.0)
        .await;
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "app-1")], 0.0)
        .await;
    gateway
        .metric_is("gateway_frontend_request_duration_seconds_count", &[web], 42.0)
        .await;
    gateway.metric_is("gateway_log_lines_dropped_total", &[], 0.0).await;
    gateway.access_log(48).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(gateway.access_lines().len(), 48);
}

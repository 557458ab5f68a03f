//! Each timeout, on the side it belongs to. A limit of a test is 300 ms; that it was kept to is read off the clock only
//! loosely: not before it, and not ten times as late.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::{Duration, Instant};

use gateway_tests::http2::{Http2Client, http2_post, read};
use gateway_tests::{Answer, Gateway, HttpServer, Server, blackhole, get, post};

const LIMIT: Duration = Duration::from_millis(300);

/// Every timeout is long but the one that replaces `@short`.
fn kdl(frontend: &str, backend: &str) -> String {
    format!(
        r#"
        frontend "web" {{ bind "127.0.0.1:0"; {frontend}; default-backend "app" }}
        backend "app" {{ {backend}; server "s" "@app" }}
    "#
    )
}

fn took(start: Instant) {
    let time = start.elapsed();
    assert!(time >= LIMIT - Duration::from_millis(20), "only {time:?}");
    assert!(time < LIMIT * 10, "{time:?}");
}

#[tokio::test]
async fn connect() {
    let (address, _guard) = blackhole().await;
    let gateway = Gateway::kdl(&kdl("forwarded-for", r#"timeout connect="300ms""#))
        .with("@app", address)
        .start()
        .await;

    let start = Instant::now();
    let answer = gateway.ask("web", get("/")).await;
    assert_eq!(answer.status, 503);
    assert!(
        start.elapsed() >= LIMIT - Duration::from_millis(20) && start.elapsed() < LIMIT * 20,
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn server_before_the_answer() {
    let app = HttpServer::start(|_| Answer::nothing().then_stall()).await;
    let kdl = kdl("forwarded-for", r#"timeout server="300ms""#);
    let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;

    let start = Instant::now();
    assert_eq!(gateway.ask("web", get("/")).await.status, 504);
    took(start);
}

#[tokio::test]
async fn server_inside_the_head() {
    let app = HttpServer::start(|_| Answer::raw("HTTP/1.1 200 OK\r\nContent-Le").then_stall()).await;
    let kdl = kdl("forwarded-for", r#"timeout server="300ms""#);
    let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;

    let start = Instant::now();
    assert_eq!(gateway.ask("web", get("/")).await.status, 504);
    took(start);
}

#[tokio::test]
async fn server_inside_the_content() {
    let app = HttpServer::start(|_| Answer::head_only(100).then_send("only this").then_stall()).await;
    let kdl = kdl("forwarded-for", r#"timeout server="300ms""#);
    let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;

    let start = Instant::now();
    let mut client = gateway.connect("web").await;
    client.send(get("/").bytes()).await;
    assert!(client.try_response().await.is_none(), "half an answer is none");
    took(start);
}

#[tokio::test]
async fn a_server_that_keeps_talking_slowly_is_not_cut_off() {
    // Four silences of half the limit are longer than the limit together.
    let pause = LIMIT / 2;
    let app = HttpServer::start(move |_| {
        (0..4).fold(Answer::head_only(4), |answer, _| {
            answer.then_pause(pause).then_send("x")
        })
    })
    .await;
    let kdl = kdl("forwarded-for", r#"timeout server="300ms""#);
    let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;

    assert_eq!(gateway.ask("web", get("/")).await.text(), "xxxx");
}

#[tokio::test]
async fn http_request_is_for_the_whole_head() {
    let app = HttpServer::answering("x").await;
    let kdl = kdl(r#"timeout http-request="300ms""#, "balance \"leastconn\"");
    let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;

    // A byte every 50 ms: never silent for long, never done. What slowloris does.
    let start = Instant::now();
    let mut client = gateway.connect("web").await;
    for byte in "GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".bytes() {
        if client.try_send([byte]).await.is_err() || start.elapsed() > LIMIT * 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let answer = client.try_response().await;
    took(start);
    assert_eq!(answer.map(|answer| answer.status), Some(408));
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn http_keep_alive_is_for_the_next_request() {
    let app = HttpServer::answering("x").await;
    let kdl = kdl(r#"timeout http-keep-alive="300ms""#, "balance \"leastconn\"");
    let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    for _ in 0..3 {
        assert_eq!(client.ask(get("/")).await.status, 200);
        tokio::time::sleep(LIMIT / 2).await;
    }
    let start = Instant::now() - LIMIT / 2;
    // Nothing was asked: nothing is said, not even that time is up.
    client.closed().await;
    took(start);
}

#[tokio::test]
async fn client_inside_its_content() {
    let app = HttpServer::answering("x").await;
    let kdl = kdl(r#"timeout client="300ms""#, "balance \"leastconn\"");
    let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    let start = Instant::now();
    assert_eq!(client.response().await.status, 408);
    took(start);
    assert_eq!(app.requests().len(), 0);
}

/// Who sends a little again and again is never silent for long.
#[tokio::test]
async fn request_body_is_for_the_whole_content() {
    let app = HttpServer::start(|request| Answer::ok(&request.body)).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; timeout client="1m" request-body="300ms"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    // It begins with each request, and ends with its content.
    assert_eq!(client.ask(post("/", "in time")).await.text(), "in time");
    tokio::time::sleep(LIMIT * 2).await;
    assert_eq!(client.ask(get("/")).await.status, 200);
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    let start = Instant::now();
    assert_eq!(client.response().await.status, 408);
    took(start);

    let client = Http2Client::connect(gateway.address("web")).await;
    let (response, mut content) = client.open(http2_post("/", "").map(drop), false).await;
    content.send_data("half".into(), false).unwrap();
    assert_eq!(read(response).await.unwrap().status, 408);
    assert_eq!(app.requests().len(), 2);
    for line in gateway.access_log(4).await.split_off(2) {
        assert_eq!(
            (&line["reason"], &line["termination"]),
            (&"slow-body".into(), &"cD".into()),
            "{line}"
        );
    }
}

#[tokio::test]
async fn client_that_does_not_read() {
    let app = HttpServer::start(|_| Answer::head_only(1 << 30).then_stream(1 << 30)).await;
    let kdl = kdl(r#"timeout client="300ms""#, "balance \"leastconn\"");
    let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    client.send(get("/").bytes()).await;
    app.has_seen(1).await;
    // The server is free again although the client is still there.
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "s")], 0.0)
        .await;
    assert!(client.skip(1 << 30).await < 1 << 30);
}

#[tokio::test]
async fn client_and_server_in_tcp_mode() {
    let app = Server::greeting("hi").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; timeout client="300ms"; default-backend "app" }
        frontend "patient" { mode "tcp"; bind "127.0.0.1:0"; default-backend "impatient" }
        backend "app" { mode "tcp"; server "s" "@app" }
        backend "impatient" { mode "tcp"; timeout server="300ms"; server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    for (n, (frontend, termination)) in [("raw", "cD"), ("patient", "sD")].into_iter().enumerate() {
        let mut client = gateway.connect(frontend).await;
        assert_eq!(client.exactly(2).await, b"hi");
        let start = Instant::now();
        client.closed().await;
        took(start);
        assert_eq!(gateway.access_log(n + 1).await[n]["termination"], termination);
    }
}

#[tokio::test]
async fn what_defaults_say_holds_until_a_section_says_otherwise() {
    let app = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        defaults           { mode "tcp"; timeout client="300ms" server="20s" }
        defaults "patient" { mode "tcp"; timeout client="20s" server="20s" }
        frontend "inherits" { bind "127.0.0.1:0"; default-backend "app" }
        frontend "own"      { bind "127.0.0.1:0"; timeout client="20s"; default-backend "app" }
        frontend "named" from="patient" { bind "127.0.0.1:0"; default-backend "app" }
        frontend "behind" from="patient" { bind "127.0.0.1:0"; default-backend "short" }
        backend "app" { server "s" "@app" }
        backend "short" from="patient" { timeout server="300ms"; server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut patient = [gateway.connect("own").await, gateway.connect("named").await];

    for (n, (frontend, termination)) in [("inherits", "cD"), ("behind", "sD")].into_iter().enumerate() {
        let mut client = gateway.connect(frontend).await;
        client.send("x").await;
        client.exactly(1).await;
        let start = Instant::now();
        client.closed().await;
        took(start);
        assert_eq!(
            gateway.access_log(n + 1).await[n]["termination"],
            termination,
            "{frontend}"
        );
    }
    // Silent for as long as both together.
    for client in &mut patient {
        client.send("still here").await;
        assert_eq!(client.exactly(10).await, b"still here");
    }
}

// ── the next request's head, of which a part came with the request before it ──────────────────────────────────────────

/// A request, and the beginning of the next one.
const BEGUN: [&str; 6] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHo",
    "GET / HTTP/1.1\nHost: a\n\nG",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /next HT",
    "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\n\r\nP",
    "DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /next HT",
];

#[tokio::test]
async fn http_request_is_for_a_head_that_began_behind_another_request() {
    let app = HttpServer::answering("hello").await;
    let kdl = kdl(
        r#"timeout http-request="300ms" http-keep-alive="20s""#,
        r#"balance "roundrobin""#,
    );
    let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;
    for (position, begun) in BEGUN.iter().enumerate() {
        let mut client = gateway.connect("web").await;
        let start = Instant::now();
        client.send(begun).await;
        assert_eq!(client.response().await.text(), "hello");
        let late = client.response().await;
        assert_eq!(
            (late.status, late.header("connection")),
            (408, Some("close")),
            "{begun:?}"
        );
        took(start);
        client.closed().await;
        // The server saw the one request.
        app.has_seen(position + 1).await;
        assert_eq!(app.requests().len(), position + 1);
    }
    let lines = gateway.access_log(2 * BEGUN.len()).await;
    for late in lines.iter().filter(|line| line["status"] == 408) {
        assert_eq!(
            (&late["reason"], &late["termination"]),
            (&"request-timeout".into(), &"cR".into())
        );
    }
    gateway
        .metric_is("gateway_frontend_errors_total", &[("reason", "request-timeout")], 6.0)
        .await;
}

#[tokio::test]
async fn a_head_that_came_in_pieces_behind_another_request_is_served() {
    let app = HttpServer::start(|request| Answer::ok(request.target.clone())).await;
    let kdl = kdl(
        r#"timeout http-request="5s" http-keep-alive="300ms""#,
        r#"balance "roundrobin""#,
    );
    let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;
    let mut client = gateway.connect("web").await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HT").await;
    assert_eq!(client.response().await.text(), "/1");
    // Longer than an idle connection has.
    tokio::time::sleep(LIMIT * 2).await;
    client.send("TP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "/2");
    // Nothing has begun now.
    let start = Instant::now();
    client.closed().await;
    took(start);
    assert!(gateway.access_log(2).await.iter().all(|line| line["status"] == 200));
}

#[tokio::test]
async fn a_begun_head_is_told_at_the_end_of_the_wait_where_only_that_shows_it() {
    let app = HttpServer::answering("hello").await;
    let kdl = kdl(
        r#"timeout http-request="20s" http-keep-alive="300ms""#,
        r#"balance "roundrobin""#,
    );
    let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;
    // What comes behind a head is counted where all of its lines end with CR LF.
    const POST: &str = "POST / HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc";
    const DELETE: &str = "DELETE / HTTP/1.1\r\nHost: a\nContent-Length: 3\r\n\r\nabc";
    const PUT: &str = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    for (first, behind, status) in [
        // No head has begun with the end of a line, as old clients send it behind content.
        (PUT, "\r\n", None),
        (POST, "", None),
        (POST, "GET /next HT", Some(408)),
        (DELETE, "GET /next HT", Some(408)),
    ] {
        let mut client = gateway.connect("web").await;
        client.send(format!("{first}{behind}")).await;
        assert_eq!(client.response().await.text(), "hello");
        let start = Instant::now();
        let late = client.try_response().await.map(|late| late.status);
        assert_eq!(late, status);
        took(start);
    }
    assert_eq!(app.requests().len(), 4);
}

#[tokio::test]
async fn line_ends_in_front_of_a_head_begin_none() {
    let app = HttpServer::answering("hello").await;
    let kdl = kdl(
        r#"timeout http-request="300ms" http-keep-alive="900ms""#,
        r#"balance "roundrobin""#,
    );
    let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;
    const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    for (first, behind) in [("\r\n", POST), ("\r\n\r\n", POST), (POST, "\r\n"), (POST, "\n")] {
        for apart in [false, true] {
            let mut client = gateway.connect("web").await;
            client.send(POST).await;
            assert_eq!(client.response().await.text(), "hello");
            client.send(first).await;
            if first == POST {
                assert_eq!(client.response().await.text(), "hello");
            }
            if apart {
                // So that it is read by itself.
                tokio::time::sleep(LIMIT / 3).await;
            }
            client.send(behind).await;
            if first != POST {
                assert_eq!(client.response().await.text(), "hello");
            }
            // Nothing is said at the end.
            client.closed().await;
        }
    }
    assert!(gateway.access_log(16).await.iter().all(|line| line["status"] == 200));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_told_of_the_head_that_it_began() {
    // More than the sockets' buffers hold.
    let app = HttpServer::start(|_| Answer::head_only(64 << 20).then_stream(64 << 20)).await;
    let kdl = kdl(r#"timeout http-request="300ms" client="1s""#, r#"balance "roundrobin""#);
    let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;
    let mut client = gateway.connect("web").await;
    client.send(BEGUN[0]).await;
    let line = &gateway.access_log(1).await[0];
    assert_eq!((&line["status"], &line["termination"]), (&200.into(), &"cD".into()));
    // What comes yet is content, and its end is the connection's.
    let rest = client.until_end().await;
    let text = String::from_utf8_lossy(&rest[rest.len().saturating_sub(200)..]).into_owned();
    assert!(!text.contains("408"), "{text}");
}

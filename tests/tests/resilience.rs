//! What becomes of requests whose servers answer badly or not at all, and of those servers.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gateway_tests::{Answer, Client, Gateway, HttpServer, RequestText, eventually, get, method, post, put, refusing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One worker in front of the servers `a` and `b`, with these nodes in the backend.
async fn gateway(a: &HttpServer, b: &HttpServer, nodes: &str) -> Gateway {
    Gateway::kdl(&format!(
        r#"
        process {{ workers 1; log "stdout" format="json" }}
        frontend "web" {{ bind "127.0.0.1:0"; default-backend "app" }}
        backend "app" {{
            {nodes}
            server "a" "@a"
            server "b" "@b"
        }}
    "#
    ))
    .with("@a", a.address())
    .with("@b", b.address())
    .start()
    .await
}

/// The statuses of so many requests, one after another over connections of their own.
async fn statuses(gateway: &Gateway, count: usize, request: impl Fn() -> RequestText) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(gateway.ask("web", request()).await.status);
    }
    statuses
}

/// How a server fails: what its answer is, what is said of it in `retry-on`, and what the client gets without.
type Failure = (&'static str, fn() -> Answer, u16);

const FAILURES: [Failure; 7] = [
    ("503", || Answer::status(503), 503),
    ("429", || Answer::status(429), 429),
    ("\"empty-response\"", || Answer::nothing().then_close(), 502),
    ("\"junk-response\"", || Answer::raw("no response at all\r\n\r\n"), 502),
    // What two readers could read differently.
    (
        "\"junk-response\"",
        || Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        502,
    ),
    (
        "\"junk-response\"",
        || Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        502,
    ),
    ("\"response-timeout\"", || Answer::nothing().then_stall(), 504),
];

#[tokio::test]
async fn what_failed_as_named_is_sent_again_elsewhere() {
    for (on, answer, status) in FAILURES {
        let (bad, good) = (
            HttpServer::start(move |_| answer()).await,
            HttpServer::answering("b").await,
        );
        let limits = r#"timeout server="300ms"; retry-budget min=100;"#;
        let with = gateway(&bad, &good, &format!("{limits} retry-on \"conn-failure\" {on}")).await;
        assert_eq!(statuses(&with, 4, || get("/")).await, [200; 4], "{on}");
        let labels = &[("backend", "app")];
        assert_eq!(
            with.metrics().await.get("gateway_backend_retries_total", labels),
            Some(2.0),
            "{on}"
        );
        // Without, the client gets it.
        let without = gateway(&bad, &good, r#"timeout server="300ms""#).await;
        let mut got = statuses(&without, 2, || get("/")).await;
        got.sort_unstable();
        assert_eq!(got, [200, status], "{on}");
    }
}

/// Whoever leaves then has not waited for the answer of the server before.
#[tokio::test]
async fn another_attempt_waits_for_its_turn_and_the_line_says_so() {
    let a = HttpServer::start(|_| Answer::status(503)).await;
    let b = HttpServer::start(|_| Answer::nothing().then_stall()).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            retry-on 503
            cookie "at" insert indirect
            server "a" "@a" cookie="a"
            server "b" "@b" cookie="b" max-connections=1
        }
    "#,
    )
    .with("@a", a.address())
    .with("@b", b.address())
    .start()
    .await;
    let mut holds = gateway.connect("web").await;
    holds.send(get("/").header("Cookie", "at=b").bytes()).await;
    eventually("it is full", async || b.requests().len() == 1).await;
    let mut waits = gateway.connect("web").await;
    waits.send(get("/").header("Cookie", "at=a").bytes()).await;
    gateway
        .metric_is("gateway_backend_queue", &[("backend", "app")], 1.0)
        .await;
    drop(waits);
    let line = gateway.access_log(1).await.remove(0);
    assert_eq!(
        (&line["termination"], &line["retries"]),
        (&"CQ".into(), &1.into()),
        "{line}"
    );
}

#[tokio::test]
async fn a_post_is_never_sent_twice() {
    for (on, answer, status) in FAILURES {
        let (bad, good) = (
            HttpServer::start(move |_| answer()).await,
            HttpServer::answering("b").await,
        );
        let nodes = format!("timeout server=\"300ms\"; retry-budget min=100; retry-on {on}");
        let gateway = gateway(&bad, &good, &nodes).await;
        let mut got = statuses(&gateway, 2, || post("/", "once")).await;
        got.sort_unstable();
        assert_eq!(got, [200, status], "{on}");
        assert_eq!((bad.requests().len(), good.requests().len()), (1, 1), "{on}");
    }
}

#[tokio::test]
async fn what_is_idempotent_is_sent_again_with_its_body_whole() {
    let (bad, good) = (
        HttpServer::start(|_| Answer::status(503)).await,
        HttpServer::answering("b").await,
    );
    let gateway = gateway(&bad, &good, r#"retry-on 503; retry-buffer "4KiB""#).await;
    for (length, expected) in [(0, [200, 200]), (4096, [200, 200]), (4097, [200, 503])] {
        let body = "x".repeat(length);
        let mut got = statuses(&gateway, 2, || put("/", body.clone())).await;
        got.sort_unstable();
        assert_eq!(got, expected, "{length} bytes");
        if length <= 4096 {
            assert_eq!(good.last().body, body.as_bytes());
        }
    }
    // Of a length that is not said beforehand.
    let mut client = gateway.connect("web").await;
    for _ in 0..2 {
        client
            .send("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            .await;
        assert_eq!(client.response().await.status, 200);
        assert_eq!(good.last().body, b"abcde");
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_has_is_no_loss_of_it() {
    // Answers as soon as it has the head.
    let hasty = gateway_tests::Server::start(|mut wire, _| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(wire.exactly(1).await?);
        }
        wire.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            .await?;
        wire.rest().await.map(drop)
    })
    .await;
    let good = HttpServer::answering("b").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { retry-on 503; server "a" "@a"; server "b" "@b" }
    "#,
    )
    .with("@a", hasty.address())
    .with("@b", good.address())
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    client
        .send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
        .await;
    // The hasty one's turn comes first; it has answered when the other is asked.
    eventually("it is asked again", async || good.connections() == 1).await;
    client.send("def").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(good.last().body, b"abcdef");
    assert_eq!(hasty.connections(), 1);
}

#[tokio::test]
async fn a_body_is_no_reason_for_a_closed_idle_connection_to_show() {
    // It closes when the second request of a connection has come: whether that was carried out, nobody knows.
    let used = Mutex::new(HashSet::new());
    let app = HttpServer::start(move |request| match used.lock().unwrap().insert(request.connection) {
        true => Answer::ok(&request.body),
        false => Answer::nothing().then_close(),
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    assert_eq!(client.ask(get("/")).await.status, 200);
    let kept = "x".repeat(16 << 10);
    for (name, content) in [("PUT", "all of it"), ("PUT", &*kept), ("DELETE", "which")] {
        let before = app.requests().len();
        let answer = client.ask(method(name, "/").body(content)).await;
        assert_eq!((answer.status, answer.text()), (200, content), "{name}");
        let came = app.requests().split_off(before);
        assert_eq!(came.len(), 2, "{name}");
        assert!(came.iter().all(|request| request.body == content.as_bytes()), "{name}");
    }
    let chunked = "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    client.send(chunked).await;
    assert_eq!(client.response().await.text(), "abcde");
    // What is longer than `retry-buffer` is not kept, and what is not idempotent is not sent twice.
    for request in [put("/", format!("{kept}x")), post("/", "100")] {
        let before = app.requests().len();
        let mut client = gateway.connect("web").await;
        assert_eq!(client.ask(request).await.status, 502);
        assert_eq!(app.requests().len(), before + 1);
        assert_eq!(gateway.ask("web", get("/")).await.status, 200);
    }
}

#[tokio::test]
async fn without_redispatch_the_same_server_is_asked_again() {
    let (bad, good) = (
        HttpServer::start(|_| Answer::status(503)).await,
        HttpServer::answering("b").await,
    );
    let gateway = gateway(&bad, &good, r#"retries 3 redispatch="off"; retry-on 503"#).await;
    let mut got = statuses(&gateway, 2, || get("/")).await;
    got.sort_unstable();
    assert_eq!(got, [200, 503]);
    assert_eq!((bad.requests().len(), good.requests().len()), (4, 1));
}

#[tokio::test]
async fn a_lone_server_that_comes_to_itself_is_asked_again() {
    let failures = std::sync::atomic::AtomicUsize::new(0);
    let server = HttpServer::start(move |_| match failures.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Answer::status(500),
        _ => Answer::ok("x"),
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { retry-on "all-retryable-errors"; server "a" "@a" }
    "#,
    )
    .with("@a", server.address())
    .start()
    .await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 200);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn beyond_the_budget_nothing_is_sent_again() {
    let (bad, good) = (
        HttpServer::start(|_| Answer::status(503)).await,
        HttpServer::answering("b").await,
    );
    let gateway = gateway(&bad, &good, "retry-on 503; retry-budget percent=0 min=0").await;
    let mut got = statuses(&gateway, 2, || get("/")).await;
    got.sort_unstable();
    assert_eq!(got, [200, 503]);
    let labels = &[("backend", "app")];
    gateway
        .metric_is("gateway_backend_retry_budget_spent_total", labels, 1.0)
        .await;
    gateway.metric_is("gateway_backend_resending", labels, 0.0).await;
}

#[tokio::test]
async fn connections_that_fail_are_not_tried_again_when_told_so() {
    let (dead, _guard) = refusing();
    let good = HttpServer::answering("b").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { retry-on "none"; server "a" "@a"; server "b" "@b" }
    "#,
    )
    .with("@a", dead)
    .with("@b", good.address())
    .start()
    .await;
    let mut got = statuses(&gateway, 2, || get("/")).await;
    got.sort_unstable();
    assert_eq!(got, [200, 503]);
}

/// A server that answers with this status while the switch is on, and well otherwise.
async fn switched(status: u16) -> (HttpServer, Arc<AtomicBool>) {
    let is_bad = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&is_bad);
    let server = HttpServer::start(move |_| match switch.load(Ordering::SeqCst) {
        true => Answer::status(status),
        false => Answer::ok("a"),
    });
    (server.await, is_bad)
}

#[tokio::test]
async fn a_server_that_answers_badly_is_ejected_for_a_while_and_comes_back() {
    let (bad, is_bad) = switched(500).await;
    let good = HttpServer::answering("b").await;
    let nodes = r#"outlier-ejection consecutive-errors=3 base-time="1s"; check "tcp" interval="50ms""#;
    let gateway = gateway(&bad, &good, nodes).await;
    let got = statuses(&gateway, 12, || get("/")).await;
    assert_eq!(got.iter().filter(|status| **status == 500).count(), 3, "{got:?}");
    let ejected = Instant::now();
    let labels = &[("server", "a")];
    gateway.metric_is("gateway_server_ejected", labels, 1.0).await;
    gateway.metric_is("gateway_server_up", labels, 0.0).await;
    gateway.says(r#"server is ejected"#).await;
    // Checks, which pass, do not take it back before its time.
    is_bad.store(false, Ordering::SeqCst);
    gateway.metric_is("gateway_server_ejected", labels, 0.0).await;
    assert!(
        ejected.elapsed() > Duration::from_millis(700),
        "{:?}",
        ejected.elapsed()
    );
    gateway.says("server is no longer ejected").await;
    let before = bad.requests().len();
    assert_eq!(statuses(&gateway, 4, || get("/")).await, [200; 4]);
    assert!(bad.requests().len() > before);
    let metrics = gateway.metrics().await;
    let count = |reason| {
        metrics.get(
            "gateway_server_outlier_ejections_total",
            &[("server", "a"), ("reason", reason)],
        )
    };
    assert_eq!(
        (count("errors"), count("gateway-errors"), count("slow")),
        (Some(1.0), Some(0.0), Some(0.0))
    );
}

#[tokio::test]
async fn each_kind_of_bad_answer_ejects_for_itself() {
    type Kind = (&'static str, fn() -> Answer, &'static str);
    let kinds: [Kind; 4] = [
        ("consecutive-gateway-errors=2", || Answer::status(502), "gateway-errors"),
        (
            "consecutive-gateway-errors=2",
            || Answer::nothing().then_close(),
            "gateway-errors",
        ),
        (
            r#"consecutive-slow=2 slow="20ms""#,
            || {
                Answer::nothing()
                    .then_pause(Duration::from_millis(60))
                    .then_send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            },
            "slow",
        ),
        ("consecutive-errors=2", || Answer::nothing().then_stall(), "errors"),
    ];
    for (what, answer, reason) in kinds {
        let (bad, good) = (
            HttpServer::start(move |_| answer()).await,
            HttpServer::answering("b").await,
        );
        let nodes = format!("timeout server=\"200ms\"; outlier-ejection {what}");
        let gateway = gateway(&bad, &good, &nodes).await;
        statuses(&gateway, 8, || get("/")).await;
        assert_eq!(bad.requests().len(), 2, "{what}");
        let labels = &[("server", "a"), ("reason", reason)];
        gateway
            .metric_is("gateway_server_outlier_ejections_total", labels, 1.0)
            .await;
    }
}

#[tokio::test]
async fn connections_that_fail_eject_too_and_the_last_server_stays() {
    let mut a = HttpServer::answering("a").await;
    let mut b = HttpServer::answering("b").await;
    let nodes = r#"retries 0; pool max-idle=1; outlier-ejection consecutive-errors=2 max-ejected=100"#;
    let gateway = gateway(&a, &b, nodes).await;
    a.stop().await;
    let got = statuses(&gateway, 10, || get("/")).await;
    assert_eq!(got.iter().filter(|status| **status != 200).count(), 2, "{got:?}");
    b.stop().await;
    // Both fail now: one of them is still asked, and is there at once when it comes back.
    assert_eq!(statuses(&gateway, 6, || get("/")).await, [503; 6]);
    gateway.metric_is("gateway_server_up", &[("server", "b")], 1.0).await;
    b.resume().await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 200);
}

#[tokio::test]
async fn an_operator_sees_who_is_ejected() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let (bad, good) = (
        HttpServer::start(|_| Answer::status(500)).await,
        HttpServer::answering("b").await,
    );
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; admin "@socket" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { outlier-ejection consecutive-errors=1; server "a" "@a"; server "b" "@b" }
    "#,
    )
    .with("@socket", socket.display())
    .with("@a", bad.address())
    .with("@b", good.address())
    .start()
    .await;
    statuses(&gateway, 2, || get("/")).await;
    let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    stream.write_all(b"show servers\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let health: Vec<_> = answer
        .lines()
        .skip(1)
        .filter_map(|line| line.split(' ').nth(3))
        .collect();
    assert_eq!(health, ["ejected", "up"], "{answer}");
}

#[tokio::test]
async fn an_ejection_outlasts_a_reload_and_ends_with_its_setting() {
    let (bad, good) = (
        HttpServer::start(|_| Answer::status(500)).await,
        HttpServer::answering("b").await,
    );
    let text = |nodes: &str| {
        let text = format!(
            r#"
            process {{ workers 1 }}
            frontend "web" {{ bind "127.0.0.1:0"; default-backend "app" }}
            backend "app" {{ {nodes}; server "a" "@a"; server "b" "@b" }}
        "#
        );
        Gateway::kdl(&text).with("@a", bad.address()).with("@b", good.address())
    };
    let gateway = text("outlier-ejection consecutive-errors=1").start().await;
    statuses(&gateway, 2, || get("/")).await;
    gateway
        .metric_is("gateway_server_ejected", &[("server", "a")], 1.0)
        .await;
    assert!(
        gateway
            .reload(&text(r#"outlier-ejection consecutive-errors=1; balance "leastconn""#))
            .await
    );
    gateway
        .metric_is("gateway_server_ejected", &[("server", "a")], 1.0)
        .await;
    assert!(gateway.reload(&text(r#"balance "leastconn""#)).await);
    gateway
        .metric_is("gateway_server_ejected", &[("server", "a")], 0.0)
        .await;
    gateway.metric_is("gateway_server_up", &[("server", "a")], 1.0).await;
}

#[tokio::test]
async fn answers_are_observed_when_told_so() {
    let (bad, good) = (
        HttpServer::start(|_| Answer::status(500)).await,
        HttpServer::answering("b").await,
    );
    let nodes = r#"check "tcp" interval="1h" fast-interval="1h" initial="fully-up"; observe "response" error-limit=3 on-error="mark-down""#;
    let gateway = gateway(&bad, &good, nodes).await;
    // A check that passes meanwhile is one of the two that it takes.
    statuses(&gateway, 6, || get("/")).await;
    gateway.metric_is("gateway_server_up", &[("server", "a")], 0.0).await;
    assert_eq!(statuses(&gateway, 4, || get("/")).await, [200; 4]);
    assert_eq!(bad.requests().len(), 3);
}

#[tokio::test]
async fn a_backend_takes_on_so_many_requests_and_no_more() {
    let holds = || {
        HttpServer::start(|request| match &*request.target {
            "/hold" => Answer::nothing().then_stall(),
            _ => Answer::ok("x"),
        })
    };
    let (a, b) = (holds().await, holds().await);
    let gateway = gateway(&a, &b, "max-requests 2").await;
    let mut held: Vec<Client> = Vec::new();
    for n in 1..=2 {
        assert_eq!(gateway.ask("web", get("/")).await.status, 200);
        let mut client = gateway.connect("web").await;
        client.send(get("/hold").bytes()).await;
        held.push(client);
        eventually("it is under way", async || {
            a.requests().len() + b.requests().len() == 2 * n
        })
        .await;
    }
    assert_eq!(gateway.ask("web", get("/")).await.status, 503);
    gateway.says(r#""reason":"max-requests""#).await;
    held.pop();
    eventually("there is room again", async || {
        gateway.ask("web", get("/")).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn whose_connections_are_used_again_is_as_told() {
    // A client with one request and two with two each, one after the other: on which of the server's connections each came. One that
    // has served a single request is not known to be kept.
    for (reuse, expected) in [
        ("always", [0, 0, 0, 0, 0]),
        ("safe", [0, 1, 1, 2, 2]),
        ("aggressive", [0, 1, 1, 1, 1]),
        ("never", [0, 1, 1, 2, 2]),
    ] {
        let server = HttpServer::answering("a").await;
        let gateway = Gateway::kdl(
            r#"
            process { workers 1 }
            frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
            backend "app" { pool reuse="@reuse"; server "a" "@a" }
        "#,
        )
        .with("@reuse", reuse)
        .with("@a", server.address())
        .start()
        .await;
        let mut clients = [(); 3].map(|()| None);
        for (client, requests) in clients.iter_mut().zip([1, 2, 2]) {
            let client = client.insert(gateway.connect("web").await);
            for _ in 0..requests {
                client.ask(get("/")).await;
            }
        }
        let came: Vec<_> = server.requests().iter().map(|request| request.connection).collect();
        assert_eq!(came, expected, "{reuse}");
    }
}

#[tokio::test]
async fn a_request_without_a_host_is_told_each_server_it_goes_to() {
    let (nobody, _guard) = refusing();
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "a" "@nobody"; server "b" "@app" }
    "#,
    )
    .with("@nobody", nobody)
    .with("@app", app.address())
    .start()
    .await;
    for _ in 0..4 {
        gateway.raw("web", "GET / HTTP/1.0\r\n\r\n").await;
        let hosts: Vec<_> = app.last().headers.all("host").map(str::to_owned).collect();
        assert_eq!(hosts, [app.address().to_string()]);
    }
    let retries = gateway
        .metrics()
        .await
        .get("gateway_backend_retries_total", &[("backend", "app")]);
    assert!(retries > Some(0.0), "{retries:?}");
}

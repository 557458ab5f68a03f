//! How much there may be at once: places at servers, the queue for them, and what becomes of those who do not get one.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gateway_tests::{Answer, Client, Gateway, HttpServer, Server, blackhole, eventually, get, refusing};

/// A server of one's own making: tells how many connections it had at most at once.
struct Counting {
    address: std::net::SocketAddr,
    most: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
}

impl Counting {
    /// Says its name, waits for a byte, answers with it and closes.
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (now, most, served) = (Arc::new(AtomicUsize::new(0)), Arc::default(), Arc::default());
        let this = Self {
            address,
            most: Arc::clone(&most),
            served: Arc::clone(&served),
        };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (now, most, served) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&served));
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::spawn(async move {
                    use tokio::io::{AsyncReadExt, AsyncWriteExt};
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).await.is_ok() {
                        // Long enough for others to come meanwhile.
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        // Over before the gateway can know it: what it then lets in finds the place free.
                        now.fetch_sub(1, Ordering::SeqCst);
                        served.fetch_add(1, Ordering::SeqCst);
                        let _ = stream.write_all(&byte).await;
                    } else {
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        this
    }
}

#[tokio::test]
async fn a_server_never_has_more_than_it_may() {
    let (a, b) = (Counting::start().await, Counting::start().await);
    let gateway = Gateway::kdl(
        r#"
        process { workers 2; log "stdout" format="json" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            mode "tcp"
            timeout queue="30s"
            server "a" "@a" max-connections=5
            server "b" "@b" max-connections=3
        }
    "#,
    )
    .with("@a", a.address)
    .with("@b", b.address)
    .start()
    .await;
    let address = gateway.address("raw");
    let clients: Vec<_> = (0..400)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                client.send("x").await;
                assert_eq!(client.exactly(1).await, b"x");
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let served = [&a, &b].map(|server| server.served.load(Ordering::SeqCst));
    assert_eq!(served[0] + served[1], 400);
    let most = [&a, &b].map(|server| server.most.load(Ordering::SeqCst));
    assert!(most[0] <= 5 && most[1] <= 3, "at most {most:?} at once");
    assert!(most[0] == 5 && most[1] == 3, "the places are used: {most:?}");
    gateway
        .metric_is("gateway_server_in_flight", &[("backend", "app")], 0.0)
        .await;
    assert_eq!(gateway.metrics().await.get("gateway_backend_queue", &[]), Some(0.0));
}

#[tokio::test]
async fn those_who_wait_are_served_in_their_order() {
    let app = Server::greeting("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 2; log "stdout" format="json" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; timeout queue="30s"; server "a" "@a" max-connections=1 }
    "#,
    )
    .with("@a", app.address())
    .start()
    .await;
    let mut first = gateway.connect("raw").await;
    first.exactly(1).await;
    let mut line = Vec::new();
    for n in 1..=8 {
        line.push(gateway.connect("raw").await);
        gateway.metric_is("gateway_backend_queue", &[], f64::from(n)).await;
    }
    let mut before = first;
    for mut client in line {
        drop(before);
        // Whoever is first in line, whichever worker has it.
        assert_eq!(client.exactly(1).await, b"x");
        before = client;
    }
    drop(before);
    let log = gateway.access_log(9).await;
    // The lines of different workers come in any order.
    let mut ahead: Vec<_> = log
        .iter()
        .filter(|line| line["queue_ms"] != 0.0)
        .map(|line| line["queue"].as_u64())
        .collect();
    ahead.sort_unstable();
    assert_eq!(ahead, (0..8).map(Some).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_wait_has_an_end() {
    let app = HttpServer::start(|_| Answer::nothing().then_stall()).await;
    let tcp = Server::greeting("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { timeout queue="200ms"; server "a" "@a" max-connections=1 }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "tcp" }
        backend "tcp" { mode "tcp"; timeout connect="250ms"; server "b" "@b" max-connections=1 }
    "#,
    )
    .with("@a", app.address())
    .with("@b", tcp.address())
    .start()
    .await;
    let mut holds = gateway.connect("web").await;
    holds.send(get("/").bytes()).await;
    eventually("the request arrives", async || app.requests().len() == 1).await;
    let began = Instant::now();
    let answer = gateway.ask("web", get("/late")).await;
    assert_eq!(answer.status, 503);
    assert!(began.elapsed() >= Duration::from_millis(200));
    let mut holds_tcp = gateway.connect("raw").await;
    holds_tcp.exactly(1).await;
    assert_eq!(gateway.connect("raw").await.rest().await, b"");

    let log = gateway.access_log(2).await;
    for (line, at_least) in log.iter().zip([200.0, 250.0]) {
        assert_eq!(
            (&line["termination"], &line["reason"]),
            (&"sQ".into(), &"queue-timeout".into()),
            "{line}"
        );
        assert!(line["queue_ms"].as_f64().unwrap() >= at_least, "{line}");
    }
    assert_eq!(app.requests().len(), 1);
    let metrics = gateway.metrics().await;
    for backend in ["app", "tcp"] {
        let timeouts = metrics.get("gateway_backend_queue_timeouts_total", &[("backend", backend)]);
        assert_eq!(timeouts, Some(1.0), "{backend}");
    }
}

#[tokio::test]
async fn a_queue_has_an_end() {
    let app = HttpServer::start(|_| Answer::nothing().then_stall()).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 2; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { max-queue 2; timeout queue="30s"; server "a" "@a" max-connections=1 }
    "#,
    )
    .with("@a", app.address())
    .start()
    .await;
    let mut waiting = Vec::new();
    for n in 0..3 {
        let mut client = gateway.connect("web").await;
        client.send(get("/").bytes()).await;
        waiting.push(client);
        gateway.metric_is("gateway_backend_queue", &[], f64::from(n)).await;
        eventually("the first arrives", async || app.requests().len() == 1).await;
    }
    assert_eq!(gateway.ask("web", get("/")).await.status, 503);
    let log = gateway.access_log(1).await;
    assert_eq!(
        (&log[0]["termination"], &log[0]["reason"]),
        (&"PQ".into(), &"queue-full".into())
    );
    assert_eq!(
        gateway.metrics().await.get("gateway_backend_queue_full_total", &[]),
        Some(1.0)
    );
}

#[tokio::test]
async fn a_client_that_leaves_gives_up_its_place_in_the_queue() {
    let app = HttpServer::start(|_| Answer::nothing().then_stall()).await;
    let tcp = Server::greeting("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { timeout queue="60s"; server "a" "@a" max-connections=1 }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "tcp" }
        backend "tcp" { mode "tcp"; timeout queue="60s"; server "b" "@b" max-connections=1 }
    "#,
    )
    .with("@a", app.address())
    .with("@b", tcp.address())
    .start()
    .await;
    let mut holds = gateway.connect("web").await;
    holds.send(get("/").bytes()).await;
    eventually("the request arrives", async || app.requests().len() == 1).await;
    // Content that has come is taken only when there is a server for it.
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nfour",
    ] {
        let mut waits = gateway.connect("web").await;
        waits.send(request).await;
        gateway
            .metric_is("gateway_backend_queue", &[("backend", "app")], 1.0)
            .await;
        drop(waits);
        gateway
            .metric_is("gateway_backend_queue", &[("backend", "app")], 0.0)
            .await;
    }

    let mut holds_tcp = gateway.connect("raw").await;
    holds_tcp.exactly(1).await;
    let waits = gateway.connect("raw").await;
    gateway
        .metric_is("gateway_backend_queue", &[("backend", "tcp")], 1.0)
        .await;
    drop(waits);
    gateway
        .metric_is("gateway_backend_queue", &[("backend", "tcp")], 0.0)
        .await;
    let log = gateway.access_log(3).await;
    for line in &log {
        assert_eq!(line["termination"], "CQ", "{line}");
    }
    // The place is the next one's.
    drop(holds_tcp);
    assert_eq!(gateway.connect("raw").await.exactly(1).await, b"x");
}

#[tokio::test]
async fn first_fills_one_server_after_the_other() {
    let (a, b) = (Server::greeting("a").await, Server::greeting("b").await);
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            mode "tcp"
            balance "first"
            server "a" "@a" max-connections=3
            server "b" "@b"
        }
    "#,
    )
    .with("@a", a.address())
    .with("@b", b.address())
    .start()
    .await;
    let mut open = Vec::new();
    let mut names = Vec::new();
    for _ in 0..5 {
        let mut client = gateway.connect("raw").await;
        names.extend(client.exactly(1).await);
        open.push(client);
    }
    assert_eq!(names, b"aaabb");
    open.remove(0);
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "a")], 2.0)
        .await;
    assert_eq!(gateway.connect("raw").await.exactly(1).await, b"a");
}

#[tokio::test]
async fn a_lone_server_that_restarts_is_waited_for() {
    let mut app = Server::greeting("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; timeout connect="300ms"; retries 10; server "a" "@a" }
    "#,
    )
    .with("@a", app.address())
    .start()
    .await;
    app.stop().await;
    let mut client = gateway.connect("raw").await;
    gateway.metric_is("gateway_backend_retries_total", &[], 1.0).await;
    app.resume().await;
    assert_eq!(client.exactly(1).await, b"x");
    drop(client);
    let line = &gateway.access_log(1).await[0];
    assert!(line["connect_ms"].as_f64().unwrap() >= 300.0, "{line}");
}

#[tokio::test]
async fn retries_stay_or_go_as_told() {
    let (dead, _guard) = refusing();
    let app = Server::start(|mut wire, _| async move { wire.send("x").await }).await;
    let alive = app.address();
    for (retries, ends_well, tries) in [
        (r#"retries 0"#, false, 1.0),
        (r#"retries 2 redispatch="off""#, false, 3.0),
        (r#"retries 2 redispatch="last""#, true, 2.0),
        (r#"retries 2"#, true, 1.0),
    ] {
        let gateway = Gateway::kdl(
            r#"
            process { workers 1; log "stdout" format="json" }
            frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
            backend "app" { mode "tcp"; timeout connect="50ms"; THE-RETRIES; server "dead" "@dead"; server "app" "@app" }
        "#,
        )
        .with("THE-RETRIES", retries)
        .with("@dead", dead)
        .with("@app", alive)
        .start()
        .await;
        let mut client = gateway.connect("raw").await;
        let got = client.rest().await;
        assert_eq!(got == b"x", ends_well, "{retries}");
        let errors = gateway
            .metrics()
            .await
            .get("gateway_server_connect_errors_total", &[("server", "dead")]);
        assert_eq!(errors, Some(tries), "{retries}");
    }
}

#[tokio::test]
async fn connects_that_hang_do_not_hold_up_others() {
    let (hole, _guard) = blackhole().await;
    let app = Server::greeting("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "hole" { mode "tcp"; bind "127.0.0.1:0"; default-backend "hole" }
        backend "hole" { mode "tcp"; timeout connect="60s"; max-queue 20; server "h" "@hole" max-connections=10 }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; server "a" "@app" }
    "#,
    )
    .with("@hole", hole)
    .with("@app", app.address())
    .start()
    .await;
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(gateway.connect("hole").await);
    }
    gateway
        .metric_is("gateway_backend_queue", &[("backend", "hole")], 20.0)
        .await;
    gateway
        .metric_is("gateway_backend_queue_full_total", &[("backend", "hole")], 170.0)
        .await;
    for _ in 0..20 {
        assert_eq!(gateway.connect("raw").await.exactly(1).await, b"x");
    }
}

#[tokio::test]
async fn no_new_session_fails_once_a_server_that_died_is_marked_down() {
    let (mut dies, stays) = (Server::greeting("x").await, Server::greeting("x").await);
    let gateway = Gateway::kdl(
        r#"
        process { workers 2; log "stdout" format="json" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            mode "tcp"
            balance "leastconn"
            retries 0
            check "tcp" interval="50ms" rise=1 fall=1
            server "dies" "@dies" max-connections=50
            server "stays" "@stays" max-connections=50
        }
    "#,
    )
    .with("@dies", dies.address())
    .with("@stays", stays.address())
    .start()
    .await;
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut client = gateway.connect("raw").await;
        assert_eq!(client.exactly(1).await, b"x");
        open.push(client);
    }
    dies.stop().await;
    gateway.metric_is("gateway_server_up", &[("server", "dies")], 0.0).await;
    for _ in 0..40 {
        let mut client = gateway.connect("raw").await;
        assert_eq!(client.exactly(1).await, b"x");
    }
}

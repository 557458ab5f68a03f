//! Which server gets a request: proportions, backups, health.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gateway_tests::{Answer, Client, Gateway, HttpServer, Server, eventually, get, refusing};

#[tokio::test]
async fn roundrobin_follows_the_weights() {
    let servers = [
        HttpServer::answering("a").await,
        HttpServer::answering("b").await,
        HttpServer::answering("c").await,
    ];
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            balance "roundrobin"
            server "a" "@a"
            server "b" "@b" weight=2
            server "c" "@c" weight=3
            server "none" "@a" weight=0
        }
    "#,
    )
    .with("@a", servers[0].address())
    .with("@b", servers[1].address())
    .with("@c", servers[2].address())
    .start()
    .await;

    let mut client = gateway.connect("web").await;
    let mut order = String::new();
    for _ in 0..60 {
        order.push_str(client.ask(get("/")).await.text());
    }

    let count = |name| order.matches(name).count();
    assert_eq!((count("a"), count("b"), count("c")), (10, 20, 30), "{order}");
    assert!(!order.contains("ccc"), "the turns are spread: {order}");
}

#[tokio::test]
async fn leastconn_takes_the_least_busy() {
    // Holds each request until the client goes.
    let slow = || HttpServer::start(|_| Answer::nothing().then_stall());
    let (a, b) = (slow().await, slow().await);
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { balance "leastconn"; server "a" "@a"; server "b" "@b" weight=3 }
    "#,
    )
    .with("@a", a.address())
    .with("@b", b.address())
    .start()
    .await;

    let mut clients = Vec::new();
    for n in 1..=40 {
        let mut client = gateway.connect("web").await;
        client.send(get("/").bytes()).await;
        clients.push(client);
        // One after the other, whichever worker has it.
        eventually("the request arrives", async || {
            a.requests().len() + b.requests().len() == n
        })
        .await;
    }

    assert_eq!((a.requests().len(), b.requests().len()), (10, 30));
}

#[tokio::test]
async fn leastconn_counts_tcp_connections() {
    let (a, b) = (Server::greeting("a").await, Server::greeting("b").await);
    // Over all workers, of which each sees some of the clients alone.
    let gateway = Gateway::kdl(
        r#"
        process { workers 4; log "stdout" format="json" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; balance "leastconn"; server "a" "@a"; server "b" "@b" }
    "#,
    )
    .with("@a", a.address())
    .with("@b", b.address())
    .start()
    .await;

    let mut open: Vec<(Vec<u8>, Client)> = Vec::new();
    for _ in 0..20 {
        let mut client = gateway.connect("raw").await;
        open.push((client.exactly(1).await, client));
    }
    assert_eq!((a.connections(), b.connections()), (10, 10));

    // All of a's end: the next ten are a's.
    open.retain(|(name, _)| name == b"b");
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "a")], 0.0)
        .await;
    for _ in 0..10 {
        let mut client = gateway.connect("raw").await;
        open.push((client.exactly(1).await, client));
    }
    assert_eq!((a.connections(), b.connections()), (20, 10));
}

#[tokio::test]
async fn a_request_goes_to_another_server_when_one_refuses() {
    let (dead, _guard) = refusing();
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "dead" "@dead"; server "app" "@app" }
    "#,
    )
    .with("@dead", dead)
    .with("@app", app.address())
    .start()
    .await;

    for n in 0..10 {
        assert_eq!(gateway.ask("web", get("/")).await.status, 200, "request {n}");
    }
}

#[tokio::test]
async fn a_backup_takes_over_and_gives_back() {
    let mut main = HttpServer::answering("main").await;
    let backup = HttpServer::answering("backup").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            check "tcp" interval="100ms" rise=2 fall=2
            server "main" "@main"
            server "spare" "@backup" backup
        }
    "#,
    )
    .with("@main", main.address())
    .with("@backup", backup.address())
    .start()
    .await;
    let answers = async |expected: &str| gateway.ask("web", get("/")).await.text() == expected;

    assert!(answers("main").await);
    assert_eq!(backup.requests().len(), 0);
    main.stop().await;
    gateway.metric_is("gateway_server_up", &[("server", "main")], 0.0).await;
    for _ in 0..5 {
        assert!(answers("backup").await);
    }
    main.resume().await;
    gateway.metric_is("gateway_server_up", &[("server", "main")], 1.0).await;
    for _ in 0..5 {
        assert!(answers("main").await);
    }
}

#[tokio::test]
async fn a_connection_fails_over_in_tcp_mode() {
    let mut main = Server::greeting("main").await;
    let spare = Server::greeting("backup").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            mode "tcp"
            check "tcp" interval="100ms" rise=2 fall=2
            server "main" "@main"
            server "spare" "@spare" backup
        }
    "#,
    )
    .with("@main", main.address())
    .with("@spare", spare.address())
    .start()
    .await;

    assert_eq!(gateway.connect("raw").await.exactly(4).await, b"main");
    main.stop().await;
    gateway.metric_is("gateway_server_up", &[("server", "main")], 0.0).await;
    assert_eq!(gateway.connect("raw").await.exactly(6).await, b"backup");
    main.resume().await;
    gateway.metric_is("gateway_server_up", &[("server", "main")], 1.0).await;
    assert_eq!(gateway.connect("raw").await.exactly(4).await, b"main");
}

#[tokio::test]
async fn an_http_check_asks_for_everything_it_was_told_to_expect() {
    let ready = Arc::new(AtomicBool::new(true));
    let says = Arc::clone(&ready);
    let app = HttpServer::start(
        move |request| match (request.target.as_str(), says.load(Ordering::SeqCst)) {
            ("/health", true) => Answer::ok("all fine, status:ready, uptime 5"),
            ("/health", false) => Answer::ok("status:starting"),
            _ => Answer::ok("app"),
        },
    )
    .await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            check "http" interval="100ms" rise=2 fall=3 {
                send "GET" "/health" host="health.example"
                expect status=200
                expect body-contains="status:ready"
            }
            server "app-1" "@app"
        }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    eventually("a check comes", async || {
        app.requests().iter().any(|request| request.target == "/health")
    })
    .await;
    let check = app
        .requests()
        .into_iter()
        .find(|request| request.target == "/health")
        .unwrap();
    assert_eq!(
        (check.method.as_str(), check.headers.get("host")),
        ("GET", Some("health.example"))
    );
    assert_eq!(gateway.ask("web", get("/")).await.status, 200);

    ready.store(false, Ordering::SeqCst);
    gateway
        .metric_is("gateway_server_up", &[("server", "app-1")], 0.0)
        .await;
    let before = app.requests().iter().filter(|request| request.target == "/").count();
    assert_eq!(gateway.ask("web", get("/")).await.status, 503);
    let after = app.requests().iter().filter(|request| request.target == "/").count();
    assert_eq!(before, after, "a server that is down gets nothing");

    ready.store(true, Ordering::SeqCst);
    gateway
        .metric_is("gateway_server_up", &[("server", "app-1")], 1.0)
        .await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 200);
}

#[tokio::test]
async fn echo_servers_answer_with_what_they_were_asked() {
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "web" }
        backend "web" { server "e" "echo" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "raw" }
        backend "raw" { mode "tcp"; server "e" "echo" }
    "#,
    )
    .start()
    .await;

    let answer = gateway.ask("web", get("/some/path").header("X-Here", "it is")).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.text().contains("/some/path") && answer.text().contains("it is"),
        "{}",
        answer.text()
    );
    let mut client = gateway.connect("raw").await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
}

/// A client's address of its own: all of 127.0.0.0/8 is here.
async fn name_for(gateway: &Gateway, client: [u8; 4]) -> Vec<u8> {
    Client::connect_from(gateway.address("raw"), client)
        .await
        .exactly(1)
        .await
}

#[tokio::test]
async fn source_keeps_a_client_at_its_server() {
    let servers = [
        Server::greeting("a").await,
        Server::greeting("b").await,
        Server::greeting("c").await,
    ];
    for balance in [r#"balance "source""#, r#"balance "source" consistent"#] {
        let gateway = Gateway::kdl(
            r#"
            frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
            backend "app" { mode "tcp"; THE-BALANCE; server "a" "@a"; server "b" "@b"; server "c" "@c" }
        "#,
        )
        .with("THE-BALANCE", balance)
        .with("@a", servers[0].address())
        .with("@b", servers[1].address())
        .with("@c", servers[2].address())
        .start()
        .await;
        let mut seen = Vec::new();
        for last in 1..=30 {
            let name = name_for(&gateway, [127, 0, 7, last]).await;
            for _ in 0..3 {
                assert_eq!(name_for(&gateway, [127, 0, 7, last]).await, name, "{balance}");
            }
            seen.push(name);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3, "every server has clients");
    }
}

#[tokio::test]
async fn random_draws_two_and_takes_the_less_busy() {
    let servers = [Server::greeting("a").await, Server::greeting("b").await];
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; balance "random"; server "a" "@a"; server "b" "@b" }
    "#,
    )
    .with("@a", servers[0].address())
    .with("@b", servers[1].address())
    .start()
    .await;
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut client = gateway.connect("raw").await;
        client.exactly(1).await;
        open.push(client);
    }
    // With two servers both are always drawn, so that it is as even as least connections.
    assert_eq!((servers[0].connections(), servers[1].connections()), (10, 10));
}

#[tokio::test]
async fn all_backups_step_in_together() {
    let (main, _guard) = refusing();
    let spares = [Server::greeting("a").await, Server::greeting("b").await];
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            mode "tcp"
            all-backups
            check "tcp" interval="50ms" rise=1 fall=1
            server "main" "@main"
            server "a" "@a" backup
            server "b" "@b" backup
        }
    "#,
    )
    .with("@main", main)
    .with("@a", spares[0].address())
    .with("@b", spares[1].address())
    .start()
    .await;
    gateway.metric_is("gateway_server_up", &[("server", "main")], 0.0).await;
    let mut seen = Vec::new();
    for _ in 0..10 {
        seen.push(gateway.connect("raw").await.exactly(1).await);
    }
    for spare in [b"a", b"b"] {
        assert!(seen.iter().any(|name| name == spare), "{seen:?}");
    }
}

#[tokio::test]
async fn a_server_that_comes_back_starts_slowly() {
    let mut a = Server::greeting("a").await;
    let b = Server::greeting("b").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            mode "tcp"
            slow-start "1h"
            check "tcp" interval="50ms" rise=1 fall=1
            server "a" "@a"
            server "b" "@b"
        }
    "#,
    )
    .with("@a", a.address())
    .with("@b", b.address())
    .start()
    .await;
    let share_of_a = async || {
        let mut of_a = 0;
        for _ in 0..42 {
            of_a += usize::from(gateway.connect("raw").await.exactly(1).await == b"a");
        }
        of_a
    };
    assert_eq!(share_of_a().await, 21);
    a.stop().await;
    gateway.metric_is("gateway_server_up", &[("server", "a")], 0.0).await;
    a.resume().await;
    gateway.metric_is("gateway_server_up", &[("server", "a")], 1.0).await;
    // One of 21, as 5 in a hundred beside 100.
    let share = share_of_a().await;
    assert!((1..=4).contains(&share), "{share} of 42");
}

/// So many clients of a frontend "raw", each of which a server has echoed something.
async fn echoed(gateway: &Gateway, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = gateway.connect("raw").await;
        client.send("x").await;
        assert_eq!(client.exactly(1).await, b"x");
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn a_server_that_comes_back_has_less_under_way_at_once_at_first() {
    let mut a = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            mode "tcp"
            timeout queue="30s"
            slow-start "1h"
            check "tcp" interval="50ms" rise=1 fall=1
            server "a" "@a" max-connections=20
        }
    "#,
    )
    .with("@a", a.address())
    .start()
    .await;
    drop(echoed(&gateway, 2).await);
    a.stop().await;
    gateway.metric_is("gateway_server_up", &[("server", "a")], 0.0).await;
    a.resume().await;
    gateway.metric_is("gateway_server_up", &[("server", "a")], 1.0).await;

    // 5 in a hundred of 20.
    let first = echoed(&gateway, 1).await;
    let mut second = gateway.connect("raw").await;
    second.send("y").await;
    gateway
        .metric_is("gateway_backend_queue", &[("backend", "app")], 1.0)
        .await;
    drop(first);
    assert_eq!(second.exactly(1).await, b"y");
}

#[tokio::test]
async fn the_sessions_of_a_server_that_goes_down_end_when_told_so() {
    let app = Server::echo().await;
    let web = HttpServer::start(|_| Answer::nothing().then_stall()).await;
    // Health is told by another port, so that the servers themselves say nothing of it.
    let mut probe = Server::greeting("well").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 2; log "stdout" format="json" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            mode "tcp"
            balance "leastconn"
            on-marked-down "shutdown-sessions"
            check "tcp" interval="50ms" rise=1 fall=1 port=THE-PORT
            server "ends" "@app"
            server "stays" "@app" on-marked-down="off"
        }
        frontend "web" { bind "127.0.0.1:0"; default-backend "web" }
        backend "web" {
            check "tcp" interval="50ms" rise=1 fall=1 port=THE-PORT
            server "w" "@web" on-marked-down="shutdown-sessions"
        }
    "#,
    )
    .with("THE-PORT", probe.address().port())
    .with("@app", app.address())
    .with("@web", web.address())
    .start()
    .await;
    let _clients = echoed(&gateway, 4).await;
    for server in ["ends", "stays"] {
        gateway
            .metric_is("gateway_server_in_flight", &[("server", server)], 2.0)
            .await;
    }
    let mut waits = gateway.connect("web").await;
    waits.send(get("/").bytes()).await;
    eventually("the request arrives", async || web.requests().len() == 1).await;

    probe.stop().await;
    assert_eq!(waits.response().await.status, 503);
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "ends")], 0.0)
        .await;
    let log = gateway.access_log(3).await;
    for line in log {
        let expected = if line["frontend"] == "web" { "DH" } else { "DD" };
        assert_eq!(
            (&line["termination"], &line["reason"]),
            (&expected.into(), &"server-down".into()),
            "{line}"
        );
        assert_ne!(line["server"], "stays");
    }
    let left = gateway
        .metrics()
        .await
        .get("gateway_server_in_flight", &[("server", "stays")]);
    assert_eq!(left, Some(2.0));
}

#[tokio::test]
async fn the_sessions_of_backups_end_when_a_server_comes_back_and_says_so() {
    let mut main = Server::greeting("m").await;
    let spare = Server::greeting("s").await;
    let mut quiet = Server::greeting("q").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 2; log "stdout" format="json" }
        defaults { mode "tcp"; on-marked-up "shutdown-backup-sessions" }
        frontend "raw" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            check "tcp" interval="50ms" rise=1 fall=1
            server "main" "@main"
            server "quiet" "@quiet" on-marked-up="off"
            server "spare" "@spare" backup
        }
    "#,
    )
    .with("@main", main.address())
    .with("@quiet", quiet.address())
    .with("@spare", spare.address())
    .start()
    .await;
    let up = async |server: &str, is_up: f64| {
        gateway
            .metric_is("gateway_server_up", &[("server", server)], is_up)
            .await
    };
    main.stop().await;
    quiet.stop().await;
    up("main", 0.0).await;
    up("quiet", 0.0).await;
    let mut on_backup = gateway.connect("raw").await;
    assert_eq!(on_backup.exactly(1).await, b"s");

    // One that says nothing of backups leaves their sessions alone.
    quiet.resume().await;
    up("quiet", 1.0).await;
    let mut on_quiet = gateway.connect("raw").await;
    assert_eq!(on_quiet.exactly(1).await, b"q");
    let left = gateway
        .metrics()
        .await
        .get("gateway_server_in_flight", &[("server", "spare")]);
    assert_eq!(left, Some(1.0));

    main.resume().await;
    up("main", 1.0).await;
    let line = gateway.access_log(1).await.remove(0);
    assert_eq!(
        (&line["server"], &line["termination"], &line["reason"]),
        (&"spare".into(), &"UD".into(), &"backup-relieved".into()),
        "{line}"
    );
    let left = gateway
        .metrics()
        .await
        .get("gateway_server_in_flight", &[("server", "quiet")]);
    assert_eq!(left, Some(1.0), "servers that are no backups keep theirs");
}

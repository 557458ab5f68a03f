//! How servers' health is known: what checks say and expect, where they go, and what failing traffic does.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use gateway_tests::process::limit_descriptors;
use gateway_tests::{Gateway, HttpServer, Server, eventually, get, refusing};
use serde_json::json;

/// What a server says, each after it has read so many bytes.
type Talk = &'static [(usize, &'static [u8])];

/// A backend of one server with this check, written as in the reference; and what its server says: each answer after so
/// many bytes have come.
const PROTOCOLS: &[(&str, &str, Talk)] = &[
    (
        "redis",
        r#"send "PING\r\n"; expect prefix="+PONG""#,
        &[(6, b"+PONG\r\n")],
    ),
    (
        "smtp",
        r#"expect regex="^220[ -]"; send "QUIT\r\n"; expect prefix="221""#,
        &[(0, b"220 mail.example.net ESMTP\r\n"), (6, b"221 2.0.0 Bye\r\n")],
    ),
    (
        "mysql",
        r##"expect regex=#"^(?s:.{3})\x00\x0a"#"##,
        // Length, sequence 0, protocol 10, version; the rest of the greeting does not matter.
        &[(0, b"\x4a\x00\x00\x00\x0a8.0.36\x00\x08\x00\x00\x00")],
    ),
    (
        "postgresql",
        r#"send hex="00000008 04d2162f"; expect regex="^[SN]""#,
        &[(8, b"N")],
    ),
    (
        "ldap",
        r#"send hex="300c 020101 6007 020103 0400 8000"; expect prefix-hex="30 0c 02 01 01 61 07 0a 01 00""#,
        &[(14, b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00")],
    ),
];

#[tokio::test]
async fn protocols_are_asked_in_their_own_words() {
    for (name, steps, talk) in PROTOCOLS {
        let speaks = Arc::new(AtomicBool::new(true));
        let says = Arc::clone(&speaks);
        let server = Server::start(move |mut wire, _| {
            let says = Arc::clone(&says);
            async move {
                for (bytes, answer) in *talk {
                    wire.exactly(*bytes).await?;
                    if !says.load(Ordering::SeqCst) {
                        break;
                    }
                    wire.send(answer).await?;
                }
                wire.rest().await.map(drop)
            }
        })
        .await;
        let gateway = Gateway::kdl(
            r#"
            frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
            backend "app" {
                mode "tcp"
                check "tcp" interval="100ms" rise=2 fall=2 initial="down" { @steps }
                server "s" "@s"
            }
        "#,
        )
        .with("@steps", steps)
        .with("@s", server.address())
        .start()
        .await;

        let up = async |value| gateway.metric_is("gateway_server_up", &[("server", "s")], value).await;
        up(1.0).await;
        // It accepts and says nothing.
        speaks.store(false, Ordering::SeqCst);
        up(0.0).await;
        gateway.says("no answer within 100ms").await;
        speaks.store(true, Ordering::SeqCst);
        up(1.0).await;
        assert!(server.connections() > 4, "{name}");
    }
}

#[tokio::test]
async fn a_server_that_says_something_else_is_down_and_the_log_says_what() {
    let server = Server::greeting("-LOADING Redis is loading the dataset in memory\r\n").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 2 }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            mode "tcp"
            check "tcp" interval="100ms" { send "PING\r\n"; expect prefix="+PONG" }
            server "s" "@s"
        }
    "#,
    )
    .with("@s", server.address())
    .start()
    .await;

    gateway.metric_is("gateway_server_up", &[("server", "s")], 0.0).await;
    gateway
        .metric_is("gateway_server_last_check_passed", &[("server", "s")], 0.0)
        .await;
    gateway
        .says(r#"step 2, expect prefix="+PONG": the server said something else; received "-LOADING Redis"#)
        .await;
    gateway.says("servers_up=0").await;
    assert_eq!(gateway.connect("raw").await.rest().await, b"");
    assert!(server.seen_text().starts_with("PING\r\n"));
}

#[tokio::test]
async fn a_check_may_go_elsewhere() {
    let app = HttpServer::answering("app").await;
    let mut side = HttpServer::answering("side").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            check "http" interval="100ms" rise=1 fall=1 address="127.0.0.1" port=@port { send "GET" "/alive" }
            server "s" "@s"
        }
    "#,
    )
    .with("@s", app.address())
    .with("@port", side.address().port())
    .start()
    .await;

    side.has_seen(2).await;
    assert_eq!(gateway.ask("web", get("/")).await.text(), "app");
    assert!(app.requests().iter().all(|request| request.target == "/"));
    assert_eq!(side.last().headers.get("host"), Some(&*side.address().to_string()));
    side.stop().await;
    gateway.metric_is("gateway_server_up", &[("server", "s")], 0.0).await;
}

#[tokio::test]
async fn a_check_elsewhere_may_begin_as_traffic_does() {
    let app = HttpServer::answering("app").await;
    // Wants to be told of a client before anything else, as the server does.
    let side = Server::start(|mut wire, _| async move {
        let told = wire.exactly(6).await? == b"PROXY ";
        while !wire.exactly(1).await?.ends_with(b"\n") {}
        let asked = wire.exactly(4).await? == b"PING";
        if told && asked {
            wire.send("+PONG\r\n").await?;
        }
        Ok(())
    })
    .await;
    let with = |as_traffic: &str| {
        Gateway::kdl(
            r#"
            frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
            backend "app" {
                check "tcp" interval="100ms" rise=1 fall=1 initial="down" port=@port @as-traffic {
                    send "PING\r\n"
                    expect prefix="+PONG"
                }
                server "s" "@s" send-proxy="v1"
            }
        "#,
        )
        .with("@s", app.address())
        .with("@port", side.address().port())
        .with("@as-traffic", as_traffic)
    };
    let plain = with("").start().await;
    let (failed, up) = ([("server", "s"), ("result", "failed")], [("server", "s")]);
    eventually("a plain check fails", async || {
        plain.metrics().await.get("gateway_server_checks_total", &failed) >= Some(2.0)
    })
    .await;
    assert_eq!(plain.metrics().await.get("gateway_server_up", &up), Some(0.0));

    let gateway = with("as-traffic").start().await;
    gateway.metric_is("gateway_server_up", &up, 1.0).await;
}

#[tokio::test]
async fn a_server_that_traffic_cannot_reach_is_ejected_until_checks_take_it_back() {
    let (dead, guard) = refusing();
    let app = HttpServer::answering("app").await;
    // Checks look at another port, where all is well.
    let side = HttpServer::answering("side").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 2 }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            check "tcp" port=@side interval="10s" fast-interval="200ms" down-interval="300ms" rise=3 fall=3
            observe "connect" error-limit=5 on-error="mark-down"
            server "dead" "@dead"
            server "app" "@app"
        }
    "#,
    )
    .with("@dead", dead)
    .with("@app", app.address())
    .with("@side", side.address().port())
    .start()
    .await;

    for n in 0..20 {
        assert_eq!(gateway.ask("web", get("/")).await.status, 200, "request {n}");
    }
    gateway
        .metric_is("gateway_server_ejections_total", &[("server", "dead")], 1.0)
        .await;
    gateway.says("5 connections of clients in a row failed").await;
    gateway.says("servers_up=1").await;
    gateway
        .metric_is("gateway_server_ejections_total", &[("server", "app")], 0.0)
        .await;
    gateway.metric_is("gateway_server_up", &[("server", "dead")], 1.0).await;
    drop(guard);
}

#[tokio::test]
async fn a_server_that_connections_of_tcp_mode_cannot_reach_is_ejected_too() {
    let (dead, guard) = refusing();
    let app = Server::greeting("app").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            mode "tcp"
            check "tcp" port=@side interval="60s" initial="fully-up"
            observe "connect" error-limit=3 on-error="mark-down"
            server "dead" "@dead"
            server "app" "@app"
        }
    "#,
    )
    .with("@dead", dead)
    .with("@app", app.address())
    .with("@side", app.address().port())
    .start()
    .await;

    for n in 0..6 {
        assert_eq!(gateway.connect("raw").await.exactly(3).await, b"app", "connection {n}");
    }
    gateway.says("3 connections of clients in a row failed").await;
    gateway.metric_is("gateway_server_up", &[("server", "dead")], 0.0).await;
    for (name, count) in [("ejections", 1.0), ("connect_errors", 3.0), ("retries", 3.0)] {
        let name = format!("gateway_server_{name}_total");
        gateway.metric_is(&name, &[("server", "dead")], count).await;
    }
    // Nobody is sent there any more.
    for _ in 0..4 {
        assert_eq!(gateway.connect("raw").await.exactly(3).await, b"app");
    }
    gateway
        .metric_is("gateway_server_connect_errors_total", &[("server", "dead")], 3.0)
        .await;
    drop(guard);
}

#[tokio::test]
async fn a_connection_of_tcp_mode_that_stands_ends_the_row_of_those_that_failed() {
    let mut app = Server::greeting("app").await;
    let side = Server::greeting("side").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            mode "tcp"
            retries 0
            check "tcp" port=@side interval="60s" initial="fully-up"
            observe "connect" error-limit=3 on-error="mark-down"
            server "s" "@app"
        }
    "#,
    )
    .with("@app", app.address())
    .with("@side", side.address().port())
    .start()
    .await;

    let up = [("server", "s")];
    for _ in 0..2 {
        app.stop().await;
        for _ in 0..2 {
            assert!(gateway.connect("raw").await.ends().await);
        }
        app.resume().await;
        assert_eq!(gateway.connect("raw").await.exactly(3).await, b"app");
    }
    gateway.metric_is("gateway_server_connect_errors_total", &up, 4.0).await;
    gateway.metric_is("gateway_server_up", &up, 1.0).await;
    app.stop().await;
    for _ in 0..3 {
        assert!(gateway.connect("raw").await.ends().await);
    }
    gateway.metric_is("gateway_server_up", &up, 0.0).await;
}

#[tokio::test]
async fn a_server_that_begins_down_gets_nothing_before_a_check_has_passed() {
    let (address, guard) = refusing();
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { check "tcp" interval="100ms" rise=2 initial="fully-down"; server "s" "@s" }
    "#,
    )
    .with("@s", address)
    .start()
    .await;

    assert_eq!(gateway.ask("web", get("/")).await.status, 503);
    gateway
        .metric_is("gateway_server_connect_errors_total", &[("server", "s")], 0.0)
        .await;
    drop(guard);
}

#[tokio::test]
async fn who_begins_down_has_not_gone_down() {
    let app = HttpServer::answering("app").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { check "tcp" interval="100ms" initial="down"; server "a" "@a"; server "b" "@a" }
    "#,
    )
    .with("@a", app.address())
    .start()
    .await;

    gateway.says("backend begins without a server").await;
    gateway.says("backend has its first server").await;
    for server in ["a", "b"] {
        gateway.metric_is("gateway_server_up", &[("server", server)], 1.0).await;
        for (to, count) in [("up", 1.0), ("down", 0.0)] {
            let labels = [("server", server), ("to", to)];
            gateway
                .metric_is("gateway_server_transitions_total", &labels, count)
                .await;
        }
    }
    assert!(!gateway.output().contains("no server left"), "{}", gateway.output());
}

#[tokio::test]
async fn an_agent_says_what_its_server_can_bear() {
    let (a, b) = (HttpServer::answering("a").await, HttpServer::answering("b").await);
    let line = Arc::new(Mutex::new("100%\n"));
    let says = Arc::clone(&line);
    let agent = Server::start(move |mut wire, _| {
        let says = Arc::clone(&says);
        async move {
            wire.exactly(5).await?;
            let line = *says.lock().unwrap();
            wire.send(line).await
        }
    })
    .await;
    // B's agent is a port where nothing listens: that changes nothing.
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            agent-check port=@agent interval="100ms" send="load\n"
            server "a" "127.0.0.1:@a"
            server "b" "127.0.0.2:@b"
        }
    "#,
    )
    .with("@agent", agent.address().port())
    .with("@a", a.address().port())
    .with("@b", b.address().port())
    .start()
    .await;
    let say = |text| *line.lock().unwrap() = text;
    let of_a = [("server", "a")];

    say("50% #busy\n");
    gateway
        .metric_is("gateway_server_agent_weight_percent", &of_a, 50.0)
        .await;
    gateway.says("\"reason\":\"busy\"").await;
    say("drain\n");
    gateway.metric_is("gateway_server_agent_state", &of_a, 1.0).await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 503, "b is not there");
    let before = a.requests().len();
    say("ready 100% down#too hot\n");
    gateway.metric_is("gateway_server_agent_state", &of_a, 3.0).await;
    gateway.metric_is("gateway_server_up", &of_a, 0.0).await;
    gateway.says("too hot").await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 503);
    assert_eq!(a.requests().len(), before);
    say("up\n");
    gateway.metric_is("gateway_server_up", &of_a, 1.0).await;
    for to in ["down", "up"] {
        let labels = [("server", "a"), ("to", to)];
        gateway
            .metric_is("gateway_server_transitions_total", &labels, 1.0)
            .await;
    }
    gateway.metric_is("gateway_server_up", &[("server", "b")], 1.0).await;
    gateway
        .metric_is("gateway_server_agent_state", &[("server", "b")], 0.0)
        .await;
    let answer = gateway.ask("web", get("/")).await;
    assert_eq!(answer.text(), "a");
}

#[tokio::test]
async fn an_agent_says_how_much_its_server_has_under_way_at_once() {
    let server = Server::echo().await;
    let line = Arc::new(Mutex::new("maxconn:2\n"));
    let says = Arc::clone(&line);
    let agent = Server::start(move |mut wire, _| {
        let line = *says.lock().unwrap();
        async move { wire.send(line).await }
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            mode "tcp"
            timeout queue="30s"
            agent-check port=@agent interval="50ms"
            server "a" "@a" max-connections=1
        }
    "#,
    )
    .with("@agent", agent.address().port())
    .with("@a", server.address())
    .start()
    .await;
    let max = async |max| {
        gateway
            .metric_is("gateway_server_max_connections", &[("server", "a")], max)
            .await;
    };
    let waiting = async |count| {
        gateway
            .metric_is("gateway_backend_queue", &[("backend", "app")], count)
            .await;
    };

    max(2.0).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = gateway.connect("raw").await;
        client.send("x").await;
        assert_eq!(client.exactly(1).await, b"x");
        clients.push(client);
    }
    let mut third = gateway.connect("raw").await;
    third.send("y").await;
    waiting(1.0).await;
    *line.lock().unwrap() = "maxconn:3\n";
    assert_eq!(third.exactly(1).await, b"y", "it has its turn as soon as there is room");
    gateway.says("\"max_connections\":3").await;

    // A smaller limit ends nothing that is under way, and holds for who comes then.
    *line.lock().unwrap() = "maxconn:1\n";
    max(1.0).await;
    for client in clients.iter_mut().chain([&mut third]) {
        client.send("z").await;
        assert_eq!(client.exactly(1).await, b"z");
    }
    let mut fourth = gateway.connect("raw").await;
    fourth.send("w").await;
    waiting(1.0).await;
    clients.clear();
    // There were three, and there is room when none is left.
    gateway
        .metric_is("gateway_backend_in_flight", &[("backend", "app")], 1.0)
        .await;
    waiting(1.0).await;
    drop(third);
    assert_eq!(fourth.exactly(1).await, b"w");
}

#[test]
fn servers_that_only_an_agent_takes_down_may_have_backups_and_start_slowly() {
    let config = |agent| {
        Gateway::verbatim(
            r#"
            frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
            backend "app" {
                mode "tcp"
                @agent
                slow-start "10s"
                on-marked-down "shutdown-sessions"
                server "a" "127.0.0.1:9001"
                server "b" "127.0.0.1:9002" backup
            }
        "#,
        )
        .with("@agent", agent)
        .check(&[])
    };
    let checked = config("agent-check port=9777");
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    let checked = config("");
    for what in [
        "this backup is never used",
        "`slow-start` does nothing",
        "`on-marked-down` does nothing",
    ] {
        assert!(checked.stdout.contains(what), "{}", checked.stdout);
    }
}

#[tokio::test]
async fn what_the_gateway_lacks_is_not_held_against_servers() {
    let server = HttpServer::answering("a").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            server-close
            retries 0
            check "tcp" interval="50ms" rise=2 fall=1 initial="fully-up"
            observe "connect" error-limit=1 on-error="mark-down"
            server "a" "@a"
        }
    "#,
    )
    .with("@a", server.address())
    .start()
    .await;
    let checks = async |result| {
        let labels = [("server", "a"), ("result", result)];
        let metrics = gateway.metrics().await;
        metrics.get("gateway_server_checks_total", &labels).unwrap_or_default()
    };
    eventually("a check passes", async || checks("passed").await > 0.0).await;
    let mut client = gateway.connect("web").await;
    assert_eq!(client.ask(get("/")).await.text(), "a");

    // From here on, nothing more can be opened.
    let enough = limit_descriptors(gateway.pid(), 3);
    gateway.says("the gateway lacks what connections to servers take").await;
    assert_eq!(client.ask(get("/")).await.status, 503);
    let line = gateway.access_log(2).await.remove(1);
    assert_eq!(
        (&line["termination"], &line["reason"]),
        (&json!("RC"), &json!("out-of-resources")),
        "{line}"
    );
    assert_eq!(line["connect_ms"], json!(null), "{line}");

    limit_descriptors(gateway.pid(), enough);
    let passed = checks("passed").await;
    eventually("checks go on", async || checks("passed").await > passed).await;
    assert_eq!(checks("failed").await, 0.0);
    let metrics = gateway.metrics().await;
    let down = [("server", "a"), ("to", "down")];
    assert_eq!(metrics.get("gateway_server_up", &[("server", "a")]), Some(1.0));
    assert_eq!(
        metrics.get("gateway_server_transitions_total", &down).unwrap_or(0.0),
        0.0,
        "{}",
        metrics.0
    );
    assert_eq!(client.ask(get("/")).await.text(), "a");
}

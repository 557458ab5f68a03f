//! Reloads: what is under way goes on, what is new takes effect at once, what is wrong changes nothing.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gateway_tests::{Builder, Client, Gateway, HttpServer, Server, eventually, get, process, refusing};

/// A gateway whose frontend `web` leads to this server.
fn web(server: SocketAddr) -> Builder {
    let text = r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#;
    Gateway::kdl(text).with("@app", server)
}

#[tokio::test]
async fn the_next_request_of_a_connection_meets_the_new_configuration() {
    let (one, two) = (HttpServer::answering("one").await, HttpServer::answering("two").await);
    let gateway = web(one.address()).start().await;
    let mut client = gateway.connect("web").await;
    assert_eq!(client.ask(get("/")).await.text(), "one");

    assert!(gateway.reload(&web(two.address())).await);
    assert_eq!(client.ask(get("/")).await.text(), "two");
    assert_eq!(gateway.ask("web", get("/")).await.text(), "two");
}

#[tokio::test]
async fn what_is_under_way_ends_under_the_configuration_it_began_with() {
    let (old, new) = (Server::echo().await, Server::greeting("new").await);
    let raw = |address| {
        let text = r#"
            frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
            backend "app" { mode "tcp"; server "app-1" "@app" }
        "#;
        Gateway::kdl(text).with("@app", address)
    };
    let gateway = raw(old.address()).start().await;
    let mut session = gateway.connect("raw").await;
    session.send("before").await;
    assert_eq!(session.exactly(6).await, b"before");

    assert!(gateway.reload(&raw(new.address())).await);
    assert_eq!(gateway.connect("raw").await.exactly(3).await, b"new");
    session.send("after").await;
    assert_eq!(session.exactly(5).await, b"after");
}

#[tokio::test]
async fn a_configuration_that_is_wrong_changes_nothing() {
    let app = HttpServer::answering("app").await;
    let gateway = web(app.address()).start().await;
    let missing_certificate = r#"
        frontend "web" { bind "127.0.0.1:0" { tls cert="none.pem" }; default-backend "app" }
        backend "app" { server "app-1" "127.0.0.1:1" weight=7 }
    "#;
    let other_process = r#"
        process { workers 3; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "127.0.0.1:1" }
    "#;
    let other_log = other_process.replace("json", "text");
    let occupied = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let in_use = r#"
        frontend "web" { bind "@taken"; default-backend "app" }
        backend "app" { server "app-1" "127.0.0.1:1" weight=7 }
    "#;
    let in_use = in_use.replace("@taken", &occupied.local_addr().unwrap().to_string());
    let cases = [
        ("frontend \"web\" { bnd \"127.0.0.1:0\" }", "did you mean `bind`?"),
        (missing_certificate, "none.pem"),
        (
            other_process,
            "`workers` in `process` has changed, which takes a restart",
        ),
        (
            &other_log,
            "`workers`, `log` in `process` has changed, which takes a restart",
        ),
        (&other_log, "was not so at the start"),
        (&in_use, "another process listens there"),
    ];
    for (text, says) in cases {
        assert!(!gateway.reload(&Gateway::kdl(text)).await, "{text}");
        gateway.says(says).await;
        assert_eq!(gateway.ask("web", get("/")).await.text(), "app", "after {text}");
    }
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.get("gateway_server_weight", &[("server", "app-1")]), Some(1.0));
    let refused = [("result", "refused")];
    gateway
        .metric_is("gateway_reloads_total", &refused, cases.len() as f64)
        .await;
}

#[tokio::test]
async fn no_request_is_lost() {
    let (one, two) = (HttpServer::answering("one").await, HttpServer::answering("two").await);
    let gateway = web(one.address()).start().await;
    let address = gateway.address("web");
    let (ends, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let (ends, asked) = (ends.clone(), asked.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                while !ends.load(Ordering::Relaxed) {
                    if n % 2 == 0 {
                        client = Client::connect(address).await;
                    }
                    let response = client.ask(get("/")).await;
                    assert_eq!(response.status, 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    for round in 0..10 {
        let server = if round % 2 == 0 { &two } else { &one };
        assert!(gateway.reload(&web(server.address())).await);
        let before = asked.load(Ordering::Relaxed);
        eventually("requests in between", async || {
            asked.load(Ordering::Relaxed) > before + 20
        })
        .await;
    }
    ends.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(one.requests().len() > 100 && two.requests().len() > 100);
}

#[tokio::test]
async fn binds_come_and_go() {
    let app = HttpServer::answering("app").await;
    let with = |frontends: &str| {
        let text = format!("{frontends}\nbackend \"app\" {{ server \"app-1\" \"@app\" }}");
        Gateway::kdl(&text).with("@app", app.address())
    };
    let [web, other] =
        ["web", "other"].map(|name| format!("frontend \"{name}\" {{ bind \"127.0.0.1:0\"; default-backend \"app\" }}"));
    let gateway = with(&web).start().await;

    assert!(gateway.reload(&with(&format!("{web}\n{other}"))).await);
    let address = gateway.new_address("other");
    assert_eq!(Client::connect(address).await.ask(get("/")).await.text(), "app");
    assert_eq!(gateway.ask("web", get("/")).await.text(), "app");

    // A client of a frontend that goes is served once more, and told to go.
    let mut client = Client::connect(address).await;
    client.ask(get("/")).await;
    assert!(gateway.reload(&with(&web)).await);
    assert_eq!(client.ask(get("/")).await.header("connection"), Some("close"));
    eventually("nothing listens there", async || {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    assert_eq!(gateway.ask("web", get("/")).await.text(), "app");
}

#[tokio::test]
async fn health_counts_and_buckets_are_kept() {
    let app = HttpServer::answering("app").await;
    let (dead, _guard) = refusing();
    let text = r#"
        rate-limit "few" { key "client-ip"; allow "2/h" burst=2 }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        frontend "limited" { bind "127.0.0.1:0"; limit "few"; default-backend "app" }
        backend "app" {
            check "tcp" interval="@interval" rise=1 fall=1
            server "alive" "@app"
            server "dead" "@dead"
        }
    "#;
    let with = |interval: &str| {
        let builder = Gateway::kdl(text).with("@app", app.address()).with("@dead", dead);
        builder.with("@interval", interval)
    };
    let gateway = with("20ms").start().await;
    gateway.metric_is("gateway_server_up", &[("server", "dead")], 0.0).await;
    for status in [200, 200, 429] {
        assert_eq!(gateway.ask("limited", get("/")).await.status, status);
    }

    // No check comes within the test: what is known is from before.
    assert!(gateway.reload(&with("10m")).await);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.get("gateway_server_up", &[("server", "dead")]), Some(0.0));
    assert_eq!(
        metrics.get("gateway_backend_servers_up", &[("backend", "app")]),
        Some(1.0)
    );
    let requests = [("frontend", "limited"), ("code", "2xx")];
    assert_eq!(metrics.get("gateway_frontend_responses_total", &requests), Some(2.0));
    assert_eq!(gateway.ask("limited", get("/")).await.status, 429);
}

#[tokio::test]
async fn a_hundred_reloads_leave_nothing_behind() {
    let (app, raw) = (HttpServer::answering("app").await, Server::echo().await);
    let with = |n: usize| {
        // What three configurations at once may need (the first, for an idle connection; the last; the next) and one to
        // look at: what is left behind is missed soon.
        let text = format!(
            r#"
            process {{ workers 2; log "stdout" format="json"; policy instances=7 }}
            frontend "web" {{
                bind "127.0.0.1:0"
                acl "odd" {{ path-prefix "/odd{n}/" }}
                deny status=403 if="odd"
                default-backend "app-{n}"
            }}
            frontend "raw" {{ mode "tcp"; bind "127.0.0.1:0"; default-backend "raw" }}
            backend "app-{n}" {{ check "tcp" interval="50ms"; server "app-1" "@app" }}
            backend "raw" {{ mode "tcp"; server "raw-1" "@raw" }}
        "#
        );
        Gateway::kdl(&text)
            .with("@app", app.address())
            .with("@raw", raw.address())
    };
    let gateway = with(0).start().await;
    // They stay from the first configuration to the last.
    let (mut session, mut kept) = (gateway.connect("raw").await, gateway.connect("web").await);
    session.send("a").await;
    assert_eq!(session.exactly(1).await, b"a");
    assert_eq!(kept.ask(get("/")).await.status, 200);
    // What has to grow has grown by then.
    for n in 1..=20 {
        assert!(gateway.reload(&with(n)).await);
    }
    let (memory, files) = (gateway.resident(), process::descriptors(gateway.pid()));
    for n in 21..=120 {
        assert!(gateway.reload(&with(n)).await);
        assert_eq!(gateway.ask("web", get(&format!("/odd{n}/"))).await.status, 403);
    }
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.get("gateway_server_up", &[("backend", "app-120")]), Some(1.0));
    eventually("metrics of what is gone are gone", async || {
        let metrics = gateway.metrics().await;
        // All but the one that the idle connection was served by.
        (1..120).all(|n| {
            metrics
                .get("gateway_server_up", &[("backend", &format!("app-{n}"))])
                .is_none()
        })
    })
    .await;
    session.send("b").await;
    assert_eq!(session.exactly(1).await, b"b");
    assert_eq!(kept.ask(get("/")).await.status, 200);
    let (memory_after, files_after) = (gateway.resident(), process::descriptors(gateway.pid()));
    assert!(
        memory_after < memory + (24 << 20),
        "{memory} bytes became {memory_after}"
    );
    assert!(files_after <= files + 4, "{files} open files became {files_after}");
}

#[tokio::test]
async fn a_refusal_in_the_last_step_leaves_nothing_prepared() {
    let app = HttpServer::answering("app").await;
    let with = |more: usize| {
        let frontend = |n: usize| {
            format!(
                r#"frontend "web-{n}" {{
                    bind "127.0.0.1:0"
                    acl "x" {{ path-prefix "/x{n}/" }}
                    deny if="x"
                    default-backend "app"
                }}
                "#
            )
        };
        let text = format!(
            r#"
            process {{ workers 2; log "stdout" format="json"; policy instances=7 }}
            {}
            backend "app" {{ server "app-1" "@app" }}
        "#,
            (0..=more).map(frontend).collect::<String>()
        );
        Gateway::kdl(&text).with("@app", app.address())
    };
    let gateway = with(0).start().await;
    let files = process::descriptors(gateway.pid());
    for _ in 0..3 {
        // Each worker wants four instances more; there is room for those of one.
        assert!(!gateway.reload(&with(3)).await);
        assert_eq!(gateway.ask("web-0", get("/x0/")).await.status, 403);
    }
    eventually("no socket is left", async || {
        process::descriptors(gateway.pid()) <= files
    })
    .await;
    assert!(gateway.reload(&with(0)).await);
    assert!(gateway.reload(&with(1)).await);
    assert_eq!(
        Client::connect(gateway.new_address("web-1"))
            .await
            .ask(get("/x1/"))
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn a_limit_that_a_reload_brings_counts_what_is_open() {
    let app = Server::echo().await;
    let with = |limit: &str| {
        let text = format!(
            r#"
            frontend "raw" {{ mode "tcp"; bind "127.0.0.1:0"; default-backend "app"; {limit} }}
            backend "app" {{ mode "tcp"; server "app-1" "@app" }}
        "#
        );
        Gateway::kdl(&text).with("@app", app.address())
    };
    let gateway = with("").start().await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut client = gateway.connect("raw").await;
        client.send("a").await;
        client.exactly(1).await;
        open.push(client);
    }
    assert!(gateway.reload(&with("max-connections 3")).await);
    let mut late = gateway.connect("raw").await;
    late.send("b").await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(app.connections(), 4);
    open.truncate(2);
    assert_eq!(late.exactly(1).await, b"b");
}

#[tokio::test]
async fn a_bind_may_change_its_address_on_the_same_port() {
    let app = HttpServer::answering("app").await;
    let port = gateway_tests::peer::free_address().port();
    let with = |host: &str| {
        let text = format!(
            r#"
            frontend "web" {{ bind "{host}:{port}"; default-backend "app" }}
            backend "app" {{ server "app-1" "@app" }}
        "#
        );
        Gateway::kdl(&text).with("@app", app.address())
    };
    let gateway = with("0.0.0.0").start().await;
    assert!(gateway.reload(&with("127.0.0.1")).await);
    assert_eq!(gateway.ask("web", get("/")).await.text(), "app");
}

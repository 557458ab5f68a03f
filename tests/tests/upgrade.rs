//! Upgrades: a handshake that is a request like any other, and the tunnel after it (RFC 9110, section 7.8).

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::{Duration, Instant};

use gateway_tests::tls::Authority;
use gateway_tests::{Answer, Client, Gateway, HttpServer, RequestText, Server, eventually, get, post};

const PLAIN: &str = r#"
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { server "app-1" "@app" }
"#;

const LIMIT: Duration = Duration::from_millis(300);

/// What a browser sends.
fn websocket(target: &str) -> RequestText {
    get(target)
        .header("Connection", "keep-alive, Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Extensions", "permessage-deflate")
}

/// A server that agrees to what it is asked for, and sends back what comes then.
async fn agreeing() -> HttpServer {
    HttpServer::start(|request| match request.headers.get("upgrade") {
        Some(protocol) => Answer::switching(protocol)
            .header("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            .then_echo(),
        None => Answer::ok("ordinary"),
    })
    .await
}

/// Goes over to another protocol.
async fn switch(client: &mut Client, request: RequestText) {
    client.send(request.bytes()).await;
    let answer = client.response_head().await;
    assert_eq!(answer.status, 101, "{:?}", String::from_utf8_lossy(&answer.raw));
}

async fn tunnel(gateway: &Gateway) -> Client {
    let mut client = gateway.connect("web").await;
    switch(&mut client, websocket("/")).await;
    client
}

async fn talk(client: &mut Client) {
    client.send("ping").await;
    assert_eq!(client.exactly(4).await, b"ping");
}

#[tokio::test]
async fn a_handshake_and_what_follows_it_pass_through() {
    let app = agreeing().await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let mut client = gateway.connect("web").await;
    client.send(websocket("/chat?room=1").bytes()).await;
    let answer = client.response_head().await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("connection"), Some("upgrade"));
    assert_eq!(
        answer.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(answer.header("content-length"), None);
    assert_eq!(answer.header("transfer-encoding"), None);
    talk(&mut client).await;
    client.send("\0\r\n\r\nGET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.exactly(23).await, b"\0\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    // The end of one side is carried to the other, which goes on by itself.
    client.half_close().await;
    assert_eq!(client.rest().await, b"");

    let seen = app.last();
    assert_eq!((&*seen.method, &*seen.target), ("GET", "/chat?room=1"));
    assert_eq!(seen.headers.get("upgrade"), Some("websocket"));
    assert_eq!(seen.headers.get("connection"), Some("upgrade"));
    for (name, value) in [
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-extensions", "permessage-deflate"),
    ] {
        assert_eq!(seen.headers.get(name), Some(value));
    }
    let line = gateway.access_log(1).await.remove(0);
    assert_eq!(
        (&line["status"], &line["termination"]),
        (&101.into(), &"--".into()),
        "{line}"
    );
    assert_eq!(
        (&line["server"], &line["bytes_sent"]),
        (&"app-1".into(), &27.into()),
        "{line}"
    );
    let received = line["bytes_received"].as_u64().unwrap();
    assert_eq!(received, 27 + websocket("/chat?room=1").bytes().len() as u64, "{line}");
}

#[tokio::test]
async fn bytes_that_come_together_with_a_head_are_not_lost() {
    let app = HttpServer::start(|_| Answer::switching("websocket").then_send("welcome").then_echo()).await;
    // The server's come in one segment with its head.
    let whole = "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nwelcome";
    let at_once = HttpServer::start(move |_| Answer::raw(whole).then_echo()).await;
    for app in [app, at_once] {
        let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
        for early in [1, 1_000, 40_000] {
            let mut client = gateway.connect("web").await;
            let mut bytes = websocket("/").bytes();
            bytes.extend((0..early).map(|i| (i % 251) as u8));
            client.send(bytes).await;
            assert_eq!(client.response_head().await.status, 101);
            assert_eq!(client.exactly(7).await, b"welcome");
            let expected: Vec<u8> = (0..early).map(|i| (i % 251) as u8).collect();
            assert!(client.exactly(early).await == expected, "{early} early bytes");
            talk(&mut client).await;
        }
    }
}

#[tokio::test]
async fn rules_apply_to_the_handshake() {
    let (app, chat) = (agreeing().await, agreeing().await);
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            forwarded-for
            acl "is-websocket" { header "Upgrade" "websocket"; header "Connection" "upgrade" }
            acl "is-closed" { path-prefix "/closed" }
            deny status=403 if="is-websocket and is-closed"
            use-backend "chat" if="is-websocket"
            default-backend "app"
        }
        backend "app" { server "a" "@app" }
        backend "chat" {
            request { set-header "X-Pool" "chat"; rewrite-path prefix="/ws/" to="/" }
            response { set-header "X-From" "chat" }
            server "c" "@chat"
        }
    "#,
    )
    .with("@app", app.address())
    .with("@chat", chat.address())
    .start()
    .await;

    assert_eq!(gateway.ask("web", websocket("/closed/door")).await.status, 403);
    assert_eq!(gateway.ask("web", get("/closed/door")).await.text(), "ordinary");
    let mut client = gateway.connect("web").await;
    client.send(websocket("/ws/room").bytes()).await;
    let answer = client.response_head().await;
    assert_eq!((answer.status, answer.header("x-from")), (101, Some("chat")));
    talk(&mut client).await;
    let seen = chat.last();
    assert_eq!((&*seen.target, seen.headers.get("x-pool")), ("/room", Some("chat")));
    assert_eq!(seen.headers.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!((app.requests().len(), chat.requests().len()), (1, 1));
}

#[tokio::test]
async fn what_is_no_upgrade_is_an_ordinary_request() {
    let app = agreeing().await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        frontend "some" { bind "127.0.0.1:0"; upgrades "WebSocket" "irc/6.9"; default-backend "app" }
        frontend "none" { bind "127.0.0.1:0"; upgrades "off"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let asking = |request: RequestText, connection: &str, upgrade: &str| {
        request.header("Connection", connection).header("Upgrade", upgrade)
    };
    // By frontend: what is asked for, and what of it the server sees.
    let cases = [
        ("web", asking(get("/"), "upgrade", "anything/1"), Some("anything/1")),
        ("web", asking(get("/"), "keep-alive", "websocket"), None),
        ("web", asking(get("/"), "Upgrade, HTTP2-Settings", "h2c"), None),
        ("web", asking(get("/"), "Upgrade", "HTTP/2.0"), None),
        ("web", asking(get("/"), "Upgrade", "h2c, websocket"), Some("websocket")),
        ("web", get("/").header("Connection", "upgrade"), None),
        ("web", asking(post("/", "body"), "upgrade", "websocket"), None),
        ("some", asking(get("/"), "upgrade", "websocket"), Some("websocket")),
        ("some", asking(get("/"), "upgrade", "IRC/6.9"), Some("IRC/6.9")),
        ("some", asking(get("/"), "upgrade", "irc/7"), None),
        (
            "some",
            asking(get("/"), "upgrade", "irc/7, websocket"),
            Some("websocket"),
        ),
        ("none", asking(get("/"), "upgrade", "websocket"), None),
    ];
    for (frontend, request, expected) in cases {
        let shown = String::from_utf8(request.bytes()).unwrap();
        let request = request.header("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA");
        let before = app.requests().len();
        let mut client = gateway.connect(frontend).await;
        client.send(request.bytes()).await;
        let answer = client.response_head().await;
        assert_eq!(answer.status, if expected.is_some() { 101 } else { 200 }, "{shown}");
        let seen = app.last();
        assert_eq!(app.requests().len(), before + 1, "{shown}");
        assert_eq!(seen.headers.get("upgrade"), expected, "{shown}");
        assert_eq!(
            seen.headers.get("http2-settings").is_some(),
            !shown.contains("Upgrade:"),
            "{shown}"
        );
        if expected.is_some() {
            talk(&mut client).await;
        } else {
            assert_eq!(seen.headers.get("connection"), None, "{shown}");
            assert_eq!(client.exactly(8).await, b"ordinary");
            assert_eq!(client.ask(get("/")).await.text(), "ordinary", "{shown}");
        }
    }
    // HTTP/1.0 knows no upgrades.
    let old = "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert!(gateway.raw("web", old).await.ends_with("\r\n\r\nordinary"));
    assert_eq!(app.last().headers.get("upgrade"), None);
}

#[tokio::test]
async fn a_server_may_not_change_the_protocol_by_itself() {
    let cases: &[(&str, RequestText, &str)] = &[
        (
            "nobody asked",
            get("/"),
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
        ),
        ("to another", websocket("/"), "Connection: upgrade\r\nUpgrade: h2c\r\n"),
        (
            "to another, too",
            websocket("/"),
            "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
        ),
        ("to what", websocket("/"), "Connection: upgrade\r\n"),
        ("not for this hop", websocket("/"), "Upgrade: websocket\r\n"),
    ];
    for (what, request, fields) in cases {
        let head = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\nhello");
        let app = HttpServer::start(move |_| Answer::raw(&head).then_stall()).await;
        let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
        let mut client = gateway.connect("web").await;
        let answer = client.ask(get("/").host("a")).await;
        assert_eq!(answer.status, 502, "{what}");
        client.send(request.bytes()).await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.text()), (502, "502 Bad Gateway\n"), "{what}");
        // Not one of the server's connections was used again.
        assert_eq!(app.connections(), 2, "{what}");
        let lines = gateway.access_log(2).await;
        for line in lines {
            assert_eq!(
                (&line["reason"], &line["termination"]),
                (&"bad-upgrade".into(), &"PH".into())
            );
        }
    }
}

#[tokio::test]
async fn a_server_may_answer_otherwise() {
    let app = HttpServer::start(|request| match &*request.target {
        "/426" => Answer::status(426)
            .header("Connection", "upgrade")
            .header("Upgrade", "h2c, websocket")
            .body("please"),
        _ => Answer::ok("no")
            .header("Connection", "upgrade")
            .header("Upgrade", "h2c, websocket"),
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let mut client = gateway.connect("web").await;
    let answer = client.ask(websocket("/")).await;
    assert_eq!(
        (answer.status, answer.text(), answer.header("upgrade")),
        (200, "no", None)
    );
    let answer = client.ask(websocket("/426")).await;
    assert_eq!((answer.status, answer.text()), (426, "please"));
    assert_eq!(
        (answer.header("upgrade"), answer.header("connection")),
        (Some("websocket"), Some("upgrade"))
    );
    // Both connections go on with HTTP.
    assert_eq!(client.ask(get("/")).await.text(), "no");
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_handshake_keeps_its_status_whatever_edits_say() {
    let app = agreeing().await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            response { set-status 404; set-header "X-Edited" "yes" }
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    client.send(websocket("/").bytes()).await;
    let answer = client.response_head().await;
    assert_eq!((answer.status, answer.header("x-edited")), (101, Some("yes")));
    talk(&mut client).await;

    assert_eq!(gateway.ask("web", get("/")).await.status, 404);
}

#[tokio::test]
async fn an_idle_tunnel_has_its_own_timeout() {
    let app = agreeing().await;
    let raw = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        defaults { mode "http"; timeout client="300ms" server="300ms" connect="5s" }
        frontend "web"  { bind "127.0.0.1:0"; timeout tunnel="900ms"; default-backend "app" }
        frontend "own"  { bind "127.0.0.1:0"; timeout tunnel="20s"; use-backend "app" { path-prefix "/app/" }; default-backend "own" }
        frontend "none" { bind "127.0.0.1:0"; default-backend "app" }
        frontend "raw"  { mode "tcp"; bind "127.0.0.1:0"; default-backend "raw" }
        backend "app" { server "a" "@app" }
        backend "own" { timeout tunnel="900ms"; server "a" "@app" }
        backend "raw" { mode "tcp"; timeout tunnel="900ms"; server "r" "@raw" }
    "#,
    )
    .with("@app", app.address())
    .with("@raw", raw.address())
    .start()
    .await;
    let tunnel = Duration::from_millis(900);
    for (n, (frontend, limit)) in [("web", tunnel), ("own", tunnel), ("raw", tunnel), ("none", LIMIT)]
        .into_iter()
        .enumerate()
    {
        let mut client = gateway.connect(frontend).await;
        if frontend != "raw" {
            switch(&mut client, websocket("/")).await;
        }
        // Five silences of a third are longer than the limit together.
        for _ in 0..5 {
            talk(&mut client).await;
            tokio::time::sleep(limit / 3).await;
        }
        talk(&mut client).await;
        let start = Instant::now();
        client.closed().await;
        let took = start.elapsed();
        assert!(
            took >= limit - Duration::from_millis(20) && took < limit * 10,
            "{frontend}: {took:?}"
        );
        let line = gateway.access_log(n + 1).await.remove(n);
        assert_eq!(line["termination"], "cD", "{line}");
    }
}

#[tokio::test]
async fn a_tunnel_is_counted_and_holds_its_place() {
    let app = agreeing().await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            balance "leastconn"
            timeout queue="10s"
            server "one" "@app" max-connections=1
            server "two" "@app" max-connections=2
        }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut tunnels = Vec::new();
    for _ in 0..3 {
        tunnels.push(tunnel(&gateway).await);
    }
    for (server, n) in [("one", 1.0), ("two", 2.0)] {
        gateway
            .metric_is("gateway_server_in_flight", &[("server", server)], n)
            .await;
    }
    gateway
        .metric_is("gateway_frontend_current_connections", &[("frontend", "web")], 3.0)
        .await;
    talk(&mut tunnels[0]).await;
    // Who comes now waits until one ends.
    let mut waits = gateway.connect("web").await;
    waits.send(get("/").bytes()).await;
    gateway
        .metric_is("gateway_backend_queue", &[("backend", "app")], 1.0)
        .await;
    assert!(gateway.access_lines().is_empty(), "a tunnel is logged at its end");
    drop(tunnels.pop());
    assert_eq!(waits.response().await.text(), "ordinary");
    drop(tunnels);
    drop(waits);
    for server in ["one", "two"] {
        gateway
            .metric_is("gateway_server_in_flight", &[("server", server)], 0.0)
            .await;
    }
    assert_eq!(gateway.access_log(4).await.len(), 4);
}

#[tokio::test]
async fn a_tunnel_ends_with_its_server_when_told_so() {
    let app = agreeing().await;
    let mut probe = Server::greeting("well").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            on-marked-down "shutdown-sessions"
            check "tcp" interval="50ms" rise=1 fall=1 port=THE-PORT
            server "app-1" "@app"
        }
    "#,
    )
    .with("THE-PORT", probe.address().port())
    .with("@app", app.address())
    .start()
    .await;
    let mut client = tunnel(&gateway).await;
    talk(&mut client).await;
    probe.stop().await;
    assert!(client.ends().await);
    let line = gateway.access_log(1).await.remove(0);
    assert_eq!(
        (&line["status"], &line["termination"], &line["reason"]),
        (&101.into(), &"DD".into(), &"server-down".into()),
        "{line}"
    );
}

#[tokio::test]
async fn a_tunnel_outlives_reloads_and_holds_no_configuration() {
    let app = agreeing().await;
    let with = |n: usize| {
        let text = format!(
            r#"
            process {{ workers 1; log "stdout" format="json"; policy instances=4 }}
            frontend "web" {{
                bind "127.0.0.1:0"
                acl "odd" {{ path-prefix "/odd{n}/" }}
                deny status=403 if="odd"
                default-backend "app"
            }}
            backend "app" {{ server "app-1" "@app" }}
        "#
        );
        Gateway::kdl(&text).with("@app", app.address())
    };
    let gateway = with(0).start().await;
    let mut tunnels = Vec::new();
    for n in 1..=12 {
        tunnels.push(tunnel(&gateway).await);
        assert!(gateway.reload(&with(n)).await);
        let odd = get(&format!("/odd{n}/"));
        assert_eq!(gateway.ask("web", odd).await.status, 403, "its components have room");
    }
    for client in &mut tunnels {
        talk(client).await;
    }
}

#[tokio::test]
async fn tunnels_are_waited_for_at_the_end_and_then_cut_off() {
    let app = agreeing().await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; drain-timeout "700ms"; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let (mut ends, mut stays) = (tunnel(&gateway).await, tunnel(&gateway).await);
    gateway.terminate();
    gateway.says("draining").await;
    talk(&mut ends).await;
    ends.half_close().await;
    assert_eq!(ends.rest().await, b"");
    talk(&mut stays).await;
    assert!(stays.ends().await);
    let stopped = gateway.stopped().await;
    let log = |termination: &str| {
        let termination = format!("\"termination\":\"{termination}\"");
        stopped
            .output
            .lines()
            .filter(|line| line.contains(&termination))
            .count()
    };
    assert_eq!((log("--"), log("KD")), (1, 1), "{}", stopped.output);
}

#[tokio::test]
async fn a_bulk_tunnel_is_spliced_when_both_sides_are_plain() {
    let authority = Authority::new();
    let app = HttpServer::start(|_| Answer::switching("bulk").then_stream(32 << 20).then_close()).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        frontend "tls" { bind "127.0.0.1:0" { tls cert="bundle.pem" }; default-backend "app" }
        backend "app" { server-close; server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("bundle.pem", authority.issue(&["ws.example"]).bundle())
    .start()
    .await;
    let asking = || get("/").header("Connection", "upgrade").header("Upgrade", "bulk");
    let spliced = async || {
        gateway
            .metrics()
            .await
            .get("gateway_relay_spliced_bytes_total", &[])
            .unwrap()
    };

    let mut client = Client::connect_tls(gateway.address("tls"), "ws.example", authority.certificate()).await;
    switch(&mut client, asking()).await;
    assert_eq!(client.skip(u64::MAX).await, 32 << 20);
    drop(client);
    assert_eq!(spliced().await, 0.0);

    let mut client = gateway.connect("web").await;
    switch(&mut client, asking()).await;
    assert_eq!(client.skip(u64::MAX).await, 32 << 20);
    drop(client);
    eventually("the kernel moves it", async || spliced().await > f64::from(16 << 20)).await;
    for line in gateway.access_log(2).await {
        assert_eq!(
            (&line["bytes_sent"], &line["termination"]),
            (&(32 << 20).into(), &"--".into())
        );
    }
}

#[tokio::test]
async fn tls_on_either_side_carries_a_tunnel_and_its_end() {
    let authority = Authority::new();
    let app = agreeing().await;
    let gateway = Gateway::kdl(
        r#"
        frontend "tls" { bind "127.0.0.1:0" { tls cert="bundle.pem" }; default-backend "inner" }
        backend "inner" { server "i" "@inner" { tls ca="ca.pem" sni="ws.example" } }
    "#,
    );
    let inner = Gateway::kdl(
        r#"
        frontend "tls" { bind "127.0.0.1:0" { tls cert="bundle.pem" }; default-backend "app" }
        backend "app" { server "a" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("bundle.pem", authority.issue(&["ws.example"]).bundle())
    .start()
    .await;
    let gateway = gateway
        .with("@inner", inner.address("tls"))
        .file("bundle.pem", authority.issue(&["ws.example"]).bundle())
        .file("ca.pem", authority.pem())
        .start()
        .await;
    let connect = || Client::connect_tls(gateway.address("tls"), "ws.example", authority.certificate());
    let mut client = connect().await;
    switch(&mut client, websocket("/")).await;
    talk(&mut client).await;
    client.send(vec![b'x'; 1 << 20]).await;
    assert_eq!(client.skip(1 << 20).await, 1 << 20);
    client.half_close().await;
    assert_eq!(client.rest().await, b"", "an end that TLS has said");

    // Who was refused the upgrade is told of the end as well: without that, TLS has been cut short.
    let mut client = connect().await;
    let refused = get("/").header("Upgrade", "h2c").header("Connection", "close");
    client.send(refused.bytes()).await;
    assert!(client.rest().await.ends_with(b"ordinary"));
}

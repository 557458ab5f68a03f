//! WebSockets over HTTP/2 to servers: extended CONNECT (RFC 8441), from clients of either version.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gateway_tests::http2::{Http2Client, Http2Exchange, Http2Server, drain, read};
use gateway_tests::{Answer, Client, Gateway, HttpServer, PATIENCE, RequestText, eventually, get, guest, post, within};
use http::{Request, Response};

/// What a browser sends, and the proof that RFC 6455, section 1.3 has for its key.
fn websocket(target: &str) -> RequestText {
    get(target)
        .host("chat.example")
        .header("Connection", "keep-alive, Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Protocol", "talk")
}

const PROOF: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn over_http2(path: &str) -> Request<()> {
    let request = Request::connect(format!("http://chat.example{path}"))
        .extension(h2::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "talk");
    request.body(()).unwrap()
}

/// Sends back what comes through a tunnel, and answers other requests.
async fn echo(mut exchange: Http2Exchange) -> Result<(), h2::Error> {
    let protocol = exchange.request.extensions().get::<h2::ext::Protocol>().cloned();
    let (Some(protocol), "/chat") = (protocol, exchange.request.uri().path()) else {
        let is_tunnel = exchange.request.method() == http::Method::CONNECT;
        let response = Response::builder().status(if is_tunnel { 403 } else { 200 });
        let mut stream = exchange.respond.send_response(response.body(()).unwrap(), false)?;
        return stream.send_data("ordinary".into(), true);
    };
    assert_eq!(
        (protocol.as_str(), exchange.request.method()),
        ("websocket", &http::Method::CONNECT)
    );
    let response = Response::builder().header("sec-websocket-protocol", "talk");
    let mut stream = exchange.respond.send_response(response.body(()).unwrap(), false)?;
    let body = exchange.request.body_mut();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        stream.send_data(piece, false)?;
    }
    stream.send_data(Bytes::new(), true)
}

/// A server that takes extended CONNECT.
async fn taking() -> Http2Server {
    let settings = |builder: &mut h2::server::Builder| {
        builder.enable_connect_protocol();
    };
    Http2Server::start_with(settings, None, echo).await
}

const GATEWAY: &str = r#"
    process { workers 1; log "stdout" format="json" }
    frontend "web" { bind "127.0.0.1:0"; default-backend "chat" }
    backend "chat" { server "chat-1" "@chat" h2 }
"#;

async fn before(address: impl std::fmt::Display) -> Gateway {
    Gateway::kdl(GATEWAY).with("@chat", address).start().await
}

/// A conversation of some bytes and one that is larger than any window, and the end of both sides.
async fn talk(client: &mut Client) {
    client.send("ping").await;
    assert_eq!(client.exactly(4).await, b"ping");
    let much: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    for piece in much.chunks(30_000) {
        client.send(piece).await;
        assert_eq!(client.exactly(piece.len()).await, piece);
    }
    client.half_close().await;
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn a_websocket_of_http_1_goes_to_a_server_of_http_2() {
    let chat = taking().await;
    let gateway = before(chat.address()).await;
    // Twice: before and after the server's SETTINGS are known.
    for _ in 0..2 {
        let mut client = gateway.connect("web").await;
        client.send(websocket("/chat?room=1").bytes()).await;
        let answer = client.response_head().await;
        assert_eq!(answer.status, 101, "{:?}", String::from_utf8_lossy(&answer.raw));
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(answer.header("connection"), Some("upgrade"));
        assert_eq!(answer.header("sec-websocket-accept"), Some(PROOF));
        assert_eq!(answer.header("sec-websocket-protocol"), Some("talk"));
        talk(&mut client).await;
    }
    let seen = chat.last();
    assert_eq!(seen.uri().to_string(), "http://chat.example/chat?room=1");
    for gone in ["upgrade", "connection", "sec-websocket-key", "content-length", "host"] {
        assert!(!seen.headers().contains_key(gone), "{gone}");
    }
    assert_eq!(seen.headers()["sec-websocket-version"], "13");
    assert_eq!(chat.connections(), 1);
    for line in gateway.access_log(2).await {
        assert_eq!((&line["status"], &line["termination"]), (&101.into(), &"--".into()));
    }
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "chat-1")], 0.0)
        .await;
}

#[tokio::test]
async fn a_websocket_of_http_2_goes_to_a_server_of_http_2() {
    let chat = taking().await;
    let gateway = before(chat.address()).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    assert_eq!(client.get("/").await.text(), "ordinary");
    let (response, mut stream) = client.open(over_http2("/chat"), false).await;
    let response = within(PATIENCE, "the answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "talk");
    for of_http_1 in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!response.headers().contains_key(of_http_1), "{of_http_1}");
    }
    let mut content = response.into_body();
    for n in 0..10 {
        let said = format!("frame {n}");
        stream.send_data(said.clone().into(), false).unwrap();
        let heard = within(PATIENCE, "its echo", content.data()).await.unwrap().unwrap();
        content.flow_control().release_capacity(heard.len()).unwrap();
        assert_eq!(heard, said);
        // Beside it, both connections serve requests.
        assert_eq!(client.get("/").await.text(), "ordinary");
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(within(PATIENCE, "the end", drain(&mut content)).await.unwrap(), b"");
    assert_eq!(chat.connections(), 1);

    // What the server refuses is an ordinary answer.
    let (response, _stream) = client.open(over_http2("/no"), false).await;
    let answer = within(PATIENCE, "the answer", read(response)).await.unwrap();
    assert_eq!((answer.status, answer.text()), (403, "ordinary"));
}

#[tokio::test]
async fn a_server_that_takes_none_costs_the_handshake_and_nothing_else() {
    let chat = Http2Server::start(echo).await;
    let gateway = before(chat.address()).await;
    for _ in 0..2 {
        let answer = gateway.ask("web", websocket("/chat")).await;
        assert_eq!(answer.status, 502);
        assert_eq!(gateway.ask("web", get("/")).await.text(), "ordinary");
    }
    let client = Http2Client::connect(gateway.address("web")).await;
    let (response, _stream) = client.open(over_http2("/chat"), false).await;
    assert_eq!(within(PATIENCE, "the answer", response).await.unwrap().status(), 502);
    let lines = gateway.access_log(5).await;
    let refused = lines.iter().filter(|line| line["status"] == 502);
    let reasons: Vec<_> = refused.map(|line| (&line["reason"], &line["termination"])).collect();
    assert_eq!(reasons, [(&"no-extended-connect".into(), &"PH".into()); 3]);
    // The server was sent none of them.
    assert!(
        chat.requests()
            .iter()
            .all(|request| request.method() == http::Method::GET)
    );
    assert_eq!(chat.connections(), 1);
}

#[tokio::test]
async fn two_gateways_carry_a_websocket_between_them_over_http_2() {
    let app = HttpServer::start(|request| match request.headers.get("upgrade") {
        Some(protocol) => Answer::switching(protocol)
            .header("Sec-WebSocket-Accept", "the gateway's own key is answered")
            .header("Sec-WebSocket-Protocol", "talk")
            .then_echo(),
        None => Answer::ok("ordinary"),
    })
    .await;
    let inner = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let outer = before(inner.address("web")).await;
    let mut client = outer.connect("web").await;
    client.send(websocket("/chat").bytes()).await;
    let answer = client.response_head().await;
    assert_eq!(
        (answer.status, answer.header("sec-websocket-accept")),
        (101, Some(PROOF))
    );
    talk(&mut client).await;
    let seen = app.last();
    assert_eq!((&*seen.method, seen.headers.get("host")), ("GET", Some("chat.example")));
    assert_eq!(seen.headers.get("sec-websocket-protocol"), Some("talk"));
}

/// It is an upgrade to servers and rules, but it has not come over HTTP/1.1.
#[tokio::test]
async fn a_websocket_of_http_2_is_of_its_version_for_rules_and_edits() {
    let app = HttpServer::start(|_| Answer::switching("websocket").then_stall()).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            deny status=403 { http-version "2"; path "/shut" }
            request { set-header "X-Version" "%{http-version}" }
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let client = Http2Client::connect(gateway.address("web")).await;
    let (response, _stream) = client.open(over_http2("/shut"), false).await;
    assert_eq!(within(PATIENCE, "the answer", response).await.unwrap().status(), 403);
    let (response, _stream) = client.open(over_http2("/open"), false).await;
    assert_eq!(within(PATIENCE, "the answer", response).await.unwrap().status(), 200);
    let seen = app.last();
    assert_eq!((&*seen.target, seen.headers.get("x-version")), ("/open", Some("2")));
}

/// To its client it would say that the tunnel is there, and what follows be taken for what comes through it (RFC 8441, section 5).
#[tokio::test]
async fn nobody_but_a_server_that_goes_over_says_that_a_tunnel_is_there() {
    let app = HttpServer::start(|_| Answer::status(404).body("no chat")).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "shut" { path "/shut" }
            monitor "/well"
            return status=200 if="shut" { body "nobody here" }
            redirect location="/chat" { path "/old" }
            response { set-status 200 if-status="404" }
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let client = Http2Client::connect(gateway.address("web")).await;
    for (path, status) in [("/shut", 502), ("/well", 502), ("/made-well", 502), ("/old", 302)] {
        let (response, _stream) = client.open(over_http2(path), false).await;
        let response = within(PATIENCE, "the answer", response).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
    }
    // To others it goes as it is written.
    assert_eq!(client.get("/shut").await.text(), "nobody here");
    assert_eq!(gateway.ask("web", websocket("/shut")).await.status, 200);
    let lines = gateway.access_log(4).await;
    let refused = lines.iter().filter(|line| line["status"] == 502);
    assert!(
        refused.into_iter().all(|line| line["reason"] == "bad-upgrade"),
        "{lines:?}"
    );
}

/// Nor a plugin that is asked about what the gateway answers.
#[tokio::test]
async fn no_plugin_with_always_says_that_a_tunnel_is_there() {
    let replies = guest::filter("(call $none)", "(return (call $reply (i32.const 200) (i32.const 0)))");
    let gateway = Gateway::kdl(
        r#"
        plugin "well" "well.wasm" { limit cpu="1s"; on-failure "deny" status=503 }
        frontend "web" {
            bind "127.0.0.1:0"
            deny status=403 { path "/shut" }
            redirect location="/chat" { path "/old" }
            use-plugin "well" always
            use-backend "app" { path "/served" }
        }
        backend "app" { server "s" "127.0.0.1:1" }
    "#,
    )
    .file("well.wasm", replies)
    .start()
    .await;
    let client = Http2Client::connect(gateway.address("web")).await;
    for (path, status) in [("/shut", 403), ("/old", 302), ("/nowhere", 404)] {
        let (response, _stream) = client.open(over_http2(path), false).await;
        let response = within(PATIENCE, "the answer", response).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(gateway.ask("web", get(path)).await.status, 200, "{path}");
    }
}

/// The server's window for a connection has room for one stream's.
#[tokio::test]
async fn a_websocket_that_is_not_read_holds_up_no_uploads() {
    let is_full = Arc::new(AtomicUsize::new(0));
    let settings = |builder: &mut h2::server::Builder| {
        builder.enable_connect_protocol();
    };
    let chat = Http2Server::start_with(settings, None, {
        let is_full = is_full.clone();
        move |mut exchange: Http2Exchange| {
            let is_full = is_full.clone();
            async move {
                if exchange.request.method() != http::Method::CONNECT {
                    let content = drain(exchange.request.body_mut()).await?;
                    return exchange.answer(content);
                }
                let _stream = exchange.respond.send_response(Response::new(()), false)?;
                let mut came = 0;
                while came < 65_535 {
                    // Without opening the windows again.
                    came += exchange.request.body_mut().data().await.unwrap()?.len();
                }
                is_full.fetch_add(1, Ordering::SeqCst);
                std::future::pending().await
            }
        }
    })
    .await;
    let gateway = before(chat.address()).await;
    let mut client = gateway.connect("web").await;
    client.send(websocket("/chat").bytes()).await;
    assert_eq!(client.response_head().await.status, 101);
    client.send("x".repeat(200_000)).await;
    eventually("the window is used up", async || is_full.load(Ordering::SeqCst) == 1).await;
    for _ in 0..3 {
        assert_eq!(gateway.ask("web", post("/", "other")).await.text(), "other");
    }
    assert_eq!(chat.connections(), 2);
}

#[tokio::test]
async fn a_tunnel_ends_with_its_server_and_idles_no_longer_than_it_may() {
    let chat = taking().await;
    let text = GATEWAY.replace("h2 }", "h2; timeout tunnel=\"300ms\" }");
    let gateway = Gateway::kdl(&text).with("@chat", chat.address()).start().await;
    let mut client = gateway.connect("web").await;
    client.send(websocket("/chat").bytes()).await;
    assert_eq!(client.response_head().await.status, 101);
    client.send("ping").await;
    assert_eq!(client.exactly(4).await, b"ping");
    let begun = std::time::Instant::now();
    assert!(client.ends().await);
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    eventually("its place is free", async || {
        gateway
            .metrics()
            .await
            .get("gateway_server_in_flight", &[("server", "chat-1")])
            == Some(0.0)
    })
    .await;
}

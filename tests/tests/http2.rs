//! HTTP/2 with clients and with servers, and between the versions.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gateway_tests::guest;
use gateway_tests::http2::{Http2Client, Http2Exchange, Http2Server, block, drain, frame, http2_get, http2_post, read};
use gateway_tests::tls::Authority;
use gateway_tests::{Answer, Client, Gateway, HttpServer, PATIENCE, eventually, get, head, post, put, within};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

const PLAIN: &str = r#"
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { server "app-1" "@app" }
"#;

const TO_HTTP2: &str = r#"
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { server "app-1" "@app" h2 }
"#;

async fn before(app: &HttpServer) -> Gateway {
    Gateway::kdl(PLAIN).with("@app", app.address()).start().await
}

async fn one_worker_before_http2(app: &Http2Server) -> Gateway {
    Gateway::kdl(&format!(
        "process {{ workers 1; log \"stdout\" format=\"json\" }}\n{TO_HTTP2}"
    ))
    .with("@app", app.address())
    .start()
    .await
}

async fn before_http2(app: &Http2Server) -> Gateway {
    Gateway::kdl(TO_HTTP2).with("@app", app.address()).start().await
}

#[tokio::test]
async fn a_request_by_prior_knowledge_reaches_an_http_1_server_as_one_of_its_own() {
    let app = HttpServer::answering("hello").await;
    let gateway = before(&app).await;
    let client = Http2Client::connect(gateway.address("web")).await;

    let answer = client.get("/a?b=c").await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    assert_eq!(answer.header("content-length"), Some("5"));
    let seen = app.last();
    assert_eq!(
        (&*seen.method, &*seen.target, &*seen.version),
        ("GET", "/a?b=c", "HTTP/1.1")
    );
    assert_eq!(seen.headers.get("host"), Some("app.example"));
    let line = &gateway.access_log(1).await[0];
    assert_eq!(line["version"], "HTTP/2.0");
    assert_eq!(line["target"], "/a?b=c");
    assert_eq!(line["host"], "app.example");
    assert_eq!(line["status"], 200);
    assert_eq!(line["bytes_sent"], 5);
}

/// Many servers send the end of a stream in a frame of its own. A client over HTTP/1.1 has the answer by then.
#[tokio::test]
async fn an_answer_is_whole_by_its_length_before_its_stream_ends() {
    let ended = Arc::<Mutex<Vec<bool>>>::default();
    let noted = Arc::clone(&ended);
    let app = Http2Server::start(move |mut exchange| {
        let noted = Arc::clone(&noted);
        async move {
            let head = Response::builder().header("content-length", 5).body(()).unwrap();
            let mut stream = exchange.respond.send_response(head, false)?;
            stream.send_data(Bytes::from_static(b"hello"), false)?;
            let reset = std::future::poll_fn(|cx| stream.poll_reset(cx));
            let is_reset = tokio::time::timeout(Duration::from_millis(100), reset).await.is_ok();
            noted.lock().unwrap().push(is_reset);
            stream.send_data(Bytes::new(), true)
        }
    })
    .await;
    let gateway = one_worker_before_http2(&app).await;
    let mut client = gateway.connect("web").await;
    for _ in 0..2 {
        assert_eq!(client.ask(get("/")).await.text(), "hello");
    }
    let lines = gateway.access_log(2).await;
    assert!(lines.iter().all(|line| line["termination"] == "--"), "{lines:?}");
    eventually("the server is done", async || ended.lock().unwrap().len() == 2).await;
    assert_eq!(*ended.lock().unwrap(), [false, false]);
}

/// They count against what the server takes at once; and a request that waited for that behind them would wait for ever.
#[tokio::test]
async fn streams_whose_end_never_comes_take_no_place_from_requests() {
    let settings = |builder: &mut h2::server::Builder| {
        builder.max_concurrent_streams(2);
    };
    let app = Http2Server::start_with(settings, None, |mut exchange| async move {
        let head = Response::builder().header("content-length", 5).body(()).unwrap();
        let mut stream = exchange.respond.send_response(head, false)?;
        stream.send_data(Bytes::from_static(b"hello"), false)?;
        std::future::poll_fn(|cx| stream.poll_reset(cx)).await.map(|_| ())
    })
    .await;
    let gateway = one_worker_before_http2(&app).await;
    let mut client = gateway.connect("web").await;
    for _ in 0..6 {
        assert_eq!(client.ask(get("/")).await.text(), "hello");
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_preface_may_come_in_pieces_and_http_1_is_served_beside_it() {
    let app = HttpServer::answering("hello").await;
    let gateway = before(&app).await;
    // As a request of the first version that begins like the preface: PRI, and then not.
    for request in [
        "PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRIX / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        for cut in [1, 2, 3, 4] {
            let mut client = gateway.connect("web").await;
            client.send(&request[..cut]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            client.send(&request[cut..]).await;
            assert_eq!(client.response().await.status, 200, "{request:?} cut at {cut}");
        }
    }
    let mut client = gateway.connect("web").await;
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        client.send([*byte]).await;
    }
    client.send(b"\0\0\0\x04\0\0\0\0\0").await;
    // The gateway's own SETTINGS.
    let head = client.exactly(9).await;
    assert_eq!(head[3..], [4, 0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn tls_agrees_on_http_2_unless_told_otherwise() {
    let authority = Authority::new();
    let app = HttpServer::answering("hello").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "both" { bind "127.0.0.1:0" { tls cert="app.pem" }; default-backend "app" }
        frontend "old"  { bind "127.0.0.1:0" { tls cert="app.pem"; alpn "http/1.1" }; default-backend "app" }
        frontend "off"  { http2 "off"; bind "127.0.0.1:0" { tls cert="app.pem" }; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("app.pem", authority.issue(&["app.example"]).bundle())
    .start()
    .await;

    let client = Http2Client::connect_tls(gateway.address("both"), "app.example", authority.client()).await;
    assert_eq!(client.get("/").await.text(), "hello");
    for frontend in ["both", "old", "off"] {
        let mut config = authority.client();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut client = Client::connect_tls_with(gateway.address(frontend), "app.example", config).await;
        assert_eq!(client.ask(get("/")).await.text(), "hello", "{frontend}");
    }
    // One that says nothing of protocols speaks the first version.
    let mut client = Client::connect_tls(gateway.address("both"), "app.example", authority.certificate()).await;
    assert_eq!(client.ask(get("/")).await.text(), "hello");
    // One that insists on the second is told that there is none.
    for frontend in ["old", "off"] {
        let mut config = authority.client();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(gateway.address(frontend)).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("app.example").unwrap();
        let refused = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
        assert!(refused.await.is_err(), "{frontend}");
    }
}

#[tokio::test]
async fn plain_binds_do_not_listen_for_http_2_when_it_is_off() {
    let app = HttpServer::answering("hello").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { http2 "off"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(client.ends().await);
    assert_eq!(app.connections(), 0);
}

/// A connection below TLS, and all that has come over it.
struct Tapped {
    stream: TcpStream,
    came: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.came.lock().unwrap().extend_from_slice(&buf.filled()[before..]);
        result
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How many TLS records these bytes are (RFC 8446, section 5.1).
fn records(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some((header, rest)) = bytes.split_first_chunk::<5>() {
        bytes = &rest[usize::from(u16::from_be_bytes([header[3], header[4]]))..];
        count += 1;
    }
    count
}

#[tokio::test]
async fn responses_that_are_ready_together_go_out_together() {
    let authority = Authority::new();
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0" { tls cert="app.pem" }
            return { file "page.txt" }
        }
    "#,
    )
    .file("app.pem", authority.issue(&["app.example"]).bundle())
    // Longer than what the library copies of its own accord.
    .file("page.txt", "x".repeat(1500))
    .start()
    .await;
    let came = Arc::new(Mutex::new(Vec::new()));
    let tapped = Tapped {
        stream: TcpStream::connect(gateway.address("web")).await.unwrap(),
        came: came.clone(),
    };
    let mut config = authority.client();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = rustls::pki_types::ServerName::try_from("app.example").unwrap();
    let mut client = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tapped)
        .await
        .unwrap();
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", "app.example"),
    ];
    let mut asked = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
    for stream in [1, 3, 5, 7, 9, 11, 13, 15] {
        asked.extend(frame(1, 0x5, stream, &block(&fields)));
    }
    let before = came.lock().unwrap().len();
    client.write_all(&asked).await.unwrap();
    let mut plain = Vec::new();
    let is_content = |plain: &[u8]| plain.iter().filter(|byte| **byte == b'x').count() >= 8 * 1500;
    while !is_content(&plain) {
        let read = within(PATIENCE, "eight responses", client.read_buf(&mut plain))
            .await
            .unwrap();
        assert!(read > 0, "it ended");
    }
    // Eight responses of some 1,600 bytes, SETTINGS and their acknowledgement; tickets of TLS may come among them.
    let records = records(&came.lock().unwrap()[before..]);
    assert!(records <= 6, "{records}");
}

#[tokio::test]
async fn streams_are_served_at_once_and_each_has_its_line() {
    let app = HttpServer::start(|request| match &*request.target {
        "/slow" => Answer::nothing()
            .then_pause(Duration::from_millis(600))
            .then_send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow"),
        _ => Answer::ok("fast"),
    })
    .await;
    let gateway = before(&app).await;
    let client = Http2Client::connect(gateway.address("web")).await;

    let slow = client.get("/slow");
    let fast = async {
        for _ in 0..20 {
            assert_eq!(client.get("/fast").await.text(), "fast");
        }
        Instant::now()
    };
    let (slow, fast_done) = tokio::join!(async { (slow.await, Instant::now()) }, fast);
    assert_eq!(slow.0.text(), "slow");
    assert!(fast_done < slow.1, "the fast ones waited for the slow one");
    let lines = gateway.access_log(21).await;
    assert_eq!(lines.iter().filter(|line| line["target"] == "/fast").count(), 20);
    assert_eq!(lines.last().unwrap()["target"], "/slow");
    gateway
        .metric_is(
            "gateway_frontend_responses_total",
            &[("frontend", "web"), ("code", "2xx")],
            21.0,
        )
        .await;
}

#[tokio::test]
async fn content_of_any_length_passes_both_ways() {
    let app = HttpServer::start(|request| Answer::ok(&request.body)).await;
    let gateway = before(&app).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    for size in [0, 1, 16_384, 16_385, 65_535, 65_536, 1 << 20, 5 << 20] {
        let content: Vec<u8> = (0..size as u32).map(|n| (n * 31 % 251) as u8).collect();
        let (response, mut stream) = client
            .open(http2_post("/", Vec::new()).map(|_: Vec<u8>| ()), size == 0)
            .await;
        let send = async {
            let mut rest = Bytes::from(content.clone());
            while !rest.is_empty() {
                stream.reserve_capacity(rest.len());
                let room = std::future::poll_fn(|cx| stream.poll_capacity(cx))
                    .await
                    .unwrap()
                    .unwrap();
                let part = rest.split_to(room.min(rest.len()));
                stream.send_data(part, rest.is_empty()).unwrap();
            }
        };
        let (answer, ()) = tokio::join!(within(PATIENCE, "the answer", read(response)), send);
        assert!(answer.unwrap().body == content, "{size} bytes differ");
    }
}

#[tokio::test]
async fn heads_and_statuses_without_content_have_none() {
    let app = HttpServer::start(|request| match &*request.target {
        "/204" => Answer::status(204),
        "/304" => Answer::status(304).header("ETag", "\"x\""),
        _ => Answer::ok("hello"),
    })
    .await;
    let gateway = before(&app).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    let head = Request::head("http://app.example/").body(Vec::new()).unwrap();
    let answer = client.ask(head).await;
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert_eq!(answer.header("content-length"), Some("5"));
    for status in [204, 304] {
        let answer = client.get(&format!("/{status}")).await;
        assert_eq!((answer.status, answer.text()), (status, ""));
        assert_eq!(answer.header("content-length"), None);
    }
    // What the gateway says itself has no content either when only its head was asked for.
    let head = Request::head("http://app.example/")
        .header("content-length", "2")
        .body(b"ab".to_vec());
    assert_eq!(client.ask(head.unwrap()).await.status, 200);
}

/// Servers end a connection for a head that is too large for them, with whatever others have under way there.
#[tokio::test]
async fn large_heads_put_nobody_elses_connection_at_risk() {
    static GATE: Semaphore = Semaphore::const_new(0);
    let app = Http2Server::start(|exchange: Http2Exchange| async move {
        let connection = exchange.connection.to_string();
        if exchange.request.uri().path() == "/held" {
            GATE.acquire().await.unwrap().forget();
        }
        exchange.answer(connection)
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" h2 }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let cases = [
        ("v".repeat(10), "0"),
        ("v".repeat(9_000), "1"),
        // Fewer bytes, of which HPACK makes more. It follows the one before.
        ("\\".repeat(4_000), "1"),
        ("v".repeat(6_000), "0"),
        ("v".repeat(9_000), "1"),
    ];
    for (value, connection) in cases {
        let request = get("/").header("Cookie", &format!("a={value}"));
        let answer = gateway.ask("web", request).await;
        assert_eq!(answer.text(), connection, "{} bytes", value.len());
    }
    // No two of them are under way on one connection.
    let large = |path: &str| get(path).header("Cookie", &format!("a={}", "v".repeat(9_000)));
    let mut held = gateway.connect("web").await;
    held.send(large("/held").bytes()).await;
    eventually("it is under way", async || app.requests().len() == 6).await;
    assert_eq!(gateway.ask("web", large("/")).await.text(), "2");
    assert_eq!(gateway.ask("web", large("/")).await.text(), "2");
    GATE.add_permits(1);
    assert_eq!(held.response().await.text(), "1");
}

/// A server that ends a connection for a large head is not asked for it on a connection that would be kept.
#[tokio::test]
async fn a_large_head_that_ends_its_connection_is_tried_on_a_fresh_one_and_no_more() {
    // Each connection answers one request and ends with the next.
    let app = gateway_tests::Server::start(|wire, _| async move { closing_after(wire, 1).await }).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" h2 }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    for retries in [0, 1] {
        let request = get("/").header("Cookie", &format!("a={}", "v".repeat(9_000)));
        assert_eq!(gateway.ask("web", request).await.status, 200);
        assert_eq!(gateway.access_log(1 + retries).await[retries]["retries"], retries);
    }
}

/// A server may send the end of a stream in a frame of its own, behind the head of an answer that has no content. Nobody waits for it, and
/// the client has not broken anything off.
#[tokio::test]
async fn an_answer_without_content_is_whole_with_its_head() {
    let end = Arc::new(Semaphore::new(0));
    let app = Http2Server::start({
        let end = end.clone();
        move |mut exchange: Http2Exchange| {
            let end = end.clone();
            async move {
                let status: u16 = exchange.request.uri().path()[1..].parse().unwrap();
                let answer = Response::builder().status(status).body(()).unwrap();
                let mut stream = exchange.respond.send_response(answer, false)?;
                let _ = end.acquire().await;
                stream.send_data(Bytes::new(), true)
            }
        }
    })
    .await;
    let gateway = Gateway::kdl(TO_HTTP2).with("@app", app.address()).start().await;
    assert_eq!(gateway.ask("web", head("/200")).await.status, 200);
    assert_eq!(gateway.ask("web", get("/204")).await.status, 204);
    assert_eq!(gateway.ask("web", get("/304")).await.status, 304);
    let client = Http2Client::connect(gateway.address("web")).await;
    let request = Request::head("http://app.example/200").body(Vec::new()).unwrap();
    assert_eq!(client.ask(request).await.status, 200);
    for line in gateway.access_log(4).await {
        assert_eq!(line["termination"], "--", "{line}");
    }
    end.close();
}

#[tokio::test]
async fn a_client_that_resets_its_stream_frees_the_server_and_others_go_on() {
    let app = HttpServer::start(|request| match &*request.target {
        "/stall" => Answer::nothing().then_stall(),
        _ => Answer::ok("hello"),
    })
    .await;
    let gateway = before(&app).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    let (response, mut stream) = client.open(http2_get("/stall").map(|_| ()), true).await;
    app.has_seen(1).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    let line = &gateway.access_log(1).await[0];
    assert_eq!(
        (&line["target"], &line["termination"]),
        (&"/stall".into(), &"CH".into())
    );
    assert_eq!(client.get("/").await.text(), "hello");
}

#[tokio::test]
async fn each_stream_has_its_own_time() {
    let app = HttpServer::start(|request| match &*request.target {
        "/stall" => Answer::nothing().then_stall(),
        "/half" => Answer::head_only(10).then_send("half").then_stall(),
        _ => Answer::ok("hello"),
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; timeout client="700ms" http-keep-alive="20s"; default-backend "app" }
        backend "app" { timeout server="400ms"; server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let client = Http2Client::connect(gateway.address("web")).await;
    let started = Instant::now();
    let stalled = async { (client.get("/stall").await, started.elapsed()) };
    let half = async { client.try_ask(http2_get("/half")).await };
    // A body that does not come.
    let (response, _open) = client
        .open(http2_post("/", Vec::new()).map(|_: Vec<u8>| ()), false)
        .await;
    let bodyless = async { (read(response).await.unwrap(), started.elapsed()) };
    let (stalled, half, bodyless) = tokio::join!(stalled, half, bodyless);

    assert_eq!(stalled.0.status, 504);
    assert!((400..690).contains(&stalled.1.as_millis()), "{:?}", stalled.1);
    assert_eq!(half.unwrap_err().reason(), Some(h2::Reason::INTERNAL_ERROR));
    assert_eq!(bodyless.0.status, 408);
    assert!((700..1500).contains(&bodyless.1.as_millis()), "{:?}", bodyless.1);
    assert_eq!(client.get("/").await.text(), "hello", "the connection goes on");
    let mut lines = gateway.access_log(4).await;
    lines.sort_by_key(|line| line["target"].as_str().unwrap().to_owned());
    let ends: Vec<_> = lines.iter().map(|line| line["termination"].as_str().unwrap()).collect();
    assert_eq!(ends.iter().filter(|end| **end == "--").count(), 1, "{ends:?}");
    assert!(
        ends.contains(&"sH") && ends.contains(&"sD") && ends.contains(&"cD"),
        "{ends:?}"
    );
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off_and_others_on_its_connection_are_not() {
    let app = HttpServer::start(|request| match &*request.target {
        "/large" => Answer::head_only(1 << 30).then_stream(1 << 30),
        _ => Answer::ok("hello"),
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; timeout client="500ms" http-keep-alive="20s"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    // Room for others, whatever this stream leaves unread.
    let mut settings = h2::client::Builder::new();
    settings.initial_connection_window_size(1 << 20);
    let client = Http2Client::connect_with(gateway.address("web"), &settings).await;
    let (response, _stream) = client.open(http2_get("/large").map(|_| ()), true).await;
    let mut content = response.await.unwrap().into_body();
    // The window is never opened again; what is in it may be read.
    let cut_off = within(PATIENCE, "the stream ends", async {
        loop {
            match content.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("it passed for whole"),
            }
        }
    })
    .await;
    assert_eq!(cut_off.reason(), Some(h2::Reason::CANCEL));
    assert_eq!(client.get("/").await.text(), "hello");
    assert_eq!(gateway.access_log(2).await[0]["termination"], "cD");
}

#[tokio::test]
async fn idle_connections_end_after_their_time_and_say_so() {
    let app = HttpServer::answering("hello").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; timeout http-keep-alive="300ms" http-request="600ms"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let used = Http2Client::connect(gateway.address("web")).await;
    used.get("/").await;
    let started = Instant::now();
    let sender = used.sender();
    assert!(used.ended().await.is_ok(), "GOAWAY without a fault");
    drop(sender);
    assert!(
        (200..1500).contains(&started.elapsed().as_millis()),
        "{:?}",
        started.elapsed()
    );

    // One that has said hello and nothing else is given the time of a request.
    let unused = Http2Client::connect(gateway.address("web")).await;
    let sender = unused.sender();
    assert!(unused.ended().await.is_ok());
    drop(sender);
    let lines = gateway.access_log(2).await;
    assert_eq!(lines[1]["reason"], "request-timeout");

    // And so is one whose head comes slowly.
    let mut slow = gateway.connect("web").await;
    slow.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    slow.send(b"\0\0\x10\x01\x04\0\0\0\x01\x82").await;
    assert!(slow.ends().await);
    assert_eq!(gateway.access_log(3).await[2]["reason"], "request-timeout");
}

#[tokio::test]
async fn what_is_under_way_is_finished_when_the_gateway_ends() {
    let app = HttpServer::start(|request| match &*request.target {
        "/slow" => Answer::head_only(4)
            .then_pause(Duration::from_millis(700))
            .then_send("slow"),
        _ => Answer::ok("hello"),
    })
    .await;
    let gateway = before(&app).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    assert_eq!(client.get("/").await.text(), "hello");
    let (response, _stream) = client.open(http2_get("/slow").map(|_| ()), true).await;
    app.has_seen(2).await;
    gateway.terminate();
    let answer = within(PATIENCE, "the answer", read(response)).await.unwrap();
    assert_eq!(answer.text(), "slow");
    assert!(client.ended().await.is_ok(), "GOAWAY without a fault");
    assert!(gateway.stopped().await.code == Some(0));
}

#[tokio::test]
async fn a_server_that_speaks_http_2_is_spoken_to_so() {
    let app = Http2Server::start(async |mut exchange| {
        let body = drain(exchange.request.body_mut()).await?;
        exchange.answer(body)
    })
    .await;
    let gateway = before_http2(&app).await;

    // From the first version.
    let mut client = gateway.connect("web").await;
    for n in 0..3 {
        let answer = client.ask(post(&format!("/{n}"), "ping").header("X-A", "b")).await;
        assert_eq!((answer.status, answer.text()), (200, "ping"));
    }
    client
        .send("POST /chunks HTTP/1.1\r\nHost: b.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.response().await.text(), "abc");
    let seen = app.last();
    assert_eq!(seen.uri(), "http://b.example/chunks");
    assert!(!seen.headers().contains_key("host") && !seen.headers().contains_key("transfer-encoding"));
    // And from the second, all at once.
    let client = Http2Client::connect(gateway.address("web")).await;
    let asks = (0..50).map(|n| client.ask(http2_post("/", format!("{n}"))));
    let mut set = Vec::new();
    for ask in asks {
        set.push(ask);
    }
    for (n, ask) in set.into_iter().enumerate() {
        assert_eq!(ask.await.text(), n.to_string());
    }
    assert!(app.connections() <= 2, "one a worker: {}", app.connections());
}

#[tokio::test]
async fn requests_at_once_share_a_connection_as_far_as_the_server_lets_them() {
    static GATE: Semaphore = Semaphore::const_new(0);
    let app = ten_at_a_time(&GATE).await;
    let gateway = one_worker_before_http2(&app).await;
    // The first finds out what the server takes.
    GATE.add_permits(1);
    gateway.ask("web", get("/")).await;
    let clients = at_once(&gateway, 30);
    eventually("all are under way", async || app.requests().len() >= 31).await;
    // The first may be about to leave its place when the others come.
    assert!((3..=4).contains(&app.connections()), "{}", app.connections());
    GATE.add_permits(100);
    for client in clients {
        assert_eq!(within(PATIENCE, "an answer", client).await.unwrap(), 200);
    }
}

#[tokio::test]
async fn requests_at_once_do_not_wait_on_a_new_connection_for_more_than_its_server_takes() {
    static GATE: Semaphore = Semaphore::const_new(0);
    let app = ten_at_a_time(&GATE).await;
    let gateway = one_worker_before_http2(&app).await;
    let clients = at_once(&gateway, 31);
    eventually("all are under way", async || app.requests().len() >= 31).await;
    assert_eq!(app.connections(), 4);
    GATE.add_permits(100);
    for client in clients {
        assert_eq!(within(PATIENCE, "an answer", client).await.unwrap(), 200);
    }
}

#[tokio::test]
async fn a_server_that_does_not_say_what_it_takes_is_given_one_request_a_connection() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { timeout connect="300ms" server="20s"; retries 0; server "app-1" "@app" h2 }
    "#,
    )
    .with("@app", silent.local_addr().unwrap())
    .start()
    .await;
    let mut first = at_once(&gateway, 1);
    let (mut one, _) = within(PATIENCE, "a connection", silent.accept()).await.unwrap();
    within(PATIENCE, "the preface", one.read_exact(&mut [0; 24]))
        .await
        .unwrap();
    // The second waits for the connection as long as one may take to be opened, and its server does not get to see it.
    assert_eq!(gateway.ask("web", get("/")).await.status, 503);
    // The third has no part in that.
    let mut third = at_once(&gateway, 1);
    let (_other, _) = within(PATIENCE, "another connection", silent.accept()).await.unwrap();
    assert!(!first.remove(0).is_finished() && !third.remove(0).is_finished());
}

/// Clients that read nothing of long answers hold up nobody else who shares their server's connection, be its window what it may.
#[tokio::test]
async fn who_reads_nothing_holds_up_nobody_else_before_the_same_server() {
    for (bounds, connections) in [("", 1), ("http2 connection-window=\"1MiB\"", 8)] {
        let app = Http2Server::start(|exchange: Http2Exchange| async move {
            if exchange.request.uri().path() == "/short" {
                return exchange.answer("short");
            }
            let mut respond = exchange.respond;
            let mut stream = respond.send_response(Response::new(()), false)?;
            stream.send_data(vec![b'x'; 8 << 20].into(), true)
        })
        .await;
        let gateway = Gateway::kdl(&format!(
            r#"
            process {{ workers 1 }}
            frontend "web" {{ bind "127.0.0.1:0"; default-backend "app" }}
            backend "app" {{
                {bounds}
                server "app-1" "@app" h2
            }}
        "#
        ))
        .with("@app", app.address())
        .start()
        .await;
        // Windows of their own, of 64 KiB in all: nothing is read of them.
        let mut stuck = Vec::new();
        for _ in 0..32 {
            let client = Http2Client::connect(gateway.address("web")).await;
            let (response, _) = client.open(http2_get("/long").map(drop), true).await;
            let response = within(PATIENCE, "its head", response).await.unwrap();
            stuck.push((client, response));
        }
        // What their windows have room for has come by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
        for _ in 0..3 {
            let answer = gateway.ask("web", get("/short")).await;
            assert_eq!(answer.text(), "short", "{bounds}");
        }
        // Four streams of 256 KiB have room in a window of 1 MiB.
        let opened = app.connections();
        assert!((connections..=connections + 1).contains(&opened), "{bounds}: {opened}");
    }
}

/// The server's window for a connection has room for one stream's, which is what most begin with (RFC 9113, section 6.9.2).
#[tokio::test]
async fn an_upload_that_is_not_read_holds_up_no_other_clients() {
    let is_full = Arc::new(AtomicUsize::new(0));
    let app = Http2Server::start({
        let is_full = is_full.clone();
        move |mut exchange: Http2Exchange| {
            let is_full = is_full.clone();
            async move {
                if exchange.request.uri().path() == "/stuck" {
                    let mut came = 0;
                    while came < 65_535 {
                        // Without opening the windows again.
                        came += exchange.request.body_mut().data().await.unwrap()?.len();
                    }
                    is_full.fetch_add(1, Ordering::SeqCst);
                    return std::future::pending().await;
                }
                let content = drain(exchange.request.body_mut()).await?;
                exchange.answer(content)
            }
        }
    })
    .await;
    let gateway = one_worker_before_http2(&app).await;
    let mut stuck = gateway.connect("web").await;
    stuck.send(post("/stuck", "x".repeat(200_000)).bytes()).await;
    eventually("the window is used up", async || is_full.load(Ordering::SeqCst) == 1).await;
    for _ in 0..3 {
        assert_eq!(gateway.ask("web", post("/", "other")).await.text(), "other");
    }
    assert_eq!(app.connections(), 2);
    // What has no content waits for nothing there.
    assert_eq!(gateway.ask("web", get("/")).await.status, 200);
}

/// What a server does not read of one waits for that, and the windows of the other are its own.
#[tokio::test]
async fn uploads_share_a_connection_and_one_that_is_held_up_holds_up_no_other() {
    const WINDOW: usize = 65_535;
    static FULL: AtomicUsize = AtomicUsize::new(0);
    static GATE: Semaphore = Semaphore::const_new(0);
    let app = Http2Server::start_with(
        |settings| {
            // Room for many streams' windows.
            settings.initial_connection_window_size(1 << 20);
        },
        None,
        async |mut exchange: Http2Exchange| {
            let is_held = exchange.request.uri().path() == "/held";
            let body = exchange.request.body_mut();
            let mut came = 0;
            if is_held {
                while came < WINDOW {
                    // Without opening the window again.
                    came += body.data().await.unwrap()?.len();
                }
                FULL.fetch_add(1, Ordering::SeqCst);
                GATE.acquire().await.unwrap().forget();
                body.flow_control().release_capacity(came)?;
            }
            came += drain(body).await?.len();
            let said = format!("{came} on {}", exchange.connection);
            exchange.answer(said)
        },
    )
    .await;
    let gateway = one_worker_before_http2(&app).await;
    let head = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\na");
    let (mut held, mut other) = (gateway.connect("web").await, gateway.connect("web").await);
    // Both are under way before one of them waits for its server.
    held.send(head("/held")).await;
    eventually("the first is under way", async || app.requests().len() == 1).await;
    other.send(head("/")).await;
    eventually("the second is under way", async || app.requests().len() == 2).await;
    held.send("x".repeat(199_999)).await;
    eventually("its window is used up", async || FULL.load(Ordering::SeqCst) == 1).await;
    other.send("x".repeat(199_999)).await;
    assert_eq!(other.response().await.text(), "200000 on 0");
    GATE.add_permits(1);
    assert_eq!(held.response().await.text(), "200000 on 0");
    assert_eq!(app.connections(), 1);
}

/// Messages of gRPC often have a few bytes and a frame each. Those that have room in their stream's window may wait for their server.
#[tokio::test]
async fn small_frames_may_wait_for_their_server() {
    let app = HttpServer::start(|request| {
        Answer::nothing().then_pause(SHORTLY).then_send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
            request.body.len(),
            String::from_utf8_lossy(&request.body)
        ))
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" max-connections=1 }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let client = Http2Client::connect(gateway.address("web")).await;
    let first = client.get("/");
    let second = async {
        app.has_seen(1).await;
        let head = http2_post("/", "").map(drop);
        let (response, mut stream) = client.open(head, false).await;
        for n in 0..6000 {
            stream.send_data(format!("{n:08}").into(), n == 5999).unwrap();
        }
        within(PATIENCE, "the answer", read(response)).await.unwrap()
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.status, second.status, second.body.len()), (200, 200, 48_000));
    assert!(second.text().ends_with("0000599800005999"));
}

const SHORTLY: Duration = Duration::from_millis(700);

/// A server that takes ten requests a connection, and answers as the gate lets it.
async fn ten_at_a_time(gate: &'static Semaphore) -> Http2Server {
    Http2Server::start_with(
        |settings| {
            settings.max_concurrent_streams(10);
        },
        None,
        async move |exchange| {
            gate.acquire().await.unwrap().forget();
            exchange.answer("hello")
        },
    )
    .await
}

/// So many requests at the same time, each of a client of its own, and the statuses of their answers.
fn at_once(gateway: &Gateway, count: usize) -> Vec<tokio::task::JoinHandle<u16>> {
    let address = gateway.address("web");
    (0..count)
        .map(|_| tokio::spawn(async move { Client::connect(address).await.ask(get("/")).await.status }))
        .collect()
}

#[tokio::test]
async fn tls_with_a_server_agrees_on_http_2() {
    let authority = Authority::new();
    let app = Http2Server::start_with(
        |_| {},
        Some(authority.server(&["app.example"])),
        async |exchange| exchange.answer("hello"),
    )
    .await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" h2 { tls ca="ca.pem" sni="app.example" } }
    "#,
    )
    .with("@app", app.address())
    .file("ca.pem", authority.pem())
    .start()
    .await;
    assert_eq!(gateway.ask("web", get("/x")).await.text(), "hello");
    assert_eq!(app.last().uri().scheme_str(), Some("https"));
}

/// A server that refuses every request unseen.
async fn refusing() -> Http2Server {
    Http2Server::start(async |mut exchange: Http2Exchange| {
        exchange.respond.send_reset(h2::Reason::REFUSED_STREAM);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_a_server_refuses_or_leaves_out_is_sent_again() {
    // As often as `retries` says, which are 3 unless said, and once at least.
    for (retries, again) in [("", 3), ("retries 0", 1), ("retries 5", 5)] {
        // POST as well, as the server has not looked at it.
        let app = refusing().await;
        let gateway = Gateway::kdl(
            r#"
            process { workers 1; log "stdout" format="json" }
            frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
            backend "app" {
                @retries
                server "app-1" "@app" h2
                pool max-idle=1
            }
        "#,
        )
        .with("@retries", retries)
        .with("@app", app.address())
        .start()
        .await;
        // All attempts are refused on the one connection that there is, each behind a pause twice as long as the last.
        let begun = Instant::now();
        let answer = gateway.ask("web", post("/", "order")).await;
        let paused: u64 = (0..u32::try_from(again).unwrap()).map(|n| 25_u64 << n.min(3)).sum();
        assert!(
            begun.elapsed() >= Duration::from_millis(paused),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(answer.status, 502);
        assert_eq!(gateway.access_log(1).await[0]["retries"], again);
        assert_eq!(app.requests().len(), again + 1);
    }
}

/// Who refuses everything does not get all of it several times over.
#[tokio::test]
async fn what_is_refused_again_is_sent_again_within_the_budget() {
    let app = refusing().await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { retries 5; retry-budget percent=0 min=0; server "app-1" "@app" h2 }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 502);
    // The first time its server may have refused it by the way.
    assert_eq!(gateway.access_log(1).await[0]["retries"], 1);
    assert_eq!(app.requests().len(), 2);
    let labels = &[("backend", "app")];
    gateway
        .metric_is("gateway_backend_retry_budget_spent_total", labels, 1.0)
        .await;
}

/// A reset takes along what has not gone out.
#[tokio::test]
async fn of_an_answer_that_breaks_off_at_once_a_stream_has_what_came() {
    let app =
        HttpServer::start(|_| Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").then_close())
            .await;
    let gateway = before(&app).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    let request = Request::get("http://a.example/").body(()).unwrap();
    let (response, _stream) = client.open(request, true).await;
    let response = within(PATIENCE, "the answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut content = response.into_body();
    let piece = within(PATIENCE, "its content", content.data()).await.unwrap().unwrap();
    assert_eq!(piece, "only this");
    let end = within(PATIENCE, "its end", content.data()).await.unwrap().unwrap_err();
    assert_eq!(end.reason(), Some(h2::Reason::INTERNAL_ERROR));
}

/// It may have been by the way the first time. Who goes on is left to itself, as `redispatch` says.
#[tokio::test]
async fn who_refuses_again_is_left_for_another_server() {
    let refuses = async |mut exchange: Http2Exchange| {
        exchange.respond.send_reset(h2::Reason::REFUSED_STREAM);
        Ok(())
    };
    for (redispatch, status, asked) in [("each", 200, 2), ("last", 200, 3), ("off", 502, 4)] {
        let bad = Http2Server::start(refuses).await;
        let good = Http2Server::start(async |exchange: Http2Exchange| exchange.answer("well")).await;
        let gateway = Gateway::kdl(
            r#"
            process { workers 1; log "stdout" format="json" }
            frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
            backend "app" {
                balance "first"
                retries 3 redispatch="@redispatch"
                server "bad" "@bad" h2 max-connections=10
                server "good" "@good" h2 max-connections=10
            }
        "#,
        )
        .with("@redispatch", redispatch)
        .with("@bad", bad.address())
        .with("@good", good.address())
        .start()
        .await;
        let answer = gateway.ask("web", post("/", "order")).await;
        assert_eq!((answer.status, bad.requests().len()), (status, asked), "{redispatch}");
        assert_eq!(good.requests().len(), usize::from(status == 200), "{redispatch}");
    }
}

/// What was refused unseen is sent again `retries` times in all, not as often with each attempt that `retry-on` makes.
#[tokio::test]
async fn attempts_of_both_kinds_do_not_multiply() {
    let app = refusing().await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { retries 2; retry-on "empty-response"; server "app-1" "@app" h2 }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 502);
    assert_eq!(gateway.access_log(1).await[0]["retries"], 4);
    assert_eq!(app.requests().len(), 5);
}

/// Whatever its method: its server says that it has not looked at it, though a part of the body may have been on its way.
#[tokio::test]
async fn a_post_that_was_refused_unseen_is_sent_again_whole() {
    let asked = Arc::new(AtomicUsize::new(0));
    let app = Http2Server::start(move |mut exchange: Http2Exchange| {
        let is_refused = asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        async move {
            if is_refused {
                exchange.respond.send_reset(h2::Reason::REFUSED_STREAM);
                return Ok(());
            }
            let content = drain(exchange.request.body_mut()).await?;
            exchange.answer(content)
        }
    })
    .await;
    let gateway = before_http2(&app).await;
    let mut client = gateway.connect("web").await;
    let long = "x".repeat(16 * 1024);
    for (n, body) in ["order", &long].into_iter().enumerate() {
        let answer = client.ask(post("/", body)).await;
        assert_eq!((answer.status, answer.text()), (200, body));
        assert_eq!(app.requests().len(), 2 * (n + 1));
    }
    // Of which nobody knows how long it will be.
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\norder\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.response().await.text(), "order");
}

#[tokio::test]
async fn a_server_that_goes_away_in_order_loses_no_request() {
    // GOAWAY after each fifth request, as of a server that recycles its connections.
    let app = gateway_tests::Server::start(|wire, _| async move { goaway_after(wire, 5).await }).await;
    let gateway = Gateway::kdl(TO_HTTP2).with("@app", app.address()).start().await;
    let mut client = gateway.connect("web").await;
    for n in 0..40 {
        let answer = client.ask(get("/")).await;
        assert_eq!(answer.status, 200, "request {n}");
    }
    assert!(app.connections() >= 8, "{}", app.connections());
}

/// Answers so many requests with 200, then says GOAWAY and answers nothing more.
async fn goaway_after(mut wire: gateway_tests::Wire, mut left: u32) -> std::io::Result<()> {
    wire.exactly(24).await?;
    wire.send(b"\0\0\0\x04\0\0\0\0\0").await?;
    loop {
        let head = wire.exactly(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        wire.exactly(length).await?;
        let (kind, flags) = (head[3], head[4]);
        match kind {
            4 if flags & 1 == 0 => wire.send(b"\0\0\0\x04\x01\0\0\0\0").await?,
            1 => {
                // `:status: 200`, and the stream's end.
                let mut answer = vec![0, 0, 1, 1, 5];
                answer.extend_from_slice(&head[5..9]);
                answer.push(0x88);
                left -= 1;
                if left == 0 {
                    // Before the answer: nothing after this stream will be looked at.
                    answer.extend_from_slice(b"\0\0\x08\x07\0\0\0\0\0");
                    answer.extend_from_slice(&head[5..9]);
                    answer.extend_from_slice(&[0, 0, 0, 0]);
                    wire.send(&answer).await?;
                    // What is sent all the same is never answered.
                    return wire.rest().await.map(drop);
                }
                wire.send(&answer).await?;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_loses_no_request_that_may_be_repeated_whole() {
    // It closes when the second request of a connection has come: whether that was carried out, nobody knows.
    let app = gateway_tests::Server::start(|wire, _| async move { closing_after(wire, 1).await }).await;
    let text = format!("process {{ workers 1 }}\n{TO_HTTP2}");
    let gateway = Gateway::kdl(&text).with("@app", app.address()).start().await;
    let mut client = gateway.connect("web").await;
    assert_eq!(client.ask(get("/")).await.status, 200);
    for (body, connections) in [
        ("".to_owned(), 2),
        ("all of it".to_owned(), 3),
        ("x".repeat(16 << 10), 4),
    ] {
        assert_eq!(client.ask(put("/", body)).await.status, 200);
        assert_eq!(app.connections(), connections);
    }
    assert_eq!(client.ask(put("/", "x".repeat((16 << 10) + 1))).await.status, 502);
    assert_eq!(gateway.ask("web", get("/")).await.status, 200);
    assert_eq!(gateway.ask("web", post("/", "100")).await.status, 502);
    assert_eq!(app.connections(), 5, "nothing of these is sent twice");
}

/// Answers so many requests with 200 when they have come whole, and closes when the next has.
async fn closing_after(mut wire: gateway_tests::Wire, mut left: u32) -> std::io::Result<()> {
    wire.exactly(24).await?;
    wire.send(frame(4, 0, 0, b"")).await?;
    loop {
        let head = wire.exactly(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        wire.exactly(length).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (head[3], head[4] & 1) {
            (4, 0) => wire.send(frame(4, 1, 0, b"")).await?,
            (0 | 1, 1) if left == 0 => return Ok(()),
            (0 | 1, 1) => {
                left -= 1;
                // `:status: 200`, and the stream's end.
                wire.send(frame(1, 5, stream, &[0x88])).await?;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn both_sides_may_send_at_once_and_trailers_pass() {
    let app = Http2Server::start(async |mut exchange| {
        let mut response = Response::new(());
        response
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        let mut stream = exchange.respond.send_response(response, false)?;
        let request = exchange.request.body_mut();
        while let Some(piece) = request.data().await {
            let piece = piece?;
            request.flow_control().release_capacity(piece.len())?;
            stream.send_data(piece, false)?;
        }
        let mut trailers = request.trailers().await?.unwrap_or_default();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        // One that may not stand there.
        trailers.insert("content-length", HeaderValue::from_static("5"));
        stream.send_trailers(trailers)
    })
    .await;
    let gateway = before_http2(&app).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    let request = Request::post("http://app.example/echo.Echo/Talk")
        .header("te", "trailers")
        .header("content-type", "application/grpc");
    let (response, mut stream) = client.open(request.body(()).unwrap(), false).await;
    let response = within(PATIENCE, "a head before the request's end", response)
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let mut content = response.into_body();
    for n in 0..20 {
        let said = format!("message {n}");
        stream.send_data(said.clone().into(), false).unwrap();
        let heard = within(PATIENCE, "its echo", content.data()).await.unwrap().unwrap();
        assert_eq!(heard, said);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("20"));
    trailers.insert("host", HeaderValue::from_static("other.example"));
    stream.send_trailers(trailers).unwrap();
    assert!(content.data().await.is_none());
    let trailers = content.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["x-sum"], "20");
    assert!(
        !trailers.contains_key("host") && !trailers.contains_key("content-length"),
        "{trailers:?}"
    );
    assert_eq!(app.last().headers()["te"], "trailers");
}

#[tokio::test]
async fn responses_that_are_trailers_only_pass() {
    let app = Http2Server::start(async |mut exchange| {
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "5");
        exchange
            .respond
            .send_response(response.body(()).unwrap(), true)
            .map(drop)
    })
    .await;
    let gateway = before_http2(&app).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    let answer = client.ask(http2_post("/", "x")).await;
    assert_eq!(answer.header("grpc-status"), Some("5"));
    assert!(answer.trailers.is_none() && answer.body.is_empty());
    assert_eq!(answer.header("content-length"), None);
}

#[tokio::test]
async fn trailers_pass_between_the_versions() {
    let app = HttpServer::start(|_| {
        Answer::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             2\r\nhi\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n",
        )
    })
    .await;
    let gateway = before(&app).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    let answer = client.get("/").await;
    assert_eq!(answer.text(), "hi");
    let trailers = answer.trailers.unwrap();
    assert_eq!(trailers["x-sum"], "7");
    assert!(!trailers.contains_key("content-length"));

    // A client of the first version gets them when it says that it takes them.
    let mut client = gateway.connect("web").await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n")
        .await;
    let rest = String::from_utf8(client.rest().await).unwrap().to_ascii_lowercase();
    assert!(rest.ends_with("2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n"), "{rest}");
    assert_eq!(app.last().headers.get("te"), Some("trailers"));
    // One that does not gets the content alone.
    let answer = gateway
        .raw("web", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.ends_with("2\r\nhi\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn behind_content_nobody_says_what_is_not_theirs_to_say() {
    // What came behind the request's content stands behind the answer's, with a number that the gateway has not given.
    let app = Http2Server::start(async |mut exchange| {
        let mut stream = exchange.respond.send_response(Response::new(()), false)?;
        let request = exchange.request.body_mut();
        while let Some(piece) = request.data().await {
            request.flow_control().release_capacity(piece?.len())?;
        }
        let mut trailers = request.trailers().await?.unwrap_or_default();
        trailers.insert("x-request-id", HeaderValue::from_static("forged"));
        stream.send_trailers(trailers)
    })
    .await;
    let collector = HttpServer::answering("").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; tracing "http://@collector" sample=1.0 }
        plugin "auth" "auth.wasm" { on-failure "deny"; identity-header "x-user" }
        tenant "acme" {
            hosts "acme.example"
            plugin "own" "auth.wasm" { on-failure "skip"; identity-header "x-own" }
            use-plugin "own"
        }
        frontend "web" {
            bind "127.0.0.1:0"
            tenants "acme"
            request-id response
            use-plugin "auth"
            default-backend "app"
        }
        backend "app" { server "s" "@app" h2 }
    "#,
    )
    .with("@app", app.address())
    .with("@collector", collector.address())
    .file("auth.wasm", guest::filter("(call $none)", ""))
    .start()
    .await;
    let client = Http2Client::connect(gateway.address("web")).await;
    for (host, passes) in [("a.example", &["x-own", "x-sum"][..]), ("acme.example", &["x-sum"][..])] {
        let request = Request::post(format!("http://{host}/")).body(()).unwrap();
        let (response, mut stream) = client.open(request, false).await;
        stream.send_data("content".into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        for name in ["x-user", "x_user", "x-own", "x-request-id", "traceparent", "x-sum"] {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        stream.send_trailers(trailers).unwrap();
        let response = within(PATIENCE, "an answer", response).await.unwrap();
        assert_ne!(response.headers()["x-request-id"], "forged");
        let mut content = response.into_body();
        assert!(content.data().await.is_none());
        let trailers = within(PATIENCE, "its end", content.trailers()).await.unwrap().unwrap();
        let mut names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, passes, "{host}");
    }
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_is_told() {
    let app = HttpServer::start(|request| Answer::ok(&request.body)).await;
    let gateway = before(&app).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    let request = Request::post("http://app.example/")
        .header("expect", "100-continue")
        .header("content-length", "5");
    let (mut response, mut stream) = client.open(request.body(()).unwrap(), false).await;
    let told = within(
        PATIENCE,
        "100",
        std::future::poll_fn(|cx| response.poll_informational(cx)),
    );
    assert_eq!(told.await.unwrap().unwrap().status(), 100);
    stream.send_data("hello".into(), true).unwrap();
    assert_eq!(
        within(PATIENCE, "the answer", read(response)).await.unwrap().text(),
        "hello"
    );
    assert!(!app.last().headers.has("expect"));
}

#[tokio::test]
async fn a_websocket_has_a_stream_to_itself() {
    let app = HttpServer::start(|request| match &*request.target {
        "/chat" if request.headers.get("upgrade") == Some("websocket") => Answer::switching("websocket")
            .header("Sec-WebSocket-Accept", "x")
            .header("Sec-WebSocket-Protocol", "talk")
            .then_echo(),
        "/chat" => Answer::status(400),
        "/no" => Answer::status(403).body("no"),
        _ => Answer::ok("hello"),
    })
    .await;
    let gateway = before(&app).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    // The gateway's SETTINGS say that it can be done.
    assert_eq!(client.get("/").await.text(), "hello");
    assert!(client.sender().is_extended_connect_protocol_enabled());
    let ask = |path: &str, protocol: &'static str| {
        let request = Request::connect(format!("http://app.example{path}"))
            .extension(h2::ext::Protocol::from_static(protocol))
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "talk");
        request.body(()).unwrap()
    };
    let (response, mut stream) = client.open(ask("/chat", "websocket"), false).await;
    let response = within(PATIENCE, "the answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "talk");
    assert!(!response.headers().contains_key("sec-websocket-accept") && !response.headers().contains_key("upgrade"));
    let mut content = response.into_body();
    for n in 0..10 {
        let said = format!("frame {n}");
        stream.send_data(said.clone().into(), false).unwrap();
        let heard = within(PATIENCE, "its echo", content.data()).await.unwrap().unwrap();
        content.flow_control().release_capacity(heard.len()).unwrap();
        assert_eq!(heard, said);
        // Beside it, the connection serves requests.
        assert_eq!(client.get("/").await.text(), "hello");
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(within(PATIENCE, "the end", drain(&mut content)).await.unwrap(), b"");
    let seen = app
        .requests()
        .into_iter()
        .find(|request| request.target == "/chat")
        .unwrap();
    assert_eq!(
        (&*seen.method, seen.headers.get("connection")),
        ("GET", Some("upgrade"))
    );
    assert_eq!(seen.headers.get("sec-websocket-key").map(str::len), Some(24));
    let line = gateway
        .access_log(12)
        .await
        .into_iter()
        .find(|line| line["target"] == "/chat")
        .unwrap();
    assert_eq!((&line["status"], &line["termination"]), (&101.into(), &"--".into()));

    // A server that does not want to says so, and what is no such protocol is refused.
    let (response, _stream) = client.open(ask("/no", "websocket"), false).await;
    let answer = within(PATIENCE, "the answer", read(response)).await.unwrap();
    assert_eq!((answer.status, answer.text()), (403, "no"));
    let (response, _stream) = client.open(ask("/chat", "h2c"), false).await;
    assert_eq!(within(PATIENCE, "the answer", response).await.unwrap().status(), 400);
    // A page in the place of a WebSocket is none: its 200 would say that the tunnel is there.
    let (response, _stream) = client.open(ask("/page", "websocket"), false).await;
    let answer = within(PATIENCE, "the answer", read(response)).await.unwrap();
    assert_eq!((answer.status, answer.text()), (502, "502 Bad Gateway\n"));
    assert_eq!(client.get("/").await.text(), "hello");
    let lines = gateway.access_log(16).await;
    let line = lines.iter().find(|line| line["target"] == "/page").unwrap();
    assert_eq!(
        (&line["reason"], &line["termination"]),
        (&"bad-upgrade".into(), &"PH".into())
    );
}

#[tokio::test]
async fn white_space_around_a_value_hides_it_from_no_rule() {
    let app = Http2Server::answering("hello").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            deny { header "x-role" "admin" }
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" h2 }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let client = Http2Client::connect(gateway.address("web")).await;
    let ask = |role: &'static str| {
        let mut request = http2_get("/");
        request.headers_mut().insert("x-role", HeaderValue::from_static(role));
        request
    };
    for role in ["admin", " admin", "admin ", "\t admin \t"] {
        assert_eq!(client.ask(ask(role)).await.status, 403, "{role:?}");
    }
    assert_eq!(client.ask(ask(" no admin\t")).await.text(), "hello");
    assert_eq!(app.last().headers()["x-role"], "no admin");
}

#[tokio::test]
async fn a_server_of_http_2_that_changes_the_protocol_has_answered_nothing() {
    let app = Http2Server::start(async |mut exchange| {
        let switching = Response::builder().status(101).body(()).unwrap();
        exchange.respond.send_informational(switching)?;
        std::future::pending().await
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { timeout server="1h"; server "app-1" "@app" h2 }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 502);
    assert_eq!(gateway.access_log(1).await[0]["reason"], "bad-upgrade");
}

#[tokio::test]
async fn early_hints_that_come_together_with_their_response_go_before_it() {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let whole = format!("{hint}{hint}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let app = HttpServer::start(move |_| Answer::raw(whole.clone())).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { early-hints; server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let said = gateway.raw("web", requests).await;
    let statuses: Vec<_> = said.lines().filter_map(|line| line.split("HTTP/1.1 ").nth(1)).collect();
    assert_eq!(
        statuses,
        [
            "103 Early Hints",
            "103 Early Hints",
            "200 OK",
            "103 Early Hints",
            "103 Early Hints",
            "200 OK"
        ],
        "{said}"
    );
}

#[tokio::test]
async fn early_hints_pass_where_they_are_asked_for() {
    const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-a\r\nX-A: b\r\n\r\n";
    let one = HttpServer::start(|_| {
        Answer::raw(HINT)
            .then_pause(Duration::from_millis(100))
            .then_send(HINT)
            .then_pause(Duration::from_millis(100))
            .then_send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    })
    .await;
    let two = Http2Server::start(async |mut exchange| {
        let hint = || {
            Response::builder()
                .status(103)
                .header("link", "</a.css>; rel=preload")
                .body(())
                .unwrap()
        };
        exchange.respond.send_informational(hint())?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        exchange.respond.send_informational(hint())?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        exchange.answer("hello")
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        frontend "one" { bind "127.0.0.1:0"; default-backend "one" }
        frontend "two" { bind "127.0.0.1:0"; default-backend "two" }
        frontend "off" { bind "127.0.0.1:0"; default-backend "off" }
        backend "one" { early-hints; server "app-1" "@one" }
        backend "two" { early-hints; server "app-2" "@two" h2 }
        backend "off" { server "app-1" "@one" }
    "#,
    )
    .with("@one", one.address())
    .with("@two", two.address())
    .start()
    .await;
    for frontend in ["one", "two"] {
        let mut client = gateway.connect(frontend).await;
        // Behind an answer, too, on a connection that goes on.
        for _ in 0..2 {
            let answer = client.ask(get("/")).await;
            assert_eq!(
                (&*answer.interim, answer.text()),
                (&[103, 103][..], "hello"),
                "{frontend}"
            );
        }
        let answer = gateway
            .raw(frontend, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        let first = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
        assert!(
            answer.starts_with(&first.repeat(2)) && !answer.contains("x-a"),
            "{answer}"
        );
        // HTTP/1.0 has none.
        let answer = gateway.raw(frontend, "GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        assert!(!answer.contains("103"), "{answer}");

        let client = Http2Client::connect(gateway.address(frontend)).await;
        let (mut response, _stream) = client.open(http2_get("/").map(|_| ()), true).await;
        for _ in 0..2 {
            let early = std::future::poll_fn(|cx| response.poll_informational(cx));
            let early = within(PATIENCE, "a hint", early).await.unwrap().unwrap();
            assert_eq!(
                (early.status().as_u16(), &early.headers()["link"]),
                (103, &HeaderValue::from_static("</a.css>; rel=preload"))
            );
            assert!(!early.headers().contains_key("connection"));
        }
        assert_eq!(
            within(PATIENCE, "the answer", read(response)).await.unwrap().text(),
            "hello"
        );
    }
    let answer = gateway.ask("off", get("/")).await;
    assert_eq!((&*answer.interim, answer.text()), (&[][..], "hello"));
}

#[tokio::test]
async fn a_connection_goes_on_through_a_reload_and_its_next_stream_meets_the_new_configuration() {
    let app = HttpServer::start(|request| match &*request.target {
        "/slow" => Answer::head_only(4)
            .then_pause(Duration::from_millis(500))
            .then_send("slow"),
        _ => Answer::ok("old"),
    })
    .await;
    let new = HttpServer::answering("new").await;
    let web = |server: &HttpServer| Gateway::kdl(PLAIN).with("@app", server.address());
    let gateway = web(&app).start().await;
    let client = Http2Client::connect(gateway.address("web")).await;
    assert_eq!(client.get("/").await.text(), "old");
    let (slow, _stream) = client.open(http2_get("/slow").map(|_| ()), true).await;
    app.has_seen(2).await;

    assert!(gateway.reload(&web(&new)).await);
    assert_eq!(client.get("/").await.text(), "new");
    let slow = within(PATIENCE, "the answer", read(slow)).await.unwrap();
    assert_eq!(slow.text(), "slow");
    assert_eq!(client.get("/").await.text(), "new");
}

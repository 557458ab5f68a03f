//! Clients of HTTP/2 that break its rules or wear the gateway out: what becomes of them, and of others meanwhile. What goes on
//! to a server of HTTP/1.1 is what was understood, and nothing that the two ends could read differently (RFC 9113, section 8.2,
//! 8.3 and 10.3).

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use gateway_tests::http2::{Http2Client, Http2Exchange, Http2Frames, Http2Server, block, drain, frame, http2_get};
use gateway_tests::{Answer, Gateway, HttpServer, PATIENCE, Server, Wire, eventually, within};
use http::Response;

const PLAIN: &str = r#"
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { server "app-1" "@app" }
"#;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What has to become of a request.
enum Fate {
    /// Its stream is reset, and no server sees any of it.
    Reset,
    /// Its connection ends, and no server sees any of it.
    Ended,
    /// It is answered with this first byte of a header block, and no server sees any of it.
    Refused(u8),
    /// It is forwarded, and the head that the server sees has these lines, whatever their order.
    Forwarded(&'static [&'static str]),
}

use Fate::{Ended, Forwarded, Refused, Reset};

/// `:status: 400` (RFC 7541, appendix A).
const BAD_REQUEST: Fate = Refused(0x8c);

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a.example"),
    (":path", "/"),
];

/// The usual fields, and these behind them.
fn with(fields: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    GET.into_iter().chain(fields.iter().copied()).collect()
}

/// The usual fields, with this one in the place of that of the same name; an empty name leaves it out.
fn but(name: &'static str, value: Option<&'static str>) -> Vec<(&'static str, &'static str)> {
    let other = |(known, old): (&'static str, &'static str)| match value {
        _ if known != name => Some((known, old)),
        Some(value) => Some((known, value)),
        None => None,
    };
    GET.into_iter().filter_map(other).collect()
}

type Case = (&'static str, Vec<(&'static str, &'static str)>, Fate);

fn cases() -> Vec<Case> {
    vec![
        (
            "as it should be",
            GET.to_vec(),
            Forwarded(&["GET / HTTP/1.1", "host: a.example"]),
        ),
        ("CR LF in a value", with(&[("x-a", "b\r\nx-smuggled: 1")]), Ended),
        ("LF in a value", with(&[("x-a", "b\nx-smuggled: 1")]), Ended),
        ("NUL in a value", with(&[("x-a", "b\0c")]), Ended),
        ("CR LF in a name", with(&[("x-a: b\r\nx-smuggled", "1")]), Ended),
        ("a space in a name", with(&[("x a", "b")]), Ended),
        ("a colon in a name", with(&[("x:a", "b")]), Ended),
        ("an empty name", with(&[("", "b")]), Ended),
        ("a capital letter in a name", with(&[("X-A", "b")]), Ended),
        ("connection", with(&[("connection", "close")]), Reset),
        (
            "connection that names fields",
            with(&[("connection", "x-a"), ("x-a", "b")]),
            Reset,
        ),
        ("keep-alive", with(&[("keep-alive", "timeout=5")]), Reset),
        ("proxy-connection", with(&[("proxy-connection", "keep-alive")]), Reset),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), Reset),
        (
            "transfer-encoding, identity",
            with(&[("transfer-encoding", "identity")]),
            Reset,
        ),
        ("upgrade", with(&[("upgrade", "websocket")]), Reset),
        ("te that is not trailers", with(&[("te", "gzip")]), Reset),
        ("te", with(&[("te", "trailers")]), Forwarded(&["te: trailers"])),
        ("a length without content", with(&[("content-length", "5")]), Reset),
        (
            "two lengths",
            with(&[("content-length", "0"), ("content-length", "0")]),
            BAD_REQUEST,
        ),
        (
            "two lengths that differ",
            with(&[("content-length", "0"), ("content-length", "5")]),
            Reset,
        ),
        ("a list of lengths", with(&[("content-length", "0, 0")]), Reset),
        ("a signed length", with(&[("content-length", "+0")]), Reset),
        ("no length that could be", with(&[("content-length", "")]), BAD_REQUEST),
        ("without a method", but(":method", None), Reset),
        ("without a scheme", but(":scheme", None), Reset),
        ("without a path", but(":path", None), Reset),
        ("an empty path", but(":path", Some("")), Reset),
        ("a path without a slash", but(":path", Some("admin")), Reset),
        ("a path that is a URL", but(":path", Some("http://b.example/")), Reset),
        ("a path that is all of the server", but(":path", Some("*")), BAD_REQUEST),
        (
            "a space in the path",
            but(":path", Some("/ HTTP/1.1\r\nx-smuggled: 1")),
            Reset,
        ),
        (
            "a fragment",
            but(":path", Some("/a#b")),
            Forwarded(&["GET /a HTTP/1.1"]),
        ),
        (
            "two slashes",
            but(":path", Some("//b.example/")),
            Forwarded(&["GET //b.example/ HTTP/1.1", "host: a.example"]),
        ),
        (
            "a method that is a request",
            but(":method", Some("GET / HTTP/1.1\r\nx-a: b")),
            Ended,
        ),
        (
            "CONNECT",
            vec![(":method", "CONNECT"), (":authority", "a.example:443")],
            BAD_REQUEST,
        ),
        ("another scheme", but(":scheme", Some("ftp")), BAD_REQUEST),
        (
            "https where there is no TLS",
            but(":scheme", Some("https")),
            Forwarded(&["GET / HTTP/1.1"]),
        ),
        ("an unknown pseudo-header field", with(&[(":admin", "1")]), Ended),
        (
            "a pseudo-header field of a response",
            with(&[(":status", "200")]),
            Reset,
        ),
        ("a pseudo-header field twice", with(&[(":path", "/b")]), Reset),
        (
            "a pseudo-header field behind others",
            [&[(":method", "GET"), (":scheme", "http"), ("x-a", "b"), (":path", "/")][..]].concat(),
            Reset,
        ),
        (
            "the same host twice",
            with(&[("host", "A.example")]),
            Forwarded(&["host: a.example"]),
        ),
        ("another host", with(&[("host", "b.example")]), BAD_REQUEST),
        (
            "several hosts",
            with(&[("host", "a.example"), ("host", "b.example")]),
            Forwarded(&["host: a.example"]),
        ),
        (
            "a host alone",
            [but(":authority", None), vec![("host", "b.example")]].concat(),
            Forwarded(&["host: b.example"]),
        ),
        (
            "two hosts alone",
            [
                but(":authority", None),
                vec![("host", "a.example"), ("host", "b.example")],
            ]
            .concat(),
            BAD_REQUEST,
        ),
        ("no host at all", but(":authority", None), BAD_REQUEST),
        (
            "a user in the authority",
            but(":authority", Some("user@a.example")),
            BAD_REQUEST,
        ),
        ("a path in the authority", but(":authority", Some("a.example/b")), Reset),
        (
            "an authority that is a header",
            but(":authority", Some("a.example\r\nx-smuggled: 1")),
            Reset,
        ),
        (
            "cookies in pieces",
            with(&[("cookie", "a=1"), ("x-a", "b"), ("cookie", "c=2"), ("cookie", "d=3")]),
            Forwarded(&["cookie: a=1; c=2; d=3"]),
        ),
    ]
}

#[tokio::test]
async fn what_the_two_versions_could_read_differently_is_not_passed_on() {
    let app = HttpServer::answering("hello").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let mut faults = Vec::new();
    for (what, fields, fate) in cases() {
        let before = app.requests().len();
        let mut client = Http2Frames::connect(gateway.address("web")).await;
        client.request(1, &fields).await;
        let answer = client.find(|frame| matches!(frame.kind, 1 | 3 | 7)).await;
        let fits = match fate {
            Ended => answer.kind == 7 && answer.code() == Some(PROTOCOL_ERROR),
            Reset => answer.kind == 3 && answer.code() == Some(PROTOCOL_ERROR),
            Refused(status) => answer.kind == 1 && answer.payload.first() == Some(&status),
            Forwarded(_) => answer.kind == 1 && answer.payload.first() == Some(&0x88),
        };
        let requests = app.requests();
        let seen: Vec<_> = requests[before..]
            .iter()
            .map(|request| String::from_utf8_lossy(&request.raw))
            .collect();
        let sees = match fate {
            Forwarded(lines) => {
                let head = seen.concat().to_ascii_lowercase();
                let has = |line: &&str| head.split("\r\n").any(|known| known == line.to_ascii_lowercase());
                seen.len() == 1 && lines.iter().all(has) && !head.contains("smuggled")
            }
            _ => seen.is_empty(),
        };
        if !fits || !sees {
            faults.push(format!("{what}: the client got {answer:?}, the server saw {seen:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // Each of them has its line, and says why.
    let count = |fates: fn(&Fate) -> bool| cases().iter().filter(|(_, _, fate)| fates(fate)).count();
    let expected = [
        ("http2-protocol", count(|fate| matches!(fate, Ended))),
        ("http2-stream", count(|fate| matches!(fate, Reset))),
    ];
    eventually("each refusal has its line", async || {
        let lines = gateway.access_lines();
        expected
            .iter()
            .all(|(reason, count)| lines.iter().filter(|line| line["reason"] == *reason).count() == *count)
            && lines
                .iter()
                .any(|line| line["reason"] == "connect-method" && line["target"] == "a.example:443")
    })
    .await;
}

#[tokio::test]
async fn an_honest_client_may_open_its_windows_as_often_as_it_is_sent_something() {
    const SIZE: usize = 4 << 20;
    let app = HttpServer::start(|_| Answer::ok(vec![b'x'; SIZE])).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; http2 max-control-frames=10; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    client.request(1, &GET).await;
    let (mut got, mut pieces) = (0, 0);
    // One update for the stream and one for the connection with each piece, as the plainest of clients does.
    while got < SIZE {
        let piece = client.find(|frame| matches!(frame.kind, 0 | 3 | 7)).await;
        assert_eq!(piece.kind, 0, "{piece:?} after {pieces} pieces");
        got += piece.payload.len();
        pieces += 1;
        let opened = u32::try_from(piece.payload.len()).unwrap().to_be_bytes();
        if !piece.payload.is_empty() {
            client.send(frame(8, 0, 0, &opened)).await;
            client.send(frame(8, 0, 1, &opened)).await;
        }
    }
    assert!(pieces > 100, "{pieces}");
}

#[tokio::test]
async fn content_is_as_long_as_it_was_said_to_be() {
    let app = HttpServer::start(|request| Answer::ok(&request.body)).await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    for content in [&b"four"[..], b"sixsix"] {
        let mut client = Http2Frames::connect(gateway.address("web")).await;
        let mut head = GET.to_vec();
        head[0] = (":method", "POST");
        head.push(("content-length", "5"));
        client.send(frame(1, 4, 1, &block(&head))).await;
        client.send(frame(0, 1, 1, content)).await;
        let answer = client.find(|frame| matches!(frame.kind, 1 | 3 | 7)).await;
        assert_eq!((answer.kind, answer.code()), (3, Some(PROTOCOL_ERROR)), "{answer:?}");
        assert!(app.requests().is_empty(), "{content:?}: the server saw it whole");
    }
}

/// A gateway with narrow limits, and a client of it that behaves.
async fn narrow(app: &HttpServer) -> (Gateway, Http2Client) {
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            http2 max-streams=10 max-resets=50 max-control-frames=100
            timeout http-request="2s"
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let client = Http2Client::connect(gateway.address("web")).await;
    assert_eq!(client.get("/").await.text(), "hello");
    (gateway, client)
}

/// Heads of requests that have come to a server, whether or not their content did.
fn heads_seen(app: &HttpServer) -> usize {
    app.seen_text().matches(" HTTP/1.1\r\n").count()
}

#[tokio::test]
async fn floods_end_the_connection_that_they_come_on_and_no_other() {
    let app = HttpServer::answering("hello").await;
    let (gateway, honest) = narrow(&app).await;
    let open = |stream: u32| frame(1, 4, stream, &block(&GET));
    let reset = |stream: u32| frame(3, 0, stream, &8u32.to_be_bytes());
    // CVE-2023-44487; CVE-2019-9512, -9513, -9515 and -9518.
    // Each with the reason for its end, and how many heads of its requests a server may have seen by then: of those that have
    // begun, never one whole.
    let floods: [(&str, Vec<u8>, &str, usize); 11] = [
        (
            "resets",
            (0..5000)
                .flat_map(|n| [open(2 * n + 1), reset(2 * n + 1)].concat())
                .collect(),
            "http2-resets",
            50,
        ),
        ("pings", frame(6, 0, 0, b"12345678").repeat(5000), "http2-frames", 0),
        (
            "settings",
            frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(5000),
            "http2-frames",
            0,
        ),
        (
            "priorities",
            frame(2, 0, 3, &[0, 0, 0, 0, 16]).repeat(5000),
            "http2-frames",
            0,
        ),
        (
            "nothing",
            [open(1), frame(0, 0, 1, b"").repeat(5000)].concat(),
            "http2-frames",
            1,
        ),
        (
            "frames of no known type",
            frame(0xbe, 0, 0, b"").repeat(5000),
            "http2-frames",
            0,
        ),
        (
            "answers to pings that nobody sent",
            frame(6, 1, 0, b"12345678").repeat(5000),
            "http2-frames",
            0,
        ),
        (
            "windows of the connection",
            frame(8, 0, 0, &[0, 0, 0, 1]).repeat(5000),
            "http2-frames",
            0,
        ),
        (
            "windows of a stream",
            [open(1), frame(8, 0, 1, &[0, 0, 0, 1]).repeat(5000)].concat(),
            "http2-frames",
            1,
        ),
        (
            "padding",
            [open(1), frame(0, 8, 1, &[0]).repeat(5000)].concat(),
            "http2-frames",
            1,
        ),
        (
            "much padding",
            [open(1), frame(0, 8, 1, &[&[255][..], &[0; 255]].concat()).repeat(5000)].concat(),
            "http2-frames",
            1,
        ),
    ];
    let mut ended = HashMap::new();
    for (what, bytes, reason, most) in floods {
        let (resident, whole, heads) = (gateway.resident(), app.requests().len(), heads_seen(&app));
        let mut client = Http2Frames::connect(gateway.address("web")).await;
        let _ = client.try_send(&bytes).await;
        let frames = client.rest().await;
        let last = frames.iter().rev().find(|frame| frame.kind == 7);
        // One that is still sending may be reset before it reads why.
        if let Some(last) = last {
            assert_eq!(last.code(), Some(ENHANCE_YOUR_CALM), "{what}");
        }
        assert!(frames.len() < 1000, "{what}: {} frames in answer", frames.len());
        assert_eq!(app.requests().len(), whole, "{what}: a server saw one whole");
        let seen = heads_seen(&app) - heads;
        assert!(seen <= most, "{what}: a server saw {seen} heads");
        *ended.entry(reason).or_insert(0.0) += 1.0;
        let labels = [("frontend", "web"), ("reason", reason)];
        gateway
            .metric_is("gateway_frontend_errors_total", &labels, ended[reason])
            .await;
        assert_eq!(honest.get("/").await.text(), "hello", "{what}");
        let grown = gateway.resident().saturating_sub(resident);
        assert!(grown < 8 << 20, "{what}: {grown} bytes more");
    }
    eventually("each has its line", async || {
        let lines = gateway.access_lines();
        let count = |reason| lines.iter().filter(|line| line["reason"] == reason).count();
        (count("http2-resets"), count("http2-frames")) == (1, 10)
    })
    .await;
}

/// `max-resets=` says how many streams a client may reset, however few it may have at once, and though it says all of it in one breath.
/// What it sends that nobody needs is no event.
#[tokio::test]
async fn resets_within_their_limit_end_no_connection() {
    let app = HttpServer::answering("hello").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; http2 max-streams=2 max-resets=50; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    let taken_back = |stream| {
        let (open, reset) = (
            frame(1, 5, stream, &block(&GET)),
            frame(3, 0, stream, &8u32.to_be_bytes()),
        );
        [open, reset].concat()
    };
    let all: Vec<u8> = (0..50).flat_map(|n| taken_back(2 * n + 1)).collect();
    client.send(&all).await;
    client.send(frame(6, 1, 0, b"12345678").repeat(5)).await;
    client.request(101, &GET).await;
    let answer = client
        .find(|frame| frame.kind == 7 || (frame.kind == 1 && frame.stream == 101))
        .await;
    assert_eq!((answer.kind, answer.payload.first()), (1, Some(&0x88)), "{answer:?}");
    eventually("it has its line", async || {
        gateway.access_lines().iter().any(|line| line["status"] == 200)
    })
    .await;
    let output = gateway.output();
    assert!(!output.contains("never sent"), "{output}");
}

/// Who is at fault has its streams reset, and costs as much as one who resets them. Both count in ten seconds, and together.
#[tokio::test]
async fn faults_count_as_resets_do() {
    let app = HttpServer::answering("hello").await;
    let (gateway, honest) = narrow(&app).await;
    let mut faulty = GET.to_vec();
    faulty.push(("content-length", "5"));
    let reset = |stream: u32| frame(3, 0, stream, &8u32.to_be_bytes());
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    for n in 0..30 {
        client.request(4 * n + 1, &faulty).await;
        let answer = client.find(|frame| matches!(frame.kind, 3 | 7)).await;
        assert_eq!((answer.kind, answer.code()), (3, Some(PROTOCOL_ERROR)), "{n}");
        if n == 20 {
            break;
        }
        let open = frame(1, 4, 4 * n + 3, &block(&GET));
        client.send([open, reset(4 * n + 3)].concat()).await;
    }
    // Forty-one of fifty by now; and nine more.
    for n in 50..59 {
        client.request(4 * n + 1, &faulty).await;
        assert_eq!(client.find(|frame| matches!(frame.kind, 3 | 7)).await.kind, 3, "{n}");
    }
    client.request(4 * 60 + 1, &faulty).await;
    let end = client.find(|frame| frame.kind == 7).await;
    assert_eq!(end.code(), Some(ENHANCE_YOUR_CALM));
    let labels = [("frontend", "web"), ("reason", "http2-resets")];
    gateway.metric_is("gateway_frontend_errors_total", &labels, 1.0).await;
    assert_eq!(honest.get("/").await.text(), "hello");
}

/// A request that was refused was one: the connection waits for the next as any other, and is not taken for one that said nothing.
#[tokio::test]
async fn who_was_refused_has_asked() {
    let app = HttpServer::answering("hello").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" {
            bind "127.0.0.1:0"
            timeout http-request="1s" http-keep-alive="200ms"
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    client.request(1, &but(":path", None)).await;
    client.find(|frame| frame.kind == 3).await;
    assert!(client.ends().await);
    assert_eq!(
        Http2Client::connect(gateway.address("web")).await.get("/").await.status,
        200
    );
    let lines = gateway.access_log(2).await;
    assert_eq!(lines[0]["reason"], "http2-stream");
    assert_eq!(lines[1]["status"], 200, "no line of its own: {lines:?}");
}

/// A server has much on its way when a download is cancelled. What comes of that later is nobody's fault, and the connection is
/// everybody's.
#[tokio::test]
async fn cancelled_downloads_end_no_connection_to_a_server() {
    const CANCELLED: usize = 90;
    let app = Server::start(|wire, _| async move { with_much_on_its_way(wire, CANCELLED).await }).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" h2 }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let honest = Http2Client::connect(gateway.address("web")).await;
    let (response, _) = honest.open(http2_get("/long").map(drop), true).await;
    let mut content = within(PATIENCE, "its head", response).await.unwrap().into_body();

    let mut other = Http2Frames::connect(gateway.address("web")).await;
    for n in 0..CANCELLED as u32 {
        other.request(2 * n + 1, &GET).await;
        other.find(|frame| frame.kind == 0 && frame.stream == 2 * n + 1).await;
    }
    let reset = |n: u32| frame(3, 0, 2 * n + 1, &8u32.to_be_bytes());
    other
        .send((0..CANCELLED as u32).flat_map(reset).collect::<Vec<_>>())
        .await;

    // Sent behind all that was on its way.
    let end = within(PATIENCE, "the end of the download", drain(&mut content)).await;
    assert_eq!(end.unwrap(), b"xy");
    let frames = frames_of(&app.seen(0)[PREFACE..]);
    assert!(frames.iter().all(|(kind, _)| *kind != 7), "told to go away");
    let resets = frames.iter().filter(|(kind, _)| *kind == 3).count();
    assert_eq!(resets, CANCELLED, "what comes late is stepped over");
    assert_eq!(app.connections(), 1);
}

/// Answers each request with a byte. When so many streams have been reset, sends what had been on its way on them, and ends the first.
async fn with_much_on_its_way(mut wire: Wire, cancelled: usize) -> std::io::Result<()> {
    wire.exactly(PREFACE).await?;
    wire.send(frame(4, 0, 0, b"")).await?;
    let (mut first, mut reset) = (None, Vec::new());
    loop {
        let head = wire.exactly(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        wire.exactly(length).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match head[3] {
            4 if head[4] & 1 == 0 => wire.send(frame(4, 1, 0, b"")).await?,
            1 => {
                first.get_or_insert(stream);
                // `:status: 200`.
                let answer = [frame(1, 4, stream, &[0x88]), frame(0, 0, stream, b"x")];
                wire.send(answer.concat()).await?;
            }
            3 => reset.push(stream),
            _ => {}
        }
        if reset.len() == cancelled {
            for stream in reset.drain(..) {
                wire.send(frame(0, 0, stream, b"x").repeat(100)).await?;
            }
            wire.send(frame(0, 1, first.unwrap_or_default(), b"y")).await?;
        }
    }
}

#[tokio::test]
async fn heads_without_end_are_cut_short() {
    let app = HttpServer::answering("hello").await;
    let (gateway, honest) = narrow(&app).await;
    // CVE-2024-27316: each piece is small, and the head never ends.
    let resident = gateway.resident();
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    client.send(frame(1, 0, 1, &block(&GET))).await;
    let piece = frame(9, 0, 1, &block(&[("x-a", &"b".repeat(100))]));
    let _ = client.try_send(piece.repeat(20_000)).await;
    let frames = client.rest().await;
    if let Some(last) = frames.iter().find(|frame| frame.kind == 7) {
        assert_eq!(last.code(), Some(ENHANCE_YOUR_CALM), "{last:?}");
    }
    assert!(gateway.resident().saturating_sub(resident) < 8 << 20);
    assert_eq!(heads_seen(&app), 1, "nothing but what behaved");
    assert_eq!(honest.get("/").await.text(), "hello");

    // A head that is longer than it may be, but ends.
    for fields in [1, 200] {
        let mut client = Http2Frames::connect(gateway.address("web")).await;
        let long = "b".repeat(17_000 / fields);
        let many: Vec<_> = (0..fields).map(|_| ("x-a", long.as_str())).collect();
        let whole = block(&[&GET[..], &many].concat());
        let (first, second) = whole.split_at(whole.len().min(10_000));
        client.send(frame(1, 1, 1, first)).await;
        client.send(frame(9, 4, 1, second)).await;
        let answer = client.find(|frame| matches!(frame.kind, 1 | 3 | 7)).await;
        assert_eq!(answer.kind, 1, "{fields}: {answer:?}");
        assert_eq!(heads_seen(&app), 2, "{fields}: nothing but what behaved");
    }
    // A few bytes that stand for many: one field remembered, and named again and again (RFC 7541, section 7.3).
    let mut bomb = block(&GET);
    bomb.extend_from_slice(&[0x40, 3, b'x', b'-', b'a', 127, 0x81, 0x1e]);
    bomb.extend_from_slice(&[b'b'; 127 + 0x01 + (0x1e << 7)]);
    bomb.extend_from_slice(&[0xbe; 8_000]);
    let resident = gateway.resident();
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    client.send(frame(1, 5, 1, &bomb)).await;
    let answer = client.find(|frame| matches!(frame.kind, 1 | 3 | 7)).await;
    assert!(
        answer.kind == 1 || answer.code() == Some(ENHANCE_YOUR_CALM),
        "{answer:?}"
    );
    assert!(gateway.resident().saturating_sub(resident) < 8 << 20);
    assert_eq!(heads_seen(&app), 2, "nothing but what behaved");
    assert_eq!(honest.get("/").await.text(), "hello");
}

#[tokio::test]
async fn streams_and_windows_have_their_bounds() {
    let app = HttpServer::start(|request| match &*request.target {
        "/stall" => Answer::nothing().then_stall(),
        _ => Answer::ok("hello"),
    })
    .await;
    let (gateway, honest) = narrow(&app).await;
    // More streams than allowed: those beyond are refused, and can be sent again.
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    let mut stall = GET.to_vec();
    stall[3] = (":path", "/stall");
    for n in 0..11 {
        client.request(2 * n + 1, &stall).await;
    }
    let refused = client.find(|frame| matches!(frame.kind, 3 | 7)).await;
    assert_eq!((refused.stream, refused.code()), (21, Some(REFUSED_STREAM)));
    app.has_seen(11).await;

    // More than a window has room for.
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    let mut post = stall.clone();
    post[0] = (":method", "POST");
    client.send(frame(1, 4, 1, &block(&post))).await;
    let _ = client.try_send(frame(0, 0, 1, &[b'x'; 16_384]).repeat(200)).await;
    let end = client.find(|frame| matches!(frame.kind, 3 | 7)).await;
    assert_eq!(end.code(), Some(FLOW_CONTROL_ERROR), "{end:?}");
    assert_eq!(app.requests().len(), 11, "what goes beyond a window never comes whole");
    // Windows that grow beyond all bounds, or not at all.
    for (increment, code) in [(0x7fff_ffff_u32, FLOW_CONTROL_ERROR), (0, PROTOCOL_ERROR)] {
        let mut client = Http2Frames::connect(gateway.address("web")).await;
        client.send(frame(8, 0, 0, &increment.to_be_bytes())).await;
        let end = client.find(|frame| frame.kind == 7).await;
        assert_eq!(end.code(), Some(code));
        assert!(client.ends().await);
        assert_eq!(app.requests().len(), 11, "{increment}");
    }
    // A frame that is larger than was agreed.
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    client.send(frame(0, 0, 1, &[0; 16_385])).await;
    assert!(client.ends().await);
    assert_eq!(app.requests().len(), 11, "nor does a frame that is too large");
    assert_eq!(honest.get("/").await.text(), "hello");
}

#[tokio::test]
async fn a_client_that_reads_nothing_costs_little() {
    let app = HttpServer::start(|_| Answer::head_only(1 << 30).then_stream(1 << 30)).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; timeout client="2s"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let resident = gateway.resident();
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    // All the window that there is, on every stream.
    client.send(frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await;
    client
        .send(frame(8, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes()))
        .await;
    for n in 0..100 {
        client.request(2 * n + 1, &GET).await;
    }
    app.has_seen(100).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let grown = gateway.resident().saturating_sub(resident);
    assert!(grown < 64 << 20, "{grown} bytes more");
    // And it is not waited for without end.
    let lines = gateway.access_log(100).await;
    assert!(lines.iter().all(|line| line["termination"] == "cD"), "{:?}", lines[0]);
}

/// What `http2` says, the other side is told: in SETTINGS, and for the connection's window in WINDOW_UPDATE.
#[tokio::test]
async fn limits_are_announced_to_clients_and_servers_as_they_were_set() {
    let app = Server::start(|mut wire, _| async move { wire.rest().await.map(drop) }).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            http2 max-streams=7 stream-window="80000B" connection-window="200000B" max-frame-size="32KiB" header-table="8KiB"
            default-backend "app"
        }
        backend "app" {
            http2 stream-window="90000B" connection-window="300000B" max-frame-size="64KiB" header-table="2KiB"
            server "app-1" "@app" h2
        }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    let settings = client.find(|frame| frame.kind == 4 && frame.flags == 0).await;
    let told = settings_of(&settings.payload);
    let [table, streams, window, frame_size] = [1, 3, 4, 5].map(|id| told.get(&id).copied());
    assert_eq!(
        (table, streams, window, frame_size),
        (Some(8192), Some(7), Some(80_000), Some(32_768))
    );
    let opened = client.find(|frame| frame.kind == 8 && frame.stream == 0).await;
    assert_eq!(opened.payload, (200_000 - 65_535_u32).to_be_bytes());

    client.request(1, &GET).await;
    let mut frames = Vec::new();
    eventually("the server is told", async || {
        let seen = match app.connections() {
            0 => Vec::new(),
            _ => app.seen(0),
        };
        frames = frames_of(seen.get(PREFACE..).unwrap_or_default());
        frames.iter().any(|(kind, _)| *kind == 8)
    })
    .await;
    let payload = |wanted| frames.iter().find(|(kind, _)| *kind == wanted).unwrap().1.clone();
    let told = settings_of(&payload(4));
    let [table, window, frame_size] = [1, 4, 5].map(|id| told.get(&id).copied());
    assert_eq!((table, window, frame_size), (Some(2048), Some(90_000), Some(65_536)));
    assert_eq!(payload(8), (300_000 - 65_535_u32).to_be_bytes());
}

/// Who flushes with frames that are empty may go on for as long as it likes, a client as well as a server: the library would take
/// a hundred of them in a connection's life.
#[tokio::test]
async fn empty_frames_wear_no_connection_out() {
    let app = Http2Server::start(|exchange: Http2Exchange| async move {
        let Http2Exchange {
            mut request,
            mut respond,
            ..
        } = exchange;
        let content = drain(request.body_mut()).await?;
        let mut stream = respond.send_response(Response::new(()), false)?;
        for _ in 0..30 {
            stream.send_data(Bytes::new(), false)?;
            tokio::task::yield_now().await;
        }
        stream.send_data(content.into(), true)
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" h2 }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    for n in 0..10 {
        let stream = 2 * n + 1;
        client
            .send(frame(1, 4, stream, &block(&but(":method", Some("POST")))))
            .await;
        let empty = frame(0, 0, stream, b"");
        // In pieces that end wherever they like.
        for piece in empty.repeat(30).chunks(5 + n as usize) {
            client.send(piece).await;
        }
        client.send(frame(0, 1, stream, b"hello")).await;
        let answer = client
            .find(|frame| matches!(frame.kind, 0 | 3 | 7) && !frame.payload.is_empty())
            .await;
        assert_eq!((answer.kind, &*answer.payload), (0, &b"hello"[..]), "request {n}");
    }
    assert_eq!(app.connections(), 1, "of the server's own, too");
}

/// Frames that are all padding count in the windows, and the library has to see them. Before it has had enough, the client is asked to
/// connect anew, and loses nothing.
#[tokio::test]
async fn who_sends_padding_is_asked_to_connect_anew() {
    let app = HttpServer::answering("hello").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    client.send(frame(1, 4, 1, &block(&but(":method", Some("POST"))))).await;
    client.send(frame(0, 8, 1, &[3, 0, 0, 0]).repeat(60)).await;
    let away = client.find(|frame| frame.kind == 7).await;
    assert_eq!(away.code(), Some(0));
    client.send(frame(0, 1, 1, b"x")).await;
    let answer = client.find(|frame| frame.kind == 0).await;
    assert_eq!(answer.payload, b"hello");
}

/// Bytes of the connection preface.
const PREFACE: usize = 24;

/// The parameters in the payload of a SETTINGS frame (RFC 9113, section 6.5.1).
fn settings_of(payload: &[u8]) -> HashMap<u16, u32> {
    let parameter = |six: &[u8]| {
        let value = u32::from_be_bytes(six[2..].try_into().unwrap());
        (u16::from_be_bytes([six[0], six[1]]), value)
    };
    payload.chunks_exact(6).map(parameter).collect()
}

/// Kind and payload of each frame that is whole.
fn frames_of(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            break;
        };
        frames.push((head[3], payload.to_vec()));
        bytes = rest;
    }
    frames
}

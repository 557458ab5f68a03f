//! Servers that answer whole while their client still sends: what the client gets at once, what becomes of the rest of its request and
//! of its connection, and what the log says.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gateway_tests::http2::{Http2Client, Http2Server, http2_post, read};
use gateway_tests::{Client, Gateway, PATIENCE, Server, Wire, eventually, get, within};
use h2::Reason;
use http::{Request, Response};
use serde_json::Value;

const PLAIN: &str = r#"
    process { workers 1; log "stdout" format="json" }
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { server "app-1" "@app" }
"#;

/// What comes of the content before the answer, and behind it.
const BEGUN: usize = 1_000;
const REST: usize = 700_000;

/// How a server goes on behind an answer that it has given early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    ReadsOn,
    /// It has said that it ends the connection, and does.
    ClosesAsSaid,
    Closes,
    Stalls,
}

/// A server of HTTP/1.1 that answers a POST as soon as the beginning of its content has come; what it has read whole it notes.
struct Early {
    server: Server,
    whole: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Early {
    async fn start(then: Then) -> Self {
        let whole = Arc::<Mutex<Vec<_>>>::default();
        let noted = Arc::clone(&whole);
        let server = Server::start(move |wire, _| converse(wire, then, Arc::clone(&noted))).await;
        Self { server, whole }
    }

    fn whole(&self) -> Vec<(String, usize)> {
        self.whole.lock().unwrap().clone()
    }
}

async fn converse(mut wire: Wire, then: Then, whole: Arc<Mutex<Vec<(String, usize)>>>) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(wire.exactly(1).await?);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let length = head
            .split("content-length: ")
            .nth(1)
            .map(|rest| rest.split("\r\n").next());
        let length: usize = length.flatten().map_or(0, |length| length.parse().unwrap());
        let is_chunked = head.contains("transfer-encoding: chunked");
        let is_early = length > 0 || is_chunked;
        let begun = match (is_early, is_chunked) {
            (false, _) => 0,
            (true, false) => wire.exactly(BEGUN).await?.len(),
            (true, true) => chunk(&mut wire).await?,
        };
        let close = if is_early && then == Then::ClosesAsSaid {
            "Connection: close\r\n"
        } else {
            ""
        };
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{close}\r\nearly"))
            .await?;
        match then {
            Then::ClosesAsSaid | Then::Closes if is_early => return Ok(()),
            Then::Stalls if is_early => return std::future::pending().await,
            _ => {}
        }
        let mut read = begun;
        if is_chunked {
            loop {
                match chunk(&mut wire).await? {
                    0 => break,
                    more => read += more,
                }
            }
        } else if length > begun {
            read += wire.exactly(length - begun).await?.len();
        }
        whole.lock().unwrap().push((target, read));
    }
}

/// Reads a chunk, or the last and what stands behind it. Answers its length.
async fn chunk(wire: &mut Wire) -> io::Result<usize> {
    let size = line(wire).await?;
    let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
    wire.exactly(size).await?;
    while !line(wire).await?.is_empty() {}
    Ok(size)
}

async fn line(wire: &mut Wire) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(wire.exactly(1).await?);
    }
    Ok(String::from_utf8_lossy(&line[..line.len() - 2]).into_owned())
}

/// Sends the head of an upload and the beginning of its content, and has its answer then.
async fn begin(client: &mut Client, framing: &str, begun: &str) {
    client
        .send(format!("POST /upload HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{begun}"))
        .await;
    let answer = client.response_to("POST").await;
    assert_eq!((answer.status, answer.text()), (200, "early"));
}

async fn begin_with_length(client: &mut Client) {
    let framing = format!("Content-Length: {}", BEGUN + REST);
    begin(client, &framing, &"b".repeat(BEGUN)).await;
}

/// A chunk that is longer than what the server reads before it answers.
async fn begin_in_chunks(client: &mut Client) {
    let begun = format!("{BEGUN:x}\r\n{}\r\n", "b".repeat(BEGUN));
    begin(client, "Transfer-Encoding: chunked", &begun).await;
}

async fn is_served(client: &mut Client, what: &str) {
    let answer = client.ask(get("/next")).await;
    assert_eq!((answer.status, answer.text()), (200, "early"), "{what}");
}

fn ended(line: &Value) -> (&str, Option<&str>) {
    (line["termination"].as_str().unwrap(), line["reason"].as_str())
}

#[tokio::test]
async fn the_upload_goes_on_to_a_server_that_reads_on() {
    for in_chunks in [false, true] {
        let app = Early::start(Then::ReadsOn).await;
        let gateway = Gateway::kdl(PLAIN).with("@app", app.server.address()).start().await;
        let mut client = gateway.connect("web").await;
        if in_chunks {
            begin_in_chunks(&mut client).await;
            client
                .send(format!("4\r\nrest\r\n{REST:x}\r\n{}\r\n", "r".repeat(REST)))
                .await;
            // Trailers, too, and a request that does not wait.
            let next = format!("POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: {BEGUN}\r\n\r\n");
            client
                .send(format!("0\r\nX: y\r\n\r\n{next}{}", "n".repeat(BEGUN)))
                .await;
            assert_eq!(client.response_to("POST").await.text(), "early");
        } else {
            begin_with_length(&mut client).await;
            client.send("r".repeat(REST)).await;
        }
        is_served(&mut client, "behind an upload").await;
        let of_upload = BEGUN + REST + if in_chunks { "rest".len() } else { 0 };
        let mut expected = vec![("/upload", of_upload), ("/next", 0)];
        if in_chunks {
            expected.insert(1, ("/next", BEGUN));
        }
        eventually("the server has read all", async || app.whole().len() >= expected.len()).await;
        let whole = app.whole();
        let whole: Vec<_> = whole.iter().map(|(target, read)| (&**target, *read)).collect();
        assert_eq!(whole, expected);
        // The server's connection was not given up either.
        assert_eq!(app.server.connections(), 1);
        let lines = gateway.access_log(expected.len()).await;
        assert!(lines.iter().all(|line| ended(line) == ("--", None)), "{lines:?}");
        assert!(lines[0]["bytes_received"].as_u64().unwrap() >= (BEGUN + REST) as u64);
        assert_eq!(lines[0]["target"], "/upload");
    }
}

#[tokio::test]
async fn a_client_goes_on_behind_an_upload_that_nobody_takes() {
    let timeouts = PLAIN.replace("server \"app-1\"", "timeout server=\"300ms\"; server \"app-1\"");
    for (then, expected) in [
        (Then::ClosesAsSaid, ("--", None)),
        (Then::Closes, ("SD", Some("upload-cut"))),
        (Then::Stalls, ("sD", Some("server-timeout"))),
    ] {
        let app = Early::start(then).await;
        let gateway = Gateway::kdl(&timeouts).with("@app", app.server.address()).start().await;
        let mut client = gateway.connect("web").await;
        // More than the sockets on the way to a server that does not read hold.
        let rest = if then == Then::Stalls { 12 << 20 } else { REST };
        let framing = format!("Content-Length: {}", BEGUN + rest);
        begin(&mut client, &framing, &"b".repeat(BEGUN)).await;
        client.send("r".repeat(rest)).await;
        is_served(&mut client, &format!("{then:?}")).await;
        // Nothing was sent twice.
        assert_eq!(app.server.seen_text().matches("POST /upload").count(), 1, "{then:?}");
        let lines = gateway.access_log(2).await;
        assert_eq!(
            (ended(&lines[0]), &lines[0]["status"]),
            (expected, &200.into()),
            "{then:?}"
        );
        assert_eq!(ended(&lines[1]), ("--", None), "{then:?}");
    }
}

#[tokio::test]
async fn what_nobody_takes_is_read_up_to_a_bound() {
    let app = Early::start(Then::ClosesAsSaid).await;
    let limited = PLAIN.replace("default-backend", "request-limits unread=\"64KiB\"; default-backend");
    let none = PLAIN.replace("default-backend", "request-limits unread=\"1B\"; default-backend");
    let short = PLAIN.replace("default-backend", "timeout unread=\"300ms\"; default-backend");
    for (what, kdl, in_chunks, sends) in [
        ("as it comes", &limited, true, true),
        ("as it is said to be", &limited, false, false),
        ("next to nothing", &none, true, true),
        ("for so long", &short, true, false),
    ] {
        let gateway = Gateway::kdl(kdl).with("@app", app.server.address()).start().await;
        let mut client = gateway.connect("web").await;
        match in_chunks {
            true => begin_in_chunks(&mut client).await,
            false => begin_with_length(&mut client).await,
        }
        if sends {
            let _ = client.try_send(format!("{REST:x}\r\n{}\r\n", "r".repeat(REST))).await;
        }
        client.closed().await;
        let line = gateway.access_log(1).await.remove(0);
        assert_eq!(ended(&line), ("PD", Some("unread-content")), "{what}: {line}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_or_stalls_in_its_upload_is_said_to() {
    let timeouts = PLAIN.replace("default-backend", "timeout client=\"400ms\"; default-backend");
    for (leaves, expected) in [(true, "CD"), (false, "cD")] {
        let app = Early::start(Then::ReadsOn).await;
        let gateway = Gateway::kdl(&timeouts).with("@app", app.server.address()).start().await;
        let mut client = gateway.connect("web").await;
        begin_with_length(&mut client).await;
        client.send("r".repeat(REST / 2)).await;
        if leaves {
            client.reset();
        } else {
            client.closed().await;
        }
        let line = gateway.access_log(1).await.remove(0);
        assert_eq!(
            (line["termination"].as_str(), &line["status"]),
            (Some(expected), &200.into())
        );
        assert!(app.whole().is_empty());
    }
}

#[tokio::test]
async fn a_client_that_leaves_where_nobody_takes_its_upload_has_missed_nothing() {
    let app = Early::start(Then::ClosesAsSaid).await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.server.address()).start().await;
    let mut client = gateway.connect("web").await;
    begin_with_length(&mut client).await;
    // The server has been let go.
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "app-1")], 0.0)
        .await;
    client.reset();
    assert_eq!(ended(&gateway.access_log(1).await[0]), ("--", None));
}

/// What hides behind trailers with bare LF is no request, nor is what comes behind them: see `bare_lines`.
#[tokio::test]
async fn nothing_is_served_behind_trailers_that_may_have_been_read_otherwise() {
    let app = Early::start(Then::ReadsOn).await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.server.address()).start().await;
    let mut client = gateway.connect("web").await;
    begin_in_chunks(&mut client).await;
    client
        .send("0\r\nX: y\n\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    client.closed().await;
    eventually("the server has read it", async || !app.whole().is_empty()).await;
    assert_eq!(app.whole(), [("/upload".to_owned(), BEGUN)]);
    assert_eq!(ended(&gateway.access_log(1).await[0]), ("--", None));
}

/// hyper may have done with a connection before the last of an upload has gone to its server.
#[tokio::test]
async fn an_upload_goes_on_whole_though_its_connection_ends_with_it() {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum End {
        AsAsked,
        HalfClose,
        Drain,
        DrainAsAsked,
        BadHead,
    }
    for end in [
        End::AsAsked,
        End::HalfClose,
        End::Drain,
        End::DrainAsAsked,
        End::BadHead,
    ] {
        let app = Early::start(Then::ReadsOn).await;
        let gateway = Gateway::kdl(PLAIN).with("@app", app.server.address()).start().await;
        let mut client = gateway.connect("web").await;
        let asks = matches!(end, End::AsAsked | End::DrainAsAsked);
        let close = if asks { "Connection: close\r\n" } else { "" };
        let framing = format!("{close}Content-Length: {}", BEGUN + REST);
        begin(&mut client, &framing, &"b".repeat(BEGUN)).await;
        if matches!(end, End::Drain | End::DrainAsAsked) {
            gateway.terminate();
            gateway.says("draining").await;
        }
        let bad = if end == End::BadHead {
            "GET / HTTP/1.1\r\nBad Name: x\r\n\r\n"
        } else {
            ""
        };
        client.send(format!("{}{bad}", "r".repeat(REST))).await;
        if end == End::HalfClose {
            client.half_close().await;
        }
        let refused = client.try_response().await.map(|answer| answer.status);
        assert_eq!(refused, (end == End::BadHead).then_some(400), "{end:?}");
        let lines = gateway.access_log(1).await;
        assert_eq!(ended(&lines[0]), ("--", None), "{end:?}: {}", lines[0]);
        eventually("the server has read all", async || !app.whole().is_empty()).await;
        assert_eq!(app.whole(), [("/upload".to_owned(), BEGUN + REST)], "{end:?}");
    }
}

/// Nothing of what is sent is answered with a reset, which may take the answer away (RFC 9112, section 9.6).
#[tokio::test]
async fn what_nobody_takes_does_not_reset_its_connection() {
    let limited = PLAIN.replace("default-backend", "request-limits body=\"64KiB\"; default-backend");
    // More than the sockets on the way hold.
    let rest = "r".repeat(12 << 20);
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for (what, kdl, behind, expected) in [
        (
            "more than a body may have",
            &*limited,
            format!("{:x}\r\n{rest}\r\n", rest.len()),
            ("PD", Some("body-too-large")),
        ),
        (
            "requests that are not served",
            PLAIN,
            // The first belongs to the trailers.
            format!("0\r\nX: y\n\n{hidden}{hidden}{rest}"),
            ("--", None),
        ),
    ] {
        let app = Early::start(Then::ReadsOn).await;
        let gateway = Gateway::kdl(kdl).with("@app", app.server.address()).start().await;
        let mut client = gateway.connect("web").await;
        begin_in_chunks(&mut client).await;
        let sent = client.try_send(behind).await;
        assert!(sent.is_ok(), "{what}: {sent:?}");
        client.closed().await;
        assert_eq!(ended(&gateway.access_log(1).await[0]), expected, "{what}");
    }
}

/// A client whose content is not read owes none of it: it is idle, and has the time of one that is.
#[tokio::test]
async fn a_client_is_not_late_with_what_nobody_takes() {
    let app = Early::start(Then::ClosesAsSaid).await;
    let limits = "timeout client=\"300ms\" http-keep-alive=\"20s\"; request-limits unread=\"64KiB\"; default-backend";
    let kdl = PLAIN.replace("default-backend", limits);
    let gateway = Gateway::kdl(&kdl).with("@app", app.server.address()).start().await;
    let mut client = gateway.connect("web").await;
    let rest = 12 << 20;
    let framing = format!("Content-Length: {}", BEGUN + rest);
    begin(&mut client, &framing, &"b".repeat(BEGUN)).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let sent = client.try_send("r".repeat(rest)).await;
    assert!(sent.is_ok(), "{sent:?}");
    let line = gateway.access_log(1).await.remove(0);
    assert_eq!(ended(&line), ("PD", Some("unread-content")));
}

/// A server of HTTP/2 that answers a POST at once.
async fn early_streams(reset: Option<Reason>) -> (Http2Server, Arc<Mutex<Vec<usize>>>) {
    let whole = Arc::<Mutex<Vec<_>>>::default();
    let noted = Arc::clone(&whole);
    let server = Http2Server::start(move |mut exchange| {
        let noted = Arc::clone(&noted);
        async move {
            let mut stream = exchange.respond.send_response(Response::new(()), false)?;
            stream.send_data(Bytes::from_static(b"early"), true)?;
            let request = exchange.request.body_mut();
            if let (Some(reason), false) = (reset, request.is_end_stream()) {
                // Behind what has been sent, and not in its place.
                tokio::time::sleep(Duration::from_millis(50)).await;
                stream.send_reset(reason);
                return Ok(());
            }
            let mut read = 0;
            while let Some(piece) = request.data().await {
                let piece = piece?;
                read += piece.len();
                request.flow_control().release_capacity(piece.len())?;
            }
            noted.lock().unwrap().push(read);
            Ok(())
        }
    })
    .await;
    (server, whole)
}

#[tokio::test]
async fn a_server_of_http_2_reads_on_or_says_that_it_does_not() {
    let kdl = PLAIN.replace("\"@app\"", "\"@app\" h2");
    for (reset, expected) in [
        (None, ("--", None)),
        (Some(Reason::NO_ERROR), ("--", None)),
        (Some(Reason::CANCEL), ("SD", Some("upload-cut"))),
    ] {
        let (app, whole) = early_streams(reset).await;
        let gateway = Gateway::kdl(&kdl).with("@app", app.address()).start().await;
        let mut client = gateway.connect("web").await;
        begin_with_length(&mut client).await;
        client.send("r".repeat(REST)).await;
        is_served(&mut client, &format!("{reset:?}")).await;
        let lines = gateway.access_log(2).await;
        assert_eq!(ended(&lines[0]), expected, "{reset:?}: {}", lines[0]);
        assert_eq!(ended(&lines[1]), ("--", None), "{reset:?}");
        let expected = if reset.is_some() {
            vec![0]
        } else {
            vec![0, BEGUN + REST]
        };
        let uploads = || {
            let mut uploads = whole.lock().unwrap().clone();
            uploads.sort_unstable();
            uploads
        };
        eventually("the server has read it", async || uploads().len() >= expected.len()).await;
        assert_eq!(uploads(), expected, "{reset:?}");
    }
}

/// Sends a beginning on a stream and has the answer whole.
async fn begin_on_stream(client: &Http2Client, rest: usize) -> h2::SendStream<Bytes> {
    let request = Request::post("http://app.example/upload").header("content-length", BEGUN + rest);
    let (response, mut stream) = client.open(request.body(()).unwrap(), false).await;
    stream.send_data("b".repeat(BEGUN).into(), false).unwrap();
    let answer = within(PATIENCE, "the answer", read(response)).await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "early"));
    stream
}

#[tokio::test]
async fn a_stream_goes_on_as_long_as_its_server_takes_it() {
    let (streams, of_streams) = early_streams(None).await;
    let app = Early::start(Then::ReadsOn).await;
    let to_streams = PLAIN.replace("\"@app\"", "\"@app\" h2");
    for (what, kdl, address) in [
        ("HTTP/1.1", PLAIN, app.server.address()),
        ("HTTP/2", &*to_streams, streams.address()),
    ] {
        let gateway = Gateway::kdl(kdl).with("@app", address).start().await;
        let client = Http2Client::connect(gateway.address("web")).await;
        let mut stream = begin_on_stream(&client, REST).await;
        stream.send_data("r".repeat(REST).into(), true).unwrap();
        let line = gateway.access_log(1).await.remove(0);
        assert_eq!(ended(&line), ("--", None), "{what}: {line}");
        assert_eq!(line["bytes_received"], BEGUN + REST, "{what}");
    }
    eventually("the server has read it", async || !app.whole().is_empty()).await;
    assert_eq!(app.whole(), [("/upload".to_owned(), BEGUN + REST)]);
    eventually("the server has read it", async || {
        !of_streams.lock().unwrap().is_empty()
    })
    .await;
    assert_eq!(*of_streams.lock().unwrap(), [BEGUN + REST]);
}

#[tokio::test]
async fn a_stream_that_nobody_takes_is_ended_without_an_error() {
    let timeouts = PLAIN.replace("server \"app-1\"", "timeout server=\"300ms\"; server \"app-1\"");
    let (streams, _) = early_streams(Some(Reason::NO_ERROR)).await;
    let as_said = Early::start(Then::ClosesAsSaid).await;
    let closes = Early::start(Then::Closes).await;
    let to_streams = PLAIN.replace("\"@app\"", "\"@app\" h2");
    for (what, kdl, address, expected) in [
        ("closes as it said", PLAIN, as_said.server.address(), ("--", None)),
        ("closes", PLAIN, closes.server.address(), ("SD", Some("upload-cut"))),
        ("says so", &*to_streams, streams.address(), ("--", None)),
    ] {
        let gateway = Gateway::kdl(kdl).with("@app", address).start().await;
        let client = Http2Client::connect(gateway.address("web")).await;
        let mut stream = begin_on_stream(&client, REST).await;
        let reason = within(PATIENCE, what, std::future::poll_fn(|cx| stream.poll_reset(cx))).await;
        assert_eq!(reason.unwrap(), Reason::NO_ERROR, "{what}");
        let line = gateway.access_log(1).await.remove(0);
        assert_eq!(ended(&line), expected, "{what}: {line}");
        // Others on the connection do not feel it.
        assert_eq!(client.get("/next").await.text(), "early", "{what}");
    }
    // One that stalls is given its time.
    let app = Early::start(Then::Stalls).await;
    let gateway = Gateway::kdl(&timeouts).with("@app", app.server.address()).start().await;
    let client = Http2Client::connect(gateway.address("web")).await;
    let mut stream = begin_on_stream(&client, 12 << 20).await;
    stream.send_data(vec![b'r'; 12 << 20].into(), false).unwrap();
    let reason = within(PATIENCE, "a stall", std::future::poll_fn(|cx| stream.poll_reset(cx))).await;
    assert_eq!(reason.unwrap(), Reason::NO_ERROR);
    assert_eq!(ended(&gateway.access_log(1).await[0]), ("sD", Some("server-timeout")));
}

#[tokio::test]
async fn a_stream_whose_client_leaves_is_said_to_be_left() {
    let app = Early::start(Then::ReadsOn).await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.server.address()).start().await;
    let client = Http2Client::connect(gateway.address("web")).await;
    let mut stream = begin_on_stream(&client, REST).await;
    stream.send_reset(Reason::CANCEL);
    assert_eq!(gateway.access_log(1).await[0]["termination"], "CD");
    assert_eq!(
        client.ask(http2_post("/whole", "b".repeat(BEGUN))).await.text(),
        "early"
    );
    assert_eq!(app.whole(), [("/whole".to_owned(), BEGUN)]);
}

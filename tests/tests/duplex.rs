//! Both directions of an exchange at once: neither waits for the other, whoever is slow to read.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::http2::Http2Server;
use gateway_tests::{Client, Gateway, PATIENCE, Server, within};
use http::Response;

/// More than sockets and buffers on the way hold.
const UPLOAD: usize = 48 << 20;
const ANSWER: usize = 48 << 20;

/// A server that answers at once with this head and much content, and reads the request's meanwhile.
async fn answering_at_once(head: &'static str, content: Vec<u8>) -> Server {
    let content = bytes::Bytes::from(content);
    Server::start(move |mut wire, _| {
        let content = content.clone();
        async move {
            let mut seen = Vec::new();
            while !seen.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                seen.extend(wire.exactly(1).await?);
            }
            wire.send(head).await?;
            wire.send_and_skip(&content, UPLOAD as u64).await
        }
    })
    .await
}

/// A request with a long body, which the client sends whole before it reads anything.
async fn upload(client: &mut Client) {
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD}\r\n\r\n");
    client.send(head).await;
    let piece = vec![b'u'; 1 << 20];
    for _ in 0..UPLOAD / piece.len() {
        client.send(&piece).await;
    }
}

const PLAIN: &str = r#"
    process { workers 1; log "stdout" format="json" }
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { server "app-1" "@app" }
"#;

#[tokio::test]
async fn who_sends_without_reading_is_not_held_up_by_the_answer() {
    let length = format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER}\r\n\r\n");
    let known = answering_at_once(length.leak(), vec![b'a'; ANSWER]).await;
    let mut chunk = format!("{ANSWER:x}\r\n").into_bytes();
    chunk.resize(chunk.len() + ANSWER, b'a');
    chunk.extend(b"\r\n0\r\n\r\n");
    let chunked = answering_at_once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk).await;
    let streams = Http2Server::start(async |mut exchange| {
        let mut stream = exchange.respond.send_response(Response::new(()), false)?;
        stream.send_data(vec![b'a'; ANSWER].into(), true)?;
        let request = exchange.request.body_mut();
        while let Some(piece) = request.data().await {
            request.flow_control().release_capacity(piece?.len())?;
        }
        Ok(())
    })
    .await;
    let over_http2 = PLAIN.replace("\"@app\"", "\"@app\" h2");
    for (what, kdl, app) in [
        ("a known length", PLAIN, known.address()),
        ("chunks", PLAIN, chunked.address()),
        ("a stream", &over_http2, streams.address()),
    ] {
        let gateway = Gateway::kdl(kdl).with("@app", app).start().await;
        let mut client = gateway.connect("web").await;
        within(PATIENCE, what, upload(&mut client)).await;
        let answer = client.response_to("POST").await;
        assert_eq!((answer.status, answer.body.len()), (200, ANSWER), "{what}");
        let line = gateway.access_log(1).await.remove(0);
        assert_eq!(line["termination"], "--", "{what}: {line}");
    }
}

/// What goes wrong with the content is the client's doing, though the server has begun to answer.
#[tokio::test]
async fn content_that_becomes_too_long_behind_the_answers_head_is_not_held_against_the_server() {
    let app = answering_at_once("HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n", b"begun".to_vec()).await;
    let limited = PLAIN.replace("bind", "request-limits body=\"1KiB\"; bind");
    let gateway = Gateway::kdl(&limited).with("@app", app.address()).start().await;
    let mut client = gateway.connect("web").await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n")
        .await;
    assert_eq!(client.response_head().await.status, 200);
    client.exactly(5).await;
    client.send(format!("1000\r\n{}\r\n", "x".repeat(4096))).await;
    client.until_end().await;
    let line = gateway.access_log(1).await.remove(0);
    assert_eq!(
        (line["reason"].as_str(), line["termination"].as_str()),
        (Some("body-too-large"), Some("PD")),
        "{line}"
    );
}

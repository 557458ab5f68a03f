//! Compression: what clients take, decoded by decoders of other people, and everything that is to be left as it is.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::Duration;

use async_compression::tokio::write::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use gateway_tests::{Answer, Client, Gateway, HttpServer, RequestText, eventually, get, head};
use tokio::io::AsyncWriteExt;

async fn gateway(says: &str, app: &HttpServer) -> Gateway {
    Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            @says
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@says", says)
    .with("@app", app.address())
    .start()
    .await
}

/// What these bytes are of; `part` is whether more would follow.
async fn decoded(coding: &str, bytes: &[u8], part: bool) -> Vec<u8> {
    macro_rules! through {
        ($decoder:ident) => {{
            let mut decoder = $decoder::new(Vec::new());
            decoder.write_all(bytes).await.unwrap();
            match part {
                true => decoder.flush().await.unwrap(),
                false => decoder.shutdown().await.unwrap(),
            }
            decoder.into_inner()
        }};
    }
    match coding {
        "br" => through!(BrotliDecoder),
        "zstd" => through!(ZstdDecoder),
        "gzip" => through!(GzipDecoder),
        other => panic!("no decoder for {other}"),
    }
}

/// A page of some length that is not all the same.
fn page(length: usize) -> Vec<u8> {
    let lines = (0u64..).map(|i| format!("<li class=\"row\">{}</li>\n", i.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let mut page: Vec<u8> = lines.take(length / 20).flat_map(String::into_bytes).collect();
    page.resize(length, b' ');
    page
}

fn taking(codings: &str) -> RequestText {
    get("/").header("Accept-Encoding", codings)
}

#[tokio::test]
async fn each_coding_comes_back_byte_for_byte() {
    let content = page(300_000);
    let body = content.clone();
    let app = HttpServer::start(move |_| {
        Answer::ok(&body)
            .header("Content-Type", "text/html; charset=utf-8")
            .header("ETag", "\"v1\"")
            .header("Accept-Ranges", "bytes")
    })
    .await;
    let gateway = gateway(r#"compress "br" "zstd" "gzip""#, &app).await;
    let mut client = gateway.connect("web").await;
    for (takes, coding) in [
        ("gzip, deflate, br, zstd", "br"),
        ("zstd, gzip;q=0.5", "zstd"),
        ("gzip", "gzip"),
    ] {
        let answer = client.ask(taking(takes)).await;
        assert_eq!(answer.header("content-encoding"), Some(coding));
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        assert_eq!(answer.header("etag"), Some("W/\"v1\""));
        assert_eq!(answer.header("content-length"), None);
        assert_eq!(answer.header("accept-ranges"), None);
        assert!(answer.body.len() < content.len() / 2, "{coding}: {}", answer.body.len());
        assert!(decoded(coding, &answer.body, false).await == content, "{coding}");
        // The line counts what the client got.
        let lines = gateway.access_log(1).await;
        let line = lines.last().unwrap();
        assert!(
            line["bytes_sent"].as_u64().unwrap() < content.len() as u64 / 2,
            "{line}"
        );
    }
    // Servers are told what the client takes, unless told otherwise.
    assert_eq!(app.last().headers.get("accept-encoding"), Some("gzip"));
}

#[tokio::test]
async fn who_takes_no_coding_gets_the_content_as_it_is() {
    let content = page(5_000);
    let body = content.clone();
    let app = HttpServer::start(move |_| {
        Answer::ok(&body)
            .header("Content-Type", "text/plain")
            .header("ETag", "\"v1\"")
            .header("Vary", "Origin")
    })
    .await;
    let gateway = gateway(r#"compress "gzip" offload"#, &app).await;
    let mut client = gateway.connect("web").await;
    for request in [
        get("/"),
        taking("br"),
        taking("gzip;q=0"),
        taking("identity, gzip;q=0.5"),
        taking("*;q=0"),
    ] {
        let answer = client.ask(request).await;
        assert_eq!(answer.header("content-encoding"), None);
        assert_eq!(answer.header("content-length"), Some("5000"));
        assert_eq!(answer.header("etag"), Some("\"v1\""));
        assert_eq!(
            answer.headers.all("vary").collect::<Vec<_>>(),
            ["Origin", "Accept-Encoding"]
        );
        assert!(answer.body == content);
        assert_eq!(app.last().headers.get("accept-encoding"), None);
    }
    let old = "GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n";
    let answer = gateway.raw("web", old).await;
    assert!(!answer.contains("content-encoding") && answer.as_bytes().ends_with(&content[4900..]));
}

#[tokio::test]
async fn content_that_is_not_to_be_changed_is_not() {
    let app = HttpServer::start(|request| {
        let text = |answer: Answer| answer.header("Content-Type", "text/plain");
        let body = page(4_000);
        match request.target.as_str() {
            "/image" => Answer::ok(&body).header("Content-Type", "image/png"),
            "/untyped" => Answer::ok(&body),
            "/short" => text(Answer::ok(&body[..1023])),
            "/coded" => text(Answer::ok(&body)).header("Content-Encoding", "br"),
            "/no-transform" => text(Answer::ok(&body)).header("Cache-Control", "max-age=1, no-transform"),
            "/digest" => text(Answer::ok(&body)).header("Content-Digest", "sha-256=:AAAA:"),
            "/grpc" => Answer::ok(&body).header("Content-Type", "application/grpc"),
            "/part" => text(Answer::status(206).body(&body)).header("Content-Range", "bytes 0-3999/8000"),
            "/304" => text(Answer::status(304)).header("ETag", "\"v1\""),
            "/text" => text(Answer::ok(&body)),
            _ => text(Answer::status(204)),
        }
    })
    .await;
    let gateway = gateway(r#"compress "gzip" { types "text/*" "application/*" }"#, &app).await;
    let mut client = gateway.connect("web").await;
    for path in [
        "/image",
        "/untyped",
        "/short",
        "/coded",
        "/no-transform",
        "/digest",
        "/grpc",
        "/part",
        "/304",
        "/204",
    ] {
        let answer = client.ask(get(path).header("Accept-Encoding", "gzip")).await;
        let coded = (path == "/coded").then_some("br");
        assert_eq!(answer.header("content-encoding"), coded, "{path}");
        assert!(
            answer.body.is_empty() || answer.body == page(4_000)[..answer.body.len()],
            "{path}"
        );
        assert_ne!(answer.header("etag"), Some("W/\"v1\""), "{path}");
    }
    // A client may ask for that, too.
    for (asked, coding) in [("no-cache", Some("gzip")), ("no-transform", None)] {
        let request = get("/text")
            .header("Accept-Encoding", "gzip")
            .header("Cache-Control", asked);
        let answer = client.ask(request).await;
        assert_eq!(answer.header("content-encoding"), coding, "{asked}");
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"), "{asked}");
    }
}

#[tokio::test]
async fn head_is_answered_with_the_head_that_get_would_have() {
    let app = HttpServer::start(|_| Answer::ok(page(4_000)).header("Content-Type", "application/vnd.api+json")).await;
    let gateway = gateway(r#"compress "zstd""#, &app).await;
    let mut client = gateway.connect("web").await;
    let answer = client.ask(head("/").header("Accept-Encoding", "zstd")).await;
    assert_eq!(answer.header("content-encoding"), Some("zstd"));
    assert_eq!(answer.header("content-length"), None);
    // And the connection is where it was.
    let answer = client.ask(taking("zstd")).await;
    assert!(decoded("zstd", &answer.body, false).await == page(4_000));
}

/// A cache that has a response under a weak tag takes a 304 with a strong one for another's.
#[tokio::test]
async fn what_a_client_has_under_a_weak_tag_stays_under_it() {
    let app = HttpServer::start(|request| {
        match request.headers.get("if-none-match") {
            None => Answer::ok(page(2_000)).header("Content-Type", "text/html"),
            Some(_) => Answer::status(304),
        }
        .header("ETag", "\"a,b\"")
    })
    .await;
    let gateway = gateway("compress \"gzip\"", &app).await;
    let first = gateway.ask("web", taking("gzip")).await;
    assert_eq!(first.header("etag"), Some("W/\"a,b\""));
    for (known, expected) in [
        ("W/\"a,b\"", "W/\"a,b\""),
        ("W/\"x\", W/\"a,b\"", "W/\"a,b\""),
        ("\"a,b\"", "\"a,b\""),
        ("W/\"b\"", "\"a,b\""),
    ] {
        let again = gateway.ask("web", taking("gzip").header("If-None-Match", known)).await;
        assert_eq!((again.status, again.header("etag")), (304, Some(expected)), "{known}");
    }
}

#[tokio::test]
async fn events_are_with_the_client_before_the_next_one_comes() {
    let app = HttpServer::start(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            .then_send("9\r\ndata: 1\n\n\r\n")
            .then_stall()
    })
    .await;
    let gateway = gateway(r#"compress "br" "zstd" "gzip""#, &app).await;
    for coding in ["br", "zstd", "gzip"] {
        let mut client = gateway.connect("web").await;
        client.send(taking(coding).bytes()).await;
        assert_eq!(client.response_head().await.header("content-encoding"), Some(coding));
        // The server has stalled: what comes now was held back by nobody.
        let mut coded = Vec::new();
        while decoded(coding, &coded, true).await != b"data: 1\n\n" {
            let size = String::from_utf8(line(&mut client).await).unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            coded.extend(client.exactly(size).await);
            client.exactly(2).await;
        }
    }
}

async fn line(client: &mut Client) -> Vec<u8> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(client.exactly(1).await);
    }
    line
}

#[tokio::test]
async fn trailers_and_chunks_pass_behind_coded_content() {
    let app = HttpServer::start(|_| {
        Answer::raw(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n",
        )
    })
    .await;
    let gateway = gateway(r#"compress "gzip""#, &app).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nAccept-Encoding: gzip\r\n\r\n";
    let mut client = gateway.connect("web").await;
    client.send(request).await;
    let answer = client.response().await;
    assert_eq!(decoded("gzip", &answer.body, false).await, b"hello world");
}

#[tokio::test]
async fn a_server_that_breaks_off_does_not_pass_for_one_that_has_ended() {
    let app = HttpServer::start(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5000\r\n\r\nhello").then_close()
    })
    .await;
    let gateway = gateway(r#"compress "gzip""#, &app).await;
    let raw = gateway
        .raw("web", "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        .await;
    assert!(
        raw.contains("content-encoding: gzip") && !raw.ends_with("0\r\n\r\n"),
        "{raw:?}"
    );
    let lines = gateway.access_log(1).await;
    assert_eq!(lines[0]["termination"], "SD");
}

#[tokio::test]
async fn beyond_max_streams_responses_go_as_they_are() {
    let app = HttpServer::start(|request| match request.target.as_str() {
        "/slow" => {
            Answer::raw("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9000\r\n\r\nhello").then_stall()
        }
        _ => Answer::ok(page(4_000)).header("Content-Type", "text/plain"),
    })
    .await;
    let gateway = gateway(r#"compress "gzip" { max-streams 1 }"#, &app).await;
    let coding = async |path: &str| {
        let mut client = gateway.connect("web").await;
        client.send(get(path).header("Accept-Encoding", "gzip").bytes()).await;
        let head = client.response_head().await;
        (client, head.header("content-encoding").map(str::to_owned))
    };
    // One a worker: with as many as there are workers, and one more, one goes as it is.
    let mut open = Vec::new();
    let mut plain = 0;
    for _ in 0..16 {
        let (client, coding) = coding("/slow").await;
        plain += usize::from(coding.is_none());
        open.push(client);
    }
    assert!((1..16).contains(&plain), "{plain}");
    drop(open);
    eventually("room for another", async || coding("/").await.1.is_some()).await;
}

#[tokio::test]
async fn a_bulk_response_holds_nobody_up() {
    // 30 MB that take the worker a while; a second client of the same worker is served meanwhile.
    let app = HttpServer::start(|request| match request.target.as_str() {
        "/bulk" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 30000000\r\n\r\n")
            .then_stream(30_000_000),
        _ => Answer::ok("quick"),
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; compress "gzip" { level gzip=9 }; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut bulk = gateway.connect("web").await;
    let request = get("/bulk")
        .header("Accept-Encoding", "gzip")
        .header("Connection", "close");
    bulk.send(request.bytes()).await;
    bulk.response_head().await;
    let mut client = gateway.connect("web").await;
    let reading = tokio::spawn(async move { bulk.rest().await.len() });
    let mut slowest = Duration::ZERO;
    while !reading.is_finished() {
        let begun = std::time::Instant::now();
        assert_eq!(client.ask(get("/")).await.text(), "quick");
        slowest = slowest.max(begun.elapsed());
    }
    // A slice takes a millisecond or so; what else this machine does at the time is not the gateway's.
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert!(reading.await.unwrap() > 1_000);
}

//! Decompression: off unless asked for, for those who do not take a coding, and never further than its limits.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use async_compression::tokio::write::{BrotliDecoder, BrotliEncoder, GzipEncoder, ZstdEncoder};
use gateway_tests::http2::Http2Server;
use gateway_tests::{Answer, Gateway, HttpServer, RequestText, eventually, get, head, post, put};
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

async fn encoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    macro_rules! through {
        ($encoder:ident) => {{
            let mut encoder = $encoder::new(Vec::new());
            encoder.write_all(bytes).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    match coding {
        "br" => through!(BrotliEncoder),
        "zstd" => through!(ZstdEncoder),
        "gzip" => through!(GzipEncoder),
        other => panic!("no encoder for {other}"),
    }
}

/// A page of some length that is not all the same.
fn page(length: usize) -> Vec<u8> {
    let lines = (0u64..).map(|i| format!("<li class=\"row\">{}</li>\n", i.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let mut page: Vec<u8> = lines.take(length / 20).flat_map(String::into_bytes).collect();
    page.resize(length, b' ');
    page
}

/// A server that sends a page in the coding that its path names, whatever it is asked for.
async fn server(page: &[u8]) -> HttpServer {
    let mut coded = Vec::new();
    for coding in ["br", "zstd", "gzip"] {
        coded.push((format!("/{coding}"), encoded(coding, page).await));
    }
    HttpServer::start(move |request| {
        let (path, body) = coded.iter().find(|(path, _)| request.target.starts_with(path)).unwrap();
        let answer = Answer::ok(body)
            .header("Content-Type", "text/html")
            .header("Content-Encoding", &path[1..])
            .header("ETag", "\"v1\"")
            .header("Accept-Ranges", "bytes");
        match request.target.split_once('?').map(|(_, query)| query) {
            Some("no-transform") => answer.header("Cache-Control", "no-transform"),
            Some("digest") => answer.header("Content-Digest", "sha-256=:AAAA:"),
            Some(_) => Answer::status(206)
                .body(body)
                .header("Content-Encoding", &path[1..])
                .header("Content-Range", "bytes 0-99/200"),
            None => answer,
        }
    })
    .await
}

fn taking(path: &str, codings: &str) -> RequestText {
    get(path).header("Accept-Encoding", codings)
}

#[tokio::test]
async fn who_does_not_take_a_coding_gets_the_content_as_it_is() {
    let content = page(300_000);
    let app = server(&content).await;
    let gateway = gateway(r#"decompress "br" "zstd" "gzip" responses"#, &app).await;
    let mut client = gateway.connect("web").await;
    let mut asked = 0;
    for coding in ["br", "zstd", "gzip"] {
        let path = format!("/{coding}");
        let refusing = format!("{coding};q=0, *");
        for request in [get(&path), taking(&path, "identity"), taking(&path, &refusing)] {
            let answer = client.ask(request).await;
            assert!(answer.body == content, "{coding}");
            assert_eq!(answer.header("etag"), Some("W/\"v1\""));
            assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
            for gone in ["content-encoding", "content-length", "accept-ranges"] {
                assert_eq!(answer.header(gone), None, "{coding}: {gone}");
            }
            // The line counts what the client got.
            asked += 1;
            let lines = gateway.access_log(asked).await;
            assert_eq!(lines.last().unwrap()["bytes_sent"], content.len());
            assert_eq!(lines.last().unwrap()["termination"], "--");
        }
        asked += 1;
        // Who takes it gets it, and caches are told of the others.
        let answer = client.ask(taking(&path, coding)).await;
        assert_eq!(answer.header("content-encoding"), Some(coding));
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        assert_eq!(answer.header("etag"), Some("\"v1\""));
        assert!(answer.body == encoded(coding, &content).await);
    }
    // All of it went over one connection to the server: that the content was read to its end was seen.
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn what_is_not_named_or_not_to_be_changed_is_left_as_it_is() {
    let content = page(5_000);
    let app = server(&content).await;
    let without = gateway("", &app).await;
    let requests = gateway(r#"decompress "gzip" requests"#, &app).await;
    let gzip = gateway(r#"decompress "gzip" responses"#, &app).await;
    for (gateway, path) in [
        (&without, "/gzip"),
        (&requests, "/gzip"),
        (&gzip, "/br"),
        (&gzip, "/gzip?no-transform"),
        (&gzip, "/gzip?digest"),
        (&gzip, "/gzip?range"),
    ] {
        let coding = &path[1..].split('?').next().unwrap();
        let answer = gateway.ask("web", get(path)).await;
        assert_eq!(answer.header("content-encoding"), Some(*coding), "{path}");
        assert!(answer.body == encoded(coding, &content).await, "{path}");
        assert_ne!(answer.header("etag"), Some("W/\"v1\""), "{path}");
    }
    // The client may ask for that, too.
    let mut client = gzip.connect("web").await;
    let answer = client.ask(get("/gzip").header("Cache-Control", "no-transform")).await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let answer = client.ask(get("/gzip")).await;
    assert!(answer.body == content);
}

#[tokio::test]
async fn head_is_answered_with_the_head_that_get_would_have() {
    let app = server(&page(4_000)).await;
    let gateway = gateway(r#"decompress "zstd" responses"#, &app).await;
    let mut client = gateway.connect("web").await;
    let answer = client.ask(head("/zstd")).await;
    assert_eq!(answer.header("content-encoding"), None);
    assert_eq!(answer.header("content-length"), None);
    // And the connection is where it was.
    assert!(client.ask(get("/zstd")).await.body == page(4_000));
}

#[tokio::test]
async fn content_goes_over_from_one_coding_into_another() {
    let content = page(100_000);
    let app = server(&content).await;
    let gateway = gateway(r#"compress "br"; decompress "gzip" responses"#, &app).await;
    let mut client = gateway.connect("web").await;
    let answer = client.ask(taking("/gzip", "br")).await;
    assert_eq!(answer.header("content-encoding"), Some("br"));
    assert_eq!(answer.headers.all("vary").collect::<Vec<_>>(), ["Accept-Encoding"]);
    let mut decoder = BrotliDecoder::new(Vec::new());
    decoder.write_all(&answer.body).await.unwrap();
    decoder.shutdown().await.unwrap();
    assert!(decoder.into_inner() == content);
}

#[tokio::test]
async fn a_bomb_in_a_response_is_cut_off_at_its_ratio_and_at_its_size() {
    let zeros = vec![0; 200_000_000];
    let bomb = encoded("gzip", &zeros).await;
    drop(zeros);
    assert!(bomb.len() < 250_000);
    let app = HttpServer::start(move |request| match request.target.as_str() {
        "/bomb" => Answer::ok(&bomb).header("Content-Encoding", "gzip"),
        _ => Answer::ok("well"),
    })
    .await;
    for (limit, most) in [
        ("", 250_000 * 100),
        (r#"{ max-ratio 10 }"#, 250_000 * 10),
        (r#"{ max-ratio 100000; max-size "2MiB" }"#, 2 << 20),
    ] {
        let gateway = gateway(&format!(r#"decompress "gzip" responses {limit}"#), &app).await;
        let before = gateway.resident();
        let raw = gateway.raw("web", "GET /bomb HTTP/1.1\r\nHost: a\r\n\r\n").await;
        // With its head and the frames of its chunks.
        assert!(
            (1 << 20..most + most / 100 + 1_000).contains(&raw.len()),
            "{limit}: {}",
            raw.len()
        );
        assert!(!raw.ends_with("0\r\n\r\n"), "{limit}: it passes for whole");
        let lines = gateway.access_log(1).await;
        assert_eq!(lines[0]["termination"], "PD", "{limit}");
        assert_eq!(lines[0]["reason"], "decoded-too-large", "{limit}");
        // Nothing of what would have come of it is in memory.
        assert!(gateway.resident() < before + (24 << 20), "{limit}");
        assert_eq!(gateway.ask("web", get("/")).await.text(), "well");
    }
}

#[tokio::test]
async fn what_is_not_in_its_coding_does_not_pass_for_whole() {
    let whole = encoded("gzip", &page(100_000)).await;
    let app = HttpServer::start(move |request| {
        let body = match request.target.as_str() {
            "/short" => whole[..whole.len() - 1].to_vec(),
            "/long" => [&whole[..], b"behind"].concat(),
            _ => b"no gzip at all".to_vec(),
        };
        Answer::ok(body).header("Content-Encoding", "gzip")
    })
    .await;
    let gateway = gateway(r#"decompress "gzip" responses"#, &app).await;
    for (asked, path) in ["/short", "/long", "/none"].into_iter().enumerate() {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let raw = gateway.raw("web", request).await;
        assert!(!raw.ends_with("0\r\n\r\n"), "{path}");
        let lines = gateway.access_log(asked + 1).await;
        let line = lines.last().unwrap();
        assert_eq!(
            (&line["termination"], &line["reason"]),
            (&"PD".into(), &"bad-coding".into()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn servers_get_the_content_of_requests_as_it_is() {
    let content = page(200_000);
    let app = HttpServer::start(|request| Answer::ok(request.body.len().to_string())).await;
    let gateway = gateway(r#"decompress "br" "zstd" "gzip" requests"#, &app).await;
    let mut client = gateway.connect("web").await;
    for coding in ["br", "zstd", "gzip"] {
        let coded = encoded(coding, &content).await;
        let request = post("/", coded.clone()).header("Content-Encoding", coding);
        assert_eq!(client.ask(request).await.text(), "200000", "{coding}");
        let seen = app.last();
        assert!(seen.body == content, "{coding}");
        assert_eq!(seen.headers.get("content-encoding"), None);
        assert_eq!(seen.headers.get("content-length"), None);
        assert_eq!(seen.headers.get("transfer-encoding"), Some("chunked"));
    }
    // Another coding is the server's affair, and so is content that nobody may change.
    let coded = encoded("gzip", &content).await;
    for (name, value, coding) in [
        ("Accept", "*/*", "gzip, gzip"),
        ("Accept", "*/*", "deflate"),
        ("Cache-Control", "no-transform", "gzip"),
        ("Content-Digest", "sha-256=:AAAA:", "gzip"),
    ] {
        let request = post("/", coded.clone())
            .header("Content-Encoding", coding)
            .header(name, value);
        client.ask(request).await;
        let seen = app.last();
        assert!(seen.body == coded, "{name} {coding}");
        assert_eq!(seen.headers.get("content-encoding"), Some(coding));
    }
}

#[tokio::test]
async fn servers_of_http2_get_it_too() {
    let content = page(50_000);
    let app = Http2Server::start(|mut exchange| async move {
        let mut length = 0;
        while let Some(piece) = exchange.request.body_mut().data().await {
            let piece = piece?;
            length += piece.len();
            exchange
                .request
                .body_mut()
                .flow_control()
                .release_capacity(piece.len())?;
        }
        exchange.answer(length.to_string())
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; decompress "zstd" requests; default-backend "app" }
        backend "app" { server "app-1" "@app" h2 }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let coded = encoded("zstd", &content).await;
    let mut client = gateway.connect("web").await;
    let answer = client
        .ask(post("/", coded.clone()).header("Content-Encoding", "zstd"))
        .await;
    assert_eq!(answer.text(), "50000");
    assert_eq!(app.last().headers().get("content-encoding"), None);
    assert_eq!(app.last().headers().get("content-length"), None);
}

#[tokio::test]
async fn a_request_that_cannot_be_decoded_is_refused() {
    let app = HttpServer::start(|_| Answer::ok("")).await;
    let gateway = gateway(r#"decompress "gzip" requests { max-size "2MiB" }"#, &app).await;
    let whole = encoded("gzip", &page(5_000)).await;
    let bomb = encoded("gzip", &vec![0; 50_000_000]).await;
    let refused = [
        (&whole[..whole.len() - 1], 400, "bad-coding"),
        (&b"no gzip at all"[..], 400, "bad-coding"),
        (&bomb, 413, "decoded-too-large"),
    ];
    for (asked, (body, status, reason)) in refused.into_iter().enumerate() {
        let mut client = gateway.connect("web").await;
        let answer = client.ask(post("/", body).header("Content-Encoding", "gzip")).await;
        assert_eq!(answer.status, status, "{reason}");
        let lines = gateway.access_log(asked + 1).await;
        let line = lines.last().unwrap();
        assert_eq!((&line["termination"], &line["reason"]), (&"PR".into(), &reason.into()));
    }
    // What the server saw of them was broken off, and none was taken for whole.
    assert!(app.requests().is_empty(), "{:?}", app.requests());
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_decoded_again() {
    let content = page(5_000);
    let app = HttpServer::start(|request| Answer::ok(request.body.len().to_string())).await;
    let failing = HttpServer::start(|_| Answer::status(503)).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; decompress "gzip" requests; default-backend "app" }
        backend "app" {
            retry-on 503
            server "failing" "@failing"
            server "app-1" "@app"
        }
    "#,
    )
    .with("@failing", failing.address())
    .with("@app", app.address())
    .start()
    .await;
    let coded = encoded("gzip", &content).await;
    let mut client = gateway.connect("web").await;
    for _ in 0..4 {
        let request = put("/", coded.clone()).header("Content-Encoding", "gzip");
        assert_eq!(client.ask(request).await.text(), "5000");
    }
    assert!(!failing.requests().is_empty());
    for request in failing.requests().iter().chain(&app.requests()) {
        assert!(request.body == content);
    }
}

#[tokio::test]
async fn beyond_max_streams_requests_are_refused_and_responses_go_as_they_are() {
    let coded = encoded("gzip", &page(50_000)).await;
    let length = coded.len();
    let app = HttpServer::start(move |request| match request.target.as_str() {
        "/slow" => Answer::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n"
        ))
        .then_send(&coded[..length / 2])
        .then_stall(),
        _ => Answer::ok(&coded).header("Content-Encoding", "gzip"),
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" {
            bind "127.0.0.1:0"
            decompress "gzip" requests responses { max-streams 1 }
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut slow = gateway.connect("web").await;
    slow.send(get("/slow").bytes()).await;
    assert_eq!(slow.response_head().await.header("content-encoding"), None);
    assert_eq!(
        gateway.ask("web", get("/")).await.header("content-encoding"),
        Some("gzip")
    );
    let mut client = gateway.connect("web").await;
    let answer = client.ask(post("/", "x").header("Content-Encoding", "gzip")).await;
    assert_eq!(answer.status, 503);
    let lines = gateway.access_log(2).await;
    let refused = lines.iter().find(|line| line["status"] == 503).unwrap();
    assert_eq!(
        (&refused["termination"], &refused["reason"]),
        (&"RR".into(), &"decompress-busy".into())
    );
    drop(slow);
    eventually("room for another", async || {
        gateway.ask("web", get("/")).await.header("content-encoding").is_none()
    })
    .await;
}

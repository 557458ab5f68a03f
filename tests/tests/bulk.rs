//! Long bodies of responses, which the kernel moves: every byte of them, and what becomes of both connections.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::Duration;

use gateway_tests::process::limit_descriptors;
use gateway_tests::tls::Authority;
use gateway_tests::{Answer, Client, Gateway, HttpServer, Request, eventually, get, head, post};
use sha2::{Digest, Sha256};

const PLAIN: &str = r#"
    process { workers 1; log "stdout" format="json" }
    defaults { mode "http"; timeout connect="5s" client="@client" server="@timeout" http-request="10s" http-keep-alive="20s"; }
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { server "app-1" "@app" }
"#;

const MIB: usize = 1 << 20;

/// From this length on the kernel moves a body.
const LEAST: usize = 256 << 10;

/// Bytes that differ with their place and with the seed.
fn noise(size: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut bytes: Vec<u8> = Vec::with_capacity(size + 4);
    while bytes.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Compared by digest: a failure must not print it all.
fn digest(bytes: &[u8]) -> (usize, Vec<u8>) {
    (bytes.len(), Sha256::digest(bytes).to_vec())
}

/// `/N` is answered with N bytes of seed N.
fn sized(request: &Request) -> Answer {
    let size: usize = request.target.trim_start_matches('/').parse().unwrap();
    Answer::ok(noise(size, size as u32))
}

async fn before(app: &HttpServer) -> Gateway {
    Gateway::kdl(PLAIN)
        .with("@app", app.address())
        .with("@client", "20s")
        .with("@timeout", "20s")
        .start()
        .await
}

/// Bytes that the kernel has moved, so far.
async fn spliced(gateway: &Gateway) -> f64 {
    let metrics = gateway.metrics().await;
    metrics.get("gateway_relay_spliced_bytes_total", &[]).unwrap_or(0.0)
}

#[tokio::test]
async fn long_bodies_come_whole_and_both_connections_go_on() {
    let app = HttpServer::start(sized).await;
    let gateway = before(&app).await;
    let mut client = gateway.connect("web").await;
    let sizes = [
        LEAST - 1,
        LEAST,
        10,
        LEAST + 1,
        3 * MIB,
        0,
        3 * MIB + 7,
        100 * MIB,
        LEAST,
        5,
    ];

    for size in sizes {
        let answer = client.ask(get(&format!("/{size}"))).await;
        assert_eq!(answer.status, 200);
        assert_eq!(digest(&answer.body), digest(&noise(size, size as u32)), "{size}");
    }

    assert_eq!(app.connections(), 1, "the server's connection is used again");
    let log = gateway.access_log(sizes.len()).await;
    for (line, size) in log.iter().zip(sizes) {
        assert_eq!(line["bytes_sent"], size);
    }
    assert!(spliced(&gateway).await > 100.0 * MIB as f64, "nothing was spliced");
}

#[tokio::test]
async fn a_body_without_a_pipe_is_copied_until_there_are_pipes_again() {
    let app = HttpServer::start(sized).await;
    let gateway = before(&app).await;
    let mut client = gateway.connect("web").await;
    let path = format!("/{}", 8 * MIB);
    let expected = digest(&noise(8 * MIB, 8 * MIB as u32));
    assert_eq!(client.ask(get("/1")).await.body.len(), 1, "both connections stand");

    let enough = limit_descriptors(gateway.pid(), 3);
    let answer = client.ask(get(&path)).await;
    limit_descriptors(gateway.pid(), enough);
    assert_eq!(digest(&answer.body), expected);
    assert!(spliced(&gateway).await < 1.0, "a pipe that was not to be had");

    // The system is asked again, after so many transfers.
    eventually("the kernel moves bodies again", async || {
        let answer = client.ask(get(&path)).await;
        assert_eq!(digest(&answer.body), expected);
        spliced(&gateway).await > 1.0
    })
    .await;
    assert_eq!(app.connections(), 1, "the server's connection is used again");
}

#[tokio::test]
async fn a_body_below_the_mark_is_copied() {
    let app = HttpServer::start(sized).await;
    let gateway = before(&app).await;
    let answer = gateway.ask("web", get(&format!("/{}", LEAST - 1))).await;
    assert_eq!(answer.body.len(), LEAST - 1);
    assert!(spliced(&gateway).await < 1.0);
}

#[tokio::test]
async fn requests_that_come_together_are_answered_in_their_order() {
    let app = HttpServer::start(sized).await;
    let gateway = before(&app).await;
    let mut client = gateway.connect("web").await;
    let sizes = [2 * MIB, LEAST, 100, LEAST + 9, 4 * MIB, 0, LEAST];
    let requests: Vec<u8> = sizes.iter().flat_map(|size| get(&format!("/{size}")).bytes()).collect();
    client.send(requests).await;
    for size in sizes {
        let answer = client.response().await;
        assert_eq!(digest(&answer.body), digest(&noise(size, size as u32)), "{size}");
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn the_last_response_of_a_connection_comes_whole() {
    let app = HttpServer::start(sized).await;
    let gateway = before(&app).await;
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let mut client = gateway.connect("web").await;
        let size = 2 * MIB + 3;
        let request = format!("GET /{size} {version}\r\nHost: app.example\r\nConnection: close\r\n\r\n");
        client.send(request).await;
        let all = client.rest().await;
        let head = all.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        assert!(all.starts_with(format!("{version} 200").as_bytes()));
        assert_eq!(digest(&all[head..]), digest(&noise(size, size as u32)), "{version}");
    }
}

#[tokio::test]
async fn a_server_that_ends_its_connection_is_connected_to_again() {
    let app = HttpServer::start(|request| sized(request).header("Connection", "Close")).await;
    let gateway = before(&app).await;
    let mut client = gateway.connect("web").await;
    for _ in 0..2 {
        let answer = client.ask(get(&format!("/{MIB}"))).await;
        assert_eq!(digest(&answer.body), digest(&noise(MIB, MIB as u32)));
        assert!(!answer.headers.has("connection"));
    }
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn bytes_behind_a_body_reach_no_other_request() {
    let app =
        HttpServer::start(|request| sized(request).then_send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")).await;
    let gateway = before(&app).await;
    let mut client = gateway.connect("web").await;
    for _ in 0..3 {
        let answer = client.ask(get(&format!("/{MIB}"))).await;
        assert_eq!(digest(&answer.body), digest(&noise(MIB, MIB as u32)));
    }
    assert_eq!(app.connections(), 3);
}

#[tokio::test]
async fn parts_come_as_such_and_heads_alone() {
    let app = HttpServer::start(|request| match &*request.method {
        "HEAD" => Answer::head_only(MIB as u64),
        _ => Answer::status(206)
            .header("Content-Range", "bytes 5-1048580/9999999")
            .body(noise(MIB, 5)),
    })
    .await;
    let gateway = before(&app).await;
    let mut client = gateway.connect("web").await;
    for _ in 0..2 {
        let answer = client.ask(head("/")).await;
        assert_eq!(answer.header("content-length"), Some("1048576"));
        let answer = client.ask(get("/").header("Range", "bytes=5-1048580")).await;
        assert_eq!(answer.status, 206);
        assert_eq!(answer.header("content-range"), Some("bytes 5-1048580/9999999"));
        assert_eq!(digest(&answer.body), digest(&noise(MIB, 5)));
    }
    assert_eq!(app.connections(), 1);
    assert!(spliced(&gateway).await > 0.0);
}

#[tokio::test]
async fn a_request_with_content_gets_its_long_response() {
    let app = HttpServer::start(sized).await;
    let gateway = before(&app).await;
    let mut client = gateway.connect("web").await;
    for _ in 0..2 {
        let answer = client.ask(post(&format!("/{MIB}"), noise(MIB, 9))).await;
        assert_eq!(digest(&answer.body), digest(&noise(MIB, MIB as u32)));
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_slow_reader_costs_no_memory() {
    const SIZE: u64 = 1 << 30;
    let app = HttpServer::start(|_| Answer::head_only(SIZE).then_stream(SIZE)).await;
    let gateway = before(&app).await;
    let mut client = gateway.connect("web").await;
    client.send(get("/").bytes()).await;
    let answer = client.response_head().await;
    assert_eq!(answer.status, 200);
    let before = gateway.resident();

    let (mut highest, mut read) = (before, 0);
    for step in 0..64 {
        if step < 5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        highest = highest.max(gateway.resident());
        read += client.skip(SIZE / 64).await;
    }

    assert_eq!(read, SIZE);
    assert!(highest - before < 16 << 20, "{} bytes more", highest - before);
    assert!(spliced(&gateway).await > SIZE as f64 / 2.0);
    // And the connection goes on.
    client.send(head("/").bytes()).await;
    assert_eq!(client.response_to("HEAD").await.status, 200);
}

#[tokio::test]
async fn a_server_that_breaks_off_is_told_of_and_the_client_gets_no_more_than_it_sent() {
    let part = noise(3 * MIB, 3);
    for reset in [false, true] {
        let sent = part.clone();
        let app = HttpServer::start(move |_| {
            let answer = Answer::head_only(8 * MIB as u64).then_send(&sent);
            // What was reset may be lost on the way.
            if reset {
                answer.then_reset()
            } else {
                answer.then_close()
            }
        })
        .await;
        let gateway = before(&app).await;
        let mut client = gateway.connect("web").await;
        client.send(get("/").bytes()).await;
        client.response_head().await;
        let got = client.until_end().await;
        assert!(reset || got.len() == part.len(), "{} bytes", got.len());
        assert_eq!(digest(&got), digest(&part[..got.len()]));
        let line = &gateway.access_log(1).await[0];
        assert_eq!(line["reason"], "server-broke-off", "{line}");
    }
}

#[tokio::test]
async fn a_server_that_stalls_is_late() {
    let app = HttpServer::start(|_| Answer::head_only(8 * MIB as u64).then_stream(MIB as u64).then_stall()).await;
    let gateway = Gateway::kdl(PLAIN)
        .with("@app", app.address())
        .with("@client", "20s")
        .with("@timeout", "300ms")
        .start()
        .await;
    let mut client = gateway.connect("web").await;
    client.send(get("/").bytes()).await;
    client.response_head().await;
    assert_eq!(client.until_end().await.len(), MIB);
    let line = &gateway.access_log(1).await[0];
    assert_eq!(line["reason"], "server-timeout", "{line}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_late_and_one_that_goes_is_let_go() {
    let app = HttpServer::start(|_| Answer::head_only(1 << 30).then_stream(1 << 30)).await;
    let gateway = Gateway::kdl(PLAIN)
        .with("@app", app.address())
        .with("@client", "500ms")
        .with("@timeout", "20s")
        .start()
        .await;
    let mut late = gateway.connect("web").await;
    late.send(get("/late").bytes()).await;
    late.response_head().await;
    let log = gateway.access_log(1).await;
    assert_eq!(log[0]["target"], "/late");
    let mut gone = gateway.connect("web").await;
    gone.send(get("/gone").bytes()).await;
    gone.response_head().await;
    gone.skip(4 * MIB as u64).await;
    gone.reset();
    assert_eq!(gateway.access_log(2).await[1]["target"], "/gone");
    // Nothing of them is left, pipes included.
    let pid = gateway.pid();
    eventually("both servers' connections are closed", async || {
        gateway_tests::process::descriptors(pid) < 200
    })
    .await;
}

#[tokio::test]
async fn with_tls_on_either_side_bodies_are_copied() {
    let authority = Authority::new();
    let app = HttpServer::start(sized).await;
    let text = r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0" { tls cert="app.pem"; alpn "http/1.1" }; default-backend "app" }
        frontend "out" { bind "127.0.0.1:0"; default-backend "tls" }
        backend "app" { server "app-1" "@app" }
        backend "tls" { server "app-1" "@web" { tls ca="ca.pem" sni="app.example" } }
    "#;
    let certificate = authority.issue(&["app.example"]).bundle();
    let gateway = Gateway::kdl(text)
        .with("@app", app.address())
        .with("@web", "127.0.0.1:1")
        .file("app.pem", &certificate)
        .file("ca.pem", authority.pem())
        .start()
        .await;
    let mut client = Client::connect_tls(gateway.address("web"), "app.example", authority.certificate()).await;
    for _ in 0..2 {
        let answer = client.ask(get(&format!("/{}", 2 * MIB))).await;
        assert_eq!(digest(&answer.body), digest(&noise(2 * MIB, 2 * MIB as u32)));
    }
    assert!(spliced(&gateway).await < 1.0);

    let outer = Gateway::kdl(text)
        .with("@app", app.address())
        .with("@web", gateway.address("web"))
        .file("app.pem", &certificate)
        .file("ca.pem", authority.pem())
        .start()
        .await;
    let mut client = outer.connect("out").await;
    for _ in 0..2 {
        let answer = client.ask(get(&format!("/{}", 2 * MIB))).await;
        assert_eq!(digest(&answer.body), digest(&noise(2 * MIB, 2 * MIB as u32)));
    }
    assert!(spliced(&outer).await < 1.0);
}

#[tokio::test]
async fn what_comes_in_little_pieces_is_copied_and_what_follows_is_moved_again() {
    const PIECE: usize = 1000;
    const PIECES: usize = 400;
    let body = noise(PIECES * PIECE + 8 * MIB, 1);
    let sent = body.clone();
    let app = HttpServer::start(move |_| {
        let (little, much) = sent.split_at(PIECES * PIECE);
        let answer = Answer::head_only(sent.len() as u64);
        let answer = little.chunks(PIECE).fold(answer, |answer, piece| {
            answer.then_send(piece).then_pause(Duration::from_millis(1))
        });
        answer.then_send(much)
    })
    .await;
    let gateway = before(&app).await;
    let answer = gateway.ask("web", get("/")).await;
    assert_eq!(digest(&answer.body), digest(&body));
    let moved = spliced(&gateway).await as usize;
    assert!(moved <= 8 * MIB + PIECES * PIECE / 2, "little was moved: {moved}");
    assert!(moved > 4 * MIB, "much was not: {moved}");
}

#[tokio::test]
async fn a_body_ends_with_its_server_when_told_so() {
    let mut probe = gateway_tests::Server::greeting("well").await;
    let app = HttpServer::start(|_| Answer::head_only(8 * MIB as u64).then_stream(MIB as u64).then_stall()).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            check "tcp" interval="50ms" rise=1 fall=1 port=THE-PORT
            server "app-1" "@app" on-marked-down="shutdown-sessions"
        }
    "#,
    )
    .with("THE-PORT", probe.address().port())
    .with("@app", app.address())
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    client.send(get("/").bytes()).await;
    client.response_head().await;
    assert_eq!(client.skip(MIB as u64).await, MIB as u64);
    assert!(spliced(&gateway).await > 0.0);

    probe.stop().await;
    assert_eq!(client.until_end().await.len(), 0);
    let line = &gateway.access_log(1).await[0];
    assert_eq!(
        (&line["reason"], &line["termination"]),
        (&"server-down".into(), &"DD".into()),
        "{line}"
    );
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "app-1")], 0.0)
        .await;
}

#[tokio::test]
async fn a_body_under_way_comes_whole_when_the_gateway_ends() {
    const SIZE: u64 = 64 << 20;
    let app = HttpServer::start(|_| Answer::head_only(SIZE).then_stream(SIZE)).await;
    let gateway = before(&app).await;
    let mut client = gateway.connect("web").await;
    client.send(get("/").bytes()).await;
    client.response_head().await;
    let begun = client.skip(MIB as u64).await;
    assert!(spliced(&gateway).await > 0.0);

    gateway.terminate();
    assert_eq!(begun + client.skip(SIZE).await, SIZE);
    client.closed().await;
    let stopped = gateway.stopped().await;
    assert_eq!(stopped.code, Some(0), "{}", stopped.output);
}

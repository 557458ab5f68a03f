//! How connections of clients end: what was answered arrives, whatever else is on its way.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::Duration;

use gateway_tests::tls::Authority;
use gateway_tests::{Answer, Client, Gateway, HttpServer, get, within};

/// What is under /private/ is refused before its content has come.
const REFUSING: &str = r#"
    frontend "web" {
        bind "127.0.0.1:0"
        acl "private" { path-prefix "/private/" }
        deny status=403 if="private"
        default-backend "app"
    }
    backend "app" { server "app-1" "@app" }
"#;

/// More than the sockets between client and gateway hold, so that an upload of it is being sent when the answer comes, and an answer of it
/// is being sent while nobody reads.
const UPLOAD: usize = 16 << 20;

#[tokio::test]
async fn a_client_whose_upload_is_refused_reads_why() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(REFUSING).with("@app", app.address()).start().await;
    for _ in 0..10 {
        let mut client = gateway.connect("web").await;
        let head = format!("POST /private/x HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD}\r\n\r\n");
        client.send(head).await;
        // It reads nothing until it has sent all: closing at once would have had the system reset the connection.
        client.send(vec![b'x'; UPLOAD]).await;
        let answer = client.response().await;
        assert_eq!(answer.status, 403);
        client.closed().await;
    }
    assert_eq!(app.requests().len(), 0);
}

#[tokio::test]
async fn a_client_that_never_ends_its_refused_upload_is_not_waited_for_long() {
    let app = HttpServer::answering("x").await;
    let text = REFUSING.replace("acl", "timeout http-keep-alive=\"300ms\"\n acl");
    let gateway = Gateway::kdl(&text).with("@app", app.address()).start().await;
    let mut client = gateway.connect("web").await;
    client
        .send("POST /private/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 403);
    within(Duration::from_secs(10), "the connection is gone", async {
        while client.try_send("x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// What stands behind a request is not read while that is served, and who does not read is not told of an end. Half an end is one, too.
#[tokio::test]
async fn a_client_that_leaves_is_noticed_whatever_it_has_sent_behind_its_request() {
    let app = HttpServer::start(|_| Answer::nothing().then_stall()).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; timeout client="1h"; default-backend "app" }
        backend "app" { timeout server="1h"; server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let requests = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nfour",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n",
    ];
    let mut asked = 0;
    for request in requests {
        for behind in ["", "X", "\r\n", requests[0]] {
            for leave in ["closes", "resets", "closes its half"] {
                let mut client = gateway.connect("web").await;
                client.send(format!("{request}{behind}")).await;
                asked += 1;
                app.has_seen(asked).await;
                match leave {
                    "closes" => drop(client),
                    "resets" => client.reset(),
                    _ => {
                        client.half_close().await;
                        assert!(client.ends().await, "{request:?} {behind:?}");
                    }
                }
                let line = gateway.access_log(asked).await.remove(asked - 1);
                assert_eq!(line["termination"], "CH", "{request:?} {behind:?} {leave}");
            }
        }
    }
    let labels = [("server", "app-1")];
    gateway.metric_is("gateway_server_in_flight", &labels, 0.0).await;
}

#[tokio::test]
async fn the_last_response_arrives_whole_in_every_way_to_be_last() {
    let large = "x".repeat(3 << 20);
    let app = {
        let large = large.clone();
        HttpServer::start(move |request| {
            let body = if request.target == "/large" {
                large.clone()
            } else {
                "small".to_owned()
            };
            Answer::status(200).body(body)
        })
        .await
    };
    let authority = Authority::new();
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        frontend "tls" { bind "127.0.0.1:0" { tls cert="web.pem" }; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("web.pem", authority.issue(&["web.example"]).bundle())
    .start()
    .await;
    for (target, length) in [("/small", 5), ("/large", large.len())] {
        for version in ["1.1", "1.0"] {
            let request = format!("GET {target} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n");
            let mut plain = gateway.connect("web").await;
            plain.send(&request).await;
            assert_eq!(content(&plain.rest().await).len(), length, "{target} {version}");

            let mut tls = Client::connect_tls(gateway.address("tls"), "web.example", authority.certificate()).await;
            tls.send(&request).await;
            assert_eq!(content(&tls.rest().await).len(), length, "{target} {version} in TLS");
        }
    }
    // A client that asks for another connection is not kept waiting for what is held.
    let mut client = gateway.connect("web").await;
    assert_eq!(client.ask(get("/small")).await.text(), "small");
}

/// What comes behind the last request while that is being answered nobody reads. To close over it would be to reset the connection, and
/// what the system still holds of the answer would be lost (RFC 9112, section 9.6).
#[tokio::test]
async fn the_last_response_arrives_whole_whatever_comes_behind_its_request() {
    let app = HttpServer::start(|_| Answer::status(200).body("x".repeat(UPLOAD))).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfour",
    ] {
        for behind in ["\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let mut client = gateway.connect("web").await;
            client.send(request).await;
            let mut response = client.exactly(1).await;
            client.send(behind).await;
            response.extend(client.rest().await);
            assert_eq!(content(&response).len(), UPLOAD, "{request:?} {behind:?}");
        }
    }
}

/// What follows the head.
fn content(response: &[u8]) -> &[u8] {
    let head = response.windows(4).position(|end| end == b"\r\n\r\n");
    &response[head.expect("a whole head") + 4..]
}

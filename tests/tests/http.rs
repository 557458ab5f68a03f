//! HTTP/1.1 through the gateway: what is forwarded and what is not, connections on both sides, bodies of any size, and the
//! status for each way to go wrong.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use gateway_tests::{Answer, Gateway, HttpServer, Server, eventually, get, head, method, post, put, refusing, within};
use tokio::sync::Notify;

/// One frontend, one backend with one server.
const PLAIN: &str = r#"
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { server "app-1" "@app" }
"#;

/// The same with one worker, so that connections to the server can be counted.
const ONE_WORKER: &str = r#"
    process { workers 1; log "stdout" format="json" }
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { server "app-1" "@app" }
"#;

// ── what is forwarded ─────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_request_and_its_answer_pass_through() {
    let app = HttpServer::start(|_| {
        let cookies = |answer: Answer| answer.header("Set-Cookie", "a=1").header("Set-Cookie", "b=2");
        cookies(Answer::status(201).header("X-From", "app")).body("hello")
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let request = post("/a/b?x=1&y=%20", "content")
        .host("shop.example:8080")
        .header("X-To", "app");
    let answer = gateway.ask("web", request).await;

    assert_eq!((answer.status, answer.text()), (201, "hello"));
    assert_eq!(answer.header("x-from"), Some("app"));
    assert_eq!(answer.headers.all("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
    let seen = app.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/a/b?x=1&y=%20"));
    assert_eq!(seen.version, "HTTP/1.1");
    assert_eq!(seen.headers.get("host"), Some("shop.example:8080"));
    assert_eq!(seen.headers.get("x-to"), Some("app"));
    assert_eq!(seen.body, b"content");
    assert!(!seen.headers.has("x-forwarded-for"), "nobody asked for it");
}

#[tokio::test]
async fn targets_are_forwarded_as_they_came_when_nothing_normalises_them() {
    let app = HttpServer::answering("").await;
    let text = PLAIN.replace("bind", "normalize-path \"off\"; bind");
    let gateway = Gateway::kdl(&text).with("@app", app.address()).start().await;
    let mut client = gateway.connect("web").await;
    for target in [
        "/",
        "//a//b",
        "/a/../b/./c",
        "/a%2Fb%2f%00",
        "/?",
        "/a?b?c",
        "/%zz",
        "/a;b=c/d:e@f",
        "/~a!$&'()*+,=",
        "/?a=b&c[]=d",
    ] {
        assert_eq!(client.ask(get(target)).await.status, 200, "{target}");
        assert_eq!(app.last().target, target);
    }
}

#[tokio::test]
async fn bytes_of_a_value_that_are_not_ascii_pass_through() {
    let app =
        HttpServer::start(|_| Answer::raw(b"HTTP/1.1 200 OK\r\nX-Back: \xe4\xf6\r\nContent-Length: 0\r\n\r\n")).await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let mut client = gateway.connect("web").await;

    client
        .send(b"GET / HTTP/1.1\r\nHost: a\r\nX-There: \xff\xfe\x80\r\n\r\n")
        .await;
    let answer = client.response().await;

    let contains = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    assert!(contains(&app.last().raw, b"\xff\xfe\x80"));
    assert!(contains(&answer.raw, b"\xe4\xf6"));
}

#[tokio::test]
async fn an_absolute_target_names_the_host() {
    let app = HttpServer::answering("").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let answer = gateway
        .ask("web", get("http://real.example/x?y").host("wrong.example"))
        .await;

    // RFC 9112, section 3.2.2: the Host field is ignored and replaced.
    assert_eq!(answer.status, 200);
    assert_eq!(app.last().headers.all("host").collect::<Vec<_>>(), ["real.example"]);
    assert!(app.last().target.ends_with("/x?y"), "{}", app.last().target);
}

#[tokio::test]
async fn forwarded_for_appends_the_client() {
    let app = HttpServer::answering("").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; forwarded-for; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let all = || app.last().headers.all("x-forwarded-for").collect::<Vec<_>>().join(", ");

    gateway.ask("web", get("/")).await;
    assert_eq!(all(), "127.0.0.1");
    gateway
        .ask("web", get("/").header("X-Forwarded-For", "203.0.113.9"))
        .await;
    assert_eq!(all(), "203.0.113.9, 127.0.0.1");
    gateway
        .ask(
            "web",
            get("/")
                .header("X-Forwarded-For", "a")
                .header("x-forwarded-for", "b, c"),
        )
        .await;
    assert_eq!(all(), "a, b, c, 127.0.0.1");
    // A client cannot have it taken away by calling it a field of its connection.
    let nominated = get("/")
        .header("X-Forwarded-For", "1.2.3.4")
        .header("Connection", "keep-alive, X-Forwarded-For");
    gateway.ask("web", nominated).await;
    assert!(all().ends_with("127.0.0.1"), "{}", all());
}

#[tokio::test]
async fn fields_of_the_connection_are_not_forwarded() {
    let app = HttpServer::start(|_| {
        Answer::ok("x")
            .header("Connection", "keep-alive, X-Hop")
            .header("Keep-Alive", "timeout=5")
            .header("X-Hop", "1")
            .header("Proxy-Connection", "keep-alive")
            .header("X-Stays", "1")
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let request = get("/")
        .header("Connection", "X-Secret, keep-alive")
        .header("Connection", "x-other")
        .header("X-Secret", "1")
        .header("X-Other", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "gzip")
        .header("Upgrade", "h2c")
        .header("X-Stays", "1");
    let answer = gateway.ask("web", request).await;

    // RFC 9110, section 7.6.1.
    let seen = app.last().headers;
    for gone in ["x-secret", "x-other", "keep-alive", "proxy-connection", "te", "upgrade"] {
        assert!(!seen.has(gone), "the server saw {gone}: {seen:?}");
    }
    assert!(seen.has("x-stays"));
    for gone in ["x-hop", "proxy-connection", "keep-alive"] {
        assert!(!answer.headers.has(gone), "the client saw {gone}: {:?}", answer.headers);
    }
    assert!(answer.headers.has("x-stays"));
}

#[tokio::test]
async fn content_length_cannot_be_made_a_field_of_the_connection() {
    let app = HttpServer::answering("").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let request = post("/", "four").header("Connection", "Content-Length, Host");
    let answer = gateway.ask("web", request).await;

    if answer.status == 200 {
        assert_eq!(app.last().body, b"four");
        assert_eq!(app.last().headers.get("host"), Some("test.example"));
    } else {
        assert_eq!((answer.status, app.requests().len()), (400, 0));
    }
}

// ── connections ───────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(ONE_WORKER).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    for _ in 0..5 {
        assert_eq!(client.ask(get("/")).await.status, 200);
    }
    // Another client gets the same server connection: it belongs to the worker.
    for _ in 0..3 {
        assert_eq!(gateway.ask("web", get("/")).await.status, 200);
    }

    assert_eq!(app.requests().len(), 8);
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn server_close_asks_for_a_connection_each_time() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server-close; server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    let mut client = gateway.connect("web").await;
    for _ in 0..3 {
        assert_eq!(client.ask(get("/")).await.status, 200);
    }

    assert_eq!(app.connections(), 3);
}

#[tokio::test]
async fn who_is_told_that_trailers_are_taken_is_told_that_this_is_of_the_connection() {
    let app = HttpServer::answering("x").await;
    for (nodes, options) in [("", "te"), ("server-close", "close, te")] {
        let gateway = Gateway::kdl(
            r#"
            frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
            backend "app" {
                @nodes
                server "app-1" "@app"
            }
        "#,
        )
        .with("@nodes", nodes)
        .with("@app", app.address())
        .start()
        .await;
        let request = get("/").header("TE", "trailers").header("Connection", "TE");
        assert_eq!(gateway.ask("web", request).await.status, 200);
        let seen = app.last().headers;
        assert_eq!(
            (seen.get("te"), seen.get("connection")),
            (Some("trailers"), Some(options))
        );
        let upgrade = get("/")
            .header("TE", "trailers")
            .header("Connection", "TE, upgrade")
            .header("Upgrade", "websocket");
        assert_eq!(gateway.ask("web", upgrade).await.status, 200);
        let seen = app.last().headers;
        assert_eq!((seen.get("te"), seen.get("connection")), (None, Some("upgrade")));
    }
}

#[tokio::test]
async fn a_client_that_wants_to_close_is_closed() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(ONE_WORKER).with("@app", app.address()).start().await;

    for _ in 0..2 {
        let mut client = gateway.connect("web").await;
        let answer = client.ask(get("/").header("Connection", "close")).await;
        assert_eq!(answer.header("connection"), Some("close"));
        client.closed().await;
    }

    assert_eq!(
        app.connections(),
        1,
        "the client's wish is no wish of the server's connection"
    );
}

#[tokio::test]
async fn a_server_that_wants_to_close_does_not_close_the_client() {
    let app = HttpServer::start(|_| Answer::ok("x").header("Connection", "close").then_close()).await;
    let gateway = Gateway::kdl(ONE_WORKER).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    for _ in 0..3 {
        let answer = client.ask(get("/")).await;
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }

    assert_eq!(app.connections(), 3);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = HttpServer::start(|request| Answer::ok(&request.target)).await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    let requests = [get("/1").bytes(), post("/2", "body").bytes(), get("/3").bytes()].concat();
    client.send(requests).await;

    for expected in ["/1", "/2", "/3"] {
        assert_eq!(client.response().await.text(), expected);
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let app = HttpServer::start(move |_| Answer::raw(chunked)).await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let answer = gateway.raw("web", "GET /old HTTP/1.0\r\nHost: a\r\n\r\n").await;

    assert!(answer.contains(" 200 "), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nhello"),
        "no chunks for a client that knows none: {answer}"
    );
    assert_eq!(app.last().version, "HTTP/1.1");
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_is_no_error() {
    // It closes after each answer without having said so: the gateway finds out when it uses the connection again.
    let app = HttpServer::start(|_| Answer::ok("x").then_close()).await;
    let gateway = Gateway::kdl(ONE_WORKER).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    for n in 0..200 {
        assert_eq!(client.ask(get("/")).await.status, 200, "request {n}");
    }
}

#[tokio::test]
async fn a_request_that_a_fresh_connection_died_of_is_not_sent_twice() {
    let app = HttpServer::start(|_| Answer::nothing().then_reset()).await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let answer = gateway.ask("web", post("/pay", "100")).await;

    assert_eq!(answer.status, 502);
    assert_eq!(app.requests().len(), 1, "a payment is made once");
}

#[tokio::test]
async fn a_request_that_its_server_has_said_something_of_is_not_sent_twice() {
    let app = HttpServer::start(|request| match &*request.target {
        "/hint" => Answer::raw("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n").then_close(),
        _ => Answer::ok("x"),
    })
    .await;
    let gateway = Gateway::kdl(ONE_WORKER).with("@app", app.address()).start().await;
    let mut client = gateway.connect("web").await;
    assert_eq!(client.ask(get("/")).await.status, 200);
    assert_eq!(client.ask(get("/hint")).await.status, 502);
    assert_eq!((app.requests().len(), app.connections()), (2, 1));
}

#[tokio::test]
async fn a_post_that_a_reused_connection_died_of_is_not_sent_twice() {
    // The POST is read and the connection reset: whether it was carried out, nobody knows.
    let app = HttpServer::start(|request| match request.method.as_str() {
        "POST" => Answer::nothing().then_reset(),
        _ => Answer::ok("x"),
    })
    .await;
    let gateway = Gateway::kdl(ONE_WORKER).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    assert_eq!(client.ask(get("/")).await.status, 200);
    let answer = client.ask(post("/pay", "100")).await;

    assert_eq!(answer.status, 502);
    assert_eq!(app.seen_text().matches("POST").count(), 1);
}

// ── content ───────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn head_has_the_length_and_no_content() {
    let app = HttpServer::answering("twelve bytes").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    let answer = client.ask(head("/")).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("12")));
    // Content that nobody announced would be read as the beginning of this one.
    assert_eq!(client.ask(get("/")).await.text(), "twelve bytes");
}

#[tokio::test]
async fn statuses_without_content_leave_the_connection_usable() {
    let app = HttpServer::start(|request| match request.target.as_str() {
        "/204" => Answer::status(204),
        "/304" => Answer::status(304).header("ETag", "\"a\""),
        _ => Answer::ok("x"),
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    for (target, status) in [("/204", 204), ("/304", 304), ("/200", 200), ("/204", 204)] {
        assert_eq!(client.ask(get(target)).await.status, status);
    }
}

#[tokio::test]
async fn chunked_content_passes_both_ways() {
    let app = HttpServer::start(|request| {
        let length = request.body.len();
        Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .then_send(format!("5;ext=1\r\n{length:05}\r\n0\r\nX-Trailer: 1\r\n\r\n"))
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    for _ in 0..2 {
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        client.send("4\r\nfour\r\n").await;
        client.send("A;x=\"y\"\r\n0123456789\r\n0\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "abc00014");
        assert_eq!(app.last().body, b"four0123456789");
    }
}

#[tokio::test]
async fn a_get_keeps_its_chunked_content() {
    let app = HttpServer::answering("found").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    client
        .send("GET /_search HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.response().await.text(), "found");
    assert_eq!(app.last().body, b"query");
}

#[tokio::test]
async fn an_answer_with_trailers_ends_like_any_other() {
    let app = HttpServer::start(|_| {
        Answer::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
        )
    })
    .await;
    let gateway = Gateway::kdl(ONE_WORKER).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "abc");
    }
    assert_eq!(app.connections(), 1, "the connection to the server is kept");
    drop(client);
    let lines = gateway.access_log(3).await;
    assert!(lines.iter().all(|line| line["termination"] == "--"), "{lines:?}");
}

#[tokio::test]
async fn a_request_of_http_1_0_without_a_host_gets_one() {
    let app = HttpServer::answering("old").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let answer = gateway.raw("web", "GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.contains("old"), "{answer}");
    assert_eq!(app.last().headers.get("host"), Some(app.address().to_string().as_str()));
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_ends_for_the_client() {
    let app = HttpServer::start(|_| Answer::raw("HTTP/1.1 200 OK\r\n\r\nuntil the end").then_close()).await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    assert_eq!(gateway.ask("web", get("/")).await.text(), "until the end");
}

#[tokio::test]
async fn expect_100_continue_gets_one() {
    let app = HttpServer::answering("done").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    client
        .send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let interim = within(Duration::from_secs(5), "100 Continue", client.exactly(25)).await;
    assert_eq!(String::from_utf8_lossy(&interim), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body").await;
    assert_eq!(client.response().await.text(), "done");
    assert_eq!(app.last().body, b"body");
}

#[tokio::test]
async fn a_large_upload_and_a_large_answer_arrive_whole() {
    const SIZE: usize = 8 << 20;
    let app = HttpServer::start(|request| Answer::ok(&request.body)).await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let content: Vec<u8> = (0..SIZE).map(|n| (n * 31 % 251) as u8).collect();

    let answer = gateway.ask("web", put("/", content.clone())).await;

    assert_eq!(answer.status, 200);
    assert!(app.last().body == content, "the upload differs");
    assert!(answer.body == content, "the answer differs");
}

#[tokio::test]
async fn a_slow_reader_costs_no_memory() {
    const SIZE: u64 = 1 << 30;
    let app = HttpServer::start(|request| match request.target.as_str() {
        "/" => Answer::head_only(SIZE).then_stream(SIZE),
        _ => Answer::ok("warm"),
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    // Whatever a first request makes the gateway keep is kept already.
    gateway.ask("web", get("/warm")).await;
    let mut client = gateway.connect("web").await;
    client.send(get("/").bytes()).await;
    client.response_head().await;
    let before = gateway.resident();

    let mut highest = before;
    let mut read = 0;
    for step in 0..64 {
        if step < 5 {
            // Long enough for everything between the two ends to fill.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        highest = highest.max(gateway.resident());
        read += client.skip(SIZE / 64).await;
    }

    assert_eq!(read, SIZE);
    let grown = highest - before;
    assert!(grown < 16 << 20, "{grown} bytes more while a gigabyte passed");
}

#[tokio::test]
async fn a_server_that_does_not_read_stops_the_upload() {
    // Accepts and reads nothing: the client may get rid of what the sockets hold, and of no more.
    let app = Server::start(|wire, _| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(wire);
        Ok(())
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let before = gateway.resident();

    let mut client = gateway.connect("web").await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n")
        .await;
    let block = vec![0; 1 << 20];
    let mut sent = 0;
    while sent < 256
        && tokio::time::timeout(Duration::from_secs(1), client.try_send(&block))
            .await
            .is_ok()
    {
        sent += 1;
    }

    assert!(sent < 128, "{sent} MiB vanished somewhere");
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
}

// ── what goes wrong, and what it is called ────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn the_client_is_told_what_was_wrong_with_its_request() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            request-limits head="8KiB" headers=20 uri="1KiB" body="10KiB"
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let long = |n: usize| "x".repeat(n);
    // `Host` is one more.
    let many = |n: usize| (1..n).fold(get("/"), |request, i| request.header(&format!("X-{i}"), "1"));

    let cases = [
        ("a target that fits", 200, get(&format!("/{}", long(900)))),
        ("a head that fits", 200, get("/").header("X-Long", &long(7000))),
        ("fields that fit", 200, many(20)),
        ("content that fits", 200, post("/", long(10 * 1024))),
        ("target too long", 414, get(&format!("/{}", long(1024)))),
        ("head too large", 431, get("/").header("X-Long", &long(9000))),
        ("too many fields", 431, many(21)),
        ("content too large", 413, post("/", long(10 * 1024 + 1))),
    ];
    for (what, status, request) in cases {
        let before = app.requests().len();
        let answer = gateway.ask("web", request).await;
        assert_eq!(answer.status, status, "{what}");
        let forwarded = app.requests().len() - before;
        assert_eq!(forwarded, usize::from(status == 200), "{what}: seen by the server");
    }
}

#[tokio::test]
async fn chunked_content_beyond_the_limit_is_refused() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; request-limits body="1KiB"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    let mut client = gateway.connect("web").await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    for _ in 0..8 {
        if client
            .try_send(format!("100\r\n{}\r\n", "x".repeat(256)))
            .await
            .is_err()
        {
            break;
        }
    }

    assert_eq!(client.response().await.status, 413);
    assert_eq!(app.requests().len(), 0, "the server never got a whole request");
}

#[tokio::test]
async fn what_is_no_request_is_a_bad_request() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    // Where the next request would begin, nobody knows: the connection is closed.
    for (bytes, status) in [
        ("GET / HTTP/2.7\r\nHost: a\r\n\r\n", 505),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03hello\r\n\r\n", 400),
    ] {
        let mut client = gateway.connect("web").await;
        client.send(bytes).await;
        let answer = client.response().await;
        assert_eq!(answer.status, status, "{bytes:?}");
        client.closed().await;
    }
    for bytes in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    ] {
        let mut client = gateway.connect("web").await;
        client.send(bytes).await;
        assert_eq!(client.response().await.status, 400, "{bytes:?}");
    }
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn connect_is_not_forwarded() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let answer = gateway
        .ask("web", method("CONNECT", "other.example:443").host("other.example:443"))
        .await;

    assert!((400..600).contains(&answer.status), "{}", answer.status);
    assert_eq!(app.requests().len(), 0);
}

#[tokio::test]
async fn a_request_that_no_rule_takes_is_not_found() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; acl "is-api" { path-prefix "/api/" }; use-backend "app" if="is-api" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    assert_eq!(gateway.ask("web", get("/api/x")).await.status, 200);
    assert_eq!(gateway.ask("web", get("/")).await.status, 404);
}

#[tokio::test]
async fn a_server_that_refuses_is_unavailable() {
    let (address, _guard) = refusing();
    let gateway = Gateway::kdl(PLAIN).with("@app", address).start().await;

    assert_eq!(gateway.ask("web", get("/")).await.status, 503);
}

#[tokio::test]
async fn an_answer_that_is_none_is_a_bad_gateway() {
    let answers: [&[u8]; 12] = [
        b"",
        b"hello, I am no HTTP server\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 Early\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nNo colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSpace : before\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Cut",
    ];
    let app = HttpServer::start(move |request| {
        let n: usize = request.target.trim_start_matches('/').parse().unwrap();
        Answer::raw(answers[n]).then_close()
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    for (n, bytes) in answers.iter().enumerate() {
        let answer = gateway.ask("web", get(&format!("/{n}"))).await;
        assert_eq!(answer.status, 502, "{:?}", bytes.escape_ascii().to_string());
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let app = HttpServer::start(|request| match request.target.as_str() {
        "/length" => Answer::head_only(100).then_send("only this").then_close(),
        "/reset" => Answer::head_only(100)
            .then_send("only this")
            .then_pause(Duration::from_millis(50))
            .then_reset(),
        "/chunked" => {
            Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n").then_close()
        }
        _ => Answer::ok("x"),
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    for target in ["/length", "/reset", "/chunked"] {
        let mut client = gateway.connect("web").await;
        client.send(get(target).bytes()).await;
        assert!(
            client.try_response().await.is_none(),
            "{target}: the client took it for a whole answer"
        );
    }
    assert_eq!(gateway.ask("web", get("/")).await.status, 200);
}

/// A client that has seen nothing may take its request for one that nobody has read, and send it again.
#[tokio::test]
async fn of_an_answer_that_breaks_off_at_once_all_is_passed_on_that_came() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n";
    let long = "x".repeat(300 * 1024);
    let answer_long = long.clone();
    let app = HttpServer::start(move |request| match request.target.as_str() {
        "/length" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").then_close(),
        "/chunked" => Answer::raw(CHUNKED).then_close(),
        _ => Answer::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n{answer_long}"
        ))
        .then_close(),
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    for (target, content) in [
        ("/length", "only this"),
        ("/chunked", "9\r\nonly this\r\n"),
        ("/long", &long),
    ] {
        let mut client = gateway.connect("web").await;
        client.send(get(target).bytes()).await;
        let all = client.rest().await;
        let all = String::from_utf8_lossy(&all);
        let (head, came) = all
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{target}: nothing came"));
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{target}: {head}");
        assert!(came == content, "{target}: {} bytes came", came.len());
    }
}

#[tokio::test]
async fn a_client_that_gives_up_frees_its_server() {
    let app = HttpServer::start(|request| match request.target.as_str() {
        "/slow" => Answer::nothing().then_stall(),
        _ => Answer::ok("x"),
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    client.send(get("/slow").bytes()).await;
    app.has_seen(1).await;
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "app-1")], 1.0)
        .await;
    client.reset();

    gateway
        .metric_is("gateway_server_in_flight", &[("server", "app-1")], 0.0)
        .await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 200);
}

#[tokio::test]
async fn a_client_that_has_ended_before_the_answer_gets_none_whenever_that_comes() {
    // Quick, slow, and not at all.
    for pause in [Some(Duration::ZERO), Some(Duration::from_millis(30)), None] {
        let has_ended = Arc::new(Notify::new());
        let app = {
            let has_ended = has_ended.clone();
            Server::start(move |mut wire, _| {
                let has_ended = has_ended.clone();
                async move {
                    wire.some().await?;
                    has_ended.notified().await;
                    if let Some(pause) = pause {
                        tokio::time::sleep(pause).await;
                        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
                    }
                    wire.rest().await.map(drop)
                }
            })
            .await
        };
        let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

        let mut client = gateway.connect("web").await;
        client.send(get("/").bytes()).await;
        eventually("the request is there", async || {
            app.connections() == 1 && !app.seen(0).is_empty()
        })
        .await;
        client.half_close().await;
        has_ended.notify_one();

        client.closed().await;
    }
}

#[tokio::test]
async fn an_answer_before_the_upload_is_through_reaches_the_client() {
    let app = Server::start(|mut wire, _| async move {
        wire.some().await?;
        wire.send("HTTP/1.1 403 No\r\nContent-Length: 4\r\nConnection: close\r\n\r\nstop")
            .await?;
        wire.rest().await.map(drop)
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        .await;
    client.send(vec![b'x'; 1000]).await;
    let answer = client.response().await;

    assert_eq!((answer.status, answer.text()), (403, "stop"));
}

#[tokio::test]
async fn beyond_the_most_connections_accepting_pauses() {
    let app = HttpServer::answering("x").await;
    let most = [
        (
            "process { max-connections 2; workers 2; log \"stdout\" format=\"json\" }",
            "",
        ),
        (
            "process { workers 2; log \"stdout\" format=\"json\" }",
            "max-connections 2;",
        ),
    ];
    for (process, frontend) in most {
        let gateway = Gateway::kdl(&format!(
            "{process}\nfrontend \"web\" {{ bind \"127.0.0.1:0\"; {frontend} default-backend \"app\" }}
            backend \"app\" {{ server \"app-1\" \"@app\" }}"
        ))
        .with("@app", app.address())
        .start()
        .await;

        let mut first = gateway.connect("web").await;
        let mut second = gateway.connect("web").await;
        assert_eq!(first.ask(get("/")).await.status, 200);
        assert_eq!(second.ask(get("/")).await.status, 200);
        let mut third = gateway.connect("web").await;
        third.send(get("/").bytes()).await;
        let early = tokio::time::timeout(Duration::from_millis(300), third.response()).await;
        assert!(early.is_err(), "{process} {frontend}: a third connection was served");
        // Whoever runs it learns why clients wait.
        let (of, own) = if frontend.is_empty() {
            ("process", 0.0)
        } else {
            ("frontend", 2.0)
        };
        gateway
            .says("there are as many connections as `max-connections` allows")
            .await;
        gateway.says(&format!("\"of\":\"{of}\"")).await;
        gateway
            .metric_is("gateway_frontend_delayed_connections_total", &[], 1.0)
            .await;
        gateway.metric_is("gateway_frontend_max_connections", &[], own).await;
        drop(first);
        assert_eq!(third.response().await.status, 200);
    }
}

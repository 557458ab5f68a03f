//! Responses of servers that two readers could read differently, byte by byte: what the client gets of them, what the server
//! was asked, what becomes of the connection, and the reason in the log.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::Duration;

use gateway_tests::http2::Http2Server;
use gateway_tests::{Answer, Gateway, HttpServer, get};

const PLAIN: &str = r#"
    process { workers 1; log "stdout" format="json" }
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { server "app-1" "@app" }
"#;

/// What has to become of a response.
enum Given {
    /// The client gets 502, with this reason in the log, and the connection to the server is not used again.
    Bad(&'static str),
    /// The client gets this content, and the connection is not used again.
    Whole(u16, &'static str),
    /// The client is cut off in the middle, with this reason.
    Cut(&'static str),
}

use Given::{Bad, Cut, Whole};

#[rustfmt::skip]
const RESPONSES: &[(&str, &str, Given)] = &[
    ("two lengths that differ", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nfour5", Bad("bad-response-length")),
    ("two lengths that agree", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nfour", Whole(200, "four")),
    ("a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\nfour", Bad("bad-response-length")),
    ("a plus", "HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nfour", Bad("bad-response-length")),
    ("a minus", "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nfour", Bad("bad-response-length")),
    ("hexadecimal", "HTTP/1.1 200 OK\r\nContent-Length: 0x4\r\n\r\nfour", Bad("bad-response-length")),
    ("empty", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nfour", Bad("bad-response-length")),
    ("beyond 64 bits", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551620\r\n\r\nfour", Bad("bad-response-length")),
    ("zeros before it", "HTTP/1.1 200 OK\r\nContent-Length: 0004\r\n\r\nfour", Whole(200, "four")),
    ("chunked and a length", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n", Bad("bad-response-length")),
    ("gzip, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n", Bad("bad-response-coding")),
    ("identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\nfour", Bad("bad-response-coding")),
    ("xchunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n", Bad("bad-response-coding")),
    ("chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Bad("bad-response-coding")),
    ("chunked in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n", Bad("bad-response-coding")),
    ("a fold", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 4\r\n\r\nfour", Bad("bad-response-head")),
    ("a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 4\r\n\r\nfour", Bad("bad-response-head")),
    ("no colon", "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 4\r\n\r\nfour", Bad("bad-response-head")),
    ("a bare CR", "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 4\r\n\r\nfour", Bad("bad-response-head")),
    ("a NUL", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 4\r\n\r\nfour", Bad("bad-response-head")),
    ("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 4\r\n\r\nfour", Bad("bad-response-head")),
    ("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 4\r\n\r\nfour", Bad("bad-response-head")),
    ("another version", "HTTP/3.7 200 OK\r\nContent-Length: 4\r\n\r\nfour", Bad("bad-response-head")),
    ("HTTP/0.9", "<html>hello</html>", Bad("bad-response-head")),
    ("another protocol", "220 mail.example ESMTP\r\n", Bad("bad-response-head")),
    ("nothing", "", Bad("bad-response")),
    ("half a head", "HTTP/1.1 200 OK\r\nContent-Le", Bad("bad-response")),
    ("bare line feeds", "HTTP/1.1 200 OK\nX: y\nContent-Length: 4\n\nfour", Whole(200, "four")),
    ("a length where there is no content", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", Whole(204, "")),
    ("what comes before", "HTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour", Whole(200, "four")),
    ("more than it said", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfourHTTP/1.1 200 OK\r\n\r\n", Whole(200, "four")),
    ("less than it said", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour", Cut("server-broke-off")),
    ("chunks without end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n", Cut("server-broke-off")),
    ("a chunk size that is none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\ng\r\n", Cut("server-broke-off")),
    ("a chunk beyond its size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nfour\r\n0\r\n\r\n", Cut("server-broke-off")),
];

#[tokio::test]
async fn responses_are_understood_in_one_way_or_refused() {
    let app = HttpServer::start(|request| {
        let n: usize = request.target.trim_start_matches('/').parse().unwrap();
        let (_, bytes, given) = &RESPONSES[n];
        match given {
            // Whether the connection is used again is not for the server to decide.
            Bad(_) if bytes.ends_with("\r\n\r\n") || bytes.ends_with("four") => {
                Answer::raw(bytes).then_pause(Duration::from_millis(100)).then_close()
            }
            _ => Answer::raw(bytes).then_close(),
        }
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let mut wrong = Vec::new();
    let mut answers = Vec::new();
    for n in 0..RESPONSES.len() {
        let asked = app.requests().len();
        let mut client = gateway.connect("web").await;
        client.send(get(&format!("/{n}")).bytes()).await;
        let answer = client.try_response().await;
        let seen = app.requests().split_off(asked);
        let seen: Vec<_> = seen
            .into_iter()
            .map(|request| (request.target, request.connection))
            .collect();
        answers.push((answer, seen));
    }
    let lines = gateway.access_log(RESPONSES.len()).await;
    let mut last = None;
    for (n, (((what, _, given), (answer, seen)), line)) in RESPONSES.iter().zip(answers).zip(lines).enumerate() {
        let reason = line["reason"].as_str().unwrap_or("-").to_owned();
        // Each is asked for once, and on a connection that none of the others had.
        let is_asked_once =
            matches!(&seen[..], [(target, connection)] if *target == format!("/{n}") && last < Some(*connection));
        last = seen.last().map(|(_, connection)| *connection).max(last);
        let ok = match (given, &answer) {
            (Bad(why), Some(answer)) => answer.status == 502 && reason == *why,
            (Whole(status, body), Some(answer)) => {
                let lengths: Vec<_> = answer.headers.all("content-length").collect();
                let length = body.len().to_string();
                answer.status == *status
                    && answer.body == body.as_bytes()
                    && reason == "-"
                    && match status {
                        204 => lengths.is_empty(),
                        _ => lengths == [length],
                    }
            }
            (Cut(why), None) => reason == *why,
            _ => false,
        };
        if !ok || !is_asked_once {
            let answer = answer.map(|answer| String::from_utf8_lossy(&answer.raw).into_owned());
            wrong.push(format!(
                "{what}: {reason}; the client got {answer:?}; the server was asked {seen:?}; {line}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A connection on which something was odd serves nobody else: what is left on it could be taken for an answer.
#[tokio::test]
async fn a_connection_with_an_odd_response_is_not_used_again() {
    let app = HttpServer::start(|request| match &*request.target {
        "/odd" => Answer::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n",
        ),
        "/more" => Answer::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        ),
        _ => Answer::ok("fine"),
    })
    .await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    for (n, odd) in ["/odd", "/more", "/odd"].into_iter().enumerate() {
        gateway.ask("web", get(odd)).await;
        assert_eq!(gateway.ask("web", get("/")).await.text(), "fine", "after {odd}");
        let connections = app.requests().last().unwrap().connection;
        assert_eq!(connections, n + 1, "after {odd}");
    }
}

#[tokio::test]
async fn responses_are_bounded_as_told() {
    let app = HttpServer::start(|request| {
        let n: usize = request.target[3..].parse().unwrap();
        match &request.target[..3] {
            "/h/" => Answer::ok("x").header("X-Long", &"x".repeat(n)),
            "/l/" => Answer::raw(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(n))).then_stall(),
            _ => (0..n).fold(Answer::ok("x"), |answer, n| answer.header(&format!("X-{n}"), "1")),
        }
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        frontend "small" { bind "127.0.0.1:0"; default-backend "small" }
        frontend "large" { bind "127.0.0.1:0"; default-backend "large" }
        backend "app" { server "a" "@app" }
        backend "small" { response-limits head="2KiB" headers=10; server "a" "@app" }
        backend "large" { response-limits head="256KiB" headers=500; server "a" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    for (n, (frontend, target, status)) in [
        ("web", "/h/60000", 200),
        ("web", "/h/70000", 502),
        ("web", "/l/70000", 502),
        ("web", "/n/90", 200),
        ("web", "/n/110", 502),
        ("small", "/h/1500", 200),
        ("small", "/h/2100", 502),
        ("small", "/l/70000", 502),
        ("small", "/n/8", 200),
        ("small", "/n/12", 502),
        ("large", "/h/200000", 200),
        ("large", "/h/300000", 502),
        ("large", "/n/400", 200),
        ("large", "/n/600", 502),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(
            gateway.ask(frontend, get(target)).await.status,
            status,
            "{frontend} {target}"
        );
        let seen: Vec<_> = app
            .requests()
            .split_off(n)
            .into_iter()
            .map(|request| request.target)
            .collect();
        assert_eq!(seen, [target], "what the server was asked");
        let line = gateway.access_log(n + 1).await.remove(n);
        let reason = if status == 502 {
            "response-head-too-large".into()
        } else {
            serde_json::Value::Null
        };
        assert_eq!(line["reason"], reason, "{frontend} {target}: {line}");
    }
}

#[tokio::test]
async fn the_limit_of_a_head_is_the_same_in_either_version() {
    // As `HTTP/1.1 200 `, the two fields and an empty line.
    let pad = |length: usize| "x".repeat(length - "HTTP/1.1 200 \r\nx-a: \r\nx-b: 1\r\n\r\n".len());
    let length = |target: &str| target[1..].parse::<usize>().unwrap();
    let h1 = HttpServer::start(move |request| {
        let pad = pad(length(&request.target));
        Answer::raw(format!("HTTP/1.1 200 \r\nx-a: {pad}\r\nx-b: 1\r\n\r\n")).then_close()
    })
    .await;
    let h2 = Http2Server::start(move |mut exchange| async move {
        let pad = pad(length(exchange.request.uri().path()));
        let head = http::Response::builder().header("x-a", pad).header("x-b", "1");
        exchange.respond.send_response(head.body(()).unwrap(), true)?;
        Ok(())
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "one" { bind "127.0.0.1:0"; default-backend "one" }
        frontend "two" { bind "127.0.0.1:0"; default-backend "two" }
        backend "one" { response-limits head="1KiB" headers=2; server "a" "@h1" }
        backend "two" { response-limits head="1KiB" headers=2; server "a" "@h2" h2 }
    "#,
    )
    .with("@h1", h1.address())
    .with("@h2", h2.address())
    .start()
    .await;
    let mut lines = 0;
    for frontend in ["one", "two"] {
        for (length, status) in [(1023, 200), (1024, 200), (1025, 502), (1060, 502)] {
            let answer = gateway.ask(frontend, get(&format!("/{length}"))).await;
            assert_eq!(answer.status, status, "{frontend} {length}");
            lines += 1;
            let line = gateway.access_log(lines).await.remove(lines - 1);
            let reason = (status == 502).then_some("response-head-too-large");
            assert_eq!(line["reason"].as_str(), reason, "{frontend} {length}: {line}");
        }
    }
}

#[tokio::test]
async fn interim_responses_neither_hold_an_exchange_up_nor_come_without_end() {
    let wait = "HTTP/1.1 102 Processing\r\n\r\n";
    let app = HttpServer::start(move |request| match &*request.target {
        "/storm" => (0..200).fold(Answer::nothing(), |answer, _| {
            answer.then_send(wait.repeat(1000)).then_pause(Duration::from_millis(5))
        }),
        "/slow" => (0..200).fold(Answer::nothing(), |answer, _| {
            answer.then_send(wait).then_pause(Duration::from_millis(20))
        }),
        _ => Answer::nothing()
            .then_send(wait.repeat(60))
            .then_send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"),
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { timeout server="300ms"; server "a" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    assert_eq!(gateway.ask("web", get("/storm")).await.status, 502);
    assert_eq!(gateway.ask("web", get("/slow")).await.status, 504);
    assert_eq!(gateway.ask("web", get("/few")).await.text(), "fine");
    let lines = gateway.access_log(3).await;
    let reasons: Vec<_> = lines
        .iter()
        .map(|line| line["reason"].as_str().unwrap_or("-"))
        .collect();
    assert_eq!(reasons, ["too-many-informational", "server-timeout", "-"]);
}

#[tokio::test]
async fn informational_responses_are_bounded_in_either_version_as_told() {
    let hint = || http::Response::builder().status(103).body(()).unwrap();
    let h2 = Http2Server::start_with(
        |_| (),
        None,
        move |mut exchange| async move {
            let count: usize = exchange.request.uri().path().trim_start_matches('/').parse().unwrap();
            for _ in 0..count {
                exchange.respond.send_informational(hint())?;
            }
            exchange.answer("fine")
        },
    )
    .await;
    let h1 = HttpServer::start(|request| {
        let count: usize = request.target.trim_start_matches('/').parse().unwrap();
        let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count);
        Answer::raw(hints).then_send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "one" { bind "127.0.0.1:0"; default-backend "one" }
        frontend "two" { bind "127.0.0.1:0"; default-backend "two" }
        frontend "hints" { bind "127.0.0.1:0"; default-backend "hints" }
        backend "one" { response-limits informational=5; server "a" "@h1" }
        backend "two" { response-limits informational=5; server "a" "@h2" h2 }
        backend "hints" { response-limits informational=5; early-hints; server "a" "@h2" h2 }
    "#,
    )
    .with("@h1", h1.address())
    .with("@h2", h2.address())
    .start()
    .await;
    let mut lines = 0;
    for frontend in ["one", "two", "hints"] {
        for (count, status) in [(0, 200), (5, 200), (6, 502), (1000, 502)] {
            let answer = gateway.ask(frontend, get(&format!("/{count}"))).await;
            assert_eq!(answer.status, status, "{frontend} {count}");
            lines += 1;
            let line = gateway.access_log(lines).await.remove(lines - 1);
            let said = (line["reason"].as_str(), &line["termination"]);
            let expected = match status {
                200 => (None, "--"),
                _ => (Some("too-many-informational"), "PH"),
            };
            assert_eq!((said.0, said.1.as_str().unwrap()), expected, "{line}");
        }
    }
}

/// What a status has no words for goes without, and words that a server had for its status do not go with another.
#[tokio::test]
async fn a_status_has_no_words_that_nobody_said() {
    let app = HttpServer::start(|request| match &*request.target {
        "/none" => Answer::raw("HTTP/1.1 520 \r\nContent-Length: 2\r\n\r\nok"),
        "/own" => Answer::raw("HTTP/1.1 520 Web Server Is Down\r\nContent-Length: 2\r\n\r\nok"),
        _ => Answer::raw("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok"),
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            acl "here" { path "/here" }
            acl "changed" { path "/changed" }
            return status=299 if="here"
            deny status=499 { path "/denied" }
            response { set-status 404 if="changed" }
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    for (path, line) in [
        ("/none", "HTTP/1.1 520 \r\n"),
        ("/own", "HTTP/1.1 520 Web Server Is Down\r\n"),
        ("/here", "HTTP/1.1 299 \r\n"),
        ("/denied", "HTTP/1.1 499 \r\n"),
        ("/same", "HTTP/1.1 200 Fine\r\n"),
        ("/changed", "HTTP/1.1 404 Not Found\r\n"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = gateway.raw("web", request).await;
        assert!(answer.starts_with(line), "{path}: {answer}");
    }
}

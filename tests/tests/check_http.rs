//! Checks over HTTP: what they ask, what they want to hear, in which version and in which TLS; and those of gRPC.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use gateway_tests::http2::{Http2Exchange, Http2Server};
use gateway_tests::tls::{Authority, TlsServer};
use gateway_tests::{Answer, Gateway, HttpServer, Server, eventually, get};
use http::{HeaderMap, Response};

/// One server, with a check that has to pass once before the server is used.
const CHECKED: &str = r#"
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" {
        check @check
        server "s" "@app" @server
    }
"#;

/// A server with this check: whether it is up in the end, and what the log says when it is not.
async fn checked(text: &str, check: &str, server: &str, address: std::net::SocketAddr, reason: Option<&str>) {
    let gateway = Gateway::kdl(text)
        .with("@check", check)
        .with("@app", address)
        .with("@server", server)
        .start()
        .await;
    match reason {
        None => gateway.metric_is("gateway_server_up", &[("server", "s")], 1.0).await,
        Some(reason) => gateway.says(reason).await,
    }
    let up = gateway.metrics().await.get("gateway_server_up", &[("server", "s")]);
    assert_eq!(up, Some(if reason.is_none() { 1.0 } else { 0.0 }), "{check}");
}

fn http(block: &str) -> String {
    format!(r#""http" interval="100ms" timeout="100ms" rise=1 initial="fully-down" {{ {block} }}"#)
}

#[tokio::test]
async fn an_answer_is_held_against_everything_that_is_expected() {
    let app = HttpServer::start(|request| match request.target.as_str() {
        "/busy" => Answer::status(503).header("X-Ready", "no").body("status:starting"),
        _ => Answer::ok("status:ready, errors: 0").header("X-Ready", "yes, since 5"),
    })
    .await;
    let cases: &[(&str, Option<&str>)] = &[
        (r#"send "GET" "/""#, None),
        (r#"expect status="200-299,301""#, None),
        (r#"expect not status="500-599""#, None),
        (r#"expect header="X-Ready"; expect header="x-ready" prefix="yes""#, None),
        (
            r#"expect header="X-Ready" regex="since [0-9]+$"; expect not header="X-Down""#,
            None,
        ),
        (
            r#"expect body-regex="errors: [0-4]\b"; expect not body-contains="errors: 5""#.trim(),
            None,
        ),
        (r#"send "GET" "/busy""#, Some("status 503")),
        (
            r#"send "GET" "/busy"; expect status=503; expect body-contains="starting""#,
            None,
        ),
        (
            r#"send "GET" "/busy"; expect not status=503"#,
            Some("status 503, which is not to be"),
        ),
        (r#"expect header="X-Other""#, Some("no header x-other")),
        (r#"expect not header="X-Ready""#, Some("there is a header x-ready")),
        (
            r#"expect header="X-Ready" value="yes""#,
            Some(r#"header x-ready does not equal \"yes\"; it is \"yes, since 5\""#),
        ),
        (
            r#"expect not header="X-Ready" contains="since""#,
            Some(r#"header x-ready is \"yes, since 5\", which is not to contain \"since\""#),
        ),
        (
            r#"expect body-contains="ready"; expect body-contains="done""#,
            Some(r#"the body does not contain \"done\""#),
        ),
        (
            r#"expect not body-regex="err.r""#,
            Some(r#"the body is not to match \"err.r\", and does"#),
        ),
    ];
    for (block, reason) in cases {
        let block = block.replace(r"\b", "");
        checked(CHECKED, &http(&block), "", app.address(), *reason).await;
    }
}

#[tokio::test]
async fn no_more_of_a_body_is_looked_at_than_is_said() {
    let app = HttpServer::answering("0123456789ready").await;
    let limited = |limit: &str| {
        let check = http(r#"expect body-contains="ready""#);
        check.replacen(" {", &format!(" body-limit={limit} {{"), 1)
    };
    checked(CHECKED, &limited(r#""15B""#), "", app.address(), None).await;
    checked(
        CHECKED,
        &limited(r#""14B""#),
        "",
        app.address(),
        Some("the body does not contain"),
    )
    .await;
}

#[tokio::test]
async fn a_check_sends_what_it_is_told_to() {
    let app = HttpServer::answering("x").await;
    let block = r#"send "POST" "/health?full=1" version="1.0" host="health.example" {
        header "X-Probe" "1"
        header "X-Probe" "2"
        header "User-Agent" "probe/1"
        body "{\"deep\":true}"
    }"#;
    checked(CHECKED, &http(block), "", app.address(), None).await;
    let seen = app.requests().remove(0);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/health?full=1"));
    assert_eq!(seen.version, "HTTP/1.0");
    assert_eq!(seen.headers.get("host"), Some("health.example"));
    assert_eq!(seen.headers.all("x-probe").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(seen.headers.all("user-agent").collect::<Vec<_>>(), ["probe/1"]);
    assert_eq!(seen.body, br#"{"deep":true}"#);
}

#[tokio::test]
async fn a_check_may_ask_for_the_server_as_a_whole() {
    let check = http(r#"send "OPTIONS" "*"; expect header="Content-Length" value="5""#);
    let app = HttpServer::answering("ready").await;
    checked(CHECKED, &check, "", app.address(), None).await;
    let seen = app.requests().remove(0);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("OPTIONS", "*"));

    let answer = |exchange: Http2Exchange| async move { exchange.answer("ready") };
    let app = Http2Server::start(answer).await;
    checked(CHECKED, &http(r#"send "OPTIONS" "*""#), "h2", app.address(), None).await;
    assert_eq!(
        (app.last().method().as_str(), app.last().uri().path()),
        ("OPTIONS", "*")
    );
}

#[tokio::test]
async fn a_server_whose_check_asks_for_no_new_work_keeps_who_belongs_to_it() {
    let status = Arc::new(AtomicU16::new(200));
    let says = Arc::clone(&status);
    let a = HttpServer::start(move |request| match request.target.as_str() {
        "/health" => Answer::status(says.load(Ordering::Relaxed)),
        _ => Answer::ok("a"),
    })
    .await;
    let b = HttpServer::answering("b").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            cookie "S" insert
            check "http" interval="50ms" rise=1 fall=1 { send "GET" "/health"; drain status=404 }
            server "a" "@a" cookie="a"
            server "b" "@b" cookie="b"
        }
    "#,
    )
    .with("@a", a.address())
    .with("@b", b.address())
    .start()
    .await;
    let of_a = [("server", "a")];
    let answers = async || {
        let mut answers = String::new();
        for _ in 0..4 {
            answers += gateway.ask("web", get("/")).await.text();
        }
        answers
    };

    status.store(404, Ordering::Relaxed);
    gateway.says("its check asks for no new work").await;
    assert_eq!(answers().await, "bbbb");
    assert_eq!(gateway.ask("web", get("/").header("Cookie", "S=a")).await.text(), "a");
    gateway.metric_is("gateway_server_up", &of_a, 1.0).await;
    status.store(200, Ordering::Relaxed);
    gateway.says("server is no longer drained").await;
    assert!(answers().await.contains('a'));

    // Who is down does not come up by that.
    status.store(500, Ordering::Relaxed);
    gateway.metric_is("gateway_server_up", &of_a, 0.0).await;
    status.store(404, Ordering::Relaxed);
    gateway.says("\"reason\":\"status 404\"").await;
    gateway.metric_is("gateway_server_up", &of_a, 0.0).await;
    status.store(200, Ordering::Relaxed);
    gateway.metric_is("gateway_server_up", &of_a, 1.0).await;
    assert!(answers().await.contains('a'));
}

#[tokio::test]
async fn a_server_with_which_tls_does_not_stand_in_time_is_told_of_once_and_as_such() {
    let silent = Server::start(|mut wire, _| async move { wire.rest().await.map(drop) }).await;
    let gateway = Gateway::kdl(CHECKED)
        .with(
            "@check",
            r#""http" interval="400ms" timeout="400ms" rise=1 initial="fully-down" { send "GET" "/" }"#,
        )
        .with("@app", silent.address())
        .with("@server", r#"{ tls verify="none" }"#)
        .start()
        .await;
    gateway.says("no TLS with it within 400ms").await;
    eventually("it is checked again and again", async || silent.connections() >= 6).await;
    let said = gateway.output();
    assert_eq!(said.matches("check failed").count(), 1, "{said}");
}

#[tokio::test]
async fn servers_that_speak_http_2_are_checked_in_it() {
    let authority = Authority::new();
    let answer = |exchange: Http2Exchange| async move { exchange.answer("status:ready") };
    let plain = Http2Server::start(answer).await;
    let tls = Http2Server::start_with(|_| {}, Some(authority.server(&["app.internal"])), answer).await;
    let check = http(r#"send "GET" "/health" host="app.internal"; expect body-contains="ready""#);

    for (server, words) in [(&plain, "h2"), (&tls, r#"h2 { tls ca="ca.pem" sni="app.internal" }"#)] {
        let gateway = Gateway::kdl(CHECKED)
            .with("@check", &check)
            .with("@app", server.address())
            .with("@server", words)
            .file("ca.pem", authority.pem())
            .start()
            .await;
        gateway.metric_is("gateway_server_up", &[("server", "s")], 1.0).await;
        let seen = server.last();
        assert_eq!(seen.uri().path(), "/health");
        assert_eq!(seen.uri().authority().unwrap(), "app.internal");
        assert_eq!(gateway.ask("web", get("/")).await.status, 200);
    }
    // Where traffic speaks HTTP/1.1, the check may be told otherwise.
    checked(
        CHECKED,
        &http(r#"send "GET" "/" version="2""#),
        "",
        plain.address(),
        None,
    )
    .await;
    checked(
        CHECKED,
        &http(r#"send "GET" "/""#),
        "",
        plain.address(),
        Some("no HTTP answer"),
    )
    .await;
}

#[tokio::test]
async fn the_health_protocol_of_grpc_is_spoken() {
    let server = Http2Server::start(|exchange: Http2Exchange| async move {
        let Http2Exchange {
            request, mut respond, ..
        } = exchange;
        let (head, mut content) = request.into_parts();
        let asked = gateway_tests::http2::drain(&mut content).await?;
        assert_eq!(head.uri.path(), "/grpc.health.v1.Health/Check");
        assert_eq!(
            (&head.headers["content-type"], &head.headers["te"]),
            (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
        );
        let response = Response::builder().header("content-type", "application/grpc");
        let mut trailers = HeaderMap::new();
        let status = match asked.get(7..) {
            Some(b"shop.Orders") => 1,
            Some(b"shop.Stock") => 2,
            _ => {
                let response = response
                    .header("grpc-status", "5")
                    .header("grpc-message", "unknown service");
                return respond.send_response(response.body(()).unwrap(), true).map(drop);
            }
        };
        let mut stream = respond.send_response(response.body(()).unwrap(), false)?;
        stream.send_data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]), false)?;
        trailers.insert("grpc-status", "0".parse().unwrap());
        stream.send_trailers(trailers)
    })
    .await;
    let grpc = |service: &str| format!(r#""grpc" service="{service}" interval="100ms" rise=1 initial="fully-down""#);
    checked(CHECKED, &grpc("shop.Orders"), "h2", server.address(), None).await;
    checked(
        CHECKED,
        &grpc("shop.Stock"),
        "h2",
        server.address(),
        Some("the service is NOT_SERVING"),
    )
    .await;
    let reason = r#"gRPC status 5: \"unknown service\""#;
    checked(CHECKED, &grpc("shop.Nothing"), "h2", server.address(), Some(reason)).await;
    // A server that speaks no HTTP/2 is down, whatever it says.
    let other = HttpServer::answering("x").await;
    checked(CHECKED, &grpc("shop.Orders"), "", other.address(), Some("check failed")).await;
}

#[tokio::test]
async fn tls_that_passes_through_is_checked_in_tls() {
    let authority = Authority::new();
    let app = TlsServer::start(authority.server(&["app.internal"])).await;
    let text = CHECKED
        .replace("bind", "mode \"tcp\"; bind")
        .replace("check @check", "mode \"tcp\"; check @check");
    let tls =
        |words: &str| format!(r#""tcp" interval="200ms" rise=1 initial="fully-down" {{ tls ca="ca.pem" {words} }}"#);
    let start = async |check: &str| {
        Gateway::kdl(&text)
            .with("@check", check)
            .with("@app", app.address())
            .with("@server", "")
            .file("ca.pem", authority.pem())
            .start()
            .await
    };
    let gateway = start(&tls(r#"sni="app.internal""#)).await;
    gateway.metric_is("gateway_server_up", &[("server", "s")], 1.0).await;
    // What clients send is not in the check's TLS: the server hears of it what they say.
    let mut client = gateway.connect("web").await;
    client.send("no TLS at all, and the server says so").await;
    client.ends().await;
    assert!(!app.failures().is_empty());

    let gateway = start(&tls(r#"sni="other.internal""#)).await;
    gateway.says("no TLS with it").await;
    let up = gateway.metrics().await.get("gateway_server_up", &[("server", "s")]);
    assert_eq!(up, Some(0.0));
}

//! Calls of gRPC, whose answers are all 200: what became of one stands in `grpc-status`, and so in lines and metrics, and it is
//! held against its server.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::http2::{
    Http2Client, Http2Exchange, Http2Frames, Http2Server, drain, frame, http2_get, http2_post, read,
};
use gateway_tests::{Answer, Gateway, HttpServer, PATIENCE, eventually, refusing, within};
use http::{HeaderMap, HeaderValue, Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;

/// A server whose path says how a call ends: `/trailers/14` behind the content, `/head/14` in a head without any, `/not-200/0` with
/// another status of HTTP, `/html/14` as an answer of another kind, `/web/14` in the content of gRPC-Web. `/cut/0` ends in the middle of its
/// answer, once all of the call has come, and `/mute/0` never says it.
async fn app() -> Http2Server {
    Http2Server::start(async |mut exchange: Http2Exchange| {
        let path = exchange.request.uri().path().to_owned();
        let (kind, status) = path[1..].split_once('/').unwrap();
        let media = match kind {
            "html" => "text/html",
            "web" => "application/grpc-web+proto",
            _ => "application/grpc+proto",
        };
        let mut response = Response::builder().header("content-type", media);
        let said = HeaderValue::from_str(status).unwrap();
        if kind == "not-200" {
            response = response.status(503);
        }
        if kind == "web" {
            let mut stream = exchange.respond.send_response(response.body(()).unwrap(), false)?;
            return stream.send_data(format!("\0\0\0\0\0\u{80}grpc-status:{status}").into(), true);
        }
        if kind == "cut" || kind == "mute" {
            let mut stream = exchange.respond.send_response(response.body(()).unwrap(), false)?;
            drain(exchange.request.body_mut()).await?;
            if kind == "mute" {
                return stream.send_data("\0\0\0\0\0".into(), true);
            }
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
            return Ok(());
        }
        if kind != "trailers" {
            let response = response.header("grpc-status", said).body(()).unwrap();
            return exchange.respond.send_response(response, true).map(drop);
        }
        let mut stream = exchange.respond.send_response(response.body(()).unwrap(), false)?;
        stream.send_data("\0\0\0\0\0".into(), false)?;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", said);
        stream.send_trailers(trailers)
    })
    .await
}

async fn gateway(log: &str, frontend: &str, backend: &str, app: &Http2Server) -> Gateway {
    Gateway::kdl(
        r#"
        process { workers 1; @log }
        frontend "web" {
            bind "127.0.0.1:0"
            @frontend
            default-backend "app"
        }
        backend "app" {
            @backend
            server "a" "@app" h2
        }
    "#,
    )
    .with("@log", log)
    .with("@frontend", frontend)
    .with("@backend", backend)
    .with("@app", app.address())
    .start()
    .await
}

const JSON: &str = r#"log "stdout" format="json""#;

/// Makes these calls, one after another.
async fn call(gateway: &Gateway, paths: &[&str]) {
    let client = Http2Client::connect(gateway.address("web")).await;
    for path in paths {
        let (response, mut stream) = client.open(message(path, "").map(drop), false).await;
        let called = async {
            if !path.starts_with("/cut") {
                stream.send_data("\0\0\0\0\0".into(), true)?;
                return read(response).await.map(drop);
            }
            // The head is here before it breaks off.
            let mut response = response.await?;
            stream.send_data("\0\0\0\0\0".into(), true)?;
            drain(response.body_mut()).await.map(drop)
        };
        let ended = within(PATIENCE, "an answer", called).await;
        assert_eq!(ended.is_err(), path.starts_with("/cut"), "{path}: {ended:?}");
    }
}

#[tokio::test]
async fn lines_and_metrics_say_what_became_of_a_call() {
    let app = app().await;
    let gateway = gateway(JSON, "", "", &app).await;
    let calls = [
        "/trailers/0",
        "/trailers/14",
        "/head/5",
        "/trailers/17",
        "/head/x",
        "/html/14",
        "/web/14",
    ];
    call(&gateway, &calls).await;
    // Nobody calls with GET.
    Http2Client::connect(gateway.address("web"))
        .await
        .ask(http2_get("/head/2"))
        .await;
    let lines = gateway.access_log(8).await;
    let said: Vec<_> = lines
        .iter()
        .map(|line| (&line["status"], line.get("grpc_status").cloned()))
        .collect();
    let null = serde_json::Value::Null;
    let expected = [
        Some(0.into()),
        Some(14.into()),
        Some(5.into()),
        Some(null.clone()),
        Some(null),
        None,
        None,
        None,
    ];
    for ((status, said), expected) in said.into_iter().zip(expected) {
        assert_eq!((status, said), (&200.into(), expected));
    }
    for (result, count) in [("ok", 1.0), ("client-error", 1.0), ("server-error", 1.0), ("none", 2.0)] {
        let labels = [("backend", "app"), ("server", "a"), ("result", result)];
        gateway
            .metric_is("gateway_server_grpc_responses_total", &labels, count)
            .await;
    }
}

#[tokio::test]
async fn a_format_has_the_status_of_a_call() {
    let app = app().await;
    let gateway = gateway(
        r#"log "stdout" format="text""#,
        r#"log-format "LINE %{path} %{status} %{grpc-status}""#,
        "",
        &app,
    )
    .await;
    call(&gateway, &["/trailers/13", "/html/13", "/head/99"]).await;
    gateway.says("LINE /head/99 200 -").await;
    let output = gateway.output();
    for line in ["LINE /trailers/13 200 13\n", "LINE /html/13 200 -\n"] {
        assert!(output.contains(line), "{output}");
    }
}

#[tokio::test]
async fn a_call_that_fails_by_the_servers_fault_is_an_error_of_the_log() {
    let app = app().await;
    let gateway = gateway(JSON, "access-log only-errors", "", &app).await;
    call(
        &gateway,
        &[
            "/trailers/0",
            "/head/5",
            "/trailers/14",
            "/head/16",
            "/mute/0",
            "/cut/0",
            "/trailers/2",
        ],
    )
    .await;
    let lines = gateway.access_log(4).await;
    let said: Vec<_> = lines.iter().map(|line| line["grpc_status"].as_u64()).collect();
    assert_eq!(said, [Some(14), None, None, Some(2)]);
    assert_eq!(
        (&lines[1]["termination"], &lines[1]["reason"]),
        (&"--".into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&lines[2]["termination"], &lines[2]["reason"]),
        (&"SD".into(), &"server-broke-off".into())
    );
}

#[tokio::test]
async fn calls_that_fail_eject_their_server() {
    for (kind, status, what, reason) in [
        ("trailers", 14, "consecutive-gateway-errors=3", "gateway-errors"),
        ("head", 13, "consecutive-errors=3", "errors"),
        // What the status of HTTP says already, gRPC's takes nothing from.
        ("not-200", 0, "consecutive-errors=3", "errors"),
        // Who breaks off before it has said anything has not answered, and who ends so has answered with nothing.
        ("cut", 0, "consecutive-gateway-errors=3", "gateway-errors"),
        ("mute", 0, "consecutive-errors=3", "errors"),
    ] {
        let app = app().await;
        let other = HttpServer::start(|_| Answer::status(404)).await;
        let node = format!("outlier-ejection {what} base-time=\"1m\"; balance \"first\"; server \"spare\" \"@spare\"");
        let gateway = Gateway::kdl(
            r#"
            process { workers 1; @log }
            frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
            backend "app" { server "a" "@app" max-connections=100 h2; @backend }
        "#,
        )
        .with("@log", JSON)
        .with("@backend", node)
        .with("@app", app.address())
        .with("@spare", other.address())
        .start()
        .await;
        let bad = format!("/{kind}/{status}");
        // A call that goes well ends the row, and one that fails by its caller's fault does, too.
        call(
            &gateway,
            &[&bad, &bad, "/trailers/0", &bad, &bad, "/trailers/5", &bad, &bad],
        )
        .await;
        assert_eq!(app.requests().len(), 8, "{bad}");
        call(&gateway, &[&bad]).await;
        let labels = [("server", "a"), ("reason", reason)];
        gateway
            .metric_is("gateway_server_outlier_ejections_total", &labels, 1.0)
            .await;
        let client = Http2Client::connect(gateway.address("web")).await;
        assert_eq!(client.ask(message(&bad, "\0\0\0\0\0")).await.status, 404, "{bad}");
        assert_eq!((app.requests().len(), other.requests().len()), (9, 1), "{bad}");
    }
}

/// All that a collector was sent until now.
fn spans(collector: &HttpServer) -> Vec<Span> {
    let requests = collector.requests();
    let sent = requests
        .iter()
        .map(|request| ExportTraceServiceRequest::decode(&*request.body).unwrap());
    let of_resources = sent.flat_map(|sent| sent.resource_spans);
    of_resources
        .flat_map(|of| of.scope_spans)
        .flat_map(|scope| scope.spans)
        .collect()
}

#[tokio::test]
async fn a_call_that_fails_is_a_span_that_fails() {
    let collector = HttpServer::answering("").await;
    let app = app().await;
    let log = format!("{JSON}; tracing \"http://{}\"", collector.address());
    let gateway = gateway(&log, "", "", &app).await;
    call(&gateway, &["/trailers/14"]).await;
    eventually("the collector has the spans", async || spans(&collector).len() >= 2).await;
    // The gateway's, and that of the attempt.
    for span in spans(&collector) {
        let value = |key: &str| {
            let found = span.attributes.iter().find(|attribute| attribute.key == key);
            found.and_then(|attribute| attribute.value.clone()?.value)
        };
        assert_eq!(value("rpc.system"), Some(Value::StringValue("grpc".to_owned())));
        assert_eq!(value("rpc.grpc.status_code"), Some(Value::IntValue(14)));
        assert_eq!(value("error.type"), Some(Value::StringValue("14".to_owned())));
        assert_eq!(span.status.map(|status| status.code), Some(StatusCode::Error as i32));
    }
}

/// A server that reads what it is sent, and fails each call so, in a head without content; after OK what it has read comes back.
async fn failing(head: &'static [(&'static str, &'static str)]) -> Http2Server {
    Http2Server::start(move |mut exchange: Http2Exchange| async move {
        let content = drain(exchange.request.body_mut()).await?;
        let mut response = Response::builder().header("content-type", "application/grpc");
        for (name, value) in head {
            response = match *name {
                ":status" => response.status(*value),
                name => response.header(name, *value),
            };
        }
        if !head.is_empty() {
            return exchange
                .respond
                .send_response(response.body(()).unwrap(), true)
                .map(drop);
        }
        let mut stream = exchange.respond.send_response(response.body(()).unwrap(), false)?;
        stream.send_data(content.into(), false)?;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        stream.send_trailers(trailers)
    })
    .await
}

/// The first pick goes to `bad`, the second to `good`.
async fn two(nodes: &str, bad: &Http2Server, good: &Http2Server) -> Gateway {
    Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            balance "first"
            @nodes
            server "bad" "@bad" max-connections=100 h2
            server "good" "@good" max-connections=100 h2
        }
    "#,
    )
    .with("@nodes", nodes)
    .with("@bad", bad.address())
    .with("@good", good.address())
    .start()
    .await
}

/// A call of gRPC with this message.
fn message(path: &str, message: &'static str) -> Request<Vec<u8>> {
    let mut call = http2_post(path, message);
    let kind = HeaderValue::from_static("application/grpc+proto");
    call.headers_mut().insert("content-type", kind);
    call
}

#[tokio::test]
async fn a_call_that_failed_as_named_is_sent_again_elsewhere() {
    let (bad, good) = (failing(&[("grpc-status", "14")]).await, failing(&[]).await);
    let nodes = r#"retry-on "grpc-unavailable"; outlier-ejection consecutive-errors=2 base-time="1m""#;
    let gateway = two(nodes, &bad, &good).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    for _ in 0..2 {
        let answer = client.ask(message("/shop/Buy", "\0\0\0\0\u{3}one")).await;
        assert_eq!(answer.text(), "\0\0\0\0\u{3}one");
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    }
    assert_eq!((bad.requests().len(), good.requests().len()), (2, 2));
    let lines = gateway.access_log(2).await;
    assert!(
        lines
            .iter()
            .all(|line| line["retries"] == 1 && line["grpc_status"] == 0),
        "{lines:?}"
    );
    // What was passed over counts all the same.
    let labels = [("server", "bad"), ("result", "server-error")];
    gateway
        .metric_is("gateway_server_grpc_responses_total", &labels, 2.0)
        .await;
    let labels = [("server", "bad"), ("reason", "errors")];
    gateway
        .metric_is("gateway_server_outlier_ejections_total", &labels, 1.0)
        .await;
}

#[tokio::test]
async fn a_call_is_sent_again_for_nothing_that_was_not_named() {
    for (on, head) in [
        // Nobody has asked for it.
        (
            "\"conn-failure\" \"all-retryable-errors\"",
            &[("grpc-status", "14")][..],
        ),
        ("\"grpc-unavailable\"", &[("grpc-status", "13")]),
        ("\"grpc-unavailable\" 503", &[(":status", "503")]),
        ("\"grpc-unavailable\" 503", &[(":status", "503"), ("grpc-status", "14")]),
    ] {
        let (bad, good) = (failing(head).await, failing(&[]).await);
        let gateway = two(&format!("retry-on {on}"), &bad, &good).await;
        Http2Client::connect(gateway.address("web"))
            .await
            .ask(message("/shop/Buy", "\0\0\0\0\0"))
            .await;
        assert_eq!((bad.requests().len(), good.requests().len()), (1, 0), "{on} {head:?}");
    }
    // Not behind content, and no POST that is no call.
    let app = app().await;
    let gateway = gateway(JSON, "", "retry-on \"grpc-unavailable\"", &app).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    client.ask(message("/trailers/14", "\0\0\0\0\0")).await;
    client.ask(http2_post("/head/14", "\0\0\0\0\0")).await;
    assert_eq!(app.requests().len(), 2);
    client.ask(message("/head/14", "\0\0\0\0\0")).await;
    // As often as `retries` says, at the one server that there is.
    assert_eq!(app.requests().len(), 6);
}

/// What the gateway answers by itself, by the path; and servers that are not there, or do not answer.
async fn answering_itself(app: &Http2Server) -> (Gateway, impl Sized) {
    let (nobody, guard) = refusing();
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" {
            bind "127.0.0.1:0"
            error-page 403 413 503 "sorry.html"
            error-page 500 "sorry.html" intercept
            request-limits body="10KiB"
            deny status=403 { path "/denied" }
            deny status=401 { path "/who" }
            acl "fast" { path "/fast" }
            acl "made" { path "/made" }
            return status=429 if="fast" { body "slow 100%\ndown" }
            return status=200 if="made" { body "made" }
            use-backend "down" { path "/down" }
            response {
                set-header "X-Meant" "%{status}" always
                set-header "X-Fault" "yes" always if-status="500-599"
            }
            default-backend "app"
        }
        backend "app" { timeout server="300ms"; server "s" "@app" h2 }
        backend "down" { retries 0; server "s" "@nobody" h2 }
    "#,
    )
    .with("@app", app.address())
    .with("@nobody", nobody)
    .file("sorry.html", "<p>sorry")
    .start()
    .await;
    (gateway, guard)
}

/// Answers `/500` with that status of HTTP, and nothing else ever.
async fn silent() -> Http2Server {
    Http2Server::start(|mut exchange: Http2Exchange| async move {
        if exchange.request.uri().path() != "/500" {
            return std::future::pending().await;
        }
        let response = Response::builder().status(500).header("content-type", "text/plain");
        exchange
            .respond
            .send_response(response.body(()).unwrap(), true)
            .map(drop)
    })
    .await
}

#[tokio::test]
async fn what_the_gateway_answers_to_a_call_has_grpcs_form() {
    let app = silent().await;
    let (gateway, _guard) = answering_itself(&app).await;
    let client = Http2Client::connect(gateway.address("web")).await;
    /// The path, the status that is meant, and what the call is told of it.
    type Case = (&'static str, u16, &'static str, &'static str);
    let cases: [Case; 5] = [
        ("/denied", 403, "7", "403 Forbidden"),
        ("/who", 401, "16", "401 Unauthorized"),
        ("/fast", 429, "14", "slow 100%25%0Adown"),
        ("/down", 503, "14", "503 Service Unavailable"),
        ("/late", 504, "14", "504 Gateway Timeout"),
    ];
    for (path, meant, status, said) in cases {
        let answer = client.ask(message(path, "\0\0\0\0\0")).await;
        assert_eq!(
            (answer.status, answer.text(), answer.trailers.as_ref()),
            (200, "", None),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), Some("application/grpc"), "{path}");
        assert_eq!(answer.header("grpc-status"), Some(status), "{path}");
        assert_eq!(answer.header("grpc-message"), Some(said), "{path}");
        // Edits know the status that is meant.
        assert_eq!(answer.header("x-meant"), Some(&*meant.to_string()), "{path}");
        assert_eq!(answer.header("x-fault").is_some(), meant >= 500, "{path}");
    }
    let long = vec![0; 11 << 10];
    let mut call = message("/late", "");
    *call.body_mut() = long;
    let answer = client.ask(call).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("2")));
    // What is no error, what is no call, and what a server has answered, are what they are.
    let made = client.ask(message("/made", "\0\0\0\0\0")).await;
    assert_eq!(
        (made.status, made.text(), made.header("grpc-status")),
        (200, "made", None)
    );
    for kind in ["application/grpc-web+proto", "application/json"] {
        let mut other = message("/denied", "\0\0\0\0\0");
        other
            .headers_mut()
            .insert("content-type", HeaderValue::from_static(kind));
        let answer = client.ask(other).await;
        assert_eq!(
            (answer.status, answer.text(), answer.header("grpc-status")),
            (403, "<p>sorry", None),
            "{kind}"
        );
    }
    let servers = client.ask(message("/500", "\0\0\0\0\0")).await;
    assert_eq!(
        (servers.status, servers.text(), servers.header("grpc-status")),
        (500, "", None)
    );
    let lines = gateway.access_log(10).await;
    for ((_, meant, status, _), line) in cases.into_iter().zip(&lines) {
        assert_eq!(line["status"], meant, "{line}");
        assert_eq!(line["grpc_status"].to_string(), status, "{line}");
    }
    assert_eq!(
        (&lines[5]["status"], &lines[5]["grpc_status"]),
        (&413.into(), &2.into())
    );
    assert!(lines[7].get("grpc_status").is_none(), "{}", lines[7]);
    // It was no answer of the server's.
    let labels = [("server", "s"), ("backend", "down"), ("result", "server-error")];
    gateway
        .metric_is("gateway_server_grpc_responses_total", &labels, 0.0)
        .await;
}

/// As clients of gRPC want it: "Trailers-Only" is one HEADERS frame that ends the stream.
#[tokio::test]
async fn an_answer_to_a_call_is_one_head_and_nothing_else() {
    let app = silent().await;
    let (gateway, _guard) = answering_itself(&app).await;
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    let call = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "app.example"),
        (":path", "/denied"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    client.request(1, &call).await;
    let answer = client.find(|frame| frame.stream == 1).await;
    // HEADERS, with END_HEADERS and END_STREAM; 8 is `:status: 200` of the static table (RFC 7541, appendix A).
    assert_eq!((answer.kind, answer.flags & 5, answer.payload[0]), (1, 5, 0x88));
    // Nothing comes behind it but what is asked for.
    client.send(frame(6, 0, 0, b"anything")).await;
    let next = client.find(|frame| frame.stream == 1 || frame.kind == 6).await;
    assert_eq!((next.kind, next.payload.as_slice()), (6, &b"anything"[..]));
}

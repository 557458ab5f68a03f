//! Traces: W3C Trace Context on the way through, and spans as a collector gets them.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::{Answer, Client, Gateway, HttpServer, eventually, get, refusing};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;

async fn gateway(tracing: &str, app: &str) -> Gateway {
    gateway_that_trusts("", tracing, app).await
}

async fn gateway_that_trusts(trust: &str, tracing: &str, app: &str) -> Gateway {
    Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json"; @tracing }
        frontend "web" {
            bind "127.0.0.1:0"
            @trust
            acl "secret" { path "/secret" }
            deny if="secret"
            default-backend "app"
        }
        backend "app" {
            retries 1 redispatch="each"
            @app
        }
    "#,
    )
    .with("@trust", trust)
    .with("@tracing", tracing)
    .with("@app", app)
    .start()
    .await
}

/// All spans that a collector was sent until now, with the name of their service.
fn spans(collector: &HttpServer) -> Vec<(String, Span)> {
    let mut spans = Vec::new();
    for request in collector.requests() {
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("POST", "/v1/traces")
        );
        assert_eq!(request.headers.get("content-type"), Some("application/x-protobuf"));
        let sent = ExportTraceServiceRequest::decode(&*request.body).unwrap();
        for of_resource in sent.resource_spans {
            let service = text(&of_resource.resource.unwrap().attributes, "service.name").unwrap();
            let scopes = of_resource.scope_spans.into_iter();
            spans.extend(scopes.flat_map(|scope| scope.spans).map(|span| (service.clone(), span)));
        }
    }
    spans
}

async fn so_many(collector: &HttpServer, n: usize) -> Vec<Span> {
    eventually("the collector has the spans", async || spans(collector).len() >= n).await;
    spans(collector).into_iter().map(|(_, span)| span).collect()
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a any_value::Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        other => panic!("{key} is {other:?}"),
    }
}

fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match value(attributes, key)? {
        any_value::Value::IntValue(number) => Some(*number),
        other => panic!("{key} is {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn without_tracing_the_context_passes_untouched() {
    let app = HttpServer::answering("").await;
    let gateway = gateway("", &format!("server \"app-1\" \"{}\"", app.address())).await;
    for value in [PARENT, "nonsense"] {
        let request = get("/").header("traceparent", value).header("tracestate", "a=1,b=2");
        gateway.ask("web", request).await;
        assert_eq!(app.last().headers.get("traceparent"), Some(value));
        assert_eq!(app.last().headers.get("tracestate"), Some("a=1,b=2"));
    }
}

#[tokio::test]
async fn a_request_is_a_span_of_the_gateway_and_one_for_each_attempt() {
    let collector = HttpServer::answering("").await;
    let app = HttpServer::start(|_| Answer::status(404)).await;
    let (dead, _guard) = refusing();
    let tracing = format!("tracing \"http://{}\" service=\"edge\"", collector.address());
    // The first pick goes to the one that refuses, the second to the one that answers.
    let servers = format!(
        "server \"dead\" \"{dead}\" weight=256; server \"app-1\" \"{}\" weight=1",
        app.address()
    );
    let gateway = gateway(&tracing, &servers).await;
    let request = get("/a?b=c")
        .host("shop.example:8443")
        .header("User-Agent", "tester")
        .header("traceparent", PARENT)
        .header("tracestate", "a=1");
    gateway.ask("web", request).await;

    let all = so_many(&collector, 3).await;
    assert_eq!(all.len(), 3);
    assert_eq!(spans(&collector)[0].0, "edge");
    let of_kind = |kind: SpanKind| {
        all.iter()
            .filter(move |span| span.kind == kind as i32)
            .collect::<Vec<_>>()
    };
    let (server, clients) = (of_kind(SpanKind::Server)[0], of_kind(SpanKind::Client));
    for span in &all {
        assert_eq!(hex(&span.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        assert_eq!(text(&span.attributes, "http.request.method").as_deref(), Some("GET"));
        assert_eq!(span.name, "GET");
    }
    assert_eq!(hex(&server.parent_span_id), "00f067aa0ba902b7");
    let of = |key| text(&server.attributes, key);
    assert_eq!(of("url.path").as_deref(), Some("/a"));
    assert_eq!(of("url.query").as_deref(), Some("b=c"));
    assert_eq!(of("url.scheme").as_deref(), Some("http"));
    assert_eq!(of("server.address").as_deref(), Some("shop.example"));
    assert_eq!(number(&server.attributes, "server.port"), Some(8443));
    assert_eq!(of("client.address").as_deref(), Some("127.0.0.1"));
    assert_eq!(of("user_agent.original").as_deref(), Some("tester"));
    assert_eq!(of("network.protocol.version").as_deref(), Some("1.1"));
    assert_eq!(number(&server.attributes, "http.response.status_code"), Some(404));
    assert_eq!(of("error.type"), None);

    assert_eq!(clients.len(), 2);
    let (first, last) = (clients[0], clients[1]);
    assert!(clients.iter().all(|span| span.parent_span_id == server.span_id));
    assert_eq!(text(&first.attributes, "gateway.server").as_deref(), Some("dead"));
    assert_eq!(text(&first.attributes, "error.type").as_deref(), Some("retried"));
    assert_eq!(number(&last.attributes, "http.response.status_code"), Some(404));
    assert_eq!(text(&last.attributes, "error.type").as_deref(), Some("404"));
    assert_eq!(number(&last.attributes, "http.request.resend_count"), Some(1));
    assert_eq!(
        number(&last.attributes, "server.port"),
        Some(app.address().port().into())
    );

    // The server was called by the last attempt's span, and the vendors' part came along.
    let told = app.last().headers.get("traceparent").unwrap().to_owned();
    assert_eq!(told, format!("00-{}-{}-01", hex(&last.trace_id), hex(&last.span_id)));
    assert_eq!(app.last().headers.get("tracestate"), Some("a=1"));
    let line = &gateway.access_log(1).await[0];
    assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(line["span_id"], hex(&server.span_id));
    gateway
        .metric_is("gateway_trace_spans_total", &[("result", "exported")], 3.0)
        .await;
}

#[tokio::test]
async fn a_context_that_is_malformed_begins_a_trace_anew() {
    let collector = HttpServer::answering("").await;
    let app = HttpServer::answering("").await;
    let tracing = format!("tracing \"http://{}\"", collector.address());
    let gateway = gateway(&tracing, &format!("server \"app-1\" \"{}\"", app.address())).await;
    for value in [
        "nonsense",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        &PARENT.to_uppercase(),
    ] {
        let request = get("/").header("traceparent", value).header("tracestate", "a=1");
        gateway.ask("web", request).await;
        let told = app.last().headers.get("traceparent").unwrap().to_owned();
        assert!(
            told.len() == 55 && told.ends_with("-01") && !told.contains("4bf92f"),
            "{told}"
        );
        assert_eq!(app.last().headers.get("tracestate"), None);
    }
    let all = so_many(&collector, 6).await;
    assert_eq!(all.iter().filter(|span| span.parent_span_id.is_empty()).count(), 3);
}

#[tokio::test]
async fn what_the_caller_decided_on_sampling_holds() {
    let collector = HttpServer::answering("").await;
    let app = HttpServer::answering("").await;
    let tracing = format!("tracing \"http://{}\" sample=0.0000001", collector.address());
    let gateway = gateway(&tracing, &format!("server \"app-1\" \"{}\"", app.address())).await;
    let not_sampled = PARENT.replace("-01", "-00");
    gateway.ask("web", get("/no").header("traceparent", &not_sampled)).await;
    assert_eq!(app.last().headers.get("traceparent"), Some(&*not_sampled));
    gateway.ask("web", get("/new")).await;
    assert!(app.last().headers.get("traceparent").unwrap().ends_with("-00"));
    gateway.ask("web", get("/yes").header("traceparent", PARENT)).await;
    let all = so_many(&collector, 2).await;
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(
        all.iter()
            .any(|span| text(&span.attributes, "url.path").as_deref() == Some("/yes"))
    );
}

#[tokio::test]
async fn what_the_gateway_answers_itself_is_a_span_with_its_reason() {
    let collector = HttpServer::answering("").await;
    let (dead, _guard) = refusing();
    let tracing = format!("tracing \"http://{}\"", collector.address());
    let gateway = gateway(&tracing, &format!("server \"app-1\" \"{dead}\"")).await;
    gateway.ask("web", get("/secret")).await;
    gateway.ask("web", get("/")).await;
    let all = so_many(&collector, 3).await;
    let path = |path: &str| {
        let found = all
            .iter()
            .find(|span| text(&span.attributes, "url.path").as_deref() == Some(path));
        found.unwrap_or_else(|| panic!("no span of {path}: {all:?}"))
    };
    assert_eq!(
        number(&path("/secret").attributes, "http.response.status_code"),
        Some(403)
    );
    assert_eq!(path("/secret").status.as_ref().unwrap().code, 0);
    assert_eq!(
        text(&path("/").attributes, "error.type").as_deref(),
        Some("connect-failed")
    );
    assert_eq!(path("/").status.as_ref().unwrap().code, 2);
}

#[tokio::test]
async fn a_collector_that_is_away_is_waited_for_and_holds_nobody_up() {
    let mut collector = HttpServer::answering("").await;
    let app = HttpServer::answering("hello").await;
    collector.stop().await;
    let tracing = format!("tracing \"http://{}\" queue=4", collector.address());
    let gateway = gateway(&tracing, &format!("server \"app-1\" \"{}\"", app.address())).await;
    let mut client = gateway.connect("web").await;
    for _ in 0..200 {
        assert_eq!(client.ask(get("/")).await.text(), "hello");
    }
    gateway.says("spans cannot be exported").await;
    for _ in 0..200 {
        assert_eq!(client.ask(get("/")).await.text(), "hello");
    }
    collector.resume().await;
    // What was waited with arrives; what did not fit has been counted.
    so_many(&collector, 2).await;
    eventually("drops are counted", async || {
        let metrics = gateway.metrics().await;
        metrics.get("gateway_trace_spans_total", &[("result", "dropped")]) > Some(0.0)
    })
    .await;
}

#[tokio::test]
async fn the_last_spans_are_sent_before_the_end() {
    let collector = HttpServer::answering("").await;
    let app = HttpServer::answering("").await;
    let tracing = format!("tracing \"http://{}\"", collector.address());
    let gateway = gateway(&tracing, &format!("server \"app-1\" \"{}\"", app.address())).await;
    gateway.ask("web", get("/").header("Connection", "close")).await;
    gateway.terminate();
    assert_eq!(gateway.stopped().await.code, Some(0));
    assert_eq!(spans(&collector).len(), 2);
}

#[tokio::test]
async fn strangers_cannot_have_their_requests_recorded() {
    let collector = HttpServer::answering("").await;
    let app = HttpServer::answering("").await;
    let tracing = format!("tracing \"http://{}\" sample=0.0000001", collector.address());
    let server = format!("server \"app-1\" \"{}\"", app.address());
    let gateway = gateway_that_trusts("trusted-proxies \"127.0.0.2\"", &tracing, &server).await;
    gateway.ask("web", get("/stranger").header("traceparent", PARENT)).await;
    let told = app.last().headers.get("traceparent").unwrap().to_owned();
    assert!(told.ends_with("-00") && !told.contains("4bf92f"), "{told}");
    let mut proxy = Client::connect_from(gateway.address("web"), [127, 0, 0, 2]).await;
    proxy.ask(get("/proxy").header("traceparent", PARENT)).await;
    let all = so_many(&collector, 2).await;
    assert!(
        all.iter().all(|span| hex(&span.trace_id).starts_with("4bf92f")),
        "{all:?}"
    );
}

/// A plugin that sets both fields, and an operator who deletes one behind it.
#[tokio::test]
async fn no_plugin_writes_what_servers_are_told_of_the_trace() {
    let collector = HttpServer::answering("").await;
    let app = HttpServer::answering("").await;
    let text = r#"
        process { workers 1; @tracing }
        plugin "editing" "editing.wasm" {
            on-failure "deny"
            config {
                request {
                    - { set-header name="traceparent" value="forged" }
                    - { set-header name="tracestate" value="forged" }
                    - { set-header name="x-edited" value="yes" }
                }
            }
        }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "editing"; default-backend "app" }
        frontend "plain" {
            bind "127.0.0.1:0"
            use-plugin "editing"
            request { delete-header "tracestate" }
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#;
    let editing = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/dist/header-rewrite.wasm");
    let editing = std::fs::read(editing).unwrap();
    let tracing = format!("tracing \"http://{}\"", collector.address());
    let not_sampled = PARENT.replace("-01", "-00");
    for (tracing, told) in [
        ("", ["forged", "forged", "forged"]),
        (&*tracing, [&*not_sampled, "a=1", &PARENT[..36]]),
    ] {
        let gateway = Gateway::kdl(text)
            .with("@tracing", tracing)
            .with("@app", app.address())
            .file("editing.wasm", editing.clone())
            .start()
            .await;
        let ask = async |frontend: &str, parent: &str| {
            let request = get("/").header("traceparent", parent).header("tracestate", "a=1");
            gateway.ask(frontend, request).await;
            let headers = app.last().headers;
            assert_eq!(headers.get("x-edited"), Some("yes"));
            let field = |name| headers.get(name).map(str::to_owned);
            (field("traceparent").unwrap(), field("tracestate"))
        };
        let (parent, state) = ask("web", &not_sampled).await;
        assert_eq!((&*parent, state.as_deref()), (told[0], Some(told[1])));
        // One that is recorded: the server is told of the span that calls it, in the same trace.
        let (parent, state) = ask("web", PARENT).await;
        assert!(parent.starts_with(told[2]), "{parent}");
        assert_eq!(state.as_deref(), Some(told[1]));
        assert_eq!(ask("plain", PARENT).await.1, None);
    }
}

#[tokio::test]
async fn texts_and_lines_name_the_trace_of_their_request() {
    let collector = HttpServer::answering("").await;
    let app = HttpServer::answering("x").await;
    let text = r#"
        process { workers 1; log "stdout" format="text"; tracing "http://@collector" }
        frontend "web" {
            bind "127.0.0.1:0"
            log-format "LINE %{path} %{trace-id} %{span-id}"
            redirect location="/%{trace-id}/%{span-id}" { path "/redirect" }
            return if="return" { body "%{trace-id} %{span-id}" }
            acl "return" { path "/return" }
            request { set-header "X-Trace" "%{trace-id} %{span-id}" }
            response { set-header "X-Trace" "%{trace-id} %{span-id}" }
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#;
    let gateway = Gateway::kdl(text)
        .with("@collector", collector.address())
        .with("@app", app.address())
        .start()
        .await;
    let ask = async |path: &str| gateway.ask("web", get(path).header("traceparent", PARENT)).await;
    let trace = &PARENT[3..35];
    let redirected = ask("/redirect").await;
    let redirected = redirected.header("location").unwrap()[1..].replace('/', " ");
    let returned = ask("/return").await.text().to_owned();
    let passed = ask("/x").await;
    let told = app.last().headers.get("x-trace").unwrap().to_owned();
    assert_eq!(passed.header("x-trace"), Some(&*told));
    for (path, ids) in [("/redirect", redirected), ("/return", returned), ("/x", told)] {
        let (id, span) = ids.split_once(' ').unwrap();
        assert_eq!((id, span.len()), (trace, 16), "{ids}");
        assert!(span.bytes().all(|byte| byte.is_ascii_hexdigit()), "{ids}");
        gateway.says(&format!("LINE {path} {ids}")).await;
        // The span that a collector gets is the same.
        eventually("the collector has the span", async || {
            spans(&collector).iter().any(|(_, sent)| hex(&sent.span_id) == span)
        })
        .await;
    }
}

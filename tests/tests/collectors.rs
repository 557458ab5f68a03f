//! Collectors of spans that are reached in TLS and want to know who sends: who is believed, and what they are sent.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::tls::Authority;
use gateway_tests::{Builder, Gateway, HttpServer, eventually, get};

/// What ends TLS in front of a collector, for certificates of this authority.
async fn in_tls(collector: &HttpServer, authority: &Authority) -> Gateway {
    Gateway::kdl(
        r#"
        frontend "otlp" {
            bind "127.0.0.1:0" { tls cert="collector.pem" { client-ca "ca.pem" verify="optional" } }
            request { set-header "X-Shown" "%{client-cert-cn}"; set-header "X-Asked" "%{sni}" }
            default-backend "collector"
        }
        backend "collector" { server "collector-1" "@collector" }
    "#,
    )
    .with("@collector", collector.address())
    .file("ca.pem", authority.pem())
    .file("collector.pem", authority.issue(&["collector.example"]).bundle())
    .start()
    .await
}

/// A gateway that sends spans there, with this in the block of `tracing`.
fn gateway(to: &Gateway, authority: &Authority, app: &HttpServer, says: &str) -> Builder {
    let shown = authority.issue(&["edge.example"]);
    Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json"; tracing "https://@collector/otlp" { @says } }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@says", says)
    .with("@collector", to.address("otlp"))
    .with("@app", app.address())
    .file("ca.pem", authority.pem())
    .file("other-ca.pem", Authority::new().pem())
    .file("edge.pem", shown.bundle())
    .file("token", "Bearer s3cret-1\n")
}

#[tokio::test]
async fn spans_go_in_tls_with_what_the_collector_wants_to_see() {
    let (authority, collector, app) = (
        Authority::new(),
        HttpServer::answering("").await,
        HttpServer::answering("").await,
    );
    let to = in_tls(&collector, &authority).await;
    let says = r#"tls ca="ca.pem" sni="collector.example" cert="edge.pem"
        header "Authorization" file="token"; header "X-Tenant" "shop""#;
    let builder = gateway(&to, &authority, &app, says);
    let gateway = builder.start().await;
    gateway.ask("web", get("/")).await;
    eventually("the collector has spans", async || !collector.requests().is_empty()).await;
    let sent = collector.last();
    assert_eq!(
        (sent.method.as_str(), sent.target.as_str()),
        ("POST", "/otlp/v1/traces")
    );
    assert_eq!(sent.headers.get("content-type"), Some("application/x-protobuf"));
    assert_eq!(sent.headers.get("authorization"), Some("Bearer s3cret-1"));
    assert_eq!(sent.headers.get("x-tenant"), Some("shop"));
    assert_eq!(sent.headers.get("x-shown"), Some("edge.example"));
    assert_eq!(sent.headers.get("x-asked"), Some("collector.example"));
    gateway
        .metric_is("gateway_trace_spans_total", &[("result", "exported")], 2.0)
        .await;
    assert!(!gateway.output().contains("s3cret"), "{}", gateway.output());
}

#[tokio::test]
async fn the_systems_authorities_are_believed_where_no_others_are_named() {
    let (authority, collector, app) = (
        Authority::new(),
        HttpServer::answering("").await,
        HttpServer::answering("").await,
    );
    let to = in_tls(&collector, &authority).await;
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, authority.pem()).unwrap();
    let builder = gateway(&to, &authority, &app, r#"tls sni="collector.example""#);
    let gateway = builder.env("SSL_CERT_FILE", roots.display()).start().await;
    gateway.ask("web", get("/")).await;
    eventually("the collector has spans", async || !collector.requests().is_empty()).await;
}

#[tokio::test]
async fn who_is_not_believed_gets_no_spans_and_holds_nobody_up() {
    let (authority, collector, app) = (
        Authority::new(),
        HttpServer::answering("").await,
        HttpServer::answering("hello").await,
    );
    let to = in_tls(&collector, &authority).await;
    for (tls, why) in [
        (
            r#"ca="other-ca.pem" sni="collector.example""#,
            "invalid peer certificate",
        ),
        (r#"ca="ca.pem" sni="other.example""#, "not valid for name"),
        // The URL's host is what has to be shown where no name is said.
        (r#"ca="ca.pem""#, "not valid for name"),
    ] {
        let says = format!("tls {tls}; header \"Authorization\" file=\"token\"");
        let gateway = gateway(&to, &authority, &app, &says).start().await;
        let mut client = gateway.connect("web").await;
        for _ in 0..20 {
            assert_eq!(client.ask(get("/")).await.text(), "hello");
        }
        gateway.says("spans cannot be exported").await;
        assert!(gateway.output().contains(why), "{tls}: {}", gateway.output());
        assert_eq!(client.ask(get("/")).await.text(), "hello");
    }
    assert!(collector.requests().is_empty());
}

#[tokio::test]
async fn what_stands_in_files_is_read_again_at_a_reload() {
    let (authority, collector, app) = (
        Authority::new(),
        HttpServer::answering("").await,
        HttpServer::answering("").await,
    );
    let to = in_tls(&collector, &authority).await;
    let says = r#"tls ca="ca.pem" sni="collector.example"; header "Authorization" file="token""#;
    let next = gateway(&to, &authority, &app, says);
    let gateway = gateway(&to, &authority, &app, says).start().await;
    gateway.write("token", "Bearer s3cret-2");
    assert!(gateway.reload(&next).await);
    gateway.ask("web", get("/")).await;
    eventually("the collector has spans", async || !collector.requests().is_empty()).await;
    assert_eq!(collector.last().headers.get("authorization"), Some("Bearer s3cret-2"));
    // One that cannot be used leaves what was there.
    gateway.write("token", "two\nlines");
    assert!(!gateway.reload(&next).await);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_said_before_anything_is_served() {
    let (authority, collector, app) = (
        Authority::new(),
        HttpServer::answering("").await,
        HttpServer::answering("").await,
    );
    let to = in_tls(&collector, &authority).await;
    let says = r#"tls ca="nowhere.pem"; header "Authorization" file="empty"; header "X-Key" file="edge.pem""#;
    let builder = gateway(&to, &authority, &app, says).file("empty", "\n");
    let checked = builder.check(&["--format", "json"]);
    assert_eq!(checked.code, Some(1), "{}{}", checked.stdout, checked.stderr);
    let report: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 3, "{report}");
    for said in [
        "nowhere.pem: no usable certificate",
        "empty: holds no header's value",
        "edge.pem: holds what no header's value may have",
    ] {
        let is_said = |error: &serde_json::Value| error["message"].as_str().unwrap().contains(said);
        assert!(errors.iter().any(is_said), "{said}: {report}");
    }
    assert_ne!(builder.refused().await.code, Some(0));
}

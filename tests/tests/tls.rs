//! TLS on the way to servers: who is believed, what is shown, and what comes of a handshake that fails.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::tls::{Authority, TlsServer};
use gateway_tests::{Gateway, Server, blackhole, eventually, get};

const TO_TLS: &str = r#"
    frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { mode "tcp"; server "app-1" "@app" { tls @tls } }
"#;

async fn gateway(app: &TlsServer, authority: &Authority, tls: &str) -> Gateway {
    let shown = authority.issue(&["client.example"]);
    Gateway::kdl(TO_TLS)
        .with("@app", app.address())
        .with("@tls", tls)
        .file("ca.pem", authority.pem())
        .file("other-ca.pem", Authority::new().pem())
        .file("client.pem", shown.pem())
        .file("client-key.pem", shown.key_pem())
        .start()
        .await
}

// ── TLS to servers ────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn bytes_pass_in_tls_to_the_server() {
    let authority = Authority::new();
    let app = TlsServer::start(authority.server(&["app.internal"])).await;
    let gateway = gateway(&app, &authority, r#"ca="ca.pem" sni="app.internal""#).await;

    let mut client = gateway.connect("raw").await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    let large = vec![b'x'; 1_000_000];
    client.send(&large).await;
    assert_eq!(client.exactly(large.len()).await, large);
    // What the client has said ends in the server's TLS too, which may go on by itself.
    client.half_close().await;
    assert_eq!(client.rest().await, b"bye");
    let handshake = app.handshakes().remove(0);
    assert_eq!(handshake.sni.as_deref(), Some("app.internal"));
    assert_eq!((handshake.certificate, handshake.alpn), (false, None));
}

#[tokio::test]
async fn an_address_is_verified_where_no_name_is_said() {
    let authority = Authority::new();
    let app = TlsServer::start(authority.server(&["127.0.0.1"])).await;
    let gateway = gateway(&app, &authority, r#"ca="ca.pem""#).await;
    let mut client = gateway.connect("raw").await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    assert_eq!(app.handshakes()[0].sni, None);
}

#[tokio::test]
async fn a_certificate_that_is_not_believed_ends_in_a_refusal_with_its_reason() {
    let authority = Authority::new();
    for (name, tls, reason) in [
        (
            "app.internal",
            r#"ca="other-ca.pem" sni="app.internal""#,
            "invalid peer certificate: BadSignature",
        ),
        ("app.internal", r#"ca="ca.pem" sni="db.internal""#, "not valid for name"),
        ("app.internal", r#"ca="ca.pem""#, "not valid for name"),
        // The system does not know an authority that was made a moment ago.
        ("app.internal", r#"sni="app.internal""#, "UnknownIssuer"),
    ] {
        let app = TlsServer::start(authority.server(&[name])).await;
        let gateway = gateway(&app, &authority, tls).await;
        for _ in 0..2 {
            assert_eq!(gateway.connect("raw").await.rest().await, b"", "{tls}");
        }
        gateway.says(reason).await;
        let labels = [("backend", "app"), ("server", "app-1")];
        gateway.metric_is("gateway_server_tls_errors_total", &labels, 2.0).await;
        gateway
            .metric_is("gateway_server_connect_errors_total", &labels, 2.0)
            .await;
        let lines = gateway.access_log(2).await;
        assert_eq!(
            (&lines[0]["termination"], &lines[0]["reason"]),
            (&"SC".into(), &"connect-failed".into())
        );
        // Told once, not for every connection.
        assert_eq!(gateway.output().matches("no TLS with the server").count(), 1);
        assert!(app.handshakes().is_empty());
    }
}

#[tokio::test]
async fn nobody_is_verified_where_that_is_said() {
    let authority = Authority::new();
    let app = TlsServer::start(authority.server(&["app.internal"])).await;
    let gateway = gateway(&app, &authority, r#"verify="none""#).await;
    let mut client = gateway.connect("raw").await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
}

#[tokio::test]
async fn a_server_that_demands_a_certificate_gets_the_one_that_is_configured() {
    let authority = Authority::new();
    let app = TlsServer::start(authority.demanding_server(&["app.internal"])).await;
    let tls = r#"ca="ca.pem" sni="app.internal" cert="client.pem" key="client-key.pem""#;
    let with = gateway(&app, &authority, tls).await;
    let mut client = with.connect("raw").await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    assert!(app.handshakes()[0].certificate);

    let without = gateway(&app, &authority, r#"ca="ca.pem" sni="app.internal""#).await;
    let mut client = without.connect("raw").await;
    let _ = client.try_send("hello").await;
    // TLS 1.3 lets the client speak before it is refused: the end may come as a reset.
    let _ = client.try_response().await;
    eventually("the server refuses", async || !app.failures().is_empty()).await;
}

#[tokio::test]
async fn sessions_with_a_server_are_resumed() {
    let authority = Authority::new();
    let app = TlsServer::start(authority.server(&["app.internal"])).await;
    let gateway = gateway(&app, &authority, r#"ca="ca.pem" sni="app.internal""#).await;
    for _ in 0..3 {
        let mut client = gateway.connect("raw").await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
    }
    let resumed: Vec<_> = app.handshakes().iter().map(|handshake| handshake.resumed).collect();
    assert_eq!(resumed, [false, true, true]);
}

#[tokio::test]
async fn protocols_are_offered_to_the_server() {
    let authority = Authority::new();
    let mut config = authority.server(&["app.internal"]);
    config.alpn_protocols = vec![b"other".to_vec(), b"postgresql".to_vec()];
    let app = TlsServer::start(config).await;
    let tls = r#"ca="ca.pem" sni="app.internal"; alpn "postgresql""#;
    let gateway = gateway(&app, &authority, tls).await;
    let mut client = gateway.connect("raw").await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    assert_eq!(app.handshakes()[0].alpn.as_deref(), Some("postgresql"));
}

#[tokio::test]
async fn requests_and_checks_go_in_tls() {
    let authority = Authority::new();
    let mut config = authority.server(&["app.internal"]);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let app = TlsServer::start(config).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            check "http" interval="50ms"
            server "good" "@app" { tls ca="ca.pem" sni="app.internal" }
            server "bad" "@app" weight=0 { tls ca="ca.pem" sni="other.internal" }
        }
    "#,
    )
    .with("@app", app.address())
    .file("ca.pem", authority.pem())
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    for _ in 0..2 {
        assert_eq!(client.ask(get("/")).await.text(), "app.internal");
    }
    let handshake = app.handshakes().remove(0);
    assert_eq!(handshake.alpn.as_deref(), Some("http/1.1"));
    gateway.metric_is("gateway_server_up", &[("server", "bad")], 0.0).await;
    gateway.metric_is("gateway_server_up", &[("server", "good")], 1.0).await;
    gateway.says("server is down").await;
}

#[tokio::test]
async fn a_server_that_stalls_in_its_handshake_holds_nobody_up() {
    let stalled = Server::start(|mut wire, _| async move { wire.rest().await.map(drop) }).await;
    let fine = Server::echo().await;
    let (nowhere, _guard) = blackhole().await;
    let gateway = Gateway::kdl(
        r#"
        defaults { mode "tcp"; timeout connect="300ms" }
        frontend "stalled" { bind "127.0.0.1:0"; default-backend "stalled" }
        frontend "fine" { bind "127.0.0.1:0"; default-backend "fine" }
        backend "stalled" {
            server "silent" "@stalled" { tls verify="none" }
            server "nowhere" "@nowhere" { tls verify="none" }
        }
        backend "fine" { server "s" "@fine" }
    "#,
    )
    .with("@stalled", stalled.address())
    .with("@nowhere", nowhere)
    .with("@fine", fine.address())
    .start()
    .await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(gateway.connect("stalled").await);
    }
    let mut client = gateway.connect("fine").await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    for mut client in waiting {
        assert_eq!(client.rest().await, b"");
    }
    let labels = [("backend", "stalled"), ("server", "silent")];
    let errors = gateway
        .metrics()
        .await
        .get("gateway_server_connect_errors_total", &labels);
    assert!(errors.is_some_and(|errors| errors >= 20.0), "{errors:?}");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_not_reached() {
    let app = Server::greeting("220 mail.example ready\r\n").await;
    let gateway = Gateway::kdl(TO_TLS)
        .with("@app", app.address())
        .with("@tls", r#"verify="none""#)
        .start()
        .await;
    assert_eq!(gateway.connect("raw").await.rest().await, b"");
    gateway.says("no TLS with the server").await;
}

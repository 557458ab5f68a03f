//! TLS: to servers (who is believed, what is shown, what comes of a handshake that fails), passing through by its name, and
//! ending at the gateway in TCP mode.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_tests::tls::{Authority, Issued, TlsServer};
use gateway_tests::{Client, Gateway, Server, blackhole, eventually, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TO_TLS: &str = r#"
    frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { mode "tcp"; retries 0; server "app-1" "@app" { tls @tls } }
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
async fn a_check_on_another_port_may_speak_tls() {
    let authority = Authority::new();
    let (app, side) = (
        TlsServer::start(authority.server(&["app.internal"])).await,
        TlsServer::start(authority.server(&["app.internal"])).await,
    );
    for (name, up) in [("app.internal", 1.0), ("other.internal", 0.0)] {
        let gateway = Gateway::kdl(
            r#"
            frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
            backend "app" {
                mode "tcp"
                check "tcp" interval="100ms" rise=1 fall=1 initial="@initial" port=@side as-traffic
                server "app-1" "@app" { tls ca="ca.pem" sni="@name" }
            }
        "#,
        )
        .with("@app", app.address())
        .with("@side", side.address().port())
        .with("@name", name)
        .with("@initial", if up == 1.0 { "down" } else { "up" })
        .file("ca.pem", authority.pem())
        .start()
        .await;
        gateway.metric_is("gateway_server_up", &[("server", "app-1")], up).await;
    }
}

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
async fn a_self_signed_certificate_is_believed_where_it_is_the_one_that_is_named() {
    let (shown, other) = (
        Issued::self_signed(&["app.internal"]),
        Issued::self_signed(&["app.internal"]),
    );
    let app = TlsServer::start(shown.server()).await;
    for (named, name, is_believed) in [
        (&shown, "app.internal", true),
        (&shown, "db.internal", false),
        (&other, "app.internal", false),
    ] {
        let gateway = Gateway::kdl(TO_TLS)
            .with("@app", app.address())
            .with("@tls", format!(r#"ca="ca.pem" sni="{name}""#))
            .file("ca.pem", named.pem())
            .start()
            .await;
        let mut client = gateway.connect("raw").await;
        if is_believed {
            client.send("hello").await;
            assert_eq!(client.exactly(5).await, b"hello");
        } else {
            assert_eq!(client.rest().await, b"");
            gateway.says("no TLS with the server").await;
        }
    }
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
            (&"SC".into(), &"server-tls-failed".into())
        );
        // Told once, not for every connection.
        assert_eq!(gateway.output().matches("no TLS with the server").count(), 1);
        assert!(app.handshakes().is_empty());
    }
}

#[tokio::test]
async fn a_request_that_fails_by_tls_with_the_server_says_so() {
    let authority = Authority::new();
    let app = TlsServer::start(authority.server(&["app.internal"])).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { retries 0; server "app-1" "@app" { tls ca="ca.pem" sni="other.internal" } }
    "#,
    )
    .with("@app", app.address())
    .file("ca.pem", authority.pem())
    .start()
    .await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 503);
    let line = gateway.access_log(1).await.remove(0);
    assert_eq!(
        (&line["termination"], &line["reason"]),
        (&"SC".into(), &"server-tls-failed".into()),
        "{line}"
    );
}

#[tokio::test]
async fn nobody_is_verified_where_that_is_said() {
    let authority = Authority::new();
    let app = TlsServer::start(authority.server(&["app.internal"])).await;
    let gateway = gateway(&app, &authority, r#"verify="none""#).await;
    let mut client = gateway.connect("raw").await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    // Where there is no file, none is missing.
    assert!(
        !gateway.output().contains("files of certificates"),
        "{}",
        gateway.output()
    );
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
            check "http" interval="1s" fall=1
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
async fn an_idle_connection_to_a_server_ends_with_the_goodbye_of_tls() {
    // One that was told of its client is kept for nobody else.
    for (is_told, said) in [(false, ""), (true, r#"send-proxy="v2""#)] {
        let authority = Authority::new();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(authority.server(&["app.internal"])));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            if is_told {
                let mut header = [0; 16];
                stream.read_exact(&mut header).await?;
                let rest = u16::from_be_bytes([header[14], header[15]]);
                stream.read_exact(&mut vec![0; rest.into()]).await?;
            }
            let mut stream = acceptor.accept(stream).await?;
            let mut head = [0; 1024];
            let asked = stream.read(&mut head).await?;
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
            stream.flush().await?;
            // An end without the goodbye is an error here.
            stream.read_to_end(&mut Vec::new()).await.map(|more| (asked > 0, more))
        });
        let gateway = Gateway::kdl(
            r#"
            frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
            backend "app" {
                pool idle-timeout="100ms"
                server "app-1" "@app" @said { tls ca="ca.pem" sni="app.internal" }
            }
        "#,
        )
        .with("@said", said)
        .with("@app", address)
        .file("ca.pem", authority.pem())
        .start()
        .await;
        assert_eq!(gateway.ask("web", get("/")).await.status, 204);
        let ended = tokio::time::timeout(Duration::from_secs(20), served).await;
        assert_eq!(ended.unwrap().unwrap().unwrap(), (true, 0), "{said}");
    }
}

#[tokio::test]
async fn a_server_is_asked_for_the_name_of_each_request_and_connections_are_kept_by_it() {
    let authority = Authority::new();
    let app = TlsServer::start(authority.server(&["a.example", "b.example", "check.example"])).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            check "tcp" interval="60s"
            server "s" "@app" { tls ca="ca.pem" sni="client" check-sni="check.example" }
        }
    "#,
    )
    .with("@app", app.address())
    .file("ca.pem", authority.pem())
    .start()
    .await;
    eventually("the first check", async || app.handshakes().len() == 1).await;
    assert_eq!(app.handshakes()[0].sni.as_deref(), Some("check.example"));
    let mut client = gateway.connect("web").await;
    let mut ask = async |host: &str| client.ask(get("/").host(host)).await;
    for (host, name) in [
        ("a.example", "a.example"),
        ("B.Example:8443", "b.example"),
        ("a.example:80", "a.example"),
        ("b.example", "b.example"),
        ("A.EXAMPLE", "a.example"),
    ] {
        assert_eq!(ask(host).await.text(), name, "{host}");
    }
    let names: Vec<_> = app
        .handshakes()
        .into_iter()
        .filter_map(|handshake| handshake.sni)
        .collect();
    assert_eq!(names, ["check.example", "a.example", "b.example"]);
    // The certificate is for none of this name: nobody is believed for want of asking.
    assert_eq!(ask("c.example").await.status, 503);
    assert_eq!(ask("a.example").await.text(), "a.example");
    assert_eq!(app.handshakes().len(), 3);
}

#[tokio::test]
async fn a_server_is_asked_for_the_name_of_the_handshake_that_ended_here() {
    let authority = Authority::new();
    let names = &["a.example", "b.example"];
    let app = TlsServer::start(authority.server(names)).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "tls" {
            mode "tcp"
            bind "127.0.0.1:0" { tls cert="bundle.pem" }
            bind "127.0.0.1:0"
            default-backend "app"
        }
        backend "app" { mode "tcp"; retries 0; server "s" "@app" { tls ca="ca.pem" sni="client" } }
    "#,
    )
    .with("@app", app.address())
    .file("ca.pem", authority.pem())
    .file(
        "bundle.pem",
        authority.issue(&["a.example", "b.example", "c.example"]).bundle(),
    )
    .start()
    .await;
    for name in names {
        let mut client = Client::connect_tls(gateway.address("tls"), name, authority.certificate()).await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
    }
    let asked: Vec<_> = app
        .handshakes()
        .into_iter()
        .filter_map(|handshake| handshake.sni)
        .collect();
    assert_eq!(asked, *names);
    let _client = Client::connect_tls(gateway.address("tls"), "c.example", authority.certificate()).await;
    eventually("the server to be refused", async || app.failures().len() == 1).await;
    // Who asks for no name gets the server of the address, for which there is no certificate.
    let mut client = Client::connect(gateway.addresses("tls")[1]).await;
    assert!(client.ends().await);
    assert_eq!(app.handshakes().len(), 2);
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

// ── TLS that passes through ───────────────────────────────────────────────────────────────────────────────────────────

const BY_NAME: &str = r#"
    frontend "pass" {
        mode "tcp"
        bind "127.0.0.1:0"
        bind "127.0.0.1:0" accept-proxy
        timeout handshake="1s"
        acl "one" { sni "one.example" "*.one.example" }
        acl "two" { sni "two.example" }
        acl "never" { sni "never.example" }
        deny if="never"
        use-backend "one" if="one"
        use-backend "two" if="two"
        default-backend "plain"
    }
    frontend "direct" { mode "tcp"; bind "127.0.0.1:0"; default-backend "plain" }
    backend "one"   { mode "tcp"; server "s" "@one" }
    backend "two"   { mode "tcp"; server "s" "@two" }
    backend "plain" { mode "tcp"; server "s" "@plain" }
"#;

struct Passing {
    authority: Authority,
    one: TlsServer,
    two: TlsServer,
    plain: Server,
    gateway: Gateway,
}

impl Passing {
    async fn start() -> Self {
        let authority = Authority::new();
        let one = TlsServer::start(authority.demanding_server(&["one.example", "a.one.example"])).await;
        let mut config = authority.server(&["two.example"]);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let two = TlsServer::start(config).await;
        let plain = Server::echo().await;
        let gateway = Gateway::kdl(BY_NAME)
            .with("@one", one.address())
            .with("@two", two.address())
            .with("@plain", plain.address())
            .start()
            .await;
        Self {
            authority,
            one,
            two,
            plain,
            gateway,
        }
    }

    /// The ClientHello that a client asking for this name says first.
    fn hello(&self, name: &str) -> Vec<u8> {
        let name = name.to_owned().try_into().unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(self.authority.client()), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }
}

#[tokio::test]
async fn the_name_in_the_hello_routes_and_nothing_is_decrypted() {
    let it = Passing::start().await;
    let address = it.gateway.address("pass");
    let shown = it.authority.issue(&["client.example"]);
    for name in ["one.example", "a.one.example", "ONE.example"] {
        let mut client = Client::connect_tls_with(address, name, it.authority.client_with(&shown)).await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello", "{name}");
        client.half_close().await;
        assert_eq!(client.rest().await, b"bye", "{name}");
    }
    // The server saw the client's own certificate.
    assert!(it.one.handshakes().iter().all(|handshake| handshake.certificate));
    let mut config = it.authority.client();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = Client::connect_tls_with(address, "two.example", config).await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    assert_eq!(it.two.handshakes()[0].alpn.as_deref(), Some("h2"));
    assert_eq!((it.one.handshakes().len(), it.two.handshakes().len()), (3, 1));
    // The log knows it for a plain connection: nothing of TLS is the gateway's.
    let lines = it.gateway.access_log(3).await;
    assert!(
        lines
            .iter()
            .all(|line| line["tls"] == false && line["backend"] == "one")
    );
}

#[tokio::test]
async fn a_hello_may_come_in_many_pieces() {
    let it = Passing::start().await;
    let hello = it.hello("other.example");
    // In pieces, and what follows it at once: nothing is lost, doubled or reordered.
    let mut client = it.gateway.connect("pass").await;
    for piece in hello.chunks(7) {
        client.send(piece).await;
    }
    client.send("more").await;
    let whole = [&hello[..], b"more"].concat();
    assert_eq!(client.exactly(whole.len()).await, whole);
    // Records of one byte, TCP segments of three: the name still tells.
    let records: Vec<u8> = hello_in_records(&it.hello("never.example"), 1);
    let mut client = it.gateway.connect("pass").await;
    for piece in records.chunks(3) {
        if client.try_send(piece).await.is_err() {
            break;
        }
    }
    it.gateway
        .metric_is("gateway_frontend_denied_requests_total", &[("frontend", "pass")], 1.0)
        .await;
}

#[tokio::test]
async fn a_hello_may_follow_a_proxy_header() {
    let it = Passing::start().await;
    let denied = async |count| {
        let labels = [("frontend", "pass")];
        it.gateway
            .metric_is("gateway_frontend_denied_requests_total", &labels, count)
            .await;
    };
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n";
    let bytes = [&header[..], &it.hello("never.example")].concat();
    for (count, cut) in [(1.0, bytes.len()), (2.0, header.len()), (3.0, header.len() + 3)] {
        let mut client = Client::connect(it.gateway.addresses("pass")[1]).await;
        client.send(&bytes[..cut]).await;
        // Whether it comes in one piece or not is the same.
        let _ = client.try_send(&bytes[cut..]).await;
        denied(count).await;
    }
    let lines = it.gateway.access_log(3).await;
    assert_eq!(lines[0]["client"], "192.0.2.7:4711");
}

#[tokio::test]
async fn what_is_not_tls_goes_on_at_once_and_silence_for_the_timeout_at_most() {
    let it = Passing::start().await;
    let started = Instant::now();
    let mut client = it.gateway.connect("pass").await;
    client.send("EHLO").await;
    assert_eq!(client.exactly(4).await, b"EHLO");
    assert!(
        started.elapsed() < Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );

    // Half a hello, and nothing more: every byte arrives when the time is over.
    let half = it.hello("one.example")[..50].to_vec();
    let mut client = it.gateway.connect("pass").await;
    client.send(&half).await;
    assert_eq!(client.exactly(50).await, half);

    // A server that speaks first gets its client, late.
    let greeting = Server::greeting("220 ready\r\n").await;
    let late = Gateway::kdl(BY_NAME)
        .with("@one", greeting.address())
        .with("@two", greeting.address())
        .with("@plain", greeting.address())
        .start()
        .await;
    let started = Instant::now();
    assert_eq!(late.connect("pass").await.exactly(11).await, b"220 ready\r\n");
    assert!(
        started.elapsed() >= Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn hellos_that_are_bombs_cost_little_and_hold_nobody_up() {
    let it = Passing::start().await;
    let before = it.gateway.resident();
    let tiny_records = hello_in_records(&[&[0; 5], &[1, 0, 0x30, 0][..], &[0; 0x3000]].concat(), 1);
    let mut open = Vec::new();
    for bomb in [
        // A record that never ends, a message of 16 MiB, an empty record, a length beyond its list.
        &b"\x16\x03\x01\x40\x00\x01\x00\x3f\x00"[..],
        b"\x16\x03\x01\x40\x00\x01\xff\xff\xff",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x00\x0a\x01\x00\x00\x06\xff\xff\xff\xff\xff\xff",
        &tiny_records,
    ] {
        for _ in 0..40 {
            let mut client = it.gateway.connect("pass").await;
            client.send(bomb).await;
            open.push((client, bomb.len()));
        }
    }
    let mut client = it.gateway.connect("direct").await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    let grown = it.gateway.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for 200 bombs");
    // They have no name, and go where those go that have none.
    for (client, length) in &mut open {
        client.skip(*length as u64).await;
    }
    assert_eq!(it.plain.connections(), 201);
}

/// A ClientHello in records of so many bytes.
fn hello_in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1], &u16::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat();
    hello[5..].chunks(size).flat_map(record).collect()
}

// ── TLS that ends here, in TCP mode ───────────────────────────────────────────────────────────────────────────────────

const TERMINATED: &str = r#"
    frontend "tls" {
        mode "tcp"
        bind "127.0.0.1:0" { tls cert="bundle.pem"; alpn "postgresql" "other" }
        timeout handshake="500ms"
        default-backend "app"
    }
    frontend "plain" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { mode "tcp"; server "app-1" "@app" }
"#;

#[tokio::test]
async fn tls_ends_at_a_tcp_frontend_and_both_ends_may_close_half() {
    let authority = Authority::new();
    let app = Server::start(|mut wire, _| async move {
        wire.send("ready\n").await?;
        let all = wire.rest().await?;
        wire.send(format!("{} bytes", all.len())).await
    })
    .await;
    let gateway = Gateway::kdl(TERMINATED)
        .with("@app", app.address())
        .file("bundle.pem", authority.issue(&["db.example"]).bundle())
        .start()
        .await;
    let mut config = authority.client();
    config.alpn_protocols = vec![b"other".to_vec()];
    let mut client = Client::connect_tls_with(gateway.address("tls"), "db.example", config).await;
    assert_eq!(client.exactly(6).await, b"ready\n");
    client.send(vec![b'x'; 300_000]).await;
    client.half_close().await;
    assert_eq!(String::from_utf8(client.rest().await).unwrap(), "300000 bytes");
    let line = gateway.access_log(1).await.remove(0);
    assert_eq!((&line["tls"], &line["termination"]), (&true.into(), &"--".into()));

    // The server ends first.
    let app = Server::start(|mut wire, _| async move {
        wire.send("bye").await?;
        wire.half_close().await?;
        let all = wire.rest().await?;
        assert_eq!(all, b"and yet");
        Ok(())
    })
    .await;
    let gateway = Gateway::kdl(TERMINATED)
        .with("@app", app.address())
        .file("bundle.pem", authority.issue(&["db.example"]).bundle())
        .start()
        .await;
    let mut client = Client::connect_tls_with(gateway.address("tls"), "db.example", authority.client()).await;
    assert_eq!(client.rest().await, b"bye");
    client.send("and yet").await;
    client.half_close().await;
    eventually("the server hears the rest", async || app.seen(0) == b"and yet").await;
}

#[tokio::test]
async fn an_end_without_the_goodbye_of_tls_is_passed_on_and_told() {
    let authority = Authority::new();
    let app = Server::echo().await;
    let gateway = Gateway::kdl(TERMINATED)
        .with("@app", app.address())
        .file("bundle.pem", authority.issue(&["db.example"]).bundle())
        .start()
        .await;
    for (n, says_goodbye) in [true, false].into_iter().enumerate() {
        let stream = tokio::net::TcpStream::connect(gateway.address("tls")).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(authority.client()));
        let name = "db.example".try_into().unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut echoed = [0; 5];
        stream.read_exact(&mut echoed).await.unwrap();
        match says_goodbye {
            true => stream.shutdown().await.unwrap(),
            false => stream.get_mut().0.shutdown().await.unwrap(),
        }
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        let line = gateway.access_log(n + 1).await.remove(n);
        let reason = if says_goodbye { None } else { Some("client-tls-cut") };
        assert_eq!(
            (&line["termination"], line["reason"].as_str()),
            (&"--".into(), reason),
            "{line}"
        );
    }
}

#[tokio::test]
async fn handshakes_that_fail_are_counted_by_reason_and_logged() {
    let authority = Authority::new();
    let app = Server::echo().await;
    let gateway = Gateway::kdl(TERMINATED)
        .with("@app", app.address())
        .file("bundle.pem", authority.issue(&["db.example"]).bundle())
        .start()
        .await;
    let address = gateway.address("tls");
    let failed = async |reason: &str, count: f64| {
        let labels = [("frontend", "tls"), ("reason", reason)];
        gateway.metric_is("gateway_frontend_errors_total", &labels, count).await;
    };
    // Nothing at all, and not TLS.
    let _stalled = gateway.connect("tls").await;
    let mut client = gateway.connect("tls").await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    failed("tls-malformed", 1.0).await;
    failed("tls-timeout", 1.0).await;
    drop(gateway.connect("tls").await);
    failed("tls-aborted", 1.0).await;
    // No protocol in common.
    let mut config = authority.client();
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert!(handshake(address, config).await.is_err());
    failed("tls-incompatible", 1.0).await;
    // A client that does not believe the certificate.
    assert!(handshake(address, Authority::new().client()).await.is_err());
    failed("tls-refused-by-client", 1.0).await;
    gateway.says("no TLS with a client").await;
    // Others go on.
    let mut client = Client::connect_tls_with(address, "db.example", authority.client()).await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
}

async fn handshake(address: SocketAddr, config: rustls::ClientConfig) -> std::io::Result<()> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let name = "db.example".to_owned().try_into().unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    // In TLS 1.3 the client is through first: what the server says of it is heard at the next read.
    match stream.read(&mut [0]).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

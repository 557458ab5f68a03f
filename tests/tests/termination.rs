//! TLS that ends at the gateway: which certificate is shown to whom, which clients are believed, how they come back, and what
//! becomes of files that change.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateway_tests::tls::{Authority, Issued, TlsServer};
use gateway_tests::{Builder, Client, Gateway, HttpServer, Server, eventually, get, within};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CipherSuite, ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a client got.
#[derive(Debug)]
struct Got {
    /// The first certificate that was shown.
    certificate: CertificateDer<'static>,
    version: ProtocolVersion,
    suite: CipherSuite,
    resumed: bool,
    /// The response, headers and all.
    text: String,
}

/// Asks for `/` in TLS, as a client that closes afterwards.
async fn ask(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Result<Got, String> {
    let exchange = async {
        let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        let name = match name {
            // Nothing is asked for by name then.
            "" => ServerName::from(std::net::IpAddr::from([127, 0, 0, 1])),
            name => ServerName::try_from(name.to_owned()).unwrap(),
        };
        let connector = TlsConnector::from(Arc::clone(config));
        let mut stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
        let request = b"GET / HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(request).await;
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if text.is_empty() {
            return Err(read.err().map_or("closed".to_owned(), |error| error.to_string()));
        }
        let session = stream.get_ref().1;
        Ok(Got {
            certificate: session.peer_certificates().unwrap()[0].clone().into_owned(),
            version: session.protocol_version().unwrap(),
            suite: session.negotiated_cipher_suite().unwrap().suite(),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            text,
        })
    };
    within(PATIENCE, "an exchange in TLS", exchange).await
}

/// A client that believes everybody: which certificate it is shown is what is asked.
fn anyone() -> Arc<ClientConfig> {
    Arc::new(trusting_all(ClientConfig::builder()))
}

fn trusting_all(builder: rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>) -> ClientConfig {
    builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Everybody(None)))
        .with_no_client_auth()
}

/// Believes everybody; may say that it knows no other signatures than these.
#[derive(Debug)]
struct Everybody(Option<Vec<SignatureScheme>>);

impl ServerCertVerifier for Everybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone().unwrap_or_else(|| {
            vec![
                SignatureScheme::ECDSA_NISTP256_SHA256,
                SignatureScheme::RSA_PSS_SHA256,
                SignatureScheme::RSA_PKCS1_SHA256,
            ]
        })
    }
}

const WEB: &str = r#"
    frontend "web" { bind "127.0.0.1:0" { tls @tls }; default-backend "app" }
    backend "app" { server "app-1" "echo" }
"#;

fn web(tls: &str) -> Builder {
    Gateway::kdl(WEB).with("@tls", tls)
}

/// Whether the gateway has counted that many handshakes that failed for this reason, and has told why.
async fn refused(gateway: &Gateway, reason: &str, times: f64) {
    let labels = [("frontend", "web"), ("reason", reason)];
    gateway.metric_is("gateway_frontend_errors_total", &labels, times).await;
}

// ── which certificate ─────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn the_name_that_is_asked_for_chooses_the_certificate() {
    let authority = Authority::new();
    let first = authority.issue(&["first.example"]);
    let shop = authority.issue(&["shop.example"]);
    let wild = authority.issue(&["*.shop.example", "other.example"]);
    let exact = authority.issue(&["www.shop.example"]);
    let gateway = web(r#"cert="first.pem" { cert "wild.pem"; cert "shop.pem" key="shop.secret"; cert "exact.pem" }"#)
        .file("first.pem", first.bundle())
        .file("wild.pem", wild.bundle())
        .file("shop.pem", shop.pem())
        .file("shop.secret", shop.key_pem())
        .file("exact.pem", exact.bundle())
        .start()
        .await;
    for (name, expected) in [
        ("first.example", &first),
        ("shop.example", &shop),
        ("a.shop.example", &wild),
        ("A.Shop.Example", &wild),
        ("other.example", &wild),
        // What is there itself comes before a pattern, and a star is one label.
        ("www.shop.example", &exact),
        ("a.b.shop.example", &first),
        ("nobody.example", &first),
        ("", &first),
    ] {
        let got = ask(gateway.address("web"), name, &anyone()).await.unwrap();
        assert_eq!(got.certificate, *expected.certificate(), "{name}");
    }
}

#[tokio::test]
async fn an_ecdsa_certificate_is_shown_to_who_can_use_it_and_an_rsa_one_to_others() {
    let authority = Authority::new();
    let rsa = authority.issue_rsa(&["shop.example"]);
    let ecdsa = authority.issue(&["shop.example"]);
    let gateway = web(r#"cert="rsa.pem" { cert "ecdsa.pem" }"#)
        .file("rsa.pem", rsa.bundle())
        .file("ecdsa.pem", ecdsa.bundle())
        .start()
        .await;
    let old = |version: &'static rustls::SupportedProtocolVersion| {
        let schemes = vec![SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
        let config = ClientConfig::builder_with_protocol_versions(&[version])
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Everybody(Some(schemes))))
            .with_no_client_auth();
        Arc::new(config)
    };
    // By its own name, and by default.
    for name in ["shop.example", "nobody.example"] {
        for (client, expected) in [
            (anyone(), &ecdsa),
            (old(&rustls::version::TLS13), &rsa),
            (old(&rustls::version::TLS12), &rsa),
        ] {
            let got = ask(gateway.address("web"), name, &client).await.unwrap();
            assert_eq!(got.certificate, *expected.certificate(), "{name}");
        }
    }
}

#[tokio::test]
async fn who_asks_for_another_name_is_refused_where_names_are_strict() {
    let shown = Authority::new().issue(&["shop.example"]);
    let gateway = web(r#"cert="shop.pem" strict-sni"#)
        .file("shop.pem", shown.bundle())
        .start()
        .await;
    assert!(ask(gateway.address("web"), "shop.example", &anyone()).await.is_ok());
    for (name, alert) in [("other.example", "UnrecognisedName"), ("", "MissingExtension")] {
        let error = ask(gateway.address("web"), name, &anyone()).await.unwrap_err();
        assert_eq!(error, format!("received fatal alert: {alert}"), "{name}");
    }
    refused(&gateway, "tls-unknown-name", 2.0).await;
    gateway.says("no certificate is for the name that was asked for").await;
}

#[tokio::test]
async fn who_speaks_http_where_tls_has_to_begin_is_told_so() {
    let shown = Authority::new().issue(&["shop.example"]);
    let gateway = web(r#"cert="shop.pem""#).file("shop.pem", shown.bundle()).start().await;
    let answers = async |requests: &[&str]| {
        let mut client = Client::connect(gateway.address("web")).await;
        for bytes in requests {
            client.send(bytes).await;
        }
        let answer = client.response().await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.text(), "400 The plain HTTP request was sent to HTTPS port\n");
        assert_eq!(answer.header("connection"), Some("close"));
        client.closed().await;
    };
    answers(&["GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"]).await;
    // One that is not whole, and comes in pieces.
    answers(&["P", "OST /a HTTP/1.1\r\nContent-Length: 100000\r\n\r\nabc"]).await;
    answers(&["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]).await;
    refused(&gateway, "plain-http", 3.0).await;
    let line = &gateway.access_log(3).await[2];
    assert_eq!((&line["status"], &line["reason"]), (&400.into(), &"plain-http".into()));
    assert_eq!((&line["termination"], &line["tls"]), (&"PR".into(), &false.into()));

    // Whoever else speaks no TLS gets its alert: 21, and that the record is none that is known.
    let mut client = gateway.connect("web").await;
    client.send("SSH-2.0-any\r\n").await;
    let alert = client.until_end().await;
    assert_eq!(alert[..1], [21], "{alert:?}");
    refused(&gateway, "tls-malformed", 1.0).await;
}

#[tokio::test]
async fn in_tcp_mode_nobody_is_answered_in_http() {
    let shown = Authority::new().issue(&["shop.example"]);
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { mode "tcp"; bind "127.0.0.1:0" { tls cert="shop.pem" }; default-backend "app" }
        backend "app" { mode "tcp"; server "app-1" "127.0.0.1:9" }
    "#,
    )
    .file("shop.pem", shown.bundle())
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    let alert = client.until_end().await;
    assert_eq!(alert[..1], [21], "{alert:?}");
    refused(&gateway, "tls-malformed", 1.0).await;
}

#[tokio::test]
async fn a_folder_is_read_in_the_order_of_its_names() {
    let authority = Authority::new();
    let (a, b, c) = (
        authority.issue(&["a.example"]),
        authority.issue(&["b.example"]),
        authority.issue(&["c.example"]),
    );
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("20-b.pem", &b.bundle());
    write("10-a.crt", a.pem());
    write("10-a.key", &a.key_pem());
    write("30-c.pem", c.pem());
    write("30-c.pem.key", &c.key_pem());
    write(".hidden", "no certificate");
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let tls = format!("cert-dir=\"{}\"", folder.path().display());
    let gateway = web(&tls).start().await;
    for (name, expected) in [
        ("a.example", &a),
        ("b.example", &b),
        ("c.example", &c),
        ("d.example", &a),
    ] {
        let got = ask(gateway.address("web"), name, &anyone()).await.unwrap();
        assert_eq!(got.certificate, *expected.certificate(), "{name}");
    }

    write("40-bad.pem", "not a certificate");
    write("50-lonely.pem", authority.issue(&["e.example"]).pem());
    let checked = web(&tls).check(&[]);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    for part in [
        "40-bad.pem: holds no certificate",
        "50-lonely.pem: no usable private key",
    ] {
        assert!(checked.stdout.contains(part), "{part}: {}", checked.stdout);
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_all_told_of_with_their_places() {
    let authority = Authority::new();
    let (a, b) = (authority.issue(&["a.example"]), authority.issue(&["b.example"]));
    let empty = tempfile::tempdir().unwrap();
    let tls = format!(
        r#"cert="a.pem" key="b.key" cert-dir="{}" {{ cert "a.pem" key="a.key" ocsp="junk"; client-ca "junk"; crl "none" }}"#,
        empty.path().display()
    );
    let checked = web(&tls)
        .file("a.pem", a.pem())
        .file("a.key", a.key_pem())
        .file("b.key", b.key_pem())
        .file("junk", "junk")
        .check(&[]);
    assert_eq!(checked.code, Some(1));
    for part in [
        "and this key",
        "there is no certificate in this folder",
        "no usable OCSP response: neither DER nor PEM",
        "junk: holds no certificate",
        "none: no usable revocation list",
    ] {
        assert!(checked.stdout.contains(part), "{part}: {}", checked.stdout);
    }
}

// ── versions ──────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn versions_and_suites_are_what_is_said() {
    let shown = Authority::new().issue(&["shop.example"]);
    let client = |version: &'static rustls::SupportedProtocolVersion| {
        Arc::new(trusting_all(ClientConfig::builder_with_protocol_versions(&[version])))
    };
    let (old, new) = (client(&rustls::version::TLS12), client(&rustls::version::TLS13));
    for (tls, speaks_old, speaks_new) in [
        ("", true, true),
        (r#"min-version="1.3""#, false, true),
        (r#"max-version="1.2""#, true, false),
        // Suites of the other kind of key are no use to this certificate.
        (r#"{ ciphers "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" }"#, false, true),
        (
            r#"{ ciphers "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"; curves "secp384r1" }"#,
            true,
            true,
        ),
    ] {
        let gateway = web(&format!("cert=\"shop.pem\" {tls}"))
            .file("shop.pem", shown.bundle())
            .start()
            .await;
        for (client, speaks, version) in [
            (&old, speaks_old, ProtocolVersion::TLSv1_2),
            (&new, speaks_new, ProtocolVersion::TLSv1_3),
        ] {
            let got = ask(gateway.address("web"), "shop.example", client).await;
            assert_eq!(
                got.as_ref().ok().map(|got| got.version),
                speaks.then_some(version),
                "{tls}: {got:?}"
            );
        }
    }
}

#[tokio::test]
async fn suites_are_agreed_on_in_the_order_in_which_they_are_written() {
    let shown = Authority::new().issue(&["shop.example"]);
    let (longer, shorter) = (
        CipherSuite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    );
    for (ciphers, expected) in [
        // The client's order, which has the longer keys first.
        ("", longer),
        (
            r#"{ ciphers "TLS_AES_128_GCM_SHA256" "TLS_AES_256_GCM_SHA384" }"#,
            shorter,
        ),
        (
            r#"{ ciphers "TLS_AES_256_GCM_SHA384" "TLS_AES_128_GCM_SHA256" }"#,
            longer,
        ),
    ] {
        let gateway = web(&format!("cert=\"shop.pem\" {ciphers}"))
            .file("shop.pem", shown.bundle())
            .start()
            .await;
        let got = ask(gateway.address("web"), "shop.example", &anyone()).await.unwrap();
        assert_eq!(got.suite, expected, "{ciphers}");
    }
}

// ── clients ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const CLIENTS: &str = r#"
    frontend "web" {
        bind "127.0.0.1:0" { tls cert="shop.pem" { @clients } }
        acl "known" { client-cert-cn "known.example"; tls-version "1.2" "1.3" }
        acl "anyone" { client-cert }
        deny status=418 if="known"
        deny status=403 unless="anyone"
        default-backend "app"
    }
    backend "app" { server "app-1" "echo" }
"#;

struct Clients {
    authority: Authority,
    shop: Issued,
}

impl Clients {
    fn new() -> Self {
        let authority = Authority::new();
        let shop = authority.issue(&["shop.example"]);
        Self { authority, shop }
    }

    fn builder(&self, clients: &str) -> Builder {
        Gateway::kdl(CLIENTS)
            .with("@clients", clients)
            .file("shop.pem", self.shop.bundle())
            .file("ca.pem", self.authority.pem())
    }

    /// The status that a client gets which shows these, leaf first, in each version of TLS; or why it gets none.
    async fn statuses(
        &self,
        gateway: &Gateway,
        shown: &[&Issued],
        chain: &[&Authority],
    ) -> [Result<String, String>; 2] {
        let old = Self::status(gateway, &rustls::version::TLS12, shown, chain).await;
        [old, Self::status(gateway, &rustls::version::TLS13, shown, chain).await]
    }

    async fn status(
        gateway: &Gateway,
        version: &'static rustls::SupportedProtocolVersion,
        shown: &[&Issued],
        chain: &[&Authority],
    ) -> Result<String, String> {
        let client = Arc::new(showing(version, shown.first().copied(), chain));
        let got = ask(gateway.address("web"), "shop.example", &client).await?;
        Ok(got.text.split(' ').nth(1).unwrap_or_default().to_owned())
    }
}

/// A client that shows a certificate, and those of the authorities that lead to one that is believed.
fn showing(
    version: &'static rustls::SupportedProtocolVersion,
    shown: Option<&Issued>,
    chain: &[&Authority],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_protocol_versions(&[version])
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Everybody(None)));
    let Some(shown) = shown else {
        return builder.with_no_client_auth();
    };
    let key = PrivateKeyDer::from_pem_slice(shown.key_pem().as_bytes()).unwrap();
    let above = chain.iter().map(|authority| authority.certificate().clone());
    let chain = std::iter::once(shown.certificate().clone()).chain(above).collect();
    builder.with_client_auth_cert(chain, key).unwrap()
}

#[tokio::test]
async fn what_a_clients_certificate_says_decides() {
    let it = Clients::new();
    let gateway = it.builder(r#"client-ca "ca.pem" verify="optional""#).start().await;
    let (known, other) = (
        it.authority.issue(&["known.example"]),
        it.authority.issue(&["other.example"]),
    );
    for (shown, status) in [(&[&known][..], "418"), (&[&other], "200"), (&[], "403")] {
        let expected = [Ok(status.to_owned()), Ok(status.to_owned())];
        assert_eq!(it.statuses(&gateway, shown, &[]).await, expected);
    }
}

#[tokio::test]
async fn connections_are_decided_about_by_certificate_in_tcp_mode() {
    let it = Clients::new();
    let app = Server::greeting("welcome\r\n").await;
    let known = it.authority.issue(&["known.example"]);
    let serial = format!("{:02x}", known.serial());
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" {
            mode "tcp"
            bind "127.0.0.1:0" { tls cert="shop.pem" { client-ca "ca.pem" } }
            acl "known" {
                client-cert-san "DNS:known.example"
                client-cert-serial "@serial"
                client-cert-subject regex="(^|,)CN=known\\.example(,|$)"
                client-cert-issuer prefix="CN="
                not { client-cert-fingerprint "@zeros" }
            }
            deny unless="known"
            default-backend "app"
        }
        backend "app" { mode "tcp"; server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .with("@serial", serial)
    .with("@zeros", "00".repeat(32))
    .file("shop.pem", it.shop.bundle())
    .file("ca.pem", it.authority.pem())
    .start()
    .await;
    let address = gateway.address("raw");
    let known = Arc::new(it.authority.client_with(&known));
    let other = Arc::new(it.authority.client_with(&it.authority.issue(&["known.example"])));
    assert_eq!(ask(address, "shop.example", &known).await.unwrap().text, "welcome\r\n");
    assert!(ask(address, "shop.example", &other).await.is_err());
    let labels = [("frontend", "raw")];
    gateway
        .metric_is("gateway_frontend_denied_requests_total", &labels, 1.0)
        .await;
}

#[tokio::test]
async fn a_client_that_is_not_believed_is_refused_with_the_reason() {
    let it = Clients::new();
    let revoked = it.authority.issue(&["revoked.example"]);
    let gateway = it
        .builder(r#"client-ca "ca.pem" verify="required"; crl "ca.crl""#)
        .file("ca.crl", it.authority.revocation_list(&[&revoked], 3600))
        .start()
        .await;
    let good = it.authority.issue(&["good.example"]);
    assert_eq!(
        it.statuses(&gateway, &[&good], &[]).await,
        [Ok("200".into()), Ok("200".into())]
    );

    let stranger = Authority::new().below("Elsewhere").issue(&["good.example"]);
    let old = it.authority.issue_for(&["old.example"], -60);
    for (shown, reason) in [
        (&[][..], "tls-no-client-certificate"),
        (&[&revoked], "tls-client-certificate-revoked"),
        (&[&stranger], "tls-client-certificate-unknown-issuer"),
        (&[&old], "tls-client-certificate-expired"),
    ] {
        for status in it.statuses(&gateway, shown, &[]).await {
            let error = status.unwrap_err();
            assert!(error.contains("alert"), "{reason}: {error}");
        }
        refused(&gateway, reason, 2.0).await;
    }
    gateway.says("no TLS with a client").await;
}

#[tokio::test]
async fn a_client_whose_own_certificate_is_the_authority_is_believed() {
    let it = Clients::new();
    let (shown, other) = (
        Issued::self_signed(&["client.example"]),
        Issued::self_signed(&["client.example"]),
    );
    let gateway = it
        .builder(r#"client-ca "self.pem" verify="required""#)
        .file("self.pem", shown.pem())
        .start()
        .await;
    assert_eq!(
        it.statuses(&gateway, &[&shown], &[]).await,
        [Ok("200".into()), Ok("200".into())]
    );
    let statuses = it.statuses(&gateway, &[&other], &[]).await;
    assert!(statuses.iter().all(Result::is_err), "{statuses:?}");
}

#[tokio::test]
async fn a_revocation_list_that_is_out_of_date_lets_nobody_in() {
    let it = Clients::new();
    let gateway = it
        .builder(r#"client-ca "ca.pem"; crl "ca.crl""#)
        .file("ca.crl", it.authority.revocation_list(&[], -60))
        .start()
        .await;
    gateway.says("a revocation list is about to be out of date").await;
    let good = it.authority.issue(&["good.example"]);
    let statuses = it.statuses(&gateway, &[&good], &[]).await;
    assert!(statuses.iter().all(Result::is_err), "{statuses:?}");
    refused(&gateway, "tls-client-certificate-status-unknown", 2.0).await;
}

#[tokio::test]
async fn a_chain_may_be_as_long_as_is_said() {
    let it = Clients::new();
    let below = it.authority.below("Below");
    let (deep, direct) = (below.issue(&["deep.example"]), it.authority.issue(&["direct.example"]));
    for (depth, expected) in [("", true), ("depth=1", true), ("depth=0", false)] {
        let gateway = it.builder(&format!("client-ca \"ca.pem\" {depth}")).start().await;
        let statuses = it.statuses(&gateway, &[&deep], &[&below]).await;
        assert!(
            statuses.iter().all(|status| status.is_ok() == expected),
            "{depth}: {statuses:?}"
        );
        // One that needs nothing in between may always come.
        assert!(it.statuses(&gateway, &[&direct], &[]).await[0].is_ok());
    }
}

// ── coming back ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// Whether the second of two connections of this client is resumed.
async fn comes_back(address: SocketAddr, version: &'static rustls::SupportedProtocolVersion) -> bool {
    let client = Arc::new(trusting_all(ClientConfig::builder_with_protocol_versions(&[version])));
    assert!(!ask(address, "shop.example", &client).await.unwrap().resumed);
    ask(address, "shop.example", &client).await.unwrap().resumed
}

#[tokio::test]
async fn clients_come_back_by_tickets_or_by_sessions_that_are_kept() {
    let shown = Authority::new().issue(&["shop.example"]);
    for (tls, resumes) in [
        ("", true),
        (r#"{ tickets "off" }"#, true),
        ("{ session-cache 0 }", true),
        (r#"{ tickets "off"; session-cache 0 }"#, false),
    ] {
        let gateway = web(&format!("cert=\"shop.pem\" {tls}"))
            .file("shop.pem", shown.bundle())
            .start()
            .await;
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let resumed = comes_back(gateway.address("web"), version).await;
            assert_eq!(resumed, resumes, "{tls} {version:?}");
        }
    }
}

#[tokio::test]
async fn handshakes_are_counted_by_whether_they_resume() {
    let shown = Authority::new().issue(&["shop.example"]);
    let gateway = web(r#"cert="shop.pem""#).file("shop.pem", shown.bundle()).start().await;
    let client = anyone();
    for _ in 0..3 {
        ask(gateway.address("web"), "shop.example", &client).await.unwrap();
    }
    for (kind, times) in [("full", 1.0), ("resumed", 2.0)] {
        let labels = [("frontend", "web"), ("kind", kind)];
        gateway
            .metric_is("gateway_frontend_tls_handshakes_total", &labels, times)
            .await;
    }
}

#[tokio::test]
async fn tickets_are_good_until_their_key_is_gone() {
    let shown = Authority::new().issue(&["shop.example"]);
    let gateway = web(r#"cert="shop.pem" { tickets rotate="1s"; session-cache 0 }"#)
        .file("shop.pem", shown.bundle())
        .start()
        .await;
    let address = gateway.address("web");
    let client = Arc::new(trusting_all(ClientConfig::builder_with_protocol_versions(&[
        &rustls::version::TLS12,
    ])));
    ask(address, "shop.example", &client).await.unwrap();
    assert!(ask(address, "shop.example", &client).await.unwrap().resumed);
    // Another client makes the keys turn, twice.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(2100)).await;
        ask(address, "shop.example", &anyone()).await.unwrap();
    }
    assert!(!ask(address, "shop.example", &client).await.unwrap().resumed);
}

#[tokio::test]
async fn a_reload_keeps_tickets_good() {
    let shown = Authority::new().issue(&["shop.example"]);
    let builder = web(r#"cert="shop.pem""#);
    let gateway = web(r#"cert="shop.pem""#).file("shop.pem", shown.bundle()).start().await;
    let client = anyone();
    ask(gateway.address("web"), "shop.example", &client).await.unwrap();
    assert!(gateway.reload(&builder).await);
    assert!(
        ask(gateway.address("web"), "shop.example", &client)
            .await
            .unwrap()
            .resumed
    );
}

/// A key of tickets, as a line of a file.
fn ticket_key(name: u8) -> String {
    let bytes: [u8; 48] = std::array::from_fn(|i| name.wrapping_mul(31).wrapping_add(i as u8));
    STANDARD.encode(bytes) + "\n"
}

#[tokio::test]
async fn gateways_that_share_keys_take_each_others_clients() {
    let shown = Authority::new().issue(&["shop.example"]);
    let tls =
        |lifetime: &str| format!(r#"cert="shop.pem" {{ tickets keys="tickets.keys" {lifetime}; session-cache 0 }}"#);
    let gateway = async |tls: &str, keys: &[u8]| {
        let keys: String = keys.iter().map(|name| ticket_key(*name)).collect();
        let builder = web(tls).file("shop.pem", shown.bundle()).secret("tickets.keys", keys);
        builder.start().await
    };
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let one = gateway(&tls(""), &[1]).await;
        let two = gateway(&tls(""), &[2, 1]).await;
        let other = gateway(&tls(""), &[3]).await;
        let client = Arc::new(trusting_all(ClientConfig::builder_with_protocol_versions(&[version])));
        let resumes = async |at: &Gateway| ask(at.address("web"), "shop.example", &client).await.unwrap().resumed;
        assert!(!resumes(&one).await);
        assert!(resumes(&two).await, "{version:?}: with the second of its keys");
        // With each session a client gets a new ticket, which is of key 2 now.
        assert!(!resumes(&one).await, "{version:?}: with a key that it has not");
        assert!(!resumes(&other).await, "{version:?}: with keys of others");

        // The keys turn, in the order in which nobody is lost, and without a reload.
        let client = Arc::new(trusting_all(ClientConfig::builder_with_protocol_versions(&[version])));
        let resumes = async |at: &Gateway| ask(at.address("web"), "shop.example", &client).await.unwrap().resumed;
        assert!(!resumes(&one).await);
        one.write("tickets.keys", ticket_key(4) + &ticket_key(1));
        one.says("keys of tickets have changed").await;
        assert!(resumes(&one).await);
        one.write("tickets.keys", ticket_key(4));
        eventually("the old key is gone", async || {
            let late = Arc::new(trusting_all(ClientConfig::builder_with_protocol_versions(&[version])));
            ask(two.address("web"), "shop.example", &late).await.unwrap();
            !ask(one.address("web"), "shop.example", &late).await.unwrap().resumed
        })
        .await;
        // A file that cannot be used leaves what was there.
        one.write("tickets.keys", "no key\n");
        one.says("line 1: it is not base64").await;
        let client = Arc::new(trusting_all(ClientConfig::builder_with_protocol_versions(&[version])));
        ask(one.address("web"), "shop.example", &client).await.unwrap();
        assert!(ask(one.address("web"), "shop.example", &client).await.unwrap().resumed);
    }
    let short = gateway(&tls(r#"lifetime="1s""#), &[1]).await;
    let client = Arc::new(trusting_all(ClientConfig::builder_with_protocol_versions(&[
        &rustls::version::TLS12,
    ])));
    let resumes = async || {
        ask(short.address("web"), "shop.example", &client)
            .await
            .unwrap()
            .resumed
    };
    assert!(!resumes().await);
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert!(!resumes().await, "it is older than its lifetime");
}

#[tokio::test]
async fn a_file_of_keys_that_cannot_be_used_is_pointed_at() {
    let shown = Authority::new().issue(&["shop.example"]);
    let check = |keys: &str, secret: bool| {
        let builder = web(r#"cert="shop.pem" { tickets keys="tickets.keys" }"#).file("shop.pem", shown.bundle());
        let builder = match secret {
            true => builder.secret("tickets.keys", keys),
            false => builder.file("tickets.keys", keys),
        };
        builder.check(&[])
    };
    assert_eq!(check(&ticket_key(1), true).code, Some(0));
    for (keys, secret, why) in [
        (ticket_key(1), false, "others than its owner and group may use it"),
        (
            ticket_key(1) + "AAAA\n",
            true,
            "line 2: a key has 48 or 80 bytes, this one has 3",
        ),
        (String::new(), true, "there is no key in it"),
    ] {
        let checked = check(&keys, secret);
        assert_eq!(checked.code, Some(1), "{why}");
        assert!(checked.stdout.contains(why), "{}", checked.stdout);
        assert!(checked.stdout.contains("holds no usable keys"), "{}", checked.stdout);
    }
}

#[tokio::test]
async fn shared_keys_get_nobody_past_a_bind_that_asks_for_certificates() {
    let it = Clients::new();
    let gateway = Gateway::kdl(
        r#"
        frontend "open" {
            bind "127.0.0.1:0" { tls cert="shop.pem" { tickets keys="tickets.keys" } }
            default-backend "app"
        }
        frontend "web" {
            bind "127.0.0.1:0" { tls cert="shop.pem" { client-ca "ca.pem"; tickets keys="tickets.keys" } }
            default-backend "app"
        }
        backend "app" { server "app-1" "echo" }
    "#,
    )
    .file("shop.pem", it.shop.bundle())
    .file("ca.pem", it.authority.pem())
    .secret("tickets.keys", ticket_key(1))
    .start()
    .await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Arc::new(trusting_all(ClientConfig::builder_with_protocol_versions(&[version])));
        ask(gateway.address("open"), "shop.example", &client).await.unwrap();
        assert!(
            ask(gateway.address("open"), "shop.example", &client)
                .await
                .unwrap()
                .resumed
        );
        ask(gateway.address("web"), "shop.example", &client).await.unwrap_err();
    }
}

#[tokio::test]
async fn coming_back_gets_nobody_past_a_bind_that_asks_for_certificates() {
    let it = Clients::new();
    let gateway = Gateway::kdl(
        r#"
        frontend "open" { bind "127.0.0.1:0" { tls cert="shop.pem" }; default-backend "app" }
        frontend "web" {
            bind "127.0.0.1:0" { tls cert="shop.pem" { client-ca "ca.pem"; crl "ca.crl" } }
            default-backend "app"
        }
        backend "app" { server "app-1" "echo" }
    "#,
    )
    .file("shop.pem", it.shop.bundle())
    .file("ca.pem", it.authority.pem())
    .file("ca.crl", it.authority.revocation_list(&[], 3600))
    .start()
    .await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Arc::new(trusting_all(ClientConfig::builder_with_protocol_versions(&[version])));
        for _ in 0..2 {
            ask(gateway.address("open"), "shop.example", &client).await.unwrap();
        }
        // The client has a ticket for this name, and offers it.
        ask(gateway.address("web"), "shop.example", &client).await.unwrap_err();
    }
    refused(&gateway, "tls-no-client-certificate", 2.0).await;

    // Who is revoked does not come back by what was settled before.
    let shown = it.authority.issue(&["client.example"]);
    let client = Arc::new(it.authority.client_with(&shown));
    let address = gateway.address("web");
    ask(address, "shop.example", &client).await.unwrap();
    assert!(ask(address, "shop.example", &client).await.unwrap().resumed);
    gateway.write("ca.crl", it.authority.revocation_list(&[&shown], 3600));
    gateway
        .says("authorities or revocation lists of clients have changed")
        .await;
    ask(address, "shop.example", &client).await.unwrap_err();
    refused(&gateway, "tls-client-certificate-revoked", 1.0).await;
}

// ── files that change ─────────────────────────────────────────────────────────────────────────────────────────────────

async fn shows(gateway: &Gateway, name: &str, expected: &Issued) {
    eventually("the certificate is shown", async || {
        let got = ask(gateway.address("web"), name, &anyone()).await;
        got.is_ok_and(|got| got.certificate == *expected.certificate())
    })
    .await;
}

#[tokio::test]
async fn certificates_change_under_traffic_and_no_connection_is_lost() {
    let authority = Authority::new();
    let issued: Vec<Issued> = (0..3).map(|_| authority.issue(&["shop.example"])).collect();
    let gateway = web(r#"cert="shop.pem""#)
        .file("shop.pem", issued[0].bundle())
        .start()
        .await;
    let address = gateway.address("web");
    let mut kept = Client::connect_tls(address, "shop.example", authority.certificate()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let traffic: Vec<_> = (0..4)
        .map(|_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let got = ask(address, "shop.example", &anyone()).await;
                    assert!(
                        got.as_ref().is_ok_and(|got| got.text.starts_with("HTTP/1.1 200")),
                        "{got:?}"
                    );
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for next in &issued[1..] {
        assert_eq!(kept.ask(get("/")).await.status, 200);
        gateway.write("shop.pem", next.bundle());
        shows(&gateway, "shop.example", next).await;
    }
    let before = done.load(Ordering::Relaxed);
    eventually("traffic goes on", async || done.load(Ordering::Relaxed) > before + 8).await;
    stop.store(true, Ordering::Relaxed);
    for task in traffic {
        task.await.unwrap();
    }
    assert_eq!(kept.ask(get("/")).await.status, 200);
    gateway
        .metric_is("gateway_certificate_reloads_total", &[("result", "done")], 2.0)
        .await;
}

#[tokio::test]
async fn a_folder_reached_by_a_link_is_swapped_at_once() {
    // As Kubernetes mounts a secret: tls.crt → ..data/tls.crt, ..data → the newest folder.
    let authority = Authority::new();
    let (old, new) = (authority.issue(&["shop.example"]), authority.issue(&["shop.example"]));
    let mount = tempfile::tempdir().unwrap();
    let put = |folder: &str, issued: &Issued| {
        let folder = mount.path().join(folder);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("tls.crt"), issued.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), issued.key_pem()).unwrap();
    };
    put("..1", &old);
    symlink("..1", mount.path().join("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), mount.path().join(file)).unwrap();
    }
    let place = mount.path().display();
    let by_file = web(&format!("cert=\"{place}/tls.crt\" key=\"{place}/tls.key\""))
        .start()
        .await;
    let by_folder = web(&format!("cert-dir=\"{place}\"")).start().await;
    put("..2", &new);
    symlink("..2", mount.path().join("..next")).unwrap();
    std::fs::rename(mount.path().join("..next"), mount.path().join("..data")).unwrap();
    std::fs::remove_dir_all(mount.path().join("..1")).unwrap();
    shows(&by_file, "shop.example", &new).await;
    shows(&by_folder, "shop.example", &new).await;
}

#[tokio::test]
async fn a_changed_file_that_cannot_be_used_leaves_what_was_there() {
    let authority = Authority::new();
    let (a, b, next) = (
        authority.issue(&["a.example"]),
        authority.issue(&["b.example"]),
        authority.issue(&["b.example"]),
    );
    let gateway = web(r#"cert="a.pem" { cert "b.pem" }"#)
        .file("a.pem", a.bundle())
        .file("b.pem", b.bundle())
        .start()
        .await;
    gateway.write("a.pem", "half of a certif");
    gateway.write("b.pem", next.bundle());
    // What is wrong with one file is nothing to the other.
    shows(&gateway, "b.example", &next).await;
    shows(&gateway, "a.example", &a).await;
    gateway.says("a.pem: holds no certificate").await;
    gateway
        .metric_is("gateway_certificate_reloads_total", &[("result", "failed")], 1.0)
        .await;
    // And it is mended by the next one.
    let mended = authority.issue(&["a.example"]);
    gateway.write("a.pem", mended.bundle());
    shows(&gateway, "a.example", &mended).await;
    let output = gateway.output();
    assert_eq!(output.matches("a changed file cannot be used").count(), 1, "{output}");
}

#[tokio::test]
async fn a_renewed_certificate_does_not_wait_for_its_ocsp_response() {
    let authority = Authority::new();
    let (old, new) = (authority.issue(&["shop.example"]), authority.issue(&["shop.example"]));
    // One that is beside it and cannot be used is left out; one that is named has to be there, which `check` tells.
    let gateway = web(r#"cert="shop.pem""#)
        .file("shop.pem", old.bundle())
        .file("shop.pem.ocsp", "junk")
        .start()
        .await;
    shows(&gateway, "shop.example", &old).await;
    gateway.says("its certificate is shown without an OCSP response").await;
    gateway.write("shop.pem.ocsp", "other junk");
    gateway.write("shop.pem", new.bundle());
    shows(&gateway, "shop.example", &new).await;
}

#[tokio::test]
async fn files_come_to_a_folder_and_go() {
    let authority = Authority::new();
    let (a, b) = (authority.issue(&["a.example"]), authority.issue(&["b.example"]));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.pem"), a.bundle()).unwrap();
    let gateway = web(&format!("cert-dir=\"{}\"", folder.path().display())).start().await;
    shows(&gateway, "b.example", &a).await;
    std::fs::write(folder.path().join("b.pem"), b.bundle()).unwrap();
    shows(&gateway, "b.example", &b).await;
    std::fs::remove_file(folder.path().join("b.pem")).unwrap();
    shows(&gateway, "b.example", &a).await;
    // A folder with nothing in it is a mistake, and not an order.
    std::fs::remove_file(folder.path().join("a.pem")).unwrap();
    gateway.says("there is no certificate in this folder").await;
    shows(&gateway, "a.example", &a).await;
}

#[tokio::test]
async fn the_end_of_a_certificate_is_seen_coming() {
    let authority = Authority::new();
    let gateway = web(r#"cert="soon.pem" { cert "later.pem"; cert "gone.pem" }"#)
        .file("soon.pem", authority.issue_for(&["soon.example"], 2 * 86_400).bundle())
        .file(
            "later.pem",
            authority.issue_for(&["later.example"], 90 * 86_400).bundle(),
        )
        .file("gone.pem", authority.issue_for(&["gone.example"], -86_400).bundle())
        .start()
        .await;
    gateway.says("the certificate expires soon").await;
    gateway.says("the certificate has expired").await;
    let metrics = gateway.metrics().await;
    let left = |name| {
        let labels = [
            ("frontend", "web"),
            ("bind", "127.0.0.1:0"),
            ("name", name),
            ("key", "ecdsa"),
        ];
        metrics.get("gateway_certificate_expiry_seconds", &labels).unwrap()
    };
    for (name, expected) in [
        ("soon.example", 2.0 * 86_400.0),
        ("later.example", 90.0 * 86_400.0),
        ("gone.example", -86_400.0),
    ] {
        assert!((left(name) - expected).abs() < 120.0, "{name}: {}", left(name));
    }
    let output = gateway.output();
    assert!(!output.contains("later.example"), "{output}");
}

// ── in HTTP ───────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn an_idle_client_is_told_the_end_in_tls() {
    let shown = Authority::new().issue(&["shop.example"]);
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0" { tls cert="shop.pem" }
            timeout http-keep-alive="200ms"
            default-backend "app"
        }
        backend "app" { server "app-1" "echo" }
    "#,
    )
    .file("shop.pem", shown.bundle())
    .start()
    .await;
    let ended = async {
        let stream = TcpStream::connect(gateway.address("web")).await.unwrap();
        let name = ServerName::try_from("shop.example").unwrap();
        let mut stream = TlsConnector::from(anyone()).connect(name, stream).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: any.example\r\n\r\n")
            .await
            .unwrap();
        let mut bytes = Vec::new();
        // An end without the goodbye of TLS is an error here.
        stream.read_to_end(&mut bytes).await.map(|_| bytes)
    };
    let bytes = within(PATIENCE, "an end", ended).await.unwrap();
    assert!(
        bytes.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&bytes)
    );
}

#[tokio::test]
async fn browsers_are_told_to_come_back_in_tls() {
    let shown = Authority::new().issue(&["shop.example"]);
    let own =
        HttpServer::start(|_| gateway_tests::Answer::ok("own").header("Strict-Transport-Security", "max-age=5")).await;
    let text = |more: &str| {
        format!(
            r#"
        frontend "web" {{
            bind "127.0.0.1:0" {{ tls cert="shop.pem" }}
            bind "127.0.0.1:0"
            hsts max-age="1y" include-subdomains preload {more}
            acl "nobody" {{ header "x-nobody" }}
            deny unless="nobody"
            default-backend "app"
        }}
        frontend "own" {{
            bind "127.0.0.1:0" {{ tls cert="shop.pem" }}
            hsts max-age="60s" {more}
            default-backend "own"
        }}
        backend "app" {{ server "app-1" "echo" }}
        backend "own" {{ server "own-1" "@own" }}
    "#
        )
    };
    for (more, expected) in [("", "max-age=5"), ("override", "max-age=60")] {
        let gateway = Gateway::kdl(&text(more))
            .with("@own", own.address())
            .file("shop.pem", shown.bundle())
            .start()
            .await;
        // In what the gateway says itself, too.
        let got = ask(gateway.addresses("web")[0], "shop.example", &anyone())
            .await
            .unwrap();
        let lower = got.text.to_ascii_lowercase();
        assert!(lower.starts_with("http/1.1 403"), "{lower}");
        let field = "strict-transport-security: max-age=31536000; includesubdomains; preload\r\n";
        assert_eq!(lower.matches(field).count(), 1, "{lower}");
        let plain = Client::connect(gateway.addresses("web")[1]).await.ask(get("/")).await;
        assert_eq!(plain.headers.get("strict-transport-security"), None);
        let got = ask(gateway.address("own"), "shop.example", &anyone()).await.unwrap();
        let lower = got.text.to_ascii_lowercase();
        assert_eq!(lower.matches("strict-transport-security").count(), 1, "{lower}");
        assert!(
            lower.contains(&format!("strict-transport-security: {expected}\r\n")),
            "{lower}"
        );
    }
}

// ── TLS to servers, with the same nodes ───────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn servers_are_held_to_versions_and_revocation_lists() {
    let authority = Authority::new();
    let shown = authority.issue(&["app.internal"]);
    let server = |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let key = PrivateKeyDer::from_pem_slice(shown.key_pem().as_bytes()).unwrap();
        rustls::ServerConfig::builder_with_protocol_versions(versions)
            .with_no_client_auth()
            .with_single_cert(vec![shown.certificate().clone()], key)
            .unwrap()
    };
    let app = TlsServer::start(server(rustls::ALL_VERSIONS)).await;
    let old = TlsServer::start(server(&[&rustls::version::TLS12])).await;
    let text = r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; retries 0; server "app-1" "@app" { tls ca="ca.pem" sni="app.internal" @tls } }
    "#;
    let start = async |tls: &str, app: &TlsServer, crl: String| {
        Gateway::kdl(text)
            .with("@app", app.address())
            .with("@tls", tls)
            .file("ca.pem", authority.pem())
            .file("ca.crl", crl)
            .start()
            .await
    };
    let passes = async |gateway: &Gateway| {
        let mut client = TcpStream::connect(gateway.address("raw")).await.unwrap();
        let _ = client.write_all(b"hello").await;
        let _ = client.shutdown().await;
        let mut back = Vec::new();
        let _ = within(PATIENCE, "an answer", client.read_to_end(&mut back)).await;
        back.starts_with(b"hello")
    };
    let nobody = || authority.revocation_list(&[], 3600);
    for (tls, app, expected) in [
        (r#"min-version="1.3""#, &app, true),
        (r#"min-version="1.3""#, &old, false),
        (
            r#"max-version="1.2" { ciphers "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" }"#,
            &old,
            true,
        ),
        (
            r#"max-version="1.2" { ciphers "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" }"#,
            &old,
            false,
        ),
    ] {
        let gateway = start(tls, app, nobody()).await;
        assert_eq!(passes(&gateway).await, expected, "{tls}");
    }
    let gateway = start(r#"{ crl "ca.crl" }"#, &app, nobody()).await;
    assert!(passes(&gateway).await);
    // The list changes, and the server is not believed any more: no reload, no session that goes on.
    gateway.write("ca.crl", authority.revocation_list(&[&shown], 3600));
    gateway.says("files of TLS with the server have changed").await;
    assert!(!passes(&gateway).await);
    gateway.says("invalid peer certificate: Revoked").await;
}

//! The PROXY protocol: who the client is, as a balancer in front says it, and as servers are told.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway::proxy_protocol::{Addresses, Format, Header, Parsed, RawTlv, SSL_CLIENT, Ssl, Tlv, parse, ssl};
use gateway_tests::{Answer, Client, Gateway, HttpServer, Server, Wire, eventually, get, post};
use rcgen::{CertificateParams, Issuer, KeyPair};

const V2: Format = Format::V2 { checksum: true };

const WEB: &str = r#"
    frontend "web" {
        bind "127.0.0.1:0" accept-proxy
        forwarded-for
        default-backend "app"
    }
    backend "app" { server "app-1" "@app" }
"#;

const RAW: &str = r#"
    frontend "raw" { mode "tcp"; bind "127.0.0.1:0" accept-proxy; default-backend "app" }
    backend "app" { mode "tcp"; server "app-1" "@app" }
"#;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A header that says this client.
fn from(source: &str) -> Header {
    let destination = match source.starts_with('[') {
        true => "[2001:db8::7]:443",
        false => "198.51.100.7:443",
    };
    Header::proxied(
        Addresses::tcp(address(source), address(destination)),
        vec![Tlv::Other(RawTlv {
            kind: 0xea,
            value: b"\x01vpce-0123"[..].into(),
        })],
    )
}

/// Answers with the client that it was told of.
async fn telling() -> HttpServer {
    HttpServer::start(|request| Answer::ok(request.headers.get("x-forwarded-for").unwrap_or("nobody"))).await
}

#[tokio::test]
async fn the_header_says_who_the_client_is() {
    let app = telling().await;
    let gateway = Gateway::kdl(WEB).with("@app", app.address()).start().await;

    let cases = [
        ("192.0.2.1:4711", Format::V1, "192.0.2.1"),
        ("192.0.2.2:4712", V2, "192.0.2.2"),
        ("[2001:db8::3]:4713", Format::V1, "2001:db8::3"),
        ("[2001:db8::4]:4714", V2, "2001:db8::4"),
        // An IPv4 address, however it is written.
        ("[::ffff:192.0.2.5]:4715", V2, "192.0.2.5"),
    ];
    for (i, (client, format, ip)) in cases.into_iter().enumerate() {
        let mut wire = gateway.connect("web").await;
        wire.send(from(client).encode(format)).await;
        for _ in 0..2 {
            assert_eq!(wire.ask(get("/")).await.text(), ip);
        }
        let lines = gateway.access_log(2 * (i + 1)).await;
        let shown = match client.strip_prefix("[::ffff:") {
            Some(v4) => v4.replace(']', ""),
            None => client.to_owned(),
        };
        let is_its = |line: &&serde_json::Value| line["client"] == shown.as_str();
        assert_eq!(lines.iter().filter(is_its).count(), 2, "{shown}: {lines:?}");
    }
}

#[tokio::test]
async fn a_header_that_names_nobody_leaves_the_connection_as_it_is() {
    let app = telling().await;
    let gateway = Gateway::kdl(WEB).with("@app", app.address()).start().await;

    for header in [
        Header::Local.encode(V2),
        Header::Unknown.encode(V2),
        Header::Unknown.encode(Format::V1),
        Header::proxied(
            Addresses::Unix {
                source: [1; 108],
                destination: [2; 108],
            },
            Vec::new(),
        )
        .encode(V2),
    ] {
        let mut client = gateway.connect("web").await;
        client.send(header).await;
        assert_eq!(client.ask(get("/")).await.text(), "127.0.0.1");
    }
}

#[tokio::test]
async fn a_balancers_own_check_is_not_logged() {
    let app = telling().await;
    let gateway = Gateway::kdl(WEB).with("@app", app.address()).start().await;

    let mut check = gateway.connect("web").await;
    check.send(Header::Local.encode(V2)).await;
    check.half_close().await;
    check.closed().await;
    // The kernel gives the next connection to either worker: only lines of the first could be seen to miss.
    for _ in 0..8 {
        let mut client = gateway.connect("web").await;
        client.send(from("192.0.2.1:1").encode(V2)).await;
        client.ask(get("/")).await;
    }
    let lines = gateway.access_log(8).await;
    assert!(lines.iter().all(|line| line["status"] == 200), "{lines:?}");
    let errors = gateway.metrics().await.get("gateway_frontend_errors_total", &[]);
    assert_eq!(errors, None);
}

#[tokio::test]
async fn bytes_come_one_by_one_in_both_modes() {
    let echo = Server::echo().await;
    let app = telling().await;
    let gateway = Gateway::kdl(&format!(
        "{RAW}{}",
        WEB.replace("\"app\"", "\"web\"").replace("@app", "@web")
    ))
    .with("@app", echo.address())
    .with("@web", app.address())
    .start()
    .await;

    for format in [Format::V1, V2] {
        let header = from("192.0.2.1:4711").encode(format);
        let mut client = gateway.connect("raw").await;
        for byte in [&header[..], b"hello"].concat() {
            client.send([byte]).await;
        }
        assert_eq!(client.exactly(5).await, b"hello");

        let mut client = gateway.connect("web").await;
        for byte in [&header[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat() {
            client.send([byte]).await;
        }
        assert_eq!(client.response().await.text(), "192.0.2.1");
    }
    assert_eq!(echo.seen(0), b"hello");
}

#[tokio::test]
async fn everything_in_one_piece_is_told_apart() {
    let echo = Server::echo().await;
    let gateway = Gateway::kdl(RAW).with("@app", echo.address()).start().await;

    for format in [Format::V1, V2] {
        // What follows looks like another header, and is the client's.
        let follows = from("203.0.113.1:1").encode(format);
        let mut client = gateway.connect("raw").await;
        client
            .send([&from("192.0.2.1:4711").encode(format)[..], &follows].concat())
            .await;
        assert_eq!(client.exactly(follows.len()).await, follows);
    }
}

#[tokio::test]
async fn tls_comes_after_the_header() {
    let app = telling().await;
    let shop = certificate("shop.example");
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0" accept-proxy { tls cert="bundle.pem" }
            bind "127.0.0.1:0" {
                accept-proxy "127.0.0.2" timeout="1m"
                tls cert="bundle.pem"
            }
            forwarded-for
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("bundle.pem", &shop.bundle)
    .start()
    .await;

    let [every, some] = gateway.addresses("web") else {
        panic!("two binds")
    };
    for format in [Format::V1, V2] {
        let header = from("192.0.2.1:4711").encode(format);
        let mut client = Client::connect_tls_after(*every, &header, "shop.example", &shop.authority).await;
        assert_eq!(client.ask(get("/")).await.text(), "192.0.2.1");
    }
    // This one is not trusted, and sends none.
    let mut client = Client::connect_tls(*some, "shop.example", &shop.authority).await;
    assert_eq!(client.ask(get("/")).await.text(), "127.0.0.1");
}

#[tokio::test]
async fn what_is_no_header_ends_the_connection_and_reaches_no_server() {
    let echo = Server::echo().await;
    let gateway = Gateway::kdl(RAW).with("@app", echo.address()).start().await;
    let mut other = gateway.connect("raw").await;
    other.send(from("192.0.2.1:1").encode(V2)).await;

    let mut wrong = from("192.0.2.2:2").encode(V2);
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    let cases: [&[u8]; 9] = [
        b"hello",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\nhello",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\nhello",
        b"PROXY TCP4 ::1 ::1 1 2\r\nhello",
        &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        &wrong,
    ];
    for (i, bytes) in cases.into_iter().enumerate() {
        let mut client = gateway.connect("raw").await;
        client.send(bytes).await;
        assert!(client.ends().await, "{}", bytes.escape_ascii());
        // Others go on meanwhile.
        other.send([b'a']).await;
        assert_eq!(other.exactly(1).await, b"a");
        let refused = i as f64 + 1.0;
        let labels = [("frontend", "raw"), ("reason", "bad-proxy-header")];
        gateway
            .metric_is("gateway_frontend_errors_total", &labels, refused)
            .await;
    }
    assert_eq!(echo.connections(), 1);
    let lines = gateway.access_log(9).await;
    for line in &lines {
        assert_eq!(
            (&line["reason"], &line["termination"]),
            (&"bad-proxy-header".into(), &"PR".into())
        );
        assert!(line["server"].is_null(), "{line}");
    }
}

#[tokio::test]
async fn a_header_that_does_not_end_is_waited_for_in_vain() {
    let echo = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" {
            mode "tcp"
            access-log skip-null
            bind "127.0.0.1:0" { accept-proxy timeout="200ms" }
            default-backend "app"
        }
        backend "app" { mode "tcp"; server "app-1" "@app" }
    "#,
    )
    .with("@app", echo.address())
    .start()
    .await;

    let header = from("192.0.2.1:1").encode(V2);
    for bytes in [&b"PROXY TCP4 192.0.2.1"[..], b"\r\n\r", &header[..header.len() - 1]] {
        let mut client = gateway.connect("raw").await;
        client.send(bytes).await;
        assert!(client.ends().await, "{}", bytes.escape_ascii());
    }
    // Who sends nothing is sent away too, and no line is written.
    gateway.connect("raw").await.closed().await;
    assert_eq!(echo.connections(), 0);
    let labels = [("reason", "proxy-header-timeout")];
    gateway.metric_is("gateway_frontend_errors_total", &labels, 3.0).await;
    let lines = gateway.access_log(3).await;
    let waited = |line: &serde_json::Value| line["termination"] == "cR" && line["total_ms"].as_f64().unwrap() >= 200.0;
    assert!(lines.len() == 3 && lines.iter().all(waited), "{lines:?}");

    // In time, after all.
    let mut client = gateway.connect("raw").await;
    client.send(&header[..20]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.send(&header[20..]).await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
}

#[tokio::test]
async fn lines_begin_when_the_connection_was_accepted() {
    let echo = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0" accept-proxy; default-backend "raw" }
        frontend "web" { bind "127.0.0.1:0" accept-proxy; default-backend "web" }
        backend "raw" { mode "tcp"; server "raw-1" "@echo" }
        backend "web" { server "web-1" "@echo" }
    "#,
    )
    .with("@echo", echo.address())
    .start()
    .await;

    let wait = Duration::from_millis(300);
    for frontend in ["raw", "web"] {
        let mut client = gateway.connect(frontend).await;
        // A busy machine accepts a while after the client has connected: the wait begins when it has.
        let labels = [("frontend", frontend)];
        gateway
            .metric_is("gateway_frontend_current_connections", &labels, 1.0)
            .await;
        tokio::time::sleep(wait).await;
        client.send(from("192.0.2.1:1").encode(V2)).await;
        client.half_close().await;
        client.closed().await;
    }
    let lines = gateway.access_log(2).await;
    let waited = |line: &serde_json::Value| line["total_ms"].as_f64().unwrap() >= 300.0;
    assert!(lines.iter().all(waited), "{lines:?}");
}

#[tokio::test]
async fn a_connection_counts_and_is_waited_for_before_its_protocol_begins() {
    let echo = Server::echo().await;
    let gateway = Gateway::kdl(RAW).with("@app", echo.address()).start().await;
    let mut client = gateway.connect("raw").await;
    for (name, labels) in [
        ("gateway_current_connections", &[][..]),
        ("gateway_frontend_current_connections", &[("frontend", "raw")]),
    ] {
        gateway.metric_is(name, labels, 1.0).await;
    }
    gateway.terminate();
    gateway.says("draining").await;
    // A worker looks several times a second whether it is done.
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.send(from("192.0.2.1:1").encode(V2)).await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    drop(client);
    assert_eq!(gateway.stopped().await.code, Some(0));
}

#[tokio::test]
async fn only_trusted_sources_are_believed() {
    let app = telling().await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0" { accept-proxy "127.0.0.2" "127.0.1.0/24" }
            forwarded-for
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    let at = gateway.address("web");
    let header = from("192.0.2.1:4711").encode(Format::V1);
    for trusted in [[127, 0, 0, 2], [127, 0, 1, 9]] {
        let mut client = Client::connect_from(at, trusted).await;
        client.send(&header).await;
        assert_eq!(client.ask(get("/")).await.text(), "192.0.2.1");
        let mut client = Client::connect_from(at, trusted).await;
        client.send(get("/").bytes()).await;
        client.closed().await;
    }
    // For others it is as if nothing had been said: they send no header, and one that they send is no request.
    let mut client = Client::connect_from(at, [127, 0, 0, 3]).await;
    assert_eq!(client.ask(get("/")).await.text(), "127.0.0.3");
    let mut client = Client::connect_from(at, [127, 0, 0, 3]).await;
    client.send(&header).await;
    assert_eq!(client.response().await.status, 400);
}

#[tokio::test]
async fn acls_ask_about_the_client_of_the_header() {
    let (inside, outside) = (Server::greeting("inside").await, Server::greeting("outside").await);
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" {
            mode "tcp"
            bind "127.0.0.1:0" accept-proxy
            acl "office" { source "192.0.2.0/24" "2001:db8::/32" }
            use-backend "inside" if="office"
            default-backend "outside"
        }
        backend "inside" { mode "tcp"; server "s" "@inside" }
        backend "outside" { mode "tcp"; server "s" "@outside" }
    "#,
    )
    .with("@inside", inside.address())
    .with("@outside", outside.address())
    .start()
    .await;

    for (client, expected) in [
        ("192.0.2.200:1", "inside"),
        ("[2001:db8::1]:1", "inside"),
        ("203.0.113.1:1", "outside"),
    ] {
        let mut wire = gateway.connect("raw").await;
        wire.send(from(client).encode(V2)).await;
        assert_eq!(wire.exactly(expected.len()).await, expected.as_bytes(), "{client}");
    }
}

/// The headers that a server was told, in order, and their bytes.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Introduction>>>);

/// A header and its bytes.
type Introduction = (Header, Vec<u8>);

impl Told {
    async fn listen(&self, wire: &mut Wire) -> io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            match parse(&bytes).map_err(io::Error::other)? {
                Parsed::Incomplete { need } => bytes.extend(wire.exactly(need - bytes.len()).await?),
                Parsed::Complete { header, .. } => {
                    self.0.lock().unwrap().push((header, bytes));
                    return Ok(());
                }
            }
        }
    }

    fn headers(&self) -> Vec<Header> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .map(|(header, _)| header.clone())
            .collect()
    }

    /// Those that speak of a client.
    fn clients(&self) -> Vec<Header> {
        let mut headers = self.headers();
        headers.retain(|header| *header != Header::Local);
        headers
    }

    fn bytes(&self, i: usize) -> Vec<u8> {
        self.0.lock().unwrap()[i].1.clone()
    }
}

/// Wants a header, and then sends back what it gets.
async fn introduced_echo() -> (Server, Told) {
    let told = Told::default();
    let listening = told.clone();
    let server = Server::start(move |mut wire, _| {
        let told = listening.clone();
        async move {
            told.listen(&mut wire).await?;
            loop {
                let bytes = wire.some().await?;
                if bytes.is_empty() {
                    return Ok(());
                }
                wire.send(&bytes).await?;
            }
        }
    })
    .await;
    (server, told)
}

/// Wants a header, and then answers every request with the number of its connection. `/bye` is the last one of a connection.
async fn introduced_web() -> (Server, Told) {
    let told = Told::default();
    let listening = told.clone();
    let server = Server::start(move |mut wire, index| {
        let told = listening.clone();
        async move {
            told.listen(&mut wire).await?;
            loop {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.extend(wire.exactly(1).await?);
                }
                let body = index.to_string();
                let length = body.len();
                wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"))
                    .await?;
                if head.starts_with(b"GET /bye ") {
                    return Ok(());
                }
            }
        }
    })
    .await;
    (server, told)
}

#[tokio::test]
async fn a_server_is_told_the_client_in_tcp_mode() {
    for (version, format) in [("v1", Format::V1), ("v2", Format::V2 { checksum: false })] {
        let (app, told) = introduced_echo().await;
        let gateway = Gateway::kdl(
            r#"
            frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
            backend "app" { mode "tcp"; server "app-1" "@app" send-proxy="@version" }
        "#,
        )
        .with("@app", app.address())
        .with("@version", version)
        .start()
        .await;

        let mut client = Client::connect_from(gateway.address("raw"), [127, 0, 0, 9]).await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
        let expected = Header::proxied(Addresses::tcp(client.address(), gateway.address("raw")), Vec::new());
        assert_eq!(told.headers(), std::slice::from_ref(&expected));
        assert_eq!(told.bytes(0), expected.encode(format));
    }
}

#[tokio::test]
async fn what_a_balancer_in_front_said_goes_through_two_gateways() {
    let (app, told) = introduced_echo().await;
    let inner = Gateway::kdl(&RAW.replace("\"@app\"", "\"@app\" send-proxy=\"v2\""))
        .with("@app", app.address())
        .start()
        .await;
    let outer = Gateway::kdl(&RAW.replace("\"@app\"", "\"@app\" send-proxy=\"v2\" proxy-crc32c"))
        .with("@app", inner.address("raw"))
        .start()
        .await;

    let tlvs = vec![
        Tlv::Authority("shop.example".into()),
        Tlv::UniqueId(b"id-1"[..].into()),
        Tlv::Other(RawTlv {
            kind: 0xea,
            value: b"\x01vpce-0123"[..].into(),
        }),
        Tlv::Other(RawTlv {
            kind: 0xee,
            value: b"\x01\x02\x03\x04\x05"[..].into(),
        }),
        Tlv::Ssl(Ssl {
            client: SSL_CLIENT,
            verify: 1,
            details: vec![RawTlv {
                kind: ssl::VERSION,
                value: b"TLSv1.2"[..].into(),
            }],
        }),
    ];
    let ends = Addresses::tcp(address("[2001:db8::1]:4711"), address("[2001:db8::2]:443"));
    let header = Header::proxied(ends, tlvs);
    let mut client = outer.connect("raw").await;
    client.send(header.encode(V2)).await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    assert_eq!(told.headers(), [header]);
}

#[tokio::test]
async fn a_server_is_told_of_the_tls_that_ended_here() {
    let (app, told) = introduced_web().await;
    let shop = certificate("shop.example");
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0" { tls cert="bundle.pem" }; default-backend "app" }
        backend "app" { server "app-1" "@app" send-proxy="v2" proxy-crc32c }
    "#,
    )
    .with("@app", app.address())
    .file("bundle.pem", &shop.bundle)
    .start()
    .await;

    let mut client = Client::connect_tls(gateway.address("web"), "shop.example", &shop.authority).await;
    client.ask(get("/")).await;
    let Header::Proxied(proxied) = &told.headers()[0] else {
        panic!("{:?}", told.headers())
    };
    assert_eq!(
        proxied.addresses,
        Addresses::tcp(client.address(), gateway.address("web"))
    );
    let version = RawTlv {
        kind: ssl::VERSION,
        value: b"TLSv1.3"[..].into(),
    };
    assert_eq!(
        proxied.tlvs,
        [
            Tlv::Authority("shop.example".into()),
            Tlv::Ssl(Ssl {
                client: SSL_CLIENT,
                verify: 1,
                details: vec![version],
            }),
        ]
    );
    // A checksum, which was right, is at its end.
    assert_eq!(&told.bytes(0)[told.bytes(0).len() - 7..][..3], [3, 0, 4]);
}

#[tokio::test]
async fn a_connection_that_was_told_of_one_client_serves_no_other() {
    let (app, told) = introduced_web().await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" send-proxy="v1" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    let mut first = gateway.connect("web").await;
    assert_eq!(first.ask(get("/")).await.text(), "0");
    let mut second = gateway.connect("web").await;
    assert_eq!(second.ask(get("/")).await.text(), "1");
    // Each has its own, and keeps it.
    for _ in 0..3 {
        assert_eq!(first.ask(get("/")).await.text(), "0");
        assert_eq!(second.ask(post("/", "")).await.text(), "1");
    }
    // A server that closes it gets another.
    assert_eq!(first.ask(get("/bye")).await.text(), "0");
    assert_eq!(first.ask(get("/")).await.text(), "2");
    let ends = |client: &Client| Header::proxied(Addresses::tcp(client.address(), gateway.address("web")), Vec::new());
    assert_eq!(told.headers(), [ends(&first), ends(&second), ends(&first)]);
    // They end with their clients.
    assert_eq!(open_to(gateway.pid(), app.address()), 2);
    drop((first, second));
    let labels = [("server", "app-1")];
    gateway.metric_is("gateway_server_in_flight", &labels, 0.0).await;
    eventually("connections to the server end", async || {
        open_to(gateway.pid(), app.address()) == 0
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_was_told_of_a_client_ends_after_the_idle_timeout() {
    let (app, _) = introduced_web().await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; timeout http-keep-alive="5m"; default-backend "app" }
        backend "app" { pool idle-timeout="300ms"; server "app-1" "@app" send-proxy="v1" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    let mut client = gateway.connect("web").await;
    for turn in ["0", "1"] {
        assert_eq!(client.ask(get("/")).await.text(), turn);
        // The client is still there, and says nothing.
        eventually("the connection to the server ends", async || {
            open_to(gateway.pid(), app.address()) == 0
        })
        .await;
    }
}

/// Connections that a process has open to an address, by what Linux says of its descriptors and sockets.
fn open_to(pid: u32, to: SocketAddr) -> usize {
    let SocketAddr::V4(to) = to else { panic!("IPv4") };
    let hex = format!("{:08X}:{:04X}", u32::from_ne_bytes(to.ip().octets()), to.port());
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let inodes = table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields.get(2) == Some(&hex.as_str())).then(|| format!("socket:[{}]", fields[9]))
    });
    let inodes: Vec<_> = inodes.collect();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
        .count()
}

#[tokio::test]
async fn a_server_that_wants_a_header_passes_its_checks() {
    let (raw, told_raw) = introduced_echo().await;
    let (web, told_web) = introduced_web().await;
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "raw" }
        backend "raw" {
            mode "tcp"
            check "tcp" interval="50ms" rise=1 fall=1
            server "raw-1" "@raw" send-proxy="v1"
        }
        frontend "web" { bind "127.0.0.1:0"; default-backend "web" }
        backend "web" {
            check "http" interval="50ms" rise=1 fall=1 { expect status=200 }
            server "web-1" "@web" send-proxy="v2"
        }
    "#,
    )
    .with("@raw", raw.address())
    .with("@web", web.address())
    .start()
    .await;

    for server in ["raw-1", "web-1"] {
        let of = [("server", server)];
        let passed = [("server", server), ("result", "passed")];
        eventually("checks pass", async || {
            gateway.metrics().await.get("gateway_server_checks_total", &passed) >= Some(3.0)
        })
        .await;
        let failed = [("server", server), ("result", "failed")];
        let metrics = gateway.metrics().await;
        assert_eq!(metrics.get("gateway_server_checks_total", &failed).unwrap_or(0.0), 0.0);
        assert_eq!(metrics.get("gateway_server_up", &of), Some(1.0));
    }
    assert_eq!(told_web.clients(), []);
    eventually("the header of a check", async || !told_raw.headers().is_empty()).await;
    for header in told_raw.headers() {
        let Header::Proxied(proxied) = &header else {
            panic!("{header:?}")
        };
        let (source, destination) = proxied.addresses.as_tcp().unwrap();
        assert_eq!((source.ip(), destination), (raw.address().ip(), raw.address()));
    }
}

#[tokio::test]
async fn a_server_is_told_before_tls_begins() {
    // A gateway as the server, which wants a header and TLS after it.
    let app = telling().await;
    let shop = certificate("shop.example");
    let inner = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0" accept-proxy { tls cert="bundle.pem" }
            forwarded-for
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("bundle.pem", &shop.bundle)
    .start()
    .await;
    let outer = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" send-proxy="v2" { tls ca="ca.pem" sni="shop.example" } }
    "#,
    )
    .with("@app", inner.address("web"))
    .file("ca.pem", &shop.authority_pem)
    .start()
    .await;

    let mut client = Client::connect_from(outer.address("web"), [127, 0, 0, 5]).await;
    assert_eq!(client.ask(get("/")).await.text(), "127.0.0.5");
}

/// A certificate for a name, and the authority that says so.
struct Certificate {
    authority: rustls::pki_types::CertificateDer<'static>,
    authority_pem: String,
    /// With its key.
    bundle: String,
}

fn certificate(name: &str) -> Certificate {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    Certificate {
        authority: root.der().clone(),
        authority_pem: root.pem(),
        bundle: format!("{}{}", leaf.pem(), key.serialize_pem()),
    }
}

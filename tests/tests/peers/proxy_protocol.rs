//! The PROXY protocol as nginx, HAProxy and curl speak it, on either side of the gateway.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use gateway_tests::peer::{Peer, free_address, run};
use gateway_tests::tls::{Authority, Issued};
use gateway_tests::{Client, Gateway, HttpServer, Server, eventually, get};
use tempfile::TempDir;

// ── the gateway is told ───────────────────────────────────────────────────────────────────────────────────────────────

const ACCEPTING: &str = r#"
    frontend "raw" { mode "tcp"; bind "127.0.0.1:0" accept-proxy; default-backend "raw" }
    frontend "web" { bind "127.0.0.1:0" accept-proxy; forwarded-for; default-backend "web" }
    frontend "tls" { mode "tcp"; bind "127.0.0.1:0" accept-proxy { tls cert="bundle.pem" }; default-backend "raw" }
    backend "raw" { mode "tcp"; server "s" "@raw" }
    backend "web" { server "s" "@web" }
"#;

#[cfg_attr(not(feature = "peers"), ignore = "needs nginx and haproxy: --features peers")]
#[tokio::test]
async fn nginx_and_haproxy_tell_who_the_client_is() {
    let (raw, web) = (Server::echo().await, HttpServer::answering("hello").await);
    let issued = Authority::new().issue(&["one.example"]);
    let gateway = Gateway::kdl(ACCEPTING)
        .with("@raw", raw.address())
        .with("@web", web.address())
        .file("bundle.pem", issued.bundle())
        .start()
        .await;
    let (to_raw, to_web) = (gateway.address("raw"), gateway.address("web"));
    let nginx = Balancer::nginx(&[to_raw, to_web]);
    let haproxy = |option: &str| Balancer::haproxy(option, &[to_raw, to_web]);
    let balancers = [
        nginx,
        haproxy("send-proxy"),
        haproxy("send-proxy-v2"),
        haproxy("send-proxy-v2 proxy-v2-options crc32c,unique-id,authority,ssl"),
    ];

    for balancer in &balancers {
        let mut client = Client::connect_from(balancer.addresses[0], [127, 0, 0, 9]).await;
        let address = client.address();
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
        drop(client);
        logged(&gateway, "raw", address).await;

        let mut client = Client::connect_from(balancer.addresses[1], [127, 0, 0, 10]).await;
        let address = client.address();
        assert_eq!(client.ask(get("/").header("Connection", "close")).await.text(), "hello");
        assert_eq!(web.last().headers.get("x-forwarded-for"), Some("127.0.0.10"));
        logged(&gateway, "web", address).await;
    }
    let metrics = gateway.metrics().await;
    let errors = metrics.get("gateway_frontend_errors_total", &[("reason", "bad-proxy-header")]);
    assert_eq!(errors.unwrap_or(0.0), 0.0);
}

#[cfg_attr(not(feature = "peers"), ignore = "needs haproxy: --features peers")]
#[tokio::test]
async fn haproxys_checks_are_no_connections() {
    let (raw, web) = (Server::echo().await, HttpServer::answering("hello").await);
    let issued = Authority::new().issue(&["one.example"]);
    let gateway = Gateway::kdl(ACCEPTING)
        .with("@raw", raw.address())
        .with("@web", web.address())
        .file("bundle.pem", issued.bundle())
        .start()
        .await;
    let option = "send-proxy-v2 check check-send-proxy inter 50ms";
    let _haproxy = Balancer::haproxy(option, &[gateway.address("web")]);

    let labels = [("frontend", "web")];
    let checks = async || {
        let metrics = gateway.metrics().await;
        metrics.get("gateway_frontend_connections_total", &labels).unwrap()
    };
    eventually("ten checks", async || checks().await >= 10.0).await;
    // One that the harness has opened to see whether haproxy listens.
    let lines = gateway.access_log(1).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    let errors = gateway.metrics().await.get("gateway_frontend_errors_total", &labels);
    assert_eq!(errors.unwrap_or(0.0), 0.0);
}

#[cfg_attr(not(feature = "peers"), ignore = "needs curl: --features peers")]
#[tokio::test]
async fn curl_says_who_it_is_before_tls() {
    let web = HttpServer::answering("hello").await;
    let authority = Authority::new();
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0" accept-proxy { tls cert="bundle.pem" }; default-backend "web" }
        backend "web" { server "s" "@web" }
    "#,
    )
    .with("@web", web.address())
    .file("bundle.pem", authority.issue(&["one.example"]).bundle())
    .start()
    .await;
    let port = gateway.address("web").port();
    let curl = async |option: &str| {
        let mut command = Command::new("curl");
        command
            .args([
                "-sk",
                "--max-time",
                "20",
                "--resolve",
                &format!("one.example:{port}:127.0.0.1"),
            ])
            .args(["-w", " %{local_port}", option, &format!("https://one.example:{port}/")]);
        run(command, "", Duration::from_secs(30)).await
    };

    let answer = curl("--haproxy-protocol").await.ok();
    let port = answer.strip_prefix("hello ").unwrap();
    let lines = gateway.access_log(1).await;
    assert_eq!(lines[0]["client"], format!("127.0.0.1:{port}"));
    assert_eq!(lines[0]["tls"], true);
    // Without the header the connection is not taken.
    assert_ne!(curl("--no-haproxy-protocol").await.code, Some(0));
}

// ── the gateway tells ─────────────────────────────────────────────────────────────────────────────────────────────────

#[cfg_attr(not(feature = "peers"), ignore = "needs nginx and haproxy: --features peers")]
#[tokio::test]
async fn nginx_and_haproxy_are_told_who_the_client_is() {
    let receivers = [Receiver::nginx(None), Receiver::haproxy()];
    for receiver in &receivers {
        let question = match receiver.request {
            "" => String::new(),
            request => format!("send {request:?};"),
        };
        for (version, flag) in [("v1", ""), ("v2", ""), ("v2", "proxy-crc32c")] {
            let gateway = Gateway::kdl(
                r#"
                frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "raw" }
                frontend "web" { bind "127.0.0.1:0"; default-backend "web" }
                backend "raw" {
                    mode "tcp"
                    check "tcp" interval="1s" initial="down" { @question expect contains=":" }
                    server "s" "@raw" send-proxy="@version" @flag
                }
                backend "web" {
                    check "http" interval="1s" initial="down" { expect status=200 }
                    server "s" "@web" send-proxy="@version" @flag
                }
            "#,
            )
            .with("@question", &question)
            .with("@raw", receiver.raw)
            .with("@web", receiver.web)
            .with("@version", version)
            .with("@flag", flag)
            .start()
            .await;
            // Their checks pass, which are nobody's connections.
            for backend in ["raw", "web"] {
                gateway
                    .metric_is("gateway_server_up", &[("backend", backend)], 1.0)
                    .await;
            }
            for n in [9, 10] {
                let mut client = Client::connect_from(gateway.address("raw"), [127, 0, 0, n]).await;
                let told = format!("{} {}", client.address(), gateway.address("raw"));
                client.send(receiver.request).await;
                let answer = String::from_utf8(client.rest().await).unwrap();
                assert!(answer.ends_with(&told), "{version}: {answer:?} and not {told:?}");
                receiver.has_logged(client.address()).await;

                let mut client = Client::connect_from(gateway.address("web"), [127, 0, 0, n]).await;
                let told = format!("{} {}", client.address(), gateway.address("web"));
                assert_eq!(client.ask(get("/")).await.text(), told, "{version}");
                assert_eq!(client.ask(get("/")).await.text(), told, "{version}, again");
                receiver.has_logged(client.address()).await;
            }
        }
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs nginx: --features peers")]
#[tokio::test]
async fn the_header_goes_before_tls() {
    let authority = Authority::new();
    let receiver = Receiver::nginx(Some(&authority.issue(&["one.example"])));
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "web" }
        backend "web" {
            check "http" interval="1s" initial="down" { expect status=200 }
            server "s" "@web" send-proxy="v2" { tls ca="ca.pem" sni="one.example" }
        }
    "#,
    )
    .with("@web", receiver.web)
    .file("ca.pem", authority.pem())
    .start()
    .await;
    gateway.metric_is("gateway_server_up", &[], 1.0).await;

    let mut client = Client::connect_from(gateway.address("web"), [127, 0, 0, 9]).await;
    let told = format!("{} {}", client.address(), gateway.address("web"));
    assert_eq!(client.ask(get("/")).await.text(), told);
}

#[cfg_attr(not(feature = "peers"), ignore = "needs nginx and haproxy: --features peers")]
#[tokio::test]
async fn a_client_is_known_behind_nginx_the_gateway_and_haproxy() {
    let receiver = Receiver::haproxy();
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0" accept-proxy; default-backend "raw" }
        backend "raw" { mode "tcp"; server "s" "@raw" send-proxy="v2" }
    "#,
    )
    .with("@raw", receiver.raw)
    .start()
    .await;
    let nginx = Balancer::nginx(&[gateway.address("raw")]);

    let mut client = Client::connect_from(nginx.addresses[0], [127, 0, 0, 9]).await;
    let told = format!("{} {}", client.address(), nginx.addresses[0]);
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8(client.rest().await).unwrap();
    assert!(answer.ends_with(&told), "{answer:?} and not {told:?}");
}

#[cfg_attr(not(feature = "peers"), ignore = "needs haproxy: --features peers")]
#[tokio::test]
async fn haproxy_is_told_the_name_that_the_client_asked_for() {
    let authority = Authority::new();
    let receiver = Receiver::haproxy();
    let gateway = Gateway::kdl(
        r#"
        frontend "tls" { mode "tcp"; bind "127.0.0.1:0" { tls cert="bundle.pem"; alpn "http/1.1" }; default-backend "raw" }
        backend "raw" { mode "tcp"; server "s" "@raw" send-proxy="v2" }
    "#,
    )
    .with("@raw", receiver.raw)
    .file("bundle.pem", authority.issue(&["one.example"]).bundle())
    .start()
    .await;

    let mut client = Client::connect_tls(gateway.address("tls"), "one.example", authority.certificate()).await;
    client.send("GET /authority HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8(client.rest().await).unwrap();
    assert!(answer.ends_with("authority one.example"), "{answer:?}");
}

/// A program that takes the header and answers with the client and the address that it was told.
struct Receiver {
    raw: SocketAddr,
    web: SocketAddr,
    /// What has to be said to get that answer; nginx resets connections on which it is sent what it does not read.
    request: &'static str,
    log: PathBuf,
    _peer: Peer,
    _directory: TempDir,
}

impl Receiver {
    fn nginx(tls: Option<&Issued>) -> Self {
        const LOG: &str = "'$proxy_protocol_addr:$proxy_protocol_port'";
        let directory = tempfile::tempdir().unwrap();
        let (raw, web) = (free_address(), free_address());
        let log = directory.path().join("told.log");
        let tls = tls.map(|issued| {
            let file = directory.path().join("bundle.pem");
            std::fs::write(&file, issued.bundle()).unwrap();
            format!("ssl_certificate {0}; ssl_certificate_key {0};", file.display())
        });
        let ssl = if tls.is_some() { "ssl" } else { "" };
        let told =
            "'$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port'";
        let configuration = format!(
            "{STREAM}worker_processes 1;\nevents {{}}\n\
             stream {{ log_format told {LOG}; access_log {log} told; \
             server {{ listen {raw} proxy_protocol; return {told}; }} }}\n\
             http {{ log_format told {LOG}; access_log {log} told; default_type text/plain; {} \
             server {{ listen {web} {ssl} proxy_protocol; location / {{ return 200 {told}; }} }} }}",
            tls.unwrap_or_default(),
            log = log.display(),
        );
        Self {
            _peer: Peer::nginx(&[], directory.path(), &configuration, web),
            _directory: directory,
            request: "",
            raw,
            web,
            log,
        }
    }

    fn haproxy() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (raw, web) = (free_address(), free_address());
        let log = directory.path().join("told.log");
        let configuration = format!(
            "global\n  nbthread 1\n  log stdout format raw local0\ndefaults\n  mode http\n  log global\n  \
             log-format %ci:%cp\n  timeout client 20s\n  timeout http-keep-alive 20s\nfrontend f\n  \
             bind {raw} accept-proxy\n  bind {web} accept-proxy\n  \
             http-request return status 200 content-type text/plain lf-string 'authority %[fc_pp_authority]' \
             if {{ path /authority }}\n  \
             http-request return status 200 content-type text/plain \
             lf-string '%[src]:%[src_port] %[dst]:%[dst_port]'\n"
        );
        let output = File::create(&log).unwrap().into();
        Self {
            _peer: Peer::haproxy(&[], directory.path(), &configuration, output, web),
            _directory: directory,
            request: "GET / HTTP/1.0\r\n\r\n",
            raw,
            web,
            log,
        }
    }

    /// Waits until it has written this client to its log.
    async fn has_logged(&self, client: SocketAddr) {
        let client = client.to_string();
        eventually(&format!("{client} in {}", self.log.display()), async || {
            let log = std::fs::read_to_string(&self.log).unwrap();
            log.lines().any(|line| line == client)
        })
        .await;
    }
}

/// Waits for a connection of this client in the access log.
async fn logged(gateway: &Gateway, frontend: &str, client: SocketAddr) {
    let client = client.to_string();
    let what = format!("{client} in the log of {frontend}");
    eventually(&what, async || {
        let lines = gateway.access_lines();
        lines
            .iter()
            .any(|line| line["frontend"] == frontend && line["client"] == client)
    })
    .await;
}

/// A program that passes connections on, with a header, from each of its addresses to one of the gateway's.
struct Balancer {
    addresses: Vec<SocketAddr>,
    _peer: Peer,
    _directory: TempDir,
}

impl Balancer {
    fn nginx(to: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let addresses: Vec<_> = to.iter().map(|_| free_address()).collect();
        let pairs = addresses.iter().zip(to);
        let servers: String = pairs
            .map(|(from, to)| format!("server {{ listen {from}; proxy_pass {to}; proxy_protocol on; }}\n"))
            .collect();
        let configuration = format!("{STREAM}worker_processes 1;\nevents {{}}\nstream {{\n{servers}}}");
        Self {
            _peer: Peer::nginx(&[], directory.path(), &configuration, addresses[0]),
            _directory: directory,
            addresses,
        }
    }

    fn haproxy(option: &str, to: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let addresses: Vec<_> = to.iter().map(|_| free_address()).collect();
        let pairs = addresses.iter().zip(to).enumerate();
        let sections: String = pairs
            .map(|(n, (from, to))| format!("listen l{n}\n  bind {from}\n  server s {to} {option}\n"))
            .collect();
        let configuration = format!(
            "global\n  nbthread 1\ndefaults\n  mode tcp\n  unique-id-format %ci-%cp\n  timeout connect 5s\n  \
             timeout client 20s\n  timeout server 20s\n{sections}"
        );
        Self {
            _peer: Peer::haproxy(&[], directory.path(), &configuration, Stdio::null(), addresses[0]),
            _directory: directory,
            addresses,
        }
    }
}

/// Debian's nginx has this as a module.
const STREAM: &str = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n";

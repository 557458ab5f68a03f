//! The PROXY protocol as nginx, HAProxy and curl speak it, on either side of the gateway.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use gateway_tests::peer::{Peer, free_address, run};
use gateway_tests::tls::Authority;
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

//! TLS: servers that demand client certificates behind a gateway that decrypts nothing, one that ends TLS for servers that
//! have none, and one that speaks TLS to servers.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use gateway_tests::peer::{Peer, Ran, free_address, run};
use gateway_tests::{Gateway, Server, get};
use tempfile::TempDir;

use crate::authority::{Authority, Pair, word};
use crate::redis::{Redis, cli};

const THROUGH: &str = r#"
    frontend "tls" { mode "tcp"; bind "127.0.0.1:0"; default-backend "tls" }
    backend "tls" { mode "tcp"; check "tcp" interval="1s"; server "s" "@server" }
"#;

#[cfg_attr(not(feature = "peers"), ignore = "needs nginx and curl: --features peers")]
#[tokio::test]
async fn a_clients_certificate_reaches_nginx_intact() {
    let authority = Authority::new();
    let nginx = Nginx::start(&authority, "one.example");
    let client = authority.issue("client-7.example");
    let gateway = Gateway::kdl(THROUGH).with("@server", nginx.address).start().await;
    let address = gateway.address("tls");

    let shown = curl(&authority, "one.example", address, Some(&client)).await.ok();
    assert_eq!(
        shown,
        format!("one.example SUCCESS CN=client-7.example {}", escaped(&client))
    );
    let without = curl(&authority, "one.example", address, None).await.ok();
    assert!(without.contains("No required SSL certificate was sent"), "{without}");
    let elsewhere = Authority::new();
    let stranger = elsewhere.issue("client-7.example");
    let refused = curl(&authority, "one.example", address, Some(&stranger)).await.ok();
    assert!(refused.contains("The SSL certificate error"), "{refused}");
}

#[cfg_attr(not(feature = "peers"), ignore = "needs openssl: --features peers")]
#[tokio::test]
async fn openssl_talks_to_openssl_with_certificates_both_ways() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let (address, server) = (free_address(), authority.issue("one.example"));
    let mut command = Command::new("openssl");
    command
        .args([
            "s_server",
            "-quiet",
            "-rev",
            "-Verify",
            "1",
            "-verify_return_error",
            "-accept",
        ])
        .arg(address.to_string())
        .arg("-cert")
        .arg(&server.certificate)
        .arg("-key")
        .arg(&server.key)
        .arg("-CAfile")
        .arg(authority.ca());
    let _server = Peer::logging(&mut command, address, &directory.path().join("log"));
    let gateway = Gateway::kdl(THROUGH).with("@server", address).start().await;

    let client = authority.issue("client.example");
    for version in ["-tls1_2", "-tls1_3"] {
        let through = gateway.address("tls");
        let ran = s_client(&authority, through, &[version], Some(&client), "desserts\nCLOSE\n").await;
        assert!(ran.stdout.contains("stressed"), "{ran:?}");
        let ran = s_client(&authority, through, &[version], None, "desserts\nCLOSE\n").await;
        assert!(!ran.stdout.contains("stressed"), "{ran:?}");
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs nginx, curl and openssl: --features peers")]
#[tokio::test]
async fn two_names_on_one_port_reach_two_servers_with_the_clients_certificate() {
    let authority = Authority::new();
    let one = Nginx::start(&authority, "one.example");
    let two = Nginx::start(&authority, "two.example");
    let client = authority.issue("client-7.example");
    let gateway = Gateway::kdl(
        r#"
        frontend "tls" {
            mode "tcp"
            bind "127.0.0.1:0"
            acl "one" { sni "one.example" }
            acl "two" { sni "*.example" }
            use-backend "one" if="one"
            use-backend "two" if="two"
        }
        backend "one" { mode "tcp"; server "one" "@one" }
        backend "two" { mode "tcp"; server "two" "@two" }
    "#,
    )
    .with("@one", one.address)
    .with("@two", two.address)
    .start()
    .await;
    let address = gateway.address("tls");

    for name in ["one.example", "two.example"] {
        let shown = curl(&authority, name, address, Some(&client)).await.ok();
        assert_eq!(
            shown,
            format!("{name} SUCCESS CN=client-7.example {}", escaped(&client))
        );
        // Each verifies its clients itself, and so may clients their server: the handshake is between the two of them.
        let without = curl(&authority, name, address, None).await.ok();
        assert!(without.contains("No required SSL certificate was sent"), "{without}");
    }
    for version in ["-tls1_2", "-tls1_3"] {
        let request = "GET / HTTP/1.0\r\nHost: one.example\r\n\r\n";
        let ran = s_client(&authority, address, &[version], Some(&client), request).await;
        assert!(
            ran.stdout.contains("one.example SUCCESS CN=client-7.example"),
            "{ran:?}"
        );
    }
    // A name that leads nowhere.
    let nowhere = curl(&authority, "three.test", address, Some(&client)).await;
    assert!(matches!(nowhere.code, Some(35 | 56)), "{nowhere:?}");
}

#[cfg_attr(not(feature = "peers"), ignore = "needs openssl: --features peers")]
#[tokio::test]
async fn the_gateway_ends_tls_for_a_server_that_has_none() {
    let authority = Authority::new();
    let text = "0123456789abcdef\n".repeat(1 << 14);
    let size = text.len();
    // openssl does not wait for an answer when its input ends: the server closes.
    let app = Server::start(move |mut wire, _| async move {
        let all = wire.exactly(size).await?;
        wire.send(all).await
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        frontend "tls" { mode "tcp"; bind "127.0.0.1:0" { tls cert="@bundle" }; default-backend "app" }
        backend "app" { mode "tcp"; server "s" "@app" }
    "#,
    )
    .with("@bundle", word(&authority.issue("one.example").bundle))
    .with("@app", app.address())
    .start()
    .await;

    for version in ["-tls1_2", "-tls1_3"] {
        let ran = s_client(&authority, gateway.address("tls"), &[version], None, &text).await;
        assert_eq!(ran.stdout.len(), text.len(), "{}", ran.stderr);
        assert!(ran.stdout == text, "other bytes came back");
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs nginx and Redis: --features peers")]
#[tokio::test]
async fn tls_to_nginx_and_redis_with_certificates_both_ways() {
    let authority = Authority::new();
    let nginx = Nginx::start(&authority, "one.example");
    let redis = Redis::start(Some((&authority, "redis.example")));
    let client = authority.issue("the-gateway.example");
    let elsewhere = Authority::new();
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "web" }
        frontend "redis" { mode "tcp"; bind "127.0.0.1:0"; default-backend "redis" }
        frontend "unbelieved" { mode "tcp"; bind "127.0.0.1:0"; default-backend "unbelieved" }
        frontend "unshown" { mode "tcp"; bind "127.0.0.1:0"; default-backend "unshown" }
        backend "web" { server "nginx" "@nginx" { tls ca="@ca" sni="one.example" cert="@client" } }
        backend "redis" {
            mode "tcp"
            check "tcp" interval="1s"
            server "redis" "@redis" { tls ca="@ca" sni="redis.example" cert="@client" }
        }
        backend "unbelieved" { mode "tcp"; retries 0; server "redis" "@redis" { tls ca="@other" sni="redis.example" cert="@client" } }
        backend "unshown" { mode "tcp"; server "redis" "@redis" { tls ca="@ca" sni="redis.example" } }
    "#,
    )
    .with("@nginx", nginx.address)
    .with("@redis", redis.address)
    .with("@ca", word(&authority.ca()))
    .with("@other", word(&elsewhere.ca()))
    .with("@client", word(&client.bundle))
    .start()
    .await;

    let shown = gateway.ask("web", get("/")).await;
    assert_eq!(
        shown.text(),
        format!("one.example SUCCESS CN=the-gateway.example {}", escaped(&client))
    );
    let address = gateway.address("redis");
    let value = vec![b'x'; 1 << 20];
    assert_eq!(cli(address, &["-x", "set", "k"], &value).await.ok(), "OK\n");
    assert_eq!(cli(address, &["strlen", "k"], b"").await.ok(), "1048576\n");
    gateway
        .metric_is("gateway_server_up", &[("backend", "redis")], 1.0)
        .await;
    // Redis sends nothing to somebody who shows no certificate, and the gateway nothing to somebody it does not believe.
    for frontend in ["unbelieved", "unshown"] {
        let refused = cli(gateway.address(frontend), &["ping"], b"").await;
        assert!(!refused.stdout.contains("PONG"), "{frontend}: {refused:?}");
    }
    let labels = [("backend", "unbelieved")];
    gateway.metric_is("gateway_server_tls_errors_total", &labels, 1.0).await;
}

async fn curl(authority: &Authority, name: &str, address: SocketAddr, client: Option<&Pair>) -> Ran {
    let port = address.port();
    let mut command = Command::new("curl");
    command
        .args([
            "-sS",
            "--max-time",
            "20",
            "--resolve",
            &format!("{name}:{port}:127.0.0.1"),
            "--cacert",
        ])
        .arg(authority.ca());
    if let Some(pair) = client {
        command.arg("--cert").arg(&pair.certificate).arg("--key").arg(&pair.key);
    }
    command.arg(format!("https://{name}:{port}/"));
    run(command, "", Duration::from_secs(30)).await
}

async fn s_client(
    authority: &Authority,
    address: SocketAddr,
    arguments: &[&str],
    client: Option<&Pair>,
    input: &str,
) -> Ran {
    let mut command = Command::new("openssl");
    command
        .args([
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-servername",
            "one.example",
            "-connect",
        ])
        .arg(address.to_string())
        .arg("-CAfile")
        .arg(authority.ca());
    if let Some(pair) = client {
        command.arg("-cert").arg(&pair.certificate).arg("-key").arg(&pair.key);
    }
    command.args(arguments);
    run(command, input, Duration::from_secs(30)).await
}

/// A certificate as nginx writes it in one line.
fn escaped(pair: &Pair) -> String {
    let pem = std::fs::read_to_string(&pair.certificate).unwrap();
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    pem.replace('\r', "")
        .bytes()
        .map(|byte| match unreserved(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// nginx with TLS, which demands a certificate and says whose it got.
struct Nginx {
    address: SocketAddr,
    _peer: Peer,
    _directory: TempDir,
}

impl Nginx {
    fn start(authority: &Authority, name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let pair = authority.issue(name);
        let configuration = format!(
            "worker_processes 1;\nevents {{}}\nhttp {{ access_log off; default_type text/plain; server {{ \
             listen {address} ssl; ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; \
             ssl_verify_client on; ssl_protocols TLSv1.2 TLSv1.3; \
             location / {{ return 200 '{name} $ssl_client_verify $ssl_client_s_dn $ssl_client_escaped_cert'; }} }} }}",
            word(&pair.certificate),
            word(&pair.key),
            word(&authority.ca()),
        );
        Self {
            address,
            _peer: Peer::nginx(&[], directory.path(), &configuration, address),
            _directory: directory,
        }
    }
}

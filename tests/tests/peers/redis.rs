//! Redis: redis-cli and redis-benchmark in front.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use gateway_tests::Gateway;
use gateway_tests::peer::{Peer, Ran, free_address, run};
use tempfile::TempDir;

use crate::authority::{Authority, word};

#[cfg_attr(not(feature = "peers"), ignore = "needs Redis: --features peers")]
#[tokio::test]
async fn values_pipelines_and_many_connections_pass() {
    let redis = Redis::start(None);
    let gateway = Gateway::kdl(
        r#"
        frontend "redis" { mode "tcp"; bind "127.0.0.1:0"; default-backend "redis" }
        backend "redis" { mode "tcp"; check "tcp" interval="1s"; server "redis-1" "@redis" }
    "#,
    )
    .with("@redis", redis.address)
    .start()
    .await;
    let address = gateway.address("redis");

    // A value of 3 MB, with bytes of every kind.
    let value: Vec<u8> = (0..3 << 20).map(|n: u32| (n * 37 % 251) as u8).collect();
    assert_eq!(cli(address, &["-x", "set", "large"], &value).await.ok(), "OK\n");
    assert_eq!(cli(address, &["strlen", "large"], b"").await.ok(), "3145728\n");
    let script = "return redis.sha1hex(redis.call('get', KEYS[1]))";
    let through = cli(address, &["eval", script, "1", "large"], b"").await.ok();
    let direct = cli(redis.address, &["eval", script, "1", "large"], b"").await.ok();
    assert_eq!(through, direct);

    let report = benchmark(address, &["-c", "50", "-n", "20000", "-P", "8", "-t", "set,get", "-q"]).await;
    assert!(report.contains("GET: ") && !report.contains("rror"), "{report}");
    // A connection for each of these.
    let arguments = ["-c", "20", "-n", "2000", "-k", "0", "-t", "ping_mbulk", "-q"];
    let report = benchmark(address, &arguments).await;
    assert!(report.contains("PING") && !report.contains("rror"), "{report}");
}

async fn benchmark(address: SocketAddr, arguments: &[&str]) -> String {
    let mut command = Command::new("redis-benchmark");
    command.args(["-p", &address.port().to_string()]).args(arguments);
    run(command, "", Duration::from_secs(60)).await.ok()
}

#[cfg_attr(not(feature = "peers"), ignore = "needs Redis: --features peers")]
#[tokio::test]
async fn a_server_that_accepts_and_does_not_answer_is_down() {
    let (first, second) = (Redis::start(None), Redis::start(None));
    let gateway = Gateway::kdl(
        r#"
        frontend "redis" { mode "tcp"; bind "127.0.0.1:0"; default-backend "redis" }
        backend "redis" {
            mode "tcp"
            check "tcp" interval="1s" fast-interval="200ms" down-interval="200ms" rise=2 fall=2 initial="down" { send "PING\r\n"; expect prefix="+PONG\r\n" }
            server "redis-1" "@first"
            server "redis-2" "@second"
        }
    "#,
    )
    .with("@first", first.address)
    .with("@second", second.address)
    .start()
    .await;
    let address = gateway.address("redis");
    let up = async |value| {
        gateway
            .metric_is("gateway_server_up", &[("server", "redis-1")], value)
            .await;
    };
    up(1.0).await;
    gateway
        .metric_is("gateway_server_up", &[("server", "redis-2")], 1.0)
        .await;
    cli(first.address, &["set", "who", "first"], b"").await.ok();
    cli(second.address, &["set", "who", "second"], b"").await.ok();
    let who = async || cli(address, &["get", "who"], b"").await.ok().trim().to_owned();
    both_serve(&who).await;

    // The kernel goes on to accept for it.
    first.peer.freeze();
    up(0.0).await;
    gateway.says("no answer within").await;
    for _ in 0..10 {
        assert_eq!(who().await, "second");
    }

    first.peer.thaw();
    up(1.0).await;
    both_serve(&who).await;
}

#[cfg_attr(not(feature = "peers"), ignore = "needs Redis: --features peers")]
#[tokio::test]
async fn a_check_of_a_server_with_tls_speaks_tls() {
    let authority = Authority::new();
    let redis = Redis::start(Some((&authority, "redis.example")));
    let client = authority.issue("the-gateway.example");
    let gateway = Gateway::kdl(
        r#"
        frontend "redis" { mode "tcp"; bind "127.0.0.1:0"; default-backend "redis" }
        backend "redis" {
            mode "tcp"
            check "tcp" interval="1s" fast-interval="200ms" down-interval="200ms" rise=2 fall=2 initial="down" { send "PING\r\n"; expect prefix="+PONG\r\n" }
            server "redis-1" "@redis" { tls ca="@ca" sni="redis.example" cert="@client" }
        }
    "#,
    )
    .with("@redis", redis.address)
    .with("@ca", word(&authority.ca()))
    .with("@client", word(&client.bundle))
    .start()
    .await;
    crate::down_while_frozen(&gateway, "redis-1", &redis.peer).await;
}

/// In turn, and each worker has turns of its own.
async fn both_serve(who: &impl AsyncFn() -> String) {
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        seen.insert(who().await);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["first", "second"]);
}

pub async fn cli(address: SocketAddr, arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &address.port().to_string()]).args(arguments);
    run(command, input, Duration::from_secs(20)).await
}

pub struct Redis {
    pub address: SocketAddr,
    peer: Peer,
    _directory: TempDir,
}

impl Redis {
    /// With TLS when there is an authority and a name; then it demands a certificate of its clients.
    pub fn start(tls: Option<(&Authority, &str)>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(directory.path());
        let port = address.port().to_string();
        if let Some((authority, name)) = tls {
            let pair = authority.issue(name);
            command
                .args([
                    "--port",
                    "0",
                    "--tls-port",
                    &port,
                    "--tls-cert-file",
                    word(&pair.certificate),
                ])
                .args([
                    "--tls-key-file",
                    word(&pair.key),
                    "--tls-ca-cert-file",
                    word(&authority.ca()),
                ]);
        } else {
            command.args(["--port", &port]);
        }
        Self {
            address,
            peer: Peer::logging(&mut command, address, &directory.path().join("log")),
            _directory: directory,
        }
    }
}

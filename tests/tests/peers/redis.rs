//! Redis: redis-cli and redis-benchmark in front.

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
        backend "redis" { mode "tcp"; check "tcp" interval="200ms"; server "redis-1" "@redis" }
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

pub async fn cli(address: SocketAddr, arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &address.port().to_string()]).args(arguments);
    run(command, input, Duration::from_secs(20)).await
}

pub struct Redis {
    pub address: SocketAddr,
    _peer: Peer,
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
            _peer: Peer::logging(&mut command, address, &directory.path().join("log")),
            _directory: directory,
        }
    }
}

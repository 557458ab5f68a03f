//! MariaDB: a primary and its backup.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gateway_tests::Gateway;
use gateway_tests::peer::{Peer, Ran, free_address, run};
use tempfile::TempDir;

const PRIMARY_AND_BACKUP: &str = r##"
    frontend "sql" { mode "tcp"; bind "127.0.0.1:0"; default-backend "sql" }
    backend "sql" {
        mode "tcp"
        check "tcp" interval="1s" fast-interval="200ms" down-interval="200ms" rise=2 fall=2 initial="down" { expect regex=#"^(?s:.{3})\x00\x0a"# }
        server "primary" "@primary"
        server "replica" "@replica" backup
    }
"##;

#[cfg_attr(not(feature = "peers"), ignore = "needs MariaDB: --features peers")]
#[tokio::test]
async fn the_backup_serves_while_the_primary_is_away() {
    let primary = Database::create(1).await;
    let replica = Database::create(2).await;
    let gateway = Gateway::kdl(PRIMARY_AND_BACKUP)
        .with("@primary", primary.address)
        .with("@replica", replica.address)
        .start()
        .await;
    let address = gateway.address("sql");
    let up = async |server: &str, value: f64| {
        gateway
            .metric_is("gateway_server_up", &[("server", server)], value)
            .await;
    };
    up("primary", 1.0).await;
    up("replica", 1.0).await;
    for _ in 0..5 {
        assert_eq!(server_id(address).await, "1");
    }

    let stopped = primary.stop();
    up("primary", 0.0).await;
    for _ in 0..5 {
        assert_eq!(server_id(address).await, "2");
    }

    let primary = stopped.start();
    up("primary", 1.0).await;
    for _ in 0..5 {
        assert_eq!(server_id(address).await, "1");
    }

    // The greeting is the server's, and not the kernel's as the connection is.
    crate::down_while_frozen(&gateway, "primary", &primary.peer).await;
}

async fn server_id(address: SocketAddr) -> String {
    query(address, "select @@server_id").await.ok().trim().to_owned()
}

async fn query(address: SocketAddr, sql: &str) -> Ran {
    let mut command = Command::new("mariadb");
    command
        .args([
            "--no-defaults",
            "-h",
            "127.0.0.1",
            "-u",
            "root",
            "-N",
            "-B",
            "-e",
            sql,
            "-P",
        ])
        .arg(address.port().to_string());
    run(command, "", Duration::from_secs(30)).await
}

struct Database {
    address: SocketAddr,
    id: u32,
    peer: Peer,
    directory: TempDir,
}

struct Stopped {
    address: SocketAddr,
    id: u32,
    directory: TempDir,
}

impl Database {
    async fn create(id: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("mariadb-install-db");
        command
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])
            .arg(option("datadir", directory.path().join("data")))
            .args(as_root())
            .args(SMALL);
        run(command, "", Duration::from_secs(60)).await.ok();
        Stopped {
            address: free_address(),
            id,
            directory,
        }
        .start()
    }

    fn stop(self) -> Stopped {
        drop(self.peer);
        Stopped {
            address: self.address,
            id: self.id,
            directory: self.directory,
        }
    }
}

impl Stopped {
    fn start(self) -> Database {
        let mut command = Command::new("mariadbd");
        command
            .args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"])
            .arg(option("datadir", self.directory.path().join("data")))
            .arg(option("socket", self.directory.path().join("socket")))
            .arg(format!("--port={}", self.address.port()))
            .arg(format!("--server-id={}", self.id))
            .args(as_root())
            .args(SMALL);
        Database {
            peer: Peer::logging(&mut command, self.address, &self.directory.path().join("log")),
            address: self.address,
            id: self.id,
            directory: self.directory,
        }
    }
}

const SMALL: [&str; 3] = [
    "--innodb-log-file-size=4M",
    "--innodb-buffer-pool-size=8M",
    "--innodb-flush-log-at-trx-commit=0",
];

fn option(name: &str, path: impl AsRef<Path>) -> String {
    format!("--{name}={}", path.as_ref().display())
}

/// It runs as root only when told so.
fn as_root() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("--user=root")
}

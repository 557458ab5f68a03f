//! MariaDB: a primary and its backup.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use gateway_tests::peer::{Peer, Ran, free_address, run};
use gateway_tests::{Gateway, eventually};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};

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

    // New sessions go back to the primary, and one that the backup has stays there.
    let mut session = Session::open(address);
    let before = session.ask("select @@server_id, connection_id()");
    assert_eq!(before.split('\t').next(), Some("2"), "{before}");
    let primary = stopped.start();
    up("primary", 1.0).await;
    for _ in 0..5 {
        assert_eq!(server_id(address).await, "1");
    }
    assert_eq!(session.ask("select @@server_id, connection_id()"), before);
    let labels = [("server", "replica")];
    gateway.metric_is("gateway_server_in_flight", &labels, 1.0).await;
    drop(session);
    gateway.metric_is("gateway_server_in_flight", &labels, 0.0).await;

    // The greeting is the server's, and not the kernel's as the connection is.
    crate::down_while_frozen(&gateway, "primary", &primary.peer).await;
}

/// As docs/haproxy.md has it: what ends before somebody has logged in counts against the host.
#[cfg_attr(not(feature = "peers"), ignore = "needs MariaDB: --features peers")]
#[tokio::test]
async fn a_check_that_logs_in_is_no_error_of_a_client() {
    let database = Database::create(1).await;
    let greeting = r##"expect regex=#"^(?s:.{3})\x00\x0a"#"##;
    let login = |user: &str| {
        format!(
            r##"{greeting}
            send hex="@length0000 01 00820000 00000001 21 0000000000000000000000000000000000000000000000 {user}00 00"
            expect regex=#"^(?s:.{{3}})\x02\x00"#
            send hex="01000000 01""##
        )
        .replace("@length", &format!("{:02x}", 34 + user.len() / 2))
    };
    let aborted = async || {
        let sql =
            "select variable_value from information_schema.global_status where variable_name = 'aborted_connects'";
        query(database.address, sql).await.ok().trim().parse::<u64>().unwrap()
    };
    // check, and somebody whom the server does not know.
    for (steps, up, is_counted) in [
        (login("636865636b"), 1.0, false),
        (login("6e6f626f6479"), 0.0, true),
        (greeting.to_owned(), 1.0, true),
    ] {
        let before = aborted().await;
        let gateway = Gateway::kdl(&format!(
            r#"
            frontend "sql" {{ mode "tcp"; bind "127.0.0.1:0"; default-backend "sql" }}
            backend "sql" {{
                mode "tcp"
                check "tcp" interval="50ms" {{
                    {steps}
                }}
                server "s" "@server"
            }}
        "#
        ))
        .with("@server", database.address)
        .start()
        .await;
        eventually("some checks", async || {
            let metrics = gateway.metrics().await;
            let ended = ["passed", "failed"].map(|result| {
                let labels = [("server", "s"), ("result", result)];
                metrics.get("gateway_server_checks_total", &labels).unwrap_or(0.0)
            });
            ended[0] + ended[1] >= 5.0
        })
        .await;
        gateway.metric_is("gateway_server_up", &[], up).await;
        gateway.terminate();
        gateway.stopped().await;
        let grown = aborted().await - before;
        // The last check may have been cut off where it was.
        let is_as_expected = if is_counted { grown >= 4 } else { grown <= 1 };
        assert!(is_as_expected, "{steps}: {grown} more");
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs MariaDB: --features peers")]
#[tokio::test]
async fn mariadb_knows_its_clients_by_the_proxy_header() {
    let database = Database::create(1).await;
    for version in ["v1", "v2"] {
        let gateway = Gateway::kdl(
            r##"
            frontend "sql" { mode "tcp"; bind "127.0.0.1:0"; default-backend "sql" }
            backend "sql" {
                mode "tcp"
                check "tcp" interval="1s" initial="down" { expect regex=#"^(?s:.{3})\x00\x0a"# }
                server "s" "@server" send-proxy="@version"
            }
        "##,
        )
        .with("@server", database.address)
        .with("@version", version)
        .start()
        .await;
        gateway.metric_is("gateway_server_up", &[], 1.0).await;

        // Somebody who may come from there alone.
        let address = gateway.address("sql");
        let told = async |address| run(client(address, "told", "select user()"), "", Duration::from_secs(30)).await;
        let user = told(from([127, 0, 0, 9], address).await).await;
        assert_eq!(user.ok().trim(), "told@127.0.0.9", "{version}");
        let elsewhere = told(address).await;
        assert!(
            elsewhere.stderr.contains("'told'@'127.0.0.1'"),
            "{version}: {elsewhere:?}"
        );
    }
}

async fn server_id(address: SocketAddr) -> String {
    query(address, "select @@server_id").await.ok().trim().to_owned()
}

async fn query(address: SocketAddr, sql: &str) -> Ran {
    run(client(address, "root", sql), "", Duration::from_secs(30)).await
}

/// An address whose connections come to `to` from another, which the client cannot choose.
async fn from(source: [u8; 4], to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from((source, 0))).unwrap();
            let mut server = socket.connect(to).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    address
}

fn client(address: SocketAddr, user: &str, sql: &str) -> Command {
    let mut command = Command::new("mariadb");
    command
        .args([
            "--no-defaults",
            "-h",
            "127.0.0.1",
            "-u",
            user,
            "-N",
            "-B",
            "-e",
            sql,
            "-P",
        ])
        .arg(address.port().to_string());
    command
}

/// A client that is asked one thing after the other on one connection, and does not make another one by itself.
struct Session {
    client: Child,
    asked: ChildStdin,
    answers: Receiver<String>,
}

impl Session {
    fn open(address: SocketAddr) -> Self {
        let mut command = Command::new("mariadb");
        command
            .args(["--no-defaults", "--skip-reconnect", "-h", "127.0.0.1", "-u", "root"])
            .args(["-N", "-B", "-n", "-P"])
            .arg(address.port().to_string());
        let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (tell, answers) = channel();
        let lines = BufReader::new(client.stdout.take().unwrap()).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self {
            asked: client.stdin.take().unwrap(),
            client,
            answers,
        }
    }

    /// The one row of the answer.
    fn ask(&mut self, sql: &str) -> String {
        writeln!(self.asked, "{sql};").unwrap();
        self.answers.recv_timeout(Duration::from_secs(30)).unwrap()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
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
            .arg(option("tmpdir", directory.path()))
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
        let accounts = self.directory.path().join("accounts.sql");
        std::fs::write(
            &accounts,
            "create user if not exists 'told'@'127.0.0.9';\ncreate user if not exists 'check'@'%';\n",
        )
        .unwrap();
        let mut command = Command::new("mariadbd");
        command
            .args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"])
            .arg(option("datadir", self.directory.path().join("data")))
            .arg(option("tmpdir", self.directory.path()))
            .arg(option("socket", self.directory.path().join("socket")))
            .arg(option("init-file", accounts))
            // From there it takes connections with the header, and others.
            .arg("--proxy-protocol-networks=127.0.0.1")
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

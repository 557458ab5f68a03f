//! PostgreSQL: three servers behind leastconn, psql and pgbench in front.

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gateway_tests::peer::{Peer, Ran, free_address, run, unprivileged};
use gateway_tests::{Gateway, eventually};
use tempfile::TempDir;

/// SSLRequest, which every node answers that is alive, and the beginning of a session, for which it has to be ready: one that
/// is starting up says E.
const GROUP: &str = r#"
    frontend "sql" { mode "tcp"; bind "127.0.0.1:0"; default-backend "sql" }
    backend "sql" {
        mode "tcp"
        balance "leastconn"
        check "tcp" interval="1s" fast-interval="200ms" down-interval="200ms" rise=2 fall=2 initial="down" {
            send hex="00000008 04d2162f"
            expect regex="^[SN]"
            send hex="00000029 00030000 7573657200 706f73746772657300 646174616261736500 706f73746772657300 00"
            expect prefix="R"
        }
        server "pg-1" "@pg-1"
        server "pg-2" "@pg-2"
        server "pg-3" "@pg-3"
    }
"#;

#[cfg_attr(not(feature = "peers"), ignore = "needs PostgreSQL: --features peers")]
#[tokio::test]
async fn a_killed_node_fails_no_session_once_it_is_down() {
    let group = Group::start().await;
    let gateway = group.gateway(GROUP).await;
    let address = gateway.address("sql");
    let [first, second, third] = group.nodes;

    // Long sessions are spread evenly; they go on through everything that follows.
    let long = tokio::spawn(pgbench(address, "-S -c 6 -T 12 -R 300"));
    for server in ["pg-1", "pg-2", "pg-3"] {
        gateway
            .metric_is("gateway_server_in_flight", &[("server", server)], 2.0)
            .await;
    }
    let load = Load::start(address, 3);
    eventually("sessions on all three", async || load.ports().len() == 3).await;

    let (second_port, restart) = (second.address.port(), second.kill());
    gateway.metric_is("gateway_server_up", &[("server", "pg-2")], 0.0).await;
    let down = Instant::now();
    let given = sessions(&gateway, "pg-2").await;

    // New sessions only, each transaction on a connection of its own; pgbench fails if one cannot be opened.
    let fresh = pgbench(address, "-S -C -c 4 -t 100").await.ok();
    assert!(
        fresh.contains("number of transactions actually processed: 400/400"),
        "{fresh}"
    );
    assert_eq!(
        sessions(&gateway, "pg-2").await,
        given,
        "a server that is down gets nothing"
    );
    let done = load.since(down);
    assert!(done.len() > 20, "{} sessions in that time", done.len());
    assert!(done.iter().all(|session| session.port.is_ok()), "{done:?}");
    assert!(!done.iter().any(|session| session.port == Ok(second_port)), "{done:?}");

    // It comes back, with nothing open: leastconn gives it the next sessions.
    let second = restart.start();
    gateway.metric_is("gateway_server_up", &[("server", "pg-2")], 1.0).await;
    let up = Instant::now();
    eventually("sessions on the node that came back", async || {
        load.since(up).iter().any(|session| session.port == Ok(second_port))
    })
    .await;
    let done = load.stop().await;
    let failed: Vec<_> = done.iter().filter(|session| session.port.is_err()).collect();
    assert!(
        failed.iter().all(|session| session.began < down),
        "sessions failed that began after the node was seen to be down: {failed:?}"
    );

    // Of the six long sessions, those two ended that the dead node had.
    let long = long.await.unwrap();
    assert_eq!((long.code, aborted_clients(&long)), (Some(2), 2), "{long:?}");
    drop((first, second, third));
}

#[cfg_attr(not(feature = "peers"), ignore = "needs PostgreSQL: --features peers")]
#[tokio::test]
async fn pgbench_writes_and_copies_through_the_gateway() {
    let group = Group::start().await;
    let gateway = group.gateway(GROUP).await;
    let address = gateway.address("sql");

    // Read and write, with prepared statements, on one node per session.
    let written = pgbench(address, "-c 3 -t 100 -M prepared").await.ok();
    assert!(
        written.contains("number of transactions actually processed: 300/300"),
        "{written}"
    );
    assert!(written.contains("number of failed transactions: 0"), "{written}");
    // A result of about 20 MB, and as much back in.
    let dump = "copy (select n, md5(n::text) from generate_series(1, 500000) n) to stdout";
    let rows = psql(address, &["-c", dump], "").await.ok();
    assert_eq!(rows.lines().count(), 500_000);
    let load = "create temporary table t (n int, h text); copy t from stdin;";
    let script = format!("{load}\n{rows}\\.\nselect count(*) from t where h = md5(n::text);");
    let counted = psql(address, &["-q", "-f", "-"], &script).await.ok();
    assert_eq!(counted.trim(), "500000");
}

#[cfg_attr(not(feature = "peers"), ignore = "needs PostgreSQL: --features peers")]
#[tokio::test]
async fn a_node_that_does_not_answer_is_down() {
    let group = Group::start().await;
    let gateway = group.gateway(GROUP).await;
    crate::down_while_frozen(&gateway, "pg-3", &group.nodes[2].peer).await;
}

fn aborted_clients(ran: &Ran) -> usize {
    let lines = ran.stderr.lines();
    lines
        .filter(|line| line.contains("client") && line.contains("aborted"))
        .count()
}

async fn sessions(gateway: &Gateway, server: &str) -> f64 {
    let metrics = gateway.metrics().await;
    metrics
        .get("gateway_server_sessions_total", &[("server", server)])
        .unwrap()
}

async fn pgbench(address: SocketAddr, arguments: &str) -> Ran {
    let mut command = Command::new(bin("pgbench"));
    command
        .args(["-h", "127.0.0.1", "-U", "postgres", "-n", "-p"])
        .arg(address.port().to_string())
        .args(arguments.split(' '))
        .arg("postgres");
    run(command, "", Duration::from_secs(60)).await
}

async fn psql(address: SocketAddr, arguments: &[&str], input: &str) -> Ran {
    let mut command = Command::new(bin("psql"));
    command
        .args(["-X", "-A", "-t", "-h", "127.0.0.1", "-U", "postgres", "-p"])
        .arg(address.port().to_string())
        .args(arguments);
    run(command, input, Duration::from_secs(60)).await
}

/// A session that ended: the port of the node that served it, or what psql said.
#[derive(Debug, Clone)]
struct Session {
    began: Instant,
    port: Result<u16, String>,
}

/// Sessions one after the other, each with a connection of its own, until told to stop.
struct Load {
    done: Arc<Mutex<Vec<Session>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let (done, stop) = (Arc::<Mutex<Vec<Session>>>::default(), Arc::<AtomicBool>::default());
        let client = |_| {
            let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let ran = psql(address, &["-c", "show port"], "").await;
                    let port = ran.stdout.trim().parse().map_err(|_| ran.stderr);
                    done.lock().unwrap().push(Session { began, port });
                }
            })
        };
        Self {
            clients: (0..clients).map(client).collect(),
            done,
            stop,
        }
    }

    /// Sessions that began after this, as far as they have ended.
    fn since(&self, time: Instant) -> Vec<Session> {
        let done = self.done.lock().unwrap();
        done.iter().filter(|session| session.began > time).cloned().collect()
    }

    /// The nodes that have served.
    fn ports(&self) -> std::collections::BTreeSet<u16> {
        let done = self.done.lock().unwrap();
        done.iter().filter_map(|session| session.port.clone().ok()).collect()
    }

    async fn stop(self) -> Vec<Session> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        std::mem::take(&mut self.done.lock().unwrap())
    }
}

/// Three servers with the same tables.
struct Group {
    nodes: [Node; 3],
}

impl Group {
    async fn start() -> Self {
        let template = Folder::new();
        let initdb = "--no-sync --no-locale -A trust -E UTF8 -U postgres -D";
        let mut command = unprivileged("postgres", bin("initdb"));
        command.args(initdb.split(' ')).arg(template.data());
        run(command, "", Duration::from_secs(60)).await.ok();
        let first = Node::start(template);
        // It accepts before it is ready.
        eventually("PostgreSQL is ready", async || {
            psql(first.address, &["-c", "select 1"], "").await.code == Some(0)
        })
        .await;
        pgbench(first.address, "-i -q").await.ok();
        let stopped = first.stop();
        let copies = (stopped.folder.copy(), stopped.folder.copy());
        Self {
            nodes: [stopped.start(), Node::start(copies.0), Node::start(copies.1)],
        }
    }

    async fn gateway(&self, configuration: &str) -> Gateway {
        let mut builder = Gateway::kdl(configuration);
        for (n, node) in self.nodes.iter().enumerate() {
            builder = builder.with(&format!("@pg-{}", n + 1), node.address);
        }
        let gateway = builder.start().await;
        for server in ["pg-1", "pg-2", "pg-3"] {
            gateway.metric_is("gateway_server_up", &[("server", server)], 1.0).await;
        }
        gateway
    }
}

struct Node {
    address: SocketAddr,
    peer: Peer,
    folder: Folder,
}

impl Node {
    fn start(folder: Folder) -> Self {
        Stopped {
            address: free_address(),
            folder,
        }
        .start()
    }

    /// In order, with what it has written.
    fn stop(self) -> Stopped {
        drop(self.peer);
        Stopped {
            address: self.address,
            folder: self.folder,
        }
    }

    /// With everything that it runs, at once.
    fn kill(self) -> Stopped {
        self.peer.kill();
        Stopped {
            address: self.address,
            folder: self.folder,
        }
    }
}

struct Stopped {
    address: SocketAddr,
    folder: Folder,
}

impl Stopped {
    fn start(self) -> Node {
        let mut command = unprivileged("postgres", bin("postgres"));
        command
            .arg("-D")
            .arg(self.folder.data())
            .arg("-p")
            .arg(self.address.port().to_string());
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "shared_buffers=16MB",
            "max_connections=50",
        ] {
            command.arg("-c").arg(setting);
        }
        Node {
            peer: Peer::logging(&mut command, self.address, &self.folder.0.path().join("log")),
            address: self.address,
            folder: self.folder,
        }
    }
}

/// A server's folder, which the server's user owns.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            let (user, group) = user("postgres");
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        Self(directory)
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn copy(&self) -> Self {
        let copy = Self::new();
        let status = Command::new("cp").arg("-a").arg(self.data()).arg(copy.data()).status();
        assert!(status.unwrap().success());
        copy
    }
}

/// A user's id and group, from /etc/passwd.
fn user(name: &str) -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    found.unwrap_or_else(|| panic!("no user {name}; install it: apt-get install postgresql"))
}

/// A program of the newest PostgreSQL: Debian keeps the server's outside of PATH.
fn bin(program: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin").join(program));
    let newest = found.filter(|path| Path::exists(path)).max();
    newest.unwrap_or_else(|| panic!("no {program}; install it: apt-get install postgresql"))
}

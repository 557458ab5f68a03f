//! The process and its surroundings: where its log goes, whom it runs as, and what the service manager hears of it.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use gateway_tests::bomb::Bomb;
use gateway_tests::{Builder, Gateway, Server, eventually, guest, peer::pause, process};

/// A gateway in TCP mode before this server, with this `process`.
async fn gateway(process: &str, app: SocketAddr) -> Gateway {
    configured(process, app).start().await
}

fn configured(process: &str, app: SocketAddr) -> Builder {
    let text = format!(
        r#"
        process {{ {process} }}
        frontend "raw" {{ mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }}
        backend "app" {{ mode "tcp"; server "app-1" "@app" }}
    "#
    );
    Gateway::kdl(&text).with("@app", app)
}

/// A connection that is served and ends.
async fn session(gateway: &Gateway) {
    assert_eq!(gateway.connect("raw").await.rest().await, b"hello");
}

async fn greeter() -> Server {
    Server::start(|mut wire, _| async move {
        wire.send("hello").await?;
        wire.half_close().await?;
        wire.rest().await.map(drop)
    })
    .await
}

/// Messages as they come in, from a thread that reads them.
struct Inbox(Receiver<String>);

impl Inbox {
    fn datagrams(mut receive: impl FnMut(&mut [u8]) -> std::io::Result<usize> + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(n) = receive(&mut buffer) {
                let text = String::from_utf8(buffer[..n].to_vec()).unwrap();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// A syslog socket at this path.
    fn unix(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        Self::datagrams(move |buffer| socket.recv(buffer))
    }

    /// Frames of one connection to this listener: RFC 6587's octet counting.
    fn frames(listener: TcpListener) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                loop {
                    let mut length = Vec::new();
                    if stream.read_until(b' ', &mut length).unwrap_or(0) == 0 {
                        break;
                    }
                    let length: usize = String::from_utf8(length).unwrap().trim_end().parse().unwrap();
                    let mut message = vec![0; length];
                    if stream.read_exact(&mut message).is_err() {
                        break;
                    }
                    if sender.send(String::from_utf8(message).unwrap()).is_err() {
                        return;
                    }
                }
            }
        });
        Self(receiver)
    }

    /// Waits for a message with this in it.
    async fn with(&self, text: &str) -> String {
        let mut found = None;
        eventually(&format!("a message with {text:?}"), async || {
            while found.is_none()
                && let Ok(message) = self.0.try_recv()
            {
                found = message.contains(text).then_some(message);
            }
            found.is_some()
        })
        .await;
        found.unwrap()
    }
}

/// The header's fields and the message: PRI, VERSION, TIMESTAMP, HOSTNAME, APP-NAME, PROCID, MSGID, SD, MSG.
fn fields(message: &str) -> Vec<&str> {
    message.splitn(8, ' ').collect()
}

#[tokio::test]
async fn lines_and_events_go_to_the_syslog_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let inbox = Inbox::unix(&path);
    let app = greeter().await;
    let gateway = gateway(
        &format!(
            "workers 1; log \"unix://{}\" facility=\"local3\" syslog=\"rfc5424\"",
            path.display()
        ),
        app.address(),
    )
    .await;
    session(&gateway).await;

    let line = inbox.with(" raw app/app-1 ").await;
    let header = fields(&line);
    // local3 is 19; access lines are info, 6.
    assert_eq!(header[0], "<158>1", "{line}");
    assert!(header[1].ends_with('Z') && header[1].contains('T'), "{line}");
    assert_eq!(header[2], rustix::system::uname().nodename().to_str().unwrap());
    assert_eq!((header[3], header[4]), ("gateway", &*gateway.pid().to_string()));
    assert_eq!((header[5], header[6]), ("-", "-"));
    assert!(header[7].starts_with("127.0.0.1:"), "{line}");
    assert!(!line.contains('\n'));

    gateway.terminate();
    let event = inbox.with("draining").await;
    assert!(event.starts_with("<158>1 "), "{event}");
    assert!(fields(&event)[7].starts_with("draining for up to "), "{event}");
    assert!(!gateway.output().contains("draining"), "events go to the log only");
}

#[tokio::test]
async fn lines_go_to_the_syslog_socket_as_programs_commonly_write_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let inbox = Inbox::unix(&path);
    let app = greeter().await;
    let log = format!("unix://{}", path.display());
    let gateway = gateway(&format!("workers 1; log \"{log}\" facility=\"local3\""), app.address()).await;
    session(&gateway).await;

    let line = inbox.with(" raw app/app-1 ").await;
    // `<158>Feb  6 12:14:14 gateway[4711]: 127.0.0.1:5 …`: no name of the host, as syslog(3) has none.
    let (date, message) = line.split_at("<158>Feb  6 12:14:14 ".len());
    assert!(date.starts_with("<158>") && date.ends_with(' '), "{line}");
    let origin = format!("gateway[{}]: 127.0.0.1:", gateway.pid());
    assert!(message.starts_with(&origin), "{line}");
}

#[tokio::test]
async fn events_have_their_severity() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = socket.local_addr().unwrap();
    let inbox = Inbox::datagrams(move |buffer| socket.recv(buffer));
    let gateway = Gateway::kdl(&format!(
        r#"
        process {{ log "udp://{target}" format="json" }}
        frontend "raw" {{ mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }}
        backend "app" {{ mode "tcp"; server "app-1" "127.0.0.1:1"; check "tcp" interval="20ms" fall=1 }}
    "#
    ))
    .start()
    .await;
    gateway.metric_is("gateway_server_up", &[], 0.0).await;
    let event = inbox.with("\"level\":\"warn\"").await;
    // local0 is 16; warning is 4.
    assert!(event.starts_with("<132>1 "), "{event}");
    let value: serde_json::Value = serde_json::from_str(fields(&event)[7]).unwrap();
    assert_eq!(value["server"], "app-1", "{event}");
}

#[tokio::test]
async fn a_syslog_socket_that_is_made_anew_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let app = greeter().await;
    // Not there at the start: said once, and no reason not to serve.
    let gateway = gateway(&format!("workers 1; log \"unix://{}\"", path.display()), app.address()).await;
    session(&gateway).await;
    gateway.says("lines wait for it").await;

    let first = UnixDatagram::bind(&path).unwrap();
    first.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut heard = || {
        let n = first.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let line = heard();
    assert!(line.contains(" raw app/app-1 "), "{line}");
    // The last that is on its way: nothing is sent while there is no socket, or that would be said a second time.
    let event = heard();
    assert!(event.contains("is there again"), "{event}");

    drop(first);
    std::fs::remove_file(&path).unwrap();
    let second = Inbox::unix(&path);
    session(&gateway).await;
    second.with(" raw app/app-1 ").await;
    assert_eq!(gateway.output().matches("lines wait for it").count(), 1);
}

#[tokio::test]
async fn lines_over_tcp_survive_a_restart_of_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let app = greeter().await;
    let gateway = gateway(&format!("workers 1; log \"tcp://{target}\""), app.address()).await;
    session(&gateway).await;
    let (mut stream, _) = listener.accept().unwrap();
    let mut start = [0; 64];
    stream.read_exact(&mut start).unwrap();
    let text = String::from_utf8_lossy(&start).into_owned();
    assert!(text.split_once(' ').unwrap().1.starts_with("<134>1 "), "{text}");
    // The server goes away, and lines are written meanwhile.
    drop((stream, listener));
    session(&gateway).await;
    gateway.says("lines wait for it").await;
    session(&gateway).await;

    let listener = TcpListener::bind(target).unwrap();
    let inbox = Inbox::frames(listener);
    inbox.with(" raw app/app-1 ").await;
    inbox.with(" raw app/app-1 ").await;
    gateway.metric_is("gateway_log_lines_dropped_total", &[], 0.0).await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let app = greeter().await;
    // Refused connections are many and short, and each is a line.
    let text = format!(
        r#"
        process {{ workers 1; log "tcp://{target}" }}
        frontend "raw" {{ mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }}
        frontend "noise" {{ mode "http"; bind "127.0.0.1:0"; deny }}
        backend "app" {{ mode "tcp"; server "app-1" "@app" }}
    "#
    );
    let gateway = Gateway::kdl(&text).with("@app", app.address()).start().await;
    session(&gateway).await;
    // Accepted and never read.
    let (_stream, _) = listener.accept().unwrap();
    let address = gateway.address("noise");
    let flood = std::thread::spawn(move || {
        // Lines of 8 KB fill the socket's buffers and the queue.
        let request = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(8_000));
        for _ in 0..10 {
            #[allow(clippy::disallowed_methods, reason = "no worker here")]
            let mut stream = TcpStream::connect(address).unwrap();
            let mut answer = vec![0; 1 << 16];
            for _ in 0..200 {
                use std::io::Write;
                stream.write_all(request.as_bytes()).unwrap();
                let n = stream.read(&mut answer).unwrap();
                assert!(answer[..n].starts_with(b"HTTP/1.1 403"));
            }
        }
    });
    while !flood.is_finished() {
        session(&gateway).await;
        pause(Duration::from_millis(5));
    }
    flood.join().unwrap();
    eventually("dropped lines are counted", async || {
        let metrics = gateway.metrics().await;
        metrics.get("gateway_log_lines_dropped_total", &[("reason", "queue-full")]) > Some(0.0)
    })
    .await;
    session(&gateway).await;
}

/// Fields of every thread of a process, from /proc.
fn threads(pid: u32, field: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().to_owned()
    };
    tasks.map(status).collect()
}

const NOBODY: &str = "65534\t65534\t65534\t65534";

#[tokio::test]
async fn root_is_given_up_for_good() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let pid_file = outside.path().join("gateway.pid");
    let app = greeter().await;
    let process = format!(
        "workers 3; user \"nobody\" group=\"65534\"; chroot {:?}; pid-file {pid_file:?}; log \"stdout\" format=\"json\"",
        root.path()
    );
    // It has groups to give up.
    let gateway = configured(&process, app.address())
        .through(&["setpriv", "--groups=1,2", "--"])
        .start()
        .await;
    session(&gateway).await;

    let pid = gateway.pid();
    for (field, value) in [
        ("Uid:", NOBODY),
        ("Gid:", NOBODY),
        ("Groups:", ""),
        ("CapEff:", "0000000000000000"),
    ] {
        let found = threads(pid, field);
        // The main thread, the log's, and the workers.
        assert!(found.len() >= 5, "{found:?}");
        assert!(found.iter().all(|found| found == value), "{field} {found:?}");
    }
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/root")).unwrap(), root.path());
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), root.path());
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), format!("{pid}\n"));
    // Nothing of `/proc` is there any more, and all of it is known.
    let metrics = gateway.metrics().await;
    let at_least = [
        ("process_cpu_seconds_total", 0.001),
        ("process_open_fds", 5.0),
        ("process_max_fds", 5.0),
        ("process_virtual_memory_bytes", 1e6),
        ("process_resident_memory_bytes", 1e6),
        ("process_start_time_seconds", 1.7e9),
        ("process_threads", 5.0),
    ];
    for (name, least) in at_least {
        assert!(metrics.get(name, &[]).is_some_and(|value| value >= least), "{name}");
    }
    let there = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as f64;
    let known = metrics.get("process_open_fds", &[]).unwrap();
    // Connections come and go.
    assert!((known - there).abs() < 10.0, "{known} and not {there}");

    let process = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
    gateway.says("not there in the new root after `chroot`").await;
    session(&gateway).await;

    gateway.terminate();
    assert_eq!(gateway.stopped().await.code, Some(0));
}

#[tokio::test]
async fn files_in_the_new_root_go_at_the_end() {
    let root = tempfile::tempdir().unwrap();
    // Its user may look into it, and take files away from a folder in it.
    let all = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(root.path(), all(0o755)).unwrap();
    let run = root.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::set_permissions(&run, all(0o777)).unwrap();
    // The path leads there by a link.
    let outside = tempfile::tempdir().unwrap();
    let link = outside.path().join("link");
    std::os::unix::fs::symlink(&run, &link).unwrap();
    let app = greeter().await;
    let text = r#"
        process {
            user "nobody"
            chroot "@root"
            pid-file "@link/gateway.pid"
            admin "@link/admin.sock"
        }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; bind "unix:@link/app.sock"; default-backend "app" }
        backend "app" { mode "tcp"; server "app-1" "@app" }
    "#;
    let gateway = Gateway::kdl(text)
        .with("@root", root.path().display())
        .with("@link", link.display())
        .with("@app", app.address())
        .start()
        .await;
    session(&gateway).await;
    for file in ["gateway.pid", "admin.sock", "app.sock"] {
        assert!(run.join(file).exists(), "{file}");
    }
    gateway.terminate();
    assert_eq!(gateway.stopped().await.code, Some(0));
    assert_eq!(std::fs::read_dir(&run).unwrap().count(), 0);
}

#[tokio::test]
async fn the_users_own_group_is_taken_and_the_pid_file_removed() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("gateway.pid");
    // Anybody may remove it.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let app = greeter().await;
    let gateway = gateway(&format!("user \"nobody\"; pid-file {pid_file:?}"), app.address()).await;
    session(&gateway).await;
    assert!(threads(gateway.pid(), "Gid:").iter().all(|gid| gid == NOBODY));
    assert!(pid_file.exists());
    gateway.terminate();
    assert_eq!(gateway.stopped().await.code, Some(0));
    assert!(!pid_file.exists());
}

#[tokio::test]
async fn the_admin_socket_outlives_the_giving_up_of_root() {
    let folder = tempfile::tempdir().unwrap();
    // Anybody may remove the socket at the end.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let socket = folder.path().join("admin.sock");
    let app = greeter().await;
    let gateway = gateway(
        &format!("user \"nobody\"; admin {:?} mode=\"600\"", socket.display().to_string()),
        app.address(),
    )
    .await;
    assert!(threads(gateway.pid(), "Uid:").iter().all(|uid| uid == NOBODY));

    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    std::io::Write::write_all(&mut stream, b"show info\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(&format!("Pid: {}\n", gateway.pid())), "{answer}");

    gateway.terminate();
    assert_eq!(gateway.stopped().await.code, Some(0));
    assert!(!socket.exists());
}

const WEB: &str = r#"
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { server "app-1" "echo" }
"#;

#[tokio::test]
async fn who_and_where_to_is_looked_up_by_check_and_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let with = |process: &str| Gateway::kdl(&format!("process {{ {process} }}{WEB}"));
    for (process, said) in [
        (
            "user \"nobody-at-all\"".to_owned(),
            "there is no user \"nobody-at-all\"",
        ),
        (
            "user \"nobody\" group=\"nogroup-at-all\"".to_owned(),
            "there is no group \"nogroup-at-all\"",
        ),
        ("user \"root\"".to_owned(), "user \"root\" is root"),
        (format!("user \"nobody\"; chroot {:?}", file.path()), "is not a folder"),
        ("log \"/nowhere/at/all/gateway.log\"".to_owned(), "cannot be opened"),
    ] {
        let checked = with(&process).check(&[]);
        assert_eq!(checked.code, Some(1), "{process}: {}", checked.stdout);
        assert!(checked.stdout.contains(said), "{process}: {}", checked.stdout);
        assert!(checked.stdout.contains("config.kdl:"), "{process}: {}", checked.stdout);
        let refused = with(&process).refused().await;
        assert_eq!(refused.code, Some(1), "{process}");
        assert!(refused.output.contains(said), "{process}: {}", refused.output);
    }
}

#[tokio::test]
async fn root_may_check_what_another_user_will_run() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    std::fs::DirBuilder::new().mode(0o700).create(&cache).unwrap();
    std::os::unix::fs::chown(&cache, Some(65534), Some(65534)).unwrap();
    let config = format!(
        r#"
        process {{ compile-cache {cache:?} }}
        frontend "web" {{ bind "127.0.0.1:0"; acl "inner" {{ path-prefix "/inner" }}; deny if="inner"; default-backend "app" }}
        backend "app" {{ server "app-1" "echo" }}
    "#
    );
    let checked = Gateway::kdl(&config).check(&[]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert_eq!(
        std::fs::read_dir(&cache).unwrap().count(),
        0,
        "something was left there"
    );
    // To run what lies there is another matter.
    let refused = Gateway::kdl(&config).refused().await;
    assert!(
        refused.output.contains("it belongs to user 65534"),
        "{}",
        refused.output
    );
}

#[tokio::test]
async fn who_is_not_root_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let (program, config) = (folder.path().join("gateway"), folder.path().join("config.kdl"));
    std::fs::copy(gateway_tests::command().get_program(), &program).unwrap();
    std::fs::write(&config, format!("process {{ user \"daemon\" }}{WEB}")).unwrap();
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(&program)
        .arg("run")
        .arg("-c")
        .arg(&config)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("`user` needs root"), "{said}");
    assert!(said.contains("config.kdl:1:"), "{said}");
}

/// Runs the gateway with few descriptors, which it cannot raise.
const FEW: [&str; 5] = [
    "setpriv",
    "--bounding-set=-sys_resource",
    "sh",
    "-c",
    "ulimit -n 500; exec \"$0\" \"$@\"",
];

#[tokio::test]
async fn connections_that_no_descriptors_are_left_for_are_refused_with_the_reason() {
    let many = Gateway::kdl(&format!("process {{ workers 1; max-connections 5000 }}{WEB}"));
    let refused = many.through(&FEW).refused().await;
    assert_eq!(refused.code, Some(1));
    for said in [
        "5000 connections take ",
        "the process may have 500 of them",
        "write at most ",
        "config.kdl:",
    ] {
        assert!(refused.output.contains(said), "{}", refused.output);
    }

    // Two files for each, one for a connection to a server that idles, and the two ends of a pipe.
    let takes = refused.output.split("5000 connections take ").nth(1).unwrap();
    let takes: usize = takes.split(' ').next().unwrap().parse().unwrap();
    assert!(takes > 10_000 + 512 + 512, "{}", refused.output);

    // What nobody asked for is lowered.
    let unsaid = Gateway::kdl(&format!("process {{ workers 1; log \"stdout\" }}{WEB}"));
    let gateway = unsaid.through(&FEW).start().await;
    gateway.says("the limit on open files is low: at most ").await;

    // Root raises even the hard limit, where it may: containers often keep that back.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    const SYS_RESOURCE: u64 = 1 << 24;
    if u64::from_str_radix(capabilities.trim(), 16).unwrap() & SYS_RESOURCE == 0 {
        return;
    }
    let low = ["sh", "-c", "ulimit -n 500; exec \"$0\" \"$@\""];
    let gateway = Gateway::kdl(&format!("process {{ workers 1; max-connections 5000 }}{WEB}"))
        .through(&low)
        .start()
        .await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u64 = files.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft >= 10_000, "{files}");
}

#[tokio::test]
async fn a_gateway_that_runs_out_of_descriptors_says_so_now_and_then() {
    let gateway = Gateway::kdl(&format!("process {{ workers 1; log \"stdout\" }}{WEB}"))
        .start()
        .await;
    let process = rustix::process::Pid::from_raw(i32::try_from(gateway.pid()).unwrap()).unwrap();
    let few = rustix::process::Rlimit {
        current: Some(40),
        maximum: Some(40),
    };
    rustix::process::prlimit(Some(process), rustix::process::Resource::Nofile, few).unwrap();
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(gateway.connect("web").await);
    }
    gateway.says("cannot accept a connection").await;
    // It tries again ten times a second.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let said = gateway.output().matches("cannot accept a connection").count();
    assert_eq!(said, 1, "{}", gateway.output());
    // And goes on as soon as there are some.
    drop(clients);
    let answer = gateway.raw("web", "nonsense\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn where_descriptors_are_few_there_are_fewer_pipes_and_connections_are_served() {
    let app = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 4; log "stdout" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .through(&FEW)
    .start()
    .await;
    gateway.says("the limit on open files is low: at most ").await;
    let mut client = gateway.connect("raw").await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    // Whoever says how many connections there may be has them, and pipes what they leave.
    let said = Gateway::kdl(&format!("process {{ workers 1; max-connections 50 }}{WEB}"));
    let gateway = said.through(&FEW).start().await;
    assert!(!gateway.output().contains("is low"), "{}", gateway.output());
}

#[tokio::test]
async fn the_service_manager_hears_of_each_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let inbox = Inbox::unix(&path);
    let config = format!(
        "process {{ workers 2; user \"nobody\"; chroot {:?}; log \"stdout\" }}{WEB}",
        folder.path()
    );
    let gateway = Gateway::kdl(&config)
        .env("NOTIFY_SOCKET", path.display())
        .env("WATCHDOG_USEC", 200_000)
        .start()
        .await;
    inbox.with("READY=1").await;
    for _ in 0..3 {
        inbox.with("WATCHDOG=1").await;
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(gateway.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    inbox.with("RELOADING=1\nMONOTONIC_USEC=").await;
    inbox.with("READY=1").await;
    gateway.terminate();
    inbox.with("STOPPING=1").await;
}

#[tokio::test]
async fn the_service_manager_shows_whether_the_last_reload_was_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let inbox = Inbox::unix(&path);
    let with_workers = |n: usize| Gateway::kdl(&format!("process {{ workers {n}; log \"stdout\" }}{WEB}"));
    let gateway = with_workers(1).env("NOTIFY_SOCKET", path.display()).start().await;
    assert_eq!(inbox.with("READY=1").await, "READY=1\nSTATUS=serving");
    // Valid, and yet nothing that a reload can change: `gateway check` has nothing against it.
    assert!(!gateway.reload(&with_workers(2)).await);
    assert_eq!(
        inbox.with("READY=1").await,
        "READY=1\nSTATUS=serving what it did; the last reload was refused: see the log"
    );
    assert!(gateway.reload(&with_workers(1)).await);
    assert_eq!(inbox.with("READY=1").await, "READY=1\nSTATUS=serving");
}

/// A plugin whose component may take long to compile, and more memory than it will.
const COMPILES: &str = r#"
    process { workers 1; log "stdout"; policy compile-cpu="1h" compile-memory="64GiB" }
    plugin "p" "p.wasm" { on-failure "deny" }
    frontend "web" { bind "127.0.0.1:0"; use-plugin "p"; default-backend "app" }
    backend "app" { server "s" "echo" }
"#;

/// Takes minutes.
fn bomb() -> Vec<u8> {
    Bomb::Nested(400_000).component()
}

/// The process that compiles for this one, once there is one.
async fn compiler(gateway: &Gateway) -> u32 {
    let mut found = None;
    eventually("it compiles", async || {
        found = process::tree(gateway.pid()).get(1).copied();
        found.is_some()
    })
    .await;
    found.unwrap()
}

async fn is_gone(pid: u32) {
    let path = format!("/proc/{pid}");
    eventually("the compiler is gone", async || !Path::new(&path).exists()).await;
}

#[tokio::test]
async fn a_start_that_is_told_to_end_does_not_wait_for_what_it_compiles() {
    let gateway = Gateway::kdl(COMPILES).file("p.wasm", bomb()).begin();
    let compiler = compiler(&gateway).await;
    gateway.terminate();
    let stopped = gateway.stopped().await;
    assert_eq!(stopped.code, Some(0), "{}", stopped.output);
    assert!(
        stopped.output.contains("told to end before it served"),
        "{}",
        stopped.output
    );
    is_gone(compiler).await;
}

#[tokio::test]
async fn the_service_manager_hears_that_the_gateway_lives_through_a_long_reload() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let inbox = Inbox::unix(&path);
    let good = guest::filter("(call $none)", "");
    let gateway = Gateway::kdl(COMPILES)
        .file("p.wasm", good)
        .env("NOTIFY_SOCKET", path.display())
        .env("WATCHDOG_USEC", 200_000)
        .start()
        .await;
    inbox.with("READY=1").await;
    gateway.write("p.wasm", bomb());
    gateway.begin_reload(&Gateway::verbatim(&gateway.config()));
    inbox.with("RELOADING=1").await;
    let compiler = compiler(&gateway).await;
    for _ in 0..5 {
        inbox.with("WATCHDOG=1").await;
    }
    assert!(process::tree(gateway.pid()).contains(&compiler), "it compiles yet");
    gateway.terminate();
    inbox.with("STOPPING=1").await;
    assert_eq!(gateway.stopped().await.code, Some(0));
    is_gone(compiler).await;
}

#[tokio::test]
async fn a_system_that_runs_nothing_compiled_is_named_and_no_component_blamed() {
    let config = r#"
        frontend "web" { bind "127.0.0.1:0"; acl "inner" { path-prefix "/inner" }; deny if="inner"; default-backend "app" }
        backend "app" { server "app-1" "echo" }
    "#;
    // PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN: what `MemoryDenyWriteExecute=yes` comes to in newer versions of systemd.
    let prctl = if cfg!(target_arch = "x86_64") { 157 } else { 167 };
    let deny = format!("syscall({prctl}, 65, 1, 0, 0, 0) == 0 or die $!; exec @ARGV");
    let refused = Gateway::kdl(config).through(&["perl", "-e", &deny]).refused().await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.output.contains("MemoryDenyWriteExecute"), "{}", refused.output);
    assert!(!refused.output.contains("defect"), "{}", refused.output);
}

#[tokio::test]
async fn a_socket_that_was_handed_over_is_served_by_all_workers() {
    use std::os::fd::AsRawFd;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let shell = format!(
        "exec 3<&{}; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"",
        listener.as_raw_fd()
    );
    let app = greeter().await;
    let gateway = Gateway::kdl(&format!(
        r#"
        process {{ workers 3; log "stdout" format="json" }}
        frontend "raw" {{ mode "tcp"; bind "{address}"; default-backend "app" }}
        backend "app" {{ mode "tcp"; server "app-1" "@app" }}
    "#
    ))
    .with("@app", app.address())
    .through(&["bash", "-c", &shell])
    .start()
    .await;
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC).unwrap();
    assert_eq!(gateway.address("raw"), address);
    for _ in 0..20 {
        session(&gateway).await;
    }
    // The gateway has no other socket there: what the manager holds outlives it.
    gateway.terminate();
    assert_eq!(gateway.stopped().await.code, Some(0));
    let waiting = TcpListener::bind(address);
    assert!(waiting.is_err(), "it is still listened on");
}

#[tokio::test]
async fn a_port_in_use_is_shown_where_it_stands() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!(
        "frontend \"web\" {{ bind \"{address}\"; default-backend \"app\" }}\nbackend \"app\" {{ server \"app-1\" \"echo\" }}"
    );
    let refused = Gateway::kdl(&text).refused().await;
    assert_eq!(refused.code, Some(1));
    for said in ["another process listens there already", "config.kdl:", "ss -ltnp"] {
        assert!(refused.output.contains(said), "{}", refused.output);
    }
    // The running gateway holds its ports while the file is checked.
    assert_eq!(Gateway::kdl(&text).check(&[]).code, Some(0));
}

#[tokio::test]
async fn sigusr2_reloads_as_with_haproxys_master() {
    let app = greeter().await;
    let gateway = gateway("workers 1; log \"stdout\" format=\"json\"", app.address()).await;
    let process = rustix::process::Pid::from_raw(i32::try_from(gateway.pid()).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::USR2).unwrap();
    gateway.says("\"reloaded\"").await;
    session(&gateway).await;
}

#[tokio::test]
async fn a_filter_of_events_that_is_none_is_told_of() {
    let app = greeter().await;
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .env("GATEWAY_LOG", "gateway=loud")
    .start()
    .await;
    gateway.says("GATEWAY_LOG=\"gateway=loud\" is left aside").await;
}

#[tokio::test]
async fn sigusr1_drains_and_however_often_it_comes_breaks_nothing_off() {
    let app = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; server "a" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut client = gateway.connect("raw").await;
    client.send("a").await;
    assert_eq!(client.exactly(1).await, b"a");
    let process = rustix::process::Pid::from_raw(i32::try_from(gateway.pid()).unwrap()).unwrap();
    for _ in 0..3 {
        rustix::process::kill_process(process, rustix::process::Signal::USR1).unwrap();
        gateway.says("draining for up to").await;
        client.send("b").await;
        assert_eq!(client.exactly(1).await, b"b");
    }
    drop(client);
    assert_eq!(gateway.stopped().await.code, Some(0));
}

//! The admin socket: what operators may ask and change, and that nobody else may.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gateway_tests::{Answer, Gateway, HttpServer, Server, eventually, get};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// A folder of its own for a socket.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    (folder, path)
}

/// Says a line and reads all that is answered.
async fn say(socket: &Path, line: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .unwrap()
        .unwrap();
    answer
}

const TWO_SERVERS: &str = r#"
    process { workers 2; log "stdout" format="json"; admin "@socket" mode="660" level="admin" }
    frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
    backend "app" { mode "tcp"; server "a" "@a" weight=2; server "b" "@b" }
"#;

async fn names(gateway: &Gateway, count: usize) -> String {
    let mut names = Vec::new();
    for _ in 0..count {
        names.extend(gateway.connect("raw").await.exactly(1).await);
    }
    String::from_utf8(names).unwrap()
}

#[tokio::test]
async fn what_is_in_maintenance_is_not_checked() {
    let (a, b) = (Server::greeting("a").await, Server::greeting("b").await);
    let (_folder, socket) = folder();
    let _gateway = Gateway::kdl(
        r#"
        process { workers 1; admin "@socket" level="operator" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; check "tcp" interval="50ms"; server "a" "@a"; server "b" "@b" }
    "#,
    )
    .with("@socket", socket.display())
    .with("@a", a.address())
    .with("@b", b.address())
    .start()
    .await;

    eventually("both are checked", async || a.connections() > 2 && b.connections() > 2).await;
    say(&socket, "disable server app/a").await;
    let (before, others) = (a.connections(), b.connections());
    eventually("the other is checked", async || b.connections() > others + 10).await;
    // One may have been on its way.
    assert!(a.connections() <= before + 1, "{} after {before}", a.connections());
    say(&socket, "enable server app/a").await;
    eventually("it is checked again", async || a.connections() > before + 3).await;
}

#[tokio::test]
async fn the_end_of_a_drain_ends_no_sessions_of_backups_and_that_of_maintenance_does() {
    let (main, spare) = (Server::greeting("m").await, Server::greeting("s").await);
    let (_folder, socket) = folder();
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json"; admin "@socket" level="operator" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            mode "tcp"
            check "tcp" interval="1h"
            on-marked-down "shutdown-sessions"
            server "main" "@main" on-marked-up="shutdown-backup-sessions"
            server "spare" "@spare" backup
        }
    "#,
    )
    .with("@socket", socket.display())
    .with("@main", main.address())
    .with("@spare", spare.address())
    .start()
    .await;

    say(&socket, "set server app/main state drain").await;
    let mut on_backup = gateway.connect("raw").await;
    assert_eq!(on_backup.exactly(1).await, b"s");
    say(&socket, "set server app/main state ready").await;
    say(&socket, "set server app/main weight 0").await;
    say(&socket, "set server app/main weight 100%").await;
    let mut on_main = gateway.connect("raw").await;
    assert_eq!(on_main.exactly(1).await, b"m");

    // When the sessions of one that is taken out have ended, all that was said before has been heard, too.
    say(&socket, "disable server app/main").await;
    let line = gateway.access_log(1).await.remove(0);
    assert_eq!(
        (&line["server"], &line["reason"]),
        (&"main".into(), &"server-down".into())
    );
    let left = gateway
        .metrics()
        .await
        .get("gateway_server_in_flight", &[("server", "spare")]);
    assert_eq!(left, Some(1.0));

    say(&socket, "enable server app/main").await;
    let line = gateway.access_log(2).await.remove(1);
    assert_eq!(
        (&line["server"], &line["reason"]),
        (&"spare".into(), &"backup-relieved".into())
    );
}

#[tokio::test]
async fn a_backend_that_loses_its_last_server_is_told_of_whoever_took_it() {
    let (a, b) = (Server::greeting("a").await, Server::greeting("b").await);
    let (_folder, socket) = folder();
    let gateway = Gateway::kdl(TWO_SERVERS)
        .with("@socket", socket.display())
        .with("@a", a.address())
        .with("@b", b.address())
        .start()
        .await;
    let lost = "backend has no server left";

    say(&socket, "disable server app/a; set server app/b state drain").await;
    gateway.says(lost).await;
    gateway.connect("raw").await.closed().await;
    say(&socket, "set weight app/b 0; enable server app/b").await;
    assert!(!gateway.output().contains("backend has a server again"));
    say(&socket, "enable server app/a").await;
    gateway.says("backend has a server again").await;
    assert_eq!(names(&gateway, 2).await, "aa");
    // The other comes and goes: nobody is told.
    say(&socket, "set weight app/b 1; set weight app/b 0").await;
    let stats: serde_json::Value = serde_json::from_slice(
        &gateway
            .ask("stats", get("/stats.json").header("Connection", "close"))
            .await
            .body,
    )
    .unwrap();
    assert_eq!(stats["backends"][0]["went-down"], 1, "{stats}");
    assert_eq!(gateway.output().matches(lost).count(), 1);
}

#[tokio::test]
async fn operators_see_and_change_servers() {
    let (a, b) = (Server::greeting("a").await, Server::greeting("b").await);
    let (_folder, socket) = folder();
    let gateway = Gateway::kdl(TWO_SERVERS)
        .with("@socket", socket.display())
        .with("@a", a.address())
        .with("@b", b.address())
        .start()
        .await;

    let shown = say(&socket, "show servers").await;
    let expected = format!("app a {} up ready 2 2 0 0 0 - 2.00\n", a.address());
    assert!(shown.contains(&expected), "{shown}");
    assert!(say(&socket, "show info").await.contains("Name: gateway\n"));
    assert!(say(&socket, "show backend").await.contains("\napp tcp 2 0 0\n"));
    assert_eq!(say(&socket, "get weight app/a").await, "2 (initial 2)\n\n");

    for (order, takes) in [
        ("set server app/a state drain", "b"),
        ("set server app/a state ready", "ab"),
        ("disable server app/b", "a"),
        ("enable server app/b", "ab"),
        ("set weight app/b 0", "a"),
        ("set weight app/b 100%", "ab"),
        ("set server app/a weight 0%; set weight app/b 7", "b"),
    ] {
        assert_eq!(say(&socket, order).await.trim(), "", "{order}");
        let names = names(&gateway, 12).await;
        let mut taken: Vec<_> = names.chars().collect();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.into_iter().collect::<String>(), takes, "{order}: {names}");
    }
    assert_eq!(say(&socket, "get weight app/b").await, "7 (initial 1)\n\n");
    gateway
        .metric_is("gateway_server_weight", &[("server", "b")], 7.0)
        .await;
    assert_eq!(say(&socket, "set server app/a state maint").await, "\n");
    gateway
        .metric_is("gateway_server_admin_state", &[("server", "a")], 2.0)
        .await;

    for (wrong, answer) in [
        ("set weight app/a 257", "A weight is"),
        ("set weight app/a 101%", "A weight is"),
        ("set weight app/a", "Unknown command"),
        ("set server app/a state up", "A state is"),
        ("get weight app/c", "No such server."),
        ("get weight other/a", "No such backend."),
        ("get weight app", "Require 'backend/server'."),
        ("nonsense", "Unknown command"),
    ] {
        let got = say(&socket, wrong).await;
        assert!(got.starts_with(answer), "{wrong}: {got}");
    }
}

#[tokio::test]
async fn the_stats_page_and_its_json_show_what_servers_are_like() {
    let up = HttpServer::answering("a").await;
    let down = HttpServer::start(|_| Answer::status(500)).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            check "http" interval="50ms" fall=1 { send "GET" "/" }
            server "good" "@up" weight=3 max-connections=7
            server "bad" "@down"
        }
        "#,
    )
    .with("@up", up.address())
    .with("@down", down.address())
    .start()
    .await;
    gateway.metric_is("gateway_server_up", &[("server", "bad")], 0.0).await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 200);

    let answer = gateway
        .ask("stats", get("/stats.json").header("Connection", "close"))
        .await;
    let stats: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let servers = &stats["backends"][0]["servers"];
    assert_eq!(
        (&servers[0]["name"], &servers[1]["name"]),
        (&"good".into(), &"bad".into())
    );
    assert_eq!(
        (&servers[0]["health"], &servers[1]["health"]),
        (&"up".into(), &"down".into())
    );
    assert_eq!(
        (&servers[0]["effective-weight"], &servers[1]["effective-weight"]),
        (&3.0.into(), &0.0.into())
    );
    assert_eq!(
        (&servers[0]["sessions-total"], &servers[1]["check-passed"]),
        (&1.into(), &false.into())
    );
    assert_eq!(
        (&servers[0]["max-connections"], &servers[1]["max-connections"]),
        (&7.into(), &serde_json::Value::Null)
    );
    assert_eq!(stats["frontends"][0]["responses"][2], 1);

    let page = gateway.ask("stats", get("/").header("Connection", "close")).await;
    assert!(
        page.headers
            .get("content-security-policy")
            .unwrap()
            .starts_with("default-src 'none'")
    );
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    for row in [
        r#"<th scope="row">good</th><td class="up">up</td>"#,
        r#"<th scope="row">bad</th><td class="down">down</td>"#,
    ] {
        assert!(text.contains(row), "{text}");
    }
}

#[tokio::test]
async fn operators_see_what_an_agent_imposes() {
    let (server, agent) = (
        Server::greeting("a").await,
        Server::greeting("drain 50% maxconn:30\n").await,
    );
    let (_folder, socket) = folder();
    let gateway = Gateway::kdl(
        r#"
        process { admin "@socket" mode="660" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; agent-check port=@port interval="50ms"; server "a" "@a" weight=4 }
        "#,
    )
    .with("@socket", socket.display())
    .with("@port", agent.address().port())
    .with("@a", server.address())
    .start()
    .await;
    gateway
        .metric_is("gateway_server_agent_weight_percent", &[("server", "a")], 50.0)
        .await;
    let shown = say(&socket, "show servers").await;
    assert!(
        shown.contains(" up ready 4 4 0 30 0 up,drain,50%,maxconn:30 0.00\n"),
        "{shown}"
    );
}

#[tokio::test]
async fn what_is_under_way_at_a_drained_server_goes_on_and_an_operator_can_end_it() {
    let (a, b) = (Server::echo().await, Server::echo().await);
    let web = HttpServer::start(|_| Answer::nothing().then_stall()).await;
    let (_folder, socket) = folder();
    let gateway = Gateway::kdl(&format!(
        r#"{TWO_SERVERS}
        frontend "web" {{ bind "127.0.0.1:0"; default-backend "web" }}
        backend "web" {{ server "w" "@web" }}
    "#
    ))
    .with("@socket", socket.display())
    .with("@a", a.address())
    .with("@b", b.address())
    .with("@web", web.address())
    .start()
    .await;
    let mut client = gateway.connect("raw").await;
    client.send("x").await;
    client.exactly(1).await;
    assert_eq!(
        say(&socket, "set server app/a state drain; set server app/b state drain").await,
        "\n\n"
    );
    client.send("y").await;
    assert_eq!(client.exactly(1).await, b"y");
    say(
        &socket,
        "shutdown sessions server app/a; shutdown sessions server app/b",
    )
    .await;
    client.closed().await;

    let mut waits = gateway.connect("web").await;
    waits.send(get("/").bytes()).await;
    eventually("the request arrives", async || web.requests().len() == 1).await;
    say(&socket, "shutdown sessions server web/w").await;
    assert_eq!(waits.response().await.status, 503);

    let mut endings: Vec<_> = gateway.access_log(2).await;
    endings.sort_by_key(|line| line["frontend"].as_str().map(str::to_owned));
    for (line, termination) in endings.iter().zip(["KD", "KH"]) {
        assert_eq!(
            (&line["termination"], &line["reason"]),
            (&termination.into(), &"shut-down".into()),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_level_bounds_what_may_be_done() {
    let a = Server::greeting("a").await;
    for (level, may_set) in [("user", false), ("operator", true)] {
        let (_folder, socket) = folder();
        let _gateway = Gateway::kdl(
            r#"
            process { workers 1; log "stdout" format="json"; admin "@socket" level="THE-LEVEL" }
            frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
            backend "app" { mode "tcp"; server "a" "@a" }
        "#,
        )
        .with("@socket", socket.display())
        .with("THE-LEVEL", level)
        .with("@a", a.address())
        .start()
        .await;
        assert!(say(&socket, "show servers").await.contains("app a "));
        let denied = |answer: &str| answer.starts_with("Permission denied");
        assert_eq!(denied(&say(&socket, "set weight app/a 1").await), !may_set);
        assert_eq!(denied(&say(&socket, "disable server app/a").await), !may_set);
        assert!(denied(&say(&socket, "shutdown sessions server app/a").await));
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else's unless said");
    }
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not() {
    let a = Server::greeting("a").await;
    let (_folder, socket) = folder();
    // Left behind: nobody listens any more.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let builder = || {
        Gateway::kdl(TWO_SERVERS)
            .with("@socket", socket.display())
            .with("@a", a.address())
            .with("@b", a.address())
    };
    let gateway = builder().start().await;
    assert!(
        say(&socket, "show info")
            .await
            .contains(&format!("Pid: {}\n", gateway.pid()))
    );
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);

    let refused = builder().refused().await;
    assert!(
        refused.output.contains("another process answers there") && refused.output.contains("process { workers 2"),
        "the place is shown: {}",
        refused.output
    );
    assert!(
        say(&socket, "show info")
            .await
            .contains(&format!("Pid: {}\n", gateway.pid()))
    );

    gateway.terminate();
    assert_eq!(gateway.stopped().await.code, Some(0));
    assert!(!socket.exists());

    std::fs::write(&socket, "precious").unwrap();
    let refused = builder().refused().await;
    assert!(refused.output.contains("no socket"), "{}", refused.output);
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

#[tokio::test]
async fn several_lines_are_read_after_prompt_and_long_ones_never() {
    let a = Server::greeting("a").await;
    let (_folder, socket) = folder();
    let _gateway = Gateway::kdl(TWO_SERVERS)
        .with("@socket", socket.display())
        .with("@a", a.address())
        .with("@b", a.address())
        .start()
        .await;
    let answers = say(
        &socket,
        "prompt\nget weight app/a\nset weight app/a 5\nget weight app/a\nquit",
    )
    .await;
    assert_eq!(answers, "> 2 (initial 2)\n\n> \n> 5 (initial 2)\n\n> ");

    let mut stream = UnixStream::connect(&socket).await.unwrap();
    let _ = stream.write_all(&vec![b'x'; 4096]).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("The line is too long."), "{answer}");

    // Those who say nothing keep nobody out for good: ten are served at once, and more wait.
    let mut silent = Vec::new();
    for _ in 0..9 {
        silent.push(UnixStream::connect(&socket).await.unwrap());
    }
    assert!(say(&socket, "show info").await.contains("Name: gateway"));
}

#[tokio::test]
async fn the_command_line_speaks_to_the_socket() {
    let a = Server::greeting("a").await;
    let (_folder, socket) = folder();
    let _gateway = Gateway::kdl(TWO_SERVERS)
        .with("@socket", socket.display())
        .with("@a", a.address())
        .with("@b", a.address())
        .start()
        .await;
    let ctl = async |words: &'static [&'static str]| {
        let socket = socket.clone();
        tokio::task::spawn_blocking(move || {
            let output = gateway_tests::command()
                .args(["ctl", "-s"])
                .arg(socket)
                .args(words)
                .output()
                .unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (output.status.code(), text(output.stdout), text(output.stderr))
        })
        .await
        .unwrap()
    };
    let (code, stdout, _) = ctl(&["get", "weight", "app/a"]).await;
    assert_eq!((code, stdout.as_str()), (Some(0), "2 (initial 2)\n"));
    let (code, stdout, _) = ctl(&["set", "weight", "app/a", "50%"]).await;
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    // Only 0% is nothing.
    ctl(&["set", "weight", "app/a", "1%"]).await;
    let (_, stdout, _) = ctl(&["get", "weight", "app/a"]).await;
    assert_eq!(stdout, "1 (initial 2)\n");
    let (code, stdout, stderr) = ctl(&["get", "weight", "app/x"]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("No such server."), "{stderr}");
    let (code, _, stderr) = ctl(&["set", "server", "app/a"]).await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("set server BACKEND/SERVER state ready|drain|maint"),
        "{stderr}"
    );
    // As HAProxy's: those who read its statistics from the socket read these.
    let (code, stdout, _) = ctl(&["show", "stat"]).await;
    let mut lines = stdout.lines();
    assert_eq!(code, Some(0));
    assert!(lines.next().unwrap().starts_with("# pxname,svname,qcur,"), "{stdout}");
    let of = |line: &str| line.split(',').take(2).collect::<Vec<_>>().join("/");
    assert_eq!(
        lines.map(of).collect::<Vec<_>>(),
        ["raw/FRONTEND", "app/a", "app/b", "app/BACKEND"]
    );
    let (_, stdout, _) = ctl(&["show", "info"]).await;
    assert!(stdout.contains("\nMaxconn: "), "{stdout}");
}

#[test]
fn whoever_asks_where_no_gateway_listens_is_told_what_may_be_wrong() {
    let output = gateway_tests::command()
        .args(["ctl", "-s", "/nowhere/at/all.sock", "help"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr.contains("is it running, with `admin` in its `process`?"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_server_begins_out_of_service_where_the_configuration_says_so() {
    let (a, b) = (Server::greeting("a").await, Server::greeting("b").await);
    let (_folder, socket) = folder();
    let config = |flag: &str| {
        Gateway::kdl(
            r#"
            process { workers 1; admin "@socket" level="operator" }
            frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
            backend "app" { mode "tcp"; server "a" "@a" FLAG; server "b" "@b" }
        "#,
        )
        .with("@socket", socket.display())
        .with("@a", a.address())
        .with("@b", b.address())
        .with("FLAG", flag)
    };
    let gateway = config("disabled").start().await;
    assert_eq!(names(&gateway, 4).await, "bbbb");
    let state = say(&socket, "show servers app").await;
    assert!(
        state
            .lines()
            .any(|line| line.contains(" a ") && line.contains(" maint ")),
        "{state}"
    );
    say(&socket, "enable server app/a").await;
    assert!(names(&gateway, 4).await.contains('a'));
    // The order outlives a reload, and another configuration goes before it.
    assert!(gateway.reload(&config("disabled")).await);
    assert!(names(&gateway, 4).await.contains('a'));
    say(&socket, "disable server app/a").await;
    assert!(gateway.reload(&config("")).await);
    assert!(names(&gateway, 4).await.contains('a'));
}

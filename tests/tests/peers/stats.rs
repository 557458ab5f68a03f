//! The stats page in a browser, and its figures beside those of HAProxy.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use gateway_tests::peer::{Peer, free_address, run};
use gateway_tests::{Client, Gateway, HttpServer, Server, eventually, get};

const WEB: &str = r#"
    stats { bind "127.0.0.1:0"; @says }
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    backend "app" {
        check "http" interval="200ms" fall=1 { send "GET" "/" }
        server "good" "@app"
        server "gone" "127.0.0.1:1"
    }
"#;

#[cfg_attr(not(feature = "peers"), ignore = "needs chromium and openssl: --features peers")]
#[tokio::test]
async fn a_browser_shows_what_servers_are_like() {
    let app = HttpServer::answering("hello").await;
    let hash = Command::new("openssl")
        .args(["passwd", "-6", "s3cret"])
        .output()
        .unwrap();
    let hash = String::from_utf8(hash.stdout).unwrap();
    let gateway = Gateway::kdl(WEB)
        .with(
            "@says",
            format!("auth \"ops\" password=\"{}\"; refresh \"30s\"", hash.trim()),
        )
        .with("@app", app.address())
        .start()
        .await;
    gateway.says("server is down").await;
    let profile = tempfile::tempdir().unwrap();
    let shows = async |credentials: &str| {
        let mut command = Command::new("chromium");
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("--dump-dom")
            .arg(format!("http://{credentials}{}/", gateway.address("stats")))
            .env("HOME", profile.path());
        run(command, "", Duration::from_secs(60)).await.stdout
    };
    // As the browser has read it: every cell is in its row, under its heading.
    let page = shows("ops:s3cret@").await;
    for (server, health) in [("good", "up"), ("gone", "down")] {
        let row = format!("<tr><th scope=\"row\">{server}</th><td class=\"{health}\">{health}</td>");
        assert!(page.contains(&row), "{page}");
    }
    assert!(page.contains("L4CON") && page.contains("L7OK"), "{page}");
    let headings = page.matches("<th scope=\"col\">").count();
    let cells = page.matches("<td").count() + page.matches("<th scope=\"row\">").count();
    // One row of frontends, and two of servers under one head.
    let servers = page.split("Servers of app").nth(1).unwrap();
    let of_servers = servers.matches("<th scope=\"col\">").count();
    assert_eq!(cells, headings - of_servers + 2 * of_servers, "{page}");
    let page = shows("ops:wrong@").await;
    assert!(!page.contains("good"), "{page}");
}

#[cfg_attr(not(feature = "peers"), ignore = "needs haproxy: --features peers")]
#[tokio::test]
async fn the_columns_are_haproxys() {
    let app = HttpServer::answering("hello").await;
    let (address, directory) = (free_address(), tempfile::tempdir().unwrap());
    let configuration = format!(
        "global\n    maxconn 100\ndefaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n\
         frontend web\n    bind {address}\n    stats enable\n    stats uri /stats\n    default_backend app\n\
         backend app\n    server good {}\n",
        app.address()
    );
    let _haproxy = Peer::haproxy(&[], directory.path(), &configuration, Stdio::null(), address);
    let theirs = run(
        curl(&format!("http://{address}/stats;csv")),
        "",
        Duration::from_secs(10),
    )
    .await
    .ok();
    let gateway = Gateway::kdl(WEB)
        .with("@says", "")
        .with("@app", app.address())
        .start()
        .await;
    gateway.ask("web", get("/")).await;
    let ours = run(
        curl(&format!("http://{}/;csv", gateway.address("stats"))),
        "",
        Duration::from_secs(10),
    )
    .await
    .ok();
    let columns = |text: &str| -> Vec<String> {
        let head = text
            .lines()
            .next()
            .unwrap()
            .trim_start_matches("# ")
            .trim_end_matches(',');
        head.split(',').map(str::to_owned).collect()
    };
    let (theirs_columns, ours_columns) = (columns(&theirs), columns(&ours));
    assert_eq!(ours_columns, theirs_columns[..ours_columns.len()]);
    // Each line has as many values as there are columns, and the same lines are there.
    let lines = |text: &str| -> Vec<String> {
        let of = |line: &str| line.split(',').take(2).collect::<Vec<_>>().join(",");
        let mut lines: Vec<_> = text.lines().skip(1).filter(|line| !line.is_empty()).map(of).collect();
        lines.retain(|line| line != "app,gone");
        lines
    };
    assert_eq!(lines(&ours), lines(&theirs));
    for line in ours.lines() {
        assert_eq!(
            line.trim_end_matches('\n').matches(',').count(),
            ours_columns.len(),
            "{line}"
        );
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs haproxy: --features peers")]
#[tokio::test]
async fn what_haproxy_says_of_servers_is_said_here_too() {
    let (app, web) = (Server::echo().await, HttpServer::answering("hello").await);
    let agent = Server::start(|mut wire, _| async move { wire.send("ready up 75%\n").await }).await;
    let (raw, pages, directory) = (free_address(), free_address(), tempfile::tempdir().unwrap());
    let configuration = format!(
        "global\n    maxconn 100\ndefaults\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n\
         frontend raw\n    mode tcp\n    bind {raw}\n    default_backend raw\n\
         frontend web\n    mode http\n    bind {pages}\n    stats enable\n    stats uri /stats\n    stats show-legends\n    default_backend web\n\
         backend raw\n    mode tcp\n    balance leastconn\n    server a {} weight 100 check inter 1s agent-check agent-port {} agent-inter 1s\n\
         backend web\n    mode http\n    cookie SRV insert\n    option httpchk GET /\n    server b {} check inter 1s cookie b1\n",
        app.address(),
        agent.address().port(),
        web.address(),
    );
    let _haproxy = Peer::haproxy(&[], directory.path(), &configuration, Stdio::null(), pages);
    let gateway = Gateway::kdl(
        r#"
        stats { bind "127.0.0.1:0" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "raw" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "web" }
        backend "raw" {
            mode "tcp"
            balance "leastconn"
            check "tcp" interval="1s"
            agent-check port=@agent interval="1s"
            server "a" "@app" weight=100
        }
        backend "web" {
            cookie "SRV" insert
            check "http" interval="1s" { send "GET" "/" }
            server "b" "@web" cookie="b1"
        }
    "#,
    )
    .with("@app", app.address())
    .with("@agent", agent.address().port())
    .with("@web", web.address())
    .start()
    .await;
    // One session and one request through each.
    for (raw, pages) in [(raw, pages), (gateway.address("raw"), gateway.address("web"))] {
        let mut client = Client::connect(raw).await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
        drop(client);
        let mut client = Client::connect(pages).await;
        assert_eq!(client.ask(get("/").header("Connection", "close")).await.text(), "hello");
    }
    let stats = |url: String| async move {
        let text = run(curl(&url), "", Duration::from_secs(10)).await.ok();
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let columns: Vec<String> = lines
            .next()
            .unwrap()
            .trim_start_matches("# ")
            .split(',')
            .map(str::to_owned)
            .collect();
        let rows = lines.map(|line| {
            let values: Vec<&str> = line.split(',').collect();
            let said = columns
                .iter()
                .zip(&values)
                .filter(|(column, value)| !column.is_empty() && !value.is_empty());
            let said = said
                .map(|(column, value)| (column.clone(), (*value).to_owned()))
                .collect();
            (format!("{}/{}", values[0], values[1]), said)
        });
        rows.collect::<BTreeMap<String, BTreeMap<String, String>>>()
    };
    let settled = |rows: &BTreeMap<String, BTreeMap<String, String>>| {
        rows["raw/a"]
            .get("agent_status")
            .is_some_and(|status| status.contains("L7OK"))
            && rows["raw/a"]["stot"] == "1"
            && rows["web/b"]
                .get("check_status")
                .is_some_and(|status| status.ends_with("L7OK"))
    };
    let (theirs_at, ours_at) = (
        format!("http://{pages}/stats;csv"),
        format!("http://{}/;csv", gateway.address("stats")),
    );
    eventually("checks and agents have been heard", async || {
        settled(&stats(theirs_at.clone()).await) && settled(&stats(ours_at.clone()).await)
    })
    .await;
    let (theirs, ours) = (stats(theirs_at).await, stats(ours_at.clone()).await);
    let head = run(curl(&ours_at), "", Duration::from_secs(10)).await.ok();
    let known: Vec<String> = head
        .lines()
        .next()
        .unwrap()
        .trim_start_matches("# ")
        .split(',')
        .map(str::to_owned)
        .collect();
    for name in [
        "raw/FRONTEND",
        "web/FRONTEND",
        "raw/a",
        "web/b",
        "raw/BACKEND",
        "web/BACKEND",
    ] {
        let missing = theirs[name].keys().filter(|column| {
            // What a backend's rules deny is counted at the frontend that it came to.
            let is_elsewhere = *column == "dreq" && name.ends_with("BACKEND");
            let is_ours = known.contains(column) && !NOT_HERE.contains(&column.as_str()) && !is_elsewhere;
            is_ours && !ours[name].contains_key(*column)
        });
        let missing: Vec<_> = missing.collect();
        assert!(
            missing.is_empty(),
            "HAProxy says {missing:?} of {name}: {:?}",
            theirs[name]
        );
    }
    for (name, column) in [
        ("raw/a", "status"),
        ("raw/a", "weight"),
        ("raw/a", "mode"),
        ("raw/a", "check_rise"),
        ("raw/a", "check_fall"),
        ("raw/a", "check_health"),
        ("raw/a", "agent_health"),
        ("raw/a", "check_desc"),
        ("raw/a", "agent_desc"),
        ("raw/BACKEND", "algo"),
        ("raw/BACKEND", "chkdown"),
        ("raw/BACKEND", "downtime"),
        ("web/b", "cookie"),
        ("web/b", "req_tot"),
        ("web/BACKEND", "cookie"),
        ("web/BACKEND", "req_tot"),
        ("web/b", "check_desc"),
    ] {
        assert_eq!(ours[name].get(column), theirs[name].get(column), "{column} of {name}");
    }
}

/// What HAProxy says, and the gateway does not: there are no denied responses and no limits of rates, failed observations and
/// compressed bytes are not counted so, limits stand where they are said only, and a status where a check failed by it.
const NOT_HERE: &[&str] = &[
    "dresp",
    "rate_lim",
    "check_code",
    "hanafail",
    "comp_in",
    "comp_out",
    "comp_byp",
    "comp_rsp",
    "slim",
];

fn curl(url: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "5", url]);
    command
}

//! The stats page in a browser, and its figures beside those of HAProxy.

use std::process::{Command, Stdio};
use std::time::Duration;

use gateway_tests::peer::{Peer, free_address, run};
use gateway_tests::{Gateway, HttpServer, get};

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

fn curl(url: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "5", url]);
    command
}

//! Several logs in one process: whose lines go where.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::{Gateway, HttpServer, eventually, get};
use tempfile::TempDir;

/// A folder for log files, and what stands in them.
struct Logs(TempDir);

impl Logs {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    async fn has(&self, name: &str, n: usize) -> Vec<String> {
        eventually("the log has its lines", async || self.lines(name).len() >= n).await;
        self.lines(name)
    }
}

#[tokio::test]
async fn lines_go_to_the_logs_that_their_frontend_names() {
    let logs = Logs::new();
    let app = HttpServer::answering("x").await;
    let text = r#"
        process {
            workers 1
            log "stdout" format="json"
            log "@audit" name="audit" format="json"
            log "@plain" name="plain"
        }
        defaults { log "audit" }
        frontend "shop" { bind "127.0.0.1:0"; default-backend "app" }
        frontend "both" {
            bind "127.0.0.1:0"
            log "plain" "process"
            acl "probe" { path "/probe" }
            access-log unless="probe"
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#;
    let gateway = Gateway::kdl(text)
        .with("@audit", logs.path("audit"))
        .with("@plain", logs.path("plain"))
        .with("@app", app.address())
        .start()
        .await;
    assert_eq!(gateway.ask("shop", get("/bought")).await.status, 200);
    assert_eq!(gateway.ask("both", get("/probe")).await.status, 200);
    assert_eq!(gateway.ask("both", get("/told-twice")).await.status, 200);
    // What is refused before there is a request goes the same way.
    assert!(
        gateway
            .raw("shop", "no request\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 400")
    );

    let audit = logs.has("audit", 2).await;
    assert!(audit[0].starts_with('{') && audit[0].contains("/bought"), "{audit:?}");
    assert!(audit[1].contains("\"frontend\":\"shop\""), "{audit:?}");
    let plain = logs.has("plain", 1).await;
    assert!(
        plain[0].contains(" both ") && plain[0].contains("\"GET /told-twice "),
        "{plain:?}"
    );
    let own = gateway.access_log(1).await;
    assert_eq!(own[0]["frontend"], "both");
    // The same workers write all of them in order: what had been written elsewhere would be there by now.
    assert_eq!((logs.lines("audit").len(), logs.lines("plain").len()), (2, 1));
    assert_eq!(gateway.access_lines().len(), 1);
    gateway
        .metric_is("gateway_log_lines_dropped_total", &[("log", "audit")], 0.0)
        .await;
}

#[tokio::test]
async fn a_named_log_that_cannot_be_written_stops_the_start_where_it_stands() {
    let text = r#"
        process { log "/nowhere/at/all/audit.log" name="audit" }
        frontend "web" { bind "127.0.0.1:0"; log "audit"; default-backend "app" }
        backend "app" { server "app-1" "127.0.0.1:1" }
    "#;
    let stopped = Gateway::verbatim(text).refused().await;
    let output = stopped.output;
    assert!(
        output.contains("name=\"audit\"") && output.contains("/nowhere/at/all/audit.log"),
        "{output}"
    );
    let checked = Gateway::verbatim(text).check(&[]);
    assert!(
        checked.stdout.contains("/nowhere/at/all/audit.log"),
        "{}",
        checked.stdout
    );
}

async fn session(gateway: &Gateway) {
    assert_eq!(gateway.connect("raw").await.exactly(9).await, b"welcome\r\n");
}

#[tokio::test]
async fn tcp_connections_go_to_a_log_of_their_own_and_reloads_choose_anew() {
    let logs = Logs::new();
    let app = gateway_tests::Server::greeting("welcome\r\n").await;
    let text = |one: &str, other: &str| {
        let text = r#"
            process { workers 1; log "@one" name="one"; log "@other" name="other" }
            frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; log "@this"; default-backend "app" }
            frontend "rest" { mode "tcp"; bind "127.0.0.1:0"; log "@that"; default-backend "app" }
            backend "app" { mode "tcp"; server "app-1" "@app" }
        "#;
        Gateway::kdl(text)
            .with("@one", logs.path("one"))
            .with("@other", logs.path("other"))
            .with("@app", app.address())
            .with("@this", one)
            .with("@that", other)
    };
    let gateway = text("one", "other").start().await;
    session(&gateway).await;
    assert!(logs.has("one", 1).await[0].contains(" raw app/app-1 "));
    assert!(logs.lines("other").is_empty());
    assert!(gateway.reload(&text("other", "one")).await);
    session(&gateway).await;
    assert!(logs.has("other", 1).await[0].contains(" raw app/app-1 "));
    assert_eq!(logs.lines("one").len(), 1);
}

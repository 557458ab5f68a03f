//! The stats listener: who is answered, what the figures are in each form, and what the monitor says.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateway_tests::{
    Answer, Builder, Gateway, HttpServer, RequestText, Response, Server, eventually, get, post, refusing,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The stats as CSV, a map for each line.
async fn figures(gateway: &Gateway) -> Vec<HashMap<String, String>> {
    let answer = gateway.ask("stats", once("/;csv")).await;
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
    let text = answer.text().to_owned();
    let mut lines = text.lines();
    let columns: Vec<_> = lines.next().unwrap().trim_start_matches("# ").split(',').collect();
    lines
        .map(|line| {
            let values = line.split(',').map(str::to_owned);
            columns.iter().map(|column| (*column).to_owned()).zip(values).collect()
        })
        .collect()
}

fn row<'a>(rows: &'a [HashMap<String, String>], proxy: &str, name: &str) -> &'a HashMap<String, String> {
    let found = rows.iter().find(|row| row["pxname"] == proxy && row["svname"] == name);
    found.unwrap_or_else(|| panic!("no {proxy}/{name} in {rows:?}"))
}

fn once(path: &str) -> RequestText {
    get(path).header("Connection", "close")
}

fn is(row: &HashMap<String, String>, expected: &[(&str, &str)]) {
    for (column, value) in expected {
        assert_eq!(row[*column], *value, "{column} of {row:?}");
    }
}

#[tokio::test]
async fn a_server_that_takes_work_has_a_weight_however_little_it_is() {
    let app = HttpServer::answering("x").await;
    let agent = Server::start(|mut wire, _| async move { wire.send("40%\n").await }).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { agent-check port=@agent interval="50ms"; server "a" "@app" }
    "#,
    )
    .with("@agent", agent.address().port())
    .with("@app", app.address())
    .start()
    .await;
    gateway
        .metric_is("gateway_server_agent_weight_percent", &[("server", "a")], 40.0)
        .await;
    is(row(&figures(&gateway).await, "app", "a"), &[("weight", "1")]);
}

#[tokio::test]
async fn figures_are_those_of_what_happened() {
    let app = HttpServer::start(|request| match &*request.target {
        "/bad" => Answer::status(500),
        _ => Answer::ok("0123456789"),
    })
    .await;
    let failing = HttpServer::start(|_| Answer::status(503)).await;
    let (dead, _guard) = refusing();
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            max-connections 50
            acl "secret" { path "/secret" }
            deny if="secret"
            default-backend "app"
        }
        frontend "retried" { bind "127.0.0.1:0"; default-backend "pair" }
        backend "app" {
            check "http" interval="100ms" fall=1 { send "GET" "/health"; expect status=200 }
            server "good" "@app" weight=3 max-connections=7
            server "bad" "@failing"
            server "spare" "@app" backup
        }
        backend "pair" {
            retries 3 redispatch="each"
            server "dead" "@dead"
            server "alive" "@app"
        }
        "#,
    )
    .with("@app", app.address())
    .with("@failing", failing.address())
    .with("@dead", dead)
    .start()
    .await;
    gateway.metric_is("gateway_server_up", &[("server", "bad")], 0.0).await;
    let mut client = gateway.connect("web").await;
    for path in ["/", "/", "/bad", "/secret"] {
        client.ask(get(path)).await;
    }
    client.ask(post("/", vec![b'x'; 1000])).await;
    for _ in 0..4 {
        assert_eq!(gateway.ask("retried", once("/")).await.text(), "0123456789");
    }
    eventually("all of it is counted", async || {
        let rows = figures(&gateway).await;
        row(&rows, "retried", "FRONTEND")["req_tot"] == "4" && row(&rows, "web", "FRONTEND")["req_tot"] == "5"
    })
    .await;
    // Rates are looked at once a second.
    eventually("the rates are there", async || {
        row(&figures(&gateway).await, "app", "good")["rate_max"] != "0"
    })
    .await;
    let rows = figures(&gateway).await;
    let web = row(&rows, "web", "FRONTEND");
    is(
        web,
        &[
            ("type", "0"),
            ("status", "OPEN"),
            ("mode", "http"),
            ("scur", "1"),
            ("smax", "1"),
            ("slim", "50"),
            ("stot", "1"),
            ("dreq", "1"),
            ("hrsp_2xx", "3"),
            ("hrsp_4xx", "1"),
            ("hrsp_5xx", "1"),
            ("iid", "1"),
        ],
    );
    let good = row(&rows, "app", "good");
    is(
        good,
        &[
            ("type", "2"),
            ("status", "UP"),
            ("weight", "3"),
            ("act", "1"),
            ("bck", "0"),
            ("slim", "7"),
            ("scur", "0"),
            ("smax", "1"),
            ("stot", "4"),
            ("bin", "1000"),
            ("check_status", "L7OK"),
            ("chkfail", "0"),
            ("downtime", "0"),
            ("hrsp_2xx", "3"),
            ("hrsp_5xx", "1"),
            ("sid", "1"),
        ],
    );
    assert!(good["bout"].parse::<u64>().unwrap() >= 30, "{good:?}");
    let bad = row(&rows, "app", "bad");
    is(
        bad,
        &[
            ("status", "DOWN"),
            ("weight", "0"),
            ("check_status", "L7STS"),
            ("check_code", "503"),
            ("chkdown", "1"),
        ],
    );
    assert_eq!(bad["last_chk"], "status 503");
    eventually("it has been down for a while", async || {
        row(&figures(&gateway).await, "app", "bad")["downtime"]
            .parse::<u64>()
            .unwrap()
            >= 1
    })
    .await;
    is(
        row(&rows, "app", "spare"),
        &[("act", "0"), ("bck", "1"), ("status", "UP")],
    );
    is(
        row(&rows, "app", "BACKEND"),
        &[
            ("type", "1"),
            ("status", "UP"),
            ("act", "1"),
            ("bck", "1"),
            ("weight", "3"),
            ("stot", "4"),
        ],
    );
    is(row(&rows, "pair", "alive"), &[("stot", "4"), ("status", "no check")]);
    let pair = row(&rows, "pair", "BACKEND");
    assert_eq!(pair["wretr"], row(&rows, "pair", "dead")["wretr"]);
    assert_eq!(pair["wretr"], "0", "each retry went to the other");
    assert_eq!(
        pair["wredis"],
        row(&rows, "pair", "dead")["wredis"],
        "which dead was switched away from"
    );
    assert!(pair["wredis"].parse::<u64>().unwrap() >= 1, "{pair:?}");
    // None was given up for it.
    assert_eq!((&*pair["econ"], &*row(&rows, "pair", "dead")["econ"]), ("0", "0"));

    // The same in JSON and for Prometheus.
    let json: serde_json::Value =
        serde_json::from_slice(&gateway.ask("stats", once("/stats.json")).await.body).unwrap();
    let server = &json["backends"][0]["servers"][0];
    assert_eq!(
        (&server["most-in-flight"], &server["sent-bytes"]),
        (&1.into(), &1000.into())
    );
    assert_eq!(json["backends"][1]["redispatches"].to_string(), pair["wredis"]);
    let labels = [("backend", "app"), ("server", "good")];
    gateway
        .metric_is("gateway_server_sent_bytes_total", &labels, 1000.0)
        .await;
    let redispatches = pair["wredis"].parse().unwrap();
    let labels = [("backend", "pair")];
    gateway
        .metric_is("gateway_backend_redispatches_total", &labels, redispatches)
        .await;
}

#[tokio::test]
async fn times_ends_and_agents_stand_in_haproxys_columns() {
    // Greets, and then waits: until it is told to leave, or for as long as the client stays.
    let app = Server::start(|mut wire, _| async move {
        wire.send("hi").await?;
        match &*wire.exactly(5).await? {
            b"leave" => wire.reset(),
            _ => drop(wire.rest().await),
        }
        Ok(())
    })
    .await;
    let agent = Server::start(|mut wire, _| async move {
        wire.exactly(6).await?;
        wire.send("up 50% #half the disks\n").await
    })
    .await;
    let (dead, _guard) = refusing();
    let gateway = Gateway::kdl(
        r#"
        stats { bind "127.0.0.1:0" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "raw" }
        frontend "none" { mode "tcp"; bind "127.0.0.1:0"; default-backend "none" }
        backend "raw" {
            mode "tcp"
            balance "leastconn"
            check "tcp" interval="1h" rise=2 fall=3
            agent-check port=@agent interval="10s" send="state\n"
            server "a" "@app" weight=10
        }
        backend "none" {
            mode "tcp"
            check "tcp" interval="50ms" rise=4 fall=1
            server "dead" "@dead"
        }
        "#,
    )
    .with("@app", app.address())
    .with("@agent", agent.address().port())
    .with("@dead", dead)
    .start()
    .await;
    gateway.metric_is("gateway_server_up", &[("server", "dead")], 0.0).await;
    let labels = [("server", "a"), ("result", "passed")];
    gateway.metric_is("gateway_server_checks_total", &labels, 1.0).await;
    let rows = figures(&gateway).await;
    is(
        row(&rows, "raw", "a"),
        &[("lastsess", "-1"), ("qtime", "0"), ("ttime", "0"), ("cli_abrt", "0")],
    );

    let began = Instant::now();
    for end in ["client", "server", "order"] {
        let mut client = gateway.connect("raw").await;
        client.exactly(2).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        match end {
            "client" => client.reset(),
            "server" => {
                client.send("leave").await;
                client.closed().await;
            }
            _ => {
                client.send("going").await;
                client.half_close().await;
                client.rest().await;
            }
        }
    }
    gateway.access_log(3).await;
    let lasted = began.elapsed();
    eventually("the agent has been heard", async || {
        row(&figures(&gateway).await, "raw", "a")["weight"] == "5"
    })
    .await;

    let rows = figures(&gateway).await;
    let a = row(&rows, "raw", "a");
    for row in [a, row(&rows, "raw", "BACKEND")] {
        is(
            row,
            &[("cli_abrt", "1"), ("srv_abrt", "1"), ("qtime", "0"), ("rtime", "0")],
        );
        let number = |column: &str| row[column].parse::<u128>().unwrap();
        assert!((150..=lasted.as_millis() / 3 + 1).contains(&number("ttime")), "{row:?}");
        assert!(number("ctime") < number("ttime"), "{row:?}");
        assert!(number("lastsess") <= began.elapsed().as_millis() / 1000, "{row:?}");
    }
    is(
        a,
        &[
            ("agent_status", "L7OK"),
            ("agent_desc", "Layer7 check passed"),
            ("last_agt", "up 50% #half the disks"),
            ("agent_rise", "1"),
            ("agent_fall", "1"),
            ("agent_health", "1"),
            ("check_status", "L4OK"),
            ("check_desc", "Layer4 check passed"),
            ("check_rise", "2"),
            ("check_fall", "3"),
            ("check_health", "4"),
            ("addr", &app.address().to_string()),
        ],
    );
    is(
        row(&rows, "raw", "BACKEND"),
        &[("algo", "leastconn"), ("chkdown", "0"), ("downtime", "0")],
    );
    is(
        row(&rows, "none", "dead"),
        &[
            ("check_status", "L4CON"),
            ("check_desc", "Layer4 connection problem"),
            ("check_health", "0"),
            ("agent_status", ""),
        ],
    );
    eventually("the backend has been down for a while", async || {
        let rows = figures(&gateway).await;
        let none = row(&rows, "none", "BACKEND");
        is(none, &[("status", "DOWN"), ("chkdown", "1")]);
        none["downtime"] != "0" && none["downtime"] == none["lastchg"]
    })
    .await;
}

#[tokio::test]
async fn a_backend_counts_what_it_could_not_serve() {
    let (dead, _guard) = refusing();
    let app = HttpServer::start(|_| Answer::head_only(10).then_close()).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; max-connections 77; log "stdout" format="json" }
        frontend "web" {
            bind "127.0.0.1:0"
            use-backend "down" { path "/down" }
            use-backend "dead" { path "/dead" }
            default-backend "app"
        }
        backend "down" { server "a" "@dead" disabled }
        backend "dead" { retries 2; server "a" "@dead" }
        backend "app" { server "a" "@app" }
    "#,
    )
    .with("@dead", dead)
    .with("@app", app.address())
    .start()
    .await;
    for path in ["/down", "/dead"] {
        assert_eq!(gateway.ask("web", once(path)).await.status, 503);
    }
    let mut client = gateway.connect("web").await;
    client.send(once("/").bytes()).await;
    client.until_end().await;
    gateway.raw("web", "nonsense\r\n\r\n").await;
    let lines = gateway.access_log(4).await;
    // Who came to no server has not waited for one; who came to one has, however short.
    assert_eq!(lines[0]["queue_ms"], serde_json::Value::Null, "{}", lines[0]);
    assert_eq!(lines[1]["queue_ms"], 0.0, "{}", lines[1]);
    let rows = figures(&gateway).await;
    // What no server took, and what took three attempts, is one request each, and one that failed.
    is(
        row(&rows, "down", "BACKEND"),
        &[
            ("stot", "1"),
            ("req_tot", "1"),
            ("hrsp_5xx", "1"),
            ("lbtot", "0"),
            ("econ", "1"),
        ],
    );
    is(row(&rows, "down", "a"), &[("econ", "0")]);
    is(
        row(&rows, "dead", "BACKEND"),
        &[
            ("stot", "1"),
            ("req_tot", "1"),
            ("hrsp_5xx", "1"),
            ("lbtot", "3"),
            ("econ", "1"),
        ],
    );
    is(row(&rows, "dead", "a"), &[("econ", "1"), ("wretr", "2")]);
    // A response that breaks off is an error of responses, too.
    is(
        row(&rows, "app", "BACKEND"),
        &[("eresp", "1"), ("srv_abrt", "1"), ("hrsp_5xx", "0")],
    );
    // Of requests only what was none is an error; and where the frontend has no limit, the process's is its.
    is(row(&rows, "web", "FRONTEND"), &[("ereq", "1"), ("slim", "77")]);
    let labels = [("backend", "down"), ("code", "5xx")];
    gateway.metric_is("gateway_backend_responses_total", &labels, 1.0).await;
    gateway
        .metric_is("gateway_backend_sessions_total", &[("backend", "dead")], 1.0)
        .await;
    gateway.metric_is("gateway_max_connections", &[], 77.0).await;
}

/// As HAProxy counts them: whoever was silent for too long has broken it off, an attempt at another server is no retry, and who waited in
/// vain is one whom the backend could not connect.
#[tokio::test]
async fn connections_are_counted_in_haproxys_columns() {
    let (greeting, silent) = (
        Server::greeting("hi").await,
        Server::start(|mut wire, _| async move {
            wire.some().await?;
            std::future::pending().await
        })
        .await,
    );
    let (dead, _guard) = refusing();
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="text" }
        defaults { mode "tcp"; timeout client="300ms" server="10s" queue="1s" }
        frontend "silent-client" { bind "127.0.0.1:0"; default-backend "silent-client" }
        frontend "silent-server" { bind "127.0.0.1:0"; timeout client="10s"; default-backend "silent-server" }
        frontend "elsewhere" { bind "127.0.0.1:0"; default-backend "elsewhere" }
        frontend "queue" { bind "127.0.0.1:0"; timeout client="20s"; default-backend "queue" }
        backend "silent-client" { server "s" "@greeting" }
        backend "silent-server" { timeout server="300ms"; server "s" "@silent" }
        backend "elsewhere" { balance "first"; retries 2 redispatch="each"; server "dead" "@dead" max-connections=9; server "s" "@greeting" }
        backend "queue" { server "s" "@silent" max-connections=1 }
        "#,
    )
    .with("@greeting", greeting.address())
    .with("@silent", silent.address())
    .with("@dead", dead)
    .start()
    .await;
    assert_eq!(gateway.connect("silent-client").await.rest().await, b"hi");
    let mut client = gateway.connect("silent-server").await;
    client.send("hi").await;
    assert!(client.ends().await);
    assert_eq!(gateway.connect("elsewhere").await.exactly(2).await, b"hi");
    let mut holds = gateway.connect("queue").await;
    holds.send("hi").await;
    eventually("it has the place", async || silent.connections() == 2).await;
    // One is there until its wait is over, and one leaves before.
    assert!(gateway.connect("queue").await.ends().await);
    let leaves = gateway.connect("queue").await;
    gateway
        .metric_is("gateway_backend_queue", &[("backend", "queue")], 1.0)
        .await;
    drop(leaves);

    for (backend, column) in [
        ("silent-client", "cli_abrt"),
        ("silent-server", "srv_abrt"),
        ("elsewhere", "wredis"),
        ("queue", "cli_abrt"),
    ] {
        eventually("it is counted", async || {
            row(&figures(&gateway).await, backend, "BACKEND")[column] == "1"
        })
        .await;
    }
    let rows = figures(&gateway).await;
    for name in ["s", "BACKEND"] {
        is(
            row(&rows, "silent-client", name),
            &[("cli_abrt", "1"), ("srv_abrt", "0"), ("eresp", "0")],
        );
        is(
            row(&rows, "silent-server", name),
            &[("cli_abrt", "0"), ("srv_abrt", "1"), ("eresp", "0")],
        );
    }
    is(row(&rows, "elsewhere", "dead"), &[("wredis", "1"), ("wretr", "0")]);
    is(row(&rows, "elsewhere", "BACKEND"), &[("wredis", "1"), ("wretr", "0")]);
    is(
        row(&rows, "queue", "BACKEND"),
        &[("econ", "1"), ("cli_abrt", "1"), ("stot", "3")],
    );
    eventually("the line has the sign", async || gateway.output().contains("/+1 0/0")).await;
}

/// A gateway with these nodes in `stats`, and one server.
fn with_stats(says: &str, app: &HttpServer) -> Builder {
    Gateway::kdl(
        r#"
        stats { bind "127.0.0.1:0"; @says }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@says", says)
    .with("@app", app.address())
}

/// As an operator makes it.
fn hashed(password: &str) -> String {
    let output = Command::new("openssl")
        .args(["passwd", "-6", password])
        .stderr(Stdio::null())
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn who_has_no_password_sees_nothing() {
    let app = HttpServer::answering("hello").await;
    let says = format!(
        r#"auth "ops" password="{}"; auth "other" password="{}"; monitor "/healthz""#,
        hashed("s3cret:with colon"),
        hashed("another")
    );
    let gateway = with_stats(&says, &app).start().await;
    let asks = async |path: &str, credentials: Option<&str>| -> Response {
        let request = match credentials {
            Some(credentials) => once(path).header("Authorization", &format!("Basic {}", STANDARD.encode(credentials))),
            None => once(path),
        };
        gateway.ask("stats", request).await
    };
    for path in ["/", "/stats.json", "/stats.csv", "/;csv", "/metrics", "/nothing"] {
        for credentials in [
            None,
            Some("ops:wrong"),
            Some("other:s3cret:with colon"),
            Some("ops"),
            Some(":"),
        ] {
            let answer = asks(path, credentials).await;
            assert_eq!(answer.status, 401, "{path} {credentials:?}");
            assert_eq!(
                answer.header("www-authenticate"),
                Some("Basic realm=\"gateway\", charset=\"UTF-8\"")
            );
            assert!(!answer.text().contains("app"), "{}", answer.text());
        }
        let expected = if path == "/nothing" { 404 } else { 200 };
        for credentials in ["ops:s3cret:with colon", "other:another", "ops:s3cret:with colon"] {
            assert_eq!(asks(path, Some(credentials)).await.status, expected, "{path}");
        }
    }
    // Programs ask it, and learn nothing else.
    assert_eq!(asks("/healthz", None).await.text(), "ok\n");

    // Who loses the password at a reload is let in no more.
    let next = with_stats(&format!(r#"auth "ops" password="{}""#, hashed("changed")), &app);
    assert!(gateway.reload(&next).await);
    assert_eq!(asks("/", Some("ops:s3cret:with colon")).await.status, 401);
    assert_eq!(asks("/", Some("ops:changed")).await.status, 200);
}

#[tokio::test]
async fn who_is_not_meant_is_not_answered() {
    let app = HttpServer::answering("hello").await;
    let gateway = with_stats(r#"allow "10.0.0.0/8" "192.0.2.7""#, &app).start().await;
    let mut stream = TcpStream::connect(gateway.address("stats")).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    // Closed before or after it has been sent.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{answer:?}");
    assert!(
        gateway
            .reload(&with_stats(r#"allow "10.0.0.0/8" "127.0.0.1""#, &app))
            .await
    );
    assert_eq!(gateway.ask("stats", once("/")).await.status, 200);
}

#[tokio::test]
async fn the_page_comes_anew_and_keeps_its_version_to_itself() {
    let app = HttpServer::answering("hello").await;
    let version = env!("CARGO_PKG_VERSION");
    let plain = with_stats("", &app).start().await;
    let page = plain.ask("stats", once("/")).await;
    assert!(page.text().contains(&format!("<h1>gateway {version}</h1>")));
    assert!(!page.text().contains("http-equiv"));
    let gateway = with_stats(r#"refresh "10s"; hide-version"#, &app).start().await;
    let page = gateway.ask("stats", once("/")).await;
    assert!(page.text().contains(r#"<meta http-equiv="refresh" content="10">"#));
    for path in ["/", "/stats.json", "/;csv"] {
        let answer = gateway.ask("stats", once(path)).await;
        assert!(!answer.text().contains(version), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_monitor_says_whether_clients_should_come_here() {
    let app = HttpServer::start(|request| match &*request.target {
        "/slow" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
            .then_pause(Duration::from_secs(3))
            .then_send("slow"),
        _ => Answer::ok("app"),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let gateway = Gateway::kdl(
        r#"
        process { workers 2; log "stdout" format="json"; admin "@socket"; drain-timeout "20s" }
        stats {
            bind "127.0.0.1:0"
            monitor "/healthz" { require "app" servers=2 }
        }
        frontend "web" {
            bind "127.0.0.1:0"
            monitor "/up" { require "app"; require "unused" }
            deny status=403 unless="inside"
            acl "inside" { path "/inside" "/slow" }
            use-backend "unused" if="inside"
            default-backend "app"
        }
        backend "app" { server "a" "@app"; server "b" "@app" }
        backend "unused" { server "c" "@app" }
    "#,
    )
    .with("@socket", socket.display())
    .with("@app", app.address())
    .start()
    .await;
    let ask = async |frontend: &str, path: &str| gateway.ask(frontend, once(path)).await.status;
    assert_eq!(ask("stats", "/healthz").await, 200);
    // Before any rule, of GET and HEAD alone, and by its whole path.
    assert_eq!(ask("web", "/up").await, 200);
    assert_eq!(ask("web", "/up?x=1").await, 200);
    assert_eq!(ask("web", "/up/").await, 403);
    assert_eq!(gateway.ask("web", post("/up", "x")).await.status, 403);
    assert_eq!(app.requests().len(), 0);

    let ctl = |words: &str| {
        let mut command = gateway_tests::command();
        command.args(["ctl", "--socket"]).arg(&socket).args(words.split(' '));
        assert!(command.output().unwrap().status.success(), "{words}");
    };
    ctl("set server app/a state drain");
    assert_eq!(ask("stats", "/healthz").await, 503);
    assert_eq!(ask("web", "/up").await, 200, "one is left");
    ctl("set server app/b state maint");
    assert_eq!(ask("web", "/up").await, 503);
    ctl("set server app/a state ready");
    assert_eq!(ask("web", "/up").await, 200);
    ctl("set server unused/c state maint");
    assert_eq!(ask("web", "/up").await, 503, "all of them are required");
    ctl("set server unused/c state ready");
    ctl("set server app/b state ready");
    assert_eq!((ask("web", "/up").await, ask("stats", "/healthz").await), (200, 200));

    // Nobody wants these in the log.
    gateway.ask("web", get("/inside")).await;
    let lines = gateway.access_log(3).await;
    let is_ok = |line: &serde_json::Value| line["method"] == "GET" && line["target"] == "/up";
    assert!(!lines.iter().any(is_ok), "{lines:?}");

    // While it ends, others are to take its place.
    let mut kept = gateway.connect("web").await;
    let mut slow = gateway.connect("web").await;
    kept.ask(get("/inside")).await;
    slow.send(get("/slow").bytes()).await;
    eventually("the slow one is under way", async || {
        app.requests().iter().any(|request| request.target == "/slow")
    })
    .await;
    gateway.terminate();
    eventually("the monitor says so", async || ask("stats", "/healthz").await == 503).await;
}

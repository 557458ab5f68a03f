//! WebSocket: libraries of Python and Node as servers, Python's and a browser as clients.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gateway_tests::peer::{Peer, free_address, run};
use gateway_tests::{Answer, Gateway, HttpServer, eventually};
use tempfile::TempDir;

use crate::authority::{Authority, word};

const GATEWAY: &str = r#"
    process { workers 2; log "stdout" format="json" }
    frontend "web" { bind "127.0.0.1:0"; timeout tunnel="30s"; default-backend "chat" }
    frontend "tls" { bind "127.0.0.1:0" { tls cert="@bundle" }; timeout tunnel="30s"; default-backend "chat" }
    backend "chat" { balance "leastconn"; server "python" "@python"; server "node" "@node" }
"#;

#[cfg_attr(
    not(feature = "peers"),
    ignore = "needs python3-websockets and node-ws: --features peers"
)]
#[tokio::test]
async fn libraries_talk_through_the_gateway() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let (python, node) = (free_address(), free_address());
    let _servers = (python_server(python, &directory), node_server(node, &directory));
    let bundle = authority.issue("ws.example").bundle;
    let ca = authority.ca();
    // Each server alone, so that each meets everything; then both at once.
    for servers in [[python, python], [node, node], [python, node]] {
        let gateway = Gateway::kdl(GATEWAY)
            .with("@bundle", word(&bundle))
            .with("@python", servers[0])
            .with("@node", servers[1])
            .start()
            .await;
        let plain = format!("ws://{}", gateway.address("web"));
        let tls = format!("wss://{}", gateway.address("tls"));
        for arguments in [vec![&*plain], vec![&*tls, word(&ca)]] {
            let mut command = Command::new("/usr/bin/python3");
            command.arg(script("websocket_client.py")).args(&arguments);
            let ran = run(command, "", Duration::from_secs(60)).await;
            assert_eq!(ran.ok().trim(), "1610", "{arguments:?}");
        }
        let lines = gateway.access_log(2 * 102).await;
        let is_whole = |line: &serde_json::Value| line["status"] == 101 && line["termination"] == "--";
        assert!(lines.iter().all(is_whole), "{lines:#?}");
        for server in ["python", "node"] {
            gateway
                .metric_is("gateway_server_in_flight", &[("server", server)], 0.0)
                .await;
        }
    }
}

/// HAProxy speaks HTTP/2 to the gateway, and HTTP/1.1 to a WebSocket server behind it.
#[cfg_attr(
    not(feature = "peers"),
    ignore = "needs haproxy, python3-websockets and node-ws: --features peers"
)]
#[tokio::test]
async fn haproxy_takes_websockets_over_http_2() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let (node, between) = (free_address(), free_address());
    let _server = node_server(node, &directory);
    let configuration = format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n  timeout tunnel 30s\n\
         frontend web\n  bind {between} proto h2\n  default_backend chat\n\
         backend chat\n  server node {node}\n"
    );
    let _haproxy = Peer::haproxy(&[], directory.path(), &configuration, Stdio::null(), between);
    let bundle = authority.issue("ws.example").bundle;
    let gateway = Gateway::kdl(
        r#"
        process { workers 2; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; timeout tunnel="30s"; default-backend "chat" }
        frontend "tls" { bind "127.0.0.1:0" { tls cert="@bundle" }; timeout tunnel="30s"; default-backend "chat" }
        backend "chat" { server "haproxy" "@between" h2 }
    "#,
    )
    .with("@bundle", word(&bundle))
    .with("@between", between)
    .start()
    .await;
    let plain = format!("ws://{}", gateway.address("web"));
    let tls = format!("wss://{}", gateway.address("tls"));
    let ca = authority.ca();
    for arguments in [vec![&*plain], vec![&*tls, word(&ca)]] {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script("websocket_client.py")).args(&arguments);
        let ran = run(command, "", Duration::from_secs(60)).await;
        assert_eq!(ran.ok().trim(), "1610", "{arguments:?}");
    }
    let lines = gateway.access_log(2 * 102).await;
    // HAProxy ends a stream whose WebSocket has closed with a reset, behind all of its content.
    let ends = ["--", "SD"];
    let is_whole = |line: &serde_json::Value| {
        line["status"] == 101 && line["termination"].as_str().is_some_and(|end| ends.contains(&end))
    };
    assert!(lines.iter().all(is_whole), "{lines:#?}");
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "haproxy")], 0.0)
        .await;
}

/// What the browser makes of it, it writes into the page and asks for as a file.
const PAGE: &str = r#"<!doctype html><title>WebSocket</title><p id="verdict">nothing yet</p><script>
const say = what => {
    document.getElementById("verdict").textContent = what;
    fetch("/verdict?" + encodeURIComponent(what + " " + document.getElementById("verdict").textContent.length));
};
const big = "x".repeat(1 << 20);
const socket = new WebSocket("wss://" + location.host + "/greet", "chat");
let step = 0;
socket.onmessage = event => {
    step += 1;
    if (step === 1 && event.data === "welcome") socket.send("hello");
    else if (step === 2 && event.data === "hello") socket.send(big);
    else if (step === 3 && event.data === big) socket.close(1000, "done");
    else say("wrong message " + step);
};
socket.onerror = () => say("error");
socket.onclose = event => say([
    "closed", event.code, event.wasClean, socket.protocol, performance.getEntriesByType("navigation")[0].nextHopProtocol,
].join(" "));
</script>"#;

#[cfg_attr(not(feature = "peers"), ignore = "needs chromium and node-ws: --features peers")]
#[tokio::test]
async fn a_browser_opens_a_websocket() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let node = free_address();
    let _server = node_server(node, &directory);
    let bundle = authority.issue("ws.example").bundle;
    for (alpn, version, spoken) in [
        (r#""http/1.1""#, "http/1.1", "HTTP/1.1"),
        (r#""h2" "http/1.1""#, "h2", "HTTP/2.0"),
    ] {
        let app = HttpServer::start(|request| match &*request.target {
            "/" => Answer::ok(PAGE).header("Content-Type", "text/html"),
            _ => Answer::ok(""),
        })
        .await;
        let gateway = Gateway::kdl(
            r#"
            frontend "web" {
                bind "127.0.0.1:0" { tls cert="@bundle"; alpn @alpn }
                acl "is-websocket" { header "Upgrade" "websocket" }
                use-backend "chat" if="is-websocket"
                default-backend "app"
            }
            backend "app" { server "a" "@app" }
            backend "chat" { server "c" "@node" }
        "#,
        )
        .with("@bundle", word(&bundle))
        .with("@alpn", alpn)
        .with("@app", app.address())
        .with("@node", node)
        .start()
        .await;

        let _browser = browser(
            &format!("https://{}/", gateway.address("web")),
            &directory.path().join(version),
        );
        let verdict = || {
            let requests = app.requests();
            let found = requests
                .iter()
                .find_map(|request| request.target.strip_prefix("/verdict?"));
            found.map(|verdict| verdict.replace("%20", " "))
        };
        eventually("the browser's verdict", async || verdict().is_some()).await;
        let expected = format!("closed 1000 true chat {}", version.replace('/', "%2F"));
        let verdict = verdict().unwrap();
        assert!(verdict.starts_with(&expected), "{verdict}");
        eventually("the line of the tunnel", async || {
            let lines = gateway.access_lines();
            lines
                .iter()
                .any(|line| line["backend"] == "chat" && line["termination"] == "--" && line["version"] == spoken)
        })
        .await;
    }
}

fn browser(url: &str, profile: &Path) -> Peer {
    let debugging = free_address();
    std::fs::create_dir_all(profile).unwrap();
    let mut command = Command::new("chromium");
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args(["--disable-dev-shm-usage", "--ignore-certificate-errors"])
        .arg(format!("--user-data-dir={}", profile.display()))
        // Without it, it would be done when the page is loaded.
        .arg(format!("--remote-debugging-port={}", debugging.port()))
        .arg(url)
        .env("HOME", profile);
    Peer::logging(&mut command, debugging, &profile.join("log"))
}

fn python_server(address: SocketAddr, directory: &TempDir) -> Peer {
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(script("websocket_server.py"))
        .arg(address.port().to_string());
    Peer::logging(&mut command, address, &directory.path().join("python.log"))
}

fn node_server(address: SocketAddr, directory: &TempDir) -> Peer {
    let mut command = Command::new("node");
    command
        .arg(script("websocket_server.js"))
        .arg(address.port().to_string())
        // Where Debian has its modules.
        .env("NODE_PATH", "/usr/share/nodejs");
    Peer::logging(&mut command, address, &directory.path().join("node.log"))
}

fn script(name: &str) -> String {
    format!("{}/tests/peers/{name}", env!("CARGO_MANIFEST_DIR"))
}

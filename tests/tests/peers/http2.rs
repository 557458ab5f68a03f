//! HTTP/2 with others' programs: curl and h2load in front of the gateway, nginx and a gRPC server of Python behind it.

use std::process::{Command, Stdio};
use std::time::Duration;

use gateway_tests::peer::{Peer, free_address, run};
use gateway_tests::tls::Authority;
use gateway_tests::{Answer, Gateway, HttpServer, eventually};

const WEB: &str = r#"
    frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
    frontend "tls" { bind "127.0.0.1:0" { tls cert="app.pem" }; default-backend "app" }
    backend "app" { server "app-1" "@app" }
"#;

#[cfg_attr(not(feature = "peers"), ignore = "needs curl: --features peers")]
#[tokio::test]
async fn curl_speaks_http_2_both_ways_of_beginning_it() {
    let app = HttpServer::start(|request| Answer::ok(format!("{} {}", request.method, request.body.len()))).await;
    let authority = Authority::new();
    let gateway = Gateway::kdl(WEB)
        .with("@app", app.address())
        .file("app.pem", authority.issue(&["app.example"]).bundle())
        .start()
        .await;
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let write = "-w %{http_version} %{http_code} ";
    let plain = format!("http://{}/", gateway.address("web"));
    let tls = gateway.address("tls");
    let resolve = format!("app.example:{}:127.0.0.1", tls.port());
    let secure = format!("https://app.example:{}/", tls.port());
    let content = vec![b'x'; 3 << 20];

    for (arguments, url) in [
        (vec!["--http2-prior-knowledge"], &plain),
        (
            vec!["--http2", "--cacert", ca.to_str().unwrap(), "--resolve", &resolve],
            &secure,
        ),
    ] {
        let got = curl(&arguments, &["-s", write, url], b"").await;
        assert_eq!(got, "GET 0 2 200 ");
        let posted = curl(&arguments, &["-s", write, "--data-binary", "@-", url], &content).await;
        assert_eq!(posted, format!("POST {} 2 200 ", content.len()));
        let head = curl(&arguments, &["-s", "-I", url], b"").await;
        assert!(head.starts_with("HTTP/2 200"), "{head}");
    }
    // A second request on the connection; without TLS, curl before 8.0 fails at that with every server.
    let again = ["--http2", "--cacert", ca.to_str().unwrap(), "--resolve", &resolve];
    let got = curl(&again, &["-s", "-w", " %{num_connects} ", &secure, &secure], b"").await;
    assert_eq!(got, "GET 0 1 GET 0 0 ");
    let old = curl(&["--http1.1"], &["-s", write, &plain], b"").await;
    assert_eq!(old, "GET 0 1.1 200 ");
}

#[cfg_attr(not(feature = "peers"), ignore = "needs h2load: --features peers")]
#[tokio::test]
async fn h2load_gets_every_answer() {
    let app = HttpServer::answering("hello").await;
    let authority = Authority::new();
    let gateway = Gateway::kdl(WEB)
        .with("@app", app.address())
        .file("app.pem", authority.issue(&["app.example"]).bundle())
        .start()
        .await;
    for url in [
        format!("http://{}/", gateway.address("web")),
        format!("https://{}/", gateway.address("tls")),
    ] {
        let mut command = Command::new("h2load");
        command.args(["-n", "5000", "-c", "8", "-m", "32", &url]);
        let said = run(command, b"", Duration::from_secs(120)).await.ok();
        assert!(
            said.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"),
            "{said}"
        );
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs nginx and curl: --features peers")]
#[tokio::test]
async fn nginx_is_a_server_of_http_2() {
    let directory = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..5 << 20).map(|n: u32| (n * 37 % 251) as u8).collect();
    std::fs::write(directory.path().join("large"), &content).unwrap();
    let address = free_address();
    // A connection ends after each hundredth request, as nginx's do.
    let configuration = format!(
        "worker_processes 1;\nevents {{ worker_connections 1024; }}\nhttp {{ access_log off; keepalive_requests 100; \
         server {{ listen {address} http2; root {}; location /hello {{ return 200 $server_protocol; }} }} }}",
        directory.path().display()
    );
    let _nginx = Peer::nginx(&[], directory.path(), &configuration, address);
    let gateway = Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "nginx" "@nginx" h2 }
    "#,
    )
    .with("@nginx", address)
    .start()
    .await;
    let url = format!("http://{}", gateway.address("web"));
    let mut large = Command::new("curl");
    large.args(["-s", "--max-time", "60", "-o", "-", &format!("{url}/large")]);
    let fetched = tokio::task::spawn_blocking(move || large.stdout(Stdio::piped()).output().unwrap());
    assert!(fetched.await.unwrap().stdout == content, "the file differs");
    let many = format!("{url}/hello?[1-1000]");
    let said = curl(&[], &["-s", "-w", " %{http_code}\n", &many], b"").await;
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 1000);
    assert!(
        lines.iter().all(|line| *line == "HTTP/2.0 200"),
        "{:?}",
        lines.iter().find(|line| **line != "HTTP/2.0 200")
    );
}

#[cfg_attr(not(feature = "peers"), ignore = "needs python3-grpcio: --features peers")]
#[tokio::test]
async fn grpc_calls_of_every_kind_pass() {
    // Debian's python3, which has the module.
    const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/grpc_calls.py");
    let address = free_address();
    let mut server = Command::new("/usr/bin/python3");
    server.args([SCRIPT, "serve", &address.port().to_string()]);
    let _server = Peer::start(&mut server, address);
    let authority = Authority::new();
    let gateway = Gateway::kdl(
        r#"
        frontend "plain" { bind "127.0.0.1:0"; deny { path "/test.Echo/Denied" }; default-backend "grpc" }
        frontend "tls" { bind "127.0.0.1:0" { tls cert="app.pem" }; deny { path "/test.Echo/Denied" }; default-backend "grpc" }
        frontend "other" { bind "127.0.0.1:0"; default-backend "other" }
        backend "grpc" { check "grpc" service="test.Echo" interval="1s"; server "grpc-1" "@grpc" h2 }
        backend "other" { check "grpc" service="test.Other" interval="1s"; server "grpc-2" "@grpc" h2 }
    "#,
    )
    .with("@grpc", address)
    .file("app.pem", authority.issue(&["app.example"]).bundle())
    .start()
    .await;
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    for arguments in [
        vec![gateway.address("plain").to_string()],
        vec![gateway.address("tls").to_string(), ca.to_str().unwrap().to_owned()],
    ] {
        let mut client = Command::new("/usr/bin/python3");
        client.args([SCRIPT, "call"]).args(&arguments);
        let said = run(client, b"", Duration::from_secs(120)).await.ok();
        assert_eq!(said.trim(), "ok");
    }
    gateway
        .metric_is("gateway_server_up", &[("server", "grpc-2")], 0.0)
        .await;
    gateway.says(r#"gRPC status 5: \"unknown service\""#).await;
    gateway
        .metric_is("gateway_server_up", &[("server", "grpc-1")], 1.0)
        .await;
    // Each call is a line.
    eventually("the lines", async || {
        let lines = gateway.access_lines();
        lines.iter().filter(|line| line["target"] == "/test.Echo/Unary").count() > 1000
    })
    .await;
    assert!(gateway.access_lines().iter().all(|line| line["version"] == "HTTP/2.0"));
}

async fn curl(before: &[&str], arguments: &[&str], input: &[u8]) -> String {
    let mut command = Command::new("curl");
    command.args(["--max-time", "60"]).args(before).args(arguments);
    run(command, input, Duration::from_secs(70)).await.ok()
}

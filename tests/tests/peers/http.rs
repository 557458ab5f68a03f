//! HTTP and files: nginx behind the gateway, curl in front of it.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gateway_tests::peer::{Peer, free_address, run};
use gateway_tests::{Answer, Client, Gateway, HttpServer, get, within};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const BOTH_MODES: &str = r#"
    frontend "web" { bind "127.0.0.1:0"; default-backend "files" }
    frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "files-raw" }
    backend "files" { check "http" interval="200ms" { send "GET" "/small/0"; expect status=200 }; server "nginx" "@nginx" }
    backend "files-raw" { mode "tcp"; check "tcp" interval="1s"; server "nginx" "@nginx" }
"#;

#[cfg_attr(not(feature = "peers"), ignore = "needs nginx and curl: --features peers")]
#[tokio::test]
async fn a_gigabyte_from_nginx_arrives_whole() {
    const SIZE: usize = 1 << 30;
    let directory = tempfile::tempdir().unwrap();
    small_files(directory.path(), 1);
    let digest = large_file(&directory.path().join("large"), SIZE);
    let nginx = Nginx::serving(directory);
    let gateway = Gateway::kdl(BOTH_MODES).with("@nginx", nginx.address).start().await;

    for frontend in ["web", "raw"] {
        let url = format!("http://{}/large", gateway.address(frontend));
        let fetched = tokio::task::spawn_blocking(move || fetch(&url));
        let (size, fetched) = within(Duration::from_secs(120), "the file", fetched).await.unwrap();
        assert_eq!(size, SIZE, "through {frontend}");
        assert!(fetched == digest, "through {frontend}: the checksum differs");
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs nginx and curl: --features peers")]
#[tokio::test]
async fn ten_thousand_files_from_nginx_arrive_whole() {
    const FILES: usize = 10_000;
    let directory = tempfile::tempdir().unwrap();
    small_files(directory.path(), FILES);
    let nginx = Nginx::serving(directory);
    let gateway = Gateway::kdl(BOTH_MODES).with("@nginx", nginx.address).start().await;

    for frontend in ["web", "raw"] {
        let address = gateway.address(frontend);
        let clients: Vec<_> = (0..8)
            .map(|client| {
                tokio::spawn(async move {
                    let mut connection = Client::connect(address).await;
                    for n in (client..FILES).step_by(8) {
                        let answer = connection.ask(get(&format!("/small/{n}"))).await;
                        assert_eq!(answer.status, 200);
                        assert!(answer.body == small(n), "file {n} differs");
                    }
                })
            })
            .collect();
        for client in clients {
            within(Duration::from_secs(120), "all files", client).await.unwrap();
        }
    }
    assert_eq!(
        gateway
            .metrics()
            .await
            .get("gateway_server_connect_errors_total", &[])
            .unwrap_or(0.0),
        0.0
    );
}

#[cfg_attr(not(feature = "peers"), ignore = "needs nginx and curl: --features peers")]
#[tokio::test]
async fn nginx_answers_ranges_conditions_and_errors_through_the_gateway() {
    let directory = tempfile::tempdir().unwrap();
    small_files(directory.path(), 2);
    let nginx = Nginx::serving(directory);
    let gateway = Gateway::kdl(BOTH_MODES).with("@nginx", nginx.address).start().await;

    let whole = gateway.ask("web", get("/small/1")).await;
    let part = gateway.ask("web", get("/small/1").header("Range", "bytes=1-3")).await;
    assert_eq!((part.status, part.body.as_slice()), (206, &small(1)[1..4]));
    let etag = whole.header("etag").unwrap();
    assert_eq!(
        gateway
            .ask("web", get("/small/1").header("If-None-Match", etag))
            .await
            .status,
        304
    );
    assert_eq!(gateway.ask("web", get("/missing")).await.status, 404);
}

#[cfg_attr(not(feature = "peers"), ignore = "needs nginx and curl: --features peers")]
#[tokio::test]
async fn curl_keeps_its_connection() {
    let app = HttpServer::answering("x").await;
    let gateway = plain(&app).await;
    let url = format!("http://{}", gateway.address("web"));

    let output = curl(
        &["-s", "-w", "%{http_code} %{num_connects} ", &format!("{url}/[1-5]")],
        b"",
    )
    .await;

    assert_eq!(output, "x200 1 x200 0 x200 0 x200 0 x200 0 ");
}

#[cfg_attr(not(feature = "peers"), ignore = "needs nginx and curl: --features peers")]
#[tokio::test]
async fn curl_heads_posts_and_uploads() {
    let app = HttpServer::start(|request| {
        let digest = Sha256::digest(&request.body);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Answer::ok(format!("{} {} {hex}", request.method, request.body.len()))
    })
    .await;
    let gateway = plain(&app).await;
    let url = format!("http://{}/upload", gateway.address("web"));
    // Beyond a megabyte curl asks with `Expect: 100-continue` before it sends.
    let content: Vec<u8> = (0..3 << 20).map(|n: u32| (n * 17 % 241) as u8).collect();
    let hex: String = Sha256::digest(&content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();

    let head = curl(&["-s", "-I", &url], b"").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let posted = curl(
        &["-s", "--expect100-timeout", "10", "--data-binary", "@-", &url],
        &content,
    )
    .await;
    assert_eq!(posted, format!("POST {} {hex}", content.len()));
    assert!(app.last().headers.has("content-length"));
    let expected = curl(
        &[
            "-s",
            "-H",
            "Expect: 100-continue",
            "--expect100-timeout",
            "10",
            "--data-binary",
            "@-",
            &url,
        ],
        b"abc",
    )
    .await;
    assert!(expected.starts_with("POST 3 "), "{expected}");
    let uploaded = curl(&["-s", "-T", "-", &url], &content).await;
    assert_eq!(uploaded, format!("PUT {} {hex}", content.len()));
    assert!(
        app.last().headers.has("transfer-encoding"),
        "standard input has no length: curl sends chunks"
    );
}

struct Nginx {
    address: SocketAddr,
    _peer: Peer,
    _directory: TempDir,
}

impl Nginx {
    fn serving(directory: TempDir) -> Self {
        let address = free_address();
        let configuration = format!(
            "worker_processes 1;\nevents {{ worker_connections 1024; }}\nhttp {{ access_log off; sendfile on; \
             keepalive_requests 1000000; server {{ listen {address}; root {}; }} }}",
            directory.path().display()
        );
        Self {
            address,
            _peer: Peer::nginx(&[], directory.path(), &configuration, address),
            _directory: directory,
        }
    }
}

async fn plain(app: &HttpServer) -> Gateway {
    Gateway::kdl(
        r#"
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await
}

/// Runs curl with this on its standard input; says what it wrote.
async fn curl(arguments: &[&str], input: &[u8]) -> String {
    let mut command = Command::new("curl");
    command.args(["--max-time", "60"]).args(arguments);
    run(command, input, Duration::from_secs(70)).await.ok()
}

/// Fetches with curl: how many bytes, and their digest.
fn fetch(url: &str) -> (usize, Vec<u8>) {
    let mut child = Command::new("curl")
        .args(["-s", "--fail", "--max-time", "110", url])
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl; install it: apt-get install curl");
    let mut pipe = child.stdout.take().unwrap();
    let (mut digest, mut size, mut block) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let n = pipe.read(&mut block).unwrap();
        if n == 0 {
            break;
        }
        size += n;
        digest.update(&block[..n]);
    }
    assert!(child.wait().unwrap().success(), "curl {url}");
    (size, digest.finalize().to_vec())
}

/// Writes a file in which no two blocks are the same; its digest.
fn large_file(path: &Path, size: usize) -> Vec<u8> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut digest = Sha256::new();
    let mut block: Vec<u8> = (0..1 << 16).map(|n: u32| (n * 37 % 251) as u8).collect();
    for n in 0..size >> 16 {
        block[..8].copy_from_slice(&(n as u64).to_le_bytes());
        file.write_all(&block).unwrap();
        digest.update(&block);
    }
    file.flush().unwrap();
    digest.finalize().to_vec()
}

fn small_files(directory: &Path, count: usize) {
    std::fs::create_dir(directory.join("small")).unwrap();
    for n in 0..count {
        std::fs::write(directory.join("small").join(n.to_string()), small(n)).unwrap();
    }
}

/// Between nothing and 8 KiB, each file its own.
fn small(n: usize) -> Vec<u8> {
    let text = format!("file {n};");
    text.bytes().cycle().take(n * 97 % 8192).collect()
}

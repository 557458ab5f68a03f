//! An application in Python (aiohttp) behind the gateway, curl in front of it: over HTTP/1.1, and over HTTP/2 in TLS.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use gateway_tests::Gateway;
use gateway_tests::peer::{Peer, free_address, run};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::authority::{Authority, word};

#[cfg_attr(not(feature = "peers"), ignore = "needs python3-aiohttp and curl: --features peers")]
#[tokio::test]
async fn an_application_of_python_is_served_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let bundle = authority.issue("app.example").bundle;
    let address = free_address();
    let _app = application(address, &directory);
    let gateway = Gateway::kdl(
        r#"
        defaults {
            mode "http"
            timeout connect="5s" client="20s" server="20s" http-request="10s" http-keep-alive="20s"
            forwarded-for
        }
        frontend "plain" { bind "127.0.0.1:0"; default-backend "app" }
        frontend "tls" { bind "127.0.0.1:0" { tls cert="@bundle" }; default-backend "app" }
        backend "app" {
            check "http" interval="500ms" { send "GET" "/told"; expect status=200 body-contains="GET" }
            server "app-1" "@app"
        }
    "#,
    )
    .with("@bundle", word(&bundle))
    .with("@app", address)
    .start()
    .await;
    let upload = directory.path().join("upload");
    let content: Vec<u8> = (0..20_000_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(&upload, &content).unwrap();
    let sum: String = Sha256::digest(&content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for (scheme, frontend, version) in [("http", "plain", "--http1.1"), ("https", "tls", "--http2")] {
        let port = gateway.address(frontend).port();
        let at = |path: &str| format!("{scheme}://app.example:{port}{path}");
        let curl = async |arguments: &[&str]| -> String {
            let mut command = Command::new("curl");
            command
                .args(["-sS", "--max-time", "30", version, "--resolve"])
                .arg(format!("app.example:{port}:127.0.0.1"))
                .arg("--cacert")
                .arg(authority.ca())
                .args(arguments);
            run(command, "", Duration::from_secs(40)).await.ok()
        };
        let json = |text: &str| -> Value { serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}")) };

        let told = json(&curl(&["-b", "a=1; b=2", &at("/told?x=%20y")]).await);
        assert_eq!(
            (&told["method"], &told["path"]),
            (&"GET".into(), &"/told?x=%20y".into())
        );
        assert_eq!(told["host"], format!("app.example:{port}"));
        assert_eq!(told["forwarded-for"][0], "127.0.0.1");
        assert_eq!(told["cookies"], serde_json::json!({ "a": "1", "b": "2" }), "{version}");

        // Of a length that is known, and of one that is not.
        let file = format!("@{}", upload.display());
        for (more, chunked) in [
            (&["-H", "Expect: 100-continue"][..], false),
            (&["-H", "Transfer-Encoding: chunked"], true),
        ] {
            // HTTP/2 has no chunks, and curl says the length all the same.
            if chunked && version == "--http2" {
                continue;
            }
            let url = at("/digest");
            let arguments = [&["--data-binary", &file][..], more, &[&url]].concat();
            let read = json(&curl(&arguments).await);
            assert_eq!(
                (&read["size"], &read["chunked"]),
                (&content.len().into(), &chunked.into()),
                "{version}"
            );
            assert_eq!(read["sha256"], sum.as_str(), "{version}");
        }

        let events = curl(&["-N", &at("/events")]).await;
        assert_eq!(
            events,
            (0..5).map(|i| format!("data: {i}\n\n")).collect::<String>(),
            "{version}"
        );

        // A browser's form, and where it is sent then, with the cookie that it got.
        let form = format!("file=@{}", upload.display());
        let jar = directory.path().join(format!("jar{version}"));
        let seen = json(&curl(&["-L", "-c", word(&jar), "-F", "name=one", "-F", &form, &at("/form")]).await);
        assert_eq!(seen["method"], "GET");
        assert_eq!(seen["path"], format!("/told?name=one&bytes={}", content.len()));
        assert_eq!(seen["cookies"]["session"], "s-1", "{version}");

        let failed = curl(&["-o", "/dev/null", "-w", "%{http_code} %{http_version}", &at("/broken")]).await;
        let expected = if version == "--http2" { "500 2" } else { "500 1.1" };
        assert_eq!(failed, expected);
    }
    // Nothing of it went wrong on the way.
    let lines = gateway.access_lines();
    assert!(lines.iter().all(|line| line["termination"] == "--"), "{lines:?}");
}

fn application(address: SocketAddr, directory: &TempDir) -> Peer {
    // Debian's python3, which has the module.
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(format!("{}/tests/peers/application.py", env!("CARGO_MANIFEST_DIR")))
        .arg(address.port().to_string());
    Peer::logging(&mut command, address, &directory.path().join("application.log"))
}

//! Compressed responses, undone by curl and by Python's own decoder.

use std::process::Command;

use gateway_tests::peer::run;
use gateway_tests::{Answer, Gateway, HttpServer, PATIENCE};

fn page() -> String {
    let rows = (0u64..8_000).map(|i| format!("<li>{}</li>\n", i.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    rows.collect()
}

#[cfg_attr(not(feature = "peers"), ignore = "needs curl and python3: --features peers")]
#[tokio::test]
async fn curl_and_python_get_what_the_server_sent() {
    let app = HttpServer::start(|_| Answer::ok(page()).header("Content-Type", "text/html")).await;
    for coding in ["br", "zstd", "gzip"] {
        let gateway = Gateway::kdl(
            r#"
            frontend "web" { bind "127.0.0.1:0"; compress "@coding"; default-backend "app" }
            backend "app" { server "app-1" "@app" }
        "#,
        )
        .with("@coding", coding)
        .with("@app", app.address())
        .start()
        .await;
        let url = format!("http://{}/", gateway.address("web"));
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--compressed", "-D", "/dev/stderr", &url]);
        let fetched = run(curl, "", PATIENCE).await;
        let head = fetched.stderr.to_lowercase();
        assert!(head.contains(&format!("content-encoding: {coding}")), "{head}");
        assert!(fetched.ok() == page(), "curl with {coding}");
        if coding == "gzip" {
            let script = "import gzip, sys, urllib.request as u\n\
                r = u.urlopen(u.Request(sys.argv[1], headers={'Accept-Encoding': 'gzip'}))\n\
                assert r.headers['Content-Encoding'] == 'gzip'\n\
                sys.stdout.buffer.write(gzip.decompress(r.read()))\n";
            let mut python = Command::new("python3");
            python.args(["-c", script, &url]);
            assert!(run(python, "", PATIENCE).await.ok() == page(), "python");
        }
    }
}

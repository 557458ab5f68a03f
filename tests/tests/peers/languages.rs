//! Plugins that are not written in Rust: those of examples/plugins, built as its README says.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use gateway_tests::{Gateway, HttpServer, get};

fn example(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/plugins")
        .join(language)
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&said)
    );
}

/// The component does what the example's fixtures expect.
fn meets_its_fixtures(component: &Path, language: &str) {
    succeeds(
        gateway_tests::command()
            .args(["plugin", "test"])
            .arg(component)
            .arg(example(language).join("fixtures")),
    );
}

#[cfg_attr(not(feature = "peers"), ignore = "needs clang and lld: --features peers")]
#[tokio::test]
async fn a_plugin_in_c_takes_out_what_follows_people_around() {
    let directory = tempfile::tempdir().unwrap();
    let module = directory.path().join("tracking.module.wasm");
    succeeds(
        Command::new("clang")
            .args(["--target=wasm32", "-Os", "-nostdlib", "-Wall", "-Wextra", "-Werror"])
            .args(["-Wl,--no-entry,--stack-first,-z,stack-size=16384", "-o"])
            .arg(&module)
            .arg(example("c").join("tracking.c")),
    );
    let component = directory.path().join("tracking.wasm");
    succeeds(
        gateway_tests::command()
            .args(["plugin", "build"])
            .arg(&module)
            .args(["--world", "tracking", "--wit"])
            .arg(example("c").join("wit/world.wit"))
            .arg("-o")
            .arg(&component),
    );
    meets_its_fixtures(&component, "c");
    let component = std::fs::read(component).unwrap();
    let app = HttpServer::answering("x").await;
    let kdl = r#"
        plugin "tracking" "tracking.wasm" { isolation "reuse"; on-failure "deny"; config { @param } }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "tracking"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#;
    let with = |param: &str| {
        let builder = Gateway::kdl(kdl).with("@app", app.address()).with("@param", param);
        builder.file("tracking.wasm", &component)
    };
    let gateway = with(r#"param "utm_*" "gclid""#).start().await;

    for (target, expected) in [
        ("/", "/"),
        ("/?", "/?"),
        ("/?a=1&b=2", "/?a=1&b=2"),
        ("/?utm_source=x", "/"),
        ("/?a=1&utm_source=x&b=2&gclid=3", "/?a=1&b=2"),
        ("/?gclid&gclids=1&utm=2", "/?gclids=1&utm=2"),
        ("/?a=utm_source=x&=&&", "/?a=utm_source=x&=&&"),
    ] {
        assert_eq!(gateway.ask("web", get(target)).await.status, 200, "{target}");
        assert_eq!(app.last().target, expected, "{target}");
    }
    // The memory of a call is given back: an instance that kept it would be over its limit.
    let long = format!("/?gclid=1&{}", "a=1&".repeat(1_000));
    let mut client = gateway.connect("web").await;
    for _ in 0..6_000 {
        assert_eq!(client.ask(get(&long)).await.status, 200);
    }

    for param in [r#"params "a""#, r#"param """#, r"param 1"] {
        let refused = with(param).refused().await;
        assert_eq!(refused.code, Some(1), "{param}");
        assert!(refused.output.contains("param"), "{param}: {}", refused.output);
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs node and componentize-js: --features peers")]
#[tokio::test]
async fn a_plugin_in_javascript_sends_visitors_to_the_page_in_their_language() {
    let directory = tempfile::tempdir().unwrap();
    let component = directory.path().join("language.wasm");
    succeeds(
        Command::new("node")
            .arg(example("javascript").join("build.mjs"))
            .arg(&component),
    );
    meets_its_fixtures(&component, "javascript");
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; policy memory="64MiB" instances=8 }
        plugin "language" "language.wasm" {
            limit memory="64MiB" cpu="1s"
            isolation "reuse"
            on-failure "deny"
            config { language "en" "de" "pt-br" }
        }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "language"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("language.wasm", std::fs::read(component).unwrap())
    .start()
    .await;

    for (accept, cookie, location) in [
        ("", "", "/en/"),
        ("de", "", "/de/"),
        ("fr, de;q=0.5, en;q=0.4", "", "/de/"),
        ("en;q=0.1,de-AT", "", "/de/"),
        ("PT-BR", "", "/pt-br/"),
        ("pt;q=1, *", "", "/en/"),
        ("de;q=0", "", "/en/"),
        ("de", "lang=pt-br", "/pt-br/"),
        ("de", "lang=xx", "/de/"),
        (";;;,,,q=q=q", "=;=", "/en/"),
    ] {
        let request = get("/").header("Accept-Language", accept).header("Cookie", cookie);
        let answer = gateway.ask("web", request).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (302, Some(location)),
            "{accept}; {cookie}"
        );
        assert_eq!(answer.header("vary"), Some("Accept-Language, Cookie"));
    }
    assert!(app.requests().is_empty());
    assert_eq!(gateway.ask("web", get("/de/")).await.status, 200);
}

#[cfg_attr(not(feature = "peers"), ignore = "needs componentize-py: --features peers")]
#[tokio::test]
async fn a_plugin_in_python_tells_signed_links_from_others() {
    const KEY: &str = "at least sixteen characters";
    let directory = tempfile::tempdir().unwrap();
    let (wit, component) = (directory.path().join("wit"), directory.path().join("signed-links.wasm"));
    std::fs::create_dir_all(wit.join("deps")).unwrap();
    std::fs::copy(example("python").join("wit/world.wit"), wit.join("world.wit")).unwrap();
    // Not where it is: Python leaves what it has compiled beside it.
    let app = directory.path().join("app");
    std::fs::create_dir(&app).unwrap();
    std::fs::copy(example("python").join("signed_links.py"), app.join("signed_links.py")).unwrap();
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/policy.wit");
    std::fs::copy(contract, wit.join("deps/policy.wit")).unwrap();
    succeeds(
        Command::new("componentize-py")
            .arg("-d")
            .arg(&wit)
            .args(["-w", "links", "componentize", "--stub-wasi", "-p"])
            .arg(&app)
            .args(["signed_links", "-o"])
            .arg(&component),
    );
    meets_its_fixtures(&component, "python");
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; policy memory="64MiB" instances=8 }
        plugin "links" "signed-links.wasm" {
            grant "clock"
            limit memory="64MiB" cpu="1s"
            isolation "reuse"
            on-failure "deny"
            config { key "@key" }
        }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "signed" { plugin "links" predicate="signed" }
            deny status=403 unless="signed"
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .with("@key", KEY)
    .file("signed-links.wasm", std::fs::read(component).unwrap())
    .start()
    .await;

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let link = |path: &str, expires: u64, key: &str| {
        let link = format!("{path}?expires={expires}");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), link.as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{link}&signature={hex}")
    };
    let good = link("/file", now + 600, KEY);
    for (target, status) in [
        (good.clone(), 200),
        (link("/file", now - 600, KEY), 403),
        (link("/file", now + 600, "another key of sixteen"), 403),
        (good.replace("/file", "/other"), 403),
        (format!("{good}&expires={}", now + 9999), 403),
        (format!("{good}&signature=0"), 403),
        ("/file?expires=x&signature=%ff%00".to_owned(), 403),
        ("/file".to_owned(), 403),
    ] {
        assert_eq!(gateway.ask("web", get(&target)).await.status, status, "{target}");
    }
}

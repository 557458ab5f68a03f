//! `gateway plugin new`, and everything that an author does then, down to a request that is turned away. Compilers are the
//! peers here.

use std::path::{Path, PathBuf};
use std::process::Command;

use gateway_tests::{Builder, Client, Gateway, delete, get, post};
use serde_json::Value;
use tempfile::TempDir;

/// A project that has been written and built.
struct Project {
    folder: TempDir,
    /// Its component's file.
    component: String,
}

impl Project {
    /// Has a project written.
    fn new(name: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = gateway_tests::command();
        command.args(["plugin", "new", name]).arg(folder.path()).args(flags);
        succeeds(&mut command);
        Self {
            folder,
            component: format!("{}.wasm", name.replace('-', "_")),
        }
    }

    /// One in Rust, built as its README says, with the versions of crates that are here.
    fn in_rust(hook: &str) -> Self {
        let sdk = root().join("plugin-sdk");
        let name = format!("new-{hook}");
        let project = Self::new(&name, &["--hook", hook, "--sdk", sdk.to_str().unwrap()]);
        std::fs::copy(root().join("Cargo.lock"), project.path("Cargo.lock")).unwrap();
        let mut build = gateway_tests::command();
        build.args(["plugin", "build", "--", "--quiet", "--target-dir", &target_dir()]);
        succeeds(build.current_dir(project.folder.path()));
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A gateway with the configuration that was written, on a free port; once the fixtures that were written have passed.
    fn gateway(&self) -> Builder {
        self.gateway_with("", "", str::to_owned)
    }

    /// The same with another edit, and one address in the place of another.
    fn gateway_with(&self, address: &str, by: &str, edit: impl Fn(&str) -> String) -> Builder {
        let mut test = gateway_tests::command();
        test.args(["plugin", "test", &self.component]);
        succeeds(test.current_dir(self.folder.path()));
        let text = std::fs::read_to_string(self.path("gateway.kdl")).unwrap();
        assert!(text.contains("\"127.0.0.1:8080\""), "{text}");
        let component = std::fs::read(self.path(&self.component)).unwrap();
        let text = edit(&text).replace("127.0.0.1:8080", "127.0.0.1:0");
        let text = if address.is_empty() {
            text
        } else {
            text.replace(address, by)
        };
        // An interpreter on a machine that is busy with other tests.
        let text = text.replace("cpu=\"100ms\"", "cpu=\"1s\"");
        Gateway::kdl(&text).file(&self.component, component)
    }

    /// What the plugin does not take is told at the start.
    async fn refuses_other_configurations(&self) {
        let text = std::fs::read_to_string(self.path("gateway.kdl")).unwrap();
        let component = std::fs::read(self.path(&self.component)).unwrap();
        for config in [r#"alow "GET""#, r#"allow """#, "allow 1"] {
            let text = text.replace(r#"allow "GET" "HEAD""#, config);
            assert!(text.contains(config));
            let refused = Gateway::kdl(&text).file(&self.component, &component).refused().await;
            assert_eq!(refused.code, Some(1), "{config}");
            let by_the_plugin = refused.output.contains("plugin \"geo-fence\": ");
            assert!(by_the_plugin, "{config}: {}", refused.output);
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Kept from one run to the next, and shared: what plugins depend on is compiled once.
fn target_dir() -> String {
    format!("{}/new-plugin", env!("CARGO_TARGET_TMPDIR"))
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// What a request filter's project promises, in whatever language.
async fn turns_away_what_is_not_allowed(gateway: &Gateway, name: &str) {
    let refused = gateway.ask("www", delete("/")).await;
    assert_eq!(
        (refused.status, refused.text()),
        (403, format!("{name} says no\n").as_str())
    );
    let passed = gateway.ask("www", get("/")).await;
    assert_eq!(passed.status, 200);
    let seen = format!("header: x-checked-by: {name}\n");
    assert!(passed.text().contains(&seen), "{}", passed.text());
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_request_filter_in_rust_turns_away_a_request() {
    let project = Project::in_rust("request-filter");
    // Its own tests, by its author's compiler.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(project.folder.path())
        .args(["test", "--quiet", "--target-dir", &target_dir()]);
    succeeds(&mut cargo);
    let gateway = project.gateway().start().await;
    turns_away_what_is_not_allowed(&gateway, "new-request-filter").await;
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn new_predicates_in_rust_turn_away_a_request() {
    let gateway = Project::in_rust("predicates").gateway().start().await;
    assert_eq!(gateway.ask("www", delete("/")).await.status, 403);
    assert_eq!(gateway.ask("www", get("/")).await.status, 200);
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_limiter_in_rust_turns_away_the_fourth_request() {
    let gateway = Project::in_rust("limiter").gateway().start().await;
    for expected in [200, 200, 200, 429] {
        assert_eq!(gateway.ask("www", get("/")).await.status, expected);
    }
    let refused = gateway.ask("www", get("/")).await;
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.header("ratelimit-policy"), Some("\"new-limiter\";q=3;w=60"));
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_response_filter_in_rust_keeps_in_what_a_server_says() {
    let gateway = Project::in_rust("response-filter").gateway().start().await;
    let hidden = gateway.ask("www", get("/status/500")).await;
    assert_eq!(
        (hidden.status, hidden.text()),
        (500, "new-response-filter says no more\n")
    );
    let passed = gateway.ask("www", get("/")).await;
    assert_eq!(passed.header("x-checked-by"), Some("new-response-filter"));
    assert!(passed.text().contains("server: app-1"));
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_request_body_filter_in_rust_turns_away_what_is_not_wanted() {
    let gateway = Project::in_rust("request-body-filter").gateway().start().await;
    let refused = gateway.ask("www", post("/", "hello <script>")).await;
    assert_eq!(
        (refused.status, refused.text()),
        (403, "new-request-body-filter does not take this\n")
    );
    let passed = gateway.ask("www", post("/", "hello")).await;
    assert!(passed.text().contains("body: 5 bytes\n"), "{}", passed.text());
    assert_eq!(gateway.ask("www", post("/", vec![b'x'; 65_537])).await.status, 413);
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_response_body_filter_in_rust_puts_another_text_in_place_of_one() {
    let gateway = Project::in_rust("response-body-filter").gateway().start().await;
    let answer = gateway.ask("www", get("/?app-1")).await;
    assert!(
        answer
            .text()
            .starts_with("server: somewhere\nrequest: GET /?somewhere "),
        "{}",
        answer.text()
    );
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_plugin_in_rust_lets_another_service_decide() {
    let project = Project::in_rust("call-answered");
    // The service of the project's own configuration, on a port that is free, and in front of it the same again.
    let service = project.gateway_with("127.0.0.1:8081", "127.0.0.1:0", |text| {
        text.replace(
            "server \"auth-1\" \"127.0.0.1:8081\"",
            "server \"auth-1\" \"127.0.0.1:1\"",
        )
    });
    let service = service.start().await;
    let address = service.address("auth").to_string();
    let gateway = project.gateway_with("127.0.0.1:8081", &address, |text| {
        text.replace("bind \"127.0.0.1:8081\"", "bind \"127.0.0.1:0\"")
    });
    let gateway = gateway.start().await;
    assert_eq!(gateway.ask("www", get("/")).await.status, 401);
    let with = |token: &str| get("/").header("authorization", token).header("x-user", "root");
    let refused = gateway.ask("www", with("Bearer guess")).await;
    assert_eq!((refused.status, refused.text()), (403, "new-call-answered says no\n"));
    let passed = gateway.ask("www", with("Bearer s3cret")).await;
    assert!(passed.text().contains("header: x-user: ada\n"), "{}", passed.text());
    assert!(!passed.text().contains("root"), "{}", passed.text());
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_access_log_in_rust_tells_of_what_was_turned_away() {
    let gateway = Project::in_rust("access-log").gateway().start().await;
    assert_eq!(gateway.ask("www", get("/")).await.status, 200);
    assert_eq!(gateway.ask("www", get("/private")).await.status, 403);
    gateway.says("127.0.0.1 got 403 for GET /private").await;
    assert!(!gateway.output().contains(" got 200 "));
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_connection_filter_in_rust_lets_in_who_is_known() {
    let project = Project::in_rust("connection-filter");
    let gateway = project.gateway().start().await;
    let mut client = gateway.connect("www").await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    assert!(Client::is_turned_away(gateway.address("www"), [127, 0, 0, 2]).await);
}

#[cfg_attr(not(feature = "peers"), ignore = "needs clang and lld: --features peers")]
#[tokio::test]
async fn a_new_plugin_in_c_turns_away_a_request() {
    let project = Project::new("geo-fence", &["--lang", "c"]);
    let warnings = Command::new("clang")
        .args(["--target=wasm32", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic"])
        .arg(project.path("plugin.c"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&warnings.stderr), "");
    let gateway = gateway_tests::command();
    succeeds(
        Command::new("sh")
            .arg(project.path("build.sh"))
            .env("GATEWAY", gateway.get_program()),
    );
    let gateway = project.gateway().start().await;
    turns_away_what_is_not_allowed(&gateway, "geo-fence").await;
    // The memory of a call is given back: an instance that kept it would be over its limit.
    let mut client = gateway.connect("www").await;
    for _ in 0..1_000 {
        assert_eq!(client.ask(get("/")).await.status, 200);
    }
    project.refuses_other_configurations().await;
}

#[cfg_attr(not(feature = "peers"), ignore = "needs node and componentize-js: --features peers")]
#[tokio::test]
async fn a_new_plugin_in_javascript_turns_away_a_request() {
    let project = Project::new("geo-fence", &["--lang", "js"]);
    // What npm would fetch, at the same versions, has been installed for the example.
    let example = root().join("examples/plugins/javascript");
    let wants = |file: PathBuf| -> Value {
        let package: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        package["dependencies"].clone()
    };
    assert_eq!(wants(project.path("package.json")), wants(example.join("package.json")));
    std::os::unix::fs::symlink(
        example.join("node_modules").canonicalize().unwrap(),
        project.path("node_modules"),
    )
    .unwrap();
    succeeds(
        Command::new("npm")
            .args(["run", "build"])
            .current_dir(project.folder.path()),
    );
    let gateway = project.gateway().start().await;
    turns_away_what_is_not_allowed(&gateway, "geo-fence").await;
    project.refuses_other_configurations().await;
}

#[cfg_attr(not(feature = "peers"), ignore = "needs componentize-py: --features peers")]
#[tokio::test]
async fn a_new_plugin_in_python_turns_away_a_request() {
    let project = Project::new("geo-fence", &["--lang", "python"]);
    // The maker that is here is the one that the project asks for.
    let version = Command::new("componentize-py").arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let wanted = std::fs::read_to_string(project.path("requirements.txt")).unwrap();
    assert_eq!(version.trim().replace(' ', "=="), wanted.trim());
    succeeds(Command::new("sh").arg(project.path("build.sh")));
    let gateway = project.gateway().start().await;
    turns_away_what_is_not_allowed(&gateway, "geo-fence").await;
    project.refuses_other_configurations().await;
}

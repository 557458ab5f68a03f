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
    /// What the plugin is called.
    name: String,
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
            name: name.to_owned(),
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

    /// One in C.
    fn in_c(name: &str, hook: &str) -> Self {
        let project = Self::new(name, &["--lang", "c", "--hook", hook]);
        let warnings = Command::new("clang")
            .args(["--target=wasm32", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic"])
            .arg(project.path("plugin.c"))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&warnings.stderr), "", "{hook}");
        let gateway = gateway_tests::command();
        succeeds(
            Command::new("sh")
                .arg(project.path("build.sh"))
                .env("GATEWAY", gateway.get_program()),
        );
        project
    }

    /// One in JavaScript, with what has been installed for the example, at the same versions.
    fn in_javascript(name: &str, hook: &str) -> Self {
        let project = Self::new(name, &["--lang", "js", "--hook", hook]);
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
        project
    }

    /// One in Python.
    fn in_python(name: &str, hook: &str) -> Self {
        let project = Self::new(name, &["--lang", "python", "--hook", hook]);
        // The maker that is here is the one that the project asks for.
        let version = Command::new("componentize-py").arg("--version").output().unwrap();
        let version = String::from_utf8(version.stdout).unwrap();
        let wanted = std::fs::read_to_string(project.path("requirements.txt")).unwrap();
        assert_eq!(version.trim().replace(' ', "=="), wanted.trim());
        succeeds(Command::new("sh").arg(project.path("build.sh")));
        project
    }

    /// The fixtures that were written pass.
    fn meets_its_fixtures(&self) {
        let mut test = gateway_tests::command();
        test.args(["plugin", "test", &self.component]);
        succeeds(test.current_dir(self.folder.path()));
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
        self.meets_its_fixtures();
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

/// What a project of predicates promises, in whatever language.
async fn predicates_turn_away(project: &Project) {
    let gateway = project.gateway().start().await;
    assert_eq!(gateway.ask("www", delete("/")).await.status, 403);
    assert_eq!(gateway.ask("www", get("/")).await.status, 200);
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn new_predicates_in_rust_turn_away_a_request() {
    predicates_turn_away(&Project::in_rust("predicates")).await;
}

/// What one of a limiter does.
async fn a_limiter_turns_away_the_fourth(project: &Project) {
    let gateway = project.gateway().start().await;
    for expected in [200, 200, 200, 429] {
        assert_eq!(gateway.ask("www", get("/")).await.status, expected);
    }
    let refused = gateway.ask("www", get("/")).await;
    assert!(refused.header("retry-after").is_some());
    assert_eq!(
        refused.header("ratelimit-policy"),
        Some(format!("\"{}\";q=3;w=60", project.name).as_str())
    );
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_limiter_in_rust_turns_away_the_fourth_request() {
    a_limiter_turns_away_the_fourth(&Project::in_rust("limiter")).await;
}

/// What one of a response filter does.
async fn a_response_filter_keeps_in(project: &Project) {
    let gateway = project.gateway().start().await;
    let hidden = gateway.ask("www", get("/status/500")).await;
    assert_eq!(
        (hidden.status, hidden.text()),
        (500, format!("{} says no more\n", project.name).as_str())
    );
    let passed = gateway.ask("www", get("/")).await;
    assert_eq!(passed.header("x-checked-by"), Some(project.name.as_str()));
    assert!(passed.text().contains("server: app-1"));
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_response_filter_in_rust_keeps_in_what_a_server_says() {
    a_response_filter_keeps_in(&Project::in_rust("response-filter")).await;
}

/// What one of a filter of requests' bodies does.
async fn a_request_body_filter_turns_away(project: &Project) {
    let gateway = project.gateway().start().await;
    let refused = gateway.ask("www", post("/", "hello <script>")).await;
    assert_eq!(
        (refused.status, refused.text()),
        (403, format!("{} does not take this\n", project.name).as_str())
    );
    let passed = gateway.ask("www", post("/", "hello")).await;
    assert!(passed.text().contains("body: 5 bytes\n"), "{}", passed.text());
    assert_eq!(gateway.ask("www", post("/", vec![b'x'; 65_537])).await.status, 413);
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_request_body_filter_in_rust_turns_away_what_is_not_wanted() {
    a_request_body_filter_turns_away(&Project::in_rust("request-body-filter")).await;
}

/// What one of a filter of responses' bodies does.
async fn a_response_body_filter_replaces(project: &Project) {
    let gateway = project.gateway().start().await;
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
async fn a_new_response_body_filter_in_rust_puts_another_text_in_place_of_one() {
    a_response_body_filter_replaces(&Project::in_rust("response-body-filter")).await;
}

/// What one does that asks another service.
async fn another_service_decides(project: &Project) {
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
    assert_eq!(
        (refused.status, refused.text()),
        (403, format!("{} says no\n", project.name).as_str())
    );
    let passed = gateway.ask("www", with("Bearer s3cret")).await;
    assert!(passed.text().contains("header: x-user: ada\n"), "{}", passed.text());
    assert!(!passed.text().contains("root"), "{}", passed.text());
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_plugin_in_rust_lets_another_service_decide() {
    another_service_decides(&Project::in_rust("call-answered")).await;
}

/// What one of an access log does.
async fn an_access_log_tells(project: &Project) {
    let gateway = project.gateway().start().await;
    assert_eq!(gateway.ask("www", get("/")).await.status, 200);
    assert_eq!(gateway.ask("www", get("/private")).await.status, 403);
    gateway.says("127.0.0.1 got 403 for GET /private").await;
    assert!(!gateway.output().contains(" got 200 "));
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_access_log_in_rust_tells_of_what_was_turned_away() {
    an_access_log_tells(&Project::in_rust("access-log")).await;
}

/// What one of a connection filter does.
async fn a_connection_filter_lets_in(project: &Project) {
    let gateway = project.gateway().start().await;
    let mut client = gateway.connect("www").await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    assert!(Client::is_turned_away(gateway.address("www"), [127, 0, 0, 2]).await);
}

#[cfg_attr(not(feature = "peers"), ignore = "needs a compiler for wasm32: --features peers")]
#[tokio::test]
async fn a_new_connection_filter_in_rust_lets_in_who_is_known() {
    a_connection_filter_lets_in(&Project::in_rust("connection-filter")).await;
}

/// Every hook but that of requests, which has a test of its own.
const OTHERS: [&str; 8] = [
    "predicates",
    "limiter",
    "call-answered",
    "request-body-filter",
    "response-filter",
    "response-body-filter",
    "access-log",
    "connection-filter",
];

#[cfg_attr(not(feature = "peers"), ignore = "needs clang and lld: --features peers")]
#[tokio::test]
async fn a_new_plugin_in_c_turns_away_a_request() {
    let project = Project::in_c("geo-fence", "request-filter");
    let gateway = project.gateway().start().await;
    turns_away_what_is_not_allowed(&gateway, "geo-fence").await;
    // The memory of a call is given back: an instance that kept it would be over its limit.
    let mut client = gateway.connect("www").await;
    for _ in 0..1_000 {
        assert_eq!(client.ask(get("/")).await.status, 200);
    }
    project.refuses_other_configurations().await;
}

#[cfg_attr(not(feature = "peers"), ignore = "needs clang and lld: --features peers")]
#[tokio::test]
async fn new_plugins_in_c_do_what_those_in_rust_do() {
    for hook in OTHERS {
        let project = &Project::in_c("geo-fence", hook);
        match hook {
            "predicates" => predicates_turn_away(project).await,
            "limiter" => a_limiter_turns_away_the_fourth(project).await,
            "call-answered" => another_service_decides(project).await,
            "request-body-filter" => a_request_body_filter_turns_away(project).await,
            "response-filter" => a_response_filter_keeps_in(project).await,
            "response-body-filter" => a_response_body_filter_replaces(project).await,
            "access-log" => an_access_log_tells(project).await,
            _ => a_connection_filter_lets_in(project).await,
        }
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs node and componentize-js: --features peers")]
#[tokio::test]
async fn a_new_plugin_in_javascript_turns_away_a_request() {
    let project = Project::in_javascript("geo-fence", "request-filter");
    let gateway = project.gateway().start().await;
    turns_away_what_is_not_allowed(&gateway, "geo-fence").await;
    project.refuses_other_configurations().await;
}

/// The host that tests them is the one that serves requests; to start it for each again would take minutes.
#[cfg_attr(not(feature = "peers"), ignore = "needs node and componentize-js: --features peers")]
#[test]
fn new_plugins_in_javascript_meet_the_fixtures_of_those_in_rust() {
    for hook in OTHERS {
        Project::in_javascript("geo-fence", hook).meets_its_fixtures();
    }
}

#[cfg_attr(not(feature = "peers"), ignore = "needs componentize-py: --features peers")]
#[tokio::test]
async fn a_new_plugin_in_python_turns_away_a_request() {
    let project = Project::in_python("geo-fence", "request-filter");
    let gateway = project.gateway().start().await;
    turns_away_what_is_not_allowed(&gateway, "geo-fence").await;
    project.refuses_other_configurations().await;
}

#[cfg_attr(not(feature = "peers"), ignore = "needs componentize-py: --features peers")]
#[test]
fn new_plugins_in_python_meet_the_fixtures_of_those_in_rust() {
    for hook in OTHERS {
        Project::in_python("geo-fence", hook).meets_its_fixtures();
    }
}

//! Third-party components: declared, granted, configured, attached. The shipped components serve as somebody else's: they
//! are built with the SDK, and nothing but their place in the binary is special about them.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::path::Path;

use gateway_tests::{Builder, Gateway, HttpServer, get, guest};

fn shipped(name: &str) -> Vec<u8> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist");
    std::fs::read(dist.join(format!("{name}.wasm"))).unwrap()
}

fn with(kdl: &str, app: &HttpServer) -> Builder {
    Gateway::kdl(kdl).with("@app", app.address())
}

#[tokio::test]
async fn a_component_edits_requests_and_responses_as_its_config_says() {
    let app = HttpServer::answering("x").await;
    let gateway = with(
        r#"
        plugin "mine" "mine.wasm" {
            on-failure "deny" status=503
            config {
                request {
                    - { set-header name="x-own" value="yes" }
                    - { rewrite-path prefix="/a/" to="/b/" }
                }
                response { - { set-header name="x-back" value="too" } }
            }
        }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "mine"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
        &app,
    )
    .file("mine.wasm", shipped("header-rewrite"))
    .start()
    .await;

    let answer = gateway.ask("web", get("/a/x").header("X-Own", "forged")).await;

    assert_eq!((answer.status, answer.header("x-back")), (200, Some("too")));
    assert_eq!(app.last().target, "/b/x");
    assert_eq!(app.last().headers.all("x-own").collect::<Vec<_>>(), ["yes"]);
}

#[tokio::test]
async fn a_components_predicates_are_chosen_by_name() {
    let (one, two) = (HttpServer::answering("one").await, HttpServer::answering("two").await);
    let gateway = Gateway::kdl(
        r#"
        plugin "mine" "mine.wasm" {
            on-failure "deny" status=503
            config {
                predicates {
                    - name="first"  { when { path { exact { - "/first" } } } }
                    - name="second" { when { path { exact { - "/second" } } } }
                }
            }
        }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "first"  { plugin "mine" }
            acl "second" { plugin "mine" predicate="second" }
            acl "local"  { source "127.0.0.0/8" }
            deny status=410 if="first and local"
            use-backend "two" if="second"
            default-backend "one"
        }
        backend "one" { server "s" "@one" }
        backend "two" { server "s" "@two" }
    "#,
    )
    .with("@one", one.address())
    .with("@two", two.address())
    .file("mine.wasm", shipped("acl"))
    .start()
    .await;

    assert_eq!(gateway.ask("web", get("/first")).await.status, 410);
    assert_eq!(gateway.ask("web", get("/second")).await.text(), "two");
    assert_eq!(gateway.ask("web", get("/third")).await.text(), "one");
}

/// A plugin with predicates of these paths, by the name and the path of each.
fn asking_paths(name: &str, predicates: &[(&str, &str)]) -> String {
    let one = |(name, path): &(&str, &str)| {
        format!("- name=\"{name}\" {{ when {{ path {{ exact {{ - \"{path}\" }} }} }} }}\n")
    };
    let all: String = predicates.iter().map(one).collect();
    format!(
        "plugin \"{name}\" \"asking.wasm\" {{ on-failure \"deny\" status=503; config {{ predicates {{\n{all}}} }} }}"
    )
}

#[tokio::test]
async fn acls_at_the_top_and_of_backends_ask_plugins() {
    let app = HttpServer::answering("app").await;
    let plugin = asking_paths(
        "mine",
        &[("first", "/first"), ("second", "/second"), ("third", "/third")],
    );
    let gateway = with(
        &format!(
            r#"
        acl "first" {{ plugin "mine" }}
        acl "second" {{ plugin "mine" predicate="second" }}
        frontend "one" {{
            bind "127.0.0.1:0"
            acl "get" {{ method "GET" }}
            deny status=410 if="get and first"
            default-backend "app"
        }}
        frontend "two" {{
            bind "127.0.0.1:0"
            acl "third" {{ plugin "mine" predicate="third" }}
            request {{ set-header "X-First" "no" unless="first" }}
            deny status=451 if="third"
            default-backend "app"
        }}
        backend "app" {{
            acl "third" {{ plugin "mine" predicate="third" }}
            deny status=405 if="second"
            deny status=406 if="third"
            server "app-1" "@app"
        }}
        {plugin}
    "#
        ),
        &app,
    )
    .file("asking.wasm", shipped("acl"))
    .start()
    .await;
    for (frontend, path, status) in [
        ("one", "/first", 410),
        ("one", "/second", 405),
        ("one", "/third", 406),
        ("one", "/fourth", 200),
        ("two", "/first", 200),
        ("two", "/second", 405),
        ("two", "/third", 451),
        ("two", "/fourth", 200),
    ] {
        assert_eq!(
            gateway.ask(frontend, get(path)).await.status,
            status,
            "{frontend} {path}"
        );
    }
    let told: Vec<_> = app
        .requests()
        .iter()
        .map(|request| {
            (
                request.target.clone(),
                request.headers.get("x-first").map(str::to_owned),
            )
        })
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|(target, first)| (&**target, first.as_deref()))
        .collect();
    assert_eq!(told, [("/fourth", None), ("/first", None), ("/fourth", Some("no"))]);
}

#[tokio::test]
async fn what_an_acl_at_the_top_asks_of_a_tenants_plugin_is_about_the_tenants_hosts() {
    let plugin = asking_paths("own", &[("listed", "/listed")]);
    let gateway = Gateway::kdl(&format!(
        r#"
        tenant "acme" {{ hosts "acme.example"; {plugin} }}
        tenant "rival" {{ hosts "rival.example" }}
        acl "listed" {{ plugin "acme/own" predicate="listed" }}
        frontend "web" {{
            bind "127.0.0.1:0"
            tenants "acme" "rival"
            deny status=410 if="listed"
            default-backend "app"
        }}
        backend "app" {{ server "s" "echo" }}
    "#
    ))
    .file("asking.wasm", shipped("acl"))
    .start()
    .await;
    for (host, path, status) in [
        ("acme.example", "/listed", 410),
        ("acme.example", "/other", 200),
        ("rival.example", "/listed", 200),
        ("other.example", "/listed", 200),
    ] {
        let answer = gateway.ask("web", get(path).host(host)).await;
        assert_eq!(answer.status, status, "{host}{path}");
    }
}

#[tokio::test]
async fn a_predicate_that_is_not_there_is_told_once_however_many_ask_for_it() {
    let app = HttpServer::answering("app").await;
    let plugin = asking_paths("mine", &[("first", "/first")]);
    let checked = with(
        &format!(
            r#"
        acl "wrong" {{ plugin "mine" predicate="fist" }}
        frontend "one" {{ bind "127.0.0.1:0"; deny if="wrong"; default-backend "app" }}
        frontend "two" {{ bind "127.0.0.1:0"; deny if="wrong"; default-backend "app" }}
        backend "app" {{ deny if="wrong"; server "app-1" "@app" }}
        {plugin}
    "#
        ),
        &app,
    )
    .file("asking.wasm", shipped("acl"))
    .check(&[]);
    assert_eq!(checked.code, Some(1));
    let said = [checked.stdout, checked.stderr].concat();
    assert_eq!(said.matches("has no predicate \"fist\"").count(), 1, "{said}");
    assert!(said.contains("unknown predicate"), "{said}");
}

#[tokio::test]
async fn a_component_counts_in_the_hosts_buckets_when_that_is_granted() {
    let kdl = r#"
        process { workers 4; log "stdout" format="json" }
        plugin "mine" "mine.wasm" {
            @grant
            on-failure "deny" status=503
            config { limits { - name="r" tokens=1 period-ms=86400000 burst=3 { key { - "path" } } } }
        }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "mine"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#;
    let app = HttpServer::answering("x").await;
    let gateway = with(kdl, &app)
        .with("@grant", "grant \"buckets\"")
        .file("mine.wasm", shipped("rate-limit"))
        .start()
        .await;

    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(gateway.ask("web", get("/a")).await.status);
    }
    assert_eq!(
        statuses.iter().filter(|&&status| status == 200).count(),
        3,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|&&status| status == 429).count(),
        9,
        "{statuses:?}"
    );
    assert_eq!(gateway.ask("web", get("/b")).await.status, 200);

    let refused = with(kdl, &app)
        .with("@grant", "")
        .file("mine.wasm", shipped("rate-limit"))
        .refused()
        .await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.output.contains("buckets"), "{}", refused.output);
}

#[tokio::test]
async fn components_run_in_the_order_of_the_configuration() {
    let app = HttpServer::answering("x").await;
    let gateway = with(
        r#"
        plugin "first" "rewrite.wasm" {
            on-failure "deny" status=503
            config { request { - { rewrite-path prefix="/a" to="/b" }; - { add-header name="x-order" value="1" } } }
        }
        plugin "second" "rewrite.wasm" {
            on-failure "deny" status=503
            config { request { - { rewrite-path prefix="/b" to="/c" }; - { add-header name="x-order" value="2" } } }
        }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "first"; use-plugin "second"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
        &app,
    )
    .file("rewrite.wasm", shipped("header-rewrite"))
    .start()
    .await;

    assert_eq!(gateway.ask("web", get("/a")).await.status, 200);

    assert_eq!(app.last().target, "/c");
    assert_eq!(app.last().headers.all("x-order").collect::<Vec<_>>(), ["1", "2"]);
}

#[tokio::test]
async fn edits_of_a_call_that_fails_are_not_made() {
    let imports = r#"(import "gateway:policy/request-edits@0.1.0" "set-header" (func $set (param i32 i32 i32 i32 i32)))
        ;; end of imports"#;
    let exports = r#"
        (data (i32.const 2048) "x-half")
        (func (export "gateway:policy/request-filter@0.1.0#on-request") (param i32 i32 i32 i32) (result i32)
            (call $set (i32.const 2048) (i32.const 6) (i32.const 2048) (i32.const 1) (i32.const 2200))
            (unreachable))
        (func (export "gateway:policy/response-filter@0.1.0#on-response") (param i32 i32 i32 i32) (result i32) (call $none))"#;
    let app = HttpServer::answering("x").await;
    let gateway = with(
        r#"
        plugin "mine" "mine.wasm" { on-failure "skip" }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "mine"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
        &app,
    )
    .file(
        "mine.wasm",
        guest::component("header-rewrite", &format!("{imports}{exports}")),
    )
    .start()
    .await;

    assert_eq!(gateway.ask("web", get("/")).await.status, 200);
    assert!(!app.last().headers.has("x-half"), "{:?}", app.last().headers);
}

#[tokio::test]
async fn a_config_that_the_component_refuses_stops_the_start() {
    let app = HttpServer::answering("x").await;
    let refused = with(
        r#"
        plugin "mine" "mine.wasm" { on-failure "deny" status=503; config { request { - { set-heather name="a" value="b" } } } }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "mine"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
        &app,
    )
    .file("mine.wasm", shipped("header-rewrite"))
    .refused()
    .await;

    assert_eq!(refused.code, Some(1));
    assert!(
        refused.output.contains("mine") && refused.output.contains("set-heather"),
        "{}",
        refused.output
    );
}

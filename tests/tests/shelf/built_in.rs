use gateway::config::BuiltIn;
use gateway_tests::{Gateway, HttpServer, get};

use crate::shelf;

#[tokio::test]
async fn what_is_built_in_is_named_and_needs_no_file_and_no_grant() {
    let refused = |plugin: &str| {
        let text = format!(
            "process {{ workers 1 }}\n{plugin}\nfrontend \"web\" {{ bind \"127.0.0.1:0\"; use-plugin \"p\"; default-backend \"app\" }}\n\
             backend \"app\" {{ server \"s\" \"echo\" }}\n"
        );
        let checked = Gateway::verbatim(&text).check(&[]);
        assert_eq!(checked.code, Some(1), "{}", checked.stdout);
        checked.stdout
    };
    for (plugin, part) in [
        (r#"plugin "p" builtin="corse" { on-failure "deny" }"#, "`cors`"),
        (r#"plugin "p" "p.wasm" builtin="cors" { on-failure "deny" }"#, "p.wasm"),
        (
            r#"plugin "p" builtin="cors" { on-failure "deny"; grant "log" }"#,
            "`grant` does nothing",
        ),
        (
            r#"plugin "p" builtin="cors" { on-failure "deny"; sha256 "00" }"#,
            "`sha256` does nothing",
        ),
        (r#"plugin "p" builtin="cors" { config { origin "*" } }"#, "on-failure"),
        (
            r#"plugin "p" builtin="cors" { on-failure "deny"; config { origin "app" } }"#,
            "is no origin",
        ),
    ] {
        let said = refused(plugin);
        assert!(said.contains(part), "{plugin}: {said}");
    }
}

#[tokio::test]
async fn a_plugin_on_the_shelf_may_be_isolated_as_any_other() {
    let app = HttpServer::answering("x").await;
    let plugin = r#"plugin "shelf" builtin="security-headers" { isolation "per-request"; on-failure "deny" }"#;
    let gateway = shelf(plugin, &app).start().await;
    for _ in 0..20 {
        assert_eq!(
            gateway.ask("web", get("/")).await.header("x-frame-options"),
            Some("DENY")
        );
    }
}

/// docs/shelf.md: a section and a row for each, and an example that is right.
#[tokio::test]
async fn the_shelf_is_described() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/shelf.md");
    let text = std::fs::read_to_string(path).unwrap();
    for (name, _) in BuiltIn::ALL {
        assert!(text.contains(&format!("\n## `{name}`\n")), "no section {name}");
        assert!(text.contains(&format!("| [`{name}`](#{name}) |")), "no row {name}");
    }
    let example = text.split("```kdl\n").nth(1).unwrap().split("```").next().unwrap();
    let timeouts = r#"defaults { timeout connect="5s" client="30s" server="30s" }"#;
    let checked = Gateway::verbatim(&format!("{timeouts}\n{example}")).check(&[]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
}

use gateway_tests::{Answer, Gateway, HttpServer, get, method};

use crate::shelf;

#[tokio::test]
async fn preflights_are_answered_and_responses_opened_to_who_may_read_them() {
    let app = HttpServer::start(|_| Answer::ok("x").header("Access-Control-Allow-Origin", "*")).await;
    let plugin = r#"plugin "shelf" builtin="cors" {
        limit cpu="1s"; on-failure "deny" status=503
        config {
            origin "https://app.example"
            method "PUT"
            header "content-type"
            credentials
            max-age "1h"
        }
    }"#;
    let gateway = shelf(plugin, &app).start().await;

    let preflight = |origin: &str| {
        let request = method("OPTIONS", "/items").header("Origin", origin);
        let request = request.header("Access-Control-Request-Method", "PUT");
        request.header("Access-Control-Request-Headers", "content-type")
    };
    let allowed = gateway.ask("web", preflight("https://app.example")).await;
    assert_eq!(
        (allowed.status, allowed.header("access-control-max-age")),
        (204, Some("3600"))
    );
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(gateway.ask("web", preflight("https://evil.example")).await.status, 403);
    assert!(app.requests().is_empty(), "no server is asked about a preflight");

    let read = gateway
        .ask("web", get("/items").header("Origin", "https://app.example"))
        .await;
    assert_eq!(read.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(read.header("access-control-allow-credentials"), Some("true"));
    let kept = gateway
        .ask("web", get("/items").header("Origin", "https://evil.example"))
        .await;
    assert_eq!(
        (kept.header("access-control-allow-origin"), kept.header("vary")),
        (None, Some("Origin"))
    );
}

#[tokio::test]
async fn what_the_gateway_and_other_plugins_answer_is_opened_to_who_may_read_it() {
    let app = HttpServer::start(|_| Answer::ok("x")).await;
    let config = |always: &str| {
        format!(
            r#"
            plugin "browsers" builtin="cors" {{
                limit cpu="1s"; on-failure "deny" status=503
                config {{ origin "https://app.example"; method "PUT"; expose-header "retry-after" }}
            }}
            plugin "auth" builtin="api-key" {{
                limit cpu="1s"; on-failure "deny" status=503
                config {{ client name="ada" sha256="4a3057fd3371720d01f5d351fecab0d7948fd22e15a5c2c2b92b0b2696d3eeca" }}
            }}
            frontend "web" {{
                bind "127.0.0.1:0"
                deny status=451 {{ path "/denied" }}
                redirect location="/x" {{ path "/moved" }}
                use-plugin "browsers" {always}
                use-plugin "auth"
                default-backend "app"
            }}
            backend "app" {{ server "s" "@app" }}
        "#
        )
    };
    let gateway = Gateway::kdl(&config("always"))
        .with("@app", app.address())
        .start()
        .await;
    let asked = |path: &str| get(path).header("Origin", "https://app.example");
    for (path, status) in [("/", 401), ("/denied", 451), ("/moved", 302)] {
        let answer = gateway.ask("web", asked(path)).await;
        let may = |name: &str| answer.header(name).map(str::to_owned);
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(
            may("access-control-allow-origin").as_deref(),
            Some("https://app.example")
        );
        assert_eq!(may("access-control-expose-headers").as_deref(), Some("retry-after"));
        let others = gateway
            .ask("web", get(path).header("Origin", "https://evil.example"))
            .await;
        assert_eq!(others.header("access-control-allow-origin"), None, "{path}");
        assert_eq!(others.header("vary"), Some("Origin"), "{path}");
    }
    // What it has answered itself is left as it said it.
    let preflight = method("OPTIONS", "/").header("Origin", "https://app.example");
    let preflight = preflight.header("Access-Control-Request-Method", "PUT");
    let allowed = gateway.ask("web", preflight).await;
    assert_eq!(
        (allowed.status, allowed.header("access-control-allow-methods")),
        (204, Some("PUT"))
    );
    assert_eq!(allowed.header("access-control-expose-headers"), None);

    let without = Gateway::kdl(&config("")).with("@app", app.address()).start().await;
    let answer = without.ask("web", asked("/")).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (401, None)
    );
}

#[tokio::test]
async fn a_plugin_that_fails_leaves_errors_of_the_gateways_as_they_are() {
    let failing = gateway_tests::guest::filter("(call $none)", "(unreachable)");
    let gateway = Gateway::kdl(
        r#"
        plugin "fails" "fails.wasm" { on-failure "deny" status=507; quarantine failures=1000 }
        frontend "web" {
            bind "127.0.0.1:0"
            deny status=451 { path "/denied" }
            acl "said" { path "/said" }
            return status=200 if="said" { body "x" }
            use-plugin "fails" always
            default-backend "app"
        }
        backend "app" { server "s" "echo" }
    "#,
    )
    .file("fails.wasm", failing)
    .start()
    .await;
    for (path, status) in [("/denied", 451), ("/said", 507)] {
        assert_eq!(gateway.ask("web", get(path)).await.status, status, "{path}");
    }
    let failures = [("policy", "fails"), ("kind", "trap")];
    gateway.metric_is("gateway_policy_failures_total", &failures, 2.0).await;
}

#[test]
fn always_is_refused_where_no_response_is_filtered() {
    let nothing = "(call $none)";
    let checked = Gateway::kdl(
        r#"
        plugin "counts" "counts.wasm" { on-failure "deny" }
        plugin "fence" "fence.wasm" { on-failure "deny" }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "counts" always; default-backend "app" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; use-plugin "fence" always; default-backend "db" }
        backend "app" { server "s" "echo" }
        backend "db" { mode "tcp"; server "s" "echo" }
    "#,
    )
    .file("counts.wasm", gateway_tests::guest::limiter(nothing))
    .file("fence.wasm", gateway_tests::guest::connection(nothing))
    .check(&[]);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    for said in [
        "`always` does nothing for plugin \"counts\"",
        "it has no hook `response-filter`",
        "`always` does nothing for plugin \"fence\"",
        "in TCP mode nothing is answered",
        "2 errors",
    ] {
        assert!(checked.stdout.contains(said), "{said}: {}", checked.stdout);
    }
}

use gateway_tests::{Answer, HttpServer, get, method};

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

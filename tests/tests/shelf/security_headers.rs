use gateway_tests::{Answer, HttpServer, get};

use crate::shelf;

#[tokio::test]
async fn browsers_are_told_what_the_configuration_says() {
    let app = HttpServer::start(|_| {
        let answer = Answer::ok("x").header("Referrer-Policy", "no-referrer");
        answer.header("Server", "x/1.0").header("X-Powered-By", "y")
    })
    .await;
    let plugin = r#"plugin "shelf" builtin="security-headers" {
        limit cpu="1s"; on-failure "skip"
        config {
            frame-options "SAMEORIGIN"
            content-type-options #false
            content-security-policy "default-src 'self'"
            strict-transport-security max-age="365d" include-subdomains=#true
            remove "server" "x-powered-by"
        }
    }"#;
    let gateway = shelf(plugin, &app).start().await;

    let answer = gateway.ask("web", get("/")).await;

    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("x-frame-options", Some("SAMEORIGIN")),
        ("content-security-policy", Some("default-src 'self'")),
        ("x-permitted-cross-domain-policies", Some("none")),
        ("referrer-policy", Some("no-referrer")),
        ("x-content-type-options", None),
        ("strict-transport-security", None),
        ("server", None),
        ("x-powered-by", None),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
}

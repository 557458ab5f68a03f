//! What browsers are told.

use gateway_plugin_sdk::test::{Host, Request, Response};
use gateway_plugin_security_headers::SecurityHeaders;
use serde_json::{Value, json};

fn answer(config: &Value, request: &str, response: &Response) -> Response {
    let plugin = Host::new()
        .configure::<SecurityHeaders>(&config.to_string())
        .expect("a good configuration");
    plugin
        .on_response(&Request::get(request), response)
        .expect("no failure")
}

fn refused(config: &Value) -> String {
    let refused = Host::new().configure::<SecurityHeaders>(&config.to_string());
    refused.expect_err("a bad configuration").to_string()
}

#[test]
fn without_configuration_the_safe_fields_are_set() {
    let answer = answer(&json!({}), "http://a.example/", &Response::new(200));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("x-permitted-cross-domain-policies", "none"),
    ] {
        assert_eq!(answer.header(name), [value], "{name}");
    }
    assert!(answer.header("content-security-policy").is_empty());
    assert!(answer.header("strict-transport-security").is_empty());
}

#[test]
fn each_field_can_be_said_or_switched_off() {
    let config = json!({
        "content-type-options": false,
        "frame-options": "sameorigin",
        "referrer-policy": false,
        "permitted-cross-domain-policies": true,
        "content-security-policy": "default-src 'self'",
        "content-security-policy-report-only": "default-src 'none'",
        "permissions-policy": "camera=()",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-embedder-policy": "require-corp",
        "cross-origin-resource-policy": "same-site",
    });
    let answer = answer(&config, "/", &Response::new(404));
    for (name, values) in [
        ("x-content-type-options", &[][..]),
        ("x-frame-options", &["SAMEORIGIN"]),
        ("referrer-policy", &[]),
        ("x-permitted-cross-domain-policies", &["none"]),
        ("content-security-policy", &["default-src 'self'"]),
        ("content-security-policy-report-only", &["default-src 'none'"]),
        ("permissions-policy", &["camera=()"]),
        ("cross-origin-opener-policy", &["same-origin"]),
        ("cross-origin-embedder-policy", &["require-corp"]),
        ("cross-origin-resource-policy", &["same-site"]),
    ] {
        assert_eq!(answer.header(name), values, "{name}");
    }
}

#[test]
fn a_policy_may_have_several_lines_and_end_as_a_file_does() {
    let config = json!({
        "content-security-policy": "default-src 'self';\r\n    img-src https:;\n\n",
        "permissions-policy": " camera=() ",
    });
    let answer = answer(&config, "/", &Response::new(200));
    assert_eq!(
        answer.header("content-security-policy"),
        ["default-src 'self'; img-src https:;"]
    );
    assert_eq!(answer.header("permissions-policy"), ["camera=()"]);
}

#[test]
fn a_servers_own_field_stands_unless_overridden() {
    let own = Response::new(200)
        .with_header("x-frame-options", "SAMEORIGIN")
        .with_header("x-frame-options", "x");
    let kept = answer(&json!({}), "/", &own);
    assert_eq!(kept.header("x-frame-options"), ["SAMEORIGIN", "x"]);
    assert_eq!(kept.header("x-content-type-options"), ["nosniff"]);
    let replaced = answer(&json!({"override": true}), "/", &own);
    assert_eq!(replaced.header("x-frame-options"), ["DENY"]);
}

#[test]
fn strict_transport_security_is_said_over_tls_only() {
    let config = json!({"strict-transport-security": {"max-age": "365d", "include-subdomains": true, "preload": true}});
    let plain = answer(&config, "http://a.example/", &Response::new(200));
    assert!(plain.header("strict-transport-security").is_empty());
    let tls = answer(&config, "https://a.example/", &Response::new(200));
    assert_eq!(
        tls.header("strict-transport-security"),
        ["max-age=31536000; includeSubDomains; preload"]
    );
}

#[test]
fn what_gives_the_server_away_is_removed() {
    let own = Response::new(200)
        .with_header("server", "x/1")
        .with_header("x-powered-by", "y");
    let answer = answer(&json!({"remove": ["Server", "x-powered-by"]}), "/", &own);
    assert!(answer.header("server").is_empty() && answer.header("x-powered-by").is_empty());
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (config, part) in [
        (json!({"frame-option": "DENY"}), "frame-option"),
        (
            json!({"frame-options": "ALLOW"}),
            "/frame-options: `ALLOW` is none of DENY, SAMEORIGIN",
        ),
        (json!({"content-type-options": "sniff"}), "did not match"),
        (json!({"referrer-policy": "never"}), "/referrer-policy"),
        (json!({"content-security-policy": "a\rb"}), "/content-security-policy"),
        (
            json!({"content-security-policy": "a\u{85}b"}),
            "/content-security-policy",
        ),
        (json!({"content-security-policy": " "}), "/content-security-policy"),
        (json!({"remove": ["a b"]}), "/remove/0"),
        (
            json!({"remove": ["server", "Keep-Alive"]}),
            "/remove/1: `Keep-Alive` belongs to the connection",
        ),
        (
            json!({"strict-transport-security": {"max-age": "1d", "preload": true}}),
            "/strict-transport-security/preload",
        ),
        (
            json!({"content-type-options": false, "frame-options": false, "referrer-policy": false, "permitted-cross-domain-policies": false}),
            "nothing left",
        ),
    ] {
        let error = refused(&config);
        assert!(error.contains(part), "{config}: {error}");
    }
}

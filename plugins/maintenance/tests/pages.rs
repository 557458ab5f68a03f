//! Who gets the page, and what is on it.

use gateway_plugin_maintenance::Maintenance;
use gateway_plugin_sdk::Reply;
use gateway_plugin_sdk::test::{Host, Request, Tested};
use serde_json::{Value, json};

fn page(config: &Value) -> Tested<Maintenance> {
    Host::new()
        .configure(&config.to_string())
        .expect("a good configuration")
}

fn reply(plugin: &Tested<Maintenance>, request: &Request) -> Option<Reply> {
    plugin.on_request(request).expect("no failure").reply
}

fn field<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let (_, value) = reply.headers().iter().find(|(known, _)| known == name)?;
    std::str::from_utf8(value).ok()
}

#[test]
fn everybody_gets_the_page() {
    let plain = reply(&page(&json!({})), &Request::get("/")).expect("a page");
    assert_eq!((plain.status(), field(&plain, "retry-after")), (503, None));
    assert_eq!(field(&plain, "content-type"), Some("text/plain; charset=utf-8"));
    assert!(plain.bytes().starts_with(b"This service"));

    let soon = json!({"retry-after": "500ms", "body": "x", "content-type": " text/x "});
    let soon = reply(&page(&soon), &Request::get("/")).expect("a page");
    assert_eq!(field(&soon, "retry-after"), Some("1"), "not at once");
    assert_eq!(field(&soon, "content-type"), Some("text/x"));

    let config = json!({"retry-after": "10m", "body": "<h1>Soon</h1>", "status": 500});
    let html = reply(&page(&config), &Request::post("/a")).expect("a page");
    assert_eq!((html.status(), field(&html, "retry-after")), (500, Some("600")));
    assert_eq!(field(&html, "content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(html.bytes(), b"<h1>Soon</h1>");

    let json = json!({"body": "{}", "content-type": "application/json"});
    assert_eq!(
        field(
            &reply(&page(&json), &Request::get("/")).expect("a page"),
            "content-type"
        ),
        Some("application/json")
    );
}

#[test]
fn some_are_let_through() {
    let plugin = page(&json!({
        "allow": ["10.0.0.0/8"],
        "allow-path": ["/health", "/static/"],
        "bypass": {"cookie": "preview", "value": "0123456789abcdef"},
    }));
    for (request, through) in [
        (Request::get("/"), false),
        (Request::get("/").from("10.1.1.1:1"), true),
        (Request::get("/").from("11.1.1.1:1"), false),
        (Request::get("/health"), true),
        (Request::get("/health?x"), true),
        (Request::get("/healthy"), false),
        (Request::get("/health/x"), false),
        (Request::get("/static/a.css"), true),
        (Request::get("/static"), false),
        (
            Request::get("/").with_header("cookie", "preview=0123456789abcdef"),
            true,
        ),
        (
            Request::get("/").with_header("cookie", "preview=0123456789abcdeF"),
            false,
        ),
        (
            Request::get("/").with_header("cookie", "preview=0123456789abcdef0"),
            false,
        ),
        (Request::get("/").with_header("cookie", "preview="), false),
    ] {
        assert_eq!(reply(&plugin, &request).is_none(), through, "{request:?}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (config, part) in [
        (json!({"status": 200}), "/status"),
        (
            json!({"body": "x".repeat((1 << 20) + 1)}),
            "/body: a page has at most 1048576 bytes",
        ),
        (json!({"body": "x", "content-type": " "}), "/content-type"),
        (json!({"content-type": "text/html"}), "/content-type"),
        (json!({"body": "x", "content-type": "a\r\nb"}), "/content-type"),
        (json!({"allow": "10.0.0.0/99"}), "10.0.0.0/99"),
        (json!({"allow-path": "health"}), "/allow-path/0"),
        (json!({"bypass": {"cookie": "a", "value": "short"}}), "/bypass/value"),
        (
            json!({"bypass": {"cookie": "a", "header": "b", "value": "0123456789abcdef"}}),
            "/bypass",
        ),
        (json!({"retry-after": 10}), "30s"),
        (json!({"retry": "10s"}), "retry"),
    ] {
        let error = Host::new()
            .configure::<Maintenance>(&config.to_string())
            .expect_err("a bad configuration")
            .to_string();
        assert!(error.contains(part), "{config}: {error}");
    }
}

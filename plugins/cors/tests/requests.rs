//! Preflights and what follows them.

use gateway_plugin_cors::Cors;
use gateway_plugin_sdk::Reply;
use gateway_plugin_sdk::test::{Host, Request, Response, Tested};
use serde_json::{Value, json};

fn cors(config: &Value) -> Tested<Cors> {
    Host::new()
        .configure(&config.to_string())
        .expect("a good configuration")
}

fn app() -> Tested<Cors> {
    cors(&json!({
        "origin": ["https://app.example", "https://*.pages.example"],
        "method": ["PUT", "DELETE"],
        "header": ["Content-Type", "X-Token"],
        "expose-header": "x-total",
        "credentials": true,
        "max-age": "1h",
    }))
}

fn preflight(origin: &str, method: &str, headers: &[&str]) -> Request {
    let request = Request::new("OPTIONS", "https://api.example/items")
        .with_header("origin", origin)
        .with_header("access-control-request-method", method);
    headers.iter().fold(request, |request, names| {
        request.with_header("access-control-request-headers", names)
    })
}

fn reply(plugin: &Tested<Cors>, request: &Request) -> Option<Reply> {
    plugin.on_request(request).expect("no failure").reply
}

fn field<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let (_, value) = reply.headers().iter().find(|(known, _)| known == name)?;
    std::str::from_utf8(value).ok()
}

#[test]
fn an_allowed_preflight_says_what_is_allowed() {
    let reply = reply(
        &app(),
        &preflight("https://app.example", "PUT", &["content-type, x-TOKEN"]),
    )
    .expect("an answer");
    assert_eq!(reply.status(), 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "PUT, DELETE"),
        ("access-control-allow-headers", "Content-Type, X-Token"),
        ("access-control-max-age", "3600"),
    ] {
        assert_eq!(field(&reply, name), Some(value), "{name}");
    }
    let vary = field(&reply, "vary").expect("it varies");
    assert!(vary.contains("Origin") && vary.contains("Access-Control-Request-Headers"));
}

#[test]
fn preflights_are_allowed_or_not() {
    let plugin = app();
    for (origin, method, headers, allowed) in [
        ("https://app.example", "GET", &[][..], true),
        ("https://app.example", "POST", &["x-token"], true),
        ("https://app.example", "DELETE", &["", "x-token,,content-type"], true),
        ("https://a.pages.example", "PUT", &[], true),
        ("https://a.b.pages.example", "PUT", &[], true),
        ("https://app.example", "PATCH", &[], false),
        ("https://app.example", "put", &[], false),
        ("https://app.example", "PUT", &["x-other"], false),
        ("https://app.example", "PUT", &["x-token", "x-other"], false),
        ("https://other.example", "GET", &[], false),
        ("http://app.example", "GET", &[], false),
        ("https://app.example.evil.example", "GET", &[], false),
        ("https://pages.example", "GET", &[], false),
        ("https://.pages.example.evil", "GET", &[], false),
        ("https://evil.example/.pages.example", "GET", &[], false),
        ("https://evil.example:1@a.pages.example", "GET", &[], false),
        ("null", "GET", &[], false),
        ("", "GET", &[], false),
    ] {
        let reply = reply(&plugin, &preflight(origin, method, headers)).expect("an answer");
        assert_eq!(
            reply.status(),
            if allowed { 204 } else { 403 },
            "{origin} {method} {headers:?}"
        );
        assert_eq!(
            field(&reply, "access-control-allow-origin").is_some(),
            allowed,
            "{origin}"
        );
    }
}

#[test]
fn what_is_no_preflight_goes_on() {
    let plugin = app();
    for request in [
        Request::new("OPTIONS", "/"),
        Request::new("OPTIONS", "/").with_header("origin", "https://app.example"),
        Request::new("OPTIONS", "/").with_header("access-control-request-method", "PUT"),
        Request::get("/").with_header("origin", "https://evil.example"),
        Request::get("/").with_header("origin", b"\xff\xfe"),
    ] {
        assert_eq!(reply(&plugin, &request), None, "{request:?}");
    }
}

#[test]
fn a_response_is_opened_to_an_allowed_origin_alone() {
    let plugin = app();
    let servers = Response::new(200)
        .with_header("access-control-allow-origin", "*")
        .with_header("access-control-allow-headers", "*")
        .with_header("vary", "Accept-Encoding");
    let to = |origin: &str| {
        let request = Request::get("/").with_header("origin", origin);
        plugin.on_response(&request, &servers).expect("no failure")
    };
    let app = to("https://app.example");
    assert_eq!(app.header("access-control-allow-origin"), ["https://app.example"]);
    assert_eq!(app.header("access-control-allow-credentials"), ["true"]);
    assert_eq!(app.header("access-control-expose-headers"), ["x-total"]);
    assert!(app.header("access-control-allow-headers").is_empty());
    assert_eq!(app.header("vary"), ["Accept-Encoding", "Origin"]);

    let other = to("https://evil.example");
    assert!(other.header("access-control-allow-origin").is_empty());
    assert!(other.header("access-control-allow-credentials").is_empty());
    assert_eq!(other.header("vary"), ["Accept-Encoding", "Origin"]);
}

#[test]
fn vary_is_not_said_twice_and_always_where_answers_differ() {
    let plugin = app();
    for (said, expected) in [
        (None, vec!["Origin"]),
        (Some("accept, ORIGIN"), vec!["accept, ORIGIN"]),
        (Some("*"), vec!["*"]),
    ] {
        let response = said
            .into_iter()
            .fold(Response::new(200), |response, vary| response.with_header("vary", vary));
        let answer = plugin.on_response(&Request::get("/"), &response).expect("no failure");
        assert_eq!(answer.header("vary"), expected);
    }
    let open = cors(&json!({"origin": "*"}));
    let request = Request::get("/").with_header("origin", "https://any.example");
    let answer = open.on_response(&request, &Response::new(200)).expect("no failure");
    assert_eq!(answer.header("access-control-allow-origin"), ["*"]);
    assert!(answer.header("vary").is_empty());
}

#[test]
fn everything_may_be_allowed_but_authorization() {
    let open = cors(&json!({"origin": "*", "method": "*", "header": "*"}));
    assert_eq!(
        reply(&open, &preflight("null", "PURGE", &["x-any"]))
            .expect("one")
            .status(),
        204
    );
    assert_eq!(
        reply(&open, &preflight("null", "GET", &["Authorization"]))
            .expect("one")
            .status(),
        403
    );
}

#[test]
fn private_networks_have_to_be_allowed() {
    for (allowed, status) in [(false, 403), (true, 204)] {
        let plugin = cors(&json!({"origin": "https://app.example", "private-network": allowed}));
        let request =
            preflight("https://app.example", "GET", &[]).with_header("access-control-request-private-network", "true");
        let reply = reply(&plugin, &request).expect("an answer");
        assert_eq!(reply.status(), status);
        assert_eq!(
            field(&reply, "access-control-allow-private-network"),
            allowed.then_some("true")
        );
    }
}

#[test]
fn other_origins_are_refused_where_that_is_enforced() {
    let plugin = cors(&json!({"origin": "https://app.example", "enforce": true}));
    for (origin, status) in [
        (Some("https://app.example"), None),
        (Some("https://api.example"), None),
        (Some("http://api.example"), Some(403)),
        (Some("https://evil.example"), Some(403)),
        (Some("https://"), Some(403)),
        (Some("null"), Some(403)),
        (None, None),
    ] {
        let request = Request::post("https://api.example/items");
        let request = origin
            .into_iter()
            .fold(request, |request, origin| request.with_header("origin", origin));
        assert_eq!(
            reply(&plugin, &request).map(|reply| reply.status()),
            status,
            "{origin:?}"
        );
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (config, part) in [
        (json!({}), "origin"),
        (json!({"origin": []}), "/origin: nobody"),
        (
            json!({"origin": "*", "credentials": true}),
            "/origin: with `credentials`",
        ),
        (
            json!({"origin": ["https://a.example", "null"], "credentials": true}),
            "/origin: any site can make a page",
        ),
        (
            json!({"origin": "https://a.example", "credentials": true, "header": "*"}),
            "/header: `*`",
        ),
        (json!({"origin": ["*", "https://a.example"]}), "/origin/0"),
        (json!({"origin": "a.example"}), "/origin/0"),
        (json!({"origin": "https://a.example/"}), "/origin/0"),
        (json!({"origin": "https://A.example"}), "/origin/0"),
        (json!({"origin": "https://a.example:443"}), "own port"),
        (json!({"origin": "https://*"}), "/origin/0"),
        (json!({"origin": "*", "method": ["*", "PUT"]}), "/method"),
        (
            json!({"origin": "*", "method": ["PUT", "patch"]}),
            "/method/1: methods are told apart by their case: `patch` would never be asked for; write `PATCH`",
        ),
        (json!({"origin": "*", "header": "a b"}), "/header/0"),
        (json!({"origin": "*", "max-age": "600"}), "30s"),
    ] {
        let error = Host::new()
            .configure::<Cors>(&config.to_string())
            .expect_err("a bad configuration")
            .to_string();
        assert!(error.contains(part), "{config}: {error}");
    }
}

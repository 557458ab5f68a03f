//! Who goes where.

use gateway_plugin_canary_route::CanaryRoute;
use gateway_plugin_sdk::test::{Host, Request, Response, Tested};
use serde_json::{Value, json};

fn canary(config: &Value) -> Tested<CanaryRoute> {
    Host::new()
        .configure(&config.to_string())
        .expect("a good configuration")
}

fn is_chosen(plugin: &Tested<CanaryRoute>, request: &Request) -> bool {
    let filtered = plugin.on_request(request).expect("no failure");
    assert!(filtered.route.as_deref().is_none_or(|backend| backend == "next"));
    let tag = filtered.request.tag("canary-route");
    assert_eq!(
        tag.as_deref(),
        Some(if filtered.route.is_some() { "yes" } else { "no" })
    );
    filtered.route.is_some()
}

fn user(number: u32) -> Request {
    Request::get("/").with_header("cookie", format!("uid=user-{number}"))
}

#[test]
fn who_is_given_a_lot_needs_nothing_else() {
    let plugin = canary(&json!({"backend": "next", "percent": 100, "assign": {"cookie": "lot"}}));
    assert!(is_chosen(&plugin, &Request::get("/")));
}

#[test]
fn a_share_of_the_clients_is_chosen_and_stays() {
    let of = |percent: f64| canary(&json!({"backend": "next", "percent": percent, "by": {"cookie": "uid"}}));
    let chosen = |plugin: &Tested<CanaryRoute>| {
        (0..10_000)
            .filter(|number| is_chosen(plugin, &user(*number)))
            .collect::<Vec<_>>()
    };
    let five = chosen(&of(5.0));
    assert!((400..600).contains(&five.len()), "{}", five.len());
    assert_eq!(five, chosen(&of(5.0)), "the same ones each time, in any instance");
    let twenty = chosen(&of(20.0));
    assert!((1850..2150).contains(&twenty.len()), "{}", twenty.len());
    assert!(
        five.iter().all(|number| twenty.contains(number)),
        "a larger share has those of the smaller"
    );
    assert!(chosen(&of(0.0)).is_empty());
    assert_eq!(chosen(&of(100.0)).len(), 10_000);
}

#[test]
fn another_salt_chooses_others() {
    let of = |salt: &str| canary(&json!({"backend": "next", "percent": 50, "by": {"header": "x-user"}, "salt": salt}));
    let request = |number: u32| Request::get("/").with_header("x-user", number.to_string());
    let (one, two) = (of("a"), of("b"));
    let same = (0..1000)
        .filter(|n| is_chosen(&one, &request(*n)) == is_chosen(&two, &request(*n)))
        .count();
    assert!((400..600).contains(&same), "{same}");
}

#[test]
fn the_first_that_a_request_has_decides() {
    let plugin = canary(&json!({"backend": "next", "percent": 50, "by": [{"cookie": "uid"}, {"client-ip": true}]}));
    let addresses: Vec<String> = (1..=50).map(|last| format!("192.0.2.{last}:1")).collect();
    let known: Vec<bool> = addresses
        .iter()
        .map(|from| is_chosen(&plugin, &user(1).from(from)))
        .collect();
    assert!(known.iter().all(|chosen| *chosen == known[0]), "by the cookie");
    let chosen = addresses
        .iter()
        .filter(|from| is_chosen(&plugin, &Request::get("/").from(from)))
        .count();
    assert!((5..45).contains(&chosen), "by the address: {chosen}");
}

#[test]
fn who_has_nothing_stays_where_it_was_or_gets_a_cookie() {
    let plain = canary(&json!({"backend": "next", "percent": 100, "by": {"cookie": "uid"}}));
    assert!(!is_chosen(&plain, &Request::get("/")));

    let plugin =
        canary(&json!({"backend": "next", "percent": 50, "by": [], "assign": {"cookie": "lot", "max-age": "1h"}}));
    let stranger = plugin
        .on_request(&Request::get("https://a.example/"))
        .expect("no failure");
    let answer = plugin
        .on_response(&stranger.request, &Response::new(200))
        .expect("no failure");
    let cookie = answer.header("set-cookie").join("");
    let (lot, attributes) = cookie.split_once("; ").expect("attributes");
    assert_eq!(attributes, "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure");
    for _ in 0..10 {
        let request = Request::get("/").with_header("cookie", lot);
        assert_eq!(is_chosen(&plugin, &request), stranger.route.is_some(), "{lot}");
        let again = plugin.on_request(&request).expect("no failure");
        let answer = plugin
            .on_response(&again.request, &Response::new(200))
            .expect("no failure");
        assert!(answer.header("set-cookie").is_empty(), "it has one already");
    }
    for (lot, chosen) in [("0", true), ("4999", true), ("5000", false), ("9999", false)] {
        let request = Request::get("/").with_header("cookie", format!("lot={lot}"));
        assert_eq!(is_chosen(&plugin, &request), chosen, "{lot}");
    }
    for bad in ["10000", "-1", "x", ""] {
        let request = Request::get("/").with_header("cookie", format!("lot={bad}"));
        let filtered = plugin.on_request(&request).expect("no failure");
        assert!(
            filtered.request.tag("canary-route.lot").is_some(),
            "{bad}: a new one is drawn"
        );
    }
}

#[test]
fn a_header_may_choose() {
    let plugin = canary(&json!({
        "backend": "next", "percent": 0, "by": {"cookie": "uid"},
        "force": {"header": "x-canary", "on": "yes", "off": "no"},
    }));
    for (value, chosen) in [("yes", true), ("no", false), ("Yes", false)] {
        assert_eq!(
            is_chosen(&plugin, &user(1).with_header("x-canary", value)),
            chosen,
            "{value}"
        );
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (config, part) in [
        (
            json!({"backend": "b", "percent": 101, "by": {"cookie": "a"}}),
            "/percent",
        ),
        (
            json!({"backend": "b", "percent": 0.001, "by": {"cookie": "a"}}),
            "/percent",
        ),
        (
            json!({"backend": "b", "percent": -1, "by": {"cookie": "a"}}),
            "/percent",
        ),
        (json!({"backend": "b", "percent": 1, "by": []}), "/by"),
        (
            json!({"backend": "b", "percent": 1, "by": {"cookie": "a", "header": "b"}}),
            "/by/0",
        ),
        (
            json!({"backend": "b", "percent": 1, "by": {"client-ip": true}, "assign": {"cookie": "a"}}),
            "/assign",
        ),
        (
            json!({"backend": "b", "percent": 1, "by": [], "assign": {"cookie": "a b"}}),
            "/assign/cookie",
        ),
        (
            json!({"backend": "b", "percent": 1, "by": [{"cookie": "a"}, {"header": "a b"}]}),
            "/by/1/header",
        ),
        (
            json!({"backend": "b", "percent": 1, "by": {"cookie": "a;b"}}),
            "/by/0/cookie",
        ),
        (json!({"percent": 1, "by": {"cookie": "a"}}), "backend"),
    ] {
        let error = Host::new()
            .configure::<CanaryRoute>(&config.to_string())
            .expect_err("a bad configuration")
            .to_string();
        assert!(error.contains(part), "{config}: {error}");
    }
}

//! What is counted together, and what the limits say.

use std::time::Duration;

use gateway_plugin_rate_limit::RateLimits;
use gateway_plugin_sdk::LimitVerdict;
use gateway_plugin_sdk::test::{Host, Request, Tested};
use proptest::prelude::*;
use serde_json::{Value, json};

fn limits(host: &Host, limits: &Value) -> Tested<RateLimits> {
    host.configure(&json!({ "limits": limits }).to_string())
        .expect("a good configuration")
}

fn limit(key: Value, tokens: u64, burst: u64) -> Value {
    json!({"name": "it", "key": key, "tokens": tokens, "period-ms": 1000, "burst": burst})
}

/// Whether two requests are counted together: with a bucket of one, the second is refused then.
fn together(key: Value, first: &Request, second: &Request) -> bool {
    let limits = limits(&Host::new(), &json!([limit(key, 1, 1)]));
    assert!(
        limits.check(first).expect("a verdict").allowed,
        "the first of a fresh bucket"
    );
    !limits.check(second).expect("a verdict").allowed
}

fn client_ip() -> Value {
    json!([{"client-ip": {"ipv4-prefix": 32, "ipv6-prefix": 64}}])
}

#[test]
fn a_limit_lets_its_burst_through_and_then_its_rate() {
    let host = Host::new();
    let limits = limits(&host, &json!([limit(client_ip(), 2, 3)]));
    let request = Request::get("/");
    let verdict = |allowed, remaining, retry_after_ms| {
        Some(LimitVerdict {
            allowed,
            policy: 0,
            remaining,
            reset_ms: (3 - remaining) * 500,
            retry_after_ms,
        })
    };
    assert_eq!(limits.check(&request), verdict(true, 2, 0));
    assert_eq!(limits.check(&request), verdict(true, 1, 0));
    assert_eq!(limits.check(&request), verdict(true, 0, 0));
    assert_eq!(limits.check(&request), verdict(false, 0, 500));
    host.advance(Duration::from_millis(499));
    assert_eq!(limits.check(&request), verdict(false, 0, 1));
    host.advance(Duration::from_millis(1));
    assert_eq!(limits.check(&request), verdict(true, 0, 0));
    host.advance(Duration::from_secs(3600));
    assert_eq!(
        limits.check(&request),
        verdict(true, 2, 0),
        "no more than the burst is saved up"
    );
}

#[test]
fn clients_are_told_apart_by_network() {
    let from = |client: &str| Request::get("/").from(client);
    assert!(together(client_ip(), &from("192.0.2.1:1"), &from("192.0.2.1:2")));
    assert!(!together(client_ip(), &from("192.0.2.1"), &from("192.0.2.2")));
    assert!(
        together(client_ip(), &from("[2001:db8::1]:1"), &from("[2001:db8::ffff:1]:1")),
        "one customer's /64"
    );
    assert!(!together(
        client_ip(),
        &from("[2001:db8:0:1::1]:1"),
        &from("[2001:db8:0:2::1]:1")
    ));
    assert!(together(client_ip(), &from("192.0.2.1"), &from("[::ffff:192.0.2.1]:1")));

    let prefix = |v4: u8, v6: u8| json!([{"client-ip": {"ipv4-prefix": v4, "ipv6-prefix": v6}}]);
    assert!(together(prefix(24, 128), &from("192.0.2.1"), &from("192.0.2.255")));
    assert!(!together(prefix(24, 128), &from("192.0.2.1"), &from("192.0.3.1")));
    assert!(together(prefix(0, 0), &from("192.0.2.1"), &from("203.0.113.9")));
    assert!(
        !together(prefix(0, 0), &from("0.0.0.0"), &from("[::]:1")),
        "the families are apart"
    );
}

#[test]
fn requests_are_counted_together_by_what_the_key_names() {
    let get = Request::get;
    assert!(together(json!(["path"]), &get("/a?x=1"), &get("/a?x=2")));
    assert!(!together(json!(["path"]), &get("/a"), &get("/b")));
    assert!(together(
        json!(["host"]),
        &get("http://A.example/"),
        &get("http://a.example:80/x")
    ));
    assert!(!together(json!(["method"]), &get("/"), &Request::post("/")));
    let key = json!([{"header": "X-Api-Key"}]);
    assert!(
        together(key.clone(), &get("/"), &get("/")),
        "requests without it count together"
    );
    assert!(!together(
        key.clone(),
        &get("/"),
        &get("/").with_header("x-api-key", "")
    ));
    assert!(!together(
        key.clone(),
        &get("/").with_header("x-api-key", "a"),
        &get("/").with_header("x-api-key", "b")
    ));
    let (one, two) = (
        get("/").with_header("x-api-key", "ab"),
        get("/").with_header("x-api-key", "a"),
    );
    assert!(
        !together(key, &one, &two.with_header("x-api-key", "b")),
        "every value counts"
    );
    let cookie = |value: &str| get("/").with_header("cookie", format!("a=b; session={value}"));
    assert!(!together(json!([{"cookie": "session"}]), &cookie("1"), &cookie("2")));
    assert!(together(
        json!([{"query": "token"}]),
        &get("/?token=%61"),
        &get("/?b=1&token=a")
    ));
    assert!(
        together(json!([]), &get("/a"), &Request::post("/b").from("203.0.113.1")),
        "no key: all requests"
    );
}

#[test]
fn the_verdict_is_that_of_the_limit_nearest_to_its_end() {
    let host = Host::new();
    let limits = limits(
        &host,
        &json!([
            {"name": "wide", "key": [], "tokens": 10, "period-ms": 1000, "burst": 10},
            {"name": "narrow", "key": ["path"], "tokens": 1, "period-ms": 1000, "burst": 2},
        ]),
    );
    let verdict = limits.check(&Request::get("/a")).expect("limits apply");
    assert_eq!((verdict.policy, verdict.remaining), (1, 1));
    limits.check(&Request::get("/a"));
    let refused = limits.check(&Request::get("/a")).expect("limits apply");
    assert_eq!(
        (refused.allowed, refused.policy, refused.retry_after_ms),
        (false, 1, 1000)
    );
}

#[test]
fn a_refused_request_is_not_charged_to_the_limits_after() {
    let host = Host::new();
    let limits = limits(
        &host,
        &json!([
            {"name": "first", "key": ["path"], "tokens": 1, "period-ms": 1000, "burst": 1},
            {"name": "second", "key": [], "tokens": 1, "period-ms": 1000, "burst": 3},
        ]),
    );
    for _ in 0..5 {
        limits.check(&Request::get("/a"));
    }
    let other = limits.check(&Request::get("/b")).expect("limits apply");
    assert!(other.allowed, "four refusals took nothing from the second limit");
}

#[test]
fn no_limits_is_no_verdict() {
    assert_eq!(limits(&Host::new(), &json!([])).check(&Request::get("/")), None);
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_with_its_place() {
    let refused = |limit: Value| {
        let config = json!({ "limits": [limit] }).to_string();
        Host::new()
            .configure::<RateLimits>(&config)
            .expect_err("a bad configuration")
            .to_string()
    };
    assert!(refused(limit(json!([]), 0, 1)).starts_with("/limits/0/tokens: "));
    assert!(refused(limit(json!([]), 1, 0)).starts_with("/limits/0/burst: "));
    let key = json!(["path", {"client-ip": {"ipv4-prefix": 33, "ipv6-prefix": 64}}]);
    assert!(refused(limit(key, 1, 1)).starts_with("/limits/0/key/1/client-ip/ipv4-prefix: "));
}

proptest! {
    /// Values cannot be moved from one part of a key to the next, or glued together, to land in somebody else's bucket.
    #[test]
    fn keys_are_unambiguous(
        first in (prop::collection::vec("[ab]{0,2}", 0..3), prop::collection::vec("[ab]{0,2}", 0..3)),
        second in (prop::collection::vec("[ab]{0,2}", 0..3), prop::collection::vec("[ab]{0,2}", 0..3)),
    ) {
        let request = |(a, b): &(Vec<String>, Vec<String>)| {
            let request = a.iter().fold(Request::get("/"), |request, value| request.with_header("x-a", value));
            b.iter().fold(request, |request, value| request.with_header("x-b", value))
        };
        let key = json!([{"header": "x-a"}, {"header": "x-b"}]);
        prop_assert_eq!(together(key, &request(&first), &request(&second)), first == second);
    }

    /// Two addresses share a bucket exactly when they share a prefix.
    #[test]
    fn networks_are_prefixes(a in any::<u128>(), flip in 0..128_u32, bits in 0..=128_u8) {
        let b = a ^ (1 << flip);
        let from = |address: u128| {
            let address = std::net::Ipv6Addr::from(address);
            Request::get("/").from(&format!("[{address}]:1"))
        };
        let key = json!([{"client-ip": {"ipv4-prefix": 32, "ipv6-prefix": bits}}]);
        // Not an IPv4-mapped one, which is another family's.
        prop_assume!(a >> 64 != 0 && b >> 64 != 0);
        prop_assert_eq!(together(key, &from(a), &from(b)), 127 - flip >= u32::from(bits));
    }
}

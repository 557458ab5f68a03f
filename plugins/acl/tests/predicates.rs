//! What the predicates answer.

use gateway_plugin_acl::Acl;
use gateway_plugin_sdk::TlsInfo;
use gateway_plugin_sdk::test::{Connection, Host, Request, Tested};
use proptest::prelude::*;
use serde_json::{Value, json};

fn acl(when: &Value) -> Tested<Acl> {
    let config = json!({ "predicates": [{ "name": "it", "when": when }] });
    Host::new()
        .configure(&config.to_string())
        .expect("a good configuration")
}

fn holds(when: &Value, request: &Request) -> bool {
    acl(when).evaluate(request).holds("it")
}

fn refused(when: &Value) -> String {
    let config = json!({ "predicates": [{ "name": "it", "when": when }] });
    Host::new()
        .configure::<Acl>(&config.to_string())
        .expect_err("a bad configuration")
        .to_string()
}

#[test]
fn paths_are_compared_as_bytes() {
    let get = Request::get;
    assert!(holds(
        &json!({"path": {"prefix": ["/x", "/api/"]}}),
        &get("/api/v1?q=1")
    ));
    assert!(!holds(&json!({"path": {"prefix": ["/api/"]}}), &get("/api")));
    assert!(holds(&json!({"path": {"exact": ["/b", "/a", "/c"]}}), &get("/c?x")));
    assert!(!holds(&json!({"path": {"exact": ["/b", "/a"]}}), &get("/A")));
    assert!(holds(&json!({"path": {"suffix": [".js"]}}), &get("/static/app.js?v=2")));
    assert!(holds(&json!({"path": {"regex": ["^/user/\\d+$"]}}), &get("/user/42")));
    assert!(!holds(
        &json!({"path": {"regex": ["^/user/\\d+$"]}}),
        &get("/user/42/edit")
    ));
    assert!(holds(&json!({"path": {"regex": ["(?i)^/ADMIN"]}}), &get("/admin")));
    assert!(holds(
        &json!({"path": {"regex": ["/\\xff"]}}),
        &get("/").with_path(b"/\xff")
    ));
}

#[test]
fn what_tls_settled_is_tested_by_the_name_of_its_attribute() {
    let shown = Connection::new()
        .with_attribute("client-cert-cn", "client.example")
        .with_attribute("client-cert-san", "DNS:a.example")
        .with_attribute("client-cert-san", "IP:192.0.2.7");
    for (fact, expected) in [
        (json!({"name": "client-cert-cn", "value": null}), true),
        (json!({"name": "client-cert-issuer", "value": null}), false),
        (
            json!({"name": "client-cert-cn", "value": {"exact": ["x", "client.example"]}}),
            true,
        ),
        (
            json!({"name": "client-cert-cn", "value": {"exact": ["Client.example"]}}),
            false,
        ),
        (
            json!({"name": "client-cert-san", "value": {"prefix": ["IP:192.0.2."]}}),
            true,
        ),
        (json!({"name": "client-cert-san", "value": {"regex": ["^URI:"]}}), false),
    ] {
        let when = json!({ "fact": fact });
        assert_eq!(holds(&when, &Request::get("/").on(shown.clone())), expected, "{when}");
    }
}

#[test]
fn hosts_match_whole_names_or_whole_labels() {
    let when = json!({"host": ["example.net", "*.Example.ORG"]});
    for (url, expected) in [
        ("http://example.net/", true),
        ("http://EXAMPLE.net:8080/", true),
        ("http://example.net./", true),
        ("http://www.example.net/", false),
        ("http://a.example.org/", true),
        ("http://a.b.example.org/", true),
        ("http://example.org/", false),
        ("http://badexample.org/", false),
        ("http://.example.org/", false),
    ] {
        assert_eq!(holds(&when, &Request::get(url)), expected, "{url}");
    }
}

#[test]
fn one_of_several_values_has_to_pass() {
    let when = json!({"header": {"name": "x-client", "value": {"prefix": ["legacy/"]}}});
    let request = Request::get("/").with_header("X-Client", "new/2");
    assert!(!holds(&when, &request));
    assert!(holds(&when, &request.with_header("x-client", "legacy/1")));

    let present = json!({"header": {"name": "x-client", "value": null}});
    assert!(holds(&present, &Request::get("/").with_header("x-client", "")));
    assert!(!holds(&present, &Request::get("/")));
}

#[test]
fn cookies_and_query_parameters_are_looked_up_by_name() {
    let cookie = json!({"cookie": {"name": "beta", "value": {"exact": ["1"]}}});
    assert!(holds(&cookie, &Request::get("/").with_header("Cookie", "a=b; beta=1")));
    assert!(!holds(
        &cookie,
        &Request::get("/").with_header("Cookie", "xbeta=1; beta=2")
    ));

    let query = json!({"query": {"name": "next", "value": {"prefix": ["/a b"]}}});
    assert!(holds(&query, &Request::get("/?x=1&next=%2Fa%20b/c")));
    assert!(!holds(&query, &Request::get("/?next2=/a%20b")));
}

#[test]
fn methods_are_case_sensitive() {
    let when = json!({"method": ["POST", "DELETE"]});
    assert!(holds(&when, &Request::post("/")));
    assert!(!holds(&when, &Request::new("post", "/")));
}

#[test]
fn sources_are_networks_of_either_family() {
    let when = json!({"source": ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "2001:db8::/32"]});
    for (client, expected) in [
        ("10.255.255.255", true),
        ("11.0.0.0", false),
        ("9.255.255.255", false),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("[2001:db8:ffff::1]:1", true),
        ("[2001:db9::]:1", false),
        ("[::ffff:10.0.0.1]:1", true),
    ] {
        assert_eq!(holds(&when, &Request::get("/").from(client)), expected, "{client}");
    }
    assert!(!holds(&json!({"source": []}), &Request::get("/")));
    assert!(holds(&json!({"source": ["0.0.0.0/0"]}), &Request::get("/")));
    assert!(holds(&json!({"source": ["::/0"]}), &Request::get("/").from("[::1]:1")));
}

#[test]
fn tls_and_server_names_are_seen() {
    let plain = Request::get("http://www.example.net/");
    let tls = Request::get("https://www.example.net/");
    assert!(holds(&json!("tls"), &tls));
    assert!(!holds(&json!("tls"), &plain));
    assert!(holds(&json!({"sni": ["*.example.net"]}), &tls));
    assert!(!holds(&json!({"sni": ["*.example.net"]}), &plain));
    assert!(!holds(&json!({"sni": ["*.example.net"]}), &tls.on(Connection::new())));
}

#[test]
fn expressions_nest() {
    let when = json!({"all": [
        {"path": {"prefix": ["/internal/"]}},
        {"not": {"any": [{"source": ["10.0.0.0/8"]}, {"method": ["OPTIONS"]}]}},
    ]});
    let request = Request::get("/internal/x");
    assert!(holds(&when, &request));
    assert!(!holds(&when, &request.clone().from("10.0.0.1")));
    assert!(!holds(&when, &Request::new("OPTIONS", "/internal/x")));
    assert!(holds(&json!({"all": []}), &request));
    assert!(!holds(&json!({"any": []}), &request));
}

#[test]
fn all_predicates_are_answered_at_once() {
    let predicates: Vec<Value> = (0..64)
        .map(|i| json!({"name": format!("p{i}"), "when": {"path": {"exact": [format!("/{i}"), "/all"]}}}))
        .collect();
    let acl: Tested<Acl> = Host::new()
        .configure(&json!({ "predicates": predicates }).to_string())
        .expect("64 fit");
    assert_eq!(acl.evaluate(&Request::get("/63")).yes(), ["p63"]);
    assert_eq!(acl.evaluate(&Request::get("/all")).yes().len(), 64);
    assert_eq!(
        acl.request_needs(),
        ["path"],
        "a fact is handed over once, however many ask for it"
    );

    let one_more: Vec<Value> = (0..65)
        .map(|i| json!({"name": format!("p{i}"), "when": "tls"}))
        .collect();
    let error = Host::new()
        .configure::<Acl>(&json!({ "predicates": one_more }).to_string())
        .expect_err("65 do not");
    assert_eq!(error.pointer(), Some("/predicates"));
}

#[test]
fn only_what_is_asked_for_is_needed() {
    let when = json!({"all": ["tls", {"header": {"name": "X-A", "value": null}}, {"source": ["10.0.0.0/8"]}]});
    assert_eq!(acl(&when).request_needs(), ["tls-version", "header:x-a", "client-ip"]);
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_with_its_place() {
    let at = "/predicates/0/when";
    assert!(refused(&json!({"source": ["10.0.0.0/8", "10.0.0/8"]})).starts_with(&format!("{at}/source/1: `10.0.0/8`")));
    assert!(refused(&json!({"host": ["a*.example.net"]})).starts_with(&format!("{at}/host/0: `a*.example.net`")));
    assert!(refused(&json!({"host": ["*example.net"]})).starts_with(&format!("{at}/host/0")));
    let nested = json!({"any": ["tls", {"not": {"path": {"regex": ["a", "(" ]}}}]});
    assert!(refused(&nested).starts_with(&format!("{at}/any/1/not/path/regex/1: ")));
    assert!(
        refused(&json!({"path": {"regex": ["(a{999}){999}"]}})).contains("size"),
        "patterns are bounded"
    );
    assert!(refused(&json!({"path": {"regex": ["(".repeat(40) + "a" + &")".repeat(40)]}})).contains("nest"));
    assert!(refused(&json!({"pth": {}})).contains("unknown variant"));
}

proptest! {
    /// However many networks there are and however they nest, the answer is that of asking each.
    #[test]
    fn a_set_of_networks_is_the_union_of_its_members(
        networks in prop::collection::vec((any::<u32>(), 0..=32_u8), 0..40),
        address in any::<u32>(),
        near in any::<prop::sample::Index>(),
    ) {
        // Half of the time an address near one of the networks: a random one is in none but the largest.
        let address = match networks.as_slice() {
            [] => address,
            networks if address % 2 == 0 => near.get(networks).0.wrapping_add(address % 512).wrapping_sub(256),
            _ => address,
        };
        let texts: Vec<String> = networks.iter().map(|(net, bits)| format!("{}/{bits}", std::net::Ipv4Addr::from(*net))).collect();
        let expected = networks.iter().any(|(net, bits)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(*bits)).unwrap_or(0);
            net & mask == address & mask
        });
        let request = Request::get("/").from(&std::net::Ipv4Addr::from(address).to_string());
        prop_assert_eq!(holds(&json!({ "source": texts }), &request), expected);
    }

    /// Sorting the alternatives changes no answer.
    #[test]
    fn exact_is_membership(texts in prop::collection::vec("/[ab]{0,3}", 0..20), path in "/[ab]{0,3}") {
        let expected = texts.contains(&path);
        prop_assert_eq!(holds(&json!({"path": {"exact": texts}}), &Request::get(&path)), expected);
    }

    /// Nothing that a client sends makes a pattern fail.
    #[test]
    fn any_bytes_can_be_matched(path in prop::collection::vec(any::<u8>(), 0..300)) {
        let request = Request::get("/").with_path(&path);
        let expected = path.windows(2).any(|pair| pair[0] == b'a' && pair[1].is_ascii_digit());
        prop_assert_eq!(holds(&json!({"path": {"regex": ["a\\d"]}}), &request), expected);
    }
}

#[test]
fn destinations_and_ports_are_where_the_client_connected_to() {
    let request = |to: &str| Request::get("/").on(Connection::new().to(to));
    let port = json!({"port": [[443, 443], [8000, 8100]]});
    for (number, expected) in [
        (443, true),
        (444, false),
        (7999, false),
        (8000, true),
        (8100, true),
        (8101, false),
    ] {
        assert_eq!(
            holds(&port, &request(&format!("192.0.2.9:{number}"))),
            expected,
            "{number}"
        );
    }
    let destination = json!({"destination": ["192.0.2.0/24", "2001:db8::/32"]});
    assert!(holds(&destination, &request("192.0.2.9:80")));
    assert!(holds(&destination, &request("[2001:db8::1]:80")));
    assert!(!holds(&destination, &request("192.0.3.9:80")));
    assert!(refused(&json!({"destination": ["here"]})).contains("/destination/0"));
}

#[test]
fn a_protocol_is_compared_whole() {
    let when = json!({"alpn": ["h2", "postgresql"]});
    let request = |alpn: Option<&[u8]>| {
        let tls = TlsInfo {
            version: "TLSv1.3".to_owned(),
            sni: None,
            alpn: alpn.map(<[u8]>::to_vec),
            client_certificate: None,
        };
        Request::get("/").on(Connection::new().with_tls(tls))
    };
    assert!(holds(&when, &request(Some(b"h2"))));
    assert!(!holds(&when, &request(Some(b"h2c"))));
    assert!(!holds(&when, &request(None)));
    assert!(!holds(&when, &Request::get("/")));
}

/// Whether it holds so many hours after the tests' clock began: on Thursday, 2026-01-01, at midnight.
fn holds_after(when: &Value, hours: f64) -> bool {
    let host = Host::new();
    host.advance(std::time::Duration::from_secs_f64(hours * 3600.0));
    let config = json!({ "predicates": [{ "name": "it", "when": when }] });
    let acl: Tested<Acl> = host.configure(&config.to_string()).expect("a good configuration");
    acl.evaluate(&Request::get("/")).holds("it")
}

#[test]
fn times_are_of_the_day_and_of_the_week() {
    let office = json!({"time": {"zone": "UTC", "days": [1, 2, 3, 4, 5], "ranges": [[480, 720], [780, 1080]]}});
    for (hours, expected) in [
        (0.0, false),
        (7.99, false),
        (8.0, true),
        (11.99, true),
        (12.0, false),
        (13.0, true),
        (17.99, true),
        (18.0, false),
        // Friday, Saturday, Sunday, Monday.
        (24.0 + 9.0, true),
        (48.0 + 9.0, false),
        (72.0 + 9.0, false),
        (96.0 + 9.0, true),
    ] {
        assert_eq!(holds_after(&office, hours), expected, "{hours}");
    }
    // A night belongs to the day on which it begins: Thursday's ends on Friday.
    let night = json!({"time": {"zone": "UTC", "days": [4], "ranges": [[1320, 360]]}});
    for (hours, expected) in [
        (0.0, false),
        (5.0, false),
        (21.9, false),
        (22.0, true),
        (24.0, true),
        (29.9, true),
        (30.0, false),
        (46.5, false),
    ] {
        assert_eq!(holds_after(&night, hours), expected, "{hours}");
    }
    // Sunday's ends on Monday.
    let sunday = json!({"time": {"zone": "UTC", "days": [7], "ranges": [[1320, 360]]}});
    assert!(holds_after(&sunday, 96.0 + 1.0));
    let all = json!({"time": {"zone": "UTC", "days": [], "ranges": [[0, 1440]]}});
    assert!(holds_after(&all, 23.999));
    let weekend = json!({"time": {"zone": "UTC", "days": [6, 7], "ranges": []}});
    assert_eq!(
        [47.9, 48.0, 95.9, 96.0].map(|hours| holds_after(&weekend, hours)),
        [false, true, true, false]
    );
    // The last day of February in a leap year, 2028.
    let days = 365 + 365 + 31 + 28;
    assert!(holds_after(
        &json!({"time": {"zone": "UTC", "days": [2], "ranges": []}}),
        f64::from(days) * 24.0 + 1.0
    ));
    for time in [
        json!({"zone": "UTC", "days": [8], "ranges": []}),
        json!({"zone": "UTC", "days": [], "ranges": [[60, 60]]}),
    ] {
        assert!(refused(&json!({ "time": time })).contains("/time/"));
    }
}

#[test]
fn texts_are_found_within_values() {
    let when = json!({"path": {"contains": ["/..", "wp-admin"]}});
    assert!(holds(&when, &Request::get("/a/wp-admin/x")));
    assert!(!holds(&when, &Request::get("/a/wp-?wp-admin")));
    let when = json!({"header": {"name": "user-agent", "value": {"contains": ["bot"]}}});
    assert!(holds(
        &when,
        &Request::get("/").with_header("user-agent", "a robot 1.0")
    ));
    assert!(!holds(&when, &Request::get("/").with_header("user-agent", "bo")));
    let when = json!({"host-regex": ["^shop[0-9]+\\.example$"]});
    assert!(holds(&when, &Request::get("http://SHOP12.example:80/")));
    assert!(!holds(&when, &Request::get("http://shop.example/")));
}

#[test]
fn lengths_and_counts_are_compared() {
    let length = json!({"uri-length": {"name": null, "min": 5, "max": 8}});
    for (target, expected) in [
        ("/abc", false),
        ("/abcd", true),
        ("/a?b=cde", true),
        ("/a?b=cdef", false),
    ] {
        assert_eq!(holds(&length, &Request::get(target)), expected, "{target}");
    }
    let count = json!({"header-count": {"name": "x-a", "min": 2, "max": 4_294_967_295_u32}});
    let one = Request::get("/").with_header("x-a", "1");
    assert!(!holds(&count, &one));
    assert!(holds(&count, &one.clone().with_header("X-A", "2")));
    let none = json!({"header-count": {"name": "x-a", "min": 0, "max": 0}});
    assert!(holds(&none, &Request::get("/")) && !holds(&none, &one));
    let bytes = json!({"header-length": {"name": "x-a", "min": 3, "max": 3}});
    assert!(!holds(&bytes, &one));
    assert!(holds(&bytes, &one.with_header("x-a", "22")));
}

#[test]
fn versions_upgrades_and_ports_are_compared() {
    let version = |version: &str| json!({ "http-version": [version] });
    assert!(holds(&version("1.1"), &Request::get("/")));
    assert!(!holds(&version("2"), &Request::get("/")));
    let upgrade = json!({"upgrade": ["websocket"]});
    assert!(holds(
        &upgrade,
        &Request::get("/").with_header("upgrade", "h2c, WebSocket")
    ));
    assert!(!holds(&upgrade, &Request::get("/")));
    let port = json!({"source-port": [[1024, 2000], [4000, 4000]]});
    assert!(holds(&port, &Request::get("/").from("192.0.2.1:4000")));
    assert!(!holds(&port, &Request::get("/").from("192.0.2.1:4001")));
}

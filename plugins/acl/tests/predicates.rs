//! What the predicates answer.

use gateway_plugin_acl::Acl;
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

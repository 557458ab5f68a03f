//! Proxies that say who the client is.

use super::*;

#[test]
fn proxies_that_say_who_the_client_is_are_trusted() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    acl lb src 10.0.0.5/8 192.0.2.1
    stick-table type ip size 100k expire 1m store http_req_rate(10s)
    http-request deny if { src 198.51.100.1 }
    http-request del-header X-Forwarded-For if !lb
    http-request set-src hdr(X-Forwarded-For) if lb { req.hdr(x-forwarded-for) -m found }
    http-request track-sc0 src
    http-request deny if { sc0_http_req_rate gt 5 }
    http-request deny if { src 203.0.113.0/24 }
    use_backend app if { src 203.0.113.7 }
    default_backend app
backend app
    mode http
    http-request deny if { src 203.0.113.9 }
    server a 10.0.0.1:80
",
    );
    for part in [
        "    trusted-proxies \"10.0.0.0/8\" \"192.0.2.1\" client-ip=\"x-forwarded-for\"\n",
        "    limit \"web-requests\"\n",
        "        source \"203.0.113.0/24\"\n",
        "        source \"203.0.113.7\"\n",
        "        source \"203.0.113.9\"\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    // What would ask about the proxy, and what is so anyway.
    assert!(!converted.text.contains("source \"198"), "{}", converted.text);
    assert!(
        !converted.text.contains("delete-header") && !converted.text.contains("acl \""),
        "{}",
        converted.text
    );
    found(&converted, 6, "it asks who has connected");
    found(&converted, 7, "not needed: with `trusted-proxies`");
    found(&converted, 8, "HAProxy takes its last value");
    assert!(
        !converted.findings.iter().any(|finding| finding.line > 10),
        "{:?}",
        converted.findings
    );
}

#[test]
fn nobody_is_trusted_whom_the_condition_does_not_name() {
    for (rule, reason) in [
        ("hdr(x-forwarded-for)", "everybody would be believed"),
        ("hdr(x-forwarded-for) if { path /x }", "who is believed are networks"),
        (
            "hdr(x-forwarded-for) if !{ src 10.0.0.0/8 }",
            "who is believed are networks",
        ),
        (
            "hdr(x-forwarded-for) if { src -f lbs.lst }",
            "who is believed are networks",
        ),
        (
            "hdr(x-forwarded-for) if { src 10.0.0.0/8 } METH_POST",
            "who is believed are networks",
        ),
        (
            "hdr(x-forwarded-for) if { src 10.0.0.0/8 } { src 10.1.0.0/16 }",
            "who is believed is said once",
        ),
        (
            "hdr(x-forwarded-for,1) if { src 10.0.0.0/8 }",
            "what the last value of a field says",
        ),
        (
            "src,ipmask(24) if { src 10.0.0.0/8 }",
            "what the last value of a field says",
        ),
    ] {
        let converted = converted(&format!(
            "frontend web
    mode http
    bind :80
    http-request set-src {rule}
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
"
        ));
        assert!(!converted.text.contains("    trusted-proxies"), "{}", converted.text);
        found(&converted, 4, reason);
    }
}

#[test]
fn what_is_asked_of_connections_is_not_asked_of_whom_proxies_name() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    tcp-request connection reject if { src 198.51.100.1 }
    tcp-request content reject if !{ src 10.0.0.0/8 }
    http-request set-src hdr(x-forwarded-for) if { src 10.0.0.0/8 }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    assert!(converted.text.contains("    reject "), "{}", converted.text);
    assert!(!converted.text.contains("    deny"), "{}", converted.text);
    found(&converted, 5, "it asks who has connected");
}

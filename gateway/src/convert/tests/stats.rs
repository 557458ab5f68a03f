//! The stats page and monitors.

use super::*;

#[test]
fn the_stats_page_and_monitors_are_carried_over() {
    let converted = converted(
        "listen stats
    bind 10.0.0.1:8404
    mode http
    stats enable
    stats uri /haproxy
    stats refresh 10
    stats hide-version
    stats auth ops:s3cret
    stats admin if TRUE
    monitor-uri /alive
frontend web
    bind *:8080
    mode http
    acl app_down nbsrv(app) lt 2
    acl inside path /inside
    monitor-uri /up
    monitor fail if app_down or { nbsrv(spare) eq 0 }
    use_backend spare if inside
    default_backend app
    stats enable
frontend other
    bind *:8081
    mode http
    monitor-uri /up
    monitor fail if { path /x }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:8080
    server b 10.0.0.2:8080
backend spare
    mode http
    server c 10.0.0.3:8080
",
    );
    for part in [
        "stats {\n    bind \"10.0.0.1:8404\"\n",
        "refresh \"10s\"\n    hide-version\n    auth \"ops\" password=\"$6$",
        "monitor \"/alive\"\n",
        "monitor \"/up\" {\n        require \"app\" servers=2\n        require \"spare\" servers=1\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert!(!converted.text.contains("acl \"app_down\""), "{}", converted.text);
    found(&converted, 5, "the page is at / here");
    found(&converted, 8, "hashed");
    found(&converted, 9, "admin socket");
    found(&converted, 20, "a bind of its own");
    found(&converted, 25, "`nbsrv(backend) lt 1`");
    assert_eq!(converted.findings.len(), 5, "{:?}", converted.findings);
    assert!(converted.is_valid);
}

#[test]
fn a_stats_page_that_decides_who_is_let_in_is_left_out() {
    let converted = converted(
        "frontend stats
    bind *:8404
    mode http
    stats enable
    acl inside src 10.0.0.0/8
    http-request deny unless inside
frontend web
    bind *:8080
    mode http
    default_backend app
backend app
    mode http
    server a 10.0.0.1:8080
",
    );
    assert!(!converted.text.contains("\nstats {"), "{}", converted.text);
    found(&converted, 1, "`allow` and `auth`");
    assert!(converted.is_valid);
}

//! Stick tables: what they count, and whom they keep to a server.

use super::*;

/// HAProxy's usual ways to limit clients by what tables count.
const COUNTING: &str = "defaults
    timeout client 5s
frontend raw
    mode tcp
    bind 127.0.0.1:5432
    stick-table type ip size 100k expire 30s store conn_cur,conn_rate(10s)
    tcp-request connection track-sc0 src
    tcp-request connection reject if { sc0_conn_cur gt 10 } || { sc_conn_rate(0) gt 20 }
    default_backend db
frontend web
    mode http
    bind 127.0.0.1:80
    acl too_fast sc1_http_req_rate(shared) ge 101
    tcp-request connection track-sc0 src,ipmask(24,56) table shared
    tcp-request connection reject if { sc0_conn_cur gt 50 }
    tcp-request connection reject if { src_conn_rate(shared) gt 30 }
    http-request track-sc1 req.hdr(X-Api-Key) table shared
    http-request deny deny_status 429 if too_fast
    default_backend app
frontend other
    mode http
    bind 127.0.0.1:81
    tcp-request connection reject if { src_conn_rate(shared) gt 30 }
    default_backend app
backend shared
    stick-table type string len 64 size 1m expire 1m store conn_cur,conn_rate(3s),http_req_rate(1m)
backend db
    mode tcp
    server a 10.0.0.1:5432
backend app
    mode http
    server a 10.0.0.1:80
";

#[test]
fn what_tables_count_becomes_limits() {
    let converted = converted(COUNTING);
    for part in [
        "    max-connections-per-source 10\n    limit \"raw-connections\"\n",
        "rate-limit \"raw-connections\" {\n    key \"client-ip\"\n    allow \"20/10s\"\n}",
        "    max-connections-per-source 50 ipv4-prefix=24 ipv6-prefix=56\n    limit \"shared-connections\" connections\n    limit \"shared-requests\"\n",
        "rate-limit \"shared-connections\" {\n    key \"client-ip\"\n    allow \"30/3s\"\n}",
        "rate-limit \"shared-requests\" {\n    key \"header\" \"x-api-key\"\n    allow \"100/1m\"\n}",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    // The same of one table is one limit for both frontends.
    assert_eq!(converted.text.matches("rate-limit").count(), 3, "{}", converted.text);
    assert_eq!(
        converted.text.matches("limit \"shared-connections\"").count(),
        3,
        "{}",
        converted.text
    );
    assert!(!converted.text.contains("not converted"), "{}", converted.text);
    found(&converted, 8, "token bucket");
}

#[test]
fn rates_of_errors_become_limits_that_count_statuses() {
    let converted = converted(
        "frontend web
    mode http
    bind 127.0.0.1:80
    stick-table type ip size 1m expire 1m store http_err_rate(10s),http_fail_rate(1m)
    http-request track-sc0 src
    http-request deny deny_status 429 if { sc_http_err_rate(0) gt 20 } || { sc0_http_fail_rate gt 5 }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    assert!(converted.is_valid, "{}", converted.text);
    for part in [
        "    limit \"web-errors\"\n    limit \"web-failures\"\n",
        "rate-limit \"web-errors\" {\n    key \"client-ip\"\n    allow \"21/10s\"\n    count-status \"400-499\"\n}",
        "    allow \"6/1m\"\n    count-status \"500,502-504,506-599\"\n}",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert!(!converted.text.contains("not converted"), "{}", converted.text);
}

#[test]
fn what_tables_count_is_reported_where_no_limit_says_it() {
    let rules = [
        (
            "tcp-request connection reject unless { src_conn_cur lt 10 }",
            "only be asked by a rule that refuses",
        ),
        (
            "tcp-request connection reject if { src_conn_cur gt 10 } { src_conn_cur lt 20 }",
            "only be asked by a rule that refuses",
        ),
        (
            "tcp-request connection reject if { src_conn_cur gt 10 } or office",
            "only be asked by a rule that refuses",
        ),
        (
            "tcp-request connection reject if { src_conn_cur lt 10 }",
            "`gt` or `ge`",
        ),
        (
            "tcp-request connection reject if { src_conn_cur ge 1 }",
            "one in at least",
        ),
        (
            "tcp-request connection reject if { src_conn_rate gt 10 }",
            "over which time",
        ),
        (
            "tcp-request connection reject if { src_conn_rate(nowhere) gt 10 }",
            "no table `nowhere`",
        ),
        ("tcp-request connection reject if { sc2_conn_cur gt 10 }", "track-sc2"),
        ("http-request deny if { src_http_err_rate gt 10 }", "`http_err_rate`"),
        ("http-request track-sc0 base32+src", "base32+src"),
        (
            "use_backend slow if { src_conn_cur gt 10 }",
            "only be asked by a rule that refuses",
        ),
    ];
    for (rule, says) in rules {
        let converted = converted(&format!(
            "frontend web
    mode http
    bind 127.0.0.1:80
    stick-table type ip size 1m expire 1m store conn_cur,conn_rate
    acl office src 10.0.0.0/8
    acl abuse src_conn_cur gt 5
    http-request deny if office
    {rule}
    default_backend slow
backend slow
    mode http
    server a 10.0.0.1:80
"
        ));
        found(&converted, 8, says);
        assert!(
            !converted.text.contains("max-connections-per-source"),
            "{rule}: {}",
            converted.text
        );
    }
}

#[test]
fn a_stick_table_is_carried_over() {
    let converted = converted(
        "frontend raw
    bind :5432
    default_backend db
backend db
    stick-table type ip size 200k expire 30m
    stick on src
    server a 10.0.0.1:5432
    server b 10.0.0.2:5432
",
    );
    let expected = "stick \"client-ip\" expire=\"30m\" size=204800";
    assert!(
        converted.text.contains(expected),
        "{}\n{:?}",
        converted.text,
        converted.findings
    );
}

/// As HAProxy's own articles have it: known clients first, then the limits.
#[test]
fn whom_an_accept_lets_through_no_limit_behind_it_is_about() {
    let converted = converted(
        "frontend web
    mode http
    bind 127.0.0.1:80
    acl office src 10.0.0.0/8
    stick-table type ip size 100k expire 30s store conn_cur,conn_rate(10s),http_req_rate(10s)
    tcp-request connection accept if office
    tcp-request connection accept if { src -f friends.lst }
    tcp-request connection track-sc0 src
    tcp-request connection reject if { src_conn_rate gt 20 }
    tcp-request connection reject if { sc0_conn_cur gt 10 }
    http-request allow if { path /up }
    http-request deny deny_status 429 if { sc0_http_req_rate gt 100 }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for line in [
        "    limit \"web-connections\" connections unless=\"office or line-7-1\"",
        "    max-connections-per-source 10 unless=\"office or line-7-1\"",
        // Who is not tracked has no rate.
        "    limit \"web-requests\" unless=\"line-11-2 or office or line-7-1\"",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line}\n{}\n{:?}",
            converted.text,
            converted.findings
        );
    }
    assert!(!converted.text.contains("not converted"), "{}", converted.text);
}

#[test]
fn what_a_rule_asks_beside_a_count_is_the_limits_condition() {
    let converted = converted(
        "frontend web
    mode http
    bind 127.0.0.1:80
    acl office src 10.0.0.0/8
    acl login path_beg /login
    stick-table type ip size 100k expire 30s store http_req_rate(10s),http_err_rate(1m)
    http-request track-sc0 src if login
    http-request track-sc1 src
    http-request tarpit if { sc0_http_req_rate gt 5 } !office
    http-request deny if { sc1_http_err_rate gt 50 } !office
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for line in [
        "    limit \"web-requests\" if=\"login and not office\"",
        "    limit \"web-errors\" unless=\"office\"",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line}\n{}",
            converted.text
        );
    }
    found(&converted, 9, "`tarpit` of a count has become a limit");
    found(&converted, 10, "only what it holds of is counted");
}

/// A connection that is tracked behind the rule is not among those that the rule counts.
#[test]
fn a_count_is_without_what_is_tracked_behind_it() {
    for (rules, most) in [
        (
            "tcp-request connection reject if { src_conn_cur ge 10 }\n    tcp-request connection track-sc1 src",
            10,
        ),
        (
            "tcp-request connection track-sc1 src\n    tcp-request connection reject if { src_conn_cur ge 10 }",
            9,
        ),
    ] {
        let converted = converted(&format!(
            "listen web
    mode tcp
    bind 127.0.0.1:80
    stick-table type ip size 100k expire 30s store conn_cur
    {rules}
    server a 10.0.0.1:80
"
        ));
        let ours = format!("    max-connections-per-source {most}\n");
        assert!(converted.text.contains(&ours), "{ours}{}", converted.text);
    }
}

#[test]
fn an_address_that_a_rule_has_changed_is_limited_by_nothing() {
    let converted = converted(
        "frontend web
    mode http
    bind 127.0.0.1:80
    stick-table type ip size 100k expire 30s store http_req_rate(10s)
    http-request set-src hdr(x-forwarded-for)
    http-request track-sc0 src
    http-request deny if { sc0_http_req_rate gt 5 }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    assert!(!converted.text.contains("limit \""), "{}", converted.text);
    found(&converted, 7, "line 5 has changed the client's address");
}

#[test]
fn who_is_at_which_server_is_known_for_ever_where_no_time_is_said() {
    let converted = converted(
        "listen db
    bind :5432
    stick-table type ip size 200k peers mine
    stick on src
    server a 10.0.0.1:5432
    server b 10.0.0.2:5432
",
    );
    assert!(
        converted
            .text
            .contains("stick \"client-ip\" expire=\"24d\" size=204800"),
        "{}",
        converted.text
    );
    found(&converted, 3, "no `expire`");
    found(&converted, 3, "`peers mine`");
}

/// Connections are counted when nothing is known of them but their addresses.
#[test]
fn a_limit_of_connections_asks_for_nothing_that_requests_say() {
    let converted = converted(
        "frontend web
    mode http
    bind 127.0.0.1:80
    stick-table type ip size 100k expire 30s store conn_cur
    tcp-request connection track-sc0 src
    http-request deny if { sc0_conn_cur gt 10 } { path /a }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    found(&converted, 6, "asks for what is not known yet");
    assert!(
        !converted.text.contains("max-connections-per-source 10"),
        "{}",
        converted.text
    );
}

/// A limit is made of each of them.
#[test]
fn whom_an_accept_lets_through_is_not_limited_whichever_way_the_rule_behind_it_refuses() {
    let converted = converted(
        "listen db
    mode tcp
    bind 127.0.0.1:5432
    acl office src 10.0.0.0/8
    stick-table type ip size 100k expire 30s store conn_cur
    tcp-request connection accept if office
    tcp-request connection silent-drop if { src_conn_cur gt 10 }
    server a 10.0.0.1:5432
",
    );
    assert!(
        converted
            .text
            .contains("    max-connections-per-source 10 unless=\"office\"\n"),
        "{}",
        converted.text
    );
}

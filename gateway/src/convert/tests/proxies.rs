//! Sections, and what is said of a proxy as a whole.

use super::*;

const TCP: &str = "global
    maxconn 50000
    tune.ssl.default-dh-param 2048
    daemon

defaults
    mode tcp
    log global
    option tcplog
    option dontlognull
    timeout connect 5s
    timeout client  30000

frontend pg_front
    bind 127.0.0.1:5432,127.0.0.2:5432
    default_backend pg

backend pg
    balance leastconn
    option tcp-check
    server a 10.0.0.21:5432 check inter 3s rise 2 fall 3
    server b 10.0.0.22:5432 check inter 3s rise 2 fall 3 weight 2
    server c 10.0.0.23:5432 check inter 3s rise 2 fall 3 backup
";

#[test]
fn a_tcp_proxy_is_carried_over() {
    let converted = converted(TCP);
    for line in [
        "    max-connections 50000",
        "    access-log skip-null",
        "    timeout connect=\"5s\"",
        "    timeout client=\"30000ms\"",
        "    bind \"127.0.0.1:5432\"",
        "    bind \"127.0.0.2:5432\"",
        "    default-backend \"pg\"",
        "    balance \"leastconn\"",
        "    check \"tcp\" interval=\"3s\" rise=2 fall=3",
        "    server \"b\" \"10.0.0.22:5432\" weight=2",
        "    server \"c\" \"10.0.0.23:5432\" backup",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line} in\n{}",
            converted.text
        );
    }
    found(&converted, 3, "no finite-field Diffie-Hellman");
    found(&converted, 4, "foreground");
    assert_eq!(converted.findings.len(), 2, "{:?}", converted.findings);
}

#[test]
fn a_mode_that_nobody_says_is_haproxys() {
    let raw = converted("listen db\n bind :5432\n server a 10.0.0.1:5432\n");
    assert_eq!(raw.text.matches("mode \"tcp\"").count(), 2, "{}", raw.text);
    let two = converted(
        "defaults\n mode http\nlisten web\n bind :80\n server a 10.0.0.1:80\ndefaults\n timeout client 5s\nlisten db\n bind :81\n server a 10.0.0.1:81\n",
    );
    assert_eq!(two.text.matches("mode \"tcp\"").count(), 2, "{}", two.text);
    assert!(two.text.contains("frontend \"db\" from=\"line-6\""), "{}", two.text);
    assert!(two.text.contains("frontend \"web\" {"), "{}", two.text);
}

#[test]
fn a_listen_section_becomes_two() {
    let converted = converted(
        "listen redis
    mode tcp
    bind 127.0.0.1:6379
    balance first-of-all
    server r1 10.0.0.1:6379
",
    );
    assert!(converted.text.contains("frontend \"redis\" {"));
    assert!(converted.text.contains("    default-backend \"redis\""));
    assert!(converted.text.contains("backend \"redis\" {"));
    // What our configuration refuses is a comment with its reason.
    found(&converted, 4, "left out");
    assert!(
        converted.text.contains("//   balance first-of-all"),
        "{}",
        converted.text
    );
}

#[test]
fn options_are_carried_over_or_reported() {
    let converted = converted(
        "resolvers dns
    nameserver one 10.0.0.2:53
    hold valid 30s
    resolve_retries 3
frontend db
    bind :5432 ssl crt a.pem crt b.pem backlog 512 tfo
    default_backend db
backend db
    server a db.internal:5432 check agent-check agent-port 9777 agent-inter 5s observe layer4 error-limit 5 on-error mark-down on-marked-down shutdown-sessions resolvers dns ws h1
    server-template t 2-3 x.internal:1 check send-proxy-v2 proxy-v2-options crc32c agent-check agent-port 9777 agent-inter 5s
frontend web
    mode http
    bind :80
    default_backend web
backend web
    mode http
    option httpchk GET /x HTTP/1.1\\r\\nHost:\\ app\\r\\nX-A:\\ b
    server a 10.0.0.1:80 check
    server b 10.0.0.1:80 disabled
",
    );
    for part in [
        "resolver max-ttl=\"30s\" retries=2 {\n    nameserver \"10.0.0.2:53\"",
        "bind \"0.0.0.0:5432\" backlog=512 {\n        tls cert=\"a.pem\" {\n            cert \"b.pem\"",
        "agent-check port=9777 interval=\"5s\"",
        "observe \"connect\" error-limit=5 on-error=\"mark-down\"",
        "server \"a\" \"db.internal:5432\" on-marked-down=\"shutdown-sessions\"",
        "server-template \"t\" count=2 \"x.internal:1\"",
        "send-proxy=\"v2\" proxy-crc32c",
        "send \"GET\" \"/x\" host=\"app\" {\n            header \"X-A\" \"b\"",
    ] {
        assert!(
            converted.text.contains(part),
            "{part} in\n{}\n{:?}",
            converted.text,
            converted.findings
        );
    }
    found(&converted, 6, "`tfo`");
    found(&converted, 9, "`ws h1`");
    assert!(
        converted.text.contains("server \"b\" \"10.0.0.1:80\" disabled"),
        "{}",
        converted.text
    );
}

/// HAProxy's operators say all three, often in `defaults` and again in a section.
#[test]
fn timeouts_beside_a_tunnels_are_kept_where_they_may_stand_and_told_of_once_elsewhere() {
    let converted = converted(
        "defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout tunnel 1h
frontend a
    bind 127.0.0.1:5432
    timeout client 1m
    default_backend b
backend b
    timeout server 1m
    timeout queue 3s
    server s 10.0.0.1:5432 maxconn 10
",
    );
    for said in [
        "    timeout client=\"30s\"\n    timeout server=\"30s\"\n    timeout tunnel=\"1h\"\n",
        "    // not converted: `timeout client=` does nothing beside `tunnel=`\n    //   timeout client 1m\n",
        "    // not converted: `timeout server=` does nothing beside `tunnel=`\n    //   timeout server 1m\n",
    ] {
        assert!(converted.text.contains(said), "{said} in\n{}", converted.text);
    }
    found(
        &converted,
        9,
        "left out: `timeout client=` does nothing beside `tunnel=`",
    );
    found(
        &converted,
        12,
        "left out: `timeout server=` does nothing beside `tunnel=`",
    );
    assert_eq!(converted.findings.len(), 2, "{:?}", converted.findings);
}

#[test]
fn what_has_another_name_here_and_what_goes_without_saying_is_told_as_such() {
    let converted = converted(
        "global
    hard-stop-after 45s
    spread-checks 5
    ulimit-n 100000
defaults
    mode tcp
    option abortonclose
    option log-health-checks
    option nolinger
    timeout client-fin 3s
frontend f
    bind 127.0.0.1:443
    use_backend b if { req_ssl_sni -i db.example.net }
backend b
    server s 10.0.0.1:443
",
    );
    assert!(converted.text.contains("drain-timeout \"45s\""), "{}", converted.text);
    assert!(converted.text.contains("sni \"db.example.net\""), "{}", converted.text);
    for line in [3, 4, 7, 8] {
        found(&converted, line, "not needed: ");
    }
    found(&converted, 9, "no counterpart of `option nolinger`");
    found(&converted, 10, "no counterpart of `timeout client-fin`");
}

#[test]
fn what_has_no_counterpart_is_a_comment_where_it_stood() {
    let converted = converted(
        "global
    ssl-engine rdrand
frontend web
    bind :8080
    acl lua lua.my_fetch -m found
    filter spoe engine x
    http-request set-var(txn.a) str(b)
    use_backend app if lua
    default_backend app
backend app
    server a 10.0.0.1:80
peers mine
    peer one 10.0.0.1:1024
",
    );
    for line in [2, 5, 6, 7, 8, 12] {
        assert!(
            converted.findings.iter().any(|finding| finding.line == line),
            "{line}: {:?}",
            converted.findings
        );
    }
    assert!(converted.text.contains("//   filter spoe engine x"));
}

#[test]
fn a_text_without_a_proxy_cannot_be_made_valid_and_says_so() {
    let converted = haproxy("global\n    maxconn 10\n", |_| None);
    assert!(!converted.is_valid);
    assert!(
        converted.findings.iter().any(|finding| finding.line == 0),
        "{:?}",
        converted.findings
    );
}

#[test]
fn nothing_panics() {
    for text in [
        "",
        "\\",
        "\"",
        "server",
        "backend\nserver",
        "frontend f\nbind\nacl\nuse_backend\nhttp-request",
        "listen",
    ] {
        let _ = haproxy(text, |_| None);
    }
    // Every beginning of a text that is right.
    for end in (0..TCP.len()).step_by(7) {
        let _ = haproxy(&TCP[..end], |_| None);
    }
}

#[test]
fn what_defaults_say_of_retries_holds_beside_what_a_section_says() {
    let text = "defaults
    mode tcp
    DEFAULTS
frontend f
    bind 127.0.0.1:5432
    default_backend b
backend b
    SECTION
    server s 10.0.0.1:5432
";
    for (defaults, section, ours) in [
        ("retries 1", "option redispatch", "    retries 1 redispatch=\"each\""),
        (
            "retries 1",
            "balance leastconn\n    option redispatch",
            "    retries 1 redispatch=\"last\"",
        ),
        ("option redispatch", "retries 5", "    retries 5 redispatch=\"each\""),
        ("option redispatch 2", "retries 5", "    retries 5 redispatch=\"last\""),
        (
            "retries 2\n    option redispatch",
            "no option redispatch",
            "    retries 2 redispatch=\"off\"",
        ),
    ] {
        let converted = converted(&text.replace("DEFAULTS", defaults).replace("SECTION", section));
        let backend = converted.text.rsplit("backend \"b\"").next().unwrap();
        assert!(backend.lines().any(|line| line == ours), "{ours} in\n{backend}");
        assert_eq!(converted.findings, [], "{defaults}, {section}");
    }
}

#[test]
fn a_timeout_of_none_is_the_longest_there_is() {
    let converted = converted(
        "defaults
    mode tcp
    timeout client 0
    timeout server 0s
listen l
    bind 127.0.0.1:5432
    balance hash src
    hash-type consistent
    server a 10.0.0.1:5432
    server b 10.0.0.2:5432
",
    );
    for line in [
        "    timeout client=\"24d\"",
        "    timeout server=\"24d\"",
        "    balance \"source\" consistent",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line} in\n{}",
            converted.text
        );
    }
    found(&converted, 3, "for ever");
    found(&converted, 4, "for ever");
}

#[test]
fn a_range_of_ports_is_a_bind_for_each() {
    let converted = converted("listen l\n mode tcp\n bind 127.0.0.1:5000-5002,:6000\n server s 10.0.0.1:1\n");
    let binds: Vec<&str> = converted.text.lines().filter(|line| line.contains("bind")).collect();
    assert_eq!(
        binds,
        [
            "    bind \"127.0.0.1:5000\"",
            "    bind \"127.0.0.1:5001\"",
            "    bind \"127.0.0.1:5002\"",
            "    bind \"0.0.0.0:6000\""
        ]
    );
}

#[test]
fn what_sockets_are_told_is_carried_over() {
    let converted = converted(
        "frontend f
    mode tcp
    bind :80 interface eth0 transparent defer-accept tcp-ut 30s mss 1400
    bind :81 tcp-ut 5000 mss -20
    default_backend b
backend b
    mode tcp
    source 0.0.0.0 usesrc clientip
    server one 10.0.0.1:1 tcp-ut 10s
    server two 10.0.0.2:1 source 0.0.0.0 interface eth1
    server three 10.0.0.3:1 source 192.0.2.3 interface eth1 usesrc client
    server four 10.0.0.4:1 source 0.0.0.0 usesrc hdr_ip(x-forwarded-for)
",
    );
    for line in [
        "    bind \"0.0.0.0:80\" interface=\"eth0\" tcp-user-timeout=\"30s\" mss=1400 transparent defer-accept",
        "    bind \"0.0.0.0:81\" tcp-user-timeout=\"5000ms\"",
        "    source \"client-ip\"",
        "    server \"one\" \"10.0.0.1:1\" tcp-user-timeout=\"10s\"",
        "    server \"two\" \"10.0.0.2:1\" interface=\"eth1\"",
        "    server \"three\" \"10.0.0.3:1\" source=\"client-ip\" interface=\"eth1\"",
        "    server \"four\" \"10.0.0.4:1\"",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line} in\n{}",
            converted.text
        );
    }
    found(&converted, 4, "`mss -20` of the bind was left out");
    found(&converted, 8, "takes CAP_NET_ADMIN");
    found(&converted, 11, "and not its port");
    found(&converted, 12, "`source 0.0.0.0` of the server was left out");
    assert!(converted.is_valid);
}

#[test]
fn what_unix_bind_says_is_said_of_each_socket_that_says_nothing_else() {
    let converted = converted(
        "global
    unix-bind prefix /run/ha mode 660 user www gid 33
    unix-bind mode 600 backlog 5
frontend f
    mode tcp
    bind /one.sock
    bind unix@/two.sock mode 666 group web uid 7
    bind abns@three
    bind :80
    default_backend b
backend b
    mode tcp
    server a /run/a.sock
",
    );
    for line in [
        "    bind \"unix:/run/ha/one.sock\" mode=\"600\" user=\"www\" group=\"33\"",
        "    bind \"unix:/run/ha/two.sock\" mode=\"666\" user=\"7\" group=\"web\"",
        "    bind \"abns:three\"",
        "    bind \"0.0.0.0:80\"",
        "    server \"a\" \"unix:/run/a.sock\"",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line} in\n{}",
            converted.text
        );
    }
    found(&converted, 3, "`backlog` of `unix-bind` was left out");
    assert!(converted.is_valid);
}

#[test]
fn unix_sockets_and_sources_are_carried_over() {
    let converted = converted(
        "frontend f
    mode tcp
    bind unix@/run/app.sock mode 660 user www group www accept-proxy
    bind /run/other.sock
    bind abnsz@name
    bind abns@filled
    default_backend b
backend b
    mode tcp
    source 192.0.2.1:0
    server one unix@/run/one.sock send-proxy
    server two abns@two
    server three 10.0.0.3:1 source 192.0.2.3
    server four 10.0.0.4:1 source 192.0.2.4:5000-6000
",
    );
    for line in [
        "    bind \"unix:/run/app.sock\" mode=\"660\" user=\"www\" group=\"www\" accept-proxy",
        "    bind \"unix:/run/other.sock\"",
        "    bind \"unix:@name\"",
        "    bind \"abns:filled\"",
        "    source \"192.0.2.1\"",
        "    server \"one\" \"unix:/run/one.sock\" send-proxy=\"v1\"",
        "    server \"two\" \"abns:two\"",
        "    server \"three\" \"10.0.0.3:1\" source=\"192.0.2.3\"",
        "    server \"four\" \"10.0.0.4:1\"",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line} in\n{}",
            converted.text
        );
    }
    found(&converted, 14, "no address whose port is left to the system");
}

#[test]
fn timeouts_that_nobody_says_are_told_with_what_they_are() {
    let of = |defaults: &str, mode: &str| {
        let text = format!(
            "defaults
    mode {mode}
    {defaults}
frontend web
    bind :80
    default_backend app
backend app
    server a 10.0.0.1:80
"
        );
        let mut findings = haproxy(&text, |_| None).findings;
        findings.retain(|finding| finding.message.starts_with("no `timeout "));
        let names = findings.iter().map(|finding| {
            assert_eq!(finding.line, 1, "{finding:?}");
            finding.message.split('`').nth(1).unwrap().to_owned()
        });
        names.collect::<Vec<_>>()
    };
    let all = ["timeout client", "timeout connect", "timeout server"];
    assert_eq!(of("retries 3", "tcp"), all);
    assert_eq!(of("timeout tunnel 1h", "tcp"), ["timeout connect"]);
    assert_eq!(
        of(
            "timeout client 1m\n    timeout server 1m\n    timeout connect 1s",
            "http"
        ),
        ["timeout http-keep-alive", "timeout http-request"]
    );
}

#[test]
fn where_requests_go_and_when_connections_end_is_taken_from_defaults() {
    let converted = haproxy(
        "defaults
    mode http
    option httpclose
    default_backend app
frontend web
    bind :80
frontend other
    bind :81
    default_backend other
defaults
    mode http
frontend none
    bind :82
    use_backend app if { path /a }
backend app
    server a 10.0.0.1:80
backend other
    server a 10.0.0.1:80
",
        |_| None,
    );
    assert!(converted.is_valid, "{converted:#?}");
    for part in [
        "    http-keep-alive max-requests=1\n    server-close\n",
        "    bind \"0.0.0.0:80\"\n    default-backend \"app\"\n",
        "    bind \"0.0.0.0:81\"\n    default-backend \"other\"\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    found(&converted, 12, "404 here, and 503 of HAProxy");
}

#[test]
fn a_section_that_is_disabled_serves_nobody() {
    let converted = converted(
        "listen off
    mode tcp
    bind :80
    disabled
    server a 10.0.0.1:80
listen on
    mode tcp
    bind :81
    disabled
    enabled
    server a 10.0.0.1:80
",
    );
    assert!(!converted.text.contains("frontend \"off\""), "{}", converted.text);
    assert!(converted.text.contains("frontend \"on\""), "{}", converted.text);
    found(&converted, 1, "it is `disabled`");
    assert_eq!(converted.findings.len(), 1, "{:?}", converted.findings);
}

#[test]
fn a_rate_of_sessions_is_one_of_connections() {
    let listen = |rate| {
        converted(&format!(
            "listen l\n mode tcp\n bind :1\n rate-limit sessions {rate}\n server s 10.0.0.1:1\n"
        ))
    };
    let limited = listen("200");
    assert!(
        limited.text.contains("    max-connection-rate \"200/s\"\n"),
        "{}",
        limited.text
    );
    assert_eq!(limited.findings, []);
    assert!(!listen("0").text.contains("rate"));
}

#[test]
fn what_stands_behind_a_section_that_is_none_here_is_not_the_section_befores() {
    let converted = converted(
        "listen a
    mode tcp
    bind :80
    server a 10.0.0.1:80
log-forward sys
    bind 127.0.0.1:1514
    log 127.0.0.1 local0
crt-store web
    load crt a.pem
",
    );
    assert!(!converted.text.contains("1514\""), "{}", converted.text);
    found(&converted, 5, "no sections of this kind: log-forward");
    found(&converted, 8, "no sections of this kind: crt-store");
}

#[test]
fn acls_of_a_listen_section_are_there_for_both_of_its_halves() {
    let converted = converted(
        "listen web
    mode http
    bind :80
    acl api path_beg /api/
    acl static path_beg /static/
    http-request deny if api { method POST }
    http-response set-header X-Api 1 if api
    http-response set-header X-Static 1 if static
    server a 10.0.0.1:80
",
    );
    let (front, back) = converted.text.split_once("backend \"web\"").unwrap();
    let names = |text: &str| [text.contains("acl \"api\""), text.contains("acl \"static\"")];
    assert_eq!(
        (names(front), names(back)),
        ([true, false], [true, true]),
        "{}",
        converted.text
    );
    for line in [7, 8] {
        found(
            &converted,
            line,
            "HAProxy knows no `path_beg` any more when the response comes",
        );
    }
    assert_eq!(converted.findings.len(), 2, "{:?}", converted.findings);
}

#[test]
fn conditional_lines_are_taken_passed_over_or_told_of() {
    let text = "global
    setenv BACK 10.0.0.9
.if defined(TLS_PORT) && streq(\"$MODE\",tcp)
    maxconn 100
.elif defined(NOTHING)
    maxconn 200
.else
    maxconn 300
.endif
listen web
    mode tcp
    bind \"*:${PORT-80}\"
    server a \"$BACK\":80
.if version_atleast(2.8)
    server b 10.0.0.2:80
.else
    server c 10.0.0.3:80
backend lost
.endif
    server d 10.0.0.4:80
    server e \"$NOWHERE:80\"
.endif
frontend f
    mode tcp
    bind :81
    default_backend web
";
    let environment = |name: &str| match name {
        "TLS_PORT" => Some("443".to_owned()),
        "MODE" => Some("tcp".to_owned()),
        _ => None,
    };
    let converted = haproxy(text, environment);
    assert!(converted.is_valid, "{converted:#?}");
    for part in [
        "    max-connections 100\n",
        "    bind \"0.0.0.0:80\"\n",
        "    server \"a\" \"10.0.0.9:80\"\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert_eq!(converted.text.matches("server \"").count(), 1, "{}", converted.text);
    assert_eq!(
        converted.text.matches("max-connections").count(),
        1,
        "{}",
        converted.text
    );
    for (line, says) in [
        (3, "holds here"),
        (14, "is not known here"),
        (15, "it depends on line 14"),
        (17, "it depends on line 14"),
        (18, "it depends on line 14"),
        (20, "whose section it is in depends on line 14"),
        (21, "`$NOWHERE` is not set here"),
        (22, "`.endif` without `.if`"),
    ] {
        found(&converted, line, says);
    }
    // Without that environment, the last branch is there.
    let without = haproxy(text, |_| None);
    assert!(without.text.contains("    max-connections 300\n"), "{}", without.text);
    found(&without, 3, "does not hold here");
}

/// As pfSense writes them.
#[test]
fn variables_that_are_set_to_one_thing_are_asked_as_that() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    acl shop var(txn.txnhost) -m str -i shop.example
    acl any var(txn.txnhost) -m reg -i ^([^\\.]*)\\.example(:([0-9]){1,5})?$
    http-request set-var(txn.txnhost) hdr(host)
    http-request set-var(txn.bad) bool(true) if { src 192.0.2.0/24 }
    http-request deny if { var(txn.bad) -m bool }
    http-request set-header X-Host %[var(txn.txnhost)]
    use_backend app if shop any
    default_backend app
frontend other
    mode http
    bind :81
    acl shop var(txn.txnhost) -m str -i shop.example
    http-request set-var(txn.txnhost) hdr(host)
    http-response set-header X-Host %[var(txn.txnhost)]
    use_backend app if shop
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for part in [
        "    acl \"shop\" {\n        host \"shop.example\"\n",
        "        set-header \"X-Host\" \"%{authority}\"\n",
        "    use-backend \"app\" if=\"shop and any\"\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert_eq!(converted.text.matches("%{authority}").count(), 2, "{}", converted.text);
    found(&converted, 6, "`var(txn.txnhost)` is asked as `req.hdr(host)`");
    found(&converted, 7, "left out");
    found(&converted, 8, "nobody is refused by it");
}

/// There it is nothing, and whoever asks in its place asks what a client has said.
#[test]
fn a_variable_is_no_header_where_nobody_sets_it() {
    for (outside, is_known) in [("http-request set-var(txn.who) hdr(x-who)", true), ("", false)] {
        let converted = converted(&format!(
            "frontend inside
    mode http
    bind 127.0.0.1:80
    http-request set-var(txn.who) hdr(x-who)
    default_backend app
frontend outside
    mode http
    bind 127.0.0.1:81
    {outside}
    default_backend app
backend app
    mode http
    http-request deny unless {{ var(txn.who) -m found }}
    server a 10.0.0.1:80
"
        ));
        assert_eq!(
            converted.text.contains("header \"x-who\""),
            is_known,
            "{}",
            converted.text
        );
        if !is_known {
            found(&converted, 13, "nobody is refused by it");
        }
    }
}

#[test]
fn a_variable_of_what_is_changed_later_is_told_of() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    http-request set-var(txn.via) hdr(x-via)
    http-request set-var(txn.user) hdr(x-user)
    http-request del-header X-Via
    http-request set-header X-Was %[var(txn.via)]
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    found(&converted, 4, "what rules before have made of it");
    let mut findings = converted.findings.iter();
    let plain = "not needed: `var(txn.user)` is asked as `req.hdr(x-user)`";
    assert!(
        findings.any(|finding| finding.line == 5 && finding.message == plain),
        "{:?}",
        converted.findings
    );
}

#[test]
fn a_variable_is_nothing_before_it_is_set() {
    for (early, is_known) in [
        ("http-request deny if shop", false),
        ("http-response del-header X-A", true),
    ] {
        let converted = converted(&format!(
            "frontend web
    mode http
    bind :80
    acl shop var(txn.host) -m str -i shop.example
    {early}
    http-request set-var(txn.host) hdr(host)
    use_backend app if shop
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
"
        ));
        assert_eq!(
            converted.text.contains("host \"shop.example\""),
            is_known,
            "{}",
            converted.text
        );
        if !is_known {
            found(&converted, 4, "depends on the rules before it");
            found(&converted, 5, "nobody is refused by it");
        }
    }
}

#[test]
fn a_variable_is_nothing_for_those_who_are_let_past_its_rule() {
    for (before, is_known) in [
        ("http-request allow if { src 192.0.2.0/24 }", false),
        ("tcp-request content accept if { src 192.0.2.0/24 }", true),
    ] {
        let converted = converted(&format!(
            "frontend web
    mode http
    bind :80
    {before}
    http-request set-var(txn.host) hdr(host)
    use_backend app if {{ var(txn.host) shop.example }}
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
"
        ));
        assert_eq!(
            converted.text.contains("host \"shop.example\""),
            is_known,
            "{}",
            converted.text
        );
        if !is_known {
            found(&converted, 6, "depends on the rules before it");
        }
    }
}

#[test]
fn conditions_that_ask_nothing_are_none() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    http-request deny unless TRUE
    http-request deny if FALSE or { path /x } TRUE
    http-request set-header X-A 1 unless { always_false }
    use_backend app if !TRUE
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for part in [
        "    deny {\n        path \"/x\"\n    }\n",
        "        set-header \"X-A\" \"1\"\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert_eq!(converted.text.matches("deny").count(), 1, "{}", converted.text);
    for line in [4, 7] {
        found(&converted, line, "not needed: its condition never holds");
    }
    assert_eq!(converted.findings.len(), 2, "{:?}", converted.findings);
}

#[test]
fn a_listen_section_says_of_servers_what_is_about_them() {
    let converted = converted(
        "listen web
    mode http
    bind :80
    option http-server-close
    option httpclose
    retry-on conn-failure
    server a 10.0.0.1:80
",
    );
    let (front, back) = converted.text.split_once("backend \"web\" {").unwrap();
    assert!(front.contains("    http-keep-alive max-requests=1\n"), "{front}");
    assert!(front.contains("    default-backend \"web\"\n"), "{front}");
    assert!(back.contains("    retry-on \"conn-failure\"\n"), "{back}");
    assert!(back.contains("    server-close\n"), "{back}");
}

#[test]
fn a_backend_tells_its_servers_who_the_client_is() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    use_backend plain if { path /plain }
    default_backend app
backend app
    mode http
    option forwardfor except 10.0.0.0/8 if-none
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    server a 10.0.0.1:80
backend plain
    mode http
    option forwardfor header X-Client
    server a 10.0.0.1:80
frontend other
    mode http
    bind :81
    option forwardfor
    default_backend said
backend said
    mode http
    option forwardfor
    server a 10.0.0.1:80
",
    );
    for part in [
        "        add-header \"X-Forwarded-For\" \"%{client-ip}\" unless=\"line-8-1 or line-8-2\"\n",
        "        set-header \"X-Forwarded-Port\" \"%{destination-port}\"\n",
        "        set-header \"X-Forwarded-Proto\" \"%{scheme}\"\n",
        "        add-header \"X-Client\" \"%{client-ip}\"\n",
        "    forwarded-for\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    found(&converted, 23, "not needed: the frontends that lead here say it");
    assert_eq!(converted.findings.len(), 1, "{:?}", converted.findings);
}

#[test]
fn a_backend_without_servers_answers_as_haproxy_does() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    use_backend nothing if { path_beg /nothing }
    use_backend moved if { path_beg /moved }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
backend nothing
    mode http
    http-request return status 200 if { path /nothing/ping }
backend moved
    mode http
    http-request redirect location https://example.com/ code 301
",
    );
    for part in [
        "backend \"nothing\" {\n",
        "    return status=200 if=\"line-12-1\"\n    deny status=503\n}\n",
        "backend \"moved\" {\n    mode \"http\"\n    redirect location=\"https://example.com/\" code=301\n}\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    found(&converted, 10, "it has no servers, and answers 503");
    assert_eq!(converted.findings.len(), 1, "{:?}", converted.findings);
}

#[test]
fn what_was_left_out_of_a_block_that_is_left_out_is_told_of_once() {
    let converted = converted(
        "global
    set-dumpable
frontend web
    mode http
    bind :80
    http-request set-header X-Rand %[rand(9)]
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    assert!(!converted.text.contains("process"), "{}", converted.text);
    assert!(converted.text.starts_with("// not converted: "), "{}", converted.text);
    assert!(converted.text.contains("\n//   set-dumpable\n"), "{}", converted.text);
    assert_eq!(converted.findings.len(), 2, "{:?}", converted.findings);
}

use super::*;

fn converted(text: &str) -> Converted {
    let converted = haproxy(text);
    assert!(converted.is_valid, "{}\n{:?}", converted.text, converted.findings);
    converted
}

fn found(converted: &Converted, line: usize, says: &str) {
    let mut findings = converted.findings.iter();
    assert!(
        findings.any(|finding| finding.line == line && finding.message.contains(says)),
        "{line}: {says}: {:?}",
        converted.findings
    );
}

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
fn what_is_decided_at_accept_and_whom_servers_are_asked_to_be() {
    let converted = converted(
        "frontend f
    mode tcp
    bind 127.0.0.1:5432
    acl office src 10.0.0.0/8
    tcp-request connection reject unless office
    tcp-request connection reject if { src_conn_cur gt 100 }
    tcp-request content reject if office
    default_backend b

backend b
    mode tcp
    server a 10.0.0.21:5432 check ssl verify none sni ssl_fc_sni check-sni a.example
    server b 10.0.0.22:5432 check ssl verify none sni str(b.example) check-sni a.example
",
    );
    for line in [
        "    reject unless=\"office\"",
        "    max-connections-per-source 100",
        "    deny if=\"office\"",
        "        tls sni=\"client\" check-sni=\"a.example\" verify=\"none\"",
        "        tls sni=\"b.example\" verify=\"none\"",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line}\n{}",
            converted.text
        );
    }
    found(&converted, 13, "check-sni");
}

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
fn checks_of_protocols_are_said_as_their_steps() {
    let steps = |option: &str| {
        let text = format!(
            "listen a
    mode tcp
    bind 127.0.0.1:25
    {option}
    server s 10.0.0.1:25 check
"
        );
        let converted = converted(&text);
        let lines = converted
            .text
            .lines()
            .skip_while(|line| !line.contains("check \"tcp\""));
        let lines = lines.skip(1).take_while(|line| line.trim() != "}").map(str::trim);
        (lines.collect::<Vec<_>>().join("; "), converted.findings)
    };
    for (option, said) in [
        ("option redis-check", r#"send "PING\r\n"; expect prefix="+PONG""#),
        (
            "option smtpchk EHLO mail.example",
            r#"expect regex="(?m)^220 "; send "EHLO mail.example\r\n"; expect regex="(?m)^250 "; send "QUIT\r\n"; expect prefix="221""#,
        ),
        (
            "option ldap-check",
            r#"send hex="300c 020101 6007 020103 0400 8000"; expect prefix-hex="300c 020101 6107 0a0100""#,
        ),
        ("option mysql-check", r#"expect regex="^(?s:.{3})\\x00\\x0a""#),
        (
            "option pgsql-check user ab",
            r#"send hex="00000011 00030000 757365720061620000"; expect prefix="R""#,
        ),
    ] {
        assert_eq!(steps(option), (said.to_owned(), Vec::new()), "{option}");
    }
    let (said, findings) = steps("option mysql-check user check");
    assert_eq!(
        said,
        r#"expect regex="^(?s:.{3})\\x00\\x0a"; send hex="270000 01 00820000 00000001 21 0000000000000000000000000000000000000000000000 636865636b00 00"; expect regex="^(?s:.{3})\\x02\\x00"; send hex="01000000 01""#
    );
    assert!(findings.is_empty(), "{findings:?}");
    let (said, findings) = steps("option mysql-check user haproxy pre-41");
    assert_eq!(said, r#"expect regex="^(?s:.{3})\\x00\\x0a""#);
    assert!(findings[0].message.contains("nobody logs in"), "{findings:?}");
    let (said, findings) = steps("option ssl-hello-chk");
    assert_eq!(said, r#"tls verify="none""#);
    assert!(findings[0].message.contains("a whole handshake"), "{findings:?}");

    // Where nobody is checked, or for all that follow, it is said that it is not there.
    let converted = converted(
        "defaults
    mode tcp
    option redis-check
listen a
    bind 127.0.0.1:25
    option smtpchk
    server s 10.0.0.1:25
",
    );
    found(&converted, 3, "each backend's `check` says it here");
    found(&converted, 6, "no server says `check`");
}

#[test]
fn what_defaults_say_of_servers_and_of_silence_is_carried_over() {
    let converted = converted(
        "defaults
    mode tcp
    default-server inter 2s rise 1 fall 4 maxconn 50 maxqueue 7
    option tcpka
    clitcpka-idle 1m
    srvtcpka-idle 90
    clitcpka-cnt 3
    timeout server 1h
listen a
    bind 127.0.0.1:5432
    backlog 100
    srvtcpka-intvl 5
    default-server fall 2
    server s 10.0.0.1:5432 check
    server t 10.0.0.2:5432 check maxqueue 9
",
    );
    for said in [
        "tcp-keep-alive idle=\"1m\" count=3",
        "check \"tcp\" interval=\"2s\" rise=1 fall=2",
        "    max-queue 7\n    server \"s\" \"10.0.0.1:5432\" max-connections=50\n    server \"t\" ",
        "    tcp-keep-alive interval=\"5s\"",
    ] {
        assert!(converted.text.contains(said), "{said} in\n{}", converted.text);
    }
    found(&converted, 6, "of two sides that differ");
    found(&converted, 11, "each `bind` says it");
    found(&converted, 15, "the queue is the backend's here");
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
fn tls_is_carried_over() {
    let converted = converted(
        "frontend web
    mode http
    bind *:443 ssl crt /etc/ssl/a.pem crt /etc/ssl/b.pem crt /etc/ssl/sites/ strict-sni ca-file ca.pem verify optional crl-file ca.crl no-tls-tickets ssl-min-ver TLSv1.2 no-sslv3
    bind *:8443 ssl crt a.pem ssl-min-ver TLSv1.0 ssl-max-ver TLSv1.2 ciphers ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA curves X25519:P-256
    bind *:9443 ssl crt a.pem ca-file ca.pem force-tlsv13 ciphersuites TLS_AES_128_GCM_SHA256 tls-ticket-keys /etc/keys
    acl known ssl_c_s_dn(CN) client.example
    acl new ssl_fc_protocol TLSv1.3
    acl shown ssl_c_used
    http-request deny if known new shown
    default_backend app
backend app
    mode http
    server a 10.0.0.1:443 ssl ca-file ca.pem crl-file ca.crl ssl-min-ver TLSv1.3
    server b 10.0.0.2:443 ssl verify none crl-file ca.crl
",
    );
    for part in [
        "tls cert=\"/etc/ssl/a.pem\" strict-sni {\n            cert \"/etc/ssl/b.pem\"\n            cert-dir \"/etc/ssl/sites/\"",
        "client-ca \"ca.pem\" verify=\"optional\"\n            crl \"ca.crl\"\n            tickets \"off\"",
        "tls cert=\"a.pem\" max-version=\"1.2\" {\n            ciphers \"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"\n            \
         curves \"x25519\" \"secp256r1\"",
        "tls cert=\"a.pem\" min-version=\"1.3\" {\n            ciphers \"TLS_AES_128_GCM_SHA256\"",
        "tickets keys=\"/etc/keys\"",
        "client-cert-cn \"client.example\"",
        "tls-version \"1.3\"",
        "client-cert\n",
        "tls ca=\"ca.pem\" min-version=\"1.3\" {\n            crl \"ca.crl\"",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    found(&converted, 4, "TLS 1.2 is the oldest");
    found(&converted, 4, "`AES128-SHA` of `ciphers`");
    found(&converted, 5, "with `verify` only");
    found(&converted, 5, "put that first");
    found(&converted, 14, "nobody is verified");
    assert_eq!(converted.findings.len(), 5, "{:?}", converted.findings);
    assert!(converted.is_valid);
}

#[test]
fn acls_and_rules_are_carried_over() {
    let converted = converted(
        "frontend web
    bind *:8080
    acl is_api path_beg /api/ /v1/
    acl is_api hdr_beg(x-client) legacy
    acl host hdr(host) -i www.example.net
    acl inside src 10.0.0.0/8
    http-request deny deny_status 404 if { path_reg ^/internal/ } !inside
    http-request set-header X-Pool web
    http-request del-header X-Debug
    use_backend api if is_api host or METH_POST
    default_backend app
    mode http
backend api
    mode http
    server a 10.0.0.1:80
backend app
    mode http
    http-response replace-header Location ^http:(.*) https:\\1
    server a 10.0.0.1:80
",
    );
    for part in [
        "acl \"is_api\" {\n        any {\n            path-prefix \"/api/\" \"/v1/\"\n            header \"x-client\" prefix=\"legacy\"",
        "deny status=404 unless=\"inside\" {\n        path-regex \"^/internal/\"\n    }",
        "use-backend \"api\" if=\"is_api and host or line-10-1\"",
        "delete-header \"X-Debug\"",
        "replace-header \"Location\" regex=\"^http:(.*)\" to=\"https:${1}\"",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert_eq!(converted.findings, []);
}

#[test]
fn an_http_check_is_gathered_from_options_rules_and_servers() {
    let converted = converted(
        "frontend web
    bind :8080
    mode http
    default_backend app
backend app
    mode http
    option httpchk
    http-check send meth GET uri /health ver HTTP/1.1 hdr Host app.example.net
    http-check expect status 200
    http-check expect string status:ready
    default-server inter 5s rise 2
    server a 10.0.0.1:80 check
    server b 10.0.0.2:80 check inter 10s
",
    );
    for line in [
        "    check \"http\" interval=\"5s\" rise=2 {",
        "        send \"GET\" \"/health\" host=\"app.example.net\"",
        "        expect status=\"200\"",
        "        expect body-contains=\"status:ready\"",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line} in\n{}",
            converted.text
        );
    }
    found(&converted, 13, "as the first one's");
}

#[test]
fn a_tcp_check_and_retries_are_carried_over() {
    let text = "frontend raw
    mode tcp
    bind :8080
    default_backend app
backend app
    mode tcp
    RETRIES
    option tcp-check
    tcp-check send-binary 0a0b
    tcp-check expect binary 2b
    tcp-check send PING\\r\\n
    tcp-check expect string +PONG
    server a 10.0.0.1:80 check addr 10.0.0.9 port 81
";
    for (retries, ours) in [
        ("retries 2", "    retries 2 redispatch=\"off\""),
        ("option redispatch", "    retries 3 redispatch=\"last\""),
        (
            "retries 5\n    option redispatch 1",
            "    retries 5 redispatch=\"each\"",
        ),
    ] {
        let converted = converted(&text.replace("RETRIES", retries));
        for line in [
            ours,
            "    check \"tcp\" port=81 address=\"10.0.0.9\" {",
            "        send hex=\"0a0b\"",
            "        expect contains-hex=\"2b\"",
            "        send \"PING\\r\\n\"",
            "        expect contains=\"+PONG\"",
        ] {
            assert!(
                converted.text.lines().any(|have| have == line),
                "{line} in\n{}",
                converted.text
            );
        }
        assert_eq!(converted.findings, []);
    }
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
fn a_rule_becomes_no_weaker() {
    let text = |criterion: &str| {
        format!(
            "frontend web\n mode http\n bind :80\n http-request deny if {{ {criterion} }}\n default_backend app\n\
             backend app\n mode http\n server a 10.0.0.1:80\n"
        )
    };
    for (criterion, ours) in [
        (
            "hdr_sub(user-agent) -i curl",
            "header \"user-agent\" regex=\"(?i)curl\"",
        ),
        ("hdr_beg(x-a) -i b", "header \"x-a\" regex=\"(?i)^b\""),
        ("hdr(x-a) -i b.c", "header \"x-a\" regex=#\"(?i)^b\\.c$\"#"),
        ("hdr_sub(host) admin", "header \"host\" regex=\"(?i)admin\""),
        ("path_reg -i ^/admin", "path-regex \"(?i)^/admin\""),
        ("path_sub -i admin", "path-regex \"(?i)admin\""),
        ("cook(a) -i b", "cookie \"a\" regex=\"(?i)^b$\""),
    ] {
        let converted = converted(&text(criterion));
        let plain = converted
            .text
            .replace("\\\\", "\\")
            .replace("#\"", "\"")
            .replace("\"#", "\"");
        let ours = ours.replace("#\"", "\"").replace("\"#", "\"");
        assert!(plain.contains(&ours), "{ours} in\n{}", converted.text);
        assert_eq!(converted.findings, []);
    }
    for criterion in [
        "url_beg /a?b=",
        "url_sub -i admin",
        "url_reg x",
        "method -i get",
        "path,lower -m beg /a",
        "hdr(x,1) a",
    ] {
        let converted = converted(&text(criterion));
        found(&converted, 4, "left out");
        assert!(
            !converted.text.lines().any(|line| line.trim().starts_with("deny")),
            "{}",
            converted.text
        );
    }
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
    let converted = haproxy("global\n    maxconn 10\n");
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
        let _ = haproxy(text);
    }
    // Every beginning of a text that is right.
    for end in (0..TCP.len()).step_by(7) {
        let _ = haproxy(&TCP[..end]);
    }
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
    found(&converted, 19, "left out");
}

#[test]
fn what_checks_ask_and_expect_is_carried_over() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    default_backend web
backend web
    mode http
    option httpchk
    http-check send meth POST uri /health hdr X-Probe 1 body ping
    http-check expect ! status 500-599
    http-check expect hdr name X-Ready -m beg value yes
    http-check expect ! rstring err.r
    server a 10.0.0.1:80 check
frontend tls
    mode tcp
    bind :443
    default_backend tls
backend tls
    mode tcp
    server a 10.0.0.1:443 check check-ssl check-sni app.internal check-alpn h2,http/1.1 verify none
",
    );
    for part in [
        "send \"POST\" \"/health\" version=\"1.0\" {\n            header \"X-Probe\" \"1\"\n            body \"ping\"",
        "expect \"not\" status=\"500-599\"",
        "expect header=\"X-Ready\" prefix=\"yes\"",
        "expect \"not\" body-regex=\"err.r\"",
        "check \"tcp\" {\n        tls sni=\"app.internal\" verify=\"none\"\n        alpn \"h2\" \"http/1.1\"",
    ] {
        let plain = part.replace("\"not\"", "not");
        assert!(
            converted.text.contains(part) || converted.text.contains(&plain),
            "{part} in\n{}",
            converted.text
        );
    }
    assert!(converted.findings.is_empty(), "{:?}", converted.findings);
}

#[test]
fn what_servers_are_told_of_the_client_is_carried_over() {
    let converted = converted(
        "frontend web
    mode http
    bind *:8080
    option forwardfor except 127.0.0.0/8 header X-Client if-none
    option forwarded proto for by
    http-request set-header X-Forwarded-Proto https if { ssl_fc }
    http-request set-header X-Forwarded-Proto http if !{ ssl_fc }
    http-request set-header X-Forwarded-Port %[dst_port]
    unique-id-format %[uuid(7)]
    unique-id-header X-Request-ID
    compression algo identity gzip
    compression type text/html application/json text/
    compression offload
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for part in [
        "forwarded-for except=\"127.0.0.0/8\" header=\"X-Client\" if-none\n",
        "forwarded \"proto\" \"for\" by=\"address\"\n",
        "forwarded-headers \"x-forwarded-proto\" \"x-forwarded-port\"\n",
        "request-id header=\"X-Request-ID\"\n",
        "compress \"gzip\" offload {\n        types \"text/html\" \"application/json\" \"text/*\"\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert_eq!(converted.findings.len(), 1, "{:?}", converted.findings);
    found(&converted, 9, "makes UUIDs");
}

#[test]
fn http_2_is_carried_over() {
    let converted = converted(
        "frontend web
    mode http
    bind :8080 proto h2
    default_backend grpc
backend grpc
    mode http
    server a 10.0.0.1:50051 proto h2
    server b 10.0.0.2:443 ssl verify none alpn h2
    server c 10.0.0.3:443 ssl verify none alpn h2,http/1.1
    server d 10.0.0.4:80 proto fcgi
",
    );
    for part in [
        "server \"a\" \"10.0.0.1:50051\" h2",
        "server \"b\" \"10.0.0.2:443\" h2 {",
        "server \"c\" \"10.0.0.3:443\" {",
        "server \"d\" \"10.0.0.4:80\"\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert!(!converted.text.contains("alpn"), "{}", converted.text);
    found(&converted, 9, "alpn h2,http/1.1");
    found(&converted, 10, "proto fcgi");
    assert_eq!(converted.findings.iter().filter(|finding| finding.line == 3).count(), 0);
}

#[test]
fn persistence_is_carried_over() {
    let converted = converted(
        "defaults
    mode http
frontend web
    bind :80
    use_backend uri if { path_beg /u }
    use_backend param if { path_beg /p }
    use_backend post if { path_beg /o }
    default_backend app
backend app
    balance hdr(X-Session-Id)
    hash-type consistent
    cookie SRVID insert indirect nocache httponly secure maxidle 1800 maxlife 8h domain .example.net attr SameSite=Lax dynamic
    server a 10.0.0.1:80 cookie app01
    server b 10.0.0.2:80 cookie app02
backend uri
    balance uri depth 2 whole
    server a 10.0.0.1:80
backend param
    balance url_param user
    server a 10.0.0.1:80
backend post
    balance url_param user check_post
    server a 10.0.0.1:80
",
    );
    for part in [
        "balance \"header\" name=\"X-Session-Id\" consistent",
        "cookie \"SRVID\" insert indirect nocache httponly secure max-idle=\"1800s\" max-life=\"8h\" \
         domain=\".example.net\" samesite=\"lax\"",
        "server \"a\" \"10.0.0.1:80\" cookie=\"app01\"",
        "balance \"uri\" depth=2 whole",
        "balance \"query\" name=\"user\"",
    ] {
        assert!(
            converted.text.contains(part),
            "{part} in\n{}\n{:?}",
            converted.text,
            converted.findings
        );
    }
    found(&converted, 12, "`dynamic`");
    found(&converted, 22, "left out");
}

#[test]
fn what_is_logged_is_carried_over() {
    let converted = converted(
        "frontend web
    mode http
    bind *:8080
    option dontlognull
    option dontlog-normal
    capture request header Host len 64
    capture response header Location len 32
    capture cookie SID= len 8
    http-request capture path len 128
    log-format \"%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq %hr %hs %{+Q}r %[req.hdr(User-Agent)] 100%%\"
    http-request capture src len 9
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for part in [
        "    access-log skip-null only-errors\n",
        "    capture header=\"Host\" max=64\n",
        "    capture response-header=\"Location\" max=32\n",
        "    capture cookie=\"SID\" max=8\n",
        "    capture path max=128\n",
        "%{client-ip}:%{client-port} [%{date}] %{frontend} %{backend}/%{server} %{request-ms}/",
        "%{retries} 0/%{queue} %{captures} %{response-captures} \\\"%{request-line}\\\" %{header:user-agent} 100%",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert_eq!(converted.findings.len(), 1, "{:?}", converted.findings);
    found(&converted, 11, "no counterpart");
}

#[test]
fn what_is_done_about_bad_answers_is_carried_over() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    default_backend app
backend app
    mode http
    retries 2
    option redispatch
    retry-on conn-failure empty-response 503 0rtt-rejected
    http-reuse safe
    server a 10.0.0.1:80 check observe layer7 error-limit 20 on-error mark-down
    server b 10.0.0.2:80 check observe layer7 error-limit 20 on-error mark-down
",
    );
    for part in [
        "retries 2 redispatch=\"last\"",
        "retry-on \"conn-failure\" \"empty-response\" 503\n",
        "pool reuse=\"safe\"",
        "observe \"response\" error-limit=20 on-error=\"mark-down\"",
    ] {
        assert!(
            converted.text.contains(part),
            "{part} in\n{}\n{:?}",
            converted.text,
            converted.findings
        );
    }
}

#[test]
fn conditions_stand_where_they_are_asked() {
    let converted = converted(
        "frontend web
    mode http
    bind 127.0.0.1:80
    bind 127.0.0.1:443 ssl crt a.pem
    acl office src 10.0.0.0/8
    http-request redirect scheme https unless { ssl_fc }
    http-request redirect scheme https code 301 if !{ ssl_fc } { path_beg /login }
    http-request deny if !office !{ path /ping } { method POST }
    http-request deny unless { hdr(x-key) a b }
    http-request deny if { path /a } or { path /b }
    http-request set-header X-Out 1 if !office
    http-request return status 200 if { path /ping }
    use_backend other if { hdr_beg(x-a) one two } office
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
backend other
    mode http
    server a 10.0.0.1:80
",
    );
    for part in [
        "    redirect scheme=\"https\" unless=\"tls\"\n",
        "    redirect scheme=\"https\" code=301 unless=\"tls\" {\n        path-prefix \"/login\"\n    }",
        "    deny unless=\"office\" {\n        not {\n            path \"/ping\"\n        }\n        method \"POST\"\n    }",
        "    deny {\n        not {\n            header \"x-key\" \"a\" \"b\"\n        }\n    }",
        "    deny if=\"line-10-1 or line-10-2\"",
        "        set-header \"X-Out\" \"1\" unless=\"office\"",
        "    return status=200 if=\"line-12-3\"",
        "    use-backend \"other\" if=\"office\" {\n        any {\n            header \"x-a\" prefix=\"one\"",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert_eq!(converted.findings, []);
}

#[test]
fn a_rule_loses_none_of_its_predicates() {
    // A method in lower case is none that there is: without it, the rule would deny everything below the path.
    let converted = converted(
        "frontend web
    mode http
    bind 127.0.0.1:80
    http-request deny if { path_beg /a } { src 10.0.0.0/99 }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    assert!(!converted.text.contains("\n    deny"), "{}", converted.text);
    found(&converted, 4, "left out");
}

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
        "rate-limit \"web-errors\" {\n    key \"client-ip\"\n    allow \"20/10s\"\n    count-status \"400-499\"\n}",
        "    allow \"5/1m\"\n    count-status \"500,502-504,506-599\"\n}",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert!(!converted.text.contains("not converted"), "{}", converted.text);
}

#[test]
fn what_tables_count_is_reported_where_no_limit_says_it() {
    let rules = [
        (
            "tcp-request connection reject if { src_conn_cur gt 10 } !office",
            "hold for everybody",
        ),
        (
            "tcp-request connection reject unless { src_conn_cur lt 10 }",
            "hold for everybody",
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
        ("http-request track-sc0 src if office", "all that comes"),
        ("use_backend slow if { src_conn_cur gt 10 }", "hold for everybody"),
        ("http-request deny if abuse office", "hold for everybody"),
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

#[test]
fn rules_and_edits_of_http_are_carried_over() {
    let converted = converted(
        "defaults
    mode http
    errorfile 503 /etc/haproxy/errors/503.http
frontend web
    bind 127.0.0.1:80
    acl api path_beg /api/
    http-request redirect scheme https code 301 drop-query if !api { hdr(x-old) -m found }
    redirect location https://%[hdr(host)]/new%[path] if api
    http-request redirect code 301 location %[path,regsub(^/shop/,/store/)] if { path_beg /shop/ }
    http-request return status 200 content-type text/plain lf-string \"for %[src]\" hdr X-A b if { path /ping }
    http-request deny deny_status 429 if { path_sub .git }
    http-request set-path /v1%[path] if api
    http-request set-query a=b if api
    http-request replace-path ^/old/(.*) /new/\\1
    http-request set-header X-Client %[src]:%[src_port] if api
    http-request set-header X-Odd %[rand]
    http-response set-status 404 if api
    http-response set-header X-Broken yes if { status 404 500:599 } api
    http-response del-header X-Debug unless { status 200 }
    http-after-response set-header X-Frame-Options DENY if api
    http-after-response set-status 404
    use_backend app if { src_port 1:1023 }
    default_backend app
backend app
    server a 10.0.0.1:80
",
    );
    for line in [
        "    error-page 503 \"/etc/haproxy/errors/503.http\"",
        "    redirect scheme=\"https\" code=301 drop-query unless=\"api\" {",
        "        header \"x-old\"",
        "    redirect location=\"https://%{authority}/new%{path}\" if=\"api\"",
        "    redirect regex=\"^/shop/(.*)$\" location=\"/store/${1}\" code=301 {",
        "        body \"for %{client-ip}\" content-type=\"text/plain\"",
        "        header \"X-A\" \"b\"",
        "    deny status=429 {",
        "        path-contains \".git\"",
        "        set-path \"/v1%{path}\" if=\"api\"",
        "        set-query \"a=b\" if=\"api\"",
        "        rewrite-path regex=\"^/old/(.*)\" to=\"/new/${1}\"",
        "        set-header \"X-Client\" \"%{client-ip}:%{client-port}\" if=\"api\"",
        "        set-status 404 if=\"api\"",
        "        set-header \"X-Frame-Options\" \"DENY\" always if=\"api\"",
        "        set-header \"X-Broken\" \"yes\" if-status=\"404,500-599\" if=\"api\"",
        "        source-port \"1-1023\"",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line}\n{}",
            converted.text
        );
    }
    found(&converted, 16, "no variable for `%[rand]`");
    found(&converted, 19, "write `if-status=`");
    found(&converted, 21, "no counterpart of `http-after-response set-status`");
}

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
fn how_many_servers_are_up_is_asked_by_acls_with_names() {
    let converted = converted(
        "\
defaults
    timeout client 30s
    timeout server 30s
    timeout connect 5s
frontend web
    bind *:8080
    mode http
    acl down nbsrv(app) lt 1
    acl thin nbsrv(app) eq 1
    acl mixed nbsrv(app) gt 1
    acl mixed path /x
    http-request deny if thin { path /heavy }
    use_backend spare if down
    use_backend spare if { nbsrv(app) le 0 } { path /y }
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
        "acl \"down\" {\n        servers-up \"app\" max=0\n",
        "acl \"thin\" {\n        servers-up \"app\" min=1 max=1\n",
        "use-backend \"spare\" if=\"down\"",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert_eq!(converted.text.matches("servers-up").count(), 3, "{}", converted.text);
    found(&converted, 10, "an acl of its own");
    assert!(converted.is_valid, "{}", converted.text);
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

#[test]
fn lists_of_certificates_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list");
    let lines = "# sites\na.pem\n\nb.pem *.b.example !c.b.example\nd.pem [verify required ca-file ca.pem] d.example\n";
    std::fs::write(&list, lines).unwrap();
    let text = |list: &str| {
        format!(
            "frontend web\n    mode http\n    bind *:443 ssl crt-list {list}\n    http-request set-header X-Client %[ssl_c_s_dn(cn)]\n    \
             default_backend app\nbackend app\n    mode http\n    server a 10.0.0.1:80\n"
        )
    };
    let converted = converted(&text(list.to_str().unwrap()));
    let expected = "tls cert=\"a.pem\" {\n            cert \"b.pem\"\n        }";
    assert!(converted.text.contains(expected), "{}", converted.text);
    assert!(
        converted.text.contains("set-header \"X-Client\" \"%{client-cert-cn}\""),
        "{}",
        converted.text
    );
    found(&converted, 3, "line 4 of");
    found(&converted, 3, "a bind of their own");
    let without = haproxy(&text("/nonexistent/list"));
    found(&without, 3, "cannot be read");
}

#[test]
fn maps_are_carried_over_with_the_backends_that_they_name() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    http-request redirect location %[path,map_beg(/etc/haproxy/moved.map)] if { path_beg /old/ }
    use_backend %[req.hdr(host),lower,map_dom(/etc/haproxy/hosts.map,app)]
    use_backend %[src,map_ip(/etc/haproxy/nets.map)] if { path_beg /net/ }
    use_backend %[path,url_dec,map(/etc/haproxy/none.map)]
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    assert!(converted.is_valid, "{}", converted.text);
    for part in [
        "map \"moved-prefix\" file=\"/etc/haproxy/moved.map\" match=\"prefix\"\n",
        "map \"hosts-domain-app\" file=\"/etc/haproxy/hosts.map\" match=\"domain\" default=\"app\"\n",
        "map \"nets-subnet\" file=\"/etc/haproxy/nets.map\" match=\"subnet\"\n",
        "    redirect location=\"%{path|map:moved-prefix}\" {\n        path-prefix \"/old/\"\n",
        "    use-backend \"%{host|map:hosts-domain-app}\"\n",
        "    use-backend \"%{client-ip|map:nets-subnet}\" {\n        path-prefix \"/net/\"\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    found(&converted, 7, "no counterpart of `url_dec` before a map");
}

#[test]
fn values_in_files_stay_there() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    acl ours hdr(host) -i -f /etc/haproxy/hosts.lst www.example.net
    acl old path_beg -f /etc/haproxy/old.lst -f older.lst
    acl bots hdr(user-agent) -m reg -f bots.lst
    acl shops hdr_reg(host) -f shops.lst
    acl loud path -i -f loud.lst
    http-request deny if { src -f /etc/haproxy/blocked.lst }
    http-request deny if bots
    http-request deny if old !ours
    http-request deny if shops
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    assert!(converted.is_valid, "{}", converted.text);
    for part in [
        "    acl \"ours\" {\n        any {\n            host \"www.example.net\"\n            host file=\"/etc/haproxy/hosts.lst\"\n",
        "            path-prefix file=\"/etc/haproxy/old.lst\"\n            path-prefix file=\"older.lst\"\n",
        "        header \"user-agent\" match=\"regex\" file=\"bots.lst\"\n",
        "        host-regex file=\"shops.lst\"\n",
        "    deny {\n        source file=\"/etc/haproxy/blocked.lst\"\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    found(&converted, 8, "values of `path` from a file have to be written out");
}

#[test]
fn rules_of_backends_are_carried_over_into_them() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    default_backend app
backend app
    mode http
    acl write method POST
    http-request deny deny_status 405 if write
    http-request redirect prefix /v2 if { path_beg /v1/ }
    http-request set-header X-Write 1 if write
    http-response del-header Server if !write
    server a 10.0.0.1:80
",
    );
    let (_, backend) = converted.text.split_once("backend \"app\"").unwrap();
    for part in [
        "    acl \"write\" {",
        "    deny status=405 if=\"write\"\n",
        "    redirect prefix=\"/v2\" {\n        path-prefix \"/v1/\"\n",
        "        set-header \"X-Write\" \"1\" if=\"write\"\n",
        "        delete-header \"Server\" unless=\"write\"\n",
    ] {
        assert!(backend.contains(part), "{part} in\n{backend}");
    }
}

#[test]
fn the_log_keeps_its_way_and_its_form() {
    for (line, said, notes) in [
        (
            "/dev/log local0",
            Some(r#"log "/dev/log" syslog="rfc3164" facility="local0""#),
            0,
        ),
        (
            "/dev/log len 4096 format rfc5424 local1 notice err",
            Some(r#"log "/dev/log" syslog="rfc5424" facility="local1""#),
            3,
        ),
        (
            "/var/lib/haproxy/dev/log format rfc3164 daemon",
            Some(r#"log "unix:///var/lib/haproxy/dev/log" syslog="rfc3164" facility="daemon""#),
            0,
        ),
        (
            "10.0.0.9 local0",
            Some(r#"log "udp://10.0.0.9:514" syslog="rfc3164" facility="local0""#),
            0,
        ),
        (
            "::1:5514 format iso local0",
            Some(r#"log "udp://[::1]:5514" facility="local0""#),
            1,
        ),
        (
            "tcp@10.0.0.9:601 format rfc5424 local0",
            Some(r#"log "tcp://10.0.0.9:601" syslog="rfc5424" facility="local0""#),
            0,
        ),
        ("stdout format raw local0", Some(r#"log "stdout""#), 0),
        // And nothing is left of `global`.
        ("ring@errors local0", None, 2),
    ] {
        let text = format!("global\n    log {line}\nlisten a\n    mode tcp\n    bind :25\n    server s 10.0.0.1:25\n");
        let converted = converted(&text);
        let mut lines = converted.text.lines().map(str::trim);
        let node = lines.find(|line| line.starts_with("log "));
        assert_eq!(node, said, "{line} in\n{}", converted.text);
        assert!(converted.is_valid, "{converted:#?}");
        assert_eq!(converted.findings.len(), notes, "{line}: {:?}", converted.findings);
    }
}

#[test]
fn what_global_says_of_tls_is_said_where_it_holds() {
    let converted = haproxy(
        "global
    log /dev/log local0
    log /dev/log local1 notice
    crt-base /etc/ssl/private
    ca-base /etc/ssl/certs/
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
    ssl-default-server-ciphersuites TLS_AES_256_GCM_SHA384
defaults
    mode http
frontend web
    bind *:443 ssl crt site.pem ca-file clients.pem verify required
    bind *:8443 ssl crt /own/site.pem ssl-min-ver TLSv1.2
    log 10.0.0.9:514 local4
    default_backend app
backend app
    retry-on 0rtt-rejected
    server a 10.0.0.1:8443 ssl ca-file up.pem
    server b 10.0.0.2:8443 ssl ca-file @system-ca
",
    );
    assert!(converted.is_valid, "{converted:#?}");
    for said in [
        r#"tls cert="/etc/ssl/private/site.pem" min-version="1.3""#,
        r#"client-ca "/etc/ssl/certs/clients.pem""#,
        r#"tls cert="/own/site.pem" {"#,
        r#"ciphers "TLS_AES_128_GCM_SHA256""#,
        r#"tickets "off""#,
        r#"ca="/etc/ssl/certs/up.pem""#,
        r#"ciphers "TLS_AES_256_GCM_SHA384""#,
        r#"retry-on "none""#,
        "// not converted: a further log has a name",
        "// not converted: declare it with a name",
    ] {
        assert!(converted.text.contains(said), "{said} in\n{}", converted.text);
    }
    assert!(!converted.text.contains("min-version=\"1.2\""), "{}", converted.text);
}

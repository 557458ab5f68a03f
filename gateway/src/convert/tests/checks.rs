//! Health checks.

use super::*;

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
        ("option redispatch", "    retries 3 redispatch=\"each\""),
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
    http-check expect hdr name X-Ready value -m beg yes
    http-check expect fhdr name X-Ready value -m beg yes
    http-check expect fhdr name X-Version value 1
    http-check expect ! hdr name Content-Length value 0
    http-check expect ! rstatus ^(1|404)
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
        r#"expect header="X-Ready" regex="(?:^|,)\\s*yes""#,
        r#"expect header="X-Ready" prefix="yes""#,
        r#"expect header="X-Version" value="1""#,
        r#"expect "not" header="Content-Length" regex="(?:^|,)\\s*0\\s*(?:,|$)""#,
        r#"expect "not" status="100-199,404""#,
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
fn where_a_check_connects_to_and_how_is_carried_over() {
    // As Kubernetes has it for its API servers, before and since there was `http-check connect`.
    let of_backend = |rules: &str, server: &str| {
        converted(&format!(
            "listen api
    mode tcp
    bind 127.0.0.1:6443
    {rules}
    server s 10.0.0.1:6443 check inter 3s {server}
"
        ))
    };
    for (rules, server, check) in [
        (
            "option httpchk\n    http-check connect ssl sni api.example\n    http-check send meth GET uri /healthz\n    http-check expect status 200",
            "verify none",
            "    check \"http\" interval=\"3s\" {
        send \"GET\" \"/healthz\" version=\"1.0\"
        expect status=\"200\"
        tls sni=\"api.example\" verify=\"none\"
    }",
        ),
        (
            "option httpchk GET /healthz\n    option ssl-hello-chk",
            "",
            "    check \"tcp\" interval=\"3s\" {\n        tls verify=\"none\"\n    }",
        ),
        (
            "option tcp-check\n    tcp-check connect port 8008",
            "port 99",
            "    check \"tcp\" interval=\"3s\" port=8008\n",
        ),
        (
            "option tcp-check\n    tcp-check connect port 8443 ssl comment hello\n    tcp-check send PING comment \"a ping\"\n    tcp-check expect min-recv 4 comment pong string +PONG",
            "ssl verify none",
            "    check \"tcp\" interval=\"3s\" port=8443 as-traffic {
        send \"PING\"
        expect contains=\"+PONG\"
    }",
        ),
    ] {
        let converted = of_backend(rules, server);
        assert!(converted.text.contains(check), "{check} in\n{}", converted.text);
        let others: Vec<_> = converted
            .findings
            .iter()
            .filter(|finding| !finding.message.contains("a whole handshake"))
            .collect();
        assert!(others.is_empty(), "{others:?}");
    }

    // What is of a second connection would be wrong on the first; what cannot be said leaves the check there.
    let converted = of_backend(
        "option tcp-check
    tcp-check connect port 143
    tcp-check expect string \"* OK\"
    tcp-check connect port 993 ssl
    tcp-check expect string \"* BYE\"",
        "",
    );
    assert!(
        converted
            .text
            .contains("check \"tcp\" interval=\"3s\" port=143 {\n        expect contains=\"* OK\""),
        "{}",
        converted.text
    );
    found(&converted, 7, "one connection");
    found(&converted, 8, "one connection");
    // Nor is the check's what a connection behind the first steps is like.
    let converted = of_backend(
        "option tcp-check
    tcp-check send PING
    tcp-check connect port 143
    tcp-check expect string \"* OK\"",
        "",
    );
    assert!(
        converted
            .text
            .contains("check \"tcp\" interval=\"3s\" {\n        send \"PING\"\n"),
        "{}",
        converted.text
    );
    found(&converted, 6, "one connection");
    found(&converted, 7, "one connection");
    for (step, says) in [
        ("! string down", "no such step"),
        ("rstring (?!down)", "regular expression"),
    ] {
        let converted = of_backend(&format!("option tcp-check\n    tcp-check expect {step}"), "");
        assert!(
            converted
                .text
                .contains("    check \"tcp\" interval=\"3s\"\n    // not converted: "),
            "{}",
            converted.text
        );
        found(&converted, 5, says);
    }
    let converted = of_backend("option httpchk\n    http-check send-state", "");
    found(&converted, 5, "no such step");
}

#[test]
fn servers_that_are_checked_in_another_way_are_told_of() {
    let converted = converted(
        "listen pg
    mode tcp
    bind 127.0.0.1:5432
    option httpchk OPTIONS /primary
    server a 10.0.0.1:5432 check port 8008
    server b 10.0.0.2:5432 check port 8008 check-ssl verify none
",
    );
    found(&converted, 6, "as the first one's");
}

#[test]
fn what_defaults_say_of_checks_is_said_of_each_backend() {
    let converted = converted(
        "defaults
    mode http
    timeout check 2s
    option httpchk GET /up
    http-check expect status 200
frontend web
    bind :80
    use_backend own if { path_beg /own }
    use_backend plain if { path_beg /plain }
    use_backend none if { path_beg /none }
    default_backend app
backend app
    server a 10.0.0.1:80 check
backend own
    http-check expect string ready
    http-check disable-on-404
    timeout check 1s
    server a 10.0.0.1:80 check
backend plain
    option tcp-check
    server a 10.0.0.1:80 check
backend none
    server a 10.0.0.1:80
",
    );
    let text = &converted.text;
    for part in [
        "backend \"app\" {\n    check \"http\" timeout=\"2s\" {\n        send \"GET\" \"/up\" version=\"1.0\"\n        expect status=\"200\"\n    }",
        "backend \"own\" {\n    check \"http\" timeout=\"1s\" {\n        send \"GET\" \"/up\" version=\"1.0\"\n",
        "        drain status=404\n",
        "        expect body-contains=\"ready\"\n",
        "backend \"plain\" {\n    check \"tcp\" timeout=\"2s\"\n",
        "backend \"none\" {\n    server ",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    for line in 3..=5 {
        found(&converted, line, "each backend's `check` says it here");
    }
    assert_eq!(converted.findings.len(), 3, "{:?}", converted.findings);
    assert!(converted.is_valid, "{text}");
}

#[test]
fn what_a_check_over_http_does_behind_its_first_request_is_of_a_further_connection() {
    let converted = converted(
        "listen api
    mode http
    bind 127.0.0.1:8080
    option httpchk
    http-check disable-on-404
    http-check send meth GET uri /first
    http-check expect status 200
    http-check connect port 9000
    http-check send meth GET uri /second
    http-check expect status 204
    http-check send-state
    server s 10.0.0.1:8080 check
",
    );
    let check = "    check \"http\" {\n        send \"GET\" \"/first\" version=\"1.0\"\n";
    assert!(converted.text.contains(check), "{}", converted.text);
    assert!(
        converted.text.contains("        expect status=\"200\"\n"),
        "{}",
        converted.text
    );
    assert!(!converted.text.contains("expect status=\"204\""), "{}", converted.text);
    for line in [8, 9, 10] {
        found(&converted, line, "one connection");
    }
    // That is said of all of it.
    assert!(
        converted.text.contains("        drain status=404\n"),
        "{}",
        converted.text
    );
    found(&converted, 11, "there is no such step");
}

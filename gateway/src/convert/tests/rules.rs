//! Rules and edits of connections, requests and responses.

use super::*;

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
    redirect location https://%[hdr(host)]/new%[path] if { src_port 1:9 }
    http-request redirect code 301 location %[path,regsub(^/shop/,/store/)] if { path_beg /shop/ }
    http-request return status 200 content-type text/plain lf-string \"for %[src]\" hdr X-A b if { path /ping }
    http-request deny deny_status 429 if { path_sub .git }
    http-request set-query a=b if api
    http-request set-header X-Client %[src]:%[src_port] if api
    http-request set-path /v1%[path] if api
    http-request replace-path ^/old/(.*) /new/\\1
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
        "    redirect location=\"https://%{authority}/new%{path}\" {",
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
        "        delete-header \"X-Debug\" if-status=\"100-199,201-599\"",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line}\n{}",
            converted.text
        );
    }
    found(&converted, 16, "no variable for `%[rand]`");
    found(
        &converted,
        18,
        "HAProxy knows no `path_beg` any more when the response comes",
    );
    found(&converted, 21, "no counterpart of `http-after-response set-status`");
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
fn what_an_expression_matches_is_replaced_with_all_around_it() {
    let converted = converted(
        r"frontend web
    mode http
    bind :80
    http-request replace-path /foo/(.*) /\1
    http-request replace-header X-A b(.) <\1>
    http-request replace-header X-B a|b c
    http-request replace-header X-C ^a.*$ \0
    http-request replace-header X-D b <\0>
    http-request replace-value X-E b c
    http-response replace-header Location http://(.*) https://\1
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for line in [
        r#"        rewrite-path regex="^.*?/foo/(.*)" to="/${1}""#,
        r#"        replace-header "X-A" regex="^.*?b(.).*$" to="<${1}>""#,
        r#"        replace-header "X-B" regex="^.*?(?:a|b).*$" to="c""#,
        r#"        replace-header "X-C" regex="^a.*$" to="${0}""#,
        r#"        replace-header "Location" regex="^.*?http://(.*)" to="https://${1}""#,
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line}\n{}",
            converted.text
        );
    }
    found(&converted, 8, "would be all of the value here");
    found(&converted, 9, "there is no counterpart of `http-request replace-value`");
    assert_eq!(converted.findings.len(), 2, "{:?}", converted.findings);
    assert!(converted.is_valid, "{}", converted.text);
}

#[test]
fn what_asks_for_something_that_was_edited_is_left_out() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    acl early hdr(x-admin) -m found
    acl admin hdr(X-Admin) -m found
    http-request deny if early { path_beg /a }
    http-request del-header X-Admin
    http-request set-header x-admin yes if { src 10.0.0.0/8 }
    http-request deny if { hdr_beg(x-admin) no }
    http-request replace-path ^/v1/(.*) /\\1
    http-request set-header X-Api 1 if { path_beg /api/ }
    redirect prefix /new if { path_beg /old/ }
    use_backend admin if { src_port 1:9 } admin
    use_backend admin if { hdr(x-other) a }
    default_backend app
backend app
    mode http
    http-request deny if { path_beg /api/ }
    server a 10.0.0.1:80
backend admin
    mode http
    server a 10.0.0.1:80
",
    );
    for (line, what) in [
        (9, "line 7 has changed the header `x-admin`"),
        (11, "line 10 has changed the path"),
        (12, "line 10 has changed the path"),
        (13, "line 7 has changed the header `x-admin`"),
        (18, "line 10 may have changed the path"),
    ] {
        found(&converted, line, what);
    }
    let text = &converted.text;
    let count = |what: &str| text.lines().filter(|line| line.trim().starts_with(what)).count();
    // The first asks before the edits, the other in another section.
    assert_eq!(count("deny"), 2, "{text}");
    assert_eq!((count("use-backend"), count("redirect")), (1, 0), "{text}");
    assert!(converted.is_valid, "{text}");
}

#[test]
fn a_rule_that_writes_a_uri_writes_its_query_too() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    http-request deny if { url_param(first) 1 }
    http-request replace-uri ^/old(.*) /new\\1
    http-request deny if { src 192.0.2.0/24 }
    http-request deny if { url_param(second) 1 }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    found(&converted, 7, "line 5 has changed the query");
    let denies = converted.text.lines().filter(|line| line.trim().starts_with("deny {"));
    assert_eq!(denies.count(), 2, "{}", converted.text);
}

#[test]
fn what_expressions_encode_is_encoded() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    http-request set-header X-From /login?from=%[url,url_enc]&to=%[path,map(/etc/to.map),url_enc] if { path /a }
    http-request redirect location /login?from=%[url,url_enc] if { path /b }
    http-request redirect prefix /login?from= drop-query if { path /c }
    http-request set-query from=%[url,url_enc] if { path /d }
    http-request set-query from=%[url] if { path /e }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for part in [
        "set-header \"X-From\" \"/login?from=%{uri|url-encode}&to=%{path|map:to|url-encode}\"",
        "map \"to\" file=\"/etc/to.map\"",
        "redirect location=\"/login?from=%{uri|url-encode}\"",
        "redirect location=\"/login?from=%{path}\"",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    found(&converted, 7, "`set-query-param`");
    found(&converted, 8, "`set-query-param`");
    assert!(converted.is_valid, "{}", converted.text);
}

#[test]
fn what_is_held_or_dropped_is_denied() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    http-request tarpit if { path_beg /wp-admin }
    http-request tarpit deny_status 429 if { path_beg /login }
    http-request silent-drop if { src 192.0.2.0/24 }
    stick-table type ip size 100k expire 1m store http_req_rate(10s)
    http-request track-sc0 src
    http-request tarpit if { sc_http_req_rate(0) gt 50 }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for part in [
        "    deny status=500 {\n        path-prefix \"/wp-admin\"\n",
        "    deny status=429 {\n        path-prefix \"/login\"\n",
        "    deny {\n        source \"192.0.2.0/24\"\n",
        "    limit \"web-requests\"\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    found(&converted, 4, "`tarpit` has become a `deny`");
    found(&converted, 6, "`silent-drop` has become a `deny`");
    assert!(converted.is_valid, "{}", converted.text);
}

#[test]
fn whom_an_accept_lets_through_no_later_rule_of_its_stage_refuses() {
    let of_frontend = |rules: &str| {
        converted(&format!(
            "listen l
    mode tcp
    bind 127.0.0.1:5432
    acl friend src 10.0.0.0/8
    {rules}
    server a 10.0.0.21:5432
"
        ))
    };
    for (rules, ours) in [
        (
            "tcp-request connection accept if friend\n    tcp-request connection reject",
            "    reject unless=\"friend\"",
        ),
        (
            "tcp-request connection accept if friend { dst_port 99 }\n    tcp-request connection reject if { src 192.0.2.0/24 }",
            "    reject if=\"line-6-2 and not (friend and line-5-1)\"",
        ),
        (
            "tcp-request connection accept if friend\n    tcp-request connection accept unless { dst_port 99 }\n    tcp-request connection reject unless { src 192.0.2.0/24 }",
            "    reject unless=\"line-7-2 or friend or not line-6-1\"",
        ),
        // Another stage asks them again.
        (
            "tcp-request connection accept if friend\n    tcp-request content reject if friend",
            "    deny if=\"friend\"",
        ),
    ] {
        let converted = of_frontend(rules);
        assert!(
            converted.text.lines().any(|have| have == ours),
            "{ours} in\n{}\n{:?}",
            converted.text,
            converted.findings
        );
    }
    // Nobody is refused whom HAProxy lets through.
    for (rules, says) in [
        (
            "tcp-request content accept if { req.ssl_hello_type 1 } or friend\n    tcp-request content reject",
            "whether it is TLS",
        ),
        (
            "tcp-request content accept if WAIT_END\n    tcp-request content reject if friend",
            "lets everybody through",
        ),
    ] {
        let converted = of_frontend(rules);
        found(&converted, 6, says);
        let refuses = |line: &str| line.trim_start().starts_with("deny") || line.trim_start().starts_with("reject");
        assert!(!converted.text.lines().any(refuses), "{}", converted.text);
    }
}

/// What refuses too much is noticed, and what refuses too little is not.
#[test]
fn a_rule_stays_behind_an_accept_that_cannot_be_said() {
    let converted = converted(
        "listen l
    mode tcp
    bind 127.0.0.1:5432
    acl friend src 10.0.0.0/8
    tcp-request connection accept if { src_get_gpc0 gt 1 }
    tcp-request connection reject unless friend
    server a 10.0.0.21:5432
",
    );
    assert!(
        converted.text.contains("    reject unless=\"friend\"\n"),
        "{}",
        converted.text
    );
    found(&converted, 5, "left out");
    found(&converted, 6, "whom line 5 lets through");
}

/// As where the condition itself asks it.
#[test]
fn a_rule_stays_behind_an_accept_whose_acl_cannot_be_said() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    acl lucky rand(2) 1
    http-request allow if lucky
    http-request allow if HTTP_URL_STAR
    http-request deny if { path /a }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    assert!(
        converted.text.contains("    deny if=\"line-7-1\"\n"),
        "{}",
        converted.text
    );
    found(&converted, 5, "its acl `lucky` is left out");
    found(&converted, 6, "there is no counterpart of `HTTP_URL_STAR`");
    found(&converted, 7, "whom line 5 lets through");
    found(&converted, 7, "whom line 6 lets through");
}

#[test]
fn whom_an_allow_lets_through_no_later_rule_of_requests_is_about() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    acl friend src 10.0.0.0/8
    acl up path /up
    http-request set-header X-Before 1
    http-request allow if friend
    http-request allow unless { method GET POST }
    http-request deny if { path_beg /private }
    http-request deny deny_status 404 unless up
    http-request redirect scheme https code 301 if !{ ssl_fc }
    http-request return status 200 if up
    http-request set-header X-Forwarded-Port %[dst_port]
    redirect prefix /new if { path_beg /old }
    use_backend app if up
    default_backend app
    bind :443 ssl crt a.pem
backend app
    mode http
    http-request deny if { path_beg /internal }
    server a 10.0.0.1:80
",
    );
    for line in [
        "    deny if=\"line-9-2 and not (friend or not line-8-1)\"",
        "    deny status=404 unless=\"up or friend or not line-8-1\"",
        "    redirect scheme=\"https\" code=301 unless=\"tls or friend or not line-8-1\"",
        "    return status=200 if=\"up and not (friend or not line-8-1)\"",
        "        set-header \"X-Before\" \"1\"",
        "        set-header \"X-Forwarded-Port\" \"%{destination-port}\" unless=\"friend or not line-8-1\"",
        // Those are no rules of requests, or another section's.
        "    redirect prefix=\"/new\" {",
        "    use-backend \"app\" if=\"up\"",
        "    deny {",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line}\n{}\n{:?}",
            converted.text,
            converted.findings
        );
    }
    assert_eq!(converted.findings, []);
}

#[test]
fn nothing_is_asked_behind_an_allow_for_all() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    http-request deny if { path /a }
    http-request allow if TRUE
    http-request deny if { path /b }
    default_backend app
backend app
    mode http
    http-request allow if { path /c }
    server a 10.0.0.1:80
",
    );
    assert_eq!(converted.text.matches("\n    deny").count(), 1, "{}", converted.text);
    found(&converted, 6, "lets everybody through");
    found(&converted, 10, "nobody is refused by a rule behind it");
}

#[test]
fn a_refusal_with_words_of_its_own_keeps_them() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    http-request deny deny_status 503 content-type text/plain string \"we are busy\" if { path /a }
    http-request deny content-type text/plain string no hdr X-Why because if { path /b }
    http-request deny deny_status 429 errorfile /etc/429.http if { path /c }
    http-request set-header X-All 1 if TRUE
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for part in [
        "    return status=503 if=\"line-4-1\" {\n        body \"we are busy\" content-type=\"text/plain\"\n",
        "    return status=403 if=\"line-5-2\" {\n        header \"X-Why\" \"because\"\n        body \"no\" content-type=\"text/plain\"\n",
        "    deny status=429 {\n        path \"/c\"\n",
        "        set-header \"X-All\" \"1\"\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    found(&converted, 6, "refused without words of its own");
}

#[test]
fn headers_in_rules_of_responses_are_the_responses() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    acl moved hdr(location) -m found
    http-response set-header X-Location %[hdr(location)]
    http-response set-header X-Asked %[req.hdr(x-a)]
    http-response set-header X-Moved yes if moved
    http-response set-header X-Set yes if { cook(a) b }
    http-response set-header X-Get yes if { req.hdr(x-b) -m found }
    http-response allow if { hdr(x-c) -m found }
    http-response del-header X-D
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for line in [
        "        set-header \"X-Location\" \"%{response-header:location}\"",
        "        set-header \"X-Asked\" \"%{header:x-a}\"",
        "        set-header \"X-Get\" \"yes\" if=\"line-9-1\"",
        "        delete-header \"X-D\"",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line}\n{}",
            converted.text
        );
    }
    for line in [7, 8, 10] {
        found(&converted, line, "it asks what the response has");
    }
    found(&converted, 11, "whom line 10 lets through");
}

#[test]
fn a_redirect_comes_behind_the_rules_of_requests_wherever_it_stands() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    redirect prefix /new if { path_beg /old }
    http-request deny if { path /a }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    let at = |what: &str| converted.text.find(what).unwrap();
    assert!(at("    deny {") < at("    redirect "), "{}", converted.text);
}

#[test]
fn rules_of_connections_come_before_those_of_requests() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    http-request return status 200 if { path /ping }
    tcp-request content reject if { src 192.0.2.0/24 }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    let at = |what: &str| converted.text.find(what).unwrap();
    assert!(at("    deny {") < at("    return "), "{}", converted.text);
    found(&converted, 5, "the client is answered, with 403");
}

#[test]
fn a_rule_that_keeps_nobody_out_any_more_is_told_of_as_such() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    http-request deny if { rand(2) 1 }
    http-request auth unless { http_auth(users) }
    http-request set-src hdr(x-forwarded-for)
    http-request deny if { src 192.0.2.0/24 }
    tcp-request content reject if { req.len gt 9 }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for line in [4, 5, 7, 8] {
        found(&converted, line, "left out, so that nobody is refused by it: ");
    }
    found(&converted, 5, "builtin=\"basic-auth\"");
    found(&converted, 6, "trusted-proxies");
    found(&converted, 7, "line 6 has changed the client's address");
}

#[test]
fn a_host_in_lower_case_is_no_other_host() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    http-request set-header Host %[req.hdr(Host),lower]
    use_backend app if { hdr(host) a.example }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    assert!(
        converted.text.contains("        host \"a.example\"\n"),
        "{}",
        converted.text
    );
    found(&converted, 4, "not needed");
    assert_eq!(converted.findings.len(), 1, "{:?}", converted.findings);
}

#[test]
fn what_cannot_be_looked_for_makes_no_rule_of_everything() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    acl bots fhdr(user-agent) -m reg (?!curl)
    http-request deny if bots
    http-request redirect location %[path,regsub(^/a(?!b)$,/b)]
    http-response set-header X-A 1 if { status 500:400 }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for rule in ["    deny", "    redirect", "        header", "        set-header"] {
        assert!(!converted.text.contains(rule), "{rule} in\n{}", converted.text);
    }
    found(&converted, 4, "regular expression");
    found(&converted, 5, "nobody is refused by it");
    found(&converted, 6, "regular expression");
}

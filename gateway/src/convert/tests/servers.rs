//! Servers, and what goes to them.

use super::*;

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
        "    server \"s\" \"10.0.0.1:5432\" max-connections=50\n    server \"t\" ",
        "    tcp-keep-alive interval=\"5s\"",
    ] {
        assert!(converted.text.contains(said), "{said} in\n{}", converted.text);
    }
    found(&converted, 6, "of two sides that differ");
    found(&converted, 11, "each `bind` says it");
    // HAProxy's queues have no bound for who belongs to no server.
    assert!(!converted.text.contains("max-queue"), "{}", converted.text);
    found(&converted, 14, "`maxqueue 7` of the server was left out");
    found(&converted, 15, "`maxqueue 9` of the server was left out");
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
fn http_2_is_carried_over_where_defaults_say_the_mode() {
    let converted = converted(
        "defaults
    mode http
frontend web
    bind :8080
    default_backend grpc
backend grpc
    server a 10.0.0.1:50051 proto h2
    server b 10.0.0.2:443 ssl verify none alpn h2
",
    );
    for part in [
        "server \"a\" \"10.0.0.1:50051\" h2\n",
        "server \"b\" \"10.0.0.2:443\" h2 {",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert!(!converted.text.contains("alpn"), "{}", converted.text);
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
        "retries 2 redispatch=\"each\"",
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
fn a_bind_for_all_of_ipv6_takes_ipv4_too() {
    let converted = converted(
        "frontend web
    mode http
    bind :::8080 v4v6
    bind [::]:8081
    bind :::8082 v6only
    bind :8083
    bind :::8083
    bind ipv6@:8084 v6only
    bind 2001:db8::1:8085
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    let binds = converted
        .text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("bind "));
    let binds: Vec<&str> = binds.map(|address| address.trim_matches('"')).collect();
    let expected = [
        "0.0.0.0:8080",
        "[::]:8080",
        "0.0.0.0:8081",
        "[::]:8081",
        "[::]:8082",
        "0.0.0.0:8083",
        "[::]:8083",
        "[::]:8084",
        "[2001:db8::1]:8085",
    ];
    assert_eq!(binds, expected);
}

#[test]
fn servers_that_begin_out_of_service_and_relieve_backups_are_carried_over() {
    let converted = converted(
        "listen galera
    mode tcp
    bind 127.0.0.1:3306
    default-server on-marked-up shutdown-backup-sessions
    server a 10.0.0.1:3306 check
    server b 10.0.0.2:3306 check backup
    server c 10.0.0.3:3306 check disabled
    server d 10.0.0.4:3306 check enabled disabled backup
",
    );
    for line in [
        "    server \"a\" \"10.0.0.1:3306\" on-marked-up=\"shutdown-backup-sessions\"",
        "    server \"b\" \"10.0.0.2:3306\" backup",
        "    server \"c\" \"10.0.0.3:3306\" on-marked-up=\"shutdown-backup-sessions\" disabled",
        "    server \"d\" \"10.0.0.4:3306\" backup disabled",
    ] {
        assert!(
            converted.text.lines().any(|have| have == line),
            "{line} in\n{}",
            converted.text
        );
    }
    assert_eq!(converted.findings, []);
}

/// Plain requests keep what a balancer in front has said.
#[test]
fn a_scheme_that_is_said_of_tls_alone_is_said_of_nothing_else() {
    let converted = converted(
        "frontend web
    mode http
    bind *:8080
    bind *:8443 ssl crt a.pem
    http-request set-header X-Forwarded-Proto https if { ssl_fc }
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    assert!(
        converted
            .text
            .contains("        set-header \"X-Forwarded-Proto\" \"https\" if=\"tls\"\n"),
        "{}\n{:?}",
        converted.text,
        converted.findings
    );
}

#[test]
fn a_server_takes_back_what_default_server_says() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    default_backend app
backend app
    mode http
    default-server check backup send-proxy ssl verify none
    server a 10.0.0.1:443 no-backup no-send-proxy
    server b 10.0.0.2:80 no-ssl
",
    );
    for part in [
        "server \"a\" \"10.0.0.1:443\" {",
        "server \"b\" \"10.0.0.2:80\" send-proxy=\"v1\" backup\n",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
    assert!(
        !converted
            .findings
            .iter()
            .any(|finding| finding.message.contains("`no-")),
        "{:?}",
        converted.findings
    );
}

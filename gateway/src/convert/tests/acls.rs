//! Acls and the conditions that ask them.

use super::*;

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
        "acl \"is_api\" {\n        any {\n            path-prefix \"/api/\" \"/v1/\"\n            header \"x-client\" regex=\"(?:^|,)\\\\s*legacy\"",
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
    http-request deny unless { fhdr(x-key) a b }
    http-request deny if { path /a } or { path /b }
    http-request set-header X-Out 1 if !office
    http-request return status 200 if { path /ping }
    use_backend other if { fhdr_beg(x-a) one two } office
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
        // An item of a list is enough: `hdr` asks about each, `fhdr` about the field.
        ("hdr(x-a) b", r#"header "x-a" regex="(?:^|,)\s*b\s*(?:,|$)""#),
        ("hdr_beg(x-a) -i b", r#"header "x-a" regex="(?i)(?:^|,)\s*b""#),
        (
            "hdr(x-a) -i b.c",
            r#"header "x-a" regex="(?i)(?:^|,)\s*b\.c\s*(?:,|$)""#,
        ),
        ("hdr_end(x-a) b", r#"header "x-a" regex="b\s*(?:,|$)""#),
        ("hdr_reg(x-a) ^b+$", r#"header "x-a" regex="(?:^|,)\s*b+\s*(?:,|$)""#),
        ("fhdr_reg(x-a) ^b|c$", r#"header "x-a" regex="^b|c$""#),
        ("hdr(x-a) -m found", "header \"x-a\"\n"),
        ("fhdr(x-a) b", "header \"x-a\" \"b\""),
        ("req.fhdr(x-a) -m beg b", "header \"x-a\" prefix=\"b\""),
        ("hdr_sub(host) admin", "header \"host\" regex=\"(?i)admin\""),
        ("path_reg -i ^/admin", "path-regex \"(?i)^/admin\""),
        ("path_sub -i admin", "path-regex \"(?i)admin\""),
        ("cook(a) -i b", "cookie \"a\" regex=\"(?i)^b$\""),
        // What stands between such signs, or at an end.
        (
            "hdr_dom(host) -i .a.example",
            r#"header "host" regex="(?i)(?:^|[/?.:])a\.example(?:[/?.:]|$)""#,
        ),
        (
            "hdr_dom(x-a) b",
            r#"header "x-a" regex="(?:^|,\s*|[/?.:])b(?:[/?.:]|\s*,|\s*$)""#,
        ),
        ("path_dir /b/", r#"path-regex "(?:^|[/?])b(?:[/?]|$)""#),
        ("url_beg /a /b", r#"path-prefix "/a" "/b""#),
        ("path,lower -m beg /a", r#"path-regex "(?i)^/a""#),
        ("hdr(host),lower a.example", r#"host "a.example""#),
        ("req.hdr(host),field(1,:),lower a.example", r#"host "a.example""#),
        ("req.hdr(host),host_only -m reg ^a", r#"host-regex "(?i)^a""#),
        (
            "src 10.0.0.5/8 192.168.0.0/255.255.0.0",
            r#"source "10.0.0.0/8" "192.168.0.0/16""#,
        ),
        ("src_port gt 1023", r#"source-port "1024-65535""#),
        ("url_len gt 2000", "uri-length min=2001"),
        ("req.hdr_cnt(X-A) gt 0", "header-count \"x-a\" min=1"),
        ("hdr_cnt(X-A) eq 0", "header-count \"x-a\" max=0"),
        ("req.fhdr_cnt(X-A) le 2", "header-count \"x-a\" max=2"),
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
        "path,lower -m beg /A",
        "path,url_dec -m beg /a",
        "url_sub -i admin",
        "url_reg x",
        "method -i get",
        "hdr(x,1) a",
        "hdr_reg(x-a) ^b|c$",
        "hdr_cnt(x-a) gt 2",
        "base_beg a.example/b",
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
    acl bots fhdr(user-agent) -m reg -f bots.lst
    acl shops hdr_reg(host) -f shops.lst
    acl loud path -i -f loud.lst
    http-request deny if { src -f /etc/haproxy/blocked.lst }
    http-request deny if bots
    http-request deny if old !ours
    http-request deny if shops
    http-request deny if { hdr(x-key) -f keys.lst }
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
    // Between a field's commas nobody looks for them.
    found(
        &converted,
        13,
        "values of `hdr(x-key)` from a file have to be written out",
    );
}

#[test]
fn expressions_of_a_file_that_ask_between_commas_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    for (values, is_there) in [("# bots\ncurl\nw(get|url)\n", true), ("curl\n^wget\n", false)] {
        let file = folder.path().join("bots.lst");
        std::fs::write(&file, values).unwrap();
        let file = file.to_str().unwrap();
        let converted = converted(&format!(
            "frontend web
    mode http
    bind :80
    http-request deny if {{ hdr(user-agent) -m reg -f {file} }}
    http-request deny if {{ hdr(user-agent) -m reg -f /nonexistent/bots.lst }}
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
"
        ));
        let said = format!("        header \"user-agent\" match=\"regex\" file=\"{file}\"\n");
        assert_eq!(converted.text.contains(&said), is_there, "{}", converted.text);
        if !is_there {
            found(&converted, 4, "`^wget` of");
        }
        found(&converted, 5, "cannot be seen here");
    }
}

#[test]
fn maps_whose_files_have_one_name_are_told_apart() {
    let converted = converted(
        "frontend web
    mode http
    bind :80
    http-request set-header X-A %[path,map(a/hosts.map)]
    http-request set-header X-B %[path,map(b/hosts.map,none)]
    http-request set-header X-C %[path,map(c/hosts.map)],%[path,map(a/hosts.map)],%[path,map(c/hosts.map),url_enc]
    default_backend app
backend app
    mode http
    server a 10.0.0.1:80
",
    );
    for part in [
        "map \"hosts\" file=\"a/hosts.map\"\n",
        "map \"hosts-none\" file=\"b/hosts.map\" default=\"none\"\n",
        "map \"hosts-2\" file=\"c/hosts.map\"\n",
        "\"X-A\" \"%{path|map:hosts}\"",
        "\"X-C\" \"%{path|map:hosts-2},%{path|map:hosts},%{path|map:hosts-2|url-encode}\"",
    ] {
        assert!(converted.text.contains(part), "{part} in\n{}", converted.text);
    }
}

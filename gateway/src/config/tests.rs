//! Tests of the language as a whole; the folder of invalid configurations is read in `cli::check`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A configuration in the folder /etc/gateway.
fn config(text: &str) -> Config {
    parse("test.kdl", text, Path::new("/etc/gateway")).unwrap()
}

/// A frontend with these lines and a backend.
fn web(lines: &str) -> Config {
    config(&web_text(lines))
}

fn web_text(lines: &str) -> String {
    format!(
        "frontend \"web\" {{\n bind \"127.0.0.1:0\"\n default-backend \"app\"\n {lines}\n}}\nbackend \"app\" {{ server \"a\" \"echo\" }}"
    )
}

/// What is said of a faulty configuration.
fn faults(text: &str) -> String {
    format!("{:?}", parse("test.kdl", text, Path::new("")).unwrap_err())
}

fn acl(lines: &str) -> serde_json::Value {
    let config = web(&format!("acl \"a\" {{ {lines} }}\ndeny if=\"a\""));
    let AclTest::Match(test) = &config.frontends[0].acls[0].test else {
        panic!("not a match")
    };
    serde_json::to_value(test).unwrap()
}

fn condition(text: &str) -> Condition {
    let acls = "acl \"a\" { path \"/a\" }; acl \"b\" { path \"/b\" }; acl \"c\" { path \"/c\" }";
    let used = "deny if=\"a and b and c\"";
    let config = web(&format!("{acls}; deny if=\"{text}\"; {used}"));
    config.frontends[0].rules[0].when.clone().unwrap()
}

/// The fenced KDL blocks of the reference.
fn reference_blocks() -> Vec<String> {
    blocks(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/config.md"))
}

/// The fenced KDL blocks of a document.
fn blocks(path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text
        .split("```kdl\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned());
    blocks.collect()
}

#[test]
fn the_table_of_limits_may_be_sized_for_plugins_alone() {
    let text = |grant| {
        format!(
            "process {{ rate-limit-table entries=5000 }}\nplugin \"p\" \"p.wasm\" {{ grant {grant}; on-failure \"skip\" }}\n{}",
            web_text("use-plugin \"p\"")
        )
    };
    config(&text("\"buckets\""));
    assert!(faults(&text("\"log\"")).contains("`rate-limit-table` does nothing"));
}

#[test]
fn the_example_is_valid() {
    let config = load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../config.kdl")))
        .unwrap()
        .config;
    let web = &config.frontends[0];
    assert_eq!(&*web.name, "web");
    assert_eq!(web.timeouts.client, Duration::from_secs(30));
    assert_eq!(web.rules[0].when, Some(Condition::Acl(AclId(1))));
    assert_eq!(web.routes[0].to.backends(), [BackendId(1)]);
    assert_eq!(web.default_backend, Some(BackendId(0)));
    assert!(web.forwarding.as_ref().unwrap().forwarded_for.is_some());
    let app = &config.backends[0];
    assert_eq!(app.servers[1].weight, 2);
    assert_eq!(app.check.clone().unwrap().schedule.interval, Duration::from_secs(2));
    assert!(config.backends[1].servers[2].backup);
    assert_eq!(config.frontends[1].mode, Mode::Tcp);
}

#[test]
fn every_example_of_the_reference_is_valid() {
    let blocks = reference_blocks();
    assert!(blocks.len() > 8, "{} blocks", blocks.len());
    for block in blocks {
        if let Err(errors) = parse("reference", &block, Path::new("")) {
            panic!("{errors:?}\nin\n{block}");
        }
    }
}

#[test]
fn every_example_for_who_knows_haproxy_is_valid() {
    let blocks = blocks(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/haproxy.md"));
    assert!(blocks.len() > 5, "{} blocks", blocks.len());
    for block in blocks {
        if let Err(errors) = parse("haproxy.md", &block, Path::new("")) {
            panic!("{errors:?}\nin\n{block}");
        }
    }
}

#[test]
fn every_node_has_an_example_in_the_reference() {
    let text = reference_blocks().concat();
    for (node, _) in examples::EXAMPLES {
        let there = text
            .split(|c: char| c.is_whitespace() || "{;".contains(c))
            .any(|word| word == *node);
        assert!(there, "no example of `{node}`");
    }
}

#[test]
fn nothing_said_means_the_defaults() {
    let config = web("");
    let frontend = &config.frontends[0];
    assert_eq!(frontend.mode, Mode::Http);
    assert_eq!(frontend.timeouts.http_request, Duration::from_secs(10));
    assert_eq!(frontend.request_limits.head, 16 << 10);
    assert_eq!(frontend.request_limits.body, None);
    assert!(frontend.access_log.enabled && !frontend.access_log.skip_null);
    assert!(frontend.forwarding.is_none() && frontend.request_id.is_none());
    assert_eq!(config.backends[0].balance, Balance::RoundRobin);
    assert_eq!(config.backends[0].check, None);
    assert_eq!(config.process.log.target, LogTarget::Stdout);
    assert_eq!(config.process.workers, None);
    assert_eq!(config.process.drain_timeout, Duration::from_secs(30));
    assert!(config.stats.is_none());
}

#[test]
fn a_section_takes_the_defaults_it_names_and_overrides_them_one_by_one() {
    let config = config(
        r#"
        defaults { timeout client="1s" http-request="2s"; forwarded-for }
        defaults "slow" { timeout client="1m"; server-close }
        frontend "a" { bind "127.0.0.1:0"; timeout client="7s"; default-backend "x" }
        frontend "b" from="slow" { bind "127.0.0.1:0"; default-backend "x" }
        backend "x" from="slow" { server-close "off"; server "s" "echo" }
        backend "y" from="slow" { server "s" "echo" }
        frontend "c" { bind "127.0.0.1:0"; forwarded-for "off"; default-backend "y" }
        "#,
    );
    let [a, b, c] = &config.frontends[..] else {
        panic!("three frontends")
    };
    assert_eq!(a.timeouts.client, Duration::from_secs(7));
    assert_eq!(a.timeouts.http_request, Duration::from_secs(2));
    assert!(a.forwarding.is_some() && b.forwarding.is_none() && c.forwarding.is_none());
    assert_eq!(b.timeouts.client, Duration::from_secs(60));
    assert_eq!(b.timeouts.http_request, Duration::from_secs(10));
    assert!(!config.backends[0].server_close && config.backends[1].server_close);
}

#[test]
fn relative_paths_start_at_the_configuration() {
    let config = config(
        r#"
        process { log "./gateway.log" }
        frontend "a" {
            bind "127.0.0.1:0" { tls cert="certs/a.pem" key="/keys/a.key" }
            use-plugin "p"
            default-backend "x"
        }
        backend "x" { server "s" "echo" }
        plugin "p" "plugins/p.wasm" { on-failure "skip" }
        "#,
    );
    assert_eq!(
        config.process.log.target,
        LogTarget::File("/etc/gateway/./gateway.log".into())
    );
    let tls = config.frontends[0].binds[0].tls.clone().unwrap();
    let CertificateSource::Files(files) = &tls.certificates[0] else {
        panic!("a folder")
    };
    assert_eq!(files.cert.value, Path::new("/etc/gateway/certs/a.pem"));
    assert_eq!(files.key.as_ref().unwrap().value, Path::new("/keys/a.key"));
    assert_eq!(
        config.plugins[0].component.value,
        ComponentSource::File("/etc/gateway/plugins/p.wasm".into())
    );
    assert_eq!(
        (&*config.plugins[0].origin.file, config.plugins[0].origin.line),
        ("test.kdl", 9)
    );
}

#[test]
fn nodes_of_an_acl_have_all_to_hold_and_one_of_their_values() {
    assert_eq!(acl("path \"/a\" \"/b\""), json!({"path": {"exact": ["/a", "/b"]}}));
    assert_eq!(
        acl("path-prefix \"/a\"; not { source \"10.0.0.0/8\" \"::1\" }"),
        json!({"all": [{"path": {"prefix": ["/a"]}}, {"not": {"source": ["10.0.0.0/8", "::1/128"]}}]})
    );
    assert_eq!(
        acl("any { host \"A.example\" \"*.B.example\"; all { method \"GET\"; header \"X-A\" } }"),
        json!({"any": [
            {"host": ["a.example", "*.b.example"]},
            {"all": [{"method": ["GET"]}, {"header": {"name": "x-a", "value": null}}]},
        ]})
    );
    assert_eq!(
        acl("not { cookie \"c\" regex=\"^x\"; query \"q\" \"\" }"),
        json!({"not": {"all": [
            {"cookie": {"name": "c", "value": {"regex": ["^x"]}}},
            {"query": {"name": "q", "value": {"exact": [""]}}},
        ]}})
    );
}

#[test]
fn a_bind_says_all_of_its_tls() {
    let config = config(&web_text(
        r#"bind "127.0.0.1:0" {
            tls cert="a.pem" ocsp="a.ocsp" cert-dir="certs" min-version="1.2" max-version="1.2" strict-sni {
                cert "b.pem" key="b.key"
                cert-dir "more"
                client-ca "ca.pem" "other.pem" verify="optional" depth=1
                crl "ca.crl"
                ciphers "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
                curves "x25519" "P-256"
                session-cache 100
                tickets rotate="1h"
            }
        }"#,
    ));
    let tls = config.frontends[0].binds[1].tls.as_ref().unwrap();
    let places: Vec<_> = tls
        .certificates
        .iter()
        .map(|source| match source {
            CertificateSource::Files(files) => files.cert.value.clone(),
            CertificateSource::Folder(folder) => folder.value.clone(),
        })
        .collect();
    // In the order of the text, with what stands behind `tls` first.
    let expected = ["a.pem", "certs", "b.pem", "more"].map(|name| Path::new("/etc/gateway").join(name));
    assert_eq!(places, expected);
    let clients = tls.clients.as_ref().unwrap();
    assert_eq!((clients.files.len(), clients.crls.len()), (2, 1));
    assert_eq!((clients.required, clients.depth), (false, Some(1)));
    assert!(tls.strict_sni);
    assert_eq!((tls.parameters.ciphers.len(), tls.parameters.curves.len()), (1, 2));
    assert_eq!(tls.resumption.cache, 100);
    assert_eq!(tls.resumption.tickets, Some(Duration::from_secs(3600)));

    let config = self::config(&web_text(
        r#"bind "127.0.0.1:0" { tls cert="a.pem" { tickets "off"; client-ca "ca.pem" } }"#,
    ));
    let tls = config.frontends[0].binds[1].tls.as_ref().unwrap();
    assert!(tls.clients.as_ref().unwrap().required && !tls.strict_sni);
    assert_eq!((tls.resumption.cache, tls.resumption.tickets), (20_000, None));
    assert_eq!(tls.ticket_keys, None);

    let config = self::config(&web_text(
        r#"bind "127.0.0.1:0" { tls cert="a.pem" { tickets keys="tickets.keys" lifetime="10m" } }"#,
    ));
    let tls = config.frontends[0].binds[1].tls.as_ref().unwrap();
    let keys = tls.ticket_keys.as_ref().unwrap();
    assert_eq!(keys.file.value, Path::new("/etc/gateway/tickets.keys"));
    assert_eq!(keys.lifetime, Duration::from_secs(600));
    assert_eq!(tls.resumption.tickets, None);
}

#[test]
fn what_tls_settles_is_asked_about_by_attribute() {
    let fact = |node: &str| {
        let bind = "bind \"127.0.0.1:0\" { tls cert=\"a.pem\" { client-ca \"ca.pem\" } }";
        let config = config(&web_text(&format!("{bind}; acl \"a\" {{ {node} }}; deny if=\"a\"")));
        match &config.frontends[0].acls[0].test {
            AclTest::Match(test) => serde_json::to_value(test).unwrap()["fact"].clone(),
            AclTest::Plugin { .. } | AclTest::Servers(_) => panic!("not a match"),
        }
    };
    assert_eq!(
        fact("client-cert"),
        json!({"name": "client-cert-fingerprint", "value": null})
    );
    assert_eq!(
        fact("client-cert-subject suffix=\",O=Example\""),
        json!({"name": "client-cert-subject", "value": {"suffix": [",O=Example"]}})
    );
    assert_eq!(
        fact("tls-version \"1.3\""),
        json!({"name": "tls-version", "value": {"exact": ["TLSv1.3"]}})
    );
    let digest = "AB:".repeat(31) + "CD";
    assert_eq!(
        fact(&format!("client-cert-fingerprint \"{digest}\"")),
        json!({"name": "client-cert-fingerprint", "value": {"exact": ["ab".repeat(31) + "cd"]}})
    );
    assert_eq!(
        fact("client-cert-serial \"1FE\""),
        json!({"name": "client-cert-serial", "value": {"exact": ["01fe"]}})
    );
}

#[test]
fn browsers_remember_tls_for_whole_years_or_not_at_all() {
    for (node, age) in [
        ("hsts max-age=\"1y\" include-subdomains preload", 365 * 24 * 3600),
        ("hsts max-age=\"30d\" override", 30 * 24 * 3600),
        ("hsts max-age=\"0s\"", 0),
    ] {
        let bind = "bind \"127.0.0.1:0\" { tls cert=\"a.pem\" }";
        let config = config(&web_text(&format!("{bind}; {node}")));
        let hsts = config.frontends[0].hsts.unwrap();
        assert_eq!(hsts.max_age, Duration::from_secs(age));
        assert_eq!(hsts.replaces, node.contains("override"));
        assert_eq!(
            (hsts.include_subdomains, hsts.preload),
            (node.contains("preload"), node.contains("preload"))
        );
    }
}

#[test]
fn tls_predicates_are_for_frontends_with_tls() {
    let text = web_text(
        "bind \"127.0.0.1:0\" { tls cert=\"a.pem\" }; acl \"a\" { tls; sni \"*.example.net\" }; deny if=\"a\"",
    );
    let config = config(&text);
    let AclTest::Match(test) = &config.frontends[0].acls[0].test else {
        panic!("not a match")
    };
    assert_eq!(
        serde_json::to_value(test).unwrap(),
        json!({"all": ["tls", {"sni": ["*.example.net"]}]})
    );
}

#[test]
fn or_binds_weaker_than_and_and_that_weaker_than_not() {
    let [a, b, c] = [0, 1, 2].map(|i| Condition::Acl(AclId(i)));
    assert_eq!(condition("a"), a);
    assert_eq!(
        condition("a or not b and c"),
        Condition::Or(vec![
            a.clone(),
            Condition::And(vec![Condition::Not(Box::new(b.clone())), c.clone()])
        ])
    );
    assert_eq!(
        condition("(a or b)and(c)"),
        Condition::And(vec![Condition::Or(vec![a.clone(), b.clone()]), c.clone()])
    );
    assert_eq!(condition("not not a"), a);
    assert_eq!(
        condition("not (a and b)"),
        Condition::Not(Box::new(Condition::And(vec![a, b])))
    );
}

#[test]
fn unless_is_if_not() {
    let config = web("acl \"a\" { path \"/\" }; deny unless=\"a\"; deny unless=\"not a\"");
    let rules = &config.frontends[0].rules;
    assert_eq!(rules[0].when, Some(Condition::Not(Box::new(Condition::Acl(AclId(0))))));
    assert_eq!(rules[1].when, Some(Condition::Acl(AclId(0))));
}

fn written<'a, E: serde::Serialize + 'a>(edits: impl Iterator<Item = &'a E>) -> serde_json::Value {
    serde_json::to_value(edits.collect::<Vec<_>>()).unwrap()
}

#[test]
fn values_have_variables_that_the_component_reads() {
    let config = web(r##"
        acl "a" { path "/" }
        request {
            set-header "X-A" "%{client-ip} %%{b} 5%" if="a"
            set-query "%{header:X-Up}%{time}"
            rewrite-path regex="^/(a)" to="/%{host}/$1"
        }
        response { set-header "X-B" "%{frontend}/%{backend}/%{server}" }
        "##);
    let web = &config.frontends[0];
    assert_eq!(web.request_edits[0].when, Some(Condition::Acl(AclId(0))));
    assert_eq!(
        written(web.request_edits.iter().map(|edit| &edit.edit)),
        json!([
            {"set-header": {"name": "x-a", "value": [{"fact": "client-ip"}, {"text": " %{b} 5%"}]}},
            {"set-query": [{"fact": "header:x-up"}, {"fact": "local-time:UTC"}]},
            {"rewrite-path": {"regex": "^/(a)", "to": [{"text": "/"}, {"fact": "host"}, {"text": "/$1"}]}},
        ])
    );
    assert_eq!(
        serde_json::to_value(web.response_edits[0].edit.named("web", "app")).unwrap(),
        json!({"set-header": {"name": "x-b", "value": [{"text": "web/app/"}, {"fact": "server"}]}})
    );
}

#[test]
fn predicates_without_a_name_stand_behind_the_acls() {
    let text = web_text(
        "bind \"127.0.0.1:0\" { tls cert=\"a.pem\" }; acl \"a\" { path \"/\" }; deny if=\"a\" { method \"PUT\" }; \
         redirect scheme=\"https\" unless=\"tls\"; deny if=\"not tls\"",
    );
    let config = config(&text);
    let web = &config.frontends[0];
    let [acl_0, acl_1, acl_2] = [0, 1, 2].map(|id| Condition::Acl(AclId(id)));
    assert_eq!(web.acls.len(), 3);
    assert_eq!(web.rules[0].when, Some(Condition::And(vec![acl_0, acl_1])));
    // One question, however often it is asked.
    assert_eq!(web.rules[1].when, Some(Condition::Not(Box::new(acl_2.clone()))));
    assert_eq!(web.rules[2].when, Some(Condition::Not(Box::new(acl_2))));
}

#[test]
fn edits_are_what_the_component_reads() {
    let config = web(r##"
        request {
            set-header "X-A" "1"
            add-header "x-b" ""
            delete-header "X-C"
            replace-header "x-d" regex=#"^(\w+)$"# to="${1}x $$"
            rewrite-path prefix="/old/" to="/new/"
        }
        response { rewrite-location regex="^http:" to="https:" }
        "##);
    assert_eq!(
        written(config.frontends[0].request_edits.iter().map(|edit| &edit.edit)),
        json!([
            {"set-header": {"name": "x-a", "value": "1"}},
            {"add-header": {"name": "x-b", "value": ""}},
            {"delete-header": {"name": "x-c"}},
            {"replace-header": {"name": "x-d", "regex": "^(\\w+)$", "to": "${1}x $$"}},
            {"rewrite-path": {"prefix": "/old/", "to": "/new/"}},
        ])
    );
    assert_eq!(
        written(config.frontends[0].response_edits.iter().map(|edit| &edit.edit)),
        json!([{"rewrite-location": {"regex": "^http:", "to": "https:"}}])
    );
}

#[test]
fn rate_limits_are_what_the_component_reads() {
    let text = web_text("limit \"r\"")
        + "\nrate-limit \"r\" { key \"client-ip\" ipv6-prefix=56; key \"header\" \"X-Key\"; allow \"5/10s\" burst=9 }";
    assert_eq!(
        serde_json::to_value(&config(&text).rate_limits).unwrap(),
        json!([{
            "name": "r",
            "key": [{"client-ip": {"ipv4-prefix": 32, "ipv6-prefix": 56}}, {"header": "x-key"}],
            "tokens": 5, "period-ms": 10_000, "burst": 9,
        }])
    );
}

#[test]
fn a_check_is_read() {
    let config = config(
        r#"
        frontend "a" { bind "127.0.0.1:0"; default-backend "x" }
        backend "x" {
            server "s" "10.0.0.1:80"
            check "http" interval="5s" timeout="1s" {
                send "HEAD" "/health?full=1" host="app.example:8080"
                expect status="204,300-399"
            }
        }
        "#,
    );
    let check = config.backends[0].check.clone().unwrap();
    let schedule = check.schedule;
    assert_eq!((schedule.rise, schedule.fall), (2, 3));
    assert_eq!(
        (schedule.timeout, schedule.down_interval),
        (Duration::from_secs(1), Duration::from_secs(5))
    );
    let CheckKind::Http(http) = check.kind else {
        panic!("not over http")
    };
    assert_eq!((&*http.method, &*http.uri), ("HEAD", "/health?full=1"));
    assert_eq!(http.host.as_deref(), Some("app.example:8080"));
    let status = HttpTest::Status(vec![(204, 204), (300, 399)]);
    assert_eq!(
        http.expects,
        [HttpExpect {
            negated: false,
            test: status
        }]
    );
}

#[test]
fn the_steps_of_a_check_keep_their_order() {
    let config = config(
        r##"
        frontend "a" { mode "tcp"; bind "127.0.0.1:0"; default-backend "x" }
        backend "x" {
            mode "tcp"
            server "s" "10.0.0.1:80"
            observe "connect" error-limit=3 on-error="mark-down"
            check "tcp" port=81 address="::1" fast-interval="500ms" down-interval="10s" initial="fully-down" {
                expect regex="^220[ -]"
                send "QUIT\r\n"
                send hex="00 ff"
                expect prefix="221"
                expect contains-hex="0D0a"
            }
        }
        "##,
    );
    let check = config.backends[0].check.clone().unwrap();
    let CheckKind::Tcp(steps) = check.kind else {
        panic!("not over tcp")
    };
    let [
        CheckStep::Expect(Expect::Regex(greeting)),
        CheckStep::Send(quit),
        CheckStep::Send(binary),
        CheckStep::Expect(Expect::Prefix(bye)),
        CheckStep::Expect(Expect::Contains(end)),
    ] = &steps[..]
    else {
        panic!("other steps: {steps:?}")
    };
    assert_eq!(greeting.0.as_str(), "^220[ -]");
    assert_eq!((&quit[..], &binary[..]), (&b"QUIT\r\n"[..], &[0, 0xff][..]));
    assert_eq!((&bye[..], &end[..]), (&b"221"[..], &b"\r\n"[..]));
    assert_eq!(check.target.port, Some(81));
    assert_eq!(check.target.address, Some("::1".parse().unwrap()));
    assert_eq!(check.schedule.initial, InitialState::FullyDown);
    assert_eq!(check.schedule.fast_interval, Duration::from_millis(500));
    assert_eq!(check.schedule.down_interval, Duration::from_secs(10));
    let observe = check.observe.unwrap();
    assert_eq!((observe.error_limit, observe.on_error), (3, OnError::MarkDown));
}

#[test]
fn names_are_read_and_the_servers_of_a_template_share_theirs() {
    let config = config(
        r#"
        resolver timeout="200ms" hold="1m" { nameserver "10.0.0.2" "[::1]:5353" }
        frontend "a" { bind "127.0.0.1:0"; default-backend "x" }
        backend "x" {
            server "s" "DB.Internal.:80" { tls }
            server-template "t" "_http._tcp.app.internal" count=2
        }
        "#,
    );
    assert_eq!(
        config.resolver.nameservers,
        ["10.0.0.2:53".parse().unwrap(), "[::1]:5353".parse().unwrap()]
    );
    assert_eq!(config.resolver.hold, Some(Duration::from_secs(60)));
    let servers = &config.backends[0].servers;
    let names: Vec<&str> = servers.iter().map(|server| &*server.name).collect();
    assert_eq!(names, ["s", "t-1", "t-2"]);
    let [
        ServerAddress::Name(db),
        ServerAddress::Name(one),
        ServerAddress::Name(two),
    ] = [0, 1, 2].map(|i| servers[i].address.clone())
    else {
        panic!("not names")
    };
    assert_eq!(db.to_string(), "db.internal:80");
    assert_eq!(
        servers[0].tls.as_ref().unwrap().sni,
        Some("db.internal".try_into().unwrap())
    );
    assert_eq!(one.to_string(), "_http._tcp.app.internal");
    assert!(Arc::ptr_eq(&one, &two));
}

#[test]
fn a_plugin_gets_its_block_as_json() {
    let text = web_text("use-plugin \"p\"")
        + r##"
        plugin "p" "p.wasm" {
            sha256 "00000000000000000000000000000000000000000000000000000000000000ff"
            grant "log" "buckets"
            limit cpu="5ms" memory="1MiB"
            on-failure "deny"
            config {
                enabled
                deny-country "KP" "IR"
                one "x"
                list { - "x" }
                numbers 1 -2 2.5 0xff
                nothing #null
                header name="x-a" required=#true { values "a" "b" }
                rule path="/a"
                rule path="/b"
                pair 1 2
                pair 3 4
                empty {}
            }
        }"##;
    let config = config(&text);
    let plugin = &config.plugins[0];
    assert_eq!(plugin.sha256.unwrap().value[31], 0xff);
    assert_eq!(plugin.grants, [Grant::Log, Grant::Buckets]);
    assert_eq!(
        plugin.limits,
        PluginLimits {
            cpu: Duration::from_millis(5),
            memory: 1 << 20
        }
    );
    assert_eq!(plugin.on_failure, Some(OnFailure::Deny(503)));
    let json: serde_json::Value = serde_json::from_str(&plugin.config).unwrap();
    assert_eq!(
        json,
        json!({
            "enabled": true,
            "deny-country": ["KP", "IR"],
            "one": "x",
            "list": ["x"],
            "numbers": [1, -2, 2.5, 255],
            "nothing": null,
            "header": {"name": "x-a", "required": true, "values": ["a", "b"]},
            "rule": [{"path": "/a"}, {"path": "/b"}],
            "pair": [[1, 2], [3, 4]],
            "empty": {},
        })
    );
}

/// What a pointer into a plugin's configuration finds in the text; in brackets when it is not there and this is the
/// innermost place that is.
fn pointed_at(block: &str, pointer: &str) -> String {
    let text = web_text("use-plugin \"p\"")
        + &format!("\nplugin \"p\" \"p.wasm\" {{ on-failure \"skip\"; config {{\n{block}\n}} }}");
    let (span, exact) = config(&text).plugins[0].config_places.find(pointer);
    let found = &text[span.offset()..span.offset() + span.len()];
    if exact { found.to_owned() } else { format!("[{found}]") }
}

#[test]
fn a_pointer_into_a_plugins_configuration_finds_its_place_in_the_text() {
    let block = r##"
        enabled
        deny-country "KP" "IR"
        one "x"
        list { - "y"; - { - 1; - 2 } }
        header name="x-a" required=#true { values "a" #"b"#; "in ner" { deep level=3 } }
        rule path="/a"
        rule path="/b" { then "go" }
        pair 1 2
        pair 3 4
        "a/b~c" "odd"
    "##;
    for (pointer, place) in [
        ("", "config"),
        ("/enabled", "enabled"),
        ("/one", "\"x\""),
        ("/deny-country", "\"KP\" \"IR\""),
        ("/deny-country/1", "\"IR\""),
        ("/list", "list"),
        ("/list/0", "\"y\""),
        ("/list/1", "-"),
        ("/list/1/1", "2"),
        ("/header", "header"),
        ("/header/name", "\"x-a\""),
        ("/header/required", "#true"),
        ("/header/values", "\"a\" #\"b\"#"),
        ("/header/values/1", "#\"b\"#"),
        ("/header/in ner/deep/level", "3"),
        ("/rule", "rule"),
        ("/rule/1", "rule"),
        ("/rule/0/path", "\"/a\""),
        ("/rule/1/path", "\"/b\""),
        ("/rule/1/then", "\"go\""),
        ("/pair/1", "3 4"),
        ("/pair/1/0", "3"),
        ("/a~1b~0c", "\"odd\""),
        // What is missing is missing from something.
        ("/rule/1/method", "[rule]"),
        ("/rule/2", "[rule]"),
        ("/rule/01", "[rule]"),
        ("/rule/+1", "[rule]"),
        ("/header/name/x", "[\"x-a\"]"),
        ("/nowhere/else", "[config]"),
        // Not pointers.
        ("enabled", "[config]"),
        ("$.one", "[config]"),
    ] {
        assert_eq!(pointed_at(block, pointer), place, "{pointer}");
    }
}

#[test]
fn a_pointer_into_a_configuration_that_is_not_there_finds_the_plugin() {
    let text = web_text("use-plugin \"p\"") + "\nplugin \"p\" \"p.wasm\" { on-failure \"skip\" }";
    let (span, exact) = config(&text).plugins[0].config_places.find("/one");
    assert_eq!(
        (text.get(span.offset()..span.offset() + span.len()), exact),
        (Some("plugin"), false)
    );
}

#[test]
fn more_acls_than_the_component_answers_are_refused() {
    let plugin = "\nplugin \"p\" \"p.wasm\" { on-failure \"skip\" }";
    let asked = |i| format!("acl \"a{i}\" {{ plugin \"p\" }}; deny if=\"a{i}\"\n");
    let by_plugin = (0..=MAX_ACLS).map(asked).collect::<String>();
    assert!(faults(&(web_text(&by_plugin) + plugin)).contains("at most 256 acls"));
    let acls = |n: usize| {
        (0..n)
            .map(|i| format!("acl \"a{i}\" {{ path \"/{i}\" }}; deny if=\"a{i}\"\n"))
            .collect::<String>()
    };
    web(&acls(MAX_ACLS));
    assert!(faults(&web_text(&acls(MAX_ACLS + 1))).contains("at most 256 acls"));
}

#[test]
fn a_limit_may_count_responses_and_counts_no_connections_then() {
    let text = |uses: &str, counts: &str| {
        format!(
            "{}\nrate-limit \"r\" {{ key \"client-ip\"; allow \"20/m\"; {counts} }}",
            web_text(uses)
        )
    };
    let limit = config(&text("limit \"r\"", "count-status \"404,500-502\""))
        .rate_limits
        .remove(0);
    let counts = limit.count_status.unwrap();
    assert!([404, 500, 502].iter().all(|status| counts.contains(*status)));
    assert!(![200, 403, 503].iter().any(|status| counts.contains(*status)));
    // The component is told nothing of it.
    assert!(serde_json::to_value(&limit).unwrap().get("count-status").is_none());
    for (uses, counts, message) in [
        (
            "limit \"r\" connections",
            "count-status 404",
            "this limit counts requests",
        ),
        ("limit \"r\"", "count-status \"4xx\"", "statuses are from"),
        (
            "limit \"r\"",
            "count-status",
            "`count-status` needs the statuses of responses that count",
        ),
        (
            "limit \"r\"",
            "count-status 404; count-status 500",
            "`count-status` is said twice",
        ),
    ] {
        let said = faults(&text(uses, counts));
        assert!(said.contains(message), "{counts}: {said}");
    }
}

#[test]
fn what_only_responses_have_is_sent_to_them() {
    for (edit, message) in [
        (
            "set-header \"X-A\" \"b\" if-status=404",
            "`set-header` has no property `if-status`",
        ),
        (
            "set-query \"a\" if-status=404",
            "`set-query` has no property `if-status`",
        ),
        ("delete-header \"X-A\" always", "`delete-header` takes no such argument"),
    ] {
        let text = web_text(&format!("request {{ {edit} }}"));
        let errors = parse("test.kdl", &text, Path::new("")).unwrap_err();
        let error = errors.iter().next().unwrap();
        assert_eq!(error.message(), message);
        let advice = error.advice().unwrap();
        assert!(
            advice.contains("write the edit in `response { … }`"),
            "{edit}: {advice}"
        );
    }
}

#[test]
fn faults_are_in_the_order_of_the_text_and_bounded() {
    let text = (0..1_000).map(|i| format!("nonsense{i}\n")).collect::<String>();
    let errors = parse("test.kdl", &text, Path::new("")).unwrap_err();
    assert_eq!(errors.iter().len(), diagnostics::MAX_ERRORS + 1);
    let offsets: Vec<usize> = errors
        .iter()
        .filter_map(|error| Some(error.places().first()?.span.offset()))
        .collect();
    assert!(offsets.is_sorted());
}

#[test]
fn a_text_that_is_too_long_is_refused_before_it_is_read() {
    let text = " ".repeat(MAX_BYTES + 1);
    assert!(faults(&text).contains("longer than 16 MiB"));
}

#[test]
fn a_hundred_thousand_servers_are_read() {
    let servers = (0..100_000).map(|i| format!("server \"s{i}\" \"10.{}.{}.{}:80\"\n", i >> 16, i >> 8 & 255, i & 255));
    let text = format!(
        "frontend \"a\" {{ bind \"127.0.0.1:0\"; default-backend \"x\" }}\nbackend \"x\" {{\n{}}}",
        servers.collect::<String>()
    );
    assert_eq!(config(&text).backends[0].servers.len(), 100_000);
}

/// Each of these took time in the square of its size at first, or would.
#[test]
fn long_lists_are_read_in_time_that_grows_with_them() {
    let many = |one: &dyn Fn(usize) -> String| (0..20_000).map(one).collect::<String>();
    let texts = [
        web_text(&format!(
            "acl \"a\" {{ path {} }}; deny if=\"a\"",
            many(&|i| format!("\"/{i}\" "))
        )),
        web_text(&format!("deny {}", many(&|i| format!("p{i}=1 ")))),
        web_text(&format!("deny {}", many(&|_| "x ".to_owned()))),
        web_text(&many(&|i| format!("use-backend \"b{i}\" if=\"x\"\n"))),
        web_text(&many(&|i| format!("limit \"r{i}\"\n")))
            + &many(&|i| format!("\nrate-limit \"r{i}\" {{ allow \"1/s\" }}")),
        web_text(&format!(
            "request {{ {} }}",
            many(&|i| format!("set-header \"x-{i}\" \"1\"\n"))
        )),
        many(&|i| format!("frontend \"f{i}\" from=\"d{i}\" {{ bind \"127.0.0.1:0\" }}\n")),
        many(&|i| format!("backend \"b\" {{ server \"s\" \"nowhere{i}\" }}\n")),
        format!(
            "plugin \"p\" \"p\" {{ config {{ a {{ {} }} }} }}",
            many(&|i| format!("k{i} 1\n"))
        ),
        format!(
            "plugin \"p\" \"p\" {{ config {{ a {} }} }}",
            many(&|i| format!("k{i}=1 "))
        ),
        many(&|_| "}".to_owned()),
        many(&|_| "\"\"\"\n".to_owned()),
        many(&|_| "#\"\"\"\n".to_owned()),
        many(&|_| "a\\\n".to_owned()),
    ];
    for text in texts {
        let start = std::time::Instant::now();
        let _ = parse("test.kdl", &text, Path::new(""));
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?} for {}",
            start.elapsed(),
            &text[..200]
        );
    }
}

/// Configurations with everything in them, to be broken.
fn valid_texts() -> Vec<String> {
    let mut texts = reference_blocks();
    texts.push(std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../config.kdl")).unwrap());
    texts
}

/// A change to a text: where (in thousandths), how much goes, what comes.
#[derive(Debug, Clone)]
struct Change {
    at: usize,
    gone: usize,
    come: String,
}

impl Change {
    fn apply(&self, text: &mut String) {
        let floor = |text: &str, mut at: usize| {
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = floor(text, text.len() * self.at / 1000);
        let end = floor(text, (start + self.gone).min(text.len())).max(start);
        text.replace_range(start..end, &self.come);
    }
}

fn change() -> impl Strategy<Value = Change> {
    let pieces = prop::sample::select(vec![
        "",
        "\"",
        "{",
        "}",
        "(",
        ")",
        "=",
        ";",
        "\n",
        " ",
        "\\",
        "#",
        "/-",
        "/*",
        "*/",
        "0",
        "-1",
        "99999999999999999999",
        "1.5",
        "#null",
        "#true",
        "\"\"",
        "\"x\"",
        "\"0s\"",
        "\"é\"",
        "\u{0}",
        "\u{202e}",
        "a=1 ",
        "not ",
        "and ",
        "if=\"((\"",
        "server \"s\" \"::\"\n",
        "mode \"tcp\"\n",
        "from=\"x\"",
        "$",
        "${",
        "config { - 1; - 2 }",
        "regex=\"(((\"",
        "r\"x\"",
    ]);
    let come = prop_oneof![pieces.prop_map(str::to_owned), ".{0,8}"];
    (0..1000_usize, 0..12_usize, come).prop_map(|(at, gone, come)| Change { at, gone, come })
}

/// Neither reading a text nor drawing what is wrong with it panics, and all places lie in it.
fn try_text(text: &str) {
    if let Err(errors) = parse("test.kdl", text, Path::new("")) {
        assert!(errors.iter().len() > 0);
        for error in errors.iter() {
            for place in error.places() {
                let end = place.span.offset() + place.span.len();
                assert!(
                    text.get(place.span.offset()..end).is_some(),
                    "{error}: {place:?} in {text:?}"
                );
            }
            let mut drawn = String::new();
            let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor());
            handler.render_report(&mut drawn, &errors.located(error)).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        try_text(&text);
    }

    #[test]
    fn no_bytes_that_are_text_panic(text in any::<String>()) {
        try_text(&text);
    }

    #[test]
    fn no_broken_configuration_panics(which in any::<prop::sample::Index>(), changes in prop::collection::vec(change(), 1..6)) {
        let mut text = which.get(&valid_texts()).clone();
        for change in changes {
            change.apply(&mut text);
        }
        try_text(&text);
    }
}

#[test]
fn edits_have_no_more_conditions_than_there_are_bits() {
    let with = |different: usize| {
        let mut says = String::new();
        for n in 0..different {
            says.push_str(&format!("acl \"a{n}\" {{ path \"/{n}\" }}\n"));
        }
        for (name, range) in [
            ("request", 0..different.min(40)),
            ("response", 40.min(different)..different),
        ] {
            says.push_str(&format!("{name} {{\n"));
            for n in range {
                says.push_str(&format!("add-header \"x\" \"y\" if=\"a{n}\"\n"));
            }
            says.push_str("}\n");
        }
        parse("test.kdl", &web_text(&says), Path::new(""))
    };
    assert!(with(64).is_ok());
    assert!(format!("{:?}", with(65).unwrap_err()).contains("at most 64 different conditions"));
}

#[test]
fn edits_that_write_more_than_one_call_may_are_refused() {
    let write = |name: &str, bytes: usize| format!("set-header {name:?} \"{}\"", "x".repeat(bytes));
    let config = |frontend: &str, backend: &str, tenant: &str| {
        let text = format!(
            r#"
            tenant "acme" {{ hosts "acme.example"; {tenant} }}
            frontend "web" {{
                bind "127.0.0.1:80"
                tenants "acme"
                acl "some" {{ path "/some" }}
                deny if="some"
                {frontend}
                default-backend "app"
            }}
            backend "app" {{ server "s" "127.0.0.1:81"; {backend} }}
        "#
        );
        let errors = parse("config.kdl", &text, Path::new("/etc/gateway")).err()?;
        Some(format!("{errors} {errors:?}"))
    };
    let said = |faults: Option<String>, message: &str| {
        let faults = faults.unwrap();
        let expected = format!("edits write at most 16KiB into a {message}");
        assert!(faults.contains(&expected) && faults.contains("1 error"), "{faults}");
    };
    let request = |edits: &[String]| format!("request {{ {} }}", edits.join("; "));
    let response = |edits: &[String]| format!("response {{ {} }}", edits.join("; "));
    let (half, rest) = (write("x-a", 8 << 10), write("x-b", 9 << 10));
    said(config(&request(&[half.clone(), rest.clone()]), "", ""), "request");
    said(
        config(
            &request(std::slice::from_ref(&half)),
            &request(std::slice::from_ref(&rest)),
            "",
        ),
        "request",
    );
    said(
        config(
            &response(std::slice::from_ref(&half)),
            &response(std::slice::from_ref(&rest)),
            "",
        ),
        "response",
    );
    said(config("", "", &response(&[half.clone(), rest.clone()])), "response");
    // Of the operator's and of a tenant's edits each are made in one call; and not all of these are made.
    let sometimes = format!("{rest} if=\"some\"");
    for (frontend, backend) in [
        (
            request(&[half.clone(), sometimes]),
            response(std::slice::from_ref(&rest)),
        ),
        (request(std::slice::from_ref(&half)), request(&[write("x-a", 9 << 10)])),
    ] {
        let faults = config(&frontend, &backend, &request(std::slice::from_ref(&half)));
        assert!(faults.is_none(), "{faults:?}");
    }
}

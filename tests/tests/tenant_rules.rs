//! What tenants decide of requests for their own hosts: acls and rules of their own, behind the operator's, in their block or in their
//! files.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::{Builder, Gateway, HttpServer, get, guest, method};

const CONFIG: &str = r#"
    process { workers 1; log "stdout" format="json" }
    acl "admin" { path-prefix "/operator" }
    tenant "acme" { hosts "acme.example" "*.acme.example"; @acme include "tenants/acme/*.kdl" }
    tenant "rival" { hosts "rival.example"; include "tenants/rival/*.kdl" }
    tenant "quiet" { hosts "quiet.example"; include "tenants/quiet/*.kdl" }
    frontend "web" {
        bind "127.0.0.1:0"
        tenants "acme" "rival" "quiet"
        deny status=410 if="admin"
        redirect location="/from/frontend" { path "/both" }
        default-backend "app"
    }
    backend "app" { server "s" "echo" }
"#;

const ACME: &str = r#"
    acl "admin" { path-prefix "/admin" }
    acl "staff" { header "x-staff" }
    deny status=451 if="admin and not staff"
    redirect location="https://new.acme.example/" if="old"
    acl "old" { path-prefix "/old" }
    return status=418 if="pot" { header "X-Of" "%{host}"; body "a pot" }
    acl "pot" { path "/pot" }
    return status=299 if="pot" { body "too late" }
    deny status=452 { path "/both" "/operator/x" "/inline" }
"#;

const RIVAL: &str = r#"
    acl "admin" { path-prefix "/secret" }
    deny status=453 if="admin"
"#;

/// Three tenants with files; `acme` is what the first one's says.
fn three(acme: &str) -> Builder {
    with_block("", acme)
}

/// The same; `block` stands in the first one's block.
fn with_block(block: &str, acme: &str) -> Builder {
    three_as_they_are(block)
        .file("tenants/acme/rules.kdl", acme)
        .file("tenants/rival/rules.kdl", RIVAL)
        .file("tenants/quiet/nothing.kdl", "")
}

async fn status(gateway: &Gateway, host: &str, path: &str) -> u16 {
    gateway.ask("web", get(path).host(host)).await.status
}

#[tokio::test]
async fn tenants_decide_for_their_own_hosts_and_behind_the_operator() {
    let gateway = three(ACME).start().await;
    for (host, path, expected) in [
        ("acme.example", "/admin/1", 451),
        ("WWW.Acme.Example:8080", "/admin/1", 451),
        ("rival.example", "/admin/1", 200),
        ("other.example", "/admin/1", 200),
        ("rival.example", "/secret", 453),
        ("acme.example", "/secret", 200),
        ("quiet.example", "/secret", 200),
        ("acme.example", "/inline", 452),
        ("acme.example", "/pot", 418),
        // Neither the acl that has the same name nor a rule that would answer keeps the operator's from holding first.
        ("acme.example", "/operator/x", 410),
        ("rival.example", "/operator/x", 410),
        ("acme.example", "/both", 302),
    ] {
        assert_eq!(status(&gateway, host, path).await, expected, "{host}{path}");
    }
    let asked = |path: &str| get(path).host("acme.example");
    let let_in = gateway.ask("web", asked("/admin/1").header("x-staff", "1")).await;
    assert_eq!(let_in.status, 200);
    let moved = gateway.ask("web", asked("/old/1")).await;
    assert_eq!(
        (moved.status, moved.header("location")),
        (302, Some("https://new.acme.example/"))
    );
    let both = gateway.ask("web", asked("/both")).await;
    assert_eq!(both.header("location"), Some("/from/frontend"));
    let pot = gateway.ask("web", asked("/pot")).await;
    assert_eq!((pot.header("x-of"), pot.text()), (Some("acme.example"), "a pot"));
}

#[tokio::test]
async fn what_a_tenant_refuses_is_logged_with_its_name_and_file_and_costs_a_call_where_it_is_its_host() {
    let gateway = three(ACME).start().await;
    for (host, path) in [
        ("acme.example", "/admin/1"),
        ("acme.example", "/pot"),
        ("acme.example", "/operator/x"),
        ("rival.example", "/secret"),
        ("quiet.example", "/"),
        ("other.example", "/"),
    ] {
        status(&gateway, host, path).await;
    }
    let config = gateway.config();
    let of_frontend = config
        .lines()
        .zip(1..)
        .find(|(line, _)| line.contains("status=410"))
        .unwrap()
        .1;
    let lines = gateway.access_log(6).await;
    for (line, (tenant, reason, rule, file)) in lines.iter().zip([
        (Some("acme"), Some("denied"), Some(4), Some("tenants/acme/rules.kdl")),
        (Some("acme"), Some("return"), Some(7), Some("tenants/acme/rules.kdl")),
        (Some("acme"), Some("denied"), Some(of_frontend), None),
        (Some("rival"), Some("denied"), Some(3), Some("tenants/rival/rules.kdl")),
        (Some("quiet"), None, None, None),
        (None, None, None, None),
    ]) {
        assert_eq!(line["tenant"].as_str(), tenant, "{line}");
        assert_eq!(line["reason"].as_str(), reason, "{line}");
        assert_eq!(line["rule"].as_u64(), rule, "{line}");
        let said = line["rule_file"].as_str();
        assert_eq!(said.is_some(), file.is_some(), "{line}");
        assert!(said.unwrap_or_default().ends_with(file.unwrap_or_default()), "{line}");
    }
    let metrics = gateway.metrics().await;
    let calls = |tenant: &str| {
        let policy = format!("acl web of {tenant}");
        let labels = [("policy", policy.as_str()), ("tenant", tenant)];
        metrics.get("gateway_policy_calls_total", &labels)
    };
    assert_eq!(
        (calls("acme"), calls("rival"), calls("quiet")),
        (Some(3.0), Some(1.0), None)
    );
    let refused = [("tenant", "acme"), ("frontend", "web"), ("code", "4xx")];
    assert_eq!(metrics.get("gateway_tenant_responses_total", &refused), Some(3.0));
}

#[tokio::test]
async fn files_ask_the_acls_of_their_tenants_block_and_come_behind_its_rules() {
    let block = r#"acl "office" { source "127.0.0.0/8" }; deny status=460 { path "/first" };"#;
    let asks = "deny status=461 if=\"office\" { path \"/first\" \"/second\" }";
    let gateway = with_block(block, asks).start().await;
    assert_eq!(status(&gateway, "acme.example", "/first").await, 460);
    assert_eq!(status(&gateway, "acme.example", "/second").await, 461);
    // What nobody asks any more stays where it is, as somebody may again.
    gateway.write("tenants/acme/rules.kdl", "");
    assert!(gateway.reload(&three_as_they_are(block)).await);
    assert_eq!(status(&gateway, "acme.example", "/second").await, 200);
}

/// Answers every request with this status.
fn answering(status: u16) -> Vec<u8> {
    guest::filter(&format!("(call $reply (i32.const {status}) (i32.const 0))"), "")
}

#[tokio::test]
async fn a_tenants_plugins_answer_its_acls_and_are_used_under_conditions() {
    let acme = r#"
        plugin "says" "says.wasm" { on-failure "deny" }
        plugin "auth" "auth.wasm" { on-failure "deny" }
        plugin "old" "old.wasm" { on-failure "deny" }
        acl "said" { plugin "says" }
        acl "admin" { path-prefix "/admin" }
        deny status=455 if="said" { path "/ask" }
        use-plugin "auth" if="admin"
        use-plugin "old" unless="admin or other"
        acl "other" { path "/other" "/ask" }
    "#;
    let gateway = three(acme)
        .file("tenants/acme/says.wasm", guest::predicates("(i64.const 1)"))
        .file("tenants/acme/auth.wasm", answering(456))
        .file("tenants/acme/old.wasm", answering(457))
        .start()
        .await;
    for (host, path, expected) in [
        ("acme.example", "/ask", 455),
        ("acme.example", "/admin", 456),
        ("acme.example", "/", 457),
        ("acme.example", "/other", 200),
        ("rival.example", "/admin", 200),
        ("rival.example", "/ask", 200),
        ("other.example", "/", 200),
    ] {
        assert_eq!(status(&gateway, host, path).await, expected, "{host}{path}");
    }
    let explained = three(acme)
        .file("tenants/acme/says.wasm", guest::predicates("(i64.const 1)"))
        .file("tenants/acme/auth.wasm", answering(456))
        .file("tenants/acme/old.wasm", answering(457))
        .check(&["--explain"])
        .stdout;
    assert!(explained.contains("frontend \"web\", acl \"acme/says\""), "{explained}");
}

#[tokio::test]
async fn a_tenants_edits_are_made_for_its_hosts_and_the_operators_have_the_last_word() {
    let config = r#"
        process { workers 1 }
        tenant "acme" { hosts "acme.example"; include "tenants/acme/*.kdl" }
        tenant "rival" { hosts "rival.example"; include "tenants/rival/*.kdl" }
        tenant "third" { hosts "third.example"; response { set-header "X-Third" "yes" } }
        frontend "web" {
            bind "127.0.0.1:0"
            tenants "acme" "rival" "third"
            acl "never" { path "/never" }
            acl "now" { path-prefix "/" }
            request { delete-header "X-Internal"; set-header "X-Never" "operator" if="never" }
            response { set-header "X-Last" "operator" if="now"; set-header "X-Hidden" "operator" if="never" }
            default-backend "app"
        }
        backend "app" { server "s" "echo" }
    "#;
    let acme = r#"
        acl "beta" { query "beta" "1" }
        request {
            set-header "X-Who" "acme at %{host}"
            set-header "X-Internal" "forged"
            add-header "X-Beta" "yes" if="beta"
            replace-header "X-Old" regex="^a+" to="b"
        }
        response {
            set-header "X-Last" "acme"
            set-header "X-Beta" "yes" if="beta"
            delete-header "X-Beta" unless="beta"
            set-header "X-Fine" "yes" if-status="200-299"
            set-header "X-Lost" "yes" if-status=404 unless="beta"
        }
    "#;
    let gateway = Gateway::kdl(config)
        .file("tenants/acme/edits.kdl", acme)
        .file("tenants/rival/edits.kdl", "request { set-header \"X-Who\" \"rival\" }")
        .start()
        .await;
    let ask = async |host: &str, path: &str| {
        let request = get(path)
            .host(host)
            .header("X-Internal", "client")
            .header("X-Old", "aaac");
        gateway.ask("web", request).await
    };
    let acme = ask("acme.example", "/?beta=1").await;
    let seen = acme.text().to_ascii_lowercase();
    for line in ["x-who: acme at acme.example", "x-beta: yes", "x-old: bc"] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
    assert!(!seen.contains("x-internal") && !seen.contains("x-never"), "{seen}");
    assert_eq!(
        (acme.header("x-last"), acme.header("x-beta"), acme.header("x-hidden")),
        (Some("operator"), Some("yes"), None)
    );
    let plain = ask("acme.example", "/").await;
    assert!(
        !plain.text().to_ascii_lowercase().contains("x-beta"),
        "{}",
        plain.text()
    );
    assert_eq!(plain.header("x-beta"), None);
    assert_eq!((plain.header("x-fine"), plain.header("x-lost")), (Some("yes"), None));
    let rival = ask("rival.example", "/?beta=1").await;
    let seen = rival.text().to_ascii_lowercase();
    assert!(seen.contains("x-who: rival") && seen.contains("x-old: aaac"), "{seen}");
    assert_eq!(
        (rival.header("x-last"), rival.header("x-beta")),
        (Some("operator"), None)
    );
    // Nothing of the request has been asked for when its response comes.
    assert_eq!(ask("third.example", "/").await.header("x-third"), Some("yes"));
    let other = ask("other.example", "/").await;
    assert_eq!(other.header("x-third"), None);
    assert!(!other.text().to_ascii_lowercase().contains("x-who"), "{}", other.text());
}

#[tokio::test]
async fn a_tenant_leads_to_its_own_backends_where_the_operator_leads_nowhere_else() {
    let config = r#"
        process { workers 1 }
        tenant "acme" { hosts "acme.example"; backends "own" "guarded"; include "tenants/acme/*.kdl" }
        tenant "rival" { hosts "rival.example"; use-backend "own" }
        frontend "web" {
            bind "127.0.0.1:0"
            tenants "acme" "rival"
            acl "first" { path "/first" }
            use-backend "special" if="first"
            default-backend "app"
        }
        backend "app" { response { set-header "X-Backend" "app" }; server "s" "echo" }
        backend "special" { response { set-header "X-Backend" "special" }; server "s" "echo" }
        backend "own" { response { set-header "X-Backend" "own" }; server "s" "echo" }
        backend "guarded" {
            acl "open" { path "/guarded/open" }
            deny status=403 unless="open"
            response { set-header "X-Backend" "guarded" if="open" }
            server "s" "echo"
        }
    "#;
    let acme = r#"
        acl "mine" { path "/first" "/mine" }
        use-backend "own" if="mine"
        use-backend "guarded" { path-prefix "/guarded/" }
    "#;
    let gateway = Gateway::kdl(config).file("tenants/acme/routes.kdl", acme).start().await;
    for (host, path, status, backend) in [
        ("acme.example", "/mine", 200, Some("own")),
        ("acme.example", "/first", 200, Some("special")),
        ("acme.example", "/", 200, Some("app")),
        // What the backend decides it decides whoever leads there.
        ("acme.example", "/guarded/open", 200, Some("guarded")),
        ("acme.example", "/guarded/shut", 403, None),
        ("rival.example", "/", 200, Some("own")),
        ("rival.example", "/first", 200, Some("special")),
        ("other.example", "/mine", 200, Some("app")),
        ("other.example", "/guarded/shut", 200, Some("app")),
    ] {
        let answer = gateway.ask("web", get(path).host(host)).await;
        assert_eq!(
            (answer.status, answer.header("x-backend")),
            (status, backend),
            "{host}{path}"
        );
    }
}

/// A component that fails is the tenant's trouble: what could not be asked lets nobody in.
#[tokio::test]
async fn an_acl_of_a_tenants_that_cannot_be_asked_refuses_its_requests_and_no_others() {
    let acme = r#"
        plugin "says" "says.wasm" { on-failure "deny" status=507 }
        acl "said" { plugin "says" }
        deny status=455 unless="said"
    "#;
    let gateway = three(acme)
        .file("tenants/acme/says.wasm", guest::predicates("unreachable"))
        .start()
        .await;
    assert_eq!(status(&gateway, "acme.example", "/").await, 507);
    assert_eq!(status(&gateway, "rival.example", "/").await, 200);
    assert_eq!(status(&gateway, "rival.example", "/secret").await, 453);
}

#[tokio::test]
async fn rules_that_are_at_fault_leave_those_before_in_place_and_everybody_elses_go_live() {
    let quota = "quota patterns=10000;";
    let gateway = with_block(quota, ACME).start().await;
    let heavy: String = (0..300).map(|i| format!(" \"{i}[a-z]{{3000}}\"")).collect();
    let heavy = format!("deny {{ path-regex{heavy} }}");
    let faults = [
        (
            "too much for the component",
            heavy.as_str(),
            "the gateway's own component acl web of acme",
        ),
        ("no acl of this name", "deny if=\"nobody\"", "there is no acl"),
        (
            "another's acl",
            "acl \"mine\" { path \"/\" }\ndeny if=\"secret and mine\"",
            "there is no acl \"secret\"",
        ),
        (
            "not a tenant's",
            "default-backend \"app\"",
            "a tenant's file has no `default-backend`",
        ),
        (
            "too large when it is made ready",
            "deny { path-regex \"(a|b){9000}\" }",
            "too large when compiled",
        ),
    ];
    for (n, (what, broken, says)) in (0u16..).zip(faults) {
        let next = 460 + n;
        gateway.write("tenants/acme/rules.kdl", broken);
        gateway.write("tenants/rival/rules.kdl", RIVAL.replace("453", &next.to_string()));
        assert!(gateway.reload(&three_as_they_are(quota)).await, "{what}");
        assert_eq!(status(&gateway, "acme.example", "/admin").await, 451, "{what}");
        assert_eq!(status(&gateway, "rival.example", "/secret").await, next, "{what}");
        gateway.says(says).await;
    }
    gateway.write("tenants/acme/rules.kdl", "deny status=470 { path \"/admin\" }");
    assert!(gateway.reload(&three_as_they_are(quota)).await);
    assert_eq!(status(&gateway, "acme.example", "/admin").await, 470);
    // With nothing to go on with, its hosts alone are closed.
    let gateway = three("deny if=\"nobody\"").start().await;
    assert_eq!(status(&gateway, "acme.example", "/").await, 503);
    assert_eq!(status(&gateway, "rival.example", "/secret").await, 453);
}

#[tokio::test]
async fn a_tenants_edits_that_are_always_made_are_of_what_the_gateway_answers_for_its_hosts() {
    let (nobody, _guard) = gateway_tests::refusing();
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        tenant "acme" { hosts "acme.example"; include "tenants/acme/*.kdl" }
        tenant "rival" { hosts "rival.example"; include "tenants/rival/*.kdl" }
        frontend "web" {
            bind "127.0.0.1:0"
            tenants "acme" "rival"
            deny status=410 { path-prefix "/operator" }
            response { set-header "X-Of" "operator" always }
            use-backend "down" { path-prefix "/down" }
            default-backend "app"
        }
        backend "app" { deny status=411 { path-prefix "/backend" }; server "s" "echo" }
        backend "down" { retries 0; server "s" "@nobody" }
    "#,
    )
    .with("@nobody", nobody)
    .file(
        "tenants/acme/rules.kdl",
        r#"
        acl "api" { path-suffix "/api" }
        acl "pot" { path "/pot" }
        return status=418 if="pot" { body "a pot" }
        response {
            set-header "X-Acme" "%{path} %{status}" always
            set-header "X-Of" "acme" always
            set-header "X-Api" "yes" always if="api"
            set-header "X-Fault" "yes" always if-status="500-599"
            set-header "X-Server" "yes"
        }
    "#,
    )
    .file(
        "tenants/rival/rules.kdl",
        r#"acl "pot" { path "/pot" }; return status=418 if="pot" { body "a pot" }"#,
    )
    .start()
    .await;
    for (host, path, status, [acme, api, fault, server]) in [
        (
            "acme.example",
            "/down/api",
            503,
            [Some("/down/api 503"), Some("yes"), Some("yes"), None],
        ),
        ("acme.example", "/pot", 418, [Some("/pot 418"), None, None, None]),
        ("acme.example", "/x", 200, [Some("/x 200"), None, None, Some("yes")]),
        // What the operator has decided stays as it is.
        ("acme.example", "/operator/api", 410, [None; 4]),
        ("acme.example", "/backend/api", 411, [None; 4]),
        ("rival.example", "/down/api", 503, [None; 4]),
        ("rival.example", "/pot", 418, [None; 4]),
        ("other.example", "/down/api", 503, [None; 4]),
    ] {
        let answer = gateway.ask("web", get(path).host(host)).await;
        assert_eq!(answer.status, status, "{host}{path}");
        let has = ["x-acme", "x-api", "x-fault", "x-server"].map(|name| answer.header(name));
        assert_eq!(has, [acme, api, fault, server], "{host}{path}");
        assert_eq!(answer.header("x-of"), Some("operator"), "{host}{path}");
    }
}

#[tokio::test]
async fn a_tenants_plugin_with_always_has_no_say_in_what_the_operators_rules_and_plugins_answer() {
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        plugin "browsers" builtin="cors" { limit cpu="1s"; on-failure "deny"; config { origin "https://app.example" } }
        tenant "acme" {
            hosts "acme.example"
            plugin "marks" builtin="security-headers" { limit cpu="1s"; on-failure "deny" }
            plugin "keys" builtin="api-key" {
                limit cpu="1s"; on-failure "deny"
                config { client name="ada" sha256="4a3057fd3371720d01f5d351fecab0d7948fd22e15a5c2c2b92b0b2696d3eeca" }
            }
            acl "keyed" { path-prefix "/keyed" }
            acl "pot" { path "/pot" }
            return status=418 if="pot" { body "a pot" }
            use-plugin "marks" always
            use-plugin "keys" if="keyed"
        }
        frontend "web" {
            bind "127.0.0.1:0"
            tenants "acme"
            deny status=410 { path-prefix "/operator" }
            use-plugin "browsers"
            use-backend "app" { path "/x" }
            use-backend "app" { path-prefix "/keyed" }
            use-backend "app" { method "OPTIONS" }
        }
        backend "app" { server "s" "echo" }
    "#,
    )
    .start()
    .await;
    for (host, path, status, is_marked) in [
        ("acme.example", "/x", 200, true),
        ("acme.example", "/pot", 418, true),
        ("acme.example", "/nowhere", 404, true),
        ("acme.example", "/keyed", 401, true),
        ("acme.example", "/operator", 410, false),
        ("other.example", "/nowhere", 404, false),
    ] {
        let answer = gateway.ask("web", get(path).host(host)).await;
        let marked = answer.header("x-content-type-options").is_some();
        assert_eq!((answer.status, marked), (status, is_marked), "{host}{path}");
    }
    let preflight = method("OPTIONS", "/x").host("acme.example");
    let preflight = preflight.header("Origin", "https://app.example");
    let preflight = preflight.header("Access-Control-Request-Method", "GET");
    let answer = gateway.ask("web", preflight).await;
    assert_eq!((answer.status, answer.header("x-content-type-options")), (204, None));
}

/// The configuration alone: files stay as they lie there.
fn three_as_they_are(acme_block: &str) -> Builder {
    Gateway::kdl(CONFIG).with("@acme", acme_block)
}

#[tokio::test]
async fn a_tenants_redirects_take_parts_of_the_path_along() {
    let gateway = three(
        r#"
        redirect regex="^/old/(.*)$" location="https://acme.example/new/$1" code=301
        redirect regex="^/operator/(.*)$" location="/mine/$1"
        deny status=452 { path-prefix "/old" }
        "#,
    )
    .start()
    .await;
    let answer = gateway.ask("web", get("/old/a?b").host("acme.example")).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (301, Some("https://acme.example/new/a"))
    );
    assert_eq!(status(&gateway, "acme.example", "/old").await, 452);
    // The operator's word goes first, and nobody else's hosts are led anywhere.
    assert_eq!(status(&gateway, "acme.example", "/operator/x").await, 410);
    assert_eq!(status(&gateway, "rival.example", "/old/a").await, 200);
}

#[tokio::test]
async fn a_tenant_has_no_more_rules_than_its_quota() {
    let acls = |n: usize| -> String {
        let acls = (0..n).map(|i| format!("acl \"a{i}\" {{ path \"/{i}\" }}\ndeny if=\"a{i}\"\n"));
        acls.collect()
    };
    for (quota, text, words) in [
        ("", acls(65), "rules.kdl:129:1 this tenant has at most 64 acls"),
        ("quota acls=2;", acls(3), "rules.kdl:5:1 this tenant has at most 2 acls"),
        (
            "quota rules=2;",
            acls(3),
            "rules.kdl:6:1 this tenant has at most 2 rules",
        ),
        (
            "quota acls=2;",
            "acl \"a\" { path \"/\" }\ndeny if=\"a\" { path \"/1\" }\ndeny if=\"a\" { path \"/2\" }".to_owned(),
            "rules.kdl:3:1 this tenant decides by more than its `quota acls=2`",
        ),
        (
            "quota patterns=5;",
            "acl \"a\" { path \"/\" \"/1\" \"/2\" \"/3\" \"/4\" }\ndeny if=\"a\"".to_owned(),
            "rules.kdl:2:1 this tenant decides by more than its `quota patterns=5`",
        ),
        (
            "quota patterns=25;",
            "deny { path-regex \"a\" \"b\" \"c\" }".to_owned(),
            "rules.kdl:1:27 this tenant has at most 2 regular expressions",
        ),
        (
            "quota patterns=10;",
            "redirect regex=\"^/a/(.*)$\" location=\"/b/$1\"".to_owned(),
            "rules.kdl:1:1 this tenant decides by more than its `quota patterns=10`",
        ),
        (
            "quota rules=2;",
            "deny { path \"/1\" }\nrequest { delete-header \"a\"; delete-header \"b\" }".to_owned(),
            "rules.kdl:2:1 this tenant decides by more than its `quota rules=2`",
        ),
        // What it decides of connections is among them.
        (
            "quota acls=2;",
            "acl \"a\" { path \"/\" }\ndeny if=\"a\"\nconnection {\n    acl \"b\" { source \"192.0.2.1\" }\n    \
             acl \"c\" { source \"192.0.2.2\" }\n    deny if=\"b or c\"\n}"
                .to_owned(),
            "rules.kdl:5:5 this tenant decides by more than its `quota acls=2`",
        ),
        (
            "quota rules=2;",
            "deny { path \"/1\" }\ndeny { path \"/2\" }\nconnection {\n    deny { source \"192.0.2.1\" }\n}".to_owned(),
            "rules.kdl:4:5 this tenant decides by more than its `quota rules=2`",
        ),
    ] {
        let checked = with_block(quota, &text).check(&["--format", "json"]);
        let report: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
        let first = &report["errors"][0];
        let file = first["file"].as_str().unwrap_or_default();
        let said = format!(
            "{}:{}:{} {}",
            file.rsplit('/').next().unwrap_or_default(),
            first["line"],
            first["column"],
            first["message"].as_str().unwrap_or_default()
        );
        assert_eq!(said, words, "{}", checked.stdout);
        let help = first["help"].as_str().unwrap_or_default();
        assert!(help.contains("let the operator allow more with `quota "), "{help}");
    }
    let more = with_block("quota acls=65;", &acls(65)).start().await;
    // Answered by two calls.
    assert_eq!(status(&more, "acme.example", "/0").await, 403);
    assert_eq!(status(&more, "acme.example", "/64").await, 403);
    assert_eq!(status(&more, "acme.example", "/65").await, 200);
}

/// Servers believe these fields, and take what stands there for the word of a proxy that is trusted.
#[tokio::test]
async fn what_a_tenant_or_a_plugin_writes_is_not_taken_for_a_trusted_proxys_word() {
    let app = HttpServer::answering("").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        plugin "host" builtin="request-id" { limit cpu="1s"; on-failure "deny"; config { header "x-forwarded-host"; respond #false } }
        tenant "acme" { hosts "acme.example"; limit cpu="1s"; include "tenants/acme/*.kdl" }
        frontend "web" {
            bind "127.0.0.1:0"
            tenants "acme"
            trusted-proxies "127.0.0.0/8"
            forwarded-for header="X-Client" if-none
            forwarded-headers "x-forwarded-host" "x-real-ip"
            request-id header="X-Number" incoming="never" response
            use-plugin "host"
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file(
        "tenants/acme/rules.kdl",
        r#"
        acl "removes" { path "/removes" }
        plugin "ip" builtin="request-id" { limit cpu="1s"; on-failure "deny"; config { header "x-real-ip"; respond #false } }
        use-plugin "ip"
        request {
            set-header "X-Client" "forged" unless="removes"
            set-header "X_Client" "forged" unless="removes"
            set-header "X-Number" "forged" unless="removes"
            set-header "X-Own" "mine"
            delete-header "X-Client" if="removes"
            delete-header "X-Number" if="removes"
        }
    "#,
    )
    .start()
    .await;
    for (path, said) in [("/", None), ("/removes", Some("203.0.113.9"))] {
        let mut request = get(path).host("acme.example").header("X-Number", "a client's");
        if let Some(said) = said {
            request = request
                .header("X-Client", said)
                .header("X-Forwarded-Host", "shop.example");
        }
        let answer = gateway.ask("web", request).await;
        let headers = app.last().headers;
        let seen = |name: &str| headers.all(name).collect::<Vec<_>>().join(", ");
        assert_eq!(seen("x-own"), "mine");
        assert_eq!(seen("x-client"), said.unwrap_or("127.0.0.1"));
        assert_eq!(seen("x_client"), "");
        assert_eq!(
            seen("x-forwarded-host"),
            said.map_or("acme.example", |_| "shop.example")
        );
        assert_eq!(seen("x-real-ip"), "127.0.0.1");
        assert_eq!(Some(seen("x-number").as_str()), answer.header("x-number"));
        assert_eq!(seen("x-number").len(), 36);
    }
    let lines = gateway.access_log(2).await;
    let last = app.last().headers;
    assert_eq!(
        lines[1]["request_id"].as_str(),
        last.all("x-number").next(),
        "{}",
        lines[1]
    );
}

#[tokio::test]
async fn what_the_operator_decides_holds_where_a_tenants_acls_cannot_be_asked() {
    let config = r#"
        process { workers 1; log "stdout" format="json" }
        rate-limit "few" { key "header" "x-user"; allow "1/d" }
        tenant "acme" { hosts "acme.example"; include "tenants/acme/*.kdl" }
        frontend "web" {
            bind "127.0.0.1:0"
            tenants "acme"
            acl "quiet" { path "/quiet" }
            access-log unless="quiet"
            limit "few"
            deny status=410 { path "/operator" }
            default-backend "app"
        }
        backend "app" { server "s" "echo" }
    "#;
    let acme = r#"
        plugin "says" "says.wasm" { on-failure "deny" status=507 }
        acl "said" { plugin "says" }
        deny status=455 if="said"
    "#;
    let gateway = Gateway::kdl(config)
        .file("tenants/acme/rules.kdl", acme)
        .file("tenants/acme/says.wasm", guest::predicates("unreachable"))
        .start()
        .await;
    let asked = async |path: &str, user: &str| {
        let request = get(path).host("acme.example").header("X-User", user);
        gateway.ask("web", request).await.status
    };
    assert_eq!(asked("/operator", "1").await, 410);
    assert_eq!(asked("/quiet", "2").await, 507);
    assert_eq!(asked("/", "3").await, 507);
    // It has taken its token, too.
    assert_eq!(asked("/", "3").await, 429);
    let lines = gateway.access_log(3).await;
    let paths: Vec<_> = lines
        .iter()
        .map(|line| line["target"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(paths, ["/operator", "/", "/"], "{lines:?}");
}

#[tokio::test]
async fn edits_in_all_blocks_of_a_tenants_are_no_more_than_one_call_makes() {
    let edits = |file: usize, n: usize| -> String {
        let edits = (0..n).map(|i| format!("delete-header \"X-{file}-{i}\"\n"));
        format!("request {{\n{}}}\n", edits.collect::<String>())
    };
    let with = |last: &str| {
        Gateway::kdl(CONFIG)
            .with("@acme", "quota rules=1000;")
            .file("tenants/acme/1.kdl", edits(1, 60))
            .file("tenants/acme/2.kdl", edits(2, 60))
            .file("tenants/acme/3.kdl", last)
            .file("tenants/rival/rules.kdl", RIVAL)
            .file("tenants/quiet/nothing.kdl", "")
    };
    let report: serde_json::Value =
        serde_json::from_str(&with(&edits(3, 1)).check(&["--format", "json"]).stdout).unwrap();
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{report}");
    assert_eq!(
        errors[0]["message"],
        "this tenant has at most 120 edits in all its `request`"
    );
    assert!(
        errors[0]["file"].as_str().unwrap_or_default().ends_with("acme/3.kdl"),
        "{report}"
    );
    let gateway = with("").start().await;
    let request = get("/").host("acme.example").header("X-1-0", "1").header("X-2-59", "1");
    let answer = gateway.ask("web", request.header("X-3-0", "1")).await;
    let seen = answer.text().to_ascii_lowercase();
    assert!(answer.status == 200 && seen.contains("x-3-0"), "{seen}");
    assert!(!seen.contains("x-1-0") && !seen.contains("x-2-59"), "{seen}");
}

#[test]
fn a_tenant_does_not_name_the_fields_that_tell_of_clients_or_of_tls() {
    let fine = r#"
        return status=418 if="pot" { header "X-Forwarded-Host" "fine" }
        acl "pot" { path "/pot" }
        request { set-header "Strict-Transport-Security" "fine" }
        response { set-header "X-Real-IP" "fine" }
    "#;
    let check = |text: &str| {
        let checked = three(text).check(&["--format", "json"]);
        let report: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
        let errors = report["errors"].as_array().unwrap().clone();
        let messages = errors
            .iter()
            .map(|error| error["message"].as_str().unwrap_or_default().to_owned());
        messages.collect::<Vec<_>>()
    };
    assert!(check(fine).is_empty());
    for (text, name) in [
        (
            "request { set-header \"X-Forwarded-Proto\" \"https\" }",
            "x-forwarded-proto",
        ),
        ("request { delete-header \"x_real_ip\" }", "x_real_ip"),
        ("request { add-header \"Forwarded\" \"for=10.0.0.1\" }", "forwarded"),
        (
            "response { delete-header \"Strict-Transport-Security\" }",
            "strict-transport-security",
        ),
        (
            "return status=418 { header \"Strict-Transport-Security\" \"max-age=0\" }",
            "strict-transport-security",
        ),
    ] {
        let said = check(text);
        assert_eq!(said.len(), 1, "{text}: {said:?}");
        assert!(
            said[0].starts_with("a tenant does not ") && said[0].contains(name),
            "{said:?}"
        );
    }
}

/// Each condition is compared with those before it: a text that says thousands of them is refused without that.
#[test]
fn a_block_with_a_great_many_conditions_is_refused_and_not_compared_with_itself() {
    let acls: String = (0..64).map(|i| format!("acl \"a{i}\" {{ path \"/{i}\" }}\n")).collect();
    let pairs = (0..64).flat_map(|one| (one + 1..64).map(move |other| (one, other)));
    let edits: String = pairs
        .map(|(one, other)| format!("add-header \"a\" \"1\" if=\"a{one} and a{other}\"\n"))
        .collect();
    let checked = Gateway::kdl(CONFIG)
        .with("@acme", "quota patterns=100000 rules=10000;")
        .file("tenants/acme/rules.kdl", format!("{acls}request {{\n{edits}}}\n"))
        .file("tenants/rival/rules.kdl", RIVAL)
        .file("tenants/quiet/nothing.kdl", "")
        .check(&["--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{report}");
    assert_eq!(errors[0]["message"], "a block has at most 60 edits");
}

/// What two tenants may lead to is one frontend's acls: too many of them are found when the operator writes it, not when a tenant does.
#[test]
fn how_many_acls_a_frontend_has_is_the_operators_whatever_files_of_tenants_lead_to() {
    let backend = |name: &str, n: usize| {
        let acls = (0..n).map(|i| format!("acl \"a{i}\" {{ path \"/{i}\" }}; deny if=\"a{i}\"\n"));
        let acls: String = acls.collect();
        format!("backend \"{name}\" {{\n{acls}server \"s\" \"echo\" }}\n")
    };
    let check = |large: usize, rival: &str| {
        let config = format!(
            r#"
            tenant "acme" {{ hosts "acme.example"; backends "big"; include "tenants/acme/*.kdl" }}
            tenant "rival" {{ hosts "rival.example"; backends "large"; include "tenants/rival/*.kdl" }}
            frontend "web" {{ bind "127.0.0.1:0"; tenants "acme" "rival"; default-backend "app" }}
            backend "app" {{ server "s" "echo" }}
            {}{}"#,
            backend("big", 200),
            backend("large", large)
        );
        let checked = Gateway::kdl(&config)
            .file("tenants/acme/routes.kdl", "use-backend \"big\"")
            .file("tenants/rival/routes.kdl", rival)
            .check(&["--format", "json"]);
        let report: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
        report["errors"].as_array().unwrap().clone()
    };
    for rival in ["", "use-backend \"large\""] {
        let errors = check(100, rival);
        assert_eq!(errors.len(), 1, "{errors:?}");
        let message = errors[0]["message"].as_str().unwrap_or_default();
        assert!(message.contains("at most 256 acls together"), "{errors:?}");
        assert!(!errors[0].to_string().contains("routes.kdl"), "{errors:?}");
        assert!(check(56, rival).is_empty());
    }
}

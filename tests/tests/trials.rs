//! Plugins that acls and limits go by and that are on trial: canaries decide for a part of the requests, shadows for none. And what
//! one use of a plugin in an acl may use.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::guest;
use gateway_tests::{Gateway, get};

/// Holds where this is 1.
fn saying(answer: u64) -> Vec<u8> {
    guest::predicates(&format!("(i64.const {answer})"))
}

#[tokio::test]
async fn a_canary_of_an_acl_decides_about_its_share_in_the_place_of_the_other() {
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        plugin "old" "old.wasm" { on-failure "deny" }
        plugin "new" "new.wasm" { on-failure "deny" }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "tried" { plugin "old"; plugin "new" canary="20%" }
            acl "settled" { plugin "old" predicate="p" }
            deny status=451 if="settled and tried"
            deny status=452 if="settled"
            default-backend "app"
        }
        backend "app" { server "s" "echo" }
    "#,
    )
    .file("old.wasm", saying(1))
    .file("new.wasm", saying(0))
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    let (mut old, mut new) = (0, 0);
    for _ in 0..2_000 {
        match client.ask(get("/")).await.status {
            451 => old += 1,
            452 => new += 1,
            status => panic!("{status}: the acl that tries nothing does not hold"),
        }
    }
    // Ten standard deviations: never by chance.
    assert!((220..580).contains(&new), "{old} and {new}");
    // Nobody is asked who has no say.
    gateway
        .metric_is("gateway_policy_calls_total", &[("policy", "new")], f64::from(new))
        .await;
    let calls = f64::from(2_000 + old);
    gateway
        .metric_is("gateway_policy_calls_total", &[("policy", "old")], calls)
        .await;
}

#[tokio::test]
async fn a_shadow_of_an_acl_is_asked_and_the_other_one_obeyed() {
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        plugin "yes" "yes.wasm" { on-failure "deny" }
        plugin "no" "no.wasm" { on-failure "deny" }
        plugin "again" "yes.wasm" { on-failure "deny" }
        plugin "failing" "failing.wasm" { on-failure "deny" status=507 }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "a" { plugin "no" shadow; plugin "yes" }
            acl "b" { plugin "yes"; plugin "no" shadow }
            acl "c" { plugin "yes"; plugin "again" shadow }
            acl "d" { plugin "yes"; plugin "failing" shadow }
            acl "e" { path "/" }
            deny status=451 if="a and b and c and d and e"
            default-backend "app"
        }
        tenant "acme" {
            hosts "acme.example"
            plugin "yes" "yes.wasm" { on-failure "deny" }
            plugin "no" "no.wasm" { on-failure "deny" }
            acl "blocked" { plugin "no"; plugin "yes" shadow }
            deny status=452 if="blocked"
        }
        frontend "of-tenants" { bind "127.0.0.1:0"; tenants "acme"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .file("yes.wasm", saying(1))
    .file("no.wasm", saying(0))
    .file("failing.wasm", guest::predicates("(unreachable)"))
    .start()
    .await;
    for _ in 0..2 {
        assert_eq!(gateway.ask("web", get("/")).await.status, 451);
    }
    let ask = async |host: &str| gateway.ask("of-tenants", get("/").host(host)).await.status;
    assert_eq!((ask("acme.example").await, ask("other.example").await), (200, 200));
    for (plugin, differences) in [("no", 2.0), ("again", 0.0), ("failing", 0.0), ("acme/yes", 1.0)] {
        let name = "gateway_policy_shadow_differences_total";
        gateway.metric_is(name, &[("policy", plugin)], differences).await;
    }
    let failed = [("policy", "failing"), ("kind", "trap")];
    gateway.metric_is("gateway_policy_failures_total", &failed, 2.0).await;
    // One call answers for both acls that it is tried for.
    gateway
        .says(r#"shadow: would have acl \"a\" not hold, acl \"b\" not hold"#)
        .await;
    gateway.says(r#"shadow: would have acl \"blocked\" hold"#).await;
}

#[tokio::test]
async fn limits_of_a_plugin_on_trial() {
    let limiting = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/dist/rate-limit.wasm");
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        plugin "tried" "limiting.wasm" { grant "buckets"; on-failure "deny"; @config }
        plugin "watched" "limiting.wasm" { grant "buckets"; on-failure "deny"; @config }
        frontend "canary" { bind "127.0.0.1:0"; use-plugin "tried" canary="50%"; default-backend "app" }
        frontend "shadow" { bind "127.0.0.1:0"; use-plugin "watched" shadow; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .with(
        "@config",
        r#"config { limits { - name="all" tokens=1 period-ms=86400000 burst=1 { key { - { client-ip ipv4-prefix=32 ipv6-prefix=64 } } } } }"#,
    )
    .file("limiting.wasm", std::fs::read(limiting).unwrap())
    .start()
    .await;
    let refused = async |frontend: &str, requests: u32| {
        let mut client = gateway.connect(frontend).await;
        let mut refused = 0;
        for _ in 0..requests {
            refused += u32::from(client.ask(get("/")).await.status == 429);
        }
        refused
    };
    // Ten standard deviations of what a half is.
    let of_canary = refused("canary", 400).await;
    assert!((99..300).contains(&of_canary), "{of_canary}");
    assert_eq!(refused("shadow", 4).await, 0);
    let name = "gateway_policy_shadow_differences_total";
    gateway.metric_is(name, &[("policy", "watched")], 3.0).await;
}

#[tokio::test]
async fn a_plugin_that_an_acl_asks_has_the_limits_of_that_use() {
    // With what it has at the beginning, 384 KiB.
    let grows = "(if (i32.eq (memory.grow (i32.const 4)) (i32.const -1)) (then (unreachable))) (i64.const 1)";
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        plugin "grows" "grows.wasm" { limit memory="1MiB"; on-failure "deny" status=507 }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "one" { plugin "grows" }
            acl "same" { plugin "grows" predicate="p" }
            deny status=418 if="one and same"
            default-backend "app"
        }
        frontend "less" {
            bind "127.0.0.1:0"
            acl "less" { plugin "grows" { limit memory="256KiB" cpu="5ms" instances=4 } }
            deny status=418 if="less"
            default-backend "app"
        }
        backend "app" { server "s" "echo" }
    "#,
    )
    .file("grows.wasm", guest::predicates(grows))
    .start()
    .await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 418);
    let labels = [("policy", "grows")];
    gateway.metric_is("gateway_policy_calls_total", &labels, 1.0).await;
    assert_eq!(gateway.ask("less", get("/")).await.status, 507);
    let labels = [("policy", "grows"), ("kind", "memory")];
    gateway.metric_is("gateway_policy_failures_total", &labels, 1.0).await;
}

#[tokio::test]
async fn a_shadow_that_would_never_be_asked_is_refused() {
    let facts = guest::FACTS;
    let of_bodies = guest::exporting(
        &["request-body-filter"],
        "(i32.const 256)",
        &format!(
            r#"(func (export "gateway:policy/request-body-filter@0.1.0#on-request-body") {facts} (result i32) (call $none))
            (func (export "gateway:policy/request-body-filter@0.1.0#on-request-piece")
                (param i32 i32 i32 i32 i32) (result i32) (i32.const 3100))"#
        ),
    );
    let of_ends = guest::exporting(
        &["access-log"],
        "(i32.const 256)",
        &format!(r#"(func (export "gateway:policy/access-log@0.1.0#on-log") {facts})"#),
    );
    let checked = Gateway::kdl(
        r#"
        plugin "bodies" "bodies.wasm" { on-failure "deny" }
        plugin "ends" "ends.wasm" { on-failure "deny" }
        frontend "web" { bind "127.0.0.1:0"
            use-plugin "bodies" shadow
            use-plugin "ends" shadow
            default-backend "app"
        }
        frontend "canary" { bind "127.0.0.1:0"
            use-plugin "bodies" canary="5%"
            use-plugin "ends" canary="5%"
            default-backend "app"
        }
        backend "app" { server "s" "echo" }
    "#,
    )
    .file("bodies.wasm", of_bodies)
    .file("ends.wasm", of_ends)
    .check(&[]);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    for said in [
        "plugin \"bodies\" has no hook that a shadow is asked by",
        "canary=\"5%\"",
        "plugin \"ends\" has no hook that a shadow is asked by",
        "leave `shadow` out",
        "2 errors",
    ] {
        assert!(checked.stdout.contains(said), "{said}: {}", checked.stdout);
    }
}

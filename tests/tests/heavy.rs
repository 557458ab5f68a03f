//! Plugins that are heavy by nature, or were found to be slow, and run beside the workers: what they do to others, and what others do to them.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::guest;
use gateway_tests::{Gateway, HttpServer, RequestText, eventually, get};

/// Works for a good while (half a second or more) and lets the request go on.
const WORKS: &str = "(local $i i32) (local.set $i (i32.const 600000000))
    (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1))))) (call $none)";

/// The same as a predicate that holds.
const FINDS_OUT: &str = "(local $i i32) (local.set $i (i32.const 600000000))
    (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1))))) (i64.const 1)";

#[tokio::test]
async fn while_a_heavy_plugin_works_its_worker_serves_others() {
    let app = HttpServer::answering("app").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        plugin "filter" "filter.wasm" { heavy wait="60s"; limit cpu="10s"; on-failure "deny" status=503 }
        plugin "predicate" "predicate.wasm" { heavy wait="60s"; limit cpu="10s"; on-failure "deny" status=503 }
        plugin "limiter" "limiter.wasm" { heavy wait="60s"; limit cpu="10s"; on-failure "deny" status=503 }
        frontend "filter" { bind "127.0.0.1:0"; use-plugin "filter"; default-backend "app" }
        frontend "predicate" {
            bind "127.0.0.1:0"
            acl "found" { plugin "predicate" predicate="p" }
            deny status=418 if="found"
            default-backend "app"
        }
        frontend "limiter" { bind "127.0.0.1:0"; use-plugin "limiter"; default-backend "app" }
        frontend "neighbour" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("filter.wasm", guest::filter(WORKS, ""))
    .file("predicate.wasm", guest::predicates(FINDS_OUT))
    .file("limiter.wasm", guest::limiter(WORKS))
    .start()
    .await;
    for (n, (frontend, status)) in [("filter", 200), ("predicate", 418), ("limiter", 200)]
        .into_iter()
        .enumerate()
    {
        let (slow, ()) = tokio::join!(gateway.ask(frontend, get("/slow")), async {
            // Not before the plugin has begun with it.
            gateway
                .metric_is("gateway_policy_calls_total", &[("policy", frontend)], 1.0)
                .await;
            for _ in 0..5 {
                assert_eq!(gateway.ask("neighbour", get("/quick")).await.status, 200);
            }
        });
        assert_eq!(slow.status, status, "{frontend}");
        // Lines stand in the order in which exchanges ended.
        let lines = gateway.access_log(6 * (n + 1)).await;
        let last: Vec<_> = lines[6 * n..]
            .iter()
            .map(|line| line["frontend"].as_str().unwrap())
            .collect();
        assert_eq!(last[..5], ["neighbour"; 5], "{frontend}: {last:?}");
        assert_eq!(last[5], frontend);
    }
}

#[tokio::test]
async fn more_than_may_wait_get_their_verdict_at_once_and_what_waits_too_long_gets_it_then() {
    let app = HttpServer::answering("app").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        plugin "few" "loop.wasm" { heavy queue=1 wait="60s"; limit cpu="1s"; on-failure "deny" status=503 }
        plugin "short" "loop.wasm" { heavy wait="20ms"; limit cpu="1s"; on-failure "deny" status=503 }
        frontend "few" { bind "127.0.0.1:0"; use-plugin "few"; default-backend "app" }
        frontend "short" { bind "127.0.0.1:0"; use-plugin "short"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("loop.wasm", guest::filter("(call $loop) (call $none)", ""))
    .start()
    .await;
    let failures = |policy, kind, count| {
        let gateway = &gateway;
        async move {
            let labels = [("policy", policy), ("kind", kind)];
            gateway.metric_is("gateway_policy_failures_total", &labels, count).await;
        }
    };
    // One is called, one waits; the third may not.
    let first = gateway.ask("few", get("/"));
    let others = async {
        gateway
            .metric_is("gateway_policy_calls_total", &[("policy", "few")], 1.0)
            .await;
        let second = gateway.ask("few", get("/"));
        let third = async {
            gateway
                .metric_is("gateway_policy_waiting", &[("policy", "few")], 1.0)
                .await;
            let third = gateway.ask("few", get("/")).await;
            failures("few", "quota", 1.0).await;
            third
        };
        let (second, third) = tokio::join!(second, third);
        [second.status, third.status]
    };
    let (first, others) = tokio::join!(first, others);
    assert_eq!((first.status, others), (503, [503; 2]));
    failures("few", "deadline", 2.0).await;
    gateway
        .metric_is("gateway_policy_waiting", &[("policy", "few")], 0.0)
        .await;
    gateway.says("no thread has had time for it").await;

    let first = gateway.ask("short", get("/"));
    let second = async {
        gateway
            .metric_is("gateway_policy_calls_total", &[("policy", "short")], 1.0)
            .await;
        gateway.ask("short", get("/")).await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.status, second.status), (503, 503));
    failures("short", "quota", 1.0).await;
    failures("short", "deadline", 1.0).await;
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn who_sends_much_waits_behind_himself_and_tenants_take_turns() {
    let app = HttpServer::answering("app").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        tenant "loud" { hosts "loud.example"; plugin "own" "own.wasm" { heavy wait="60s"; limit cpu="10s"; on-failure "deny" status=503 }; use-plugin "own" }
        tenant "quiet" { hosts "quiet.example"; plugin "own" "own.wasm" { heavy wait="60s"; limit cpu="10s"; on-failure "deny" status=503 }; use-plugin "own" }
        frontend "web" { bind "127.0.0.1:0"; tenants "loud" "quiet"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("own.wasm", guest::filter(&WORKS.replace("600000000", "30000000"), ""))
    .start()
    .await;
    let loud = || gateway.ask("web", get("/loud").host("loud.example"));
    let quiet = async {
        gateway
            .metric_is("gateway_policy_waiting", &[("policy", "loud/own")], 4.0)
            .await;
        gateway.ask("web", get("/quiet").host("quiet.example")).await
    };
    let all = tokio::join!(loud(), loud(), loud(), loud(), loud(), quiet);
    assert_eq!((all.0.status, all.5.status), (200, 200));
    let lines = gateway.access_log(6).await;
    let order: Vec<_> = lines.iter().map(|line| line["target"].as_str().unwrap()).collect();
    let place = order.iter().position(|path| *path == "/quiet").unwrap();
    // One had begun, and at most one more may stand in front of it.
    assert!(place <= 2, "{order:?}");
}

#[tokio::test]
async fn who_leaves_while_his_call_waits_has_it_not_made() {
    let app = HttpServer::answering("app").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        plugin "heavy" "heavy.wasm" { heavy wait="60s"; limit cpu="10s"; on-failure "deny" status=503 }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "heavy"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("heavy.wasm", guest::filter(WORKS, ""))
    .start()
    .await;
    let waiting = |count| gateway.metric_is("gateway_policy_waiting", &[("policy", "heavy")], count);
    let (first, ()) = tokio::join!(gateway.ask("web", get("/")), async {
        gateway
            .metric_is("gateway_policy_calls_total", &[("policy", "heavy")], 1.0)
            .await;
        let mut leaves = gateway.connect("web").await;
        leaves.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        waiting(1.0).await;
        leaves.reset();
        waiting(0.0).await;
    });
    assert_eq!(first.status, 200);
    assert_eq!(gateway.ask("web", get("/")).await.status, 200);
    // Two requests and their responses.
    gateway
        .metric_is("gateway_policy_calls_total", &[("policy", "heavy")], 4.0)
        .await;
}

/// So many at once, each on a connection of its own: what they are answered.
async fn statuses(gateway: &Gateway, frontend: &str, requests: usize, request: RequestText) -> Vec<u16> {
    let mut asking = Vec::new();
    for _ in 0..requests {
        let (mut client, request) = (gateway.connect(frontend).await, request.clone());
        asking.push(tokio::spawn(async move { client.ask(request).await.status }));
    }
    let mut statuses = Vec::new();
    for asking in asking {
        statuses.push(asking.await.unwrap());
    }
    statuses
}

#[tokio::test]
async fn a_slow_plugins_instances_of_the_workers_make_room_for_those_of_the_threads() {
    // Slow with the first call of each instance, and quick with all others.
    let slow_once = "(local $i i32)
        (if (i32.eqz (i32.load (i32.const 64))) (then
            (i32.store (i32.const 64) (i32.const 1))
            (local.set $i (i32.const 30000000))
            (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))))
        (call $reply (i32.const 401) (i32.const 0))";
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        plugin "late" "late.wasm" { isolation "reuse"; limit cpu="1s" instances=1; on-failure "deny" status=503 }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "late"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .file("late.wasm", guest::filter(slow_once, ""))
    .start()
    .await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 401);
    gateway
        .metric_is("gateway_policy_slow", &[("policy", "late")], 1.0)
        .await;

    // There may be one instance, and it was the worker's.
    eventually("a thread has an instance", async || {
        gateway.ask("web", get("/")).await.status == 401
    })
    .await;
}

/// More than may wait for a thread, and some for longer than they may.
#[tokio::test]
async fn an_operators_slow_plugin_answers_all_who_ask() {
    let app = HttpServer::answering("app").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; policy slow-call="1ms" }
        plugin "slow" "slow.wasm" { limit cpu="10s"; on-failure "deny" status=503 }
        plugin "slower" "slower.wasm" { limit cpu="10s"; on-failure "deny" status=503 }
        frontend "many" { bind "127.0.0.1:0"; use-plugin "slow"; default-backend "app" }
        frontend "long" { bind "127.0.0.1:0"; use-plugin "slower"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("slow.wasm", guest::filter(&WORKS.replace("600000000", "30000000"), ""))
    .file("slower.wasm", guest::filter(WORKS, ""))
    .start()
    .await;
    for (frontend, plugin, requests) in [("many", "slow", 100), ("long", "slower", 6)] {
        assert_eq!(gateway.ask(frontend, get("/")).await.status, 200);
        gateway
            .metric_is("gateway_policy_slow", &[("policy", plugin)], 1.0)
            .await;
        let all = statuses(&gateway, frontend, requests, get("/")).await;
        assert_eq!(all, vec![200; requests], "{frontend}");
    }
}

/// Sets up for a good while (a tenth of a second or more), and works for no time.
fn slow_to_set_up() -> Vec<u8> {
    let configure = WORKS
        .replace("(call $none)", "(i32.const 256)")
        .replace("600000000", "150000000");
    let facts = guest::FACTS;
    let exports = format!(
        r#"(func (export "gateway:policy/request-filter@0.1.0#on-request") {facts} (result i32) (call $none))
        (func (export "gateway:policy/response-filter@0.1.0#on-response") {facts} (result i32) (call $none))"#
    );
    guest::component_with_configure("header-rewrite", &configure, &exports)
}

/// A tenant that has each of its requests seen by an instance of its own.
#[tokio::test]
async fn setting_up_a_neighbours_instances_again_and_again_holds_up_no_worker() {
    let app = HttpServer::answering("app").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        tenant "slow" {
            hosts "slow.example"
            plugin "own" "own.wasm" { isolation "reuse" max-requests=1; limit cpu="10s"; on-failure "deny" status=503 }
            use-plugin "own"
        }
        frontend "web" { bind "127.0.0.1:0"; tenants "slow"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("own.wasm", slow_to_set_up())
    .start()
    .await;
    let slow = || gateway.ask("web", get("/slow").host("slow.example"));
    let mut neighbour = gateway.connect("web").await;
    // There is one instance to begin with.
    assert_eq!(slow().await.status, 200);
    let made = async || {
        let labels = [("policy", "slow/own")];
        gateway.metrics().await.get("gateway_policy_instances_total", &labels)
    };
    for _ in 0..2 {
        let before = made().await;
        let (answer, served) = tokio::join!(slow(), async {
            let mut served = 0;
            // Not one more is there yet: it is being made.
            while made().await == before {
                assert_eq!(neighbour.ask(get("/quick").host("other.example")).await.status, 200);
                served += 1;
            }
            served
        });
        assert_eq!(answer.status, 200);
        assert!(served > 1, "{served}");
    }
    gateway
        .metric_is("gateway_policy_slow", &[("policy", "slow/own")], 1.0)
        .await;
    gateway.says("slow: setting an instance up took").await;
}

#[tokio::test]
async fn workers_serve_while_the_components_of_the_next_configuration_are_set_up() {
    let app = HttpServer::answering("app").await;
    let kdl = |plugins: usize| {
        let of = |n| format!("plugin \"p{n}\" \"slow.wasm\" {{ limit cpu=\"10s\"; on-failure \"deny\" }}");
        let plugins: Vec<String> = (0..plugins).map(of).collect();
        let uses: String = (0..plugins.len()).map(|n| format!("use-plugin \"p{n}\"; ")).collect();
        let kdl = format!(
            r#"
            process {{ workers 1 }}
            {}
            frontend "web" {{ bind "127.0.0.1:0"; default-backend "app" }}
            frontend "slow" {{ bind "127.0.0.1:0"; {}default-backend "app" }}
            backend "app" {{ server "s" "@app" }}
        "#,
            plugins.join("\n"),
            uses
        );
        Gateway::kdl(&kdl)
            .with("@app", app.address())
            .file("slow.wasm", slow_to_set_up())
    };
    let gateway = kdl(0).start().await;
    let mut client = gateway.connect("web").await;
    let next = kdl(3);
    let (taken_up, seen) = tokio::join!(gateway.reload(&next), async {
        let mut seen = Vec::new();
        loop {
            let made = gateway.metrics().await.get("gateway_policy_instances_total", &[]);
            assert_eq!(client.ask(get("/")).await.status, 200);
            seen.push(made.unwrap_or(0.0));
            if made >= Some(3.0) {
                break seen;
            }
        }
    });
    assert!(taken_up, "{}", gateway.output());
    // The worker answered while the first was there, and the last was not.
    assert!(seen.contains(&1.0) && seen.contains(&2.0), "{seen:?}");
    assert_eq!(gateway.ask("slow", get("/")).await.status, 200);
}

#[tokio::test]
async fn a_reload_brings_the_first_heavy_plugin_and_takes_the_last_away() {
    let app = HttpServer::answering("app").await;
    let kdl = |heavy| {
        let kdl = format!(
            r#"
            plugin "p" "p.wasm" {{ {heavy} on-failure "deny" status=503 }}
            frontend "web" {{ bind "127.0.0.1:0"; use-plugin "p"; default-backend "app" }}
            backend "app" {{ server "s" "@app" }}
        "#
        );
        Gateway::kdl(&kdl)
            .with("@app", app.address())
            .file("p.wasm", guest::filter("(call $none)", ""))
    };
    let gateway = kdl("").start().await;
    let mut client = gateway.connect("web").await;
    assert_eq!(client.ask(get("/")).await.status, 200);
    for heavy in ["heavy;", "", "heavy queue=2 wait=\"5s\";"] {
        assert!(gateway.reload(&kdl(heavy)).await, "{}", gateway.output());
        for _ in 0..3 {
            assert_eq!(client.ask(get("/")).await.status, 200, "{heavy}");
        }
    }
    gateway
        .metric_is("gateway_policy_calls_total", &[("policy", "p")], 20.0)
        .await;
}

#[tokio::test]
async fn a_heavy_plugin_decides_on_connections_beside_the_worker() {
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        plugin "slow" "slow.wasm" { heavy wait="60s"; limit cpu="10s"; on-failure "deny" status=503 }
        frontend "slow" { mode "tcp"; bind "127.0.0.1:0"; use-plugin "slow"; default-backend "app" }
        frontend "neighbour" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; server "s" "echo" }
    "#,
    )
    .file("slow.wasm", guest::connection(WORKS))
    .start()
    .await;
    let mut slow = gateway.connect("slow").await;
    slow.send("slow").await;
    gateway
        .metric_is("gateway_policy_calls_total", &[("policy", "slow")], 1.0)
        .await;
    let mut quick = gateway.connect("neighbour").await;
    quick.send("quick").await;
    for (client, text) in [(&mut quick, "quick"), (&mut slow, "slow")] {
        client.half_close().await;
        assert_eq!(client.until_end().await, text.as_bytes());
    }
    let lines = gateway.access_log(2).await;
    let order: Vec<_> = lines.iter().map(|line| line["frontend"].as_str().unwrap()).collect();
    assert_eq!(order, ["neighbour", "slow"]);
}

#[tokio::test]
async fn a_plugin_that_was_slow_holds_up_its_worker_once_and_never_again() {
    let app = HttpServer::answering("app").await;
    let facts = guest::FACTS;
    let works = WORKS.replace("(call $none)", "");
    let told = format!(r#"(func (export "gateway:policy/access-log@0.1.0#on-log") {facts} {works})"#);
    let kdl = |settings| {
        let kdl = format!(
            r#"
            process {{ workers 1; log "stdout" format="json"; policy {settings} }}
            plugin "filter" "filter.wasm" {{ limit cpu="10s"; on-failure "deny" status=503 }}
            plugin "told" "told.wasm" {{ limit cpu="10s"; on-failure "deny" status=503 }}
            frontend "filter" {{ bind "127.0.0.1:0"; use-plugin "filter"; default-backend "app" }}
            frontend "told" {{ bind "127.0.0.1:0"; use-plugin "told"; default-backend "app" }}
            frontend "neighbour" {{ bind "127.0.0.1:0"; default-backend "app" }}
            backend "app" {{ server "s" "@app" }}
        "#
        );
        Gateway::kdl(&kdl)
            .with("@app", app.address())
            .file("filter.wasm", guest::filter(WORKS, ""))
            .file("told.wasm", guest::component("logger", &told))
    };
    let gateway = kdl(r#"heavy-threads=2 slow-call="1ms""#).start().await;
    let metric = async |name, plugin, is| gateway.metric_is(name, &[("policy", plugin)], is).await;
    let slow = |plugin, is| metric("gateway_policy_slow", plugin, is);
    slow("filter", 0.0).await;
    assert_eq!(gateway.ask("filter", get("/first")).await.status, 200);
    assert_eq!(gateway.ask("told", get("/first")).await.status, 200);
    slow("filter", 1.0).await;
    slow("told", 1.0).await;
    gateway.says("slow: a call took").await;
    let calls = |plugin, count| metric("gateway_policy_calls_total", plugin, count);
    // Of one and its response.
    calls("filter", 2.0).await;
    let (again, ()) = tokio::join!(gateway.ask("filter", get("/again")), async {
        calls("filter", 3.0).await;
        for _ in 0..5 {
            assert_eq!(gateway.ask("neighbour", get("/quick")).await.status, 200);
        }
    });
    assert_eq!(again.status, 200);
    let lines = gateway.access_log(8).await;
    let last: Vec<_> = lines[2..]
        .iter()
        .map(|line| line["frontend"].as_str().unwrap())
        .collect();
    assert_eq!(
        last,
        [
            "neighbour",
            "neighbour",
            "neighbour",
            "neighbour",
            "neighbour",
            "filter"
        ]
    );
    // Each exchange is told of once.
    assert_eq!(gateway.ask("told", get("/again")).await.status, 200);
    calls("told", 2.0).await;

    // A new configuration tries it out anew; here no call is slow.
    assert!(gateway.reload(&kdl(r#"slow-call="10s""#)).await, "{}", gateway.output());
    assert_eq!(gateway.ask("filter", get("/third")).await.status, 200);
    slow("filter", 0.0).await;
}

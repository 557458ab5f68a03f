//! Who sees what a plugin remembers, and what becomes of plugins that fail or use too much, over real requests.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::{Answer, Client, Gateway, HttpServer, Server, eventually, get, guest};

/// Answers requests with how many of them this instance has seen: 401, 402, … It traps on paths that begin with `/b`.
fn counting() -> Vec<u8> {
    guest::component(
        "header-rewrite",
        r#"(global $count (mut i32) (i32.const 400))
        (func (export "gateway:policy/request-filter@0.1.0#on-request")
            (param i32 i32 i32 i32) (result i32)
            (global.set $count (i32.add (global.get $count) (i32.const 1)))
            (call $reply (global.get $count) (i32.const 0)))
        (func (export "gateway:policy/response-filter@0.1.0#on-response") (param i32 i32 i32 i32) (result i32) (call $none))"#,
    )
}

async fn run(settings: &str) -> Gateway {
    Gateway::kdl(
        r#"
        process { workers 1 }
        plugin "counting" "counting.wasm" { on-failure "deny" status=503; @settings }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "counting"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .with("@settings", settings)
    .file("counting.wasm", counting())
    .start()
    .await
}

async fn statuses(client: &mut Client, n: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..n {
        statuses.push(client.ask(get("/")).await.status);
    }
    statuses
}

#[tokio::test]
async fn each_request_has_an_instance_of_its_own_unless_the_operator_says_otherwise() {
    for settings in ["", r#"isolation "per-request""#, r#"isolation "per-request" ready=0"#] {
        let gateway = run(settings).await;
        let mut client = gateway.connect("web").await;
        assert_eq!(statuses(&mut client, 5).await, [401; 5], "{settings}");
        // One at the start to learn what it needs, one for each request, and those that lie ready.
        let metrics = gateway.metrics().await;
        let made = metrics.get("gateway_policy_instances_total", &[("policy", "counting")]);
        assert!(made.unwrap() >= 5.0, "{made:?}");
    }
}

#[tokio::test]
async fn a_connection_keeps_its_instance_and_shares_it_with_no_other() {
    let gateway = run(r#"isolation "per-connection""#).await;
    let (mut one, mut two) = (gateway.connect("web").await, gateway.connect("web").await);
    assert_eq!(statuses(&mut one, 3).await, [401, 402, 403]);
    assert_eq!(statuses(&mut two, 2).await, [401, 402]);
    assert_eq!(statuses(&mut one, 1).await, [404]);
}

#[tokio::test]
async fn connections_on_which_nothing_comes_keep_nobody_out() {
    let gateway = run(r#"isolation "per-connection" ready=0; limit instances=2"#).await;
    let mut idle = Vec::new();
    for number in 0..6 {
        let mut client = gateway.connect("web").await;
        assert_eq!(statuses(&mut client, 2).await, [401, 402], "{number}");
        idle.push(client);
    }
    // The last two still have theirs.
    assert_eq!(statuses(&mut idle[5], 1).await, [403]);
    assert_eq!(statuses(&mut idle[4], 1).await, [403]);
    assert_eq!(statuses(&mut idle[0], 1).await, [401]);
}

/// Each has asked under another configuration, and asks for nothing more: four of them would have all places.
#[tokio::test]
async fn connections_on_which_nothing_comes_keep_no_instances_of_configurations_that_are_gone() {
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; policy instances=4 }
        plugin "counting" "counting.wasm" { on-failure "deny" status=503; isolation "per-connection" ready=0; limit instances=1 }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "counting"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .file("counting.wasm", counting())
    .start()
    .await;
    let next = Gateway::verbatim(&gateway.config());
    let mut idle = Vec::new();
    for round in 0..6 {
        let mut client = gateway.connect("web").await;
        assert_eq!(statuses(&mut client, 2).await, [401, 402], "{round}");
        idle.push(client);
        eventually("a reload has room", async || gateway.reload(&next).await).await;
    }
}

#[tokio::test]
async fn an_instance_that_is_reused_is_replaced_after_as_many_requests_as_were_said() {
    let gateway = run(r#"isolation "reuse" max-requests=3"#).await;
    let mut client = gateway.connect("web").await;
    assert_eq!(statuses(&mut client, 7).await, [401, 402, 403, 401, 402, 403, 401]);
}

#[tokio::test]
async fn instances_that_lie_ready_are_not_made_while_a_request_waits() {
    let gateway = run(r#"isolation "per-request" ready=4"#).await;
    let mut client = gateway.connect("web").await;
    assert_eq!(statuses(&mut client, 200).await, [401; 200]);
    gateway
        .metric_is(
            "gateway_policy_failures_total",
            &[("policy", "counting"), ("kind", "store-full")],
            0.0,
        )
        .await;
}

/// Hooks for responses and for what is over, which have nothing to say.
const LATER: &str = r#"
    (func (export "gateway:policy/response-filter@0.1.0#on-response") (param i32 i32 i32 i32) (result i32) (call $none))
    (func (export "gateway:policy/access-log@0.1.0#on-log") (param i32 i32 i32 i32))"#;

#[tokio::test]
async fn exchanges_that_wait_to_be_told_of_keep_no_instances_from_requests() {
    let exports = format!(
        r#"(func (export "gateway:policy/request-filter@0.1.0#on-request")
            (param i32 i32 i32 i32) (result i32) (call $reply (i32.const 401) (i32.const 0))) {LATER}"#
    );
    let interfaces = ["request-filter", "response-filter", "access-log"];
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        plugin "logger" "logger.wasm" { limit instances=4; on-failure "deny" status=503 }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "logger"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .file(
        "logger.wasm",
        guest::exporting(&interfaces, "(i32.const 256)", &exports),
    )
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    // The worker answers what lies there already before it tells of what is over.
    client.send(get("/").bytes().repeat(100)).await;
    for _ in 0..100 {
        assert_eq!(client.response().await.status, 401);
    }
}

/// Counts what each instance is asked: of 1 and 2 it lets requests and connections go on, then it refuses both.
fn wearing_out() -> Vec<u8> {
    let exports = r#"(global $count (mut i32) (i32.const 0))
        (func $again (result i32)
            (global.set $count (i32.add (global.get $count) (i32.const 1)))
            (i32.gt_u (global.get $count) (i32.const 2)))
        (func (export "gateway:policy/request-filter@0.1.0#on-request") (param i32 i32 i32 i32) (result i32)
            (if (result i32) (call $again) (then (call $reply (i32.const 401) (i32.const 0))) (else (call $none))))
        (func (export "gateway:policy/connection-filter@0.1.0#on-connect") (param i32 i32 i32 i32) (result i32)
            (i32.store8 (i32.const 768) (call $again)) (i32.const 768))"#;
    guest::exporting(&["request-filter", "connection-filter"], "(i32.const 256)", exports)
}

#[tokio::test]
async fn no_instance_waits_for_hooks_that_do_not_come() {
    let app = HttpServer::start(|_| Answer::nothing().then_stall()).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        plugin "both" "both.wasm" { limit instances=2; on-failure "deny" status=503 }
        plugin "reused" "both.wasm" { isolation "reuse" max-requests=2; on-failure "deny" status=503 }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "both"; default-backend "app" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; use-plugin "reused"; default-backend "greeting" }
        backend "app" { server "s" "@app" }
        backend "greeting" { mode "tcp"; server "s" "@greeting" }
    "#,
    );
    let greeting = Server::greeting("hi").await;
    let gateway = gateway
        .with("@app", app.address())
        .with("@greeting", greeting.address())
        .file("both.wasm", wearing_out())
        .start()
        .await;

    // More than there may be instances are with the server at once.
    let mut waiting = Vec::new();
    for n in 1..=4 {
        let mut client = gateway.connect("web").await;
        client.send(get("/").bytes()).await;
        app.has_seen(n).await;
        waiting.push(client);
    }

    // Each instance is replaced after two connections.
    for _ in 0..6 {
        let mut client = gateway.connect("raw").await;
        assert_eq!(client.exactly(2).await, b"hi");
    }
}

#[tokio::test]
async fn a_plugin_with_all_its_instances_in_use_can_be_reloaded() {
    let config = || {
        Gateway::kdl(
            r#"
            process { workers 1; log "stdout" format="json" }
            plugin "mine" "mine.wasm" { on-failure "deny" status=503; isolation "reuse"; limit instances=1 }
            tenant "acme" {
                hosts "acme.example"
                quota plugin-instances=1
                plugin "theirs" "mine.wasm" { on-failure "deny" status=503; isolation "reuse" }
                use-plugin "theirs"
            }
            frontend "web" { bind "127.0.0.1:0"; tenants "acme"; use-plugin "mine"; default-backend "app" }
            backend "app" { server "s" "echo" }
        "#,
        )
        .file("mine.wasm", guest::filter("(call $none)", ""))
    };
    let gateway = config().start().await;
    let mut client = gateway.connect("web").await;
    for _ in 0..3 {
        assert_eq!(client.ask(get("/").host("acme.example")).await.status, 200);
        assert!(gateway.reload(&config()).await, "{}", gateway.output());
    }
    assert_eq!(client.ask(get("/").host("acme.example")).await.status, 200);
}

#[tokio::test]
async fn a_plugin_that_only_fails_is_put_in_quarantine_and_probed() {
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        plugin "failing" "failing.wasm" {
            on-failure "deny" status=503
            quarantine failures=3 from="1h" to="1h"
        }
        plugin "probed" "failing.wasm" {
            on-failure "deny" status=503
            quarantine failures=3 from="1ms" to="1ms"
        }
        plugin "skipped" "failing.wasm" {
            on-failure "skip"
            quarantine failures=3 from="1h" to="1h"
        }
        frontend "failing" { bind "127.0.0.1:0"; use-plugin "failing"; default-backend "app" }
        frontend "probed"  { bind "127.0.0.1:0"; use-plugin "probed";  default-backend "app" }
        frontend "skipped" { bind "127.0.0.1:0"; use-plugin "skipped"; default-backend "app" }
        frontend "neighbour" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .file("failing.wasm", guest::filter("(unreachable)", ""))
    .start()
    .await;
    for (frontend, status) in [("failing", 503), ("probed", 503), ("skipped", 200), ("neighbour", 200)] {
        for _ in 0..10 {
            assert_eq!(gateway.ask(frontend, get("/")).await.status, status, "{frontend}");
        }
    }
    let kinds = |policy, kind| [("policy", policy), ("kind", kind)];
    for plugin in ["failing", "skipped"] {
        gateway
            .metric_is("gateway_policy_quarantined", &[("policy", plugin)], 1.0)
            .await;
        gateway
            .metric_is("gateway_policy_quarantines_total", &[("policy", plugin)], 1.0)
            .await;
        gateway
            .metric_is("gateway_policy_failures_total", &kinds(plugin, "trap"), 3.0)
            .await;
    }
    gateway
        .metric_is("gateway_policy_calls_total", &[("policy", "failing")], 3.0)
        .await;
    gateway
        .metric_is("gateway_policy_failures_total", &kinds("failing", "quarantined"), 7.0)
        .await;
    let metrics = gateway.metrics().await;
    let probes = metrics
        .get("gateway_policy_failures_total", &kinds("probed", "trap"))
        .unwrap();
    assert!(probes > 3.0, "{probes}");
    gateway.says("in quarantine for 3600s").await;
    // The line says which plugin, which hook, what happened, and which line of the configuration it stands at.
    let declared = gateway
        .config()
        .lines()
        .position(|line| line.contains("plugin \"failing\""))
        .unwrap()
        + 1;
    let line = gateway
        .output()
        .lines()
        .find(|line| line.contains("in quarantine for 3600s"))
        .unwrap()
        .to_owned();
    for part in ["failing", "on-request", "trap", &format!("config.kdl:{declared}\"")] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test]
async fn a_plugin_that_has_used_up_its_cpu_time_is_not_called_and_requests_get_their_verdict() {
    let busy = "(local $i i32) (local.set $i (i32.const 2000000))
        (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1))))) (call $none)";
    let app = HttpServer::answering("app").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        plugin "busy" "busy.wasm" { limit cpu="5s" cpu-share="0.001 cores"; on-failure "deny" status=503 }
        frontend "busy" { bind "127.0.0.1:0"; use-plugin "busy"; default-backend "app" }
        frontend "neighbour" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("busy.wasm", guest::filter(busy, ""))
    .start()
    .await;
    let mut refused = 0;
    for _ in 0..30 {
        refused += usize::from(gateway.ask("busy", get("/")).await.status == 503);
        assert_eq!(gateway.ask("neighbour", get("/")).await.status, 200);
    }
    assert!(refused >= 20, "{refused}");
    let labels = [("policy", "busy"), ("kind", "quota")];
    gateway
        .metric_is("gateway_policy_failures_total", &labels, refused as f64)
        .await;
}

/// Takes another mebibyte with each request, and answers 507 when it gets none.
fn greedy() -> Vec<u8> {
    guest::component(
        "header-rewrite",
        r#"(func (export "gateway:policy/request-filter@0.1.0#on-request")
            (param i32 i32 i32 i32) (result i32)
            (call $reply
              (select (i32.const 507) (i32.const 204) (i32.eq (memory.grow (i32.const 16)) (i32.const -1)))
              (i32.const 0)))
        (func (export "gateway:policy/response-filter@0.1.0#on-response") (param i32 i32 i32 i32) (result i32) (call $none))"#,
    )
}

#[tokio::test]
async fn all_plugins_together_have_no_more_memory_than_the_process_gives_and_one_has_half() {
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; policy memory="8MiB" total-memory="16MiB" }
        plugin "a" "greedy.wasm" { on-failure "deny" status=503; isolation "per-connection" ready=0 }
        plugin "b" "greedy.wasm" { on-failure "deny" status=503; isolation "per-connection" ready=0 }
        plugin "c" "greedy.wasm" { on-failure "deny" status=503; isolation "per-connection" ready=0 }
        frontend "a" { bind "127.0.0.1:0"; use-plugin "a"; default-backend "app" }
        frontend "b" { bind "127.0.0.1:0"; use-plugin "b"; default-backend "app" }
        frontend "c" { bind "127.0.0.1:0"; use-plugin "c"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .file("greedy.wasm", greedy())
    .start()
    .await;
    let mut held = Vec::new();
    for (frontend, mebibytes) in [("a", 7), ("b", 7), ("c", 2)] {
        let mut taken = 0;
        for _ in 0..3 {
            let mut client = gateway.connect(frontend).await;
            let said = statuses(&mut client, 4).await;
            assert!(said.iter().all(|status| [204, 507].contains(status)), "{said:?}");
            taken += said.iter().filter(|status| **status == 204).count();
            held.push(client);
        }
        // What the instances began with is a part of it. The third of the last finds nothing left and gets what the first has, which
        // is idle.
        assert_eq!(taken, mebibytes, "{frontend}");
    }
    drop(held);
}

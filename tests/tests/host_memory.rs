//! Memory of the gateway's own that plugins make it hold: what they answer with and nobody takes, and what is held until they have
//! seen it.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::http2::{Http2Client, read};
use gateway_tests::{Answer, Gateway, HttpServer, eventually, get, guest};
use http::Request;

const MIB: f64 = 1_048_576.0;

/// Answers every request with a mebibyte.
fn replying() -> Vec<u8> {
    guest::filter("(call $reply (i32.const 200) (i32.const 1048576))", "")
}

/// Wants bodies of requests whole, up to a mebibyte, and lets them pass.
fn whole() -> Vec<u8> {
    let exports = format!(
        r#"(func (export "gateway:policy/request-body-filter@0.1.0#on-request-body") {facts} (result i32)
            (i32.store8 (i32.const 3000) (i32.const 3))
            (i64.store (i32.const 3008) (i64.const 1048576))
            (i32.const 3000))
        (func (export "gateway:policy/request-body-filter@0.1.0#on-request-piece")
            (param i32 i32 i32 i32 i32) (result i32) (i32.const 3100))
        (func (export "gateway:policy/response-body-filter@0.1.0#on-response-body") {facts} (result i32) (call $none))
        (func (export "gateway:policy/response-body-filter@0.1.0#on-response-piece")
            (param i32 i32 i32 i32 i32) (result i32) (i32.const 3100))"#,
        facts = guest::FACTS
    );
    guest::component("body-filter", &exports)
}

async fn held(gateway: &Gateway, policy: &str) -> f64 {
    let metrics = gateway.metrics().await;
    metrics
        .get("gateway_policy_host_memory_bytes", &[("policy", policy)])
        .unwrap()
}

/// A request of a client that takes nothing of the answer but its head, for as long as it holds what comes back.
fn asked(host: &str) -> Request<()> {
    Request::get(format!("http://{host}/"))
        .version(http::Version::HTTP_2)
        .body(())
        .unwrap()
}

#[tokio::test]
async fn replies_to_clients_that_read_nothing_are_bounded_for_their_tenant_and_cost_no_neighbour_anything() {
    let gateway = Gateway::kdl(
        r#"
        process { workers 2 }
        tenant "acme" {
            hosts "acme.example"
            quota host-memory="5MiB"
            plugin "own" "replying.wasm" { on-failure "deny" status=507 }
            use-plugin "own"
        }
        tenant "rival" {
            hosts "rival.example"
            plugin "own" "replying.wasm" { on-failure "deny" status=507 }
            use-plugin "own"
        }
        frontend "web" { bind "127.0.0.1:0"; tenants "acme" "rival"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .file("replying.wasm", replying())
    .start()
    .await;
    // The windows of streams are 64 KiB, and nobody opens them again.
    let client = Http2Client::connect(gateway.address("web")).await;
    let (mut unread, mut statuses) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        let (response, _) = client.open(asked("acme.example"), true).await;
        let response = response.await.unwrap();
        statuses.push(response.status().as_u16());
        unread.push(response);
        assert!(held(&gateway, "acme/own").await <= 5.0 * MIB);
    }
    assert_eq!(statuses[..5], [200; 5], "{statuses:?}");
    assert_eq!(statuses[5..], [507; 7], "{statuses:?}");
    assert_eq!(held(&gateway, "acme/own").await, 5.0 * MIB);
    let refused = [("policy", "acme/own"), ("kind", "host-memory")];
    gateway.metric_is("gateway_policy_failures_total", &refused, 7.0).await;
    gateway
        .says(r#"tenant "acme" has as much of the gateway's own memory as it may: 5242880 bytes"#)
        .await;

    // A neighbour is answered, and so is this one when its clients have gone.
    let other = Http2Client::connect(gateway.address("web")).await;
    let (response, _) = other.open(asked("rival.example"), true).await;
    let answer = read(response).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 1 << 20));
    drop(unread);
    drop(client);
    eventually("what nobody takes any more is gone", async || {
        held(&gateway, "acme/own").await == 0.0
    })
    .await;
    let answer = gateway.ask("web", get("/").host("acme.example")).await;
    assert_eq!((answer.status, answer.body.len()), (200, 1 << 20));
}

#[tokio::test]
async fn bodies_that_are_held_until_a_plugin_has_seen_them_are_bounded() {
    for (on_failure, status) in [(r#""deny" status=507"#, 507), (r#""skip""#, 200)] {
        let app = HttpServer::start(|request| Answer::ok(request.body.len().to_string())).await;
        let gateway = Gateway::kdl(
            r#"
            process { workers 1 }
            plugin "whole" "whole.wasm" {
                limit body="1MiB" host-memory="1MiB"
                on-failure @on_failure
            }
            frontend "web" { bind "127.0.0.1:0"; use-plugin "whole"; default-backend "app" }
            backend "app" { server "s" "@app" }
        "#,
        )
        .with("@on_failure", on_failure)
        .with("@app", app.address())
        .file("whole.wasm", whole())
        .start()
        .await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 800000\r\n\r\n";
        // It never sends the rest.
        let mut slow = gateway.connect("web").await;
        slow.send(head).await;
        slow.send(vec![b'x'; 700_000]).await;
        eventually("most of it is held", async || {
            held(&gateway, "whole").await >= 700_000.0
        })
        .await;
        let mut second = gateway.connect("web").await;
        second.send(head).await;
        // Who is refused is not read.
        let _ = second.try_send(vec![b'x'; 800_000]).await;
        let answer = second.response().await;
        assert_eq!(answer.status, status, "{on_failure}");
        if status == 200 {
            assert_eq!(answer.text(), "800000", "it has passed unseen, and whole");
        }
        gateway
            .says(r#"plugin "whole" has as much of the gateway's own memory as it may"#)
            .await;
        drop(slow);
        eventually("it has gone", async || held(&gateway, "whole").await == 0.0).await;
        let mut third = gateway.connect("web").await;
        third.send(head).await;
        third.send(vec![b'x'; 800_000]).await;
        assert_eq!(third.response().await.text(), "800000");
    }
}

/// A call's answer is the plugin's to have, and so is what the gateway holds of it meanwhile.
#[tokio::test]
async fn answers_to_calls_are_bounded() {
    let auth = HttpServer::start(|_| Answer::ok("x".repeat(200_000))).await;
    let exports = format!(
        r#"(data (i32.const 2048) "authGET/")
        (func (export "gateway:policy/request-filter@0.1.0#on-request") {facts} (result i32)
            (i32.store8 (i32.const 3000) (i32.const 3))
            (i32.store (i32.const 3004) (i32.const 2048)) (i32.store (i32.const 3008) (i32.const 4))
            (i32.store (i32.const 3012) (i32.const 2052)) (i32.store (i32.const 3016) (i32.const 3))
            (i32.store (i32.const 3020) (i32.const 2055)) (i32.store (i32.const 3024) (i32.const 1))
            (i32.const 3000))
        (func (export "gateway:policy/call-answered@0.1.0#on-answer")
            {facts} (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (call $none))"#,
        facts = guest::FACTS
    );
    let kdl = r#"
        process { workers 1 }
        plugin "asking" "asking.wasm" {
            call "auth" max-body="1MiB"
            limit host-memory="@most"
            on-failure "deny" status=507
        }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "asking"; default-backend "app" }
        backend "app" { server "s" "echo" }
        backend "auth" { server "s" "@auth" }
    "#;
    for (most, status) in [("128KiB", 507), ("256KiB", 200)] {
        let gateway = Gateway::kdl(kdl)
            .with("@most", most)
            .with("@auth", auth.address())
            .file("asking.wasm", guest::component("authorization", &exports))
            .start()
            .await;
        assert_eq!(gateway.ask("web", get("/")).await.status, status, "{most}");
        assert_eq!(held(&gateway, "asking").await, 0.0);
    }
}

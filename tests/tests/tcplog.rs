//! How a TCP connection ended, as its access line says it: who ended it, in which phase, and why.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::net::SocketAddr;
use std::time::Duration;

use gateway_tests::{Client, Gateway, Server, blackhole, guest, refusing};
use serde_json::{Value, json};

/// A gateway in TCP mode before this server. Its configuration begins with `before`, and its sections end with these.
async fn gateway(app: SocketAddr, before: &str, frontend: &str, backend: &str) -> Gateway {
    let text = format!(
        r#"{before}
        frontend "raw" {{ mode "tcp"; bind "127.0.0.1:0"; default-backend "app"; {frontend} }}
        backend "app" {{ mode "tcp"; server "app-1" "@app"; {backend} }}
    "#
    );
    Gateway::kdl(&text).with("@app", app).start().await
}

/// The one access line, its termination and its reason.
async fn ending(gateway: &Gateway) -> (Value, String, Value) {
    let lines = gateway.access_log(1).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = lines[0].clone();
    let termination = line["termination"].as_str().unwrap().to_owned();
    let reason = line["reason"].clone();
    (line, termination, reason)
}

async fn errors(gateway: &Gateway, reason: &str) -> Option<f64> {
    let metrics = gateway.metrics().await;
    metrics.get("gateway_frontend_errors_total", &[("reason", reason)])
}

async fn denied(gateway: &Gateway) -> Option<f64> {
    gateway
        .metrics()
        .await
        .get("gateway_frontend_denied_requests_total", &[("frontend", "raw")])
}

#[tokio::test]
async fn a_denied_connection_names_the_rule() {
    let app = Server::echo().await;
    let gateway = gateway(
        app.address(),
        "",
        "\nacl \"here\" { source \"127.0.0.0/8\" }\ndeny if=\"not here\"\ndeny if=\"here\"\n",
        "",
    )
    .await;
    assert!(Client::is_turned_away(gateway.address("raw"), [127, 0, 0, 1]).await);

    let (line, termination, reason) = ending(&gateway).await;
    assert_eq!((&*termination, reason), ("PR", json!("denied")), "{line}");
    let config = gateway.config();
    let rule = usize::try_from(line["rule"].as_u64().unwrap()).unwrap();
    assert_eq!(config.lines().nth(rule - 1), Some("deny if=\"here\""), "{line}");
    assert_eq!((&line["backend"], &line["server"]), (&Value::Null, &Value::Null));
    assert_eq!(denied(&gateway).await, Some(1.0));
    assert_eq!(errors(&gateway, "denied").await, None);
}

#[tokio::test]
async fn a_connection_that_nothing_takes_was_not_denied() {
    let app = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" {
            mode "tcp"
            bind "127.0.0.1:0"
            acl "elsewhere" { source "192.0.2.1" }
            use-backend "app" if="elsewhere"
        }
        backend "app" { mode "tcp"; server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    gateway.connect("raw").await.closed().await;

    let (line, termination, reason) = ending(&gateway).await;
    assert_eq!((&*termination, reason), ("PR", json!("no-route")), "{line}");
    assert_eq!(line["rule"], Value::Null);
    assert_eq!(denied(&gateway).await, Some(0.0));
    assert_eq!(errors(&gateway, "no-route").await, Some(1.0));
}

#[tokio::test]
async fn a_component_that_fails_has_not_denied() {
    let app = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        plugin "broken" "broken.wasm" { on-failure "deny" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; use-plugin "broken"; default-backend "app" }
        backend "app" { mode "tcp"; server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("broken.wasm", guest::connection("unreachable"))
    .start()
    .await;
    gateway.connect("raw").await.closed().await;

    let (line, termination, reason) = ending(&gateway).await;
    assert_eq!((&*termination, reason), ("PR", json!("policy-failure")), "{line}");
    assert_eq!(denied(&gateway).await, Some(0.0));
    assert_eq!(errors(&gateway, "policy-failure").await, Some(1.0));
}

#[tokio::test]
async fn a_server_that_refuses_is_told_from_no_server_at_all() {
    let (address, _guard) = refusing();
    let refused = gateway(address, "", "", "").await;
    refused.connect("raw").await.closed().await;
    let (line, termination, reason) = ending(&refused).await;
    assert_eq!((&*termination, reason), ("SC", json!("connect-failed")), "{line}");
    assert_eq!((&line["server"], &line["connect_ms"]), (&json!("app-1"), &Value::Null));

    let down = gateway(address, "", "", "check \"tcp\" interval=\"50ms\" fall=1").await;
    down.metric_is("gateway_server_up", &[("server", "app-1")], 0.0).await;
    down.connect("raw").await.closed().await;
    let (line, termination, reason) = ending(&down).await;
    assert_eq!((&*termination, reason), ("SC", json!("no-server")), "{line}");
    assert_eq!((&line["backend"], &line["server"]), (&json!("app"), &Value::Null));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_timed_out() {
    let (address, _guard) = blackhole().await;
    let gateway = gateway(address, "", "", "timeout connect=\"200ms\"").await;
    gateway.connect("raw").await.closed().await;

    let (line, termination, reason) = ending(&gateway).await;
    assert_eq!((&*termination, reason), ("sC", json!("connect-timeout")), "{line}");
    assert!(line["total_ms"].as_f64().unwrap() >= 200.0, "{line}");
}

#[tokio::test]
async fn a_client_that_leaves_while_a_server_is_awaited_frees_its_place() {
    let (address, _guard) = blackhole().await;
    let gateway = gateway(address, "", "", "timeout connect=\"60s\"").await;
    let client = gateway.connect("raw").await;
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "app-1")], 1.0)
        .await;
    drop(client);

    let (line, termination, reason) = ending(&gateway).await;
    assert_eq!((&*termination, reason), ("CC", json!("client-left")), "{line}");
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "app-1")], 0.0)
        .await;
    assert_eq!(errors(&gateway, "client-left").await.unwrap_or_default(), 0.0);
}

#[tokio::test]
async fn a_client_that_leaves_without_a_word_is_null_however_slow_the_server_is() {
    let (address, _guard) = blackhole().await;
    let gateway = gateway(address, "", "access-log skip-null", "timeout connect=\"60s\"").await;
    let in_flight = async |n| {
        let labels = [("server", "app-1")];
        gateway.metric_is("gateway_server_in_flight", &labels, n).await;
    };
    let silent = gateway.connect("raw").await;
    in_flight(1.0).await;
    drop(silent);
    in_flight(0.0).await;
    // One that has said something is no null connection. Its line would be the second.
    let mut client = gateway.connect("raw").await;
    client.send("something").await;
    in_flight(1.0).await;
    let speaker = client.tcp().local_addr().unwrap().to_string();
    client.reset();

    let (line, termination, _) = ending(&gateway).await;
    assert_eq!((&*termination, &line["client"]), ("CC", &json!(speaker)), "{line}");
    assert_eq!(errors(&gateway, "client-left").await, Some(1.0));
}

#[tokio::test]
async fn a_client_that_has_said_everything_is_not_taken_for_gone() {
    let (address, _guard) = blackhole().await;
    let gateway = gateway(address, "", "", "timeout connect=\"60s\"").await;
    let mut client = gateway.connect("raw").await;
    client.send("everything").await;
    client.half_close().await;
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "app-1")], 1.0)
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(gateway.access_lines().is_empty());
    // That it has reset the connection is seen all the same.
    client.reset();

    let (line, termination, _) = ending(&gateway).await;
    assert_eq!(termination, "CC", "{line}");
}

#[tokio::test]
async fn each_side_can_be_silent_for_too_long() {
    let app = Server::echo().await;
    let client = gateway(app.address(), "", "timeout client=\"200ms\"", "").await;
    client.connect("raw").await.closed().await;
    let (line, termination, reason) = ending(&client).await;
    assert_eq!((&*termination, reason), ("cD", Value::Null), "{line}");

    let server = gateway(app.address(), "", "", "timeout server=\"200ms\"").await;
    server.connect("raw").await.closed().await;
    let (line, termination, _) = ending(&server).await;
    assert_eq!(termination, "sD", "{line}");
}

#[tokio::test]
async fn each_side_can_break_it_off() {
    let app = Server::greeting("hello").await;
    let client = gateway(app.address(), "", "", "").await;
    let mut connection = client.connect("raw").await;
    connection.exactly(5).await;
    connection.reset();
    let (line, termination, _) = ending(&client).await;
    assert_eq!((&*termination, &line["bytes_sent"]), ("CD", &json!(5)), "{line}");

    let app = Server::start(|mut wire, _| async move {
        wire.exactly(2).await?;
        wire.reset();
        Ok(())
    })
    .await;
    let server = gateway(app.address(), "", "", "").await;
    let mut connection = server.connect("raw").await;
    connection.send("go").await;
    connection.closed().await;
    let (line, termination, _) = ending(&server).await;
    assert_eq!((&*termination, &line["bytes_received"]), ("SD", &json!(2)), "{line}");
}

#[tokio::test]
async fn what_the_end_of_the_gateway_cuts_off_was_killed() {
    const PROCESS: &str = r#"process { workers 1; drain-timeout "200ms"; log "stdout" format="json" }"#;
    let app = Server::greeting("hello").await;
    let data = gateway(app.address(), PROCESS, "", "").await;
    let mut connection = data.connect("raw").await;
    connection.exactly(5).await;
    data.terminate();
    let (line, termination, _) = ending(&data).await;
    assert_eq!((&*termination, &line["server"]), ("KD", &json!("app-1")), "{line}");

    let (address, _guard) = blackhole().await;
    let connecting = gateway(address, PROCESS, "", "timeout connect=\"60s\"").await;
    let _connection = connecting.connect("raw").await;
    connecting
        .metric_is("gateway_server_in_flight", &[("server", "app-1")], 1.0)
        .await;
    connecting.terminate();
    let (line, termination, _) = ending(&connecting).await;
    assert_eq!(termination, "KC", "{line}");
}

//! `servers-up`: rules and routes that ask how many servers of a backend may have new work.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::{Gateway, HttpServer, Server, get};

#[tokio::test]
async fn rules_and_routes_follow_how_many_servers_are_up() {
    let mut a = HttpServer::answering("a").await;
    let mut b = HttpServer::answering("b").await;
    let spare = HttpServer::answering("spare").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        acl "thin" { servers-up "app" min=1 max=1 }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "down" { servers-up "app" max=0 }
            acl "heavy" { path-prefix "/heavy" }
            return status=503 if="heavy and (thin or down)" { body "not now" }
            use-backend "spare" if="down"
            default-backend "app"
        }
        backend "app" {
            check "tcp" interval="50ms" rise=1 fall=1
            server "a" "@a"
            server "b" "@b"
        }
        backend "spare" { server "spare" "@spare" }
    "#,
    )
    .with("@a", a.address())
    .with("@b", b.address())
    .with("@spare", spare.address())
    .start()
    .await;
    let is_up = async |count: f64| {
        let labels = [("backend", "app")];
        gateway.metric_is("gateway_backend_servers_up", &labels, count).await;
    };
    let ask = async |path: &str| {
        let answer = gateway.ask("web", get(path)).await;
        (answer.status, answer.text().to_owned())
    };
    assert_eq!(ask("/heavy").await.0, 200);
    a.stop().await;
    is_up(1.0).await;
    assert_eq!(ask("/heavy").await, (503, "not now".to_owned()));
    assert_eq!(ask("/").await, (200, "b".to_owned()));
    b.stop().await;
    is_up(0.0).await;
    assert_eq!(ask("/heavy").await.0, 503);
    assert_eq!(ask("/").await, (200, "spare".to_owned()));
    a.resume().await;
    is_up(1.0).await;
    assert_eq!(ask("/").await, (200, "a".to_owned()));
}

#[tokio::test]
async fn connections_of_tcp_mode_follow_them_too() {
    let spare = Server::start(|mut wire, _| async move { wire.send("spare").await }).await;
    let mut app = HttpServer::answering("app").await;
    app.stop().await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "raw" {
            mode "tcp"
            bind "127.0.0.1:0"
            acl "down" { servers-up "app" max=0 }
            acl "spared" { servers-up "spare" min=1 }
            reject if="down and not spared"
            use-backend "spare" if="down"
            default-backend "app"
        }
        backend "app" { mode "tcp"; check "tcp" interval="50ms" rise=1 fall=1; server "a" "@app" }
        backend "spare" { mode "tcp"; server "spare" "@spare" }
    "#,
    )
    .with("@app", app.address())
    .with("@spare", spare.address())
    .start()
    .await;
    gateway
        .metric_is("gateway_backend_servers_up", &[("backend", "app")], 0.0)
        .await;
    let mut client = gateway.connect("raw").await;
    assert_eq!(client.exactly(5).await, b"spare");
}

#[tokio::test]
async fn a_tenant_asks_of_its_own_backends_alone() {
    let mut api = HttpServer::answering("api").await;
    let of = |backend: &str| {
        Gateway::kdl(
            r#"
            process { workers 1 }
            tenant "acme" { hosts "acme.example"; backends "api"; include "tenants/acme/*.kdl" }
            frontend "web" {
                bind "127.0.0.1:0"
                tenants "acme"
                default-backend "app"
            }
            backend "app" { server "s" "echo" }
            backend "api" { check "tcp" interval="50ms" rise=1 fall=1; server "s" "@api" }
        "#,
        )
        .with("@api", api.address())
        .file(
            "tenants/acme/rules.kdl",
            format!(
                r#"
                acl "down" {{ servers-up "{backend}" max=0 }}
                return status=503 if="down" {{ body "no api" }}
                use-backend "api"
            "#
            ),
        )
    };
    let checked = of("app").check(&["--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{report}");
    assert_eq!(errors[0]["message"], "tenant \"acme\" has no backend \"app\"");
    let gateway = of("api").start().await;
    let ask = async || {
        let answer = gateway.ask("web", get("/").host("acme.example")).await;
        (answer.status, answer.text().to_owned())
    };
    assert_eq!(ask().await, (200, "api".to_owned()));
    api.stop().await;
    let labels = [("backend", "api")];
    gateway.metric_is("gateway_backend_servers_up", &labels, 0.0).await;
    assert_eq!(ask().await, (503, "no api".to_owned()));
    assert_eq!(gateway.ask("web", get("/").host("other.example")).await.status, 200);
}

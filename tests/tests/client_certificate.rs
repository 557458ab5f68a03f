//! What components are told of a client's certificate.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::fmt::Write;

use gateway_tests::guest::{self, FACTS};
use gateway_tests::tls::Authority;
use gateway_tests::{Client, Gateway, HttpServer, get};

/// A component that wants these attributes of requests, and answers each request with their values, one behind the other.
fn telling(attributes: &[&str]) -> Vec<u8> {
    const INDEX: usize = 2048;
    const NAMES: usize = 3072;
    let (mut index, mut names) = (String::new(), String::new());
    for name in attributes {
        for number in [NAMES + names.len(), name.len()] {
            for byte in u32::try_from(number).unwrap().to_le_bytes() {
                write!(index, "\\{byte:02x}").unwrap();
            }
        }
        names += name;
    }
    let count = attributes.len();
    let configure = format!(
        "(i32.store (i32.const 604) (i32.const {INDEX})) (i32.store (i32.const 608) (i32.const {count})) (i32.const 600)"
    );
    let exports = format!(
        r#"(data (i32.const {INDEX}) "{index}")
        (data (i32.const {NAMES}) "{names}")
        (func (export "gateway:policy/request-filter@0.1.0#on-request") {FACTS} (result i32)
            (drop (call $reply (i32.const 200) (i32.const 0)))
            (i32.store (i32.const 528) (local.get $bytes))
            (i32.store (i32.const 532) (local.get $length))
            (i32.const 512))
        (func (export "gateway:policy/response-filter@0.1.0#on-response") {FACTS} (result i32) (call $none))"#
    );
    guest::component_with_configure("header-rewrite", &configure, &exports)
}

#[tokio::test]
async fn components_are_told_of_it() {
    let authority = Authority::new();
    let app = HttpServer::answering("x").await;
    let component = telling(&[
        "client-cert-subject",
        "client-cert-cn",
        "client-cert-issuer",
        "client-cert-serial",
        "client-cert-san",
        "client-cert-not-before",
        "client-cert-not-after",
        "client-cert-verify",
        "client-cert-der",
    ]);
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        plugin "telling" "telling.wasm" { on-failure "deny" status=507 }
        frontend "web" {
            bind "127.0.0.1:0" { tls cert="bundle.pem" { client-ca "ca.pem" verify="optional" }; alpn "http/1.1" }
            use-plugin "telling"
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("bundle.pem", authority.issue(&["shop.example"]).bundle())
    .file("ca.pem", authority.pem())
    .file("telling.wasm", component)
    .start()
    .await;

    let shown = authority.issue(&["client.example"]);
    let config = authority.client_with(&shown);
    let mut client = Client::connect_tls_with(gateway.address("web"), "shop.example", config).await;
    let serial = format!("{:02x}", shown.serial());
    let der = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, shown.certificate());
    let expected = [
        "CN=client.example",
        "client.example",
        "CN=rcgen self signed cert",
        &serial,
        "DNS:client.example",
        "1975-01-01T00:00:00Z",
        "4096-01-01T00:00:00Z",
        "SUCCESS",
        &der,
    ];
    assert_eq!(client.ask(get("/")).await.text(), expected.concat());

    // Of a client that shows none they are told that.
    let mut client = Client::connect_tls_with(gateway.address("web"), "shop.example", authority.client()).await;
    assert_eq!(client.ask(get("/")).await.text(), "NONE");
}

//! The harness that the integration tests and the side-by-side bench stand on: a gateway from a KDL text, servers that
//! do as they are told, clients that send bytes.
//!
//! A test reads as a sentence:
//!
//! ```no_run
//! # use gateway_tests::{Gateway, HttpServer, get};
//! # async fn test() {
//! let app = HttpServer::answering("hello").await;
//! let gateway = Gateway::kdl(r#"
//!     frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
//!     backend "app"  { server "app-1" "@app" }
//! "#).with("@app", app.address()).start().await;
//!
//! assert_eq!(gateway.ask("web", get("/")).await.text(), "hello");
//! assert_eq!(app.requests().len(), 1);
//! # }
//! ```
//!
//! Every wait is bounded: what does not come within [`PATIENCE`] fails the test, and the failure shows what had come until
//! then. When a test fails, its gateway prints its configuration and all it wrote.
//!
//! The harness needs no tokio feature that the gateway does not need, so that both are built once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a harness fails a test by panicking")]

pub mod bomb;
mod client;
mod dns;
mod gateway;
pub mod guest;
pub mod http2;
mod message;
pub mod peer;
pub mod process;
mod server;
pub mod tls;
mod wire;

pub use client::Client;
pub use dns::{Dns, DnsServer};
pub use gateway::{Builder, Checked, Gateway, Stopped, command};
pub use message::{Headers, Request, RequestText, Response, delete, get, head, method, post, put};
pub use server::{Answer, HttpServer, Server, blackhole, refusing};
pub use wire::{PATIENCE, Wire, eventually, within};

//! The parts of the gateway that are fuzzed, without what they do not need: no runtime, no component host.

#![allow(dead_code, reason = "parts of the gateway that others of its parts use")]

#[path = "../../src/listener/client_hello.rs"]
pub mod client_hello;
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/crypto.rs"]
pub mod crypto;
#[path = "../../src/proxy_protocol/mod.rs"]
pub mod proxy_protocol;

#[path = "../../src/policy/client_certificate.rs"]
mod client_certificate;
#[path = "../../src/policy/exchange.rs"]
mod exchange;

/// What the other parts want of the component host.
mod policy {
    pub use super::exchange::ClientHello;
}

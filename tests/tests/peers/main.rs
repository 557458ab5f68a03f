//! Other people's programs on both sides of the gateway: servers and clients that know nothing of it.
//!
//! They need those programs, so they run with `--features peers` only; without it they are listed as ignored. Each test
//! starts its servers itself, on 127.0.0.1 and with a folder of its own, and ends them by their process ids.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod application;
mod authority;
mod compression;
mod directory;
mod http;
mod http2;
mod languages;
mod mail;
mod mariadb;
mod new_plugin;
mod postgres;
mod proxy_protocol;
mod redis;
mod signatures;
mod stats;
mod sticky;
mod syn_flood;
mod syslog;
mod tcplog;
mod termination;
mod tls;
mod websocket;

use gateway_tests::Gateway;
use gateway_tests::peer::Peer;

/// A server that accepts and does not answer is down until it answers again.
async fn down_while_frozen(gateway: &Gateway, server: &str, peer: &Peer) {
    let up = async |value| {
        gateway
            .metric_is("gateway_server_up", &[("server", server)], value)
            .await;
    };
    up(1.0).await;
    peer.freeze();
    up(0.0).await;
    // Or no connection, when there is TLS.
    gateway.says(" within 1s").await;
    peer.thaw();
    up(1.0).await;
}

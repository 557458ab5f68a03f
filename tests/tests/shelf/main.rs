//! The shelf: components that ship with the gateway and are attached by name (`plugin "…" builtin="…"`), over real requests.
//! What each makes of what it is asked is tested beside its source; here is that a configuration in KDL reaches it, and that
//! its answers reach clients and servers.
//!
//! Where a plugin has `limit cpu="1s"`, that is for a busy machine: a deadline is in the time that passes, and a call may have to
//! wait for its turn.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod built_in;
mod cors;
mod failing;
mod ip_list;
mod jwt_auth;
mod others;
mod schemas;
mod security_headers;

use gateway_tests::{Builder, Gateway, HttpServer};

/// A gateway in front of `app` whose frontend `web` uses the plugin `shelf`; `plugin` is that node.
pub(crate) fn shelf(plugin: &str, app: &HttpServer) -> Builder {
    Gateway::kdl(&format!(
        r#"
        {plugin}
        frontend "web" {{ bind "127.0.0.1:0"; use-plugin "shelf"; default-backend "app" }}
        backend "app" {{ server "s" "@app" }}
    "#
    ))
    .with("@app", app.address())
}

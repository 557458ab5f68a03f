//! What `gateway plugin new` writes: the same files, compiled, with the tests that are in them.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../gateway/src/plugin_tools/new/rust/access_log.rs"]
mod access_log;
#[path = "../../gateway/src/plugin_tools/new/rust/call_answered.rs"]
mod call_answered;
#[path = "../../gateway/src/plugin_tools/new/rust/connection_filter.rs"]
mod connection_filter;
#[path = "../../gateway/src/plugin_tools/new/rust/limiter.rs"]
mod limiter;
#[path = "../../gateway/src/plugin_tools/new/rust/predicates.rs"]
mod predicates;
#[path = "../../gateway/src/plugin_tools/new/rust/request_body_filter.rs"]
mod request_body_filter;
#[path = "../../gateway/src/plugin_tools/new/rust/request_filter.rs"]
mod request_filter;
#[path = "../../gateway/src/plugin_tools/new/rust/response_body_filter.rs"]
mod response_body_filter;
#[path = "../../gateway/src/plugin_tools/new/rust/response_filter.rs"]
mod response_filter;

//! The life of a request (http) and of a connection (tcp), from the first byte after accept to the log line.

pub mod http;
pub mod relay;
pub mod tcp;

mod attempts;
mod body;
mod client;
mod content;
mod error;
mod headers;
mod introduction;
mod local;
mod policy;
mod private;
mod record;
mod request;
mod turns;
mod unintroduced;
mod upgrade;
mod upstream;

pub use local::{ConnectionCount, Local};
pub use unintroduced::unintroduced;

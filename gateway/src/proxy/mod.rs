//! The life of a request (http) and of a connection (tcp), from the first byte after accept to the log line.

pub mod http;
pub mod relay;
pub mod tcp;

mod admission;
mod asked_name;
mod attempts;
mod body;
mod captures;
mod client;
mod coded;
mod compression;
mod content;
mod cookies;
mod decompression;
mod error;
mod forwarding;
mod headers;
mod http2;
mod informational;
mod introduction;
mod kept;
mod local;
mod multiplexed;
mod noted;
mod path;
mod policy;
mod private;
mod recoding;
mod record;
mod request;
mod request_id;
mod resend;
mod rules;
mod spliced;
mod sticky;
mod strict;
mod trace;
mod turns;
mod unserved;
mod upgrade;
mod upload;
mod upstream;

pub use admission::admit;
pub use local::{ConnectionCount, Local};
pub use unserved::unintroduced;

//! The gateway's library: everything but the start-up story, which `main.rs` tells.
//!
//! Floors, each importing only what is below it:
//! `cli → server → worker → proxy → snapshot → listener → {backend, policy} → telemetry → config`.
//! `backend` and `policy` do not know each other; `snapshot` alone joins them. docs/ARCHITECTURE.md has all floors, and a test holds
//! the code to them.

pub mod accepted;
pub mod address;
pub mod admin;
pub mod authority;
pub mod backend;
pub mod certificates;
pub mod cli;
pub mod config;
pub mod convert;
pub mod crypto;
mod empty_frames;
mod hidden;
mod in_place;
pub mod keep_alive;
pub mod listener;
pub mod placed;
pub mod plugin_tools;
pub mod policy;
pub mod proxy;
pub mod proxy_protocol;
pub mod regular_file;
pub mod server;
pub mod signatures;
pub mod snapshot;
pub mod socket;
pub mod stream;
pub mod telemetry;
pub mod twins;
pub mod unix_socket;
pub mod worker;

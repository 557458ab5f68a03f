//! The gateway's library: everything but the start-up story, which `main.rs` tells.
//!
//! Floors, each importing only what is below it:
//! `cli → server → worker → listener → proxy → snapshot → {backend, policy} → {config, telemetry}`.
//! `backend` and `policy` do not know each other; `snapshot` alone joins them. `proxy_protocol` is a codec and depends on
//! nothing here, as `authority`, `hidden` and `regular_file`; `keep_alive`, `certificates` and `crypto` are for `listener` and `backend`;
//! `signatures` stands on `crypto`, below `config`; `convert` knows `config` alone, and `plugin_tools` only `config`, `policy` and
//! `signatures`.

pub mod accepted;
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
pub mod keep_alive;
pub mod listener;
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
pub mod worker;

//! Third-party components.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{At, Origin, Places};

/// `plugin "geo" "geo.wasm" { … }`: a third-party component.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// Its name, unique among plugins.
    pub name: Arc<str>,
    /// The component's file.
    pub path: At<PathBuf>,
    /// `sha256 "…"`: refused when the file has another digest.
    pub sha256: Option<At<[u8; 32]>>,
    /// `grant "log" "buckets"`: imports it may use beside the ones every plugin may.
    pub grants: Vec<Grant>,
    /// `limit cpu="10ms" memory="16MiB"`.
    pub limits: PluginLimits,
    /// `on-failure "deny" status=503`, or `"skip"`. None only when it is attached nowhere that decides access.
    pub on_failure: Option<OnFailure>,
    /// The `config { … }` block as JSON; `{}` when there is none.
    pub config: String,
    /// Where what `config` says was written.
    pub config_places: Places,
    /// Where it stands.
    pub origin: Origin,
}

/// An import that has to be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grant {
    /// `gateway:policy/buckets`.
    Buckets,
    /// `gateway:policy/log`.
    Log,
    /// `gateway:policy/clock`.
    Clock,
}

/// What one call of a plugin may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginLimits {
    /// CPU time of a call, enforced to the millisecond.
    pub cpu: Duration,
    /// Linear memory of an instance, in bytes.
    pub memory: u64,
}

/// What an exchange gets when a plugin fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// This status, 400 to 599; in TCP mode the connection is closed.
    Deny(u16),
    /// It goes on as if the plugin were not there; a predicate reads false.
    Skip,
}

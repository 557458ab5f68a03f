//! The first-party components: how they are built, and whether the built ones belong to their source.
//!
//! A crate and not a script, so that the digest that a build writes down and the digest that a test compares it with are
//! computed by the same lines.

pub mod guest;
pub mod manifest;
pub mod schema;
pub mod source;

use std::path::{Path, PathBuf};

/// A component that is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    /// The name of its file, without `.wasm`.
    pub name: &'static str,
    /// Its crate's folder in `plugins/`.
    pub plugin: &'static str,
    /// The features that it is built with.
    pub features: &'static str,
}

/// The components. Those that take patterns are built without the engine for them too: a third of the size, and of the
/// time that a gateway takes to compile them at its start.
pub const COMPONENTS: [Component; 15] = [
    Component {
        name: "acl",
        plugin: "acl",
        features: "",
    },
    Component {
        name: "acl-regex",
        plugin: "acl",
        features: "regex",
    },
    Component {
        name: "header-rewrite",
        plugin: "header-rewrite",
        features: "",
    },
    Component {
        name: "header-rewrite-regex",
        plugin: "header-rewrite",
        features: "regex",
    },
    Component {
        name: "rate-limit",
        plugin: "rate-limit",
        features: "",
    },
    Component {
        name: "cors",
        plugin: "cors",
        features: "",
    },
    Component {
        name: "security-headers",
        plugin: "security-headers",
        features: "",
    },
    Component {
        name: "api-key",
        plugin: "api-key",
        features: "",
    },
    Component {
        name: "basic-auth",
        plugin: "basic-auth",
        features: "",
    },
    Component {
        name: "bot-filter",
        plugin: "bot-filter",
        features: "",
    },
    Component {
        name: "canary-route",
        plugin: "canary-route",
        features: "",
    },
    Component {
        name: "ip-list",
        plugin: "ip-list",
        features: "",
    },
    Component {
        name: "jwt-auth",
        plugin: "jwt-auth",
        features: "",
    },
    Component {
        name: "maintenance",
        plugin: "maintenance",
        features: "",
    },
    Component {
        name: "request-id",
        plugin: "request-id",
        features: "",
    },
];

/// The workspace that this crate is in.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Where the built components are committed, in a workspace.
pub fn dist(workspace: &Path) -> PathBuf {
    workspace.join("plugins/dist")
}

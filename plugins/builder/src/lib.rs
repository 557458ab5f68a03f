//! The first-party components: how they are built, and whether the built ones belong to their source.
//!
//! A crate and not a script, so that the digest that a build writes down and the digest that a test compares it with are
//! computed by the same lines.

pub mod guest;
pub mod manifest;
pub mod source;

use std::path::{Path, PathBuf};

/// The components, by the names of their folders in `plugins/`.
pub const PLUGINS: [&str; 3] = ["acl", "header-rewrite", "rate-limit"];

/// The workspace that this crate is in.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Where the built components are committed, in a workspace.
pub fn dist(workspace: &Path) -> PathBuf {
    workspace.join("plugins/dist")
}

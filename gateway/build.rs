//! Says where the built first-party components are: in `plugins/dist`, unless GATEWAY_PLUGINS_DIST names another folder
//! (CI runs the tests on components that it has just rebuilt).

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    let here = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let committed = || here.parent().unwrap_or(Path::new("..")).join("plugins/dist");
    let dist = env::var_os("GATEWAY_PLUGINS_DIST").map_or_else(committed, |dist| here.join(dist));
    println!("cargo:rustc-env=GATEWAY_PLUGINS_DIST={}", dist.display());
    println!("cargo:rerun-if-env-changed=GATEWAY_PLUGINS_DIST");
    println!("cargo:rerun-if-changed=build.rs");
}

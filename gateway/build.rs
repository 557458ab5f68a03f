//! Lets the first-party components come from another folder than `plugins/dist`: the one that GATEWAY_PLUGINS_DIST names.
//! CI runs the tests so on components that it has just rebuilt.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // A linker that cannot do one of these says so and goes on. Relocations in a tenth of the room, half a megabyte that would be
        // read at every start.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        // What hardly ever runs (panics, faults) lies apart: the kernel maps 16 pages around each that is used, and a quarter of a megabyte
        // less of the program is in memory so.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,keep-text-section-prefix");
    }
    println!("cargo:rerun-if-env-changed=GATEWAY_PLUGINS_DIST");
    println!("cargo:rustc-check-cfg=cfg(plugins_from_elsewhere)");
    if let Some(dist) = env::var_os("GATEWAY_PLUGINS_DIST") {
        // A relative one is meant from the workspace, where cargo is run.
        let workspace = env::var_os("CARGO_MANIFEST_DIR")
            .map(PathBuf::from)
            .unwrap_or_default()
            .join("..");
        println!("cargo:rustc-cfg=plugins_from_elsewhere");
        println!(
            "cargo:rustc-env=GATEWAY_PLUGINS_DIST={}",
            workspace.join(dist).display()
        );
    }
}

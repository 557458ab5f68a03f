//! The committed components belong to their source.

use gateway_plugins_builder::{COMPONENTS, dist, manifest, workspace};

#[test]
fn built_components_belong_to_their_source() {
    let workspace = workspace();
    // As the gateway's build script takes it.
    let elsewhere = std::env::var_os("GATEWAY_PLUGINS_DIST").map(|folder| workspace.join(folder));
    let folder = elsewhere.unwrap_or_else(|| dist(&workspace));
    let wrong = manifest::verify(&workspace, &folder, &COMPONENTS).expect("the manifest and the sources are there");
    assert!(
        wrong.is_empty(),
        "run plugins/build and commit plugins/dist:\n{}",
        wrong.join("\n")
    );
}

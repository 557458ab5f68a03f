//! The committed components belong to their source.

use gateway_plugins_builder::{COMPONENTS, dist, manifest, workspace};

#[test]
fn built_components_belong_to_their_source() {
    let workspace = workspace();
    let folder = std::env::var_os("GATEWAY_COMPONENTS_DIST").map_or_else(|| dist(&workspace), Into::into);
    let wrong = manifest::verify(&workspace, &folder, &COMPONENTS).expect("the manifest and the sources are there");
    assert!(
        wrong.is_empty(),
        "run plugins/build and commit plugins/dist:\n{}",
        wrong.join("\n")
    );
}

//! `plugins/build [--out DIR]`: builds the first-party components, into `plugins/dist` unless told otherwise.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use gateway_plugins_builder::guest::Toolchain;
use gateway_plugins_builder::manifest::{self, Entry};
use gateway_plugins_builder::{COMPONENTS, dist, schema, source, workspace};

fn main() -> Result<()> {
    let workspace = workspace();
    let out = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => dist(&workspace),
        [flag, folder] if flag == "--out" => PathBuf::from(folder),
        _ => bail!("usage: plugins/build [--out DIR]"),
    };
    fs::create_dir_all(&out).with_context(|| format!("{}", out.display()))?;
    // Apart from the host's: the same crates, built by another compiler with other flags.
    let target_dir = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let target_dir = target_dir.join("guest");

    let toolchain = Toolchain::find()?;
    println!("building into {} with {}", out.display(), toolchain.describe());
    let mut entries = Vec::new();
    for component in &COMPONENTS {
        let mut bytes = toolchain.build(&workspace, component, &target_dir)?;
        schema::add(&workspace, component, &mut bytes)?;
        let file = manifest::file(&out, component.name);
        fs::write(&file, &bytes).with_context(|| format!("{}", file.display()))?;
        println!("{}: {} bytes", component.name, bytes.len());
        entries.push(Entry {
            component: component.name.to_owned(),
            file: manifest::digest_file(&file)?,
            source: source::digest(&workspace, component)?,
        });
    }
    manifest::write(&out, &entries)
}

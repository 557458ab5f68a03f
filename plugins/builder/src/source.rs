//! A digest over everything that makes a component: its crate, the SDK, the contract, the build profile, the
//! schema of its configuration, how it is built, and the exact dependencies. It says nothing about the toolchain, so it is the same on every machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{Component, schema};

/// The digest of a component's source, in hexadecimal.
///
/// # Errors
/// A file that cannot be read, or a dependency that `Cargo.lock` does not know.
pub fn digest(workspace: &Path, component: &Component) -> Result<String> {
    let parts = parts(workspace, component)?;
    let mut digest = Sha256::new();
    for (name, content) in parts {
        // Lengths keep one part's end from being another's beginning.
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(&name);
        digest.update((content.len() as u64).to_le_bytes());
        digest.update(&content);
    }
    Ok(hex(&digest.finalize()))
}

/// A SHA-256 in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the digest covers, by name.
fn parts(workspace: &Path, component: &Component) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut parts = BTreeMap::new();
    let manifest = read(&workspace.join("Cargo.toml"))?;
    let lock = read(&workspace.join("Cargo.lock"))?;
    let shared = section(&manifest, "[workspace.dependencies]");
    for header in ["[profile.release]", "[profile.guest]"] {
        // The guests' profile inherits the other.
        let profile = section(&manifest, header).join("\n");
        parts.insert(header.to_owned(), profile.into_bytes());
    }
    let package = section(&manifest, "[workspace.package]").into_iter();
    let version = package.filter(|line| matches!(key(line), Some("version" | "edition")));
    parts.insert(
        "version".to_owned(),
        version.collect::<Vec<_>>().join("\n").into_bytes(),
    );
    let builder = read(&workspace.join("plugins/builder/src/guest.rs"))?;
    parts.insert("builder".to_owned(), builder.into_bytes());
    if let Some(schema) = schema::read(workspace, component)? {
        let how = read(&workspace.join("plugins/builder/src/schema.rs"))?;
        parts.insert("schema".to_owned(), (how + &schema).into_bytes());
    }
    parts.insert("features".to_owned(), component.features.as_bytes().to_vec());
    parts.insert(
        "wit".to_owned(),
        without_comments(&read(&workspace.join("wit/policy.wit"))?).into_bytes(),
    );

    let mut external = BTreeSet::new();
    let mut crates = vec![format!("plugins/{}", component.plugin)];
    while let Some(folder) = crates.pop() {
        let text = read(&workspace.join(&folder).join("Cargo.toml"))?;
        for dependency in dependencies(&text) {
            if let Some(line) = shared.iter().find(|line| key(line) == Some(dependency)) {
                parts.insert(format!("dependency {dependency}"), line.as_bytes().to_vec());
            }
            match folder_of(dependency) {
                Some(folder) => crates.push(folder),
                None => drop(external.insert(dependency.to_owned())),
            }
        }
        parts.insert(format!("{folder}/Cargo.toml"), guest_sections(&text).into_bytes());
        files(
            &workspace.join(&folder).join("src"),
            &format!("{folder}/src"),
            &mut parts,
        )?;
    }
    parts.insert("locked".to_owned(), Lock::parse(&lock).closure(&external)?.into_bytes());
    Ok(parts)
}

/// The folder of a crate of this workspace.
fn folder_of(dependency: &str) -> Option<String> {
    match dependency.strip_prefix("gateway-plugin-")? {
        "sdk" => Some("plugin-sdk".to_owned()),
        plugin => Some(format!("plugins/{plugin}")),
    }
}

/// The files of a folder, without those that only native tests see.
fn files(folder: &Path, name: &str, parts: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let entry = entry?;
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if NATIVE_ONLY.contains(&name.as_str()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            files(&entry.path(), &name, parts)?;
        } else if name.ends_with(".rs") {
            parts.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    // A checkout with other line ends has the same source.
    Ok(text.replace("\r\n", "\n"))
}

/// The lines of a manifest's section, without comments and empty lines.
fn section<'a>(manifest: &'a str, header: &str) -> Vec<&'a str> {
    let lines = manifest.lines().skip_while(|line| line.trim() != header).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// The sections of a plugin's manifest that a guest build depends on.
fn guest_sections(manifest: &str) -> String {
    let headers = manifest
        .lines()
        .filter(|line| is_guest_dependencies(line) || line.trim() == "[features]");
    headers
        .map(|header| format!("{header}\n{}\n", section(manifest, header).join("\n")))
        .collect()
}

/// What a plugin's manifest depends on in a guest build.
fn dependencies(manifest: &str) -> Vec<&str> {
    let headers = manifest.lines().filter(|line| is_guest_dependencies(line));
    headers
        .flat_map(|header| section(manifest, header))
        .filter_map(key)
        .collect()
}

fn is_guest_dependencies(line: &str) -> bool {
    line.trim() == "[dependencies]" || line.starts_with("[target.") && line.contains("wasm32")
}

/// The key of a line such as `serde.workspace = true` or `serde = { … }`.
fn key(line: &str) -> Option<&str> {
    let key = line.split(['=', '.']).next()?.trim();
    (!key.is_empty()).then_some(key)
}

/// The contract without comments: a better word in one of those makes no other component.
fn without_comments(wit: &str) -> String {
    let lines = wit
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// `Cargo.lock`, as far as it is needed.
struct Lock<'a>(Vec<Locked<'a>>);

/// A package in it.
#[derive(Default)]
struct Locked<'a> {
    name: &'a str,
    version: &'a str,
    checksum: &'a str,
    /// `name`, or `name version` where there are several.
    dependencies: Vec<&'a str>,
}

impl<'a> Lock<'a> {
    fn parse(text: &'a str) -> Self {
        let packages = text.split("[[package]]").skip(1).map(|block| {
            let mut package = Locked::default();
            for line in block.lines() {
                match line.split_once(" = ") {
                    Some(("name", value)) => package.name = value.trim_matches('"'),
                    Some(("version", value)) => package.version = value.trim_matches('"'),
                    Some(("checksum", value)) => package.checksum = value.trim_matches('"'),
                    None if line.starts_with(" \"") => {
                        package.dependencies.push(line.trim_matches([' ', '"', ',']));
                    }
                    _ => {}
                }
            }
            package
        });
        Self(packages.collect())
    }

    /// All packages that the wanted ones lead to, one a line.
    fn closure(&self, wanted: &BTreeSet<String>) -> Result<String> {
        let mut seen = BTreeMap::new();
        let mut open: Vec<&str> = wanted.iter().map(String::as_str).collect();
        while let Some(wanted) = open.pop() {
            let (name, version) = wanted.split_once(' ').unwrap_or((wanted, ""));
            let mut found = self
                .0
                .iter()
                .filter(|package| package.name == name && package.version.starts_with(version));
            let Some(package) = found.next() else {
                bail!("Cargo.lock does not know {wanted}");
            };
            if seen.insert((package.name, package.version), package.checksum).is_none() {
                open.extend(&package.dependencies);
            }
        }
        Ok(seen
            .iter()
            .map(|((name, version), checksum)| format!("{name} {version} {checksum}\n"))
            .collect())
    }
}

/// Compiled natively only: they may change without a rebuild.
const NATIVE_ONLY: [&str; 2] = ["plugin-sdk/src/test", "plugin-sdk/src/sys/native.rs"];

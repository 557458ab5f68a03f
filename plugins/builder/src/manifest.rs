//! `plugins/dist/MANIFEST`: which files were built, of which source.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::Component;
use crate::source::{self, hex};

/// A built component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub component: String,
    /// SHA-256 of the built file, in hexadecimal.
    pub file: String,
    /// Digest of its source; see [`source::digest`].
    pub source: String,
}

/// Reads the manifest of a folder.
///
/// # Errors
/// It is not there or not a manifest.
pub fn read(dist: &Path) -> Result<Vec<Entry>> {
    let path = dist.join(NAME);
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [component, file, source] => Ok(Entry {
                component: component.to_owned(),
                file: file.to_owned(),
                source: source.to_owned(),
            }),
            _ => bail!("{}: not `component file source`: {line}", path.display()),
        })
        .collect()
}

/// Writes the manifest of a folder.
///
/// # Errors
/// It cannot be written.
pub fn write(dist: &Path, entries: &[Entry]) -> Result<()> {
    let mut text = String::from(HEADER);
    for Entry {
        component,
        file,
        source,
    } in entries
    {
        writeln!(text, "{component} {file} {source}")?;
    }
    let path = dist.join(NAME);
    fs::write(&path, text).with_context(|| format!("{}", path.display()))
}

/// What is wrong with the built components of a folder: one line each, empty when they all belong to their source.
///
/// # Errors
/// Something cannot be read.
pub fn verify(workspace: &Path, dist: &Path, components: &[Component]) -> Result<Vec<String>> {
    let entries = read(dist)?;
    let mut wrong = Vec::new();
    for component in components {
        let name = component.name;
        let Some(entry) = entries.iter().find(|entry| entry.component == name) else {
            wrong.push(format!("{name}: not in the manifest"));
            continue;
        };
        if digest_file(&file(dist, name))? != entry.file {
            wrong.push(format!("{name}: the built file is not the one that the manifest names"));
        }
        if source::digest(workspace, component)? != entry.source {
            wrong.push(format!("{name}: its source changed since it was built"));
        }
    }
    Ok(wrong)
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// It cannot be read.
pub fn digest_file(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("{}", path.display()))?;
    Ok(hex(&Sha256::digest(bytes)))
}

/// The file of a built component.
pub fn file(dist: &Path, component: &str) -> PathBuf {
    dist.join(format!("{component}.wasm"))
}

const NAME: &str = "MANIFEST";

const HEADER: &str =
    "# Written by plugins/build. A line is: component, sha256 of its built file, digest of its source.\n";

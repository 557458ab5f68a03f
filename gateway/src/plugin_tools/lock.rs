//! `gateway plugin lock`: writes the digests of components into the configuration that names them, where `check` and the gateway
//! hold the components to them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::replace::replace;
use crate::config::{self, ComponentSource, Config, Pin, Plugin};
use crate::policy::MAX_COMPONENT_BYTES;
use crate::regular_file;

/// What becomes of what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is written.
    Write,
    /// It is said.
    Check,
}

/// A plugin that has another digest than the configuration says, or for which it says none.
#[derive(Debug)]
struct Change<'a> {
    plugin: &'a Plugin,
    found: [u8; 32],
}

/// Locks the components of a configuration that was read from `path`, or says what locking would change. Answers whether that is
/// anything.
///
/// # Errors
/// When a component cannot be read or the configuration cannot be written; then it is as it was.
pub fn lock(path: &Path, config: &Config, mode: Mode) -> Result<bool> {
    let (changes, locked) = changes(config)?;
    for Change { plugin, found } in &changes {
        let before = plugin.sha256.map(|before| format!(", was {}", hex(&before.value)));
        println!("{}: sha256 {}{}", plugin.name, hex(found), before.unwrap_or_default());
    }
    let name = path.display();
    if changes.is_empty() {
        match locked {
            0 => println!("{name} names no component to lock"),
            n => println!("{name} is locked: {n} as it says"),
        }
        return Ok(false);
    }
    if mode == Mode::Check {
        println!(
            "{name} is not locked: `gateway plugin lock` would write {}",
            changes.len()
        );
        return Ok(true);
    }
    let mut texts: Vec<(PathBuf, String, String)> = Vec::new();
    for file in files(&changes) {
        let pins: Vec<Pin> = changes
            .iter()
            .filter(|change| *change.plugin.origin.file == *file)
            .map(|change| Pin {
                line: change.plugin.origin.line,
                name: own_name(config, change.plugin).to_owned(),
                sha256: change.found,
            })
            .collect();
        let text = read(Path::new(&file))?;
        let changed = config::write_digests(&text, &pins).with_context(|| file.clone())?;
        texts.push((file.into(), text, changed));
    }
    for (file, before, changed) in texts {
        // It was parsed some time ago: an editor may have been quicker.
        ensure!(read(&file)? == before, "{} has changed meanwhile", file.display());
        replace(&file, changed.as_bytes()).with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!("{name} is locked: {} written, {locked} as it said", changes.len());
    Ok(true)
}

/// What is to be changed, and how many are as they should be.
fn changes(config: &Config) -> Result<(Vec<Change<'_>>, usize)> {
    let (mut changes, mut locked, mut errors) = (Vec::new(), 0, Vec::new());
    for plugin in &config.plugins {
        let ComponentSource::File(path) = &plugin.component.value else {
            continue;
        };
        if plugin.folder.is_some() {
            // Its names are a tenant's to lead where he likes, now and while this writes.
            println!("{}: stands in its tenant's file, and is left to him", plugin.name);
            continue;
        }
        let found: [u8; 32] = match regular_file::read(path, MAX_COMPONENT_BYTES) {
            Ok(bytes) => Sha256::digest(bytes).into(),
            Err(error) => {
                errors.push(format!("plugin {:?}: {}: {error}", plugin.name, path.display()));
                continue;
            }
        };
        match plugin.sha256.is_some_and(|said| said.value == found) {
            true => locked += 1,
            false => changes.push(Change { plugin, found }),
        }
    }
    match errors.is_empty() {
        true => Ok((changes, locked)),
        false => bail!("{}", errors.join("\ngateway: ")),
    }
}

/// What a plugin is called where it stands: a tenant's has the tenant's name before it everywhere else.
fn own_name<'a>(config: &Config, plugin: &'a Plugin) -> &'a str {
    let tenant = plugin.tenant.and_then(|id| config.tenants.get(id.0));
    let own = tenant.and_then(|tenant| plugin.name.strip_prefix(&*tenant.name)?.strip_prefix('/'));
    own.unwrap_or(&plugin.name)
}

/// The files that the plugins stand in, each once.
fn files(changes: &[Change<'_>]) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for change in changes {
        let file = &*change.plugin.origin.file;
        if !files.iter().any(|known| known == file) {
            files.push(file.to_owned());
        }
    }
    files
}

fn read(file: &Path) -> Result<String> {
    let bytes =
        regular_file::read(file, config::MAX_BYTES).with_context(|| format!("cannot read {}", file.display()))?;
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", file.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

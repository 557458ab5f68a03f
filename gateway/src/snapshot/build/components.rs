//! Components: read, and compiled at most once.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Builder, schemas};
use crate::config::{self, ComponentSource};
use crate::policy::{Component, MAX_COMPONENT_BYTES, PolicyError, first_party};
use crate::regular_file;
use crate::snapshot::{BuildError, PluginAt};

/// Components by what was compiled.
#[derive(Default)]
pub struct Compiled(HashMap<Source, Arc<Component>>);

impl Compiled {
    /// Adds those of others.
    pub(super) fn add(&mut self, others: Self) {
        self.0.extend(others.0);
    }
}

/// What makes two compiled components the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Source {
    label: Arc<str>,
    sha256: [u8; 32],
    grants: Vec<config::Grant>,
}

/// Who made a component.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// It is part of the gateway.
    Ours,
    /// Somebody else did: what compiling it takes is bounded.
    Elsewhere,
}

impl Builder<'_> {
    /// A plugin's component and the configuration that it is to get.
    pub(super) fn plugin(&mut self, plugin: &config::Plugin) -> (Option<Arc<Component>>, Option<String>) {
        if self.goes_on_as_before(plugin) {
            return self.as_before(plugin);
        }
        let config = self.config_of(plugin);
        // Without its configuration it could only be refused.
        let component = config.as_ref().and_then(|config| self.load(plugin, config));
        if plugin.folder.is_some()
            && let (Some(_), Some(config)) = (&component, &config)
        {
            self.made.of(plugin).config.clone_from(config);
        }
        (component, config)
    }

    /// Reads and compiles a plugin's component, and holds the configuration that it is to get against its schema.
    pub(super) fn load(&mut self, plugin: &config::Plugin, config: &str) -> Option<Arc<Component>> {
        let at = PluginAt::of(plugin);
        let path = match &plugin.component.value {
            ComponentSource::File(path) => path,
            ComponentSource::BuiltIn(built_in) => {
                let wasm = first_party::shelf(*built_in);
                return self.make(plugin, Made::Ours, sha256(wasm), wasm, config);
            }
        };
        let wasm = match file_of(plugin, path, MAX_COMPONENT_BYTES) {
            Ok(wasm) => wasm,
            Err(source) => return self.fail(BuildError::PluginFile { plugin: at, source }),
        };
        let found = sha256(&wasm);
        if plugin.folder.is_some() {
            self.made.of(plugin).sha256 = Some(found);
        }
        self.is_trusted(plugin, path, &found, |path, most| file_of(plugin, path, most))?;
        if let Err(error) = check_digest(plugin, found) {
            return self.fail(*error);
        }
        self.make(plugin, Made::Elsewhere, found, &wasm, config)
    }

    fn make(
        &mut self,
        plugin: &config::Plugin,
        made: Made,
        sha256: [u8; 32],
        wasm: &[u8],
        config: &str,
    ) -> Option<Arc<Component>> {
        // Both are tried, so that what is wrong with one hides nothing of the other.
        let misfits = schemas::misfits(plugin, wasm, config);
        let fits = misfits.is_empty();
        self.errors.extend(misfits);
        match self.compile(made, &plugin.name, sha256, wasm, &plugin.grants) {
            Ok(component) => Some(component).filter(|_| fits),
            Err(source) => self.fail(BuildError::Plugin {
                plugin: PluginAt::of(plugin),
                source,
            }),
        }
    }

    /// A plugin's configuration: its `config` block, and the texts of its files in it.
    fn config_of(&mut self, plugin: &config::Plugin) -> Option<String> {
        let config = config_of(plugin).map_or_else(|error| self.fail(*error), Some)?;
        let strangers = plugin.tenant.filter(|_| plugin.folder.is_some());
        if let (Some(tenant), Some(file)) = (strangers, plugin.config_files.last()) {
            let left = self.config_left.entry(tenant.0).or_insert(MAX_CONFIG_FILE);
            let Some(rest) = left.checked_sub(config.len()) else {
                let most = MAX_CONFIG_FILE >> 20;
                return self.fail(BuildError::ConfigFile {
                    plugin: PluginAt::of(plugin),
                    path: file.path.clone(),
                    message: format!("with it the configurations of this tenant's plugins have more than {most} MiB"),
                });
            };
            *left = rest;
        }
        Some(config)
    }

    /// A component, compiled at most once, and not at all when the configuration before had it.
    pub(super) fn compile(
        &mut self,
        made: Made,
        label: &str,
        sha256: [u8; 32],
        wasm: &[u8],
        grants: &[config::Grant],
    ) -> Result<Arc<Component>, PolicyError> {
        if let Some(component) = self.compiled(label, sha256, grants) {
            return Ok(component);
        }
        let component = match made {
            Made::Ours => self.policy.compile(label, wasm, grants)?,
            Made::Elsewhere => self.policy.compile_strangers(label, wasm, grants)?,
        };
        let source = Source::new(label, sha256, grants);
        self.compiled.0.insert(source, component.clone());
        Ok(component)
    }

    /// One that has been compiled.
    pub(super) fn compiled(
        &mut self,
        label: &str,
        sha256: [u8; 32],
        grants: &[config::Grant],
    ) -> Option<Arc<Component>> {
        let source = Source::new(label, sha256, grants);
        let mut known = std::iter::once(&self.compiled).chain(self.known.iter().copied());
        let component = known.find_map(|known| known.0.get(&source))?.clone();
        self.compiled.0.insert(source, component.clone());
        Some(component)
    }
}

impl Source {
    fn new(label: &str, sha256: [u8; 32], grants: &[config::Grant]) -> Self {
        Self {
            label: label.into(),
            sha256,
            grants: grants.to_vec(),
        }
    }
}

/// A plugin's configuration, with the texts of its files in it.
pub(super) fn config_of(plugin: &config::Plugin) -> Result<String, Box<BuildError>> {
    if plugin.config_files.is_empty() {
        return Ok(plugin.config.clone());
    }
    // It was written by this gateway, of a block: an object.
    let mut config: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&plugin.config).unwrap_or_default();
    // Of what a tenant's file names, so much in all: the operator knows how many files he names.
    let mut left = MAX_CONFIG_FILE;
    for file in &plugin.config_files {
        let text = text_of(plugin, &file.path.value, left).map_err(|message| {
            Box::new(BuildError::ConfigFile {
                plugin: PluginAt::of(plugin),
                path: file.path.clone(),
                message,
            })
        })?;
        left -= plugin.folder.as_ref().map_or(0, |_| text.len());
        config.insert(file.key.value.clone(), text.into());
    }
    Ok(serde_json::Value::Object(config).to_string())
}

/// Refuses a component whose file is not the one that was meant.
pub(super) fn check_digest(plugin: &config::Plugin, found: [u8; 32]) -> Result<(), Box<BuildError>> {
    match plugin.sha256 {
        Some(expected) if found != expected.value => Err(Box::new(BuildError::Digest {
            plugin: PluginAt::of(plugin),
            at: expected.span,
            found,
        })),
        _ => Ok(()),
    }
}

/// A file that a plugin's block names.
pub(super) fn file_of(plugin: &config::Plugin, path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let Some(folder) = &plugin.folder else {
        return regular_file::read(path, most);
    };
    match path.strip_prefix(folder) {
        Ok(path) => regular_file::read_beneath(folder, path, most),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is not in the folder of its tenant",
        )),
    }
}

fn text_of(plugin: &config::Plugin, path: &Path, most: usize) -> Result<String, String> {
    let bytes = file_of(plugin, path, most).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// Bytes. Five times a list of a hundred thousand networks; an instance has to hold it while it reads it.
const MAX_CONFIG_FILE: usize = 16 << 20;

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

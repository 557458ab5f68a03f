//! Components: read, and compiled at most once, whoever uses them.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Builder, schemas};
use crate::config::{self, ComponentSource, TenantId};
use crate::policy::{
    Attachment, AttachmentSpec, Code, CompileError, Component, MAX_COMPONENT_BYTES, PolicyError, Work, first_party,
};
use crate::regular_file;
use crate::snapshot::{BuildError, PluginAt};

/// What was compiled.
#[derive(Debug, Default)]
pub struct Compiled {
    components: HashMap<Source, Arc<Component>>,
    /// By the digests of what it was made of; or why there is none.
    code: HashMap<[u8; 32], Result<Code, CompileError>>,
}

impl Compiled {
    /// Adds what others have compiled.
    pub(super) fn add(&mut self, others: Self) {
        self.components.extend(others.components);
        self.code.extend(others.code);
    }
}

/// What makes two compiled components the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    /// Somebody else, and a file of this tenant's names it: what compiling all such takes is bounded, too.
    For(TenantId),
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
        let made = match plugin.tenant.filter(|_| plugin.folder.is_some()) {
            Some(tenant) => Made::For(tenant),
            None => Made::Elsewhere,
        };
        self.make(plugin, made, found, &wasm, config)
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

    /// A component. Its code is made at most once, whatever it is called and granted, and not at all when the configuration before had it.
    pub(super) fn compile(
        &mut self,
        made: Made,
        label: &str,
        sha256: [u8; 32],
        wasm: &[u8],
        grants: &[config::Grant],
    ) -> Result<Arc<Component>, PolicyError> {
        let component = match self.compiled(label, sha256, grants) {
            Some(component) => component,
            None => {
                let code = self.code(made, label, sha256, wasm)?;
                let component = self.policy.component(label, &code, grants)?;
                let source = Source::new(label, sha256, grants);
                self.compiled.components.insert(source, component.clone());
                component
            }
        };
        if let Made::For(tenant) = made {
            self.keep_code_for(tenant, label, sha256, grants, component.code_bytes())?;
        }
        Ok(component)
    }

    /// Counts machine code of a component that a tenant's file names, once however often it does. What is too much is not kept: data that a
    /// component brings takes no time to compile.
    fn keep_code_for(
        &mut self,
        tenant: TenantId,
        label: &str,
        sha256: [u8; 32],
        grants: &[config::Grant],
        bytes: u64,
    ) -> Result<(), PolicyError> {
        let limit = self.config.tenants[tenant.0].machine_code;
        let limit = limit.unwrap_or(config::DEFAULT_MACHINE_CODE);
        let kept = self.machine_code.entry(tenant.0).or_default();
        kept.insert(sha256, bytes);
        if kept.values().fold(0, |all: u64, bytes| all.saturating_add(*bytes)) <= limit {
            return Ok(());
        }
        kept.remove(&sha256);
        self.compiled.components.remove(&Source::new(label, sha256, grants));
        self.compiled.code.remove(&sha256);
        Err(PolicyError::CodeQuota {
            label: label.to_owned(),
            limit,
        })
    }

    fn code(&mut self, made: Made, label: &str, sha256: [u8; 32], wasm: &[u8]) -> Result<Code, PolicyError> {
        let mut known = std::iter::once(&self.compiled).chain(self.known.iter().copied());
        let code = match known.find_map(|known| known.code.get(&sha256)) {
            Some(code) => code.clone(),
            None => match made {
                Made::Ours => self.policy.code(wasm, &sha256),
                Made::Elsewhere => self.policy.code_of_strangers(wasm, &sha256, Duration::MAX).0,
                Made::For(tenant) => self.code_for(tenant, label, sha256, wasm)?,
            },
        };
        self.compiled.code.insert(sha256, code.clone());
        code.map_err(|error| error.of(label))
    }

    /// As long as the tenant's files may take any longer. One that takes too much leaves nothing for the rest of them: a load waits for as
    /// long as one component may take, and not for each of a tenant's many.
    fn code_for(
        &mut self,
        tenant: TenantId,
        label: &str,
        sha256: [u8; 32],
        wasm: &[u8],
    ) -> Result<Result<Code, CompileError>, PolicyError> {
        let one = self.policy.compile_limits().cpu;
        let (all, left) = self.left_of(tenant);
        let used_up = || PolicyError::CompileQuota {
            label: label.to_owned(),
            most: all,
        };
        let most = *left;
        if most.is_zero() {
            return Err(used_up());
        }
        let (code, took) = self.policy.code_of_strangers(wasm, &sha256, most);
        let (_, left) = self.left_of(tenant);
        match &code {
            Err(CompileError::TooMuch(_)) => *left = Duration::ZERO,
            _ => *left = left.saturating_sub(took),
        }
        match code {
            // For somebody else it may not be too much.
            Err(CompileError::TooMuch(_)) if most < one => Err(used_up()),
            code => Ok(code),
        }
    }

    /// CPU time that a tenant's files may take in one load, and what is left of it.
    fn left_of(&mut self, tenant: TenantId) -> (Duration, &mut Duration) {
        let most = self.config.tenants[tenant.0].compile;
        let most = most.unwrap_or_else(|| config::compile_share(self.policy.compile_limits().cpu));
        (most, self.compile_left.entry(tenant.0).or_insert(most))
    }

    /// Makes a component ready to serve. What that takes counts where a tenant's file has it: a load waits for it, too.
    pub(super) fn set_up(
        &mut self,
        plugin: &config::Plugin,
        component: &Arc<Component>,
        spec: AttachmentSpec,
    ) -> Result<Arc<Attachment>, PolicyError> {
        let Some(tenant) = plugin.tenant.filter(|_| plugin.folder.is_some()) else {
            return self.policy.attach(component, spec);
        };
        let (most, left) = self.left_of(tenant);
        if left.is_zero() {
            let label = plugin.name.to_string();
            return Err(PolicyError::SetUpQuota { label, most });
        }
        let work = Work::begin(true);
        let attached = self.policy.attach(component, spec);
        let (_, left) = self.left_of(tenant);
        *left = left.saturating_sub(work.done(Instant::now()));
        attached
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
        let component = known.find_map(|known| known.components.get(&source))?.clone();
        let mut known = std::iter::once(&self.compiled).chain(self.known.iter().copied());
        // For others that have the same file.
        let code = known.find_map(|known| known.code.get(&sha256)).cloned();
        self.compiled.code.extend(code.map(|code| (sha256, code)));
        self.compiled.components.insert(source, component.clone());
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
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
        format!("it is not UTF-8: byte {at}, in line {line}, begins no character")
    })?;
    // What some editors begin a file with is no part of its first value.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// Bytes. Five times a list of a hundred thousand networks; an instance has to hold it while it reads it.
const MAX_CONFIG_FILE: usize = 16 << 20;

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

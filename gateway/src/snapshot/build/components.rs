//! Components: read, and compiled at most once.

use std::collections::HashMap;
use std::sync::Arc;

use super::Builder;
use crate::config;
use crate::policy::{Component, MAX_COMPONENT_BYTES, PolicyError};
use crate::regular_file;
use crate::snapshot::{BuildError, PluginAt};

/// Components by what was compiled.
#[derive(Default)]
pub(in crate::snapshot) struct Compiled(HashMap<Source, Arc<Component>>);

/// What makes two compiled components the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Source {
    label: Arc<str>,
    sha256: [u8; 32],
    grants: Vec<config::Grant>,
}

impl Builder<'_> {
    /// Reads and compiles a plugin's component.
    pub(super) fn load(&mut self, plugin: &config::Plugin) -> Option<Arc<Component>> {
        let at = PluginAt::of(plugin);
        let wasm = match regular_file::read(&plugin.path.value, MAX_COMPONENT_BYTES) {
            Ok(wasm) => wasm,
            Err(source) => return self.fail(BuildError::PluginFile { plugin: at, source }),
        };
        let found = sha256(&wasm);
        if let Some(expected) = plugin.sha256
            && found != expected.value
        {
            return self.fail(BuildError::Digest {
                plugin: at,
                at: expected.span,
                found,
            });
        }
        match self.compile(&plugin.name, found, &wasm, &plugin.grants) {
            Ok(component) => Some(component),
            Err(source) => self.fail(BuildError::Plugin { plugin: at, source }),
        }
    }

    /// A component, compiled at most once, and not at all when the configuration before had it.
    pub(super) fn compile(
        &mut self,
        label: &str,
        sha256: [u8; 32],
        wasm: &[u8],
        grants: &[config::Grant],
    ) -> Result<Arc<Component>, PolicyError> {
        let source = Source {
            label: label.into(),
            sha256,
            grants: grants.to_vec(),
        };
        let known = [Some(&self.compiled), self.known].into_iter().flatten();
        let component = match known.filter_map(|known| known.0.get(&source)).next() {
            Some(component) => component.clone(),
            None => self.policy.compile(label, wasm, grants)?,
        };
        self.compiled.0.insert(source, component.clone());
        Ok(component)
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

//! What was made of the files of tenants' own plugins. A tenant whose files are at fault is served by what was made of those before, and
//! that is not read again: the files that it came from may be the ones that are at fault.
//!
//! It is held to what the operator says now all the same: the keys that he trusts, the digest, what he grants.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::Builder;
use super::components::check_digest;
use crate::config::{self, ComponentSource, InForce};
use crate::policy::Component;
use crate::snapshot::{BuildError, PluginAt};

/// By the plugins' names.
#[derive(Default)]
pub(in crate::snapshot) struct MadeOfFiles(HashMap<Arc<str>, Made>);

/// Of one plugin.
#[derive(Clone, Default)]
pub(super) struct Made {
    /// Its configuration, with the texts of its files in it.
    pub(super) config: String,
    /// The digest of its component; none for one that is part of the gateway.
    pub(super) sha256: Option<[u8; 32]>,
    /// Who has signed it, as that lay beside the component; none where nothing did, or nobody has to.
    pub(super) signatures: Option<Vec<u8>>,
}

impl MadeOfFiles {
    pub(super) fn of(&mut self, plugin: &config::Plugin) -> &mut Made {
        self.0.entry(Arc::clone(&plugin.name)).or_default()
    }
}

impl Builder<'_> {
    /// Whether a plugin is one of a tenant whose files are at fault.
    pub(super) fn goes_on_as_before(&self, plugin: &config::Plugin) -> bool {
        let in_force = plugin.tenant.map(|id| self.config.tenants[id.0].in_force);
        plugin.folder.is_some() && in_force == Some(InForce::Before)
    }

    /// Its component and its configuration, as they were.
    pub(super) fn as_before(&mut self, plugin: &config::Plugin) -> (Option<Arc<Component>>, Option<String>) {
        let before = self.previous.and_then(|previous| previous.made.0.get(&plugin.name));
        let Some(before) = before.cloned() else {
            return (self.gone(plugin), None);
        };
        self.made.0.insert(Arc::clone(&plugin.name), before.clone());
        let component = match (&plugin.component.value, before.sha256) {
            (ComponentSource::BuiltIn(_), _) => self.load(plugin, &before.config),
            (ComponentSource::File(path), Some(sha256)) => self
                .is_trusted(plugin, path, &sha256, |_, _| {
                    let missing = || io::Error::from(io::ErrorKind::NotFound);
                    before.signatures.clone().ok_or_else(missing)
                })
                .and_then(|()| match check_digest(plugin, sha256) {
                    Ok(()) => {
                        let compiled = self.compiled(&plugin.name, sha256, &plugin.grants);
                        compiled.or_else(|| self.gone(plugin))
                    }
                    Err(error) => self.fail(*error),
                }),
            (ComponentSource::File(_), None) => self.gone(plugin),
        };
        (component, Some(before.config))
    }

    /// It cannot go on as it was.
    fn gone<T>(&mut self, plugin: &config::Plugin) -> Option<T> {
        let why = "what ran of it before cannot run any more";
        self.fail(BuildError::PluginFile {
            plugin: PluginAt::of(plugin),
            source: io::Error::new(io::ErrorKind::NotFound, why),
        })
    }
}

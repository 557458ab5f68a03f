//! Whether components are signed by whom the configuration trusts.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Builder;
use super::components::check_digest;
use crate::config::{self, Config, KeySource, TrustList, TrustedKey};
use crate::crypto::VerifyingKey;
use crate::signatures;
use crate::snapshot::{BuildError, PluginAt};

/// The keys of a configuration, by list.
pub(super) struct Trust {
    top: Keys,
    tenants: Vec<Keys>,
}

/// The keys of one list; none where one of them could not be read, which has been reported.
type Keys = Option<Vec<(Arc<str>, VerifyingKey)>>;

impl Trust {
    /// Reads the keys that are in files. What is wrong with one is reported.
    pub(super) fn read(config: &Config, errors: &mut Vec<BuildError>) -> Self {
        let mut keys = |list| read(config.trusted(list), errors);
        Self {
            top: keys(TrustList::Top),
            tenants: (0..config.tenants.len())
                .map(|tenant| keys(TrustList::Tenant(tenant)))
                .collect(),
        }
    }

    fn keys(&self, list: TrustList) -> &Keys {
        match list {
            TrustList::Top => &self.top,
            TrustList::Tenant(tenant) => self.tenants.get(tenant).unwrap_or(&self.top),
        }
    }
}

impl Builder<'_> {
    /// Whether a plugin's component may be used, whose bytes have this digest: always, where nobody has to have signed it. The
    /// digest is of the bytes that are compiled, so that nothing can come between.
    /// `read` reads the file of signatures.
    pub(super) fn is_trusted(
        &mut self,
        plugin: &config::Plugin,
        path: &Path,
        sha256: &[u8; 32],
        read: impl FnOnce(&Path, usize) -> io::Result<Vec<u8>>,
    ) -> Option<()> {
        let named = self.trust.keys(self.config.trust_list(plugin)).as_ref()?;
        if named.is_empty() {
            return Some(());
        }
        let keys: Vec<VerifyingKey> = named.iter().map(|(_, key)| *key).collect();
        let mut signed = None;
        let read = |path: &Path, most| {
            let bytes = read(path, most)?;
            signed = Some(bytes.clone());
            Ok(bytes)
        };
        let Err(source) = signatures::signer(path, sha256, &keys, read) else {
            if plugin.folder.is_some() {
                self.made.of(plugin).signatures = signed;
            }
            return Some(());
        };
        // With another digest than the one that is said, both are to be mended.
        if let Err(error) = check_digest(plugin, *sha256) {
            self.errors.push(*error);
        }
        let tried: Vec<String> = named
            .iter()
            .map(|(name, key)| format!("{name} ({})", key.id()))
            .collect();
        self.fail(BuildError::Unsigned {
            plugin: PluginAt::of(plugin),
            tried: tried.join(", "),
            source,
        })
    }
}

fn read(keys: &[TrustedKey], errors: &mut Vec<BuildError>) -> Keys {
    let read: Vec<Option<_>> = keys
        .iter()
        .map(|of| match &of.key {
            KeySource::Said(key) => Some((of.name.clone(), *key)),
            KeySource::File(path) => match signatures::read_verifying_key(&path.value) {
                Ok(key) => Some((of.name.clone(), key)),
                Err(source) => {
                    errors.push(BuildError::TrustedKey {
                        origin: of.origin.clone(),
                        path: path.clone(),
                        source,
                    });
                    None
                }
            },
        })
        .collect();
    read.into_iter().collect()
}

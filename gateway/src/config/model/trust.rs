//! Who has to have signed components.

use std::path::PathBuf;
use std::sync::Arc;

use super::{At, Config, Origin, Plugin};
use crate::crypto::VerifyingKey;

/// `trust "ci" key="…"`: a key that is believed.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    /// What it is called.
    pub name: Arc<str>,
    /// The key.
    pub key: KeySource,
    /// Where it stands.
    pub origin: Origin,
}

/// Where a key is.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// `key="MCow…"`.
    Said(VerifyingKey),
    /// `file="ci.pub"`, read whenever a configuration is made ready.
    File(At<PathBuf>),
}

/// Which keys hold for a plugin: its tenant's own, where it has some, else those at the top of the file. Both are the operator's
/// to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustList {
    /// Of all who have none of their own.
    Top,
    /// Of the tenant at this position.
    Tenant(usize),
}

impl Config {
    /// The list that holds for a plugin.
    pub fn trust_list(&self, plugin: &Plugin) -> TrustList {
        let says = |tenant: &usize| self.tenants.get(*tenant).is_some_and(|tenant| !tenant.trust.is_empty());
        let tenant = plugin.tenant.map(|id| id.0).filter(says);
        tenant.map_or(TrustList::Top, TrustList::Tenant)
    }

    /// The keys of a list. When it is empty, nobody has to have signed.
    pub fn trusted(&self, list: TrustList) -> &[TrustedKey] {
        match list {
            TrustList::Top => &self.trust,
            TrustList::Tenant(tenant) => self.tenants.get(tenant).map_or(&[], |tenant| &tenant.trust),
        }
    }
}

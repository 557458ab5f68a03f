//! The tenant whose plugin is read, and what the operator leaves to it.

use crate::config::model::{BackendId, Grant, KeptQuota, SaidLimits, TenantId};
use crate::config::reader::At;

/// Whose plugins are read.
pub(in crate::config::lower) struct Owner<'a> {
    pub(in crate::config::lower) name: &'a str,
    pub(in crate::config::lower) id: TenantId,
    /// `limit cpu="5ms"` of the tenant's.
    pub(in crate::config::lower) limits: SaidLimits,
    /// `quota kv="16MiB"` of the tenant's.
    pub(in crate::config::lower) kept: KeptQuota,
    /// `quota host-memory="64MiB"` of the tenant's.
    pub(in crate::config::lower) host_memory: Option<At<u64>>,
    /// `grant "log"` of the tenant's: what its plugins may be granted.
    pub(in crate::config::lower) grants: Option<Vec<Grant>>,
    /// `backends "acme"` of the tenant's: where its plugins may lead, and what they may call.
    pub(in crate::config::lower) backends: Option<Vec<BackendId>>,
}

/// What there is of something for the plugins of the tenant of this name.
pub(in crate::config::lower) type Of<'a, T> = Option<(&'a str, &'a [T])>;

impl Owner<'_> {
    /// What a plugin may be granted; none for anything. The tenant's own files have what the operator gives, and nothing else.
    pub(super) fn grants(&self, is_included: bool) -> Of<'_, Grant> {
        let grants = self.grants.as_deref().or(is_included.then_some::<&[Grant]>(&[]))?;
        Some((self.name, grants))
    }

    /// Where it may lead, likewise.
    pub(in crate::config::lower) fn backends(&self, is_included: bool) -> Of<'_, BackendId> {
        let backends = self
            .backends
            .as_deref()
            .or(is_included.then_some::<&[BackendId]>(&[]))?;
        Some((self.name, backends))
    }

    /// What a plugin of a tenant's is called by everybody else.
    pub(in crate::config::lower) fn full(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }
}

//! Whose a use of a plugin is, where owners share something out among them.

use std::sync::Arc;

use super::attachment::Attachment;

/// Who has a share. Operators and tenants choose their names without each other, so that a name alone says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// A plugin of the operator's, by its name: each has a share of its own.
    Plugin(Arc<str>),
    /// A tenant, by its name: all its plugins have one together.
    Tenant(Arc<str>),
}

impl Attachment {
    /// Whose it is.
    pub(super) fn owner(&self) -> Owner {
        match &self.scope.tenant {
            Some(tenant) => Owner::Tenant(Arc::clone(&tenant.name)),
            None => Owner::Plugin(Arc::clone(&self.identity.label)),
        }
    }
}

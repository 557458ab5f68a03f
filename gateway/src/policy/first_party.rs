//! The first-party components: shipped inside the binary, run like anybody's.

use crate::config::Grant;

/// A component that ships with the gateway.
#[derive(Debug, Clone, Copy)]
pub struct FirstParty {
    /// Its name, as its `describe` says it.
    pub name: &'static str,
    /// The component.
    pub wasm: &'static [u8],
    /// What it is granted: what it uses, no more.
    pub grants: &'static [Grant],
}

/// Answers the predicates of `acl`.
pub const ACL: FirstParty = FirstParty {
    name: "acl",
    wasm: include_bytes!(concat!(env!("GATEWAY_PLUGINS_DIST"), "/acl.wasm")),
    grants: &[],
};

/// Makes the edits of `request { … }` and `response { … }`.
pub const HEADER_REWRITE: FirstParty = FirstParty {
    name: "header-rewrite",
    wasm: include_bytes!(concat!(env!("GATEWAY_PLUGINS_DIST"), "/header-rewrite.wasm")),
    grants: &[],
};

/// Classifies requests for `rate-limit`.
pub const RATE_LIMIT: FirstParty = FirstParty {
    name: "rate-limit",
    wasm: include_bytes!(concat!(env!("GATEWAY_PLUGINS_DIST"), "/rate-limit.wasm")),
    grants: &[Grant::Buckets],
};

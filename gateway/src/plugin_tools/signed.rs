//! What `inspect` says of the signatures beside a component: whose they are said to be. It has no keys to verify them with.

use std::path::Path;

use serde::Serialize;

use crate::signatures::Signatures;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Signed {
    /// By whom the component is said to be signed.
    signatures: Vec<Signature>,
    /// Why the file beside it is of no use.
    signatures_fault: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Signature {
    key: String,
    /// Whether it is of this file, by the digest that it says.
    is_of_this_file: bool,
}

impl Signed {
    /// What lies beside a component with this digest.
    pub(super) fn beside(component: &Path, sha256: &str) -> Self {
        let signatures = match Signatures::read(component) {
            Ok(signatures) => signatures,
            Err(error) => {
                return Self {
                    signatures: Vec::new(),
                    signatures_fault: Some(error.to_string()),
                };
            }
        };
        let of = |signatures: Signatures| {
            let is_of_this_file = signatures.digest() == sha256;
            let keys = signatures.keys().map(|key| key.to_string());
            keys.map(|key| Signature { key, is_of_this_file }).collect()
        };
        Self {
            signatures: signatures.map(of).unwrap_or_default(),
            signatures_fault: None,
        }
    }

    /// The same for people, a line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |signature: &Signature| match signature.is_of_this_file {
            true => format!("by {}, as it says; not verified", signature.key),
            false => format!("by {}, but that is of another file", signature.key),
        };
        let fault = self.signatures_fault.iter().cloned();
        self.signatures.iter().map(line).chain(fault).collect()
    }
}

//! Components of the gateway's own, attached.

use std::sync::Arc;

use serde::Serialize;

use super::components::{Made, sha256};
use super::{Builder, Section};
use crate::config::{self, Isolation, OnFailure, PluginLimits};
use crate::policy::{self, AttachedAs, Attachment, AttachmentSpec, Budget, Callers, CountedLimit, first_party};
use crate::snapshot::BuildError;

impl Builder<'_> {
    /// Attaches a component of the gateway's own.
    pub(super) fn attach_own(
        &mut self,
        own: &'static first_party::FirstParty,
        namespace: &str,
        config: &impl Serialize,
        section: Section<'_>,
    ) -> Option<Arc<Attachment>> {
        self.attach_counting(own, namespace, config, section, Arc::default())
    }

    /// The same of one that limits, and of which responses take from some limits.
    pub(super) fn attach_counting(
        &mut self,
        own: &'static first_party::FirstParty,
        namespace: &str,
        config: &impl Serialize,
        section: Section<'_>,
        counted: Arc<[CountedLimit]>,
    ) -> Option<Arc<Attachment>> {
        let frontend = section.frontend;
        let compiled = self.compile(Made::Ours, own.name, sha256(own.wasm), own.wasm, own.grants);
        let attached = compiled.and_then(|component| {
            // The model's types are texts, numbers, lists and enums: nothing of that can fail to be written.
            let config = serde_json::to_string(config).unwrap_or_default();
            let mut spec = AttachmentSpec {
                maps: Some(Arc::clone(&self.maps)),
                label: format!("{} {}", own.name, frontend.name).into(),
                namespace: format!("{}/{namespace}", own.name),
                counted,
                config,
                limits: PluginLimits {
                    cpu: config::DEFAULT_PLUGIN_CPU,
                    memory: self.config.process.policy.memory,
                },
                state: config::StateLimits::DEFAULT,
                granted: Arc::default(),
                on_failure: OWN_ON_FAILURE,
                vouched: Arc::default(),
                isolation: Isolation::FOREVER,
                is_forgetful: true,
                budget: Budget::unlimited(),
                quarantine: None,
                callers: Callers::Workers,
                place: AttachedAs::Filter,
                scope: policy::Scope::default(),
                origin: None,
            };
            if let Some((id, of)) = section.tenant {
                self.give_to(id, &mut spec);
                spec.origin = of.last.clone();
            }
            self.policy.attach(&component, spec)
        });
        match attached {
            Ok(attachment) => Some(self.keep(attachment)),
            Err(source) => {
                let origin = section.origin().clone();
                self.errors.push(BuildError::Own { origin, source });
                None
            }
        }
    }
}

/// A failing component of the gateway's own is an internal error. It denies: an access rule that could not be asked must not
/// read as if it had agreed.
pub(super) const OWN_ON_FAILURE: OnFailure = OnFailure::Deny(500);

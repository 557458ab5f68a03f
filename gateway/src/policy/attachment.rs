//! A component with a configuration: what a frontend refers to, and what its calls are counted under.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::failure::FailureKind;
use crate::config::{OnFailure, Origin, PluginLimits};

/// A use of a component: with one configuration, one bucket namespace and one verdict on failure.
#[derive(Debug)]
pub struct Attachment {
    label: Arc<str>,
    hooks: Hooks,
    predicates: Vec<String>,
    on_failure: OnFailure,
    origin: Option<Origin>,
    stats: AttachmentStats,
}

/// What [`Host::attach`](super::Host::attach) is told.
#[derive(Debug, Clone)]
pub struct AttachmentSpec {
    /// Its name in logs and metrics, as `acl web` or `geo`.
    pub label: Arc<str>,
    /// What its token buckets are kept under: the same for all attachments that are to count together (and over
    /// reloads), different for any two that are not.
    pub namespace: String,
    /// The configuration, a JSON text.
    pub config: String,
    /// What a call may use.
    pub limits: PluginLimits,
    /// What an exchange gets when a call fails.
    pub on_failure: OnFailure,
    /// Where it stands in the configuration.
    pub origin: Option<Origin>,
}

/// Which hooks a component exports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `predicates`: [`Instances::evaluate`](super::Instances::evaluate).
    pub predicates: bool,
    /// `limiter`: [`Instances::check`](super::Instances::check).
    pub limiter: bool,
    /// `request-filter`: [`Instances::on_request`](super::Instances::on_request).
    pub request_filter: bool,
    /// `response-filter`: [`Instances::on_response`](super::Instances::on_response).
    pub response_filter: bool,
    /// `connection-filter`: [`Instances::on_connect`](super::Instances::on_connect).
    pub connection_filter: bool,
}

/// Counters of an attachment, over all workers.
#[derive(Debug, Default)]
pub struct AttachmentStats {
    calls: AtomicU64,
    instantiations: AtomicU64,
    failures: [AtomicU64; FailureKind::ALL.len()],
}

impl Attachment {
    /// Its name in logs and metrics.
    #[must_use]
    pub const fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// The hooks its component exports.
    #[must_use]
    pub const fn hooks(&self) -> Hooks {
        self.hooks
    }

    /// The names of its predicates: bit `i` of an evaluation answers the `i`-th. Empty without that hook.
    #[must_use]
    pub fn predicates(&self) -> &[String] {
        &self.predicates
    }

    /// What an exchange gets when a call fails.
    #[must_use]
    pub const fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    /// Where it stands in the configuration.
    #[must_use]
    pub const fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Its counters.
    #[must_use]
    pub const fn stats(&self) -> &AttachmentStats {
        &self.stats
    }
}

impl AttachmentStats {
    /// Hook calls, failed ones included.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Instances made.
    #[must_use]
    pub fn instantiations(&self) -> u64 {
        self.instantiations.load(Ordering::Relaxed)
    }

    /// Calls that failed in this way.
    #[must_use]
    pub fn failures(&self, kind: FailureKind) -> u64 {
        self.failures[kind.index()].load(Ordering::Relaxed)
    }
}

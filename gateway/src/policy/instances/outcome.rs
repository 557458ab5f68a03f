//! How a call went, or why it was not made: that is counted, logged, and decides about the quarantine.

use std::sync::Arc;

use super::super::attachment::Attachment;
use super::super::failure::{Failure, FailureKind};
use super::super::hook::Hook;
use super::super::quarantine::Change;
use super::super::stats::WorkerStats;
use super::{Instances, slot};

impl Instances {
    /// No call is made.
    #[cold]
    pub(in crate::policy) fn refuse(
        &mut self,
        attachment: &Arc<Attachment>,
        hook: Hook,
        kind: FailureKind,
        message: &str,
    ) -> Failure {
        let failure = Failure::new(kind, hook.name, message.to_owned());
        self.report(attachment, hook, failure)
    }

    /// Counts and logs a failure, whose message may be the guest's.
    #[cold]
    pub(super) fn report(&mut self, attachment: &Arc<Attachment>, hook: Hook, failure: Failure) -> Failure {
        let stats = &slot(&mut self.slots, attachment).stats;
        report(attachment, stats, hook, failure)
    }
}

/// Notes that a hook works, which ends its quarantine.
#[inline]
pub(super) fn succeeded(attachment: &Attachment, hook: Hook) {
    if let Some(quarantine) = attachment.quarantine()
        && quarantine.succeeded(hook.place) == Change::Ends
        && let Some(dropped) = attachment.takes_line_of_change()
    {
        tracing::info!(
            plugin = attachment.label(),
            tenant = attachment.tenant(),
            hook = hook.name,
            dropped,
            "works again: the quarantine has ended"
        );
    }
}

/// Counts and logs a failure, whose message may be the guest's.
#[cold]
fn report(attachment: &Attachment, stats: &WorkerStats, hook: Hook, failure: Failure) -> Failure {
    let failure = failure.in_one_line();
    stats.count_failure(failure.kind);
    if let Some(quarantine) = attachment.quarantine()
        && failure.kind.is_the_components()
        && let Change::Begins(wait) = quarantine.failed(hook.place)
        && let Some(dropped) = attachment.takes_line_of_change()
    {
        tracing::warn!(
            plugin = attachment.label(),
            tenant = attachment.tenant(),
            hook = failure.hook,
            kind = %failure.kind,
            at = attachment.origin().map(|origin| tracing::field::display(format!("{}:{}", origin.file, origin.line))),
            dropped,
            "in quarantine for {wait:?}: it has done nothing but fail",
        );
    }
    // That a quarantine has begun is said once.
    if failure.kind != FailureKind::Quarantined
        && let Some(dropped) = attachment.takes_failure_line()
    {
        let (plugin, tenant) = (attachment.label(), attachment.tenant());
        let Failure {
            kind, hook, message, ..
        } = &failure;
        match attachment.origin() {
            Some(origin) => {
                let at = format_args!("{}:{}", origin.file, origin.line);
                tracing::warn!(plugin, tenant, hook, %kind, %at, dropped, "{message}");
            }
            None => tracing::warn!(plugin, tenant, hook, %kind, dropped, "{message}"),
        }
    }
    failure
}

pub(in crate::policy) const QUARANTINED: &str = "is in quarantine: it has failed too often";

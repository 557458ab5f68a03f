//! What the log is told of an attachment, no more often than its bounds allow.

use std::sync::atomic::Ordering;

use super::Attachment;
use crate::policy::failure::{one_line, short_name};
use crate::policy::hook::ON_LOG;
use crate::policy::state::Identity;

impl Attachment {
    /// Logs and counts what a shadow would have done otherwise.
    #[cold]
    pub(in crate::policy) fn differs(&self, hook: &'static str, text: &str) {
        self.stats.count_difference();
        if let Some(dropped) = self.takes_failure_line() {
            tracing::info!(
                plugin = self.label(),
                tenant = self.tenant(),
                hook,
                dropped,
                "shadow: {}",
                one_line(text)
            );
        }
    }

    /// Counts and logs that it is not told of something that is over.
    #[cold]
    pub(in crate::policy) fn is_not_told(&self) {
        self.stats.count_untold();
        if let Some(dropped) = self.takes_failure_line() {
            let (plugin, tenant, hook) = (self.label(), self.tenant(), ON_LOG.name);
            tracing::warn!(
                plugin,
                tenant,
                hook,
                dropped,
                "is not told of an exchange: as many wait on this worker as may"
            );
        }
    }

    /// Counts and logs that tags of it found no room beside those of others.
    pub(in crate::policy) fn leaves_out_tags(&self, count: u64, first: &str) {
        let refused = &self.identity.shared.tags_refused;
        let by = match self.tenant() {
            Some(_) => &refused.by_tenant,
            None => &refused.by_plugin,
        };
        by.fetch_add(count, Ordering::Relaxed);
        self.warn_of(
            first,
            "sets a tag that is left out: an exchange has as many as it may have",
        );
    }

    /// Logs that the component named something that is not there, as often as its failures are logged.
    pub fn warn_of(&self, named: &str, problem: &'static str) {
        if let Some(dropped) = self.takes_failure_line() {
            let named = short_name(named);
            tracing::warn!(plugin = self.label(), tenant = self.tenant(), %named, dropped, "{problem}");
        }
    }

    /// Whether a line about it may be written now, and how many were left out before. It is one of its tenant's lines, too: who
    /// fails all the time writes no more than who talks all the time.
    pub(in crate::policy) fn takes_failure_line(&self) -> Option<u64> {
        let Identity { failures, shared, .. } = &*self.identity;
        let dropped = failures.take()?;
        if shared.takes_line_of_tenant() {
            return Some(dropped);
        }
        failures.leave_out(dropped);
        None
    }

    /// Whether a line may be written now that tells of a change in who calls it, or whether anybody does, and how many were left out
    /// before. Lines about failures take none of these: such a line is what an operator looks for behind them.
    pub(in crate::policy) fn takes_line_of_change(&self) -> Option<u64> {
        self.identity.changes.take()
    }
}

//! Who makes an attachment's calls and sets its instances up, the workers or the crew: what has been slow decides.

use std::time::Duration;

use super::Attachment;
use crate::config::Origin;
use crate::policy::hook::{Hook, INSTANTIATE};
use crate::policy::pace::{Move, Took};

impl Attachment {
    /// Whether it is called by a [crew](crate::policy::Crew) and by no worker. Of one that either may call this changes at any time:
    /// who asks goes by the answer for the whole of a call.
    #[must_use]
    #[inline]
    pub fn is_heavy(&self) -> bool {
        self.pace.is_beside()
    }

    /// Whether setting its instances up has been slow, so that the crew makes them for the workers.
    #[must_use]
    #[inline]
    pub fn is_set_up_beside(&self) -> bool {
        self.set_up_pace.is_beside()
    }

    /// Setting an instance up took so long. Says so when that changes who sets up the next.
    pub(in crate::policy) fn keep_set_up_pace(&self, took: Duration) {
        match self.set_up_pace.called(Took::exactly(took)) {
            Move::Stays => {}
            Move::Beside => self.tell_slow(
                INSTANTIATE,
                took,
                "setting an instance up",
                "that is done beside the workers now",
            ),
            Move::Back => self.tell_quick(INSTANTIATE, "the workers set its instances up"),
        }
    }

    /// Nobody knows how long setting its instances up takes: the crew is to find out.
    pub(in crate::policy) fn have_set_up_beside(&self) {
        self.set_up_pace.called(Took::exactly(Duration::MAX));
    }

    /// A call took so long. Says so when that changes who makes the next.
    #[inline]
    pub(in crate::policy) fn keep_pace(&self, hook: Hook, took: Took) {
        match self.pace.called(took) {
            Move::Stays => {}
            Move::Beside => self.tell_slow(hook, took.at_least, "a call", "it is called beside the workers now"),
            Move::Back => self.tell_quick(hook, "the workers call it"),
        }
    }

    #[cold]
    fn tell_slow(&self, hook: Hook, took: Duration, what: &str, so: &str) {
        let Some(dropped) = self.takes_line_of_change() else {
            return;
        };
        let (plugin, tenant, hook) = (self.label(), self.tenant(), hook.name);
        let at = self.at();
        tracing::warn!(
            plugin,
            tenant,
            hook,
            at,
            dropped,
            "slow: {what} took {took:?} of CPU time; {so}"
        );
    }

    #[cold]
    fn tell_quick(&self, hook: Hook, so: &str) {
        let Some(dropped) = self.takes_line_of_change() else {
            return;
        };
        let (plugin, tenant, hook) = (self.label(), self.tenant(), hook.name);
        let at = self.at();
        tracing::info!(plugin, tenant, hook, at, dropped, "quick again: {so}");
    }

    /// Where it stands, for a line of the log.
    fn at(&self) -> Option<tracing::field::DisplayValue<String>> {
        let at = |origin: &Origin| format!("{}:{}", origin.file, origin.line);
        self.origin.as_ref().map(at).map(tracing::field::display)
    }
}

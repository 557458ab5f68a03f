//! An exchange that is over, as an access log sees it.

use crate::facts::{Facts, fact_getters};
use crate::needs::OnLog;

/// An exchange that is over: the facts that were declared.
#[derive(Debug)]
pub struct Exchange<'a> {
    facts: Facts<'a>,
}

impl<'a> Exchange<'a> {
    #[inline]
    pub(crate) fn new(facts: Facts<'a>) -> Self {
        Self { facts }
    }

    fact_getters!(OnLog);

    /// The first value of a declared fact as a number; none when it is absent or none. No host call.
    pub fn number(&self, need: crate::needs::LogNeed) -> Option<u64> {
        self.text(need)?.parse().ok()
    }
}

//! An instance's part of its budgets, and what there was too little of for it.

use std::sync::Arc;

use super::Budget;

/// What there was too little of for one more instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::policy) enum Lack {
    /// Places in the pool that all instances come from.
    Pool,
    /// Instances of the budget that stands so far out in the row.
    Instances(usize),
    /// Memory of that budget: so many bytes more than there are.
    Memory(usize, u64),
}

/// An instance's part of its budgets. Given back when dropped.
#[derive(Debug)]
pub(in crate::policy) struct Lease {
    budget: Arc<Budget>,
    memory: u64,
    /// Of what there was too little when memory was last refused.
    lacks: Option<Lack>,
    /// That was of what all share.
    lacks_shared: bool,
}

impl Lease {
    /// Of a budget in whose row the instance is counted already.
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            memory: 0,
            lacks: None,
            lacks_shared: false,
        }
    }

    /// The instance's memory grows; false when it may not.
    pub(in crate::policy) fn grow(&mut self, more: usize) -> bool {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        if let Err((used_up, lacks)) = self.budget.take_memory(more) {
            self.lacks_shared = used_up.is_of_process;
            self.lacks = Some(lacks);
            return false;
        }
        self.memory += more;
        true
    }

    /// Of what there was too little for the last growth that was refused.
    pub(in crate::policy) fn lacks(&self) -> Option<Lack> {
        self.lacks
    }

    /// Whether the last growth that was refused would have been granted if others had left enough.
    pub(in crate::policy) fn lacks_shared(&self) -> bool {
        self.lacks_shared
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        for budget in self.budget.row() {
            budget.give_back_instance();
            budget.give_back_memory(self.memory);
        }
    }
}

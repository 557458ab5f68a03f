//! What the gateway holds for guests of a budget beside their own memory, and what of it is kept for those who hold little.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};

use super::{Budget, take_bytes};
use crate::policy::host_memory::HostMemoryFull;

/// Who may have the gateway hold something: a plugin or a tenant, in all configurations that are not gone.
#[derive(Debug)]
pub(super) struct Holder {
    /// Bytes that are held for it now.
    held: Weak<AtomicU64>,
    /// Bytes that may be.
    most: u64,
}

impl Holder {
    fn is_of(&self, budget: &Budget) -> bool {
        std::ptr::eq(self.held.as_ptr(), Arc::as_ptr(&budget.host_memory))
    }

    /// Bytes that it has yet of a part that is kept for it.
    fn may_want(&self, part: u64) -> u64 {
        let held = self.held.upgrade().map(|held| held.load(Ordering::Relaxed));
        held.map_or(0, |held| self.most.min(part).saturating_sub(held))
    }
}

impl Budget {
    /// So many more bytes are held for its guests; if there is no room for them, whose is used up, and nothing is taken.
    pub(in crate::policy) fn take_host_memory(&self, more: u64) -> Result<(), HostMemoryFull> {
        // Looked at before anything is counted: who asks in vain, however often, has nobody else refused meanwhile. Who has no room
        // himself is told so, whoever else has none.
        let full = self.row().find_map(|budget| budget.lacks_host_memory(more));
        let kept = || self.row().find_map(|budget| budget.wants_what_is_kept(more));
        match full.or_else(kept) {
            Some(full) => Err(full),
            None => self.take_host_memory_of_row(more),
        }
    }

    /// That it has no room for so many bytes more, if it has none.
    fn lacks_host_memory(&self, more: u64) -> Option<HostMemoryFull> {
        let limit = self.limits.host_memory?;
        let held = self.host_memory.load(Ordering::Relaxed);
        (held.saturating_add(more) > limit).then(|| HostMemoryFull::new(&self.whose, limit))
    }

    /// That with so many bytes more it would have some that are kept for others of what all share, if it would.
    fn wants_what_is_kept(&self, more: u64) -> Option<HostMemoryFull> {
        let process = self.outer.as_ref().filter(|outer| outer.is_of_process)?;
        let limit = process.limits.host_memory?;
        let is_kept = !process.leaves_the_others_theirs(self, more, limit);
        is_kept.then(|| HostMemoryFull::kept_for_others(&process.whose, limit))
    }

    /// Counts one that it is around of among those who share, where it is what all share.
    pub(super) fn shares_with(&self, owner: &Self) {
        let Some(limit) = self.limits.host_memory.filter(|_| self.is_of_process) else {
            return;
        };
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.retain(|known| known.held.strong_count() > 0 && !known.is_of(owner));
        owners.push(Holder {
            held: Arc::downgrade(&owner.host_memory),
            most: owner.limits.host_memory.unwrap_or(u64::MAX),
        });
        self.part.store(limit / 2 / owners.len() as u64, Ordering::Relaxed);
    }

    /// From the outermost budget in, so that what all share is never less than what its owners have of it.
    fn take_host_memory_of_row(&self, more: u64) -> Result<(), HostMemoryFull> {
        if let Some(outer) = &self.outer {
            outer.take_host_memory_of_row(more)?;
        }
        if let Some(limit) = self.limits.host_memory
            && !take_bytes(&self.host_memory, more, limit)
        {
            if let Some(outer) = &self.outer {
                outer.let_host_memory_go(more);
            }
            return Err(HostMemoryFull::new(&self.whose, limit));
        }
        match self.wants_what_is_kept(0) {
            Some(full) => {
                self.let_host_memory_go(more);
                Err(full)
            }
            None => Ok(()),
        }
    }

    /// Whether all whom it is around of could still have their parts of half of it, with so many bytes more for one of them. What
    /// others take and give back while they are counted may be missed: that is made up for by the next who takes.
    fn leaves_the_others_theirs(&self, owner: &Self, more: u64, limit: u64) -> bool {
        let part = self.part.load(Ordering::Relaxed);
        if owner.host_memory.load(Ordering::Relaxed).saturating_add(more) <= part {
            return true;
        }
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let others = owners.iter().filter(|other| !other.is_of(owner));
        let kept = others.fold(more, |kept, other| kept.saturating_add(other.may_want(part)));
        drop(owners);
        self.host_memory.load(Ordering::Relaxed).saturating_add(kept) <= limit
    }

    /// So many bytes are held no more.
    pub(in crate::policy) fn let_host_memory_go(&self, bytes: u64) {
        self.row().for_each(|budget| budget.give_back_host_memory(bytes));
    }

    fn give_back_host_memory(&self, bytes: u64) {
        if self.limits.host_memory.is_some() {
            self.host_memory.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

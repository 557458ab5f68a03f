//! The gateway's own memory that is held for guests: what they have answered with and nobody has taken yet, and what is held until
//! they have seen it.
//!
//! An instance's memory goes with the instance. This stays behind: a reply of a mebibyte to a client that reads nothing lies here
//! for as long as the client stays connected. So it is counted from when the gateway has it until it has been sent or dropped, by
//! the budgets that its plugin's instances have; what one of them refuses is a failure of the call.
//!
//! The count goes with the bytes, whoever has them: a part of them keeps the whole, and is counted as such.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::attachment::Attachment;
use super::budget::Budget;
use super::stats::AttachmentStats;

/// A part of the gateway's own memory. Given back when dropped.
#[derive(Debug)]
pub struct HostMemory {
    budget: Arc<Budget>,
    counts: Arc<AttachmentStats>,
    /// Bytes that it is for.
    bytes: u64,
    /// Those that its budgets know of.
    counted: u64,
}

/// The gateway holds as much for somebody's plugins as it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{whose} has as much of the gateway's own memory as it may: {limit} bytes{less}")]
pub struct HostMemoryFull {
    whose: Arc<str>,
    limit: u64,
    less: &'static str,
}

/// Bytes, with what goes when nobody has them any more.
struct Counted<M> {
    bytes: Bytes,
    _memory: M,
}

impl Attachment {
    /// Nothing yet that is held for it.
    #[must_use]
    pub fn host_memory(&self) -> HostMemory {
        HostMemory {
            budget: Arc::clone(&self.budget),
            counts: self.shared_stats(),
            bytes: 0,
            counted: 0,
        }
    }

    /// Bytes of a guest's that stay when its call is over.
    pub(super) fn hold(&self, bytes: Vec<u8>) -> Result<Bytes, HostMemoryFull> {
        match self.hold_so_much(bytes.len())? {
            Some(memory) => Ok(memory.with(bytes.into())),
            None => Ok(bytes.into()),
        }
    }

    /// So many bytes of a guest's that stay when its call is over; none where they are not worth counting.
    #[inline]
    pub(super) fn hold_so_much(&self, bytes: usize) -> Result<Option<HostMemory>, HostMemoryFull> {
        if bytes <= UNCOUNTED {
            return Ok(None);
        }
        let mut memory = self.host_memory();
        memory.grow(bytes)?;
        Ok(Some(memory))
    }
}

impl HostMemory {
    /// So many bytes more.
    ///
    /// # Errors
    /// When there is no room for them. It is as large as before then.
    pub fn grow(&mut self, more: usize) -> Result<(), HostMemoryFull> {
        let bytes = self.bytes.saturating_add(more as u64);
        if bytes > UNCOUNTED as u64 {
            let more = bytes - self.counted;
            self.budget.take_host_memory(more)?;
            self.counts.holds(more);
            self.counted = bytes;
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Given back when nobody has these bytes any more, nor a part of them.
    #[must_use]
    pub fn with(self, bytes: Bytes) -> Bytes {
        match self.counted {
            0 => bytes,
            _ => Bytes::from_owner(Counted { bytes, _memory: self }),
        }
    }

    /// Given back when nobody has any of these any more.
    #[must_use]
    pub fn with_all(self, pieces: VecDeque<Bytes>) -> VecDeque<Bytes> {
        if self.counted == 0 {
            return pieces;
        }
        let memory = Arc::new(self);
        let counted = |bytes| {
            let _memory = Arc::clone(&memory);
            Bytes::from_owner(Counted { bytes, _memory })
        };
        pieces.into_iter().map(counted).collect()
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if self.counted > 0 {
            self.budget.let_host_memory_go(self.counted);
            self.counts.lets_go(self.counted);
        }
    }
}

impl HostMemoryFull {
    pub(super) fn new(whose: &Arc<str>, limit: u64) -> Self {
        Self {
            whose: Arc::clone(whose),
            limit,
            less: "",
        }
    }

    /// There are some left, which all who have less can still have.
    pub(super) fn kept_for_others(whose: &Arc<str>, limit: u64) -> Self {
        Self {
            less: ", but for what is kept for others",
            ..Self::new(whose, limit)
        }
    }
}

impl<M> AsRef<[u8]> for Counted<M> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes that are not worth counting: less than the connection takes that they are for.
const UNCOUNTED: usize = 1024;

#[cfg(test)]
impl HostMemory {
    /// Without bounds.
    pub(crate) fn unlimited() -> Self {
        let pace = || Arc::new(super::pace::Pace::of_workers());
        Self {
            budget: Budget::unlimited(),
            counts: Arc::new(AttachmentStats::new(None, None, [pace(), pace()])),
            bytes: 0,
            counted: 0,
        }
    }
}

//! The buffer that bytes are copied through, and the worker's store of them.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// A buffer of the worker's store; back there when dropped.
pub(super) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(super) fn take() -> Self {
        let stored = STORE.with_borrow_mut(Vec::pop);
        Self(stored.unwrap_or_else(|| vec![0; BUFFER_SIZE].into_boxed_slice()))
    }

    /// Buffers that this thread keeps.
    #[cfg(test)]
    pub(super) fn stored() -> usize {
        STORE.with_borrow(Vec::len)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // At the thread's end there may be no store any more.
        let _ = STORE.try_with(|store| {
            let mut store = store.borrow_mut();
            if store.len() < MOST_STORED {
                store.push(buffer);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

thread_local! {
    static STORE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Twice HAProxy's: half the system calls of a large transfer, and still within a second-level cache. It bounds what a
/// connection holds in the gateway's own memory to two of these.
pub(super) const BUFFER_SIZE: usize = 32 * 1024;

/// Buffers a worker keeps for the next read: 2 MiB. Beyond it they go back to the allocator.
const MOST_STORED: usize = 64;

//! The buffer that bytes are copied through, and the worker's store of them.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// A buffer of the worker's store; back there when dropped.
pub(super) struct Buffer(Option<Box<Space>>);

/// One word to whoever has it: its size is known.
type Space = [u8; BUFFER_SIZE];

impl Buffer {
    pub(super) fn take() -> Self {
        let stored = STORE.with_borrow_mut(Vec::pop);
        Self(Some(stored.unwrap_or_else(|| Box::new([0; BUFFER_SIZE]))))
    }

    /// Buffers that this thread keeps.
    #[cfg(test)]
    pub(super) fn stored() -> usize {
        STORE.with_borrow(Vec::len)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(buffer) = self.0.take() else { return };
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
        // It is there until it is dropped.
        self.0.as_ref().map_or(&[], |space| &space[..])
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_mut().map_or(&mut [], |space| &mut space[..])
    }
}

thread_local! {
    static STORE: RefCell<Vec<Box<Space>>> = const { RefCell::new(Vec::new()) };
}

/// Twice HAProxy's: half the system calls of a large transfer, and still within a second-level cache. It bounds what a
/// connection holds in the gateway's own memory to two of these.
pub(super) const BUFFER_SIZE: usize = 32 * 1024;

/// Buffers a worker keeps for the next read: 2 MiB. Beyond it they go back to the allocator.
const MOST_STORED: usize = 64;

//! Which of a worker's [slots](super::slot) an attachment has: the same number on every worker.

use std::sync::{Arc, Mutex, PoisonError};

/// A position in every worker's list of instances. Given back when dropped, and then given to somebody else: the serial
/// tells the holders apart.
pub(super) struct SlotNumber {
    /// From 0. It is given again when nobody has it any more.
    pub(super) index: usize,
    /// Never given again.
    pub(super) serial: u64,
    slots: Arc<Slots>,
}

/// Which positions are free.
#[derive(Default)]
pub(super) struct Slots(Mutex<FreeSlots>);

#[derive(Default)]
struct FreeSlots {
    free: Vec<usize>,
    size: usize,
    serial: u64,
}

impl SlotNumber {
    /// One that nobody has now.
    pub(super) fn new(slots: &Arc<Slots>) -> Self {
        let mut state = slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.serial += 1;
        let index = state.free.pop().unwrap_or_else(|| {
            state.size += 1;
            state.size - 1
        });
        Self {
            index,
            serial: state.serial,
            slots: Arc::clone(slots),
        }
    }
}

impl Drop for SlotNumber {
    fn drop(&mut self) {
        self.slots
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .free
            .push(self.index);
    }
}

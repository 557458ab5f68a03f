//! How much of memory, tables and instances one instance of a component may have.

use wasmtime::ResourceLimiter;

use super::budget::{Lack, Lease};

/// The limits of one instance.
#[derive(Debug)]
pub(crate) struct Bounds {
    memory: usize,
    /// Bytes of linear memory that it has.
    has: usize,
    /// Its part of what its plugin and its tenant may use.
    lease: Lease,
    /// The guest wanted more memory than it may have, in the running call.
    pub(crate) refused: bool,
    /// And would have got it if others had left enough of what all share.
    pub(crate) lacks_shared: bool,
    /// Of what its budgets had too little for memory that was refused in this call.
    pub(super) lacks: Option<Lack>,
}

impl Bounds {
    /// At most this many bytes of linear memory, and no more than the lease gives.
    pub(crate) fn new(memory: u64, lease: Lease) -> Self {
        Self {
            memory: usize::try_from(memory).unwrap_or(usize::MAX),
            has: 0,
            lease,
            refused: false,
            lacks_shared: false,
            lacks: None,
        }
    }

    /// A call begins: what an earlier one wanted and coped without says nothing about this one.
    pub(super) fn begin(&mut self) {
        self.refused = false;
        self.lacks_shared = false;
        self.lacks = None;
    }

    /// Bytes of linear memory that the instance has.
    pub(crate) fn memory(&self) -> u64 {
        u64::try_from(self.has).unwrap_or(u64::MAX)
    }
}

impl ResourceLimiter for Bounds {
    fn memory_growing(&mut self, now: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.memory && maximum.is_none_or(|maximum| desired <= maximum);
        let allowed = fits && self.lease.grow(desired.saturating_sub(now));
        if allowed {
            self.has = self.has.saturating_add(desired.saturating_sub(now));
        }
        self.refused |= !allowed;
        self.lacks_shared = fits && !allowed && self.lease.lacks_shared();
        if fits && !allowed {
            self.lacks = self.lease.lacks();
        }
        Ok(allowed)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_growing(&mut self, now: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= MAX_TABLE_ELEMENTS && maximum.is_none_or(|maximum| desired <= maximum);
        let more = counted(desired).saturating_sub(counted(now));
        let allowed = fits && (more == 0 || self.lease.grow(more));
        self.refused |= !allowed;
        if fits && !allowed {
            self.lacks_shared = self.lease.lacks_shared();
            self.lacks = self.lease.lacks();
        }
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        MAX_CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

/// Bytes of a table with so many elements that count as memory.
fn counted(elements: usize) -> usize {
    elements
        .saturating_sub(UNCOUNTED_ELEMENTS)
        .saturating_mul(size_of::<usize>())
}

/// Core instances of one component instance: wit-component makes three of one module. A Python component, whose interpreter
/// and libraries are a module each, has some forty.
pub(crate) const MAX_CORE_INSTANCES: usize = 64;

/// Linear memories of one instance. A composed component has one per part, each within the memory limit on its own;
/// so one, until somebody composes.
pub(crate) const MAX_MEMORIES: usize = 1;

/// Tables of one instance: the module's own, wit-component's shim's, and room for a composed one.
pub(crate) const MAX_TABLES: usize = 4;

/// Elements of a table: function pointers of a big program.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 20_000;

/// Elements of a table that are not worth counting as memory: what most programs have.
const UNCOUNTED_ELEMENTS: usize = 1024;

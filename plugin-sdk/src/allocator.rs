//! The guest's allocator: [`Heap`] on WebAssembly's memory.

#![allow(unsafe_code, reason = "an allocator hands out memory")]

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32::{memory_grow, memory_size};
use std::cell::UnsafeCell;
use std::ptr;

use crate::heap::{Heap, Memory};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator(UnsafeCell::new(Heap::new(Linear { started: false })));

struct Allocator(UnsafeCell<Heap<Linear>>);

// SAFETY: a guest has one thread, and no call of the allocator runs inside another: it calls nothing of anybody else's.
unsafe impl Sync for Allocator {}

// SAFETY: the heap hands out blocks of the size and alignment asked for that do not overlap, see its tests; what it hands
// out is memory that the module has and nobody else uses: from `__heap_base` on, and what the heap itself grew.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see `Sync`: there is no other reference now.
        let heap = unsafe { &mut *self.0.get() };
        ptr::with_exposed_provenance_mut(heap.allocate(layout.size(), layout.align()))
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: see `Sync`: there is no other reference now.
        let heap = unsafe { &mut *self.0.get() };
        heap.free(block.expose_provenance(), layout.size());
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if Heap::<Linear>::same(layout.size(), size) {
            return block;
        }
        // SAFETY: the caller promises that `size` makes a valid layout with this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the layout is not empty, as the caller promises of `size`.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            // SAFETY: both blocks are live and apart, and have at least so many bytes; the old one is not used afterwards.
            unsafe {
                ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        new
    }
}

/// The module's memory.
struct Linear {
    /// Whether what the module came with was handed out already.
    started: bool,
}

impl Memory for Linear {
    fn grow(&mut self, bytes: usize) -> Option<(usize, usize)> {
        if !self.started {
            self.started = true;
            // Behind the module's data and stack is the rest of its last page: a small plugin needs no more.
            let base = heap_base();
            let end = memory_size(0).checked_mul(PAGE)?;
            if end.checked_sub(base)? >= bytes {
                return Some((base, end - base));
            }
        }
        let pages = bytes.div_ceil(PAGE);
        let start = memory_grow(0, pages);
        (start != usize::MAX).then_some((start * PAGE, pages * PAGE))
    }

    #[inline]
    fn read(&self, block: usize) -> usize {
        // SAFETY: a free block is memory of ours, at least 16 bytes of it, and aligned.
        unsafe { *ptr::with_exposed_provenance::<usize>(block) }
    }

    #[inline]
    fn write(&mut self, block: usize, word: usize) {
        // SAFETY: as for `read`: the block was handed back, so nobody else uses it.
        unsafe { *ptr::with_exposed_provenance_mut::<usize>(block) = word };
    }
}

/// Where the module's data and stack end, rounded up.
fn heap_base() -> usize {
    unsafe extern "C" {
        /// Placed there by the linker. Only its address means something.
        static __heap_base: u8;
    }
    (&raw const __heap_base).expose_provenance().next_multiple_of(16)
}

/// Bytes of a page of memory.
const PAGE: usize = 65_536;

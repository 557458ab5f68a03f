//! The bookkeeping of the guest's allocator: blocks of powers of two, and a list of free ones for each.
//!
//! Every value that the host hands over is an allocation, and every call frees what it was handed: the same few sizes again
//! and again. So a free block is found by one load and given back by one store. The price is that blocks are never split or
//! joined; what a size once needed at its peak stays that size's. A guest whose requests are bounded is bounded by that.

/// The memory that blocks are cut from.
pub(crate) trait Memory {
    /// Adds memory: at least so many bytes, from a multiple of 16. Answers the first address and how many there are.
    fn grow(&mut self, bytes: usize) -> Option<(usize, usize)>;
    /// The word at the beginning of a free block.
    fn read(&self, block: usize) -> usize;
    /// Writes that word.
    fn write(&mut self, block: usize, word: usize);
}

/// A heap. An address of 0 is none.
#[derive(Debug)]
pub(crate) struct Heap<M> {
    memory: M,
    /// The first free block of each size; it holds the address of the next.
    free: [usize; SIZES],
    /// What was never handed out.
    next: usize,
    end: usize,
}

impl<M: Memory> Heap<M> {
    pub(crate) const fn new(memory: M) -> Self {
        Self {
            memory,
            free: [0; SIZES],
            next: 0,
            end: 0,
        }
    }

    /// A block of at least so many bytes at a multiple of `align`, a power of two; 0 when there is no memory.
    #[inline]
    pub(crate) fn allocate(&mut self, bytes: usize, align: usize) -> usize {
        let class = class(bytes);
        if let Some(head) = self.free.get_mut(class)
            && *head != 0
            && *head & (align - 1) == 0
        {
            let block = *head;
            *head = self.memory.read(block);
            return block;
        }
        self.cut(class, align)
    }

    /// Takes back a block that was allocated for so many bytes.
    #[inline]
    pub(crate) fn free(&mut self, block: usize, bytes: usize) {
        if let Some(head) = self.free.get_mut(class(bytes)) {
            self.memory.write(block, *head);
            *head = block;
        }
    }

    /// Whether a block for so many bytes serves for so many others.
    #[inline]
    pub(crate) fn same(bytes: usize, others: usize) -> bool {
        class(bytes) == class(others)
    }

    /// Cuts a block from what was never handed out.
    #[cold]
    #[inline(never)]
    fn cut(&mut self, class: usize, align: usize) -> usize {
        if class >= SIZES {
            return 0;
        }
        let bytes = SMALLEST << class;
        loop {
            let block = self.next.checked_next_multiple_of(align.max(SMALLEST));
            let end = block.and_then(|block| block.checked_add(bytes));
            if let (Some(block), Some(end)) = (block, end)
                && end <= self.end
            {
                self.next = end;
                return block;
            }
            let Some((start, more)) = self.memory.grow(bytes.saturating_add(align)) else {
                return 0;
            };
            if start != self.end {
                self.next = start;
            }
            self.end = start + more;
        }
    }
}

/// Which power of two serves for so many bytes.
#[inline]
fn class(bytes: usize) -> usize {
    let bytes = if bytes < SMALLEST { SMALLEST } else { bytes };
    (usize::BITS - (bytes - 1).leading_zeros()) as usize - SMALLEST.trailing_zeros() as usize
}

/// Bytes of the smallest block, and the alignment of all.
const SMALLEST: usize = 16;

/// Sizes from 16 bytes to a gigabyte.
const SIZES: usize = 27;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Memory from 64 on, in steps of 4 KiB, with a gap after the first few.
    #[derive(Debug, Default)]
    struct Test {
        words: HashMap<usize, usize>,
        grown: usize,
        limit: usize,
    }

    impl Memory for Test {
        fn grow(&mut self, bytes: usize) -> Option<(usize, usize)> {
            let bytes = bytes.checked_next_multiple_of(4096)?;
            let gap = if self.grown > 8192 { 64 } else { 0 };
            let start = 64 + self.grown + gap;
            self.grown = self
                .grown
                .checked_add(bytes + gap)
                .filter(|grown| *grown <= self.limit)?;
            Some((start, bytes))
        }

        fn read(&self, block: usize) -> usize {
            self.words[&block]
        }

        fn write(&mut self, block: usize, word: usize) {
            self.words.insert(block, word);
        }
    }

    fn heap(limit: usize) -> Heap<Test> {
        Heap::new(Test {
            limit,
            ..Test::default()
        })
    }

    proptest! {
        #[test]
        fn live_blocks_are_aligned_inside_and_apart(
            steps in prop::collection::vec((any::<bool>(), 0_usize..5000, 0_u32..9, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut heap = heap(1 << 20);
            let mut live: Vec<(usize, usize)> = Vec::new();
            for (free, bytes, align, which) in steps {
                if free && !live.is_empty() {
                    let (block, bytes) = live.swap_remove(which.index(live.len()));
                    heap.free(block, bytes);
                    continue;
                }
                let block = heap.allocate(bytes, 1 << align);
                if block == 0 {
                    continue;
                }
                prop_assert_eq!(block % (1 << align), 0);
                prop_assert!(block >= 64 && block + bytes <= 64 + heap.memory.grown);
                for (other, size) in &live {
                    prop_assert!(block + bytes.max(1) <= *other || other + size.max(&1) <= block);
                }
                live.push((block, bytes));
            }
        }

        /// What was freed serves again: a call that allocates the same sizes each time needs no more memory the second time.
        #[test]
        fn the_same_call_again_takes_no_more_memory(sizes in prop::collection::vec(0_usize..5000, 1..50)) {
            let mut heap = heap(1 << 24);
            let mut call = || {
                let blocks: Vec<usize> = sizes.iter().map(|size| heap.allocate(*size, 1)).collect();
                blocks.iter().zip(&sizes).for_each(|(block, size)| heap.free(*block, *size));
                (heap.memory.grown, heap.next)
            };
            let first = call();
            for _ in 0..10 {
                prop_assert_eq!(call(), first);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut heap = heap(100_000);
        assert_eq!(heap.allocate(200_000, 1), 0);
        assert_eq!(heap.allocate(usize::MAX, 1), 0);
        assert_eq!(heap.allocate(1 << 31, 1), 0);
        assert_ne!(heap.allocate(50_000, 1), 0, "a refusal costs nothing");
    }

    #[test]
    fn sizes_are_powers_of_two() {
        for (bytes, expected) in [
            (0, 0),
            (1, 0),
            (16, 0),
            (17, 1),
            (32, 1),
            (33, 2),
            (1 << 30, 26),
            ((1 << 30) + 1, 27),
        ] {
            assert_eq!(class(bytes), expected, "{bytes}");
        }
        assert!(Heap::<Test>::same(17, 32) && !Heap::<Test>::same(16, 17));
    }
}

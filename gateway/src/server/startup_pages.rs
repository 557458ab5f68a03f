//! What only the start has needed of the program is given back when it is over.
//!
//! Of the program's own text and constants the system maps what is used, sixteen pages at a time, and for good: reading a
//! configuration, holding it against its rules and saying what is wrong with it touch several mebibytes that nothing needs once
//! the gateway serves. They are pages of the program's file. Whoever needs one again finds it in the system's cache, at the price
//! of a minor fault; nothing is read from disk for it, unless the system has needed that memory for something else meanwhile.
#![expect(unsafe_code, reason = "advice about memory can only be given so")]

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

// Bounds of what is only read and executed, as every linker for Linux says them.
unsafe extern "C" {
    static __executable_start: u8;
    static etext: u8;
}

/// Gives back what is mapped of the program's text and constants. What is used from now on comes back by itself. Systems that
/// do not do it go on as they are.
pub(super) fn give_back() {
    let begin = &raw const __executable_start;
    let end = &raw const etext;
    // Down to a whole page: what follows may hold data.
    let length = (end.addr() - end.addr() % page_size()).saturating_sub(begin.addr());
    // SAFETY: from the executable's start to the page in which its text ends there are only its read-only segments, which
    // begin on a page and are private mappings of its file that nobody has written to. Of those this advice takes away nothing but the
    // page tables' entries: whoever reads there next, another thread at the same time included, sees the same bytes of the file.
    let _ = unsafe { madvise(begin.cast_mut().cast(), length, Advice::LinuxDontNeed) };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// KiB of files that are mapped.
    fn mapped() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn a_program_goes_on_with_less_of_itself_mapped() {
        let before = mapped();
        give_back();
        let after = mapped();
        assert!(after < before, "{after} of {before} KiB");
    }
}

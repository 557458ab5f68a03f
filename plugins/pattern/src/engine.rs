//! The two engines that suffice: a backtracker that remembers where it has been, for texts of the length that requests
//! have, and the PikeVM for longer ones. Both take time linear in the text.

use std::cell::RefCell;
use std::fmt;

use regex_automata::nfa::thompson::backtrack::{self, BoundedBacktracker};
use regex_automata::nfa::thompson::pikevm::{self, PikeVM};
use regex_automata::nfa::thompson::{self, NFA};
use regex_automata::util::primitives::NonMaxUsize;
use regex_automata::util::syntax;
use regex_automata::{Input, PatternID};

/// A compiled pattern.
pub struct Pattern {
    backtracker: BoundedBacktracker,
    pikevm: PikeVM,
    /// Kept between searches, so that one allocates nothing.
    scratch: RefCell<Scratch>,
}

/// Where a match and its groups are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups(Vec<Option<NonMaxUsize>>);

struct Scratch {
    backtrack: backtrack::Cache,
    /// Made by the first text that is too long for the backtracker.
    pikevm: Option<pikevm::Cache>,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it, or that it is too large or nested too deeply.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let syntax = syntax::Config::new().unicode(false).utf8(false).nest_limit(MAX_NESTING);
        let config = thompson::Config::new().utf8(false).nfa_size_limit(Some(MAX_SIZE));
        let nfa = NFA::compiler()
            .syntax(syntax)
            .configure(config)
            .build(pattern)
            .map_err(describe)?;
        let backtracker = BoundedBacktracker::builder()
            .configure(BoundedBacktracker::config().visited_capacity(VISITED))
            .build_from_nfa(nfa.clone())
            .map_err(describe)?;
        Ok(Self {
            scratch: RefCell::new(Scratch {
                backtrack: backtracker.create_cache(),
                pikevm: None,
            }),
            pikevm: PikeVM::new_from_nfa(nfa).map_err(describe)?,
            backtracker,
        })
    }

    /// Whether it matches somewhere.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.search(Input::new(text).earliest(true), &mut [])
    }

    /// The first match and its groups, written into `groups`.
    pub fn find(&self, text: &[u8], groups: &mut Groups) -> bool {
        groups.0.clear();
        groups.0.resize(2 * self.groups(), None);
        self.search(Input::new(text), &mut groups.0)
    }

    /// How many groups there are, the whole match included.
    pub fn groups(&self) -> usize {
        self.backtracker.get_nfa().group_info().group_len(PatternID::ZERO)
    }

    /// The number of a named group.
    pub fn group(&self, name: &str) -> Option<usize> {
        self.backtracker.get_nfa().group_info().to_index(PatternID::ZERO, name)
    }

    fn search(&self, input: Input<'_>, slots: &mut [Option<NonMaxUsize>]) -> bool {
        let mut scratch = self.scratch.borrow_mut();
        if let Ok(found) = self.backtracker.try_search_slots(&mut scratch.backtrack, &input, slots) {
            return found.is_some();
        }
        let cache = scratch.pikevm.get_or_insert_with(|| self.pikevm.create_cache());
        self.pikevm.search_slots(cache, &input, slots).is_some()
    }
}

impl Groups {
    /// Where a group is; 0 is the whole match. None for a group that took no part.
    pub fn range(&self, group: usize) -> Option<std::ops::Range<usize>> {
        let start = self.0.get(2 * group).copied().flatten()?;
        let end = self.0.get(2 * group + 1).copied().flatten()?;
        Some(start.get()..end.get())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pattern").finish_non_exhaustive()
    }
}

/// The parser's error is the cause of the compiler's, and the one that says what is wrong.
fn describe(error: thompson::BuildError) -> String {
    if error.size_limit().is_some() {
        return format!("the compiled pattern exceeds the size of {MAX_SIZE} bytes");
    }
    match std::error::Error::source(&error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// Bytes of a compiled pattern: far more than a pattern written by hand takes, and little beside an instance's memory.
const MAX_SIZE: usize = 256 << 10;

/// Depth of groups in a pattern: parsing and compiling recurse on a guest's small stack.
const MAX_NESTING: u32 = 32;

/// Bytes in which the backtracker remembers where it has been: a bit per state and byte of text. With 100 states, texts up
/// to 2.6 KiB.
const VISITED: usize = 32 << 10;

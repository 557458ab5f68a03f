//! No patterns.

use std::ops::Range;

/// A pattern of which there is none.
#[derive(Debug)]
pub enum Pattern {}

/// The groups of a match that does not happen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups;

impl Pattern {
    /// Refuses the pattern.
    ///
    /// # Errors
    /// Always.
    pub fn new(_: &str) -> Result<Self, String> {
        Err("this build of the component has no engine for patterns".to_owned())
    }

    /// Cannot be called.
    pub fn is_match(&self, _: &[u8]) -> bool {
        match *self {}
    }

    /// Cannot be called.
    pub fn find(&self, _: &[u8], _: &mut Groups) -> bool {
        match *self {}
    }

    /// Cannot be called.
    pub fn groups(&self) -> usize {
        match *self {}
    }

    /// Cannot be called.
    pub fn group(&self, _: &str) -> Option<usize> {
        match *self {}
    }
}

impl Groups {
    /// Where a group is: nowhere.
    pub fn range(&self, _: usize) -> Option<Range<usize>> {
        None
    }
}

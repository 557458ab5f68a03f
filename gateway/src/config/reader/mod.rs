//! Reading KDL nodes with a memory: what nobody asked for is an error, and what was asked for is what can be suggested.
//!
//! A [`Node`] hands out its arguments, properties and block; [`Node::finish`] reports the rest. A [`Block`] hands out its
//! nodes by name; [`Block::finish`] reports the rest. Faults are collected in the [`Context`] and reading goes on: a
//! reader answers `None` only where it has reported why.

mod block;
mod context;
mod list;
mod node;
mod value;

use miette::SourceSpan;

use super::diagnostics::{Code, ConfigError};
pub(super) use super::model::At;
use crate::hidden::is_hidden;
pub(super) use block::Block;
pub(super) use context::{Asked, Context, Note, TraceField};
pub(super) use node::Node;
pub(super) use value::{Value, value_span};

/// `what` was said twice: the first place and the second.
pub(super) fn said_twice(what: &str, first: SourceSpan, again: SourceSpan) -> ConfigError {
    ConfigError::new(Code::Duplicate, format!("{what} is said twice"))
        .label(again, "said again here")
        .label(first, "first said here")
        .help("one of them has to go")
}

/// The beginning of a text that may be long, for a message, without characters that are hidden.
pub(super) fn clip(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(LONGEST_SHOWN)
        .map(|c| if is_hidden(c) { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(LONGEST_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Characters of a text in a message.
const LONGEST_SHOWN: usize = 60;

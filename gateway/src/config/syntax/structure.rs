//! What tokens make together: nodes with entries and blocks, and what `/-` drops of them.
//!
//! The parser does not see what is dropped: it would read it several times over.

use std::ops::Range;

use super::scan::Scanner;
use crate::config::reader::clip;

/// A block that is open.
pub(super) struct Level {
    pub(super) open: usize,
    /// Where the `/-` stands that drops it.
    pub(super) dropped: Option<usize>,
    /// Whether the parser does not see its braces.
    pub(super) hidden: bool,
    /// Where the `/-` stands that drops the node that it belongs to.
    pub(super) dropped_node: Option<usize>,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// A node.
    Start,
    /// Entries or a block; the last entry may be a property's key or not.
    Node { key: bool },
    /// A property's value.
    Value,
    /// Nothing but the end of the node: its block has come.
    Block,
    /// As `Block`, but the block was one that a `/-` dropped: the real one may follow.
    DroppedBlock,
}

impl Scanner<'_> {
    /// `/-` drops the node, entry or block that follows. The parser never sees it, nor its victim.
    pub(super) fn drop(&mut self, start: usize) {
        let place = start..start + 2;
        self.at += 2;
        self.hide(place.clone());
        let (message, label, help) = match self.state {
            _ if self.drop.is_some() => ("two `/-` in a row", "one is enough", "leave it out"),
            State::Value => (
                "a property's value cannot be dropped alone",
                "after `=`",
                "write `/-` before the key",
            ),
            State::Start => {
                self.drop = Some(start);
                return;
            }
            _ if self.spaced => {
                self.end_of_entry();
                // What came before is no key: nothing may stand between a key and its `=`.
                if let State::Node { key } = &mut self.state {
                    *key = false;
                }
                self.drop = Some(start);
                return;
            }
            _ => (
                "a space is missing before `/-`",
                "directly behind a value",
                "write a space before it",
            ),
        };
        self.spaced = true;
        self.fault(place, message, label, help);
    }

    pub(super) fn open(&mut self, start: usize) -> bool {
        let place = start..start + 1;
        let dropped = self.drop.take();
        self.end_of_entry();
        let mut hidden = false;
        match self.state {
            State::Start => {
                hidden = true;
                let help = "move it to the line of the node whose block it is, behind the name";
                self.fault(place.clone(), "a block without a node", "whose block is this?", help);
                self.hide(place.clone());
            }
            State::Value => {
                let equals = self.hide_equals();
                self.fault(
                    equals,
                    "a property cannot be a block",
                    "a value has to follow",
                    "write `NAME { … }`",
                );
            }
            State::Block if dropped.is_none() => {
                hidden = true;
                self.fault(
                    place.clone(),
                    "a node has one block",
                    "this is the second",
                    "join the two",
                );
                self.at = start + 1;
                self.separate_node(start);
            }
            _ => {}
        }
        self.at = start + 1;
        self.levels.push(Level {
            open: start,
            dropped,
            hidden,
            dropped_node: self.dropped_node.take(),
        });
        self.state = State::Start;
        self.spaced = true;
        if self.levels.len() > MAX_DEPTH {
            let message = format!("blocks are nested more than {MAX_DEPTH} deep");
            self.fault(
                place,
                &message,
                "one too many",
                "nothing in this language goes that deep",
            );
            return false;
        }
        true
    }

    pub(super) fn close(&mut self, start: usize) {
        self.unused_drop();
        self.end_of_node_before_brace();
        self.at += 1;
        let Some(level) = self.levels.pop() else {
            self.fault(
                start..start + 1,
                "this `}` closes nothing",
                "no block is open",
                "leave it out",
            );
            return self.separate(start);
        };
        self.dropped_node = level.dropped_node;
        if level.hidden {
            return self.separate(start);
        }
        self.state = State::Block;
        if let Some(drop) = level.dropped {
            self.hide(drop..start + 1);
            self.state = State::DroppedBlock;
        }
        self.spaced = false;
        self.token_end = self.at;
    }

    /// Puts the end of a node in a brace's place, where there is a node to end.
    fn separate(&mut self, at: usize) {
        self.clean[at] = if self.state == State::Start { b' ' } else { b';' };
        self.state = State::Start;
        self.spaced = true;
    }

    /// Ends the current node at a byte that the parser need not see. Where that byte is the last of a line end of several
    /// (CR LF, U+2028), the others go with it.
    fn separate_node(&mut self, at: usize) {
        let mut first = at;
        while first > 0 && self.clean[first] & 0xc0 == 0x80 {
            first -= 1;
        }
        if self.clean[first] == b'\n' && first > 0 && self.clean[first - 1] == b'\r' {
            first -= 1;
        }
        self.hide(first..at + 1);
        self.clean[at] = b';';
        // A node that is dropped takes its end with it.
        self.end_of_node();
    }

    pub(super) fn equals(&mut self, start: usize) {
        let place = start..start + 1;
        match self.state {
            State::Node { key: true } => self.state = State::Value,
            State::Value => {
                self.fault(place.clone(), "two `=` in a row", "one is enough", "leave it out");
                self.hide(place);
            }
            State::Start => {
                self.fault(
                    place.clone(),
                    "`=` without a key",
                    "nothing before it",
                    "write `NAME VALUE`, or `NAME KEY=VALUE`",
                );
                self.hide(place);
            }
            _ => {
                let help = "a setting is written `NAME VALUE`; `KEY=VALUE` comes behind a name";
                self.fault(place.clone(), "`=` without a key", "what is before it is not one", help);
                self.hide(place);
            }
        }
        self.at += 1;
        self.spaced = true;
    }

    /// A word, string, number or keyword that has been read. `text`: whether it can be a name or a key.
    pub(super) fn token(&mut self, place: Range<usize>, text: bool) {
        self.at = place.end;
        let drop = self.drop.take();
        if !self.spaced && !matches!(self.state, State::Start | State::Value) {
            return self.missing_space(place);
        }
        self.spaced = false;
        match self.state {
            State::Start => {
                if !text {
                    let shown = clip(&self.text[place.clone()]);
                    let message = format!("`{shown}` cannot be a node's name");
                    self.fault(
                        place.clone(),
                        &message,
                        "a name has to stand here",
                        "is a name or a `\\` missing before it?",
                    );
                    self.fill(place.clone());
                }
                self.dropped_node = drop;
                self.state = State::Node { key: false };
            }
            State::Node { .. } => {
                self.end_of_entry();
                self.dropped_entry = drop;
                self.state = State::Node { key: text };
            }
            State::Value => self.state = State::Node { key: false },
            State::Block | State::DroppedBlock => {
                let help = "write it on a line of its own, or `;` before it";
                self.fault(
                    place.clone(),
                    "a node ends with its block",
                    "comes behind the block",
                    help,
                );
                // There was white space, if only that of a `/-`; its last character may have several bytes.
                let blank = self.text[..place.start].chars().next_back().map_or(1, char::len_utf8);
                self.hide(place.start - blank..place.start);
                self.at = place.start;
                self.separate_node(place.start - 1);
                self.at = place.end;
                self.spaced = false;
                if !text {
                    self.fill(place.clone());
                }
                self.state = State::Node { key: false };
            }
        }
        self.token_end = place.end;
    }

    fn missing_space(&mut self, place: Range<usize>) {
        let help = match self.text[place.clone()].starts_with(',') {
            true => "values are separated by spaces, without commas",
            false => "write a space between them",
        };
        self.fault(
            place.clone(),
            "a space is missing before this",
            "directly behind what comes before it",
            help,
        );
        self.hide(place);
        self.spaced = true;
    }

    /// The end of a line, or `;`.
    pub(super) fn end_of_node(&mut self) {
        self.end_of_node_before_brace();
        self.state = State::Start;
    }

    /// As that, but what the node was stays known.
    fn end_of_node_before_brace(&mut self) {
        if self.state == State::Value {
            let equals = self.hide_equals();
            self.fault(
                equals,
                "a value is missing behind `=`",
                "nothing follows",
                "write it on the same line",
            );
            self.state = State::Node { key: false };
        }
        self.end_of_entry();
        if let Some(drop) = self.dropped_node.take() {
            self.hide(drop..self.at);
            self.state = State::Start;
        }
    }

    /// The end of an entry: only now is it known not to be a property's key.
    fn end_of_entry(&mut self) {
        if let Some(drop) = self.dropped_entry.take() {
            self.hide(drop..self.token_end);
        }
    }

    /// Hides the last `=`. Answers where it stands.
    fn hide_equals(&mut self) -> Range<usize> {
        let at = self.clean[..self.at]
            .iter()
            .rposition(|byte| *byte == b'=')
            .unwrap_or(0);
        self.hide(at..at + 1);
        at..at + 1
    }

    /// A `/-` that nothing follows.
    pub(super) fn unused_drop(&mut self) {
        if let Some(start) = self.drop.take() {
            self.fault(
                start..start + 2,
                "this `/-` drops nothing",
                "nothing follows",
                "leave it out",
            );
        }
    }
}

/// Blocks in blocks. The language itself needs five levels, and acls and plugin configurations may go on from there.
const MAX_DEPTH: usize = 32;

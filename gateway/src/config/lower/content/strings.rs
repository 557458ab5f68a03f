//! JSON and JavaScript: whether a place is within the quotes of a string.

use super::{Reading, Refused};

/// JSON (RFC 8259) as it is read.
#[derive(Default)]
pub(super) struct Json {
    is_string: bool,
    is_escape: bool,
}

impl Reading for Json {
    fn step(&mut self, byte: u8) {
        match (self.is_string, byte) {
            _ if std::mem::take(&mut self.is_escape) => {}
            (true, b'\\') => self.is_escape = true,
            (_, b'"') => self.is_string = !self.is_string,
            _ => {}
        }
    }

    fn refuses(&self) -> Option<Refused> {
        (!self.is_string || self.is_escape).then_some(OUTSIDE)
    }
}

/// JavaScript as it is read.
#[derive(Default)]
pub(super) struct Script(State);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Code,
    /// Behind a `/`.
    Slash,
    /// Within these quotes.
    String(u8),
    /// Within these, behind a backslash.
    Escape(u8),
    /// To the end of the line.
    Line,
    /// To `*/`; whether a `*` came last.
    Block(bool),
    /// Where a division and the beginning of a regular expression could not be told apart, or in a template.
    Unclear,
}

impl Reading for Script {
    fn step(&mut self, byte: u8) {
        self.0 = match (self.0, byte) {
            (State::Code, b'"' | b'\'') => State::String(byte),
            (State::Code, b'/') => State::Slash,
            (State::Code, b'`') => State::Unclear,
            (State::Code, _) => State::Code,
            (State::Slash, b'/') => State::Line,
            (State::Slash, b'*') => State::Block(false),
            (State::Slash | State::Unclear, _) => State::Unclear,
            (State::String(quote), b'\\') => State::Escape(quote),
            (State::String(_), b'\n' | b'\r') => State::Unclear,
            (State::String(quote), byte) if byte == quote => State::Code,
            (State::String(quote) | State::Escape(quote), _) => State::String(quote),
            (State::Line, b'\n' | b'\r') => State::Code,
            (State::Line, _) => State::Line,
            (State::Block(true), b'/') => State::Code,
            (State::Block(_), byte) => State::Block(byte == b'*'),
        };
    }

    fn refuses(&self) -> Option<Refused> {
        match self.0 {
            State::String(_) => None,
            State::Unclear => Some(Refused {
                label: "in or behind a template, a division or a regular expression it is not known what this is in",
                help: "write what has such values in it before that, with the values in ordinary quotes",
            }),
            _ => Some(OUTSIDE),
        }
    }
}

const OUTSIDE: Refused = Refused {
    label: "outside of a string it could be anything",
    help: "put it into quotes: it is escaped as the content of a string",
};

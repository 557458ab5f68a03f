//! Replacing a beginning, or the first match of a pattern. On bytes: what comes from the network need not be UTF-8.

use std::cell::RefCell;

use gateway_plugin_pattern::{Groups, Pattern};
use gateway_plugin_sdk::ConfigError;
use gateway_plugin_sdk::needs::{List, Need};
use gateway_plugin_template::{Facts, Piece, Place, Text};

use crate::config::{self, Replace, Template};
use crate::headers::is_value;
use crate::value;

/// A replacement in a text.
#[derive(Debug)]
pub(crate) enum Replacement<Need> {
    Prefix { from: String, to: Text<Need> },
    Regex(Box<Substitution<Need>>),
}

/// A replacement of a pattern's first match.
#[derive(Debug)]
pub(crate) struct Substitution<Need> {
    from: Pattern,
    to: Vec<Part<Need>>,
    /// Kept between calls, so that one allocates no more than its result.
    groups: RefCell<Groups>,
}

/// A part of what a match is replaced by.
#[derive(Debug)]
pub(crate) enum Part<Need> {
    Piece(Piece<Need>),
    Group(usize),
}

/// What the text is, which says what may be put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Header,
    Path,
    Query,
}

impl<Phase> Replacement<Need<Phase>> {
    pub(crate) fn compile(
        replace: Replace,
        kind: Kind,
        at: &str,
        needs: &mut List<Phase>,
    ) -> Result<Self, ConfigError> {
        for part in &replace.to.0 {
            if let config::Part::Text(text) = part {
                kind.admit(text)
                    .map_err(|message| ConfigError::new(message).at(format!("{at}/to")))?;
            }
        }
        match (replace.prefix, replace.regex) {
            (Some(from), None) => Ok(Self::Prefix {
                from,
                to: value::text(replace.to, needs),
            }),
            (None, Some(pattern)) => {
                let from =
                    Pattern::new(&pattern).map_err(|message| ConfigError::new(message).at(format!("{at}/regex")))?;
                let to = template(replace.to, &from, needs)
                    .map_err(|message| ConfigError::new(message).at(format!("{at}/to")))?;
                Ok(Self::Regex(Box::new(Substitution {
                    from,
                    to,
                    groups: RefCell::default(),
                })))
            }
            _ => Err(ConfigError::new("one of prefix and regex says what is replaced").at(at)),
        }
    }
}

impl<Need: Copy> Replacement<Need> {
    /// The text with the replacement made; none when what is replaced is not there.
    pub(crate) fn apply(&self, text: &[u8], facts: &impl Facts<Need>, place: Place) -> Option<Vec<u8>> {
        match self {
            Self::Prefix { from, to } => {
                let rest = text.strip_prefix(from.as_bytes())?;
                let mut replaced = Vec::with_capacity(text.len() + to.fixed_length());
                to.write(facts, place, &mut replaced);
                replaced.extend_from_slice(rest);
                Some(replaced)
            }
            Self::Regex(substitution) => substitution.apply(text, facts, place),
        }
    }
}

impl<Need: Copy> Substitution<Need> {
    fn apply(&self, text: &[u8], facts: &impl Facts<Need>, place: Place) -> Option<Vec<u8>> {
        let mut groups = self.groups.borrow_mut();
        if !self.from.find(text, &mut groups) {
            return None;
        }
        let matched = groups.range(0)?;
        let mut replaced = Vec::with_capacity(text.len() + self.to.len() * PART_LENGTH);
        replaced.extend_from_slice(&text[..matched.start]);
        for part in &self.to {
            match part {
                Part::Piece(piece) => piece.write(facts, place, &mut replaced),
                // A group that took no part in the match stands for nothing.
                Part::Group(index) => {
                    replaced.extend_from_slice(groups.range(*index).map_or(&[], |range| &text[range]))
                }
            }
        }
        replaced.extend_from_slice(&text[matched.end..]);
        Some(replaced)
    }
}

impl Kind {
    /// Whether a text may become part of a value of this kind.
    pub(crate) fn admit(self, text: &str) -> Result<(), &'static str> {
        let refused = match self {
            Self::Header => !is_value(text.as_bytes()),
            Self::Path => text
                .bytes()
                .any(|byte| matches!(byte, b'?' | b'#' | b'<' | b'>' | b'`') || !byte.is_ascii_graphic()),
            Self::Query => text.bytes().any(|byte| byte == b'#' || !byte.is_ascii_graphic()),
        };
        match (refused, self) {
            (false, _) => Ok(()),
            (true, Self::Header) => Err("a header value has no control characters"),
            (true, Self::Path) => Err(
                "a path has no `?`, `#`, `<`, `>`, backtick, white space, control or non-ASCII character; percent-encode it",
            ),
            (true, Self::Query) => {
                Err("a query has no `#`, white space, control or non-ASCII character; percent-encode it")
            }
        }
    }
}

/// Parses what a match is replaced by.
fn template<Phase>(to: Template, from: &Pattern, needs: &mut List<Phase>) -> Result<Vec<Part<Need<Phase>>>, String> {
    let mut parts = Vec::new();
    for part in to.0 {
        match part {
            config::Part::Text(text) => groups(&text, from, &mut parts)?,
            fact => parts.push(Part::Piece(value::piece(fact, needs))),
        }
    }
    Ok(parts)
}

/// Parses a text with `$1`, `$name`, `${name}`, `$$`.
fn groups<Need>(to: &str, from: &Pattern, parts: &mut Vec<Part<Need>>) -> Result<(), String> {
    let mut text = String::new();
    let mut rest = to;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            text.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or("a `${` without its `}`")?,
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if !text.is_empty() {
            parts.push(Part::Piece(Piece::Text(std::mem::take(&mut text))));
        }
        parts.push(Part::Group(group(name, from)?));
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(Part::Piece(Piece::Text(text)));
    }
    Ok(())
}

/// The group of that number or name.
fn group(name: &str, from: &Pattern) -> Result<usize, String> {
    let number = name.parse().ok().filter(|&number: &usize| number < from.groups());
    number.or_else(|| from.group(name)).ok_or_else(|| {
        if name.is_empty() {
            "a dollar is written `$$`".to_owned()
        } else {
            format!("the pattern has no group `{name}`; where a letter follows a number, write `${{1}}a`")
        }
    })
}

/// Room for a part of a replacement: a guess that spares growing the buffer.
const PART_LENGTH: usize = 16;

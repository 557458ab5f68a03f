//! A pass over the text without recursion: finds what is wrong with its form and mends a copy for the parser.
//!
//! What tokens there are is said here; what they make together, in `structure`. It knows KDL v2 except types (`(u8)1`),
//! which this language does not use, and names what older or other languages write differently.

use std::ops::Range;

use miette::SourceSpan;

use super::strings::{self, StringFault};
use super::structure::{Level, State};
use super::words::{self, Word};
use crate::config::diagnostics::{Code, ConfigError, MAX_ERRORS};
use crate::config::reader::clip;

/// What came of a pass.
pub(super) struct Scanned {
    /// The text for the parser, of the same length: comments are spaces, and what is wrong is something harmless. None when
    /// that cannot be done.
    pub(super) clean: Option<String>,
    /// What is wrong.
    pub(super) errors: Vec<ConfigError>,
}

/// Looks through a text.
pub(super) fn scan(text: &str) -> Scanned {
    let mut scanner = Scanner {
        text,
        at: 0,
        clean: text.as_bytes().to_vec(),
        errors: Vec::new(),
        levels: Vec::new(),
        state: State::Start,
        spaced: true,
        token_end: 0,
        drop: None,
        dropped_node: None,
        dropped_entry: None,
        hash_comments: false,
    };
    let whole = scanner.run();
    let clean = String::from_utf8(scanner.clean).ok();
    Scanned {
        clean: clean.filter(|_| whole),
        errors: scanner.errors,
    }
}

pub(super) struct Scanner<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    pub(super) clean: Vec<u8>,
    pub(super) errors: Vec<ConfigError>,
    pub(super) levels: Vec<Level>,
    pub(super) state: State,
    /// Whether white space came since the last token.
    pub(super) spaced: bool,
    /// Where the last token ended.
    pub(super) token_end: usize,
    /// Where a `/-` stands whose victim has not come yet.
    pub(super) drop: Option<usize>,
    /// Where the `/-` stands that drops the current node.
    pub(super) dropped_node: Option<usize>,
    /// Where the `/-` stands that drops the current entry.
    pub(super) dropped_entry: Option<usize>,
    /// Whether a comment was seen that begins with `#`.
    hash_comments: bool,
}

impl Scanner<'_> {
    /// Answers whether the parser can be given the text.
    fn run(&mut self) -> bool {
        if let Some(rest) = self.text.strip_prefix('\u{feff}') {
            self.at = self.text.len() - rest.len();
        }
        while let Some(c) = self.peek() {
            if self.errors.len() >= MAX_ERRORS || !self.step(c) {
                return false;
            }
        }
        self.unused_drop();
        self.end_of_node();
        // The parser needs its braces to match; the mended copy has no place for missing ones.
        let well_closed = self.levels.is_empty();
        for level in std::mem::take(&mut self.levels) {
            let error = syntax("this block is never closed").label(span(level.open..level.open + 1), "opened here");
            self.errors.push(error.help("write `}` where it ends"));
        }
        well_closed
    }

    /// One token. Answers whether it makes sense to go on.
    fn step(&mut self, c: char) -> bool {
        let rest = &self.text[self.at..];
        let start = self.at;
        match c {
            _ if words::is_space(c) => self.blank(c.len_utf8()),
            _ if words::is_newline(c) => {
                let length = if rest.starts_with("\r\n") { 2 } else { c.len_utf8() };
                self.at += length;
                match self.drop {
                    // It reaches over line ends to its victim; for the parser there is none.
                    Some(_) => self.hide(start..start + length),
                    None => self.end_of_node(),
                }
                self.spaced = true;
            }
            ';' => {
                if self.state == State::Start {
                    self.fault(
                        start..start + 1,
                        "this `;` ends nothing",
                        "no node before it",
                        "leave it out",
                    );
                    self.hide(start..start + 1);
                }
                self.at += 1;
                self.unused_drop();
                self.end_of_node();
                self.spaced = true;
            }
            '/' if rest.starts_with("//") => {
                let length = rest.find(words::is_newline).unwrap_or(rest.len());
                self.hide(start..start + length);
                self.at += length;
                self.spaced = true;
            }
            '/' if rest.starts_with("/*") => return self.comment(start),
            '/' if rest.starts_with("/-") => self.drop(start),
            '\\' => self.continuation(start),
            '"' => {
                let string = strings::quoted(self.text, start);
                self.string(start, string.end, string.faults);
            }
            '#' => self.hash(start),
            '{' => return self.open(start),
            '}' => self.close(start),
            '=' => self.equals(start),
            '(' => self.annotation(start),
            ')' | '[' | ']' | '/' => {
                let help = match c {
                    '/' => "write comments as `// …` or `/* … */`, and put values with a slash in quotes",
                    _ => "put values with brackets or parentheses in quotes",
                };
                self.fault(
                    start..start + 1,
                    &format!("`{c}` cannot stand here"),
                    "outside of quotes",
                    help,
                );
                self.hide(start..start + 1);
                self.at += 1;
                self.spaced = true;
            }
            _ if words::is_disallowed(c) => {
                let end = start + c.len_utf8();
                let message = format!("the character U+{:04X} cannot stand here", u32::from(c));
                self.fault(start..end, &message, "an invisible character", "leave it out");
                self.hide(start..end);
                self.at = end;
                self.spaced = true;
            }
            _ => self.word(start),
        }
        true
    }

    fn comment(&mut self, start: usize) -> bool {
        let Some(end) = self.comment_end(start) else {
            self.fault(
                start..start + 2,
                "this comment is never closed",
                "opened here",
                "write `*/` where it ends",
            );
            return false;
        };
        self.hide(start..end);
        self.at = end;
        self.spaced = true;
        true
    }

    fn comment_end(&self, start: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let (mut depth, mut at) = (1, start + 2);
        while depth > 0 {
            (depth, at) = match bytes.get(at..at + 2)? {
                b"/*" => (depth + 1, at + 2),
                b"*/" => (depth - 1, at + 2),
                _ => (depth, at + 1),
            };
        }
        Some(at)
    }

    /// `\` at the end of a line: the node goes on in the next.
    fn continuation(&mut self, start: usize) {
        let mut end = start + 1;
        // Spaces and comments may stand behind it.
        let after = loop {
            let rest = self.text[end..].trim_start_matches(words::is_space);
            end = self.text.len() - rest.len();
            match rest.starts_with("/*").then(|| self.comment_end(end)).flatten() {
                Some(behind) => end = behind,
                None => break rest,
            }
        };
        let line_ends = after.is_empty() || after.starts_with(words::is_newline) || after.starts_with("//");
        self.spaced = true;
        if !line_ends {
            let help = "put values with a backslash in quotes; at the end of a line it joins the next one";
            self.fault(start..start + 1, "`\\` cannot stand here", "outside of quotes", help);
            self.hide(start..start + 1);
            self.at += 1;
            return;
        }
        let comment = after.find(words::is_newline).unwrap_or(after.len());
        let newline = end + comment;
        self.hide(start + 1..newline);
        let length = match self.text[newline..].chars().next() {
            Some('\r') if self.text[newline..].starts_with("\r\n") => 2,
            Some(c) => c.len_utf8(),
            None => 0,
        };
        // The joined lines are a space to the parser as well, which takes less of its time.
        self.hide(start..newline + length);
        self.at = newline + length;
    }

    fn string(&mut self, start: usize, end: usize, faults: Vec<StringFault>) {
        let well = faults.is_empty();
        for fault in faults {
            self.fault(fault.place, &fault.message, &fault.label, &fault.help);
        }
        if !well {
            self.fill(start..end);
        }
        self.token(start..end, true);
    }

    /// `#"raw"#`, `#true`, or what was meant as a comment.
    fn hash(&mut self, start: usize) {
        let rest = &self.text[start..];
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        if rest[hashes..].starts_with('"') {
            let string = strings::raw(self.text, start, hashes);
            return self.string(start, string.end, string.faults);
        }
        let behind = &rest[hashes..];
        let word = &behind[..words::length(behind)];
        let is_comment = self.state == State::Start || behind.is_empty() || behind.starts_with(char::is_whitespace);
        let is_keyword = words::KEYWORDS.iter().any(|keyword| word.starts_with(keyword));
        if is_comment && !is_keyword && words::near_keyword(word).is_none() {
            return self.hash_comment(start, hashes);
        }
        let end = start + hashes + word.len();
        if hashes > 1 || !words::KEYWORDS.contains(&word) {
            let help = match words::near_keyword(word) {
                Some(keyword) => format!("did you mean `#{keyword}`?"),
                None if hashes > 1 => "comments begin with `//`".to_owned(),
                None => "there are `#true`, `#false`, `#null`, `#inf`, `#-inf` and `#nan`; comments begin with `//`"
                    .to_owned(),
            };
            self.fault(
                start..end,
                &format!("`{}` is no keyword", clip(&self.text[start..end])),
                "unknown",
                &help,
            );
            self.fill(start..end);
            return self.token(start..end, true);
        }
        self.token(start..end, false);
    }

    /// `# …` to the end of the line, as many languages write comments. Who writes one writes them all so: the first is reported.
    fn hash_comment(&mut self, start: usize, hashes: usize) {
        let rest = &self.text[start..];
        let end = start + rest.find(words::is_newline).unwrap_or(rest.len());
        if !std::mem::replace(&mut self.hash_comments, true) {
            let place = start..start + hashes;
            let message = format!("`{}` is no keyword", clip(&self.text[place.clone()]));
            self.fault(
                place,
                &message,
                "begins no comment",
                "write `//` here, and before all other comments",
            );
        }
        self.hide(start..end);
        self.at = end;
        self.spaced = true;
    }

    fn word(&mut self, start: usize) {
        let rest = &self.text[start..];
        let word = &rest[..words::length(rest)];
        let after = &rest[word.len()..];
        if word == "r" && after.starts_with(['"', '#']) && self.v1_raw_string(start) {
            return;
        }
        let end = start + word.len();
        let shown = clip(word);
        let text = match words::classify(word) {
            Word::Name => true,
            Word::Number => false,
            Word::OldKeyword => {
                let message = format!("`{shown}` has to be written `#{shown}`");
                let help = format!("this is KDL v2: write #{shown}, or \"{shown}\" for the text");
                self.fault(start..end, &message, "KDL v1", &help);
                self.fill(start..end);
                true
            }
            Word::Neither(why) => {
                let message = format!("`{shown}` is neither a number nor a word");
                self.fault(start..end, &message, why, &format!("put it in quotes: \"{shown}\""));
                self.fill(start..end);
                true
            }
        };
        self.token(start..end, text);
    }

    /// `r"…"` and `r#"…"#`, as KDL v1 and Rust write raw strings.
    fn v1_raw_string(&mut self, start: usize) -> bool {
        let rest = &self.text[start + 1..];
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        let Some(body) = rest[hashes..].strip_prefix('"') else {
            return false;
        };
        let close = format!("\"{}", "#".repeat(hashes));
        let Some(length) = body.find(&close) else { return false };
        let end = start + 1 + hashes + 1 + length + close.len();
        let content = clip(&body[..length]);
        let marks = "#".repeat(hashes.max(1));
        let help = format!("this is KDL v2: write {marks}\"{content}\"{marks}");
        self.fault(
            start..end,
            "a raw string begins with `#`, not with `r`",
            "KDL v1",
            &help,
        );
        self.fill(start..end);
        self.token(start..end, true);
        true
    }

    /// `(type)`: not used here.
    fn annotation(&mut self, start: usize) {
        let rest = &self.text[start..];
        let end = match rest.find([')', '\n', '"', '{', '}', ';']) {
            Some(end) if rest[end..].starts_with(')') => start + end + 1,
            _ => start + 1,
        };
        let help = "leave it out; put values with parentheses in quotes";
        self.fault(start..end, "types are not used here", "`(…)` is a type in KDL", help);
        self.hide(start..end);
        self.at = end;
    }

    pub(super) fn fault(&mut self, place: Range<usize>, message: &str, label: &str, help: &str) {
        self.errors.push(syntax(message).label(span(place), label).help(help));
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn blank(&mut self, length: usize) {
        self.at += length;
        self.spaced = true;
    }

    /// The parser is not to see this.
    pub(super) fn hide(&mut self, place: Range<usize>) {
        self.clean[place].fill(b' ');
    }

    /// The parser is to see a word here.
    pub(super) fn fill(&mut self, place: Range<usize>) {
        self.clean[place].fill(b'x');
    }
}

fn syntax(message: &str) -> ConfigError {
    ConfigError::new(Code::Syntax, message)
}

fn span(place: Range<usize>) -> SourceSpan {
    place.into()
}

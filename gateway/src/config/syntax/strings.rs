//! Quoted and raw strings of KDL v2: where they end, and what is wrong with them.

use std::ops::Range;

use super::words::{is_disallowed, is_newline, is_space};

/// A string that has been looked through.
pub(super) struct Scanned {
    /// Where it ends, for better or worse.
    pub(super) end: usize,
    pub(super) faults: Vec<StringFault>,
}

pub(super) struct StringFault {
    pub(super) place: Range<usize>,
    pub(super) message: String,
    pub(super) label: String,
    pub(super) help: String,
}

/// Looks through the quoted string that begins at a byte.
pub(super) fn quoted(text: &str, start: usize) -> Scanned {
    match text[start..].starts_with("\"\"\"") {
        true => multi_line(text, start, 0),
        false => single_line(text, start),
    }
}

/// Looks through the raw string that begins at a byte with so many `#`.
pub(super) fn raw(text: &str, start: usize, hashes: usize) -> Scanned {
    let body = start + hashes + 1;
    if text[start + hashes..].starts_with("\"\"\"") {
        return multi_line(text, start, hashes);
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let line = &text[body..];
    let line = &line[..line.find(is_newline).unwrap_or(line.len())];
    let Some(length) = line.find(&close) else {
        let end = body + line.len();
        let help = format!("write {close} where it ends");
        return one_fault(
            end,
            start..body,
            "this raw string is not closed on its line",
            "opened here",
            &help,
        );
    };
    let end = body + length + close.len();
    let mut faults = Vec::new();
    refuse_invisible(&line[..length], body, &mut faults);
    Scanned { end, faults }
}

fn single_line(text: &str, start: usize) -> Scanned {
    let mut faults = Vec::new();
    let mut at = start + 1;
    loop {
        let rest = &text[at..];
        match rest.chars().next() {
            Some('"') => {
                let end = at + 1;
                return Scanned { end, faults };
            }
            Some('\\') => at = escape(text, at, &mut faults),
            Some(c) if !is_newline(c) => {
                refuse_invisible(&rest[..c.len_utf8()], at, &mut faults);
                at += c.len_utf8();
            }
            _ => {
                let help = "write the closing quote; a text of several lines stands between \"\"\" and \"\"\"";
                faults.truncate(0);
                faults.push(fault(
                    start..at,
                    "this string is not closed on its line",
                    "the closing quote is missing",
                    help,
                ));
                return Scanned { end: at, faults };
            }
        }
    }
}

/// One escape. Answers where it ends.
fn escape(text: &str, at: usize, faults: &mut Vec<StringFault>) -> usize {
    let rest = &text[at + 1..];
    match rest.chars().next() {
        Some('\\' | '"' | 'b' | 'f' | 'n' | 'r' | 't' | 's') => at + 2,
        Some(c) if is_space(c) || is_newline(c) => {
            let blank = rest.trim_start_matches(|c| is_space(c) || is_newline(c));
            text.len() - blank.len()
        }
        Some('u') => {
            let digits = rest
                .strip_prefix("u{")
                .and_then(|inner| Some(&inner[..inner.find('}')?]));
            let valid = |digits: &str| {
                let fits = (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                fits && u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).is_some()
            };
            match digits {
                Some(digits) if valid(digits) => at + 4 + digits.len(),
                _ => {
                    let help = "write one to six hexadecimal digits of a character, as \\u{20AC}";
                    faults.push(fault(
                        at..at + 2,
                        "this is not a character's number",
                        "after `\\u`",
                        help,
                    ));
                    at + 2
                }
            }
        }
        Some(c) => {
            let end = at + 1 + c.len_utf8();
            let help = match c {
                '/' => "this is KDL v2: write `/` as it is".to_owned(),
                _ => "write `\\\\` for a backslash, or the text as #\"…\"#, without escapes".to_owned(),
            };
            let message = format!("there is no escape `{}`", &text[at..end]);
            faults.push(fault(at..end, &message, "unknown", &help));
            end
        }
        None => at + 1,
    }
}

/// `"""`, lines, and `"""` on a line of its own; raw when there are hashes.
fn multi_line(text: &str, start: usize, hashes: usize) -> Scanned {
    let body = start + hashes + 3;
    let rest = &text[body..];
    let Some(newline) = rest.chars().next().filter(|c| is_newline(*c)) else {
        let end = body + rest.find(is_newline).unwrap_or(rest.len());
        let help = "write the text on the lines below it, or between single quotation marks `\"`";
        return one_fault(
            end,
            start..body,
            "`\"\"\"` is followed by a new line",
            "something else follows",
            help,
        );
    };
    let mut at = body
        + if rest.starts_with("\r\n") {
            2
        } else {
            newline.len_utf8()
        };
    let close = format!("\"\"\"{}", "#".repeat(hashes));
    let mut faults = Vec::new();
    // The lines of the body: where they begin, and how much white space they begin with.
    let mut lines: Vec<(usize, usize)> = Vec::new();
    loop {
        let rest = &text[at..];
        let blank = rest.len() - rest.trim_start_matches(is_space).len();
        if rest[blank..].starts_with(&close) {
            refuse_shallow(text, &lines, &rest[..blank], &mut faults);
            let end = at + blank + close.len();
            return Scanned { end, faults };
        }
        lines.push((at, blank));
        match line(text, at, hashes, &mut faults) {
            Some(next) => at = next,
            None => {
                let help = format!("write {close} on a line of its own where it ends");
                let message = "this string is never closed";
                return one_fault(text.len(), start..body, message, "opened here", &help);
            }
        }
    }
}

/// Goes over one line of a body. Answers where the next begins.
fn line(text: &str, start: usize, hashes: usize, faults: &mut Vec<StringFault>) -> Option<usize> {
    let close = format!("\"\"\"{}", "#".repeat(hashes));
    let mut at = start;
    loop {
        let rest = &text[at..];
        let c = rest.chars().next()?;
        if is_newline(c) {
            return Some(at + if rest.starts_with("\r\n") { 2 } else { c.len_utf8() });
        }
        if rest.starts_with(&close) {
            let help = "write it on a line of its own; inside of the text, write \\\"\\\"\\\"";
            faults.push(fault(
                at..at + close.len(),
                "`\"\"\"` closes a text on a line of its own",
                "in a line of the text",
                help,
            ));
            at += close.len();
        } else if c == '\\' && hashes == 0 {
            at = escape(text, at, faults);
        } else {
            refuse_invisible(&rest[..c.len_utf8()], at, faults);
            at += c.len_utf8();
        }
    }
}

/// Every line has to begin with the white space that the closing line begins with.
fn refuse_shallow(text: &str, lines: &[(usize, usize)], prefix: &str, faults: &mut Vec<StringFault>) {
    for (start, blank) in lines {
        let line = &text[*start..];
        let is_blank = line[*blank..].chars().next().is_none_or(is_newline);
        if !is_blank && !line.starts_with(prefix) {
            let help = "indent every line of the text at least as the closing \"\"\", with the same characters";
            let place = *start..start + blank.max(&1);
            faults.push(fault(
                place,
                "this line is indented less than the closing `\"\"\"`",
                "begins too early",
                help,
            ));
            return;
        }
    }
}

fn refuse_invisible(part: &str, start: usize, faults: &mut Vec<StringFault>) {
    for (i, c) in part.char_indices().filter(|(_, c)| is_disallowed(*c)) {
        let place = start + i..start + i + c.len_utf8();
        let message = format!("the character U+{:04X} cannot stand in a string as it is", u32::from(c));
        let help = format!("write it as \\u{{{:X}}}, or leave it out", u32::from(c));
        faults.push(fault(place, &message, "an invisible character", &help));
    }
}

fn one_fault(end: usize, place: Range<usize>, message: &str, label: &str, help: &str) -> Scanned {
    let faults = vec![fault(place, message, label, help)];
    Scanned { end, faults }
}

fn fault(place: Range<usize>, message: &str, label: &str, help: &str) -> StringFault {
    StringFault {
        place,
        message: message.to_owned(),
        label: label.to_owned(),
        help: help.to_owned(),
    }
}

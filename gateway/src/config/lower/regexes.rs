//! Regular expressions, and what is put in the place of what they match.

use regex::bytes::{Regex, RegexBuilder};

use super::template::{When, template};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Replace, ReplaceFrom};
use crate::config::reader::{Node, Value, clip};

/// A regular expression that compiles.
pub(super) fn regex(value: &Value<'_>) -> Option<Regex> {
    let text = value.text()?;
    if text.len() > MAX_REGEX {
        let message = format!("a regular expression has at most {MAX_REGEX} bytes");
        return value.fail(
            message,
            "longer than that",
            "split it into several, or match a prefix first",
        );
    }
    if let Some(most) = value.context().one_too_many_regexes() {
        return value.fail(
            format!("this tenant has at most {most} regular expressions"),
            "one too many",
            "compare with whole values or their beginnings, or let the operator allow more with `quota patterns=`, of which each takes ten",
        );
    }
    match RegexBuilder::new(text)
        .unicode(false)
        .size_limit(REGEX_SIZE)
        .nest_limit(REGEX_NESTING)
        .build()
    {
        Ok(regex) => Some(regex),
        Err(regex::Error::CompiledTooBig(_)) => value.fail(
            "this regular expression is too large when compiled",
            format!("takes more than {} KiB", REGEX_SIZE >> 10),
            "use smaller repetitions: x{1,1000} is a thousand copies of x",
        ),
        Err(error) => {
            // The crate draws its own picture of the place; its last line says what is wrong.
            let text = error.to_string();
            let why = text
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            value.fail(
                "this is not a regular expression",
                why,
                "the syntax is that of Rust's regex crate: https://docs.rs/regex/#syntax",
            )
        }
    }
}

/// `prefix="…" to="…"` or `regex="…" to="…"`; also the value that `to=` was.
pub(super) fn replace<'a>(node: &mut Node<'a>, phase: When) -> Option<(Replace, Value<'a>)> {
    let prefix = node.property("prefix");
    let regex = node.property("regex");
    let to = node.required_property("to");
    let template = to.and_then(|to| template(&to, phase));
    match (prefix, regex) {
        (Some(prefix), Some(regex)) => {
            let error = ConfigError::new(
                Code::Conflict,
                format!("`{}` has both `prefix=` and `regex=`", node.name()),
            );
            let error = error.label(regex.span(), "this").label(prefix.span(), "and this");
            node.fail(error.help("one of them has to go"));
            None
        }
        (None, None) => {
            let error = ConfigError::new(Code::Missing, format!("`{}` needs `prefix=` or `regex=`", node.name()));
            node.fail(error.label(node.span(), "replaces nothing").maybe_help(node.example()));
            None
        }
        (Some(prefix), None) => {
            let from = ReplaceFrom::Prefix(prefix.text()?.to_owned());
            Some((Replace { from, to: template? }, to?))
        }
        (None, Some(pattern)) => {
            let compiled = self::regex(&pattern)?;
            check_captures(&to?, to?.any_text()?, &compiled)?;
            let from = ReplaceFrom::Regex(pattern.text()?.to_owned());
            Some((Replace { from, to: template? }, to?))
        }
    }
}

/// Every `$1` and `${name}` has to be a capture of the expression: one that is not reads as nothing.
pub(super) fn check_captures(to: &Value<'_>, text: &str, regex: &Regex) -> Option<()> {
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let start = text.len() - rest.len() + at;
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
            continue;
        }
        let (name, length) = capture_name(rest);
        if capture(name, regex).is_none() {
            let (message, help) = match name {
                "" => (
                    "this dollar names no capture".to_owned(),
                    "write `$$` for a dollar".to_owned(),
                ),
                name => {
                    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
                    let help = match digits {
                        0 => format!("the expression has {}", captures(regex)),
                        n if n < name.len() => {
                            format!("write ${{{}}}{} when the number ends there", &name[..n], &name[n..])
                        }
                        _ => format!("the expression has {}", captures(regex)),
                    };
                    (format!("the expression has no capture {:?}", clip(name)), help)
                }
            };
            let error = ConfigError::new(Code::Reference, message);
            to.context()
                .report(error.label(to.part(start, length + 1), "reads as nothing").help(help));
            return None;
        }
    }
    Some(())
}

/// The name or number of a capture behind its dollar, and how many bytes that takes, braces counted.
pub(super) fn capture_name(text: &str) -> (&str, usize) {
    match text.strip_prefix('{') {
        Some(inner) => match inner.find('}') {
            Some(end) => (&inner[..end], end + 2),
            None => ("", 1),
        },
        None => {
            let end = text
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(text.len());
            (&text[..end], end)
        }
    }
}

/// The number of the capture of that name or number.
pub(super) fn capture(name: &str, regex: &Regex) -> Option<usize> {
    match name.parse::<usize>() {
        Ok(number) => (number < regex.captures_len()).then_some(number),
        Err(_) => regex.capture_names().position(|known| known == Some(name)),
    }
}

fn captures(regex: &Regex) -> String {
    match regex.captures_len() - 1 {
        0 => "no captures: put what you need in parentheses".to_owned(),
        1 => "one capture, `$1`".to_owned(),
        n => format!("{n} captures, `$1` to `${n}`"),
    }
}

/// Bytes of a regular expression.
const MAX_REGEX: usize = 4_096;
/// Bytes of a compiled one: each is compiled again in every instance of the component that runs it.
const REGEX_SIZE: usize = 256 << 10;
/// Groups in groups: each is a frame of the component's stack.
const REGEX_NESTING: u32 = 32;

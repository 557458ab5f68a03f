//! Values: texts, names, numbers, durations, sizes and words, each with its range and its faults.

use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use kdl::{KdlEntry, KdlValue};
use miette::SourceSpan;

use super::{At, Context, clip};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::{suggest, units};
use crate::hidden::is_hidden;

/// A value that is being read: an argument or a property's value.
#[derive(Clone, Copy)]
pub(in crate::config) struct Value<'a> {
    ctx: &'a Context<'a>,
    entry: &'a KdlEntry,
    what: &'static str,
}

impl<'a> Value<'a> {
    pub(super) fn new(ctx: &'a Context<'a>, entry: &'a KdlEntry, what: &'static str) -> Self {
        Self { ctx, entry, what }
    }

    /// Where the value stands, without the property's key.
    pub(in crate::config) fn span(&self) -> SourceSpan {
        value_span(self.entry)
    }

    /// Where a part of the text value stands; the whole value when it is written with escapes.
    pub(in crate::config) fn part(&self, start: usize, length: usize) -> SourceSpan {
        let text = self.entry.value().as_string().unwrap_or("");
        let written = self.entry.format().map_or("", |format| format.value_repr.as_str());
        match written.find(text) {
            Some(at) if !text.is_empty() && at + text.len() <= written.len() => {
                SourceSpan::new((self.span().offset() + at + start).into(), length)
            }
            _ => self.span(),
        }
    }

    /// The file that the value names: one that the operator names starts at the folder of the configuration, one that a tenant
    /// names stays in the tenant's folder.
    pub(in crate::config) fn file(&self) -> Option<PathBuf> {
        let text = self.text()?;
        let Some(folder) = self.ctx.folder(self.span()) else {
            return Some(self.ctx.path(text));
        };
        if text.chars().any(is_hidden) {
            return self.fail(
                "this path has a control character in it",
                "this would break log lines",
                "give the file a name that can be printed",
            );
        }
        let mut parts = Path::new(text).components();
        if !parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return self.fail(
                "a tenant's file names files in its own folder and below",
                "leads out of it",
                "write a path that begins beside this file, without `..`",
            );
        }
        Some(folder.join(text))
    }

    pub(in crate::config) fn raw(&self) -> &'a KdlValue {
        self.entry.value()
    }

    pub(in crate::config) fn context(&self) -> &'a Context<'a> {
        self.ctx
    }

    pub(in crate::config) fn at<T>(&self, value: T) -> At<T> {
        let span = self.span();
        At { value, span }
    }

    /// Reports a fault of this value. Answers `None`, for the caller to pass on.
    pub(in crate::config) fn fail<T>(
        &self,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Option<T> {
        self.ctx.report(
            ConfigError::new(Code::Value, message)
                .label(self.span(), label)
                .help(help),
        );
        None
    }

    /// A text, possibly empty.
    pub(in crate::config) fn any_text(&self) -> Option<&'a str> {
        match self.entry.value() {
            KdlValue::String(text) if self.is_misquoted(text) => {
                self.ctx.leave_entry_unread(self.entry);
                let plain = clip(text.trim_matches(OTHER_QUOTES));
                self.fail(
                    format!("{} has to stand in straight double quotes", self.title()),
                    "these quotes are taken for a part of the text",
                    format!("write {plain:?}"),
                )
            }
            KdlValue::String(text) => Some(text),
            other => {
                let kind = kind(other);
                self.fail(
                    format!("{} has to be a text", self.title()),
                    format!("this is {kind}"),
                    "put it in quotes",
                )
            }
        }
    }

    /// Whether it was meant to be in quotes that are none in KDL, where a bare word may begin with them.
    fn is_misquoted(&self, text: &str) -> bool {
        let written = self.entry.format().map_or("", |format| format.value_repr.as_str());
        written.starts_with(OTHER_QUOTES) && text.starts_with(OTHER_QUOTES)
    }

    /// A text that is not empty.
    pub(in crate::config) fn text(&self) -> Option<&'a str> {
        let text = self.any_text()?;
        if text.is_empty() {
            let error = ConfigError::new(Code::Value, format!("{} is empty", self.title()));
            let help = "write it between the quotes, or leave the setting out";
            self.ctx
                .report(error.label(self.span(), "nothing between the quotes").help(help));
            return None;
        }
        Some(text)
    }

    /// A name that the operator gives: shown in logs and metrics, so short and without control characters.
    pub(in crate::config) fn name(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.len() > MAX_NAME {
            let message = format!("{} is longer than {MAX_NAME} bytes", self.title());
            return self.fail(
                message,
                "too long",
                "it is shown in every log line: choose a shorter one",
            );
        }
        if text.chars().any(char::is_control) {
            let message = format!("{} has a control character in it", self.title());
            return self.fail(
                message,
                "this would break log lines",
                "choose a name that can be printed",
            );
        }
        Some(text)
    }

    /// A whole number.
    pub(in crate::config) fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (*range.start(), *range.end());
        let title = self.title();
        let help = format!("write a whole number from {low} to {high}");
        match self.entry.value() {
            KdlValue::Integer(number) => match u64::try_from(*number) {
                Ok(number) if range.contains(&number) => Some(number),
                _ => self.fail(format!("{title} has to be from {low} to {high}"), "out of range", help),
            },
            KdlValue::String(text) if text.parse::<u64>().is_ok() => self.fail(
                format!("{title} has to be a number"),
                "this is a text",
                format!("write {text}, without quotes"),
            ),
            other => self.fail(
                format!("{title} has to be a whole number"),
                format!("this is {}", kind(other)),
                help,
            ),
        }
    }

    /// A duration.
    pub(in crate::config) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        // Who leaves the unit out of a large number thinks of milliseconds, as HAProxy does.
        let unit = |number| if number < 1000 { "s" } else { "ms" };
        let text = self.quantity(unit, units::DURATION_HELP)?;
        let value = match units::duration(text) {
            Ok(value) => value,
            Err(error) => return self.fail(format!("{} is not a duration", self.title()), error.message, error.help),
        };
        if !range.contains(&value) {
            let (low, high) = (units::show_duration(*range.start()), units::show_duration(*range.end()));
            return self.fail(
                format!("{} has to be from {low} to {high}", self.title()),
                "out of range",
                units::DURATION_HELP,
            );
        }
        Some(value)
    }

    /// A size in bytes.
    pub(in crate::config) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.quantity(|_| "B", units::SIZE_HELP)?;
        let value = match units::size(text) {
            Ok(value) => value,
            Err(error) => return self.fail(format!("{} is not a size", self.title()), error.message, error.help),
        };
        if !range.contains(&value) {
            let (low, high) = (units::show_size(*range.start()), units::show_size(*range.end()));
            return self.fail(
                format!("{} has to be from {low} to {high}", self.title()),
                "out of range",
                units::SIZE_HELP,
            );
        }
        Some(value)
    }

    /// A part of all, in hundredths of a percent.
    pub(in crate::config) fn percentage(&self) -> Option<u16> {
        let text = self.quantity(|_| "%", units::PART_HELP)?;
        let part = units::part(text);
        part.map_or_else(
            |error| self.fail(format!("{} is no part of all", self.title()), error.message, error.help),
            Some,
        )
    }

    /// CPU time per time, in thousandths of a CPU's.
    pub(in crate::config) fn cores(&self) -> Option<u32> {
        let text = self.quantity(|_| " cores", units::CORES_HELP)?;
        let cores = units::cores(text);
        cores.map_or_else(
            |error| {
                self.fail(
                    format!("{} is no share of CPUs", self.title()),
                    error.message,
                    error.help,
                )
            },
            Some,
        )
    }

    /// One of several words.
    pub(in crate::config) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let list = suggest::list(&words).unwrap_or_default();
        let KdlValue::String(text) = self.entry.value() else {
            let label = format!("this is {}", kind(self.entry.value()));
            return self.fail(format!("{} has to be {list}", self.title()), label, "put it in quotes");
        };
        if let Some((_, value)) = choices.iter().find(|(word, _)| word == text) {
            return Some(*value);
        }
        let help = suggest::did_you_mean(text, &words, || Some("write one of these words".to_owned()));
        let error = ConfigError::new(Code::Value, format!("{} has to be {list}", self.title()));
        self.ctx
            .report(error.label(self.span(), "unknown word").maybe_help(help));
        None
    }

    /// What it is, to begin a sentence with.
    pub(in crate::config) fn title(&self) -> String {
        match self.entry.name() {
            Some(key) => format!("`{}`", key.value()),
            None => self.what.to_owned(),
        }
    }

    /// A text with a unit; a bare number gets told so.
    fn quantity(&self, unit: fn(i128) -> &'static str, help: &str) -> Option<&'a str> {
        match self.entry.value() {
            KdlValue::String(_) => self.any_text(),
            KdlValue::Integer(number) => {
                let message = format!("{} needs a unit", self.title());
                self.fail(
                    message,
                    "a number alone",
                    format!("write it with its unit, as \"{number}{}\"", unit(*number)),
                )
            }
            other => self.fail(
                format!("{} has to be a text", self.title()),
                format!("this is {}", kind(other)),
                help,
            ),
        }
    }
}

/// Where an argument or a property's value stands, without the property's key.
pub(in crate::config) fn value_span(entry: &KdlEntry) -> SourceSpan {
    let whole = entry.span();
    let length = entry.format().map_or(whole.len(), |format| format.value_repr.len());
    let length = length.min(whole.len());
    SourceSpan::new((whole.offset() + whole.len() - length).into(), length)
}

fn kind(value: &KdlValue) -> &'static str {
    match value {
        KdlValue::String(_) => "a text",
        KdlValue::Integer(_) => "a number",
        KdlValue::Float(_) => "a number with a fraction",
        KdlValue::Bool(_) => "a boolean",
        KdlValue::Null => "null",
    }
}

/// Quotes of other languages and of text editors.
pub(super) const OTHER_QUOTES: [char; 8] = [
    '\'', '`', '\u{2018}', '\u{2019}', '\u{201a}', '\u{201c}', '\u{201d}', '\u{201e}',
];
/// Names go into log lines and metric labels.
const MAX_NAME: usize = 128;

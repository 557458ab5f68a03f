//! What is wrong with a configuration: every fault at once, each with its place, a help line and a code that stays.

mod code;
mod located;
mod source;

use std::fmt;

use miette::{Diagnostic, SourceSpan};

pub use code::Code;
use located::Located;
pub(super) use source::{LineIndex, shifted};
pub use source::{Position, Source};

/// Everything that is wrong with one configuration. Never empty.
#[derive(Clone)]
pub struct ConfigErrors {
    source: Source,
    errors: Vec<ConfigError>,
}

/// One fault.
#[derive(Debug, Clone)]
pub struct ConfigError {
    code: Code,
    message: String,
    labels: Vec<Label>,
    help: Option<String>,
    /// Whether all goes on in spite of it.
    is_warning: bool,
}

/// A place that a fault points at, and what is to be seen there. The first one of a fault is where the fault is.
#[derive(Debug, Clone)]
pub struct Label {
    /// Bytes of the text.
    pub span: SourceSpan,
    /// What is to be seen there.
    pub text: String,
}

impl ConfigErrors {
    /// Of a single text.
    pub(super) fn new(name: &str, text: &str, errors: Vec<ConfigError>) -> Self {
        Self::of(Source::new(name, text), errors)
    }

    /// `errors` in the order of the text; those beyond [`MAX_ERRORS`] are counted and dropped.
    pub(super) fn of(source: Source, mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.labels.first().map_or(0, |label| label.span.offset()));
        let more = errors.len().saturating_sub(MAX_ERRORS);
        errors.truncate(MAX_ERRORS);
        if more > 0 {
            errors.push(ConfigError::new(
                Code::Syntax,
                format!("and {more} more; only the first {MAX_ERRORS} are shown"),
            ));
        }
        Self { source, errors }
    }

    /// The file as it was named.
    pub fn file(&self) -> &str {
        &self.source.at(0).name
    }

    /// The file that a span stands in, as it was named.
    pub fn file_of(&self, span: SourceSpan) -> &str {
        &self.source.at(span.offset()).name
    }

    /// The faults, in the order of the text.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ConfigError> {
        self.errors.iter()
    }

    /// The first of them, in one line.
    pub fn first(&self) -> String {
        let error = self.errors.first();
        let place = error
            .and_then(|error| error.labels.first())
            .map(|label| self.position(label.span).0);
        let message = error.map_or("", ConfigError::message);
        match place {
            Some(Position { line, column }) => format!("{line}:{column}: {message}"),
            None => message.to_owned(),
        }
    }

    /// Bytes of the longest line of all files.
    pub fn longest_line(&self) -> usize {
        self.source.longest_line()
    }

    /// A fault together with the text that it points into, to be drawn on its own.
    pub fn located<'a>(&'a self, error: &'a ConfigError) -> impl Diagnostic + 'a {
        Located {
            file: self
                .source
                .at(error.labels.first().map_or(0, |label| label.span.offset())),
            source: &self.source,
            error,
        }
    }

    /// Where a span begins and where it ends (the position after its last character).
    pub fn position(&self, span: SourceSpan) -> (Position, Position) {
        let file = self.source.at(span.offset());
        let start = span.offset() - file.base;
        (file.position(start), file.position(start.saturating_add(span.len())))
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errors.len() {
            1 => write!(f, "{}: 1 error", self.file()),
            n => write!(f, "{}: {n} errors", self.file()),
        }
    }
}

/// One line a fault, for logs and failed assertions.
impl fmt::Debug for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        for error in &self.errors {
            f.write_str("\n  ")?;
            if let Some(label) = error.labels.first() {
                let (start, _) = self.position(label.span);
                let file = self.file_of(label.span);
                if file != self.file() {
                    write!(f, "{file}:")?;
                }
                write!(f, "{}:{}: ", start.line, start.column)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl ConfigError {
    /// A fault without a place yet.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            labels: Vec::new(),
            help: None,
            is_warning: false,
        }
    }

    /// The same as something that keeps nobody from starting.
    pub fn as_warning(mut self) -> Self {
        self.is_warning = true;
        self
    }

    /// Points at a place.
    pub fn label(mut self, span: SourceSpan, text: impl Into<String>) -> Self {
        let text = text.into();
        self.labels.push(Label { span, text });
        self
    }

    /// The same, with its places so many bytes further on.
    pub(super) fn shifted(mut self, by: usize) -> Self {
        for label in &mut self.labels {
            label.span = shifted(label.span, by);
        }
        self
    }

    /// Says how to mend it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// As [`help`](Self::help), when there is one.
    pub(super) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// The same fault, said in other words.
    pub fn in_words(mut self, message: String) -> Self {
        self.message = message;
        self
    }

    /// What kind of fault it is.
    pub fn kind(&self) -> Code {
        self.code
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where; the first place is where the fault is, the others what it has to do with.
    pub fn places(&self) -> &[Label] {
        &self.labels
    }

    /// How to mend it.
    pub fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Faults shown of one configuration. Whoever has more has pasted something else, and each costs a pass over the text to
/// render.
pub(super) const MAX_ERRORS: usize = 100;

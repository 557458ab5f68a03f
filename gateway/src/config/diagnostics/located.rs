//! A fault as miette draws it.

use std::fmt;

use miette::{Diagnostic, LabeledSpan, Severity, SourceSpan};

use super::source::{Source, SourceFile};
use super::{ConfigError, Label};

/// A fault with the file that it points into. Miette draws places of one text: what a fault has to do with in another file
/// stands in its help.
pub(super) struct Located<'a> {
    pub(super) file: &'a SourceFile,
    pub(super) source: &'a Source,
    pub(super) error: &'a ConfigError,
}

impl fmt::Debug for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.error, f)
    }
}

impl fmt::Display for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.error, f)
    }
}

impl std::error::Error for Located<'_> {}

impl Diagnostic for Located<'_> {
    fn severity(&self) -> Option<Severity> {
        self.error.is_warning.then_some(Severity::Warning)
    }

    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.error.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let mut help = self.error.help.clone();
        for label in self.error.labels.iter().filter(|label| !self.is_here(label)) {
            let (file, line) = self.source.place(label.span);
            let elsewhere = format!("{}: {file}, line {line}", label.text);
            help = Some(match help {
                Some(help) => format!("{help} ({elsewhere})"),
                None => elsewhere,
            });
        }
        help.map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        if self.error.labels.is_empty() {
            return None;
        }
        let labels = self.error.labels.iter().filter(move |label| self.is_here(label));
        Some(Box::new(labels.enumerate().map(move |(i, label)| {
            let text = (!label.text.is_empty()).then(|| label.text.clone());
            let start = label.span.offset() - self.file.base;
            let span = SourceSpan::new(start.into(), label.span.len());
            match i {
                0 => LabeledSpan::new_primary_with_span(text, span),
                _ => LabeledSpan::new_with_span(text, span),
            }
        })))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.file.text)
    }
}

impl Located<'_> {
    fn is_here(&self, label: &Label) -> bool {
        self.source.at(label.span.offset()).base == self.file.base
    }
}

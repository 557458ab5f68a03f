//! What is wrong with a configuration: every fault at once, each with its place, a help line and a code that stays.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceSpan};

/// Everything that is wrong with one configuration. Never empty.
#[derive(Clone)]
pub struct ConfigErrors {
    source: Source,
    errors: Vec<ConfigError>,
}

/// A configuration's files and what they are called: what faults point into. They stand one behind the other as if they were one
/// text, so that a span says which file it is in: the configuration itself first, then what its tenants include, then lists of values.
#[derive(Debug, Clone)]
pub struct Source(Vec<SourceFile>);

#[derive(Debug, Clone)]
struct SourceFile {
    name: Arc<str>,
    /// As those hold it who read it.
    text: NamedSource<Arc<str>>,
    /// Where its lines begin, once somebody has asked: of a list few ever do.
    lines: OnceLock<LineIndex>,
    /// Where its first byte stands among all of them.
    base: usize,
    /// Whose it is; none for the configuration itself.
    owner: Option<Owner>,
}

/// Of a tenant's file.
#[derive(Debug, Clone)]
struct Owner {
    /// The tenant, by its number in the configuration.
    tenant: usize,
    /// What the file may not lead out of.
    folder: Arc<Path>,
}

/// One fault.
#[derive(Debug, Clone)]
pub struct ConfigError {
    code: Code,
    message: String,
    labels: Vec<Label>,
    help: Option<String>,
}

/// A place that a fault points at, and what is to be seen there. The first one of a fault is where the fault is.
#[derive(Debug, Clone)]
pub struct Label {
    /// Bytes of the text.
    pub span: SourceSpan,
    /// What is to be seen there.
    pub text: String,
}

/// The kind of a fault. The words are part of what `gateway check --format json` promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The file cannot be read.
    Io,
    /// The text is not KDL.
    Syntax,
    /// A node, property or argument that does not exist, or not there.
    Unknown,
    /// Something is said twice.
    Duplicate,
    /// Something has to be said and is not.
    Missing,
    /// A value is not one that can stand there.
    Value,
    /// A name that nothing has.
    Reference,
    /// Something does not fit the mode, or two modes do not fit.
    Mode,
    /// Two settings contradict each other.
    Conflict,
    /// Something has no effect.
    Inert,
    /// A certificate or key that cannot be used.
    Tls,
    /// A component that cannot be used, or not like this.
    Policy,
    /// Something that this machine does not have, or does not give.
    System,
}

/// A position in the text, from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Source {
    /// A text and what messages call it.
    pub fn new(name: &str, text: &str) -> Self {
        Self(vec![SourceFile::new(name, text.into(), 0, None)])
    }

    /// Where the first byte of the next file would stand. No two files have a place in common, not even their ends.
    pub(super) fn next_base(&self) -> usize {
        self.0.last().map_or(0, |last| last.base + last.text.inner().len() + 1)
    }

    /// Adds a file: the operator's, or one of a tenant's, which stands in a folder that it may not lead out of.
    pub(super) fn add(&mut self, name: &str, text: &Arc<str>, owner: Option<(usize, Arc<Path>)>) {
        let base = self.next_base();
        let owner = owner.map(|(tenant, folder)| Owner { tenant, folder });
        self.0.push(SourceFile::new(name, Arc::clone(text), base, owner));
    }

    /// The file and the line, from 1, that a span begins in.
    pub fn place(&self, span: SourceSpan) -> (&Arc<str>, usize) {
        let file = self.at(span.offset());
        (&file.name, file.lines().line(span.offset() - file.base))
    }

    /// The folder that what is said at this place may not lead out of; none for what the operator says.
    pub(super) fn folder(&self, span: SourceSpan) -> Option<&Arc<Path>> {
        self.at(span.offset()).owner.as_ref().map(|owner| &owner.folder)
    }

    /// The tenant, by its number, whose file this place is in; none for what the operator says.
    pub(super) fn tenant_at(&self, span: SourceSpan) -> Option<usize> {
        self.at(span.offset()).owner.as_ref().map(|owner| owner.tenant)
    }

    /// The tenant, by its number, in whose files a fault is, or has to do with something. None where all is the operator's.
    pub(super) fn tenant(&self, error: &ConfigError) -> Option<usize> {
        error.places().iter().find_map(|label| self.tenant_at(label.span))
    }

    /// Where a fault is: the file, and the position in it.
    pub(super) fn whereabouts(&self, error: &ConfigError) -> (Arc<str>, Option<Position>) {
        let Some(label) = error.places().first() else {
            return (Arc::clone(&self.at(0).name), None);
        };
        let file = self.at(label.span.offset());
        let position = file.position(label.span.offset() - file.base);
        (Arc::clone(&file.name), Some(position))
    }

    /// The file that a byte stands in.
    fn at(&self, offset: usize) -> &SourceFile {
        let behind = self.0.partition_point(|file| file.base <= offset);
        // The first begins at 0: there is always one.
        &self.0[behind.saturating_sub(1)]
    }

    /// What is wrong with this text, found after it was read. At least one fault.
    pub fn errors(&self, errors: Vec<ConfigError>) -> ConfigErrors {
        ConfigErrors::of(self.clone(), errors)
    }
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
        let lines = self.source.0.iter().flat_map(|file| file.text.inner().lines());
        lines.map(str::len).max().unwrap_or(0)
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
        }
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

/// A fault with the file that it points into. Miette draws places of one text: what a fault has to do with in another file
/// stands in its help.
struct Located<'a> {
    file: &'a SourceFile,
    source: &'a Source,
    error: &'a ConfigError,
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

impl SourceFile {
    fn new(name: &str, text: Arc<str>, base: usize, owner: Option<Owner>) -> Self {
        Self {
            name: name.into(),
            text: NamedSource::new(name, text),
            lines: OnceLock::new(),
            base,
            owner,
        }
    }

    fn lines(&self) -> &LineIndex {
        self.lines.get_or_init(|| LineIndex::new(self.text.inner()))
    }

    /// Where in the file this byte of it stands.
    fn position(&self, offset: usize) -> Position {
        self.lines().position(self.text.inner(), offset)
    }
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Io,
        Self::Syntax,
        Self::Unknown,
        Self::Duplicate,
        Self::Missing,
        Self::Value,
        Self::Reference,
        Self::Mode,
        Self::Conflict,
        Self::Inert,
        Self::Tls,
        Self::Policy,
        Self::System,
    ];

    /// The code as it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Io => "config::io",
            Self::Syntax => "config::syntax",
            Self::Unknown => "config::unknown",
            Self::Duplicate => "config::duplicate",
            Self::Missing => "config::missing",
            Self::Value => "config::value",
            Self::Reference => "config::reference",
            Self::Mode => "config::mode",
            Self::Conflict => "config::conflict",
            Self::Inert => "config::inert",
            Self::Tls => "config::tls",
            Self::Policy => "config::policy",
            Self::System => "config::system",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A span, so many bytes further on.
pub(super) fn shifted(span: SourceSpan, by: usize) -> SourceSpan {
    SourceSpan::new((span.offset() + by).into(), span.len())
}

/// Where the lines of a text begin.
#[derive(Debug, Clone)]
pub(super) struct LineIndex(Vec<usize>);

impl LineIndex {
    pub(super) fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(std::iter::once(0).chain(ends.map(|(i, _)| i + 1)).collect())
    }

    /// The line, from 1, that a byte stands in.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }

    fn position(&self, text: &str, offset: usize) -> Position {
        let line = self.line(offset);
        let start = self.0.get(line - 1).copied().unwrap_or(0);
        let before = text.get(start..offset.min(text.len())).unwrap_or("");
        Position {
            line,
            column: before.chars().count() + 1,
        }
    }
}

/// Faults shown of one configuration. Whoever has more has pasted something else, and each costs a pass over the text to
/// render.
pub(super) const MAX_ERRORS: usize = 100;

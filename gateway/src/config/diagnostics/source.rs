//! The texts that faults point into, and where in them a byte stands.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use miette::{NamedSource, SourceSpan};

use super::{ConfigError, ConfigErrors};

/// A configuration's files and what they are called: what faults point into. They stand one behind the other as if they were one
/// text, so that a span says which file it is in: the configuration itself first, then what its tenants include, then lists of values.
#[derive(Debug, Clone)]
pub struct Source(Vec<SourceFile>);

#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    pub(super) name: Arc<str>,
    /// As those hold it who read it.
    pub(super) text: NamedSource<Arc<str>>,
    /// Where its lines begin, once somebody has asked: of a list few ever do.
    lines: OnceLock<LineIndex>,
    /// Where its first byte stands among all of them.
    pub(super) base: usize,
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
    pub(in crate::config) fn next_base(&self) -> usize {
        self.0.last().map_or(0, |last| last.base + last.text.inner().len() + 1)
    }

    /// Adds a file: the operator's, or one of a tenant's, which stands in a folder that it may not lead out of.
    pub(in crate::config) fn add(&mut self, name: &str, text: &Arc<str>, owner: Option<(usize, Arc<Path>)>) {
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
    pub(in crate::config) fn folder(&self, span: SourceSpan) -> Option<&Arc<Path>> {
        self.at(span.offset()).owner.as_ref().map(|owner| &owner.folder)
    }

    /// The tenant, by its number, whose file this place is in; none for what the operator says.
    pub(in crate::config) fn tenant_at(&self, span: SourceSpan) -> Option<usize> {
        self.at(span.offset()).owner.as_ref().map(|owner| owner.tenant)
    }

    /// The tenant, by its number, in whose files a fault is, or has to do with something. None where all is the operator's.
    pub(in crate::config) fn tenant(&self, error: &ConfigError) -> Option<usize> {
        error.places().iter().find_map(|label| self.tenant_at(label.span))
    }

    /// Where a fault is: the file, and the position in it.
    pub(in crate::config) fn whereabouts(&self, error: &ConfigError) -> (Arc<str>, Option<Position>) {
        let Some(label) = error.places().first() else {
            return (Arc::clone(&self.at(0).name), None);
        };
        let file = self.at(label.span.offset());
        let position = file.position(label.span.offset() - file.base);
        (Arc::clone(&file.name), Some(position))
    }

    /// The file that a byte stands in.
    pub(super) fn at(&self, offset: usize) -> &SourceFile {
        let behind = self.0.partition_point(|file| file.base <= offset);
        // The first begins at 0: there is always one.
        &self.0[behind.saturating_sub(1)]
    }

    /// Bytes of the longest line of all files.
    pub(super) fn longest_line(&self) -> usize {
        let lines = self.0.iter().flat_map(|file| file.text.inner().lines());
        lines.map(str::len).max().unwrap_or(0)
    }

    /// What is wrong with this text, found after it was read. At least one fault.
    pub fn errors(&self, errors: Vec<ConfigError>) -> ConfigErrors {
        ConfigErrors::of(self.clone(), errors)
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
    pub(super) fn position(&self, offset: usize) -> Position {
        self.lines().position(self.text.inner(), offset)
    }
}

/// A span, so many bytes further on.
pub(in crate::config) fn shifted(span: SourceSpan, by: usize) -> SourceSpan {
    SourceSpan::new((span.offset() + by).into(), span.len())
}

/// Where the lines of a text begin.
#[derive(Debug, Clone)]
pub(in crate::config) struct LineIndex(Vec<usize>);

impl LineIndex {
    pub(in crate::config) fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(std::iter::once(0).chain(ends.map(|(i, _)| i + 1)).collect())
    }

    /// The line, from 1, that a byte stands in.
    pub(in crate::config) fn line(&self, offset: usize) -> usize {
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

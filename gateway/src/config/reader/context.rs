//! What all readers of one configuration share: the faults that were found, and what texts ask for that something else has to
//! see to.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kdl::{KdlDocument, KdlEntry, KdlNode};
use miette::SourceSpan;

use super::value::OTHER_QUOTES;
use crate::config::diagnostics::{ConfigError, MAX_ERRORS, Source};
use crate::config::examples;
use crate::config::include::Inclusion;
use crate::config::lists::Lists;
use crate::config::model::Origin;

/// What all readers of one configuration share.
pub(in crate::config) struct Context<'a> {
    pub(super) source: &'a Source,
    base_dir: &'a Path,
    included: &'a [Inclusion],
    pub(super) lists: RefCell<Lists>,
    /// While the values of a list are read: where it is named.
    pub(super) listed: Cell<Option<SourceSpan>>,
    errors: RefCell<Vec<ConfigError>>,
    /// How many of these are of each tenant's files; the operator's under none.
    kept: RefCell<HashMap<Option<usize>, usize>>,
    notes: RefCell<Vec<Note>>,
    asked: RefCell<Vec<Asked>>,
    traced: RefCell<Vec<SourceSpan>>,
    trace_fields: RefCell<Vec<TraceField>>,
    /// The texts of what nobody has asked for, and the words in them.
    unread: RefCell<HashSet<String>>,
    /// While a tenant's rules are read: how many regular expressions may yet be said, and how many there may be in all.
    regexes: Cell<Option<(usize, usize)>>,
    /// Likewise how many values of lists.
    list_values: Cell<Option<(usize, usize)>>,
    /// How a node is written.
    pub(super) examples: fn(&str) -> Option<&'static str>,
}

/// A field of a request that says which trace it belongs to, where it is written.
#[derive(Debug, Clone)]
pub(in crate::config) struct TraceField {
    /// Its name.
    pub(in crate::config) name: String,
    /// Where that stands.
    pub(in crate::config) span: SourceSpan,
    /// Whether a tenant writes it.
    pub(in crate::config) is_tenants: bool,
}

/// A map that a variable is looked up in.
#[derive(Debug, Clone)]
pub(in crate::config) struct Asked {
    /// Its name.
    pub(in crate::config) map: String,
    /// Where that stands.
    pub(in crate::config) span: SourceSpan,
    /// Whether what is looked up is an address.
    pub(in crate::config) is_address: bool,
}

/// Something that a text asks for, and that something else has to see to.
#[derive(Debug, Clone)]
pub(in crate::config) enum Note {
    /// The number of a request, here.
    RequestId(SourceSpan),
}

impl<'a> Context<'a> {
    pub(in crate::config) fn new(source: &'a Source, base_dir: &'a Path, included: &'a [Inclusion]) -> Self {
        Self {
            source,
            base_dir,
            included,
            lists: RefCell::default(),
            listed: Cell::new(None),
            errors: RefCell::default(),
            kept: RefCell::default(),
            notes: RefCell::default(),
            asked: RefCell::default(),
            traced: RefCell::default(),
            trace_fields: RefCell::default(),
            unread: RefCell::default(),
            regexes: Cell::new(None),
            list_values: Cell::new(None),
            examples: examples::of,
        }
    }

    /// Of a text that has nodes of its own beside those of a configuration: how they are written.
    pub(in crate::config) fn with_examples(
        source: &'a Source,
        base_dir: &'a Path,
        examples: fn(&str) -> Option<&'static str>,
    ) -> Self {
        Self {
            examples,
            ..Self::new(source, base_dir, &[])
        }
    }

    /// Of a configuration that names lists.
    pub(in crate::config) fn with_lists(self, lists: Lists) -> Self {
        Self {
            lists: lists.into(),
            ..self
        }
    }

    pub(in crate::config) fn note(&self, note: Note) {
        self.notes.borrow_mut().push(note);
    }

    /// A field is written that says which trace a request belongs to.
    pub(in crate::config) fn note_trace_field(&self, name: &str, span: SourceSpan) {
        let (name, is_tenants) = (name.to_owned(), self.is_in_tenant());
        self.trace_fields
            .borrow_mut()
            .push(TraceField { name, span, is_tenants });
    }

    /// Those that are written.
    pub(in crate::config) fn take_trace_fields(&self) -> Vec<TraceField> {
        self.trace_fields.take()
    }

    /// A text asks for what only a request that is traced has, here.
    pub(in crate::config) fn note_trace(&self, span: SourceSpan) {
        self.traced.borrow_mut().push(span);
    }

    /// Where texts have asked for that.
    pub(in crate::config) fn take_traced(&self) -> Vec<SourceSpan> {
        self.traced.take()
    }

    /// From now on a tenant's rules are read, who may have so many regular expressions, and so many values in lists.
    pub(in crate::config) fn begin_tenant(&self, regexes: usize, list_values: usize) {
        self.regexes.set(Some((regexes, regexes)));
        self.list_values.set(Some((list_values, list_values)));
    }

    /// Now they have been read.
    pub(in crate::config) fn end_tenant(&self) {
        self.regexes.set(None);
        self.list_values.set(None);
    }

    /// Whether they are being read.
    pub(in crate::config) fn is_in_tenant(&self) -> bool {
        self.regexes.get().is_some()
    }

    /// Another regular expression is going to be compiled. How many there may be at most where it is one too many.
    pub(in crate::config) fn one_too_many_regexes(&self) -> Option<usize> {
        one_too_many(&self.regexes)
    }

    /// Another value of a list is going to be read. Likewise: a list of thousands may be named in thousands of places, and its values
    /// would all be there before they were counted.
    pub(in crate::config) fn one_too_many_list_values(&self) -> Option<usize> {
        one_too_many(&self.list_values)
    }

    pub(in crate::config) fn ask(&self, asked: Asked) {
        self.asked.borrow_mut().push(asked);
    }

    /// What variables are looked up in.
    pub(in crate::config) fn take_asked(&self) -> Vec<Asked> {
        self.asked.take()
    }

    /// What has been noted since it was last asked.
    pub(in crate::config) fn take_notes(&self) -> Vec<Note> {
        self.notes.take()
    }

    pub(in crate::config) fn report(&self, mut error: ConfigError) {
        if let Some(named) = self.listed.get() {
            error = error.label(named, "this list was named");
        }
        let tenant = self.lists.borrow().tenant(self.source, &error);
        let mut kept = self.kept.borrow_mut();
        let kept = kept.entry(tenant).or_default();
        if *kept < MAX_KEPT {
            *kept += 1;
            self.errors.borrow_mut().push(error);
        }
    }

    /// Whether so much is wrong that looking for what was meant is not worth its time any more.
    pub(in crate::config) fn is_crowded(&self) -> bool {
        self.errors.borrow().len() > MAX_ERRORS
    }

    pub(in crate::config) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }

    /// The faults, and the lists that were named.
    pub(in crate::config) fn into_parts(self) -> (Vec<ConfigError>, Lists) {
        (self.errors.into_inner(), self.lists.into_inner())
    }

    /// Nobody has asked for this node, which is reported: what it names may be in use by what it was meant to be.
    pub(super) fn leave_unread(&self, node: &KdlNode) {
        self.note_unread(node.name().value());
        node.entries().iter().for_each(|entry| self.leave_entry_unread(entry));
        let nodes = node.children().into_iter().flat_map(KdlDocument::nodes);
        nodes.for_each(|node| self.leave_unread(node));
    }

    /// The same of an argument or a property.
    pub(super) fn leave_entry_unread(&self, entry: &KdlEntry) {
        let Some(text) = entry.value().as_string() else { return };
        self.note_unread(text);
        // As the names in a condition.
        let words = text.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')') || OTHER_QUOTES.contains(&c));
        words.for_each(|word| self.note_unread(word));
    }

    fn note_unread(&self, text: &str) {
        let mut unread = self.unread.borrow_mut();
        if unread.len() < MAX_UNREAD && !unread.contains(text) {
            unread.insert(text.to_owned());
        }
    }

    /// Whether something that nobody has asked for says this. Then nobody knows whether what has this name is used.
    pub(in crate::config) fn is_unread(&self, text: &str) -> bool {
        let unread = self.unread.borrow();
        unread.len() >= MAX_UNREAD || unread.contains(text)
    }

    /// A path as the configuration means it: relative ones start at the configuration's own folder.
    pub(in crate::config) fn path(&self, path: &str) -> PathBuf {
        self.base_dir.join(path)
    }

    pub(in crate::config) fn origin(&self, span: SourceSpan) -> Origin {
        let (file, line) = self.source.place(span);
        Origin {
            file: Arc::clone(file),
            line,
            span,
        }
    }

    /// What an `include` at this place has brought.
    pub(in crate::config) fn included(&self, at: SourceSpan) -> impl Iterator<Item = &'a Inclusion> {
        self.included.iter().filter(move |inclusion| inclusion.at == at)
    }

    /// The folder that what is said at this place may not lead out of; none for what the operator says.
    pub(in crate::config) fn folder(&self, at: SourceSpan) -> Option<&'a Arc<Path>> {
        self.source.folder(at)
    }
}

/// Takes one of those that are left. How many there may be at most where none was.
fn one_too_many(left: &Cell<Option<(usize, usize)>>) -> Option<usize> {
    let (few, most) = left.get()?;
    left.set(Some((few.saturating_sub(1), most)));
    (few == 0).then_some(most)
}

/// Faults kept of what the operator has written, and of each tenant's files: more than are shown, since those are the first of the text and
/// not the first found. Nobody's many hide those of others.
const MAX_KEPT: usize = 10_000;
/// Texts that nobody has asked for which are remembered. Where there are more, nothing is reported that may be for want of one.
const MAX_UNREAD: usize = 10_000;

//! Reading KDL nodes with a memory: what nobody asked for is an error, and what was asked for is what can be suggested.
//!
//! A [`Node`] hands out its arguments, properties and block; [`Node::finish`] reports the rest. A [`Block`] hands out its
//! nodes by name; [`Block::finish`] reports the rest. Faults are collected in the [`Context`] and reading goes on: a
//! reader answers `None` only where it has reported why.

mod list;
mod value;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kdl::{KdlDocument, KdlEntry, KdlNode};
use miette::SourceSpan;

use super::diagnostics::{Code, ConfigError, MAX_ERRORS, Source};
use super::include::Inclusion;
use super::lists::Lists;
pub(super) use super::model::At;
use super::model::Origin;
use super::{examples, suggest};
use crate::hidden::is_hidden;
pub(super) use value::{Value, value_span};

/// What all readers of one configuration share.
pub(super) struct Context<'a> {
    source: &'a Source,
    base_dir: &'a Path,
    included: &'a [Inclusion],
    lists: RefCell<Lists>,
    /// While the values of a list are read: where it is named.
    listed: Cell<Option<SourceSpan>>,
    errors: RefCell<Vec<ConfigError>>,
    /// How many of these are of each tenant's files; the operator's under none.
    kept: RefCell<HashMap<Option<usize>, usize>>,
    notes: RefCell<Vec<Note>>,
    asked: RefCell<Vec<Asked>>,
    traced: RefCell<Vec<SourceSpan>>,
    trace_fields: RefCell<Vec<TraceField>>,
    /// While a tenant's rules are read: how many regular expressions may yet be said, and how many there may be in all.
    regexes: Cell<Option<(usize, usize)>>,
    /// Likewise how many values of lists.
    list_values: Cell<Option<(usize, usize)>>,
    /// How a node is written.
    examples: fn(&str) -> Option<&'static str>,
}

/// A field of a request that says which trace it belongs to, where it is written.
#[derive(Debug, Clone)]
pub(super) struct TraceField {
    /// Its name.
    pub(super) name: String,
    /// Where that stands.
    pub(super) span: SourceSpan,
    /// Whether a tenant writes it.
    pub(super) is_tenants: bool,
}

/// A map that a variable is looked up in.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Its name.
    pub(super) map: String,
    /// Where that stands.
    pub(super) span: SourceSpan,
    /// Whether what is looked up is an address.
    pub(super) is_address: bool,
}

/// Something that a text asks for, and that something else has to see to.
#[derive(Debug, Clone)]
pub(super) enum Note {
    /// The number of a request, here.
    RequestId(SourceSpan),
}

impl<'a> Context<'a> {
    pub(super) fn new(source: &'a Source, base_dir: &'a Path, included: &'a [Inclusion]) -> Self {
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
            regexes: Cell::new(None),
            list_values: Cell::new(None),
            examples: examples::of,
        }
    }

    /// Of a text that has nodes of its own beside those of a configuration: how they are written.
    pub(super) fn with_examples(
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
    pub(super) fn with_lists(self, lists: Lists) -> Self {
        Self {
            lists: lists.into(),
            ..self
        }
    }

    pub(super) fn note(&self, note: Note) {
        self.notes.borrow_mut().push(note);
    }

    /// A field is written that says which trace a request belongs to.
    pub(super) fn note_trace_field(&self, name: &str, span: SourceSpan) {
        let (name, is_tenants) = (name.to_owned(), self.is_in_tenant());
        self.trace_fields
            .borrow_mut()
            .push(TraceField { name, span, is_tenants });
    }

    /// Those that are written.
    pub(super) fn take_trace_fields(&self) -> Vec<TraceField> {
        self.trace_fields.take()
    }

    /// A text asks for what only a request that is traced has, here.
    pub(super) fn note_trace(&self, span: SourceSpan) {
        self.traced.borrow_mut().push(span);
    }

    /// Where texts have asked for that.
    pub(super) fn take_traced(&self) -> Vec<SourceSpan> {
        self.traced.take()
    }

    /// From now on a tenant's rules are read, who may have so many regular expressions, and so many values in lists.
    pub(super) fn begin_tenant(&self, regexes: usize, list_values: usize) {
        self.regexes.set(Some((regexes, regexes)));
        self.list_values.set(Some((list_values, list_values)));
    }

    /// Now they have been read.
    pub(super) fn end_tenant(&self) {
        self.regexes.set(None);
        self.list_values.set(None);
    }

    /// Whether they are being read.
    pub(super) fn is_in_tenant(&self) -> bool {
        self.regexes.get().is_some()
    }

    /// Another regular expression is going to be compiled. How many there may be at most where it is one too many.
    pub(super) fn one_too_many_regexes(&self) -> Option<usize> {
        one_too_many(&self.regexes)
    }

    /// Another value of a list is going to be read. Likewise: a list of thousands may be named in thousands of places, and its values
    /// would all be there before they were counted.
    pub(super) fn one_too_many_list_values(&self) -> Option<usize> {
        one_too_many(&self.list_values)
    }

    pub(super) fn ask(&self, asked: Asked) {
        self.asked.borrow_mut().push(asked);
    }

    /// What variables are looked up in.
    pub(super) fn take_asked(&self) -> Vec<Asked> {
        self.asked.take()
    }

    /// What has been noted since it was last asked.
    pub(super) fn take_notes(&self) -> Vec<Note> {
        self.notes.take()
    }

    pub(super) fn report(&self, mut error: ConfigError) {
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
    pub(super) fn is_crowded(&self) -> bool {
        self.errors.borrow().len() > MAX_ERRORS
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }

    /// The faults, and the lists that were named.
    pub(super) fn into_parts(self) -> (Vec<ConfigError>, Lists) {
        (self.errors.into_inner(), self.lists.into_inner())
    }

    /// A path as the configuration means it: relative ones start at the configuration's own folder.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.base_dir.join(path)
    }

    pub(super) fn origin(&self, span: SourceSpan) -> Origin {
        let (file, line) = self.source.place(span);
        Origin {
            file: Arc::clone(file),
            line,
            span,
        }
    }

    /// What an `include` at this place has brought.
    pub(super) fn included(&self, at: SourceSpan) -> impl Iterator<Item = &'a Inclusion> {
        self.included.iter().filter(move |inclusion| inclusion.at == at)
    }

    /// The folder that what is said at this place may not lead out of; none for what the operator says.
    pub(super) fn folder(&self, at: SourceSpan) -> Option<&'a Arc<Path>> {
        self.source.folder(at)
    }
}

/// Takes one of those that are left. How many there may be at most where none was.
fn one_too_many(left: &Cell<Option<(usize, usize)>>) -> Option<usize> {
    let (few, most) = left.get()?;
    left.set(Some((few.saturating_sub(1), most)));
    (few == 0).then_some(most)
}

/// One node that is being read.
pub(super) struct Node<'a> {
    pub(super) ctx: &'a Context<'a>,
    node: &'a KdlNode,
    used: Vec<bool>,
    /// Before this entry there is no argument that has not been read.
    cursor: usize,
    properties: Vec<&'static str>,
    flags: Vec<&'static str>,
    elsewhere: fn(&str) -> Option<&'static str>,
    takes_more: bool,
    block_read: bool,
}

impl<'a> Node<'a> {
    fn new(ctx: &'a Context<'a>, node: &'a KdlNode) -> Self {
        let mut this = Self {
            ctx,
            node,
            used: vec![false; node.entries().len()],
            cursor: 0,
            properties: Vec::new(),
            flags: Vec::new(),
            elsewhere: |_| None,
            takes_more: false,
            block_read: false,
        };
        this.refuse_repeated_properties();
        this
    }

    pub(super) fn name(&self) -> &'a str {
        self.node.name().value()
    }

    /// Where the node's name stands.
    pub(super) fn span(&self) -> SourceSpan {
        self.node.name().span()
    }

    pub(super) fn origin(&self) -> Origin {
        self.ctx.origin(self.span())
    }

    pub(super) fn fail(&self, error: ConfigError) {
        self.ctx.report(error);
    }

    /// The next argument, which has to be there. `what` is a phrase as "the backend's name".
    pub(super) fn argument(&mut self, what: &'static str) -> Option<Value<'a>> {
        let value = self.next_argument(what);
        if value.is_none() {
            let name = self.name();
            let error = ConfigError::new(Code::Missing, format!("`{name}` needs {what}"));
            self.fail(
                error
                    .label(self.span(), format!("{what} has to follow"))
                    .maybe_help(self.example()),
            );
        }
        value
    }

    /// The next argument, if there is one.
    pub(super) fn next_argument(&mut self, what: &'static str) -> Option<Value<'a>> {
        let mut entries = self.node.entries().iter().enumerate().skip(self.cursor);
        let (i, entry) = entries.find(|(i, entry)| entry.name().is_none() && !self.used[*i])?;
        self.used[i] = true;
        self.cursor = i + 1;
        Some(Value::new(self.ctx, entry, what))
    }

    /// The text of its first argument, which goes on waiting to be read.
    pub(super) fn first_text(&self) -> Option<&'a str> {
        self.node.get(0)?.as_string()
    }

    /// All arguments that are left.
    pub(super) fn arguments(&mut self, what: &'static str) -> Vec<Value<'a>> {
        self.takes_more = true;
        std::iter::from_fn(|| self.next_argument(what)).collect()
    }

    /// All arguments that are left; at least one has to be there.
    pub(super) fn some_arguments(&mut self, what: &'static str) -> Vec<Value<'a>> {
        let first = self.argument(what);
        let rest = self.arguments(what);
        first.into_iter().chain(rest).collect()
    }

    /// Whether the flag is there: an argument that is this word.
    pub(super) fn flag(&mut self, flag: &'static str) -> Option<SourceSpan> {
        self.flags.push(flag);
        let mut found: Option<SourceSpan> = None;
        for (i, entry) in self.node.entries().iter().enumerate() {
            if self.used[i] {
                continue;
            }
            let is_property = entry.name().is_some_and(|name| name.value() == flag);
            if is_property {
                self.used[i] = true;
                let error = ConfigError::new(Code::Value, format!("`{flag}` takes no value"));
                let error = error.label(entry.span(), "a flag is set by being there");
                self.fail(error.help(format!("write `{flag}` alone, or leave it out")));
            } else if entry.name().is_none() && entry.value().as_string() == Some(flag) {
                self.used[i] = true;
                match found {
                    Some(first) => self.fail(said_twice(&format!("`{flag}`"), first, entry.span())),
                    None => found = Some(entry.span()),
                }
            }
        }
        found
    }

    /// The property, if it is there.
    pub(super) fn property(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.properties.push(key);
        let mut entries = self.node.entries().iter().enumerate();
        let (i, entry) = entries.find(|(_, entry)| entry.name().is_some_and(|name| name.value() == key))?;
        self.used[i] = true;
        Some(Value::new(self.ctx, entry, key))
    }

    /// The property, if it is there, without a promise that it may be: it is not suggested.
    pub(super) fn hidden_property(&mut self, key: &'static str) -> Option<Value<'a>> {
        let value = self.property(key);
        self.properties.pop();
        value
    }

    /// The property, which has to be there.
    pub(super) fn required_property(&mut self, key: &'static str) -> Option<Value<'a>> {
        let value = self.property(key);
        if value.is_none() {
            let error = ConfigError::new(Code::Missing, format!("`{}` needs `{key}=`", self.name()));
            let error = error.label(self.span(), format!("`{key}=` has to follow"));
            self.fail(error.maybe_help(self.example()));
        }
        value
    }

    /// The block, if there is one. One with nothing in it is reported.
    pub(super) fn block(&mut self) -> Option<Block<'a>> {
        self.block_read = true;
        let document = self.node.children()?;
        if document.nodes().is_empty() {
            let error = ConfigError::new(Code::Inert, format!("the block of `{}` is empty", self.name()));
            self.fail(
                error
                    .label(self.span(), "its block says nothing")
                    .help("say something in it, or leave it out"),
            );
        }
        Some(Block::new(self.ctx, self.title(), document))
    }

    /// The block, which has to be there.
    pub(super) fn required_block(&mut self) -> Option<Block<'a>> {
        let block = self.block();
        if block.is_none() {
            let error = ConfigError::new(Code::Missing, format!("`{}` needs a block", self.name()));
            self.fail(
                error
                    .label(self.span(), "`{ … }` has to follow")
                    .maybe_help(self.example()),
            );
        }
        block
    }

    /// The raw block, for what has rules of its own.
    pub(super) fn raw(&mut self) -> &'a KdlNode {
        self.block_read = true;
        self.used.fill(true);
        self.node
    }

    /// Whether there is a node of this name in its block.
    pub(super) fn block_says(&self, name: &str) -> bool {
        let mut nodes = self.node.children().into_iter().flat_map(KdlDocument::nodes);
        nodes.any(|node| node.name().value() == name)
    }

    /// Whether it has arguments or properties.
    pub(super) fn has_entries(&self) -> bool {
        !self.node.entries().is_empty()
    }

    /// The node says nothing beside its name: reported when it does not have to.
    pub(super) fn require_entries(&self) {
        if !self.has_entries() {
            let error = ConfigError::new(Code::Inert, format!("`{}` says nothing", self.name()));
            self.fail(error.label(self.span(), "nothing follows").maybe_help(self.example()));
        }
    }

    /// Reports arguments and properties that nobody asked for.
    pub(super) fn finish_entries(&self) {
        for (entry, used) in self.node.entries().iter().zip(&self.used) {
            if !used {
                self.refuse(entry);
            }
        }
    }

    /// Words that people may write here, as they know them from elsewhere, and what to do about them.
    pub(super) fn hints(&mut self, elsewhere: fn(&str) -> Option<&'static str>) {
        self.elsewhere = elsewhere;
    }

    /// Reports what nobody asked for.
    pub(super) fn finish(self) {
        self.finish_entries();
        if !self.block_read
            && let Some(document) = self.node.children()
        {
            let name = self.name();
            let error = ConfigError::new(Code::Unknown, format!("`{name}` takes no block"));
            let place = document.nodes().first().map_or(self.span(), |node| node.name().span());
            self.fail(
                error
                    .label(place, "nothing can be said here")
                    .help("leave the block out"),
            );
        }
    }

    /// What could be written instead.
    pub(super) fn example(&self) -> Option<String> {
        let example = (self.ctx.examples)(self.name());
        example.map(|example| format!("write {example}"))
    }

    /// What the node is, for a sentence: its name, and the first argument where it says which.
    fn title(&self) -> String {
        format!("`{}`", self.name())
    }

    fn refuse(&self, entry: &KdlEntry) {
        let name = self.name();
        let error = match entry.name() {
            Some(key) if self.flags.contains(&key.value()) => return,
            Some(key) => {
                let known: Vec<&str> = self.properties.clone();
                let help = (self.elsewhere)(key.value()).map(str::to_owned).or_else(|| {
                    suggest::did_you_mean(key.value(), &known, || {
                        suggest::list(&known)
                            .map(|list| format!("it takes {list}"))
                            .or_else(|| Some("leave it out".to_owned()))
                    })
                });
                let error = ConfigError::new(
                    Code::Unknown,
                    format!("`{name}` has no property `{}`", clip(key.value())),
                );
                error.label(key.span(), "unknown property").maybe_help(help)
            }
            None => {
                let word = entry.value().as_string().unwrap_or("");
                let help = (self.elsewhere)(word).map(str::to_owned).or_else(|| {
                    suggest::did_you_mean(word, &self.flags, || {
                        let property = suggest::nearest(word, self.properties.iter().copied());
                        property.map(|property| format!("did you mean `{property}=…`?"))
                    })
                });
                let help = help.or_else(|| suggest::list(&self.flags).map(|list| format!("it takes the flag {list}")));
                let help = help
                    .or_else(|| suggest::list(&self.properties).map(|list| format!("it takes the property {list}")));
                let help = help.or_else(|| Some("leave it out".to_owned()));
                let error = ConfigError::new(Code::Unknown, format!("`{name}` takes no such argument"));
                error.label(entry.span(), "one too many").maybe_help(help)
            }
        };
        self.fail(error);
    }

    fn refuse_repeated_properties(&mut self) {
        let mut seen: HashMap<&str, SourceSpan> = HashMap::new();
        for (entry, used) in self.node.entries().iter().zip(&mut self.used) {
            let Some(key) = entry.name() else { continue };
            match seen.get(key.value()) {
                Some(first) => {
                    *used = true;
                    let what = format!("`{}=`", clip(key.value()));
                    self.ctx.report(said_twice(&what, *first, key.span()));
                }
                None => {
                    seen.insert(key.value(), key.span());
                }
            }
        }
    }
}

/// The nodes between two braces, or of the whole text.
pub(super) struct Block<'a> {
    ctx: &'a Context<'a>,
    owner: String,
    nodes: &'a [KdlNode],
    used: Vec<bool>,
    asked: Vec<&'static str>,
}

impl<'a> Block<'a> {
    pub(super) fn new(ctx: &'a Context<'a>, owner: String, document: &'a KdlDocument) -> Self {
        let nodes = document.nodes();
        Self {
            ctx,
            owner,
            nodes,
            used: vec![false; nodes.len()],
            asked: Vec::new(),
        }
    }

    /// The node of this name, if there is one; a second one is reported.
    pub(super) fn one(&mut self, name: &'static str) -> Option<Node<'a>> {
        let mut found = self.many(name).into_iter();
        let first = found.next()?;
        for again in found {
            self.ctx
                .report(said_twice(&format!("`{name}`"), first.span(), again.span()));
        }
        Some(first)
    }

    /// All nodes of this name, in order.
    pub(super) fn many(&mut self, name: &'static str) -> Vec<Node<'a>> {
        self.any(&[name])
    }

    /// All nodes of these names, in order.
    pub(super) fn any(&mut self, names: &[&'static str]) -> Vec<Node<'a>> {
        self.asked.extend(names);
        let mut found = Vec::new();
        for (node, used) in self.nodes.iter().zip(&mut self.used) {
            if !*used && names.contains(&node.name().value()) {
                *used = true;
                found.push(Node::new(self.ctx, node));
            }
        }
        found
    }

    /// Reports what nobody asked for. `elsewhere` says where a node belongs that is known but not here.
    pub(super) fn finish(self, elsewhere: impl Fn(&str) -> Option<&'static str>) {
        for (node, _) in self.nodes.iter().zip(&self.used).filter(|(_, used)| !**used) {
            let name = node.name().value();
            let help = match elsewhere(name) {
                Some(place) => Some(place.to_owned()),
                None if self.ctx.is_crowded() => None,
                None => suggest::did_you_mean(name, &self.asked, || {
                    suggest::list(&self.asked).map(|list| format!("here can stand {list}"))
                }),
            };
            let error = ConfigError::new(Code::Unknown, format!("{} has no `{}`", self.owner, clip(name)));
            self.ctx
                .report(error.label(node.name().span(), "unknown here").maybe_help(help));
        }
    }
}

/// `what` was said twice: the first place and the second.
pub(super) fn said_twice(what: &str, first: SourceSpan, again: SourceSpan) -> ConfigError {
    ConfigError::new(Code::Duplicate, format!("{what} is said twice"))
        .label(again, "said again here")
        .label(first, "first said here")
        .help("one of them has to go")
}

/// The beginning of a text that may be long, for a message, without characters that are hidden.
pub(super) fn clip(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(LONGEST_SHOWN)
        .map(|c| if is_hidden(c) { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(LONGEST_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Faults kept of what the operator has written, and of each tenant's files: more than are shown, since those are the first of the text and
/// not the first found. Nobody's many hide those of others.
const MAX_KEPT: usize = 10_000;
/// Characters of a text in a message.
const LONGEST_SHOWN: usize = 60;

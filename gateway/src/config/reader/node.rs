//! One node: its arguments, flags, properties and block.

use std::collections::HashMap;

use kdl::{KdlDocument, KdlEntry, KdlNode};
use miette::SourceSpan;

use super::{Block, Context, Value, clip, said_twice};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::Origin;
use crate::config::suggest;

/// One node that is being read.
pub(in crate::config) struct Node<'a> {
    pub(in crate::config) ctx: &'a Context<'a>,
    node: &'a KdlNode,
    used: Vec<bool>,
    /// Before this entry there is no argument that has not been read.
    cursor: usize,
    properties: Vec<&'static str>,
    flags: Vec<&'static str>,
    elsewhere: fn(&str) -> Option<&'static str>,
    block_read: bool,
}

impl<'a> Node<'a> {
    pub(super) fn new(ctx: &'a Context<'a>, node: &'a KdlNode) -> Self {
        let mut this = Self {
            ctx,
            node,
            used: vec![false; node.entries().len()],
            cursor: 0,
            properties: Vec::new(),
            flags: Vec::new(),
            elsewhere: |_| None,
            block_read: false,
        };
        this.refuse_repeated_properties();
        this
    }

    pub(in crate::config) fn name(&self) -> &'a str {
        self.node.name().value()
    }

    /// Where the node's name stands.
    pub(in crate::config) fn span(&self) -> SourceSpan {
        self.node.name().span()
    }

    pub(in crate::config) fn origin(&self) -> Origin {
        self.ctx.origin(self.span())
    }

    pub(in crate::config) fn fail(&self, error: ConfigError) {
        self.ctx.report(error);
    }

    /// The next argument, which has to be there. `what` is a phrase as "the backend's name".
    pub(in crate::config) fn argument(&mut self, what: &'static str) -> Option<Value<'a>> {
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
    pub(in crate::config) fn next_argument(&mut self, what: &'static str) -> Option<Value<'a>> {
        let mut entries = self.node.entries().iter().enumerate().skip(self.cursor);
        let (i, entry) = entries.find(|(i, entry)| entry.name().is_none() && !self.used[*i])?;
        self.used[i] = true;
        self.cursor = i + 1;
        Some(Value::new(self.ctx, entry, what))
    }

    /// The text of its first argument, which goes on waiting to be read.
    pub(in crate::config) fn first_text(&self) -> Option<&'a str> {
        self.node.get(0)?.as_string()
    }

    /// All arguments that are left.
    pub(in crate::config) fn arguments(&mut self, what: &'static str) -> Vec<Value<'a>> {
        std::iter::from_fn(|| self.next_argument(what)).collect()
    }

    /// All arguments that are left; at least one has to be there.
    pub(in crate::config) fn some_arguments(&mut self, what: &'static str) -> Vec<Value<'a>> {
        let first = self.argument(what);
        let rest = self.arguments(what);
        first.into_iter().chain(rest).collect()
    }

    /// Whether the flag is there: an argument that is this word.
    pub(in crate::config) fn flag(&mut self, flag: &'static str) -> Option<SourceSpan> {
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
    pub(in crate::config) fn property(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.properties.push(key);
        let mut entries = self.node.entries().iter().enumerate();
        let (i, entry) = entries.find(|(_, entry)| entry.name().is_some_and(|name| name.value() == key))?;
        self.used[i] = true;
        Some(Value::new(self.ctx, entry, key))
    }

    /// The property, if it is there, without a promise that it may be: it is not suggested.
    pub(in crate::config) fn hidden_property(&mut self, key: &'static str) -> Option<Value<'a>> {
        let value = self.property(key);
        self.properties.pop();
        value
    }

    /// The property, which has to be there.
    pub(in crate::config) fn required_property(&mut self, key: &'static str) -> Option<Value<'a>> {
        let value = self.property(key);
        if value.is_none() {
            let error = ConfigError::new(Code::Missing, format!("`{}` needs `{key}=`", self.name()));
            let error = error.label(self.span(), format!("`{key}=` has to follow"));
            self.fail(error.maybe_help(self.example()));
        }
        value
    }

    /// The block, if there is one. One with nothing in it is reported.
    pub(in crate::config) fn block(&mut self) -> Option<Block<'a>> {
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
    pub(in crate::config) fn required_block(&mut self) -> Option<Block<'a>> {
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
    pub(in crate::config) fn raw(&mut self) -> &'a KdlNode {
        self.block_read = true;
        self.used.fill(true);
        self.node
    }

    /// Whether there is a node of this name in its block.
    pub(in crate::config) fn block_says(&self, name: &str) -> bool {
        let mut nodes = self.node.children().into_iter().flat_map(KdlDocument::nodes);
        nodes.any(|node| node.name().value() == name)
    }

    /// Whether it has arguments or properties.
    pub(in crate::config) fn has_entries(&self) -> bool {
        !self.node.entries().is_empty()
    }

    /// The node says nothing beside its name: reported when it does not have to.
    pub(in crate::config) fn require_entries(&self) {
        if !self.has_entries() {
            let error = ConfigError::new(Code::Inert, format!("`{}` says nothing", self.name()));
            self.fail(error.label(self.span(), "nothing follows").maybe_help(self.example()));
        }
    }

    /// Reports arguments and properties that nobody asked for.
    pub(in crate::config) fn finish_entries(&self) {
        let mut unread = self.node.entries().iter().zip(&self.used).filter(|(_, used)| !**used);
        while let Some((entry, _)) = unread.next() {
            self.ctx.leave_entry_unread(entry);
            if let Some(name) = self.swallowed(entry) {
                // What follows is said of that one.
                unread
                    .by_ref()
                    .for_each(|(entry, _)| self.ctx.leave_entry_unread(entry));
                let error = ConfigError::new(Code::Unknown, format!("`{name}` is a node of its own"));
                let error = error.label(entry.span(), format!("stands behind `{}`", self.name()));
                self.fail(error.help("write it on a line of its own, or `;` before it"));
                return;
            }
            self.refuse(entry);
        }
    }

    /// Words that people may write here, as they know them from elsewhere, and what to do about them.
    pub(in crate::config) fn hints(&mut self, elsewhere: fn(&str) -> Option<&'static str>) {
        self.elsewhere = elsewhere;
    }

    /// Reports what nobody asked for.
    pub(in crate::config) fn finish(self) {
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
    pub(in crate::config) fn example(&self) -> Option<String> {
        let example = (self.ctx.examples)(self.name());
        example.map(|example| format!("write {example}"))
    }

    /// What the node is, for a sentence: its name, and the first argument where it says which.
    fn title(&self) -> String {
        format!("`{}`", self.name())
    }

    /// The name of the node that an argument was meant to begin, where the end of the one before was left out.
    fn swallowed(&self, entry: &'a KdlEntry) -> Option<&'a str> {
        let word = entry.value().as_string().filter(|_| entry.name().is_none())?;
        let is_bare = entry.format().is_some_and(|format| format.value_repr == word);
        let known = self.flags.iter().chain(&self.properties).copied();
        let is_node = (self.ctx.examples)(word).is_some() && (self.elsewhere)(word).is_none();
        (is_bare && is_node && suggest::nearest(word, known).is_none()).then_some(word)
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
                let number = entry.value().as_integer();
                let status = number.filter(|_| self.properties.contains(&"status"));
                let help = status.map(|status| format!("write status={status}"));
                let help = help.or_else(|| (self.elsewhere)(word).map(str::to_owned)).or_else(|| {
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

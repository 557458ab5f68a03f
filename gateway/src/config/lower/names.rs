//! Names that other nodes refer to, and who has.

use std::cell::Cell;
use std::collections::HashMap;

use miette::SourceSpan;

use crate::config::diagnostics::{Code, ConfigError};
use crate::config::reader::{At, Context, Value, clip};
use crate::config::suggest;

/// The names of one kind, in the order of the text; positions are the model's identifiers.
pub(super) struct Names<T> {
    kind: &'static str,
    list: Vec<Entry<T>>,
    index: HashMap<String, usize>,
    /// Whether something was referred to that is not here: then what is unused may be what was meant.
    missed: Cell<bool>,
}

struct Entry<T> {
    name: At<String>,
    used: Cell<bool>,
    about: T,
}

impl<T> Names<T> {
    /// No names yet. `kind` is what they are called in sentences.
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            list: Vec::new(),
            index: HashMap::new(),
            missed: Cell::new(false),
        }
    }

    /// Adds a name; one that is there already is reported.
    pub(super) fn add(&mut self, ctx: &Context<'_>, name: At<&str>, about: T) {
        let position = self.list.len();
        match self.index.get(name.value) {
            Some(first) => {
                let what = format!("the {} {:?}", self.kind, clip(name.value));
                ctx.report(declared_twice(&what, self.list[*first].name.span, name.span));
            }
            None => {
                self.index.insert(name.value.to_owned(), position);
            }
        }
        self.list.push(Entry {
            name: At {
                value: name.value.to_owned(),
                span: name.span,
            },
            used: Cell::new(false),
            about,
        });
    }

    /// Leaves a position to something whose name could not be read.
    pub(super) fn skip(&mut self, span: SourceSpan, about: T) {
        let value = String::new();
        let (name, used) = (At { value, span }, Cell::new(true));
        self.list.push(Entry { name, used, about });
    }

    /// The position of the name that a value says; one that nothing has is reported.
    pub(super) fn refer(&self, value: &Value<'_>) -> Option<usize> {
        let name = value.text()?;
        self.find(value.context(), name, value.span())
    }

    /// As [`refer`](Self::refer), by something that does not use it.
    pub(super) fn mention(&self, value: &Value<'_>) -> Option<usize> {
        let used = |position: usize| self.list[position].used.get();
        let before = value.any_text().and_then(|name| Some(used(*self.index.get(name)?)));
        let position = self.refer(value)?;
        self.list[position].used.set(before.unwrap_or(true));
        Some(position)
    }

    /// Something was referred to that is nowhere, and may have been meant to be one of these.
    pub(super) fn miss(&self) {
        self.missed.set(true);
    }

    /// Whether something has the name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The position of a name, without using it.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// A name, if something has it, is used from now on.
    pub(super) fn use_it(&self, name: &str) {
        if let Some(position) = self.index.get(name) {
            self.list[*position].used.set(true);
        }
    }

    /// Whether something refers to the name at a position.
    pub(super) fn is_used(&self, position: usize) -> bool {
        self.list.get(position).is_some_and(|entry| entry.used.get())
    }

    /// All names that could be read, with their places.
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, SourceSpan)> {
        let named = self.list.iter().filter(|entry| !entry.name.value.is_empty());
        named.map(|entry| (entry.name.value.as_str(), entry.name.span))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// As [`refer`](Self::refer), for a name that is part of a text.
    pub(super) fn find(&self, ctx: &Context<'_>, name: &str, span: SourceSpan) -> Option<usize> {
        self.find_or(ctx, name, span, &[])
    }

    /// As [`find`](Self::find), where there are other words that could have been meant.
    pub(super) fn find_or(&self, ctx: &Context<'_>, name: &str, span: SourceSpan, words: &[&str]) -> Option<usize> {
        if let Some(position) = self.index.get(name) {
            self.list[*position].used.set(true);
            return Some(*position);
        }
        let kind = self.kind;
        self.missed.set(true);
        let error = ConfigError::new(Code::Reference, format!("there is no {kind} {:?}", clip(name)));
        let error = error.label(span, "nothing has this name");
        if ctx.is_crowded() {
            ctx.report(error);
            return None;
        }
        let names: Vec<&str> = self.list.iter().map(|entry| entry.name.value.as_str()).collect();
        let all = [&names[..], words].concat();
        let help = suggest::did_you_mean(name, &all, || match names.len() {
            0 => Some(format!("no {kind} is declared")),
            1..=8 => suggest::list(&names).map(|list| format!("declared: {list}").replace(" or ", " and ")),
            _ => Some(format!("none of the {kind}s that are declared is near it")),
        });
        ctx.report(error.maybe_help(help));
        None
    }

    /// What is known about the name at a position, and where it stands.
    pub(super) fn get(&self, position: usize) -> Option<(&T, SourceSpan)> {
        self.list.get(position).map(|entry| (&entry.about, entry.name.span))
    }

    /// The positions of those that this is so for, which something uses from now on.
    pub(super) fn all_used(&self, is_so: impl Fn(&T, &str) -> bool) -> Vec<usize> {
        let entries = self.list.iter().enumerate();
        let those = entries.filter(|(_, entry)| is_so(&entry.about, &entry.name.value));
        those
            .inspect(|(_, entry)| entry.used.set(true))
            .map(|(position, _)| position)
            .collect()
    }

    /// What is known about the name that was added last, and where it stands.
    pub(super) fn last(&self) -> Option<(&T, SourceSpan)> {
        self.get(self.list.len().checked_sub(1)?)
    }

    /// Reports what nothing has referred to.
    pub(super) fn report_unused(&self, ctx: &Context<'_>, why: &str) {
        if self.missed.get() {
            return;
        }
        for entry in self.list.iter().filter(|entry| !entry.used.get()) {
            if ctx.is_unread(&entry.name.value) {
                continue;
            }
            let name = clip(&entry.name.value);
            // The first of two with one name is the one that is found.
            if self
                .index
                .get(&entry.name.value)
                .is_some_and(|first| self.list[*first].used.get())
            {
                continue;
            }
            let error = ConfigError::new(Code::Inert, format!("the {} {name:?} is never used", self.kind));
            ctx.report(error.label(entry.name.span, why).help("use it, or leave it out"));
        }
    }
}

/// A name that two have.
pub(super) fn declared_twice(what: &str, first: SourceSpan, again: SourceSpan) -> ConfigError {
    ConfigError::new(Code::Duplicate, format!("{what} is declared twice"))
        .label(again, "declared again here")
        .label(first, "first declared here")
        .help("give one of them another name")
}

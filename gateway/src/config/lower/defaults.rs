//! `defaults { … }` and `defaults "name" { … }`.

use std::cell::Cell;

use miette::SourceSpan;

use super::names::Names;
use super::section_name;
use super::settings::{Place, Settings};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::reader::{Context, Node, said_twice};

/// All `defaults` of a configuration.
pub(super) struct Defaults {
    unnamed: Option<(Settings, SourceSpan, Cell<bool>)>,
    named: Names<Settings>,
}

impl Defaults {
    /// Reads `defaults { … }` and `defaults "name" { … }`.
    pub(super) fn read(ctx: &Context<'_>, nodes: Vec<Node<'_>>) -> Self {
        let mut this = Self {
            unnamed: None,
            named: Names::new("set of defaults"),
        };
        for mut node in nodes {
            let name = match node.has_entries() {
                true => section_name(&mut node, "the defaults' name"),
                false => None,
            };
            let span = node.span();
            let settings = node.required_block().map(|mut block| {
                let settings = Settings::read(&mut block, Place::Defaults, None);
                block.finish(super::elsewhere);
                settings
            });
            let settings = settings.unwrap_or_default();
            match (name, &this.unnamed) {
                (Some(name), _) => this.named.add(ctx, name, settings),
                (None, Some((_, first, _))) => {
                    let error = said_twice("`defaults`", *first, span);
                    ctx.report(error.help("give one of them a name and let sections ask for it with `from=`"));
                }
                (None, None) => this.unnamed = Some((settings, span, Cell::new(false))),
            }
            node.finish();
        }
        this
    }

    /// What a section inherits: the defaults that its `from=` names, else the unnamed ones.
    pub(super) fn of(&self, section: &mut Node<'_>) -> Settings {
        if let Some(from) = section.property("from") {
            let named = self.named.refer(&from).and_then(|position| self.named.get(position));
            return named.map(|(settings, _)| settings.clone()).unwrap_or_default();
        }
        match &self.unnamed {
            Some((settings, _, used)) => {
                used.set(true);
                settings.clone()
            }
            None => Settings::default(),
        }
    }

    /// Reports defaults that no section takes.
    pub(super) fn report_unused(&self, ctx: &Context<'_>) {
        if let Some((_, span, used)) = &self.unnamed
            && !used.get()
        {
            let error = ConfigError::new(Code::Inert, "these defaults are never used");
            let error = error.label(*span, "every frontend and backend has `from=`, or there is none");
            ctx.report(error.help("leave them out"));
        }
        self.named
            .report_unused(ctx, "no frontend or backend has `from=` with it");
    }
}

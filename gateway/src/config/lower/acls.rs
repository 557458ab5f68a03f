//! A section's acls: those that it declares, and behind them those that its rules and conditions ask beside them, without a name or
//! from the top of the file.

use std::cell::RefCell;

use miette::SourceSpan;

use super::Scope;
use super::acl::{self, Setting};
use super::names::Names;
use super::shared_acls::{self, SharedAcls};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Acl, AclId, AclTest, Condition, Match, Origin, Text};
use crate::config::reader::{Block, Context};

/// The acls of a frontend.
pub(super) struct Acls<'a> {
    ctx: &'a Context<'a>,
    names: Names<()>,
    /// Those at the top of the file.
    shared: SharedAcls,
    pub(super) setting: Setting,
    /// What is asked without being declared in the section.
    implied: RefCell<Vec<Acl>>,
}

impl<'a> Acls<'a> {
    /// Of the acls that were declared in a section, in the order of the text.
    pub(super) fn new(scope: &Scope<'a>, names: Names<()>, setting: Setting) -> Self {
        shared_acls::report_shadows(scope.ctx, &scope.acls, &names, setting.section);
        Self {
            ctx: scope.ctx,
            names,
            shared: scope.acls.clone(),
            setting,
            implied: RefCell::default(),
        }
    }

    /// The acl that a word of a condition means: a declared one, or a predicate that needs no value.
    pub(super) fn find(&self, word: &str, span: SourceSpan) -> Option<AclId> {
        if let (false, Some(position)) = (self.names.has(word), self.shared.position(word)) {
            return self.shared(word, position, span);
        }
        if !self.names.has(word)
            && let Some((_, test)) = WORDS.iter().find(|(known, _)| *known == word)
        {
            return self.word(word, test(), span);
        }
        let shared = self.shared.each().map(|(name, _)| name);
        let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).chain(shared).collect();
        let found = self.names.find_or(self.ctx, word, span, &words).map(AclId);
        if found.is_none() {
            self.shared.miss();
        }
        found
    }

    /// The condition that a rule's own block of predicates makes.
    pub(super) fn inline(&self, name: &str, block: Block<'_>, span: SourceSpan) -> Option<Condition> {
        let all = acl::matches(self.setting, block, acl::MAX_DEPTH)?;
        Some(self.of_rule(name, acl::one_or_all(all), span))
    }

    /// The condition that a rule's own regular expression makes.
    pub(super) fn path_matches(&self, name: &str, regex: &str, span: SourceSpan) -> Condition {
        self.of_rule(name, Match::Path(Text::Regex(vec![regex.to_owned()])), span)
    }

    fn of_rule(&self, name: &str, test: Match, span: SourceSpan) -> Condition {
        let origin = self.ctx.origin(span);
        // Names of a component's predicates differ, and a line may have several of these.
        let name = format!("{name} in line {} ({})", origin.line, self.implied.borrow().len() + 1);
        Condition::Acl(self.imply(&name, test, origin))
    }

    /// Reports acls that nothing asks. The acls that were asked without a name, to stand behind the declared ones.
    pub(super) fn finish(self, most: usize) -> Vec<Acl> {
        self.names.report_unused(
            self.ctx,
            &format!("no condition of this {} names it", self.setting.section),
        );
        let implied = self.implied.into_inner();
        if let Some(first) = implied.first()
            && self.names.len() <= most
            && self.names.len() + implied.len() > most
        {
            let message = format!("a frontend has at most {most} acls, those counted that it does not declare");
            let error = ConfigError::new(Code::Value, message);
            let label = format!(
                "{} are declared in it, and {} are asked beside them",
                self.names.len(),
                implied.len()
            );
            self.ctx.report(
                error
                    .label(first.origin.span, label)
                    .help("join some of them with `any { … }`"),
            );
        }
        implied
    }

    /// One of those at the top, which becomes one of this section with its first use.
    fn shared(&self, name: &str, position: usize, span: SourceSpan) -> Option<AclId> {
        self.shared.find(self.ctx, name, span);
        // One that could not be read has been reported.
        let acl = self.shared.get(position)?.0.as_ref()?;
        let known = |known: &Acl| known.origin.span == acl.origin.span && known.name == acl.name;
        if let Some(position) = self.implied.borrow().iter().position(known) {
            return Some(AclId(self.names.len() + position));
        }
        shared_acls::check(self.ctx, acl, span, self.setting)?;
        self.implied.borrow_mut().push(acl.clone());
        Some(AclId(self.names.len() + self.implied.borrow().len() - 1))
    }

    fn word(&self, word: &str, test: Match, span: SourceSpan) -> Option<AclId> {
        acl::check_setting(self.ctx, word, span, self.setting)?;
        let known = |known: &Acl| matches!(&known.test, AclTest::Match(known) if *known == test);
        let position = self.implied.borrow().iter().position(known);
        Some(match position {
            Some(position) => AclId(self.names.len() + position),
            None => self.imply(word, test, self.ctx.origin(span)),
        })
    }

    fn imply(&self, name: &str, test: Match, origin: Origin) -> AclId {
        let mut implied = self.implied.borrow_mut();
        implied.push(Acl {
            name: name.into(),
            test: AclTest::Match(test),
            origin,
        });
        AclId(self.names.len() + implied.len() - 1)
    }
}

/// A word, and what it asks.
type Word = (&'static str, fn() -> Match);

/// Predicates that need no value, which conditions name as they are.
const WORDS: &[Word] = &[
    ("tls", || Match::Tls),
    ("websocket", || Match::Upgrade(vec!["websocket".to_owned()])),
];

//! A frontend's acls: those that have names, and behind them those that rules and conditions ask without naming them.

use std::cell::RefCell;

use miette::SourceSpan;

use super::acl::{self, Setting};
use super::names::Names;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Acl, AclId, AclTest, Condition, Match, Origin};
use crate::config::reader::{Block, Context};

/// The acls of a frontend.
pub(super) struct Acls<'a> {
    ctx: &'a Context<'a>,
    names: Names<()>,
    pub(super) setting: Setting,
    /// What is asked without a name.
    implied: RefCell<Vec<Acl>>,
}

impl<'a> Acls<'a> {
    /// Of the acls that were declared, in the order of the text.
    pub(super) fn new(ctx: &'a Context<'a>, names: Names<()>, setting: Setting) -> Self {
        Self {
            ctx,
            names,
            setting,
            implied: RefCell::default(),
        }
    }

    /// The acl that a word of a condition means: a declared one, or a predicate that needs no value.
    pub(super) fn find(&self, word: &str, span: SourceSpan) -> Option<AclId> {
        if !self.names.has(word)
            && let Some((_, test)) = WORDS.iter().find(|(known, _)| *known == word)
        {
            return self.word(word, test(), span);
        }
        self.names.find_or(self.ctx, word, span, &words()).map(AclId)
    }

    /// The condition that a rule's own block of predicates makes.
    pub(super) fn inline(&self, name: &str, block: Block<'_>, span: SourceSpan) -> Option<Condition> {
        let all = acl::matches(self.setting, block, acl::MAX_DEPTH)?;
        let origin = self.ctx.origin(span);
        // Names of a component's predicates differ, and a line may have several of these.
        let name = format!("{name} in line {} ({})", origin.line, self.implied.borrow().len() + 1);
        let test = acl::one_or_all(all);
        Some(Condition::Acl(self.imply(&name, test, origin)))
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
            let message = format!("a frontend has at most {most} acls, those without a name counted");
            let error = ConfigError::new(Code::Value, message);
            let label = format!("{} have names, {} have none", self.names.len(), implied.len());
            self.ctx.report(
                error
                    .label(first.origin.span, label)
                    .help("join some of them with `any { … }`"),
            );
        }
        implied
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

fn words() -> Vec<&'static str> {
    WORDS.iter().map(|(word, _)| *word).collect()
}

/// A word, and what it asks.
type Word = (&'static str, fn() -> Match);

/// Predicates that need no value, which conditions name as they are.
const WORDS: &[Word] = &[
    ("tls", || Match::Tls),
    ("websocket", || Match::Upgrade(vec!["websocket".to_owned()])),
];

//! `if="old and not (beta or internal)"`: expressions over a frontend's acls.
//!
//! `or` binds weakest, then `and`, then `not`. Faults point at the word inside the text.

use std::ops::Range;

use miette::SourceSpan;

use super::acls::Acls;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{AclId, Condition};
use crate::config::reader::{Context, Node, Value, clip};

/// What `if=` or `unless=` of a node says.
pub(super) enum When {
    /// Neither is there.
    Always,
    /// One is there, and whether it could be read.
    If(Option<Condition>),
}

/// A node that has no condition, so that nothing comes past it.
#[derive(Clone, Copy)]
pub(super) struct Unconditional {
    pub(super) span: SourceSpan,
    /// What it does: "it denies all".
    pub(super) does: &'static str,
}

/// Reports a node that is never come to for such a one: which, and why it would be its turn otherwise.
pub(super) fn report_never_reached(
    ctx: &Context<'_>,
    (name, span, turn): (&str, SourceSpan, &str),
    last: Unconditional,
    help: &str,
) {
    let error = ConfigError::new(Code::Inert, format!("this `{name}` is never reached"));
    let does = format!("this one has no condition: {}", last.does);
    ctx.report(error.label(span, turn).label(last.span, does).help(help));
}

/// What can be done about a node that stands behind such a one.
pub(super) const MOVE_ON: &str = "give the earlier one a condition, or leave this one out";

/// Reads `if=` or `unless=`.
pub(super) fn when(node: &mut Node<'_>, acls: &Acls<'_>) -> When {
    let holds = node.property("if");
    let fails = node.property("unless");
    match (holds, fails) {
        (None, None) => When::Always,
        (Some(holds), None) => When::If(condition(&holds, acls)),
        (None, Some(fails)) => When::If(condition(&fails, acls).map(|condition| match condition {
            Condition::Not(inner) => *inner,
            other => Condition::Not(Box::new(other)),
        })),
        (Some(holds), Some(fails)) => {
            let error = ConfigError::new(
                Code::Conflict,
                format!("`{}` has both `if=` and `unless=`", node.name()),
            );
            let error = error.label(fails.span(), "this").label(holds.span(), "and this");
            node.fail(error.help("write one of them, with `and not (…)` for the other"));
            let _ = (condition(&holds, acls), condition(&fails, acls));
            When::If(None)
        }
    }
}

/// Reads `if=` or `unless=`, and a block of predicates, which have all to hold as well.
pub(super) fn when_with_block(node: &mut Node<'_>, acls: &Acls<'_>) -> When {
    let said = when(node, acls);
    let Some(block) = node.block() else { return said };
    let inline = acls.inline(node.name(), block, node.span());
    match said {
        When::Always => When::If(inline),
        When::If(said) => {
            let both = said.zip(inline);
            When::If(both.map(|(said, inline)| Condition::And(vec![said, inline])))
        }
    }
}

/// The same, where this has to hold as well.
pub(super) fn and(when: When, also: Condition) -> When {
    match when {
        When::Always => When::If(Some(also)),
        When::If(said) => When::If(said.map(|said| Condition::And(vec![said, also]))),
    }
}

/// Whether a name can stand in a condition.
pub(super) fn is_word(name: &str) -> bool {
    !KEYWORDS.contains(&name) && !name.is_empty() && name.chars().all(is_word_char)
}

fn condition(value: &Value<'_>, acls: &Acls<'_>) -> Option<Condition> {
    let text = value.any_text()?;
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        terms: 0,
        acls,
        value,
        well: true,
    };
    let parsed = parser.or().and_then(|condition| match parser.peek() {
        None => Ok(condition),
        Some((")", span)) => Err(fault(span, "this closes nothing", "one too many", "leave it out")),
        Some((word, span)) => Err(unexpected(word, span, "`and` or `or` is missing before this")),
    });
    match parsed {
        Ok(condition) => parser.well.then_some(condition),
        Err(fault) => {
            let span = value.part(fault.span.start, fault.span.len());
            let error = ConfigError::new(Code::Value, fault.message);
            value.context().report(error.label(span, fault.label).help(fault.help));
            None
        }
    }
}

struct Fault {
    span: Range<usize>,
    message: String,
    label: String,
    help: String,
}

fn fault(span: Range<usize>, message: &str, label: &str, help: &str) -> Fault {
    let (message, label, help) = (message.to_owned(), label.to_owned(), help.to_owned());
    Fault {
        span,
        message,
        label,
        help,
    }
}

/// Something that cannot stand where it stands; signs of other languages get told their word here.
fn unexpected(word: &str, span: Range<usize>, label: &str) -> Fault {
    let keyword = match word {
        "!" => "not",
        "&&" | "&" | "," => "and",
        "||" | "|" => "or",
        word => return fault(span, &format!("{:?} cannot stand here", clip(word)), label, EXAMPLE),
    };
    let message = format!("{word:?} is not a word of this language");
    fault(span, &message, "as in another language", &format!("write `{keyword}`"))
}

struct Parser<'p, 'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    terms: usize,
    acls: &'p Acls<'p>,
    value: &'p Value<'a>,
    /// Whether every name was one; reading goes on after one that was not, to report the others too.
    well: bool,
}

impl<'a> Parser<'_, 'a> {
    fn or(&mut self) -> Result<Condition, Fault> {
        let mut terms = vec![self.and()?];
        while self.take("or") {
            terms.push(self.and()?);
        }
        Ok(one_or(terms, Condition::Or))
    }

    fn and(&mut self) -> Result<Condition, Fault> {
        let mut terms = vec![self.not()?];
        while self.take("and") {
            terms.push(self.not()?);
        }
        Ok(one_or(terms, Condition::And))
    }

    fn not(&mut self) -> Result<Condition, Fault> {
        let mut negated = false;
        while self.take("not") {
            negated = !negated;
        }
        let term = self.term()?;
        Ok(match negated {
            true => Condition::Not(Box::new(term)),
            false => term,
        })
    }

    fn term(&mut self) -> Result<Condition, Fault> {
        let Some((word, span)) = self.next() else {
            let message = match self.text.trim().is_empty() {
                true => "this condition is empty",
                false => "something is missing at the end of this condition",
            };
            return Err(fault(
                0..self.text.len(),
                message,
                "an acl's name has to follow",
                EXAMPLE,
            ));
        };
        match word {
            "(" => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    let message = format!("parentheses are nested more than {MAX_DEPTH} deep");
                    return Err(fault(
                        span,
                        &message,
                        "one too many",
                        "name a part of it with an acl of its own",
                    ));
                }
                let inner = self.or()?;
                self.depth -= 1;
                match self.next() {
                    Some((")", _)) => Ok(inner),
                    Some((word, span)) => Err(unexpected(word, span, "`and`, `or` or `)` is missing before this")),
                    None => Err(fault(
                        span,
                        "this parenthesis is never closed",
                        "opened here",
                        "write `)` where it ends",
                    )),
                }
            }
            ")" | "and" | "or" => {
                let message = format!("{word:?} cannot stand here");
                Err(fault(span, &message, "an acl's name is missing before this", EXAMPLE))
            }
            word if !word.chars().all(is_word_char) => {
                Err(unexpected(word, span, "neither a name nor a word of the language"))
            }
            name => {
                self.terms += 1;
                if self.terms > MAX_TERMS {
                    let message = format!("a condition has at most {MAX_TERMS} names");
                    return Err(fault(span, &message, "one too many", "let an acl ask for more at once"));
                }
                let span = self.value.part(span.start, span.len());
                let acl = self.acls.find(name, span);
                self.well &= acl.is_some();
                Ok(Condition::Acl(acl.unwrap_or(AclId(usize::MAX))))
            }
        }
    }

    fn take(&mut self, keyword: &str) -> bool {
        let there = self.peek().is_some_and(|(word, _)| word == keyword);
        if there {
            self.next();
        }
        there
    }

    fn next(&mut self) -> Option<(&'a str, Range<usize>)> {
        let (word, span) = self.peek()?;
        self.at = span.end;
        Some((word, span))
    }

    fn peek(&self) -> Option<(&'a str, Range<usize>)> {
        let rest = &self.text[self.at..];
        let blank = rest.len() - rest.trim_start().len();
        let start = self.at + blank;
        let rest = &rest[blank..];
        let first = rest.chars().next()?;
        let length = match first {
            '(' | ')' => 1,
            '!' => 1,
            c if is_word_char(c) => rest.find(|c: char| !is_word_char(c)).unwrap_or(rest.len()),
            _ => rest
                .find(|c: char| c.is_whitespace() || is_word_char(c) || c == '(' || c == ')')
                .unwrap_or(rest.len()),
        };
        Some((&rest[..length], start..start + length))
    }
}

fn one_or(mut terms: Vec<Condition>, many: impl Fn(Vec<Condition>) -> Condition) -> Condition {
    match (terms.len(), terms.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            terms.extend(last);
            many(terms)
        }
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':')
}

const KEYWORDS: [&str; 3] = ["and", "or", "not"];
const EXAMPLE: &str = "write acl names with `and`, `or`, `not` and parentheses, as \"old and not (beta or internal)\"";
/// Deeper ones are a machine's; each level is a frame of this parser's stack.
const MAX_DEPTH: usize = 32;
/// A condition is evaluated for every request.
const MAX_TERMS: usize = 1_000;

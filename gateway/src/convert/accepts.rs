//! Rules that let somebody through: whom they name, the rules of the same stage behind them are not asked about.

use super::acls::grouped;
use super::criteria;
use super::edits::RESPONSE;
use super::haproxy::Line;
use super::proxies::Proxy;
use super::words::{self, Polarity, Term};

/// The rules that one rule is gone through with: their keyword, and of connections the word behind it.
pub(super) type Stage = (String, Option<String>);

/// Whom rules are not asked about.
pub(super) enum Exempt {
    /// Whom this condition holds for.
    Those(String),
    /// Some of whom nothing can be said here.
    Unsaid,
    /// Everybody, or everybody as far as can be seen here: why.
    All(&'static str),
}

impl Proxy<'_> {
    /// `tcp-request connection accept if friend`, `http-request allow if friend`: the rules of its stage that follow are not asked
    /// about whom it lets through.
    pub(super) fn accept(&mut self, line: &Line, rest: &[String]) {
        let stage = stage(line);
        let is_excepted = |other: &Line| {
            other.number > line.number
                && self::stage(other) == stage
                && match other.keyword() {
                    "tcp-request" => other
                        .word(2)
                        .is_some_and(|action| is_refusal(action) || action.starts_with("track-sc")),
                    _ => true,
                }
        };
        if !self.section.lines.iter().any(is_excepted) {
            let message = "not needed: nobody is refused by a rule behind it";
            return self.conversion.note(line.number, message);
        }
        let exempt = match words::split_condition(rest).1 {
            None => Exempt::All(EVERYBODY),
            // By the end of the time for inspection everybody is let through who is there.
            Some((Polarity::If, [word])) if word == "WAIT_END" => Exempt::All(EVERYBODY),
            Some((_, words)) if line.keyword() != "tcp-request" && self.asks_the_response(line, words) => {
                self.leave_out(line, RESPONSE);
                Exempt::Unsaid
            }
            Some((polarity, words)) => match self.is_said(words).and_then(|()| self.condition(line, polarity, words)) {
                Ok(("if", condition)) => Exempt::Those(grouped(&condition)),
                Ok((_, condition)) => Exempt::Those(format!("not {}", grouped(&condition))),
                Err(reason) => {
                    self.leave_out(line, &reason);
                    Exempt::Unsaid
                }
            },
        };
        self.accepted.push((line.number, stage, exempt));
    }

    /// Fails where a condition names an acl that is left out or not there, with the reason: rules that named it would be left out, too.
    fn is_said(&self, condition: &[String]) -> Result<(), String> {
        for term in words::terms(condition)? {
            let Term::Named { name, .. } = term else { continue };
            if self.counting_acl(name).is_some() {
                continue;
            }
            let lines = self.section.lines.iter();
            let acls = lines.filter(|line| line.keyword() == "acl" && line.word(1) == Some(name));
            let mut acls = acls.peekable();
            if acls.peek().is_none() && criteria::predefined(name).is_none() {
                return Err(format!("there is no counterpart of `{name}`"));
            }
            for acl in acls {
                criteria::criterion(acl.rest(2)).map_err(|reason| format!("its acl `{name}` is left out: {reason}"))?;
            }
        }
        Ok(())
    }

    /// Whom the rules of this line's stage are not asked about, by what stands before it.
    pub(super) fn accepted(&self, line: &Line) -> impl Iterator<Item = &(usize, Stage, Exempt)> {
        let (number, own) = (line.number, stage(line));
        self.accepted
            .iter()
            .filter(move |(at, of, _)| *at < number && *of == own)
    }

    /// The same as conditions. Fails where nobody is left whom a rule is asked about. Of whom nothing can be said, it is: what refuses
    /// too much is noticed.
    pub(super) fn exempt(&mut self, line: &Line) -> Result<Vec<String>, String> {
        let mut those = Vec::new();
        let mut unsaid = Vec::new();
        for (at, _, exempt) in self.accepted(line) {
            match exempt {
                Exempt::Those(condition) => those.push(condition.clone()),
                Exempt::All(reason) => return Err((*reason).to_owned()),
                Exempt::Unsaid => unsaid.push(*at),
            }
        }
        for at in unsaid {
            let message = format!("it holds for them, too, whom line {at} lets through: who that is could not be said");
            self.conversion.note(line.number, message);
        }
        Ok(those)
    }
}

/// The rules that a rule is gone through with: those of connections have several kinds.
pub(super) fn stage(line: &Line) -> Stage {
    let of_connections = line.word(1).filter(|_| line.keyword() == "tcp-request");
    (line.keyword().to_owned(), of_connections.map(str::to_owned))
}

/// What `tcp-request` calls refusing: what counts may have become a limit, whichever of them it says.
fn is_refusal(action: &str) -> bool {
    matches!(action, "reject" | "silent-drop")
}

const EVERYBODY: &str = "a rule before it lets everybody through";

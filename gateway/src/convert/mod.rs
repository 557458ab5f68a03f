//! From an HAProxy configuration to ours. What has a counterpart is said in our words; what has none stays as a comment
//! where it would have stood, with the reason, and is reported. The result is tried against the configuration's own rules,
//! so that what comes out is valid, and says so where it could not be made so.

mod accepts;
mod acls;
mod checks;
mod conditionals;
mod counts;
mod criteria;
mod crt_list;
mod defaults;
mod edited;
mod edits;
mod environment;
mod expressions;
mod global;
mod haproxy;
mod http_check;
mod limits;
mod maps;
mod numbers;
mod options;
mod outline;
mod pages;
mod persistence;
mod plain;
mod protocols;
mod proxies;
mod redirects;
mod responses;
mod rules;
mod servers;
mod settings;
mod ssl_defaults;
mod stats;
mod tables;
mod texts;
mod timeouts;
mod tls;
mod transaction;
mod transforms;
mod trusted;
mod userlists;
mod variables;
mod words;

use std::path::Path;

use crate::config;
use edited::Edited;
use outline::{Outline, TakenBack};
use pages::Pages;
use tables::Tables;
use userlists::Userlists;

/// A converted configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The KDL text.
    pub text: String,
    /// What the reader has to know, in the order of the HAProxy configuration.
    pub findings: Vec<Finding>,
    /// Whether the text is valid as it stands. If not, the last findings say why.
    pub is_valid: bool,
}

/// Something that was not carried over as it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The line of the HAProxy configuration, from 1; 0 when it is about the whole.
    pub line: usize,
    /// What became of it.
    pub message: String,
}

/// Converts the text of an HAProxy configuration, in which variables have the values that `environment` knows. Fails on nothing:
/// what is not understood is a finding.
pub fn haproxy(text: &str, environment: impl Fn(&str) -> Option<String>) -> Converted {
    let mut conversion = Conversion::default();
    let sections = haproxy::read(text, &environment, &mut conversion.findings);
    responses::note_what_is_over(&sections, &mut conversion.findings);
    let sections = transaction::settle(&plain::settle(&sections), &mut conversion.findings);
    proxies::convert(&mut conversion, &ssl_defaults::settle(&sections));
    let mut converted = conversion.settle();
    let lines: Vec<&str> = text.lines().collect();
    for finding in &mut converted.findings {
        let line = finding.line.checked_sub(1).and_then(|at| lines.get(at));
        if let (Some(line), Some(reason)) = (line, finding.message.strip_prefix(LEFT_OUT))
            && refuses(line)
        {
            finding.message = format!("left out, so that nobody is refused by it: {reason}");
        }
    }
    converted
}

/// Whether a line of HAProxy's keeps somebody out.
fn refuses(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().take(3).collect();
    match words.as_slice() {
        ["http-request" | "http-response", action, ..] => {
            matches!(*action, "deny" | "tarpit" | "reject" | "silent-drop" | "auth")
        }
        ["tcp-request" | "tcp-response", _, action] => matches!(*action, "reject" | "silent-drop"),
        _ => false,
    }
}

/// How a finding begins that says of a line that it is not there.
const LEFT_OUT: &str = "left out: ";

/// A conversion under way.
#[derive(Default)]
struct Conversion {
    outline: Outline,
    findings: Vec<Finding>,
    /// The stats page has been carried over.
    has_stats: bool,
    tables: Tables,
    edited: Edited,
    /// What `unix-bind` says of all binds that are UNIX sockets: its words.
    unix_bind: Vec<String>,
    userlists: Userlists,
    pages: Pages,
}

impl Conversion {
    /// Notes something about a line.
    fn note(&mut self, line: usize, message: impl Into<String>) {
        self.findings.push(Finding {
            line,
            message: message.into(),
        });
    }

    /// Tries the result against the rules of our configuration; what they refuse becomes a comment, until they refuse no
    /// more, or refuse something that no line of the source has said.
    fn settle(mut self) -> Converted {
        let mut is_valid = false;
        for _ in 0..=MOST_ROUNDS {
            let (text, lines) = self.outline.render();
            let Err(errors) = config::parse("the result", &text, Path::new(".")) else {
                is_valid = true;
                break;
            };
            let mut progress = false;
            let mut rest = Vec::new();
            for error in errors.iter() {
                let at = error.places().first().map(|label| errors.position(label.span).0);
                let place = at.and_then(|at| Some((lines.get(at.line - 1).copied().flatten()?, at.column)));
                let taken = place.map(|(place, column)| {
                    let taken = self.outline.take_back(place, column, error.message());
                    (taken, self.outline.source(place.node))
                });
                match taken {
                    Some((TakenBack::Said, line)) => {
                        progress = true;
                        if outline::is_of_emptiness(error.message()) {
                            continue;
                        }
                        self.note(line, format!("left out: {}", error.message()));
                    }
                    Some((TakenBack::Bare, _)) => progress = true,
                    Some((TakenBack::Nothing, _)) | None => rest.push(error.message().to_owned()),
                }
            }
            if !progress {
                for message in rest {
                    self.note(0, message);
                }
                break;
            }
        }
        self.findings.sort();
        self.findings.dedup();
        Converted {
            text: self.outline.render().0,
            findings: self.findings,
            is_valid,
        }
    }
}

/// Each round leaves out what it was told of; one refusal may only show when another is gone.
const MOST_ROUNDS: usize = 20;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

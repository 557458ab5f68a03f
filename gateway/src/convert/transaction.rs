//! Variables of a transaction: `http-request set-var(txn.host) hdr(host)`. There are none here: what is set once, whatever the
//! request, is asked itself wherever `var(txn.host)` stands.

use super::Finding;
use super::edited;
use super::haproxy::{Line, Section};
use super::words::{self, Term};

/// The sections with such variables replaced by what they stand for.
pub(super) fn settle(sections: &[Section], findings: &mut Vec<Finding>) -> Vec<Section> {
    let mut settled = sections.to_vec();
    for (name, value) in known(sections) {
        // Conditions of whose like are left out.
        let then = match edited::is_changed(sections, &value) {
            true => {
                "; in a value it is what rules before have made of it, where HAProxy has what it was when it was set"
            }
            false => "",
        };
        for section in &mut settled {
            section.lines.retain(|line| {
                let sets = set(line).is_some_and(|(known, _)| known == name);
                if sets {
                    findings.push(Finding {
                        line: line.number,
                        message: format!("not needed: `var({name})` is asked as `{value}`{then}"),
                    });
                }
                !sets
            });
            for word in section.lines.iter_mut().flat_map(|line| &mut line.words) {
                replace(word, &name, &value);
            }
        }
    }
    settled
}

/// The variables that are set to one thing alone, without a condition and wherever somebody asks for them, and to what.
fn known(sections: &[Section]) -> Vec<(String, String)> {
    let lines = || sections.iter().flat_map(|section| &section.lines);
    let mut known = Vec::new();
    for (name, value) in lines().filter_map(set) {
        if known.iter().any(|(known, _): &(String, String)| known == name) {
            continue;
        }
        let sets = |line: &&Line| {
            let is_about = |word: &String| {
                let (what, about) = word.split_once('(').unwrap_or_default();
                let about = about.split([',', ')']).next().unwrap_or_default();
                matches!(what, "set-var" | "set-var-fmt" | "unset-var") && about == name
            };
            line.words.iter().any(is_about)
        };
        // Each frontend may set it for itself.
        let is_same = |line: &Line| set(line) == Some((name, value));
        let is_one = lines().filter(sets).all(is_same) && !value.contains("var(");
        if is_one
            && is_set_where_asked(sections, name)
            && !is_asked_before(sections, name)
            && !is_passed_by(sections, name)
        {
            known.push((name.to_owned(), of_request(value)));
        }
    }
    known
}

/// Whether whoever asks for a variable has come by a line that sets it. Where he has not, it is nothing in HAProxy, and the client would
/// say what it is here.
fn is_set_where_asked(sections: &[Section], name: &str) -> bool {
    let is_set = |section: &Section| section.lines.iter().filter_map(set).any(|(known, _)| known == name);
    let of_defaults = sections
        .iter()
        .any(|section| section.kind == "defaults" && is_set(section));
    let asked = format!("var({name})");
    let asks = |section: &Section| {
        let mut words = section.lines.iter().flat_map(|line| &line.words);
        words.any(|word| word.contains(&asked))
    };
    let is_front = |section: &Section| matches!(section.kind.as_str(), "frontend" | "listen");
    let mut asking = sections.iter().filter(|section| asks(section) && !is_set(section));
    of_defaults
        || asking.all(|section| match section.kind.as_str() {
            "frontend" | "listen" => false,
            "backend" => {
                let mut others = sections.iter().filter(|front| is_front(front) && !is_set(front));
                !others.any(|front| leads(front, section, sections))
            }
            // What lines of the log say decides nothing.
            _ => true,
        })
}

/// Whether a rule asks for a variable that a rule behind it sets: it is nothing by then, in HAProxy.
fn is_asked_before(sections: &[Section], name: &str) -> bool {
    let asked = format!("var({name})");
    let asks = |words: &[String]| words.iter().any(|word| word.contains(&asked));
    sections.iter().any(|section| {
        let lines = || section.lines.iter();
        let sets = |line: &&Line| set(line).is_some_and(|(known, _)| known == name);
        let Some(first) = lines().filter(sets).filter_map(turn).min() else {
            return false;
        };
        let names_one = |line: &Line| {
            let terms = words::split_condition(line.rest(1)).1;
            let terms = terms
                .and_then(|(_, words)| words::terms(words).ok())
                .unwrap_or_default();
            terms.iter().any(|term| {
                let Term::Named { name, .. } = term else { return false };
                lines().any(|acl| acl.keyword() == "acl" && acl.word(1) == Some(name) && asks(acl.rest(2)))
            })
        };
        lines().any(|line| {
            let is_before = turn(line).is_some_and(|turn| turn < first);
            is_before && (asks(line.rest(1)) || names_one(line))
        })
    })
}

/// Whether a rule lets some go past the rule behind it that sets a variable: for them it is nothing, in HAProxy.
fn is_passed_by(sections: &[Section], name: &str) -> bool {
    sections.iter().any(|section| {
        let mut sets = section
            .lines
            .iter()
            .filter(|line| set(line).is_some_and(|(known, _)| known == name));
        sets.any(|setting| {
            let stage = |line: &Line| turn(line).map(|(stage, _)| stage);
            let mut before = section.lines.iter().filter(|line| line.number < setting.number);
            before.any(|line| stage(line) == stage(setting) && lets_through(line))
        })
    })
}

/// `http-request allow`, `tcp-request content accept`
fn lets_through(line: &Line) -> bool {
    match line.keyword() {
        "http-request" => line.word(1) == Some("allow"),
        "tcp-request" => line.word(2) == Some("accept"),
        _ => false,
    }
}

/// When a rule is asked, among those of its section: by its stage, and there in the order of the lines.
fn turn(line: &Line) -> Option<(usize, usize)> {
    let stage = match (line.keyword(), line.word(1)) {
        ("tcp-request", Some("connection")) => 0,
        ("tcp-request", Some("session")) => 1,
        ("tcp-request", _) => 2,
        ("http-request", _) => 3,
        _ => return None,
    };
    Some((stage, line.number))
}

/// Whether a frontend may lead to this backend.
fn leads(front: &Section, backend: &Section, sections: &[Section]) -> bool {
    let names_it = |section: &Section| {
        let lines = section.lines.iter();
        let mut lines = lines.filter(|line| matches!(line.keyword(), "use_backend" | "default_backend"));
        // A name that is looked up may be any.
        lines.any(|line| {
            line.word(1)
                .is_some_and(|to| backend.name.as_deref() == Some(to) || to.contains('%'))
        })
    };
    names_it(front) || sections.iter().any(|other| other.kind == "defaults" && names_it(other))
}

/// `http-request set-var(txn.host) hdr(host)`: a name, and what it is set to. None where the line is another, or has a condition.
fn set(line: &Line) -> Option<(&str, &str)> {
    let at = match line.keyword() {
        "http-request" => 1,
        "tcp-request" => 2,
        _ => return None,
    };
    let name = line.word(at)?.strip_prefix("set-var(")?.strip_suffix(')')?;
    let (said, condition) = words::split_condition(line.rest(at + 1));
    match (said, condition) {
        ([value], None) if !name.contains(',') => Some((name, value)),
        _ => None,
    }
}

/// An expression that means the request's, wherever it stands.
fn of_request(expression: &str) -> String {
    let either = ["hdr", "fhdr", "shdr", "cook", "scook"];
    let is_either = |name: &&str| {
        let rest = expression.strip_prefix(*name);
        rest.is_some_and(|rest| rest.starts_with(['(', '_']))
    };
    match either.iter().any(is_either) {
        true => format!("req.{expression}"),
        false => expression.to_owned(),
    }
}

/// Replaces a variable where a word asks for it: the word itself, or what stands in `%[…]` within it.
fn replace(word: &mut String, name: &str, value: &str) {
    let asked = format!("var({name})");
    if !word.contains(&asked) {
        return;
    }
    let mut out = String::new();
    let mut rest = word.as_str();
    while let Some((before, after)) = rest.split_once(&asked) {
        out.push_str(before);
        let begins = out.is_empty() || out.ends_with("%[") || out.ends_with("}[");
        let ends = after.is_empty() || after.starts_with([',', ']']);
        out.push_str(if begins && ends { value } else { &asked });
        rest = after;
    }
    out.push_str(rest);
    *word = out;
}

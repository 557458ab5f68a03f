//! `http-request set-src hdr(x-forwarded-for) if { src 10.0.0.0/8 }`: proxies that say who the client is. Here that is known from the
//! start: `trusted-proxies "10.0.0.0/8" client-ip="x-forwarded-for"`.

use super::criteria;
use super::haproxy::{Line, Section};
use super::outline::Node;
use super::proxies::Proxy;
use super::words::{self, Polarity, Term};

/// Who is believed, and in which field.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trusted {
    networks: Vec<String>,
    field: String,
}

impl Trusted {
    /// What a `set-src` says. Fails with the reason where that has no counterpart.
    pub(super) fn of(section: &Section, line: &Line) -> Result<Self, String> {
        if section.kind == "backend" {
            return Err(format!("the client is known before there is a backend: {SAID}"));
        }
        let is_one = |other: &&Line| other.word(1) == Some("set-src");
        if section.lines.iter().filter(is_one).count() > 1 {
            return Err(format!("the client is said in one field: {SAID}"));
        }
        let (said, condition) = words::split_condition(line.rest(2));
        let field = match said {
            [expression] => field(expression),
            _ => None,
        };
        let field = field.ok_or_else(|| format!("the client is what the last value of a field says: {SAID}"))?;
        let Some((Polarity::If, condition)) = condition else {
            return Err(format!("everybody would be believed: {SAID}"));
        };
        // Without the field, nothing is set.
        let asks_for_it = |criterion: &&[String]| matches!(criterion, [fetch, flag, how] if is_of(fetch, &field) && flag == "-m" && how == "found");
        let mut networks = Vec::new();
        for term in words::terms(condition)? {
            let criteria = asked(section, term)?;
            if criteria.iter().all(asks_for_it) {
                continue;
            }
            // All terms have to hold, and one criterion of each.
            if !networks.is_empty() {
                return Err(format!("who is believed is said once: {SAID}"));
            }
            for criterion in criteria {
                networks.extend(sources(criterion)?);
            }
        }
        match networks.is_empty() {
            true => Err(format!("everybody would be believed: {SAID}")),
            false => Ok(Self { networks, field }),
        }
    }

    /// What a section says of that, and in which line.
    pub(super) fn said(section: &Section) -> Option<(usize, Self)> {
        let mut lines = section.lines.iter();
        let line = lines.find(|line| line.keyword() == "http-request" && line.word(1) == Some("set-src"))?;
        Some((line.number, Self::of(section, line).ok()?))
    }

    fn node(&self) -> Node {
        let node = Node::new("trusted-proxies");
        let node = self.networks.iter().fold(node, Node::arg);
        node.prop("client-ip", &self.field)
    }

    /// Whether a line only takes away what those who are not believed send of it: so it is here without being said.
    fn takes_away(&self, section: &Section, line: &Line) -> bool {
        let (said, condition) = words::split_condition(line.rest(2));
        let ([name], Some((polarity, condition))) = (said, condition) else {
            return false;
        };
        let name = name.to_ascii_lowercase();
        let is_theirs =
            name == self.field || name.starts_with("x-forwarded-") || matches!(&*name, "forwarded" | "x-real-ip");
        let terms = words::terms(condition).unwrap_or_default();
        let [term] = terms.as_slice() else { return false };
        let (term, is_negated) = match *term {
            Term::Or => return false,
            Term::Named { name, is_negated } => (
                Term::Named {
                    name,
                    is_negated: false,
                },
                is_negated,
            ),
            Term::Anonymous { words, is_negated } => (
                Term::Anonymous {
                    words,
                    is_negated: false,
                },
                is_negated,
            ),
        };
        let Ok(criteria) = asked(section, term) else {
            return false;
        };
        let networks: Result<Vec<_>, _> = criteria.into_iter().map(sources).collect();
        let is_of_others = is_negated != (polarity == Polarity::Unless);
        line.keyword() == "http-request"
            && is_theirs
            && is_of_others
            && networks.is_ok_and(|networks| networks.concat() == self.networks)
    }
}

impl Proxy<'_> {
    /// `http-request set-src …`
    pub(super) fn set_source(&mut self, line: &Line) {
        match Trusted::of(self.section, line) {
            Err(reason) => self.leave_out(line, &reason),
            Ok(trusted) => {
                self.say(line, trusted.node());
                let message = format!(
                    "`{}` is read from its end, over all who are trusted; HAProxy takes its last value. What others send of it, and of \
                     `X-Forwarded-…`, is dropped, and `forwarded-for` goes on naming who connected",
                    trusted.field
                );
                self.conversion.note(line.number, message);
            }
        }
    }

    /// `del-header X-Forwarded-For if !{ src 10.0.0.0/8 }` beside a `set-src`. False when the line is another.
    pub(super) fn dropped_of_others(&mut self, line: &Line) -> bool {
        let is_it = is_dropped_of_others(self.section, line);
        if is_it {
            let message = "not needed: with `trusted-proxies`, what others send of it is dropped";
            self.conversion.note(line.number, message);
        }
        is_it
    }

    /// Whether an acl is one that is asked for who is believed, and nowhere else.
    pub(super) fn is_of_trusted(&self, name: &str) -> bool {
        let Some((number, _)) = Trusted::said(self.section) else {
            return false;
        };
        let names_it = |line: &&Line| line.words.iter().any(|word| word.trim_start_matches('!') == name);
        let lines = self.section.lines.iter().filter(|line| line.keyword() != "acl");
        let mut naming = lines.filter(names_it).peekable();
        naming.peek().is_some() && naming.all(|line| line.number == number || is_dropped_of_others(self.section, line))
    }
}

/// Whether a line drops of those who are not believed what `trusted-proxies` drops of them anyway.
pub(super) fn is_dropped_of_others(section: &Section, line: &Line) -> bool {
    if line.word(1) != Some("del-header") {
        return false;
    }
    Trusted::said(section).is_some_and(|(_, trusted)| trusted.takes_away(section, line))
}

/// The criteria of a term that has to hold, one of which is enough.
fn asked<'a>(section: &'a Section, term: Term<'a>) -> Result<Vec<&'a [String]>, String> {
    match term {
        Term::Anonymous {
            words,
            is_negated: false,
        } => Ok(vec![words]),
        Term::Named {
            name,
            is_negated: false,
        } => {
            let lines = section.lines.iter();
            let acls = lines.filter(|line| line.keyword() == "acl" && line.word(1) == Some(name));
            let criteria: Vec<_> = acls.map(|acl| acl.rest(2)).collect();
            // HAProxy has some of its own, which are about something else.
            match criteria.is_empty() {
                true => Err(format!("who is believed are networks: {SAID}")),
                false => Ok(criteria),
            }
        }
        _ => Err(format!("who is believed are networks: {SAID}")),
    }
}

/// `hdr(x-forwarded-for)`, `req.hdr_ip(x-real-ip,-1)`: the field, in lower case.
fn field(expression: &str) -> Option<String> {
    let fetch = expression.strip_prefix("req.").unwrap_or(expression);
    let inner = fetch.strip_prefix("hdr(").or_else(|| fetch.strip_prefix("hdr_ip("))?;
    let inner = inner.strip_suffix(')')?;
    let name = inner.strip_suffix(",-1").unwrap_or(inner);
    (!name.contains([',', '('])).then(|| name.to_ascii_lowercase())
}

fn is_of(expression: &str, field: &str) -> bool {
    self::field(expression).as_deref() == Some(field)
}

/// The networks of `src 10.0.0.0/8 192.168.0.0/16`.
fn sources(criterion: &[String]) -> Result<Vec<String>, String> {
    match criterion {
        [fetch, networks @ ..] if fetch == "src" && !networks.iter().any(|word| word.starts_with('-')) => {
            Ok(networks.iter().map(|network| criteria::network(network)).collect())
        }
        _ => Err(format!("who is believed are networks: {SAID}")),
    }
}

/// How it is said here.
const SAID: &str = "trusted-proxies \"10.0.0.0/8\" client-ip=\"x-forwarded-for\"";

//! Acls, and the conditions that ask them.

use super::haproxy::Line;
use super::outline::Node;
use super::proxies::Proxy;
use super::words::{self, Polarity, Term};
use super::{counts, criteria};

impl Proxy<'_> {
    /// `acl NAME CRITERION`; several of one name are alternatives.
    pub(super) fn acls(&mut self) {
        let mut names: Vec<&str> = Vec::new();
        let section = self.section;
        let acls = || section.lines.iter().filter(|line| line.keyword() == "acl");
        for name in acls().filter_map(|line| line.word(1)) {
            if !names.contains(&name) && !self.is_of_monitor(name) && !self.is_of_trusted(name) {
                names.push(name);
            }
        }
        for name in names {
            if self.counting_acl(name).is_some() || self.is_of_authentication(name) || self.is_of_status(name) {
                // Said by the rules that ask it: as limits, as a plugin, as `if-status=`.
                continue;
            }
            let lines: Vec<&Line> = acls().filter(|line| line.word(1) == Some(name)).collect();
            let nodes: Result<Vec<_>, _> = lines.iter().map(|line| criteria::criterion(line.rest(2))).collect();
            match nodes {
                Ok(nodes) if lines.len() > 1 && nodes.iter().flatten().any(|node| node.is_a(criteria::SERVERS_UP)) => {
                    let reason = "`nbsrv` beside others: give it an acl of its own, and join the two with `or`";
                    lines.iter().for_each(|line| self.leave_out(line, reason));
                }
                Ok(nodes) => self.acl(lines[0], name, nodes.concat()),
                Err(reason) => lines.iter().for_each(|line| self.leave_out(line, &reason)),
            }
        }
    }

    fn acl(&mut self, line: &Line, name: &str, mut nodes: Vec<Node>) {
        let acl = self.say(line, Node::new("acl").arg(name));
        let outline = &mut self.conversion.outline;
        let parent = match nodes.len() {
            0 | 1 => acl,
            _ => outline.add(Some(acl), Node::new("any"), line.number, &line.text),
        };
        for node in nodes.drain(..) {
            outline.add(Some(parent), node, line.number, &line.text);
        }
    }

    /// Adds a node with the condition that `words` end with.
    pub(super) fn conditional(&mut self, line: &Line, node: Node, words: &[String]) {
        let is_excepted = self.accepted(line).next().is_some();
        let said = match words::split_condition(words).1 {
            Some((polarity, condition)) if node.may_have_predicates() && !is_excepted => {
                self.inline(polarity, condition)
            }
            _ => Ok(None),
        };
        match said {
            Ok(Some(inline)) => self.say_inline(line, node, inline),
            Ok(None) => {
                self.conditional_block(line, node, words);
            }
            Err(reason) => self.leave_out(line, &reason),
        }
    }

    /// The same for a node with a block, to which further ones can be added; none when it was left out.
    pub(super) fn conditional_block(&mut self, line: &Line, node: Node, words: &[String]) -> Option<usize> {
        match self.guarded(line, node, words::split_condition(words).1) {
            Ok(node) => Some(self.say(line, node)),
            Err(reason) => {
                self.leave_out(line, &reason);
                None
            }
        }
    }

    /// A node with its condition, and for nobody whom an earlier rule has let through. Fails with the reason.
    pub(super) fn guarded(
        &mut self,
        line: &Line,
        node: Node,
        condition: Option<(Polarity, &[String])>,
    ) -> Result<Node, String> {
        let exempt = self.exempt(line)?;
        let own = match condition {
            None => None,
            Some((polarity, words)) => Some(self.condition(line, polarity, words)?),
        };
        Ok(match (own, exempt.as_slice()) {
            (None, []) => node,
            (Some((property, own)), []) => node.prop(property, own),
            (None, exempt) => node.prop("unless", exempt.join(" or ")),
            (Some(("if", own)), exempt) => node.prop("if", format!("{} and {}", grouped(&own), none_of(exempt))),
            (Some((_, own)), exempt) => node.prop("unless", format!("{} or {}", grouped(&own), exempt.join(" or "))),
        })
    }

    /// A condition in our words, and the property that says it. Acls that it has of its own become named ones.
    pub(super) fn condition(
        &mut self,
        line: &Line,
        polarity: Polarity,
        words: &[String],
    ) -> Result<(&'static str, String), String> {
        self.condition_of(line, polarity, &words::terms(words)?)
    }

    /// The same of its terms.
    pub(super) fn condition_of(
        &mut self,
        line: &Line,
        polarity: Polarity,
        terms: &[Term<'_>],
    ) -> Result<(&'static str, String), String> {
        let mut text = String::new();
        let is_alone = terms.len() == 1;
        for term in terms {
            let (asked, is_negated) = match self.asked(*term)? {
                Some(asked) => asked,
                None => {
                    text.push_str(" or");
                    continue;
                }
            };
            let name = match asked {
                Asked::Word(name) => name,
                Asked::Predicates { key, nodes } => self.own_acl(line, key, nodes),
            };
            if is_alone && is_negated {
                return Ok((polarity.opposite().property(), name));
            }
            match text.as_str() {
                "" => {}
                text_so_far if text_so_far.ends_with(" or") => {}
                _ => text.push_str(" and"),
            }
            if is_negated {
                text.push_str(" not");
            }
            text.push(' ');
            text.push_str(&name);
        }
        Ok((polarity.property(), text.trim().to_owned()))
    }

    /// What a term asks, and whether that is not to hold; none for `or`. Fails with the reason.
    fn asked(&self, term: Term<'_>) -> Result<Option<(Asked, bool)>, String> {
        let (key, nodes, is_negated) = match term {
            Term::Or => return Ok(None),
            Term::Named { name, .. } if self.counting_acl(name).is_some() => return Err(counts::ALONE.to_owned()),
            Term::Named { name, is_negated } => match criteria::predefined(name) {
                Some(node) => (vec![name.to_owned()], vec![node], is_negated),
                None => return Ok(Some((Asked::Word(name.to_owned()), is_negated))),
            },
            Term::Anonymous { words, .. } if counts::asks_a_table(words) => return Err(counts::ALONE.to_owned()),
            Term::Anonymous { words, is_negated } => (words.to_vec(), criteria::criterion(words)?, is_negated),
        };
        let asked = match nodes.as_slice() {
            // Conditions have a word for it.
            [node] if node.is("tls") && !self.has_acl("tls") => Asked::Word("tls".to_owned()),
            _ => Asked::Predicates { key, nodes },
        };
        Ok(Some((asked, is_negated)))
    }

    fn has_acl(&self, name: &str) -> bool {
        let mut lines = self.section.lines.iter();
        lines.any(|line| line.keyword() == "acl" && line.word(1) == Some(name))
    }

    /// A condition whose predicates can stand in the block of its node: all of them have to hold. None where it is another, or has
    /// no predicates of its own. Fails with the reason.
    fn inline(&self, polarity: Polarity, words: &[String]) -> Result<Option<Inline>, String> {
        let terms = words::terms(words)?;
        let is_other = terms.contains(&Term::Or) || (polarity == Polarity::Unless && terms.len() > 1);
        if is_other {
            return Ok(None);
        }
        let mut inline = Inline::default();
        for term in terms {
            let Some((asked, is_negated)) = self.asked(term)? else {
                continue;
            };
            let is_negated = is_negated != (polarity == Polarity::Unless);
            match asked {
                Asked::Word(name) => inline.acls.push((name, is_negated)),
                // Only an acl with a name can ask it.
                Asked::Predicates { nodes, .. } if nodes.iter().any(|node| node.is_a(criteria::SERVERS_UP)) => {
                    return Ok(None);
                }
                Asked::Predicates { nodes, .. } => inline.predicates.push((nodes, is_negated)),
            }
        }
        Ok((!inline.predicates.is_empty()).then_some(inline))
    }

    fn say_inline(&mut self, line: &Line, node: Node, inline: Inline) {
        let node = match inline.acls.as_slice() {
            [] => node,
            [(name, true)] => node.prop("unless", name),
            several => {
                let word = |(name, is_negated): &(String, bool)| match is_negated {
                    true => format!("not {name}"),
                    false => name.clone(),
                };
                node.prop("if", several.iter().map(word).collect::<Vec<_>>().join(" and "))
            }
        };
        let rule = self.say(line, node);
        let outline = &mut self.conversion.outline;
        for (nodes, is_negated) in inline.predicates {
            let mut parent = rule;
            if is_negated {
                parent = outline.add_part(parent, Node::new("not"), line.number, &line.text);
            }
            if nodes.len() > 1 {
                parent = outline.add_part(parent, Node::new("any"), line.number, &line.text);
            }
            for node in nodes {
                outline.add_part(parent, node, line.number, &line.text);
            }
        }
    }

    /// The name of an acl that asks what a condition asks by itself.
    fn own_acl(&mut self, line: &Line, key: Vec<String>, nodes: Vec<Node>) -> String {
        if let Some(name) = self.anonymous.get(&key) {
            return name.clone();
        }
        let name = format!("line-{}-{}", line.number, self.anonymous.len() + 1);
        self.acl(line, &name, nodes);
        self.anonymous.insert(key, name.clone());
        name
    }
}

/// A condition as a part of another one.
pub(super) fn grouped(condition: &str) -> String {
    match condition.contains(' ') {
        true => format!("({condition})"),
        false => condition.to_owned(),
    }
}

/// That none of these holds.
pub(super) fn none_of(conditions: &[String]) -> String {
    match conditions {
        [one] if !one.starts_with("not ") => format!("not {one}"),
        several => format!("not ({})", several.join(" or ")),
    }
}

/// What a term of a condition asks.
enum Asked {
    /// An acl, or another word that a condition may have.
    Word(String),
    /// Predicates, one of which has to hold. `key` tells them apart.
    Predicates { key: Vec<String>, nodes: Vec<Node> },
}

/// A condition of which all has to hold, and what of it is not to.
#[derive(Default)]
struct Inline {
    acls: Vec<(String, bool)>,
    /// Of each entry one.
    predicates: Vec<(Vec<Node>, bool)>,
}

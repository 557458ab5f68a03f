//! Acls, and the conditions that ask them.

use super::haproxy::Line;
use super::outline::Node;
use super::proxies::Proxy;
use super::words::{self, Term};

impl Proxy<'_> {
    /// `acl NAME CRITERION`; several of one name are alternatives.
    pub(super) fn acls(&mut self) {
        let mut names: Vec<&str> = Vec::new();
        let section = self.section;
        let acls = || section.lines.iter().filter(|line| line.keyword() == "acl");
        for name in acls().filter_map(|line| line.word(1)) {
            if !names.contains(&name) && !self.is_of_monitor(name) {
                names.push(name);
            }
        }
        for name in names {
            let lines: Vec<&Line> = acls().filter(|line| line.word(1) == Some(name)).collect();
            let nodes: Result<Vec<_>, _> = lines.iter().map(|line| words::criterion(line.rest(2))).collect();
            match nodes {
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
        self.conditional_block(line, node, words);
    }

    /// The same for a node with a block, to which further ones can be added; none when it was left out.
    pub(super) fn conditional_block(&mut self, line: &Line, node: Node, words: &[String]) -> Option<usize> {
        let (_, condition) = words::split_condition(words);
        let Some((polarity, words)) = condition else {
            return Some(self.say(line, node));
        };
        match self.condition(line, words) {
            Ok(condition) => Some(self.say(line, node.prop(polarity.property(), condition))),
            Err(reason) => {
                self.leave_out(line, &reason);
                None
            }
        }
    }

    /// A condition in our words. Acls that it has of its own become named ones.
    pub(super) fn condition(&mut self, line: &Line, words: &[String]) -> Result<String, String> {
        let mut text = String::new();
        for term in words::terms(words)? {
            let (name, is_negated) = match term {
                Term::Or => {
                    text.push_str(" or");
                    continue;
                }
                Term::Named { name: "TRUE", .. } => return Err("always true: leave the condition out".to_owned()),
                Term::Named { name, is_negated } => match words::predefined(name) {
                    Some(node) => {
                        let key = vec![name.to_owned()];
                        (self.own_acl(line, key, || Ok(vec![node]))?, is_negated)
                    }
                    None => (name.to_owned(), is_negated),
                },
                Term::Anonymous { words, is_negated } => {
                    let name = self.own_acl(line, words.to_vec(), || words::criterion(words))?;
                    (name, is_negated)
                }
            };
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
        Ok(text.trim().to_owned())
    }

    fn own_acl(
        &mut self,
        line: &Line,
        key: Vec<String>,
        nodes: impl FnOnce() -> Result<Vec<Node>, String>,
    ) -> Result<String, String> {
        if let Some(name) = self.anonymous.get(&key) {
            return Ok(name.clone());
        }
        let nodes = nodes()?;
        let name = format!("line-{}-{}", line.number, self.anonymous.len() + 1);
        self.acl(line, &name, nodes);
        self.anonymous.insert(key, name.clone());
        Ok(name)
    }
}

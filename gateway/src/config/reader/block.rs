//! The nodes of one block, which are asked for by their names.

use kdl::{KdlDocument, KdlNode};

use super::{Context, Node, clip, said_twice};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::suggest;

/// The nodes between two braces, or of the whole text.
pub(in crate::config) struct Block<'a> {
    ctx: &'a Context<'a>,
    owner: String,
    nodes: &'a [KdlNode],
    used: Vec<bool>,
    asked: Vec<&'static str>,
}

impl<'a> Block<'a> {
    pub(in crate::config) fn new(ctx: &'a Context<'a>, owner: String, document: &'a KdlDocument) -> Self {
        let nodes = document.nodes();
        Self {
            ctx,
            owner,
            nodes,
            used: vec![false; nodes.len()],
            asked: Vec::new(),
        }
    }

    /// The node of this name, if there is one; a second one is reported.
    pub(in crate::config) fn one(&mut self, name: &'static str) -> Option<Node<'a>> {
        let mut found = self.many(name).into_iter();
        let first = found.next()?;
        for again in found {
            self.ctx
                .report(said_twice(&format!("`{name}`"), first.span(), again.span()));
        }
        Some(first)
    }

    /// All nodes of this name, in order.
    pub(in crate::config) fn many(&mut self, name: &'static str) -> Vec<Node<'a>> {
        self.any(&[name])
    }

    /// All nodes of these names, in order.
    pub(in crate::config) fn any(&mut self, names: &[&'static str]) -> Vec<Node<'a>> {
        self.asked.extend(names);
        let mut found = Vec::new();
        for (node, used) in self.nodes.iter().zip(&mut self.used) {
            if !*used && names.contains(&node.name().value()) {
                *used = true;
                found.push(Node::new(self.ctx, node));
            }
        }
        found
    }

    /// All nodes of these names, which belong somewhere else: whoever takes them reports them. They are not among what is said to be possible here.
    pub(in crate::config) fn strays(&mut self, names: &[&str]) -> Vec<Node<'a>> {
        let mut found = Vec::new();
        for (node, used) in self.nodes.iter().zip(&mut self.used) {
            if !*used && names.contains(&node.name().value()) {
                *used = true;
                self.ctx.leave_unread(node);
                found.push(Node::new(self.ctx, node));
            }
        }
        found
    }

    /// Reports what nobody asked for. `elsewhere` says where a node belongs that is known but not here, or what it is called here.
    /// Answers whether there was no such thing: where there was, what seems to be missing may be what was meant.
    pub(in crate::config) fn finish(self, elsewhere: impl Fn(&str) -> Option<&'static str>) -> bool {
        let mut is_whole = true;
        let mut is_listed = false;
        for (node, _) in self.nodes.iter().zip(&self.used).filter(|(_, used)| !**used) {
            is_whole = false;
            self.ctx.leave_unread(node);
            let name = node.name().value();
            let spelt = suggest::spelt(name);
            let known = match suggest::same(name, self.asked.iter().copied()) {
                Some(same) => Some(format!("did you mean `{same}`?")),
                None => elsewhere(name).or_else(|| elsewhere(&spelt)).map(str::to_owned),
            };
            let help = match known {
                Some(help) => Some(help),
                None if self.ctx.is_crowded() => None,
                None => suggest::did_you_mean(name, &self.asked, || {
                    if std::mem::replace(&mut is_listed, true) {
                        return Some("what can stand here is said above".to_owned());
                    }
                    suggest::list(&self.asked).map(|list| format!("here can stand {list}"))
                }),
            };
            let error = ConfigError::new(Code::Unknown, format!("{} has no `{}`", self.owner, clip(name)));
            self.ctx
                .report(error.label(node.name().span(), "unknown here").maybe_help(help));
        }
        is_whole
    }
}

//! The result in the making: KDL nodes that remember which line of the source said them, and can be taken back.

use kdl::{KdlEntry, KdlNode, KdlValue};

/// A tree of nodes, each known by its number.
#[derive(Debug, Default)]
pub(super) struct Outline {
    nodes: Vec<Kept>,
    roots: Vec<usize>,
}

/// A node as it is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// `bind`
    name: String,
    /// `"0.0.0.0:80"`, `accept-proxy`
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    text: String,
    /// The node stands without it, too.
    is_optional: bool,
}

#[derive(Debug)]
struct Kept {
    node: Node,
    /// The line of the source, from 1.
    source: usize,
    /// That line as it was written.
    original: String,
    children: Vec<usize>,
    has_block: bool,
    /// The node that is another one without this.
    part_of: Option<usize>,
    /// Why the last of its parts was taken back.
    taken_back: Option<String>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Said,
    /// Written as a comment, with this reason.
    LeftOut(String),
}

impl Node {
    /// A node without arguments.
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            parts: Vec::new(),
        }
    }

    /// With a text as an argument.
    pub(super) fn arg(mut self, value: impl Into<String>) -> Self {
        self.push(None, KdlValue::String(value.into()));
        self
    }

    /// With a property.
    pub(super) fn prop(mut self, key: &str, value: impl Into<String>) -> Self {
        self.push(Some(key), KdlValue::String(value.into()));
        self
    }

    /// With a number as an argument.
    pub(super) fn number(mut self, value: u64) -> Self {
        self.push(None, KdlValue::Integer(i128::from(value)));
        self
    }

    /// With a property that is a number.
    pub(super) fn number_prop(mut self, key: &str, value: u64) -> Self {
        self.push(Some(key), KdlValue::Integer(i128::from(value)));
        self
    }

    /// With a flag.
    pub(super) fn flag(mut self, name: &str) -> Self {
        self.parts.push(Part {
            text: name.to_owned(),
            is_optional: true,
        });
        self
    }

    fn push(&mut self, key: Option<&str>, value: KdlValue) {
        // Strings are quoted always, as people write them here; the library knows how to escape.
        let value = match value {
            KdlValue::String(text) => quoted(&text),
            other => other.to_string(),
        };
        self.parts.push(Part {
            text: key.map_or_else(|| value.clone(), |key| format!("{key}={value}")),
            is_optional: key.is_some_and(|key| !self.depends_on(key)),
        });
    }

    /// Whether it would say something else without this property: a rule without its condition is another rule, and a question without what
    /// is looked for holds of more.
    fn depends_on(&self, key: &str) -> bool {
        match key {
            "if" | "unless" | "if-status" | "from" => true,
            "value" | "prefix" | "suffix" | "contains" | "regex" | "to" | "match" | "file" => true,
            "min" | "max" => !self.is_a("capture"),
            _ => false,
        }
    }

    /// Whether it is this, with nothing beside it.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name && self.parts.is_empty()
    }

    /// Whether it is one of these, whatever it says.
    pub(super) fn is_a(&self, name: &str) -> bool {
        self.name == name
    }

    /// Whether predicates may stand in its block, beside its condition.
    pub(super) fn may_have_predicates(&self) -> bool {
        matches!(self.name.as_str(), "deny" | "redirect" | "use-backend")
    }

    /// Its line without children: `bind "0.0.0.0:80" accept-proxy`.
    fn text(&self) -> String {
        self.parts.iter().fold(self.name.clone(), |mut text, part| {
            text.push(' ');
            text.push_str(&part.text);
            text
        })
    }

    /// Takes out the optional part that stands at a column of [`Node::text`], from 0.
    fn remove_at(&mut self, column: usize) -> bool {
        let mut begin = self.name.chars().count();
        for (i, part) in self.parts.iter().enumerate() {
            let end = begin + 1 + part.text.chars().count();
            if (begin + 1..end).contains(&column) {
                let is_optional = part.is_optional;
                if is_optional {
                    self.parts.remove(i);
                }
                return is_optional;
            }
            begin = end;
        }
        false
    }
}

/// A KDL string in quotes.
fn quoted(text: &str) -> String {
    let mut node = KdlNode::new("x");
    node.push(KdlEntry::new(text));
    let written = node.to_string();
    let value = written.trim_start_matches('x').trim();
    if value.starts_with(['"', '#']) {
        value.to_owned()
    } else {
        format!("\"{value}\"")
    }
}

impl Outline {
    /// Adds a node, to a block or at the top.
    pub(super) fn add(&mut self, parent: Option<usize>, node: Node, source: usize, original: &str) -> usize {
        let id = self.nodes.len();
        self.nodes.push(Kept {
            node,
            source,
            original: original.to_owned(),
            children: Vec::new(),
            has_block: false,
            part_of: None,
            taken_back: None,
            state: State::Said,
        });
        match parent {
            Some(parent) => {
                self.nodes[parent].children.push(id);
                self.nodes[parent].has_block = true;
            }
            None => self.roots.push(id),
        }
        id
    }

    /// Adds a node to one that would say something else without it.
    pub(super) fn add_part(&mut self, parent: usize, node: Node, source: usize, original: &str) -> usize {
        let id = self.add(Some(parent), node, source, original);
        self.nodes[id].part_of = Some(parent);
        id
    }

    /// Adds a line of the source that has no counterpart, as a comment.
    pub(super) fn add_left_out(&mut self, parent: Option<usize>, source: usize, original: &str, reason: &str) {
        let id = self.add(parent, Node::new(""), source, original);
        self.nodes[id].state = State::LeftOut(reason.to_owned());
    }

    /// A node has a block even when nothing stands in it.
    pub(super) fn open(&mut self, id: usize) {
        self.nodes[id].has_block = true;
    }

    /// The line of the source that said a node.
    pub(super) fn source(&self, id: usize) -> usize {
        self.nodes[id].source
    }

    /// Takes back what stands at a column of a node's line: a property or flag alone, or else the node, which becomes a
    /// comment with what is in it.
    pub(super) fn take_back(&mut self, place: Place, column: usize, reason: &str) -> TakenBack {
        let mut whole = place.node;
        while let Some(parent) = self.nodes[whole].part_of {
            whole = parent;
        }
        let is_part = whole != place.node;
        let kept = &mut self.nodes[whole];
        if kept.state != State::Said {
            return TakenBack::Nothing;
        }
        let column = column.checked_sub(1 + place.depth * INDENT.len()).filter(|_| !is_part);
        if column.is_some_and(|column| kept.node.remove_at(column)) {
            kept.taken_back = Some(reason.to_owned());
            return TakenBack::Said;
        }
        // What its parts were refused for is why it is bare, and has been told.
        let bare = kept.taken_back.take().filter(|_| kept.node.parts.is_empty());
        let is_told = bare.is_some();
        kept.state = State::LeftOut(bare.unwrap_or_else(|| reason.to_owned()));
        match is_told {
            true => TakenBack::Bare,
            false => TakenBack::Said,
        }
    }

    /// The text, and for each of its lines the node that it belongs to.
    pub(super) fn render(&self) -> (String, Vec<Option<Place>>) {
        let mut page = Page::default();
        for (i, &root) in self.roots.iter().enumerate() {
            if i > 0 {
                page.line(0, "", None);
            }
            self.write(&mut page, root, 0);
        }
        (page.text, page.lines)
    }

    /// Whether anything is said in its block.
    fn has_more(&self, kept: &Kept) -> bool {
        kept.children
            .iter()
            .any(|&child| self.nodes[child].state == State::Said)
    }

    fn write(&self, page: &mut Page, id: usize, depth: usize) {
        let kept = &self.nodes[id];
        match &kept.state {
            State::LeftOut(reason) => {
                if !is_of_emptiness(reason) {
                    page.line(depth, &format!("// not converted: {}", one_line(reason)), None);
                    page.line(depth, &format!("//   {}", one_line(&kept.original)), None);
                }
                // What was not converted in it is told of nevertheless.
                let is_left_out = |child: &&usize| matches!(self.nodes[**child].state, State::LeftOut(_));
                for &child in kept.children.iter().filter(is_left_out) {
                    self.write(page, child, depth);
                }
            }
            // A check is one without its steps, too, and has no empty block.
            State::Said if kept.node.is_a("check") && !self.has_more(kept) => {
                page.line(depth, &kept.node.text(), Some(id));
                for &child in &kept.children {
                    self.write(page, child, depth);
                }
            }
            State::Said if kept.has_block => {
                page.line(depth, &format!("{} {{", kept.node.text()), Some(id));
                for &child in &kept.children {
                    self.write(page, child, depth + 1);
                }
                page.line(depth, "}", Some(id));
            }
            State::Said => page.line(depth, &kept.node.text(), Some(id)),
        }
    }
}

/// What became of something that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakenBack {
    /// There was nothing left to take back.
    Nothing,
    /// It was taken back, which is to be told.
    Said,
    /// It was a node of which everything else had been taken back before.
    Bare,
}

/// Whether something is refused for having nothing in its block: what was there was left out, and has been told of.
pub(super) fn is_of_emptiness(reason: &str) -> bool {
    reason.starts_with("the block of ") && reason.ends_with(" is empty")
}

/// A comment ends at the end of its line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[derive(Default)]
struct Page {
    text: String,
    lines: Vec<Option<Place>>,
}

/// Which node a line of the result is, and how deep it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) node: usize,
    depth: usize,
}

impl Page {
    fn line(&mut self, depth: usize, text: &str, node: Option<usize>) {
        if !text.is_empty() {
            self.text.push_str(&INDENT.repeat(depth));
        }
        self.text.push_str(text);
        self.text.push('\n');
        self.lines.push(node.map(|node| Place { node, depth }));
    }
}

const INDENT: &str = "    ";

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn strings_are_quoted_and_escaped() {
        assert_eq!(quoted("app"), "\"app\"");
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("a \"b\"\r\n"), r#""a \"b\"\r\n""#);
    }
}

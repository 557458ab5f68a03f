//! Texts, and the ways in which HAProxy compares them: as a whole, by beginning, end or part, and by expression.

use super::expressions::Shape;
use super::outline::Node;

/// How a text is compared, and with what.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) how: &'a str,
    pub(super) ignores_case: bool,
    /// HAProxy compares what stands between a field's commas (`hdr`), and not the field as a whole (`fhdr`).
    pub(super) has_items: bool,
    pub(super) values: &'a [&'a str],
}

/// Where an item of a list begins, and where it ends (RFC 9110, section 5.6.1).
const ITEM_BEGINS: &str = r"(?:^|,)\s*";
const ITEM_ENDS: &str = r"\s*(?:,|$)";

impl Text<'_> {
    /// The regular expression that asks what a value does.
    pub(super) fn pattern(&self, value: &str) -> Result<String, String> {
        let escaped = regex::escape(value);
        let (begins, ends) = match self.has_items {
            true => (ITEM_BEGINS, ITEM_ENDS),
            false => ("^", "$"),
        };
        let pattern = match self.how {
            "str" => format!("{begins}{escaped}{ends}"),
            "beg" => format!("{begins}{escaped}"),
            "end" => format!("{escaped}{ends}"),
            "sub" => escaped,
            // What stands between such signs, or at an end.
            "dir" | "dom" => {
                let signs = if self.how == "dir" { "/?" } else { "/?.:" };
                let inner = value.trim_matches(|c| signs.contains(c));
                if inner.is_empty() {
                    return Err(format!("`{value}` has nothing between its signs"));
                }
                let (begins, ends) = match self.has_items {
                    true => (r",\s*|", r"\s*,|\s*"),
                    false => ("", ""),
                };
                format!("(?:^|{begins}[{signs}]){}(?:[{signs}]|{ends}$)", regex::escape(inner))
            }
            "reg" => {
                let shape = Shape::of(value);
                if self.has_items && shape.is_anchored_within {
                    return Err(format!(
                        "a part of `{value}` asks where something begins or ends: in HAProxy that is between commas, and in the field here"
                    ));
                }
                let (value, begins) = match value.strip_prefix('^').filter(|_| shape.begins_anchored) {
                    Some(inner) => (inner, begins),
                    None => (value, ""),
                };
                let (value, ends) = match value.strip_suffix('$').filter(|_| shape.ends_anchored) {
                    Some(inner) => (inner, ends),
                    None => (value, ""),
                };
                format!("{begins}{value}{ends}")
            }
            how => return Err(format!("no predicate with `{how}`")),
        };
        Ok(if self.ignores_case {
            format!("(?i){pattern}")
        } else {
            pattern
        })
    }

    pub(super) fn patterns(&self, node: Node) -> Result<Vec<Node>, String> {
        let patterns = self.values.iter().map(|value| self.pattern(value));
        Ok(vec![
            patterns
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .fold(node, Node::arg),
        ])
    }

    /// A test of something that has a name.
    pub(super) fn named(&self, node: &str, name: &str) -> Result<Vec<Node>, String> {
        self.tested(|| Node::new(node).arg(name))
    }

    /// A test of something that is one by itself.
    pub(super) fn about(&self, node: &str) -> Result<Vec<Node>, String> {
        match self.values.is_empty() {
            true => Err(format!("`{node}` needs a value")),
            false => self.tested(|| Node::new(node)),
        }
    }

    fn tested(&self, node: impl Fn() -> Node) -> Result<Vec<Node>, String> {
        let key = match self.how {
            "found" => return Ok(vec![node()]),
            _ if self.values.is_empty() => return Ok(vec![node()]),
            "str" if !self.ignores_case && !self.has_items => {
                return Ok(vec![self.values.iter().fold(node(), |node, value| node.arg(*value))]);
            }
            "beg" if !self.ignores_case && !self.has_items => "prefix",
            "end" if !self.ignores_case && !self.has_items => "suffix",
            "sub" if !self.ignores_case => "contains",
            _ => {
                let patterns = self.values.iter().map(|value| self.pattern(value));
                return patterns.map(|pattern| Ok(node().prop("regex", pattern?))).collect();
            }
        };
        Ok(self.values.iter().map(|value| node().prop(key, *value)).collect())
    }
}

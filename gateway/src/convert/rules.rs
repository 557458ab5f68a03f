//! `http-request`, `http-response`, `tcp-request` and `redirect`.

use super::haproxy::Line;
use super::outline::Node;
use super::proxies::Proxy;
use super::words;

impl Proxy<'_> {
    pub(super) fn rule(&mut self, line: &Line) {
        let is_response = line.keyword() == "http-response";
        // `tcp-request connection reject`: the action comes third.
        let at = if line.keyword() == "tcp-request" { 2 } else { 1 };
        let action = line.word(at).unwrap_or_default();
        let rest = line.rest(at + 1);
        match (line.keyword(), action) {
            ("tcp-request", "reject") => self.conditional(line, Node::new("deny"), rest),
            ("tcp-request", _) if line.word(1) == Some("inspect-delay") => {
                let message = "not needed: a ClientHello is awaited where an acl asks for it, within a bounded time";
                self.conversion.note(line.number, message);
            }
            ("tcp-request", "accept") if line.text.contains("ssl_hello_type") => {
                let message = "not needed: a ClientHello is awaited where an acl asks for it";
                self.conversion.note(line.number, message);
            }
            ("http-request", "deny") => {
                let status = rest
                    .iter()
                    .skip_while(|word| !matches!(word.as_str(), "deny_status" | "status"))
                    .nth(1);
                let status = status.and_then(|status| status.parse().ok());
                let node = Node::new("deny");
                let node = status
                    .into_iter()
                    .fold(node, |node, status| node.number_prop("status", status));
                self.conditional(line, node, rest);
            }
            ("http-request", "redirect") => self.redirect(line, rest),
            (_, "set-header" | "add-header" | "del-header" | "replace-header" | "replace-value" | "replace-path") => {
                self.edit(line, is_response, action, rest);
            }
            _ => self.leave_out(
                line,
                &format!("there is no counterpart of `{} {action}`", line.keyword()),
            ),
        }
    }

    pub(super) fn redirect(&mut self, line: &Line, words: &[String]) {
        let (kind, value) = (words.first(), words.get(1));
        let (Some(kind), Some(value)) = (kind, value) else {
            return self.leave_out(line, "a redirect to nowhere");
        };
        let code = words.iter().skip_while(|word| *word != "code").nth(1);
        let node = Node::new("redirect").prop(kind, value);
        let code = code.and_then(|code| code.parse().ok());
        let node = code
            .into_iter()
            .fold(node, |node, code| node.number_prop("status", code));
        self.conditional(line, node, words);
    }

    fn edit(&mut self, line: &Line, is_response: bool, action: &str, words: &[String]) {
        let (words, condition) = words::split_condition(words);
        if condition.is_some() {
            return self.leave_out(line, "edits have no conditions; a plugin may decide");
        }
        if words.iter().any(|word| word.contains("%[") || word.contains("%{")) {
            return self.leave_out(line, "values with variables are a plugin's work");
        }
        let word = |at: usize| words.get(at).map(String::as_str).unwrap_or_default();
        let node = match action {
            "set-header" | "add-header" => Node::new(action).arg(word(0)).arg(word(1)),
            "del-header" => Node::new("delete-header").arg(word(0)),
            "replace-path" => Node::new("rewrite-path")
                .prop("regex", word(0))
                .prop("to", captures(word(1))),
            _ => Node::new("replace-header")
                .arg(word(0))
                .prop("regex", word(1))
                .prop("to", captures(word(2))),
        };
        let block = self.edits(line, is_response);
        self.conversion.outline.add(Some(block), node, line.number, &line.text);
    }
}

/// `\1` is `${1}` here, and a dollar is written twice.
fn captures(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek().is_some_and(char::is_ascii_digit) => {
                out.push_str("${");
                out.extend(chars.next());
                out.push('}');
            }
            '$' => out.push_str("$$"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::captures;

    #[test]
    fn captures_are_renamed() {
        assert_eq!(captures(r"/new/\1?a=$b"), "/new/${1}?a=$$b");
    }
}

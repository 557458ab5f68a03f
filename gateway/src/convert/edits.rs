//! Rules that edit a request or a response on its way.

use super::expressions::Shape;
use super::haproxy::Line;
use super::outline::Node;
use super::proxies::Proxy;
use super::variables::variables;
use super::words::{self, Polarity};

impl Proxy<'_> {
    pub(super) fn edit(&mut self, line: &Line, is_response: bool, action: &str, words: &[String]) {
        let (said, condition) = words::split_condition(words);
        let of_response: Vec<String>;
        let said = match is_response {
            true => {
                of_response = said.iter().map(|word| about_the_response(word)).collect();
                of_response.as_slice()
            }
            false => said,
        };
        let node = match edit(action, said) {
            Ok(node) => node,
            Err(reason) => return self.leave_out(line, &reason),
        };
        if condition.is_some_and(|(_, words)| self.asks_the_response(line, words)) {
            return self.leave_out(line, RESPONSE);
        }
        let node = match line.keyword() {
            "http-after-response" => node.flag("always"),
            _ => node,
        };
        // What is asked of the response is no acl here.
        let status = condition.filter(|_| is_response).and_then(status);
        let (node, condition) = match &status {
            None => (node, condition),
            Some(Ok((statuses, rest))) => {
                let condition = Some((Polarity::If, &**rest)).filter(|_| !rest.is_empty());
                (node.prop("if-status", statuses), condition)
            }
            Some(Err(reason)) => return self.leave_out(line, reason),
        };
        let node = match self.guarded(line, node, condition) {
            Ok(node) => node,
            Err(reason) => return self.leave_out(line, &reason),
        };
        let block = self.edits(line, is_response);
        self.conversion.outline.add(Some(block), node, line.number, &line.text);
    }
}

/// `set-header Host %[req.hdr(Host),lower]`
pub(super) fn lowers_the_host(line: &Line) -> bool {
    let word = |at: usize| line.word(at).unwrap_or_default().to_ascii_lowercase();
    let is_its_own = matches!(&*word(3), "%[req.hdr(host),lower]" | "%[hdr(host),lower]");
    word(2) == "host" && is_its_own && line.words.len() == 4
}

/// `%[hdr(x)]` in a rule about responses.
fn about_the_response(text: &str) -> String {
    let text = text.replace("[hdr(", "[res.hdr(").replace("[fhdr(", "[res.fhdr(");
    text.replace("[cook(", "[res.cook(")
}

pub(super) const RESPONSE: &str = "it asks what the response has: conditions here are asked about the request, and of a response its status alone, \
                        by `if-status=`";

/// The statuses that a condition asks for beside other things, and these: `if { status 404 500:599 } a`.
fn status((polarity, words): (Polarity, &[String])) -> Option<Result<(String, Vec<String>), String>> {
    let at = words
        .windows(2)
        .position(|pair| pair[0] == "{" && pair[1] == "status")?;
    let length = words[at..].iter().position(|word| word == "}")?;
    let is_negated = polarity == Polarity::Unless || at.checked_sub(1).is_some_and(|before| words[before] == "!");
    if is_negated || words.iter().any(|word| matches!(word.as_str(), "or" | "||")) {
        let reason = "a status is asked for beside other conditions, all of which have to hold: write `if-status=`";
        return Some(Err(reason.to_owned()));
    }
    let mut statuses = Vec::new();
    for value in &words[at + 2..at + length] {
        let is_status = |text: &str| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !value.splitn(2, ':').all(is_status) {
            return Some(Err(format!(
                "`status {value}` has no counterpart: write `if-status=` with numbers and ranges"
            )));
        }
        statuses.push(value.replace(':', "-"));
    }
    let rest = [&words[..at], &words[at + length + 1..]].concat();
    Some(Ok((statuses.join(","), rest)))
}

fn edit(action: &str, words: &[String]) -> Result<Node, String> {
    let word = |at: usize| words.get(at).map(String::as_str).unwrap_or_default();
    Ok(match action {
        "set-header" if word(0).eq_ignore_ascii_case("host") => Node::new("set-host").arg(variables(word(1))?),
        _ if word(0).eq_ignore_ascii_case("host") => return Err("Host is set as a whole: `set-host`".to_owned()),
        "set-header" | "add-header" => Node::new(action).arg(word(0)).arg(variables(word(1))?),
        "del-header" if words.len() > 1 => return Err("`del-header` with `-m` has no counterpart".to_owned()),
        "del-header" => Node::new("delete-header").arg(word(0)),
        "set-path" | "set-query" => Node::new(action).arg(target(action, word(0))?),
        "set-status" => Node::new("set-status").number(word(0).parse().map_err(|_| "a status that is no number")?),
        "replace-path" => replaced(Node::new("rewrite-path"), word(0), word(1))?,
        _ => replaced(Node::new("replace-header").arg(word(0)), word(1), word(2))?,
    })
}

/// A path or a query. What a client sent is encoded in one without being told to; what divides its URI is not, and so makes no value.
fn target(action: &str, text: &str) -> Result<String, String> {
    let text = variables(text)?;
    let is_value = |name: &&str| text.contains(&format!("=%{{{name}}}"));
    let has_value = ["path", "query", "uri", "host", "authority"].iter().any(is_value);
    match text.contains("|url-encode}") || action == "set-query" && has_value {
        true => Err("the value of a parameter is written, and encoded, by `set-query-param`".to_owned()),
        false => Ok(text),
    }
}

/// HAProxy writes what is said in the place of all of the value, wherever in it the expression matches; edits of ours in the
/// place of what matches. So the expression is made to take in the rest.
fn replaced(node: Node, expression: &str, text: &str) -> Result<Node, String> {
    let shape = Shape::of(expression);
    let before = if shape.begins_anchored { "" } else { "^.*?" };
    let behind = match shape.ends_anchored || shape.takes_the_rest {
        true => "",
        false => ".*$",
    };
    let is_widened = !before.is_empty() || !behind.is_empty();
    if is_widened && text.contains(r"\0") {
        return Err(r"`\0` would be all of the value here: let the expression match all of it, and capture".to_owned());
    }
    let expression = match shape.has_choices {
        true => format!("{before}(?:{expression}){behind}"),
        false => format!("{before}{expression}{behind}"),
    };
    Ok(node.prop("regex", expression).prop("to", variables(&captures(text))?))
}

/// `\1` is `${1}` here, and a dollar is written twice.
pub(super) fn captures(text: &str) -> String {
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn captures_are_renamed() {
        assert_eq!(captures(r"/new/\1?a=$b"), "/new/${1}?a=$$b");
    }

    #[test]
    fn a_status_that_an_answer_must_not_have_is_left_out() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        status((Polarity::If, &words("! { status 404 } a")))
            .unwrap()
            .unwrap_err();
        status((Polarity::Unless, &words("{ status 404 }")))
            .unwrap()
            .unwrap_err();
        let (statuses, rest) = status((Polarity::If, &words("! a { status 404 }"))).unwrap().unwrap();
        assert_eq!((statuses, rest), ("404".to_owned(), words("! a")));
    }
}

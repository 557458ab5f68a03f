//! Rules that edit a request or a response on its way.

use super::expressions::Shape;
use super::haproxy::Line;
use super::outline::Node;
use super::proxies::Proxy;
use super::redirects::argument;
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
        if let ("set-header" | "add-header", [name, value], None) = (action, said, condition)
            && value == "%[ssl_fc]"
        {
            return self.whether_tls(line, is_response, action, name);
        }
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
        let status = condition
            .filter(|_| is_response)
            .and_then(|condition| self.statuses(condition));
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

    /// `set-header X-SSL %[ssl_fc]`: 1 with TLS, and 0 without.
    fn whether_tls(&mut self, line: &Line, is_response: bool, action: &str, name: &str) {
        let asks = |holds: &str| {
            Some((
                Polarity::If,
                vec![holds.to_owned(), "ssl_fc".to_owned(), "}".to_owned()],
            ))
        };
        for (value, condition) in [("1", asks("{")), ("0", asks("!{"))] {
            let condition = condition
                .as_ref()
                .map(|(polarity, words)| (*polarity, words.as_slice()));
            let node = Node::new(action).arg(name).arg(value);
            match self.guarded(line, node, condition) {
                Ok(node) => {
                    let block = self.edits(line, is_response);
                    self.conversion.outline.add(Some(block), node, line.number, &line.text);
                }
                Err(reason) => return self.leave_out(line, &reason),
            }
        }
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

fn edit(action: &str, words: &[String]) -> Result<Node, String> {
    let word = |at: usize| words.get(at).map(String::as_str).unwrap_or_default();
    if let Some(node) = substituted(action, word(0)) {
        return node;
    }
    Ok(match action {
        "set-header" if word(0).eq_ignore_ascii_case("host") => Node::new("set-host").arg(variables(word(1))?),
        _ if word(0).eq_ignore_ascii_case("host") => return Err("Host is set as a whole: `set-host`".to_owned()),
        "set-header" | "add-header" => Node::new(action).arg(word(0)).arg(variables(word(1))?),
        "del-header" if words.len() > 1 => return Err("`del-header` with `-m` has no counterpart".to_owned()),
        "del-header" => Node::new("delete-header").arg(word(0)),
        "set-path" | "set-query" => Node::new(action).arg(target(action, word(0))?),
        "set-status" => Node::new("set-status").number(word(0).parse().map_err(|_| "a status that is no number")?),
        "replace-pathq" | "replace-uri" => with_query(action, word(0), word(1))?,
        "set-pathq" | "set-uri" => return Err(format!("path and query are set apart here: no `{action}`")),
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

/// `set-path %[path,regsub(^/api/,/)]`: a substitution, which is of the first match in both. None where it is none.
fn substituted(action: &str, value: &str) -> Option<Result<Node, String>> {
    let inner = value.strip_prefix("%[")?.strip_suffix(")]")?;
    let (fetch, arguments) = inner.split_once(",regsub(")?;
    match (action, fetch) {
        ("set-path", "path") => Some(substitution(arguments, false)),
        ("set-pathq", "pathq") | ("set-uri", "url" | "pathq" | "capture.req.uri") => {
            Some(substitution(arguments, true))
        }
        _ => None,
    }
}

fn substitution(arguments: &str, has_query: bool) -> Result<Node, String> {
    let (regex, rest) = argument(arguments)?;
    let (to, flags) = argument(rest)?;
    let begins = Shape::of(regex).begins_anchored;
    let (case, flags) = match flags.strip_prefix('i').or_else(|| flags.strip_suffix('i')) {
        Some(others) => ("(?i)", others),
        None => ("", flags),
    };
    // What begins where the path does is there once.
    if !(flags.is_empty() || (flags == "g" && begins)) {
        return Err("the first match is replaced here, and not all".to_owned());
    }
    // So it cannot reach into the query, which stays.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-_.\\".contains(c);
    if has_query && !(begins && regex.chars().skip(1).all(is_plain) && !to.contains('?')) {
        return Err("the expression may be about the query, too: rewrite the path and the query apart".to_owned());
    }
    let node = Node::new("rewrite-path").prop("regex", format!("{case}{regex}"));
    Ok(node.prop("to", captures(to).replace("%{", "%%{")))
}

/// `replace-uri ^/old/(.*) /new/\1`: path and query in one, where what stands for the rest is the rest again. The query stays here.
fn with_query(action: &str, expression: &str, text: &str) -> Result<Node, String> {
    let other = || format!("`{action}` may be about the query, too: rewrite the path and the query apart");
    let inner = expression.strip_suffix('$').unwrap_or(expression);
    let head = inner.strip_suffix("(.*)").ok_or_else(other)?;
    let compiled = regex::bytes::Regex::new(expression).map_err(|_| "an expression in another syntax than ours")?;
    let last = format!(r"\{}", compiled.captures_len() - 1);
    let asks_the_query = head.contains(r"\?") || head.contains(".*") || head.contains('[');
    let leads = text.strip_suffix(&*last).ok_or_else(other)?;
    if !head.starts_with("^/") || asks_the_query || leads.contains(['?', '%']) || Shape::of(expression).has_choices {
        return Err(other());
    }
    let node = Node::new("rewrite-path").prop("regex", expression);
    Ok(node.prop("to", captures(text)))
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
    fn paths_are_rewritten_where_the_query_has_no_part_in_it() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let rewrite = |regex: &str, to: &str| Node::new("rewrite-path").prop("regex", regex).prop("to", to);
        for (action, said, regex, to) in [
            ("set-path", "%[path,regsub(^/api/,/)]", "^/api/", "/"),
            ("set-path", r"%[path,regsub(/a(b+),/$\1,i)]", "(?i)/a(b+)", "/$$${1}"),
            ("set-path", "%[path,regsub(^/api,,g)]", "^/api", ""),
            ("set-pathq", "%[pathq,regsub(^/api/,/)]", "^/api/", "/"),
            ("set-uri", "%[url,regsub(^/api/,/)]", "^/api/", "/"),
            ("replace-uri", r"^/old/(.*) /new/\1", "^/old/(.*)", "/new/${1}"),
            (
                "replace-pathq",
                r"^/(a|b)/(.*)$ /x/\1/\2",
                "^/(a|b)/(.*)$",
                "/x/${1}/${2}",
            ),
        ] {
            assert_eq!(
                edit(action, &words(said)).unwrap(),
                rewrite(regex, to),
                "{action} {said}"
            );
        }
        for (action, said) in [
            ("set-path", "%[path,regsub(//,/,g)]"),
            ("set-pathq", "%[pathq,regsub(^/a.*b,/)]"),
            ("set-uri", "%[url,regsub(/a,/b)]"),
            ("set-uri", "/fixed?a=b"),
            ("replace-uri", r"^/old /new"),
            ("replace-uri", r"^/old/(.*)\?(.*) /new/\1?\2"),
            ("replace-pathq", r"^/old/(.*) /new/\1?a=b"),
            ("replace-uri", r"^http://a/(.*) /\1"),
        ] {
            edit(action, &words(said)).unwrap_err();
        }
    }

    #[test]
    fn captures_are_renamed() {
        assert_eq!(captures(r"/new/\1?a=$b"), "/new/${1}?a=$$b");
    }
}

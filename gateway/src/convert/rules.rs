//! `http-request`, `http-response`, `http-after-response`, `tcp-request` and `redirect`.

use super::acls::grouped;
use super::expressions::Shape;
use super::haproxy::Line;
use super::outline::Node;
use super::proxies::{Exempt, Proxy, Stage};
use super::variables::variables;
use super::words::{self, Polarity, Term};

impl Proxy<'_> {
    pub(super) fn rule(&mut self, line: &Line) {
        let is_response = matches!(line.keyword(), "http-response" | "http-after-response");
        if !is_response && self.counting_rule(line) {
            return;
        }
        let action = line.word(at(line)).unwrap_or_default();
        let rest = line.rest(at(line) + 1);
        match (line.keyword(), action) {
            ("tcp-request", "reject") => {
                // What is decided about connections is decided at accept; what needs their content, when that is there.
                let is_some = |(_, _, exempt): &(usize, Stage, Exempt)| matches!(exempt, Exempt::Those(_));
                let has_condition = words::split_condition(rest).1.is_some() || self.accepted(line).any(is_some);
                let is_early = line.word(1) == Some("connection") && has_condition;
                self.conditional(line, Node::new(if is_early { "reject" } else { "deny" }), rest);
            }
            ("tcp-request", _) if line.word(1) == Some("inspect-delay") => {
                let message = "not needed: a ClientHello is awaited where an acl asks for it, within a bounded time";
                self.conversion.note(line.number, message);
            }
            ("tcp-request", "accept") if line.text.contains("ssl_hello_type") => {
                let message = "not needed: a ClientHello is awaited where an acl asks for it";
                self.conversion.note(line.number, message);
                let reason = "whether it is TLS that begins cannot be asked: what is none goes on without a name";
                self.accepted.push((line.number, stage(line), Exempt::All(reason)));
            }
            ("tcp-request", "accept") | ("http-request" | "http-response" | "http-after-response", "allow") => {
                self.accept(line, rest);
            }
            ("http-request", "deny" | "tarpit" | "silent-drop") => self.deny(line, action, rest),
            ("http-request", "redirect") => self.redirect(line, rest),
            ("http-request", "return") => self.answer(line, rest),
            // Hosts are compared without regard to case.
            ("http-request", "set-header") if lowers_the_host(line) => self.conversion.note(
                line.number,
                "not needed: hosts are compared without regard to case; servers get the name as it came",
            ),
            ("http-request", "set-path" | "set-query" | "replace-path")
            | ("http-response", "set-status")
            | (_, "set-header" | "add-header" | "del-header" | "replace-header") => {
                self.edit(line, is_response, action, rest);
            }
            ("http-request", "set-src") => self.leave_out(
                line,
                "whose address a proxy tells is said for the frontend: trusted-proxies \"10.0.0.0/8\" client-ip=\"x-forwarded-for\"",
            ),
            ("http-request", "auth") => self.leave_out(
                line,
                "passwords are a plugin's: plugin \"users\" builtin=\"basic-auth\" { … }, and `use-plugin` in the frontend",
            ),
            _ => self.leave_out(
                line,
                &format!("there is no counterpart of `{} {action}`", line.keyword()),
            ),
        }
    }

    /// `http-request deny deny_status 429 if abuse`. With words of its own for the client it is a `return`.
    fn deny(&mut self, line: &Line, action: &str, rest: &[String]) {
        let (said, _) = words::split_condition(rest);
        let status = said.iter().skip_while(|word| !is_status(word)).nth(1);
        let status = status.and_then(|status| status.parse().ok());
        // Refused in another way, and never let through.
        let status = match action {
            "tarpit" => status.or(Some(500)),
            _ => status,
        };
        if action != "deny" {
            let message = format!("`{action}` has become a `deny`: the client is answered, and at once");
            self.conversion.note(line.number, message);
        }
        let mut others = said.iter().filter(|word| !is_status(word));
        let says_more = others.any(|word| word.parse::<u16>().is_err());
        if says_more {
            let (mut words, mut rest_of_it) = (Vec::new(), said.iter());
            while let Some(word) = rest_of_it.next() {
                match is_status(word) {
                    true => drop(rest_of_it.next()),
                    false => {
                        words.push(word.clone());
                        words.extend(rest_of_it.next().cloned());
                    }
                }
            }
            words.extend(["status".to_owned(), status.unwrap_or(DENIED).to_string()]);
            match answer(&words) {
                Ok((node, inner)) => {
                    if let Some(block) = self.conditional_block(line, node, rest) {
                        for node in inner {
                            self.conversion.outline.add(Some(block), node, line.number, &line.text);
                        }
                    }
                    return;
                }
                Err(reason) => {
                    let message = format!("refused without words of its own: {reason}; see `error-page`");
                    self.conversion.note(line.number, message);
                }
            }
        }
        let node = Node::new("deny");
        let node = status
            .into_iter()
            .fold(node, |node, status| node.number_prop("status", status));
        self.conditional(line, node, rest);
    }

    /// `tcp-request connection accept if friend`, `http-request allow if friend`: the rules of its stage that follow are not asked
    /// about whom it lets through.
    fn accept(&mut self, line: &Line, rest: &[String]) {
        let stage = stage(line);
        let is_excepted = |other: &Line| {
            other.number > line.number
                && self::stage(other) == stage
                && match other.keyword() {
                    "tcp-request" => other
                        .word(2)
                        .is_some_and(|action| is_refusal(action) || action.starts_with("track-sc")),
                    _ => true,
                }
        };
        if !self.section.lines.iter().any(is_excepted) {
            let message = "not needed: nobody is refused by a rule behind it";
            return self.conversion.note(line.number, message);
        }
        let exempt = match words::split_condition(rest).1 {
            None => Exempt::All(EVERYBODY),
            // By the end of the time for inspection everybody is let through who is there.
            Some((Polarity::If, [word])) if word == "WAIT_END" => Exempt::All(EVERYBODY),
            Some((_, words)) if line.keyword() != "tcp-request" && self.asks_the_response(line, words) => {
                self.leave_out(line, RESPONSE);
                Exempt::Unsaid
            }
            Some((polarity, words)) => match self.is_said(words).and_then(|()| self.condition(line, polarity, words)) {
                Ok(("if", condition)) => Exempt::Those(grouped(&condition)),
                Ok((_, condition)) => Exempt::Those(format!("not {}", grouped(&condition))),
                Err(reason) => {
                    self.leave_out(line, &reason);
                    Exempt::Unsaid
                }
            },
        };
        self.accepted.push((line.number, stage, exempt));
    }

    /// Fails where a condition names an acl that is left out or not there, with the reason: rules that named it would be left out, too.
    fn is_said(&self, condition: &[String]) -> Result<(), String> {
        for term in words::terms(condition)? {
            let Term::Named { name, .. } = term else { continue };
            if self.counting_acl(name).is_some() {
                continue;
            }
            let lines = self.section.lines.iter();
            let acls = lines.filter(|line| line.keyword() == "acl" && line.word(1) == Some(name));
            let mut acls = acls.peekable();
            if acls.peek().is_none() && name != "TRUE" && words::predefined(name).is_none() {
                return Err(format!("there is no counterpart of `{name}`"));
            }
            for acl in acls {
                words::criterion(acl.rest(2)).map_err(|reason| format!("its acl `{name}` is left out: {reason}"))?;
            }
        }
        Ok(())
    }

    /// Whom the rules of this line's stage are not asked about, by what stands before it.
    pub(super) fn accepted(&self, line: &Line) -> impl Iterator<Item = &(usize, Stage, Exempt)> {
        let (number, own) = (line.number, stage(line));
        self.accepted
            .iter()
            .filter(move |(at, of, _)| *at < number && *of == own)
    }

    /// The same as conditions. Fails where nobody is left whom a rule is asked about. Of whom nothing can be said, it is: what refuses
    /// too much is noticed.
    pub(super) fn exempt(&mut self, line: &Line) -> Result<Vec<String>, String> {
        let mut those = Vec::new();
        let mut unsaid = Vec::new();
        for (at, _, exempt) in self.accepted(line) {
            match exempt {
                Exempt::Those(condition) => those.push(condition.clone()),
                Exempt::All(reason) => return Err((*reason).to_owned()),
                Exempt::Unsaid => unsaid.push(*at),
            }
        }
        for at in unsaid {
            let message = format!("it holds for them, too, whom line {at} lets through: who that is could not be said");
            self.conversion.note(line.number, message);
        }
        Ok(those)
    }

    /// Whether a condition of a rule about responses asks for what a response has: `hdr(x)` is the response's there.
    fn asks_the_response(&self, line: &Line, condition: &[String]) -> bool {
        if line.keyword() == "http-request" {
            return false;
        }
        let asks = |criterion: &[String]| {
            let fetch = criterion.first().map_or("", String::as_str);
            let name = fetch.split(['(', ',']).next().unwrap_or_default();
            ["hdr", "fhdr", "shdr", "cook", "scook"].iter().any(|known| {
                name.strip_prefix(known)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
            })
        };
        words::terms(condition)
            .unwrap_or_default()
            .into_iter()
            .any(|term| match term {
                Term::Or => false,
                Term::Anonymous { words, .. } => asks(words),
                Term::Named { name, .. } => {
                    let mut lines = self.section.lines.iter();
                    lines.any(|line| line.keyword() == "acl" && line.word(1) == Some(name) && asks(line.rest(2)))
                }
            })
    }

    pub(super) fn redirect(&mut self, line: &Line, words: &[String]) {
        let (said, _) = words::split_condition(words);
        match redirect(said) {
            Ok(node) => self.conditional(line, node, words),
            Err(reason) => self.leave_out(line, &reason),
        }
    }

    /// `http-request return status 200 content-type text/plain string "ok"`
    fn answer(&mut self, line: &Line, words: &[String]) {
        let (said, _) = words::split_condition(words);
        let (node, inner) = match answer(said) {
            Ok(answer) => answer,
            Err(reason) => return self.leave_out(line, &reason),
        };
        if let Some(block) = self.conditional_block(line, node, words) {
            for node in inner {
                self.conversion.outline.add(Some(block), node, line.number, &line.text);
            }
        }
    }

    fn edit(&mut self, line: &Line, is_response: bool, action: &str, words: &[String]) {
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

/// Where a rule says what it does: `tcp-request connection reject` says it third.
fn at(line: &Line) -> usize {
    if line.keyword() == "tcp-request" { 2 } else { 1 }
}

/// The rules that a rule is gone through with: those of connections have several kinds.
fn stage(line: &Line) -> Stage {
    let of_connections = line.word(1).filter(|_| line.keyword() == "tcp-request");
    (line.keyword().to_owned(), of_connections.map(str::to_owned))
}

/// `set-header Host %[req.hdr(Host),lower]`
pub(super) fn lowers_the_host(line: &Line) -> bool {
    let word = |at: usize| line.word(at).unwrap_or_default().to_ascii_lowercase();
    let is_its_own = matches!(&*word(3), "%[req.hdr(host),lower]" | "%[hdr(host),lower]");
    word(2) == "host" && is_its_own && line.words.len() == 4
}

/// What `tcp-request` calls refusing: what counts may have become a limit, whichever of them it says.
fn is_refusal(action: &str) -> bool {
    matches!(action, "reject" | "silent-drop")
}

/// What the status of a refusal stands behind.
pub(super) fn is_status(word: &str) -> bool {
    matches!(word, "deny_status" | "status")
}

/// `%[hdr(x)]` in a rule about responses.
fn about_the_response(text: &str) -> String {
    let text = text.replace("[hdr(", "[res.hdr(").replace("[fhdr(", "[res.fhdr(");
    text.replace("[cook(", "[res.cook(")
}

const EVERYBODY: &str = "a rule before it lets everybody through";

const RESPONSE: &str = "it asks what the response has: conditions here are asked about the request, and of a response its status alone, \
                        by `if-status=`";

/// The status of a `deny` that says none.
const DENIED: u64 = 403;

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

fn redirect(words: &[String]) -> Result<Node, String> {
    let nowhere = || "a redirect to nowhere".to_owned();
    let is_target = |word: &String| matches!(word.as_str(), "location" | "prefix" | "scheme");
    // Where to mostly comes first, and may come behind `code 301`.
    let at = words.iter().position(is_target).ok_or_else(nowhere)?;
    let (kind, value) = (&words[at], words.get(at + 1).ok_or_else(nowhere)?);
    let node = Node::new("redirect");
    let mut node = match regsub(value).filter(|_| kind == "location") {
        Some(matched) => {
            let (regex, location) = matched?;
            node.prop("regex", regex).prop("location", location)
        }
        None => node.prop(kind, variables(value)?),
    };
    let mut options = words[..at].iter().chain(&words[at + 2..]).map(String::as_str);
    while let Some(option) = options.next() {
        let mut value = || options.next().ok_or_else(|| format!("`{option}` of what?"));
        node = match option {
            "code" => node.number_prop("code", value()?.parse().map_err(|_| "a code that is no number")?),
            "drop-query" => node.flag("drop-query"),
            "keep-query" => node.flag("keep-query"),
            "set-cookie" => node.prop("set-cookie", value()?),
            option => return Err(format!("there is no counterpart of `{option}` of a redirect")),
        };
    }
    Ok(node)
}

/// `%[path,regsub(^/old/,/new/)]` as a whole location: an expression for the path, and where it leads. HAProxy keeps what the expression
/// has not matched, and so does a capture for what follows.
fn regsub(value: &str) -> Option<Result<(String, String), String>> {
    let inner = value.strip_prefix("%[path,regsub(")?.strip_suffix(")]")?;
    Some(matched(inner))
}

fn matched(arguments: &str) -> Result<(String, String), String> {
    let (regex, rest) = argument(arguments)?;
    let (to, flags) = argument(rest)?;
    let case = match flags {
        "" => "",
        "i" => "(?i)",
        flags => return Err(format!("`regsub` with `{flags}` has no counterpart")),
    };
    if !Shape::of(regex).begins_anchored {
        return Err("a redirect's expression is about the path from its beginning".to_owned());
    }
    let location = captures(to).replace("%{", "%%{");
    if Shape::of(regex).ends_anchored {
        return Ok((format!("{case}{regex}"), location));
    }
    let compiled = regex::bytes::Regex::new(regex).map_err(|_| "an expression in another syntax than ours")?;
    let rest = compiled.captures_len();
    Ok((format!("{case}{regex}(.*)$"), format!("{location}${{{rest}}}")))
}

/// The first of several arguments, which may stand in quotes, and those behind its comma.
fn argument(text: &str) -> Result<(&str, &str), String> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let (argument, rest) = match quote {
        Some(quote) => text[1..].split_once(quote).ok_or("a quote that is not closed")?,
        None => text.split_at(text.find(',').unwrap_or(text.len())),
    };
    Ok((argument, rest.strip_prefix(',').unwrap_or(rest)))
}

/// The node, and those in its block.
fn answer(words: &[String]) -> Result<(Node, Vec<Node>), String> {
    let mut node = Node::new("return");
    let (mut inner, mut content, mut kind) = (Vec::new(), None, None);
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("`{word}` of what?"));
        match word {
            "status" => {
                let status = value()?.parse().map_err(|_| "a status that is no number")?;
                node = node.number_prop("status", status);
            }
            "content-type" => kind = Some(value()?),
            "string" => content = Some(Node::new("body").arg(value()?.replace("%{", "%%{"))),
            "lf-string" => content = Some(Node::new("body").arg(variables(value()?)?)),
            "file" => content = Some(Node::new("file").arg(value()?)),
            "hdr" => {
                let name = value()?;
                inner.push(Node::new("header").arg(name).arg(variables(value()?)?));
            }
            word => return Err(format!("there is no counterpart of `{word}` of a `return`")),
        }
    }
    if let Some(content) = content {
        let kind = kind.into_iter();
        inner.push(kind.fold(content, |content, kind| content.prop("content-type", kind)));
    }
    Ok((node, inner))
}

fn edit(action: &str, words: &[String]) -> Result<Node, String> {
    let word = |at: usize| words.get(at).map(String::as_str).unwrap_or_default();
    Ok(match action {
        "set-header" if word(0).eq_ignore_ascii_case("host") => Node::new("set-host").arg(variables(word(1))?),
        _ if word(0).eq_ignore_ascii_case("host") => return Err("Host is set as a whole: `set-host`".to_owned()),
        "set-header" | "add-header" => Node::new(action).arg(word(0)).arg(variables(word(1))?),
        "del-header" if words.len() > 1 => return Err("`del-header` with `-m` has no counterpart".to_owned()),
        "del-header" => Node::new("delete-header").arg(word(0)),
        "set-path" | "set-query" => Node::new(action).arg(variables(word(0))?),
        "set-status" => Node::new("set-status").number(word(0).parse().map_err(|_| "a status that is no number")?),
        "replace-path" => replaced(Node::new("rewrite-path"), word(0), word(1))?,
        _ => replaced(Node::new("replace-header").arg(word(0)), word(1), word(2))?,
    })
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Polarity, captures, regsub, status};

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

    #[test]
    fn a_substitution_in_the_path_is_an_expression_for_all_of_it() {
        for (theirs, regex, location) in [
            ("%[path,regsub(^/old/,/new/)]", "^/old/(.*)$", "/new/${1}"),
            (
                r#"%[path,regsub("^/(a|b)/x","/\1$",i)]"#,
                "(?i)^/(a|b)/x(.*)$",
                "/${1}$$${2}",
            ),
            (
                r"%[path,regsub('^/old/(.*)$','https://a.example/\1')]",
                "^/old/(.*)$",
                "https://a.example/${1}",
            ),
        ] {
            let (got, leads) = regsub(theirs).unwrap().unwrap();
            assert_eq!((&*got, &*leads), (regex, location), "{theirs}");
        }
        for without in [
            "%[path,regsub(/old/,/new/)]",
            "%[path,regsub(^/a|/b,/new/)]",
            "%[path,regsub(^/a/,/b/,g)]",
            "%[path,regsub(^/a(?!b),/b/)]",
        ] {
            regsub(without).unwrap().unwrap_err();
        }
        assert_eq!(regsub("%[path]"), None);
    }
}

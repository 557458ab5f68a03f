//! `http-request`, `http-response`, `http-after-response` and `tcp-request`: which rule a line is.

use super::accepts::{Exempt, Stage, stage};
use super::edits::lowers_the_host;
use super::haproxy::Line;
use super::outline::Node;
use super::proxies::Proxy;
use super::stats;
use super::variables::variables;
use super::words::{self, Term};

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
                if !is_early && self.is_http() {
                    let message = "the client is answered, with 403; HAProxy closes its connection";
                    self.conversion.note(line.number, message);
                }
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
            ("http-request", "del-header") if self.dropped_of_others(line) => {}
            (
                "http-request",
                "set-path" | "set-query" | "set-pathq" | "set-uri" | "replace-path" | "replace-pathq" | "replace-uri",
            )
            | ("http-response", "set-status")
            | (_, "set-header" | "add-header" | "del-header" | "replace-header") => {
                self.edit(line, is_response, action, rest);
            }
            ("http-response", "return") if self.page_for_servers(line, rest) => {}
            ("http-request", "use-service") if stats::serves_metrics(line) => self.leave_out(
                line,
                "metrics have a listener of their own: /metrics of `stats { bind \"127.0.0.1:8404\" }`",
            ),
            ("http-request", "set-src") => self.set_source(line),
            ("http-request", "auth") => self.authenticate(line, rest),
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

    /// Whether a condition of a rule about responses asks for what a response has: `hdr(x)` is the response's there.
    pub(super) fn asks_the_response(&self, line: &Line, condition: &[String]) -> bool {
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
}

/// Where a rule says what it does: `tcp-request connection reject` says it third.
fn at(line: &Line) -> usize {
    if line.keyword() == "tcp-request" { 2 } else { 1 }
}

/// What the status of a refusal stands behind.
pub(super) fn is_status(word: &str) -> bool {
    matches!(word, "deny_status" | "status")
}

/// The status of a `deny` that says none.
const DENIED: u64 = 403;

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

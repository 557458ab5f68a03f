//! `cookie`, and the hashes of `balance`.

use super::haproxy::{Line, Section};
use super::outline::Node;
use super::proxies::Proxy;
use super::settings::LONGEST_TIMEOUT;
use super::words;

/// `cookie SRVID insert indirect nocache maxidle 30m domain .example.net`.
pub(super) fn cookie(proxy: &mut Proxy<'_>, line: &Line) {
    if proxy.section.kind == "defaults" {
        return proxy.leave_out(line, "each backend says its own `cookie` here");
    }
    let mut node = Node::new("cookie").arg(line.word(1).unwrap_or_default());
    let mut words = line.rest(2).iter().map(String::as_str);
    let mut notes = Vec::new();
    let mut has_domain = false;
    while let Some(word) = words.next() {
        node = match word {
            "insert" | "rewrite" | "prefix" | "indirect" | "nocache" | "postonly" | "preserve" | "httponly"
            | "secure" => node.flag(word),
            "domain" => {
                let domain = words.next().unwrap_or_default();
                if std::mem::replace(&mut has_domain, true) {
                    notes.push(format!("`domain {domain}` was left out: a cookie has one"));
                    node
                } else {
                    node.prop("domain", domain)
                }
            }
            "maxidle" => node.prop("max-idle", seconds(words.next().unwrap_or_default())),
            "maxlife" => node.prop("max-life", seconds(words.next().unwrap_or_default())),
            "attr" => {
                let attribute = words.next().unwrap_or_default();
                match attribute.split_once('=') {
                    Some((name, value)) if name.eq_ignore_ascii_case("samesite") => {
                        node.prop("samesite", value.to_ascii_lowercase())
                    }
                    _ => node.prop("attr", attribute),
                }
            }
            other => {
                notes.push(format!("`{other}` of the cookie was left out: it has no counterpart"));
                node
            }
        };
    }
    for note in notes {
        proxy.conversion.note(line.number, note);
    }
    proxy.say(line, node);
}

/// A time of a cookie: seconds, where HAProxy is told no unit.
fn seconds(text: &str) -> String {
    match text.chars().all(|c| c.is_ascii_digit()) {
        true => format!("{text}s"),
        false => text.to_owned(),
    }
}

/// `balance uri depth 2`, `balance url_param user`, `balance hdr(X-Session-Id)`. None when it is another way, or has no
/// counterpart.
pub(super) fn hash(section: &Section, way: &str, line: &Line) -> Option<Node> {
    let mut words = line.rest(2).iter().map(String::as_str);
    let node = match way {
        "uri" => {
            let mut node = Node::new("balance").arg("uri");
            while let Some(word) = words.next() {
                node = match word {
                    "whole" => node.flag("whole"),
                    // As ours always is.
                    "path-only" => node,
                    "len" => node.number_prop("length", words.next()?.parse().ok()?),
                    "depth" => node.number_prop("depth", words.next()?.parse().ok()?),
                    _ => return None,
                };
            }
            node
        }
        "url_param" => {
            let node = Node::new("balance").arg("query").prop("name", words.next()?);
            // With `check_post`, bodies would be looked into.
            words.next().is_none().then_some(node)?
        }
        way => {
            let name = way.strip_prefix("hdr(")?.strip_suffix(')')?;
            let node = Node::new("balance").arg("header").prop("name", name);
            words.next().is_none().then_some(node)?
        }
    };
    Some(match is_consistent(section) {
        true => node.flag("consistent"),
        false => node,
    })
}

/// `stick on src`, with the `stick-table` that stands beside it. False when it has no counterpart.
pub(super) fn stick(proxy: &mut Proxy<'_>, line: &Line) -> bool {
    let section = proxy.section;
    let table = section.lines.iter().find(|line| line.keyword() == "stick-table");
    let (Some(table), Some("on"), [pattern]) = (table, line.word(1), line.rest(2)) else {
        return false;
    };
    let inside = |start: &str| pattern.strip_prefix(start)?.strip_suffix(')');
    let mut node = Node::new("stick");
    if pattern == "src" {
        node = node.arg("client-ip");
    } else if let Some(name) = inside("hdr(").or_else(|| inside("req.hdr(")) {
        node = node.arg("header").prop("name", name);
    } else if let Some(name) = inside("req.cook(").or_else(|| inside("cookie(")) {
        node = node.arg("cookie").prop("name", name);
    } else if let Some(name) = inside("url_param(").or_else(|| inside("urlp(")) {
        node = node.arg("query").prop("name", name);
    } else {
        return false;
    }
    let value = |key: &str| {
        let mut words = table.words.iter().skip_while(|word| *word != key);
        words.nth(1)
    };
    node = match value("expire") {
        Some(expire) => node.prop("expire", words::duration(expire)),
        None => {
            let message = format!(
                "the table says no `expire`: who is at which server is known for {LONGEST_TIMEOUT}, the longest here"
            );
            proxy.conversion.note(table.number, message);
            node.prop("expire", LONGEST_TIMEOUT)
        }
    };
    if let Some(peers) = value("peers") {
        let message = format!("`peers {peers}` was left out: who is at which server is told to no other process");
        proxy.conversion.note(table.number, message);
    }
    if let Some(size) = value("size").and_then(|size| entries(size)) {
        node = node.number_prop("size", size);
    }
    proxy.say(line, node);
    true
}

/// `200k`.
fn entries(size: &str) -> Option<u64> {
    let (digits, factor) = match size.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1024),
        None => match size.strip_suffix(['m', 'M']) {
            Some(digits) => (digits, 1024 * 1024),
            None => (size, 1),
        },
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Whether `hash-type` says so.
pub(super) fn is_consistent(section: &Section) -> bool {
    let hash = section.lines.iter().find(|line| line.keyword() == "hash-type");
    hash.and_then(|line| line.word(1)) == Some("consistent")
}

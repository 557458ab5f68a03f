//! `option httpchk` and `http-check`: what a check asks a server, and what it expects.

use super::checks::{ONE_CONNECTION, expectation, is_step};
use super::haproxy::Line;
use super::options::Options;
use super::outline::Node;
use super::proxies::{self, Proxy};
use super::texts::Text;

/// Says in the block of a check what HAProxy says in its lines.
pub(super) fn http_check(proxy: &mut Proxy<'_>, check: usize, option: &Line) {
    let section = proxy.section;
    let all = || section.lines.iter().filter(|line| line.keyword() == "http-check");
    // What follows a further connection is not for this one.
    let is_connect = |line: &&Line| line.word(1) == Some("connect");
    let begins = usize::from(all().find(|line| is_step(line)).is_some_and(|line| is_connect(&line)));
    let further = all().filter(is_connect).nth(begins).map(|line| line.number);
    let rules = || all().filter(move |line| further.is_none_or(|further| line.number < further));
    let send = rules().find(|line| line.word(1) == Some("send"));
    let (method, uri, version) = match option.rest(2) {
        [] => (None, None, String::new()),
        [uri] => (None, Some(uri.as_str()), String::new()),
        [method, uri, version @ ..] => (Some(method.as_str()), Some(uri.as_str()), version.join(" ")),
    };
    // Headers stood behind the version before there was `http-check send`.
    let mut headers: Vec<(usize, String, String)> = Vec::new();
    for header in version.split("\r\n").skip(1).filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once(':').unwrap_or((header, ""));
        headers.push((option.number, name.trim().to_owned(), value.trim().to_owned()));
    }
    let line = send.unwrap_or(option);
    let said = Options::of(send.map_or(&[][..], |send| send.rest(2)));
    let mut body = None;
    let mut words = send.map_or(&[][..], |send| send.rest(2)).iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "hdr" => {
                let (name, value) = (words.next().cloned(), words.next().cloned());
                headers.push((line.number, name.unwrap_or_default(), value.unwrap_or_default()));
            }
            "meth" | "uri" | "ver" => drop(words.next()),
            "body" => body = words.next(),
            other => {
                let message = format!(
                    "`{other} {}` of the check was left out",
                    words.next().map_or("", |word| word)
                );
                proxy.conversion.note(line.number, message);
            }
        }
    }
    let method = said.value("meth").or(method).unwrap_or("OPTIONS");
    let uri = said.value("uri").or(uri).unwrap_or("/");
    let mut node = Node::new("send").arg(method).arg(uri);
    // HAProxy's checks speak HTTP/1.0 unless told otherwise.
    let version = said.value("ver").or(version.split("\r\n").next()).unwrap_or_default();
    if let "" | "HTTP/1.0" = version {
        node = node.prop("version", "1.0");
    }
    let mut fields = Vec::new();
    let mut has_host = false;
    for (number, name, value) in headers {
        if name.eq_ignore_ascii_case("host") && !has_host {
            has_host = true;
            node = node.prop("host", value);
        } else if value.contains("%[") {
            let message = format!("the check's header `{name}: {value}` was left out: a check's values are fixed");
            proxy.conversion.note(number, message);
        } else if !name.eq_ignore_ascii_case("connection") {
            fields.push((number, Node::new("header").arg(name).arg(value)));
        }
    }
    fields.extend(body.map(|body| (line.number, Node::new("body").arg(body))));
    let outline = &mut proxy.conversion.outline;
    let send = outline.add(Some(check), node, line.number, &line.text);
    for (number, field) in fields {
        outline.add(Some(send), field, number, &line.text);
    }
    if let Some(line) = all().find(|line| line.word(1) == Some("disable-on-404")) {
        let node = Node::new("drain").number_prop("status", 404);
        proxy.conversion.outline.add(Some(check), node, line.number, &line.text);
    }
    // What is said of connections is said of the check, and a comment is the log's.
    let is_said = |line: &&Line| {
        let said = ["send", "expect", "connect", "comment", "disable-on-404"];
        line.word(1).is_some_and(|word| said.contains(&word))
    };
    // What is no step is said of the whole check, wherever it stands.
    let is_here = |line: &Line| !is_step(line) || further.is_none_or(|further| line.number < further);
    for line in all().filter(|line| !is_said(line) && is_here(line)) {
        proxies::leave_out(proxy.conversion, check, line, "there is no such step in a check");
    }
    for line in rules().filter(|line| line.word(1) == Some("send")).skip(1) {
        proxies::leave_out(proxy.conversion, check, line, "there is one request in a check");
    }
    for line in all().filter(|line| further.is_some_and(|further| line.number >= further) && is_step(line)) {
        proxies::leave_out(proxy.conversion, check, line, ONE_CONNECTION);
    }
    for line in rules().filter(|line| line.word(1) == Some("expect")) {
        let (not, words) = expectation(line);
        let expect = if not {
            Node::new("expect").flag("not")
        } else {
            Node::new("expect")
        };
        let node = match words {
            [what, status] if what == "status" => expect.prop("status", status),
            [what, text @ ..] if what == "string" && !text.is_empty() => expect.prop("body-contains", text.join(" ")),
            [what, text @ ..] if what == "rstring" && !text.is_empty() => expect.prop("body-regex", text.join(" ")),
            [what, expression] if what == "rstatus" => match statuses(expression) {
                Some(statuses) => expect.prop("status", statuses),
                None => {
                    proxies::leave_out(proxy.conversion, check, line, "no status matches this here");
                    continue;
                }
            },
            [what, key, name] if is_of_header(what) && key == "name" => expect.prop("header", name),
            [what, key, name, value, test @ ..]
                if is_of_header(what) && key == "name" && value == "value" && !test.is_empty() =>
            {
                match of_value(expect.prop("header", name), what, test) {
                    Ok(node) => node,
                    Err(reason) => {
                        proxies::leave_out(proxy.conversion, check, line, &reason);
                        continue;
                    }
                }
            }
            _ => {
                proxies::leave_out(proxy.conversion, check, line, "there is no such expectation");
                continue;
            }
        };
        proxy.conversion.outline.add(Some(check), node, line.number, &line.text);
    }
}

fn is_of_header(what: &str) -> bool {
    matches!(what, "hdr" | "fhdr")
}

/// What is expected of a header's value, `[-m <how>] <text>`. `hdr` asks what stands between its commas, `fhdr` the whole.
fn of_value(expect: Node, what: &str, test: &[String]) -> Result<Node, String> {
    let (how, text) = match test {
        [text] => ("str", text),
        [flag, how, text] if flag == "-m" => (how.as_str(), text),
        _ => return Err("there is no such expectation".to_owned()),
    };
    let has_items = what == "hdr";
    let key = match how {
        "str" if !has_items => "value",
        "beg" if !has_items => "prefix",
        "sub" => "contains",
        _ => {
            let asked = Text {
                how,
                ignores_case: false,
                has_items,
                values: &[],
            };
            return Ok(expect.prop("regex", asked.pattern(text)?));
        }
    };
    Ok(expect.prop(key, text))
}

/// The statuses that an expression matches, as `200-299,304`. None where there are none, or where it is in another syntax than ours.
fn statuses(expression: &str) -> Option<String> {
    let expression = regex::bytes::Regex::new(expression).ok()?;
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for status in (100..=599).filter(|status: &u16| expression.is_match(status.to_string().as_bytes())) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == status => *last = status,
            _ => ranges.push((status, status)),
        }
    }
    let said = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    let said: Vec<_> = said.collect();
    (!said.is_empty()).then(|| said.join(","))
}

//! Health checks: of servers' options, and of the rules of `option httpchk` and `option tcp-check`.

use super::haproxy::{Line, Section};
use super::options::{Options, default_server};
use super::outline::Node;
use super::proxies::Proxy;
use super::texts::Text;
use super::{protocols, tls, words};

/// What a line says of checks: the way that they take, its steps or expectations, or their time. None where it is of something else.
pub(super) fn part(line: &Line) -> Option<&'static str> {
    let is_way = |word: Option<&str>| {
        word.is_some_and(|word| matches!(word, "httpchk" | "tcp-check") || protocols::is_option(word))
    };
    match (line.keyword(), line.word(1)) {
        ("option", word) if is_way(word) => Some("option"),
        ("no", Some("option")) if is_way(line.word(2)) => Some("option"),
        ("http-check", _) => Some("http-check"),
        ("tcp-check", _) => Some("tcp-check"),
        ("timeout", Some("check")) => Some("timeout"),
        _ => None,
    }
}

/// Adds what `defaults` say of checks and these lines do not: each part of it as a whole, as HAProxy does.
pub(super) fn inherit(lines: &mut Vec<Line>, inherited: &[Line]) {
    let said: Vec<&str> = lines.iter().filter_map(part).collect();
    let is_new = |line: &&Line| part(line).is_some_and(|part| !said.contains(&part));
    lines.extend(inherited.iter().filter(is_new).cloned());
}

/// Whether servers of a section are checked.
pub(super) fn are_wanted(section: &Section) -> bool {
    section.lines.iter().any(|line| {
        let is_of_servers = matches!(line.keyword(), "server" | "server-template" | "default-server");
        is_of_servers && line.words.iter().any(|word| word == "check")
    })
}

/// The backend's check, from its servers' options and its rules. What differs from server to server cannot be carried over.
pub(super) fn check(proxy: &mut Proxy<'_>) {
    let section = proxy.section;
    let defaults = default_server(section);
    let servers: Vec<(&Line, Options<'_>)> = section
        .lines
        .iter()
        .filter(|line| matches!(line.keyword(), "server" | "server-template"))
        .map(|line| {
            let from = if line.keyword() == "server" { 3 } else { 4 };
            (line, Options::of(line.rest(from)).over(&defaults))
        })
        .collect();
    if let Some((line, options)) = servers.iter().find(|(_, options)| options.has("agent-check")) {
        agent_check(proxy, line, options);
        for (other, _) in servers.iter().filter(|(_, its)| !its.has("agent-check")) {
            proxy
                .conversion
                .note(other.number, "agents are the backend's here: this server gets one, too");
        }
    }
    if let Some((line, options)) = servers.iter().find(|(_, options)| options.has("observe")) {
        observe(proxy, line, options);
    }
    // Of several options HAProxy obeys the last.
    let kind = section.lines.iter().rfind(|line| is_kind(line));
    let protocol = kind.filter(|line| line.word(1).is_some_and(protocols::is_option));
    let Some((line, options)) = servers.iter().find(|(_, options)| options.has("check")) else {
        if let Some(option) = protocol {
            proxy.leave_out(option, "no server says `check`");
        }
        return;
    };
    for (other, its) in &servers {
        let differs = CHECK_OPTIONS.iter().any(|key| its.value(key) != options.value(key))
            || CHECK_FLAGS.iter().any(|key| its.has(key) != options.has(key));
        if differs || its.has("check") != options.has("check") {
            let message = "checks are the backend's here: this server's are taken to be as the first one's";
            proxy.conversion.note(other.number, message);
        }
    }
    let find = |words: &[&str]| {
        section
            .lines
            .iter()
            .find(|line| words.iter().eq(line.words.iter().take(words.len())))
    };
    let http = kind.filter(|line| line.word(1) == Some("httpchk"));
    let connect = match (http, protocol) {
        (None, Some(_)) => Options::default(),
        (http, _) => connect(proxy, if http.is_some() { "http-check" } else { "tcp-check" }),
    };
    let mut node = Node::new("check").arg(if http.is_some() { "http" } else { "tcp" });
    for (haproxys, ours) in [
        ("inter", "interval"),
        ("fastinter", "fast-interval"),
        ("downinter", "down-interval"),
    ] {
        if let Some(time) = options.value(haproxys) {
            node = node.prop(ours, words::duration(time));
        }
    }
    if let Some(time) = find(&["timeout", "check"]).and_then(|line| line.word(2)) {
        node = node.prop("timeout", words::duration(time));
    }
    for key in ["rise", "fall", "port"] {
        let value = connect.value(key).or_else(|| options.value(key));
        if let Some(number) = value.and_then(|value| value.parse().ok()) {
            node = node.number_prop(key, number);
        }
    }
    let address = connect.value("addr").or_else(|| options.value("addr"));
    if let Some(address) = address {
        node = node.prop("address", address);
    }
    let goes_elsewhere = address.is_some() || connect.has("port") || options.has("port");
    let speaks_tls = connect.has("ssl") || options.has("check-ssl");
    let sends_proxy = connect.has("send-proxy") || options.has("check-send-proxy");
    // Elsewhere plainly, unless it is said: the server's own TLS, and its PROXY header.
    if goes_elsewhere && ((speaks_tls && options.has("ssl")) || sends_proxy) {
        node = node.flag("as-traffic");
    }
    let check = proxy.say(line, node);
    match (http, protocol) {
        (Some(http), _) => http_check(proxy, check, http),
        (None, Some(option)) => {
            let (steps, note) = protocols::steps(option);
            for step in steps {
                proxy
                    .conversion
                    .outline
                    .add(Some(check), step, option.number, &option.text);
            }
            if let Some(note) = note {
                proxy.conversion.note(option.number, note);
            }
        }
        (None, None) => tcp_check(proxy, check),
    }
    // With `ssl`, it is spoken to as traffic does.
    if speaks_tls && !options.has("ssl") {
        tls::of_check(proxy, check, http.is_some(), &connect, options, line);
    }
}

/// Whether an option says what kind of check there is.
fn is_kind(line: &Line) -> bool {
    let is_one = |word: &str| matches!(word, "httpchk" | "tcp-check") || protocols::is_option(word);
    line.keyword() == "option" && line.word(1).is_some_and(is_one)
}

/// Whether the checks of a section say themselves that they begin with TLS.
pub(super) fn connects_in_tls(section: &Section) -> bool {
    let mut lines = section.lines.iter();
    lines.any(|line| is_rule(line, "connect") && line.rest(2).iter().any(|word| word == "ssl"))
}

fn is_rule(line: &Line, what: &str) -> bool {
    matches!(line.keyword(), "http-check" | "tcp-check") && line.word(1) == Some(what)
}

/// `tcp-check connect port 143 ssl`: what is said of a check's connection. There is one a check.
fn connect<'a>(proxy: &mut Proxy<'a>, keyword: &str) -> Options<'a> {
    let section = proxy.section;
    let of_check = |line: &&Line| line.keyword() == keyword && is_step(line);
    let mut rules = section.lines.iter().filter(of_check);
    let is_connect = |line: &&Line| line.word(1) == Some("connect");
    // What comes before it is said over a connection of its own.
    let line = rules.next().filter(is_connect);
    let Some(line) = line else {
        return Options::default();
    };
    let options = Options::of(line.rest(2));
    let others = options.others(&["addr", "alpn", "comment", "default", "port", "send-proxy", "sni", "ssl"]);
    for (name, value) in others {
        let value = value.map(|value| format!(" {value}")).unwrap_or_default();
        let message = format!("`{name}{value}` of the check's connection was left out: it has no counterpart");
        proxy.conversion.note(line.number, message);
    }
    options
}

fn agent_check(proxy: &mut Proxy<'_>, line: &Line, options: &Options<'_>) {
    let mut node = Node::new("agent-check");
    if let Some(port) = options.value("agent-port").and_then(|port| port.parse().ok()) {
        node = node.number_prop("port", port);
    }
    if let Some(address) = options.value("agent-addr") {
        node = node.prop("address", address);
    }
    if let Some(time) = options.value("agent-inter").or_else(|| options.value("inter")) {
        node = node.prop("interval", words::duration(time));
    }
    if let Some(text) = options.value("agent-send") {
        node = node.prop("send", text);
    }
    proxy.say(line, node);
}

fn observe(proxy: &mut Proxy<'_>, line: &Line, options: &Options<'_>) {
    let what = match options.value("observe") {
        Some("layer7") => "response",
        _ => "connect",
    };
    let mut node = Node::new("observe").arg(what);
    if let Some(limit) = options.value("error-limit").and_then(|limit| limit.parse().ok()) {
        node = node.number_prop("error-limit", limit);
    }
    if let Some(action) = options.value("on-error") {
        node = node.prop("on-error", if action == "fastinter" { "fast-check" } else { action });
    }
    proxy.say(line, node);
}

fn http_check(proxy: &mut Proxy<'_>, check: usize, option: &Line) {
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
        super::proxies::leave_out(proxy.conversion, check, line, "there is no such step in a check");
    }
    for line in rules().filter(|line| line.word(1) == Some("send")).skip(1) {
        super::proxies::leave_out(proxy.conversion, check, line, "there is one request in a check");
    }
    for line in all().filter(|line| further.is_some_and(|further| line.number >= further) && is_step(line)) {
        super::proxies::leave_out(proxy.conversion, check, line, ONE_CONNECTION);
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
                    super::proxies::leave_out(proxy.conversion, check, line, "no status matches this here");
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
                        super::proxies::leave_out(proxy.conversion, check, line, &reason);
                        continue;
                    }
                }
            }
            _ => {
                super::proxies::leave_out(proxy.conversion, check, line, "there is no such expectation");
                continue;
            }
        };
        proxy.conversion.outline.add(Some(check), node, line.number, &line.text);
    }
}

/// Whether a line of a check is one of its steps. A comment is the log's.
fn is_step(line: &Line) -> bool {
    !matches!(line.word(1), Some("comment" | "disable-on-404" | "send-state"))
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

/// What an `expect` looks for, without what says how its result is told; and whether it must not be there.
fn expectation(line: &Line) -> (bool, &[String]) {
    let mut words = line.rest(2);
    while let [key, _, rest @ ..] = words
        && TOLD.contains(&key.as_str())
    {
        words = rest;
    }
    match words {
        [not, rest @ ..] if not == "!" => (true, rest),
        words => (false, words),
    }
}

/// What stands before an expectation and is about how its result is told, each with a value. `min-recv` is not needed: what
/// has come is looked at again when there is more.
const TOLD: [&str; 8] = [
    "comment",
    "error-status",
    "min-recv",
    "ok-status",
    "on-error",
    "on-success",
    "status-code",
    "tout-status",
];

const ONE_CONNECTION: &str = "a check has one connection: this is of a further one";

fn tcp_check(proxy: &mut Proxy<'_>, check: usize) {
    let section = proxy.section;
    let mut steps: Vec<(&Line, Result<Node, &str>)> = Vec::new();
    let mut connections = 0;
    for line in section.lines.iter().filter(|line| line.keyword() == "tcp-check") {
        let step = match (line.word(1), line.word(2)) {
            (Some("comment"), _) => continue,
            (Some("connect"), _) => {
                connections += 1;
                // The first is said of the check, but for one behind other steps.
                if connections == 1 && steps.is_empty() {
                    continue;
                }
                connections = 2;
                None
            }
            // Behind the text comes nothing but a comment.
            (Some("send"), Some(text)) => Some(Node::new("send").arg(text)),
            (Some("send-binary"), Some(hex)) => Some(Node::new("send").prop("hex", hex)),
            (Some("expect"), Some(_)) => match expectation(line) {
                (false, [what, text @ ..]) if !text.is_empty() => {
                    let how = match what.as_str() {
                        "string" => Some("contains"),
                        "rstring" => Some("regex"),
                        "binary" => Some("contains-hex"),
                        _ => None,
                    };
                    how.map(|how| Node::new("expect").prop(how, text.join(" ")))
                }
                _ => None,
            },
            _ => None,
        };
        let step = match step {
            // What would be sent to another port, or over another connection, is not for this one.
            _ if connections > 1 => Err(ONE_CONNECTION),
            step => step.ok_or("there is no such step in a check"),
        };
        steps.push((line, step));
    }
    for (line, step) in steps {
        match step {
            Ok(step) => {
                proxy.conversion.outline.add(Some(check), step, line.number, &line.text);
            }
            Err(reason) => super::proxies::leave_out(proxy.conversion, check, line, reason),
        }
    }
}

/// Options of a server that say how it is checked.
pub(super) const CHECK_OPTIONS: [&str; 7] = ["inter", "fastinter", "downinter", "rise", "fall", "port", "addr"];

/// The same of what has no value.
const CHECK_FLAGS: [&str; 2] = ["check-send-proxy", "check-ssl"];

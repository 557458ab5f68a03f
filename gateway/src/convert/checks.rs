//! Health checks: of servers' options, and of the rules of `option httpchk` and `option tcp-check`.

use super::haproxy::{Line, Section};
use super::options::{Options, default_server};
use super::outline::Node;
use super::proxies::Proxy;
use super::{http_check, protocols, tls, words};

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
        (Some(http), _) => http_check::http_check(proxy, check, http),
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

/// Whether a line of a check is one of its steps. A comment is the log's.
pub(super) fn is_step(line: &Line) -> bool {
    !matches!(line.word(1), Some("comment" | "disable-on-404" | "send-state"))
}

/// What an `expect` looks for, without what says how its result is told; and whether it must not be there.
pub(super) fn expectation(line: &Line) -> (bool, &[String]) {
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

pub(super) const ONE_CONNECTION: &str = "a check has one connection: this is of a further one";

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

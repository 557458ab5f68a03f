//! Health checks: of servers' options, and of the rules of `option httpchk` and `option tcp-check`.

use super::haproxy::Line;
use super::options::{Options, default_server};
use super::outline::Node;
use super::proxies::Proxy;
use super::{protocols, tls, words};

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
    let protocol = protocols::option(section);
    let Some((line, options)) = servers.iter().find(|(_, options)| options.has("check")) else {
        if let Some(option) = protocol {
            proxy.leave_out(option, "no server says `check`");
        }
        return;
    };
    for (other, its) in &servers {
        let differs = CHECK_OPTIONS.iter().any(|key| its.value(key) != options.value(key));
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
    let http = find(&["option", "httpchk"]);
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
        if let Some(number) = options.value(key).and_then(|value| value.parse().ok()) {
            node = node.number_prop(key, number);
        }
    }
    if let Some(address) = options.value("addr") {
        node = node.prop("address", address);
    }
    let goes_elsewhere = options.has("port") || options.has("addr");
    if goes_elsewhere && (options.has("check-ssl") || options.has("check-send-proxy")) {
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
    if options.has("check-ssl") && !options.has("ssl") {
        tls::of_check(proxy, check, http.is_some(), options, line);
    }
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
    let rules = || section.lines.iter().filter(|line| line.keyword() == "http-check");
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
    for line in rules().filter(|line| line.word(1) == Some("expect")) {
        let (not, from) = if line.word(2) == Some("!") {
            (true, 3)
        } else {
            (false, 2)
        };
        let expect = if not {
            Node::new("expect").flag("not")
        } else {
            Node::new("expect")
        };
        let node = match line.rest(from) {
            [what, status] if what == "status" => expect.prop("status", status),
            [what, text @ ..] if what == "string" && !text.is_empty() => expect.prop("body-contains", text.join(" ")),
            [what, text @ ..] if what == "rstring" && !text.is_empty() => expect.prop("body-regex", text.join(" ")),
            [what, key, name] if what == "hdr" && key == "name" => expect.prop("header", name),
            [what, key, name, value, text] if what == "hdr" && key == "name" && value == "value" => {
                expect.prop("header", name).prop("value", text)
            }
            [what, key, name, flag, way, value, text]
                if what == "hdr" && key == "name" && flag == "-m" && value == "value" && header_test(way).is_some() =>
            {
                let test = header_test(way).unwrap_or("value");
                expect.prop("header", name).prop(test, text)
            }
            _ => {
                super::proxies::leave_out(proxy.conversion, check, line, "there is no such expectation");
                continue;
            }
        };
        proxy.conversion.outline.add(Some(check), node, line.number, &line.text);
    }
}

/// What `-m beg` is called.
fn header_test(way: &str) -> Option<&'static str> {
    Some(match way {
        "str" => "value",
        "beg" => "prefix",
        "sub" => "contains",
        "reg" => "regex",
        _ => return None,
    })
}

fn tcp_check(proxy: &mut Proxy<'_>, check: usize) {
    let section = proxy.section;
    for line in section.lines.iter().filter(|line| line.keyword() == "tcp-check") {
        let rest = |from: usize| line.rest(from).join(" ");
        let node = match (line.word(1), line.word(2)) {
            (Some("connect"), None) => continue,
            (Some("send"), Some(_)) => Node::new("send").arg(rest(2)),
            (Some("send-binary"), Some(hex)) => Node::new("send").prop("hex", hex),
            (Some("expect"), Some("string")) => Node::new("expect").prop("contains", rest(3)),
            (Some("expect"), Some("rstring")) => Node::new("expect").prop("regex", rest(3)),
            (Some("expect"), Some("binary")) => Node::new("expect").prop("contains-hex", rest(3)),
            _ => {
                super::proxies::leave_out(proxy.conversion, check, line, "there is no such step in a check");
                continue;
            }
        };
        proxy.conversion.outline.add(Some(check), node, line.number, &line.text);
    }
}

/// Options of a server that say how it is checked.
pub(super) const CHECK_OPTIONS: [&str; 7] = ["inter", "fastinter", "downinter", "rise", "fall", "port", "addr"];

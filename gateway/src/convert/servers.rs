//! `bind`, `server`, `balance`, and the checks, which HAProxy spreads over options, rules and servers.

use super::haproxy::{Line, Section};
use super::outline::Node;
use super::proxies::Proxy;
use super::{persistence, tls, words};

/// `bind ADDRESS ssl crt FILE alpn h2,http/1.1 accept-proxy`.
pub(super) fn bind(proxy: &mut Proxy<'_>, line: &Line) {
    for address in words::addresses(line.word(1).unwrap_or_default()) {
        let options = Options::of(line.rest(2));
        let node = Node::new("bind").arg(address);
        let node = match options.has("accept-proxy") {
            true => node.flag("accept-proxy"),
            false => node,
        };
        let bind = proxy.say(line, node);
        match options.has("ssl") {
            true => tls::of_bind(proxy, bind, &options, line),
            false => tls::report_without_tls(proxy, "bind", &options, line),
        }
        tls::report_lists(proxy, &options, line);
        let known = [&KNOWN_BIND_OPTIONS[..], &tls::BIND_OPTIONS, &tls::SILENT].concat();
        let others = options.others(&known).filter(|option| *option != HTTP2);
        report(proxy, line, "bind", others, NO_COUNTERPART);
    }
}

/// `balance leastconn`, with `hash-type` where that matters.
pub(super) fn balance(section: &Section, way: &str, line: &Line) -> Node {
    if let Some(node) = persistence::hash(section, way, line) {
        return node;
    }
    let is_consistent = persistence::is_consistent(section);
    let way = match way {
        "static-rr" => "roundrobin",
        way if way.starts_with("random") => "random",
        way => way,
    };
    let node = Node::new("balance").arg(way);
    // What a hash of something else takes is said with it, and refused where there is no such thing.
    let node = match way {
        "source" | "roundrobin" | "leastconn" | "random" | "first" => node,
        _ => line.rest(2).iter().fold(node, Node::arg),
    };
    if way == "source" && is_consistent {
        node.flag("consistent")
    } else {
        node
    }
}

/// `server NAME ADDRESS OPTIONS`, and `server-template PREFIX COUNT NAME OPTIONS`.
pub(super) fn server(proxy: &mut Proxy<'_>, line: &Line) {
    let is_template = line.keyword() == "server-template";
    let (address, from) = if is_template {
        (line.word(3), 4)
    } else {
        (line.word(2), 3)
    };
    let defaults = default_server(proxy.section);
    let options = Options::of(line.rest(from)).over(&defaults);
    if options.has("disabled") {
        return proxy.leave_out(
            line,
            "servers are taken out of service by the admin socket, not from the start",
        );
    }
    let mut node = Node::new(line.keyword()).arg(line.word(1).unwrap_or_default());
    if is_template {
        let count = line.word(2).unwrap_or_default();
        let count = count.rsplit_once('-').map_or(count, |(_, last)| last);
        node = count
            .parse()
            .into_iter()
            .fold(node, |node, count| node.number_prop("count", count));
    }
    let address = words::addresses(address.unwrap_or_default());
    node = node.arg(address.first().map_or("", String::as_str));
    for (haproxys, ours) in [
        ("weight", "weight"),
        ("maxconn", "max-connections"),
        ("maxqueue", "max-queue"),
    ] {
        if let Some(number) = options.value(haproxys).and_then(|value| value.parse().ok()) {
            node = node.number_prop(ours, number);
        }
    }
    if let Some(time) = options.value("slowstart") {
        node = node.prop("slow-start", words::duration(time));
    }
    if let Some(version) = options.send_proxy() {
        node = node.prop("send-proxy", version);
        if options
            .value("proxy-v2-options")
            .is_some_and(|list| list.split(',').any(|one| one == "crc32c"))
        {
            node = node.flag("proxy-crc32c");
        }
    }
    if let Some(action) = options.value("on-marked-down") {
        node = node.prop("on-marked-down", action);
    }
    if let Some(value) = options.value("cookie") {
        node = node.prop("cookie", value);
    }
    if options.has("backup") {
        node = node.flag("backup");
    }
    let is_http = proxy
        .section
        .lines
        .iter()
        .any(|line| line.keyword() == "mode" && line.word(1) == Some("http"));
    // In HTTP mode the protocol is the server's, and not to be agreed on.
    let alpn = options.value("alpn").filter(|_| options.has("ssl"));
    let http2 = is_http && (options.value("proto") == Some("h2") || alpn == Some("h2"));
    if http2 {
        node = node.flag("h2");
    }
    let server = proxy.say(line, node);
    match options.has("ssl") {
        true => tls::of_server(proxy, server, (is_http, http2), &options, line),
        false => tls::report_without_tls(proxy, "server", &options, line),
    }
    if let Some(proto) = options.value("proto").filter(|_| !http2) {
        let message = format!("`proto {proto}` of the server was left out: it has no counterpart");
        proxy.conversion.note(line.number, message);
    }
    if options.send_proxy().is_none() {
        let names = options.named(&["check-send-proxy", "proxy-v2-options"]);
        report(proxy, line, "server", names, "it does nothing without `send-proxy`");
    }
    let is_number = |value: &str| value.parse::<u64>().is_ok();
    let numbers = options.named(&["weight", "maxconn", "maxqueue", "rise", "fall", "port"]);
    let wrong = numbers.filter(|(_, value)| !value.is_some_and(is_number));
    report(proxy, line, "server", wrong, "it is no number");
    if !options.has("check") {
        report(
            proxy,
            line,
            "server",
            options.named(&CHECK_OPTIONS),
            "the server has no check",
        );
    }
    // They are said of the check.
    let has_own_tls = options.has("check-ssl") && !options.has("ssl");
    let of_check: &[&str] = if has_own_tls { &["check-sni", "check-alpn"] } else { &[] };
    report(
        proxy,
        line,
        "server",
        options.others(&[&KNOWN_OPTIONS[..], &tls::SERVER_OPTIONS, &tls::SILENT, of_check].concat()),
        NO_COUNTERPART,
    );
}

/// Says of options that they were left out.
pub(super) fn report<'a>(
    proxy: &mut Proxy<'_>,
    line: &Line,
    whose: &str,
    options: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    reason: &str,
) {
    for (name, value) in options {
        let option = value.map_or_else(|| name.to_owned(), |value| format!("{name} {value}"));
        let message = format!("`{option}` of the {whose} was left out: {reason}");
        proxy.conversion.note(line.number, message);
    }
}

const NO_COUNTERPART: &str = "it has no counterpart";

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
    let Some((line, options)) = servers.iter().find(|(_, options)| options.has("check")) else {
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
    match http {
        Some(http) => http_check(proxy, check, http),
        None => tcp_check(proxy, check),
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

/// The options of all `default-server` lines.
fn default_server(section: &Section) -> Options<'_> {
    let lines = section.lines.iter().filter(|line| line.keyword() == "default-server");
    Options(lines.flat_map(|line| Options::of(line.rest(1)).0).collect())
}

/// Words after a server or bind: flags, and keys with a value.
#[derive(Debug, Clone, Default)]
pub(super) struct Options<'a>(Vec<(&'a str, Option<&'a str>)>);

impl<'a> Options<'a> {
    fn of(words: &'a [String]) -> Self {
        let mut options = Vec::new();
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let value = if WITH_VALUE.contains(&word) { words.next() } else { None };
            options.push((word, value));
        }
        Self(options)
    }

    /// With those of `defaults` behind its own.
    fn over(mut self, defaults: &Self) -> Self {
        self.0.extend(defaults.0.iter().copied());
        self
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == key)
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find(|(known, _)| *known == key)
            .and_then(|(_, value)| *value)
    }

    fn send_proxy(&self) -> Option<&'static str> {
        if self.has("send-proxy-v2") || self.has("send-proxy-v2-ssl") || self.has("send-proxy-v2-ssl-cn") {
            Some("v2")
        } else {
            self.has("send-proxy").then_some("v1")
        }
    }

    /// All values of an option, in their order.
    pub(super) fn values(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(known, _)| *known == key)
            .filter_map(|(_, value)| *value)
    }

    /// The options of these names.
    pub(super) fn named(&self, names: &[&str]) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        let options = self.0.iter().filter(|(name, _)| names.contains(name));
        options.copied().collect::<Vec<_>>().into_iter()
    }

    /// The options of none of these names.
    fn others(&self, known: &[&str]) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        let options = self.0.iter().filter(|(name, _)| !known.contains(name));
        options.copied().collect::<Vec<_>>().into_iter()
    }
}

/// Options that a value follows.
const WITH_VALUE: [&str; 83] = [
    "addr",
    "agent-addr",
    "agent-inter",
    "agent-port",
    "agent-send",
    "alpn",
    "backlog",
    "ca-file",
    "ca-ignore-err",
    "ca-sign-file",
    "ca-verify-file",
    "check-alpn",
    "check-proto",
    "check-sni",
    "check-via-socks4-port",
    "ciphers",
    "ciphersuites",
    "cookie",
    "crl-file",
    "crt",
    "crt-ignore-err",
    "crt-list",
    "curves",
    "downinter",
    "ecdhe",
    "error-limit",
    "fall",
    "fastinter",
    "gid",
    "group",
    "id",
    "init-addr",
    "inter",
    "interface",
    "level",
    "log-proto",
    "maxconn",
    "maxqueue",
    "meth",
    "mode",
    "mss",
    "name",
    "namespace",
    "nice",
    "npn",
    "observe",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "port",
    "process",
    "proto",
    "proxy-v2-options",
    "redir",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "resolvers",
    "rise",
    "severity-output",
    "shard",
    "slowstart",
    "sni",
    "socks4",
    "source",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-ut",
    "thread",
    "tls-ticket-keys",
    "track",
    "uid",
    "uri",
    "user",
    "usesrc",
    "ver",
    "verify",
    "verifyhost",
    "weight",
    "ws",
];

/// Options of a server that say how it is checked.
const CHECK_OPTIONS: [&str; 7] = ["inter", "fastinter", "downinter", "rise", "fall", "port", "addr"];

/// Options of a bind that are carried over.
const KNOWN_BIND_OPTIONS: [&str; 3] = ["accept-proxy", "crt-list", "ssl"];

/// A client that begins with HTTP/2 gets it on every plain bind.
const HTTP2: (&str, Option<&str>) = ("proto", Some("h2"));

/// Options of a server that are carried over, or are the check's.
const KNOWN_OPTIONS: [&str; 33] = [
    "addr",
    "agent-addr",
    "agent-check",
    "agent-inter",
    "agent-port",
    "agent-send",
    "backup",
    "check",
    "check-send-proxy",
    "cookie",
    "downinter",
    "error-limit",
    "fall",
    "fastinter",
    "init-addr",
    "inter",
    "maxconn",
    "maxqueue",
    "observe",
    "on-error",
    "on-marked-down",
    "port",
    "proto",
    "proxy-v2-options",
    "resolvers",
    "rise",
    "send-proxy",
    "send-proxy-v2",
    "send-proxy-v2-ssl",
    "send-proxy-v2-ssl-cn",
    "slowstart",
    "ssl",
    "weight",
];

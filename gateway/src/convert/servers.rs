//! `bind`, `server`, `balance`, and the checks, which HAProxy spreads over options, rules and servers.

use super::checks::{CHECK_OPTIONS, connects_in_tls};
use super::haproxy::{Line, Section};
use super::options::{Options, default_server};
use super::outline::Node;
use super::proxies::Proxy;
use super::{persistence, tls, words};

/// `bind ADDRESS ssl crt FILE alpn h2,http/1.1 accept-proxy`.
pub(super) fn bind(proxy: &mut Proxy<'_>, line: &Line) {
    let options = Options::of(line.rest(2));
    let unix_bind = proxy.conversion.unix_bind.clone();
    let unix_bind = Options::of(&unix_bind);
    let prefix = unix_bind.values("prefix").last().unwrap_or_default();
    for address in bind_addresses(proxy.section, line, options.has("v6only")) {
        let path = address.strip_prefix("unix:");
        let is_unix = path.is_some();
        let node = match path.filter(|path| !path.starts_with('@')) {
            Some(path) => access(
                Node::new("bind").arg(format!("unix:{prefix}{path}")),
                &[&options, &unix_bind],
            ),
            // What does not go with one in the abstract namespace is found out later.
            None if is_unix => access(Node::new("bind").arg(address), &[&options]),
            None => Node::new("bind").arg(address),
        };
        let node = match options.has("accept-proxy") {
            true => node.flag("accept-proxy"),
            false => node,
        };
        let backlog = options.named(&["backlog"]).find_map(|(_, value)| value?.parse().ok());
        let node = match backlog {
            Some(backlog) => node.number_prop("backlog", backlog),
            None => node,
        };
        let node = socket_options(proxy, line, node, &options);
        let bind = proxy.say(line, node);
        match options.has("ssl") {
            true => tls::of_bind(proxy, bind, &options, line),
            false => tls::report_without_tls(proxy, "bind", &options, line),
        }
        let of_unix: &[&str] = if is_unix { &ACCESS_OPTIONS } else { &[] };
        let known = [&KNOWN_BIND_OPTIONS[..], &tls::BIND_OPTIONS, &tls::SILENT, of_unix].concat();
        let others = options.others(&known).filter(|option| *option != HTTP2);
        report(proxy, line, "bind", others, NO_COUNTERPART);
    }
}

/// What the sockets of a bind are told beside their address.
fn socket_options(proxy: &mut Proxy<'_>, line: &Line, node: Node, options: &Options<'_>) -> Node {
    let mut node = node;
    if let Some(interface) = options.value("interface") {
        node = node.prop("interface", interface);
    }
    if let Some(time) = options.value("tcp-ut") {
        node = node.prop("tcp-user-timeout", words::duration(time));
    }
    match options.value("mss").map(|mss| (mss, mss.parse())) {
        Some((_, Ok(mss))) => node = node.number_prop("mss", mss),
        // HAProxy's negative ones are taken off what the interface has.
        Some((mss, Err(_))) => {
            let message = format!("`mss {mss}` of the bind was left out: it is said in bytes");
            proxy.conversion.note(line.number, message);
        }
        None => {}
    }
    for flag in ["transparent", "defer-accept"] {
        if options.has(flag) {
            node = node.flag(flag);
        }
    }
    node
}

/// What `source` says of connections to servers.
pub(super) struct Source {
    address: Option<String>,
    interface: Option<String>,
}

impl Source {
    /// `source ADDRESS [interface NAME] [usesrc WHOSE]`; none where it says nothing that has a counterpart.
    pub(super) fn of(address: &str, options: &Options<'_>) -> Option<Self> {
        let address = match options.value("usesrc") {
            Some("clientip" | "client") => Some("client-ip".to_owned()),
            Some(_) => return None,
            None if words::is_any_source(address) => None,
            None => Some(words::source(address)?.to_string()),
        };
        let interface = options.value("interface").map(str::to_owned);
        (address.is_some() || interface.is_some()).then_some(Self { address, interface })
    }

    /// As a node of a backend.
    pub(super) fn node(self) -> Node {
        let node = Node::new("source");
        let node = self.address.into_iter().fold(node, Node::arg);
        self.interface
            .into_iter()
            .fold(node, |node, interface| node.prop("interface", interface))
    }

    /// Notes what is different of it here.
    pub(super) fn note(&self, proxy: &mut Proxy<'_>, line: &Line, options: &Options<'_>) {
        if options.value("usesrc") == Some("client") {
            let message = "`usesrc client`: the client's address is taken over, and not its port";
            proxy.conversion.note(line.number, message);
        }
        if self.address.as_deref() == Some("client-ip") {
            let message = "`source \"client-ip\"` takes CAP_NET_ADMIN while the gateway runs: with `user`, let the service manager give root up";
            proxy.conversion.note(line.number, message);
        }
    }
}

/// Who may connect to a UNIX socket, as the first of these have it that say something of that. HAProxy's is open to its own user alone, too,
/// unless its umask says otherwise.
fn access(node: Node, all: &[&Options<'_>]) -> Node {
    let named: [(&str, &[&str]); 3] = [
        ("mode", &["mode"]),
        ("user", &["user", "uid"]),
        ("group", &["group", "gid"]),
    ];
    named.into_iter().fold(node, |node, (ours, haproxys)| {
        let value = |options: &&Options<'_>| {
            options
                .named(haproxys)
                .filter_map(|(_, value)| value.map(str::to_owned))
                .last()
        };
        match all.iter().find_map(value) {
            Some(value) => node.prop(ours, value),
            None => node,
        }
    })
}

/// The addresses of a bind. With HAProxy a socket for every address of IPv6 takes IPv4, too, unless it is told not to, or another has it.
fn bind_addresses(section: &Section, line: &Line, is_ipv6_alone: bool) -> Vec<String> {
    let of_line = |line: &Line| words::addresses(line.word(1).unwrap_or_default());
    let is_said = |address: &String| {
        let mut binds = section.lines.iter().filter(|line| line.keyword() == "bind");
        binds.any(|line| of_line(line).contains(address))
    };
    let mut addresses = Vec::new();
    for address in of_line(line) {
        let port = address.strip_prefix("[::]:").filter(|_| !is_ipv6_alone);
        let ipv4 = port.map(|port| format!("0.0.0.0:{port}"));
        addresses.extend(ipv4.filter(|ipv4| !is_said(ipv4)));
        addresses.push(address);
    }
    addresses
}

/// `balance leastconn`, with `hash-type` where that matters.
pub(super) fn balance(section: &Section, way: &str, line: &Line) -> Node {
    if let Some(node) = persistence::hash(section, way, line) {
        return node;
    }
    let is_consistent = persistence::is_consistent(section);
    let way = match way {
        "static-rr" => "roundrobin",
        "hash" if line.word(2) == Some("src") => "source",
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
    let mut node = Node::new(line.keyword()).arg(line.word(1).unwrap_or_default());
    if is_template {
        let count = templates(line.word(2).unwrap_or_default());
        node = count
            .into_iter()
            .fold(node, |node, count| node.number_prop("count", count));
    }
    let address = words::addresses(address.unwrap_or_default());
    node = node.arg(address.first().map_or("", String::as_str));
    for (haproxys, ours) in [("weight", "weight"), ("maxconn", "max-connections")] {
        if let Some(number) = options.value(haproxys).and_then(|value| value.parse().ok()) {
            node = node.number_prop(ours, number);
        }
    }
    if let Some(time) = options.value("slowstart") {
        node = node.prop("slow-start", words::duration(time));
    }
    let said = options.value("source");
    let source = said.and_then(|said| Source::of(said, &options));
    if let Some(source) = &source {
        source.note(proxy, line, &options);
        for (name, value) in [("source", &source.address), ("interface", &source.interface)] {
            node = value.iter().fold(node, |node, value| node.prop(name, value));
        }
    }
    if let Some(time) = options.value("tcp-ut") {
        node = node.prop("tcp-user-timeout", words::duration(time));
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
    // A backup has no backups that it would relieve.
    if let Some(action) = options.value("on-marked-up").filter(|_| !options.has("backup")) {
        node = node.prop("on-marked-up", action);
    }
    if let Some(value) = options.value("cookie") {
        node = node.prop("cookie", value);
    }
    if options.has("backup") {
        node = node.flag("backup");
    }
    // The later of the two holds, and a server's own goes before `default-server`.
    let is_disabled = |options: &Options<'_>| {
        let said = options.named(&["disabled", "enabled"]).last();
        said.map(|(word, _)| word == "disabled")
    };
    let own = Options::of(line.rest(from));
    if is_disabled(&own).or_else(|| is_disabled(&defaults)) == Some(true) {
        node = node.flag("disabled");
    }
    let is_http = proxy.is_http();
    // In HTTP mode the protocol is the server's, and not to be agreed on.
    let alpn = options.value("alpn").filter(|_| options.has("ssl"));
    let http2 = is_http && (options.value("proto") == Some("h2") || alpn == Some("h2"));
    if http2 {
        node = node.flag("h2");
    }
    queue(proxy, line, &options);
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
    if let (Some(said), None) = (said, source) {
        let message =
            format!("`source {said}` of the server was left out: it is no address whose port is left to the system");
        proxy.conversion.note(line.number, message);
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
    let has_own_tls = (options.has("check-ssl") || connects_in_tls(proxy.section)) && !options.has("ssl");
    let of_check: &[&str] = if has_own_tls { &["check-sni", "check-alpn"] } else { &[] };
    report(
        proxy,
        line,
        "server",
        options.others(&[&KNOWN_OPTIONS[..], &tls::SERVER_OPTIONS, &tls::SILENT, of_check].concat()),
        NO_COUNTERPART,
    );
}

/// How many servers a template stands for: `5`, or those from one number to another, `3-5`.
fn templates(text: &str) -> Option<u64> {
    let Some((first, last)) = text.split_once('-') else {
        return text.parse().ok();
    };
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    last.checked_sub(first)?.checked_add(1)
}

/// `maxqueue`: in HAProxy, who belongs to no server waits in its backend's queue, which has no bound.
fn queue(proxy: &mut Proxy<'_>, line: &Line, options: &Options<'_>) {
    // HAProxy's 0 is no limit.
    let most = options.value("maxqueue").and_then(|value| value.parse::<u64>().ok());
    if let Some(most) = most.filter(|most| *most > 0) {
        let message = format!(
            "`maxqueue {most}` of the server was left out: it bounds those alone who wait for this server as they belong to it, and \
             `max-queue` of the backend here all who wait"
        );
        proxy.conversion.note(line.number, message);
    }
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

/// Options of a bind that are carried over.
const KNOWN_BIND_OPTIONS: [&str; 13] = [
    "accept-proxy",
    "backlog",
    "crt-list",
    "defer-accept",
    // Names for HAProxy's statistics alone.
    "id",
    "interface",
    "mss",
    "name",
    "ssl",
    "tcp-ut",
    "transparent",
    "v4v6",
    "v6only",
];

/// A client that begins with HTTP/2 gets it on every plain bind.
const HTTP2: (&str, Option<&str>) = ("proto", Some("h2"));

/// Options of a bind that is a UNIX socket.
const ACCESS_OPTIONS: [&str; 5] = ["gid", "group", "mode", "uid", "user"];

/// Options of a server that are carried over, or are the check's.
const KNOWN_OPTIONS: [&str; 40] = [
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
    "disabled",
    "downinter",
    "enabled",
    "error-limit",
    "fall",
    "fastinter",
    "init-addr",
    "inter",
    "interface",
    "maxconn",
    "maxqueue",
    "observe",
    "on-error",
    "on-marked-down",
    "on-marked-up",
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
    "source",
    "ssl",
    "tcp-ut",
    "usesrc",
    "weight",
];

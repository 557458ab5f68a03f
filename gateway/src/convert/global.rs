//! What holds for the process: `global` and `resolvers`.

use super::haproxy::{Line, Section};
use super::options::Options;
use super::outline::Node;
use super::proxies::leave_out;
use super::{Conversion, ssl_defaults, words};

/// `global`: the process.
pub(super) fn global(conversion: &mut Conversion, section: &Section) {
    let block = conversion
        .outline
        .add(None, Node::new("process"), section.line, "global");
    conversion.outline.open(block);
    let group = section
        .lines
        .iter()
        .find(|line| matches!(line.keyword(), "group" | "gid"));
    for line in &section.lines {
        let first = line.word(1).unwrap_or_default();
        let node = match line.keyword() {
            "log" if !is_first(section, line) => {
                let reason = "a further log has a name, log \"…\" name=\"audit\", and gets the lines of frontends that name it; no log has \
                              a minimum level";
                leave_out(conversion, block, line, reason);
                continue;
            }
            "log" => match log(conversion, line) {
                Some(node) => node,
                None => {
                    leave_out(conversion, block, line, "lines cannot be sent there");
                    continue;
                }
            },
            "maxconn" => match first.parse() {
                Ok(number) => Node::new("max-connections").number(number),
                Err(_) => Node::new("max-connections").arg(first),
            },
            "nbthread" => match first.parse() {
                Ok(number) => Node::new("workers").number(number),
                Err(_) => Node::new("workers").arg(first),
            },
            "user" | "uid" => {
                let node = Node::new("user").arg(first);
                match group.and_then(|group| group.word(1)) {
                    Some(group) => node.prop("group", group),
                    None => node,
                }
            }
            // Said with `user`.
            "group" | "gid"
                if section
                    .lines
                    .iter()
                    .any(|line| matches!(line.keyword(), "user" | "uid")) =>
            {
                continue;
            }
            "chroot" => Node::new("chroot").arg(first),
            "pidfile" => Node::new("pid-file").arg(first),
            "hard-stop-after" => Node::new("drain-timeout").arg(words::duration(first)),
            "spread-checks" => {
                conversion.note(line.number, "not needed: checks are spread over their interval, always");
                continue;
            }
            "ulimit-n" | "fd-hard-limit" => {
                let message = "not needed: the limit on open files is raised as far as `max-connections` takes";
                conversion.note(line.number, message);
                continue;
            }
            "stats" if first == "socket" => {
                let node = Node::new("admin").arg(line.word(2).unwrap_or_default());
                for pair in line
                    .rest(3)
                    .chunks(2)
                    .filter(|pair| !matches!(pair[0].as_str(), "mode" | "level"))
                {
                    let message = format!("`{}` of the socket was left out: it has no counterpart", pair.join(" "));
                    conversion.note(line.number, message);
                }
                let value = |key| line.words.iter().skip_while(|word| *word != key).nth(1);
                let node = value("mode")
                    .into_iter()
                    .fold(node, |node, mode| node.prop("mode", mode));
                value("level")
                    .into_iter()
                    .fold(node, |node, level| node.prop("level", level))
            }
            "daemon" | "master-worker" => {
                conversion.note(
                    line.number,
                    "not needed: the gateway runs in the foreground, for a service manager",
                );
                continue;
            }
            "tune.ssl.default-dh-param" => {
                let message = "not needed: TLS here has no finite-field Diffie-Hellman (DHE), only elliptic curves";
                conversion.note(line.number, message);
                continue;
            }
            "log-send-hostname" if first.is_empty() => {
                let message =
                    "not needed: messages have the name of the host, but those of RFC 3164 to a socket of this machine";
                conversion.note(line.number, message);
                continue;
            }
            // Said with each bind.
            "unix-bind" => {
                for (option, _) in Options::of(line.rest(1)).others(&UNIX_BIND_OPTIONS) {
                    let message = format!("`{option}` of `unix-bind` was left out: it has no counterpart");
                    conversion.note(line.number, message);
                }
                continue;
            }
            // Said in the lines that it is for.
            keyword if ssl_defaults::is_for_others(keyword) => continue,
            _ => {
                leave_out(
                    conversion,
                    block,
                    line,
                    &format!("there is no counterpart of `{}`", words::subject(line)),
                );
                continue;
            }
        };
        conversion.outline.add(Some(block), node, line.number, &line.text);
    }
}

/// The words of all `unix-bind`, which are about every bind that is a UNIX socket.
pub(super) fn unix_bind(sections: &[Section]) -> Vec<String> {
    let global = sections.iter().filter(|section| section.kind == "global");
    let lines = global.flat_map(|section| &section.lines);
    let said = lines.filter(|line| line.keyword() == "unix-bind");
    said.flat_map(|line| line.rest(1).to_vec()).collect()
}

/// What `unix-bind` may say.
const UNIX_BIND_OPTIONS: [&str; 6] = ["gid", "group", "mode", "prefix", "uid", "user"];

/// `log TARGET [len N] [format F] [sample S] FACILITY [LEVEL [LEVEL]]`.
fn log(conversion: &mut Conversion, line: &Line) -> Option<Node> {
    let target = log_target(line.word(1)?)?;
    let is_stream = matches!(&*target, "stdout" | "stderr");
    let mut node = Node::new("log").arg(target);
    let mut left_out = |what: &str| {
        let message = format!("`{what}` of the log was left out: it has no counterpart");
        conversion.note(line.number, message);
    };
    let mut format = "local";
    let mut words = line.rest(2).iter().map(String::as_str).peekable();
    while let Some(option) = words.next_if(|word| matches!(*word, "len" | "format" | "sample" | "profile")) {
        let value = words.next().unwrap_or_default();
        match option {
            "format" => format = value,
            _ => left_out(&format!("{option} {value}")),
        }
    }
    match (format, is_stream) {
        ("rfc5424", false) => node = node.prop("syslog", "rfc5424"),
        // The first is HAProxy's own choice: the other without the name of the host, which a server elsewhere finds out.
        ("local" | "rfc3164", false) => node = node.prop("syslog", "rfc3164"),
        // What is said of nothing, or what we write there.
        ("local" | "raw", true) => {}
        _ => left_out(&format!("format {format}")),
    }
    if let Some(facility) = words.next()
        && !is_stream
    {
        node = node.prop("facility", facility);
    }
    words.for_each(left_out);
    Some(node)
}

/// Where lines go, as we write it. Not every way of HAProxy's is one of ours.
fn log_target(text: &str) -> Option<String> {
    let (way, place) = match text.split_once('@') {
        Some((way, place)) => (way, place),
        None if text.starts_with('/') => ("unix", text),
        None if matches!(text, "stdout" | "stderr") => return Some(text.to_owned()),
        None => ("udp", text),
    };
    match way {
        "unix" | "uxdg" if place == "/dev/log" => Some(place.to_owned()),
        "unix" | "uxdg" => Some(format!("unix://{place}")),
        "udp" | "udp4" | "udp6" | "ipv4" | "ipv6" => Some(format!("udp://{}", with_port(place, 514))),
        "tcp" | "tcp4" | "tcp6" => Some(format!("tcp://{}", with_port(place, 514))),
        _ => None,
    }
}

/// Whether no line before it has its keyword.
fn is_first(section: &Section, line: &Line) -> bool {
    let first = section.lines.iter().find(|other| other.keyword() == line.keyword());
    first.is_some_and(|first| first.number == line.number)
}

/// `resolvers NAME`: who is asked for the names of servers. Ours is one for the process.
pub(super) fn resolver(conversion: &mut Conversion, section: &Section) {
    let name = section.name.as_deref().unwrap_or_default();
    let mut node = Node::new("resolver");
    let value = |words: &[&str]| {
        let line = section
            .lines
            .iter()
            .find(|line| words.iter().eq(line.words.iter().take(words.len())));
        line.and_then(|line| line.word(words.len()))
    };
    for (words, ours) in [
        (&["timeout", "retry"][..], "timeout"),
        (&["hold", "valid"], "max-ttl"),
        (&["hold", "timeout"], "hold"),
        (&["hold", "nx"], "hold-nx"),
    ] {
        if let Some(time) = value(words) {
            node = node.prop(ours, words::duration(time));
        }
    }
    // HAProxy counts all questions, here those after the first count.
    if let Some(retries) = value(&["resolve_retries"]).and_then(|number| number.parse::<u64>().ok()) {
        node = node.number_prop("retries", retries.saturating_sub(1));
    }
    let block = conversion
        .outline
        .add(None, node, section.line, &format!("resolvers {name}"));
    for line in &section.lines {
        match (line.keyword(), line.word(1), line.word(2)) {
            ("nameserver", Some(_), Some(address)) => {
                for address in words::addresses(address.trim_start_matches("udp@")) {
                    let node = Node::new("nameserver").arg(address);
                    conversion.outline.add(Some(block), node, line.number, &line.text);
                }
            }
            ("timeout", Some("retry"), _) | ("hold", Some("valid" | "timeout" | "nx"), _) | ("resolve_retries", ..) => {
            }
            // The system's is what is asked without `nameserver`.
            ("parse-resolv-conf", ..) => {}
            _ => conversion.note(
                line.number,
                format!("left out: there is no counterpart of `{}`", line.text),
            ),
        }
    }
}

/// `10.0.0.9`, `10.0.0.9:514`, `::1:514` or `::1:`, in which the last colon is always the port's.
fn with_port(host: &str, port: u16) -> String {
    let address: String = words::addresses(host).into_iter().next().unwrap_or_default();
    match address.strip_suffix(':') {
        Some(host) => format!("{host}:{port}"),
        None if address.contains(':') => address,
        None => format!("{address}:{port}"),
    }
}

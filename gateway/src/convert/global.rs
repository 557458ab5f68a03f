//! What holds for the process: `global` and `resolvers`.

use super::haproxy::{Line, Section};
use super::outline::Node;
use super::proxies::leave_out;
use super::{Conversion, ssl_defaults, words};

/// `global`: the process.
pub(super) fn global(conversion: &mut Conversion, section: &Section) {
    let block = conversion
        .outline
        .add(None, Node::new("process"), section.line, "global");
    conversion.outline.open(block);
    let group = section.lines.iter().find(|line| line.keyword() == "group");
    for line in &section.lines {
        let first = line.word(1).unwrap_or_default();
        let node = match line.keyword() {
            "log" if !is_first(section, line) => {
                let reason = "a further log has a name, log \"…\" name=\"audit\", and gets the lines of frontends that name it; no log has \
                              a minimum level";
                leave_out(conversion, block, line, reason);
                continue;
            }
            "log" => {
                for word in line.rest(2).iter().skip(1) {
                    conversion.note(
                        line.number,
                        format!("`{word}` of the log was left out: it has no counterpart"),
                    );
                }
                let target = match first {
                    "stdout" | "stderr" => Node::new("log").arg(first),
                    path if path.starts_with('/') => Node::new("log").arg(path),
                    host => Node::new("log").arg(format!("udp://{}", with_port(host, 514))),
                };
                let facility = line.word(2);
                match facility {
                    Some(facility) if !matches!(first, "stdout" | "stderr") => target.prop("facility", facility),
                    _ => target,
                }
            }
            "maxconn" => match first.parse() {
                Ok(number) => Node::new("max-connections").number(number),
                Err(_) => Node::new("max-connections").arg(first),
            },
            "nbthread" => match first.parse() {
                Ok(number) => Node::new("workers").number(number),
                Err(_) => Node::new("workers").arg(first),
            },
            "user" => {
                let node = Node::new("user").arg(first);
                match group.and_then(|group| group.word(1)) {
                    Some(group) => node.prop("group", group),
                    None => node,
                }
            }
            // Said with `user`.
            "group" if section.lines.iter().any(|line| line.keyword() == "user") => continue,
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
            // Said in the lines that it is for.
            keyword if ssl_defaults::is_for_others(keyword) => continue,
            keyword => {
                leave_out(
                    conversion,
                    block,
                    line,
                    &format!("there is no counterpart of `{keyword}`"),
                );
                continue;
            }
        };
        conversion.outline.add(Some(block), node, line.number, &line.text);
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

fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    }
}

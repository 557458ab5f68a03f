//! The stats page, which has a bind of its own here, and monitors.

use super::Conversion;
use super::haproxy::{Line, Section};
use super::outline::Node;
use super::proxies::{Proxy, leave_out};
use super::words::{self, Term};

/// Whether a section serves the stats page, or metrics, and nothing else.
pub(super) fn is_stats(section: &Section) -> bool {
    let says = |keyword: &str| section.lines.iter().any(|line| line.keyword() == keyword);
    let routes = ["server", "server-template", "default_backend", "use_backend"];
    (says("stats") || section.lines.iter().any(serves_metrics)) && says("bind") && !routes.into_iter().any(says)
}

/// `http-request use-service prometheus-exporter if { path /metrics }`
pub(super) fn serves_metrics(line: &Line) -> bool {
    line.keyword() == "http-request"
        && line.word(1) == Some("use-service")
        && line.word(2) == Some("prometheus-exporter")
}

/// A section that serves the stats page.
pub(super) fn convert(conversion: &mut Conversion, section: &Section) {
    let name = section.name.as_deref().unwrap_or_default();
    let original = format!("{} {name}", section.kind);
    // Who is let in is decided in another way here: it is not to be weaker for having been carried over.
    let decides = |line: &Line| match line.keyword() {
        "acl" | "tcp-request" => true,
        "http-request" => line.word(1) != Some("use-service"),
        "stats" => line.word(1) == Some("http-request"),
        _ => false,
    };
    let refused = match section.lines.iter().find(|line| decides(line)) {
        Some(line) => Some(format!(
            "`{}` has no counterpart there: see `allow` and `auth` of `stats`",
            line.text
        )),
        None if conversion.has_stats => Some("there is one `stats` here: give it the other binds".to_owned()),
        None => None,
    };
    if let Some(reason) = refused {
        conversion.outline.add_left_out(None, section.line, &original, &reason);
        conversion.note(section.line, format!("the stats page was left out: {reason}"));
        return;
    }
    conversion.has_stats = true;
    let block = conversion
        .outline
        .add(None, Node::new("stats"), section.line, &original);
    conversion.outline.open(block);
    for line in &section.lines {
        for node in nodes(conversion, block, line) {
            conversion.outline.add(Some(block), node, line.number, &line.text);
        }
    }
}

/// What a line of such a section says.
fn nodes(conversion: &mut Conversion, block: usize, line: &Line) -> Vec<Node> {
    let value = line.word(2).unwrap_or_default();
    match (line.keyword(), line.word(1).unwrap_or_default()) {
        ("bind", addresses) => {
            if line.word(2).is_some() {
                let message = "options of the stats page's bind were left out: it has no TLS; put a frontend before it";
                conversion.note(line.number, message);
            }
            let addresses = words::addresses(addresses).into_iter();
            addresses.map(|address| Node::new("bind").arg(address)).collect()
        }
        ("stats", "refresh") => {
            let seconds = value.chars().all(|c| c.is_ascii_digit());
            let time = if seconds { format!("{value}s") } else { value.to_owned() };
            vec![Node::new("refresh").arg(time)]
        }
        ("stats", "hide-version") => vec![Node::new("hide-version")],
        ("stats", "auth") => match value.split_once(':').map(|(user, password)| (user, hash(password))) {
            Some((user, Some(hash))) => {
                conversion.note(line.number, "the password was hashed, as it is written here");
                vec![Node::new("auth").arg(user).prop("password", hash)]
            }
            _ => {
                leave_out(
                    conversion,
                    block,
                    line,
                    "a user and a password are written with a colon between",
                );
                Vec::new()
            }
        },
        ("stats", "uri") => {
            if value != "/" {
                conversion.note(line.number, format!("the page is at / here, and not at {value}"));
            }
            Vec::new()
        }
        ("monitor-uri", path) => vec![Node::new("monitor").arg(path)],
        ("stats", "admin") => {
            let reason = "the page changes nothing: servers are changed by the admin socket (`gateway ctl`)";
            leave_out(conversion, block, line, reason);
            Vec::new()
        }
        ("stats", "scope") => {
            leave_out(
                conversion,
                block,
                line,
                "the page shows everything: `allow` says who sees it",
            );
            Vec::new()
        }
        // What the page is like without being told, or how HAProxy speaks HTTP.
        ("stats", "enable" | "realm" | "show-legends" | "show-node" | "show-desc" | "show-modules")
        | ("mode" | "timeout" | "log" | "option" | "no", _) => Vec::new(),
        // `/metrics` is there.
        ("http-request", "use-service") => Vec::new(),
        _ => {
            leave_out(
                conversion,
                block,
                line,
                &format!("there is no counterpart of `{}` here", words::subject(line)),
            );
            Vec::new()
        }
    }
}

/// A password as it is written here; none where it cannot be hashed.
pub(super) fn hash(password: &str) -> Option<String> {
    let params = sha_crypt::Sha512Params::new(sha_crypt::ROUNDS_DEFAULT).ok()?;
    sha_crypt::sha512_simple(password, &params).ok()
}

impl Proxy<'_> {
    /// `monitor-uri /path`, with the `monitor fail` lines of its section. False when the line is none of both.
    pub(super) fn monitor(&mut self, line: &Line) -> bool {
        match line.keyword() {
            "monitor-uri" => {
                let monitor = self.say(line, Node::new("monitor").arg(line.word(1).unwrap_or_default()));
                let section = self.section;
                for line in section.lines.iter().filter(|line| line.keyword() == "monitor") {
                    match self.needs(line) {
                        Some(nodes) => nodes.into_iter().for_each(|node| {
                            self.conversion
                                .outline
                                .add(Some(monitor), node, line.number, &line.text);
                        }),
                        None => self.leave_out(
                            line,
                            "`monitor` asks for servers that are there alone: `nbsrv(backend) lt 1`, several with `or`",
                        ),
                    }
                }
                true
            }
            // Said with it.
            "monitor" => self.says("monitor-uri"),
            _ => false,
        }
    }

    /// What `monitor fail if …` asks for, where that is servers of backends and nothing else.
    fn needs(&self, line: &Line) -> Option<Vec<Node>> {
        let ("fail", "if") = (line.word(1)?, line.word(2)?) else {
            return None;
        };
        let mut nodes = Vec::new();
        let mut or = true;
        for term in words::terms(line.rest(3)).ok()? {
            // Two that have to hold together would fail less often than each alone.
            match term {
                Term::Or => or = true,
                _ if !or => return None,
                Term::Anonymous {
                    words,
                    is_negated: false,
                } => {
                    nodes.push(need(words)?);
                    or = false;
                }
                Term::Named {
                    name,
                    is_negated: false,
                } => {
                    let of_name = |line: &&Line| line.keyword() == "acl" && line.word(1) == Some(name);
                    let mut acls = self.section.lines.iter().filter(of_name).peekable();
                    acls.peek()?;
                    for acl in acls {
                        nodes.push(need(acl.rest(2))?);
                    }
                    or = false;
                }
                _ => return None,
            }
        }
        Some(nodes)
    }

    /// Whether an acl is one that a monitor alone asks, and that has become a part of it.
    pub(super) fn is_of_monitor(&self, name: &str) -> bool {
        let mut monitors = self.section.lines.iter().filter(|line| line.keyword() == "monitor");
        let others = self.section.lines.iter();
        let mut others = others.filter(|line| !matches!(line.keyword(), "monitor" | "acl"));
        monitors.any(|line| line.words.iter().any(|word| word == name) && self.needs(line).is_some())
            && !others.any(|line| line.words.iter().any(|word| word.trim_start_matches('!') == name))
    }
}

/// `nbsrv(app) lt 2`, as what has to be there.
fn need(words: &[String]) -> Option<Node> {
    let [fetch, operator, number] = words else { return None };
    let backend = fetch.strip_prefix("nbsrv(")?.strip_suffix(')')?;
    let number: u64 = number.parse().ok()?;
    let servers = match operator.as_str() {
        "lt" => number,
        "le" => number + 1,
        "eq" if number == 0 => 1,
        _ => return None,
    };
    Some(Node::new("require").arg(backend).number_prop("servers", servers))
}

//! What is done to messages on their way, and what is noted of them: several lines of HAProxy's are one node here.

use super::haproxy::{Line, Section};
use super::outline::Node;
use super::proxies::Proxy;
use super::{variables, words};

impl Proxy<'_> {
    /// `option forwardfor`, `option forwarded`, `compression …`, `unique-id-…`. False when the line is none of that.
    pub(super) fn transform(&mut self, line: &Line) -> bool {
        let node = match (line.keyword(), line.word(1).unwrap_or_default()) {
            ("option", "forwardfor") if self.is_backend() => {
                self.forwarded_by_backend(line);
                return true;
            }
            ("option", "forwardfor") => forwarded_for(line.rest(2)),
            ("option", "forwarded") => forwarded(line.rest(2)),
            ("compression", _) if !self.is_first(line, "compression") => return true,
            ("compression", _) => return self.compression(line),
            ("option", "dontlognull" | "dontlog-normal" | "log-separate-errors") => {
                // They are flags of one node.
                let is_one =
                    |line: &&Line| line.keyword() == "option" && line.word(1).is_some_and(|word| flag(word).is_some());
                let section = self.section;
                let mut flags = section.lines.iter().filter(is_one);
                if flags.clone().next().is_some_and(|first| first.number != line.number) {
                    return true;
                }
                let mut node = Node::new("access-log");
                for flag in flags.by_ref().filter_map(|line| flag(line.word(1)?)) {
                    node = node.flag(flag);
                }
                node
            }
            ("capture", kind) => match capture(kind, line.rest(2)) {
                Some(node) => node,
                None => return false,
            },
            ("log-format", _) => match log_format(line.word(1).unwrap_or_default()) {
                Ok(format) => Node::new("log-format").arg(format),
                Err(letters) => {
                    self.leave_out(line, &format!("no variable of lines for `{letters}`"));
                    return true;
                }
            },
            ("unique-id-header", name) => Node::new("request-id").prop("header", name),
            ("unique-id-format", _)
                if self
                    .section
                    .lines
                    .iter()
                    .any(|line| line.keyword() == "unique-id-header") =>
            {
                let message = "the format was left out: `request-id` makes UUIDs";
                self.conversion.note(line.number, message);
                return true;
            }
            _ => return false,
        };
        self.say(line, node);
        true
    }

    /// `http-request set-header X-Forwarded-Proto https if { ssl_fc }` and the like: written per connection here. False when
    /// the line is none of that.
    pub(super) fn forwarded_header(&mut self, line: &Line) -> bool {
        let section = self.section;
        let forwarded_name = |line: &Line| forwarded_name(line).filter(|name| is_whole(section, line, name));
        if forwarded_name(line).is_none() {
            return false;
        }
        let mut names: Vec<&str> = Vec::new();
        for other in section
            .lines
            .iter()
            .filter_map(|line| Some((line, forwarded_name(line)?)))
        {
            if !names.contains(&other.1) {
                names.push(other.1);
            }
        }
        let first = section.lines.iter().find(|line| forwarded_name(line).is_some());
        if first.is_some_and(|first| first.number == line.number) {
            let node = names
                .into_iter()
                .fold(Node::new("forwarded-headers"), |node, name| node.arg(name));
            self.say(line, node);
        }
        true
    }

    /// `option forwardfor` of a backend: an edit of its own, where the frontends do not say it, too.
    fn forwarded_by_backend(&mut self, line: &Line) {
        let name = self.section.name.as_deref().unwrap_or_default();
        match self.conversion.edited.forwards(name) {
            Some(true) => {
                let message = "not needed: the frontends that lead here say it";
                return self.conversion.note(line.number, message);
            }
            Some(false) => {}
            None => {
                return self.leave_out(
                    line,
                    "of the frontends that lead here some say it, too: let all of them",
                );
            }
        }
        let (mut header, mut unless) = ("X-Forwarded-For".to_owned(), Vec::new());
        let mut is_new = false;
        let mut words = line.rest(2).iter();
        let mut or = |words: &[&str]| {
            if !unless.is_empty() {
                unless.push("or".to_owned());
            }
            unless.extend(words.iter().map(|word| (*word).to_owned()));
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "if-none" => is_new = true,
                "header" => header = words.next().cloned().unwrap_or_default(),
                "except" => or(&["{", "src", words.next().map_or("", String::as_str), "}"]),
                other => return self.leave_out(line, &format!("there is no counterpart of `{other}`")),
            }
        }
        if is_new {
            or(&["{", &format!("req.hdr({header})"), "-m", "found", "}"]);
        }
        let node = Node::new("add-header").arg(header).arg("%{client-ip}");
        let condition = Some((words::Polarity::Unless, unless.as_slice())).filter(|(_, words)| !words.is_empty());
        match self.guarded(line, node, condition) {
            Ok(node) => {
                let block = self.edits(line, false);
                self.conversion.outline.add(Some(block), node, line.number, &line.text);
            }
            Err(reason) => self.leave_out(line, &reason),
        }
    }

    /// `http-request capture path len 128`. False when the line is none of that.
    pub(super) fn captured(&mut self, line: &Line) -> bool {
        if line.keyword() != "http-request" || line.word(1) != Some("capture") {
            return false;
        }
        let node = match line.rest(2) {
            [what, len, max] if len == "len" => sample(what).map(|node| with_max(node, max)),
            _ => None,
        };
        match node {
            Some(node) => {
                self.say(line, node);
            }
            None => self.leave_out(line, "what it captures has no counterpart"),
        }
        true
    }

    fn compression(&mut self, line: &Line) -> bool {
        let section = self.section;
        let lines = || section.lines.iter().filter(|line| line.keyword() == "compression");
        let words = |kind: &'static [&'static str]| {
            lines()
                .filter(move |line| line.word(1).is_some_and(|word| kind.contains(&word)))
                .flat_map(|line| line.rest(2))
                .map(String::as_str)
        };
        let mut node = Node::new("compress");
        let mut has_gzip = false;
        for algorithm in words(&["algo", "algo-res"]) {
            match algorithm {
                "gzip" if !has_gzip => has_gzip = true,
                "gzip" | "identity" => {}
                other => {
                    let message = format!("`{other}` was left out: `br`, `zstd` and `gzip` are what there is");
                    self.conversion.note(line.number, message);
                }
            }
        }
        if !has_gzip {
            self.leave_out(line, "no algorithm that there is");
            return true;
        }
        node = node.arg("gzip");
        if lines().any(|line| line.word(1) == Some("offload")) {
            node = node.flag("offload");
        }
        for line in lines() {
            let known = ["algo", "algo-res", "type", "type-res", "offload"];
            if !line.word(1).is_some_and(|word| known.contains(&word)) {
                let message = format!("left out: there is no counterpart of `{}`", line.text);
                self.conversion.note(line.number, message);
            }
        }
        let types: Vec<&str> = words(&["type", "type-res"]).collect();
        let id = self.say(line, node);
        if !types.is_empty() {
            self.conversion.outline.open(id);
            // HAProxy compares beginnings, and a type alone is one: `text/`.
            let node = types
                .into_iter()
                .fold(Node::new("types"), |node, media| match media.strip_suffix('/') {
                    Some(kind) => node.arg(format!("{kind}/*")),
                    None => node.arg(media),
                });
            self.conversion.outline.add(Some(id), node, line.number, &line.text);
        }
        true
    }

    fn is_first(&self, line: &Line, keyword: &str) -> bool {
        let first = self.section.lines.iter().find(|line| line.keyword() == keyword);
        first.is_some_and(|first| first.number == line.number)
    }
}

/// `except 127.0.0.0/8 header X-Client if-none`
fn forwarded_for(words: &[String]) -> Node {
    let mut node = Node::new("forwarded-for");
    let mut words = words.iter();
    while let Some(word) = words.next() {
        node = match word.as_str() {
            "if-none" => node.flag("if-none"),
            key @ ("except" | "header") => node.prop(key, words.next().map(String::as_str).unwrap_or_default()),
            other => node.arg(other),
        };
    }
    node
}

/// `proto for host by`; what an expression would say has no counterpart.
fn forwarded(words: &[String]) -> Node {
    words
        .iter()
        .fold(Node::new("forwarded"), |node, word| match word.as_str() {
            "by" => node.prop("by", "address"),
            word => node.arg(word),
        })
}

/// Which of the fields that the gateway writes itself a line sets, in one of the ways that are usual.
fn forwarded_name(line: &Line) -> Option<&'static str> {
    if line.keyword() != "http-request" || line.word(1) != Some("set-header") {
        return None;
    }
    let (words, condition) = words::split_condition(line.rest(2));
    let [name, value] = words else { return None };
    let condition: Vec<&str> = condition.map_or(Vec::new(), |(polarity, words)| {
        let words = words.iter().map(String::as_str);
        [polarity.property()].into_iter().chain(words).collect()
    });
    let about_tls = matches!(
        (value.as_str(), &condition[..]),
        ("https", ["if", "{", "ssl_fc", "}"])
            | (
                "http",
                ["if", "!{", "ssl_fc", "}"] | ["if", "!", "{", "ssl_fc", "}"] | ["unless", "{", "ssl_fc", "}"]
            )
            | ("%[ssl_fc,iif(https,http)]", [])
    );
    let is_always = condition.is_empty();
    match name.to_ascii_lowercase().as_str() {
        "x-forwarded-proto" if about_tls => Some("x-forwarded-proto"),
        "x-forwarded-port" if is_always && value == "%[dst_port]" => Some("x-forwarded-port"),
        "x-forwarded-host"
            if is_always && matches!(value.as_str(), "%[req.hdr(Host)]" | "%[req.hdr(host)]" | "%[hdr(host)]") =>
        {
            Some("x-forwarded-host")
        }
        "x-real-ip" if is_always && matches!(value.as_str(), "%[src]" | "%ci") => Some("x-real-ip"),
        _ => None,
    }
}

/// Whether a line is one that says of all requests what the gateway writes into such a field itself.
pub(super) fn is_forwarded_header(section: &Section, line: &Line) -> bool {
    forwarded_name(line).is_some_and(|name| is_whole(section, line, name))
}

/// Whether what a line says holds of all requests: the field of a scheme says both, in two lines, and no earlier rule lets some
/// through without.
fn is_whole(section: &Section, line: &Line, name: &str) -> bool {
    let mut earlier = section.lines.iter().filter(|other| other.number < line.number);
    if earlier.any(|other| other.keyword() == "http-request" && other.word(1) == Some("allow")) {
        return false;
    }
    let value = |line: &Line| line.word(3).map(str::to_owned);
    let mut others = section.lines.iter();
    name != "x-forwarded-proto"
        || line.words.len() == 4
        || others.any(|other| forwarded_name(other) == Some("x-forwarded-proto") && value(other) != value(line))
}

fn flag(option: &str) -> Option<&'static str> {
    match option {
        "dontlognull" => Some("skip-null"),
        "dontlog-normal" => Some("only-errors"),
        "log-separate-errors" => Some("separate-errors"),
        _ => None,
    }
}

/// `capture request header Host len 64` and its like, behind the second word.
fn capture(kind: &str, rest: &[String]) -> Option<Node> {
    let node = Node::new("capture");
    match (kind, rest) {
        ("request", [header, name, len, max]) if header == "header" && len == "len" => {
            Some(with_max(node.prop("header", name), max))
        }
        ("response", [header, name, len, max]) if header == "header" && len == "len" => {
            Some(with_max(node.prop("response-header", name), max))
        }
        ("cookie", [name, len, max]) if len == "len" => {
            Some(with_max(node.prop("cookie", name.trim_end_matches('=')), max))
        }
        _ => None,
    }
}

/// What `http-request capture` captures.
fn sample(what: &str) -> Option<Node> {
    let node = Node::new("capture");
    let name = |prefix: &str| what.strip_prefix(prefix)?.strip_suffix(')');
    match what {
        "path" => Some(node.flag("path")),
        _ => ["req.hdr(", "hdr(", "req.fhdr("]
            .iter()
            .find_map(|prefix| name(prefix))
            .map(|name| node.prop("header", name)),
    }
}

fn with_max(node: Node, max: &str) -> Node {
    match max.parse() {
        Ok(max) => node.number_prop("max", max),
        Err(_) => node.prop("max", max),
    }
}

/// HAProxy's letters as names; the letters that have none, where there are such.
fn log_format(format: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']').ok_or("%[")?;
            let variable = expression(&inner[..end]).ok_or_else(|| format!("%[{}]", &inner[..end]))?;
            out.push_str(&variable);
            rest = &inner[end + 1..];
            continue;
        }
        // Flags as in `%{+Q}r` quote; here the quotes are written.
        let mut quotes = false;
        if let Some(inner) = rest.strip_prefix('{') {
            let end = inner.find('}').ok_or("%{")?;
            quotes = inner[..end].contains("+Q");
            rest = &inner[end + 1..];
        }
        let length = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let letters = &rest[..length];
        let Some((letters, name)) = LETTERS
            .iter()
            .filter(|(known, _)| letters.starts_with(known))
            .max_by_key(|(known, _)| known.len())
        else {
            return Err(format!("%{letters}"));
        };
        let quote = if quotes { "\"" } else { "" };
        out.push_str(&format!("{quote}{name}{quote}"));
        rest = &rest[letters.len()..];
    }
    out.push_str(rest);
    Ok(out)
}

/// An expression, as a variable. What is done to it behind its first comma is left out: a line is read by people.
fn expression(text: &str) -> Option<String> {
    let (fetch, _) = match text.split_once("),") {
        Some((fetch, rest)) => (format!("{fetch})"), rest),
        None => (text.split(',').next().unwrap_or_default().to_owned(), ""),
    };
    variables::variable(&fetch).ok()
}

/// HAProxy's manual, "Custom log format".
const LETTERS: &[(&str, &str)] = &[
    ("ci", "%{client-ip}"),
    ("cp", "%{client-port}"),
    ("fi", "%{destination-ip}"),
    ("fp", "%{destination-port}"),
    ("t", "%{date}"),
    ("tr", "%{date}"),
    ("Ts", "%{timestamp}"),
    ("f", "%{frontend}"),
    ("ft", "%{frontend-tls}"),
    ("b", "%{backend}"),
    ("s", "%{server}"),
    ("TR", "%{request-ms}"),
    ("Tw", "%{queue-ms}"),
    ("Tc", "%{connect-ms}"),
    ("Tr", "%{response-ms}"),
    ("Ta", "%{total-ms}"),
    ("Tt", "%{total-ms}"),
    ("ST", "%{status}"),
    ("B", "%{bytes-sent}"),
    ("U", "%{bytes-received}"),
    ("ts", "%{termination}"),
    ("tsc", "%{termination}%{cookie-flags}"),
    ("ac", "%{process-connections}"),
    ("fc", "%{frontend-connections}"),
    ("bc", "%{backend-in-flight}"),
    ("sc", "%{server-in-flight}"),
    ("rc", "%{retries}"),
    ("sq", "0"),
    ("bq", "%{queue}"),
    ("CC", "%{request-cookie}"),
    ("CS", "%{response-cookie}"),
    ("hr", "%{captures}"),
    ("hs", "%{response-captures}"),
    ("r", "%{request-line}"),
    ("HM", "%{method}"),
    ("HP", "%{path}"),
    ("HU", "%{uri}"),
    ("HV", "%{version}"),
    ("ID", "%{request-id}"),
    ("sslc", "%{tls-cipher}"),
    ("sslv", "%{tls-version}"),
];

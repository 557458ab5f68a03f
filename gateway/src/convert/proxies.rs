//! Sections and what stands in them, line by line.

use std::collections::HashMap;

use super::edited::Edited;
use super::haproxy::{Line, Section};
use super::outline::Node;
use super::{
    Conversion, checks, global, maps, persistence, protocols, servers, stats, tables, timeouts, variables, words,
};

/// Converts all sections.
pub(super) fn convert(conversion: &mut Conversion, sections: &[Section]) {
    let sections = &settle_defaults(sections);
    timeouts::note_missing(conversion, sections);
    add_maps(conversion, sections);
    conversion.tables = tables::Tables::of(sections);
    conversion.edited = Edited::of(sections);
    for section in sections {
        match section.kind.as_str() {
            "global" => global::global(conversion, section),
            "defaults" => {
                let node = Node::new("defaults");
                let node = section.name.iter().fold(node, |node, name| node.arg(name));
                let block = conversion.outline.add(None, node, section.line, "defaults");
                conversion.outline.open(block);
                if let Some(from) = &section.from {
                    let message = format!("`from {from}` was left out: defaults take nothing from each other");
                    conversion.note(section.line, message);
                }
                Proxy::new(conversion, section, block).settings();
            }
            "frontend" | "backend" | "listen" if is_disabled(section) => {
                let reason = "it is `disabled`: take that word out, and it is converted";
                leave_out_section(conversion, section, reason);
            }
            "frontend" | "listen" if stats::is_stats(section) => stats::convert(conversion, section),
            "frontend" => {
                let block = open(conversion, "frontend", section);
                Proxy::new(conversion, section, block).frontend();
            }
            "backend" if tables::is_only_a_table(section) => {
                conversion.note(section.line, "not needed: limits count for themselves");
            }
            "backend" => {
                let block = open(conversion, "backend", section);
                Proxy::new(conversion, section, block).backend();
            }
            "listen" => listen(conversion, section),
            "resolvers" => global::resolver(conversion, section),
            kind => {
                let advice = match kind {
                    "userlist" => "; passwords are a plugin's: plugin \"users\" builtin=\"basic-auth\"",
                    "peers" => "; what is counted and learned is told to no other process",
                    "http-errors" => "; pages are said one by one: error-page 503 \"503.http\"",
                    "log-forward" | "ring" => "; lines go to where `log` of `process` says",
                    "crt-store" => "; certificates are named in `tls` of each `bind`",
                    _ => "",
                };
                leave_out_section(
                    conversion,
                    section,
                    &format!("there are no sections of this kind: {kind}{advice}"),
                );
            }
        }
    }
}

fn leave_out_section(conversion: &mut Conversion, section: &Section, reason: &str) {
    let name = section.name.as_deref().unwrap_or_default();
    let original = format!("{} {name}", section.kind);
    conversion.outline.add_left_out(None, section.line, &original, reason);
    conversion.note(section.line, format!("left out: {reason}"));
}

/// Whether the last that it says of that is `disabled`.
fn is_disabled(section: &Section) -> bool {
    let mut lines = section.lines.iter();
    let said = lines.rfind(|line| line.words.len() == 1 && matches!(line.keyword(), "disabled" | "enabled"));
    said.is_some_and(|line| line.keyword() == "disabled")
}

/// The maps that lines look something up in, each once.
fn add_maps(conversion: &mut Conversion, sections: &[Section]) {
    let mut said: Vec<Node> = Vec::new();
    for line in sections.iter().flat_map(|section| &section.lines) {
        for node in line.words.iter().flat_map(|word| maps::nodes(word)) {
            if !said.contains(&node) {
                said.push(node.clone());
                conversion.outline.add(None, node, line.number, &line.text);
            }
        }
    }
}

/// Says in every section what HAProxy takes from where it stands: the `defaults` before it, and its mode, which is `tcp`
/// where nobody says one.
fn settle_defaults(sections: &[Section]) -> Vec<Section> {
    let mut settled: Vec<Section> = sections.to_vec();
    let is_proxy = |section: &Section| matches!(section.kind.as_str(), "frontend" | "backend" | "listen");
    let mut modes: HashMap<Option<String>, Option<String>> = HashMap::new();
    // Their `default-server` has no place of its own here.
    let mut servers: HashMap<Option<String>, Vec<Line>> = HashMap::new();
    // Two lines there are one node here: a section that says one of them has to say the other, too.
    let mut tries: HashMap<Option<String>, Vec<Line>> = HashMap::new();
    // Nor have they a place where requests go.
    let mut leads: HashMap<Option<String>, Line> = HashMap::new();
    // Nor has what they say of checks.
    let mut said_of_checks: HashMap<Option<String>, Vec<Line>> = HashMap::new();
    let mut latest: Option<String> = None;
    let mut is_first = true;
    for section in &mut settled {
        let own = section.lines.iter().find(|line| line.keyword() == "mode");
        let own = own.and_then(|line| line.word(1)).map(str::to_owned);
        if section.kind == "defaults" {
            // Ours without a name hold for the whole file: only the first ones, with no proxy before them, can be those.
            if section.name.is_none() && !is_first {
                section.name = Some(format!("line-{}", section.line));
            }
            is_first = false;
            latest.clone_from(&section.name);
            let inherited = section
                .from
                .as_ref()
                .and_then(|from| modes.get(&Some(from.clone())).cloned().flatten());
            if own.is_none()
                && let Some(mode) = &inherited
            {
                section.lines.insert(0, mode_line(section.line, mode));
            }
            modes.insert(section.name.clone(), own.or(inherited));
            let mut lines: Vec<Line> = section.lines.clone();
            lines.retain(|line| line.keyword() == "default-server");
            if let Some(from) = &section.from {
                lines.extend(servers.get(&Some(from.clone())).cloned().unwrap_or_default());
            }
            servers.insert(section.name.clone(), lines);
            let lead = section.lines.iter().rfind(|line| line.keyword() == "default_backend");
            if let Some(lead) = lead.cloned() {
                section.lines.retain(|line| line.keyword() != "default_backend");
                leads.insert(section.name.clone(), lead);
            }
            let about = section.lines.iter().filter(|line| half_of_retries(line).is_some());
            tries.insert(section.name.clone(), about.cloned().collect());
            let own = section.lines.iter().filter(|line| checks::part(line).is_some());
            let mut lines: Vec<Line> = own.cloned().collect();
            if let Some(from) = &section.from {
                let inherited = said_of_checks.get(&Some(from.clone())).cloned().unwrap_or_default();
                checks::inherit(&mut lines, &inherited);
            }
            said_of_checks.insert(section.name.clone(), lines);
        } else if is_proxy(section) {
            is_first = false;
            if section.from.is_none() {
                section.from.clone_from(&latest);
            }
            let is_said = own.is_some() || modes.get(&section.from).is_some_and(Option::is_some);
            if !is_said {
                section.lines.insert(0, mode_line(section.line, "tcp"));
            }
            let leads_itself = |line: &Line| line.keyword() == "default_backend";
            if let Some(lead) = leads.get(&section.from).filter(|_| section.kind == "frontend")
                && !section.lines.iter().any(leads_itself)
            {
                section.lines.push(lead.clone());
            }
            if section.kind != "frontend" {
                // Behind the section's own, which go first.
                let lines = servers.get(&section.from).cloned().unwrap_or_default();
                section.lines.extend(lines);
                let own: Vec<&str> = section.lines.iter().filter_map(half_of_retries).collect();
                let inherited = tries.get(&section.from).into_iter().flatten();
                let other = inherited.filter(|line| half_of_retries(line).is_some_and(|half| !own.contains(&half)));
                let other: Vec<Line> = other.filter(|_| !own.is_empty()).cloned().collect();
                section.lines.extend(other);
                if checks::are_wanted(section) {
                    let inherited = said_of_checks.get(&section.from).cloned().unwrap_or_default();
                    checks::inherit(&mut section.lines, &inherited);
                }
            }
        }
    }
    settled
}

/// Which half of `retries 3 redispatch="last"` a line says: how many, or where they go.
fn half_of_retries(line: &Line) -> Option<&'static str> {
    match (line.keyword(), line.word(1), line.word(2)) {
        ("retries", ..) => Some("retries"),
        ("option", Some("redispatch"), _) | ("no", Some("option"), Some("redispatch")) => Some("redispatch"),
        _ => None,
    }
}

/// What `defaults` say of checks.
const IN_EACH_CHECK: &str = "each backend's `check` says it here";

/// In the place of none.
pub(super) const LONGEST_TIMEOUT: &str = "24d";

/// What `clitcpka-idle`, `srvtcpka-intvl` and the like are called.
fn keep_alive(keyword: &str) -> Option<&'static str> {
    let of = keyword.strip_prefix("cli").or_else(|| keyword.strip_prefix("srv"))?;
    Some(match of {
        "tcpka-idle" => "idle",
        "tcpka-intvl" => "interval",
        "tcpka-cnt" => "count",
        _ => return None,
    })
}

fn mode_line(number: usize, mode: &str) -> Line {
    let words = vec!["mode".to_owned(), mode.to_owned()];
    Line {
        number,
        text: words.join(" "),
        words,
    }
}

fn open(conversion: &mut Conversion, kind: &str, section: &Section) -> usize {
    let name = section.name.as_deref().unwrap_or(kind);
    let original = format!("{kind} {name}");
    let node = Node::new(kind).arg(name);
    let node = section.from.iter().fold(node, |node, from| node.prop("from", from));
    let block = conversion.outline.add(None, node, section.line, &original);
    conversion.outline.open(block);
    block
}

/// A `listen` is a frontend and a backend of one name.
fn listen(conversion: &mut Conversion, section: &Section) {
    let is_backends = |line: &Line| {
        // `no option redispatch`
        let at = if line.keyword() == "no" { 2 } else { 1 };
        let word = line.word(at).unwrap_or_default();
        match line.keyword() {
            "server" | "server-template" | "balance" | "default-server" | "retries" | "http-check" | "tcp-check"
            | "cookie" | "hash-type" | "http-response" | "source" | "stick" => true,
            "stick-table" => section.lines.iter().any(|line| line.keyword() == "stick"),
            "option" | "no" => {
                matches!(word, "httpchk" | "tcp-check" | "redispatch" | "allbackups") || protocols::is_option(word)
            }
            keyword if keyword.starts_with("srvtcpka-") => true,
            "timeout" => matches!(word, "connect" | "server" | "queue" | "check" | "tunnel"),
            _ => false,
        }
    };
    let says = |line: &Line, name: &str| line.words.iter().any(|word| word.trim_start_matches('!') == name);
    // Acls are those of whoever asks them; what nobody asks is the frontend's.
    let asks = |is_backend: bool, acl: &Line| {
        let name = acl.word(1).unwrap_or_default();
        let mut others = section.lines.iter().filter(|line| line.keyword() != "acl");
        others.any(|line| is_backends(line) == is_backend && says(line, name))
    };
    let is_of = |line: &Line, wants_backend: bool| match line.keyword() {
        "mode" => true,
        "acl" if wants_backend => asks(true, line),
        "acl" => asks(false, line) || !asks(true, line),
        _ => is_backends(line) == wants_backend,
    };
    let part = |wants_backend: bool| Section {
        lines: section
            .lines
            .iter()
            .filter(|line| is_of(line, wants_backend))
            .cloned()
            .collect(),
        ..section.clone()
    };
    let front = open(conversion, "frontend", section);
    Proxy::new(conversion, &part(false), front).frontend();
    let name = section.name.as_deref().unwrap_or("listen");
    let leads = Node::new("default-backend").arg(name);
    conversion.outline.add(Some(front), leads, section.line, "listen");
    let back = open(conversion, "backend", section);
    Proxy::new(conversion, &part(true), back).backend();
}

/// A line becomes a comment, and a finding.
pub(super) fn leave_out(conversion: &mut Conversion, block: usize, line: &Line, reason: &str) {
    conversion
        .outline
        .add_left_out(Some(block), line.number, &line.text, reason);
    conversion.note(line.number, format!("left out: {reason}"));
}

/// The rules that one rule is gone through with: their keyword, and of connections the word behind it.
pub(super) type Stage = (String, Option<String>);

/// Whom rules are not asked about.
pub(super) enum Exempt {
    /// Whom this condition holds for.
    Those(String),
    /// Some of whom nothing can be said here.
    Unsaid,
    /// Everybody, or everybody as far as can be seen here: why.
    All(&'static str),
}

/// A frontend, backend or defaults in the making.
pub(super) struct Proxy<'a> {
    pub(super) conversion: &'a mut Conversion,
    pub(super) section: &'a Section,
    pub(super) block: usize,
    /// The acls of conditions that had none, by what they ask.
    pub(super) anonymous: HashMap<Vec<String>, String>,
    /// Whom `tcp-request … accept` and `http-request allow` let through, by line and stage: the rules of that stage that follow do not
    /// ask about them.
    pub(super) accepted: Vec<(usize, Stage, Exempt)>,
    request: Option<usize>,
    response: Option<usize>,
}

impl<'a> Proxy<'a> {
    fn new(conversion: &'a mut Conversion, section: &'a Section, block: usize) -> Self {
        Self {
            conversion,
            section,
            block,
            anonymous: HashMap::new(),
            accepted: Vec::new(),
            request: None,
            response: None,
        }
    }

    /// Adds what a line says.
    pub(super) fn say(&mut self, line: &Line, node: Node) -> usize {
        self.conversion
            .outline
            .add(Some(self.block), node, line.number, &line.text)
    }

    pub(super) fn leave_out(&mut self, line: &Line, reason: &str) {
        leave_out(self.conversion, self.block, line, reason);
    }

    fn settings(&mut self) {
        for line in &self.section.lines {
            if !self.setting(line) {
                self.leave_out(
                    line,
                    &format!("there is no counterpart of `{}` here", words::subject(line)),
                );
            }
        }
    }

    fn frontend(&mut self) {
        self.acls();
        if self.is_http() && self.section.kind == "frontend" && !self.says("default_backend") {
            let message = "no `default_backend` is said: what no `use_backend` takes gets 404 here, and 503 of HAProxy";
            self.conversion.note(self.section.line, message);
        }
        for line in self.in_order() {
            match line.keyword() {
                "use_backend" if self.is_about_what_was_edited(line) => {}
                "acl" => {}
                "bind" => servers::bind(self, line),
                "default_backend" => {
                    self.say(line, Node::new("default-backend").arg(line.word(1).unwrap_or_default()));
                }
                "use_backend" => match variables::variables(line.word(1).unwrap_or_default()) {
                    Ok(name) => self.conditional(line, Node::new("use-backend").arg(name), line.rest(2)),
                    Err(reason) => self.leave_out(line, &reason),
                },
                _ if self.monitor(line) => {}
                _ => self.common(line),
            }
        }
    }

    fn backend(&mut self) {
        self.acls();
        checks::check(self);
        for line in self.in_order() {
            match line.keyword() {
                "acl" | "default-server" | "http-check" | "tcp-check" => {}
                "server" | "server-template" => servers::server(self, line),
                _ => self.common(line),
            }
        }
    }

    /// The lines in the order in which they are obeyed: `redirect` comes behind all `http-request`, wherever it stands.
    fn in_order(&self) -> impl Iterator<Item = &'a Line> + use<'a> {
        let section = self.section;
        let is_last = |line: &&Line| line.keyword() == "redirect";
        let first = section.lines.iter().filter(move |line| !is_last(line));
        first.chain(section.lines.iter().filter(is_last))
    }

    /// Whether its mode is HTTP.
    pub(super) fn is_http(&self) -> bool {
        self.conversion.tables.is_http(self.section)
    }

    /// Leaves a line out whose condition would ask something else here, and says so of one whose condition may.
    fn is_about_what_was_edited(&mut self, line: &Line) -> bool {
        let reason = self.asks_for_what_was_edited(line);
        match &reason {
            Some(reason) => self.leave_out(line, reason),
            None => self.note_what_frontends_edit(line),
        }
        reason.is_some()
    }

    fn common(&mut self, line: &Line) {
        let known = match line.keyword() {
            "http-request" | "redirect" if self.is_about_what_was_edited(line) => true,
            "http-request" if self.forwarded_header(line) || self.captured(line) => true,
            "http-request" | "http-response" | "http-after-response" | "tcp-request" => {
                self.rule(line);
                true
            }
            "redirect" => {
                self.redirect(line, line.rest(1));
                true
            }
            _ => self.setting(line),
        };
        if !known {
            let reason = match line.keyword() {
                "stats" => "the stats page has a bind of its own here: stats { bind \"127.0.0.1:8404\" }".to_owned(),
                _ => format!("there is no counterpart of `{}`", words::subject(line)),
            };
            self.leave_out(line, &reason);
        }
    }

    /// What may stand in `defaults` too. False when the line is none of that.
    fn setting(&mut self, line: &Line) -> bool {
        if self.transform(line) {
            return true;
        }
        let first = line.word(1).unwrap_or_default();
        let node = match (line.keyword(), first) {
            ("mode", mode) => Node::new("mode").arg(mode),
            ("timeout", "connect" | "client" | "server" | "http-request" | "http-keep-alive" | "queue" | "tunnel") => {
                let time = line.word(2).unwrap_or_default();
                let time = match words::is_no_time(time) {
                    true => {
                        let message =
                            format!("`timeout {first} 0` is for ever, and {LONGEST_TIMEOUT} the longest here");
                        self.conversion.note(line.number, message);
                        LONGEST_TIMEOUT.to_owned()
                    }
                    false => words::duration(time),
                };
                Node::new("timeout").prop(first, time)
            }
            // Said with the check, of which `defaults` have none.
            ("timeout", "check") | ("option", "httpchk" | "tcp-check") | ("http-check" | "tcp-check", _)
                if self.section.kind == "defaults" =>
            {
                self.conversion.note(line.number, IN_EACH_CHECK);
                return true;
            }
            ("option", option) if protocols::is_option(option) => {
                match self.section.kind.as_str() {
                    // Read together with the check.
                    "backend" | "listen" => {}
                    "defaults" => self.conversion.note(line.number, IN_EACH_CHECK),
                    _ => self.leave_out(line, IN_EACH_CHECK),
                }
                return true;
            }
            ("timeout", "check") => return true,
            ("maxconn", number) => match number.parse() {
                Ok(number) => Node::new("max-connections").number(number),
                Err(_) => return false,
            },
            ("rate-limit", "sessions") => match line.word(2).and_then(|rate| rate.parse::<u32>().ok()) {
                Some(rate) if rate > 0 => Node::new("max-connection-rate").arg(format!("{rate}/s")),
                // HAProxy's 0 is no limit.
                Some(_) => return true,
                None => return false,
            },
            ("retries", number) => match number.parse() {
                Ok(number) => Node::new("retries")
                    .number(number)
                    .prop("redispatch", self.redispatch()),
                Err(_) => return false,
            },
            ("option", "redispatch") if self.says("retries") => return true,
            // Three, as HAProxy without `retries`.
            ("option", "redispatch") => Node::new("retries").number(3).prop("redispatch", self.redispatch()),
            ("no", "option") if half_of_retries(line).is_some() => {
                if self.says("retries") {
                    return true;
                }
                Node::new("retries").number(3).prop("redispatch", self.redispatch())
            }
            ("option", "http-server-close") => Node::new("server-close"),
            ("option", "httpclose" | "forceclose") => {
                // One request a connection, on both sides.
                if self.section.kind != "backend" {
                    self.say(line, Node::new("http-keep-alive").number_prop("max-requests", 1));
                }
                if matches!(self.section.kind.as_str(), "backend" | "defaults") {
                    self.say(line, Node::new("server-close"));
                }
                return true;
            }
            ("option", "allbackups") => Node::new("all-backups"),
            ("option", "clitcpka" | "srvtcpka" | "tcpka") => {
                let message = "not needed: TCP keep-alive is on for both sides; `tcp-keep-alive` sets its times";
                self.conversion.note(line.number, message);
                return true;
            }
            ("log", target) if target != "global" => {
                let reason =
                    "declare it with a name, process { log \"…\" name=\"audit\" }, and name it here: log \"audit\"";
                self.leave_out(line, reason);
                return true;
            }
            // How lines look is settled by the frontend's mode; that there are lines is the default.
            ("option", "httplog") if line.word(2) == Some("clf") => {
                let message = "`clf` was left out: lines look as those of `option httplog` do, or as `log-format` says";
                self.conversion.note(line.number, message);
                return true;
            }
            ("log", "global") | ("option", "tcplog" | "httplog") => return true,
            // What it says last of that, it says of all of the section.
            ("enabled" | "disabled", "") => return true,
            // Read together with the check.
            ("option", "httpchk" | "tcp-check") => return true,
            (
                "option",
                "splice-auto" | "splice-request" | "splice-response" | "http-keep-alive" | "tcp-smart-accept"
                | "tcp-smart-connect" | "http-no-delay" | "abortonclose" | "log-health-checks" | "contstats",
            ) => {
                self.conversion
                    .note(line.number, "not needed: it is how the gateway works");
                return true;
            }
            (keyword, _) if keep_alive(keyword).is_some() => return self.keep_alive(line),
            // Said at the servers.
            ("default-server", _) if self.section.kind == "defaults" => return true,
            ("backlog", _) => {
                self.leave_out(line, "each `bind` says it: backlog=1024");
                return true;
            }
            ("balance", way) => servers::balance(self.section, way, line),
            ("source", from) if line.word(2).is_none() => match words::source(from) {
                Some(from) => Node::new("source").arg(from.to_string()),
                None => return false,
            },
            // Said with `balance`.
            ("hash-type", _) => return true,
            ("errorfile", status) => match status.parse() {
                Ok(status) => Node::new("error-page")
                    .number(status)
                    .arg(line.word(2).unwrap_or_default()),
                Err(_) => return false,
            },
            ("stick", _) => return persistence::stick(self, line),
            // Said with `stick`, where there is one.
            ("stick-table", _) if self.says("stick") => return true,
            ("stick-table", _) => return self.counting_table(line),
            ("retry-on", _) => {
                let (early, words): (Vec<_>, Vec<_>) = line.rest(1).iter().partition(|word| **word == "0rtt-rejected");
                if !early.is_empty() {
                    let message = "`0rtt-rejected` was left out: no early data is sent to servers";
                    self.conversion.note(line.number, message);
                }
                match words.as_slice() {
                    // What is not named is not retried, connections that fail among it.
                    [] => Node::new("retry-on").arg("none"),
                    words => words
                        .iter()
                        .fold(Node::new("retry-on"), |node, word| match word.parse() {
                            Ok(status) => node.number(status),
                            Err(_) => node.arg(*word),
                        }),
                }
            }
            ("http-reuse", reuse) => Node::new("pool").prop("reuse", reuse),
            ("cookie", _) => {
                persistence::cookie(self, line);
                return true;
            }
            _ => return false,
        };
        self.say(line, node);
        true
    }

    /// `clitcpka-idle` and the like, of which ours has all in one node.
    fn keep_alive(&mut self, line: &Line) -> bool {
        let all = self.section.lines.iter();
        let all: Vec<&Line> = all.filter(|line| keep_alive(line.keyword()).is_some()).collect();
        if all.first().is_none_or(|first| first.number != line.number) {
            // The first one has said it.
            return true;
        }
        let mut node = Node::new("tcp-keep-alive");
        for property in ["idle", "interval", "count"] {
            let mut said = all.iter().filter(|line| keep_alive(line.keyword()) == Some(property));
            let Some(value) = said.next().and_then(|line| line.word(1)) else {
                continue;
            };
            if let Some(other) = said.find(|line| line.word(1) != Some(value)) {
                let message = "of two sides that differ, `defaults` here say the first for both";
                self.conversion.note(other.number, message);
            }
            node = match value.parse() {
                Ok(number) if property == "count" => node.number_prop(property, number),
                // Seconds, other than everywhere else.
                Ok(seconds) => node.prop(property, format!("{seconds}s")),
                Err(_) => node.prop(property, value),
            };
        }
        self.say(line, node);
        true
    }

    /// Which retries go to another server: the last with `option redispatch`, each with 1 behind it, none without.
    fn redispatch(&self) -> &'static str {
        let option = |line: &&Line| half_of_retries(line) == Some("redispatch");
        match self.section.lines.iter().rfind(option) {
            Some(line) if line.keyword() == "option" && line.word(2) == Some("1") => "each",
            Some(line) if line.keyword() == "option" => "last",
            _ => "off",
        }
    }

    pub(super) fn says(&self, keyword: &str) -> bool {
        self.section.lines.iter().any(|line| line.keyword() == keyword)
    }

    /// The block of edits.
    pub(super) fn edits(&mut self, line: &Line, is_response: bool) -> usize {
        let (slot, name) = match is_response {
            true => (self.response, "response"),
            false => (self.request, "request"),
        };
        if let Some(block) = slot {
            return block;
        }
        let block = self.say(line, Node::new(name));
        match is_response {
            true => self.response = Some(block),
            false => self.request = Some(block),
        }
        block
    }
}

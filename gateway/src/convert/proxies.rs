//! Sections and what stands in them, line by line.

use std::collections::HashMap;

use super::accepts::{Exempt, Stage};
use super::edited::Edited;
use super::haproxy::{Line, Section};
use super::outline::Node;
use super::{
    Conversion, checks, defaults, global, maps, protocols, servers, stats, tables, timeouts, variables, words,
};

/// Converts all sections.
pub(super) fn convert(conversion: &mut Conversion, sections: &[Section]) {
    let sections = &defaults::settle(sections);
    timeouts::note_missing(conversion, sections);
    add_maps(conversion, sections);
    conversion.tables = tables::Tables::of(sections);
    conversion.edited = Edited::of(sections);
    conversion.unix_bind = global::unix_bind(sections);
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

//! Sections and what stands in them, line by line.

use std::collections::HashMap;

use super::accepts::{Exempt, Stage};
use super::edited::Edited;
use super::haproxy::{Line, Section};
use super::outline::Node;
use super::pages::{self, Pages};
use super::userlists::{self, Userlists};
use super::{
    Conversion, checks, defaults, global, maps, protocols, servers, stats, tables, timeouts, variables, words,
};

/// Converts all sections.
pub(super) fn convert(conversion: &mut Conversion, sections: &[Section]) {
    let sections = &maps::told_apart(&defaults::settle(sections));
    timeouts::note_missing(conversion, sections);
    add_maps(conversion, sections);
    conversion.tables = tables::Tables::of(sections);
    conversion.edited = Edited::of(sections);
    conversion.unix_bind = global::unix_bind(sections);
    conversion.userlists = Userlists::of(sections);
    conversion.pages = Pages::of(sections);
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
            // Said where they are asked.
            "userlist" | "http-errors" => {}
            kind => {
                let advice = match kind {
                    "peers" => "; what is counted and learned is told to no other process",
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
    userlists::leave_out_unused(conversion, sections);
    pages::leave_out_unused(conversion, sections);
}

pub(super) fn leave_out_section(conversion: &mut Conversion, section: &Section, reason: &str) {
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
            "server"
            | "server-template"
            | "balance"
            | "default-server"
            | "retries"
            | "http-check"
            | "tcp-check"
            | "cookie"
            | "hash-type"
            | "http-response"
            | "source"
            | "stick"
            | "retry-on"
            | "http-reuse"
            | "fullconn"
            | "use-server"
            | "dynamic-cookie-key"
            | "http-send-name-header" => true,
            "stick-table" => section.lines.iter().any(|line| line.keyword() == "stick"),
            "option" | "no" => {
                let of_servers = ["httpchk", "tcp-check", "redispatch", "allbackups", "http-server-close"];
                of_servers.contains(&word) || protocols::is_option(word)
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
        // Of both sides' connections.
        "option" if matches!(line.word(1), Some("httpclose" | "forceclose")) => true,
        "acl" if wants_backend => asks(true, line),
        "acl" => asks(false, line) || !asks(true, line),
        _ => is_backends(line) == wants_backend,
    };
    let part = |wants_backend: bool| Section {
        kind: if wants_backend { "backend" } else { "frontend" }.to_owned(),
        lines: section
            .lines
            .iter()
            .filter(|line| is_of(line, wants_backend))
            .cloned()
            .collect(),
        ..section.clone()
    };
    let front = open(conversion, "frontend", section);
    let mut own = part(false);
    own.lines.push(Line {
        number: section.line,
        words: vec![
            "default_backend".to_owned(),
            section.name.clone().unwrap_or_else(|| "listen".to_owned()),
        ],
        text: "listen".to_owned(),
    });
    Proxy::new(conversion, &own, front).frontend();
    let back = open(conversion, "backend", section);
    Proxy::new(conversion, &part(true), back).backend();
}

/// Why a line is left out that has no counterpart.
fn none_here(line: &Line) -> String {
    match line.keyword() {
        "stats" => "the stats page has a bind of its own here: stats { bind \"127.0.0.1:8404\" }".to_owned(),
        _ => format!("there is no counterpart of `{}` here", words::subject(line)),
    }
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
                self.leave_out(line, &none_here(line));
            }
        }
    }

    fn frontend(&mut self) {
        let mut acls = self.section.lines.iter().filter(|line| line.keyword() == "acl");
        let first_acl = acls.next().map(|line| line.number);
        let leads_all =
            |line: &Line| line.keyword() == "use_backend" && words::split_condition(line.rest(1)).1.is_none();
        if self.is_http() && !self.says("default_backend") && !self.section.lines.iter().any(leads_all) {
            let message = "no `default_backend` is said: what no `use_backend` takes gets 404 here, and 503 of HAProxy";
            self.conversion.note(self.section.line, message);
        }
        for line in self.in_order() {
            match line.keyword() {
                _ if self.never_applies(line) => {}
                "use_backend" if self.is_about_what_was_edited(line) => {}
                // All of them where the first stands: behind the binds, mostly.
                "acl" if Some(line.number) == first_acl => self.acls(),
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
                _ if self.never_applies(line) => {}
                "acl" | "default-server" | "http-check" | "tcp-check" => {}
                "server" | "server-template" => servers::server(self, line),
                _ => self.common(line),
            }
        }
        self.serve_nothing();
    }

    /// Says of a backend without servers what HAProxy answers there, where no rule answers everything.
    fn serve_nothing(&mut self) {
        let section = self.section;
        let serves = |line: &Line| {
            let is_transparent = matches!(line.word(1), Some("transparent" | "http_proxy"));
            matches!(
                line.keyword(),
                "server" | "server-template" | "dispatch" | "use-fcgi-app"
            ) || (line.keyword() == "option" && is_transparent)
        };
        let answers_all = |line: &Line| {
            let is_answer = match line.keyword() {
                "redirect" => true,
                "http-request" => matches!(line.word(1), Some("deny" | "tarpit" | "redirect" | "return")),
                _ => false,
            };
            is_answer && words::split_condition(line.rest(1)).1.is_none()
        };
        let mut lines = section.lines.iter();
        if self.is_http() && !lines.any(|line| serves(line) || answers_all(line)) {
            let node = Node::new("deny").number_prop("status", 503);
            let original = format!("backend {}", section.name.as_deref().unwrap_or_default());
            self.conversion
                .outline
                .add(Some(self.block), node, section.line, &original);
            let message = "it has no servers, and answers 503, as HAProxy does";
            self.conversion.note(section.line, message);
        }
    }

    /// The lines in the order in which they are obeyed: `tcp-request` comes before all `http-request`, and `redirect` behind them,
    /// wherever they stand.
    fn in_order(&self) -> impl Iterator<Item = &'a Line> + use<'a> {
        let turn = |line: &Line| match line.keyword() {
            "tcp-request" => Some(0),
            "http-request" => Some(1),
            "redirect" => Some(2),
            _ => None,
        };
        let section = self.section;
        let mut rules: Vec<&'a Line> = section.lines.iter().filter(|line| turn(line).is_some()).collect();
        rules.sort_by_key(|line| turn(line));
        let mut rules = rules.into_iter();
        section.lines.iter().map(move |line| match turn(line) {
            Some(_) => rules.next().unwrap_or(line),
            None => line,
        })
    }

    /// Notes of a rule whose condition never holds that it is not needed.
    fn never_applies(&mut self, line: &Line) -> bool {
        let never = words::never_applies(line);
        if never {
            self.conversion
                .note(line.number, "not needed: its condition never holds");
        }
        never
    }

    /// Whether it is a backend, or what a `listen` has of one.
    pub(super) fn is_backend(&self) -> bool {
        self.section.kind == "backend"
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
            "tcp-request" if line.word(2) == Some("reject") && self.is_about_what_was_edited(line) => true,
            "http-request" if !self.is_backend() && self.forwarded_header(line) => true,
            "http-request" if self.captured(line) => true,
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
            self.leave_out(line, &none_here(line));
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

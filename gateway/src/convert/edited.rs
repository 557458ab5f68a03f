//! What is asked of a request that a rule has changed. HAProxy asks about what its edits have left; here acls are asked about the
//! request as it came: carried over, `use_backend admin if { hdr(x-admin) -m found }` behind `del-header X-Admin` would let a client
//! choose.

use std::fmt;

use super::edits;
use super::haproxy::{Line, Section};
use super::proxies::Proxy;
use super::trusted::{self, Trusted};
use super::words::{self, Term};

/// A part of a request that both edits and acls are about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// The header of this name, in lower case.
    Header(String),
    Path,
    Query,
    /// The client's address.
    Source,
}

/// What frontends change, and where they lead.
#[derive(Debug, Default)]
pub(super) struct Edited(Vec<Frontend>);

#[derive(Debug)]
struct Frontend {
    leads_to: Vec<String>,
    /// It tells servers who the client is: `option forwardfor`.
    forwards: bool,
    /// By the numbers of the lines.
    edits: Vec<(usize, Part)>,
}

/// Whether a rule somewhere changes what an expression asks for.
pub(super) fn is_changed(sections: &[Section], expression: &str) -> bool {
    let Some(part) = Part::asked_by(&[expression.to_owned()]) else {
        return false;
    };
    let mut lines = sections.iter().flat_map(|section| &section.lines);
    lines.any(|line| Part::edited_by(line).contains(&part))
}

impl Edited {
    pub(super) fn of(sections: &[Section]) -> Self {
        let is_frontend = |section: &&Section| matches!(section.kind.as_str(), "frontend" | "listen");
        let frontends = sections.iter().filter(is_frontend);
        Self(frontends.map(|section| Frontend::of(section, sections)).collect())
    }

    /// Whether all of the frontends that lead to a backend tell servers who the client is, or none; nothing where it is some.
    pub(super) fn forwards(&self, backend: &str) -> Option<bool> {
        let mut said = self
            .0
            .iter()
            .filter(|frontend| frontend.leads(backend))
            .map(|frontend| frontend.forwards);
        let first = said.next().unwrap_or_default();
        said.all(|other| other == first).then_some(first)
    }

    /// The first of these parts that is changed on the way to a backend, and in which line.
    fn before(&self, backend: &str, asked: &[Part]) -> Option<&(usize, Part)> {
        let leads = self.0.iter().filter(|frontend| frontend.leads(backend));
        let mut edits = leads.flat_map(|frontend| &frontend.edits);
        edits.find(|(_, part)| asked.contains(part))
    }
}

impl Frontend {
    fn of(section: &Section, sections: &[Section]) -> Self {
        let mut defaults = sections
            .iter()
            .filter(|other| other.kind == "defaults" && other.name == section.from);
        let says = |section: &Section| {
            let mut lines = section.lines.iter();
            lines.any(|line| line.keyword() == "option" && line.word(1) == Some("forwardfor"))
        };
        let leads = |line: &&Line| matches!(line.keyword(), "default_backend" | "use_backend");
        let leads_to = section.lines.iter().filter(leads).filter_map(|line| line.word(1));
        let mut edits = Vec::new();
        let by = Trusted::said(section).map(|(line, _)| line);
        let is_edit =
            |line: &&Line| Some(line.number) != by && (by.is_none() || !trusted::is_dropped_of_others(section, line));
        for line in section.lines.iter().filter(is_edit) {
            edits.extend(Part::edited_by(line).into_iter().map(|part| (line.number, part)));
        }
        Self {
            leads_to: leads_to.map(str::to_owned).collect(),
            forwards: says(section) || defaults.any(says),
            edits,
        }
    }

    /// Whether it leads to a backend.
    fn leads(&self, backend: &str) -> bool {
        // A name that is looked up may be any.
        self.leads_to.iter().any(|to| to == backend || to.contains('%'))
    }
}

impl Proxy<'_> {
    /// Says of a backend's line that its condition asks for what a frontend may have changed by then.
    pub(super) fn note_what_frontends_edit(&mut self, line: &Line) {
        if self.section.kind != "backend" {
            return;
        }
        let Some((_, condition)) = words::split_condition(line.rest(1)).1 else {
            return;
        };
        let asked = self.asked_parts(condition);
        let backend = self.section.name.as_deref().unwrap_or_default();
        if let Some((number, part)) = self.conversion.edited.before(backend, &asked) {
            let message = format!(
                "line {number} may have changed {part} by then, and acls are asked about the request as it came"
            );
            self.conversion.note(line.number, message);
        }
    }

    /// Why a line cannot be carried over: its condition asks for what an edit of its section has changed by then. None where it
    /// does not.
    pub(super) fn asks_for_what_was_edited(&self, line: &Line) -> Option<String> {
        let condition = words::split_condition(line.rest(1)).1?.1;
        let asked = self.asked_parts(condition);
        let by = Trusted::said(self.section).map(|(line, _)| line);
        // It is known from the start.
        if by == Some(line.number) {
            return None;
        }
        // Of rules about connections, `reject` asks who has connected here, too; those about what comes over them have become others.
        let is_of_content = line.keyword() == "tcp-request";
        let is_asked_before = |number: &usize| match line.keyword() {
            "tcp-request" => line.word(1) != Some("connection"),
            "http-request" => line.number < *number,
            _ => false,
        };
        if let Some(number) = by.filter(|number| asked.contains(&Part::Source) && is_asked_before(number))
            && !trusted::is_dropped_of_others(self.section, line)
        {
            return Some(format!(
                "it asks who has connected, and acls are asked about the client that line {number} knows by then"
            ));
        }
        // All edits come behind it.
        if is_of_content {
            return None;
        }
        // `redirect` and `use_backend` come behind all of these, wherever they stand.
        let is_before = |edit: &&Line| {
            (line.keyword() != "http-request" || edit.number < line.number)
                && Some(edit.number) != by
                && (by.is_none() || !trusted::is_dropped_of_others(self.section, edit))
        };
        let mut edits = self.section.lines.iter().filter(is_before);
        edits.find_map(|edit| {
            let part = Part::edited_by(edit).into_iter().find(|part| asked.contains(part))?;
            let number = edit.number;
            Some(format!(
                "line {number} has changed {part} by then, and acls are asked about the request as it came"
            ))
        })
    }

    fn asked_parts(&self, condition: &[String]) -> Vec<Part> {
        let mut parts = Vec::new();
        // One that cannot be read is left out for that.
        for term in words::terms(condition).unwrap_or_default() {
            match term {
                Term::Or => {}
                Term::Anonymous { words, .. } => parts.extend(Part::asked_by(words)),
                Term::Named { name, .. } => {
                    let lines = self.section.lines.iter();
                    let acls = lines.filter(|line| line.keyword() == "acl" && line.word(1) == Some(name));
                    parts.extend(acls.filter_map(|acl| Part::asked_by(acl.rest(2))));
                }
            }
        }
        parts
    }
}

impl Part {
    /// What a rule changes: `http-request del-header X-Admin`.
    fn edited_by(line: &Line) -> Vec<Self> {
        if line.keyword() != "http-request" {
            return Vec::new();
        }
        match line.word(1).unwrap_or_default() {
            "set-header" if edits::lowers_the_host(line) => Vec::new(),
            "set-src" => vec![Self::Source],
            "set-header" | "add-header" | "del-header" | "replace-header" | "replace-value" => {
                let name = line.word(2).map(str::to_ascii_lowercase);
                name.map(Self::Header).into_iter().collect()
            }
            "set-path" | "replace-path" => vec![Self::Path],
            "set-query" => vec![Self::Query],
            "set-pathq" | "replace-pathq" | "set-uri" | "replace-uri" => vec![Self::Path, Self::Query],
            _ => Vec::new(),
        }
    }

    /// What a criterion asks for: `hdr_beg(x-admin) y`.
    fn asked_by(criterion: &[String]) -> Option<Self> {
        let fetch = criterion.first()?;
        let fetch = fetch.strip_prefix("req.").unwrap_or(fetch);
        let (name, arguments) = fetch.split_once('(').unwrap_or((fetch, ""));
        let is_one_of = |names: &[&str]| names.iter().any(|known| name.starts_with(known));
        Some(if is_one_of(&["hdr", "fhdr"]) {
            let header = arguments.split([',', ')']).next().unwrap_or_default();
            Self::Header(header.to_ascii_lowercase())
        } else if is_one_of(&["cook"]) {
            Self::Header("cookie".to_owned())
        } else if is_one_of(&["url_param", "urlp", "query"]) {
            Self::Query
        } else if is_one_of(&["path", "url", "base"]) {
            Self::Path
        } else if name == "src" {
            Self::Source
        } else {
            return None;
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "the header `{name}`"),
            Self::Path => write!(f, "the path"),
            Self::Query => write!(f, "the query"),
            Self::Source => write!(f, "the client's address"),
        }
    }
}

//! Stick tables: which there are, and what they count over which time.

use std::collections::{HashMap, HashSet};

use super::haproxy::{Line, Section};
use super::limits::Rate;
use super::proxies::Proxy;
use super::words;

/// The tables of a configuration, and the limits that have come of them.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// By name, which is that of their section.
    pub(super) tables: HashMap<String, Table>,
    /// The names of rate limits, by what they limit.
    pub(super) limits: HashMap<Rate, String>,
    /// Sections in HTTP mode, by the lines where they begin.
    http: HashSet<usize>,
}

/// What a table counts over which time: `conn_rate(10s)`.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) periods: HashMap<String, String>,
}

impl Tables {
    /// The tables that these sections declare.
    pub(super) fn of(sections: &[Section]) -> Self {
        let mut tables = HashMap::new();
        for section in sections {
            for line in section.lines.iter().filter(|line| line.keyword() == "stick-table") {
                tables.insert(name(section), Table::of(line));
            }
        }
        let said = |section: &Section| {
            let line = section.lines.iter().find(|line| line.keyword() == "mode");
            line.and_then(|line| line.word(1)).map(|mode| mode == "http")
        };
        let is_http = |section: &&Section| {
            let mut defaults = sections
                .iter()
                .filter(|other| other.kind == "defaults" && other.name == section.from);
            said(section).or_else(|| defaults.next_back().and_then(said)) == Some(true)
        };
        Self {
            tables,
            limits: HashMap::new(),
            http: sections.iter().filter(is_http).map(|section| section.line).collect(),
        }
    }

    /// Whether a section is in HTTP mode.
    pub(super) fn is_http(&self, section: &Section) -> bool {
        self.http.contains(&section.line)
    }
}

impl Table {
    /// `stick-table type ip size 100k expire 30s store conn_cur,conn_rate(10s)`
    fn of(line: &Line) -> Self {
        let mut table = Self::default();
        let stores = line.words.windows(2).filter(|words| words[0] == "store");
        for stored in stores.flat_map(|words| words[1].split(',')) {
            let (what, period) = called(stored);
            let period = period.map(words::duration).unwrap_or_default();
            table.periods.insert(what.to_owned(), period);
        }
        table
    }
}

/// A table is known by the name of its section.
pub(super) fn name(section: &Section) -> String {
    section.name.clone().unwrap_or_else(|| section.kind.clone())
}

/// Whether a section is there for its table alone.
pub(super) fn is_only_a_table(section: &Section) -> bool {
    let says = |word: &str| section.lines.iter().any(|line| line.keyword() == word);
    let all = section
        .lines
        .iter()
        .all(|line| matches!(line.keyword(), "stick-table" | "mode"));
    section.kind == "backend" && says("stick-table") && all
}

/// `sc_conn_rate(0)`: a name and what stands in parentheses behind it.
pub(super) fn called(text: &str) -> (&str, Option<&str>) {
    match text.split_once('(') {
        Some((name, argument)) => (name, Some(argument.strip_suffix(')').unwrap_or(argument))),
        None => (text, None),
    }
}

impl Proxy<'_> {
    /// `stick-table` without `stick`: what it counts is counted by limits. False when it counts nothing.
    pub(super) fn counting_table(&mut self, line: &Line) -> bool {
        let counts = !Table::of(line).periods.is_empty();
        if counts {
            let message = "not needed: limits count for themselves";
            self.conversion.note(line.number, message);
        }
        counts
    }
}

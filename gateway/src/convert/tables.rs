//! Stick tables that count: how much a client has open, and how often it comes. A rule that turns away whoever goes beyond a
//! number becomes a limit; what else tables are asked has no counterpart, and is reported with its reason.

use std::collections::{HashMap, HashSet};

use super::acls::{grouped, none_of};
use super::haproxy::{Line, Section};
use super::outline::Node;
use super::proxies::Proxy;
use super::rules::is_status;
use super::words::{self, Polarity, Term};

/// The tables of a configuration, and the limits that have come of them.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// By name, which is that of their section.
    tables: HashMap<String, Table>,
    /// The names of rate limits, by what they limit.
    limits: HashMap<Rate, String>,
    /// Sections in HTTP mode, by the lines where they begin.
    http: HashSet<usize>,
}

/// What a table counts over which time: `conn_rate(10s)`.
#[derive(Debug, Default)]
struct Table {
    periods: HashMap<String, String>,
}

/// A comparison of a count: `sc0_conn_rate gt 20`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counted {
    /// What the configuration calls it, for who reads of it.
    fetch: String,
    count: Count,
    key: Key,
    table: String,
    /// So many are let in.
    most: u64,
    /// The line that tracks, and its condition; none where the client's address is looked up.
    tracked: Option<(Line, OnlyIf)>,
}

/// Under which condition a line says something; none when always.
type OnlyIf = Option<(Polarity, Vec<String>)>;

/// `unless="office"`, or nothing.
type Said = Option<(&'static str, String)>;

/// What a line that tracks says: the key, the table where one is named, and the condition.
type Tracking<'a> = (Key, Option<&'a str>, Option<(Polarity, &'a [String])>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Count {
    /// Connections that are open.
    Open,
    /// Connections in a time.
    Connections,
    /// Requests in a time.
    Requests,
    /// Responses in a time that are the client's fault.
    Errors,
    /// And those that are the server's.
    Failures,
}

impl Count {
    fn is_of_requests(self) -> bool {
        !matches!(self, Self::Open | Self::Connections)
    }

    /// Those of the responses that it counts; none where it counts no responses.
    fn statuses(self) -> Option<&'static str> {
        match self {
            Self::Errors => Some("400-499"),
            Self::Failures => Some("500,502-504,506-599"),
            Self::Open | Self::Connections | Self::Requests => None,
        }
    }
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// A network: so many leading bits of addresses, where that is said.
    Source { ipv4: Option<u64>, ipv6: Option<u64> },
    /// A part of the request: `key "header" "x-api-key"`.
    Request(Vec<String>),
}

/// A limit on a rate. Rules about the same count together, whichever frontends they stand in.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Rate {
    table: String,
    count: Count,
    key: Key,
    most: u64,
    period: String,
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
}

impl Tables {
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
fn name(section: &Section) -> String {
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
fn called(text: &str) -> (&str, Option<&str>) {
    match text.split_once('(') {
        Some((name, argument)) => (name, Some(argument.strip_suffix(')').unwrap_or(argument))),
        None => (text, None),
    }
}

/// Whether a criterion asks what a table counts.
pub(super) fn asks_a_table(words: &[String]) -> bool {
    words.first().is_some_and(|fetch| split(fetch).is_some())
}

/// `src_conn_rate(table)`, `sc0_conn_rate`, `sc_conn_rate(0,table)`: which counter, none for the client's address itself, what is
/// counted, and in which table, where that is said. None when it asks no table.
fn split(fetch: &str) -> Option<(Option<u8>, &str, Option<&str>)> {
    let (name, argument) = called(fetch);
    let (counter, count, table) = if let Some(count) = name.strip_prefix("src_") {
        (None, count, argument)
    } else if let Some(count) = name.strip_prefix("sc_") {
        let argument = argument?;
        let (counter, table) = argument
            .split_once(',')
            .map_or((argument, None), |(counter, table)| (counter, Some(table)));
        (Some(counter.trim().parse().ok()?), count, table.map(str::trim))
    } else {
        let rest = name.strip_prefix("sc")?;
        let (counter, count) = rest.split_once('_')?;
        (Some(counter.parse().ok()?), count, argument)
    };
    COUNTS.contains(&count).then_some((counter, count, table))
}

/// `src`, `src,ipmask(24)`, `hdr(x-api-key)`: what is counted together. Fails with the reason.
fn key(text: &str) -> Result<Key, String> {
    let none = || Err(format!("nothing here counts by `{text}`"));
    let (fetch, converter) = match text.split_once(',') {
        Some((fetch, converter)) => (fetch, Some(converter)),
        None => (text, None),
    };
    if let Some(converter) = converter {
        let ("src", ("ipmask", Some(bits))) = (fetch, called(converter)) else {
            return none();
        };
        let mut bits = bits.split(',').map(|bits| bits.trim().parse().ok());
        return match (bits.next().flatten(), bits.next()) {
            (Some(ipv4), None) => Ok(Key::Source {
                ipv4: Some(ipv4),
                ipv6: None,
            }),
            (Some(ipv4), Some(Some(ipv6))) => Ok(Key::Source {
                ipv4: Some(ipv4),
                ipv6: Some(ipv6),
            }),
            _ => none(),
        };
    }
    let (name, argument) = called(fetch.strip_prefix("req.").unwrap_or(fetch));
    let of = |kind: &str, name: &str| Ok(Key::Request(vec![kind.to_owned(), name.to_owned()]));
    match (name, argument) {
        ("src", None) => Ok(Key::Source { ipv4: None, ipv6: None }),
        ("path" | "method", None) => Ok(Key::Request(vec![name.to_owned()])),
        ("hdr" | "fhdr", Some(header)) if header.eq_ignore_ascii_case("host") => {
            Ok(Key::Request(vec!["host".to_owned()]))
        }
        ("hdr" | "fhdr", Some(header)) => of("header", &header.to_ascii_lowercase()),
        ("cook", Some(cookie)) => of("cookie", cookie),
        ("url_param" | "urlp", Some(parameter)) => of("query", parameter),
        _ => none(),
    }
}

impl Key {
    /// A node with the prefixes of addresses, where the key says any.
    fn with_prefixes(&self, node: Node) -> Node {
        let Self::Source { ipv4, ipv6 } = self else { return node };
        let node = ipv4
            .iter()
            .fold(node, |node, bits| node.number_prop("ipv4-prefix", *bits));
        ipv6.iter()
            .fold(node, |node, bits| node.number_prop("ipv6-prefix", *bits))
    }

    /// `key "client-ip"`
    fn node(&self) -> Node {
        match self {
            Self::Source { .. } => self.with_prefixes(Node::new("key").arg("client-ip")),
            Self::Request(words) => words.iter().fold(Node::new("key"), Node::arg),
        }
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

    /// `track-sc0 src`, and the rules that turn away whoever goes beyond a count. False when the line is none of that.
    pub(super) fn counting_rule(&mut self, line: &Line) -> bool {
        let at = if line.keyword() == "tcp-request" { 2 } else { 1 };
        let action = line.word(at).unwrap_or_default();
        match action {
            track if track.starts_with("track-sc") => {
                match tracked(line, at) {
                    Ok(_) => self
                        .conversion
                        .note(line.number, "not needed: limits count for themselves"),
                    Err(reason) => self.leave_out(line, &reason),
                }
                true
            }
            "reject" | "deny" | "tarpit" | "silent-drop" => {
                let is_limit = self.limiting_rule(line, line.rest(at + 1));
                if is_limit && matches!(action, "tarpit" | "silent-drop") {
                    let message =
                        format!("`{action}` of a count has become a limit: the client is answered, and at once");
                    self.conversion.note(line.number, message);
                }
                is_limit
            }
            _ => false,
        }
    }

    fn limiting_rule(&mut self, line: &Line, words: &[String]) -> bool {
        let (said, Some((polarity, condition))) = words::split_condition(words) else {
            return false;
        };
        let Ok(terms) = words::terms(condition) else {
            return false;
        };
        if !terms.iter().any(|term| self.counter(term).is_some()) {
            return false;
        }
        let limits = match polarity {
            Polarity::If => self.limits(line, &terms),
            Polarity::Unless => Err(ALONE.to_owned()),
        };
        let limits = limits.and_then(|limits| self.with_conditions(line, limits));
        match limits {
            Ok(limits) => {
                let status = said.iter().skip_while(|word| !is_status(word)).nth(1);
                self.say_limits(line, limits, status.map(String::as_str));
            }
            Err(reason) => self.leave_out(line, &reason),
        }
        true
    }

    /// The criterion of a term that asks a table, of an acl with that name too.
    fn counter<'a>(&'a self, term: &Term<'a>) -> Option<Vec<&'a [String]>> {
        match term {
            Term::Anonymous { words, .. } => asks_a_table(words).then(|| vec![*words]),
            Term::Named { name, .. } => self.counting_acl(name),
            Term::Or => None,
        }
    }

    /// The criteria of an acl, one of which has to hold, if they ask a table.
    pub(super) fn counting_acl(&self, name: &str) -> Option<Vec<&[String]>> {
        let lines = self.section.lines.iter();
        let own = lines.filter(|line| line.keyword() == "acl" && line.word(1) == Some(name));
        let criteria: Vec<_> = own.map(|line| line.rest(2)).collect();
        criteria
            .iter()
            .any(|criterion| asks_a_table(criterion))
            .then_some(criteria)
    }

    /// What is limited where each alternative of a condition is one count that is too large. Fails with the reason.
    fn limits<'t>(&self, line: &Line, terms: &[Term<'t>]) -> Result<Vec<(Counted, Vec<Term<'t>>)>, String> {
        let mut limits = Vec::new();
        for alternative in terms.split(|term| *term == Term::Or) {
            let (counts, others): (Vec<_>, Vec<_>) = alternative
                .iter()
                .copied()
                .partition(|term| self.counter(term).is_some());
            let [term] = counts.as_slice() else {
                return Err(ALONE.to_owned());
            };
            if matches!(
                term,
                Term::Anonymous { is_negated: true, .. } | Term::Named { is_negated: true, .. }
            ) {
                return Err(ALONE.to_owned());
            }
            for criterion in self.counter(term).ok_or(ALONE)? {
                limits.push((self.counted(line, criterion)?, others.clone()));
            }
        }
        Ok(limits)
    }

    fn with_conditions(
        &mut self,
        line: &Line,
        limits: Vec<(Counted, Vec<Term<'_>>)>,
    ) -> Result<Vec<(Counted, Said)>, String> {
        let mut conditional = Vec::new();
        for (counted, others) in limits {
            let condition = self.limits_condition(line, &counted, &others)?;
            conditional.push((counted, condition));
        }
        Ok(conditional)
    }

    /// Whom a limit is about: who is tracked, has been let through by no rule before, and is what else the rule asks. None where that
    /// is everybody. Fails with the reason.
    fn limits_condition(&mut self, line: &Line, counted: &Counted, others: &[Term<'_>]) -> Result<Said, String> {
        let mut exempt = self.exempt(line)?;
        let mut parts = Vec::new();
        let mut add = |(property, condition): (&'static str, String)| {
            parts.push(match property {
                "if" => grouped(&condition),
                _ => none_of(&[grouped(&condition)]),
            });
        };
        if let Some((tracking, condition)) = &counted.tracked {
            // Nor is anybody counted whom rules before that have let through.
            for one in self.exempt(tracking)? {
                if !exempt.contains(&one) {
                    exempt.push(one);
                }
            }
            if let Some((polarity, words)) = condition {
                add(self.condition(line, *polarity, words)?);
            }
        }
        if !others.is_empty() {
            add(self.condition_of(line, Polarity::If, others)?);
            let message = "what the rule asks beside the count is the limit's condition: only what it holds of is counted, where HAProxy \
                           counts all that is tracked";
            self.conversion.note(line.number, message);
        }
        Ok(match (parts.as_slice(), exempt.as_slice()) {
            ([], []) => None,
            ([], exempt) => Some(("unless", exempt.join(" or "))),
            ([one], []) => Some(match one.strip_prefix("not ") {
                Some(negated) => ("unless", negated.to_owned()),
                None => ("if", one.clone()),
            }),
            (parts, []) => Some(("if", parts.join(" and "))),
            (parts, exempt) => Some(("if", format!("{} and {}", parts.join(" and "), none_of(exempt)))),
        })
    }

    /// `sc0_conn_rate gt 20`
    fn counted(&self, line: &Line, words: &[String]) -> Result<Counted, String> {
        let (fetch, rest) = words.split_first().ok_or(ALONE)?;
        let (counter, count, table) = split(fetch).ok_or(ALONE)?;
        let [comparison, number] = rest else {
            return Err(format!("`{fetch}` is compared with more than one number"));
        };
        let number: u64 = number.parse().map_err(|_| format!("`{number}` is no number"))?;
        let most = match comparison.as_str() {
            "gt" => number,
            "ge" => number.saturating_sub(1),
            other => {
                return Err(format!(
                    "a limit refuses what is `gt` or `ge` a number, and not what is `{other}`"
                ));
            }
        };
        // Where what comes is tracked behind the rule, it is not among those that the rule counts.
        let tracks = |other: &Line| {
            let at = if other.keyword() == "tcp-request" { 2 } else { 1 };
            other.word(at).is_some_and(|action| action.starts_with("track-sc"))
        };
        let (before, behind): (Vec<&Line>, Vec<&Line>) = self
            .section
            .lines
            .iter()
            .filter(|other| tracks(other))
            .partition(|other| other.number < line.number);
        let most = match counter.is_none() && before.is_empty() && !behind.is_empty() {
            true => most.saturating_add(1),
            false => most,
        };
        if most == 0 {
            return Err("a limit lets one in at least: `reject` without a count refuses everybody".to_owned());
        }
        let count = match count {
            "conn_cur" => Count::Open,
            "conn_rate" | "sess_rate" => Count::Connections,
            "http_req_rate" => Count::Requests,
            "http_err_rate" => Count::Errors,
            "http_fail_rate" => Count::Failures,
            other => return Err(format!("no limit here goes by `{other}`")),
        };
        let tracks = match counter {
            None => None,
            Some(counter) => Some(self.track(line, counter)?),
        };
        let table = table.or(tracks.as_ref().and_then(|(_, (_, table, _))| *table));
        let table = table.map_or_else(|| name(self.section), str::to_owned);
        Ok(Counted {
            fetch: fetch.clone(),
            count,
            table,
            key: match &tracks {
                Some((_, (key, ..))) => key.clone(),
                None => Key::Source { ipv4: None, ipv6: None },
            },
            most,
            tracked: tracks.map(|(tracking, (_, _, condition))| {
                let condition = condition.map(|(polarity, words)| (polarity, words.to_vec()));
                (tracking.clone(), condition)
            }),
        })
    }

    /// What a counter counts by, and in which table: the line before that tracks, and what it says.
    fn track(&self, line: &Line, counter: u8) -> Result<(&Line, Tracking<'_>), String> {
        let action = format!("track-sc{counter}");
        let at = |line: &Line| if line.keyword() == "tcp-request" { 2 } else { 1 };
        let lines = || self.section.lines.iter().filter(|other| other.number < line.number);
        let mut tracking = lines().filter(|line| line.word(at(line)) == Some(action.as_str()));
        let first = tracking.next();
        let first = first.ok_or_else(|| format!("nothing before it in this section says `{action}`"))?;
        if tracking.next().is_some() {
            return Err(format!(
                "several lines say `{action}`: write a `rate-limit` for each key, and `limit` with their conditions"
            ));
        }
        let tracked = tracked(first, at(first))?;
        let mut lines = lines().filter(|other| other.number < first.number);
        let moves = |line: &&Line| line.word(at(line)) == Some("set-src");
        if let (Key::Source { .. }, Some(moved)) = (&tracked.0, lines.find(moves)) {
            return Err(format!(
                "line {} has changed the client's address by then: with `trusted-proxies`, limits know it from the start",
                moved.number
            ));
        }
        Ok((first, tracked))
    }

    fn say_limits(&mut self, line: &Line, limits: Vec<(Counted, Said)>, status: Option<&str>) {
        for (limit, condition) in limits {
            let said = match limit.count {
                Count::Open => self.say_most_open(line, &limit, condition),
                _ => self.say_rate(line, &limit, condition, status),
            };
            if let Err(reason) = said {
                self.leave_out(line, &reason);
            }
        }
    }

    /// The connection that is being decided about counts, in HAProxy and here.
    fn say_most_open(&mut self, line: &Line, limit: &Counted, condition: Said) -> Result<(), String> {
        if let Key::Request(_) = limit.key {
            return Err("connections are limited by their source alone".to_owned());
        }
        let node = Node::new("max-connections-per-source").number(limit.most);
        let node = limit.key.with_prefixes(node);
        self.say(
            line,
            condition
                .into_iter()
                .fold(node, |node, (key, value)| node.prop(key, value)),
        );
        Ok(())
    }

    fn say_rate(&mut self, line: &Line, limit: &Counted, condition: Said, status: Option<&str>) -> Result<(), String> {
        let is_http = self.is_http();
        if limit.count.is_of_requests() && !is_http {
            return Err("there are no requests in TCP mode".to_owned());
        }
        if let (Count::Connections, Key::Request(_)) = (limit.count, &limit.key) {
            return Err("connections are limited by their source alone".to_owned());
        }
        let name = self.rate_limit(line, limit)?;
        let node = Node::new("limit").arg(name);
        let node = match (limit.count, is_http) {
            (Count::Connections, true) => node.flag("connections"),
            _ => node,
        };
        self.say(
            line,
            condition
                .into_iter()
                .fold(node, |node, (key, value)| node.prop(key, value)),
        );
        let mut message = format!(
            "`{}` has become a token bucket: {} at once, and as many in each such time; HAProxy refuses for as long as more came within it",
            limit.fetch, limit.most
        );
        if limit.count.is_of_requests() && status != Some("429") {
            message.push_str("; the answer is 429");
        }
        let ends = |other: &Line| {
            other.keyword() == "http-request"
                && matches!(other.word(1), Some("deny" | "tarpit" | "redirect" | "return"))
        };
        let mut earlier = self.section.lines.iter().filter(|other| other.number < line.number);
        if limit.count.is_of_requests() && earlier.any(ends) {
            message.push_str("; limits come before all rules, so that what rules refuse counts, too");
        }
        self.conversion.note(line.number, message);
        Ok(())
    }

    /// The name of the `rate-limit` that limits this, which is said where there is none yet.
    fn rate_limit(&mut self, line: &Line, limit: &Counted) -> Result<String, String> {
        let (_, stored, _) = split(&limit.fetch).ok_or(ALONE)?;
        let table = self.conversion.tables.tables.get(&limit.table);
        let table = table.ok_or_else(|| format!("there is no table `{}`", limit.table))?;
        let period = table.periods.get(stored).filter(|period| !period.is_empty());
        let period = period.ok_or_else(|| {
            format!(
                "the table `{}` does not say over which time it stores `{stored}`",
                limit.table
            )
        })?;
        let rate = Rate {
            table: limit.table.clone(),
            count: limit.count,
            key: limit.key.clone(),
            most: limit.most,
            period: period.clone(),
        };
        if let Some(known) = self.conversion.tables.limits.get(&rate) {
            return Ok(known.clone());
        }
        let what = match limit.count {
            Count::Requests => "requests",
            Count::Errors => "errors",
            Count::Failures => "failures",
            Count::Open | Count::Connections => "connections",
        };
        let taken: Vec<&String> = self.conversion.tables.limits.values().collect();
        let mut name = format!("{}-{what}", limit.table);
        let mut number = 1;
        while taken.contains(&&name) {
            number += 1;
            name = format!("{}-{what}-{number}", limit.table);
        }
        let outline = &mut self.conversion.outline;
        let block = outline.add(None, Node::new("rate-limit").arg(&name), line.number, &line.text);
        outline.add(Some(block), limit.key.node(), line.number, &line.text);
        let allow = Node::new("allow").arg(format!("{}/{}", limit.most, rate.period));
        outline.add(Some(block), allow, line.number, &line.text);
        if let Some(statuses) = limit.count.statuses() {
            let node = Node::new("count-status").arg(statuses);
            outline.add(Some(block), node, line.number, &line.text);
        }
        self.conversion.tables.limits.insert(rate, name.clone());
        Ok(name)
    }
}

/// `track-sc0 src table st if api`: the key, the table where one is named, and the condition. Fails with the reason.
fn tracked(line: &Line, at: usize) -> Result<Tracking<'_>, String> {
    let (said, condition) = words::split_condition(line.rest(at + 1));
    let key = key(said.first().map(String::as_str).unwrap_or_default())?;
    let table = said.iter().skip_while(|word| *word != "table").nth(1);
    Ok((key, table.map(String::as_str), condition))
}

/// Why a rule about a count is not said when it asks it in another way.
pub(super) const ALONE: &str = "what a table counts can only be asked by a rule that refuses, `if` it is `gt` or `ge` a number: of the \
                     alternatives that `or` parts, each asks one count, and other things beside it if it likes";

/// What tables count that a fetch can ask for, in 2.6.
const COUNTS: [&str; 27] = [
    "bytes_in_rate",
    "bytes_out_rate",
    "clr_gpc",
    "clr_gpc0",
    "clr_gpc1",
    "conn_cnt",
    "conn_cur",
    "conn_rate",
    "get_gpc",
    "get_gpc0",
    "get_gpc1",
    "get_gpt",
    "get_gpt0",
    "gpc0_rate",
    "gpc1_rate",
    "gpc_rate",
    "http_err_cnt",
    "http_err_rate",
    "http_fail_cnt",
    "http_fail_rate",
    "http_req_cnt",
    "http_req_rate",
    "inc_gpc0",
    "kbytes_in",
    "kbytes_out",
    "sess_cnt",
    "sess_rate",
];

//! What is asked of stick tables: which count, of what, and from where on it is too much.

use super::haproxy::Line;
use super::outline::Node;
use super::proxies::Proxy;
use super::tables::{called, name};
use super::trusted::Trusted;
use super::words::{self, Polarity, Term};

/// A comparison of a count: `sc0_conn_rate gt 20`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    /// What the configuration calls it, for who reads of it.
    pub(super) fetch: String,
    pub(super) count: Count,
    pub(super) key: Key,
    pub(super) table: String,
    /// So many are let in.
    pub(super) most: u64,
    /// The line that tracks, and its condition; none where the client's address is looked up.
    pub(super) tracked: Option<(Line, OnlyIf)>,
}

/// Under which condition a line says something; none when always.
pub(super) type OnlyIf = Option<(Polarity, Vec<String>)>;

/// What a line that tracks says: the key, the table where one is named, and the condition.
pub(super) type Tracking<'a> = (Key, Option<&'a str>, Option<(Polarity, &'a [String])>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Count {
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
    pub(super) fn is_of_requests(self) -> bool {
        !matches!(self, Self::Open | Self::Connections)
    }

    /// Those of the responses that it counts; none where it counts no responses.
    pub(super) fn statuses(self) -> Option<&'static str> {
        match self {
            Self::Errors => Some("400-499"),
            Self::Failures => Some("500,502-504,506-599"),
            Self::Open | Self::Connections | Self::Requests => None,
        }
    }
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A network: so many leading bits of addresses, where that is said.
    Source { ipv4: Option<u64>, ipv6: Option<u64> },
    /// A part of the request: `key "header" "x-api-key"`.
    Request(Vec<String>),
}

impl Key {
    /// A node with the prefixes of addresses, where the key says any.
    pub(super) fn with_prefixes(&self, node: Node) -> Node {
        let Self::Source { ipv4, ipv6 } = self else { return node };
        let node = ipv4
            .iter()
            .fold(node, |node, bits| node.number_prop("ipv4-prefix", *bits));
        ipv6.iter()
            .fold(node, |node, bits| node.number_prop("ipv6-prefix", *bits))
    }

    /// `key "client-ip"`
    pub(super) fn node(&self) -> Node {
        match self {
            Self::Source { .. } => self.with_prefixes(Node::new("key").arg("client-ip")),
            Self::Request(words) => words.iter().fold(Node::new("key"), Node::arg),
        }
    }
}

impl Proxy<'_> {
    /// The criterion of a term that asks a table, of an acl with that name too.
    pub(super) fn counter<'a>(&'a self, term: &Term<'a>) -> Option<Vec<&'a [String]>> {
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

    /// `sc0_conn_rate gt 20`
    pub(super) fn counted(&self, line: &Line, words: &[String]) -> Result<Counted, String> {
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
        let count = match count {
            "conn_cur" => Count::Open,
            "conn_rate" | "sess_rate" => Count::Connections,
            "http_req_rate" => Count::Requests,
            "http_err_rate" => Count::Errors,
            "http_fail_rate" => Count::Failures,
            other => return Err(format!("no limit here goes by `{other}`")),
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
        let is_tracked_behind = counter.is_none() && before.is_empty() && !behind.is_empty();
        // What a request comes to is known when it is over: a rule sees those before it alone.
        let most = match is_tracked_behind || count.statuses().is_some() {
            true => most.saturating_add(1),
            false => most,
        };
        if most == 0 {
            return Err("a limit lets one in at least: `reject` without a count refuses everybody".to_owned());
        }
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
        let trusted = Trusted::said(self.section).map(|(line, _)| line);
        let moves = |line: &&Line| line.word(at(line)) == Some("set-src") && Some(line.number) != trusted;
        if let (Key::Source { .. }, Some(moved)) = (&tracked.0, lines.find(moves)) {
            return Err(format!(
                "line {} has changed the client's address by then: with `trusted-proxies`, limits know it from the start",
                moved.number
            ));
        }
        Ok((first, tracked))
    }
}

/// Whether a criterion asks what a table counts.
pub(super) fn asks_a_table(words: &[String]) -> bool {
    words.first().is_some_and(|fetch| split(fetch).is_some())
}

/// `src_conn_rate(table)`, `sc0_conn_rate`, `sc_conn_rate(0,table)`: which counter, none for the client's address itself, what is
/// counted, and in which table, where that is said. None when it asks no table.
pub(super) fn split(fetch: &str) -> Option<(Option<u8>, &str, Option<&str>)> {
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

/// `track-sc0 src table st if api`: the key, the table where one is named, and the condition. Fails with the reason.
pub(super) fn tracked(line: &Line, at: usize) -> Result<Tracking<'_>, String> {
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

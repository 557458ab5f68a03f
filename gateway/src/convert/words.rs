//! Small things that HAProxy writes in another way: times, addresses and conditions.

use std::net::{IpAddr, SocketAddr};

use super::haproxy::Line;

/// `5s`, `30000` (milliseconds), `1m`: as a duration of ours.
pub(super) fn duration(text: &str) -> String {
    match text.chars().all(|c| c.is_ascii_digit()) {
        true => format!("{text}ms"),
        false => text.to_owned(),
    }
}

/// `0`, `0s`: no bound, as timeouts have it.
pub(super) fn is_no_time(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    !digits.is_empty() && digits.chars().all(|c| c == '0')
}

/// `*:80`, `:80`, `10.0.0.1:80`, `ipv4@…`, `[::]:443`, `unix@/run/app.sock`. Of several addresses in one word, each, and of a range of ports.
pub(super) fn addresses(text: &str) -> Vec<String> {
    text.split(',').map(address).flat_map(ports).collect()
}

/// `0.0.0.0:5000-5010` as one address for each port. A range that is longer than anybody would write out stays as it is.
fn ports(address: String) -> Vec<String> {
    let range = address.rsplit_once(':').and_then(|(host, ports)| {
        let (first, last) = ports.split_once('-')?;
        let ports = first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?;
        Some((host, ports)).filter(|(_, ports)| (1..=MOST_PORTS).contains(&ports.len()))
    });
    match range {
        Some((host, ports)) => ports.map(|port| format!("{host}:{port}")).collect(),
        None => vec![address],
    }
}

fn address(text: &str) -> String {
    if let Some(place) = text
        .strip_prefix("unix@")
        .or_else(|| text.starts_with('/').then_some(text))
    {
        return format!("unix:{place}");
    }
    if let Some(name) = text.strip_prefix("abnsz@") {
        return format!("unix:@{name}");
    }
    if let Some(name) = text.strip_prefix("abns@") {
        return format!("abns:{name}");
    }
    let bare = ["ipv4@", "ipv6@", "tcp4@", "tcp6@", "tcp@"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(text);
    let any = match text.starts_with("ipv6@") || text.starts_with("tcp6@") {
        true => "[::]",
        false => "0.0.0.0",
    };
    match bare.strip_prefix('*').unwrap_or(bare) {
        port if port.starts_with(':') && !port[1..].contains(':') => format!("{any}{port}"),
        other if other.matches(':').count() > 1 && !other.starts_with('[') => match other.rsplit_once(':') {
            Some((host, port)) => format!("[{host}]:{port}"),
            None => other.to_owned(),
        },
        other => other.to_owned(),
    }
}

/// What `source` says, where that is an address whose port is the system's.
pub(super) fn source(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() == 0 && !address.ip().is_unspecified()).then_some(address.ip());
    }
    let address = text.trim_end_matches(':').parse::<IpAddr>().ok()?;
    (!address.is_unspecified()).then_some(address)
}

/// Whether `source` says any address.
pub(super) fn is_any_source(text: &str) -> bool {
    let ip = match text.parse::<SocketAddr>() {
        Ok(address) => (address.port() == 0).then_some(address.ip()),
        Err(_) => text.trim_end_matches(':').parse().ok(),
    };
    text == "*" || ip.is_some_and(|ip| ip.is_unspecified())
}

/// Ports of a range that are written out.
const MOST_PORTS: usize = 256;

/// What a line says between the first words and a condition, and the condition: `if a !b or c`.
pub(super) fn split_condition(words: &[String]) -> (&[String], Option<(Polarity, &[String])>) {
    for (i, word) in words.iter().enumerate() {
        let polarity = match word.as_str() {
            "if" => Polarity::If,
            "unless" => Polarity::Unless,
            _ => continue,
        };
        // What always holds is none.
        let condition = &words[i + 1..];
        let condition = match (polarity, outcome(condition)) {
            (Polarity::If, Some(true)) | (Polarity::Unless, Some(false)) => None,
            _ => Some((polarity, condition)),
        };
        return (&words[..i], condition);
    }
    (words, None)
}

/// Which way a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polarity {
    If,
    Unless,
}

impl Polarity {
    /// The other way.
    pub(super) fn opposite(self) -> Self {
        match self {
            Self::If => Self::Unless,
            Self::Unless => Self::If,
        }
    }

    /// The property that says it.
    pub(super) fn property(self) -> &'static str {
        match self {
            Self::If => "if",
            Self::Unless => "unless",
        }
    }
}

/// A part of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Term<'a> {
    /// `or`, `||`
    Or,
    /// A named acl, with or without `!`.
    Named { name: &'a str, is_negated: bool },
    /// `{ path_beg /api/ }`, with or without `!` before it.
    Anonymous { words: &'a [String], is_negated: bool },
}

impl Term<'_> {
    /// Whether it holds, where that depends on nothing: `TRUE`, `!{ always_false }`.
    fn is_known(&self) -> Option<bool> {
        let (word, is_negated) = match self {
            Self::Or => return None,
            Self::Named { name, is_negated } => (*name, is_negated),
            Self::Anonymous { words, is_negated } => match words {
                [word] => (word.as_str(), is_negated),
                _ => return None,
            },
        };
        match word {
            "TRUE" | "always_true" => Some(!is_negated),
            "FALSE" | "always_false" => Some(*is_negated),
            _ => None,
        }
    }
}

/// Whether a line is a rule whose condition never holds: `unless TRUE`.
pub(super) fn never_applies(line: &Line) -> bool {
    let is_rule = matches!(
        line.keyword(),
        "http-request" | "http-response" | "http-after-response" | "tcp-request" | "redirect" | "use_backend"
    );
    let condition = split_condition(line.rest(1)).1.filter(|_| is_rule);
    condition.is_some_and(|(_, words)| outcome(words).is_some())
}

/// Whether a condition holds, where that depends on nothing.
fn outcome(words: &[String]) -> Option<bool> {
    let terms = written(words).ok()?;
    let all = |terms: &[Term<'_>]| {
        let known: Vec<Option<bool>> = terms.iter().map(Term::is_known).collect();
        match known.contains(&Some(false)) {
            true => Some(false),
            false => known.iter().all(Option::is_some).then_some(true),
        }
    };
    let outcomes: Vec<Option<bool>> = terms.split(|term| *term == Term::Or).map(all).collect();
    match outcomes.contains(&Some(true)) {
        true => Some(true),
        false => outcomes.iter().all(Option::is_some).then_some(false),
    }
}

/// Takes a condition apart, without what of it is the same for everybody.
pub(super) fn terms(words: &[String]) -> Result<Vec<Term<'_>>, String> {
    let written = written(words)?;
    let mut terms = Vec::new();
    for alternative in written.split(|term| *term == Term::Or) {
        let known: Vec<Option<bool>> = alternative.iter().map(Term::is_known).collect();
        if known.contains(&Some(false)) {
            continue;
        }
        if !terms.is_empty() {
            terms.push(Term::Or);
        }
        terms.extend(alternative.iter().filter(|term| term.is_known().is_none()));
    }
    match outcome(words) {
        None => Ok(terms),
        Some(_) => Err("it asks nothing: it is the same for everybody".to_owned()),
    }
}

/// The parts of a condition as they are written.
fn written(words: &[String]) -> Result<Vec<Term<'_>>, String> {
    let mut terms = Vec::new();
    let mut at = 0;
    let mut is_negated = false;
    while let Some(word) = words.get(at) {
        at += 1;
        match word.as_str() {
            "or" | "||" => terms.push(Term::Or),
            "and" | "&&" => {}
            "!" => is_negated = !is_negated,
            "{" | "!{" => {
                is_negated ^= word.len() == 2;
                let length = words[at..].iter().position(|word| word == "}");
                let length = length.ok_or("a `{` is not closed")?;
                let words = &words[at..at + length];
                terms.push(Term::Anonymous { words, is_negated });
                at += length + 1;
                is_negated = false;
            }
            name => {
                let bare = name.trim_start_matches('!');
                is_negated ^= (name.len() - bare.len()) % 2 == 1;
                terms.push(Term::Named { name: bare, is_negated });
                is_negated = false;
            }
        }
    }
    if terms.is_empty() {
        return Err("an empty condition".to_owned());
    }
    Ok(terms)
}

/// What a line is about: its keyword, with the next word where that says which it is.
pub(super) fn subject(line: &Line) -> String {
    match (line.keyword(), line.word(1)) {
        (keyword @ ("option" | "no" | "timeout" | "stats" | "rate-limit"), Some(word)) => format!("{keyword} {word}"),
        (keyword, _) => keyword.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_out() {
        let cases = [
            ("*:80", "0.0.0.0:80"),
            (":80", "0.0.0.0:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("ipv4@10.0.0.1:80", "10.0.0.1:80"),
            (":::443", "[::]:443"),
            ("[::]:443", "[::]:443"),
            ("db.internal:5432", "db.internal:5432"),
        ];
        for (haproxys, ours) in cases {
            assert_eq!(addresses(haproxys), [ours], "{haproxys}");
        }
    }

    #[test]
    fn conditions_come_apart() {
        let words: Vec<String> = "a !b or { src 10.0.0.0/8 } ! { ssl_fc }"
            .split(' ')
            .map(str::to_owned)
            .collect();
        let terms = terms(&words).unwrap();
        assert_eq!(terms.len(), 5);
        assert_eq!(
            terms[1],
            Term::Named {
                name: "b",
                is_negated: true
            }
        );
        assert_eq!(terms[2], Term::Or);
        assert!(matches!(&terms[3], Term::Anonymous { words, is_negated: false } if words.len() == 2));
        assert!(matches!(&terms[4], Term::Anonymous { is_negated: true, .. }));
    }

    #[test]
    fn what_is_the_same_for_everybody_is_no_condition() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        for (text, has_condition) in [
            ("x if TRUE", false),
            ("x unless FALSE", false),
            ("x unless !TRUE", false),
            ("x if a or { always_true }", false),
            ("x if a", true),
            ("x unless TRUE", true),
        ] {
            let words = words(text);
            assert_eq!(split_condition(&words).1.is_some(), has_condition, "{text}");
        }
        for (text, rest) in [
            ("a TRUE", "a"),
            ("a !FALSE b", "a b"),
            ("FALSE a or b", "b"),
            ("a or FALSE", "a"),
        ] {
            let (all, rest) = (words(text), words(rest));
            assert_eq!(terms(&all).unwrap(), terms(&rest).unwrap(), "{text}");
        }
        terms(&words("FALSE a")).unwrap_err();
    }

    #[test]
    fn numbers_without_a_unit_are_milliseconds() {
        assert_eq!(duration("5000"), "5000ms");
        assert_eq!(duration("5s"), "5s");
    }
}

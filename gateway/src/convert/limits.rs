//! Rules that turn away whoever goes beyond a number: they become limits. What else tables are asked has no counterpart, and is
//! reported with its reason.

use super::acls::{grouped, none_of};
use super::counts::{ALONE, Count, Counted, Key, split, tracked};
use super::haproxy::Line;
use super::outline::Node;
use super::proxies::Proxy;
use super::rules::is_status;
use super::words::{self, Polarity, Term};

/// A limit on a rate. Rules about the same count together, whichever frontends they stand in.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Rate {
    table: String,
    count: Count,
    key: Key,
    most: u64,
    period: String,
}

/// `unless="office"`, or nothing.
type Said = Option<(&'static str, String)>;

impl Proxy<'_> {
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

//! Rules about responses: what they ask of the response, and what they ask of a request that is over.

use super::Finding;
use super::haproxy::{Line, Section};
use super::proxies::Proxy;
use super::words::{self, Polarity, Term};

/// Says of rules about responses that their conditions ask for what HAProxy knows no more by then, but for variables. Here it is
/// asked about the request.
pub(super) fn note_what_is_over(sections: &[Section], findings: &mut Vec<Finding>) {
    for section in sections {
        for line in section.lines.iter().filter(|line| is_about_responses(line)) {
            let Some((_, condition)) = words::split_condition(line.rest(1)).1 else {
                continue;
            };
            let criteria = criteria(section, condition);
            if let Some(fetch) = criteria.iter().find_map(|criterion| asks_the_request(criterion)) {
                findings.push(Finding {
                    line: line.number,
                    message: format!(
                        "HAProxy knows no `{fetch}` any more when the response comes, so that it holds for nobody; here it is asked about the request"
                    ),
                });
            }
        }
    }
}

fn is_about_responses(line: &Line) -> bool {
    matches!(line.keyword(), "http-response" | "http-after-response")
}

/// What a condition asks, in the acls that it names, too.
fn criteria<'a>(section: &'a Section, condition: &'a [String]) -> Vec<&'a [String]> {
    let mut criteria = Vec::new();
    for term in words::terms(condition).unwrap_or_default() {
        match term {
            Term::Or => {}
            Term::Anonymous { words, .. } => criteria.push(words),
            Term::Named { name, .. } => criteria.extend(acls(section, name).map(|acl| acl.rest(2))),
        }
    }
    criteria
}

fn acls<'a>(section: &'a Section, name: &'a str) -> impl Iterator<Item = &'a Line> {
    let acls = section.lines.iter().filter(|line| line.keyword() == "acl");
    acls.filter(move |acl| acl.word(1) == Some(name))
}

/// The fetch of a criterion that is about the head of a request, in whichever spelling.
fn asks_the_request(criterion: &[String]) -> Option<&str> {
    let fetch = criterion.first()?.split(['(', ',']).next()?;
    let is_one = |known: &&str| {
        let rest = fetch.strip_prefix(*known);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    };
    let is_known = ["path", "pathq", "url", "base", "query", "url_param", "urlp"]
        .iter()
        .any(is_one);
    (is_known || fetch.starts_with("req.")).then_some(fetch)
}

impl Proxy<'_> {
    /// The statuses that a condition asks for beside other things, and these: `if { status 404 500:599 } a`. None where it asks for
    /// none. Fails with the reason.
    pub(super) fn statuses(
        &self,
        (polarity, words): (Polarity, &[String]),
    ) -> Option<Result<(String, Vec<String>), String>> {
        let mut written = Vec::new();
        for word in words {
            match self.named_status(word) {
                Some(criterion) => written.extend(criterion),
                None => written.push(word.clone()),
            }
        }
        statuses(polarity, &written)
    }

    /// `{ status 404 }` in the place of the name of an acl that asks that.
    fn named_status(&self, word: &str) -> Option<Vec<String>> {
        let name = word.trim_start_matches('!');
        let mut acls = acls(self.section, name);
        let criterion = acls.next()?.rest(2);
        let is_it = criterion.first().is_some_and(|fetch| fetch == "status") && acls.next().is_none();
        let opening = if (word.len() - name.len()) % 2 == 1 { "!{" } else { "{" };
        is_it.then(|| {
            let criterion = criterion.iter().cloned();
            [opening.to_owned()]
                .into_iter()
                .chain(criterion)
                .chain(["}".to_owned()])
                .collect()
        })
    }

    /// Whether an acl asks for a status, for rules about responses alone, which say it themselves.
    pub(super) fn is_of_status(&self, name: &str) -> bool {
        let mut lines = self.section.lines.iter().filter(|line| line.keyword() != "acl");
        self.named_status(name).is_some()
            && lines.all(|line| {
                is_about_responses(line) || !line.words.iter().any(|word| word.trim_start_matches('!') == name)
            })
    }
}

fn statuses(polarity: Polarity, words: &[String]) -> Option<Result<(String, Vec<String>), String>> {
    let opens = |word: &str| matches!(word, "{" | "!{");
    let at = words
        .windows(2)
        .position(|pair| opens(&pair[0]) && pair[1] == "status")?;
    let length = words[at..].iter().position(|word| word == "}")?;
    let sign_at = at.checked_sub(1).filter(|before| words[*before] == "!");
    let begins = sign_at.unwrap_or(at);
    let rest = [&words[..begins], &words[at + length + 1..]].concat();
    let is_mixed = words.iter().any(|word| matches!(word.as_str(), "or" | "||"));
    if is_mixed || (polarity == Polarity::Unless && !rest.is_empty()) {
        let reason = "a status is asked for beside other conditions, all of which have to hold: write `if-status=`";
        return Some(Err(reason.to_owned()));
    }
    let is_negated = (words[at] == "!{") ^ sign_at.is_some() ^ (polarity == Polarity::Unless);
    let ranges = match ranges(&words[at + 2..at + length]) {
        Ok(ranges) if is_negated => others(ranges),
        Ok(ranges) => ranges,
        Err(reason) => return Some(Err(reason)),
    };
    let text: Vec<String> = ranges
        .iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    Some(match text.is_empty() {
        true => Err("no status is asked for".to_owned()),
        false => Ok((text.join(","), rest)),
    })
}

/// `404 500:599`, `ge 400`
fn ranges(values: &[String]) -> Result<Vec<(u16, u16)>, String> {
    let number = |text: &str| {
        let number = text.parse().ok().filter(|number| (FIRST..=LAST).contains(number));
        number.ok_or_else(|| format!("`status {text}` has no counterpart: write `if-status=` with numbers and ranges"))
    };
    match values {
        [operator, value] if matches!(operator.as_str(), "eq" | "ge" | "gt" | "le" | "lt") => {
            let value = number(value)?;
            let range = match operator.as_str() {
                "ge" => (value, LAST),
                "gt" => (value + 1, LAST),
                "le" => (FIRST, value),
                "lt" => (FIRST, value - 1),
                _ => (value, value),
            };
            Ok(vec![range].into_iter().filter(|(first, last)| first <= last).collect())
        }
        values => values
            .iter()
            .map(|value| match value.split_once(':') {
                Some((first, last)) => Ok((number(first)?, number(last)?)),
                None => number(value).map(|value| (value, value)),
            })
            .collect(),
    }
}

/// All statuses but these.
fn others(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut begin = FIRST;
    let mut others = Vec::new();
    for (first, last) in ranges {
        if begin < first {
            others.push((begin, first - 1));
        }
        begin = begin.max(last + 1);
    }
    if begin <= LAST {
        others.push((begin, LAST));
    }
    others
}

const FIRST: u16 = 100;
const LAST: u16 = 599;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbers_and_ranges() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        for (polarity, condition, expected, others) in [
            (Polarity::If, "{ status 404 500:599 } a", "404,500-599", "a"),
            (Polarity::If, "! a { status 404 }", "404", "! a"),
            (Polarity::If, "!{ status 404 500:599 } a", "100-403,405-499", "a"),
            (Polarity::If, "b ! { status 100:199 }", "200-599", "b"),
            (Polarity::Unless, "{ status ge 400 }", "100-399", ""),
            (Polarity::If, "{ status lt 300 }", "100-299", ""),
        ] {
            let (statuses, rest) = statuses(polarity, &words(condition)).unwrap().unwrap();
            assert_eq!(
                (statuses.as_str(), rest.join(" ").as_str()),
                (expected, others),
                "{condition}"
            );
        }
        for (polarity, condition) in [
            (Polarity::If, "{ status 404 } or a"),
            (Polarity::Unless, "{ status 404 } a"),
            (Polarity::If, "{ status 100:599 } !{ status 100:599 }"),
            (Polarity::If, "{ status x }"),
            (Polarity::If, "{ status lt 100 }"),
        ] {
            let said = statuses(polarity, &words(condition)).unwrap();
            // Of several, the first is read; the other is left in the condition, which has no such predicate.
            if let Ok((_, rest)) = said {
                assert!(rest.contains(&"status".to_owned()), "{condition}");
            }
        }
        assert!(statuses(Polarity::If, &words("{ path /a }")).is_none());
    }
}

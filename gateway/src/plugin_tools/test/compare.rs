//! What a case came to, beside what it was expected to.

use http::{HeaderMap, HeaderName, Uri};

use super::course::{Course, End};
use super::stand::Stand;
use crate::config::fixture::{Case, Expect, LimitSays, Message, RateLimit, Verdict};
use crate::policy::{Attachment, LimitVerdict};
use crate::telemetry::metrics::{Reading, Series};

/// Everything that is not as it was expected, a line each; nothing when all is.
pub(in crate::plugin_tools) fn differences(case: &Case, course: &Course, stand: &Stand) -> Vec<String> {
    let mut found = Differences(Vec::new());
    let expect = &case.expect;
    if course.measures.is_empty() && course.failures.is_empty() {
        let what = if case.request.is_some() {
            "a request"
        } else {
            "a connection"
        };
        found.say(format!("nothing of the plugin was called: it has no hook for {what}"));
    }
    found.hooks(expect, stand);
    found.failures(expect, course);
    if let Some(verdict) = &expect.verdict {
        found.verdict(verdict, &course.end);
    }
    found.predicates(expect, course, stand);
    if let Some(limit) = &expect.rate_limit {
        found.rate_limit(limit, course.limit.as_ref(), stand.uses.filter.as_deref());
    }
    found.calls(expect, course);
    if let Some(message) = &expect.request {
        match &course.request {
            Some((head, body)) => found.request("the request", message, &head.method, &head.uri, &head.headers, body),
            None => found.say("the request does not go on".to_owned()),
        }
    }
    if let Some(message) = &expect.response {
        match &course.response {
            Some((head, body)) => {
                found.status("the response", message, head.status.as_u16());
                found.message("the response", message, &head.headers, body);
            }
            None => found.say("the response does not go on".to_owned()),
        }
    }
    found.tags(expect, course);
    found.logs(expect, course);
    found.metrics(expect, stand);
    found.0
}

struct Differences(Vec<String>);

impl Differences {
    fn say(&mut self, difference: String) {
        self.0.push(difference);
    }

    /// What is expected of a message that no hook of the plugin's could change says nothing of the plugin: it cannot fail.
    fn hooks(&mut self, expect: &Expect, stand: &Stand) {
        let filter = stand.uses.filter.as_ref();
        let hooks = filter.map(|attachment| attachment.hooks()).unwrap_or_default();
        let sees_requests = hooks.request_filter || hooks.request_body_filter;
        let sees_responses = hooks.response_filter || hooks.response_body_filter;
        for (what, is_expected, is_seen) in [
            ("request", expect.request.is_some(), sees_requests),
            ("response", expect.response.is_some(), sees_responses),
        ] {
            if is_expected && !is_seen {
                self.say(format!(
                    "what is expected of the {what} cannot fail: the plugin has neither `{what}-filter` nor `{what}-body-filter`"
                ));
            }
        }
    }

    fn failures(&mut self, expect: &Expect, course: &Course) {
        let Some(failed) = &expect.failure else {
            for failure in &course.failures {
                self.say(format!("it failed: {}", shown(&failure.to_string())));
            }
            return;
        };
        let is_meant = |failure: &&crate::policy::Failure| {
            failure.kind.label() == failed.kind && failed.hook.as_deref().is_none_or(|hook| hook == failure.hook)
        };
        if !course.failures.iter().any(|failure| is_meant(&failure)) {
            let place = failed
                .hook
                .as_ref()
                .map(|hook| format!(" in {hook}"))
                .unwrap_or_default();
            let instead = match course.failures.first() {
                Some(failure) => shown(&failure.to_string()),
                None => "nothing failed".to_owned(),
            };
            self.say(format!("expected a failure, {}{place}; {instead}", failed.kind));
        }
        for failure in course.failures.iter().filter(|failure| !is_meant(failure)) {
            self.say(format!("it failed as well: {}", shown(&failure.to_string())));
        }
    }

    fn verdict(&mut self, expected: &Verdict, end: &End) {
        let is_it = match (expected, end) {
            (Verdict::Continue, End::Continue) | (Verdict::Refuse, End::Refused) | (Verdict::Abort, End::Aborted) => {
                true
            }
            (Verdict::Route(expected), End::Route(name)) => expected == name,
            (Verdict::Reply(message), End::Reply { status, headers, body }) => {
                self.status("the reply", message, status.as_u16());
                self.message("the reply", message, headers, body);
                return;
            }
            _ => false,
        };
        if !is_it {
            let expected = match expected {
                Verdict::Continue => "continue".to_owned(),
                Verdict::Route(name) => format!("route {name:?}"),
                Verdict::Reply(message) => format!("reply {}", message.status.unwrap_or_default()),
                Verdict::Refuse => "refuse".to_owned(),
                Verdict::Abort => "abort".to_owned(),
            };
            self.say(format!("expected {expected}, and it came to {}", came_to(end)));
        }
    }

    fn predicates(&mut self, expect: &Expect, course: &Course, stand: &Stand) {
        let known = stand
            .uses
            .predicates
            .as_ref()
            .map_or(&[][..], |attachment| attachment.predicates());
        for (names, holds) in [(&expect.holds, true), (&expect.holds_not, false)] {
            for name in names {
                if !known.contains(name) {
                    let has = match known.is_empty() {
                        true => "it has none".to_owned(),
                        false => format!("it has {}", known.join(", ")),
                    };
                    self.say(format!("the plugin has no predicate {name:?}; {has}"));
                    continue;
                }
                let does = course.holds.as_ref().is_some_and(|holding| holding.contains(name));
                if does != holds {
                    let verb = if does { "holds" } else { "does not hold" };
                    self.say(format!("the predicate {name:?} {verb}"));
                }
            }
        }
    }

    fn rate_limit(
        &mut self,
        expected: &RateLimit,
        found: Option<&Option<LimitVerdict>>,
        attachment: Option<&Attachment>,
    ) {
        let Some(found) = found else {
            return self.say("no limiter was asked".to_owned());
        };
        let says = match found {
            None => LimitSays::None,
            Some(verdict) if verdict.allowed => LimitSays::Allow,
            Some(_) => LimitSays::Refuse,
        };
        if says != expected.says {
            let name = |says| match says {
                LimitSays::Allow => "allow",
                LimitSays::Refuse => "refuse",
                LimitSays::None => "none",
            };
            self.say(format!(
                "expected rate-limit {:?}, and it says {:?}",
                name(expected.says),
                name(says)
            ));
        }
        let Some(verdict) = found else { return };
        if let Some(policy) = &expected.policy {
            let decided = attachment.and_then(|attachment| attachment.policies().get(verdict.policy));
            let decided = decided.map_or("", |policy| &policy.name);
            if decided != policy {
                self.say(format!("expected the limit {policy:?} to decide, and {decided:?} did"));
            }
        }
        for (what, expected, found) in [
            ("remaining", expected.remaining, verdict.remaining),
            ("retry-after-ms", expected.retry_after_ms, verdict.retry_after_ms),
            ("reset-ms", expected.reset_ms, verdict.reset_ms),
        ] {
            if let Some(expected) = expected
                && expected != found
            {
                self.say(format!("expected {what}={expected}, and it is {found}"));
            }
        }
    }

    fn calls(&mut self, expect: &Expect, course: &Course) {
        if course.unanswered {
            let backend = course.calls.last().map_or("", |(backend, _)| backend.as_str());
            self.say(format!(
                "it calls {backend:?}, and the case has no `answer` left for that"
            ));
        }
        if course.answers_left > 0 {
            self.say(format!("nobody asked for {} of the answers", course.answers_left));
        }
        if expect.calls.is_empty() {
            return;
        }
        if expect.calls.len() != course.calls.len() {
            self.say(format!(
                "expected {} calls, and {} were made",
                expect.calls.len(),
                course.calls.len()
            ));
        }
        for (expected, (backend, request)) in expect.calls.iter().zip(&course.calls) {
            if expected.backend != *backend {
                self.say(format!(
                    "expected a call of {:?}, and it calls {backend:?}",
                    expected.backend
                ));
            }
            let what = format!("the call of {backend:?}");
            self.request(
                &what,
                &expected.message,
                request.method(),
                request.uri(),
                request.headers(),
                request.body(),
            );
        }
    }

    fn request(
        &mut self,
        what: &str,
        expected: &Message,
        method: &http::Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) {
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        for (part, expected, found) in [
            ("method", &expected.method, method.as_str()),
            ("path", &expected.path, uri.path()),
            ("query", &expected.query, uri.query().unwrap_or_default()),
            ("target", &expected.target, target),
        ] {
            if let Some(expected) = expected
                && expected != found
            {
                self.say(format!(
                    "{what} has {part}={}, and not {expected:?}",
                    quoted(found.as_bytes())
                ));
            }
        }
        self.message(what, expected, headers, body);
    }

    fn status(&mut self, what: &str, expected: &Message, found: u16) {
        if let Some(expected) = expected.status
            && expected != found
        {
            self.say(format!("{what} has the status {found}, and not {expected}"));
        }
    }

    fn message(&mut self, what: &str, expected: &Message, headers: &HeaderMap, body: &[u8]) {
        for (name, values) in &expected.headers {
            let found: Vec<_> = headers.get_all(name).iter().collect();
            if found != values.iter().collect::<Vec<_>>() {
                let wanted = list(values.iter().map(http::HeaderValue::as_bytes));
                self.say(format!("{what} has {}, and not {wanted}", field(name, headers)));
            }
        }
        for name in expected.no_headers.iter().filter(|name| headers.contains_key(*name)) {
            self.say(format!("{what} has {}, and should have none", field(name, headers)));
        }
        if let Some(expected) = &expected.body
            && expected != body
        {
            self.say(format!("{what} has {}", unlike(body, expected)));
        }
        for part in &expected.body_contains {
            let is_there = part.len() <= body.len() && body.windows(part.len()).any(|window| window == part.as_bytes());
            if !is_there {
                self.say(format!(
                    "{what} has the body {}, without {}",
                    quoted(body),
                    quoted(part.as_bytes())
                ));
            }
        }
    }

    fn logs(&mut self, expect: &Expect, course: &Course) {
        let lines = course.measures.iter().flat_map(|measure| &measure.log);
        for part in &expect.logs {
            if !lines.clone().any(|line| line.contains(part)) {
                self.say(format!("no line of the log has {}", quoted(part.as_bytes())));
            }
        }
        for part in &expect.logs_not {
            if let Some(line) = lines.clone().find(|line| line.contains(part)) {
                self.say(format!("the log has the line {}", quoted(line.as_bytes())));
            }
        }
    }

    fn metrics(&mut self, expect: &Expect, stand: &Stand) {
        let attachment = stand.uses.filter.as_ref().or(stand.uses.predicates.as_ref());
        for metric in &expect.metrics {
            let (mut found, mut others) = (None, Vec::new());
            if let Some(attachment) = attachment {
                attachment.series().each(&mut |series| {
                    if declared_name(&series) != metric.name {
                        return;
                    }
                    let mut labels = metric.labels.iter();
                    let is_it = series.labels.len() == metric.labels.len()
                        && labels.all(|(label, value)| series.labels.contains(&(label.as_str(), value.as_str())));
                    let value = match series.reading {
                        Reading::Counter(count) | Reading::Histogram(_, count, _) => count as f64,
                        Reading::Gauge(value) => value,
                    };
                    if is_it {
                        found = Some(value);
                    }
                    others.push(
                        series
                            .labels
                            .iter()
                            .map(|(label, value)| format!("{label}={value:?}"))
                            .collect::<Vec<_>>()
                            .join(" "),
                    );
                });
            }
            let name = &metric.name;
            match found {
                Some(value) if value == metric.value => {}
                Some(value) => self.say(format!("the metric {name:?} is {value}, and not {}", metric.value)),
                None if others.is_empty() => self.say(format!("the plugin has no metric {name:?}")),
                None => self.say(format!(
                    "the metric {name:?} has other labels, as: {}",
                    shown(&others[0])
                )),
            }
        }
    }

    fn tags(&mut self, expect: &Expect, course: &Course) {
        for (name, value) in &expect.tags {
            match course.tags.get(name) {
                Some(found) if found == value.as_bytes() => {}
                Some(found) => self.say(format!("the tag {name:?} is {}, and not {value:?}", quoted(found))),
                None => self.say(format!("the tag {name:?} is not set, and should be {value:?}")),
            }
        }
        for name in &expect.no_tags {
            if let Some(found) = course.tags.get(name) {
                self.say(format!("the tag {name:?} is {}, and should not be set", quoted(found)));
            }
        }
    }
}

/// What the plugin calls a metric that the gateway shows as this series.
fn declared_name<'a>(series: &Series<'a>) -> &'a str {
    let name = series.name.strip_prefix("gateway_plugin_").unwrap_or(series.name);
    let end = match series.kind {
        "counter" => "_total",
        "histogram" => "_distribution",
        _ => "",
    };
    name.strip_suffix(end).unwrap_or(name)
}

/// What a case came to, as an `expect` would say it.
fn came_to(end: &End) -> String {
    match end {
        End::Continue => "continue".to_owned(),
        End::Route(name) => format!("route {name:?}"),
        End::Reply { status, body, .. } if body.is_empty() => format!("reply {}", status.as_u16()),
        End::Reply { status, body, .. } => format!("reply {} with the body {}", status.as_u16(), quoted(body)),
        End::Limited => "rate-limit \"refuse\"".to_owned(),
        End::Refused => "refuse".to_owned(),
        End::Aborted => "abort".to_owned(),
    }
}

fn field(name: &HeaderName, headers: &HeaderMap) -> String {
    let values = list(headers.get_all(name).iter().map(http::HeaderValue::as_bytes));
    match headers.contains_key(name) {
        true => format!("{name}: {values}"),
        false => format!("no {name}"),
    }
}

fn list<'a>(values: impl Iterator<Item = &'a [u8]>) -> String {
    values.map(quoted).collect::<Vec<_>>().join(", ")
}

/// Bytes as they may be shown: in one line, bounded, escaped.
fn quoted(bytes: &[u8]) -> String {
    let cut = bytes.get(..MOST_SHOWN).unwrap_or(bytes);
    let more = if cut.len() < bytes.len() { "…" } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(cut))
}

/// A body, and the one that it should be. Of what is no text, or would not be shown whole, where they differ.
pub(super) fn unlike(found: &[u8], expected: &[u8]) -> String {
    let is_shown = |bytes: &[u8]| bytes.len() <= MOST_SHOWN && std::str::from_utf8(bytes).is_ok();
    if is_shown(found) && is_shown(expected) {
        return format!("the body {}, and not {}", quoted(found), quoted(expected));
    }
    let same = found.iter().zip(expected).take_while(|(one, other)| one == other);
    let at = same.count();
    let from_there = |bytes: &[u8]| match bytes[at..].iter().take(MOST_IN_HEX).collect::<Vec<_>>() {
        rest if rest.is_empty() => "nothing".to_owned(),
        rest => rest.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    format!(
        "a body of {} bytes, and not the one of {}: behind {at} bytes comes {}, and not {}",
        found.len(),
        expected.len(),
        from_there(found),
        from_there(expected)
    )
}

/// A failure's message, which may be the guest's.
fn shown(text: &str) -> String {
    let line: String = text.chars().take(MOST_SHOWN).collect();
    line.escape_debug()
        .to_string()
        .replace("\\'", "'")
        .replace("\\\"", "\"")
}

/// Bytes of a value that are shown of it: enough to tell two apart.
const MOST_SHOWN: usize = 400;

/// Bytes that are shown in hexadecimal.
const MOST_IN_HEX: usize = 16;

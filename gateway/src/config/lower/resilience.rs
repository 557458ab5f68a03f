//! `retry-on`, `retry-buffer`, `retry-budget`, `outlier-ejection` and `max-requests`.

use std::ops::RangeInclusive;
use std::time::Duration;

use miette::SourceSpan;

use super::settings::{MAX_CONNECTIONS, TIMEOUT_RANGE};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{GrpcStatuses, OutlierEjection, Retries, RetryBudget, RetryOn, Slow, StatusSet};
use crate::config::reader::{At, Context, Node, Value, said_twice};

/// What a `defaults` or a backend says of requests that are sent again.
#[derive(Default, Clone)]
pub(super) struct ResendSettings {
    pub(super) on: Option<At<RetryOn>>,
    pub(super) buffer: Option<At<usize>>,
    pub(super) budget: Option<At<RetryBudget>>,
}

impl ResendSettings {
    /// Takes what is inherited where nothing is said.
    pub(super) fn or(&self, inherited: &Self) -> Self {
        Self {
            on: self.on.or(inherited.on),
            buffer: self.buffer.or(inherited.buffer),
            budget: self.budget.or(inherited.budget),
        }
    }

    /// Reports what is said here of sending again where nothing is. Where connections are kept, bodies are, too, in case that one of these
    /// turns out to be closed; and what servers of HTTP/2 have not looked at is sent again whatever is said.
    pub(super) fn report(
        &self,
        ctx: &Context<'_>,
        all: &Self,
        retries: &Retries,
        retries_at: Option<SourceSpan>,
        keeps_connections: bool,
        has_http2: bool,
    ) {
        let sends_again = all.on.is_some_and(|on| on.value.sends_again());
        let buffer = self.buffer.filter(|_| !keeps_connections);
        let buffer = buffer.map(|at| ("retry-buffer", at.span));
        let budget = self.budget.filter(|_| !has_http2);
        let budget = budget.map(|at| ("retry-budget", at.span));
        for (what, span) in [buffer, budget].into_iter().flatten().filter(|_| !sends_again) {
            let error = ConfigError::new(Code::Inert, format!("`{what}` does nothing: no request is sent again"));
            let error = error.label(span, "is for requests that were sent already");
            ctx.report(error.help("say after what they are: retry-on \"conn-failure\" \"empty-response\" 503"));
        }
        if let (Some(on), 0) = (self.on, retries.count) {
            let error = ConfigError::new(Code::Inert, "`retry-on` does nothing without retries");
            let error = error.label(on.span, "says when there is one");
            let error = match retries_at {
                Some(at) => error.label(at, "there are none"),
                None => error,
            };
            ctx.report(error.help("one of them has to go"));
        }
    }
}

/// Reads `retry-on "conn-failure" "empty-response" 503`.
pub(super) fn retry_on(mut node: Node<'_>) -> Option<At<RetryOn>> {
    let span = node.span();
    let mut on = RetryOn {
        conn_failure: false,
        empty_response: false,
        junk_response: false,
        response_timeout: false,
        statuses: StatusSet::default(),
        grpc: GrpcStatuses::default(),
    };
    let mut seen: Vec<(String, SourceSpan)> = Vec::new();
    let mut is_wrong = false;
    for value in node.some_arguments("what a retry follows") {
        let Some(word) = cause(&value, &mut on) else {
            is_wrong = true;
            continue;
        };
        if let Some((_, first)) = seen.iter().find(|(known, _)| *known == word) {
            node.fail(said_twice(&format!("`{word}`"), *first, value.span()));
        }
        seen.push((word, value.span()));
    }
    if let [first, .., last] = &*seen
        && let Some(alone) = [first, last].into_iter().find(|(word, _)| word == "none")
    {
        let error = ConfigError::new(Code::Conflict, "`none` stands alone");
        let error = error.label(alone.1, "after nothing");
        node.fail(error.help("leave it out, or the others"));
    }
    node.finish();
    (!is_wrong && !seen.is_empty()).then_some(At { value: on, span })
}

fn cause(value: &Value<'_>, on: &mut RetryOn) -> Option<String> {
    if !value.raw().is_string() {
        let status = u16::try_from(value.integer(STATUS)?).ok()?;
        on.statuses.add(status);
        return Some(status.to_string());
    }
    let text = value.text()?;
    if let Ok(status) = text.parse::<u16>() {
        if !STATUS.contains(&u64::from(status)) {
            let message = format!("statuses of errors are from {} to {}", STATUS.start(), STATUS.end());
            return value.fail(message, "not one", "write one, as 503");
        }
        on.statuses.add(status);
        return Some(text.to_owned());
    }
    match value.choice(CAUSES)? {
        Cause::None => {}
        Cause::ConnFailure => on.conn_failure = true,
        Cause::EmptyResponse => on.empty_response = true,
        Cause::JunkResponse => on.junk_response = true,
        Cause::ResponseTimeout => on.response_timeout = true,
        Cause::Grpc(status) => on.grpc.add(status),
        Cause::All => all(on),
    }
    Some(text.to_owned())
}

#[derive(Clone, Copy)]
enum Cause {
    None,
    ConnFailure,
    EmptyResponse,
    JunkResponse,
    ResponseTimeout,
    /// gRPC's number.
    Grpc(u8),
    All,
}

/// HAProxy's words, and of gRPC those that Envoy has in `x-envoy-retry-grpc-on`.
const CAUSES: &[(&str, Cause)] = &[
    ("conn-failure", Cause::ConnFailure),
    ("empty-response", Cause::EmptyResponse),
    ("junk-response", Cause::JunkResponse),
    ("response-timeout", Cause::ResponseTimeout),
    ("grpc-cancelled", Cause::Grpc(1)),
    ("grpc-deadline-exceeded", Cause::Grpc(4)),
    ("grpc-internal", Cause::Grpc(13)),
    ("grpc-resource-exhausted", Cause::Grpc(8)),
    ("grpc-unavailable", Cause::Grpc(14)),
    ("all-retryable-errors", Cause::All),
    ("none", Cause::None),
];

/// As HAProxy's word of that name, which knows nothing of gRPC: its calls are sent again only by their own words.
fn all(on: &mut RetryOn) {
    on.conn_failure = true;
    on.empty_response = true;
    on.junk_response = true;
    on.response_timeout = true;
    [500, 502, 503, 504]
        .into_iter()
        .for_each(|status| on.statuses.add(status));
}

/// Reads `retry-buffer "16KiB"`.
pub(super) fn retry_buffer(mut node: Node<'_>) -> Option<At<usize>> {
    let value = node.argument("how much is kept");
    let size = value.and_then(|value| Some(value.at(usize::try_from(value.size(BUFFER)?).ok()?)));
    node.finish();
    size
}

/// Reads `retry-budget percent=20 min=3 max=100`.
pub(super) fn retry_budget(mut node: Node<'_>) -> Option<At<RetryBudget>> {
    node.require_entries();
    let span = node.span();
    let number = |node: &mut Node<'_>, key: &'static str, range: RangeInclusive<u64>, default: usize| {
        let value = node.property(key);
        value.map_or(Some(default), |value| usize::try_from(value.integer(range)?).ok())
    };
    let percent = number(&mut node, "percent", 0..=100, DEFAULT_BUDGET.percent);
    let min = number(&mut node, "min", BUDGET, DEFAULT_BUDGET.min);
    let max = number(&mut node, "max", BUDGET, DEFAULT_BUDGET.max);
    if let (Some(min), Some(max)) = (min, max)
        && max < min
    {
        let error = ConfigError::new(Code::Conflict, "`max=` is less than `min=`");
        let error = error.label(span, format!("{min} at least and {max} at most"));
        node.fail(error.help("raise one of them, or lower the other"));
    }
    node.finish();
    let value = RetryBudget {
        percent: percent?,
        min: min?,
        max: max?,
    };
    Some(At { value, span })
}

/// Reads `outlier-ejection consecutive-errors=5 base-time="30s"`.
pub(super) fn outlier_ejection(mut node: Node<'_>, servers: usize) -> Option<OutlierEjection> {
    let count = |node: &mut Node<'_>, key: &'static str| {
        let value = node.property(key)?;
        Some(value.integer(COUNT).and_then(|count| u32::try_from(count).ok()))
    };
    let duration = |node: &mut Node<'_>, key: &'static str| {
        let value = node.property(key)?;
        Some(value.duration(TIMEOUT_RANGE).map(|duration| value.at(duration)))
    };
    let errors = count(&mut node, "consecutive-errors");
    let gateway_errors = count(&mut node, "consecutive-gateway-errors");
    let slow = duration(&mut node, "slow");
    let slow_count_at = node.property("consecutive-slow");
    let slow_count = slow_count_at.as_ref().map(|value| value.integer(COUNT));
    let base = duration(&mut node, "base-time");
    let max = duration(&mut node, "max-time");
    let max_ejected = node.property("max-ejected").map(|value| value.integer(1..=100));
    if let (Some(count), None) = (&slow_count_at, &slow) {
        let error = ConfigError::new(Code::Inert, "`consecutive-slow=` does nothing without `slow=`");
        let error = error.label(count.span(), "counts what is slower than that");
        node.fail(error.help("say what is slow: slow=\"1s\""));
    }
    if servers < 2 {
        let error = ConfigError::new(Code::Inert, "`outlier-ejection` does nothing: there is one server");
        let error = error.label(node.span(), "the last server that is up is never ejected");
        node.fail(error.help("leave it out, or add servers"));
    }
    let base_time = base.flatten().map_or(DEFAULT_BASE_TIME, |at| at.value);
    let max_time = max.flatten().map_or(DEFAULT_MAX_TIME.max(base_time), |at| at.value);
    if let Some(max) = max.flatten().filter(|max| max.value < base_time) {
        let error = ConfigError::new(Code::Conflict, "`max-time=` is less than the base time");
        let error = error.label(max.span, format!("the base time is {base_time:?}"));
        node.fail(error.help("servers are ejected for the base time at least"));
    }
    node.finish();
    let (errors, gateway_errors, slow) = (
        super::or_none(errors)?,
        super::or_none(gateway_errors)?,
        super::or_none(slow)?,
    );
    let slow_count = super::or_none(slow_count)?.unwrap_or(DEFAULT_CONSECUTIVE_SLOW);
    let slow = slow.map(|slow| Slow {
        above: slow.value,
        consecutive: u32::try_from(slow_count).unwrap_or(u32::MAX),
    });
    let is_bare = errors.is_none() && gateway_errors.is_none() && slow.is_none();
    Some(OutlierEjection {
        consecutive_errors: errors.or(is_bare.then_some(DEFAULT_CONSECUTIVE_ERRORS)),
        consecutive_gateway_errors: gateway_errors,
        slow,
        base_time,
        max_time,
        max_ejected: super::or_none(max_ejected)?
            .and_then(|percent| usize::try_from(percent).ok())
            .unwrap_or(DEFAULT_MAX_EJECTED),
    })
}

/// Reads `max-requests 1000`.
pub(super) fn max_requests(mut node: Node<'_>) -> Option<usize> {
    let value = node.argument("the number of requests");
    let most = value.and_then(|value| usize::try_from(value.integer(MAX_CONNECTIONS)?).ok());
    node.finish();
    most
}

/// HAProxy's default, and no more: what was sent may have done something.
pub(super) const DEFAULT_RETRY_ON: RetryOn = RetryOn {
    conn_failure: true,
    empty_response: false,
    junk_response: false,
    response_timeout: false,
    statuses: StatusSet::NONE,
    grpc: GrpcStatuses::NONE,
};
/// Bytes of a body: as HAProxy's buffer (`tune.bufsize`), which bounds what it repeats.
pub(super) const DEFAULT_BUFFER: usize = 16 * 1024;
/// Envoy's: when everything fails, servers get a fifth more than their load and not four times as much.
pub(super) const DEFAULT_BUDGET: RetryBudget = RetryBudget {
    percent: 20,
    min: 3,
    max: 1_000_000,
};
/// Envoy's.
const DEFAULT_CONSECUTIVE_ERRORS: u32 = 5;
/// One in a row is a hiccup, ten are a server that cannot cope.
const DEFAULT_CONSECUTIVE_SLOW: u64 = 10;
/// Envoy's.
const DEFAULT_BASE_TIME: Duration = Duration::from_secs(30);
/// Envoy's.
const DEFAULT_MAX_TIME: Duration = Duration::from_secs(300);
/// Where half of the servers answer badly, it is more likely what they are asked.
const DEFAULT_MAX_EJECTED: usize = 50;

const STATUS: RangeInclusive<u64> = 400..=599;
/// Held in memory for each request that has a body.
const BUFFER: RangeInclusive<u64> = 1..=16 << 20;
const BUDGET: RangeInclusive<u64> = 0..=1_000_000;
const COUNT: RangeInclusive<u64> = 1..=1_000;

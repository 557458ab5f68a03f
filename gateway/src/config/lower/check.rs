//! `check "http" interval="5s" rise=2 fall=3 { send …; expect … }`.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::settings::http_only;
use super::{check_http, check_steps, elsewhere, or_none, tls};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    AgentCheck, Check, CheckKind, CheckOpening, CheckTarget, InitialState, Mode, Observe, Observed, OnError, Schedule,
};
use crate::config::reader::{At, Node, Value};
use crate::config::units;

/// How connections of traffic to a backend's servers begin.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Openings {
    /// One of them with a PROXY header or TLS.
    pub(super) any: bool,
    /// One of them with TLS in which HTTP/2 is agreed on, and nothing else.
    pub(super) tls_http2: bool,
    /// One of them with TLS in which HTTP/1.1 is agreed on, and nothing else.
    pub(super) tls_http1: bool,
}

/// What is said of a check's request in its block.
fn of_requests(word: &str) -> Option<&'static str> {
    match word {
        "path" | "uri" | "url" | "method" | "send" | "expect" | "status" | "host" => Some(HELP_WITH_REQUESTS),
        word if word.starts_with('/') => Some(HELP_WITH_REQUESTS),
        "inter" => Some("write interval=\"2s\""),
        _ => None,
    }
}

/// Reads a backend's `check`. `openings` says how connections of traffic to its servers begin, `is_hurried` whether an `observe` lets
/// checks come sooner.
pub(super) fn check(mut node: Node<'_>, openings: Openings, is_hurried: bool) -> Option<Check> {
    #[derive(Clone, Copy)]
    enum Kind {
        Tcp,
        Http,
        Grpc,
    }
    node.hints(of_requests);
    let kind = node.argument("the kind of check");
    let kind = kind.and_then(|value| value.choice(&[("tcp", Kind::Tcp), ("http", Kind::Http), ("grpc", Kind::Grpc)]));
    let schedule = schedule(&mut node, is_hurried);
    let as_traffic = node.flag("as-traffic");
    let target = CheckTarget {
        address: node.property("address").and_then(|value| ip(&value)),
        port: node.property("port").and_then(|value| port(&value)),
        opening: match as_traffic {
            Some(_) => CheckOpening::AsTraffic,
            None => CheckOpening::Plain,
        },
    };
    if let Some(span) = as_traffic {
        let goes_elsewhere = target.address.is_some() || target.port.is_some();
        let inert = match (goes_elsewhere, openings.any) {
            (false, _) => Some((
                "this check goes where traffic goes, and as traffic does",
                "leave it out",
            )),
            (true, false) => Some((
                "no server of this backend has `tls` or `send-proxy`: traffic is plain, too",
                "leave it out",
            )),
            (true, true) => None,
        };
        if let Some((why, help)) = inert {
            let error = ConfigError::new(Code::Inert, "`as-traffic` does nothing here");
            node.fail(error.label(span, why).help(help));
        }
    }
    let goes_as_traffic = as_traffic.is_some() || target == CheckTarget::default();
    let (kind, tls) = match kind {
        Some(Kind::Tcp) => {
            let mut block = node.block();
            let tls = block.as_mut().map_or(Some(None), |block| tls::of_check(block, true));
            let steps = block.map(check_steps::steps).unwrap_or_default();
            (Some(CheckKind::Tcp(steps)), tls)
        }
        Some(Kind::Http) => {
            let has_tls = node.block_says("tls");
            let openings = openings.when(goes_as_traffic && !has_tls);
            let body_limit = node.property("body-limit");
            let (http, tls) = check_http::http(node.block(), body_limit, openings);
            (Some(CheckKind::Http(http)), tls)
        }
        Some(Kind::Grpc) => {
            let has_tls = node.block_says("tls");
            let openings = openings.when(goes_as_traffic && !has_tls);
            let grpc = check_http::grpc(&mut node, openings);
            let tls = node.block().map_or(Some(None), |mut block| {
                let tls = tls::of_check(&mut block, false);
                block.finish(elsewhere);
                tls
            });
            (grpc.map(CheckKind::Grpc), tls)
        }
        None => {
            node.raw();
            (None, Some(None))
        }
    };
    node.finish();
    Some(Check {
        kind: kind?,
        target,
        tls: tls?,
        schedule: schedule?,
        observe: None,
    })
}

impl Openings {
    /// These, where the check's connection begins as traffic's do.
    fn when(self, holds: bool) -> Self {
        if holds { self } else { Self::default() }
    }
}

/// Reads a backend's `observe "connect" error-limit=10 on-error="mark-down"`, beside checks on this schedule.
pub(super) fn observe(mut node: Node<'_>, mode: Option<At<Mode>>, schedule: Option<Schedule>) -> Option<Observe> {
    let what = node.argument("what is observed");
    let what = what.and_then(|value| value.choice(&[("connect", Observed::Connect), ("response", Observed::Response)]));
    if what == Some(Observed::Response) {
        http_only(&node, mode);
    }
    let error_limit = node.property("error-limit").map_or(Some(DEFAULT_ERROR_LIMIT), |value| {
        u32::try_from(value.integer(COUNT)?).ok()
    });
    let on_error = node.property("on-error").map_or(Some(DEFAULT_ON_ERROR), |value| {
        let on_error = value.choice(&[
            ("mark-down", OnError::MarkDown),
            ("fail-check", OnError::FailCheck),
            ("sudden-death", OnError::SuddenDeath),
            ("fast-check", OnError::FastCheck),
        ])?;
        report_no_faster(&value, on_error, schedule);
        Some(on_error)
    });
    node.finish();
    Some(Observe {
        what: what?,
        error_limit: error_limit?,
        on_error: on_error?,
    })
}

/// Reports an `on-error=` that does no more than to let the next check come sooner, where none can come sooner than it would.
fn report_no_faster(value: &Value<'_>, on_error: OnError, schedule: Option<Schedule>) {
    let Some(schedule) = schedule.filter(|schedule| schedule.fast_interval >= schedule.interval) else {
        return;
    };
    let why = match on_error {
        OnError::FastCheck => "lets the next check come after `fast-interval`, which is the interval",
        OnError::SuddenDeath if schedule.fall == 1 => "one check that fails takes a server down already: fall=1",
        _ => return,
    };
    let error = ConfigError::new(Code::Inert, "`observe` does nothing here").label(value.span(), why);
    let context = value.context();
    context.report(error.help("write a shorter `fast-interval=` in `check`, or on-error=\"fail-check\""));
}

/// Reads a backend's `agent-check port=9777 interval="2s" send="state\n"`.
pub(super) fn agent(mut node: Node<'_>) -> Option<AgentCheck> {
    let port = node.required_property("port").and_then(|value| port(&value));
    let address = node.property("address").map(|value| ip(&value));
    let interval = duration(&mut node, "interval");
    let timeout = duration(&mut node, "timeout");
    let send = node.property("send").map(|value| {
        let text = value.text()?;
        if text.len() > MAX_AGENT_QUESTION {
            let message = format!("`send` has at most {MAX_AGENT_QUESTION} bytes");
            return value.fail(message, "longer than that", "an agent is told a line at most");
        }
        Some(text.as_bytes().to_vec())
    });
    let effective = interval.map_or(DEFAULT_INTERVAL, |interval| interval.value);
    report_long_timeout(&node, timeout, effective, interval, "an agent's");
    node.finish();
    Some(AgentCheck {
        port: port?,
        address: or_none(address)?,
        interval: effective,
        timeout: timeout.map_or(effective, |timeout| timeout.value),
        send: or_none(send)?.unwrap_or_default(),
    })
}

fn report_long_timeout(
    node: &Node<'_>,
    timeout: Option<At<Duration>>,
    effective: Duration,
    interval: Option<At<Duration>>,
    whose: &str,
) {
    if let Some(timeout) = timeout.filter(|timeout| timeout.value > effective) {
        let error = ConfigError::new(Code::Conflict, format!("{whose} timeout is at most its interval"));
        let mut error = error.label(timeout.span, format!("longer than {}", units::show_duration(effective)));
        if let Some(interval) = interval {
            error = error.label(interval.span, "the interval");
        }
        node.fail(error.help("make the interval longer or the timeout shorter"));
    }
}

/// `interval=` and its kin.
fn schedule(node: &mut Node<'_>, is_hurried: bool) -> Option<Schedule> {
    let interval = duration(node, "interval");
    let fast_interval = duration(node, "fast-interval");
    let down_interval = duration(node, "down-interval");
    let timeout = duration(node, "timeout");
    let rise = count(node, "rise", DEFAULT_RISE);
    let fall = count(node, "fall", DEFAULT_FALL);
    let initial = node.property("initial").map_or(Some(DEFAULT_INITIAL), |value| {
        value.choice(&[
            ("up", InitialState::Up),
            ("fully-up", InitialState::FullyUp),
            ("down", InitialState::Down),
            ("fully-down", InitialState::FullyDown),
        ])
    });
    let effective = interval.map_or(DEFAULT_INTERVAL, |interval| interval.value);
    report_long_timeout(node, timeout, effective, interval, "a check's");
    if let Some(fast) = fast_interval.filter(|fast| fast.value > effective) {
        let error = ConfigError::new(Code::Conflict, "`fast-interval` is at most the interval");
        let error = error.label(fast.span, format!("longer than {}", units::show_duration(effective)));
        node.fail(error.help("it is for looking more often while a server goes up or down"));
    }
    if let Some(fast) = fast_interval.filter(|_| (rise, fall, is_hurried) == (Some(1), Some(1), false)) {
        let error = ConfigError::new(Code::Inert, "`fast-interval` does nothing with rise=1 and fall=1");
        let error = error.label(
            fast.span,
            "a server is never on its way up or down: one check settles it",
        );
        node.fail(error.help("leave it out, or let more checks agree"));
    }
    let or_interval = |own: Option<At<Duration>>| own.map_or(effective, |own| own.value);
    Some(Schedule {
        interval: effective,
        fast_interval: or_interval(fast_interval),
        down_interval: or_interval(down_interval),
        timeout: or_interval(timeout),
        rise: rise?,
        fall: fall?,
        initial: initial?,
    })
}

fn duration(node: &mut Node<'_>, key: &'static str) -> Option<At<Duration>> {
    let value = node.property(key)?;
    Some(value.at(value.duration(INTERVAL)?))
}

fn ip(value: &Value<'_>) -> Option<IpAddr> {
    let text = value.text()?;
    text.trim_start_matches('[').trim_end_matches(']').parse().map_or_else(
        |_| {
            let message = format!("{} has to be an IP address", value.title());
            value.fail(
                message,
                "is none",
                "write it alone, as \"10.0.0.9\"; `port=` says the port",
            )
        },
        Some,
    )
}

/// A port that something can listen on.
pub(super) fn port(value: &Value<'_>) -> Option<u16> {
    u16::try_from(value.integer(1..=65_535)?).ok()
}

fn count(node: &mut Node<'_>, key: &'static str, default: u32) -> Option<u32> {
    match node.property(key) {
        Some(value) => u32::try_from(value.integer(COUNT)?).ok(),
        None => Some(default),
    }
}

/// Often enough to notice a dead server before most users do, seldom enough not to be load.
pub(super) const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
const HELP_WITH_REQUESTS: &str =
    "what is asked stands in the block: check \"http\" { send \"GET\" \"/health\"; expect status=200 }";
/// A server is used until it is shown to be down, which the first check may do: as HAProxy.
const DEFAULT_INITIAL: InitialState = InitialState::Up;
/// As HAProxy's.
const DEFAULT_ERROR_LIMIT: u32 = 10;
/// As HAProxy's: what traffic meets counts as a check that failed.
const DEFAULT_ON_ERROR: OnError = OnError::FailCheck;
/// One lucky check is not health.
const DEFAULT_RISE: u32 = 2;
/// One lost packet is not death.
const DEFAULT_FALL: u32 = 3;

/// A line to an agent, with room.
const MAX_AGENT_QUESTION: usize = 1_024;

const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);
const COUNT: RangeInclusive<u64> = 1..=1_000;

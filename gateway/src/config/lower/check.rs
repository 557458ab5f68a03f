//! `check "http" interval="5s" rise=2 fall=3 { send …; expect … }`.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::settings::http_only;
use super::{check_steps, edits, elsewhere, or_none};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    AgentCheck, Check, CheckKind, CheckOpening, CheckTarget, HttpCheck, InitialState, Mode, Observe, Observed, OnError,
    Schedule,
};
use crate::config::reader::{At, Block, Node, Value, clip, said_twice};
use crate::config::units;

/// Reads a backend's `check`. `is_opened` says whether connections of traffic to one of its servers begin with a PROXY header
/// or TLS.
pub(super) fn check(mut node: Node<'_>, is_opened: bool) -> Option<Check> {
    #[derive(Clone, Copy)]
    enum Kind {
        Tcp,
        Http,
    }
    let kind = node.argument("the kind of check");
    let kind = kind.and_then(|value| value.choice(&[("tcp", Kind::Tcp), ("http", Kind::Http)]));
    let schedule = schedule(&mut node);
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
        let inert = match (goes_elsewhere, is_opened) {
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
    let kind = match kind {
        Some(Kind::Tcp) => Some(CheckKind::Tcp(node.block().map(check_steps::steps).unwrap_or_default())),
        Some(Kind::Http) => Some(CheckKind::Http(http(node.block()))),
        None => {
            node.raw();
            None
        }
    };
    node.finish();
    Some(Check {
        kind: kind?,
        target,
        schedule: schedule?,
        observe: None,
    })
}

/// Reads a backend's `observe "connect" error-limit=10 on-error="mark-down"`.
pub(super) fn observe(mut node: Node<'_>, mode: Option<At<Mode>>) -> Option<Observe> {
    let what = node.argument("what is observed");
    let what = what.and_then(|value| value.choice(&[("connect", Observed::Connect), ("response", Observed::Response)]));
    if what == Some(Observed::Response) {
        http_only(&node, mode);
    }
    let error_limit = node.property("error-limit").map_or(Some(DEFAULT_ERROR_LIMIT), |value| {
        u32::try_from(value.integer(COUNT)?).ok()
    });
    let on_error = node.property("on-error").map_or(Some(DEFAULT_ON_ERROR), |value| {
        value.choice(&[
            ("mark-down", OnError::MarkDown),
            ("fail-check", OnError::FailCheck),
            ("sudden-death", OnError::SuddenDeath),
            ("fast-check", OnError::FastCheck),
        ])
    });
    node.finish();
    Some(Observe {
        what: what?,
        error_limit: error_limit?,
        on_error: on_error?,
    })
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
fn schedule(node: &mut Node<'_>) -> Option<Schedule> {
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

/// What is sent, and what is expected. Faults are reported and defaults taken in their place.
fn http(block: Option<Block<'_>>) -> HttpCheck {
    let mut check = HttpCheck {
        method: DEFAULT_METHOD.to_owned(),
        uri: DEFAULT_URI.to_owned(),
        host: None,
        status: DEFAULT_STATUS.to_vec(),
        body_contains: Vec::new(),
    };
    let Some(mut block) = block else { return check };
    if let Some(node) = block.one("send") {
        send(node, &mut check);
    }
    let mut status: Option<At<()>> = None;
    for mut node in block.many("expect") {
        node.require_entries();
        if let Some(value) = node.property("status") {
            if let Some(first) = status {
                let error = said_twice("the expected status", first.span, value.span());
                node.fail(error.help("several are written in one: expect status=\"200,204,300-399\""));
            }
            status = Some(value.at(()));
            if let Some(ranges) = statuses(&value) {
                check.status = ranges;
            }
        }
        if let Some(value) = node.property("body-contains")
            && let Some(text) = value.text()
        {
            if check.method == "HEAD" {
                let error = ConfigError::new(Code::Conflict, "the answer to HEAD has no body");
                node.fail(error.label(value.span(), "never found").help("send \"GET\""));
            }
            if text.len() > MAX_BODY_TEXT {
                let message = format!("`body-contains` has at most {MAX_BODY_TEXT} bytes");
                value.fail::<()>(message, "longer than that", "look for a shorter text");
            }
            if check.body_contains.iter().any(|first| first == text) {
                let error = ConfigError::new(Code::Duplicate, "this text is looked for already");
                node.fail(error.label(value.span(), "said again here").help("leave it out"));
            }
            if check.body_contains.len() == MAX_BODY_TEXTS {
                let message = format!("a check looks for at most {MAX_BODY_TEXTS} texts");
                value.fail::<()>(message, "one too many", "look for fewer");
            }
            if check.body_contains.len() <= MAX_BODY_TEXTS {
                check.body_contains.push(text.to_owned());
            }
        }
        node.finish();
    }
    block.finish(elsewhere);
    check
}

fn send(mut node: Node<'_>, check: &mut HttpCheck) {
    if let Some(method) = node.argument("the method").and_then(|value| edits::token(&value)) {
        check.method = method;
    }
    if let Some(uri) = node.argument("the request target").and_then(|value| target(&value)) {
        check.uri = uri;
    }
    if let Some(value) = node.property("host")
        && let Some(text) = value.text()
    {
        match text.parse::<http::uri::Authority>() {
            Ok(_) => check.host = Some(text.to_owned()),
            Err(_) => {
                let help = "write a host name, with a port if it is not the usual one, as \"www.example.net\"";
                value.fail::<()>("`host` is not a host", "cannot stand in a Host header", help);
            }
        }
    }
    node.finish();
}

/// A path with, perhaps, a query.
fn target(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let help = "write a path, as \"/health\"";
    if !text.starts_with('/') {
        return value.fail("the request target has to begin with `/`", "does not", help);
    }
    if text.parse::<http::uri::PathAndQuery>().is_err() || text.contains('#') {
        return value.fail(
            "this cannot be a request target",
            "has a character that cannot be there",
            help,
        );
    }
    Some(text.to_owned())
}

/// `200`, `"200-299"` or `"200,204,300-399"`.
fn statuses(value: &Value<'_>) -> Option<Vec<(u16, u16)>> {
    if !value.raw().is_string() {
        let status = u16::try_from(value.integer(u64::from(*STATUS.start())..=u64::from(*STATUS.end()))?).ok()?;
        return Some(vec![(status, status)]);
    }
    let text = value.text()?;
    let mut ranges = Vec::new();
    let help = "write a status, a range or several with commas: \"200\", \"200-299\", \"200,204,300-399\"";
    for part in text.split(',') {
        let part = part.trim();
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| match text.trim().parse::<u16>() {
            Ok(number) if text.len() == 3 && STATUS.contains(&number) => Some(number),
            _ => None,
        };
        let (Some(low), Some(high)) = (number(low), number(high)) else {
            let message = format!("statuses are from {} to {}", STATUS.start(), STATUS.end());
            return value.fail(
                message,
                format!("{:?} is not one, nor a range of them", clip(part)),
                help,
            );
        };
        if low > high {
            return value.fail(
                "this range of statuses is empty",
                format!("{low} is more than {high}"),
                help,
            );
        }
        ranges.push((low, high));
    }
    Some(ranges)
}

/// Often enough to notice a dead server before most users do, seldom enough not to be load.
pub(super) const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
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
const DEFAULT_METHOD: &str = "GET";
const DEFAULT_URI: &str = "/";
/// A redirect shows a server that is alive.
const DEFAULT_STATUS: &[(u16, u16)] = &[(200, 399)];

/// A line to an agent, with room.
const MAX_AGENT_QUESTION: usize = 1_024;

const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);
const COUNT: RangeInclusive<u64> = 1..=1_000;
const STATUS: RangeInclusive<u16> = 100..=599;
/// Each is looked for in every answer.
const MAX_BODY_TEXTS: usize = 16;
/// Far below the 64 KiB of a body that are looked at.
const MAX_BODY_TEXT: usize = 4_096;

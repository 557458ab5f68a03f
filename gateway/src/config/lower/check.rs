//! `check "http" interval="5s" rise=2 fall=3 { send …; expect … }`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{edits, elsewhere};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Check, CheckKind, HttpCheck};
use crate::config::reader::{At, Block, Node, Value, clip, said_twice};
use crate::config::units;

/// Reads a backend's `check`.
pub(super) fn check(mut node: Node<'_>) -> Option<Check> {
    #[derive(Clone, Copy)]
    enum Kind {
        Tcp,
        Http,
    }
    let kind = node.argument("the kind of check");
    let kind = kind.and_then(|value| value.choice(&[("tcp", Kind::Tcp), ("http", Kind::Http)]));
    let interval = node
        .property("interval")
        .and_then(|value| Some(value.at(value.duration(INTERVAL)?)));
    let timeout = node
        .property("timeout")
        .and_then(|value| Some(value.at(value.duration(INTERVAL)?)));
    let rise = count(&mut node, "rise", DEFAULT_RISE);
    let fall = count(&mut node, "fall", DEFAULT_FALL);
    let kind = match kind {
        Some(Kind::Tcp) => {
            if let Some(mut block) = node.block() {
                for inner in block.any(&["send", "expect"]) {
                    let name = inner.name();
                    let error =
                        ConfigError::new(Code::Inert, format!("`{name}` does nothing in a check of kind \"tcp\""));
                    let error = error.label(inner.span(), "this check connects, and that is all");
                    node.fail(error.help("leave it out, or write check \"http\" for servers that speak HTTP"));
                }
                block.finish(elsewhere);
            }
            Some(CheckKind::Tcp)
        }
        Some(Kind::Http) => Some(CheckKind::Http(http(node.block()))),
        None => {
            node.raw();
            None
        }
    };
    let effective = interval.map_or(DEFAULT_INTERVAL, |interval| interval.value);
    if let Some(timeout) = timeout.filter(|timeout| timeout.value > effective) {
        let error = ConfigError::new(Code::Conflict, "a check's timeout is at most its interval");
        let mut error = error.label(timeout.span, format!("longer than {}", units::show_duration(effective)));
        if let Some(interval) = interval {
            error = error.label(interval.span, "the interval");
        }
        node.fail(error.help("make the interval longer or the timeout shorter"));
    }
    node.finish();
    Some(Check {
        kind: kind?,
        interval: effective,
        timeout: timeout.map_or(effective, |timeout| timeout.value),
        rise: rise?,
        fall: fall?,
    })
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
/// One lucky check is not health.
const DEFAULT_RISE: u32 = 2;
/// One lost packet is not death.
const DEFAULT_FALL: u32 = 3;
const DEFAULT_METHOD: &str = "GET";
const DEFAULT_URI: &str = "/";
/// A redirect shows a server that is alive.
const DEFAULT_STATUS: &[(u16, u16)] = &[(200, 399)];

const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);
const COUNT: RangeInclusive<u64> = 1..=1_000;
const STATUS: RangeInclusive<u16> = 100..=599;
/// Each is looked for in every answer.
const MAX_BODY_TEXTS: usize = 16;
/// Far below the 64 KiB of a body that are looked at.
const MAX_BODY_TEXT: usize = 4_096;

//! `time "08:00-18:00" days="mon-fri" zone="Europe/Berlin"`, and ranges of ports.

use miette::SourceSpan;

use super::{acl, or_none};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::TimeMatch;
use crate::config::reader::{Node, Value, clip};
use crate::config::suggest;

/// Reads the arguments and properties of `time`.
pub(super) fn time(node: &mut Node<'_>) -> Option<TimeMatch> {
    let span: SourceSpan = node.span();
    let ranges = acl::distinct(node.arguments("a time of day"), range);
    let days = node.property("days").map(|value| days(&value));
    let zone = node.property("zone").map(|value| zone(&value));
    if days.is_none() && ranges.as_ref().is_some_and(Vec::is_empty) {
        let error = ConfigError::new(Code::Missing, "`time` needs a time of day or `days=`");
        node.fail(error.label(span, "holds at any time").maybe_help(node.example()));
        return None;
    }
    Some(TimeMatch {
        zone: or_none(zone)?.unwrap_or_else(|| "UTC".to_owned()),
        days: or_none(days)?.unwrap_or_default(),
        ranges: ranges?,
    })
}

/// `443`, or `"8000-8100"`.
pub(super) fn ports(value: &Value<'_>) -> Option<(u16, u16)> {
    let Some(text) = value.raw().as_string() else {
        let port = u16::try_from(value.integer(1..=65535)?).ok()?;
        return Some((port, port));
    };
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let ends = text
        .split_once('-')
        .and_then(|(first, last)| Some((port(first)?, port(last)?)))
        .or_else(|| port(text).map(|only| (only, only)));
    match ends {
        Some((first, last)) if first <= last => Some((first, last)),
        Some((first, last)) => value.fail(
            "a range of ports goes up",
            "this one goes down",
            format!("write \"{last}-{first}\""),
        ),
        None => value.fail(
            "this is not a port",
            "neither a port nor a range",
            "write a number from 1 to 65535, as 443, or a range, as \"8000-8100\"",
        ),
    }
}

/// `08:00-18:00`, in minutes.
fn range(value: &Value<'_>) -> Option<(u16, u16)> {
    let help = "write it with two digits each, as \"08:00-18:00\"; \"22:00-06:00\" goes over midnight";
    let text = value.text()?;
    let ends = text
        .split_once('-')
        .and_then(|(from, to)| Some((minute(from)?, minute(to)?)));
    match ends {
        Some((from, to)) if from == to => value.fail(
            "a time of day ends when it begins",
            "no time at all, or the whole day",
            "write \"00:00-24:00\" for the whole day",
        ),
        Some((from, to)) if from < DAY => Some((from, to)),
        _ => value.fail("this is not a time of day", "cannot be read", help),
    }
}

/// `18:00`; `24:00` is the day's end.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |text: &str| match text.len() {
        2 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u16>().ok(),
        _ => None,
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let time = hours * 60 + minutes;
    (minutes < 60 && time <= DAY).then_some(time)
}

/// `mon-fri,sun`, in order and without those that come twice; a range may go over the week's end.
fn days(value: &Value<'_>) -> Option<Vec<u8>> {
    let mut days = Vec::new();
    for part in value.text()?.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(value, first)?, day(value, last)?);
        let length = (last + 7 - first) % 7;
        days.extend((0..=length).map(|i| (first - 1 + i) % 7 + 1));
    }
    days.sort_unstable();
    days.dedup();
    if days.len() == 7 {
        return value.fail(
            "`days` says nothing: it is every day of the week",
            "all seven",
            "leave it out",
        );
    }
    Some(days)
}

fn day(value: &Value<'_>, text: &str) -> Option<u8> {
    let text = text.trim();
    let found = DAYS.iter().position(|day| day.eq_ignore_ascii_case(text));
    if let Some(day) = found.and_then(|i| u8::try_from(i + 1).ok()) {
        return Some(day);
    }
    value.fail(
        format!("{:?} is not a day of the week", clip(text)),
        "unknown day",
        "write days as \"mon-fri\" or \"sat,sun\"",
    )
}

fn zone(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if jiff::tz::TimeZone::get(text).is_ok() {
        return Some(text.to_owned());
    }
    let known: Vec<String> = jiff::tz::db().available().map(|zone| zone.to_string()).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let help = match suggest::nearest(text, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "zones have names of the IANA's database, as \"Europe/Berlin\"".to_owned(),
    };
    value.fail(format!("there is no time zone {:?}", clip(text)), "unknown zone", help)
}

const DAY: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

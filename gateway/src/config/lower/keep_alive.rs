//! `tcp-keep-alive`.

use std::ops::RangeInclusive;
use std::time::Duration;

use miette::SourceSpan;

use super::settings::Settings;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::KeepAlive;
use crate::config::reader::{At, Context, Node, Value};
use crate::config::units;

/// `tcp-keep-alive`, with any of its properties, or `tcp-keep-alive "off"`.
pub(super) fn read(mut node: Node<'_>) -> Option<At<Option<KeepAlive>>> {
    let span = node.span();
    let off = node.flag("off");
    let (idle, interval, count) = (node.property("idle"), node.property("interval"), node.property("count"));
    if let (Some(off), Some(said)) = (off, idle.or(interval).or(count)) {
        let error = ConfigError::new(Code::Inert, "properties do nothing when TCP keep-alive is off");
        node.fail(
            error
                .label(said.span(), "does nothing")
                .label(off, "because of this")
                .help("one of them has to go"),
        );
    }
    node.finish();
    let seconds = |value: Option<Value<'_>>, default| match value {
        Some(value) => whole(&value),
        None => Some(default),
    };
    let (idle, interval) = (seconds(idle, DEFAULT.idle), seconds(interval, DEFAULT.interval));
    let count = match count {
        Some(count) => count.integer(COUNT).and_then(|count| u32::try_from(count).ok()),
        None => Some(DEFAULT.count),
    };
    let keep_alive = KeepAlive {
        idle: idle?,
        interval: interval?,
        count: count?,
    };
    let value = off.is_none().then_some(keep_alive);
    Some(At { value, span })
}

/// What holds for a frontend or backend.
pub(super) fn of(own: &Settings, inherited: &Settings) -> Option<KeepAlive> {
    let said = own.keep_alive.or(inherited.keep_alive);
    said.map_or(Some(DEFAULT), |said| said.value)
}

/// Settles what holds for a frontend or a backend, when it is known for how long its connections are silent at most: nothing when
/// they end before the first probe. That it says something for nothing, at `said`, is reported.
pub(super) fn settle(ctx: &Context<'_>, held: &mut Option<KeepAlive>, silence: Duration, said: Option<SourceSpan>) {
    if held.is_none_or(|keep_alive| keep_alive.idle < silence) {
        return;
    }
    *held = None;
    if let Some(said) = said {
        let error = ConfigError::new(Code::Inert, "`tcp-keep-alive` does nothing here");
        let longest = units::show_duration(silence);
        let error = error.label(
            said,
            format!("a connection that is silent ends after {longest}, before its first probe"),
        );
        ctx.report(error.help("write an `idle=` that is shorter, or leave it out"));
    }
}

/// The kernel counts in seconds.
fn whole(value: &Value<'_>) -> Option<Duration> {
    let duration = value.duration(SECONDS)?;
    if duration.subsec_nanos() != 0 {
        return value.fail(
            "the system counts this in whole seconds".to_owned(),
            "not a whole number of seconds",
            "write it as \"30s\"",
        );
    }
    Some(duration)
}

/// A dead client or server is noticed within two minutes, and a firewall or address translation between sees a packet a
/// minute; most forget a connection after five minutes or more. The system's own default, two hours, helps against neither.
const DEFAULT: KeepAlive = KeepAlive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    count: 6,
};

/// What the kernel takes (tcp(7), `TCP_KEEPIDLE`, `TCP_KEEPINTVL`).
const SECONDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(32_767);
/// What the kernel takes (`TCP_KEEPCNT`).
const COUNT: RangeInclusive<u64> = 1..=127;

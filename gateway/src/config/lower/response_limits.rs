//! `response-limits head="64KiB" headers=100 informational=64`: bounds on what servers answer.

use std::ops::RangeInclusive;

use super::settings::Settings;
use crate::config::model::ResponseLimits;
use crate::config::reader::{At, Node};

/// `response-limits`, each on its own.
#[derive(Default, Clone)]
pub(super) struct ResponseLimitSettings {
    head: Option<At<usize>>,
    headers: Option<At<usize>>,
    informational: Option<At<usize>>,
}

impl ResponseLimitSettings {
    pub(super) fn read(mut node: Node<'_>) -> Self {
        node.require_entries();
        let number = |value: u64| usize::try_from(value).ok();
        let head = node.property("head");
        let headers = node.property("headers");
        let informational = node.property("informational");
        let this = Self {
            head: head.and_then(|value| Some(value.at(number(value.size(HEAD)?)?))),
            headers: headers.and_then(|value| Some(value.at(number(value.integer(HEADERS)?)?))),
            informational: informational.and_then(|value| Some(value.at(number(value.integer(INFORMATIONAL)?)?))),
        };
        node.finish();
        this
    }
}

/// What holds for a backend.
pub(super) fn of(own: &Settings, inherited: &Settings) -> ResponseLimits {
    let (own, inherited) = (&own.response_limits, &inherited.response_limits);
    let default = ResponseLimits::DEFAULT;
    ResponseLimits {
        head: own.head.or(inherited.head).map_or(default.head, |value| value.value),
        headers: own
            .headers
            .or(inherited.headers)
            .map_or(default.headers, |value| value.value),
        informational: own
            .informational
            .or(inherited.informational)
            .map_or(default.informational, |value| value.value),
    }
}

/// Below 1 KiB hardly a server gets through; beyond 1 MiB a head is an attack.
const HEAD: RangeInclusive<u64> = 1 << 10..=1 << 20;
/// Beyond this, parsing the fields costs more than passing the response on.
const HEADERS: RangeInclusive<u64> = 1..=1_000;
/// A server that says that it is at work every second for as long as anybody waits says so a few thousand times.
const INFORMATIONAL: RangeInclusive<u64> = 1..=10_000;

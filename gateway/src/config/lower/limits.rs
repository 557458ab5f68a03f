//! `request-limits`, `http-keep-alive`, `pool` and `retries`: what requests, connections and attempts may come to.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use miette::SourceSpan;

use super::settings::TIMEOUT_RANGE;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{HttpKeepAlive, MAX_RETRIES, Redispatch, Reuse};
use crate::config::reader::{At, Node};

/// `request-limits`, each on its own.
#[derive(Default, Clone)]
pub(super) struct RequestLimitSettings {
    pub(super) head: Option<At<usize>>,
    pub(super) headers: Option<At<usize>>,
    pub(super) uri: Option<At<usize>>,
    pub(super) body: Option<At<u64>>,
    pub(super) unread: Option<At<u64>>,
}

/// `http-keep-alive`, each on its own.
#[derive(Default, Clone)]
pub(super) struct HttpKeepAliveSettings {
    max_requests: Option<NonZeroU32>,
    max_age: Option<Duration>,
}

/// `pool`, each on its own.
#[derive(Default, Clone)]
pub(super) struct PoolSettings {
    pub(super) max_idle: Option<At<usize>>,
    pub(super) idle_timeout: Option<At<Duration>>,
    pub(super) reuse: Option<At<Reuse>>,
}

/// `retries`, each part on its own.
#[derive(Default, Clone)]
pub(super) struct RetrySettings {
    pub(super) count: Option<At<usize>>,
    pub(super) redispatch: Option<At<Redispatch>>,
}

impl RequestLimitSettings {
    /// Reads the node.
    pub(super) fn read(mut node: Node<'_>) -> Self {
        node.require_entries();
        let bytes = |value: u64| usize::try_from(value).ok();
        let this = Self {
            head: node
                .property("head")
                .and_then(|value| Some(value.at(bytes(value.size(HEAD_RANGE)?)?))),
            headers: node
                .property("headers")
                .and_then(|value| Some(value.at(bytes(value.integer(HEADERS_RANGE)?)?))),
            uri: node
                .property("uri")
                .and_then(|value| Some(value.at(bytes(value.size(URI_RANGE)?)?))),
            body: node
                .property("body")
                .and_then(|value| Some(value.at(value.size(BODY_RANGE)?))),
            unread: node
                .property("unread")
                .and_then(|value| Some(value.at(value.size(UNREAD_RANGE)?))),
        };
        node.finish();
        this
    }
}

impl HttpKeepAliveSettings {
    /// Reads the node.
    pub(super) fn read(mut node: Node<'_>) -> Self {
        node.require_entries();
        let requests = node.property("max-requests");
        let requests = requests.and_then(|value| value.integer(REQUESTS));
        let age = node.property("max-age");
        let age = age.and_then(|value| value.duration(TIMEOUT_RANGE));
        node.finish();
        Self {
            max_requests: requests.and_then(|requests| NonZeroU32::new(u32::try_from(requests).ok()?)),
            max_age: age,
        }
    }

    /// What holds in a frontend that says this and inherits that. No limit unless said: nothing of a connection grows with what
    /// it has carried.
    pub(super) fn of(&self, inherited: &Self) -> HttpKeepAlive {
        HttpKeepAlive {
            max_requests: self.max_requests.or(inherited.max_requests),
            max_age: self.max_age.or(inherited.max_age),
        }
    }
}

impl PoolSettings {
    /// Reads the node.
    pub(super) fn read(mut node: Node<'_>) -> Self {
        node.require_entries();
        let max_idle = node.property("max-idle");
        let max_idle = max_idle.and_then(|value| Some(value.at(usize::try_from(value.integer(MAX_IDLE)?).ok()?)));
        let idle_timeout = node.property("idle-timeout");
        let idle_timeout = idle_timeout.and_then(|value| Some(value.at(value.duration(TIMEOUT_RANGE)?)));
        let reuse = node.property("reuse");
        let reuse = reuse.and_then(|value| Some(value.at(value.choice(REUSES)?)));
        node.finish();
        Self {
            max_idle,
            idle_timeout,
            reuse,
        }
    }

    /// Where anything is said of the pool.
    pub(super) fn span(&self) -> Option<SourceSpan> {
        let idle = self.max_idle.map(|value| value.span);
        idle.or(self.idle_timeout.map(|value| value.span))
            .or(self.reuse.map(|value| value.span))
    }
}

impl RetrySettings {
    /// Reads the node.
    pub(super) fn read(mut node: Node<'_>) -> Self {
        node.require_entries();
        let count = node.next_argument("a number of retries");
        let count = count.and_then(|value| Some(value.at(usize::try_from(value.integer(RETRIES)?).ok()?)));
        let redispatch = node.property("redispatch");
        let redispatch = redispatch.and_then(|value| Some(value.at(value.choice(REDISPATCH)?)));
        if let (Some(count), Some(redispatch)) = (count.filter(|count| count.value == 0), redispatch) {
            let error = ConfigError::new(Code::Inert, "`redispatch` does nothing without retries");
            let error = error.label(redispatch.span, "says where retries go");
            node.fail(error.label(count.span, "there are none").help("one of them has to go"));
        }
        node.finish();
        Self { count, redispatch }
    }
}

/// HAProxy's words.
const REUSES: &[(&str, Reuse)] = &[
    ("never", Reuse::Never),
    ("safe", Reuse::Safe),
    ("aggressive", Reuse::Aggressive),
    ("always", Reuse::Always),
];

const REDISPATCH: &[(&str, Redispatch)] = &[
    ("each", Redispatch::Each),
    ("last", Redispatch::Last),
    ("off", Redispatch::Never),
];

/// Below 1 KiB no browser gets through; beyond 1 MiB a head is an attack.
const HEAD_RANGE: RangeInclusive<u64> = 1 << 10..=1 << 20;
/// Beyond this, parsing the fields costs more than serving the request.
const HEADERS_RANGE: RangeInclusive<u64> = 1..=1_000;
/// What is longer, the library for URIs does not read.
const URI_RANGE: RangeInclusive<u64> = 1..=65_534;
const BODY_RANGE: RangeInclusive<u64> = 1..=1 << 50;
/// Of the least, the connection ends at once.
const UNREAD_RANGE: RangeInclusive<u64> = 1..=1 << 50;
/// One is a connection for each request. More than the last says nothing.
const REQUESTS: RangeInclusive<u64> = 1..=1_000_000_000;
/// Per server and worker: more would outlive every server's own bound.
const MAX_IDLE: RangeInclusive<u64> = 1..=100_000;
const RETRIES: RangeInclusive<u64> = 0..=MAX_RETRIES as u64;

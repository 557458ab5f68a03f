//! `isolation "per-request"`: who shares an instance of a plugin, and for how long.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{BuiltIn, Isolation};
use crate::config::reader::{Node, Value};

/// What is part of the gateway remembers no more of a request than the gateway does: its instances serve as long as they work.
pub(super) fn isolation_of(built_in: Option<BuiltIn>) -> Isolation {
    match built_in {
        Some(_) => Isolation::FOREVER,
        None => DEFAULT_ISOLATION,
    }
}

/// `isolation "per-request" ready=8` or `isolation "reuse" max-requests=1000 max-age="10m"`, of a plugin that has so many
/// instances at most.
pub(super) fn isolation(mut node: Node<'_>, instances: Option<u32>) -> Option<Isolation> {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Request,
        Connection,
        Reuse,
    }
    let kinds = [
        ("per-request", Kind::Request),
        ("per-connection", Kind::Connection),
        ("reuse", Kind::Reuse),
    ];
    let kind = node
        .argument("who shares an instance")
        .and_then(|value| value.choice(&kinds));
    let ready = node.property("ready");
    let max_requests = node.property("max-requests");
    let max_age = node.property("max-age");
    let inert = |value: &Option<Value<'_>>, help: &str| {
        if let Some(value) = value {
            let error = ConfigError::new(Code::Inert, format!("{} does nothing here", value.title()));
            node.fail(error.label(value.span(), "not with this isolation").help(help));
        }
    };
    let isolation = match kind {
        Some(Kind::Reuse) => {
            inert(&ready, "leave it out: an instance in use has one successor ready");
            let max_requests = max_requests
                .map(|value| value.integer(MAX_REQUESTS))
                .unwrap_or(Some(DEFAULT_MAX_REQUESTS));
            Some(Isolation::Reuse {
                max_requests: max_requests.and_then(NonZeroU64::new),
                max_age: max_age.map_or(Some(DEFAULT_MAX_AGE), |value| value.duration(MAX_AGE)),
            })
        }
        Some(kind) => {
            let help = "leave it out, or write isolation \"reuse\"";
            inert(&max_requests, help);
            inert(&max_age, help);
            let most = instances.map_or(u64::MAX, |instances| u64::from(instances / 2));
            let said = ready.and_then(|value| Some((value, value.integer(READY)?)));
            if let Some((value, _)) = said.filter(|(_, ready)| *ready > most) {
                let message = format!("at most {most} instances lie ready: half of `instances=`");
                let error = ConfigError::new(Code::Inert, message).label(value.span(), "more than there are");
                node.fail(error.help("make `ready=` smaller, or `limit instances=` larger"));
            }
            let ready = match ready {
                Some(_) => said.map(|(_, ready)| ready),
                None => Some(DEFAULT_READY),
            };
            let ready = usize::try_from(ready?).ok()?;
            Some(match kind {
                Kind::Connection => Isolation::PerConnection { ready },
                Kind::Request | Kind::Reuse => Isolation::PerRequest { ready },
            })
        }
        None => None,
    };
    node.finish();
    isolation
}

/// What a stranger's component has seen of one exchange is nobody else's business.
const DEFAULT_ISOLATION: Isolation = Isolation::PerRequest {
    ready: DEFAULT_READY as usize,
};
/// As many as come at once in a busy worker's turn; there are so many only when they are asked for.
const DEFAULT_READY: u64 = 8;
const READY: RangeInclusive<u64> = 0..=1_000;
/// What piles up in an instance's memory over so many requests is still little, and making another one costs none of them
/// anything.
const DEFAULT_MAX_REQUESTS: u64 = 10_000;
const MAX_REQUESTS: RangeInclusive<u64> = 1..=1_000_000_000;
/// Likewise by time, where there are few requests.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(600);
const MAX_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);

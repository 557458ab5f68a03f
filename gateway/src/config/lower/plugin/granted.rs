//! What a plugin is granted: imports, backends that it may route to, and those that it may call.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Of;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::lower::Scope;
use crate::config::lower::plugin_limits::BODY;
use crate::config::model::{BackendId, DEFAULT_MAX_BODY, Grant, Mode, PluginCall};
use crate::config::reader::{At, Node, Value, said_twice};

/// `grant "log" "kv"`, of a plugin or of a tenant for all of its own.
pub(in crate::config::lower) fn grants(mut node: Node<'_>, may: Of<'_, Grant>) -> Vec<Grant> {
    let mut grants: Vec<At<Grant>> = Vec::new();
    for value in node.some_arguments("an import to grant") {
        let Some(grant) = value.choice(GRANTS) else { continue };
        if let Some((tenant, _)) = may.filter(|(_, may)| !may.contains(&grant)) {
            let word = value.text().unwrap_or_default();
            value.fail::<()>(
                format!("tenant {tenant:?} may not grant `{word}`"),
                "not for its plugins",
                format!("leave it out, or let the operator write grant {word:?} in the `tenant` block"),
            );
        }
        match grants.iter().find(|first| first.value == grant) {
            Some(first) => node.fail(said_twice("this grant", first.span, value.span())),
            None => grants.push(value.at(grant)),
        }
    }
    node.finish();
    grants.into_iter().map(|grant| grant.value).collect()
}

/// `route-to "api" "static"`, and `backends` of a tenant. Whether a frontend of the right mode uses the plugin is looked at where it does.
pub(in crate::config::lower) fn backends(
    scope: &Scope<'_>,
    mut node: Node<'_>,
    may: Of<'_, BackendId>,
) -> Vec<BackendId> {
    let mut backends: Vec<At<BackendId>> = Vec::new();
    for value in node.some_arguments("a backend's name") {
        let Some(backend) = scope.backends.refer(&value).map(BackendId) else {
            continue;
        };
        report_strange(&value, backend, may);
        match backends.iter().find(|first| first.value == backend) {
            Some(first) => node.fail(said_twice("this backend", first.span, value.span())),
            None => backends.push(value.at(backend)),
        }
    }
    node.finish();
    backends.into_iter().map(|backend| backend.value).collect()
}

/// Reports a backend that is not one of a tenant's.
pub(in crate::config::lower) fn report_strange(value: &Value<'_>, backend: BackendId, may: Of<'_, BackendId>) {
    if let Some((tenant, _)) = may.filter(|(_, may)| !may.contains(&backend)) {
        let name = value.text().unwrap_or_default();
        value.fail::<()>(
            format!("tenant {tenant:?} has no backend {name:?}"),
            "not one of its own",
            format!("name one of its own, or let the operator write backends {name:?} in the `tenant` block"),
        );
    }
}

/// `call "auth" timeout="1s" in-flight=64 max-body="64KiB"`.
pub(super) fn call(scope: &Scope<'_>, mut node: Node<'_>, may: Of<'_, BackendId>, calls: &mut Vec<PluginCall>) {
    let value = node.argument("a backend's name");
    let backend = value.and_then(|value| {
        let position = scope.backends.refer(&value)?;
        let (known, declared) = scope.backends.get(position)?;
        if known.mode != Mode::Http {
            let error = ConfigError::new(Code::Mode, "a plugin calls backends in HTTP mode");
            let error = error.label(value.span(), "called here").label(declared, "in TCP mode");
            node.fail(error.help("name another backend, or give this one mode \"http\""));
        }
        let backend = BackendId(position);
        report_strange(&value, backend, may);
        if calls.iter().any(|call| call.backend == backend) {
            let error = ConfigError::new(Code::Duplicate, "this backend is granted twice");
            node.fail(error.label(value.span(), "again").help("leave one out"));
        }
        Some(backend)
    });
    // A tenant's file asks for no more than what holds where nothing is said.
    let is_strangers = scope.ctx.folder(node.span()).is_some();
    let (most_time, most_calls, most_bytes) = match is_strangers {
        true => (DEFAULT_CALL_TIMEOUT, DEFAULT_CALLS_IN_FLIGHT, DEFAULT_MAX_BODY),
        false => (*CALL_TIMEOUT.end(), *CALLS_IN_FLIGHT.end(), *BODY.end()),
    };
    let timeout = node.property("timeout");
    let timeout = timeout.map(|value| value.duration(*CALL_TIMEOUT.start()..=most_time));
    let in_flight = node.property("in-flight");
    let in_flight = in_flight.map(|value| value.integer(*CALLS_IN_FLIGHT.start()..=most_calls));
    let max_body = node.property("max-body");
    let max_body = max_body.map(|value| value.size(*BODY.start()..=most_bytes));
    node.finish();
    if let Some(backend) = backend {
        let in_flight = in_flight.unwrap_or(Some(DEFAULT_CALLS_IN_FLIGHT));
        calls.push(PluginCall {
            backend,
            timeout: timeout.flatten().unwrap_or(DEFAULT_CALL_TIMEOUT),
            in_flight: in_flight
                .and_then(|calls| u32::try_from(calls).ok())
                .unwrap_or(u32::MAX),
            max_body: max_body.flatten().unwrap_or(DEFAULT_MAX_BODY),
        });
    }
}

const GRANTS: &[(&str, Grant)] = &[
    ("buckets", Grant::Buckets),
    ("log", Grant::Log),
    ("clock", Grant::Clock),
    ("counters", Grant::Counters),
    ("kv", Grant::Kv),
    ("metrics", Grant::Metrics),
    ("random", Grant::Random),
];

/// A client waits meanwhile: what takes longer is no decision.
const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// A millisecond is little even for a neighbour; a client does not wait for longer than a minute.
const CALL_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
/// Enough for some ten thousand a second at five milliseconds each, and not enough to be a flood.
const DEFAULT_CALLS_IN_FLIGHT: u64 = 64;
const CALLS_IN_FLIGHT: RangeInclusive<u64> = 1..=1_000_000;

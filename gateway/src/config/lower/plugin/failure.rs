//! What happens when a plugin fails: `on-failure` for the exchange, `quarantine` for the plugin.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;
use miette::SourceSpan;

use crate::config::diagnostics::{Code, ConfigError};
use crate::config::lower::header;
use crate::config::model::{OnFailure, QuarantineSettings};
use crate::config::reader::{At, Node, said_twice};
use crate::config::units;

/// `on-failure "deny" status=503` or `on-failure "skip"`. None where that cannot be read.
pub(super) fn on_failure(mut node: Node<'_>) -> Option<OnFailure> {
    #[derive(Clone, Copy)]
    enum Kind {
        Deny,
        Skip,
    }
    let kind = node.argument("what to do");
    let kind = kind.and_then(|value| value.choice(&[("deny", Kind::Deny), ("skip", Kind::Skip)]));
    let status = node.property("status");
    let result = match (kind, status) {
        (Some(Kind::Deny), Some(status)) => {
            let status = status.integer(400..=599).and_then(|status| u16::try_from(status).ok());
            status.map(OnFailure::Deny)
        }
        (Some(Kind::Deny), None) => Some(OnFailure::Deny(DEFAULT_FAILURE_STATUS)),
        (Some(Kind::Skip), Some(status)) => {
            inert_status(&node, status.span());
            None
        }
        (Some(Kind::Skip), None) => Some(OnFailure::Skip),
        (None, _) => None,
    };
    node.finish();
    result
}

fn inert_status(node: &Node<'_>, span: SourceSpan) {
    let error = ConfigError::new(Code::Inert, "`status` does nothing with \"skip\"");
    node.fail(
        error
            .label(span, "never sent")
            .help("leave it out, or write on-failure \"deny\""),
    );
}

/// `identity-header "x-user" "x-roles"`.
pub(super) fn identity_headers(mut node: Node<'_>) -> Vec<HeaderName> {
    let mut names: Vec<At<HeaderName>> = Vec::new();
    for value in node.some_arguments("a header's name") {
        let Some(name) = header::editable_header(&value).and_then(|name| HeaderName::try_from(name).ok()) else {
            continue;
        };
        match names.iter().find(|first| first.value == name) {
            Some(first) => node.fail(said_twice("this header", first.span, value.span())),
            None => names.push(value.at(name)),
        }
    }
    node.finish();
    names.into_iter().map(|name| name.value).collect()
}

/// `quarantine failures=20 from="1s" to="1m"`.
pub(super) fn quarantine(mut node: Node<'_>, settings: &mut QuarantineSettings, is_strangers: bool) {
    node.require_entries();
    // Who could put it off would have switched it off.
    let failures = match is_strangers {
        true => 1..=u64::from(QuarantineSettings::DEFAULT.failures),
        false => FAILURES,
    };
    if let Some(failures) = node.property("failures").and_then(|value| value.integer(failures)) {
        settings.failures = u32::try_from(failures).unwrap_or(settings.failures);
    }
    if let Some(from) = node.property("from").and_then(|value| value.duration(QUARANTINE)) {
        settings.from = from;
        settings.to = settings.to.max(from);
    }
    if let Some(value) = node.property("to")
        && let Some(to) = value.duration(QUARANTINE)
    {
        if to < settings.from {
            value.fail::<()>(
                format!("a quarantine begins with {}", units::show_duration(settings.from)),
                "shorter than that",
                "`to=` is how long it gets at most: write a longer one, or a shorter `from=`",
            );
        }
        settings.to = to;
    }
    node.finish();
}

/// The service is what is missing, not the client's right to it.
pub(in crate::config::lower) const DEFAULT_FAILURE_STATUS: u16 = 503;
const FAILURES: RangeInclusive<u64> = 1..=1_000_000_000;
const QUARANTINE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);

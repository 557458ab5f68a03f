//! `hsts max-age="1y" include-subdomains preload`: browsers are told to come back in TLS alone (RFC 6797).

use std::time::Duration;

use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::Hsts;
use crate::config::reader::{Node, Value};

/// Reads a frontend's node; `has_tls` is whether one of its binds speaks TLS.
pub(super) fn hsts(mut node: Node<'_>, has_tls: bool) -> Option<Hsts> {
    if !has_tls {
        let error = ConfigError::new(Code::Inert, "`hsts` does nothing here");
        let error = error.label(
            node.span(),
            "no `bind` of this frontend speaks TLS, and browsers believe it there alone",
        );
        node.fail(error.help("write it in the frontend with `tls`; send others there with a redirect"));
    }
    let max_age = node.required_property("max-age").and_then(|value| age(&value));
    let include_subdomains = node.flag("include-subdomains");
    let preload = node.flag("preload");
    let replaces = node.flag("override").is_some();
    if let Some(preload) = preload
        && (include_subdomains.is_none() || max_age.is_some_and(|age| age < YEAR))
    {
        let error = ConfigError::new(Code::Inert, "`preload` does nothing like this");
        let error = error.label(
            preload,
            "lists for browsers take names with all below them, for a year or more",
        );
        node.fail(error.help("write hsts max-age=\"1y\" include-subdomains preload, or leave `preload` out"));
    }
    node.finish();
    Some(Hsts {
        max_age: max_age?,
        include_subdomains: include_subdomains.is_some(),
        preload: preload.is_some(),
        replaces,
    })
}

/// A duration of whole seconds; years too, and none at all, which makes browsers forget.
fn age(value: &Value<'_>) -> Option<Duration> {
    let text = value.raw().as_string().unwrap_or_default();
    if text == "0s" {
        return Some(Duration::ZERO);
    }
    let years = text.strip_suffix('y').and_then(|number| number.parse::<u32>().ok());
    match years {
        Some(years @ 1..=MAX_YEARS) => Some(YEAR * years),
        Some(_) => value.fail(
            format!("`max-age` has to be at most {MAX_YEARS}y"),
            "out of range",
            "write \"1y\" or \"2y\", as is usual",
        ),
        None => value.duration(Duration::from_secs(1)..=YEAR * MAX_YEARS),
    }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Who means longer than this means a slip.
const MAX_YEARS: u32 = 10;

//! `resolver { … }`, and names where addresses can stand.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::bind::{Port, socket_address};
use super::elsewhere;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Family, NameSource, Resolver};
use crate::config::reader::{At, Node, Value};
use crate::config::units;

/// Reads the `resolver` of the whole configuration. Faults are reported and defaults taken in their place.
pub(super) fn resolver(node: Option<Node<'_>>) -> Resolver {
    let mut resolver = Resolver::default();
    let Some(mut node) = node else { return resolver };
    let min_ttl = duration(&mut node, "min-ttl", TIME);
    let max_ttl = duration(&mut node, "max-ttl", TIME);
    resolver.min_ttl = min_ttl.map_or(resolver.min_ttl, |at| at.value);
    resolver.max_ttl = max_ttl.map_or(resolver.max_ttl.max(resolver.min_ttl), |at| at.value);
    if let Some(max) = max_ttl.filter(|max| max.value < resolver.min_ttl) {
        let error = ConfigError::new(Code::Conflict, "`max-ttl` is at least `min-ttl`");
        let label = format!("shorter than {}", units::show_duration(resolver.min_ttl));
        node.fail(
            error
                .label(max.span, label)
                .help("make it longer, or `min-ttl` shorter"),
        );
    }
    if let Some(timeout) = duration(&mut node, "timeout", TIMEOUT) {
        resolver.timeout = timeout.value;
    }
    if let Some(retries) = node
        .property("retries")
        .and_then(|value| value.integer(0..=MAX_RETRIES))
    {
        resolver.retries = usize::try_from(retries).unwrap_or_default();
    }
    resolver.hold = duration(&mut node, "hold", TIME).map(|at| at.value);
    if let Some(hold) = duration(&mut node, "hold-nx", TIME) {
        resolver.hold_nx = hold.value;
    }
    if let Some(prefer) = node.property("prefer") {
        let family = prefer.choice(&[("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6)]);
        resolver.prefer = family.unwrap_or(resolver.prefer);
    }
    if let Some(mut block) = node.block() {
        for mut nameserver in block.many("nameserver") {
            for value in nameserver.some_arguments("a name server's address") {
                resolver.nameservers.extend(address(&value));
            }
            nameserver.finish();
        }
        block.finish(elsewhere);
    } else if !node.has_entries() {
        node.require_entries();
    }
    node.finish();
    resolver
}

/// `"10.0.0.2"` or `"10.0.0.2:53"`.
fn address(value: &Value<'_>) -> Option<SocketAddr> {
    match value.text()?.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, DNS_PORT)),
        Err(_) => socket_address(value, Port::Set),
    }
}

fn duration(node: &mut Node<'_>, key: &'static str, range: RangeInclusive<Duration>) -> Option<At<Duration>> {
    let value = node.property(key)?;
    Some(value.at(value.duration(range)?))
}

/// Whether this was meant to be a name, right or wrong.
pub(super) fn looks_like_a_name(text: &str) -> bool {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    host.bytes().all(is_part)
        && host.bytes().any(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && (text.contains(':') || host.contains('.') || host.starts_with('_'))
}

/// A server's name: with its port, or of a service (RFC 2782), which has none.
pub(super) fn source(value: &Value<'_>) -> Option<NameSource> {
    let text = value.text()?;
    if text.starts_with('_') {
        let Some(name) = text.split(':').next().filter(|name| *name == text) else {
            let help = "leave the port out: SRV records say it";
            return value.fail("the name of a service has no port", "it has one", help);
        };
        return Some(NameSource::Service {
            name: domain(value, name, 2)?,
        });
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let message = format!("{} has to have a port", value.title());
        return value.fail(
            message,
            "the port is missing",
            format!("write it behind the name, as \"{text}:8080\""),
        );
    };
    let port = match port.parse::<u16>() {
        Ok(port) if port > 0 => port,
        _ => {
            let message = format!("{} has to have a port", value.title());
            return value.fail(message, "the port is not one", "a port is a number from 1 to 65535");
        }
    };
    Some(NameSource::Host {
        name: domain(value, host, 0)?,
        port,
    })
}

/// A domain name (RFC 1123, section 2.1) whose first labels may begin with `_`.
fn domain(value: &Value<'_>, text: &str, services: usize) -> Option<Arc<str>> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let message = format!("{} is not a host name", value.title());
    let help = "a name has labels of letters, digits and `-` with dots between them, as \"db.internal\"";
    if name.len() > MAX_NAME {
        return value.fail(message, format!("longer than {MAX_NAME} bytes"), help);
    }
    for (i, label) in name.split('.').enumerate() {
        let plain = if i < services {
            label.strip_prefix('_').unwrap_or(label)
        } else {
            label
        };
        let fault = if plain.is_empty() {
            "has an empty label"
        } else if label.len() > MAX_LABEL {
            "has a label of more than 63 bytes"
        } else if plain.starts_with('-') || plain.ends_with('-') {
            "has a label that begins or ends with `-`"
        } else if !plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            "has a character that no host name has"
        } else {
            continue;
        };
        return value.fail(message, fault, help);
    }
    if name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return value.fail(message, "its last label is a number", help);
    }
    Some(name.to_ascii_lowercase().into())
}

const DNS_PORT: u16 = 53;
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const TIME: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);
const MAX_RETRIES: u64 = 10;
/// RFC 1035, section 2.3.4, less what the length bytes take.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

//! Which exchanges a use of a plugin takes part in, and whether what it decides counts: those of its tenant's hosts, a canary's
//! share of them, and a shadow, which is asked and not obeyed.

use std::fmt::Write as _;
use std::sync::Arc;

use http::{HeaderMap, header, request, response};

use super::attachment::Attachment;
use super::exchange::Exchange;
use super::hook::EVALUATE;
use super::quota::Quota;
use crate::config::{KeptQuota, Share};
use crate::telemetry::choice::draw;

/// Where and how a use of a plugin takes part. By default everywhere, and in earnest.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Whose hosts it sees alone.
    pub tenant: Option<Arc<Tenant>>,
    /// Which part of all exchanges.
    pub share: Share,
    /// It is asked, and what it would have changed is logged and counted.
    pub is_shadow: bool,
    /// Which use it is, by where it stands: what is kept over reloads is kept for the same one.
    pub place: Arc<str>,
    /// Only where this one of its tenant's conditions holds: a bit of [`Lot::uses`].
    pub when: Option<u8>,
}

/// Somebody who owns hosts.
#[derive(Debug)]
pub struct Tenant {
    /// The name.
    pub name: Arc<str>,
    /// Names and patterns, lower-case; `*.` stands for one label or more.
    pub hosts: Vec<String>,
    /// What its plugins may keep together, once its configuration is in force.
    pub kept: KeptQuota,
    /// What holds, over reloads.
    pub quota: Arc<Quota>,
}

/// What of an exchange or a connection decides who takes part in it, once somebody has asked.
#[derive(Debug, Clone, Default)]
pub struct Lot {
    /// From 0 to [`Share::WHOLE`], at random.
    drawn: Option<u16>,
    /// As the client asked for it: what a component makes of it later changes nobody's part.
    pub(super) host: Option<Box<str>>,
    /// Which of the conditions hold under which the plugins of that host's tenant take part, a bit each; none before the tenant's
    /// acls have been asked.
    pub(super) uses: u64,
}

impl Lot {
    /// Of a connection for this host, which is a tenant's; none of whose conditions holds yet.
    pub fn is_for(&mut self, host: Box<str>) {
        self.host = Some(host);
    }

    /// Notes which of that tenant's conditions hold.
    pub const fn is_used_by(&mut self, uses: u64) {
        self.uses = uses;
    }
}

impl Scope {
    /// Whether it has a part in an exchange.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.tenant.is_none() && self.share.is_whole()
    }

    #[cold]
    fn admits(&self, exchange: &mut Exchange) -> bool {
        let Exchange { request, lot, .. } = exchange;
        if let Some(tenant) = &self.tenant {
            let host = lot.host.get_or_insert_with(|| host(&request.headers));
            if !tenant.owns(host) {
                return false;
            }
        }
        if self.when.is_some_and(|bit| lot.uses >> bit & 1 == 0) {
            return false;
        }
        self.share.is_whole() || self.share.has(*lot.drawn.get_or_insert_with(drawn))
    }
}

impl Tenant {
    /// Whether it owns a host, as [`asked_host`] has it.
    pub fn owns(&self, host: &str) -> bool {
        self.hosts.iter().any(|owned| match owned.strip_prefix('*') {
            Some(end) => host.len() > end.len() && host.ends_with(end),
            None => host == owned,
        })
    }
}

impl Attachment {
    /// Whether this use has no part in an exchange.
    #[inline]
    pub(super) fn stands_aside(&self, exchange: &mut Exchange) -> bool {
        !self.scope.is_open() && !self.scope.admits(exchange)
    }

    /// Whether this use has a part in an exchange.
    pub fn takes_part(&self, exchange: &mut Exchange) -> bool {
        !self.stands_aside(exchange)
    }

    /// Whether this use has no part in a connection. All uses of one connection are asked with the same lot: of a canary and what it
    /// stands in for, exactly one has a part. A tenant's takes part where the lot has one of its hosts.
    pub fn stands_aside_of_connection(&self, lot: &mut Lot) -> bool {
        let is_for = |tenant: &Arc<Tenant>| lot.host.as_deref().is_some_and(|host| tenant.owns(host));
        if self.scope.tenant.as_ref().is_some_and(|tenant| !is_for(tenant))
            || self.scope.when.is_some_and(|bit| lot.uses >> bit & 1 == 0)
        {
            return true;
        }
        !self.scope.share.is_whole() && !self.scope.share.has(*lot.drawn.get_or_insert_with(drawn))
    }

    /// Whether what it decides is not obeyed.
    #[must_use]
    pub const fn is_shadow(&self) -> bool {
        self.scope.is_shadow
    }

    /// Compares what a shadow says of acls with what holds: each by its name, whether it would hold, and whether it does.
    pub fn compare_acls<'a>(&self, acls: impl Iterator<Item = (&'a str, bool, bool)>) {
        let mut text = String::new();
        for (name, would_hold, _) in acls.filter(|(_, would_hold, holds)| would_hold != holds) {
            let begins = if text.is_empty() { "would have" } else { "," };
            let not = if would_hold { "" } else { "not " };
            // Writing to a String cannot fail.
            let _ = write!(text, "{begins} acl {name:?} {not}hold");
        }
        if !text.is_empty() {
            self.differs(EVALUATE.name, &text);
        }
    }

    /// Whose it is, if somebody's.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.scope.tenant.as_deref().map(|tenant| &*tenant.name)
    }
}

/// What a shadow would have changed of a request; nothing when it agrees.
pub(super) fn request_differs(before: &request::Parts, after: &request::Parts) -> Option<String> {
    let mut text = String::new();
    if before.uri != after.uri {
        // Writing to a String cannot fail.
        let _ = write!(text, " ask for {}", after.uri);
    }
    headers_differ(&before.headers, &after.headers, &mut text);
    (!text.is_empty()).then(|| format!("would{text}"))
}

/// What a shadow would have changed of a response.
pub(super) fn response_differs(before: &response::Parts, after: &response::Parts) -> Option<String> {
    let mut text = String::new();
    if before.status != after.status {
        let _ = write!(text, " answer {}", after.status.as_u16());
    }
    headers_differ(&before.headers, &after.headers, &mut text);
    (!text.is_empty()).then(|| format!("would{text}"))
}

/// By name: values may be secret.
fn headers_differ(before: &HeaderMap, after: &HeaderMap, text: &mut String) {
    let same = |name: &header::HeaderName| before.get_all(name).iter().eq(after.get_all(name));
    for name in after.keys().filter(|name| !same(name)) {
        let _ = write!(text, " set {name}");
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        let _ = write!(text, " delete {name}");
    }
}

/// The host that a request asks for, in lower case, without port and final dot.
fn host(headers: &HeaderMap) -> Box<str> {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    name_of(host)
}

/// The name in the host that a request asks for, as it stands there: in lower case, without port and final dot.
pub fn asked_host(host: &[u8]) -> Option<Box<str>> {
    std::str::from_utf8(host).ok().map(name_of)
}

/// A host without its port and a dot at the end, in lower case.
fn name_of(host: &str) -> Box<str> {
    let name = match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into()
}

fn drawn() -> u16 {
    u16::try_from(draw() % u32::from(Share::WHOLE)).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_as_names() {
        let tenant = Tenant {
            kept: KeptQuota::default(),
            quota: Arc::new(Quota::new(KeptQuota::default())),
            name: "acme".into(),
            hosts: vec![
                "acme.example".to_owned(),
                "*.acme.example".to_owned(),
                "[::1]".to_owned(),
            ],
        };
        let asks = |asked: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, asked.parse().unwrap());
            tenant.owns(&host(&headers))
        };
        for asked in [
            "acme.example",
            "ACME.example.",
            "a.b.acme.example:8080",
            "acme.example:80",
            "[::1]:80",
            "[::1]",
        ] {
            assert!(asks(asked), "{asked}");
        }
        for asked in [
            "xacme.example",
            ".acme.example.evil",
            "acme.example.evil",
            "example",
            "",
            "[::2]",
        ] {
            assert!(!asks(asked), "{asked}");
        }
        assert!(!tenant.owns(&host(&HeaderMap::new())));
    }

    #[test]
    fn one_lot_gives_a_connection_to_a_canary_or_to_what_it_stands_in_for() {
        let canary = Share { from: 0, to: 500 };
        let other = Share {
            from: 500,
            to: Share::WHOLE,
        };
        for _ in 0..10_000 {
            let mut lot = Lot::default();
            let mut has = |share: Share| share.has(*lot.drawn.get_or_insert_with(drawn));
            assert_ne!(has(canary), has(other));
        }
    }

    #[test]
    fn a_difference_names_fields_and_tells_no_values() {
        let parts = |headers: &[(&str, &str)]| {
            let mut request = http::Request::builder().uri("/a");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            request.body(()).unwrap().into_parts().0
        };
        let before = parts(&[("a", "1"), ("b", "2")]);
        assert_eq!(request_differs(&before, &parts(&[("a", "1"), ("b", "2")])), None);
        let text = request_differs(&before, &parts(&[("a", "secret"), ("c", "3")])).unwrap();
        for part in ["set a", "set c", "delete b"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }
}

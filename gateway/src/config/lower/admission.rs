//! What is decided of connections right after they were accepted: `reject`, `max-connections-per-source` and `max-connection-rate`.

use std::ops::RangeInclusive;
use std::time::Duration;

use miette::SourceSpan;

use super::acl::ReadAcl;
use super::acls::Acls;
use super::condition::{self, When};
use super::settings::MAX_CONNECTIONS;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Acl, AclTest, Condition, ConnectionRate, PerSource, Reject, UsedLimit};
use crate::config::reader::{At, Context, Node};
use crate::config::units;

/// `max-connections-per-source`, as it stands somewhere.
pub(super) struct SaidPerSource {
    pub(super) limit: At<PerSource>,
    /// Of which connections it holds; none means of all.
    pub(super) when: Option<Condition>,
    span: SourceSpan,
}

/// `max-connections-per-source 100 ipv4-prefix=32 ipv6-prefix=64 unless="office"`. Conditions stand only where there are acls.
pub(super) fn per_source(mut node: Node<'_>, acls: Option<&Acls<'_>>) -> Option<SaidPerSource> {
    let span = node.span();
    let most = node.argument("a number of connections");
    let most = most.and_then(|value| {
        let most = u32::try_from(value.integer(MAX_CONNECTIONS)?).ok()?;
        Some(value.at(most))
    });
    let mut limit = PerSource::default();
    let mut well = true;
    let when = match acls.map(|acls| condition::when(&mut node, acls)) {
        None | Some(When::Always) => None,
        Some(When::If(when)) => {
            well = when.is_some();
            when
        }
    };
    for (key, bits, slot) in [
        ("ipv4-prefix", 32, &mut limit.ipv4_prefix),
        ("ipv6-prefix", 128, &mut limit.ipv6_prefix),
    ] {
        if let Some(value) = node.property(key) {
            match value.integer(0..=bits).and_then(|bits| u8::try_from(bits).ok()) {
                Some(bits) => *slot = bits,
                None => well = false,
            }
        }
    }
    node.finish();
    let most = most.filter(|_| well)?;
    limit.most = most.value;
    let limit = At {
        value: limit,
        span: most.span,
    };
    Some(SaidPerSource { limit, when, span })
}

/// `max-connection-rate "200/s"`.
pub(super) fn connection_rate(mut node: Node<'_>) -> Option<At<ConnectionRate>> {
    let value = node.argument("a rate");
    node.finish();
    let value = value?;
    let (connections, period) = match units::rate(value.text()?) {
        Ok(rate) => rate,
        Err(error) => return value.fail("the rate cannot be read", error.message, error.help),
    };
    if !CONNECTIONS.contains(&connections) {
        let message = format!(
            "a rate has to be from {} to {} connections",
            CONNECTIONS.start(),
            CONNECTIONS.end()
        );
        return value.fail(message, "out of range", units::RATE_HELP);
    }
    if !PERIOD.contains(&period) {
        let message = "the period of connections has to be from a millisecond to a minute";
        return value.fail(message, "out of range", units::RATE_HELP);
    }
    let connections = u32::try_from(connections).ok()?;
    Some(value.at(ConnectionRate { connections, period }))
}

/// Reports a limit of each source's connections that all of the frontend's together cannot reach.
pub(super) fn report_unreachable(ctx: &Context<'_>, per_source: Option<At<PerSource>>, all: Option<At<usize>>) {
    let (Some(limit), Some(all)) = (per_source, all) else {
        return;
    };
    if usize::try_from(limit.value.most).is_ok_and(|most| most < all.value) {
        return;
    }
    let error = ConfigError::new(Code::Inert, "`max-connections-per-source` does nothing here");
    let error = error.label(limit.span, "no source can have more than this");
    let error = error.label(all.span, "as all of them together have no more");
    ctx.report(error.help("make it smaller, or leave it out"));
}

/// `reject if="…"`, in order; none where one could not be read.
pub(super) fn rejects(acls: &Acls<'_>, nodes: Vec<Node<'_>>) -> Vec<Option<Reject>> {
    let mut rejects = Vec::with_capacity(nodes.len());
    for mut node in nodes {
        let origin = node.origin();
        let when = match condition::when(&mut node, acls) {
            When::If(when) => when,
            When::Always => {
                let error = ConfigError::new(Code::Missing, "`reject` needs `if=` or `unless=`");
                let error = error.label(node.span(), "would let nobody in");
                node.fail(error.help("write when it applies: if=\"blocked\""));
                None
            }
        };
        node.finish();
        rejects.push(when.map(|when| Reject { when, origin }));
    }
    rejects
}

/// A condition that is asked about when a connection has just come.
pub(super) struct Early<'a> {
    /// The node that it stands at.
    node: &'static str,
    when: &'a Condition,
    span: SourceSpan,
}

impl<'a> Early<'a> {
    /// All of a frontend.
    pub(super) fn all(
        rejects: &'a [Option<Reject>],
        per_source: Option<&'a SaidPerSource>,
        limits: &'a [UsedLimit],
    ) -> Vec<Self> {
        let rejects = rejects.iter().flatten().map(|reject| Self {
            node: "reject",
            when: &reject.when,
            span: reject.origin.span,
        });
        let per_source = per_source.into_iter().filter_map(|said| {
            Some(Self {
                node: "max-connections-per-source",
                when: said.when.as_ref()?,
                span: said.span,
            })
        });
        let limits = limits.iter().filter_map(|limit| {
            Some(Self {
                node: "limit",
                when: limit.when.as_ref()?,
                span: limit.origin.span,
            })
        });
        rejects.chain(per_source).chain(limits).collect()
    }
}

/// Reports conditions that ask for what is not known yet when a connection has just come.
pub(super) fn report_late(ctx: &Context<'_>, early: &[Early<'_>], read: &[ReadAcl<'_>], implied: &[Acl]) {
    let is_late = |acl: &Acl| match &acl.test {
        AclTest::Match(test) => !test.needs_only_addresses(),
        AclTest::Plugin { .. } => true,
        AclTest::Servers(_) => false,
    };
    // One that could not be read has been reported.
    let declared = read.iter().map(|read| read.acl.as_ref());
    let acls: Vec<_> = declared.chain(implied.iter().map(Some)).collect();
    for Early { node, when, span } in early {
        let named = acls.iter().copied().enumerate().filter(|(i, _)| when.names(*i));
        let Some(late) = named.filter_map(|(_, acl)| acl).find(|acl| is_late(acl)) else {
            continue;
        };
        let error = ConfigError::new(Code::Conflict, format!("`{node}` asks for what is not known yet"));
        let error = error.label(
            *span,
            "decided when nothing of the connection is known but its addresses",
        );
        let error = match late.origin.span == *span {
            true => error,
            false => error.label(
                late.origin.span,
                "asks for more than source, destination, port, time and servers",
            ),
        };
        ctx.report(error.help(match *node {
            "reject" => "write `deny`, which waits for it, or ask for less",
            _ => "ask for less: by its addresses alone a connection is counted",
        }));
    }
}

/// More than a machine accepts.
const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;
/// Whoever waits for longer than a minute has given up.
const PERIOD: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);

//! Predicates over numbers: `uri-length min=2000`, `header-count "x-forwarded-for" max=5`, and versions.

use std::ops::RangeInclusive;

use super::plugin::{self, Of};
use super::{Scope, header};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{AclTest, Backend, BackendId, Frontend, Measured, ServersUp, TenantRules};
use crate::config::reader::{Context, Node, Value};

/// `min=` and `max=` in bytes.
pub(super) fn length(node: &mut Node<'_>) -> Option<Measured> {
    measured(node, None, BYTES)
}

/// A header's name, `min=` and `max=`.
pub(super) fn of_header(node: &mut Node<'_>, range: RangeInclusive<u64>) -> Option<Measured> {
    let value = node.argument("the header's name");
    let name = value.and_then(|value| header::header_name(&value));
    let measured = measured(node, name.clone(), range);
    name.and(measured)
}

/// How many servers of a backend, of one of these where a tenant asks.
pub(super) fn of_backend(scope: &Scope<'_>, node: &mut Node<'_>, may: Of<'_, BackendId>) -> Option<ServersUp> {
    let value = node.argument("the backend's name");
    let backend = value.and_then(|value| {
        let backend = BackendId(scope.backends.mention(&value)?);
        plugin::report_strange(&value, backend, may);
        Some(value.at(backend))
    });
    let measured = measured(node, None, SERVERS)?;
    Some(ServersUp {
        backend: backend?,
        min: measured.min,
        max: measured.max,
    })
}

/// Reports what never holds, or always: a backend has never more servers than it has. How many these are is the operator's to change,
/// which makes no fault of what a tenant's file says.
pub(super) fn report_impossible(
    ctx: &Context<'_>,
    frontends: &[Frontend],
    tenants: &[&TenantRules],
    backends: &[Backend],
) {
    let mut seen = Vec::new();
    let of_frontends = frontends.iter().flat_map(|frontend| &frontend.acls);
    let of_tenants = tenants.iter().flat_map(|rules| &rules.acls);
    for acl in of_frontends.chain(of_tenants) {
        let AclTest::Servers(up) = &acl.test else { continue };
        if ctx.folder(acl.origin.span).is_some() {
            continue;
        }
        // One at the top of the file is asked in several frontends.
        if seen.contains(&up.backend.span) {
            continue;
        }
        seen.push(up.backend.span);
        let has = backends[up.backend.value.0].servers.len();
        let (min, max) = (up.min as usize, up.max as usize);
        let error = match (min > has, min == 0 && max >= has) {
            (true, _) => ConfigError::new(Code::Conflict, format!("`servers-up` asks for {min} servers")),
            (_, true) => ConfigError::new(Code::Inert, "`servers-up` always holds"),
            _ => continue,
        };
        ctx.report(
            error
                .label(up.backend.span, format!("has {has} in all"))
                .help("compare with fewer: servers-up \"app\" max=0 holds when none is up"),
        );
    }
}

/// `1.0`, `1.1` or `2`.
pub(super) fn http_version(value: &Value<'_>) -> Option<String> {
    value
        .choice(&[("1.0", "1.0"), ("1.1", "1.1"), ("2", "2")])
        .map(str::to_owned)
}

fn measured(node: &mut Node<'_>, name: Option<String>, range: RangeInclusive<u64>) -> Option<Measured> {
    let (min, max) = (node.property("min"), node.property("max"));
    let number = |value: Value<'_>| {
        value
            .integer(range.clone())
            .and_then(|number| u32::try_from(number).ok())
    };
    if min.is_none() && max.is_none() {
        let error = ConfigError::new(Code::Missing, format!("`{}` needs `min=` or `max=`", node.name()));
        node.fail(
            error
                .label(node.span(), "compares with nothing")
                .maybe_help(node.example()),
        );
        return None;
    }
    let (low, high) = (min.map(number), max.map(number));
    let (low, high) = (super::or_none(low)?, super::or_none(high)?);
    if let (Some(low), Some(high), Some(max)) = (low, high, max)
        && low > high
    {
        return max.fail(
            "`max=` is less than `min=`",
            "no number is between them",
            "write the smaller one as `min=`",
        );
    }
    if let (Some(0), None, Some(min)) = (low, high, min) {
        return min.fail(
            "every number is at least 0",
            "always holds",
            "write `min=1`, or leave the predicate out",
        );
    }
    Some(Measured {
        name,
        min: low.unwrap_or(0),
        max: high.unwrap_or(u32::MAX),
    })
}

/// As many servers as a backend may have.
const SERVERS: RangeInclusive<u64> = 0..=100_000;
/// As many fields as a head may have.
pub(super) const COUNT: RangeInclusive<u64> = 0..=1_000;
/// As long as a head may be.
pub(super) const BYTES: RangeInclusive<u64> = 0..=1 << 20;

//! Header fields that a tenant does not write: what the operator has servers told of their clients, and browsers of TLS. And those
//! that nobody but the gateway writes where it makes traces.

use super::variables::When;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::reader::{Context, TraceField, Value};

/// Reports a header, lower-case, that is the operator's to write, where a tenant writes it.
pub(super) fn of_tenant(value: &Value<'_>, name: &str, when: When) -> Option<()> {
    if !value.context().is_in_tenant() {
        return Some(());
    }
    match when {
        When::Request if tells_of_clients(name) => value.fail(
            format!("a tenant does not edit `{name}`"),
            "says who the client is",
            "servers believe it: only the gateway, and proxies that the operator trusts, write it. Call yours otherwise",
        ),
        When::Rule | When::Response if name == "strict-transport-security" => value.fail(
            format!("a tenant does not write `{name}`"),
            "browsers are told by the operator",
            "let the operator write `hsts` in the frontend, or the server say it",
        ),
        _ => Some(()),
    }
}

/// Notes a header of a request, lower-case, that is the gateway's to write where traces are made: whether they are is known later.
pub(super) fn note_of_trace(value: &Value<'_>, name: &str) {
    if [TRACEPARENT, TRACESTATE].contains(&name) {
        value.context().note_trace_field(name, value.span());
    }
}

/// Reports such a header, as traces are made. What vendors have put beside the context the operator may change.
pub(super) fn of_trace(ctx: &Context<'_>, written: &TraceField) {
    let TraceField { name, span, is_tenants } = written;
    let (message, help) = match (*is_tenants, name == TRACESTATE) {
        (true, _) => (
            format!("a tenant does not edit `{name}` where the gateway makes traces"),
            "servers are told of the gateway's spans in it. Call yours otherwise",
        ),
        (false, true) => return,
        (false, false) => (
            format!("`{name}` is the gateway's to write where it makes traces"),
            "each server is told of the span that calls it. Leave the edit out, or `tracing` in `process`",
        ),
    };
    let error = ConfigError::new(Code::Conflict, message).label(*span, "says which span calls the server");
    ctx.report(error.help(help));
}

/// Whether proxies commonly say in this field who the client is. Servers may take `_` for `-`.
fn tells_of_clients(name: &str) -> bool {
    let plain = name.replace('_', "-");
    plain.starts_with("x-forwarded-") || plain == "forwarded" || plain == "x-real-ip"
}

/// The fields of W3C Trace Context.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_reads_as_one_of_proxies_is_one() {
        for name in ["forwarded", "x-forwarded-for", "x_forwarded-Proto", "x-real_ip"] {
            assert!(tells_of_clients(name), "{name}");
        }
        for name in ["x-forwarded", "x-client-ip", "x-real-ips"] {
            assert!(!tells_of_clients(name), "{name}");
        }
    }
}

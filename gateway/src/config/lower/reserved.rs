//! Header fields that a tenant does not write: what the operator has servers told of their clients, and browsers of TLS.

use super::variables::When;
use crate::config::reader::Value;

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

/// Whether proxies commonly say in this field who the client is. Servers may take `_` for `-`.
fn tells_of_clients(name: &str) -> bool {
    let plain = name.replace('_', "-");
    plain.starts_with("x-forwarded-") || plain == "forwarded" || plain == "x-real-ip"
}

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

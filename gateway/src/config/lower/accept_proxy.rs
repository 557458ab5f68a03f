//! `bind "…" accept-proxy`, or `accept-proxy "10.0.0.0/8" timeout="5s"` in its block.

use std::time::Duration;

use miette::SourceSpan;

use super::acl::{distinct, network};
use super::settings::TIMEOUT_RANGE;
use crate::config::model::{AcceptProxy, Trusted};
use crate::config::reader::{Node, said_twice};

/// What the flag alone means.
pub(super) fn flag() -> AcceptProxy {
    AcceptProxy {
        trusted: Trusted::Everyone,
        timeout: DEFAULT_TIMEOUT,
    }
}

/// Reads the node; `flag` is where the bind said it already.
pub(super) fn accept_proxy(mut node: Node<'_>, flag: Option<SourceSpan>) -> Option<AcceptProxy> {
    if let Some(flag) = flag {
        node.fail(said_twice("`accept-proxy`", flag, node.span()));
    }
    let networks = node.arguments("a trusted network");
    let trusted = match networks.is_empty() {
        true => Some(Trusted::Everyone),
        false => distinct(networks, network).map(Trusted::Networks),
    };
    let timeout = match node.property("timeout") {
        Some(value) => value.duration(TIMEOUT_RANGE),
        None => Some(DEFAULT_TIMEOUT),
    };
    node.finish();
    Some(AcceptProxy {
        trusted: trusted?,
        timeout: timeout?,
    })
}

/// The specification wants 3 s at least, to outlast a TCP retransmission; a balancer that has not sent its header after a
/// little more sends none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

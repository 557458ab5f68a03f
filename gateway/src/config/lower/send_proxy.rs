//! `server "…" "…" send-proxy="v2" proxy-crc32c`.

use miette::SourceSpan;

use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::ServerAddress;
use crate::config::reader::{Node, Value};
use crate::proxy_protocol::Format;

/// Reads `send-proxy=`; `checksum` is where the flag stands that goes with it. None inside means that nothing is said.
#[allow(clippy::option_option)]
pub(super) fn send_proxy(
    node: &mut Node<'_>,
    checksum: Option<SourceSpan>,
    address: Option<(&ServerAddress, SourceSpan)>,
) -> Option<Option<Format>> {
    let said = node.property("send-proxy");
    report_inert_checksum(node, said.as_ref(), checksum);
    let Some(value) = said else { return Some(None) };
    if let Some((ServerAddress::Echo, place)) = address {
        let error = ConfigError::new(Code::Conflict, "the echo server understands no PROXY header");
        let error = error.label(value.span(), "not with it").label(place, "this one");
        node.fail(error.help("leave `send-proxy=` out"));
    }
    let checksum = checksum.is_some();
    value
        .choice(&[("v1", Format::V1), ("v2", Format::V2 { checksum })])
        .map(Some)
}

fn report_inert_checksum(node: &Node<'_>, said: Option<&Value<'_>>, checksum: Option<SourceSpan>) {
    let Some(checksum) = checksum else { return };
    let error = match said {
        None => ConfigError::new(Code::Inert, "`proxy-crc32c` does nothing without `send-proxy=`")
            .label(checksum, "a checksum of which header?"),
        Some(version) if version.raw().as_string() == Some("v1") => {
            ConfigError::new(Code::Inert, "`proxy-crc32c` does nothing in version 1")
                .label(checksum, "has no place in a line of text")
                .label(version.span(), "this version")
        }
        Some(_) => return,
    };
    node.fail(error.help("write send-proxy=\"v2\", or leave the flag out"));
}

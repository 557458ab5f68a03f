//! What sockets are told beside their address: `interface="eth0"`, `transparent`, `tcp-user-timeout="30s"` and the like.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::or_none;
use super::settings::TIMEOUT_RANGE;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::SocketOptions;
use crate::config::reader::{Node, Value};

/// Those of a bind. What does nothing at a UNIX socket is reported.
pub(super) fn of_bind(node: &mut Node<'_>, is_unix: bool) -> Option<SocketOptions> {
    let interface = node.property("interface");
    let timeout = node.property("tcp-user-timeout");
    let mss = node.property("mss");
    let (transparent, defer_accept) = (node.flag("transparent"), node.flag("defer-accept"));
    let values = [&interface, &timeout, &mss].into_iter().flatten().map(Value::span);
    let said = values.chain(transparent).chain(defer_accept).next();
    if let Some(said) = said.filter(|_| is_unix) {
        let error = ConfigError::new(Code::Inert, "this is said of TCP, which a UNIX socket has not");
        node.fail(error.label(said, "does nothing").help("leave it out"));
    }
    let interface = interface.map(|value| self::interface(&value));
    let timeout = timeout.map(|value| user_timeout(&value));
    let mss = mss.map(|value| u32::try_from(value.integer(MSS)?).ok());
    Some(SocketOptions {
        interface: or_none(interface)?,
        transparent: transparent.is_some(),
        user_timeout: or_none(timeout)?,
        mss: or_none(mss)?,
        defer_accept: defer_accept.is_some(),
    })
}

/// The name of an interface, which has 15 bytes at most (`IFNAMSIZ`). Whether there is one is seen when sockets are opened.
pub(super) fn interface(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    let is_name = (1..=LONGEST_NAME).contains(&text.len()) && !text.contains(|c: char| c == '/' || c.is_whitespace());
    if !is_name {
        return value.fail(
            format!("{} has to be the name of an interface", value.title()),
            format!("a name has 1 to {LONGEST_NAME} bytes, without slashes and spaces"),
            "write one that the machine has, as \"eth0\"; `ip link` says which there are",
        );
    }
    Some(text.into())
}

/// `tcp-user-timeout=`.
pub(super) fn user_timeout(value: &Value<'_>) -> Option<Duration> {
    value.duration(TIMEOUT_RANGE)
}

/// What Linux takes for the size of segments (`TCP_MIN_MSS`, `MAX_TCP_WINDOW`).
const MSS: RangeInclusive<u64> = 88..=32_767;

const LONGEST_NAME: usize = 15;

//! `upgrades "websocket"`: which protocols an HTTP connection may go over to.

use std::sync::Arc;

use super::settings::Settings;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Mode, Upgrades};
use crate::config::reader::{At, Context, Node, Value, said_twice};

/// `upgrades "websocket" "…"`, or `upgrades "off"`.
pub(super) fn read(mut node: Node<'_>) -> Option<At<Upgrades>> {
    let span = node.span();
    let values = node.some_arguments("a protocol");
    node.finish();
    if let [off] = &values[..]
        && off.raw().as_string() == Some(OFF)
    {
        let value = Upgrades::Only(Arc::default());
        return Some(At { value, span });
    }
    let mut protocols: Vec<At<Box<str>>> = Vec::with_capacity(values.len());
    for value in &values {
        let protocol = protocol(value)?;
        if let Some(first) = protocols.iter().find(|first| first.value == protocol) {
            value
                .context()
                .report(said_twice("this protocol", first.span, value.span()));
            return None;
        }
        protocols.push(value.at(protocol));
    }
    let protocols: Arc<[_]> = protocols.into_iter().map(|protocol| protocol.value).collect();
    (!protocols.is_empty()).then_some(At {
        value: Upgrades::Only(protocols),
        span,
    })
}

/// A protocol's name, in lower case.
fn protocol(value: &Value<'_>) -> Option<Box<str>> {
    let text = value.text()?;
    if text == OFF {
        return value.fail(
            "`off` stands alone",
            "beside protocols",
            "write the protocols, or only: upgrades \"off\"",
        );
    }
    let is_token = |text: &str| http::HeaderName::from_bytes(text.as_bytes()).is_ok();
    if !text.split('/').all(is_token) || text.split('/').count() > 2 {
        return value.fail(
            "a protocol is a name, or a name and a version",
            "not a token of HTTP",
            "write it as it stands in the Upgrade field: upgrades \"websocket\"",
        );
    }
    if Upgrades::is_http(text) {
        return value.fail(
            "HTTP itself is never upgraded to",
            "what would follow are requests that no rule sees",
            "leave it out; HTTP/2 is spoken without an upgrade",
        );
    }
    Some(text.to_ascii_lowercase().into())
}

/// What holds for a frontend.
pub(super) fn of(own: &Settings, inherited: &Settings) -> Upgrades {
    let said = own.upgrades.as_ref().or(inherited.upgrades.as_ref());
    said.map_or(Upgrades::Any, |said| said.value.clone())
}

/// Reports a frontend's `timeout tunnel=` where nothing becomes a tunnel.
pub(super) fn report_tunnel(ctx: &Context<'_>, mode: Mode, own: &Settings, inherited: &Settings) {
    let said = own.upgrades.as_ref().or(inherited.upgrades.as_ref());
    let none = Upgrades::Only(Arc::default());
    if let (Mode::Http, Some(tunnel), Some(off)) = (mode, own.timeouts.tunnel, said.filter(|said| said.value == none)) {
        let error = ConfigError::new(Code::Inert, "`tunnel=` does nothing without upgrades");
        let error = error
            .label(tunnel.span, "for connections that were upgraded")
            .label(off.span, "none is, because of this");
        ctx.report(error.help("one of them has to go"));
    }
}

const OFF: &str = "off";

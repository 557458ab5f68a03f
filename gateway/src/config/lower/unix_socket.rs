//! `unix:/run/gateway/app.sock`, `unix:@name` and `abns:name`, and who may connect there.

use std::sync::Arc;

use super::or_none;
use super::process::{DEFAULT_SOCKET_MODE, socket_mode};
use crate::address::{Address, MOST_UNIX_PATH, UnixAddress};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::SocketAccess;
use crate::config::reader::{Node, Value};

/// Whether a value is meant to be a UNIX socket, rightly written or not.
pub(super) fn is_meant(text: &str) -> bool {
    ["/", "./", "unix:", "unix@", "abns:", "abns@", "abnsz@"]
        .iter()
        .any(|begin| text.starts_with(begin))
}

/// A UNIX socket's address, whose path has so many bytes at most.
pub(super) fn address(value: &Value<'_>, most: usize) -> Option<Address> {
    let text = value.text()?;
    let title = value.title();
    if let Some(name) = text.strip_prefix("abns:") {
        return abstract_name(value, name, "abns:gateway-app").map(|name| unix(UnixAddress::Padded(name)));
    }
    let Some(place) = text.strip_prefix("unix:") else {
        let help = match text.split_once('@') {
            // Whoever comes from HAProxy means the name as it has it there.
            Some(("abns", name)) => format!("write \"abns:{name}\""),
            Some(("abnsz", name)) => format!("write \"unix:@{name}\""),
            _ => format!("write \"unix:{}\"", text.strip_prefix("unix@").unwrap_or(text)),
        };
        return value.fail(
            format!("{title} has to say that it is a UNIX socket"),
            "meant as one",
            help,
        );
    };
    if let Some(name) = place.strip_prefix('@') {
        return abstract_name(value, name, "unix:@gateway-app").map(|name| unix(UnixAddress::Abstract(name)));
    }
    if !place.contains('/') || place.ends_with('/') || place.contains('\0') {
        return value.fail(
            "a UNIX socket is a path with a slash in it, and not a folder",
            "not a path of a socket",
            "write it as \"unix:/run/gateway/app.sock\", or \"unix:@name\" for one in the abstract namespace",
        );
    }
    let path = value.context().path(place);
    if path.as_os_str().len() > most {
        return value.fail(
            "the system does not know sockets with so long a path",
            format!("longer than {most} bytes with its folder"),
            "use a shorter one, as \"unix:/run/gateway/app.sock\"",
        );
    }
    Some(unix(UnixAddress::Path(path)))
}

fn unix(address: UnixAddress) -> Address {
    Address::Unix(Arc::new(address))
}

/// A name in the abstract namespace, as in this example.
fn abstract_name(value: &Value<'_>, name: &str, example: &str) -> Option<Box<str>> {
    if name.is_empty() || name.len() > MOST_UNIX_PATH || name.contains('\0') {
        return value.fail(
            format!("a name in the abstract namespace has 1 to {MOST_UNIX_PATH} bytes, none of them zero"),
            "not such a name",
            format!("write one, as \"{example}\""),
        );
    }
    Some(name.into())
}

/// `mode=`, `user=` and `group=` of a bind. What they do where there is no file is reported: nothing.
pub(super) fn access(node: &mut Node<'_>, address: Option<&Address>) -> Option<SocketAccess> {
    let (mode, user, group) = (node.property("mode"), node.property("user"), node.property("group"));
    let said = [&mode, &user, &group].into_iter().flatten().next();
    let why = match address {
        Some(Address::Ip(_)) => Some("only a UNIX socket has permissions"),
        Some(Address::Unix(unix)) if unix.path().is_none() => {
            Some("in the abstract namespace there are no permissions")
        }
        _ => None,
    };
    if let (Some(said), Some(why)) = (said, why) {
        let error = ConfigError::new(Code::Inert, "who may connect is said of a UNIX socket's file");
        node.fail(error.label(said.span(), why).help("leave it out"));
    }
    let mode = mode.map(|value| socket_mode(&value));
    let name = |value: Value<'_>| Some(value.at(value.name()?.to_owned()));
    Some(SocketAccess {
        mode: or_none(mode)?.unwrap_or(DEFAULT_SOCKET_MODE),
        user: or_none(user.map(name))?,
        group: or_none(group.map(name))?,
    })
}

//! `unix:/run/gateway/app.sock` and `unix:@name`, and who may connect there.

use std::sync::Arc;

use super::or_none;
use super::process::{DEFAULT_SOCKET_MODE, socket_mode};
use crate::address::{Address, MOST_UNIX_PATH, UnixAddress};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::SocketAccess;
use crate::config::reader::{Node, Value};

/// Whether a value is meant to be a UNIX socket, rightly written or not.
pub(super) fn is_meant(text: &str) -> bool {
    ["/", "./", "unix:", "unix@", "abns@"]
        .iter()
        .any(|begin| text.starts_with(begin))
}

/// A UNIX socket's address, whose path has so many bytes at most.
pub(super) fn address(value: &Value<'_>, most: usize) -> Option<Address> {
    let text = value.text()?;
    let title = value.title();
    let Some(place) = text.strip_prefix("unix:") else {
        let place = text.strip_prefix("unix@").unwrap_or(text);
        let place = place.strip_prefix("abns").unwrap_or(place);
        let help = format!("write \"unix:{place}\"");
        return value.fail(
            format!("{title} has to say that it is a UNIX socket"),
            "meant as one",
            help,
        );
    };
    if let Some(name) = place.strip_prefix('@') {
        if name.is_empty() || name.len() > MOST_UNIX_PATH || name.contains('\0') {
            let message =
                format!("a name in the abstract namespace has 1 to {MOST_UNIX_PATH} bytes, none of them zero");
            return value.fail(message, "not such a name", "write one, as \"unix:@gateway-app\"");
        }
        return Some(Address::Unix(Arc::new(UnixAddress::Abstract(name.into()))));
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
    Some(Address::Unix(Arc::new(UnixAddress::Path(path))))
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

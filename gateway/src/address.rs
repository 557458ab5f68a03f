//! Where is listened or connected: an IP address and a port, or a UNIX socket. Depends on nothing here.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where is listened or connected.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A UNIX socket.
    Unix(Arc<UnixAddress>),
}

/// Where a UNIX socket is found (unix(7)).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UnixAddress {
    /// In a file.
    Path(PathBuf),
    /// By a name in the abstract namespace, without the zero byte that it begins with: there is no file, and nobody is kept out.
    Abstract(Box<str>),
    /// The same, but with zero bytes behind the name until the address is full, as HAProxy has them (`abns@`): it is another name.
    Padded(Box<str>),
}

impl Address {
    /// Its IP address and port, if it is one.
    pub const fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Its IP address without the port.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket().map(|address| address.ip())
    }

    /// What a server is called that is there and has no better name. Servers on UNIX sockets have none: `localhost`, as with
    /// others that speak HTTP over these.
    pub fn authority(&self) -> String {
        match self {
            Self::Ip(address) => address.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl UnixAddress {
    /// The file that it is found in.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Abstract(_) | Self::Padded(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{name}"),
            Self::Padded(name) => write!(f, "abns:{name}"),
        }
    }
}

/// Bytes of the longest path that can be connected to: `sun_path` has 108 with its end.
pub const MOST_UNIX_PATH: usize = 107;

/// Bytes of the longest path that can be listened at: the socket is made beside its place, under a name that is longer by a number
/// at random.
pub const MOST_LISTENING_PATH: usize = MOST_UNIX_PATH - 12;

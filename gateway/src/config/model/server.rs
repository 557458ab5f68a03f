//! Servers: where they are and how they are spoken to.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::{NameSource, ServerTls};
use crate::address::Address;
use crate::proxy_protocol::Format;

/// `server "app-01" "10.0.0.1:8080" weight=2 backup`.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name, unique in the backend.
    pub name: Arc<str>,
    /// Where it is.
    pub address: ServerAddress,
    /// `source="192.0.2.1"`, its backend's unless said: the address that connections to it come from; none leaves that to the system.
    pub source: Option<SourceAddress>,
    /// `interface="eth1"`, its backend's unless said: the interface that they leave by; none leaves that to the system.
    pub interface: Option<Arc<str>>,
    /// `tcp-user-timeout="30s"`: how long what it was sent may go unacknowledged; none leaves that to the system.
    pub user_timeout: Option<Duration>,
    /// 0 to 256; 0 gets no new work.
    pub weight: u16,
    /// Used only when no other server is up.
    pub backup: bool,
    /// `disabled`: out of service until an operator says otherwise.
    pub disabled: bool,
    /// `slow-start="30s"`: how long its share grows after it came back, the backend's unless said.
    pub slow_start: Option<Duration>,
    /// What may end its sessions beside themselves: `on-marked-down` and the admin socket.
    pub session_end: SessionEnd,
    /// `on-marked-up="shutdown-backup-sessions"`: when it comes back, the sessions of the backups end.
    pub relieves_backups: bool,
    /// `max-connections=100`: requests or connections that it has under way at once; beyond it, they wait.
    pub max_connections: Option<NonZeroUsize>,
    /// `cookie="app01"`: its value in the backend's `cookie`.
    pub cookie: Option<Arc<str>>,
    /// `{ tls … }`: it is spoken to in TLS.
    pub tls: Option<ServerTls>,
    /// `send-proxy="v2"`: connections to it begin with a PROXY header.
    pub send_proxy: Option<Format>,
    /// `h2`: requests go to it over HTTP/2, agreed on in TLS, and by prior knowledge without.
    pub http2: bool,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// An address and port, or a UNIX socket.
    Fixed(Address),
    /// A name. The servers of a `server-template` share one, and each takes another of its addresses.
    Name(Arc<NameSource>),
    /// `"echo"`: a server built into the gateway, for demos and tests, started on a free loopback port. In HTTP mode it
    /// answers with what it was asked; in TCP mode it sends back what it gets.
    Echo,
}

/// The address that connections to a server come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceAddress {
    /// This one of the machine's.
    Address(IpAddr),
    /// `"client-ip"`: that of the client who each is for. Those of the gateway's own come from wherever the system has them come from.
    ClientIp,
}

/// What may end a server's sessions beside the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// Nothing.
    Natural,
    /// An operator, by the admin socket; or, of a backup, that a server is back whose `on-marked-up` says so.
    OnOrder,
    /// `on-marked-down="shutdown-sessions"`: that the server goes down; an operator, too.
    WhenDown,
}

//! Names of servers and how they are resolved: the part of the model that knows DNS.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What is looked up to know where servers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameSource {
    /// `"db.internal:5432"`: A and AAAA records of the name, at this port.
    Host {
        /// The name, lower-case, without a dot at its end.
        name: Arc<str>,
        /// The port.
        port: u16,
    },
    /// `"_http._tcp.app.internal"`: SRV records of the name, which say port and weight, and the addresses of their targets.
    Service {
        /// The name, likewise.
        name: Arc<str>,
    },
}

/// `resolver timeout="1s" retries=2 prefer="ipv4" { nameserver "127.0.0.1:53" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    /// Who is asked; those of the system's resolv.conf (and its hosts file) when there are none.
    pub nameservers: Vec<SocketAddr>,
    /// For an answer to one question.
    pub timeout: Duration,
    /// Questions after the first that was not answered.
    pub retries: usize,
    /// An answer is good for so long at least, whatever its TTL is.
    pub min_ttl: Duration,
    /// And for so long at most.
    pub max_ttl: Duration,
    /// How long the last answer is used when there is no other; none means as long as it takes.
    pub hold: Option<Duration>,
    /// How long the last answer is used when the answer is that there is nothing of that name.
    pub hold_nx: Duration,
    /// Which addresses are used of a name that has both kinds.
    pub prefer: Family,
}

/// A kind of address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A records.
    Ipv4,
    /// AAAA records.
    Ipv6,
}

impl fmt::Display for NameSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Service { name } => f.write_str(name),
        }
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self {
            nameservers: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
            retries: DEFAULT_RETRIES,
            min_ttl: DEFAULT_MIN_TTL,
            max_ttl: DEFAULT_MAX_TTL,
            hold: None,
            hold_nx: DEFAULT_HOLD_NX,
            prefer: Family::Ipv4,
        }
    }
}

/// Many times what a name server next door takes.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// Two lost packets are bad luck.
pub(super) const DEFAULT_RETRIES: usize = 2;
/// A TTL of 0 would have us ask without end.
pub(super) const DEFAULT_MIN_TTL: Duration = Duration::from_secs(1);
/// A server that has moved is found within a minute, whatever its zone promised.
pub(super) const DEFAULT_MAX_TTL: Duration = Duration::from_secs(60);
/// As HAProxy's `hold nx`: a zone that is being replaced is empty for a moment.
pub(super) const DEFAULT_HOLD_NX: Duration = Duration::from_secs(30);

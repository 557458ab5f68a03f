//! The PROXY protocol, versions 1 and 2: the header with which a balancer tells the next hop who its client is. Follows
//! HAProxy's `proxy-protocol.txt`.
//!
//! A codec: bytes in, values out. Reading and writing sockets, and what a header means for a connection, belong to others.

mod error;
mod tlv;
mod v1;
mod v2;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use error::ParseError;
pub use tlv::{
    MAX_ALPN, MAX_AUTHORITY, MAX_TLVS, MAX_UNIQUE_ID, RawTlv, SSL_CERTIFICATE_CONNECTION, SSL_CERTIFICATE_SESSION,
    SSL_CLIENT, Ssl, Tlv, ssl,
};
pub use v1::MAX_LINE;
pub use v2::{FIXED, MAX_LENGTH, SIGNATURE};

/// Bytes of the longest header that is read, of either version.
pub const MAX_HEADER: usize = FIXED + MAX_LENGTH;

/// What a header says, whichever version said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// The sender speaks for itself, as in a health check: the connection's own addresses hold. Version 2.
    Local,
    /// The sender cannot name its client: the connection's own addresses hold. Datagrams read as this too, as the
    /// specification asks of a receiver that has no use for them.
    Unknown,
    /// The sender speaks for a client.
    Proxied(Box<Proxied>),
}

/// A client as the sender knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied {
    /// Who is connected to whom.
    pub addresses: Addresses,
    /// What else is known of the connection, in the order of the header. Version 2.
    pub tlvs: Vec<Tlv>,
}

/// The two ends of a stream; both of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// TCP over IPv4.
    Tcp4 {
        /// The client.
        source: SocketAddrV4,
        /// Where it connected to.
        destination: SocketAddrV4,
    },
    /// TCP over IPv6.
    Tcp6 {
        /// The client.
        source: SocketAddrV6,
        /// Where it connected to.
        destination: SocketAddrV6,
    },
    /// A stream of a UNIX socket. Version 2; in version 1 it is written as unknown.
    Unix {
        /// The client's path, filled up with zero bytes.
        source: [u8; UNIX_PATH],
        /// The path it connected to, likewise.
        destination: [u8; UNIX_PATH],
    },
}

/// Bytes of a UNIX address.
pub const UNIX_PATH: usize = 108;

/// How a header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A line of text, addresses alone.
    V1,
    /// Binary.
    V2 {
        /// A CRC32C over all of it.
        checksum: bool,
    },
}

/// What came of parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// All bytes so far belong to a header that has not ended.
    Incomplete {
        /// Bytes that it has at least, from its first one; always more than there were.
        need: usize,
    },
    /// A whole header.
    Complete {
        /// What it says.
        header: Header,
        /// Bytes of it. What follows is the client's.
        length: usize,
    },
}

/// Reads the header that `bytes` begin with, which may still be on its way: parse again, from the beginning, with more.
///
/// Fails as soon as the bytes cannot become a header.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ParseError> {
    match bytes.first() {
        None => Ok(Parsed::Incomplete { need: v1::SHORTEST }),
        Some(b'P') => v1::parse(bytes),
        Some(&first) if first == SIGNATURE[0] => v2::parse(bytes),
        Some(_) => Err(ParseError::NoHeader),
    }
}

impl Header {
    /// A header for a client.
    pub fn proxied(addresses: Addresses, tlvs: Vec<Tlv>) -> Self {
        Self::Proxied(Box::new(Proxied { addresses, tlvs }))
    }

    /// The header's bytes, [`MAX_HEADER`] at most. What the format has no place for is left out: everything but addresses
    /// in version 1, what does not fit into [`MAX_LENGTH`] any more in version 2.
    pub fn encode(&self, format: Format) -> Vec<u8> {
        match format {
            Format::V1 => v1::encode(self),
            Format::V2 { checksum } => v2::encode(self, checksum),
        }
    }
}

impl Addresses {
    /// A UNIX socket's of which neither path is told: that of a client has none, as a rule.
    pub const UNNAMED: Self = Self::Unix {
        source: [0; UNIX_PATH],
        destination: [0; UNIX_PATH],
    };

    /// The ends of a TCP connection. When only one is IPv6, the other is given as an IPv4-mapped one.
    pub fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        match (source, destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => Self::Tcp4 { source, destination },
            (source, destination) => Self::Tcp6 {
                source: mapped(source),
                destination: mapped(destination),
            },
        }
    }

    /// Source and destination, when they are of TCP.
    pub fn as_tcp(&self) -> Option<(SocketAddr, SocketAddr)> {
        match *self {
            Self::Tcp4 { source, destination } => Some((source.into(), destination.into())),
            Self::Tcp6 { source, destination } => Some((source.into(), destination.into())),
            Self::Unix { .. } => None,
        }
    }
}

/// Without flow label and scope, which a header has no place for.
fn mapped(address: SocketAddr) -> SocketAddrV6 {
    let ip: Ipv6Addr = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddrV6::new(ip, address.port(), 0, 0)
}

#[cfg(test)]
mod tests;

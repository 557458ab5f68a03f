//! What servers are told of the client, and whom the gateway believes what it says of one; and the number that a request
//! gets.

use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;

/// What is done with the header fields that say who the client is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwarding {
    /// `trusted-proxies "10.0.0.0/8"`: who may say something of the client; none when nothing is said of that.
    pub trusted: Option<TrustedProxies>,
    /// `forwarded-for`.
    pub forwarded_for: Option<ForwardedFor>,
    /// `forwarded`.
    pub forwarded: Option<Forwarded>,
    /// `forwarded-headers`.
    pub headers: ForwardedHeaders,
}

impl Forwarding {
    /// The fields that are named: in which the client's address is told, and in which trusted proxies say it.
    pub fn named_fields(&self) -> impl Iterator<Item = &HeaderName> {
        let told = self.forwarded_for.as_ref().map(|told| &told.header);
        let said = match self.trusted.as_ref().and_then(|trusted| trusted.client_ip.as_ref()) {
            Some(ClientIpFrom::Header(name)) => Some(name),
            _ => None,
        };
        told.into_iter().chain(said)
    }
}

/// `trusted-proxies "10.0.0.0/8" client-ip="x-forwarded-for"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Where they are; none where `unix` says where.
    pub networks: Vec<IpNet>,
    /// `"unix"`: whoever connects to a UNIX socket is one.
    pub unix: bool,
    /// Where they say who the client is; none means that the client is who connects.
    pub client_ip: Option<ClientIpFrom>,
}

/// Where a trusted proxy says who the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientIpFrom {
    /// In `Forwarded` (RFC 7239).
    Forwarded,
    /// In this field: an address, or a list to which each proxy has appended one.
    Header(HeaderName),
}

/// `forwarded-for header="X-Forwarded-For" if-none except="127.0.0.0/8"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedFor {
    /// The field that the client's address is appended to.
    pub header: HeaderName,
    /// `if-none`: only where the request has no such field.
    pub if_none: bool,
    /// `except`: not for connections from there.
    pub except: Vec<IpNet>,
}

/// `forwarded "for" "by" "host" "proto"`: the elements of `Forwarded` (RFC 7239) that are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The client's address.
    pub client: bool,
    /// Who received the request.
    pub by: Option<ForwardedBy>,
    /// The Host that the client asked for.
    pub host: bool,
    /// `http` or `https`.
    pub proto: bool,
}

/// What the gateway is called in `Forwarded`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardedBy {
    /// The address that the client connected to.
    Address,
    /// An identifier that says nothing of addresses (RFC 7239, section 6.3).
    Obfuscated(String),
}

/// `forwarded-headers "x-forwarded-proto" "x-forwarded-host" "x-forwarded-port" "x-real-ip"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForwardedHeaders {
    /// X-Forwarded-Proto: `http` or `https`.
    pub proto: bool,
    /// X-Forwarded-Host: the Host that the client asked for.
    pub host: bool,
    /// X-Forwarded-Port: the port that the client connected to.
    pub port: bool,
    /// X-Real-IP: the client's address.
    pub real_ip: bool,
}

/// `request-id header="X-Request-Id" version="v7" incoming="trusted" response`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    /// The field that it stands in.
    pub header: HeaderName,
    /// How it is made.
    pub version: UuidVersion,
    /// Whose identifiers are kept.
    pub incoming: IncomingId,
    /// `response`: the client is told, too.
    pub response: bool,
}

/// How an identifier is made (RFC 9562).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UuidVersion {
    /// At random.
    V4,
    /// From the time, and then at random: those that are made one after another are close in an index.
    V7,
}

/// Whose identifiers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncomingId {
    /// Nobody's: each request gets a new one.
    Never,
    /// Those that trusted proxies send.
    Trusted,
    /// Whatever comes, if it can be one.
    Any,
}

impl Forwarding {
    /// Whether who connects from there may say something of the client. None stands for a UNIX socket.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        self.trusted.as_ref().is_some_and(|trusted| trusted.trusts(peer))
    }

    /// Whether there are proxies that are trusted, and who connects from there is none of them.
    pub fn doubts(&self, peer: Option<IpAddr>) -> bool {
        self.trusted.as_ref().is_some_and(|trusted| !trusted.trusts(peer))
    }
}

impl TrustedProxies {
    /// Whether who connects from there is a trusted proxy. None stands for a UNIX socket.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(self.unix, |peer| self.contains(peer))
    }

    /// Whether a trusted proxy has this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        contain(&self.networks, address)
    }
}

impl ForwardedFor {
    /// Whether connections from there are passed over.
    pub fn excepts(&self, peer: IpAddr) -> bool {
        contain(&self.except, peer)
    }
}

/// A client of IPv4 may have come in on a socket of IPv6, with a mapped address.
fn contain(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

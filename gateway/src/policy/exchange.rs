//! What a hook is asked about and what it answers, in `http` types.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, request, response};
use tokio::time::Instant;

use super::client_certificate::ClientCertificate;
use super::kept::{Kept, KeptByConnection};
use crate::proxy_protocol::Header;

/// A request, the response to it when there is one, and the connection both belong to.
///
/// Kept in a box, so that it moves into a component's store for a call and back by swapping two pointers.
#[derive(Debug)]
pub struct Exchange {
    /// The request's head, as earlier hooks left it.
    pub request: request::Parts,
    /// The response's head; there once a server has answered.
    pub response: Option<response::Parts>,
    /// The client's connection.
    pub connection: Arc<ConnectionFacts>,
    /// Which of the conditions that the operator's edits have hold, a bit each.
    pub conditions: u64,
    /// The name of the server that answered, where somebody may ask for it.
    pub server: Option<Arc<str>>,
    /// Instances that see more than one phase of it.
    pub(super) kept: Kept,
    /// Instances that see all requests of its connection, where something asks for such.
    pub kept_by_connection: Option<KeptByConnection>,
}

impl Exchange {
    /// Of a request that has just come.
    pub fn new(request: request::Parts, connection: Arc<ConnectionFacts>) -> Box<Self> {
        Box::new(Self {
            request,
            response: None,
            connection,
            conditions: 0,
            server: None,
            kept: Kept::default(),
            kept_by_connection: None,
        })
    }
}

/// What is known of a client's connection. Boxed is what most connections have not: this lives as long as they do.
#[derive(Debug, Clone)]
pub struct ConnectionFacts {
    /// When it was accepted.
    pub accepted: Instant,
    /// The client: the original one when a PROXY header named it, else the peer.
    pub client: SocketAddr,
    /// The address that the client connected to, likewise.
    pub local: SocketAddr,
    /// TLS facts; none on a plain connection, and none where TLS passes through.
    pub tls: Option<Box<TlsFacts>>,
    /// What a client said whose TLS passes through, where it was looked at.
    pub hello: Option<Box<ClientHello>>,
    /// The PROXY header that the connection began with, where one was asked for.
    pub proxy: Option<Box<Introduced>>,
}

/// What a connection that begins with a PROXY header has beside others.
#[derive(Debug, Clone)]
pub struct Introduced {
    /// The other end of the TCP connection itself.
    pub peer: SocketAddr,
    /// What it said.
    pub header: Header,
}

impl ConnectionFacts {
    /// Whether a balancer in front speaks for itself, as in its health checks.
    pub fn is_from_balancer(&self) -> bool {
        matches!(self.header(), Some(Header::Local))
    }

    /// The other end of the TCP connection itself.
    pub fn peer(&self) -> SocketAddr {
        self.proxy.as_ref().map_or(self.client, |introduced| introduced.peer)
    }

    /// The PROXY header that the connection began with, where one was asked for.
    pub fn header(&self) -> Option<&Header> {
        self.proxy.as_ref().map(|introduced| &introduced.header)
    }
}

/// What is read of a TLS client's first message, on its way to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name the client asks for, lower-case.
    pub sni: Option<String>,
    /// The application protocols the client offers, in its order.
    pub alpn: Vec<Vec<u8>>,
}

/// What a TLS handshake settled.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The server name the client asked for, lower-case.
    pub sni: Option<String>,
    /// The application protocol agreed on.
    pub alpn: Option<Vec<u8>>,
    /// The client's own certificate, which has been verified.
    pub client_certificate: Option<ClientCertificate>,
}

/// A limiter's answer to one request; see `limiter.verdict` in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitVerdict {
    /// Whether the request may go on.
    pub allowed: bool,
    /// Which of the configured limits decided, from 0.
    pub rule: u32,
    /// The limit's size.
    pub limit: u64,
    /// Requests left now.
    pub remaining: u64,
    /// Milliseconds until the next request will be allowed; 0 when one is allowed now.
    pub retry_after_ms: u64,
}

/// A response that a component gives in the server's place. Checked: framing and hop-by-hop fields are not in it.
#[derive(Debug, Clone)]
pub struct Reply {
    /// 200 to 599.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What becomes of a connection in TCP mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionVerdict {
    /// It goes on, to the backend that the configuration says.
    Accept,
    /// It is closed.
    Refuse,
    /// It goes to the named backend.
    Route(String),
}

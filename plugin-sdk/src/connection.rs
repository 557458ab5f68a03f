//! A client's connection, as a hook sees it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::facts::{self, Facts, fact_getters};
use crate::needs::OnConnection;
use crate::sys::connection_info;

/// A client's connection: the facts that were declared (in a connection filter), and the host for everything else.
#[derive(Debug)]
pub struct Connection<'a> {
    facts: Facts<'a>,
}

/// What the TLS handshake settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: String,
    /// The server name the client asked for (RFC 6066), lower-case.
    pub sni: Option<String>,
    /// The application protocol agreed on (RFC 7301), as `h2`.
    pub alpn: Option<Vec<u8>>,
    /// The client's own certificate in DER, when one was asked for and verified.
    pub client_certificate: Option<Vec<u8>>,
}

impl<'a> Connection<'a> {
    #[inline]
    pub(crate) fn new(facts: Facts<'a>) -> Self {
        Self { facts }
    }

    fact_getters!(OnConnection);

    /// The client: the original one when a PROXY header named it. A host call.
    pub fn client(&self) -> SocketAddr {
        address(connection_info::client())
    }

    /// The address that the client connected to, likewise. A host call.
    pub fn local(&self) -> SocketAddr {
        address(connection_info::local())
    }

    /// The other end of the TCP connection itself. A host call.
    pub fn peer(&self) -> SocketAddr {
        address(connection_info::peer())
    }

    /// What the TLS handshake settled; none on a plain connection. A host call.
    pub fn tls(&self) -> Option<TlsInfo> {
        connection_info::tls().map(|tls| TlsInfo {
            version: tls.version,
            sni: tls.sni,
            alpn: tls.alpn,
            client_certificate: tls.client_certificate,
        })
    }
}

/// The host promises 4 or 16 bytes; should it ever break that, the unspecified address matches no sensible rule.
fn address(endpoint: connection_info::Endpoint) -> SocketAddr {
    let ip = facts::ip(&endpoint.ip).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    SocketAddr::new(ip, endpoint.port)
}

//! Declared needs: the attributes that the host hands over with each call.
//!
//! Declaring a need gives a [`Need`], the key under which the fact is read in the hook. It costs no host call to read, and
//! a key of one phase cannot be used in another.

use std::fmt;
use std::marker::PhantomData;

/// The needs of a plugin, by phase. Filled in [`Plugin::configure`](crate::Plugin::configure).
#[derive(Debug, Default)]
pub struct Needs {
    /// For access control, rate limits, request filters and filters of requests' bodies.
    pub request: List<OnRequest>,
    /// For response filters and filters of responses' bodies.
    pub response: List<OnResponse>,
    /// For access logs.
    pub log: List<OnLog>,
    /// For connection filters.
    pub connection: List<OnConnection>,
}

/// The needs of one phase. Declaring the same attribute twice gives the same key.
#[derive(Debug)]
pub struct List<Phase> {
    names: Vec<String>,
    phase: PhantomData<Phase>,
}

/// The key to a fact.
pub struct Need<Phase> {
    index: u32,
    phase: PhantomData<Phase>,
}

/// The key to a fact about a request.
pub type RequestNeed = Need<OnRequest>;
/// The key to a fact about a response or the request it answers.
pub type ResponseNeed = Need<OnResponse>;
/// The key to a fact about an exchange that is over.
pub type LogNeed = Need<OnLog>;
/// The key to a fact about a connection.
pub type ConnectionNeed = Need<OnConnection>;

/// The phase of `predicates`, `limiter`, `request-filter` and `request-body-filter`.
#[derive(Debug)]
pub enum OnRequest {}
/// The phase of `response-filter` and `response-body-filter`.
#[derive(Debug)]
pub enum OnResponse {}
/// The phase of `access-log`.
#[derive(Debug)]
pub enum OnLog {}
/// The phase of `connection-filter`.
#[derive(Debug)]
pub enum OnConnection {}

/// A phase in which there is a request.
pub trait HasRequest: sealed::Sealed {}
impl HasRequest for OnRequest {}
impl HasRequest for OnResponse {}
impl HasRequest for OnLog {}

/// A phase in which there may be a response.
pub trait HasResponse: sealed::Sealed {}
impl HasResponse for OnResponse {}
impl HasResponse for OnLog {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::OnRequest {}
    impl Sealed for super::OnResponse {}
    impl Sealed for super::OnLog {}
}

impl<Phase> List<Phase> {
    /// The client's address: 4 or 16 bytes in network order. Read it with `ip`.
    pub fn client_ip(&mut self) -> Need<Phase> {
        self.need("client-ip")
    }

    /// The client's port, in decimal digits.
    pub fn client_port(&mut self) -> Need<Phase> {
        self.need("client-port")
    }

    /// The address that the client connected to. Read it with `ip`.
    pub fn local_ip(&mut self) -> Need<Phase> {
        self.need("local-ip")
    }

    /// The port that the client connected to, in decimal digits.
    pub fn local_port(&mut self) -> Need<Phase> {
        self.need("local-port")
    }

    /// `TLSv1.3` or `TLSv1.2`; absent without TLS.
    pub fn tls_version(&mut self) -> Need<Phase> {
        self.need("tls-version")
    }

    /// The server name that the client asked for, lower-case; absent when it asked for none.
    pub fn sni(&mut self) -> Need<Phase> {
        self.need("sni")
    }

    /// The local time in a zone of the IANA's database, as `Europe/Berlin`, when the call began: `4 2026-01-01T01:00:00+01:00`.
    /// The first digit is the day of the week, 1 for Monday. The operator has to grant it: `grant "clock"`.
    pub fn local_time(&mut self, zone: &str) -> Need<Phase> {
        self.need(&format!("local-time:{zone}"))
    }

    /// The application protocol agreed on, as `h2`; absent when none was. In TCP mode, each protocol that the client of TLS
    /// that passes through offers.
    pub fn alpn(&mut self) -> Need<Phase> {
        self.need("alpn")
    }

    /// The subject of the client's verified certificate as RFC 4514 writes it, `CN=client.example,O=Example`; absent when it
    /// showed none.
    pub fn client_cert_subject(&mut self) -> Need<Phase> {
        self.need("client-cert-subject")
    }

    /// The first common name of the client certificate's subject; absent when it has none.
    pub fn client_cert_cn(&mut self) -> Need<Phase> {
        self.need("client-cert-cn")
    }

    /// The issuer of the client's certificate, as RFC 4514 writes it.
    pub fn client_cert_issuer(&mut self) -> Need<Phase> {
        self.need("client-cert-issuer")
    }

    /// The serial number of the client's certificate, in lower-case hexadecimal digits.
    pub fn client_cert_serial(&mut self) -> Need<Phase> {
        self.need("client-cert-serial")
    }

    /// Each alternative name of the client's certificate with its kind: `DNS:client.example`, `IP:192.0.2.7`,
    /// `email:a@b.example`, `URI:spiffe://example/a`.
    pub fn client_cert_san(&mut self) -> Need<Phase> {
        self.need("client-cert-san")
    }

    /// The SHA-256 digest of the client's certificate, in lower-case hexadecimal digits.
    pub fn client_cert_fingerprint(&mut self) -> Need<Phase> {
        self.need("client-cert-fingerprint")
    }

    /// Any attribute by its name in the contract, for one that this version of the SDK has no method for.
    pub fn attribute(&mut self, name: &str) -> Need<Phase> {
        self.need(name)
    }

    fn need(&mut self, name: &str) -> Need<Phase> {
        let index = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        Need {
            // A plugin that declares four thousand million needs has run out of memory before.
            index: index as u32,
            phase: PhantomData,
        }
    }

    /// The names, in order: what the host is told.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn into_names(self) -> Vec<String> {
        self.names
    }

    /// The names, in order: what the host is told.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }
}

impl<Phase: HasRequest> List<Phase> {
    /// `GET`, `POST`, …
    pub fn method(&mut self) -> Need<Phase> {
        self.need("method")
    }

    /// `http` or `https`.
    pub fn scheme(&mut self) -> Need<Phase> {
        self.need("scheme")
    }

    /// The Host header or `:authority`, as sent.
    pub fn authority(&mut self) -> Need<Phase> {
        self.need("authority")
    }

    /// The authority's host, lower-case, without port or trailing dot.
    pub fn host(&mut self) -> Need<Phase> {
        self.need("host")
    }

    /// The path as sent, without the query; never decoded.
    pub fn path(&mut self) -> Need<Phase> {
        self.need("path")
    }

    /// The query as sent, without `?`; absent when there is none.
    pub fn query(&mut self) -> Need<Phase> {
        self.need("query")
    }

    /// Each value of a request header, in order.
    pub fn header(&mut self, name: &str) -> Need<Phase> {
        self.need(&format!("header:{}", name.to_ascii_lowercase()))
    }

    /// Each value of a cookie, in order.
    pub fn cookie(&mut self, name: &str) -> Need<Phase> {
        self.need(&format!("cookie:{name}"))
    }

    /// Each value of a query parameter, percent-decoded.
    pub fn query_param(&mut self, name: &str) -> Need<Phase> {
        self.need(&format!("query-param:{name}"))
    }

    /// The value of a tag that a plugin has set before; see [`tags`](crate::tags).
    pub fn tag(&mut self, name: &str) -> Need<Phase> {
        self.need(&format!("tag:{name}"))
    }
}

impl<Phase: HasResponse> List<Phase> {
    /// The response's status, in decimal digits. In an access log the one that the client was sent, absent when it was sent
    /// none.
    pub fn status(&mut self) -> Need<Phase> {
        self.need("status")
    }

    /// Each value of a response header, in order.
    pub fn response_header(&mut self, name: &str) -> Need<Phase> {
        self.need(&format!("response-header:{}", name.to_ascii_lowercase()))
    }

    /// The name of the server that answered.
    pub fn server(&mut self) -> Need<Phase> {
        self.need("server")
    }
}

impl List<OnLog> {
    /// The name of the backend that the request was routed to.
    pub fn backend(&mut self) -> LogNeed {
        self.need("backend")
    }

    /// Microseconds from the request's first byte to the end of the exchange, in decimal digits.
    pub fn duration_us(&mut self) -> LogNeed {
        self.need("duration-us")
    }

    /// Bytes of the response's body that were sent, in decimal digits.
    pub fn bytes_sent(&mut self) -> LogNeed {
        self.need("bytes-sent")
    }

    /// Why the gateway answered itself or the exchange broke off; absent otherwise.
    pub fn reason(&mut self) -> LogNeed {
        self.need("reason")
    }
}

impl<Phase> Default for List<Phase> {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            phase: PhantomData,
        }
    }
}

impl<Phase> Need<Phase> {
    pub(crate) fn index(self) -> u32 {
        self.index
    }
}

impl<Phase> Clone for Need<Phase> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Phase> Copy for Need<Phase> {}

impl<Phase> PartialEq for Need<Phase> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl<Phase> Eq for Need<Phase> {}

impl<Phase> fmt::Debug for Need<Phase> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Need({})", self.index)
    }
}

//! Requests, responses and connections, built for a test and looked at afterwards.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::sys::Field;
use crate::sys::connection_info::Endpoint;
use crate::{Reply, TlsInfo};

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub(crate) method: String,
    pub(crate) authority: String,
    pub(crate) path: Vec<u8>,
    pub(crate) query: Option<Vec<u8>>,
    pub(crate) headers: Headers,
    pub(crate) connection: Connection,
    pub(crate) conditions: Vec<u32>,
    pub(crate) tags: BTreeMap<String, Vec<u8>>,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    body: Vec<u8>,
}

/// A client's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    pub(crate) client: SocketAddr,
    pub(crate) local: SocketAddr,
    peer: Option<SocketAddr>,
    pub(crate) tls: Option<TlsInfo>,
    /// Attributes that a test gives, in order.
    pub(crate) attributes: Vec<(String, Vec<u8>)>,
}

/// Header fields in order, names in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Headers(Vec<(String, Vec<u8>)>);

impl Request {
    /// A request for a URL (`http://shop.example/cart?x=1`) or for a path of `gateway.example`. An `https` URL makes its
    /// connection speak TLS 1.3 and name the host as SNI.
    pub fn new(method: &str, url: &str) -> Self {
        // A path may have `://` in it too.
        let absolute = url.split_once("://").filter(|(scheme, _)| !scheme.contains('/'));
        let (scheme, rest) = absolute.unwrap_or(("http", url));
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = match rest.split_at(split) {
            ("", target) => (DEFAULT_AUTHORITY, target),
            both => both,
        };
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let mut connection = Connection::new();
        if scheme == "https" {
            let host = super::attributes::host(authority.as_bytes());
            let sni = String::from_utf8(host)
                .ok()
                .filter(|host| host.parse::<IpAddr>().is_err());
            connection.tls = Some(TlsInfo {
                version: "TLSv1.3".to_owned(),
                sni,
                alpn: None,
                client_certificate: None,
            });
        }
        Self {
            method: method.to_owned(),
            authority: authority.to_owned(),
            path: if path.is_empty() {
                b"/".to_vec()
            } else {
                path.as_bytes().to_vec()
            },
            query: query.map(|query| query.as_bytes().to_vec()),
            headers: Headers::default(),
            connection,
            conditions: Vec::new(),
            tags: BTreeMap::new(),
        }
    }

    /// A GET request; see [`Request::new`].
    pub fn get(url: &str) -> Self {
        Self::new("GET", url)
    }

    /// A POST request; see [`Request::new`].
    pub fn post(url: &str) -> Self {
        Self::new("POST", url)
    }

    /// The same with one of the operator's conditions holding: the attribute `condition:NUMBER`.
    #[must_use]
    pub fn with_condition(mut self, number: u32) -> Self {
        self.conditions.push(number);
        self
    }

    /// The same with a tag that a plugin before has set.
    #[must_use]
    pub fn with_tag(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.tags.insert(name.to_owned(), value.as_ref().to_vec());
        self
    }

    /// A tag, as text.
    pub fn tag(&self, name: &str) -> Option<String> {
        self.tags
            .get(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The same with a header field added.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.add(name, value.as_ref().to_vec());
        self
    }

    /// The same with a path that need not be text.
    #[must_use]
    pub fn with_path(mut self, path: impl AsRef<[u8]>) -> Self {
        self.path = path.as_ref().to_vec();
        self
    }

    /// The same from this client; a port of 50000 where none is said.
    ///
    /// # Panics
    /// It is neither an address nor an address and a port.
    #[must_use]
    pub fn from(mut self, client: &str) -> Self {
        self.connection = self.connection.from(client);
        self
    }

    /// The same on this connection.
    #[must_use]
    pub fn on(mut self, connection: Connection) -> Self {
        self.connection = connection;
        self
    }

    /// The values of a header, as text.
    pub fn header(&self, name: &str) -> Vec<String> {
        self.headers.texts(name)
    }

    /// The path, as text.
    pub fn path(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }

    /// The query, as text.
    pub fn query(&self) -> Option<String> {
        self.query
            .as_ref()
            .map(|query| String::from_utf8_lossy(query).into_owned())
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.connection.tls.is_some() { "https" } else { "http" }
    }
}

impl Response {
    /// A response without headers.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Headers::default(),
            body: Vec::new(),
        }
    }

    /// The one that a plugin gives in a server's place.
    pub(crate) fn of(reply: Reply) -> Self {
        Self {
            status: reply.status,
            headers: Headers(reply.headers),
            body: reply.body,
        }
    }

    /// What a plugin wrote that gave it in a server's place; empty of a server's own.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The same with a header field added.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.add(name, value.as_ref().to_vec());
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The values of a header, as text.
    pub fn header(&self, name: &str) -> Vec<String> {
        self.headers.texts(name)
    }
}

impl Connection {
    /// A plain connection from 192.0.2.1 to 192.0.2.100:80.
    pub fn new() -> Self {
        Self {
            client: SocketAddr::from(([192, 0, 2, 1], DEFAULT_PORT)),
            local: SocketAddr::from(([192, 0, 2, 100], 80)),
            peer: None,
            tls: None,
            attributes: Vec::new(),
        }
    }

    /// The same from this client; a port of 50000 where none is said.
    ///
    /// # Panics
    /// It is neither an address nor an address and a port.
    #[must_use]
    pub fn from(mut self, client: &str) -> Self {
        self.client = address(client);
        self
    }

    /// The same to this address of the gateway's.
    ///
    /// # Panics
    /// It is neither an address nor an address and a port.
    #[must_use]
    pub fn to(mut self, local: &str) -> Self {
        self.local = address(local);
        self
    }

    /// The same through a balancer that spoke PROXY from this address.
    ///
    /// # Panics
    /// It is neither an address nor an address and a port.
    #[must_use]
    pub fn through(mut self, peer: &str) -> Self {
        self.peer = Some(address(peer));
        self
    }

    /// The same with TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: TlsInfo) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The same with a value of an attribute that the client's certificate gives, as `client-cert-cn`: tests read no
    /// certificates. Several values of one attribute are several facts.
    #[must_use]
    pub fn with_attribute(mut self, name: &str, value: &str) -> Self {
        self.attributes.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer.unwrap_or(self.client)
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl Headers {
    pub(crate) fn all(&self, name: &str) -> Vec<Vec<u8>> {
        self.values(name).map(<[u8]>::to_vec).collect()
    }

    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.0
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    pub(crate) fn fields(&self) -> Vec<Field> {
        let fields = self.0.iter().cloned();
        fields.map(|(name, value)| Field { name, value }).collect()
    }

    pub(crate) fn add(&mut self, name: &str, value: Vec<u8>) {
        self.0.push((name.to_ascii_lowercase(), value));
    }

    pub(crate) fn set(&mut self, name: &str, value: Vec<u8>) {
        self.remove(name);
        self.add(name, value);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    fn texts(&self, name: &str) -> Vec<String> {
        self.values(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: bytes(address.ip()),
            port: address.port(),
        }
    }
}

/// An address as the contract hands it over: IPv4-mapped as IPv4.
pub(crate) fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[allow(clippy::panic, reason = "tests only: the test itself is wrong")]
fn address(text: &str) -> SocketAddr {
    let with_port = text.parse::<SocketAddr>().ok();
    let without = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DEFAULT_PORT));
    with_port
        .or_else(without)
        .unwrap_or_else(|| panic!("`{text}` is not an address"))
}

const DEFAULT_AUTHORITY: &str = "gateway.example";
const DEFAULT_PORT: u16 = 50_000;

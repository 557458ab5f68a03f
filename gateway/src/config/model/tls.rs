//! TLS: what is shown to the other end, whom it has to be, and how the two speak.

use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::{At, Origin};
use crate::crypto::{CipherSuite, Group, TlsVersion};

/// `tls cert="bundle.pem" { … }` of a bind: TLS is terminated here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindTls {
    /// Where certificates come from, at least one place; the first certificate of the first place is the default.
    pub certificates: Vec<CertificateSource>,
    /// `strict-sni`: who asks for a name that no certificate has, or for none, gets no certificate at all.
    pub strict_sni: bool,
    /// `client-ca "ca.pem" verify="required"`: clients show who they are.
    pub clients: Option<ClientAuthorities>,
    /// Versions, cipher suites and groups.
    pub parameters: TlsParameters,
    /// How clients come back without a whole handshake.
    pub resumption: Resumption,
    /// `tickets keys="tickets.keys"`: keys that others may have too; the gateway makes none of its own then.
    pub ticket_keys: Option<TicketKeys>,
    /// Where it stands.
    pub origin: Origin,
}

impl BindTls {
    /// The first place that certificates come from, for a fault of all of them.
    pub fn first(&self) -> Option<&CertificateSource> {
        self.certificates.first()
    }
}

/// One place that certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// `cert "bundle.pem" key="key.pem" ocsp="bundle.ocsp"`.
    Files(CertificateFiles),
    /// `cert-dir "/etc/gateway/certs"`: every file in it, by name.
    Folder(At<PathBuf>),
}

/// The files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM file with the certificate chain, leaf first; and the key, unless that has a file of its own.
    pub cert: At<PathBuf>,
    /// PEM file with the private key, where it is said; else it is in `cert` or beside it.
    pub key: Option<At<PathBuf>>,
    /// File with an OCSP response (RFC 6960, DER), where it is said; else one that is beside `cert`.
    pub ocsp: Option<At<PathBuf>>,
}

/// `client-ca "ca.pem" verify="required" depth=1` and `crl "ca.crl"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuthorities {
    /// PEM files with the authorities that client certificates have to be from.
    pub files: Vec<At<PathBuf>>,
    /// Whether a client without a certificate is refused.
    pub required: bool,
    /// Certificates of authorities in between that a client's may need; as many as the library takes when none.
    pub depth: Option<usize>,
    /// Files with revocation lists.
    pub crls: Vec<At<PathBuf>>,
}

/// What two ends may agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsParameters {
    /// `min-version=`.
    pub min: TlsVersion,
    /// `max-version=`.
    pub max: TlsVersion,
    /// `ciphers`, in order of preference; the library's when empty.
    pub ciphers: Vec<CipherSuite>,
    /// Of a bind, whether the client's order counts: that nobody has written one here, or `prefer="client"`.
    pub prefers_client: bool,
    /// `curves`, in order of preference where it is the client that offers them; the library's when empty.
    pub curves: Vec<Group>,
}

/// `session-cache 20000` and `tickets rotate="6h"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumption {
    /// Sessions that are kept for clients that take no ticket, or while there are none; 0 for none.
    pub cache: usize,
    /// How long a key of the gateway's own makes tickets before the next one does; none when there are no such tickets.
    pub tickets: Option<Duration>,
}

/// `tickets keys="tickets.keys" lifetime="6h"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketKeys {
    /// The file, one key a line: the first makes tickets, all open theirs.
    pub file: At<PathBuf>,
    /// How long a ticket is good; whole seconds.
    pub lifetime: Duration,
}

/// `tls ca="ca.pem" sni="db.example.net" cert="client.pem" key="client-key.pem"` and `alpn "…"` in a server's block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Whether the server has to show who it is, and to whom that is known.
    pub verify: Verify,
    /// `crl "ca.crl"`: files with revocation lists.
    pub crls: Vec<At<PathBuf>>,
    /// The name that is asked for and verified; the server's address unless said.
    pub sni: Option<ServerName<'static>>,
    /// `sni="client"`: the name that the client asked for comes before that, where there is one.
    pub sni_of_client: bool,
    /// The certificate that is shown when the server asks for one.
    pub identity: Option<CertificateFiles>,
    /// Versions, cipher suites and groups.
    pub parameters: TlsParameters,
    /// The protocols that are offered, in order of preference.
    pub alpn: Vec<Vec<u8>>,
    /// Where it stands.
    pub origin: Origin,
}

/// How a server shows who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// By a certificate for its name from one of these authorities.
    Required(Authorities),
    /// `verify="none"`: not at all. Whoever is in the way can read and change everything.
    None,
}

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorities {
    /// Those that the system trusts.
    System,
    /// `ca="ca.pem"`: those in this file, and no others.
    File(At<PathBuf>),
}

/// `hsts max-age="1y" include-subdomains preload override` (RFC 6797).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    /// How long browsers remember; whole seconds.
    pub max_age: Duration,
    /// `include-subdomains`.
    pub include_subdomains: bool,
    /// `preload`: may be put into the lists that browsers come with.
    pub preload: bool,
    /// `override`: what a server says is replaced; it stands otherwise.
    pub replaces: bool,
}

//! Certificates made on the spot, and a TLS server that remembers the handshakes it saw.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, PKCS_RSA_SHA256, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate that an authority has issued, and its key.
pub struct Issued {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    pem: String,
    serial: u64,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Its certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// An authority of this name whose certificate this one has issued.
    pub fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for these DNS names and addresses, the first of which is its common name.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, KeyPair::generate().unwrap(), |_| {})
    }

    /// The same with an RSA key.
    pub fn issue_rsa(&self, names: &[&str]) -> Issued {
        self.issue_with(names, KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(), |_| {})
    }

    /// The same, valid until so many seconds from now.
    pub fn issue_for(&self, names: &[&str], seconds: i64) -> Issued {
        self.issue_with(names, KeyPair::generate().unwrap(), |params| {
            params.not_after = seconds_from_now(seconds);
        })
    }

    fn issue_with(&self, names: &[&str], key: KeyPair, more: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        if let Some(name) = names.into_iter().next() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        more(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            key,
            serial,
        }
    }

    /// A list of what it has revoked, as PEM, good until so many seconds from now.
    pub fn revocation_list(&self, revoked: &[&Issued], seconds: i64) -> String {
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: SerialNumber::from(issued.serial),
            revocation_time: seconds_from_now(-3600),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: seconds_from_now(-7200),
            next_update: seconds_from_now(seconds),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// What a client needs to know of it, to be gone on from.
    pub fn client(&self) -> ClientConfig {
        ClientConfig::builder()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    /// A client that shows a certificate.
    pub fn client_with(&self, shown: &Issued) -> ClientConfig {
        ClientConfig::builder()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(vec![shown.certificate.clone()], shown.private_key())
            .unwrap()
    }

    /// A server with a certificate for these names.
    pub fn server(&self, names: &[&str]) -> ServerConfig {
        self.issue(names).server()
    }

    /// A server that wants to see a client certificate of this authority.
    pub fn demanding_server(&self, names: &[&str]) -> ServerConfig {
        let issued = self.issue(names);
        let verifier = WebPkiClientVerifier::builder(Arc::new(self.roots())).build().unwrap();
        ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![issued.certificate.clone()], issued.private_key())
            .unwrap()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Issued {
    /// One that nobody but itself has issued, marked as an authority's, as `openssl req -x509` makes it.
    pub fn self_signed(names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            key,
            serial: 0,
        }
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its serial number.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The key as PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Both in one file.
    pub fn bundle(&self) -> String {
        format!("{}{}", self.pem, self.key.serialize_pem())
    }

    /// A server that shows it.
    pub fn server(&self) -> ServerConfig {
        ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.private_key())
            .unwrap()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

fn seconds_from_now(seconds: i64) -> time::OffsetDateTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    time::OffsetDateTime::from_unix_timestamp(i64::try_from(now).unwrap() + seconds).unwrap()
}

/// What a handshake settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The name that was asked for.
    pub sni: Option<String>,
    /// The protocol that was agreed on.
    pub alpn: Option<String>,
    /// Whether the client showed a certificate.
    pub certificate: bool,
    /// Whether an earlier session went on.
    pub resumed: bool,
}

/// A server that speaks TLS. It sends back what it gets, and `bye` when the client has said everything; who sends a request
/// of HTTP is answered with the name that was asked for.
pub struct TlsServer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Result<Handshake, String>>>>,
    accepting: JoinHandle<()>,
}

impl TlsServer {
    /// Starts one.
    pub async fn start(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let record = Arc::clone(&seen);
        let accepting = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(serve(acceptor.clone(), stream, Arc::clone(&record)));
            }
        });
        Self {
            address,
            seen,
            accepting,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The handshakes that succeeded.
    pub fn handshakes(&self) -> Vec<Handshake> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter_map(|result| result.clone().ok()).collect()
    }

    /// Why others failed.
    pub fn failures(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter_map(|result| result.clone().err()).collect()
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, seen: Arc<Mutex<Vec<Result<Handshake, String>>>>) {
    let mut stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            seen.lock().unwrap().push(Err(error.to_string()));
            return;
        }
    };
    let session = stream.get_ref().1;
    let handshake = Handshake {
        sni: session.server_name().map(str::to_owned),
        alpn: session
            .alpn_protocol()
            .map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
        certificate: session.peer_certificates().is_some(),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    };
    let name = handshake.sni.clone().unwrap_or_default();
    seen.lock().unwrap().push(Ok(handshake));
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        let answer = match buffer[..n].starts_with(b"GET ") {
            true => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()).into_bytes(),
            false => buffer[..n].to_vec(),
        };
        if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
    let _ = stream.write_all(b"bye").await;
    let _ = stream.shutdown().await;
}

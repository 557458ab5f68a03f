//! TLS to servers: what is verified, what is shown, and the handshake. Where the server is, is not known here.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::{info, warn};

use crate::certificates::{self, OrListed, Stamp, TlsError, Watched, revocation_lists};
use crate::config::{Authorities, Mode, ServerTls, Verify};
use crate::crypto;
use crate::socket::Socket;
use crate::telemetry::metrics::ProcessMetrics;
use crate::telemetry::pace::Pace;

/// How a server is spoken to in TLS: made once, used for every connection to it, so that sessions are resumed; made again
/// when its files change.
pub struct Connector {
    config: ArcSwap<ClientConfig>,
    /// None stands for the address that was connected to.
    name: Option<ServerName<'static>>,
    /// Of lines about handshakes that failed.
    pub(super) pace: Pace,
    made_of: MadeOf,
    /// Of the files as they were last read, or found unusable.
    stamps: Mutex<Vec<Option<Stamp>>>,
    process: Arc<ProcessMetrics>,
}

/// What a connector is made of.
struct MadeOf {
    tls: ServerTls,
    mode: Mode,
    /// Whether HTTP/2 is spoken to it, and nothing else.
    http2: bool,
    /// The system's authorities, where those are believed. They are read at a reload, and not before.
    system: Option<Arc<RootCertStore>>,
    /// The backend and the server, for logs.
    whose: (Arc<str>, Arc<str>),
}

/// The authorities that the system trusts, read when the first server needs them: a hundred files or more.
#[derive(Debug, Default)]
pub struct SystemRoots(OnceLock<Arc<RootCertStore>>);

impl Connector {
    /// What the configuration says of a server of a backend, with its files read. Fails with all that is wrong with them.
    pub fn new(
        tls: &ServerTls,
        (mode, http2): (Mode, bool),
        system: &SystemRoots,
        (backend, server): (&Arc<str>, &Arc<str>),
        process: &Arc<ProcessMetrics>,
    ) -> Result<Self, Vec<TlsError>> {
        let system = match tls.verify {
            Verify::Required(Authorities::System) => Some(system.get().map_err(|error| vec![error])?),
            Verify::Required(Authorities::File(_)) | Verify::None => None,
        };
        let made_of = MadeOf {
            tls: tls.clone(),
            mode,
            http2: mode == Mode::Http && http2,
            system,
            whose: (Arc::clone(backend), Arc::clone(server)),
        };
        // Before they are read: what changes meanwhile has another stamp.
        let stamps = made_of.stamps();
        Ok(Self {
            config: ArcSwap::from_pointee(made_of.make()?),
            name: tls.sni.clone(),
            pace: Pace::default(),
            made_of,
            stamps: Mutex::new(stamps),
            process: Arc::clone(process),
        })
    }

    /// Whether the name that a client asked for comes before the configured one.
    pub(super) const fn wants_name(&self) -> bool {
        self.made_of.tls.sni_of_client
    }

    /// Performs the handshake with the server at `address`, which has to show that it is the one of that name, if one is
    /// asked for, or else the one that is configured. Its time is bounded by whoever calls.
    pub(super) async fn handshake(
        &self,
        stream: Socket,
        address: IpAddr,
        name: Option<&ServerName<'static>>,
    ) -> io::Result<TlsStream<Socket>> {
        let name = match name.or(self.name.as_ref()) {
            Some(name) => name.clone(),
            None => ServerName::IpAddress(address.into()),
        };
        let stream = TlsConnector::from(self.config.load_full())
            .connect(name, stream)
            .await?;
        match self.made_of.http2 {
            true if stream.get_ref().1.alpn_protocol() != Some(HTTP2) => {
                Err(io::Error::other("the server does not agree to HTTP/2"))
            }
            _ => Ok(stream),
        }
    }
}

impl Watched for Connector {
    fn paths(&self) -> Vec<PathBuf> {
        self.made_of.paths()
    }

    fn refresh(&self) {
        let stamps = self.made_of.stamps();
        let mut known = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == stamps {
            return;
        }
        *known = stamps;
        let (backend, server) = (&*self.made_of.whose.0, &*self.made_of.whose.1);
        match self.made_of.make() {
            Ok(config) => {
                self.config.store(Arc::new(config));
                self.process.certificate_reloaded(true);
                info!(backend, server, "files of TLS with the server have changed");
            }
            Err(errors) => {
                for error in errors {
                    self.process.certificate_reloaded(false);
                    warn!(backend, server, %error, "a changed file cannot be used; what was there before stays");
                }
            }
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl MadeOf {
    fn make(&self) -> Result<ClientConfig, Vec<TlsError>> {
        let Self { tls, mode, .. } = self;
        let provider = crypto::provider_with(&tls.parameters.ciphers, &tls.parameters.curves);
        let verifier = self.verifier(&provider);
        let identity = tls.identity.as_ref().map(certificates::identity).transpose();
        let (verifier, identity) = match (verifier, identity) {
            (Ok(verifier), Ok(identity)) => (verifier, identity),
            (verifier, identity) => {
                let identity = identity.err().unwrap_or_default();
                return Err(verifier.err().into_iter().flatten().chain(identity).collect());
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(crypto::TlsVersion::range(tls.parameters.min, tls.parameters.max))
            .map_err(|error| vec![TlsError::Library(error)])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match (identity, &tls.identity) {
            (Some((chain, key)), Some(files)) => builder.with_client_auth_cert(chain, key).map_err(|source| {
                vec![TlsError::Unusable {
                    path: files.cert.value.clone(),
                    source,
                }]
            })?,
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = match mode {
            // The one version that is spoken to this server.
            Mode::Http if self.http2 => vec![HTTP2.to_vec()],
            Mode::Http => vec![b"http/1.1".to_vec()],
            Mode::Tcp => tls.alpn.clone(),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(config)
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Vec<TlsError>> {
        let (roots, file) = match (&self.tls.verify, &self.system) {
            (Verify::None, _) => return Ok(Arc::new(Anybody(Arc::clone(provider)))),
            (Verify::Required(Authorities::File(file)), _) => {
                let authorities = certificates::authorities(file);
                (authorities.map(|(roots, listed)| (Arc::new(roots), listed)), Some(file))
            }
            (Verify::Required(Authorities::System), Some(system)) => (Ok((Arc::clone(system), Vec::new())), None),
            (Verify::Required(Authorities::System), None) => (Err(TlsError::NoSystemRoots(None)), None),
        };
        let ((roots, listed), lists) = match (roots, revocation_lists(&self.tls.crls)) {
            (Ok(roots), Ok(lists)) => (roots, lists),
            (roots, lists) => {
                return Err(roots.err().into_iter().chain(lists.err().unwrap_or_default()).collect());
            }
        };
        let built = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
            .with_crls(lists.lists)
            .enforce_revocation_expiration()
            .build();
        match (built, self.tls.crls.first(), file) {
            (Ok(verifier), None, _) if !listed.is_empty() => Ok(Arc::new(OrListed::new(verifier, listed))),
            (Ok(verifier), ..) => Ok(verifier),
            (Err(error), Some(crl), _) => Err(vec![TlsError::Revocation {
                path: crl.value.clone(),
                why: error.to_string(),
            }]),
            (Err(_), None, Some(file)) => Err(vec![TlsError::NoCertificate(file.value.clone())]),
            (Err(_), None, None) => Err(vec![TlsError::NoSystemRoots(None)]),
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = self.tls.crls.iter().map(|file| file.value.clone()).collect();
        if let Verify::Required(Authorities::File(file)) = &self.tls.verify {
            paths.push(file.value.clone());
        }
        if let Some(identity) = &self.tls.identity {
            paths.extend(certificates::paths(identity));
        }
        paths
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        certificates::stamps(self.paths().iter().map(|path| -> &Path { path }))
    }
}

impl SystemRoots {
    fn get(&self) -> Result<Arc<RootCertStore>, TlsError> {
        if let Some(roots) = self.0.get() {
            return Ok(Arc::clone(roots));
        }
        let roots = Arc::new(certificates::system_authorities()?);
        Ok(Arc::clone(self.0.get_or_init(|| roots)))
    }
}

/// Believes every certificate: `verify="none"`. The handshake itself is verified as ever.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// HTTP/2, as TLS knows it (RFC 9113, section 3.1).
const HTTP2: &[u8] = b"h2";

/// Sessions that are kept for resumption, of one server under one name; the library keeps eight tickets of each. Some more
/// than one, as the table counts by rounding.
const SESSIONS: usize = 32;

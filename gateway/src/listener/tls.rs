//! TLS termination on a bind: one certificate, its key, and what the handshake settled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config;
use crate::policy::TlsFacts;

/// Why a bind's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read, or holds no such thing.
    #[error("{path}: no usable {what}: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// The file holds no certificate.
    #[error("{0}: holds no certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate(PathBuf),
    /// Certificate and key do not go together, or use an unknown algorithm.
    #[error("{path}: {source}")]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// Reads a bind's certificate and key. HTTP frontends agree on `http/1.1` by ALPN; TCP ones on nothing. Fails with all that
/// is wrong with the files.
pub fn server_config(tls: &config::BindTls, mode: config::Mode) -> Result<Arc<ServerConfig>, Vec<TlsError>> {
    let chain = read_chain(&tls.cert.value);
    let (chain, key) = match (chain, &tls.key) {
        (Ok(chain), key) => (
            chain,
            read_key(&key.as_ref().unwrap_or(&tls.cert).value).map_err(|key| vec![key])?,
        ),
        // One file that cannot be read is one fault.
        (Err(chain), None) => return Err(vec![chain]),
        (Err(chain), Some(key)) => {
            return Err(std::iter::once(chain).chain(read_key(&key.value).err()).collect());
        }
    };
    let unusable = |source| {
        vec![TlsError::Unusable {
            path: tls.cert.value.clone(),
            source,
        }]
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    if mode == config::Mode::Http {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    Ok(Arc::new(config))
}

/// Performs the handshake, within a bounded time.
pub async fn accept(config: &Arc<ServerConfig>, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config.clone()).accept(stream)).await {
        Ok(result) => result,
        Err(_) => Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the TLS handshake took too long",
        )),
    }
}

/// What the handshake settled.
pub fn facts(stream: &TlsStream<TcpStream>) -> TlsFacts {
    let session = stream.get_ref().1;
    TlsFacts {
        version: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        sni: session.server_name().map(str::to_ascii_lowercase),
        alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        client_certificate: session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|leaf| leaf.as_ref().to_vec()),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Pem {
        path: path.to_owned(),
        what: "private key",
        source,
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |source| TlsError::Pem {
        path: path.to_owned(),
        what: "certificate",
        source,
    };
    let chain = CertificateDer::pem_file_iter(path)
        .map_err(pem)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(chain)
}

/// A handshake takes two round trips and some signing; a client that needs longer than this holds a slot for nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

//! TLS termination on a bind: one certificate, its key, and what the handshake settled.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificates::{self, TlsError};
use crate::config;
use crate::policy::TlsFacts;

/// Reads a bind's certificate and key. HTTP frontends agree on `http/1.1` by ALPN; TCP ones on nothing. Fails with all that
/// is wrong with the files.
pub fn server_config(tls: &config::BindTls, mode: config::Mode) -> Result<Arc<ServerConfig>, Vec<TlsError>> {
    let (chain, key) = certificates::identity(tls)?;
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

/// A handshake takes two round trips and some signing; a client that needs longer than this holds a slot for nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

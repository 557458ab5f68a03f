//! TLS termination on a bind: one certificate, its key, and what the handshake settled.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificates::{self, TlsError};
use crate::config;
use crate::crypto;
use crate::policy::TlsFacts;
use crate::socket::Socket;

/// Reads a bind's certificate and key. `alpn` is what is agreed on. Fails with all that is wrong with the files.
pub fn server_config(tls: &config::BindTls, alpn: &[Vec<u8>]) -> Result<Arc<ServerConfig>, Vec<TlsError>> {
    let (chain, key) = certificates::identity(tls)?;
    let unusable = |source| {
        vec![TlsError::Unusable {
            path: tls.cert.value.clone(),
            source,
        }]
    };
    let provider = crypto::provider();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = alpn.to_vec();
    Ok(Arc::new(config))
}

/// How a handshake failed, as a word for metrics.
pub fn reason(error: &io::Error) -> &'static str {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (error.kind(), tls) {
        (io::ErrorKind::TimedOut, _) => "tls-timeout",
        // The client does not believe the certificate, or left for another reason of its own.
        (_, Some(rustls::Error::AlertReceived(_))) => "tls-refused-by-client",
        (_, Some(rustls::Error::InvalidMessage(_))) => "tls-malformed",
        (_, Some(_)) => "tls-incompatible",
        (_, None) => "tls-aborted",
    }
}

/// Performs the handshake, within a bounded time.
pub async fn accept(config: &Arc<ServerConfig>, stream: TcpStream, limit: Duration) -> io::Result<TlsStream<Socket>> {
    let accept = TlsAcceptor::from(config.clone()).accept(Socket::accepted(stream));
    match tokio::time::timeout(limit, accept).await {
        Ok(result) => result.inspect(|stream| stream.get_ref().0.open()),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the TLS handshake took too long",
        )),
    }
}

/// What the handshake settled.
pub fn facts(stream: &TlsStream<Socket>) -> TlsFacts {
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

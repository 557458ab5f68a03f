//! TLS with clients: the handshake on a bind where it ends, and what it settled.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{CertificateError, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::crypto;
use crate::policy::{ClientCertificate, TlsFacts};
use crate::socket::Socket;

/// How a handshake failed, as a word for metrics.
pub fn reason(error: &io::Error) -> &'static str {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (error.kind(), tls) {
        (io::ErrorKind::TimedOut, _) => "tls-timeout",
        // The client does not believe the certificate, or left for another reason of its own.
        (_, Some(rustls::Error::AlertReceived(_))) => "tls-refused-by-client",
        (_, Some(rustls::Error::InvalidMessage(_))) => "tls-malformed",
        (_, Some(rustls::Error::NoCertificatesPresented)) => "tls-no-client-certificate",
        (_, Some(rustls::Error::InvalidCertificate(error))) => of_certificate(error),
        // What the library says when `strict-sni` leaves it without a certificate.
        (_, Some(rustls::Error::General(message))) if message.contains("no server certificate") => "tls-unknown-name",
        (_, Some(_)) => "tls-incompatible",
        (_, None) => "tls-aborted",
    }
}

/// Why a client's certificate is not believed.
fn of_certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "tls-client-certificate-expired",
        CertificateError::Revoked => "tls-client-certificate-revoked",
        CertificateError::UnknownIssuer => "tls-client-certificate-unknown-issuer",
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => "tls-client-certificate-status-unknown",
        _ => "tls-client-certificate-invalid",
    }
}

/// Performs the handshake, within a bounded time.
pub async fn accept(config: Arc<ServerConfig>, stream: TcpStream, limit: Duration) -> io::Result<TlsStream<Socket>> {
    match tokio::time::timeout(limit, handshake(config, Socket::accepted(stream))).await {
        Ok(result) => result.inspect(|stream| stream.get_ref().0.open()),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the TLS handshake took too long",
        )),
    }
}

/// Signing takes as long as several requests do, and thousands of hellos may come at once: only a few are answered before
/// everything else on this worker has had its turn. Waiting for a hello, or for what follows it, takes nobody's place.
async fn handshake(config: Arc<ServerConfig>, stream: Socket) -> io::Result<TlsStream<Socket>> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let turn = TURNS.with(Arc::clone).acquire_owned().await;
    let mut rest = pin!(hello.into_stream(config));
    let answered = poll_fn(|cx| Poll::Ready(rest.as_mut().poll(cx))).await;
    if let Poll::Ready(result) = answered {
        return result;
    }
    tokio::task::yield_now().await;
    drop(turn);
    rest.await
}

thread_local! {
    static TURNS: Arc<Semaphore> = Arc::new(Semaphore::new(HELLOS_A_TURN));
}

/// ClientHellos that a worker answers before it looks after everything else that is ready: with RSA keys, some two milliseconds
/// at most for a request that came together with a flood of them.
const HELLOS_A_TURN: usize = 4;

/// What the handshake settled.
pub fn facts(stream: &TlsStream<Socket>) -> TlsFacts {
    let session = stream.get_ref().1;
    TlsFacts {
        version: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        cipher: session.negotiated_cipher_suite().map_or("", crypto::cipher_name),
        sni: session.server_name().map(str::to_ascii_lowercase),
        alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        client_certificate: session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|leaf| ClientCertificate::new(leaf.as_ref().to_vec())),
    }
}

//! TLS with clients: the handshake on a bind where it ends, and what it settled.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::TryFutureExt as _;
use rustls::server::Acceptor;
use rustls::{CertificateError, HandshakeKind, InvalidMessage, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::crypto;
use crate::policy::{ClientCertificate, TlsFacts};
use crate::socket::Socket;

/// The word for a name that no certificate is for.
const UNKNOWN_NAME: &str = "tls-unknown-name";

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
        (_, Some(rustls::Error::General(message))) if message.contains("no server certificate") => UNKNOWN_NAME,
        (_, Some(_)) => "tls-incompatible",
        (_, None) => "tls-aborted",
    }
}

/// What went wrong, in our words where the library's are for programmers.
pub fn in_words(error: &io::Error) -> Cow<'static, str> {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::General(_)) if reason(error) == UNKNOWN_NAME => {
            "no certificate is for the name that was asked for, or none was asked for".into()
        }
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => "what came is not TLS".into(),
        _ => error.to_string().into(),
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
        Ok(Ok(stream)) => {
            stream.get_ref().0.open();
            Ok(stream)
        }
        Ok(Err((error, stream))) => {
            if let Some(stream) = stream.filter(|_| error.get_ref().is_some()) {
                // Boxed: hardly any connection comes to this.
                Box::pin(let_alert_arrive(stream)).await;
            }
            Err(error)
        }
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the TLS handshake took too long",
        )),
    }
}

/// Signing takes as long as several requests do, and thousands of hellos may come at once: only a few are answered before
/// everything else on this worker has had its turn. Waiting for a hello, or for what follows it, takes nobody's place.
async fn handshake(config: Arc<ServerConfig>, stream: Socket) -> Result<TlsStream<Socket>, Failed> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await;
    let hello = hello.map_err(|error| (error, None))?;
    let turn = TURNS.with(Arc::clone).acquire_owned().await;
    let rest = hello.into_stream(config).into_fallible();
    let mut rest = pin!(rest.map_err(|(error, stream)| (error, Some(stream))));
    let answered = poll_fn(|cx| Poll::Ready(rest.as_mut().poll(cx))).await;
    if let Poll::Ready(result) = answered {
        return result;
    }
    tokio::task::yield_now().await;
    drop(turn);
    rest.await
}

/// Why there is no TLS, and what is left of the connection.
type Failed = (io::Error, Option<Socket>);

/// Closes in such a way that the client can read why. In TLS 1.3 it takes the handshake for done before it is, and has asked already;
/// closing on what it asked would have the system send a reset, which may take the alert away from it.
async fn let_alert_arrive(mut stream: Socket) {
    let discard = async {
        let _ = stream.shutdown().await;
        let mut thrown = [0; 1024];
        for _ in 0..DISCARD_READS {
            if matches!(stream.read(&mut thrown).await, Ok(0) | Err(_)) {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(ALERT_LINGER, discard).await;
}

/// A client that means well reads the alert and closes in the time of a round trip.
const ALERT_LINGER: Duration = Duration::from_secs(1);

/// More than a request that was sent ahead; who sends more than this does not read.
const DISCARD_READS: usize = 64;

thread_local! {
    static TURNS: Arc<Semaphore> = Arc::new(Semaphore::new(HELLOS_A_TURN));
}

/// ClientHellos that a worker answers before it looks after everything else that is ready: with RSA keys, some two milliseconds
/// at most for a request that came together with a flood of them.
const HELLOS_A_TURN: usize = 4;

/// Whether the client has come back with a session from before.
pub fn is_resumed(stream: &TlsStream<Socket>) -> bool {
    stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
}

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::net::TcpListener;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    /// Counts the hellos that are answered.
    #[derive(Debug)]
    struct Counting {
        key: Arc<CertifiedKey>,
        answered: Arc<AtomicUsize>,
    }

    impl ResolvesServerCert for Counting {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            self.answered.fetch_add(1, Ordering::Relaxed);
            Some(Arc::clone(&self.key))
        }
    }

    fn server(answered: &Arc<AtomicUsize>) -> Arc<ServerConfig> {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let key = crypto::provider().key_provider.load_private_key(key).unwrap();
        let resolver = Counting {
            key: Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], key)),
            answered: Arc::clone(answered),
        };
        let builder = ServerConfig::builder_with_provider(crypto::provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::new(resolver)))
    }

    fn hello() -> Vec<u8> {
        let builder = ClientConfig::builder_with_provider(crypto::provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let config = builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), "a.example".try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_burst_of_hellos_leaves_everybody_else_their_turns() {
        const BURST: usize = 10 * HELLOS_A_TURN;
        let answered = Arc::<AtomicUsize>::default();
        let config = server(&answered);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // All of them have come before any is looked at.
        let mut clients = Vec::new();
        let mut accepted = Vec::new();
        for _ in 0..BURST {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            client.write_all(&hello()).await.unwrap();
            clients.push(client);
            let (stream, _) = listener.accept().await.unwrap();
            stream.readable().await.unwrap();
            accepted.push(stream);
        }
        let worker = LocalSet::new();
        let most = worker
            .run_until(async {
                for stream in accepted {
                    spawn_local(handshake(Arc::clone(&config), Socket::accepted(stream)));
                }
                // Somebody who is always ready, and sees how many were answered since its last turn.
                let bystander = spawn_local(async move {
                    let (mut seen, mut most) = (0, 0);
                    while seen < BURST {
                        yield_now().await;
                        let now = answered.load(Ordering::Relaxed);
                        most = most.max(now - seen);
                        seen = now;
                    }
                    most
                });
                bystander.await.unwrap()
            })
            .await;
        assert!((1..=HELLOS_A_TURN).contains(&most), "{most} in one turn");
    }
}

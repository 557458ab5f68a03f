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
use rustls::{AlertDescription, CertificateError, HandshakeKind, InvalidMessage, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::beginning::Beginning;
use crate::crypto;
use crate::policy::{ClientCertificate, TlsFacts};
use crate::socket::Socket;

/// The word for a name that no certificate is for.
const UNKNOWN_NAME: &str = "tls-unknown-name";

/// Where `strict-sni` leaves a client without a certificate.
#[derive(Debug, thiserror::Error)]
#[error("no certificate is for the name that was asked for, or none was asked for")]
struct UnknownName;

/// What a handshake goes by.
#[derive(Debug)]
pub struct Terms {
    /// What is agreed on, and with which certificates.
    pub config: Arc<ServerConfig>,
    /// Whether there may be no certificate for a client (`strict-sni`).
    pub is_strict: bool,
    /// Whether a client that speaks HTTP instead gets no alert, but is [handed back](NoTls::PlainHttp).
    pub answers_http: bool,
}

/// Why there is no TLS.
#[derive(Debug)]
pub enum NoTls {
    /// The handshake has failed, and the connection has ended.
    Failed(io::Error),
    /// The client speaks HTTP. Some of it has been read, and nothing has been said to it.
    PlainHttp(TcpStream),
}

/// How a handshake failed, as a word for metrics.
pub fn reason(error: &io::Error) -> &'static str {
    if error.get_ref().is_some_and(|inner| inner.is::<UnknownName>()) {
        return UNKNOWN_NAME;
    }
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (error.kind(), tls) {
        (io::ErrorKind::TimedOut, _) => "tls-timeout",
        // The client does not believe the certificate, or left for another reason of its own.
        (_, Some(rustls::Error::AlertReceived(_))) => "tls-refused-by-client",
        (_, Some(rustls::Error::InvalidMessage(_))) => "tls-malformed",
        (_, Some(rustls::Error::NoCertificatesPresented)) => "tls-no-client-certificate",
        (_, Some(rustls::Error::InvalidCertificate(error))) => of_certificate(error),
        (_, Some(_)) => "tls-incompatible",
        (_, None) => "tls-aborted",
    }
}

/// What went wrong, in our words where the library's are for programmers.
pub fn in_words(error: &io::Error) -> Cow<'static, str> {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
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
pub async fn accept(terms: Terms, stream: TcpStream, limit: Duration) -> Result<TlsStream<Socket>, NoTls> {
    match tokio::time::timeout(limit, handshake(terms, Socket::accepted(stream))).await {
        Ok(Ok(stream)) => {
            stream.get_ref().0.open();
            Ok(stream)
        }
        Ok(Err(Failed::Http(stream))) => Err(NoTls::PlainHttp(stream.into_tcp())),
        Ok(Err(Failed::Handshake(error, stream))) => {
            if let Some(stream) = stream.filter(|_| error.get_ref().is_some()) {
                // Boxed: hardly any connection comes to this.
                Box::pin(let_alert_arrive(stream)).await;
            }
            Err(NoTls::Failed(error))
        }
        Err(_) => Err(NoTls::Failed(io::Error::new(
            io::ErrorKind::TimedOut,
            "the TLS handshake took too long",
        ))),
    }
}

/// Signing takes as long as several requests do, and thousands of hellos may come at once: only a few are answered before
/// everything else on this worker has had its turn. Waiting for a hello, or for what follows it, takes nobody's place.
async fn handshake(terms: Terms, stream: Socket) -> Result<TlsStream<Socket>, Failed> {
    let beginning = Beginning::new(stream, terms.answers_http);
    let mut hello = LazyConfigAcceptor::new(Acceptor::default(), beginning);
    let hello = match (&mut hello).await {
        Ok(StartHandshake { accepted, io, .. }) => StartHandshake::from_parts(accepted, io.into_socket()),
        Err(error) => {
            return Err(match hello.take_io() {
                Some(beginning) if beginning.is_http() => Failed::Http(beginning.into_socket()),
                _ => Failed::Handshake(error, None),
            });
        }
    };
    if terms.is_strict && terms.config.cert_resolver.resolve(hello.client_hello()).is_none() {
        return Err(Box::pin(refuse_name(hello)).await);
    }
    let turn = TURNS.with(Arc::clone).acquire_owned().await;
    let rest = hello.into_stream(terms.config).into_fallible();
    let mut rest = pin!(rest.map_err(|(error, stream)| Failed::Handshake(error, Some(stream))));
    let answered = poll_fn(|cx| Poll::Ready(rest.as_mut().poll(cx))).await;
    if let Poll::Ready(result) = answered {
        return result;
    }
    tokio::task::yield_now().await;
    drop(turn);
    rest.await
}

/// Why there is no TLS, and what is left of the connection.
enum Failed {
    Handshake(io::Error, Option<Socket>),
    Http(Socket),
}

/// Says to a client that there is no certificate for it, as its name is not known (RFC 6066, section 3) or it has said none (RFC 8446,
/// section 9.2). The library would say that access is denied. Nothing has been said to it yet, so that the alert is a record as it is.
async fn refuse_name(hello: StartHandshake<Socket>) -> Failed {
    let alert = match hello.client_hello().server_name() {
        Some(_) => AlertDescription::UnrecognisedName,
        None => AlertDescription::MissingExtension,
    };
    let record = [ALERT, 3, 3, 0, 2, FATAL, alert.into()];
    let mut stream = hello.io;
    match stream.write_all(&record).await {
        Ok(()) => {
            let error = io::Error::new(io::ErrorKind::InvalidData, UnknownName);
            Failed::Handshake(error, Some(stream))
        }
        Err(error) => Failed::Handshake(error, None),
    }
}

/// The content type of alerts (RFC 8446, section 5.1), which have a level and a description.
const ALERT: u8 = 21;
const FATAL: u8 = 2;

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
                    let terms = Terms {
                        config: Arc::clone(&config),
                        is_strict: false,
                        answers_http: true,
                    };
                    spawn_local(handshake(terms, Socket::accepted(stream)));
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

//! Whole TLS handshakes, one a request. wrk and h2load keep sessions or connections, so this client is the bench's own: it
//! has no session store, asks for no ticket and looks at no certificate, so that all it costs is the other side's work.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::load::{Outcome, percentiles};
use crate::wires::{Cpus, pin};

/// What signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// ECDSA over P-256: what authorities issue unless told otherwise.
    P256,
    /// RSA with 2,048 bits.
    Rsa2048,
}

impl Key {
    /// Writes `bundle.pem` there: a key and a certificate that it has signed itself.
    pub(crate) fn write(self, directory: &Path) {
        let (key, certificate) = (directory.join("key.pem"), directory.join("cert.pem"));
        let kind: &[&str] = match self {
            Self::P256 => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::Rsa2048 => &["-newkey", "rsa:2048"],
        };
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-nodes",
                "-days",
                "30",
                "-subj",
                "/CN=bench.example.net",
            ])
            .args(["-addext", "subjectAltName=DNS:bench.example.net"])
            .args(kind)
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .unwrap_or_else(|e| panic!("openssl: {e}; apt-get install openssl"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let bundle = [std::fs::read(certificate).unwrap(), std::fs::read(key).unwrap()].concat();
        std::fs::write(directory.join("bundle.pem"), bundle).unwrap();
    }
}

/// Connects, shakes hands, asks once, reads the answer to the connection's end, so many at a time for so long.
pub(crate) fn shake(proxy: SocketAddr, connections: usize, time: Duration, cpus: &Cpus) -> Outcome {
    let cpus = cpus.clone();
    let run = move || {
        pin(cpus);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let connector = TlsConnector::from(Arc::new(client()));
        let begun = Instant::now();
        let clients = (0..connections).map(|_| one_by_one(connector.clone(), proxy, begun + time));
        let clients: Vec<_> = clients.map(|client| runtime.spawn(client)).collect();
        let mut outcome = Outcome::default();
        let mut took = Vec::new();
        for client in clients {
            let (times, errors) = runtime.block_on(client).unwrap();
            took.extend(times);
            outcome.errors += errors;
        }
        outcome.requests = took.len() as u64;
        outcome.seconds = begun.elapsed().as_secs_f64();
        (outcome.p50, outcome.p99) = percentiles(took);
        outcome
    };
    thread::spawn(run).join().unwrap()
}

/// How long each took in microseconds, and how many failed.
async fn one_by_one(connector: TlsConnector, proxy: SocketAddr, until: Instant) -> (Vec<f64>, u64) {
    let (mut took, mut errors) = (Vec::new(), 0);
    let mut answer = Vec::new();
    loop {
        let begun = Instant::now();
        if begun >= until {
            return (took, errors);
        }
        answer.clear();
        match once(&connector, proxy, &mut answer).await {
            Ok(()) if answer.starts_with(b"HTTP/1.1 200") => took.push(begun.elapsed().as_secs_f64() * 1e6),
            Ok(()) | Err(_) => errors += 1,
        }
    }
}

async fn once(connector: &TlsConnector, proxy: SocketAddr, answer: &mut Vec<u8>) -> std::io::Result<()> {
    let name = ServerName::try_from("bench.example.net").map_err(std::io::Error::other)?;
    let stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    let mut stream = connector.connect(name, stream).await?;
    stream
        .write_all(b"GET /items?page=2 HTTP/1.1\r\nHost: bench.example.net\r\nConnection: close\r\n\r\n")
        .await?;
    match stream.read_to_end(answer).await {
        // Not everybody says goodbye in TLS.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
        read => read.map(|_| ()),
    }
}

fn client() -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Believes everything.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PKCS1_SHA256,
        ]
    }
}

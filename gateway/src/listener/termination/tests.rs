//! Who comes back after a while, which here passes at once.

use std::cell::Cell;
use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(60);

thread_local! {
    /// How far the clock of this test is ahead, in seconds.
    static AHEAD: Cell<i64> = const { Cell::new(0) };
}

fn ahead() -> i64 {
    now() + AHEAD.get()
}

/// A bind that asks clients for a certificate of its authority.
struct Asking {
    termination: Arc<Termination>,
    authority: Issuer<'static, KeyPair>,
    roots: RootCertStore,
    _folder: TempDir,
}

impl Asking {
    /// With these nodes in the block of `tls`.
    fn new(says: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let authority = Issuer::new(params, key);

        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", certificate.pem());
        let (shop, key) = issue(&authority, "shop.example", 24 * HOUR);
        write("shop.pem", shop.pem() + &key.serialize_pem());
        write("tickets.keys", STANDARD.encode([7; 48]));
        std::fs::set_permissions(folder.path().join("tickets.keys"), Permissions::from_mode(0o600)).unwrap();
        let text = format!(
            "frontend \"web\" {{\n\
                 bind \"127.0.0.1:8443\" {{ tls cert=\"shop.pem\" {{ client-ca \"ca.pem\"; {says} }} }}\n\
                 default-backend \"app\"\n\
             }}\n\
             backend \"app\" {{ server \"app-1\" \"127.0.0.1:8080\" }}\n"
        );
        let config = config::parse("test.kdl", &text, folder.path()).unwrap();
        let frontend = &config.frontends[0];
        let bind = &frontend.binds[0];
        let tls = bind.tls.as_ref().unwrap();
        let made = Termination::new(tls, Vec::new(), (&frontend.name, bind), &Registry::new(), None);
        let mut termination = made.unwrap();
        Arc::get_mut(&mut termination).unwrap().clock = ahead;
        Self {
            termination,
            authority,
            roots,
            _folder: folder,
        }
    }

    /// A client whose certificate is valid for so long.
    fn client(&self, validity: Duration) -> TlsConnector {
        let (certificate, key) = issue(&self.authority, "client.example", validity);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ClientConfig::builder_with_provider(crypto::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config).into()
    }

    /// A connection of this client: whether it has come back, or why it is refused.
    async fn comes(&self, client: &TlsConnector) -> Result<bool, &'static str> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let serve = async {
            let (tcp, _) = listener.accept().await.unwrap();
            match self.termination.accept(tcp, LIMIT, true).await {
                Ok(mut stream) => {
                    stream.write_all(b"x").await.unwrap();
                    stream.flush().await.unwrap();
                    Ok(tls::is_resumed(&stream))
                }
                Err(NoTls::Failed(error)) => Err(tls::reason(&error)),
                Err(NoTls::PlainHttp(_)) => Err("plain-http"),
            }
        };
        let ask = async {
            let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let name = ServerName::try_from("shop.example").unwrap();
            if let Ok(mut stream) = client.connect(name, tcp).await {
                // With tickets before it, or the end.
                let _ = stream.read(&mut [0; 1]).await;
            }
        };
        tokio::join!(serve, ask).0
    }
}

fn issue(authority: &Issuer<'static, KeyPair>, name: &str, validity: Duration) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_after = (SystemTime::now() + validity).into();
    (params.signed_by(&key, authority).unwrap(), key)
}

#[tokio::test]
async fn nobody_comes_back_with_a_certificate_that_has_expired_meanwhile() {
    for tickets in ["", r#"tickets "off""#, r#"tickets keys="tickets.keys""#] {
        AHEAD.set(0);
        let it = Asking::new(tickets);
        let (brief, lasting) = (it.client(HOUR), it.client(24 * HOUR));
        assert_eq!(it.comes(&brief).await, Ok(false), "{tickets}");
        assert_eq!(it.comes(&brief).await, Ok(true), "{tickets}");
        assert_eq!(it.comes(&lasting).await, Ok(false), "{tickets}");

        AHEAD.set(7200);
        assert_eq!(it.comes(&lasting).await, Ok(true), "{tickets}");
        let refused = Err("tls-client-certificate-expired");
        assert_eq!(it.comes(&brief).await, refused, "{tickets}");
        // All sessions have ended. That of a whole handshake, whose certificates the library looks at by the system's clock, goes the
        // same way.
        assert_eq!(it.comes(&brief).await, Ok(false), "{tickets}");
        assert_eq!(it.comes(&lasting).await, Ok(false), "{tickets}");
        // Tickets under keys of a file are good from the next second on.
        if !tickets.contains("keys") {
            assert_eq!(it.comes(&lasting).await, Ok(true), "{tickets}");
            assert_eq!(it.comes(&brief).await, refused, "{tickets}");
        }
    }
}

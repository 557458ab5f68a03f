//! TLS to servers: what is verified, what is shown, and the handshake. Where the server is, is not known here.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::{info, warn};

use crate::certificates::{self, Stamp, SystemRoots, TlsError, Watched};
use crate::config::{Mode, ServerTls};
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

impl Connector {
    /// What the configuration says of a server of a backend, with its files read. Fails with all that is wrong with them.
    pub fn new(
        tls: &ServerTls,
        (mode, http2): (Mode, bool),
        system: &SystemRoots,
        (backend, server): (&Arc<str>, &Arc<str>),
        process: &Arc<ProcessMetrics>,
    ) -> Result<Self, Vec<TlsError>> {
        let system = system.of(tls).map_err(|error| vec![error])?;
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
        address: Option<IpAddr>,
        name: Option<&ServerName<'static>>,
    ) -> io::Result<TlsStream<Socket>> {
        let name = match name.or(self.name.as_ref()) {
            Some(name) => name.clone(),
            // On a UNIX socket it is this machine, and has to show that where the configuration names nobody.
            None => ServerName::IpAddress(address.unwrap_or(Ipv4Addr::LOCALHOST.into()).into()),
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
        let alpn = match self.mode {
            // The one version that is spoken to this server.
            Mode::Http if self.http2 => vec![HTTP2.to_vec()],
            Mode::Http => vec![b"http/1.1".to_vec()],
            Mode::Tcp => self.tls.alpn.clone(),
        };
        let mut config = certificates::client(&self.tls, self.system.as_ref(), alpn)?;
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(config)
    }

    fn paths(&self) -> Vec<PathBuf> {
        certificates::client_paths(&self.tls)
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        certificates::stamps(self.paths().iter().map(|path| -> &Path { path }))
    }
}

/// What went wrong with a handshake, in words that stay as they are: the library says by the second how long a certificate has been out of
/// date, and each check of its server would have something new to tell.
pub(super) fn handshake_fault(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let dated = match inner {
        Some(rustls::Error::InvalidCertificate(fault)) => match fault {
            CertificateError::ExpiredContext { not_after, .. } => Some(("its certificate expired on", not_after)),
            CertificateError::NotValidYetContext { not_before, .. } => {
                Some(("its certificate is not valid before", not_before))
            }
            CertificateError::ExpiredRevocationListContext { next_update, .. } => {
                Some(("the revocation list has been out of date since", next_update))
            }
            _ => None,
        },
        _ => None,
    };
    match dated {
        Some((what, time)) if time.as_secs() < YEAR_10000 => {
            let date = UNIX_EPOCH + Duration::from_secs(time.as_secs());
            format!("{what} {}", httpdate::fmt_http_date(date))
        }
        _ => error.to_string(),
    }
}

/// In seconds since 1970: dates from then on cannot be written.
const YEAR_10000: u64 = 253_402_300_800;

/// HTTP/2, as TLS knows it (RFC 9113, section 3.1).
const HTTP2: &[u8] = b"h2";

/// Sessions that are kept for resumption, of one server under one name; the library keeps eight tickets of each. Some more
/// than one, as the table counts by rounding.
const SESSIONS: usize = 32;

#[cfg(test)]
mod tests {
    use rustls_pki_types::UnixTime;

    use super::*;

    #[test]
    fn a_certificate_that_is_out_of_date_is_told_of_in_the_same_words_at_any_time() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let told = |fault| handshake_fault(&io::Error::other(rustls::Error::InvalidCertificate(fault)));
        for time in [1_800_000_000, 1_800_000_001] {
            let (time, then) = (at(time), at(1_793_491_200));
            assert_eq!(
                told(CertificateError::ExpiredContext { time, not_after: then }),
                "its certificate expired on Sun, 01 Nov 2026 00:00:00 GMT"
            );
            assert_eq!(
                told(CertificateError::NotValidYetContext { time, not_before: then }),
                "its certificate is not valid before Sun, 01 Nov 2026 00:00:00 GMT"
            );
        }
        let far = CertificateError::NotValidYetContext {
            time: at(0),
            not_before: at(u64::MAX),
        };
        assert!(
            told(far).contains("not valid"),
            "no date that cannot be written is written"
        );
        assert_eq!(
            told(CertificateError::UnknownIssuer),
            "invalid peer certificate: UnknownIssuer"
        );
        assert_eq!(handshake_fault(&io::Error::other("x")), "x");
    }
}

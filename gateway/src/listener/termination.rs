//! How TLS ends on a bind: which certificates are shown, which clients are believed, how they come back. Made of files, and made
//! again when they change: each handshake begins with what there is then, and no connection is lost.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerConnection, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls::{HandshakeKind, ServerConfig};
use rustls_pki_types::UnixTime;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};
use x509_parser::parse_x509_certificate;

use super::clients::Clients;
use super::tickets::KeyFile;
use super::tls::{self, NoTls, Terms};
use crate::certificates::{Certificate, Index, Store, TlsError, Watched};
use crate::config::{self, BindTls, Resumption};
use crate::crypto;
use crate::socket::Socket;
use crate::telemetry::metrics::{CertificateMetrics, ProcessMetrics, Registry};

/// TLS on one bind.
pub struct Termination {
    current: ArcSwap<Current>,
    tls: BindTls,
    alpn: Vec<Vec<u8>>,
    frontend: Arc<str>,
    bind: String,
    registry: Arc<Registry>,
    provider: Arc<CryptoProvider>,
    /// What time it is, in Unix time, where clients come back.
    clock: fn() -> i64,
    state: Mutex<State>,
}

/// What handshakes go by.
struct Current {
    config: Arc<ServerConfig>,
    /// Whom it believes, where clients are asked.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// When who has come back before may not be believed any more, in Unix time: a revocation list of his is out of date then.
    lists_until: Option<i64>,
}

/// What changes with the files.
struct State {
    store: Store,
    clients: Clients,
    sessions: Sessions,
    /// Where keys of tickets come from, unless they are the gateway's own.
    ticket_keys: Option<KeyFile>,
    /// Certificates that have been read and that no handshake goes by yet; none when each goes by all there is.
    unserved: Option<Vec<Arc<Certificate>>>,
    _gauges: Vec<Arc<CertificateMetrics>>,
}

/// Where sessions are kept that may be resumed. Resuming asks nobody for a certificate again: so whoever may come back here has
/// been here before, under the same rules for client certificates, and a change of those begins anew.
#[derive(Clone)]
struct Sessions {
    storage: Arc<dyn StoresServerSessions>,
    tickets: Option<Arc<dyn ProducesTickets>>,
    /// What they are good for.
    rules: [u8; 32],
    resumption: Resumption,
}

impl Termination {
    /// Reads a bind's files. `alpn` is what is agreed on, in order of preference. `previous` is what the same bind had under the
    /// configuration before. Fails with all that is wrong with the files.
    pub fn new(
        tls: &BindTls,
        alpn: Vec<Vec<u8>>,
        (frontend, bind): (&Arc<str>, &config::Bind),
        registry: &Arc<Registry>,
        previous: Option<&Self>,
    ) -> Result<Arc<Self>, Vec<TlsError>> {
        let provider = crypto::provider_with(&tls.parameters.ciphers, &tls.parameters.curves);
        let store = Store::load(&tls.certificates, now());
        let clients = Clients::load(tls.clients.as_ref(), &provider);
        let ticket_keys = tls.ticket_keys.as_ref().map(KeyFile::load).transpose();
        let (store, clients, ticket_keys) = match (store, clients, ticket_keys) {
            (Ok(store), Ok(clients), Ok(ticket_keys)) => (store, clients, ticket_keys),
            (store, clients, ticket_keys) => {
                let mut errors = store.err().unwrap_or_default();
                errors.extend(clients.err().unwrap_or_default());
                errors.extend(ticket_keys.err());
                return Err(errors);
            }
        };
        let before = previous.map(|previous| previous.lock().sessions.clone());
        let goes_on = |sessions: &Sessions| sessions.rules == clients.digest && sessions.resumption == tls.resumption;
        let mut sessions = match before.filter(goes_on) {
            Some(sessions) => sessions,
            None => Sessions::new(tls.resumption, clients.digest).map_err(|error| vec![TlsError::Library(error)])?,
        };
        sessions.take_keys(ticket_keys.as_ref());
        let config = server_config(tls, &alpn, &provider, &store, &clients, &sessions)?;
        let bind = bind.address.to_string();
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(Current::new(config, &clients)),
            state: Mutex::new(State {
                _gauges: gauges(registry, frontend, &bind, store.certificates()),
                store,
                clients,
                sessions,
                ticket_keys,
                unserved: None,
            }),
            tls: tls.clone(),
            alpn,
            frontend: Arc::clone(frontend),
            bind,
            registry: Arc::clone(registry),
            provider,
            clock: now,
        }))
    }

    /// Performs the handshake with a client, within a bounded time. With `answers_http` one that speaks HTTP instead is handed back.
    pub async fn accept(
        &self,
        stream: TcpStream,
        limit: Duration,
        answers_http: bool,
    ) -> Result<TlsStream<Socket>, NoTls> {
        let terms = Terms {
            config: Arc::clone(&self.current.load().config),
            is_strict: self.tls.strict_sni,
            answers_http,
        };
        let stream = tls::accept(terms, stream, limit).await?;
        self.takes_back(stream.get_ref().1).map_err(NoTls::Failed)?;
        Ok(stream)
    }

    /// Whether a client that has come back by a session from before may. Nobody has looked at its certificate again, which may have
    /// expired meanwhile, as may the lists that say whether it was revoked; and each ticket is answered with a new one, so that
    /// it might come back for ever. Who may not is refused as in a handshake, and all sessions end: the next handshake begins
    /// anew, for which the client may have another certificate by now.
    fn takes_back(&self, session: &ServerConnection) -> io::Result<()> {
        if session.handshake_kind() != Some(HandshakeKind::Resumed) {
            return Ok(());
        }
        let current = self.current.load();
        let (Some(clients), Some([leaf, between @ ..])) = (&current.clients, session.peer_certificates()) else {
            return Ok(());
        };
        let now = (self.clock)();
        // Verifying takes as long as much of a handshake: only when something can be amiss.
        let may_be = current.lists_until.is_some_and(|until| until <= now)
            || std::iter::once(leaf)
                .chain(between)
                .any(|certificate| has_expired(certificate, now));
        if !may_be {
            return Ok(());
        }
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
        match clients.verify_client_cert(leaf, between, time) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.forget();
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }

    /// Nobody comes back by a session from before. Where files are being read just now it is left to the next who is refused.
    fn forget(&self) {
        let Ok(mut state) = self.state.try_lock() else { return };
        let state = &mut *state;
        if let Some(keys) = &mut state.ticket_keys {
            keys.forget();
        }
        let mut sessions = match Sessions::new(self.tls.resumption, state.clients.digest) {
            Ok(sessions) => sessions,
            Err(error) => return self.failed(&TlsError::Library(error)),
        };
        sessions.take_keys(state.ticket_keys.as_ref());
        // All else as it is: making an index of thousands of certificates would hold up a worker.
        let mut config = ServerConfig::clone(&self.current.load().config);
        sessions.put_into(&mut config);
        state.sessions = sessions;
        self.current.store(Arc::new(Current::new(config, &state.clients)));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process(&self) -> &ProcessMetrics {
        self.registry.process()
    }

    /// Notes a file that cannot be used; what was read of it before stays.
    fn failed(&self, error: &TlsError) {
        self.process().certificate_reloaded(false);
        let (frontend, bind) = (&*self.frontend, &*self.bind);
        warn!(frontend, bind, %error, "a changed file cannot be used; what was there before stays");
    }

    /// Handshakes go by what has been read from now on.
    fn served(&self, state: &mut State, clients: Option<Clients>, sessions: Sessions) {
        let (frontend, bind) = (&*self.frontend, &*self.bind);
        state.sessions = sessions;
        if let Some(clients) = clients {
            state.clients = clients;
            self.process().certificate_reloaded(true);
            info!(
                frontend,
                bind, "authorities or revocation lists of clients have changed"
            );
        }
        for certificate in state.unserved.take().into_iter().flatten() {
            self.process().certificate_reloaded(true);
            let file = certificate.path.display();
            info!(frontend, bind, %file, name = certificate.name(), "the certificate has changed");
        }
        state._gauges = gauges(&self.registry, &self.frontend, &self.bind, state.store.certificates());
    }

    /// Tells of certificates that are about to expire, and of what is out of date.
    fn tell_ages(&self, state: &State, now: i64) {
        let (frontend, bind) = (&*self.frontend, &*self.bind);
        for certificate in state.store.certificates() {
            let file = certificate.path.display();
            match certificate.ages(now) {
                None => {}
                Some(0) => warn!(frontend, bind, %file, name = certificate.name(), "the certificate has expired"),
                Some(days) => {
                    warn!(frontend, bind, %file, name = certificate.name(), days, "the certificate expires soon");
                }
            }
        }
        state.clients.tell_age(frontend, bind, now);
    }
}

impl fmt::Debug for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Termination");
        shown.field("frontend", &self.frontend).field("bind", &self.bind);
        shown.finish_non_exhaustive()
    }
}

impl Watched for Termination {
    fn paths(&self) -> Vec<PathBuf> {
        let mut paths = Store::paths(&self.tls.certificates);
        paths.extend(Clients::paths(self.tls.clients.as_ref()));
        paths.extend(self.tls.ticket_keys.as_ref().map(|keys| keys.file.value.clone()));
        paths
    }

    /// What has changed is served all together or not at all: certificates, and who is believed and may come back. What cannot
    /// be served is tried again.
    fn refresh(&self) {
        let now = now();
        let mut state = self.lock();
        let state = &mut *state;
        let refreshed = state.store.refresh(&self.tls.certificates, now);
        refreshed.failures.iter().for_each(|error| self.failed(error));
        if refreshed.changed {
            state.unserved.get_or_insert_default().extend(refreshed.loaded);
        }
        match state.ticket_keys.as_mut().and_then(KeyFile::refresh) {
            None => {}
            Some(Err(error)) => self.failed(&error),
            Some(Ok(())) => {
                info!(
                    frontend = &*self.frontend,
                    bind = &*self.bind,
                    "keys of tickets have changed"
                );
                self.process().certificate_reloaded(true);
                state.unserved.get_or_insert_default();
            }
        }
        let rules = match state.clients.refresh(self.tls.clients.as_ref(), &self.provider) {
            None => None,
            Some(Err(errors)) => {
                errors.iter().for_each(|error| self.failed(error));
                None
            }
            Some(Ok(clients)) => match Sessions::new(self.tls.resumption, clients.digest) {
                Ok(sessions) => Some((clients, sessions)),
                Err(error) => {
                    self.failed(&TlsError::Library(error));
                    None
                }
            },
        };
        if state.unserved.is_some() || rules.is_some() {
            let (clients, mut sessions) = match rules {
                Some((clients, sessions)) => (Some(clients), sessions),
                None => (None, state.sessions.clone()),
            };
            sessions.take_keys(state.ticket_keys.as_ref());
            let believed = clients.as_ref().unwrap_or(&state.clients);
            match server_config(&self.tls, &self.alpn, &self.provider, &state.store, believed, &sessions) {
                Ok(config) => {
                    self.current.store(Arc::new(Current::new(config, believed)));
                    self.served(state, clients, sessions);
                }
                Err(errors) => errors.iter().for_each(|error| self.failed(error)),
            }
        }
        let (frontend, bind) = (&*self.frontend, &*self.bind);
        let stale = state.store.certificates().iter();
        for file in stale.filter_map(|certificate| certificate.stale_response()) {
            let file = file.display();
            warn!(frontend, bind, %file, "the OCSP response is out of date and not shown any more");
        }
        let unusable = state.store.certificates().iter();
        for error in unusable.filter_map(|certificate| certificate.unusable_response()) {
            warn!(frontend, bind, %error, "its certificate is shown without an OCSP response");
        }
        self.tell_ages(state, now);
    }
}

impl Sessions {
    fn new(resumption: Resumption, rules: [u8; 32]) -> Result<Self, rustls::Error> {
        Ok(Self {
            storage: match resumption.cache {
                0 => Arc::new(NoServerSessionStorage {}),
                sessions => ServerSessionMemoryCache::new(sessions),
            },
            tickets: resumption.tickets.map(crypto::tickets).transpose()?,
            rules,
            resumption,
        })
    }

    /// Keys of a file, where there is one, instead of the gateway's own.
    fn take_keys(&mut self, file: Option<&KeyFile>) {
        if let Some(file) = file {
            self.tickets = Some(file.tickets(self.rules));
        }
    }

    fn put_into(&self, config: &mut ServerConfig) {
        config.session_storage = Arc::clone(&self.storage);
        match &self.tickets {
            Some(tickets) => config.ticketer = Arc::clone(tickets),
            // Nothing to come back with.
            None if self.resumption.cache == 0 => config.send_tls13_tickets = 0,
            None => {}
        }
    }
}

impl Current {
    fn new(config: ServerConfig, clients: &Clients) -> Self {
        Self {
            config: Arc::new(config),
            clients: clients.verifier.clone(),
            lists_until: clients.lists_until(),
        }
    }
}

fn has_expired(certificate: &[u8], now: i64) -> bool {
    let parsed = parse_x509_certificate(certificate);
    parsed.is_ok_and(|(_, parsed)| parsed.validity().not_after.timestamp() < now)
}

fn server_config(
    tls: &BindTls,
    alpn: &[Vec<u8>],
    provider: &Arc<CryptoProvider>,
    store: &Store,
    clients: &Clients,
    sessions: &Sessions,
) -> Result<ServerConfig, Vec<TlsError>> {
    let versions = crypto::TlsVersion::range(tls.parameters.min, tls.parameters.max);
    let suites = provider.cipher_suites.iter().copied();
    let suites = suites.filter(|suite| {
        versions
            .iter()
            .any(|version| version.version == suite.version().version)
    });
    let index = Index::new(store.certificates(), tls.strict_sni, suites.collect());
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|error| vec![TlsError::Library(error)])?;
    let mut config = match &clients.verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    }
    .with_cert_resolver(Arc::new(index));
    config.alpn_protocols = alpn.to_vec();
    // An order that somebody has written is meant, as in HAProxy. Without one the client's counts, which knows what it is fast at.
    config.ignore_client_order = !tls.parameters.prefers_client;
    sessions.put_into(&mut config);
    Ok(config)
}

/// The metrics of the first certificates of a bind: more would be too many series.
fn gauges(
    registry: &Arc<Registry>,
    frontend: &str,
    bind: &str,
    certificates: &[Arc<Certificate>],
) -> Vec<Arc<CertificateMetrics>> {
    let mut gauges: Vec<Arc<CertificateMetrics>> = Vec::new();
    for certificate in certificates.iter().take(MOST_GAUGES) {
        let gauge = registry.certificate(frontend, bind, certificate.name(), certificate.kind.word());
        // Two certificates of one name and kind: the sooner end counts.
        let again = gauges.iter().any(|known| Arc::ptr_eq(known, &gauge));
        gauge.expires(certificate.not_after, again);
        gauges.push(gauge);
    }
    gauges
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Certificates of a bind whose expiry is in the metrics.
const MOST_GAUGES: usize = 200;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

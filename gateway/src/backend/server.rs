//! A server as all workers see it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use twox_hash::XxHash3_64;

use super::connect::ConnectError;
use super::ends::{Ended, Ends};
use super::observe::Observer;
use super::outlier::Outlier;
use super::queue::{Queue, Session};
use super::resolve::{Found, Whereabouts};
use super::source::Outgoing;
use super::tls::Connector;
use crate::address::Address;
use crate::config;
use crate::proxy_protocol::Format;
use crate::telemetry::metrics::{InFlight, ServerMetrics};

/// A server of a backend, shared by all workers. Its state and what it has under way live in its metrics, so that a
/// reload that keeps the server keeps them.
#[derive(Debug)]
pub struct Server {
    /// Its name, unique in the backend.
    pub name: Arc<str>,
    /// Used only when no other server is up.
    backup: bool,
    max_connections: MaxConnections,
    /// Whether its sessions end with it, and how they hear of it.
    pub(super) session_end: config::SessionEnd,
    /// Whether the sessions of backups end when it comes back.
    pub(super) relieves_backups: bool,
    /// Out of service until an operator says otherwise.
    disabled: bool,
    ends: Option<Arc<Ends>>,
    /// Its counts and state.
    pub metrics: Arc<ServerMetrics>,
    /// Of its name: what tells it apart in a consistent hash.
    pub(super) hash: u64,
    place: Place,
    /// Where connections to it come from.
    pub(super) outgoing: Outgoing,
    /// As configured: what it is now stands in the metrics.
    weight: u16,
    slow_start: Option<Duration>,
    /// Whether requests go to it over HTTP/2.
    pub http2: bool,
    /// How it is told who its client is; none means not at all.
    pub(super) send_proxy: Option<Format>,
    /// How its silent connections are looked after.
    pub(super) keep_alive: Option<config::KeepAlive>,
    /// How it is spoken to in TLS; none means plainly.
    pub(super) tls: Option<Arc<Connector>>,
    /// `observe`: counts connections of traffic that fail.
    observer: Option<Observer>,
    /// `outlier-ejection`: counts its bad answers.
    outlier: Option<Outlier>,
}

/// Who watches a server beside its checks.
#[derive(Debug)]
pub(super) struct Watched {
    /// `observe`.
    pub(super) observe: Option<config::Observe>,
    /// `outlier-ejection`.
    pub(super) outlier: Option<Outlier>,
    /// `agent-check`, which may say what it can bear.
    pub(super) agent: bool,
}

/// Requests or connections that a server may have under way at once.
#[derive(Debug, Clone, Copy)]
enum MaxConnections {
    /// As many as come.
    Unlimited,
    /// So many, none being no limit, until its agent or a later configuration says something else: the number that holds stands
    /// in the metrics, so that those who wait under an earlier configuration go by it, too.
    Limited(Option<NonZeroUsize>),
}

/// How it is known where a server is.
#[derive(Debug, Clone)]
pub enum Place {
    /// It never moves.
    Fixed(Address),
    /// Where its name leads.
    Named(Arc<Whereabouts>),
}

impl Server {
    /// Whether it is used only when no other server is up.
    pub fn is_backup(&self) -> bool {
        self.backup
    }

    /// A server from its configuration.
    pub(super) fn new(
        server: &config::Server,
        place: Place,
        tls: Option<Arc<Connector>>,
        watched: Watched,
        keep_alive: Option<config::KeepAlive>,
        metrics: Arc<ServerMetrics>,
        before: Option<&Self>,
    ) -> Self {
        let ends = (server.session_end != config::SessionEnd::Natural).then(|| {
            // Those that an earlier configuration began hear of it, too.
            let known = before.and_then(|before| before.ends.clone());
            known.unwrap_or_else(|| Arc::new(Ends::new()))
        });
        Self {
            name: Arc::clone(&server.name),
            backup: server.backup,
            max_connections: match server.max_connections {
                None if !watched.agent => MaxConnections::Unlimited,
                configured => MaxConnections::Limited(configured),
            },
            session_end: server.session_end,
            relieves_backups: server.relieves_backups,
            disabled: server.disabled,
            ends,
            metrics,
            weight: server.weight,
            slow_start: server.slow_start,
            hash: XxHash3_64::oneshot(server.name.as_bytes()),
            place,
            outgoing: Outgoing {
                source: server.source,
                interface: server.interface.clone(),
                user_timeout: server.user_timeout,
            },
            http2: server.http2,
            send_proxy: server.send_proxy,
            keep_alive,
            tls,
            observer: watched.observe.map(Observer::new),
            outlier: watched.outlier,
        }
    }

    /// From now on its weight is what this configuration says, and whether it is in service, unless an operator has said
    /// otherwise.
    pub(super) fn adopt(&self) {
        let said = match &self.place {
            Place::Fixed(_) => None,
            Place::Named(place) => place.found().and_then(|found| found.weight),
        };
        self.metrics.configure_disabled(self.disabled);
        self.metrics.configure(said.unwrap_or(self.weight), self.slow_start);
        self.metrics.configure_max(match self.max_connections {
            MaxConnections::Unlimited => None,
            MaxConnections::Limited(configured) => configured,
        });
    }

    /// Where it is now; none while that is not known.
    pub fn address(&self) -> Option<Address> {
        match &self.place {
            Place::Fixed(address) => Some(address.clone()),
            Place::Named(_) => self.moving_address().map(Address::Ip),
        }
    }

    /// Whether it is spoken to in TLS.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether each connection to it belongs to one client: it begins with a PROXY header, or comes from the client's address.
    pub fn is_for_one_client(&self) -> bool {
        self.send_proxy.is_some() || self.outgoing.is_clients()
    }

    /// Whether it is asked for the name that its client asked for, so that each connection belongs to one name.
    pub fn wants_name(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_name())
    }

    /// As [`address`](Self::address), of a server that may move; none of one that does not.
    pub fn moving_address(&self) -> Option<SocketAddr> {
        self.found().map(|found| found.address)
    }

    /// How it is spoken to in TLS; none means plainly.
    pub fn connector(&self) -> Option<Arc<Connector>> {
        self.tls.clone()
    }

    /// What its name has led to.
    pub(super) fn found(&self) -> Option<Found> {
        match &self.place {
            Place::Fixed(_) => None,
            Place::Named(place) => place.found(),
        }
    }

    /// Its name leads there now.
    pub(super) fn move_to(&self, found: Option<Found>) {
        if let Place::Named(place) = &self.place {
            place.set(found);
        }
    }

    /// Where its name leads, for a configuration that goes on with it.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether it is up, as far as its checks know. Up from the start, and always without checks.
    pub fn is_up(&self) -> bool {
        self.metrics.is_up()
    }

    /// Its part of new work, beside the other servers' shares; 0 when it may get none: it is down, drained, in maintenance,
    /// or has no weight.
    pub(super) fn share(&self) -> u32 {
        self.metrics.share()
    }

    /// Which servers it steps in with: those of the lowest number of which one is usable take the work. 0 for those that are
    /// used first, then those of each higher priority in DNS, then backups.
    pub(super) fn tier(&self) -> u32 {
        let rank = match &self.place {
            Place::Fixed(_) => 0,
            Place::Named(place) => place.rank(),
        };
        match self.backup {
            true => BACKUPS + u32::from(rank),
            false => u32::from(rank),
        }
    }

    /// Whether it may get new work.
    pub(super) fn is_usable(&self) -> bool {
        self.share() > 0
    }

    /// A connection of traffic to it was opened.
    pub fn connected(&self) {
        self.metrics.connected();
        if let Some(observer) = &self.observer {
            observer.connected();
        }
    }

    /// A connection of traffic to it could not be opened. What the gateway itself lacks is not held against the server.
    pub fn connect_failed(&self, error: &ConnectError) {
        self.metrics.connect_failed();
        if matches!(error, ConnectError::Lack(_)) {
            return;
        }
        if let Some(observer) = &self.observer {
            observer.connect_failed();
        }
        if let Some(outlier) = &self.outlier {
            self.judge(outlier, None, Duration::ZERO);
        }
    }

    /// It answered a request of traffic with this status, none if what it sent was no answer, this long after it had it.
    pub fn answered(&self, status: Option<u16>, after: Duration) {
        self.metrics.response(status, after);
        self.is_judged_by(status, after);
    }

    /// An answer of traffic is to be taken as one of this status, none if it is none: by `observe` and `outlier-ejection`. For
    /// whoever knows more of it than its status says.
    pub fn is_judged_by(&self, status: Option<u16>, after: Duration) {
        if let Some(observer) = &self.observer {
            observer.answered(status);
        }
        if let Some(outlier) = &self.outlier {
            self.judge(outlier, status, after);
        }
    }

    fn judge(&self, outlier: &Outlier, status: Option<u16>, after: Duration) {
        let Some(reason) = outlier.answered(status, after) else {
            return;
        };
        let (base, longest) = outlier.times();
        if let Some(time) = self.metrics.eject(reason, base, longest, outlier.most) {
            let (backend, server, reason) = (self.metrics.backend_name(), &*self.name, reason.word());
            tracing::warn!(backend, server, reason, ?time, "server is ejected");
        }
    }

    /// Whether it may be ejected for its answers.
    pub(super) fn may_be_ejected(&self) -> bool {
        self.outlier.is_some()
    }

    /// Waits until so many connections of traffic failed in a row that `observe` wants something done about it.
    pub(super) async fn tripped(&self) {
        match &self.observer {
            Some(observer) => observer.tripped().await,
            None => std::future::pending().await,
        }
    }

    /// Whether it is up and nobody has taken it out of service.
    pub(super) fn is_in_service(&self) -> bool {
        self.is_up() && !self.metrics.is_in_maintenance()
    }

    /// Requests or connections under way, over all workers.
    pub fn in_flight(&self) -> usize {
        self.metrics.in_flight()
    }

    /// Requests or connections that it may have under way at once; none is no limit.
    pub fn max_connections(&self) -> Option<NonZeroUsize> {
        match self.max_connections {
            MaxConnections::Unlimited => None,
            MaxConnections::Limited(_) => self.metrics.max_connections(),
        }
    }

    /// The same for now: less while it starts slowly.
    fn max_connections_now(&self) -> Option<NonZeroUsize> {
        match self.max_connections {
            MaxConnections::Unlimited => None,
            MaxConnections::Limited(_) => self.metrics.max_connections_now(),
        }
    }

    /// Whether there may be a time when it takes no more.
    pub(super) fn may_be_full(&self) -> bool {
        !matches!(self.max_connections, MaxConnections::Unlimited)
    }

    /// Whether it has as much under way as it may have.
    pub(super) fn is_full(&self) -> bool {
        self.max_connections_now()
            .is_some_and(|max| self.in_flight() >= max.get())
    }

    /// Whether whoever comes now has to wait for it: it is full, or others who belong to it wait already.
    pub(super) fn is_taken(&self) -> bool {
        self.is_full() || (self.may_be_full() && self.metrics.queued() > 0)
    }

    /// It takes a request or connection, which is under way until the session is dropped; none when it is full. `queue` is
    /// where one waits for a place at it.
    pub(super) fn begin(&self, queue: Option<&Arc<Queue>>) -> Option<Session> {
        let in_flight = match self.max_connections_now() {
            None => InFlight::begin(&self.metrics),
            Some(max) => InFlight::begin_below(&self.metrics, max.get())?,
        };
        // Also of one without a limit now: it may have one when this ends.
        let queue = queue.filter(|_| self.may_be_full());
        let ends = self.ends.as_ref().map(|ends| ends.listen()).unwrap_or_default();
        Some(Session::new(in_flight, queue, ends))
    }

    /// Ends what it has under way. Answers how many sessions that were; none are counted when it cannot be done.
    pub fn end_sessions(&self, why: Ended) -> usize {
        self.ends.as_ref().map_or(0, |ends| ends.end(why))
    }
}

/// The tier that takes the work: the lowest of which a server is usable; none when none is.
pub(super) fn tier_in_use(servers: &[Arc<Server>]) -> Option<u32> {
    let usable = servers.iter().filter(|server| server.is_usable());
    usable.map(|server| server.tier()).min()
}

/// The first tier of configured backups, behind all 65,536 priorities that SRV records can have.
pub(super) const BACKUPS: u32 = 1 << 16;

//! The record of a TCP connection: what is logged, counted and told of it, however it ended.

use std::num::{NonZeroU32, NonZeroU64};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::stop::Stop;
use crate::backend::{self, Backend, Server};
use crate::config::{AccessLog, LogChoice};
use crate::policy::{Attachment, ConnectionFacts, Lot, Over, Place, ToTell};
use crate::proxy::local::{Lasting, Local};
use crate::proxy::policy;
use crate::proxy::relay::{self, Ended, Moved};
use crate::snapshot::rules::RuleAt;
use crate::snapshot::{Frontend, OfTenant};
use crate::stream::Stream;
use crate::telemetry::access::{Cause, Counts, Phase, TcpRecord, TcpTimers, Termination};
use crate::telemetry::choice;
use crate::telemetry::metrics::{FrontendMetrics, TenantMetrics, Took};

/// A connection, as it will be logged and counted: when it is dropped, however it ended.
pub(super) struct Record {
    worker: Rc<Lasting>,
    frontend: Arc<FrontendMetrics>,
    pub(super) facts: Arc<ConnectionFacts>,
    backend: Option<Arc<Backend>>,
    /// What most connections have nothing of.
    rare: Option<Box<Rare>>,
    /// Nanoseconds that connecting took, where it was tried.
    connect: Option<NonZeroU64>,
    received: u64,
    sent: u64,
    /// Its position among the backend's servers, and one.
    server: Option<NonZeroU32>,
    log: AccessLog,
    termination: Termination,
}

/// What is remembered of a connection that was not served at once, or not to its end.
#[derive(Default)]
struct Rare {
    queue: Duration,
    queue_since: Option<Instant>,
    /// How many waited before it.
    ahead: usize,
    retries: u32,
    /// One of those attempts was made at another server.
    redispatched: bool,
    reason: Option<&'static str>,
    rule: Option<RuleAt>,
    /// What is counted of its host's tenant, where that is somebody's.
    tenant: Option<Arc<TenantMetrics>>,
    /// Its place among the connections of that tenant.
    under_way: Option<Place>,
    /// The client left without a word while a server was awaited.
    is_silent: bool,
    log_choice: Option<Arc<LogChoice>>,
    /// Who is told of it when it is over, where somebody is.
    told: Option<Told>,
}

/// Components that are told of a connection. What it was begun with tells of it: they are held for that, and nothing else is of
/// its configuration.
struct Told {
    plugins: Arc<[Arc<Attachment>]>,
    /// What decided who takes part in it.
    lot: Lot,
}

impl Record {
    pub(super) fn begin(local: &Rc<Local>, frontend: &Arc<Frontend>, facts: Arc<ConnectionFacts>) -> Self {
        let log_choice = frontend.config.log_choice.clone();
        let told = (!frontend.told.is_empty()).then(|| Told {
            plugins: frontend.told.clone(),
            lot: Lot::default(),
        });
        let rare = (log_choice.is_some() || told.is_some()).then(|| {
            Box::new(Rare {
                log_choice,
                told,
                ..Rare::default()
            })
        });
        Self {
            worker: local.lasting(),
            frontend: frontend.metrics.clone(),
            facts,
            backend: None,
            rare,
            connect: None,
            received: 0,
            sent: 0,
            server: None,
            log: frontend.config.access_log,
            termination: Termination::default(),
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// This has decided which components take part in it.
    pub(super) fn is_drawn(&mut self, lot: Lot) {
        if let Some(told) = self.rare.as_mut().and_then(|rare| rare.told.as_mut()) {
            told.lot = lot;
        }
    }

    /// No line is written of it: `access-log when=` does not hold.
    pub(super) fn is_not_logged(&mut self) {
        self.log.enabled = false;
    }

    /// It is for this tenant's host.
    pub(super) fn is_of(&mut self, tenant: &OfTenant) {
        self.rare().tenant = Some(Arc::clone(&tenant.metrics));
    }

    /// It has this place among that tenant's until it is over.
    pub(super) fn has_place(&mut self, place: Place) {
        self.rare().under_way = Some(place);
    }

    /// A `deny` held.
    pub(super) fn is_denied(&mut self, at: RuleAt) {
        self.rare().rule = Some(at);
    }

    /// This backend is to serve it.
    pub(super) fn backend_chosen(&mut self, backend: Arc<Backend>) {
        backend.metrics.led();
        self.backend = Some(backend);
    }

    /// Until it has ended otherwise: it is cut off when the gateway ends.
    pub(super) fn killed_in(&mut self, phase: Phase) {
        self.termination = Termination {
            cause: Cause::Killed,
            phase,
        };
    }

    /// No server has room: one is waited for.
    pub(super) fn queue_begins(&mut self) {
        let ahead = self.backend.as_ref().map_or(0, |backend| backend.metrics.queued());
        let rare = self.rare();
        rare.queue_since = Some(Instant::now());
        rare.ahead = ahead;
        self.killed_in(Phase::Queue);
    }

    /// The wait for a server is over, however it ended.
    pub(super) fn queue_ends(&mut self) {
        if let Some(rare) = &mut self.rare
            && let Some(since) = rare.queue_since.take()
        {
            rare.queue += since.elapsed();
        }
    }

    /// The server that was tried last.
    pub(super) fn server(&self) -> Option<&Server> {
        let servers = &self.backend.as_ref()?.servers;
        servers.get(self.server?.get() as usize - 1).map(AsRef::as_ref)
    }

    /// This one of the backend's servers is tried.
    pub(super) fn server_chosen(&mut self, server: usize) {
        let chosen = u32::try_from(server + 1).ok().and_then(NonZeroU32::new);
        let before = std::mem::replace(&mut self.server, chosen).filter(|before| Some(*before) != chosen);
        if let (Some(before), Some(backend)) = (before, &self.backend)
            && let Some(server) = backend.servers.get(before.get() as usize - 1)
        {
            server.metrics.redispatched();
            self.rare().redispatched = true;
        }
    }

    pub(super) fn retried(&mut self) {
        self.rare().retries += 1;
    }

    /// Its server went down, or an operator ended it.
    pub(super) fn cut_off(&mut self, why: backend::Ended) {
        let (termination, reason) = relay::cut_off(why);
        self.termination = termination;
        self.rare().reason = Some(reason);
        self.frontend.error(reason);
    }

    pub(super) fn connecting_took(&mut self, time: Duration) {
        let before = self.connect.map_or(0, NonZeroU64::get);
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.connect = NonZeroU64::new(before.saturating_add(time).max(1));
    }

    pub(super) fn stopped(mut self, stop: Stop) {
        self.queue_ends();
        // No server was reached, however long that took.
        self.connect = None;
        self.termination = stop.termination(self.termination.phase);
        self.rare().reason = Some(stop.reason());
        match stop {
            Stop::Denied | Stop::Refused => self.frontend.denied(),
            // As when it leaves with a server reached: nobody was failed.
            Stop::ClientSilent => self.rare().is_silent = true,
            _ => self.frontend.error(stop.reason()),
        }
        if stop.is_of_connecting()
            && let Some(server) = self.server()
        {
            server.metrics.not_reached();
        }
    }

    /// Bytes have been relayed: they are counted while the connection lives.
    pub(super) fn moved(&mut self, moved: Moved) {
        self.received += moved.from_client;
        self.sent += moved.from_server;
        self.frontend.bytes(moved.from_client, moved.from_server);
        if let Some(tenant) = self.rare.as_ref().and_then(|rare| rare.tenant.as_ref()) {
            tenant.bytes(moved.from_client, moved.from_server);
        }
        if let Some(backend) = &self.backend {
            let (received, sent) = (moved.from_server, moved.from_client);
            match self.server {
                Some(server) => backend.servers[server.get() as usize - 1].metrics.bytes(received, sent),
                None => backend.metrics.bytes(received, sent),
            }
        }
        if moved.spliced > 0 {
            self.worker.registry().process().spliced(moved.spliced);
        }
    }

    pub(super) fn ended(&mut self, ended: &Ended) {
        self.termination = ended.termination();
    }

    /// Both sides have ended. Where one of them did in TLS without its goodbye, the log says so: most often it is a program that spares
    /// itself the trouble, and the end is passed on as any other; but nobody can know that all has come.
    pub(super) fn may_be_cut(&mut self, client: &mut Stream, server: &mut Stream) {
        // A client that has said nothing has kept nothing back, and its connection may be null.
        if self.received == 0 {
            return;
        }
        if client.is_cut() {
            self.rare().reason = Some("client-tls-cut");
        } else if server.is_cut() {
            self.rare().reason = Some("server-tls-cut");
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.queue_ends();
        let metrics = &self.frontend;
        let total = self.facts.accepted.elapsed();
        metrics.response(None, total);
        let log = self.log;
        let mut rare = self.rare.take().map_or_else(Rare::default, |rare| *rare);
        if let Some(tenant) = &rare.tenant {
            tenant.ended(None, 0, 0);
        }
        let backend = self.backend.as_ref();
        let server = backend.and_then(|backend| backend.servers.get(self.server?.get() as usize - 1));
        let connect = self.connect.map(|time| Duration::from_nanos(time.get()));
        match (server, backend) {
            (Some(server), _) => {
                let took = connect.map(|connect| Took {
                    queue: rare.queue,
                    connect,
                    total,
                });
                server.metrics.ended(took, self.termination);
            }
            (None, Some(backend)) if self.termination.cause == Cause::ClientAborted => backend.metrics.client_left(),
            (None, _) => {}
        }
        let is_null = self.received == 0 && (rare.reason.is_none() || rare.is_silent);
        // A balancer's health checks are nobody's connections.
        let is_check = is_null && self.facts.is_from_balancer();
        if let Some(Told { plugins, lot }) = rare.told.take_if(|_| !is_check) {
            let mut exchange = policy::of_connection(&self.facts);
            exchange.is_drawn(lot);
            exchange.server = server.map(|server| server.name.clone());
            exchange.over = Some(Box::new(Over {
                status: None,
                backend: backend.map(|backend| backend.name.clone()),
                duration: total,
                bytes_sent: self.sent,
                reason: rare.reason,
                is_of_connection: true,
            }));
            self.worker.untold().push(ToTell::new(exchange, plugins));
        }
        if !log.enabled || is_check || (is_null && log.skip_null) {
            return;
        }
        let choice = rare.log_choice.as_deref();
        let Some(severity) = choice::severity(choice, self.termination, None, None, rare.retries) else {
            return;
        };
        self.worker.log().tcp(&TcpRecord {
            client: self.facts.client(),
            destination: self.facts.local(),
            started: SystemTime::now() - total,
            frontend: metrics.name(),
            tls: self.facts.tls.is_some(),
            connection: &*self.facts,
            backend: backend.map(|backend| &*backend.name),
            server: server.map(|server| &*server.name),
            timers: TcpTimers {
                // Without a server, it is known only if it came to waiting.
                queue: (server.is_some() || !rare.queue.is_zero()).then_some(rare.queue),
                connect,
                total,
            },
            bytes_sent: self.sent,
            bytes_received: self.received,
            termination: self.termination,
            counts: Counts {
                process: self.worker.registry().process().connections(),
                frontend: metrics.connections(),
                backend: backend.map_or(0, |backend| backend.in_flight()),
                server: server.map_or(0, |server| server.in_flight()),
                retries: rare.retries,
                redispatched: rare.redispatched,
                queue: rare.ahead,
            },
            tenant: rare.tenant.as_ref().map(|tenant| &**tenant.tenant()),
            reason: rare.reason,
            rule: rare.rule.as_ref().map(|rule| rule.line),
            rule_file: rare.rule.as_ref().and_then(|rule| rule.file.as_deref()),
            format: choice.and_then(|choice| choice.format.as_ref()),
            to: choice.and_then(|choice| choice.to.as_deref()),
            severity,
        });
    }
}

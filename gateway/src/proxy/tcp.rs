//! The life of a TCP connection: policy → server → relay → log.

use std::future::Future;
use std::io;
use std::num::{NonZeroU32, NonZeroU64};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use pin_project_lite::pin_project;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::asked_name;
use super::attempts::Attempts;
use super::introduction::introduction;
use super::local::{Lasting, Local};
use super::policy::{self, ConnectionAnswer};
use super::relay::{self, Early, Ended, Moved, Relay, RelaySettings};
use crate::backend::{self, Backend, ConnectError, PickKey, QueueError, Server, Session, Take, Wishes};
use crate::config::{AccessLog, LogChoice};
use crate::policy::{Attachment, ConnectionFacts, Lot, Over, ToTell};
use crate::snapshot::rules::RuleAt;
use crate::snapshot::{AclAnswers, Frontend, OfTenant, TenantRules};
use crate::stream::Stream;
use crate::telemetry::access::{Cause, Counts, Phase, TcpRecord, TcpTimers, Termination};
use crate::telemetry::choice;
use crate::telemetry::metrics::{FrontendMetrics, TenantMetrics, Took};

/// Brings a connection to where bytes can be relayed, if it comes to that.
pub async fn serve(
    local: Rc<Local>,
    frontend: Arc<Frontend>,
    client: Stream,
    facts: Arc<ConnectionFacts>,
) -> Option<Relaying> {
    let mut record = Record::begin(&local, &frontend, facts);
    let decided = tokio::select! {
        biased;
        decided = decide(&local, &frontend, &mut record) => decided,
        // Only a heavy plugin makes anybody wait here.
        stop = gone(client.tcp()) => Err(stop),
    };
    let backend = match decided {
        Ok(backend) => backend,
        Err(stop) => {
            record.stopped(stop);
            return None;
        }
    };
    record.backend = Some(backend.clone());
    record.killed_in(Phase::Connect);
    let (server, session) = match reach(&local, &backend, &mut record, client.tcp()).await {
        Ok(reached) => reached,
        Err(stop) => {
            record.stopped(stop);
            return None;
        }
    };
    record.killed_in(Phase::Data);
    let settings = RelaySettings::of(&frontend.config.timeouts, &backend.timeouts);
    let relay = Relay::new(settings, Early::default());
    Some(Relaying {
        relay,
        record,
        client,
        server,
        session,
    })
}

pin_project! {
    /// A connection that is relayed, until it ends. A session may outlive its configuration: it holds of it what it needs, not
    /// all. It is written by hand, since an async function keeps what it was called with beside what it made of it, and this
    /// is there ten thousand times.
    pub struct Relaying {
        #[pin]
        relay: Relay,
        // In this order: the place at the server is free when the connection to it is closed, and no sooner.
        server: Stream,
        session: Session,
        record: Record,
        client: Stream,
    }

    impl PinnedDrop for Relaying {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(moved) = this.relay.rest() {
                this.record.moved(moved);
            }
        }
    }
}

impl Future for Relaying {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let record = this.record;
        if let Poll::Ready(ended) = this
            .relay
            .as_mut()
            .poll(cx, this.client, this.server, |moved| record.moved(moved))
        {
            record.ended(&ended);
            return Poll::Ready(());
        }
        if this.relay.take_grown()
            && let Some(server) = record.server()
        {
            server.keep_alive(this.server);
        }
        this.session.poll_ended(cx).map(|why| record.cut_off(why))
    }
}

/// Why a connection ends before anything was relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// A `deny` held, which the record has.
    Denied,
    /// Its host is a tenant's whose files are at fault, and there is nothing to go on with.
    TenantClosed,
    /// A component refused it.
    Refused,
    /// A component failed, and its `on-failure` is to deny.
    PolicyFailure,
    /// No rule took it and there is no default backend.
    NoRoute,
    /// No server of the backend is up.
    NoServer,
    /// No server had room.
    Queue(QueueError),
    /// The server that was tried last could not be connected to.
    ConnectFailed,
    /// The connection to it did not stand within `timeout connect=`.
    ConnectTimeout,
    /// It was there, but TLS with it failed.
    ServerTlsFailed,
    /// The gateway lacked what a connection to it takes.
    OutOfResources,
    /// The client was gone before a server was reached.
    ClientLeft,
    /// So it was, and had said nothing until then: somebody looks whether the port is open.
    ClientSilent,
}

impl Stop {
    /// A label for logs and metrics.
    fn reason(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::TenantClosed => "tenant-closed",
            Self::Refused => REFUSED_BY_PLUGIN,
            Self::PolicyFailure => "policy-failure",
            Self::NoRoute => "no-route",
            Self::NoServer => "no-server",
            Self::Queue(QueueError::Full) => "queue-full",
            Self::Queue(QueueError::Timeout) => "queue-timeout",
            Self::ConnectFailed => "connect-failed",
            Self::ConnectTimeout => "connect-timeout",
            Self::ServerTlsFailed => "server-tls-failed",
            Self::OutOfResources => "out-of-resources",
            Self::ClientLeft | Self::ClientSilent => "client-left",
        }
    }

    /// How it ended, in a phase that the client may have chosen.
    fn termination(self, at: Phase) -> Termination {
        let (cause, phase) = match self {
            Self::Denied | Self::TenantClosed | Self::Refused | Self::PolicyFailure | Self::NoRoute => {
                (Cause::Proxy, Phase::Request)
            }
            Self::Queue(QueueError::Full) => (Cause::Proxy, Phase::Queue),
            Self::Queue(QueueError::Timeout) => (Cause::ServerTimeout, Phase::Queue),
            Self::NoServer | Self::ConnectFailed | Self::ServerTlsFailed => (Cause::ServerAborted, Phase::Connect),
            Self::ConnectTimeout => (Cause::ServerTimeout, Phase::Connect),
            Self::OutOfResources => (Cause::Resource, Phase::Connect),
            Self::ClientLeft | Self::ClientSilent => (Cause::ClientAborted, at),
        };
        Termination { cause, phase }
    }
}

/// Resolves when the client has left: it reset the connection, or closed it without having said anything. One that has
/// said everything already waits for the answer.
async fn gone(client: &TcpStream) -> Stop {
    // PRIORITY and not READABLE: this wakes for the end of what the client says, and not for what it says.
    let said = async || -> io::Result<usize> {
        client.ready(Interest::PRIORITY).await?;
        client.peek(&mut [0]).await
    };
    match said().await {
        Ok(0) => Stop::ClientSilent,
        // Something was said before the end: now only a reset can be waited for.
        Ok(_) => {
            let _ = client.ready(Interest::ERROR).await;
            Stop::ClientLeft
        }
        // A reset. What was said before it, if anything, is lost.
        Err(_) => Stop::ClientLeft,
    }
}

/// What policy makes of a connection: the backend, or why there is none.
async fn decide(local: &Rc<Local>, frontend: &Frontend, record: &mut Record) -> Result<Arc<Backend>, Stop> {
    let mut lot = Lot::default();
    let decided = match frontend.tenants.is_empty() {
        true => decide_with(local, frontend, None, record, &mut lot).await,
        // Boxed: few frontends of TCP mode have tenants.
        false => Box::pin(decide_for_tenants(local, frontend, record, &mut lot)).await,
    };
    // Whoever is told of it is told of those that were refused, too.
    record.is_drawn(lot);
    decided
}

/// The same where a tenant's host may be asked for: in the handshake that ended here, or in the ClientHello that passes through.
async fn decide_for_tenants(
    local: &Rc<Local>,
    frontend: &Frontend,
    record: &mut Record,
    lot: &mut Lot,
) -> Result<Arc<Backend>, Stop> {
    let host = asked_name::host_of_connection(&record.facts);
    let tenant = host.as_deref().and_then(|host| frontend.tenant_of(host));
    let (Some(host), Some(tenant)) = (host, tenant) else {
        return decide_with(local, frontend, None, record, lot).await;
    };
    record.is_of(tenant);
    lot.is_for(host.clone());
    if tenant.is_closed {
        return Err(Stop::TenantClosed);
    }
    let rules = tenant.rules.as_ref().map(|rules| (rules, host));
    decide_with(local, frontend, rules, record, lot).await
}

/// The same, where `tenant` decides behind the operator, whose host that is.
async fn decide_with(
    local: &Rc<Local>,
    frontend: &Frontend,
    tenant: Option<(&TenantRules, Box<str>)>,
    record: &mut Record,
    lot: &mut Lot,
) -> Result<Arc<Backend>, Stop> {
    let facts = &record.facts.clone();
    let mut answers = AclAnswers::default();
    let mut exchange = None;
    if !frontend.acls.is_empty() {
        let exchange = exchange.insert(policy::of_connection(facts));
        answers = policy::acls(local, &frontend.acls, exchange)
            .await
            .map_err(|_| Stop::PolicyFailure)?;
    }
    if let Some(choice) = &frontend.config.log_choice
        && choice.when.as_ref().is_some_and(|when| !answers.hold(when))
    {
        record.log.enabled = false;
    }
    let tenant = match tenant {
        Some((rules, host)) => {
            let exchange = exchange.get_or_insert_with(|| policy::of_connection(facts));
            exchange.is_for(Some(host));
            let answers = Box::pin(policy::acls(local, &rules.acls, exchange)).await;
            if let Ok(answers) = &answers {
                lot.is_used_by(answers.holding(&rules.uses));
            }
            Some((rules, answers))
        }
        None => None,
    };
    // What could be decided by the addresses alone was, when the connection came.
    if let Some(line) = frontend.late_denies.iter().find_map(|rule| rule.stops(&answers)) {
        record.is_denied(RuleAt { line, file: None });
        return Err(Stop::Denied);
    }
    // One whose acls cannot be asked refuses what the operator has let through, and nothing before.
    let tenant = match tenant {
        Some((rules, answers)) => Some((rules, answers.map_err(|_| Stop::PolicyFailure)?)),
        None => None,
    };
    if let Some((rules, answers)) = &tenant
        && let Some(rule) = rules.rules.iter().find(|rule| rule.holds(answers))
    {
        record.is_denied(rule.at.clone());
        return Err(Stop::Denied);
    }
    let answer = policy::connection_filters(local, frontend, facts, lot).await;
    let routed = match answer.map_err(|_| Stop::PolicyFailure)? {
        ConnectionAnswer::Continue => None,
        ConnectionAnswer::Refuse => return Err(Stop::Refused),
        ConnectionAnswer::Route(backend) => Some(backend),
    };
    let route = || match frontend.routes.is_empty() && tenant.is_none() {
        true => frontend.config.default_backend,
        false => {
            let exchange = exchange.unwrap_or_else(|| policy::of_connection(facts));
            frontend.route(&answers, &exchange, tenant.as_ref())
        }
    };
    let backend = routed.or_else(route).ok_or(Stop::NoRoute)?;
    Ok(local.snapshot.backends[backend.0].clone())
}

/// Connects to a server, unless the client leaves before the connection stands.
async fn reach(
    local: &Rc<Local>,
    backend: &Arc<Backend>,
    record: &mut Record,
    client: &TcpStream,
) -> Result<(Stream, Session), Stop> {
    tokio::select! {
        // The client is looked at only when the connection does not stand at once.
        biased;
        connected = connect(local, backend, record) => connected,
        stop = gone(client) => Err(stop),
    }
}

/// Connects to a server, waiting for one that has room, and trying again as the backend says.
async fn connect(local: &Rc<Local>, backend: &Arc<Backend>, record: &mut Record) -> Result<(Stream, Session), Stop> {
    let client = record.facts.client().ip();
    let stick = backend.stick.as_ref().map(|table| table.key_of_client(client));
    let key = PickKey {
        wanted: stick.and_then(|stick| backend.remembered(stick)),
        ..PickKey::of(client)
    };
    let mut attempts = Attempts::new(backend, key);
    let mut failure = None;
    loop {
        let (server, session) = match attempts.take(local) {
            Take::Server(server, session) => (server, session),
            Take::Full => {
                record.queue_begins();
                let waited = attempts.wait(local).await;
                record.queue_ends();
                record.killed_in(Phase::Connect);
                waited.map_err(Stop::Queue)?
            }
            Take::Nothing => {
                return Err(failure.unwrap_or_else(|| {
                    backend.metrics.no_server();
                    Stop::NoServer
                }));
            }
        };
        record.server_chosen(server);
        let began = Instant::now();
        let to = &backend.servers[server];
        let header = to.wants_introduction().then(|| introduction(&record.facts));
        let name = to
            .wants_name()
            .then(|| asked_name::of_connection(&record.facts))
            .flatten();
        let wishes = Wishes {
            introduction: header.as_ref(),
            name: name.as_ref(),
        };
        let connected = to.connect_for(wishes, backend.timeouts.connect).await;
        record.connecting_took(began.elapsed());
        let error = match connected {
            Ok(stream) => {
                backend.servers[server].connected();
                if let Some(stick) = stick {
                    backend.remember(stick, server);
                }
                return Ok((stream, session));
            }
            Err(error) => error,
        };
        backend.servers[server].connect_failed(&error);
        let stop = match error {
            ConnectError::Timeout(_) => Stop::ConnectTimeout,
            ConnectError::Tls(_) => Stop::ServerTlsFailed,
            ConnectError::Lack(_) => Stop::OutOfResources,
            _ => Stop::ConnectFailed,
        };
        failure = Some(stop);
        let pause = attempts.failed(server, session, &error).ok_or(stop)?;
        record.retried();
        backend.metrics.retried();
        backend.servers[server].metrics.retried();
        if !pause.is_zero() {
            sleep(pause).await;
            record.connecting_took(pause);
        }
    }
}

/// A connection, as it will be logged and counted: when it is dropped, however it ended.
struct Record {
    worker: Rc<Lasting>,
    frontend: Arc<FrontendMetrics>,
    facts: Arc<ConnectionFacts>,
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
    reason: Option<&'static str>,
    rule: Option<RuleAt>,
    /// What is counted of its host's tenant, where that is somebody's.
    tenant: Option<Arc<TenantMetrics>>,
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
    fn begin(local: &Rc<Local>, frontend: &Arc<Frontend>, facts: Arc<ConnectionFacts>) -> Self {
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
    fn is_drawn(&mut self, lot: Lot) {
        if let Some(told) = self.rare.as_mut().and_then(|rare| rare.told.as_mut()) {
            told.lot = lot;
        }
    }

    /// It is for this tenant's host.
    fn is_of(&mut self, tenant: &OfTenant) {
        self.rare().tenant = Some(Arc::clone(&tenant.metrics));
    }

    /// A `deny` held.
    fn is_denied(&mut self, at: RuleAt) {
        self.rare().rule = Some(at);
    }

    /// Until it has ended otherwise: it is cut off when the gateway ends.
    fn killed_in(&mut self, phase: Phase) {
        self.termination = Termination {
            cause: Cause::Killed,
            phase,
        };
    }

    /// No server has room: one is waited for.
    fn queue_begins(&mut self) {
        let ahead = self.backend.as_ref().map_or(0, |backend| backend.metrics.queued());
        let rare = self.rare();
        rare.queue_since = Some(Instant::now());
        rare.ahead = ahead;
        self.killed_in(Phase::Queue);
    }

    /// The wait for a server is over, however it ended.
    fn queue_ends(&mut self) {
        if let Some(rare) = &mut self.rare
            && let Some(since) = rare.queue_since.take()
        {
            rare.queue += since.elapsed();
        }
    }

    /// The server that was tried last.
    fn server(&self) -> Option<&Server> {
        let servers = &self.backend.as_ref()?.servers;
        servers.get(self.server?.get() as usize - 1).map(AsRef::as_ref)
    }

    /// This one of the backend's servers is tried.
    fn server_chosen(&mut self, server: usize) {
        let chosen = u32::try_from(server + 1).ok().and_then(NonZeroU32::new);
        let before = std::mem::replace(&mut self.server, chosen).filter(|before| Some(*before) != chosen);
        if let (Some(before), Some(backend)) = (before, &self.backend)
            && let Some(server) = backend.servers.get(before.get() as usize - 1)
        {
            server.metrics.redispatched();
        }
    }

    fn retried(&mut self) {
        self.rare().retries += 1;
    }

    /// Its server went down, or an operator ended it.
    fn cut_off(&mut self, why: backend::Ended) {
        let (termination, reason) = relay::cut_off(why);
        self.termination = termination;
        self.rare().reason = Some(reason);
        self.frontend.error(reason);
    }

    fn connecting_took(&mut self, time: Duration) {
        let before = self.connect.map_or(0, NonZeroU64::get);
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.connect = NonZeroU64::new(before.saturating_add(time).max(1));
    }

    fn stopped(mut self, stop: Stop) {
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
    }

    /// Bytes have been relayed: they are counted while the connection lives.
    fn moved(&mut self, moved: Moved) {
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

    fn ended(&mut self, ended: &Ended) {
        self.termination = ended.termination();
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
        if let Some(server) = server {
            let took = connect.map(|connect| Took {
                queue: rare.queue,
                connect,
                total,
            });
            server.metrics.ended(took, self.termination.broken_off_by());
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

/// What logs and components are told of a connection that a component has refused.
pub const REFUSED_BY_PLUGIN: &str = "refused-by-plugin";

/// Bytes that a relay may have: with this, its task takes 512 in all (the runtime's own part, the places it holds, and this),
/// which an allocator has room of that size for. One more, and it takes twice that: tasks are aligned, which only powers of two
/// have for nothing. With debug assertions, each of the two sockets takes 8 more.
#[cfg(test)]
const ROOM: usize = 352 + 2 * 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_relayed_takes_little() {
        assert!(size_of::<Relaying>() <= ROOM, "{}", size_of::<Relaying>());
        assert!(size_of::<ConnectionFacts>() <= 48, "{}", size_of::<ConnectionFacts>());
    }
}

//! The life of a TCP connection: policy → server → relay → log.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::attempts::Attempts;
use super::error::ProxyError;
use super::introduction::introduction;
use super::local::{Lasting, Local};
use super::policy::{self, ConnectionAnswer};
use super::relay::{self, Early, Ended, Moved, RelaySettings, relay};
use crate::backend::{self, Backend, ConnectError, PickKey, QueueError, Session, Take};
use crate::config::{AccessLog, LogChoice};
use crate::policy::{ConnectionFacts, Exchange};
use crate::snapshot::{AclAnswers, Frontend};
use crate::stream::Stream;
use crate::telemetry::access::{Cause, Counts, Phase, TcpRecord, TcpTimers, Termination};
use crate::telemetry::choice;
use crate::telemetry::metrics::FrontendMetrics;

/// Serves a connection until it ends.
pub async fn serve(local: Rc<Local>, frontend: Arc<Frontend>, mut stream: Stream, facts: Arc<ConnectionFacts>) {
    let mut record = Record::begin(&local, &frontend, &facts);
    let backend = match decide(&local, &frontend, &facts, &mut record) {
        Ok(backend) => backend,
        Err(stop) => return record.stopped(stop),
    };
    record.backend = Some(backend.clone());
    record.killed_in(Phase::Connect);
    // Boxed: it is over long before the connection is, which would keep the room for it.
    let reached = Box::pin(reach(&local, &backend, &mut record, stream.tcp())).await;
    let (mut server, mut session) = match reached {
        Ok(reached) => reached,
        Err(stop) => return record.stopped(stop),
    };
    record.killed_in(Phase::Data);
    let settings = RelaySettings::of(&frontend.config.timeouts, &backend.timeouts);
    // A session may outlive its configuration: from here on it holds of it what it needs, not all.
    drop((local, frontend));
    let ended = tokio::select! {
        biased;
        ended = relay(&mut stream, &mut server, settings, Early::default(), |moved| record.moved(moved)) => Ok(ended),
        why = poll_fn(|cx| session.poll_ended(cx)) => Err(why),
    };
    match ended {
        Ok(ended) => record.ended(&ended),
        Err(why) => record.cut_off(why),
    }
    // The place at the server is free when the connection to it is closed, and no sooner.
    drop(server);
    drop(session);
}

/// Why a connection ends before anything was relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// The `deny` at this line of the configuration held.
    Denied { line: usize },
    /// Its client makes connections faster than a `limit` allows.
    RateLimited,
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
            Self::Denied { .. } => "denied",
            Self::RateLimited => "rate-limited",
            Self::Refused => "refused-by-plugin",
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
            Self::Denied { .. } | Self::RateLimited | Self::Refused | Self::PolicyFailure | Self::NoRoute => {
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
fn decide(
    local: &Rc<Local>,
    frontend: &Frontend,
    facts: &Arc<ConnectionFacts>,
    record: &mut Record,
) -> Result<Arc<Backend>, Stop> {
    let mut answers = AclAnswers::default();
    if !frontend.acls.is_empty() || frontend.limiter.is_some() {
        // Predicates and limits are asked about an exchange; of this one only the connection is there, and the configuration
        // lets a TCP frontend ask about nothing else.
        let mut exchange = Exchange::new(http::Request::new(()).into_parts().0, facts.clone());
        answers = policy::acls(local, frontend, &mut exchange).map_err(|_| Stop::PolicyFailure)?;
        policy::connection_limits(local, frontend, &mut exchange).map_err(|error| match error {
            ProxyError::RateLimited { .. } => Stop::RateLimited,
            _ => Stop::PolicyFailure,
        })?;
    }
    if let Some(choice) = &frontend.config.log_choice {
        record.is_unlogged = choice.when.as_ref().is_some_and(|when| !answers.hold(when));
    }
    // In TCP mode every rule is a `deny`.
    if let Some((_, rule)) = frontend.rule(&answers) {
        let line = rule.origin.line;
        return Err(Stop::Denied { line });
    }
    let routed = match policy::connection_filters(local, frontend, facts).map_err(|_| Stop::PolicyFailure)? {
        ConnectionAnswer::Continue => None,
        ConnectionAnswer::Refuse => return Err(Stop::Refused),
        ConnectionAnswer::Route(backend) => Some(backend),
    };
    let backend = routed.or_else(|| frontend.route(&answers)).ok_or(Stop::NoRoute)?;
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
    let client = record.facts.client.ip();
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
        record.server = Some(server);
        let began = Instant::now();
        let to = &backend.servers[server];
        let header = to.wants_introduction().then(|| introduction(&record.facts));
        let connected = to.connect_for(header.as_ref(), backend.timeouts.connect).await;
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
        record.retries += 1;
        backend.metrics.retried();
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
    log: AccessLog,
    log_choice: Option<Arc<LogChoice>>,
    /// The condition of `access-log` does not hold: no line is written.
    is_unlogged: bool,
    facts: Arc<ConnectionFacts>,
    backend: Option<Arc<Backend>>,
    server: Option<usize>,
    queue: Duration,
    queue_since: Option<Instant>,
    /// How many waited before it.
    ahead: usize,
    connect: Option<Duration>,
    received: u64,
    sent: u64,
    retries: u32,
    termination: Termination,
    reason: Option<&'static str>,
    rule: Option<usize>,
    /// The client left without a word while a server was awaited.
    is_silent: bool,
}

impl Record {
    fn begin(local: &Rc<Local>, frontend: &Arc<Frontend>, facts: &Arc<ConnectionFacts>) -> Self {
        Self {
            worker: local.lasting(),
            frontend: frontend.metrics.clone(),
            log: frontend.config.access_log,
            log_choice: frontend.config.log_choice.clone(),
            is_unlogged: false,
            facts: facts.clone(),
            backend: None,
            server: None,
            queue: Duration::ZERO,
            queue_since: None,
            ahead: 0,
            connect: None,
            received: 0,
            sent: 0,
            retries: 0,
            termination: Termination::default(),
            reason: None,
            rule: None,
            is_silent: false,
        }
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
        self.queue_since = Some(Instant::now());
        self.ahead = self.backend.as_ref().map_or(0, |backend| backend.metrics.queued());
        self.killed_in(Phase::Queue);
    }

    /// The wait for a server is over, however it ended.
    fn queue_ends(&mut self) {
        if let Some(since) = self.queue_since.take() {
            self.queue += since.elapsed();
        }
    }

    /// Its server went down, or an operator ended it.
    fn cut_off(&mut self, why: backend::Ended) {
        let (termination, reason) = relay::cut_off(why);
        self.termination = termination;
        self.reason = Some(reason);
        self.frontend.error(reason);
    }

    fn connecting_took(&mut self, time: Duration) {
        self.connect = Some(self.connect.unwrap_or_default() + time);
    }

    fn stopped(mut self, stop: Stop) {
        self.queue_ends();
        // No server was reached, however long that took.
        self.connect = None;
        self.termination = stop.termination(self.termination.phase);
        self.reason = Some(stop.reason());
        match stop {
            Stop::Denied { line } => {
                self.rule = Some(line);
                self.frontend.denied();
            }
            Stop::Refused => self.frontend.denied(),
            Stop::RateLimited => self.frontend.rate_limited(),
            // As when it leaves with a server reached: nobody was failed.
            Stop::ClientSilent => self.is_silent = true,
            _ => self.frontend.error(stop.reason()),
        }
    }

    /// Bytes have been relayed: they are counted while the connection lives.
    fn moved(&mut self, moved: Moved) {
        self.received += moved.from_client;
        self.sent += moved.from_server;
        self.frontend.bytes(moved.from_client, moved.from_server);
        if let Some(backend) = &self.backend {
            backend.metrics.bytes(moved.from_server, moved.from_client);
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
        let is_null = self.received == 0 && (self.reason.is_none() || self.is_silent);
        if !log.enabled || self.is_unlogged || (is_null && (log.skip_null || self.facts.is_from_balancer())) {
            return;
        }
        let choice = self.log_choice.as_deref();
        let Some(severity) = choice::severity(choice, self.termination, None, self.retries) else {
            return;
        };
        let backend = self.backend.as_ref();
        let server = backend.and_then(|backend| Some(&backend.servers[self.server?]));
        self.worker.log().tcp(&TcpRecord {
            client: self.facts.client,
            destination: self.facts.local,
            started: SystemTime::now() - total,
            frontend: metrics.name(),
            tls: self.facts.tls.is_some(),
            backend: backend.map(|backend| &*backend.name),
            server: server.map(|server| &*server.name),
            timers: TcpTimers {
                // Without a server, it is known only if it came to waiting.
                queue: (server.is_some() || !self.queue.is_zero()).then_some(self.queue),
                connect: self.connect,
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
                retries: self.retries,
                queue: self.ahead,
            },
            reason: self.reason,
            rule: self.rule,
            format: choice.and_then(|choice| choice.format.as_ref()),
            severity,
        });
    }
}

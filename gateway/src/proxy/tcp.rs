//! The life of a TCP connection: policy → server → relay → log.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::local::Local;
use super::policy::{self, ConnectionAnswer};
use super::relay::{Ended, Moved, RelaySettings, Side, relay};
use super::upstream::Avoid;
use crate::backend::{Backend, InFlight, PickKey, ServerStream};
use crate::listener::ClientStream;
use crate::policy::{ConnectionFacts, Exchange};
use crate::snapshot::Frontend;
use crate::telemetry::access::{Cause, Counts, Phase, TcpRecord, TcpTimers, Termination};

/// Serves a connection until it ends.
pub async fn serve(local: Rc<Local>, frontend: Arc<Frontend>, mut stream: ClientStream, facts: Arc<ConnectionFacts>) {
    let _counted = (local.count_connection(), frontend.metrics.connection());
    let mut record = Record::begin(&local, &frontend, &facts);
    let backend = match decide(&local, &frontend, &facts) {
        Ok(backend) => backend,
        Err(reason) => {
            record.stopped(Cause::Proxy, Phase::Request, reason);
            frontend.metrics.denied();
            return;
        }
    };
    record.backend = Some(backend.clone());
    match connect(&local, &backend, &mut record).await {
        Some((mut server, _in_flight)) => {
            let settings = RelaySettings {
                client_timeout: frontend.config.timeouts.client,
                server_timeout: backend.timeouts.server,
            };
            let ended = relay(&mut stream, &mut server, settings, |moved| record.moved(moved)).await;
            record.ended(&ended);
        }
        None => {
            record.stopped(Cause::ServerAborted, Phase::Connect, "connect-failed");
            frontend.metrics.error("connect-failed");
        }
    }
}

/// What policy makes of a connection: the backend, or why there is none.
fn decide(local: &Rc<Local>, frontend: &Frontend, facts: &Arc<ConnectionFacts>) -> Result<Arc<Backend>, &'static str> {
    // Predicates are asked about an exchange; of this one only the connection is there, and the configuration lets a TCP
    // frontend ask about nothing else.
    let mut exchange = Box::new(Exchange {
        request: http::Request::new(()).into_parts().0,
        response: None,
        connection: facts.clone(),
    });
    let answers = policy::acls(local, frontend, &mut exchange).map_err(|error| error.reason())?;
    let denied = |deny: &crate::config::Deny| deny.when.as_ref().is_none_or(|when| answers.hold(when));
    if frontend.config.denies.iter().any(denied) {
        return Err("denied");
    }
    let routed = match policy::connection_filters(local, frontend, facts).map_err(|error| error.reason())? {
        ConnectionAnswer::Continue => None,
        ConnectionAnswer::Refuse => return Err("refused-by-plugin"),
        ConnectionAnswer::Route(backend) => Some(backend),
    };
    let backend = routed.or_else(|| frontend.route(&answers)).ok_or("no-route")?;
    Ok(local.snapshot.backends[backend.0].clone())
}

/// Connects to a server, trying others when one cannot be connected to.
async fn connect(local: &Rc<Local>, backend: &Arc<Backend>, record: &mut Record) -> Option<(ServerStream, InFlight)> {
    let mut avoid = Avoid::default();
    let key = PickKey {
        client: record.facts.client.ip(),
    };
    loop {
        let Some(server) = local.balancer(backend).pick(backend, &key, avoid.servers()) else {
            if !avoid.any() {
                backend.metrics.no_server();
            }
            return None;
        };
        record.server = Some(server);
        let in_flight = backend.servers[server].begin();
        let connected = backend.servers[server].connect(backend.timeouts.connect).await;
        record.connect = Some(record.started.elapsed());
        if let Ok(stream) = connected {
            backend.servers[server].metrics.connected();
            return Some((stream, in_flight));
        }
        backend.servers[server].metrics.connect_failed();
        if !avoid.add(server) {
            return None;
        }
        record.retries += 1;
        backend.metrics.retried();
    }
}

/// A connection, as it will be logged and counted: when it is dropped, however it ended.
struct Record {
    local: Rc<Local>,
    frontend: Arc<Frontend>,
    facts: Arc<ConnectionFacts>,
    started: Instant,
    backend: Option<Arc<Backend>>,
    server: Option<usize>,
    connect: Option<Duration>,
    received: u64,
    sent: u64,
    retries: u32,
    termination: Termination,
    reason: Option<&'static str>,
}

impl Record {
    fn begin(local: &Rc<Local>, frontend: &Arc<Frontend>, facts: &Arc<ConnectionFacts>) -> Self {
        Self {
            local: local.clone(),
            frontend: frontend.clone(),
            facts: facts.clone(),
            started: Instant::now(),
            backend: None,
            server: None,
            connect: None,
            received: 0,
            sent: 0,
            retries: 0,
            // Until it has ended otherwise: it is cut off when the gateway ends.
            termination: Termination {
                cause: Cause::Killed,
                phase: Phase::Data,
            },
            reason: None,
        }
    }

    fn stopped(&mut self, cause: Cause, phase: Phase, reason: &'static str) {
        self.termination = Termination { cause, phase };
        self.reason = Some(reason);
    }

    /// Bytes have been relayed: they are counted while the connection lives.
    fn moved(&mut self, moved: Moved) {
        self.received += moved.from_client;
        self.sent += moved.from_server;
        self.frontend.metrics.bytes(moved.from_client, moved.from_server);
        if let Some(backend) = &self.backend {
            backend.metrics.bytes(moved.from_server, moved.from_client);
        }
        if moved.spliced > 0 {
            self.local.registry().process().spliced(moved.spliced);
        }
    }

    fn ended(&mut self, ended: &Ended) {
        let cause = match ended {
            Ended::Finished { .. } => {
                self.termination = Termination::default();
                return;
            }
            Ended::TimedOut(Side::Client) => Cause::ClientTimeout,
            Ended::TimedOut(Side::Server) => Cause::ServerTimeout,
            Ended::Failed(Side::Client, _) => Cause::ClientAborted,
            Ended::Failed(Side::Server, _) => Cause::ServerAborted,
        };
        self.termination = Termination {
            cause,
            phase: Phase::Data,
        };
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let local = &self.local;
        let metrics = &self.frontend.metrics;
        let total = self.started.elapsed();
        metrics.response(None, total);
        let log = self.frontend.config.access_log;
        if !log.enabled || (log.skip_null && self.received == 0 && self.reason.is_none()) {
            return;
        }
        let backend = self.backend.as_ref();
        let server = backend.and_then(|backend| Some(&backend.servers[self.server?]));
        local.log().tcp(&TcpRecord {
            client: self.facts.client,
            started: SystemTime::now() - total,
            frontend: self.frontend.name(),
            tls: self.facts.tls.is_some(),
            backend: backend.map(|backend| &*backend.name),
            server: server.map(|server| &*server.name),
            timers: TcpTimers {
                queue: backend.map(|_| Duration::ZERO),
                connect: self.connect,
                total,
            },
            bytes_sent: self.sent,
            bytes_received: self.received,
            termination: self.termination,
            counts: Counts {
                process: local.registry().process().connections(),
                frontend: metrics.connections(),
                backend: backend.map_or(0, |backend| backend.in_flight()),
                server: server.map_or(0, |server| server.in_flight()),
                retries: self.retries,
            },
            reason: self.reason,
        });
    }
}

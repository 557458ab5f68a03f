//! The life of a TCP connection: policy → server → relay → log.

mod heard;
mod record;
mod stop;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use pin_project_lite::pin_project;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::asked_name;
use super::attempts::Attempts;
use super::introduction::introduction;
use super::local::Local;
use super::policy::{self, ConnectionAnswer};
use super::relay::{Early, Ended, Relay, RelaySettings};
use crate::backend::{Backend, ConnectError, PickKey, Session, Take, Wishes};
use crate::policy::{ConnectionFacts, Lot};
use crate::snapshot::rules::RuleAt;
use crate::snapshot::{AclAnswers, Frontend, TenantRules};
use crate::stream::Stream;
use crate::telemetry::access::Phase;
use heard::Heard;
use record::Record;
pub use stop::REFUSED_BY_PLUGIN;
use stop::Stop;

/// Brings a connection to where bytes can be relayed, if it comes to that.
pub async fn serve(
    local: Rc<Local>,
    frontend: Arc<Frontend>,
    client: Stream,
    facts: Arc<ConnectionFacts>,
) -> Option<Relaying> {
    let mut record = Record::begin(&local, &frontend, facts);
    let mut lot = Lot::default();
    let decided = tokio::select! {
        biased;
        decided = decide(&local, &frontend, &mut record, &mut lot) => decided,
        // Only a heavy plugin makes anybody wait here.
        stop = gone(client.tcp(), || false) => Err(stop),
    };
    // Whoever is told of it is told of those that were refused or have left, too.
    record.is_drawn(lot);
    let backend = match decided {
        Ok(backend) => backend,
        Err(stop) => {
            record.stopped(stop);
            return None;
        }
    };
    record.backend_chosen(backend.clone());
    record.killed_in(Phase::Connect);
    let (server, session, early) = match reach(&local, &backend, &mut record, &client).await {
        Ok(reached) => reached,
        Err(stop) => {
            record.stopped(stop);
            return None;
        }
    };
    record.killed_in(Phase::Data);
    let settings = RelaySettings::of(&frontend.config.timeouts, &backend.timeouts);
    let relay = Relay::new(settings, early);
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
            if matches!(ended, Ended::Finished { .. }) {
                if let Some(moved) = this.relay.as_mut().rest() {
                    record.moved(moved);
                }
                record.may_be_cut(this.client, this.server);
            }
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

/// Resolves when the client has left: it reset the connection, or closed it without having said anything, even what has been
/// read of it. One that has said everything already waits for the answer.
async fn gone(client: &TcpStream, was_heard: impl Fn() -> bool) -> Stop {
    // PRIORITY and not READABLE: this wakes for the end of what the client says, and not for what it says.
    let said = async || -> io::Result<usize> {
        client.ready(Interest::PRIORITY).await?;
        client.peek(&mut [0]).await
    };
    match said().await {
        Ok(0) if !was_heard() => Stop::ClientSilent,
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
async fn decide(
    local: &Rc<Local>,
    frontend: &Frontend,
    record: &mut Record,
    lot: &mut Lot,
) -> Result<Arc<Backend>, Stop> {
    match frontend.tenants.is_empty() {
        true => decide_with(local, frontend, None, record, lot).await,
        // Boxed: few frontends of TCP mode have tenants.
        false => Box::pin(decide_for_tenants(local, frontend, record, lot)).await,
    }
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
    record.has_place(tenant.under_way.connection().map_err(|_full| Stop::TenantFull)?);
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
        record.is_not_logged();
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
    client: &Stream,
) -> Result<Reached, Stop> {
    let heard = Heard::of(client);
    tokio::select! {
        // The client is looked at only when the connection does not stand at once.
        biased;
        connected = connect(local, backend, record, &heard) => connected,
        stop = gone(client.tcp(), || heard.is_anything()) => Err(stop),
    }
}

/// A connection to a server, the place that it has there, and what has come of the client.
type Reached = (Stream, Session, Early);

/// Connects to a server, waiting for one that has room, and trying again as the backend says.
async fn connect(
    local: &Rc<Local>,
    backend: &Arc<Backend>,
    record: &mut Record,
    heard: &Heard<'_>,
) -> Result<Reached, Stop> {
    let client = record.facts.client_ip();
    let stick = backend.stick.as_ref().zip(client);
    let stick = stick.map(|(table, client)| table.key_of_client(client));
    let key = PickKey {
        wanted: stick.and_then(|stick| backend.remembered(stick)),
        ..PickKey::of(client)
    };
    let mut attempts = Attempts::new(backend, key);
    let mut failure = None;
    let mut said = Bytes::new();
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
        let header = to.is_for_one_client().then(|| introduction(&record.facts));
        let name = to
            .wants_name()
            .then(|| asked_name::of_connection(&record.facts))
            .flatten();
        let wishes = Wishes {
            introduction: header.as_ref(),
            name: name.as_ref(),
            speaks: false,
        };
        let is_unhurried = to.is_told_at_once();
        if is_unhurried && said.is_empty() {
            said = heard.take().map_err(|_reset| Stop::ClientLeft)?;
        }
        let whole = said.len();
        let connected = to.connect_saying(wishes, &mut said, backend.timeouts.connect).await;
        record.connecting_took(began.elapsed());
        let error = match connected {
            Ok(stream) => {
                backend.servers[server].connected();
                if let Some(stick) = stick {
                    backend.remember(stick, server);
                }
                heard.pass_on();
                let early = Early {
                    told: whole - said.len(),
                    from_client: said,
                    is_unhurried,
                    ..Early::default()
                };
                return Ok((stream, session, early));
            }
            Err(error) => error,
        };
        backend.servers[server].connect_failed(&error);
        let stop = match error {
            ConnectError::Timeout(_) | ConnectError::TlsTimeout(_) => Stop::ConnectTimeout,
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

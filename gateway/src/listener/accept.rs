//! Accepting: within the limits, and never giving up because one connection failed.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::acceptor::Acceptor;
use super::introduction::{self, Unintroduced};
use super::rate::Rate;
use super::sources::SourceSeat;
use super::termination::Termination;
use super::tls::NoTls;
use super::{hello, tls};
use crate::accepted::Accepted;
use crate::config::{self, AcceptProxy};
use crate::in_place::boxed;
use crate::keep_alive;
use crate::policy::{ConnectionFacts, Ends, Introduced, Preamble};
use crate::proxy_protocol::Header;
use crate::stream::Stream;
use crate::telemetry::metrics::FrontendMetrics;
use crate::telemetry::pace::Pace;

/// How many client connections there may be.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of the whole process.
    pub process: Arc<Semaphore>,
    /// Of the frontend.
    pub frontend: Arc<Semaphore>,
    /// How fast the frontend takes them; none means as fast as they come.
    pub rate: Option<Arc<Rate>>,
}

/// A bind, as one worker serves it.
pub struct Port {
    /// The worker's socket.
    pub socket: Acceptor,
    /// Whether connections begin with a PROXY header.
    pub accept_proxy: Option<Arc<AcceptProxy>>,
    /// What comes before the protocol.
    pub opening: Opening,
    /// How silent connections are looked after.
    pub keep_alive: Option<config::KeepAlive>,
    /// How many connections there may be.
    pub limits: Rc<Limits>,
    /// What is decided of connections by their addresses; none where nothing is.
    pub admit: Option<Admit>,
    /// Whether to go on.
    pub gate: Rc<Gate>,
    /// Where connections that come to nothing are counted.
    pub metrics: Arc<FrontendMetrics>,
}

/// Decides about a connection by its addresses alone, before anything else that it says is read. It is told of those that
/// it refuses by itself.
pub type Admit = Rc<dyn Fn(&Arc<ConnectionFacts>) -> Result<Option<SourceSeat>, Refused>>;

/// The connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// How a connection begins.
#[derive(Debug, Clone)]
pub enum Opening {
    /// With the protocol.
    Plain,
    /// With TLS that is terminated here.
    Tls {
        /// How.
        termination: Arc<Termination>,
        /// Within this time.
        limit: Duration,
        /// Whether a client that speaks HTTP instead is served, which its facts tell: it has an answer in HTTP.
        answers_http: bool,
    },
    /// With a ClientHello, perhaps, which is looked at and left; it is waited for so long.
    ClientHello(Duration),
}

/// Ends accepting without losing a connection that has been accepted.
#[derive(Debug, Default)]
pub struct Gate {
    closed: Cell<bool>,
    /// A connection has been accepted and is not served yet.
    holds_one: Cell<bool>,
}

impl Gate {
    /// Lets nothing more in. Whether the task may be ended now; otherwise it ends by itself, after the connection that it
    /// holds.
    pub fn close(&self) -> bool {
        self.closed.set(true);
        !self.holds_one.get()
    }
}

/// The places that a connection takes; given back on drop. One word instead of two permits: every connection has them as
/// long as it lives.
#[derive(Debug)]
pub struct Places(Rc<Limits>);

impl Drop for Places {
    fn drop(&mut self) {
        self.0.process.add_permits(1);
        self.0.frontend.add_permits(1);
    }
}

/// Accepts until the gate closes; each connection is served by a task of its own. `refuse` is told of those that ended for want
/// of a PROXY header. What `count` makes is kept from when a connection has its places until it ends, whatever it began with.
///
/// `serve` says how a connection is served whose protocol begins.
pub async fn accept<S, P, F, R, C, G>(port: Port, serve: S, refuse: R, count: C)
where
    S: Fn(Accepted, Arc<ConnectionFacts>) -> Service<P, F> + 'static,
    P: Future<Output = Option<F>> + 'static,
    F: Future<Output = ()> + 'static,
    R: Fn(&Unintroduced) + 'static,
    C: Fn() -> G + 'static,
    G: 'static,
{
    let handlers = Rc::new((serve, refuse));
    let faults = Rc::new(Faults {
        metrics: port.metrics,
        pace: Pace::default(),
        exhausted: Pace::default(),
    });
    // Connections have the options of the socket that they were accepted from: one call here instead of one for each.
    // What is written goes out as it was written; waiting for more (Nagle) only adds delay.
    let _ = port.socket.options().set_tcp_nodelay(true);
    keep_alive::set(port.socket.options(), port.keep_alive);
    let bound = port
        .socket
        .local_addr()
        .ok()
        .filter(|bound| !bound.ip().is_unspecified() && !is_transparent(&port.socket.options(), bound));
    while !port.gate.closed.get() {
        let (connection, peer) = match port.socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                faults.pause_if_exhausted(&error).await;
                continue;
            }
        };
        let accepted = Instant::now();
        let local = match bound {
            _ if port.socket.is_unix() => None,
            Some(bound) => Some(bound),
            // Which of the machine's addresses it was only the connection knows; without one it is gone.
            None => match connection.local_addr() {
                Ok(local) => Some(local),
                Err(_) => continue,
            },
        };
        let facts = ConnectionFacts {
            accepted,
            ends: Ends::of(peer, local),
            tls: None,
            preamble: None,
        };
        let accept_proxy = port
            .accept_proxy
            .as_ref()
            .filter(|accept| accept.trusts(facts.client_ip()));
        let mut admit = port.admit.as_ref();
        let mut seat = None;
        if accept_proxy.is_none()
            && let Some(admit) = admit.take()
        {
            // Before it has a place: who is refused takes none from the others.
            match admit(&Arc::new(facts.clone())) {
                Ok(has) => seat = has.map(Box::new),
                Err(Refused) => {
                    turn_away(&connection);
                    continue;
                }
            }
        }
        port.gate.holds_one.set(true);
        // Those behind it wait in the kernel's queue meanwhile.
        if let Some(rate) = &port.limits.rate {
            rate.wait().await;
        }
        // Taken after accepting: a place held by a worker that waits would be missing where a connection arrives. So each
        // worker may hold one connection more than the limit, unserved.
        let Some(places) = Limits::take(&port.limits, &faults.metrics).await else {
            return;
        };
        // Counted before its task begins: a worker that drains waits for it.
        let held = (places, count());
        port.gate.holds_one.set(false);
        let stage = if accept_proxy.is_none() && matches!(port.opening, Opening::Plain) {
            // Its protocol begins at once.
            match Stage::of((handlers.0)(connection, Arc::new(facts)), seat) {
                Some(stage) => stage,
                None => continue,
            }
        } else {
            let handlers = handlers.clone();
            let begin = Begin {
                facts,
                accept_proxy: accept_proxy.cloned(),
                admit: admit.cloned(),
                seat,
                opening: port.opening.clone(),
                faults: faults.clone(),
            };
            // Boxed, and made out here: the task has no room for it, neither for what it is made of.
            let beginning = boxed(|| async move {
                match begin.prepare(connection).await {
                    Ok(prepared) => {
                        let service = (handlers.0)(prepared.connection, Arc::new(prepared.facts));
                        Some((service, prepared.seat))
                    }
                    Err(Unserved::Unintroduced(ended)) => {
                        (handlers.1)(&ended);
                        None
                    }
                    Err(Unserved::Gone) => None,
                }
            });
            Stage::Beginning {
                beginning: Box::into_pin(beginning),
            }
        };
        tokio::task::spawn_local(Life { stage, _held: held });
    }
}

/// Whether connections may come to it that were made to other addresses than its own (ip(7), `IP_TRANSPARENT`).
fn is_transparent(socket: &SockRef<'_>, bound: &SocketAddr) -> bool {
    let transparent = match bound {
        SocketAddr::V4(_) => socket.ip_transparent_v4(),
        SocketAddr::V6(_) => socket.ip_transparent_v6(),
    };
    transparent.unwrap_or(false)
}

/// How a connection is served whose protocol begins.
pub enum Service<P, F> {
    /// So.
    Now(F),
    /// As this answers, if it does. It is what there is to do before the connection lies still. Its room is given back before it does:
    /// ten thousand connections that are silent have none for what they once needed.
    After(Pin<Box<P>>),
    /// Not at all.
    Not,
}

pin_project! {
    /// A connection from accept to end. Written by hand: an async block would keep what is being served beside the place that
    /// it was moved from.
    struct Life<B, P, F, G> {
        #[pin]
        stage: Stage<B, P, F>,
        // Given back last.
        _held: G,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<B, P, F> {
        // What comes before the protocol.
        Beginning { beginning: Pin<Box<B>> },
        // What comes before the connection lies still.
        Approaching { approaching: Pin<Box<P>>, seat: Option<Box<SourceSeat>> },
        // What it is from then on, with its place among those of its source.
        Serving { #[pin] serving: F, _seat: Option<Box<SourceSeat>> },
    }
}

impl<B, P, F> Stage<B, P, F> {
    /// Of a connection that is served so; none when it is not.
    fn of(service: Service<P, F>, seat: Option<Box<SourceSeat>>) -> Option<Self> {
        match service {
            Service::Now(serving) => Some(Self::Serving { serving, _seat: seat }),
            Service::After(approaching) => Some(Self::Approaching { approaching, seat }),
            Service::Not => None,
        }
    }
}

impl<B, P, F, G> Future for Life<B, P, F, G>
where
    B: Future<Output = Option<(Service<P, F>, Option<Box<SourceSeat>>)>>,
    P: Future<Output = Option<F>>,
    F: Future<Output = ()>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut stage = self.project().stage;
        if let StageProjection::Beginning { beginning } = stage.as_mut().project() {
            let begun = ready!(beginning.as_mut().poll(cx));
            match begun.and_then(|(service, seat)| Stage::of(service, seat)) {
                Some(next) => stage.set(next),
                None => return Poll::Ready(()),
            }
        }
        if let StageProjection::Approaching { approaching, seat } = stage.as_mut().project() {
            match ready!(approaching.as_mut().poll(cx)) {
                Some(serving) => {
                    let _seat = seat.take();
                    stage.set(Stage::Serving { serving, _seat });
                }
                None => return Poll::Ready(()),
            }
        }
        match stage.project() {
            StageProjection::Serving { serving, .. } => serving.poll(cx),
            StageProjection::Beginning { .. } | StageProjection::Approaching { .. } => Poll::Pending,
        }
    }
}

/// Closes with a reset: who is refused leaves nothing behind here, not even a socket that waits for stray packets.
fn turn_away(connection: &Accepted) {
    if let Some(socket) = connection.options() {
        let _ = socket.set_linger(Some(Duration::ZERO));
    }
}

impl Limits {
    /// A place for one connection, when there is one. None when the gateway is closing.
    async fn take(this: &Rc<Self>, metrics: &FrontendMetrics) -> Option<Places> {
        // The frontend's first: one that is full must not hold places that others could use.
        let frontend = place(&this.frontend, || metrics.delays_a_connection("frontend")).await?;
        let process = place(&this.process, || metrics.delays_a_connection("process")).await?;
        // From here on `Places` has them.
        frontend.forget();
        process.forget();
        Some(Places(this.clone()))
    }
}

/// One of these places; who has to wait for one is told of first.
async fn place(places: &Semaphore, waits: impl FnOnce()) -> Option<SemaphorePermit<'_>> {
    match places.try_acquire() {
        Ok(place) => Some(place),
        Err(TryAcquireError::Closed) => None,
        Err(TryAcquireError::NoPermits) => {
            waits();
            places.acquire().await.ok()
        }
    }
}

/// Why a connection came to nothing before its protocol began.
enum Unserved {
    /// The client has gone, or speaks no TLS.
    Gone,
    /// No PROXY header came.
    Unintroduced(Unintroduced),
}

/// A connection that was accepted, and what comes before its protocol.
struct Begin {
    facts: ConnectionFacts,
    /// A PROXY header comes first.
    accept_proxy: Option<Arc<AcceptProxy>>,
    /// What is decided when the header has said who it is.
    admit: Option<Admit>,
    /// Its place among those of its source, if it has one already.
    seat: Option<Box<SourceSeat>>,
    opening: Opening,
    faults: Rc<Faults>,
}

/// A connection whose protocol begins.
struct Prepared {
    connection: Accepted,
    facts: ConnectionFacts,
    /// Its place among those of its source, if those are counted.
    seat: Option<Box<SourceSeat>>,
}

impl Begin {
    /// What comes before the protocol.
    async fn prepare(self, mut connection: Accepted) -> Result<Prepared, Unserved> {
        let Self {
            mut facts,
            accept_proxy,
            admit,
            mut seat,
            opening,
            faults,
        } = self;
        if let Some(accept) = accept_proxy {
            let tcp = connection.tcp().map_err(|_| Unserved::Gone)?;
            facts = introduced(facts, tcp, &accept).await?;
        }
        if let Some(admit) = admit {
            match admit(&Arc::new(facts.clone())) {
                Ok(has) => seat = has.map(Box::new),
                Err(Refused) => {
                    turn_away(&connection);
                    return Err(Unserved::Gone);
                }
            }
        }
        let connection = match opening {
            Opening::Plain => connection,
            // Boxed: connections without TLS have no room for it.
            Opening::Tls {
                termination,
                limit,
                answers_http,
            } => {
                let tcp = connection.into_tcp().map_err(|_| Unserved::Gone)?;
                let accepted = Box::pin(termination.accept(tcp, limit, answers_http)).await;
                match accepted {
                    Ok(stream) => {
                        faults.metrics.handshake(tls::is_resumed(&stream));
                        facts.tls = Some(Box::new(tls::facts(&stream)));
                        Stream::Tls(Box::new(stream.into())).into()
                    }
                    Err(NoTls::PlainHttp(tcp)) => {
                        facts.preamble.get_or_insert_default().is_http_for_tls = true;
                        Stream::Plain(tcp).into()
                    }
                    Err(NoTls::Failed(error)) => {
                        faults.note(facts.client(), &error);
                        return Err(Unserved::Gone);
                    }
                }
            }
            Opening::ClientHello(limit) => {
                let tcp = connection.into_tcp().map_err(|_| Unserved::Gone)?;
                let looked = hello::peek(tcp, limit).await;
                let (tcp, hello) = looked.map_err(|_| Unserved::Gone)?;
                if hello.is_some() {
                    facts.preamble.get_or_insert_default().hello = hello;
                }
                Stream::Plain(tcp).into()
            }
        };
        Ok(Prepared {
            connection,
            facts,
            seat,
        })
    }
}

/// Reads the PROXY header.
async fn introduced(
    facts: ConnectionFacts,
    stream: &mut TcpStream,
    accept: &AcceptProxy,
) -> Result<ConnectionFacts, Unserved> {
    let peer = facts.client();
    let header = introduction::read(stream, accept.timeout).await.map_err(|fault| {
        Unserved::Unintroduced(Unintroduced {
            peer,
            local: facts.local(),
            since: facts.accepted,
            fault,
        })
    })?;
    let (client, local) = match ends(&header) {
        Some((client, local)) => (Some(client), Some(local)),
        None => (peer, facts.local()),
    };
    Ok(ConnectionFacts {
        ends: Ends::of(client, local),
        preamble: Some(Box::new(Preamble {
            proxy: Some(Introduced { peer, header }),
            ..Preamble::default()
        })),
        ..facts
    })
}

/// The client and where it connected to, when a header says so.
fn ends(header: &Header) -> Option<(SocketAddr, SocketAddr)> {
    let Header::Proxied(proxied) = header else {
        return None;
    };
    // An IPv4 address that was mapped because the other end has IPv6 is an IPv4 address.
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let (source, destination) = proxied.addresses.as_tcp()?;
    Some((plain(source), plain(destination)))
}

/// Where handshakes that failed are told of.
struct Faults {
    metrics: Arc<FrontendMetrics>,
    /// Of lines about handshakes.
    pace: Pace,
    /// Of lines about accepting.
    exhausted: Pace,
}

impl Faults {
    /// Each is counted; a line is written now and then, as any passer-by can make handshakes fail.
    fn note(&self, client: Option<SocketAddr>, error: &io::Error) {
        let client = client.map_or_else(|| "unix".to_owned(), |client| client.to_string());
        let reason = tls::reason(error);
        self.metrics.error(reason);
        let frontend = self.metrics.name();
        debug!(%client, frontend, reason, %error, "TLS handshake failed");
        if let Some(left_out) = self.pace.take() {
            let error = tls::in_words(error);
            info!(%client, frontend, reason, %error, left_out, "no TLS with a client");
        }
    }

    /// Most errors of accept are a client's that gave up. Running out of descriptors or memory is not, and trying again at once
    /// would only spin. Said now and then: it may last.
    async fn pause_if_exhausted(&self, error: &io::Error) {
        let gone = matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
        );
        if gone {
            return;
        }
        if let Some(left_out) = self.exhausted.take() {
            let frontend = self.metrics.name();
            warn!(%error, frontend, left_out, "cannot accept a connection; trying again every {PAUSE:?}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Long enough for connections to end and free what was missing, short enough not to be noticed by those who wait.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tcp::Relaying;

    #[test]
    fn a_connection_that_is_served_has_no_room_for_what_came_before() {
        let serving = size_of::<Relaying>() + size_of::<Option<Box<SourceSeat>>>();
        assert_eq!(size_of::<Stage<(), (), Relaying>>(), serving);
    }
}

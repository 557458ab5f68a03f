//! Accepting: within the limits, and never giving up because one connection failed.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::introduction::{self, Unintroduced};
use super::termination::Termination;
use super::{hello, tls};
use crate::config::{self, AcceptProxy};
use crate::keep_alive;
use crate::policy::ConnectionFacts;
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
}

/// A bind, as one worker serves it.
pub struct Port {
    /// The worker's socket.
    pub socket: TcpListener,
    /// Whether connections begin with a PROXY header.
    pub accept_proxy: Option<Arc<AcceptProxy>>,
    /// What comes before the protocol.
    pub opening: Opening,
    /// How silent connections are looked after.
    pub keep_alive: Option<config::KeepAlive>,
    /// How many connections there may be.
    pub limits: Limits,
    /// Whether to go on.
    pub gate: Rc<Gate>,
    /// Where connections that come to nothing are counted.
    pub metrics: Arc<FrontendMetrics>,
}

/// How a connection begins.
#[derive(Debug, Clone)]
pub enum Opening {
    /// With the protocol.
    Plain,
    /// With TLS that is terminated here, within this time.
    Tls(Arc<Termination>, Duration),
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

/// The places that a connection takes; given back on drop.
#[derive(Debug)]
pub struct Places {
    _process: OwnedSemaphorePermit,
    _frontend: OwnedSemaphorePermit,
}

/// Accepts until the gate closes; each connection is served by a task of its own. `refuse` is told of those that ended for want
/// of a PROXY header. What `count` makes is kept from when a connection has its places until it ends, whatever it began with.
pub async fn accept<S, F, R, C, G>(port: Port, serve: S, refuse: R, count: C)
where
    S: Fn(Stream, Arc<ConnectionFacts>) -> F + 'static,
    F: Future<Output = ()> + 'static,
    R: Fn(&Unintroduced) + 'static,
    C: Fn() -> G + 'static,
    G: 'static,
{
    let handlers = Rc::new((serve, refuse));
    let faults = Rc::new(Faults {
        metrics: port.metrics,
        pace: Pace::default(),
    });
    // Connections have the options of the socket that they were accepted from: one call here instead of one for each.
    // What is written goes out as it was written; waiting for more (Nagle) only adds delay.
    let _ = SockRef::from(&port.socket).set_tcp_nodelay(true);
    keep_alive::set(SockRef::from(&port.socket), port.keep_alive);
    let bound = port
        .socket
        .local_addr()
        .ok()
        .filter(|bound| !bound.ip().is_unspecified());
    while !port.gate.closed.get() {
        let (stream, peer) = match port.socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_if_exhausted(&error).await;
                continue;
            }
        };
        let accepted = Instant::now();
        port.gate.holds_one.set(true);
        // Taken after accepting: a place held by a worker that waits would be missing where a connection arrives. So each
        // worker may hold one connection more than the limit, unserved.
        let Some(places) = port.limits.take().await else { return };
        // Counted before its task begins: a worker that drains waits for it.
        let held = (places, count());
        port.gate.holds_one.set(false);
        let handlers = handlers.clone();
        let accept_proxy = port.accept_proxy.clone();
        let opening = port.opening.clone();
        let faults = faults.clone();
        tokio::task::spawn_local(async move {
            let _held = held;
            let prepared = prepare(stream, accepted, (peer, bound), accept_proxy, opening, &faults).await;
            let (serve, refuse) = &*handlers;
            match prepared {
                Ok((stream, facts)) => {
                    let served = serve(stream, facts);
                    // They hold the configuration that the connection was accepted under, and it may outlive that.
                    drop(handlers);
                    served.await;
                }
                Err(Unserved::Unintroduced(ended)) => refuse(&ended),
                Err(Unserved::Gone) => {}
            }
        });
    }
}

impl Limits {
    /// A place for one connection, when there is one. None when the gateway is closing.
    async fn take(&self) -> Option<Places> {
        // The frontend's first: one that is full must not hold places that others could use.
        let frontend = self.frontend.clone().acquire_owned().await.ok()?;
        let process = self.process.clone().acquire_owned().await.ok()?;
        Some(Places {
            _process: process,
            _frontend: frontend,
        })
    }
}

/// Why a connection came to nothing before its protocol began.
enum Unserved {
    /// The client has gone, or speaks no TLS.
    Gone,
    /// No PROXY header came.
    Unintroduced(Unintroduced),
}

/// What comes before the protocol.
async fn prepare(
    mut stream: TcpStream,
    accepted: Instant,
    (peer, bound): (SocketAddr, Option<SocketAddr>),
    accept_proxy: Option<Arc<AcceptProxy>>,
    opening: Opening,
    faults: &Faults,
) -> Result<(Stream, Arc<ConnectionFacts>), Unserved> {
    let local = match bound {
        Some(bound) => bound,
        // Which of the machine's addresses it was only the connection knows.
        None => stream.local_addr().map_err(|_| Unserved::Gone)?,
    };
    let proxy = match accept_proxy {
        Some(accept) if accept.trusts(peer.ip()) => {
            // Boxed, so that connections without a header have no room for one to keep.
            let read = Box::pin(introduction::read(&mut stream, accept.timeout)).await;
            let ended = |fault| {
                Unserved::Unintroduced(Unintroduced {
                    peer,
                    local,
                    since: accepted,
                    fault,
                })
            };
            Some(read.map_err(ended)?)
        }
        _ => None,
    };
    let (client, local) = ends(proxy.as_ref()).unwrap_or((peer, local));
    let mut facts = ConnectionFacts {
        accepted,
        client,
        local,
        peer,
        tls: None,
        hello: None,
        proxy: proxy.map(Box::new),
    };
    let stream = match opening {
        Opening::Plain => Stream::Plain(stream),
        // Boxed, here and below: connections without it have no room for it to keep.
        Opening::Tls(termination, limit) => match Box::pin(tls::accept(termination.config(), stream, limit)).await {
            Ok(stream) => {
                facts.tls = Some(Box::new(tls::facts(&stream)));
                Stream::Tls(Box::new(stream.into()))
            }
            Err(error) => {
                faults.note(client, &error);
                return Err(Unserved::Gone);
            }
        },
        Opening::ClientHello(limit) => {
            let looked = Box::pin(hello::peek(stream, limit)).await;
            let (stream, hello) = looked.map_err(|_| Unserved::Gone)?;
            facts.hello = hello.map(Box::new);
            Stream::Plain(stream)
        }
    };
    Ok((stream, Arc::new(facts)))
}

/// The client and where it connected to, when a header says so.
fn ends(header: Option<&Header>) -> Option<(SocketAddr, SocketAddr)> {
    let Some(Header::Proxied(proxied)) = header else {
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
    pace: Pace,
}

impl Faults {
    /// Each is counted; a line is written now and then, as any passer-by can make handshakes fail.
    fn note(&self, client: SocketAddr, error: &io::Error) {
        let reason = tls::reason(error);
        self.metrics.error(reason);
        let frontend = self.metrics.name();
        debug!(%client, frontend, reason, %error, "TLS handshake failed");
        if let Some(left_out) = self.pace.take() {
            info!(%client, frontend, reason, %error, left_out, "no TLS with a client");
        }
    }
}

/// Most errors of accept are a client's that gave up. Running out of descriptors or memory is not, and trying again at once
/// would only spin.
async fn pause_if_exhausted(error: &io::Error) {
    let gone = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    );
    if !gone {
        warn!(%error, "cannot accept a connection; trying again in {PAUSE:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Long enough for connections to end and free what was missing, short enough not to be noticed by those who wait.
const PAUSE: Duration = Duration::from_millis(100);

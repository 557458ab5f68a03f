//! Accepting: within the limits, and never giving up because one connection failed.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::introduction::{self, Unintroduced};
use super::stream::ClientStream;
use super::tls;
use crate::config::AcceptProxy;
use crate::policy::ConnectionFacts;
use crate::proxy_protocol::Header;

/// How many client connections there may be.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of the whole process.
    pub process: Arc<Semaphore>,
    /// Of the frontend.
    pub frontend: Option<Arc<Semaphore>>,
}

/// A bind, as one worker serves it.
pub struct Port {
    /// The worker's socket.
    pub socket: TcpListener,
    /// Whether connections begin with a PROXY header.
    pub accept_proxy: Option<Arc<AcceptProxy>>,
    /// How TLS is terminated, if it is.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// How many connections there may be.
    pub limits: Limits,
    /// Whether to go on.
    pub gate: Rc<Gate>,
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
    _frontend: Option<OwnedSemaphorePermit>,
}

/// Accepts until the gate closes; each connection is served by a task of its own. `refuse` is told of those that ended for want
/// of a PROXY header.
pub async fn accept<S, F, R>(port: Port, serve: S, refuse: R)
where
    S: Fn(ClientStream, Arc<ConnectionFacts>) -> F + 'static,
    F: Future<Output = ()> + 'static,
    R: Fn(&Unintroduced) + 'static,
{
    let handlers = Rc::new((serve, refuse));
    while !port.gate.closed.get() {
        let stream = match port.socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                pause_if_exhausted(&error).await;
                continue;
            }
        };
        port.gate.holds_one.set(true);
        // Taken after accepting: a place held by a worker that waits would be missing where a connection arrives. So each
        // worker may hold one connection more than the limit, unserved.
        let Some(places) = port.limits.take().await else { return };
        port.gate.holds_one.set(false);
        let handlers = handlers.clone();
        let accept_proxy = port.accept_proxy.clone();
        let tls = port.tls.clone();
        tokio::task::spawn_local(async move {
            let _places = places;
            let (serve, refuse) = &*handlers;
            match prepare(stream, accept_proxy, tls).await {
                Ok((stream, facts)) => serve(stream, facts).await,
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
        let frontend = match &self.frontend {
            Some(places) => Some(places.clone().acquire_owned().await.ok()?),
            None => None,
        };
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
    accept_proxy: Option<Arc<AcceptProxy>>,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Result<(ClientStream, Arc<ConnectionFacts>), Unserved> {
    // The client may be gone already; then there is nobody to serve.
    let peer = stream.peer_addr().map_err(|_| Unserved::Gone)?;
    let local = stream.local_addr().map_err(|_| Unserved::Gone)?;
    // Responses are written whole; waiting for more (Nagle) only adds delay.
    let _ = stream.set_nodelay(true);
    let proxy = match accept_proxy {
        Some(accept) if accept.trusts(peer.ip()) => {
            let since = Instant::now();
            // Boxed, so that connections without a header have no room for one to keep.
            let read = Box::pin(introduction::read(&mut stream, accept.timeout)).await;
            let ended = |fault| {
                Unserved::Unintroduced(Unintroduced {
                    peer,
                    local,
                    since,
                    fault,
                })
            };
            Some(read.map_err(ended)?)
        }
        _ => None,
    };
    let (stream, tls) = match tls {
        None => (ClientStream::Plain(stream), None),
        Some(config) => match tls::accept(&config, stream).await {
            Ok(stream) => {
                let facts = tls::facts(&stream);
                (ClientStream::Tls(Box::new(stream)), Some(facts))
            }
            Err(error) => {
                debug!(%peer, %error, "TLS handshake failed");
                return Err(Unserved::Gone);
            }
        },
    };
    let (client, local) = ends(proxy.as_ref()).unwrap_or((peer, local));
    let facts = ConnectionFacts {
        client,
        local,
        peer,
        tls,
        proxy,
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

//! Accepting: within the limits, and never giving up because one connection failed.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::stream::ClientStream;
use super::tls;
use crate::policy::ConnectionFacts;

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

/// Accepts until the gate closes; each connection is served by a task of its own.
pub async fn accept<S, F>(port: Port, serve: S)
where
    S: Fn(ClientStream, Arc<ConnectionFacts>) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let serve = Rc::new(serve);
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
        let serve = serve.clone();
        let tls = port.tls.clone();
        tokio::task::spawn_local(async move {
            let _places = places;
            if let Some((stream, facts)) = prepare(stream, tls).await {
                serve(stream, facts).await;
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

/// What comes before the protocol. None when the connection came to nothing.
async fn prepare(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Option<(ClientStream, Arc<ConnectionFacts>)> {
    // The client may be gone already; then there is nobody to serve.
    let peer = stream.peer_addr().ok()?;
    let local = stream.local_addr().ok()?;
    // Responses are written whole; waiting for more (Nagle) only adds delay.
    let _ = stream.set_nodelay(true);
    let (stream, tls) = match tls {
        None => (ClientStream::Plain(stream), None),
        Some(config) => match tls::accept(&config, stream).await {
            Ok(stream) => {
                let facts = tls::facts(&stream);
                (ClientStream::Tls(Box::new(stream)), Some(facts))
            }
            Err(error) => {
                debug!(%peer, %error, "TLS handshake failed");
                return None;
            }
        },
    };
    let facts = ConnectionFacts {
        client: peer,
        local,
        peer,
        tls,
    };
    Some((stream, Arc::new(facts)))
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

//! One exchange with a server: choosing it, reaching it, sending the request, waiting for the head of its response.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::attempts::Attempts;
use super::body::{BodyError, BodyFailure, RequestBody};
use super::client::Client;
use super::content::Content;
use super::error::ProxyError;
use super::introduction::introduction;
use super::local::Local;
use super::record::Record;
use super::turns::Late;
use crate::backend::{Backend, ConnectError, Ended, PickKey, Session, Take, Upstream};
use crate::stream::Stream;

/// A connection to a server, held for one exchange.
pub struct Lease {
    upstream: Box<Upstream<RequestBody>>,
    local: Rc<Local>,
    /// The one client that the connection may be used for; none when it is anybody's.
    owner: Option<Rc<Client>>,
    backend: Arc<Backend>,
    server: usize,
    /// Counts the exchange on the server until it is over.
    session: Session,
}

impl Lease {
    /// Moves the response's body along.
    pub fn poll_body(
        &mut self,
        incoming: &mut Content,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let read = |incoming: &mut Content, cx: &mut Context<'_>| Pin::new(incoming).poll_frame(cx);
        if let Poll::Ready(frame) = read(incoming, cx) {
            return Poll::Ready(frame);
        }
        // The body waits for the connection, and this task is what moves the connection.
        let ended = self.upstream.poll_io(cx).is_ready();
        match read(incoming, cx) {
            // A connection that has ended will bring nothing more, and the body has not ended.
            Poll::Pending if ended => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            frame => frame,
        }
    }

    /// Ready when the exchange has to end, because its server went down or an operator said so.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.session.poll_ended(cx)
    }

    /// The server has gone over to another protocol: its connection, what was read of it behind the head, and the place
    /// that is held at the server.
    pub fn into_tunnel(self) -> (Stream, Bytes, Session) {
        let parts = self.upstream.connection.into_parts();
        (parts.io.into_inner(), parts.read_buf, self.session)
    }

    /// The backend that the server is of.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The exchange is over and the response has come whole: keeps the connection for the next one, if it can be kept.
    pub fn give_back(mut self) {
        if self.backend.server_close {
            return;
        }
        // One more turn lets hyper finish the message and become ready for the next.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if self.upstream.poll_io(&mut cx).is_ready() || !self.upstream.sender.is_ready() {
            return;
        }
        match self.owner {
            Some(client) => client.connection.private.put(&self.backend, self.server, self.upstream),
            None => {
                let now = tokio::time::Instant::now();
                self.local.pool(&self.backend).put(self.server, self.upstream, now);
            }
        }
    }
}

/// Sends a request to a server of the backend and waits for the head of its response.
///
/// Connecting is tried as often as `retries` says. A request that was sent on a kept connection which the server had
/// closed meanwhile is sent again, once, on a fresh one: always when nothing of it had been written, and when it had been,
/// only if it may be repeated (RFC 9110, section 9.2.2: idempotent, and without a body here).
pub async fn send(
    local: &Rc<Local>,
    client: &Rc<Client>,
    record: &mut Record,
    backend: &Arc<Backend>,
    head: http::request::Parts,
    body: RequestBody,
) -> Result<(Response<Content>, Lease), ProxyError> {
    let failure = body.failure();
    let mut request = Request::from_parts(head, body);
    let key = PickKey {
        client: record.client_address().ip(),
    };
    let mut attempts = Attempts::new(backend, key);
    let mut failure_to_connect = None;
    let mut fresh_only = false;
    loop {
        let (server, session) = match attempts.take(local) {
            Take::Server(server, session) => (server, session),
            Take::Full => {
                record.queue_begins();
                let waited = attempts.wait().await;
                record.queue_ends();
                client.turns.tick();
                waited?
            }
            Take::Nothing => return Err(failure_to_connect.unwrap_or(ProxyError::NoServer)),
        };
        record.server_chosen(server);
        if !request.headers().contains_key(header::HOST) {
            // An HTTP/1.0 client need not say it; to an HTTP/1.1 server one has to (RFC 9112, section 3.2).
            let address = backend.servers[server].address();
            if let Some(Ok(host)) = address.map(|address| HeaderValue::try_from(address.to_string())) {
                request.headers_mut().insert(header::HOST, host);
            }
        }

        let is_private = backend.servers[server].wants_introduction();
        let kept = if fresh_only || backend.server_close {
            None
        } else if is_private {
            let kept = client.connection.private.take(backend, server);
            kept.filter(|kept| kept.leads_to == backend.servers[server].moving_address())
        } else {
            take(local, backend, server)
        };
        let upstream = match kept {
            Some(upstream) => upstream,
            None => match connect(client, record, backend, server).await {
                Ok(upstream) => upstream,
                Err(error) => {
                    backend.servers[server].connect_failed(&error);
                    let failed = match &error {
                        ConnectError::Lack(_) => ProxyError::OutOfResources,
                        _ => ProxyError::Connect,
                    };
                    let Some(pause) = attempts.failed(server, session, &error) else {
                        return Err(failed);
                    };
                    failure_to_connect = Some(failed);
                    record.retried();
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                        record.connected(pause);
                        client.turns.tick();
                    }
                    continue;
                }
            },
        };

        let reused = upstream.served > 0;
        let spare = (reused && is_replayable(&request)).then(|| replay(&request, client));
        let mut lease = Lease {
            upstream,
            local: local.clone(),
            owner: is_private.then(|| client.clone()),
            backend: backend.clone(),
            server,
            session,
        };
        record.sending();
        client.turns.await_server_for(backend.timeouts.server);
        match exchange(&mut lease, client, &failure, request).await {
            Ok(response) => {
                client.turns.server_moved();
                return Ok((response.map(Content::Http1), lease));
            }
            Err(Sent::Failed(error)) => return Err(error),
            Err(Sent::Nothing(unsent)) if reused => request = *unsent,
            Err(Sent::Broken) if let Some(spare) = spare => request = spare,
            Err(Sent::Nothing(_) | Sent::Broken) => return Err(ProxyError::BadResponse),
        }
        client.turns.server_moved();
        attempts.stay(server, lease.session);
        // The other kept connections of this server are likely as dead as this one was.
        local.pool(backend).clear(server);
        client.connection.private.clear(backend, server);
        fresh_only = true;
        record.retried();
    }
}

/// How sending failed.
enum Sent {
    /// Nothing was written: here is the request, whole.
    Nothing(Box<Request<RequestBody>>),
    /// Something may have been written, and the connection ended before a response began.
    Broken,
    /// It failed for a reason that sending again does not mend.
    Failed(ProxyError),
}

async fn exchange(
    lease: &mut Lease,
    client: &Rc<Client>,
    failure: &BodyFailure,
    request: Request<RequestBody>,
) -> Result<Response<Incoming>, Sent> {
    let mut response = pin!(lease.upstream.sender.try_send_request(request));
    let upstream = &mut lease.upstream;
    let session = &mut lease.session;
    let result = poll_fn(|cx| {
        if let Poll::Ready(why) = session.poll_ended(cx) {
            return Poll::Ready(Err(Sent::Failed(why.into())));
        }
        let ended = upstream.poll_io(cx).is_ready();
        if let Poll::Ready(result) = response.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(|mut error| match error.take_message() {
                Some(unsent) => Sent::Nothing(Box::new(unsent)),
                None => Sent::classify(error.error()),
            }));
        }
        if ended {
            return Poll::Ready(Err(Sent::Broken));
        }
        match client.turns.late() {
            Some(Late::Server) => Poll::Ready(Err(Sent::Failed(ProxyError::ServerTimeout))),
            Some(Late::Client) => Poll::Ready(Err(Sent::Failed(ProxyError::ClientTimeout))),
            _ => Poll::Pending,
        }
    })
    .await;
    // Whatever the server's connection made of it: a body that failed is the client's doing.
    match (result, failure.get()) {
        (Err(_), Some(BodyError::TooLarge)) => Err(Sent::Failed(ProxyError::BodyTooLarge)),
        (Err(_), Some(BodyError::Broken)) => Err(Sent::Failed(ProxyError::BadBody)),
        (result, _) => result,
    }
}

impl Sent {
    fn classify(error: &hyper::Error) -> Self {
        // A parse error means that a response did begin.
        if error.is_parse() {
            Self::Failed(ProxyError::BadResponse)
        } else {
            Self::Broken
        }
    }
}

/// A kept connection to where the server is now.
fn take(local: &Rc<Local>, backend: &Backend, server: usize) -> Option<Box<Upstream<RequestBody>>> {
    let mut pool = local.pool(backend);
    let upstream = pool.take(server)?;
    if upstream.leads_to == backend.servers[server].moving_address() {
        return Some(upstream);
    }
    // Its name leads elsewhere; others may lead there already, but telling them apart is not worth it.
    pool.clear(server);
    None
}

async fn connect(
    client: &Rc<Client>,
    record: &mut Record,
    backend: &Arc<Backend>,
    server: usize,
) -> Result<Box<Upstream<RequestBody>>, ConnectError> {
    let started = client.turns.tick();
    // Asked for first: if it moves meanwhile, the connection is one too few in the pool and not one too many.
    let leads_to = backend.servers[server].moving_address();
    let to = &backend.servers[server];
    let header = to.wants_introduction().then(|| introduction(&client.facts));
    let connected = to.connect_for(header.as_ref(), backend.timeouts.connect).await;
    record.connected(started.elapsed());
    let stream = connected?;
    backend.servers[server].connected();
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_RESPONSE_HEADERS)
        .max_buf_size(UPSTREAM_BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    client.turns.tick();
    Ok(Box::new(Upstream {
        sender,
        connection,
        served: 0,
        leads_to,
    }))
}

fn is_replayable(request: &Request<RequestBody>) -> bool {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    );
    idempotent && request.body().is_end_stream()
}

fn replay(request: &Request<RequestBody>, client: &Rc<Client>) -> Request<RequestBody> {
    let mut spare = Request::new(RequestBody::empty(client));
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.version_mut() = request.version();
    *spare.headers_mut() = request.headers().clone();
    spare
}

/// As many as hyper's own default; a response with more is not usable.
const MAX_RESPONSE_HEADERS: usize = 100;

/// Bytes of a response held for one connection at most: enough for the largest head that servers send, and for reading bulk
/// bodies in few calls.
const UPSTREAM_BUFFER: usize = 64 * 1024;

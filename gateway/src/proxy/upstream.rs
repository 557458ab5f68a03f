//! One exchange with a server: choosing it, reaching it, sending the request, waiting for the head of its response.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;

use super::asked_name;
use super::attempts::Attempts;
use super::body::{BodyFailure, RequestBody};
use super::client::Client;
use super::content::Content;
use super::error::ProxyError;
use super::informational::Heard;
use super::introduction::introduction;
use super::local::Local;
use super::multiplexed;
use super::record::Record;
use super::spliced::{Bulk, Spliced};
use super::turns::Late;
use super::upload::Upload;
use crate::backend::{Backend, ConnectError, Ended, Session, StreamPlace, Take, Upstream, Wishes};
use crate::config::{ResponseLimits, Reuse};
use crate::stream::Stream;

/// A connection to a server, or a stream of one, held for one exchange.
pub struct Lease {
    link: Link,
    local: Rc<Local>,
    /// The one client that the connection may be used for; none when it is anybody's.
    owner: Option<Rc<Client>>,
    backend: Arc<Backend>,
    server: usize,
    /// Counts the exchange on the server until it is over.
    session: Session,
    /// The response's body is long enough to be worth the kernel's moving it, and it can be.
    bulk: Option<Bulk>,
}

/// How the exchange reaches the server.
pub(super) enum Link {
    /// By a connection that it has to itself until it is over, and moves.
    Http1 {
        upstream: Box<Upstream<RequestBody>>,
        has_ended: bool,
    },
    /// By a stream, whose connection moves by itself; what of the request's body has not gone yet, the exchange moves.
    Http2(Box<OnStream>),
    /// By what was an HTTP/1.1 connection: the kernel moves the body. None only while it changes hands.
    Spliced(Option<Box<Spliced>>),
}

/// A stream of a connection to a server. Boxed: connections of HTTP/1 have no room for it to keep.
pub(super) struct OnStream {
    pub(super) _place: StreamPlace,
    pub(super) upload: Upload,
}

impl Lease {
    /// Moves the response's body along.
    pub fn poll_body(
        &mut self,
        incoming: &mut Content,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Content::Spliced(_) = incoming {
            return self.poll_spliced(incoming, cx);
        }
        if let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        // hyper has handed out all that it has taken for the body, and is asked for no more.
        if let Some(bulk) = self.bulk.take() {
            self.splice(bulk, incoming);
            return self.poll_spliced(incoming, cx);
        }
        self.poll_request(cx);
        match &self.link {
            Link::Http2(_) | Link::Spliced(_) => Poll::Pending,
            // The body waited for the connection, which has been moved now.
            Link::Http1 { has_ended, .. } => match Pin::new(incoming).poll_frame(cx) {
                // A connection that has ended will bring nothing more, and the body has not ended.
                Poll::Pending if *has_ended => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                frame => frame,
            },
        }
    }

    /// Moves what is left of the request along, and with HTTP/1 the connection.
    pub fn poll_request(&mut self, cx: &mut Context<'_>) {
        match &mut self.link {
            Link::Http1 { upstream, has_ended } => *has_ended = *has_ended || upstream.poll_io(cx).is_ready(),
            Link::Http2(stream) => stream.upload.poll(cx),
            // It had gone whole.
            Link::Spliced(_) => {}
        }
    }

    /// The body is wanted in this process.
    pub fn copy(&mut self) {
        self.bulk = None;
    }

    /// Takes the connection from hyper, which has read no more than the head and the body's first bytes.
    fn splice(&mut self, bulk: Bulk, incoming: &mut Content) {
        let Some(left) = incoming.size_hint().exact() else {
            return;
        };
        match std::mem::replace(&mut self.link, Link::Spliced(None)) {
            Link::Http1 {
                upstream,
                has_ended: false,
            } => {
                self.link = Link::Spliced(Some(Box::new(Spliced::new(*upstream, bulk))));
                *incoming = Content::Spliced(left);
            }
            link => self.link = link,
        }
    }

    fn poll_spliced(&mut self, incoming: &mut Content, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match (&mut self.link, incoming) {
            (Link::Spliced(Some(spliced)), Content::Spliced(left)) => {
                let frame = spliced.poll(cx, left);
                let moved = spliced.take_spliced();
                if moved > 0 {
                    self.local.registry().process().spliced(moved);
                }
                frame
            }
            _ => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
        }
    }

    /// The server's position in its backend.
    pub fn server(&self) -> usize {
        self.server
    }

    /// The name of the server that it leads to.
    pub fn server_name(&self) -> &Arc<str> {
        &self.backend.servers[self.server].name
    }

    /// Ready when the exchange has to end, because its server went down or an operator said so.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.session.poll_ended(cx)
    }

    /// The server has gone over to another protocol: its connection, what was read of it behind the head, and the place
    /// that is held at the server.
    ///
    /// None with HTTP/2, which has no such thing (RFC 9113, section 8.6).
    pub fn into_tunnel(self) -> Option<(Stream, Bytes, Session)> {
        let Link::Http1 { upstream, .. } = self.link else {
            return None;
        };
        let parts = upstream.connection.into_parts();
        Some((parts.io.into_inner(), parts.read_buf, self.session))
    }

    /// The backend that the server is of.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The exchange is over and the response has come whole: keeps the connection for the next one, if it can be kept.
    pub fn give_back(self) {
        if self.backend.server_close {
            return;
        }
        let limits = &self.backend.response_limits;
        let upstream = match self.link {
            Link::Http1 {
                upstream,
                has_ended: false,
            } => Some(upstream),
            Link::Spliced(Some(spliced)) => spliced.into_upstream(&builder(limits)),
            _ => None,
        };
        let Some(mut upstream) = upstream else {
            return;
        };
        // One more turn lets hyper finish the message and become ready for the next.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if upstream.poll_io(&mut cx).is_ready() || !upstream.sender.is_ready() {
            return;
        }
        match self.owner {
            Some(client) => client.connection.private.put(&self.backend, self.server, upstream),
            None => {
                let now = tokio::time::Instant::now();
                self.local.pool(&self.backend).put(self.server, upstream, now);
            }
        }
    }
}

/// Sends a request to a server of the backend and waits for the head of its response.
///
/// Connecting is tried as often as `retries` says. A request that was sent on a kept connection which the server had
/// closed meanwhile is sent again, once, on a fresh one: always when nothing of it had been written, and when it had been,
/// only if it may be repeated (RFC 9110, section 9.2.2: idempotent, and without a body here).
///
/// What few requests wait for is boxed: each request would be moved about with room for it.
pub async fn send(
    local: &Rc<Local>,
    client: &Rc<Client>,
    record: &mut Record,
    backend: &Arc<Backend>,
    attempts: &mut Attempts,
    head: http::request::Parts,
    body: RequestBody,
) -> Result<(Response<Content>, Lease), ProxyError> {
    let failure = body.failure();
    let mut request = Request::from_parts(head, body);
    let mut failure_to_connect = None;
    let mut fresh_only = false;
    let mut replays = 0;
    loop {
        let (server, mut session) = match attempts.take(local) {
            Take::Server(server, session) => (server, session),
            Take::Full => {
                record.queue_begins();
                let waited = Box::pin(attempts.wait(local)).await;
                record.queue_ends();
                client.turns.tick();
                waited?
            }
            Take::Nothing => return Err(failure_to_connect.unwrap_or(ProxyError::NoServer)),
        };
        record.server_chosen(server, request.headers_mut());
        if !request.headers().contains_key(header::HOST) {
            // An HTTP/1.0 client need not say it; to an HTTP/1.1 server one has to (RFC 9112, section 3.2).
            let address = backend.servers[server].address();
            if let Some(Ok(host)) = address.map(|address| HeaderValue::try_from(address.to_string())) {
                request.headers_mut().insert(header::HOST, host);
            }
        }

        let reuse = backend.pool.reuse;
        let is_private = backend.servers[server].wants_introduction() || reuse == Reuse::Never;
        let name = backend.servers[server]
            .wants_name()
            .then(|| asked_name::of_request(request.headers()));
        let name = name.flatten();
        if backend.servers[server].http2 {
            // A connection that was asked to be one name serves no other.
            let alone = is_private || backend.server_close || name.is_some();
            let place = match multiplexed::reach(local, client, record, backend, server, name.as_ref(), alone).await {
                Ok(place) => place,
                Err(error) => {
                    let failed = connect_failed(backend, server, &error);
                    let Some(pause) = attempts.failed(server, session, &error) else {
                        return Err(failed);
                    };
                    failure_to_connect = Some(failed);
                    record.retried();
                    Box::pin(pause_for(pause, client, record)).await;
                    continue;
                }
            };
            record.sending();
            client.turns.await_server_for(backend.timeouts.server);
            let tls = backend.servers[server].has_tls();
            let sent = multiplexed::exchange(place, client, &failure, request, tls, &mut session).await;
            client.turns.server_moved();
            match sent {
                Ok((response, link)) => {
                    let lease = Lease {
                        link,
                        local: local.clone(),
                        owner: None,
                        backend: backend.clone(),
                        server,
                        session,
                        bulk: None,
                    };
                    return Ok((response, lease));
                }
                Err(Sent::Failed(error)) => return Err(error),
                Err(Sent::Nothing(unsent)) if replays < MAX_REPLAYS => request = *unsent,
                Err(Sent::Nothing(_) | Sent::Broken) => return Err(ProxyError::EmptyResponse),
            }
            replays += 1;
            attempts.stay(server, session);
            record.retried();
            continue;
        }
        let kept = if fresh_only || backend.server_close {
            None
        } else if is_private {
            let kept = client.connection.private.take(backend, server, name.as_ref());
            kept.filter(|kept| kept.leads_to == backend.servers[server].moving_address())
        } else {
            match (reuse, attempts.is_first_request) {
                (Reuse::Safe, true) => None,
                (Reuse::Aggressive, true) => take(local, backend, server, PROVEN, name.as_ref()),
                _ => take(local, backend, server, 1, name.as_ref()),
            }
        };
        let mut upstream = match kept {
            Some(upstream) => upstream,
            None => match Box::pin(connect(client, record, backend, server, name)).await {
                Ok(upstream) => upstream,
                Err(error) => {
                    let failed = connect_failed(backend, server, &error);
                    let Some(pause) = attempts.failed(server, session, &error) else {
                        return Err(failed);
                    };
                    failure_to_connect = Some(failed);
                    record.retried();
                    Box::pin(pause_for(pause, client, record)).await;
                    continue;
                }
            },
        };

        let reused = upstream.served > 0;
        let is_bodiless = request.body().is_end_stream();
        let spare = (reused && is_replayable(&request)).then(|| replay(&request, client));
        record.sending();
        client.turns.await_server_for(backend.timeouts.server);
        let heard = client.takes_informational().then(|| Heard::before(&mut request));
        match exchange(&mut upstream, &mut session, client, &failure, heard, request).await {
            Ok(response) => {
                client.turns.server_moved();
                let bulk = is_bodiless.then(|| Bulk::of(&response, &upstream, client)).flatten();
                let lease = Lease {
                    link: Link::Http1 {
                        upstream,
                        has_ended: false,
                    },
                    local: local.clone(),
                    owner: is_private.then(|| client.clone()),
                    backend: backend.clone(),
                    server,
                    session,
                    bulk,
                };
                return Ok((response.map(Content::Http1), lease));
            }
            Err(Sent::Failed(error)) => return Err(error),
            Err(Sent::Nothing(unsent)) if reused => request = *unsent,
            Err(Sent::Broken) if let Some(spare) = spare => request = spare,
            Err(Sent::Nothing(_) | Sent::Broken) => return Err(ProxyError::EmptyResponse),
        }
        client.turns.server_moved();
        attempts.stay(server, session);
        // The other kept connections of this server are likely as dead as this one was.
        local.pool(backend).clear(server);
        client.connection.private.clear(backend, server);
        fresh_only = true;
        record.retried();
    }
}

/// How sending failed.
pub(super) enum Sent {
    /// Nothing was written: here is the request, whole.
    Nothing(Box<Request<RequestBody>>),
    /// Something may have been written, and the connection ended before a response began.
    Broken,
    /// It failed for a reason that sending again does not mend.
    Failed(ProxyError),
}

async fn exchange(
    upstream: &mut Upstream<RequestBody>,
    session: &mut Session,
    client: &Rc<Client>,
    failure: &BodyFailure,
    heard: Option<Heard>,
    request: Request<RequestBody>,
) -> Result<Response<Incoming>, Sent> {
    let mut response = pin!(upstream.sender.try_send_request(request));
    let connection = &mut upstream.connection;
    let result = poll_fn(|cx| {
        if let Poll::Ready(why) = session.poll_ended(cx) {
            return Poll::Ready(Err(Sent::Failed(why.into())));
        }
        let ended = Pin::new(&mut *connection).poll(cx).is_ready();
        if let Some(heard) = &heard {
            heard.pass_on(client);
        }
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
        (Err(_), Some(failed)) => Err(Sent::Failed(failed.into())),
        (result, None) | (result @ Ok(_), _) => result,
    }
}

impl Sent {
    fn classify(error: &hyper::Error) -> Self {
        // A parse error means that a response did begin.
        if error.is_parse_too_large() {
            Self::Failed(ProxyError::InvalidResponse("response-head-too-large"))
        } else if error.is_parse() {
            Self::Failed(ProxyError::InvalidResponse("bad-response-head"))
        } else {
            Self::Broken
        }
    }
}

/// A kept connection under this name to where the server is now, that has served so many requests.
fn take(
    local: &Rc<Local>,
    backend: &Backend,
    server: usize,
    served: u64,
    name: Option<&ServerName<'static>>,
) -> Option<Box<Upstream<RequestBody>>> {
    let mut pool = local.pool(backend);
    let upstream = pool.take(server, served, name)?;
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
    name: Option<ServerName<'static>>,
) -> Result<Box<Upstream<RequestBody>>, ConnectError> {
    let (stream, leads_to) = open(client, record, backend, server, name.as_ref()).await?;
    let is_plain = !stream.is_tls();
    let (sender, connection) = builder(&backend.response_limits)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    client.turns.tick();
    Ok(Box::new(Upstream {
        sender,
        connection,
        is_plain,
        served: 0,
        leads_to,
        name,
    }))
}

/// How HTTP/1.1 is spoken to a server whose responses have these limits.
fn builder(limits: &ResponseLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_headers(limits.headers)
        .max_header_size(limits.head)
        .max_buf_size(limits.head.max(UPSTREAM_BUFFER));
    builder
}

/// Opens a connection to a server. Answers with where it leads, too, if the server may move.
pub(super) async fn open(
    client: &Rc<Client>,
    record: &mut Record,
    backend: &Arc<Backend>,
    server: usize,
    name: Option<&ServerName<'static>>,
) -> Result<(Stream, Option<SocketAddr>), ConnectError> {
    let started = client.turns.tick();
    // Asked for first: if it moves meanwhile, the connection is one too few in the pool and not one too many.
    let leads_to = backend.servers[server].moving_address();
    let to = &backend.servers[server];
    let header = to.wants_introduction().then(|| introduction(&client.facts));
    let wishes = Wishes {
        introduction: header.as_ref(),
        name,
    };
    let connected = to.connect_for(wishes, backend.timeouts.connect).await;
    record.connected(started.elapsed());
    client.turns.tick();
    let stream = connected?;
    backend.servers[server].connected();
    Ok((stream, leads_to))
}

fn connect_failed(backend: &Backend, server: usize, error: &ConnectError) -> ProxyError {
    backend.servers[server].connect_failed(error);
    match error {
        ConnectError::Lack(_) => ProxyError::OutOfResources,
        _ => ProxyError::Connect,
    }
}

async fn pause_for(pause: Duration, client: &Rc<Client>, record: &mut Record) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
        record.connected(pause);
        client.turns.tick();
    }
}

fn is_replayable(request: &Request<RequestBody>) -> bool {
    is_repeatable(request.method()) && request.body().is_end_stream()
}

/// Whether a request of this method may be sent twice (RFC 9110, section 9.2.2).
pub(super) fn is_repeatable(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    )
}

fn replay(request: &Request<RequestBody>, client: &Rc<Client>) -> Request<RequestBody> {
    let mut spare = Request::new(RequestBody::empty(client));
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.version_mut() = request.version();
    *spare.headers_mut() = request.headers().clone();
    spare
}

/// How often a request is sent again that servers say they have not looked at: enough to get through a server that is being
/// replaced, and not enough to go on with one that refuses everything.
const MAX_REPLAYS: usize = 3;

/// Requests after which a connection is known to be one that the server keeps: it was used again once.
const PROVEN: u64 = 2;

/// Bytes of a response held for one connection at most, unless its head may be longer: enough for reading bulk bodies in few
/// calls.
const UPSTREAM_BUFFER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function of seven arguments answers.
    fn size_of_future<A, B, C, D, E, F, G, R>(_: impl FnOnce(A, B, C, D, E, F, G) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn a_request_is_not_moved_about_with_room_for_what_is_rare() {
        let (send, reach) = (size_of_future(send), size_of_future(multiplexed::reach));
        assert!(send <= 2304, "{send}");
        assert!(reach <= 512, "{reach}");
    }
}

//! One exchange with a server: choosing it, reaching it, sending the request, waiting for the head of its response.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body, Frame};
use rustls_pki_types::ServerName;

use super::asked_name;
use super::attempts::Attempts;
use super::body::{BodyFailure, RequestBody};
use super::client::Client;
use super::content::{Content, Leased};
use super::error::ProxyError;
use super::extended_connect;
use super::headers;
use super::http2::tunnel::StreamIo;
use super::informational;
use super::introduction::introduction;
use super::local::Local;
use super::multiplexed;
use super::record::Record;
use super::spliced::Spliced;
use super::strict;
use super::turns::Late;
use super::upgrade::ServerEnd;
use super::upload::Upload;
use crate::backend::http1::{self, HeadError, ReceiveError, SendError};
use crate::backend::{Backend, ConnectError, Ended, Session, StreamPlace, Take, Upstream, Wishes};
use crate::config::Reuse;
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
    /// Why the request's content broke off behind the response's head, until the response ends with it.
    broken: Option<ProxyError>,
}

/// How the exchange reaches the server.
pub(super) enum Link {
    /// By a connection that it has to itself until it is over, and moves.
    Http1 {
        upstream: Box<Upstream>,
        /// What of the request has not gone; none when all of it has.
        upload: Option<Box<RequestBody>>,
        /// The kernel moves the body.
        spliced: Option<Box<Spliced>>,
    },
    /// By a stream, whose connection moves by itself; what of the request's body has not gone yet, the exchange moves.
    Http2(Box<OnStream>),
}

/// A stream of a connection to a server. Boxed: connections of HTTP/1 have no room for it to keep.
pub(super) struct OnStream {
    pub(super) place: StreamPlace,
    pub(super) upload: Upload,
    /// The protocol that the request asks to go on in, where it does.
    pub(super) asked: Option<Protocol>,
}

impl Link {
    /// Makes the answer to an extended CONNECT the one that an upgrade gets.
    fn switch(&self, response: &mut Response<Content>, head: &http::request::Parts) {
        if let Self::Http2(stream) = self
            && let Some(protocol) = &stream.asked
        {
            extended_connect::switch(response, head, protocol);
        }
    }
}

impl Lease {
    /// Moves the response's body along.
    pub fn poll_body(
        &mut self,
        incoming: &mut Content,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Content::Leased(leased) = incoming else {
            if let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) {
                return Poll::Ready(frame);
            }
            self.poll_request(cx);
            return Poll::Pending;
        };
        let Link::Http1 { upstream, spliced, .. } = &mut self.link else {
            return Poll::Ready(Some(Err(io::ErrorKind::Unsupported.into())));
        };
        let connection = &mut upstream.connection;
        let polled = match spliced {
            None => connection.poll_content(cx),
            Some(spliced) => {
                let polled = spliced.poll(cx, connection);
                let moved = spliced.take_spliced();
                if moved > 0 {
                    self.local.registry().process().spliced(moved);
                }
                polled
            }
        };
        if polled.is_pending() {
            self.poll_request(cx);
            return match self.broken.take() {
                Some(error) => Poll::Ready(Some(Err(io::Error::other(error)))),
                None => Poll::Pending,
            };
        }
        leased.left = connection.left();
        leased.has_ended = connection.has_received();
        polled.map_ok(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                headers::strip_trailers(trailers);
            }
            frame
        })
    }

    /// Moves what is left of the request along. When its content breaks off, so does the response.
    pub fn poll_request(&mut self, cx: &mut Context<'_>) {
        match &mut self.link {
            Link::Http1 { upstream, upload, .. } => {
                let Some(body) = upload else { return };
                let Poll::Ready(sent) = upstream.connection.poll_send(cx, &mut **body) else {
                    return;
                };
                *upload = None;
                self.broken = match sent {
                    // A server that takes no more of the request has answered it all the same.
                    Ok(()) | Err(SendError::Io(_)) => None,
                    Err(SendError::Content(error)) => Some(error.into()),
                    Err(SendError::Length) => Some(ProxyError::BadBody),
                };
                if self.broken.is_some() {
                    cx.waker().wake_by_ref();
                }
            }
            Link::Http2(stream) => stream.upload.poll(cx),
        }
    }

    /// The body is wanted in this process.
    pub fn copy(&mut self) {
        if let Link::Http1 { spliced, .. } = &mut self.link {
            *spliced = None;
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

    /// The server has gone over to another protocol: its end of the tunnel, what was read of it behind the head, and the
    /// place that is held at the server. `incoming` is the response's content. None when no tunnel was asked for, and
    /// when the rest of the request would stand in the way.
    pub fn into_tunnel(self, incoming: Content) -> Option<(ServerEnd, Bytes, Session)> {
        match (self.link, incoming) {
            (Link::Http1 { upstream, .. }, _) if !upstream.connection.has_sent() => None,
            (Link::Http1 { upstream, .. }, _) => {
                let (stream, early) = upstream.connection.into_parts();
                Some((ServerEnd::Connection(stream), early, self.session))
            }
            (Link::Http2(stream), Content::Http2(content)) => {
                let OnStream { place, upload, asked } = *stream;
                asked?;
                let io = StreamIo::new(content, upload.into_stream());
                Some((ServerEnd::Stream(Box::new(io), place), Bytes::new(), self.session))
            }
            (Link::Http2(_), _) => None,
        }
    }

    /// Whether the client has content yet that the server has answered without waiting for.
    pub fn has_upload(&self) -> bool {
        match &self.link {
            Link::Http1 { upload, .. } => upload.is_some(),
            Link::Http2(stream) => !stream.upload.is_over(),
        }
    }

    /// The backend that the server is of.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The exchange is over and the response has come whole: keeps the connection for the next one, if it can be kept.
    pub fn give_back(self) {
        let Link::Http1 { mut upstream, .. } = self.link else {
            return;
        };
        if self.backend.server_close || !upstream.connection.is_idle() {
            return;
        }
        upstream.connection.rest();
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
    head: &mut http::request::Parts,
    body: &mut RequestBody,
) -> Result<(Response<Content>, Lease), ProxyError> {
    let failure = body.failure();
    let has_host = head.headers.contains_key(header::HOST);
    let may_repeat = is_repeatable(&head.method) && body.is_end_stream();
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
        record.server_chosen(server, &mut head.headers);
        if !has_host {
            // An HTTP/1.0 client need not say it; to an HTTP/1.1 server one has to (RFC 9112, section 3.2).
            let address = backend.servers[server].address();
            if let Some(Ok(host)) = address.map(|address| HeaderValue::try_from(address.to_string())) {
                head.headers.insert(header::HOST, host);
            }
        }

        let reuse = backend.pool.reuse;
        let is_private = backend.servers[server].wants_introduction() || reuse == Reuse::Never;
        let name = backend.servers[server]
            .wants_name()
            .then(|| asked_name::of_request(&head.headers));
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
            let most = backend.response_limits.informational;
            let sent = multiplexed::exchange(place, client, head, body, tls, most, &mut session);
            let sent = Box::pin(sent).await;
            client.turns.server_moved();
            match sent {
                Ok((mut response, link)) => {
                    let (status, has_content) = (response.status(), !response.body().is_end_stream());
                    strict::check_response(status, response.headers_mut(), has_content, &backend.response_limits)?;
                    link.switch(&mut response, head);
                    let lease = Lease {
                        link,
                        local: local.clone(),
                        owner: None,
                        backend: backend.clone(),
                        server,
                        session,
                        broken: None,
                    };
                    return Ok((response, lease));
                }
                Err(Sent::Failed(error)) => return Err(error),
                Err(Sent::Nothing(_)) if replays < MAX_REPLAYS => {}
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
        record.sending();
        client.turns.await_server_for(backend.timeouts.server);
        upstream.connection.begin(head, body);
        match exchange(&mut upstream.connection, &mut session, client, &failure, body).await {
            Ok((response, has_sent)) => {
                client.turns.server_moved();
                let connection = &upstream.connection;
                let leased = Leased {
                    left: connection.left(),
                    has_ended: connection.has_received(),
                };
                let spliced = Spliced::of(connection, client).map(Box::new);
                let lease = Lease {
                    link: Link::Http1 {
                        upstream,
                        upload: (!has_sent).then(|| Box::new(std::mem::replace(body, RequestBody::empty(client)))),
                        spliced,
                    },
                    local: local.clone(),
                    owner: is_private.then(|| client.clone()),
                    backend: backend.clone(),
                    server,
                    session,
                    broken: None,
                };
                return Ok((Response::from_parts(response, Content::Leased(leased)), lease));
            }
            Err(Sent::Failed(error)) => return Err(error),
            Err(Sent::Nothing(unsent)) if reused => body.put_back(unsent),
            Err(Sent::Broken) if reused && may_repeat => {}
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
    /// Nothing was written. This was taken of the body.
    Nothing(Bytes),
    /// Something may have been written, and the connection ended before a response began.
    Broken,
    /// It failed for a reason that sending again does not mend.
    Failed(ProxyError),
}

/// Sends what has been begun and waits for the head of the response. Answers whether all of the request has gone, too.
async fn exchange(
    connection: &mut http1::Connection,
    session: &mut Session,
    client: &Rc<Client>,
    failure: &BodyFailure,
    body: &mut RequestBody,
) -> Result<(http::response::Parts, bool), Sent> {
    let mut has_sent = false;
    let result = poll_fn(|cx| {
        if let Poll::Ready(why) = session.poll_ended(cx) {
            return Poll::Ready(Err(Sent::Failed(why.into())));
        }
        if !has_sent {
            match connection.poll_send(cx, body) {
                Poll::Pending => {}
                // What lies on a connection that took nothing is no answer.
                Poll::Ready(Err(SendError::Io(_))) if !connection.has_begun() => {
                    return Poll::Ready(Err(connection.unsent().map_or(Sent::Broken, Sent::Nothing)));
                }
                // A server that takes no more of the request may have answered it.
                Poll::Ready(Ok(()) | Err(SendError::Io(_))) => has_sent = true,
                Poll::Ready(Err(SendError::Content(error))) => return Poll::Ready(Err(Sent::Failed(error.into()))),
                Poll::Ready(Err(SendError::Length)) => return Poll::Ready(Err(Sent::Failed(ProxyError::BadBody))),
            }
        }
        while connection.has_begun()
            && let Poll::Ready(received) = connection.poll_head(cx)
        {
            let head = match received {
                Ok(head) => head,
                Err(ReceiveError::Head(error)) => return Poll::Ready(Err(Sent::Failed(error.into()))),
                Err(ReceiveError::Io(_)) => {
                    return Poll::Ready(Err(connection.unsent().map_or(Sent::Broken, Sent::Nothing)));
                }
            };
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Ok(head));
            }
            if client.takes_informational() {
                informational::pass_on(client, Response::from_parts(head, ()));
            }
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
        (Err(error), None) => Err(error),
        (Ok(head), _) => Ok((head, has_sent)),
    }
}

impl From<HeadError> for ProxyError {
    fn from(error: HeadError) -> Self {
        Self::InvalidResponse(match error {
            HeadError::TooLarge => "response-head-too-large",
            HeadError::Malformed => "bad-response-head",
            HeadError::Coding => "bad-response-coding",
            HeadError::Length => "bad-response-length",
            HeadError::Informational => return informational::TOO_MANY,
        })
    }
}

/// A kept connection under this name to where the server is now, that has served so many requests.
pub(super) fn take(
    local: &Rc<Local>,
    backend: &Backend,
    server: usize,
    served: u64,
    name: Option<&ServerName<'static>>,
) -> Option<Box<Upstream>> {
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
) -> Result<Box<Upstream>, ConnectError> {
    let (stream, leads_to) = open(client, record, backend, server, name.as_ref()).await?;
    Ok(Box::new(Upstream {
        connection: http1::Connection::new(stream, backend.response_limits),
        served: 0,
        leads_to,
        name,
    }))
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

/// Whether a request of this method may be sent twice (RFC 9110, section 9.2.2).
pub(super) fn is_repeatable(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    )
}

/// How often a request is sent again that servers say they have not looked at: enough to get through a server that is being
/// replaced, and not enough to go on with one that refuses everything.
const MAX_REPLAYS: usize = 3;

/// Requests after which a connection is known to be one that the server keeps: it was used again once.
const PROVEN: u64 = 2;

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
        assert!(send <= 640, "{send}");
        assert!(reach <= 512, "{reach}");
    }
}

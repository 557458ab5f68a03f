//! One exchange with a server: choosing it, reaching it, sending the request, waiting for the head of its response.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body;
use rustls_pki_types::ServerName;

use super::asked_name;
use super::attempts::Attempts;
use super::body::RequestBody;
use super::client::Client;
use super::content::{Content, Leased};
use super::error::ProxyError;
use super::extended_connect;
use super::informational;
use super::introduction::introduction;
use super::lease::{Lease, Link};
use super::local::Local;
use super::multiplexed::{self, Sharing};
use super::record::Record;
use super::spliced::Spliced;
use super::strict;
use super::turns::Late;
use crate::backend::http1::{self, HeadError, ReceiveError, SendError};
use crate::backend::{Backend, ConnectError, Session, Take, Upstream, Wishes};
use crate::config::Reuse;
use crate::stream::Stream;

/// Sends a request to a server of the backend and waits for the head of its response.
///
/// Connecting is tried as often as `retries` says. A request that was sent on a kept connection which the server had
/// closed meanwhile is sent again, once, on a fresh one: always when nothing of it had been written, and when it had been,
/// only if it may be repeated (RFC 9110, section 9.2.2: it is idempotent, and what was taken of its body has been kept). On a shared
/// connection of HTTP/2 that may happen as often as `retries` says, and once at least: its server may be about to be replaced, or refuse
/// everything. Beyond the first time it is within the backend's budget and behind a pause.
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
    let has_host = head.headers.contains_key(header::HOST);
    let may_repeat = is_repeatable(&head.method);
    let has_body = !body.is_end_stream();
    let mut failure_to_connect = None;
    let mut fresh_only = false;
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
            if let Some(Ok(host)) = address.map(|address| HeaderValue::try_from(address.authority())) {
                head.headers.insert(header::HOST, host);
            }
        }

        let reuse = backend.pool.reuse;
        let is_private = backend.servers[server].is_for_one_client() || reuse == Reuse::Never;
        let name = backend.servers[server]
            .wants_name()
            .then(|| asked_name::of_request(&head.headers));
        let name = name.flatten();
        if backend.servers[server].http2 {
            // A connection that was asked to be one name serves no other.
            let alone = is_private || backend.server_close || name.is_some();
            let is_large = multiplexed::is_large(head);
            // What goes through a tunnel waits as content does.
            let has_content = has_body || extended_connect::asked(head).is_some();
            let sharing = match (alone, has_content) {
                (true, _) => Sharing::Alone,
                // The last one may have ended for its head. A fresh connection tells, as it is not tried again.
                _ if is_large && attempts.is_replay() => Sharing::Alone,
                _ if is_large => Sharing::InTurn,
                (false, true) => Sharing::Unblocked,
                (false, false) => Sharing::All,
            };
            let place = match multiplexed::reach(local, client, record, backend, server, name.as_ref(), sharing).await {
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
            // In a block of its own: what came of it is not kept through the pause.
            let pause = {
                let sent = multiplexed::exchange(place, client, head, body, backend, server, &mut session);
                let sent = Box::pin(sent).await;
                client.turns.server_moved();
                match sent {
                    Ok((mut response, link)) => {
                        let (status, has_content) = (response.status(), !response.body().is_end_stream());
                        strict::check_response(status, response.headers_mut(), has_content, &backend.response_limits)?;
                        link.switch(&mut response, head);
                        return Ok((response, Lease::new(link, local, backend, server, session)));
                    }
                    Err(Sent::Failed(error)) => return Err(error),
                    Err(Sent::Nothing(_)) => attempts.unseen(false),
                    Err(Sent::Refused) => attempts.unseen(true),
                    Err(Sent::Broken) => None,
                }
            };
            let pause = pause.ok_or(ProxyError::EmptyResponse)?;
            let pause = attempts.replay(server, session, pause);
            record.retried();
            if !pause.is_zero() {
                Box::pin(tokio::time::sleep(pause)).await;
                client.turns.tick();
            }
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
        // Few requests have a body that may be sent twice.
        let kept = (reused && may_repeat && has_body).then(|| body.keep_if_short(backend.retries.buffer));
        let kept = kept.flatten().map(Box::new);
        upstream.connection.begin(head, body);
        if !has_body {
            // Let go of while they are at hand: nobody reads them any more, but for a request that is sent again.
            head.headers = HeaderMap::new();
        }
        match exchange(&mut upstream.connection, &mut session, client, body).await {
            Ok((response, sending)) => {
                client.turns.server_moved();
                let connection = &upstream.connection;
                let leased = Leased {
                    left: connection.left(),
                    has_ended: connection.has_received(),
                };
                let spliced = Spliced::of(connection, client).map(Box::new);
                let upload =
                    (sending != Sending::Done).then(|| Box::new(std::mem::replace(body, RequestBody::empty(client))));
                let link = Link::Http1 {
                    upstream,
                    upload,
                    spliced,
                };
                let mut lease = Lease::new(link, local, backend, server, session);
                if is_private {
                    lease.own(client);
                }
                if sending == Sending::Refused {
                    lease.leave();
                }
                return Ok((Response::from_parts(response, Content::Leased(leased)), lease));
            }
            Err(Sent::Failed(error)) => return Err(error),
            Err(Sent::Nothing(unsent)) if reused => body.put_back(unsent),
            Err(Sent::Broken) if reused && may_repeat && !has_body => {}
            Err(Sent::Broken) if kept.as_ref().is_some_and(|kept| kept.rewind(client, body)) => {}
            Err(Sent::Nothing(_) | Sent::Broken | Sent::Refused) => return Err(ProxyError::EmptyResponse),
        }
        client.turns.server_moved();
        if !has_body {
            let fields = upstream.connection.begun_fields();
            head.headers = fields.ok_or(ProxyError::EmptyResponse)?;
        }
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
    /// The server has refused it without having looked at it.
    Refused,
    /// Something may have been written, and the connection ended before a response began.
    Broken,
    /// It failed for a reason that sending again does not mend.
    Failed(ProxyError),
}

/// How far a request has gone when its response begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// A part of it.
    Going,
    /// All of it.
    Done,
    /// The server takes no more than it has.
    Refused,
}

/// Sends what has been begun and waits for the head of the response. Answers how far the request has gone, too.
async fn exchange(
    connection: &mut http1::Connection,
    session: &mut Session,
    client: &Rc<Client>,
    body: &mut RequestBody,
) -> Result<(http::response::Parts, Sending), Sent> {
    let mut sending = Sending::Going;
    let result = poll_fn(|cx| {
        if let Poll::Ready(why) = session.poll_ended(cx) {
            return Poll::Ready(Err(Sent::Failed(why.into())));
        }
        if sending == Sending::Going {
            match connection.poll_send(cx, body) {
                Poll::Pending => {}
                // What lies on a connection that took nothing is no answer.
                Poll::Ready(Err(SendError::Io(_))) if !connection.has_begun() => {
                    return Poll::Ready(Err(connection.unsent().map_or(Sent::Broken, Sent::Nothing)));
                }
                Poll::Ready(Ok(())) => sending = Sending::Done,
                // A server that takes no more of the request may have answered it.
                Poll::Ready(Err(SendError::Io(_))) => sending = Sending::Refused,
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
                // A server that has said something about a request has looked at it.
                Err(ReceiveError::Io(_)) if connection.has_been_heard() => {
                    return Poll::Ready(Err(Sent::Failed(ProxyError::EmptyResponse)));
                }
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
    match (result, body.failure()) {
        (Err(_), Some(failed)) => Err(Sent::Failed(failed.into())),
        (Err(error), None) => Err(error),
        (Ok(head), _) => Ok((head, sending)),
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
    let header = to.is_for_one_client().then(|| introduction(&client.facts));
    let wishes = Wishes {
        introduction: header.as_ref(),
        name,
        speaks: true,
    };
    let connected = to.connect_for(wishes, backend.timeouts.connect).await;
    record.connected(started.elapsed());
    client.turns.tick();
    let stream = connected?;
    to.connected();
    // It will be used again, or wait for an answer for long.
    to.keep_alive(&stream);
    Ok((stream, leads_to))
}

fn connect_failed(backend: &Backend, server: usize, error: &ConnectError) -> ProxyError {
    backend.servers[server].connect_failed(error);
    match error {
        ConnectError::Lack(_) => ProxyError::OutOfResources,
        ConnectError::Timeout(_) | ConnectError::TlsTimeout(_) => ProxyError::ConnectTimeout,
        ConnectError::Tls(_) => ProxyError::ServerTls,
        ConnectError::Io(_) | ConnectError::Unresolved => ProxyError::Connect,
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

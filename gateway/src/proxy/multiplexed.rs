//! One exchange with a server over HTTP/2: a place on a connection that others share, and a stream on it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body;
use rustls_pki_types::ServerName;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::body::RequestBody;
use super::client::Client;
use super::content::{Content, Http2Content};
use super::error::ProxyError;
use super::extended_connect;
use super::informational;
use super::lease::{Link, OnStream};
use super::local::Local;
use super::record::Record;
use super::turns::Late;
use super::upload::Upload;
use super::upstream::{Sent, is_repeatable, open};
use crate::backend::{Backend, Beside, ConnectError, Multiplexed, Session, StreamPlace};

/// A place on a connection to the server: on one that has room, or on one that is opened for it. Requests that come while one
/// is being opened wait for that, and for what its server says that it takes: what is sent before could wait there for its turn
/// although another connection had room.
pub async fn reach(
    local: &Rc<Local>,
    client: &Rc<Client>,
    record: &mut Record,
    backend: &Arc<Backend>,
    server: usize,
    name: Option<&ServerName<'static>>,
    sharing: Sharing,
) -> Result<StreamPlace, ConnectError> {
    match sharing {
        Sharing::Alone => return Ok(Box::pin(start(client, record, backend, server, name)).await?.enter()),
        Sharing::InTurn => return Box::pin(reach_in_turn(local, client, record, backend, server)).await,
        Sharing::All | Sharing::Unblocked => {}
    }
    let limit = backend.timeouts.connect;
    let mut deadline = None;
    let mut waits_to_share = sharing == Sharing::Unblocked;
    let mut beside = match waits_to_share {
        true => Beside::Nothing,
        false => Beside::Anything,
    };
    loop {
        let (moving, opening) = {
            let mut pool = local.pool(backend);
            if let Some(connection) = pool.share(server, backend.servers[server].moving_address(), beside) {
                return Ok(connection.enter());
            }
            match pool.moving(server).filter(|_| waits_to_share) {
                Some(moving) => (Some(moving), None),
                None => (None, pool.opening(server, limit)),
            }
        };
        if let Some(moving) = moving {
            match Box::pin(moving.has_moved()).await {
                true => beside = Beside::Moving,
                // In vain once: where a server is slow to read on several connections, one of them is always about to move.
                false => waits_to_share = false,
            }
            client.turns.tick();
            continue;
        }
        let Some(opening) = opening else { break };
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
        let waited = Box::pin(timeout_at(deadline, opening.notified())).await;
        client.turns.tick();
        waited.map_err(|_| ConnectError::Timeout(limit))?;
    }
    let opening = Opening::new(local, backend, server);
    let connection = Box::pin(start(client, record, backend, server, name)).await?;
    local.pool(backend).add(server, &connection);
    let place = connection.enter();
    drop(opening);
    Ok(place)
}

/// A place on a connection on which nothing else is under way, nor will be until this is over.
async fn reach_in_turn(
    local: &Rc<Local>,
    client: &Rc<Client>,
    record: &mut Record,
    backend: &Arc<Backend>,
    server: usize,
) -> Result<StreamPlace, ConnectError> {
    let address = backend.servers[server].moving_address();
    let kept = local.pool(backend).take_turn(server, address);
    if let Some(connection) = kept {
        return Ok(connection.enter());
    }
    let connection = start(client, record, backend, server, None).await?;
    // First: what has no request may be taken.
    let place = connection.enter();
    local.pool(backend).add_in_turn(server, &connection);
    Ok(place)
}

/// With whom a request may share its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// With nobody.
    Alone,
    /// With others of its kind, one after the other: its server may end the connection for its head, with whatever is under way there.
    InTurn,
    /// With anybody: it has no content.
    All,
    /// With those whose content does not wait for the server, or moves on soon: behind what the server does not read, its own would wait, too.
    Unblocked,
}

/// Whether a server may end its connection for a head like this, with whatever others have under way there. nginx does, for a field beyond
/// 8 KiB as HPACK has it; what servers say of their limits (SETTINGS_MAX_HEADER_LIST_SIZE), the library keeps to itself.
pub fn is_large(head: &http::request::Parts) -> bool {
    let path = head.uri.path_and_query().map_or("", |path| path.as_str()).as_bytes();
    let mut list = path.len();
    let mut has_long = coded_length(path) > LONG_FIELD;
    for (name, value) in &head.headers {
        list += name.as_str().len() + value.len() + FIELD_OVERHEAD;
        has_long |= coded_length(value.as_bytes()) > LONG_FIELD;
    }
    has_long || list > LONG_LIST
}

/// The most bytes that HPACK's Huffman code makes of these (RFC 7541, appendix B); of few, how many they are.
fn coded_length(bytes: &[u8]) -> usize {
    if bytes.len() <= LONG_FIELD * 8 / LONGEST_CODE {
        return bytes.len();
    }
    let bits = |byte: u8| match byte {
        b'0'..=b'9'
        | b'A'..=b'Z'
        | b'a'..=b'z'
        | b' '
        | b'%'
        | b'&'
        | b'*'
        | b','..=b'/'
        | b':'
        | b';'
        | b'='
        | b'_' => 8,
        b'!'..=b'~' => 19,
        _ => LONGEST_CODE,
    };
    bytes.iter().copied().map(bits).sum::<usize>() / 8
}

/// Bytes of a field beyond which servers may end their connection: 8 KiB, without what frames it.
const LONG_FIELD: usize = 8_000;

/// Bytes of all fields, as SETTINGS_MAX_HEADER_LIST_SIZE counts them, that servers commonly take at least.
const LONG_LIST: usize = 16 << 10;

/// What each of them counts beside its bytes there (RFC 9113, section 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// Bits of the longest code.
const LONGEST_CODE: usize = 30;

async fn start(
    client: &Rc<Client>,
    record: &mut Record,
    backend: &Arc<Backend>,
    server: usize,
    name: Option<&ServerName<'static>>,
) -> Result<Rc<Multiplexed>, ConnectError> {
    let (stream, leads_to) = open(client, record, backend, server, name).await?;
    let limits = &backend.response_limits;
    // As the size counts there, with room for the status: what is beyond the limit by a little is told apart by whoever takes the response.
    let most_list = limits.head + (limits.headers + 2) * FIELD_OVERHEAD;
    let started = Multiplexed::start(stream, &backend.http2, most_list, leads_to).await;
    started.map_err(|error| ConnectError::from(error.into_io().unwrap_or_else(|| io::ErrorKind::InvalidData.into())))
}

/// While a connection is being opened, however that ends.
struct Opening<'a> {
    local: &'a Rc<Local>,
    backend: &'a Arc<Backend>,
    server: usize,
    notify: Rc<Notify>,
}

impl<'a> Opening<'a> {
    fn new(local: &'a Rc<Local>, backend: &'a Arc<Backend>, server: usize) -> Self {
        let notify = local.pool(backend).open(server);
        Self {
            local,
            backend,
            server,
            notify,
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.local.pool(self.backend).opened(self.server, &self.notify);
    }
}

/// Sends a request and waits for the head of its response.
///
/// What the server says that it has not looked at, by refusing the stream (RFC 9113, section 8.7) or by a GOAWAY that leaves
/// the stream out, may be sent again whatever it is, as far as its body was not taken or has been kept. What was under way on a connection
/// that had served others, and broke, may be if it is idempotent.
pub async fn exchange(
    place: StreamPlace,
    client: &Rc<Client>,
    head: &http::request::Parts,
    body: &mut RequestBody,
    backend: &Backend,
    server: usize,
    session: &mut Session,
) -> Result<(Response<Content>, Link), Sent> {
    let ends = body.is_end_stream();
    let may_be_broken = place.is_reused() && is_repeatable(&head.method);
    // Whatever the method: the server may say that it has not looked at it.
    let kept = (!ends).then(|| body.keep_if_short(backend.retries.buffer));
    let kept = kept.flatten().map(Box::new);
    let most_informational = backend.response_limits.informational;
    let mut sent = outgoing(head.clone(), backend.servers[server].has_tls());
    let asked = extended_connect::asked(head);
    if let Some(protocol) = &asked {
        extended_connect::wait_for_leave(&place, client, session).await?;
        extended_connect::tunnel(&mut sent, protocol.clone());
    }
    let (mut response, stream) = match place.send(sent, ends && asked.is_none()) {
        Ok(sent) => sent,
        Err(error) => {
            if error.is_go_away() || error.is_io() {
                place.connection().retire();
            }
            return Err(Sent::Nothing(Bytes::new()));
        }
    };
    let content = std::mem::replace(body, RequestBody::empty(client));
    let mut upload = Upload::new(content, stream, place.connection());
    let mut heard = 0;
    let result = poll_fn(|cx| {
        if let Poll::Ready(why) = session.poll_ended(cx) {
            return Poll::Ready(Err(Failed::For(why.into())));
        }
        upload.poll(cx);
        while let Poll::Ready(Some(Ok(said))) = response.poll_informational(cx) {
            if said.status() == StatusCode::SWITCHING_PROTOCOLS {
                // HTTP/2 has none (RFC 9113, section 8.6), and who sends it has nothing else to say.
                return Poll::Ready(Err(Failed::For(ProxyError::BadUpgrade)));
            }
            heard += 1;
            if heard > most_informational {
                return Poll::Ready(Err(Failed::For(informational::TOO_MANY)));
            }
            if client.takes_informational() {
                informational::pass_on(client, said);
            }
        }
        if let Poll::Ready(result) = Pin::new(&mut response).poll(cx) {
            return Poll::Ready(result.map_err(Failed::With));
        }
        match client.turns.late() {
            Some(Late::Server) => Poll::Ready(Err(Failed::For(ProxyError::ServerTimeout))),
            Some(Late::Client) => Poll::Ready(Err(Failed::For(ProxyError::ClientTimeout))),
            _ => Poll::Pending,
        }
    })
    .await;
    let error = match result {
        Ok(response) => {
            place.answered();
            let length = response.headers().get(header::CONTENT_LENGTH);
            let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
            let is_bodiless = head.method == Method::HEAD
                || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            let response = response.map(|stream| {
                Content::Http2(match is_bodiless {
                    true => Http2Content::bodiless(stream),
                    false => Http2Content::new(stream, length),
                })
            });
            let stream = OnStream { place, upload, asked };
            return Ok((response, Link::Http2(Box::new(stream))));
        }
        Err(error) => error,
    };
    // Whatever the server's connection made of it: a body that failed is the client's doing.
    if let Some(failed) = upload.take_broken() {
        return Err(Sent::Failed(failed.into()));
    }
    let error = match error {
        Failed::With(error) => error,
        Failed::For(error) => {
            if error == ProxyError::ServerTimeout && place.has_heard_nothing() {
                // Nobody is there any more; others need not find out one by one.
                place.connection().retire();
            }
            return Err(Sent::Failed(error));
        }
    };
    // A server that has said something about a request has looked at it.
    let is_refused =
        heard == 0 && error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM));
    if error.is_go_away() || error.is_io() {
        place.connection().retire();
    }
    let may_repeat = is_refused || (error.is_io() && may_be_broken);
    // A connection that ends says nothing of how the next fares.
    let unseen = match is_refused && !error.is_go_away() {
        true => Sent::Refused,
        false => Sent::Nothing(Bytes::new()),
    };
    match upload.untouched() {
        _ if !may_repeat => Err(Sent::Failed(ProxyError::EmptyResponse)),
        Some(untouched) => {
            *body = untouched;
            Err(unseen)
        }
        None if ends || kept.as_ref().is_some_and(|kept| kept.rewind(client, body)) => Err(unseen),
        None => Err(Sent::Failed(ProxyError::EmptyResponse)),
    }
}

/// Why no response came.
enum Failed {
    With(h2::Error),
    For(ProxyError),
}

/// The head as HTTP/2 has it: Host is a part of the target, and what frames an HTTP/1.1 message is not there.
fn outgoing(mut head: http::request::Parts, tls: bool) -> Request<()> {
    // The client's, which may be HTTP/2: of such a request the library refuses a target without an authority.
    head.version = Version::HTTP_11;
    head.headers.remove(header::CONNECTION);
    head.headers.remove(header::TRANSFER_ENCODING);
    head.headers.remove(header::UPGRADE);
    let host = head.headers.get(header::HOST);
    // An empty one, or one that is no authority, stays where it is.
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    if let Some(authority) = authority {
        let mut target = std::mem::take(&mut head.uri).into_parts();
        target.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
        target.authority = Some(authority);
        target.path_and_query = target.path_and_query.or_else(|| Some(PathAndQuery::from_static("/")));
        if let Ok(uri) = Uri::from_parts(target) {
            head.headers.remove(header::HOST);
            head.uri = uri;
        }
    }
    Request::from_parts(head, ())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_no_authority_goes_as_it_stands_whatever_the_client_speaks() {
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            let of = |host: &str| {
                let request = Request::get("/x").version(version).header(header::HOST, host);
                outgoing(request.body(()).unwrap().into_parts().0, true)
            };
            let whole = of("a.example");
            assert_eq!(whole.uri(), "https://a.example/x");
            assert!(!whole.headers().contains_key(header::HOST));
            let empty = of("");
            assert_eq!((empty.uri().path(), empty.uri().authority()), ("/x", None));
            assert!(empty.headers().contains_key(header::HOST));
            // With HTTP/2, the library would not send it.
            assert_eq!(empty.version(), Version::HTTP_11);
        }
    }
}

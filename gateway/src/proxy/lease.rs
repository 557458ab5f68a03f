//! What an exchange holds of its server from the head of the response on: a connection to itself, or a stream of one, by which the
//! response comes and what is left of the request goes.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::ext::Protocol;
use http::Response;
use http_body::{Body, Frame};

use super::body::RequestBody;
use super::client::Client;
use super::content::Content;
use super::error::ProxyError;
use super::extended_connect;
use super::headers;
use super::http2::tunnel::StreamIo;
use super::local::Local;
use super::rest;
use super::spliced::Spliced;
use super::unread::{Ending, Unread};
use super::upgrade::ServerEnd;
use super::upload::Upload;
use crate::backend::http1::SendError;
use crate::backend::{Backend, Ended, Session, StreamPlace, Upstream};
use crate::telemetry::access::Cause;

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
    /// The server has answered, and takes no more of the request.
    left: Option<Left>,
    /// What the client sends of it yet.
    unread: Option<Box<Unread>>,
}

/// That a server takes no more of a request.
#[derive(Debug, Clone, Copy)]
struct Left {
    /// It has said so as it should: by `Connection: close`, or `RST_STREAM(NO_ERROR)`.
    is_said: bool,
    /// What the client sent yet was more than is read.
    is_too_much: bool,
}

/// How the rest of a request fared that had been answered.
#[derive(Debug)]
pub enum Relayed {
    /// The server has taken all of it.
    Whole,
    /// It takes no more.
    Left,
    /// It broke off.
    Broken(ProxyError),
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
    pub(super) fn switch(&self, response: &mut Response<Content>, head: &http::request::Parts) {
        if let Self::Http2(stream) = self
            && let Some(protocol) = &stream.asked
        {
            extended_connect::switch(response, head, protocol);
        }
    }
}

impl Lease {
    /// Of an exchange whose response has begun.
    pub(super) fn new(link: Link, local: &Rc<Local>, backend: &Arc<Backend>, server: usize, session: Session) -> Self {
        Self {
            link,
            local: local.clone(),
            owner: None,
            backend: backend.clone(),
            server,
            session,
            broken: None,
            left: None,
            unread: None,
        }
    }

    /// The connection may be used for this client alone.
    pub(super) fn own(&mut self, client: &Rc<Client>) {
        self.owner = Some(client.clone());
    }

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
            return match self.broken.take() {
                Some(error) => Poll::Ready(Some(Err(io::Error::other(error)))),
                None => Poll::Pending,
            };
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
        let mut takes_more = true;
        match &mut self.link {
            Link::Http1 { upstream, upload, .. } => {
                if let Some(body) = upload
                    && let Poll::Ready(sent) = upstream.connection.poll_send(cx, &mut **body)
                {
                    match sent {
                        Ok(()) => *upload = None,
                        // A server that takes no more of the request has answered it all the same.
                        Err(SendError::Io(_)) => takes_more = false,
                        Err(SendError::Content(error)) => {
                            *upload = None;
                            self.broken = Some(error.into());
                        }
                        Err(SendError::Length) => {
                            *upload = None;
                            self.broken = Some(ProxyError::BadBody);
                        }
                    }
                }
            }
            Link::Http2(stream) => {
                stream.upload.poll(cx);
                if let Some(error) = stream.upload.take_broken() {
                    self.broken = Some(error.into());
                }
                if let Some((body, is_said)) = stream.upload.take_left() {
                    self.leave_of(body, is_said);
                }
            }
        }
        if !takes_more {
            self.leave();
        }
        if self.broken.is_some() {
            cx.waker().wake_by_ref();
        }
        if let Some(unread) = &mut self.unread
            && let Poll::Ready(ending) = unread.poll(cx)
        {
            self.unread = None;
            self.read_off(ending);
        }
    }

    /// Moves what is left of the request along, behind a response that has come whole.
    pub fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Relayed> {
        self.poll_request(cx);
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Relayed::Broken(error));
        }
        if self.left.is_none() && self.is_relayed() {
            let has_ended = match &mut self.link {
                Link::Http1 { upstream, .. } => upstream.connection.poll_end(cx).is_ready(),
                Link::Http2(_) => false,
            };
            if !has_ended {
                return Poll::Pending;
            }
            self.leave();
        }
        Poll::Ready(match self.left {
            Some(_) => Relayed::Left,
            None => Relayed::Whole,
        })
    }

    /// The server gets no more of the request.
    pub fn leave(&mut self) {
        match &mut self.link {
            Link::Http1 { upstream, upload, .. } => {
                let is_said = !upstream.connection.persists();
                if let Some(body) = upload.take() {
                    self.leave_of(*body, is_said);
                }
            }
            Link::Http2(stream) => {
                if let Some((body, is_said)) = stream.upload.leave() {
                    self.leave_of(body, is_said);
                }
            }
        }
    }

    /// The server takes no more of the request than has gone, and this has not. A stream of HTTP/2 tells its client so by its end.
    fn leave_of(&mut self, body: RequestBody, is_said: bool) {
        self.left = Some(Left {
            is_said,
            is_too_much: false,
        });
        // What the client has to send yet it does not owe this server.
        body.client().turns.client_moved();
        body.client().turns.body_is_left();
        if !body.client().is_stream() {
            match Unread::new(body) {
                Ok(unread) => self.unread = Some(Box::new(unread)),
                Err(ending) => self.read_off(ending),
            }
        }
    }

    /// What the client sent yet has been read, or is not read any more.
    fn read_off(&mut self, ending: Ending) {
        if let (Ending::TooMuch, Some(left)) = (ending, &mut self.left) {
            left.is_too_much = true;
        }
    }

    /// Has the end of a stream waited for whose content has come whole.
    pub fn await_end(&self, content: Content) {
        if let (Link::Http2(stream), Content::Http2(content)) = (&self.link, content) {
            stream.place.connection().await_end(content.into_stream());
        }
    }

    /// How the exchange ended where its server has left something of the request, if it did not end well.
    pub fn left_as(&self) -> Option<(Cause, &'static str)> {
        match self.left? {
            Left { is_too_much: true, .. } => Some((Cause::Proxy, rest::TOO_MUCH)),
            Left { is_said: false, .. } => Some((Cause::ServerAborted, rest::CUT)),
            Left { .. } => None,
        }
    }

    /// What the client sends yet, when the server is let go.
    pub fn into_unread(self) -> Option<Box<Unread>> {
        self.unread
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
                let io = StreamIo::new(content, upload.into_stream()).on(place.connection());
                Some((ServerEnd::Stream(Box::new(io), place), Bytes::new(), self.session))
            }
            (Link::Http2(_), _) => None,
        }
    }

    /// Whether the client has content yet that the server has answered without waiting for.
    pub fn has_upload(&self) -> bool {
        self.unread.is_some() || self.is_relayed()
    }

    /// Whether that still goes to the server.
    fn is_relayed(&self) -> bool {
        match &self.link {
            Link::Http1 { upload, .. } => upload.is_some(),
            Link::Http2(stream) => !stream.upload.is_over(),
        }
    }

    /// The backend that the server is of.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Nobody wants the response's body: what has come of it is thrown away, and the connection kept where that is all of it. It is not
    /// waited for.
    pub async fn discard(mut self, mut incoming: Content) {
        self.copy();
        let mut room = DISCARDED;
        let has_ended = poll_fn(|cx| {
            loop {
                if incoming.is_end_stream() {
                    return Poll::Ready(true);
                }
                match self.poll_body(&mut incoming, cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        let length = frame.data_ref().map_or(0, Bytes::len);
                        if frame.is_trailers() || length > room {
                            return Poll::Ready(frame.is_trailers());
                        }
                        room -= length;
                    }
                    Poll::Ready(None) => return Poll::Ready(true),
                    Poll::Ready(Some(Err(_))) | Poll::Pending => return Poll::Ready(false),
                }
            }
        })
        .await;
        if self.has_upload() {
            return;
        }
        if has_ended {
            self.give_back();
        } else if incoming.is_whole_by_length() {
            self.await_end(incoming);
        }
    }

    /// The exchange is over and the response has come whole: keeps the connection for the next one, if it can be kept.
    pub fn give_back(self) {
        let Link::Http1 { mut upstream, .. } = self.link else {
            return;
        };
        // Whoever takes it again asks the system.
        if self.backend.server_close || !upstream.connection.may_persist() {
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

/// Bytes of a body that nobody wants, beyond which another connection costs less than reading on.
const DISCARDED: usize = 64 << 10;

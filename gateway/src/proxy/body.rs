//! Requests' bodies on their way to servers: bounded, timed and counted, never buffered whole.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::client::Client;
use super::content::{self, Content};
use super::decompression::{Decoding, Decompressor, Fault};
use super::error::ProxyError;
use super::filtered::{BodyFilter, BodyFilters, Stopped};
use super::headers;
use super::kept::Keeping;
use crate::config::RequestLimits;

/// A request's body on its way from the client to a server.
pub struct RequestBody {
    /// What was taken of it and not sent; it goes first. Boxed: hardly any request comes to that.
    unsent: Option<Box<Bytes>>,
    /// None when there is no body, or when it has ended. Boxed: most requests have none, and wait with room for it.
    incoming: Option<Box<Content>>,
    client: Rc<Client>,
    /// Bytes that may still come.
    allowance: u64,
    /// Bytes that are read of it when nobody takes it any more.
    most_unread: u64,
    /// The client waits to be told that its body will be read.
    is_awaited: bool,
    /// What takes it out of its coding.
    decompressor: Option<Box<Decompressor>>,
    /// What may not stand behind the content, beside what may not in any.
    own_fields: Option<Arc<[HeaderName]>>,
    /// The components that filter it then.
    filters: Option<Box<BodyFilters>>,
    /// What went wrong with it.
    failure: Option<BodyError>,
}

/// Why a body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is longer than allowed.
    #[error("the request body is too large")]
    TooLarge,
    /// The client left in its middle.
    #[error("the request body broke off")]
    Left,
    /// Its framing is malformed.
    #[error("the request body is malformed")]
    Broken,
    /// It did not come whole in time.
    #[error("the request body took too long")]
    Late,
    /// It cannot be decoded.
    #[error(transparent)]
    Coding(#[from] Fault),
    /// A component stopped it.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<BodyError> for ProxyError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::BodyTooLarge,
            BodyError::Left => Self::BodyAborted,
            BodyError::Broken => Self::BadBody,
            BodyError::Late => Self::SlowBody,
            BodyError::Coding(Fault::Malformed) => Self::BadCoding,
            BodyError::Coding(Fault::TooLarge) => Self::DecodedTooLarge,
            BodyError::Stopped(stopped) => stopped.into(),
        }
    }
}

impl RequestBody {
    /// A body that is not there.
    pub fn empty(client: &Rc<Client>) -> Self {
        Self {
            unsent: None,
            incoming: None,
            client: client.clone(),
            allowance: 0,
            most_unread: 0,
            is_awaited: false,
            decompressor: None,
            own_fields: None,
            filters: None,
            failure: None,
        }
    }

    /// A client's body, with bounds on its length. A body that says its length, and says too much, is refused by the
    /// caller before. Behind it stand none of the frontend's own fields.
    pub fn new(
        incoming: Option<Box<Content>>,
        client: &Rc<Client>,
        limits: &RequestLimits,
        own_fields: Option<&Arc<[HeaderName]>>,
    ) -> Self {
        if incoming.is_some() {
            client.turns.body_begins();
        }
        Self {
            own_fields: incoming.as_ref().and(own_fields).cloned(),
            unsent: None,
            incoming,
            client: client.clone(),
            allowance: limits.body.unwrap_or(u64::MAX),
            most_unread: limits.unread,
            is_awaited: false,
            decompressor: None,
            filters: None,
            failure: None,
        }
    }

    /// The client sends it when it is told to: `Expect: 100-continue` (RFC 9110, section 10.1.1).
    pub fn will_be_promised(&mut self) {
        self.is_awaited = true;
    }

    /// Takes back a piece that could not be sent: it comes first when the body is asked again.
    pub fn put_back(&mut self, piece: Bytes) {
        self.unsent = (!piece.is_empty()).then(|| Box::new(piece));
    }

    /// Takes it out of its coding on its way.
    pub fn decode(&mut self, decoding: Decoding) {
        self.decompressor = Some(Box::new(Decompressor::new(decoding)));
    }

    /// One more component filters it on its way.
    pub fn filter(&mut self, filter: BodyFilter) {
        self.filters.get_or_insert_default().push(filter);
    }

    /// Behind it stand none of these fields either, nor what reads as one.
    pub fn withhold(&mut self, fields: &[HeaderName]) {
        if self.incoming.is_none() {
            return;
        }
        let own = self.own_fields.as_deref().unwrap_or_default();
        self.own_fields = Some(own.iter().chain(fields).cloned().collect());
    }

    /// Keeps what passes, up to so many bytes, so that it can be sent again. What components filter is not kept: they have seen
    /// it, and would see it again.
    pub fn keep(&mut self, most: usize) -> KeptBody {
        let incoming = self.incoming.take_if(|_| self.filters.is_none());
        let keeping = incoming.map(|content| {
            let (kept, keeping) = Keeping::begin(*content, most);
            self.incoming = Some(Box::new(Content::Kept(Box::new(kept))));
            keeping
        });
        KeptBody {
            keeping,
            is_filtered: self.filters.is_some(),
            allowance: self.allowance,
            most_unread: self.most_unread,
            is_awaited: self.is_awaited,
            decoding: self
                .decompressor
                .as_ref()
                .map(|decompressor| decompressor.decoding().clone()),
            own_fields: self.own_fields.clone(),
        }
    }

    /// Keeps what passes of a body that could be sent again whole, for as long as it is not known to be longer than this; none when it
    /// could not, or when there is nothing to keep.
    pub fn keep_if_short(&mut self, most: usize) -> Option<KeptBody> {
        // What has been given back comes before what would be kept.
        let may_fit = self.unsent.is_none() && !self.is_end_stream() && self.size_hint().lower() <= most as u64;
        (may_fit && self.filters.is_none()).then(|| self.keep(most))
    }

    /// What went wrong with it, if anything.
    pub fn failure(&self) -> Option<BodyError> {
        self.failure
    }

    /// Looks at what stands behind the content. Of HTTP/1.1, hyper ends it where CR LF stands twice, and ignores in it what
    /// stands behind two bare LF. Somebody in front who takes those for its end has passed on another request there, and waits
    /// for its answer: so that none is taken for it, the connection ends with this one, unless it is known that none was bare.
    fn look_at(&self, trailers: &mut HeaderMap) {
        if let Some(own) = &self.own_fields {
            headers::strip_own(trailers, own);
        }
        if !self.client.is_stream() && !self.client.turns.has_whole_lines() {
            self.client.connection.close_soon();
        }
    }

    /// The next piece as the client sends it.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        self.client.turns.body_is_asked_for();
        if self.client.turns.is_body_late() {
            return self.fail(BodyError::Late);
        }
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Pending => {
                self.client.turns.await_client();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.client.turns.client_moved();
                self.client.turns.body_ends();
                self.incoming = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                self.client.turns.client_moved();
                if let Some(trailers) = frame.trailers_mut() {
                    self.look_at(trailers);
                }
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                match self.allowance.checked_sub(length) {
                    Some(left) => {
                        self.allowance = left;
                        if self.incoming.as_ref().is_some_and(Body::is_end_stream) {
                            self.client.turns.body_ends();
                        }
                        // A server that is asked for more has taken what it had.
                        self.client.turns.server_progressed();
                        self.client.add_forwarded(length);
                        Poll::Ready(Some(Ok(frame)))
                    }
                    None => self.fail(BodyError::TooLarge),
                }
            }
            Poll::Ready(Some(Err(error))) => self.fail(match content::has_left(&error) {
                true => BodyError::Left,
                false => BodyError::Broken,
            }),
        }
    }

    /// Whose it is.
    pub fn client(&self) -> &Rc<Client> {
        &self.client
    }

    /// Bytes that are read of it when nobody takes it any more.
    pub fn most_unread(&self) -> u64 {
        self.most_unread
    }

    /// How much the client sends of it yet; none when nobody knows.
    pub fn unread_length(&self) -> Option<u64> {
        self.incoming
            .as_ref()
            .map_or(Some(0), |incoming| incoming.size_hint().exact())
    }

    /// Takes a piece for nobody, as the client sends it. Answers its length; none when there is nothing more.
    pub fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(incoming).poll_frame(cx);
        match &frame {
            Poll::Pending => self.client.turns.await_client(),
            Poll::Ready(_) => self.client.turns.client_moved(),
        }
        match ready!(frame) {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    self.look_at(trailers);
                }
                Poll::Ready(Some(frame.data_ref().map_or(0, Bytes::len) as u64))
            }
            None => {
                self.client.turns.body_ends();
                self.incoming = None;
                Poll::Ready(None)
            }
            Some(Err(_)) => {
                self.incoming = None;
                Poll::Ready(None)
            }
        }
    }

    /// The next piece out of its coding, if that is asked for.
    fn poll_decoded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(mut decompressor) = self.decompressor.take() else {
            return self.poll_source(cx);
        };
        let frame = decompressor.poll(cx, |cx| self.poll_source(cx));
        self.decompressor = Some(decompressor);
        match frame {
            Poll::Ready(Some(Err(error @ BodyError::Coding(_)))) => self.fail(error),
            frame => frame,
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.incoming = None;
        self.client.turns.client_moved();
        self.client.turns.body_is_left();
        self.failure = Some(error);
        Poll::Ready(Some(Err(error)))
    }
}

/// A request's body that is kept while it passes.
pub struct KeptBody {
    /// None when there is no body.
    keeping: Option<Keeping>,
    /// It is not kept.
    is_filtered: bool,
    allowance: u64,
    most_unread: u64,
    is_awaited: bool,
    /// What is kept is in its coding: each attempt decodes it anew.
    decoding: Option<Decoding>,
    own_fields: Option<Arc<[HeaderName]>>,
}

impl KeptBody {
    /// Whether it can be sent again, once the attempt that has it is over.
    pub fn is_complete(&self) -> bool {
        !self.is_filtered && self.keeping.as_ref().is_none_or(Keeping::is_complete)
    }

    /// Brings the body back to its beginning, when the attempt that had it is over. Whether it could be had.
    pub fn rewind(&self, client: &Rc<Client>, body: &mut RequestBody) -> bool {
        // Nothing but the attempt had it.
        *body = RequestBody::empty(client);
        match self.again(client) {
            Some(again) => {
                *body = again;
                true
            }
            None => false,
        }
    }

    /// The body from its beginning, when the attempt before is over; none when it cannot be had.
    fn again(&self, client: &Rc<Client>) -> Option<RequestBody> {
        if self.is_filtered {
            return None;
        }
        let Some(keeping) = &self.keeping else {
            return Some(RequestBody::empty(client));
        };
        Some(RequestBody {
            incoming: Some(Box::new(Content::Kept(Box::new(keeping.again()?)))),
            allowance: self.allowance,
            most_unread: self.most_unread,
            is_awaited: self.is_awaited,
            own_fields: self.own_fields.clone(),
            decompressor: self
                .decoding
                .clone()
                .map(|decoding| Box::new(Decompressor::new(decoding))),
            ..RequestBody::empty(client)
        })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(unsent) = self.unsent.take() {
            return Poll::Ready(Some(Ok(Frame::data(*unsent))));
        }
        if self.is_awaited {
            self.is_awaited = false;
            let mut go_on = Response::new(());
            *go_on.status_mut() = StatusCode::CONTINUE;
            self.client.inform(go_on);
        }
        let Some(mut filters) = self.filters.take() else {
            return self.poll_decoded(cx);
        };
        let frame = filters.poll(cx, &mut |cx| self.poll_decoded(cx));
        if frame.is_ready() {
            // The server has not waited for the time that a component took.
            self.client.turns.server_progressed();
        }
        self.filters = Some(filters);
        match frame {
            Poll::Ready(Some(Err(error @ BodyError::Stopped(_)))) => self.fail(error),
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        if self.unsent.is_some() {
            return false;
        }
        if let Some(filters) = &self.filters {
            return filters.is_done();
        }
        if let Some(decompressor) = &self.decompressor {
            return decompressor.is_done();
        }
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let exact = match (&self.filters, &self.decompressor) {
            (Some(filters), _) => filters.left(),
            // What has ended is known to have nothing left, coded or not.
            (None, Some(decompressor)) => decompressor.is_done().then_some(0),
            (None, None) => self
                .incoming
                .as_ref()
                .map_or(Some(0), |incoming| incoming.size_hint().exact()),
        };
        let unsent = self.unsent.as_ref().map_or(0, |unsent| unsent.len() as u64);
        exact.map_or(SizeHint::default(), |exact| SizeHint::with_exact(exact + unsent))
    }
}

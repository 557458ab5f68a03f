//! Bodies on their way through: bounded, timed and counted, never buffered whole.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::client::Client;
use super::content::Content;
use super::decompression::{Decoding, Decompressor, Fault};
use super::error::ProxyError;
use super::filtered::{BodyFilter, BodyFilters, Stopped};
use super::headers;
use super::held::Held;
use super::kept::Keeping;
use super::recoding::Recoding;
use super::record::Record;
use super::turns::Late;
use super::upstream::Lease;
use crate::telemetry::access::Cause;

/// A request's body on its way from the client to a server.
pub struct RequestBody {
    /// What was taken of it and not sent; it goes first. Boxed: hardly any request comes to that.
    unsent: Option<Box<Bytes>>,
    /// None when there is no body, or when it has ended.
    incoming: Option<Content>,
    client: Rc<Client>,
    /// Bytes that may still come.
    allowance: u64,
    /// The client waits to be told that its body will be read.
    is_awaited: bool,
    /// What takes it out of its coding.
    decompressor: Option<Box<Decompressor>>,
    /// What may not stand behind the content, beside what may not in any.
    own_fields: Option<Arc<[HeaderName]>>,
    /// The components that filter it then.
    filters: Option<Box<BodyFilters>>,
    failure: BodyFailure,
}

/// What went wrong with a request's body, told to the exchange that forwards it. Shared, because the body itself belongs to
/// the connection to the server by then.
#[derive(Debug, Clone, Default)]
pub struct BodyFailure(Rc<Cell<Option<BodyError>>>);

impl BodyFailure {
    /// What went wrong, if anything.
    pub fn get(&self) -> Option<BodyError> {
        self.0.get()
    }
}

/// Why a body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is longer than allowed.
    #[error("the request body is too large")]
    TooLarge,
    /// The client broke off, or its framing is malformed.
    #[error("the request body broke off")]
    Broken,
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
            BodyError::Broken => Self::BadBody,
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
            is_awaited: false,
            decompressor: None,
            own_fields: None,
            filters: None,
            failure: BodyFailure::default(),
        }
    }

    /// A client's body, with a bound on its length. A body that says its length, and says too much, is refused by the
    /// caller before. Behind it stand none of the frontend's own fields.
    pub fn new(
        incoming: Content,
        client: &Rc<Client>,
        max: Option<u64>,
        own_fields: Option<&Arc<[HeaderName]>>,
    ) -> Self {
        let incoming = (!incoming.is_end_stream()).then_some(incoming);
        Self {
            own_fields: incoming.as_ref().and(own_fields).cloned(),
            unsent: None,
            incoming,
            client: client.clone(),
            allowance: max.unwrap_or(u64::MAX),
            is_awaited: false,
            decompressor: None,
            filters: None,
            failure: BodyFailure::default(),
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

    /// Keeps what passes, up to so many bytes, so that it can be sent again. What components filter is not kept: they have seen
    /// it, and would see it again.
    pub fn keep(&mut self, most: usize) -> KeptBody {
        let incoming = self.incoming.take_if(|_| self.filters.is_none());
        let keeping = incoming.map(|content| {
            let (kept, keeping) = Keeping::begin(content, most);
            self.incoming = Some(Content::Kept(Box::new(kept)));
            keeping
        });
        KeptBody {
            keeping,
            is_filtered: self.filters.is_some(),
            allowance: self.allowance,
            is_awaited: self.is_awaited,
            decoding: self
                .decompressor
                .as_ref()
                .map(|decompressor| decompressor.decoding().clone()),
            own_fields: self.own_fields.clone(),
        }
    }

    /// Where the body will say what went wrong with it.
    pub fn failure(&self) -> BodyFailure {
        self.failure.clone()
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
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Pending => {
                self.client.turns.await_client();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.client.turns.client_moved();
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
                        // A server that is asked for more has taken what it had.
                        self.client.turns.server_progressed();
                        self.client.add_forwarded(length);
                        Poll::Ready(Some(Ok(frame)))
                    }
                    None => self.fail(BodyError::TooLarge),
                }
            }
            Poll::Ready(Some(Err(_))) => self.fail(BodyError::Broken),
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
        self.failure.0.set(Some(error));
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

    /// The body from its beginning, when the attempt before is over; none when it cannot be had.
    pub fn again(&self, client: &Rc<Client>) -> Option<RequestBody> {
        if self.is_filtered {
            return None;
        }
        let Some(keeping) = &self.keeping else {
            return Some(RequestBody::empty(client));
        };
        Some(RequestBody {
            incoming: Some(Content::Kept(Box::new(keeping.again()?))),
            allowance: self.allowance,
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

/// A response's body on its way to the client. Owns the exchange's record: when the body ends or is given up, the exchange
/// is over and is logged.
pub struct ResponseBody {
    source: Source,
    /// None when the exchange goes on without it, as a tunnel.
    record: Option<Record>,
    /// The components that filter what the server sends.
    filters: Option<Box<BodyFilters>>,
    recoding: Option<Box<Recoding>>,
    /// The server has sent all, and components may not have let all of it through yet.
    is_owed: bool,
}

enum Source {
    /// Made here.
    Full(Option<Bytes>),
    /// From a server; the lease is given back when the body has come whole.
    Server(Content, Held),
}

impl ResponseBody {
    /// A body made here.
    pub fn full(bytes: Bytes, record: Record) -> Self {
        let mut body = Self {
            source: Source::Full((!bytes.is_empty()).then_some(bytes)),
            record: Some(record),
            filters: None,
            recoding: None,
            is_owed: false,
        };
        // All of it is here, and a response to HEAD is never asked for it.
        body.finish();
        body
    }

    /// A server's body.
    pub fn server(incoming: Content, mut lease: Lease, mut record: Record) -> Self {
        let has_ended = incoming.is_end_stream();
        let recoding = record.noted.recoding.take();
        let filters = record.noted.filters.take();
        if recoding.is_some() || filters.is_some() {
            lease.copy();
        }
        let client = record.client();
        let held = match lease.has_upload() && !client.is_stream() {
            true => client.uploading.share(lease),
            false => Held::Alone(lease),
        };
        let mut body = Self {
            source: Source::Server(incoming, held),
            filters,
            recoding,
            record: Some(record),
            is_owed: false,
        };
        if has_ended {
            body.finish();
        }
        body
    }

    /// No body, of a response that does not end its exchange.
    pub fn none() -> Self {
        Self {
            source: Source::Full(None),
            record: None,
            filters: None,
            recoding: None,
            is_owed: false,
        }
    }

    /// Moves what is left of the request along while nobody can take more of the response.
    pub fn poll_request(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        if let Source::Server(_, held) = &mut self.get_mut().source {
            held.with(|lease| lease.poll_request(cx));
        }
    }

    /// The body has come whole, and goes on as it is.
    fn finish(&mut self) {
        self.give_back();
        if let Some(record) = &mut self.record {
            record.complete();
        }
    }

    /// The body has come whole from the server, which is not needed any more.
    fn give_back(&mut self) {
        if let Source::Server(_, held) = &mut self.source
            && let Some(lease) = held.take()
        {
            if lease.has_upload()
                && let Some(record) = &self.record
                && !record.client().is_stream()
            {
                // The client may not have read the answer yet, and a close with content unread would take it away.
                record.client().connection.linger();
            }
            lease.give_back();
        }
    }

    /// The next piece as components have made it.
    fn poll_filtered(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(mut filters) = self.filters.take() else {
            let frame = self.poll_source(cx);
            if std::mem::take(&mut self.is_owed) {
                self.finish();
            }
            return frame;
        };
        let frame = filters.poll(cx, &mut |cx| self.poll_source(cx));
        // Not before: a heavy one may still have the last piece.
        if self.is_owed && filters.is_done() && !matches!(frame, Poll::Ready(Some(Err(_)))) {
            self.is_owed = false;
            self.finish();
        }
        self.filters = Some(filters);
        if let (Poll::Ready(Some(Err(error))), Some(record)) = (&frame, &mut self.record)
            && Stopped::of(error).is_some()
        {
            record.end_early(Cause::Proxy, "plugin-stopped");
        }
        frame
    }

    /// The next piece as its source has it.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(record) = &mut self.record else {
            return Poll::Ready(None);
        };
        let (incoming, held) = match &mut self.source {
            Source::Full(bytes) => {
                return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))));
            }
            Source::Server(incoming, held) => (incoming, held),
        };
        let turns = &record.client().turns;
        if turns.late() == Some(Late::Server) {
            record.end_early(Cause::ServerTimeout, "server-timeout");
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the server stalled"))));
        }
        let polled = held.with(|lease| match lease.poll_ended(cx) {
            Poll::Ready(why) => Poll::Ready(Some(Err(io::Error::other(ProxyError::from(why))))),
            Poll::Pending => lease.poll_body(incoming, cx),
        });
        match polled.unwrap_or(Poll::Ready(None)) {
            Poll::Pending => {
                turns.await_server();
                Poll::Pending
            }
            Poll::Ready(None) => {
                turns.server_moved();
                self.give_back();
                self.is_owed = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                turns.server_moved();
                // Behind trailers nothing comes, and hyper does not ask.
                if frame.is_trailers() || incoming.is_end_stream() {
                    self.give_back();
                    self.is_owed = true;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                match ProxyError::within(&error) {
                    Some(known) => record.end_early(known.termination().cause, known.reason()),
                    None => record.end_early(Cause::ServerAborted, "server-broke-off"),
                }
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let frame = match this.recoding.take() {
            None => this.poll_filtered(cx),
            Some(mut recoding) => {
                let frame = recoding.poll(cx, |cx| this.poll_filtered(cx));
                this.recoding = Some(recoding);
                if let (Poll::Ready(Some(Err(error))), Some(record)) = (&frame, &mut this.record)
                    && let Some(fault) = Fault::of(error)
                {
                    record.end_early(Cause::Proxy, fault.reason());
                }
                frame
            }
        };
        if let (Poll::Ready(Some(Ok(frame))), Some(record)) = (&frame, &mut this.record) {
            record.add_bytes(frame.data_ref().map_or(0, Bytes::len));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        if let Some(recoding) = &self.recoding {
            return recoding.is_done();
        }
        if let Some(filters) = &self.filters {
            return filters.is_done();
        }
        match &self.source {
            Source::Full(bytes) => bytes.is_none(),
            Source::Server(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.recoding.is_some() {
            return SizeHint::default();
        }
        if let Some(filters) = &self.filters {
            return filters.left().map_or(SizeHint::default(), SizeHint::with_exact);
        }
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Source::Server(incoming, _) => incoming.size_hint(),
        }
    }
}

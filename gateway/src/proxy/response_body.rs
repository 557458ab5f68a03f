//! A response's body on its way to the client, and with it the end of the exchange.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::content::Content;
use super::decompression::Fault;
use super::error::ProxyError;
use super::filtered::{BodyFilters, Stopped};
use super::held::Held;
use super::lease::Lease;
use super::recoding::Recoding;
use super::record::Record;
use super::rest::Rest;
use super::turns::Late;
use crate::telemetry::access::Cause;

/// A response's body on its way to the client. Owns the exchange's record: when the body ends or is given up, the exchange
/// is over and is logged.
pub struct ResponseBody {
    source: Source,
    /// None when the exchange goes on without it, as a tunnel.
    record: Option<Box<Record>>,
    /// The components that filter what the server sends.
    filters: Option<Box<BodyFilters>>,
    recoding: Option<Box<Recoding>>,
    /// The server has sent all, and components may not have let all of it through yet.
    is_owed: bool,
    /// All of it has been produced, and the client sends yet.
    is_ahead: bool,
    /// It has broken off, and a client of HTTP/1.1 is written first what came before.
    broken: Option<io::Error>,
}

enum Source {
    /// Made here.
    Full(Option<Bytes>),
    /// From a server; the lease is given back when the body has come whole.
    Server(Content, Held),
}

impl ResponseBody {
    /// A body made here.
    pub fn full(bytes: Bytes, record: Box<Record>) -> Self {
        let mut body = Self {
            source: Source::Full((!bytes.is_empty()).then_some(bytes)),
            record: Some(record),
            filters: None,
            recoding: None,
            is_owed: false,
            is_ahead: false,
            broken: None,
        };
        // All of it is here, and a response to HEAD is never asked for it.
        body.finish();
        body
    }

    /// A server's body.
    pub fn server(mut incoming: Content, mut lease: Lease, mut record: Box<Record>) -> Self {
        if incoming.is_bodiless() && !incoming.is_end_stream() {
            // Nobody asks for the end of what is not there, so that it would never be seen to end.
            lease.await_end(std::mem::replace(&mut incoming, Content::None));
        }
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
            is_ahead: false,
            broken: None,
        };
        if has_ended {
            body.let_go();
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
            is_ahead: false,
            broken: None,
        }
    }

    /// Moves what is left of the request along while nobody can take more of the response.
    pub fn poll_request(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        if let Source::Server(_, held) = &mut self.get_mut().source {
            held.with(|lease| lease.poll_request(cx));
        }
    }

    /// All of it has been produced. The exchange is over, unless the client sends yet.
    fn finish(&mut self) {
        let Some(record) = &mut self.record else { return };
        if let Source::Server(_, held) = &mut self.source
            && held.is_there()
        {
            self.is_ahead = true;
            return;
        }
        record.complete();
    }

    /// The body has come whole from the server, which is not needed any more, unless it takes of the request yet.
    fn let_go(&mut self) {
        let (Source::Server(_, held), Some(record)) = (&mut self.source, &mut self.record) else {
            return;
        };
        let has_upload = held.with(|lease| lease.has_upload());
        if has_upload == Some(true) && record.is_of_old_client() {
            // Its end may be what tells the client that it has all of the answer.
            held.take();
            record.client().turns.client_moved();
            record.client().connection.linger();
        }
        if has_upload != Some(false) {
            return;
        }
        if let Some(lease) = held.take() {
            if let Some((cause, reason)) = lease.left_as() {
                record.end_early(cause, reason);
            }
            lease.give_back();
        }
    }

    /// Who has all that the length of a response promises takes no more of it, and does not wait for the end of its stream.
    fn settle(&mut self) {
        let (Source::Server(incoming, held), Some(record)) = (&mut self.source, &self.record) else {
            return;
        };
        let is_as_sent = self.filters.is_none() && self.recoding.is_none();
        if record.is_complete() || self.is_ahead || !is_as_sent || !incoming.is_whole_by_length() {
            return;
        }
        let content = std::mem::replace(incoming, Content::None);
        held.with(|lease| lease.await_end(content));
        self.let_go();
        self.finish();
    }

    /// What is left of the exchange, when all of the response has been handed on and the client sends yet.
    pub fn into_rest(mut self) -> Option<Rest> {
        self.take_rest()
    }

    fn take_rest(&mut self) -> Option<Rest> {
        if !std::mem::take(&mut self.is_ahead) {
            return None;
        }
        let Source::Server(_, held) = &mut self.source else {
            return None;
        };
        Some(Rest::new(held.take()?, self.record.take()?))
    }

    /// Tells that it has broken off, when what came before has been written: an answer of which the client has seen nothing is one that it may
    /// take for a request that nobody has read, and send again.
    fn poll_broken(&mut self, error: io::Error) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let owes = self
            .record
            .as_ref()
            .is_some_and(|record| record.client().connection.is_owing());
        if owes {
            // hyper flushes when it has nothing more, and comes back.
            self.broken = Some(error);
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(error)))
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
            record.end_early(Cause::Proxy, PLUGIN_STOPPED);
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
        if self.is_ahead || self.is_owed {
            return Poll::Ready(None);
        }
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
                self.let_go();
                self.is_owed = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                turns.server_moved();
                if let Some(trailers) = frame.trailers_mut() {
                    record.trailers_came(trailers);
                }
                // Behind trailers nothing comes, and hyper does not ask.
                if frame.is_trailers() || incoming.is_end_stream() {
                    self.let_go();
                    self.is_owed = true;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                match ProxyError::within(&error) {
                    Some(known) => record.end_early(known.cause(), known.reason()),
                    None => record.end_early(Cause::ServerAborted, "server-broke-off"),
                }
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl Drop for ResponseBody {
    /// hyper lets go of a body when it has all of it.
    fn drop(&mut self) {
        self.settle();
        let Some(client) = self.record.as_deref().filter(|_| self.is_ahead).map(Record::client) else {
            return;
        };
        if client.is_stream() {
            return;
        }
        let client = client.clone();
        if let Some(mut rest) = self.take_rest() {
            rest.answer_is_made();
            client.uploading.go_on(rest);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if let Some(error) = this.broken.take() {
            return this.poll_broken(error);
        }
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
        match (frame, &mut this.record) {
            (Poll::Ready(Some(Ok(frame))), Some(record)) => {
                record.add_bytes(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            (Poll::Ready(Some(Err(error))), Some(record)) if !record.client().is_stream() => {
                record.client().turns.server_moved();
                record.client().connection.breaks_off();
                this.poll_broken(error)
            }
            (frame, _) => frame,
        }
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

/// What log lines say of a response whose body a component has stopped on its way.
pub const PLUGIN_STOPPED: &str = "plugin-stopped";

//! A request's body on its way into a stream of HTTP/2, beside whatever the server answers meanwhile.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use super::body::{BodyError, RequestBody};
use crate::backend::{Blocked, Multiplexed};

/// A request's body that goes into a stream. Polled by the exchange until it is over: before the response's head comes and
/// while its content does, so that both sides may send at once.
pub struct Upload {
    /// None when all of it has gone, or it broke off.
    body: Option<RequestBody>,
    stream: SendStream<Bytes>,
    /// What the stream is on.
    connection: Rc<Multiplexed>,
    /// It waits there for the server to open its windows.
    blocked: Option<Blocked>,
    /// What has come and not gone out.
    chunk: Bytes,
    has_begun: bool,
    /// The server takes no more of it. Whether it has said so as it should (RFC 9113, section 8.1).
    left: Option<bool>,
    /// Why it broke off.
    broken: Option<BodyError>,
}

impl Upload {
    /// A body on its way into this stream of a connection. A body that is empty has ended with the head.
    pub fn new(body: RequestBody, stream: SendStream<Bytes>, connection: &Rc<Multiplexed>) -> Self {
        let body = (!body.is_end_stream()).then_some(body);
        Self {
            body,
            stream,
            connection: connection.clone(),
            blocked: None,
            chunk: Bytes::new(),
            has_begun: false,
            left: None,
            broken: None,
        }
    }

    /// The body, if nothing of it has been taken yet.
    pub fn untouched(self) -> Option<RequestBody> {
        self.body.filter(|_| !self.has_begun)
    }

    /// Whether nothing more is taken of the body.
    pub fn is_over(&self) -> bool {
        self.body.is_none()
    }

    /// Why it broke off, once.
    pub fn take_broken(&mut self) -> Option<BodyError> {
        self.broken.take()
    }

    /// The server gets no more of it: what it has not taken, and whether it has said that it takes no more.
    pub fn leave(&mut self) -> Option<(RequestBody, bool)> {
        if self.left.is_none() && self.body.is_some() {
            self.stream.send_reset(Reason::CANCEL);
            self.blocked = None;
            self.left = Some(false);
        }
        self.take_left()
    }

    /// What the server has not taken and will not take, once; and whether it has said so as it should.
    pub fn take_left(&mut self) -> Option<(RequestBody, bool)> {
        Some((self.body.take_if(|_| self.left.is_some())?, self.left?))
    }

    /// The stream, for what follows the body.
    pub fn into_stream(self) -> SendStream<Bytes> {
        self.stream
    }

    /// Moves it along as far as it goes now. What goes wrong ends the stream, and the response says so.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        if self.left.is_some() {
            return;
        }
        let Some(body) = &mut self.body else { return };
        // Also so that this task hears of it.
        if let Poll::Ready(reset) = self.stream.poll_reset(cx) {
            self.blocked = None;
            self.left = Some(reset.is_ok_and(|reason| reason == Reason::NO_ERROR));
            return;
        }
        loop {
            if !self.chunk.is_empty() {
                let room = self.stream.capacity();
                if room == 0 {
                    match self.stream.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(_))) => continue,
                        Poll::Pending => {
                            let connection = &self.connection;
                            self.blocked.get_or_insert_with(|| connection.block());
                            return;
                        }
                        // The server takes no more of it, and perhaps answers all the same.
                        Poll::Ready(_) => {
                            self.blocked = None;
                            self.left = Some(false);
                            return;
                        }
                    }
                }
                self.blocked = None;
                let part = self.chunk.split_to(room.min(self.chunk.len()));
                let ends = self.chunk.is_empty() && body.is_end_stream();
                if self.stream.send_data(part, ends).is_err() || ends {
                    break;
                }
                continue;
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(frame))) => {
                    self.has_begun = true;
                    match frame.into_data() {
                        Ok(data) if data.is_empty() => {}
                        Ok(data) => {
                            self.stream.reserve_capacity(data.len());
                            self.chunk = data;
                        }
                        Err(frame) => {
                            let Ok(trailers) = frame.into_trailers() else { continue };
                            self.stream.reserve_capacity(0);
                            let _ = self.stream.send_trailers(trailers);
                            break;
                        }
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.has_begun = true;
                    self.broken = Some(error);
                    self.stream.send_reset(Reason::CANCEL);
                    break;
                }
                Poll::Ready(None) => {
                    let _ = self.stream.send_data(Bytes::new(), true);
                    break;
                }
            }
        }
        self.body = None;
    }
}

//! Bodies that components filter on their way: a request's to the server, a response's to the client.
//!
//! A piece is handed to the component when whoever sends the body on asks for more, so nothing is read ahead of need, and no
//! more than one piece is held beside what the component made of it. What the component has to remember from one piece to the
//! next is kept here, beside the instance that sees the whole body: where instances are used again, it may be another one.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::local::Local;
use crate::config::OnFailure;
use crate::policy::{Attachment, BodyOf, KeptByBody, Piece, PieceVerdict, Reply};

/// What filters a body, in the order in which it passes.
#[derive(Default)]
pub struct BodyFilters(Vec<BodyFilter>);

/// What one component makes of a body.
pub struct BodyFilter {
    /// None when what is left passes unseen.
    filter: Option<Filter>,
    /// What goes out next.
    outgoing: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// Nothing more comes in.
    has_ended: bool,
    /// How long it is in all, where that is known.
    left: Option<u64>,
}

/// A component, and where it is in the body.
pub struct Filter {
    local: Rc<Local>,
    attachment: Arc<Attachment>,
    of: BodyOf,
    instance: KeptByBody,
    state: Vec<u8>,
    /// The head has not been sent: there may still be a reply.
    is_held: bool,
}

/// A component stopped a body, or failed and denies when it fails. Who has not been answered yet gets this status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a plugin stopped the body")]
pub struct Stopped {
    /// 400 to 599.
    pub status: u16,
}

/// A frame of a body as it comes.
type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

/// What became of a piece.
enum Passed {
    /// It went on, or something in its place.
    On,
    /// The exchange ends with this.
    Reply(Reply),
}

impl BodyFilters {
    /// One more component filters what the ones before have made.
    pub fn push(&mut self, filter: BodyFilter) {
        self.0.push(filter);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all has gone out.
    pub fn is_done(&self) -> bool {
        self.0.last().is_none_or(BodyFilter::is_done)
    }

    /// How much is to come out yet, where that is known.
    pub fn left(&self) -> Option<u64> {
        self.0.last()?.left
    }

    /// The next frame of what comes out. `source` has what goes in.
    pub fn poll<E: From<Stopped>>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut dyn FnMut(&mut Context<'_>) -> Polled<E>,
    ) -> Polled<E> {
        poll_through(&mut self.0, cx, source)
    }
}

fn poll_through<E: From<Stopped>>(
    filters: &mut [BodyFilter],
    cx: &mut Context<'_>,
    source: &mut dyn FnMut(&mut Context<'_>) -> Polled<E>,
) -> Polled<E> {
    match filters.split_last_mut() {
        None => source(cx),
        Some((last, before)) => last.poll(cx, &mut |cx| poll_through(before, cx, source)),
    }
}

impl Filter {
    /// Nothing of the body has come.
    pub fn new(local: &Rc<Local>, attachment: &Arc<Attachment>, of: BodyOf, is_held: bool) -> Self {
        Self {
            local: local.clone(),
            attachment: attachment.clone(),
            of,
            instance: KeptByBody::default(),
            state: Vec::new(),
            is_held,
        }
    }
}

impl BodyFilter {
    /// A body that is filtered as it comes.
    pub fn streamed(filter: Filter) -> Self {
        Self {
            filter: Some(filter),
            outgoing: VecDeque::new(),
            trailers: None,
            has_ended: false,
            left: None,
        }
    }

    /// A body of which these pieces have come; they and what is left of it pass unseen. It is as long as it was.
    pub fn unseen(pieces: VecDeque<Bytes>, length: Option<u64>) -> Self {
        Self {
            filter: None,
            outgoing: pieces,
            trailers: None,
            has_ended: false,
            left: length,
        }
    }

    /// A body that has come whole. Answers a reply when the component gives one.
    pub fn whole(
        filter: Filter,
        pieces: VecDeque<Bytes>,
        trailers: Option<HeaderMap>,
    ) -> Result<Result<Self, Reply>, Stopped> {
        let mut body = Self::streamed(filter);
        body.trailers = trailers;
        Ok(match body.hand_over(joined(pieces), true, usize::MAX)? {
            Passed::On => {
                body.left = Some(body.outgoing.iter().map(|bytes| bytes.len() as u64).sum());
                Ok(body)
            }
            Passed::Reply(reply) => Err(reply),
        })
    }

    /// The first piece has come while the head is held. Answers a reply when the component gives one.
    pub fn begun(filter: Filter, first: Bytes) -> Result<Result<Self, Reply>, Stopped> {
        let mut body = Self::streamed(filter);
        Ok(match body.hand_over(first, false, MAX_PIECE)? {
            Passed::On => Ok(body),
            Passed::Reply(reply) => Err(reply),
        })
    }

    fn is_done(&self) -> bool {
        self.has_ended && self.outgoing.is_empty() && self.trailers.is_none()
    }

    fn poll<E: From<Stopped>>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut dyn FnMut(&mut Context<'_>) -> Polled<E>,
    ) -> Polled<E> {
        if self.outgoing.is_empty() && !self.has_ended {
            let frame = match ready!(source(cx)).transpose() {
                Ok(frame) => frame.map(Frame::into_data),
                Err(error) => {
                    self.has_ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            };
            let handed = match frame {
                Some(Ok(bytes)) => self.hand_over(bytes, false, MAX_PIECE),
                Some(Err(frame)) => {
                    self.trailers = frame.into_trailers().ok();
                    self.hand_over(Bytes::new(), true, MAX_PIECE)
                }
                None => self.hand_over(Bytes::new(), true, MAX_PIECE),
            };
            if let Err(stopped) = handed {
                self.has_ended = true;
                self.outgoing.clear();
                return Poll::Ready(Some(Err(stopped.into())));
            }
            if self.outgoing.is_empty() && !self.has_ended {
                // It was dropped whole. Others have their turn before the next: dropping much is work, too.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        if let Some(bytes) = self.outgoing.pop_front() {
            self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// Hands bytes to the component, `most` at once, and takes what goes on.
    fn hand_over(&mut self, bytes: Bytes, is_last: bool, most: usize) -> Result<Passed, Stopped> {
        self.has_ended |= is_last;
        let mut rest = bytes;
        loop {
            let Some(filter) = &mut self.filter else {
                self.send(rest);
                return Ok(Passed::On);
            };
            let piece = rest.split_to(rest.len().min(most));
            let handed = Piece {
                state: &filter.state,
                bytes: &piece,
                last: is_last && rest.is_empty(),
                may_reply: filter.is_held,
            };
            let mut instances = filter.local.instances();
            let answered = instances.on_piece(&filter.attachment, filter.of, &mut filter.instance, handed);
            drop(instances);
            filter.is_held = false;
            let on_failure = filter.attachment.on_failure();
            let verdict = answered.map(|(state, verdict)| {
                filter.state = state;
                verdict
            });
            match verdict {
                Ok(PieceVerdict::Reply(reply)) => return Ok(Passed::Reply(reply)),
                Ok(PieceVerdict::Replace(bytes)) => self.send(bytes.into()),
                Ok(PieceVerdict::Abort) => return Err(Stopped { status: ABORTED }),
                Ok(PieceVerdict::PassRest) => {
                    self.filter = None;
                    self.send(piece);
                }
                Ok(PieceVerdict::Pass) => self.send(piece),
                // The host has logged and counted it.
                Err(_) => match on_failure {
                    OnFailure::Deny(status) => return Err(Stopped { status }),
                    OnFailure::Skip => {
                        self.filter = None;
                        self.send(piece);
                    }
                },
            }
            if rest.is_empty() {
                return Ok(Passed::On);
            }
        }
    }

    fn send(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.outgoing.push_back(bytes);
        }
    }
}

impl Stopped {
    /// What an error of a filtered body was.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<Stopped> for io::Error {
    fn from(stopped: Stopped) -> Self {
        Self::other(stopped)
    }
}

/// One piece of several.
fn joined(mut pieces: VecDeque<Bytes>) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.pop_front().unwrap_or_default();
    }
    let mut all = Vec::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| all.extend_from_slice(piece));
    all.into()
}

/// Bytes that a component is handed at once of what is streamed. Copying them into the guest is work that no deadline bounds.
const MAX_PIECE: usize = 64 * 1024;

/// What a request is answered with whose body a component has stopped: it was understood, and is not to be.
const ABORTED: u16 = 403;

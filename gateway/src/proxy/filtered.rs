//! Bodies that components filter on their way: a request's to the server, a response's to the client.
//!
//! A piece is handed to the component when whoever sends the body on asks for more, so nothing is read ahead of need, and no
//! more than one piece is held beside what the component made of it. What the component has to remember from one piece to the
//! next is kept here, beside the instance that sees the whole body: where instances are used again, it may be another one.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::heavy;
use super::local::Local;
use crate::config::OnFailure;
use crate::policy::{
    Attachment, BodyOf, Failure, HookPlace, HostMemory, HostMemoryFull, Instances, KeptByBody, Piece, PieceVerdict,
    Reply,
};

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
    /// What is being handed to the component.
    handing: Option<Handing>,
}

/// Bytes on their way through a component.
struct Handing {
    /// What it has not been handed yet.
    rest: Bytes,
    is_last: bool,
    /// At once.
    most: usize,
    /// The piece that a heavy one has, on a thread beside the worker.
    away: Option<(Bytes, Away)>,
}

/// What becomes of a piece there, if anything; the instance comes back in any case, unless it was lost.
type Away = Pin<Box<dyn Future<Output = Option<(KeptByBody, Option<Handed>)>>>>;

/// What a component made of a piece, and what it wants to be told with the next.
type Handed = Result<(Bytes, PieceVerdict), Failure>;

/// A component, and where it is in the body.
pub struct Filter {
    local: Rc<Local>,
    attachment: Arc<Attachment>,
    of: BodyOf,
    instance: KeptByBody,
    state: Bytes,
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

    /// Bytes that are to come out yet, where that is known.
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
            state: Bytes::new(),
            is_held,
        }
    }

    /// What is held until the component has seen it.
    pub fn host_memory(&self) -> HostMemory {
        self.attachment.host_memory()
    }

    /// The gateway may hold no more of it for the component: whose failure that is, and how.
    pub fn is_not_held(&self, full: &HostMemoryFull) -> (&Attachment, Failure) {
        let mut instances = self.local.instances();
        let failure = instances.body_is_not_held(&self.attachment, self.of, full);
        (&self.attachment, failure)
    }

    /// Hands over the next piece, and waits for what becomes of it.
    fn poll(&mut self, handing: &mut Handing, cx: &mut Context<'_>) -> Poll<(Bytes, Handed)> {
        let (piece, mut away) = match handing.away.take() {
            Some(away) => away,
            None => {
                let piece = handing.rest.split_to(handing.rest.len().min(handing.most));
                let last = handing.is_last && handing.rest.is_empty();
                let place = match self.of {
                    BodyOf::Request => HookPlace::OnRequestPiece,
                    BodyOf::Response => HookPlace::OnResponsePiece,
                };
                let has_one = || self.instance.is_there() || self.local.instances().has_ready(&self.attachment);
                if !heavy::is_beside(&self.attachment, has_one) {
                    let handed = self.hand(&piece, last, Instances::on_piece);
                    return Poll::Ready((piece, handed));
                }
                if !self.attachment.is_worth_waiting_for(place) {
                    let handed = self.hand_instead(&piece, last);
                    return Poll::Ready((piece, handed));
                }
                let away = self.send_away(piece.clone(), last);
                (piece, away)
            }
        };
        let Poll::Ready(back) = away.as_mut().poll(cx) else {
            handing.away = Some((piece, away));
            return Poll::Pending;
        };
        let handed = back.and_then(|(instance, handed)| {
            self.instance = instance;
            handed
        });
        let is_last = handing.is_last && handing.rest.is_empty();
        let handed = handed.unwrap_or_else(|| self.hand_instead(&piece, is_last));
        Poll::Ready((piece, handed))
    }

    /// Nobody beside the workers had time for it.
    fn hand_instead(&mut self, bytes: &[u8], last: bool) -> Handed {
        self.hand(bytes, last, |instances, attachment, of, instance, piece| {
            instances.instead_of_crew(|instances| instances.on_piece(attachment, of, instance, piece))
        })
    }

    fn hand(
        &mut self,
        bytes: &[u8],
        last: bool,
        on_piece: impl FnOnce(&mut Instances, &Arc<Attachment>, BodyOf, &mut KeptByBody, Piece<'_>) -> Handed,
    ) -> Handed {
        let piece = Piece {
            state: &self.state,
            bytes,
            last,
            may_reply: self.is_held,
        };
        let mut instances = self.local.instances();
        on_piece(&mut instances, &self.attachment, self.of, &mut self.instance, piece)
    }

    /// Has it handed over beside the workers. None when it could not be.
    fn send_away(&mut self, bytes: Bytes, last: bool) -> Away {
        let (attachment, of, may_reply) = (self.attachment.clone(), self.of, self.is_held);
        let state = self.state.clone();
        let mut instance = std::mem::take(&mut self.instance);
        let call = move |instances: Option<&mut Instances>| {
            let piece = Piece {
                state: &state,
                bytes: &bytes,
                last,
                may_reply,
            };
            let handed = instances.map(|instances| instances.on_piece(&attachment, of, &mut instance, piece));
            (instance, handed)
        };
        let (local, attachment) = (self.local.clone(), self.attachment.clone());
        Box::pin(async move { heavy::wait(local.crew(), &attachment, call).await.ok() })
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
            handing: None,
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
            handing: None,
        }
    }

    /// A body that has come whole, and what it takes. Answers a reply when the component gives one.
    pub async fn whole(
        filter: Filter,
        pieces: VecDeque<Bytes>,
        memory: HostMemory,
        trailers: Option<HeaderMap>,
    ) -> Result<Result<Self, Reply>, Stopped> {
        let mut body = Self::streamed(filter);
        body.trailers = trailers;
        let whole = memory.with(joined(pieces));
        Ok(match body.hand_over(whole, true, usize::MAX).await? {
            Passed::On => {
                body.left = Some(body.outgoing.iter().map(|bytes| bytes.len() as u64).sum());
                Ok(body)
            }
            Passed::Reply(reply) => Err(reply),
        })
    }

    /// The first piece has come while the head is held. Answers a reply when the component gives one.
    pub async fn begun(filter: Filter, first: Bytes) -> Result<Result<Self, Reply>, Stopped> {
        let mut body = Self::streamed(filter);
        Ok(match body.hand_over(first, false, MAX_PIECE).await? {
            Passed::On => Ok(body),
            Passed::Reply(reply) => Err(reply),
        })
    }

    fn is_done(&self) -> bool {
        self.has_ended && self.handing.is_none() && self.outgoing.is_empty() && self.trailers.is_none()
    }

    fn poll<E: From<Stopped>>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut dyn FnMut(&mut Context<'_>) -> Polled<E>,
    ) -> Polled<E> {
        if self.outgoing.is_empty() && self.handing.is_none() && !self.has_ended {
            let frame = match ready!(source(cx)).transpose() {
                Ok(frame) => frame.map(Frame::into_data),
                Err(error) => {
                    self.has_ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            };
            match frame {
                Some(Ok(bytes)) => self.begin(bytes, false, MAX_PIECE),
                Some(Err(frame)) => {
                    self.trailers = frame.into_trailers().ok();
                    self.begin(Bytes::new(), true, MAX_PIECE);
                }
                None => self.begin(Bytes::new(), true, MAX_PIECE),
            }
        }
        if self.handing.is_some() {
            if let Err(stopped) = ready!(self.poll_handed(cx)) {
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
    async fn hand_over(&mut self, bytes: Bytes, is_last: bool, most: usize) -> Result<Passed, Stopped> {
        self.begin(bytes, is_last, most);
        poll_fn(|cx| self.poll_handed(cx)).await
    }

    fn begin(&mut self, bytes: Bytes, is_last: bool, most: usize) {
        self.has_ended |= is_last;
        self.handing = Some(Handing {
            rest: bytes,
            is_last,
            most,
            away: None,
        });
    }

    /// Waits until all that is being handed over has been.
    fn poll_handed(&mut self, cx: &mut Context<'_>) -> Poll<Result<Passed, Stopped>> {
        loop {
            let Some(handing) = &mut self.handing else {
                return Poll::Ready(Ok(Passed::On));
            };
            let Some(filter) = &mut self.filter else {
                let rest = std::mem::take(&mut handing.rest);
                self.handing = None;
                self.send(rest);
                return Poll::Ready(Ok(Passed::On));
            };
            let (piece, handed) = ready!(filter.poll(handing, cx));
            filter.is_held = false;
            let on_failure = filter.attachment.on_failure();
            let verdict = handed.map(|(state, verdict)| {
                filter.state = state;
                verdict
            });
            if handing.rest.is_empty() {
                self.handing = None;
            }
            match verdict {
                Ok(PieceVerdict::Reply(reply)) => {
                    self.handing = None;
                    return Poll::Ready(Ok(Passed::Reply(reply)));
                }
                Ok(PieceVerdict::Replace(bytes)) => self.send(bytes),
                Ok(PieceVerdict::Abort) => {
                    self.handing = None;
                    return Poll::Ready(Err(Stopped { status: ABORTED }));
                }
                Ok(PieceVerdict::PassRest) => {
                    self.filter = None;
                    self.send(piece);
                }
                Ok(PieceVerdict::Pass) => self.send(piece),
                // The host has logged and counted it.
                Err(_) => match on_failure {
                    OnFailure::Deny(status) => {
                        self.handing = None;
                        return Poll::Ready(Err(Stopped { status }));
                    }
                    OnFailure::Skip => {
                        self.filter = None;
                        self.send(piece);
                    }
                },
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
pub const MAX_PIECE: usize = 64 * 1024;

/// What a request is answered with whose body a component has stopped: it was understood, and is not to be.
pub const ABORTED: u16 = 403;

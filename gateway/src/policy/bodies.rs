//! The calls of body filters: how a body is to be filtered, and what becomes of a piece.

use std::sync::Arc;

use bytes::Bytes;

use super::attachment::Attachment;
use super::bindings::gateway::policy::types;
use super::edits;
use super::exchange::{Exchange, Reply};
use super::failure::{Failure, FailureKind, Untaken};
use super::hook::{ON_REQUEST_BODY, ON_REQUEST_PIECE, ON_RESPONSE_BODY, ON_RESPONSE_PIECE};
use super::host_memory::HostMemoryFull;
use super::instance::Instance;
use super::instances::Instances;
use super::subject::Subject;

/// How a body is to be filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyMode {
    /// It passes unseen.
    Skip,
    /// Piece by piece, behind its head.
    Streamed,
    /// Piece by piece; the head is held until the first has been answered.
    Held,
    /// Whole, up to so many bytes.
    Buffered {
        /// The bytes.
        max: u64,
        /// Whether a longer one passes unseen; if not, it is refused.
        or_skip: bool,
    },
}

/// What becomes of a piece of a body.
#[derive(Debug, Clone)]
pub enum PieceVerdict {
    /// It goes on as it is.
    Pass,
    /// These bytes go on instead.
    Replace(Bytes),
    /// It and all that follow go on as they are.
    PassRest,
    /// The exchange ends here, with this.
    Reply(Reply),
    /// The exchange breaks off.
    Abort,
}

/// Whose body it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyOf {
    /// A request's.
    Request,
    /// A response's.
    Response,
}

/// A piece of a body, as a component is handed it.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// What the call before answered.
    pub state: &'a [u8],
    /// The bytes.
    pub bytes: &'a [u8],
    /// Nothing follows.
    pub last: bool,
    /// The head has not been sent: there may still be a reply.
    pub may_reply: bool,
}

/// The instance that sees all pieces of one body, from the first to the last, unless its plugin's are used again anyway.
#[derive(Default)]
pub struct KeptByBody {
    pub(super) instance: Option<Box<Instance>>,
    /// No piece follows the one that is being answered.
    pub(super) is_last: bool,
}

impl KeptByBody {
    /// Whether there is one.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.instance.is_some()
    }
}

impl Instances {
    /// Asks how a body is to be filtered.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then.
    pub fn on_body(
        &mut self,
        attachment: &Arc<Attachment>,
        of: BodyOf,
        exchange: &mut Box<Exchange>,
    ) -> Result<BodyMode, Failure> {
        // A shadow's say about a body would come when the body has gone.
        if attachment.is_shadow() || attachment.stands_aside(exchange) {
            return Ok(BodyMode::Skip);
        }
        let subject = Subject::Exchange(exchange);
        let mode = match of {
            BodyOf::Request => self.call(
                attachment,
                subject,
                ON_REQUEST_BODY,
                |guests, store, facts| {
                    let guest = guests.request_body_filter.as_ref()?;
                    Some(guest.call_on_request_body(store, facts))
                },
                |mode, _, _| Ok(mode),
            ),
            BodyOf::Response => self.call(
                attachment,
                subject,
                ON_RESPONSE_BODY,
                |guests, store, facts| {
                    let guest = guests.response_body_filter.as_ref()?;
                    Some(guest.call_on_response_body(store, facts))
                },
                |mode, _, _| Ok(mode),
            ),
        }?;
        let buffered = |max, or_skip| BodyMode::Buffered { max, or_skip };
        Ok(match mode {
            types::BodyMode::Skip => BodyMode::Skip,
            types::BodyMode::Streamed => BodyMode::Streamed,
            types::BodyMode::Held => BodyMode::Held,
            types::BodyMode::Buffered(max) => buffered(max, false),
            types::BodyMode::BufferedOrSkip(max) => buffered(max, true),
        })
    }

    /// A body was to be held until a component has seen it whole, and the gateway may hold no more for that one.
    pub fn body_is_not_held(&mut self, attachment: &Arc<Attachment>, of: BodyOf, full: &HostMemoryFull) -> Failure {
        let hook = match of {
            BodyOf::Request => ON_REQUEST_BODY,
            BodyOf::Response => ON_RESPONSE_BODY,
        };
        self.refuse(attachment, hook, FailureKind::HostMemory, &full.to_string())
    }

    /// Asks what becomes of a piece; `body` is the same for all pieces of a body. Answers what has to come with the next, too.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then.
    pub fn on_piece(
        &mut self,
        attachment: &Arc<Attachment>,
        of: BodyOf,
        body: &mut KeptByBody,
        piece: Piece<'_>,
    ) -> Result<(Bytes, PieceVerdict), Failure> {
        body.is_last = piece.last;
        let may_reply = piece.may_reply;
        let piece = types::Piece {
            state: piece.state,
            bytes: piece.bytes,
            last: piece.last,
        };
        match of {
            BodyOf::Request => self.call(
                attachment,
                Subject::Body(body),
                ON_REQUEST_PIECE,
                |guests, store, _| {
                    let guest = guests.request_body_filter.as_ref()?;
                    Some(guest.call_on_request_piece(store, piece))
                },
                |outcome, _, _| checked(outcome, may_reply, attachment),
            ),
            BodyOf::Response => self.call(
                attachment,
                Subject::Body(body),
                ON_RESPONSE_PIECE,
                |guests, store, _| {
                    let guest = guests.response_body_filter.as_ref()?;
                    Some(guest.call_on_response_piece(store, piece))
                },
                |outcome, _, _| checked(outcome, may_reply, attachment),
            ),
        }
    }
}

/// What a component made of a piece, if it may.
fn checked(
    outcome: types::PieceOutcome,
    may_reply: bool,
    attachment: &Attachment,
) -> Result<(Bytes, PieceVerdict), Untaken> {
    if outcome.state.len() > MAX_STATE {
        return Err(TOO_MUCH_STATE.into());
    }
    let verdict = match outcome.verdict {
        types::PieceVerdict::Pass => PieceVerdict::Pass,
        types::PieceVerdict::Replace(bytes) => PieceVerdict::Replace(attachment.hold(bytes)?),
        types::PieceVerdict::PassRest => PieceVerdict::PassRest,
        types::PieceVerdict::Abort => PieceVerdict::Abort,
        types::PieceVerdict::Reply(_) if !may_reply => return Err("replies when the head has gone already".into()),
        types::PieceVerdict::Reply(reply) => PieceVerdict::Reply(edits::reply_of(reply, attachment)?),
    };
    Ok((attachment.hold(outcome.state)?, verdict))
}

/// Bytes that the host keeps for a component between two calls of one exchange; the contract says so. A parser's state, not
/// the body.
pub(super) const MAX_STATE: usize = 16 * 1024;

pub(super) const TOO_MUCH_STATE: &str = "wants more than 16 KiB kept from one call to the next";

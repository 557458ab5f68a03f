//! A body on its way past a filter, whole in memory: what the data plane does as it comes, in the same order.

use std::sync::Arc;

use bytes::Bytes;

use super::stand::Stand;
use crate::config::OnFailure;
use crate::policy::{Attachment, BodyMode, BodyOf, Exchange, Failure, KeptByBody, Piece, PieceVerdict, Reply};
use crate::proxy::{MAX_BODY_PIECE, STATUS_OF_ABORTED};

/// What becomes of a body.
pub(super) enum Passed {
    /// It goes on, as this.
    On {
        body: Vec<u8>,
        /// What its length is said to be then; none when it may be anything, or is what it was.
        length: Length,
    },
    /// This is sent instead.
    Reply(Reply),
    /// It is longer than the component takes.
    TooLong,
    /// The component broke the exchange off. Who has not been answered yet gets this status.
    Aborted(Option<u16>),
    /// It failed, and that denies, with this status.
    Denied(u16),
}

/// What a head says of a body that was filtered.
pub(super) enum Length {
    /// What it has said.
    AsBefore,
    /// This.
    Known(usize),
    /// Nothing.
    Unknown,
}

/// Leads a body past the filter. Failures are noted, whatever they lead to.
pub(super) fn pass(
    stand: &mut Stand,
    attachment: &Arc<Attachment>,
    of: BodyOf,
    exchange: &mut Box<Exchange>,
    pieces: &[Bytes],
    failures: &mut Vec<Failure>,
) -> Passed {
    let unseen = || Passed::On {
        body: pieces.concat(),
        length: Length::AsBefore,
    };
    let mode = match stand.instances.on_body(attachment, of, exchange) {
        Ok(mode) => mode,
        Err(failure) => {
            failures.push(failure);
            return match attachment.on_failure() {
                OnFailure::Skip => unseen(),
                OnFailure::Deny(status) => Passed::Denied(status),
            };
        }
    };
    let is_held = !matches!(mode, BodyMode::Streamed);
    let mut way = Way {
        attachment,
        of,
        kept: KeptByBody::default(),
        state: Bytes::new(),
        may_reply: is_held,
        is_held,
        is_over: false,
        out: Vec::new(),
    };
    let handed = match mode {
        BodyMode::Skip => return unseen(),
        BodyMode::Buffered { max, or_skip } => {
            let whole = pieces.concat();
            let most = max.min(attachment.granted().max_body);
            if u64::try_from(whole.len()).unwrap_or(u64::MAX) > most {
                return if or_skip { unseen() } else { Passed::TooLong };
            }
            way.hand_over(stand, &whole, true, failures)
        }
        BodyMode::Streamed | BodyMode::Held => way.stream(stand, pieces, failures),
    };
    match handed {
        Err(end) => *end,
        Ok(()) => Passed::On {
            length: match mode {
                BodyMode::Buffered { .. } => Length::Known(way.out.len()),
                _ => Length::Unknown,
            },
            body: way.out,
        },
    }
}

/// Where a body is on its way.
struct Way<'a> {
    attachment: &'a Arc<Attachment>,
    of: BodyOf,
    kept: KeptByBody,
    state: Bytes,
    may_reply: bool,
    /// Its head has not gone on.
    is_held: bool,
    /// What is left passes unseen.
    is_over: bool,
    out: Vec<u8>,
}

impl Way<'_> {
    /// Piece by piece, and the end by itself.
    fn stream(&mut self, stand: &mut Stand, pieces: &[Bytes], failures: &mut Vec<Failure>) -> Result<(), Box<Passed>> {
        // What came empty, nobody has seen come.
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            for part in piece.chunks(MAX_BODY_PIECE) {
                self.hand_over(stand, part, false, failures)?;
            }
            // All of the first has been answered.
            self.is_held = false;
        }
        self.hand_over(stand, &[], true, failures)
    }

    fn hand_over(
        &mut self,
        stand: &mut Stand,
        bytes: &[u8],
        last: bool,
        failures: &mut Vec<Failure>,
    ) -> Result<(), Box<Passed>> {
        if self.is_over {
            self.out.extend_from_slice(bytes);
            return Ok(());
        }
        let piece = Piece {
            state: &self.state,
            bytes,
            last,
            may_reply: self.may_reply,
        };
        let answered = stand
            .instances
            .on_piece(self.attachment, self.of, &mut self.kept, piece);
        self.may_reply = false;
        match answered {
            Ok((state, verdict)) => {
                self.state = state;
                match verdict {
                    PieceVerdict::Pass => self.out.extend_from_slice(bytes),
                    PieceVerdict::Replace(bytes) => self.out.extend_from_slice(&bytes),
                    PieceVerdict::PassRest => {
                        self.is_over = true;
                        self.out.extend_from_slice(bytes);
                    }
                    PieceVerdict::Reply(reply) => return Err(Box::new(Passed::Reply(reply))),
                    PieceVerdict::Abort => {
                        let status = self.may_still_be_answered().then_some(STATUS_OF_ABORTED);
                        return Err(Box::new(Passed::Aborted(status)));
                    }
                }
                Ok(())
            }
            Err(failure) => {
                failures.push(failure);
                match self.attachment.on_failure() {
                    OnFailure::Deny(status) if self.may_still_be_answered() => Err(Box::new(Passed::Denied(status))),
                    OnFailure::Deny(_) => Err(Box::new(Passed::Aborted(None))),
                    OnFailure::Skip => {
                        self.is_over = true;
                        self.out.extend_from_slice(bytes);
                        Ok(())
                    }
                }
            }
        }
    }

    /// Whether the client has not been sent a head by now: a response's own goes ahead of what streams.
    fn may_still_be_answered(&self) -> bool {
        self.of == BodyOf::Request || self.is_held
    }
}

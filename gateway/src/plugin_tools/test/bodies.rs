//! A body on its way past a filter, whole in memory: what the data plane does as it comes, in the same order.

use std::sync::Arc;

use bytes::Bytes;

use super::stand::Stand;
use crate::config::OnFailure;
use crate::policy::{Attachment, BodyMode, BodyOf, Exchange, Failure, KeptByBody, Piece, PieceVerdict, Reply};
use crate::proxy::MAX_BODY_PIECE;

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
    /// The component broke the exchange off.
    Aborted,
    /// It failed, and that denies.
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
    let mut way = Way {
        attachment,
        of,
        kept: KeptByBody::default(),
        state: Vec::new(),
        may_reply: !matches!(mode, BodyMode::Streamed),
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
    state: Vec<u8>,
    may_reply: bool,
    /// What is left passes unseen.
    is_over: bool,
    out: Vec<u8>,
}

impl Way<'_> {
    /// Piece by piece, and the end by itself.
    fn stream(&mut self, stand: &mut Stand, pieces: &[Bytes], failures: &mut Vec<Failure>) -> Result<(), Box<Passed>> {
        for piece in pieces.iter().flat_map(|piece| piece.chunks(MAX_BODY_PIECE)) {
            self.hand_over(stand, piece, false, failures)?;
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
                    PieceVerdict::Abort => return Err(Box::new(Passed::Aborted)),
                }
                Ok(())
            }
            Err(failure) => {
                failures.push(failure);
                match self.attachment.on_failure() {
                    OnFailure::Deny(status) => Err(Box::new(Passed::Denied(status))),
                    OnFailure::Skip => {
                        self.is_over = true;
                        self.out.extend_from_slice(bytes);
                        Ok(())
                    }
                }
            }
        }
    }
}

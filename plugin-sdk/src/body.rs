//! Bodies, as their filters see them: a piece at a time, or whole.

use crate::hooks::Reply;

/// How a body is to be filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyMode {
    /// It passes unseen.
    Skip,
    /// Piece by piece, as it comes. The head goes ahead of it.
    Streamed,
    /// Piece by piece, and the head is held until the first piece has been answered: that may still be a reply.
    Held,
    /// Whole, in one piece, with the head held. A longer body is refused: a request with 413, a response with 502.
    Buffered {
        /// Bytes; the operator's own bound may be lower.
        max: u64,
    },
    /// As [`Buffered`](Self::Buffered), but a body that is longer passes unseen.
    BufferedOrSkip {
        /// Bytes; the operator's own bound may be lower.
        max: u64,
    },
}

/// A piece of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What the call for the piece before answered; empty for the first.
    pub state: Vec<u8>,
    /// The bytes. May be empty: the end of a body is known only when nothing follows.
    pub bytes: Vec<u8>,
    /// Nothing follows.
    pub last: bool,
}

/// What becomes of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceOutcome {
    pub(crate) state: Vec<u8>,
    pub(crate) verdict: PieceVerdict,
}

/// What becomes of the bytes of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PieceVerdict {
    /// They go on as they are.
    Pass,
    /// These go on instead: none, fewer or more.
    Replace(Vec<u8>),
    /// They and all that follow go on as they are, and are not shown.
    PassRest,
    /// The exchange ends here: this is sent in its place. Only while the head is held; later it fails the call.
    Reply(Reply),
    /// The exchange breaks off: nobody takes what was sent for the whole.
    Abort,
}

impl PieceOutcome {
    /// What comes back with the next piece; at most 16 KiB.
    #[must_use]
    pub fn with_state(mut self, state: impl Into<Vec<u8>>) -> Self {
        self.state = state.into();
        self
    }

    /// What is remembered.
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// What becomes of the bytes.
    pub fn verdict(&self) -> &PieceVerdict {
        &self.verdict
    }
}

impl From<PieceVerdict> for PieceOutcome {
    fn from(verdict: PieceVerdict) -> Self {
        Self {
            state: Vec::new(),
            verdict,
        }
    }
}

//! Decompression of requests and responses.

use super::Coding;

/// `decompress "gzip" requests responses { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decompress {
    /// What is decoded; at least one.
    pub codings: Vec<Coding>,
    /// `requests`: servers get content as it is.
    pub requests: bool,
    /// `responses`: clients that do not take its coding get content as it is.
    pub responses: bool,
    /// What bounds each message.
    pub limits: DecompressLimits,
    /// `max-streams`: messages that a worker decodes at once.
    pub max_streams: usize,
}

/// How much may come of a message that is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecompressLimits {
    /// `max-size`: bytes.
    pub size: u64,
    /// `max-ratio`: times what has come in, beyond [`DecompressLimits::FREE`].
    pub ratio: u64,
}

impl DecompressLimits {
    /// Bytes that may come of anything: a page of white space is short, and harmless however well it was compressed.
    pub const FREE: u64 = 1 << 20;

    /// Whether this much may come of this much.
    pub fn allow(self, made: u64, taken: u64) -> bool {
        made <= self.size && (made <= Self::FREE || made <= taken.saturating_mul(self.ratio))
    }
}

//! Token buckets, kept by the host: atomic, shared by all workers, private to the tenant, plugin and configuration that
//! uses them. Needs `grant "buckets"`.

use crate::sys::buckets as host;

/// How a bucket fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that arrive per period; at least 1.
    pub tokens: u64,
    /// The period in milliseconds; at least 1.
    pub period_ms: u64,
    /// The bucket's size: what can be taken at once from rest; at least 1.
    pub burst: u64,
}

/// What came of taking tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether there were enough. If not, none were taken.
    pub allowed: bool,
    /// Whole tokens left.
    pub remaining: u64,
    /// Milliseconds until this many tokens will be there; 0 when they were.
    pub retry_after_ms: u64,
}

/// Takes tokens from the bucket that `bucket` and `key` name; one not seen before is full. None at all (0) only tells
/// how many are there. Traps when a number of `rate` is 0.
#[inline]
pub fn take(bucket: &str, key: &[u8], rate: Rate, tokens: u32) -> Taken {
    let rate = host::Rate {
        tokens: rate.tokens,
        period_ms: rate.period_ms,
        burst: rate.burst,
    };
    let taken = host::take(bucket, key, rate, tokens);
    Taken {
        allowed: taken.allowed,
        remaining: taken.remaining,
        retry_after_ms: taken.retry_after_ms,
    }
}

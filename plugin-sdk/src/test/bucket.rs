//! Token buckets on the test's clock, by the generic cell rate algorithm: a bucket is the moment at which it will be full.

use std::collections::HashMap;
use std::time::Duration;

use super::current;
use crate::sys::buckets::{Rate, Taken};

/// All buckets of a host.
#[derive(Debug, Default)]
pub(crate) struct Buckets(HashMap<(String, Vec<u8>), u128>);

impl Buckets {
    /// Takes tokens, or says when they will be there.
    pub(crate) fn take(&mut self, bucket: &str, key: &[u8], rate: Rate, tokens: u32, now: Duration) -> Taken {
        if rate.tokens == 0 || rate.period_ms == 0 || rate.burst == 0 {
            current::trap("a rate's numbers are at least 1");
        }
        // In units of a nanosecond divided by `tokens`, a token takes a whole number of units: nothing is rounded.
        let per_nano = u128::from(rate.tokens);
        let token = u128::from(rate.period_ms) * NANOS_PER_MILLI;
        let now = now.as_nanos() * per_nano;
        let capacity = u128::from(rate.burst) * token;
        let full_at = self.0.entry((bucket.to_owned(), key.to_vec())).or_insert(now);
        let missing = full_at.saturating_sub(now);
        let wanted = u128::from(tokens) * token;
        let allowed = missing + wanted <= capacity;
        let retry_after = (missing + wanted).saturating_sub(capacity);
        if allowed {
            *full_at = now + missing + wanted;
        }
        let left = capacity.saturating_sub(full_at.saturating_sub(now)) / token;
        Taken {
            allowed,
            remaining: u64::try_from(left).unwrap_or(u64::MAX),
            retry_after_ms: u64::try_from(retry_after.div_ceil(per_nano * NANOS_PER_MILLI)).unwrap_or(u64::MAX),
        }
    }
}

const NANOS_PER_MILLI: u128 = 1_000_000;

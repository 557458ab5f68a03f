//! How a bucket fills, and what comes of taking tokens from it.

use super::FRACTION;

/// How a bucket fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Tokens that arrive per period; not 0.
    pub(crate) tokens: u64,
    /// The period; not 0.
    pub(crate) period_ms: u64,
    /// The bucket's size; not 0.
    pub(crate) burst: u64,
}

/// What came of taking tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) allowed: bool,
    /// Tokens that are left.
    pub(crate) remaining: u64,
    /// Milliseconds until as many are there; 0 when they were, [`u64::MAX`] when they never will be.
    pub(crate) retry_after_ms: u64,
}

impl Rate {
    /// Milliseconds, rounded up, until a bucket that has so many tokens left is full.
    pub(crate) fn full_in_ms(self, remaining: u64) -> u64 {
        let missing = self.burst.saturating_sub(remaining);
        missing.saturating_mul(self.period_ms).div_ceil(self.tokens.max(1))
    }

    /// What taking tokens at `now` from a bucket that will be full at `full_at` gives, when it will be full then, and
    /// until when it will have no token.
    pub(super) fn take(self, now: u128, full_at: u128, tokens: u32) -> (Taken, u128, u128) {
        let period = (u128::from(self.period_ms) * 1_000_000) << FRACTION;
        let per_token = (period / u128::from(self.tokens.max(1))).max(1);
        let size = per_token.saturating_mul(u128::from(self.burst));
        let full_at = full_at.max(now);
        let next = full_at.saturating_add(per_token.saturating_mul(u128::from(tokens)));
        let allowed = next - now <= size;
        let full_at = if allowed { next } else { full_at };
        let remaining = size.saturating_sub(full_at - now) / per_token;
        let retry_after_ms = match allowed {
            true => 0,
            // More than fits into it: never.
            false if u64::from(tokens) > self.burst => u64::MAX,
            false => u64::try_from((next - now - size).div_ceil(1_000_000 << FRACTION)).unwrap_or(u64::MAX),
        };
        let taken = Taken {
            allowed,
            remaining: u64::try_from(remaining).unwrap_or(u64::MAX),
            retry_after_ms,
        };
        (taken, full_at, full_at.saturating_add(per_token).saturating_sub(size))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u128 = 1_000_000 << FRACTION;

    proptest! {
        #[test]
        fn waiting_as_long_as_told_is_enough(
            tokens in 1_u64..5000, period_ms in 1_u64..100_000, burst in 1_u64..50, n in 1_u32..20,
        ) {
            let rate = Rate { tokens, period_ms, burst };
            let mut full_at = 0;
            for _ in 0..100 {
                let (taken, next, _) = rate.take(0, full_at, n);
                full_at = next;
                if !taken.allowed && taken.retry_after_ms != u64::MAX {
                    let then = u128::from(taken.retry_after_ms) * MS;
                    prop_assert!(rate.take(then, full_at, n).0.allowed);
                    prop_assert!(!rate.take(then.saturating_sub(MS), full_at, n).0.allowed);
                    return Ok(());
                }
            }
        }

        #[test]
        fn it_limits_until_a_token_is_there(
            tokens in 1_u64..5000, period_ms in 1_u64..100_000, burst in 1_u64..50, n in 1_u32..50,
        ) {
            let rate = Rate { tokens, period_ms, burst };
            let (_, full_at, limits_until) = rate.take(0, 0, n);
            prop_assert!(rate.take(limits_until, full_at, 1).0.allowed);
            prop_assert!(limits_until == 0 || !rate.take(limits_until - 1, full_at, 1).0.allowed);
        }

        #[test]
        fn no_numbers_overflow(
            tokens in 1_u64.., period_ms in 1_u64.., burst in 1_u64.., n: u32, now: u64, full_at: u128,
        ) {
            let rate = Rate { tokens, period_ms, burst };
            let now = u128::from(now) << FRACTION;
            let (_, next, limits_until) = rate.take(now, full_at, n);
            prop_assert!(next >= now && limits_until <= next);
        }
    }
}

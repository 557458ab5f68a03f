//! What clients are told of rate limits: `RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers-10 has
//! them, where the operator asks for that (`rate-limit-headers`).

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::policy::{LimitPolicy, LimitVerdict};

/// What there is to tell of one exchange: of each limiter that had something to say, its policies and the one that is nearest
/// to its end.
#[derive(Debug, Default)]
pub struct LimitHeaders {
    policies: String,
    limits: String,
}

impl LimitHeaders {
    /// A limiter has decided.
    pub fn add(&mut self, policies: &[LimitPolicy], verdict: &LimitVerdict) {
        for policy in policies {
            separate(&mut self.policies);
            // A policy's window is in whole seconds, at least one. Writing into memory does not fail.
            let window = policy.window_ms.div_ceil(1000).max(1);
            let _ = write!(
                self.policies,
                "\"{}\";q={};w={window}",
                policy.name,
                bounded(policy.quota)
            );
        }
        if let Some(policy) = policies.get(verdict.policy) {
            separate(&mut self.limits);
            let reset = verdict.reset_ms.div_ceil(1000);
            let remaining = bounded(verdict.remaining);
            let _ = write!(self.limits, "\"{}\";r={remaining};t={}", policy.name, bounded(reset));
        }
    }

    /// Writes the fields. Those of a server say nothing of this gateway's limits, and go.
    pub fn say(&self, headers: &mut HeaderMap) {
        for (name, value) in [(POLICY, &self.policies), (LIMIT, &self.limits)] {
            // Names are checked when a component is attached: what is written is a value.
            if let Ok(value) = HeaderValue::try_from(value.as_str())
                && !value.is_empty()
            {
                headers.insert(name, value);
            }
        }
    }
}

/// Structured fields have integers of fifteen digits (RFC 9651, section 3.3.1).
fn bounded(number: u64) -> u64 {
    number.min(999_999_999_999_999)
}

fn separate(list: &mut String) {
    if !list.is_empty() {
        list.push_str(", ");
    }
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_lists_of_structured_fields() {
        let policy = |name: &str, quota, window_ms| LimitPolicy {
            name: name.to_owned(),
            quota,
            window_ms,
        };
        let verdict = |policy, remaining, reset_ms| LimitVerdict {
            allowed: true,
            policy,
            remaining,
            reset_ms,
            retry_after_ms: 0,
        };
        let mut said = LimitHeaders::default();
        let two = [policy("per-ip", 200, 2000), policy("per url", 5, 10)];
        said.add(&two, &verdict(1, 4, 2));
        said.add(&[policy("quota", u64::MAX, 3_600_000)], &verdict(0, u64::MAX, 0));
        let mut headers = HeaderMap::new();
        headers.insert(LIMIT, HeaderValue::from_static("the server's"));
        said.say(&mut headers);
        assert_eq!(
            headers[POLICY],
            r#""per-ip";q=200;w=2, "per url";q=5;w=1, "quota";q=999999999999999;w=3600"#
        );
        assert_eq!(headers[LIMIT], r#""per url";r=4;t=1, "quota";r=999999999999999;t=0"#);
    }
}

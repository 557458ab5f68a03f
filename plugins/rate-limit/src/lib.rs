//! The first-party rate-limit component: says what is counted together; the host's buckets count.
//!
//! Its configuration is `{"limits": [{"name": …, "key": […], "tokens": …, "period-ms": …, "burst": …}]}`.

mod config;
mod key;

use std::cell::RefCell;

use gateway_plugin_sdk::buckets::{self, Rate};
use gateway_plugin_sdk::{ConfigError, LimitPolicy, LimitVerdict, Needs, Plugin, RateLimit, Request, plugin};

pub use config::{Config, KeyPart, Limit};
use key::Key;

/// The plugin.
#[derive(Debug)]
pub struct RateLimits {
    rules: Vec<Rule>,
    /// A key under construction: kept, so that a call allocates nothing.
    scratch: RefCell<Vec<u8>>,
}

#[derive(Debug)]
struct Rule {
    name: String,
    key: Key,
    rate: Rate,
}

impl Plugin for RateLimits {
    type Config = Config;
    const NAME: &'static str = "rate-limit";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str =
        "Limits requests by client address, path, host, method, header, cookie or query parameter.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        let numbered = config.limits.into_iter().enumerate();
        let rules = numbered.map(|(index, limit)| Rule::compile(limit, needs, &format!("/limits/{index}")));
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
            scratch: RefCell::default(),
        })
    }
}

impl RateLimit for RateLimits {
    fn policies(&self) -> Vec<LimitPolicy> {
        let policy = |rule: &Rule| LimitPolicy {
            name: rule.name.clone(),
            quota: rule.rate.burst,
            window_ms: rule.reset_ms(0),
        };
        self.rules.iter().map(policy).collect()
    }

    /// Takes a token for each limit in turn, and stops at the first that has none: a request that is turned away is not
    /// charged to the limits after it.
    fn check(&self, request: &Request<'_>) -> Option<LimitVerdict> {
        let mut scratch = self.scratch.borrow_mut();
        let mut nearest: Option<LimitVerdict> = None;
        for (index, rule) in self.rules.iter().enumerate() {
            rule.key.write(request, &mut scratch);
            let taken = buckets::take(&rule.name, &scratch, rule.rate, 1);
            let verdict = LimitVerdict {
                allowed: taken.allowed,
                policy: index as u32,
                remaining: taken.remaining,
                reset_ms: rule.reset_ms(taken.remaining),
                retry_after_ms: taken.retry_after_ms,
            };
            if !taken.allowed {
                return Some(verdict);
            }
            if nearest.is_none_or(|nearest| verdict.remaining < nearest.remaining) {
                nearest = Some(verdict);
            }
        }
        nearest
    }
}

impl Rule {
    fn compile(limit: Limit, needs: &mut Needs, at: &str) -> Result<Self, ConfigError> {
        for (name, value) in [
            ("tokens", limit.tokens),
            ("period-ms", limit.period_ms),
            ("burst", limit.burst),
        ] {
            if value == 0 {
                return Err(ConfigError::new(format!("{name} has to be at least 1")).at(format!("{at}/{name}")));
            }
        }
        Ok(Self {
            key: Key::compile(&limit.key, &mut needs.request, &format!("{at}/key"))?,
            name: limit.name,
            rate: Rate {
                tokens: limit.tokens,
                period_ms: limit.period_ms,
                burst: limit.burst,
            },
        })
    }

    /// How long it takes, rounded up, until all tokens are there when so many are left.
    fn reset_ms(&self, remaining: u64) -> u64 {
        let missing = self.rate.burst.saturating_sub(remaining);
        missing.saturating_mul(self.rate.period_ms).div_ceil(self.rate.tokens)
    }
}

plugin!(RateLimits: RateLimit);

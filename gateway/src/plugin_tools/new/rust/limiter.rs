//! Lets each client make so many requests in a time. All workers count together: the host keeps the buckets.

use gateway_plugin_sdk::buckets::{self, Rate};
use gateway_plugin_sdk::config::TimeSpan;
use gateway_plugin_sdk::needs::RequestNeed;
use gateway_plugin_sdk::{ConfigError, LimitPolicy, LimitVerdict, Needs, Plugin, RateLimit, Request, plugin};
use serde::Deserialize;

/// What the operator writes in `config { … }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Requests that a client can make at once from rest.
    quota: u64,
    /// The time in which so many arrive anew, as `"1m"`.
    per: TimeSpan,
}

/// The plugin.
pub struct Quota {
    rate: Rate,
    client: RequestNeed,
}

impl Plugin for Quota {
    type Config = Config;
    const NAME: &'static str = "my-plugin";
    const ABOUT: &'static str = "Lets each client make so many requests in a time.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        let period_ms = u64::try_from(config.per.0.as_millis()).unwrap_or(u64::MAX);
        if config.quota == 0 {
            return Err(ConfigError::new("a client may make at least one request").at("/quota"));
        }
        if period_ms == 0 {
            return Err(ConfigError::new("a time is at least a millisecond").at("/per"));
        }
        Ok(Self {
            rate: Rate {
                tokens: config.quota,
                period_ms,
                burst: config.quota,
            },
            // The address comes along with each call, and costs nothing to read.
            client: needs.request.client_ip(),
        })
    }
}

impl RateLimit for Quota {
    fn policies(&self) -> Vec<LimitPolicy> {
        vec![LimitPolicy {
            name: Self::NAME.to_owned(),
            quota: self.rate.burst,
            window_ms: self.rate.period_ms,
        }]
    }

    fn check(&self, request: &Request<'_>) -> Option<LimitVerdict> {
        let client = request.get(self.client)?;
        let taken = buckets::take("client", client, self.rate, 1);
        let missing = self.rate.burst.saturating_sub(taken.remaining);
        let reset_ms = missing.saturating_mul(self.rate.period_ms).div_ceil(self.rate.tokens);
        Some(LimitVerdict {
            allowed: taken.allowed,
            // The first of `policies`.
            policy: 0,
            remaining: taken.remaining,
            reset_ms,
            retry_after_ms: taken.retry_after_ms,
        })
    }
}

plugin!(Quota: RateLimit);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gateway_plugin_sdk::test::{Host, Request};

    use super::Quota;

    #[test]
    fn a_client_that_asks_too_often_has_to_wait() {
        let host = Host::new();
        let config = r#"{"quota": 2, "per": "1m"}"#;
        let plugin = host.configure::<Quota>(config).unwrap();
        let allowed = |client| plugin.check(&Request::get("/").from(client)).unwrap().allowed;

        assert!(allowed("192.0.2.1") && allowed("192.0.2.1"));
        assert!(!allowed("192.0.2.1"));
        assert!(allowed("192.0.2.2"), "each client has its own");

        host.advance(Duration::from_secs(30));
        assert!(allowed("192.0.2.1"));
    }

    #[test]
    fn a_quota_of_nothing_is_a_mistake() {
        for config in [r#"{"quota": 0, "per": "1m"}"#, r#"{"quota": 1, "per": "0s"}"#] {
            assert!(Host::new().configure::<Quota>(config).is_err(), "{config}");
        }
    }
}

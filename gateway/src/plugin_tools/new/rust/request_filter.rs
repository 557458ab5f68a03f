//! Turns away requests whose method the operator has not allowed, and tells the server that it has looked.

use gateway_plugin_sdk::config::one_or_many;
use gateway_plugin_sdk::needs::RequestNeed;
use gateway_plugin_sdk::{
    ConfigError, Failure, Needs, Outcome, Plugin, Reply, Request, RequestEdits, RequestFilter, plugin,
};
use serde::Deserialize;

/// What the operator writes in `config { … }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The methods that are let through: `allow "GET" "HEAD"`.
    #[serde(deserialize_with = "one_or_many")]
    allow: Vec<String>,
}

/// The plugin.
pub struct Guard {
    allowed: Vec<String>,
    method: RequestNeed,
}

impl Plugin for Guard {
    type Config = Config;
    const NAME: &'static str = "my-plugin";
    const ABOUT: &'static str = "Turns away requests whose method is not allowed.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        if config.allow.iter().any(|method| method.is_empty()) {
            return Err(ConfigError::new("a method has a name, as `GET`").at("/allow"));
        }
        Ok(Self {
            allowed: config.allow,
            // The method comes along with each call, and costs nothing to read.
            method: needs.request.method(),
        })
    }
}

impl RequestFilter for Guard {
    fn on_request(&self, request: &Request<'_>, edits: &mut RequestEdits) -> Result<Outcome, Failure> {
        let method = request.get(self.method).unwrap_or_default();
        if !self.allowed.iter().any(|allowed| allowed.as_bytes() == method) {
            return Ok(Reply::new(403).body("my-plugin says no\n").into());
        }
        edits.set_header("x-checked-by", Self::NAME)?;
        Ok(Outcome::Proceed)
    }
}

plugin!(Guard: RequestFilter);

#[cfg(test)]
mod tests {
    use gateway_plugin_sdk::test::{Host, Request};

    use super::Guard;

    #[test]
    fn a_method_that_is_not_allowed_is_turned_away() {
        let config = r#"{"allow": ["GET", "HEAD"]}"#;
        let plugin = Host::new().configure::<Guard>(config).unwrap();

        let refused = plugin.on_request(&Request::new("DELETE", "/")).unwrap();
        assert_eq!(refused.reply.unwrap().status(), 403);

        let passed = plugin.on_request(&Request::get("/")).unwrap();
        assert_eq!(passed.reply, None);
        assert_eq!(passed.request.header("x-checked-by"), ["my-plugin"]);
    }

    #[test]
    fn a_method_without_a_name_is_a_mistake() {
        let config = r#"{"allow": ""}"#;
        assert!(Host::new().configure::<Guard>(config).is_err());
    }
}

//! Answers a question for acls: whether a request's method is one that the operator has allowed.

use gateway_plugin_sdk::config::one_or_many;
use gateway_plugin_sdk::needs::RequestNeed;
use gateway_plugin_sdk::{AccessControl, Answers, ConfigError, Needs, Plugin, Request, plugin};
use serde::Deserialize;

/// What the operator writes in `config { … }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The methods that are allowed: `allow "GET" "HEAD"`.
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
    const ABOUT: &'static str = "Tells whether a request's method is allowed.";

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

impl AccessControl for Guard {
    /// At most 64 questions; all of them are answered in one call.
    fn predicates(&self) -> Vec<String> {
        vec!["allowed".to_owned()]
    }

    fn evaluate(&self, request: &Request<'_>) -> Answers {
        let method = request.get(self.method).unwrap_or_default();
        let allowed = self.allowed.iter().any(|allowed| allowed.as_bytes() == method);
        // Of several: `[allowed, …].into_iter().collect()`, in the order of their names.
        allowed.into()
    }
}

plugin!(Guard: AccessControl);

#[cfg(test)]
mod tests {
    use gateway_plugin_sdk::test::{Host, Request};

    use super::Guard;

    #[test]
    fn allowed_methods_are_told_from_others() {
        let config = r#"{"allow": ["GET", "HEAD"]}"#;
        let plugin = Host::new().configure::<Guard>(config).unwrap();

        assert!(plugin.evaluate(&Request::get("/")).holds("allowed"));
        assert!(!plugin.evaluate(&Request::new("DELETE", "/")).holds("allowed"));
    }

    #[test]
    fn a_method_without_a_name_is_a_mistake() {
        let config = r#"{"allow": ""}"#;
        assert!(Host::new().configure::<Guard>(config).is_err());
    }
}

//! Lets in requests with a known key, and tells the server whose it is.

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
    #[serde(deserialize_with = "one_or_many")]
    client: Vec<Client>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    name: String,
    key: String,
}

/// The plugin.
pub struct ApiKey {
    clients: Vec<Client>,
    key: RequestNeed,
}

impl Plugin for ApiKey {
    type Config = Config;
    const NAME: &'static str = "api-key";
    const ABOUT: &'static str = "Lets in requests with a known key, and tells the server whose it is.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        if config.client.iter().any(|client| client.key.len() < 8) {
            return Err(ConfigError::new("a key has at least 8 characters").at("/client"));
        }
        let key = needs.request.header("x-api-key");
        Ok(Self {
            clients: config.client,
            key,
        })
    }
}

impl RequestFilter for ApiKey {
    fn on_request(&self, request: &Request<'_>, edits: &mut RequestEdits) -> Result<Outcome, Failure> {
        let given = request.get(self.key).unwrap_or_default();
        let Some(client) = self.clients.iter().find(|client| client.key.as_bytes() == given) else {
            return Ok(Reply::new(401).body("a key, please\n").into());
        };
        edits.remove_header("x-api-key")?;
        edits.set_header("x-client", &client.name)?;
        Ok(Outcome::Proceed)
    }
}

plugin!(ApiKey: RequestFilter);

#[cfg(test)]
mod tests {
    use gateway_plugin_sdk::test::{Host, Request};

    use super::ApiKey;

    #[test]
    fn a_key_opens_the_door() {
        let config = r#"{"client": {"name": "ada", "key": "s3cret-1"}}"#;
        let plugin = Host::new().configure::<ApiKey>(config).unwrap();

        let stranger = plugin.on_request(&Request::get("/")).unwrap();
        assert_eq!(stranger.reply.unwrap().status(), 401);

        let ada = plugin
            .on_request(&Request::get("/").with_header("x-api-key", "s3cret-1"))
            .unwrap();
        assert_eq!(ada.reply, None);
        assert_eq!(ada.request.header("x-client"), ["ada"]);
        assert!(ada.request.header("x-api-key").is_empty());
    }
}

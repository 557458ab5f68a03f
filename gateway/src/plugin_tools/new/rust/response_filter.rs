//! Keeps in what servers say when they fail: clients get the status and a line of the plugin's.

use gateway_plugin_sdk::config::one_or_many;
use gateway_plugin_sdk::needs::ResponseNeed;
use gateway_plugin_sdk::{ConfigError, Failure, Needs, Plugin, Reply, Response, ResponseEdits, ResponseFilter, plugin};
use serde::Deserialize;

/// What the operator writes in `config { … }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The statuses whose responses are kept in: `hide 500 502`.
    #[serde(deserialize_with = "one_or_many")]
    hide: Vec<u16>,
}

/// The plugin.
pub struct Curtain {
    hidden: Vec<u16>,
    status: ResponseNeed,
}

impl Plugin for Curtain {
    type Config = Config;
    const NAME: &'static str = "my-plugin";
    const ABOUT: &'static str = "Keeps in what servers say when they fail.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        if !config.hide.iter().all(|status| (400..=599).contains(status)) {
            return Err(ConfigError::new("an error has a status of 400 to 599").at("/hide"));
        }
        Ok(Self {
            hidden: config.hide,
            // The status comes along with each call, and costs nothing to read.
            status: needs.response.status(),
        })
    }
}

impl ResponseFilter for Curtain {
    fn on_response(&self, response: &Response<'_>, edits: &mut ResponseEdits) -> Result<Option<Reply>, Failure> {
        let status = response.text(self.status).and_then(|status| status.parse().ok());
        if let Some(status) = status
            && self.hidden.contains(&status)
        {
            return Ok(Some(Reply::new(status).body("my-plugin says no more\n")));
        }
        edits.set_header("x-checked-by", Self::NAME)?;
        Ok(None)
    }
}

plugin!(Curtain: ResponseFilter);

#[cfg(test)]
mod tests {
    use gateway_plugin_sdk::test::{Host, Request, Response};

    use super::Curtain;

    #[test]
    fn what_a_failing_server_says_is_kept_in() {
        let plugin = Host::new().configure::<Curtain>(r#"{"hide": [500, 502]}"#).unwrap();
        let request = Request::get("/");

        let failed = Response::new(500).with_header("x-powered-by", "a secret");
        let answer = plugin.on_response(&request, &failed).unwrap();
        assert_eq!(
            (answer.status(), answer.body()),
            (500, &b"my-plugin says no more\n"[..])
        );
        assert!(answer.header("x-powered-by").is_empty());

        let answer = plugin.on_response(&request, &Response::new(200)).unwrap();
        assert_eq!(answer.header("x-checked-by"), ["my-plugin"]);
    }

    #[test]
    fn what_is_no_error_is_not_hidden() {
        assert!(Host::new().configure::<Curtain>(r#"{"hide": 200}"#).is_err());
    }
}

//! Writes a line into the gateway's log for each exchange that ended with an error.

use gateway_plugin_sdk::needs::LogNeed;
use gateway_plugin_sdk::{AccessLog, ConfigError, Exchange, Needs, Plugin, log, plugin};
use serde::Deserialize;

/// What the operator writes in `config { … }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The lowest status that is told of: `from 400`.
    from: u16,
}

/// The plugin.
pub struct Audit {
    from: u16,
    status: LogNeed,
    method: LogNeed,
    path: LogNeed,
    client: LogNeed,
}

impl Plugin for Audit {
    type Config = Config;
    const NAME: &'static str = "my-plugin";
    const ABOUT: &'static str = "Writes a line for each exchange that ended with an error.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        if !(100..=599).contains(&config.from) {
            return Err(ConfigError::new("a status is 100 to 599").at("/from"));
        }
        let needs = &mut needs.log;
        Ok(Self {
            from: config.from,
            status: needs.status(),
            method: needs.method(),
            path: needs.path(),
            client: needs.client_ip(),
        })
    }
}

impl AccessLog for Audit {
    fn on_log(&self, exchange: &Exchange<'_>) {
        // No status: the client was sent none.
        let status = exchange.number(self.status).unwrap_or_default();
        if status < u64::from(self.from) {
            return;
        }
        let Some(client) = exchange.ip(self.client) else {
            return;
        };
        // What comes from the network is bytes; the host escapes control characters.
        let method = exchange.text(self.method).unwrap_or("?");
        let path = exchange.text(self.path).unwrap_or("?");
        log::warn(&format!("{client} got {status} for {method} {path}"));
    }
}

plugin!(Audit: AccessLog);

#[cfg(test)]
mod tests {
    use gateway_plugin_sdk::log::Level;
    use gateway_plugin_sdk::test::{Host, Request};

    use super::Audit;

    #[test]
    fn errors_are_told_of_and_nothing_else() {
        let host = Host::new();
        let plugin = host.configure::<Audit>(r#"{"from": 400}"#).unwrap();
        let request = Request::get("/secret").from("192.0.2.1");

        plugin.on_log(&request, None, &[("status", "200")]);
        assert_eq!(host.log(), []);

        plugin.on_log(&request, None, &[("status", "403")]);
        let line = "192.0.2.1 got 403 for GET /secret".to_owned();
        assert_eq!(host.log(), [(Level::Warn, line)]);
    }

    #[test]
    fn what_is_no_status_is_a_mistake() {
        assert!(Host::new().configure::<Audit>(r#"{"from": 4}"#).is_err());
    }
}

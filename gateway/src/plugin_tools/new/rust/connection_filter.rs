//! Lets in connections from addresses that the operator names, before a byte of them is read.

use std::net::IpAddr;

use gateway_plugin_sdk::config::one_or_many;
use gateway_plugin_sdk::needs::ConnectionNeed;
use gateway_plugin_sdk::{ConfigError, Connection, ConnectionFilter, ConnectionVerdict, Needs, Plugin, plugin};
use serde::Deserialize;

/// What the operator writes in `config { … }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who may come in: `allow "192.0.2.1" "2001:db8::1"`.
    #[serde(deserialize_with = "one_or_many")]
    allow: Vec<IpAddr>,
}

/// The plugin.
pub struct Fence {
    allowed: Vec<IpAddr>,
    client: ConnectionNeed,
}

impl Plugin for Fence {
    type Config = Config;
    const NAME: &'static str = "my-plugin";
    const ABOUT: &'static str = "Lets in connections from known addresses.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        Ok(Self {
            // IPv4 as such, however it is written: so are clients' addresses.
            allowed: config.allow.iter().map(IpAddr::to_canonical).collect(),
            client: needs.connection.client_ip(),
        })
    }
}

impl ConnectionFilter for Fence {
    fn on_connect(&self, connection: &Connection<'_>) -> ConnectionVerdict {
        match connection.ip(self.client) {
            Some(client) if self.allowed.contains(&client) => ConnectionVerdict::Accept,
            _ => ConnectionVerdict::Refuse,
        }
    }
}

plugin!(Fence: ConnectionFilter);

#[cfg(test)]
mod tests {
    use gateway_plugin_sdk::ConnectionVerdict::{Accept, Refuse};
    use gateway_plugin_sdk::test::{Connection, Host};

    use super::Fence;

    #[test]
    fn who_is_not_known_is_not_let_in() {
        let config = r#"{"allow": ["192.0.2.1", "::ffff:192.0.2.2"]}"#;
        let plugin = Host::new().configure::<Fence>(config).unwrap();
        let verdict = |client| plugin.on_connect(&Connection::new().from(client));

        assert_eq!(verdict("192.0.2.1"), Accept);
        assert_eq!(verdict("192.0.2.2"), Accept);
        assert_eq!(verdict("192.0.2.3"), Refuse);
    }

    #[test]
    fn what_is_no_address_is_a_mistake() {
        assert!(Host::new().configure::<Fence>(r#"{"allow": "localhost"}"#).is_err());
    }
}

//! Long lists of networks: refuses clients that are on one, or those that are not; or only says whether they are, for an `acl`
//! to decide. A hundred thousand networks need 800 KiB (IPv4) and a look-up of seventeen steps.

use gateway_plugin_networks::Networks;
use gateway_plugin_sdk::needs::{ConnectionNeed, RequestNeed};
use gateway_plugin_sdk::{
    AccessControl, Answers, ConfigError, Connection, ConnectionFilter, ConnectionVerdict, Failure, Needs, Outcome,
    Plugin, Reply, Request, RequestEdits, RequestFilter, plugin,
};
use serde::Deserialize;

/// What the operator writes in `config { … }`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The list: networks and addresses.
    network: Networks,
    /// Those among them that are not on it after all.
    #[serde(default)]
    except: Networks,
    /// What is done with a client that is on the list.
    #[serde(default)]
    action: Action,
    /// What a client gets that is refused, 400 to 599; 403 unless said.
    status: Option<u16>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    /// It is refused.
    #[default]
    Deny,
    /// It is let in, and all others are refused.
    Allow,
}

/// The plugin.
#[derive(Debug)]
pub struct IpList {
    networks: Networks,
    except: Networks,
    action: Action,
    status: u16,
    of_request: RequestNeed,
    of_connection: ConnectionNeed,
}

impl Plugin for IpList {
    type Config = Config;
    const NAME: &'static str = "ip-list";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Refuses clients by long lists of networks.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        if config.network.is_empty() {
            return Err(ConfigError::new("there is no network on the list").at("/network"));
        }
        let status = config.status.unwrap_or(403);
        if !(400..=599).contains(&status) {
            return Err(ConfigError::new("a client that is refused gets 400 to 599").at("/status"));
        }
        Ok(Self {
            networks: config.network,
            except: config.except,
            action: config.action,
            status,
            of_request: needs.request.client_ip(),
            of_connection: needs.connection.client_ip(),
        })
    }
}

impl AccessControl for IpList {
    fn predicates(&self) -> Vec<String> {
        vec!["listed".to_owned()]
    }

    fn evaluate(&self, request: &Request<'_>) -> Answers {
        self.lists(request.get(self.of_request)).into()
    }
}

impl RequestFilter for IpList {
    fn on_request(&self, request: &Request<'_>, _: &mut RequestEdits) -> Result<Outcome, Failure> {
        match self.lets_in(request.get(self.of_request)) {
            true => Ok(Outcome::Proceed),
            false => Ok(Reply::new(self.status).into()),
        }
    }
}

impl ConnectionFilter for IpList {
    fn on_connect(&self, connection: &Connection<'_>) -> ConnectionVerdict {
        match self.lets_in(connection.get(self.of_connection)) {
            true => ConnectionVerdict::Accept,
            false => ConnectionVerdict::Refuse,
        }
    }
}

impl IpList {
    /// Who has no address is on no list.
    fn lists(&self, address: Option<&[u8]>) -> bool {
        address.is_some_and(|address| self.networks.contain(address) && !self.except.contain(address))
    }

    fn lets_in(&self, address: Option<&[u8]>) -> bool {
        self.lists(address) == (self.action == Action::Allow)
    }
}

plugin!(IpList: AccessControl + RequestFilter + ConnectionFilter);

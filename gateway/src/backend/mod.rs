//! Backends: servers, which of them takes the next request, and whether they are well. Knows nothing of frontends,
//! requests or policy.

pub mod echo;
pub mod health;

mod balance;
mod connect;
mod keeper;
mod observe;
mod pool;
mod random;
mod server;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config;
use crate::telemetry::metrics::{Agent, BackendMetrics, Registry};

pub use crate::telemetry::metrics::InFlight;
pub use balance::{Balancer, PickKey};
pub use connect::{ConnectError, ServerStream};
pub use keeper::Keepers;
pub use pool::{Pool, Upstream};
pub use server::Server;
pub use tls::{Connector, SystemRoots};

/// A backend as it runs, shared by all workers.
#[derive(Debug)]
pub struct Backend {
    /// Its name.
    pub name: Arc<str>,
    /// Its position in the configuration.
    pub id: config::BackendId,
    /// What it speaks.
    pub mode: config::Mode,
    /// Its servers, in the order of the text; at least one.
    pub servers: Vec<Arc<Server>>,
    /// How one is chosen.
    pub balance: config::Balance,
    /// Which backups step in.
    pub backups: config::Backups,
    /// Server-side timeouts.
    pub timeouts: config::ServerTimeouts,
    /// How a server's health is known.
    pub check: Option<config::Check>,
    /// How its servers' agents are asked.
    pub agent: Option<config::AgentCheck>,
    /// A server connection serves one request.
    pub server_close: bool,
    /// Connections kept for reuse.
    pub pool: config::Pool,
    /// Its counts.
    pub metrics: Arc<BackendMetrics>,
}

impl Backend {
    /// A backend from its configuration. `addresses` are those of its servers, in order: an echo server's is known
    /// only once it runs. Servers without one are left out. `tls` has how each is spoken to in TLS, none for plainly.
    pub fn new(
        backend: &config::Backend,
        id: config::BackendId,
        addresses: &[SocketAddr],
        tls: Vec<Option<Connector>>,
        registry: &Registry,
    ) -> Arc<Self> {
        let metrics = registry.backend(&backend.name);
        let observe = backend.check.as_ref().and_then(|check| check.observe);
        let servers = backend
            .servers
            .iter()
            .zip(addresses)
            .zip(tls)
            .map(|((server, &address), tls)| {
                let counts = registry.server(&metrics, &server.name);
                if backend.agent.is_none() {
                    // What an agent of an earlier configuration said, nobody would take back.
                    counts.set_agent(Agent::default());
                }
                if backend.check.is_none() && !counts.passes() {
                    // A check of an earlier configuration took it down; no check will take it up again.
                    counts.went(true);
                }
                Arc::new(Server::new(server, address, tls, observe, counts))
            });
        Arc::new(Self {
            name: Arc::clone(&backend.name),
            id,
            mode: backend.mode,
            servers: servers.collect(),
            balance: backend.balance,
            backups: backend.backups,
            timeouts: backend.timeouts,
            check: backend.check.clone(),
            agent: backend.agent.clone(),
            server_close: backend.server_close,
            pool: backend.pool,
            metrics,
        })
    }

    /// Requests or connections under way, over all servers and workers.
    pub fn in_flight(&self) -> usize {
        self.metrics.in_flight()
    }
}

/// A backend of servers with these weights, the flagged ones backups, at addresses where nothing listens.
#[cfg(test)]
fn test_backend(balance: config::Balance, servers: &[(u16, bool)]) -> Arc<Backend> {
    let configured = test_config(balance, servers);
    let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 1)); servers.len()];
    test_backend_of(&configured, &addresses, &Registry::new())
}

/// A backend of this configuration, without TLS.
#[cfg(test)]
fn test_backend_of(backend: &config::Backend, addresses: &[SocketAddr], registry: &Registry) -> Arc<Backend> {
    let plain = addresses.iter().map(|_| None).collect();
    Backend::new(backend, config::BackendId(0), addresses, plain, registry)
}

#[cfg(test)]
fn test_config(balance: config::Balance, servers: &[(u16, bool)]) -> config::Backend {
    use std::time::Duration;

    let servers = servers.iter().enumerate().map(|(i, &(weight, backup))| config::Server {
        name: format!("s{i}").into(),
        address: config::ServerAddress::Echo,
        weight,
        backup,
        slow_start: None,
        tls: None,
        send_proxy: None,
    });
    config::Backend {
        name: "app".into(),
        mode: config::Mode::Http,
        balance,
        backups: config::Backups::First,
        servers: servers.collect(),
        timeouts: config::ServerTimeouts {
            connect: Duration::from_secs(1),
            server: Duration::from_secs(1),
        },
        check: None,
        agent: None,
        server_close: false,
        pool: config::Pool {
            max_idle: 1,
            idle_timeout: Duration::from_secs(1),
        },
        request_edits: Vec::new(),
        response_edits: Vec::new(),
        origin: config::Origin {
            file: "test".into(),
            line: 1,
            span: (0, 0).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_an_earlier_configuration_left_down_is_up_without_checks() {
        let registry = Registry::new();
        let configured = test_config(config::Balance::RoundRobin, &[(1, false)]);
        let addresses = [SocketAddr::from(([127, 0, 0, 1], 1))];
        let before = test_backend_of(&configured, &addresses, &registry);
        before.servers[0].metrics.went(false);
        let after = test_backend_of(&configured, &addresses, &registry);
        assert!(after.servers[0].is_up());
    }
}

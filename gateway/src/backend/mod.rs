//! Backends: servers, which of them takes the next request, and whether they are well. Knows nothing of frontends,
//! requests or policy.

pub mod echo;
pub mod health;
pub mod http1;
pub mod resolve;

mod balance;
mod budget;
mod connect;
mod ends;
mod keeper;
mod multiplexed;
mod observe;
mod outlier;
mod persistence;
mod pool;
mod queue;
mod random;
mod server;
mod source;
mod taking_work;
mod tls;
mod tried;

#[cfg(test)]
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config;
use crate::telemetry::metrics::{Agent, BackendMetrics, Registry};

pub use balance::{Balancer, PickKey, Take};
pub use budget::{Admitted, Resending};
pub use connect::{ConnectError, Wishes};
pub use ends::Ended;
pub use keeper::Keepers;
pub use multiplexed::{Blocked, Multiplexed, Place as StreamPlace};
pub(crate) use persistence::prefix_length;
pub use persistence::{CookieRule, Presented, StickTable, Verdict};
pub use pool::{Beside, Pool, Upstream};
pub use queue::{QueueError, Session};
pub use server::{Place, Server};
pub use tls::Connector;
pub use tried::Tried;

use outlier::Outlier;
use queue::Queue;
use server::Watched;
use taking_work::Counted;

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
    /// What of a request decides, where the balance hashes one.
    pub hash_of: Option<config::HashOf>,
    /// The cookie that keeps clients at their servers.
    pub cookie: Option<CookieRule>,
    /// Who was at which server.
    pub stick: Option<Arc<StickTable>>,
    /// Which backups step in.
    pub backups: config::Backups,
    /// Server-side timeouts.
    pub timeouts: config::ServerTimeouts,
    /// How a server's health is known.
    pub check: Option<config::Check>,
    /// How checks speak TLS, where they do not speak as traffic does.
    pub check_tls: Option<Arc<Connector>>,
    /// How its servers' agents are asked.
    pub agent: Option<config::AgentCheck>,
    /// A server connection serves one request.
    pub server_close: bool,
    /// Informational responses are passed on.
    pub early_hints: bool,
    /// Connections kept for reuse.
    pub pool: config::Pool,
    /// Bounds on HTTP/2 with its servers.
    pub http2: config::Http2,
    /// Bounds on responses.
    pub response_limits: config::ResponseLimits,
    /// What is done when a server cannot be connected to, or answers badly.
    pub retries: config::Retries,
    /// Requests under way or waiting at once.
    pub max_requests: Option<usize>,
    /// Its counts.
    pub metrics: Arc<BackendMetrics>,
    /// Where those wait for whom no server has room; none when no server ever has a limit.
    queue: Option<Arc<Queue>>,
    /// How many servers may have new work, as it was counted last.
    counted: Counted,
}

/// How TLS is spoken with a backend's servers.
#[derive(Debug, Default)]
pub struct Connectors {
    /// By server; none means plainly.
    pub servers: Vec<Option<Arc<Connector>>>,
    /// For checks; none means as traffic does.
    pub check: Option<Arc<Connector>>,
}

impl Backend {
    /// A backend from its configuration. `places` are those of its servers, in order: an echo server's is known
    /// only once it runs. Servers without one are left out. `tls` has how each is spoken to in TLS, none for plainly.
    /// `before` is the backend of that name in the configuration before.
    ///
    /// What is shared with a backend of the same name that runs already is left as it is until [`adopt`](Self::adopt).
    pub fn new(
        backend: &config::Backend,
        id: config::BackendId,
        places: Vec<Place>,
        tls: Connectors,
        registry: &Registry,
        before: Option<&Self>,
    ) -> Arc<Self> {
        let metrics = registry.backend(&backend.name);
        let observe = backend.check.as_ref().and_then(|check| check.observe);
        let servers = backend
            .servers
            .iter()
            .zip(places)
            .zip(tls.servers)
            .map(|((server, place), tls)| {
                let counts = registry.server(&metrics, &server.name);
                let known = |before: &Arc<Server>| before.name == server.name;
                let before = before.and_then(|before| before.servers.iter().find(|before| known(before)));
                let before = before.map(|before| &**before);
                let outlier = backend.outlier;
                let watched = Watched {
                    observe,
                    outlier: outlier.map(|outlier| Outlier::new(outlier, backend.servers.len())),
                    agent: backend.agent.is_some(),
                };
                Arc::new(Server::new(
                    server,
                    place,
                    tls,
                    watched,
                    backend.keep_alive,
                    counts,
                    before,
                ))
            });
        let servers: Vec<_> = servers.collect();
        let is_limited = servers.iter().any(|server| server.may_be_full());
        // Whoever waits under a configuration that had limits is let in by one that has none.
        let line = before.and_then(|before| before.queue.as_deref());
        let queue = (is_limited || line.is_some()).then(|| {
            let (servers, metrics) = (servers.clone(), Arc::clone(&metrics));
            Arc::new(Queue::new(servers, backend.backups, backend.queue, metrics, line))
        });
        Arc::new(Self {
            name: Arc::clone(&backend.name),
            id,
            mode: backend.mode,
            servers,
            balance: backend.balance,
            hash_of: backend.hash_of.clone(),
            cookie: backend
                .cookie
                .as_ref()
                .map(|cookie| CookieRule::new(cookie, &backend.servers)),
            stick: backend.stick.as_ref().map(|stick| {
                let known = before.and_then(|before| before.stick.as_ref());
                let known = known.filter(|known| known.config() == stick);
                known.map_or_else(|| Arc::new(StickTable::new(stick)), Arc::clone)
            }),
            backups: backend.backups,
            timeouts: backend.timeouts,
            check: backend.check.clone(),
            check_tls: tls.check,
            agent: backend.agent.clone(),
            server_close: backend.server_close,
            early_hints: backend.early_hints,
            pool: backend.pool,
            http2: backend.http2,
            response_limits: backend.response_limits,
            retries: backend.retries,
            max_requests: backend.max_requests,
            metrics,
            queue,
            counted: Counted::default(),
        })
    }

    /// From now on the servers are as this configuration says: their weights, and what nobody would take back any more of
    /// what was found out about them under an earlier one.
    pub fn adopt(&self) {
        for server in &self.servers {
            server.adopt();
            if self.agent.is_none() {
                server.metrics.set_agent(Agent::default());
            }
            if !server.may_be_ejected() {
                server.metrics.take_back();
            }
            if self.check.is_none() && !server.metrics.passes() {
                server.metrics.went(true);
            }
            if !self.check_may_drain() {
                server.metrics.set_drains(false);
            }
        }
    }

    /// Whether there are answers to its checks by which servers ask for no new work.
    fn check_may_drain(&self) -> bool {
        let kind = self.check.as_ref().map(|check| &check.kind);
        matches!(kind, Some(config::CheckKind::Http(check)) if !check.drain.is_empty())
    }

    /// Whether there is a server that may get new work, be there room or not, beside those that were tried.
    pub fn has_usable(&self, tried: &Tried) -> bool {
        let Some(tier) = server::tier_in_use(&self.servers) else {
            return false;
        };
        let mut servers = self.servers.iter().enumerate();
        servers.any(|(i, server)| server.tier() == tier && server.is_usable() && !tried.contains(i))
    }

    /// Whether some of its servers have a limit, so that one may have to wait.
    fn has_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// The server that the table remembers for this key, if it is one still.
    pub fn remembered(&self, key: u64) -> Option<usize> {
        let server = self.stick.as_ref()?.get(key)?;
        self.servers.iter().position(|known| known.hash == server)
    }

    /// From now on the table knows this server for the key.
    pub fn remember(&self, key: u64, server: usize) {
        if let (Some(table), Some(server)) = (&self.stick, self.servers.get(server)) {
            table.put(key, server.hash);
        }
    }

    /// A place at the server that somebody belongs to, whatever its weight: servers that are drained keep their sessions.
    pub fn take_wanted(&self, wanted: usize) -> Take {
        let Some(server) = self.servers.get(wanted).filter(|server| server.is_in_service()) else {
            return Take::Nothing;
        };
        // Nobody overtakes those who wait for it.
        let session = if server.is_taken() {
            None
        } else {
            server.begin(self.queue.as_ref())
        };
        session.map_or(Take::Full, |session| Take::Server(wanted, session))
    }

    /// Waits for a server that has room and is not among `tried`, or for the one that is `wanted` while that is in service, in
    /// line with those who came before. Whoever drops this gives up their place.
    pub async fn wait(&self, tried: Tried, wanted: Option<usize>) -> Result<(usize, Session), QueueError> {
        match &self.queue {
            Some(queue) => queue.wait(tried, wanted).await,
            // Without limits there is always room, and nobody waits.
            None => Err(QueueError::Full),
        }
    }

    /// Gives those who wait what room there is; to be called when a server has changed.
    fn dispatch(&self) {
        if let Some(queue) = &self.queue {
            queue.dispatch();
        }
    }

    /// Requests or connections under way, over all servers and workers.
    pub fn in_flight(&self) -> usize {
        self.metrics.in_flight()
    }
}

/// A backend of servers with these weights, the flagged ones backups, at addresses where nothing listens.
#[cfg(test)]
pub(crate) fn test_backend(balance: config::Balance, servers: &[(u16, bool)]) -> Arc<Backend> {
    let configured = test_config(balance, servers);
    let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 1)); servers.len()];
    test_backend_of(&configured, &addresses, &Registry::new())
}

/// A backend of servers that have names: how far each one's priority is behind the lowest, the flagged ones backups, and how
/// much each may have under way.
#[cfg(test)]
fn test_backend_of_ranks(servers: &[(u16, bool)], max: Option<usize>) -> Arc<Backend> {
    let weights: Vec<_> = servers.iter().map(|&(_, backup)| (1, backup)).collect();
    let mut configured = test_config(config::Balance::RoundRobin, &weights);
    for server in &mut configured.servers {
        server.max_connections = max.and_then(std::num::NonZeroUsize::new);
    }
    let places = servers.iter().map(|&(rank, _)| {
        let place = resolve::Whereabouts::new(&Arc::new(config::NameSource::Service {
            name: "_db._tcp.test".into(),
        }));
        place.set(Some(resolve::Found {
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            weight: None,
            rank,
        }));
        Place::Named(place)
    });
    let tls = Connectors {
        servers: servers.iter().map(|_| None).collect(),
        check: None,
    };
    let registry = Registry::new();
    let backend = Backend::new(
        &configured,
        config::BackendId(0),
        places.collect(),
        tls,
        &registry,
        None,
    );
    backend.adopt();
    backend
}

/// A backend of this configuration, without TLS.
#[cfg(test)]
fn test_backend_of(backend: &config::Backend, addresses: &[SocketAddr], registry: &Registry) -> Arc<Backend> {
    let plain = addresses.iter().map(|_| None).collect();
    let places = addresses
        .iter()
        .map(|address| Place::Fixed((*address).into()))
        .collect();
    let tls = Connectors {
        servers: plain,
        check: None,
    };
    let backend = Backend::new(backend, config::BackendId(0), places, tls, registry, None);
    backend.adopt();
    backend
}

#[cfg(test)]
fn test_config(balance: config::Balance, servers: &[(u16, bool)]) -> config::Backend {
    use std::time::Duration;

    let servers = servers.iter().enumerate().map(|(i, &(weight, backup))| config::Server {
        name: format!("s{i}").into(),
        address: config::ServerAddress::Echo,
        source: None,
        interface: None,
        user_timeout: None,
        weight,
        backup,
        disabled: false,
        slow_start: None,
        cookie: None,
        tls: None,
        send_proxy: None,
        http2: false,
        max_connections: None,
        session_end: config::SessionEnd::Natural,
        relieves_backups: false,
    });
    config::Backend {
        name: "app".into(),
        mode: config::Mode::Http,
        balance,
        hash_of: None,
        cookie: None,
        stick: None,
        backups: config::Backups::First,
        servers: servers.collect(),
        timeouts: config::ServerTimeouts {
            connect: Duration::from_secs(1),
            server: Duration::from_secs(1),
            tunnel: None,
        },
        queue: config::QueueLimits {
            most: 100,
            timeout: Duration::from_secs(1),
        },
        retries: config::Retries {
            count: 3,
            redispatch: config::Redispatch::Each,
            on: config::RetryOn {
                conn_failure: true,
                empty_response: false,
                junk_response: false,
                response_timeout: false,
                statuses: config::StatusSet::NONE,
                grpc: config::GrpcStatuses::NONE,
            },
            buffer: 0,
            budget: config::RetryBudget {
                percent: 20,
                min: 3,
                max: 10,
            },
        },
        max_requests: None,
        outlier: None,
        keep_alive: None,
        check: None,
        agent: None,
        server_close: false,
        early_hints: false,
        pool: config::Pool {
            max_idle: 1,
            idle_timeout: Duration::from_secs(1),
            reuse: config::Reuse::Always,
        },
        http2: config::Http2::SERVERS,
        error_pages: Vec::new(),
        response_limits: config::ResponseLimits::DEFAULT,
        acls: Vec::new(),
        rules: Vec::new(),
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

//! Which server takes the next request. A balancer belongs to one worker; the algorithms keep their cursors in it and
//! share nothing but the servers' health and in-flight counts.

mod key;
mod least_conn;
mod random;
mod round_robin;
mod source;

use std::net::Ipv4Addr;

use super::{Backend, Server};
use crate::config::{Backups, Balance, Spread};

pub use key::PickKey;

use least_conn::LeastConn;
use random::TwoChoices;
use round_robin::RoundRobin;

/// One worker's balancer of one backend.
#[derive(Debug)]
pub struct Balancer {
    algorithm: Algorithm,
}

#[derive(Debug)]
enum Algorithm {
    RoundRobin(RoundRobin),
    LeastConn(LeastConn),
    Random(TwoChoices),
    Source(Spread),
}

impl Balancer {
    /// A worker's balancer. Each worker begins with another server, so that workers do not all send their first
    /// requests to the same one.
    pub fn new(backend: &Backend, worker: usize) -> Self {
        let servers = backend.servers.len();
        let algorithm = match backend.balance {
            Balance::RoundRobin => Algorithm::RoundRobin(RoundRobin::new(servers)),
            Balance::LeastConn => Algorithm::LeastConn(LeastConn::default()),
            Balance::Random => Algorithm::Random(TwoChoices::new()),
            Balance::Source(spread) => Algorithm::Source(spread),
        };
        let mut balancer = Self { algorithm };
        let anyone = PickKey {
            client: Ipv4Addr::UNSPECIFIED.into(),
        };
        for _ in 0..worker.checked_rem(servers).unwrap_or(0) {
            balancer.pick(backend, &anyone, &[]);
        }
        balancer
    }

    /// The position in [`Backend::servers`] of the server that takes the next request; none when there is none to take
    /// it. `exclude` are servers that this request has tried already.
    ///
    /// Only servers that are up, ready and have a weight take requests; of those, the ones that are not backups. When
    /// there are none of these, the first backup server that is up takes everything, as with HAProxy, or, with
    /// `all-backups`, all of them together. Allocates nothing.
    pub fn pick(&mut self, backend: &Backend, key: &PickKey, exclude: &[usize]) -> Option<usize> {
        let servers = &*backend.servers;
        let share = |i: usize, backup: bool| {
            let server: &Server = &servers[i];
            if server.backup != backup || exclude.contains(&i) {
                return 0;
            }
            server.share()
        };
        let picked = self.algorithm.pick(backend, key, |i| share(i, false));
        if picked.is_some() {
            return picked;
        }
        // Backups do not step in for servers that were tried and are up.
        if servers.iter().any(|server| !server.backup && server.is_usable()) {
            return None;
        }
        match backend.backups {
            Backups::First => (0..servers.len()).find(|&i| share(i, true) > 0),
            Backups::All => self.algorithm.pick(backend, key, |i| share(i, true)),
        }
    }
}

impl Algorithm {
    /// `share` answers 0 for servers that are not to be picked.
    fn pick(&mut self, backend: &Backend, key: &PickKey, share: impl Fn(usize) -> u32) -> Option<usize> {
        let servers = &*backend.servers;
        match self {
            Self::RoundRobin(algorithm) => algorithm.pick(share),
            Self::LeastConn(algorithm) => algorithm.pick(servers, share),
            Self::Random(algorithm) => algorithm.pick(servers, share),
            Self::Source(Spread::Modulo) => source::modulo(key.hash(), servers.len(), share),
            Self::Source(Spread::Consistent) => source::rendezvous(key.hash(), servers, share),
        }
    }
}

#[cfg(test)]
mod tests;

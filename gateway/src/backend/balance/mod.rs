//! Which server takes the next request. A balancer belongs to one worker; the algorithms keep their cursors in it and
//! share nothing but the servers' health and in-flight counts.

mod first;
mod key;
mod least_conn;
mod random;
mod round_robin;
mod source;

use std::net::IpAddr;
use std::sync::Arc;

use super::server::{BACKUPS, tier_in_use};
use super::{Backend, Server, Session, Tried};
use crate::config::{Backups, Balance, Spread};

pub use key::PickKey;
pub(super) use least_conn::Load;

use least_conn::LeastConn;
use random::TwoChoices;
use round_robin::RoundRobin;

/// What came of asking for a server.
#[derive(Debug)]
pub enum Take {
    /// The server at this position in [`Backend::servers`], and a place there.
    Server(usize, Session),
    /// Those that may take it have no room: wait.
    Full,
    /// There is none, or none that was not tried.
    Nothing,
}

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
    /// With turns for who has no address.
    Source(Spread, RoundRobin),
    /// What has nothing to hash takes turns.
    Hash(Spread, RoundRobin),
    First,
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
            Balance::Source(spread) => Algorithm::Source(spread, RoundRobin::new(servers)),
            Balance::Hash(spread) => Algorithm::Hash(spread, RoundRobin::new(servers)),
            Balance::First => Algorithm::First,
        };
        let mut balancer = Self { algorithm };
        let anyone = PickKey::of(None::<IpAddr>);
        for _ in 0..worker.checked_rem(servers).unwrap_or(0) {
            balancer.pick(backend, &anyone, &Tried::default());
        }
        balancer
    }

    /// Takes a place at the server that is to have the next request. `tried` are servers that this request has tried in
    /// vain.
    ///
    /// Only servers that are up, ready and have a weight take requests; of those, the ones that are not backups. When
    /// there are none of these, those of the next priority in DNS share it, and behind these the first backup server that is
    /// up takes everything, as with HAProxy, or, with `all-backups`, all of them together. Nobody steps in for servers that
    /// are full. Allocates nothing.
    pub fn take(&mut self, backend: &Backend, key: &PickKey, tried: &Tried) -> Take {
        let queue = backend.queue.as_ref();
        // Nobody overtakes those who wait.
        if queue.is_none_or(|queue| queue.has_no_line()) {
            while let Some(server) = self.pick(backend, key, tried) {
                // Another worker may have taken the last place meanwhile; then the next pick passes it over.
                if let Some(session) = backend.servers[server].begin(queue) {
                    return Take::Server(server, session);
                }
            }
        }
        if queue.is_some() && backend.has_usable(tried) {
            Take::Full
        } else {
            Take::Nothing
        }
    }

    /// The position in [`Backend::servers`] of the server that is to have the next request, if there is one that may and
    /// has room.
    fn pick(&mut self, backend: &Backend, key: &PickKey, tried: &Tried) -> Option<usize> {
        let servers = &*backend.servers;
        let share = |i: usize, tier: u32| {
            let server: &Server = &servers[i];
            if server.tier() != tier || tried.contains(i) || server.is_taken() {
                return 0;
            }
            server.share()
        };
        let picked = self.algorithm.pick(backend, key, |i| share(i, 0));
        if picked.is_some() {
            return picked;
        }
        let tier = tier_in_use(servers).filter(|tier| *tier > 0)?;
        match backend.backups {
            Backups::First if tier >= BACKUPS => {
                // Not the next one when it is full: it takes everything.
                let may = |i: &usize| servers[*i].tier() == tier && servers[*i].is_usable() && !tried.contains(*i);
                (0..servers.len()).find(may).filter(|&i| share(i, tier) > 0)
            }
            Backups::First | Backups::All => self.algorithm.pick(backend, key, |i| share(i, tier)),
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
            Self::First => first::pick(servers.len(), share),
            Self::Source(spread, turns) => match key.hash_of_client() {
                Some(hash) => by_hash(*spread, hash, servers, share),
                // Who comes over a UNIX socket has no address.
                None => turns.pick(share),
            },
            Self::Hash(spread, turns) => match key.hash {
                Some(hash) => by_hash(*spread, hash, servers, share),
                None => turns.pick(share),
            },
        }
    }
}

fn by_hash(spread: Spread, hash: u64, servers: &[Arc<Server>], share: impl Fn(usize) -> u32) -> Option<usize> {
    match spread {
        Spread::Modulo => source::modulo(hash, servers.len(), share),
        Spread::Consistent => source::rendezvous(hash, servers, share),
    }
}

#[cfg(test)]
mod tests;

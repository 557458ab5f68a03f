//! Which server takes the next request. A balancer belongs to one worker; the algorithms keep their cursors in it and
//! share nothing but the servers' health and in-flight counts.

mod least_conn;
mod round_robin;

use super::{Backend, Server};
use crate::config::Balance;

use least_conn::LeastConn;
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
}

impl Balancer {
    /// A worker's balancer. Each worker begins with another server, so that workers do not all send their first
    /// requests to the same one.
    pub fn new(backend: &Backend, worker: usize) -> Self {
        let servers = backend.servers.len();
        let algorithm = match backend.balance {
            Balance::RoundRobin => Algorithm::RoundRobin(RoundRobin::new(servers)),
            Balance::LeastConn => Algorithm::LeastConn(LeastConn::default()),
        };
        let mut balancer = Self { algorithm };
        for _ in 0..worker.checked_rem(servers).unwrap_or(0) {
            balancer.pick(backend, &[]);
        }
        balancer
    }

    /// The position in [`Backend::servers`] of the server that takes the next request; none when there is none to take
    /// it. `exclude` are servers that this request has tried already.
    ///
    /// Only servers that are up and have a weight take requests; of those, the ones that are not backups. When there
    /// are none of these, the first backup server that is up takes everything, as with HAProxy. Allocates nothing.
    pub fn pick(&mut self, backend: &Backend, exclude: &[usize]) -> Option<usize> {
        let servers = &backend.servers;
        let mut is_active = false;
        let mut candidates = 0;
        for (i, server) in servers.iter().enumerate() {
            if !server.backup && server.is_usable() {
                is_active = true;
                candidates += usize::from(!exclude.contains(&i));
            }
        }
        if !is_active {
            let is_candidate = |i: &usize| {
                let server: &Server = &servers[*i];
                server.backup && server.is_usable() && !exclude.contains(i)
            };
            return (0..servers.len()).find(is_candidate);
        }
        if candidates == 0 {
            return None;
        }
        // A server may go down between the look above and the one in the algorithm; then the algorithm finds fewer.
        let is_candidate = |i: usize| !servers[i].backup && servers[i].is_usable() && !exclude.contains(&i);
        match &mut self.algorithm {
            Algorithm::RoundRobin(algorithm) => algorithm.pick(servers, is_candidate),
            Algorithm::LeastConn(algorithm) => algorithm.pick(servers, is_candidate),
        }
    }
}

//! Weighted least connections: the server that has least under way for its weight.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::backend::Server;

/// Compares `(in flight + 1) / weight`, and zero for a server that is idle, as HAProxy does: idle servers are equal
/// whatever their weight, so that light traffic does not all go to the heaviest. Among equals, in turn.
#[derive(Debug, Default)]
pub(super) struct LeastConn {
    /// Where the next look begins.
    cursor: usize,
}

impl LeastConn {
    pub(super) fn pick(&mut self, servers: &[Arc<Server>], is_candidate: impl Fn(usize) -> bool) -> Option<usize> {
        let from = self.cursor.min(servers.len());
        let mut best: Option<(usize, Load)> = None;
        for i in (from..servers.len()).chain(0..from).filter(|&i| is_candidate(i)) {
            let load = Load::of(&servers[i]);
            if best.is_none_or(|(_, least)| load.cmp(least) == Ordering::Less) {
                best = Some((i, load));
            }
        }
        let (best, _) = best?;
        self.cursor = best + 1;
        Some(best)
    }
}

/// A server's load as a fraction.
#[derive(Debug, Clone, Copy)]
struct Load {
    work: u64,
    weight: u64,
}

impl Load {
    fn of(server: &Server) -> Self {
        let in_flight = server.in_flight() as u64;
        Self {
            work: if in_flight == 0 { 0 } else { in_flight.saturating_add(1) },
            weight: u64::from(server.weight),
        }
    }

    /// Cross-multiplied: exact, where a quotient would round.
    fn cmp(self, other: Self) -> Ordering {
        (self.work.saturating_mul(other.weight)).cmp(&other.work.saturating_mul(self.weight))
    }
}

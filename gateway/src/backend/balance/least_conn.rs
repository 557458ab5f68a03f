//! Weighted least connections: the server that has least under way for its weight.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::backend::Server;

/// Compares `(in flight + 1) / share`, and zero for a server that is idle, as HAProxy does: idle servers are equal
/// whatever their weight, so that light traffic does not all go to the heaviest. Among equals, in turn.
#[derive(Debug, Default)]
pub(super) struct LeastConn {
    /// Where the next look begins.
    cursor: usize,
}

impl LeastConn {
    pub(super) fn pick(&mut self, servers: &[Arc<Server>], share: impl Fn(usize) -> u32) -> Option<usize> {
        let from = self.cursor.min(servers.len());
        let mut best: Option<(usize, Load)> = None;
        for i in (from..servers.len()).chain(0..from) {
            let share = share(i);
            if share == 0 {
                continue;
            }
            let load = Load::of(&servers[i], share);
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
pub(in crate::backend) struct Load {
    work: u64,
    share: u64,
}

impl Load {
    pub(in crate::backend) fn of(server: &Server, share: u32) -> Self {
        let in_flight = server.in_flight() as u64;
        Self {
            work: if in_flight == 0 { 0 } else { in_flight.saturating_add(1) },
            share: u64::from(share),
        }
    }

    /// Cross-multiplied: exact, where a quotient would round.
    pub(in crate::backend) fn cmp(self, other: Self) -> Ordering {
        (self.work.saturating_mul(other.share)).cmp(&other.work.saturating_mul(self.share))
    }
}

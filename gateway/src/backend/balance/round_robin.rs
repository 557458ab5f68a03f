//! Weighted round robin, smooth: a server of weight 3 among two of weight 1 gets its turns spread out, a b a c a, not
//! in a row.

use std::sync::Arc;

use crate::backend::Server;

/// Each pick, every candidate gains its weight, and the one that has most pays the sum of all weights (nginx's smooth
/// weighted round robin). Over as many picks as that sum, each gets exactly its weight. The cost is one look at every
/// server a pick, which matters from some hundreds of servers on.
#[derive(Debug)]
pub(super) struct RoundRobin {
    credits: Box<[i64]>,
}

impl RoundRobin {
    pub(super) fn new(servers: usize) -> Self {
        Self {
            credits: vec![0; servers].into_boxed_slice(),
        }
    }

    pub(super) fn pick(&mut self, servers: &[Arc<Server>], is_candidate: impl Fn(usize) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for (i, server) in servers.iter().enumerate().take(self.credits.len()) {
            if !is_candidate(i) {
                continue;
            }
            let weight = i64::from(server.weight);
            total += weight;
            self.credits[i] += weight;
            if best.is_none_or(|best| self.credits[best] < self.credits[i]) {
                best = Some(i);
            }
        }
        if let Some(best) = best {
            self.credits[best] -= total;
        }
        best
    }
}

//! Hashing: a client goes to the same server for as long as the servers stay the same, or, consistently, for as long as
//! that server is there.

use std::sync::Arc;

use crate::backend::Server;
use crate::backend::random::mix;

/// The hash modulo the sum of all shares. Shares are exact, and when a server comes or goes nearly every client moves.
pub(super) fn modulo(hash: u64, servers: usize, share: impl Fn(usize) -> u32) -> Option<usize> {
    let total = (0..servers).map(|i| u64::from(share(i))).sum();
    let mut at = hash.checked_rem(total)?;
    let mut last = None;
    for i in 0..servers {
        let share = u64::from(share(i));
        if share == 0 {
            continue;
        }
        last = Some(i);
        match at.checked_sub(share) {
            Some(rest) => at = rest,
            None => break,
        }
    }
    // Where a server has gone down since the sum was taken, the last one stands in.
    last
}

/// Rendezvous hashing, weighted (Thaler and Ravishankar 1998; Schindelhauer and Schomaker 2005): each server draws a number
/// from the client's hash and its own name, exponentially distributed by its share, and the least wins.
///
/// A server that leaves loses its own clients and moves no other; one that comes takes its share evenly from all; a weight
/// that changes moves what it has to and nothing else. Shares are as even as the hash, without the lumps of a ring of
/// points, and nothing is built or rebuilt: workers and gateways agree because they compute the same. Servers are told apart
/// by name, so that their order does not matter. The cost is one look and one logarithm for every server.
pub(super) fn rendezvous(hash: u64, servers: &[Arc<Server>], share: impl Fn(usize) -> u32) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, server) in servers.iter().enumerate() {
        let share = share(i);
        if share == 0 {
            continue;
        }
        // 52 bits and a half: within (0, 1), never at its ends.
        let uniform = ((mix(hash ^ server.hash) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
        let drawn = -uniform.ln() / f64::from(share);
        if best.is_none_or(|(_, least)| drawn < least) {
            best = Some((i, drawn));
        }
    }
    best.map(|(best, _)| best)
}

//! Two random choices: of two servers drawn by weight, the one that has less under way for its weight.

use std::cmp::Ordering;
use std::sync::Arc;

use super::least_conn::Load;
use crate::backend::Server;
use crate::backend::random::Random;

/// Nearly as even as least connections, and several gateways in front of the same servers, none of which sees what the
/// others have under way, do not all run to the same one (Mitzenmacher, "The Power of Two Choices", 2001).
#[derive(Debug)]
pub(super) struct TwoChoices {
    random: Random,
}

impl TwoChoices {
    pub(super) fn new() -> Self {
        Self { random: Random::new() }
    }

    pub(super) fn pick(&mut self, servers: &[Arc<Server>], share: impl Fn(usize) -> u32) -> Option<usize> {
        let (one, share_of_one) = self.draw(servers.len(), &share)?;
        let Some((other, share_of_other)) = self.draw(servers.len(), |i| if i == one { 0 } else { share(i) }) else {
            return Some(one);
        };
        let (load, other_load) = (
            Load::of(&servers[one], share_of_one),
            Load::of(&servers[other], share_of_other),
        );
        Some(match load.cmp(other_load) {
            Ordering::Greater => other,
            _ => one,
        })
    }

    /// A server, each as likely as its share is of all.
    fn draw(&mut self, servers: usize, share: impl Fn(usize) -> u32) -> Option<(usize, u32)> {
        let total = (0..servers).map(|i| u64::from(share(i))).sum();
        let mut at = self.random.below(total);
        let mut last = None;
        for i in 0..servers {
            let share = share(i);
            if share == 0 {
                continue;
            }
            last = Some((i, share));
            match at.checked_sub(u64::from(share)) {
                Some(rest) => at = rest,
                None => break,
            }
        }
        // Where a server has gone down since the sum was taken, the last one stands in.
        last
    }
}

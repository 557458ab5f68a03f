//! Weighted round robin, smooth: a server of weight 3 among two of weight 1 gets its turns spread out, a b a c a, not
//! in a row.

/// Each pick, every candidate gains its share, and the one that has most pays the sum of all shares (nginx's smooth
/// weighted round robin). Over as many picks as the weights' sum, each gets exactly its weight. The cost is one look at
/// every server a pick, which matters from some hundreds of servers on.
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

    pub(super) fn pick(&mut self, share: impl Fn(usize) -> u32) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (i, credit) in self.credits.iter_mut().enumerate() {
            let share = i64::from(share(i));
            if share == 0 {
                continue;
            }
            total += share;
            *credit += share;
            if best.is_none_or(|(_, most)| most < *credit) {
                best = Some((i, *credit));
            }
        }
        let (best, credit) = best?;
        self.credits[best] = credit - total;
        Some(best)
    }
}

//! The servers that one request or connection has tried in vain.

use crate::config::MAX_RETRIES;

/// Positions in [`Backend::servers`](super::Backend::servers), at most one for each attempt.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    // Small: it is kept with each exchange.
    servers: [u32; MAX_RETRIES],
    count: u32,
}

impl Tried {
    /// Whether it is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether this one is among them.
    pub fn contains(&self, server: usize) -> bool {
        let mut tried = self.servers.iter().take(self.count as usize);
        tried.any(|tried| *tried as usize == server)
    }

    /// Adds one. There are no more attempts than there is room for; beyond it, nothing is remembered.
    pub fn add(&mut self, server: usize) {
        if let (Some(slot), Ok(server)) = (self.servers.get_mut(self.count as usize), u32::try_from(server)) {
            *slot = server;
            self.count += 1;
        }
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.count = 0;
    }
}

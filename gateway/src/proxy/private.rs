//! Connections to servers that were told of one client: they wait for that client's next request, and for no other's.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::body::RequestBody;
use crate::backend::{Backend, Upstream};

/// A client's own connections to servers, idle between its requests. They end with the client's connection.
#[derive(Default)]
pub struct Private(RefCell<Vec<Kept>>);

struct Kept {
    backend: Arc<Backend>,
    server: usize,
    since: Instant,
    upstream: Box<Upstream<RequestBody>>,
}

impl Private {
    /// A connection to this server that is still open.
    pub fn take(&self, backend: &Arc<Backend>, server: usize) -> Option<Box<Upstream<RequestBody>>> {
        let mut kept = self.0.borrow_mut();
        if kept.is_empty() {
            return None;
        }
        let now = Instant::now();
        kept.retain(|kept| now < kept.since + kept.backend.pool.idle_timeout);
        loop {
            let at = kept.iter().position(|kept| kept.is_to(backend, server))?;
            let mut found = kept.swap_remove(at);
            if found.upstream.is_alive() {
                return Some(found.upstream);
            }
        }
    }

    /// Keeps a connection for later. When there are many, the one that has waited longest is closed.
    pub fn put(&self, backend: &Arc<Backend>, server: usize, mut upstream: Box<Upstream<RequestBody>>) {
        let mut kept = self.0.borrow_mut();
        if kept.len() >= MOST
            && let Some((oldest, _)) = kept.iter().enumerate().min_by_key(|(_, kept)| kept.since)
        {
            kept.swap_remove(oldest);
        }
        upstream.served += 1;
        kept.push(Kept {
            backend: backend.clone(),
            server,
            since: Instant::now(),
            upstream,
        });
    }

    /// Ends all connections to a server.
    pub fn clear(&self, backend: &Arc<Backend>, server: usize) {
        self.0.borrow_mut().retain(|kept| !kept.is_to(backend, server));
    }
}

impl Kept {
    fn is_to(&self, backend: &Arc<Backend>, server: usize) -> bool {
        self.server == server && Arc::ptr_eq(&self.backend, backend)
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.0.try_borrow().map_or(0, |kept| kept.len());
        f.debug_tuple("Private").field(&kept).finish()
    }
}

/// As HAProxy's `max-session-srv-conns`: a client's requests rarely go to more servers than this, and every client may have
/// as many.
const MOST: usize = 5;

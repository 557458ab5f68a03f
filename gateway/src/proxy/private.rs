//! Connections to servers that were told of one client: they wait for that client's next request, and for no other's.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::time::Instant;

use crate::backend::{Backend, Upstream};

/// A client's own connections to servers, idle between its requests. They end with the client's connection, after
/// `pool idle-timeout=`, and when the client's next request meets a newer configuration.
#[derive(Default)]
pub struct Private {
    kept: RefCell<Vec<Kept>>,
    /// When the first of them has to be looked at, at the latest: every poll of the client's connection asks.
    deadline: Cell<Option<Instant>>,
    /// Whether a request has been sent.
    has_sent: Cell<bool>,
}

struct Kept {
    backend: Arc<Backend>,
    server: usize,
    since: Instant,
    upstream: Box<Upstream>,
}

impl Private {
    /// Whether the client sends its first request now; true once.
    pub fn is_first_request(&self) -> bool {
        !self.has_sent.replace(true)
    }

    /// A connection to this server under this name that is still open.
    pub fn take(
        &self,
        backend: &Arc<Backend>,
        server: usize,
        name: Option<&ServerName<'static>>,
    ) -> Option<Box<Upstream>> {
        let mut kept = self.kept.borrow_mut();
        if kept.is_empty() {
            return None;
        }
        let now = Instant::now();
        end_those(&mut kept, |kept| now >= kept.deadline());
        loop {
            let fits = |kept: &Kept| kept.is_to(backend, server) && kept.upstream.name.as_ref() == name;
            let at = kept.iter().position(fits)?;
            let mut found = kept.swap_remove(at);
            if found.upstream.connection.is_idle() {
                return Some(found.upstream);
            }
        }
    }

    /// Keeps a connection for later. When there are many, the one that has waited longest is closed.
    pub fn put(&self, backend: &Arc<Backend>, server: usize, mut upstream: Box<Upstream>) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= MOST
            && let Some((oldest, _)) = kept.iter().enumerate().min_by_key(|(_, kept)| kept.since)
        {
            kept.swap_remove(oldest).end();
        }
        upstream.served += 1;
        let new = Kept {
            backend: backend.clone(),
            server,
            since: Instant::now(),
            upstream,
        };
        let deadline = new.deadline();
        self.deadline
            .set(Some(self.deadline.get().map_or(deadline, |first| first.min(deadline))));
        kept.push(new);
    }

    /// When [`Private::sweep`] is due, if anything is kept.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.get()
    }

    /// Ends what has waited for too long.
    pub fn sweep(&self, now: Instant) {
        if self.deadline.get().is_none_or(|deadline| now < deadline) {
            return;
        }
        let mut kept = self.kept.borrow_mut();
        end_those(&mut kept, |kept| now >= kept.deadline());
        self.deadline.set(kept.iter().map(Kept::deadline).min());
    }

    /// Ends all connections: their backends belong to a configuration that is no more.
    pub fn clear_all(&self) {
        self.kept.borrow_mut().drain(..).for_each(Kept::end);
        self.deadline.set(None);
    }

    /// Ends all connections to a server.
    pub fn clear(&self, backend: &Arc<Backend>, server: usize) {
        end_those(&mut self.kept.borrow_mut(), |kept| kept.is_to(backend, server));
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.kept.get_mut().drain(..).for_each(Kept::end);
    }
}

impl Kept {
    fn deadline(&self) -> Instant {
        self.since + self.backend.pool.idle_timeout
    }

    fn is_to(&self, backend: &Arc<Backend>, server: usize) -> bool {
        self.server == server && Arc::ptr_eq(&self.backend, backend)
    }

    /// Ends it as one of a [pool](crate::backend::Pool) ends.
    fn end(self) {
        self.upstream.connection.leave();
    }
}

/// Ends those of which this holds.
fn end_those(kept: &mut Vec<Kept>, are_over: impl Fn(&Kept) -> bool) {
    kept.extract_if(.., |kept| are_over(kept)).for_each(Kept::end);
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept.try_borrow().map_or(0, |kept| kept.len());
        f.debug_tuple("Private").field(&kept).finish()
    }
}

/// As HAProxy's `max-session-srv-conns`: a client's requests rarely go to more servers than this, and every client may have
/// as many.
const MOST: usize = 5;

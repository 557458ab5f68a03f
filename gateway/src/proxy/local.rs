//! What one worker has to itself: its connections to servers, its balancing cursors, its warm policy instances, its log
//! buffer. Nothing here is shared with another thread, so nothing here is locked.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::body::RequestBody;
use crate::backend::{Backend, Balancer, Pool};
use crate::policy::{Failure, Instances};
use crate::snapshot::Snapshot;
use crate::telemetry::log::LineWriter;
use crate::telemetry::metrics::Registry;

/// One worker's own state. The proxy borrows parts of it for the length of one synchronous step, never across an await.
pub struct Local {
    /// What the configuration became.
    pub snapshot: Arc<Snapshot>,
    instances: RefCell<Instances>,
    balancers: Vec<RefCell<Balancer>>,
    pools: Vec<RefCell<Pool<RequestBody>>>,
    log: RefCell<LineWriter>,
    draining: Cell<bool>,
    drain: Notify,
    connections: Cell<usize>,
}

impl Local {
    /// The state of worker number `worker`, with its policy instances warm.
    pub fn new(snapshot: Arc<Snapshot>, worker: usize, log: LineWriter) -> Result<Rc<Self>, Failure> {
        let mut instances = Instances::new(&snapshot.policy);
        for attachment in &snapshot.attachments {
            instances.warm(attachment)?;
        }
        let balancers = snapshot
            .backends
            .iter()
            .map(|backend| RefCell::new(Balancer::new(backend, worker)))
            .collect();
        let pools = snapshot
            .backends
            .iter()
            .map(|backend| RefCell::new(Pool::new(backend.servers.len(), backend.pool)))
            .collect();
        Ok(Rc::new(Self {
            snapshot,
            instances: RefCell::new(instances),
            balancers,
            pools,
            log: RefCell::new(log),
            draining: Cell::new(false),
            drain: Notify::new(),
            connections: Cell::new(0),
        }))
    }

    /// The worker's policy instances.
    pub fn instances(&self) -> RefMut<'_, Instances> {
        self.instances.borrow_mut()
    }

    /// The worker's cursor over a backend's servers.
    pub fn balancer(&self, backend: &Backend) -> RefMut<'_, Balancer> {
        self.balancers[backend.id.0].borrow_mut()
    }

    /// The worker's idle connections to a backend's servers.
    pub fn pool(&self, backend: &Backend) -> RefMut<'_, Pool<RequestBody>> {
        self.pools[backend.id.0].borrow_mut()
    }

    /// The process's metrics.
    pub fn registry(&self) -> &Registry {
        &self.snapshot.registry
    }

    /// The worker's log buffer.
    pub fn log(&self) -> RefMut<'_, LineWriter> {
        self.log.borrow_mut()
    }

    /// Regular upkeep, several times a second: log lines go out, stale connections go away.
    pub fn upkeep(&self) {
        self.log.borrow_mut().flush();
        let now = Instant::now();
        for (pool, backend) in self.pools.iter().zip(&self.snapshot.backends) {
            let mut pool = pool.borrow_mut();
            for (server, state) in backend.servers.iter().enumerate() {
                if !state.is_up() {
                    pool.clear(server);
                }
            }
            pool.sweep(now);
        }
    }

    /// Asks every connection to end after what it is doing.
    pub fn drain(&self) {
        self.draining.set(true);
        self.drain.notify_waiters();
    }

    /// Whether connections have been asked to end.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Resolves when connections are asked to end.
    pub async fn drained(&self) {
        let notified = self.drain.notified();
        if !self.is_draining() {
            notified.await;
        }
    }

    /// Counts a client connection of this worker until the guard is dropped.
    pub fn count_connection(self: &Rc<Self>) -> ConnectionCount {
        self.connections.set(self.connections.get() + 1);
        ConnectionCount(self.clone())
    }

    /// Client connections of this worker.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }
}

/// A client connection that is counted.
#[must_use]
pub struct ConnectionCount(Rc<Local>);

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

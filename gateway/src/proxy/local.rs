//! What one worker has to itself: its connections to servers, its balancing cursors, its warm policy instances, its log
//! buffer. Nothing here is shared with another thread, so nothing here is locked.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::told::Untold;
use crate::backend::{Backend, Balancer, Pool};
use crate::policy::{Crew, Failure, Instances, Warm};
use crate::snapshot::Snapshot;
use crate::telemetry::log::LineWriters;
use crate::telemetry::metrics::Registry;
use crate::telemetry::trace::Tracer;

/// One worker's own state under one configuration. The proxy borrows parts of it for the length of one synchronous step,
/// never across an await.
pub struct Local {
    /// What the configuration became.
    pub snapshot: Arc<Snapshot>,
    balancers: Vec<RefCell<Balancer>>,
    pools: Vec<RefCell<Pool>>,
    lasting: Rc<Lasting>,
    /// Its place among the configurations that the worker has served, from 0.
    generation: u64,
}

/// What a worker keeps from one configuration to the next. A session that outlives its configuration holds this, and of the
/// configuration only what it still needs.
pub struct Lasting {
    worker: usize,
    registry: Arc<Registry>,
    /// What serves now. Weak: the worker holds it, and an old configuration must not hold the newer ones.
    newest: RefCell<Weak<Local>>,
    newest_generation: Cell<u64>,
    instances: RefCell<Instances>,
    crew: Arc<Crew>,
    log: RefCell<LineWriters>,
    tracer: Option<Tracer>,
    /// Exchanges that components are to be told of.
    untold: Untold,
    draining: Cell<bool>,
    drain: Notify,
    connections: Cell<usize>,
    /// Held by each response that is being compressed.
    compressions: Rc<()>,
    /// Held by each message that is being decompressed.
    decompressions: Rc<()>,
}

impl Local {
    /// The state of worker number `worker`, with policy instances that are warm.
    pub fn new(
        snapshot: Arc<Snapshot>,
        warm: Warm,
        worker: usize,
        log: LineWriters,
        tracer: Option<Tracer>,
    ) -> Result<Rc<Self>, Failure> {
        let lasting = Lasting {
            worker,
            registry: snapshot.registry.clone(),
            newest: RefCell::default(),
            newest_generation: Cell::new(0),
            instances: RefCell::new(Instances::of_worker(&snapshot.policy, &snapshot.crew)),
            crew: snapshot.crew.clone(),
            log: RefCell::new(log),
            tracer,
            untold: Untold::default(),
            draining: Cell::new(false),
            drain: Notify::new(),
            connections: Cell::new(0),
            compressions: Rc::default(),
            decompressions: Rc::default(),
        };
        let local = Self::of(snapshot, warm, Rc::new(lasting), 0)?;
        *local.lasting.newest.borrow_mut() = Rc::downgrade(&local);
        local.lasting.untold.keep_for(&local.snapshot);
        Ok(local)
    }

    /// The same worker's state under another configuration, which has to have the same policy host. It serves nothing
    /// until it [succeeds](Self::hand_over) this one.
    pub fn prepare(&self, snapshot: Arc<Snapshot>, warm: Warm) -> Result<Rc<Self>, Failure> {
        Self::of(snapshot, warm, self.lasting.clone(), self.generation + 1)
    }

    /// What is warm has been made elsewhere: nobody's component is set up here while requests wait.
    fn of(snapshot: Arc<Snapshot>, warm: Warm, lasting: Rc<Lasting>, generation: u64) -> Result<Rc<Self>, Failure> {
        lasting.crew.ensure(snapshot.heavy_threads)?;
        lasting.instances.borrow_mut().take_in(warm);
        let balancers = snapshot
            .backends
            .iter()
            .map(|backend| RefCell::new(Balancer::new(backend, lasting.worker)))
            .collect();
        let pools = snapshot
            .backends
            .iter()
            .map(|backend| RefCell::new(Pool::new(backend.servers.len(), backend.pool)))
            .collect();
        Ok(Rc::new(Self {
            snapshot,
            balancers,
            pools,
            lasting,
            generation,
        }))
    }

    /// From now on `next` serves what comes. What is under way here goes on to its end.
    pub fn hand_over(&self, next: &Rc<Self>) {
        for pool in &self.pools {
            pool.borrow_mut().close();
        }
        self.snapshot
            .attachments
            .iter()
            .for_each(|attachment| attachment.retire());
        *self.lasting.newest.borrow_mut() = Rc::downgrade(next);
        self.lasting.untold.keep_for(&next.snapshot);
        self.lasting.newest_generation.set(next.generation);
    }

    /// Gives back the policy instances of configurations that are gone.
    pub fn forget_unused(&self) {
        self.lasting.instances.borrow_mut().give_back();
    }

    /// Whether another configuration serves what comes.
    pub fn is_succeeded(&self) -> bool {
        self.lasting.newest_generation.get() != self.generation
    }

    /// What serves in place of this, after one reload or several; none while this is what serves.
    pub fn successor(&self) -> Option<Rc<Self>> {
        if self.is_succeeded() {
            self.lasting.newest.borrow().upgrade()
        } else {
            None
        }
    }

    /// What the worker keeps.
    pub fn lasting(&self) -> Rc<Lasting> {
        self.lasting.clone()
    }

    /// The worker's policy instances.
    pub fn instances(&self) -> RefMut<'_, Instances> {
        self.lasting.instances.borrow_mut()
    }

    /// The threads that call heavy plugins.
    pub fn crew(&self) -> &Crew {
        &self.lasting.crew
    }

    /// The worker's cursor over a backend's servers.
    pub fn balancer(&self, backend: &Backend) -> RefMut<'_, Balancer> {
        self.balancers[backend.id.0].borrow_mut()
    }

    /// The worker's idle connections to a backend's servers.
    pub fn pool(&self, backend: &Backend) -> RefMut<'_, Pool> {
        self.pools[backend.id.0].borrow_mut()
    }

    /// The process's metrics.
    pub fn registry(&self) -> &Registry {
        &self.lasting.registry
    }

    /// The worker's log buffer.
    pub fn log(&self) -> RefMut<'_, LineWriters> {
        self.lasting.log()
    }

    /// What each response holds that is being compressed, beside this.
    pub fn compressions(&self) -> &Rc<()> {
        &self.lasting.compressions
    }

    /// What each message holds that is being decompressed, beside this.
    pub fn decompressions(&self) -> &Rc<()> {
        &self.lasting.decompressions
    }

    /// Regular upkeep, several times a second: log lines go out, stale connections go away.
    pub fn upkeep(&self) {
        self.lasting.log.borrow_mut().flush();
        self.lasting.instances.borrow_mut().upkeep();
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

    /// Asks every connection of the worker to end after what it is doing.
    pub fn drain(&self) {
        self.lasting.draining.set(true);
        self.lasting.drain.notify_waiters();
    }

    /// Whether connections have been asked to end.
    pub fn is_draining(&self) -> bool {
        self.lasting.is_draining()
    }

    /// What is waited for when the worker is to end: client connections, and heavy components that are being told of exchanges.
    pub fn under_way(&self) -> usize {
        self.connections() + self.lasting.untold.under_way()
    }

    /// Client connections of the worker, under whatever configuration they were accepted.
    pub fn connections(&self) -> usize {
        self.lasting.connections.get()
    }
}

impl Lasting {
    /// The process's metrics.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The worker's log buffer.
    pub fn log(&self) -> RefMut<'_, LineWriters> {
        self.log.borrow_mut()
    }

    /// The worker's way to the collector of traces, where there is one.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    /// Exchanges that components are to be told of.
    pub fn untold(&self) -> &Untold {
        &self.untold
    }

    /// The worker's policy instances.
    pub fn instances(&self) -> RefMut<'_, Instances> {
        self.instances.borrow_mut()
    }

    /// The threads that call heavy plugins.
    pub fn crew(&self) -> &Arc<Crew> {
        &self.crew
    }

    /// Counts a client connection of this worker until the guard is dropped.
    pub fn count_connection(self: &Rc<Self>) -> ConnectionCount {
        self.connections.set(self.connections.get() + 1);
        ConnectionCount(self.clone())
    }

    /// Makes policy instances ahead of need, and drops used ones, whenever other tasks have had their turn: so that no request
    /// waits for either.
    pub async fn tend_to_instances(&self) {
        let work = self.instances.borrow().work();
        loop {
            work.notified().await;
            while self.instances.borrow_mut().tend() {
                yield_now().await;
            }
        }
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
}

/// A client connection that is counted.
#[must_use]
pub struct ConnectionCount(Rc<Lasting>);

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

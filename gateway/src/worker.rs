//! One worker: a thread with its own runtime, sockets, upstream connections and policy instances. Only this module knows
//! that workers are threads.

use std::future::Ready;
use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::accepted::Accepted;
use crate::config::Mode;
use crate::in_place::boxed;
use crate::listener::{self, Acceptor, Admit, Gate, Limits, Opening, Port, Service, Unintroduced};
use crate::policy::{Failure, Warm};
use crate::proxy::{self, Local, http, tcp, unintroduced};
use crate::snapshot::{Frontend, Snapshot};
use crate::telemetry::log::LineWriters;
use crate::telemetry::trace::Tracer;

/// What a worker is made of.
pub struct WorkerParts {
    /// Its number, from 0.
    pub index: usize,
    /// What it serves.
    pub snapshot: Arc<Snapshot>,
    /// Policy instances to begin with.
    pub warm: Warm,
    /// Its sockets.
    pub sockets: Vec<WorkerSocket>,
    /// Its way to the log.
    pub log: LineWriters,
    /// Its way to the collector of traces.
    pub tracer: Option<Tracer>,
}

/// A socket of a worker.
pub struct WorkerSocket {
    /// Position in [`Snapshot::frontends`].
    pub frontend: usize,
    /// Position in the frontend's binds.
    pub bind: usize,
    /// The socket.
    pub socket: StdListener,
    /// How many connections there may be.
    pub limits: Limits,
}

/// What a worker is asked to do.
enum Order {
    /// Make ready to serve this on these sockets, and say whether it can be done. Nothing changes yet.
    Prepare(
        Arc<Snapshot>,
        Warm,
        Vec<WorkerSocket>,
        oneshot::Sender<Result<(), WorkerError>>,
    ),
    /// Let go of what was prepared.
    Forget(oneshot::Sender<()>),
    /// Serve what was prepared last, on its sockets and no others.
    Switch(oneshot::Sender<()>),
    /// Accept no more, let connections end after what they are doing, and stop at the deadline at the latest.
    Drain(Instant),
}

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The system refused a thread, a poller or a timer.
    #[error("cannot start a worker: {0}")]
    Io(#[from] io::Error),
    /// A component could not be instantiated.
    #[error("cannot start a worker: {0}")]
    Policy(#[from] Failure),
    /// The worker ended before it was ready, or before it could do what it was asked to.
    #[error("a worker ended unexpectedly")]
    Gone,
}

/// A worker that serves.
pub struct Worker {
    thread: JoinHandle<()>,
    orders: mpsc::Sender<Order>,
    /// Set at each turn of its upkeep.
    turned: Arc<AtomicBool>,
}

impl Worker {
    /// Starts a worker; returns when it accepts connections.
    pub fn start(parts: WorkerParts) -> Result<Self, WorkerError> {
        let (ready, is_ready) = std_mpsc::channel();
        let (orders, receiver) = mpsc::channel(MOST_ORDERS);
        let turned = Arc::new(AtomicBool::new(true));
        let thread = std::thread::Builder::new()
            .name(format!("worker-{}", parts.index))
            .spawn({
                let turned = turned.clone();
                move || run(parts, receiver, &ready, &turned)
            })?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(Self { thread, orders, turned }),
            Ok(Err(error)) => Err(error),
            Err(std_mpsc::RecvError) => Err(WorkerError::Gone),
        }
    }

    /// Makes the worker ready to serve another configuration on these sockets. It goes on with the one it has.
    pub async fn prepare(
        &self,
        snapshot: Arc<Snapshot>,
        warm: Warm,
        sockets: Vec<WorkerSocket>,
    ) -> Result<(), WorkerError> {
        let (done, is_done) = oneshot::channel();
        self.order(Order::Prepare(snapshot, warm, sockets, done)).await?;
        is_done.await.map_err(|_| WorkerError::Gone)?
    }

    /// Makes the worker let go of what it was prepared for, as if that had never been asked.
    pub async fn forget(&self) {
        let (done, is_done) = oneshot::channel();
        if self.order(Order::Forget(done)).await.is_ok() {
            let _ = is_done.await;
        }
    }

    /// Makes the worker serve what it was last prepared for. A worker that is gone is noticed elsewhere.
    pub async fn switch(&self) {
        let (done, is_done) = oneshot::channel();
        if self.order(Order::Switch(done)).await.is_ok() {
            let _ = is_done.await;
        }
    }

    /// Makes the worker accept no more, let connections end after what they are doing, and stop at the deadline at the
    /// latest.
    pub async fn drain(&self, deadline: Instant) {
        // A worker that is gone has nothing to drain.
        let _ = self.order(Order::Drain(deadline)).await;
    }

    async fn order(&self, order: Order) -> Result<(), WorkerError> {
        self.orders.send(order).await.map_err(|_| WorkerError::Gone)
    }

    /// By which it is seen whether the worker lives.
    pub fn pulse(&self) -> Pulse {
        Pulse(self.turned.clone())
    }

    /// Whether the worker has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the worker to end. False when it ended by a panic.
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

/// Shows whether a worker lives.
pub struct Pulse(Arc<AtomicBool>);

impl Pulse {
    /// Whether the worker has turned to its upkeep since this was asked last: one that is stuck has not.
    pub fn has_turned(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

fn run(
    parts: WorkerParts,
    orders: mpsc::Receiver<Order>,
    ready: &std_mpsc::Sender<Result<(), WorkerError>>,
    turned: &AtomicBool,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error.into()));
            return;
        }
    };
    let tasks = LocalSet::new();
    let started = {
        let _guard = runtime.enter();
        tasks.block_on(&runtime, async { Serving::start(parts) })
    };
    match started {
        Ok(serving) => {
            let _ = ready.send(Ok(()));
            tasks.block_on(&runtime, serving.run(orders, turned));
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
}

/// A worker at work.
struct Serving {
    local: Rc<Local>,
    accepting: Vec<Accepting>,
    /// What will serve after the next switch, and where.
    prepared: Option<(Rc<Local>, Vec<Door>)>,
}

/// A socket that can be accepted from.
type Door = (Arc<Frontend>, Port);

/// A socket that is being accepted from.
struct Accepting {
    task: tokio::task::JoinHandle<()>,
    gate: Rc<Gate>,
}

impl Serving {
    fn start(parts: WorkerParts) -> Result<Self, WorkerError> {
        let local = Local::new(parts.snapshot, parts.warm, parts.index, parts.log, parts.tracer)?;
        let doors = doors(&local, parts.sockets)?;
        let lasting = local.lasting();
        tokio::task::spawn_local(async move { lasting.tend_to_instances().await });
        tokio::task::spawn_local(proxy::tell(local.lasting()));
        Ok(Self {
            accepting: accept_at(&local, doors),
            local,
            prepared: None,
        })
    }

    /// Serves until told to drain, then until the last connection has ended or the deadline has come.
    async fn run(mut self, mut orders: mpsc::Receiver<Order>, turned: &AtomicBool) {
        let mut upkeep = interval(UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = None;
        loop {
            tokio::select! {
                _ = upkeep.tick() => {
                    self.local.upkeep();
                    turned.store(true, Ordering::Relaxed);
                }
                order = orders.recv(), if deadline.is_none() => match order {
                    Some(Order::Prepare(snapshot, warm, sockets, done)) => {
                        let _ = done.send(self.prepare(snapshot, warm, sockets));
                    }
                    Some(Order::Forget(done)) => {
                        self.prepared = None;
                        self.local.forget_unused();
                        let _ = done.send(());
                    }
                    Some(Order::Switch(done)) => {
                        self.switch();
                        let _ = done.send(());
                    }
                    Some(Order::Drain(end)) => deadline = Some(end),
                    // The control side is gone: so is the reason to serve.
                    None => deadline = Some(Instant::now()),
                },
            }
            if let Some(end) = deadline {
                if !self.local.is_draining() {
                    self.accepting.drain(..).for_each(Accepting::stop);
                    self.local.drain();
                }
                if self.local.under_way() == 0 || Instant::now() >= end {
                    break;
                }
            }
        }
        self.local.log().flush();
    }

    fn prepare(&mut self, snapshot: Arc<Snapshot>, warm: Warm, sockets: Vec<WorkerSocket>) -> Result<(), WorkerError> {
        // What is not used any more gives its instances back first.
        self.prepared = None;
        self.local.forget_unused();
        let local = self.local.prepare(snapshot, warm)?;
        let doors = doors(&local, sockets)?;
        self.prepared = Some((local, doors));
        Ok(())
    }

    /// No connection is lost between old and new: their sockets share queues, and are accepted from in this thread alone.
    fn switch(&mut self) {
        let Some((next, doors)) = self.prepared.take() else {
            return;
        };
        let accepting = accept_at(&next, doors);
        for old in std::mem::replace(&mut self.accepting, accepting) {
            old.stop();
        }
        let before = std::mem::replace(&mut self.local, next.clone());
        before.hand_over(&next);
    }
}

impl Accepting {
    /// Accepts no more. A connection that was accepted and waits for a place is still served.
    fn stop(self) {
        if self.gate.close() {
            self.task.abort();
        }
    }
}

fn doors(local: &Rc<Local>, sockets: Vec<WorkerSocket>) -> Result<Vec<Door>, WorkerError> {
    sockets
        .into_iter()
        .map(|socket| {
            let frontend = local.snapshot.frontends[socket.frontend].clone();
            let accept_proxy = frontend.config.binds[socket.bind].accept_proxy.clone();
            let opening = opening(&frontend, socket.bind);
            let port = Port {
                socket: match (frontend.config.mode, &opening, &accept_proxy) {
                    (Mode::Http, Opening::Plain, None) => Acceptor::fresh(socket.socket)?,
                    // They are waited for in any case, before the first byte or during it all.
                    _ => Acceptor::watching(socket.socket)?,
                },
                accept_proxy: accept_proxy.map(Arc::new),
                opening,
                keep_alive: frontend.config.keep_alive,
                limits: Rc::new(socket.limits),
                admit: admit(local, &frontend),
                gate: Rc::default(),
                metrics: frontend.metrics.clone(),
            };
            Ok((frontend, port))
        })
        .collect()
}

/// What is decided of a frontend's connections by their addresses; none where nothing is.
fn admit(local: &Rc<Local>, frontend: &Arc<Frontend>) -> Option<Admit> {
    frontend.admission.as_ref()?;
    let (local, frontend) = (local.clone(), frontend.clone());
    Some(Rc::new(move |facts| match &frontend.admission {
        Some(admission) => proxy::admit(&local, &frontend, admission, facts),
        None => Ok(None),
    }))
}

/// How connections of a bind begin.
fn opening(frontend: &Frontend, bind: usize) -> Opening {
    let timeouts = &frontend.config.timeouts;
    match &frontend.tls[bind] {
        Some(tls) => Opening::Tls {
            termination: tls.clone(),
            limit: timeouts.handshake,
            answers_http: frontend.config.mode == Mode::Http,
        },
        None if frontend.reads_client_hello => Opening::ClientHello(timeouts.client_hello),
        None => Opening::Plain,
    }
}

fn accept_at(local: &Rc<Local>, doors: Vec<Door>) -> Vec<Accepting> {
    let accept = |(frontend, port): Door| {
        let refuse = {
            let (local, frontend) = (local.clone(), frontend.clone());
            move |ended: &Unintroduced| unintroduced(&local, &frontend, ended)
        };
        let count = {
            let (local, metrics) = (local.lasting(), frontend.metrics.clone());
            move || (local.count_connection(), metrics.connection())
        };
        let local = local.clone();
        let gate = port.gate.clone();
        let task = match frontend.config.mode {
            Mode::Http => {
                // Boxed, instead of moved whole from hand to hand.
                let serve = move |connection, facts| {
                    let (local, frontend) = (local.clone(), frontend.clone());
                    let serving = boxed(|| http::serve(local, frontend, connection, facts));
                    Service::<Ready<_>, _>::Now(Box::into_pin(serving))
                };
                tokio::task::spawn_local(listener::accept(port, serve, refuse, count))
            }
            Mode::Tcp => {
                let serve = move |connection: Accepted, facts| {
                    let (local, frontend) = (local.clone(), frontend.clone());
                    match connection.into_stream() {
                        Ok(client) => {
                            let relaying = boxed(|| tcp::serve(local, frontend, client, facts));
                            Service::After(Box::into_pin(relaying))
                        }
                        // The system watches no more of them.
                        Err(_) => Service::Not,
                    }
                };
                tokio::task::spawn_local(listener::accept(port, serve, refuse, count))
            }
        };
        Accepting { task, gate }
    };
    doors.into_iter().map(accept).collect()
}

/// How often log lines go out at the latest, and how soon a drained worker notices that it is done.
const UPKEEP: Duration = Duration::from_millis(100);

/// The control side waits for the answer to each order; a drain may come on top.
const MOST_ORDERS: usize = 4;

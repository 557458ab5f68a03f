//! One worker: a thread with its own runtime, sockets, upstream connections and policy instances. Only this module knows
//! that workers are threads.

use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::config::Mode;
use crate::listener::{self, Limits, Port};
use crate::policy::Failure;
use crate::proxy::{Local, http, tcp};
use crate::snapshot::Snapshot;
use crate::telemetry::log::LineWriter;

/// What a worker is made of.
pub struct WorkerParts {
    /// Its number, from 0.
    pub index: usize,
    /// What it serves.
    pub snapshot: Arc<Snapshot>,
    /// Its sockets.
    pub sockets: Vec<WorkerSocket>,
    /// Its way to the log.
    pub log: LineWriter,
    /// What it is asked to do.
    pub orders: watch::Receiver<Order>,
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

/// What workers are asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Serve.
    Run,
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
    /// The worker ended before it was ready.
    #[error("a worker ended while it was starting")]
    Gone,
}

/// A worker that serves.
pub struct Worker {
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a worker; returns when it accepts connections.
    pub fn start(parts: WorkerParts) -> Result<Self, WorkerError> {
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{}", parts.index))
            .spawn(move || run(parts, &ready))?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(Self { thread }),
            Ok(Err(error)) => Err(error),
            Err(mpsc::RecvError) => Err(WorkerError::Gone),
        }
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

fn run(parts: WorkerParts, ready: &mpsc::Sender<Result<(), WorkerError>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error.into()));
            return;
        }
    };
    let tasks = LocalSet::new();
    let orders = parts.orders.clone();
    let started = {
        let _guard = runtime.enter();
        tasks.block_on(&runtime, async { start(parts) })
    };
    match started {
        Ok((local, accepting)) => {
            let _ = ready.send(Ok(()));
            tasks.block_on(&runtime, serve(&local, orders, accepting));
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
}

/// Starts accepting on every socket.
fn start(parts: WorkerParts) -> Result<(Rc<Local>, Vec<tokio::task::JoinHandle<()>>), WorkerError> {
    let local = Local::new(parts.snapshot, parts.index, parts.log)?;
    let mut accepting = Vec::new();
    for socket in parts.sockets {
        let frontend = local.snapshot.frontends[socket.frontend].clone();
        let port = Port {
            socket: TcpListener::from_std(socket.socket)?,
            tls: frontend.tls[socket.bind].clone(),
            limits: socket.limits,
        };
        let local = local.clone();
        let task = match frontend.config.mode {
            Mode::Http => tokio::task::spawn_local(listener::accept(port, move |stream, facts| {
                http::serve(local.clone(), frontend.clone(), stream, facts)
            })),
            Mode::Tcp => tokio::task::spawn_local(listener::accept(port, move |stream, facts| {
                tcp::serve(local.clone(), frontend.clone(), stream, facts)
            })),
        };
        accepting.push(task);
    }
    Ok((local, accepting))
}

/// Serves until told to drain, then until the last connection has ended or the deadline has come.
async fn serve(local: &Rc<Local>, mut orders: watch::Receiver<Order>, accepting: Vec<tokio::task::JoinHandle<()>>) {
    let mut upkeep = interval(UPKEEP);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut deadline = None;
    loop {
        tokio::select! {
            _ = upkeep.tick() => local.upkeep(),
            changed = orders.changed(), if deadline.is_none() => {
                deadline = Some(match *orders.borrow_and_update() {
                    Order::Drain(deadline) => deadline,
                    Order::Run if changed.is_ok() => continue,
                    // The control side is gone: so is the reason to serve.
                    Order::Run => Instant::now(),
                });
                accepting.iter().for_each(tokio::task::JoinHandle::abort);
                local.drain();
            }
        }
        if deadline.is_some_and(|deadline| local.connections() == 0 || Instant::now() >= deadline) {
            break;
        }
    }
    local.log().flush();
}

/// How often log lines go out at the latest, and how soon a drained worker notices that it is done.
const UPKEEP: Duration = Duration::from_millis(100);

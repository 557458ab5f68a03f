//! The process as a whole: opens the sockets, starts the workers, keeps the control side running (checks, echo servers,
//! metrics, signals), drains at the end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, interval};
use tracing::{info, warn};

use crate::admin;
use crate::backend::health::Checks;
use crate::backend::{Keepers, echo};
use crate::config::{Config, Mode, ServerAddress};
use crate::listener::{BindError, Limits, Listening, bind};
use crate::snapshot::{BuildErrors, Snapshot};
use crate::telemetry::log::LogSink;
use crate::telemetry::metrics::Registry;
use crate::worker::{Order, Worker, WorkerError, WorkerParts, WorkerSocket};

/// A gateway that has started.
pub struct Server {
    control: Runtime,
    workers: Vec<Worker>,
    orders: watch::Sender<Order>,
    ports: Vec<OpenPort>,
    log: LogSink,
    drain_timeout: Duration,
    /// What lives as long as the gateway serves.
    _services: Services,
}

/// Where the gateway listens.
#[derive(Debug, Clone)]
pub struct OpenPort {
    /// The address, with the port that the system chose.
    pub address: SocketAddr,
    /// What is spoken there: `http`, `https`, `tcp`, `tls` or `stats`.
    pub protocol: &'static str,
    /// The frontend; none for the stats listener.
    pub frontend: Option<Arc<str>>,
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Some addresses cannot be listened on; all of them are here.
    #[error("{}", lines(.0))]
    Bind(Vec<BindError>),
    /// The configuration cannot run here.
    #[error(transparent)]
    Build(#[from] BuildErrors),
    /// A worker does not start.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The log cannot be written to.
    #[error("cannot open the log: {0}")]
    Log(io::Error),
    /// The system refused something else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Why the gateway ended otherwise than asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A worker ended by itself: a defect of the gateway.
    #[error("a worker ended unexpectedly; see the log above")]
    WorkerLost,
    /// The system refused signals.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Guards of what runs on the control side.
struct Services {
    _echo: Vec<echo::Echo>,
    _checks: Checks,
    _keepers: Keepers,
    _admin: Vec<admin::Admin>,
}

impl Server {
    /// Opens everything and starts serving. Nothing has been accepted if this fails.
    pub fn start(config: &Config, registry: &Arc<Registry>) -> Result<Self, StartError> {
        raise_descriptor_limit();
        let workers = worker_count(config);
        let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let guard = control.enter();
        let log = LogSink::start(&config.process.log, registry.process()).map_err(StartError::Log)?;

        // Sockets last: a client that connects to one waits for its answer, and what else can fail has not by then.
        let (addresses, echo) = start_echo_servers(config)?;
        let snapshot = Arc::new(Snapshot::build(config, &addresses, registry)?);
        let (listening, admin) = open(config, workers, registry)?;
        let checks = Checks::start(&snapshot.backends);
        let keepers = Keepers::start(config, &snapshot.backends);

        let mut ports = Vec::new();
        ports.extend(open_ports(config, &listening));
        ports.extend(
            admin
                .iter()
                .flat_map(|admin| admin.addresses())
                .map(|address| OpenPort {
                    address: *address,
                    protocol: "stats",
                    frontend: None,
                }),
        );

        let (orders, receiver) = watch::channel(Order::Run);
        let mut parts = distribute(config, listening, workers);
        let mut started = Vec::new();
        for (index, sockets) in parts.drain(..).enumerate() {
            started.push(Worker::start(WorkerParts {
                index,
                snapshot: snapshot.clone(),
                sockets,
                log: log.writer(),
                orders: receiver.clone(),
            })?);
        }
        drop(guard);
        Ok(Self {
            control,
            workers: started,
            orders,
            ports,
            log,
            drain_timeout: config.process.drain_timeout,
            _services: Services {
                _echo: echo,
                _checks: checks,
                _keepers: keepers,
                _admin: admin,
            },
        })
    }

    /// Where the gateway listens, in the order of the configuration; the stats listener last.
    pub fn ports(&self) -> &[OpenPort] {
        &self.ports
    }

    /// Serves until SIGTERM or SIGINT, then drains: accepts no more, lets exchanges end, and stops when the last one has
    /// ended, after `process { drain-timeout }` at the latest, or at a second signal.
    pub fn run(self) -> Result<(), RunError> {
        let Self {
            control,
            workers,
            orders,
            log,
            drain_timeout,
            ..
        } = self;
        let outcome = control.block_on(async {
            let mut signals = Signals::new()?;
            wait(&mut signals, &workers).await?;
            info!("draining for up to {drain_timeout:?}; a second signal ends at once");
            // A send fails only when all workers are gone, and then there is nothing to drain.
            let _ = orders.send(Order::Drain(Instant::now() + drain_timeout));
            drained(&mut signals, &workers).await;
            Ok(())
        });
        drop(orders);
        let finished = workers.iter().all(Worker::is_finished);
        if finished {
            let clean = workers.into_iter().map(Worker::join).filter(|clean| !clean).count() == 0;
            drop(log);
            return outcome.and(if clean { Ok(()) } else { Err(RunError::WorkerLost) });
        }
        warn!("ended with connections still open");
        drop(log);
        outcome
    }
}

impl fmt::Display for OpenPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.address)?;
        match &self.frontend {
            Some(frontend) => write!(f, " (frontend {frontend})"),
            None => Ok(()),
        }
    }
}

/// The signals that end the gateway.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for a signal, and looks after the workers meanwhile.
async fn wait(signals: &mut Signals, workers: &[Worker]) -> Result<(), RunError> {
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            () = signals.next() => return Ok(()),
            _ = look.tick() => if workers.iter().any(Worker::is_finished) {
                return Err(RunError::WorkerLost);
            },
        }
    }
}

/// Waits for the workers to end, or for another signal.
async fn drained(signals: &mut Signals, workers: &[Worker]) {
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            () = signals.next() => return,
            _ = look.tick() => if workers.iter().all(Worker::is_finished) {
                return;
            },
        }
    }
}

fn worker_count(config: &Config) -> usize {
    match config.process.workers {
        Some(workers) => workers.get(),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// Opens every bind, or says all that went wrong.
fn open(
    config: &Config,
    workers: usize,
    registry: &Arc<Registry>,
) -> Result<(Vec<Vec<Listening>>, Vec<admin::Admin>), StartError> {
    let mut errors = Vec::new();
    let mut try_bind = |address| bind(address, workers).map_err(|error| errors.push(error)).ok();
    let frontends = config
        .frontends
        .iter()
        .map(|frontend| frontend.binds.iter().filter_map(|at| try_bind(at.address)).collect())
        .collect();
    let mut services = Vec::new();
    for address in config.stats.iter().flat_map(|stats| &stats.binds) {
        match admin::serve(&[*address], registry) {
            Ok(admin) => services.push(admin),
            Err(source) => errors.push(BindError {
                address: *address,
                source,
            }),
        }
    }
    if errors.is_empty() {
        Ok((frontends, services))
    } else {
        Err(StartError::Bind(errors))
    }
}

/// Starts the built-in servers; answers where every server is.
fn start_echo_servers(config: &Config) -> io::Result<(Vec<Vec<SocketAddr>>, Vec<echo::Echo>)> {
    let mut running = Vec::new();
    let mut addresses = Vec::new();
    for backend in &config.backends {
        let mut servers = Vec::new();
        for server in &backend.servers {
            servers.push(match server.address {
                ServerAddress::Socket(address) => address,
                ServerAddress::Echo => {
                    let (address, echo) = echo::start(backend.mode, &server.name)?;
                    running.push(echo);
                    address
                }
            });
        }
        addresses.push(servers);
    }
    Ok((addresses, running))
}

fn open_ports(config: &Config, listening: &[Vec<Listening>]) -> Vec<OpenPort> {
    let of_frontend = |(frontend, open): (&crate::config::Frontend, &Vec<Listening>)| {
        let name = frontend.name.clone();
        let mode = frontend.mode;
        frontend
            .binds
            .iter()
            .zip(open)
            .map(|(bind, open)| OpenPort {
                address: open.address,
                protocol: match (mode, bind.tls.is_some()) {
                    (Mode::Http, false) => "http",
                    (Mode::Http, true) => "https",
                    (Mode::Tcp, false) => "tcp",
                    (Mode::Tcp, true) => "tls",
                },
                frontend: Some(name.clone()),
            })
            .collect::<Vec<_>>()
    };
    config.frontends.iter().zip(listening).flat_map(of_frontend).collect()
}

/// Gives every worker its socket of every bind.
fn distribute(config: &Config, listening: Vec<Vec<Listening>>, workers: usize) -> Vec<Vec<WorkerSocket>> {
    let process = Arc::new(Semaphore::new(config.process.max_connections));
    let mut sockets: Vec<Vec<WorkerSocket>> = (0..workers).map(|_| Vec::new()).collect();
    for (frontend, binds) in listening.into_iter().enumerate() {
        let limits = Limits {
            process: process.clone(),
            frontend: config.frontends[frontend]
                .max_connections
                .map(|max| Arc::new(Semaphore::new(max))),
        };
        for (bind, open) in binds.into_iter().enumerate() {
            for (worker, socket) in sockets.iter_mut().zip(open.sockets) {
                worker.push(WorkerSocket {
                    frontend,
                    bind,
                    socket,
                    limits: limits.clone(),
                });
            }
        }
    }
    sockets
}

/// Each connection takes two descriptors; the soft limit of most systems, 1024, is for programs that use `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "cannot raise the limit on open files");
    }
}

fn lines(errors: &[BindError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// How often the control side looks after the workers.
const LOOK: Duration = Duration::from_millis(50);

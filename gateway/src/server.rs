//! The process as a whole: opens the sockets, starts the workers, keeps the control side running (checks, echo servers,
//! metrics, signals), takes up a changed configuration when asked to, drains at the end.

mod aside;
mod attempt;
mod descriptors;
mod error;
mod faults;
mod identity;
mod notify;
mod pid_file;
mod places;
mod reload;
mod signals;
mod sockets;

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::address::Address;
use crate::admin::AdminServer;
use crate::backend::Keepers;
use crate::backend::health::Checks;
use crate::backend::resolve::Names;
use crate::certificates::Watcher;
use crate::config::Config;
use crate::snapshot::Snapshot;
use crate::telemetry::log::LogSinks;
use crate::telemetry::metrics::Registry;
use crate::telemetry::trace::TraceSink;
use crate::worker::{Worker, WorkerError, WorkerParts};

use attempt::Built;
pub use error::{Faults, RunError, StartError};
pub use faults::check;
use identity::Identity;
pub use identity::IdentityError;
use notify::Notifier;
use pid_file::PidFile;
use places::EchoServers;
pub use reload::ConfigSource;
use signals::{Asked, Signals};
use sockets::Sockets;

/// A gateway that has started.
pub struct Server {
    control: Runtime,
    gateway: Gateway,
    signals: Signals,
    notifier: Notifier,
}

/// All of it but the runtime that its control side lives on.
struct Gateway {
    workers: Vec<Worker>,
    log: LogSinks,
    traces: Option<TraceSink>,
    registry: Arc<Registry>,
    sockets: Sockets,
    admin: Option<AdminServer>,
    _pid_file: Option<PidFile>,
    running: Running,
}

/// What runs under one configuration.
struct Running {
    config: Arc<Config>,
    snapshot: Arc<Snapshot>,
    echo: EchoServers,
    /// None only while a reload changes them.
    services: Option<Services>,
}

/// What the control side does for a configuration; ends when it is dropped.
struct Services {
    _names: Names,
    _checks: Checks,
    _keepers: Keepers,
    _certificates: Option<Watcher>,
}

/// Where the gateway listens.
#[derive(Debug, Clone)]
pub struct OpenPort {
    /// The address, with the port that the system chose.
    pub address: Address,
    /// What is spoken there: `http`, `https`, `tcp`, `tls` or `stats`.
    pub protocol: &'static str,
    /// The frontend; none for the stats listener.
    pub frontend: Option<Arc<str>>,
}

impl Server {
    /// Opens everything and starts serving what `source` has loaded as `config`. Nothing has been accepted if this fails.
    pub fn start(
        config: Config,
        registry: &Arc<Registry>,
        log: LogSinks,
        source: &mut dyn ConfigSource,
    ) -> Result<Self, StartError> {
        let workers = config.process.worker_threads();
        let identity = Identity::of(&config.process).map_err(|errors| StartError::Faults(Faults(errors)))?;
        let refused = |error| StartError::Faults(Faults(vec![error]));
        identity.is_possible(&config.process).map_err(refused)?;
        let notifier = Notifier::from_env();
        let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let guard = control.enter();
        // Before anybody is told that it is ready: a signal that came sooner would end it.
        let mut signals = Signals::new()?;

        // Sockets last: a client that connects to one waits for its answer, and what else can fail has not by then.
        let built = control.block_on(async {
            tokio::select! {
                built = attempt::build(config, workers, registry, None, source) => Some(built),
                () = signals.end_at_once() => None,
            }
        });
        let Some(built) = built else {
            drop(guard);
            // What is compiled yet is of no interest, and nobody waits for it.
            control.shutdown_background();
            return Err(StartError::Ended);
        };
        let Built { config, snapshot, echo } = built?;
        let mut sockets = Sockets::new(workers, &config, registry);
        let opened = sockets.open(&config).map_err(StartError::Faults)?;
        for address in sockets.inherited().left() {
            warn!(%address, "a socket was handed to the gateway that no `bind` names");
        }
        let mut names = Names::start(&config, &snapshot.backends);
        control.block_on(names.settle());
        let mut pid_file = match &config.process.pid_file {
            Some(path) => {
                Some(PidFile::write(&path.value).map_err(|error| refused(faults::of_pid_file(path, &error)))?)
            }
            None => None,
        };
        let admin = match &config.process.admin {
            Some(socket) => Some(
                AdminServer::open(socket, &config, &snapshot.backends, registry)
                    .map_err(|error| refused(faults::of_admin_socket(socket, &error)))?,
            ),
            None => None,
        };
        // All that takes root, or a path outside the new root, is done; no worker runs yet.
        identity.assume()?;
        if let Some(root) = identity.root() {
            opened.enter(root);
            admin.iter().for_each(|admin| admin.enter(root));
            pid_file.iter_mut().for_each(|file| file.enter(root));
        }
        snapshot.adopt();
        let services = Services::start(&config, &snapshot, names);

        let traces = match (&config.process.tracing, &snapshot.collector) {
            (Some(tracing), Some(collector)) => Some(TraceSink::start(tracing, collector.clone(), registry.process())?),
            _ => None,
        };
        let mut started = Vec::new();
        // Beside this thread, whose checks and names go on meanwhile.
        let warming = {
            let snapshot = snapshot.clone();
            tokio::task::spawn_blocking(move || snapshot.warm(workers))
        };
        let warmed = control.block_on(async {
            tokio::select! {
                warmed = warming => Some(warmed),
                () = signals.end_at_once() => None,
            }
        });
        let Some(warmed) = warmed else {
            drop(guard);
            control.shutdown_background();
            return Err(StartError::Ended);
        };
        let warm = warmed.map_err(io::Error::other)?.map_err(WorkerError::Policy)?;
        let sockets_of_workers = sockets.distribute(&config, &opened)?;
        for (index, (sockets, warm)) in sockets_of_workers.into_iter().zip(warm).enumerate() {
            started.push(Worker::start(WorkerParts {
                index,
                snapshot: snapshot.clone(),
                warm,
                sockets,
                log: log.writers(),
                tracer: traces.as_ref().map(TraceSink::tracer),
            })?);
        }
        sockets.keep(opened, &config, &snapshot.backends);
        source.taken_up();
        aside::tell(&config);
        drop(guard);
        let gateway = Gateway {
            workers: started,
            log,
            traces,
            registry: registry.clone(),
            sockets,
            admin,
            _pid_file: pid_file,
            running: Running {
                config,
                snapshot,
                echo,
                services: Some(services),
            },
        };
        Ok(Self {
            control,
            gateway,
            signals,
            notifier,
        })
    }

    /// What the gateway runs by.
    pub fn config(&self) -> &Config {
        &self.gateway.running.config
    }

    /// Where the gateway listens, in the order of the configuration; the stats listener last.
    pub fn ports(&self) -> Vec<OpenPort> {
        self.gateway.sockets.ports(&self.gateway.running.config)
    }

    /// Serves until SIGTERM or SIGINT, then drains: accepts no more, lets exchanges end, and stops when the last one has
    /// ended, after `process { drain-timeout }` at the latest, or at a second signal.
    ///
    /// At SIGHUP it takes the configuration from `source` again: all of it, or, when anything is wrong with it, nothing.
    pub fn run(self, source: &mut dyn ConfigSource) -> Result<(), RunError> {
        let Self {
            control,
            mut gateway,
            mut signals,
            mut notifier,
        } = self;
        let outcome = control.block_on(async {
            notifier.ready(SERVING);
            gateway.serve(&mut signals, &mut notifier, source).await?;
            let drain_timeout = gateway.running.config.process.drain_timeout;
            info!("draining for up to {drain_timeout:?}; a second SIGTERM or SIGINT ends at once");
            notifier.stopping();
            gateway.sockets.close();
            for worker in &gateway.workers {
                worker.drain(Instant::now() + drain_timeout).await;
            }
            drained(&mut signals, &gateway.workers).await;
            Ok(())
        });
        // A reload that was given up may still compile something: nobody waits for that.
        control.shutdown_background();
        let Gateway {
            workers,
            log,
            traces,
            _pid_file,
            ..
        } = gateway;
        let finished = workers.iter().all(Worker::is_finished);
        if finished {
            let clean = workers.into_iter().map(Worker::join).filter(|clean| !clean).count() == 0;
            drop(traces);
            drop(log);
            return outcome.and(if clean { Ok(()) } else { Err(RunError::WorkerLost) });
        }
        warn!("ended with connections still open");
        drop(traces);
        drop(log);
        outcome
    }
}

impl Gateway {
    /// Waits for the signal to end, reloads when asked to, and looks after the workers meanwhile.
    async fn serve(
        &mut self,
        signals: &mut Signals,
        notifier: &mut Notifier,
        source: &mut dyn ConfigSource,
    ) -> Result<(), RunError> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut prune = interval(PRUNE);
        prune.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::End => return Ok(()),
                    Asked::Reload => {
                        notifier.reloading();
                        let taken_up = loop {
                            let pulses: Vec<_> = self.workers.iter().map(Worker::pulse).collect();
                            let mut reload = pin!(self.reload(source));
                            let taken_up = loop {
                                tokio::select! {
                                    taken_up = &mut reload => break taken_up,
                                    // What a reload has begun is of no interest to a gateway that ends.
                                    () = signals.end() => return Ok(()),
                                    // Compiling takes its time, and traffic goes on.
                                    _ = look.tick() => notifier.watchdog(|| {
                                        pulses.iter().filter(|pulse| !pulse.has_turned()).count() == 0
                                    }),
                                }
                            };
                            // The file may have changed since it was read.
                            if !std::mem::take(&mut signals.again) {
                                break taken_up;
                            }
                        };
                        notifier.ready(if taken_up { SERVING } else { SERVING_STILL });
                    }
                },
                // What the last sessions of an earlier configuration have left.
                _ = prune.tick() => self.registry.prune(),
                _ = look.tick() => {
                    if self.workers.iter().any(Worker::is_finished) {
                        return Err(RunError::WorkerLost);
                    }
                    // Every worker is asked, each time: what it has done counts once.
                    let workers = &self.workers;
                    let beat = || workers.iter().filter(|worker| !worker.pulse().has_turned()).count() == 0;
                    notifier.watchdog(beat);
                }
            }
        }
    }
}

impl Services {
    /// Has to be called inside the control runtime.
    fn start(config: &Config, snapshot: &Snapshot, names: Names) -> Self {
        Self {
            _names: names,
            _checks: Checks::start(&snapshot.backends),
            _keepers: Keepers::start(config, &snapshot.backends),
            _certificates: Watcher::start(snapshot.watched()),
        }
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

/// Waits for the workers to end, or for another signal.
async fn drained(signals: &mut Signals, workers: &[Worker]) {
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            () = signals.insist() => return,
            _ = look.tick() => if workers.iter().all(Worker::is_finished) {
                return;
            },
        }
    }
}

/// Ten thousand connections are some tens of megabytes in pieces of a kilobyte. Huge pages under them save no time that could be
/// measured, and make the process larger by what is free in each. To be called before anything is allocated that lasts. Systems
/// that cannot say so go on as they are.
pub fn prefer_small_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Sees to it that there may be as many open files as `config` takes.
fn fit(config: &mut Config, workers: usize) -> Result<(), StartError> {
    descriptors::fit(config, workers).map_err(|error| StartError::Faults(Faults(vec![error])))
}

/// What the service manager shows.
const SERVING: &str = "serving";

/// The same after a reload that came to nothing. `systemctl reload` is over before the gateway has tried, and can only say that a
/// signal was sent.
const SERVING_STILL: &str = "serving what it did; the last reload was refused: see the log";

/// How often the control side looks after the workers.
const LOOK: Duration = Duration::from_millis(50);

/// How soon the metrics of what is gone are forgotten.
const PRUNE: Duration = Duration::from_secs(1);

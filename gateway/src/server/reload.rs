//! Taking up a changed configuration: built and made ready beside the one that serves, then swapped, or refused whole.
//!
//! What is under way goes on under the configuration it began with: a TCP session to its end, an HTTP exchange to its
//! response. An HTTP connection lives on, and its next request is served by the new one. What stays configured keeps its
//! sockets, health, counts and token buckets.

use std::sync::Arc;

use tracing::{error, info};

use super::{Gateway, Running, Services, StartError, fit, places};
use crate::backend::Place;
use crate::backend::resolve::Names;
use crate::config::{AdminSocket, At, Config, Log, NamedLog, Process};
use crate::snapshot::Snapshot;
use crate::worker::WorkerSocket;

/// Where a configuration comes from when the gateway is told to reload, and who hears why it was refused.
pub trait ConfigSource {
    /// Reads it again. None when that fails; then whoever has to know has been told.
    fn load(&mut self) -> Option<Config>;

    /// What was loaded last cannot run.
    fn refused(&mut self, why: Refused);
}

/// Why a configuration that is valid was not taken up.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It cannot run here.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It changes what is settled when the process starts.
    #[error("`process` has changed in more than `max-connections` and `drain-timeout`: that takes a restart")]
    Process,
}

impl Gateway {
    /// Takes up what `source` has now, or tells it why not.
    pub(super) async fn reload(&mut self, source: &mut dyn ConfigSource) {
        let process = self.registry.process().clone();
        let Some(config) = source.load() else {
            process.reloaded(false);
            error!("reload refused: the configuration is not valid; the one before stays");
            return;
        };
        match self.take_up(config).await {
            Ok(()) => {
                process.reloaded(true);
                let snapshot = &self.running.snapshot;
                info!(
                    frontends = snapshot.frontends.len(),
                    backends = snapshot.backends.len(),
                    "reloaded"
                );
            }
            Err(why) => {
                process.reloaded(false);
                error!("reload refused: {why}; the configuration before stays");
                source.refused(why);
            }
        }
    }

    async fn take_up(&mut self, mut config: Config) -> Result<(), Refused> {
        if !is_same_process(&config.process, &self.running.config.process) {
            return Err(Refused::Process);
        }
        fit(&mut config, self.workers.len())?;
        // What an earlier refusal left to be given back may be needed now.
        self.forget().await;
        let config = Arc::new(config);
        let running = Some(&*self.running.snapshot);
        let (places, echo) = places(&config, &self.running.echo, running).map_err(StartError::Io)?;
        let snapshot = self.build(&config, places).await?;
        let opened = self.sockets.open(&config).map_err(StartError::Faults)?;
        let sockets = self.sockets.distribute(&config, &opened).map_err(StartError::Io)?;
        self.prepare(&snapshot, sockets).await?;

        // Nothing can fail from here on. Names that are new have their addresses before anything is sent to them; the checks of
        // before end before what is adopted, lest they take it back.
        let mut names = Names::start(&config, &snapshot.backends);
        names.settle().await;
        self.running.services = None;
        snapshot.adopt();
        let services = Services::start(&config, &snapshot, names);
        for worker in &self.workers {
            worker.switch().await;
        }
        let before = self.sockets.ports(&self.running.config);
        self.sockets.keep(opened, &config, &snapshot.backends);
        for port in self.sockets.ports(&config) {
            if !before.iter().any(|known| known.address == port.address) {
                info!("listening on {port}");
            }
        }
        if let Some(admin) = &self.admin {
            admin.take_up(&snapshot.backends);
        }
        let before = std::mem::replace(
            &mut self.running,
            Running {
                config,
                snapshot,
                echo,
                services: Some(services),
            },
        );
        drop(before);
        Ok(())
    }

    /// Makes every worker ready, or none.
    async fn prepare(&self, snapshot: &Arc<Snapshot>, sockets: Vec<Vec<WorkerSocket>>) -> Result<(), StartError> {
        for (worker, sockets) in self.workers.iter().zip(sockets) {
            if let Err(error) = worker.prepare(snapshot.clone(), sockets).await {
                self.forget().await;
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn forget(&self) {
        for worker in &self.workers {
            worker.forget().await;
        }
    }

    /// Builds a snapshot on a thread of its own: components take their time to compile, and checks and signals go on.
    async fn build(&self, config: &Arc<Config>, places: Vec<Vec<Place>>) -> Result<Arc<Snapshot>, StartError> {
        let (config, registry) = (config.clone(), self.registry.clone());
        let previous = self.running.snapshot.clone();
        let built =
            tokio::task::spawn_blocking(move || Snapshot::build(&config, places, &registry, Some(&previous))).await;
        match built {
            Ok(built) => Ok(Arc::new(built?)),
            // A panic while building, which is a defect: what serves goes on.
            Err(error) => Err(StartError::Io(std::io::Error::other(error))),
        }
    }
}

/// Whether two `process` blocks differ in nothing that is settled at the start.
fn is_same_process(new: &Process, old: &Process) -> bool {
    let settled = |process: &Process| Process {
        max_connections: 0,
        drain_timeout: std::time::Duration::ZERO,
        max_connections_at: None,
        user: process.user.clone().map(anywhere),
        group: process.group.clone().map(anywhere),
        chroot: process.chroot.clone().map(anywhere),
        pid_file: process.pid_file.clone().map(anywhere),
        log: Log {
            // It may have moved to another line.
            origin: None,
            ..process.log.clone()
        },
        named_logs: process.named_logs.iter().cloned().map(elsewhere).collect(),
        admin: process
            .admin
            .clone()
            .map(|socket| AdminSocket { origin: None, ..socket }),
        ..process.clone()
    };
    settled(new) == settled(old)
}

/// A log without its place.
fn elsewhere(named: NamedLog) -> NamedLog {
    let log = Log {
        origin: None,
        ..named.log
    };
    NamedLog { log, ..named }
}

/// A value without its place, which may have changed.
fn anywhere<T>(value: At<T>) -> At<T> {
    At {
        span: (0, 0).into(),
        ..value
    }
}

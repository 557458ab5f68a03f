//! Taking up a changed configuration: built and made ready beside the one that serves, then swapped, or refused whole.
//!
//! What is under way goes on under the configuration it began with: a TCP session to its end, an HTTP exchange to its
//! response. An HTTP connection lives on, and its next request is served by the new one. What stays configured keeps its
//! sockets, health, counts and token buckets.

use std::sync::Arc;

use miette::SourceSpan;
use tracing::{error, info, warn};

use super::attempt::{self, Built};
use super::{Faults, Gateway, Running, Services, StartError, aside};
use crate::backend::resolve::Names;
use crate::config::{AdminSocket, At, Code, CompileLimits, Config, ConfigError, Log, NamedLog, PolicyPool, Process};
use crate::policy::Warm;
use crate::snapshot::{BuildErrors, Snapshot};
use crate::worker::{WorkerError, WorkerSocket};

/// Where a configuration comes from when the gateway is told to reload, and who hears why it was refused.
pub trait ConfigSource {
    /// Reads it again. None when that fails; then whoever has to know has been told.
    fn load(&mut self) -> Option<Config>;

    /// What was loaded last, without the files of the tenants that are to blame for these errors. None where these errors are not theirs
    /// alone.
    fn without(&mut self, errors: &BuildErrors) -> Option<Config>;

    /// What was loaded last is in force.
    fn taken_up(&mut self);

    /// What was loaded last cannot run.
    fn refused(&mut self, why: StartError);
}

impl Gateway {
    /// Takes up what `source` has now, or tells it why not. Whether it was taken up.
    pub(super) async fn reload(&mut self, source: &mut dyn ConfigSource) -> bool {
        let process = self.registry.process().clone();
        let Some(config) = source.load() else {
            process.reloaded(false);
            match self.running.config.process.chroot {
                None => error!("reload refused: the configuration is not valid; the one before stays"),
                // Its path most likely leads nowhere now.
                Some(_) => error!(
                    "reload refused: the configuration is not valid, or not there in the new root after `chroot`; the one \
                     before stays"
                ),
            }
            return false;
        };
        let taken_up = self.take_up(config, source).await;
        let is_taken_up = taken_up.is_ok();
        process.reloaded(is_taken_up);
        match taken_up {
            Ok(()) => {
                source.taken_up();
                let snapshot = &self.running.snapshot;
                let (frontends, backends) = (snapshot.frontends.len(), snapshot.backends.len());
                match aside::tell(&self.running.config) {
                    0 => info!(frontends, backends, "reloaded"),
                    tenants => warn!(
                        frontends,
                        backends, tenants, "reloaded, but for the files of some tenants"
                    ),
                }
            }
            Err(why) => {
                error!("reload refused: {why}; the configuration before stays");
                source.refused(why);
            }
        }
        is_taken_up
    }

    async fn take_up(&mut self, config: Config, source: &mut dyn ConfigSource) -> Result<(), StartError> {
        settled(&config.process, &self.running.config.process)?;
        // What an earlier refusal left to be given back may be needed now.
        self.forget().await;
        let Built { config, snapshot, echo } =
            attempt::build(config, self.workers.len(), &self.registry, Some(&self.running), source).await?;
        let opened = self.sockets.open(&config).map_err(StartError::Faults)?;
        let sockets = self.sockets.distribute(&config, &opened).map_err(StartError::Io)?;
        let warm = self.warm(&snapshot).await?;
        self.prepare(&snapshot, warm, sockets).await?;

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
            admin.take_up(&config, &snapshot.backends);
        }
        if let (Some(traces), Some(collector)) = (&self.traces, &snapshot.collector) {
            traces.use_collector(collector.clone());
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
    async fn prepare(
        &self,
        snapshot: &Arc<Snapshot>,
        warm: Vec<Warm>,
        sockets: Vec<Vec<WorkerSocket>>,
    ) -> Result<(), StartError> {
        for ((worker, warm), sockets) in self.workers.iter().zip(warm).zip(sockets) {
            if let Err(error) = worker.prepare(snapshot.clone(), warm, sockets).await {
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

    /// Makes what the workers begin with, likewise on a thread of its own.
    async fn warm(&self, snapshot: &Arc<Snapshot>) -> Result<Vec<Warm>, StartError> {
        // What is not used any more gives its instances back first.
        self.forget().await;
        let (snapshot, workers) = (snapshot.clone(), self.workers.len());
        match tokio::task::spawn_blocking(move || snapshot.warm(workers)).await {
            Ok(warm) => Ok(warm.map_err(WorkerError::Policy)?),
            // A panic, which is a defect: what serves goes on.
            Err(error) => Err(StartError::Io(std::io::Error::other(error))),
        }
    }
}

/// Refuses what changes of `process` that is settled at the start.
fn settled(new: &Process, old: &Process) -> Result<(), StartError> {
    let changed = changed(new, old);
    if changed.is_empty() {
        return Ok(());
    }
    let mut names: Vec<_> = changed.iter().map(|(name, _)| format!("`{name}`")).collect();
    names.dedup();
    let message = format!("{} in `process` has changed, which takes a restart", names.join(", "));
    let error = ConfigError::new(Code::System, message);
    let error = match changed.iter().find_map(|(_, at)| *at) {
        Some(span) => error.label(span, "was not so at the start"),
        None => error,
    };
    let error = error.help(
        "restart the gateway, or take this back: of `process` a reload takes up `max-connections`, `drain-timeout` and, of `policy`, `cpu`, `heavy-threads` and `slow-call`",
    );
    Err(StartError::Faults(Faults(vec![error])))
}

/// Nodes of `process` that say something else than they did, but those that a reload takes up; and where they stand, when that is
/// known and there is something.
fn changed(new: &Process, old: &Process) -> Vec<(&'static str, Option<SourceSpan>)> {
    // Every field has to be thought of here: one that is new does not compile.
    let Process {
        workers,
        max_connections: _,
        max_connections_at: _,
        user,
        group,
        chroot,
        pid_file,
        log,
        named_logs,
        tracing,
        policy,
        compile_cache,
        max_buckets,
        admin,
        drain_timeout: _,
    } = new;
    let logs = |process: &Process| -> Vec<NamedLog> { process.named_logs.iter().cloned().map(elsewhere).collect() };
    let socket = |process: &Process| {
        let socket = process.admin.clone();
        socket.map(|socket| AdminSocket { origin: None, ..socket })
    };
    let of_log = |log: &Log| log.origin.as_ref().map(|origin| origin.span);
    let nodes = [
        ("workers", *workers != old.workers, None),
        ("user", !is_same(user, &old.user), span(user)),
        ("group", !is_same(group, &old.group), span(group)),
        ("chroot", !is_same(chroot, &old.chroot), span(chroot)),
        ("pid-file", !is_same(pid_file, &old.pid_file), span(pid_file)),
        ("log", nowhere(log) != nowhere(&old.log), of_log(log)),
        (
            "log",
            logs(new) != logs(old),
            named_logs.first().and_then(|named| of_log(&named.log)),
        ),
        (
            "tracing",
            match (tracing, &old.tracing) {
                (Some(new), Some(old)) => !new.is_same(old),
                (new, old) => new.is_some() != old.is_some(),
            },
            tracing.as_ref().map(|tracing| tracing.origin.span),
        ),
        ("policy", pool(policy) != pool(&old.policy), None),
        ("compile-cache", *compile_cache != old.compile_cache, None),
        ("rate-limit-table", *max_buckets != old.max_buckets, None),
        (
            "admin",
            socket(new) != socket(old),
            admin.as_ref().and_then(|socket| Some(socket.origin.as_ref()?.span)),
        ),
    ];
    let changed = nodes.into_iter().filter(|(_, changed, _)| *changed);
    changed.map(|(name, _, at)| (name, at)).collect()
}

/// What of `policy` is settled when the component host is made.
fn pool(policy: &PolicyPool) -> (u32, [u64; 3], usize, CompileLimits) {
    let PolicyPool {
        instances,
        memory,
        total_memory,
        host_memory,
        answers,
        heavy_threads: _,
        slow_call: _,
        cpu: _,
        compile,
    } = *policy;
    (instances, [memory, total_memory, host_memory], answers, compile)
}

/// Whether two values are the same, wherever they stand.
fn is_same<T: PartialEq>(new: &Option<At<T>>, old: &Option<At<T>>) -> bool {
    new.as_ref().map(|new| &new.value) == old.as_ref().map(|old| &old.value)
}

fn span<T>(value: &Option<At<T>>) -> Option<SourceSpan> {
    value.as_ref().map(|value| value.span)
}

/// A log without its place, which may have changed.
fn nowhere(log: &Log) -> Log {
    Log {
        origin: None,
        ..log.clone()
    }
}

fn elsewhere(named: NamedLog) -> NamedLog {
    NamedLog {
        log: nowhere(&named.log),
        ..named
    }
}

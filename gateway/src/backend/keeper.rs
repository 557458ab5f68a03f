//! What backends need while they run beside their checks: servers that came back warm up, and take who
//! waits; the sessions of those that went down end where `on-marked-down` says so, and those of backups when a server comes back
//! whose `on-marked-up` says so.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Backend, Ended};
use crate::config::{self, SessionEnd};

/// The upkeep of a set of backends, running until this is dropped.
#[derive(Debug)]
#[must_use = "the upkeep stops when this is dropped"]
pub struct Keepers {
    /// Dropping it ends the tasks.
    _tasks: JoinSet<()>,
}

impl Keepers {
    /// Starts the upkeep of those backends that need it. Has to be called inside the control runtime.
    pub fn start(config: &config::Config, backends: &[Arc<Backend>]) -> Self {
        let mut tasks = JoinSet::new();
        for (backend, configured) in backends.iter().zip(&config.backends) {
            let warms = configured.servers.iter().any(|server| server.slow_start.is_some());
            let ends = configured
                .servers
                .iter()
                .any(|server| server.session_end == SessionEnd::WhenDown || server.relieves_backups);
            if warms || ends || configured.outlier.is_some() || backend.has_queue() {
                tasks.spawn(keep(Arc::clone(backend)));
            }
        }
        Self { _tasks: tasks }
    }
}

impl Backend {
    /// Ends the sessions of backups: a server is back whose `on-marked-up` says so.
    fn relieve_backups(&self) {
        let backups = self.servers.iter().filter(|server| server.is_backup());
        let sessions: usize = backups.map(|server| server.end_sessions(Ended::Relieved)).sum();
        if sessions > 0 {
            tracing::info!(
                backend = &*self.name,
                sessions,
                "sessions of backups end: a server is back"
            );
        }
    }

    /// Takes back the servers whose time of ejection is over. Answers when the next one's is.
    fn take_back(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for server in self.servers.iter().filter(|server| server.may_be_ejected()) {
            match server.metrics.ejected_until() {
                Some(until) if until <= now => {
                    server.metrics.take_back();
                    let (backend, server) = (&*self.name, &*server.name);
                    tracing::info!(backend, server, "server is no longer ejected");
                }
                Some(until) => next = Some(next.map_or(until, |next| next.min(until))),
                None => {}
            }
        }
        next
    }
}

async fn keep(backend: Arc<Backend>) {
    let mut changes = backend.metrics.changes();
    let mut in_service: Vec<_> = backend.servers.iter().map(|server| server.is_in_service()).collect();
    loop {
        let mut are_relieved = false;
        for (server, was_in_service) in backend.servers.iter().zip(&mut in_service) {
            let is_in_service = server.is_in_service();
            if *was_in_service && !is_in_service && server.session_end == SessionEnd::WhenDown {
                server.end_sessions(Ended::Down);
            }
            // One that was drained, or had no weight, was there all the time: its backups stood in for nobody who died. One that comes
            // back without taking work relieves nobody yet, and later weight is no return.
            are_relieved |= !*was_in_service && is_in_service && server.is_usable() && server.relieves_backups;
            *was_in_service = is_in_service;
        }
        if are_relieved {
            backend.relieve_backups();
        }
        // Every server is looked at, whichever came first.
        let warming = backend.servers.iter().filter(|server| server.metrics.warm()).count();
        // One that came up, or has more weight, may have room.
        backend.dispatch();
        let next = backend.take_back(Instant::now());
        if warming > 0 {
            sleep(STEP).await;
            continue;
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}

/// How often the share of a server that warms up grows: far below the seconds that slow starts take.
const STEP: Duration = Duration::from_millis(100);

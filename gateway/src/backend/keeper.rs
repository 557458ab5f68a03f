//! What backends need while they run beside their checks: servers that came back warm up, and take who
//! waits; the sessions of those that went down end where `on-marked-down` says so.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

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
                .any(|server| server.session_end == SessionEnd::WhenDown);
            if warms || ends || backend.has_queue() {
                tasks.spawn(keep(Arc::clone(backend)));
            }
        }
        Self { _tasks: tasks }
    }
}

async fn keep(backend: Arc<Backend>) {
    let mut changes = backend.metrics.changes();
    let mut in_service: Vec<_> = backend.servers.iter().map(|server| server.is_in_service()).collect();
    loop {
        for (server, was_in_service) in backend.servers.iter().zip(&mut in_service) {
            let is_in_service = server.is_in_service();
            if *was_in_service && !is_in_service && server.session_end == SessionEnd::WhenDown {
                server.end_sessions(Ended::Down);
            }
            *was_in_service = is_in_service;
        }
        // Every server is looked at, whichever came first.
        let warming = backend.servers.iter().filter(|server| server.metrics.warm()).count();
        // One that came up, or has more weight, may have room.
        backend.dispatch();
        if warming > 0 {
            sleep(STEP).await;
        } else if changes.changed().await.is_err() {
            return;
        }
    }
}

/// How often the share of a server that warms up grows: far below the seconds that slow starts take.
const STEP: Duration = Duration::from_millis(100);

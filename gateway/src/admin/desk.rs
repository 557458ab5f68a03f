//! What the stats listeners go by: who is answered, and with what. Shared by all of them, and replaced by a reload.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;

use super::login::Logins;
use crate::backend::Backend;
use crate::config::{self, Config, Mode};
use crate::proxy;
use crate::telemetry::metrics::Registry;

/// Where the stats listeners ask.
pub struct Desk {
    pub(super) registry: Arc<Registry>,
    current: ArcSwapOption<Current>,
    is_ending: AtomicBool,
    /// Passwords that are tried at once: each takes milliseconds of a CPU.
    pub(super) trials: Semaphore,
}

/// What holds under the configuration that serves.
pub(super) struct Current {
    pub(super) stats: config::Stats,
    pub(super) logins: Logins,
    pub(super) says: Says,
}

/// What the configuration says that stands beside the figures.
#[derive(Debug)]
pub(super) struct Says {
    pub(super) backends: Vec<Arc<Backend>>,
    pub(super) frontends: Vec<FrontendSays>,
    /// Of the whole process.
    pub(super) max_connections: usize,
}

/// What it says of a frontend.
#[derive(Debug)]
pub(super) struct FrontendSays {
    pub(super) name: Arc<str>,
    pub(super) mode: Mode,
    pub(super) max_connections: Option<usize>,
}

impl Desk {
    /// Nobody is answered until there is something to show.
    pub fn new(registry: &Arc<Registry>) -> Arc<Self> {
        Arc::new(Self {
            registry: Arc::clone(registry),
            current: ArcSwapOption::empty(),
            is_ending: AtomicBool::new(false),
            trials: Semaphore::new(MOST_TRIALS),
        })
    }

    /// From now on this is served.
    pub fn take_up(&self, config: &Config, backends: &[Arc<Backend>]) {
        let current = config.stats.as_ref().map(|stats| {
            Arc::new(Current {
                logins: Logins::new(&stats.logins),
                stats: stats.clone(),
                says: Says::of(config, backends),
            })
        });
        self.current.store(current);
    }

    /// The gateway accepts nobody any more: the monitor says so.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    pub(super) fn current(&self) -> Option<Arc<Current>> {
        self.current.load_full()
    }

    /// Whether this client is answered at all.
    pub(super) fn lets_in(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.current().is_none_or(|current| {
            let allow = &current.stats.allow;
            allow.is_empty() || allow.iter().any(|network| network.contains(&client))
        })
    }

    /// What the monitor says.
    pub(super) fn is_well(&self, current: &Current, monitor: &config::Monitor) -> bool {
        !self.is_ending.load(Ordering::Relaxed) && proxy::is_well(monitor, |id| &current.says.backends[id])
    }
}

impl Says {
    pub(super) fn of(config: &Config, backends: &[Arc<Backend>]) -> Self {
        let frontends = config.frontends.iter().map(|frontend| FrontendSays {
            name: Arc::clone(&frontend.name),
            mode: frontend.mode,
            max_connections: frontend.max_connections,
        });
        Self {
            backends: backends.to_vec(),
            frontends: frontends.collect(),
            max_connections: config.process.max_connections,
        }
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

/// On the threads for what takes long, so that health checks go on.
const MOST_TRIALS: usize = 2;

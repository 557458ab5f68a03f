//! Servers that have names: their addresses are looked up, kept up to date, and handed to them. Connections that stand are
//! left alone; new ones go where the name leads now.

mod ask;
mod slots;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::random::Random;
use super::{Backend, Server};
use crate::config::{Config, NameSource, Resolver, ServerAddress};

use ask::Asker;
pub use slots::Found;
use slots::{Answer, Slots};

/// Where a named server is now. A reload that keeps the server and its name keeps this.
#[derive(Debug)]
pub struct Whereabouts {
    of: Arc<NameSource>,
    found: ArcSwapOption<Found>,
    /// Its rank, where every pick can read it.
    rank: AtomicU16,
}

impl Whereabouts {
    /// Of a server that has not been found yet.
    pub fn new(of: &Arc<NameSource>) -> Arc<Self> {
        Arc::new(Self {
            of: Arc::clone(of),
            found: ArcSwapOption::empty(),
            rank: AtomicU16::new(0),
        })
    }

    /// Whether it is what this source says.
    pub fn is_of(&self, source: &NameSource) -> bool {
        *self.of == *source
    }

    /// Where, when that is known.
    pub(super) fn found(&self) -> Option<Found> {
        self.found.load().as_deref().copied()
    }

    /// How far its record's priority is behind the lowest.
    pub(super) fn rank(&self) -> u16 {
        self.rank.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, found: Option<Found>) {
        self.rank.store(found.map_or(0, |found| found.rank), Ordering::Relaxed);
        self.found.store(found.map(Arc::new));
    }
}

/// The names of a set of backends, followed until this is dropped.
#[derive(Debug)]
#[must_use = "names are followed no more when this is dropped"]
pub struct Names {
    /// Dropping it ends the tasks.
    _tasks: JoinSet<()>,
    /// For each name, whether its first question is settled.
    settled: Vec<watch::Receiver<bool>>,
}

impl Names {
    /// Starts to follow the names of all servers that have one. Has to be called inside the control runtime.
    pub fn start(config: &Config, backends: &[Arc<Backend>]) -> Self {
        let mut groups: Vec<Follower> = Vec::new();
        // The servers of a template share their source, and nothing else does.
        let mut known: HashMap<*const NameSource, usize> = HashMap::new();
        let resolver = &config.resolver;
        for (backend, configured) in backends.iter().zip(&config.backends) {
            for (server, configured) in backend.servers.iter().zip(&configured.servers) {
                server.metrics.set_placed(server.address().is_some());
                let ServerAddress::Name(source) = &configured.address else {
                    continue;
                };
                let at = *known.entry(Arc::as_ptr(source)).or_insert_with(|| {
                    groups.push(Follower::new(Arc::clone(&backend.name), Arc::clone(source), resolver));
                    groups.len() - 1
                });
                groups[at].servers.push((Arc::clone(server), configured.slow_start));
            }
        }
        let mut tasks = JoinSet::new();
        let mut settled = Vec::new();
        if !groups.is_empty() {
            let asker = Arc::new(Asker::new(resolver));
            let turns = Arc::new(Semaphore::new(AT_ONCE));
            for group in groups {
                let (tell, told) = watch::channel(false);
                settled.push(told);
                tasks.spawn(group.run(Arc::clone(&asker), Arc::clone(&turns), tell));
            }
        }
        Self { _tasks: tasks, settled }
    }

    /// Waits until every name has been asked for once, whatever came of it, but not for long: who cannot be found now may
    /// be found later.
    pub async fn settle(&mut self) {
        let all = async {
            for settled in &mut self.settled {
                // An error means that the task has ended, and nothing is to be waited for.
                let _ = settled.wait_for(|settled| *settled).await;
            }
        };
        let _ = timeout(PATIENCE, all).await;
    }
}

/// Follows one name for the servers that share it.
struct Follower {
    backend: Arc<str>,
    source: Arc<NameSource>,
    servers: Vec<(Arc<Server>, Option<Duration>)>,
    resolver: Resolver,
    /// Why nothing was found, as it was logged.
    said: Option<String>,
}

impl Follower {
    fn new(backend: Arc<str>, source: Arc<NameSource>, resolver: &Resolver) -> Self {
        Self {
            backend,
            source,
            servers: Vec::new(),
            resolver: resolver.clone(),
            said: None,
        }
    }

    async fn run(mut self, asker: Arc<Asker>, turns: Arc<Semaphore>, settled: watch::Sender<bool>) {
        let mut random = Random::new();
        let had = self.servers.iter().map(|(server, _)| server.found()).collect();
        let mut slots = Slots::new(had, &self.resolver);
        loop {
            let answer = {
                // Never closed.
                let _turn = turns.acquire().await;
                asker.ask(&self.source).await
            };
            let before = slots.found().to_vec();
            let wait = slots.take(&answer, Instant::now());
            self.say(&answer);
            for (i, (before, after)) in before.iter().zip(slots.found()).enumerate() {
                self.place(i, *before, *after);
            }
            settled.send_replace(true);
            // Names that were asked for together drift apart.
            let tenth = wait / 10;
            let spread = tenth.mul_f64(random.below(1000) as f64 / 1000.0);
            sleep(wait + spread).await;
        }
    }

    /// Tells of answers without addresses, or without some, once for each reason.
    fn say(&mut self, answer: &Answer) {
        let reason = match answer {
            Answer::Found(..) => {
                self.said = None;
                return;
            }
            Answer::Partly(_, reason) => format!("a part of it: {reason}"),
            Answer::Nothing => "there is nothing of that name".to_owned(),
            Answer::Failed(reason) => reason.clone(),
        };
        if self.said.as_ref() != Some(&reason) {
            let (backend, name) = (&*self.backend, &*self.source.to_string());
            tracing::warn!(backend, name, reason, "name not resolved");
            self.said = Some(reason);
        }
    }

    fn place(&self, i: usize, before: Option<Found>, after: Option<Found>) {
        let Some((server, slow_start)) = self.servers.get(i) else {
            return;
        };
        if before == after {
            return;
        }
        server.move_to(after);
        if let Some(weight) = after.and_then(|found| found.weight) {
            server.metrics.configure(weight, *slow_start);
        }
        let (backend, name) = (&*self.backend, &*self.source.to_string());
        let address = |found: Option<Found>| found.map(|found| found.address);
        let (from, to) = (address(before), address(after));
        if from == to {
            if before.map(|found| found.rank) != after.map(|found| found.rank) {
                // Those who wait may have it now.
                server.metrics.moved_in_rank();
            }
            return;
        }
        server.metrics.moved();
        server.metrics.set_placed(to.is_some());
        let server = &*server.name;
        match (from, to) {
            (None, Some(to)) => tracing::info!(backend, server, name, address = %to, "server found"),
            (Some(from), Some(to)) => tracing::info!(backend, server, name, %from, address = %to, "server moved"),
            (Some(from), None) => tracing::warn!(backend, server, name, %from, "server has no address any more"),
            (None, None) => {}
        }
    }
}

/// Names that are asked for at the same time: enough for a start with thousands, not so many that a name server takes it for
/// an attack.
const AT_ONCE: usize = 32;

/// How long a start or a reload waits for names: three seconds are what one question and its repetitions take.
const PATIENCE: Duration = Duration::from_secs(3);

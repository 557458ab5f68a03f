//! The sockets of all binds, and how many connections there may be on them. Both outlive configurations: a bind that stays
//! keeps its socket, with the connections that wait in it, and a limit goes on counting what it has let in.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{Faults, OpenPort, faults, identity};
use crate::address::Address;
use crate::admin;
use crate::backend::Backend;
use crate::config::{Bind, Config, ConfigError, Mode};
use crate::listener::{BindError, Inherited, Limits, Listening, Others, Rate, bind, listen_unix};
use crate::telemetry::metrics::Registry;
use crate::worker::WorkerSocket;

/// Everything that is listened on.
pub(super) struct Sockets {
    workers: usize,
    inherited: Inherited,
    open: Opened,
    /// What the stats listeners go by.
    desk: Arc<admin::Desk>,
    registry: Arc<Registry>,
    process: Limit,
    /// By the frontend's name.
    frontends: HashMap<Arc<str>, Limit>,
}

/// The sockets of a configuration.
#[derive(Default)]
pub(super) struct Opened {
    /// By frontend, by bind.
    frontends: Vec<Vec<Arc<Listening>>>,
    /// By the address that was asked for.
    stats: Vec<(SocketAddr, Arc<admin::Admin>)>,
    /// Those of the frontends, by what was asked for.
    by_key: HashMap<Key, Arc<Listening>>,
    /// By the frontend's name, of those that have one.
    rates: HashMap<Arc<str>, Arc<Rate>>,
}

/// A configured address with what cannot be changed of a socket: its interface, and whether it is transparent.
type Place = (Address, Option<Arc<str>>, bool);

/// A place, and how many before it are the same: port 0 may be asked for several times.
type Key = (Place, usize);

impl Sockets {
    /// Nothing is open.
    pub(super) fn new(workers: usize, config: &Config, registry: &Arc<Registry>) -> Self {
        Self {
            workers,
            inherited: Inherited::from_env(),
            open: Opened::default(),
            desk: admin::Desk::new(registry),
            registry: Arc::clone(registry),
            process: Limit::new(config.process.max_connections),
            frontends: HashMap::new(),
        }
    }

    /// Opens what `config` wants and is not open yet, or says all that went wrong; then what had been opened is closed.
    pub(super) fn open(&self, config: &Config) -> Result<Opened, Faults> {
        let mut opened = Opened {
            rates: rates(config, &self.open.rates),
            ..Opened::default()
        };
        let mut errors = Vec::new();
        let mut seen: HashMap<Place, usize> = HashMap::new();
        for frontend in &config.frontends {
            let mut binds = Vec::new();
            for bind in &frontend.binds {
                let (interface, transparent) = (bind.socket.interface.clone(), bind.socket.transparent);
                let place = (bind.address.clone(), interface, transparent);
                let count = seen.entry(place.clone()).or_default();
                let key = (place, *count);
                *count += 1;
                let listening = match self.open.by_key.get(&key) {
                    Some(listening) => Ok(listening.clone()),
                    None => self.listen(bind).map(Arc::new),
                };
                match listening {
                    Ok(listening) => {
                        opened.by_key.insert(key, listening.clone());
                        binds.push(listening);
                    }
                    Err(error) => errors.push(error),
                }
            }
            opened.frontends.push(binds);
        }
        let stats = config.stats.iter();
        let stats = stats.flat_map(|stats| stats.binds.iter().map(|address| (*address, stats.origin.span)));
        for (address, span) in stats {
            let known = self.open.stats.iter().find(|(known, _)| *known == address);
            let served = match known {
                Some((_, admin)) => Ok(admin.clone()),
                None => admin::serve(&[address], &self.desk).map(Arc::new),
            };
            match served {
                Ok(admin) => opened.stats.push((address, admin)),
                Err(source) => {
                    let (address, source) = (address.into(), source.into());
                    errors.push(faults::of_bind(span, &BindError { address, source }));
                }
            }
        }
        if errors.is_empty() {
            Ok(opened)
        } else {
            Err(Faults(errors))
        }
    }

    /// A socket that was handed to the process, or one of its own.
    fn listen(&self, of: &Bind) -> Result<Listening, ConfigError> {
        let refused = |error: &BindError| faults::of_bind(of.origin.span, error);
        let failed = |source| {
            refused(&BindError {
                address: of.address.clone(),
                source,
            })
        };
        if let Some(taken) = self.inherited.take(&of.address, self.workers) {
            let taken = taken.map_err(|error| failed(error.into()))?;
            taken.settle(&of.socket).map_err(failed)?;
            return Ok(taken);
        }
        match &of.address {
            Address::Ip(address) => {
                let bound = bind(*address, &of.socket, self.workers, self.others_on(*address));
                bound.map_err(|error| refused(&error))
            }
            Address::Unix(address) => listen_unix(address, identity::access(of)?, self.workers).map_err(failed),
        }
    }

    /// Sockets that were handed to the process and that no bind has taken.
    pub(super) fn inherited(&self) -> &Inherited {
        &self.inherited
    }

    /// Who may be on an address that is to be opened.
    fn others_on(&self, address: SocketAddr) -> Others {
        let mut own = self
            .open
            .by_key
            .values()
            .filter_map(|listening| listening.address.socket());
        if own.any(|own| own.port() == address.port()) {
            Others::Ourselves
        } else {
            Others::Nobody
        }
    }

    /// Each worker's socket of every bind, with the limits of `config`. The sockets are duplicates: a worker may close its
    /// own, and the connections that wait in it stay.
    pub(super) fn distribute(&mut self, config: &Config, opened: &Opened) -> io::Result<Vec<Vec<WorkerSocket>>> {
        let mut sockets: Vec<Vec<WorkerSocket>> = (0..self.workers).map(|_| Vec::new()).collect();
        for (frontend, binds) in opened.frontends.iter().enumerate() {
            let configured = &config.frontends[frontend];
            let limits = Limits {
                process: self.process.places.clone(),
                frontend: self
                    .frontends
                    .entry(configured.name.clone())
                    .or_insert_with(|| Limit::new(configured.max_connections.unwrap_or(UNLIMITED)))
                    .places
                    .clone(),
                rate: opened.rates.get(&configured.name).cloned(),
            };
            for (bind, listening) in binds.iter().enumerate() {
                for (worker, socket) in sockets.iter_mut().zip(&listening.sockets) {
                    worker.push(WorkerSocket {
                        frontend,
                        bind,
                        socket: socket.try_clone()?,
                        limits: limits.clone(),
                    });
                }
            }
        }
        Ok(sockets)
    }

    /// From now on these are the sockets, `config` says the limits, and the stats are of these backends. The other sockets close.
    /// Has to be called inside the control runtime.
    pub(super) fn keep(&mut self, opened: Opened, config: &Config, backends: &[Arc<Backend>]) {
        let before = std::mem::replace(&mut self.open, opened);
        for (name, rate) in before.rates {
            match self.open.rates.get(&name) {
                Some(same) if Arc::ptr_eq(same, &rate) => {}
                later => rate.give_way(later),
            }
        }
        for (frontend, open) in config.frontends.iter().zip(&self.open.frontends) {
            for (bind, open) in frontend.binds.iter().zip(open) {
                open.set_backlog(bind.backlog);
                open.set_options(&bind.socket);
                // Looked up when it was opened; a user that has gone meanwhile changes nothing.
                if let Ok(access) = identity::access(bind) {
                    open.set_access(access);
                }
            }
        }
        self.desk.take_up(config, backends);
        self.process.resize(config.process.max_connections);
        self.registry.process().may_have(config.process.max_connections);
        self.frontends
            .retain(|name, _| config.frontends.iter().any(|frontend| frontend.name == *name));
        for frontend in &config.frontends {
            self.registry
                .frontend(&frontend.name)
                .may_have(frontend.max_connections);
            if let Some(limit) = self.frontends.get_mut(&frontend.name) {
                limit.resize(frontend.max_connections.unwrap_or(UNLIMITED));
            }
        }
    }

    /// Closes the binds; each worker closes its own. The stats listener goes on.
    pub(super) fn close(&mut self) {
        self.desk.end();
        self.open.frontends.clear();
        self.open.by_key.clear();
    }

    /// Where the gateway listens, in the order of the configuration; the stats listener last.
    pub(super) fn ports(&self, config: &Config) -> Vec<OpenPort> {
        let mut ports = Vec::new();
        for (frontend, open) in config.frontends.iter().zip(&self.open.frontends) {
            for (bind, open) in frontend.binds.iter().zip(open) {
                ports.push(OpenPort {
                    address: open.address.clone(),
                    protocol: match (frontend.mode, bind.tls.is_some()) {
                        (Mode::Http, false) => "http",
                        (Mode::Http, true) => "https",
                        (Mode::Tcp, false) => "tcp",
                        (Mode::Tcp, true) => "tls",
                    },
                    frontend: Some(frontend.name.clone()),
                });
            }
        }
        let stats = self.open.stats.iter().flat_map(|(_, admin)| admin.addresses());
        ports.extend(stats.map(|address| OpenPort {
            address: (*address).into(),
            protocol: "stats",
            frontend: None,
        }));
        ports
    }
}

impl Opened {
    /// This folder, named without links, is the root of the file system from now on: where the files of UNIX sockets are then.
    pub(super) fn enter(&self, root: &Path) {
        for listening in self.by_key.values() {
            listening.enter(root);
        }
    }
}

/// The rates of a configuration. One that stays as it was goes on.
fn rates(config: &Config, before: &HashMap<Arc<str>, Arc<Rate>>) -> HashMap<Arc<str>, Arc<Rate>> {
    let with_rates = config
        .frontends
        .iter()
        .filter_map(|frontend| Some((&frontend.name, frontend.connection_rate?)));
    let rate = |(name, rate): (&Arc<str>, _)| {
        let known = before.get(name).filter(|known| known.config() == rate);
        (
            name.clone(),
            known.map_or_else(|| Arc::new(Rate::new(rate)), Arc::clone),
        )
    };
    with_rates.map(rate).collect()
}

/// The limit of a frontend that has none: its connections are counted all the same, for a later configuration may give it
/// one.
const UNLIMITED: usize = u32::MAX as usize;

/// How many connections there may be at once.
struct Limit {
    places: Arc<Semaphore>,
    size: usize,
}

impl Limit {
    fn new(size: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(size)),
            size,
        }
    }

    /// Places that are taken away while they are in use go when their connections end; until then nobody new is let in.
    fn resize(&mut self, size: usize) {
        if size > self.size {
            self.places.add_permits(size - self.size);
        }
        let mut excess = self.size.saturating_sub(size);
        while excess > 0 {
            let part = u32::try_from(excess).unwrap_or(u32::MAX);
            excess -= part as usize;
            let places = self.places.clone();
            tokio::spawn(async move {
                if let Ok(taken) = places.acquire_many_owned(part).await {
                    taken.forget();
                }
            });
        }
        self.size = size;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_that_shrinks_lets_nobody_in_until_enough_have_left() {
        let mut limit = Limit::new(3);
        let take = || limit.places.clone().try_acquire_owned();
        let (first, second, _third) = (take().unwrap(), take().unwrap(), take().unwrap());
        limit.resize(2);
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(limit.places.clone().try_acquire_owned().is_err());
        drop(second);
        tokio::task::yield_now().await;
        let again = limit.places.clone().try_acquire_owned().unwrap();
        limit.resize(4);
        assert_eq!(limit.places.available_permits(), 2);
        drop(again);
        assert_eq!(limit.places.available_permits(), 3);
    }
}

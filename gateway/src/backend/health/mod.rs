//! Health checks: each server is asked at its interval, and goes down or up after so many answers in a row.

mod agent;
mod checker;
mod http;
mod rhythm;
mod state;
mod tcp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::{Backend, ConnectError, Server};
use crate::config::{CheckOpening, CheckTarget};
use crate::stream::Stream;

use agent::Asker;
use checker::Checker;
use rhythm::{FAR, first_delay};

/// The checks of a set of backends, running until this is dropped.
#[derive(Debug)]
#[must_use = "the checks stop when this is dropped"]
pub struct Checks {
    /// Dropping it ends the tasks.
    _tasks: JoinSet<()>,
}

impl Checks {
    /// Starts the checks of those backends that have one. Has to be called inside the control runtime, and before
    /// anything is accepted.
    ///
    /// Servers are as a previous configuration's checks left them, or as `initial=` says, until their checks say
    /// otherwise. First checks are spread over the interval, and every interval varies a little, so that checks never
    /// come in bursts. The place of a server that has no address yet is kept free.
    pub fn start(backends: &[Arc<Backend>]) -> Self {
        let mut tasks = JoinSet::new();
        let checked: Vec<_> = backends
            .iter()
            .filter_map(|backend| Some((backend, backend.check.as_ref()?)))
            .flat_map(|(backend, check)| backend.servers.iter().map(move |server| (backend, server, check)))
            .collect();
        let total = checked.len();
        for (position, (backend, server, check)) in checked.into_iter().enumerate() {
            let checker = Checker::new(backend, server, check);
            tasks.spawn(checker.run(first_delay(check.schedule.interval.min(FAR), position, total)));
        }
        let asked: Vec<_> = backends
            .iter()
            .filter_map(|backend| Some((backend, backend.agent.as_ref()?)))
            .flat_map(|(backend, agent)| backend.servers.iter().map(move |server| (backend, server, agent)))
            .collect();
        let total = asked.len();
        for (position, (backend, server, agent)) in asked.into_iter().enumerate() {
            let asker = Asker::new(backend, server, agent);
            tasks.spawn(asker.run(first_delay(agent.interval.min(FAR), position, total)));
        }
        Self { _tasks: tasks }
    }
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("no HTTP answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the check's request cannot be made: {0}")]
    Request(#[from] ::http::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("the body does not contain {0:?}")]
    Body(String),
    #[error("step {step}, send: {broken}")]
    Send { step: usize, broken: tcp::Broken },
    #[error("step {step}, expect {expected}: {broken}; received \"{received}\"")]
    Expect {
        step: usize,
        expected: String,
        broken: tcp::Broken,
        received: String,
    },
    #[error("{0} connections of clients in a row failed")]
    Observed(u32),
}

/// Where a check goes that does not go where the server serves.
fn elsewhere(server: &Server, target: CheckTarget) -> Option<SocketAddr> {
    if target.address.is_none() && target.port.is_none() {
        return None;
    }
    let mut address = server.address()?;
    address.set_ip(target.address.unwrap_or(address.ip()));
    address.set_port(target.port.unwrap_or(address.port()));
    Some(address)
}

/// Opens a check's connection: as traffic does, or plainly when it goes elsewhere.
async fn open(server: &Server, target: CheckTarget, limit: Duration) -> Result<Stream, ConnectError> {
    match (elsewhere(server, target), target.opening) {
        (Some(address), CheckOpening::Plain) => server.connect_plainly(address, limit).await,
        (Some(address), CheckOpening::AsTraffic) => server.connect_to(address, limit).await,
        (None, _) => server.connect(limit).await,
    }
}

#[cfg(test)]
use tests::test_schedule;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

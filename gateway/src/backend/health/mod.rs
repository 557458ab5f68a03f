//! Health checks: each server is asked at its interval, and goes down or up after so many answers in a row.

mod agent;
mod answer;
mod checker;
mod grpc;
mod http;
mod http2;
mod outcome;
mod rhythm;
mod state;
mod tcp;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Backend, ConnectError, Connector, Server};
use crate::address::Address;
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
    #[error("no HTTP/2: {0}")]
    Http2(#[from] h2::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("status {0}, which is not to be")]
    UnwantedStatus(u16),
    #[error("status {0}, by which it asks for no new work")]
    Drains(u16),
    #[error("no header {0}")]
    NoHeader(::http::HeaderName),
    #[error("there is a header {0}")]
    UnwantedHeader(::http::HeaderName),
    #[error("header {name} does not {expected}; it is \"{came}\"")]
    Header {
        name: ::http::HeaderName,
        expected: String,
        came: String,
    },
    #[error("header {name} is \"{came}\", which is not to {unwanted}")]
    UnwantedValue {
        name: ::http::HeaderName,
        unwanted: String,
        came: String,
    },
    #[error("the body does not {0}")]
    Body(String),
    #[error("the body is not to {0}, and does")]
    UnwantedBody(String),
    #[error("gRPC status {code}: \"{message}\"")]
    Grpc { code: u32, message: String },
    #[error("the answer is none of the gRPC health protocol: {0}")]
    NoGrpc(&'static str),
    #[error("the service is {0}")]
    NotServing(&'static str),
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
    // A server on a UNIX socket has neither; both are said then.
    let own = server.address()?.socket();
    let ip = target.address.or_else(|| Some(own?.ip()))?;
    let port = target.port.or_else(|| Some(own?.port()))?;
    Some(SocketAddr::new(ip, port))
}

/// How checks of a backend reach its servers.
#[derive(Debug, Clone, Default)]
struct Way {
    target: CheckTarget,
    /// How TLS is spoken for them, in place of how traffic does.
    tls: Option<Arc<Connector>>,
}

impl Way {
    /// Opens a check's connection: as traffic does, or plainly when it goes elsewhere, and with TLS of its own where it has
    /// that.
    async fn open(&self, server: &Server, limit: Duration) -> Result<Stream, ConnectError> {
        let elsewhere = elsewhere(server, self.target);
        match (elsewhere, self.target.opening, &self.tls) {
            (Some(address), CheckOpening::Plain, None) => server.connect_plainly(address, limit).await,
            (Some(address), CheckOpening::AsTraffic, None) => server.connect_to(address, limit).await,
            (None, _, None) => server.connect(limit).await,
            (elsewhere, opening, Some(tls)) => {
                let introduced = elsewhere.is_none() || opening == CheckOpening::AsTraffic;
                server.connect_in(tls, elsewhere, introduced, limit).await
            }
        }
    }

    /// Whether HTTP/2 is spoken at its end, when the check does not say.
    fn speaks_http2(&self, server: &Server) -> bool {
        let as_traffic = self.target.opening == CheckOpening::AsTraffic || elsewhere(server, self.target).is_none();
        server.http2 && as_traffic && self.tls.is_none()
    }

    /// The address, for who has no better name for the server.
    fn authority(&self, server: &Server) -> String {
        elsewhere(server, self.target)
            .map(Address::Ip)
            .or_else(|| server.address())
            .map_or_else(|| server.name.to_string(), |address| address.authority())
    }
}

/// What comes of this by then; none when nothing has. A part of it that has the same time is let say what it waited for: nobody could
/// rely on which of the two is over first, and the log would tell of each in turn.
async fn by<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    match timeout_at(deadline, &mut work).await {
        Ok(done) => Some(done),
        Err(_) => timeout(MOMENT, work).await.ok(),
    }
}

/// More than between two timers that were set one right after the other.
const MOMENT: Duration = Duration::from_millis(5);

/// The beginning of what a server said, for a log line.
fn excerpt(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(EXCERPT)];
    let more = if bytes.len() > EXCERPT { "…" } else { "" };
    format!("{}{more}", shown.escape_ascii())
}

/// Bytes of an answer that are shown.
const EXCERPT: usize = 60;

#[cfg(test)]
use tests::test_schedule;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

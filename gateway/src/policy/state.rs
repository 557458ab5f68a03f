//! What a store carries: the exchange of the running call, its edits, the bounds that the guest runs into, and whose it is.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::bounds::Bounds;
use super::buckets::{Buckets, Namespace};
use super::counted::CountedLimit;
use super::cpu::CpuLimit;
use super::edits::Edits;
use super::exchange::{ConnectionFacts, Exchange};
use super::log_budget::LogBudget;
use super::meter::{HostCalls, Interface};
use super::metrics::PluginMetrics;
use super::shared::Shared;
use super::tags::Tags;
use super::takings::Takings;

/// The data of a store.
pub(crate) struct State {
    /// The exchange of the running call; an empty one between calls.
    pub(crate) exchange: Box<Exchange>,
    /// What runs.
    pub(crate) phase: Phase,
    /// The running call's edits.
    pub(crate) edits: Edits,
    /// The tags that it sets.
    pub(crate) tags: Tags,
    /// What it takes from the buckets.
    pub(crate) takings: Takings,
    /// Memory and table bounds.
    pub(crate) bounds: Bounds,
    /// The running call's CPU time.
    pub(crate) cpu: CpuLimit,
    /// A host function ended the call: the guest misused it, or wanted too much of it.
    pub(crate) misuse: bool,
    /// What the running call was told last that it may not do.
    pub(crate) refused: Option<Refused>,
    /// Whose instance this is.
    pub(crate) identity: Arc<Identity>,
    /// The process's token buckets.
    pub(crate) buckets: Arc<Buckets>,
    /// Calls of the host's functions so far.
    pub(crate) host_calls: HostCalls,
    /// Lines that the running call has written into the log, where somebody wants to know.
    pub(crate) written: Option<Vec<String>>,
}

/// An edit or a tag that was refused: a guest that gives up then mostly says no more than that.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The host's function.
    pub(crate) function: &'static str,
    pub(crate) why: String,
}

/// What runs in a store; decides what the imports may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The start function, `describe`, `configure` or `names`.
    Setup,
    /// `predicates`, `limiter` or how a request's body is to be filtered: the request can be read.
    Request,
    /// `request-filter` or `call-answered`: the request can be read and edited.
    RequestFilter,
    /// `response-filter`: both heads can be read, the response edited.
    ResponseFilter,
    /// How a response's body is to be filtered: both heads can be read.
    Response,
    /// A piece of a body: there are its bytes and nothing else.
    Piece,
    /// `access-log`: there are facts and nothing else.
    Log,
    /// `connection-filter`: there is a connection and nothing else.
    Connection,
}

/// Whose an instance is: what its log lines and buckets are kept under.
pub(crate) struct Identity {
    pub(crate) label: Arc<str>,
    /// Whose plugin it is, if somebody's.
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) namespace: Namespace,
    /// Those of its limits that responses take from.
    pub(crate) counted: Arc<[CountedLimit]>,
    /// What it keeps beyond its instances.
    pub(crate) shared: Arc<Shared>,
    /// There once it has said what it measures.
    pub(crate) metrics: OnceLock<Arc<PluginMetrics>>,
    /// Bounds the lines that it writes itself.
    pub(crate) lines: LogBudget,
    /// Bounds the lines about its failures.
    pub(crate) failures: LogBudget,
    /// Bounds those that tell of its quarantine, and of who calls it: whoever fails and works in turn has much of that.
    pub(crate) changes: LogBudget,
}

impl State {
    pub(crate) fn new(
        identity: Arc<Identity>,
        buckets: Arc<Buckets>,
        connection: Arc<ConnectionFacts>,
        bounds: Bounds,
    ) -> Self {
        Self {
            exchange: Exchange::new(http::Request::new(()).into_parts().0, connection),
            phase: Phase::Setup,
            edits: Edits::default(),
            bounds,
            tags: Tags::default(),
            takings: Takings::default(),
            cpu: CpuLimit::new(),
            misuse: false,
            refused: None,
            identity,
            buckets,
            host_calls: HostCalls::default(),
            written: None,
        }
    }

    /// A function of this interface of the host is being called.
    #[inline]
    pub(crate) fn called(&mut self, interface: Interface) -> &mut Self {
        self.host_calls.count(interface);
        self
    }

    /// A call begins: what an earlier one wanted and coped without says nothing about this one.
    pub(crate) fn begin(&mut self, phase: Phase, cpu: Duration) {
        self.phase = phase;
        self.refused = None;
        self.takings = Takings::Nothing;
        self.bounds.begin();
        self.cpu.start(cpu);
    }

    /// The answer of this function of the host, kept where it is a refusal.
    pub(crate) fn told(&mut self, function: &'static str, answer: Result<(), String>) -> Result<(), String> {
        if let Err(why) = &answer {
            self.refused = Some(Refused {
                function,
                why: why.clone(),
            });
        }
        answer
    }
}

//! The component host: compiles policy components, keeps warm instances of them and calls their hooks under limits.
//!
//! It owns everything that touches wasmtime, and the state that outlives an instance (token buckets). It knows requests
//! and responses as `http` types only: where an exchange came from, what a verdict leads to and what a failure costs is
//! decided by its callers.
//!
//! From start to request:
//!
//! 1. [`Host::new`], once per process;
//! 2. [`Host::compile`], once per component: checks imports against grants, finds the hooks, links ahead;
//! 3. [`Host::attach`], once per use of a component with a configuration: instantiates it once, learns its predicates
//!    and needs;
//! 4. [`Instances`], one per worker: warm instances of each attachment, as its isolation has them, and the calls.

mod asks;
mod attachment;
mod attribute;
mod bindings;
mod bodies;
mod bounds;
mod buckets;
mod budget;
mod cache;
mod calls;
mod client_certificate;
mod client_hello;
mod clock;
mod compiler;
mod component;
mod counted;
mod counters;
mod cpu;
mod crew;
mod edits;
mod ends;
mod engine;
mod exchange;
mod facts;
mod failure;
mod find;
pub mod first_party;
mod granted;
mod hook;
mod hooks;
mod host;
mod host_memory;
mod imports;
mod inspect;
mod instance;
mod instances;
mod kept;
mod kv;
mod lanes;
mod log_budget;
mod log_queue;
mod made_beside;
pub mod maps;
mod memo;
mod meter;
mod metrics;
mod needs;
mod owner;
mod pace;
pub mod path_captures;
mod phases;
mod priority;
mod quarantine;
mod query;
mod quota;
mod resting;
mod scope;
pub mod section;
mod shared;
mod slot;
mod slot_number;
mod state;
mod stats;
mod subject;
mod tags;
mod takings;
mod ticker;
mod values;
mod warm;

#[cfg(test)]
#[allow(clippy::expect_used)]
pub(crate) mod guests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

pub use attachment::{AttachedAs, Attachment, AttachmentSpec, Callers};
pub use bodies::{BodyMode, BodyOf, KeptByBody, Piece, PieceVerdict};
pub use budget::Budget;
pub use cache::{CacheError, is_of_another as cache_is_of_another};
pub use calls::{Answer, Answered, Call, CallError, MAX_CALLS, Route};
pub use client_certificate::ClientCertificate;
pub use client_hello::ClientHello;
pub use clock::Clock;
pub use compiler::{
    COMMAND as COMPILE_COMMAND, CompileError, CompileRequest, compile_apart, serve as compile_for_another,
};
pub use component::{Code, Component, MAX_COMPONENT_BYTES};
pub use counted::{Counted, CountedLimit};
pub(crate) use cpu::Work;
pub use crew::Crew;
pub use ends::Ends;
pub use exchange::{
    ConnectionFacts, ConnectionVerdict, Exchange, Introduced, LimitPolicy, LimitVerdict, Outcome, Over, Preamble,
    Reply, TlsFacts,
};
pub use failure::{Failure, FailureKind, PolicyError};
pub use granted::{CallGrant, Granted, InFlight, Place};
pub use hook::HookPlace;
pub use hooks::Hooks;
pub use host::{Host, HostSettings};
pub use host_memory::{HostMemory, HostMemoryFull};
pub use inspect::{Description, Import};
pub use instances::Instances;
pub use kept::KeptByConnection;
pub use log_queue::{LogQueue, LogTurn, ToTell, Told};
pub use meter::{HostCalls, Measure};
pub use phases::AskingPhase;
pub(crate) use query::{percent_decode, query_params};
pub use quota::Quota;
pub use scope::{Lot, Scope, Tenant, asked_host};
pub use stats::AttachmentStats;
pub use tags::Tags;
pub use values::Values;
pub use warm::Warm;

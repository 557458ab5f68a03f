//! What an attachment is made of.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::config::{Heavy, Isolation, OnFailure, Origin, PluginLimits, QuarantineSettings, StateLimits};
use crate::policy::budget::Budget;
use crate::policy::counted::CountedLimit;
use crate::policy::granted::Granted;
use crate::policy::maps::Maps;
use crate::policy::scope::Scope;

/// What [`Host::attach`](crate::policy::Host::attach) is told.
#[derive(Debug, Clone)]
pub struct AttachmentSpec {
    /// Its name in logs and metrics, as `acl web` or `geo`.
    pub label: Arc<str>,
    /// What its token buckets are kept under: the same for all attachments that are to count together (and over
    /// reloads), different for any two that are not.
    pub namespace: String,
    /// Those of its limits that responses take from.
    pub counted: Arc<[CountedLimit]>,
    /// The configuration, a JSON text.
    pub config: String,
    /// The maps that its needs may name beside what the contract has; none but for the gateway's own components.
    pub maps: Option<Arc<Maps>>,
    /// What a call may use.
    pub limits: PluginLimits,
    /// The backends that it may use, and how much of a body it may see at once.
    pub granted: Arc<Granted>,
    /// What it may keep in the host, and write into the log.
    pub state: StateLimits,
    /// What an exchange gets when a call fails.
    pub on_failure: OnFailure,
    /// Fields of requests whose word servers take for its own: without it they are nobody's.
    pub vouched: Arc<[HeaderName]>,
    /// Who sees what an instance remembers.
    pub isolation: Isolation,
    /// Whether it is known to remember nothing, however long its instances live: the gateway's own components do not.
    pub is_forgetful: bool,
    /// What its instances may use together.
    pub budget: Arc<Budget>,
    /// When it is left alone; none for never.
    pub quarantine: Option<QuarantineSettings>,
    /// Who makes its calls.
    pub callers: Callers,
    /// What it is attached as.
    pub place: AttachedAs,
    /// Where and how it takes part.
    pub scope: Scope,
    /// Where it stands in the configuration.
    pub origin: Option<Origin>,
}

/// Who makes the calls of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// The workers, however long calls take: those of the gateway's own components, whose cost is known.
    Workers,
    /// The [crew](crate::policy::Crew): it is heavy by nature.
    Crew(Heavy),
    /// The workers, as long as calls take no more CPU time than `slow`; the crew once they do. So with setting instances up.
    Either {
        /// CPU time of a call that is still quick.
        slow: Duration,
        /// How many calls may wait for the crew.
        heavy: Heavy,
    },
}

/// What a component is attached as: which of its hooks are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachedAs {
    /// What answers acls: `predicates`.
    Predicates,
    /// What sees requests and responses, or connections: all other hooks.
    Filter,
}

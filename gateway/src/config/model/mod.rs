//! The typed configuration: what a KDL text means, with every reference resolved, every unit parsed and every default
//! filled in. Nothing here knows how it will be run.
//!
//! Identifiers (`BackendId`, `PluginId`, …) are positions in the lists of [`Config`]; the loader guarantees that they
//! exist.

mod access_log;
mod acl;
mod backend;
mod built_in;
mod compress;
mod decompress;
mod edits;
mod forwarding;
mod frontend;
mod http2;
mod map;
mod persistence;
mod plugin;
mod process;
mod rate_limit;
mod resilience;
mod rules;
mod server;
mod stats;
mod status_set;
mod template;
mod tls;
mod tracing;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use miette::SourceSpan;

pub use super::health::{
    AgentCheck, Check, CheckKind, CheckOpening, CheckStep, CheckTarget, CheckVersion, Expect, GrpcCheck, HttpCheck,
    HttpExpect, HttpTest, InitialState, Observe, Observed, OnError, Pattern, Schedule, TextTest,
};
pub use super::places::Places;
pub use super::resolver::{Family, NameSource, Resolver};
pub use access_log::{Capture, Captured, Captures, LineEscape, LineField, LineFormat, LinePart, LogChoice, TlsValue};
pub use acl::{
    Acl, AclTest, AskedPlugin, Condition, FactMatch, Match, Measured, Named, REGEX_COMPARISONS, ServersUp, Text,
    TimeMatch, TlsFact,
};
pub use backend::{
    Backend, Backups, Balance, MAX_RETRIES, Pool, QueueLimits, Redispatch, ResponseLimits, Retries, ServerTimeouts,
    Spread,
};
pub use built_in::{BuiltIn, ComponentSource};
pub use compress::{Coding, Compress, Levels, MediaType};
pub use decompress::{Decompress, DecompressLimits};
pub use edits::{
    Change, Conditional, EditCondition, EditsHeaders, HeaderName, HeaderReplace, HeaderValue, LocationChange,
    MAX_CALL_EDITS, MAX_EDIT_BYTES, OWN_FIELDS, QueryParam, Replace, ReplaceFrom, RequestEdit, ResponseEdit, Written,
    most_written_in_a_call,
};
pub use forwarding::{
    ClientIpFrom, Forwarded, ForwardedBy, ForwardedFor, ForwardedHeaders, Forwarding, IncomingId, RequestId,
    TrustedProxies, UuidVersion,
};
pub use frontend::{
    AcceptProxy, AccessLog, BACKLOG, Bind, ClientTimeouts, ConnectionRate, Frontend, HttpKeepAlive, OfBackend,
    PerSource, Reject, RequestLimits, Route, RouteTo, SocketAccess, SocketOptions, Trusted, Upgrades, UsedLimit,
};
pub use http2::{ClientHttp2, Http2};
pub use map::{MapFile, MapKind};
pub use persistence::{CookieMode, CookiePersistence, HashOf, Stick, StickKey, UriPart};
pub use plugin::{
    BudgetLimits, ConfigFile, DEFAULT_MAX_BODY, Grant, Heavy, InForce, Isolation, KeptQuota, LogRate, Millicores,
    OnFailure, Plugin, PluginCall, PluginLimits, QuarantineSettings, SaidLimits, Share, StateLimits, Tenant,
    TenantFault, UnderWayQuota, UsedPlugin,
};
pub use process::{
    AdminLevel, AdminSocket, CompileCache, CompileLimits, Facility, Log, LogFormat, LogTarget, LogTo, NamedLog,
    PolicyPool, Process, SyslogHeader, SyslogServer,
};
pub use rate_limit::{RateKey, RateLimit};
pub use resilience::{GrpcStatuses, OutlierEjection, RetryBudget, RetryOn, Reuse, Slow};
pub use rules::{
    Action, Content, ErrorPage, EscapedSlashes, LocationPart, Matched, NormalizePath, Redirect, RedirectTo, Return,
    Rule, RuleQuota, Scheme, TenantRules,
};
pub use server::{Server, ServerAddress, SessionEnd, SourceAddress};
pub use stats::{Login, Monitor, Need, Stats};
pub use status_set::StatusSet;
pub use template::{Template, TemplatePart};
pub use tls::{
    Authorities, BindTls, CertificateFiles, CertificateSource, ClientAuthorities, Hsts, Resumption, ServerTls,
    TicketKeys, TlsParameters, Verify,
};
pub use tracing::{CollectorHeader, CollectorValue, Endpoint, Tracing};
pub use trust::{KeySource, TrustList, TrustedKey};

/// A whole configuration, valid in itself.
#[derive(Debug, Clone)]
pub struct Config {
    /// Process-wide settings.
    pub process: Process,
    /// Frontends, in the order of the text.
    pub frontends: Vec<Frontend>,
    /// Backends, in the order of the text.
    pub backends: Vec<Backend>,
    /// Third-party components, in the order of the text.
    pub plugins: Vec<Plugin>,
    /// `map`, in the order of the text.
    pub maps: Vec<MapFile>,
    /// Tenants, in the order of the text.
    pub tenants: Vec<Tenant>,
    /// `trust` at the top of the file: who has to have signed the components of all that have no such list of their own.
    pub trust: Vec<TrustedKey>,
    /// Named rate limits, in the order of the text.
    pub rate_limits: Vec<RateLimit>,
    /// The listener for `/metrics`; none when it is not configured.
    pub stats: Option<Stats>,
    /// How names of servers are resolved.
    pub resolver: Resolver,
}

/// Position of a backend in [`Config::backends`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackendId(pub usize);

/// Position of a plugin in [`Config::plugins`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginId(pub usize);

/// Position of a tenant in [`Config::tenants`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TenantId(pub usize);

/// Position of a rate limit in [`Config::rate_limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RateLimitId(pub usize);

/// Position of an acl in [`Frontend::acls`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AclId(pub usize);

/// Where in the configuration something stands, for log lines and faults about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file as it was named.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// Bytes of the text: the node's name.
    pub span: SourceSpan,
}

/// A value and where it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Bytes of the text.
    pub span: SourceSpan,
}

impl At<&str> {
    /// The same, kept longer than the text.
    pub fn at_owned(&self) -> At<String> {
        At {
            value: self.value.to_owned(),
            span: self.span,
        }
    }
}

/// What a frontend or backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Bytes, relayed.
    Tcp,
    /// HTTP messages, understood.
    Http,
}

/// `tcp-keep-alive idle="60s" interval="10s" count=6`: how the system looks whether the other end of a silent connection is
/// still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence before the first probe; whole seconds.
    pub idle: Duration,
    /// Between two probes; whole seconds.
    pub interval: Duration,
    /// Probes without an answer before the connection is given up.
    pub count: u32,
}

//! Backends: servers together, and how one is chosen.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Acl, AgentCheck, Check, Conditional, CookiePersistence, ErrorPage, HashOf, Http2, KeepAlive, Mode, Origin,
    OutlierEjection, RequestEdit, ResponseEdit, RetryBudget, RetryOn, Reuse, Rule, Server, Stick,
};

/// `backend "app" { … }`: servers and how one is chosen.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its name, unique among backends.
    pub name: Arc<str>,
    /// What it speaks; the same as every frontend that uses it.
    pub mode: Mode,
    /// How a server is chosen.
    pub balance: Balance,
    /// What of a request [`Balance::Hash`] hashes; none with the other ways.
    pub hash_of: Option<HashOf>,
    /// `cookie`: the cookie that keeps a client at its server. HTTP mode.
    pub cookie: Option<CookiePersistence>,
    /// `stick`: who was at which server is learned.
    pub stick: Option<Stick>,
    /// `all-backups`: which backups step in.
    pub backups: Backups,
    /// Its servers; at least one.
    pub servers: Vec<Server>,
    /// Server-side timeouts.
    pub timeouts: ServerTimeouts,
    /// `max-queue` and `timeout queue=`: who may wait for a server to have room.
    pub queue: QueueLimits,
    /// `retries 3 redispatch="each"`: what is done when a server cannot be connected to.
    pub retries: Retries,
    /// `max-requests 1000`: requests that it has under way or waiting at once. HTTP mode.
    pub max_requests: Option<usize>,
    /// `outlier-ejection`: servers that answer badly get nothing for a while. HTTP mode.
    pub outlier: Option<OutlierEjection>,
    /// `tcp-keep-alive`; none when it is off, or would never come to a probe.
    pub keep_alive: Option<KeepAlive>,
    /// How a server's health is known; none means servers are taken as up.
    pub check: Option<Check>,
    /// `agent-check`: an agent beside each server says what it can bear.
    pub agent: Option<AgentCheck>,
    /// `server-close`: a server connection serves one request. HTTP mode.
    pub server_close: bool,
    /// `early-hints`: informational responses are passed on. HTTP mode.
    pub early_hints: bool,
    /// `pool max-idle=512 idle-timeout="30s"`: connections kept for reuse, per server and worker. HTTP mode.
    pub pool: Pool,
    /// `response-limits`: bounds on responses. HTTP mode.
    pub response_limits: ResponseLimits,
    /// `http2`: bounds on HTTP/2 with its servers. HTTP mode.
    pub http2: Http2,
    /// `error-page`: at most one a status; they win over those of the frontend. HTTP mode.
    pub error_pages: Vec<ErrorPage>,
    /// Its acls: named ones in the order of the text, and behind them those without a name. HTTP mode.
    pub acls: Vec<Acl>,
    /// `deny`, `redirect` and `return`, in order: asked when a request has come here. HTTP mode.
    pub rules: Vec<Rule>,
    /// `request { … }`, after the frontend's. HTTP mode.
    pub request_edits: Vec<Conditional<RequestEdit>>,
    /// `response { … }`, before the frontend's. HTTP mode.
    pub response_edits: Vec<Conditional<ResponseEdit>>,
    /// Where the backend stands.
    pub origin: Origin,
}

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by weight, smoothly.
    RoundRobin,
    /// The one with the fewest connections or requests under way, by weight.
    LeastConn,
    /// Of two drawn by weight, the one with fewer under way.
    Random,
    /// By the client's address.
    Source(Spread),
    /// By something of the request; without it, in turn. HTTP mode.
    Hash(Spread),
    /// The first that has room.
    First,
}

/// How a hash becomes a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Modulo the sum of the weights: nearly everybody moves when a server comes or goes.
    Modulo,
    /// `consistent`: nobody moves but those who have to.
    Consistent,
}

/// Which backup servers step in when no other server is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backups {
    /// The first that is up.
    First,
    /// All that are up.
    All,
}

/// Server-side timeouts of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTimeouts {
    /// `connect`: until the connection stands, TLS included.
    pub connect: Duration,
    /// `server`: how long the server may be silent when it is its turn to send or to read.
    pub server: Duration,
    /// `tunnel`: how long a relay may be idle, in place of `client` and `server`: TCP mode, and HTTP that was upgraded.
    pub tunnel: Option<Duration>,
}

/// Who may wait for a server to have room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// `max-queue 1024`: requests or connections that wait at once.
    pub most: usize,
    /// `timeout queue="5s"`: how long one waits.
    pub timeout: Duration,
}

/// `retries 3 redispatch="each"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Attempts after the first, at most [`MAX_RETRIES`].
    pub count: usize,
    /// Which of them go to another server.
    pub redispatch: Redispatch,
    /// `retry-on`: after what.
    pub on: RetryOn,
    /// `retry-buffer "16KiB"`: so much of a body is kept to be sent again.
    pub buffer: usize,
    /// `retry-budget`: how many requests are sent again at once.
    pub budget: RetryBudget,
}

/// Which retries go to another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redispatch {
    /// Each; to the same one only when there is no other.
    Each,
    /// The last.
    Last,
    /// None.
    Never,
}

/// Beyond ten, a client has long given up: each attempt may take the connect timeout.
pub const MAX_RETRIES: usize = 10;

/// `response-limits head="64KiB" headers=100 informational=64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseLimits {
    /// Bytes of a response's head, status line included: 502 beyond it.
    pub head: usize,
    /// Header fields of a response: 502 beyond it.
    pub headers: usize,
    /// Informational responses before the response: 502 beyond it.
    pub informational: usize,
}

impl ResponseLimits {
    /// What holds where nothing is said.
    pub const DEFAULT: Self = Self {
        // More than common servers send: nginx and HAProxy take 16 KiB or less of what is behind them.
        head: 64 << 10,
        // As for requests.
        headers: 100,
        // Nobody has need of so many: a server that is still at work says so every few seconds.
        informational: 64,
    };
}

/// `pool max-idle=512 idle-timeout="30s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Idle connections kept per server and worker.
    pub max_idle: usize,
    /// How long one is kept.
    pub idle_timeout: Duration,
    /// `reuse="safe"`: whose requests go over them.
    pub reuse: Reuse,
}

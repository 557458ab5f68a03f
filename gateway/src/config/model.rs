//! The typed configuration: what a KDL text means, with every reference resolved, every unit parsed and every default
//! filled in. Nothing here knows how it will be run.
//!
//! Identifiers (`FrontendId`, `BackendId`, …) are positions in the lists of [`Config`]; the loader guarantees that they
//! exist.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use miette::SourceSpan;
use rustls_pki_types::ServerName;
use serde::Serialize;

pub use super::health::{
    AgentCheck, Check, CheckKind, CheckOpening, CheckStep, CheckTarget, Expect, HttpCheck, InitialState, Observe,
    OnError, Pattern, Schedule,
};
pub use super::places::Places;
pub use super::resolver::{Family, NameSource, Resolver};
use crate::proxy_protocol::Format;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PluginId(pub usize);

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

/// `process { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// `workers 4`: worker threads; none means one per CPU that the process may use.
    pub workers: Option<NonZeroUsize>,
    /// `max-connections 50000`: client connections over all frontends; beyond it, accepting pauses.
    pub max_connections: usize,
    /// Where that stands; nowhere for the default.
    pub max_connections_at: Option<SourceSpan>,
    /// `user "nobody"`: whom the process runs as once it has opened everything.
    pub user: Option<At<String>>,
    /// `group "nogroup"`: its group; the user's own when nothing is said.
    pub group: Option<At<String>>,
    /// `chroot "/var/lib/gateway"`: all that it sees of the file system then.
    pub chroot: Option<At<PathBuf>>,
    /// `pid-file "/run/gateway.pid"`: where its number is written.
    pub pid_file: Option<At<PathBuf>>,
    /// `log "stdout" format="json"`: where access and event lines go.
    pub log: Log,
    /// `policy memory="…" instances=…`: the pool that component instances come from.
    pub policy: PolicyPool,
    /// `rate-limit-table entries=…`: how many token buckets are remembered at most.
    pub max_buckets: usize,
    /// `admin "/run/gateway/admin.sock"`: where operators are heard; nowhere unless said.
    pub admin: Option<AdminSocket>,
    /// `drain-timeout "30s"`: how long connections may go on after the signal to end.
    pub drain_timeout: Duration,
}

/// `log "stdout" format="text"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Where lines go.
    pub target: LogTarget,
    /// How they look.
    pub format: LogFormat,
    /// Where it stands; nowhere when nothing was said.
    pub origin: Option<Origin>,
}

/// `admin "/run/gateway/admin.sock" mode="660" level="operator"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSocket {
    /// The socket's path.
    pub path: PathBuf,
    /// Its permissions, as of a file.
    pub mode: u32,
    /// What may be done there.
    pub level: AdminLevel,
    /// Where it stands; none where that does not matter.
    pub origin: Option<Origin>,
}

/// What may be done on an admin socket, each with all that is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminLevel {
    /// Look.
    User,
    /// Change servers' weights and states.
    Operator,
    /// End sessions.
    Admin,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
    /// A syslog server (RFC 5424).
    Syslog {
        /// Where it is.
        server: SyslogServer,
        /// What lines are filed under.
        facility: Facility,
    },
}

/// Where a syslog server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogServer {
    /// `/dev/log` or `unix://PATH`: a datagram socket on this machine.
    Unix(PathBuf),
    /// `udp://IP:PORT`: datagrams.
    Udp(SocketAddr),
    /// `tcp://IP:PORT`: a stream, with octet counting (RFC 6587).
    Tcp(SocketAddr),
}

impl fmt::Display for SyslogServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// The facilities of RFC 5424, section 6.2.1, under HAProxy's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names say all there is to say")]
pub enum Facility {
    Kern = 0,
    User = 1,
    Mail = 2,
    Daemon = 3,
    Auth = 4,
    Syslog = 5,
    Lpr = 6,
    News = 7,
    Uucp = 8,
    Cron = 9,
    Auth2 = 10,
    Ftp = 11,
    Ntp = 12,
    Audit = 13,
    Alert = 14,
    Cron2 = 15,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text, fields in HAProxy's order.
    Text,
    /// One JSON object a line.
    Json,
}

/// Bounds of the pool that component instances come from, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyPool {
    /// Component instances alive at once.
    pub instances: u32,
    /// Linear memory an instance may have at most, in bytes; a plugin's own `limit memory=` may only be smaller.
    pub memory: u64,
}

/// What a frontend or backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Bytes, relayed.
    Tcp,
    /// HTTP messages, understood.
    Http,
}

/// `frontend "web" { … }`: where clients arrive and what is decided about them.
#[derive(Debug, Clone)]
pub struct Frontend {
    /// Its name, unique among frontends.
    pub name: Arc<str>,
    /// What it speaks.
    pub mode: Mode,
    /// Where it listens; at least one.
    pub binds: Vec<Bind>,
    /// `max-connections 1000`: client connections of this frontend; beyond it, accepting pauses.
    pub max_connections: Option<usize>,
    /// Client-side timeouts.
    pub timeouts: ClientTimeouts,
    /// `tcp-keep-alive`; none when it is off.
    pub keep_alive: Option<KeepAlive>,
    /// `access-log` settings.
    pub access_log: AccessLog,
    /// `forwarded-for`: append the client's address to X-Forwarded-For. HTTP mode.
    pub forwarded_for: bool,
    /// Bounds on requests. HTTP mode.
    pub request_limits: RequestLimits,
    /// Named predicates, in the order of the text.
    pub acls: Vec<Acl>,
    /// `limit "per-ip"`: rate limits, in order. In TCP mode they count connections.
    pub limits: Vec<RateLimitId>,
    /// `deny status=403 if="…"`, in order; the first that holds wins.
    pub denies: Vec<Deny>,
    /// `use-backend "api" if="…"`, in order; the first that holds wins.
    pub routes: Vec<Route>,
    /// `default-backend "app"`. Without one, a request that no route takes gets 404.
    pub default_backend: Option<BackendId>,
    /// `request { … }`, in order. HTTP mode.
    pub request_edits: Vec<RequestEdit>,
    /// `response { … }`, in order. HTTP mode.
    pub response_edits: Vec<ResponseEdit>,
    /// `use-plugin "jwt-auth"`, in order.
    pub plugins: Vec<At<PluginId>>,
    /// Where the frontend stands.
    pub origin: Origin,
}

/// `bind "127.0.0.1:8080"`.
#[derive(Debug, Clone)]
pub struct Bind {
    /// The address to listen on. Port 0 asks the system for a free one.
    pub address: SocketAddr,
    /// `tls cert="…" key="…"`: TLS is terminated here.
    pub tls: Option<BindTls>,
    /// `accept-proxy`: connections begin with a PROXY header.
    pub accept_proxy: Option<AcceptProxy>,
    /// `alpn "h2" "http/1.1"`: the protocols that are agreed on, in order of preference; none means that none is.
    pub alpn: Vec<Vec<u8>>,
    /// Where it stands.
    pub origin: Origin,
}

/// `accept-proxy "10.0.0.0/8" timeout="5s"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptProxy {
    /// Whose connections begin with a header; all others are as if nothing had been said.
    pub trusted: Trusted,
    /// Until the whole header has come.
    pub timeout: Duration,
}

/// Whom a PROXY header is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// Whoever connects.
    Everyone,
    /// Who connects from one of these.
    Networks(Vec<IpNet>),
}

/// `tls cert="bundle.pem" key="key.pem"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindTls {
    /// PEM file with the certificate chain, leaf first; and the key, when `key` is none.
    pub cert: At<PathBuf>,
    /// PEM file with the private key.
    pub key: Option<At<PathBuf>>,
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

/// Client-side timeouts of a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// `client`: how long the client may be silent when it is its turn to send or to read.
    pub client: Duration,
    /// `http-request`: from the first byte of a request's head to its last.
    pub http_request: Duration,
    /// `http-keep-alive`: how long a connection may wait for its next request.
    pub http_keep_alive: Duration,
    /// `handshake`: how long TLS that is terminated here may take to come about.
    pub handshake: Duration,
    /// `handshake` as well: how long the ClientHello of TLS that passes through is waited for, where it is asked about.
    pub client_hello: Duration,
}

/// `access-log` settings of a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessLog {
    /// One line a request or connection. `access-log "off"` turns it off.
    pub enabled: bool,
    /// `skip-null`: none for a connection on which the client sent nothing.
    pub skip_null: bool,
}

/// `request-limits head="16KiB" headers=100 uri="8KiB" body="1GiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of a request's head, request line included: 431 beyond it.
    pub head: usize,
    /// Header fields of a request: 431 beyond it.
    pub headers: usize,
    /// Bytes of the request target: 414 beyond it.
    pub uri: usize,
    /// Bytes of a request's body: 413 beyond it. None means no limit.
    pub body: Option<u64>,
}

/// `acl "is-api" { path-prefix "/api/" }`.
#[derive(Debug, Clone)]
pub struct Acl {
    /// Its name, unique in the frontend.
    pub name: Arc<str>,
    /// What it asks.
    pub test: AclTest,
    /// Where it stands.
    pub origin: Origin,
}

/// What an acl asks.
#[derive(Debug, Clone)]
pub enum AclTest {
    /// Predicates of the first-party `acl` component.
    Match(Match),
    /// `plugin "geo" predicate="blocked"`: a predicate of a third-party component; its first one when none is named.
    Plugin {
        /// The plugin.
        plugin: PluginId,
        /// The predicate's name.
        predicate: Option<At<String>>,
    },
}

/// An expression over a request. Serialises to the configuration of the `acl` component.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Match {
    /// All hold; true when empty.
    All(Vec<Match>),
    /// One holds; false when empty.
    Any(Vec<Match>),
    /// It does not hold.
    Not(Box<Match>),
    /// The path, without the query.
    Path(Text),
    /// The host: exact names and `*.suffix` patterns, lower-case. `*.example.net` does not match `example.net`.
    Host(Vec<String>),
    /// The method, exactly.
    Method(Vec<String>),
    /// A request header; one of its values has to pass.
    Header(Named),
    /// A cookie; one of its values has to pass.
    Cookie(Named),
    /// A query parameter, percent-decoded; one of its values has to pass.
    Query(Named),
    /// The client's address is in one of the networks.
    Source(Vec<IpNet>),
    /// The client speaks TLS.
    Tls,
    /// The TLS server name: patterns as for `host`.
    Sni(Vec<String>),
    /// The address that the client connected to is in one of the networks.
    Destination(Vec<IpNet>),
    /// The port that the client connected to is in one of these ranges, ends included.
    Port(Vec<(u16, u16)>),
    /// The application protocol of TLS is one of these: the one agreed on, or one of those offered where TLS passes through.
    Alpn(Vec<String>),
    /// The time of day and week.
    Time(TimeMatch),
}

/// `time "08:00-18:00" days="mon-fri" zone="Europe/Berlin"`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TimeMatch {
    /// A name of the IANA's database; `UTC` unless said.
    pub zone: String,
    /// Days of the week, 1 for Monday; every day when empty.
    pub days: Vec<u8>,
    /// Minutes of the day, up to before the second; the whole day when empty. A range that ends before it begins goes on into
    /// the next day, and belongs to the one on which it began.
    pub ranges: Vec<(u16, u16)>,
}

impl Match {
    /// Whether it asks for what a ClientHello says.
    pub fn reads_client_hello(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::reads_client_hello),
            Self::Not(part) => part.reads_client_hello(),
            Self::Sni(_) | Self::Alpn(_) => true,
            _ => false,
        }
    }
}

/// A test of a named value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Named {
    /// Header names are lower-case here.
    pub name: String,
    /// The test; none asks only that it is there.
    pub value: Option<Text>,
}

/// A test of a text; one of the listed alternatives has to hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Text {
    /// Equal to one of these.
    Exact(Vec<String>),
    /// Begins with one of these.
    Prefix(Vec<String>),
    /// Ends with one of these.
    Suffix(Vec<String>),
    /// One of these matches somewhere. Syntax of the `regex` crate, on bytes; linear in time.
    Regex(Vec<String>),
}

/// `if="old and not beta"`: an expression over the frontend's acls.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// The named acl.
    Acl(AclId),
    /// It does not hold.
    Not(Box<Condition>),
    /// All hold.
    And(Vec<Condition>),
    /// One holds.
    Or(Vec<Condition>),
}

/// `deny status=403 if="…"`.
#[derive(Debug, Clone)]
pub struct Deny {
    /// The response's status, 400 to 599. In TCP mode the connection is closed.
    pub status: u16,
    /// When; none means always.
    pub when: Option<Condition>,
    /// Where it stands, for the log lines of what it refuses.
    pub origin: Origin,
}

/// `use-backend "api" if="…"`.
#[derive(Debug, Clone)]
pub struct Route {
    /// Where to.
    pub backend: BackendId,
    /// When.
    pub when: Condition,
}

/// An edit of a request. Serialises to the configuration of the `header-rewrite` component.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestEdit {
    /// `set-header "X-Pool" "api"`.
    SetHeader(HeaderValue),
    /// `add-header "X-Via" "edge"`.
    AddHeader(HeaderValue),
    /// `delete-header "X-Debug"`.
    DeleteHeader(HeaderName),
    /// `replace-header "X-Id" regex="^a" to="b"`: in each value.
    ReplaceHeader(HeaderReplace),
    /// `rewrite-path prefix="/old/" to="/new/"`, or `regex=`.
    RewritePath(Replace),
}

/// An edit of a response. Serialises to the configuration of the `header-rewrite` component.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResponseEdit {
    /// As for requests.
    SetHeader(HeaderValue),
    /// As for requests.
    AddHeader(HeaderValue),
    /// As for requests.
    DeleteHeader(HeaderName),
    /// As for requests.
    ReplaceHeader(HeaderReplace),
    /// `rewrite-location prefix="http://" to="https://"`, or `regex=`: edits the Location header.
    RewriteLocation(Replace),
}

/// A header and a value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeaderValue {
    /// Lower-case.
    pub name: String,
    /// The value.
    pub value: String,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeaderName {
    /// Lower-case.
    pub name: String,
}

/// A replacement in a header's values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeaderReplace {
    /// Lower-case.
    pub name: String,
    /// What becomes what.
    #[serde(flatten)]
    pub replace: Replace,
}

/// A replacement in a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replace {
    /// What is replaced.
    #[serde(flatten)]
    pub from: ReplaceFrom,
    /// By what. After `regex`, `$1` and `${name}` stand for captures and `$$` for a dollar.
    pub to: String,
}

/// What a replacement replaces. Where it is not found, nothing changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplaceFrom {
    /// The text's beginning.
    Prefix(String),
    /// The first match.
    Regex(String),
}

/// `rate-limit "per-ip" { key "client-ip"; allow "100/s" burst=200 }`. Serialises to an entry of the `rate-limit`
/// component's configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RateLimit {
    /// Its name, unique among rate limits.
    pub name: Arc<str>,
    /// What is counted together: the requests for which all of these are equal.
    pub key: Vec<RateKey>,
    /// Requests that become available per period.
    pub tokens: u64,
    /// The period in milliseconds.
    pub period_ms: u64,
    /// Requests that may come at once from rest; `tokens` unless said.
    pub burst: u64,
}

/// A part of a rate limit's key.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateKey {
    /// `key "client-ip" ipv4-prefix=32 ipv6-prefix=64`: the client's network.
    ClientIp {
        /// Leading bits of an IPv4 address that count, 0 to 32; 32 unless said.
        #[serde(rename = "ipv4-prefix")]
        ipv4_prefix: u8,
        /// Leading bits of an IPv6 address that count, 0 to 128; 64 unless said: one customer's network.
        #[serde(rename = "ipv6-prefix")]
        ipv6_prefix: u8,
    },
    /// `key "path"`.
    Path,
    /// `key "host"`.
    Host,
    /// `key "method"`.
    Method,
    /// `key "header" "x-api-key"`: every value; requests without it count together.
    Header(String),
    /// `key "cookie" "session"`: likewise.
    Cookie(String),
    /// `key "query" "token"`: likewise.
    Query(String),
}

/// `backend "app" { … }`: servers and how one is chosen.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its name, unique among backends.
    pub name: Arc<str>,
    /// What it speaks; the same as every frontend that uses it.
    pub mode: Mode,
    /// How a server is chosen.
    pub balance: Balance,
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
    /// `tcp-keep-alive`; none when it is off, or would never come to a probe.
    pub keep_alive: Option<KeepAlive>,
    /// How a server's health is known; none means servers are taken as up.
    pub check: Option<Check>,
    /// `agent-check`: an agent beside each server says what it can bear.
    pub agent: Option<AgentCheck>,
    /// `server-close`: a server connection serves one request. HTTP mode.
    pub server_close: bool,
    /// `pool max-idle=64 idle-timeout="30s"`: connections kept for reuse, per server and worker. HTTP mode.
    pub pool: Pool,
    /// `request { … }`, after the frontend's. HTTP mode.
    pub request_edits: Vec<RequestEdit>,
    /// `response { … }`, before the frontend's. HTTP mode.
    pub response_edits: Vec<ResponseEdit>,
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

/// `server "app-01" "10.0.0.1:8080" weight=2 backup`.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name, unique in the backend.
    pub name: Arc<str>,
    /// Where it is.
    pub address: ServerAddress,
    /// 0 to 256; 0 gets no new work.
    pub weight: u16,
    /// Used only when no other server is up.
    pub backup: bool,
    /// `slow-start="30s"`: how long its share grows after it came back, the backend's unless said.
    pub slow_start: Option<Duration>,
    /// What may end its sessions beside themselves: `on-marked-down` and the admin socket.
    pub session_end: SessionEnd,
    /// `max-connections=100`: requests or connections that it has under way at once; beyond it, they wait.
    pub max_connections: Option<NonZeroUsize>,
    /// `{ tls … }`: it is spoken to in TLS.
    pub tls: Option<ServerTls>,
    /// `send-proxy="v2"`: connections to it begin with a PROXY header.
    pub send_proxy: Option<Format>,
}

/// `tls ca="ca.pem" sni="db.example.net" cert="client.pem" key="client-key.pem"` and `alpn "…"` in a server's block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Whether the server has to show who it is, and to whom that is known.
    pub verify: Verify,
    /// The name that is asked for and verified; the server's address unless said.
    pub sni: Option<ServerName<'static>>,
    /// The certificate that is shown when the server asks for one.
    pub identity: Option<BindTls>,
    /// The protocols that are offered, in order of preference.
    pub alpn: Vec<Vec<u8>>,
    /// Where it stands.
    pub origin: Origin,
}

/// How a server shows who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// By a certificate for its name from one of these authorities.
    Required(Authorities),
    /// `verify="none"`: not at all. Whoever is in the way can read and change everything.
    None,
}

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorities {
    /// Those that the system trusts.
    System,
    /// `ca="ca.pem"`: those in this file, and no others.
    File(At<PathBuf>),
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// An address and port.
    Socket(SocketAddr),
    /// A name. The servers of a `server-template` share one, and each takes another of its addresses.
    Name(Arc<NameSource>),
    /// `"echo"`: a server built into the gateway, for demos and tests, started on a free loopback port. In HTTP mode it
    /// answers with what it was asked; in TCP mode it sends back what it gets.
    Echo,
}

/// Server-side timeouts of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTimeouts {
    /// `connect`: until the connection stands, TLS included.
    pub connect: Duration,
    /// `server`: how long the server may be silent when it is its turn to send or to read.
    pub server: Duration,
}

/// What may end a server's sessions beside the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// Nothing.
    Natural,
    /// An operator, by the admin socket.
    OnOrder,
    /// `on-marked-down="shutdown-sessions"`: that the server goes down; an operator, too.
    WhenDown,
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
    /// Attempts to connect after the first, at most [`MAX_RETRIES`].
    pub count: usize,
    /// Which of them go to another server.
    pub redispatch: Redispatch,
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

/// `pool max-idle=64 idle-timeout="30s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Idle connections kept per server and worker.
    pub max_idle: usize,
    /// How long one is kept.
    pub idle_timeout: Duration,
}

/// `plugin "geo" "geo.wasm" { … }`: a third-party component.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// Its name, unique among plugins.
    pub name: Arc<str>,
    /// The component's file.
    pub path: At<PathBuf>,
    /// `sha256 "…"`: refused when the file has another digest.
    pub sha256: Option<At<[u8; 32]>>,
    /// `grant "log" "buckets"`: imports it may use beside the ones every plugin may.
    pub grants: Vec<Grant>,
    /// `limit cpu="10ms" memory="16MiB"`.
    pub limits: PluginLimits,
    /// `on-failure "deny" status=503`, or `"skip"`. None only when it is attached nowhere that decides access.
    pub on_failure: Option<OnFailure>,
    /// The `config { … }` block as JSON; `{}` when there is none.
    pub config: String,
    /// Where what `config` says was written.
    pub config_places: Places,
    /// Where it stands.
    pub origin: Origin,
}

/// An import that has to be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grant {
    /// `gateway:policy/buckets`.
    Buckets,
    /// `gateway:policy/log`.
    Log,
    /// `gateway:policy/clock`.
    Clock,
}

/// What one call of a plugin may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginLimits {
    /// CPU time of a call, enforced to the millisecond.
    pub cpu: Duration,
    /// Linear memory of an instance, in bytes.
    pub memory: u64,
}

/// What an exchange gets when a plugin fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// This status, 400 to 599; in TCP mode the connection is closed.
    Deny(u16),
    /// It goes on as if the plugin were not there; a predicate reads false.
    Skip,
}

/// `stats { bind "127.0.0.1:8404" }`.
#[derive(Debug, Clone)]
pub struct Stats {
    /// Where `/metrics` is served.
    pub binds: Vec<SocketAddr>,
    /// Where it stands.
    pub origin: Origin,
}

impl AcceptProxy {
    /// Whether a connection from this address begins with a header.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        match &self.trusted {
            Trusted::Everyone => true,
            Trusted::Networks(networks) => networks.iter().any(|network| network.contains(&peer)),
        }
    }
}

impl RateKey {
    /// The key that `client-ip` means without further words.
    pub const CLIENT_IP: Self = Self::ClientIp {
        ipv4_prefix: 32,
        ipv6_prefix: 64,
    };
}

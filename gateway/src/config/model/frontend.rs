//! Frontends: where clients come in, and what they may do.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use super::{
    Acl, At, BackendId, BindTls, Captures, ClientHttp2, Compress, Condition, Conditional, Decompress, ErrorPage,
    Forwarding, Hsts, KeepAlive, LineFormat, LogChoice, LogTo, Mode, Monitor, NormalizePath, Origin, RateLimitId,
    RequestEdit, RequestId, ResponseEdit, Rule, Template, TenantId, UsedPlugin,
};
use crate::address::Address;

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
    /// `max-connection-rate "200/s"`: how fast connections are taken; none means as fast as they come.
    pub connection_rate: Option<ConnectionRate>,
    /// Client-side timeouts.
    pub timeouts: Arc<ClientTimeouts>,
    /// `tcp-keep-alive`; none when it is off.
    pub keep_alive: Option<KeepAlive>,
    /// `access-log` settings.
    pub access_log: AccessLog,
    /// Which lines are written beside that, and how they look; none when nothing is said of it.
    pub log_choice: Option<Arc<LogChoice>>,
    /// `capture`: what is kept of messages for their lines; none when nothing is. HTTP mode.
    pub captures: Option<Arc<Captures>>,
    /// What servers are told of the client, and who is believed; none when nothing is said of that. HTTP mode.
    pub forwarding: Option<Box<Forwarding>>,
    /// `request-id`: each request gets a number. HTTP mode.
    pub request_id: Option<Box<RequestId>>,
    /// `compress`: responses are compressed for who takes that. HTTP mode.
    pub compress: Option<Box<Compress>>,
    /// `decompress`: requests, responses or both are decoded. HTTP mode.
    pub decompress: Option<Box<Decompress>>,
    /// `hsts`: tell browsers to come back in TLS alone. HTTP mode.
    pub hsts: Option<Hsts>,
    /// `monitor`: a path that says whether clients should be sent here. HTTP mode.
    pub monitor: Option<Monitor>,
    /// Bounds on requests. HTTP mode.
    pub request_limits: RequestLimits,
    /// `http-keep-alive max-requests=1000 max-age="1h"`: how much and how long a client's connection is used. HTTP mode.
    pub http_keep_alive: HttpKeepAlive,
    /// `upgrades "websocket"`: the protocols that a connection may go over to. HTTP mode.
    pub upgrades: Upgrades,
    /// `http2`: bounds on HTTP/2. HTTP mode.
    pub http2: ClientHttp2,
    /// `normalize-path`: what becomes of a path before anything looks at it. None when it is off. HTTP mode.
    pub normalize_path: Option<NormalizePath>,
    /// `error-page`: at most one a status. HTTP mode.
    pub error_pages: Vec<ErrorPage>,
    /// Named predicates, in the order of the text; behind them those that rules and conditions ask without a name.
    pub acls: Vec<Acl>,
    /// `max-connections-per-source 100`: client connections of one source at once.
    pub per_source: Option<PerSource>,
    /// Of which connections that holds; none means of all. Its acls ask for addresses and the time only.
    pub per_source_when: Option<Condition>,
    /// `reject if="…"`, in order.
    pub rejects: Vec<Reject>,
    /// `limit "per-ip" connections`, in order; in TCP mode every `limit`. Their acls ask for addresses and the time only.
    pub connection_limits: Vec<UsedLimit>,
    /// `limit "per-ip"`: limits of requests, in order. HTTP mode.
    pub limits: Vec<UsedLimit>,
    /// `rate-limit-headers`: clients are told of the limits that apply to them. HTTP mode.
    pub rate_limit_headers: bool,
    /// `deny`, `redirect` and `return`, in order; the first that holds ends the request. In TCP mode they are all `deny`.
    pub rules: Vec<Rule>,
    /// What the backends that it leads to decide, of those that decide something.
    pub of_backends: Vec<OfBackend>,
    /// `use-backend "api" if="…"`, in order; the first that holds wins.
    pub routes: Vec<Route>,
    /// `default-backend "app"`. Without one, a request that no route takes gets 404.
    pub default_backend: Option<BackendId>,
    /// `request { … }`, in order. HTTP mode.
    pub request_edits: Vec<Conditional<RequestEdit>>,
    /// `response { … }`, in order. HTTP mode.
    pub response_edits: Vec<Conditional<ResponseEdit>>,
    /// `use-plugin "jwt-auth"`, in order, then those of the `tenants` that it serves.
    pub plugins: Vec<UsedPlugin>,
    /// `tenants "acme"`: whose hosts it serves, in order.
    pub tenants: Vec<TenantId>,
    /// Where the frontend stands.
    pub origin: Origin,
}

/// What a backend decides of the requests of a frontend.
#[derive(Debug, Clone)]
pub struct OfBackend {
    /// The backend.
    pub backend: BackendId,
    /// Where its acls begin among those of the frontend.
    pub first_acl: usize,
    /// Its rules, whose conditions are about the acls of the frontend.
    pub rules: Vec<Rule>,
}

impl Frontend {
    /// Where the acls of a backend begin among those of the frontend.
    pub fn first_acl(&self, backend: BackendId) -> usize {
        let known = self.of_backends.iter().find(|of| of.backend == backend);
        known.map_or(0, |of| of.first_acl)
    }

    /// How its access lines look, where that is said.
    pub fn line_format(&self) -> Option<&LineFormat> {
        self.log_choice.as_ref()?.format.as_ref()
    }

    /// The fields of requests that only the gateway and trusted proxies write, as far as the text names them; none where it
    /// names none.
    pub fn own_fields(&self) -> Option<Arc<[HeaderName]>> {
        let named = self.forwarding.iter().flat_map(|forwarding| forwarding.named_fields());
        let id = self.request_id.as_ref().map(|id| &id.header);
        let own: Arc<[HeaderName]> = named.chain(id).cloned().collect();
        (!own.is_empty()).then_some(own)
    }

    /// Which logs its access lines go to; none means the process's own.
    pub fn log_targets(&self) -> Option<&[LogTo]> {
        self.log_choice.as_ref()?.to.as_deref()
    }
}

/// `bind "127.0.0.1:8080"`.
#[derive(Debug, Clone)]
pub struct Bind {
    /// Where it listens. Port 0 asks the system for a free one.
    pub address: Address,
    /// Who may connect, where that is a UNIX socket's file.
    pub access: SocketAccess,
    /// What its sockets are told, where it is no UNIX socket.
    pub socket: SocketOptions,
    /// `tls cert="…"`: TLS is terminated here.
    pub tls: Option<BindTls>,
    /// `accept-proxy`: connections begin with a PROXY header.
    pub accept_proxy: Option<AcceptProxy>,
    /// `alpn "h2" "http/1.1"`: the protocols that are agreed on, in order of preference; none means that none is.
    pub alpn: Vec<Vec<u8>>,
    /// `backlog=1024`: connections that the kernel holds for each worker that is busy, at most.
    pub backlog: u32,
    /// Where it stands.
    pub origin: Origin,
}

/// `bind "unix:…" mode="660" user="www-data" group="www-data"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketAccess {
    /// Its permissions, as of a file: who may write may connect.
    pub mode: u32,
    /// Whom it belongs to, by name or number; none means whom the gateway is started as.
    pub user: Option<At<String>>,
    /// The group, likewise.
    pub group: Option<At<String>>,
}

/// `bind "0.0.0.0:443" interface="eth0" transparent tcp-user-timeout="30s" mss=1400 defer-accept` (socket(7), ip(7), tcp(7)).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SocketOptions {
    /// `interface=`: clients come over this interface alone; none means over any.
    pub interface: Option<Arc<str>>,
    /// `transparent`: the address need not be the machine's, and connections to others are taken that the system leads here.
    pub transparent: bool,
    /// `tcp-user-timeout=`: how long what has been sent may go unacknowledged; none leaves that to the system.
    pub user_timeout: Option<Duration>,
    /// `mss=`: bytes of a segment that clients are told of, and sent, at most; none leaves that to the system.
    pub mss: Option<u32>,
    /// `defer-accept`: a connection is taken when the client has sent something.
    pub defer_accept: bool,
}

/// `backlog=` where nothing is said: what current systems allow (`net.core.somaxconn`). A worker that is busy for a while loses
/// nobody, and what waits costs the kernel a few hundred bytes each.
pub const BACKLOG: u32 = 4096;

/// `max-connection-rate "200/s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionRate {
    /// How many; never zero.
    pub connections: u32,
    /// In what time; never zero.
    pub period: Duration,
}

/// `accept-proxy "10.0.0.0/8" timeout="5s"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptProxy {
    /// Whose connections begin with a header; all others are as if nothing had been said.
    pub trusted: Trusted,
    /// Until the whole header has come.
    pub timeout: Duration,
}

impl AcceptProxy {
    /// Whether a connection from this address begins with a header. None stands for a UNIX socket, which is in no network.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        match &self.trusted {
            Trusted::Everyone => true,
            Trusted::Networks(networks) => {
                peer.is_some_and(|peer| networks.iter().any(|network| network.contains(&peer)))
            }
        }
    }
}

/// Whom a PROXY header is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// Whoever connects.
    Everyone,
    /// Who connects from one of these.
    Networks(Vec<IpNet>),
}

/// Client-side timeouts of a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// `client`: how long the client may be silent when it is its turn to send or to read.
    pub client: Duration,
    /// `http-request`: from the first byte of a request's head to its last.
    pub http_request: Duration,
    /// `request-body`: from a request's head to the end of its content; none when only silence is bounded.
    pub request_body: Option<Duration>,
    /// `tunnel`: how long a relay may be idle, in place of `client` and `server`; a backend's own goes first.
    pub tunnel: Option<Duration>,
    /// `http-keep-alive`: how long a connection may wait for its next request.
    pub http_keep_alive: Duration,
    /// `unread`: how long a client is listened to whose request has been answered and is not taken any more.
    pub unread: Duration,
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
    /// Bytes that are read of a request that has been answered, when nobody takes them: the connection ends beyond it.
    pub unread: u64,
}

/// `http-keep-alive max-requests=1000 max-age="1h"`: beyond them a connection of HTTP ends in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HttpKeepAlive {
    /// Requests of one connection. None means as many as come.
    pub max_requests: Option<NonZeroU32>,
    /// How long it takes new ones. None means for ever.
    pub max_age: Option<Duration>,
}

/// `upgrades "websocket"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upgrades {
    /// Nothing was said: any protocol but HTTP itself.
    Any,
    /// These, in lower case. None with `upgrades "off"`.
    Only(Arc<[Box<str>]>),
}

impl Upgrades {
    /// Whether a request may ask for this protocol, given as in the `Upgrade` field: with a version if it has one. What is
    /// allowed without a version is allowed in every one.
    pub fn allow(&self, protocol: &str) -> bool {
        match self {
            Self::Any => !Self::is_http(protocol),
            Self::Only(allowed) => {
                let name = protocol.split('/').next().unwrap_or_default();
                allowed
                    .iter()
                    .any(|allowed| allowed.eq_ignore_ascii_case(protocol) || allowed.eq_ignore_ascii_case(name))
            }
        }
    }

    /// Whether a protocol is HTTP in another version. Going over to that would hide what follows from every rule, and
    /// RFC 9113 has given `h2c` up.
    pub fn is_http(protocol: &str) -> bool {
        let name = protocol.split('/').next().unwrap_or_default();
        HTTP.iter().any(|http| http.eq_ignore_ascii_case(name))
    }
}

/// The names of HTTP in `Upgrade` fields.
const HTTP: [&str; 4] = ["h2c", "h2", "h3", "http"];

/// `max-connections-per-source 100 ipv4-prefix=32 ipv6-prefix=64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerSource {
    /// Connections that a source may have at once; one at least.
    pub most: u32,
    /// Leading bits of an IPv4 address that make a source, 0 to 32; 32 unless said.
    pub ipv4_prefix: u8,
    /// Leading bits of an IPv6 address that make a source, 0 to 128; 64 unless said: one customer's network.
    pub ipv6_prefix: u8,
}

impl Default for PerSource {
    fn default() -> Self {
        Self {
            most: 1,
            ipv4_prefix: 32,
            ipv6_prefix: 64,
        }
    }
}

/// `limit "per-ip" unless="office"`.
#[derive(Debug, Clone)]
pub struct UsedLimit {
    /// Which.
    pub limit: RateLimitId,
    /// What it is asked about, and counts; none means everything.
    pub when: Option<Condition>,
    /// Where it stands.
    pub origin: Origin,
}

/// `reject if="…"`: ends connections right after they were accepted.
#[derive(Debug, Clone)]
pub struct Reject {
    /// When. Its acls ask for addresses and the time only.
    pub when: Condition,
    /// Where it stands, for the log lines of what it refuses.
    pub origin: Origin,
}

/// `use-backend "api" if="…"`.
#[derive(Debug, Clone)]
pub struct Route {
    /// Where to.
    pub to: RouteTo,
    /// When; none means always.
    pub when: Option<Condition>,
    /// Where it stands.
    pub origin: Origin,
}

/// Where a route leads.
#[derive(Debug, Clone)]
pub enum RouteTo {
    /// To this backend.
    Backend(BackendId),
    /// To the backend of this name; where there is none, the next route is asked.
    Named {
        /// The name.
        name: Template,
        /// Those that it may come out as.
        backends: Vec<BackendId>,
    },
}

impl RouteTo {
    /// All backends that it may lead to.
    pub fn backends(&self) -> &[BackendId] {
        match self {
            Self::Backend(backend) => std::slice::from_ref(backend),
            Self::Named { backends, .. } => backends,
        }
    }
}

//! Access lines: what is known of a request or connection when it has ended, as HAProxy's httplog and tcplog write it,
//! or as JSON. Writing allocates nothing but what the line's buffer grows by.

mod ending;
mod json;
mod parts;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
mod text;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::grpc::GrpcStatus;
use super::line::{Capturing, Connected};
use super::log::Severity;
use super::trace::{SpanId, TraceId};
use crate::config::{LineFormat, LogTo};
pub use ending::{Cause, CookieFlags, Phase, SetCookie, Termination};
pub use parts::push_ip;
pub(super) use parts::{UNIX, UNIX_PORT, clip, push_address, push_hex, push_number, version};

/// An HTTP exchange that has ended.
#[derive(Debug, Clone)]
pub struct HttpRecord<'a> {
    /// The client, as the gateway knows it; none of a UNIX socket.
    pub client: Option<SocketAddr>,
    /// The address that the client connected to, likewise. JSON only.
    pub destination: Option<SocketAddr>,
    /// When the first byte of the request came.
    pub started: SystemTime,
    /// The frontend.
    pub frontend: &'a str,
    /// The client spoke TLS; the frontend is written with a `~` then.
    pub tls: bool,
    /// What else lines may say of the connection.
    pub connection: &'a dyn Connected,
    /// The backend, if it came to that.
    pub backend: Option<&'a str>,
    /// The server, if it came to that.
    pub server: Option<&'a str>,
    /// How long each phase took.
    pub timers: HttpTimers,
    /// The status that the client got; none if it got none.
    pub status: Option<u16>,
    /// What an answer of gRPC said of its call; none of other answers. JSON only.
    pub grpc: Option<GrpcStatus>,
    /// Bytes of the response's body sent to the client.
    pub bytes_sent: u64,
    /// Bytes received from the client, heads included. JSON only.
    pub bytes_received: u64,
    /// How it ended.
    pub termination: Termination,
    /// What became of the cookies that keep the client at its server; none when there is no such thing.
    pub cookies: Option<CookieFlags>,
    /// What else was going on.
    pub counts: Counts,
    /// What was asked; none when it could not be understood.
    pub request: Option<RequestLine<'a>>,
    /// Whose host it was, where it is a tenant's.
    pub tenant: Option<&'a str>,
    /// Why the gateway itself answered, as `denied`, `rate-limited`, `policy-failure` or `bad-request`.
    pub reason: Option<&'a str>,
    /// The line of the configuration with the `deny` that held.
    pub rule: Option<usize>,
    /// The file with that line, where it is a tenant's.
    pub rule_file: Option<&'a str>,
    /// The number that `request-id` gave it.
    pub request_id: Option<&'a [u8]>,
    /// What was captured of it.
    pub captures: Option<Capturing<'a>>,
    /// What plugins have tagged it with: names and values. JSON only.
    pub tags: &'a [(Box<str>, Box<[u8]>)],
    /// How its line looks, where that was said.
    pub format: Option<&'a LineFormat>,
    /// Which logs it goes to; none means the process's own.
    pub to: Option<&'a [LogTo]>,
    /// How grave its line is.
    pub severity: Severity,
    /// The trace that it belongs to, and its span there.
    pub trace: Option<(TraceId, SpanId)>,
}

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// The method.
    pub method: &'a str,
    /// The Host header or authority. JSON only.
    pub host: Option<&'a [u8]>,
    /// The target as it came, in its parts: path and query, or whatever was sent.
    pub target: &'a [u8],
    /// The version.
    pub version: http::Version,
}

/// A TCP connection that has ended.
#[derive(Debug, Clone)]
pub struct TcpRecord<'a> {
    /// The client, as the gateway knows it; none of a UNIX socket.
    pub client: Option<SocketAddr>,
    /// The address that the client connected to, likewise. JSON only.
    pub destination: Option<SocketAddr>,
    /// When it was accepted.
    pub started: SystemTime,
    /// The frontend.
    pub frontend: &'a str,
    /// The client spoke TLS with the gateway.
    pub tls: bool,
    /// What else lines may say of the connection.
    pub connection: &'a dyn Connected,
    /// The backend, if it came to that.
    pub backend: Option<&'a str>,
    /// The server, if it came to that.
    pub server: Option<&'a str>,
    /// How long each phase took.
    pub timers: TcpTimers,
    /// Bytes sent to the client.
    pub bytes_sent: u64,
    /// Bytes received from the client. JSON only.
    pub bytes_received: u64,
    /// How it ended.
    pub termination: Termination,
    /// What else was going on.
    pub counts: Counts,
    /// Whose host it was for, where it is a tenant's.
    pub tenant: Option<&'a str>,
    /// Why the gateway itself ended it, as `denied` or `policy-failure`.
    pub reason: Option<&'a str>,
    /// The line of the configuration with the `deny` that held.
    pub rule: Option<usize>,
    /// The file with that line, where it is a tenant's.
    pub rule_file: Option<&'a str>,
    /// How its line looks, where that was said.
    pub format: Option<&'a LineFormat>,
    /// Which logs it goes to; none means the process's own.
    pub to: Option<&'a [LogTo]>,
    /// How grave its line is.
    pub severity: Severity,
}

/// How long each phase of an exchange took; none for one that never ran or did not end.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpTimers {
    /// TR: from the first byte of the request to the last of its head.
    pub request: Option<Duration>,
    /// Tw: waiting for a server to have room.
    pub queue: Option<Duration>,
    /// Tc: connecting to the server, retries included; zero on a connection that was reused.
    pub connect: Option<Duration>,
    /// Tr: from the request sent to the last byte of the response's head.
    pub response: Option<Duration>,
    /// Ta: from the first byte of the request to the last of the response.
    pub total: Duration,
}

/// How long each phase of a connection took; none for one that never ran or did not end.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpTimers {
    /// Tw: waiting for a server to have room.
    pub queue: Option<Duration>,
    /// Tc: connecting to the server, retries included.
    pub connect: Option<Duration>,
    /// Tt: from accept to close.
    pub total: Duration,
}

/// What was going on when a line was written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Client connections of the process.
    pub process: usize,
    /// Client connections of the frontend.
    pub frontend: usize,
    /// Requests or connections that the backend had under way.
    pub backend: usize,
    /// Requests or connections that the server had under way.
    pub server: usize,
    /// Attempts beyond the first.
    pub retries: u32,
    /// Whether one of them was made at another server.
    pub redispatched: bool,
    /// How many waited in the backend's queue before it.
    pub queue: usize,
}

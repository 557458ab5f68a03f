//! How servers' health is known: the part of the model that checks are made of.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use regex::bytes::Regex;

use super::model::ServerTls;

/// `check "http" interval="5s" rise=2 fall=3 { … }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What is done.
    pub kind: CheckKind,
    /// Where, when not where the server serves.
    pub target: CheckTarget,
    /// `tls …` in its block: how TLS is spoken for the check, in place of how traffic does, if it does.
    pub tls: Option<ServerTls>,
    /// When, and what results mean.
    pub schedule: Schedule,
    /// `observe "connect" …`: what failures of real traffic mean.
    pub observe: Option<Observe>,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckKind {
    /// A connection is made, these steps are gone through in order, and it is closed.
    Tcp(Vec<CheckStep>),
    /// A request is sent and its answer judged.
    Http(HttpCheck),
    /// The gRPC health protocol is spoken.
    Grpc(GrpcCheck),
}

/// `address="10.0.0.9" port=8080`: where checks go instead of where the server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckTarget {
    /// Another address; none means the server's.
    pub address: Option<IpAddr>,
    /// Another port; none means the server's.
    pub port: Option<u16>,
    /// How the connection begins there.
    pub opening: CheckOpening,
}

/// How a check's connection begins that goes elsewhere than traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckOpening {
    /// With what is checked.
    #[default]
    Plain,
    /// `as-traffic`: with a PROXY header and TLS, as connections of traffic to the server.
    AsTraffic,
}

/// When checks are made and what their results mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Between the starts of two checks of one server that is up.
    pub interval: Duration,
    /// `fast-interval`: the same while results speak against what is believed of the server.
    pub fast_interval: Duration,
    /// `down-interval`: the same while the server is down.
    pub down_interval: Duration,
    /// For one check as a whole; at most the interval.
    pub timeout: Duration,
    /// Checks in a row that have to pass before a server that is down is up.
    pub rise: u32,
    /// Checks in a row that have to fail before a server that is up is down.
    pub fall: u32,
    /// `initial`: what is believed before the first check.
    pub initial: InitialState,
}

/// What is believed of a server before its first check, as HAProxy's `init-state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialState {
    /// Up; one check that fails takes it down.
    Up,
    /// Up; it takes `fall` checks to take it down.
    FullyUp,
    /// Down; one check that passes takes it up.
    Down,
    /// Down; it takes `rise` checks to take it up.
    FullyDown,
}

/// A step of a TCP check.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckStep {
    /// `send "PING\r\n"` or `send hex="…"`: these bytes go out.
    Send(Vec<u8>),
    /// `expect prefix="+PONG"`: what has come since the last `send` has to be like this.
    Expect(Expect),
}

/// What a server has to say.
#[derive(Debug, Clone, PartialEq)]
pub enum Expect {
    /// It begins with these bytes.
    Prefix(Vec<u8>),
    /// These bytes are somewhere in it.
    Contains(Vec<u8>),
    /// The expression matches somewhere in it.
    Regex(Pattern),
}

/// A regular expression on bytes; equal to another of the same text.
#[derive(Clone)]
pub struct Pattern(pub Regex);

/// `send "GET" "/health" host="…" { header "X-Probe" "1" }; expect status=200; expect body-contains="ready"`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpCheck {
    /// The method.
    pub method: String,
    /// The request target.
    pub uri: String,
    /// The version that is spoken; none means that of traffic.
    pub version: Option<CheckVersion>,
    /// The Host header; the server's address unless said.
    pub host: Option<String>,
    /// Further header fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The request's body; empty unless said.
    pub body: Vec<u8>,
    /// Statuses by which a server that is up asks for no new work, whatever is expected.
    pub drain: Vec<(u16, u16)>,
    /// What the answer has to be like, all of it.
    pub expects: Vec<HttpExpect>,
    /// Bytes of the answer's body that are looked at.
    pub most_body: usize,
}

/// A version of HTTP that a check can be told to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckVersion {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// `expect status="200-299"` or `expect not body-contains="error"`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpExpect {
    /// It must not be so.
    pub negated: bool,
    /// What is looked at.
    pub test: HttpTest,
}

/// What is looked at in an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum HttpTest {
    /// The status is in one of these inclusive ranges.
    Status(Vec<(u16, u16)>),
    /// A value of the header is like this; without a test, the header is there.
    Header(HeaderName, Option<TextTest>),
    /// The body is like this.
    Body(TextTest),
}

/// What a text has to be like.
#[derive(Debug, Clone, PartialEq)]
pub enum TextTest {
    /// It is this.
    Exact(String),
    /// It begins with this.
    Prefix(String),
    /// This is somewhere in it.
    Contains(String),
    /// The expression matches somewhere in it.
    Regex(Pattern),
}

/// `check "grpc" service="shop.Orders"`: grpc.health.v1.Health/Check, whose answer has to be SERVING.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcCheck {
    /// The service that is asked for; empty means the server as a whole.
    pub service: String,
    /// What `:authority` says; the server's address unless said.
    pub host: Option<String>,
}

impl HttpExpect {
    /// Whether it is about the status.
    pub fn is_of_status(&self) -> bool {
        matches!(self.test, HttpTest::Status(_))
    }

    /// Whether it is about the body.
    pub fn is_of_body(&self) -> bool {
        matches!(self.test, HttpTest::Body(_))
    }
}

impl TextTest {
    /// Whether a text is like this.
    pub fn holds(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => text == exact.as_bytes(),
            Self::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Self::Contains(needle) => {
                needle.is_empty() || text.windows(needle.len()).any(|window| window == needle.as_bytes())
            }
            Self::Regex(pattern) => pattern.0.is_match(text),
        }
    }
}

/// As in "the body does not …".
impl fmt::Display for TextTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => write!(f, "equal {exact:?}"),
            Self::Prefix(prefix) => write!(f, "begin with {prefix:?}"),
            Self::Contains(needle) => write!(f, "contain {needle:?}"),
            Self::Regex(pattern) => write!(f, "match {pattern:?}"),
        }
    }
}

/// What of real traffic is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// `connect`: whether connections stand. HAProxy's `layer4`.
    Connect,
    /// `response`: whether there are answers, and what they say. HAProxy's `layer7`.
    Response,
}

/// `observe "connect" error-limit=10 on-error="mark-down"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observe {
    /// What is observed.
    pub what: Observed,
    /// Failures in a row before something is done about it.
    pub error_limit: u32,
    /// What is done.
    pub on_error: OnError,
}

/// What is done about a server that traffic cannot connect to, as HAProxy's `on-error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// It is checked at once and then at the fast interval.
    FastCheck,
    /// As if a check had failed.
    FailCheck,
    /// As if all checks but the last that takes it down had failed; it is checked at once.
    SuddenDeath,
    /// It is down.
    MarkDown,
}

/// `agent-check port=9777 interval="2s" send="state\n"`: HAProxy's agent protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCheck {
    /// Where the agent listens.
    pub port: u16,
    /// At which address; none means each server's.
    pub address: Option<IpAddr>,
    /// Between two questions.
    pub interval: Duration,
    /// For one question and its answer; at most the interval.
    pub timeout: Duration,
    /// What is sent before the answer is read; nothing unless said.
    pub send: Vec<u8>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0.as_str(), f)
    }
}

/// As the configuration says it, for messages.
impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |f: &mut fmt::Formatter<'_>, name: &str, bytes: &[u8]| {
            if bytes.is_ascii() && !bytes.iter().any(|byte| matches!(byte, 0..=8 | 14..=31 | 127)) {
                return write!(f, "{name}=\"{}\"", bytes.escape_ascii());
            }
            write!(f, "{name}-hex=\"")?;
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            f.write_str("\"")
        };
        match self {
            Self::Prefix(prefix) => bytes(f, "prefix", prefix),
            Self::Contains(needle) => bytes(f, "contains", needle),
            Self::Regex(pattern) => write!(f, "regex={pattern:?}"),
        }
    }
}

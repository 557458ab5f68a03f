//! What access lines say, and which of them are written.

use std::sync::Arc;

use http::HeaderName;

use super::{Condition, LogTo};

/// Which lines are written, and how they look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogChoice {
    /// `only-errors`: what went as it should is not logged.
    pub only_errors: bool,
    /// `separate-errors`: lines of errors have the severity of one.
    pub separate_errors: bool,
    /// `sample=0.01`: of what went as it should, so many in 2^32.
    pub sample: Option<u32>,
    /// `if=`, `unless=`: which are logged at all.
    pub when: Option<Condition>,
    /// `log "audit"`: which logs lines go to; none means the process's own.
    pub to: Option<Arc<[LogTo]>>,
    /// `log-format`: how lines look; none means HAProxy's fields, or JSON.
    pub format: Option<LineFormat>,
}

/// What is kept of messages for their line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Captures {
    /// Of the request. The first [`Self::shown`] are captures that the line shows by itself; the others are asked for by name.
    pub request: Vec<Capture>,
    /// Of the response, likewise.
    pub response: Vec<Capture>,
    /// How many of each the line shows by itself: of the request and of the response.
    pub shown: (usize, usize),
    /// `capture cookie=`: the one whose value the request and the response bring.
    pub cookie: Option<(String, usize)>,
}

/// Something that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// What it is.
    pub what: Captured,
    /// Bytes of it at most.
    pub max: usize,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Captured {
    /// The last value of the header.
    Header(HeaderName),
    /// The path, as it came. Of a request.
    Path,
    /// The value of the cookie. Of a request.
    Cookie(String),
    /// The first value of the query's parameter, percent-decoded. Of a request.
    QueryParam(String),
}

/// `log-format "%{client-ip} …"`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFormat {
    /// Its parts.
    pub parts: Vec<LinePart>,
}

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinePart {
    /// As it is.
    Text(String),
    /// Something of the exchange, and how what could break the line is written.
    Field(LineField, LineEscape),
}

/// How a value is kept from passing for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEscape {
    /// As HAProxy: `#` and two digits for what is not printable, for quotes and spaces.
    Word,
    /// The same, and spaces stay: it stands in quotes.
    Quoted,
    /// As within a string of JSON.
    Json,
}

/// What a line may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what the variable of its name is")]
pub enum LineField {
    Client,
    ClientIp,
    ClientPort,
    Destination,
    DestinationIp,
    DestinationPort,
    Date,
    Time,
    Timestamp,
    Frontend,
    FrontendTls,
    Backend,
    Server,
    IsTls,
    RequestTime,
    QueueTime,
    ConnectTime,
    ResponseTime,
    TotalTime,
    Status,
    GrpcStatus,
    BytesSent,
    BytesReceived,
    Termination,
    CookieFlags,
    ProcessConnections,
    FrontendConnections,
    BackendInFlight,
    ServerInFlight,
    Retries,
    Queue,
    Method,
    Authority,
    Host,
    HttpVersion,
    Scheme,
    Uri,
    Path,
    Query,
    Version,
    RequestLine,
    RequestId,
    TraceId,
    SpanId,
    Tenant,
    Reason,
    Rule,
    RequestCookie,
    ResponseCookie,
    Captures,
    ResponseCaptures,
    /// What TLS settled.
    Tls(TlsValue),
    /// By position among the captures of the request.
    RequestCapture(usize),
    /// By position among the captures of the response.
    ResponseCapture(usize),
}

/// What TLS settles about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what the variable of its name is")]
pub enum TlsValue {
    Version,
    Cipher,
    Sni,
    Alpn,
    ClientCertSubject,
    ClientCertCn,
    ClientCertIssuer,
    ClientCertSerial,
    ClientCertSan,
    ClientCertFingerprint,
    ClientCertNotBefore,
    ClientCertNotAfter,
    ClientCertDer,
    ClientCertVerify,
}

impl LineField {
    /// Whether only a request has it.
    pub fn is_of_request(self) -> bool {
        matches!(
            self,
            Self::RequestTime
                | Self::ResponseTime
                | Self::Status
                | Self::GrpcStatus
                | Self::Method
                | Self::Authority
                | Self::Host
                | Self::HttpVersion
                | Self::Scheme
                | Self::Uri
                | Self::Path
                | Self::Query
                | Self::Version
                | Self::RequestLine
                | Self::RequestId
                | Self::TraceId
                | Self::SpanId
                | Self::RequestCookie
                | Self::ResponseCookie
                | Self::Captures
                | Self::ResponseCaptures
                | Self::RequestCapture(_)
                | Self::ResponseCapture(_)
        )
    }
}

//! Access lines as a `log-format` has them, and what was captured for lines of all kinds.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::access::{self, CookieFlags, Counts, HttpRecord, RequestLine, TcpRecord, Termination};
use super::clock::Dates;
use super::escape;
use super::grpc::GrpcStatus;
use super::trace::{SpanId, TraceId};
use crate::authority;
use crate::config::{Captured, Captures, LineEscape, LineField, LineFormat, LinePart, TlsValue};

/// What was captured of an exchange.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// By position in [`Captures::request`].
    pub request: Vec<Option<Box<[u8]>>>,
    /// By position in [`Captures::response`].
    pub response: Vec<Option<Box<[u8]>>>,
    /// `NAME=VALUE` of the cookie, as the client sent it.
    pub request_cookie: Option<Box<[u8]>>,
    /// Likewise, as the server set it.
    pub response_cookie: Option<Box<[u8]>>,
}

/// What was captured, and what it is.
#[derive(Debug, Clone, Copy)]
pub struct Capturing<'a> {
    /// What was to be captured.
    pub of: &'a Captures,
    /// What was.
    pub kept: &'a Kept,
}

/// What lines may say of a connection beside its addresses.
pub trait Connected: std::fmt::Debug {
    /// What TLS settled, the first where there are several; none where there is none.
    fn tls_value(&self, what: TlsValue) -> Option<&[u8]>;
}

/// A connection of which nothing more is known.
impl Connected for () {
    fn tls_value(&self, _: TlsValue) -> Option<&[u8]> {
        None
    }
}

/// A line's values, whatever the line is of.
pub(super) struct Values<'a> {
    client: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    started: SystemTime,
    frontend: &'a str,
    backend: Option<&'a str>,
    server: Option<&'a str>,
    tls: bool,
    connection: &'a dyn Connected,
    request_time: Option<Duration>,
    queue_time: Option<Duration>,
    connect_time: Option<Duration>,
    response_time: Option<Duration>,
    total_time: Duration,
    status: Option<u16>,
    grpc: Option<GrpcStatus>,
    bytes_sent: u64,
    bytes_received: u64,
    termination: Termination,
    cookies: Option<CookieFlags>,
    counts: Counts,
    request: Option<RequestLine<'a>>,
    request_id: Option<&'a [u8]>,
    tenant: Option<&'a str>,
    reason: Option<&'a str>,
    rule: Option<usize>,
    captures: Option<Capturing<'a>>,
    trace: Option<(TraceId, SpanId)>,
}

impl<'a> From<&HttpRecord<'a>> for Values<'a> {
    fn from(record: &HttpRecord<'a>) -> Self {
        Self {
            client: record.client,
            destination: record.destination,
            started: record.started,
            frontend: record.frontend,
            backend: record.backend,
            server: record.server,
            tls: record.tls,
            connection: record.connection,
            request_time: record.timers.request,
            queue_time: record.timers.queue,
            connect_time: record.timers.connect,
            response_time: record.timers.response,
            total_time: record.timers.total,
            status: record.status,
            grpc: record.grpc,
            bytes_sent: record.bytes_sent,
            bytes_received: record.bytes_received,
            termination: record.termination,
            cookies: record.cookies,
            counts: record.counts,
            request: record.request,
            request_id: record.request_id,
            tenant: record.tenant,
            reason: record.reason,
            rule: record.rule,
            captures: record.captures,
            trace: record.trace,
        }
    }
}

impl<'a> From<&TcpRecord<'a>> for Values<'a> {
    fn from(record: &TcpRecord<'a>) -> Self {
        Self {
            client: record.client,
            destination: record.destination,
            started: record.started,
            frontend: record.frontend,
            backend: record.backend,
            server: record.server,
            tls: record.tls,
            connection: record.connection,
            request_time: None,
            queue_time: record.timers.queue,
            connect_time: record.timers.connect,
            response_time: None,
            total_time: record.timers.total,
            status: None,
            grpc: None,
            bytes_sent: record.bytes_sent,
            bytes_received: record.bytes_received,
            termination: record.termination,
            cookies: None,
            counts: record.counts,
            request: None,
            request_id: None,
            tenant: record.tenant,
            reason: record.reason,
            rule: record.rule,
            captures: None,
            trace: None,
        }
    }
}

impl Values<'_> {
    /// Appends a line, without its end.
    pub(super) fn write(&self, format: &LineFormat, out: &mut Vec<u8>, dates: &mut Dates) {
        for part in &format.parts {
            match part {
                LinePart::Text(text) => out.extend_from_slice(text.as_bytes()),
                LinePart::Field(field, escape) => self.field(*field, *escape, out, dates),
            }
        }
    }

    fn field(&self, field: LineField, escape: LineEscape, out: &mut Vec<u8>, dates: &mut Dates) {
        let number = |out: &mut Vec<u8>, number: u64| access::push_number(out, number);
        let target = self.request.map_or(&b""[..], |request| request.target);
        let split = target.iter().position(|byte| *byte == b'?');
        let kept = self.captures.map(|captures| captures.kept);
        let text: Option<&[u8]> = match field {
            LineField::Client => return access::push_address(out, self.client),
            LineField::ClientIp => return push_ip(out, self.client),
            LineField::ClientPort => return number(out, port(self.client)),
            LineField::Destination => return access::push_address(out, self.destination),
            LineField::DestinationIp => return push_ip(out, self.destination),
            LineField::DestinationPort => return number(out, port(self.destination)),
            LineField::Date => return dates.push_text(out, self.started),
            LineField::Time => return dates.push_iso(out, self.started),
            LineField::Timestamp => {
                let since = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
                number(out, since.as_secs());
                out.push(b'.');
                let millis = since.subsec_millis();
                out.extend([100, 10, 1].map(|place| b'0' + u8::try_from(millis / place % 10).unwrap_or(0)));
                return;
            }
            LineField::RequestTime => return push_millis(out, self.request_time),
            LineField::QueueTime => return push_millis(out, self.queue_time),
            LineField::ConnectTime => return push_millis(out, self.connect_time),
            LineField::ResponseTime => return push_millis(out, self.response_time),
            LineField::TotalTime => return push_millis(out, Some(self.total_time)),
            LineField::Status => match self.status {
                Some(status) => return number(out, status.into()),
                None => return out.extend_from_slice(b"-1"),
            },
            LineField::GrpcStatus => match self.grpc.and_then(GrpcStatus::number) {
                Some(status) => return number(out, status.into()),
                None => return out.push(b'-'),
            },
            LineField::BytesSent => return number(out, self.bytes_sent),
            LineField::BytesReceived => return number(out, self.bytes_received),
            LineField::Termination => return self.termination.push(out),
            LineField::CookieFlags => {
                return out.extend_from_slice(&self.cookies.map_or(*b"--", CookieFlags::letters));
            }
            LineField::ProcessConnections => return number(out, self.counts.process as u64),
            LineField::FrontendConnections => return number(out, self.counts.frontend as u64),
            LineField::BackendInFlight => return number(out, self.counts.backend as u64),
            LineField::ServerInFlight => return number(out, self.counts.server as u64),
            LineField::Retries => return number(out, self.counts.retries.into()),
            LineField::Queue => return number(out, self.counts.queue as u64),
            LineField::Rule => match self.rule {
                Some(rule) => return number(out, rule as u64),
                None => return out.push(b'-'),
            },
            LineField::TraceId | LineField::SpanId => {
                match &self.trace {
                    Some((trace, _)) if field == LineField::TraceId => access::push_hex(out, trace),
                    Some((_, span)) => access::push_hex(out, span),
                    None => out.push(b'-'),
                }
                return;
            }
            LineField::RequestLine => {
                match &self.request {
                    Some(request) => {
                        push(out, request.method.as_bytes(), escape);
                        out.push(b' ');
                        push(out, access::clip(request.target), escape);
                        out.push(b' ');
                        out.extend_from_slice(access::version(request.version).as_bytes());
                    }
                    None => out.extend_from_slice(b"<BADREQ>"),
                }
                return;
            }
            LineField::Captures | LineField::ResponseCaptures => {
                if let Some(captures) = &self.captures {
                    captures.write_block(field == LineField::Captures, out);
                }
                return;
            }
            LineField::FrontendTls => {
                push(out, self.frontend.as_bytes(), escape);
                if self.tls {
                    out.push(b'~');
                }
                return;
            }
            LineField::Frontend => Some(self.frontend.as_bytes()),
            LineField::Backend => self.backend.map(str::as_bytes),
            LineField::Server => self.server.map(str::as_bytes),
            LineField::IsTls => Some(if self.tls { b"tls" } else { b"-" }),
            LineField::Method => self.request.map(|request| request.method.as_bytes()),
            LineField::Authority => self.request.and_then(|request| request.host),
            LineField::Host => {
                let start = out.len();
                let host = self.request.and_then(|request| request.host).map(authority::host);
                push_or_none(out, host, escape);
                return out[start..].make_ascii_lowercase();
            }
            LineField::HttpVersion => self.request.map(|request| {
                let version = access::version(request.version);
                // HTTP/2 has no minor version.
                let number = version.strip_prefix("HTTP/").unwrap_or(version);
                number
                    .strip_suffix(".0")
                    .filter(|major| *major != "1")
                    .unwrap_or(number)
                    .as_bytes()
            }),
            LineField::Scheme => self.request.map(|_| if self.tls { &b"https"[..] } else { b"http" }),
            LineField::Tls(what) => self.connection.tls_value(what),
            LineField::Uri => self.request.map(|_| target),
            LineField::Path => self.request.map(|_| &target[..split.unwrap_or(target.len())]),
            LineField::Query => split.map(|split| &target[split + 1..]),
            LineField::Version => self.request.map(|request| access::version(request.version).as_bytes()),
            LineField::RequestId => self.request_id,
            LineField::Tenant => self.tenant.map(str::as_bytes),
            LineField::Reason => self.reason.map(str::as_bytes),
            LineField::RequestCookie => self
                .captures
                .and_then(|captures| captures.kept.request_cookie.as_deref()),
            LineField::ResponseCookie => self
                .captures
                .and_then(|captures| captures.kept.response_cookie.as_deref()),
            LineField::RequestCapture(position) => kept.and_then(|kept| kept.request.get(position)?.as_deref()),
            LineField::ResponseCapture(position) => kept.and_then(|kept| kept.response.get(position)?.as_deref()),
        };
        push_or_none(out, text, escape);
    }
}

impl Capturing<'_> {
    /// ` {shop.example|curl} {12}`, as HAProxy has it: a block for the request where something of it is captured, and one
    /// for the response.
    pub(super) fn write_text(&self, out: &mut Vec<u8>) {
        for is_request in [true, false] {
            let before = out.len();
            out.push(b' ');
            if !self.write_block(is_request, out) {
                out.truncate(before);
            }
        }
    }

    /// `{shop.example|curl}`; false when nothing of it is captured.
    fn write_block(&self, is_request: bool, out: &mut Vec<u8>) -> bool {
        let (shown, kept) = match is_request {
            true => (self.of.shown.0, &self.kept.request),
            false => (self.of.shown.1, &self.kept.response),
        };
        if shown == 0 {
            return false;
        }
        out.push(b'{');
        for position in 0..shown {
            if position > 0 {
                out.push(b'|');
            }
            escape::hash_capture(out, kept.get(position).and_then(Option::as_deref).unwrap_or_default());
        }
        out.push(b'}');
        true
    }

    /// ` SID=1 -`: the cookie of the request and that of the response.
    pub(super) fn write_cookies(&self, out: &mut Vec<u8>) {
        for cookie in [&self.kept.request_cookie, &self.kept.response_cookie] {
            out.push(b' ');
            match cookie.as_deref().filter(|cookie| !cookie.is_empty()) {
                Some(cookie) => escape::hash_word(out, cookie),
                None => out.push(b'-'),
            }
        }
    }

    /// `,"captures":{"host":"shop.example"}`, and likewise of the response and of the cookie.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        let (request, response) = self.of.shown;
        let lists = [
            (&b",\"captures\":{"[..], &self.of.request[..request], &self.kept.request),
            (
                b",\"response_captures\":{",
                &self.of.response[..response],
                &self.kept.response,
            ),
        ];
        for (key, of, kept) in lists {
            if of.is_empty() {
                continue;
            }
            out.extend_from_slice(key);
            for (position, capture) in of.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                let name = match &capture.what {
                    Captured::Header(name) => name.as_str(),
                    Captured::Cookie(name) | Captured::QueryParam(name) => name,
                    Captured::Path => "path",
                };
                escape::json(out, name.as_bytes());
                out.push(b':');
                match kept.get(position).and_then(Option::as_deref) {
                    Some(value) => escape::json(out, value),
                    None => out.extend_from_slice(b"null"),
                }
            }
            out.push(b'}');
        }
        if self.of.cookie.is_some() {
            let cookies = [
                (&b",\"request_cookie\":"[..], &self.kept.request_cookie),
                (b",\"response_cookie\":", &self.kept.response_cookie),
            ];
            for (key, cookie) in cookies {
                out.extend_from_slice(key);
                match cookie {
                    Some(cookie) => escape::json(out, cookie),
                    None => out.extend_from_slice(b"null"),
                }
            }
        }
    }
}

fn push_or_none(out: &mut Vec<u8>, text: Option<&[u8]>, escape: LineEscape) {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => push(out, access::clip(text), escape),
        None => out.push(b'-'),
    }
}

fn push(out: &mut Vec<u8>, text: &[u8], escape: LineEscape) {
    match escape {
        LineEscape::Word => escape::hash_word(out, text),
        LineEscape::Quoted => escape::hash(out, text),
        LineEscape::Json => escape::json_inner(out, text),
    }
}

fn push_ip(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    match address {
        Some(address) => access::push_ip(out, address.ip()),
        None => out.extend_from_slice(access::UNIX.as_bytes()),
    }
}

fn port(address: Option<SocketAddr>) -> u64 {
    address.map_or(access::UNIX_PORT, |address| address.port()).into()
}

fn push_millis(out: &mut Vec<u8>, time: Option<Duration>) {
    match time {
        Some(time) => access::push_number(out, time.as_millis()),
        None => out.extend_from_slice(b"-1"),
    }
}

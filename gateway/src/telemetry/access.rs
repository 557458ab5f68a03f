//! Access lines: what is known of a request or connection when it has ended, as HAProxy's httplog and tcplog write it,
//! or as JSON. Writing allocates nothing but what the line's buffer grows by.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::clock::Dates;
use super::escape;
use super::line::Capturing;
use super::log::Severity;
use super::trace::{SpanId, TraceId, context};
use crate::config::LineFormat;

/// An HTTP exchange that has ended.
#[derive(Debug, Clone)]
pub struct HttpRecord<'a> {
    /// The client, as the gateway knows it.
    pub client: SocketAddr,
    /// The address that the client connected to. JSON only.
    pub destination: SocketAddr,
    /// When the first byte of the request came.
    pub started: SystemTime,
    /// The frontend.
    pub frontend: &'a str,
    /// The client spoke TLS; the frontend is written with a `~` then.
    pub tls: bool,
    /// The backend, if it came to that.
    pub backend: Option<&'a str>,
    /// The server, if it came to that.
    pub server: Option<&'a str>,
    /// How long each phase took.
    pub timers: HttpTimers,
    /// The status that the client got; none if it got none.
    pub status: Option<u16>,
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
    /// Why the gateway itself answered, as `denied`, `rate-limited`, `policy-failure` or `bad-request`.
    pub reason: Option<&'a str>,
    /// The line of the configuration with the `deny` that held.
    pub rule: Option<usize>,
    /// The number that `request-id` gave it.
    pub request_id: Option<&'a [u8]>,
    /// What was captured of it.
    pub captures: Option<Capturing<'a>>,
    /// How its line looks, where that was said.
    pub format: Option<&'a LineFormat>,
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
    /// The client, as the gateway knows it.
    pub client: SocketAddr,
    /// The address that the client connected to. JSON only.
    pub destination: SocketAddr,
    /// When it was accepted.
    pub started: SystemTime,
    /// The frontend.
    pub frontend: &'a str,
    /// The client spoke TLS with the gateway.
    pub tls: bool,
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
    /// Why the gateway itself ended it, as `denied` or `policy-failure`.
    pub reason: Option<&'a str>,
    /// The line of the configuration with the `deny` that held.
    pub rule: Option<usize>,
    /// How its line looks, where that was said.
    pub format: Option<&'a LineFormat>,
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

/// How an exchange or connection ended: HAProxy's first two letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Termination {
    /// Who ended it.
    pub cause: Cause,
    /// What it was at then.
    pub phase: Phase,
}

/// What became of the cookies that keep a client at its server: the third and fourth letter of HAProxy's termination state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CookieFlags {
    /// What became of the client's: `N` none, `I` invalid, `D` of a server that is down, `V` valid, `E` expired, `O` old.
    pub request: u8,
    /// What the client was told.
    pub response: SetCookie,
}

/// What a client was told about its cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetCookie {
    /// `N`: nothing.
    None,
    /// `P`: what the server said.
    Present,
    /// `D`: nothing; what the server said was taken away.
    Deleted,
    /// `I`: the server's value, for the first time or anew.
    Inserted,
    /// `R`: the server's value, in what the server said.
    Rewritten,
    /// `U`: another date.
    Updated,
}

impl CookieFlags {
    /// As they are written.
    pub(super) fn letters(self) -> [u8; 2] {
        let response = match self.response {
            SetCookie::None => b'N',
            SetCookie::Present => b'P',
            SetCookie::Deleted => b'D',
            SetCookie::Inserted => b'I',
            SetCookie::Rewritten => b'R',
            SetCookie::Updated => b'U',
        };
        [self.request, response]
    }
}

/// Who ended an exchange or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cause {
    /// `-`: it ended as it should.
    #[default]
    Normal,
    /// `C`: the client broke it off.
    ClientAborted,
    /// `c`: the client was silent for too long.
    ClientTimeout,
    /// `S`: the server broke it off or refused it.
    ServerAborted,
    /// `s`: the server was silent for too long.
    ServerTimeout,
    /// `P`: the gateway stopped it: policy, a limit, or a message that is not as it should be.
    Proxy,
    /// `R`: the gateway lacked what it takes to go on.
    Resource,
    /// `I`: the gateway is at fault.
    Internal,
    /// `L`: the gateway answered by itself.
    Local,
    /// `D`: the server went down meanwhile.
    ServerDown,
    /// `K`: an operator ended it.
    Killed,
}

/// What an exchange or connection was at when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// `-`: it was through.
    #[default]
    Done,
    /// `R`: waiting for the whole request.
    Request,
    /// `Q`: waiting for a server to have room.
    Queue,
    /// `C`: connecting to the server.
    Connect,
    /// `H`: waiting for the whole head of the response.
    Headers,
    /// `D`: data were passing.
    Data,
    /// `L`: the client had not yet got the last of them.
    Last,
    /// `T`: the request was held back.
    Tarpit,
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
    /// How many waited in the backend's queue before it.
    pub queue: usize,
}

impl HttpRecord<'_> {
    /// Appends a line of text, without its end.
    pub(super) fn write_text(&self, out: &mut Vec<u8>, dates: &mut Dates) {
        push_origin(out, dates, self.client, self.started);
        push_names(out, self.frontend, self.tls, self.backend, self.server);
        let timers = &self.timers;
        let phases = [
            timers.request,
            timers.queue,
            timers.connect,
            timers.response,
            Some(timers.total),
        ];
        push_timers(out, &phases);
        out.push(b' ');
        match self.status {
            Some(status) => push_number(out, status),
            None => out.extend_from_slice(b"-1"),
        }
        out.push(b' ');
        push_number(out, self.bytes_sent);
        match self.captures.filter(|captures| captures.of.cookie.is_some()) {
            Some(captures) => captures.write_cookies(out),
            None => out.extend_from_slice(b" - -"),
        }
        out.push(b' ');
        self.termination.push(out);
        out.extend_from_slice(&self.cookies.map_or(*b"--", CookieFlags::letters));
        push_counts(out, self.counts);
        if let Some(captures) = &self.captures {
            captures.write_text(out);
        }
        out.extend_from_slice(b" \"");
        match &self.request {
            Some(request) => {
                escape::hash(out, request.method.as_bytes());
                out.push(b' ');
                escape::hash_word(out, clip(request.target));
                out.push(b' ');
                out.extend_from_slice(version(request.version).as_bytes());
            }
            None => out.extend_from_slice(b"<BADREQ>"),
        }
        out.push(b'"');
        push_reason(out, self.reason, self.rule);
        if let Some(id) = self.request_id {
            out.extend_from_slice(b" request_id=");
            escape::hash_word(out, id);
        }
        if let Some((trace, _)) = &self.trace {
            out.extend_from_slice(b" trace_id=");
            push_hex(out, trace);
        }
    }

    /// Appends a JSON object, without the line's end.
    pub(super) fn write_json(&self, out: &mut Vec<u8>, dates: &mut Dates) {
        push_json_origin(out, dates, self.client, self.destination, self.started);
        push_json_names(out, self.frontend, self.tls, self.backend, self.server);
        push_json_timer(out, "request_ms", self.timers.request);
        push_json_timer(out, "queue_ms", self.timers.queue);
        push_json_timer(out, "connect_ms", self.timers.connect);
        push_json_timer(out, "response_ms", self.timers.response);
        push_json_timer(out, "total_ms", Some(self.timers.total));
        push_key(out, "status");
        match self.status {
            Some(status) => push_number(out, status),
            None => out.extend_from_slice(b"null"),
        }
        push_json_bytes(out, self.bytes_received, self.bytes_sent);
        push_json_end(out, self.termination, self.counts);
        if let Some(cookies) = self.cookies {
            push_key(out, "cookie_flags");
            escape::json(out, &cookies.letters());
        }
        push_json_reason(out, self.reason, self.rule);
        if let Some(request) = &self.request {
            push_key(out, "method");
            escape::json(out, request.method.as_bytes());
            push_key(out, "host");
            push_json_text(out, request.host.map(clip));
            push_key(out, "target");
            escape::json(out, clip(request.target));
            push_key(out, "version");
            escape::json(out, version(request.version).as_bytes());
        }
        if let Some(id) = self.request_id {
            push_key(out, "request_id");
            escape::json(out, id);
        }
        if let Some((trace, span)) = &self.trace {
            out.extend_from_slice(b",\"trace_id\":\"");
            push_hex(out, trace);
            out.extend_from_slice(b"\",\"span_id\":\"");
            push_hex(out, span);
            out.push(b'"');
        }
        if let Some(captures) = &self.captures {
            captures.write_json(out);
        }
        out.push(b'}');
    }
}

impl TcpRecord<'_> {
    /// Appends a line of text, without its end.
    pub(super) fn write_text(&self, out: &mut Vec<u8>, dates: &mut Dates) {
        push_origin(out, dates, self.client, self.started);
        push_names(out, self.frontend, self.tls, self.backend, self.server);
        push_timers(out, &[self.timers.queue, self.timers.connect, Some(self.timers.total)]);
        out.push(b' ');
        push_number(out, self.bytes_sent);
        out.push(b' ');
        self.termination.push(out);
        push_counts(out, self.counts);
        push_reason(out, self.reason, self.rule);
    }

    /// Appends a JSON object, without the line's end.
    pub(super) fn write_json(&self, out: &mut Vec<u8>, dates: &mut Dates) {
        push_json_origin(out, dates, self.client, self.destination, self.started);
        push_json_names(out, self.frontend, self.tls, self.backend, self.server);
        push_json_timer(out, "queue_ms", self.timers.queue);
        push_json_timer(out, "connect_ms", self.timers.connect);
        push_json_timer(out, "total_ms", Some(self.timers.total));
        push_json_bytes(out, self.bytes_received, self.bytes_sent);
        push_json_end(out, self.termination, self.counts);
        push_json_reason(out, self.reason, self.rule);
        out.push(b'}');
    }
}

impl Termination {
    /// A way to end.
    pub fn new(cause: Cause, phase: Phase) -> Self {
        Self { cause, phase }
    }

    pub(super) fn push(self, out: &mut Vec<u8>) {
        let cause = match self.cause {
            Cause::Normal => b'-',
            Cause::ClientAborted => b'C',
            Cause::ClientTimeout => b'c',
            Cause::ServerAborted => b'S',
            Cause::ServerTimeout => b's',
            Cause::Proxy => b'P',
            Cause::Resource => b'R',
            Cause::Internal => b'I',
            Cause::Local => b'L',
            Cause::ServerDown => b'D',
            Cause::Killed => b'K',
        };
        let phase = match self.phase {
            Phase::Done => b'-',
            Phase::Request => b'R',
            Phase::Queue => b'Q',
            Phase::Connect => b'C',
            Phase::Headers => b'H',
            Phase::Data => b'D',
            Phase::Last => b'L',
            Phase::Tarpit => b'T',
        };
        out.extend_from_slice(&[cause, phase]);
    }
}

/// `127.0.0.1:51234 [06/Feb/2009:12:14:14.655] `
fn push_origin(out: &mut Vec<u8>, dates: &mut Dates, client: SocketAddr, started: SystemTime) {
    push_address(out, client);
    out.extend_from_slice(b" [");
    dates.push_text(out, started);
    out.extend_from_slice(b"] ");
}

/// `web~ app/app-1 `
fn push_names(out: &mut Vec<u8>, frontend: &str, tls: bool, backend: Option<&str>, server: Option<&str>) {
    escape::hash_word(out, frontend.as_bytes());
    if tls {
        out.push(b'~');
    }
    out.push(b' ');
    // HAProxy's habit: without a backend, the frontend stands in its place.
    escape::hash_word(out, backend.unwrap_or(frontend).as_bytes());
    out.push(b'/');
    match server {
        Some(server) => escape::hash_word(out, server.as_bytes()),
        None => out.extend_from_slice(b"<NOSRV>"),
    }
    out.push(b' ');
}

/// `10/0/30/69/109`
fn push_timers(out: &mut Vec<u8>, timers: &[Option<Duration>]) {
    for (i, timer) in timers.iter().enumerate() {
        if i > 0 {
            out.push(b'/');
        }
        match timer {
            Some(timer) => push_number(out, timer.as_millis()),
            None => out.extend_from_slice(b"-1"),
        }
    }
}

/// ` 1/1/1/1/0 0/0`: servers have no queues of their own.
fn push_counts(out: &mut Vec<u8>, counts: Counts) {
    let numbers = [counts.process, counts.frontend, counts.backend, counts.server];
    for (i, number) in numbers.into_iter().enumerate() {
        out.push(if i == 0 { b' ' } else { b'/' });
        push_number(out, number);
    }
    out.push(b'/');
    push_number(out, counts.retries);
    out.extend_from_slice(b" 0/");
    push_number(out, counts.queue);
}

/// The fields that HAProxy does not have; they stand last, and only when there is something to say.
fn push_reason(out: &mut Vec<u8>, reason: Option<&str>, rule: Option<usize>) {
    if let Some(reason) = reason {
        out.extend_from_slice(b" reason=");
        escape::hash_word(out, reason.as_bytes());
    }
    if let Some(rule) = rule {
        out.extend_from_slice(b" rule=");
        push_number(out, rule);
    }
}

fn push_json_origin(
    out: &mut Vec<u8>,
    dates: &mut Dates,
    client: SocketAddr,
    destination: SocketAddr,
    started: SystemTime,
) {
    out.extend_from_slice(b"{\"time\":\"");
    dates.push_iso(out, started);
    out.extend_from_slice(b"\",\"client\":\"");
    push_address(out, client);
    out.extend_from_slice(b"\",\"destination\":\"");
    push_address(out, destination);
    out.push(b'"');
}

fn push_json_names(out: &mut Vec<u8>, frontend: &str, tls: bool, backend: Option<&str>, server: Option<&str>) {
    push_key(out, "frontend");
    escape::json(out, frontend.as_bytes());
    push_key(out, "tls");
    out.extend_from_slice(if tls { b"true" } else { b"false" });
    push_key(out, "backend");
    push_json_text(out, backend.map(str::as_bytes));
    push_key(out, "server");
    push_json_text(out, server.map(str::as_bytes));
}

fn push_json_timer(out: &mut Vec<u8>, name: &str, timer: Option<Duration>) {
    push_key(out, name);
    match timer {
        Some(timer) => {
            push_number(out, timer.as_millis());
            out.push(b'.');
            let micros = timer.subsec_micros() % 1000;
            for place in [100, 10, 1] {
                out.push(b'0' + u8::try_from(micros / place % 10).unwrap_or(0));
            }
        }
        None => out.extend_from_slice(b"null"),
    }
}

fn push_json_bytes(out: &mut Vec<u8>, received: u64, sent: u64) {
    push_key(out, "bytes_received");
    push_number(out, received);
    push_key(out, "bytes_sent");
    push_number(out, sent);
}

fn push_json_end(out: &mut Vec<u8>, termination: Termination, counts: Counts) {
    push_key(out, "termination");
    out.push(b'"');
    termination.push(out);
    out.push(b'"');
    let numbers = [
        ("process_connections", counts.process),
        ("frontend_connections", counts.frontend),
        ("backend_in_flight", counts.backend),
        ("server_in_flight", counts.server),
    ];
    for (name, number) in numbers {
        push_key(out, name);
        push_number(out, number);
    }
    push_key(out, "retries");
    push_number(out, counts.retries);
    push_key(out, "queue");
    push_number(out, counts.queue);
}

fn push_json_reason(out: &mut Vec<u8>, reason: Option<&str>, rule: Option<usize>) {
    push_key(out, "reason");
    push_json_text(out, reason.map(str::as_bytes));
    push_key(out, "rule");
    match rule {
        Some(rule) => push_number(out, rule),
        None => out.extend_from_slice(b"null"),
    }
}

fn push_json_text(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => escape::json(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

fn push_key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Lower-case hexadecimal digits.
pub(super) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    context::write_hex(bytes, &mut out[start..]);
}

pub(super) fn push_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// An IPv4 address is most of them and takes a tenth of the time this way.
pub(super) fn push_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => {
            for (i, octet) in v4.ip().octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                push_number(out, octet);
            }
        }
        SocketAddr::V6(v6) => {
            use std::io::Write;
            // Writing to a Vec cannot fail. Without brackets, as HAProxy: the port follows the last colon.
            let _ = write!(out, "{}", v6.ip());
        }
    }
    out.push(b':');
    push_number(out, address.port());
}

/// What came from the network, in a length that a line can have.
pub(super) fn clip(text: &[u8]) -> &[u8] {
    &text[..text.len().min(MAX_VALUE)]
}

pub(super) fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "HTTP/0.9",
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        http::Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// As long as a target is unless more is allowed: lines that are longer than that help nobody.
const MAX_VALUE: usize = 8 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn http() -> HttpRecord<'static> {
        HttpRecord {
            client: ([10, 0, 1, 2], 33317).into(),
            destination: ([10, 0, 0, 1], 443).into(),
            started: UNIX_EPOCH + Duration::from_millis(1_233_922_454_655),
            frontend: "web",
            tls: false,
            backend: Some("app"),
            server: Some("app-1"),
            timers: HttpTimers {
                request: Some(Duration::from_millis(10)),
                queue: Some(Duration::ZERO),
                connect: Some(Duration::from_millis(30)),
                response: Some(Duration::from_micros(69_999)),
                total: Duration::from_millis(109),
            },
            status: Some(200),
            bytes_sent: 2750,
            bytes_received: 300,
            termination: Termination::default(),
            cookies: None,
            counts: Counts {
                process: 5,
                frontend: 4,
                backend: 3,
                server: 2,
                retries: 1,
                queue: 2,
            },
            request: Some(RequestLine {
                method: "GET",
                host: Some(b"example.net"),
                target: b"/index.html?a=1",
                version: http::Version::HTTP_11,
            }),
            reason: None,
            rule: None,
            request_id: None,
            captures: None,
            format: None,
            severity: Severity::default(),
            trace: None,
        }
    }

    fn tcp() -> TcpRecord<'static> {
        TcpRecord {
            client: "[2001:db8::1]:5432".parse().unwrap(),
            destination: "[2001:db8::2]:636".parse().unwrap(),
            started: UNIX_EPOCH + Duration::from_millis(1_233_922_454_655),
            frontend: "raw",
            tls: true,
            backend: Some("raw"),
            server: Some("raw-1"),
            timers: TcpTimers {
                queue: Some(Duration::ZERO),
                connect: None,
                total: Duration::from_millis(5007),
            },
            bytes_sent: 212,
            bytes_received: 17,
            termination: Termination::new(Cause::ServerTimeout, Phase::Connect),
            counts: Counts::default(),
            reason: None,
            rule: None,
            format: None,
            severity: Severity::default(),
        }
    }

    fn text(write: impl Fn(&mut Vec<u8>, &mut Dates)) -> String {
        let mut out = Vec::new();
        write(&mut out, &mut Dates::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_is_logged_in_haproxys_order() {
        let expected = "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] web app/app-1 10/0/30/69/109 200 2750 - - ---- \
                        5/4/3/2/1 0/2 \"GET /index.html?a=1 HTTP/1.1\"";
        assert_eq!(text(|out, dates| http().write_text(out, dates)), expected);
    }

    #[test]
    fn what_became_of_cookies_stands_beside_the_termination() {
        let record = HttpRecord {
            cookies: Some(CookieFlags {
                request: b'D',
                response: SetCookie::Inserted,
            }),
            ..http()
        };
        assert!(text(|out, dates| record.write_text(out, dates)).contains(" - - --DI 5/4/"));
        assert!(text(|out, dates| record.write_json(out, dates)).contains(r#","cookie_flags":"DI""#));
    }

    #[test]
    fn a_request_that_came_to_nothing_is_logged_with_what_there_is() {
        let record = HttpRecord {
            tls: true,
            backend: None,
            server: None,
            timers: HttpTimers {
                total: Duration::from_millis(3),
                ..HttpTimers::default()
            },
            status: None,
            request: None,
            termination: Termination::new(Cause::Proxy, Phase::Request),
            counts: Counts::default(),
            reason: Some("denied:a b\n"),
            rule: Some(12),
            request_id: None,
            captures: None,
            format: None,
            severity: Severity::default(),
            trace: None,
            ..http()
        };
        let expected = "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] web~ web/<NOSRV> -1/-1/-1/-1/3 -1 2750 - - PR-- \
                        0/0/0/0/0 0/0 \"<BADREQ>\" reason=denied:a#20b#0A rule=12";
        assert_eq!(text(|out, dates| record.write_text(out, dates)), expected);
    }

    #[test]
    fn a_connection_is_logged_in_haproxys_order() {
        let expected = "2001:db8::1:5432 [06/Feb/2009:12:14:14.655] raw~ raw/raw-1 0/-1/5007 212 sC 0/0/0/0/0 0/0";
        assert_eq!(text(|out, dates| tcp().write_text(out, dates)), expected);
    }

    #[test]
    fn json_has_the_same_in_names() {
        let line = text(|out, dates| http().write_json(out, dates));
        let expected = json!({
            "time": "2009-02-06T12:14:14.655Z", "client": "10.0.1.2:33317", "destination": "10.0.0.1:443",
            "frontend": "web", "tls": false, "backend": "app", "server": "app-1",
            "request_ms": 10.0, "queue_ms": 0.0, "connect_ms": 30.0, "response_ms": 69.999, "total_ms": 109.0,
            "status": 200, "bytes_received": 300, "bytes_sent": 2750, "termination": "--", "reason": null, "rule": null,
            "process_connections": 5, "frontend_connections": 4, "backend_in_flight": 3, "server_in_flight": 2,
            "retries": 1, "queue": 2, "method": "GET", "host": "example.net", "target": "/index.html?a=1", "version": "HTTP/1.1",
        });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);

        let line = text(|out, dates| tcp().write_json(out, dates));
        let value = serde_json::from_str::<Value>(&line).unwrap();
        assert_eq!(value["connect_ms"], Value::Null);
        assert_eq!(value["termination"], "sC");
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_forges_a_line(
            target in proptest::collection::vec(any::<u8>(), 0..60),
            host in proptest::collection::vec(any::<u8>(), 0..20),
            method in "[!-~]{1,10}",
            reason in any::<String>(),
        ) {
            let request = RequestLine { method: &method, host: Some(&host), target: &target, version: http::Version::HTTP_10 };
            let record = HttpRecord { request: Some(request), reason: Some(&reason), ..http() };
            let line = text(|out, dates| record.write_text(out, dates));
            prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(line.matches('"').count(), 2);
            // The fields before the request, the three of the request, and the reason.
            prop_assert_eq!(line.split(' ').count(), 16);

            let line = text(|out, dates| record.write_json(out, dates));
            prop_assert!(!line.contains('\n'));
            let value = serde_json::from_str::<Value>(&line).unwrap();
            prop_assert_eq!(value["target"].as_str().unwrap(), String::from_utf8_lossy(&target));
            prop_assert_eq!(value["reason"].as_str().unwrap(), reason);
        }
    }
}

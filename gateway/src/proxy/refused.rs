//! What came instead of a request: what the client is told of it, and what is logged and counted.
//!
//! hyper refuses a head that it cannot read by itself, with a bare status. What it writes then is not passed on (see
//! [`Connection::answer_begins`](super::connection::Connection::answer_begins)); the client gets the same answer as of every other
//! refusal, with the operator's page for its status.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use tokio::time::Instant;

use super::client::Client;
use super::error;
use super::informational;
use super::local::Local;
use super::own_answers;
use crate::config::RequestLimits;
use crate::snapshot::Frontend;
use crate::telemetry::access::{Cause, Counts, HttpRecord, HttpTimers, Phase, Termination};
use crate::telemetry::choice;

/// What came instead of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Bytes that are not HTTP, or not as it should be; the reason.
    Malformed(&'static str),
    /// HTTP on a port with TLS.
    PlainHttp,
    /// A request line whose version is none, or none that is spoken here.
    Version,
    /// A head that is larger than allowed.
    TooLarge,
    /// A request target that is longer than allowed, in a head that is too large.
    UriTooLong,
    /// A head that did not come whole in time.
    Timeout,
    /// A head in whose middle the client left.
    Aborted,
    /// Nothing: the client left without a word.
    Null,
    /// Nothing, in all the time that a head may take.
    Silent,
    /// Frames that break the rules of HTTP/2.
    Protocol,
    /// A stream of HTTP/2 whose head was refused, or that was one too many.
    Stream,
    /// Streams of HTTP/2 that were reset, more than allowed.
    Resets,
    /// Frames of HTTP/2 that carry nothing of a request, more than allowed.
    Controls,
}

impl Refusal {
    /// What hyper made of a head that it could not read; none when the connection broke instead.
    pub fn of(error: &hyper::Error) -> Option<Self> {
        if error.is_parse_too_large() {
            Some(Self::TooLarge)
        } else if error.is_incomplete_message() {
            Some(Self::Aborted)
        } else if error.is_parse() {
            // It says no more than this of what it was.
            let what = error.to_string();
            let known = KNOWN.iter().find(|(says, _)| what.contains(says));
            Some(known.map_or(Self::Malformed("bad-request"), |(_, refusal)| *refusal))
        } else {
            None
        }
    }

    /// The same, after a look at what came: hyper does not tell a target that is too long from a head that is, nor a version
    /// from what only stands in its place.
    pub fn of_head(self, head: &[u8], limits: &RequestLimits) -> Self {
        let line = head
            .split(|byte| matches!(byte, b'\r' | b'\n'))
            .next()
            .unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ').skip(1);
        let (target, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match self {
            Self::TooLarge if target.len() > limits.uri => Self::UriTooLong,
            Self::Version if !is_version(version) => Self::Malformed("bad-request"),
            refusal => refusal,
        }
    }

    /// What the client is told, if it is told anything.
    fn status(self) -> Option<StatusCode> {
        match self {
            Self::Malformed(_) | Self::PlainHttp => Some(StatusCode::BAD_REQUEST),
            Self::Version => Some(StatusCode::HTTP_VERSION_NOT_SUPPORTED),
            Self::TooLarge => Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::UriTooLong => Some(StatusCode::URI_TOO_LONG),
            Self::Timeout => Some(StatusCode::REQUEST_TIMEOUT),
            // A browser that connects in advance would take it for the answer to what it asks next.
            Self::Silent => None,
            Self::Aborted | Self::Null | Self::Protocol | Self::Stream | Self::Resets | Self::Controls => None,
        }
    }

    /// A label for logs and metrics.
    fn reason(self) -> &'static str {
        match self {
            Self::Malformed(what) => what,
            Self::PlainHttp => "plain-http",
            Self::Version => "bad-version",
            Self::TooLarge => "head-too-large",
            Self::UriTooLong => "uri-too-long",
            Self::Timeout => "request-timeout",
            Self::Aborted => "request-aborted",
            Self::Null | Self::Silent => "no-request",
            Self::Protocol => "http2-protocol",
            Self::Stream => "http2-stream",
            Self::Resets => "http2-resets",
            Self::Controls => "http2-frames",
        }
    }

    fn cause(self) -> Cause {
        match self {
            Self::Timeout | Self::Silent => Cause::ClientTimeout,
            Self::Aborted | Self::Null => Cause::ClientAborted,
            _ => Cause::Proxy,
        }
    }
}

/// Answers a head that was refused, with the operator's page where there is one; logs and counts it. Nothing may be on its way
/// to the client any more; afterwards its connection has ended.
pub async fn answer(local: &Rc<Local>, frontend: &Arc<Frontend>, client: &Rc<Client>, refusal: Refusal) {
    let is_heard = client.connection.is_silent();
    let Some(status) = refusal.status().filter(|_| is_heard) else {
        return note(local, frontend, client, refusal);
    };
    let words = match refusal {
        Refusal::PlainHttp => error::with_words(status, PLAIN_HTTP),
        _ => error::in_own_words(status),
    };
    let (response, body) = last_response(local, frontend, client, words).into_parts();
    let response = Response::from_parts(response, ());
    let mut bytes = informational::encode(&response);
    bytes.extend_from_slice(&body);
    log(local, frontend, client, refusal, body.len() as u64);
    client.connection.last_word(&bytes, LAST_WORD).await;
}

/// Logs and counts a connection on which no (further) request came, and a stream of one.
pub fn note(local: &Rc<Local>, frontend: &Arc<Frontend>, client: &Rc<Client>, refusal: Refusal) {
    log(local, frontend, client, refusal, 0);
}

/// These words or the operator's, as the last response of a connection.
fn last_response(
    local: &Rc<Local>,
    frontend: &Frontend,
    client: &Client,
    mut response: Response<Bytes>,
) -> Response<Bytes> {
    let status = response.status();
    if let Some(page) = local.snapshot.page(frontend, None, status) {
        page.dress(&mut response);
    }
    let mut response = own_answers::edit_refusal(local, frontend, client, response);
    let length = response.body().len();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())) {
        headers.insert(header::DATE, date);
    }
    if let Some(hsts) = &frontend.hsts
        && client.facts.tls.is_some()
    {
        hsts.say(headers);
    }
    response
}

fn log(local: &Rc<Local>, frontend: &Arc<Frontend>, client: &Rc<Client>, refusal: Refusal, bytes_sent: u64) {
    let (status, reason) = (refusal.status().map(|status| status.as_u16()), refusal.reason());
    let now = Instant::now();
    let since = match refusal {
        Refusal::Null | Refusal::Silent | Refusal::PlainHttp => client.facts.accepted,
        _ => client.turns.head_since().unwrap_or(now),
    };
    let total = now.saturating_duration_since(since);
    let metrics = &frontend.metrics;
    let (read, written) = client.connection.take_traffic();
    metrics.bytes(read, written);
    if !matches!(refusal, Refusal::Null | Refusal::Silent) {
        if status.is_some() {
            metrics.response(status, total);
        }
        metrics.error(reason);
    }
    let termination = Termination {
        cause: refusal.cause(),
        phase: Phase::Request,
    };
    let choice = frontend.config.log_choice.as_deref();
    let Some(severity) = choice::severity(choice, termination, status, None, 0) else {
        return;
    };
    if !frontend.config.access_log.enabled {
        return;
    }
    local.log().http(&HttpRecord {
        client: client.facts.client(),
        destination: client.facts.local(),
        started: SystemTime::now() - total,
        frontend: frontend.name(),
        tls: client.facts.tls.is_some(),
        connection: &*client.facts,
        backend: None,
        server: None,
        timers: HttpTimers {
            total,
            ..HttpTimers::default()
        },
        status,
        grpc: None,
        bytes_sent,
        bytes_received: read,
        termination,
        cookies: None,
        counts: Counts {
            process: local.registry().process().connections(),
            frontend: metrics.connections(),
            ..Counts::default()
        },
        request: None,
        tenant: None,
        reason: Some(reason),
        rule: None,
        rule_file: None,
        request_id: None,
        captures: None,
        tags: &[],
        format: frontend.config.line_format(),
        to: frontend.config.log_targets(),
        severity,
        trace: None,
    });
}

/// `HTTP/`, a digit, a point and a digit (RFC 9112, section 2.3).
fn is_version(word: &[u8]) -> bool {
    matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// What hyper says of a head that it cannot read. Everything else is no request at all.
const KNOWN: [(&str, Refusal); 5] = [
    ("header parsed", Refusal::Malformed("bad-header")),
    ("content-length", Refusal::Malformed("bad-length")),
    ("transfer-encoding", Refusal::Malformed("bad-transfer-encoding")),
    ("URI", Refusal::Malformed("bad-target")),
    ("version", Refusal::Version),
];

/// What nginx says as well, by which people know what is wrong.
const PLAIN_HTTP: &str = "The plain HTTP request was sent to HTTPS port";

/// How long a client is given to take its last response and to end, while what it still sends is thrown away: some round trips.
pub(super) const LAST_WORD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_more_than_the_parser() {
        let limits = RequestLimits {
            head: 20,
            headers: 10,
            uri: 8,
            body: None,
            unread: 0,
        };
        for (head, said, meant) in [
            ("GET /123456789 HTTP/1.1\r\n", Refusal::TooLarge, Refusal::UriTooLong),
            ("GET /123456789", Refusal::TooLarge, Refusal::UriTooLong),
            ("GET / HTTP/1.1\r\nX: 1234567890", Refusal::TooLarge, Refusal::TooLarge),
            ("GETGETGETGET", Refusal::TooLarge, Refusal::TooLarge),
            ("", Refusal::TooLarge, Refusal::TooLarge),
            ("GET / HTTP/2.0\r\n", Refusal::Version, Refusal::Version),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refusal::Version, Refusal::Version),
            ("GET / HTTP/3\r\n", Refusal::Version, Refusal::Malformed("bad-request")),
            ("GET / http/1.1\n", Refusal::Version, Refusal::Malformed("bad-request")),
            (
                "GET / HTTPS/1.1\r\n",
                Refusal::Version,
                Refusal::Malformed("bad-request"),
            ),
            (
                "GET /a b HTTP/1.1\r\n",
                Refusal::Version,
                Refusal::Malformed("bad-request"),
            ),
        ] {
            assert_eq!(said.of_head(head.as_bytes(), &limits), meant, "{head:?}");
        }
    }
}

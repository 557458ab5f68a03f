//! The spans of an exchange: one of the gateway as a server, and one for each attempt at a server.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::{self, HeaderValue};
use tokio::time::Instant;

use super::record::ERROR_PAGE;
use crate::backend::Backend;
use crate::telemetry::access::{Cause, HttpRecord};
use crate::telemetry::grpc::GrpcStatus;
use crate::telemetry::trace::{self, Kind, Span, SpanId, TraceId, Tracer, Value, context};

/// A trace that an exchange belongs to.
#[derive(Debug)]
pub struct Trace {
    id: TraceId,
    parent: Option<SpanId>,
    span: SpanId,
    is_sampled: bool,
    user_agent: Option<HeaderValue>,
    attempts: Vec<Attempt>,
}

/// An attempt at a server.
#[derive(Debug)]
struct Attempt {
    span: SpanId,
    backend: Arc<Backend>,
    server: usize,
    started: Instant,
    /// When the next one began.
    ended: Option<Instant>,
}

impl Trace {
    /// Takes up the trace that a request comes with, or begins one. The field of one that cannot be understood goes, and with it
    /// what hangs on it (W3C Trace Context, section 4.3). So does a stranger's, who could have everything recorded by it.
    pub fn begin(tracer: &Tracer, headers: &mut HeaderMap, is_strangers: bool) -> Box<Self> {
        let parent = context::parent(headers).filter(|_| !is_strangers);
        let mut this = Self {
            id: parent.map_or_else(trace::trace_id, |parent| parent.trace),
            parent: parent.map(|parent| parent.span),
            span: trace::span_id(),
            is_sampled: parent.map_or_else(|| tracer.draws(), |parent| parent.sampled),
            user_agent: None,
            attempts: Vec::new(),
        };
        if parent.is_none() {
            headers.remove(context::TRACESTATE);
            let value = context::traceparent(&this.id, &this.span, this.is_sampled);
            headers.insert(context::TRACEPARENT, value);
        }
        if this.is_sampled {
            this.user_agent = headers.get(header::USER_AGENT).cloned();
        }
        Box::new(this)
    }

    /// What log lines say of it.
    pub fn ids(&self) -> (TraceId, SpanId) {
        (self.id, self.span)
    }

    /// A server is tried; it is told which span calls it.
    pub fn attempt(&mut self, backend: &Arc<Backend>, server: usize, headers: &mut HeaderMap) {
        if !self.is_sampled || self.attempts.len() >= MAX_ATTEMPTS {
            return;
        }
        let now = Instant::now();
        if let Some(last) = self.attempts.last_mut() {
            last.ended = Some(now);
        }
        let span = trace::span_id();
        headers.insert(context::TRACEPARENT, context::traceparent(&self.id, &span, true));
        self.attempts.push(Attempt {
            span,
            backend: backend.clone(),
            server,
            started: now,
            ended: None,
        });
    }

    /// Hands the spans over of an exchange that has ended and is logged like this.
    pub fn finish(&mut self, tracer: &Tracer, record: &HttpRecord<'_>) {
        if !self.is_sampled {
            return;
        }
        let now = Instant::now();
        let wall = SystemTime::now();
        let at = |instant: Instant| wall - now.saturating_duration_since(instant);
        let status = record.status;
        let mut spans = Vec::with_capacity(1 + self.attempts.len());
        spans.push(self.server_span(record, wall));
        let last = self.attempts.len().saturating_sub(1);
        for (position, attempt) in self.attempts.drain(..).enumerate() {
            let server = &attempt.backend.servers[attempt.server];
            let mut attributes = request_attributes(record);
            if let Some(address) = server.address() {
                match address.socket() {
                    Some(address) => {
                        attributes.push(("server.address", Value::Text(address.ip().to_string())));
                        attributes.push(("server.port", Value::Number(address.port().into())));
                    }
                    // A path, or a name in the abstract namespace.
                    None => attributes.push(("server.address", Value::Text(address.to_string()))),
                }
                attributes.push((
                    "url.full",
                    Value::Text(url(server.has_tls(), &address.authority(), record)),
                ));
            }
            attributes.push(("gateway.backend", Value::Text(attempt.backend.name.to_string())));
            attributes.push(("gateway.server", Value::Text(server.name.to_string())));
            if position > 0 {
                attributes.push((
                    "http.request.resend_count",
                    Value::Number(i64::try_from(position).unwrap_or(0)),
                ));
            }
            // What the client got came from the last one, unless the gateway itself answered. A page changes nothing about what the
            // server has answered.
            let is_last = position == last;
            let answered = is_last && record.reason.is_none_or(|reason| reason == ERROR_PAGE);
            let failed = match status {
                Some(status) if answered => {
                    attributes.push(("http.response.status_code", Value::Number(status.into())));
                    push_grpc(&mut attributes, record);
                    status >= 400
                        || record
                            .grpc
                            .and_then(GrpcStatus::number)
                            .is_some_and(|number| number != 0)
                }
                _ => true,
            };
            if failed {
                let why = match (answered, status) {
                    (true, Some(status)) => error_type(record, status),
                    _ if is_last => record.reason.unwrap_or("aborted").to_owned(),
                    _ => "retried".to_owned(),
                };
                attributes.push(("error.type", Value::Text(why)));
            }
            spans.push(Span {
                trace: self.id,
                id: attempt.span,
                parent: Some(self.span),
                kind: Kind::Client,
                name: method(record).to_owned(),
                started: at(attempt.started),
                ended: attempt.ended.map_or(wall, at),
                attributes,
                failed,
            });
        }
        tracer.finished(spans);
    }

    fn server_span(&self, record: &HttpRecord<'_>, ended: SystemTime) -> Span {
        let mut attributes = request_attributes(record);
        let scheme = if record.tls { "https" } else { "http" };
        attributes.push(("url.scheme", Value::Text(scheme.to_owned())));
        if let Some(client) = record.client {
            attributes.push(("client.address", Value::Text(client.ip().to_string())));
        }
        if let Some(request) = &record.request {
            let (path, query) = split(request.target);
            attributes.push(("url.path", Value::Text(lossy(path))));
            if let Some(query) = query {
                attributes.push(("url.query", Value::Text(lossy(query))));
            }
            if let Some(host) = request.host {
                let host = lossy(host);
                let (name, port) = match host.rsplit_once(':') {
                    Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
                    _ => (host.as_str(), None),
                };
                attributes.push(("server.address", Value::Text(name.to_owned())));
                if let Some(port) = port {
                    attributes.push(("server.port", Value::Number(port)));
                }
            }
        }
        if let Some(agent) = &self.user_agent {
            attributes.push(("user_agent.original", Value::Text(lossy(agent.as_bytes()))));
        }
        attributes.push(("gateway.frontend", Value::Text(record.frontend.to_owned())));
        if let Some(status) = record.status {
            attributes.push(("http.response.status_code", Value::Number(status.into())));
        }
        push_grpc(&mut attributes, record);
        // A client that asks for what is not there is no fault of the server's.
        let failed = match record.status {
            Some(status) => {
                status >= 500
                    || (status == 200 && record.grpc.is_some_and(GrpcStatus::is_servers_fault))
                    || matches!(record.termination.cause, Cause::ServerAborted | Cause::ServerTimeout)
            }
            None => true,
        };
        if failed {
            let why = record.reason.map(str::to_owned);
            let why = why.or_else(|| record.status.map(|status| error_type(record, status)));
            attributes.push(("error.type", Value::Text(why.unwrap_or_else(|| "aborted".to_owned()))));
        }
        Span {
            trace: self.id,
            id: self.span,
            parent: self.parent,
            kind: Kind::Server,
            name: method(record).to_owned(),
            started: ended - record.timers.total,
            ended,
            attributes,
            failed,
        }
    }
}

fn request_attributes(record: &HttpRecord<'_>) -> Vec<(&'static str, Value)> {
    let mut attributes = Vec::with_capacity(16);
    attributes.push(("http.request.method", Value::Text(method(record).to_owned())));
    if let Some(request) = &record.request {
        if method(record) == "_OTHER" {
            let original = lossy(request.method.as_bytes());
            attributes.push(("http.request.method_original", Value::Text(original)));
        }
        let version = match request.version {
            http::Version::HTTP_10 => "1.0",
            http::Version::HTTP_2 => "2",
            _ => "1.1",
        };
        attributes.push(("network.protocol.version", Value::Text(version.to_owned())));
    }
    attributes
}

/// What became of a call of gRPC.
fn push_grpc(attributes: &mut Vec<(&'static str, Value)>, record: &HttpRecord<'_>) {
    if let Some(grpc) = record.grpc {
        attributes.push(("rpc.system", Value::Text("grpc".to_owned())));
        if let Some(number) = grpc.number() {
            attributes.push(("rpc.grpc.status_code", Value::Number(number.into())));
        }
    }
}

/// What an answer that is an error is one by: gRPC's number, unless it is HTTP's already.
fn error_type(record: &HttpRecord<'_>, status: u16) -> String {
    let grpc = record.grpc.and_then(GrpcStatus::number);
    grpc.filter(|_| status < 400)
        .map_or_else(|| status.to_string(), |number| number.to_string())
}

/// The method, when it is one that everybody knows: others would be as many names as a client likes.
fn method<'a>(record: &HttpRecord<'a>) -> &'a str {
    let known = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
    ];
    let method = record.request.map_or("HTTP", |request| request.method);
    if known.contains(&method) || method == "HTTP" {
        method
    } else {
        "_OTHER"
    }
}

fn url(tls: bool, authority: &str, record: &HttpRecord<'_>) -> String {
    let target = record.request.map_or(&b""[..], |request| request.target);
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{authority}{}", lossy(target))
}

fn split(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// A text of a bounded length.
fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(MAX_TEXT)]).into_owned()
}

/// Spans of attempts in one exchange: those that `retries` allows, and the one that is sent again.
const MAX_ATTEMPTS: usize = 16;
/// As much of a value as is good for anything in a trace.
const MAX_TEXT: usize = 1024;

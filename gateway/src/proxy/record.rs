//! What is remembered of an exchange for its log line and the metrics. A record belongs to the exchange and is written when
//! it is dropped: an exchange cannot end without its line, however it ends.

mod ending;
mod upstream;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header, request, response};
use tokio::time::Instant;

use upstream::Upstream;

use super::client::Client;
use super::coded;
use super::error::ProxyError;
use super::headers;
use super::local::{Lasting, Local};
use super::noted::Noted;
use super::relay::Moved;
use super::trace::Trace;
use super::turns::Late;
use crate::backend::{Admitted, Backend, Server};
use crate::config::BackendId;
use crate::in_place::boxed;
use crate::snapshot::Frontend;
use crate::snapshot::rules::RuleAt;
use crate::telemetry::access::{Cause, CookieFlags, Phase, Termination};
use crate::telemetry::grpc::GrpcStatus;

/// An exchange, as it will be logged and counted.
pub struct Record {
    worker: Rc<Lasting>,
    frontend: Arc<Frontend>,
    client: Rc<Client>,
    method: Method,
    target: Uri,
    version: Version,
    host: Option<HeaderValue>,
    started: Instant,
    head_took: Duration,
    upstream: Option<Upstream>,
    status: Option<StatusCode>,
    /// What the server's answer says of a call of gRPC; none where it is no such answer.
    grpc: Option<GrpcStatus>,
    /// It is a call of gRPC over HTTP/2, to which the gateway itself answers as gRPC does.
    is_call: bool,
    /// What it has answered of such a call.
    told: Option<GrpcStatus>,
    sent: u64,
    termination: Termination,
    reason: Option<&'static str>,
    rule: Option<RuleAt>,
    complete: bool,
    /// Its connection knows that all of the answer has been handed over.
    is_answer_made: bool,
    /// What became of the cookies that keep the client at its server.
    pub cookies: Option<CookieFlags>,
    /// Its place in a backend that takes on so many only.
    _admitted: Option<Admitted>,
    /// Of an exchange that has become a tunnel: when that began, and what has passed through it. Boxed: few do.
    tunnel: Option<Box<Passed>>,
    /// What only some configurations ask for.
    pub noted: Noted,
}

/// What has passed through a tunnel.
struct Passed {
    since: Instant,
    from_client: u64,
    from_server: u64,
}

impl Record {
    /// Begins the record of a request whose head has come.
    pub fn begin(
        local: &Rc<Local>,
        frontend: &Arc<Frontend>,
        client: &Rc<Client>,
        request: &request::Parts,
    ) -> Box<Self> {
        let started = client.turns.begin_exchange();
        boxed(|| Self {
            worker: local.lasting(),
            frontend: frontend.clone(),
            client: client.clone(),
            method: request.method.clone(),
            target: request.uri.clone(),
            version: request.version,
            host: asked_host(request),
            started,
            head_took: client.turns.now() - started,
            upstream: None,
            status: None,
            grpc: None,
            is_call: client.is_stream() && request.method == Method::POST && coded::is_grpc_itself(&request.headers),
            told: None,
            sent: 0,
            termination: Termination::default(),
            reason: None,
            rule: None,
            complete: false,
            is_answer_made: false,
            tunnel: None,
            noted: Noted::default(),
            cookies: None,
            _admitted: None,
        })
    }

    /// The client.
    pub fn client(&self) -> &Rc<Client> {
        &self.client
    }

    /// What was asked for, as it came.
    pub fn target(&self) -> &Uri {
        &self.target
    }

    /// The client, or whom a trusted proxy named in its place. None of a UNIX socket.
    pub fn client_address(&self) -> Option<SocketAddr> {
        self.noted.client.or_else(|| self.client.facts.client())
    }

    /// A backend has been chosen.
    pub fn routed(&mut self, backend: &Arc<Backend>) {
        self.upstream = Some(Upstream {
            backend: backend.clone(),
            server: None,
            queue: Duration::ZERO,
            queue_since: None,
            ahead: 0,
            connect: None,
            sent_at: None,
            response: None,
            said: None,
            retries: 0,
            redispatched: false,
        });
    }

    /// No server has room: one is waited for.
    pub fn queue_begins(&mut self) {
        if let Some(upstream) = &mut self.upstream {
            upstream.queue_since = Some(Instant::now());
            upstream.ahead = upstream.backend.metrics.queued();
        }
    }

    /// The wait for a server is over, however it ended.
    pub fn queue_ends(&mut self) {
        if let Some(upstream) = &mut self.upstream
            && let Some(since) = upstream.queue_since.take()
        {
            upstream.queue += since.elapsed();
        }
    }

    /// A server has been chosen.
    pub fn server_chosen(&mut self, server: usize, headers: &mut HeaderMap) {
        if let Some(upstream) = &mut self.upstream {
            if let Some(before) = upstream.server.replace(server).filter(|before| *before != server) {
                upstream.backend.servers[before].metrics.redispatched();
                upstream.redispatched = true;
            }
            if let Some(trace) = &mut self.noted.trace {
                trace.attempt(&upstream.backend, server, headers);
            }
        }
    }

    /// Takes up the trace that a request comes with, or begins one, where traces are made.
    pub fn begin_trace(&mut self, headers: &mut HeaderMap, is_strangers: bool) {
        let begin = |tracer| Trace::begin(tracer, headers, is_strangers);
        self.noted.trace = self.worker.tracer().map(begin);
    }

    /// Connecting took so long, whatever came of it.
    pub fn connected(&mut self, took: Duration) {
        if let Some(upstream) = &mut self.upstream {
            upstream.connect = Some(upstream.connect.unwrap_or_default() + took);
        }
    }

    /// The request is being sent.
    pub fn sending(&mut self) {
        if let Some(upstream) = &mut self.upstream {
            upstream.connect.get_or_insert_default();
            upstream.sent_at = Some(self.client.turns.now());
        }
    }

    /// Another attempt is made.
    pub fn retried(&mut self) {
        if let Some(upstream) = &mut self.upstream {
            upstream.retries += 1;
            // What is waited for now is not an answer.
            upstream.sent_at = None;
            upstream.backend.metrics.retried();
            if let Some(server) = upstream.server {
                upstream.backend.servers[server].metrics.retried();
            }
        }
    }

    /// A server's response has begun, and nobody has edited it yet: by this it is judged. Who may edit the answers to some requests would
    /// decide otherwise which servers the others get.
    pub fn server_responded(&mut self, status: StatusCode, headers: &HeaderMap) {
        // Calls of gRPC are POST.
        if self.method == Method::POST && coded::is_grpc(headers) {
            let said = GrpcStatus::of(headers);
            // What gRPC-Web says behind its content is a part of that, which is not read: HTTP's status is all that there is.
            let is_known = said != GrpcStatus::Unsaid || !coded::is_grpc_web(headers);
            self.grpc = is_known.then_some(said);
        }
        self.server_answered(Some(status));
    }

    /// A server's response goes to the client, as it has been edited.
    pub fn responded(&mut self, head: &response::Parts) {
        self.status = Some(head.status);
    }

    /// This came behind the content of a server's response. The request's number, where the client is told it, is not the server's to say.
    pub fn trailers_came(&mut self, trailers: &mut HeaderMap) {
        if let Some(id) = self.frontend.config.request_id.as_deref().filter(|id| id.response) {
            headers::strip_own(trailers, std::slice::from_ref(&id.header));
        }
        if self.grpc != Some(GrpcStatus::Unsaid) {
            return;
        }
        let said = GrpcStatus::of(trailers);
        self.grpc = Some(said);
        if let Some(status) = said.as_judged()
            && let Some(upstream) = &self.upstream
            && upstream.said == Some(StatusCode::OK)
            && let (Some(server), Some(after)) = (upstream.server, upstream.response)
        {
            upstream.backend.servers[server].is_judged_by(Some(status), after);
        }
    }

    /// A server's answer, or that there was none, is passed over, and the request is sent again. Beside its status stands what it says
    /// of a call of gRPC, where it is such an answer.
    pub fn discarded(&self, answer: Option<(StatusCode, Option<GrpcStatus>)>) {
        if let Some(upstream) = &self.upstream
            && let (Some(server), Some(sent_at)) = (upstream.server, upstream.sent_at)
        {
            let after = self.client.turns.now().saturating_duration_since(sent_at);
            let (status, said) = answer.map_or((None, None), |(status, said)| (Some(status), said));
            let server = &upstream.backend.servers[server];
            judge(server, status, said, after);
            if let Some(said) = said {
                server.metrics.grpc_answered(said);
            }
        }
    }

    /// The backend has taken the exchange on.
    pub fn admit(&mut self, admitted: Admitted) {
        self._admitted = Some(admitted);
    }

    /// Something has answered in a server's place: a component, or the rule that stands there.
    pub fn answered_here(&mut self, status: StatusCode, reason: &'static str, rule: Option<RuleAt>) {
        self.status = Some(status);
        self.termination = Termination {
            cause: Cause::Local,
            phase: Phase::Request,
        };
        self.reason = Some(reason);
        self.rule = rule;
    }

    /// The operator's page has taken the place of a server's answer, whose status stays.
    pub fn answered_by_page(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.reason = Some(ERROR_PAGE);
    }

    /// Whether it is a call of gRPC that is answered as one.
    pub fn is_call(&self) -> bool {
        self.is_call
    }

    /// The gateway's own answer says this of a call of gRPC.
    pub fn told(&mut self, said: GrpcStatus) {
        self.told = Some(said);
    }

    /// The backend that the request came to, if it came to one.
    pub fn backend(&self) -> Option<BackendId> {
        self.upstream.as_ref().map(|upstream| upstream.backend.id)
    }

    /// The gateway answers in a server's place.
    pub fn failed(&mut self, error: &ProxyError) {
        self.termination = error.termination(self.phase());
        self.status = Some(error.status());
        self.reason = Some(error.reason());
        match error {
            ProxyError::Denied { at, .. } => {
                self.rule = Some(at.clone());
                self.frontend.metrics.denied();
            }
            ProxyError::RateLimited { .. } => self.frontend.metrics.rate_limited(),
            _ => self.frontend.metrics.error(error.reason()),
        }
        match (error, &mut self.upstream) {
            // No server was reached, however long that took.
            (
                ProxyError::Connect | ProxyError::ConnectTimeout | ProxyError::ServerTls | ProxyError::OutOfResources,
                Some(upstream),
            ) => {
                upstream.connect = None;
                if let Some(server) = upstream.server {
                    upstream.backend.servers[server].metrics.not_reached();
                }
            }
            (ProxyError::NoServer, Some(upstream)) => upstream.backend.metrics.no_server(),
            (
                ProxyError::EmptyResponse
                | ProxyError::BadResponse
                | ProxyError::InvalidResponse(_)
                | ProxyError::BadUpgrade
                | ProxyError::NoExtendedConnect
                | ProxyError::ServerTimeout,
                _,
            ) => self.server_answered(None),
            _ => {}
        }
    }

    /// Bytes of the response's body go to the client.
    pub fn add_bytes(&mut self, n: usize) {
        self.sent += n as u64;
    }

    /// Whether it has come to its end.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the client speaks HTTP/1.0.
    pub fn is_of_old_client(&self) -> bool {
        self.version == Version::HTTP_10
    }

    /// The server has been let go, and the exchange goes on without it.
    pub fn server_is_done(&mut self) {
        self._admitted = None;
    }

    /// All of the answer has been handed over, and the exchange may go on.
    pub fn answer_is_made(&mut self) {
        if !std::mem::replace(&mut self.is_answer_made, true) {
            self.client.connection.answer_is_made();
        }
    }

    /// The response has come whole, and so has the request, or it is not awaited.
    pub fn complete(&mut self) {
        // Whoever calls over HTTP/1 may have let go of the answer before it could say it.
        if self.is_call && !self.complete && self.termination == Termination::default() {
            // Clients take it for an error of the server's: UNKNOWN or INTERNAL.
            self.call_ended_unsaid(Some(500));
        }
        self.complete = true;
        self.client.turns.end_exchange();
    }

    /// The response breaks off in its middle.
    pub fn end_early(&mut self, cause: Cause, reason: &'static str) {
        self.termination = Termination {
            cause,
            phase: Phase::Data,
        };
        self.reason = Some(reason);
        self.frontend.metrics.error(reason);
        // Not when it was late: a stream that has nothing to say comes to that, too.
        if cause == Cause::ServerAborted {
            self.call_ended_unsaid(None);
        }
    }

    /// A server's answer is over. Where it was to say of a call of gRPC what became of that, and has not, its server is judged by this status;
    /// none for no answer at all.
    fn call_ended_unsaid(&self, status: Option<u16>) {
        if self.grpc == Some(GrpcStatus::Unsaid)
            && let Some(upstream) = &self.upstream
            && upstream.said == Some(StatusCode::OK)
            && let (Some(server), Some(after)) = (upstream.server, upstream.response)
        {
            upstream.backend.servers[server].is_judged_by(status, after);
        }
    }

    /// The connection has gone over to another protocol: from now on bytes pass both ways.
    pub fn tunnel_begins(&mut self) {
        self.complete = true;
        // Until it has ended otherwise, it is cut off when the gateway ends.
        self.termination = Termination {
            cause: Cause::Killed,
            phase: Phase::Data,
        };
        if let Some(exchange) = self.noted.exchange.take_if(|_| !self.frontend.told.is_empty()) {
            // What passes through the tunnel is not HTTP's business any more.
            self.tell(
                exchange,
                self.client.turns.now().saturating_duration_since(self.started),
            );
        }
        // A tunnel may outlive its configuration: it holds of it what it needs, not all.
        self.frontend = self.frontend.without_policy();
        self.tunnel = Some(Box::new(Passed {
            since: Instant::now(),
            from_client: 0,
            from_server: 0,
        }));
    }

    /// Bytes have passed through the tunnel: they are counted while it lives.
    pub fn relayed(&mut self, moved: Moved) {
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.from_client += moved.from_client;
            tunnel.from_server += moved.from_server;
        }
        self.frontend.metrics.bytes(moved.from_client, moved.from_server);
        if let Some(upstream) = &self.upstream {
            upstream.bytes(moved.from_server, moved.from_client);
        }
        if moved.spliced > 0 {
            self.worker.registry().process().spliced(moved.spliced);
        }
    }

    /// The tunnel has ended.
    pub fn tunnel_ended(&mut self, termination: Termination, reason: Option<&'static str>) {
        self.termination = termination;
        self.reason = reason;
        if let Some(reason) = reason {
            self.frontend.metrics.error(reason);
        }
    }

    /// The edits of the gateway's own answer have failed, and it answers that. What it was an answer to has been counted where it was an error:
    /// an exchange is one at most.
    pub fn own_edits_failed(&mut self, error: &ProxyError) {
        if self.termination.cause == Cause::Local {
            return self.failed(error);
        }
        self.termination = error.termination(self.phase());
        self.status = Some(error.status());
        self.reason = Some(error.reason());
    }

    /// The gateway's own answer has been given this status.
    pub fn is_answered_as(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    fn server_answered(&mut self, status: Option<StatusCode>) {
        let now = self.client.turns.now();
        if let Some(upstream) = &mut self.upstream
            && let (Some(server), Some(sent_at)) = (upstream.server, upstream.sent_at)
        {
            let after = now.saturating_duration_since(sent_at);
            upstream.response = status.map(|_| after);
            upstream.said = status;
            judge(&upstream.backend.servers[server], status, self.grpc, after);
        }
    }

    /// How an exchange ended that nobody ended: the client has gone, or was too slow.
    fn abandoned(&self) -> Termination {
        let cause = match self.client.turns.late() {
            Some(Late::Client) => Cause::ClientTimeout,
            _ => Cause::ClientAborted,
        };
        let phase = self.phase();
        Termination { cause, phase }
    }

    /// What the exchange is at. As HAProxy has it, nobody waits for an answer before all of the content has gone to the server.
    fn phase(&self) -> Phase {
        match (&self.status, &self.upstream) {
            (Some(_), _) => Phase::Data,
            (None, None) => Phase::Request,
            (None, Some(upstream)) if upstream.sent_at.is_some() && self.client.turns.is_content_due() => Phase::Data,
            (None, Some(upstream)) if upstream.sent_at.is_some() => Phase::Headers,
            (None, Some(upstream)) if upstream.queue_since.is_some() => Phase::Queue,
            (None, Some(_)) => Phase::Connect,
        }
    }
}

/// Counts a server's answer, none if there was none, and has the server judged by it.
fn judge(server: &Server, status: Option<StatusCode>, grpc: Option<GrpcStatus>, after: Duration) {
    match (grpc, status) {
        // It says behind its content, or in this head, how it is to be judged.
        (Some(grpc), Some(StatusCode::OK)) => {
            server.metrics.response(Some(200), after);
            if let Some(status) = grpc.as_judged() {
                server.is_judged_by(Some(status), after);
            }
        }
        _ => server.answered(status.map(|status| status.as_u16()), after),
    }
}

/// What log lines say of a server's answer whose place a page has taken.
pub(super) const ERROR_PAGE: &str = "error-page";

/// The host that a request is served as, and that its server is told: of one in absolute form its target's, whatever Host says
/// (RFC 9112, section 3.2.2).
fn asked_host(request: &request::Parts) -> Option<HeaderValue> {
    match request.uri.authority() {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => request.headers.get(header::HOST).cloned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn the_host_that_is_logged_is_the_one_that_is_asked() {
        let host = |target: &str| {
            let request = Request::get(target).header(header::HOST, "b.example");
            asked_host(&request.body(()).unwrap().into_parts().0).unwrap()
        };
        assert_eq!(host("/x"), "b.example");
        assert_eq!(host("http://a.example/x"), "a.example");
    }
}

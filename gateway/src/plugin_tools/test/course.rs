//! The course of a case: the phases of an exchange in the order of the data plane, with this one plugin in all of them.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header, request, response};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::bodies::{self, Length, Passed};
use super::stand::Stand;
use crate::config::OnFailure;
use crate::config::fixture::{self, Case, NoAnswer};
use crate::policy::{
    Answer, Answered, Attachment, BodyOf, Call, CallError, ClientCertificate, ClientHello, ConnectionFacts,
    ConnectionVerdict, Ends, Exchange, Failure, LimitVerdict, MAX_CALLS, Measure, Outcome, Over, Preamble, Reply, Tags,
    TlsFacts,
};
use crate::regular_file;

/// What a case came to.
pub(in crate::plugin_tools) struct Course {
    /// What became of the request or the connection.
    pub(super) end: End,
    /// Predicates that hold; none where there are no predicates.
    pub(super) holds: Option<Vec<String>>,
    /// What the limiter said; none where there is none, or it was not asked.
    pub(super) limit: Option<Option<LimitVerdict>>,
    /// Calls of backends.
    pub(super) calls: Vec<(String, Request<Bytes>)>,
    /// How many answers nobody asked for.
    pub(super) answers_left: usize,
    /// A call that no answer is there for.
    pub(super) unanswered: bool,
    /// The request as it goes on.
    pub(super) request: Option<(request::Parts, Vec<u8>)>,
    /// The response as it goes on.
    pub(super) response: Option<(response::Parts, Vec<u8>)>,
    pub(super) tags: Tags,
    pub(super) failures: Vec<Failure>,
    pub(in crate::plugin_tools) measures: Vec<Measure>,
}

/// What a request or a connection comes to.
#[derive(Debug)]
pub(in crate::plugin_tools) enum End {
    /// It goes on.
    Continue,
    /// It goes to this backend.
    Route(String),
    /// This is sent.
    Reply {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    },
    /// The limiter has refused it.
    Limited,
    /// The connection is closed.
    Refused,
    /// A filter of a body has broken it off.
    Aborted,
}

impl Course {
    /// Leads a case through its hooks.
    ///
    /// # Errors
    /// When a file that it names cannot be read.
    pub(in crate::plugin_tools) fn of(stand: &mut Stand, case: &Case) -> Result<Self> {
        let facts = Arc::new(connection(&case.connection)?);
        let mut course = Self {
            end: End::Continue,
            holds: None,
            limit: None,
            calls: Vec::new(),
            answers_left: 0,
            unanswered: false,
            request: None,
            response: None,
            tags: Tags::default(),
            failures: Vec::new(),
            measures: Vec::new(),
        };
        match &case.request {
            Some(request) => course.exchange(stand, case, request, &facts),
            None => course.connection(stand, &facts),
        }
        course.measures = stand.measures();
        Ok(course)
    }

    fn connection(&mut self, stand: &mut Stand, facts: &Arc<ConnectionFacts>) {
        let mut exchange = Exchange::new(Request::new(()).into_parts().0, Arc::clone(facts));
        if !self.predicates(stand, &mut exchange, true) {
            return;
        }
        let Some(attachment) = stand.uses.filter.clone() else {
            return;
        };
        if !attachment.hooks().connection_filter {
            return;
        }
        match stand.instances.on_connect(&attachment, facts) {
            Ok(ConnectionVerdict::Accept) => {}
            Ok(ConnectionVerdict::Refuse) => self.end = End::Refused,
            Ok(ConnectionVerdict::Route(backend)) => self.end = End::Route(name_of(stand, backend.0)),
            Err(failure) => {
                self.goes_on(&attachment, failure, true);
            }
        }
    }

    fn exchange(&mut self, stand: &mut Stand, case: &Case, request: &fixture::Request, facts: &Arc<ConnectionFacts>) {
        let mut exchange = Exchange::new(request.head.clone(), Arc::clone(facts));
        exchange.request_id.clone_from(&request.id);
        let mut tags = Tags::default();
        for (name, value) in &request.tags {
            // One that may not be called so is none, which the plugin would not find either.
            let _ = tags.set(name, value.as_bytes());
        }
        exchange.tags = (!tags.as_slice().is_empty()).then(|| Box::new(tags));
        self.answers_left = case.answers.len();

        let goes_on = self.on_the_way_there(stand, case, request, &mut exchange);
        if goes_on && let Some(response) = &case.response {
            self.on_the_way_back(stand, response, &mut exchange);
        }
        self.log(stand, case, &mut exchange);
        if let Some(tags) = exchange.tags {
            self.tags = *tags;
        }
    }

    /// To the server. Answers whether it gets there.
    fn on_the_way_there(
        &mut self,
        stand: &mut Stand,
        case: &Case,
        request: &fixture::Request,
        exchange: &mut Box<Exchange>,
    ) -> bool {
        if !self.predicates(stand, exchange, false) {
            return false;
        }
        let mut body = request.body.clone();
        if let Some(attachment) = stand.uses.filter.clone() {
            let hooks = attachment.hooks();
            if (hooks.limiter && !self.limit(stand, &attachment, exchange))
                || (hooks.request_filter && !self.request_filter(stand, case, &attachment, exchange))
            {
                return false;
            }
            if hooks.request_body_filter {
                let passed = bodies::pass(stand, &attachment, BodyOf::Request, exchange, &body, &mut self.failures);
                let Some((filtered, length)) = self.passed(passed, StatusCode::PAYLOAD_TOO_LARGE) else {
                    return false;
                };
                body = vec![filtered.into()];
                say_length(&mut exchange.request.headers, &length);
            }
        }
        self.request = Some((exchange.request.clone(), body.concat()));
        true
    }

    /// **acl**. Answers whether the exchange goes on.
    fn predicates(&mut self, stand: &mut Stand, exchange: &mut Box<Exchange>, is_connection: bool) -> bool {
        let Some(attachment) = stand.uses.predicates.clone() else {
            return true;
        };
        match stand.instances.evaluate(&attachment, exchange) {
            Ok(bits) => {
                let names = attachment.predicates().iter().enumerate();
                let holds = names.filter(|(bit, _)| bits >> bit & 1 == 1);
                self.holds = Some(holds.map(|(_, name)| name.clone()).collect());
                true
            }
            Err(failure) => {
                self.holds = Some(Vec::new());
                self.goes_on(&attachment, failure, is_connection)
            }
        }
    }

    /// **limits**.
    fn limit(&mut self, stand: &mut Stand, attachment: &Arc<Attachment>, exchange: &mut Box<Exchange>) -> bool {
        match stand.instances.check(attachment, exchange) {
            Ok(verdict) => {
                let is_refused = verdict.as_ref().is_some_and(|verdict| !verdict.allowed);
                self.limit = Some(verdict);
                if is_refused {
                    self.end = End::Limited;
                }
                !is_refused
            }
            Err(failure) => self.goes_on(attachment, failure, false),
        }
    }

    /// **request rewrite**.
    fn request_filter(
        &mut self,
        stand: &mut Stand,
        case: &Case,
        attachment: &Arc<Attachment>,
        exchange: &mut Box<Exchange>,
    ) -> bool {
        let mut outcome = stand.instances.on_request(attachment, exchange);
        let mut calls_left = MAX_CALLS;
        while let Ok(Outcome::Call(call)) = outcome {
            calls_left = calls_left.saturating_sub(1);
            let Call {
                backend,
                request,
                state,
                ..
            } = *call;
            let answered = self.answer(case, attachment, &backend);
            self.calls.push((backend, request));
            outcome = stand
                .instances
                .on_answer(attachment, exchange, &answered, &state, calls_left);
        }
        match outcome {
            // The loop lets no call through.
            Ok(Outcome::Proceed | Outcome::Call(_)) => true,
            Ok(Outcome::Reply(reply)) => {
                self.reply(reply);
                false
            }
            Ok(Outcome::Route(route)) => {
                self.end = End::Route(name_of(stand, route.backend.0));
                route.edit(&mut exchange.request);
                true
            }
            Err(failure) => self.goes_on(attachment, failure, false),
        }
    }

    /// What a call is answered with.
    fn answer(&mut self, case: &Case, attachment: &Attachment, backend: &str) -> Answered {
        let next = case.answers.len() - self.answers_left;
        let Some(answer) = case.answers.get(next) else {
            self.unanswered = true;
            return Err(CallError::Unreachable);
        };
        self.answers_left -= 1;
        let most = attachment.granted().call(backend).map_or(0, |grant| grant.max_body);
        match answer {
            fixture::Answer::Error(NoAnswer::Timeout) => Err(CallError::Timeout),
            fixture::Answer::Error(NoAnswer::Busy) => Err(CallError::Busy),
            fixture::Answer::Error(NoAnswer::Unreachable) => Err(CallError::Unreachable),
            fixture::Answer::Response { body, .. } if u64::try_from(body.len()).unwrap_or(u64::MAX) > most => {
                Err(CallError::TooLarge)
            }
            fixture::Answer::Response { status, headers, body } => Ok(Answer {
                status: *status,
                headers: headers.clone(),
                body: body.clone(),
            }),
        }
    }

    /// **response rewrite**, and the response's body.
    fn on_the_way_back(&mut self, stand: &mut Stand, response: &fixture::Response, exchange: &mut Box<Exchange>) {
        exchange.server.clone_from(&response.server);
        exchange.response = Some(response.head.clone());
        let mut body = response.body.clone();
        let is_head = exchange.request.method == Method::HEAD;
        if let Some(attachment) = stand.uses.filter.clone() {
            let hooks = attachment.hooks();
            if hooks.response_filter {
                match stand.instances.on_response(&attachment, exchange) {
                    Ok(None) => {}
                    Ok(Some(reply)) => return self.reply(reply),
                    Err(failure) => {
                        if !self.goes_on(&attachment, failure, false) {
                            return;
                        }
                    }
                }
            }
            // A response to HEAD has no body that could be filtered.
            if hooks.response_body_filter && !is_head && !body.is_empty() {
                let passed = bodies::pass(
                    stand,
                    &attachment,
                    BodyOf::Response,
                    exchange,
                    &body,
                    &mut self.failures,
                );
                let Some((filtered, length)) = self.passed(passed, StatusCode::BAD_GATEWAY) else {
                    return;
                };
                body = vec![filtered.into()];
                if let Some(head) = &mut exchange.response {
                    say_length(&mut head.headers, &length);
                }
            }
        }
        self.response = exchange.response.clone().map(|head| (head, body.concat()));
    }

    /// **log**.
    fn log(&mut self, stand: &mut Stand, case: &Case, exchange: &mut Box<Exchange>) {
        let Some(attachment) = stand.uses.filter.clone() else {
            return;
        };
        if !attachment.hooks().access_log {
            return;
        }
        let status = match &self.end {
            End::Reply { status, .. } => Some(*status),
            End::Limited => Some(StatusCode::TOO_MANY_REQUESTS),
            _ => self.response.as_ref().map(|(head, _)| head.status),
        };
        let routed = match &self.end {
            End::Route(name) => Some(name.as_str().into()),
            _ => None,
        };
        exchange.over = Some(Box::new(Over {
            status: status.map(|status| status.as_u16()),
            backend: case.log.backend.clone().or(routed),
            duration: case.log.duration,
            bytes_sent: case.log.bytes_sent,
            reason: None,
        }));
        if let Err(failure) = stand.instances.on_log(&attachment, exchange) {
            // Nobody waits for it: whatever `on-failure` says, the exchange is over.
            self.failures.push(failure);
        }
    }

    /// What is left of a body that has passed its filter; none where the exchange ends.
    fn passed(&mut self, passed: Passed, too_long: StatusCode) -> Option<(Vec<u8>, Length)> {
        match passed {
            Passed::On { body, length } => return Some((body, length)),
            Passed::Reply(reply) => self.reply(reply),
            Passed::TooLong => self.status(too_long),
            Passed::Aborted => self.end = End::Aborted,
            Passed::Denied(status) => self.status(StatusCode::from_u16(status).unwrap_or_default()),
        }
        None
    }

    fn reply(&mut self, reply: Reply) {
        self.end = End::Reply {
            status: reply.status,
            headers: reply.headers,
            body: reply.body,
        };
    }

    /// What the gateway says itself.
    fn status(&mut self, status: StatusCode) {
        self.end = End::Reply {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
    }

    /// What a failure leads to. Answers whether the exchange goes on.
    fn goes_on(&mut self, attachment: &Attachment, failure: Failure, is_connection: bool) -> bool {
        self.failures.push(failure);
        match attachment.on_failure() {
            OnFailure::Skip => return true,
            OnFailure::Deny(_) if is_connection => self.end = End::Refused,
            OnFailure::Deny(status) => self.status(StatusCode::from_u16(status).unwrap_or_default()),
        }
        false
    }
}

fn name_of(stand: &Stand, backend: usize) -> String {
    stand.backends.get(backend).map_or("", |name| name).to_owned()
}

fn say_length(headers: &mut HeaderMap, length: &Length) {
    match length {
        Length::AsBefore => {}
        Length::Known(length) => {
            headers.insert(header::CONTENT_LENGTH, (*length).into());
        }
        Length::Unknown => {
            headers.remove(header::CONTENT_LENGTH);
        }
    }
}

fn connection(said: &fixture::Connection) -> Result<ConnectionFacts> {
    let tls = match &said.tls {
        None => None,
        Some(tls) => Some(Box::new(TlsFacts {
            version: tls.version,
            cipher: tls.cipher,
            sni: tls.sni.clone(),
            alpn: tls.alpn.as_ref().map(|alpn| alpn.clone().into_bytes()),
            client_certificate: match &tls.certificate {
                None => None,
                Some(path) => {
                    let shown = path.value.display();
                    let pem = regular_file::read(&path.value, MAX_CERTIFICATE)
                        .with_context(|| format!("cannot read {shown}"))?;
                    let certificate = CertificateDer::from_pem_slice(&pem)
                        .map_err(|error| anyhow::anyhow!("{shown} holds no certificate: {error}"))?;
                    Some(ClientCertificate::new(certificate.to_vec()))
                }
            },
        })),
    };
    let hello = said.hello.as_ref().map(|hello| ClientHello {
        sni: hello.sni.clone(),
        alpn: hello.alpn.iter().map(|name| name.clone().into_bytes()).collect(),
    });
    Ok(ConnectionFacts {
        accepted: tokio::time::Instant::now(),
        ends: Ends::new(said.client, said.local),
        tls,
        preamble: hello.map(|hello| {
            Box::new(Preamble {
                hello: Some(hello),
                proxy: None,
            })
        }),
    })
}

/// Bytes of a client's certificate in PEM: many times what one has.
const MAX_CERTIFICATE: usize = 1 << 20;

//! The course of a case: through the phases in which components are asked, in their order, with this one plugin in all of
//! them.

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header, request, response};

use super::bodies::{self, Length, Passed};
use super::facts;
use super::stand::Stand;
use crate::config::OnFailure;
use crate::config::fixture::{self, Case, NoAnswer};
use crate::policy::{
    Answer, Answered, AskingPhase, Attachment, BodyMode, BodyOf, Call, CallError, ConnectionFacts, ConnectionVerdict,
    Exchange, Failure, Hooks, LimitVerdict, MAX_CALLS, Measure, Outcome, Over, Reply, Tags,
};
use crate::proxy::{
    PLUGIN_REPLY, PLUGIN_STOPPED, ProxyError, REFUSED_BY_PLUGIN, RESPONSE_TOO_LARGE, has_filtered_body,
};

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
    /// When a file that it names cannot be read, or it is one that no plugin could meet.
    pub(in crate::plugin_tools) fn of(stand: &mut Stand, case: &Case) -> Result<Self> {
        let facts = Arc::new(facts::of_connection(&case.connection)?);
        let mut walk = Walk::begin(stand, case, facts)?;
        let phases: &[AskingPhase] = match case.request {
            Some(_) => &AskingPhase::OF_REQUESTS,
            None => &AskingPhase::OF_CONNECTIONS,
        };
        let mut is_over = false;
        for phase in phases {
            // What is over is told of, and nothing else comes of it.
            if !is_over || *phase == AskingPhase::Log {
                is_over |= walk.comes_to(*phase).is_break();
            }
        }
        Ok(walk.end())
    }
}

/// A case on its way.
struct Walk<'a> {
    stand: &'a mut Stand,
    case: &'a Case,
    facts: Arc<ConnectionFacts>,
    exchange: Box<Exchange>,
    request_body: Vec<Bytes>,
    response_body: Vec<Bytes>,
    /// What the client was sent where the course has no reply, and why the exchange ended: for who is told of it.
    status: Option<StatusCode>,
    reason: Option<&'static str>,
    course: Course,
}

impl<'a> Walk<'a> {
    fn begin(stand: &'a mut Stand, case: &'a Case, facts: Arc<ConnectionFacts>) -> Result<Self> {
        let head = match &case.request {
            Some(request) => request.head.clone(),
            None => Request::new(()).into_parts().0,
        };
        let mut exchange = Exchange::new(head, Arc::clone(&facts));
        let mut request_body = Vec::new();
        if let Some(request) = &case.request {
            exchange.request_id.clone_from(&request.id);
            let mut tags = Tags::default();
            for (name, value) in &request.tags {
                let set = tags.set(name, value.as_bytes());
                set.map_err(|why| anyhow!("the request has a tag that no plugin could have set: {why}"))?;
            }
            exchange.tags = (!tags.as_slice().is_empty()).then(|| Box::new(tags));
            request_body.clone_from(&request.body);
        }
        Ok(Self {
            stand,
            case,
            facts,
            exchange,
            request_body,
            response_body: Vec::new(),
            status: None,
            reason: None,
            course: Course {
                end: End::Continue,
                holds: None,
                limit: None,
                calls: Vec::new(),
                answers_left: case.answers.len(),
                unanswered: false,
                request: None,
                response: None,
                tags: Tags::default(),
                failures: Vec::new(),
                measures: Vec::new(),
            },
        })
    }

    fn comes_to(&mut self, phase: AskingPhase) -> ControlFlow<()> {
        self.exchange.enters(phase);
        match phase {
            AskingPhase::Acl => self.acl(),
            AskingPhase::ConnectionPolicy => self.connection_policy(),
            AskingPhase::Limits => self.limits(),
            AskingPhase::RequestRewrite => self.request_rewrite(),
            AskingPhase::RequestBody => {
                self.request_body()?;
                self.server()
            }
            AskingPhase::ResponseRewrite => self.response_rewrite(),
            AskingPhase::ResponseBody => {
                self.response_body()?;
                self.client();
                Continue(())
            }
            AskingPhase::Log => {
                self.log();
                Continue(())
            }
        }
    }

    fn end(mut self) -> Course {
        self.course.measures = self.stand.measures();
        if let Some(tags) = self.exchange.tags {
            self.course.tags = *tags;
        }
        self.course
    }

    /// The plugin, where it has this hook of a filter.
    fn filter(&self, has: impl Fn(Hooks) -> bool) -> Option<Arc<Attachment>> {
        self.stand.uses.filter.clone().filter(|plugin| has(plugin.hooks()))
    }

    fn acl(&mut self) -> ControlFlow<()> {
        let Some(attachment) = self.stand.uses.predicates.clone() else {
            return Continue(());
        };
        match self.stand.instances.evaluate(&attachment, &mut self.exchange) {
            Ok(bits) => {
                let names = attachment.predicates().iter().enumerate();
                let holds = names.filter(|(bit, _)| bits >> bit & 1 == 1);
                self.course.holds = Some(holds.map(|(_, name)| name.clone()).collect());
                Continue(())
            }
            Err(failure) => {
                self.course.holds = Some(Vec::new());
                self.failed(&attachment, failure)
            }
        }
    }

    fn connection_policy(&mut self) -> ControlFlow<()> {
        let Some(attachment) = self.filter(|hooks| hooks.connection_filter) else {
            return Continue(());
        };
        match self.stand.instances.on_connect(&attachment, &self.facts) {
            Ok(ConnectionVerdict::Accept) => Continue(()),
            Ok(ConnectionVerdict::Refuse) => {
                self.course.end = End::Refused;
                self.reason = Some(REFUSED_BY_PLUGIN);
                Break(())
            }
            Ok(ConnectionVerdict::Route(backend)) => {
                self.course.end = End::Route(name_of(self.stand, backend.0));
                Continue(())
            }
            Err(failure) => self.failed(&attachment, failure),
        }
    }

    fn limits(&mut self) -> ControlFlow<()> {
        let Some(attachment) = self.filter(|hooks| hooks.limiter) else {
            return Continue(());
        };
        let verdict = match self.stand.instances.check(&attachment, &mut self.exchange) {
            Ok(verdict) => verdict,
            Err(failure) => return self.failed(&attachment, failure),
        };
        self.course.limit = Some(verdict);
        match verdict {
            Some(LimitVerdict {
                allowed: false,
                retry_after_ms,
                ..
            }) => {
                let error = ProxyError::RateLimited { retry_after_ms };
                self.course.end = End::Limited;
                self.status = Some(error.status());
                self.reason = Some(error.reason());
                Break(())
            }
            _ => Continue(()),
        }
    }

    fn request_rewrite(&mut self) -> ControlFlow<()> {
        let Some(attachment) = self.filter(|hooks| hooks.request_filter) else {
            return Continue(());
        };
        let mut outcome = self.stand.instances.on_request(&attachment, &mut self.exchange);
        let mut calls_left = MAX_CALLS;
        while let Ok(Outcome::Call(call)) = outcome {
            calls_left = calls_left.saturating_sub(1);
            let Call {
                backend,
                request,
                state,
                ..
            } = *call;
            let answered = self.answer(&attachment, &backend);
            self.course.calls.push((backend, request));
            let instances = &mut self.stand.instances;
            outcome = instances.on_answer(&attachment, &mut self.exchange, &answered, &state, calls_left);
        }
        match outcome {
            // The loop lets no call through.
            Ok(Outcome::Proceed | Outcome::Call(_)) => Continue(()),
            Ok(Outcome::Reply(reply)) => self.reply(reply),
            Ok(Outcome::Route(route)) => {
                self.course.end = End::Route(name_of(self.stand, route.backend.0));
                route.edit(&mut self.exchange.request);
                Continue(())
            }
            Err(failure) => {
                self.failed(&attachment, failure)?;
                attachment.vouches_for_nobody(&mut self.exchange.request.headers);
                Continue(())
            }
        }
    }

    /// What a call is answered with.
    fn answer(&mut self, attachment: &Attachment, backend: &str) -> Answered {
        let answers = &self.case.answers;
        let Some(answer) = answers.get(answers.len() - self.course.answers_left) else {
            self.course.unanswered = true;
            return Err(CallError::Unreachable);
        };
        self.course.answers_left -= 1;
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

    fn request_body(&mut self) -> ControlFlow<()> {
        let Some(attachment) = self.filter(|hooks| hooks.request_body_filter) else {
            return Continue(());
        };
        if is_empty(&self.request_body) {
            return Continue(());
        }
        let length = match self.pass(&attachment, BodyOf::Request) {
            Passed::On { body, length } => {
                self.request_body = vec![body.into()];
                length
            }
            passed => return self.stopped(passed, &ProxyError::BodyTooLarge),
        };
        say_length(&mut self.exchange.request.headers, &length);
        Continue(())
    }

    /// The request has got there, and is answered where the case has an answer.
    fn server(&mut self) -> ControlFlow<()> {
        self.course.request = Some((self.exchange.request.clone(), self.request_body.concat()));
        let Some(response) = &self.case.response else {
            return Break(());
        };
        self.exchange.server.clone_from(&response.server);
        self.exchange.response = Some(response.head.clone());
        self.response_body.clone_from(&response.body);
        Continue(())
    }

    fn response_rewrite(&mut self) -> ControlFlow<()> {
        let Some(attachment) = self.filter(|hooks| hooks.response_filter) else {
            return Continue(());
        };
        match self.stand.instances.on_response(&attachment, &mut self.exchange) {
            Ok(None) => Continue(()),
            Ok(Some(reply)) => self.reply(reply),
            Err(failure) => self.failed(&attachment, failure),
        }
    }

    fn response_body(&mut self) -> ControlFlow<()> {
        let Some(attachment) = self.filter(|hooks| hooks.response_body_filter) else {
            return Continue(());
        };
        let status = self.exchange.response.as_ref().map(|head| head.status);
        let is_asked_about = |status| {
            let is_empty = is_empty(&self.response_body);
            has_filtered_body(&self.exchange.request.method, status, is_empty)
        };
        if !status.is_some_and(is_asked_about) {
            return Continue(());
        }
        let length = match self.exchange.request.method {
            Method::HEAD => match self
                .stand
                .instances
                .on_body(&attachment, BodyOf::Response, &mut self.exchange)
            {
                Ok(BodyMode::Skip) => Length::AsBefore,
                // What a GET would have been answered has another length, or none that is known.
                Ok(_) => Length::Unknown,
                Err(failure) => {
                    self.failed(&attachment, failure)?;
                    Length::AsBefore
                }
            },
            _ => match self.pass(&attachment, BodyOf::Response) {
                Passed::On { body, length } => {
                    self.response_body = vec![body.into()];
                    length
                }
                passed => return self.stopped(passed, &ProxyError::InvalidResponse(RESPONSE_TOO_LARGE)),
            },
        };
        if let Some(head) = &mut self.exchange.response {
            say_length(&mut head.headers, &length);
        }
        Continue(())
    }

    fn pass(&mut self, attachment: &Arc<Attachment>, of: BodyOf) -> Passed {
        let pieces = match of {
            BodyOf::Request => &self.request_body,
            BodyOf::Response => &self.response_body,
        };
        let failures = &mut self.course.failures;
        bodies::pass(self.stand, attachment, of, &mut self.exchange, pieces, failures)
    }

    /// The response has come to the client. (What is sent to HEAD has no content.)
    fn client(&mut self) {
        let head = self.exchange.response.clone();
        self.status = head.as_ref().map(|head| head.status);
        self.course.response = head.map(|head| (head, self.response_body.concat()));
    }

    fn log(&mut self) {
        let Some(attachment) = self.filter(|hooks| hooks.access_log) else {
            return;
        };
        let status = match &self.course.end {
            End::Reply { status, .. } => Some(*status),
            _ => self.status,
        };
        let routed = match &self.course.end {
            End::Route(name) => Some(name.as_str().into()),
            _ => None,
        };
        self.exchange.over = Some(Box::new(Over {
            status: status.map(|status| status.as_u16()),
            backend: self.case.log.backend.clone().or(routed),
            duration: self.case.log.duration,
            bytes_sent: self.case.log.bytes_sent,
            reason: self.reason,
            is_of_connection: self.case.request.is_none(),
        }));
        if let Err(failure) = self.stand.instances.on_log(&attachment, &mut self.exchange) {
            // Nobody waits for it: whatever `on-failure` says, the exchange is over.
            self.course.failures.push(failure);
        }
    }

    /// A body that does not go on.
    fn stopped(&mut self, passed: Passed, too_long: &ProxyError) -> ControlFlow<()> {
        match passed {
            Passed::On { .. } => return Continue(()),
            Passed::Reply(reply) => return self.reply(reply),
            Passed::TooLong => self.answers(too_long),
            Passed::Denied(status) => self.answers(&ProxyError::Policy { status }),
            Passed::Aborted(Some(status)) => {
                self.answers(&ProxyError::Policy { status });
                self.course.end = End::Aborted;
                self.status = StatusCode::from_u16(status).ok();
            }
            Passed::Aborted(None) => {
                self.course.end = End::Aborted;
                // That much of it has been sent.
                self.status = self.exchange.response.as_ref().map(|head| head.status);
                self.reason = Some(PLUGIN_STOPPED);
            }
        }
        Break(())
    }

    fn reply(&mut self, reply: Reply) -> ControlFlow<()> {
        self.reason = Some(PLUGIN_REPLY);
        self.course.end = End::Reply {
            status: reply.status,
            headers: reply.headers,
            body: reply.body,
        };
        Break(())
    }

    /// What the gateway says itself.
    fn answers(&mut self, error: &ProxyError) {
        self.reason = Some(error.reason());
        self.course.end = End::Reply {
            status: error.status(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
    }

    /// What a failure leads to.
    fn failed(&mut self, attachment: &Attachment, failure: Failure) -> ControlFlow<()> {
        self.course.failures.push(failure);
        match attachment.on_failure() {
            OnFailure::Skip => return Continue(()),
            OnFailure::Deny(_) if self.case.request.is_none() => self.course.end = End::Refused,
            OnFailure::Deny(status) => self.answers(&ProxyError::Policy { status }),
        }
        Break(())
    }
}

fn name_of(stand: &Stand, backend: usize) -> String {
    stand.backends.get(backend).map_or("", |name| name).to_owned()
}

fn is_empty(body: &[Bytes]) -> bool {
    body.iter().all(Bytes::is_empty)
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

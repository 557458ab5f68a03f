//! Calls of components to backends: what a component asks for, checked, and how it gets the answer. The host makes the request
//! between two calls of the component; see docs/decisions/0006-outbound-calls.md.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, request};

use super::attachment::Attachment;
use super::bindings::gateway::policy::types;
use super::bodies::{MAX_STATE, TOO_MUCH_STATE};
use super::edits::{self, Edits, Made};
use super::exchange::{Exchange, Outcome};
use super::failure::{Failure, FailureKind, Untaken, short_name};
use super::granted::Granted;
use super::hook::ON_ANSWER;
use super::host_memory::HostMemoryFull;
use super::instances::Instances;
use super::subject::Subject;
use crate::config::BackendId;

/// A component's request to a backend.
#[derive(Debug)]
pub struct Call {
    /// The name of a backend that the component may call.
    pub backend: String,
    /// The request.
    pub request: Request<Bytes>,
    /// How long the component wants to wait; none when it leaves that to the operator.
    pub timeout: Option<Duration>,
    /// What comes back with the answer.
    pub state: Bytes,
}

/// What came of a call.
pub type Answered = Result<Answer, CallError>;

/// A backend's answer to a call.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Header fields, without those of the connection.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallError {
    /// It did not come in time.
    Timeout,
    /// As many calls as the operator allows are under way.
    Busy,
    /// No server could be reached, or it broke off.
    Unreachable,
    /// It is longer than the operator allows.
    TooLarge,
}

impl Instances {
    /// Hands over the answer to a call that a request filter has made. It may make so many more.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then, and no edit was made.
    pub fn on_answer(
        &mut self,
        attachment: &Arc<Attachment>,
        exchange: &mut Box<Exchange>,
        answered: &Answered,
        state: &[u8],
        calls_left: usize,
    ) -> Result<Outcome, Failure> {
        let fields: Vec<types::FieldParam<'_>> = match answered {
            Ok(answer) => answer.headers.iter().map(field).collect(),
            Err(_) => Vec::new(),
        };
        let answer = match answered {
            Ok(answer) => Ok(types::Answer {
                status: answer.status.as_u16(),
                headers: &fields,
                body: &answer.body,
            }),
            Err(error) => Err(match error {
                CallError::Timeout => types::CallError::Timeout,
                CallError::Busy => types::CallError::Busy,
                CallError::Unreachable => types::CallError::Unreachable,
                CallError::TooLarge => types::CallError::TooLarge,
            }),
        };
        self.call(
            attachment,
            Subject::Exchange(exchange),
            ON_ANSWER,
            |guests, store, facts| {
                let guest = guests.call_answered.as_ref()?;
                Some(guest.call_on_answer(store, facts, answer, state))
            },
            |answer, edits, subject| match subject {
                Subject::Exchange(exchange) => {
                    let outcome = outcome(answer, edits, &mut exchange.request, attachment)?;
                    if calls_left == 0 && matches!(outcome, Outcome::Call(_)) {
                        return Err(format!("makes more than {MAX_CALLS} calls for one request").into());
                    }
                    Ok(outcome)
                }
                Subject::Connection(_) | Subject::Body(_) => Err("is about no request".into()),
            },
        )
    }

    /// An answer has come, and the gateway may hold no more for the component that it is for.
    pub fn answer_is_not_held(&mut self, attachment: &Arc<Attachment>, full: &HostMemoryFull) -> Failure {
        self.refuse(attachment, ON_ANSWER, FailureKind::HostMemory, &full.to_string())
    }
}

/// Where a request filter sends a request, and its edits.
#[derive(Debug)]
pub struct Route {
    /// The backend, one that it may route to.
    pub backend: BackendId,
    /// That one's name.
    pub(super) name: String,
    edits: Edits,
}

impl Route {
    /// Makes the edits.
    pub fn edit(mut self, request: &mut request::Parts) {
        self.edits.apply_to_request(request);
    }
}

/// Makes of a request filter's answer what the exchange comes to. Edits are made when the request goes on. The error says what is
/// wrong with it, or what its operator does not let it do.
pub(super) fn outcome(
    outcome: types::Outcome,
    mut edits: Made<'_>,
    request: &mut request::Parts,
    attachment: &Attachment,
) -> Result<Outcome, Untaken> {
    let outcome = match outcome {
        types::Outcome::Proceed => Outcome::Proceed,
        types::Outcome::Route(name) => Outcome::Route(Route {
            backend: route(attachment.granted(), &name)?,
            name,
            edits: edits.take(),
        }),
        types::Outcome::Reply(reply) => Outcome::Reply(edits::reply_of(reply, attachment)?),
        types::Outcome::Call(call) => Outcome::Call(Box::new(Call::of(call, attachment)?)),
    };
    match &outcome {
        Outcome::Proceed => edits.apply_to_request(request),
        // Nobody would see them, or they are made later, with the route.
        _ => edits.clear(),
    }
    Ok(outcome)
}

/// The backend of this name, if a component may route to it.
pub(super) fn route(granted: &Granted, name: &str) -> Result<BackendId, String> {
    granted.route(name).ok_or_else(|| {
        format!(
            "routes to `{}`, which it was not granted: add `route-to` to the plugin's block",
            short_name(name)
        )
    })
}

impl Call {
    /// What a component asks for, if it may be sent. The error says what is wrong with it.
    fn of(call: types::Call, attachment: &Attachment) -> Result<Self, Untaken> {
        if attachment.granted().call(&call.backend).is_none() {
            return Err(format!(
                "calls `{}`, which it was not granted: add `call` to the plugin's block",
                short_name(&call.backend)
            )
            .into());
        }
        if call.state.len() > MAX_STATE {
            return Err(TOO_MUCH_STATE.into());
        }
        let method = Method::from_bytes(call.method.as_bytes()).ok();
        let method = method.filter(|method| *method != Method::CONNECT);
        let method = method.ok_or("calls with a method that is none")?;
        let target = Some(call.target).filter(|target| target.first() == Some(&b'/') && target.is_ascii());
        let target = target.and_then(|target| Uri::from_maybe_shared(target).ok());
        let target = target.ok_or("calls for a target that is no path")?;
        let fields = call
            .headers
            .iter()
            .map(|field| (field.name.as_str(), field.value.as_slice()));
        let headers = edits::call_headers(fields)?;
        edits::check_call_body(&call.body)?;
        let mut request = Request::new(attachment.hold(call.body)?);
        *request.method_mut() = method;
        *request.uri_mut() = target;
        *request.headers_mut() = headers;
        Ok(Self {
            backend: call.backend,
            request,
            timeout: (call.timeout_ms > 0).then(|| Duration::from_millis(u64::from(call.timeout_ms))),
            state: attachment.hold(call.state)?,
        })
    }
}

fn field<'a>((name, value): (&'a http::HeaderName, &'a http::HeaderValue)) -> types::FieldParam<'a> {
    types::FieldParam {
        name: name.as_str(),
        value: value.as_bytes(),
    }
}

/// Calls of one component for one request, one after the other; the contract says so. Each is a wait of the client's.
pub const MAX_CALLS: usize = 4;

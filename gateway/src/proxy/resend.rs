//! Sending a request again: after answers that `retry-on` names, within `retries` and the budget, and only what may be sent
//! twice: what is idempotent, and calls of gRPC whose servers say that they have failed. What happens before a request is sent,
//! and on kept connections that turn out to be closed, is `upstream`'s.

use std::rc::Rc;
use std::sync::Arc;

use http::{Method, Response, StatusCode, request};
use http_body::Body;

use super::attempts::Attempts;
use super::body::RequestBody;
use super::client::Client;
use super::coded;
use super::content::Content;
use super::error::ProxyError;
use super::lease::Lease;
use super::local::Local;
use super::record::Record;
use super::scene::Scene;
use super::upstream::{self, is_repeatable};
use crate::backend::{Admitted, Backend};
use crate::config::{GrpcStatuses, RetryOn, Reuse};
use crate::telemetry::grpc::GrpcStatus;

/// Sends a request to a server of the backend and waits for the head of its response, as often as the backend says.
pub async fn send(
    scene: &Scene<'_>,
    record: &mut Record,
    backend: &Arc<Backend>,
    attempts: &mut Attempts,
    head: &mut request::Parts,
    body: &mut RequestBody,
) -> Result<(Response<Content>, Lease), ProxyError> {
    if let Some(max) = backend.max_requests {
        let admitted = Admitted::begin(max, &backend.metrics).ok_or(ProxyError::Overloaded)?;
        record.admit(admitted);
    }
    let Scene { local, client, .. } = *scene;
    if matches!(backend.pool.reuse, Reuse::Safe | Reuse::Aggressive) {
        attempts.is_first_request = client.connection.private.is_first_request();
    }
    if MayRepeat::of(head, &backend.retries.on) == MayRepeat::Never {
        return upstream::send(local, client, record, backend, attempts, head, body).await;
    }
    // Boxed: few backends do this.
    Box::pin(send_again(local, client, record, backend, attempts, head, body)).await
}

/// After what a request is sent again that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MayRepeat {
    /// After nothing.
    Never,
    /// After all that `retry-on` names: it is idempotent.
    Any,
    /// It is a call of gRPC: where its server says that it has failed as `retry-on` names it, and after nothing else.
    Call,
}

impl MayRepeat {
    fn of(head: &request::Parts, on: &RetryOn) -> Self {
        let is_call = || head.method == Method::POST && coded::is_grpc(&head.headers);
        if on.repeats() && is_repeatable(&head.method) {
            Self::Any
        } else if on.grpc != GrpcStatuses::NONE && is_call() {
            Self::Call
        } else {
            Self::Never
        }
    }
}

async fn send_again(
    local: &Rc<Local>,
    client: &Rc<Client>,
    record: &mut Record,
    backend: &Arc<Backend>,
    attempts: &mut Attempts,
    head: &mut request::Parts,
    body: &mut RequestBody,
) -> Result<(Response<Content>, Lease), ProxyError> {
    let policy = &backend.retries;
    let may_repeat = MayRepeat::of(head, &policy.on);
    let kept = body.keep(policy.buffer);
    loop {
        let result = upstream::send(local, client, record, backend, attempts, &mut head.clone(), body).await;
        let (answer, is_wanted) = match &result {
            Ok((response, _)) => {
                let status = response.status();
                let said = said_of_call(response).filter(|_| may_repeat == MayRepeat::Call);
                let is_wanted = match said {
                    Some(said) => names(&policy.on, said),
                    None => may_repeat == MayRepeat::Any && policy.on.statuses.contains(status.as_u16()),
                };
                (Some((status, said)), is_wanted)
            }
            Err(error) => (None, may_repeat == MayRepeat::Any && wants(&policy.on, error)),
        };
        if !is_wanted || !kept.is_complete() || !attempts.has_more() {
            return result;
        }
        if !attempts.may_resend() {
            return result;
        }
        // Ends the attempt, which gives back what it has not read of the body.
        let failed = result.err();
        if !kept.rewind(client, body) {
            return Err(failed.unwrap_or(ProxyError::BadResponse));
        }
        record.discarded(answer);
        record.retried();
        let pause = attempts.answered_badly();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        client.turns.server_moved();
        client.turns.tick();
    }
}

/// What an answer of gRPC says of its call in its head, where that is all of it ("Trailers-Only"). Behind content the status comes when
/// the content has been passed on.
fn said_of_call(response: &Response<Content>) -> Option<GrpcStatus> {
    let content = response.body();
    let is_head_only = content.is_end_stream() || content.is_whole_by_length();
    let is_one = response.status() == StatusCode::OK && coded::is_grpc(response.headers());
    (is_head_only && is_one).then(|| GrpcStatus::of(response.headers()))
}

/// Whether another attempt is made after a call that ended so.
fn names(on: &RetryOn, said: GrpcStatus) -> bool {
    said.number().is_some_and(|number| on.grpc.contains(number))
}

/// Whether another attempt is made after this error. Those of connecting have had theirs.
fn wants(on: &RetryOn, error: &ProxyError) -> bool {
    match error {
        ProxyError::EmptyResponse => on.empty_response,
        ProxyError::BadResponse | ProxyError::InvalidResponse(_) => on.junk_response,
        ProxyError::ServerTimeout => on.response_timeout,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StatusSet;

    #[test]
    fn what_is_not_sent_again_is_not_kept_for_that() {
        let mut grpc = GrpcStatuses::NONE;
        grpc.add(14);
        let statuses = StatusSet::of(&[(503, 503)]);
        let calls_alone = RetryOn {
            conn_failure: true,
            empty_response: false,
            junk_response: false,
            response_timeout: false,
            statuses: StatusSet::NONE,
            grpc,
        };
        let both = RetryOn {
            statuses,
            ..calls_alone
        };
        let of = |method: Method, content: &'static str, on: &RetryOn| {
            let (mut head, ()) = http::Request::new(()).into_parts();
            head.method = method;
            let content = http::HeaderValue::from_static(content);
            head.headers.insert(http::header::CONTENT_TYPE, content);
            MayRepeat::of(&head, on)
        };
        for (on, put) in [(calls_alone, MayRepeat::Never), (both, MayRepeat::Any)] {
            assert_eq!(of(Method::PUT, "text/plain", &on), put);
            assert_eq!(of(Method::POST, "text/plain", &on), MayRepeat::Never);
            assert_eq!(of(Method::POST, "application/grpc", &on), MayRepeat::Call);
        }
    }
}

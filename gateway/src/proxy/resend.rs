//! Sending a request again: after answers that `retry-on` names, within `retries` and the budget, and only what may be sent
//! twice. What happens before a request is sent, and on kept connections that turn out to be closed, is `upstream`'s.

use std::rc::Rc;
use std::sync::Arc;

use http::{Response, request};

use super::attempts::Attempts;
use super::body::RequestBody;
use super::client::Client;
use super::content::Content;
use super::error::ProxyError;
use super::lease::Lease;
use super::local::Local;
use super::record::Record;
use super::upstream::{self, is_repeatable};
use crate::backend::{Admitted, Backend, PickKey, Resending};
use crate::config::{RetryOn, Reuse};

/// Sends a request to a server of the backend and waits for the head of its response, as often as the backend says.
pub async fn send(
    local: &Rc<Local>,
    client: &Rc<Client>,
    record: &mut Record,
    backend: &Arc<Backend>,
    key: PickKey,
    head: &mut request::Parts,
    body: &mut RequestBody,
) -> Result<(Response<Content>, Lease), ProxyError> {
    if let Some(max) = backend.max_requests {
        let admitted = Admitted::begin(max, &backend.metrics).ok_or(ProxyError::Overloaded)?;
        record.admit(admitted);
    }
    let mut attempts = Attempts::new(backend, key);
    if matches!(backend.pool.reuse, Reuse::Safe | Reuse::Aggressive) {
        attempts.is_first_request = client.connection.private.is_first_request();
    }
    if !backend.retries.on.sends_again() || !is_repeatable(&head.method) {
        return upstream::send(local, client, record, backend, &mut attempts, head, body).await;
    }
    // Boxed: few backends do this.
    Box::pin(send_again(local, client, record, backend, &mut attempts, head, body)).await
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
    let kept = body.keep(policy.buffer);
    // Counts until there is an answer that is passed on.
    let mut resending: Option<Resending> = None;
    loop {
        let result = upstream::send(local, client, record, backend, attempts, &mut head.clone(), body).await;
        let (status, is_wanted) = match &result {
            Ok((response, _)) => {
                let status = response.status().as_u16();
                (Some(status), policy.on.statuses.contains(status))
            }
            Err(error) => (None, wants(&policy.on, error)),
        };
        if !is_wanted || !kept.is_complete() || !attempts.has_more() {
            return result;
        }
        if resending.is_none() {
            resending = Resending::begin(&policy.budget, &backend.metrics);
        }
        if resending.is_none() {
            return result;
        }
        // Ends the attempt, which gives back what it has not read of the body.
        let failed = result.err();
        if !kept.rewind(client, body) {
            return Err(failed.unwrap_or(ProxyError::BadResponse));
        }
        record.discarded(status);
        record.retried();
        let pause = attempts.answered_badly();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        client.turns.server_moved();
        client.turns.tick();
    }
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

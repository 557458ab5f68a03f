//! What the gateway answers by itself, on its way out: the operator's page, the edits of `response` with `always`, a tenant's, those of
//! plugins with `always` and the operator's, and gRPC's form.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::client::Client;
use super::error::ProxyError;
use super::grpc_answer;
use super::local::Local;
use super::policy;
use super::record::Record;
use crate::policy::{Exchange, Reply};
use crate::snapshot::pages::Page;
use crate::snapshot::{AclAnswers, Frontend, Rewrites};

/// The operator's page for an answer of this status. A call of gRPC has no use for one.
pub fn page<'a>(local: &'a Local, frontend: &'a Frontend, record: &Record, status: StatusCode) -> Option<&'a Page> {
    match record.is_call() {
        true => None,
        false => local.snapshot.page(frontend, record.backend(), status),
    }
}

/// An answer to a request, as the edits leave it; to a call of gRPC in its form. Answers the status that is meant, too.
pub async fn finish(
    local: &Rc<Local>,
    frontend: &Frontend,
    client: &Client,
    record: &mut Record,
    response: Response<Bytes>,
) -> (Response<Bytes>, StatusCode) {
    let response = edit(local, frontend, client, record, response).await;
    let meant = response.status();
    if !record.is_call() {
        return (response, meant);
    }
    let (response, said) = grpc_answer::of(response);
    if let Some(said) = said {
        record.told(said);
    }
    (response, meant)
}

async fn edit(
    local: &Rc<Local>,
    frontend: &Frontend,
    client: &Client,
    record: &mut Record,
    response: Response<Bytes>,
) -> Response<Bytes> {
    let response = match record.noted.tenants_edits.take() {
        // Boxed: few answers are edited by a tenant.
        Some(edits) => Box::pin(edit_for_tenant(local, frontend, record, &edits, response)).await,
        None => response,
    };
    let response = match frontend.always.is_empty() {
        true => response,
        // Boxed: few answers are filtered.
        false => Box::pin(filter(local, frontend, record, response)).await,
    };
    let backend = record.backend();
    let Some(rewrites) = frontend.own_answers.as_ref().and_then(|own| own.of(backend)) else {
        return response;
    };
    let kept = record.noted.exchange.take();
    let is_kept = kept.is_some();
    // What was refused before it was looked at is known by its connection alone.
    let mut exchange = kept.unwrap_or_else(|| policy::of_connection(&client.facts));
    let made = made(
        local,
        rewrites,
        record.noted.answers.as_deref(),
        &mut exchange,
        response,
    );
    record.noted.exchange = is_kept.then_some(exchange);
    made.unwrap_or_else(|error| {
        record.own_edits_failed(&error);
        error.response(page(local, frontend, record, error.status()))
    })
}

/// Has the plugins with `always` filter an answer to what was looked at; what was refused before that is nobody's but the gateway's.
async fn filter(
    local: &Rc<Local>,
    frontend: &Frontend,
    record: &mut Record,
    response: Response<Bytes>,
) -> Response<Bytes> {
    let Some(mut exchange) = record.noted.exchange.take() else {
        return response;
    };
    let status = response.status();
    // Who is refused is not told something else because a plugin could not be asked, nor that a tunnel is there which is not.
    let is_error = status.is_client_error() || status.is_server_error();
    let asks_for_tunnel = record.noted.asks_for_tunnel;
    let as_it_was = (is_error || asks_for_tunnel).then(|| response.clone());
    let (head, body) = response.into_parts();
    // A server may have answered before.
    let servers = exchange.response.replace(head);
    let filtered = policy::own_answer_filters(local, frontend, record.noted.is_operators, &mut exchange).await;
    let head = std::mem::replace(&mut exchange.response, servers);
    // No phase comes any more that needs what it was asked by.
    exchange.gives_up_instances();
    record.noted.exchange = Some(exchange);
    let filtered = filtered.and_then(|reply| match (reply, head) {
        (Some(reply), _) => Ok(answer(reply)),
        (None, Some(head)) => Ok(Response::from_parts(head, body)),
        (None, None) => Err(ProxyError::Policy { status: 500 }),
    });
    let filtered = match (filtered, as_it_was) {
        (Ok(filtered), Some(as_it_was)) if asks_for_tunnel && filtered.status().is_success() => return as_it_was,
        (Ok(filtered), _) => filtered,
        // The failure has been counted and logged.
        (Err(_), Some(as_it_was)) if is_error => return as_it_was,
        (Err(error), _) => {
            record.own_edits_failed(&error);
            return error.response(page(local, frontend, record, error.status()));
        }
    };
    if filtered.status() != status {
        record.is_answered_as(filtered.status());
    }
    filtered
}

/// A component's reply.
pub fn answer(reply: Reply) -> Response<Bytes> {
    let mut response = Response::new(reply.body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

/// The same by the tenant whose host was asked for.
async fn edit_for_tenant(
    local: &Rc<Local>,
    frontend: &Frontend,
    record: &mut Record,
    edits: &(Arc<Rewrites>, Option<AclAnswers>),
    response: Response<Bytes>,
) -> Response<Bytes> {
    // It is there: its tenant is known by what it asked for.
    let Some(mut exchange) = record.noted.exchange.take() else {
        return response;
    };
    let (rewrites, answers) = edits;
    // What was refused by others than the tenant, a limit of the operator's perhaps, is no other status because the tenant has used up
    // what it may.
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let as_it_was = is_error.then(|| response.clone());
    let (head, body) = response.into_parts();
    // A server may have answered before.
    let servers = exchange.response.replace(head);
    let made = policy::own_answer_edits_of_tenant(local, rewrites, answers.as_ref(), &mut exchange).await;
    let head = std::mem::replace(&mut exchange.response, servers);
    record.noted.exchange = Some(exchange);
    let made = made.and_then(|()| head.ok_or(ProxyError::Policy { status: 500 }));
    match (made, as_it_was) {
        (Ok(head), _) => Response::from_parts(head, body),
        // The failure has been counted and logged.
        (Err(_), Some(as_it_was)) => as_it_was,
        (Err(error), None) => {
            record.own_edits_failed(&error);
            error.response(page(local, frontend, record, error.status()))
        }
    }
}

/// An answer to what was no request. Where they cannot be made, it goes as it was.
pub fn edit_refusal(
    local: &Rc<Local>,
    frontend: &Frontend,
    client: &Client,
    response: Response<Bytes>,
) -> Response<Bytes> {
    let Some(rewrites) = frontend.own_answers.as_ref().and_then(|own| own.of(None)) else {
        return response;
    };
    let mut exchange = policy::of_connection(&client.facts);
    let as_it_was = response.clone();
    made(local, rewrites, None, &mut exchange, response).unwrap_or(as_it_was)
}

fn made(
    local: &Rc<Local>,
    rewrites: &Rewrites,
    answers: Option<&AclAnswers>,
    exchange: &mut Box<Exchange>,
    response: Response<Bytes>,
) -> Result<Response<Bytes>, ProxyError> {
    let (head, body) = response.into_parts();
    // A server may have answered before.
    let servers = exchange.response.replace(head);
    let made = policy::own_answer_edits(local, rewrites, answers, exchange);
    let head = std::mem::replace(&mut exchange.response, servers);
    made?;
    let head = head.ok_or(ProxyError::Policy { status: 500 })?;
    Ok(Response::from_parts(head, body))
}

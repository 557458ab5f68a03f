//! The phases of a request in which components decide, and what their failures mean. Each phase is one function; the order
//! in which they run is the request's business.

use std::rc::Rc;
use std::sync::Arc;

use http_body::Body as _;

use super::body::RequestBody;
use super::calls;
use super::client::Client;
use super::error::ProxyError;
use super::heavy;
use super::limit_headers::LimitHeaders;
use super::local::Local;
use crate::config::{BackendId, OnFailure};
use crate::policy::path_captures::PathCaptures;
use crate::policy::{
    Attachment, Call, ConnectionFacts, ConnectionVerdict, Exchange, Failure, HookPlace, Instances, LimitVerdict, Lot,
    MAX_CALLS, Outcome, Reply,
};
use crate::snapshot::{AclAnswers, AclCall, AclCalls, Frontend, Rewrites, TenantRules};
use crate::telemetry::trace::context;

/// What a phase that may answer a request came to.
#[derive(Debug)]
pub enum Answer {
    /// The request goes on.
    Continue,
    /// It goes on to another backend than was chosen.
    Route(BackendId),
    /// The request ends here, with this.
    Reply(Reply),
}

/// What predicates and limits are asked about where there is no request: of the exchange only the connection is there, and
/// the configuration lets nobody ask about anything else.
pub fn of_connection(facts: &Arc<ConnectionFacts>) -> Box<Exchange> {
    Exchange::new(http::Request::new(()).into_parts().0, facts.clone())
}

/// **acl**: the predicates of a frontend or of a tenant, one call per component.
pub async fn acls(local: &Rc<Local>, asked: &AclCalls, exchange: &mut Box<Exchange>) -> Result<AclAnswers, ProxyError> {
    let mut answers = counted(local, asked);
    for call in &asked.calls {
        // Of whom nobody asks anything there is nothing to compare.
        if !call.compared.is_empty() && !call.attachment.takes_part(exchange) {
            continue;
        }
        let bits = heavy::ask(
            local,
            &call.attachment,
            HookPlace::Evaluate,
            exchange,
            Instances::evaluate,
        )
        .await?;
        answered(call, bits, &mut answers)?;
    }
    Ok(answers)
}

/// The same of the tenant whose host was asked for, which say also which of its plugins take part.
pub async fn acls_of_tenant(
    local: &Rc<Local>,
    tenant: &TenantRules,
    exchange: &mut Box<Exchange>,
) -> Result<AclAnswers, ProxyError> {
    let answers = acls(local, &tenant.acls, exchange).await?;
    exchange.is_used_by(answers.holding(&tenant.uses));
    Ok(answers)
}

/// Predicates of the gateway's own component, which is never heavy.
pub fn answers(local: &Rc<Local>, asked: &AclCalls, exchange: &mut Box<Exchange>) -> Result<AclAnswers, ProxyError> {
    let mut answers = counted(local, asked);
    for call in &asked.calls {
        let bits = local.instances().evaluate(&call.attachment, exchange);
        answered(call, bits, &mut answers)?;
    }
    Ok(answers)
}

/// Of what is asked, what the gateway knows by itself: how many servers of a backend may have new work.
fn counted(local: &Local, asked: &AclCalls) -> AclAnswers {
    let mut answers = AclAnswers::default();
    for (acl, up) in &asked.servers {
        let count = local.snapshot.backends[up.backend.value.0].taking_work();
        if (u64::from(up.min)..=u64::from(up.max)).contains(&count) {
            answers.set(*acl);
        }
    }
    answers
}

fn answered(call: &AclCall, bits: Result<u64, Failure>, answers: &mut AclAnswers) -> Result<(), ProxyError> {
    let bits = match bits {
        Ok(bits) => bits,
        // Skipped: its predicates read false. A shadow's nobody reads.
        Err(failure) => return failed(&call.attachment, &failure),
    };
    let holds = |bit: u32| bits >> bit & 1 == 1;
    if !call.compared.is_empty() {
        let compared = call.compared.iter();
        let said = compared.map(|(bit, acl, name)| (&**name, holds(*bit), answers.get(*acl)));
        call.attachment.compare_acls(said);
    }
    for (bit, acl) in &call.answers {
        if holds(*bit) {
            answers.set(*acl);
        }
    }
    Ok(())
}

/// **limits**: the frontend's rate limits, then those of its plugins.
///
/// What clients are to be told of them goes into `said`, where they are told.
pub async fn limits(
    local: &Rc<Local>,
    frontend: &Frontend,
    answers: &AclAnswers,
    exchange: &mut Box<Exchange>,
    said: &mut Option<Box<LimitHeaders>>,
) -> Result<(), ProxyError> {
    let own = frontend.limiters.iter().filter(|limiter| limiter.applies(answers));
    let plugins = frontend.plugins.iter().filter(|plugin| plugin.hooks().limiter);
    let are_told = frontend.config.rate_limit_headers;
    for attachment in own.map(|limiter| &limiter.attachment).chain(plugins) {
        let verdict = heavy::ask(local, attachment, HookPlace::Check, exchange, Instances::check).await?;
        if are_told && let Ok(Some(verdict)) = &verdict {
            said.get_or_insert_default().add(attachment.policies(), verdict);
        }
        is_within(attachment, verdict)?;
    }
    Ok(())
}

/// Whether a connection is within these limits of the gateway's own; each takes its token.
pub fn within<'a>(
    local: &Rc<Local>,
    limiters: impl Iterator<Item = &'a Arc<Attachment>>,
    exchange: &mut Box<Exchange>,
) -> Result<(), ProxyError> {
    for attachment in limiters {
        let verdict = local.instances().check(attachment, exchange);
        is_within(attachment, verdict)?;
    }
    Ok(())
}

fn is_within(attachment: &Attachment, verdict: Result<Option<LimitVerdict>, Failure>) -> Result<(), ProxyError> {
    match verdict {
        Ok(None | Some(LimitVerdict { allowed: true, .. })) => Ok(()),
        Ok(Some(verdict)) => Err(ProxyError::RateLimited {
            retry_after_ms: verdict.retry_after_ms,
        }),
        Err(failure) => failed(attachment, &failure),
    }
}

/// **rules**: what the captures of a redirect stand for; none where its expression does not match the request's path.
pub async fn captured(
    local: &Rc<Local>,
    captures: &PathCaptures,
    exchange: &mut Box<Exchange>,
) -> Result<Option<Vec<Vec<u8>>>, ProxyError> {
    // The component is shown the path in place of the head.
    let asked = captures.question(&exchange.request.uri).ok_or(ProxyError::UriTooLong)?;
    let headers = std::mem::replace(&mut exchange.request.headers, asked);
    let conditions = std::mem::replace(&mut exchange.conditions, captures.condition());
    let attachment = captures.attachment();
    let outcome = heavy::ask(local, attachment, HookPlace::OnRequest, exchange, Instances::on_request).await?;
    let told = std::mem::replace(&mut exchange.request.headers, headers);
    exchange.conditions = conditions;
    match outcome {
        Ok(_) => captures
            .read(&told, &exchange.request.uri)
            .ok_or(ProxyError::UriTooLong),
        Err(failure) => failed(attachment, &failure).map(|()| None),
    }
}

/// **request rewrite**, first half: the plugins' filters in order. The last that routes decides where to.
pub async fn request_filters(
    local: &Rc<Local>,
    frontend: &Frontend,
    client: &Rc<Client>,
    exchange: &mut Box<Exchange>,
) -> Result<Answer, ProxyError> {
    let mut answer = Answer::Continue;
    for attachment in frontend.plugins.iter().filter(|plugin| plugin.hooks().request_filter) {
        let mut outcome = heavy::ask(local, attachment, HookPlace::OnRequest, exchange, Instances::on_request).await?;
        if let Ok(Outcome::Call(call)) = outcome {
            // Boxed: few requests wait for a call.
            outcome = Box::pin(called(local, client, attachment, exchange, call)).await?;
        }
        match outcome {
            // `called` lets none through.
            Ok(Outcome::Proceed | Outcome::Call(_)) => {}
            Ok(Outcome::Reply(reply)) => {
                exchange.replied = Some(attachment.clone());
                return Ok(Answer::Reply(reply));
            }
            Ok(Outcome::Route(route)) => {
                answer = Answer::Route(route.backend);
                route.edit(&mut exchange.request);
            }
            Err(failure) => {
                failed(attachment, &failure)?;
                attachment.vouches_for_nobody(&mut exchange.request.headers);
            }
        }
    }
    Ok(answer)
}

/// **request rewrite**, behind the filters: what servers are told of who somebody is, and of the request's trace, its client does not say
/// behind its content. Where a plugin has no part in the request, its fields are as any other there, as in the head.
pub fn withhold_trailers(frontend: &Frontend, exchange: &mut Exchange, body: &mut RequestBody) {
    if body.is_end_stream() {
        return;
    }
    if exchange.trace.is_some() {
        body.withhold(&[context::TRACEPARENT, context::TRACESTATE]);
    }
    for attachment in &frontend.plugins {
        if !attachment.vouched().is_empty() && attachment.takes_part(exchange) {
            body.withhold(attachment.vouched());
        }
    }
}

/// Makes the calls that a component wants to make for a request, one after the other, and hands it the answers.
async fn called(
    local: &Rc<Local>,
    client: &Rc<Client>,
    attachment: &Arc<Attachment>,
    exchange: &mut Box<Exchange>,
    mut call: Box<Call>,
) -> Result<Result<Outcome, Failure>, ProxyError> {
    let mut calls_left = MAX_CALLS;
    loop {
        calls_left = calls_left.saturating_sub(1);
        let state = std::mem::take(&mut call.state);
        let answered = match calls::make(local, client, attachment, *call).await {
            Ok(answered) => answered,
            Err(full) => return Ok(Err(local.instances().answer_is_not_held(attachment, &full))),
        };
        let hook = move |instances: &mut Instances, attachment: &Arc<Attachment>, exchange: &mut Box<Exchange>| {
            instances.on_answer(attachment, exchange, &answered, &state, calls_left)
        };
        match heavy::ask(local, attachment, HookPlace::OnAnswer, exchange, hook).await? {
            Ok(Outcome::Call(next)) => call = next,
            outcome => return Ok(outcome),
        }
    }
}

/// **request rewrite**, between the two: the edits of the tenant whose host was asked for.
pub async fn request_edits_of_tenant(
    local: &Rc<Local>,
    rewrites: &Rewrites,
    answers: &AclAnswers,
    exchange: &mut Box<Exchange>,
) -> Result<Option<Reply>, ProxyError> {
    exchange.conditions = rewrites.conditions(answers);
    let attachment = &rewrites.attachment;
    match heavy::ask(local, attachment, HookPlace::OnRequest, exchange, Instances::on_request).await? {
        Ok(Outcome::Reply(reply)) => Ok(Some(reply)),
        // The gateway's own component neither routes nor calls.
        Ok(Outcome::Proceed | Outcome::Route(_) | Outcome::Call(_)) => Ok(None),
        Err(failure) => failed(attachment, &failure).map(|()| None),
    }
}

/// **response rewrite**, before all others: the edits of the tenant whose host was asked for.
pub async fn response_edits_of_tenant(
    local: &Rc<Local>,
    rewrites: &Rewrites,
    answers: &AclAnswers,
    exchange: &mut Box<Exchange>,
) -> Result<Option<Reply>, ProxyError> {
    // The operator's own edits come behind, with conditions of their own.
    let conditions = with_status(rewrites, rewrites.conditions(answers), exchange);
    let operators = std::mem::replace(&mut exchange.conditions, conditions);
    let attachment = &rewrites.attachment;
    let asked = heavy::ask(
        local,
        attachment,
        HookPlace::OnResponse,
        exchange,
        Instances::on_response,
    )
    .await?;
    exchange.conditions = operators;
    match asked {
        Ok(reply) => Ok(reply),
        Err(failure) => failed(attachment, &failure).map(|()| None),
    }
}

/// **request rewrite**, second half: the operator's own edits on the way to this backend, which have the last word.
pub fn own_request_edits(
    local: &Rc<Local>,
    frontend: &Frontend,
    backend: BackendId,
    answers: &AclAnswers,
    exchange: &mut Box<Exchange>,
) -> Result<Option<Reply>, ProxyError> {
    let Some(rewrites) = frontend.rewrites(backend) else {
        return Ok(None);
    };
    if !rewrites.conditions.is_empty() {
        exchange.conditions = rewrites.conditions(answers);
    }
    if !rewrites.request {
        return Ok(None);
    }
    match local.instances().on_request(&rewrites.attachment, exchange) {
        Ok(Outcome::Reply(reply)) => Ok(Some(reply)),
        // The gateway's own component neither routes nor calls.
        Ok(Outcome::Proceed | Outcome::Route(_) | Outcome::Call(_)) => Ok(None),
        Err(failure) => failed(&rewrites.attachment, &failure).map(|()| None),
    }
}

/// What the components of a TCP frontend come to.
#[derive(Debug)]
pub enum ConnectionAnswer {
    /// The connection goes on.
    Continue,
    /// It is closed.
    Refuse,
    /// It goes to this backend.
    Route(BackendId),
}

/// **connection policy**: the plugins in order; the last that routes decides where to. Who takes part is drawn into `lot`.
pub async fn connection_filters(
    local: &Rc<Local>,
    frontend: &Frontend,
    facts: &Arc<ConnectionFacts>,
    lot: &mut Lot,
) -> Result<ConnectionAnswer, ProxyError> {
    let mut answer = ConnectionAnswer::Continue;
    for attachment in frontend
        .plugins
        .iter()
        .filter(|plugin| plugin.hooks().connection_filter)
    {
        if attachment.stands_aside_of_connection(lot) {
            continue;
        }
        match heavy::ask_about(local, attachment, facts).await? {
            Ok(ConnectionVerdict::Accept) => {}
            Ok(ConnectionVerdict::Refuse) => return Ok(ConnectionAnswer::Refuse),
            Ok(ConnectionVerdict::Route(backend)) => answer = ConnectionAnswer::Route(backend),
            Err(failure) => failed(attachment, &failure)?,
        }
    }
    Ok(answer)
}

/// What a response on its way from a backend will meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFilters {
    /// Nothing.
    None,
    /// Components that look at the response only.
    Plain,
    /// Components that may look at the request, too, whose header fields have to be kept for them.
    ReadRequest,
}

/// What a response on its way from this backend will meet.
pub fn response_filters_of(frontend: &Frontend, backend: BackendId, of_tenant: Option<&Rewrites>) -> ResponseFilters {
    let plugins = frontend.plugins.iter().filter(|plugin| plugin.hooks().response_filter);
    let own = frontend.rewrites(backend).filter(|rewrites| rewrites.response);
    plugins
        .chain(own.into_iter().chain(of_tenant).map(|rewrites| &rewrites.attachment))
        .map(|attachment| match attachment.response_filter_reads_request() {
            true => ResponseFilters::ReadRequest,
            false => ResponseFilters::Plain,
        })
        .reduce(|one, other| if one == ResponseFilters::Plain { other } else { one })
        .unwrap_or(ResponseFilters::None)
}

/// Whether a plugin that filters the content of responses may look at the request's header fields when it is asked about one.
pub fn response_body_filters_read_request(frontend: &Frontend) -> bool {
    let mut plugins = frontend.plugins.iter();
    plugins.any(|plugin| plugin.hooks().response_body_filter && plugin.response_filter_reads_request())
}

/// **response rewrite**: the plugins' filters in reverse order (the last to see the request is the first to see the
/// response), then the operator's own edits. A reply takes the response's place, and nobody edits that.
pub async fn response_filters(
    local: &Rc<Local>,
    frontend: &Frontend,
    backend: BackendId,
    exchange: &mut Box<Exchange>,
) -> Result<Option<Reply>, ProxyError> {
    let plugins = frontend
        .plugins
        .iter()
        .rev()
        .filter(|plugin| plugin.hooks().response_filter);
    let own = frontend.rewrites(backend).filter(|rewrites| rewrites.response);
    for attachment in plugins.chain(own.map(|rewrites: &Rewrites| &rewrites.attachment)) {
        if let Some(own) = own.filter(|own| own.asks_status && Arc::ptr_eq(&own.attachment, attachment)) {
            exchange.conditions = with_status(own, exchange.conditions, exchange);
        }
        match heavy::ask(
            local,
            attachment,
            HookPlace::OnResponse,
            exchange,
            Instances::on_response,
        )
        .await?
        {
            Ok(None) => {}
            Ok(Some(reply)) => {
                exchange.replied = Some(attachment.clone());
                return Ok(Some(reply));
            }
            Err(failure) => failed(attachment, &failure)?,
        }
    }
    Ok(None)
}

/// **response rewrite** of what is answered here, which the exchange has for its response: the edits that are always made. `answers` are
/// those of the acls, where they have been asked.
pub fn own_answer_edits(
    local: &Rc<Local>,
    rewrites: &Rewrites,
    answers: Option<&AclAnswers>,
    exchange: &mut Box<Exchange>,
) -> Result<(), ProxyError> {
    let conditions = conditions_here(rewrites, answers, exchange);
    let before = std::mem::replace(&mut exchange.conditions, conditions);
    let asked = local.instances().on_response(&rewrites.attachment, exchange);
    exchange.conditions = before;
    match asked {
        // The gateway's own component answers nothing in a response's place.
        Ok(_) => Ok(()),
        Err(failure) => failed(&rewrites.attachment, &failure),
    }
}

/// The same by the tenant whose host was asked for.
pub async fn own_answer_edits_of_tenant(
    local: &Rc<Local>,
    rewrites: &Rewrites,
    answers: Option<&AclAnswers>,
    exchange: &mut Box<Exchange>,
) -> Result<(), ProxyError> {
    let conditions = conditions_here(rewrites, answers, exchange);
    let before = std::mem::replace(&mut exchange.conditions, conditions);
    let attachment = &rewrites.attachment;
    let asked = heavy::ask_in_any_phase(
        local,
        attachment,
        HookPlace::OnResponse,
        exchange,
        Instances::on_response,
    )
    .await?;
    exchange.conditions = before;
    match asked {
        // The gateway's own component answers nothing in a response's place.
        Ok(_) => Ok(()),
        Err(failure) => failed(attachment, &failure),
    }
}

/// **response rewrite** of what is answered here, by the plugins with `always`, the last first. Who has replied is not asked about that
/// reply, and a tenant's plugin about nothing that its operator's rules or plugins have answered. A reply takes the answer's place, and
/// no plugin edits that.
pub async fn own_answer_filters(
    local: &Rc<Local>,
    frontend: &Frontend,
    is_operators: bool,
    exchange: &mut Box<Exchange>,
) -> Result<Option<Reply>, ProxyError> {
    let replied = exchange.replied.clone();
    for attachment in &frontend.always {
        let is_its_own = |by: &Arc<Attachment>| Arc::ptr_eq(by, attachment);
        let is_not_its = |tenant: &str| is_operators || replied.as_ref().is_some_and(|by| by.tenant() != Some(tenant));
        if replied.as_ref().is_some_and(is_its_own) || attachment.tenant().is_some_and(is_not_its) {
            continue;
        }
        let hook = Instances::on_response;
        let asked = heavy::ask_in_any_phase(local, attachment, HookPlace::OnResponse, exchange, hook).await?;
        match asked {
            Ok(None) => {}
            Ok(reply) => return Ok(reply),
            Err(failure) => failed(attachment, &failure)?,
        }
    }
    Ok(None)
}

/// Which conditions of edits hold for what is answered here.
fn conditions_here(rewrites: &Rewrites, answers: Option<&AclAnswers>, exchange: &Exchange) -> u64 {
    let of_request = match answers {
        Some(answers) => rewrites.conditions(answers),
        None => rewrites.conditions_unasked(),
    };
    with_status(rewrites, of_request, exchange)
}

/// Which of the conditions that hold for the request do for the response as it is now, too.
fn with_status(rewrites: &Rewrites, of_request: u64, exchange: &Exchange) -> u64 {
    match &exchange.response {
        Some(response) => rewrites.conditions_of_response(of_request, response.status),
        None => of_request,
    }
}

/// What a component's failure means for the exchange: its declared policy. The host has logged and counted it.
pub fn failed(attachment: &Attachment, _failure: &Failure) -> Result<(), ProxyError> {
    match attachment.on_failure() {
        OnFailure::Skip => Ok(()),
        OnFailure::Deny(status) => Err(ProxyError::Policy { status }),
    }
}

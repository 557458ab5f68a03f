//! **acl, limits, rules, route, request rewrite**: what becomes of a request that is fit to be looked at, until a server is asked.

use std::rc::Rc;
use std::sync::Arc;

use http::header;
use http_body::Body;

use super::body::RequestBody;
use super::body_filters;
use super::compression;
use super::decompression;
use super::error::ProxyError;
use super::forwarding;
use super::local::Local;
use super::own_fields::OwnFields;
use super::policy::{self, Answer, ResponseFilters};
use super::recoding::Wanted;
use super::record::Record;
use super::rules;
use super::scene::Scene;
use super::upgrade::Asked;
use crate::backend::Backend;
use crate::config::BackendId;
use crate::policy::{Exchange, Reply};
use crate::snapshot::rules::{Action, Redirect, Rule, RuleAt, Target};
use crate::snapshot::{AclAnswers, Rewrites};

/// What has been decided on a request.
pub enum Decided<'a> {
    /// A server is asked.
    Goes(Way<'a>),
    /// Nobody is asked. Boxed: what goes on has no room for it to keep.
    Here(Box<Here>),
}

/// An answer by a component or a rule.
pub struct Here {
    /// What it is.
    pub reply: Reply,
    /// Why there is one.
    pub reason: &'static str,
    /// Where the rule stands.
    pub rule: Option<RuleAt>,
}

impl Here {
    /// Of a component.
    pub fn by_plugin(reply: Reply) -> Box<Self> {
        Box::new(Self {
            reply,
            reason: PLUGIN_REPLY,
            rule: None,
        })
    }
}

/// Where a request goes, and what is to be done with its response. Kept until that comes, and small for that.
pub struct Way<'a> {
    /// The backend.
    pub backend: &'a Arc<Backend>,
    /// Its position.
    pub backend_id: BackendId,
    /// What a tenant edits of the response, and what its acls have answered.
    pub of_tenant: Option<Box<(&'a Rewrites, AclAnswers)>>,
    /// Whether components filter the response, and what they ask for.
    pub filters: ResponseFilters,
    /// The codings that the response may be taken out of and put into. Boxed: few frontends ask for that.
    pub recoding: Option<Box<Wanted<'a>>>,
    /// Somebody may ask for the request's head when the response is there.
    pub keeps_request: bool,
}

/// Decides on a request. What fails, and what a rule refuses, is the answer.
pub async fn decide<'a>(
    scene: &Scene<'a>,
    record: &mut Record,
    exchange: &mut Box<Exchange>,
    body: &mut RequestBody,
    asked: Option<&Asked>,
) -> Result<Decided<'a>, ProxyError> {
    let Scene {
        local,
        frontend,
        client,
        tenant,
    } = *scene;
    if frontend.keeps_instances {
        exchange.kept_by_connection = Some(client.connection.kept());
    }
    // acl, limits, rules, route
    let answers = policy::acls(local, &frontend.acls, exchange).await?;
    let tenant = match tenant {
        // Boxed: not every frontend has tenants that decide something.
        Some(tenant) => Some((tenant, Box::pin(policy::acls_of_tenant(local, tenant, exchange)).await)),
        None => None,
    };
    if let Some(choice) = &frontend.config.log_choice {
        record.noted.is_unlogged = choice.when.as_ref().is_some_and(|when| !answers.hold(when));
    }
    if frontend.own_answers.is_some() {
        record.noted.answers = Some(Box::new(answers));
    }
    if let Some((tenant, answers)) = &tenant
        && let Some(rewrites) = &tenant.own_answers
    {
        record.noted.tenants_edits = Some(Box::new((Arc::clone(rewrites), answers.as_ref().ok().copied())));
    }
    policy::limits(local, frontend, &answers, exchange, &mut record.noted.limits).await?;
    record.noted.counted = std::mem::take(&mut exchange.counted);
    let decided = ruled(local, &frontend.rules, &answers, exchange).await;
    if let Some(here) = by_operator(record, decided)? {
        return Ok(Decided::Here(here));
    }
    let tenant = match tenant {
        // What could not be asked fails behind all that the operator has decided.
        Some((tenant, answers)) => Some((tenant, answers?)),
        None => None,
    };
    if let Some((tenant, answers)) = &tenant
        && let Some(here) = ruled(local, &tenant.rules, answers, exchange).await?
    {
        return Ok(Decided::Here(here));
    }
    let mut backend_id = frontend
        .route(&answers, exchange, tenant.as_ref())
        .ok_or(ProxyError::NoRoute)?;
    record.routed(&local.snapshot.backends[backend_id.0]);

    // request rewrite
    let forwarding = frontend.config.forwarding.as_deref();
    let asked_host = forwarding.and_then(|told| forwarding::asked_host(told, &exchange.request.headers));
    let edits = tenant.as_ref().and_then(|(tenant, answers)| {
        let rewrites = tenant.rewrites.as_ref().filter(|rewrites| rewrites.request)?;
        Some((rewrites, answers))
    });
    let is_edited = edits.is_some() || frontend.plugins.iter().any(|plugin| plugin.hooks().request_filter);
    let own_fields = match is_edited {
        true => {
            let has_tenants = frontend.asks_tenants;
            let is_traced = exchange.trace.is_some();
            OwnFields::keep(&frontend.config, &exchange.request.headers, has_tenants, is_traced)
        }
        false => None,
    };
    match policy::request_filters(local, frontend, client, exchange).await? {
        Answer::Continue => {}
        Answer::Route(other) => {
            backend_id = other;
            record.routed(&local.snapshot.backends[backend_id.0]);
        }
        Answer::Reply(reply) => return Ok(Decided::Here(Here::by_plugin(reply))),
    }
    policy::withhold_trailers(frontend, exchange, body);
    let backend = &local.snapshot.backends[backend_id.0];
    // Before the operator's own rules look at them, and once more behind a tenant's edits.
    if let Some(own_fields) = &own_fields {
        own_fields.put_back(&mut exchange.request.headers);
    }
    let decided = ruled(local, frontend.rules_of(backend_id), &answers, exchange).await;
    if let Some(here) = by_operator(record, decided)? {
        return Ok(Decided::Here(here));
    }
    if let Some((rewrites, answers)) = edits
        && let Some(reply) = Box::pin(policy::request_edits_of_tenant(local, rewrites, answers, exchange)).await?
    {
        return Ok(Decided::Here(Here::by_plugin(reply)));
    }
    if edits.is_some()
        && let Some(own_fields) = &own_fields
    {
        own_fields.put_back(&mut exchange.request.headers);
    }
    if let Some(reply) = policy::own_request_edits(local, frontend, backend_id, &answers, exchange)? {
        return Ok(Decided::Here(Here::by_plugin(reply)));
    }
    if let Some(rewrite) = frontend.host_for(backend_id, &answers) {
        let host = rewrite.host(exchange).ok_or(ProxyError::BadRequest("bad-host"))?;
        exchange.request.headers.insert(header::HOST, host);
    }
    if let Some(forwarding) = forwarding {
        let headers = &mut exchange.request.headers;
        let client_address = record.client_address();
        forwarding::announce(
            forwarding,
            &client.connection,
            client_address,
            asked_host.as_ref(),
            headers,
        );
    }

    // what its response will need
    let of_tenant = tenant.as_ref().and_then(|(tenant, answers)| {
        let rewrites = tenant.rewrites.as_ref().filter(|rewrites| rewrites.response)?;
        Some(Box::new((rewrites, *answers)))
    });
    let filters = policy::response_filters_of(frontend, backend_id, of_tenant.as_ref().map(|of| of.0));
    let decompress = match frontend.config.decompress.as_deref() {
        Some(decompress) => {
            let streams = local.decompressions();
            let asked = decompression::ask(decompress, &mut exchange.request, body, streams)?;
            Some((decompress, asked))
        }
        None => None,
    };
    if frontend.filters_bodies.request && !body.is_end_stream() && asked.is_none() {
        let filtered = body_filters::of_request(local, frontend, client, exchange, body);
        // Boxed: few frontends have such.
        if let Some(reply) = Box::pin(filtered).await? {
            return Ok(Decided::Here(Here::by_plugin(reply)));
        }
    }
    let compress = frontend.config.compress.as_deref();
    let compress = compress.map(|compress| (compress, compression::ask(compress, &mut exchange.request)));
    let recoding = Wanted::new(decompress, compress, &exchange.request.headers);
    let recoding = recoding.is_any().then(|| Box::new(recoding));
    let keeps_request = filters == ResponseFilters::ReadRequest
        || frontend.filters_bodies.response && policy::response_body_filters_read_request(frontend)
        || frontend.tells_of_requests
        || frontend.own_answers.as_ref().is_some_and(|own| own.read_request)
        || frontend
            .always
            .iter()
            .any(|plugin| plugin.response_filter_reads_request())
        || record.noted.tenants_edits.as_ref().is_some_and(|edits| {
            let (rewrites, _) = &**edits;
            rewrites.attachment.response_filter_reads_request()
        });
    Ok(Decided::Goes(Way {
        backend,
        backend_id,
        of_tenant,
        filters,
        recoding,
        keeps_request,
    }))
}

/// What rules of the operator's come to, which no tenant edits.
fn by_operator(
    record: &mut Record,
    decided: Result<Option<Box<Here>>, ProxyError>,
) -> Result<Option<Box<Here>>, ProxyError> {
    if !matches!(decided, Ok(None)) {
        record.noted.is_operators = true;
        record.noted.tenants_edits = None;
    }
    decided
}

/// What the first of these rules that holds answers a request with.
async fn ruled(
    local: &Rc<Local>,
    rules: &[Rule],
    answers: &AclAnswers,
    exchange: &mut Box<Exchange>,
) -> Result<Option<Box<Here>>, ProxyError> {
    for rule in rules.iter().filter(|rule| rule.holds(answers)) {
        let captured = match &rule.action {
            Action::Redirect(Redirect {
                to: Target::Matched { captures, .. },
                ..
            }) => {
                // Boxed: few rules ask for that.
                match Box::pin(policy::captured(local, captures, exchange)).await? {
                    Some(captured) => captured,
                    // A component has changed the path since the acls were asked.
                    None => continue,
                }
            }
            _ => Vec::new(),
        };
        return answer_of(rule, &captured, exchange).map(Some);
    }
    Ok(None)
}

/// What a rule answers a request with.
fn answer_of(rule: &Rule, captured: &[Vec<u8>], exchange: &Exchange) -> Result<Box<Here>, ProxyError> {
    let at = || rule.at.clone();
    let here = |reply, reason| {
        let rule = Some(at());
        Ok(Box::new(Here { reply, reason, rule }))
    };
    match &rule.action {
        Action::Deny(status) => Err(ProxyError::Denied {
            status: *status,
            at: at(),
        }),
        Action::Redirect(redirect) => here(rules::redirect(redirect, captured, exchange)?, "redirect"),
        Action::Return(answer) => here(rules::answer(answer, exchange)?, "return"),
    }
}

/// What log lines say of a response that a component gave.
pub const PLUGIN_REPLY: &str = "plugin-reply";

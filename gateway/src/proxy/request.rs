//! The life of a request, phase by phase: head → sanitize → acl → limits → rules → route → request rewrite → server →
//! response rewrite → log. The phases have the same names in docs, logs and metrics.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::ext::ReasonPhrase;

use super::body::RequestBody;
use super::body_filters;
use super::captures;
use super::client::Client;
use super::compression;
use super::content::Content;
use super::decompression;
use super::error::ProxyError;
use super::forwarding;
use super::headers::{self, Present};
use super::http2;
use super::lease::Lease;
use super::local::Local;
use super::monitor;
use super::own_answers;
use super::own_fields::OwnFields;
use super::policy::{self, Answer, ResponseFilters};
use super::recoding::Wanted;
use super::record::Record;
use super::relay::RelaySettings;
use super::request_id;
use super::resend;
use super::response_body::ResponseBody;
use super::sticky::{self, Sticky};
use super::strict;
use super::trace::Trace;
use super::upgrade::{self, Asked, Switch, Tunnel};
use super::{path, rules};
use crate::in_place::boxed;
use crate::policy::{ConnectionFacts, Exchange, Reply, asked_host};
use crate::snapshot::rules::{Action, Redirect, Rule, RuleAt, Target};
use crate::snapshot::{AclAnswers, Frontend, TenantRules};

/// Serves one request. Never fails: what goes wrong becomes a response. When that is a 101, `switch` has what the connection
/// is to become.
///
/// Boxed, and so are the request's head and the record: a connection that waits for its next request keeps no room for them, and they are not
/// moved about with what holds them.
pub fn serve<'a>(
    local: Rc<Local>,
    frontend: Arc<Frontend>,
    client: Rc<Client>,
    switch: &'a Switch,
    request: Request<Content>,
) -> Pin<Box<impl Future<Output = Result<Response<ResponseBody>, Infallible>> + use<'a>>> {
    let (head, incoming) = request.into_parts();
    let exchange = Exchange::new(head, client.facts.clone());
    Box::into_pin(boxed(|| answer(local, frontend, client, switch, exchange, incoming)))
}

async fn answer(
    local: Rc<Local>,
    frontend: Arc<Frontend>,
    client: Rc<Client>,
    switch: &Switch,
    asked: Box<Exchange>,
    incoming: Content,
) -> Result<Response<ResponseBody>, Infallible> {
    if !client.is_stream() {
        await_turn(&client, incoming.size_hint().exact()).await;
    }
    let is_last_request = client.connection.is_last_request();
    if is_last_request && client.is_stream() {
        // The client is told at once, and what is under way goes on.
        client.connection.close_soon();
    }
    let request = &asked.request;
    let mut record = Record::begin(&local, &frontend, &client, request);
    let has_body = !incoming.is_end_stream();
    let present = Present::of(&request.headers);
    if present.has(Present::UPGRADE) || request.method == http::Method::CONNECT {
        switch.mention();
    }
    let asks_for_tunnel = request.method == http::Method::CONNECT && client.is_stream();
    record.noted.asks_for_tunnel = asks_for_tunnel;
    let is_last = headers::is_last(request, present);
    let mut closes = local.is_draining() || local.is_succeeded() || is_last_request;
    let mut served = exchange(&local, &frontend, &client, &mut record, asked, incoming, present).await;
    if asks_for_tunnel && matches!(&served, Ok(served) if served.status().is_success()) {
        // It would say that the tunnel is there (RFC 8441, section 5), whoever has answered.
        served = Err(ProxyError::BadUpgrade);
    }
    let id = record.noted.response_id(frontend.config.request_id.as_deref());
    let limits = record.noted.limits.take();
    let counted = std::mem::take(&mut record.noted.counted);
    // Of what is answered here; its form may have another.
    let mut meant = None;
    let mut response = match served {
        Ok(Served::Server(response, lease)) => {
            let (head, incoming) = response.into_parts();
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                let settings = RelaySettings::of(&frontend.config.timeouts, &lease.backend().timeouts);
                let Some((server, early, session)) = lease.into_tunnel(incoming) else {
                    let error = ProxyError::BadUpgrade;
                    record.failed(&error);
                    let page = own_answers::page(&local, &frontend, &record, error.status());
                    let response = error.response(page);
                    let (response, meant) =
                        own_answers::finish(&local, &frontend, &client, &mut record, response).await;
                    counted.settle(meant);
                    return Ok(response.map(|bytes| ResponseBody::full(bytes, record)));
                };
                record.responded(&head);
                counted.settle(head.status);
                switch.to(Tunnel::new(server, early, session, settings, record));
                client.connection.response_begins();
                client.turns.begin_response();
                return Ok(Response::from_parts(head, ResponseBody::none()));
            }
            record.responded(&head);
            Response::from_parts(head, ResponseBody::server(incoming, lease, record))
        }
        Ok(Served::Here(reply, reason, rule)) => {
            record.answered_here(reply.status, reason, rule);
            if reason == PLUGIN_REPLY {
                // Whoever's it is, it says itself what stands in it.
                record.noted.tenants_edits = None;
            }
            closes |= has_body && !client.is_stream();
            let mut response = own_answers::answer(reply);
            if client.is_stream() {
                headers::strip_hop_by_hop(response.headers_mut());
            }
            let (response, status) = own_answers::finish(&local, &frontend, &client, &mut record, response).await;
            meant = Some(status);
            response.map(|bytes| ResponseBody::full(bytes, record))
        }
        Ok(Served::Page(response, is_cut_short)) => {
            record.answered_by_page(response.status());
            closes |= is_cut_short && !client.is_stream();
            response.map(|bytes| ResponseBody::full(bytes, record))
        }
        Err(error) => {
            record.failed(&error);
            // The rest of a request that was refused is not read. Nor is what follows one that should not be: whoever sent it may
            // have meant it to be read otherwise.
            let is_suspect = matches!(error, ProxyError::BadRequest(_));
            closes |= (has_body || is_suspect) && !client.is_stream();
            let page = own_answers::page(&local, &frontend, &record, error.status());
            let response = error.response(page);
            let (response, status) = own_answers::finish(&local, &frontend, &client, &mut record, response).await;
            meant = Some(status);
            response.map(|bytes| ResponseBody::full(bytes, record))
        }
    };
    counted.settle(meant.unwrap_or(response.status()));
    if !client.is_stream() {
        // By what stands behind its content.
        closes |= client.connection.has_to_close();
    }
    if closes && client.is_stream() {
        client.connection.close_soon();
    } else if closes {
        response
            .headers_mut()
            .append(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some((name, id)) = id {
        response.headers_mut().insert(name, id);
    }
    if let Some(limits) = limits {
        limits.say(response.headers_mut());
    }
    if let Some(hsts) = &frontend.hsts
        && client.facts.tls.is_some()
    {
        hsts.say(response.headers_mut());
    }
    if response.status().canonical_reason().is_none() && response.extensions().get::<ReasonPhrase>().is_none() {
        // hyper has words of its own, where a status has none.
        response.extensions_mut().insert(ReasonPhrase::from_static(b""));
    }
    if client.is_stream() {
        // The connection goes on.
    } else if closes && has_body {
        client.connection.linger();
    } else if (closes || is_last) && !has_body {
        client.connection.last_response();
    }
    client.connection.response_begins();
    client.turns.begin_response();
    Ok(response)
}

/// A request of HTTP/1.1 has come, and hyper with it: perhaps before all of the one before it has gone to a server that has answered
/// already. Nothing is served behind a request that ends its connection.
async fn await_turn(client: &Client, length: Option<u64>) {
    if !client.uploading.has_none_behind() {
        // Boxed: hardly any request waits for that.
        Box::pin(client.uploading.is_over()).await;
    }
    if client.connection.has_to_close() {
        client.connection.cut();
        std::future::pending::<()>().await;
    }
    client.connection.answer_begins();
    client.turns.request_ends(length);
}

/// Where a response comes from.
enum Served {
    /// From a server.
    Server(Response<Content>, Lease),
    /// From a component or a rule: why, and where the rule stands.
    Here(Reply, &'static str, Option<RuleAt>),
    /// A server's, in whose place the operator's page is sent; and whether the server had not taken all of the request.
    Page(Response<Bytes>, bool),
}

impl Served {
    fn status(&self) -> StatusCode {
        match self {
            Self::Server(response, _) => response.status(),
            Self::Here(reply, ..) => reply.status,
            Self::Page(response, _) => response.status(),
        }
    }
}

async fn exchange(
    local: &Rc<Local>,
    frontend: &Arc<Frontend>,
    client: &Rc<Client>,
    record: &mut Record,
    mut exchange: Box<Exchange>,
    incoming: Content,
    present: Present,
) -> Result<Served, ProxyError> {
    let head = &mut exchange.request;
    let (mut body, asked) = sanitize(frontend, client, head, incoming, present)?;
    if let Some(monitor) = &frontend.config.monitor
        && let Some(reply) = monitor::answer(monitor, head, |id| &local.snapshot.backends[id], local.is_draining())
    {
        record.noted.is_unlogged = true;
        return Ok(Served::Here(reply, "monitor", None));
    }
    let named = identify(frontend, client, record, &mut head.headers);
    // By the same field as those ask whose plugins would have a say.
    let host = match frontend.asks_tenants {
        true => head.headers.get(header::HOST),
        false => None,
    };
    let host = host.and_then(|host| asked_host(host.as_bytes()));
    let tenant = host.as_deref().and_then(|host| frontend.tenant_of(host));
    if tenant.is_some_and(|of| of.is_closed) {
        return Err(ProxyError::TenantClosed);
    }
    let place = tenant.map_or(Ok(None), |of| of.under_way.request());
    let tenant = tenant.and_then(|of| of.rules.as_ref());

    if let Some(named) = named {
        exchange.connection = named;
    }
    // Without a host it is nobody's, and stays that whatever host is set on its way.
    exchange.is_for(host.or_else(|| frontend.asks_tenants.then(Box::default)));
    exchange.request_id.clone_from(&record.noted.request_id);
    exchange.trace = record.noted.trace.as_deref().map(Trace::ids);
    match place {
        Ok(place) => record.noted.under_way = place,
        Err(full) => {
            record.noted.exchange = Some(exchange).filter(|_| frontend.keeps_exchanges);
            return Err(full.into());
        }
    }
    if !frontend.keeps_exchanges {
        return decide(
            local,
            frontend,
            tenant,
            client,
            record,
            &mut exchange,
            (&mut body, asked.as_ref()),
        )
        .await;
    }
    let mut kept = Kept {
        exchange: Some(exchange),
        record,
    };
    let Some(exchange) = &mut kept.exchange else {
        return Err(ProxyError::Policy { status: 500 });
    };
    let content = (&mut body, asked.as_ref());
    let decided = decide(local, frontend, tenant, client, kept.record, exchange, content);
    Box::pin(decided).await
}

/// An exchange that is wanted when it is over: it gets into the record however deciding on it ends, and where the client leaves meanwhile, too.
struct Kept<'a> {
    exchange: Option<Box<Exchange>>,
    record: &'a mut Record,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let Some(mut exchange) = self.exchange.take() else {
            return;
        };
        // It may last as long as a tunnel or a download: who has waited for a phase that does not come is not wanted any more.
        exchange.gives_up_instances();
        self.record.noted.exchange = Some(exchange);
    }
}

/// What becomes of a request that is fit to be looked at.
async fn decide(
    local: &Rc<Local>,
    frontend: &Arc<Frontend>,
    tenant: Option<&TenantRules>,
    client: &Rc<Client>,
    record: &mut Record,
    exchange: &mut Box<Exchange>,
    (body, asked): (&mut RequestBody, Option<&Asked>),
) -> Result<Served, ProxyError> {
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
    if let Some(served) = by_operator(record, decided)? {
        return Ok(served);
    }
    let tenant = match tenant {
        // What could not be asked fails behind all that the operator has decided.
        Some((tenant, answers)) => Some((tenant, answers?)),
        None => None,
    };
    if let Some((tenant, answers)) = &tenant
        && let Some(served) = ruled(local, &tenant.rules, answers, exchange).await?
    {
        return Ok(served);
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
        Answer::Reply(reply) => return Ok(Served::Here(reply, PLUGIN_REPLY, None)),
    }
    let backend = &local.snapshot.backends[backend_id.0];
    // Before the operator's own rules look at them, and once more behind a tenant's edits.
    if let Some(own_fields) = &own_fields {
        own_fields.put_back(&mut exchange.request.headers);
    }
    let decided = ruled(local, frontend.rules_of(backend_id), &answers, exchange).await;
    if let Some(served) = by_operator(record, decided)? {
        return Ok(served);
    }
    if let Some((rewrites, answers)) = edits
        && let Some(reply) = Box::pin(policy::request_edits_of_tenant(local, rewrites, answers, exchange)).await?
    {
        return Ok(Served::Here(reply, PLUGIN_REPLY, None));
    }
    if edits.is_some()
        && let Some(own_fields) = &own_fields
    {
        own_fields.put_back(&mut exchange.request.headers);
    }
    if let Some(reply) = policy::own_request_edits(local, frontend, backend_id, &answers, exchange)? {
        return Ok(Served::Here(reply, PLUGIN_REPLY, None));
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

    // server
    let of_tenant = tenant.as_ref().and_then(|(tenant, answers)| {
        let rewrites = tenant.rewrites.as_ref().filter(|rewrites| rewrites.response)?;
        Some((rewrites, answers))
    });
    let filters = policy::response_filters_of(frontend, backend_id, of_tenant.map(|(rewrites, _)| rewrites));
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
        // Boxed, as below: few frontends have such.
        if let Some(reply) = Box::pin(filtered).await? {
            return Ok(Served::Here(reply, PLUGIN_REPLY, None));
        }
    }
    let compress = frontend.config.compress.as_deref();
    let compress = compress.map(|compress| (compress, compression::ask(compress, &mut exchange.request)));
    let recoding = Wanted::new(decompress, compress, &exchange.request.headers);
    let keeps_request = filters == ResponseFilters::ReadRequest
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
    let takes_informational = backend.early_hints && exchange.request.version >= http::Version::HTTP_11;
    client.take_informational_responses(takes_informational);
    // What goes to the server is the head itself, unless a response filter may yet ask for it.
    let mut copy = keeps_request.then(|| Box::new(exchange.request.clone()));
    let outgoing = match &mut copy {
        Some(copy) => &mut **copy,
        None => &mut exchange.request,
    };
    if asked.is_none() {
        // TE speaks of this connection, and has to be named as doing so (RFC 9110, section 10.1.4).
        let options = match (backend.server_close, outgoing.headers.contains_key(header::TE)) {
            (true, true) => Some("close, te"),
            (true, false) => Some("close"),
            (false, true) => Some("te"),
            (false, false) => None,
        };
        if let Some(options) = options {
            outgoing
                .headers
                .insert(header::CONNECTION, HeaderValue::from_static(options));
        }
    }
    let sticky = Sticky::read(backend, outgoing);
    record.cookies = sticky.as_ref().map(Sticky::flags);
    let key = sticky::pick_key(
        backend,
        record.client_address().map(|client| client.ip()),
        outgoing,
        sticky.as_ref(),
    );
    let sent = resend::send(local, client, record, backend, key, outgoing, body).await;
    drop(copy);
    if frontend.keeps_exchanges && !keeps_request {
        // It may last long yet, and nobody reads them any more, whatever came of it.
        exchange.request.headers = HeaderMap::new();
    }
    let (mut response, mut lease) = sent?;
    if let Some(stick) = key.stick {
        backend.remember(stick, lease.server());
    }
    if let (Some(captures), Some(kept)) = (&frontend.config.captures, &mut record.noted.kept) {
        captures::of_response(captures, response.headers(), kept);
    }
    let protocols = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {
            let agreed = asked.and_then(|asked| asked.agreed(response.headers()));
            Some(agreed.ok_or(ProxyError::BadUpgrade)?)
        }
        // To a client over HTTP/2 it would say that the tunnel is there (RFC 8441, section 4), and the content be what comes through it.
        status if status.is_success() && asked.is_some() && client.is_stream() => return Err(ProxyError::BadUpgrade),
        StatusCode::UPGRADE_REQUIRED => upgrade::required(response.headers()),
        _ => None,
    };
    headers::strip_hop_by_hop(response.headers_mut());
    if let Some(protocols) = protocols
        && !client.is_stream()
    {
        upgrade::put(response.headers_mut(), protocols);
    }

    // response rewrite
    if filters != ResponseFilters::None {
        let (head, incoming) = response.into_parts();
        exchange.response = Some(head);
        exchange.server = Some(lease.server_name().clone());
        if let Some((rewrites, answers)) = of_tenant
            && let Some(reply) = Box::pin(policy::response_edits_of_tenant(local, rewrites, answers, exchange)).await?
        {
            return Ok(Served::Here(reply, PLUGIN_REPLY, None));
        }
        if let Some(reply) = policy::response_filters(local, frontend, backend_id, exchange).await? {
            return Ok(Served::Here(reply, PLUGIN_REPLY, None));
        }
        let Some(head) = exchange.response.take() else {
            return Err(ProxyError::Policy { status: 500 });
        };
        response = Response::from_parts(head, incoming);
        if client.is_stream() {
            headers::strip_hop_by_hop(response.headers_mut());
        }
    }
    // To a call of gRPC a page says nothing.
    let page = match record.is_call() {
        true => None,
        false => local.snapshot.intercepting(frontend, backend_id, response.status()),
    };
    if page.is_none() && frontend.filters_bodies.response && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let filtered = body_filters::of_response(local, frontend, client, exchange, &mut lease, &mut response);
        match Box::pin(filtered).await? {
            Ok(filters) if filters.is_empty() => {}
            Ok(filters) => record.noted.filters = Some(Box::new(filters)),
            Err(reply) => return Ok(Served::Here(reply, PLUGIN_REPLY, None)),
        }
    }
    if !frontend.told.is_empty() {
        let mut kept = Response::new(());
        *kept.status_mut() = response.status();
        *kept.headers_mut() = response.headers().clone();
        exchange.response = Some(kept.into_parts().0);
        exchange.server = Some(lease.server_name().clone());
    }
    if let Some(sticky) = sticky {
        record.cookies = Some(sticky.answer(backend, lease.server(), response.headers_mut()));
    }
    if let Some(page) = page {
        let (head, incoming) = response.into_parts();
        let is_cut_short = lease.has_upload();
        // Boxed: few answers are replaced.
        Box::pin(lease.discard(incoming)).await;
        return Ok(Served::Page(page.replace(head), is_cut_short));
    }
    if recoding.is_any() {
        let filtered = record.noted.filters.as_ref();
        let has_content = !filtered.map_or(response.body().is_end_stream(), |filters| filters.is_done());
        let (mut head, incoming) = response.into_parts();
        record.noted.recoding = recoding.of(&mut head, has_content, local);
        response = Response::from_parts(head, incoming);
    }
    // hyper answers an HTTP/1.0 client as such by itself.
    *response.version_mut() = http::Version::HTTP_11;
    Ok(Served::Server(response, lease))
}

/// What rules of the operator's come to, which no tenant edits.
fn by_operator(record: &mut Record, decided: Result<Option<Served>, ProxyError>) -> Result<Option<Served>, ProxyError> {
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
) -> Result<Option<Served>, ProxyError> {
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
fn answer_of(rule: &Rule, captured: &[Vec<u8>], exchange: &Exchange) -> Result<Served, ProxyError> {
    let at = || rule.at.clone();
    match &rule.action {
        Action::Deny(status) => Err(ProxyError::Denied {
            status: *status,
            at: at(),
        }),
        Action::Redirect(redirect) => Ok(Served::Here(
            rules::redirect(redirect, captured, exchange)?,
            "redirect",
            Some(at()),
        )),
        Action::Return(answer) => Ok(Served::Here(rules::answer(answer, exchange)?, "return", Some(at()))),
    }
}

/// Who the client is, where a trusted proxy says that; and the request gets its number.
fn identify(
    frontend: &Frontend,
    client: &Rc<Client>,
    record: &mut Record,
    headers: &mut HeaderMap,
) -> Option<Arc<ConnectionFacts>> {
    let forwarding = frontend.config.forwarding.as_deref();
    if let Some(config) = &frontend.config.request_id {
        let from_trusted = forwarding.is_some_and(|forwarding| forwarding.trusts(client.facts.client_ip()));
        record.noted.request_id = Some(request_id::assign(config, from_trusted, headers));
    }
    let is_strangers = forwarding.is_some_and(|forwarding| forwarding.doubts(client.facts.client_ip()));
    record.begin_trace(headers, is_strangers);
    if let Some(captures) = &frontend.config.captures {
        record.noted.kept = Some(Box::new(captures::of_request(captures, headers, record.target())));
    }
    let named = forwarding.and_then(|forwarding| forwarding::receive(forwarding, &client.connection, headers));
    if let Some(facts) = &named {
        record.noted.client = facts.client();
    }
    named
}

/// Refuses what is not to be forwarded, and brings the rest into the form that policies and servers see.
fn sanitize(
    frontend: &Frontend,
    client: &Rc<Client>,
    head: &mut http::request::Parts,
    incoming: Content,
    mut present: Present,
) -> Result<(RequestBody, Option<Asked>), ProxyError> {
    let limits = &frontend.config.request_limits;
    if target_length(&head.uri) > limits.uri {
        return Err(ProxyError::UriTooLong);
    }
    let wants_tunnel = http2::head::check(head, limits)?;
    if wants_tunnel {
        present = Present::of(&head.headers);
    }
    headers::check_request(head)?;
    strict::check_target(&head.method, &head.uri)?;
    strict::check_request_framing(&mut head.headers, present)?;
    headers::to_origin_form(head)?;
    if let Some(how) = frontend.config.normalize_path {
        path::normalize(&mut head.uri, how)?;
    }
    if let (Some(max), Some(length)) = (limits.body, incoming.size_hint().exact())
        && length > max
    {
        return Err(ProxyError::BodyTooLarge);
    }
    let asked = match present.has(Present::UPGRADE) {
        true => Asked::of(head, !incoming.is_end_stream(), &frontend.config.upgrades),
        false => None,
    };
    if wants_tunnel && asked.is_none() {
        return Err(ProxyError::BadRequest("connect-protocol"));
    }
    let takes_trailers = present.has(Present::TE) && headers::takes_trailers(&head.headers);
    headers::strip_hop_by_hop_but(&mut head.headers, frontend.own_fields.as_deref());
    if let Some(asked) = &asked {
        upgrade::put(&mut head.headers, asked.protocols().clone());
    }
    if takes_trailers && asked.is_none() {
        // The gateway takes them, too, and passes them on.
        head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let mut body = RequestBody::new(incoming, client, limits, frontend.own_fields.as_ref());
    // With HTTP/1.1, hyper promises the client that its body will be read.
    if present.has(Present::EXPECT) && head.headers.remove(header::EXPECT).is_some() && client.is_stream() {
        body.will_be_promised();
    }
    Ok((body, asked))
}

fn target_length(uri: &http::Uri) -> usize {
    let path = uri.path_and_query().map_or(0, |target| target.as_str().len());
    path + uri
        .authority()
        .map_or(0, |authority| authority.as_str().len() + "http://".len())
}

/// What log lines say of a response that a component gave.
pub const PLUGIN_REPLY: &str = "plugin-reply";

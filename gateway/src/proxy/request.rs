//! The life of a request, phase by phase: head → sanitize → acl → limits → rules → route → request rewrite → server →
//! response rewrite → log. The phases have the same names in docs, logs and metrics.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::ext::ReasonPhrase;

use super::body::RequestBody;
use super::client::Client;
use super::content::Content;
use super::decide::{self, Decided, Here, PLUGIN_REPLY};
use super::error::ProxyError;
use super::headers::{self, Present};
use super::local::Local;
use super::monitor;
use super::own_answers;
use super::record::Record;
use super::relay::RelaySettings;
use super::respond::{self, Answered, Edited};
use super::response_body::ResponseBody;
use super::sanitize::{identify, sanitize};
use super::scene::Scene;
use super::trace::Trace;
use super::upgrade::{Asked, Switch, Tunnel};
use crate::in_place::boxed;
use crate::policy::{Exchange, asked_host};
use crate::snapshot::Frontend;

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
    let incoming = (!incoming.is_end_stream()).then(|| Box::new(incoming));
    Box::into_pin(boxed(|| answer(local, frontend, client, switch, exchange, incoming)))
}

async fn answer(
    local: Rc<Local>,
    frontend: Arc<Frontend>,
    client: Rc<Client>,
    switch: &Switch,
    asked: Box<Exchange>,
    incoming: Option<Box<Content>>,
) -> Result<Response<ResponseBody>, Infallible> {
    if !client.is_stream() {
        let length = incoming
            .as_ref()
            .map_or(Some(0), |incoming| incoming.size_hint().exact());
        await_turn(&client, length).await;
    }
    let is_last_request = client.connection.is_last_request();
    if is_last_request && client.is_stream() {
        // The client is told at once, and what is under way goes on.
        client.connection.close_soon();
    }
    let request = &asked.request;
    let mut record = Record::begin(&local, &frontend, &client, request);
    let present = Present::of(&request.headers);
    if present.has(Present::UPGRADE) || request.method == http::Method::CONNECT {
        switch.mention();
    }
    let asks_for_tunnel = request.method == http::Method::CONNECT && client.is_stream();
    record.noted.asks_for_tunnel = asks_for_tunnel;
    let ending = Ending {
        has_body: incoming.is_some(),
        is_last: headers::is_last(request, present),
        closes: local.is_draining() || local.is_succeeded() || is_last_request,
    };
    let served = exchange(&local, &frontend, &client, &mut record, asked, incoming, present).await;
    // It would say that the tunnel is there (RFC 8441, section 5), whoever has answered.
    let served = served.and_then(|served| match asks_for_tunnel && served.status().is_success() {
        true => Err(ProxyError::BadUpgrade),
        false => Ok(served),
    });
    if client.connection.owes_early() {
        // It came together with the response, and goes before it: hyper sends it on when it has nothing else to write.
        tokio::task::yield_now().await;
    }
    let (record, own) = match by_server(&frontend, &client, switch, record, served, ending) {
        Ok(response) => return Ok(response),
        Err(own) => own,
    };
    // Boxed: what a server answers has no room for it to keep.
    Ok(Box::pin(answer_here(&local, &frontend, &client, record, own, ending)).await)
}

/// What a server has answered; else what is to be answered in its place.
fn by_server(
    frontend: &Frontend,
    client: &Client,
    switch: &Switch,
    mut record: Box<Record>,
    served: Result<Served, ProxyError>,
    ending: Ending,
) -> Result<Response<ResponseBody>, (Box<Record>, Own)> {
    match served {
        Ok(Served::Server(answered)) if answered.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            switch_to_tunnel(frontend, client, switch, *answered, record)
                .map_err(|record| (record, Own::Failed(ProxyError::BadUpgrade)))
        }
        Ok(Served::Server(answered)) => {
            let Answered { response, lease, .. } = *answered;
            let (head, incoming) = response.into_parts();
            record.responded(&head);
            let mut response = Response::from_parts(head, ());
            ending.say(frontend, client, &mut record, None, &mut response);
            Ok(response.map(|()| ResponseBody::server(incoming, lease, record)))
        }
        Ok(Served::Here(here)) => Err((record, Own::Here(here))),
        Ok(Served::Page(page)) => Err((record, Own::Page(page))),
        Err(error) => Err((record, Own::Failed(error))),
    }
}

/// A connection becomes a tunnel. Gives the record back where the server's end cannot be had for that.
fn switch_to_tunnel(
    frontend: &Frontend,
    client: &Client,
    switch: &Switch,
    answered: Answered,
    mut record: Box<Record>,
) -> Result<Response<ResponseBody>, Box<Record>> {
    let Answered { response, lease, .. } = answered;
    let (head, incoming) = response.into_parts();
    let settings = RelaySettings::of(&frontend.config.timeouts, &lease.backend().timeouts);
    let Some((server, early, session)) = lease.into_tunnel(incoming) else {
        return Err(record);
    };
    record.responded(&head);
    std::mem::take(&mut record.noted.counted).settle(head.status);
    switch.to(Tunnel::new(server, early, session, settings, record));
    client.connection.response_begins();
    client.turns.begin_response();
    Ok(Response::from_parts(head, ResponseBody::none()))
}

/// What is answered here, or by the operator's page in a server's place.
enum Own {
    Here(Box<Here>),
    Page(Box<(Response<Bytes>, bool)>),
    Failed(ProxyError),
}

async fn answer_here(
    local: &Rc<Local>,
    frontend: &Arc<Frontend>,
    client: &Rc<Client>,
    mut record: Box<Record>,
    own: Own,
    mut ending: Ending,
) -> Response<ResponseBody> {
    let (response, ends, is_finished) = match own {
        Own::Here(here) => {
            let Here { reply, reason, rule } = *here;
            record.answered_here(reply.status, reason, rule);
            if reason == PLUGIN_REPLY {
                // Whoever's it is, it says itself what stands in it.
                record.noted.tenants_edits = None;
            }
            let mut response = own_answers::answer(reply);
            if client.is_stream() {
                headers::strip_hop_by_hop(response.headers_mut());
            }
            (response, ending.has_body, false)
        }
        Own::Page(page) => {
            let (response, is_cut_short) = *page;
            record.answered_by_page(response.status());
            (response, is_cut_short, true)
        }
        Own::Failed(error) => {
            record.failed(&error);
            // The rest of a request that was refused is not read. Nor is what follows one that should not be: whoever sent it may
            // have meant it to be read otherwise.
            let is_suspect = matches!(error, ProxyError::BadRequest(_));
            let page = own_answers::page(local, frontend, &record, error.status());
            (error.response(page), ending.has_body || is_suspect, false)
        }
    };
    ending.closes |= ends && !client.is_stream();
    let (mut response, meant) = match is_finished {
        true => (response, None),
        false => {
            let (response, meant) = own_answers::finish(local, frontend, client, &mut record, response).await;
            // Its form may have another.
            (response, Some(meant))
        }
    };
    ending.say(frontend, client, &mut record, meant, &mut response);
    response.map(|bytes| ResponseBody::full(bytes, record))
}

/// What is known of the end of an exchange when its response begins.
#[derive(Clone, Copy)]
struct Ending {
    has_body: bool,
    /// The client has said that it sends no other request.
    is_last: bool,
    /// The connection ends with it, whatever the client wants.
    closes: bool,
}

impl Ending {
    /// Has the response say what the gateway says in each, and the connection know how it goes on. `meant` is the status of what is
    /// answered here.
    fn say<B>(
        self,
        frontend: &Frontend,
        client: &Client,
        record: &mut Record,
        meant: Option<StatusCode>,
        response: &mut Response<B>,
    ) {
        let counted = std::mem::take(&mut record.noted.counted);
        counted.settle(meant.unwrap_or(response.status()));
        // By what stands behind its content, too.
        let closes = self.closes || (!client.is_stream() && client.connection.has_to_close());
        if closes && client.is_stream() {
            client.connection.close_soon();
        } else if closes {
            response
                .headers_mut()
                .append(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some((name, id)) = record.noted.response_id(frontend.config.request_id.as_deref()) {
            response.headers_mut().insert(name, id);
        }
        if let Some(limits) = record.noted.limits.take() {
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
        } else if closes && self.has_body {
            client.connection.linger();
        } else if (closes || self.is_last) && !self.has_body {
            client.connection.last_response();
        }
        client.connection.response_begins();
        client.turns.begin_response();
    }
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
pub enum Served {
    /// From a server.
    Server(Box<Answered>),
    /// From a component or a rule.
    Here(Box<Here>),
    /// A server's, in whose place the operator's page is sent; and whether the server had not taken all of the request.
    Page(Box<(Response<Bytes>, bool)>),
}

impl Served {
    fn status(&self) -> StatusCode {
        match self {
            Self::Server(answered) => answered.response.status(),
            Self::Here(here) => here.reply.status,
            Self::Page(page) => page.0.status(),
        }
    }
}

async fn exchange(
    local: &Rc<Local>,
    frontend: &Arc<Frontend>,
    client: &Rc<Client>,
    record: &mut Record,
    mut exchange: Box<Exchange>,
    incoming: Option<Box<Content>>,
    present: Present,
) -> Result<Served, ProxyError> {
    let head = &mut exchange.request;
    let (mut body, asked) = sanitize(frontend, client, head, incoming, present)?;
    if let Some(monitor) = &frontend.config.monitor
        && let Some(reply) = monitor::answer(monitor, head, |id| &local.snapshot.backends[id], local.is_draining())
    {
        record.noted.is_unlogged = true;
        let (reason, rule) = ("monitor", None);
        return Ok(Served::Here(Box::new(Here { reply, reason, rule })));
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
    let place = tenant.map(|of| of.under_way.request()).transpose();
    let tenant = tenant.and_then(|of| of.rules.as_ref());

    if let Some(named) = named {
        exchange.connection = named;
    }
    // Without a host it is nobody's, and stays that whatever host is set on its way.
    exchange.is_for(host.or_else(|| frontend.asks_tenants.then(Box::default)));
    exchange.request_id.clone_from(&record.noted.request_id);
    exchange.is_told_of = !frontend.told.is_empty();
    exchange.trace = record.noted.trace.as_deref().map(Trace::ids);
    match place {
        Ok(place) => record.noted.under_way = place,
        Err(full) => {
            record.noted.exchange = Some(exchange).filter(|_| frontend.keeps_exchanges);
            return Err(full.into());
        }
    }
    let scene = Scene {
        local,
        frontend,
        client,
        tenant,
    };
    if !frontend.keeps_exchanges {
        return pass(&scene, record, &mut exchange, &mut body, asked.as_ref()).await;
    }
    let mut kept = Kept {
        exchange: Some(exchange),
        record,
    };
    let Some(exchange) = &mut kept.exchange else {
        return Err(ProxyError::Policy { status: 500 });
    };
    pass(&scene, kept.record, exchange, &mut body, asked.as_ref()).await
}

/// Through all phases, of a request that is fit to be looked at.
async fn pass(
    scene: &Scene<'_>,
    record: &mut Record,
    exchange: &mut Box<Exchange>,
    body: &mut RequestBody,
    asked: Option<&Asked>,
) -> Result<Served, ProxyError> {
    let way = match decide::decide(scene, record, exchange, body, asked).await? {
        Decided::Goes(way) => way,
        Decided::Here(here) => return Ok(Served::Here(here)),
    };
    let mut answered = respond::ask(scene, &way, record, exchange, body, asked.is_some()).await?;
    let edited = respond::respond(scene, way, record, exchange, &mut answered, asked).await?;
    Ok(match edited {
        Edited::Goes => Served::Server(answered),
        Edited::Here(here) => Served::Here(here),
        // Boxed: few answers are replaced.
        Edited::ByPage(page) => Box::pin(respond::replace(page, *answered)).await,
    })
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

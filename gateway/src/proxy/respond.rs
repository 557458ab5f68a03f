//! **server, response rewrite**: a server is asked, and its response made what the client gets.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body;

use super::attempts::Attempts;
use super::body::RequestBody;
use super::body_filters;
use super::captures;
use super::content::Content;
use super::decide::{Here, Way};
use super::error::ProxyError;
use super::headers;
use super::lease::Lease;
use super::policy::{self, ResponseFilters};
use super::record::Record;
use super::request::Served;
use super::resend;
use super::scene::Scene;
use super::sticky::{self, Sticky};
use super::upgrade::{self, Asked};
use crate::in_place::boxed;
use crate::policy::Exchange;
use crate::snapshot::pages::Page;

/// A server's answer, as it came. In a box, where it is edited: it is not moved about.
pub struct Answered {
    pub response: Response<Content>,
    pub lease: Lease,
    /// What the request has said about its server, where a cookie tells.
    sticky: Option<Box<Sticky>>,
}

/// What has become of a server's answer.
pub enum Edited<'a> {
    /// It goes to the client.
    Goes,
    /// A component has answered in its place.
    Here(Box<Here>),
    /// The operator's page takes its place.
    ByPage(&'a Page),
}

/// Asks a server of the backend that the request goes to.
pub async fn ask(
    scene: &Scene<'_>,
    way: &Way<'_>,
    record: &mut Record,
    exchange: &mut Exchange,
    body: &mut RequestBody,
    is_upgrade: bool,
) -> Result<Box<Answered>, ProxyError> {
    let Scene { frontend, client, .. } = *scene;
    let backend = way.backend;
    let takes_informational = backend.early_hints && exchange.request.version >= http::Version::HTTP_11;
    client.take_informational_responses(takes_informational);
    // What goes to the server is the head itself, unless a response filter may yet ask for it.
    let mut copy = way.keeps_request.then(|| Box::new(exchange.request.clone()));
    let outgoing = match &mut copy {
        Some(copy) => &mut **copy,
        None => &mut exchange.request,
    };
    if !is_upgrade {
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
    let sticky = Sticky::read(backend, outgoing).map(Box::new);
    record.cookies = sticky.as_ref().map(|sticky| sticky.flags());
    let key = sticky::pick_key(
        backend,
        record.client_address().map(|client| client.ip()),
        outgoing,
        sticky.as_deref(),
    );
    let stick = key.stick;
    let mut attempts = Attempts::new(backend, key);
    let sent = resend::send(scene, record, backend, &mut attempts, outgoing, body).await;
    drop(copy);
    if frontend.keeps_exchanges && !way.keeps_request {
        // It may last long yet, and nobody reads them any more, whatever came of it.
        exchange.request.headers = HeaderMap::new();
    }
    let (response, lease) = sent?;
    if let Some(stick) = stick {
        backend.remember(stick, lease.server());
    }
    if let (Some(captures), Some(kept)) = (&frontend.config.captures, &mut record.noted.kept) {
        captures::of_response(captures, response.headers(), kept);
    }
    Ok(boxed(|| Answered {
        response,
        lease,
        sticky,
    }))
}

/// Makes a server's answer what the client gets.
pub async fn respond<'a>(
    scene: &Scene<'a>,
    way: Way<'_>,
    record: &mut Record,
    exchange: &mut Box<Exchange>,
    answered: &mut Answered,
    asked: Option<&Asked>,
) -> Result<Edited<'a>, ProxyError> {
    let Scene {
        local,
        frontend,
        client,
        ..
    } = *scene;
    let Answered {
        response,
        lease,
        sticky,
    } = answered;
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
    record.server_responded(response.status(), response.headers());
    headers::strip_hop_by_hop(response.headers_mut());
    if let Some(protocols) = protocols
        && !client.is_stream()
    {
        upgrade::put(response.headers_mut(), protocols);
    }

    // response rewrite
    if way.filters != ResponseFilters::None {
        let (head, incoming) = take(response).into_parts();
        exchange.response = Some(head);
        exchange.server = Some(lease.server_name().clone());
        if let Some((rewrites, answers)) = way.of_tenant.as_deref()
            && let Some(reply) = Box::pin(policy::response_edits_of_tenant(local, rewrites, answers, exchange)).await?
        {
            return Ok(Edited::Here(Here::by_plugin(reply)));
        }
        if let Some(reply) = policy::response_filters(local, frontend, way.backend_id, exchange).await? {
            return Ok(Edited::Here(Here::by_plugin(reply)));
        }
        let Some(head) = exchange.response.take() else {
            return Err(ProxyError::Policy { status: 500 });
        };
        *response = Response::from_parts(head, incoming);
        if client.is_stream() {
            headers::strip_hop_by_hop(response.headers_mut());
        }
    }
    // To a call of gRPC a page says nothing.
    let page = match record.is_call() {
        true => None,
        false => local.snapshot.intercepting(frontend, way.backend_id, response.status()),
    };
    if page.is_none() && frontend.filters_bodies.response && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let filtered = body_filters::of_response(local, frontend, client, exchange, lease, response);
        match Box::pin(filtered).await? {
            Ok(filters) if filters.is_empty() => {}
            Ok(filters) => record.noted.filters = Some(Box::new(filters)),
            Err(reply) => return Ok(Edited::Here(Here::by_plugin(reply))),
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
        record.cookies = Some(sticky.answer(way.backend, lease.server(), response.headers_mut()));
    }
    if let Some(page) = page {
        return Ok(Edited::ByPage(page));
    }
    if let Some(recoding) = way.recoding {
        let filtered = record.noted.filters.as_ref();
        let has_content = !filtered.map_or(response.body().is_end_stream(), |filters| filters.is_done());
        let (mut head, incoming) = take(response).into_parts();
        record.noted.recoding = recoding.of(&mut head, has_content, local);
        *response = Response::from_parts(head, incoming);
    }
    // hyper answers an HTTP/1.0 client as such by itself.
    *response.version_mut() = http::Version::HTTP_11;
    Ok(Edited::Goes)
}

/// A server's answer, out of where it is edited.
fn take(response: &mut Response<Content>) -> Response<Content> {
    std::mem::replace(response, Response::new(Content::None))
}

/// Lets the operator's page take the place of a server's answer.
pub async fn replace(page: &Page, answered: Answered) -> Served {
    let (head, incoming) = answered.response.into_parts();
    let is_cut_short = answered.lease.has_upload();
    answered.lease.discard(incoming).await;
    Served::Page(Box::new((page.replace(head), is_cut_short)))
}

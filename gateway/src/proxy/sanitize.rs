//! **sanitize**: what is not to be forwarded is refused, and the rest brought into the form that policies and servers see.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use http_body::Body;

use super::body::RequestBody;
use super::captures;
use super::client::Client;
use super::content::Content;
use super::error::ProxyError;
use super::forwarding;
use super::headers::{self, Present};
use super::http2;
use super::path;
use super::record::Record;
use super::request_id;
use super::strict;
use super::upgrade::{self, Asked};
use crate::policy::ConnectionFacts;
use crate::snapshot::Frontend;

/// Refuses what is not to be forwarded, and brings the rest into the form that policies and servers see.
pub fn sanitize(
    frontend: &Frontend,
    client: &Rc<Client>,
    head: &mut http::request::Parts,
    incoming: Option<Box<Content>>,
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
    if let Some(max) = limits.body
        && let Some(length) = incoming.as_ref().and_then(|incoming| incoming.size_hint().exact())
        && length > max
    {
        return Err(ProxyError::BodyTooLarge);
    }
    let asked = match present.has(Present::UPGRADE) {
        true => Asked::of(head, incoming.is_some(), &frontend.config.upgrades),
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

/// Who the client is, where a trusted proxy says that; and the request gets its number.
pub fn identify(
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

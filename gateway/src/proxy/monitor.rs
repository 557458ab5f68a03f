//! `monitor`: whoever sends clients here asks whether to go on. Answered before anything else is decided, and not logged.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, request};

use crate::backend::Backend;
use crate::config::Monitor;
use crate::policy::Reply;

/// The answer to this request, if it is for the monitor.
pub fn answer<'a>(
    monitor: &Monitor,
    request: &request::Parts,
    backends: impl Fn(usize) -> &'a Backend,
    is_ending: bool,
) -> Option<Reply> {
    if request.uri.path() != monitor.path || !matches!(request.method, Method::GET | Method::HEAD) {
        return None;
    }
    let is_well = !is_ending && is_well(monitor, backends);
    let (status, body) = match is_well {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not well\n"),
    };
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(Reply {
        status,
        headers,
        body: Bytes::from_static(body.as_bytes()),
    })
}

/// Whether as many servers as are required could have new work.
pub fn is_well<'a>(monitor: &Monitor, backends: impl Fn(usize) -> &'a Backend) -> bool {
    monitor.needs.iter().all(|need| {
        let servers = &backends(need.backend.value.0).servers;
        let usable = servers.iter().filter(|server| server.metrics.share() > 0);
        usable.take(need.servers).count() == need.servers
    })
}

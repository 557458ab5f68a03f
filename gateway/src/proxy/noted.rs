//! What a record notes of an exchange only where the configuration asks for it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::filtered::BodyFilters;
use super::limit_headers::LimitHeaders;
use super::recoding::Recoding;
use super::request_id;
use super::trace::Trace;
use crate::config::RequestId;
use crate::policy::{Counted, Exchange, Place};
use crate::snapshot::{AclAnswers, Rewrites};
use crate::telemetry::line::Kept;

/// Notes beyond what every exchange has.
#[derive(Default)]
pub struct Noted {
    /// The client that a trusted proxy named.
    pub client: Option<SocketAddr>,
    /// The request's number.
    pub request_id: Option<HeaderValue>,
    /// The trace that it belongs to, where traces are made.
    pub trace: Option<Box<Trace>>,
    /// What was captured.
    pub kept: Option<Box<Kept>>,
    /// The condition of `access-log` does not hold: no line is written.
    pub is_unlogged: bool,
    /// The components that will filter the response's body.
    pub filters: Option<Box<BodyFilters>>,
    /// What clients are told of the limits that applied, where they are told.
    pub limits: Option<Box<LimitHeaders>>,
    /// What it takes of limits when its response has a status that counts.
    pub counted: Counted,
    /// What the acls have answered, where what is answered here is edited.
    pub answers: Option<Box<AclAnswers>>,
    /// A rule of the operator's has answered, which no tenant has a say in.
    pub is_operators: bool,
    /// A stream of HTTP/2 asks for a tunnel: a 2xx would say that it is there (RFC 8441, section 5).
    pub asks_for_tunnel: bool,
    /// What the tenant whose host was asked for has edited of what is answered here, and what its acls have answered, where they could.
    pub tenants_edits: Option<Box<(Arc<Rewrites>, Option<AclAnswers>)>>,
    /// The exchange as components have left it, where they are told of its end or tagged it, or what is answered here is edited.
    pub exchange: Option<Box<Exchange>>,
    /// Its place among the requests of its host's tenant, where it has one.
    pub under_way: Option<Place>,
    /// What will compress the response, decompress it, or both.
    pub recoding: Option<Box<Recoding>>,
}

impl Noted {
    /// The field that tells the client its request's number, where it is told. A request that was refused before it got one
    /// gets it now.
    pub fn response_id(&mut self, config: Option<&RequestId>) -> Option<(HeaderName, HeaderValue)> {
        let config = config?;
        let id = self.request_id.get_or_insert_with(|| request_id::make(config.version));
        config.response.then(|| (config.header.clone(), id.clone()))
    }
}

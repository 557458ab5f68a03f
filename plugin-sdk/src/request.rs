//! A request, as a hook sees it.

use crate::connection::Connection;
use crate::facts::{Facts, fact_getters};
use crate::needs::OnRequest;
use crate::sys::request;

/// A request's head: the facts that were declared, and the host for everything else.
#[derive(Debug)]
pub struct Request<'a> {
    facts: Facts<'a>,
}

impl<'a> Request<'a> {
    #[inline]
    pub(crate) fn new(facts: Facts<'a>) -> Self {
        Self { facts }
    }

    fact_getters!(OnRequest);

    /// The request itself, by host calls.
    #[inline]
    pub fn head(&self) -> RequestHead {
        RequestHead
    }

    /// The client's connection, by host calls.
    #[inline]
    pub fn connection(&self) -> Connection<'static> {
        Connection::new(Facts::NONE)
    }
}

/// A request's head for what was not declared as a need: each method is a host call.
///
/// Shows the head as it is now, with the edits of the plugins that ran before, not with those of the running call.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead;

impl RequestHead {
    /// `GET`, `POST`, …: in the case it was sent.
    pub fn method(self) -> String {
        request::method()
    }

    /// `http` or `https`.
    pub fn scheme(self) -> String {
        request::scheme()
    }

    /// The Host header or `:authority`, as sent; empty when an HTTP/1.0 client sent none.
    pub fn authority(self) -> String {
        request::authority()
    }

    /// The path as sent, without the query; never decoded.
    pub fn path(self) -> Vec<u8> {
        request::path()
    }

    /// The query as sent, without `?`.
    pub fn query(self) -> Option<Vec<u8>> {
        request::query()
    }

    /// Every value of a header, in order.
    pub fn header(self, name: &str) -> Vec<Vec<u8>> {
        request::header(name)
    }

    /// The values of several headers in one host call: one list of values per name.
    pub fn get_many(self, names: &[&str]) -> Vec<Vec<Vec<u8>>> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        request::get_many(&names)
    }

    /// Every field. The dearest call of all: ask for what you need.
    pub fn headers(self) -> Vec<(String, Vec<u8>)> {
        request::headers()
            .into_iter()
            .map(|field| (field.name, field.value))
            .collect()
    }
}

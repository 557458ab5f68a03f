//! A response, as a hook sees it.

use crate::connection::Connection;
use crate::facts::{Facts, fact_getters};
use crate::needs::OnResponse;
use crate::request::RequestHead;
use crate::sys::response;

/// A server's response: the facts that were declared, and the host for everything else.
#[derive(Debug)]
pub struct Response<'a> {
    facts: Facts<'a>,
}

impl<'a> Response<'a> {
    #[inline]
    pub(crate) fn new(facts: Facts<'a>) -> Self {
        Self { facts }
    }

    fact_getters!(OnResponse);

    /// The response itself, by host calls.
    #[inline]
    pub fn head(&self) -> ResponseHead {
        ResponseHead
    }

    /// The request that it answers, by host calls.
    #[inline]
    pub fn request(&self) -> RequestHead {
        RequestHead
    }

    /// The client's connection, by host calls.
    #[inline]
    pub fn connection(&self) -> Connection<'static> {
        Connection::new(Facts::NONE)
    }
}

/// A response's head for what was not declared as a need: each method is a host call.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead;

impl ResponseHead {
    /// The status, 200 to 599.
    pub fn status(self) -> u16 {
        response::status()
    }

    /// Every value of a header, in order.
    pub fn header(self, name: &str) -> Vec<Vec<u8>> {
        response::header(name)
    }

    /// The values of several headers in one host call: one list of values per name.
    pub fn get_many(self, names: &[&str]) -> Vec<Vec<Vec<u8>>> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        response::get_many(&names)
    }

    /// Every field.
    pub fn headers(self) -> Vec<(String, Vec<u8>)> {
        response::headers()
            .into_iter()
            .map(|field| (field.name, field.value))
            .collect()
    }
}

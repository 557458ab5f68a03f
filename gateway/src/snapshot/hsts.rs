//! Strict-Transport-Security (RFC 6797): browsers come back in TLS alone.

use http::header::{HeaderMap, HeaderValue, STRICT_TRANSPORT_SECURITY};

use crate::config;

/// What browsers are told.
#[derive(Debug)]
pub struct Hsts {
    value: HeaderValue,
    replaces: bool,
}

impl Hsts {
    /// What the configuration says.
    pub(super) fn new(hsts: config::Hsts) -> Self {
        let mut text = format!("max-age={}", hsts.max_age.as_secs());
        if hsts.include_subdomains {
            text.push_str("; includeSubDomains");
        }
        if hsts.preload {
            text.push_str("; preload");
        }
        Self {
            // Digits and words.
            value: HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("max-age=0")),
            replaces: hsts.replaces,
        }
    }

    /// Says it in a response that goes out in TLS; what a server has said stands, unless it is to be replaced.
    pub fn say(&self, headers: &mut HeaderMap) {
        if self.replaces || !headers.contains_key(STRICT_TRANSPORT_SECURITY) {
            headers.insert(STRICT_TRANSPORT_SECURITY, self.value.clone());
        }
    }
}

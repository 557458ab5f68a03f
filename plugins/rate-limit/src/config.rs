//! The configuration, as the gateway writes it.

use serde::Deserialize;

/// The whole of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The limits; a verdict's rule is a position here.
    pub limits: Vec<Limit>,
}

/// One limit.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limit {
    /// Its name: that of the host's bucket.
    pub name: String,
    /// What is counted together: the requests for which all of these are equal. Empty: all requests.
    pub key: Vec<KeyPart>,
    /// Requests that become available per period.
    pub tokens: u64,
    /// The period in milliseconds.
    pub period_ms: u64,
    /// Requests that may come at once from rest.
    pub burst: u64,
}

/// A part of a limit's key.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPart {
    /// The client's network.
    #[serde(rename_all = "kebab-case")]
    ClientIp {
        /// Leading bits of an IPv4 address that count, 0 to 32.
        ipv4_prefix: u8,
        /// Leading bits of an IPv6 address that count, 0 to 128.
        ipv6_prefix: u8,
    },
    /// The path.
    Path,
    /// The host.
    Host,
    /// The method.
    Method,
    /// Every value of a header; requests without it count together.
    Header(String),
    /// Every value of a cookie, likewise.
    Cookie(String),
    /// Every value of a query parameter, likewise.
    Query(String),
}

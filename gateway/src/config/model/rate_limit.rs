//! Rate limits.

use std::sync::Arc;

use serde::Serialize;

use super::StatusSet;

/// `rate-limit "per-ip" { key "client-ip"; allow "100/s" burst=200 }`. Serialises to an entry of the `rate-limit`
/// component's configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RateLimit {
    /// Its name, unique among rate limits.
    pub name: Arc<str>,
    /// What is counted together: the requests for which all of these are equal.
    pub key: Vec<RateKey>,
    /// Requests that become available per period.
    pub tokens: u64,
    /// The period in milliseconds.
    pub period_ms: u64,
    /// Requests that may come at once from rest; `tokens` unless said.
    pub burst: u64,
    /// `count-status "400-499"`: whose responses have one of these takes a token; none where each request does. Counted by the
    /// gateway: the component is not told.
    #[serde(skip)]
    pub count_status: Option<StatusSet>,
}

/// A part of a rate limit's key.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateKey {
    /// `key "client-ip" ipv4-prefix=32 ipv6-prefix=64`: the client's network.
    ClientIp {
        /// Leading bits of an IPv4 address that count, 0 to 32; 32 unless said.
        #[serde(rename = "ipv4-prefix")]
        ipv4_prefix: u8,
        /// Leading bits of an IPv6 address that count, 0 to 128; 64 unless said: one customer's network.
        #[serde(rename = "ipv6-prefix")]
        ipv6_prefix: u8,
    },
    /// `key "path"`.
    Path,
    /// `key "host"`.
    Host,
    /// `key "method"`.
    Method,
    /// `key "header" "x-api-key"`: every value; requests without it count together.
    Header(String),
    /// `key "cookie" "session"`: likewise.
    Cookie(String),
    /// `key "query" "token"`: likewise.
    Query(String),
}

impl RateKey {
    /// The key that `client-ip` means without further words.
    pub const CLIENT_IP: Self = Self::ClientIp {
        ipv4_prefix: 32,
        ipv6_prefix: 64,
    };
}

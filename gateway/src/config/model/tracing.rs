//! Where spans go.

/// `tracing "http://127.0.0.1:4318" sample=0.01 service="edge" queue=2048`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// The collector.
    pub endpoint: Endpoint,
    /// Of traces that begin here, so many in 2^32 are recorded; [`u32::MAX`] is all.
    pub sample: u32,
    /// What the gateway is called there.
    pub service: String,
    /// Exchanges whose spans may wait to be sent.
    pub queue: usize,
}

/// A collector that speaks OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its host and port as they were written.
    pub authority: String,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What its paths begin with, without a slash at the end.
    pub path: String,
}

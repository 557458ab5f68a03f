//! Traces: spans of requests, as OpenTelemetry has them. Workers make them and hand them over without waiting; a thread of
//! its own sends them to a collector (OTLP over HTTP).

mod collector;
pub mod context;
mod exporter;

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::metrics::ProcessMetrics;
use super::random::random;
pub use collector::{Collector, CollectorError};
pub use context::{Parent, SpanId, TraceId};
pub use exporter::TraceSink;

/// A worker's way to the collector.
#[derive(Debug, Clone)]
pub struct Tracer {
    sender: mpsc::Sender<Vec<Span>>,
    /// Of traces that begin here, so many in 2^32.
    sample: u32,
    metrics: Arc<ProcessMetrics>,
}

/// A span that has ended.
#[derive(Debug, Clone)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace: TraceId,
    /// Its number.
    pub id: SpanId,
    /// The span that caused it; none for the first of a trace.
    pub parent: Option<SpanId>,
    /// Which side of a call it is.
    pub kind: Kind,
    /// The method.
    pub name: String,
    /// When it began.
    pub started: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What is known of it, by the names of the semantic conventions.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it failed.
    pub failed: bool,
}

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The side that is called: by a client.
    Server,
    /// The side that calls: a server.
    Client,
}

/// What is known of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl Tracer {
    /// Whether a trace that begins here is recorded.
    pub fn draws(&self) -> bool {
        // All of them, rather than all but one.
        self.sample == u32::MAX || (random() as u32) < self.sample
    }

    /// Hands spans over. Never waits: what the collector's thread cannot keep up with is dropped and counted.
    pub fn finished(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        if self.sender.try_send(spans).is_err() {
            self.metrics.spans_dropped(count);
        }
    }
}

/// A number for a trace.
pub fn trace_id() -> TraceId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random().to_be_bytes());
    // Never all zeros.
    id[8..].copy_from_slice(&(random() | 1).to_be_bytes());
    id
}

/// A number for a span.
pub fn span_id() -> SpanId {
    (random() | 1).to_be_bytes()
}

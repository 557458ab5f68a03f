//! The thread that sends spans to a collector: OTLP over HTTP, in protobuf.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Wire, Status, span, status};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::collector::Collector;
use super::{Kind, Span, Tracer, Value};
use crate::config::Tracing;
use crate::telemetry::metrics::ProcessMetrics;

/// A collector with the thread that sends to it. Dropping it sends what was handed over before, within `CLOSE_TIMEOUT`.
#[derive(Debug)]
pub struct TraceSink {
    tracer: Tracer,
    collector: Arc<ArcSwap<Collector>>,
    closing: watch::Sender<bool>,
    ended: Receiver<()>,
}

impl TraceSink {
    /// Starts the thread. The collector may be there later.
    pub fn start(tracing: &Tracing, collector: Arc<Collector>, metrics: &Arc<ProcessMetrics>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(tracing.queue);
        let (closing, closed) = watch::channel(false);
        let (ending, ended) = sync_channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let collector = Arc::new(ArcSwap::new(collector));
        let exporter = Exporter {
            service: tracing.service.clone(),
            collector: Arc::clone(&collector),
            closed,
            metrics: metrics.clone(),
            is_failing: false,
        };
        thread::Builder::new().name("traces".into()).spawn(move || {
            runtime.block_on(exporter.run(receiver));
            // Nobody may be waiting any more.
            let _ = ending.try_send(());
        })?;
        Ok(Self {
            tracer: Tracer {
                sender,
                sample: tracing.sample,
                metrics: metrics.clone(),
            },
            collector,
            closing,
            ended,
        })
    }

    /// From now on spans go to this collector: the same, with its files read again.
    pub fn use_collector(&self, collector: Arc<Collector>) {
        self.collector.store(collector);
    }

    /// A worker's way to it.
    pub fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }
}

impl Drop for TraceSink {
    fn drop(&mut self) {
        let _ = self.closing.send(true);
        // The thread may be waiting for a collector that does not answer.
        let _ = self.ended.recv_timeout(CLOSE_TIMEOUT);
    }
}

struct Exporter {
    service: String,
    collector: Arc<ArcSwap<Collector>>,
    closed: watch::Receiver<bool>,
    metrics: Arc<ProcessMetrics>,
    is_failing: bool,
}

impl Exporter {
    async fn run(mut self, mut receiver: mpsc::Receiver<Vec<Span>>) {
        let mut closed = self.closed.clone();
        loop {
            let first = tokio::select! {
                spans = receiver.recv() => spans,
                _ = closed.wait_for(|closed| *closed) => receiver.try_recv().ok(),
            };
            let Some(mut batch) = first else { return };
            // Wait for more, a moment; at the end there is no more.
            let deadline = sleep(BATCH_DELAY);
            tokio::pin!(deadline);
            while batch.len() < BATCH {
                tokio::select! {
                    biased;
                    spans = receiver.recv() => match spans {
                        Some(spans) => batch.extend(spans),
                        None => break,
                    },
                    _ = closed.wait_for(|closed| *closed) => break,
                    () = &mut deadline => break,
                }
            }
            self.export(batch).await;
        }
    }

    /// Sends a batch, again while the collector is not there or asks for patience.
    async fn export(&mut self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let body = Bytes::from(request(&self.service, batch).encode_to_vec());
        let mut pause = FIRST_PAUSE;
        for attempt in 0..ATTEMPTS {
            let collector = self.collector.load_full();
            let failure = match timeout(EXPORT_TIMEOUT, collector.send(body.clone())).await {
                Ok(Ok(status)) if status.is_success() => {
                    self.metrics.spans_exported(count);
                    self.is_failing = false;
                    return;
                }
                Ok(Ok(status)) if is_final(status) => {
                    self.complain(&status);
                    break;
                }
                Ok(Ok(status)) => status.to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {EXPORT_TIMEOUT:?}"),
            };
            self.complain(&failure);
            if attempt + 1 == ATTEMPTS || *self.closed.borrow() {
                break;
            }
            let mut closed = self.closed.clone();
            tokio::select! {
                () = sleep(pause) => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.metrics.spans_lost(count);
    }

    fn complain(&mut self, why: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.is_failing, true) {
            let collector = self.collector.load();
            tracing::warn!(collector = %collector.authority(), "spans cannot be exported: {why}");
        }
    }
}

/// Whether sending again is of no use (OTLP, "OTLP/HTTP Response").
fn is_final(status: StatusCode) -> bool {
    !matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let text = |key: &str, value: &str| attribute(key, Value::Text(value.to_owned()));
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![
                    text("service.name", service),
                    text("telemetry.sdk.language", "rust"),
                    text("process.pid", &std::process::id().to_string()),
                ],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: env!("CARGO_PKG_NAME").to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans: spans.into_iter().map(wire).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn wire(span: Span) -> Wire {
    let kind = match span.kind {
        Kind::Server => span::SpanKind::Server,
        Kind::Client => span::SpanKind::Client,
    };
    let code = match span.failed {
        true => status::StatusCode::Error,
        false => status::StatusCode::Unset,
    };
    Wire {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        // Sampled, as all that get here are.
        flags: 1,
        name: span.name,
        kind: kind.into(),
        start_time_unix_nano: nanos(span.started),
        end_time_unix_nano: nanos(span.ended),
        attributes: span
            .attributes
            .into_iter()
            .map(|(key, value)| attribute(key, value))
            .collect(),
        status: Some(Status {
            code: code.into(),
            ..Status::default()
        }),
        ..Wire::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Number(number) => any_value::Value::IntValue(number),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Spans sent together: as OpenTelemetry's batch processor.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// For one attempt: as OpenTelemetry's exporters.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts for one batch: with the pauses between them, some fifteen seconds while a collector restarts.
const ATTEMPTS: usize = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long closing waits for the last batch.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

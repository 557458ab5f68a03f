//! Metrics of the process as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::exporter::Exporter;
use super::log::{self, LogCounts};
use super::shard::Count;

/// Counts of the process as a whole.
#[derive(Debug)]
pub struct ProcessMetrics {
    started: SystemTime,
    connections: AtomicUsize,
    max_connections: AtomicUsize,
    log: Arc<LogCounts>,
    spliced: Count,
    spans_exported: Count,
    spans_dropped: Count,
    spans_lost: Count,
    reloads_done: Count,
    reloads_refused: Count,
    certificates_loaded: Count,
    certificates_failed: Count,
}

impl Default for ProcessMetrics {
    fn default() -> Self {
        Self {
            started: SystemTime::now(),
            connections: AtomicUsize::new(0),
            max_connections: AtomicUsize::new(0),
            log: Arc::default(),
            spliced: Count::default(),
            spans_exported: Count::default(),
            spans_dropped: Count::default(),
            spans_lost: Count::default(),
            reloads_done: Count::default(),
            reloads_refused: Count::default(),
            certificates_loaded: Count::default(),
            certificates_failed: Count::default(),
        }
    }
}

impl ProcessMetrics {
    /// Client connections open now, over all frontends.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// From now on there may be so many.
    pub fn may_have(&self, connections: usize) {
        self.max_connections.store(connections, Ordering::Relaxed);
    }

    /// When the process started.
    pub(super) fn started(&self) -> SystemTime {
        self.started
    }

    /// Reloads that were done, and that were refused.
    pub(super) fn reloads(&self) -> (u64, u64) {
        (self.reloads_done.get(), self.reloads_refused.get())
    }

    /// Those of the process's own log.
    pub fn log(&self) -> &Arc<LogCounts> {
        &self.log
    }

    /// The gateway was told to reload, and did or refused.
    pub fn reloaded(&self, done: bool) {
        if done {
            &self.reloads_done
        } else {
            &self.reloads_refused
        }
        .add(1);
    }

    /// A file of TLS has changed, and was read again or cannot be used.
    pub fn certificate_reloaded(&self, done: bool) {
        if done {
            &self.certificates_loaded
        } else {
            &self.certificates_failed
        }
        .add(1);
    }

    /// Bytes were relayed by the kernel, without a copy.
    pub fn spliced(&self, bytes: u64) {
        self.spliced.add(bytes);
    }

    /// Spans arrived at the collector.
    pub fn spans_exported(&self, spans: u64) {
        self.spans_exported.add(spans);
    }

    /// Spans were dropped because the exporter could not keep up.
    pub fn spans_dropped(&self, spans: u64) {
        self.spans_dropped.add(spans);
    }

    /// Spans were lost because the collector did not take them.
    pub fn spans_lost(&self, spans: u64) {
        self.spans_lost.add(spans);
    }

    pub(super) fn opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn register(exporter: &mut Exporter, process: &Arc<ProcessMetrics>) {
    exporter.of(process, &[("version", env!("CARGO_PKG_VERSION"))]).gauge(
        "gateway_build_info",
        "Always 1; the labels say which gateway this is.",
        |_| 1.0,
    );

    let mut of = exporter.of(process, &[]);
    let help = "When the process started, in Unix time.";
    of.gauge("gateway_start_time_seconds", help, |process| {
        process
            .started
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64()
    });
    let help = "Client connections open now, over all frontends.";
    of.gauge("gateway_current_connections", help, |process| {
        process.connections() as f64
    });
    let help = "Client connections that may be open at once, over all frontends; further ones wait.";
    of.gauge("gateway_max_connections", help, |process| {
        process.max_connections.load(Ordering::Relaxed) as f64
    });

    let help = "Bytes that the kernel moved from socket to socket: relayed in TCP mode, both ways together, and bodies of HTTP responses.";
    of.counter("gateway_relay_spliced_bytes_total", help, None, |process| {
        process.spliced.get()
    });
    let (name, help) = ("gateway_reloads_total", "Reloads that were asked for, by result.");
    of.counter(name, help, Some(("result", "done")), |process| {
        process.reloads_done.get()
    });
    of.counter(name, help, Some(("result", "refused")), |process| {
        process.reloads_refused.get()
    });
    let name = "gateway_certificate_reloads_total";
    let help = "Files of TLS that were read again because they changed, by result; a failed one stays as it was.";
    of.counter(name, help, Some(("result", "done")), |process| {
        process.certificates_loaded.get()
    });
    of.counter(name, help, Some(("result", "failed")), |process| {
        process.certificates_failed.get()
    });

    let name = "gateway_trace_spans_total";
    let help = "Spans, by what became of them: exported, dropped because too many waited, or refused by the collector for good (failed).";
    of.counter(name, help, Some(("result", "exported")), |process| {
        process.spans_exported.get()
    });
    of.counter(name, help, Some(("result", "dropped")), |process| {
        process.spans_dropped.get()
    });
    of.counter(name, help, Some(("result", "failed")), |process| {
        process.spans_lost.get()
    });
    log::register(exporter, &process.log);
}

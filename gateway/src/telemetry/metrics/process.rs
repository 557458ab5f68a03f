//! Metrics of the process as a whole.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::shard::Count;
use super::text::{Kind, Text};

/// Counts of the process as a whole.
#[derive(Debug)]
pub struct ProcessMetrics {
    started: SystemTime,
    connections: AtomicUsize,
    lines_dropped: Count,
    lines_lost: Count,
}

impl Default for ProcessMetrics {
    fn default() -> Self {
        Self {
            started: SystemTime::now(),
            connections: AtomicUsize::new(0),
            lines_dropped: Count::default(),
            lines_lost: Count::default(),
        }
    }
}

impl ProcessMetrics {
    /// Client connections open now, over all frontends.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Log lines were dropped because the writer could not keep up.
    pub fn lines_dropped(&self, lines: u64) {
        self.lines_dropped.add(lines);
    }

    /// Log lines were lost because the target could not be written to.
    pub fn lines_lost(&self, lines: u64) {
        self.lines_lost.add(lines);
    }

    /// Both of them: lines that were formatted and stand nowhere.
    pub fn lines_missing(&self) -> u64 {
        self.lines_dropped.get() + self.lines_lost.get()
    }

    pub(super) fn opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn render(text: &mut Text, process: &ProcessMetrics) {
    text.family(
        "gateway_build_info",
        Kind::Gauge,
        "Always 1; the labels say which gateway this is.",
    );
    text.sample("gateway_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);

    let started = process.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    text.family(
        "gateway_start_time_seconds",
        Kind::Gauge,
        "When the process started, in Unix time.",
    );
    text.sample("gateway_start_time_seconds", &[], started.as_secs_f64());

    text.family(
        "gateway_current_connections",
        Kind::Gauge,
        "Client connections open now, over all frontends.",
    );
    text.sample("gateway_current_connections", &[], process.connections());

    let help =
        "Log lines that are missing: the writer could not keep up (queue-full), or writing failed (write-failed).";
    text.family("gateway_log_lines_dropped_total", Kind::Counter, help);
    let reasons = [
        ("queue-full", &process.lines_dropped),
        ("write-failed", &process.lines_lost),
    ];
    for (reason, count) in reasons {
        text.sample("gateway_log_lines_dropped_total", &[("reason", reason)], count.get());
    }
}

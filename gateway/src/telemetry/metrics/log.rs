//! Metrics of the places that log lines go to.

use std::sync::Arc;

use super::exporter::Exporter;
use super::shard::Count;

/// Lines of a log that are missing.
#[derive(Debug, Default)]
pub struct LogCounts {
    /// Its name; none for the process's own.
    pub(super) name: Option<Arc<str>>,
    dropped: Count,
    lost: Count,
}

impl LogCounts {
    /// Of the log of this name.
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::default()
        }
    }

    /// Lines were dropped because the writer could not keep up.
    pub fn dropped(&self, lines: u64) {
        self.dropped.add(lines);
    }

    /// Lines were lost because the target could not be written to.
    pub fn lost(&self, lines: u64) {
        self.lost.add(lines);
    }

    /// Both of them: lines that were formatted and stand nowhere.
    pub fn missing(&self) -> u64 {
        self.dropped.get() + self.lost.get()
    }
}

pub(super) fn register(exporter: &mut Exporter, counts: &Arc<LogCounts>) {
    let labels: Vec<_> = counts.name.iter().map(|name| ("log", &**name)).collect();
    let mut of = exporter.of(counts, &labels);
    let name = "gateway_log_lines_dropped_total";
    let help =
        "Log lines that are missing: the writer could not keep up (queue-full), or writing failed (write-failed).";
    of.counter(name, help, Some(("reason", "queue-full")), |counts| {
        counts.dropped.get()
    });
    of.counter(name, help, Some(("reason", "write-failed")), |counts| counts.lost.get());
}

//! Metrics of a plugin's own, shown with the gateway's. Need `grant "metrics"`.
//!
//! They are declared in [`Plugin::METRICS`](crate::Plugin::METRICS) and then named by their position there:
//!
//! ```
//! use gateway_plugin_sdk::metrics::{self, Label, Metric};
//!
//! const METRICS: &[Metric] = &[
//!     Metric::counter("lookups", "Lookups in the table.").labels(&[Label { name: "result", values: &["hit", "miss"] }]),
//!     Metric::histogram("wait_seconds", "How long clients waited.", &[0.01, 0.1, 1.0]),
//! ];
//! const LOOKUPS: u32 = 0;
//! const WAIT: u32 = 1;
//!
//! fn looked_up(hit: bool, seconds: f64) {
//!     metrics::add(LOOKUPS, u32::from(!hit), 1);
//!     metrics::observe(WAIT, 0, seconds);
//! }
//! ```
//!
//! A series is named by the positions of its labels' values: with labels of 3 and 4 values, `a * 4 + b`; 0 without labels.
//! The gateway shows a counter as `gateway_plugin_lookups_total{plugin="…",result="hit"}`.

use crate::sys::metrics as host;

/// A metric, as it is declared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [Label],
}

/// What is done with a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

/// A label of a metric, with every value that it can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Lower-case letters, digits and `_`.
    pub name: &'static str,
    /// At most 64.
    pub values: &'static [&'static str],
}

impl Metric {
    /// One that is added to and only grows. A name is of lower-case letters, digits and `_`.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Counter)
    }

    /// One that is set.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Gauge)
    }

    /// One that counts values by these upper bounds, ascending. One without an end is added.
    pub const fn histogram(name: &'static str, help: &'static str, bounds: &'static [f64]) -> Self {
        Self::new(name, help, Kind::Histogram(bounds))
    }

    /// With these labels: as many series as there are combinations of their values, at most 256.
    #[must_use]
    pub const fn labels(mut self, labels: &'static [Label]) -> Self {
        self.labels = labels;
        self
    }

    const fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self {
            name,
            help,
            kind,
            labels: &[],
        }
    }
}

/// Adds to a counter.
#[inline]
pub fn add(metric: u32, series: u32, amount: u64) {
    host::add(metric, series, amount);
}

/// Sets a gauge. What is not finite is left out.
#[inline]
pub fn set(metric: u32, series: u32, value: f64) {
    host::set(metric, series, value);
}

/// Feeds a histogram. What is not finite is left out.
#[inline]
pub fn observe(metric: u32, series: u32, value: f64) {
    host::observe(metric, series, value);
}

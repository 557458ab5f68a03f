//! What plugins count and measure for the operator: declared in `describe`, checked once, then an atomic operation a call.
//!
//! How many series a plugin has is fixed by its declaration, so nothing that a request brings can make more of them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bindings::exports::gateway::policy::lifecycle;
use crate::telemetry::metrics::{Reading, Series};

/// The metrics of one plugin, of all workers.
pub struct PluginMetrics {
    metrics: Vec<Metric>,
}

/// A metric with all its series.
struct Metric {
    name: String,
    help: String,
    kind: Kind,
    labels: Vec<Label>,
    series: usize,
    /// By series: one number, or for a histogram its buckets, one for what is beyond the last bound, and the sum.
    cells: Box<[AtomicU64]>,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Counter,
    /// The bits of a float.
    Gauge,
    Histogram(Box<[f64]>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Label {
    name: String,
    values: Vec<String>,
}

/// A call for a metric that is not there, or is of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Undeclared;

impl PluginMetrics {
    /// Of a declaration. The error says what is wrong with it.
    pub(crate) fn new(declared: &[lifecycle::Metric]) -> Result<Self, String> {
        if declared.len() > MAX_METRICS {
            return Err(format!(
                "declares {} metrics; at most {MAX_METRICS} are taken",
                declared.len()
            ));
        }
        let mut names = HashSet::new();
        let mut metrics = Vec::with_capacity(declared.len());
        for metric in declared {
            if !names.insert(&metric.name) {
                return Err(format!(
                    "declares the metric `{}` twice",
                    super::failure::short_name(&metric.name)
                ));
            }
            metrics.push(Metric::new(metric).map_err(|why| {
                let name: String = metric.name.chars().take(MAX_NAME).collect();
                format!("declares the metric `{}`, which {why}", name.escape_debug())
            })?);
            let cells: usize = metrics.iter().map(|metric: &Metric| metric.cells.len()).sum();
            if cells > MAX_CELLS {
                return Err(format!(
                    "declares metrics that come to {cells} numbers and more: one for each series, and for each bucket of a histogram's; \
                     at most {MAX_CELLS} are taken"
                ));
            }
        }
        Ok(Self { metrics })
    }

    /// Whether the same was declared: then one goes on counting where the other was.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let is_like = |(one, other): (&Metric, &Metric)| {
            (&one.name, &one.kind, &one.labels) == (&other.name, &other.kind, &other.labels)
        };
        self.metrics.len() == other.metrics.len() && self.metrics.iter().zip(&other.metrics).all(is_like)
    }

    pub(crate) fn add(&self, metric: u32, series: u32, amount: u64) -> Result<(), Undeclared> {
        let metric = self.metric(metric)?;
        let (Kind::Counter, series) = (&metric.kind, metric.series(series)?) else {
            return Err(Undeclared);
        };
        // It only grows, however much a guest adds: one that is full stays so.
        let add = |count: u64| Some(count.saturating_add(amount));
        let _ = metric.cells[series].fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        Ok(())
    }

    pub(crate) fn set(&self, metric: u32, series: u32, value: f64) -> Result<(), Undeclared> {
        let metric = self.metric(metric)?;
        let (Kind::Gauge, series) = (&metric.kind, metric.series(series)?) else {
            return Err(Undeclared);
        };
        if value.is_finite() {
            metric.cells[series].store(value.to_bits(), Ordering::Relaxed);
        }
        Ok(())
    }

    pub(crate) fn observe(&self, metric: u32, series: u32, value: f64) -> Result<(), Undeclared> {
        let metric = self.metric(metric)?;
        let (Kind::Histogram(bounds), series) = (&metric.kind, metric.series(series)?) else {
            return Err(Undeclared);
        };
        if value.is_finite() {
            let cells = metric.cells_of(series);
            let bucket = bounds.partition_point(|bound| *bound < value);
            cells[bucket].fetch_add(1, Ordering::Relaxed);
            let sum = &cells[bounds.len() + 1];
            let add = |bits: u64| Some((f64::from_bits(bits) + value).to_bits());
            let _ = sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
        Ok(())
    }

    /// Numbers that are kept of all of them.
    pub(crate) fn cells(&self) -> u64 {
        self.metrics.iter().map(|metric| metric.cells.len() as u64).sum()
    }

    fn metric(&self, metric: u32) -> Result<&Metric, Undeclared> {
        let metric = usize::try_from(metric).map_err(|_| Undeclared)?;
        self.metrics.get(metric).ok_or(Undeclared)
    }

    /// All that was declared, for the exporter.
    pub(crate) fn families(&self) -> impl Iterator<Item = Family<'_>> {
        self.metrics.iter().map(Family)
    }
}

impl std::fmt::Debug for PluginMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.metrics.iter().map(|metric| &metric.name);
        f.debug_list().entries(names).finish()
    }
}

impl Metric {
    fn new(declared: &lifecycle::Metric) -> Result<Self, String> {
        check_name(&declared.name)?;
        if let Some(ending) = TAKEN_ENDINGS.iter().find(|ending| declared.name.ends_with(*ending)) {
            return Err(format!("may not end in `{ending}`: the gateway writes that itself"));
        }
        if declared.name.starts_with(TAKEN_BEGINNING) {
            return Err(format!(
                "may not begin with `{TAKEN_BEGINNING}`: the gateway has such metrics itself"
            ));
        }
        let kind = match &declared.kind {
            lifecycle::MetricKind::Counter => Kind::Counter,
            lifecycle::MetricKind::Gauge => Kind::Gauge,
            lifecycle::MetricKind::Histogram(bounds) => {
                let ascend = bounds.windows(2).all(|pair| pair[0] < pair[1]);
                if bounds.is_empty() || bounds.len() > MAX_BOUNDS || !ascend || bounds.iter().any(|b| !b.is_finite()) {
                    return Err(format!("needs 1 to {MAX_BOUNDS} finite bounds, ascending"));
                }
                Kind::Histogram(bounds.as_slice().into())
            }
        };
        if declared.labels.len() > MAX_LABELS {
            return Err(format!(
                "has {} labels; at most {MAX_LABELS} are taken",
                declared.labels.len()
            ));
        }
        let mut labels: Vec<Label> = Vec::new();
        let mut series = 1_usize;
        for label in &declared.labels {
            check_name(&label.name).map_err(|why| format!("has a label whose name {why}"))?;
            let is_taken = TAKEN_LABELS.contains(&label.name.as_str()) || labels.iter().any(|l| l.name == label.name);
            if is_taken {
                return Err(format!("has a label `{}` that is taken", label.name));
            }
            let distinct: HashSet<_> = label.values.iter().collect();
            let too_long = label.values.iter().any(|value| value.len() > MAX_NAME);
            if distinct.is_empty()
                || label.values.len() > MAX_VALUES
                || distinct.len() != label.values.len()
                || too_long
            {
                return Err(format!(
                    "has a label `{}` without 1 to {MAX_VALUES} different values of at most {MAX_NAME} bytes",
                    label.name
                ));
            }
            series = series.saturating_mul(label.values.len());
            labels.push(Label {
                name: label.name.clone(),
                values: label.values.clone(),
            });
        }
        if series > MAX_SERIES {
            return Err(format!("has {series} series; at most {MAX_SERIES} are taken"));
        }
        let cells = series * kind.cells();
        Ok(Self {
            name: declared.name.clone(),
            help: super::failure::one_line(&declared.help),
            kind,
            labels,
            series,
            cells: (0..cells).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    fn series(&self, series: u32) -> Result<usize, Undeclared> {
        let series = usize::try_from(series).map_err(|_| Undeclared)?;
        (series < self.series).then_some(series).ok_or(Undeclared)
    }

    fn cells_of(&self, series: usize) -> &[AtomicU64] {
        let each = self.kind.cells();
        &self.cells[series * each..(series + 1) * each]
    }
}

impl Kind {
    /// Numbers for each series.
    fn cells(&self) -> usize {
        match self {
            Self::Counter | Self::Gauge => 1,
            Self::Histogram(bounds) => bounds.len() + 2,
        }
    }
}

/// A metric as it is shown.
pub(crate) struct Family<'a>(&'a Metric);

impl Family<'_> {
    /// Shows every series as it is now.
    pub(crate) fn show(&self, show: &mut dyn FnMut(Series<'_>)) {
        let (name, kind) = match self.0.kind {
            Kind::Counter => (format!("gateway_plugin_{}_total", self.0.name), "counter"),
            Kind::Gauge => (format!("gateway_plugin_{}", self.0.name), "gauge"),
            Kind::Histogram(_) => (format!("gateway_plugin_{}_distribution", self.0.name), "histogram"),
        };
        for series in 0..self.0.series {
            show(Series {
                name: &name,
                help: &self.0.help,
                kind,
                labels: &self.labels(series),
                reading: self.read(series),
            });
        }
    }

    fn labels(&self, series: usize) -> Vec<(&str, &str)> {
        let mut left = series;
        let mut labels = Vec::with_capacity(self.0.labels.len());
        for label in self.0.labels.iter().rev() {
            labels.push((label.name.as_str(), label.values[left % label.values.len()].as_str()));
            left /= label.values.len();
        }
        labels.reverse();
        labels
    }

    fn read(&self, series: usize) -> Reading {
        let cells = self.0.cells_of(series);
        let cell = |at: usize| cells[at].load(Ordering::Relaxed);
        match &self.0.kind {
            Kind::Counter => Reading::Counter(cell(0)),
            Kind::Gauge => Reading::Gauge(f64::from_bits(cell(0))),
            Kind::Histogram(bounds) => {
                let mut count = 0;
                let mut buckets = Vec::with_capacity(bounds.len());
                for (at, bound) in bounds.iter().enumerate() {
                    count += cell(at);
                    buckets.push((*bound, count));
                }
                let sum = f64::from_bits(cell(bounds.len() + 1));
                Reading::Histogram(buckets, count + cell(bounds.len()), sum)
            }
        }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    match begins && name.len() <= MAX_NAME && name.bytes().all(allowed) {
        true => Ok(()),
        false => Err(format!(
            "is not of lower-case letters, digits and `_`, with a letter first, at most {MAX_NAME}"
        )),
    }
}

/// Metrics of one plugin; the contract says these bounds. A scrape reads all of them.
const MAX_METRICS: usize = 32;
const MAX_SERIES: usize = 256;
const MAX_VALUES: usize = 64;
const MAX_BOUNDS: usize = 32;
const MAX_NAME: usize = 64;

/// Labels of one metric: each stands in every line of it.
const MAX_LABELS: usize = 8;

/// Numbers of all metrics of a plugin, which are lines of a scrape: as many as 32 counters of 256 series have, so that it is
/// histograms alone that have to be fewer. They make a scrape of a megabyte or two, and of nine at the very worst.
const MAX_CELLS: usize = MAX_METRICS * MAX_SERIES;

/// What the gateway or the text format puts behind a name; a metric that brings it along could be taken for another.
const TAKEN_ENDINGS: [&str; 5] = ["_total", "_distribution", "_bucket", "_sum", "_count"];

/// Metrics of what a plugin keeps.
const TAKEN_BEGINNING: &str = "state_";

/// Labels that the gateway or the text format writes.
const TAKEN_LABELS: [&str; 3] = ["plugin", "tenant", "le"];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn metric(name: &str, kind: lifecycle::MetricKind, labels: &[(&str, &[&str])]) -> lifecycle::Metric {
        lifecycle::Metric {
            name: name.to_owned(),
            help: "Helps.".to_owned(),
            kind,
            labels: labels
                .iter()
                .map(|(name, values)| lifecycle::MetricLabel {
                    name: (*name).to_owned(),
                    values: values.iter().map(|&value| value.to_owned()).collect(),
                })
                .collect(),
        }
    }

    #[test]
    fn series_are_found_by_the_positions_of_their_labels_values() {
        let declared = metric(
            "hits",
            lifecycle::MetricKind::Counter,
            &[("a", &["x", "y"]), ("b", &["1", "2", "3"])],
        );
        let metrics = PluginMetrics::new(&[declared]).unwrap();
        metrics.add(0, 3 + 2, 7).unwrap();
        let mut shown = Vec::new();
        metrics.families().next().unwrap().show(&mut |series| {
            shown.push(format!("{}{:?} {:?}", series.name, series.labels, series.reading));
        });
        assert_eq!(shown.len(), 6);
        assert_eq!(
            shown[5],
            r#"gateway_plugin_hits_total[("a", "y"), ("b", "3")] Counter(7)"#
        );
        assert_eq!(metrics.add(0, 6, 1), Err(Undeclared));
        assert_eq!(metrics.add(1, 0, 1), Err(Undeclared));
        assert_eq!(metrics.set(0, 0, 1.0), Err(Undeclared));
        assert_eq!(metrics.observe(0, 0, 1.0), Err(Undeclared));
    }

    #[test]
    fn a_counter_never_goes_back_however_much_is_added() {
        let metrics = PluginMetrics::new(&[metric("hits", lifecycle::MetricKind::Counter, &[])]).unwrap();
        for amount in [7, u64::MAX, 1] {
            metrics.add(0, 0, amount).unwrap();
        }
        let mut shown = Vec::new();
        metrics
            .families()
            .next()
            .unwrap()
            .show(&mut |series| shown.push(series.reading));
        assert_eq!(shown, [Reading::Counter(u64::MAX)]);
    }

    #[test]
    fn all_metrics_of_a_plugin_make_no_scrape_of_megabytes() {
        let values: Vec<String> = (0..16).map(|i| i.to_string()).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let all = |kind: &lifecycle::MetricKind| {
            let named = |i| {
                metric(
                    &format!("m{i}"),
                    kind.clone(),
                    &[("a", &values[..]), ("b", &values[..])],
                )
            };
            (0..32).map(named).collect::<Vec<_>>()
        };
        assert_eq!(
            PluginMetrics::new(&all(&lifecycle::MetricKind::Counter))
                .unwrap()
                .cells(),
            8192
        );
        let bounds = (0..32).map(f64::from).collect();
        let error = PluginMetrics::new(&all(&lifecycle::MetricKind::Histogram(bounds))).unwrap_err();
        assert!(error.contains("at most 8192"), "{error}");
    }

    #[test]
    fn histograms_count_by_their_bounds_and_leave_out_what_is_no_number() {
        let kind = lifecycle::MetricKind::Histogram(vec![1.0, 10.0]);
        let metrics = PluginMetrics::new(&[metric("size", kind, &[])]).unwrap();
        for value in [0.5, 1.0, 5.0, 100.0, f64::NAN, f64::INFINITY] {
            metrics.observe(0, 0, value).unwrap();
        }
        let mut shown = Vec::new();
        metrics
            .families()
            .next()
            .unwrap()
            .show(&mut |series| shown.push(series.reading));
        assert_eq!(shown, [Reading::Histogram(vec![(1.0, 2), (10.0, 3)], 4, 106.5)]);
    }

    #[test]
    fn what_would_not_be_read_back_as_it_was_meant_is_refused() {
        let counter = || lifecycle::MetricKind::Counter;
        let many: Vec<String> = (0..65).map(|i| i.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (declared, words) in [
            (metric("Hits", counter(), &[]), "lower-case"),
            (metric("1hits", counter(), &[]), "a letter first"),
            (metric("", counter(), &[]), "a letter first"),
            (metric(&"a".repeat(65), counter(), &[]), "at most 64"),
            (metric("hits_total", counter(), &[]), "`_total`"),
            (metric("state_kv_bytes", counter(), &[]), "`state_`"),
            (metric("hits", counter(), &[("plugin", &["a"])]), "taken"),
            (metric("hits", counter(), &[("a", &["a"]), ("a", &["b"])]), "taken"),
            (metric("hits", counter(), &[("a", &["a"][..]); 9]), "at most 8"),
            (metric("hits", counter(), &[("a", &[])]), "1 to 64"),
            (metric("hits", counter(), &[("a", &["x", "x"])]), "different"),
            (metric("hits", counter(), &[("a", &many)]), "1 to 64"),
            (
                metric("hits", counter(), &[("a", &many[..17]), ("b", &many[..16])]),
                "272 series",
            ),
            (metric("size", lifecycle::MetricKind::Histogram(vec![]), &[]), "bounds"),
            (
                metric("size", lifecycle::MetricKind::Histogram(vec![2.0, 1.0]), &[]),
                "bounds",
            ),
            (
                metric("size", lifecycle::MetricKind::Histogram(vec![f64::NAN]), &[]),
                "bounds",
            ),
        ] {
            let error = PluginMetrics::new(&[declared]).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let twice = [metric("hits", counter(), &[]), metric("hits", counter(), &[])];
        assert!(PluginMetrics::new(&twice).unwrap_err().contains("twice"));
        let many: Vec<_> = (0..33).map(|i| metric(&format!("m{i}"), counter(), &[])).collect();
        assert!(PluginMetrics::new(&many).unwrap_err().contains("33"));
    }
}

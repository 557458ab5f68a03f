//! The recorder that writes Prometheus text, and the series that are published through it.

use std::fmt;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::histogram::{Published, Totals, bounds, seconds};
use super::{backend, frontend};

/// A recorder of its own, not the process's, and all series. Publishing reads the counts and hands them over; the text
/// is the recorder's.
pub(super) struct Exporter {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    series: Vec<Series>,
    /// Values that the recorder keeps until its upkeep.
    pending: usize,
    /// Histograms that are registered begin with what is recorded from then on.
    begins_anew: bool,
}

/// Where series of one thing are registered.
pub(super) struct Of<'a, T> {
    exporter: &'a mut Exporter,
    metrics: &'a Arc<T>,
    labels: Vec<Label>,
}

/// A handle of the recorder, and how what it publishes is read.
enum Series {
    Counter(Counter, Box<dyn Fn() -> u64 + Send>),
    Gauge(Gauge, Box<dyn Fn() -> f64 + Send>),
    Histogram(Histogram, Box<Published>, Box<dyn Fn() -> Totals + Send>),
    Reasons(Reasons),
}

/// Counters of a family that tells them apart by a label whose values appear as things happen.
struct Reasons {
    name: &'static str,
    labels: Vec<Label>,
    label: &'static str,
    known: Vec<(&'static str, Counter)>,
    read: Box<dyn Fn() -> Vec<(&'static str, u64)> + Send>,
}

impl Default for Exporter {
    fn default() -> Self {
        // Setting buckets fails only if there are none.
        let recorder = [frontend::DURATION, backend::RESPONSE_TIME]
            .into_iter()
            .try_fold(PrometheusBuilder::new(), |builder, name| {
                builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &bounds())
            })
            .unwrap_or_default()
            .build_recorder();
        Self {
            handle: recorder.handle(),
            recorder,
            series: Vec::new(),
            pending: 0,
            begins_anew: false,
        }
    }
}

impl Exporter {
    /// One that takes the place of another. Counters go on where they are; histograms begin anew, as the recorder would have
    /// to be given every value again.
    pub(super) fn anew() -> Self {
        Self {
            begins_anew: true,
            ..Self::default()
        }
    }

    /// Registers series that are read of `metrics` and have these labels.
    pub(super) fn of<'a, T>(&'a mut self, metrics: &'a Arc<T>, labels: &[(&'static str, &str)]) -> Of<'a, T> {
        let labels = labels.iter().map(|&(name, value)| label(name, value)).collect();
        Of {
            exporter: self,
            metrics,
            labels,
        }
    }

    /// Hands what was counted to the recorder.
    pub(super) fn publish(&mut self) {
        let Self {
            recorder,
            handle,
            series,
            pending,
            ..
        } = self;
        for series in series {
            match series {
                Series::Counter(counter, read) => counter.absolute(read()),
                Series::Gauge(gauge, read) => gauge.set(read()),
                Series::Histogram(histogram, published, read) => published.publish(&read(), |nanos, mut count| {
                    while count > 0 {
                        let part = usize::try_from(count)
                            .unwrap_or(usize::MAX)
                            .min(MOST_PENDING - *pending);
                        histogram.record_many(seconds(nanos), part);
                        count -= part as u64;
                        *pending += part;
                        if *pending == MOST_PENDING {
                            handle.run_upkeep();
                            *pending = 0;
                        }
                    }
                }),
                Series::Reasons(reasons) => reasons.publish(recorder),
            }
        }
        handle.run_upkeep();
        *pending = 0;
    }

    /// The text, as of now.
    pub(super) fn render(&mut self) -> String {
        self.publish();
        self.handle.render()
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter")
            .field("series", &self.series.len())
            .finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Of<'_, T> {
    /// A counter.
    pub(super) fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        more: Option<(&'static str, &str)>,
        read: impl Fn(&T) -> u64 + Send + 'static,
    ) {
        let recorder = &self.exporter.recorder;
        recorder.describe_counter(KeyName::from(name), None, help.into());
        let counter = recorder.register_counter(&key(name, &self.labels, more), &METADATA);
        let metrics = Arc::downgrade(self.metrics);
        self.exporter.series.push(Series::Counter(
            counter,
            Box::new(move || metrics.upgrade().map_or(0, |metrics| read(&metrics))),
        ));
    }

    /// Counters by reason, each from when it is first read.
    pub(super) fn reasons(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        read: impl Fn(&T) -> Vec<(&'static str, u64)> + Send + 'static,
    ) {
        self.exporter
            .recorder
            .describe_counter(KeyName::from(name), None, help.into());
        let metrics = Arc::downgrade(self.metrics);
        self.exporter.series.push(Series::Reasons(Reasons {
            name,
            labels: self.labels.clone(),
            label,
            known: Vec::new(),
            read: Box::new(move || metrics.upgrade().map_or_else(Vec::new, |metrics| read(&metrics))),
        }));
    }

    /// A gauge.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str, read: impl Fn(&T) -> f64 + Send + 'static) {
        let recorder = &self.exporter.recorder;
        recorder.describe_gauge(KeyName::from(name), None, help.into());
        let gauge = recorder.register_gauge(&key(name, &self.labels, None), &METADATA);
        let metrics = Arc::downgrade(self.metrics);
        self.exporter.series.push(Series::Gauge(
            gauge,
            Box::new(move || metrics.upgrade().map_or(0.0, |metrics| read(&metrics))),
        ));
    }

    /// A histogram; its name has to be among those that [`Exporter::default`] gives buckets to.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn(&T) -> Totals + Send + 'static,
    ) {
        let recorder = &self.exporter.recorder;
        recorder.describe_histogram(KeyName::from(name), None, help.into());
        let histogram = recorder.register_histogram(&key(name, &self.labels, None), &METADATA);
        let mut published = Box::<Published>::default();
        if self.exporter.begins_anew {
            published.skip(read(self.metrics));
        }
        let metrics = Arc::downgrade(self.metrics);
        let read = Box::new(move || metrics.upgrade().map_or_else(Totals::default, |metrics| read(&metrics)));
        self.exporter.series.push(Series::Histogram(histogram, published, read));
    }
}

impl Reasons {
    fn publish(&mut self, recorder: &PrometheusRecorder) {
        for (reason, count) in (self.read)() {
            if let Some((_, counter)) = self.known.iter().find(|(known, _)| *known == reason) {
                counter.absolute(count);
            } else {
                let key = key(self.name, &self.labels, Some((self.label, reason)));
                let counter = recorder.register_counter(&key, &METADATA);
                counter.absolute(count);
                self.known.push((reason, counter));
            }
        }
    }
}

fn key(name: &'static str, labels: &[Label], more: Option<(&'static str, &str)>) -> Key {
    let more = more.map(|(name, value)| label(name, value));
    Key::from_parts(name, labels.iter().cloned().chain(more).collect::<Vec<_>>())
}

/// The exporter takes a backslash before another or before a quote for an escape that is there already, so that two
/// values could come out as one; doubled, each comes out as itself.
fn label(name: &'static str, value: &str) -> Label {
    Label::new(name, value.replace('\\', "\\\\"))
}

/// Values handed over between two upkeeps: the recorder keeps each, 16 bytes, until then.
const MOST_PENDING: usize = 64 * 1024;

/// Nothing here is filtered by it.
static METADATA: Metadata<'_> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

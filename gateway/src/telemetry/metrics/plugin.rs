//! Metrics that plugins declare, and what they keep. Read when somebody asks, and written in the text format here: their names
//! come with configurations, which the recorder's cannot.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Weak};

/// What a plugin counts, measures and keeps.
pub trait PluginSeries: Debug + Send + Sync {
    /// Shows every series of its metrics.
    fn each(&self, show: &mut dyn FnMut(Series<'_>));

    /// Its key-value pairs, their bytes, and its counters.
    fn kept(&self) -> [u64; 3];

    /// What found no room: what it was, whose bound it met (`plugin` or `tenant`), and how often; nothing that is 0.
    fn refused(&self) -> Vec<(&'static str, &'static str, u64)>;
}

/// A series of a metric.
#[derive(Debug)]
pub struct Series<'a> {
    /// The metric's name.
    pub name: &'a str,
    /// What it is.
    pub help: &'a str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names and values; the plugin's own comes on top.
    pub labels: &'a [(&'a str, &'a str)],
    /// What it is now.
    pub reading: Reading,
}

/// What a series is now.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// A counter's.
    Counter(u64),
    /// A gauge's.
    Gauge(f64),
    /// A histogram's: the bounds with how many were at most that, how many there were in all, and their sum.
    Histogram(Vec<(f64, u64)>, u64, f64),
}

/// The plugins that there are.
#[derive(Debug, Default)]
pub(super) struct Plugins(Vec<Plugin>);

#[derive(Debug)]
struct Plugin {
    name: Arc<str>,
    tenant: Option<Arc<str>>,
    series: Weak<dyn PluginSeries>,
}

/// Lines of one metric.
struct Family {
    help: String,
    kind: &'static str,
    lines: String,
}

impl Plugins {
    /// One more; nothing when it is known.
    pub(super) fn add(&mut self, name: &str, tenant: Option<&Arc<str>>, series: &Arc<dyn PluginSeries>) {
        let series = Arc::downgrade(series);
        self.0.retain(|known| known.series.strong_count() > 0);
        if !self.0.iter().any(|known| known.series.ptr_eq(&series)) {
            self.0.push(Plugin {
                name: name.into(),
                tenant: tenant.cloned(),
                series,
            });
        }
    }

    /// Writes all of them.
    pub(super) fn render(&self, text: &mut String) {
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        for plugin in &self.0 {
            let Some(series) = plugin.series.upgrade() else {
                continue;
            };
            let mut own = vec![("plugin", &*plugin.name)];
            own.extend(plugin.tenant.as_deref().map(|tenant| ("tenant", tenant)));
            series.each(&mut |series| show(&mut families, &own, &series));
            for (what, by, count) in series.refused() {
                let refused = Series {
                    name: "gateway_plugin_state_refusals_total",
                    help: REFUSED,
                    kind: "counter",
                    labels: &[("what", what), ("by", by)],
                    reading: Reading::Counter(count),
                };
                show(&mut families, &own, &refused);
            }
            for ((name, help), value) in KEPT.into_iter().zip(series.kept()) {
                // What a plugin was not granted, or does not use, is no line.
                if value > 0 {
                    #[allow(clippy::cast_precision_loss, reason = "gauges are floats; bounds are far below 2^53")]
                    let reading = Reading::Gauge(value as f64);
                    let kind = "gauge";
                    let labels = &[];
                    show(
                        &mut families,
                        &own,
                        &Series {
                            name,
                            help,
                            kind,
                            labels,
                            reading,
                        },
                    );
                }
            }
        }
        for (name, family) in families {
            // Writing into memory does not fail, here and below.
            let _ = write!(text, "# HELP {name} ");
            escape(&family.help, text, false);
            let _ = write!(text, "\n# TYPE {name} {}\n{}\n", family.kind, family.lines);
        }
    }
}

fn show(families: &mut BTreeMap<String, Family>, own: &[(&str, &str)], series: &Series<'_>) {
    let family = families.entry(series.name.to_owned()).or_insert_with(|| Family {
        help: series.help.to_owned(),
        kind: series.kind,
        lines: String::new(),
    });
    let lines = &mut family.lines;
    let name = series.name;
    match &series.reading {
        Reading::Counter(value) => line(lines, (name, ""), own, series.labels, None, &value.to_string()),
        Reading::Gauge(value) => line(lines, (name, ""), own, series.labels, None, &value.to_string()),
        Reading::Histogram(buckets, count, sum) => {
            for (bound, below) in buckets {
                let (bound, below) = (bound.to_string(), below.to_string());
                line(lines, (name, "_bucket"), own, series.labels, Some(&bound), &below);
            }
            let count = count.to_string();
            line(lines, (name, "_bucket"), own, series.labels, Some("+Inf"), &count);
            line(lines, (name, "_sum"), own, series.labels, None, &sum.to_string());
            line(lines, (name, "_count"), own, series.labels, None, &count);
        }
    }
}

/// Writes a line of the text format.
pub(super) fn line(
    lines: &mut String,
    (name, end): (&str, &str),
    own: &[(&str, &str)],
    labels: &[(&str, &str)],
    bound: Option<&str>,
    value: &str,
) {
    let _ = write!(lines, "{name}{end}{{");
    let bound = bound.map(|bound| ("le", bound));
    for (position, (label, value)) in own.iter().chain(labels).copied().chain(bound).enumerate() {
        let comma = if position > 0 { "," } else { "" };
        let _ = write!(lines, "{comma}{label}=\"");
        escape(value, lines, true);
        lines.push('"');
    }
    let _ = writeln!(lines, "}} {value}");
}

/// As the text format wants it.
fn escape(value: &str, text: &mut String, quotes: bool) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            c => text.push(c),
        }
    }
}

const REFUSED: &str = "What was refused as there was no room: pairs (kv), counters, log lines (log); by the bound of the plugin or of its tenant.";

const KEPT: [(&str, &str); 3] = [
    (
        "gateway_plugin_state_kv_entries",
        "Key-value pairs that the plugin keeps.",
    ),
    (
        "gateway_plugin_state_kv_bytes",
        "Bytes of the key-value pairs that the plugin keeps.",
    ),
    (
        "gateway_plugin_state_counters",
        "Counters of the plugin that are not 0.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Two;

    impl PluginSeries for Two {
        fn each(&self, show: &mut dyn FnMut(Series<'_>)) {
            show(Series {
                name: "gateway_plugin_hits_total",
                help: "Hits.\nAll.",
                kind: "counter",
                labels: &[("of", "a\"b\\")],
                reading: Reading::Counter(7),
            });
            show(Series {
                name: "gateway_plugin_wait_distribution",
                help: "Waits.",
                kind: "histogram",
                labels: &[],
                reading: Reading::Histogram(vec![(0.5, 1), (1.0, 3)], 4, 9.5),
            });
        }

        fn kept(&self) -> [u64; 3] {
            [0, 300, 0]
        }

        fn refused(&self) -> Vec<(&'static str, &'static str, u64)> {
            vec![("kv", "tenant", 2)]
        }
    }

    #[test]
    fn plugins_are_written_a_family_at_a_time() {
        let mut plugins = Plugins::default();
        let (one, two): (Arc<dyn PluginSeries>, Arc<dyn PluginSeries>) = (Arc::new(Two), Arc::new(Two));
        plugins.add("one", None, &one);
        plugins.add("one", None, &one);
        plugins.add("two", Some(&"acme".into()), &two);
        let mut text = String::new();
        plugins.render(&mut text);
        let expected = r#"# HELP gateway_plugin_hits_total Hits.\nAll.
# TYPE gateway_plugin_hits_total counter
gateway_plugin_hits_total{plugin="one",of="a\"b\\"} 7
gateway_plugin_hits_total{plugin="two",tenant="acme",of="a\"b\\"} 7

# HELP gateway_plugin_state_kv_bytes Bytes of the key-value pairs that the plugin keeps.
# TYPE gateway_plugin_state_kv_bytes gauge
gateway_plugin_state_kv_bytes{plugin="one"} 300
gateway_plugin_state_kv_bytes{plugin="two",tenant="acme"} 300

# HELP gateway_plugin_state_refusals_total What was refused as there was no room: pairs (kv), counters, log lines (log); by the bound of the plugin or of its tenant.
# TYPE gateway_plugin_state_refusals_total counter
gateway_plugin_state_refusals_total{plugin="one",what="kv",by="tenant"} 2
gateway_plugin_state_refusals_total{plugin="two",tenant="acme",what="kv",by="tenant"} 2

# HELP gateway_plugin_wait_distribution Waits.
# TYPE gateway_plugin_wait_distribution histogram
gateway_plugin_wait_distribution_bucket{plugin="one",le="0.5"} 1
gateway_plugin_wait_distribution_bucket{plugin="one",le="1"} 3
gateway_plugin_wait_distribution_bucket{plugin="one",le="+Inf"} 4
gateway_plugin_wait_distribution_sum{plugin="one"} 9.5
gateway_plugin_wait_distribution_count{plugin="one"} 4
gateway_plugin_wait_distribution_bucket{plugin="two",tenant="acme",le="0.5"} 1
gateway_plugin_wait_distribution_bucket{plugin="two",tenant="acme",le="1"} 3
gateway_plugin_wait_distribution_bucket{plugin="two",tenant="acme",le="+Inf"} 4
gateway_plugin_wait_distribution_sum{plugin="two",tenant="acme"} 9.5
gateway_plugin_wait_distribution_count{plugin="two",tenant="acme"} 4

"#;
        assert_eq!(text, expected);
        drop(two);
        let mut text = String::new();
        plugins.render(&mut text);
        assert!(!text.contains("acme"), "{text}");
    }
}

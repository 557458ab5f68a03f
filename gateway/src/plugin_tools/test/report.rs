//! How fixtures went, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::course::Course;
use crate::config::fixture::Case;
use crate::policy::Measure;

/// How all went. Its fields are those of the JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    component: String,
    pub(super) passed: usize,
    pub(super) failed: usize,
    fixtures: Vec<FileReport>,
}

/// How a file went.
#[derive(Debug, Serialize)]
pub(super) struct FileReport {
    file: String,
    cases: Vec<CaseReport>,
}

/// How a case went, over all times that it was asked.
#[derive(Debug, Serialize)]
pub(super) struct CaseReport {
    name: String,
    line: usize,
    passed: bool,
    /// What was not as it was expected.
    differences: Vec<String>,
    /// How often it was asked.
    times: u32,
    /// Calls of hooks.
    calls: usize,
    /// CPU time of those, in nanoseconds.
    cpu_ns: u64,
    /// The most that one of them took.
    max_cpu_ns: u64,
    /// Calls of the host's functions, by interface.
    host_calls: BTreeMap<&'static str, u64>,
    /// Bytes of memory: the most that an instance had.
    peak_memory: u64,
    /// Lines that it wrote into the log, at most [`MOST_LINES`].
    log: Vec<String>,
}

impl Report {
    pub(super) fn new(component: &Path) -> Self {
        Self {
            component: component.display().to_string(),
            passed: 0,
            failed: 0,
            fixtures: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, file: FileReport) {
        let passed = file.cases.iter().filter(|case| case.passed).count();
        self.passed += passed;
        self.failed += file.cases.len() - passed;
        self.fixtures.push(file);
    }

    pub(super) fn json(&self) -> String {
        // Texts and numbers alone: nothing here can fail to be written.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for file in &self.fixtures {
            text += &format!("{}\n", file.file);
            file.cases.iter().for_each(|case| case.write(&mut text));
        }
        let cases = self.passed + self.failed;
        match self.failed {
            0 => text += &format!("{cases} {} passed\n", if cases == 1 { "case" } else { "cases" }),
            failed => text += &format!("{failed} of {cases} cases failed\n"),
        }
        text
    }
}

impl FileReport {
    pub(super) fn new(file: &Path, cases: Vec<CaseReport>) -> Self {
        Self {
            file: file.display().to_string(),
            cases,
        }
    }
}

impl CaseReport {
    /// It has not been asked.
    pub(super) fn new(case: &Case) -> Self {
        Self {
            name: case.name.clone(),
            line: case.origin.line,
            passed: true,
            differences: Vec::new(),
            times: 0,
            calls: 0,
            cpu_ns: 0,
            max_cpu_ns: 0,
            host_calls: BTreeMap::new(),
            peak_memory: 0,
            log: Vec::new(),
        }
    }

    /// It was asked once more.
    pub(super) fn add(&mut self, course: &Course) {
        self.times += 1;
        // What making an instance costs is no cost of a request: they are made ahead.
        for measure in course.measures.iter().filter(|measure| measure.hook != Measure::SET_UP) {
            self.calls += 1;
            let cpu = u64::try_from(measure.cpu.as_nanos()).unwrap_or(u64::MAX);
            self.cpu_ns = self.cpu_ns.saturating_add(cpu);
            self.max_cpu_ns = self.max_cpu_ns.max(cpu);
            for (interface, count) in measure.host_calls.by_interface() {
                *self.host_calls.entry(interface).or_default() += u64::from(count);
            }
            self.peak_memory = self.peak_memory.max(measure.memory);
            let room = MOST_LINES.saturating_sub(self.log.len());
            self.log.extend(measure.log.iter().take(room).cloned());
        }
    }

    /// This time it came to something else.
    pub(super) fn differs(&mut self, time: u32, mut differences: Vec<String>) {
        if time > 1 {
            differences.insert(0, format!("so far as it was expected; the {time}th time:"));
        }
        self.passed = false;
        self.differences = differences;
    }

    fn write(&self, text: &mut String) {
        let word = if self.passed { "ok" } else { "FAILED" };
        let host_calls: Vec<String> = self
            .host_calls
            .iter()
            .map(|(interface, count)| format!("{interface} {count}"))
            .collect();
        let host_calls = match host_calls.as_slice() {
            [] => "no host calls".to_owned(),
            calls => format!("host calls: {}", calls.join(", ")),
        };
        let times = match self.times {
            0 | 1 => String::new(),
            times => format!(" ({times} times)"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  {word:<7}{}{times}\n         line {}; {} {}, {} of CPU time; {host_calls}; {} KiB of memory",
            self.name,
            self.line,
            self.calls,
            if self.calls == 1 { "call" } else { "calls" },
            shown(self.cpu_ns),
            self.peak_memory.div_ceil(1024),
        );
        for difference in &self.differences {
            let _ = writeln!(text, "         {difference}");
        }
        // Whoever looks for what went wrong wants to read them.
        for line in self.log.iter().filter(|_| !self.passed) {
            let _ = writeln!(text, "         log: {line}");
        }
    }
}

/// Lines of a log that are shown of a case.
const MOST_LINES: usize = 20;

/// Nanoseconds as people read them.
fn shown(ns: u64) -> String {
    format!("{:?}", Duration::from_micros(ns.div_ceil(1_000)))
}

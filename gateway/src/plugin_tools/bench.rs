//! `gateway plugin bench`: asks what fixtures ask over and over, and says how long the hooks take: warm, by an instance that serves
//! again and again; and fresh, by one that is made for each time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure};
use serde::Serialize;

use super::inspect::Format;
use super::test::stand::{Stand, Workshop};
use super::test::{Course, TestError, compare};
use crate::config::fixture::{self, Case, Fixture, Step};
use crate::config::{BudgetLimits, ConfigErrors, Isolation, Plugin, QuarantineSettings};
use crate::policy::Measure;

/// What is to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bench {
    /// The component.
    pub component: PathBuf,
    /// A file of fixtures.
    pub fixture: PathBuf,
    /// The cases of it that are called so; none for all.
    pub case: Option<String>,
    /// How often each is asked at most, in each way.
    pub calls: u32,
    /// For how long at most, likewise.
    pub time: Duration,
    /// How it is said.
    pub format: Format,
}

/// Does it, and says on standard output how long everything took; what keeps it from being done, on standard error, and what is wrong
/// with fixtures by way of `show`. Exits with 0 when all was measured, else with 1.
pub fn run(wanted: &Bench, show: impl Fn(&ConfigErrors)) -> ExitCode {
    let report = match bench(wanted) {
        Ok(report) => report,
        Err(error) => {
            error.tell(show);
            return ExitCode::FAILURE;
        }
    };
    let text = match wanted.format {
        Format::Text => report.text(),
        // Texts and numbers alone: nothing here can fail to be written.
        Format::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// How long everything took. Its fields are those of the JSON object.
#[derive(Debug, Serialize)]
struct Report {
    component: String,
    fixture: String,
    cases: Vec<CaseReport>,
}

#[derive(Debug, Serialize)]
struct CaseReport {
    name: String,
    line: usize,
    /// By an instance that serves again and again.
    warm: Vec<HookReport>,
    /// By one that is made for each time.
    fresh: Vec<HookReport>,
}

/// How long a hook takes, or the making of an instance, by the clock on the wall.
#[derive(Debug, Serialize)]
struct HookReport {
    hook: &'static str,
    calls: usize,
    min_ns: u64,
    median_ns: u64,
    p99_ns: u64,
    /// Calls of the host's functions in one call of the hook, by interface, at most.
    host_calls: BTreeMap<&'static str, u32>,
    /// Bytes of memory that an instance had at most.
    peak_memory: u64,
}

/// One way to have instances.
#[derive(Debug, Clone, Copy)]
enum Way {
    Warm,
    Fresh,
}

fn bench(wanted: &Bench) -> Result<Report, TestError> {
    let mut workshop = Workshop::open(&wanted.component)?;
    if wanted.fixture.is_dir() {
        let shown = wanted.fixture.display();
        return Err(anyhow!("{shown} is a folder: name one of its files, whose cases are measured").into());
    }
    let (fixture, source) =
        fixture::load(&wanted.fixture, &wanted.component).map_err(|errors| TestError::Fixtures(vec![errors]))?;
    let chosen = chosen(&fixture, wanted)?;
    let mut cases = Vec::new();
    for position in chosen {
        let Some(Step::Case(case)) = fixture.steps.get(position) else {
            continue;
        };
        let mut way = |way: Way| -> Result<Vec<HookReport>, TestError> {
            let stand = workshop.stand_as(&fixture, &way.of(&fixture.plugin));
            let mut stand = stand.map_err(|errors| TestError::Fixtures(vec![errors.locate(&source)]))?;
            for step in fixture.steps.iter().take(position) {
                match step {
                    Step::Clock(by) => stand.clock.forward(*by),
                    Step::Case(case) => {
                        for _ in 0..case.times {
                            ask(&mut stand, case)?;
                        }
                    }
                }
            }
            Ok(measured(&mut stand, case, wanted)?)
        };
        cases.push(CaseReport {
            name: case.name.clone(),
            line: case.origin.line,
            warm: way(Way::Warm)?,
            fresh: way(Way::Fresh)?,
        });
    }
    Ok(Report {
        component: wanted.component.display().to_string(),
        fixture: wanted.fixture.display().to_string(),
        cases,
    })
}

/// The positions of the cases that are meant.
fn chosen(fixture: &Fixture, wanted: &Bench) -> anyhow::Result<Vec<usize>> {
    let name = |step: &Step| match step {
        Step::Case(case) => Some(case.name.clone()),
        Step::Clock(_) => None,
    };
    let named = fixture
        .steps
        .iter()
        .enumerate()
        .filter_map(|(at, step)| Some((at, name(step)?)));
    let (all, names): (Vec<usize>, Vec<String>) = named.unzip();
    let Some(case) = &wanted.case else {
        ensure!(
            all.len() <= MOST_CASES,
            "{} has more than {MOST_CASES} cases: name one with `--case`",
            wanted.fixture.display()
        );
        return Ok(all);
    };
    let named = all.iter().zip(&names).filter(|(_, name)| *name == case);
    let found: Vec<usize> = named.map(|(at, _)| *at).collect();
    if found.is_empty() {
        let some: Vec<String> = names.iter().take(MOST_NAMES).map(|name| format!("{name:?}")).collect();
        bail!("there is no case {case:?}; there are {}", some.join(", "));
    }
    Ok(found)
}

/// Asks a case once, which has to come to what is expected: a plugin that does something else is not worth measuring.
fn ask(stand: &mut Stand, case: &Case) -> anyhow::Result<Course> {
    let course = Course::of(stand, case)?;
    let differences = compare::differences(case, &course, stand);
    ensure!(
        differences.is_empty(),
        "the case {:?} in line {} is not met:\n{}",
        case.name,
        case.origin.line,
        differences.join("\n")
    );
    stand.tidy();
    Ok(course)
}

/// Asks a case over and over. Only the first time has to come to what is expected: limits fill up.
fn measured(stand: &mut Stand, case: &Case, wanted: &Bench) -> anyhow::Result<Vec<HookReport>> {
    let mut samples: Vec<(&'static str, Samples)> = Vec::new();
    // The first time is apart: what is made then is there later.
    ask(stand, case)?;
    let start = Instant::now();
    for _ in 0..wanted.calls {
        let course = Course::of(stand, case)?;
        stand.tidy();
        for measure in &course.measures {
            let known = samples.iter().position(|(hook, _)| *hook == measure.hook);
            let at = known.unwrap_or_else(|| {
                samples.push((measure.hook, Samples::default()));
                samples.len() - 1
            });
            samples[at].1.add(measure);
        }
        if start.elapsed() >= wanted.time {
            break;
        }
    }
    Ok(samples
        .into_iter()
        .map(|(hook, samples)| samples.report(hook))
        .collect())
}

#[derive(Debug, Default)]
struct Samples {
    ns: Vec<u64>,
    host_calls: BTreeMap<&'static str, u32>,
    peak_memory: u64,
}

impl Samples {
    fn add(&mut self, measure: &Measure) {
        // A body may have many pieces: what is enough of them is enough.
        if self.ns.len() < MOST_SAMPLES {
            self.ns.push(u64::try_from(measure.wall.as_nanos()).unwrap_or(u64::MAX));
        }
        for (interface, count) in measure.host_calls.by_interface() {
            let most = self.host_calls.entry(interface).or_default();
            *most = count.max(*most);
        }
        self.peak_memory = self.peak_memory.max(measure.memory);
    }

    fn report(mut self, hook: &'static str) -> HookReport {
        self.ns.sort_unstable();
        // The smallest of which so many hundredths are not larger.
        let at = |hundredths: usize| {
            let rank = (self.ns.len() * hundredths).div_ceil(100).max(1);
            self.ns.get(rank - 1).copied().unwrap_or_default()
        };
        HookReport {
            hook,
            calls: self.ns.len(),
            min_ns: at(0),
            median_ns: at(50),
            p99_ns: at(99),
            host_calls: self.host_calls,
            peak_memory: self.peak_memory,
        }
    }
}

impl Way {
    /// The plugin with instances of this way, without what would keep it from being called so often.
    fn of(self, plugin: &Plugin) -> Plugin {
        Plugin {
            isolation: match self {
                Self::Warm => Isolation::FOREVER,
                Self::Fresh => Isolation::PerRequest { ready: 0 },
            },
            budget: BudgetLimits::default(),
            quarantine: QuarantineSettings {
                failures: u32::MAX,
                ..plugin.quarantine
            },
            ..plugin.clone()
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!("{} by {}\n", self.component, self.fixture);
        for case in &self.cases {
            text += &format!("  {} (line {})\n", case.name, case.line);
            for (way, hooks) in [("warm", &case.warm), ("fresh", &case.fresh)] {
                for hook in hooks {
                    let host_calls: Vec<String> = hook
                        .host_calls
                        .iter()
                        .map(|(interface, count)| format!("{interface} {count}"))
                        .collect();
                    let host_calls = match host_calls.as_slice() {
                        [] => "none".to_owned(),
                        calls => calls.join(", "),
                    };
                    // Writing to a string does not fail.
                    let _ = writeln!(
                        text,
                        "    {way:<6}{:<18}{:>8} calls  median {:>8} ns  min {:>8} ns  p99 {:>8} ns  {:>6} KiB  host calls: {host_calls}",
                        hook.hook,
                        hook.calls,
                        hook.median_ns,
                        hook.min_ns,
                        hook.p99_ns,
                        hook.peak_memory.div_ceil(1024),
                    );
                }
            }
        }
        text
    }
}

/// How often a case is asked unless it is said: enough for the slowest hundredth to be a hundred.
pub const DEFAULT_CALLS: u32 = 10_000;

/// Seconds for a case in one way unless it is said: what a person waits for.
pub const DEFAULT_SECONDS: u32 = 2;

/// Cases of a file that are measured without one being named. What stands before each is asked first.
const MOST_CASES: usize = 100;

/// Cases that are named where the one that was meant is not there.
const MOST_NAMES: usize = 20;

/// Times of one hook that are kept.
const MOST_SAMPLES: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_hundredths_are_of_what_was_measured() {
        let report = |ns: Vec<u64>| {
            let samples = Samples {
                ns,
                ..Samples::default()
            };
            let report = samples.report("on-request");
            (report.calls, report.min_ns, report.median_ns, report.p99_ns)
        };
        assert_eq!(report((1..=200).rev().collect()), (200, 1, 100, 198));
        assert_eq!(report(vec![7]), (1, 7, 7, 7));
        assert_eq!(report(Vec::new()), (0, 0, 0, 0));
    }
}

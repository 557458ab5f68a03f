//! `gateway plugin test`: asks a component what its fixtures ask, by the host that serves requests, and compares what it makes of
//! that with what they expect.
//!
//! [`stand`] attaches the plugin as a file of fixtures says, [`course`] leads a case through the phases of an exchange, [`compare`] says what is not as it was expected, [`report`] says how it all went.

mod bodies;
pub(super) mod compare;
mod course;
mod facts;
mod files;
mod report;
pub(super) mod stand;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::inspect::Format;
use crate::config::ConfigErrors;
use crate::config::fixture::{self, Case, Step};
pub(super) use course::Course;
use report::{CaseReport, FileReport, Report};
use stand::{Stand, Workshop};

/// What is to be tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// The component.
    pub component: PathBuf,
    /// Files of fixtures, and folders with such files.
    pub fixtures: Vec<PathBuf>,
    /// How it is said.
    pub format: Format,
}

/// Does it, and says how it went on standard output; what keeps it from being done, on standard error, and what is wrong with fixtures
/// by way of `show`. Exits with 0 when every case came to what its fixture expects, else with 1.
pub fn run(wanted: &Test, show: impl Fn(&ConfigErrors)) -> ExitCode {
    let report = match test(wanted) {
        Ok(report) => report,
        Err(error) => {
            error.tell(show);
            return ExitCode::FAILURE;
        }
    };
    let text = match wanted.format {
        Format::Text => report.text(),
        Format::Json => report.json(),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) if report.failed == 0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// What keeps fixtures from being asked.
pub(super) enum TestError {
    /// The component or a folder.
    Other(anyhow::Error),
    /// Files of fixtures, with all that is wrong with them.
    Fixtures(Vec<ConfigErrors>),
}

impl TestError {
    /// Says it on standard error; what is wrong with fixtures by way of `show`.
    pub(super) fn tell(&self, show: impl Fn(&ConfigErrors)) {
        match self {
            Self::Other(error) => eprintln!("gateway: {error:#}"),
            Self::Fixtures(files) => files.iter().for_each(show),
        }
    }
}

impl From<anyhow::Error> for TestError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

fn test(wanted: &Test) -> Result<Report, TestError> {
    let mut workshop = Workshop::open(&wanted.component)?;
    let files = files::find(&wanted.fixtures)?;
    // All are read before the first is asked: a slip in the last is said at once.
    let (mut read, mut wrong) = (Vec::new(), Vec::new());
    for file in &files {
        match fixture::load(file, &wanted.component) {
            Ok(fixture) => read.push((file, fixture)),
            Err(errors) => wrong.push(errors),
        }
    }
    if !wrong.is_empty() {
        return Err(TestError::Fixtures(wrong));
    }
    let mut report = Report::new(&wanted.component);
    for (file, (fixture, source)) in &read {
        match workshop.stand(fixture) {
            Ok(mut stand) => {
                let mut cases = Vec::new();
                for step in &fixture.steps {
                    match step {
                        Step::Clock(by) => stand.clock.forward(*by),
                        Step::Case(case) => cases.push(try_case(&mut stand, case)),
                    }
                }
                report.add(FileReport::new(file, cases));
            }
            Err(errors) => wrong.push(errors.locate(source)),
        }
    }
    match wrong.is_empty() {
        true => Ok(report),
        false => Err(TestError::Fixtures(wrong)),
    }
}

/// Asks a case as often as it says, to the first time that it comes to something else.
fn try_case(stand: &mut Stand, case: &Case) -> CaseReport {
    let mut report = CaseReport::new(case);
    for time in 1..=case.times {
        let course = match Course::of(stand, case) {
            Ok(course) => course,
            Err(why) => {
                report.differs(time, vec![format!("it cannot be asked: {why:#}")]);
                break;
            }
        };
        report.add(&course);
        let differences = compare::differences(case, &course, stand);
        stand.tidy();
        if !differences.is_empty() {
            report.differs(time, differences);
            break;
        }
    }
    report
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

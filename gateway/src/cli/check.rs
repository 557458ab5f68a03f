//! `gateway check`: says whether a configuration is valid and could run here, in words or as JSON.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use miette::{GraphicalReportHandler, GraphicalTheme};
use serde::Serialize;

use crate::config::{self, ConfigErrors, Loaded};
use crate::server;
use crate::snapshot::Snapshot;
use explain::Explained;

mod explain;
mod validity;

/// How findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people, with the lines of the file.
    #[default]
    Text,
    /// For programs: one JSON object, described in the reference.
    Json,
}

/// Checks a configuration file, with the certificates and components that it names, and says how it went, on standard
/// output. Exits with 0 when it could run, else with 1.
/// With `explain`, what is valid is followed by the limits of each use of a plugin, and by what tenants are given and decide.
pub fn run(path: &Path, format: Format, explain: bool) -> ExitCode {
    let result = check(path);
    let explained = match &result {
        Ok(loaded) if explain => Some(Explained::of(loaded)),
        _ => None,
    };
    let errors = result.as_ref().err();
    let warnings = result
        .as_ref()
        .ok()
        .and_then(|loaded| validity::warnings(loaded, now()));
    let text = match (format, errors) {
        (Format::Json, errors) => json(&path.display().to_string(), errors, warnings.as_ref(), explained),
        (Format::Text, None) => {
            let limits = explained.as_ref().map(Explained::text).unwrap_or_default();
            let drawn = warnings
                .as_ref()
                .map(|warnings| drawn(warnings, style(&std::io::stdout())));
            let with = match warnings.as_ref().map_or(0, |warnings| warnings.iter().len()) {
                0 => String::new(),
                1 => ", with 1 warning".to_owned(),
                several => format!(", with {several} warnings"),
            };
            format!(
                "{}{} is valid{with}\n{limits}",
                drawn.unwrap_or_default(),
                path.display()
            )
        }
        (Format::Text, Some(errors)) => text(errors, style(&std::io::stdout())),
    };
    let written = std::io::stdout().write_all(text.as_bytes());
    match (errors, written) {
        (None, Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// A file whose text is wrong is not tried: what follows from a slip would hide it.
fn check(path: &Path) -> Result<Loaded, ConfigErrors> {
    let loaded = config::load(path)?;
    let Loaded { config, source, .. } = &loaded;
    let mut faults = server::check(config);
    faults.extend(Snapshot::check(config).err().iter().flat_map(|errors| errors.faults()));
    match faults.is_empty() {
        true => Ok(loaded),
        false => Err(source.errors(faults)),
    }
}

/// Writes the faults of a configuration to standard error, for people.
pub fn print(errors: &ConfigErrors) {
    let text = text(errors, style(&std::io::stderr()));
    // Whoever has closed standard error does not want to know.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// How a report is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// With colours.
    Coloured,
    /// Without.
    Plain,
}

/// The faults of a configuration for people: each with its lines, labels and help, and a count at the end.
pub fn text(errors: &ConfigErrors, style: Style) -> String {
    format!("{}{errors}\n", drawn(errors, style))
}

/// Each with its lines, labels and help.
fn drawn(errors: &ConfigErrors, style: Style) -> String {
    let theme = match style {
        Style::Coloured => GraphicalTheme::unicode(),
        Style::Plain => GraphicalTheme::unicode_nocolor(),
    };
    // A line that nobody reads to its end is cut down to the places themselves.
    let context = if errors.longest_line() > LONGEST_LINE { 0 } else { 1 };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_wrap_lines(false)
        .with_context_lines(context);
    let mut handler = handler.with_width(WIDTH);
    if style == Style::Plain {
        handler = handler.without_syntax_highlighting();
    }
    let mut text = String::new();
    for error in errors.iter() {
        // Writing to a string does not fail; a report that cannot be drawn is still said.
        if handler.render_report(&mut text, &errors.located(error)).is_err() {
            text.push_str(error.message());
        }
        text.push('\n');
    }
    text
}

/// In Unix time.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The JSON object that `--format json` promises.
fn json(
    file: &str,
    errors: Option<&ConfigErrors>,
    warnings: Option<&ConfigErrors>,
    explained: Option<Explained>,
) -> String {
    let report = Report {
        ok: errors.is_none(),
        errors: errors.map(|errors| faults(file, errors)).unwrap_or_default(),
        warnings: warnings.map(|warnings| faults(file, warnings)).unwrap_or_default(),
        explained,
    };
    // Strings and numbers alone: nothing here can fail to be written.
    let mut text = serde_json::to_string_pretty(&report).unwrap_or_default();
    text.push('\n');
    text
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    errors: Vec<Fault<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Fault<'a>>,
    #[serde(flatten)]
    explained: Option<Explained>,
}

#[derive(Serialize)]
struct Fault<'a> {
    code: &'static str,
    message: &'a str,
    help: Option<&'a str>,
    file: &'a str,
    #[serde(flatten)]
    place: Place,
    labels: Vec<Label<'a>>,
}

#[derive(Serialize)]
struct Label<'a> {
    text: &'a str,
    /// Where it is not the configuration's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(flatten)]
    place: Place,
}

/// Lines and columns from 1, columns in characters, the end behind the last character; null when there is no place.
#[derive(Serialize, Clone, Copy, Default)]
struct Place {
    line: Option<usize>,
    column: Option<usize>,
    end_line: Option<usize>,
    end_column: Option<usize>,
}

fn faults<'a>(file: &'a str, errors: &'a ConfigErrors) -> Vec<Fault<'a>> {
    errors.iter().map(|error| fault(file, errors, error)).collect()
}

fn fault<'a>(file: &'a str, errors: &'a ConfigErrors, error: &'a config::ConfigError) -> Fault<'a> {
    let labels: Vec<Label<'a>> = error
        .places()
        .iter()
        .map(|label| {
            let (start, end) = errors.position(label.span);
            Label {
                text: &label.text,
                file: Some(errors.file_of(label.span)).filter(|other| *other != errors.file()),
                place: Place {
                    line: Some(start.line),
                    column: Some(start.column),
                    end_line: Some(end.line),
                    end_column: Some(end.column),
                },
            }
        })
        .collect();
    Fault {
        code: error.kind().as_str(),
        message: error.message(),
        help: error.advice(),
        file: error.places().first().map_or(file, |label| errors.file_of(label.span)),
        place: labels.first().map(|label| label.place).unwrap_or_default(),
        labels,
    }
}

/// Colours only on a terminal, and not where `NO_COLOR` is set (<https://no-color.org>).
fn style(stream: &impl IsTerminal) -> Style {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match stream.is_terminal() && !refused {
        true => Style::Coloured,
        false => Style::Plain,
    }
}

/// Columns of a report, the same everywhere, so that reports can be compared; terminals wrap what is longer.
const WIDTH: usize = 100;
/// Bytes of a line that is still shown whole.
const LONGEST_LINE: usize = 500;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

//! `access-log …`: which lines are written.

use std::sync::Arc;

use miette::SourceSpan;

use super::acls::Acls;
use super::condition::{self, When};
use super::log_format::ReadFormat;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{AccessLog, Captures, LineField, LinePart, LogChoice, LogTo, Mode};
use crate::config::reader::{At, Context, Node, Value};

/// `access-log`, as it stands somewhere.
#[derive(Clone)]
pub(super) struct AccessLogSetting {
    enabled: bool,
    skip_null: bool,
    /// Without its format.
    choice: LogChoice,
}

/// Reads `access-log`, `access-log skip-null sample=0.01` or `access-log "off"`. Conditions stand only where there are acls.
pub(super) fn access_log(mut node: Node<'_>, acls: Option<&Acls<'_>>) -> Option<At<AccessLogSetting>> {
    let span = node.span();
    let skip_null = node.flag("skip-null");
    let only_errors = node.flag("only-errors");
    let separate_errors = node.flag("separate-errors");
    let off = node.flag("off");
    let sample = node.property("sample");
    let share = sample.map(|sample| fraction(&sample));
    let when = match acls {
        Some(acls) => match condition::when(&mut node, acls) {
            When::Always => Some(None),
            When::If(when) => when.map(Some),
        },
        None => {
            for key in ["if", "unless"] {
                if let Some(value) = node.hidden_property(key) {
                    let error = ConfigError::new(Code::Unknown, "`access-log` has no condition here");
                    let error = error.label(value.span(), "acls belong to frontends");
                    node.fail(error.help("write `access-log` with its condition in the frontend"));
                }
            }
            Some(None)
        }
    };
    let others = [
        skip_null,
        only_errors,
        separate_errors,
        sample.map(|sample| sample.span()),
    ];
    if let Some(off) = off {
        for said in others.into_iter().flatten() {
            inert(&node, "this does nothing when the access log is off", said, off);
        }
    }
    if let (Some(only), Some(sample)) = (only_errors, sample) {
        inert(&node, "`sample=` does nothing with `only-errors`", sample.span(), only);
    }
    node.finish();
    Some(At {
        value: AccessLogSetting {
            enabled: off.is_none(),
            skip_null: skip_null.is_some(),
            choice: LogChoice {
                only_errors: only_errors.is_some(),
                separate_errors: separate_errors.is_some(),
                sample: super::or_none(share)?,
                when: when?,
                to: None,
                format: None,
            },
        },
        span,
    })
}

fn inert(node: &Node<'_>, message: &str, said: SourceSpan, because: SourceSpan) {
    let error = ConfigError::new(Code::Inert, message);
    let error = error.label(said, "does nothing").label(because, "because of this");
    node.fail(error.help("one of them has to go"));
}

/// A fraction between nothing and all, of 2^32.
pub(super) fn fraction(value: &Value<'_>) -> Option<u32> {
    let number = match value.raw() {
        kdl::KdlValue::Float(number) => Some(*number),
        _ => None,
    };
    match number.filter(|number| *number > 0.0 && *number < 1.0) {
        // Between 0 and 2^32, both excluded: nothing is lost that could be told apart.
        Some(number) => Some((number * f64::from(u32::MAX)).ceil() as u32),
        None => value.fail(
            format!("{} has to be a part of all", value.title()),
            "not between 0 and 1",
            "write a number with a fraction, without quotes: 0.01 is one of a hundred",
        ),
    }
}

/// Where it says that nothing is logged, if it does.
pub(super) fn off(setting: &At<AccessLogSetting>) -> Option<SourceSpan> {
    (!setting.value.enabled).then_some(setting.span)
}

/// What is logged in a section, and what is kept for it.
pub(super) struct Logging {
    pub(super) log: AccessLog,
    pub(super) choice: Option<Box<LogChoice>>,
    pub(super) captures: Option<Box<Captures>>,
}

impl Logging {
    /// Lines go to these logs, where any are named.
    pub(super) fn go_to(&mut self, to: Option<Arc<[LogTo]>>) {
        if to.is_some() {
            self.choice.get_or_insert_default().to = to;
        }
    }
}

/// `own` and `format` are what holds, said here or inherited; `format`'s flag is whether it is said here.
pub(super) fn settle(
    ctx: &Context<'_>,
    mode: Mode,
    setting: Option<&At<AccessLogSetting>>,
    format: Option<(&At<Option<ReadFormat>>, bool)>,
    mut captures: Captures,
    captured_at: Option<SourceSpan>,
) -> Logging {
    let log = setting.map_or(super::frontend::DEFAULT_ACCESS_LOG, |at| AccessLog {
        enabled: at.value.enabled,
        skip_null: at.value.skip_null,
    });
    let mut choice = setting.map(|at| at.value.choice.clone()).unwrap_or_default();
    let format = format.and_then(|(at, is_own)| Some((at.value.as_ref()?, at.span, is_own)));
    if let Some(off) = setting.filter(|at| !at.value.enabled) {
        let said_format = format.filter(|(.., is_own)| *is_own).map(|(_, span, _)| span);
        for said in [said_format, captured_at].into_iter().flatten() {
            let error = ConfigError::new(Code::Inert, "this does nothing when the access log is off");
            let error = error.label(said, "does nothing").label(off.span, "because of this");
            ctx.report(error.help("one of them has to go"));
        }
        captures = Captures::default();
    } else if let Some((format, span, is_own)) = format
        // Defaults of HTTP mode are passed over in TCP mode.
        && (is_own || mode == Mode::Http || !format.is_of_requests())
    {
        let format = format.settle(ctx, mode, &mut captures);
        let shows = |part: &LinePart| {
            let LinePart::Field(field, _) = part else { return false };
            match field {
                LineField::RequestCapture(position) => *position < captures.shown.0,
                LineField::ResponseCapture(position) => *position < captures.shown.1,
                LineField::Captures | LineField::ResponseCaptures => true,
                LineField::RequestCookie | LineField::ResponseCookie => true,
                _ => false,
            }
        };
        if let Some(captured) = captured_at
            && !format.parts.iter().any(shows)
        {
            let error = ConfigError::new(Code::Inert, "what is captured is not in the line");
            let error = error
                .label(captured, "kept for nothing")
                .label(span, "does not mention it");
            ctx.report(error.help("put %{captures} into the format, or %{header:NAME} without any `capture`"));
        }
        choice.format = Some(format);
    }
    Logging {
        log,
        choice: (choice != LogChoice::default()).then(|| Box::new(choice)),
        captures: (captures != Captures::default()).then(|| Box::new(captures)),
    }
}

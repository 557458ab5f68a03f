//! `log "audit"` in a frontend: which of the process's logs its lines go to.

use std::sync::Arc;

use miette::SourceSpan;

use super::Scope;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{LogTo, NamedLog};
use crate::config::reader::{At, Context, Node, clip, said_twice};
use crate::config::suggest;

/// The names that a section gives, with their places.
pub(super) type LogNames = At<Vec<At<String>>>;

/// Reads `log "audit" "process"`.
pub(super) fn names(mut node: Node<'_>) -> Option<LogNames> {
    let span = node.span();
    let first = node.argument("a log's name")?;
    let mut values = vec![first];
    while let Some(value) = node.next_argument("a log's name") {
        values.push(value);
    }
    node.finish();
    let names: Option<Vec<_>> = values
        .into_iter()
        .map(|value| Some(value.at(value.name()?.to_owned())))
        .collect();
    names.map(|value| At { value, span })
}

/// The logs that these names mean.
pub(super) fn targets(scope: &Scope<'_>, names: Option<&LogNames>) -> Option<Arc<[LogTo]>> {
    let mut targets: Vec<(LogTo, SourceSpan)> = Vec::new();
    for name in &names?.value {
        let known = &scope.process.named_logs;
        let target = match known.iter().position(|known| *known.name == *name.value) {
            Some(position) => LogTo::Named(position),
            None if name.value == PROCESS => LogTo::Process,
            None => {
                let names: Vec<&str> = known.iter().map(|known| &*known.name).chain([PROCESS]).collect();
                let help = suggest::did_you_mean(&name.value, &names, || {
                    Some("declare it: process { log \"udp://10.0.0.9:514\" name=\"audit\" }".to_owned())
                });
                let error = ConfigError::new(Code::Reference, format!("there is no log {:?}", clip(&name.value)));
                scope
                    .ctx
                    .report(error.label(name.span, "nothing has this name").maybe_help(help));
                continue;
            }
        };
        match targets.iter().find(|(known, _)| *known == target) {
            Some((_, first)) => scope.ctx.report(said_twice("this log", *first, name.span)),
            None => targets.push((target, name.span)),
        }
    }
    Some(targets.into_iter().map(|(target, _)| target).collect())
}

/// Reports logs that no frontend names.
pub(super) fn report_unused<'a>(
    ctx: &Context<'_>,
    logs: &[NamedLog],
    named: impl Iterator<Item = &'a [LogTo]> + Clone,
) {
    for (position, log) in logs.iter().enumerate() {
        let is_used = named.clone().any(|targets| targets.contains(&LogTo::Named(position)));
        if let (false, Some(origin)) = (is_used || ctx.is_unread(&log.name), &log.log.origin) {
            let error = ConfigError::new(Code::Inert, format!("the log {:?} is never used", clip(&log.name)));
            let error = error.label(origin.span, "no frontend has `log` with it");
            ctx.report(error.help("use it, or leave it out"));
        }
    }
}

/// What the log without a name is called.
pub(super) const PROCESS: &str = "process";

//! `"https://%{host}%{uri}"`: texts with variables that are put together on the way.

use miette::SourceSpan;

pub(super) use super::variables::When;
use super::variables::{Meaning, Part, Variable, parts};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Template, TemplatePart};
use crate::config::reader::{Context, Note, Value};

/// Reads a text with variables. Faults are reported where they stand.
pub(super) fn template(value: &Value<'_>, when: When) -> Option<Template> {
    let parts = parts(value, value.any_text()?, when)?;
    of(value, &parts)
}

/// The text that these parts are.
pub(super) fn of(value: &Value<'_>, parts: &[Part<'_>]) -> Option<Template> {
    if parts.len() > MAX_PARTS {
        let message = format!("a text has at most {MAX_PARTS} parts between and with its variables");
        return value.fail(message, format!("has {}", parts.len()), "use fewer variables");
    }
    let part = |part: &Part<'_>| match part {
        Part::Text(text) => Some(TemplatePart::Text(text.clone())),
        Part::Variable(variable) => fact(value, variable),
    };
    parts.iter().map(part).collect::<Option<_>>().map(Template)
}

fn fact(value: &Value<'_>, variable: &Variable<'_>) -> Option<TemplatePart> {
    let meaning = variable.known.meaning()?;
    if let (Meaning::Frontend | Meaning::Backend, Some(map)) = (meaning, variable.map) {
        let message = format!("`{}` is known when this is written", variable.known.name);
        let error = ConfigError::new(Code::Value, message).label(variable.span, "the same for every request");
        value
            .context()
            .report(error.help(format!("write what the map {map:?} has for it")));
        return None;
    }
    if matches!(meaning, Meaning::Frontend | Meaning::Backend) && variable.is_url_encoded {
        let message = format!("`{}` is known when this is written", variable.known.name);
        let error = ConfigError::new(Code::Value, message).label(variable.span, "a name of this file");
        value
            .context()
            .report(error.help("leave `|url-encode` out, and give it a name of letters, digits and -._~"));
        return None;
    }
    if meaning == Meaning::Backend && value.context().is_in_tenant() {
        let error = ConfigError::new(
            Code::Value,
            "a tenant's edits are the same whichever backend a request goes to",
        );
        let error = error.label(variable.span, "does not stand for anything here");
        value
            .context()
            .report(error.help("leave it out, or let the operator write the edit"));
        return None;
    }
    Some(match meaning {
        Meaning::Frontend => TemplatePart::Frontend,
        Meaning::Backend => TemplatePart::Backend,
        Meaning::Attribute(name) => {
            if name == "request-id" {
                value.context().note(Note::RequestId(variable.span));
            }
            let attribute = match (name, variable.of) {
                (name, None) => name.to_owned(),
                ("header" | "response-header", Some(of)) => format!("{name}:{}", of.to_ascii_lowercase()),
                (name, Some(of)) => format!("{name}:{of}"),
            };
            let attribute = match variable.map {
                Some(map) => format!("map:{map}:{attribute}"),
                None => attribute,
            };
            match variable.is_url_encoded {
                true => TemplatePart::url_encoded(&attribute),
                false => TemplatePart::Fact(attribute),
            }
        }
    })
}

/// Where the number of a request is asked for in a section whose texts have just been read.
pub(super) fn take_request_id(ctx: &Context<'_>) -> Option<SourceSpan> {
    take_request_ids(ctx).next()
}

/// All places where it is.
pub(super) fn take_request_ids(ctx: &Context<'_>) -> impl Iterator<Item = SourceSpan> {
    ctx.take_notes().into_iter().map(|Note::RequestId(span)| span)
}

/// Reports a text with the number of a request where requests get none: `asked` has where, `span` the frontend.
pub(super) fn report_numberless(ctx: &Context<'_>, asked: SourceSpan, span: SourceSpan) {
    let error = ConfigError::new(Code::Inert, "`request-id` stands for nothing: requests get no number");
    let error = error
        .label(asked, "asked for here")
        .label(span, "this frontend gives none");
    ctx.report(error.help("write `request-id` into the frontend or its defaults"));
}

/// Each part is looked up and written for every request.
const MAX_PARTS: usize = 32;

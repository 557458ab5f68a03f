//! `capture …` and `log-format "…"`: what is kept of messages for their access line, and how it looks.

use std::ops::RangeInclusive;

use http::HeaderName;
use miette::SourceSpan;

use super::header;
use super::variables::{self, InLine, Keep, Part, Variable, When};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Capture, Captured, Captures, LineEscape, LineField, LineFormat, LinePart, Mode};
use crate::config::reader::{Context, Node, said_twice};

/// `log-format`, read as far as it can be without the frontend that it is for.
#[derive(Debug, Clone)]
pub(super) struct ReadFormat {
    parts: Vec<Read>,
}

#[derive(Debug, Clone)]
enum Read {
    Text(String),
    /// With where it stands.
    Field(LineField, LineEscape, SourceSpan),
    /// A header of the request or, when that is set, of the response; or a cookie of the request.
    Kept(Captured, bool, LineEscape, SourceSpan),
}

/// Reads `capture header="Host" max=64` and its like, in order.
pub(super) fn captures(ctx: &Context<'_>, nodes: Vec<Node<'_>>) -> Captures {
    let mut captures = Captures::default();
    let mut seen: Vec<(bool, Captured, SourceSpan)> = Vec::new();
    let mut cookie_at: Option<SourceSpan> = None;
    for mut node in nodes {
        let span = node.span();
        let header = node.property("header");
        let response = node.property("response-header");
        let cookie = node.property("cookie");
        let path = node.flag("path");
        let max = match node.property("max") {
            Some(max) => max.integer(MAX_RANGE).and_then(|max| usize::try_from(max).ok()),
            None => Some(DEFAULT_MAX),
        };
        let said = [header.is_some(), response.is_some(), cookie.is_some(), path.is_some()];
        if said.iter().filter(|said| **said).count() != 1 {
            let error = ConfigError::new(Code::Value, "a `capture` keeps one thing");
            let error = error.label(span, "names none, or several");
            node.fail(error.help("write one of `header=`, `response-header=`, `cookie=` and `path`"));
            node.finish();
            continue;
        }
        node.finish();
        let is_response = response.is_some();
        let what = match (cookie, header.or(response)) {
            (Some(cookie), _) => {
                match cookie_at {
                    Some(first) => ctx.report(said_twice("`capture cookie=`", first, span)),
                    None => cookie_at = Some(span),
                }
                captures.cookie = header::token(&cookie).zip(max);
                continue;
            }
            (None, Some(header)) => header::header_name(&header)
                .and_then(|name| parsed(&name))
                .map(Captured::Header),
            (None, None) => Some(Captured::Path),
        };
        let (Some(what), Some(max)) = (what, max) else { continue };
        let mut known = seen.iter();
        if let Some((.., first)) = known.find(|(other, known, _)| *other == is_response && *known == what) {
            ctx.report(said_twice("this capture", *first, span));
            continue;
        }
        if seen.len() == MAX_CAPTURES {
            let error = ConfigError::new(Code::Value, format!("a frontend has at most {MAX_CAPTURES} captures"));
            ctx.report(
                error
                    .label(span, "one too many")
                    .help("keep fewer: each makes every line longer"),
            );
        }
        seen.push((is_response, what.clone(), span));
        let list = if is_response {
            &mut captures.response
        } else {
            &mut captures.request
        };
        list.push(Capture { what, max });
    }
    captures.shown = (captures.request.len(), captures.response.len());
    captures
}

/// Reads `log-format "%{client-ip} …" escape="json"`.
pub(super) fn log_format(node: &mut Node<'_>) -> Option<ReadFormat> {
    let escape = match node.property("escape") {
        Some(value) => value.choice(&[("text", None), ("json", Some(LineEscape::Json))]),
        None => Some(None),
    };
    let value = node.argument("how a line looks")?;
    let text = value.text()?;
    if text.len() > MAX_FORMAT {
        let help = "a shorter line says more";
        return value.fail(
            format!("a format has at most {MAX_FORMAT} bytes"),
            "longer than that",
            help,
        );
    }
    if text.chars().any(char::is_control) {
        let help = "a line is one line: write what stands between its fields";
        return value.fail("a format has no control characters", "has one", help);
    }
    let escape = escape?;
    let mut is_quoted = false;
    let read = |part| match part {
        Part::Text(text) => {
            is_quoted ^= text.matches('"').count() % 2 == 1;
            Some(Read::Text(text))
        }
        Part::Variable(variable) => {
            let escape = escape.unwrap_or(match is_quoted {
                true => LineEscape::Quoted,
                false => LineEscape::Word,
            });
            field(&variable, escape)
        }
    };
    let parts = variables::parts(&value, text, When::Line)?.into_iter().map(read);
    Some(ReadFormat {
        parts: parts.collect::<Option<_>>()?,
    })
}

/// A variable in a line.
fn field(variable: &Variable<'_>, escape: LineEscape) -> Option<Read> {
    let keep = match variable.known.line {
        InLine::Field(field) => return Some(Read::Field(field, escape, variable.span)),
        InLine::Kept(keep) => keep,
    };
    let of = variable.of?;
    let what = match keep {
        Keep::Header | Keep::ResponseHeader => Captured::Header(parsed(&of.to_ascii_lowercase())?),
        Keep::Cookie => Captured::Cookie(of.to_owned()),
        Keep::QueryParam => Captured::QueryParam(of.to_owned()),
    };
    Some(Read::Kept(what, keep == Keep::ResponseHeader, escape, variable.span))
}

impl ReadFormat {
    /// Whether it has what only a request has.
    pub(super) fn is_of_requests(&self) -> bool {
        self.parts.iter().any(|part| match part {
            Read::Text(_) => false,
            Read::Field(field, ..) => field.is_of_request(),
            Read::Kept(..) => true,
        })
    }

    /// The format for a frontend of that mode; what it asks of messages is added to what is kept of them.
    pub(super) fn settle(&self, ctx: &Context<'_>, mode: Mode, captures: &mut Captures) -> LineFormat {
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let (field, escape, span) = match part {
                Read::Text(text) => {
                    parts.push(LinePart::Text(text.clone()));
                    continue;
                }
                Read::Field(field, escape, span) => (*field, *escape, *span),
                Read::Kept(what, is_response, escape, span) => {
                    let list = match is_response {
                        true => &mut captures.response,
                        false => &mut captures.request,
                    };
                    let position = list.iter().position(|known| known.what == *what).unwrap_or_else(|| {
                        list.push(Capture {
                            what: what.clone(),
                            max: NAMED_MAX,
                        });
                        list.len() - 1
                    });
                    let field = match is_response {
                        true => LineField::ResponseCapture(position),
                        false => LineField::RequestCapture(position),
                    };
                    (field, *escape, *span)
                }
            };
            if mode == Mode::Tcp && field.is_of_request() {
                let error = ConfigError::new(Code::Mode, "this variable needs HTTP mode");
                let error = error.label(span, "only a request has this");
                ctx.report(error.help("leave it out of the lines of TCP mode"));
            }
            parts.push(LinePart::Field(field, escape));
        }
        LineFormat { parts }
    }
}

fn parsed(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok()
}

/// As a header's value is when nobody says how much of it matters.
const DEFAULT_MAX: usize = 64;
/// Longer ones would make lines that syslog servers cut.
const MAX_RANGE: RangeInclusive<u64> = 1..=4096;
/// Of what a format asks for by name.
const NAMED_MAX: usize = 1024;
const MAX_CAPTURES: usize = 64;
const MAX_FORMAT: usize = 4096;

//! `deny`, `redirect` and `return`: rules that end a request, in the order of the text.

use std::path::Path;

use miette::SourceSpan;

use super::acls::Acls;
use super::condition::{self, Unconditional, When};
use super::template;
use super::variables::{self, When as Phase};
use super::{Scope, acl, content, header, redirect, reserved};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Action, Content, Mode, RedirectTo, Return, Rule};
use crate::config::reader::{Block, Node, Value};
use crate::config::token::is_token;

/// The rules of a frontend, and the one that always holds: where it stands, and its name.
pub(super) struct Rules {
    pub(super) rules: Option<Vec<Rule>>,
    pub(super) last: Option<(SourceSpan, &'static str)>,
}

/// Reads a frontend's rules.
pub(super) fn rules(scope: &Scope<'_>, acls: &Acls<'_>, nodes: Vec<Node<'_>>) -> Rules {
    let mut rules = Vec::new();
    let mut well = true;
    let mut last: Option<(SourceSpan, &'static str)> = None;
    for mut node in nodes {
        if let Some((first, what)) = last {
            let does = match what {
                "deny" => "it denies all",
                "redirect" => "it redirects all",
                _ => "it answers all",
            };
            let last = Unconditional { span: first, does };
            let never = (node.name(), node.span(), "comes after");
            condition::report_never_reached(node.ctx, never, last, condition::MOVE_ON);
        }
        let (span, origin, name) = (node.span(), node.origin(), node.name());
        let regex = match name {
            "redirect" => node.property("regex"),
            _ => None,
        };
        node.hints(of_answers);
        let mut asks_in_block = false;
        let action = match name {
            "deny" => deny(&mut node, acls).map(Action::Deny),
            "redirect" => {
                http_only(&node, acls);
                redirect::redirect(&mut node, regex).map(|redirect| Action::Redirect(Box::new(redirect)))
            }
            _ => {
                http_only(&node, acls);
                answer(scope, &mut node, &mut asks_in_block).map(|answer| Action::Return(Box::new(answer)))
            }
        };
        let when = match name {
            // Its block is the response.
            "return" => match condition::when(&mut node, acls) {
                // Meant to be one, and reported: what follows is reached.
                When::Always if asks_in_block => When::If(None),
                when => when,
            },
            _ => condition::when_with_block(&mut node, acls),
        };
        let when = match (regex, &action) {
            (Some(_), Some(Action::Redirect(redirect))) => match &redirect.to {
                RedirectTo::Matched(captured) => condition::and(when, acls.path_matches(name, &captured.regex, span)),
                _ => when,
            },
            // One that could not be read has been reported; it would not hold for all.
            (Some(_), _) => When::If(None),
            (None, _) => when,
        };
        let when = match when {
            When::Always => {
                let name = ["deny", "redirect"].into_iter().find(|known| *known == name);
                last = last.or(Some((span, name.unwrap_or("return"))));
                Some(None)
            }
            When::If(when) => when.map(Some),
        };
        node.finish();
        match (action, when) {
            (Some(action), Some(when)) => rules.push(Rule { action, when, origin }),
            _ => well = false,
        }
    }
    Rules {
        rules: well.then_some(rules),
        last,
    }
}

/// What is said of an answer in its block, and where a redirect leads.
fn of_answers(word: &str) -> Option<&'static str> {
    Some(match word {
        "body" | "content" | "text" | "file" | "content-type" => {
            "content stands in the block of a `return`: return status=503 { body \"Back soon.\" }"
        }
        "to" | "url" | "uri" => "write location=\"https://www.example.net/new\"",
        "http" | "https" => "write scheme=\"https\"",
        _ => return None,
    })
}

/// `deny status=403`
fn deny(node: &mut Node<'_>, acls: &Acls<'_>) -> Option<u16> {
    let status = node.property("status");
    if let (Some(status), Mode::Tcp) = (&status, acls.setting.mode) {
        let error = ConfigError::new(Code::Inert, "`status` does nothing in TCP mode");
        let mut error = error.label(status.span(), "the connection is closed, without a word");
        if let Some(mode) = acls.setting.mode_span {
            error = error.label(mode, "the mode is TCP because of this");
        }
        node.fail(error.help("leave it out"));
    }
    match status {
        Some(value) => number(&value, 400, 599),
        None => Some(DEFAULT_DENY_STATUS),
    }
}

/// `return status=200 { header "X-A" "b"; body "ok" content-type="text/plain" }`. `asks` becomes whether its block asks for something, as those
/// of other rules do.
fn answer(scope: &Scope<'_>, node: &mut Node<'_>, asks: &mut bool) -> Option<Return> {
    let status_at = node.property("status");
    let status = match &status_at {
        Some(value) => number(value, 200, 599),
        None => Some(DEFAULT_RETURN_STATUS),
    };
    let Some(mut block) = node.block() else {
        return Some(Return {
            status: status?,
            headers: Vec::new(),
            content: Content::Empty,
        });
    };
    let headers: Vec<_> = block.many("header").into_iter().map(header).collect();
    if let Some((_, _, span)) = headers.get(MAX_HEADERS).and_then(Option::as_ref) {
        let error = ConfigError::new(
            Code::Value,
            format!("a response has at most {MAX_HEADERS} headers here"),
        );
        node.fail(error.label(*span, "one too many").help("leave some of them out"));
    }
    let content = response_content(scope, &mut block);
    let predicates = block.strays(acl::PREDICATES);
    *asks = !predicates.is_empty();
    report_predicates(node, &predicates);
    block.finish(super::elsewhere);
    let (content, content_at) = content?;
    if let (Some(200..=599), Some(content), Some(value)) = (status, content_at, &status_at)
        && matches!(status, Some(204 | 205 | 304))
    {
        let error = ConfigError::new(Code::Conflict, "a response with this status has no content");
        let error = error.label(content, "says some").label(value.span(), "because of this");
        node.fail(error.help("leave the content out, or take another status"));
        return None;
    }
    let headers: Vec<_> = headers.into_iter().collect::<Option<_>>()?;
    Some(Return {
        status: status?,
        headers: headers.into_iter().map(|(name, value, _)| (name, value)).collect(),
        content,
    })
}

/// Once for all of them, with the rule as it would be right.
fn report_predicates(node: &Node<'_>, predicates: &[Node<'_>]) {
    let Some(first) = predicates.first() else { return };
    let error = ConfigError::new(Code::Conflict, "the block of a `return` is its response");
    let mut error = error.label(first.span(), "asks for something");
    for other in &predicates[1..] {
        error = error.label(other.span(), "this, too");
    }
    let all = match predicates.len() {
        1 => format!("`{}`", first.name()),
        _ => "these".to_owned(),
    };
    node.fail(error.help(format!(
        "put {all} into an acl, as acl \"mine\" {{ {} … }}, and name it: return if=\"mine\" {{ … }}",
        first.name()
    )));
}

type Header = (String, crate::config::model::Template, SourceSpan);

fn header(mut node: Node<'_>) -> Option<Header> {
    let span = node.span();
    let name = node.argument("the header's name");
    let name = name.and_then(|value| {
        let name = header::editable_header(&value)?;
        reserved::of_tenant(&value, &name, Phase::Rule)?;
        if name == "content-type" {
            return value.fail(
                "the type of the content is said with it",
                "not here",
                "write content-type=\"…\" behind `body` or `file`",
            );
        }
        Some(name)
    });
    let value = node.argument("the header's value");
    let value = value.and_then(|value| header::header_template(&value, Phase::Rule));
    node.finish();
    Some((name?, value?, span))
}

fn response_content(scope: &Scope<'_>, block: &mut Block<'_>) -> Option<(Content, Option<SourceSpan>)> {
    let mut contents = block.any(&["body", "file"]).into_iter();
    let Some(mut node) = contents.next() else {
        return Some((Content::Empty, None));
    };
    let span = node.span();
    for other in contents {
        let error = ConfigError::new(Code::Conflict, "a response has one content");
        let error = error.label(other.span(), "a second one").label(span, "the first");
        other.fail(error.help("one of them has to go"));
    }
    let is_file = node.name() == "file";
    let value = node.argument(if is_file { "the file's path" } else { "the content" });
    let content_type = node.property("content-type").map(|value| content_type(&value));
    node.finish();
    if is_file && scope.ctx.folder(span).is_some() {
        let error = ConfigError::new(Code::Unknown, "a tenant's file sends no other file");
        let error = error.label(span, "what is sent stands in the tenant's own text");
        scope
            .ctx
            .report(error.help("write the content itself, as body \"…\" content-type=\"text/html\""));
        return None;
    }
    let content = if is_file {
        let path = value?.text()?;
        let known = media_type(Path::new(path));
        Content::File {
            path: value?.at(scope.ctx.path(path)),
            content_type: super::or_none(content_type)?.unwrap_or_else(|| known.unwrap_or(UNKNOWN_TYPE).to_owned()),
        }
    } else {
        let value = value?;
        let parts = variables::parts(&value, value.any_text()?, Phase::Rule)?;
        let content_type = super::or_none(content_type)?.unwrap_or_else(|| TEXT_TYPE.to_owned());
        let place = content::place(&value, &parts, &content_type)?;
        let text = template::of(&value, &parts)?;
        let length: usize = text.texts().map(str::len).sum();
        if length > MAX_BODY {
            let help = "put it into a file, and name that with `file`";
            return value.fail(
                format!("a `body` has at most {} KiB", MAX_BODY >> 10),
                "longer than that",
                help,
            );
        }
        Content::Text {
            text,
            content_type,
            place,
        }
    };
    Some((content, Some(span)))
}

fn content_type(value: &Value<'_>) -> Option<String> {
    let text = header::header_value(value)?;
    let kind = text.split(';').next().unwrap_or_default().trim();
    match kind.split_once('/') {
        Some((kind, sub)) if is_token(kind) && is_token(sub) => Some(text),
        _ => value.fail(
            "this is not a media type",
            "lacks its two parts",
            "write it as \"text/html; charset=utf-8\"",
        ),
    }
}

/// What a file's content is, by its extension; none for one that is not known.
pub(super) fn media_type(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    MEDIA_TYPES
        .iter()
        .find(|(known, _)| *known == extension)
        .map(|(_, media)| *media)
}

/// A whole number of a status.
pub(super) fn number(value: &Value<'_>, low: u64, high: u64) -> Option<u16> {
    value.integer(low..=high).and_then(|status| u16::try_from(status).ok())
}

fn http_only(node: &Node<'_>, acls: &Acls<'_>) {
    if acls.setting.mode == Mode::Tcp {
        let error = ConfigError::new(Code::Mode, format!("`{}` needs HTTP mode", node.name()));
        let mut error = error.label(node.span(), "answers a request");
        if let Some(mode) = acls.setting.mode_span {
            error = error.label(mode, "the mode is TCP because of this");
        }
        node.fail(error.help("in TCP mode a connection can be closed, with `deny`"));
    }
}

/// What stands behind `body` is a text, unless it says what else it is.
const TEXT_TYPE: &str = "text/plain; charset=utf-8";
/// RFC 2046, section 4.5.1: what is not known is bytes.
const UNKNOWN_TYPE: &str = "application/octet-stream";
/// Files that are served in place of a server's answers.
const MEDIA_TYPES: &[(&str, &str)] = &[
    ("css", "text/css; charset=utf-8"),
    ("gif", "image/gif"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("pem", "application/x-pem-file"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain; charset=utf-8"),
    ("webp", "image/webp"),
    ("xml", "application/xml"),
];

const DEFAULT_DENY_STATUS: u16 = 403;
const DEFAULT_RETURN_STATUS: u16 = 200;
/// Written for every response.
const MAX_HEADERS: usize = 32;
/// What is longer is easier to keep in a file.
const MAX_BODY: usize = 64 << 10;

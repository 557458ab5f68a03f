//! `request { … }` and `response { … }`: edits of heads.

use miette::SourceSpan;

use super::acls::Acls;
use super::header::{check_characters, editable_header, header_template};
use super::regexes::replace;
use super::template::{When, template};
use super::{check_http, condition, elsewhere, reserved, target};
use crate::authority::is_authority;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    Condition, Conditional, EditCondition, HeaderName, HeaderReplace, HeaderValue, MAX_CALL_EDITS, MAX_EDIT_BYTES,
    RequestEdit, ResponseEdit, StatusSet, Template, Written,
};
use crate::config::reader::{Context, Node, clip};
use crate::config::units;

/// Reads a section's `request { … }`.
pub(super) fn request(node: Option<Node<'_>>, acls: &Acls<'_>) -> Vec<Conditional<RequestEdit>> {
    let names = match node.as_ref().is_some_and(|node| node.ctx.is_in_tenant()) {
        true => HEADER_EDITS,
        false => REQUEST_EDITS,
    };
    read(node, acls, names, |node, touched| match node.name() {
        "set-path" => target::set_path(node).map(RequestEdit::SetPath),
        "rewrite-path" => target::rewrite_path(node).map(RequestEdit::RewritePath),
        "add-prefix" => target::add_prefix(node).map(RequestEdit::AddPrefix),
        "strip-prefix" => target::strip_prefix(node).map(RequestEdit::StripPrefix),
        "set-query" => target::set_query(node).map(RequestEdit::SetQuery),
        "rewrite-query" => target::rewrite_query(node).map(RequestEdit::RewriteQuery),
        "set-query-param" => target::set_query_param(node).map(RequestEdit::SetQueryParam),
        "delete-query-param" => target::query_param(node).map(RequestEdit::DeleteQueryParam),
        "set-host" => set_host(node, touched).map(RequestEdit::SetHost),
        _ => header_edit(node, touched, When::Request).map(RequestEdit::from),
    })
}

/// Reads a section's `response { … }`.
pub(super) fn response(node: Option<Node<'_>>, acls: &Acls<'_>) -> Vec<Conditional<ResponseEdit>> {
    read(node, acls, RESPONSE_EDITS, |node, touched| match node.name() {
        "rewrite-location" => target::rewrite_location(node),
        "set-status" => target::set_status(node).map(ResponseEdit::SetStatus),
        _ => header_edit(node, touched, When::Response).map(ResponseEdit::from),
    })
}

fn read<E>(
    node: Option<Node<'_>>,
    acls: &Acls<'_>,
    names: &[&'static str],
    mut edit: impl FnMut(&mut Node<'_>, &mut Vec<Touched>) -> Option<E>,
) -> Vec<Conditional<E>> {
    let Some(mut node) = node else { return Vec::new() };
    let block = node.required_block();
    let (ctx, span) = (node.ctx, node.span());
    node.finish();
    let Some(mut block) = block else { return Vec::new() };
    let mut edits = Vec::new();
    let mut touched = Vec::new();
    let mut well = 0;
    for mut node in block.any(names) {
        let before = touched.len();
        let edit = edit(&mut node, &mut touched);
        let when = when(&mut node, acls);
        let (statuses, always) = match names == RESPONSE_EDITS {
            true => (node.property("if-status"), node.flag("always")),
            false => {
                node.hints(of_responses);
                (None, None)
            }
        };
        if let Some(always) = always {
            check_always(&node, always);
            touched[before..].iter_mut().for_each(|edit| edit.is_always = true);
        }
        let statuses = statuses.map(|value| check_http::statuses(&value).map(|ranges| StatusSet::of(&ranges)));
        if when != Some(None) || statuses.is_some() {
            // What is not always done overrides nothing.
            touched[before..].iter_mut().for_each(|edit| edit.overrides = false);
        }
        node.finish();
        if let (Some(edit), Some(when), Some(statuses)) = (edit, when, super::or_none(statuses)) {
            well += 1;
            // Those beyond are reported: nobody goes through them any more.
            if well <= MAX_EDITS {
                edits.push(Conditional {
                    edit,
                    when,
                    statuses,
                    is_always: always.is_some(),
                });
            }
        }
    }
    block.finish(|name| match name {
        name if ctx.is_in_tenant() && names == HEADER_EDITS && REQUEST_EDITS.contains(&name) => {
            Some("a tenant edits headers of requests: what the operator's rules go by is the operator's to change")
        }
        name if REQUEST_EDITS.contains(&name) => Some("this edits requests: it stands in `request { … }`"),
        name if RESPONSE_EDITS.contains(&name) => Some("this edits responses: it stands in `response { … }`"),
        name => elsewhere(name),
    });
    report_overridden(ctx, &touched);
    report_too_many(ctx, span, well);
    edits
}

/// What an edit of a request cannot say, since it has no response yet.
fn of_responses(word: &str) -> Option<&'static str> {
    Some(match word {
        "if-status" => "it is for edits of responses, whose status it asks for: write the edit in `response { … }`",
        "always" => {
            "it is for edits of responses, those of the gateway's own answers, too: write the edit in `response { … }`"
        }
        _ => return None,
    })
}

/// Which conditions hold is told to the component in the bits of a number.
pub(super) fn report_too_many_conditions(
    ctx: &Context<'_>,
    (section, span): (&str, SourceSpan),
    request: &[Conditional<RequestEdit>],
    response: &[Conditional<ResponseEdit>],
) {
    let request = request.iter().filter_map(Conditional::condition);
    let response = response.iter().filter_map(Conditional::condition);
    let mut different: Vec<EditCondition> = Vec::new();
    for condition in request.chain(response) {
        if !different.contains(&condition) {
            different.push(condition);
        }
        // Each is compared with all before it: not with more than there may be.
        if different.len() > MAX_CONDITIONS {
            break;
        }
    }
    if different.len() > MAX_CONDITIONS {
        let message = format!("the edits of a {section} have at most {MAX_CONDITIONS} different conditions");
        let error = ConfigError::new(Code::Value, message).label(span, "has more");
        ctx.report(error.help("let an acl ask for what several of them ask, or let a plugin make the edits"));
    }
}

/// What the gateway answers by itself keeps its status, which lines tell.
fn check_always(node: &Node<'_>, always: SourceSpan) {
    if node.name() == "set-status" {
        let error = ConfigError::new(Code::Value, "what the gateway answers by itself keeps its status");
        let error = error.label(always, "also of what the gateway answers");
        node.fail(error.help("leave it out; `deny` and `return` say theirs with `status=`"));
    }
}

/// Reports a section whose edits of a kind of message come to more than one call of a component may: the component would refuse them.
pub(super) fn report_too_much(
    ctx: &Context<'_>,
    at: SourceSpan,
    message: &str,
    written: Written,
    led: Option<SourceSpan>,
) -> bool {
    if written.fits() {
        return false;
    }
    let (error, come_to) = if written.bytes > MAX_EDIT_BYTES {
        let most = units::show_size(MAX_EDIT_BYTES as u64);
        (
            format!("edits write at most {most} into a {message}"),
            format!("{} bytes", written.bytes),
        )
    } else {
        (
            format!("edits change at most {MAX_CALL_EDITS} fields of a {message}"),
            format!("{} changes", written.edits),
        )
    };
    let error = ConfigError::new(Code::Value, error);
    let error = match led {
        None => error.label(at, format!("these come to {come_to} in one")),
        Some(frontend) => error
            .label(at, format!("{come_to} in one with those of the frontend"))
            .label(frontend, "which leads here"),
    };
    ctx.report(error.help(
        "write less, or let a plugin write it: where one edit of a field has a condition, there is room kept for all of that field",
    ));
    true
}

/// The condition of an edit; none in none when there is no condition, none when it could not be read.
#[allow(clippy::option_option)]
fn when(node: &mut Node<'_>, acls: &Acls<'_>) -> Option<Option<Condition>> {
    match condition::when(node, acls) {
        condition::When::Always => Some(None),
        condition::When::If(when) => when.map(Some),
    }
}

/// An edit of one header, of either kind of message.
enum HeaderEdit {
    Set(HeaderValue),
    Add(HeaderValue),
    Delete(HeaderName),
    Replace(HeaderReplace),
}

impl From<HeaderEdit> for RequestEdit {
    fn from(edit: HeaderEdit) -> Self {
        match edit {
            HeaderEdit::Set(edit) => Self::SetHeader(edit),
            HeaderEdit::Add(edit) => Self::AddHeader(edit),
            HeaderEdit::Delete(edit) => Self::DeleteHeader(edit),
            HeaderEdit::Replace(edit) => Self::ReplaceHeader(edit),
        }
    }
}

impl From<HeaderEdit> for ResponseEdit {
    fn from(edit: HeaderEdit) -> Self {
        match edit {
            HeaderEdit::Set(edit) => Self::SetHeader(edit),
            HeaderEdit::Add(edit) => Self::AddHeader(edit),
            HeaderEdit::Delete(edit) => Self::DeleteHeader(edit),
            HeaderEdit::Replace(edit) => Self::ReplaceHeader(edit),
        }
    }
}

/// An edit that has been read: which header, where, and whether it forgets what earlier ones did.
struct Touched {
    name: String,
    span: SourceSpan,
    overrides: bool,
    /// It is also made of what the gateway answers by itself.
    is_always: bool,
}

fn header_edit(node: &mut Node<'_>, touched: &mut Vec<Touched>, phase: When) -> Option<HeaderEdit> {
    let kind = node.name();
    let value = node.argument("the header's name");
    let name = value.and_then(|value| {
        let name = editable_header(&value)?;
        reserved::of_tenant(&value, &name, phase)?;
        if phase == When::Request {
            reserved::note_of_trace(&value, &name);
        }
        Some(name)
    });
    let edit = match kind {
        "set-header" | "add-header" => {
            let value = node
                .argument("the header's value")
                .and_then(|value| header_template(&value, phase));
            let edit = HeaderValue {
                name: name.clone()?,
                value: value?,
            };
            match kind {
                "set-header" => HeaderEdit::Set(edit),
                _ => HeaderEdit::Add(edit),
            }
        }
        "delete-header" => HeaderEdit::Delete(HeaderName { name: name.clone()? }),
        _ => {
            let (replace, to) = replace(node, phase)?;
            // What a capture brings was in the header already; what is written here has to be able to be there.
            replace.to.texts().try_for_each(|text| check_characters(&to, text))?;
            HeaderEdit::Replace(HeaderReplace {
                name: name.clone()?,
                replace,
            })
        }
    };
    touched.push(Touched {
        name: name?,
        span: value?.span(),
        overrides: matches!(edit, HeaderEdit::Set(_) | HeaderEdit::Delete(_)),
        is_always: false,
    });
    Some(edit)
}

/// `set-host "app.internal:8080"`.
fn set_host(node: &mut Node<'_>, touched: &mut Vec<Touched>) -> Option<Template> {
    let value = node.argument("the host")?;
    touched.push(Touched {
        name: "host".to_owned(),
        span: value.span(),
        overrides: true,
        is_always: false,
    });
    let host = template(&value, When::Request)?;
    match host.as_plain() {
        Some(text) if text.is_empty() || !is_authority(text.as_bytes()) => value.fail(
            format!("{:?} is not a host", clip(text)),
            "has what a host cannot have",
            "write a name or an address, and a port where it is not the scheme's own: \"app.internal:8080\"",
        ),
        _ => Some(host),
    }
}

/// An edit that a later one in the same block undoes has no effect.
fn report_overridden(ctx: &Context<'_>, touched: &[Touched]) {
    let touched = &touched[..touched.len().min(MAX_EDITS)];
    for (i, edit) in touched.iter().enumerate() {
        let mut later = touched[i + 1..].iter();
        let covers = |later: &&Touched| later.is_always || !edit.is_always;
        if let Some(last) = later.find(|later| later.overrides && later.name == edit.name && covers(later)) {
            let error = ConfigError::new(Code::Inert, format!("this edit of `{}` has no effect", edit.name));
            let error = error
                .label(edit.span, "edited here")
                .label(last.span, "and overridden here");
            ctx.report(error.help("one of them has to go"));
        }
    }
}

fn report_too_many(ctx: &Context<'_>, span: SourceSpan, edits: usize) {
    if edits > MAX_EDITS {
        let error = ConfigError::new(Code::Value, format!("a block has at most {MAX_EDITS} edits"));
        ctx.report(error.label(span, format!("has {edits}")).help("let a plugin make them"));
    }
}

/// What can be edited of a request, and how.
const REQUEST_EDITS: &[&str] = &[
    "set-header",
    "add-header",
    "delete-header",
    "replace-header",
    "set-path",
    "rewrite-path",
    "add-prefix",
    "strip-prefix",
    "set-query",
    "rewrite-query",
    "set-query-param",
    "delete-query-param",
    "set-host",
];
/// What a tenant may edit of a request.
const HEADER_EDITS: &[&str] = &["set-header", "add-header", "delete-header", "replace-header"];
/// What can be edited of a response, and how.
const RESPONSE_EDITS: &[&str] = &[
    "set-header",
    "add-header",
    "delete-header",
    "replace-header",
    "rewrite-location",
    "set-status",
];

/// As many as an exchange has bits for them.
pub(super) const MAX_CONDITIONS: usize = 64;
/// Edits of one block. Those of a frontend and a backend are made in one call, in which the host takes 128.
const MAX_EDITS: usize = 60;
/// Edits of all blocks of one kind that are made in one call.
pub(super) const MAX_EDITS_TOGETHER: usize = 2 * MAX_EDITS;

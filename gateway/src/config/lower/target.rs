//! Edits of what is asked for, and of where a response says it is: paths, queries, Location, the status.

use super::parameter::Place;
use super::regexes;
use super::rules::number;
use super::template::{When, template};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{LocationChange, QueryParam, Replace, ReplaceFrom, ResponseEdit, Template};
use crate::config::reader::{Node, Value};

/// `set-path "/maintenance"`
pub(super) fn set_path(node: &mut Node<'_>) -> Option<Template> {
    path(&node.argument("the path")?)
}

/// `add-prefix "/api"`
pub(super) fn add_prefix(node: &mut Node<'_>) -> Option<Template> {
    let value = node.argument("what comes before the path")?;
    let prefix = path(&value)?;
    if prefix.as_plain().is_some_and(|text| text.ends_with('/')) {
        return value.fail(
            "the path behind it begins with `/` already",
            "ends with one",
            "leave the last slash out",
        );
    }
    Some(prefix)
}

/// `strip-prefix "/api"`
pub(super) fn strip_prefix(node: &mut Node<'_>) -> Option<String> {
    let value = node.argument("what the path begins with")?;
    let text = value.text()?;
    check_path(&value, text)?;
    if !text.starts_with('/') || text.ends_with('/') {
        return value.fail(
            "whole segments are stripped, from the first slash on",
            "not the beginning of a path and whole segments",
            "write it with its first slash and without one at the end, as \"/api\"",
        );
    }
    Some(text.to_owned())
}

/// `rewrite-path prefix="/old/" to="/new/"`, or `regex=`.
pub(super) fn rewrite_path(node: &mut Node<'_>) -> Option<Replace> {
    let (replace, to) = regexes::replace(node, When::Request)?;
    let prefix = match &replace.from {
        ReplaceFrom::Prefix(prefix) => Some(prefix),
        ReplaceFrom::Regex(_) => None,
    };
    if prefix.is_some_and(|prefix| !prefix.starts_with('/')) {
        return to.fail(
            "a path begins with `/`",
            "the prefix before this does not",
            "write the prefix from its first slash",
        );
    }
    if prefix.is_some() && replace.to.start().is_none_or(|start| !start.starts_with('/')) {
        return to.fail(
            "a path begins with `/`",
            "this does not",
            "write the new path from its first slash",
        );
    }
    replace.to.texts().try_for_each(|text| check_path(&to, text))?;
    check_encoding(&to, &replace.to)?;
    Some(replace)
}

/// `set-query "a=b"`
pub(super) fn set_query(node: &mut Node<'_>) -> Option<Template> {
    let value = node.argument("the query")?;
    let query = template(&value, When::Request)?;
    query.texts().try_for_each(|text| check_query(&value, text))?;
    if query.start().is_some_and(|start| start.starts_with('?')) {
        return value.fail("a query begins behind the `?`", "begins with it", "leave the `?` out");
    }
    check_values(&value, &query)?;
    Some(query)
}

/// `rewrite-query prefix="a=" to="b="`, or `regex=`.
pub(super) fn rewrite_query(node: &mut Node<'_>) -> Option<Replace> {
    let (replace, to) = regexes::replace(node, When::Request)?;
    replace.to.texts().try_for_each(|text| check_query(&to, text))?;
    check_values(&to, &replace.to)?;
    Some(replace)
}

/// `set-query-param "v" "2"`
pub(super) fn set_query_param(node: &mut Node<'_>) -> Option<QueryParam> {
    let name = query_param(node);
    let value = node.argument("the parameter's value");
    let value = value.and_then(|value| {
        let template = template(&value, When::Request)?;
        check_encoding(&value, &template)?;
        Some(template)
    });
    Some(QueryParam {
        name: name?,
        value: value?,
    })
}

/// A parameter's name.
pub(super) fn query_param(node: &mut Node<'_>) -> Option<String> {
    node.argument("the parameter's name")?.text().map(str::to_owned)
}

/// `rewrite-location prefix= to=`, `regex= to=`, or `scheme=` and `host=`.
pub(super) fn rewrite_location(node: &mut Node<'_>) -> Option<ResponseEdit> {
    let (scheme, host) = (node.property("scheme"), node.property("host"));
    let Some(first) = scheme.or(host) else {
        let (replace, to) = regexes::replace(node, When::Response)?;
        let is_plain = |text: &str| !text.chars().any(char::is_control);
        if !replace.to.texts().all(is_plain) {
            return to.fail(
                "this cannot be in a Location",
                "has a control character",
                "leave it out",
            );
        }
        return Some(ResponseEdit::RewriteLocation(replace));
    };
    let others = ["prefix", "regex", "to"].map(|key| node.hidden_property(key));
    if let Some(other) = others.into_iter().flatten().next() {
        let error = ConfigError::new(Code::Conflict, "`rewrite-location` changes Location in two ways");
        let error = error.label(other.span(), "this").label(first.span(), "and this");
        node.fail(error.help("write a node for each"));
        return None;
    }
    let scheme = scheme.map(|value| value.choice(&[("http", "http"), ("https", "https")]));
    let host = host.map(|value| {
        let text = value.text()?;
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if !text.bytes().all(is_host) {
            return value.fail(
                "this is not a host",
                "has characters that a host cannot have",
                "write a name, with a port behind a colon where it needs one",
            );
        }
        Some(text.to_owned())
    });
    Some(ResponseEdit::MoveLocation(LocationChange {
        scheme: super::or_none(scheme)?,
        host: super::or_none(host)?,
    }))
}

/// `set-status 404`
pub(super) fn set_status(node: &mut Node<'_>) -> Option<u16> {
    let value = node.argument("the status")?;
    match number(&value, 200, 599)? {
        204 | 205 | 304 => value.fail(
            "a response with this status has no content, and the server's may have some",
            "cannot be set",
            "take another status",
        ),
        status => Some(status),
    }
}

fn path(value: &Value<'_>) -> Option<Template> {
    value.text()?;
    let path = template(value, When::Request)?;
    path.texts().try_for_each(|text| check_path(value, text))?;
    check_encoding(value, &path)?;
    if path.start().is_none_or(|start| !start.starts_with('/')) {
        return value.fail(
            "a path begins with `/`",
            "this does not",
            "write it from its first slash",
        );
    }
    Some(path)
}

fn check_path(value: &Value<'_>, text: &str) -> Option<()> {
    let is_wrong = |c: char| matches!(c, '?' | '#' | '<' | '>' | '`') || !c.is_ascii_graphic();
    if text.chars().any(is_wrong) {
        let help = "write `?`, `#`, `<`, `>`, backticks, spaces and what is not ASCII percent-encoded, as %3F or %20";
        return value.fail(
            "this cannot be part of a path",
            "has a character that cannot be there",
            help,
        );
    }
    Some(())
}

/// What a client sent is encoded here as its place wants it, without being told to.
fn check_encoding(value: &Value<'_>, template: &Template) -> Option<()> {
    if template.has_url_encoded() {
        return value.fail(
            "variables in a path or a query are percent-encoded anyway",
            "would be encoded twice",
            "leave `|url-encode` out, and write a parameter as `set-query-param \"from\" \"%{uri}\"`",
        );
    }
    Some(())
}

/// No value of a parameter may have more parameters in it.
fn check_values(value: &Value<'_>, query: &Template) -> Option<()> {
    check_encoding(value, query)?;
    match Place::Name.first_bare(query) {
        Some(name) => value.fail(
            format!("a client's `&` would make further parameters of this `{name}`"),
            "is written as the client sent it",
            format!("write `set-query-param \"from\" \"%{{{name}}}\"`, which encodes it, behind what sets the rest of the query"),
        ),
        None => Some(()),
    }
}

fn check_query(value: &Value<'_>, text: &str) -> Option<()> {
    let is_wrong = |c: char| matches!(c, '#' | '<' | '>' | '"' | '`') || !c.is_ascii_graphic();
    if text.chars().any(is_wrong) {
        let help = "write `#`, `<`, `>`, quotes, spaces and what is not ASCII percent-encoded, as %23 or %20";
        return value.fail(
            "this cannot be part of a query",
            "has a character that cannot be there",
            help,
        );
    }
    Some(())
}

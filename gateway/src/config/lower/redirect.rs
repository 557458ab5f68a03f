//! `redirect scheme="https" code=301 unless="tls"`.

use regex::bytes::Regex;

use super::parameter;
use super::regexes;
use super::template::{When, template};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{LocationPart, Matched, Redirect, RedirectTo, Scheme, Template, TemplatePart};
use crate::config::reader::{Node, Value};
use crate::config::token::is_token;

/// Reads where a redirect leads. Its condition is read by the caller, as is `regex=`, which is one.
pub(super) fn redirect(node: &mut Node<'_>, regex: Option<Value<'_>>) -> Option<Redirect> {
    let scheme = node.property("scheme");
    let host = node.property("host");
    let port = node.property("port");
    let prefix = node.property("prefix");
    let location = node.property("location");
    let code = node.property("code");
    let set_cookie = node.property("set-cookie");
    let drop_query = node.flag("drop-query");
    let keep_query = node.flag("keep-query");
    if let Some(status) = node.hidden_property("status") {
        let error = ConfigError::new(Code::Unknown, "`redirect` has no property `status`");
        node.fail(
            error
                .label(status.span(), "unknown property")
                .help("write `code=`, as HAProxy does"),
        );
    }
    let authority = scheme.or(host).or(port);
    let mut kinds = [
        authority.map(|value| ("authority", value)),
        prefix.map(|value| ("prefix", value)),
        location.map(|value| ("location", value)),
    ]
    .into_iter()
    .flatten();
    let Some((kind, first)) = kinds.next() else {
        let error = ConfigError::new(Code::Missing, "this redirect leads nowhere");
        let error = error.label(node.span(), "lacks where to");
        node.fail(error.help("write `scheme=`, `host=` and `port=`, or `prefix=`, or `location=`"));
        return None;
    };
    if let Some((_, second)) = kinds.next() {
        let error = ConfigError::new(Code::Conflict, "this redirect leads to two places");
        let error = error.label(second.span(), "this").label(first.span(), "and this");
        node.fail(error.help("one of them has to go; `scheme=`, `host=` and `port=` can stand together"));
        return None;
    }
    if let Some(regex) = regex.filter(|_| kind != "location") {
        let error = ConfigError::new(Code::Conflict, "`regex=` needs `location=`");
        let error = error
            .label(first.span(), "keeps the path as it is")
            .label(regex.span(), "this is about what takes its place");
        node.fail(
            error.help("write `location=\"https://www.example.net/new/$1\"`, or ask with `path-regex` in a block"),
        );
        return None;
    }
    let (flag, name, why) = match kind {
        "location" => (
            drop_query,
            "drop-query",
            "a `location=` is sent without the request's query anyway",
        ),
        _ => (
            keep_query,
            "keep-query",
            "the query is kept unless `drop-query` is there",
        ),
    };
    if let Some(flag) = flag {
        let error = ConfigError::new(Code::Inert, format!("`{name}` does nothing here"));
        node.fail(error.label(flag, why).help("leave it out"));
    }
    let to = match kind {
        "authority" => {
            let scheme = super::or_none(scheme.map(|value| value.choice(SCHEMES)))?;
            let host = super::or_none(host.map(|value| self::host(&value)))?;
            let port = port.map(|value| value.integer(1..=65535).and_then(|port| u16::try_from(port).ok()));
            RedirectTo::Authority {
                scheme,
                host,
                port: super::or_none(port)?,
            }
        }
        "prefix" => RedirectTo::Prefix(self::prefix(&prefix?)?),
        _ => match regex {
            Some(regex) => RedirectTo::Matched(captured(&regex, &location?)?),
            None => RedirectTo::Location(location_of(&location?)?),
        },
    };
    let code = match code {
        Some(value) => code_of(&value),
        None => Some(DEFAULT_CODE),
    };
    let set_cookie = set_cookie.map(|value| cookie(&value));
    Some(Redirect {
        keeps_query: match to {
            RedirectTo::Location(_) | RedirectTo::Matched(_) => keep_query.is_some(),
            _ => drop_query.is_none(),
        },
        to,
        code: code?,
        set_cookie: super::or_none(set_cookie)?,
    })
}

/// `www.example.net`, `www.example.net:8443`, `[2001:db8::1]`, `%{host}`.
fn host(value: &Value<'_>) -> Option<Template> {
    value.text()?;
    let host = template(value, When::Rule)?;
    let is_fine = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]~".contains(&byte))
    };
    if !host.texts().all(is_fine) {
        return value.fail(
            "this is not a host",
            "has characters that a host cannot have",
            "write a name as \"www.example.net\", with a port behind a colon where it needs one",
        );
    }
    Some(host)
}

/// What the request's path follows.
fn prefix(value: &Value<'_>) -> Option<Template> {
    let prefix = place(value)?;
    if prefix.texts().any(|text| text.contains(['?', '#'])) {
        return value.fail(
            "the request's path follows a prefix",
            "its query has begun here",
            "write `location=` with the path as a parameter: location=\"/login?from=%{uri}\"",
        );
    }
    Some(prefix)
}

/// The place itself. What a client's request stands for as the value of a parameter becomes no further parameters.
fn location_of(value: &Value<'_>) -> Option<Template> {
    let mut location = place(value)?;
    parameter::Place::Path.encode(&mut location);
    Some(location)
}

/// A URI or an absolute path: with a scheme, or beginning with one slash.
fn place(value: &Value<'_>) -> Option<Template> {
    value.text()?;
    let place = template(value, When::Rule)?;
    check_place(value, place.texts(), place.start())?;
    Some(place)
}

/// The same with captures. None of them stands where it could choose the host.
fn captured(pattern: &Value<'_>, value: &Value<'_>) -> Option<Matched> {
    let regex = regexes::regex(pattern)?;
    let text = value.text()?;
    let place = template(value, When::Rule)?;
    regexes::check_captures(value, text, &regex)?;
    let location = with_captures(place, &regex);
    let texts = location.iter().filter_map(|part| match part {
        LocationPart::Text(text) => Some(text),
        LocationPart::Capture { .. } => None,
    });
    let mut before = String::new();
    let mut has_capture = false;
    for part in &location {
        let LocationPart::Text(text) = part else {
            has_capture = true;
            break;
        };
        for part in &text.0 {
            match part {
                TemplatePart::Text(text) => before.push_str(text),
                // Whatever it stands for, it ends no host.
                _ => before.push('x'),
            }
        }
    }
    let start = match location.first() {
        None => Some(""),
        Some(LocationPart::Text(text)) => text.start(),
        Some(LocationPart::Capture { .. }) => None,
    };
    check_place(value, texts.flat_map(Template::texts), start)?;
    if has_capture && !is_in_path(&before) {
        return value.fail(
            "a capture stands behind the host and its slash",
            "a client's path would choose where this leads",
            "write it as \"/new/$1\" or \"https://www.example.net/new/$1\"",
        );
    }
    Some(Matched {
        regex: pattern.text()?.to_owned(),
        location,
    })
}

/// Takes a text apart in which every dollar is one of a capture, or doubled. What stands as the value of a parameter becomes no further
/// parameters.
fn with_captures(text: Template, regex: &Regex) -> Vec<LocationPart> {
    let mut parts = Vec::new();
    let mut now = Template::default();
    let push = |now: &mut Template, text: &str| match now.0.last_mut() {
        _ if text.is_empty() => {}
        Some(TemplatePart::Text(before)) => before.push_str(text),
        _ => now.0.push(TemplatePart::Text(text.to_owned())),
    };
    for part in text.0 {
        let TemplatePart::Text(text) = &part else {
            now.0.push(part);
            continue;
        };
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            push(&mut now, before);
            if let Some(after) = after.strip_prefix('$') {
                push(&mut now, "$");
                rest = after;
                continue;
            }
            let (name, length) = regexes::capture_name(after);
            if !now.0.is_empty() {
                parts.push(LocationPart::Text(std::mem::take(&mut now)));
            }
            let capture = regexes::capture(name, regex);
            parts.extend(capture.map(|number| LocationPart::Capture {
                number,
                is_value: false,
            }));
            rest = &after[length..];
        }
        push(&mut now, rest);
    }
    if !now.0.is_empty() {
        parts.push(LocationPart::Text(now));
    }
    let mut place = parameter::Place::Path;
    for part in &mut parts {
        match part {
            LocationPart::Text(text) => place = place.encode(text),
            LocationPart::Capture { is_value, .. } => *is_value = place == parameter::Place::Value,
        }
    }
    parts
}

/// Whether what follows this belongs to a path, a query or a fragment.
fn is_in_path(before: &str) -> bool {
    if before.starts_with('/') {
        return true;
    }
    let host = before.split_once("://").filter(|_| has_scheme(before));
    host.and_then(|(_, host)| host.find('/')).is_some_and(|slash| slash > 0)
}

/// `texts` is all that is written there, `start` what it begins with, where that is written.
fn check_place<'t>(value: &Value<'_>, texts: impl Iterator<Item = &'t str>, start: Option<&str>) -> Option<()> {
    let is_fine = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}');
    if let Some(wrong) = texts.flat_map(str::chars).find(|c| !is_fine(*c)) {
        return value.fail(
            "this cannot be part of a URI",
            format!("has {wrong:?} in it"),
            "write it percent-encoded, as %20",
        );
    }
    match start {
        Some(start) if start.starts_with("//") => value.fail(
            "what begins with `//` is read as a host",
            "would lead elsewhere",
            "write the scheme before it, or one slash",
        ),
        Some(start) if !start.starts_with('/') && !has_scheme(start) => value.fail(
            "a redirect leads to a URI with its scheme, or to a path",
            "neither of them",
            "write it as \"https://www.example.net/new\" or \"/new\"",
        ),
        _ => Some(()),
    }
}

fn has_scheme(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else {
        return false;
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn code_of(value: &Value<'_>) -> Option<u16> {
    let code = value.integer(300..=399)?;
    let help = "301 and 308 are kept by browsers, for good; 302 and 307 are not; 303 is asked for with GET; 307 and 308 \
                keep the method";
    match code {
        301 | 302 | 303 | 307 | 308 => u16::try_from(code).ok(),
        _ => value.fail("`code` has to be 301, 302, 303, 307 or 308", "no redirect's code", help),
    }
}

/// `name=value`, or `name` alone.
fn cookie(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let (name, rest) = text.split_once('=').unwrap_or((text, ""));
    // RFC 6265, section 4.1.1.
    let is_octet = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\');
    if !is_token(name) || !rest.bytes().all(is_octet) {
        return value.fail(
            "this is not a cookie",
            "has characters that it cannot have",
            "write it as \"seen=1\" (RFC 6265, section 4.1.1)",
        );
    }
    Some(format!("{name}={rest}"))
}

const SCHEMES: &[(&str, Scheme)] = &[("http", Scheme::Http), ("https", Scheme::Https)];

/// As HAProxy's: browsers ask again the next time, so that a mistake can be taken back.
const DEFAULT_CODE: u16 = 302;

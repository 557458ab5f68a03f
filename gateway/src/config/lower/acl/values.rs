//! What predicates compare with: lists of values in the configuration or in a file, and how each kind of value is written.

use ipnet::IpNet;
use miette::SourceSpan;

use crate::config::diagnostics::{Code, ConfigError};
use crate::config::lower::{header, or_none, regexes};
use crate::config::model::{Named, Text};
use crate::config::reader::{At, Node, Value, clip, said_twice};
use crate::config::suggest;

/// `header "x-client" "a" "b"`, or one of `prefix=`, `suffix=`, `contains=`, `regex=`, or none.
pub(super) fn named(
    node: &mut Node<'_>,
    what: &'static str,
    name: impl Fn(&Value<'_>) -> Option<String>,
) -> Option<Named> {
    let value = node.argument(what);
    let name = value.and_then(|value| name(&value));
    let value = text_test(node)?;
    Some(Named { name: name?, value })
}

/// A test of a value: those that are listed, or one of `prefix=`, `suffix=`, `regex=`; none where nothing is said of it.
#[allow(clippy::option_option)]
pub(in crate::config::lower) fn text_test(node: &mut Node<'_>) -> Option<Option<Text>> {
    let exact: Vec<Value<'_>> = node.arguments("a value");
    let matching = node.property("match");
    let mut tests = Vec::new();
    for key in ["prefix", "suffix", "contains", "regex", "file"] {
        if let Some(value) = node.property(key) {
            tests.push((key, value));
        }
    }
    let places: Vec<SourceSpan> = exact
        .first()
        .map(Value::span)
        .into_iter()
        .chain(tests.iter().map(|(_, value)| value.span()))
        .collect();
    if let [first, second, ..] = places[..] {
        let error = ConfigError::new(Code::Conflict, format!("`{}` tests its value in two ways", node.name()));
        let error = error.label(second, "this").label(first, "and this");
        node.fail(error.help("write a node for each: all nodes of a block have to hold, and `any { … }` asks for one"));
        return None;
    }
    let test = tests.pop();
    if let (Some(matching), false) = (matching, matches!(test, Some(("file", _)))) {
        let error = ConfigError::new(Code::Inert, "`match=` does nothing here");
        let error = error.label(
            matching.span(),
            "says how values of a file are compared, and there is none",
        );
        node.fail(error.help("write `file=` with it, or one of `prefix=`, `suffix=`, `contains=` and `regex=`"));
    }
    Some(match test {
        None if exact.is_empty() => None,
        None => Some(Text::Exact(distinct(exact, |value| {
            value.any_text().map(str::to_owned)
        })?)),
        Some(("file", value)) => Some(listed(&value, matching)?),
        Some(("regex", value)) => Some(Text::Regex(vec![pattern(&value)?])),
        Some(("prefix", value)) => Some(Text::Prefix(vec![value.text()?.to_owned()])),
        Some(("contains", value)) => Some(Text::Contains(vec![value.text()?.to_owned()])),
        Some((_, value)) => Some(Text::Suffix(vec![value.text()?.to_owned()])),
    })
}

/// What is made of the values of a list, as `match=` says.
type Comparison = fn(Vec<String>) -> Text;

/// `file="names.txt" match="prefix"`: how the values of a file are compared, and they.
fn listed(file: &Value<'_>, matching: Option<Value<'_>>) -> Option<Text> {
    let kinds: [(&'static str, Comparison); 5] = [
        ("exact", Text::Exact),
        ("prefix", Text::Prefix),
        ("suffix", Text::Suffix),
        ("contains", Text::Contains),
        ("regex", Text::Regex),
    ];
    let kind = or_none(matching.map(|value| value.choice(&kinds)));
    let is_regex = matching.is_some_and(|value| value.raw().as_string() == Some("regex"));
    let values = file.listed("a value", if is_regex { pattern } else { any_name });
    Some(kind?.unwrap_or(Text::Exact)(values?))
}

pub(super) fn texts(
    node: &mut Node<'_>,
    what: &'static str,
    read: impl Fn(&Value<'_>) -> Option<String>,
) -> Option<Vec<String>> {
    values(node, what, read)
}

/// At least one value, each read and none of them twice, and behind them those of `file=`, of which there may be none.
pub(in crate::config::lower) fn values<T: Ord>(
    node: &mut Node<'_>,
    what: &'static str,
    read: impl Fn(&Value<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let file = node.property("file");
    let said = match file {
        Some(_) => node.arguments(what),
        None => node.some_arguments(what),
    };
    if said.is_empty() && file.is_none() {
        return None;
    }
    let said = distinct(said, &read);
    let listed = or_none(file.map(|file| file.listed(what, &read)));
    let (mut values, listed) = (said?, listed?);
    values.extend(listed.into_iter().flatten());
    Some(values)
}

pub(in crate::config::lower) fn distinct<T: PartialEq>(
    values: Vec<Value<'_>>,
    read: impl Fn(&Value<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut list: Vec<At<T>> = Vec::with_capacity(values.len());
    let mut well = true;
    for value in values {
        let Some(read) = read(&value) else {
            well = false;
            continue;
        };
        // Quadratic, so only where that is nothing: longer lists come from machines.
        let again = if list.len() < MAX_COMPARED {
            list.iter().find(|first| first.value == read)
        } else {
            None
        };
        if let Some(first) = again {
            value
                .context()
                .report(said_twice("this value", first.span, value.span()));
        }
        list.push(value.at(read));
    }
    well.then(|| list.into_iter().map(|at| at.value).collect())
}

pub(super) fn path(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if !text.starts_with('/') {
        return value.fail(
            "a path begins with `/`",
            "this does not",
            format!("write \"/{}\"", clip(text)),
        );
    }
    path_end(value)
}

pub(super) fn path_end(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.contains('?') {
        return value.fail(
            "the path ends before the `?`",
            "never part of a path",
            "write the query with `query`",
        );
    }
    if text.chars().any(|c| c == '#' || c.is_whitespace() || c.is_control()) {
        let help = "paths are compared as they are sent, so write it percent-encoded, as %20";
        return value.fail("no path has this in it", "a character that cannot be there", help);
    }
    Some(text.to_owned())
}

pub(super) fn pattern(value: &Value<'_>) -> Option<String> {
    regexes::regex(value)?;
    value.text().map(str::to_owned)
}

pub(super) fn any_name(value: &Value<'_>) -> Option<String> {
    value.text().map(str::to_owned)
}

/// A host name or a pattern `*.example.net`, lower-case.
pub(in crate::config::lower) fn host(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let (star, name) = match text.strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", text),
    };
    let help = "write a name as \"www.example.net\", or a pattern as \"*.example.net\"";
    if let Some((_, rest)) = name.split_once("://") {
        let host = rest.split(['/', ':', '?']).next().unwrap_or_default();
        return value.fail("a host is no URL", "this is one", format!("write {:?}", clip(host)));
    }
    if name.contains('*') {
        return value.fail("a pattern's star stands for its first labels", "not here", help);
    }
    let is_v6 = name.starts_with('[') && name.ends_with(']');
    if !is_v6 && let Some((_, port)) = name.split_once(':') {
        let label = format!("the port {:?} is not part of it", clip(port));
        return value.fail("a host is compared without its port", label, help);
    }
    if !name.is_ascii() {
        return value.fail(
            "a host name is ASCII",
            "is not",
            "write it in punycode, as \"xn--bcher-kva.example\"",
        );
    }
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || (is_v6 && b"[]:".contains(&byte));
    if name.is_empty() || name.starts_with('.') || name.ends_with('.') || !name.bytes().all(valid) {
        return value.fail("this is not a host name", "cannot be one", help);
    }
    Some(format!("{star}{}", name.to_ascii_lowercase()))
}

pub(super) fn method(value: &Value<'_>) -> Option<String> {
    let method = header::token(value)?;
    let upper = method.to_ascii_uppercase();
    if upper != method && METHODS.contains(&upper.as_str()) {
        let help = format!("write {upper:?}");
        return value.fail(
            "methods are compared with their case",
            format!("nobody sends {method:?}"),
            help,
        );
    }
    if upper == method && !METHODS.contains(&method.as_str()) {
        // Unknown methods are fine unless they look like a slip.
        if let Some(near) = suggest::nearest(&method, METHODS.iter().copied()) {
            return value.fail(
                format!("{method:?} is not a common method"),
                "a slip?",
                format!("did you mean `{near}`?"),
            );
        }
    }
    Some(method)
}

/// `10.0.0.0/8`, or an address alone.
pub(in crate::config::lower) fn network(value: &Value<'_>) -> Option<IpNet> {
    let text = value.text()?;
    let help = "write a network as \"10.0.0.0/8\" or \"fd00::/8\", or an address alone";
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => match text.parse::<std::net::IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => return value.fail("this is not a network", "neither an address nor a network", help),
        },
    };
    if network.trunc() != network {
        let message = format!(
            "{} has bits set behind its first {}",
            network.addr(),
            network.prefix_len()
        );
        return value.fail(
            message,
            "outside the network's prefix",
            format!("write \"{}\"", network.trunc()),
        );
    }
    if let Some(plain) = mapped(network) {
        return value.fail(
            "clients with IPv4 addresses are never seen with mapped ones",
            "would never match",
            format!("write \"{plain}\""),
        );
    }
    Some(network)
}

/// The IPv4 network that `::ffff:10.0.0.0/104` means (RFC 4291, section 2.5.5.2).
fn mapped(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(network) = network else { return None };
    let length = network.prefix_len().checked_sub(96)?;
    let address = network.addr().to_ipv4_mapped()?;
    IpNet::new(address.into(), length).ok()
}

/// Methods that are registered and used; others may be written too.
const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];
/// Values of one node that are compared with each other.
const MAX_COMPARED: usize = 200;

//! `"https://%{host}%{uri}"`: texts with variables.
//!
//! A variable is `%{name}`, or `%{name:of-what}` as in `%{header:x-user}`. `%%{` stands for `%{` itself; a `%` before
//! anything else is only that.

use super::edits;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Template, TemplatePart};
use crate::config::reader::{Value, clip};
use crate::config::suggest;

/// When a text is put together, which says what is known then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before a backend is chosen.
    Rule,
    /// When the request goes to its backend.
    Request,
    /// When the server has answered.
    Response,
}

/// Reads a text with variables. Faults are reported where they stand.
pub(super) fn template(value: &Value<'_>, when: When) -> Option<Template> {
    let text = value.any_text()?;
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut well = true;
    let mut at = 0;
    while let Some(found) = text[at..].find('%') {
        let start = at + found;
        literal.push_str(&text[at..start]);
        let rest = &text[start..];
        if rest.starts_with("%%{") {
            literal.push_str("%{");
            at = start + 3;
            continue;
        }
        let Some(inner) = rest.strip_prefix("%{") else {
            literal.push('%');
            at = start + 1;
            continue;
        };
        let Some(length) = inner.find('}') else {
            let error = ConfigError::new(Code::Value, "a variable that is not closed");
            let error = error.label(value.part(start, 2), "a `}` is missing behind this");
            value
                .context()
                .report(error.help("write a variable as %{host}, and `%%{` where `%{` is meant as it stands"));
            return None;
        };
        at = start + 2 + length + 1;
        match variable(value, start + 2, &inner[..length], when) {
            Some(part) => {
                if !literal.is_empty() {
                    parts.push(TemplatePart::Text(std::mem::take(&mut literal)));
                }
                parts.push(part);
            }
            None => well = false,
        }
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        parts.push(TemplatePart::Text(literal));
    }
    if parts.len() > MAX_PARTS {
        let message = format!("a text has at most {MAX_PARTS} parts between and with its variables");
        return value.fail(message, format!("has {}", parts.len()), "use fewer variables");
    }
    well.then_some(Template(parts))
}

fn variable(value: &Value<'_>, start: usize, written: &str, when: When) -> Option<TemplatePart> {
    let fail = |message: String, label: &str, help: Option<String>| {
        let error = ConfigError::new(Code::Reference, message);
        let error = error.label(value.part(start, written.len()), label);
        value.context().report(error.maybe_help(help));
        None
    };
    let (name, of) = match written.split_once(':') {
        Some((name, of)) => (name, Some(of)),
        None => (written, None),
    };
    let Some(known) = VARIABLES.iter().find(|known| known.name == name) else {
        let names: Vec<&str> = VARIABLES.iter().map(|known| known.name).collect();
        let help = suggest::did_you_mean(name, &names, || {
            Some("the reference lists them under `Variables`".to_owned())
        });
        return fail(
            format!("there is no variable {:?}", clip(name)),
            "unknown variable",
            help,
        );
    };
    match (known.of_what, of) {
        (Some(what), None | Some("")) => {
            let help = format!("write %{{{name}:NAME}} with {what}");
            return fail(format!("`{name}` of what?"), "lacks a name", Some(help));
        }
        (None, Some(_)) => {
            let help = format!("write %{{{name}}}");
            return fail(format!("`{name}` takes no name"), "one too many", Some(help));
        }
        _ => {}
    }
    let there = match known.since {
        Since::Always => true,
        Since::Routed => when != When::Rule,
        Since::Answered => when == When::Response,
    };
    if !there {
        let (label, help) = match known.since {
            Since::Answered => ("known when the server has answered", "use it in `response { … }`"),
            _ => (
                "known when the backend has been chosen",
                "use it in `request { … }` or `response { … }`",
            ),
        };
        return fail(format!("`{name}` is not known here"), label, Some(help.to_owned()));
    }
    if let ("header" | "response-header", Some(of)) = (name, of)
        && http::HeaderName::from_bytes(of.as_bytes()).is_err()
    {
        return fail(
            format!("{:?} is not a header's name", clip(of)),
            "has characters that a name cannot have",
            Some(NAME_HELP.to_owned()),
        );
    }
    if let ("cookie", Some(of)) = (name, of)
        && !edits::is_token(of)
    {
        return fail(
            format!("{:?} is not a cookie's name", clip(of)),
            "has characters that a name cannot have",
            Some(NAME_HELP.to_owned()),
        );
    }
    Some(match name {
        "frontend" => TemplatePart::Frontend,
        "backend" => TemplatePart::Backend,
        "time" => TemplatePart::Fact("local-time:UTC".to_owned()),
        "header" | "response-header" => TemplatePart::Fact(written.to_ascii_lowercase()),
        _ => TemplatePart::Fact(written.to_owned()),
    })
}

/// A variable: an attribute of the contract, mostly under its name there.
struct Variable {
    name: &'static str,
    /// What the name behind the colon is of; none for what has none.
    of_what: Option<&'static str>,
    since: Since,
}

/// From when on something is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Since {
    Always,
    Routed,
    Answered,
}

const fn of_request(name: &'static str) -> Variable {
    Variable {
        name,
        of_what: None,
        since: Since::Always,
    }
}

const fn named(name: &'static str, of_what: &'static str) -> Variable {
    Variable {
        name,
        of_what: Some(of_what),
        since: Since::Always,
    }
}

const fn later(name: &'static str, of_what: Option<&'static str>, since: Since) -> Variable {
    Variable { name, of_what, since }
}

/// All variables. One that is an attribute of the contract under the same name needs no more than its line here.
const VARIABLES: &[Variable] = &[
    of_request("alpn"),
    of_request("authority"),
    later("backend", None, Since::Routed),
    of_request("client-cert-cn"),
    of_request("client-cert-fingerprint"),
    of_request("client-cert-issuer"),
    of_request("client-cert-san"),
    of_request("client-cert-serial"),
    of_request("client-cert-subject"),
    of_request("client-ip"),
    of_request("client-port"),
    named("cookie", "a cookie's name"),
    of_request("frontend"),
    named("header", "a header's name"),
    of_request("host"),
    of_request("http-version"),
    of_request("local-ip"),
    of_request("local-port"),
    of_request("method"),
    of_request("path"),
    of_request("query"),
    named("query-param", "a parameter's name"),
    later("response-header", Some("a header's name"), Since::Answered),
    of_request("scheme"),
    later("server", None, Since::Answered),
    of_request("sni"),
    later("status", None, Since::Answered),
    of_request("time"),
    of_request("tls-version"),
    of_request("uri"),
];

/// The attributes that variables stand for, each with a name where it takes one: for a test that the host knows them all.
#[cfg(test)]
pub fn attributes() -> Vec<String> {
    VARIABLES
        .iter()
        .filter(|known| !matches!(known.name, "frontend" | "backend"))
        .map(|known| match (known.name, known.of_what) {
            ("time", _) => "local-time:UTC".to_owned(),
            (name, Some(_)) => format!("{name}:x"),
            (name, None) => name.to_owned(),
        })
        .collect()
}

const NAME_HELP: &str = "a name has letters, digits and - _ . ! # $ % & ' * + ^ ` | ~ (RFC 9110, section 5.6.2)";

/// Each part is looked up and written for every request.
const MAX_PARTS: usize = 32;

//! Names and values of headers, where they are read and where edits write them.

use super::template::{When, template};
use crate::config::model::{OWN_FIELDS, Template};
use crate::config::reader::{Value, clip};
use crate::config::token::is_token;

/// A header's name, lower-case, whatever is done with it.
pub(super) fn header_name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    match http::HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) => Some(name.as_str().to_owned()),
        Err(_) => value.fail(
            format!("{:?} is not a header's name", clip(text)),
            "has characters that a name cannot have",
            "a name has letters, digits and - _ . ! # $ % & ' * + ^ ` | ~ (RFC 9110, section 5.1)",
        ),
    }
}

/// A token of RFC 9110, as a method or a cookie's name.
pub(super) fn token(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if is_token(text) {
        return Some(text.to_owned());
    }
    value.fail(
        format!("{} cannot be {:?}", value.title(), clip(text)),
        "has characters that cannot be there",
        "it has letters, digits and - _ . ! # $ % & ' * + ^ ` | ~ (RFC 9110, section 5.6.2)",
    )
}

/// A header's name that an edit may name: not one that belongs to the connection or the framing.
pub(super) fn editable_header(value: &Value<'_>) -> Option<String> {
    let name = header_name(value)?;
    let Some((_, why)) = OWN_FIELDS.iter().find(|(refused, _)| *refused == name) else {
        return Some(name);
    };
    let help = match name.as_str() {
        "host" => "write `set-host` in `request { … }` to ask servers for another one",
        _ => "the gateway writes this header itself",
    };
    value.fail(format!("`{name}` cannot be edited"), *why, help)
}

/// A header's value with variables.
pub(super) fn header_template(value: &Value<'_>, phase: When) -> Option<Template> {
    let template = template(value, phase)?;
    match template.as_plain() {
        Some(text) => check_value(value, text)?,
        None => template.texts().try_for_each(|text| check_characters(value, text))?,
    }
    Some(template)
}

/// A header's value without variables.
pub(super) fn header_value(value: &Value<'_>) -> Option<String> {
    let text = value.any_text()?;
    check_value(value, text)?;
    Some(text.to_owned())
}

fn check_value(value: &Value<'_>, text: &str) -> Option<()> {
    check_characters(value, text)?;
    if text.trim_matches([' ', '\t']) != text {
        let help = "white space around a value is not part of it (RFC 9110, section 5.5): leave it out";
        return value.fail(
            "a header's value neither begins nor ends with white space",
            "does",
            help,
        );
    }
    Some(())
}

pub(super) fn check_characters(value: &Value<'_>, text: &str) -> Option<()> {
    if http::HeaderValue::from_bytes(text.as_bytes()).is_err() {
        let help = "a header's value has no control characters but tabs";
        return value.fail(
            "this cannot be a header's value",
            "has a character that cannot be there",
            help,
        );
    }
    Some(())
}

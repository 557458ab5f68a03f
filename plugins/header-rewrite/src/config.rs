//! The configuration, as the gateway writes it.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The whole of it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Edits of requests, in order.
    #[serde(default)]
    pub request: Vec<RequestEdit>,
    /// Edits of responses, in order.
    #[serde(default)]
    pub response: Vec<ResponseEdit>,
}

/// An edit of a request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestEdit {
    /// Replaces every value of a header by this one.
    SetHeader(HeaderValue),
    /// Adds a value to a header.
    AddHeader(HeaderValue),
    /// Removes every value of a header.
    DeleteHeader(HeaderName),
    /// Replaces something in each value of a header.
    ReplaceHeader(HeaderReplace),
    /// Replaces the path.
    SetPath(Template),
    /// Replaces something in the path.
    RewritePath(Replace),
    /// Puts this before the path.
    AddPrefix(Template),
    /// Takes these first segments off the path, where it begins with them.
    StripPrefix(String),
    /// Replaces the query; an empty one takes it away.
    SetQuery(Template),
    /// Replaces something in the query.
    RewriteQuery(Replace),
    /// Replaces every value of a parameter of the query by this one, or adds it.
    SetQueryParam(QueryParam),
    /// Removes every value of a parameter of the query.
    DeleteQueryParam(String),
    /// An edit that is made when a condition holds.
    When(When<RequestEdit>),
}

/// An edit of a response.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResponseEdit {
    /// As for requests.
    SetHeader(HeaderValue),
    /// As for requests.
    AddHeader(HeaderValue),
    /// As for requests.
    DeleteHeader(HeaderName),
    /// As for requests.
    ReplaceHeader(HeaderReplace),
    /// Replaces something in the Location header.
    RewriteLocation(Replace),
    /// Changes scheme and host of an absolute Location.
    MoveLocation(LocationChange),
    /// Replaces the status.
    SetStatus(u16),
    /// An edit that is made when a condition holds.
    When(When<ResponseEdit>),
}

/// An edit with a condition.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When<E> {
    /// Which of the exchange's conditions; see the attribute `condition`.
    pub condition: u32,
    /// The edit.
    pub edit: Box<E>,
}

/// A text with facts in it. In JSON a string, or a list of `{"text": …}` and `{"fact": …}`, the latter with an attribute's
/// name.
#[derive(Debug, Clone, Default)]
pub struct Template(pub Vec<Part>);

/// A part of a text.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// As it is.
    Text(String),
    /// What an attribute has for the exchange.
    Fact(String),
}

/// A header and a value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderValue {
    /// The name.
    pub name: String,
    /// The value.
    pub value: Template,
}

/// A query's parameter and a value, both decoded.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryParam {
    /// The name.
    pub name: String,
    /// The value.
    pub value: Template,
}

/// Where an absolute Location leads instead.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocationChange {
    /// The scheme; its own when none.
    pub scheme: Option<String>,
    /// The host, perhaps with a port; its own when none.
    pub host: Option<String>,
}

/// A header.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderName {
    /// The name.
    pub name: String,
}

/// A replacement in a header's values. One of `prefix` and `regex` is there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderReplace {
    /// The header's name.
    pub name: String,
    /// The beginning that is replaced.
    pub prefix: Option<String>,
    /// The pattern whose first match is replaced.
    pub regex: Option<String>,
    /// By what. After `regex`, `$1` and `${name}` stand for captures and `$$` for a dollar.
    pub to: Template,
}

/// A replacement in a text. One of `prefix` and `regex` is there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    /// The beginning that is replaced.
    pub prefix: Option<String>,
    /// The pattern whose first match is replaced.
    pub regex: Option<String>,
    /// By what. After `regex`, `$1` and `${name}` stand for captures and `$$` for a dollar.
    pub to: Template,
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Template;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or its parts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Template, E> {
                Ok(Template(vec![Part::Text(text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Template, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = list.next_element()? {
                    parts.push(part);
                }
                Ok(Template(parts))
            }
        }
        deserializer.deserialize_any(Parts)
    }
}

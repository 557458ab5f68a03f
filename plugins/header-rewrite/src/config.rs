//! The configuration, as the gateway writes it.

use serde::Deserialize;

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
    /// Replaces something in the path.
    RewritePath(Replace),
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
}

/// A header and a value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderValue {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
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
    pub to: String,
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
    pub to: String,
}

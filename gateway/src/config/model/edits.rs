//! Edits of requests and responses.

use serde::Serialize;

/// An edit of a request. Serialises to the configuration of the `header-rewrite` component.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestEdit {
    /// `set-header "X-Pool" "api"`.
    SetHeader(HeaderValue),
    /// `add-header "X-Via" "edge"`.
    AddHeader(HeaderValue),
    /// `delete-header "X-Debug"`.
    DeleteHeader(HeaderName),
    /// `replace-header "X-Id" regex="^a" to="b"`: in each value.
    ReplaceHeader(HeaderReplace),
    /// `rewrite-path prefix="/old/" to="/new/"`, or `regex=`.
    RewritePath(Replace),
}

/// An edit of a response. Serialises to the configuration of the `header-rewrite` component.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// `rewrite-location prefix="http://" to="https://"`, or `regex=`: edits the Location header.
    RewriteLocation(Replace),
}

/// A header and a value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeaderValue {
    /// Lower-case.
    pub name: String,
    /// The value.
    pub value: String,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeaderName {
    /// Lower-case.
    pub name: String,
}

/// A replacement in a header's values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeaderReplace {
    /// Lower-case.
    pub name: String,
    /// What becomes what.
    #[serde(flatten)]
    pub replace: Replace,
}

/// A replacement in a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replace {
    /// What is replaced.
    #[serde(flatten)]
    pub from: ReplaceFrom,
    /// By what. After `regex`, `$1` and `${name}` stand for captures and `$$` for a dollar.
    pub to: String,
}

/// What a replacement replaces. Where it is not found, nothing changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplaceFrom {
    /// The text's beginning.
    Prefix(String),
    /// The first match.
    Regex(String),
}

//! Edits of requests and responses.

use serde::Serialize;

use super::{Condition, StatusSet, Template};

/// An edit, and when it is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditional<E> {
    /// What is edited.
    pub edit: E,
    /// When; none means always. Asked about the request as it came, for responses too.
    pub when: Option<Condition>,
    /// `if-status="500-599"`: of which responses; none means of any. None for requests.
    pub statuses: Option<StatusSet>,
    /// `always`: also of responses that the gateway makes by itself. Not for requests.
    pub is_always: bool,
}

impl<E> Conditional<E> {
    /// What it depends on; none when that is nothing.
    pub fn condition(&self) -> Option<EditCondition> {
        let condition = EditCondition {
            when: self.when.clone(),
            statuses: self.statuses,
        };
        (condition.when.is_some() || condition.statuses.is_some()).then_some(condition)
    }
}

/// What an edit depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct EditCondition {
    /// Of the request.
    pub when: Option<Condition>,
    /// Of the response.
    pub statuses: Option<StatusSet>,
}

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
    /// `set-path "/maintenance"`.
    SetPath(Template),
    /// `rewrite-path prefix="/old/" to="/new/"`, or `regex=`.
    RewritePath(Replace),
    /// `add-prefix "/api"`.
    AddPrefix(Template),
    /// `strip-prefix "/api"`: whole segments.
    StripPrefix(String),
    /// `set-query "a=b"`; an empty one takes the query away.
    SetQuery(Template),
    /// `rewrite-query regex="^" to="v=2&"`, or `prefix=`.
    RewriteQuery(Replace),
    /// `set-query-param "v" "2"`.
    SetQueryParam(QueryParam),
    /// `delete-query-param "debug"`.
    DeleteQueryParam(String),
    /// `set-host "app.internal:8080"`. Made by the gateway itself: no component may say where a request goes.
    #[serde(skip)]
    SetHost(Template),
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
    /// `rewrite-location scheme="https" host="www.example.net"`: the same where Location is absolute.
    MoveLocation(LocationChange),
    /// `set-status 404`.
    SetStatus(u16),
}

/// Bytes that one call of a component may write into a head: as much as most servers take of a whole head.
pub const MAX_EDIT_BYTES: usize = 16 * 1024;

/// Fields that only the gateway writes, and why: hop-by-hop ones (RFC 9110, section 7.6.1), framing, and Host, which chose the route. The
/// SDK's `fields` has the same for plugins.
pub const OWN_FIELDS: [(&str, &str); 14] = [
    ("connection", "belongs to the connection, not to the message"),
    ("content-length", "says how the message is framed"),
    ("host", "says where the request goes"),
    ("http2-settings", "belongs to the connection, not to the message"),
    ("keep-alive", "belongs to the connection, not to the message"),
    ("proxy-authenticate", "belongs to the connection, not to the message"),
    (
        "proxy-authentication-info",
        "belongs to the connection, not to the message",
    ),
    ("proxy-authorization", "belongs to the connection, not to the message"),
    ("proxy-connection", "belongs to the connection, not to the message"),
    ("proxy-status", "belongs to the proxy that writes it"),
    ("te", "belongs to the connection, not to the message"),
    ("trailer", "says how the message is framed"),
    ("transfer-encoding", "says how the message is framed"),
    ("upgrade", "belongs to the connection, not to the message"),
];

/// Edits that one call of a component may make, and header fields that one reply may have: more than any policy known to us makes.
pub const MAX_CALL_EDITS: usize = 128;

/// What an edit does to a header.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// This is its value.
    Set(&'a Template),
    /// This is a value more.
    Add(&'a Template),
    /// It has no values.
    Delete,
    /// Its values become others, as they are.
    Replace,
}

/// An edit, perhaps of a header.
pub trait EditsHeaders {
    /// Which, lower-case, and what it does to it.
    fn header(&self) -> Option<(&str, Change<'_>)>;
}

impl EditsHeaders for RequestEdit {
    fn header(&self) -> Option<(&str, Change<'_>)> {
        match self {
            Self::SetHeader(header) => Some((&header.name, Change::Set(&header.value))),
            Self::AddHeader(header) => Some((&header.name, Change::Add(&header.value))),
            Self::DeleteHeader(header) => Some((&header.name, Change::Delete)),
            Self::ReplaceHeader(header) => Some((&header.name, Change::Replace)),
            _ => None,
        }
    }
}

impl EditsHeaders for ResponseEdit {
    fn header(&self) -> Option<(&str, Change<'_>)> {
        match self {
            Self::SetHeader(header) => Some((&header.name, Change::Set(&header.value))),
            Self::AddHeader(header) => Some((&header.name, Change::Add(&header.value))),
            Self::DeleteHeader(header) => Some((&header.name, Change::Delete)),
            Self::ReplaceHeader(header) => Some((&header.name, Change::Replace)),
            Self::RewriteLocation(_) | Self::MoveLocation(_) => Some(("location", Change::Replace)),
            Self::SetStatus(_) => None,
        }
    }
}

/// What edits come to in one call of a component.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Changes of header fields.
    pub edits: usize,
    /// Bytes of names and values.
    pub bytes: usize,
}

impl Written {
    /// Whether one call may come to that.
    pub fn fits(self) -> bool {
        self.edits <= MAX_CALL_EDITS && self.bytes <= MAX_EDIT_BYTES
    }
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, more: Self) {
        self.edits += more.edits;
        self.bytes += more.bytes;
    }
}

/// What these edits, one after the other, come to in one head, between a frontend and a backend of these names and without what other variables
/// stand for.
///
/// As the component counts it, which refuses what is more. Where something depends on a condition, on a variable or on the values that
/// are there, it keeps room for all of it; otherwise a later edit takes away what was written before.
fn most_written<'a, E: EditsHeaders + 'a>(
    edits: impl Iterator<Item = &'a Conditional<E>>,
    (frontend, backend): (&str, &str),
) -> Written {
    struct Header<'a> {
        name: &'a str,
        depends: bool,
        all: Written,
        last: Written,
        /// Of what was there nothing is left, and nothing stands in its place.
        is_deleted: bool,
    }
    let mut headers: Vec<Header<'_>> = Vec::new();
    for conditional in edits {
        let Some((name, change)) = conditional.edit.header() else {
            continue;
        };
        let known = headers.iter().position(|header| header.name == name);
        let position = known.unwrap_or(headers.len());
        let nothing = Written {
            edits: 1,
            bytes: name.len(),
        };
        if known.is_none() {
            headers.push(Header {
                name,
                depends: false,
                all: nothing,
                last: Written::default(),
                is_deleted: false,
            });
        }
        let header = &mut headers[position];
        header.depends |= conditional.when.is_some() || conditional.statuses.is_some();
        match change {
            Change::Set(value) | Change::Add(value) => {
                let is_added = matches!(change, Change::Add(_)) && !header.is_deleted;
                let value_written = Written {
                    edits: 1,
                    bytes: name.len() + value.fixed_length(frontend, backend),
                };
                header.depends |= value.has_facts();
                header.all += value_written;
                match is_added {
                    true => header.last += value_written,
                    false => header.last = value_written,
                }
                header.is_deleted = false;
            }
            Change::Delete => {
                header.last = nothing;
                header.is_deleted = true;
            }
            Change::Replace => header.depends = true,
        }
    }
    let mut most = Written::default();
    for header in headers {
        most += if header.depends { header.all } else { header.last };
    }
    most
}

/// What they come to in any one call: all of them in a message that is passed on, and those with `always` in what the gateway answers.
/// The most that would not do, or the former.
pub fn most_written_in_a_call<'a, E: EditsHeaders + 'a>(
    edits: impl Iterator<Item = &'a Conditional<E>> + Clone,
    names: (&str, &str),
) -> Written {
    let passed_on = most_written(edits.clone(), names);
    let answered = most_written(edits.filter(|edit| edit.is_always), names);
    match passed_on.fits() && !answered.fits() {
        true => answered,
        false => passed_on,
    }
}

impl RequestEdit {
    /// The same with the names of frontend and backend put into its texts.
    #[must_use]
    pub fn named(&self, frontend: &str, backend: &str) -> Self {
        let named = |template: &Template| template.named(frontend, Some(backend));
        match self {
            Self::SetHeader(header) => Self::SetHeader(header.named(named)),
            Self::AddHeader(header) => Self::AddHeader(header.named(named)),
            Self::ReplaceHeader(header) => Self::ReplaceHeader(HeaderReplace {
                name: header.name.clone(),
                replace: header.replace.named(named),
            }),
            Self::SetPath(path) => Self::SetPath(named(path)),
            Self::RewritePath(replace) => Self::RewritePath(replace.named(named)),
            Self::AddPrefix(prefix) => Self::AddPrefix(named(prefix)),
            Self::SetQuery(query) => Self::SetQuery(named(query)),
            Self::RewriteQuery(replace) => Self::RewriteQuery(replace.named(named)),
            Self::SetQueryParam(parameter) => Self::SetQueryParam(QueryParam {
                name: parameter.name.clone(),
                value: named(&parameter.value),
            }),
            Self::SetHost(host) => Self::SetHost(named(host)),
            Self::DeleteHeader(_) | Self::StripPrefix(_) | Self::DeleteQueryParam(_) => self.clone(),
        }
    }

    /// The replacement that it makes, if it makes one.
    pub fn replace(&self) -> Option<&Replace> {
        match self {
            Self::ReplaceHeader(header) => Some(&header.replace),
            Self::RewritePath(replace) | Self::RewriteQuery(replace) => Some(replace),
            _ => None,
        }
    }
}

impl ResponseEdit {
    /// The same with the names of frontend and backend put into its texts.
    #[must_use]
    pub fn named(&self, frontend: &str, backend: &str) -> Self {
        let named = |template: &Template| template.named(frontend, Some(backend));
        match self {
            Self::SetHeader(header) => Self::SetHeader(header.named(named)),
            Self::AddHeader(header) => Self::AddHeader(header.named(named)),
            Self::ReplaceHeader(header) => Self::ReplaceHeader(HeaderReplace {
                name: header.name.clone(),
                replace: header.replace.named(named),
            }),
            Self::RewriteLocation(replace) => Self::RewriteLocation(replace.named(named)),
            Self::DeleteHeader(_) | Self::MoveLocation(_) | Self::SetStatus(_) => self.clone(),
        }
    }

    /// The replacement that it makes, if it makes one.
    pub fn replace(&self) -> Option<&Replace> {
        match self {
            Self::ReplaceHeader(header) => Some(&header.replace),
            Self::RewriteLocation(replace) => Some(replace),
            _ => None,
        }
    }
}

/// A header and a value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeaderValue {
    /// Lower-case.
    pub name: String,
    /// The value.
    pub value: Template,
}

impl HeaderValue {
    fn named(&self, named: impl Fn(&Template) -> Template) -> Self {
        Self {
            name: self.name.clone(),
            value: named(&self.value),
        }
    }
}

/// A query's parameter and a value, which is written percent-encoded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueryParam {
    /// The name, decoded.
    pub name: String,
    /// The value, decoded.
    pub value: Template,
}

/// Where an absolute Location leads instead.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LocationChange {
    /// `http` or `https`; its own when none.
    pub scheme: Option<&'static str>,
    /// The host, perhaps with a port; its own when none.
    pub host: Option<String>,
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
    pub to: Template,
}

impl Replace {
    /// With how much a value is compared; see [`Match::comparisons`](super::Match::comparisons).
    pub fn comparisons(&self) -> usize {
        match self.from {
            ReplaceFrom::Prefix(_) => 1,
            ReplaceFrom::Regex(_) => super::REGEX_COMPARISONS,
        }
    }

    fn named(&self, named: impl Fn(&Template) -> Template) -> Self {
        Self {
            from: self.from.clone(),
            to: named(&self.to),
        }
    }
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

//! Rules that end a request before a server is asked, pages for errors, and what paths are read as.

use std::path::PathBuf;

use gateway_plugin_template::Place;

use super::{Acl, At, BackendId, Condition, Conditional, Origin, RequestEdit, ResponseEdit, Route, Template};

/// `deny`, `redirect` or `return`. The rules of a frontend are gone through in the order of the text, and the first that
/// holds ends the request.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// When; none means always.
    pub when: Option<Condition>,
    /// Where it stands, for the log lines of what it ends.
    pub origin: Origin,
}

/// What a tenant decides of requests for its hosts, or of connections for them, behind what the operator has decided in the frontend.
#[derive(Debug, Clone, Default)]
pub struct TenantRules {
    /// Its acls, those without a name behind the others.
    pub acls: Vec<Acl>,
    /// `deny`, `redirect` and `return`, in order; of connections, `deny`.
    pub rules: Vec<Rule>,
    /// `if=` and `unless=` of its uses of plugins, which name them by their positions; at most 64.
    pub uses: Vec<Condition>,
    /// `use-backend`, in order: where goes what the frontend's own leave to its `default-backend`.
    pub routes: Vec<Route>,
    /// `request { … }`, in order: edits of headers. Of connections there are none, nor of responses.
    pub request_edits: Vec<Conditional<RequestEdit>>,
    /// `response { … }`, in order.
    pub response_edits: Vec<Conditional<ResponseEdit>>,
    /// Where the last of all that stands, for faults of it as a whole; none where there is nothing.
    pub last: Option<Origin>,
}

/// `quota acls=64 rules=100 patterns=1000`: how much a tenant may have asked and decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleQuota {
    /// Acls, those counted that have no name.
    pub acls: usize,
    /// Rules, `use-backend` and edits counted.
    pub rules: usize,
    /// Values and names that a request is compared with.
    pub patterns: usize,
}

impl RuleQuota {
    /// As many acls as one call of the `acl` component answers; more rules than people write by hand, gone through in a microsecond;
    /// and the paths of a large site, or a hundred regular expressions: comparing a request with all of them takes some tens of
    /// microseconds, and compiling these some tenths of a second of each load.
    pub const DEFAULT: Self = Self {
        acls: 64,
        rules: 100,
        patterns: 1_000,
    };
}

impl TenantRules {
    /// Whether something is decided.
    pub fn is_any(&self) -> bool {
        !self.rules.is_empty() || !self.uses.is_empty() || !self.routes.is_empty() || self.edits_any()
    }

    /// Whether something is edited.
    pub fn edits_any(&self) -> bool {
        !self.request_edits.is_empty() || !self.response_edits.is_empty()
    }

    /// The backends that it leads to, and where that is said.
    pub fn backends(&self) -> impl Iterator<Item = (BackendId, &Origin)> {
        let routes = self.routes.iter();
        routes.flat_map(|route| route.to.backends().iter().map(|id| (*id, &route.origin)))
    }

    /// All that decisions depend on.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        let of_rules = self.rules.iter().filter_map(|rule| rule.when.as_ref());
        let of_routes = self.routes.iter().filter_map(|route| route.when.as_ref());
        let of_requests = self.request_edits.iter().filter_map(|edit| edit.when.as_ref());
        let of_responses = self.response_edits.iter().filter_map(|edit| edit.when.as_ref());
        let of_edits = of_requests.chain(of_responses);
        of_rules.chain(&self.uses).chain(of_routes).chain(of_edits)
    }

    /// Whether something that is decided asks for the acl at this position.
    pub fn asks(&self, acl: usize) -> bool {
        self.conditions().any(|when| when.names(acl))
    }
}

/// What a rule does.
#[derive(Debug, Clone)]
pub enum Action {
    /// `deny status=403`: the response's status, 400 to 599. In TCP mode the connection is closed.
    Deny(u16),
    /// `redirect scheme="https"`.
    Redirect(Box<Redirect>),
    /// `return status=200 { … }`.
    Return(Box<Return>),
}

/// `redirect scheme="https" code=301`.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// Where to.
    pub to: RedirectTo,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
    /// Whether the request's query follows.
    pub keeps_query: bool,
    /// `set-cookie="seen=1"`: a cookie to set on the way, for all paths.
    pub set_cookie: Option<String>,
}

/// Where a redirect leads.
#[derive(Debug, Clone, PartialEq)]
pub enum RedirectTo {
    /// `scheme=`, `host=` and `port=`, at least one of them: the same path elsewhere.
    Authority {
        /// The scheme; the request's unless said.
        scheme: Option<Scheme>,
        /// The host, perhaps with a port; the request's unless said.
        host: Option<Template>,
        /// The port. Unless said, the request's where the host and the scheme stay, else the scheme's own.
        port: Option<u16>,
    },
    /// `prefix=`: this, and the request's path behind it.
    Prefix(Template),
    /// `location=`: this.
    Location(Template),
    /// `regex=` and `location=`: this, with parts of the request's path in it.
    Matched(Matched),
}

/// `regex="^/old/(.*)$" location="/new/$1"`: the rule holds where the request's path matches, which an acl beside its condition asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Matched {
    /// The regular expression.
    pub regex: String,
    /// Where to.
    pub location: Vec<LocationPart>,
}

/// A part of where a redirect leads.
#[derive(Debug, Clone, PartialEq)]
pub enum LocationPart {
    /// A text with variables.
    Text(Template),
    /// What a capture of the expression has matched.
    Capture {
        /// Its number; 0 is all that the expression has matched.
        number: usize,
        /// Whether it stands as the value of a query's parameter.
        is_value: bool,
    },
}

impl Matched {
    /// The captures that it needs, each once.
    pub fn captures(&self) -> Vec<usize> {
        let mut captures = Vec::new();
        for part in &self.location {
            if let LocationPart::Capture { number, .. } = part
                && !captures.contains(number)
            {
                captures.push(*number);
            }
        }
        captures
    }
}

/// How a URI begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that goes without saying.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// `return status=200 { header "X-A" "b"; body "ok" }`: a response that is made here.
#[derive(Debug, Clone)]
pub struct Return {
    /// 200 to 599.
    pub status: u16,
    /// Header fields, in order; names are lower-case.
    pub headers: Vec<(String, Template)>,
    /// What is in it.
    pub content: Content,
}

/// What is in a response that is made here.
#[derive(Debug, Clone)]
pub enum Content {
    /// Nothing.
    Empty,
    /// `body "…"`.
    Text {
        /// The text.
        text: Template,
        /// What it is.
        content_type: String,
        /// How variables are written into it.
        place: Place,
    },
    /// `file "…"`: read when the configuration is loaded.
    File {
        /// The file.
        path: At<PathBuf>,
        /// What it is.
        content_type: String,
    },
}

/// `error-page 503 "503.http"`: what is sent in place of the gateway's own words for a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// 400 to 599.
    pub status: u16,
    /// The file.
    pub path: At<PathBuf>,
    /// Whether it holds a whole response, as HAProxy's `errorfile`, or content alone of this type.
    pub content_type: Option<&'static str>,
    /// `intercept`: it takes the place of servers' answers with this status, too.
    pub intercepts: bool,
    /// Where it stands.
    pub origin: Origin,
}

/// `normalize-path merge-slashes escaped-slashes="reject"`: what becomes of a path before anything looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormalizePath {
    /// `merge-slashes`: of several slashes in a row, one is left.
    pub merges_slashes: bool,
    /// What becomes of slashes and backslashes that are percent-encoded, and of backslashes.
    pub escaped_slashes: EscapedSlashes,
}

/// What becomes of `%2F`, `%5C` and `\` in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// They are no slashes, and stay.
    Keep,
    /// The request is refused.
    Reject,
    /// They become slashes.
    Decode,
}

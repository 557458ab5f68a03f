//! The hooks: what a plugin can be asked, and what it can answer.

use std::fmt;

use crate::connection::Connection;
use crate::edits::{EditRefused, RequestEdits, ResponseEdits};
use crate::plugin::Plugin;
use crate::request::Request;
use crate::response::Response;

/// Named yes-or-no questions about a request, all answered in one call.
pub trait AccessControl: Plugin {
    /// The questions' names, at most 64. The configuration of a frontend refers to a predicate by its name.
    fn predicates(&self) -> Vec<String>;

    /// Answers all of them.
    fn evaluate(&self, request: &Request<'_>) -> Answers;
}

/// Decides whether a request is within its limits. Count with [`buckets`](crate::buckets), so that all workers count
/// together.
pub trait RateLimit: Plugin {
    /// Decides on one request; none when no limit applies to it.
    fn check(&self, request: &Request<'_>) -> Option<LimitVerdict>;
}

/// Sees a request's head after routing: edits it, or answers it.
pub trait RequestFilter: Plugin {
    /// Called once per request. A reply is sent instead of asking a server.
    ///
    /// # Errors
    /// Abandons the call as a trap would: edits are discarded, and the operator's `on-failure` decides.
    fn on_request(&self, request: &Request<'_>, edits: &mut RequestEdits) -> Result<Option<Reply>, Failure>;
}

/// Sees the head of a server's response and edits it.
pub trait ResponseFilter: Plugin {
    /// Called once per response that came from a server.
    ///
    /// # Errors
    /// Abandons the call as a trap would: edits are discarded, and the operator's `on-failure` decides.
    fn on_response(&self, response: &Response<'_>, edits: &mut ResponseEdits) -> Result<(), Failure>;
}

/// TCP mode: decides on a connection before a server is chosen.
pub trait ConnectionFilter: Plugin {
    /// Called once per connection.
    fn on_connect(&self, connection: &Connection<'_>) -> ConnectionVerdict;
}

/// The answers to the questions of an [`AccessControl`]: bit `i` answers the `i`-th.
///
/// A plugin with one question returns `answer.into()`; one with several collects an iterator of `bool`s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answers(u64);

impl Answers {
    /// The answers as bits.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The same with the `index`-th question answered. An index beyond 63 changes nothing: there is no such question.
    #[inline]
    #[must_use]
    pub fn with(self, index: usize, answer: bool) -> Self {
        if index >= MAX_PREDICATES {
            return self;
        }
        let bit = 1 << index;
        Self(if answer { self.0 | bit } else { self.0 & !bit })
    }
}

/// How many predicates a plugin may have: one bit each.
pub(crate) const MAX_PREDICATES: usize = 64;

impl From<bool> for Answers {
    fn from(answer: bool) -> Self {
        Self(u64::from(answer))
    }
}

impl FromIterator<bool> for Answers {
    fn from_iter<I: IntoIterator<Item = bool>>(answers: I) -> Self {
        answers
            .into_iter()
            .take(MAX_PREDICATES)
            .enumerate()
            .fold(Self(0), |bits, (index, answer)| bits.with(index, answer))
    }
}

/// The answer of a [`RateLimit`]. When several limits apply, it describes the one that is nearest to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitVerdict {
    /// Whether the request may go on. If not, the client gets 429.
    pub allowed: bool,
    /// Which of the configured limits decided, from 0; for logs and metrics.
    pub rule: u32,
    /// The limit's size: requests that can be made at once from rest.
    pub limit: u64,
    /// Requests left now.
    pub remaining: u64,
    /// Milliseconds until the next request will be allowed; 0 when one is allowed now.
    pub retry_after_ms: u64,
}

/// A response that a plugin gives in the server's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// An empty response. The host adds `content-length` and `date`.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The header fields, in order.
    pub fn headers(&self) -> &[(String, Vec<u8>)] {
        &self.headers
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionVerdict {
    /// It goes on, to the backend that the configuration says.
    Accept,
    /// It is closed.
    Refuse,
    /// It goes to the named backend, which has to be one that the attachment was granted.
    Route(String),
}

/// Why a filter gave up. The message is seen in native tests; a guest has no way to say more than that it failed, so log
/// what matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure with a reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl From<EditRefused> for Failure {
    fn from(refused: EditRefused) -> Self {
        Self(refused.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

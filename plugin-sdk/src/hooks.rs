//! The hooks: what a plugin can be asked, and what it can answer.

use std::fmt;

use crate::body::{BodyMode, Piece, PieceOutcome};
use crate::call::{Answer, Call, CallError};
use crate::connection::Connection;
use crate::edits::{EditRefused, RequestEdits, ResponseEdits};
use crate::exchange::Exchange;
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
    /// The limits that the configuration sets; at most 64. A verdict refers to one by its position.
    fn policies(&self) -> Vec<LimitPolicy>;

    /// Decides on one request; none when no limit applies to it.
    fn check(&self, request: &Request<'_>) -> Option<LimitVerdict>;
}

/// Sees a request's head after routing: edits it, answers it, or sends it elsewhere.
pub trait RequestFilter: Plugin {
    /// Called once per request.
    ///
    /// # Errors
    /// Abandons the call as a trap would: edits are discarded, and the operator's `on-failure` decides.
    fn on_request(&self, request: &Request<'_>, edits: &mut RequestEdits) -> Result<Outcome, Failure>;
}

/// Gets the answers to the calls that a request filter makes ([`Outcome::Call`]). The instance that gets one need not be the
/// one that asked: what matters is in the call's state.
pub trait CallAnswered: RequestFilter {
    /// The backend has answered, or did not. A request may make at most four calls, one after the other.
    ///
    /// # Errors
    /// Abandons the call as a trap would: edits are discarded, and the operator's `on-failure` decides.
    fn on_answer(
        &self,
        request: &Request<'_>,
        answer: Result<Answer, CallError>,
        state: &[u8],
        edits: &mut RequestEdits,
    ) -> Result<Outcome, Failure>;
}

/// Sees a request's body on its way to the server, with the content coding that the client sent it in.
pub trait RequestBodyFilter: Plugin {
    /// Called once per request that has a body, after the request filters.
    fn on_request_body(&self, request: &Request<'_>) -> BodyMode;

    /// Called for each piece. There is no request to be read then: what matters of it goes into the state.
    ///
    /// # Errors
    /// Abandons the call as a trap would, and the operator's `on-failure` decides.
    fn on_request_piece(&self, piece: Piece) -> Result<PieceOutcome, Failure>;
}

/// Sees the head of a server's response, edits it, or puts another in its place.
pub trait ResponseFilter: Plugin {
    /// Called once per response that came from a server; where the operator uses the plugin so (`use-plugin "name" always`), also once per
    /// response that the gateway or another plugin gives in a server's place: an error, a redirect, a 401. A reply is sent instead of it.
    ///
    /// # Errors
    /// Abandons the call as a trap would: edits are discarded, and the operator's `on-failure` decides.
    fn on_response(&self, response: &Response<'_>, edits: &mut ResponseEdits) -> Result<Option<Reply>, Failure>;
}

/// Sees a response's body on its way to the client, with the content coding that the server sent it in.
pub trait ResponseBodyFilter: Plugin {
    /// Called once per response that has a body or, answering HEAD, says that it would have.
    fn on_response_body(&self, response: &Response<'_>) -> BodyMode;

    /// Called for each piece. There is no request or response to be read then.
    ///
    /// # Errors
    /// Abandons the call as a trap would, and the operator's `on-failure` decides.
    fn on_response_piece(&self, piece: Piece) -> Result<PieceOutcome, Failure>;
}

/// Is told of each exchange when it is over, off the request's path; in TCP mode of each connection, of which nothing is known that is
/// of a request: there is a method exactly where there was one.
pub trait AccessLog: Plugin {
    /// Called once per exchange.
    fn on_log(&self, exchange: &Exchange<'_>);
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
    /// Which of [`RateLimit::policies`] decided, from 0.
    pub policy: u32,
    /// Requests left now.
    pub remaining: u64,
    /// Milliseconds until all of the quota is there again.
    pub reset_ms: u64,
    /// Milliseconds until the next request will be allowed; 0 when one is allowed now.
    pub retry_after_ms: u64,
}

/// A limit of a [`RateLimit`]: what clients are told of it, where the operator wants them to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitPolicy {
    /// Its name; printable ASCII, at most 64 characters.
    pub name: String,
    /// Its size: requests that can be made at once from rest.
    pub quota: u64,
    /// Milliseconds in which so many arrive anew.
    pub window_ms: u64,
}

/// What becomes of a request after a filter has seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on, with the edits that were made.
    Proceed,
    /// It ends here: this is sent instead of asking a server.
    Reply(Reply),
    /// It goes on with the edits that were made, to this backend: one that the plugin was granted, or that its frontend uses
    /// anyway.
    Route(String),
    /// It waits until a backend has answered this. Edits that were made are discarded: make them when the answer is there.
    Call(Call),
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

impl From<Call> for Outcome {
    fn from(call: Call) -> Self {
        Self::Call(call)
    }
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
    /// It goes to the named backend, one that the plugin was granted, or that its frontend uses anyway.
    Route(String),
}

/// Why a filter gave up. The message is seen in native tests; a guest has no way to say more than that it failed, so log
/// what matters. Of an edit or a tag that was refused the gateway's own line says why.
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

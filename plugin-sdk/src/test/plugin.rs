//! A configured plugin and its hooks.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use super::attributes;
use super::current::{self, Exchange, Phase, State};
use super::head::{Connection, Request, Response};
use crate::connection::Connection as ConnectionView;
use crate::exchange::Exchange as ExchangeView;
use crate::facts::Facts;
use crate::hooks::MAX_PREDICATES;
use crate::request::Request as RequestView;
use crate::response::Response as ResponseView;
use crate::sys;
use crate::{
    AccessControl, AccessLog, Answer, BodyMode, Call, CallAnswered, CallError, ConnectionFilter, ConnectionVerdict,
    Failure, LimitPolicy, LimitVerdict, Needs, Outcome, Piece, PieceOutcome, PieceVerdict, Plugin, RateLimit, Reply,
    RequestBodyFilter, RequestEdits, RequestFilter, ResponseBodyFilter, ResponseEdits, ResponseFilter,
};

/// A configured plugin under test.
pub struct Tested<P> {
    state: Rc<RefCell<State>>,
    plugin: P,
    needs: Needs,
}

/// A plugin's answers, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered(Vec<(String, bool)>);

/// What a request filter made of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filtered {
    /// The request with the edits made.
    pub request: Request,
    /// The reply given in the server's place.
    pub reply: Option<Reply>,
    /// The backend that it goes to instead of the one that was chosen.
    pub route: Option<String>,
    /// The call that it waits for; the edits are not made then.
    pub call: Option<Call>,
}

/// What a filter made of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilteredBody {
    /// What the receiver gets.
    Bytes(Vec<u8>),
    /// The exchange ended with this.
    Reply(Reply),
    /// The exchange broke off.
    Aborted,
}

impl<P: Plugin> Tested<P> {
    pub(crate) fn new(state: Rc<RefCell<State>>, plugin: P, needs: Needs) -> Self {
        Self { state, plugin, needs }
    }

    /// The attributes that it wants with each request, by their names in the contract.
    pub fn request_needs(&self) -> &[String] {
        self.needs.request.names()
    }

    /// The attributes that it wants with each response.
    pub fn response_needs(&self) -> &[String] {
        self.needs.response.names()
    }

    /// The attributes that it wants with each exchange that is over.
    pub fn log_needs(&self) -> &[String] {
        self.needs.log.names()
    }

    /// The attributes that it wants with each connection.
    pub fn connection_needs(&self) -> &[String] {
        self.needs.connection.names()
    }

    fn on<R>(&self, phase: Phase, request: &Request, call: impl FnOnce(&RequestView<'_>) -> R) -> R {
        let exchange = Exchange::new(phase, Some(request.clone()), request.connection.clone());
        let facts = self.facts(self.needs.request.names(), &exchange);
        current::enter(&self.state, Some(exchange), || {
            call(&RequestView::new(Facts::new(&facts)))
        })
    }

    fn on_response_of<R>(
        &self,
        phase: Phase,
        request: &Request,
        response: &Response,
        call: impl FnOnce(&ResponseView<'_>) -> R,
    ) -> R {
        let mut exchange = Exchange::new(phase, Some(request.clone()), request.connection.clone());
        exchange.response = Some(response.clone());
        let facts = self.facts(self.needs.response.names(), &exchange);
        current::enter(&self.state, Some(exchange), || {
            call(&ResponseView::new(Facts::new(&facts)))
        })
    }

    fn facts(&self, needs: &[String], exchange: &Exchange) -> sys::Facts {
        attributes::facts(needs, exchange, self.state.borrow().now_ms())
    }

    /// What a request filter's step came to.
    fn filtered(&self, request: &Request, outcome: Outcome) -> Filtered {
        let (edits, tags) = current::edits(&self.state);
        let mut filtered = Filtered {
            request: request.clone(),
            reply: None,
            route: None,
            call: None,
        };
        filtered.request.tags.extend(tags);
        match outcome {
            Outcome::Proceed => {}
            Outcome::Reply(reply) => filtered.reply = Some(reply),
            Outcome::Route(backend) => filtered.route = Some(backend),
            Outcome::Call(call) => {
                filtered.call = Some(call);
                return filtered;
            }
        }
        for edit in edits {
            edit.apply_to_request(&mut filtered.request);
        }
        filtered
    }

    /// Feeds a body to a filter as the gateway would.
    fn body(
        &self,
        mode: BodyMode,
        pieces: &[&[u8]],
        filter: impl Fn(Piece) -> Result<PieceOutcome, Failure>,
    ) -> Result<FilteredBody, Failure> {
        let whole = pieces.concat();
        let (pieces, mut may_reply) = match mode {
            BodyMode::Skip => return Ok(FilteredBody::Bytes(whole)),
            BodyMode::BufferedOrSkip { max } if whole.len() as u64 > max => return Ok(FilteredBody::Bytes(whole)),
            BodyMode::Buffered { max } if whole.len() as u64 > max => return Ok(FilteredBody::Aborted),
            BodyMode::Buffered { .. } | BodyMode::BufferedOrSkip { .. } => (vec![whole.as_slice()], true),
            // The end comes by itself: who has handed over a piece does not know yet that nothing follows.
            BodyMode::Streamed => (with_end(pieces), false),
            BodyMode::Held => (with_end(pieces), true),
        };
        let (mut sent, mut state, mut unseen) = (Vec::new(), Vec::new(), false);
        for (position, bytes) in pieces.iter().enumerate() {
            if unseen {
                sent.extend_from_slice(bytes);
                continue;
            }
            let piece = Piece {
                state: std::mem::take(&mut state),
                bytes: bytes.to_vec(),
                last: position + 1 == pieces.len(),
            };
            let outcome = current::enter(&self.state, None, || filter(piece))?;
            state = outcome.state;
            match outcome.verdict {
                PieceVerdict::Pass => sent.extend_from_slice(bytes),
                PieceVerdict::Replace(bytes) => sent.extend(bytes),
                PieceVerdict::PassRest => {
                    sent.extend_from_slice(bytes);
                    unseen = true;
                }
                PieceVerdict::Reply(reply) if may_reply => return Ok(FilteredBody::Reply(reply)),
                PieceVerdict::Reply(_) => return Err(Failure::new("the head has gone: there is no replying now")),
                PieceVerdict::Abort => return Ok(FilteredBody::Aborted),
            }
            may_reply = false;
        }
        Ok(FilteredBody::Bytes(sent))
    }
}

impl<P: AccessControl> Tested<P> {
    /// Answers the plugin's questions about a request.
    ///
    /// # Panics
    /// There are more questions than answers fit.
    pub fn evaluate(&self, request: &Request) -> Answered {
        let names = current::enter(&self.state, None, || self.plugin.predicates());
        assert!(
            names.len() <= MAX_PREDICATES,
            "{} predicates; at most {MAX_PREDICATES}",
            names.len()
        );
        let answers = self.on(Phase::Predicates, request, |request| self.plugin.evaluate(request));
        let numbered = names.into_iter().enumerate();
        Answered(
            numbered
                .map(|(bit, name)| (name, (answers.bits() >> bit) & 1 == 1))
                .collect(),
        )
    }
}

impl<P: RateLimit> Tested<P> {
    /// The limits that its configuration sets.
    pub fn policies(&self) -> Vec<LimitPolicy> {
        current::enter(&self.state, None, || self.plugin.policies())
    }

    /// Decides on a request.
    pub fn check(&self, request: &Request) -> Option<LimitVerdict> {
        self.on(Phase::Limiter, request, |request| self.plugin.check(request))
    }
}

impl<P: RequestFilter> Tested<P> {
    /// Filters a request.
    ///
    /// # Errors
    /// The plugin's failure; its edits are lost then.
    pub fn on_request(&self, request: &Request) -> Result<Filtered, Failure> {
        let outcome = self.on(Phase::RequestFilter, request, |request| {
            self.plugin.on_request(request, &mut RequestEdits::new())
        })?;
        Ok(self.filtered(request, outcome))
    }
}

impl<P: CallAnswered> Tested<P> {
    /// Hands over the answer to a call that [`on_request`](Self::on_request) made for this request.
    ///
    /// # Errors
    /// The plugin's failure; its edits are lost then.
    pub fn on_answer(
        &self,
        request: &Request,
        call: &Call,
        answer: Result<Answer, CallError>,
    ) -> Result<Filtered, Failure> {
        let outcome = self.on(Phase::RequestFilter, request, |request| {
            self.plugin
                .on_answer(request, answer, &call.state, &mut RequestEdits::new())
        })?;
        Ok(self.filtered(request, outcome))
    }
}

impl<P: RequestBodyFilter> Tested<P> {
    /// Filters a request's body, which comes in these pieces.
    ///
    /// # Errors
    /// The plugin's failure.
    pub fn on_request_body(&self, request: &Request, pieces: &[&[u8]]) -> Result<FilteredBody, Failure> {
        let mode = self.on(Phase::RequestBody, request, |request| {
            self.plugin.on_request_body(request)
        });
        self.body(mode, pieces, |piece| self.plugin.on_request_piece(piece))
    }
}

impl<P: ResponseFilter> Tested<P> {
    /// Filters the response to a request; answers what the client gets.
    ///
    /// # Errors
    /// The plugin's failure; its edits are lost then.
    pub fn on_response(&self, request: &Request, response: &Response) -> Result<Response, Failure> {
        let reply = self.on_response_of(Phase::ResponseFilter, request, response, |response| {
            self.plugin.on_response(response, &mut ResponseEdits::new())
        })?;
        let (edits, _) = current::edits(&self.state);
        if let Some(reply) = reply {
            return Ok(Response::of(reply));
        }
        let mut response = response.clone();
        for edit in edits {
            edit.apply_to_response(&mut response);
        }
        Ok(response)
    }
}

impl<P: ResponseBodyFilter> Tested<P> {
    /// Filters a response's body, which comes in these pieces.
    ///
    /// # Errors
    /// The plugin's failure.
    pub fn on_response_body(
        &self,
        request: &Request,
        response: &Response,
        pieces: &[&[u8]],
    ) -> Result<FilteredBody, Failure> {
        let mode = self.on_response_of(Phase::ResponseBody, request, response, |response| {
            self.plugin.on_response_body(response)
        });
        self.body(mode, pieces, |piece| self.plugin.on_response_piece(piece))
    }
}

impl<P: AccessLog> Tested<P> {
    /// Tells it of an exchange. `known` has what is known only when it is over: `status`, `backend`, `duration-us`,
    /// `bytes-sent`, `reason`.
    pub fn on_log(&self, request: &Request, response: Option<&Response>, known: &[(&str, &str)]) {
        let mut exchange = Exchange::new(Phase::AccessLog, Some(request.clone()), request.connection.clone());
        exchange.response = response.cloned();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
        exchange.log = known.iter().map(owned).collect();
        let facts = self.facts(self.needs.log.names(), &exchange);
        current::enter(&self.state, Some(exchange), || {
            self.plugin.on_log(&ExchangeView::new(Facts::new(&facts)));
        });
    }
}

impl<P: ConnectionFilter> Tested<P> {
    /// Decides on a connection.
    pub fn on_connect(&self, connection: &Connection) -> ConnectionVerdict {
        let exchange = Exchange::new(Phase::ConnectionFilter, None, connection.clone());
        let facts = self.facts(self.needs.connection.names(), &exchange);
        current::enter(&self.state, Some(exchange), || {
            self.plugin.on_connect(&ConnectionView::new(Facts::new(&facts)))
        })
    }
}

/// The pieces that hold something, and an empty one for the end.
fn with_end<'a>(pieces: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let pieces = pieces.iter().copied().filter(|piece| !piece.is_empty());
    pieces.chain([&[] as &[u8]]).collect()
}

/// The plugin itself need not be `Debug` for a test to expect an error in its place.
impl<P> fmt::Debug for Tested<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tested")
            .field("needs", &self.needs)
            .finish_non_exhaustive()
    }
}

impl Answered {
    /// Whether the answer to this question is yes.
    ///
    /// # Panics
    /// The plugin has no such question.
    #[allow(clippy::panic, reason = "tests only: the test itself is wrong")]
    pub fn holds(&self, name: &str) -> bool {
        let found = self.0.iter().find(|(known, _)| known == name);
        found
            .unwrap_or_else(|| panic!("no predicate `{name}` in {:?}", self.0))
            .1
    }

    /// The questions that are answered with yes.
    pub fn yes(&self) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(_, answer)| *answer)
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

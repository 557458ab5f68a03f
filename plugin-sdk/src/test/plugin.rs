//! A configured plugin and its hooks.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use super::attributes;
use super::current::{self, Exchange, Phase, State};
use super::head::{Connection, Request, Response};
use crate::connection::Connection as ConnectionView;
use crate::hooks::MAX_PREDICATES;
use crate::request::Request as RequestView;
use crate::response::Response as ResponseView;
use crate::{
    AccessControl, ConnectionFilter, ConnectionVerdict, Failure, LimitVerdict, Needs, Plugin, RateLimit, Reply,
    RequestEdits, RequestFilter, ResponseEdits, ResponseFilter,
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

    /// The attributes that it wants with each connection.
    pub fn connection_needs(&self) -> &[String] {
        self.needs.connection.names()
    }

    fn on<R>(&self, phase: Phase, request: &Request, call: impl FnOnce(&RequestView<'_>) -> R) -> R {
        let exchange = Exchange {
            phase,
            request: Some(request.clone()),
            response: None,
            connection: request.connection.clone(),
            edits: Vec::new(),
        };
        let facts = attributes::facts(self.needs.request.names(), &exchange, self.state.borrow().now_ms());
        current::enter(&self.state, Some(exchange), || call(&RequestView::new(&facts)))
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
        let reply = self.on(Phase::RequestFilter, request, |request| {
            self.plugin.on_request(request, &mut RequestEdits::new())
        })?;
        let mut request = request.clone();
        for edit in current::edits(&self.state) {
            edit.apply_to_request(&mut request);
        }
        Ok(Filtered { request, reply })
    }
}

impl<P: ResponseFilter> Tested<P> {
    /// Filters the response to a request.
    ///
    /// # Errors
    /// The plugin's failure; its edits are lost then.
    pub fn on_response(&self, request: &Request, response: &Response) -> Result<Response, Failure> {
        let exchange = Exchange {
            phase: Phase::ResponseFilter,
            request: Some(request.clone()),
            response: Some(response.clone()),
            connection: request.connection.clone(),
            edits: Vec::new(),
        };
        let facts = attributes::facts(self.needs.response.names(), &exchange, self.state.borrow().now_ms());
        current::enter(&self.state, Some(exchange), || {
            self.plugin
                .on_response(&ResponseView::new(&facts), &mut ResponseEdits::new())
        })?;
        let mut response = response.clone();
        for edit in current::edits(&self.state) {
            edit.apply_to_response(&mut response);
        }
        Ok(response)
    }
}

impl<P: ConnectionFilter> Tested<P> {
    /// Decides on a connection.
    pub fn on_connect(&self, connection: &Connection) -> ConnectionVerdict {
        let exchange = Exchange {
            phase: Phase::ConnectionFilter,
            request: None,
            response: None,
            connection: connection.clone(),
            edits: Vec::new(),
        };
        let facts = attributes::facts(self.needs.connection.names(), &exchange, self.state.borrow().now_ms());
        current::enter(&self.state, Some(exchange), || {
            self.plugin.on_connect(&ConnectionView::new(&facts))
        })
    }
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
